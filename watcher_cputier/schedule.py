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

"""In which order, and what at the same time.

The planner hands over a serial order: each migration is admissible when those
before it have ended, with both sides held while it is in flight. A schedule
is what may run in parallel instead.

**Earmarking.** Every unit that an arrival takes on its target comes from what
was free at first or from named earlier departures: those are its *needs*, and
they must have succeeded before it starts. The rooms that are earmarked are

* a resource class of a provider, as Placement charges it,
* the headroom of a host within the quota of an account,
* the places of an anti-affinity group on a host.

A room that is overdrawn at first (a host over its capacity or quota) is no
room until it is even again: whoever takes units there needs the departures
that paid the deficit off as well. What was free at first is used first, then
the departures that the arrival needs anyway, then those with the shortest
chains behind them. No unit is earmarked twice, so any execution that starts a
step only after its needs have succeeded is safe, whatever else runs, ends,
fails or is skipped in the meantime.

Three things are not room and have needs of their own: the second move of an
instance that was parked needs the first; the moves of one affinity group go
one by one, each depends on where the others are; and an instance with a
scheduler hint moves in the order of the plan with those that it names. A
step that the books cannot fund (where several providers have a class and it is
not known which one a departure relieves) needs all that come before it: then
it is as safe as the serial order.

**Limits.** ``parallel_total``, ``parallel_per_source`` and
``parallel_per_target`` hold whatever the finishing order, because they are
made of edges: each step is given a slot of the plan, of its source and of its
target, and starts *after* the step that had the slot before has ended, in
success or failure. Slots are given by list scheduling with the expected
durations: of the steps that could start the one with the longest chain of
work behind it goes first, be it the steps that need it or those that wait for
the same host.

**Makespan.** No schedule of these migrations with these needs is shorter than
the longest chain of needs, where needs that have to take turns at one host
count one after the other; than the work of any source or target divided by
its limit, together with what comes before and after it; or than all work
divided by ``parallel_total``. The largest of them is published as the bound.

Worked example. Host b is full; x leaves b for c, y comes to b from a, z goes
from a to d where there is room. y needs x. With two in parallel and one per
source, x and z start at once; y starts after z (the same source) and x.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
import heapq
import math

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import books

# A live migration copies an instance's memory. This is a network of 10 Gbit/s
# and a guest that dirties its pages slowly; only ratios matter to the order.
COPY_MB_PER_SECOND = 1024
# How often a schedule above its bound is made anew, up to how many steps it
# may have, how much more urgent its critical path becomes each time, and how
# near the bound is near enough.
_TURNS = 16
_MANY = 4000
_PRESSURE = 1.15
_TIGHT = 1.001
SHORTEST_SECONDS = 1.0
# Migrations per barrier of Watcher's own ``weight`` planner, by default.
PAIR = 2
# How many candidates are tried for the better half of a pair.
_PARTNERS = 64


def expected_seconds(instance: model.Instance) -> float:
    """How long a live migration of an instance is expected to take."""
    return max(
        SHORTEST_SECONDS, instance.flavor.memory_mb / COPY_MB_PER_SECOND
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One migration in its place.

    Others are named by their positions in the serial order.

    :param needs: steps whose success it depends on; sorted
    :param after: further steps that must have ended, in whatever way; sorted
    :param seconds: expected duration
    :param start: expected start, in seconds from the plan's
    """

    migration: planner.Migration
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    seconds: float
    start: float

    @property
    def end(self) -> float:
        """Expected end, in seconds from the plan's start."""
        return self.start + self.seconds

    @property
    def parents(self) -> tuple[int, ...]:
        """All that must have ended before it starts; sorted."""
        return tuple(sorted((*self.needs, *self.after)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The steps of a plan.

    :param steps: in the serial order of the plan
    :param makespan_seconds: expected duration of the whole
    :param makespan_bound_seconds: no schedule of these steps within the
        limits takes less, by the same durations
    """

    steps: tuple[Step, ...] = ()
    makespan_seconds: float = 0.0
    makespan_bound_seconds: float = 0.0

    @property
    def depth(self) -> int:
        """Steps in the longest chain of needs."""
        return 1 + max(_levels(self.steps), default=-1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """An order for a planner that runs list neighbours together.

    :param order: positions of the steps to emit, pair by pair
    :param left_out: positions of those that no pair can take any more: each
        needs the one that it would share a pair with. They are for the next
        audit, which finds the room that the others made
    """

    order: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()


def arrange(
    cluster: model.Cluster,
    migrations: Sequence[planner.Migration],
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
) -> Schedule:
    """Find out who waits for whom, and how long it takes.

    :param migrations: of a plan, in its serial order
    """
    needs = _Earmarks(cluster, diagnosis).of(migrations)
    seconds = [expected_seconds(m.instance) for m in migrations]
    work = _Work(migrations, needs, seconds, params)
    starts, after = work.listed()
    steps = tuple(
        Step(
            migration=migration,
            needs=tuple(sorted(needs[i])),
            after=tuple(sorted(after[i] - needs[i])),
            seconds=seconds[i],
            start=starts[i],
        )
        for i, migration in enumerate(migrations)
    )
    return Schedule(
        steps=steps,
        makespan_seconds=max((step.end for step in steps), default=0.0),
        makespan_bound_seconds=work.bound(),
    )


# Who waits for whose room


@dataclasses.dataclass(slots=True)
class _Room:
    """Units of one kind in one place.

    :param free: what is left of the beginning; negative if overdrawn
    :param payers: departures that paid the overdraft off
    :param credits: {departure: units of it that nobody has taken yet}
    """

    free: int
    payers: set[int] = dataclasses.field(default_factory=set)
    credits: dict[int, int] = dataclasses.field(default_factory=dict)

    def give(self, step: int, units: int) -> None:
        """A departure."""
        if self.free < 0:
            paid = min(-self.free, units)
            self.free += paid
            units -= paid
            self.payers.add(step)
        if units:
            self.credits[step] = self.credits.get(step, 0) + units

    def take(self, units: int, needs: set[int], level: list[int]) -> bool:
        """An arrival; adds what it needs. False if there is not enough."""
        needs |= self.payers
        taken = min(units, max(0, self.free))
        self.free -= taken
        units -= taken
        while units and self.credits:
            giver = min(
                self.credits, key=lambda i: (i not in needs, level[i], i)
            )
            taken = min(units, self.credits[giver])
            units -= taken
            self.credits[giver] -= taken
            needs.add(giver)
            if not self.credits[giver]:
                del self.credits[giver]
        self.free -= units
        return not units


_Key = tuple[str, str, str]


class _Earmarks:
    """The books of one plan: which unit comes from where."""

    def __init__(
        self, cluster: model.Cluster, diagnosis: diagnosing.Diagnosis
    ) -> None:
        self._cluster = cluster
        self._diagnosis = diagnosis
        self._rooms: dict[_Key, _Room] = {}
        self._used: dict[tuple[str, str], int] = {}
        self._providers = {
            provider.uuid: provider
            for host in cluster.hosts
            for provider in host.providers + host.shared
        }
        # Where instances are by now, and what each takes there.
        self._at: dict[str, tuple[str, Mapping[_Key, int]]] = {}
        self._last: dict[str, int] = {}
        self._groups = {group.uuid: group for group in cluster.server_groups}
        # {instance: those whose scheduler hints name it}
        self._hinted_by: dict[str, list[str]] = {}
        for instance in cluster.instances:
            for uuid in instance.different_host | instance.same_host:
                self._hinted_by.setdefault(uuid, []).append(instance.uuid)

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """Units in use, as :func:`capacity.charge` asks for them."""
        key = (provider_uuid, resource_class)
        if key not in self._used:
            provider = self._providers.get(provider_uuid)
            self._used[key] = (
                0
                if provider is None
                else provider.allocated.get(resource_class, 0)
            )
        return self._used[key]

    def held(self, host: str, tier: str) -> int:
        """Not asked for: quotas are rooms of their own."""
        return 0

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Not asked for: places in a group are rooms of their own."""
        return 0

    def of(self, migrations: Sequence[planner.Migration]) -> list[set[int]]:
        """What each step needs."""
        needs: list[set[int]] = []
        barrier = 0
        level: list[int] = []
        cures: dict[str, list[int]] = {}
        for step, migration in enumerate(migrations):
            instance = migration.instance
            host = self._cluster.host_by_name[migration.target]
            leaves = self._standing(instance)[1]
            takes, funded = self._taking(instance, host)
            mine = self._companions(instance)
            if instance.uuid in self._last:
                mine.add(self._last[instance.uuid])
            if migration.relieves:
                # The steps of a cure belong together.
                mine.update(cures.get(migration.relieves[0], ()))
                cures[migration.relieves[0]] = [step]
            for key, units in takes.items():
                if not self._room(key).take(units, mine, level):
                    funded = False
            if not funded:
                # Its needs include those of the barrier before it.
                mine |= set(range(barrier, step))
                barrier = step
            needs.append(mine)
            level.append(1 + max((level[i] for i in needs[step]), default=-1))
            for key, units in leaves.items():
                self._room(key).give(step, units)
            self._book(leaves, -1)
            self._book(takes, +1)
            self._at[instance.uuid] = (migration.target, takes)
            self._last[instance.uuid] = step
        return needs

    def _book(self, amounts: Mapping[_Key, int], sign: int) -> None:
        for (kind, where, name), units in amounts.items():
            if kind == "class":
                self._used[where, name] = self.used(where, name) + sign * units

    def _standing(
        self, instance: model.Instance
    ) -> tuple[str, Mapping[_Key, int]]:
        """Where an instance is, and what that host is rid of without it."""
        if instance.uuid not in self._at:
            units = dict.fromkeys(
                self._cluster.accounts_of(instance), instance.units
            )
            charge = books.released(self._cluster, instance)
            self._at[instance.uuid] = (
                instance.host,
                self._amounts(instance, instance.host, charge, units),
            )
        return self._at[instance.uuid]

    def _taking(
        self, instance: model.Instance, host: model.Host
    ) -> tuple[Mapping[_Key, int], bool]:
        """What an arrival takes; and whether its providers can be told."""
        charge = capacity.charge(self, instance.flavor, host)
        funded = charge is not None
        if charge is None:
            charge = books.released(
                self._cluster,
                dataclasses.replace(
                    instance, host=host.name, allocations=model.frozen_map()
                ),
            )
        claims = capacity.claims(self._cluster, instance)
        return self._amounts(instance, host.name, charge, claims), funded

    def _amounts(
        self,
        instance: model.Instance,
        host: str,
        charge: Mapping[tuple[str, str], int],
        units: Mapping[str, int],
    ) -> Mapping[_Key, int]:
        found: dict[_Key, int] = {
            ("class", provider, name): amount
            for (provider, name), amount in charge.items()
            if amount
        }
        for account, amount in units.items():
            if amount and self._diagnosis.quota(host, account) is not None:
                found["quota", host, account] = amount
        group = self._cluster.group_by_member.get(instance.uuid)
        if group is not None and group.policy == "anti-affinity":
            found["group", host, group.uuid] = 1
        return found

    def _room(self, key: _Key) -> _Room:
        if key not in self._rooms:
            self._rooms[key] = _Room(self._free(*key))
        return self._rooms[key]

    def _free(self, kind: str, where: str, name: str) -> int:
        """What is free at first; negative where too much is taken."""
        if kind == "class":
            provider = self._providers.get(where)
            if provider is None or name not in provider.inventories:
                return 0
            room = provider.inventories[name].capacity
            return room - provider.allocated.get(name, 0)
        if kind == "quota":
            quota = self._diagnosis.quota(where, name)
            assert quota is not None  # such quotas make no room
            return quota - self._cluster.held.get((where, name), 0)
        group = self._groups[name]
        there = sum(
            1
            for uuid in group.members
            if (one := self._cluster.instance_by_uuid.get(uuid)) is not None
            and one.host == where
        )
        return group.max_per_host - there

    def _companions(self, instance: model.Instance) -> set[int]:
        """Earlier steps of instances that must or must not be near it."""
        group = self._cluster.group_by_member.get(instance.uuid)
        uuids = {
            *instance.different_host,
            *instance.same_host,
            *self._hinted_by.get(instance.uuid, ()),
        }
        if group is not None and group.policy == "affinity":
            uuids |= group.members - {instance.uuid}
        return {self._last[uuid] for uuid in uuids if uuid in self._last}


# Who waits for whose slot


class _Slots:
    """Slots of the plan or of one side of a host; each has one user."""

    def __init__(self, count: int) -> None:
        self._last: list[int | None] = [None] * count
        self._busy = [False] * count
        self._slot_of: dict[int, int] = {}

    @property
    def free(self) -> bool:
        """Whether some slot is."""
        return not all(self._busy)

    def take(
        self, step: int, parents: set[int], ends: Mapping[int, float]
    ) -> int | None:
        """Give a free slot to a step; who had it before.

        One without a new edge if there is one, else the one that has been
        free for longest: a delay of its last user matters least.
        """

        def cost(slot: int) -> tuple[float, int]:
            last = self._last[slot]
            if last is None or last in parents:
                return (-1.0, slot)
            return (ends[last], slot)

        slot = min((s for s, b in enumerate(self._busy) if not b), key=cost)
        before, self._last[slot] = self._last[slot], step
        self._busy[slot] = True
        self._slot_of[step] = slot
        return before

    def leave(self, step: int) -> None:
        """A step has ended."""
        self._busy[self._slot_of.pop(step)] = False


_Side = tuple[str, str]


class _Work:
    """The steps with their durations and limits."""

    def __init__(
        self,
        migrations: Sequence[planner.Migration],
        needs: Sequence[set[int]],
        seconds: Sequence[float],
        params: parameters.Parameters,
    ) -> None:
        self._count = len(migrations)
        self._seconds = seconds
        self._parents = needs
        self._total = params.parallel_total
        self._limit = {
            "from": params.parallel_per_source,
            "to": params.parallel_per_target,
        }
        self._sides: list[tuple[_Side, _Side]] = [
            (("from", m.source), ("to", m.target)) for m in migrations
        ]
        self._names = [
            (*m.instance.sort_key, i) for i, m in enumerate(migrations)
        ]
        self._children: list[list[int]] = [[] for _ in migrations]
        for step, parents in enumerate(self._parents):
            for parent in parents:
                self._children[parent].append(step)
        self._by_side: dict[_Side, list[int]] = {}
        for step, sides in enumerate(self._sides):
            for side in sides:
                self._by_side.setdefault(side, []).append(step)
        count = range(self._count)
        # Seconds before a step at least, and after it.
        self._heads = self._least(self._parents, count)
        self._tails = self._least(self._children, reversed(count))

    def _least(
        self, others: Sequence[Collection[int]], order: Iterable[int]
    ) -> list[float]:
        """The least time until all that a step waits for has ended.

        That of the longest chain, or that of what has to take turns at one
        host, which begins when the first of it can.

        :param others: what each step waits for
        :param order: the steps, after what they wait for
        """
        found = [0.0] * self._count
        for step in order:
            sides: dict[_Side, list[int]] = {}
            for other in others[step]:
                found[step] = max(
                    found[step], found[other] + self._seconds[other]
                )
                for side in self._sides[other]:
                    sides.setdefault(side, []).append(other)
            for side, turns in sides.items():
                if len(turns) > self._limit[side[0]]:
                    done = 0.0
                    for other in sorted(turns, key=found.__getitem__):
                        done = max(done, found[other]) + self._took(
                            other, side
                        )
                    found[step] = max(found[step], done)
        return found

    def _took(self, step: int, side: _Side) -> float:
        """Seconds of a host's time, of which it may have several at once."""
        return self._seconds[step] / self._limit[side[0]]

    def children(self, step: int) -> Sequence[int]:
        """The steps that wait for this one."""
        return self._children[step]

    def bound(self) -> float:
        """What no schedule falls below; see the module."""
        found = max(
            (
                head + took + tail
                for head, took, tail in zip(
                    self._heads, self._seconds, self._tails, strict=True
                )
            ),
            default=0.0,
        )
        for side, steps in self._by_side.items():
            if len(steps) > self._limit[side[0]]:
                found = max(
                    found,
                    _in_turn(
                        (
                            self._heads[step],
                            self._took(step, side),
                            self._tails[step],
                        )
                        for step in steps
                    ),
                )
        return max(found, self._whole(sum(self._seconds) / self._total))

    def _whole(self, seconds: float) -> float:
        """The next time at which a step may end: all durations are multiples
        of one, and no step of a shortest schedule starts at another time.
        """
        copied = [s * COPY_MB_PER_SECOND for s in self._seconds]
        if not copied or any(mb != int(mb) for mb in copied):
            return seconds
        grain = math.gcd(*map(int, copied)) / COPY_MB_PER_SECOND
        return max(seconds, math.ceil(seconds / grain - 1e-9) * grain)

    def urgency(self) -> list[float]:
        """Seconds of work that wait, directly or not, for each step.

        What comes after it at least, or what its hosts still have to do if
        they take their steps in that order.
        """
        after = [
            took + tail
            for took, tail in zip(self._seconds, self._tails, strict=True)
        ]
        found = list(after)
        for side, steps in self._by_side.items():
            load = 0.0
            # The last ones first: what is added up comes after them.
            for step in sorted(
                steps,
                key=lambda i: (-after[i], self._names[i]),
                reverse=True,
            ):
                load += self._took(step, side)
                found[step] = max(found[step], load)
        return found

    def listed(self) -> tuple[list[float], list[set[int]]]:
        """List scheduling: expected starts, and who had each one's slots.

        By urgency first. Where that stays above the bound, what was on the
        critical path is made more urgent, a few times over (Joslin and
        Clements, 1999); the shortest schedule is taken.
        """
        urgency = self.urgency()
        found = self._by_urgency(urgency)
        shortest, bound = self._makespan(found[0]), self.bound()
        starts, after = found
        for _ in range(_TURNS if self._count <= _MANY else 0):
            if shortest <= bound * _TIGHT:
                break
            for step in self._critical(starts, after):
                urgency[step] *= _PRESSURE
            starts, after = self._by_urgency(urgency)
            if self._makespan(starts) < shortest:
                found, shortest = (starts, after), self._makespan(starts)
        return found

    def _by_urgency(
        self, urgency: Sequence[float]
    ) -> tuple[list[float], list[set[int]]]:
        return _Listing(
            self._parents,
            self._children,
            self._sides,
            self._seconds,
            [
                (-urgent, *name)
                for urgent, name in zip(urgency, self._names, strict=True)
            ],
            self._total,
            self._limit,
        ).run()

    def _makespan(self, starts: Sequence[float]) -> float:
        return max(
            (s + took for s, took in zip(starts, self._seconds, strict=True)),
            default=0.0,
        )

    def _critical(
        self, starts: Sequence[float], after: Sequence[set[int]]
    ) -> set[int]:
        """The steps without a pause before the last end."""
        last = self._makespan(starts)
        found: set[int] = set()
        look = [
            step
            for step in range(self._count)
            if starts[step] + self._seconds[step] == last
        ]
        while look:
            step = look.pop()
            if step in found:
                continue
            found.add(step)
            look += [
                before
                for before in after[step] | self._parents[step]
                if starts[before] + self._seconds[before] == starts[step]
            ]
        return found


def _in_turn(steps: Iterable[tuple[float, float, float]]) -> float:
    """The least time in which one host takes its steps, what comes before
    and after them included (Jackson's preemptive schedule; Carlier, 1982).

    :param steps: (seconds before, seconds at the host, seconds after)
    """
    coming = sorted(steps, reverse=True)
    waiting: list[tuple[float, float]] = []
    now = longest = 0.0
    while coming or waiting:
        if not waiting:
            now = max(now, coming[-1][0])
        while coming and coming[-1][0] <= now:
            _, took, tail = coming.pop()
            heapq.heappush(waiting, (-tail, took))
        tail, took = heapq.heappop(waiting)
        run = min(took, coming[-1][0] - now) if coming else took
        now += run
        if run < took:
            heapq.heappush(waiting, (tail, took - run))
        else:
            longest = max(longest, now - tail)
    return longest


_Rank = tuple[float, str, str, int]


def _position(rank: _Rank) -> int:
    return rank[-1]


class _Listing:
    """One run of the list scheduler.

    A step that could start but for a busy host waits at that host, so that
    it is looked at again only when the host is free.
    """

    def __init__(
        self,
        parents: Sequence[set[int]],
        children: Sequence[Sequence[int]],
        sides: Sequence[tuple[_Side, _Side]],
        seconds: Sequence[float],
        ranks: Sequence[_Rank],
        total: int,
        limit: Mapping[str, int],
    ) -> None:
        self._parents = parents
        self._children = children
        self._sides = sides
        self._seconds = seconds
        self._ranks = ranks
        # The last part of a rank is the step itself.
        self._ready: list[_Rank] = []
        self._left = [len(found) for found in parents]
        self._plan = _Slots(min(total, max(1, len(parents))))
        self._hosts = {
            side: _Slots(limit[side[0]]) for pair in sides for side in pair
        }
        self._waiting: dict[_Side, list[_Rank]] = {}
        self._running: list[tuple[float, int]] = []
        self._starts = [0.0] * len(parents)
        self._ends: dict[int, float] = {}
        self._after: list[set[int]] = [set() for _ in parents]

    def run(self) -> tuple[list[float], list[set[int]]]:
        """Expected starts, and the steps whose slots each one takes over."""
        self._ready = [
            rank
            for rank, left in zip(self._ranks, self._left, strict=True)
            if not left
        ]
        heapq.heapify(self._ready)
        now = 0.0
        while True:
            while self._ready and self._plan.free:
                self._consider(heapq.heappop(self._ready), now)
            if not self._running:
                break
            now = self._running[0][0]
            while self._running and self._running[0][0] == now:
                self._end(heapq.heappop(self._running)[1])
        assert len(self._ends) == len(self._parents)
        return self._starts, self._after

    def _consider(self, rank: _Rank, now: float) -> None:
        step = _position(rank)
        busy = [s for s in self._sides[step] if not self._hosts[s].free]
        if not busy:
            self._start(step, now)
            return
        heapq.heappush(self._waiting.setdefault(busy[0], []), rank)
        # It was woken for a free host that it cannot use after all.
        for side in self._sides[step]:
            if side not in busy:
                self._wake(side)

    def _start(self, step: int, now: float) -> None:
        self._starts[step] = now
        self._ends[step] = now + self._seconds[step]
        heapq.heappush(self._running, (self._ends[step], step))
        after = self._after[step]
        for slots in (
            *(self._hosts[s] for s in self._sides[step]),
            self._plan,
        ):
            before = slots.take(step, self._parents[step] | after, self._ends)
            if before is not None:
                after.add(before)

    def _end(self, step: int) -> None:
        self._plan.leave(step)
        for side in self._sides[step]:
            self._hosts[side].leave(step)
            self._wake(side)
        for child in self._children[step]:
            self._left[child] -= 1
            if not self._left[child]:
                heapq.heappush(self._ready, self._ranks[child])

    def _wake(self, side: _Side) -> None:
        if self._waiting.get(side):
            heapq.heappush(self._ready, heapq.heappop(self._waiting[side]))


# Watcher's own planner


def pairs(schedule: Schedule, params: parameters.Parameters) -> Pairs:
    """An order in which list neighbours may safely run together.

    Watcher's ``weight`` planner runs the first two migrations of the list,
    waits for both, runs the next two, and so on. Both halves of a pair have
    all they wait for in earlier pairs; the longest chain comes first, with a
    partner from and to other hosts if there is one. The limits of the
    parameters are no more than that preference: how many run at once is that
    planner's own option.
    """
    steps = schedule.steps
    work = _Work(
        [step.migration for step in steps],
        [set(step.needs) for step in steps],
        [step.seconds for step in steps],
        params,
    )
    ranks: list[_Rank] = [
        (-urgent, *steps[i].migration.instance.sort_key, i)
        for i, urgent in enumerate(work.urgency())
    ]
    left = [len(step.needs) for step in steps]
    ready = [
        rank for rank, count in zip(ranks, left, strict=True) if not count
    ]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        pair = _pair(steps, ready)
        order += pair
        for step in pair:
            for child in work.children(step):
                left[child] -= 1
                if not left[child]:
                    heapq.heappush(ready, ranks[child])
        if len(pair) < PAIR:
            break
    return Pairs(
        order=tuple(order),
        left_out=tuple(sorted(set(range(len(steps))) - set(order))),
    )


def _pair(steps: Sequence[Step], ready: list[_Rank]) -> list[int]:
    """The most urgent step, with a partner if there is any."""
    first = _position(heapq.heappop(ready))
    passed: list[_Rank] = []
    found: _Rank | None = None
    while ready and len(passed) < _PARTNERS:
        rank = heapq.heappop(ready)
        one, other = steps[first].migration, steps[_position(rank)].migration
        if one.source != other.source and one.target != other.target:
            found = rank
            break
        passed.append(rank)
    if found is None and passed:
        found = passed.pop(0)
    for rank in passed:
        heapq.heappush(ready, rank)
    return [first] if found is None else [first, _position(found)]


def _levels(steps: Iterable[Step]) -> list[int]:
    """Steps that each one has to wait for, one behind the other."""
    found: list[int] = []
    for step in steps:
        found.append(1 + max((found[i] for i in step.needs), default=-1))
    return found
