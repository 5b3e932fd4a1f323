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

"""What is entitled to whom, worked out one instance at a time.

The oracle of :mod:`watcher_cputier.entitlement` and of the verdicts of
:mod:`watcher_cputier.starvation`: straight from the definitions, without
arrays, and with exact fractions where the water filling is concerned.
"""

from collections.abc import Callable, Sequence
import dataclasses
import fractions
from typing import Any

from watcher_cputier import model


def fill(
    weights: Sequence[float],
    caps: Sequence[float],
    cpus: float,
    number: Callable[[float], Any] = fractions.Fraction,
) -> list[Any]:
    """Weighted max-min fair shares on one host, exactly.

    The level rises from 0; whoever reaches his cap stays there. The caps are
    reached in the order of cap / weight.

    :param number: what to count with; ``float`` is quicker and less exact
    """
    exact = [
        (number(w), number(c)) for w, c in zip(weights, caps, strict=True)
    ]
    left = number(cpus)
    order = sorted(range(len(exact)), key=lambda i: exact[i][1] / exact[i][0])
    open_weight = sum((w for w, _ in exact), number(0))
    shares = [number(0)] * len(exact)
    for rank, index in enumerate(order):
        weight, cap = exact[index]
        level = left / open_weight
        if cap > level * weight:
            for other in order[rank:]:
                shares[other] = level * exact[other][0]
            break
        shares[index] = cap
        left -= cap
        open_weight -= weight
    return shares


@dataclasses.dataclass(frozen=True)
class Sold:
    """What a host sells: N, and the floor of each tier."""

    cpus: int
    floors: dict[str, float]


def verdicts(cloud: model.Cluster, windows: int) -> dict[str, str]:
    """The verdict of section 8 on everybody, up to ``over quota``.

    What comes after it is just ``starved`` here. For clouds of which some
    tier of some host is known, without drains and policy quotas.
    """
    assert cloud.telemetry is not None
    held: dict[str, dict[str, int]] = {}
    for (name, tier), units in cloud.held.items():
        held.setdefault(name, {})[tier] = units
    found = {}
    for name, promise in sold(cloud).items():
        here = cloud.instances_by_host.get(name, ())
        promised = sum(
            units * promise.floors[tier]
            for tier, units in held.get(name, {}).items()
            if tier in promise.floors
        )
        usable = [
            _usable(here, cloud.telemetry, back, promise.cpus)
            for back in range(windows, 0, -1)
        ]
        for one in here:
            verdict = _verdict(one, cloud.telemetry, promise, usable)
            if verdict == "starved" and promised > promise.cpus * (1 + 1e-9):
                verdict = "over quota"
            found[one.uuid] = verdict
    return found


def _verdict(
    instance: model.Instance,
    telemetry: model.Telemetry,
    promise: Sold,
    usable: Sequence[float],
) -> str:
    floor = promise.floors.get(instance.tier or "")
    readings = telemetry.readings.get(instance.uuid, ())[-len(usable) :]
    if floor is None or instance.status == "SHUTOFF":
        return "unknown"
    if len(readings) < len(usable) or None in readings:
        return "unknown"
    vcpus = instance.flavor.vcpus
    idle, lacks, lacks_of_kept = [], [], []
    for reading, cpus in zip(readings, usable, strict=True):
        assert reading is not None
        usage = reading.usage_cpus / vcpus
        wanted = usage + reading.steal_cpus / vcpus
        kept = floor * cpus / promise.cpus
        idle.append(wanted < floor / 10)
        lacks.append(floor * wanted - usage > max(0.02, 0.1 * floor))
        lacks_of_kept.append(kept * wanted - usage > max(0.02, 0.1 * kept))
    if all(idle):
        return "idle"
    if not all(lacks):
        return "served"
    return "starved" if all(lacks_of_kept) else "short host"


def _usable(
    here: Sequence[model.Instance],
    telemetry: model.Telemetry,
    back: int,
    cpus: int,
) -> float:
    """C of a host in the window that is so many windows back."""
    used = waited = 0.0
    for instance in here:
        if instance.status == "SHUTOFF":
            continue
        readings = telemetry.readings.get(instance.uuid, ())
        reading = readings[-back] if len(readings) >= back else None
        if reading is None:
            return cpus
        used += reading.usage_cpus
        waited += reading.steal_cpus
    return min(used, cpus) if waited > 0.05 * cpus else cpus


def sold(cloud: model.Cluster) -> dict[str, Sold]:
    """What each host of a cloud without drains and policies sells."""
    found = {}
    for host in cloud.hosts:
        cpus = host.shared_cpus
        assert cpus is not None
        quotas = {
            tier: host.capacity(tier.resource_class) for tier in cloud.tiers
        }
        total = sum(
            tier.cpu_shares * (units or 0) / cpus
            for tier, units in quotas.items()
        )
        found[host.name] = Sold(
            cpus,
            {
                tier.name: min(1.0, tier.cpu_shares / total)
                for tier, units in quotas.items()
                if units is not None
            },
        )
    return found
