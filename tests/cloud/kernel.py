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

"""What a kernel's fair scheduler makes of declared loads.

The hypervisors of the embedded cloud run nothing, so nothing is used there
and nobody waits. This module says what would be: it schedules the declared
vCPUs tick by tick, as a kernel does, and counts the time that each one ran
and the time that it was runnable and had to wait (the second number of
``/proc/PID/schedstat``, libvirt's ``vcpu.N.delay``, a guest's steal).

It knows nothing of entitlement, floors and tiers, and it solves no equation
for shares; they come about, or fail to:

* every CPU has a queue of its own and runs the entity with the least virtual
  runtime there, which grows by the time it ran over its weight;
* weights are those of a hierarchy. All guests together are one sibling of all
  daemons of the host, of equal weight; a domain has its weight among the
  guests; its runnable vCPUs share that equally, and idle ones lend theirs;
* who wakes up joins in the middle of a queue: time asleep earns no credit;
* a CPU that runs out of work pulls a waiting vCPU, and every tick one CPU
  tries to even out the weights that are queued. A move that is too big for
  the imbalance is refused, and after some refusals it is done, so that
  placements stick for a while and rotate in the long run;
* a vCPU is on one CPU at a time, and takes its virtual runtime along.

Loads are demands of CPU time, from 0 to 1 per vCPU. At 1 it is always
runnable. Below, work arrives in bursts: at its own times, no matter how the
last burst is getting on (*open*, the default), or some time after that one
was done (*closed*: clients that wait for an answer and think).

The same declaration and the same seed give the same numbers, in whatever
order domains are named: every vCPU draws from a sequence of its own.

What telemetry tests need is :func:`counters`, which takes a
:class:`~tests.cloud.spec.CloudSpec` and the demand of each instance::

    series = kernel.counters(
        spec,
        {"db-1": 1.0, "web": 0.3, "batch": (1.0, 0.0)},
        begin=1_700_000_100,
        interval_seconds=300,
        samples=4,
    )
    for time, cpu_ns, steal_ns in series["db-1"]:
        ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import math
import zlib

import numpy as np
import numpy.typing as npt

from tests.cloud import spec as spec_module

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Demand = float | Sequence[float]

TICK_SECONDS = 0.005
# Work that waits longer than this is given up, as clients do; it is enough to
# keep a vCPU runnable and too little to outlast a change of the load.
BACKLOG_SECONDS = 1.0
# How many bursts are drawn before a vCPU's sequence repeats.
_DRAWN = 512
_DAEMONS = ""
_MOST_REFUSED = 8
_EPSILON = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Domain:
    """A guest: the vCPUs that share one weight.

    :ivar weight: of the domain, as in ``cpu.shares`` or ``cpu.weight``
    :ivar demands: CPU time wanted, 0 to 1 for each vCPU
    :ivar period_seconds: from burst to burst, on average
    :ivar closed: the next burst comes after the last one was done
    """

    name: str
    weight: float
    demands: tuple[float, ...]
    period_seconds: float = 0.1
    closed: bool = False

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise ValueError(f"{self.name}: weight {self.weight}, not over 0")
        if not self.demands or not all(0 <= d <= 1 for d in self.demands):
            raise ValueError(
                f"{self.name}: demands {self.demands}; there must be one "
                "from 0 to 1 for each vCPU"
            )
        if not self.period_seconds > 0:
            raise ValueError(f"{self.name}: a period must be over 0")

    @property
    def vcpus(self) -> int:
        """How many there are."""
        return len(self.demands)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Host:
    """A host: CPUs that its guests and its own daemons share.

    :ivar daemons_cpus: CPU time that the daemons want, in CPUs
    :ivar daemons_weight: of all daemons together, where all guests together
        have 1
    """

    cpus: int
    domains: tuple[Domain, ...]
    daemons_cpus: float = 0.0
    daemons_weight: float = 1.0

    def __post_init__(self) -> None:
        if self.cpus < 1:
            raise ValueError(f"a host with {self.cpus} CPUs")
        if self.daemons_cpus < 0 or not self.daemons_weight > 0:
            raise ValueError("daemons want less than nothing")
        names = [domain.name for domain in self.domains]
        if len(names) != len(set(names)) or _DAEMONS in names:
            raise ValueError(f"names must be there and differ: {names}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """What the kernel counted of a domain in one window, per vCPU.

    :ivar run_seconds: it ran
    :ivar delay_seconds: it was runnable and another one ran
    """

    seconds: float
    run_seconds: tuple[float, ...]
    delay_seconds: tuple[float, ...]

    @property
    def usage_cpus(self) -> float:
        """CPUs used by all vCPUs together."""
        return sum(self.run_seconds) / self.seconds

    @property
    def steal_cpus(self) -> float:
        """CPUs missed by all vCPUs together."""
        return sum(self.delay_seconds) / self.seconds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """Cumulative counters of an instance, as a collector polls them.

    Iterating gives ``(time, cpu_ns, steal_ns)``.

    :ivar host: where it ran; the counters of another host begin at 0
    :ivar times: epoch seconds
    :ivar cpu_ns: run time of all vCPUs, Ceilometer's ``cpu``
    :ivar steal_ns: run-queue delay of all vCPUs
    """

    host: str
    vcpus: int
    times: tuple[int, ...]
    cpu_ns: tuple[int, ...]
    steal_ns: tuple[int, ...]

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(zip(self.times, self.cpu_ns, self.steal_ns, strict=True))


def counters(
    spec: spec_module.CloudSpec,
    loads: Mapping[str, Demand],
    *,
    begin: int,
    interval_seconds: int = 300,
    samples: int = 4,
    seed: int = 0,
    unset_weight: float = 100.0,
    daemons: Mapping[str, float] | None = None,
    placed: Mapping[str, str] | None = None,
    otherwise: Demand | None = None,
    earlier: Mapping[str, Series] | None = None,
    simulated_seconds: float = 10.0,
) -> dict[str, Series]:
    """The counters of every running instance of a declared cloud.

    A domain's weight is the ``quota:cpu_shares`` of its flavor, whatever its
    number of vCPUs: this is what Nova and libvirt do.

    :param loads: demand per vCPU, one for all vCPUs or one for each, by the
        name of an instance or of the declaration of ``count`` instances
    :param begin: epoch seconds of the first sample
    :param samples: how many; ``samples - 1`` windows lie between them. With
        ``earlier`` there are as many windows as samples.
    :param unset_weight: of flavors without ``quota:cpu_shares``: 100 on
        cgroup v2, 1024 on v1
    :param daemons: {host: CPUs that its daemons want}
    :param placed: {instance: host} of instances that are elsewhere than
        declared, or declared without a host
    :param otherwise: the demand of instances that ``loads`` does not name
    :param earlier: counters to go on from, where the instance is still on
        the same host; the others begin at 0
    :param simulated_seconds: of each window; what happened in them is taken
        for the whole window
    :returns: {instance: its counters}; stopped and paused ones have none
    :raises ValueError: names that are not declared, no demand, no host
    """
    domains = _domains(spec, loads, otherwise, unset_weight)
    where = {
        name: instance.host
        for instance in spec.instances
        for name in instance.names
    } | dict(placed or {})
    hosts = {host.name: host for host in spec.hosts}
    _declared("daemons", daemons or {}, hosts)
    _declared("placed", placed or {}, where)
    if lost := [d.name for d in domains if where[d.name] not in hosts]:
        raise ValueError(f"no declared host for {', '.join(lost)}")
    found: dict[str, Series] = {}
    for name in sorted(hosts):
        here = tuple(d for d in domains if where[d.name] == name)
        windows = simulate(
            Host(
                cpus=hosts[name].vcpus,
                domains=here,
                daemons_cpus=(daemons or {}).get(name, 0.0),
            ),
            seconds=simulated_seconds,
            windows=samples,
            seed=seed,
        )
        for domain in here:
            found[domain.name] = _series(
                name,
                [window[domain.name] for window in windows],
                begin,
                interval_seconds,
                (earlier or {}).get(domain.name),
            )
    return dict(sorted(found.items()))


def simulate(
    host: Host,
    *,
    seconds: float,
    windows: int = 1,
    warm_up_seconds: float = 2.0,
    tick_seconds: float = TICK_SECONDS,
    seed: int = 0,
) -> tuple[dict[str, Times], ...]:
    """Run a host and count.

    :param seconds: length of a window
    :param windows: how many, one after the other
    :param warm_up_seconds: that are run before and not counted
    :returns: {name: what it got} for each window
    """
    state = _Host(host, tick_seconds, seed)
    state.run(round(warm_up_seconds / tick_seconds))
    ticks = max(1, round(seconds / tick_seconds))
    found = []
    for _ in range(windows):
        state.reset()
        state.run(ticks)
        found.append(state.times(ticks * tick_seconds))
    return tuple(found)


def _declared(
    what: str, given: Mapping[str, object], known: Mapping[str, object]
) -> None:
    if unknown := sorted(set(given) - set(known)):
        raise ValueError(f"{what}: {', '.join(unknown)} is not declared")


def _domains(
    spec: spec_module.CloudSpec,
    loads: Mapping[str, Demand],
    otherwise: Demand | None,
    unset_weight: float,
) -> list[Domain]:
    flavors = {flavor.name: flavor for flavor in spec.flavors}
    known = {
        name: None
        for instance in spec.instances
        for name in (instance.name, *instance.names)
    }
    _declared("loads", loads, known)
    found = []
    for instance in spec.instances:
        if instance.stopped or instance.paused:
            continue
        flavor = flavors[instance.flavor]
        for name in instance.names:
            demand = loads.get(name, loads.get(instance.name, otherwise))
            if demand is None:
                raise ValueError(f"loads: no demand for {name}")
            if isinstance(demand, (int, float)):
                demand = (float(demand),) * flavor.vcpus
            if len(demand) != flavor.vcpus:
                raise ValueError(
                    f"loads.{name}: {len(demand)} demands for "
                    f"{flavor.vcpus} vCPUs"
                )
            weight = flavor.extra_specs.get("quota:cpu_shares", unset_weight)
            found.append(
                Domain(name=name, weight=float(weight), demands=tuple(demand))
            )
    return found


def _series(
    host: str,
    windows: Sequence[Times],
    begin: int,
    interval_seconds: int,
    earlier: Series | None,
) -> Series:
    vcpus = len(windows[0].run_seconds) if windows else 0
    if earlier is None:
        # As if it had been running like this for a day.
        past = 86_400
        cpu = [round(windows[0].usage_cpus * past * 1e9)]
        steal = [round(windows[0].steal_cpus * past * 1e9)]
        windows = windows[1:]
    elif earlier.host == host:
        cpu, steal = [earlier.cpu_ns[-1]], [earlier.steal_ns[-1]]
    else:
        cpu, steal = [0], [0]
    skipped = 0 if earlier is None else 1
    for window in windows:
        cpu.append(cpu[-1] + round(window.usage_cpus * interval_seconds * 1e9))
        steal.append(
            steal[-1] + round(window.steal_cpus * interval_seconds * 1e9)
        )
    count = len(cpu) - skipped
    return Series(
        host=host,
        vcpus=vcpus,
        times=tuple(begin + n * interval_seconds for n in range(count)),
        cpu_ns=tuple(cpu[skipped:]),
        steal_ns=tuple(steal[skipped:]),
    )


class _Host:
    """The queues of a host while it runs.

    An *entity* is a vCPU or a thread of a daemon; arrays are by entity, in
    the order of the domains' names, daemons last.
    """

    def __init__(self, host: Host, tick_seconds: float, seed: int) -> None:
        self.tick = tick_seconds
        self.now = 0.0
        self.cpus = host.cpus
        self.domains = sorted(host.domains, key=lambda d: d.name)
        groups = list(self.domains)
        if host.daemons_cpus:
            threads = math.ceil(host.daemons_cpus)
            groups.append(
                Domain(
                    name=_DAEMONS,
                    weight=host.daemons_weight,
                    demands=(host.daemons_cpus / threads,) * threads,
                )
            )
        self.daemons = len(groups) - 1 if host.daemons_cpus else None
        self.weights = np.array([g.weight for g in groups], dtype=float)
        self.group = np.repeat(
            np.arange(len(groups)), [g.vcpus for g in groups]
        )
        count = len(self.group)
        self._load(groups, seed)
        # Spread as they were started, one CPU after the other.
        self.cpu = np.arange(count) % self.cpus
        self.virtual = np.zeros(count)
        self.oldest = np.zeros(self.cpus)
        self.ran_last = np.zeros(count, dtype=bool)
        self.effective = np.zeros(count)
        self.refused = [0] * self.cpus
        self.turn = 0
        self.reset()

    def _load(self, groups: Sequence[Domain], seed: int) -> None:
        demands, periods, closed, drawn, phases = [], [], [], [], []
        for group in groups:
            stream = np.random.default_rng(
                [
                    seed,
                    zlib.crc32(group.name.encode()),
                ]
            )
            for wanted in group.demands:
                # A long one is followed by a short one, so that a window
                # holds what was declared.
                more = stream.uniform(-0.5, 0.5, _DRAWN // 2)
                drawn.append(np.stack([1 + more, 1 - more], 1).ravel())
                phases.append(stream.uniform())
                demands.append(wanted)
                periods.append(group.period_seconds)
                closed.append(group.closed)
        demand = np.array(demands)
        self.always = demand >= 1
        period = np.array(periods)
        self.burst = demand * period
        self.closed = np.array(closed, dtype=bool) & ~self.always
        self.drawn = np.array(drawn).reshape(-1, _DRAWN)
        self.draw = np.zeros(len(demand), dtype=np.intp)
        some = (demand > 0) & ~self.always
        # Mean time from arrival to arrival, or from the end to an arrival.
        self.pause = np.where(self.closed, period - self.burst, period)
        self.next = np.where(some, self.pause * np.array(phases), np.inf)
        self.work = np.where(self.always, np.inf, 0.0)

    def reset(self) -> None:
        """A new window begins."""
        self.ran = np.zeros(len(self.group))
        self.waited = np.zeros(len(self.group))

    def times(self, seconds: float) -> dict[str, Times]:
        """What was counted since the last reset."""
        return {
            domain.name: Times(
                seconds=seconds,
                run_seconds=tuple(self.ran[self.group == n].tolist()),
                delay_seconds=tuple(self.waited[self.group == n].tolist()),
            )
            for n, domain in enumerate(self.domains)
        }

    def run(self, ticks: int) -> None:
        """Run, and count."""
        if not len(self.group):
            return
        for _ in range(ticks):
            self._arrive()
            self.effective = weights = self._effective()
            self._even_out(weights)
            self._dispatch(weights)
            self.now += self.tick

    def _arrive(self) -> None:
        """Work that has come by now; who sleeps wakes up."""
        due = np.flatnonzero(self.next <= self.now)
        if not len(due):
            return
        asleep = due[self.work[due] <= _EPSILON]
        for entity in due.tolist():
            self._draw(entity)
        for entity in asleep.tolist():
            self._wake(entity)

    def _draw(self, entity: int) -> None:
        """Take the bursts that are due; an open load plans its next one."""
        while self.next[entity] <= self.now:
            factors = self.drawn[entity]
            turn = self.draw[entity]
            self.draw[entity] = turn + 1
            self.work[entity] += self.burst[entity] * factors[turn % _DRAWN]
            if self.closed[entity]:
                self.next[entity] = np.inf
            else:
                pause = self.pause[entity] * factors[-1 - turn % _DRAWN]
                self.next[entity] += pause
        self.work[entity] = min(
            self.work[entity], max(BACKLOG_SECONDS, 2 * self.burst[entity])
        )

    def _wake(self, entity: int) -> None:
        """Go to an idle CPU, else to the last one; claim nothing there."""
        queued = np.bincount(
            self.cpu[(self.work > _EPSILON)], minlength=self.cpus
        )
        here = self.cpu[entity]
        if queued[here] > 1 and not queued.all():
            self._move(entity, int(np.flatnonzero(queued == 0)[0]))
        queue = self.cpu == self.cpu[entity]
        weights = np.where(queue, self.effective, 0.0)
        weights[entity] = 0.0
        total = weights.sum()
        middle = self.oldest[self.cpu[entity]]
        if total:
            middle = (self.virtual * weights).sum() / total
        self.virtual[entity] = max(self.virtual[entity], middle)

    def _move(self, entity: int, target: int) -> None:
        """To another queue, as far ahead or behind as in the old one."""
        ahead = self.virtual[entity] - self.oldest[self.cpu[entity]]
        self.virtual[entity] = self.oldest[target] + ahead
        self.cpu[entity] = target

    def _effective(self) -> Floats:
        """The weight of each entity in its hierarchy; sleepers have none."""
        runnable = self.work > _EPSILON
        members = np.bincount(
            self.group, weights=runnable, minlength=len(self.weights)
        )
        weights = self.weights
        if self.daemons is not None:
            guests = weights[:-1][members[:-1] > 0].sum()
            weights = weights.copy()
            weights[-1] *= guests or 1.0
        shared = weights / np.maximum(members, 1)
        effective: Floats = np.where(runnable, shared[self.group], 0.0)
        return effective

    def _even_out(self, weights: Floats) -> None:
        """Idle CPUs pull first, then one CPU at its turn."""
        if self.cpus == 1:
            return
        queued = np.bincount(self.cpu[weights > 0], minlength=self.cpus)
        if queued.max() < 2:
            return
        for target in np.flatnonzero(queued == 0).tolist():
            source = self._busiest(weights, queued)
            if source is not None and self._pull(source, target, weights):
                queued[source] -= 1
                queued[target] += 1
        self.turn = target = (self.turn + 1) % self.cpus
        source = self._busiest(weights, queued)
        if source is None:
            return
        loads = np.bincount(self.cpu, weights=weights, minlength=self.cpus)
        imbalance = (loads[source] - loads[target]) / 2
        if imbalance <= loads[source] * 1e-6:
            return
        refused = self.refused[target]
        if self._pull(source, target, weights, imbalance * 2.0**refused):
            self.refused[target] = 0
        elif refused < _MOST_REFUSED:
            self.refused[target] += 1

    def _busiest(self, weights: Floats, queued: Indices) -> int | None:
        """The CPU with the most weight among those where somebody waits."""
        loads = np.bincount(self.cpu, weights=weights, minlength=self.cpus)
        source = int(np.argmax(np.where(queued > 1, loads, -1.0)))
        return source if queued[source] > 1 else None

    def _pull(
        self, source: int, target: int, weights: Floats, most: float = math.inf
    ) -> bool:
        """Take the heaviest that waits and weighs at most so much."""
        waiting = np.flatnonzero(
            (self.cpu == source) & (weights > 0) & ~self.ran_last
        )
        fitting = waiting[weights[waiting] <= most]
        if source == target or not len(fitting):
            return False
        self._move(int(fitting[np.argmax(weights[fitting])]), target)
        return True

    def _dispatch(self, weights: Floats) -> None:
        """Every CPU runs its first ones for one tick."""
        left = np.full(self.cpus, self.tick)
        runnable = weights > 0
        self.ran_last[:] = False
        waiting = np.where(runnable, self.tick, 0.0)
        while True:
            order = np.flatnonzero(runnable & (left[self.cpu] > _EPSILON))
            if not len(order):
                break
            order = order[np.lexsort((self.virtual[order], self.cpu[order]))]
            cpus = self.cpu[order]
            first = np.ones(len(order), dtype=bool)
            first[1:] = cpus[1:] != cpus[:-1]
            chosen, cpus = order[first], cpus[first]
            self.oldest[cpus] = np.maximum(
                self.oldest[cpus], self.virtual[chosen]
            )
            ran = np.minimum(left[cpus], self.work[chosen])
            left[cpus] -= ran
            self.work[chosen] -= ran
            self.virtual[chosen] += ran / weights[chosen]
            self.ran[chosen] += ran
            waiting[chosen] -= ran
            self.ran_last[chosen] = True
            done = chosen[self.work[chosen] <= _EPSILON]
            if len(done):
                runnable[done] = False
                waiting[done] -= left[self.cpu[done]]
                self._finish(done, left)
        self.waited += np.maximum(waiting, 0.0)

    def _finish(self, done: Indices, left: Floats) -> None:
        """Clients that waited for it think, and come again."""
        for entity in done[self.closed[done]]:
            ended = self.now + self.tick - left[self.cpu[entity]]
            turn = self.draw[entity] - 1
            pause = self.pause[entity] * self.drawn[entity, -1 - turn % _DRAWN]
            self.next[entity] = ended + pause
