# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#      http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.

"""A pattern for every host: valid, and the cheapest where nothing is cut."""

import collections
import itertools

import hypothesis
from hypothesis import strategies as st
import numpy as np
import pytest

from watcher_cputier.planner import knapsacks
from watcher_cputier.planner import prices
from watcher_cputier.planner import selection


@st.composite
def offers(draw):
    """A few types with a few patterns each."""
    kinds = draw(st.integers(1, 3))
    types, moves, slots = [], [], []
    hosts = draw(st.lists(st.integers(1, 2), min_size=1, max_size=3))
    for row in range(len(hosts)):
        for _ in range(draw(st.integers(1, 4))):
            types.append(row)
            moves.append(draw(st.integers(0, 3)))
            slots.append([draw(st.integers(-2, 2)) for _ in range(kinds)])
    price = st.floats(0, 3).map(lambda one: float(knapsacks.grained(one)))
    return selection.Patterns(
        types=np.array(types),
        moves=np.array(moves),
        slots=np.array(slots),
        hosts=np.array(hosts),
        sizes=np.arange(1, kinds + 1),
        prices=np.array([draw(price) for _ in range(kinds)]),
    )


def cheapest(offered):
    """Every choice is looked at; None where none has all slots."""
    rows = [
        np.flatnonzero(offered.types == row).tolist()
        for row, count in enumerate(offered.hosts.tolist())
        for _ in range(count)
    ]
    return min(
        (
            int(offered.moves[list(chosen)].sum())
            for chosen in itertools.product(*rows)
            if (offered.slots[list(chosen)].sum(axis=0) >= 0).all()
        ),
        default=None,
    )


@hypothesis.given(offers())
@hypothesis.settings(deadline=None, max_examples=300)
def test_no_choice_is_cheaper(offered):
    used = selection.select(offered, 99, expired=prices.never)
    best = cheapest(offered)
    if best is None:
        assert used is None
        return
    uses = collections.Counter(np.repeat(offered.types, used).tolist())
    assert [uses[row] for row in range(len(offered.hosts))] == (
        offered.hosts.tolist()
    )
    assert (used @ offered.slots >= 0).all()
    assert used @ offered.moves == best


@hypothesis.given(offers(), st.integers(1, 2))
@hypothesis.settings(deadline=None, max_examples=100)
def test_a_narrow_search_finds_less_and_nothing_wrong(offered, width):
    used = selection.select(offered, 99, expired=prices.never, width=width)
    if used is not None:
        assert (used @ offered.slots >= 0).all()
        assert used @ offered.moves >= cheapest(offered)


def pairs(count):
    """Each host sends one instance to one other, or two elsewhere."""
    one = np.eye(count, dtype=np.int64)
    return selection.Patterns(
        types=np.repeat(np.arange(2 * count), 2),
        moves=np.tile([1, 2, 0, 1], count),
        slots=np.repeat(one, 4, axis=0)
        * np.tile([-1, 0, 0, 1], count)[:, None],
        hosts=np.ones(2 * count, np.int64),
        sizes=np.ones(count, np.int64),
        prices=np.full(count, 0.5),
    )


def test_what_never_meets_is_searched_for_by_itself():
    # Two sums at a time are enough for a pair, and not for all at once.
    used = selection.select(pairs(12), 0, expired=prices.never, width=2)
    assert used is not None
    assert used @ pairs(12).moves == 24


def test_more_than_was_allowed_is_not_returned():
    # Without prices the bound is one, and a choice costs two.
    offered = selection.Patterns(
        types=np.array([0, 1, 1]),
        moves=np.array([1, 0, 1]),
        slots=np.array([[-1], [0], [1]]),
        hosts=np.array([1, 1]),
        sizes=np.array([1]),
        prices=np.array([0.0]),
    )
    assert selection.select(offered, 0, expired=prices.never) is None
    used = selection.select(offered, 1, expired=prices.never)
    assert used is not None
    assert used.tolist() == [1, 0, 1]


@pytest.mark.parametrize("asked", [0, 1, 5])
def test_time_up_gives_none(asked):
    offered = pairs(6)
    calls = itertools.count()
    assert (
        selection.select(offered, 0, expired=lambda: next(calls) >= asked)
        is None
    )
