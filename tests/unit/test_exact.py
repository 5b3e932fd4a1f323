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

"""The exact mode: optimal where it says so, and absent without scipy."""

import dataclasses

import numpy as np
import pytest

from tests import coverings
from watcher_cputier.planner import covering as covering_module
from watcher_cputier.planner import exact
from watcher_cputier.planner import prices


def check(covering, solution):
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


@pytest.mark.parametrize("name", coverings.FAMILIES)
def test_a_hundred_hosts_are_proven_optimal(name):
    covering = coverings.family(name, 100, 1)
    solution = exact.solve(covering)
    check(covering, solution)
    assert solution.proven
    assert solution.residual == solution.residual_bound
    assert solution.migrations == solution.migration_bound


def test_the_published_prices_prove_the_bound():
    covering = coverings.family("odd sizes, holes 0..4", 100, 1)
    solution = exact.solve(covering)
    at_them = prices.migration_bound(covering, start=solution.prices, rounds=0)
    assert at_them.value == solution.migration_bound


def test_bad_prices_to_start_from_do_no_harm():
    covering = coverings.family("holes 0..3", 40, 1)
    good = exact.solve(covering)
    odd = exact.solve(covering, np.arange(6) * 5.0)
    assert odd.proven
    assert (odd.residual, odd.migrations) == (good.residual, good.migrations)


def test_bounds_that_prices_alone_do_not_reach_are_reached(monkeypatch):
    # Without the search for prices column generation does all of it.
    covering = coverings.family("zones", 40, 1)
    usual = exact.solve(covering)
    bound = prices.migration_bound
    monkeypatch.setattr(
        prices,
        "migration_bound",
        lambda *args, **more: bound(*args, **{**more, "rounds": 0}),
    )
    weak = prices.migration_bound(covering).value
    solution = exact.solve(covering)
    assert weak < solution.migration_bound == usual.migration_bound
    assert solution.migrations == usual.migrations


def test_hosts_of_a_type_are_served_in_the_order_of_their_names():
    # One of three equal hosts takes the instance.
    covering = covering_module.Covering(
        account="gold",
        sizes=np.array([2], np.int64),
        movable=np.array([[1], [0], [0], [0]], np.int64),
        room=np.array([-2, 2, 2, 2], np.int64),
        accepts=np.ones((4, 1), bool),
    )
    solution = exact.solve(covering)
    assert solution.out.tolist() == [[1], [0], [0], [0]]
    assert solution.into.tolist() == [[0], [0], [0], [1]]
    assert solution.proven


def test_nothing_to_do():
    covering = coverings.family("75 %", 20, 1)
    calm = dataclasses.replace(covering, room=np.abs(covering.room))
    solution = exact.solve(calm)
    assert solution.proven
    assert solution.migrations == solution.residual == 0
    assert not solution.out.any()
    assert not solution.into.any()


@pytest.mark.parametrize("shape", [(0, 1), (2, 0)])
def test_no_kinds_or_no_hosts(shape):
    hosts, kinds = shape
    empty = covering_module.Covering(
        account="gold",
        sizes=np.ones(kinds, np.int64),
        movable=np.zeros(shape, np.int64),
        room=np.full(hosts, -3, np.int64),
        accepts=np.ones(shape, bool),
    )
    solution = exact.solve(empty)
    assert solution.residual == 3 * hosts
    assert solution.migrations == 0
    assert solution.proven


def test_time_up_gives_a_valid_solution_or_none():
    covering = coverings.family("zones", 100, 1)
    calls = iter(range(10**6))
    for rounds in (0, 1, 5, 30):
        first = next(calls)
        solution = exact.solve(
            covering,
            expired=lambda first=first, n=rounds: next(calls) > first + n,
        )
        if solution is not None:
            check(covering, solution)
            assert solution.migrations >= solution.migration_bound


def test_twice_the_same():
    covering = coverings.family("93 %", 100, 2)
    one, two = exact.solve(covering), exact.solve(covering)
    for field in dataclasses.fields(exact.Solution):
        a, b = getattr(one, field.name), getattr(two, field.name)
        assert np.array_equal(a, b)


@pytest.mark.parametrize(
    "name",
    [
        "holes 0..3",
        "99.5 %",
        "odd sizes",
        "odd sizes, holes 0..4",
        "zero slack",
    ],
)
def test_small_clouds_need_no_scipy(monkeypatch, name):
    covering = coverings.family(name, 100, 1)
    usual = exact.solve(covering)
    monkeypatch.setattr(exact, "optimize", None)
    solution = exact.solve(covering)
    check(covering, solution)
    assert solution.proven
    assert (solution.residual, solution.migrations) == (0, usual.migrations)


def test_large_clouds_and_what_must_stay_need_scipy(monkeypatch):
    assert exact.available()
    monkeypatch.setattr(exact, "optimize", None)
    assert not exact.available()
    for name, hosts in ("75 %", 301), ("zones", 40), ("infeasible", 40):
        covering = coverings.family(name, hosts, 1)
        assert exact.solve(covering) is None
        assert exact.relieve(covering, 5) is None


def test_no_time_at_all_gives_none():
    covering = coverings.family("75 %", 40, 1)
    assert exact.solve(covering, expired=lambda: True) is None
