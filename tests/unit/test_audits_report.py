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

"""What audits planned and what became of it, in numbers and in words.

Plans are made by the planner on the scenarios' clouds and told as Watcher's
API tells them; outcomes are Watcher's states and Nova's.
"""

import argparse
from collections.abc import Iterable, Mapping
import dataclasses
import json
import pathlib
from typing import Any

from openstack import connection
import pytest

from tests import builders
from tests import consumption
from watcher_cputier import audits
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import guard
from watcher_cputier import metrics
from watcher_cputier import model
from watcher_cputier import pages
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report as reports
from watcher_cputier import scenario
from watcher_cputier.audits import changes
from watcher_cputier.audits import sentences
from watcher_cputier.audits import values
from watcher_cputier.datasources import audits as reading
from watcher_cputier.datasources import breaches
from watcher_cputier.datasources import prometheus
from watcher_cputier.goals import indicators
from watcher_cputier.osc import audit as command
from watcher_cputier.osc import settings

SCENARIOS = pathlib.Path(__file__).parents[1] / "scenarios"
NOON = 1_795_262_400  # 2026-11-21T12:00:00Z
DONE = "SUCCEEDED"


def at(minutes: float = 0.0) -> values.Moment:
    return reading.moment_at(NOON + minutes * 60)


@dataclasses.dataclass(frozen=True)
class Made:
    """A plan of the planner's."""

    cluster: model.Cluster
    params: parameters.Parameters
    diagnosis: diagnosing.Diagnosis
    plan: planner.Plan

    @property
    def indicators(self) -> dict[str, float]:
        tiers = [tier.name for tier in self.cluster.tiers]
        return dict(indicators.values(self.plan, tiers))

    @property
    def record(self) -> Any:
        """What the decision engine would have left."""
        document = reports.plan_document(
            self.cluster,
            self.diagnosis,
            self.plan,
            indicators=self.indicators,
        )
        return json.loads(json.dumps(document))


def made(cluster: model.Cluster, **given: Any) -> Made:
    params = parameters.Parameters.of(given)
    verdict = diagnosing.diagnose(cluster, params)
    return Made(
        cluster, params, verdict, planner.plan(cluster, verdict, params)
    )


def of_scenario(name: str) -> Made:
    found = scenario.loads((SCENARIOS / f"{name}.yaml").read_text())
    return made(found.cluster, **found.parameters)


def actions(found: Made, *, plain: bool = False) -> list[dict[str, Any]]:
    """The plan's actions, as Watcher's API shows them."""
    expected = guard.expectations(
        found.cluster, found.plan.migrations, found.params
    )
    return [
        {
            "uuid": f"action-{number}",
            "state": "PENDING",
            "status_message": None,
            "action_type": "migrate" if plain else "tier_migrate",
            "input_parameters": {
                "migration_type": "live",
                "resource_id": one.instance.uuid,
                "resource_name": one.instance.name,
                "source_node": one.source,
                "destination_node": one.target,
                **(
                    {}
                    if plain
                    else {
                        "reason": one.reason,
                        "tier": one.tier,
                        "units": one.units,
                        "needs": [],
                        "expects": json.loads(
                            json.dumps(expectation.document())
                        ),
                    }
                ),
            },
        }
        for number, (one, expectation) in enumerate(
            zip(found.plan.migrations, expected, strict=True)
        )
    ]


def told(
    found: Made,
    states: Iterable[str] | str = DONE,
    *,
    state: str = DONE,
    plain: bool = False,
    messages: Mapping[int, str] | None = None,
    **fields: Any,
) -> values.Plan:
    """The action plan of a plan.

    :param states: of its actions; one for all of them
    """
    shown = actions(found, plain=plain)
    each = [states] * len(shown) if isinstance(states, str) else list(states)
    migrations = []
    for number, (action, now) in enumerate(zip(shown, each, strict=True)):
        action.update(state=now, status_message=(messages or {}).get(number))
        migration = audits.migration_of(
            action, None if now == "PENDING" else at(number + 1)
        )
        assert migration is not None
        migrations.append(migration)
    return values.Plan(
        **{
            "uuid": "plan-1",
            "audit": "audit-1",
            "state": state,
            "message": None,
            "made_at": at(),
            "changed_at": at(len(shown) + 1),
            "indicators": found.indicators,
            "migrations": tuple(migrations),
            **fields,
        }
    )


def audit(**fields: Any) -> values.Audit:
    return values.Audit(
        **{
            "uuid": "audit-1",
            "name": "nightly",
            "kind": "ONESHOT",
            "state": DONE,
            "goal": "continuous_slo_compliance",
            "strategy": "domain_capacity_enforcement",
            "interval": None,
            "message": None,
            "created_at": at(-1),
            **fields,
        }
    )


def report(*plans: values.Plan, **fields: Any) -> values.Report:
    return values.Report(
        **{
            "taken_at": at(60),
            "audits": (audit(),),
            "told": frozenset({"audit-1"}),
            "plans": plans,
            **fields,
        }
    )


def text(found: values.Report) -> str:
    return "\n".join(audits.document(found)["sentences"])


# What an action tells.


def starved() -> Made:
    """``s`` has the shares of one of its two vCPUs, beside busy others."""
    return made(
        consumption.used(
            builders.cluster(
                [consumption.host("a"), consumption.host("b")],
                [
                    consumption.guest("s", "a", "silver", 2, shares=333),
                    *consumption.guests("g", "a", 4, "gold"),
                    *consumption.guests("z", "a", 4, "bronze"),
                ],
            ),
            1.0,
        )
    )


def drained() -> Made:
    return made(
        builders.cluster(
            [builders.host("a"), builders.host("b")],
            [
                builders.instance("g", "a", 4, "gold"),
                builders.instance("s", "a", 2, "silver"),
            ],
        ),
        drain_hosts=["a"],
    )


@pytest.mark.parametrize(
    "found",
    [
        *map(
            of_scenario,
            (
                "hop_that_is_needed",
                "mixing_evens_out_tiers",
                "over_gold_quota",
                "policy_quota_percent",
                "single_class",
                "without_placement",
            ),
        ),
        starved(),
        drained(),
    ],
)
def test_what_a_migration_is_for_is_told_by_its_action(found: Made) -> None:
    """The planner's own reasons and expectations are understood."""
    assert found.plan.migrations
    for one, migration in zip(
        found.plan.migrations, told(found).migrations, strict=True
    ):
        expected = one.concern
        if one.makes_room_for:
            expected = values.ROOM
        elif one.drained:
            expected = values.DRAIN
        assert migration.concern == expected, one.reason
        if expected == planner.QUOTA:
            assert one.excess is not None
            assert migration.held == values.Held(
                units=one.excess.held, quota=one.excess.quota
            )


def test_a_plain_migrate_tells_from_where_to_where() -> None:
    found = of_scenario("over_gold_quota")
    plan = told(found, plain=True)

    assert [(m.source, m.target) for m in plan.migrations] == [
        (m.source, m.target) for m in found.plan.migrations
    ]
    assert {m.concern for m in plan.migrations} == {None}
    (sentence, *_) = sentences.of_plan(report(plan), plan)
    assert sentence.startswith("Audit at 12:00 UTC moved")


def test_other_actions_are_no_migrations() -> None:
    assert (
        audits.migration_of(
            {
                "uuid": "a",
                "state": DONE,
                "action_type": "nop",
                "input_parameters": {},
            },
            None,
        )
        is None
    )


# Outcomes.


def live(status: str) -> values.Live:
    return values.Live(status=status, began_at=at(1), ended_at=at(2))


@pytest.mark.parametrize(
    ("state", "plan_state", "nova", "outcome"),
    [
        ("SUCCEEDED", "SUCCEEDED", None, "moved"),
        ("SUCCEEDED", "FAILED", "completed", "moved"),
        ("FAILED", "FAILED", None, "failed"),
        ("FAILED", "FAILED", "error", "failed"),
        # Watcher gave it up, Nova went on.
        ("FAILED", "FAILED", "completed", "moved"),
        ("FAILED", "FAILED", "running", "moving"),
        ("SKIPPED", "SUCCEEDED", None, "skipped"),
        ("ONGOING", "ONGOING", "running", "moving"),
        ("PENDING", "RECOMMENDED", None, "planned"),
        ("PENDING", "ONGOING", None, "planned"),
        ("PENDING", "CANCELLED", None, "dropped"),
        ("CANCELLED", "CANCELLED", None, "dropped"),
        ("CANCELLED", "CANCELLED", "completed", "moved"),
    ],
)
def test_the_outcome_is_novas_word_where_watcher_gave_up(
    state: str, plan_state: str, nova: str | None, outcome: str
) -> None:
    migration = values.Migration(
        action="a",
        state=state,
        message=None,
        instance="i",
        uuid="i",
        source="a",
        target="b",
        live=None if nova is None else live(nova),
    )
    assert migration.outcome(plan_state) == outcome


def test_a_migration_that_watcher_gave_up_is_told_so() -> None:
    found = of_scenario("over_gold_quota")
    plan = told(found, "FAILED", state="FAILED")
    plan = dataclasses.replace(
        plan,
        migrations=tuple(
            dataclasses.replace(one, live=live("completed"))
            for one in plan.migrations
        ),
    )

    assert "gave the migration up (FAILED), Nova completed it" in text(
        report(plan)
    )


# Before and after.


def _tiers(plan: values.Plan) -> dict[str, tuple[int, int, int | None]]:
    return {
        one.tier: (one.before, one.planned, one.after)
        for one in changes.of_tiers(plan)
    }


def _excess(found: Made) -> dict[str, tuple[int, int]]:
    """{tier: units over quota before and after}, by the planner."""
    return {
        tier.name: (
            int(found.indicators[f"{tier.name}_excess_units_before"]),
            int(found.indicators[f"{tier.name}_excess_units_after"]),
        )
        for tier in found.cluster.tiers
    }


@pytest.mark.parametrize(
    "name",
    ["over_gold_quota", "hop_that_is_needed", "exact_cover_under_a_cap"],
)
def test_a_whole_plan_leaves_what_it_planned_and_none_what_there_was(
    name: str,
) -> None:
    found = of_scenario(name)
    excess = _excess(found)

    assert _tiers(told(found)) == {
        tier: (before, after, after)
        for tier, (before, after) in excess.items()
    }
    pending = _tiers(told(found, "PENDING", state="RECOMMENDED"))
    for tier, (before, after) in excess.items():
        assert pending[tier][:2] == (before, after)
        assert pending[tier][2] == (None if before != after else after)
    failed = _tiers(told(found, "FAILED", state="FAILED"))
    assert {tier: one[2] for tier, one in failed.items()} == {
        tier: before for tier, (before, _) in excess.items()
    }


def part_of_a_plan() -> tuple[Made, values.Plan]:
    """``a`` is 3 Gold units over: one of 2 has left it, one of 1 has not."""
    found = made(
        builders.cluster(
            [
                builders.host("a", gold=2),
                builders.host("b"),
            ],
            [
                builders.instance("two", "a", 2, "gold"),
                builders.instance("one", "a", 1, "gold"),
                builders.instance("big", "a", 2, "gold"),
            ],
        )
    )
    names = [m.instance.name for m in found.plan.migrations]
    assert len(names) == 2
    return found, told(found, [DONE, "FAILED"], state="FAILED")


def test_part_of_a_plan_leaves_what_its_migrations_did_not_cure() -> None:
    """With a record and without; the same as the cluster then holds."""
    found, plan = part_of_a_plan()
    moved = found.plan.migrations[0]
    left = _excess(found)["gold"][0] - moved.relief

    assert _tiers(plan)["gold"][2] == left
    with_record = audits.with_record(plan, found.record)
    assert _tiers(with_record)["gold"][2] == left
    blind = dataclasses.replace(
        plan,
        migrations=tuple(
            dataclasses.replace(one, held=None) for one in plan.migrations
        ),
    )
    assert _tiers(blind)["gold"][2] is None


def test_hosts_hold_what_the_cluster_does_after_the_migrations() -> None:
    found = of_scenario("hop_that_is_needed")
    after = builders.applied(found.cluster, found.plan.migrations)
    plan = audits.with_record(told(found), found.record)

    rows = changes.of_hosts(plan)

    assert {(one.host, one.tier) for one in rows} == {
        (host.name, account)
        for host in found.cluster.hosts
        for account in found.cluster.accounts
    }
    for one in rows:
        key = (one.host, one.tier)
        assert one.before == found.cluster.held.get(key, 0)
        assert one.after == one.planned == after.held.get(key, 0)
        assert one.quota == found.diagnosis.quota(*key)


def test_without_a_record_only_hosts_whose_reason_tells_are_known() -> None:
    found = of_scenario("over_gold_quota")
    rows = changes.of_hosts(told(found))

    sources = {m.source for m in found.plan.migrations}
    assert rows
    for one in rows:
        known = one.host in sources and one.before is not None
        assert known == (one.host in sources)
        if not known:
            assert (one.before, one.planned, one.after) == (None, None, None)
            assert one.arrived > 0


# Records.


def test_a_record_tells_why_a_plain_migration_moves() -> None:
    found = of_scenario("over_gold_quota")
    plan = audits.with_record(told(found, plain=True), found.record)

    for one, migration in zip(
        found.plan.migrations, plan.migrations, strict=True
    ):
        assert migration.tier == one.tier
        assert migration.units == one.units
        assert migration.reason == one.reason
        assert migration.concern == one.concern


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ({"watcher_cputier_plan": 99}, "known is 1"),
        ({}, "it is no record of an audit"),
        ([], "it is no record of an audit"),
        ({"watcher_cputier_plan": 1}, "it is not of its form"),
        (
            {"watcher_cputier_plan": 1, "migrations": []},
            "it is of another run",
        ),
    ],
)
def test_a_record_that_does_not_fit_is_refused(
    document: object, complaint: str
) -> None:
    plan = told(of_scenario("over_gold_quota"))
    with pytest.raises(audits.RecordError, match=complaint) as caught:
        audits.with_record(plan, document)
    assert caught.value.cure


def test_the_record_of_a_failure_tells_the_whole_error() -> None:
    document = reports.failure_document(ValueError("no such thing"))
    assert audits.failure_of(document) == "no such thing"
    assert audits.failure_of({"watcher_cputier_plan": 1}) is None


def test_what_a_record_adds_is_told() -> None:
    """What stays over quota and why, and what max_migrations cut off."""
    found = of_scenario("exact_cover_under_a_cap")
    plan = audits.with_record(told(found), found.record)
    document = audits.document(report(plan))

    (shown,) = document["plans"]
    assert len(shown["deferred"]) == len(found.plan.deferred)
    assert len(shown["unresolved"]) == len(found.plan.unresolved)
    whole = "\n".join(document["sentences"])
    for one in found.plan.deferred:
        assert f"Deferred to the next audit: {one.instance.name}" in whole
    for item in found.plan.unresolved:
        assert f"Unresolved: {item.host} stays" in whole


# Sentences.


def test_the_sentence_of_the_requirement() -> None:
    """R121: "Audit at 12:00 moved 2 instances from HostX to HostY ..."."""
    found = made(
        builders.cluster(
            [
                builders.host("hostX", gold=112, vcpus=200),
                builders.host("hostY", vcpus=200),
            ],
            [
                *(
                    builders.instance(f"m{n}", "hostX", 4, "gold")
                    for n in range(2)
                ),
                builders.instance("rest", "hostX", 112, "gold"),
            ],
        )
    )

    (first, *_) = sentences.of_plan(report(), told(found))

    assert first == (
        "Audit at 12:00 UTC moved 2 instances from hostX to hostY to bring "
        "gold from 120 to 112 units of at most 112 (m0, m1)."
    )
    (planned, *_) = sentences.of_plan(
        report(), told(found, "PENDING", state="RECOMMENDED")
    )
    assert planned == first.replace("moved", "wants to move")


def test_another_day_is_named() -> None:
    plan = told(of_scenario("over_gold_quota"))
    (first, *_) = sentences.of_plan(report(taken_at=at(24 * 60)), plan)
    assert first.startswith("Audit at 2026-11-21 12:00 UTC moved")


def test_skips_and_failures_are_told_with_the_actions_own_words() -> None:
    found, plan = part_of_a_plan()
    skipped = told(
        found,
        ["SKIPPED", "FAILED"],
        state="FAILED",
        messages={
            0: "Action was skipped automatically: it is locked",
            1: "Action failed in execute: it is on a.",
        },
    )

    whole = text(report(skipped))

    first, second = (m.instance.name for m in found.plan.migrations)
    assert f"Skipped: {first} from a to b, because it is locked." in whole
    assert f"Failed: {second} from a to b: it is on a." in whole
    # An API without status messages tells nothing.
    assert "Watcher tells no reason" in text(report(plan))


@pytest.mark.parametrize(
    "name", ["two_hosts_locked_by_memory", "anti_affinity_leaves_no_target"]
)
def test_an_empty_plan_says_what_stays(name: str) -> None:
    found = of_scenario(name)
    assert not found.plan.migrations
    before = found.indicators["excess_units_before"]
    assert before > 0
    assert f"planned no migration: {before:g} unit" in text(
        report(told(found))
    )


def test_an_empty_plan_without_excess_says_so() -> None:
    found = made(
        builders.cluster(
            [builders.host("a")], [builders.instance("i", "a", 1, "gold")]
        )
    )
    assert "planned no migration: no host was over its quota." in text(
        report(told(found))
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"state": "FAILED", "message": "Placement: unreachable."},
            "Audit nightly failed at 11:59 UTC: Placement: unreachable.",
        ),
        (
            {"state": "FAILED"},
            "Audit nightly failed at 11:59 UTC: Watcher tells no reason",
        ),
        (
            {"state": "ONGOING"},
            "Audit nightly is ONGOING: it has no plan yet.",
        ),
    ],
)
def test_an_audit_without_a_plan_is_told(
    fields: dict[str, Any], expected: str
) -> None:
    found = report(audits=(audit(**fields),))
    assert audits.document(found)["summary"].startswith(expected)


# The course.


def run(
    uuid: str,
    minutes: float,
    before: int,
    after: int,
    *,
    states: str = "PENDING",
    state: str = "CANCELLED",
    ended: float | None = None,
    **fields: Any,
) -> values.Plan:
    """A run that found so many Gold units over quota."""
    migration = values.Migration(
        action=f"action of {uuid}",
        state=states,
        message=None,
        instance="i",
        uuid="i",
        source="a",
        target="b",
        tier="gold",
        units=before - after,
        concern="quota",
        excess=("a", "gold"),
        finished=None if states == "PENDING" else at(ended or minutes),
        live=None
        if states == "PENDING"
        else values.Live(
            status="completed",
            began_at=at(minutes + 1),
            ended_at=at(ended or minutes),
        ),
    )
    return values.Plan(
        **{
            "uuid": uuid,
            "audit": "audit-1",
            "state": state,
            "message": None,
            "made_at": at(minutes),
            "changed_at": at(minutes if ended is None else ended),
            "indicators": {
                "excess_units_before": before,
                "excess_units_after": after,
                "gold_excess_units_before": before,
                "gold_excess_units_after": after,
            },
            "migrations": (migration,) if before > after else (),
            **fields,
        }
    )


def course(*runs: values.Plan, **fields: Any) -> values.Report:
    return report(runs=runs, since=at(-60), taken_at=at(120), **fields)


def minutes(found: values.Report) -> dict[tuple[str, str], float]:
    told_ = audits.course_of(found)
    assert told_ is not None
    return {(one.kind, one.tier): one.minutes for one in told_.breaches.tiers}


def test_a_breach_lasts_to_the_end_of_the_plan_that_cures_it() -> None:
    """Found at 0 and at 15; cured by the plan of 15, which ends at 20."""
    found = course(
        run("one", 0, 4, 0),
        run("two", 15, 4, 0, states=DONE, state=DONE, ended=20),
        run("three", 30, 0, 0, state=DONE),
    )
    assert minutes(found) == {("quota", "gold"): 20}


def test_what_nobody_saw_end_is_counted_to_the_last_sight() -> None:
    """Found at 0 and 15, gone at 30, found again at 45 and not looked for
    since: 15 minutes are proven.
    """
    found = course(
        run("one", 0, 4, 4),
        run("two", 15, 4, 4),
        run("three", 30, 0, 0),
        run("four", 45, 4, 4),
    )
    assert minutes(found) == {("quota", "gold"): 15}
    whole = text(found)
    assert "gold was over quota for at least 15 minutes" in whole


def test_audits_that_see_the_same_breach_do_not_count_it_twice() -> None:
    found = course(
        run("one", 0, 4, 4),
        run("other one", 5, 4, 4, audit="audit-2"),
        run("two", 10, 4, 4),
        run("other two", 20, 4, 4, audit="audit-2"),
    )
    assert minutes(found) == {("quota", "gold"): 20}


def test_what_no_audit_looked_at_has_no_minutes() -> None:
    found = course(
        dataclasses.replace(
            run("one", 0, 0, 0), indicators=model.frozen_map({})
        )
    )
    assert minutes(found) == {}


def repeating(
    interval: str, *made_at: float, **fields: Any
) -> tuple[values.Audit, tuple[values.Plan, ...]]:
    return reading.with_dues(
        audit(kind="CONTINUOUS", state="ONGOING", interval=interval, **fields),
        [run(f"run-{n}", when, 0, 0) for n, when in enumerate(made_at)],
    )


@pytest.mark.parametrize(
    ("interval", "runs", "late"),
    [
        ("900", (0, 15, 30), [None, None, None]),
        ("900", (0, 15.9, 31.8), [None, None, None]),
        ("900", (0, 20, 35), [None, 300, None]),
        ("*/15 * * * *", (0, 15, 45), [None, None, 900]),
        ("once in a while", (0, 15, 45), [None, None, None]),
    ],
)
def test_a_run_is_late_when_its_interval_and_the_grace_are_over(
    interval: str, runs: tuple[float, ...], late: list[float | None]
) -> None:
    """R130: within a minute of grace nothing is late."""
    judged, plans = repeating(interval, *runs)
    found = audits.course_of(course(*plans, audits=(judged,)))
    assert found is not None
    assert [one.late_seconds for one in found.runs] == late


def test_a_run_that_does_not_come_is_missing() -> None:
    judged, plans = repeating("900", 0, 15)
    found = course(*plans, audits=(judged,))

    document = audits.document(found)["course"]

    (missing,) = document["missing"]
    assert missing["due_at"] == at(30).text
    assert missing["late_seconds"] == 90 * 60
    assert "has not run since (90 min late)" in text(found)
    for quiet in (
        dataclasses.replace(found, taken_at=at(30.5)),
        dataclasses.replace(found, told=frozenset()),
        dataclasses.replace(
            found,
            audits=(dataclasses.replace(judged, state="CANCELLED"),),
        ),
    ):
        assert audits.document(quiet)["course"]["missing"] == []


def test_an_audit_that_may_not_run_any_more_is_not_missing() -> None:
    judged, plans = repeating("900", 0, 15, ends_at=at(20))
    assert (
        audits.document(course(*plans, audits=(judged,)))["course"]["missing"]
        == []
    )


def test_a_run_during_the_plan_of_another_audit_overlaps() -> None:
    """Its own plan, one of another goal and one that is over do not count."""
    slow = run(
        "slow", 0, 4, 0, states=DONE, state=DONE, ended=20, audit="audit-2"
    )
    known = (
        audit(),
        audit(uuid="audit-2", name="slow"),
        audit(uuid="audit-3", name="foreign", goal="dummy"),
    )
    found = audits.course_of(
        course(
            slow,
            run("during", 10, 4, 4),
            run("after", 25, 0, 0),
            run("foreign", 10, 0, 0, audit="audit-3"),
            run("own", 10, 4, 4, audit="audit-2"),
            audits=tuple(
                dataclasses.replace(one, kind="EVENT") for one in known
            ),
        )
    )
    assert found is not None
    assert {
        one.plan.uuid: [other.uuid for other in one.overlaps]
        for one in found.runs
    } == {
        "slow": [],
        "during": ["slow"],
        "after": [],
        "foreign": [],
        "own": [],
    }


def test_an_audit_that_was_passed_over_names_the_plan_that_it_met() -> None:
    slow = run("slow", 0, 4, 0, states=DONE, state=DONE, ended=20)
    # It was under way for a while before its first migration began.
    polite = audit(
        uuid="audit-2",
        name="polite",
        state="CANCELLED",
        created_at=at(0.1),
        changed_at=at(0.2),
    )
    found = course(
        slow,
        audits=(audit(), polite),
        told=frozenset({"audit-1", "audit-2"}),
    )
    (failure,) = audits.document(found)["course"]["failures"]
    assert failure["overlaps"] == ["slow"]
    # Its plan was made after that, and cannot be the reason.
    earlier = dataclasses.replace(polite, created_at=at(-2), changed_at=at(-1))
    (other,) = audits.document(
        dataclasses.replace(found, audits=(audit(), earlier))
    )["course"]["failures"]
    assert other["overlaps"] == []
    assert "audit polite was cancelled at 12:00 UTC, while action plan" in (
        text(found)
    )


def test_the_course_tells_what_plans_have_removed() -> None:
    """R123: 4 units, which come back, and 2 of the next 3."""
    found = course(
        run("one", 0, 4, 0, states=DONE, state=DONE, ended=5),
        run("two", 15, 3, 1, states=DONE, state=DONE, ended=20),
        dataclasses.replace(
            run("three", 30, 1, 1),
            indicators=model.frozen_map({"instances_starved_before": 2}),
        ),
    )
    assert (
        "gold: 4 units over quota at the first run (12:00 UTC), 4 at most, 3 "
        "at the last (12:15 UTC), 1 after its plan; plans have removed 6 "
        "units."
    ) in text(found)
    assert "Starved instances: 2 at the first run" in text(found)


# The command.


NOW = 1_795_262_400.0


@pytest.mark.parametrize(
    ("told_since", "expected"),
    [
        ("90m", NOW - 5400),
        ("24h", NOW - 86400),
        ("7d", NOW - 7 * 86400),
        ("2w", NOW - 14 * 86400),
        ("2026-11-21T11:00", NOW - 3600),
        ("2026-11-21T13:00+02:00", NOW - 3600),
        ("2026-11-21", NOW - 12 * 3600),
    ],
)
def test_since_is_a_time_or_an_age(told_since: str, expected: float) -> None:
    assert command._since(told_since, NOW) == expected


@pytest.mark.parametrize(
    "wrong",
    [
        *("yesterday", "24", "-3h", "2026-11-22"),
        *("99999999999w", "0001-01-01T00:00+14:00", "\u0663h"),
    ],
)
def test_a_since_that_is_neither_is_told(wrong: str) -> None:
    with pytest.raises(errors.ParameterError, match="--since") as caught:
        command._since(wrong, NOW)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "nothing to report on"),
        ({"audit": "a", "breaches": True}, "--breaches lists a course"),
        ({"since": "1h", "record": "file"}, "--record is of one run"),
        ({"audit": "a", "grace": -1.0}, "no number of seconds"),
        ({"audit": "a", "grace": float("nan")}, "no number of seconds"),
    ],
)
def test_options_that_do_not_go_together_are_told(
    given: dict[str, Any], complaint: str
) -> None:
    options = {
        "audit": None,
        "since": None,
        "breaches": False,
        "record": None,
        "grace": 60.0,
        **given,
    }
    with pytest.raises(errors.ParameterError, match=complaint) as caught:
        command._check(argparse.Namespace(**options))
    assert caught.value.cure


# Prometheus.


def test_prometheus_is_found_in_watchers_own_section(
    tmp_path: pathlib.Path,
) -> None:
    path = tmp_path / "watcher.conf"
    path.write_text(
        "[prometheus_client]\nhost = prometheus.example.org\nport = 9091\n"
    )
    conf = settings.configuration([str(path)])
    for _ in range(2):
        found = breaches.configured(conf, connection.Connection)
        assert found is not None
        assert found.url.startswith("http://prometheus.example.org:9091/")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://here:9090", "http://here:9090/api/v1/query"),
        ("https://here/prom/", "https://here/prom/api/v1/query"),
        ("http://[::1]:9090", "http://[::1]:9090/api/v1/query"),
        # What an error shows has no password in it.
        ("http://me:secret@here", "http://here/api/v1/query"),
    ],
)
def test_a_prometheus_is_named_by_its_url(url: str, expected: str) -> None:
    assert prometheus.named(url, settings.configuration(None)).url == expected


@pytest.mark.parametrize(
    "wrong", ["here:9090", "ftp://here", "http://", "http://here:x"]
)
def test_what_is_no_url_of_a_prometheus_is_told(wrong: str) -> None:
    with pytest.raises(errors.ConfigurationError, match=r"here|http"):
        prometheus.named(wrong, settings.configuration(None))


# Notices.


def test_tenants_are_told_of_their_own_instances_alone() -> None:
    """R120: no host, no other project, whatever the reason says."""
    found = of_scenario("hop_that_is_needed")
    plan = told(found)
    plan = dataclasses.replace(
        plan,
        migrations=tuple(
            dataclasses.replace(one, project=f"project-{number % 2}")
            for number, one in enumerate(plan.migrations)
        ),
    )

    document = audits.document(report(plan))["notices"]

    assert [one["project"] for one in document] == ["project-0", "project-1"]
    mine = {
        number: {m.instance.uuid for m in found.plan.migrations[number::2]}
        for number in (0, 1)
    }
    for number, notice in enumerate(document):
        assert {one["uuid"] for one in notice["instances"]} == mine[number]
        said = json.dumps(notice)
        for host in found.cluster.hosts:
            assert host.name not in said
        for uuid in mine[1 - number] - mine[number]:
            assert uuid not in said


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (starved(), "it got less CPU time than its silver tier promises"),
        (drained(), "the machine that it ran on is to be emptied"),
        (of_scenario("over_gold_quota"), "held more of the gold tier"),
    ],
)
def test_tenants_are_told_why_in_their_words(found: Made, why: str) -> None:
    (notice,) = audits.document(report(told(found)))["notices"]
    assert why in notice["text"]


def test_who_was_parked_on_the_way_is_told_once() -> None:
    found = of_scenario("hop_that_is_needed")
    parked = [m.instance.uuid for m in found.plan.migrations if m.parking]
    assert parked
    (notice,) = audits.document(report(told(found)))["notices"]
    uuids = [one["uuid"] for one in notice["instances"]]
    assert sorted(uuids) == sorted(
        {m.instance.uuid for m in found.plan.migrations}
    )


def test_a_failure_since_the_newest_plan_is_told_first() -> None:
    failed = audit(kind="CONTINUOUS", state="FAILED", message="no Placement")
    plan = told(of_scenario("over_gold_quota"))
    document = audits.document(report(plan, audits=(failed,)))
    assert document["summary"] == (
        "Audit nightly failed at 11:59 UTC: no Placement."
    )
    assert "moved" in document["sentences"][1]


def test_a_planned_migration_is_announced_and_a_dropped_one_is_not() -> None:
    found = of_scenario("over_gold_quota")
    coming = report(told(found, "PENDING", state="RECOMMENDED"))
    (notice,) = audits.document(coming)["notices"]
    assert "to be live-migrated:" in notice["text"]
    for states, state in (("PENDING", "CANCELLED"), ("SKIPPED", DONE)):
        dropped = report(told(found, states, state=state))
        assert audits.document(dropped)["notices"] == []


# Documents.


@pytest.mark.parametrize(
    "found",
    [
        report(told(of_scenario("hop_that_is_needed"))),
        report(told(of_scenario("over_gold_quota"), plain=True)),
        report(),
        course(
            run("one", 0, 4, 0, states=DONE, state=DONE, ended=5),
            series=values.Series(
                source="http://here",
                begin=at(0),
                end=at(60),
                succeeded=0.9,
                unobserved=model.frozen_map({"quota": 3.0}),
                breaches=(
                    values.Breach(
                        host="a",
                        tier="gold",
                        kind="quota",
                        minutes=12.5,
                        peak_units=4,
                    ),
                ),
            ),
        ),
    ],
)
def test_a_document_is_json_and_makes_a_page(found: values.Report) -> None:
    document = audits.document(found)
    assert json.loads(json.dumps(document)) == document
    assert document["watcher_cputier_audit"] == audits.AUDIT_VERSION
    assert pages.audit(document).startswith("<!")


def test_the_series_that_are_read_are_those_of_the_exporter() -> None:
    """Names and labels of the exporter's own table."""
    families = {one.name: one for one in metrics.FAMILIES}
    for name, labels in (
        (metrics.BREACH, {"host", "tier", "kind"}),
        (metrics.UNOBSERVED, {"kind"}),
        (metrics.EXCESS, {"host", "tier"}),
        (metrics.COLLECTED, set()),
        (metrics.SUCCEEDED, set()),
    ):
        assert set(families[name].labels) == labels
