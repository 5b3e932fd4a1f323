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

"""What bounds and the exact mode claim, against all end states there are.

Two oracles, neither of which knows prices: every state that single
migrations reach, with the fewest that it takes; and every end state that the
laws admit, in whatever order it might be reached.
"""

import collections
from collections.abc import Iterator
import dataclasses
import itertools
import math

from hypothesis import assume
from hypothesis import event
from hypothesis import given
from hypothesis import strategies as st
import numpy as np

from watcher_cputier.planner import covering as coverings
from watcher_cputier.planner import exact
from watcher_cputier.planner import knapsacks
from watcher_cputier.planner import prices

State = tuple[tuple[int, ...], ...]


@st.composite
def tiny(draw: st.DrawFn) -> coverings.Covering:
    """Up to four hosts and six instances of up to three kinds."""
    hosts = draw(st.integers(2, 4))
    kinds = draw(st.integers(1, 3))
    place = st.tuples(st.integers(0, hosts - 1), st.integers(0, kinds - 1))
    movable = np.zeros((hosts, kinds), np.int64)
    for host, kind in draw(st.lists(place, min_size=2, max_size=6)):
        movable[host, kind] += 1
    sizes = draw(st.lists(st.integers(1, 5), min_size=kinds, max_size=kinds))
    room = []
    for held in (movable @ np.array(sizes)).tolist():
        # Over quota, as far as what may move covers and sometimes further.
        if held and draw(st.booleans()):
            room.append(-draw(st.integers(1, held + held // 4)))
        else:
            room.append(draw(st.integers(0, 6)))
    # One kind in eight cannot go to a host.
    takes = st.lists(
        st.integers(0, 7).map(lambda n: n != 3),
        min_size=kinds,
        max_size=kinds,
    )
    return coverings.Covering(
        account="gold",
        sizes=np.array(sizes, np.int64),
        movable=movable,
        room=np.array(room, np.int64),
        accepts=np.array([draw(takes) for _ in range(hosts)], bool),
    )


def left_over(covering: coverings.Covering, state: State) -> list[int]:
    """Units over quota per host."""
    gone = covering.movable - np.array(state)
    room = covering.room + gone @ covering.sizes
    return np.maximum(-room, 0).tolist()


def reached(covering: coverings.Covering) -> dict[State, int]:
    """Every state, and the fewest migrations to it: breadth first."""
    hosts, kinds = covering.movable.shape
    first: State = tuple(map(tuple, covering.movable.tolist()))
    sizes = covering.sizes.tolist()
    room = (covering.room + covering.movable @ covering.sizes).tolist()
    found = {first: 0}
    queue = collections.deque([first])
    while queue:
        state = queue.popleft()
        used = [
            sum(n * size for n, size in zip(row, sizes, strict=True))
            for row in state
        ]
        for source, target, kind in itertools.product(
            range(hosts), range(hosts), range(kinds)
        ):
            if (
                source == target
                or not state[source][kind]
                or not covering.accepts[target, kind]
                or used[target] + sizes[kind] > room[target]
            ):
                continue
            rows = [list(row) for row in state]
            rows[source][kind] -= 1
            rows[target][kind] += 1
            after: State = tuple(map(tuple, rows))
            if after not in found:
                found[after] = found[state] + 1
                queue.append(after)
    return found


def spread(count: int, hosts: int) -> Iterator[tuple[int, ...]]:
    """Every way to have so many alike instances on so many hosts."""
    for bars in itertools.combinations(range(count + hosts - 1), hosts - 1):
        edges = (-1, *bars, count + hosts - 1)
        yield tuple(b - a - 1 for a, b in itertools.pairwise(edges))


def admitted(covering: coverings.Covering) -> Iterator[tuple[int, int]]:
    """Residual and migrations of every end state within the laws."""
    hosts, _ = covering.movable.shape
    excess = covering.excess
    totals = covering.movable.sum(axis=0).tolist()
    for columns in itertools.product(*(spread(n, hosts) for n in totals)):
        end = np.array(columns, np.int64).T
        arrived = np.maximum(end - covering.movable, 0)
        if arrived[~covering.accepts].any():
            continue
        gone = covering.movable - end
        left = np.maximum(-(covering.room + gone @ covering.sizes), 0)
        over = left > 0
        if (left > excess).any() or arrived[over].any():
            continue
        yield int(left.sum()), int(arrived.sum())


@given(tiny())
def test_no_plan_is_better_than_its_bounds(
    covering: coverings.Covering,
) -> None:
    """L5 "number of migrations >= the published lower bound", of all plans
    that there are, those with hops included; and no plan leaves fewer units
    over quota or removes more of them than the bounds say.
    """
    types = knapsacks.HostTypes.of(covering)
    plans = [
        (sum(left_over(covering, state)), moves)
        for state, moves in reached(covering).items()
    ]
    best = min(plans)
    event(f"migrations: {min(best[1], 4)}")
    event(f"residual: {bool(best[0])}")
    least = prices.residual_bound(types)
    assert least.value <= best[0]
    for allowed in {least.value, *(left for left, _ in plans)}:
        fewest = [moves for left, moves in plans if left <= allowed]
        found = prices.migration_bound(types, allowed)
        assert found.value >= prices.cover_bound(types, allowed)
        if fewest:
            assert found.value <= min(fewest)
    before = int(covering.excess.sum())
    for limit in range(4):
        relief = max(before - left for left, n in plans if n <= limit)
        assert prices.relief_bound(types, limit).value >= relief


@given(tiny(), st.data())
def test_any_prices_are_valid(
    covering: coverings.Covering, data: st.DataObject
) -> None:
    """No plan costs less than L(p), be the prices ever so odd."""
    price = data.draw(
        st.lists(
            st.floats(0, 20),
            min_size=len(covering.sizes),
            max_size=len(covering.sizes),
        )
    )
    move, weight = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 5)))
    value = prices.evaluate(
        covering, price, move_cost=move, residual_cost=weight
    )
    assert value <= min(
        weight * left + move * moves for left, moves in admitted(covering)
    )


@given(tiny())
def test_a_proven_solution_is_the_optimum(
    covering: coverings.Covering,
) -> None:
    """Least residual, then fewest migrations, of all end states."""
    solution = exact.solve(covering)
    assert solution is not None
    best = min(admitted(covering))
    event(f"proven: {solution.proven}")
    event(f"migrations: {min(best[1], 4)}")
    found = solution.residual, solution.migrations
    assert found >= best
    assert solution.residual_bound <= best[0]
    if solution.residual == best[0]:
        assert solution.migration_bound <= best[1]
    if solution.proven:
        assert found == best
    holds(covering, solution)


def holds(covering: coverings.Covering, solution: exact.Solution) -> None:
    """The solution is an end state within the laws."""
    out, into = solution.out, solution.into
    assert (out >= 0).all()
    assert (out <= covering.movable).all()
    assert (into >= 0).all()
    assert not into[~covering.accepts].any()
    assert (out.sum(axis=0) == into.sum(axis=0)).all()
    left = np.maximum(-(covering.room + (out - into) @ covering.sizes), 0)
    assert (left <= covering.excess).all()
    assert not into[left > 0].any()
    assert left.sum() == solution.residual
    assert out.sum() == solution.migrations


def shuffled(
    covering: coverings.Covering, order: list[int]
) -> coverings.Covering:
    return dataclasses.replace(
        covering,
        movable=covering.movable[order],
        room=covering.room[order],
        accepts=covering.accepts[order],
    )


@given(tiny(), st.data())
def test_the_order_of_hosts_changes_nothing(
    covering: coverings.Covering, data: st.DataObject
) -> None:
    """L4 "permuting hosts and instances never changes the plan"."""
    order = data.draw(st.permutations(range(len(covering.room))))
    other = shuffled(covering, order)
    for bound in (
        prices.residual_bound,
        lambda c: prices.migration_bound(c, 1),
        lambda c: prices.relief_bound(c, 2),
    ):
        one, two = bound(covering), bound(other)
        assert one.value == two.value
        assert one.prices.tobytes() == two.prices.tobytes()
    first, second = exact.solve(covering), exact.solve(other)
    assert first is not None
    assert second is not None
    assert (first.residual, first.migrations, first.proven) == (
        second.residual,
        second.migrations,
        second.proven,
    )
    assert first.prices.tobytes() == second.prices.tobytes()


@given(tiny(), st.integers(2, 7))
def test_units_are_only_a_scale(
    covering: coverings.Covering, factor: int
) -> None:
    larger = dataclasses.replace(
        covering, sizes=covering.sizes * factor, room=covering.room * factor
    )
    price = covering.sizes - 1.0
    for weight in (1.0, 7.0, math.inf):
        assert prices.evaluate(
            covering, price, residual_cost=weight * factor
        ) == prices.evaluate(larger, price, residual_cost=weight)
    one = exact.solve(covering)
    two = exact.solve(larger)
    assert one is not None
    assert two is not None
    assume(one.proven and two.proven)
    assert two.residual == one.residual * factor
    assert two.migrations == one.migrations


@given(tiny(), st.integers(2, 4))
def test_grouped_units_only_weaken_a_bound(
    covering: coverings.Covering, grain: int
) -> None:
    """A grain above 1 admits all that is possible, and more."""
    larger = dataclasses.replace(
        covering, sizes=covering.sizes + 4, room=covering.room * 2
    )
    types = dataclasses.replace(knapsacks.HostTypes.of(larger), grain=grain)
    best = min(admitted(larger))
    assert prices.residual_bound(types).value <= best[0]
    assert prices.migration_bound(types, best[0]).value <= best[1]
    assert exact.solve(types) is None
