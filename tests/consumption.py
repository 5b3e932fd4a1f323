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

"""Clouds in which CPUs are used: demands in, readings out.

What everybody gets is worked out one host at a time by the oracle of
:mod:`tests.entitlements`, from the ``quota:cpu_shares`` of flavors alone.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from tests import builders
from tests import entitlements
from watcher_cputier import model

WINDOWS = (0, 300, 600)
UNSET_WEIGHT = 100


def host(name: str, units: int = 4, **fields: Any) -> model.Host:
    """A host that has sold each of its CPUs to each of the three tiers."""
    return builders.host(
        name,
        **{
            "gold": units,
            "silver": units,
            "bronze": units,
            "vcpus": model.Inventory(total=units, allocation_ratio=3.0),
            **fields,
        },
    )


def guest(
    name: str,
    on: str,
    tier: str | None = "gold",
    vcpus: int = 1,
    *,
    shares: int | None = None,
    **fields: Any,
) -> model.Instance:
    """An instance whose flavor sets what is right, or these shares."""
    if shares is None:
        shares = vcpus * builders.SHARES.get(tier or "", 0)
    return builders.instance(
        name,
        on,
        vcpus,
        tier,
        extra_specs={"quota:cpu_shares": str(shares)} if shares else {},
        **fields,
    )


def guests(
    prefix: str, on: str, count: int, tier: str = "gold", **fields: Any
) -> list[model.Instance]:
    """So many of one vCPU each."""
    return [
        guest(f"{prefix}{number}", on, tier, **fields)
        for number in range(1, count + 1)
    ]


def weight(instance: model.Instance) -> float:
    """Of its domain, among those of its host."""
    told = instance.flavor.extra_specs.get("quota:cpu_shares")
    return float(told or UNSET_WEIGHT)


def used(
    cloud: model.Cluster,
    demands: Mapping[str, float] | float,
    *,
    unmeasured: Iterable[str] = (),
    usable: Mapping[str, float] | None = None,
    **fields: Any,
) -> model.Cluster:
    """The cloud with what its instances use and wait for.

    :param demands: CPUs that each wants, by uuid; of each vCPU, if it is
        one number
    :param unmeasured: those that have no telemetry
    :param usable: CPUs that the guests of a host get together, where that
        is not all of them
    """

    def wanted(one: model.Instance) -> float:
        if isinstance(demands, Mapping):
            return demands[one.uuid]
        return demands * one.flavor.vcpus

    readings: dict[str, tuple[model.Reading | None, ...]] = {}
    for name, here in cloud.instances_by_host.items():
        cpus = (usable or {}).get(name) or cloud.host_by_name[name].shared_cpus
        assert cpus is not None
        running = [one for one in here if one.status == "ACTIVE"]
        given = entitlements.fill(
            [weight(one) for one in running],
            [wanted(one) for one in running],
            cpus,
        )
        for one, got in zip(running, map(float, given), strict=True):
            if one.uuid not in set(unmeasured):
                reading = model.Reading(
                    usage_cpus=got, steal_cpus=max(0.0, wanted(one) - got)
                )
                readings[one.uuid] = (reading,) * len(WINDOWS)
    return dataclasses.replace(
        cloud,
        telemetry=model.Telemetry(
            source="oracle",
            window_seconds=300,
            windows=WINDOWS,
            readings=model.frozen_map(readings),
        ),
        **fields,
    )


def demands_of(cloud: model.Cluster) -> dict[str, float]:
    """What everybody wants by the last window of the telemetry."""
    assert cloud.telemetry is not None
    return {
        uuid: told[-1].usage_cpus + told[-1].steal_cpus
        for uuid, told in cloud.telemetry.readings.items()
        if told[-1] is not None
    }
