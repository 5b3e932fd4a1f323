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

"""The fewest migrations there can be: column generation, then whole hosts.

Theory of operation. A *pattern* is an end state of a host: how many of each
kind leave it and how many arrive. A plan gives every host a pattern such
that at least as many instances of a kind arrive as leave. With hosts of a
type joined, how often a type uses a pattern is the only unknown, and the
cheapest choice of fractions (the restricted master, a small LP) yields
prices. At these prices the knapsacks of
:mod:`~watcher_cputier.planner.knapsacks` find for every type the pattern
that the master lacks most; where there is none, no other pattern can better
the LP (Dantzig and Wolfe). Its prices prove the bound, without trusting the
solver: they are evaluated exactly.

The same patterns in whole numbers (an integer program) are the solution.
Patterns of about the same cost are added first, because the few that the LP
needs seldom fit together without fractions. Residual comes first, then
migrations. Where both equal their bounds the solution is proven optimal: no
plan leaves fewer units over quota, and of those that leave so few none needs
fewer migrations. The solution is an end state; whether and in which order
migrations reach it is the planner's matter.

The LP and the integer program need scipy (HiGHS), the extra ``exact``.
Without it small clouds that can keep their quotas have prices that were found
otherwise and the search of :mod:`~watcher_cputier.planner.selection`; what it
finds is proven by the same bound. Deterministic: patterns are sorted,
hosts of a type get them in the order of their names, and HiGHS is given
neither threads nor a clock, unless the caller wants it.
"""

from collections.abc import Callable
import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import covering as coverings
from watcher_cputier.planner import knapsacks
from watcher_cputier.planner import prices
from watcher_cputier.planner import selection

try:
    from scipy import optimize
    from scipy import sparse
except ImportError:  # the extra is not installed
    optimize = None
    sparse = None

Floats = npt.NDArray[np.float64]
Units = coverings.Units
Index = npt.NDArray[np.intp]

# Rounds of column generation, at most; a handful is usual.
_ROUNDS = 60
# A pattern improves the LP if it is cheaper by more than this.
_GAIN = 1e-6
# Migrations by which a pattern may be dearer than the best of its type to
# be offered to the integer program, the first time and the next ones.
_SLACKS = (0.5, 1.0, 2.0)
_PATTERNS = 12
_NODES = 2_000
# Hosts and kinds up to which a search takes the solver's place where there is
# none: sums of more kinds are too many.
_SMALL = 300
_FEW = 16


def available() -> bool:
    """Whether scipy is installed."""
    return optimize is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An end state of all hosts, and what no plan can better.

    :param out: (H, K) instances that leave
    :param into: (H, K) instances that arrive; of each kind as many as leave
    :param residual: units over quota that stay
    :param migrations: instances that leave
    :param residual_bound: no plan leaves fewer
    :param migration_bound: no plan that leaves ``residual`` or fewer needs
        fewer
    :param prices: (K,) in migrations, that prove it
    :param proven: whether both bounds are attained
    """

    out: Units
    into: Units
    residual: int
    migrations: int
    residual_bound: int
    migration_bound: int
    prices: Floats
    proven: bool


def solve(
    covering: coverings.Covering | knapsacks.HostTypes,
    start: npt.ArrayLike | None = None,
    *,
    expired: Callable[[], bool] = prices.never,
    seconds: float | None = None,
) -> Solution | None:
    """The end state with the least residual, then the fewest migrations.

    :param start: (K,) prices in migrations, to start from
    :param expired: whether time is up; asked between rounds. A solution
        that was cut short is valid, but perhaps not proven
    :param seconds: for each integer program; by default it ends by a count
        of steps that does not depend on the machine
    :returns: None where the numbers are too large to be exact, where time
        was up before any solution, and without scipy for large clouds and
        many kinds, where something has to stay over quota, and where no
        choice of end states was found
    """
    types = covering
    if isinstance(types, coverings.Covering):
        types = knapsacks.HostTypes.of(types)
    if not _suits(types):
        return None
    return _Master(types, expired, seconds).solve(start)


def relieve(
    covering: coverings.Covering,
    limit: int,
    *,
    expired: Callable[[], bool] = prices.never,
) -> Solution | None:
    """The end state with the least residual that so few migrations reach.

    Of the solution ``residual_bound`` holds for plans of ``limit``
    migrations, and ``proven`` speaks of it alone.

    :param limit: migrations, at least 1
    :param expired: as for :func:`solve`, which tells when there is None
    """
    types = knapsacks.HostTypes.of(covering)
    if not available() or types.grain > 1 or not types.movable.any():
        return None
    return _Master(types, expired, None).relieve(limit)


def _suits(types: knapsacks.HostTypes) -> bool:
    """Whether the numbers are exact and, without scipy, few."""
    if types.grain > 1:
        return False
    few = int(types.movable.any(axis=0).sum()) <= _FEW
    return available() or (few and len(types.type_of) <= _SMALL)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Goal:
    """What a master minimises: migrations or, if not ``moves``, residual.

    :param free: units that may stay over quota, of those that can move;
        None: any number
    :param most: migrations; None: any number
    """

    moves: bool
    free: int | None = None
    most: int | None = None

    @property
    def spared(self) -> int:
        """What is given for nothing of what has a price of its own."""
        return (self.free or 0) + (self.most or 0)


@dataclasses.dataclass(frozen=True, slots=True)
class _Proof:
    """A bound (without what is stuck) and the prices that prove it."""

    value: float
    prices: Floats
    move_cost: float
    residual_cost: float


@dataclasses.dataclass(frozen=True, slots=True)
class _Relaxed:
    """The LP's solution: its value and prices; duals (N,) of the types."""

    value: float
    prices: Floats
    move_cost: float
    residual_cost: float
    duals: Floats


class _Master:
    """The patterns so far, and what becomes of them.

    A pattern is a row: type, instances that leave and that arrive by kind,
    residual.
    """

    def __init__(
        self,
        types: knapsacks.HostTypes,
        expired: Callable[[], bool],
        seconds: float | None,
    ) -> None:
        self._types = types
        self._expired = expired
        self._seconds = seconds
        count, self._kinds = types.movable.shape
        nothing = np.zeros((count, 2 * self._kinds + 2), np.int64)
        nothing[:, 0] = np.arange(count)
        nothing[:, -1] = np.maximum(-types.room, 0)
        self._patterns: Units = nothing

    def solve(self, start: npt.ArrayLike | None) -> Solution | None:
        """Residual first, then migrations."""
        types, expired = self._types, self._expired
        if not types.movable.any():
            return self._at_rest()
        least = prices.residual_bound(types, expired=expired)
        found = prices.migration_bound(
            types, least.value, start, expired=expired
        )
        low = least.value - types.stuck
        guess = _Proof(found.value, found.prices, 1.0, found.residual_cost)
        self._near(_Goal(moves=True, free=low), guess, 0.5)
        proof = self._generate(
            _Goal(moves=False), _Proof(low, least.prices, 0.0, 1.0)
        )
        free = math.ceil(proof.value)
        if free > low:
            found = prices.migration_bound(
                types, free + types.stuck, found.prices, expired=expired
            )
        goal = _Goal(moves=True, free=free)
        proof = self._generate(
            goal, _Proof(found.value, found.prices, 1.0, found.residual_cost)
        )
        return self._best(goal, proof)

    def relieve(self, limit: int) -> Solution | None:
        """The least residual with so many migrations."""
        types, expired = self._types, self._expired
        found = prices.relief_bound(types, limit, expired=expired)
        goal = _Goal(moves=False, most=limit)
        proof = _Proof(
            types.excess - found.value,
            found.prices,
            found.move_cost,
            found.residual_cost,
        )
        self._near(goal, proof, 0.5)
        return self._best(goal, self._generate(goal, proof))

    def _best(self, goal: _Goal, proof: _Proof) -> Solution | None:
        """Whole numbers, of more and more patterns until it is proven."""
        expired = self._expired
        best = None
        if goal.free and not available():
            # What has to stay is left to the labels.
            return None
        for slack in _SLACKS if available() else _SLACKS[:2]:
            if expired() or (best and best.proven):
                break
            self._near(goal, proof, slack)
            solution = self._whole(goal, proof, slack)
            if best is None or (solution and _rank(solution) < _rank(best)):
                best = solution
        return best

    def _at_rest(self) -> Solution:
        """Nothing can move."""
        shape = self._types.covering.movable.shape
        return Solution(
            out=np.zeros(shape, np.int64),
            into=np.zeros(shape, np.int64),
            residual=self._types.stuck,
            migrations=0,
            residual_bound=self._types.stuck,
            migration_bound=0,
            prices=np.zeros(shape[1]),
            proven=True,
        )

    def _generate(self, goal: _Goal, proof: _Proof) -> _Proof:
        """Add patterns until the bound is the LP's, in whole numbers."""
        for _ in range(_ROUNDS):
            if self._expired():
                break
            solved = self._relaxed(goal)
            if solved is None:
                break
            if solved.value <= math.ceil(proof.value) + _GAIN:
                break
            effort, weight = solved.move_cost, solved.residual_cost
            _, state = self._types.near(
                solved.prices,
                move_cost=effort,
                residual_cost=weight,
                slack=0.0,
                most=1,
            )
            value = float(state.costs @ self._types.hosts)
            if goal.spared:
                value -= (weight if goal.moves else effort) * goal.spared
            if value > proof.value:
                proof = _Proof(value, solved.prices, effort, weight)
            cheaper = np.flatnonzero(state.costs < solved.duals - _GAIN)
            if not len(cheaper):
                break
            self._add(cheaper, state, cheaper)
        return proof

    def _near(self, goal: _Goal, proof: _Proof, slack: float) -> None:
        """Add patterns that cost about as little as the cheapest.

        Kinds without a price fill room for nothing: in patterns of their
        own, each size preferred once.
        """
        sizes = self._types.sizes
        for size in [0, *np.unique(sizes).tolist()]:
            fill = sizes * np.where(sizes == size, 2.0, 1.0)
            which, states = self._types.near(
                proof.prices + 1e-3 * fill,
                move_cost=proof.move_cost,
                residual_cost=proof.residual_cost,
                slack=slack,
                most=_PATTERNS,
            )
            self._add(which, states, np.arange(len(which)))

    def _add(
        self, which: Index, states: knapsacks.Evaluation, rows: Index
    ) -> None:
        """Add end states; patterns stay sorted, each is there once."""
        new = np.column_stack(
            [which, states.out[rows], states.into[rows], states.residual[rows]]
        )
        self._patterns = np.unique(np.vstack([self._patterns, new]), axis=0)

    def _usable(self, goal: _Goal) -> Units:
        if goal.moves and goal.free == 0:
            none = self._patterns[:, -1] == 0
            return np.compress(none, self._patterns, axis=0)
        return self._patterns

    def _split(self, patterns: Units) -> tuple[Units, Units]:
        kinds = self._kinds
        return patterns[:, 1 : kinds + 1], patterns[:, kinds + 1 : -1]

    def _rows(self, patterns: Units) -> tuple[Any, Any]:
        """Uses per type; what leaves beyond what arrives, by kind."""
        count = len(patterns)
        uses = sparse.csc_array(
            (np.ones(count), (patterns[:, 0], np.arange(count))),
            shape=(len(self._types.hosts), count),
        )
        out, into = self._split(patterns)
        moving = self._types.movable.any(axis=0)
        flow = sparse.csc_array((out - into)[:, moving].T.astype(np.float64))
        return uses, flow

    def _relaxed(self, goal: _Goal) -> _Relaxed | None:
        """The LP over the patterns so far; None where they do not do, and
        without a solver.
        """
        if not available():
            return None
        patterns = self._usable(goal)
        uses, flow = self._rows(patterns)
        out, _ = self._split(patterns)
        limits = np.zeros(flow.shape[0])
        moved, stays = out.sum(axis=1), patterns[:, -1]
        limited = bool(goal.spared)
        if limited:
            flow = sparse.vstack(
                [flow, (stays if goal.moves else moved)[None]]
            )
            limits = np.append(limits, float(goal.spared))
        solved = optimize.linprog(
            moved if goal.moves else stays,
            A_ub=flow,
            b_ub=limits,
            A_eq=uses,
            b_eq=self._types.hosts,
            method="highs",
        )
        if solved.status != 0:
            return None
        found = np.maximum(-solved.ineqlin.marginals, 0.0)
        price = np.zeros(self._kinds)
        moving = self._types.movable.any(axis=0)
        price[moving] = found[: moving.sum()]
        # Rounded as it will be evaluated: it is subtracted again.
        free = float(knapsacks.grained(found[-1])) if limited else math.inf
        return _Relaxed(
            float(solved.fun),
            price,
            1.0 if goal.moves else free if limited else 0.0,
            free if goal.moves else 1.0,
            solved.eqlin.marginals,
        )

    def _whole(
        self, goal: _Goal, proof: _Proof, slack: float
    ) -> Solution | None:
        """The best choice of patterns in whole numbers."""
        near = self._affordable(goal, proof, slack)
        if not available():
            used = self._selected(near, proof, slack)
            if used is None:
                return None
            return self._solution(near, used, 0, proof, goal)
        used = self._integers(near, goal, math.ceil(proof.value))
        if used is None and not goal.moves:
            return None
        if used is None:
            stays = _Goal(moves=False)
            near = self._patterns
            used = self._integers(near, stays, goal.free or 0)
            if used is None:
                return None
            left = int(used @ near[:, -1])
            again = self._integers(near, _Goal(moves=True, free=left), 0)
            used = used if again is None else again
        free = goal.free or 0
        if not goal.moves:
            free = math.ceil(proof.value)
        return self._solution(near, used, free, proof, goal)

    def _affordable(self, goal: _Goal, proof: _Proof, slack: float) -> Units:
        """Patterns that cost little more than the cheapest of their type."""
        patterns = self._usable(goal)
        out, into = self._split(patterns)
        price = knapsacks.grained(proof.prices)
        cost = proof.move_cost * out.sum(axis=1) + (out - into) @ price
        if goal.free or not goal.moves:
            cost = cost + proof.residual_cost * patterns[:, -1]
        least = np.full(len(self._types.hosts), np.inf)
        np.minimum.at(least, patterns[:, 0], cost)
        cheap = cost <= least[patterns[:, 0]] + slack + _GAIN
        return np.compress(cheap, patterns, axis=0)

    def _integers(
        self, patterns: Units, goal: _Goal, least: int
    ) -> Units | None:
        """How often each pattern is used."""
        uses, flow = self._rows(patterns)
        out, _ = self._split(patterns)
        cost = out.sum(axis=1) if goal.moves else patterns[:, -1]
        hosts = self._types.hosts
        rules = [
            optimize.LinearConstraint(uses, hosts, hosts),
            optimize.LinearConstraint(flow, -np.inf, 0),
            optimize.LinearConstraint(cost[None], least, np.inf),
        ]
        if goal.moves and goal.free:
            rules.append(
                optimize.LinearConstraint(
                    patterns[None, :, -1], -np.inf, goal.free
                )
            )
        if goal.most is not None:
            rules.append(
                optimize.LinearConstraint(
                    out.sum(axis=1)[None], -np.inf, goal.most
                )
            )
        options: dict[str, Any] = {"node_limit": _NODES, "mip_rel_gap": 0.0}
        if self._seconds is not None:
            options["time_limit"] = self._seconds
        solved = optimize.milp(
            cost,
            integrality=np.ones(len(cost)),
            bounds=optimize.Bounds(0, hosts[patterns[:, 0]]),
            constraints=rules,
            options=options,
        )
        if solved.x is None:
            return None
        used: Units = np.rint(solved.x).astype(np.int64)
        return used

    def _selected(
        self, patterns: Units, proof: _Proof, slack: float
    ) -> Units | None:
        """The same without a solver; None where nothing was found."""
        if not len(patterns):
            return None
        out, into = self._split(patterns)
        moving = self._types.movable.any(axis=0)
        offered = selection.Patterns(
            types=patterns[:, 0],
            moves=out.sum(axis=1),
            slots=(into - out)[:, moving],
            hosts=self._types.hosts,
            sizes=self._types.sizes[moving],
            prices=knapsacks.grained(proof.prices[moving]),
        )
        return selection.select(offered, int(slack), expired=self._expired)

    def _solution(
        self,
        patterns: Units,
        used: Units,
        free: int,
        proof: _Proof,
        goal: _Goal,
    ) -> Solution:
        """Hosts of a type get their patterns in order."""
        types = self._types
        chosen = np.repeat(patterns, used, axis=0)
        out, into = self._split(chosen)
        _trim(into, into.sum(axis=0) - out.sum(axis=0))
        chosen = chosen[np.lexsort(chosen.T[::-1])]
        order = np.argsort(types.type_of, kind="stable")
        assert np.array_equal(chosen[:, 0], types.type_of[order])
        mine = np.empty_like(chosen)
        mine[order] = chosen
        out, into = self._split(mine)
        residual = int(mine[:, -1].sum())
        bound = math.ceil(proof.value)
        if not goal.moves:
            bound = 0
        elif residual > free:
            bound = prices.migration_bound(
                types,
                residual + types.stuck,
                proof.prices,
                expired=self._expired,
            ).value
        moves = int(out.sum())
        return Solution(
            out=out.copy(),
            into=into.copy(),
            residual=residual + types.stuck,
            migrations=moves,
            residual_bound=free + types.stuck,
            migration_bound=bound,
            prices=proof.prices,
            proven=residual == free and (moves == bound or not goal.moves),
        )


def _trim(into: Units, surplus: Units) -> None:
    """Take back, in place, arrivals that nobody left for; the last first."""
    for kind in np.flatnonzero(surplus > 0).tolist():
        column = into[::-1, kind]
        before = np.cumsum(column) - column
        column -= np.clip(surplus[kind] - before, 0, column)


def _rank(solution: Solution) -> tuple[int, int]:
    return solution.residual, solution.migrations
