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

"""Values for the tests: small clouds in a few words.

:func:`cluster` makes a cloud whose books are right: what its instances ask
for is allocated on their hosts' providers, and what Placement counts is what
they hold. Every host is, unless a test says otherwise::

    <name> (VCPU 64, MEMORY_MB 65536, DISK_GB 1000,
            CUSTOM_VCPU_GOLD 16, CUSTOM_VCPU_SILVER 16, CUSTOM_VCPU_BRONZE 16)

and every instance asks for its units of VCPU and of its tier's class, 1024
MB and 10 GB.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner

SHARES = {"platinum": 1024, "gold": 512, "silver": 333, "bronze": 167}
MULTIPLIERS = {"platinum": 200.0, "gold": 100.0, "silver": 50.0}
BUILT_IN = ("gold", "silver", "bronze")


def class_of(tier: str) -> str:
    """The resource class of a tier."""
    return f"CUSTOM_VCPU_{tier.upper()}"


def tiers(*names: str) -> tuple[model.Tier, ...]:
    """Tiers in order of their ranks; the built-in ones by default."""
    return tuple(
        model.Tier(
            name=name,
            resource_class=class_of(name),
            cpu_shares=SHARES.get(name, 100),
            multiplier=MULTIPLIERS.get(name, 25.0),
            rank=position,
        )
        for position, name in enumerate(names or BUILT_IN, 1)
    )


BUILT_IN_TIERS = tiers()


def inventories(
    amounts: Mapping[str, int | model.Inventory],
) -> Mapping[str, model.Inventory]:
    """Inventories of whole numbers, or as given."""
    return model.frozen_map(
        {
            name: model.Inventory(total=amount)
            if isinstance(amount, int)
            else amount
            for name, amount in amounts.items()
        }
    )


def provider(
    name: str,
    amounts: Mapping[str, int | model.Inventory] | None = None,
    *,
    root: str | None = None,
    traits: Iterable[str] = (),
    aggregates: Iterable[str] = (),
    allocated: Mapping[str, int] | None = None,
) -> model.Provider:
    """A provider whose uuid is its name; a child of ``root``, if given."""
    return model.Provider(
        uuid=name,
        name=name,
        root_uuid=root or name,
        parent_uuid=root,
        inventories=inventories(amounts or {}),
        traits=frozenset(traits),
        aggregates=frozenset(aggregates),
        allocated=model.frozen_map(allocated),
    )


def host(
    name: str,
    *,
    gold: int | model.Inventory | None = 16,
    silver: int | model.Inventory | None = 16,
    bronze: int | model.Inventory | None = 16,
    vcpus: int = 64,
    memory_mb: int | model.Inventory = 65536,
    disk_gb: int = 1000,
    more: Mapping[str, int | model.Inventory] | None = None,
    traits: Iterable[str] = (),
    children: Iterable[model.Provider] = (),
    allocated: Mapping[str, int] | None = None,
    **fields: Any,
) -> model.Host:
    """A host; None leaves a tier's inventory out.

    :param more: further inventories of the root provider
    :param children: its nested providers
    :param allocated: what others than instances hold on the root
    """
    amounts: dict[str, int | model.Inventory] = {
        "VCPU": vcpus,
        "MEMORY_MB": memory_mb,
        "DISK_GB": disk_gb,
        **(more or {}),
    }
    sold = {"gold": gold, "silver": silver, "bronze": bronze}
    for tier, amount in sold.items():
        if amount is not None:
            amounts[class_of(tier)] = amount
    root = provider(name, amounts, traits=traits, allocated=allocated)
    return model.Host(
        **{
            "uuid": name,
            "name": name,
            "node_name": name,
            "providers": (root, *children),
            "zone": "nova",
            **fields,
        }
    )


def group(
    resources: Mapping[str, int] | None = None,
    *,
    suffix: str = "",
    required: Iterable[str] = (),
    forbidden: Iterable[str] = (),
) -> model.RequestGroup:
    """A request group of a flavor."""
    return model.RequestGroup(
        suffix=suffix,
        resources=model.frozen_map(resources),
        required_traits=frozenset(required),
        forbidden_traits=frozenset(forbidden),
    )


def flavor(
    units: int = 1,
    tier: str | None = "gold",
    *,
    memory_mb: int = 1024,
    disk_gb: int = 10,
    more: Mapping[str, int] | None = None,
    required: Iterable[str] = (),
    forbidden: Iterable[str] = (),
    groups: Iterable[model.RequestGroup] = (),
    extra_specs: Mapping[str, str] | None = None,
) -> model.Flavor:
    """A flavor of so many vCPUs, each of them a unit of its tier.

    :param more: further resources of the unnumbered group
    :param groups: numbered groups
    """
    resources = {"VCPU": units, "MEMORY_MB": memory_mb, "DISK_GB": disk_gb}
    if tier is not None:
        resources[class_of(tier)] = units
    resources.update(more or {})
    return model.Flavor(
        name=f"{tier or 'plain'}.{units}",
        vcpus=units,
        memory_mb=memory_mb,
        disk_gb=disk_gb,
        groups=(
            group(
                {name: n for name, n in resources.items() if n},
                required=required,
                forbidden=forbidden,
            ),
            *groups,
        ),
        extra_specs=model.frozen_map(extra_specs),
    )


_FLAVOR = (
    "memory_mb",
    "disk_gb",
    "more",
    "required",
    "forbidden",
    "groups",
    "extra_specs",
)


def instance(
    name: str,
    on: str,
    units: int = 1,
    tier: str | None = "gold",
    **fields: Any,
) -> model.Instance:
    """An instance whose uuid is its name.

    :param fields: of the instance, or of :func:`flavor`
    """
    own = {key: fields.pop(key) for key in _FLAVOR if key in fields}
    return model.Instance(
        **{
            "uuid": name,
            "name": name,
            "host": on,
            "flavor": flavor(units, tier, **own),
            "tier": tier,
            "units": 0 if tier is None else units,
            **fields,
        }
    )


def instances(
    prefix: str,
    on: str,
    sizes: Iterable[int],
    tier: str = "gold",
    **fields: Any,
) -> list[model.Instance]:
    """One instance of each size: ``<prefix>1``, ``<prefix>2``, ..."""
    return [
        instance(f"{prefix}{number}", on, size, tier, **fields)
        for number, size in enumerate(sizes, 1)
    ]


def aggregate(
    name: str,
    hosts: Iterable[str],
    metadata: Mapping[str, str] | None = None,
) -> model.Aggregate:
    """A host aggregate of Nova."""
    return model.Aggregate(
        uuid=name,
        name=name,
        hosts=frozenset(hosts),
        metadata=model.frozen_map(metadata),
    )


def server_group(
    policy: str, members: Iterable[str], *, name: str = "group", limit: int = 1
) -> model.ServerGroup:
    """A server group."""
    return model.ServerGroup(
        uuid=name,
        name=name,
        policy=policy,
        members=frozenset(members),
        max_per_host=limit,
    )


def cluster(
    hosts: Iterable[model.Host],
    instances: Iterable[model.Instance] = (),
    *,
    tiers: tuple[model.Tier, ...] | None = None,
    held: Mapping[tuple[str, str], int] | None = None,
    **fields: Any,
) -> model.Cluster:
    """A cloud with right books.

    :param held: units per (host, tier) that no instance here holds, such as
        those of an orphan; they are allocated on the root provider too
    """
    known = BUILT_IN_TIERS if tiers is None else tiers
    placed = {
        name
        for one in hosts
        for part in one.providers
        for name in part.inventories
    }
    empty = model.Cluster(
        tiers=known,
        hosts=tuple(hosts),
        held=model.frozen_map(held),
        tier_classes=frozenset(
            tier.resource_class
            for tier in known
            if tier.resource_class in placed
        ),
        **fields,
    )
    for (name, tier), units in (held or {}).items():
        root = empty.host_by_name[name].providers[0].uuid
        resource_class = empty.tier_by_name[tier].resource_class
        empty = _book(empty, {(root, resource_class): units}, +1)
    return moved_in(empty, instances)


def moved_in(
    before: model.Cluster, arrivals: Iterable[model.Instance]
) -> model.Cluster:
    """The cloud after instances have been created on their hosts."""
    after = before
    for one in arrivals:
        taken = _serve(after, one)
        placed = dataclasses.replace(
            one,
            allocations=model.frozen_map(
                {
                    uuid: model.frozen_map(
                        {c: n for (u, c), n in taken.items() if u == uuid}
                    )
                    for uuid, _ in taken
                }
            )
            if one.host in after.host_by_name
            else one.allocations,
        )
        after = _book(after, taken, +1)
        after = _count(after, one, +1)
        after = dataclasses.replace(
            after,
            instances=tuple(
                sorted((*after.instances, placed), key=lambda i: i.sort_key)
            ),
        )
    return after


def applied(
    before: model.Cluster, migrations: Iterable[planner.Migration]
) -> model.Cluster:
    """The cloud after migrations have been completed."""
    moves = {m.instance.uuid: m.target for m in migrations}
    after = before
    arrivals = []
    for uuid, target in moves.items():
        leaving = after.instance_by_uuid[uuid]
        taken = {
            (provider, name): units
            for provider, amounts in leaving.allocations.items()
            for name, units in amounts.items()
        }
        after = _book(after, taken, -1)
        after = _count(after, leaving, -1)
        after = dataclasses.replace(
            after,
            instances=tuple(i for i in after.instances if i.uuid != uuid),
        )
        arrivals.append(dataclasses.replace(leaving, host=target))
    return moved_in(after, arrivals)


def _serve(
    after: model.Cluster, one: model.Instance
) -> dict[tuple[str, str], int]:
    """Each class from the first provider of the host that has it."""
    taken: dict[tuple[str, str], int] = {}
    home = after.host_by_name.get(one.host)
    if home is None:
        return taken
    for part in one.flavor.groups:
        for name, units in part.resources.items():
            for candidate in home.providers + home.shared:
                if name in candidate.inventories:
                    key = (candidate.uuid, name)
                    taken[key] = taken.get(key, 0) + units
                    break
    return taken


def _book(
    before: model.Cluster, taken: Mapping[tuple[str, str], int], sign: int
) -> model.Cluster:
    def booked(part: model.Provider) -> model.Provider:
        amounts = dict(part.allocated)
        for (uuid, name), units in taken.items():
            if uuid == part.uuid:
                amounts[name] = amounts.get(name, 0) + sign * units
        return dataclasses.replace(part, allocated=model.frozen_map(amounts))

    touched = {uuid for uuid, _ in taken}
    return dataclasses.replace(
        before,
        hosts=tuple(
            one
            if touched.isdisjoint(p.uuid for p in one.providers + one.shared)
            else dataclasses.replace(
                one,
                providers=tuple(booked(p) for p in one.providers),
                shared=tuple(booked(p) for p in one.shared),
            )
            for one in before.hosts
        ),
    )


def _count(
    before: model.Cluster, one: model.Instance, sign: int
) -> model.Cluster:
    if one.tier is None or not one.units:
        return before
    held = dict(before.held)
    key = (one.host, one.tier)
    held[key] = held.get(key, 0) + sign * one.units
    return dataclasses.replace(before, held=model.frozen_map(held))


def proposal(
    cloud: model.Cluster,
    name: str,
    target: str,
    **params: Any,
) -> constraints.Proposal:
    """The proposal to move an instance to a host, nothing planned yet."""
    verdict = diagnosing.diagnose(cloud, parameters.Parameters.of(params))
    return constraints.Proposal(
        cluster=cloud,
        diagnosis=verdict,
        occupancy=planner.Books(cloud),
        instance=cloud.instance_by_uuid[name],
        target=cloud.host_by_name[target],
    )


def planned(cloud: model.Cluster, **params: Any) -> planner.Plan:
    """The plan for a cloud, with audit parameters."""
    typed = parameters.Parameters.of(params)
    return planner.plan(cloud, diagnosing.diagnose(cloud, typed), typed)


def moves(plan: planner.Plan) -> list[tuple[str, str, str]]:
    """(instance, source, target) of each migration, in the plan's order."""
    return [(m.instance.name, m.source, m.target) for m in plan.migrations]
