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

"""The snapshot: three services' answers put together, and Nova's flavors."""

import dataclasses
import random
from typing import Any

import pytest

from tests import builders
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import snapshot

GOLD = builders.class_of("gold")
SILVER = builders.class_of("silver")


def compute(name: str, **fields: Any) -> nova.Compute:
    """A host that runs; its uuid is its name with ``-id``."""
    return nova.Compute(
        **{
            "uuid": f"{name}-id",
            "name": name,
            "node_name": name,
            "zone": "nova",
            "enabled": True,
            "up": True,
            "disabled_reason": "",
            **fields,
        }
    )


def server(
    name: str, host: str, flavor: model.Flavor | None = None, **fields: Any
) -> nova.Server:
    """An active server of two Gold units; its uuid is its name."""
    return nova.Server(
        **{
            "uuid": name,
            "name": name,
            "host": host,
            "project": "p1",
            "status": "ACTIVE",
            "task_state": None,
            "locked": False,
            "metadata": model.frozen_map(),
            "pinned_zone": None,
            "flavor": flavor or builders.flavor(2),
            **fields,
        }
    )


def migration(
    uuid: str, moved: str, status: str, source: str = "a", target: str = "b"
) -> nova.Migration:
    return nova.Migration(
        uuid=uuid, server=moved, status=status, source=source, target=target
    )


def root(name: str, **fields: Any) -> model.Provider:
    """The root provider of a host, with all built-in tiers."""
    amounts = {
        "VCPU": 64,
        "MEMORY_MB": 65536,
        "DISK_GB": 1000,
        **{builders.class_of(tier): 16 for tier in builders.BUILT_IN},
    }
    given = {"amounts": amounts, **fields}
    found = builders.provider(f"{name}-id", **given)
    return dataclasses.replace(found, name=name)


@dataclasses.dataclass
class Cloud:
    """What the services say, to be changed and put together.

    Two hosts, a and b, in scope, without servers.
    """

    computes: list[nova.Compute] = dataclasses.field(
        default_factory=lambda: [compute("a"), compute("b")]
    )
    servers: list[nova.Server] = dataclasses.field(default_factory=list)
    migrations: list[nova.Migration] = dataclasses.field(default_factory=list)
    providers: list[model.Provider] = dataclasses.field(
        default_factory=lambda: [root("a"), root("b")]
    )
    # {consumer: {provider: {class: units}}}
    consumers: dict[str, dict[str, dict[str, int]]] = dataclasses.field(
        default_factory=dict
    )
    # {root provider: sharing providers}
    shared: dict[str, tuple[str, ...]] = dataclasses.field(
        default_factory=dict
    )
    unknown: set[str] = dataclasses.field(default_factory=set)
    excluded: set[str] = dataclasses.field(default_factory=set)
    hosts_in_scope: set[str] | None = None
    zones_known: bool = True
    # roots whose allocations were read; None for all
    read: set[str] | None = None

    def assemble(
        self,
        tiers: tuple[model.Tier, ...] = builders.BUILT_IN_TIERS,
        default_tier: str | None = None,
        **options: Any,
    ) -> model.Cluster:
        return snapshot.assemble(
            compute_model.Scope(
                hosts=frozenset(
                    {c.uuid for c in self.computes}
                    if self.hosts_in_scope is None
                    else self.hosts_in_scope
                ),
                instances={
                    s.uuid: s.uuid in self.excluded
                    for s in self.servers
                    if s.uuid not in self.unknown
                },
            ),
            nova.Cloud(
                computes=tuple(self.computes),
                servers=tuple(self.servers),
                migrations=tuple(self.migrations),
                aggregates=(),
                server_groups=(),
                zones_known=self.zones_known,
            ),
            placement.Providers(
                providers=tuple(self.providers),
                consumers=self.consumers,
                read=None if self.read is None else frozenset(self.read),
                shared=self.shared,
            ),
            tiers,
            default_tier,
            **options,
        )


def only(cloud: Cloud, **options: Any) -> model.Instance:
    """The one instance of a cloud."""
    (found,) = cloud.assemble(**options).instances
    return found


def kinds(cluster: model.Cluster) -> list[tuple[str, str]]:
    return [(f.kind, f.subject) for f in cluster.findings]


def on_a(**classes: int) -> dict[str, dict[str, int]]:
    """Allocations on host a, by the last part of a tier's class."""
    return {
        "a-id": {f"CUSTOM_VCPU_{k.upper()}": n for k, n in classes.items()}
    }


# --- tiers and units


def test_an_ordinary_server() -> None:
    cloud = Cloud(servers=[server("i", "a")], consumers={"i": on_a(gold=2)})
    cluster = cloud.assemble()
    (found,) = cluster.instances
    assert (found.tier, found.units, found.host) == ("gold", 2, "a")
    assert found.allocations == {"a-id": {GOLD: 2}}
    assert found.known
    assert not found.excluded
    assert found.in_doubt == ""
    assert cluster.held == {("a", "gold"): 2}
    assert cluster.findings == ()
    assert cluster.tier_classes == {t.resource_class for t in cluster.tiers}


def test_a_fourth_tiers_class_is_read() -> None:
    tiers = builders.tiers("platinum", "gold", "silver", "bronze")
    platinum = builders.class_of("platinum")
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(4, "platinum"))],
        providers=[root("a", amounts={platinum: 8}), root("b")],
        consumers={"i": {"a-id": {platinum: 4}}},
    )
    cluster = cloud.assemble(tiers)
    assert cluster.instances[0].tier == "platinum"
    assert cluster.held == {("a", "platinum"): 4}


def test_a_server_without_a_tier_is_untiered() -> None:
    cloud = Cloud(servers=[server("i", "a", builders.flavor(2, None))])
    cluster = cloud.assemble()
    assert (cluster.instances[0].tier, cluster.instances[0].units) == (None, 0)
    assert kinds(cluster) == [("untiered_instances", "a")]
    assert "belong to no tier: i" in cluster.findings[0].text


def test_untiered_servers_out_of_scope_are_not_reported() -> None:
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(2, None))],
        hosts_in_scope={"b-id"},
    )
    assert kinds(cloud.assemble()) == []


def test_the_default_tier_takes_them_in() -> None:
    """It changes the name, not what Placement counts."""
    cloud = Cloud(servers=[server("i", "a", builders.flavor(2, None))])
    cluster = cloud.assemble(default_tier="bronze")
    assert (cluster.instances[0].tier, cluster.instances[0].units) == (
        "bronze",
        0,
    )
    assert dict(cluster.held) == {}
    assert "count as bronze" in cluster.findings[0].text


def test_many_untiered_servers_are_named_in_part() -> None:
    plain = builders.flavor(1, None)
    cloud = Cloud(servers=[server(f"i{n:02}", "a", plain) for n in range(12)])
    (finding,) = cloud.assemble().findings
    assert "12 instances on a" in finding.text
    assert "i09 and 2 more" in finding.text
    assert "i10" not in finding.text


def test_what_it_holds_counts_where_the_flavor_differs() -> None:
    cloud = Cloud(servers=[server("i", "a")], consumers={"i": on_a(gold=5)})
    cluster = cloud.assemble()
    assert cluster.instances[0].units == 5
    assert cluster.held == {("a", "gold"): 5}
    assert kinds(cluster) == [("flavor_and_allocation_differ", "i")]


def test_units_of_a_tier_that_its_flavor_does_not_ask_for() -> None:
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(2, "silver"))],
        consumers={"i": on_a(gold=2)},
    )
    cluster = cloud.assemble()
    assert (cluster.instances[0].tier, cluster.instances[0].units) == (
        "gold",
        2,
    )
    assert kinds(cluster) == [("flavor_and_allocation_differ", "i")]


def test_units_of_an_untiered_flavor_give_it_a_tier() -> None:
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(2, None))],
        consumers={"i": on_a(silver=3)},
    )
    found = only(cloud)
    assert (found.tier, found.units) == ("silver", 3)


def test_units_of_two_tiers_are_in_doubt() -> None:
    cloud = Cloud(
        servers=[server("i", "a")], consumers={"i": on_a(gold=2, silver=1)}
    )
    found = only(cloud)
    assert (found.tier, found.units) == ("gold", 2)
    assert found.in_doubt == "it holds units of more than one tier"


def test_a_flavor_that_asks_for_two_tiers_is_in_doubt() -> None:
    both = builders.flavor(2, "silver", more={GOLD: 1})
    cloud = Cloud(
        servers=[server("i", "a", both)],
        consumers={"i": on_a(gold=1, silver=2)},
    )
    found = only(cloud)
    assert found.tier == "gold"
    assert found.in_doubt


def test_a_server_that_was_never_reshaped() -> None:
    """Its flavor asks for the class, Placement has nothing of it."""
    cloud = Cloud(
        servers=[server("i", "a")], consumers={"i": {"a-id": {"VCPU": 2}}}
    )
    cluster = cloud.assemble()
    assert (cluster.instances[0].tier, cluster.instances[0].units) == (
        "gold",
        0,
    )
    assert dict(cluster.held) == {}
    assert kinds(cluster) == [("never_reshaped", "i")]
    assert "heal_allocations" in cluster.findings[0].text


def test_units_on_nested_providers_are_summed() -> None:
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(4))],
        providers=[
            root("a", amounts={"VCPU": 64}),
            builders.provider("a_n0", {GOLD: 4}, root="a-id"),
            builders.provider("a_n1", {GOLD: 4}, root="a-id"),
            root("b"),
        ],
        consumers={"i": {"a_n0": {GOLD: 1}, "a_n1": {GOLD: 3}}},
    )
    cluster = cloud.assemble()
    assert cluster.instances[0].units == 4
    assert cluster.held == {("a", "gold"): 4}
    assert cluster.findings == ()


# --- enforcement without Placement's classes


BARE = {"VCPU": 64, "MEMORY_MB": 65536, "DISK_GB": 1000}


def bare_cloud(*servers: nova.Server) -> Cloud:
    """A cloud in which no host has any tier's class."""
    return Cloud(
        servers=list(servers),
        providers=[root("a", amounts=BARE), root("b", amounts=BARE)],
        consumers={s.uuid: {"a-id": {"VCPU": 2}} for s in servers},
    )


SHARES: dict[str, tuple[int, str | None, str | None, str | None]] = {
    "per vCPU": (4, "2048", None, "gold"),
    "per vCPU, silver": (4, "1332", None, "silver"),
    "as a whole": (4, "512", None, "gold"),
    "one vCPU": (1, "167", None, "bronze"),
    "of no tier": (4, "1000", None, None),
    "no number": (4, "lots", None, None),
    "none": (4, None, None, None),
    "of no tier, with a default": (4, "1000", "bronze", "bronze"),
    "a tier's, with a default": (4, "2048", "bronze", "gold"),
}


@pytest.mark.parametrize("case", SHARES)
def test_the_tier_by_its_shares(case: str) -> None:
    """R72: units are vCPUs, the tier is told by ``quota:cpu_shares``."""
    vcpus, shares, default, tier = SHARES[case]
    specs = {} if shares is None else {"quota:cpu_shares": shares}
    plain = builders.flavor(vcpus, None, extra_specs=specs)
    cluster = bare_cloud(server("i", "a", plain)).assemble(
        default_tier=default
    )
    (found,) = cluster.instances
    assert found.tier == tier
    assert found.units == (vcpus if tier else 0)
    assert cluster.held == ({("a", tier): vcpus} if tier else {})
    assert cluster.tier_classes == frozenset()
    assert cluster.findings == ()


def test_shares_do_not_tell_a_tier_where_placement_does() -> None:
    specs = {"quota:cpu_shares": "1024"}
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(2, None, extra_specs=specs))]
    )
    assert only(cloud).tier is None


def test_policies_are_enforced_without_placement() -> None:
    """R140, from the services' answers to the excess."""
    specs = {"quota:cpu_shares": "2048"}
    gold = builders.flavor(4, None, extra_specs=specs)
    cluster = bare_cloud(server("i", "a", gold)).assemble(
        builders.tiers("gold")
    )
    found = diagnosing.diagnose(
        cluster, parameters.Parameters.of({"quotas": {"gold": "5%"}})
    )
    assert [(e.host, e.held, e.quota) for e in found.excesses] == [("a", 4, 3)]


def test_a_tier_without_a_class_counts_beside_tiers_with_one() -> None:
    """Bronze is the default tier, has no class and a policy quota: its
    units are those of the flavors, as where no tier has a class.
    """
    bronze_less = {**BARE, GOLD: 16, SILVER: 16}
    cloud = Cloud(
        servers=[server("i", "a", builders.flavor(4, None))],
        providers=[
            root("a", amounts=bronze_less),
            root("b", amounts=bronze_less),
        ],
        consumers={"i": {"a-id": {"VCPU": 4}}},
    )
    cluster = cloud.assemble(default_tier="bronze")
    found = diagnosing.diagnose(
        cluster, parameters.Parameters.of({"quotas": {"bronze": 3}})
    )
    assert [(e.host, e.tier, e.held) for e in found.excesses] == [
        ("a", "bronze", 4)
    ]


# --- migrations in flight, orphans, doubles


def test_a_live_migration_counts_once() -> None:
    """While it runs, the server's own allocation is on the target and the
    migration's on the source: no instance holds the source.
    """
    cloud = Cloud(
        servers=[server("i", "a", task_state="migrating")],
        migrations=[migration("m", "i", "running")],
        consumers={
            "i": {"b-id": {GOLD: 2}},
            "m": {"a-id": {GOLD: 2}},
        },
    )
    cluster = cloud.assemble()
    (found,) = cluster.instances
    assert found.tier == "gold"
    assert found.in_doubt == "a migration of it is in progress"
    assert cluster.held == {("b", "gold"): 2}
    assert cluster.findings == ()


def test_a_migration_in_flight_is_no_excess_of_its_source() -> None:
    """Section 8: it "holds its source through its own consumer"."""
    cloud = Cloud(
        servers=[
            server("i", "a", builders.flavor(4), task_state="migrating"),
            server("j", "a", builders.flavor(14)),
        ],
        migrations=[migration("m", "i", "running")],
        consumers={
            "i": {"b-id": {GOLD: 4}},
            "m": {"a-id": {GOLD: 4}},
            "j": {"a-id": {GOLD: 14}},
        },
    )
    found = diagnosing.diagnose(cloud.assemble(), parameters.Parameters.of({}))
    assert found.excesses == ()


def test_a_resize_that_waits_for_its_confirmation() -> None:
    """VERIFY_RESIZE: both sides are held until it is confirmed."""
    cloud = Cloud(
        servers=[server("i", "b", status="VERIFY_RESIZE")],
        migrations=[migration("m", "i", "finished")],
        consumers={
            "i": {"b-id": {GOLD: 2}},
            "m": {"a-id": {GOLD: 2}},
        },
    )
    cluster = cloud.assemble()
    (found,) = cluster.instances
    assert (found.tier, found.units) == ("gold", 2)
    assert found.status == "VERIFY_RESIZE"
    assert found.in_doubt
    assert cluster.held == {("b", "gold"): 2}
    assert cluster.findings == ()


@pytest.mark.parametrize(
    ("status", "in_flight"),
    [
        ("queued", True),
        ("accepted", True),
        ("preparing", True),
        ("pre-migrating", True),
        ("running", True),
        ("migrating", True),
        ("post-migrating", True),
        ("finished", True),
        ("reverting", True),
        ("confirming", True),
        ("completed", False),
        ("confirmed", False),
        ("reverted", False),
        ("cancelled", False),
        ("failed", False),
        ("error", False),
        ("done", False),
    ],
)
def test_the_status_of_a_migration(status: str, in_flight: bool) -> None:
    assert migration("m", "i", status).in_flight is in_flight


def test_a_migration_that_is_over_leaves_an_orphan() -> None:
    """What it still holds counts until somebody deletes it."""
    cloud = Cloud(
        servers=[server("i", "b")],
        migrations=[migration("m", "i", "completed")],
        consumers={"i": {"b-id": {GOLD: 2}}, "m": {"a-id": {GOLD: 2}}},
    )
    cluster = cloud.assemble()
    assert cluster.held == {("a", "gold"): 2, ("b", "gold"): 2}
    assert cluster.instances[0].in_doubt == ""
    assert kinds(cluster) == [("orphan_allocation", "m")]
    assert "holds allocations on a and" in cluster.findings[0].text


def test_a_consumer_that_nobody_knows_is_an_orphan() -> None:
    cloud = Cloud(consumers={"ghost": {"a-id": {GOLD: 3}, "b-id": {GOLD: 1}}})
    cluster = cloud.assemble()
    assert cluster.held == {("a", "gold"): 3, ("b", "gold"): 1}
    assert kinds(cluster) == [("orphan_allocation", "ghost")]
    assert "on a, b" in cluster.findings[0].text


def test_a_doubled_allocation() -> None:
    """It runs on a, and holds units on b as well without a migration."""
    cloud = Cloud(
        servers=[server("i", "a")],
        consumers={"i": {"a-id": {GOLD: 2}, "b-id": {GOLD: 2}}},
    )
    cluster = cloud.assemble()
    (found,) = cluster.instances
    assert (found.tier, found.units) == ("gold", 2)
    assert "allocations on b without a migration" in found.in_doubt
    assert cluster.held == {("a", "gold"): 2, ("b", "gold"): 2}
    assert kinds(cluster) == [("doubled_allocation", "i")]


def test_a_shared_providers_allocation_is_no_double() -> None:
    store = builders.provider("nfs", {"DISK_GB": 10000})
    cloud = Cloud(
        servers=[server("i", "a")],
        providers=[root("a"), root("b"), store],
        shared={"a-id": ("nfs",)},
        consumers={"i": {"a-id": {GOLD: 2}, "nfs": {"DISK_GB": 10}}},
    )
    cluster = cloud.assemble()
    assert cluster.instances[0].in_doubt == ""
    assert cluster.findings == ()


# --- hosts


def test_a_host_with_its_tree() -> None:
    """Root first, then by name; sharing providers of its aggregates."""
    shares = {"traits": [model.SHARING_TRAIT]}
    near = builders.provider("near", {"X": 1}, **shares)
    far = builders.provider("far", {"X": 1}, **shares)
    cloud = Cloud(
        computes=[compute("a", zone="az1", disabled_reason="disk", up=False)],
        providers=[
            builders.provider("0-first", root="a-id"),
            far,
            near,
            root("a"),
            builders.provider("z-last", root="a-id"),
        ],
        shared={"a-id": ("near",), "b-id": ("far",)},
        hosts_in_scope=set(),
    )
    (host,) = cloud.assemble().hosts
    assert [p.name for p in host.providers] == ["a", "0-first", "z-last"]
    assert [p.name for p in host.shared] == ["near"]
    assert (host.uuid, host.name, host.node_name) == ("a-id", "a", "a")
    assert (host.zone, host.disabled_reason) == ("az1", "disk")
    assert host.enabled
    assert not host.up
    assert not host.in_scope


def test_a_host_without_a_provider_is_reported() -> None:
    cloud = Cloud(providers=[root("a")])
    cluster = cloud.assemble()
    assert cluster.host_by_name["b"].providers == ()
    assert kinds(cluster) == [("host_without_provider", "b")]


def test_two_hypervisors_of_one_name_are_reported() -> None:
    cloud = Cloud(
        computes=[compute("a"), compute("a", uuid="old")],
        providers=[root("a"), builders.provider("old")],
    )
    assert kinds(cloud.assemble()) == [("duplicate_host", "a")]


# --- instances


def test_a_server_that_is_nowhere_is_left_out() -> None:
    """Shelved, or still being scheduled."""
    assert Cloud(servers=[server("i", "")]).assemble().instances == ()


STATES: dict[str, tuple[dict[str, Any], str, Any]] = {
    "opted out": ({"metadata": {"optimize": "false"}}, "opted_out", True),
    "in capitals": ({"metadata": {"optimize": "False"}}, "opted_out", True),
    "opted in": ({"metadata": {"optimize": "true"}}, "opted_out", False),
    "locked": ({"locked": True}, "locked", True),
    "status": ({"status": "PAUSED"}, "status", "PAUSED"),
    "task": ({"task_state": "rebooting"}, "task_state", "rebooting"),
    "project": ({"project": "p2"}, "project", "p2"),
    "zone": ({"pinned_zone": "az1"}, "pinned_zone", "az1"),
    "priority": ({"metadata": {"cputier:priority": "7"}}, "priority", 7),
    "negative": ({"metadata": {"cputier:priority": "-7"}}, "priority", -7),
    "the flavor's priority": (
        {"flavor": builders.flavor(2, extra_specs={"cputier:priority": "3"})},
        "priority",
        3,
    ),
    "its own before the flavor's": (
        {
            "metadata": {"cputier:priority": "1"},
            "flavor": builders.flavor(
                2, extra_specs={"cputier:priority": "3"}
            ),
        },
        "priority",
        1,
    ),
}


@pytest.mark.parametrize("case", STATES)
def test_what_nova_says_of_a_server(case: str) -> None:
    fields, name, expected = STATES[case]
    cloud = Cloud(
        servers=[server("i", "a", **fields)], consumers={"i": on_a(gold=2)}
    )
    cluster = cloud.assemble()
    assert getattr(cluster.instances[0], name) == expected
    assert cluster.findings == ()


def test_a_priority_that_is_no_number_is_reported() -> None:
    cloud = Cloud(
        servers=[server("i", "a", metadata={"cputier:priority": "high"})],
        consumers={"i": on_a(gold=2)},
    )
    cluster = cloud.assemble()
    assert cluster.instances[0].priority == 0
    assert kinds(cluster) == [("unreadable_priority", "i")]


def test_scope_is_the_models_word() -> None:
    cloud = Cloud(
        servers=[server(n, "a") for n in ("in", "out", "stranger")],
        consumers={n: on_a(gold=2) for n in ("in", "out", "stranger")},
        excluded={"out"},
        unknown={"stranger"},
    )
    found = {i.name: (i.known, i.excluded) for i in cloud.assemble().instances}
    assert found == {
        "in": (True, False),
        "out": (True, True),
        "stranger": (False, False),
    }


def test_where_nova_does_not_tell_the_zone_an_instance_stays_in_it() -> None:
    """Before microversion 2.96 the zone that it was created for is secret."""
    cloud = Cloud(
        computes=[compute("a", zone="az1"), compute("b")],
        servers=[server("i", "a")],
        consumers={"i": on_a(gold=2)},
        zones_known=False,
    )
    assert only(cloud).pinned_zone == "az1"


def test_strangers_are_servers_in_scope_that_the_model_lacks() -> None:
    found = snapshot.strangers(
        compute_model.Scope(
            hosts=frozenset({"a-id"}), instances={"known": False}
        ),
        nova.Cloud(
            computes=(compute("a"), compute("b")),
            servers=(
                server("known", "a"),
                server("stranger", "a"),
                server("outside", "b"),
                server("nowhere", ""),
            ),
            migrations=(),
            aggregates=(),
            server_groups=(),
            zones_known=True,
        ),
    )
    assert found == ("stranger",)


def test_the_order_of_the_answers_does_not_matter() -> None:
    """Placement may list providers and consumers as it likes."""
    cloud = Cloud(
        servers=[server(f"i{n}", "ab"[n % 2]) for n in range(6)],
        migrations=[migration("m", "i0", "running")],
        providers=[
            root("a"),
            root("b"),
            builders.provider("a_n0", {"X": 1}, root="a-id"),
            builders.provider("a_n1", {"X": 1}, root="a-id"),
        ],
        consumers={
            "i0": {"b-id": {GOLD: 2}},
            "m": {"a-id": {GOLD: 2}},
            "i1": {"b-id": {GOLD: 3}},
            "i2": {"a-id": {GOLD: 2}, "b-id": {GOLD: 2}},
            "ghost": {"a-id": {SILVER: 1}},
        },
    )
    first = cloud.assemble()
    for seed in range(5):
        chance = random.Random(seed)
        chance.shuffle(cloud.providers)
        consumers = list(cloud.consumers.items())
        chance.shuffle(consumers)
        cloud.consumers = dict(consumers)
        chance.shuffle(cloud.migrations)
        assert cloud.assemble() == first


# --- trees whose allocations were not read


def test_where_totals_agree_the_flavors_tell() -> None:
    """Only b was read: on a, Placement's totals count for the quota."""
    providers = [root("a", allocated={GOLD: 2}), root("b")]
    cloud = Cloud(
        servers=[
            server("i", "a"),
            server("j", "b"),
            server("u", "a", builders.flavor(2, None)),
        ],
        providers=providers,
        consumers={"j": {"b-id": {GOLD: 5}}},
        read={"b-id"},
    )
    cluster = cloud.assemble(default_tier="bronze")
    found = {i.name: (i.tier, i.units) for i in cluster.instances}
    assert found == {
        "i": ("gold", 2),
        "j": ("gold", 5),
        "u": ("bronze", 0),
    }
    assert cluster.held == {("a", "gold"): 2, ("b", "gold"): 5}


DOUBTS: dict[str, tuple[int, list[nova.Server], list[nova.Migration]]] = {
    "right books": (2, [server("i", "a")], []),
    "too much is held": (3, [server("i", "a")], []),
    "too little is held": (0, [server("i", "a")], []),
    "nobody is there": (2, [], []),
    "a migration is in flight": (
        2,
        [server("i", "a")],
        [migration("m", "i", "running", "a", "x")],
    ),
    "a migration is to arrive": (
        2,
        [server("i", "a")],
        [migration("m", "j", "running", "x", "a")],
    ),
    "a migration is over": (
        2,
        [server("i", "a")],
        [migration("m", "i", "completed", "x", "a")],
    ),
}


@pytest.mark.parametrize("case", DOUBTS)
def test_hosts_in_doubt_are_those_whose_totals_differ(case: str) -> None:
    held, servers, migrations = DOUBTS[case]
    cloud = Cloud(
        servers=servers,
        migrations=migrations,
        providers=[root("a", allocated={GOLD: held}), root("b")],
        read=set(),
    )
    said = nova.Cloud(
        computes=tuple(cloud.computes),
        servers=tuple(servers),
        migrations=tuple(migrations),
        aggregates=(),
        server_groups=(),
        zones_known=True,
    )
    found = snapshot.in_doubt(cloud.assemble(), said)
    sound = case in ("right books", "a migration is over")
    assert found == (set() if sound else {"a-id"})


# --- flavors


def record(**fields: Any) -> dict[str, Any]:
    """The flavor of a server as Nova embeds it."""
    return {
        "original_name": "m1",
        "vcpus": 2,
        "ram": 4096,
        "disk": 20,
        "ephemeral": 0,
        "swap": 0,
        "extra_specs": {},
        **fields,
    }


BASE = {"VCPU": 2, "MEMORY_MB": 4096, "DISK_GB": 20}

REQUESTS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "plain": ({}, BASE),
    "a tier": (
        {"extra_specs": {"resources:CUSTOM_VCPU_GOLD": "2"}},
        {**BASE, GOLD: 2},
    ),
    "an override": (
        {"extra_specs": {"resources:VCPU": "1", "resources:MEMORY_MB": "8"}},
        {"VCPU": 1, "MEMORY_MB": 8, "DISK_GB": 20},
    ),
    "taken out": (
        {"extra_specs": {"resources:VCPU": "0", f"resources:{GOLD}": "2"}},
        {"MEMORY_MB": 4096, "DISK_GB": 20, GOLD: 2},
    ),
    "ephemeral": ({"ephemeral": 5}, {**BASE, "DISK_GB": 25}),
    "swap rounds up": ({"swap": 1025}, {**BASE, "DISK_GB": 22}),
    "swap of a whole GB": ({"swap": 1024}, {**BASE, "DISK_GB": 21}),
    "no swap, in words": ({"swap": ""}, BASE),
    "no disk": ({"disk": 0}, {"VCPU": 2, "MEMORY_MB": 4096}),
    "no number": ({"extra_specs": {"resources:X": "some"}}, BASE),
    "strangers": ({"extra_specs": {"hw:x": "1", "foo": "bar"}}, BASE),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_a_flavors_request(case: str) -> None:
    fields, expected = REQUESTS[case]
    found = nova.flavor(record(**fields))
    assert found.resources == expected
    assert [g.suffix for g in found.groups] == [""]
    assert found.extra_specs == fields.get("extra_specs", {})
    assert (found.name, found.vcpus, found.memory_mb) == ("m1", 2, 4096)


def test_a_volume_takes_no_disk_of_the_host() -> None:
    """Ephemeral disk and swap do."""
    found = nova.flavor(record(ephemeral=5, swap=512), from_volume=True)
    assert found.resources["DISK_GB"] == 6
    assert found.disk_gb == 6
    bare = nova.flavor(record(), from_volume=True)
    assert "DISK_GB" not in bare.resources


def test_traits_and_numbered_groups() -> None:
    found = nova.flavor(
        record(
            extra_specs={
                "trait:SSD": "required",
                "trait:OLD": "forbidden",
                "trait:NICE": "preferred",
                "resources1:CUSTOM_LLC": "4",
                "trait1:CUSTOM_RDT": "required",
                "resources_net:CUSTOM_BW": "10",
                "trait_net:CUSTOM_OLD": "forbidden",
                "group_policy": "isolate",
            }
        )
    )
    assert found.groups == (
        builders.group(BASE, required=["SSD"], forbidden=["OLD"]),
        builders.group({"CUSTOM_LLC": 4}, suffix="1", required=["CUSTOM_RDT"]),
        builders.group(
            {"CUSTOM_BW": 10}, suffix="_net", forbidden=["CUSTOM_OLD"]
        ),
    )
    assert found.required_traits == {"SSD", "CUSTOM_RDT"}
    assert found.extra_specs["group_policy"] == "isolate"
    assert found.extra_specs["trait:NICE"] == "preferred"


def test_a_class_of_several_groups_is_summed() -> None:
    found = nova.flavor(
        record(extra_specs={"resources1:VCPU": "3", "resources2:VCPU": "5"})
    )
    assert found.resources["VCPU"] == 10


def test_what_nova_says_of_hypervisors_and_hints_is_kept() -> None:
    cloud = Cloud(
        computes=[compute("a", hypervisor_type="QEMU", hypervisor_version=7)],
        servers=[
            server("i", "a", different_host=frozenset({"j"})),
            server("j", "a", same_host=frozenset({"i"})),
        ],
        providers=[root("a")],
    )
    found = cloud.assemble()
    (host,) = found.hosts
    assert (host.hypervisor_type, host.hypervisor_version) == ("QEMU", 7)
    assert [i.different_host for i in found.instances] == [{"j"}, set()]
    assert [i.same_host for i in found.instances] == [set(), {"i"}]


def test_traits_that_an_image_requires_are_asked_for_too() -> None:
    plain = nova.flavor(record(extra_specs={"trait:T": "required"}))
    found = plain.requiring({"CUSTOM_SSD"})
    assert found.required_traits == {"T", "CUSTOM_SSD"}
    assert dict(found.request)["required"] == "CUSTOM_SSD,T"
    assert plain.required_traits == {"T"}


def test_empty_mappings_are_one() -> None:
    """A large cloud has millions of them."""
    one, other = builders.instance("i", "a"), builders.instance("j", "a")
    assert one.allocations is other.image_properties
    assert model.frozen_map({}) is model.frozen_map()
