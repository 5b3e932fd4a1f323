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


"""Inventories of tiers as Nova's provider configuration files declare them.

A file (``provider.yaml``, read when nova-compute starts) gives a host's root
provider further inventories. Sources: R9, R10, R25 to R29, R33, R36, R39,
R40; Nova's schema 1.0, which takes ``CUSTOM_`` classes only.

* N is the number of CPUs in ``[compute] cpu_shared_set``, and not that of
  the machine: ``4-31,36-63,68-95,100-127`` is 112. What Nova reserves of them
  (``reserved_host_cpus``) is not sold.
* A tier's total is N unless told otherwise: each tier may fill the host
  alone, and three of them over-subscribe it threefold.
* Where one class counts all tiers, its total is N times a multiplier, and
  the over-subscription is the inventory's ratio.
* An entry names its provider by uuid, by name, or as ``$COMPUTE_NODE``: all
  nodes of the service that reads the file and that no other entry names.
* The cores of the host's own services (systemd's ``CPUAffinity``) and those
  of the guests must be disjoint, or the floors of the tiers are not kept.

Documents are plain data here; the edges read and write YAML.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import re
from typing import Any

from watcher_cputier import errors
from watcher_cputier import model

#: Names all nodes of the service that reads a file.
COMPUTE_NODE = "$COMPUTE_NODE"
SCHEMA_VERSION = "1.0"
#: Share units of one CPU, as the specification of the class has it.
SHARE_MULTIPLIER = 100
#: What Placement takes for a field that an inventory does not name.
DEFAULTS: Mapping[str, float] = {
    "reserved": 0,
    "min_unit": 1,
    "max_unit": 2147483647,
    "step_size": 1,
    "allocation_ratio": 1.0,
}
FIELDS = ("total", *DEFAULTS)
# Placement keeps ratios as single floats.
_RATIO_TOLERANCE = 1e-5
# The highest CPU that a set may name; no host comes near it.
_HIGHEST_CPU = 65535
_PART = re.compile(r"^(\^?)\s*([0-9]{1,6})(?:\s*-\s*([0-9]{1,6}))?$")
_UUID = re.compile(
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE
)

Inventory = Mapping[str, float]
Document = dict[str, Any]


def parse_cpus(text: str, *, where: str = "cpu_shared_set") -> frozenset[int]:
    """The CPUs of a set as Nova writes it: ``0-3,^2,8``.

    Exclusions hold wherever they stand.

    :raises ConfigurationError: for what is no such set, or is empty
    """
    return _parse(text.split(","), text, where)


def parse_affinity(text: str) -> frozenset[int]:
    """The CPUs of systemd's ``CPUAffinity``: ``0-3 32,34``.

    :raises ConfigurationError: for what is no list of CPUs
    """
    if "^" in text:
        raise errors.ConfigurationError(
            f"{text!r} is no list of CPUs",
            where="CPUAffinity",
            cure="systemd knows CPUs and ranges, such as 0-3,32-35",
        )
    return _parse(re.split(r"[,\s]+", text), text, "CPUAffinity")


def _parse(parts: Iterable[str], text: str, where: str) -> frozenset[int]:
    taken: set[int] = set()
    left: set[int] = set()
    for part in parts:
        if not part.strip():
            continue
        matched = _PART.match(part.strip())
        first = int(matched[2]) if matched else 0
        last = int(matched[3] or first) if matched else 0
        if matched is None or not first <= last <= _HIGHEST_CPU:
            raise errors.ConfigurationError(
                f"{part.strip()!r} in {text!r} is neither a CPU nor a range",
                where=where,
                cure="Write CPUs, ranges and exclusions, such as 0-3,^2,8",
            )
        (left if matched[1] else taken).update(range(first, last + 1))
    if not taken - left:
        raise errors.ConfigurationError(
            f"{text!r} names no CPU", where=where, cure="Name some"
        )
    return frozenset(taken - left)


def format_cpus(cpus: Iterable[int]) -> str:
    """A set in its shortest form: ``0-1,3,8``."""
    ranges: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if ranges and cpu == ranges[-1][1] + 1:
            ranges[-1][1] = cpu
        else:
            ranges.append([cpu, cpu])
    return ",".join(
        str(first) if first == last else f"{first}-{last}"
        for first, last in ranges
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a host whose inventories are to be declared.

    :param name: as errors and files name it
    :param uuid: of its root provider
    :param cpus: N
    :param shared: its ``cpu_shared_set``; None where only N is known
    :param affinity: CPUs of its own services; None where it is not known
    :param reserved: CPUs of N that Nova keeps back
    :param units: {tier: units} where it is not N
    """

    name: str
    uuid: str = ""
    cpus: int
    shared: frozenset[int] | None = None
    affinity: frozenset[int] | None = None
    reserved: int = 0
    units: Mapping[str, int] = dataclasses.field(
        default_factory=model.frozen_map
    )

    @property
    def sold(self) -> int:
        """CPUs that may be sold."""
        return self.cpus - self.reserved


def check(facts: Facts) -> None:
    """Refuse facts that contradict one another.

    :raises ConfigurationError: naming the host and what is wrong
    """
    if facts.shared is not None and len(facts.shared) != facts.cpus:
        raise errors.ConfigurationError(
            f"its cpu_shared_set {format_cpus(facts.shared)} has "
            f"{len(facts.shared)} CPUs, and {facts.cpus} are known",
            where=f"host {facts.name}",
            cure="Correct the set, or restart nova-compute with it first",
        )
    if facts.sold < 1:
        raise errors.ConfigurationError(
            f"{facts.reserved} of its {facts.cpus} CPUs are reserved: there "
            "is nothing to sell",
            where=f"host {facts.name}",
        )
    both = (facts.shared or frozenset()) & (facts.affinity or frozenset())
    if both:
        raise errors.ConfigurationError(
            f"CPUs {format_cpus(both)} are in cpu_shared_set and in "
            "CPUAffinity: the host's own services would compete with guests",
            where=f"host {facts.name}",
            cure="Take them out of one of the two",
        )


def tier_inventories(
    facts: Facts, tiers: Sequence[model.Tier]
) -> dict[str, Inventory]:
    """One inventory a tier.

    :raises ConfigurationError: if the facts contradict one another, or name
        a tier that there is not
    """
    check(facts)
    names = [tier.name for tier in tiers]
    for name, units in facts.units.items():
        if name not in names or units < 1:
            raise errors.ConfigurationError(
                f"unknown tier {name!r}"
                if name not in names
                else f"{units} units of {name} are no inventory",
                where=f"host {facts.name}",
                cure=f"The tiers are {', '.join(names)}, and an inventory "
                "has one unit at least; reserve all of it to drain the host",
            )
    return {
        tier.resource_class: _inventory(
            facts.units.get(tier.name, facts.sold), 1.0
        )
        for tier in tiers
    }


def shares_inventory(
    facts: Facts, resource_class: str, multiplier: int, ratio: float
) -> dict[str, Inventory]:
    """The one inventory of single-class mode (R33, R36).

    :param ratio: Nova's ``cpu_allocation_ratio``, which holds for it too
    :raises ConfigurationError: if the facts contradict one another, or the
        class is none that a file may declare
    """
    check(facts)
    if not resource_class.startswith("CUSTOM_"):
        raise errors.ConfigurationError(
            f"Nova takes no {resource_class} from a file",
            where="[cputier] shares_class",
            cure="Only CUSTOM_ classes can be declared; take "
            "CUSTOM_VCPU_SHARES",
        )
    return {resource_class: _inventory(facts.sold * multiplier, ratio)}


def _inventory(total: int, ratio: float) -> Inventory:
    return {
        "total": total,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": ratio,
    }


def document(
    entries: Iterable[tuple[Mapping[str, str], Mapping[str, Inventory]]],
) -> Document:
    """A file.

    :param entries: identifications with inventories
    """
    return {
        "meta": {"schema_version": SCHEMA_VERSION},
        "providers": [
            {
                "identification": dict(identification),
                "inventories": {
                    "additional": [
                        {name: dict(inventory)}
                        for name, inventory in inventories.items()
                    ]
                },
            }
            for identification, inventories in entries
        ],
    }


def config_map(
    name: str, namespace: str, files: Mapping[str, str]
) -> Document:
    """A Kubernetes ConfigMap of files (R26).

    RHOSO's data plane puts the keys that match ``provider*.yaml`` where
    nova-compute looks for them.
    """
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": dict(files),
    }


# What is declared, against what is reported


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """One provider of a file.

    :param by: ``uuid`` or ``name``
    :param value: the provider's, or :data:`COMPUTE_NODE`
    :param inventories: {class: fields}, with Placement's defaults filled in
    """

    source: str
    by: str
    value: str
    inventories: Mapping[str, Inventory]
    traits: frozenset[str] = frozenset()

    @property
    def wildcard(self) -> bool:
        """Whether it stands for all nodes that no other entry names."""
        return self.value == COMPUTE_NODE

    def names(self, host: model.Host) -> bool:
        """Whether it names a host's root provider."""
        if self.by == "uuid":
            return self.value.lower() == host.uuid.lower()
        return self.value in (host.node_name, host.name)


def declared(found: Any, source: str) -> tuple[Declared, ...]:
    """What a file declares.

    :param found: its content, as data
    :param source: its name, for errors
    :raises ConfigurationError: for what Nova would refuse to start with
    """
    if not isinstance(found, Mapping):
        raise _wrong(source, "it is no mapping")
    meta = found.get("meta")
    version = meta.get("schema_version") if isinstance(meta, Mapping) else None
    if not isinstance(version, str) or not version.startswith("1."):
        raise _wrong(
            source, f"meta.schema_version is {version!r} and has to be '1.0'"
        )
    providers = found.get("providers", [])
    if not isinstance(providers, list):
        raise _wrong(source, "providers is no list")
    return tuple(
        _declared(one, source, f"providers[{place}]")
        for place, one in enumerate(providers)
    )


def _declared(found: Any, source: str, path: str) -> Declared:
    told = found.get("identification") if isinstance(found, Mapping) else None
    if not isinstance(told, Mapping) or len(told) != 1:
        raise _wrong(
            source, f"{path}.identification has to be one uuid or name"
        )
    ((by, value),) = told.items()
    if by not in ("uuid", "name") or not isinstance(value, str) or not value:
        raise _wrong(
            source, f"{path}.identification has to be one uuid or name"
        )
    if by == "uuid" and value != COMPUTE_NODE and not _UUID.match(value):
        raise _wrong(source, f"{path}.identification.uuid {value!r} is none")
    inventories: dict[str, Inventory] = {}
    for one in _additional(found, "inventories", source, path):
        if not isinstance(one, Mapping):
            raise _wrong(source, f"{path}.inventories has {one!r}")
        for name, fields in one.items():
            inventories[str(name)] = _fields(fields, source, f"{path}: {name}")
    traits = _additional(found, "traits", source, path)
    return Declared(
        source=source,
        by=by,
        value=value,
        inventories=model.frozen_map(inventories),
        traits=frozenset(str(trait) for trait in traits),
    )


def _additional(
    found: Mapping[str, Any], what: str, source: str, path: str
) -> list[Any]:
    told = found.get(what) or {}
    items = told.get("additional") if isinstance(told, Mapping) else told
    if items is None:
        return []
    if not isinstance(items, list):
        raise _wrong(source, f"{path}.{what}.additional is no list")
    return items


def _fields(told: Any, source: str, path: str) -> Inventory:
    if not isinstance(told, Mapping) or "total" not in told:
        raise _wrong(source, f"{path} has no total")
    for name, value in told.items():
        number = isinstance(value, (int, float)) and not isinstance(
            value, bool
        )
        if name not in FIELDS or not number:
            raise _wrong(source, f"{path}.{name} is {value!r}")
    return {**DEFAULTS, **told}


def _wrong(source: str, what: str) -> errors.ConfigurationError:
    return errors.ConfigurationError(
        what,
        where=source,
        cure="nova-compute does not start with such a file; write one with "
        "`openstack tier provider-config generate`",
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a host does not report what a file says.

    :param what: the class with a field, a trait, or empty for the host
    :param told: what the file says; empty where it says nothing
    :param shown: what Placement shows; empty where it shows nothing
    """

    host: str
    source: str
    what: str
    told: str
    shown: str
    mend: str


_RESTART = "Restart nova-compute on {}: it reads its files when it starts"


def verify(
    entries: Sequence[Declared],
    hosts: Iterable[model.Host],
    classes: Iterable[str] = (),
) -> tuple[Difference, ...]:
    """Where hosts do not report what files say, by host, then class.

    :param entries: of all files together
    :param hosts: with their inventories in detail
    :param classes: of tiers; one that a host reports and its file does not
        declare is a difference too
    """
    hosts = list(hosts)
    found: list[Difference] = []
    named: set[int] = set()
    for host in hosts:
        mine = [
            (place, one)
            for place, one in enumerate(entries)
            if one.names(host) and (one.inventories or one.traits)
        ]
        if not mine:
            mine = [(p, one) for p, one in enumerate(entries) if one.wildcard]
        named.update(place for place, _ in mine)
        found += _judge(host, [one for _, one in mine], frozenset(classes))
    for place, one in enumerate(entries):
        if place not in named and not one.wildcard:
            found.append(
                Difference(
                    host=one.value,
                    source=one.source,
                    what="",
                    told="a provider",
                    shown="",
                    mend="Correct the identification, or take the entry out: "
                    "no host has this provider",
                )
            )
    return tuple(found)


def _judge(
    host: model.Host, mine: list[Declared], classes: frozenset[str]
) -> Iterable[Difference]:
    if len(mine) > 1:
        sources = ", ".join(one.source for one in mine)
        yield Difference(
            host=host.name,
            source=sources,
            what="",
            told=f"{len(mine)} entries for the same provider",
            shown="",
            mend="Leave one of them: nova-compute does not start with both",
        )
    restart = _RESTART.format(host.name)
    root = host.root
    shown = {} if root is None else root.inventories
    for one in mine[:1]:
        for name, fields in one.inventories.items():
            yield from _compare(host, one, name, fields, shown.get(name))
        traits = frozenset() if root is None else root.traits
        for trait in sorted(one.traits - traits):
            yield Difference(
                host=host.name,
                source=one.source,
                what=trait,
                told="the trait",
                shown="",
                mend=restart,
            )
    told = {name for one in mine for name in one.inventories}
    for name in sorted(classes & shown.keys() - told):
        yield Difference(
            host=host.name,
            source=", ".join(one.source for one in mine),
            what=name,
            told="",
            shown=f"total {shown[name].total}",
            mend="Declare it in a file: what was set by other means is lost "
            "when the host is made anew",
        )


def _compare(
    host: model.Host,
    one: Declared,
    name: str,
    fields: Inventory,
    shown: model.Inventory | None,
) -> Iterable[Difference]:
    restart = _RESTART.format(host.name)
    if shown is None:
        yield Difference(
            host=host.name,
            source=one.source,
            what=name,
            told=f"total {fields['total']}",
            shown="",
            mend=restart,
        )
        return
    for field in FIELDS:
        told, actual = fields[field], getattr(shown, field)
        if actual is None or abs(told - actual) <= _RATIO_TOLERANCE * max(
            1.0, abs(told)
        ) * (field == "allocation_ratio"):
            continue
        yield Difference(
            host=host.name,
            source=one.source,
            what=f"{name} {field}",
            told=str(int(told) if told == int(told) else told),
            shown=str(actual),
            mend=restart,
        )
