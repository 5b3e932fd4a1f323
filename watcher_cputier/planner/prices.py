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

"""How few migrations can do: lower bounds proven by prices.

Theory of operation. Give every kind k a price p_k >= 0: whoever sends an
instance away pays it, whoever takes one in earns it. What the cheapest end
state of each host costs by itself, all hosts together, is

    L(p) = sum over hosts of the least
           sum_k (c + p_k) out_k - sum_k p_k in_k + W * residual

with c the cost of a migration and W that of a unit left over quota. Every
instance that leaves a host arrives at another, so that for a whole plan the
prices cancel out: no plan costs less than L(p), whatever the prices are
(Lagrangian relaxation; with the best prices it equals the configuration LP
of Dantzig and Wolfe). Bad prices give a weak bound, never a wrong one.

A kind's price is what making a slot of its size costs in migrations: 0 where
holes abound, with sizes 1, 2, 4, 8 and holes of one unit 0, 1, 3, 7.

Everything about single hosts is in :mod:`~watcher_cputier.planner.knapsacks`;
its arithmetic is exact, so that bounds are rounded without a tolerance.

L is concave in the prices. They are improved from given ones, the planner's
labels for instance, by :mod:`~watcher_cputier.planner.ascent`: first with one
price for all kinds of a size, then with all prices.
"""

from collections.abc import Callable
import dataclasses
import math

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import ascent
from watcher_cputier.planner import covering as coverings
from watcher_cputier.planner import knapsacks

Floats = npt.NDArray[np.float64]
Units = coverings.Units
Index = npt.NDArray[np.intp]
HostTypes = knapsacks.HostTypes
Expired = Callable[[], bool]

# Points that are looked at for each bound, beyond the first ones.
_ROUNDS = 60
# What a bound may fall short of the best one there is, to end the search.
_NEAR = 0.01


def never() -> bool:
    """No time limit."""
    return False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A bound and what proves it.

    :param value: whole migrations or units
    :param prices: (K,) per kind
    :param move_cost: c of the proof
    :param residual_cost: W of the proof; infinite where nothing may stay
        but what cannot move
    """

    value: int
    prices: Floats
    move_cost: float
    residual_cost: float


def evaluate(
    covering: coverings.Covering | HostTypes,
    prices: npt.ArrayLike,
    *,
    move_cost: float = 1.0,
    residual_cost: float = math.inf,
) -> float:
    """L(p): no plan costs less, whatever the prices are.

    A plan costs ``move_cost`` for each migration and ``residual_cost`` for
    each unit that it leaves over quota. If the latter is infinite, plans
    that leave what could move are not spoken of, and what nothing can move
    costs nothing.

    :param prices: (K,) at least 0
    """
    return (
        _joined(covering)
        .evaluate(prices, move_cost=move_cost, residual_cost=residual_cost)
        .value
    )


def cover_bound(
    covering: coverings.Covering | HostTypes, residual: int = 0
) -> int:
    """The fewest instances whose units cover the excess, host by host.

    All but ``residual`` units of it, and what nothing can move. Where the
    instances could go does not count.
    """
    types = _joined(covering)
    left = types.excess - max(residual - types.stuck, 0)
    units, instances = _reliefs(types)
    total = np.cumsum(units * instances)
    if left <= 0:
        return 0
    at = int(np.searchsorted(total, left))
    before = int(total[at - 1]) if at else 0
    return int(instances[:at].sum()) + -(-(left - before) // int(units[at]))


def residual_bound(
    covering: coverings.Covering | HostTypes,
    prices: npt.ArrayLike | None = None,
    *,
    rounds: int = _ROUNDS,
    expired: Expired = never,
    enough: int | None = None,
) -> Bound:
    """The fewest units over quota that any plan leaves.

    :param prices: (K,) in units, to start from
    :param rounds: how long to improve the prices
    :param enough: a residual that is attained: no more can be proven
    """
    types = _joined(covering)
    sizes = types.sizes.astype(np.float64)
    # All room is wanted, or only that which holds instances of some size.
    starts = [np.where(sizes >= s, sizes, 0.0) for s in np.unique(sizes)]
    starts = [np.zeros_like(sizes), *starts]
    if prices is not None:
        starts.append(np.asarray(prices, np.float64))
    search = _Search(types, _Goal(move=0.0, residual=1.0))
    search.improve(
        [(start, 0.0) for start in starts],
        1.1 * sizes,
        0.0,
        _Effort(rounds, expired, enough),
    )
    return search.bound(types.stuck)


def migration_bound(
    covering: coverings.Covering | HostTypes,
    residual: int = 0,
    start: npt.ArrayLike | None = None,
    *,
    rounds: int = _ROUNDS,
    expired: Expired = never,
    enough: int | None = None,
) -> Bound:
    """The fewest migrations of any plan that leaves so few units over quota.

    Never less than :func:`cover_bound`. If no plan leaves so few, the bound
    says nothing.

    :param residual: units over quota that may stay, those that nothing can
        move included
    :param start: (K,) prices in migrations, to start from
    :param rounds: how long to improve the prices
    :param enough: migrations of a plan that does: no more can be proven
    """
    types = _joined(covering)
    sizes = types.sizes.astype(np.float64)
    starts = [np.zeros_like(sizes), sizes / sizes.min(initial=np.inf) - 1.0]
    if start is not None:
        starts.insert(0, np.asarray(start, np.float64))
    high = np.maximum(2.0 * sizes, 2.0 * starts[0] + 1.0)
    if residual <= types.stuck:
        search = _Search(types, _Goal(move=1.0, residual=math.inf))
        costs = [0.0]
    else:
        search = _Search(types, _Goal(move=1.0, residual=None, free=residual))
        costs = [0.0, *(1.0 / np.unique(sizes)), 2.0, 8.0]
    search.improve(
        [(prices, cost) for prices in starts for cost in costs],
        high,
        float(8 * high.max(initial=1.0)),
        _Effort(rounds, expired, enough),
    )
    return search.bound(cover_bound(types, residual))


def relief_bound(
    covering: coverings.Covering | HostTypes,
    limit: int,
    start: npt.ArrayLike | None = None,
    *,
    rounds: int = _ROUNDS,
    expired: Expired = never,
    enough: int | None = None,
) -> Bound:
    """The most units of excess that so many migrations remove.

    :param start: (K,) prices in migrations, to start from
    :param rounds: how long to improve the prices
    :param enough: units that a plan removes: no less can be proven
    """
    types = _joined(covering)
    sizes = types.sizes.astype(np.float64)
    prices = sizes / sizes.min(initial=np.inf) - 1.0
    if start is not None:
        prices = np.asarray(start, np.float64)
    costs = [0.0, *np.unique(sizes)]
    starts = [
        (np.minimum(prices * cost, np.maximum(sizes - cost, 0.0)), cost)
        for cost in costs
    ]
    starts += [(np.zeros_like(sizes), cost) for cost in costs]
    total = types.excess + types.stuck
    search = _Search(types, _Goal(move=None, residual=1.0, free=limit))
    search.improve(
        starts,
        1.1 * sizes,
        float(sizes.max(initial=1.0)),
        _Effort(rounds, expired, None if enough is None else total - enough),
    )
    units, instances = _reliefs(types)
    before = np.cumsum(instances) - instances
    most = int(units @ np.clip(limit - before, 0, instances))
    found = search.bound(total - most)
    return dataclasses.replace(found, value=total - found.value)


def _joined(covering: coverings.Covering | HostTypes) -> HostTypes:
    if isinstance(covering, HostTypes):
        return covering
    return HostTypes.of(covering)


def _reliefs(types: HostTypes) -> tuple[Units, Units]:
    """Units of excess that single departures remove, and how many do.

    The largest instances first, which removes the most with any number of
    departures; of all hosts together, the most valuable first.
    """
    left = np.maximum(-types.room, 0)
    counts: dict[int, int] = {}
    for kind in np.argsort(-types.sizes, kind="stable").tolist():
        size = int(types.sizes[kind])
        whole = np.minimum(types.movable[:, kind], left // size)
        counts[size] = counts.get(size, 0) + int(whole @ types.hosts)
        left = left - whole * size
        last = (left > 0) & (types.movable[:, kind] > whole)
        units, which = np.unique(left[last], return_inverse=True)
        hosts = np.bincount(which.reshape(-1), types.hosts[last])
        for unit, count in zip(units.tolist(), hosts.tolist(), strict=True):
            counts[unit] = counts.get(unit, 0) + int(count)
        left = np.where(last, 0, left)
    units = np.array(sorted(counts, reverse=True), np.int64)
    return units, np.array([counts[u] for u in units.tolist()], np.int64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Goal:
    """What is bounded: c * migrations + W * residual - free * (c or W).

    The cost that is None is one more price.
    """

    move: float | None
    residual: float | None
    free: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Effort:
    """How far to improve: rounds, a clock, a value that is attained."""

    rounds: int
    expired: Expired
    enough: int | None

    def ended(self, value: float, ceiling: float) -> bool:
        """Whether whole numbers can gain nothing any more."""
        if not math.isfinite(value):
            return False
        known = math.ceil(value)
        if self.enough is not None and known >= self.enough:
            return True
        return ceiling <= known + _NEAR


class _Search:
    """The best prices so far, and what was looked at."""

    def __init__(self, types: HostTypes, goal: _Goal) -> None:
        self._types = types
        self._goal = goal
        self._seen: dict[bytes, tuple[float, Floats]] = {}
        self._points: list[Floats] = []
        self._best = -math.inf
        self._top = np.zeros(len(types.sizes) + 1)

    def look(self, point: Floats) -> tuple[float, Floats]:
        """Bound and slope at (prices, free cost)."""
        point = np.maximum(knapsacks.grained(point), 0.0)
        key = point.tobytes()
        if key in self._seen:
            return self._seen[key]
        types, goal = self._types, self._goal
        free = float(point[-1])
        found = types.evaluate(
            point[:-1],
            move_cost=free if goal.move is None else goal.move,
            residual_cost=free if goal.residual is None else goal.residual,
        )
        flow = types.hosts @ (found.out - found.into)
        if goal.move is None:
            spent = types.hosts @ found.out.sum(axis=1)
        else:
            spent = types.hosts @ found.residual + types.stuck
        value = found.value - free * goal.free
        slope = np.append(flow, spent - goal.free).astype(np.float64)
        self._seen[key] = value, slope
        self._points.append(point)
        if value > self._best:
            self._best, self._top = value, point
        return value, slope

    def improve(
        self,
        starts: list[tuple[Floats, float]],
        high: Floats,
        high_cost: float,
        effort: _Effort,
    ) -> None:
        """Look at the starts, then climb: by size, then by kind."""
        goal = self._goal
        free = goal.move is None or goal.residual is None
        if not len(self._types.hosts) or not len(high):
            return
        first = []
        for prices, cost in starts:
            point = np.append(prices, cost if free else 0.0)
            self.look(point)
            first.append(point)
            if effort.ended(self._best, math.inf) or effort.expired():
                return
        _, size = np.unique(self._types.sizes, return_inverse=True)
        kinds = np.append(size.reshape(-1), size.max() + 1)
        box = np.append(high, high_cost)
        if self._climb(kinds, first, box, effort):
            return
        if size.max() + 1 == len(size):
            return
        box = np.minimum(box, 2.0 * self._top + 2.0)
        recent = [*self._points[-len(high) :], self._top]
        self._climb(np.arange(len(kinds)), recent, box, effort)

    def _climb(
        self,
        groups: Index,
        starts: list[Floats],
        high: Floats,
        effort: _Effort,
    ) -> bool:
        """Climb with one price per group; whether more is useless.

        The last group, of the free cost, is left out where there is none.
        """
        goal = self._goal
        free = goal.move is None or goal.residual is None
        count = int(groups[-1]) + int(free)
        inside = groups < count

        def spread(values: Floats) -> Floats:
            return np.where(inside, np.append(values, 0.0)[groups], 0.0)

        def function(values: Floats) -> tuple[float, Floats]:
            value, slope = self.look(spread(values))
            grouped = np.bincount(groups, np.where(inside, slope, 0.0))
            return value, grouped[:count].astype(np.float64)

        def gathered(point: Floats) -> Floats:
            most = np.zeros(int(groups[-1]) + 1)
            np.maximum.at(most, groups, point)
            return most[:count]

        top = ascent.climb(
            function,
            [gathered(start) for start in starts],
            gathered(high),
            rounds=effort.rounds,
            enough=effort.ended,
            expired=effort.expired,
        )
        return effort.ended(top.value, math.inf) or effort.expired()

    def bound(self, least: int) -> Bound:
        """The best bound, not below one that is known without prices."""
        goal, free = self._goal, float(self._top[-1])
        value = least
        if math.isfinite(self._best):
            value = max(least, math.ceil(self._best))
        return Bound(
            value=value,
            prices=self._top[:-1].copy(),
            move_cost=free if goal.move is None else goal.move,
            residual_cost=free if goal.residual is None else goal.residual,
        )
