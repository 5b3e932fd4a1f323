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


"""Which readings are fit to conclude from, and in what they are counted.

A datasource has two series of every instance, CPU time and steal. A reading
is made of both, for one window, in CPUs of the whole instance. It is fit only
if it tells what the instance did in that window under the conditions of
today; whatever is not is taken out and counted by its reason:

* The window spans a change: a migration, a reboot, a resize (which is how an
  instance changes its tier); or lies before one that has made the instance
  move or have another flavor. Counters start again at 0 on another host, and
  the share that an instance had before says nothing about the one it has now.
* The value follows a gap: a difference between two samples that lie further
  apart than polls do belongs to no single window.
* One of the two is missing: usage without steal would look like a satisfied
  instance, steal without usage like a starved one.
* A rate is negative (a counter was reset), not a number, beyond its gauge, or
  more than the instance's vCPUs can do: u + s <= vCPUs holds on every kernel.

A missing value is never zero. Units are converted here: ``ns`` per second and
``s`` per second are CPUs, all vCPUs together; gauges are of one vCPU and count
as often as the instance has vCPUs.

Wrong units are a trap of their own, for some exporters have nanoseconds under
a name that ends in ``_seconds``: :func:`doubts` looks at all instances at
once, before anything is vetted one by one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import math

from watcher_cputier import model

# CPUs per vCPU of one unit; a gauge counts once per vCPU.
_COUNTERS = {"ns": 1e-9, "s": 1.0}
_GAUGES = {"fraction": 1.0, "percent": 0.01}
UNITS = (*_COUNTERS, *_GAUGES)

# How far above its vCPUs an instance may read: samples are not taken at even
# intervals, and the rate is that over the nominal one.
TOLERANCE = 0.25

# Medians of what vCPUs read lie between those, in CPUs, whatever they do: the
# wrong unit of a counter is off by 1e9.
_LARGEST_CPUS = 30.0
_SMALLEST_CPUS = 1e-8
# Values (not zero) that it takes to doubt a unit, and what share of those may
# lie beyond a gauge: none of a gauge that works.
_ENOUGH = 3
_BEYOND = 0.05

# Changes after which an instance has another flavor or disk.
_MADE_ANEW = {"resize", "rebuild", "evacuation"}

GAP = "follows a gap"
NO_STEAL = "usage without steal"
NO_USAGE = "steal without usage"
NOT_FINITE = "not a number"
NEGATIVE = "negative, a counter was reset"
OUT_OF_RANGE = "beyond its gauge"
TOO_MUCH = "more than its vCPUs"
WAIT_MISSING = "more steal than usage and wait"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One metric of all instances, as a source has it.

    :param unit: ``ns`` or ``s`` (rates of a counter, per second, all vCPUs
        together), ``fraction`` or ``percent`` (gauges of one vCPU)
    :param values: {instance uuid: {begin of a window: value}}
    :param reach_seconds: how far before its window a value may reach
    """

    unit: str
    values: Mapping[str, Mapping[int, float]]
    reach_seconds: int = 0

    def cpus(self, value: float, vcpus: int) -> float:
        """A value in CPUs of the whole instance."""
        if self.unit in _GAUGES:
            return value * _GAUGES[self.unit] * vcpus
        return value * _COUNTERS[self.unit]

    def at(self, instance: str, window: int) -> float | None:
        """The value of a window; None if there is none."""
        return self.values.get(instance, {}).get(window)

    def after_gap(
        self, instance: str, window: int, window_seconds: int
    ) -> bool:
        """Whether the sample before may lie further back than it reaches."""
        if not self.reach_seconds:
            return False
        there = self.values.get(instance, {})
        steps = -(-self.reach_seconds // window_seconds)
        return not any(
            window - step * window_seconds in there
            for step in range(1, steps + 1)
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A unit that the values of a whole cloud speak against.

    :param role: ``cpu`` or ``steal``
    :param text: what is seen
    :param units: those that would be plausible
    """

    role: str
    text: str
    units: tuple[str, ...] = ()


def doubts(
    instances: Iterable[model.Instance], cpu: Measured, steal: Measured
) -> tuple[Doubt, ...]:
    """Units that cannot be meant, by what all instances read together.

    Values of zero say nothing, nor do single odd ones. Of a counter the
    median decides; of a gauge, whether values lie beyond it.
    """
    running = tuple(instances)
    found = (
        _doubt(role, measured, running)
        for role, measured in (("cpu", cpu), ("steal", steal))
    )
    return tuple(doubt for doubt in found if doubt is not None)


def _doubt(
    role: str, measured: Measured, instances: Sequence[model.Instance]
) -> Doubt | None:
    seen = [
        measured.cpus(value, i.flavor.vcpus) / i.flavor.vcpus
        for i in instances
        for value in measured.values.get(i.uuid, {}).values()
        if math.isfinite(value) and value > 0 and i.flavor.vcpus
    ]
    if len(seen) < _ENOUGH:
        return None
    if measured.unit in _GAUGES:
        odd = [cpus for cpus in seen if cpus > 1 + TOLERANCE]
        if len(odd) < max(_ENOUGH, _BEYOND * len(seen)):
            return None
    else:
        odd = seen
        if _SMALLEST_CPUS <= _median(seen) <= _LARGEST_CPUS:
            return None
    middle = _median(odd)
    raw = middle / measured.cpus(1.0, 1)
    return Doubt(
        role=role,
        text=f"{len(odd)} of {len(seen)} values are around {raw:.3g}: with "
        f"the unit {measured.unit} that is {middle:.3g} CPUs on one vCPU",
        units=tuple(
            unit
            for unit in UNITS
            if unit != measured.unit and _plausible(raw, unit)
        ),
    )


def _median(values: Sequence[float]) -> float:
    """The middle one, the higher of two."""
    return sorted(values)[len(values) // 2]


def _plausible(raw: float, unit: str) -> bool:
    """Whether a median of this size could be of that unit."""
    cpus = Measured(unit=unit, values={}).cpus(raw, 1)
    return _SMALLEST_CPUS <= cpus <= 1 + TOLERANCE


def vet(
    *,
    source: str,
    windows: Sequence[int],
    window_seconds: int,
    instances: Iterable[model.Instance],
    cpu: Measured,
    steal: Measured,
    changes: Mapping[str, Sequence[model.Change]],
    cpu_includes_wait: bool = False,
) -> model.Telemetry:
    """The readings that are fit, and what was wrong with the others.

    :param source: the datasource's name
    :param windows: when each begins; values of earlier windows only serve
        to tell gaps
    :param instances: those that were asked about
    :param changes: {instance uuid: what happened to it}
    :param cpu_includes_wait: whether the CPU metric counts the wait for a
        CPU as well, which is the steal
    :returns: who has nothing at all in any window is left out; who has only
        unfit readings is not
    """
    readings: dict[str, tuple[model.Reading | None, ...]] = {}
    rejected: dict[str, int] = {}
    for instance in instances:
        row: list[model.Reading | None] = []
        there = False
        for window in windows:
            found = _judge(
                instance,
                window,
                window_seconds,
                cpu,
                steal,
                changes.get(instance.uuid, ()),
                cpu_includes_wait,
            )
            if isinstance(found, str):
                rejected[found] = rejected.get(found, 0) + 1
                there = True
                found = None
            row.append(found)
        if there or any(row):
            readings[instance.uuid] = tuple(row)
    return model.Telemetry(
        source=source,
        window_seconds=window_seconds,
        windows=tuple(windows),
        readings=model.frozen_map(readings),
        rejected=model.frozen_map(rejected),
    )


def without_changes(
    telemetry: model.Telemetry,
    changes: Mapping[str, Sequence[model.Change]],
) -> model.Telemetry:
    """The same without readings that span changes which were found later.

    What Nova did to an instance may be read for a few instances only, once
    telemetry says which; values are taken to reach back by a window.
    """
    readings = dict(telemetry.readings)
    rejected = dict(telemetry.rejected)
    length = telemetry.window_seconds
    for uuid in readings.keys() & changes.keys():
        row = list(readings[uuid])
        for place, window in enumerate(telemetry.windows):
            change = next(
                _spanned(changes[uuid], window - length, window + length),
                None,
            )
            if change is not None and row[place] is not None:
                row[place] = None
                why = spanning(change)
                rejected[why] = rejected.get(why, 0) + 1
        readings[uuid] = tuple(row)
    return dataclasses.replace(
        telemetry,
        readings=model.frozen_map(readings),
        rejected=model.frozen_map(rejected),
    )


def spanning(change: model.Change) -> str:
    """The reason for which readings that span a change are unfit."""
    return f"spans a change ({change.kind})"


def _judge(
    instance: model.Instance,
    window: int,
    window_seconds: int,
    cpu: Measured,
    steal: Measured,
    changes: Sequence[model.Change],
    cpu_includes_wait: bool,
) -> model.Reading | str | None:
    """The reading of one window, why it is unfit, or None for nothing."""
    used = cpu.at(instance.uuid, window)
    waited = steal.at(instance.uuid, window)
    if used is None and waited is None:
        return None
    reach = max(cpu.reach_seconds, steal.reach_seconds)
    change = next(
        _spanned(changes, window - reach, window + window_seconds), None
    )
    if change is not None:
        return spanning(change)
    if waited is None:
        return NO_STEAL
    if used is None:
        return NO_USAGE
    for measured in (cpu, steal):
        if measured.after_gap(instance.uuid, window, window_seconds):
            return GAP
    for measured, value in ((cpu, used), (steal, waited)):
        wrong = _odd(measured.unit, value)
        if wrong:
            return wrong
    return _reading(
        cpu.cpus(used, instance.flavor.vcpus),
        steal.cpus(waited, instance.flavor.vcpus),
        instance.flavor.vcpus,
        cpu_includes_wait,
    )


def _spanned(
    changes: Sequence[model.Change], begin: int, end: int
) -> Iterator[model.Change]:
    """Changes that fall into a time, even in part, or make it the past.

    What was read before an instance moved or was resized tells nothing about
    where and what it is now.
    """
    for change in changes:
        if change.ended_at is not None and change.ended_at <= begin:
            continue
        if change.began_at < end or change.moved or change.kind in _MADE_ANEW:
            yield change


def _odd(unit: str, value: float) -> str:
    """What no value of this unit can be; empty if nothing is wrong."""
    if not math.isfinite(value):
        return NOT_FINITE
    if value < 0:
        return NEGATIVE if unit in _COUNTERS else OUT_OF_RANGE
    if unit in _GAUGES and value * _GAUGES[unit] > 1 + TOLERANCE:
        return OUT_OF_RANGE
    return ""


def _reading(
    usage: float, steal: float, vcpus: int, cpu_includes_wait: bool
) -> model.Reading | str:
    if cpu_includes_wait:
        if usage - steal < -TOLERANCE * vcpus:
            return WAIT_MISSING
        usage = max(0.0, usage - steal)
    if usage + steal > vcpus * (1 + TOLERANCE):
        return TOO_MUCH
    return model.Reading(usage_cpus=usage, steal_cpus=steal)
