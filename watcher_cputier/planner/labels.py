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

"""Labels: how many migrations it takes to find a place for an instance now.

Theory of operation. The *label* of a kind is the fewest migrations that place
one instance of it in the present state: 1 where some host has room, else 1
plus the cheapest set of smaller instances whose departure makes room on some
host, each at its own label. Labels are made from the smallest units up, so
that no chain runs in a circle; a table per host tells the cheapest set for
every number of units to be freed, a bounded knapsack that is run for all
hosts at once.

Where memory, or another class, is what a host lacks, a table over units does
not tell; there single departures are tried for all hosts at once, and sets of
several on the most promising few.

Labels choose the victims as well: a host over its quota gives the set of
least label sum that covers its excess, for a small instance is worth nothing
where only a large one finds a place, and the other way round. The largest
victims are placed first, for they have the fewest places; which of the hosts
that have room gets one is the weigher's choice.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import heapq
import math

import numpy as np
import numpy.typing as npt

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

Labels = npt.NDArray[np.int64]

NEVER = 2**20
"""The label of a kind that has no place however much is moved."""

# How deep one ejection may lead to another, how many hosts are tried at each
# depth, and in all for each migration of its label, before a victim counts
# as without a place.
_DEPTH = 8
_TRIES = 4
_EFFORT = 8
# Hosts that are put in order at a time.
_FIRST = 16
# In a cloud of so many hosts labels are looked at again after some victims.
_LARGE = 2000
_TURNS = 8
# Hosts whose tables are small enough to be made in one go.
_FEW = 64
# A kind that failed so often is left alone until the next sweep.
_PATIENCE = 5
_NODES = 4000
# A sum of costs, at most, that fits a machine number with room to add to it.
_MOST_COST = 2**61


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Migrations that belong together: a victim, and what made its room.

    :param start: index of the first of them in the plan
    :param end: index after the last one, which is the victim's
    :param relief: units of excess that they remove
    """

    account: str
    host: int
    start: int
    end: int
    relief: int


class Tables:
    """Labels of the kinds of one account, and what they were made of.

    U is the largest number of units that an instance of it holds.
    """

    def __init__(
        self, state: states.State, account: str, labels: Labels
    ) -> None:
        self._state = state
        self._labels = labels
        problem = state.problem
        self._column = problem.column["quota", account]
        kinds = [k for k in problem.kinds if account in k.accounts]
        demands = [int(k.demand[self._column]) for k in kinds]
        self._scale = math.gcd(*demands, *(k.units for k in kinds)) or 1
        self._sizes = sorted({k.units for k in kinds})
        self._by_size = {
            size: [k for k in kinds if k.units == size] for size in self._sizes
        }
        self._indices = {
            size: np.array([k.index for k in found], dtype=np.intp)
            for size, found in self._by_size.items()
        }
        # The columns that some kind of a size asks for.
        self._asked = {
            size: np.flatnonzero(problem.demands[found].any(axis=0)).tolist()
            for size, found in self._indices.items()
        }
        self._most = max(demands, default=0) // self._scale
        hosts = len(problem.hosts)
        # Per size: what smaller instances can make room for, (H, U + 1).
        self._table: dict[int, npt.NDArray[np.int32]] = {}
        self._costs = {
            k.index: np.full(hosts, NEVER, dtype=np.int32) for k in kinds
        }
        self._everywhere = np.arange(hosts)
        self._everything = np.arange(self._most + 1)
        # The account's own columns: its quota, and its class where it has
        # one of its own.
        own = {self._column}
        tier = problem.cluster.tier_by_name.get(account)
        name = tier.resource_class if tier is not None else account
        if name in problem.column:
            own.add(problem.column[name])
        self._own = sorted(own)
        self._read = -1
        self._mine = [k.index for k in kinds]
        self.kinds = kinds
        self.version = 0

    def refresh(self) -> None:
        """Make the labels those of the present state.

        Tables follow the hosts that changed. Only where a label is another
        one do those of larger instances have to be made anew on all hosts.
        """
        state = self._state
        now = len(state.changes)
        if self._read == now:
            return
        direct = (state.targets > 0).tolist()
        if all(direct[index] for index in self._mine):
            if (self._labels[self._mine] != 1).any():
                self._labels[self._mine] = 1
                self.version += 1
            self._table = {}
            self._read = now
            return
        if self._table:
            rows = np.array(
                sorted(set(state.changes[self._read : now])), dtype=np.intp
            )
        else:
            rows = self._everywhere
        self._read = now
        if self._sweep(rows, direct):
            self.version += 1

    def _sweep(
        self, rows: npt.NDArray[np.intp], direct: Sequence[bool]
    ) -> bool:
        """Fill the tables of some hosts, from the smallest size up.

        :param direct: (K,) whether some host has room for a kind
        :returns: whether a label is another one
        """
        best = np.full((len(rows), self._most + 1), NEVER, dtype=np.int32)
        best[:, 0] = 0
        changed = False
        for size in self._sizes:
            everywhere = len(rows) == len(self._everywhere)
            if everywhere:
                self._table[size] = best
            else:
                self._table[size][rows] = best
            another = self._relabel(size, rows, best, direct)
            changed |= another
            if size == self._sizes[-1]:
                break
            if another and not everywhere:
                rows = self._everywhere
                best = self._table[size]
            best = self._added(best, rows, size)
        return changed

    def _relabel(
        self,
        size: int,
        rows: npt.NDArray[np.intp],
        best: npt.NDArray[np.int32],
        direct: Sequence[bool],
    ) -> bool:
        """The labels of one size; whether one of them is another one."""
        another = False
        full = []
        for kind in self._by_size[size]:
            if direct[kind.index]:
                another |= bool(self._labels[kind.index] != 1)
                self._labels[kind.index] = 1
            else:
                full.append(kind)
        if not full:
            return another
        everywhere = len(rows) == len(self._everywhere)
        found = self._ejection_costs(full, rows, best)
        for kind, ejections in zip(full, found, strict=True):
            costs = self._costs[kind.index]
            costs[rows] = ejections
            label = min(NEVER, int(costs.min(initial=NEVER)) + 1)
            if label == self._labels[kind.index]:
                continue
            if not everywhere:
                # Its costs elsewhere may be older than its room.
                costs[:] = self._ejection_costs(
                    [kind], self._everywhere, self._table[size]
                )[0]
                label = min(NEVER, int(costs.min(initial=NEVER)) + 1)
            another |= bool(label != self._labels[kind.index])
            self._labels[kind.index] = label
        return another

    def _added(
        self,
        best: npt.NDArray[np.int32],
        rows: npt.NDArray[np.intp],
        size: int,
    ) -> npt.NDArray[np.int32]:
        """The table with instances of one more size to leave."""
        step = size // self._scale
        columns = self._indices[size]
        labels = self._labels[columns]
        counts = self._state.counts[rows]
        if len(rows) > _FEW:
            best = best.copy()
        for label in sorted(set(labels.tolist()) - {NEVER}):
            have = counts[:, columns[labels == label]].sum(axis=1)
            np.minimum(have, -(-self._most // step), out=have)
            most = int(have.max(initial=0))
            if not most:
                continue
            if len(rows) <= _FEW:
                # Every number of them at once.
                numbers = np.arange(most + 1)
                before = np.maximum(
                    self._everything - (numbers * step)[:, None], 0
                )
                freed = best[:, before]
                freed += (numbers * label).astype(np.int32)[:, None]
                freed[numbers > have[:, None]] = NEVER
                best = freed.min(axis=1)
                continue
            # Any number of them is a sum of 1, 2, 4, ... and a rest.
            together = 1
            while True:
                some = np.flatnonzero(have > 0)
                if not len(some):
                    break
                taken = np.minimum(have[some], together)
                have[some] -= taken
                before = self._everything - (taken * step)[:, None]
                part = best[some]
                freed = np.take_along_axis(part, np.maximum(before, 0), axis=1)
                freed += (taken * label)[:, None]
                best[some] = np.minimum(part, freed, out=part)
                together *= 2
        return best

    def _ejection_costs(
        self,
        kinds: Sequence[problems.Kind],
        rows: npt.NDArray[np.intp],
        best: npt.NDArray[np.int32],
    ) -> npt.NDArray[np.int32]:
        """Migrations that make room for one of each kind, per host.

        :param kinds: of one size
        :returns: (kinds, rows)
        """
        state = self._state
        problem = state.problem
        found = np.full((len(kinds), len(rows)), NEVER, dtype=np.int32)
        indices = [kind.index for kind in kinds]
        columns = self._asked[kinds[0].units]
        accepts = problem.all_accepts[indices]
        if len(rows) < len(self._everywhere):
            accepts = accepts[:, rows]
        accepts &= state.open[rows]
        if not accepts.any():
            return found
        demands = problem.demands[indices]
        short = np.zeros(found.shape, dtype=np.int64)
        enough = accepts.copy()
        for column in columns:
            lack = demands[:, column, None] - state.room[rows, column]
            if column in self._own:
                np.maximum(short, lack, out=short)
            else:
                enough &= (lack <= 0) | (demands[:, column, None] == 0)
        units = -(-short // self._scale)
        at, which = np.nonzero(enough & (units <= self._most) & (short > 0))
        found[at, which] = best[which, units[at, which]]
        accepts &= ~enough
        if accepts.any():
            for i, kind in enumerate(kinds):
                lacking = np.flatnonzero(accepts[i])
                found[i, lacking] = self._single(kind, rows[lacking])
        return found

    def _single(
        self, kind: problems.Kind, rows: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.int32]:
        """The same by one departure, of any account and any size."""
        state = self._state
        problem = state.problem
        found = np.full(len(rows), NEVER, dtype=np.int32)
        columns = np.flatnonzero(kind.demand)
        lack = kind.demand[columns] - state.room[rows][:, columns]
        for other in ejectable(problem, kind):
            if not state.targets[other.index]:
                continue
            fits = (lack <= other.release[columns]).all(axis=1)
            fits &= state.counts[rows, other.index] > 0
            found[fits] = 1
        return found

    def hosts_for(self, kind: problems.Kind) -> Iterator[int]:
        """Hosts on which room can be made for a kind, the cheapest first.

        Ties go to the better score, then to the name.
        """
        if self._state.targets[kind.index] or not self._table:
            return
        # Nothing moves for good between two of them.
        costs = self._costs[kind.index].copy()
        scores = self._state.scores(kind).copy()
        while len(costs) and (least := int(costs.min())) < NEVER:
            rows = np.flatnonzero(costs == least)
            if len(rows) > _FIRST:
                # Few are asked for: the best of them will do.
                best = np.partition(scores[rows], -_FIRST)[-_FIRST]
                rows = rows[scores[rows] >= best]
            costs[rows] = NEVER
            for at in np.lexsort((rows, -scores[rows])):
                yield int(rows[at])


def ejectable(
    problem: problems.Problem, kind: problems.Kind
) -> Iterator[problems.Kind]:
    """Kinds that may make room for another: smaller, or of another account.

    Smaller in units, then in memory, so that no chain runs in a circle.
    """
    for other in problem.kinds:
        if other.accounts != kind.accounts or (
            (other.units, other.memory_mb) < (kind.units, kind.memory_mb)
        ):
            yield other


class _Queue:
    """Hosts over quota in the order of the urgency of their next victims."""

    def __init__(self) -> None:
        self.waiting: list[tuple[tuple[object, ...], int, int]] = []
        # {host: the version of the labels, its victims}
        self.chosen: dict[int, tuple[int, list[int]]] = {}

    def push(
        self,
        urgency: tuple[object, ...],
        host: int,
        version: int,
        victims: list[int],
    ) -> None:
        """Line a host up."""
        self.chosen[host] = (version, victims)
        heapq.heappush(self.waiting, (urgency, host, victims[0]))

    def pop(self) -> tuple[int, int]:
        """The most urgent host and the kind of its next victim."""
        _, host, kind = heapq.heappop(self.waiting)
        return host, kind


class Search:
    """One attempt at a plan: relieves every account in turn.

    :param floors: (K,) labels are taken to be at least this, as found dear
        by earlier attempts
    :param first: kinds that are placed before others of their size
    :param expired: whether the time for searching is over
    :param limit: migrations after which it ends
    :param eager: whether the victim with the most relief per migration goes
        first instead of the largest one of the cheapest covers
    """

    def __init__(
        self,
        state: states.State,
        *,
        floors: Labels | None = None,
        first: frozenset[int] = frozenset(),
        expired: Callable[[], bool] = lambda: False,
        limit: int | None = None,
        eager: bool = False,
    ) -> None:
        self.state = state
        self._eager = eager
        problem = state.problem
        kinds = len(problem.kinds)
        self.labels = np.ones(kinds, dtype=np.int64)
        self.highest = np.ones(kinds, dtype=np.int64)
        self._floors = np.ones(kinds, np.int64) if floors is None else floors
        self._first = first
        self._expired = expired
        self._limit = limit
        self.bundles: list[Bundle] = []
        self.troubled: set[int] = set()
        self.cut = False
        self._tables = {
            account: Tables(state, account, self.labels)
            for account in problem.accounts
        }
        priorities = sorted({k.priority for k in problem.kinds})
        self._priority = {p: min(i, 1023) for i, p in enumerate(priorities)}
        self._scarcity = problem.all_accepts.sum(axis=1)
        # {kind: bundles at that time}: without a place since.
        self._failed: dict[int, int] = {}
        self._failures: dict[int, int] = {}
        self._effort = 0

    def run(self) -> None:
        """Relieve all hosts over quota, the first account first."""
        for account in self.state.problem.accounts:
            while self._relieve(account) and not self.cut:
                # What was without a place may find one in what was left.
                pass

    # One account

    def _relieve(self, account: str) -> bool:
        """Serve all hosts over quota in it; whether anything moved."""
        state = self.state
        tables = self._tables[account]
        start = len(state.moves)
        self._failures = {}
        tables.refresh()
        queue = _Queue()
        column = state.problem.column["quota", account]
        for host in np.flatnonzero(state.room[:, column] < 0).tolist():
            self._choose(queue, host, account)
        turn = 0
        patience = _TURNS if len(state.problem.hosts) >= _LARGE else 1
        while queue.waiting:
            if self._expired() or self._full():
                self.cut = True
                break
            host, kind = queue.pop()
            # A few victims change little in a large cloud.
            if turn % patience == 0:
                tables.refresh()
            turn += 1
            if queue.chosen[host][0] != tables.version:
                # By other labels, others may be the cheapest to leave.
                self._choose(queue, host, account)
                continue
            self._serve(queue, host, account, kind)
        return len(state.moves) > start

    def _serve(
        self, queue: "_Queue", host: int, account: str, kind: int
    ) -> None:
        """Move one victim, and line the host up for the next one."""
        if not self._victim(host, account, kind):
            self.troubled.add(kind)
            self._failed[kind] = len(self.bundles)
            self._failures[kind] = self._failures.get(kind, 0) + 1
            self._choose(queue, host, account)
            return
        version, victims = queue.chosen[host]
        units = self.state.excess(host, account)
        if units > 0 and len(victims) > 1:
            rest = victims[1:]
            queue.push(
                self._urgency(rest[0], host, units), host, version, rest
            )
        elif units > 0:
            self._choose(queue, host, account)

    def _choose(self, queue: "_Queue", host: int, account: str) -> int | None:
        """Line a host up with its cheapest victims.

        :returns: the kind of the first one; None where nothing is to leave
        """
        units = self.state.excess(host, account)
        victims = self._cover(host, account, units) if units > 0 else []
        if not victims:
            return None
        queue.push(
            self._urgency(victims[0], host, units),
            host,
            self._tables[account].version,
            victims,
        )
        return victims[0]

    def _full(self) -> bool:
        return self._limit is not None and len(self.state.moves) >= self._limit

    def _urgency(
        self, kind: int, host: int, excess: int
    ) -> tuple[object, ...]:
        """The largest first, those with the fewest places among them."""
        found = self.state.problem.kinds[kind]
        label = self._label(kind)
        gain = min(found.units, excess) / label if self._eager else 0.0
        return (
            -gain,
            -found.units,
            kind not in self._first,
            int(self._scarcity[kind]),
            -found.memory_mb,
            kind,
            host,
        )

    def _label(self, kind: int) -> int:
        """What a migration of a kind counts."""
        if self._failed.get(kind) == len(self.bundles):
            return NEVER
        if self._failures.get(kind, 0) >= _PATIENCE:
            return NEVER
        label = int(self.labels[kind])
        if label >= NEVER:
            return NEVER
        return min(511, max(label, int(self._floors[kind])))

    def _cover(self, host: int, account: str, units: int) -> list[int]:
        """The cheapest kinds to leave a host, so that its excess is gone.

        Cost is the sum of labels, then of the memory to copy, then of the
        priorities, then of units: packed into one number.

        :returns: a kind per instance, the largest first; as much as there
            is where all that may leave does not cover the excess
        """
        state = self.state
        kinds = state.problem.kinds
        items: list[tuple[int, int, int]] = []
        for kind in state.kinds_on(host):
            found = kinds[kind]
            if account not in found.accounts:
                continue
            label = self._label(kind)
            if label >= NEVER:
                continue
            cost = (
                (label << 50)
                + (found.memory_mb << 22)
                + (self._priority[found.priority] << 12)
                + min(found.units, 4095)
            )
            items.append((kind, len(state.here(host, kind)), cost))
        if not items:
            return []
        scale = math.gcd(*(kinds[kind].units for kind, _, _ in items))
        need = -(-units // scale)
        total = sum(
            count * kinds[kind].units // scale for kind, count, _ in items
        )
        if self._eager:
            kind, _, _ = max(
                items,
                key=lambda item: (
                    min(kinds[item[0]].units, units) / self._label(item[0]),
                    -item[2],
                    -item[0],
                ),
            )
            return [kind]
        if total <= need:
            return [kind for kind, count, _ in items for _ in range(count)]
        return knapsack(
            [
                (kind, kinds[kind].units // scale, count, cost)
                for kind, count, cost in items
            ],
            need,
        )

    def _victim(self, host: int, account: str, kind: int) -> bool:
        """Move one instance of a kind off a host that is over."""
        state = self.state
        before = state.excess(host, account)
        start = len(state.moves)
        found = state.problem.kinds[kind]
        for instance in self._choices(host, kind):
            self._effort = _EFFORT * int(min(self.labels[kind], 64))
            if self._place(instance, found, account, _DEPTH, None):
                self.highest[kind] = max(
                    self.highest[kind], len(state.moves) - start
                )
                self.bundles.append(
                    Bundle(
                        account=account,
                        host=host,
                        start=start,
                        end=len(state.moves),
                        relief=before - state.excess(host, account),
                    )
                )
                return True
        return False

    def _choices(self, host: int, kind: int) -> list[model.Instance]:
        """Instances of a kind that are worth trying: alike but for groups."""
        found = []
        groups = set()
        by_member = self.state.problem.cluster.group_by_member
        for instance in self.state.here(host, kind):
            group = by_member.get(instance.uuid)
            tag = (
                group and group.uuid,
                instance.different_host,
                instance.same_host,
            )
            if tag not in groups:
                groups.add(tag)
                found.append(instance)
        return found

    # One instance

    def _place(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        account: str,
        depth: int,
        room_for: model.Instance | None,
    ) -> bool:
        """Move an instance somewhere, and make room where it has to be."""
        state = self.state
        target = state.best_target(instance, kind)
        if target is not None:
            state.move(instance, target, room_for=room_for)
            return True
        if depth <= 0 or not self._worth_trying(kind):
            return False
        tables = self._tables[account]
        tables.refresh()
        source = state.row_of(instance)
        tries = 0
        for host in tables.hosts_for(kind):
            if host == source:
                continue
            if self._make_room(instance, kind, host, depth, room_for):
                return True
            tries += 1
            if tries >= _TRIES:
                break
        return False

    def _worth_trying(self, kind: problems.Kind) -> bool:
        """Whether enough is free in all hosts together, class by class.

        In all of them: what makes room may go where the kind may not.
        """
        return bool((self.state.free >= kind.demand).all())

    def _make_room(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        host: int,
        depth: int,
        room_for: model.Instance | None,
    ) -> bool:
        state = self.state
        mark = len(state.moves)
        if self._effort <= 0:
            return False
        self._effort -= 1
        leaving = self._ejection(kind, host)
        if leaving is None:
            return False
        state.close(host)
        away = all(
            any(
                self._place(
                    one,
                    state.problem.kinds[index],
                    state.problem.kinds[index].accounts[0],
                    depth - 1,
                    instance,
                )
                for one in self._choices(host, index)
            )
            for index in leaving
        )
        state.close(host, closed=False)
        if not away or state.rejection(instance, host) is not None:
            state.undo(mark)
            return False
        state.move(instance, host, room_for=room_for)
        return True

    def _ejection(self, kind: problems.Kind, host: int) -> list[int] | None:
        """The cheapest kinds to leave a host, so that another fits there."""
        state = self.state
        problem = state.problem
        lack = {
            int(column): int(kind.demand[column] - state.room[host, column])
            for column in np.flatnonzero(kind.demand)
            if kind.demand[column] > state.room[host, column]
        }
        columns = sorted(lack)
        items = []
        for other in ejectable(problem, kind):
            count = len(state.here(host, other.index))
            label = (
                int(self.labels[other.index])
                if other.accounts == kind.accounts
                else 1
                if state.targets[other.index]
                else NEVER
            )
            gives = tuple(int(other.release[c]) for c in columns)
            if count and label < NEVER and any(gives):
                cost = (label << 50) + (other.memory_mb << 22) + other.units
                items.append((other.index, gives, count, cost))
        return cheapest_cover(
            *_without_twins(items, [lack[c] for c in columns])
        )


def _without_twins(
    items: list[tuple[int, tuple[int, ...], int, int]], need: list[int]
) -> tuple[list[tuple[int, tuple[int, ...], int, int]], list[int]]:
    """Needs that every item gives to alike, as one: a class and its quota."""
    largest: dict[tuple[int, ...], int] = {}
    for at, units in enumerate(need):
        gives = tuple(item[1][at] for item in items)
        largest[gives] = max(units, largest.get(gives, 0))
    columns = list(largest)
    return [
        (name, tuple(column[i] for column in columns), count, cost)
        for i, (name, _, count, cost) in enumerate(items)
    ], [largest[column] for column in columns]


def knapsack(
    items: Sequence[tuple[int, int, int, int]], need: int
) -> list[int]:
    """The cheapest choice of items whose sizes sum up to at least a need.

    :param items: (name, size, count, cost of one), whose sizes suffice
    :returns: a name per piece, in the order of the items
    """
    most = sum(min(n, -(-need // size)) * cost for _, size, n, cost in items)
    never = max(_MOST_COST, most + 1)
    # Sums that no machine number holds are rare, and counted all the same.
    best = np.full(need + 1, never, object if most >= _MOST_COST else np.int64)
    best[0] = 0
    steps: list[tuple[int, int, npt.NDArray[np.bool_]]] = []
    for name, size, count, cost in items:
        for _ in range(min(count, -(-need // size))):
            shifted = np.empty_like(best)
            shifted[: min(size, need + 1)] = 0
            shifted[size:] = best[: max(0, need + 1 - size)]
            shifted += cost
            better = (shifted < best).astype(np.bool_)
            better[0] = False
            if not better.any():
                break
            best = np.where(better, shifted, best)
            steps.append((name, size, better))
    chosen = []
    left = need
    for name, size, better in reversed(steps):
        if left > 0 and better[left]:
            chosen.append(name)
            left = max(0, left - size)
    return chosen[::-1]


def cheapest_cover(
    items: Sequence[tuple[int, tuple[int, ...], int, int]],
    need: Sequence[int],
) -> list[int] | None:
    """The cheapest choice of items that covers several needs at once.

    :param items: (name, what one gives to each need, count, cost of one)
    :returns: a name per piece, the dearest first; None where there is no
        choice, or none was found within the limit of the search
    """
    if not items:
        return None
    if len(need) == 1:
        scalar = [(n, g[0], c, w) for n, g, c, w in items if g[0] > 0]
        if sum(size * count for _, size, count, _ in scalar) < need[0]:
            return None
        return knapsack(scalar, need[0])
    cover = _Cover(sorted(items, key=lambda item: (item[3], item[0])))
    cover.visit(0, tuple(need), 0, [])
    return cover.best


class _Cover:
    """Depth first through choices of items, the cheapest items first."""

    def __init__(
        self, order: Sequence[tuple[int, tuple[int, ...], int, int]]
    ) -> None:
        self._order = order
        self._nodes = 0
        self._cost: int | None = None
        self.best: list[int] | None = None

    def visit(
        self, at: int, left: tuple[int, ...], cost: int, chosen: list[int]
    ) -> None:
        """Cover what is left with the items from one on."""
        self._nodes += 1
        if all(units <= 0 for units in left):
            if self._cost is None or cost < self._cost:
                self._cost, self.best = cost, list(chosen)
            return
        if at == len(self._order) or self._nodes > _NODES:
            return
        name, gives, count, price = self._order[at]
        if self._cost is not None and cost + price >= self._cost:
            # Items are in the order of cost: nothing cheaper follows.
            return
        rests = [left]
        while len(rests) <= count and _useful(rests[-1], gives):
            rests.append(
                tuple(u - g for u, g in zip(rests[-1], gives, strict=True))
            )
        for taken in reversed(range(len(rests))):
            self.visit(
                at + 1,
                rests[taken],
                cost + taken * price,
                chosen + [name] * taken,
            )


def _useful(left: tuple[int, ...], gives: tuple[int, ...]) -> bool:
    return any(u > 0 and g > 0 for u, g in zip(left, gives, strict=True))
