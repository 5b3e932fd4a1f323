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

"""Small clouds for stories: three hosts, three tiers, a few instances.

``three_tiers`` is the cloud that most stories start from::

    host-1  host-2  host-3     8 shared CPUs each, sold three times:
    gold 8  gold 8  gold 8     VCPU ratio 3.0, and 8 units of every tier
    silv 8  silv 8  silv 8     from provider.yaml (R21, R23)
    bron 8  bron 8  bron 8

Flavors are named ``<tier>.<vcpus>`` and are made for the instances that use
them. What happens after the instances have booted (an inventory lowered, a
host drained) is declared as events, in order; the fixture ``load`` lets them
happen.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from tests.cloud import AggregateSpec
from tests.cloud import CloudSpec
from tests.cloud import EventSpec
from tests.cloud import FlavorSpec
from tests.cloud import HostSpec
from tests.cloud import InstanceSpec
from tests.cloud import ServerGroupSpec

SHARES = {"gold": 512, "silver": 333, "bronze": 167, "platinum": 1024}
TIERS = ("gold", "silver", "bronze")
UNITS = 8


def tier_class(tier: str) -> str:
    """The resource class of a tier, as Placement knows it."""
    return f"CUSTOM_VCPU_{tier.upper()}"


GOLD, SILVER, BRONZE = (tier_class(tier) for tier in TIERS)


def host(
    name: str,
    units: int = UNITS,
    tiers: Mapping[str, int] | None = None,
    **fields: Any,
) -> HostSpec:
    """A host with so many shared CPUs and units of every tier.

    :param tiers: {tier: units}, where it is not ``units`` of all three
    """
    sold = dict.fromkeys(TIERS, units) if tiers is None else tiers
    fields.setdefault("cpu_allocation_ratio", 3.0)
    return HostSpec(
        name=name,
        vcpus=fields.pop("vcpus", units),
        inventories={tier_class(t): {"total": n} for t, n in sold.items()},
        **fields,
    )


def hosts(count: int, **fields: Any) -> tuple[HostSpec, ...]:
    """Equal hosts, ``host-1`` and so on."""
    return tuple(host(f"host-{n + 1}", **fields) for n in range(count))


def flavor(name: str, vcpus: int | None = None, **fields: Any) -> FlavorSpec:
    """The flavor that a name like ``gold.4`` promises.

    A name without a known tier (``plain.2``) makes a flavor without one.
    """
    tier, _, size = name.partition(".")
    vcpus = int(size) if vcpus is None else vcpus
    specs = dict(fields.pop("extra_specs", {}))
    if tier in SHARES:
        specs.setdefault(f"resources:{tier_class(tier)}", str(vcpus))
        specs.setdefault("quota:cpu_shares", str(SHARES[tier] * vcpus))
    return FlavorSpec(
        name=name,
        vcpus=vcpus,
        memory_mb=fields.pop("memory_mb", 256 * vcpus),
        extra_specs=specs,
        **fields,
    )


def instance(
    name: str, flavor: str, host: str | None = None, **fields: Any
) -> InstanceSpec:
    """An instance, by default one that the scheduler places."""
    return InstanceSpec(name=name, flavor=flavor, host=host, **fields)


def inventory(host: str, tier: str, **fields: Any) -> EventSpec:
    """provider.yaml is edited and nova-compute restarted."""
    return EventSpec(
        name=f"{host} {tier} {fields}",
        action="set_inventory",
        arguments={
            "host": host,
            "resource_class": tier_class(tier),
            **fields,
        },
    )


def reserved(host: str, units: int = UNITS) -> tuple[EventSpec, ...]:
    """A drain as Placement lets an operator ask for it: reserved = total."""
    return tuple(inventory(host, tier, reserved=units) for tier in TIERS)


def three_tiers(
    *instances: InstanceSpec,
    hosts: Iterable[HostSpec] | None = None,
    flavors: Iterable[FlavorSpec] = (),
    aggregates: Iterable[AggregateSpec] = (),
    server_groups: Iterable[ServerGroupSpec] = (),
    events: Iterable[EventSpec] = (),
) -> CloudSpec:
    """The cloud of most stories; see the module.

    :param flavors: those that are not what their names promise, and those
        that no instance uses at first
    """
    own = {spec.name: spec for spec in flavors}
    for name in sorted({spec.flavor for spec in instances} - set(own)):
        own[name] = flavor(name)
    return CloudSpec(
        hosts=tuple(globals()["hosts"](3) if hosts is None else hosts),
        flavors=tuple(own.values()),
        aggregates=tuple(aggregates),
        server_groups=tuple(server_groups),
        instances=instances,
        events=tuple(events),
    )
