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

"""Cures of starvation: which migrations help whom, and where to.

Theory of operation. The model of entitlement forecasts who would get what on
a host with other people on it (:mod:`watcher_cputier.starvation`). A *cure*
of a starved instance is one of

* the instance itself moves;
* competitors leave its host, one or a few of them;
* it changes places with an instance of another host, or that one makes way
  for it and goes to a third.

Rules.

1. Whom a cure is for, and everybody whom it puts at a disadvantage, must be
   *clearly* out of starvation by the forecast: their deficit at most
   :data:`CLEAR` of the threshold (hysteresis, R104). Everybody else on the
   hosts concerned is at least as well off as before. Who leaves a host is
   never missed by those left behind; the forecast is made all the same where
   somebody else comes.
2. A target must be known: its CPUs, what its tiers are promised, and what
   everybody there wants. Where somebody starves it takes nobody.
3. Where the forecast of a host as it is does not show the starvation that was
   measured there, the model does not explain it, and no migration is promised
   to cure it. Where some there were not measured at all, the instance itself
   may go where all is well; that others leave promises nothing.
4. Room, quotas and all other rules are those of the planner: each step of a
   cure is admitted in the state that the steps before it leave.
5. Nobody moves twice, but for an exchange in which one of the two has to be
   parked, and nobody who cools down.

Of the cures of an instance the one is taken with the largest *gain* for each
migration: CPUs of deficit that it removes, of whomever, each divided by the
rank of the tier (1 for the highest, 1/2 for the second, ...). Then the least
memory is copied, then the lowest priorities move, then names decide. Which
instance is cured first: the highest tier, the highest priority, the largest
gain for each migration (L6). Targets rank by the weigher, then by what the
instance gets there, then by the utilisation of its tier, then by name.

Since weights, not only loads, decide who gets what, it may be that an
instance with too little weight is served where there are CPUs to spare, and
that is where it goes. Its flavor is still wrong, and the plan says so.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import heapq
import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from watcher_cputier import constraints
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier import weigher
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

CLEAR = 0.5
"""The part of the threshold below which a forecast deficit is none."""

# Competitors that leave a host together, at most, and how many of them are
# tried for each place in the row.
_TOGETHER = 4
_TRIED = 4
# Hosts whose CPUs would not be enough for all that is wanted, and pairs for
# an exchange, that are looked at closely for one instance.
_CONTENDED = 32
_PAIRS = 64
# Pairs for which a third host is looked for.
_THIRDS = 8
_DECIMALS = 9
_EPSILON = 1e-9

Floats = npt.NDArray[np.float64]
Step = tuple[model.Instance, int, bool]
"""An instance, the row of its target, and whether it is only parked."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Cure:
    """Migrations that belong together, and what they bring.

    :param focal: the starved instance that they are for
    :param source: the host that it starves on
    :param steps: in an order in which each is admitted
    :param gain: CPUs of deficit that they remove, weighted by tier
    :param relieved: uuids of those that they relieve, the focal one first
    :param rows: hosts that it turns on
    :param version: sum of the versions of those hosts when it was found
    """

    focal: starving.Condition
    source: str
    steps: tuple[Step, ...]
    gain: float
    relieved: tuple[str, ...]
    rows: frozenset[int]
    version: int

    @property
    def worth(self) -> tuple[Any, ...]:
        """Sort key: the best first."""
        return (
            -round(self.gain / len(self.steps), _DECIMALS),
            sum(one.flavor.memory_mb for one, _, _ in self.steps),
            sum(one.priority for one, _, _ in self.steps),
            len(self.steps),
            *(one.sort_key for one, _, _ in self.steps),
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Told:
    """A step of a cure as it was made.

    :param account: what its units count against: the first account that its
        host is over its quota in, else its tier
    :param units: units of excess that its host is rid of
    :param usage_after: CPUs per vCPU that the focal instance gets after the
        whole cure
    """

    cure: Cure
    instance: model.Instance
    source: str
    target: str
    parking: bool
    weight: weigher.Weight
    account: str
    units: int
    usage_after: float = 0.0


class Picture:
    """Who is where as a plan grows, as forecasts want to know it."""

    def __init__(self, starvation: starving.Starvation) -> None:
        assert starvation.sight is not None  # somebody was judged
        self._starvation = starvation
        self._loads = starvation.sight.loads
        self._coming: dict[str, frozenset[str]] = {}
        self._going: dict[str, frozenset[str]] = {}
        self._now: dict[str, starving.Forecast] = {}

    def move(self, uuid: str, source: str, target: str) -> None:
        """An instance is on another host from now on."""
        for host, coming, going in (
            (source, (), (uuid,)),
            (target, (uuid,), ()),
        ):
            then = self.population(host, coming, going)
            self._coming[host] = then.arrivals
            self._going[host] = then.departures
            self._now.pop(host, None)

    def population(
        self,
        host: str,
        coming: Iterable[str] = (),
        going: Iterable[str] = (),
    ) -> starving.Population:
        """A host as it would be, relative to what was measured."""
        arrivals = set(self._coming.get(host, ()))
        departures = set(self._going.get(host, ()))
        for uuid in going:
            if self.home(uuid) == host:
                departures.add(uuid)
            arrivals.discard(uuid)
        for uuid in coming:
            if self.home(uuid) != host:
                arrivals.add(uuid)
            departures.discard(uuid)
        return starving.Population(
            host=host,
            arrivals=frozenset(arrivals),
            departures=frozenset(departures),
        )

    def home(self, uuid: str) -> str:
        """Where an instance was measured."""
        loads = self._loads
        return loads.instances[loads.position[uuid]].host

    def demand(self, uuid: str) -> float:
        """CPUs that an instance wants."""
        return float(self._loads.demands[self._loads.position[uuid]])

    def floor(self, uuid: str, host: str) -> float | None:
        """f0 of an instance on a host; None where it is not known."""
        loads = self._loads
        tier = loads.tier[loads.position[uuid]]
        if tier < 0:
            return None
        found = float(loads.floors[loads.host_position[host], tier])
        return None if math.isnan(found) else found

    def judged(self, host: str) -> bool:
        """Whether all that a forecast of a host is made of was measured."""
        now = self.now(host)
        return not (now.unknown or now.guessed)

    def changed(self, host: str) -> bool:
        """Whether other people are there than were measured."""
        return bool(self._coming.get(host) or self._going.get(host))

    def forecasts(
        self, populations: Iterable[starving.Population]
    ) -> tuple[starving.Forecast, ...]:
        """What the model expects."""
        return self._starvation.predict(populations)

    def now(self, host: str) -> starving.Forecast:
        """What the model expects of a host as it is by now."""
        found = self._now.get(host)
        if found is None:
            (found,) = self.forecasts([self.population(host)])
            self._now[host] = found
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Swap:
    """An instance that could make way for a starved one.

    :param to: the row of its host
    :param back: whether it could come in exchange
    :param gain: of an exchange
    :param gain_alone: where it goes elsewhere
    :param score: the weigher's, of its host for the starved one
    """

    other: model.Instance
    to: int
    back: bool
    gain: float
    relieved: tuple[str, ...]
    gain_alone: float
    relieved_alone: tuple[str, ...]
    score: float

    @property
    def worth(self) -> tuple[Any, ...]:
        """Sort key: the best first."""
        gain = self.gain if self.back else self.gain_alone
        return (
            -round(gain, _DECIMALS),
            self.other.flavor.memory_mb,
            self.other.priority,
            -self.score,
            self.other.sort_key,
        )


class _Ahead:
    """Forecasts of hosts with an instance, made some at a time.

    Most often one of the first will do, and many cost little more than one.
    """

    def __init__(
        self, search: "Search", instance: model.Instance, rows: list[int]
    ) -> None:
        self._search = search
        self._instance = instance
        self._rows = rows
        self._done = 0
        self._known: dict[int, starving.Forecast] = {}

    def __getitem__(self, row: int) -> starving.Forecast:
        while row not in self._known:
            some = self._rows[self._done : 2 * self._done + 2]
            self._done += len(some)
            picture = self._search.picture
            told = picture.forecasts(
                picture.population(
                    self._search.problem.hosts[one].name,
                    (self._instance.uuid,),
                )
                for one in some
            )
            self._known.update(zip(some, told, strict=True))
        return self._known[row]


class Search:
    """The search for cures, on a state of the planner.

    :ivar standing: {uuid: condition} of those that starve by now, the most
        urgent first
    :ivar relieved: uuids of those that have been relieved
    :ivar picture: who is where
    :ivar moved: uuids of those that have moved for a cure
    :ivar told: the migrations so far
    """

    def __init__(
        self,
        state: states.State,
        starvation: starving.Starvation,
        cooling: Iterable[str],
        before: Iterable[tuple[str, str, str]] = (),
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        """Begin where earlier migrations of the plan lead to.

        :param state: of the cluster after those
        :param cooling: uuids of those that moved recently
        :param before: (uuid, source, target) of earlier migrations
        """
        assert starvation.sight is not None  # somebody was judged
        self.state = state
        self.problem = state.problem
        self.expired = expired
        self.picture = Picture(starvation)
        self.moved: set[str] = set()
        self.told: list[Told] = []
        self.relieved: list[str] = []
        self.standing = {one.instance.uuid: one for one in starvation.starved}
        self._loads = starvation.sight.loads
        self._cooling = frozenset(cooling)
        self._ranks = {t.name: t.rank for t in self.problem.cluster.tiers}
        self._explained = {
            uuid
            for uuid, one in self.standing.items()
            if uuid in self.picture.now(one.instance.host).starved
        }
        # How often each host has changed.
        self._versions = np.zeros(len(self.problem.hosts), dtype=np.int64)
        self._read_hosts()
        self._list_movable()
        self._recount()
        for uuid, source, target in before:
            self._shift(uuid, source, target)
        self._settle(self.standing.values())
        # Forecasts of a host without one of its instances.
        self._without: dict[int, tuple[int, dict[str, starving.Forecast]]] = {}

    def _read_hosts(self) -> None:
        """What is known of the hosts, by row."""
        loads = self._loads
        index = np.array(
            [loads.host_position[h.name] for h in self.problem.hosts],
            dtype=np.intp,
        )
        size = len(loads.hosts)
        wanted = np.bincount(loads.host, loads.demands, minlength=size)
        guessed = np.bincount(loads.host, loads.guessed, minlength=size)
        self._floors = loads.floors[index]
        self._tier = {
            tier.name: i for i, tier in enumerate(self.problem.cluster.tiers)
        }
        # CPUs that nobody wants; negative where more is wanted than is there.
        self._spare = (loads.usable_cpus - wanted)[index]
        self._guessed = guessed[index]
        self._known = ~np.isnan(loads.cpus[index])
        self._levels = np.full(len(index), math.inf)
        self._unread = set(range(len(index)))
        self._hungry = np.zeros(len(index), dtype=np.int64)

    def _list_movable(self) -> None:
        """Who may move, in rows of arrays."""
        kinds = self.problem.kind_of
        self._movable = tuple(
            one
            for one in sorted(
                self.problem.cluster.instances, key=lambda i: i.sort_key
            )
            if one.uuid in kinds and one.uuid not in self._cooling
        )
        self._place = {one.uuid: i for i, one in enumerate(self._movable)}
        self._at = np.array(
            [self.problem.host_index[one.host] for one in self._movable],
            dtype=np.intp,
        )
        self._kind = np.array(
            [kinds[one.uuid].index for one in self._movable], dtype=np.intp
        )
        self._wants = np.array(
            [self._demand(one.uuid) for one in self._movable],
            dtype=np.float64,
        )
        self._free = np.ones(len(self._movable), dtype=np.bool_)

    # What is so

    def _row(self, instance: model.Instance) -> int:
        # As the migrations before these leave it.
        there = self.problem.cluster.instance_by_uuid[instance.uuid]
        return self.problem.host_index[self.state.books.location(there)]

    def _demand(self, uuid: str) -> float:
        return float(self._loads.demands[self._loads.position[uuid]])

    def _name(self, row: int) -> str:
        return self.problem.hosts[row].name

    def _floor(self, row: int, tier: str | None) -> float:
        """f0 of a tier on a host; NaN where it is not known."""
        if tier is None:
            return float("nan")
        return float(self._floors[row, self._tier[tier]])

    def _threshold(self, row: int, uuid: str) -> float:
        """The deficit above which an instance starves on a host."""
        instance = self._loads.instances[self._loads.position[uuid]]
        floor = self._floor(row, instance.tier)
        return float(entitlement.threshold(floor))

    def _clear(self, row: int, uuid: str) -> float:
        """The deficit at most which an instance is well off on a host."""
        return CLEAR * self._threshold(row, uuid)

    def _usable(self, row: int) -> bool:
        """Whether a host is known well enough for forecasts."""
        return bool(self._known[row]) and not self._guessed[row]

    def may_move(self, uuid: str) -> bool:
        """Whether an instance may move for a cure."""
        place = self._place.get(uuid)
        return place is not None and bool(self._free[place])

    def explained(self, uuid: str) -> bool:
        """Whether the model shows the starvation that was measured."""
        one = self.standing[uuid]
        return uuid in self._explained and self._usable(
            self._row(one.instance)
        )

    # Changes

    def _shift(self, uuid: str, source: str, target: str) -> None:
        """Have what is known of hosts follow a migration."""
        self.picture.move(uuid, source, target)
        index = self.problem.host_index
        position = self._loads.position[uuid]
        wanted = float(self._loads.demands[position])
        guessed = int(self._loads.guessed[position])
        for name, sign in ((source, 1), (target, -1)):
            self._spare[index[name]] += sign * wanted
            self._guessed[index[name]] -= sign * guessed
            self._unread.add(index[name])

    def _try(self, step: Step) -> None:
        instance, row, parking = step
        source = self._name(self._row(instance))
        self.state.move(instance, row, parking=parking)
        self._shift(instance.uuid, source, self._name(row))

    def _take_back(self, mark: int) -> None:
        for move in reversed(self.state.moves[mark:]):
            self._shift(
                move.instance.uuid,
                self._name(move.target),
                self._name(move.source),
            )
        self.state.undo(mark)

    def apply(self, cure: Cure) -> None:
        """Make a cure part of the plan."""
        touched: set[int] = set()
        told = []
        for step in cure.steps:
            instance, row, parking = step
            source = self._row(instance)
            touched.update((source, row))
            account, over = self._over(instance, source)
            weight = self.state.weight(instance, row)
            self._try(step)
            told.append(
                Told(
                    cure=cure,
                    instance=instance,
                    source=self._name(source),
                    target=self._name(row),
                    parking=parking,
                    weight=weight,
                    account=account,
                    units=over - self.state.excess(source, account),
                )
            )
        focal = cure.focal.instance
        now = self.picture.now(self._name(self._row(focal)))
        usage = now.usage_cpus[focal.uuid] / focal.flavor.vcpus
        self.told.extend(
            dataclasses.replace(one, usage_after=usage) for one in told
        )
        self._versions[sorted(touched)] += 1
        for instance, row, _ in cure.steps:
            self.moved.add(instance.uuid)
            place = self._place[instance.uuid]
            self._free[place] = False
            self._at[place] = row
        self._recount()
        self._settle(one for row in touched for one in self._starving(row))

    def _over(self, instance: model.Instance, row: int) -> tuple[str, int]:
        """What its units count against on its host, and the excess of it."""
        accounts = self.problem.kind_of[instance.uuid].accounts
        for account in accounts:
            units = self.state.excess(row, account)
            if units > 0:
                return account, units
        return accounts[0], 0

    def _settle(self, conditions: Iterable[starving.Condition]) -> None:
        """Find out who is relieved by now."""
        for one in list(conditions):
            uuid = one.instance.uuid
            row = self._row(one.instance)
            name = self._name(row)
            away = self.picture.home(uuid) != name
            if uuid not in self._explained or not (
                away or self.picture.changed(name)
            ):
                continue
            deficit = self.picture.now(name).deficits.get(uuid)
            if deficit is None or self._guessed[row]:
                continue
            if deficit <= self._threshold(row, uuid):
                del self.standing[uuid]
                self.relieved.append(uuid)
        self._recount()

    def _recount(self) -> None:
        self._on: dict[int, list[starving.Condition]] = {}
        self._hungry[:] = 0
        for one in self.standing.values():
            row = self._row(one.instance)
            self._on.setdefault(row, []).append(one)
            self._hungry[row] += 1

    def _starving(self, row: int) -> list[starving.Condition]:
        """Those that starve on a host, the most urgent first."""
        return self._on.get(row, [])

    # All cures

    def run(self, most: int | None) -> None:
        """Cure who can be cured, the most valuable first.

        :param most: migrations at most; None for no limit
        """
        left = most
        while not self.expired() and (left is None or left > 0):
            made = self._sweep(left)
            if not made:
                break
            if left is not None:
                left -= made

    def _sweep(self, most: int | None) -> int:
        """Look at everybody who starves once.

        :returns: the number of migrations that it takes
        """
        before = len(self.told)
        left = most
        queue: list[tuple[Any, ...]] = []
        for one in self.standing.values():
            self._queue(queue, one, left)
        while queue and (left is None or left > 0):
            *_, uuid, cure = heapq.heappop(queue)
            if uuid not in self.standing:
                continue
            one = self.standing[uuid]
            if self._stale(cure) or (
                left is not None and len(cure.steps) > left
            ):
                self._queue(queue, one, left)
                continue
            self.apply(cure)
            if left is not None:
                left -= len(cure.steps)
        return len(self.told) - before

    def _queue(
        self,
        queue: list[tuple[Any, ...]],
        one: starving.Condition,
        most: int | None,
    ) -> None:
        if self.expired():
            return
        cure = self.best(one, most)
        if cure is not None:
            instance = one.instance
            heapq.heappush(
                queue,
                (
                    self._ranks[instance.tier or ""],
                    -instance.priority,
                    cure.worth,
                    instance.sort_key,
                    instance.uuid,
                    cure,
                ),
            )

    def _stale(self, cure: Cure) -> bool:
        """Whether a host that a cure turns on has changed since."""
        return cure.version != self._version(cure.rows)

    def _version(self, rows: Iterable[int]) -> int:
        """It grows with every change of one of these hosts."""
        return int(self._versions[sorted(rows)].sum())

    def best(
        self, focal: starving.Condition, most: int | None = None
    ) -> Cure | None:
        """The cure of an instance that is worth most; None without one.

        :param most: migrations at most
        """
        alone = list(self._single(focal))
        found = alone[:]
        several = most is None or most > 1
        here = self._starving(self._row(focal.instance))
        # Where several starve together, the first of them looks for all.
        if several and (not alone or (len(here) > 1 and here[0] is focal)):
            found.extend(self._together(focal, most))
        away = any(
            step[0].uuid == focal.instance.uuid
            for cure in alone
            for step in cure.steps
        )
        if several and not away:
            found.extend(self._exchanges(focal, most))
        return min(found, key=lambda cure: cure.worth, default=None)

    # One migration

    def _single(self, focal: starving.Condition) -> Iterator[Cure]:
        """The best cures of one migration: its own, and a competitor's."""
        row = self._row(focal.instance)
        options = []
        for instance, others, relieved in self._departures(focal, row):
            gain = others
            own = self.standing.get(instance.uuid)
            if own is not None:
                gain += self._weight(own) * own.deficit_cpus
            options.append(
                (
                    -round(gain, _DECIMALS),
                    instance.flavor.memory_mb,
                    instance.priority,
                    instance.sort_key,
                    instance,
                    gain,
                    relieved,
                )
            )
        options.sort(key=lambda option: option[:4])
        best: float | None = None
        for option in options:
            instance, gain, relieved = option[4:]
            if best is not None and round(gain, _DECIMALS) < best:
                break
            target = next(self._targets(instance), None)
            if target is None:
                continue
            to, forecast = target
            own = self.standing.get(instance.uuid)
            if own is not None:
                gain -= self._weight(own) * self._left(own, forecast)
                relieved = (instance.uuid, *relieved)
            best = max(best or 0.0, round(gain, _DECIMALS))
            yield self._cure(
                focal, [(instance, to, False)], gain, relieved, {row, to}
            )

    def _departures(
        self, focal: starving.Condition, row: int
    ) -> Iterator[tuple[model.Instance, float, tuple[str, ...]]]:
        """Whose departure helps: who leaves, the gain of those left behind,
        and who of them is relieved.
        """
        uuid = focal.instance.uuid
        if uuid not in self._explained:
            return
        if not self._usable(row):
            if self.may_move(uuid):
                yield focal.instance, 0.0, ()
            return
        here = self._movable_on(row)
        without = self._forecasts_without(row, here)
        for instance in here:
            gain, relieved = self._stayers(row, without[instance.uuid])
            if instance.uuid == uuid or uuid in relieved:
                yield instance, gain, relieved

    def _movable_on(self, row: int) -> list[model.Instance]:
        return [
            self._movable[place]
            for place in np.flatnonzero((self._at == row) & self._free)
        ]

    def _forecasts_without(
        self, row: int, here: list[model.Instance]
    ) -> dict[str, starving.Forecast]:
        """A host without each of its instances in turn."""
        version = self._version((row,))
        known = self._without.get(row)
        if known is not None and known[0] == version:
            return known[1]
        name = self._name(row)
        told = self.picture.forecasts(
            self.picture.population(name, going=(one.uuid,)) for one in here
        )
        made = {
            one.uuid: forecast
            for one, forecast in zip(here, told, strict=True)
        }
        self._without[row] = (version, made)
        return made

    def _stayers(
        self, row: int, then: starving.Forecast
    ) -> tuple[float, tuple[str, ...]]:
        """What those gain that starve on a host and stay there.

        :returns: the weighted CPUs of deficit that go away, and who is
            relieved
        """
        now = self.picture.now(self._name(row))
        gain = 0.0
        relieved = []
        for one in self._starving(row):
            uuid = one.instance.uuid
            if uuid not in then.deficits or not self.explained(uuid):
                continue
            after = then.deficits[uuid]
            removed = max(0.0, now.deficits[uuid]) - max(0.0, after)
            gain += self._weight(one) * removed * one.instance.flavor.vcpus
            if after <= self._clear(row, uuid):
                relieved.append(uuid)
        return gain, tuple(relieved)

    def _weight(self, one: starving.Condition) -> float:
        return 1.0 / self._ranks[one.instance.tier or ""]

    def _left(
        self, one: starving.Condition, forecast: starving.Forecast | None
    ) -> float:
        """CPUs that an instance that moves still lacks then."""
        if forecast is None:
            return 0.0
        deficit = forecast.deficits[one.instance.uuid]
        return max(0.0, deficit) * one.instance.flavor.vcpus

    def _cure(
        self,
        focal: starving.Condition,
        steps: list[Step],
        gain: float,
        relieved: Iterable[str],
        rows: set[int],
    ) -> Cure:
        uuid = focal.instance.uuid
        others = sorted(set(relieved) - {uuid})
        return Cure(
            focal=focal,
            source=self._name(self._row(focal.instance)),
            steps=tuple(steps),
            gain=gain,
            relieved=(uuid, *others),
            rows=frozenset(rows),
            version=self._version(rows),
        )

    # Targets

    def _targets(
        self, instance: model.Instance
    ) -> Iterator[tuple[int, starving.Forecast | None]]:
        """Hosts that may take an instance and serve all, the best first.

        :returns: rows, with the forecast of the host with it; None where
            there are CPUs for all that everybody wants
        """
        kind = self.problem.kind_of[instance.uuid]
        mask = self.state.admits(kind) & self._known & (self._guessed == 0)
        mask &= self._hungry == 0
        mask[self._row(instance)] = False
        if instance.tier is not None:
            mask &= ~np.isnan(self._floors[:, self._tier[instance.tier]])
        ample = self._spare >= self._demand(instance.uuid) - _EPSILON
        rows = self._promising(instance, np.flatnonzero(mask & ~ample))
        mask &= ample
        mask[rows] = True
        ranked = list(self._ranked(instance, kind, mask))
        told = _Ahead(
            self,
            instance,
            [row for tied in ranked for row in tied if not ample[row]],
        )
        for tied in ranked:
            yield from self._best_served(instance, kind, tied, ample, told)

    def _promising(
        self, instance: model.Instance, rows: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.intp]:
        """Of hosts with fewer CPUs than would be wanted those that may do.

        On a host that is contended as it is nobody gets more for a weight
        than its instances do now.
        """
        if instance.tier is None or not len(rows):
            return rows
        position = self._loads.position[instance.uuid]
        floor = self._floors[rows, self._tier[instance.tier]]
        least = floor * self._demand(instance.uuid) - (
            CLEAR * entitlement.threshold(floor) * instance.flavor.vcpus
        )
        best = self._levels_of(rows) * self._loads.weights[position]
        rows = rows[best >= least - _EPSILON]
        if len(rows) > _CONTENDED:
            # Those that lack least.
            spare = np.round(self._spare[rows], _DECIMALS)
            rows = rows[np.argsort(-spare, kind="stable")[:_CONTENDED]]
        return rows

    def _levels_of(self, rows: npt.NDArray[np.intp]) -> Floats:
        """CPUs for each unit of weight on hosts; infinite where all get
        what they want.
        """
        loads = self._loads
        for row in self._unread.intersection(rows.tolist()):
            level = math.inf
            now = self.picture.now(self._name(row))
            for uuid, given in now.usage_cpus.items():
                if given < self._demand(uuid) - _EPSILON:
                    # All that want more get the same for their weight.
                    weight = loads.weights[loads.position[uuid]]
                    level = min(level, given / weight)
            self._levels[row] = level
            self._unread.discard(row)
        return self._levels[rows]

    def _ranked(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask,
    ) -> Iterator[list[int]]:
        """Hosts in the order of their scores, equals together."""
        rows = np.flatnonzero(mask)
        scores = self.state.scores(kind)[rows]
        group = self.problem.cluster.group_by_member.get(instance.uuid)
        rankers = self.problem.extensions.rankers
        soft = np.zeros(len(rows))
        if rankers or (group and group.policy.startswith("soft")):
            moves = [
                self.state.proposal(instance, row) for row in rows.tolist()
            ]
            soft = np.array([constraints.soft_penalty(m) for m in moves])
            more = [sum(r(m) for r in rankers.values()) for m in moves]
            scores = np.round(scores + np.array(more), _DECIMALS)
        order = np.lexsort((rows, -scores, soft))
        for _, tied in itertools.groupby(
            order.tolist(), key=lambda i: (soft[i], scores[i])
        ):
            yield [int(rows[i]) for i in tied]

    def _best_served(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        rows: list[int],
        ample: problems.Mask,
        told: "_Ahead",
    ) -> Iterator[tuple[int, starving.Forecast | None]]:
        """Of hosts that rank alike those that serve all, the best first."""
        plenty = [row for row in rows if ample[row]]
        if len(plenty) > 1:
            plenty.sort(key=lambda row: self._tie_break(instance, kind, row))
        for row in plenty:
            if self.state.rejection(instance, row) is None:
                yield row, None
        served = [
            (-round(then.usage_cpus[instance.uuid], _DECIMALS), row, then)
            for row in rows
            if not ample[row]
            and self.bears(row, then := told[row])
            and self.state.rejection(instance, row) is None
        ]
        served.sort(
            key=lambda one: (
                one[0],
                self._tie_break(instance, kind, one[1]),
            )
        )
        for _, row, then in served:
            yield row, then

    def _tie_break(
        self, instance: model.Instance, kind: problems.Kind, row: int
    ) -> tuple[Any, ...]:
        host = self.problem.hosts[row]
        shares = []
        for account in kind.accounts:
            quota = self.problem.diagnosis.quota(host.name, account)
            if quota is not None:
                held = self.state.books.held(host.name, account)
                shares.append(held / quota if quota else 1.0)
        return (
            round(max(shares, default=0.0), _DECIMALS),
            self.state.books.domain_units(host, instance.tier),
            host.name,
        )

    def bears(self, row: int, then: starving.Forecast) -> bool:
        """Whether everybody is well off on a host as it would be.

        Clearly so, or no worse than now. What is promised must be known of
        everybody of a tier.
        """
        if then.unknown or then.guessed:
            return False
        now = self.picture.now(self._name(row)).deficits
        loads = self._loads
        for uuid in then.usage_cpus:
            after = then.deficits.get(uuid)
            if after is None:
                if loads.instances[loads.position[uuid]].tier is not None:
                    return False
                continue
            if after <= 0 or after <= self._clear(row, uuid):
                continue
            if uuid not in now or after > now[uuid] + _EPSILON:
                return False
        return True

    # Several competitors

    def _together(
        self, focal: starving.Condition, most: int | None
    ) -> Iterator[Cure]:
        """A few competitors leave, each the one whose absence helps most."""
        uuid = focal.instance.uuid
        if not self.explained(uuid):
            return
        row = self._row(focal.instance)
        mark = len(self.state.moves)
        limit = _TOGETHER if most is None else min(most, _TOGETHER)
        steps: list[Step] = []
        away: set[str] = set()
        while len(steps) < limit:
            step = self._next_away(row, away)
            if step is None:
                break
            steps.append(step)
            away.add(step[0].uuid)
            self._try(step)
            deficit = self.picture.now(self._name(row)).deficits[uuid]
            if deficit <= self._clear(row, uuid):
                break
        then = self.picture.now(self._name(row))
        self._take_back(mark)
        if len(steps) < 2 or then.deficits[uuid] > self._clear(row, uuid):
            return
        gain, relieved = self._stayers(row, then)
        yield self._cure(
            focal, steps, gain, relieved, {row, *(to for _, to, _ in steps)}
        )

    def _next_away(self, row: int, away: set[str]) -> Step | None:
        """The competitor without whom the host lacks least, if it can go."""
        here = [
            one
            for one in self._movable_on(row)
            if one.uuid not in away and one.uuid not in self.standing
        ]
        name = self._name(row)
        now = self._lack(row, self.picture.now(name))
        told = self.picture.forecasts(
            self.picture.population(name, going=(one.uuid,)) for one in here
        )
        options = sorted(
            (
                round(self._lack(row, then), _DECIMALS),
                one.flavor.memory_mb,
                one.priority,
                one.sort_key,
                place,
            )
            for place, (one, then) in enumerate(zip(here, told, strict=True))
        )
        for lack, _, _, _, place in options[:_TRIED]:
            if lack >= now - _EPSILON:
                return None
            target = next(self._targets(here[place]), None)
            if target is not None:
                return here[place], target[0], False
        return None

    def _lack(self, row: int, then: starving.Forecast) -> float:
        """Weighted CPUs by which those that starve there are not clear."""
        found = 0.0
        for one in self._starving(row):
            uuid = one.instance.uuid
            if uuid in then.deficits:
                beyond = then.deficits[uuid] - self._clear(row, uuid)
                vcpus = one.instance.flavor.vcpus
                found += self._weight(one) * max(0.0, beyond) * vcpus
        return found

    # Exchanges

    def _exchanges(
        self, focal: starving.Condition, most: int | None
    ) -> Iterator[Cure]:
        """The best one in which an instance of another host makes way.

        It comes to the host of the starved one in exchange, or it goes to a
        third host.
        """
        instance = focal.instance
        row = self._row(instance)
        if not self.may_move(instance.uuid) or not all(
            # Nobody comes to a host where somebody starves unexplained.
            self.explained(one.instance.uuid)
            for one in self._starving(row)
        ):
            return
        thirds = _THIRDS
        for swap in self._swaps(focal, row):
            steps = self._in_turn(instance, row, swap)
            gain, relieved = swap.gain, swap.relieved
            if not steps and thirds:
                thirds -= 1
                steps, back = self._by_a_third(instance, row, swap, most)
                if steps and not back:
                    gain, relieved = swap.gain_alone, swap.relieved_alone
            if steps:
                rows = {row, *(to for _, to, _ in steps)}
                yield self._cure(focal, steps, gain, relieved, rows)
                return

    def _swaps(self, focal: starving.Condition, row: int) -> list["_Swap"]:
        """With whom it could change places, the best first."""
        instance = focal.instance
        name = self._name(row)
        pairs = self._pairs(instance, row)
        told = self.picture.forecasts(
            population
            for other, _ in pairs
            for population in (
                self.picture.population(name, (other.uuid,), (instance.uuid,)),
                self.picture.population(
                    self._name(self._row(other)),
                    (instance.uuid,),
                    (other.uuid,),
                ),
            )
        )
        (alone,) = self.picture.forecasts(
            [self.picture.population(name, (), (instance.uuid,))]
        )
        alone_gain, alone_relieved = self._stayers(row, alone)
        scores = self.state.scores(self.problem.kind_of[instance.uuid])
        found = []
        for number, (other, back) in enumerate(pairs):
            here, there = told[2 * number], told[2 * number + 1]
            to = self._row(other)
            deficit = there.deficits.get(instance.uuid)
            if deficit is None or deficit > self._clear(to, instance.uuid):
                continue
            if not self.bears(to, there):
                continue
            gain, relieved = self._stayers(row, here)
            own = self._weight(focal) * (
                focal.deficit_cpus - self._left(focal, there)
            )
            found.append(
                _Swap(
                    other=other,
                    to=to,
                    back=back and self.bears(row, here),
                    gain=gain + own,
                    relieved=relieved,
                    gain_alone=alone_gain + own,
                    relieved_alone=alone_relieved,
                    score=float(scores[to]),
                )
            )
        return sorted(found, key=lambda swap: swap.worth)

    def _pairs(
        self, instance: model.Instance, row: int
    ) -> list[tuple[model.Instance, bool]]:
        """Who could make way, as far as arrays tell, and whether its host
        could take it in exchange.

        Those first whose host has CPUs for all then.
        """
        problem, state = self.problem, self.state
        kind = problem.kind_of[instance.uuid]
        hosts = self._known & (self._guessed == 0) & (self._hungry == 0)
        hosts &= problem.accepts(kind)
        if instance.tier is not None:
            hosts &= ~np.isnan(self._floors[:, self._tier[instance.tier]])
        kinds, columns = problem.releases.shape
        into = np.broadcast_to(hosts, (kinds, len(hosts))).copy()
        back = problem.all_accepts[:, row].copy()
        for column in range(columns):
            asked = kind.demand[column]
            given = problem.releases[:, column]
            if asked:
                into &= state.room[None, :, column] + given[:, None] >= asked
            wanted = problem.demands[:, column]
            left = state.room[row, column] + kind.release[column]
            back &= (wanted <= left) | (wanted == 0)
        ok = self._free & (self._at != row)
        ok &= into[self._kind, self._at]
        places = np.flatnonzero(ok)
        short = (
            self._demand(instance.uuid)
            - self._wants[places]
            - self._spare[self._at[places]]
        )
        order = np.lexsort(
            (
                places,
                np.round(self._wants[places], _DECIMALS),
                ~back[self._kind[places]],
                np.round(np.maximum(short, 0.0), _DECIMALS),
            )
        )
        return [
            (self._movable[place], bool(back[self._kind[place]]))
            for place in places[order[:_PAIRS]].tolist()
        ]

    def _in_turn(
        self, instance: model.Instance, row: int, swap: "_Swap"
    ) -> list[Step]:
        """An exchange, one after the other; empty where that has no room."""
        there: Step = (instance, swap.to, False)
        back: Step = (swap.other, row, False)
        if swap.back:
            for steps in ([there, back], [back, there]):
                if self._admitted(steps):
                    return steps
        return []

    def _by_a_third(
        self,
        instance: model.Instance,
        row: int,
        swap: "_Swap",
        most: int | None,
    ) -> tuple[list[Step], bool]:
        """The other one goes to a third host, for good or for a while.

        :returns: the steps, empty where they have no room; and whether it
            comes back from there
        """
        there: Step = (instance, swap.to, False)
        thirds = [
            third
            for third, _ in itertools.islice(self._targets(swap.other), _TRIED)
            if third != row
        ]
        for third in thirds:
            steps: list[Step] = [(swap.other, third, False), there]
            if self._admitted(steps):
                return steps, False
        for third in thirds:
            steps = [
                (swap.other, third, True),
                there,
                (swap.other, row, False),
            ]
            if (
                swap.back
                and (most is None or most >= len(steps))
                and self._admitted(steps)
            ):
                return steps, True
        return [], False

    def _admitted(self, steps: list[Step]) -> bool:
        """Whether each step finds its room after those before it."""
        mark = len(self.state.moves)
        try:
            for instance, row, parking in steps:
                if self.state.rejection(instance, row) is not None:
                    return False
                self.state.move(instance, row, parking=parking)
            return True
        finally:
            self.state.undo(mark)

    # What does not help

    def why_not(self, focal: starving.Condition) -> str:
        """Why no migration helps an instance, in one clause."""
        instance = focal.instance
        if instance.uuid not in self._explained:
            return (
                "the model of entitlement does not show on "
                f"{instance.host} what was measured there, so that it "
                "promises nothing of a migration"
            )
        own = self._why_it_stays(instance)
        if not self.explained(instance.uuid):
            return (
                f"{own}, and what it would get without one of the others is "
                "not known, for not all of them have telemetry"
            )
        return (
            f"{own}, and nobody beside it has a place to go whose leaving "
            "would be enough"
        )

    def _why_it_stays(self, instance: model.Instance) -> str:
        rejection = self.problem.rejected.get(instance.uuid)
        if instance.uuid in self.moved:
            return "it has been moved for another one"
        if rejection is not None:
            return f"it may not move ({rejection.reason})"
        if instance.uuid in self._cooling:
            return "it has moved recently and is left where it is for now"
        if instance.uuid not in self.problem.kind_of:
            return "it may not move (it holds no units of a tier)"
        kind = self.problem.kind_of[instance.uuid]
        others = np.ones(len(self.problem.hosts), dtype=np.bool_)
        others[self._row(instance)] = False
        room = self.state.admits(kind) & others
        known = room & self._known & (self._guessed == 0)
        if instance.tier is not None:
            known &= ~np.isnan(self._floors[:, self._tier[instance.tier]])
        fed = known & (self._hungry == 0)
        parts = [
            f"{count} {text}"
            for count, text in (
                (int(others.sum() - room.sum()), "have no room for it"),
                (int(room.sum() - known.sum()), "are not known well enough"),
                (int(known.sum() - fed.sum()), "have starved ones themselves"),
                (int(fed.sum()), "could not serve it and all others there"),
            )
            if count
        ]
        return f"of {int(others.sum())} other hosts {', '.join(parts)}"
