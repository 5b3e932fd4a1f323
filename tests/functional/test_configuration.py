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

"""Tiers are configuration: more of them, and one by default."""

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import GOAL
from tests.functional.watcher_api import Operator


def test_a_platinum_tier_is_added_by_configuration_alone(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R8: a fourth tier above Gold, without a change of code.

    host-1 is over in Platinum and in Gold; one migration is allowed, and it
    is that of the highest tier.
    """
    cloud.watcher.configure(
        {
            ("cputier", "tiers"): "platinum,gold,silver,bronze",
            ("cputier_tier_platinum", "cpu_shares"): 1024,
        }
    )
    load(
        specs.three_tiers(
            instance("best", "platinum.2", "host-1"),
            instance("good", "gold.4", "host-1"),
            hosts=specs.hosts(
                3, tiers=dict.fromkeys(("platinum", *specs.TIERS), 8)
            ),
            events=(
                specs.inventory("host-1", "platinum", total=1),
                specs.inventory("host-1", "gold", total=1),
            ),
        )
    )

    first = operator.audit(max_migrations=1)
    second = operator.audit()

    assert set(first.moves) == {"best"}
    assert first.indicators["platinum_excess_units_before"] == 1
    assert first.indicators["platinum_excess_units_after"] == 0
    assert first.indicators["gold_excess_units_after"] == 3
    assert set(second.moves) == {"best", "good"}
    operator.start(second.plan)
    assert truth.over() == {}
    shown = operator.get(f"/v1/goals/{GOAL}")["efficacy_specification"]
    assert {
        "platinum_excess_units_before",
        "platinum_excess_units_after",
    } <= {one["name"] for one in shown}
    # Also in the audit's parameters.
    audit = operator.audit(quotas={"platinum": 0})
    assert set(audit.moves) == set()
    assert audit.indicators["platinum_excess_units_before"] == 2


def test_instances_of_a_tier_without_inventory_are_reported(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R47: instances without a tier count as Bronze, and host-2 has none.

    Its quota of Bronze is unknown: it is no target for a Bronze instance
    although it is empty but for one, that one is reported and stays, and the
    audit goes on and cures host-1.
    """
    cloud.watcher.configure({("cputier", "default_tier"): "bronze"})
    load(
        specs.three_tiers(
            instance("mover", "bronze.4", "host-1"),
            instance("stray", "plain.1", "host-2"),
            instance("ballast", "bronze.4", "host-3"),
            hosts=(
                specs.host("host-1"),
                specs.host("host-2", tiers={"gold": 8, "silver": 8}),
                specs.host("host-3"),
            ),
            events=(specs.inventory("host-1", "bronze", total=2),),
        )
    )
    assert specs.BRONZE not in truth.inventories("host-2")

    # By its VCPUs host-2 would be the best.
    audit = operator.audit(weigher_resource_classes=["VCPU"])

    assert audit.moves == {"mover": ("host-1", "host-3")}
    assert audit.indicators["bronze_excess_units_after"] == 0
    assert audit.said(
        "host-2", specs.BRONZE, "stray", "not judged", level="WARNING"
    )


def test_a_wrong_configuration_fails_the_audit_with_its_place(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """An unknown tier: the message names the option and what is right.

    It is this audit that fails and not Watcher, which serves other goals.
    """
    cloud.watcher.configure({("cputier", "default_tier"): "copper"})
    load(specs.three_tiers(instance("calm", "gold.2", "host-1")))

    audit = operator.audit()

    assert audit.state == "FAILED"
    assert audit.plans == ()
    for word in ("default_tier", "copper", "gold"):
        assert word in audit.reason
    assert audit.said("could not look", "default_tier", level="ERROR")
