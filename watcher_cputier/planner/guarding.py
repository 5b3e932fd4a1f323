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

"""Attempts that keep to prices: where to go, and what to do again.

Theory of operation. The prices of a bound (:mod:`.prices`) say what a slot of
a size is worth in migrations. With the best prices, every host of a plan that
meets the bound ends in a state that is cheapest for that host by itself
(complementary slackness). This tells two things:

* *Where not to go.* A host with room for 5 units is worth the dearest set of
  slots that 5 units hold. An arrival of 1 unit takes from it the difference
  to what 4 units hold; where that is more than its own slot is worth, it had
  better go elsewhere. :class:`Guarded` ranks targets by this loss, and lets
  the weigher rank those that are equal.
* *What went wrong.* What the end state of a host costs beyond its cheapest
  one is its *waste*. All wastes together are the distance of a plan from the
  bound, so that a plan which is nearly optimal has few wasteful hosts. The
  migrations that touch them are taken back, and found anew.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from watcher_cputier import model
from watcher_cputier.planner import certificate
from watcher_cputier.planner import knapsacks
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

Floats = npt.NDArray[np.float64]

# Losses are compared after rounding, as scores are.
_DECIMALS = 6
# Units of room, at most, that a value is worked out for.
_MOST_UNITS = 1024


class Guarded(states.State):
    """A state whose best target is the one that loses the least value.

    :param worth: per account its prices, (K,) per kind of its covering
    """

    def __init__(
        self,
        problem: problems.Problem,
        accounts: Iterable[certificate.Account],
        worth: dict[str, Floats],
    ) -> None:
        super().__init__(problem)
        self._values = {
            account.name: _Values(account, worth[account.name])
            for account in accounts
            if account.name in worth
        }

    def best_target(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask | None = None,
    ) -> int | None:
        """The feasible host that ranks first; None where there is none."""
        known = [a for a in kind.accounts if a in self._values]
        if not known:
            return super().best_target(instance, kind, mask)
        rows = np.flatnonzero(self._elsewhere(instance, kind, mask))
        if not len(rows):
            return None
        lost = np.zeros(len(rows))
        for account in known:
            room = self.room[rows, self.problem.column["quota", account]]
            lost += self._values[account].lost(rows, room, kind.units)
        lost = np.round(lost, _DECIMALS)
        return self._first(instance, self.in_order(instance, kind, rows, lost))


class _Values:
    """What room is worth: the dearest set of slots that it holds."""

    def __init__(self, account: certificate.Account, worth: Floats) -> None:
        covering = account.covering
        self._scale = covering.scale
        patterns, which = np.unique(
            covering.accepts, axis=0, return_inverse=True
        )
        self._which = which.reshape(-1)
        movable = covering.movable @ covering.sizes
        most = int(np.max(covering.room + movable, initial=0))
        self._most = min(max(most, 0), _MOST_UNITS)
        value = np.zeros((len(patterns), self._most + 1))
        for units in range(1, self._most + 1):
            value[:, units] = value[:, units - 1]
            for kind, size in enumerate(covering.sizes.tolist()):
                if size <= units:
                    with_it = value[:, units - size] + worth[kind]
                    better = patterns[:, kind] & (with_it > value[:, units])
                    value[better, units] = with_it[better]
        self._value = value

    def lost(
        self,
        rows: npt.NDArray[np.intp],
        room: problems.Units,
        units: int,
    ) -> Floats:
        """The value that an arrival of so many units takes from hosts."""
        which = self._which[rows]
        before = np.clip(room // self._scale, 0, self._most)
        after = np.clip((room - units) // self._scale, 0, self._most)
        found: Floats = self._value[which, before] - self._value[which, after]
        return found


def wastes(
    problem: problems.Problem,
    account: certificate.Account,
    worth: Floats,
    moves: Sequence[tuple[model.Instance, int]],
) -> Floats:
    """(H,) what end states cost beyond the cheapest ones of their hosts.

    :param worth: (K,) prices of an account, per kind of its covering
    :param moves: instances and the rows of their targets, of a plan that
        leaves nothing over quota
    """
    shape = account.covering.movable.shape
    out, into = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    group_of = {k: i for i, group in enumerate(account.groups) for k in group}
    last: dict[str, int] = {}
    for instance, target in moves:
        kind = problem.kind_of[instance.uuid]
        if account.name not in kind.accounts:
            continue
        group = group_of[kind.index]
        if instance.uuid in last:
            into[last[instance.uuid], group] -= 1
        else:
            out[problem.host_index[instance.host], group] += 1
        into[target, group] += 1
        last[instance.uuid] = target
    types = knapsacks.HostTypes.of(account.covering)
    least = types.evaluate(worth).costs[types.type_of]
    found: Floats = out @ (1.0 + worth) - into @ worth - least
    return found
