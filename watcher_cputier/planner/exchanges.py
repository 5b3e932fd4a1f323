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

"""Exchanges: an instance of another host makes way for a starved one.

It comes to the host of the starved one in exchange, or it goes to a third
host. No other cure is looked for where nobody has room.
"""

import dataclasses
import itertools
from typing import Any

import numpy as np

from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier.planner import scene as scenes
from watcher_cputier.planner import targets as targeting

# Pairs that are looked at closely for one instance, for how many of them a
# third host is looked for, and how many of those are tried.
_PAIRS = 64
_THIRDS = 8
_TRIED = 4


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
            -round(gain, scenes.DECIMALS),
            self.other.flavor.memory_mb,
            self.other.priority,
            -self.score,
            self.other.sort_key,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Exchange:
    """The migrations of an exchange, and what they bring.

    :param steps: in an order in which each is admitted
    :param gain: CPUs of deficit that they remove, weighted by tier
    :param relieved: uuids of those beside the starved one that they relieve
    """

    steps: list[scenes.Step]
    gain: float
    relieved: tuple[str, ...]


class Exchanges:
    """Exchanges in a scene that changes."""

    def __init__(
        self, scene: scenes.Scene, targets: targeting.Targets
    ) -> None:
        self.scene = scene
        self.targets = targets

    def best(self, focal: starving.Condition) -> Exchange | None:
        """The best one in which an instance of another host makes way.

        It comes to the host of the starved one in exchange, or it goes to a
        third host.
        """
        instance = focal.instance
        row = self.scene.row(instance)
        if not self.scene.may_move(instance.uuid) or not all(
            # Nobody comes to a host where somebody starves unexplained.
            self.scene.explained(one.instance.uuid)
            for one in self.scene.starved_on(row)
        ):
            return None
        thirds = _THIRDS
        for swap in self._swaps(focal, row):
            steps = self._in_turn(instance, row, swap)
            gain, relieved = swap.gain, swap.relieved
            if not steps and thirds:
                thirds -= 1
                steps = self._by_a_third(instance, row, swap)
                gain, relieved = swap.gain_alone, swap.relieved_alone
            if steps:
                return Exchange(steps=steps, gain=gain, relieved=relieved)
        return None

    def _swaps(self, focal: starving.Condition, row: int) -> list["_Swap"]:
        """With whom it could change places, the best first."""
        instance = focal.instance
        name = self.scene.name(row)
        pairs = self._pairs(instance, row)
        told = self.scene.picture.forecasts(
            population
            for other, _ in pairs
            for population in (
                self.scene.picture.population(
                    name, (other.uuid,), (instance.uuid,)
                ),
                self.scene.picture.population(
                    self.scene.name(self.scene.row(other)),
                    (instance.uuid,),
                    (other.uuid,),
                ),
            )
        )
        (alone,) = self.scene.picture.forecasts(
            [self.scene.picture.population(name, (), (instance.uuid,))]
        )
        alone_gain, alone_relieved = self.scene.stayers(row, alone)
        scores = self.scene.state.scores(
            self.scene.problem.kind_of[instance.uuid]
        )
        found = []
        for number, (other, back) in enumerate(pairs):
            here, there = told[2 * number], told[2 * number + 1]
            to = self.scene.row(other)
            deficit = there.deficits.get(instance.uuid)
            if deficit is None or deficit > self.scene.clear(
                to, instance.uuid
            ):
                continue
            if not self.scene.bears(to, there):
                continue
            gain, relieved = self.scene.stayers(row, here)
            own = self.scene.weight(focal) * (
                focal.deficit_cpus - self.scene.left(focal, there)
            )
            found.append(
                _Swap(
                    other=other,
                    to=to,
                    back=back and self.scene.bears(row, here),
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
        problem, state = self.scene.problem, self.scene.state
        kind = problem.kind_of[instance.uuid]
        hosts = (
            self.scene.known
            & (self.scene.guessed == 0)
            & (self.scene.hungry == 0)
        )
        hosts &= problem.accepts(kind)
        if instance.tier is not None:
            hosts &= ~np.isnan(
                self.scene.floors[:, self.scene.tier[instance.tier]]
            )
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
        ok = self.scene.free & (self.scene.at != row)
        ok &= into[self.scene.kind, self.scene.at]
        places = np.flatnonzero(ok)
        short = (
            self.scene.demand(instance.uuid)
            - self.scene.wants[places]
            - self.scene.spare[self.scene.at[places]]
        )
        order = np.lexsort(
            (
                places,
                np.round(self.scene.wants[places], scenes.DECIMALS),
                ~back[self.scene.kind[places]],
                np.round(np.maximum(short, 0.0), scenes.DECIMALS),
            )
        )
        return [
            (self.scene.movable[place], bool(back[self.scene.kind[place]]))
            for place in places[order[:_PAIRS]].tolist()
        ]

    def _in_turn(
        self, instance: model.Instance, row: int, swap: "_Swap"
    ) -> list[scenes.Step]:
        """An exchange, one after the other; empty where that has no room."""
        there = (instance, swap.to)
        back = (swap.other, row)
        if swap.back:
            for steps in ([there, back], [back, there]):
                if self.scene.admitted(steps):
                    return steps
        return []

    def _by_a_third(
        self, instance: model.Instance, row: int, swap: "_Swap"
    ) -> list[scenes.Step]:
        """The other one goes to a third host; empty where none takes it."""
        for third, _ in itertools.islice(self.targets.of(swap.other), _TRIED):
            steps = [(swap.other, third), (instance, swap.to)]
            if third != row and self.scene.admitted(steps):
                return steps
        return []
