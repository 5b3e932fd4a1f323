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

"""Which quota holds: Placement's, the audit's, a drain, or none at all."""

from typing import Any

import pytest

from tests.cloud import EmbeddedCloud
from tests.cloud import FlavorSpec
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

# Within Placement's capacity everywhere; only the audit makes an excess.
WITHIN_CAPACITY = specs.three_tiers(
    instance("four", "gold.4", "host-1"),
    instance("two", "gold.2", "host-1", count=2),
    instance("tenant", "gold.4", "host-2"),
    instance("untiered", "plain.1", "host-1"),
    instance("silver", "silver.2", "host-1"),
    instance("ballast", "silver.8", "host-3"),
)


@pytest.mark.parametrize(
    ("quota", "excess", "moved"),
    [
        pytest.param(4, 4, {"four"}, id="units"),
        pytest.param("50%", 4, {"four"}, id="percent"),
        pytest.param("80%", 2, {"two-1"}, id="percent-rounds-down"),
        pytest.param(9, 0, set(), id="above-the-capacity"),
    ],
)
def test_a_policy_quota_below_the_inventory_is_enforced(
    load: Load,
    operator: Operator,
    truth: Truth,
    quota: Any,
    excess: int,
    moved: set[str],
) -> None:
    """R6: ``quotas`` in units or percent; the lower limit holds.

    host-1 holds 8 of 8 Gold units. 80 % of 8 is 6.4, rounded down to 6.
    """
    load(WITHIN_CAPACITY, shared=True)
    assert truth.over() == {}

    audit = operator.audit(quotas={"gold": quota})

    assert set(audit.moves) == moved
    assert audit.indicators["gold_excess_units_before"] == excess
    assert audit.indicators["gold_excess_units_after"] == 0


def test_a_policy_quota_binds_targets_too(
    load: Load, operator: Operator
) -> None:
    """R6: host-2 holds 4 of its 8 Gold units, as many as it may.

    By its VCPUs it would be better than host-3.
    """
    load(WITHIN_CAPACITY, shared=True)

    audit = operator.audit(
        quotas={"gold": 4}, weigher_resource_classes=["VCPU"]
    )

    assert audit.moves == {"four": ("host-1", "host-3")}


def test_a_hosts_own_policy_quota_replaces_the_common_one(
    load: Load, operator: Operator
) -> None:
    """R7: at most 2 Gold units everywhere, but 6 on host-1 and as many as it
    has on host-3, which alone can take the 4 of host-2. Those 2 of host-1 may
    go to either, once host-2 is rid of its 4.
    """
    load(WITHIN_CAPACITY, shared=True)

    audit = operator.audit(
        quotas={"gold": 2},
        quotas_by_host={"host-1": {"gold": 6}, "host-3": {"gold": "100%"}},
    )

    assert set(audit.moves) == {"two-1", "tenant"}
    assert audit.moves["tenant"] == ("host-2", "host-3")
    assert audit.moves["two-1"][1] in ("host-2", "host-3")
    assert audit.indicators["gold_excess_units_before"] == 2 + 2
    assert audit.indicators["gold_excess_units_after"] == 0


def test_drain_hosts_empties_a_host_and_reports_what_is_untiered(
    load: Load, operator: Operator
) -> None:
    """A drained host has quota 0 of all tiers (contract, section 8).

    The instance without a tier is named and stays.
    """
    load(WITHIN_CAPACITY, shared=True)

    audit = operator.audit(drain_hosts=["host-1"])

    assert set(audit.moves) == {"four", "two-1", "two-2", "silver"}
    assert {source for source, _ in audit.moves.values()} == {"host-1"}
    assert audit.indicators["hosts_over_quota_before"] == 1
    assert audit.indicators["excess_units_after"] == 0
    assert audit.said("host-1", "drained", "untiered", "drain_hosts")


def test_drain_disabled_empties_disabled_hosts_if_asked_for(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """A disabled service alone is no drain; ``drain_disabled`` makes it."""
    load(
        specs.three_tiers(
            instance("gold", "gold.2", "host-1"),
            instance("bronze", "bronze.2", "host-1"),
        )
    )
    cloud.disable_service("host-1")

    left_alone = operator.audit()
    drained = operator.audit(drain_disabled=True)

    assert left_alone.moves == {}
    assert set(drained.moves) == {"gold", "bronze"}


def _by_shares(name: str, vcpus: int, shares: int) -> FlavorSpec:
    return specs.flavor(
        name, vcpus, extra_specs={"quota:cpu_shares": str(shares)}
    )


# No provider.yaml, no resources: in any flavor; shares alone tell the tier.
WITHOUT_CLASSES = specs.three_tiers(
    instance("gold-whole", "premium.4", "host-1"),
    instance("gold-plain", "premium-plain.2", "host-1"),
    instance("silver", "standard.2", "host-1"),
    instance("nobody", "plain.2", "host-1"),
    hosts=specs.hosts(3, tiers={}),
    flavors=(
        _by_shares("premium.4", 4, 4 * specs.SHARES["gold"]),
        # The shares of one vCPU for the whole domain (R13).
        _by_shares("premium-plain.2", 2, specs.SHARES["gold"]),
        _by_shares("standard.2", 2, 2 * specs.SHARES["silver"]),
    ),
)


@pytest.mark.parametrize("gold", [4, "50%"])
def test_policy_quotas_are_enforced_without_placement_classes(
    load: Load, operator: Operator, truth: Truth, gold: Any
) -> None:
    """R72, R140: Watcher alone enforces, and says so.

    host-1 holds 6 Gold units by its flavors' shares; it may hold 4, or 50 %
    of its 8 shared CPUs.
    """
    load(WITHOUT_CLASSES, shared=True)
    for host in ("host-1", "host-2", "host-3"):
        assert set(truth.inventories(host)) == {
            "VCPU",
            "MEMORY_MB",
            "DISK_GB",
        }

    audit = operator.audit(quotas={"gold": gold, "silver": 8, "bronze": 8})

    assert set(audit.moves) == {"gold-plain"}
    assert audit.indicators["gold_excess_units_before"] == 2
    assert audit.indicators["gold_excess_units_after"] == 0
    assert audit.indicators["silver_excess_units_before"] == 0
    assert audit.said("without Placement")


def test_without_classes_the_plan_is_executed_and_the_next_is_empty(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R140: the end state holds, though Placement knows of no tier."""
    load(WITHOUT_CLASSES)
    quotas = {"gold": 4, "silver": 8, "bronze": 8}

    first = operator.audit(quotas=quotas)
    assert operator.start(first.plan).state == "SUCCEEDED"
    second = operator.audit(quotas=quotas)

    assert truth.locations()["gold-plain"] != "host-1"
    assert second.moves == {}
    assert second.indicators["excess_units_before"] == 0


def test_without_classes_and_without_quotas_the_audit_fails(
    load: Load, operator: Operator
) -> None:
    """R140: nothing says what a host may hold, so the audit cannot look."""
    load(WITHOUT_CLASSES, shared=True)

    audit = operator.audit()

    assert audit.state == "FAILED"
    assert audit.plans == ()
    for tier in specs.TIERS:
        assert specs.tier_class(tier) in audit.reason
    assert audit.said("no host has an inventory", level="ERROR")


def test_max_migrations_takes_the_most_valuable_first(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R110: at most one a run; higher tiers first, then the most relief.

    host-1 is 4 Silver and 2 Gold units over, host-2 is 4 Gold units over.
    Each audit continues where the last one stopped, until all is well.
    """
    load(
        specs.three_tiers(
            instance("silver-four", "silver.4", "host-1"),
            instance("gold-two", "gold.2", "host-1"),
            instance("gold-four", "gold.4", "host-2"),
            hosts=specs.hosts(4),
            events=(
                specs.inventory("host-1", "silver", reserved=8),
                specs.inventory("host-1", "gold", reserved=8),
                specs.inventory("host-2", "gold", reserved=8),
            ),
        )
    )
    order = []
    left = [10]
    for _ in range(3):
        audit = operator.audit(max_migrations=1)
        (name,) = audit.moves
        order.append(name)
        assert audit.indicators["migrations_planned"] == 1
        assert audit.indicators["excess_units_before"] == left[-1]
        left.append(int(audit.indicators["excess_units_after"]))
        assert bool(audit.said("Deferred")) == (left[-1] > 0)
        operator.start(audit.plan)

    assert order == ["gold-four", "gold-two", "silver-four"]
    assert left == [10, 6, 4, 0]
    assert operator.audit(max_migrations=1).moves == {}
    assert truth.over() == {}
