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


"""Hosts that sell more CPUs than they have, and what would cure that."""

import pytest

from tests import builders as b
from tests import consumption
from watcher_cputier import advice
from watcher_cputier import diagnosis
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation


def lowered(cloud, **params):
    typed = parameters.Parameters.of(params)
    verdict = diagnosis.diagnose(cloud, typed)
    found = starvation.judge(cloud, verdict, typed)
    made = planner.plan(cloud, verdict, typed, starvation=found)
    assert made.relief is not None
    return advice.lowerings(cloud, verdict, found, made.relief.remedies)


def full(on):
    """All that a host of four CPUs has sold."""
    return [
        *consumption.guests(f"{on}-g", on, 4, "gold"),
        *consumption.guests(f"{on}-s", on, 4, "silver"),
        *consumption.guests(f"{on}-b", on, 4, "bronze"),
    ]


def cloud_of(*guests, hosts="ab"):
    return b.cluster([consumption.host(name) for name in hosts], guests)


def test_a_host_that_has_half_should_sell_half():
    """Daemons take two of its four CPUs, and the other host is full."""
    cloud = consumption.used(
        cloud_of(*full("a"), *full("b")), 1.0, usable={"a": 2}
    )
    (one,) = lowered(cloud)
    assert (one.host, one.cpus) == ("a", 4)
    assert one.left_cpus == pytest.approx(2)
    assert one.totals == dict.fromkeys(b.BUILT_IN, (4, 2))
    assert one.leaving == dict.fromkeys(b.BUILT_IN, 2)
    assert len(one.starved) == 12
    assert one.text == (
        "a sells 4 CPUs and has 2.00 for its tiers: a-b1, a-b2, a-b3, a-b4, "
        "a-g1 and 7 more starve there, and no migration helps. With quotas "
        "of gold 2 instead of 4, silver 2 instead of 4, bronze 2 instead of "
        "4 it would keep what it sells; 2 gold, 2 silver, 2 bronze units "
        "would have to leave."
    )


def test_what_it_advises_cures():
    """What remains gets its floor on the CPUs that are left (R105)."""
    cloud = consumption.used(
        cloud_of(*full("a"), *full("b")), 1.0, usable={"a": 3}
    )
    (one,) = lowered(cloud)
    kept = {tier: then for tier, (_, then) in one.totals.items()}
    assert kept == dict.fromkeys(b.BUILT_IN, 3)
    remaining = [
        guest
        for tier, count in kept.items()
        for guest in [g for g in full("a") if g.tier == tier][:count]
    ]
    less = consumption.used(
        cloud_of(*remaining, *full("b")), 1.0, usable={"a": 3}
    )
    # Judged by what was sold with all four CPUs.
    typed = parameters.Parameters.of({})
    verdict = diagnosis.diagnose(less, typed)
    found = starvation.judge(less, verdict, typed)
    assert [c for c in found.starved if c.instance.host == "a"] == []


def test_what_a_migration_cures_needs_no_lowering():
    """The same starvation, beside an empty host and beside a full one."""
    short = consumption.guests("g", "a", 4, "gold")
    cured = consumption.used(cloud_of(*short), 1.0, usable={"a": 1})
    stuck = consumption.used(
        cloud_of(*short, *full("b")), 1.0, usable={"a": 1}
    )
    assert lowered(cured) == ()
    assert [one.host for one in lowered(stuck)] == ["a"]


def test_untiered_neighbours_take_what_was_sold():
    cloud = consumption.used(
        cloud_of(
            *full("a"),
            *full("b"),
            consumption.guest("u", "a", None, 2, shares=4096),
        ),
        1.0,
    )
    (one,) = lowered(cloud)
    used = cloud.telemetry.readings["u"][0].usage_cpus
    assert one.left_cpus == pytest.approx(4 - used)
    assert one.totals["gold"] == (4, int(4 - used))


def test_who_was_not_measured_is_not_advised_on():
    """L8: what an untiered instance takes is never taken for nothing."""
    cloud = consumption.used(
        cloud_of(
            *full("a"),
            *full("b"),
            consumption.guest("u", "a", None, 2, shares=4096),
        ),
        1.0,
        unmeasured=["u"],
    )
    assert lowered(cloud) == ()


def test_wrong_weights_are_no_matter_of_totals():
    cloud = consumption.used(
        cloud_of(
            consumption.guest("s", "a", "silver", 4, shares=333),
            *consumption.guests("g", "a", 4, "gold"),
            *consumption.guests("z", "a", 4, "bronze"),
            *full("b"),
        ),
        1.0,
    )
    assert lowered(cloud) == ()
