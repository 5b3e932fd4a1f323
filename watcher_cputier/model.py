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

"""The frozen picture of a cloud that every decision is made on.

A :class:`Cluster` is read once, at the edges, and never changes. It knows
nothing of OpenStack's clients: hosts with their provider trees, instances
with what they request and what they hold, and the rules that Nova applies
to both. Everything is keyed and ordered by stable names, so that the same
cloud always makes the same picture whatever order its services answered in.

Units in names: ``_mb``, ``_gb``; a tier's *units* are those of its resource
class (one unit is one vCPU of the tier).

A provider tree of one host, as the fixture of the tests draws it::

    host-1 (root: VCPU 16, MEMORY_MB 65536, CUSTOM_VCPU_GOLD 16, ...)
      +-- host-1_numa0 (CUSTOM_LLC 8, trait CUSTOM_RDT)
      ~~~ shared-storage (DISK_GB 10000; trait MISC_SHARES_VIA_AGGREGATE)
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
import re
import types
from typing import Any, TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")

# Gold, silver and bronze where nobody says otherwise:
# name: (CFS shares per vCPU, multiplier), highest tier first.
BUILT_IN_TIERS = {
    "gold": (512, 100.0),
    "silver": (333, 50.0),
    "bronze": (167, 25.0),
}
SHARING_TRAIT = "MISC_SHARES_VIA_AGGREGATE"
_GROUPED_SPEC = re.compile(r"^(resources|trait)([a-zA-Z0-9_-]{0,64}):(.+)$")


# One for all: a large cloud has millions of mappings with nothing in them.
_NOTHING: Mapping[Any, Any] = types.MappingProxyType({})


def frozen_map(items: Mapping[_K, _V] | None = None) -> Mapping[_K, _V]:
    """A read-only copy of a mapping, its keys in sorted order."""
    if not items:
        return _NOTHING
    return types.MappingProxyType(
        dict(sorted(items.items(), key=lambda item: str(item[0])))
    )


def default_class(tier: str) -> str:
    """The class that represents a tier unless told otherwise."""
    return "CUSTOM_VCPU_" + re.sub("[^A-Z0-9]", "_", tier.upper())


def default_multiplier(cpu_shares: int) -> float:
    """Share units of a vCPU in proportion to its CFS shares, as gold's."""
    shares, multiplier = BUILT_IN_TIERS["gold"]
    return round(cpu_shares * multiplier / shares, 2)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """A service tier: a name and the resource class that represents it.

    :param rank: 1 is the highest tier
    :param cpu_shares: CFS shares of one vCPU of this tier
    :param multiplier: share units of one vCPU in single-class mode
    """

    name: str
    resource_class: str
    cpu_shares: int
    multiplier: float
    rank: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """One resource class of one provider, as Placement accounts for it.

    Placement's bulk answers tell the capacity alone; the other numbers are
    read where a decision needs them.

    :param total: None where only the capacity is known
    :param known_capacity: what Placement calls the capacity, where it was
        told instead of computed
    """

    total: int | None = None
    reserved: int = 0
    allocation_ratio: float = 1.0
    min_unit: int = 1
    max_unit: int = 2147483647
    step_size: int = 1
    known_capacity: int | None = None

    @property
    def capacity(self) -> int:
        """Units that Placement hands out: int((total - reserved) x ratio).

        Not rounded, for Placement does not round either: 100 x 1.15 is
        114.999... there too, and the 115th unit is refused.
        """
        if self.known_capacity is not None:
            return self.known_capacity
        units = ((self.total or 0) - self.reserved) * self.allocation_ratio
        return max(0, int(units))

    @property
    def detailed(self) -> bool:
        """Whether min_unit, max_unit and step_size are known."""
        return self.total is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A resource provider: inventories, what is allocated, and traits.

    :param allocated: units allocated per class, by all consumers
    :param aggregates: uuids of the Placement aggregates it belongs to
    """

    uuid: str
    name: str
    root_uuid: str
    parent_uuid: str | None = None
    generation: int = 0
    inventories: Mapping[str, Inventory] = dataclasses.field(
        default_factory=frozen_map
    )
    allocated: Mapping[str, int] = dataclasses.field(
        default_factory=frozen_map
    )
    traits: frozenset[str] = frozenset()
    aggregates: frozenset[str] = frozenset()

    @property
    def shares(self) -> bool:
        """Whether other trees of its aggregates may consume from it."""
        return SHARING_TRAIT in self.traits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Host:
    """A compute host with its provider tree.

    :param uuid: of the root provider, equal to Nova's hypervisor uuid
    :param name: the compute service's host name, as actions use it
    :param node_name: the hypervisor's host name (equal, on libvirt)
    :param providers: the tree, root first, then by name
    :param shared: sharing providers of its aggregates, by name
    :param zone: its availability zone
    :param failure_domain: what it fails together with: the rack that an
        aggregate names, else its zone
    :param in_scope: whether the audit may take from and give to it
    :param hypervisor_type: as Nova names it; empty where it is unknown
    :param hypervisor_version: as Nova compares it; None where it is unknown
    :param vcpus: CPUs that Nova counts for its hypervisor, shared and
        dedicated ones; None where it is unknown
    """

    uuid: str
    name: str
    node_name: str
    providers: tuple[Provider, ...] = ()
    shared: tuple[Provider, ...] = ()
    enabled: bool = True
    up: bool = True
    disabled_reason: str = ""
    zone: str = ""
    failure_domain: str = ""
    in_scope: bool = True
    hypervisor_type: str = ""
    hypervisor_version: int | None = None
    vcpus: int | None = None

    @property
    def root(self) -> Provider | None:
        """The root provider; None where Placement has no tree for it."""
        return self.providers[0] if self.providers else None

    def capacity(self, resource_class: str) -> int | None:
        """Capacity of a class summed over the tree; None if absent."""
        found = [
            p.inventories[resource_class].capacity
            for p in self.providers
            if resource_class in p.inventories
        ]
        return sum(found) if found else None

    @property
    def shared_cpus(self) -> int | None:
        """N: the total of VCPU on the root provider; None if unknown.

        Where it was not read, Nova's own count is the same number, unless
        some of the CPUs are dedicated.
        """
        if self.root is None or "VCPU" not in self.root.inventories:
            return None
        total = self.root.inventories["VCPU"].total
        if total is None and self.capacity("PCPU") is None:
            return self.vcpus
        return total

    @functools.cached_property
    def traits(self) -> frozenset[str]:
        """Traits of the whole tree."""
        return frozenset().union(*(p.traits for p in self.providers))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RequestGroup:
    """One granular request group of a flavor (``resourcesN``, ``traitN``).

    The unnumbered group has the empty suffix; a numbered group must be
    served by one single provider.
    """

    suffix: str = ""
    resources: Mapping[str, int] = dataclasses.field(
        default_factory=frozen_map
    )
    required_traits: frozenset[str] = frozenset()
    forbidden_traits: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Flavor:
    """What an instance asks for, independent of where it runs.

    :param groups: the unnumbered group first, then by suffix
    :param extra_specs: all extra specs, unknown ones included (R163)
    """

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    groups: tuple[RequestGroup, ...] = ()
    extra_specs: Mapping[str, str] = dataclasses.field(
        default_factory=frozen_map
    )

    @classmethod
    def of(
        cls,
        *,
        name: str,
        vcpus: int,
        memory_mb: int,
        disk_gb: int,
        extra_specs: Mapping[str, str],
    ) -> "Flavor":
        """A flavor with the request that Nova's scheduler makes of it.

        ``resources:`` overrides what follows from vCPUs, memory and disk, 0
        takes it out; numbered groups stand for themselves.
        """
        resources: dict[str, dict[str, int]] = {
            "": {"VCPU": vcpus, "MEMORY_MB": memory_mb, "DISK_GB": disk_gb}
        }
        traits: dict[str, dict[str, set[str]]] = {}
        for key, value in extra_specs.items():
            matched = _GROUPED_SPEC.match(key)
            if matched is None:
                continue
            kind, suffix, what = matched.groups()
            if kind == "resources" and value.isdigit():
                resources.setdefault(suffix, {})[what] = int(value)
            elif kind == "trait":
                asked = traits.setdefault(suffix, {})
                asked.setdefault(value, set()).add(what)
        return cls(
            name=name,
            vcpus=vcpus,
            memory_mb=memory_mb,
            disk_gb=disk_gb,
            groups=tuple(
                RequestGroup(
                    suffix=suffix,
                    resources=frozen_map(
                        {
                            name: amount
                            for name, amount in resources.get(
                                suffix, {}
                            ).items()
                            if amount
                        }
                    ),
                    required_traits=frozenset(
                        traits.get(suffix, {}).get("required", ())
                    ),
                    forbidden_traits=frozenset(
                        traits.get(suffix, {}).get("forbidden", ())
                    ),
                )
                for suffix in sorted({*resources, *traits})
            ),
            extra_specs=frozen_map(extra_specs),
        )

    def requiring(self, traits: Iterable[str]) -> "Flavor":
        """The same with traits that the unnumbered group requires too."""
        first, *rest = self.groups or (RequestGroup(),)
        first = dataclasses.replace(
            first, required_traits=first.required_traits.union(traits)
        )
        return dataclasses.replace(self, groups=(first, *rest))

    @functools.cached_property
    def resources(self) -> Mapping[str, int]:
        """Requested units per class, summed over all groups."""
        total: dict[str, int] = {}
        for group in self.groups:
            for name, amount in group.resources.items():
                total[name] = total.get(name, 0) + amount
        return frozen_map(total)

    @functools.cached_property
    def request(self) -> tuple[tuple[str, str], ...]:
        """The request as ``GET /allocation_candidates`` words it.

        Parameter names with their values, sorted; equal for flavors that
        ask Placement for the same.
        """
        found = []
        for group in self.groups:
            classes = sorted(group.resources.items())
            traits = [
                *sorted(group.required_traits),
                *(f"!{name}" for name in sorted(group.forbidden_traits)),
            ]
            for name, values in (
                ("resources", [f"{c}:{n}" for c, n in classes]),
                ("required", traits),
            ):
                if values:
                    found.append((name + group.suffix, ",".join(values)))
        policy = self.extra_specs.get("group_policy")
        if policy:
            found.append(("group_policy", policy))
        return tuple(sorted(found))

    @functools.cached_property
    def required_traits(self) -> frozenset[str]:
        """Traits that some group requires."""
        return frozenset().union(*(g.required_traits for g in self.groups))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """A server with its flavor, its tier and what Placement says it holds.

    :param host: name of the host that it runs on
    :param tier: name of its tier; None for an untiered instance
    :param units: units of its tier that it holds on its host, Placement's
        word where there is one, else its flavor's
    :param allocations: {provider uuid: {class: units}} as Placement has
        them; empty where they were not read
    :param known: whether Watcher's model has it (a stranger never moves)
    :param excluded: whether the audit's scope excludes it
    :param opted_out: whether its metadata says ``optimize=false``
    :param pinned_zone: availability zone that it was created for, if any
    :param image_properties: of its image, where they are known; the traits
        that the image requires are among those of its flavor's groups
    :param different_host: uuids of instances that its scheduler hint keeps
        it apart from
    :param same_host: uuids of instances whose hosts its scheduler hint
        keeps it to
    :param tied: what ties it to its host besides flavor and image, such as
        a port on a device or a server group that is not shown; empty if
        nothing is known to
    :param in_doubt: why its allocations cannot be trusted; empty if they can
    """

    uuid: str
    name: str
    host: str
    flavor: Flavor
    project: str = ""
    tier: str | None = None
    units: int = 0
    allocations: Mapping[str, Mapping[str, int]] = dataclasses.field(
        default_factory=frozen_map
    )
    status: str = "ACTIVE"
    task_state: str | None = None
    locked: bool = False
    known: bool = True
    excluded: bool = False
    opted_out: bool = False
    priority: int = 0
    pinned_zone: str | None = None
    image_properties: Mapping[str, str] = dataclasses.field(
        default_factory=frozen_map
    )
    different_host: frozenset[str] = frozenset()
    same_host: frozenset[str] = frozenset()
    tied: str = ""
    in_doubt: str = ""

    @property
    def sort_key(self) -> tuple[str, str]:
        """Ties break by name, then uuid."""
        return (self.name, self.uuid)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Aggregate:
    """A host aggregate of Nova.

    :param hosts: names of member hosts
    :param uuid: of the Placement aggregate that mirrors it
    """

    uuid: str
    name: str
    hosts: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = dataclasses.field(default_factory=frozen_map)
    zone: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerGroup:
    """A server group with its policy and members.

    :param members: uuids of instances, inside and outside the scope
    :param max_per_host: ``max_server_per_host`` of the rules (default 1)
    """

    uuid: str
    name: str
    policy: str
    members: frozenset[str] = frozenset()
    max_per_host: int = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something an operator should know although nothing moves for it.

    :param kind: a short stable name (``orphan_allocation``, ...)
    :param subject: the object that it is about
    :param text: one sentence: what was seen and what mends it
    """

    kind: str
    subject: str
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """Which hosts Placement itself would let a request go to.

    It carries what capacities do not tell: max_unit, min_unit, step_size.

    :param hosts: uuids of the hosts that it offers, or would offer if there
        were room
    :param refused: uuids of hosts that were asked for in vain
    :param complete: whether a host in neither set is refused too
    """

    hosts: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    complete: bool = False

    def verdict(self, host: str) -> bool | None:
        """Whether a host is offered; None where that is not known."""
        if host in self.hosts:
            return True
        return False if self.complete or host in self.refused else None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SharesRule:
    """What weight a domain has in the kernel, as this cloud's Nova sets it.

    :param unset: of a domain whose flavor sets no shares: 1024 where hosts
        run cgroup v1, 100 where they run v2
    :param multiplied: whether this Nova multiplies the shares of a flavor
        that has ``quota:cpu_shares_multiplier`` by its vCPUs
    """

    unset: int = 100
    multiplied: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one instance used and what it was denied, in one window.

    :param usage_cpus: CPUs that its vCPUs ran on, all vCPUs together
    :param steal_cpus: CPUs that its runnable vCPUs waited for, all together
    """

    usage_cpus: float
    steal_cpus: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What instances used, in consecutive windows of equal length.

    :param source: name of the datasource that told it
    :param windows: when each begins, in seconds since the epoch, oldest
        first
    :param readings: {instance uuid: a reading for each window, None where
        there is none that is fit}; who has none at all is left out
    :param rejected: {why: readings that were there and are not fit}
    """

    source: str
    window_seconds: int
    windows: tuple[int, ...]
    readings: Mapping[str, tuple[Reading | None, ...]] = dataclasses.field(
        default_factory=frozen_map
    )
    rejected: Mapping[str, int] = dataclasses.field(default_factory=frozen_map)

    @property
    def ends_at(self) -> int:
        """When the last window ends, in seconds since the epoch."""
        return self.windows[-1] + self.window_seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that Nova did to an instance in the recent past.

    :param instance: its uuid
    :param kind: Nova's type of a migration (``live-migration``,
        ``migration``, ``resize``, ``evacuation``), or the name of an
        instance action (``reboot``, ``stop``, ...)
    :param began_at: seconds since the epoch
    :param ended_at: the same; None while it goes on
    :param moved: whether the instance is on another host since
    :param source: name of the host that it came from; empty for an action
    :param target: name of the host that it was to go to; likewise
    """

    instance: str
    kind: str
    began_at: int
    ended_at: int | None
    moved: bool = False
    source: str = ""
    target: str = ""

    def order(self) -> tuple[str, int, str, int, str, str]:
        """By instance, then time."""
        ended = -1 if self.ended_at is None else self.ended_at
        return (
            self.instance,
            self.began_at,
            self.kind,
            ended,
            self.source,
            self.target,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """The cloud at one moment.

    :param tiers: by rank, then name
    :param hosts: by name, in and out of scope
    :param instances: by (name, uuid)
    :param held: {(host name, account): units that instances hold there},
        Placement's count less what migrations in flight hold
    :param tier_classes: the tiers' classes that some host has; empty in a
        cloud that enforces without Placement
    :param shares_class: the one class that all tiers draw on in
        single-class mode, in multiples; None with a class per tier
    :param admissions: {request of a flavor: what Placement says to it};
        a request that is not here was not asked for
    :param findings: what was odd while reading
    :param shares_rule: what weights its domains have
    :param telemetry: what instances used; None where it was not read
    :param changes: what happened to instances within the last day or so, by
        instance, then time
    :param taken_at: when it was read, in seconds since the epoch; None where
        nobody looked at the clock
    """

    tiers: tuple[Tier, ...]
    hosts: tuple[Host, ...] = ()
    instances: tuple[Instance, ...] = ()
    held: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=frozen_map
    )
    tier_classes: frozenset[str] = frozenset()
    shares_class: str | None = None
    aggregates: tuple[Aggregate, ...] = ()
    server_groups: tuple[ServerGroup, ...] = ()
    admissions: Mapping[tuple[tuple[str, str], ...], Admission] = (
        dataclasses.field(default_factory=frozen_map)
    )
    findings: tuple[Finding, ...] = ()
    shares_rule: SharesRule = dataclasses.field(default_factory=SharesRule)
    telemetry: Telemetry | None = None
    changes: tuple[Change, ...] = ()
    taken_at: int | None = None

    @functools.cached_property
    def changes_by_instance(self) -> Mapping[str, tuple[Change, ...]]:
        """What happened to each instance, by time."""
        found: dict[str, list[Change]] = {}
        for change in self.changes:
            found.setdefault(change.instance, []).append(change)
        return frozen_map({k: tuple(v) for k, v in found.items()})

    @functools.cached_property
    def accounts(self) -> tuple[str, ...]:
        """What has a quota: each tier, and in single-class mode the class.

        In single-class mode Placement's capacity limits all tiers together;
        a tier of its own is limited by policy alone.
        """
        names = tuple(tier.name for tier in self.tiers)
        return (
            names
            if self.shares_class is None
            else (
                *names,
                self.shares_class,
            )
        )

    def accounts_of(self, instance: Instance) -> tuple[str, ...]:
        """The accounts that an instance's units count against."""
        found = () if instance.tier is None else (instance.tier,)
        if self.shares_class is None or not instance.units:
            return found
        return (*found, self.shares_class)

    @functools.cached_property
    def tier_by_name(self) -> Mapping[str, Tier]:
        """The tiers by their names."""
        return frozen_map({tier.name: tier for tier in self.tiers})

    @functools.cached_property
    def host_by_name(self) -> Mapping[str, Host]:
        """All hosts by their service host names."""
        return frozen_map({host.name: host for host in self.hosts})

    @functools.cached_property
    def instance_by_uuid(self) -> Mapping[str, Instance]:
        """All instances by uuid."""
        return frozen_map({inst.uuid: inst for inst in self.instances})

    @functools.cached_property
    def instances_by_host(self) -> Mapping[str, tuple[Instance, ...]]:
        """Instances of each host, by (name, uuid)."""
        found: dict[str, list[Instance]] = {}
        for instance in self.instances:
            found.setdefault(instance.host, []).append(instance)
        return frozen_map({k: tuple(v) for k, v in found.items()})

    @functools.cached_property
    def group_by_member(self) -> Mapping[str, ServerGroup]:
        """The server group of each instance that is in one."""
        return frozen_map(
            {
                member: group
                for group in self.server_groups
                for member in group.members
            }
        )

    def aggregates_of(self, host: Host) -> tuple[Aggregate, ...]:
        """Nova's aggregates that a host is a member of, by name."""
        return tuple(a for a in self.aggregates if host.name in a.hosts)
