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

"""Plain data to a scenario: defaults filled in, references followed.

Every reference has to lead somewhere. What a real cloud refers to without
describing it (the host of an instance whose compute service is gone, a
provider that is no compute host) is listed in ``other_hosts`` and
``other_providers``; members of server groups may be anywhere.
"""

from collections.abc import Collection, Iterable, Mapping
import dataclasses
import itertools
import math
from typing import Any

from watcher_cputier import accounting
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.scenario import schema
from watcher_cputier.scenario import values

_Record = values.Document


def load(document: Any) -> values.Scenario:
    """Read a scenario from plain data.

    :raises ScenarioError: with the path of the first offending element
    """
    schema.check(document)
    return values.Scenario(
        cluster=_Loader(document).cluster(),
        parameters=_parameters(document),
        description=document.get("description", ""),
    )


def _parameters(document: _Record) -> Mapping[str, Any]:
    given = document.get("parameters", {})
    try:
        parameters.Parameters.of(given)
    except errors.ParameterError as exc:
        name = exc.where.removeprefix("audit parameter ")
        raise values.ScenarioError(
            exc.what, where=f"parameters.{name}", cure=exc.cure
        ) from exc
    return model.frozen_map(given)


class _Loader:
    """Builds the values; the document has passed the schema."""

    def __init__(self, document: _Record) -> None:
        self.document = document
        shares_class = document.get("shares_class")
        self.tiers = _tiers(document["tiers"], shares_class is not None)
        self.flavors = {
            key: _flavor(key, record)
            for key, record in document.get("flavors", {}).items()
        }
        self.host_names = {record["name"] for record in document["hosts"]}
        self.host_names.update(document.get("other_hosts", ()))
        self.trees = [
            _tree(i, record) for i, record in enumerate(document["hosts"])
        ]
        self.sharing = [
            _provider(record, f"sharing_providers[{i}]")
            for i, record in enumerate(document.get("sharing_providers", ()))
        ]
        self.provider_by_uuid = self._providers()
        self.known_providers = {
            *self.provider_by_uuid,
            *document.get("other_providers", ()),
        }
        present = frozenset(
            name
            for provider in self.provider_by_uuid.values()
            for name in provider.inventories
        )
        self.counting = accounting.choose(
            self.tiers,
            present,
            "shares" if shares_class else "classes",
            shares_class,
        )
        self.tier_classes = self._tier_classes(present)

    def cluster(self) -> model.Cluster:
        instances = tuple(
            sorted(
                (
                    self._instance(f"instances[{i}]", record)
                    for i, record in enumerate(self._records("instances"))
                ),
                key=lambda instance: instance.sort_key,
            )
        )
        self._unique("instances", "uuid", "name")
        self._allocate(instances)
        self._unique("hosts", "uuid", "name")
        hosts = [
            self._host(i, record)
            for i, record in enumerate(self._records("hosts"))
        ]
        return model.Cluster(
            tiers=self.counting.tiers,
            hosts=tuple(sorted(hosts, key=lambda h: (h.name, h.uuid))),
            instances=instances,
            held=model.frozen_map(self._held(instances)),
            tier_classes=self.tier_classes,
            shares_class=self.counting.shares_class,
            aggregates=self._aggregates(),
            server_groups=self._server_groups(),
            admissions=self._admissions(),
            findings=tuple(
                model.Finding(**record) for record in self._records("findings")
            ),
            shares_rule=model.SharesRule(
                **self.document.get("shares_rule", {})
            ),
            telemetry=self._telemetry(instances),
            changes=self._changes(instances),
            taken_at=self.document.get("taken_at"),
        )

    def _records(self, name: str) -> list[_Record]:
        found: list[_Record] = self.document.get(name, [])
        return found

    def _unique(self, name: str, key: str, default: str) -> None:
        """Refuse a list in which something appears twice."""
        seen = set()
        for i, record in enumerate(self._records(name)):
            found = record.get(key, record[default])
            if found in seen:
                told = key if key in record else default
                raise values.ScenarioError(
                    f"{found!r} appears twice", where=f"{name}[{i}].{told}"
                )
            seen.add(found)

    # Providers and hosts

    def _providers(self) -> dict[str, model.Provider]:
        """All providers by uuid, each of them once."""
        found: dict[str, model.Provider] = {}
        told = [
            (f"hosts[{i}].providers", provider)
            for i, tree in enumerate(self.trees)
            for provider in tree
        ]
        told += [("sharing_providers", one) for one in self.sharing]
        for where, provider in told:
            if provider.uuid in found:
                raise values.ScenarioError(
                    f"provider {provider.uuid!r} appears twice", where=where
                )
            found[provider.uuid] = provider
        return found

    def _host(self, index: int, record: _Record) -> model.Host:
        self._check_known(
            f"hosts[{index}].shared",
            record.get("shared", ()),
            "sharing provider",
            self.provider_by_uuid,
            "Describe it under sharing_providers",
        )
        return model.Host(
            **{
                "node_name": record["name"],
                "uuid": record["name"],
                "failure_domain": record.get("zone", ""),
                **_told(model.Host, record),
                "providers": tuple(
                    self.provider_by_uuid[one.uuid]
                    for one in self.trees[index]
                ),
                "shared": tuple(
                    self.provider_by_uuid[uuid]
                    for uuid in record.get("shared", ())
                ),
            }
        )

    def _allocate(self, instances: Iterable[model.Instance]) -> None:
        """Allocate what instances ask for where the document does not say.

        :raises ScenarioError: where several providers could serve it
        """
        silent = self._silent_providers()
        if not silent:
            return
        homes = {
            record["name"]: (i, self.trees[i])
            for i, record in enumerate(self.document["hosts"])
        }
        total: dict[str, dict[str, int]] = {uuid: {} for uuid in silent}
        for instance in instances:
            if instance.host not in homes:
                continue
            index, tree = homes[instance.host]
            for name, amount in instance.flavor.resources.items():
                uuid = self._server(index, tree, name)
                if uuid in total:
                    taken = total[uuid]
                    taken[name] = taken.get(name, 0) + amount
        for uuid, taken in total.items():
            self.provider_by_uuid[uuid] = dataclasses.replace(
                self.provider_by_uuid[uuid],
                allocated=model.frozen_map(taken),
            )

    def _silent_providers(self) -> set[str]:
        """Uuids of providers whose allocated units are not told."""
        silent = {
            provider.uuid
            for tree, record in zip(
                self.trees, self.document["hosts"], strict=True
            )
            if not any(
                "allocated" in one for one in record.get("providers", ())
            )
            for provider in tree
        }
        silent.update(
            provider.uuid
            for provider, record in zip(
                self.sharing, self._records("sharing_providers"), strict=True
            )
            if "allocated" not in record
        )
        return silent

    def _server(
        self, index: int, tree: Iterable[model.Provider], name: str
    ) -> str | None:
        """Uuid of the one provider that serves a class on a host."""
        shared = self.document["hosts"][index].get("shared", ())
        able = [p.uuid for p in tree if name in p.inventories] + [
            uuid
            for uuid in shared
            if uuid in self.provider_by_uuid
            and name in self.provider_by_uuid[uuid].inventories
        ]
        if len(able) > 1:
            raise values.ScenarioError(
                f"{len(able)} providers have {name}, and which of them serve "
                "the instances is not told",
                where=f"hosts[{index}]",
                cure="Say what is allocated on each provider",
            )
        return able[0] if able else None

    # Instances

    def _instance(self, where: str, record: _Record) -> model.Instance:
        self._check_host(f"{where}.host", record["host"])
        if record["flavor"] not in self.flavors:
            raise values.ScenarioError(
                f"no flavor {record['flavor']!r}",
                where=f"{where}.flavor",
                cure="Describe it under flavors",
            )
        allocations = record.get("allocations", {})
        self._check_known(
            f"{where}.allocations",
            allocations,
            "provider",
            self.known_providers,
            "Name it in other_providers if it is no host's",
        )
        flavor = self.flavors[record["flavor"]]
        claim = self._claim(where, record, flavor)
        return model.Instance(
            **{
                "uuid": record["name"],
                **_told(model.Instance, record),
                "flavor": flavor,
                "tier": claim.tier,
                "units": record.get("units", claim.units),
                "allocations": model.frozen_map(
                    {
                        uuid: model.frozen_map(held)
                        for uuid, held in allocations.items()
                    }
                ),
                "image_properties": model.frozen_map(
                    record.get("image_properties")
                ),
                "different_host": frozenset(record.get("different_host", ())),
                "same_host": frozenset(record.get("same_host", ())),
            }
        )

    def _claim(
        self, where: str, record: _Record, flavor: model.Flavor
    ) -> accounting.Claim:
        """Tier and units, by the record, else by the flavor."""
        asked = self.counting.asked(flavor) or self._unplaced(flavor)
        tier = record.get("tier", asked.tier)
        if tier == asked.tier or "units" in record:
            self._check_tier(f"{where}.tier", tier)
            return accounting.Claim(tier, asked.units)
        self._check_tier(f"{where}.tier", tier)
        if tier is None:
            return accounting.Claim(None, 0)
        raise values.ScenarioError(
            "is missing, for its flavor asks for "
            f"{asked.tier or 'no tier'} and it is told to be {tier}",
            where=f"{where}.units",
            cure="Say how many units of the tier it holds",
        )

    def _unplaced(self, flavor: model.Flavor) -> accounting.Claim:
        """Tier and units where Placement counts none (R72, R140)."""
        if self.tier_classes:
            return accounting.Claim(None, 0)
        tier = accounting.by_shares(self.tiers, flavor)
        return accounting.Claim(tier, flavor.vcpus if tier else 0)

    def _check_tier(self, where: str, name: str | None) -> None:
        names = [tier.name for tier in self.tiers]
        if name is not None and name not in names:
            raise values.ScenarioError(
                f"no tier {name!r}",
                where=where,
                cure=f"The tiers are {', '.join(names)}",
            )

    def _check_host(self, where: str, name: str) -> None:
        if name not in self.host_names:
            raise values.ScenarioError(
                f"no host {name!r}",
                where=where,
                cure="Describe it under hosts, or name it in other_hosts",
            )

    def _check_known(
        self,
        where: str,
        uuids: Iterable[str],
        what: str,
        known: Collection[str],
        cure: str,
    ) -> None:
        """Refuse a list, or the keys of a map, that lead nowhere."""
        for i, uuid in enumerate(uuids):
            if uuid not in known:
                part = i if isinstance(uuids, list) else uuid
                raise values.ScenarioError(
                    f"no {what} {uuid!r}",
                    where=f"{where}{schema.step(part)}",
                    cure=cure,
                )

    # What else there is

    def _tier_classes(self, present: frozenset[str]) -> frozenset[str]:
        classes = self.counting.classes
        if "tier_classes" not in self.document:
            return classes & present
        for i, name in enumerate(self.document["tier_classes"]):
            if name not in classes:
                raise values.ScenarioError(
                    f"no tier has the class {name!r}",
                    where=f"tier_classes[{i}]",
                    cure=f"The classes are {', '.join(sorted(classes))}",
                )
        return frozenset(self.document["tier_classes"])

    def _held(
        self, instances: Iterable[model.Instance]
    ) -> dict[tuple[str, str], int]:
        found: dict[tuple[str, str], int] = {}
        shares_class = self.counting.shares_class
        if "held" not in self.document:
            for instance in instances:
                for account in (instance.tier, shares_class):
                    if account is not None and instance.units:
                        key = (instance.host, account)
                        found[key] = found.get(key, 0) + instance.units
            return found
        accounts = [tier.name for tier in self.tiers]
        if shares_class is not None:
            accounts.append(shares_class)
        for i, record in enumerate(self.document["held"]):
            self._check_host(f"held[{i}].host", record["host"])
            key = (record["host"], record["account"])
            if record["account"] not in accounts:
                raise values.ScenarioError(
                    f"no account {record['account']!r}",
                    where=f"held[{i}].account",
                    cure=f"The accounts are {', '.join(accounts)}",
                )
            if key in found:
                raise values.ScenarioError(
                    f"{' of '.join(reversed(key))} appears twice",
                    where=f"held[{i}]",
                )
            found[key] = record["units"]
        return found

    def _aggregates(self) -> tuple[model.Aggregate, ...]:
        self._unique("aggregates", "uuid", "name")
        found = []
        for i, record in enumerate(self._records("aggregates")):
            for j, name in enumerate(record.get("hosts", ())):
                self._check_host(f"aggregates[{i}].hosts[{j}]", name)
            found.append(
                model.Aggregate(
                    **{
                        "uuid": record["name"],
                        **_told(model.Aggregate, record),
                        "hosts": frozenset(record.get("hosts", ())),
                        "metadata": model.frozen_map(record.get("metadata")),
                    }
                )
            )
        return tuple(sorted(found, key=lambda a: (a.name, a.uuid)))

    def _server_groups(self) -> tuple[model.ServerGroup, ...]:
        self._unique("server_groups", "uuid", "name")
        found = [
            model.ServerGroup(
                **{
                    "uuid": record["name"],
                    **_told(model.ServerGroup, record),
                    "members": frozenset(record.get("members", ())),
                }
            )
            for record in self._records("server_groups")
        ]
        return tuple(sorted(found, key=lambda g: (g.name, g.uuid)))

    def _admissions(
        self,
    ) -> Mapping[tuple[tuple[str, str], ...], model.Admission]:
        found: dict[tuple[tuple[str, str], ...], model.Admission] = {}
        for i, record in enumerate(self._records("admissions")):
            request = tuple((key, value) for key, value in record["request"])
            if request in found:
                raise values.ScenarioError(
                    "the request appears twice",
                    where=f"admissions[{i}].request",
                )
            for key in ("hosts", "refused"):
                self._check_known(
                    f"admissions[{i}].{key}",
                    record.get(key, []),
                    "provider",
                    self.known_providers,
                    "Name it in other_providers if it is no host's",
                )
            found[request] = model.Admission(
                hosts=frozenset(record.get("hosts", ())),
                refused=frozenset(record.get("refused", ())),
                complete=record.get("complete", False),
            )
        return model.frozen_map(found)

    def _telemetry(
        self, instances: Iterable[model.Instance]
    ) -> model.Telemetry | None:
        record = self.document.get("telemetry")
        if record is None:
            return None
        length, windows = record["window_seconds"], tuple(record["windows"])
        for i, (one, following) in enumerate(itertools.pairwise(windows)):
            if following != one + length:
                raise values.ScenarioError(
                    f"{following} does not follow {one} by {length} seconds",
                    where=f"telemetry.windows[{i + 1}]",
                    cure="Windows are consecutive, oldest first",
                )
        told = record.get("readings", {})
        self._check_known(
            "telemetry.readings",
            told,
            "instance",
            {one.uuid for one in instances},
            "Describe it under instances",
        )
        return model.Telemetry(
            source=record["source"],
            window_seconds=length,
            windows=windows,
            readings=model.frozen_map(
                {
                    uuid: _readings(
                        f"telemetry.readings{schema.step(uuid)}",
                        pairs,
                        len(windows),
                    )
                    for uuid, pairs in told.items()
                }
            ),
            rejected=model.frozen_map(record.get("rejected")),
        )

    def _changes(
        self, instances: Iterable[model.Instance]
    ) -> tuple[model.Change, ...]:
        known = {one.uuid for one in instances}
        found = []
        for i, record in enumerate(self._records("changes")):
            if record["instance"] not in known:
                raise values.ScenarioError(
                    f"no instance {record['instance']!r}",
                    where=f"changes[{i}].instance",
                    cure="Describe it under instances",
                )
            found.append(model.Change(**{"ended_at": None, **record}))
        return tuple(sorted(found, key=model.Change.order))


# Records


def _readings(
    where: str, pairs: list[list[float] | None], windows: int
) -> tuple[model.Reading | None, ...]:
    """The readings of one instance, one per window."""
    if len(pairs) != windows:
        raise values.ScenarioError(
            f"has {len(pairs)} readings for {windows} windows",
            where=where,
            cure="Write null for a window without one",
        )
    for i, pair in enumerate(pairs):
        if pair is not None and not all(map(math.isfinite, pair)):
            raise values.ScenarioError(
                f"{pair!r} is no pair of numbers of CPUs",
                where=f"{where}[{i}]",
                cure="Write null for a window without a reading",
            )
    found: list[model.Reading | None] = []
    for pair in pairs:
        if pair is None:
            found.append(None)
        else:
            usage, steal = map(float, pair)
            found.append(model.Reading(usage_cpus=usage, steal_cpus=steal))
    return tuple(found)


def _told(kind: type, record: _Record) -> dict[str, Any]:
    """The fields of a value that its record tells as they are."""
    names = {field.name for field in dataclasses.fields(kind)}
    return {key: value for key, value in record.items() if key in names}


def _uuid(record: _Record) -> str:
    """The uuid of a record; its name stands for it."""
    told: str = record["uuid"] if "uuid" in record else record["name"]
    return told


def _tiers(records: list[_Record], one_class: bool) -> tuple[model.Tier, ...]:
    """The tiers by rank.

    :param one_class: whether all of them may have the same class
    """
    if not records:
        raise values.ScenarioError("no tier is described", where="tiers")
    found = [_tier(i, record) for i, record in enumerate(records)]
    for key in ("name",) if one_class else ("name", "resource_class"):
        told = [getattr(tier, key) for tier in found]
        for i, value in enumerate(told):
            if value in told[:i]:
                raise values.ScenarioError(
                    f"{value!r} appears twice", where=f"tiers[{i}].{key}"
                )
    return tuple(sorted(found, key=lambda tier: (tier.rank, tier.name)))


def _tier(index: int, record: _Record) -> model.Tier:
    name = record["name"]
    shares, multiplier = model.BUILT_IN_TIERS.get(name, (None, None))
    shares = record.get("cpu_shares", shares)
    if shares is None:
        raise values.ScenarioError(
            f"is missing, and {name!r} is no built-in tier",
            where=f"tiers[{index}].cpu_shares",
            cure="Say the CPU shares of one vCPU of the tier",
        )
    return model.Tier(
        name=name,
        resource_class=record.get("resource_class", model.default_class(name)),
        cpu_shares=shares,
        multiplier=float(
            record.get("multiplier")
            or multiplier
            or model.default_multiplier(shares)
        ),
        rank=record.get("rank", index + 1),
    )


def _tree(index: int, record: _Record) -> tuple[model.Provider, ...]:
    """The provider tree of a host, root first."""
    where = f"hosts[{index}]"
    uuid = _uuid(record)
    if "providers" not in record:
        root: _Record = {
            "name": record["name"],
            "uuid": uuid,
            **{k: record[k] for k in ("inventories", "traits") if k in record},
        }
        return (_provider(root, where),)
    for key in ("inventories", "traits"):
        if key in record:
            raise values.ScenarioError(
                "a host has either providers, or inventories and traits of "
                "its only one",
                where=f"{where}.{key}",
            )
    where += ".providers"
    found = [
        _provider(one, f"{where}[{i}]", root=uuid)
        for i, one in enumerate(record["providers"])
    ]
    _check_tree(where, uuid, found)
    return tuple(sorted(found, key=lambda p: (p.uuid != uuid, p.name, p.uuid)))


def _check_tree(where: str, root: str, found: list[model.Provider]) -> None:
    """Refuse providers that make no tree under the host's root."""
    by_uuid = {provider.uuid: provider for provider in found}
    if found and root not in by_uuid:
        raise values.ScenarioError(
            f"none of them is the root, {root!r}",
            where=where,
            cure="A host has the uuid of its root provider",
        )
    for i, provider in enumerate(found):
        if provider.root_uuid != root:
            raise values.ScenarioError(
                f"{provider.root_uuid!r} is not the root of the host, "
                f"{root!r}",
                where=f"{where}[{i}].root",
            )
        _check_ancestors(f"{where}[{i}].parent", provider, by_uuid)


def _check_ancestors(
    where: str,
    provider: model.Provider,
    by_uuid: Mapping[str, model.Provider],
) -> None:
    if provider.uuid == provider.root_uuid and provider.parent_uuid:
        raise values.ScenarioError("the root has no parent", where=where)
    seen = {provider.uuid}
    while provider.parent_uuid is not None:
        if provider.parent_uuid not in by_uuid:
            raise values.ScenarioError(
                f"no provider {provider.parent_uuid!r} in the host's tree",
                where=where,
            )
        if provider.parent_uuid in seen:
            raise values.ScenarioError(
                f"{provider.parent_uuid!r} descends from it", where=where
            )
        seen.add(provider.parent_uuid)
        provider = by_uuid[provider.parent_uuid]


def _provider(
    record: _Record, where: str, root: str | None = None
) -> model.Provider:
    uuid = _uuid(record)
    return model.Provider(
        uuid=uuid,
        name=record["name"],
        root_uuid=record.get("root", root or uuid),
        parent_uuid=record.get("parent"),
        generation=record.get("generation", 0),
        inventories=model.frozen_map(
            {
                name: _inventory(f"{where}.inventories.{name}", told)
                for name, told in record.get("inventories", {}).items()
            }
        ),
        allocated=model.frozen_map(record.get("allocated")),
        traits=frozenset(record.get("traits", ())),
        aggregates=frozenset(record.get("aggregates", ())),
    )


def _inventory(where: str, told: int | _Record) -> model.Inventory:
    if isinstance(told, int):
        return model.Inventory(total=told)
    if "total" not in told and "capacity" not in told:
        raise values.ScenarioError(
            "is missing", where=f"{where}.total", cure="Units there are"
        )
    fields = dict(told)
    if "allocation_ratio" in fields:
        fields["allocation_ratio"] = float(fields["allocation_ratio"])
    return model.Inventory(
        known_capacity=fields.pop("capacity", None), **fields
    )


def _flavor(key: str, record: _Record) -> model.Flavor:
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
                resources=model.frozen_map(group.get("resources")),
                required_traits=frozenset(group.get("required_traits", ())),
                forbidden_traits=frozenset(group.get("forbidden_traits", ())),
            )
            for suffix, group in sorted(record["groups"].items())
        ),
    )
