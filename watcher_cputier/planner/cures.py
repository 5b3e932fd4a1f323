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
5. Nobody moves twice, and nobody who cools down.

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
from typing import Any

import numpy as np

from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier import weigher
from watcher_cputier.planner import exchanges
from watcher_cputier.planner import scene as scenes
from watcher_cputier.planner import targets as targeting

# Competitors that leave a host together, at most, and how many of them are
# tried for each place in the row.
_TOGETHER = 4
_TRIED = 4


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
    steps: tuple[scenes.Step, ...]
    gain: float
    relieved: tuple[str, ...]
    rows: frozenset[int]
    version: int

    @property
    def worth(self) -> tuple[Any, ...]:
        """Sort key: the best first."""
        return (
            -round(self.gain / len(self.steps), scenes.DECIMALS),
            sum(one.flavor.memory_mb for one, _ in self.steps),
            sum(one.priority for one, _ in self.steps),
            len(self.steps),
            *(one.sort_key for one, _ in self.steps),
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
    weight: weigher.Weight
    account: str
    units: int
    usage_after: float = 0.0


class Search:
    """The search for cures, in a scene.

    :ivar moved: uuids of those that have moved for a cure
    :ivar told: the migrations so far
    """

    def __init__(
        self,
        scene: scenes.Scene,
        expired: Callable[[], bool] = lambda: False,
    ) -> None:
        self.scene = scene
        self.expired = expired
        self.moved: set[str] = set()
        self.told: list[Told] = []
        self._targets = targeting.Targets(scene)
        self._exchanges = exchanges.Exchanges(scene, self._targets)
        # Forecasts of a host without one of its instances.
        self._without: dict[int, tuple[int, dict[str, starving.Forecast]]] = {}

    def apply(self, cure: Cure) -> None:
        """Make a cure part of the plan."""
        touched: set[int] = set()
        told = []
        for step in cure.steps:
            instance, row = step
            source = self.scene.row(instance)
            touched.update((source, row))
            account, over = self._over(instance, source)
            weight = self.scene.state.weight(instance, row)
            self.scene.attempt(step)
            told.append(
                Told(
                    cure=cure,
                    instance=instance,
                    source=self.scene.name(source),
                    target=self.scene.name(row),
                    weight=weight,
                    account=account,
                    units=over - self.scene.state.excess(source, account),
                )
            )
        focal = cure.focal.instance
        now = self.scene.picture.now(self.scene.name(self.scene.row(focal)))
        usage = now.usage_cpus[focal.uuid] / focal.flavor.vcpus
        self.told.extend(
            dataclasses.replace(one, usage_after=usage) for one in told
        )
        self.scene.versions[sorted(touched)] += 1
        for instance, row in cure.steps:
            self.moved.add(instance.uuid)
            place = self.scene.place[instance.uuid]
            self.scene.free[place] = False
            self.scene.at[place] = row
        self.scene.recount()
        self.scene.settle(
            one for row in touched for one in self.scene.starved_on(row)
        )

    def _over(self, instance: model.Instance, row: int) -> tuple[str, int]:
        """What its units count against on its host, and the excess of it."""
        accounts = self.scene.problem.kind_of[instance.uuid].accounts
        for account in accounts:
            units = self.scene.state.excess(row, account)
            if units > 0:
                return account, units
        return accounts[0], 0

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
        for one in self.scene.standing.values():
            self._queue(queue, one, left)
        while queue and (left is None or left > 0):
            *_, uuid, cure = heapq.heappop(queue)
            if uuid not in self.scene.standing:
                continue
            one = self.scene.standing[uuid]
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
                    self.scene.ranks[instance.tier or ""],
                    -instance.priority,
                    cure.worth,
                    instance.sort_key,
                    instance.uuid,
                    cure,
                ),
            )

    def _stale(self, cure: Cure) -> bool:
        """Whether a host that a cure turns on has changed since."""
        return cure.version != self.scene.version(cure.rows)

    def best(
        self, focal: starving.Condition, most: int | None = None
    ) -> Cure | None:
        """The cure of an instance that is worth most; None without one.

        :param most: migrations at most
        """
        alone = list(self._single(focal))
        found = alone[:]
        several = most is None or most > 1
        here = self.scene.starved_on(self.scene.row(focal.instance))
        # Where several starve together, the first of them looks for all.
        if several and (not alone or (len(here) > 1 and here[0] is focal)):
            found.extend(self._together(focal, most))
        away = any(
            step[0].uuid == focal.instance.uuid
            for cure in alone
            for step in cure.steps
        )
        if several and not away:
            exchange = self._exchanges.best(focal)
            if exchange is not None:
                row = self.scene.row(focal.instance)
                found.append(
                    self._cure(
                        focal,
                        exchange.steps,
                        exchange.gain,
                        exchange.relieved,
                        {row, *(to for _, to in exchange.steps)},
                    )
                )
        return min(found, key=lambda cure: cure.worth, default=None)

    def _single(self, focal: starving.Condition) -> Iterator[Cure]:
        """The best cures of one migration: its own, and a competitor's."""
        row = self.scene.row(focal.instance)
        options = []
        for instance, others, relieved in self._departures(focal, row):
            gain = others
            own = self._own(instance)
            if own is not None:
                gain += self.scene.weight(own) * own.deficit_cpus
            options.append(
                (
                    -round(gain, scenes.DECIMALS),
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
            if best is not None and round(gain, scenes.DECIMALS) < best:
                break
            target = next(self._targets.of(instance), None)
            if target is None:
                continue
            to, forecast = target
            own = self._own(instance)
            if own is not None:
                gain -= self.scene.weight(own) * self.scene.left(own, forecast)
                relieved = (instance.uuid, *relieved)
            best = max(best or 0.0, round(gain, scenes.DECIMALS))
            yield self._cure(
                focal, [(instance, to)], gain, relieved, {row, to}
            )

    def _own(self, instance: model.Instance) -> starving.Condition | None:
        """How an instance starves, if it does and the model shows it."""
        one = self.scene.standing.get(instance.uuid)
        shown = one is not None and instance.uuid in self.scene.shown
        return one if shown else None

    def _departures(
        self, focal: starving.Condition, row: int
    ) -> Iterator[tuple[model.Instance, float, tuple[str, ...]]]:
        """Whose departure helps: who leaves, the gain of those left behind,
        and who of them is relieved.
        """
        uuid = focal.instance.uuid
        if uuid not in self.scene.shown:
            return
        if not self.scene.usable(row):
            if self.scene.may_move(uuid):
                yield focal.instance, 0.0, ()
            return
        here = self.scene.movable_on(row)
        without = self._forecasts_without(row, here)
        for instance in here:
            gain, relieved = self.scene.stayers(row, without[instance.uuid])
            if instance.uuid == uuid or uuid in relieved:
                yield instance, gain, relieved

    def _forecasts_without(
        self, row: int, here: list[model.Instance]
    ) -> dict[str, starving.Forecast]:
        """A host without each of its instances in turn."""
        version = self.scene.version((row,))
        known = self._without.get(row)
        if known is not None and known[0] == version:
            return known[1]
        name = self.scene.name(row)
        told = self.scene.picture.forecasts(
            self.scene.picture.population(name, going=(one.uuid,))
            for one in here
        )
        made = {
            one.uuid: forecast
            for one, forecast in zip(here, told, strict=True)
        }
        self._without[row] = (version, made)
        return made

    def _cure(
        self,
        focal: starving.Condition,
        steps: list[scenes.Step],
        gain: float,
        relieved: Iterable[str],
        rows: set[int],
    ) -> Cure:
        uuid = focal.instance.uuid
        others = sorted(set(relieved) - {uuid})
        return Cure(
            focal=focal,
            source=self.scene.name(self.scene.row(focal.instance)),
            steps=tuple(steps),
            gain=gain,
            relieved=(uuid, *others),
            rows=frozenset(rows),
            version=self.scene.version(rows),
        )

    def _together(
        self, focal: starving.Condition, most: int | None
    ) -> Iterator[Cure]:
        """A few competitors leave, each the one whose absence helps most."""
        uuid = focal.instance.uuid
        if not self.scene.explained(uuid):
            return
        row = self.scene.row(focal.instance)
        mark = len(self.scene.state.moves)
        limit = _TOGETHER if most is None else min(most, _TOGETHER)
        steps: list[scenes.Step] = []
        away: set[str] = set()
        while len(steps) < limit:
            step = self._next_away(row, away)
            if step is None:
                break
            steps.append(step)
            away.add(step[0].uuid)
            self.scene.attempt(step)
            deficit = self.scene.picture.now(self.scene.name(row)).deficits[
                uuid
            ]
            if deficit <= self.scene.clear(row, uuid):
                break
        then = self.scene.picture.now(self.scene.name(row))
        self.scene.take_back(mark)
        if len(steps) < 2 or then.deficits[uuid] > self.scene.clear(row, uuid):
            return
        gain, relieved = self.scene.stayers(row, then)
        yield self._cure(
            focal, steps, gain, relieved, {row, *(to for _, to in steps)}
        )

    def _next_away(self, row: int, away: set[str]) -> scenes.Step | None:
        """The competitor without whom the host lacks least, if it can go."""
        here = [
            one
            for one in self.scene.movable_on(row)
            if one.uuid not in away and one.uuid not in self.scene.standing
        ]
        name = self.scene.name(row)
        now = self._lack(row, self.scene.picture.now(name))
        told = self.scene.picture.forecasts(
            self.scene.picture.population(name, going=(one.uuid,))
            for one in here
        )
        options = sorted(
            (
                round(self._lack(row, then), scenes.DECIMALS),
                one.flavor.memory_mb,
                one.priority,
                one.sort_key,
                place,
            )
            for place, (one, then) in enumerate(zip(here, told, strict=True))
        )
        for lack, _, _, _, place in options[:_TRIED]:
            if lack >= now - scenes.EPSILON:
                return None
            target = next(self._targets.of(here[place]), None)
            if target is not None:
                return here[place], target[0]
        return None

    def _lack(self, row: int, then: starving.Forecast) -> float:
        """Weighted CPUs by which those that starve there are not clear."""
        found = 0.0
        for one in self.scene.starved_on(row):
            uuid = one.instance.uuid
            if uuid in then.deficits:
                beyond = then.deficits[uuid] - self.scene.clear(row, uuid)
                vcpus = one.instance.flavor.vcpus
                found += self.scene.weight(one) * max(0.0, beyond) * vcpus
        return found

    def why_not(self, focal: starving.Condition) -> str:
        """Why no migration helps an instance, in one clause."""
        instance = focal.instance
        if instance.uuid not in self.scene.shown:
            return (
                "the model of entitlement does not show on "
                f"{instance.host} what was measured there, so that it "
                "promises nothing of a migration"
            )
        own = self._why_it_stays(instance)
        if not self.scene.explained(instance.uuid):
            return (
                f"{own}, and what it would get without one of the others is "
                "not known, for not all of them have telemetry"
            )
        return (
            f"{own}, and nobody beside it has a place to go whose leaving "
            "would be enough"
        )

    def _why_it_stays(self, instance: model.Instance) -> str:
        rejection = self.scene.problem.rejected.get(instance.uuid)
        if instance.uuid in self.moved:
            return "it has been moved for another one"
        if rejection is not None:
            return f"it may not move ({rejection.reason})"
        if instance.uuid in self.scene.cooling:
            return "it has moved recently and is left where it is for now"
        if instance.uuid not in self.scene.problem.kind_of:
            return "it may not move (it holds no units of a tier)"
        kind = self.scene.problem.kind_of[instance.uuid]
        others = np.ones(len(self.scene.problem.hosts), dtype=np.bool_)
        others[self.scene.row(instance)] = False
        room = self.scene.state.admits(kind) & others
        known = room & self.scene.known & (self.scene.guessed == 0)
        if instance.tier is not None:
            known &= ~np.isnan(
                self.scene.floors[:, self.scene.tier[instance.tier]]
            )
        fed = known & (self.scene.hungry == 0)
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
