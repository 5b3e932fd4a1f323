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

"""Where an instance may go: the hosts that are not chosen, and why not.

One instance, ``mover``, has to leave host-1. host-2 is empty and the weigher
likes it best; host-3 holds other instances and is only second. Each story
gives host-2 one defect, and the mover must go to host-3::

    host-1  gold 4 of 2   mover
    host-2  gold 0 of 8   the best, but for its defect
    host-3  gold 2 of 8   always fit
"""

from collections.abc import Mapping
from typing import Any

from tests.cloud import AggregateSpec
from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import FlavorSpec
from tests.cloud import InstanceSpec
from tests.cloud import ServerGroupSpec
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Audit
from tests.functional.watcher_api import Operator

# The weigher looks at nothing but Gold, so that the defect itself does not
# make host-2 the worse choice.
ONLY_GOLD = {
    "weigher_resource_classes": [specs.GOLD],
    "weigher_traits": [],
}


def one_must_move(
    second: Mapping[str, Any] | None = None,
    mover: Mapping[str, Any] | None = None,
    flavor: FlavorSpec | None = None,
    others: tuple[InstanceSpec, ...] = (),
    all_hosts: Mapping[str, Any] | None = None,
    first_and_third: Mapping[str, Any] | None = None,
    **more: Any,
) -> CloudSpec:
    """The cloud of this module.

    :param second: what is different about host-2
    :param mover: what is different about the instance
    :param flavor: its flavor, where it is not plain ``gold.4``
    """
    common = dict(all_hosts or {})
    fit = common | dict(first_and_third or {})
    flavors = () if flavor is None else (flavor,)
    return specs.three_tiers(
        instance("mover", "gold.4", "host-1", **dict(mover or {})),
        instance("ballast", "gold.2", "host-3"),
        *others,
        hosts=(
            specs.host("host-1", **fit),
            specs.host("host-2", **(common | dict(second or {}))),
            specs.host("host-3", **fit),
        ),
        flavors=(*flavors, *more.pop("flavors", ())),
        events=(specs.inventory("host-1", "gold", total=2),),
        **more,
    )


def check_move(audit: Audit, target: str) -> None:
    """The mover goes to this host, and that cures all there is."""
    assert audit.moves == {"mover": ("host-1", target)}
    assert audit.indicators["gold_excess_units_before"] == 2
    assert audit.indicators["gold_excess_units_after"] == 0


def test_the_best_host_is_chosen_where_nothing_speaks_against_it(
    load: Load, operator: Operator
) -> None:
    """The other stories of this module would be empty without this one."""
    load(one_must_move())

    check_move(operator.audit(**ONLY_GOLD), "host-2")


def test_a_host_full_in_memory_is_not_chosen(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R22: 1 GiB of memory is asked for, half of it is free on host-2."""
    load(
        one_must_move(
            others=(instance("fat", "bronze.1", "host-2"),),
            flavors=(specs.flavor("bronze.1", memory_mb=65536 - 512),),
        )
    )
    room = truth.inventories("host-2")["MEMORY_MB"]["total"]
    assert room - truth.usages("host-2")["MEMORY_MB"] == 512

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_full_in_vcpus_is_not_chosen(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R22, R23: the ratio of VCPU is below the tiers' sum on host-2."""
    load(
        one_must_move(
            second={"cpu_allocation_ratio": 2.0},
            others=(
                instance("silver-full", "silver.8", "host-2"),
                instance("bronze-full", "bronze.6", "host-2"),
            ),
        )
    )
    assert truth.usages("host-2")["VCPU"] == 14

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_full_in_the_tier_itself_is_not_chosen(
    load: Load, operator: Operator
) -> None:
    """R31: host-2 has 5 of 8 Gold units taken; 3 are too few.

    The weigher is off, and of the tie-breaks the first would take host-2:
    12 of 16 is a larger share.
    """
    load(
        one_must_move(
            first_and_third={"tiers": {"gold": 16}, "vcpus": 16},
            second={"tiers": {"gold": 8}},
            others=(
                instance("tenant", "gold.5", "host-2"),
                instance("more-ballast", "gold.10", "host-3"),
            ),
        )
    )

    audit = operator.audit(
        weigher_multiplier=0, quotas={"silver": 8, "bronze": 8}
    )

    check_move(audit, "host-3")


def test_a_host_without_the_tiers_inventory_is_not_chosen(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R6: host-2 sells no Gold at all: no target, and the audit goes on."""
    load(one_must_move(second={"tiers": {"silver": 8, "bronze": 8}}))
    assert specs.GOLD not in truth.inventories("host-2")

    # By its VCPUs host-2 would be the best.
    check_move(operator.audit(weigher_resource_classes=["VCPU"]), "host-3")


def test_a_disabled_host_is_not_chosen(load: Load, operator: Operator) -> None:
    """R183: nova-compute of host-2 is disabled."""
    load(one_must_move(second={"disabled": True}))

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_whose_service_is_down_is_not_chosen(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R183: nova-compute of host-2 has died; it is still enabled."""
    load(one_must_move())
    cloud.stop_compute("host-2")

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_that_lacks_a_required_trait_is_not_chosen(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R159: the flavor requires CUSTOM_SSD, which host-2 has not."""
    load(
        one_must_move(
            first_and_third={"traits": ("CUSTOM_SSD",)},
            flavor=specs.flavor(
                "gold.4", extra_specs={"trait:CUSTOM_SSD": "required"}
            ),
        )
    )
    assert "CUSTOM_SSD" in truth.traits("host-3") - truth.traits("host-2")

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_with_a_forbidden_trait_is_not_chosen(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R159: the flavor forbids CUSTOM_OLD_CPU, which host-2 has."""
    load(
        one_must_move(
            second={"traits": ("CUSTOM_OLD_CPU",)},
            flavor=specs.flavor(
                "gold.4", extra_specs={"trait:CUSTOM_OLD_CPU": "forbidden"}
            ),
        )
    )
    assert "CUSTOM_OLD_CPU" in truth.traits("host-2") - truth.traits("host-3")

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_outside_the_flavors_aggregate_is_not_chosen(
    load: Load, operator: Operator
) -> None:
    """R41: aggregate_instance_extra_specs asks for an aggregate's metadata."""
    load(
        one_must_move(
            flavor=specs.flavor(
                "gold.4",
                extra_specs={"aggregate_instance_extra_specs:rack": "blue"},
            ),
            aggregates=(
                AggregateSpec(
                    name="blue",
                    hosts=("host-1", "host-3"),
                    metadata={"rack": "blue"},
                ),
                AggregateSpec(
                    name="red", hosts=("host-2",), metadata={"rack": "red"}
                ),
            ),
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_reserved_by_an_aggregates_trait_is_not_chosen(
    load: Load, operator: Operator
) -> None:
    """R160: host-2's aggregate takes only flavors that ask for its trait."""
    load(
        one_must_move(
            second={"traits": ("CUSTOM_LICENSED",)},
            aggregates=(
                AggregateSpec(
                    name="licensed",
                    hosts=("host-2",),
                    metadata={"trait:CUSTOM_LICENSED": "required"},
                ),
            ),
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_a_host_in_another_availability_zone_is_not_chosen(
    load: Load, operator: Operator
) -> None:
    """R181: the mover was created for the zone east, host-2 is in west."""
    load(
        one_must_move(
            first_and_third={"availability_zone": "east"},
            second={"availability_zone": "west"},
            mover={"availability_zone": "east"},
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_an_instance_for_no_zone_may_leave_its_zone(
    load: Load, operator: Operator
) -> None:
    """R181: who was created for no zone is not bound to the one it is in."""
    load(
        one_must_move(
            first_and_third={"availability_zone": "east"},
            second={"availability_zone": "west"},
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-2")


def test_a_host_with_a_member_of_the_anti_affinity_group_is_not_chosen(
    load: Load, operator: Operator
) -> None:
    """R181: the other member of the mover's server group is on host-2."""
    load(
        one_must_move(
            mover={"group": "apart"},
            others=(instance("sibling", "silver.1", "host-2", group="apart"),),
            server_groups=(ServerGroupSpec(name="apart"),),
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-3")


def test_an_excess_without_any_target_is_reported_with_the_rules(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """Everything left unsolved is listed with what blocked it (R111).

    host-2 is disabled and host-3 has 2 of 8 Gold units free: the plan is
    empty, the excess stays and the log names both rules.
    """
    load(
        one_must_move(
            second={"disabled": True},
            others=(instance("tenant", "gold.4", "host-3"),),
        )
    )

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.indicators["excess_units_before"] == 2
    assert audit.indicators["excess_units_after"] == 2
    assert audit.indicators["instances_unresolved"] == 1
    assert audit.plan.efficacy == {"excess_removed": 0}
    (why,) = audit.said("mover", "no target")
    assert "host-2: its compute service is disabled" in why
    assert "host-3: 6 of 8 gold units are taken, 4 more are asked for" in why
    assert truth.over() == {("host-1", specs.GOLD): 2}
