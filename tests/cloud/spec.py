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

"""What a cloud shall look like: the declaration, and nothing that acts.

A ``CloudSpec`` is a frozen value. It says which hosts there are, what their
providers offer, which flavors, aggregates, server groups and instances exist,
and which events may happen later. The same declaration is written in Python
or in YAML (``CloudSpec.from_yaml``); it travels to the service processes as
plain data (``to_data``/``from_data``).

Rules:

* a name appears once; every reference (flavor, host, group, aggregate) leads
  to something that is declared;
* no host name is a substring of another one: Watcher looks compute nodes up
  by a fuzzy match and would find the wrong host;
* a resource class of the hypervisor itself (VCPU, MEMORY_MB, DISK_GB) comes
  from the virt driver; any other class of a root provider must be custom,
  because it is written to ``provider.yaml``, and Nova accepts only CUSTOM_
  classes and traits there. Child providers are reported by the virt driver
  and may offer any class.

All violations are reported at once, each with the path to its place.
"""

from __future__ import annotations

import dataclasses
import pathlib
import typing
import uuid

import yaml

DRIVER_CLASSES = ("VCPU", "MEMORY_MB", "DISK_GB")
IDENTIFICATIONS = ("uuid", "$COMPUTE_NODE")
INVENTORY_FIELDS = (
    "total",
    "reserved",
    "min_unit",
    "max_unit",
    "step_size",
    "allocation_ratio",
)
ACTIONS = {
    "set_inventory": ("host", "resource_class"),
    "disable_service": ("host",),
    "enable_service": ("host",),
    "stop_compute": ("host",),
    "start_compute": ("host",),
    "set_migration_behaviour": (),
    "boot": ("instance",),
    "delete": ("name",),
    "lock": ("name",),
    "unlock": ("name",),
}

Inventories = dict[str, dict[str, float]]


class SpecError(ValueError):
    """A declaration that cannot be built; ``violations`` lists why."""

    def __init__(
        self, violations: typing.Sequence[str], source: str = "cloud spec"
    ) -> None:
        self.violations = tuple(violations)
        super().__init__("%s: %s" % (source, "; ".join(self.violations)))


def _items(kind: typing.Any) -> typing.Any:
    return dataclasses.field(default=(), metadata={"items": kind})


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ChildProviderSpec:
    """A resource provider nested below a host's root provider."""

    name_suffix: str
    inventories: Inventories = dataclasses.field(default_factory=dict)
    traits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HostSpec:
    """A compute host: one service, one node, one root provider.

    ``disk_gb=0``: it has no disk of its own, as with shared storage.
    ``hypervisor_type``, ``hypervisor_version``: what Nova compares before a
    live migration.
    ``identified_by``: how its ``provider.yaml`` names the provider, by its
    ``uuid`` or as ``$COMPUTE_NODE``.
    """

    name: str
    vcpus: int = 16
    memory_mb: int = 65536
    disk_gb: int = 1000
    cpu_allocation_ratio: float = 1.0
    memory_allocation_ratio: float = 1.0
    disk_allocation_ratio: float = 1.0
    inventories: Inventories = dataclasses.field(default_factory=dict)
    traits: tuple[str, ...] = ()
    children: tuple[ChildProviderSpec, ...] = _items(ChildProviderSpec)
    availability_zone: str | None = None
    aggregates: tuple[str, ...] = ()
    disabled: bool = False
    hypervisor_type: str = "fake"
    hypervisor_version: int = 1000
    identified_by: str = "uuid"

    @property
    def uuid(self) -> str:
        """The uuid of the node and of its root provider; never changes."""
        return node_uuid(self.name)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FlavorSpec:
    """A flavor and its extra specs."""

    name: str
    vcpus: int = 1
    memory_mb: int = 512
    disk_gb: int = 1
    extra_specs: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AggregateSpec:
    """A host aggregate, an availability zone if it names one."""

    name: str
    hosts: tuple[str, ...] = ()
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    availability_zone: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ServerGroupSpec:
    """A server group with its one policy."""

    name: str
    policy: str = "anti-affinity"
    rules: dict[str, typing.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InstanceSpec:
    """An instance, or ``count`` equal ones named ``NAME-1`` to ``NAME-n``."""

    name: str
    flavor: str
    host: str | None = None
    count: int = 1
    locked: bool = False
    paused: bool = False
    stopped: bool = False
    metadata: dict[str, str] = dataclasses.field(default_factory=dict)
    group: str | None = None
    project: str | None = None
    availability_zone: str | None = None
    hints: dict[str, str] = dataclasses.field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        if self.count == 1:
            return (self.name,)
        return tuple("%s-%d" % (self.name, n + 1) for n in range(self.count))


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EventSpec:
    """Something that happens later, by ``EmbeddedCloud.apply``.

    ``action`` is the name of a method of the cloud, ``arguments`` are its
    arguments.
    """

    name: str
    action: str
    arguments: dict[str, typing.Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CloudSpec:
    """The whole declared cloud."""

    hosts: tuple[HostSpec, ...] = _items(HostSpec)
    flavors: tuple[FlavorSpec, ...] = _items(FlavorSpec)
    aggregates: tuple[AggregateSpec, ...] = _items(AggregateSpec)
    server_groups: tuple[ServerGroupSpec, ...] = _items(ServerGroupSpec)
    instances: tuple[InstanceSpec, ...] = _items(InstanceSpec)
    events: tuple[EventSpec, ...] = _items(EventSpec)

    def __post_init__(self) -> None:
        violations = list(_violations(self))
        if violations:
            raise SpecError(violations)

    @classmethod
    def from_yaml(cls, path: str | pathlib.Path) -> CloudSpec:
        """Read a declaration; the errors name the file and the place."""
        source = str(path)
        try:
            data = yaml.safe_load(pathlib.Path(path).read_text())
        except OSError as error:
            raise SpecError([error.strerror or str(error)], source) from error
        except yaml.YAMLError as error:
            raise SpecError([str(error)], source) from error
        try:
            return cls.from_data({} if data is None else data)
        except SpecError as error:
            raise SpecError(error.violations, source) from None

    @classmethod
    def from_data(cls, data: typing.Any) -> CloudSpec:
        """Build the declaration from plain dictionaries and lists."""
        violations: list[str] = []
        spec = _build(cls, data, "", violations)
        if violations:
            raise SpecError(violations)
        return typing.cast(CloudSpec, spec)

    def to_data(self) -> dict[str, typing.Any]:
        """The declaration as plain data, the inverse of ``from_data``."""
        return dataclasses.asdict(self)

    def host(self, name: str) -> HostSpec:
        for host in self.hosts:
            if host.name == name:
                return host
        raise KeyError(name)

    def event(self, name: str) -> EventSpec:
        for event in self.events:
            if event.name == name:
                return event
        raise KeyError(
            "no event %r is declared; there are: %s"
            % (name, ", ".join(e.name for e in self.events) or "none")
        )


def node_uuid(host: str) -> str:
    """Stable over restarts and runs, so that goldens may contain it."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, host))


def _build(
    kind: typing.Any, data: typing.Any, path: str, violations: list[str]
) -> typing.Any:
    """Make a ``kind`` of a mapping, or note down what prevents it."""
    where = path or "the top level"
    if not isinstance(data, dict):
        violations.append("%s: expected a mapping, got %r" % (where, data))
        return None
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    before = len(violations)
    known = ", ".join(sorted(fields))
    violations.extend(
        f"{where}: unknown key {key!r}, known are {known}"
        for key in data
        if key not in fields
    )
    values: dict[str, typing.Any] = {}
    for name, field in fields.items():
        if name not in data:
            if (
                field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ):
                violations.append("%s: %r is missing" % (where, name))
            continue
        here = "%s.%s" % (path, name) if path else name
        values[name] = _value(hints[name], field, data[name], here, violations)
    if len(violations) > before:
        return None
    return kind(**values)


def _value(
    hint: typing.Any,
    field: typing.Any,
    value: typing.Any,
    path: str,
    violations: list[str],
) -> typing.Any:
    item = field.metadata.get("items")
    origin = typing.get_origin(hint)
    if item or origin is tuple:
        if not isinstance(value, (list, tuple)):
            violations.append("%s: expected a list, got %r" % (path, value))
            return ()
        if not item:
            return tuple(str(entry) for entry in value)
        return tuple(
            _build(item, entry, "%s[%d]" % (path, index), violations)
            for index, entry in enumerate(value)
        )
    if origin is dict:
        if not isinstance(value, dict):
            violations.append("%s: expected a mapping, got %r" % (path, value))
            return {}
        if field.name in ("extra_specs", "metadata"):
            return {str(k): str(v) for k, v in value.items()}
        return value
    kinds = tuple(k for k in (typing.get_args(hint) or (hint,)))
    if float in kinds:
        kinds += (int,)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(
        value, kinds
    ):
        violations.append(
            "%s: %r is not of type %s"
            % (path, value, getattr(hint, "__name__", hint))
        )
    return value


def _violations(spec: CloudSpec) -> typing.Iterator[str]:
    hosts = [h.name for h in spec.hosts]
    for path, names in (
        ("hosts", hosts),
        ("flavors", [f.name for f in spec.flavors]),
        ("aggregates", [a.name for a in spec.aggregates]),
        ("server_groups", [g.name for g in spec.server_groups]),
        ("instances", [n for i in spec.instances for n in i.names]),
        ("events", [e.name for e in spec.events]),
    ):
        yield from _repeated(path, names)
    yield from _ambiguous(sorted(set(hosts)))
    for host in spec.hosts:
        yield from _host_violations(host)
    for aggregate in spec.aggregates:
        for name in aggregate.hosts:
            if name not in hosts:
                yield "aggregates.%s.hosts: no host %r is declared" % (
                    aggregate.name,
                    name,
                )
    for instance in spec.instances:
        yield from _instance_violations(instance, spec)
    for event in spec.events:
        yield from _event_violations(event, hosts)


def _ambiguous(hosts: list[str]) -> typing.Iterator[str]:
    for one in hosts:
        for other in hosts:
            if one != other and one in other:
                yield (
                    "hosts: %r is a substring of %r: Watcher finds compute "
                    "nodes by a fuzzy match on their names and would take "
                    "one for the other; choose names of one length, such "
                    "as host-01" % (one, other)
                )


def _instance_violations(
    instance: InstanceSpec, spec: CloudSpec
) -> typing.Iterator[str]:
    where = "instances.%s" % instance.name
    if instance.flavor not in {f.name for f in spec.flavors}:
        yield "%s.flavor: no flavor %r is declared" % (where, instance.flavor)
    if instance.host is not None and instance.host not in {
        h.name for h in spec.hosts
    }:
        yield "%s.host: no host %r is declared" % (where, instance.host)
    if instance.group is not None and instance.group not in {
        g.name for g in spec.server_groups
    }:
        yield "%s.group: no server group %r is declared" % (
            where,
            instance.group,
        )
    if instance.count < 1:
        yield "%s.count: must be at least 1" % where


def _repeated(path: str, names: list[str]) -> typing.Iterator[str]:
    for name in sorted({n for n in names if names.count(n) > 1}):
        yield "%s: the name %r appears more than once" % (path, name)


def _host_violations(host: HostSpec) -> typing.Iterator[str]:
    where = "hosts.%s" % host.name
    if not host.name:
        yield "hosts: a host needs a name"
    yield from _inventory_violations(where, host.inventories)
    for name in host.inventories:
        if name not in DRIVER_CLASSES and not name.startswith("CUSTOM_"):
            yield (
                "%s.inventories.%s: on the root provider only %s and "
                "CUSTOM_ classes are possible, since Nova's provider.yaml "
                "takes no others; put it on a child provider"
                % (where, name, ", ".join(DRIVER_CLASSES))
            )
    if host.identified_by not in IDENTIFICATIONS:
        yield "%s.identified_by: %r is none of %s" % (
            where,
            host.identified_by,
            ", ".join(IDENTIFICATIONS),
        )
    for name in host.traits:
        if not name.startswith("CUSTOM_"):
            yield "%s.traits: %s is not a CUSTOM_ trait" % (where, name)
    yield from _repeated(
        where + ".children", [c.name_suffix for c in host.children]
    )
    for child in host.children:
        yield from _inventory_violations(
            "%s.children.%s" % (where, child.name_suffix), child.inventories
        )


def _inventory_violations(
    where: str, inventories: Inventories
) -> typing.Iterator[str]:
    untrusted: dict[str, typing.Any] = dict(inventories)
    for name, inventory in untrusted.items():
        here = "%s.inventories.%s" % (where, name)
        if not isinstance(inventory, dict):
            yield "%s: expected a mapping such as {total: 16}" % here
            continue
        if "total" not in inventory and name not in DRIVER_CLASSES:
            yield "%s: 'total' is missing" % here
        for field, value in inventory.items():
            if field not in INVENTORY_FIELDS:
                yield "%s: unknown field %r, known are %s" % (
                    here,
                    field,
                    ", ".join(INVENTORY_FIELDS),
                )
            elif isinstance(value, bool) or not isinstance(
                value, (int, float)
            ):
                yield "%s.%s: %r is not a number" % (here, field, value)


def _event_violations(
    event: EventSpec, hosts: list[str]
) -> typing.Iterator[str]:
    where = "events.%s" % event.name
    if event.action not in ACTIONS:
        yield "%s.action: unknown action %r, known are %s" % (
            where,
            event.action,
            ", ".join(sorted(ACTIONS)),
        )
        return
    for name in ACTIONS[event.action]:
        if name not in event.arguments:
            yield "%s.arguments: %r is missing" % (where, name)
    host = event.arguments.get("host")
    if host is not None and host not in hosts:
        yield "%s.arguments.host: no host %r is declared" % (where, host)
