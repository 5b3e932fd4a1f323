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

"""What Placement, Nova and the flavors say differently, and who is believed.

Consumers that are no instances, instances that hold what their flavors do
not say, providers without a host, hosts whose inventories are unusual: each
is made on the real services, and what the snapshot says about it is compared
with what they say.
"""

import dataclasses
import os
from typing import Any
import uuid

from keystoneauth1 import exceptions as ksa_exceptions
import pytest

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import HostSpec
from tests.functional import polling
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

OWNER = str(uuid.UUID(int=1))


def hold(
    cloud: EmbeddedCloud, consumer: str, held: dict[str, dict[str, int]]
) -> None:
    """Write allocations past Nova: {provider: {class: units}}."""
    known = cloud.placement.get(f"/allocations/{consumer}").json()
    cloud.placement.put(
        f"/allocations/{consumer}",
        json={
            "allocations": {
                cloud.provider_uuid(name): {"resources": resources}
                for name, resources in held.items()
            },
            "project_id": known.get("project_id", OWNER),
            "user_id": known.get("user_id", OWNER),
            "consumer_generation": known.get("consumer_generation"),
        },
    )


def over_by_two(*others: Any, **fields: Any) -> CloudSpec:
    """host-1 holds 4 Gold units of at most 2."""
    return specs.three_tiers(
        instance("mover", "gold.4", "host-1"),
        *others,
        events=(specs.inventory("host-1", "gold", total=2),),
        **fields,
    )


def begin_migration(
    cloud: EmbeddedCloud,
    truth: Truth,
    name: str,
    target: str,
    *,
    seconds: float = 60,
) -> None:
    """Let a live migration run, longer than the story takes."""
    cloud.set_migration_behaviour(duration_seconds=seconds)
    cloud.live_migrate(name, target, wait=False)
    polling.until(
        lambda: [
            m for m in truth.migrations(name) if m["status"] == "running"
        ],
        "the migration to run",
    )


# In flight.


def test_both_sides_of_a_live_migration_are_told_apart(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R30: the instance holds the target, the migration itself the source.

    The migration is neither an instance nor an orphan, and its host's Gold
    will be free: 4 of 8 count there, and the 4 that arrive count at once.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("stay", "gold.4", "host-1"),
        )
    )
    begin_migration(cloud, truth, "mover", "host-2")

    cluster = snapshots.read(cloud)

    assert truth.usages("host-1")[specs.GOLD] == 8
    assert truth.usages("host-2")[specs.GOLD] == 4
    assert cluster.held["host-1", "gold"] == 4
    assert cluster.held["host-2", "gold"] == 4
    assert "in progress" in snapshots.named(cluster, "mover").in_doubt
    assert not snapshots.named(cluster, "stay").in_doubt
    assert snapshots.findings(cluster, "orphan_allocation") == {}
    assert snapshots.findings(cluster, "doubled_allocation") == {}


def test_a_resize_to_be_confirmed_holds_both_sides(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R30: after a cold migration, until its owner confirms or reverts.

    host-1 is left with a capacity of 2, and the 4 units there are those of
    the migration: no excess. The instance on host-2, which is drained, is
    not moved under its owner's feet. Confirmed, it is one as any other.
    """
    load(specs.three_tiers(instance("mover", "gold.4", "host-1")))
    server = cloud.server_id("mover")
    cloud.population.act(server, "migrate", {"host": "host-2"})
    _wait_for(truth, "mover", "VERIFY_RESIZE")
    cloud.set_inventory("host-1", specs.GOLD, via="api", total=2)
    assert truth.over() == {("host-1", specs.GOLD): 2}

    calm = operator.audit()
    drained = operator.audit(drain_hosts=["host-2"])
    cluster = snapshots.read(cloud)

    assert calm.moves == drained.moves == {}
    assert calm.indicators["excess_units_before"] == 0
    assert drained.indicators["excess_units_before"] == 4
    assert drained.said("mover stays", "VERIFY_RESIZE")
    assert snapshots.findings(cluster, "orphan_allocation") == {}
    cloud.population.act(server, "confirmResize")
    _wait_for(truth, "mover", "ACTIVE")
    polling.until(lambda: not truth.over(), "the source to be released")
    audit = operator.audit(drain_hosts=["host-2"])
    assert audit.moves == {"mover": ("host-2", "host-3")}


def _wait_for(truth: Truth, name: str, status: str) -> None:
    polling.until(
        lambda: truth.server(name)["status"] == status,
        f"{name} to be {status}",
    )


# In doubt.


def test_an_orphan_counts_is_reported_and_can_be_mended(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R170: a consumer that Nova does not know holds 4 of 8 Gold units.

    With the instance's 4 the host is over a quota of 6, and 2 units of the
    orphan's remain when the instance has left. The command of the finding,
    its one request sent here, frees them.
    """
    load(specs.three_tiers(instance("mover", "gold.4", "host-1")))
    orphan = str(uuid.uuid4())
    hold(cloud, orphan, {"host-1": {specs.GOLD: 4}})
    quota = {"quotas_by_host": {"host-1": {"gold": 2}}}

    audit = operator.audit(**quota)
    cluster = snapshots.read(cloud)

    assert set(audit.moves) == {"mover"}
    assert audit.indicators["excess_units_before"] == 6
    assert audit.indicators["excess_units_after"] == 2
    assert (
        cluster.held["host-1", "gold"]
        == 8
        == truth.usages("host-1")[specs.GOLD]
    )
    command = f"openstack resource provider allocation delete {orphan}"
    (line,) = audit.said("orphan_allocation", level="WARNING")
    assert command in line
    assert "host-1" in line
    cloud.placement.delete(f"/allocations/{orphan}")
    audit = operator.audit(**quota)
    assert audit.indicators["excess_units_before"] == 2
    assert not audit.said("orphan_allocation")


@pytest.mark.xfail(
    "OLD_PLACEMENT" in os.environ,
    reason="a Placement before 14.0 does not let the story write on host-1",
    raises=ksa_exceptions.Conflict,
)
def test_a_doubled_allocation_is_reported_and_its_instance_stays(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R170: the mover also holds 4 units on host-2, without a migration.

    They count there. Moving it would hand over both, so it stays and the
    log says what mends it; mended by hand it moves.
    """
    load(over_by_two())
    server = cloud.server_id("mover")
    before = truth.allocations(server)
    hold(cloud, server, {**before, "host-2": {specs.GOLD: 4}})

    audit = operator.audit()
    cluster = snapshots.read(cloud)

    assert audit.moves == {}
    assert audit.indicators["excess_units_before"] == 2
    assert audit.said("mover stays", "host-2")
    (line,) = audit.said("doubled_allocation", "host-2", level="WARNING")
    assert f"openstack resource provider allocation show {server}" in line
    assert cluster.held["host-2", "gold"] == 4
    hold(cloud, server, before)
    assert set(operator.audit().moves) == {"mover"}


def test_a_stale_allocation_on_a_host_without_instances_is_seen(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R170: left from an evacuation, of a server that is on no other list.

    All of it is on host-2, where the server is not.
    """
    load(specs.three_tiers(instance("mover", "gold.4", "host-1")))
    server = cloud.server_id("mover")
    hold(cloud, server, {"host-2": {specs.GOLD: 4, "VCPU": 4}})

    cluster = snapshots.read(cloud)

    assert list(snapshots.findings(cluster, "doubled_allocation")) == ["mover"]
    assert cluster.held.get(("host-1", "gold"), 0) == 0
    assert cluster.held["host-2", "gold"] == 4


# What an instance holds, and what its flavor says.


def test_an_instance_that_holds_another_tier_than_its_flavor_says(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R19: what it holds counts; the difference is named.

    host-1 may hold 2 of Gold and 2 of Silver. By its flavor the mover is
    Gold, in Placement it is Silver: the excess is one of Silver. Nova claims
    what the flavor says on the target, where Gold must be free.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("full", "gold.6", "host-2"),
        )
    )
    server = cloud.server_id("mover")
    held = truth.allocations(server)["host-1"]
    del held[specs.GOLD]
    hold(cloud, server, {"host-1": {**held, specs.SILVER: 4}})
    for tier in (specs.GOLD, specs.SILVER):
        cloud.set_inventory("host-1", tier, total=2)

    audit = operator.audit()
    cluster = snapshots.read(cloud)

    mover = snapshots.named(cluster, "mover")
    assert (mover.tier, mover.units) == ("silver", 4)
    (line,) = audit.said("flavor_and_allocation_differ", "mover")
    assert "4 silver" in line
    assert "4 gold" in line
    assert audit.indicators["silver_excess_units_before"] == 2
    assert audit.indicators["gold_excess_units_before"] == 0
    assert audit.moves == {"mover": ("host-1", "host-3")}
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert cloud.live_migrate("mover", "host-3") == "completed"
    assert truth.usages("host-3")[specs.GOLD] == 4


def test_a_resized_instance_is_of_its_new_tier_at_once(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R19: boosted from Silver to Gold by its owner, audited again.

    And a flavor that is edited after the boot changes no instance: Nova
    embeds it, and so do we read it.
    """
    load(
        specs.three_tiers(
            instance("boosted", "silver.4", "host-1"),
            instance("embedded", "bronze.1", "host-3"),
            flavors=(specs.flavor("gold.4"),),
        )
    )
    compute = cloud.adapter("compute")
    compute.post(
        "/flavors/bronze.1/os-extra_specs",
        json={"extra_specs": {f"resources:{specs.BRONZE}": "7"}},
    )
    server = cloud.server_id("boosted")
    cloud.population.act(server, "resize", {"flavorRef": "gold.4"})
    _wait_for(truth, "boosted", "VERIFY_RESIZE")
    cloud.population.act(server, "confirmResize")
    _wait_for(truth, "boosted", "ACTIVE")
    host = truth.locations()["boosted"]
    polling.until(
        lambda: len(truth.allocations(server)) == 1, "one allocation"
    )

    cluster = snapshots.read(cloud)
    audit = operator.audit(quotas_by_host={host: {"gold": 2}})

    found = snapshots.named(cluster, "boosted")
    assert (found.tier, found.units) == ("gold", 4)
    assert truth.allocations(server)[host][specs.GOLD] == 4
    assert snapshots.named(cluster, "embedded").units == 1
    assert cluster.findings == ()
    assert set(audit.moves) == {"boosted"}


def test_instances_from_before_the_tiers_are_told_by_what_they_hold(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R37, R148: the reshape, before and after.

    ``old`` was booted before its flavor asked for a class and holds none: it
    is untiered. ``half`` asks for Gold and holds none (its reshape never
    came): it counts as 0, as in Placement, and is named with the mend. When
    its allocation is reshaped it counts with 4, and moves.
    """
    load(
        specs.three_tiers(
            instance("half", "gold.4", "host-1"),
            instance("old", "plain.2", "host-1"),
        )
    )
    server = cloud.server_id("half")
    whole = truth.allocations(server)
    never = {k: v for k, v in whole["host-1"].items() if k != specs.GOLD}
    hold(cloud, server, {"host-1": never})
    cloud.set_inventory("host-1", specs.GOLD, total=2)

    before = operator.audit()
    cluster = snapshots.read(cloud)
    # Too much for Placement to admit now: the class was made in time.
    cloud.set_inventory("host-1", specs.GOLD, total=8)
    hold(cloud, server, whole)
    cloud.set_inventory("host-1", specs.GOLD, total=2)
    after = operator.audit()

    half, old = (snapshots.named(cluster, n) for n in ("half", "old"))
    assert (half.tier, half.units) == ("gold", 0)
    assert (old.tier, old.units) == (None, 0)
    assert before.moves == {}
    assert before.indicators["excess_units_before"] == 0
    (line,) = before.said("never_reshaped", "half", level="WARNING")
    assert f"heal_allocations --force --instance {server}" in line
    assert before.said("untiered_instances", "1 instances on host-1", "old")
    assert set(after.moves) == {"half"}
    assert after.indicators["excess_units_before"] == 2
    assert not after.said("never_reshaped")


def test_unknown_extra_specs_are_carried_through(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R163: what we do not know is nobody's business but its owner's."""
    extra = {"acme:colour": "blue", "acme:size": "<in> 3", "weird": "1,2"}
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            flavors=(specs.flavor("gold.4", extra_specs=extra),),
        )
    )

    cluster = snapshots.read(cloud)

    carried = dict(snapshots.named(cluster, "mover").flavor.extra_specs)
    assert carried == truth.server("mover")["flavor"]["extra_specs"]
    assert carried.items() >= extra.items()


# Providers.


def test_a_host_is_known_by_its_uuid_and_not_by_its_name(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """R137: an operator renamed host-1's provider; nothing else changed."""
    load(over_by_two())
    before = snapshots.read(cloud)
    path = f"/resource_providers/{cloud.provider_uuid('host-1')}"
    cloud.placement.put(path, json={"name": "cell7-host-1"})

    after = snapshots.read(cloud)

    host = after.host_by_name["host-1"]
    assert host.root is not None
    assert host.root.name == "cell7-host-1"
    assert after.held == before.held
    assert after.findings == before.findings == ()


def test_a_provider_made_anew_is_no_hosts_until_nova_has_made_its_own(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R137: host-3's provider was deleted, another one has its name now.

    Nova knows the host by another uuid and could not place anything there:
    host-3 is no target, both defects are named, and so is the command. When
    it is carried out and nova-compute has reported, host-3 is back.
    """
    load(over_by_two(instance("full", "gold.5", "host-2")))
    cloud.stop_compute("host-3")
    cloud.placement.delete(
        f"/resource_providers/{cloud.provider_uuid('host-3')}"
    )
    stale = cloud.placement.post(
        "/resource_providers", json={"name": "host-3"}
    ).json()["uuid"]
    cloud.set_inventory("host-3", specs.GOLD, via="api", total=8)
    cloud.set_inventory("host-3", "VCPU", via="api", total=8)
    cloud.set_inventory("host-3", "MEMORY_MB", via="api", total=65536)

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.said("host_without_provider", "host-3", level="WARNING")
    (line,) = audit.said("stale_provider", "host-3", level="WARNING")
    command = f"openstack resource provider delete {stale}"
    assert command in line
    cloud.placement.delete(f"/resource_providers/{stale}")
    cloud.start_compute("host-3")
    audit = operator.audit()
    assert audit.moves == {"mover": ("host-1", "host-3")}
    assert not audit.said("stale_provider")
    assert not audit.said("host_without_provider")
    assert cloud.live_migrate("mover", "host-3") == "completed"


# Unusual inventories and requests.


@dataclasses.dataclass(frozen=True)
class Arithmetic:
    """An inventory of Gold and how many units it is."""

    fields: dict[str, float]
    capacity: int


@pytest.mark.parametrize(
    "case",
    [
        # 115 in any other arithmetic than that of floats.
        Arithmetic({"total": 100, "allocation_ratio": 1.15}, 114),
        Arithmetic({"total": 7, "allocation_ratio": 1.5}, 10),
        Arithmetic({"total": 9, "reserved": 3, "allocation_ratio": 0.9}, 5),
        Arithmetic({"total": 8, "reserved": 3}, 5),
        Arithmetic({"total": 8, "reserved": 8}, 0),
    ],
    ids=lambda case: ",".join(f"{k}={v}" for k, v in case.fields.items()),
)
def test_capacity_is_what_placement_makes_of_the_inventory(
    cloud: EmbeddedCloud, load: Load, case: Arithmetic
) -> None:
    """Placement admits so many units and not one more."""
    load(specs.three_tiers(hosts=(specs.host("host-1"),)))
    cloud.set_inventory(
        "host-1",
        specs.GOLD,
        via="api",
        **{"reserved": 0, "allocation_ratio": 1.0, "max_unit": 200}
        | case.fields,
    )

    surveyed = snapshots.read(cloud)
    detailed = snapshots.read(cloud, detailed=["host-1"])

    for cluster in (surveyed, detailed):
        host = cluster.host_by_name["host-1"]
        assert host.capacity(specs.GOLD) == case.capacity
    root = cloud.provider_uuid("host-1")
    for units, status in ((case.capacity + 1, 409), (case.capacity, 204)):
        if not units:
            continue
        answer = cloud.placement.put(
            f"/allocations/{uuid.uuid4()}",
            json={
                "allocations": {root: {"resources": {specs.GOLD: units}}},
                "project_id": OWNER,
                "user_id": OWNER,
                "consumer_generation": None,
            },
            raise_exc=False,
        )
        assert answer.status_code == status


def test_flavors_without_vcpus_in_placement_count_by_their_class(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """``resources:VCPU=0``: Gold alone is asked for.

    host-2 has no VCPU left and is the better target in Gold: Nova and we
    agree that it fits.
    """
    free = {"resources:VCPU": "0"}
    load(
        over_by_two(
            instance("crowd", "silver.8", "host-2"),
            instance("ballast", "gold.2", "host-3"),
            hosts=(
                specs.host("host-1"),
                specs.host("host-2", cpu_allocation_ratio=1.0),
                specs.host("host-3"),
            ),
            flavors=(specs.flavor("gold.4", extra_specs=free),),
        )
    )
    assert "VCPU" not in truth.allocations(cloud.server_id("mover"))["host-1"]
    assert truth.usages("host-2")["VCPU"] == 8

    audit = operator.audit(
        weigher_resource_classes=[specs.GOLD], weigher_traits=[]
    )

    assert audit.moves == {"mover": ("host-1", "host-2")}
    assert cloud.live_migrate("mover", "host-2") == "completed"
    assert truth.over() == {}


def test_hosts_may_report_some_tiers_and_by_any_identification(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R21: ``$COMPUTE_NODE`` in provider.yaml; one tier on one host.

    And reserved units, which are no capacity.
    """
    load(
        specs.three_tiers(
            instance("gold", "gold.4", "host-1"),
            hosts=(
                specs.host("host-1", identified_by="$COMPUTE_NODE"),
                specs.host("host-2", tiers={"silver": 6}),
                HostSpec(name="host-3"),
            ),
            events=(specs.inventory("host-2", "silver", reserved=2),),
        )
    )

    cluster = snapshots.read(cloud)

    for host in cluster.hosts:
        told = truth.inventories(host.name)
        for tier in specs.TIERS:
            name = specs.tier_class(tier)
            capacity = host.capacity(name)
            assert (capacity is None) == (name not in told)
    capacities = {
        host.name: [host.capacity(specs.tier_class(t)) for t in specs.TIERS]
        for host in cluster.hosts
    }
    assert capacities == {
        "host-1": [8, 8, 8],
        "host-2": [None, 4, None],
        "host-3": [None, None, None],
    }
    assert cluster.held["host-1", "gold"] == 4
