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

"""What cures are looked for in: hosts with their CPUs, and who may move.

A :class:`Scene` keeps beside the state of the planner, which knows of room
and quotas, what is known of CPUs: how many of them are to spare on each host,
who starves there, and what the model of entitlement expects of it.
"""

from collections.abc import Iterable
import math

import numpy as np
import numpy.typing as npt

from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier.planner import picture as pictures
from watcher_cputier.planner import state as states

CLEAR = 0.5
"""The part of the threshold below which a forecast deficit is none."""

DECIMALS = 9
EPSILON = 1e-9

Step = tuple[model.Instance, int]
"""An instance, and the row of its target."""


class Scene:
    """Who starves, who may move, and what is to spare.

    H hosts and M movable instances, which cool down from no move.

    :ivar standing: {uuid: condition} of those that starve by now, the most
        urgent first
    :ivar relieved: uuids of those that have been relieved
    :ivar shown: uuids of those whose starvation the model shows too
    :ivar picture: who is where
    :ivar known: (H,) whether the number of CPUs is known
    :ivar guessed: (H,) how many of a host were not measured
    :ivar hungry: (H,) how many starve there
    :ivar spare: (H,) CPUs that nobody wants; negative where more is wanted
        than is there
    :ivar floors: (H, tiers) f0; NaN where it is not known
    :ivar tier: {name: column of it}
    :ivar movable: the M instances, by name
    :ivar place: {uuid: index of it}
    :ivar at: (M,) rows of their hosts
    :ivar kind: (M,) their kinds
    :ivar wants: (M,) CPUs that they want
    :ivar free: (M,) whether they have not moved for a cure
    """

    def __init__(
        self,
        state: states.State,
        starvation: starving.Starvation,
        cooling: Iterable[str],
        before: Iterable[tuple[str, str, str]] = (),
        unsettled: Iterable[str] = (),
    ) -> None:
        """Begin where earlier migrations of the plan lead to.

        :param state: of the cluster after those
        :param cooling: uuids of those that moved recently
        :param before: (uuid, source, target) of earlier migrations
        :param unsettled: names of hosts that take nobody for now
        """
        assert starvation.sight is not None  # somebody was judged
        self.state = state
        self.problem = state.problem
        self.picture = pictures.Picture(starvation)
        self.relieved: list[str] = []
        self.standing = {one.instance.uuid: one for one in starvation.starved}
        self.loads = starvation.sight.loads
        self.cooling = frozenset(cooling)
        self.ranks = {t.name: t.rank for t in self.problem.cluster.tiers}
        self.shown = {
            uuid
            for uuid, one in self.standing.items()
            if uuid in self.picture.now(one.instance.host).starved
        }
        # How often each host has changed.
        self.versions = np.zeros(len(self.problem.hosts), dtype=np.int64)
        self._unsettled = np.array(
            [h.name in unsettled for h in self.problem.hosts], dtype=np.int64
        )
        self._read_hosts()
        self._list_movable()
        self.recount()
        for uuid, source, target in before:
            self._shift(uuid, source, target)
        self.settle(self.standing.values())

    def _read_hosts(self) -> None:
        """What is known of the hosts, by row."""
        loads = self.loads
        index = np.array(
            [loads.host_position[h.name] for h in self.problem.hosts],
            dtype=np.intp,
        )
        size = len(loads.hosts)
        wanted = np.bincount(loads.host, loads.demands, minlength=size)
        guessed = np.bincount(loads.host, loads.guessed, minlength=size)
        self.floors = loads.floors[index]
        self.tier = {
            tier.name: i for i, tier in enumerate(self.problem.cluster.tiers)
        }
        self.spare = (loads.usable_cpus - wanted)[index]
        self.guessed = guessed[index]
        self.known = ~np.isnan(loads.cpus[index])
        self._levels = np.full(len(index), math.inf)
        self._unread = set(range(len(index)))
        self.hungry = np.zeros(len(index), dtype=np.int64)

    def _list_movable(self) -> None:
        """Who may move, in rows of arrays."""
        kinds = self.problem.kind_of
        self.movable = tuple(
            one
            for one in sorted(
                self.problem.cluster.instances, key=lambda i: i.sort_key
            )
            if one.uuid in kinds and one.uuid not in self.cooling
        )
        self.place = {one.uuid: i for i, one in enumerate(self.movable)}
        self.at = np.array(
            [self.problem.host_index[one.host] for one in self.movable],
            dtype=np.intp,
        )
        self.kind = np.array(
            [kinds[one.uuid].index for one in self.movable], dtype=np.intp
        )
        self.wants = np.array(
            [self.demand(one.uuid) for one in self.movable],
            dtype=np.float64,
        )
        self.free = np.ones(len(self.movable), dtype=np.bool_)

    def row(self, instance: model.Instance) -> int:
        # As the migrations before these leave it.
        there = self.problem.cluster.instance_by_uuid[instance.uuid]
        return self.problem.host_index[self.state.books.location(there)]

    def demand(self, uuid: str) -> float:
        return float(self.loads.demands[self.loads.position[uuid]])

    def name(self, row: int) -> str:
        return self.problem.hosts[row].name

    def _floor(self, row: int, tier: str | None) -> float:
        """f0 of a tier on a host; NaN where it is not known."""
        if tier is None:
            return float("nan")
        return float(self.floors[row, self.tier[tier]])

    def threshold(self, row: int, uuid: str) -> float:
        """The deficit above which an instance starves on a host."""
        instance = self.loads.instances[self.loads.position[uuid]]
        floor = self._floor(row, instance.tier)
        return float(entitlement.threshold(floor))

    def clear(self, row: int, uuid: str) -> float:
        """The deficit at most which an instance is well off on a host."""
        return CLEAR * self.threshold(row, uuid)

    def usable(self, row: int) -> bool:
        """Whether a host is known well enough for forecasts."""
        return bool(self.known[row]) and not self.guessed[row]

    def may_move(self, uuid: str) -> bool:
        """Whether an instance may move for a cure."""
        place = self.place.get(uuid)
        return place is not None and bool(self.free[place])

    def explained(self, uuid: str) -> bool:
        """Whether the model shows the starvation that was measured."""
        one = self.standing[uuid]
        return uuid in self.shown and self.usable(self.row(one.instance))

    def movable_on(self, row: int) -> list[model.Instance]:
        return [
            self.movable[place]
            for place in np.flatnonzero((self.at == row) & self.free)
        ]

    def starved_on(self, row: int) -> list[starving.Condition]:
        """Those that starve on a host, the most urgent first."""
        return self._on.get(row, [])

    def weight(self, one: starving.Condition) -> float:
        return 1.0 / self.ranks[one.instance.tier or ""]

    def _shift(self, uuid: str, source: str, target: str) -> None:
        """Have what is known of hosts follow a migration."""
        self.picture.move(uuid, source, target)
        index = self.problem.host_index
        position = self.loads.position[uuid]
        wanted = float(self.loads.demands[position])
        guessed = int(self.loads.guessed[position])
        for name, sign in ((source, 1), (target, -1)):
            self.spare[index[name]] += sign * wanted
            self.guessed[index[name]] -= sign * guessed
            self._unread.add(index[name])

    def attempt(self, step: Step) -> None:
        instance, row = step
        source = self.name(self.row(instance))
        self.state.move(instance, row)
        self._shift(instance.uuid, source, self.name(row))

    def take_back(self, mark: int) -> None:
        for move in reversed(self.state.moves[mark:]):
            self._shift(
                move.instance.uuid,
                self.name(move.target),
                self.name(move.source),
            )
        self.state.undo(mark)

    def settle(self, conditions: Iterable[starving.Condition]) -> None:
        """Find out who is relieved by now."""
        for one in list(conditions):
            uuid = one.instance.uuid
            row = self.row(one.instance)
            name = self.name(row)
            away = self.picture.home(uuid) != name
            if uuid not in self.shown or not (
                away or self.picture.changed(name)
            ):
                continue
            deficit = self.picture.now(name).deficits.get(uuid)
            if deficit is None or self.guessed[row]:
                continue
            if deficit <= self.threshold(row, uuid):
                del self.standing[uuid]
                self.relieved.append(uuid)
        self.recount()

    def recount(self) -> None:
        self._on: dict[int, list[starving.Condition]] = {}
        self.hungry[:] = self._unsettled
        for one in self.standing.values():
            row = self.row(one.instance)
            self._on.setdefault(row, []).append(one)
            self.hungry[row] += 1

    def version(self, rows: Iterable[int]) -> int:
        """It grows with every change of one of these hosts."""
        return int(self.versions[sorted(rows)].sum())

    def stayers(
        self, row: int, then: starving.Forecast
    ) -> tuple[float, tuple[str, ...]]:
        """What those gain that starve on a host and stay there.

        :returns: the weighted CPUs of deficit that go away, and who is
            relieved
        """
        now = self.picture.now(self.name(row))
        gain = 0.0
        relieved = []
        for one in self.starved_on(row):
            uuid = one.instance.uuid
            if uuid not in then.deficits or not self.explained(uuid):
                continue
            after = then.deficits[uuid]
            removed = max(0.0, now.deficits[uuid]) - max(0.0, after)
            gain += self.weight(one) * removed * one.instance.flavor.vcpus
            if after <= self.clear(row, uuid):
                relieved.append(uuid)
        return gain, tuple(relieved)

    def left(
        self, one: starving.Condition, forecast: starving.Forecast | None
    ) -> float:
        """CPUs that an instance that moves still lacks then."""
        if forecast is None:
            return 0.0
        deficit = forecast.deficits[one.instance.uuid]
        return max(0.0, deficit) * one.instance.flavor.vcpus

    def levels_of(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.float64]:
        """CPUs for each unit of weight on hosts; infinite where all get
        what they want.
        """
        loads = self.loads
        for row in self._unread.intersection(rows.tolist()):
            level = math.inf
            now = self.picture.now(self.name(row))
            for uuid, given in now.usage_cpus.items():
                if given < self.demand(uuid) - EPSILON:
                    # All that want more get the same for their weight.
                    weight = loads.weights[loads.position[uuid]]
                    level = min(level, given / weight)
            self._levels[row] = level
            self._unread.discard(row)
        return self._levels[rows]

    def bears(self, row: int, then: starving.Forecast) -> bool:
        """Whether everybody is well off on a host as it would be.

        Clearly so, or no worse than now. What is promised must be known of
        everybody of a tier.
        """
        if then.unknown or then.guessed:
            return False
        now = self.picture.now(self.name(row)).deficits
        loads = self.loads
        for uuid in then.usage_cpus:
            after = then.deficits.get(uuid)
            if after is None:
                if loads.instances[loads.position[uuid]].tier is not None:
                    return False
                continue
            if after <= 0 or after <= self.clear(row, uuid):
                continue
            if uuid not in now or after > now[uuid] + EPSILON:
                return False
        return True

    def admitted(self, steps: list[Step]) -> bool:
        """Whether each step finds its room after those before it."""
        mark = len(self.state.moves)
        try:
            for instance, row in steps:
                if self.state.rejection(instance, row) is not None:
                    return False
                self.state.move(instance, row)
            return True
        finally:
            self.state.undo(mark)
