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

"""Kinds of audits, goals, and what the services see of them."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

from tests.cloud import EmbeddedCloud
from tests.functional import polling
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import GOAL
from tests.functional.watcher_api import Operator
from tests.functional.watcher_api import Plan
from tests.functional.watcher_api import STRATEGY

OVER_QUOTA = specs.three_tiers(
    instance("mover", "gold.4", "host-1"),
    instance("stay", "gold.2", "host-1"),
    events=(specs.inventory("host-1", "gold", total=2),),
)
PER_TIER = {
    f"{tier}_excess_units_{when}"
    for tier in specs.TIERS
    for when in ("before", "after")
}


def test_an_audit_only_reads_and_a_plan_only_migrates(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R95: the plugin never writes to Placement, and to Nova only moves.

    The services' own ledgers of requests: GET alone during an audit, and one
    live migration an action when the plan is executed.
    """
    load(
        specs.three_tiers(
            instance("gold", "gold.4", "host-1"),
            instance("silver", "silver.4", "host-1"),
            events=specs.reserved("host-1"),
        )
    )

    begun = cloud.mark()
    audit = operator.audit()
    asked = cloud.requests("compute", begun) + cloud.requests(
        "placement", begun
    )
    asked = [request for request in asked if request.user == "watcher"]

    assert set(audit.moves) == {"gold", "silver"}
    assert {request.service for request in asked} == {"compute", "placement"}
    assert {request.method for request in asked} == {"GET"}

    begun = cloud.mark()
    operator.start(audit.plan)
    told = [
        request
        for service in ("compute", "placement")
        for request in cloud.requests(service, begun)
        if request.user == "watcher" and request.method != "GET"
    ]

    assert truth.over() == {}
    assert sorted(request.path.split("/")[-2] for request in told) == sorted(
        [cloud.server_id("gold"), cloud.server_id("silver")]
    )
    for request in told:
        assert request.method == "POST"
        assert set(json.loads(request.body)) == {"os-migrateLive"}


def test_the_command_line_lists_runs_and_shows(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """R68, R70, R71: an operator's whole way with ``openstack optimize``."""
    load(OVER_QUOTA)

    goals = _openstack(cloud, "goal", "list")
    assert {
        "continuous_slo_compliance",
        "workload_balancing",
    } <= {goal["Name"] for goal in goals}
    (shown,) = [goal for goal in goals if goal["Name"] == GOAL]
    assert "CPU SLO" in shown["Display name"]

    strategies = _openstack(cloud, "strategy", "list")
    assert {
        (one["Name"], one["Goal"])
        for one in strategies
        if one["Name"].startswith(STRATEGY)
    } == {
        (STRATEGY, GOAL),
        (f"{STRATEGY}_balancing", "workload_balancing"),
    }

    created = _openstack(
        cloud,
        *("audit", "create", "--goal", GOAL, "--strategy", STRATEGY),
        *("--parameter", "max_migrations=5"),
        *("--parameter", 'quotas={"gold": "50%"}'),
    )
    audit = polling.until(
        lambda: _ended(_openstack(cloud, "audit", "show", created["UUID"])),
        "the audit to end",
    )
    assert audit["State"] == "SUCCEEDED"
    (plan,) = _openstack(
        cloud, "actionplan", "list", "--audit", created["UUID"]
    )
    assert plan["State"] == "RECOMMENDED"
    actions = _openstack(
        cloud, "action", "list", "--action-plan", plan["UUID"]
    )
    # Half of host-1's 2 Gold units may be held: both instances leave.
    assert [action["Action"] for action in actions] == ["tier_migrate"] * 2


def _ended(record: dict[str, Any]) -> dict[str, Any] | None:
    return None if record["State"] in ("PENDING", "ONGOING") else record


def _openstack(cloud: EmbeddedCloud, *arguments: str) -> Any:
    """Run an ``openstack optimize`` command of the real client."""
    command = pathlib.Path(sys.executable).with_name("openstack")
    done = subprocess.run(
        [str(command), "optimize", *arguments, "--format", "json"],
        env={**os.environ, **cloud.environment()},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_goals_efficacy_names_every_tier(
    cloud: EmbeddedCloud, operator: Operator
) -> None:
    """The goal's specification as Watcher shows it, per tier too."""
    goal = operator.get(f"/v1/goals/{GOAL}")

    names = {one["name"] for one in goal["efficacy_specification"]}
    assert names == PER_TIER | {
        "hosts_over_quota_before",
        "hosts_over_quota_after",
        "excess_units_before",
        "excess_units_after",
        "migrations_planned",
        "migrations_lower_bound",
        "instances_unresolved",
        "instances_starved_before",
        "instances_starved_after",
    }


def test_the_stock_goal_gets_its_own_indicators(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R71: the same strategy under ``workload_balancing``."""
    load(OVER_QUOTA, shared=True)

    audit = operator.run(
        goal="workload_balancing", strategy=f"{STRATEGY}_balancing"
    )

    assert set(audit.moves) == {"mover"}
    assert audit.indicators == {
        "instance_migrations_count": 1,
        "instances_count": 2,
    }
    assert "KeyError" not in audit.log
    own = operator.audit()
    assert own.moves == audit.moves


def test_enforce_quota_can_be_switched_off(
    load: Load, operator: Operator
) -> None:
    """What an audit did not look at has no indicators, not 0."""
    load(OVER_QUOTA, shared=True)

    audit = operator.audit(enforce_quota=False, relieve_starvation=False)

    assert audit.moves == {}
    assert audit.indicators == {}
    assert audit.plan.efficacy == {}
    assert audit.said("enforce_quota, relieve_starvation and mix_tiers are")


def test_a_oneshot_audit_executes_its_plan_if_told_to(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R118: ``auto_trigger``; nobody starts the plan."""
    load(OVER_QUOTA)

    audit = operator.run(auto_trigger=True)
    plan = operator.wait_for_plan(audit.plan.uuid, started=False)

    assert plan.state == "SUCCEEDED"
    assert set(plan.moves) == {"mover"}
    assert truth.locations()["mover"] == plan.moves["mover"][1]
    assert truth.over() == {}


def test_a_continuous_audit_supersedes_its_earlier_recommendation(
    load: Load, operator: Operator
) -> None:
    """R113: it runs again; the plan that nobody started is cancelled."""
    load(OVER_QUOTA, shared=True)
    uuid = operator.create_audit(audit_type="CONTINUOUS", interval="1")

    def superseded() -> tuple[Plan, ...]:
        plans = operator.plans(uuid)
        # A plan is saved before its actions are.
        again = len(plans) > 1 and plans[1].moves
        return plans if again else ()

    plans = polling.until(superseded, "a second run")
    operator.cancel_audit(uuid)

    assert plans[0].state == "CANCELLED"
    assert set(plans[0].moves) == set(plans[1].moves) == {"mover"}
    states = [plan.state for plan in operator.plans(uuid)]
    assert states.count("RECOMMENDED") <= 1
    assert set(states) <= {"RECOMMENDED", "CANCELLED"}


def test_an_event_audit_runs_when_its_webhook_is_called(
    load: Load, operator: Operator
) -> None:
    """R115, R116: it waits until somebody calls, each time."""
    load(OVER_QUOTA, shared=True)
    uuid = operator.create_audit(audit_type="EVENT")
    assert operator.get(f"/v1/audits/{uuid}")["state"] == "PENDING"
    assert operator.plans(uuid) == ()

    answer = operator.post(f"/v1/webhooks/{uuid}", {})

    assert answer.status_code == 202
    audit = operator.wait(uuid)
    assert set(audit.moves) == {"mover"}

    operator.post(f"/v1/webhooks/{uuid}", {})

    plans = polling.until(
        lambda: [p for p in operator.plans(uuid) if p.moves][1:],
        "the plan of the second call",
    )
    assert set(plans[0].moves) == {"mover"}
