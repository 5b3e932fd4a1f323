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
from watcher_cputier.planner import cooldown
from watcher_cputier.planner import relief

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


def plain(name: str = "s", on: str = "a", **fields: Any) -> model.Instance:
    """Silver whose flavor sets the shares of one vCPU for both of them."""
    return consumption.guest(name, on, "silver", 2, shares=333, **fields)


def crowd(on: str = "a", **fields: Any) -> list[model.Instance]:
    """Busy gold and bronze with right weights."""
    return [
        *consumption.guests("g", on, 4, "gold", **fields),
        *consumption.guests("z", on, 4, "bronze", **fields),
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
    assert told.usage_before == pytest.approx(0.2184, abs=1e-4)
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
    """One migration for four starved ones is worth more than one each."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            consumption.guest("heavy", "a", "gold", 3, shares=9000),
            consumption.guest("s1", "a", "silver", 2),
            consumption.guest("s2", "a", "silver", 2),
            *consumption.guests("z", "a", 2, "bronze"),
        ],
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert builders.moves(plan) == [("heavy", "a", "b")]
    (step,) = plan.migrations
    assert step.relieves == ("s1", "s2", "z1", "z2")
    assert step.reason.startswith("s1 gets 0.20 of 0.33 CPUs per vCPU on a")
    assert step.reason.endswith(", and 0.80 without what leaves")


def test_several_competitors_leave_together() -> None:
    """Where one is not enough and the starved one may not move."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b"), consumption.host("c")],
        [
            consumption.guest("h1", "a", "gold", 2, shares=9000),
            consumption.guest("h2", "a", "gold", 2, shares=9000),
            consumption.guest("s", "a", "silver", 4, locked=True),
            consumption.guest("z", "a", "bronze", 2, shares=9000, locked=True),
        ],
    )
    cloud = consumption.used(cloud, 1.0)
    plan = planned(cloud)
    assert builders.moves(plan) == [("h1", "a", "b"), ("h2", "a", "c")]
    assert plan.relief is not None
    assert plan.relief.after == ()
    # Half a cure is none: a cap of one migration defers both.
    capped = planned(cloud, max_migrations=1)
    assert not capped.migrations
    assert [m.instance.name for m in capped.deferred] == ["h1", "h2"]
    assert capped.relief is not None
    assert capped.relief.deferred == 2
    assert capped.relief.after == ("s",)
    assert not capped.relief.remedies


def test_two_change_places() -> None:
    """On b it would starve beside t, and t is served on a in its place."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            plain(),
            *crowd(locked=True),
            consumption.guest("g", "b", "gold", 3, locked=True),
            consumption.guest("t", "b", "silver", 2),
        ],
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert builders.moves(plan) == [("s", "a", "b"), ("t", "b", "a")]
    assert plan.migrations[1].reason.startswith(
        "it changes places with s, which gets 0.22 of 0.33 CPUs per vCPU"
    )
    assert not planned(
        consumption.used(cloud, 1.0), max_migrations=1
    ).migrations


def locked_by_quota(**fields: Any) -> model.Cluster:
    """Nowhere but on c is there room for silver, and s may not go there."""
    hosts = [
        consumption.host(name, silver=2, traits=["T"]) for name in ("a", "b")
    ]
    if fields.pop("third", True):
        hosts.append(consumption.host("c", silver=2))
    cloud = builders.cluster(
        hosts,
        [
            consumption.guest(
                "s", "a", "silver", 2, shares=333, required=["T"]
            ),
            *crowd(locked=True),
            consumption.guest("t", "b", "silver", 2, **fields),
        ],
    )
    wants = dict.fromkeys((one.uuid for one in cloud.instances), 1.0)
    return consumption.used(cloud, {**wants, "s": 2.0, "t": 0.2})


def test_another_one_makes_way() -> None:
    plan = planned(locked_by_quota())
    assert builders.moves(plan) == [("t", "b", "c"), ("s", "a", "b")]
    assert plan.migrations[0].reason.startswith("it makes way for s, which")


def test_an_exchange_that_nothing_can_begin() -> None:
    """Both hosts are full of silver, and there is no third one for t: no
    prefix of an exchange would be safe.
    """
    for cloud in (
        locked_by_quota(third=False),
        locked_by_quota(required=["T"]),
    ):
        plan = planned(cloud)
        assert not plan.migrations
        assert plan.relief is not None
        assert plan.relief.after == ("s",)


# What it must not do


@pytest.mark.parametrize(("busy", "moves"), [(0.1, ["x"]), (1.0, [])])
def test_nobody_is_starved_for_it(busy: float, moves: list[str]) -> None:
    """x weighs too much: where it goes those who want their share would
    fall below their floor. Those who want little would not.
    """
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            plain(locked=True),
            consumption.guest("x", "a", "gold", 3, shares=9000),
            *consumption.guests("y", "a", 2, "bronze", locked=True),
            *consumption.guests("h", "b", 1, "gold", locked=True),
            *consumption.guests("t", "b", 4, "silver", locked=True),
            *consumption.guests("z", "b", 4, "bronze", locked=True),
        ],
    )
    wants = {
        one.uuid: one.flavor.vcpus * (busy if one.host == "b" else 1.0)
        for one in cloud.instances
    }
    plan = planned(consumption.used(cloud, wants))
    assert [m.instance.name for m in plan.migrations] == moves
    if not moves:
        assert plan.relief is not None
        assert plan.relief.after == ("s",)
        (told,) = plan.relief.remedies
        assert "it may not move (it is locked)" in told.text


@pytest.mark.parametrize("tier", ["gold", None])
def test_a_target_without_telemetry_is_none(tier: str | None) -> None:
    """Unknown is a rejection: what y wants on b, nobody knows."""
    cloud = two_hosts(consumption.guest("y", "b", tier, 1))
    everybody = with_instances(
        cloud,
        *(
            dataclasses.replace(one, locked=one.uuid != "s")
            for one in cloud.instances
        ),
    )
    assert planned(consumption.used(everybody, 1.0)).migrations
    plan = planned(consumption.used(everybody, 1.0, unmeasured=["y"]))
    assert not plan.migrations
    assert plan.relief is not None
    (told,) = plan.relief.remedies
    assert "1 are not known well enough" in told.text
    assert "Set quota:cpu_shares=666 on flavor silver.2" in told.text


def test_an_instance_that_is_shut_off_wants_nothing() -> None:
    off = consumption.guest("y", "b", "gold", 4, status="SHUTOFF")
    plan = planned(consumption.used(two_hosts(off), 1.0))
    assert builders.moves(plan) == [("s", "a", "b")]


def test_what_the_model_does_not_explain_is_left_alone() -> None:
    """Weights are right, and yet s gets less: moving it promises nothing."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [consumption.guest("s", "a", "silver", 2), *crowd()],
    )
    cloud = consumption.used(cloud, 1.0)
    assert cloud.telemetry is not None
    less = model.Reading(usage_cpus=0.2, steal_cpus=1.8)
    readings = {**cloud.telemetry.readings, "s": (less,) * 3}
    cloud = dataclasses.replace(
        cloud,
        telemetry=dataclasses.replace(
            cloud.telemetry, readings=model.frozen_map(readings)
        ),
    )
    plan = builders.planned(cloud)
    assert not plan.migrations
    assert plan.relief is not None
    assert plan.relief.after == ("s",)
    (told,) = plan.relief.remedies
    assert "the model of entitlement does not show on a" in told.why
    (fares,) = plan.relief.predictions
    assert fares.starved_after
    assert fares.usage_after == 0.1


def test_those_that_are_served_are_left_alone() -> None:
    """R88, R90: contention as promised, and a host where nobody is busy."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [consumption.guest("s", "a", "silver", 4), *crowd()],
    )
    for load in (1.0, 0.02):
        plan = planned(consumption.used(cloud, load))
        assert not plan.migrations
        assert plan.relief == planner.Relief()
        assert str(plan.relief) == "nobody is starved"


def test_a_deficit_just_below_the_threshold_is_no_relief() -> None:
    """Hysteresis: it must be clearly below, or tomorrow it moves again."""
    near = clearly_served(0.9)
    assert not near.migrations
    assert clearly_served(1.2).migrations


def clearly_served(cpus: float) -> planner.Plan:
    """The plan where b leaves so many CPUs for s."""
    cloud = builders.cluster(
        [consumption.host("a"), consumption.host("b")],
        [
            plain(),
            *crowd(locked=True),
            consumption.guest(
                "x", "b", "gold", 4, shares=2_000_000, locked=True
            ),
        ],
    )
    wants = dict.fromkeys((one.uuid for one in cloud.instances), 1.0)
    wants |= {"s": 2.0, "x": 4 - cpus * 2 * 333 / 1012}
    return planned(consumption.used(cloud, wants))


# Cool-down


@pytest.mark.parametrize(
    ("ends", "cools"),
    [
        ([], False),
        ([NOW - HOUR + 1], True),
        ([NOW - HOUR], False),
        # The second move within a day doubles it, the third once more.
        ([NOW - 10 * HOUR, NOW - 2 * HOUR + 1], True),
        ([NOW - 10 * HOUR, NOW - 2 * HOUR], False),
        ([NOW - 9 * HOUR, NOW - 8 * HOUR, NOW - 4 * HOUR + 1], True),
        ([NOW - 9 * HOUR, NOW - 8 * HOUR, NOW - 4 * HOUR], False),
        # What is a day older than the last move does not count.
        ([NOW - 26 * HOUR, NOW - HOUR], False),
    ],
)
def test_the_cool_down_doubles(ends: list[int], cools: bool) -> None:
    """R104, N12."""
    cloud = two_hosts(
        taken_at=NOW, changes=tuple(moved("s", end) for end in ends)
    )
    cloud = with_instances(
        cloud,
        *(
            dataclasses.replace(one, locked=one.uuid != "s")
            for one in cloud.instances
        ),
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert bool(plan.migrations) is not cools
    assert plan.relief is not None
    whys = [one.why for one in plan.relief.remedies]
    assert whys == [] if not cools else "has moved recently" in whys[0]


def test_competitors_cool_down_too() -> None:
    cloud = two_hosts(
        taken_at=NOW,
        changes=tuple(
            moved(one.uuid, NOW - 60)
            for one in two_hosts().instances
            if one.tier == "gold" and one.uuid != "g3"
        ),
    )
    locked = [
        dataclasses.replace(one, locked=True)
        for one in cloud.instances
        if one.tier != "gold"
    ]
    cloud = consumption.used(with_instances(cloud, *locked), 1.0)
    assert {m.instance.name for m in planned(cloud).migrations} <= {"g3"}
    free = planned(cloud, cooldown_minutes=0)
    assert free.relief is not None
    assert free.relief.after == ()


def test_a_move_that_goes_on_has_not_cooled() -> None:
    going = model.Change(
        instance="s",
        kind="live-migration",
        began_at=NOW - 5 * HOUR,
        ended_at=None,
        moved=True,
    )
    reboot = dataclasses.replace(
        moved("g1", NOW - 60), kind="reboot", moved=False
    )
    cloud = two_hosts(taken_at=NOW, changes=(going, reboot))
    params = parameters.Parameters.of({})
    assert dict(cooldown.cooling(cloud, params)) == {"s": HOUR}
    # Without a clock it is as late as the last that is known.
    untimed = dataclasses.replace(cloud, taken_at=None)
    assert dict(cooldown.cooling(untimed, params)) == {"s": HOUR}


# Priorities and limits


def test_quotas_come_first() -> None:
    """What the migrations for quotas relieve needs no other, and who moves
    for a quota does not move again.
    """
    cloud = builders.cluster(
        [consumption.host("a", gold=2), consumption.host("b", gold=8)],
        [
            consumption.guest("s", "a", "silver", 2),
            *consumption.guests("g", "a", 8, "gold"),
        ],
    )
    cloud = consumption.used(cloud, 1.0)
    plan = planned(cloud)
    assert {m.concern for m in plan.migrations} == {planner.QUOTA}
    assert plan.relief is not None
    assert [one.verdict for one in plan.relief.before] == ["over quota"] * len(
        plan.relief.before
    )
    assert plan.relief.before
    assert set(plan.relief.by_quota) == {
        one.instance.uuid for one in plan.relief.before
    }
    assert plan.relief.after == ()
    waiting = planned(cloud, max_migrations=1)
    assert waiting.relief is not None
    assert waiting.relief.waits
    assert "waits until quotas are kept" in str(waiting.relief)
    off = planned(cloud, enforce_quota=False)
    assert {m.concern for m in off.migrations} == {planner.STARVATION}
    assert sum(m.relief for m in off.migrations) > 0


def test_whom_a_quota_leaves_starved_is_foretold() -> None:
    """Quotas come first: gold goes to b, where x weighs too much."""
    cloud = builders.cluster(
        [consumption.host("a", gold=2), consumption.host("b")],
        [
            *consumption.guests("g", "a", 4, "gold"),
            consumption.guest("x", "b", "bronze", 4, shares=9000),
        ],
    )
    plan = planned(consumption.used(cloud, 1.0))
    assert {m.concern for m in plan.migrations} == {planner.QUOTA}
    assert plan.relief is not None
    assert not plan.relief.before
    assert set(plan.relief.after) == {m.instance.uuid for m in plan.migrations}
    assert str(plan.relief) == (
        "nobody is starved; migrations for quotas leave 2 starved"
    )


def test_the_highest_tier_comes_first_and_the_rest_is_deferred() -> None:
    """L6, R92: gold before silver, a higher priority before a lower one."""
    cloud = builders.cluster(
        [consumption.host(name) for name in "abcdef"],
        [
            one
            for host, tier, priority in (
                ("a", "silver", 0),
                ("b", "silver", 1),
                ("c", "gold", 0),
            )
            for one in (
                consumption.guest(
                    f"x-{host}",
                    host,
                    tier,
                    2,
                    shares=builders.SHARES[tier],
                    priority=priority,
                ),
                *consumption.guests(f"g-{host}", host, 2, "gold"),
                *consumption.guests(f"s-{host}", host, 2, "silver"),
                *consumption.guests(f"z-{host}", host, 4, "bronze"),
            )
        ],
    )
    locked = [
        dataclasses.replace(one, locked=not one.name.startswith("x"))
        for one in cloud.instances
    ]
    cloud = consumption.used(with_instances(cloud, *locked), 1.0)
    plan = planned(cloud)
    assert [m.instance.name for m in plan.migrations] == ["x-c", "x-b", "x-a"]
    capped = planned(cloud, max_migrations=2)
    assert [m.instance.name for m in capped.migrations] == ["x-c", "x-b"]
    assert [m.instance.name for m in capped.deferred] == ["x-a"]
    assert capped.relief is not None
    assert capped.relief.after == ("x-a",)
    assert "max_migrations defers 1 more of them" in str(capped.relief)


def test_no_time_is_no_migration() -> None:
    params = parameters.Parameters.of({})
    cloud = consumption.used(two_hosts(), 1.0)
    verdict = diagnosing.diagnose(cloud, params)
    plan = planner.plan(cloud, verdict, params, expired=lambda: True)
    assert not plan.migrations
    assert plan.cut


def test_targets_rank_by_the_weigher_then_by_what_is_free() -> None:
    """Alike to the weigher, c holds less of the tier than b."""
    hosts = [consumption.host(name) for name in "abc"]
    cloud = builders.cluster(
        hosts,
        [
            plain(),
            *crowd(locked=True),
            consumption.guest("y", "b", "silver", 1),
            consumption.guest("y2", "c", "bronze", 1),
        ],
    )
    wants = dict.fromkeys((one.uuid for one in cloud.instances), 1.0)
    cloud = consumption.used(cloud, {**wants, "s": 2.0})
    plan = planned(cloud, weigher_multiplier=0)
    assert builders.moves(plan) == [("s", "a", "c")]


# Together with the others


def test_without_telemetry_nothing_is_another() -> None:
    """L8: the plan is byte for byte what it would be without this part."""
    cloud = builders.cluster(
        [consumption.host("a", gold=2), consumption.host("b")],
        [plain(), *consumption.guests("g", "a", 6, "gold")],
    )
    plan = builders.planned(cloud)
    assert plan.relief is None
    assert plan == builders.planned(cloud, relieve_starvation=False)
    told = consumption.used(cloud, 1.0)
    assert plan == builders.planned(told, relieve_starvation=False)
    few = builders.planned(told, windows=5)
    assert few.migrations == plan.migrations
    assert few.relief is not None
    assert "5 are asked for" in str(few.relief)


def test_a_plan_some_of_which_is_left_out() -> None:
    cloud = consumption.used(two_hosts(), 1.0)
    params = parameters.Parameters.of({})
    verdict = diagnosing.diagnose(cloud, params)
    judged = starvation.judge(cloud, verdict, params)
    plan = planner.plan(cloud, verdict, params, starvation=judged)
    assert relief.account(plan, judged) == plan.relief
    found = relief.account(dataclasses.replace(plan, migrations=()), judged)
    assert (found.migrations, found.deferred) == (0, 1)
    assert found.after == ("s",)


def with_instances(
    cloud: model.Cluster, *changed: model.Instance
) -> model.Cluster:
    by_uuid = {one.uuid: one for one in changed}
    return dataclasses.replace(
        cloud,
        instances=tuple(by_uuid.get(i.uuid, i) for i in cloud.instances),
    )


# Hosts that somebody has left


def left(host: str, ended_at: int | None) -> model.Change:
    """``gone`` has left a host."""
    return model.Change(
        instance="gone",
        kind="live-migration",
        began_at=-400,
        ended_at=ended_at,
        moved=True,
        source=host,
        target="c",
    )


@pytest.mark.parametrize(
    ("change", "moves"),
    [
        # The first window begins at 0, and its values reach back by 300 s.
        (left("a", -300), [("s", "a", "b")]),
        (left("a", -299), []),
        (left("a", 1), []),
        (left("a", None), []),
        (left("b", 1), [("s", "a", "b")]),
        (dataclasses.replace(left("a", 1), moved=False), [("s", "a", "b")]),
    ],
)
def test_who_has_left_may_have_been_enough(
    change: model.Change, moves: list[tuple[str, str, str]]
) -> None:
    """L3: what was read before somebody left cures nothing more."""
    cloud = builders.cluster(
        [consumption.host(name) for name in "abc"],
        [plain(), *crowd(), consumption.guest("gone", "c", vcpus=4)],
        changes=(change,),
        taken_at=NOW,
    )
    plan = planned(consumption.used(cloud, 1.0), cooldown_minutes=0)
    assert builders.moves(plan) == moves
    assert plan.relief is not None
    assert [one.instance.uuid for one in plan.relief.before] == ["s"]
    if not moves:
        (remedy,) = plan.relief.remedies
        assert remedy.why.startswith("gone has left a since the readings")


def test_who_has_left_took_what_is_not_used_any_more() -> None:
    """A host is not short of what those had who are gone, and takes nobody
    into the gap while the readings are of before.
    """
    cloud = builders.cluster(
        [consumption.host(name) for name in "abc"],
        [
            plain(locked=True),
            *crowd(),
            consumption.guest("t", "c", "silver", 2),
            *consumption.guests("u", "c", 4, "gold"),
        ],
    )
    measured = consumption.used(cloud, 1.0)
    first = planned(measured)
    assert {m.source for m in first.migrations} == {"a"}
    gone = {m.instance.uuid for m in first.migrations}
    telemetry = measured.telemetry
    assert telemetry is not None
    after = dataclasses.replace(
        builders.applied(measured, first.migrations),
        changes=tuple(
            dataclasses.replace(left("a", 950), instance=uuid)
            for uuid in sorted(gone)
        ),
        taken_at=NOW,
        telemetry=dataclasses.replace(
            telemetry,
            readings=model.frozen_map(
                {
                    uuid: readings
                    for uuid, readings in telemetry.readings.items()
                    if uuid not in gone
                }
            ),
        ),
    )
    params = parameters.Parameters.of({})
    judged = starvation.judge(
        after, diagnosing.diagnose(after, params), params
    )
    assert judged.usable_cpus["a"] == 4
    assert {one.verdict for one in judged.starved} == {"mis-weighted"}
    second = builders.planned(after)
    assert not [m for m in second.migrations if "a" in (m.source, m.target)]
