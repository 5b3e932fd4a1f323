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

"""Clouds whose pages are worth a look, and their documents.

::

    compute-1  32 CPUs  gold 32 of 24, silver 24, bronze 32 of 32
    compute-2  32 CPUs  gold 24, bronze 30, and `render`, 16 vCPUs of silver
                        with the shares of one
    compute-3  32 CPUs  gold 8
    compute-4  32 CPUs  gold 20, silver 30; one instance is not measured
    compute-5  32 CPUs  gold 16, bronze 30 of 16; two of them are locked
    compute-6  32 CPUs  empty
"""

import datetime
import pathlib
from typing import Any

from tests import builders
from tests import consumption
from watcher_cputier import audits
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import scenario
from watcher_cputier import schedule
from watcher_cputier import starvation
from watcher_cputier.goals import indicators

ROOT = pathlib.Path(__file__).parents[1]


def six(*, instance: str = "shop-1", host: str = "compute-1") -> model.Cluster:
    """Six hosts with telemetry.

    :param instance: name of an instance that moves
    :param host: name of the host that it leaves
    """
    names = [host, *(f"compute-{number}" for number in range(2, 7))]
    quotas = {host: {"gold": 24}, "compute-5": {"bronze": 16}}
    guests = [
        consumption.guest(name, names[on - 1], tier, vcpus, **fields)
        for name, on, tier, vcpus, fields in _guests(instance)
    ]
    cloud = builders.cluster(
        [
            consumption.host(name, units=32, **quotas.get(name, {}))
            for name in names
        ],
        guests,
    )
    return consumption.used(
        cloud,
        {
            one.uuid: one.flavor.vcpus * (0.7 if one.tier == "bronze" else 0.9)
            for one in guests
        },
        unmeasured=["api-1"],
    )


def _guests(
    first: str,
) -> list[tuple[str, int, str, int, dict[str, Any]]]:
    """Name, number of the host, tier, vCPUs, and what is special."""
    found: list[tuple[str, int, str, int, dict[str, Any]]] = [
        (first, 1, "gold", 8, {}),
        ("render", 2, "silver", 16, {"shares": 333}),
        ("ledger", 5, "gold", 16, {"locked": True}),
    ]
    for name, count, on, tier, vcpus in (
        ("store", 3, 1, "gold", 8),
        ("mail", 3, 1, "silver", 8),
        ("batch", 2, 1, "bronze", 16),
        ("db", 3, 2, "gold", 8),
        ("farm", 3, 2, "bronze", 10),
        ("web", 2, 3, "gold", 4),
        ("api", 5, 4, "gold", 4),
        ("cache", 3, 4, "silver", 10),
        ("ci", 3, 5, "bronze", 6),
    ):
        found += [
            (f"{name}-{number}", on, tier, vcpus, {})
            for number in range(1, count + 1)
        ]
    found += [
        (f"ci-locked-{number}", 5, "bronze", 6, {"locked": True})
        for number in (1, 2)
    ]
    return found


def single_class() -> model.Cluster:
    """Two hosts whose tiers draw on one class, one of them over it."""
    path = ROOT / "tests" / "scenarios" / "single_class.yaml"
    return scenario.loads(path.read_text()).cluster


def plan_document(cloud: model.Cluster, **given: Any) -> dict[str, Any]:
    """The plan for a cloud, as the commands have it."""
    params = parameters.Parameters.of(given)
    verdict = diagnosis.diagnose(cloud, params)
    made = planner.plan(cloud, verdict, params)
    return report.plan_document(
        cloud,
        verdict,
        made,
        schedule=schedule.arrange(cloud, made.migrations, verdict, params),
        indicators=indicators.values(made, [t.name for t in cloud.tiers]),
        starved=starvation.judge(cloud, verdict, params),
    )


def scenario_document(path: pathlib.Path) -> dict[str, Any]:
    """The plan for a scenario, with its own parameters."""
    found = scenario.loads(path.read_text())
    return plan_document(found.cluster, **found.parameters)


def hosts_document(
    cloud: model.Cluster,
    *,
    hosts: set[str] | None = None,
    accounts: set[str] | None = None,
    **given: Any,
) -> dict[str, Any]:
    """The hosts of a cloud, as the commands have them."""
    params = parameters.Parameters.of(given)
    verdict = diagnosis.diagnose(cloud, params)
    found = starvation.judge(cloud, verdict, params)
    return report.hosts_document(
        cloud, verdict, found, hosts=hosts, accounts=accounts
    )


# What audits did


_NOON = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)


def _at(minutes: float) -> audits.Moment:
    moment = _NOON + datetime.timedelta(minutes=minutes)
    return audits.Moment(
        seconds=moment.timestamp(),
        text=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
    )


def _migration(
    number: int,
    state: str,
    ways: tuple[str, str],
    held: int,
    units: int,
    message: str = "",
) -> audits.Migration:
    source, target = ways
    return audits.Migration(
        action=f"action-{number}",
        state=state,
        message=message,
        instance=f"shop-{number}",
        uuid=f"shop-{number}",
        source=source,
        target=target,
        tier="gold",
        units=units,
        concern="quota",
        reason=f"{source} holds {held} gold units of at most 112",
        excess=(source, "gold"),
        held=audits.Held(units=held, quota=112),
        relief=units,
        project=f"project-{number % 2}",
        finished=_at(600 + number),
        live=audits.Live(
            status="completed",
            began_at=_at(600 + number),
            ended_at=_at(600.7 + number),
        )
        if state == "SUCCEEDED"
        else None,
    )


def _run(
    number: int, before: int, after: int, *moves: audits.Migration
) -> audits.Plan:
    return audits.Plan(
        uuid=f"plan-{number}",
        audit="audit",
        state="SUCCEEDED",
        message="",
        made_at=_at(30 * number),
        changed_at=_at(30 * number + 5),
        # One run in ten was late.
        due_at=_at(30 * number - (7 if number % 10 == 7 else 0)),
        indicators={
            "excess_units_before": before,
            "excess_units_after": after,
            "gold_excess_units_before": before,
            "gold_excess_units_after": after,
        },
        migrations=moves,
    )


def audit_report() -> audits.Report:
    """Twenty quiet runs, and one of which not all went well."""
    last = _run(
        20,
        24,
        0,
        _migration(1, "SUCCEEDED", ("compute-1", "compute-3"), 128, 8),
        _migration(2, "SUCCEEDED", ("compute-1", "compute-4"), 128, 8),
        _migration(
            3,
            "SKIPPED",
            ("compute-2", "compute-4"),
            116,
            4,
            "compute-2 is within its quota of gold meanwhile",
        ),
        _migration(
            4,
            "FAILED",
            ("compute-5", "compute-6"),
            116,
            4,
            "Live migration failed",
        ),
    )
    return audits.Report(
        taken_at=_at(620),
        audits=(
            audits.Audit(
                uuid="audit",
                name="every half hour",
                kind="CONTINUOUS",
                state="ONGOING",
                goal="continuous_slo_compliance",
                strategy="domain_capacity_enforcement",
                interval="1800",
                message="",
                created_at=_at(0),
                next_at=_at(630),
            ),
        ),
        told=frozenset({"audit"}),
        plans=(last,),
        since=_at(0),
        runs=(
            *(_run(n, max(0, 30 - 3 * n), 0) for n in range(20)),
            last,
        ),
        series=audits.Series(
            source="prometheus",
            begin=_at(0),
            end=_at(600),
            succeeded=0.99,
            unobserved={"quota": 4.0},
            breaches=(
                audits.Breach(
                    host="compute-1",
                    tier="gold",
                    kind="quota",
                    minutes=312.0,
                    peak_units=16.0,
                ),
            ),
        ),
        project_names={"project-0": "data", "project-1": "web"},
        findings=("Nova has no record of one migration.",),
    )
