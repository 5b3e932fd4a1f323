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

"""Bounds by prices, on coverings small enough to count by hand."""

import math

import numpy as np
import pytest

from tests import coverings
from watcher_cputier.planner import covering as covering_module
from watcher_cputier.planner import knapsacks
from watcher_cputier.planner import prices


def of(sizes, rows, accepts=None):
    """A covering of hosts (room, instances of each size that may move)."""
    shape = len(rows), len(sizes)
    return covering_module.Covering(
        account="gold",
        sizes=np.array(sizes, np.int64),
        movable=np.array([r[1:] for r in rows], np.int64).reshape(shape),
        room=np.array([r[0] for r in rows], np.int64),
        accepts=np.ones(shape, bool)
        if accepts is None
        else np.array(accepts, bool),
    )


# h0 is over quota by 4, which one instance of 4 covers. There is room for it
# once the 1 on h1 has gone to h2: two migrations.
#
#     h0  over by 4    4 4
#     h1  hole of 3    1 8
#     h2  hole of 1    8
EJECTION = of((1, 4, 8), [(-4, 0, 2, 0), (3, 1, 0, 1), (1, 0, 0, 1)])


def test_no_price_covers_each_host_by_itself():
    assert prices.evaluate(EJECTION, [0, 0, 0]) == 1.0
    assert prices.cover_bound(EJECTION) == 1


def test_a_price_counts_the_ejection():
    # A slot of 4 costs one more migration, that of the 1 on h1.
    assert prices.evaluate(EJECTION, [0, 1, 2]) == 2.0
    found = prices.migration_bound(EJECTION)
    assert found.value == 2
    assert (
        math.ceil(
            prices.evaluate(
                EJECTION,
                found.prices,
                move_cost=found.move_cost,
                residual_cost=found.residual_cost,
            )
        )
        == 2
    )


def test_wrong_prices_prove_little_but_nothing_wrong():
    for price in (0.5, 1, 3, 10, 1e9):
        assert prices.evaluate(EJECTION, [price, price, price]) <= 2.0
    assert prices.migration_bound(EJECTION, start=[50, 0, 7]).value == 2


def test_nothing_over_quota_needs_nothing():
    calm = of((1, 2), [(0, 3, 1), (4, 0, 2)])
    assert prices.residual_bound(calm).value == 0
    assert prices.migration_bound(calm).value == 0
    assert prices.relief_bound(calm, 3).value == 0


@pytest.mark.parametrize("empty", [of((), [(0,), (-3,)]), of((1,), [])])
def test_no_kinds_or_no_hosts(empty):
    stuck = int(empty.excess.sum())
    assert prices.residual_bound(empty).value == stuck
    assert prices.migration_bound(empty, stuck).value == 0
    assert prices.relief_bound(empty, 5).value == 0


def test_units_missing_everywhere():
    # 6 too many, room for 4.
    short = of((1,), [(-6, 9), (3, 0), (1, 2)])
    found = prices.residual_bound(short)
    assert found.value == 2
    assert found.prices.tolist() == [1.0]
    assert prices.migration_bound(short, found.value).value == 4


def test_units_enough_but_none_in_one_piece():
    # Holes of one unit, and nothing else that could leave.
    holes = of((2,), [(-2, 1), (1, 0), (1, 0), (1, 0)])
    assert prices.residual_bound(holes).value == 2


def test_what_cannot_move_stays():
    fixed = of((2,), [(-5, 1), (9, 0)])
    assert prices.residual_bound(fixed).value == 3
    assert prices.migration_bound(fixed, 3).value == 1
    assert prices.relief_bound(fixed, 4).value == 2


def test_a_kind_that_nobody_else_takes_stays():
    alone = of((1, 2), [(-2, 0, 1), (9, 0, 0)], [[1, 1], [1, 0]])
    assert prices.residual_bound(alone).value == 2
    # It could leave by its size, but would arrive nowhere.
    assert not knapsacks.HostTypes.of(alone).movable.any()


def test_a_host_that_stays_over_quota_takes_nothing_in():
    # Nothing but h0 takes the small ones, and h0 has no room for them as
    # long as one of its own two stays.
    locked = of(
        (1, 4),
        [(-8, 0, 2), (4, 0, 0), (-1, 1, 0)],
        [[1, 1], [0, 1], [0, 0]],
    )
    assert prices.residual_bound(locked).value == 5


def test_the_cover_bound_counts_the_fewest_of_all_hosts():
    hosts = of((1, 4), [(-5, 4, 2), (-3, 3, 0), (-4, 0, 1), (40, 0, 0)])
    assert prices.cover_bound(hosts) == 2 + 3 + 1
    # Left: one unit of h0 and two of h1, one migration each.
    assert prices.cover_bound(hosts, 1) == 5
    assert prices.cover_bound(hosts, 3) == 3
    assert prices.cover_bound(hosts, 99) == 0


@pytest.mark.parametrize(("limit", "most"), [(0, 0), (1, 4), (2, 8), (3, 9)])
def test_relief_takes_the_most_valuable_first(limit, most):
    hosts = of((1, 4), [(-5, 4, 2), (-3, 3, 0), (-4, 0, 1), (40, 0, 0)])
    assert prices.relief_bound(hosts, limit).value == most


def test_relief_counts_what_it_takes_to_make_room():
    # The first migration, an ejection, removes nothing in itself.
    assert prices.relief_bound(EJECTION, 2).value == 4
    assert prices.relief_bound(EJECTION, 1).value < 4


def test_enough_ends_the_search():
    asked = []
    found = prices.migration_bound(
        EJECTION, start=[0, 1, 2], enough=2, expired=lambda: bool(asked)
    )
    assert found.value == 2
    assert found.prices.tolist() == [0, 1, 2]


def test_time_up_leaves_a_valid_bound():
    covering = coverings.family("holes 0..3", 100, 1)
    at_once = prices.migration_bound(covering, expired=lambda: True)
    assert at_once.value == prices.cover_bound(covering)
    assert at_once.value < prices.migration_bound(covering).value


# Seeds drawn once; the exact mode attains these bounds (test_exact).
@pytest.mark.parametrize(
    ("name", "residual", "migrations"),
    [
        ("75 %", 0, 32),
        ("97 %", 0, 40),
        ("holes 0..3", 0, 61),
        ("zones", 0, 51),
        ("odd sizes, holes 0..4", 0, 54),
        ("zero slack", 0, 66),
        ("infeasible", 43, 55),
    ],
)
def test_bounds_of_a_hundred_hosts(name, residual, migrations):
    covering = coverings.family(name, 100, 1)
    assert prices.residual_bound(covering).value == residual
    found = prices.migration_bound(covering, residual)
    assert found.value == migrations


def test_equal_hosts_are_one_type():
    many = of((1, 4), [(-4, 0, 2), (3, 1, 0)] * 500)
    types = knapsacks.HostTypes.of(many)
    assert types.hosts.tolist() == [500, 500]
    one = of((1, 4), [(-4, 0, 2), (3, 1, 0)] * 2)
    for price in ([0, 0], [0, 1], [1, 4]):
        single = prices.evaluate(one, price)
        assert prices.evaluate(many, price) == 250 * single


def test_large_units_are_taken_together(monkeypatch):
    # Shares rather than units; the tables would be a thousand times wider.
    shares = coverings.family("holes 0..3", 40, 1)
    fine = prices.migration_bound(shares).value
    large = covering_module.Covering(
        account="shares",
        sizes=shares.sizes * 1000,
        movable=shares.movable,
        room=shares.room * 1000,
        accepts=shares.accepts,
    )
    assert prices.migration_bound(large).value == fine
    monkeypatch.setattr(knapsacks, "_CELLS", 40_000)
    types = knapsacks.HostTypes.of(large)
    assert 1 < types.grain <= 1000
    coarse = prices.migration_bound(types).value
    assert prices.cover_bound(large) <= coarse <= fine


def test_end_states_are_what_they_cost():
    covering = coverings.family("zones", 100, 2)
    types = knapsacks.HostTypes.of(covering)
    price = covering.sizes * 0.75
    for weight in (1.0, 30.0):
        found = types.evaluate(price, residual_cost=weight)
        assert (found.out <= types.movable).all()
        assert not found.into[~types.accepts].any()
        end = types.room + (found.out - found.into) @ covering.sizes
        assert (end + found.residual >= 0).all()
        assert not found.into[found.residual > 0].any()
        cost = found.out.sum(axis=1) + (found.out - found.into) @ price
        assert (cost + weight * found.residual == found.costs).all()
        total = found.costs @ types.hosts + weight * types.stuck
        assert found.value == total


def test_near_end_states_are_dearer_by_no_more_than_the_slack():
    types = knapsacks.HostTypes.of(coverings.family("93 %", 40, 1))
    price = np.array([0.0, 0, 0, 1, 3, 7])
    best = types.evaluate(price)
    which, near = types.near(price, slack=1.0, most=5)
    assert (near.costs <= best.costs[which] + 1.0).all()
    assert set(which.tolist()) == set(range(len(types.hosts)))
    assert np.bincount(which).max() <= 5
    assert len(which) > len(types.hosts)


def test_huge_prices_stay_exact():
    covering = coverings.family("93 %", 100, 1)
    types = knapsacks.HostTypes.of(covering)
    found = types.evaluate(covering.sizes * 1e12, residual_cost=1e12)
    assert abs(found.value) < 2**33
    assert found.value * 2**20 == int(found.value * 2**20)
