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

"""A scenario to plain data, everything written out but defaults."""

from collections.abc import Hashable, Iterable, Mapping
import dataclasses
import functools
from typing import Any, cast

from watcher_cputier import model
from watcher_cputier.scenario import schema
from watcher_cputier.scenario import values

_Record = values.Document


def dump(scenario: values.Scenario) -> _Record:
    """The scenario as plain data, the same for equal scenarios."""
    cluster = scenario.cluster
    flavors = _flavor_keys(cluster.instances)
    told = {key: flavor for flavor, key in flavors.values()}
    document: _Record = _given(description=scenario.description)
    document |= {
        schema.KEY: schema.VERSION,
        "tiers": [_tier(tier) for tier in cluster.tiers],
        "tier_classes": sorted(cluster.tier_classes),
        **_given(shares_class=cluster.shares_class),
        "hosts": [_host(host) for host in cluster.hosts],
        **_given(sharing_providers=_sharing(cluster)),
        "flavors": {key: _flavor(key, told[key]) for key in sorted(told)},
        "instances": [
            _instance(i, flavors[id(i.flavor)][1]) for i in cluster.instances
        ],
        "held": [
            {"host": host, "account": account, "units": units}
            for (host, account), units in sorted(cluster.held.items())
        ],
        **_given(
            aggregates=[_aggregate(a) for a in cluster.aggregates],
            server_groups=[_server_group(g) for g in cluster.server_groups],
            admissions=[
                _admission(request, admission)
                for request, admission in sorted(
                    cluster.admissions.items(), key=lambda item: item[0]
                )
            ],
            findings=[dataclasses.asdict(f) for f in cluster.findings],
            shares_rule=_differing(
                cluster.shares_rule, ("unset", "multiplied")
            ),
            telemetry=_telemetry(cluster.telemetry),
            changes=[_change(change) for change in cluster.changes],
            taken_at=cluster.taken_at,
            **_elsewhere(cluster),
            parameters=_plain(scenario.parameters),
        ),
    }
    return document


def _given(**fields: Any) -> _Record:
    """The fields that say something."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and value not in ("", [], {})
    }


@functools.cache
def _defaults(kind: Any) -> dict[str, Any]:
    """The defaults of a record's fields."""
    return {f.name: f.default for f in dataclasses.fields(kind)}


def _differing(value: Any, names: Iterable[str]) -> _Record:
    """The named fields of a value that are not at their defaults."""
    defaults = _defaults(cast(Hashable, type(value)))
    return {
        name: getattr(value, name)
        for name in names
        if getattr(value, name) != defaults[name]
    }


def _plain(value: Any) -> Any:
    """Maps in the order of their keys, tuples as lists, 2.0 as 2."""
    if isinstance(value, Mapping):
        return {key: _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _tier(tier: model.Tier) -> _Record:
    return {
        **dataclasses.asdict(tier),
        "multiplier": float(tier.multiplier),
    }


# Hosts


def _host(host: model.Host) -> _Record:
    return {
        "name": host.name,
        **_unlike_name(host.name, uuid=host.uuid, node_name=host.node_name),
        **_differing(
            host,
            (
                "zone",
                "enabled",
                "up",
                "disabled_reason",
                "in_scope",
                "hypervisor_type",
                "hypervisor_version",
                "vcpus",
            ),
        ),
        **_unlike_name(host.zone, failure_domain=host.failure_domain),
        "providers": [_provider(p, host.uuid) for p in host.providers],
        **_given(shared=[p.uuid for p in host.shared]),
    }


def _unlike_name(known: str, /, **fields: str) -> _Record:
    """The fields for which a name, known already, does not stand."""
    return {key: value for key, value in fields.items() if value != known}


def _provider(provider: model.Provider, root: str) -> _Record:
    """A provider; the root is told unless it is the one expected."""
    return {
        "name": provider.name,
        **_unlike_name(provider.name, uuid=provider.uuid),
        **({"root": provider.root_uuid} if provider.root_uuid != root else {}),
        **_given(parent=provider.parent_uuid),
        **_differing(provider, ("generation",)),
        "inventories": {
            name: _inventory(provider.inventories[name])
            for name in sorted(provider.inventories)
        },
        "allocated": _plain(provider.allocated),
        **_given(
            traits=sorted(provider.traits),
            aggregates=sorted(provider.aggregates),
        ),
    }


def _inventory(inventory: model.Inventory) -> int | _Record:
    found = _differing(
        inventory,
        (
            "total", "reserved", "allocation_ratio", "min_unit", "max_unit",
            "step_size",
        ),
    )  # fmt: skip
    if "allocation_ratio" in found:
        found["allocation_ratio"] = float(found["allocation_ratio"])
    if inventory.known_capacity is not None:
        found["capacity"] = inventory.known_capacity
    if found.keys() == {"total"}:
        return inventory.total or 0
    return found


def _sharing(cluster: model.Cluster) -> list[_Record]:
    """Providers that share and are in no host's tree."""
    own = {p.uuid for host in cluster.hosts for p in host.providers}
    found = {
        provider.uuid: provider
        for host in cluster.hosts
        for provider in host.shared
        if provider.uuid not in own
    }
    return [_provider(found[uuid], uuid) for uuid in sorted(found)]


def _elsewhere(cluster: model.Cluster) -> dict[str, list[str]]:
    """What the cluster refers to without describing it."""
    hosts = {instance.host for instance in cluster.instances}
    hosts |= {host for host, _ in cluster.held}
    hosts = hosts.union(*(a.hosts for a in cluster.aggregates))
    providers = {uuid for i in cluster.instances for uuid in i.allocations}
    providers = providers.union(
        *(a.hosts | a.refused for a in cluster.admissions.values())
    )
    known = {
        provider.uuid
        for host in cluster.hosts
        for provider in host.providers + host.shared
    }
    return {
        "other_hosts": sorted(hosts - cluster.host_by_name.keys()),
        "other_providers": sorted(providers - known),
    }


# Instances


def _flavor_keys(
    instances: Iterable[model.Instance],
) -> dict[int, tuple[model.Flavor, str]]:
    """A key for each flavor; one name may stand for several.

    :returns: {id of an instance's flavor: (an equal flavor, key)}
    """
    by_content: dict[str, tuple[model.Flavor, str]] = {}
    by_id: dict[int, tuple[model.Flavor, str]] = {}
    taken: set[str] = set()
    for instance in instances:
        flavor = instance.flavor
        if id(flavor) in by_id:
            continue
        content = repr(_flavor("", flavor))
        if content not in by_content:
            key, number = flavor.name, 1
            while key in taken or not key:
                number += 1
                key = f"{flavor.name or 'flavor'}#{number}"
            taken.add(key)
            by_content[content] = (flavor, key)
        by_id[id(flavor)] = by_content[content]
    return by_id


def _flavor(key: str, flavor: model.Flavor) -> _Record:
    usual = model.Flavor.of(
        name=flavor.name,
        vcpus=flavor.vcpus,
        memory_mb=flavor.memory_mb,
        disk_gb=flavor.disk_gb,
        extra_specs=flavor.extra_specs,
    )
    found = {
        **_unlike_name(key, name=flavor.name),
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.memory_mb,
        "disk_gb": flavor.disk_gb,
        **_given(extra_specs=_plain(flavor.extra_specs)),
    }
    if flavor.groups != usual.groups:
        found["groups"] = {
            group.suffix: _given(
                resources=_plain(group.resources),
                required_traits=sorted(group.required_traits),
                forbidden_traits=sorted(group.forbidden_traits),
            )
            for group in flavor.groups
        }
    return found


_INSTANCE_FIELDS = (
    "project", "status", "task_state", "locked", "known", "excluded",
    "opted_out", "priority", "pinned_zone", "tied", "in_doubt",
)  # fmt: skip


def _instance(instance: model.Instance, flavor: str) -> _Record:
    return {
        "name": instance.name,
        **_unlike_name(instance.name, uuid=instance.uuid),
        "host": instance.host,
        "flavor": flavor,
        "tier": instance.tier,
        "units": instance.units,
        **_given(
            allocations=_plain(instance.allocations),
            image_properties=_plain(instance.image_properties),
            different_host=sorted(instance.different_host),
            same_host=sorted(instance.same_host),
        ),
        **_differing(instance, _INSTANCE_FIELDS),
    }


# What else there is


def _aggregate(aggregate: model.Aggregate) -> _Record:
    return {
        "name": aggregate.name,
        **_unlike_name(aggregate.name, uuid=aggregate.uuid),
        **_given(
            hosts=sorted(aggregate.hosts),
            metadata=_plain(aggregate.metadata),
        ),
        **_differing(aggregate, ("zone",)),
    }


def _server_group(group: model.ServerGroup) -> _Record:
    return {
        "name": group.name,
        **_unlike_name(group.name, uuid=group.uuid),
        "policy": group.policy,
        **_given(members=sorted(group.members)),
        **_differing(group, ("max_per_host",)),
    }


def _admission(
    request: Iterable[tuple[str, str]], admission: model.Admission
) -> _Record:
    return {
        "request": [list(pair) for pair in request],
        **_given(
            hosts=sorted(admission.hosts), refused=sorted(admission.refused)
        ),
        **_differing(admission, ("complete",)),
    }


def _telemetry(telemetry: model.Telemetry | None) -> _Record | None:
    if telemetry is None:
        return None
    return {
        "source": telemetry.source,
        "window_seconds": telemetry.window_seconds,
        "windows": list(telemetry.windows),
        **_given(
            readings={
                uuid: [
                    one and [one.usage_cpus, one.steal_cpus]
                    for one in telemetry.readings[uuid]
                ]
                for uuid in sorted(telemetry.readings)
            },
            rejected=_plain(telemetry.rejected),
        ),
    }


def _change(change: model.Change) -> _Record:
    return {
        "instance": change.instance,
        "kind": change.kind,
        "began_at": change.began_at,
        **({} if change.ended_at is None else {"ended_at": change.ended_at}),
        **_differing(change, ("moved", "source", "target")),
    }
