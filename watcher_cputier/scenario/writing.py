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

"""Scenarios: a cluster and an audit's parameters as plain text.

A scenario is what a bug report, a golden test or a dry run without a cloud
needs: ``load(dump(scenario)) == scenario`` (law L9), and a plan made of the
loaded one is the same plan. Files are YAML or JSON, carry their own tiers
and a format version, and are checked against :data:`SCHEMA`.

What a dump writes out can be left out by hand:

* a host's ``providers``: ``inventories`` and ``traits`` of a single root
  provider will do, an inventory may be just its total;
* ``allocated`` of the providers and ``held``: computed from the instances,
  provided that all tiers' requests are served by the root;
* a flavor's ``groups``: made from vCPUs, memory, disk and extra specs as
  Nova's scheduler does;
* an instance's ``tier`` and ``units``: told from its flavor;
* uuids: the name stands for them.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

import jsonschema
import yaml

from watcher_cputier import accounting
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters

VERSION = 1
_KEY = "watcher_cputier_scenario"

Document = dict[str, Any]


class ScenarioError(errors.TierError):
    """A file that is no valid scenario; ``where`` is the element's path."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster and the parameters of an audit, as they were given."""

    cluster: model.Cluster
    parameters: Mapping[str, Any] = dataclasses.field(
        default_factory=model.frozen_map
    )


# The schema


def _object(
    required: Iterable[str] = (), **properties: Any
) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": sorted(required),
        "additionalProperties": False,
    }


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _map(to: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": to}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NAME = {"type": "string", "minLength": 1}
_COUNT = {"type": "integer", "minimum": 0}
_FLAG = {"type": "boolean"}
_NAMES = _list(_NAME)
_AMOUNTS = _map(_COUNT)
_INVENTORY = {
    "anyOf": [
        _COUNT,
        _object(
            ["total"],
            total=_COUNT,
            reserved=_COUNT,
            allocation_ratio={"type": "number", "minimum": 0},
            min_unit=_COUNT,
            max_unit=_COUNT,
            step_size={"type": "integer", "minimum": 1},
        ),
        _object(["capacity"], capacity=_COUNT),
    ]
}
_PROVIDER = _object(
    ["name"],
    name=_NAME,
    uuid=_NAME,
    root=_NAME,
    parent=_NAME,
    generation=_COUNT,
    inventories=_map(_INVENTORY),
    allocated=_AMOUNTS,
    traits=_NAMES,
    aggregates=_NAMES,
)
_GROUP = _object(
    resources=_AMOUNTS, required_traits=_NAMES, forbidden_traits=_NAMES
)

SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-07/schema#",
    "title": "watcher-cputier scenario",
    **_object(
        [_KEY, "tiers", "hosts"],
        **{
            _KEY: {"enum": [VERSION]},
            "description": _TEXT,
            "tiers": _list(
                _object(
                    ["name"],
                    name={"type": "string", "pattern": parameters.TIER_NAME},
                    resource_class=_NAME,
                    cpu_shares={"type": "integer", "minimum": 1},
                    multiplier={"type": "number", "minimum": 0},
                    rank={"type": "integer", "minimum": 1},
                )
            ),
            "tier_classes": _NAMES,
            "shares_class": _NAME,
            "hosts": _list(
                _object(
                    ["name"],
                    name=_NAME,
                    uuid=_NAME,
                    node_name=_NAME,
                    zone=_TEXT,
                    enabled=_FLAG,
                    up=_FLAG,
                    disabled_reason=_TEXT,
                    in_scope=_FLAG,
                    providers=_list(_PROVIDER),
                    inventories=_map(_INVENTORY),
                    traits=_NAMES,
                    shared=_NAMES,
                )
            ),
            "sharing_providers": _list(_PROVIDER),
            "flavors": _map(
                _object(
                    ["vcpus"],
                    name=_TEXT,
                    vcpus=_COUNT,
                    memory_mb=_COUNT,
                    disk_gb=_COUNT,
                    extra_specs=_map(_TEXT),
                    groups=_map(_GROUP),
                )
            ),
            "instances": _list(
                _object(
                    ["name", "host", "flavor"],
                    name=_NAME,
                    uuid=_NAME,
                    host=_NAME,
                    flavor=_NAME,
                    project=_TEXT,
                    tier=_TEXT_OR_NULL,
                    units=_COUNT,
                    allocations=_map(_AMOUNTS),
                    status=_NAME,
                    task_state=_TEXT_OR_NULL,
                    locked=_FLAG,
                    known=_FLAG,
                    excluded=_FLAG,
                    opted_out=_FLAG,
                    priority={"type": "integer"},
                    pinned_zone=_TEXT_OR_NULL,
                    in_doubt=_TEXT,
                )
            ),
            "held": _list(
                _object(
                    ["host", "account", "units"],
                    host=_NAME,
                    account=_NAME,
                    units=_COUNT,
                )
            ),
            "aggregates": _list(
                _object(
                    ["name"],
                    name=_NAME,
                    uuid=_NAME,
                    hosts=_NAMES,
                    metadata=_map(_TEXT),
                    zone=_TEXT_OR_NULL,
                )
            ),
            "server_groups": _list(
                _object(
                    ["name", "policy"],
                    name=_NAME,
                    uuid=_NAME,
                    policy=_NAME,
                    members=_NAMES,
                    max_per_host={"type": "integer", "minimum": 1},
                )
            ),
            "admissions": _list(
                _object(
                    ["request"],
                    request=_list(
                        {
                            "type": "array",
                            "items": _TEXT,
                            "minItems": 2,
                            "maxItems": 2,
                        }
                    ),
                    hosts=_NAMES,
                    refused=_NAMES,
                    complete=_FLAG,
                )
            ),
            "findings": _list(
                _object(
                    ["kind", "subject", "text"],
                    kind=_NAME,
                    subject=_TEXT,
                    text=_TEXT,
                )
            ),
            "parameters": {"type": "object"},
        },
    ),
}


# Reading


def loads(text: str) -> Scenario:
    """Read a scenario from YAML or JSON text.

    :raises ScenarioError: with the path of the first offending element
    """
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as exc:
        raise ScenarioError(
            " ".join(str(exc).split()),
            where="scenario",
            cure="It has to be YAML or JSON",
        ) from exc
    return load(document)


def load(document: Any) -> Scenario:
    """Read a scenario from plain data.

    :raises ScenarioError: with the path of the first offending element
    """
    if isinstance(document, dict) and document.get(_KEY, VERSION) != VERSION:
        raise ScenarioError(
            f"format {document[_KEY]!r} is unknown",
            where=_KEY,
            cure=f"This release reads format {VERSION}",
        )
    validator = jsonschema.Draft7Validator(SCHEMA)
    found = sorted(
        validator.iter_errors(document),
        key=lambda e: [str(part) for part in e.absolute_path],
    )
    for error in found:
        best = jsonschema.exceptions.best_match([error]) or error
        raise ScenarioError(best.message, where=_path(best.absolute_path))
    return _Loader(document).scenario()


def _path(parts: Iterable[Any]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "scenario"


class _Loader:
    """Builds the values; the document has passed the schema."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.tiers = tuple(
            sorted(
                (
                    _tier(record, position)
                    for position, record in enumerate(document["tiers"], 1)
                ),
                key=lambda tier: (tier.rank, tier.name),
            )
        )
        self.flavors = {
            key: _flavor(key, record)
            for key, record in document.get("flavors", {}).items()
        }
        self.sharing = {
            p.uuid: p
            for p in (
                _provider(record)
                for record in document.get("sharing_providers", [])
            )
        }

    def scenario(self) -> Scenario:
        document = self.document
        hosts = tuple(
            self._host(i, record) for i, record in enumerate(document["hosts"])
        )
        self._unique("hosts", [host.name for host in hosts])
        present = frozenset(
            name
            for host in hosts
            for provider in host.providers
            for name in provider.inventories
        )
        shares_class = document.get("shares_class")
        counting = accounting.choose(
            self.tiers,
            present,
            "shares" if shares_class else "classes",
            shares_class,
        )
        names = {host.name for host in hosts}
        instances = tuple(
            sorted(
                (
                    self._instance(i, record, names, counting)
                    for i, record in enumerate(document.get("instances", []))
                ),
                key=lambda instance: instance.sort_key,
            )
        )
        self._unique("instances", [i.uuid for i in instances])
        if not self._tells_allocations():
            hosts = tuple(_with_allocations(h, instances) for h in hosts)
        cluster = model.Cluster(
            tiers=counting.tiers,
            hosts=tuple(sorted(hosts, key=lambda h: (h.name, h.uuid))),
            instances=instances,
            held=model.frozen_map(self._held(hosts, instances, counting)),
            tier_classes=(
                frozenset(document["tier_classes"])
                if "tier_classes" in document
                else counting.classes & present
            ),
            shares_class=shares_class,
            aggregates=self._aggregates(names),
            server_groups=self._server_groups(),
            admissions=model.frozen_map(
                {
                    tuple((k, v) for k, v in record["request"]): (
                        model.Admission(
                            hosts=frozenset(record.get("hosts", ())),
                            refused=frozenset(record.get("refused", ())),
                            complete=record.get("complete", True),
                        )
                    )
                    for record in document.get("admissions", [])
                }
            ),
            findings=tuple(
                model.Finding(**record)
                for record in document.get("findings", [])
            ),
        )
        given = document.get("parameters", {})
        parameters.Parameters.of(given)
        return Scenario(cluster=cluster, parameters=model.frozen_map(given))

    def _host(self, index: int, record: Document) -> model.Host:
        where = f"hosts[{index}]"
        name = record["name"]
        uuid = record.get("uuid", name)
        if "providers" in record:
            for key in ("inventories", "traits"):
                if key in record:
                    raise ScenarioError(
                        "a host has either providers or inventories and "
                        "traits of its own",
                        where=f"{where}.{key}",
                    )
            told = record["providers"]
        else:
            told = [
                {
                    "name": name,
                    "uuid": uuid,
                    "inventories": record.get("inventories", {}),
                    "traits": record.get("traits", []),
                }
            ]
        providers = [_provider(one, root=uuid) for one in told]
        for i, uuid_shared in enumerate(record.get("shared", [])):
            if uuid_shared not in self.sharing:
                raise ScenarioError(
                    f"no sharing provider {uuid_shared!r}",
                    where=f"{where}.shared[{i}]",
                )
        return model.Host(
            uuid=uuid,
            name=name,
            node_name=record.get("node_name", name),
            providers=tuple(
                sorted(
                    providers,
                    key=lambda p: (p.uuid != p.root_uuid, p.name, p.uuid),
                )
            ),
            shared=tuple(self.sharing[u] for u in record.get("shared", [])),
            enabled=record.get("enabled", True),
            up=record.get("up", True),
            disabled_reason=record.get("disabled_reason", ""),
            zone=record.get("zone", ""),
            in_scope=record.get("in_scope", True),
        )

    def _instance(
        self,
        index: int,
        record: Document,
        hosts: set[str],
        counting: accounting.Accounting,
    ) -> model.Instance:
        where = f"instances[{index}]"
        if record["host"] not in hosts:
            raise ScenarioError(
                f"no host {record['host']!r}", where=f"{where}.host"
            )
        if record["flavor"] not in self.flavors:
            raise ScenarioError(
                f"no flavor {record['flavor']!r}", where=f"{where}.flavor"
            )
        flavor = self.flavors[record["flavor"]]
        claim = counting.asked(flavor) or accounting.Claim(None, 0)
        tier = record.get("tier", claim.tier)
        if tier is not None and tier not in {t.name for t in self.tiers}:
            raise ScenarioError(f"no tier {tier!r}", where=f"{where}.tier")
        rest = {
            key: record[key]
            for key in (
                "project", "status", "task_state", "locked", "known",
                "excluded", "opted_out", "priority", "pinned_zone",
                "in_doubt",
            )  # fmt: skip
            if key in record
        }
        return model.Instance(
            uuid=record.get("uuid", record["name"]),
            name=record["name"],
            host=record["host"],
            flavor=flavor,
            tier=tier,
            units=record.get("units", claim.units),
            allocations=model.frozen_map(
                {
                    provider: model.frozen_map(held)
                    for provider, held in record.get("allocations", {}).items()
                }
            ),
            **rest,
        )

    def _tells_allocations(self) -> bool:
        return any(
            "allocated" in provider
            for host in self.document["hosts"]
            for provider in host.get("providers", [])
        )

    def _held(
        self,
        hosts: Iterable[model.Host],
        instances: Iterable[model.Instance],
        counting: accounting.Accounting,
    ) -> dict[tuple[str, str], int]:
        names = {host.name for host in hosts}
        accounts = {tier.name for tier in self.tiers}
        if counting.shares_class is not None:
            accounts.add(counting.shares_class)
        found: dict[tuple[str, str], int] = {}
        if "held" in self.document:
            for i, record in enumerate(self.document["held"]):
                for key, known in (("host", names), ("account", accounts)):
                    if record[key] not in known:
                        raise ScenarioError(
                            f"no {key} {record[key]!r}",
                            where=f"held[{i}].{key}",
                        )
                found[record["host"], record["account"]] = record["units"]
            return found
        for instance in instances:
            for account in (instance.tier, counting.shares_class):
                if account is not None and instance.units:
                    key = (instance.host, account)
                    found[key] = found.get(key, 0) + instance.units
        return found

    def _aggregates(self, hosts: set[str]) -> tuple[model.Aggregate, ...]:
        found = []
        for i, record in enumerate(self.document.get("aggregates", [])):
            for j, name in enumerate(record.get("hosts", [])):
                if name not in hosts:
                    raise ScenarioError(
                        f"no host {name!r}", where=f"aggregates[{i}].hosts[{j}]"
                    )
            found.append(
                model.Aggregate(
                    uuid=record.get("uuid", record["name"]),
                    name=record["name"],
                    hosts=frozenset(record.get("hosts", ())),
                    metadata=model.frozen_map(record.get("metadata", {})),
                    zone=record.get("zone"),
                )
            )
        return tuple(sorted(found, key=lambda a: (a.name, a.uuid)))

    def _server_groups(self) -> tuple[model.ServerGroup, ...]:
        found = [
            model.ServerGroup(
                uuid=record.get("uuid", record["name"]),
                name=record["name"],
                policy=record["policy"],
                members=frozenset(record.get("members", ())),
                max_per_host=record.get("max_per_host", 1),
            )
            for record in self.document.get("server_groups", [])
        ]
        return tuple(sorted(found, key=lambda g: (g.name, g.uuid)))

    @staticmethod
    def _unique(where: str, names: list[str]) -> None:
        for name in sorted({n for n in names if names.count(n) > 1}):
            raise ScenarioError(f"{name!r} appears twice", where=where)


def _tier(record: Document, position: int) -> model.Tier:
    name = record["name"]
    shares, multiplier = model.BUILT_IN_TIERS.get(name, (None, None))
    shares = record.get("cpu_shares", shares)
    if shares is None:
        raise ScenarioError(
            f"tier {name!r} has no cpu_shares",
            where=f"tiers[{position - 1}].cpu_shares",
        )
    return model.Tier(
        name=name,
        resource_class=record.get(
            "resource_class", model.default_class(name)
        ),
        cpu_shares=shares,
        multiplier=record.get("multiplier", multiplier or 1.0),
        rank=record.get("rank", position),
    )


def _provider(record: Document, root: str | None = None) -> model.Provider:
    uuid = record.get("uuid", record["name"])
    return model.Provider(
        uuid=uuid,
        name=record["name"],
        root_uuid=record.get("root", root or uuid),
        parent_uuid=record.get("parent"),
        generation=record.get("generation", 0),
        inventories=model.frozen_map(
            {
                name: _inventory(told)
                for name, told in record.get("inventories", {}).items()
            }
        ),
        allocated=model.frozen_map(record.get("allocated", {})),
        traits=frozenset(record.get("traits", ())),
        aggregates=frozenset(record.get("aggregates", ())),
    )


def _inventory(told: int | Document) -> model.Inventory:
    if isinstance(told, int):
        return model.Inventory(total=told)
    if "capacity" in told:
        return model.Inventory(known_capacity=told["capacity"])
    return model.Inventory(**told)


def _flavor(key: str, record: Document) -> model.Flavor:
    made = model.Flavor.of(
        name=record.get("name", key),
        vcpus=record["vcpus"],
        memory_mb=record.get("memory_mb", 0),
        disk_gb=record.get("disk_gb", 0),
        extra_specs=record.get("extra_specs", {}),
    )
    if "groups" not in record:
        return made
    return dataclasses.replace(
        made,
        groups=tuple(
            model.RequestGroup(
                suffix=suffix,
                resources=model.frozen_map(group.get("resources", {})),
                required_traits=frozenset(group.get("required_traits", ())),
                forbidden_traits=frozenset(group.get("forbidden_traits", ())),
            )
            for suffix, group in sorted(record["groups"].items())
        ),
    )


def _with_allocations(
    host: model.Host, instances: Iterable[model.Instance]
) -> model.Host:
    """The host with what its instances request allocated on its root."""
    if not host.providers:
        return host
    root, rest = host.providers[0], host.providers[1:]
    total: dict[str, int] = {}
    for instance in instances:
        if instance.host != host.name:
            continue
        for name, amount in instance.flavor.resources.items():
            if name in root.inventories:
                total[name] = total.get(name, 0) + amount
    root = dataclasses.replace(root, allocated=model.frozen_map(total))
    return dataclasses.replace(host, providers=(root, *rest))


# Writing


def dumps(scenario: Scenario) -> str:
    """The scenario as YAML text, the same for equal scenarios."""
    text: str = yaml.safe_dump(
        dump(scenario), sort_keys=False, default_flow_style=None, width=79
    )
    return text


def dump(scenario: Scenario) -> Document:
    """The scenario as plain data, everything written out but defaults."""
    cluster = scenario.cluster
    flavors = _flavor_keys(cluster.instances)
    sharing = {p.uuid: p for host in cluster.hosts for p in host.shared}
    document: Document = {
        _KEY: VERSION,
        "tiers": [dataclasses.asdict(tier) for tier in cluster.tiers],
        "tier_classes": sorted(cluster.tier_classes),
        "hosts": [_dump_host(host) for host in cluster.hosts],
        "flavors": {
            key: _dump_flavor(flavor) for flavor, key in flavors.values()
        },
        "instances": [
            _dump_instance(i, flavors[id(i.flavor)][1])
            for i in cluster.instances
        ],
        "held": [
            {"host": host, "account": account, "units": units}
            for (host, account), units in sorted(cluster.held.items())
        ],
    }
    document |= _given(
        shares_class=cluster.shares_class,
        sharing_providers=[
            _dump_provider(sharing[uuid]) for uuid in sorted(sharing)
        ],
        aggregates=[_dump_aggregate(a) for a in cluster.aggregates],
        server_groups=[_dump_group(g) for g in cluster.server_groups],
        admissions=[
            {
                "request": [list(pair) for pair in request],
                "hosts": sorted(admission.hosts),
                "refused": sorted(admission.refused),
                "complete": admission.complete,
            }
            for request, admission in sorted(cluster.admissions.items())
        ],
        findings=[dataclasses.asdict(f) for f in cluster.findings],
        parameters=_plain(scenario.parameters),
    )
    return document


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _given(**fields: Any) -> Document:
    """The fields that say something."""
    return {
        key: value
        for key, value in fields.items()
        if value not in (None, "", [], {}, ())
    }


def _differing(value: Any, names: Iterable[str]) -> Document:
    """The named fields of a record that are not at their defaults."""
    defaults = {f.name: f.default for f in dataclasses.fields(value)}
    return {
        name: getattr(value, name)
        for name in names
        if getattr(value, name) != defaults[name]
    }


def _dump_host(host: model.Host) -> Document:
    return {
        "name": host.name,
        "uuid": host.uuid,
        **({"node_name": host.node_name} if host.node_name != host.name else {}),
        **_differing(
            host, ("zone", "enabled", "up", "disabled_reason", "in_scope")
        ),
        "providers": [_dump_provider(p) for p in host.providers],
        **_given(shared=[p.uuid for p in host.shared]),
    }


def _dump_provider(provider: model.Provider) -> Document:
    return {
        "name": provider.name,
        "uuid": provider.uuid,
        "root": provider.root_uuid,
        **_given(parent=provider.parent_uuid, generation=provider.generation),
        "inventories": {
            name: (
                _differing(
                    inventory,
                    (
                        "total", "reserved", "allocation_ratio", "min_unit",
                        "max_unit", "step_size",
                    ),
                )
                if inventory.detailed
                else {"capacity": inventory.capacity}
            )
            for name, inventory in provider.inventories.items()
        },
        "allocated": dict(provider.allocated),
        **_given(
            traits=sorted(provider.traits),
            aggregates=sorted(provider.aggregates),
        ),
    }  # fmt: skip


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
        content = repr(_dump_flavor(flavor))
        if content not in by_content:
            key, number = flavor.name or "flavor", 1
            while key in taken:
                number += 1
                key = f"{flavor.name or 'flavor'}#{number}"
            taken.add(key)
            by_content[content] = (flavor, key)
        by_id[id(flavor)] = by_content[content]
    return by_id


def _dump_flavor(flavor: model.Flavor) -> Document:
    return {
        "name": flavor.name,
        "vcpus": flavor.vcpus,
        "memory_mb": flavor.memory_mb,
        "disk_gb": flavor.disk_gb,
        **_given(extra_specs=dict(flavor.extra_specs)),
        "groups": {
            group.suffix: _given(
                resources=dict(group.resources),
                required_traits=sorted(group.required_traits),
                forbidden_traits=sorted(group.forbidden_traits),
            )
            for group in flavor.groups
        },
    }


def _dump_instance(instance: model.Instance, flavor: str) -> Document:
    return {
        "name": instance.name,
        "uuid": instance.uuid,
        "host": instance.host,
        "flavor": flavor,
        "tier": instance.tier,
        "units": instance.units,
        **_given(allocations=_plain(instance.allocations)),
        **_differing(
            instance,
            (
                "project", "status", "task_state", "locked", "known",
                "excluded", "opted_out", "priority", "pinned_zone",
                "in_doubt",
            ),
        ),
    }  # fmt: skip


def _dump_aggregate(aggregate: model.Aggregate) -> Document:
    return {
        "name": aggregate.name,
        "uuid": aggregate.uuid,
        **_given(
            hosts=sorted(aggregate.hosts),
            metadata=dict(aggregate.metadata),
            zone=aggregate.zone,
        ),
    }


def _dump_group(group: model.ServerGroup) -> Document:
    return {
        "name": group.name,
        "uuid": group.uuid,
        "policy": group.policy,
        "members": sorted(group.members),
        "max_per_host": group.max_per_host,
    }
