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

"""The tiering plan's own acceptance tests, on hosts of 112 shared CPUs.

Every host sells 112 units of each tier: 336 VCPUs on 112, the plan's fixed
oversubscription of 3:1 (R5). One-unit instances are booted where their count
is the point; elsewhere a few large ones fill a host.
"""

from typing import Any

import pytest

from tests.cloud import EmbeddedCloud
from tests.cloud import HostSpec
from tests.functional import polling
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

FULL = 112


def host(name: str, **fields: Any) -> HostSpec:
    """A host of the tiering plan."""
    fields.setdefault("memory_mb", 256 * 1024)
    return specs.host(name, units=FULL, **fields)


def test_120_one_unit_gold_instances_never_pass_112_on_a_host(
    cloud: EmbeddedCloud, load: Load, truth: Truth, operator: Operator
) -> None:
    """R145, R146: the 113th Gold instance goes to a different host.

    All weighers of Nova prefer host-1, which is larger in everything but
    Gold. It has 104 when 16 more are asked of the scheduler at once: it
    fills host-1 up to its quota and not beyond.
    """
    load(
        specs.three_tiers(
            instance("gold", "gold.1", "host-1", count=104),
            hosts=(
                host(
                    "host-1",
                    memory_mb=1024 * 1024,
                    disk_gb=4000,
                    cpu_allocation_ratio=6.0,
                ),
                host("host-2"),
            ),
            flavors=(specs.flavor("gold.1", memory_mb=64),),
        )
    )

    cloud.boot(instance("further", "gold.1", count=16))

    hosts = list(truth.locations().values())
    assert hosts.count("host-1") == FULL
    assert hosts.count("host-2") == 120 - FULL
    assert truth.usages("host-1")[specs.GOLD] == FULL
    assert truth.usages("host-2")[specs.GOLD] == 120 - FULL
    # What Nova placed is compliant: nothing is left for Watcher.
    assert operator.audit().moves == {}


def test_no_valid_host_when_every_host_is_at_112(
    cloud: EmbeddedCloud, load: Load, truth: Truth, operator: Operator
) -> None:
    """R146, R31: zero free Gold units anywhere; another tier still boots.

    Exactly at the limit is within the limit: the audit's plan is empty.
    """
    load(
        specs.three_tiers(
            instance("full-1", "gold.112", "host-1"),
            instance("full-2", "gold.112", "host-2"),
            hosts=(host("host-1"), host("host-2")),
            flavors=(specs.flavor("gold.1"), specs.flavor("silver.1")),
        )
    )

    cloud.boot(instance("silver", "silver.1"))
    # The cloud's boot gives up at the first error, so Nova is asked here.
    compute = cloud.adapter("compute")
    image = truth.server("silver")["image"]["id"]
    answer = compute.post(
        "/servers",
        json={
            "server": {
                "name": "one-too-many",
                "flavorRef": "gold.1",
                "imageRef": image,
                "networks": "none",
            }
        },
    )
    uuid = answer.json()["server"]["id"]
    server = polling.until(
        lambda: _if_error(compute.get(f"/servers/{uuid}").json()["server"]),
        "the instance to fail",
    )

    assert "No valid host" in server["fault"]["message"]
    assert truth.usages("host-1")[specs.GOLD] == FULL
    assert truth.usages("host-2")[specs.GOLD] == FULL
    audit = operator.audit()
    assert audit.moves == {}
    assert audit.said("Nothing to do")


def _if_error(server: dict[str, Any]) -> dict[str, Any] | None:
    return server if server["status"] == "ERROR" else None


def test_a_full_load_of_112_of_each_tier_is_within_the_limit(
    load: Load, truth: Truth, operator: Operator
) -> None:
    """R147: 336 VCPUs on one host, 112 of each tier, and nobody moves."""
    load(
        specs.three_tiers(
            *(
                instance(f"{tier}-full", f"{tier}.112", "host-1")
                for tier in specs.TIERS
            ),
            hosts=(host("host-1"), host("host-2")),
        )
    )
    usages = truth.usages("host-1")
    assert usages["VCPU"] == 3 * FULL
    assert [usages[specs.tier_class(t)] for t in specs.TIERS] == [FULL] * 3

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.indicators["hosts_over_quota_before"] == 0


@pytest.mark.parametrize(
    ("total", "moved"),
    [
        pytest.param(FULL, {"eight"}, id="112-of-120"),
        pytest.param(119, {"one-1"}, id="one-over"),
        pytest.param(120, set(), id="exactly-at-the-limit"),
    ],
)
def test_120_gold_units_on_one_host_are_cured_with_one_migration(
    load: Load,
    truth: Truth,
    operator: Operator,
    total: int,
    moved: set[str],
) -> None:
    """R80: "120 Gold due to some manual change or scheduler miss".

    One instance of 8 units goes, not eight of one unit; and one of one unit
    where that is enough.
    """
    load(
        specs.three_tiers(
            instance("large", "gold.104", "host-1"),
            instance("eight", "gold.8", "host-1"),
            instance("one", "gold.1", "host-1", count=8),
            hosts=(
                specs.host("host-1", units=120, memory_mb=256 * 1024),
                host("host-2"),
            ),
            events=(specs.inventory("host-1", "gold", total=total),),
        )
    )
    assert truth.usages("host-1")[specs.GOLD] == 120

    audit = operator.audit()

    assert set(audit.moves) == moved
    assert audit.indicators["excess_units_before"] == 120 - total
    assert audit.indicators["excess_units_after"] == 0
