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

"""The efficacy indicators: one table, and the numbers of a plan."""

import pytest

from tests import builders
from watcher_cputier import planner
from watcher_cputier.goals import indicators

# Gold: a is 2 over and b is 3; bronze: a is 4 over and nothing can move.
CLOUD = builders.cluster(
    [
        builders.host("a", gold=2, bronze=1),
        builders.host("b", gold=1),
        builders.host("c", bronze=1),
    ],
    [
        *builders.instances("ag", "a", [2, 2]),
        *builders.instances("bg", "b", [4]),
        *builders.instances("ab", "a", [5], "bronze", locked=True),
    ],
)
TIERS = ["gold", "silver", "bronze"]

# Section 8; those of starvation come with telemetry.
CONTRACT = [
    "hosts_over_quota_before",
    "hosts_over_quota_after",
    "excess_units_before",
    "excess_units_after",
    "migrations_planned",
    "migrations_lower_bound",
    "instances_unresolved",
]


def test_the_table_is_the_contracts() -> None:
    assert [i.name for i in indicators.QUOTA] == CONTRACT
    assert all(i.description.endswith(".") for i in indicators.QUOTA)


def test_each_tier_has_two() -> None:
    assert [i.name for i in indicators.of_tier("platinum")] == [
        "platinum_excess_units_before",
        "platinum_excess_units_after",
    ]


def test_the_numbers_of_a_plan() -> None:
    found = indicators.values(builders.planned(CLOUD), TIERS)
    assert found == {
        "hosts_over_quota_before": 2,
        "hosts_over_quota_after": 1,
        "excess_units_before": 9,
        "excess_units_after": 4,
        "migrations_planned": 2,
        "migrations_lower_bound": 2,
        "instances_unresolved": 1,
        "gold_excess_units_before": 5,
        "gold_excess_units_after": 0,
        "silver_excess_units_before": 0,
        "silver_excess_units_after": 0,
        "bronze_excess_units_before": 4,
        "bronze_excess_units_after": 4,
    }


def test_deferred_migrations_are_not_counted() -> None:
    plan = builders.planned(CLOUD, max_migrations=1)
    found = indicators.values(plan, TIERS)
    assert found["migrations_planned"] == 1
    assert found["gold_excess_units_after"] == 2
    assert found["hosts_over_quota_after"] == 1


def test_an_empty_plan_has_only_zeros() -> None:
    found = indicators.values(planner.Plan(), TIERS)
    assert set(found.values()) == {0}
    assert set(CONTRACT) < set(found)


@pytest.mark.parametrize(
    ("before", "after", "percent"),
    [
        (0, 0, 100.0),
        (8, 0, 100.0),
        (8, 8, 0.0),
        (8, 2, 75.0),
    ],
)
def test_the_global_efficacy(before: int, after: int, percent: float) -> None:
    """100 where there was no excess at all."""
    assert indicators.excess_removed_percent(before, after) == percent
