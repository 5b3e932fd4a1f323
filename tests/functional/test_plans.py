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


"""The real planner's plans on the real engine, with real Nova and Placement.

The clouds are those of ``tests/scenarios``, whose expected plans are golden
files: instances have to make room for others, one is parked on the way. Here
they are declared to Nova and Placement, audited and carried out. Nova's own
records say whether Placement refused anything: such a migration ends in
``error``.
"""

from collections.abc import Iterator
import pathlib
from typing import Any

import pytest
import yaml

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import EventSpec
from tests.cloud import FlavorSpec
from tests.cloud import HostSpec
from tests.cloud import InstanceSpec
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.truth import Truth
from tests.functional.watcher_api import Audit
from tests.functional.watcher_api import Operator
from watcher_cputier import diagnosis
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import scenario

SCENARIOS = pathlib.Path(__file__).parents[1] / "scenarios"
HOP = "hop_that_is_needed"
LOCKED = "two_hosts_locked_by_memory_and_a_third"
EJECTIONS = (
    HOP,
    LOCKED,
    "exchange_through_a_third_host",
    "holes_too_small_until_one_ejection",
)
OTHERS = ("favourite_that_is_the_only_hole", "over_gold_quota")
# More audits than any of them needs.
MOST_AUDITS = 8


@pytest.fixture(autouse=True)
def undisturbed(cloud: EmbeddedCloud) -> Iterator[None]:
    """Whatever a story does to migrations ends with it."""
    yield
    cloud.set_migration_behaviour()


def declared(title: str) -> CloudSpec:
    """A scenario as a cloud that can be booted.

    Nova boots nothing on a host that is over its capacity: the tiers' classes
    are lowered afterwards, as an operator would; to nothing by ``reserved``,
    for Placement knows no total of 0. The first host sells one unit of each
    configured tier that the scenario does not have.
    """
    told = yaml.safe_load((SCENARIOS / f"{title}.yaml").read_text())
    flavors = {
        key: FlavorSpec(name=key, **fields)
        for key, fields in told["flavors"].items()
    }
    held: dict[tuple[str, str], int] = {}
    for one in told["instances"]:
        for spec, units in flavors[one["flavor"]].extra_specs.items():
            key = (one["host"], spec.partition(":")[2])
            held[key] = held.get(key, 0) + int(units)
    hosts = []
    events = []
    for one in told["hosts"]:
        name = one["name"]
        sold = dict(one["inventories"])
        vcpus, memory_mb = sold.pop("VCPU"), sold.pop("MEMORY_MB")
        at_first = {
            tier: max(units, held.get((name, tier), 0), 1)
            for tier, units in sold.items()
        }
        hosts.append(
            HostSpec(
                name=name,
                vcpus=vcpus,
                memory_mb=memory_mb,
                inventories={
                    tier: {"total": units} for tier, units in at_first.items()
                },
            )
        )
        events += [
            EventSpec(
                name=f"{name} {tier}",
                action="set_inventory",
                arguments={
                    "host": name,
                    "resource_class": tier,
                    **(
                        {"total": units}
                        if units
                        else {"reserved": at_first[tier]}
                    ),
                },
            )
            for tier, units in sold.items()
            if units != at_first[tier]
        ]
    unsold = {specs.tier_class(tier): 1 for tier in specs.TIERS}
    for host in hosts:
        for tier in host.inventories:
            unsold.pop(tier, None)
    for tier, units in unsold.items():
        hosts[0].inventories[tier] = {"total": units}
    return CloudSpec(
        hosts=tuple(hosts),
        flavors=tuple(flavors.values()),
        instances=tuple(InstanceSpec(**one) for one in told["instances"]),
        events=tuple(events),
    )


def planned(name: str) -> planner.Plan:
    """The plan on the scenario itself, as its golden file shows it."""
    found = scenario.loads((SCENARIOS / f"{name}.yaml").read_text())
    params = parameters.Parameters.of(found.parameters)
    verdict = diagnosis.diagnose(found.cluster, params)
    return planner.plan(found.cluster, verdict, params)


def moves(audit: Audit) -> list[tuple[str, str, str]]:
    """(instance, from, to) of each action, sorted."""
    told: list[dict[str, Any]] = [
        action["input_parameters"] for action in audit.plan.actions
    ]
    return sorted(
        (one["resource_name"], one["source_node"], one["destination_node"])
        for one in told
    )


def ended(cloud: EmbeddedCloud) -> list[str]:
    """How each migration has ended, by Nova."""
    listed = cloud.adapter("compute").get("/os-migrations").json()
    return [one["status"] for one in listed["migrations"]]


@pytest.mark.parametrize("name", [*EJECTIONS, *OTHERS])
def test_the_expected_plan_is_carried_out(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    name: str,
) -> None:
    """Real services plan what the scenario expects; every step succeeds,
    Placement refuses nothing, and the second audit finds nothing to do.
    """
    expected = planned(name).migrations
    assert any(m.makes_room_for for m in expected) == (name in EJECTIONS)
    assert any(m.parking for m in expected) == (name == HOP)
    load(declared(name))
    assert truth.over()

    audit = operator.audit(parallel_total=4)

    assert moves(audit) == sorted(
        (m.instance.name, m.source, m.target) for m in expected
    )
    assert audit.indicators["excess_units_after"] == 0

    plan = operator.start(audit.plan)

    assert plan.state == "SUCCEEDED"
    assert {action["state"] for action in plan.actions} == {"SUCCEEDED"}
    assert ended(cloud) == ["completed"] * len(expected)
    assert truth.over() == {}
    second = operator.audit()
    assert second.moves == {}
    assert second.said("Nothing to do: none of")


@pytest.mark.parametrize("name", [HOP, LOCKED])
def test_those_that_make_room_come_first(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    name: str,
) -> None:
    """Slow copies, as much in parallel as Watcher does: a step that needs
    another's room starts after it has ended, by Nova's own times.
    """
    load(declared(name))
    cloud.set_migration_behaviour(duration_seconds=1.5)

    audit = operator.audit(
        parallel_total=4, parallel_per_source=4, parallel_per_target=4
    )
    plan = operator.start(audit.plan)

    assert {action["state"] for action in plan.actions} == {"SUCCEEDED"}
    by_uuid = {a["uuid"]: a["input_parameters"] for a in plan.actions}
    needing = [one for one in by_uuid.values() if one["needs"]]
    assert needing
    for one in needing:
        for uuid in one["needs"]:
            first, then = record(truth, by_uuid[uuid]), record(truth, one)
            assert first["updated_at"] <= then["created_at"]
    assert set(ended(cloud)) == {"completed"}
    assert truth.over() == {}


def record(truth: Truth, told: dict[str, Any]) -> dict[str, Any]:
    """Nova's record of an action's migration."""
    (found,) = [
        one
        for one in truth.migrations(told["resource_name"])
        if one["source_compute"] == told["source_node"]
        and one["dest_compute"] == told["destination_node"]
    ]
    return found


@pytest.mark.parametrize("name", [HOP, LOCKED])
def test_watchers_own_planner_gets_there_audit_by_audit(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    name: str,
) -> None:
    """``planner: weight``: what no pair can take is left to the next audit,
    which finds the room. Placement refuses nothing on the way.
    """
    load(declared(name))
    total = 0
    for _ in range(MOST_AUDITS):
        audit = operator.audit(planner="weight")
        if not audit.plan.actions:
            break
        types = {action["action_type"] for action in audit.plan.actions}
        assert types == {"migrate"}
        total += len(audit.plan.actions)
        plan = operator.start(audit.plan)
        assert {action["state"] for action in plan.actions} == {"SUCCEEDED"}
    else:
        pytest.fail(f"it is not at its end after {MOST_AUDITS} audits")

    assert ended(cloud) == ["completed"] * total
    assert truth.over() == {}
    assert audit.said("Nothing to do: none of")


def test_a_failed_hop_leaves_nothing_worse(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """The copy of the instance that makes room fails: those that need its
    room stay, nothing is refused, and the next audit carries on.
    """
    load(declared(HOP))
    before = truth.over()
    cloud.set_migration_behaviour("rack-2", outcome="fail")

    plan = operator.start(operator.audit().plan)

    assert "SUCCEEDED" not in {
        action["state"]
        for action in plan.actions
        if action["input_parameters"]["needs"]
    }
    assert set(ended(cloud)) <= {"completed", "failed"}
    assert set(truth.over()) <= set(before)

    cloud.set_migration_behaviour()
    again = operator.audit()
    assert operator.start(again.plan).state == "SUCCEEDED"
    assert truth.over() == {}
    assert operator.audit().moves == {}


def test_what_waits_for_room_waits_within_the_snapshot_too(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """The reader's snapshot of the declared cloud is the scenario: the same
    units held, the same quotas.
    """
    load(declared(HOP), shared=True)
    seen = snapshots.read(cloud, detailed=["rack-1", "rack-2", "rack-3"])
    found = scenario.loads((SCENARIOS / f"{HOP}.yaml").read_text()).cluster
    given = parameters.Parameters.of()

    def quotas(cluster: Any) -> dict[tuple[str, str], int | None]:
        verdict = diagnosis.diagnose(cluster, given)
        return {
            (host.name, account): verdict.quota(host.name, account)
            for host in cluster.hosts
            for account in ("gold", "silver")
        }

    assert quotas(seen) == quotas(found)
    assert {key: units for key, units in seen.held.items() if units} == {
        key: units for key, units in found.held.items() if units
    }


def test_room_is_not_made_where_the_guest_is_too_large(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """rack-2 would have room for shop's 4 units once blog has left, but its
    ``max_unit`` is 3 by now. Placement, which offers only what has room at
    present, cannot be asked about that: its inventories are.
    """
    load(declared("exchange_through_a_third_host"))
    cloud.set_inventory("rack-2", specs.GOLD, total=4, max_unit=3)

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.said("shop has no target", "rack-2")
    assert audit.indicators["gold_excess_units_after"] == 2


def test_what_is_tied_to_its_host_makes_no_room(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """blog would make room on rack-2, a host that is within its quota; its
    port is on a device there. That is asked about when a plan moves it.
    """
    load(declared("exchange_through_a_third_host"))
    cloud.set_ports(
        [
            {
                "id": "11111111-1111-1111-1111-111111111111",
                "device_id": cloud.server_id("blog"),
                "binding:vnic_type": "direct",
            }
        ]
    )

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.said("shop has no target", "rack-2")
