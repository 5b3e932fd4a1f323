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

"""Scenarios without names: what an operator may show to strangers.

Names, uuids, projects, zones and texts are replaced, one and the same thing
by one and the same pseudonym wherever it appears. Pseudonyms sort as the
names did: ties break by name, so that the plan stays the same up to
renaming. What the decision reads stays: resource classes, tiers, traits,
the keys of extra specs and metadata, and the values that Nova and Placement
act on.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import re
from typing import Any

from watcher_cputier import model
from watcher_cputier.scenario import values

# Keys of extra specs and image properties whose values decide something.
_DECIDING = re.compile("resources|trait|group_policy$|quota:|hw[:_]|cputier:")
_ASKED = "aggregate_instance_extra_specs:"
_PROJECTS = "filter_tenant_id"
_ZONE = "availability_zone"
# A value that Nova's matcher compares as it is, not as an expression.
_BARE = re.compile(r"[A-Za-z0-9_.:-]+")


def pseudonymised(scenario: values.Scenario) -> values.Scenario:
    """The scenario with pseudonyms in place of names; no description."""
    return _Pseudonyms(scenario).scenario()


class _Names:
    """Pseudonyms of one kind of name, in the order of the names."""

    def __init__(self, form: str, names: Iterable[str]) -> None:
        ordered = sorted({name for name in names if name})
        width = max(4, len(str(len(ordered))))
        self._found = {
            name: form.format(f"{number:0{width}}", number)
            for number, name in enumerate(ordered, 1)
        }

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def __getitem__(self, name: str) -> str:
        """The pseudonym; empty for no name."""
        return self._found[name] if name else name

    def maybe(self, name: str | None) -> str | None:
        """The pseudonym; None stays."""
        return None if name is None else self[name]

    def all(self, names: Iterable[str]) -> frozenset[str]:
        """The pseudonyms of several names."""
        return frozenset(self[name] for name in names)


def _words(form: str, names: Iterable[str]) -> _Names:
    return _Names(form + "-{0}", names)


def _uuids(kind: int, names: Iterable[str]) -> _Names:
    return _Names(f"{kind:08x}-0000-0000-0000-{{1:012x}}", names)


class _Pseudonyms:
    """All pseudonyms of one scenario."""

    def __init__(self, scenario: values.Scenario) -> None:
        self.given = scenario
        self.cluster = scenario.cluster
        cluster = scenario.cluster
        self.hosts = _words("host", self._host_names())
        self.providers = _words("provider", self._provider_names())
        self.provider_uuids = _uuids(1, self._provider_uuids())
        self.instances = _words(
            "instance", (i.name for i in cluster.instances)
        )
        self.instance_uuids = _uuids(2, self._instance_uuids())
        self.flavors = _words(
            "flavor", (i.flavor.name for i in cluster.instances)
        )
        self.aggregates = _words(
            "aggregate", (a.name for a in cluster.aggregates)
        )
        self.aggregate_uuids = _uuids(3, self._aggregate_uuids())
        self.groups = _words("group", (g.name for g in cluster.server_groups))
        self.group_uuids = _uuids(4, (g.uuid for g in cluster.server_groups))
        self.projects = _words("project", self._projects())
        self.zones = _words("zone", self._zones())
        self.texts = _words("text", self._texts())
        self.literal = self._literal_keys()
        self.values = _words("value", self._values())
        self.subjects = _words("subject", self._subjects())

    # What has a name

    def _host_names(self) -> Iterable[str]:
        """Of hosts, hypervisors and root providers: mostly the same."""
        for host in self.cluster.hosts:
            yield from (host.name, host.node_name)
            yield from (p.name for p in host.providers if _is_root(p))
        yield from (i.host for i in self.cluster.instances)
        yield from (host for host, _ in self.cluster.held)
        for aggregate in self.cluster.aggregates:
            yield from aggregate.hosts
        for change in self.cluster.changes:
            yield from filter(None, (change.source, change.target))
        yield from self.given.parameters.get("quotas_by_host", ())
        yield from self.given.parameters.get("drain_hosts", ())

    def _provider_names(self) -> Iterable[str]:
        for host in self.cluster.hosts:
            for provider in host.providers + host.shared:
                if not _is_root(provider) or provider in host.shared:
                    yield provider.name

    def _provider_uuids(self) -> Iterable[str]:
        for host in self.cluster.hosts:
            yield host.uuid
            for one in host.providers + host.shared:
                yield from (one.uuid, one.root_uuid, one.parent_uuid or "")
        for instance in self.cluster.instances:
            yield from instance.allocations
        for admission in self.cluster.admissions.values():
            yield from admission.hosts | admission.refused

    def _instance_uuids(self) -> Iterable[str]:
        for instance in self.cluster.instances:
            yield instance.uuid
            yield from instance.different_host | instance.same_host
        for group in self.cluster.server_groups:
            yield from group.members

    def _aggregate_uuids(self) -> Iterable[str]:
        yield from (a.uuid for a in self.cluster.aggregates)
        for host in self.cluster.hosts:
            for provider in host.providers + host.shared:
                yield from provider.aggregates

    def _projects(self) -> Iterable[str]:
        yield from (i.project for i in self.cluster.instances)
        for aggregate in self.cluster.aggregates:
            for key, value in aggregate.metadata.items():
                if key.startswith(_PROJECTS):
                    yield from _parts(value)

    def _zones(self) -> Iterable[str]:
        for host in self.cluster.hosts:
            yield from (host.zone, host.failure_domain)
        yield from (i.pinned_zone or "" for i in self.cluster.instances)
        for aggregate in self.cluster.aggregates:
            yield from (
                aggregate.zone or "",
                aggregate.metadata.get(_ZONE, ""),
            )

    def _texts(self) -> Iterable[str]:
        yield from (host.disabled_reason for host in self.cluster.hosts)
        for instance in self.cluster.instances:
            yield from (instance.in_doubt, instance.tied)
        yield from (finding.text for finding in self.cluster.findings)

    def _literal_keys(self) -> frozenset[str]:
        """Keys of metadata that a flavor compares with an expression."""
        return frozenset(
            key.removeprefix(_ASKED)
            for instance in self.cluster.instances
            for key, value in instance.flavor.extra_specs.items()
            if key.startswith(_ASKED) and not _BARE.fullmatch(value)
        )

    # Only what is replaced is numbered, so that what has pseudonyms already
    # keeps them.

    def _values(self) -> Iterable[str]:
        for instance in self.cluster.instances:
            for told in (
                instance.flavor.extra_specs,
                instance.image_properties,
            ):
                yield from (v for k, v in told.items() if not self._kept(k))
        for aggregate in self.cluster.aggregates:
            for key, value in aggregate.metadata.items():
                if not (
                    key == _ZONE
                    or key.startswith(_PROJECTS)
                    or self._literal(key)
                ):
                    yield from _parts(value)

    def _subjects(self) -> Iterable[str]:
        """Of findings, those that are not named elsewhere."""
        for finding in self.cluster.findings:
            if not any(finding.subject in names for names in self._subject):
                yield finding.subject

    @property
    def _subject(self) -> tuple["_Names", ...]:
        """What a finding may be about."""
        return (
            self.hosts, self.instances, self.instance_uuids, self.providers,
            self.provider_uuids,
        )  # fmt: skip

    # The same with pseudonyms

    def scenario(self) -> values.Scenario:
        cluster = self.cluster
        flavors: dict[int, model.Flavor] = {}
        for instance in cluster.instances:
            if id(instance.flavor) not in flavors:
                flavors[id(instance.flavor)] = self._flavor(instance.flavor)
        return values.Scenario(
            cluster=dataclasses.replace(
                cluster,
                hosts=tuple(map(self._host, cluster.hosts)),
                instances=tuple(
                    self._instance(i, flavors[id(i.flavor)])
                    for i in cluster.instances
                ),
                held=model.frozen_map(
                    {
                        (self.hosts[host], account): units
                        for (host, account), units in cluster.held.items()
                    }
                ),
                aggregates=tuple(map(self._aggregate, cluster.aggregates)),
                server_groups=tuple(
                    dataclasses.replace(
                        group,
                        uuid=self.group_uuids[group.uuid],
                        name=self.groups[group.name],
                        members=self.instance_uuids.all(group.members),
                    )
                    for group in cluster.server_groups
                ),
                admissions=model.frozen_map(
                    {
                        request: dataclasses.replace(
                            admission,
                            hosts=self.provider_uuids.all(admission.hosts),
                            refused=self.provider_uuids.all(admission.refused),
                        )
                        for request, admission in cluster.admissions.items()
                    }
                ),
                findings=tuple(map(self._finding, cluster.findings)),
                telemetry=self._telemetry(cluster.telemetry),
                changes=tuple(
                    sorted(
                        (
                            dataclasses.replace(
                                change,
                                instance=self.instance_uuids[change.instance],
                                source=self.hosts[change.source],
                                target=self.hosts[change.target],
                            )
                            for change in cluster.changes
                        ),
                        key=model.Change.order,
                    )
                ),
            ),
            parameters=self._parameters(),
        )

    def _telemetry(
        self, telemetry: model.Telemetry | None
    ) -> model.Telemetry | None:
        if telemetry is None:
            return None
        return dataclasses.replace(
            telemetry,
            readings=model.frozen_map(
                {
                    self.instance_uuids[uuid]: readings
                    for uuid, readings in telemetry.readings.items()
                }
            ),
        )

    def _host(self, host: model.Host) -> model.Host:
        return dataclasses.replace(
            host,
            uuid=self.provider_uuids[host.uuid],
            name=self.hosts[host.name],
            node_name=self.hosts[host.node_name],
            providers=tuple(
                self._provider(p, shared=p in host.shared)
                for p in host.providers
            ),
            shared=tuple(self._provider(p, shared=True) for p in host.shared),
            disabled_reason=self.texts[host.disabled_reason],
            zone=self.zones[host.zone],
            failure_domain=self.zones[host.failure_domain],
        )

    def _provider(
        self, provider: model.Provider, *, shared: bool
    ) -> model.Provider:
        names = self.hosts if _is_root(provider) and not shared else None
        return dataclasses.replace(
            provider,
            uuid=self.provider_uuids[provider.uuid],
            name=(names or self.providers)[provider.name],
            root_uuid=self.provider_uuids[provider.root_uuid],
            parent_uuid=self.provider_uuids.maybe(provider.parent_uuid),
            aggregates=self.aggregate_uuids.all(provider.aggregates),
        )

    def _flavor(self, flavor: model.Flavor) -> model.Flavor:
        return dataclasses.replace(
            flavor,
            name=self.flavors[flavor.name],
            extra_specs=model.frozen_map(
                {
                    key: self._spec(key, value)
                    for key, value in flavor.extra_specs.items()
                }
            ),
        )

    def _spec(self, key: str, value: str) -> str:
        return value if self._kept(key) else self.values[value]

    def _kept(self, key: str) -> bool:
        """Whether an extra spec or image property keeps its value."""
        return bool(_DECIDING.match(key)) or (
            key.startswith(_ASKED) and key.removeprefix(_ASKED) in self.literal
        )

    def _instance(
        self, instance: model.Instance, flavor: model.Flavor
    ) -> model.Instance:
        return dataclasses.replace(
            instance,
            uuid=self.instance_uuids[instance.uuid],
            name=self.instances[instance.name],
            host=self.hosts[instance.host],
            flavor=flavor,
            project=self.projects[instance.project],
            allocations=model.frozen_map(
                {
                    self.provider_uuids[uuid]: held
                    for uuid, held in instance.allocations.items()
                }
            ),
            pinned_zone=self.zones.maybe(instance.pinned_zone),
            image_properties=model.frozen_map(
                {
                    key: self._spec(key, value)
                    for key, value in instance.image_properties.items()
                }
            ),
            different_host=self.instance_uuids.all(instance.different_host),
            same_host=self.instance_uuids.all(instance.same_host),
            tied=self.texts[instance.tied],
            in_doubt=self.texts[instance.in_doubt],
        )

    def _aggregate(self, aggregate: model.Aggregate) -> model.Aggregate:
        return dataclasses.replace(
            aggregate,
            uuid=self.aggregate_uuids[aggregate.uuid],
            name=self.aggregates[aggregate.name],
            hosts=self.hosts.all(aggregate.hosts),
            metadata=model.frozen_map(
                {
                    key: self._metadata(key, value)
                    for key, value in aggregate.metadata.items()
                }
            ),
            zone=self.zones.maybe(aggregate.zone),
        )

    def _metadata(self, key: str, value: str) -> str:
        if key == _ZONE:
            return self.zones[value]
        if self._literal(key):
            return value
        names = self.projects if key.startswith(_PROJECTS) else self.values
        return ",".join(names[part] for part in _parts(value))

    def _literal(self, key: str) -> bool:
        """Whether metadata keep their value."""
        return key in self.literal or key.startswith("trait:")

    def _finding(self, finding: model.Finding) -> model.Finding:
        for names in (*self._subject, self.subjects):
            if finding.subject in names:
                subject = names[finding.subject]
                break
        else:
            subject = ""
        return dataclasses.replace(
            finding, subject=subject, text=self.texts[finding.text]
        )

    def _parameters(self) -> Mapping[str, Any]:
        found = dict(self.given.parameters)
        if "quotas_by_host" in found:
            found["quotas_by_host"] = {
                self.hosts[name]: quotas
                for name, quotas in found["quotas_by_host"].items()
            }
        if "drain_hosts" in found:
            found["drain_hosts"] = [
                self.hosts[name] for name in found["drain_hosts"]
            ]
        return model.frozen_map(found)


def _is_root(provider: model.Provider) -> bool:
    return provider.uuid == provider.root_uuid


def _parts(value: str) -> list[str]:
    """The parts of a list in metadata, as Nova splits it."""
    return [part.strip() for part in value.split(",")]
