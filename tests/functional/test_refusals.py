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

"""Every rule on targets and instances, against Nova's own word.

The cloud is that of :mod:`.test_targets`: ``mover`` has to leave host-1,
host-2 is the best but for a defect, host-3 is fit. Each rule makes a pair:
the target that our rule rejects is refused by Nova or Placement too when an
operator asks for it anyway, and the target of our plan is accepted at the
first try. Where we are stricter than Nova on purpose, a story of its own
says so.
"""

import dataclasses
import re
from typing import Any

from keystoneauth1 import exceptions as ksa_exceptions
import pytest

from tests.cloud import AggregateSpec
from tests.cloud import ChildProviderSpec
from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import EventSpec
from tests.cloud import ServerGroupSpec
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.test_targets import check_move
from tests.functional.test_targets import one_must_move
from tests.functional.test_targets import ONLY_GOLD
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

_FILTERS = [
    "ComputeFilter",
    "ComputeCapabilitiesFilter",
    "ImagePropertiesFilter",
    "ServerGroupAntiAffinityFilter",
    "ServerGroupAffinityFilter",
]
ISOLATION = (
    "compute",
    "scheduler",
    "enable_isolated_aggregate_filtering",
    True,
)


def filtered_by(name: str) -> tuple[str, str, str, list[str]]:
    """The option that adds one of Nova's filters to the default ones."""
    return (
        "compute",
        "filter_scheduler",
        "enabled_filters",
        [*_FILTERS, name],
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """host-2 with a defect that some rule is about, host-3 without.

    :param says: words of the rejection
    :param options: of Nova, which make it enforce the rule
    :param after: what happens to host-2 when all instances run
    """

    spec: CloudSpec
    rule: str
    says: str = ""
    options: tuple[tuple[Any, ...], ...] = ()
    after: tuple[EventSpec, ...] = ()


def llc(total: int, suffix: str = "llc0", **fields: Any) -> ChildProviderSpec:
    """A last-level cache as a provider below the host's (S2)."""
    return ChildProviderSpec(
        name_suffix=suffix,
        inventories={"CUSTOM_LLC": {"total": total}},
        **fields,
    )


def gold_4(**extra_specs: str) -> Any:
    """The mover's flavor with further extra specs."""
    return specs.flavor("gold.4", extra_specs=extra_specs)


RED_AND_BLUE = {
    "flavor": gold_4(**{"aggregate_instance_extra_specs:rack": "blue"}),
    "aggregates": (
        AggregateSpec(
            name="blue",
            hosts=("host-1", "host-3"),
            metadata={"rack": "blue"},
        ),
        AggregateSpec(name="red", hosts=("host-2",), metadata={"rack": "red"}),
    ),
}
LICENSED = {
    "second": {"traits": ("CUSTOM_LICENSED",)},
    "aggregates": (
        AggregateSpec(
            name="licensed",
            hosts=("host-2",),
            metadata={"trait:CUSTOM_LICENSED": "required"},
        ),
    ),
}
OTHERS_ONLY = {
    "aggregates": (
        AggregateSpec(
            name="theirs",
            hosts=("host-2",),
            metadata={"filter_tenant_id": "0" * 32},
        ),
    ),
}

PAIRS = {
    "anti-affinity": Pair(
        spec=one_must_move(
            mover={"group": "apart"},
            others=(instance("sibling", "silver.1", "host-2", group="apart"),),
            server_groups=(ServerGroupSpec(name="apart"),),
        ),
        rule="anti_affinity",
        says="1 of at most 1 members",
    ),
    "max-server-per-host": Pair(
        spec=one_must_move(
            mover={"group": "pairs"},
            others=(
                instance(
                    "sibling", "silver.1", "host-2", group="pairs", count=2
                ),
                instance("cousin", "silver.1", "host-3", group="pairs"),
            ),
            server_groups=(
                ServerGroupSpec(
                    name="pairs", rules={"max_server_per_host": 2}
                ),
            ),
        ),
        rule="anti_affinity",
        says="2 of at most 2 members",
    ),
    "zone": Pair(
        spec=one_must_move(
            first_and_third={"availability_zone": "east"},
            second={"availability_zone": "west"},
            mover={"availability_zone": "east"},
        ),
        rule="in_zone",
        says="zone west",
    ),
    "aggregate-by-trait": Pair(
        spec=one_must_move(**LICENSED),
        options=(ISOLATION,),
        rule="admits_by_trait",
        says="licensed",
    ),
    "aggregate-by-extra-specs": Pair(
        spec=one_must_move(**RED_AND_BLUE),
        options=(filtered_by("AggregateInstanceExtraSpecsFilter"),),
        rule="matches_extra_specs",
        says="rack=blue",
    ),
    "aggregate-by-project": Pair(
        spec=one_must_move(**OTHERS_ONLY),
        options=(filtered_by("AggregateMultiTenancyIsolation"),),
        rule="admits_project",
        says="theirs",
    ),
    "disabled": Pair(
        spec=one_must_move(second={"disabled": True}),
        rule="in_service",
        says="disabled",
    ),
    "missing-trait": Pair(
        spec=one_must_move(
            first_and_third={"traits": ("CUSTOM_SSD",)},
            flavor=gold_4(**{"trait:CUSTOM_SSD": "required"}),
        ),
        rule="has_traits",
        says="CUSTOM_SSD",
    ),
    "forbidden-trait": Pair(
        spec=one_must_move(
            second={"traits": ("CUSTOM_OLD_CPU",)},
            flavor=gold_4(**{"trait:CUSTOM_OLD_CPU": "forbidden"}),
        ),
        rule="has_no_forbidden_trait",
        says="CUSTOM_OLD_CPU",
    ),
    "max-unit": Pair(
        spec=one_must_move(),
        after=(specs.inventory("host-2", "gold", max_unit=3),),
        rule="offered",
        says="max_unit",
    ),
    "step-size": Pair(
        spec=one_must_move(),
        after=(specs.inventory("host-2", "gold", step_size=3),),
        rule="offered",
        says="step_size",
    ),
    "older-hypervisor": Pair(
        spec=one_must_move(
            first_and_third={"hypervisor_version": 9001000},
            second={"hypervisor_version": 9000000},
        ),
        rule="compatible",
        says="older than the source's, 9001000",
    ),
    "other-hypervisor": Pair(
        spec=one_must_move(second={"hypervisor_type": "other"}),
        rule="compatible",
        says="is other, the source's is fake",
    ),
    "full-in-the-tier": Pair(
        spec=one_must_move(
            others=(
                instance("tenant", "gold.2", "host-2"),
                instance("more-ballast", "gold.1", "host-3"),
            ),
        ),
        after=(specs.inventory("host-2", "gold", reserved=3),),
        rule="within_quota",
        says="2 of 5 gold units are taken, 4 more",
    ),
    "full-in-memory": Pair(
        spec=one_must_move(
            others=(instance("fat", "bronze.1", "host-2"),),
            flavors=(specs.flavor("bronze.1", memory_mb=65536 - 512),),
        ),
        rule="fits",
        says="MEMORY_MB",
    ),
    "nested-full": Pair(
        spec=one_must_move(
            all_hosts={"children": (llc(4),)},
            flavor=gold_4(**{"resources:CUSTOM_LLC": "3"}),
            others=(instance("tenant", "bronze.1", "host-2"),),
            flavors=(
                specs.flavor(
                    "bronze.1", extra_specs={"resources:CUSTOM_LLC": "2"}
                ),
            ),
        ),
        rule="fits",
        says="2 of 4 CUSTOM_LLC are taken, 3 more",
    ),
    "nested-in-pieces": Pair(
        # Four ways in all on host-2, and never three in one cache.
        spec=one_must_move(
            first_and_third={"children": (llc(4),)},
            second={"children": (llc(2), llc(2, "llc1"))},
            flavor=gold_4(**{"resources:CUSTOM_LLC": "3"}),
        ),
        rule="fits",
        says="CUSTOM_LLC",
    ),
    "nested-trait": Pair(
        # host-2 has the trait, but not where the cache is.
        spec=one_must_move(
            first_and_third={
                "children": (llc(4, traits=("CUSTOM_RDT",)),),
            },
            second={"children": (llc(4),), "traits": ("CUSTOM_RDT",)},
            flavor=gold_4(
                **{
                    "resources1:CUSTOM_LLC": "3",
                    "trait1:CUSTOM_RDT": "required",
                }
            ),
        ),
        rule="fits",
        says="no choice of its providers",
    ),
}


@pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)
def test_what_we_reject_is_refused_and_what_we_plan_is_accepted(
    cloud: EmbeddedCloud, load: Load, truth: Truth, pair: Pair
) -> None:
    """R22, R31, R41, R159, R160, R168, R169, R181, R183: a rule, a pair.

    Planned without an audit around it: :mod:`.test_targets` has the audits.
    """
    load(pair.spec)
    for event in pair.after:
        cloud.apply(event)
    for option in pair.options:
        cloud.set_option(*option)

    found, plan = snapshots.judged(cloud, "mover", "host-2", **ONLY_GOLD)

    assert found is not None
    assert found.rule == pair.rule
    assert pair.says in found.reason
    (move,) = plan.migrations
    assert (move.instance.name, move.target) == ("mover", "host-3")
    assert plan.unresolved == ()
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert truth.locations()["mover"] == "host-1"
    assert cloud.live_migrate("mover", "host-3") == "completed"
    assert truth.locations()["mover"] == "host-3"
    assert truth.over() == {}


def test_a_dead_host_is_refused(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R183: enabled and down; Nova does not take it either."""
    load(one_must_move())
    cloud.stop_compute("host-2")

    found = snapshots.rejection(cloud, "mover", "host-2")

    assert found is not None
    assert (found.rule, found.reason) == (
        "in_service",
        "its compute service is down",
    )
    assert ask_nova(cloud, "mover", "host-2") in ("error", "400")
    assert truth.locations()["mover"] == "host-1"


def ask_nova(cloud: EmbeddedCloud, name: str, host: str | None) -> str:
    """How Nova takes it: the migration's status, or the HTTP status."""
    try:
        return cloud.live_migrate(name, host)
    except ksa_exceptions.HttpError as error:
        return str(error.http_status)


def test_a_host_full_in_another_tier_is_planned_and_accepted(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R31: host-2 is over its quota of Silver and still takes Gold.

    Only the tier that is asked for counts, there as here; Silver stays over.
    """
    load(
        one_must_move(
            others=(
                instance("silver-a", "silver.4", "host-2", locked=True),
                instance("more-ballast", "silver.1", "host-3"),
            ),
        )
    )
    cloud.set_inventory("host-2", specs.SILVER, total=2)

    audit = operator.audit(**ONLY_GOLD)

    check_move(audit, "host-2")
    assert cloud.live_migrate("mover", "host-2") == "completed"
    assert truth.over() == {("host-2", specs.SILVER): 2}


def test_room_left_by_max_server_per_host_is_used(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R181: the rule allows two of the group on a host, one is there."""
    load(
        one_must_move(
            mover={"group": "pairs"},
            others=(instance("sibling", "silver.1", "host-2", group="pairs"),),
            server_groups=(
                ServerGroupSpec(
                    name="pairs", rules={"max_server_per_host": 2}
                ),
            ),
        )
    )

    check_move(operator.audit(**ONLY_GOLD), "host-2")

    assert cloud.live_migrate("mover", "host-2") == "completed"


@pytest.mark.parametrize("policy", ["affinity", "soft-affinity"])
def test_members_of_an_affinity_group_stay_together(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    policy: str,
) -> None:
    """R181: affinity ties the mover to its mate; soft affinity does not."""
    load(
        one_must_move(
            mover={"group": "mates"},
            others=(instance("mate", "silver.1", "host-1", group="mates"),),
            server_groups=(ServerGroupSpec(name="mates", policy=policy),),
        )
    )

    audit = operator.audit(**ONLY_GOLD)

    if policy == "soft-affinity":
        check_move(audit, "host-2")
        assert cloud.live_migrate("mover", "host-2") == "completed"
        return
    assert audit.moves == {}
    assert audit.said("mover", "server group mates stays on host-1")
    for host in ("host-2", "host-3"):
        assert cloud.live_migrate("mover", host) == "error"
    assert truth.locations()["mover"] == "host-1"


def test_a_source_that_does_not_let_go_is_diagnosed(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R22: Placement refuses to hand 4 units to a migration, to any host.

    They were allowed when the instance booted. As soon as the inventory
    admits them again the instance leaves. (For max_unit see
    :mod:`.test_instances`.)
    """
    load(one_must_move())
    for fields, says in (
        ({"min_unit": 5}, "min_unit is 5"),
        ({"min_unit": 1, "step_size": 3}, "step_size is 3"),
    ):
        cloud.set_inventory("host-1", specs.GOLD, **fields)

        audit = operator.audit(**ONLY_GOLD)

        assert audit.moves == {}
        assert audit.said("mover stays", says)
        assert cloud.live_migrate("mover", "host-2") == "error"
        assert cloud.live_migrate("mover") == "error"
    cloud.set_inventory("host-1", specs.GOLD, step_size=2)
    check_move(operator.audit(**ONLY_GOLD), "host-2")
    assert cloud.live_migrate("mover", "host-2") == "completed"


def test_its_own_host_and_a_stopped_instance_are_refused(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R162: the same host is no move, and only a running guest migrates."""
    load(one_must_move(others=(_stopped("sleeper"),)))

    found = {
        name: snapshots.rejection(cloud, name, host)
        for name, host in (("mover", "host-1"), ("sleeper", "host-2"))
    }

    assert {name: one and one.rule for name, one in found.items()} == {
        "mover": "elsewhere",
        "sleeper": "active",
    }
    assert ask_nova(cloud, "mover", "host-1") == "error"
    assert ask_nova(cloud, "sleeper", "host-2") == "409"


def _stopped(name: str) -> Any:
    return instance(name, "gold.1", "host-1", stopped=True)


# Stricter than Nova, on purpose.


def test_who_must_not_be_moved_stays_although_nova_would_move_it(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R92, R95, R162: Nova does as an administrator says; we do not ask."""
    load(
        one_must_move(
            mover={"locked": True},
            others=(
                instance("paused", "gold.1", "host-1", paused=True),
                instance(
                    "opted-out",
                    "gold.1",
                    "host-1",
                    metadata={"optimize": "false"},
                ),
            ),
        )
    )

    found = {
        name: snapshots.rejection(cloud, name, "host-2")
        for name in ("mover", "paused", "opted-out")
    }

    assert {name: one and one.rule for name, one in found.items()} == {
        "mover": "unlocked",
        "paused": "active",
        "opted-out": "opted_in",
    }
    assert operator.audit(**ONLY_GOLD).moves == {}
    for name in found:
        assert cloud.live_migrate(name, "host-2") == "completed"


def test_a_numa_guest_stays_although_nova_might_move_it(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R178: whether another host's NUMA cells fit is not in Placement.

    It is named with the extra spec that ties it. This Nova, whose fake
    hypervisors have no cells to fit, would have moved it.
    """
    load(one_must_move(flavor=gold_4(**{"hw:numa_nodes": "1"})))

    audit = operator.audit(**ONLY_GOLD)

    assert audit.moves == {}
    assert audit.indicators["instances_unresolved"] == 1
    assert audit.said("mover stays", "hw:numa_nodes=1")
    cloud.set_option("compute", "workarounds", _NUMA_MIGRATION, True)
    assert cloud.live_migrate("mover", "host-2") == "completed"


_NUMA_MIGRATION = "enable_numa_live_migration"


def test_metadata_of_aggregates_counts_where_novas_filters_are_off(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """R41, R160: which filters are on cannot be read through Nova's API.

    So what would be refused with them is never planned.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            hosts=specs.hosts(4),
            flavors=(RED_AND_BLUE["flavor"],),
            aggregates=(
                _kept("blue", "rack", "blue", "host-1", "host-3", "host-4"),
                _kept("red", "rack", "red", "host-2"),
                _kept("licensed", "trait:CUSTOM_X", "required", "host-3"),
                _kept("theirs", "filter_tenant_id", "0" * 32, "host-4"),
            ),
        )
    )
    rules = {
        "host-2": "matches_extra_specs",
        "host-3": "admits_by_trait",
        "host-4": "admits_project",
    }

    found = {host: snapshots.rejection(cloud, "mover", host) for host in rules}

    assert {host: one and one.rule for host, one in found.items()} == rules
    for host in rules:
        assert cloud.live_migrate("mover", host) == "completed"


def _kept(name: str, key: str, value: str, *hosts: str) -> AggregateSpec:
    return AggregateSpec(name=name, hosts=hosts, metadata={key: value})


def test_a_policy_quota_binds_us_and_not_nova(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R6: Placement has 8 Gold units free on host-2, the policy allows 3."""
    load(one_must_move())
    quota = {"quotas_by_host": {"host-2": {"gold": 3}}}

    found = snapshots.rejection(cloud, "mover", "host-2", **quota)

    assert found is not None
    assert found.rule == "within_quota"
    check_move(operator.audit(**ONLY_GOLD, **quota), "host-3")
    assert cloud.live_migrate("mover", "host-2") == "completed"


# Shared storage.


def test_a_guest_on_shared_storage_is_not_planned_to_a_named_host(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R168: no host has a disk; ``pool`` shares its own by an aggregate.

    For a named destination Nova asks Placement ``in_tree``, which leaves
    sharing providers out: every such migration ends in error, although the
    scheduler itself would find a host. A plan names its targets, so every
    host is rejected. (No audit here: Watcher 17 drops hosts that have no
    disk of their own from its model.)
    """
    load(
        specs.three_tiers(
            hosts=specs.hosts(3, disk_gb=0),
            aggregates=(
                AggregateSpec(
                    name="pool", hosts=("host-1", "host-2", "host-3")
                ),
            ),
            flavors=(specs.flavor("gold.4", disk_gb=4),),
        )
    )
    _share(cloud, "pool", "DISK_GB", 100)
    for host in ("host-2", "host-3"):
        # Not even a boot can name its host.
        cloud.disable_service(host)
    cloud.boot(instance("mover", "gold.4"))
    for host in ("host-2", "host-3"):
        cloud.enable_service(host)
    held = truth.allocations(cloud.server_id("mover"))
    assert held["pool"] == {"DISK_GB": 4}
    assert "DISK_GB" not in held["host-1"]

    found = {
        host: snapshots.rejection(cloud, "mover", host)
        for host in ("host-2", "host-3")
    }

    for host in found:
        assert cloud.live_migrate("mover", host) == "error"
    assert truth.locations()["mover"] == "host-1"
    for one in found.values():
        assert one is not None
        assert one.rule == "fits"
        assert re.search("DISK_GB.* what pool shares", one.reason)


def test_a_numbered_group_on_shared_storage_is_planned(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R168: ``in_tree`` is asked of the unnumbered group alone.

    So a pool serves what a flavor asks for in a group of its own, and Nova
    takes the instance to a named host.
    """
    load(
        specs.three_tiers(
            hosts=specs.hosts(3),
            aggregates=(
                AggregateSpec(
                    name="pool", hosts=("host-1", "host-2", "host-3")
                ),
            ),
            flavors=(
                specs.flavor(
                    "gold.4", extra_specs={"resources1:CUSTOM_STORE": "4"}
                ),
            ),
        )
    )
    cloud.placement.put("/resource_classes/CUSTOM_STORE")
    _share(cloud, "pool", "CUSTOM_STORE", 100)
    cloud.boot(instance("mover", "gold.4", "host-1"))
    assert truth.allocations(cloud.server_id("mover"))["pool"] == {
        "CUSTOM_STORE": 4
    }

    assert snapshots.rejection(cloud, "mover", "host-2") is None

    assert cloud.live_migrate("mover", "host-2") == "completed"
    assert truth.locations()["mover"] == "host-2"


def test_a_host_whose_own_disk_is_full_is_not_saved_by_a_pool(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R168: host-2 may use ``pool``, but not as a named destination.

    The others serve the mover from their own disks, and host-3 does.
    """
    load(
        one_must_move(
            second={"disk_gb": 3},
            flavor=specs.flavor("gold.4", disk_gb=4),
            aggregates=(AggregateSpec(name="pool", hosts=("host-2",)),),
        )
    )
    _share(cloud, "pool", "DISK_GB", 100)

    found = snapshots.rejection(cloud, "mover", "host-2")
    audit = operator.audit(**ONLY_GOLD)

    assert cloud.live_migrate("mover", "host-2") == "error"
    assert found is not None
    assert found.rule == "fits"
    check_move(audit, "host-3")
    assert cloud.live_migrate("mover", "host-3") == "completed"


def _share(
    cloud: EmbeddedCloud, name: str, resource_class: str, total: int
) -> None:
    """A pool that shares a class with the hosts of an aggregate."""
    listed = cloud.adapter("compute").get("/os-aggregates").json()
    (aggregate,) = [a for a in listed["aggregates"] if a["name"] == name]
    pool = cloud.placement.post(
        "/resource_providers", json={"name": name}
    ).json()["uuid"]
    path = f"/resource_providers/{pool}"
    for generation, (part, body) in enumerate(
        (
            (
                "inventories",
                {"inventories": {resource_class: {"total": total}}},
            ),
            ("traits", {"traits": ["MISC_SHARES_VIA_AGGREGATE"]}),
            ("aggregates", {"aggregates": [aggregate["uuid"]]}),
        )
    ):
        cloud.placement.put(
            f"{path}/{part}",
            json={**body, "resource_provider_generation": generation},
        )


# What bulk answers do not tell.


def test_a_trait_that_the_image_requires_is_respected(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R182: host-2 lacks a trait of the image; Nova's answers hide it."""
    _load_before_mover(load, first_and_third={"traits": ("CUSTOM_SSD",)})
    cloud.set_image({"trait:CUSTOM_SSD": "required", "hw_disk_bus": "virtio"})
    _boot_mover(cloud)
    shown = cloud.adapter("compute").get(
        f"/servers/{cloud.server_id('mover')}", microversion="2.98"
    )
    properties = shown.json()["server"]["image"]["properties"]
    assert properties["hw_disk_bus"] == "virtio"
    assert not [key for key in properties if "trait" in key]

    found, plan = snapshots.judged(cloud, "mover", "host-2", **ONLY_GOLD)

    assert found is not None
    assert found.rule == "has_traits"
    assert "CUSTOM_SSD" in found.reason
    assert [move.target for move in plan.migrations] == ["host-3"]
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert truth.locations()["mover"] == "host-1"
    check_move(operator.audit(**ONLY_GOLD), "host-3")
    assert cloud.live_migrate("mover", "host-3") == "completed"


def test_images_that_cannot_be_read_are_reported_and_left_to_nova(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R182: without Glance in the catalogue, Nova refuses the wrong host."""
    _load_before_mover(load, first_and_third={"traits": ("CUSTOM_SSD",)})
    cloud.set_image(None, nova_sees={"trait:CUSTOM_SSD": "required"})
    _boot_mover(cloud)

    audit = operator.audit(**ONLY_GOLD)

    check_move(audit, "host-2")
    assert audit.said("image_unseen", "mover", "Glance", "not in the service")
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert truth.locations()["mover"] == "host-1"


@pytest.mark.parametrize("hint", ["different_host", "same_host"])
def test_scheduler_hints_are_respected(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    hint: str,
) -> None:
    """R182: Nova keeps a hint and asks the filter of it once more."""
    home = "host-2" if hint == "different_host" else "host-1"
    _load_before_mover(load, others=(instance("other", "silver.1", home),))
    cloud.set_option(
        *filtered_by(
            "DifferentHostFilter"
            if hint == "different_host"
            else "SameHostFilter"
        )
    )
    other = cloud.server_id("other")
    cloud.boot(instance("mover", "gold.4", "host-1", hints={hint: other}))
    cloud.set_inventory("host-1", specs.GOLD, total=2)
    if hint == "same_host":
        assert cloud.live_migrate("other", "host-3") == "completed"

    found = snapshots.rejection(cloud, "mover", "host-2")

    assert found is not None
    assert found.rule == hint
    assert "other" in found.reason
    check_move(operator.audit(**ONLY_GOLD), "host-3")
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert cloud.live_migrate("mover", "host-3") == "completed"
    assert truth.locations()["mover"] == "host-3"


def test_a_member_of_a_group_that_is_not_listed_stays(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R181: whom Nova takes for no admin sees groups of its project only.

    It says so to nobody; the instance itself names its group.
    """
    load(
        one_must_move(
            mover={"group": "apart"},
            others=(instance("sibling", "silver.1", "host-2", group="apart"),),
            server_groups=(ServerGroupSpec(name="apart"),),
        )
    )
    path = "/os-server-groups?all_projects=True"
    assert len(_groups(cloud, "admin", path)) == 1
    assert _groups(cloud, "member", path) == []
    cloud.inject(
        "compute",
        "GET",
        "/os-server-groups",
        status=200,
        body='{"server_groups": []}',
        times=None,
    )

    audit = operator.audit(**ONLY_GOLD)

    assert audit.moves == {}
    assert audit.said("mover stays", "server group", "does not list")


def _groups(cloud: EmbeddedCloud, user: str, path: str) -> list[Any]:
    answer = cloud.adapter("compute", user).get(path).json()
    found: list[Any] = answer["server_groups"]
    return found


def _load_before_mover(load: Load, **different: Any) -> None:
    """The cloud without its mover, who is booted later."""
    spec = one_must_move(**different)
    load(
        dataclasses.replace(
            spec,
            instances=tuple(i for i in spec.instances if i.name != "mover"),
            events=(),
        )
    )


def _boot_mover(cloud: EmbeddedCloud) -> None:
    cloud.boot(instance("mover", "gold.4", "host-1"))
    cloud.set_inventory("host-1", specs.GOLD, total=2)
