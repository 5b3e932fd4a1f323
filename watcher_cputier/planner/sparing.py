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


"""Targets that spare the room of those that have few others.

The weigher ranks targets by what they have free, which is as good as any
order where units alone bind. Where memory or another class binds too, a small
instance with much memory may take the last room of a large one, which is then
to be paid for with migrations that make room. Here a target is ranked by the
kinds that would find no room there afterwards, each by how few other hosts
have room for it; the weigher ranks those that are equal.
"""

import numpy as np
import numpy.typing as npt

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

# Sums of fractions are compared after rounding, as scores are.
_DECIMALS = 9
# Hosts that are compared for one instance, those that the weigher prefers.
_MOST_ROWS = 300


def worthwhile(state: states.State) -> bool:
    """Whether anything but units keeps some host from taking a kind."""
    problem = state.problem
    for kind in problem.kinds:
        within = problem.all_accepts[kind.index].copy()
        for account in kind.accounts:
            column = problem.column["quota", account]
            within &= state.room[:, column] >= kind.demand[column]
        if (within & ~state.admits(kind)).any():
            return True
    return False


class Sparing(states.State):
    """A state whose best target is the one that is missed least."""

    def best_target(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask | None = None,
    ) -> int | None:
        """The feasible host that ranks first; None where there is none."""
        rows = np.flatnonzero(self._elsewhere(instance, kind, mask))
        if not len(rows):
            return None
        if len(rows) > _MOST_ROWS:
            scores = self.scores(kind)[rows]
            best = np.sort(np.argsort(-scores, kind="stable")[:_MOST_ROWS])
            rows = rows[best]
        lost = self._lost(kind, rows)
        first = self._first(
            instance, self.in_order(instance, kind, rows, lost)
        )
        if first is not None:
            return first
        return super().best_target(instance, kind, mask)

    def _lost(
        self, kind: problems.Kind, rows: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """What an arrival on some hosts takes from the other kinds."""
        problem = self.problem
        missed = 1.0 / np.maximum(self.targets, 1)
        room = self.room[rows] - kind.demand
        admits = np.array([self.admits(k)[rows] for k in problem.kinds])
        still = admits.copy()
        for column in np.flatnonzero(kind.demand):
            needed = problem.demands[:, column]
            still &= (needed[:, None] <= room[None, :, column]) | (
                needed[:, None] == 0
            )
        found = missed @ (admits & ~still)
        rounded: npt.NDArray[np.float64] = np.round(found, _DECIMALS)
        return rounded
