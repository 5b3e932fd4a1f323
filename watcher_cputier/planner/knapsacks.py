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

"""The cheapest end states of single hosts, all hosts at once.

What a host can do by itself, with hops and temporary moves or without:

* Of a kind no more leave than may move: a bounded knapsack.
* Of a kind that it accepts any number arrives: an unbounded knapsack. Its
  room and what leaves must hold them.
* A host that stays over quota takes nothing in: an arrival needs room, and
  once there is room no host goes over quota again.

Both knapsacks are tables over units, of all hosts together: the least that
it costs to free so many units, and the most that arrivals earn within a
capacity. Nothing is cut off: every number of units that can leave is tried.

Hosts that are alike share one row (a *host type*), so that the effort grows
with the number of types rather than hosts.

Arithmetic is exact. Prices and costs are rounded to multiples of 2**-20, a
valid choice like any other; sums of such numbers below 2**33 are exact in
floating point, in whatever order they are taken. Bounds can thus be rounded
to whole migrations and units without a tolerance.
"""

import dataclasses
import functools
import math

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import covering as coverings

Floats = npt.NDArray[np.float64]
Units = coverings.Units
Mask = coverings.Mask
Index = npt.NDArray[np.intp]

_GRAIN = 2.0**-20
# Table cells that an evaluation may need; above that units are grouped.
_CELLS = 12_000_000
# Rows whose part of the tables fits a processor's cache.
_BLOCK_CELLS = 60_000


def grained(values: npt.ArrayLike) -> Floats:
    """The nearest numbers that are added without rounding."""
    rounded = np.round(np.asarray(values, np.float64) / _GRAIN) * _GRAIN
    return np.asarray(rounded, np.float64)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The cheapest end states at given prices.

    :param value: L(p), of all hosts
    :param out: (N, K) instances that leave a host of a type
    :param into: (N, K) instances that arrive
    :param residual: (N,) units left over quota, without those that nothing
        can move
    :param costs: (N,) what the end state of one host costs
    """

    value: float
    out: Units
    into: Units
    residual: Units
    costs: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    """Some instances of one kind that leave together or stay, in a block.

    :param place: where a row of the block is among ``rows``; -1: it is not.
        None where they are all of them
    """

    kind: int
    instances: int
    rows: Index | slice
    width: int
    place: Index | None


@dataclasses.dataclass(frozen=True, slots=True)
class _Block:
    """Host types that are evaluated together.

    :param rows: the types
    :param parts: what may leave; any number up to all of a kind is the sum
        of some of its parts
    :param cells: where the value of the capacity is found that a host has
        when so many units have left; (rows, units + 1)
    :param short: units over quota then
    """

    rows: slice
    parts: tuple[_Part, ...]
    cells: Index
    short: Floats


@dataclasses.dataclass(frozen=True, eq=False)
class HostTypes:
    """A covering with equal hosts joined and what cannot happen left out.

    N types in canonical order. What cannot happen: instances leave although
    no other host could ever take them, or arrive where they never fit, or
    of a kind of which none moves.

    :param covering: what this was made of
    :param type_of: (H,) type of each host
    :param hosts: (N,) hosts of a type
    :param room: (N,) units within the quota, minus the excess that can move
    :param movable: (N, K) instances that may leave
    :param accepts: (N, K) whether instances may arrive
    :param stuck: units over quota that nothing can move
    :param grain: units that one unit of the tables stands for; above 1 the
        bounds are weaker than they could be and the end states are
        approximate
    """

    covering: coverings.Covering
    type_of: Index
    hosts: Units
    room: Units
    movable: Units
    accepts: Mask
    stuck: int
    grain: int

    @classmethod
    def of(cls, covering: coverings.Covering) -> "HostTypes":
        """Join the equal hosts of a covering."""
        movable, accepts = _possible(covering)
        able = movable @ covering.sizes
        stuck = np.maximum(covering.excess - able, 0)
        room = covering.room + stuck
        rows = np.column_stack([room, movable, accepts])
        types, type_of, hosts = np.unique(
            rows, axis=0, return_inverse=True, return_counts=True
        )
        # Hosts that take the same, so that blocks have few parts; the widest
        # tables last, so that blocks are of one width.
        kinds = len(covering.sizes)
        reach = types[:, 1 : kinds + 1] @ covering.sizes
        _, alike = np.unique(
            types[:, kinds + 1 :], axis=0, return_inverse=True
        )
        order = np.lexsort((reach, alike.reshape(-1)))
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        types = types[order]
        return cls(
            covering=covering,
            type_of=place[type_of.reshape(-1)],
            hosts=hosts[order].astype(np.int64),
            room=types[:, 0].copy(),
            movable=types[:, 1 : kinds + 1].copy(),
            accepts=types[:, kinds + 1 :].astype(bool),
            stuck=int(stuck.sum()),
            grain=_grain(covering, reach),
        )

    @property
    def sizes(self) -> Units:
        """(K,) units of a kind, in the covering's units."""
        return self.covering.sizes

    @functools.cached_property
    def excess(self) -> int:
        """Units over quota that can move, of all hosts."""
        return int(np.maximum(-self.room, 0) @ self.hosts)

    @functools.cached_property
    def dearest(self) -> float:
        """The highest price of a unit; sums above it would be rounded."""
        units = np.maximum(-self.room, self.room + self._reach) + self._reach
        total = max(int(units @ self.hosts) + self.stuck, 1)
        return float(2.0 ** (30 - math.ceil(math.log2(total))))

    def _weight(self, residual_cost: float) -> float:
        if math.isinf(residual_cost):
            return residual_cost
        return min(max(float(grained(residual_cost)), 0.0), self.dearest)

    @functools.cached_property
    def _sizes_out(self) -> Units:
        return -(-self.sizes // self.grain)

    @functools.cached_property
    def _sizes_in(self) -> Units:
        return np.maximum(self.sizes // self.grain, 1)

    @functools.cached_property
    def _room(self) -> Units:
        return -(-self.room // self.grain)

    @functools.cached_property
    def _reach(self) -> Units:
        return self.movable @ self._sizes_out

    @functools.cached_property
    def _capacity(self) -> int:
        """The most units that a host could take in."""
        return int(max(np.max(self._room + self._reach, initial=0), 0))

    @functools.cached_property
    def _eligibility(self) -> tuple[Mask, Index]:
        """(A, K) the distinct rows of accepts, and (N,) which is whose."""
        rows, which = np.unique(self.accepts, axis=0, return_inverse=True)
        return rows.astype(bool), which.reshape(-1)

    @functools.cached_property
    def _blocks(self) -> tuple[_Block, ...]:
        blocks = []
        start = 0
        while start < len(self.hosts):
            stop = start + 1
            while (
                stop < len(self.hosts)
                and (stop + 1 - start) * (self._reach[stop] + 1)
                <= _BLOCK_CELLS
            ):
                stop += 1
            blocks.append(self._block(slice(start, stop)))
            start = stop
        return tuple(blocks)

    def _block(self, rows: slice) -> _Block:
        room = self._room[rows, None]
        _, which = self._eligibility
        freed = np.arange(int(self._reach[rows].max()) + 1)
        capacity = np.minimum(room + freed, self._capacity)
        cells = np.maximum(capacity, 0)
        cells += which[rows, None] * (self._capacity + 1)
        return _Block(
            rows,
            tuple(_parts(self.movable[rows], self._sizes_out)),
            cells,
            np.maximum(-capacity, 0).astype(np.float64),
        )

    def evaluate(
        self,
        prices: npt.ArrayLike,
        *,
        move_cost: float = 1.0,
        residual_cost: float = math.inf,
    ) -> Evaluation:
        """L(p) and the end states that attain it.

        :param prices: (K,) at least 0; rounded as :func:`grained` does, and
            all costs cut off at ``dearest``
        :param residual_cost: infinite: only what nothing can move stays,
            and it costs nothing
        """
        _, states = self._states(prices, move_cost, residual_cost, 0.0, 1)
        value = float(states.costs @ self.hosts)
        if math.isfinite(residual_cost):
            value += self._weight(residual_cost) * self.stuck
        return Evaluation(
            value=value,
            out=states.out,
            into=states.into,
            residual=states.residual,
            costs=states.costs,
        )

    def near(
        self,
        prices: npt.ArrayLike,
        *,
        move_cost: float = 1.0,
        residual_cost: float = math.inf,
        slack: float,
        most: int,
    ) -> tuple[Index, Evaluation]:
        """End states that cost at most ``slack`` more than the cheapest.

        For each type up to ``most``, each with another number of units
        that leave; the rows of the evaluation are the end states.

        :returns: the type of each end state, and the end states
        """
        return self._states(prices, move_cost, residual_cost, slack, most)

    def _states(
        self,
        prices: npt.ArrayLike,
        move_cost: float,
        residual_cost: float,
        slack: float,
        most: int,
    ) -> tuple[Index, Evaluation]:
        price = np.clip(grained(prices), 0.0, self.sizes * self.dearest)
        leaving = min(max(float(grained(move_cost)), 0.0), self.dearest)
        weight = self._weight(residual_cost) * self.grain
        value, steps = self._values(price)
        found = [
            _cheapest(block, self._sizes_out, leaving + price, weight, value)
            for block in self._blocks
        ]
        picked = [table.pick(slack, most) for table in found]
        which = np.concatenate(
            [
                rows + block.rows.start
                for block, (rows, _) in zip(self._blocks, picked, strict=True)
            ]
            or [np.empty(0, np.intp)]
        )
        freed = np.concatenate([units for _, units in picked] or [which])
        out = [
            table.departures(rows, units, self._sizes_out)
            for table, (rows, units) in zip(found, picked, strict=True)
        ]
        costs = [
            table.costs[rows, units]
            for table, (rows, units) in zip(found, picked, strict=True)
        ]
        room = self._room[which] + freed
        return which, Evaluation(
            value=math.nan,
            out=np.vstack([np.empty((0, len(price)), np.int64), *out]),
            into=self._arrivals(steps, which, np.maximum(room, 0)),
            residual=np.maximum(-room, 0) * self.grain,
            costs=np.concatenate([np.empty(0), *costs]),
        )

    def _values(self, price: Floats) -> tuple[Floats, list["_Step"]]:
        """The most that arrivals earn, by eligibility and capacity."""
        eligible, _ = self._eligibility
        best = np.zeros((len(eligible), self._capacity + 1))
        steps = []
        for size in np.unique(self._sizes_in):
            kinds = np.flatnonzero(self._sizes_in == size)
            earned = np.where(eligible[:, kinds], price[kinds], 0.0)
            kind = kinds[np.argmax(earned, axis=1)]
            gain = earned.max(axis=1, initial=0.0)[:, None]
            if not gain.any():
                continue
            instances = 1
            while instances * size <= self._capacity:
                shift = instances * int(size)
                with_them = best[:, :-shift] + instances * gain
                better = with_them > best[:, shift:]
                np.maximum(best[:, shift:], with_them, out=best[:, shift:])
                steps.append(_Step(instances, shift, kind, better))
                instances *= 2
        return best.reshape(-1), steps

    def _arrivals(
        self, steps: list["_Step"], types: Index, room: Units
    ) -> Units:
        """(P, K) what earns the most within a room; as types may accept."""
        which = self._eligibility[1][types]
        left = room
        into = np.zeros((len(types), len(self.sizes)), np.int64)
        rows = np.arange(len(types))
        for step in reversed(steps):
            at = left - step.shift
            taken = step.better[which, np.maximum(at, 0)] & (at >= 0)
            into[rows[taken], step.kind[which[taken]]] += step.instances
            left = np.where(taken, at, left)
        return into


@dataclasses.dataclass(frozen=True, slots=True)
class _Step:
    """So many instances of one size that arrive together or not at all."""

    instances: int
    shift: int
    kind: Index
    better: Mask


def _possible(covering: coverings.Covering) -> tuple[Units, Mask]:
    """What can ever leave and arrive: the greatest fixed point."""
    movable = covering.movable
    accepts = covering.accepts
    while True:
        able = covering.room + movable @ covering.sizes
        elsewhere = movable.sum(axis=0) - movable
        arrives = accepts & (covering.sizes <= able[:, None]) & (elsewhere > 0)
        others = arrives.sum(axis=0) - arrives
        leaves = np.where(others > 0, movable, 0)
        if np.array_equal(leaves, movable) and np.array_equal(
            arrives, accepts
        ):
            return movable, accepts
        movable, accepts = leaves, arrives


def _grain(covering: coverings.Covering, reach: Units) -> int:
    """Units that must be taken together for the tables to stay small.

    With a grain of q a leaving instance counts for ceil(size / q) units, an
    arriving one for floor(size / q), room is rounded up: whatever fits in
    truth fits then too, and no residual counts for more than it is.
    """
    cells = int(reach.sum()) + len(reach)
    if cells <= _CELLS:
        return 1
    return min(-(-cells // _CELLS), int(covering.sizes.min()))


def _parts(movable: Units, sizes: Units) -> list[_Part]:
    """Halves, quarters ... of the instances of each kind and type.

    What may leave first is what is found in the fewest units, so that most
    of the tables is short.
    """
    parts = []
    reach = np.zeros(len(movable), np.int64)
    most = (movable * sizes).max(axis=0, initial=0)
    for kind in np.argsort(most, kind="stable").tolist():
        left = movable[:, kind].copy()
        while left.any():
            half = (left + 1) // 2
            reach += half * sizes[kind]
            for instances in np.unique(half[half > 0]).tolist():
                rows = np.flatnonzero(half == instances)
                width = int(reach[rows].max()) + 1
                if len(rows) == len(half):
                    parts.append(
                        _Part(kind, instances, slice(None), width, None)
                    )
                    continue
                place = np.full(len(half), -1)
                place[rows] = np.arange(len(rows))
                parts.append(_Part(kind, instances, rows, width, place))
            left -= half
    return parts


@dataclasses.dataclass(frozen=True, slots=True)
class _Table:
    """What the end states of a block cost.

    :param costs: (rows, units + 1) the cheapest one with so many units gone
    :param parts: what may leave, in the order in which it was considered
    :param chosen: of each part, from where on it had better leave
    """

    costs: Floats
    parts: tuple[_Part, ...]
    chosen: list[Mask]

    def pick(self, slack: float, most: int) -> tuple[Index, Units]:
        """Rows and units of the cheapest end states of each row."""
        if most == 1:
            return np.arange(len(self.costs)), np.argmin(self.costs, axis=1)
        order = np.argsort(self.costs, axis=1, kind="stable")[:, :most]
        sorted_costs = np.take_along_axis(self.costs, order, axis=1)
        rows, place = np.nonzero(sorted_costs <= sorted_costs[:, :1] + slack)
        return rows, order[rows, place]

    def departures(self, rows: Index, freed: Units, sizes: Units) -> Units:
        """(P, K) which instances free so many units of a row."""
        out = np.zeros((len(rows), len(sizes)), np.int64)
        left = freed.copy()
        every = len(rows) == len(self.costs) and bool(
            (rows == np.arange(len(rows))).all()
        )
        for part, better in zip(
            reversed(self.parts), reversed(self.chosen), strict=True
        ):
            shift = part.instances * int(sizes[part.kind])
            if every and not isinstance(part.rows, slice):
                which = part.rows
                mine = np.arange(len(which))
            else:
                mine = rows if part.place is None else part.place[rows]
                which = np.flatnonzero(mine >= 0)
                mine = mine[which]
            at = left[which] - shift
            taken = (at >= 0) & (at < better.shape[1])
            taken[taken] = better[mine[taken], at[taken]]
            which = which[taken]
            out[which, part.kind] += part.instances
            left[which] = at[taken]
        return out


def _cheapest(
    block: _Block,
    sizes: Units,
    leaving: Floats,
    residual_cost: float,
    value: Floats,
) -> _Table:
    """What each number of freed units costs at least, row by row.

    :param leaving: (K,) what it costs that an instance leaves
    :param value: what arrivals earn, see ``_Block.cells``
    """
    cost = np.full(block.cells.shape, np.inf)
    cost[:, 0] = 0.0
    chosen = []
    for part in block.parts:
        shift = part.instances * int(sizes[part.kind])
        table = cost[part.rows, : part.width]
        with_it = table[:, :-shift] + part.instances * leaving[part.kind]
        chosen.append(with_it < table[:, shift:])
        np.minimum(table[:, shift:], with_it, out=table[:, shift:])
        if not isinstance(part.rows, slice):
            cost[part.rows, : part.width] = table
    cost -= value.take(block.cells)
    if math.isfinite(residual_cost):
        cost += residual_cost * block.short
    else:
        cost[block.short > 0] = np.inf
    return _Table(cost, block.parts, chosen)
