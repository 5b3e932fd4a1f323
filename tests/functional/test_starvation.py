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

"""Starvation from end to end: real Gnocchi, real Watcher, real Nova.

Four hosts of 8 CPUs that sell 8 units of each tier:

* ``host-1``: everybody is busy, and ``wide`` has 4 vCPUs of silver whose
  flavor has the shares of one: it is starved;
* ``host-2``: everybody is busy and has the right shares: fair contention;
* ``host-3``: sold three times over, and idle;
* ``host-4``: one small instance, room for others.
"""

from collections.abc import Iterator
import dataclasses

import pytest

from tests.cloud import EmbeddedCloud
from tests.cloud import loads
from tests.functional import specs
from tests.functional import watcher_api
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

WIDE = specs.flavor(
    "silver.wide",
    4,
    extra_specs={
        f"resources:{specs.SILVER}": "4",
        # Of one vCPU, as the quota of a domain is easily misread.
        "quota:cpu_shares": "333",
    },
)
CLOUD = specs.three_tiers(
    instance("wide", "silver.wide", "host-1"),
    instance("gold-busy", "gold.8", "host-1"),
    instance("silver-busy", "silver.4", "host-1"),
    instance("bronze-busy", "bronze.8", "host-1"),
    instance("gold-fair", "gold.8", "host-2"),
    instance("silver-fair", "silver.8", "host-2"),
    instance("bronze-fair", "bronze.8", "host-2"),
    instance("gold-idle", "gold.8", "host-3"),
    instance("silver-idle", "silver.8", "host-3"),
    instance("bronze-idle", "bronze.8", "host-3"),
    instance("small", "bronze.2", "host-4"),
    hosts=specs.hosts(4),
    flavors=[WIDE],
)
BUSY = dict.fromkeys(
    [
        "wide", "gold-busy", "silver-busy", "bronze-busy", "gold-fair",
        "silver-fair", "bronze-fair",
    ],
    1.0,
)  # fmt: skip


@pytest.fixture
def measured(cloud: EmbeddedCloud) -> Iterator[EmbeddedCloud]:
    """The cloud with a Gnocchi, for as long as the test runs."""
    cloud.gnocchi.start()
    cloud.gnocchi.enter()
    yield cloud
    cloud.gnocchi.leave()


def test_a_starved_instance_is_cured_and_fair_and_idle_hosts_left_alone(
    measured: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    load(CLOUD)
    loads.tell(measured, BUSY)

    audit = operator.audit()

    assert set(audit.moves) == {"wide"}
    assert audit.moves["wide"] == ("host-1", "host-4")
    assert audit.indicators["instances_starved_before"] == 1
    assert audit.indicators["instances_starved_after"] == 0
    assert audit.indicators["excess_units_before"] == 0
    # Why, with the configuration that would cure it without a migration.
    (line,) = audit.said("Starved: ")
    assert "wide (silver) on host-1" in line
    assert "mis-weighted" in line
    assert "quota:cpu_shares" in line
    assert "1332" in line
    assert audit.said("Migrate wide", "from host-1 to host-4")
    assert audit.said("Predicted by the entitlements", "wide (host-1 to ")
    assert audit.said("1 migration for starvation", "starved: 1 to 0")

    done = operator.start(audit.plan)

    assert done.state == "SUCCEEDED"
    assert [action["state"] for action in done.actions] == ["SUCCEEDED"]
    assert truth.locations()["wide"] == "host-4"
    assert truth.over() == {}

    # Windows from before the migration say nothing about where it is now.
    again = operator.audit()
    assert again.moves == {}

    # An hour later nobody is starved any more.
    loads.tell(measured, BUSY, placed={"wide": "host-4"})
    later = operator.audit()
    assert later.moves == {}


def test_the_next_audit_sees_the_cure(
    measured: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """The same load where the plan would have it: nobody is starved."""
    moved = tuple(
        dataclasses.replace(one, host="host-4") if one.name == "wide" else one
        for one in CLOUD.instances
    )
    load(dataclasses.replace(CLOUD, instances=moved))
    loads.tell(measured, BUSY)

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.indicators["instances_starved_before"] == 0
    assert audit.said("nobody is starved")


def test_a_step_is_skipped_when_nobody_is_starved_any_more(
    measured: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """N13: the load has gone between the audit and its execution."""
    load(CLOUD)
    loads.tell(measured, BUSY)
    audit = operator.audit()
    assert set(audit.moves) == {"wide"}
    loads.tell(measured, {})

    done = operator.start(audit.plan)

    (action,) = done.actions
    if watcher_api.skips():
        assert action["state"] == "SKIPPED"
        assert "nobody is starved any more" in action["status_message"]
    else:
        assert action["state"] == "FAILED"
    assert truth.locations()["wide"] == "host-1"


def test_without_telemetry_quotas_are_kept_and_starvation_abstains(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """L8: loudly, and the indicators of starvation are left out."""
    load(
        dataclasses.replace(
            CLOUD, events=(specs.inventory("host-3", "gold", total=4),)
        )
    )

    audit = operator.audit()

    assert set(audit.moves) == {"gold-idle"}
    assert not any("starved" in name for name in audit.indicators)
    assert audit.said("no_telemetry", "Starvation is not looked for")


def test_an_audit_for_starvation_alone_fails_without_telemetry(
    load: Load, operator: Operator
) -> None:
    """An audit never reports success when it could not look."""
    load(CLOUD)

    audit = operator.run({"enforce_quota": False})

    assert audit.state == "FAILED"
    assert "metric" in audit.reason


def test_quotas_come_first(
    measured: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """With one migration allowed it is the one for the quota."""
    load(
        dataclasses.replace(
            CLOUD, events=(specs.inventory("host-3", "gold", total=4),)
        )
    )
    loads.tell(measured, BUSY)

    audit = operator.audit(max_migrations=1)

    assert set(audit.moves) == {"gold-idle"}
    assert audit.indicators["instances_starved_before"] == 1
    assert audit.indicators["instances_starved_after"] == 1
    assert audit.said("relief waits until quotas are kept")


def test_a_starved_instance_without_telemetry_is_unknown(
    measured: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    load(CLOUD)
    loads.tell(measured, BUSY, without=frozenset({"wide"}))

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.indicators["instances_starved_before"] == 0
    assert audit.said("telemetry_coverage", "wide")


def test_strategy_state_tells_the_truth(
    measured: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """N11: the datasource and each metric, as they are."""
    load(CLOUD)
    loads.tell(measured, BUSY)

    assert _state(operator) == {
        "Datasource": "gnocchi: available",
        "Metrics": [{"cpu": "available"}, {"cpu.steal": "available"}],
    }

    measured.gnocchi.forget()
    assert _state(operator)["Metrics"] == [
        {"cpu": "not available"},
        {"cpu.steal": "not available"},
    ]


def test_strategy_state_says_what_keeps_telemetry_away(
    load: Load, operator: Operator
) -> None:
    load(CLOUD)

    state = _state(operator)["Datasource"]

    assert isinstance(state, str)
    assert "not available" in state
    assert "metric" in state


def _state(operator: Operator) -> dict[str, object]:
    """What ``openstack optimize strategy state`` shows of telemetry."""
    shown = operator.api.get(
        "/v1/strategies/domain_capacity_enforcement/state",
        microversion="latest",
    ).json()
    return {
        one["type"]: one["state"]
        for one in shown
        if one["type"] in ("Datasource", "Metrics")
    }
