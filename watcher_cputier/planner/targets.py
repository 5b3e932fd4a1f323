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

"""Targets for cures: hosts that may take an instance and serve everybody.

They rank by the weigher; equals by what the instance gets there, then by the
utilisation of its tier, then by name.
"""

from collections.abc import Iterator
import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from watcher_cputier import constraints
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import scene as scenes

# Hosts whose CPUs would not be enough for all that is wanted, that are looked
# at closely for one instance.
_CONTENDED = 32


class Targets:
    """Where instances may go, in a scene that changes."""

    def __init__(self, scene: scenes.Scene) -> None:
        self.scene = scene

    def of(
        self, instance: model.Instance
    ) -> Iterator[tuple[int, starving.Forecast | None]]:
        """Hosts that may take an instance and serve all, the best first.

        :returns: rows, with the forecast of the host with it; None where
            there are CPUs for all that everybody wants
        """
        kind = self.scene.problem.kind_of[instance.uuid]
        mask = (
            self.scene.state.admits(kind)
            & self.scene.known
            & (self.scene.guessed == 0)
        )
        mask &= self.scene.hungry == 0
        mask[self.scene.row(instance)] = False
        if instance.tier is not None:
            mask &= ~np.isnan(
                self.scene.floors[:, self.scene.tier[instance.tier]]
            )
        ample = (
            self.scene.spare
            >= self.scene.demand(instance.uuid) - scenes.EPSILON
        )
        rows = self._promising(instance, np.flatnonzero(mask & ~ample))
        mask &= ample
        mask[rows] = True
        ranked = list(self._ranked(instance, kind, mask))
        told = _Ahead(
            self.scene,
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
        position = self.scene.loads.position[instance.uuid]
        floor = self.scene.floors[rows, self.scene.tier[instance.tier]]
        least = floor * self.scene.demand(instance.uuid) - (
            scenes.CLEAR * entitlement.threshold(floor) * instance.flavor.vcpus
        )
        best = self.scene.levels_of(rows) * self.scene.loads.weights[position]
        rows = rows[best >= least - scenes.EPSILON]
        if len(rows) > _CONTENDED:
            # Those that lack least.
            spare = np.round(self.scene.spare[rows], scenes.DECIMALS)
            rows = rows[np.argsort(-spare, kind="stable")[:_CONTENDED]]
        return rows

    def _ranked(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask,
    ) -> Iterator[list[int]]:
        """Hosts in the order of their scores, equals together."""
        rows = np.flatnonzero(mask)
        scores = self.scene.state.scores(kind)[rows]
        group = self.scene.problem.cluster.group_by_member.get(instance.uuid)
        rankers = self.scene.problem.extensions.rankers
        soft = np.zeros(len(rows))
        if rankers or (group and group.policy.startswith("soft")):
            moves = [
                self.scene.state.proposal(instance, row)
                for row in rows.tolist()
            ]
            soft = np.array([constraints.soft_penalty(m) for m in moves])
            more = [sum(r(m) for r in rankers.values()) for m in moves]
            scores = np.round(scores + np.array(more), scenes.DECIMALS)
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
            if self.scene.state.rejection(instance, row) is None:
                yield row, None
        served = [
            (
                -round(then.usage_cpus[instance.uuid], scenes.DECIMALS),
                row,
                then,
            )
            for row in rows
            if not ample[row]
            and self.scene.bears(row, then := told[row])
            and self.scene.state.rejection(instance, row) is None
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
        host = self.scene.problem.hosts[row]
        shares = []
        for account in kind.accounts:
            quota = self.scene.problem.diagnosis.quota(host.name, account)
            if quota is not None:
                held = self.scene.state.books.held(host.name, account)
                shares.append(held / quota if quota else 1.0)
        return (
            round(max(shares, default=0.0), scenes.DECIMALS),
            self.scene.state.books.domain_units(host, instance.tier),
            host.name,
        )


class _Ahead:
    """Forecasts of hosts with an instance, made some at a time.

    Most often one of the first will do, and many cost little more than one.
    """

    def __init__(
        self, scene: scenes.Scene, instance: model.Instance, rows: list[int]
    ) -> None:
        self._scene = scene
        self._instance = instance
        self._rows = rows
        self._done = 0
        self._known: dict[int, starving.Forecast] = {}

    def __getitem__(self, row: int) -> starving.Forecast:
        while row not in self._known:
            some = self._rows[self._done : 2 * self._done + 2]
            self._done += len(some)
            picture = self._scene.picture
            told = picture.forecasts(
                picture.population(
                    self._scene.problem.hosts[one].name,
                    (self._instance.uuid,),
                )
                for one in some
            )
            self._known.update(zip(some, told, strict=True))
        return self._known[row]
