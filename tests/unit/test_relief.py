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

"""Relief of starvation: each rule once.

Hosts have four CPUs and have sold each of them to each of the three tiers,
unless a test says otherwise, so that a vCPU of gold is promised .506 of a
CPU, one of silver .329, one of bronze .165.
"""

import dataclasses
from typing import Any

import pytest

from tests import builders
from tests import checker
from tests import consumption
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation

HOUR = 3600
NOW = 1_000_000


def planned(cloud: model.Cluster, **params: Any) -> planner.Plan:
    """The plan, which keeps the laws and the forecast that it makes."""
    plan = builders.planned(cloud, **params)
    cap = params.get("max_migrations", 20)
    assert checker.judge(cloud, plan, max_migrations=cap) == []
    if plan.relief is not None and not plan.relief.waits:
        assert starves_after(cloud, plan) <= set(plan.relief.after)
    return plan


def starves_after(cloud: model.Cluster, plan: planner.Plan) -> set[str]:
    """Who starves when the plan is done and everybody wants the same."""
    after = builders.applied(cloud, plan.migrations)
    wants = consumption.demands_of(cloud)
    for one in cloud.instances:
        wants.setdefault(one.uuid, float(one.flavor.vcpus))
    params = parameters.Parameters.of({})
    after = consumption.used(after, wants)
    verdict = diagnosing.diagnose(after, params)
    return {
        one.instance.uuid
        for one in starvation.judge(after, verdict, params).starved
    }


def moved(instance: str, ended_at: int) -> model.Change:
    return model.Change(
        instance=instance,
        kind="live-migration",
        began_at=ended_at - 10,
        ended_at=ended_at,
        moved=True,
    )


def plain(name: str = "s", on: str = "a", vcpus: int = 2) -> model.Instance:
    """Silver whose flavor sets the shares of one vCPU for all of them."""
    return consumption.guest(name, on, "silver", vcpus, shares=333)


def crowd(on: str = "a") -> list[model.Instance]:
    """Busy gold and bronze with right weights."""
    return [
        *consumption.guests("g", on, 4, "gold"),
        *consumption.guests("z", on, 4, "bronze"),
    ]


def two_hosts(*more: model.Instance, **fields: Any) -> model.Cluster:
    return builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [plain(), *crowd(), *more],
        **fields,
    )


# The three cures


def test_the_starved_instance_moves() -> None:
    """R85, R87: it goes where there are CPUs for it."""
    plan = planned(consumption.used(two_hosts(), 1.0))
    assert builders.moves(plan) == [("s", "a", "b")]
    (step,) = plan.migrations
    assert step.concern == planner.STARVATION
    assert step.relieves == ("s",)
    assert step.reason.startswith(
        "s gets 0.22 of 0.33 CPUs per vCPU on a (mis-weighted: Its flavor"
    )
    assert plan.relief is not None
    assert [one.instance.uuid for one in plan.relief.before] == ["s"]
    assert plan.relief.after == ()
    (told,) = plan.relief.predictions
    assert (told.source, told.target) == ("a", "b")
    assert told.starved_before
    assert not told.starved_after
    assert told.usage_before == pytest.approx(0.2159, abs=1e-3)
    assert told.usage_after == 1.0
    assert told.deficit_after is not None
    assert told.deficit_after < 0
    assert str(plan.relief) == (
        "1 migration for starvation (instances starved: 1 to 0)"
    )
    assert str(told) == (
        "s (a to b) gets 1.00 CPUs per vCPU instead of 0.22, of 1.00 that it "
        "wants"
    )


def test_a_competitor_moves_where_the_starved_one_may_not() -> None:
    """Its host is relieved instead: one gold goes, the first by name."""
    cloud = two_hosts()
    locked = dataclasses.replace(cloud.instance_by_uuid["s"], locked=True)
    cloud = with_instances(cloud, locked)
    plan = planned(consumption.used(cloud, 1.0))
    assert plan.relief is not None
    assert plan.relief.after == ()
    assert {m.instance.tier for m in plan.migrations} == {"gold"}
    assert all(m.relieves == ("s",) for m in plan.migrations)
    assert all("without what leaves" in m.reason for m in plan.migrations)


def test_one_competitor_relieves_several() -> None:
    """One migration for two starved ones is worth more than one each."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            consumption.guest("heavy", "a", "gold", 2, shares=8000),
            consumption.guest("s1", "a", "silver", 2),
            consumption.guest("s2", "a", "silver", 2),
            *consumption.guests("z", "a", 4, "bronze"),
        ],
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert builders.moves(plan) == [("heavy", "a", "b")]
    assert set(plan.migrations[0].relieves) == {"s1", "s2"}


def test_several_competitors_leave_together() -> None:
    """Where one is not enough and none of the starved may move."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b"), consumption.host("c")],
        [
            consumption.guest("h1", "a", "gold", 2, shares=9000),
            consumption.guest("h2", "a", "gold", 2, shares=9000),
            consumption.guest("s", "a", "silver", 4, locked=True),
            consumption.guest("z", "a", "bronze", 4, shares=9000, locked=True),
        ],
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert plan.relief is not None
    assert plan.relief.after in ((), ("s",))


def test_two_change_places() -> None:
    """No host has room for it, so that a lighter one comes in exchange."""
    full = {"silver": 2}
    cloud = builders.cluster(
        [consumption.host("a", **full), consumption.host("b", **full)],
        [
            plain(),
            *crowd(),
            consumption.guest("t", "b", "silver", 2),
        ],
    )
    # No third host, no room in silver: nothing can begin.
    wants = dict.fromkeys((i.uuid for i in cloud.instances), 1.0)
    wants.update({"s": 2.0, "t": 0.2})
    cloud = consumption.used(cloud, wants)
    locked = with_instances(
        cloud,
        *(
            dataclasses.replace(one, locked=True)
            for one in cloud.instances
            if one.tier in ("gold", "bronze")
        ),
    )
    plan = planned(locked)
    assert not plan.migrations
    third = consumption.host("c", **full, enabled=True)
    roomy = dataclasses.replace(
        locked,
        hosts=(*locked.hosts, dataclasses.replace(third, enabled=True)),
    )
    plan = planned(roomy)
    assert builders.moves(plan)[0][0] in ("s", "t")


def with_instances(
    cloud: model.Cluster, *changed: model.Instance
) -> model.Cluster:
    by_uuid = {one.uuid: one for one in changed}
    return dataclasses.replace(
        cloud,
        instances=tuple(by_uuid.get(i.uuid, i) for i in cloud.instances),
    )
