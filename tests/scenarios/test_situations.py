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

"""What a plan has to come to in the situations that are told here in prose.

The numbers are proven by trying everything (:mod:`tests.oracle`), once for
each scenario, and are independent of the text that a plan is shown as.
"""

import pathlib

import pytest

from tests import builders
from tests import checker
from tests import oracle
from watcher_cputier import scenario

HERE = pathlib.Path(__file__).parent

# {scenario: (migrations, units over quota that stay, highest tier first)}
PROVEN = {
    "anti_affinity_sibling_on_the_target": (1, (0,)),
    "drain_with_an_immovable_instance": (2, (4, 0, 0)),
    "exact_cover_under_a_cap": (2, (0,)),
    "exchange_that_no_order_reaches": (0, (2,)),
    "exchange_through_a_third_host": (2, (0,)),
    "favourite_that_is_the_only_hole": (2, (0, 0)),
    "free_units_in_no_one_piece": (0, (4,)),
    "holes_too_small_until_one_ejection": (2, (0,)),
    "hop_that_is_needed": (4, (0, 0)),
    "tier_room_but_no_memory": (0, (4, 0)),
    "two_hosts_locked_by_memory": (0, (4, 0)),
    "two_hosts_locked_by_memory_and_a_third": (2, (0, 0)),
    "two_hosts_one_slot": (1, (4, 0)),
}


def read(name: str) -> scenario.Scenario:
    (path,) = HERE.rglob(f"{name}.yaml")
    return scenario.loads(path.read_text())


def truth(found: scenario.Scenario, *, hops: bool = True) -> oracle.Truth:
    return oracle.truth(
        found.cluster,
        drained=found.parameters.get("drain_hosts", ()),
        most=found.parameters.get("max_migrations", 0),
        hops=hops,
    )


@pytest.mark.parametrize("name", PROVEN)
def test_trying_everything_comes_to_the_numbers(name: str) -> None:
    best = truth(read(name))
    assert (best.migrations, best.residual) == PROVEN[name]


@pytest.mark.parametrize("name", PROVEN)
def test_the_plan_comes_to_the_numbers(name: str) -> None:
    found = read(name)
    plan = builders.planned(found.cluster, **found.parameters)
    left = checker.residual(found.cluster, plan.excess_after)
    assert (len(plan.migrations), left) == PROVEN[name]
    assert (
        checker.judge(
            found.cluster,
            plan,
            drained=found.parameters.get("drain_hosts", ()),
            max_migrations=found.parameters.get("max_migrations", 0),
        )
        == []
    )


def test_no_plan_without_a_hop_does_what_the_hop_does() -> None:
    found = read("hop_that_is_needed")
    assert truth(found, hops=False).residual > truth(found).residual
