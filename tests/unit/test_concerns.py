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

"""The concerns of an audit, one after the other, and their cool-down."""

import dataclasses

from tests import builders
from tests import checker
from tests import consumption
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation

NOW = 1_000_000


def everything() -> model.Cluster:
    """a is over its quota of gold, on b an instance starves, and bronze is
    on c alone.
    """
    cloud = builders.cluster(
        [
            consumption.host("a", gold=2),
            consumption.host("b"),
            *(consumption.host(name) for name in "cd"),
        ],
        [
            *consumption.guests("q", "a", 3, "gold"),
            consumption.guest("s", "b", "silver", 2, shares=333),
            *consumption.guests("g", "b", 4, "gold", locked=True),
            *consumption.guests("w", "b", 2, "silver", locked=True),
            *consumption.guests("z", "b", 1, "bronze", locked=True),
            *consumption.guests("m", "c", 4, "bronze"),
        ],
    )
    wants = {
        one.uuid: float(one.flavor.vcpus) if one.host == "b" else 0.0
        for one in cloud.instances
    }
    return consumption.used(cloud, wants, taken_at=NOW)


def concerns(plan: planner.Plan) -> list[str]:
    return [m.concern for m in plan.migrations]


def test_quotas_then_starvation_then_mixing() -> None:
    """L6: and nobody moves for two of them."""
    cloud = everything()
    plan = builders.planned(cloud, mix_tiers=True)
    found = concerns(plan)
    order = [planner.QUOTA, planner.STARVATION, planner.MIXING]
    assert sorted(set(found), key=found.index) == order
    assert found == sorted(found, key=order.index)
    uuids = [m.instance.uuid for m in plan.migrations]
    assert len(set(uuids)) == len(uuids)
    wrong = checker.judge(cloud, plan)
    assert [text for text in wrong if not text.startswith("relief of")] == []
    assert plan.relief is not None
    assert plan.mixing is not None
    assert plan.relief.migrations == found.count(planner.STARVATION)
    assert plan.mixing.migrations == found.count(planner.MIXING)
    assert plan.optimal


def test_each_can_be_switched_off() -> None:
    cloud = everything()
    every = {"enforce_quota": False, "relieve_starvation": False}
    assert concerns(builders.planned(cloud, **every)) == []
    for name, concern in (
        ("enforce_quota", planner.QUOTA),
        ("relieve_starvation", planner.STARVATION),
        ("mix_tiers", planner.MIXING),
    ):
        plan = builders.planned(cloud, **{**every, name: True})
        assert set(concerns(plan)) == {concern}


def test_the_cap_is_for_all_of_them() -> None:
    cloud = everything()
    one, two = (
        builders.planned(cloud, mix_tiers=True, max_migrations=cap)
        for cap in (1, 2)
    )
    assert concerns(one) == [planner.QUOTA]
    assert one.relief is not None
    assert one.relief.waits
    assert one.mixing is not None
    assert one.mixing.waits
    assert concerns(two) == [planner.QUOTA, planner.STARVATION]
    assert two.relief is not None
    assert not two.relief.waits
    assert two.mixing is not None
    assert two.mixing.waits


def test_a_verdict_that_is_given_is_taken() -> None:
    cloud = everything()
    params = parameters.Parameters.of({})
    verdict = diagnosing.diagnose(cloud, params)
    judged = starvation.judge(cloud, verdict, params)
    assert planner.plan(
        cloud, verdict, params, starvation=judged
    ) == planner.plan(cloud, verdict, params)
    blind = starvation.Starvation(abstained="Nobody asked.")
    plan = planner.plan(cloud, verdict, params, starvation=blind)
    assert concerns(plan) == [planner.QUOTA]
    assert plan.relief is not None
    assert str(plan.relief) == "starvation was not judged: Nobody asked."


def recently(*uuids: str) -> tuple[model.Change, ...]:
    return tuple(
        model.Change(
            instance=uuid,
            kind="live-migration",
            began_at=NOW - 90,
            ended_at=NOW - 60,
            moved=True,
        )
        for uuid in uuids
    )


def test_mixing_leaves_alone_who_cools_down() -> None:
    cloud = everything()
    off = {"enforce_quota": False, "relieve_starvation": False}
    before = builders.planned(cloud, mix_tiers=True, **off)
    names = {m.instance.uuid for m in before.migrations}
    assert names
    cooled = dataclasses.replace(cloud, changes=recently(*sorted(names)))
    after = builders.planned(cooled, mix_tiers=True, **off)
    assert names.isdisjoint(m.instance.uuid for m in after.migrations)
    warm = builders.planned(cooled, mix_tiers=True, cooldown_minutes=1, **off)
    assert warm.migrations == before.migrations


def test_a_quota_merely_prefers_others() -> None:
    """The first by name would go, were it not that it has just come."""
    cloud = dataclasses.replace(everything(), telemetry=None)
    assert [m.instance.name for m in builders.planned(cloud).migrations] == [
        "q1"
    ]
    cooled = dataclasses.replace(cloud, changes=recently("q1", "q2"))
    assert [m.instance.name for m in builders.planned(cooled).migrations] == [
        "q3"
    ]
    every = dataclasses.replace(cloud, changes=recently("q1", "q2", "q3"))
    (step,) = builders.planned(every).migrations
    assert step.instance == cloud.instance_by_uuid["q1"]


def test_a_quota_is_met_with_as_few_migrations() -> None:
    """A large one that has just come goes before two small ones would."""
    cloud = builders.cluster(
        [consumption.host("a", gold=2), consumption.host("b")],
        [
            consumption.guest("large", "a", "gold", 2),
            *consumption.guests("q", "a", 2, "gold"),
        ],
        taken_at=NOW,
        changes=recently("large"),
    )
    assert [m.instance.name for m in builders.planned(cloud).migrations] == [
        "large"
    ]


def test_mixing_starves_nobody() -> None:
    """On b there is room for gold from a, and s would starve beside it."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            *consumption.guests("g", "a", 2, "gold", vcpus=2),
            consumption.guest("s", "b", "silver", 4, shares=33, locked=True),
            *consumption.guests("z", "b", 2, "bronze", locked=True),
        ],
    )
    cloud = consumption.used(cloud, 1.0)
    blind = dataclasses.replace(cloud, telemetry=None)
    assert builders.planned(blind, mix_tiers=True).migrations
    plan = builders.planned(cloud, mix_tiers=True)
    assert not plan.migrations
    right = consumption.guest("s", "b", "silver", 4, locked=True)
    cloud = dataclasses.replace(
        cloud,
        instances=tuple(
            dataclasses.replace(one, flavor=right.flavor)
            if one.uuid == "s"
            else one
            for one in cloud.instances
        ),
    )
    assert builders.planned(cloud, mix_tiers=True).migrations
