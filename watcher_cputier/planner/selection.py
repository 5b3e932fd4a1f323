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

"""One pattern for every host, such that whoever leaves has a slot.

Theory of operation. Prices split what a choice of patterns costs into what
its hosts cost by themselves and what the choice wastes: patterns that are
dearer than the cheapest of their host, and slots with a price that stay
empty. A choice with no more migrations than the bound that the prices prove,
rounded up, may waste less than one. That rules out nearly all patterns, and
nearly all sums of them.

The sums are found from two ends: the hosts that have to give instances away,
with the larger half of those that can take some in, and the others. Each end
keeps the least wasteful sums, of equals those with the fewest or smallest
slots missing, and any two of them that together miss none are a choice. A
beam search: what it finds is valid and, where it equals the bound, optimal.
That it finds nothing proves nothing.

In the place of an integer program where no solver is installed.
"""

from collections.abc import Callable, Sequence
import dataclasses
import math

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import covering as coverings

Floats = npt.NDArray[np.float64]
Units = coverings.Units
Index = npt.NDArray[np.intp]

# Sums that each end keeps, at most and at least; between the two, so many that
# hosts times kinds times sums are no more than the work.
_WIDTH = 2000
_LEAST = 200
_WORK = 1_500_000
_UNLIMITED = np.iinfo(np.int64).max


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patterns:
    """End states of hosts, P of them, for N types and K kinds.

    :param types: (P,) whose end state it is; each type has one at least
    :param moves: (P,) instances that leave
    :param slots: (P, K) instances that arrive, minus those that leave
    :param hosts: (N,) hosts of each type
    :param sizes: (K,) units of an instance
    :param prices: (K,) in migrations, multiples of the grain that sums are
        exact with
    """

    types: Index
    moves: Units
    slots: Units
    hosts: Units
    sizes: Units
    prices: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class _Choice:
    """The patterns of one host, by row, and what each of them wastes."""

    rows: Index
    slots: Units
    waste: Floats


@dataclasses.dataclass(frozen=True, slots=True)
class _Beam:
    """Sums of the patterns of some hosts.

    :param slots: (S, K)
    :param waste: (S,)
    :param trail: of each host which sum before it and which of its patterns
        a sum is made of
    """

    slots: Units
    waste: Floats
    trail: tuple[tuple[Index, Index], ...] = ()

    def rows(self, last: int) -> list[int]:
        """The patterns that a sum is made of."""
        found = []
        for before, rows in reversed(self.trail):
            found.append(int(rows[last]))
            last = int(before[last])
        return found


def select(
    patterns: Patterns,
    above: int,
    *,
    expired: Callable[[], bool],
    width: int = _WIDTH,
) -> Units | None:
    """A choice of patterns with few migrations.

    Kinds that never share a host are searched for by themselves.

    :param above: migrations more than the prices prove, at most, in each of
        these parts
    :param expired: whether time is up; asked for every host
    :param width: sums that each end of the search keeps, at most
    :returns: (P,) how many hosts have each pattern; None where no choice
        was found
    """
    cost = patterns.moves - patterns.slots @ patterns.prices
    least = np.full(len(patterns.hosts), np.inf)
    np.minimum.at(least, patterns.types, cost)
    waste = cost - least[patterns.types]
    used = np.zeros(len(patterns.types), np.int64)
    for types, kinds in _parts(patterns):
        low = float(least[types] @ patterns.hosts[types])
        for more in range(above + 1):
            rows = _chosen(
                patterns,
                waste,
                types,
                kinds,
                math.ceil(low) + more - low,
                width,
                expired,
            )
            if rows is not None:
                np.add.at(used, rows, 1)
                break
        else:
            return None
    return used


def _parts(patterns: Patterns) -> list[tuple[Index, Index]]:
    """Types and kinds that have to do with each other and no others."""
    count = len(patterns.hosts)
    touched = np.zeros((count, patterns.slots.shape[1]), bool)
    np.logical_or.at(touched, patterns.types, patterns.slots != 0)
    # The lowest type that each is joined with, until nothing changes.
    lowest = np.arange(count)
    while True:
        reached = np.where(touched, lowest[:, None], count).min(axis=0)
        joined = np.where(touched, reached, lowest[:, None]).min(
            axis=1, initial=count
        )
        joined = np.minimum(joined, lowest)
        if np.array_equal(joined, lowest):
            break
        lowest = joined
    return [
        (np.flatnonzero(lowest == first), np.flatnonzero(reached == first))
        for first in np.unique(lowest).tolist()
    ]


def _chosen(
    patterns: Patterns,
    waste: Floats,
    types: Index,
    kinds: Index,
    budget: float,
    width: int,
    expired: Callable[[], bool],
) -> list[int] | None:
    """A pattern for each host of a part, that together waste so little."""
    rows: list[int] = []
    giving, taking = [], []
    start = np.zeros(len(kinds), np.int64)
    for choice in _choices(patterns, waste, types, kinds, budget):
        hosts = int(patterns.hosts[patterns.types[choice.rows[0]]])
        if len(choice.rows) == 1:
            rows += [int(choice.rows[0])] * hosts
            start += hosts * choice.slots[0]
        elif patterns.moves[choice.rows].min():
            giving += [choice] * hosts
        else:
            taking += [choice] * hosts
    sizes, prices = patterns.sizes[kinds], patterns.prices[kinds]
    taking.sort(key=lambda one: -int((one.slots @ sizes).max()))
    half = len(taking) // 2
    # Nobody needs more slots of a kind than could ever be left for.
    leaving = np.maximum(-start, 0)
    for one in (*giving, *taking):
        leaving += np.maximum(-one.slots, 0).max(axis=0)
    limits = np.where(prices > 0, _UNLIMITED, leaving)
    work = max((len(giving) + len(taking)) * len(kinds), 1)
    width = min(width, max(_WORK // work, _LEAST))
    search = _Search(sizes, limits, budget, width, expired)
    ahead = search.run(start, [*giving, *taking[:half]], missing=True)
    if ahead is None:
        return None
    behind = search.run(0 * start, taking[half:][::-1], missing=False)
    if behind is None:
        return None
    pair = _pair(ahead, behind, prices, budget)
    if pair is None:
        return None
    return rows + ahead.rows(pair[0]) + behind.rows(pair[1])


def _choices(
    patterns: Patterns,
    waste: Floats,
    types: Index,
    kinds: Index,
    budget: float,
) -> list[_Choice]:
    """What is affordable, type by type, without what another betters."""
    mine = np.isin(patterns.types, types) & (waste <= budget)
    rows = np.flatnonzero(mine)
    slots = patterns.slots[np.ix_(rows, kinds)]
    # The least wasteful first, of equals the one with the most slots.
    order = np.lexsort((-slots.sum(axis=1), waste[rows], patterns.types[rows]))
    rows, slots = rows[order], slots[order]
    moves = patterns.moves[rows]
    ends = np.flatnonzero(np.diff(patterns.types[rows])) + 1
    found = []
    for part in np.split(np.arange(len(rows)), ends):
        kept: list[int] = []
        for one in part.tolist():
            better = (slots[kept] >= slots[one]).all(axis=1)
            if not (better & (moves[kept] <= moves[one])).any():
                kept.append(one)
        found.append(_Choice(rows[kept], slots[kept], waste[rows[kept]]))
    return found


@dataclasses.dataclass(frozen=True, slots=True)
class _Search:
    """Adds host to host and keeps what promises most.

    :param limits: (K,) slots beyond which more do not count
    """

    sizes: Units
    limits: Units
    budget: float
    width: int
    expired: Callable[[], bool]

    def run(
        self, start: Units, hosts: Sequence[_Choice], *, missing: bool
    ) -> _Beam | None:
        """The sums of these hosts; None where time is up or there is none.

        :param missing: prefer sums that miss little, else those that offer
            much
        """
        beam = _Beam(np.minimum(start, self.limits)[None], np.zeros(1))
        for host in hosts:
            if self.expired():
                return None
            beam = self._added(beam, host, missing=missing)
            if not len(beam.waste):
                return None
        return beam

    def _added(self, beam: _Beam, host: _Choice, *, missing: bool) -> _Beam:
        waste = (beam.waste[:, None] + host.waste).reshape(-1)
        slots = beam.slots[:, None] + host.slots
        slots = np.minimum(slots.reshape(len(waste), -1), self.limits)
        at = np.flatnonzero(waste <= self.budget)
        # Of the same sum the least wasteful.
        at = at[np.lexsort((waste[at], *slots[at].T))]
        new = np.ones(len(at), bool)
        new[1:] = (slots[at[1:]] != slots[at[:-1]]).any(axis=1)
        at = at[new]
        if len(at) > self.width:
            units = slots[at]
            if missing:
                units = -np.minimum(units, 0)
            else:
                units = -np.minimum(units, self.limits)
            order = np.argsort(
                waste[at] + 0.01 * (units @ self.sizes), kind="stable"
            )
            at = at[order[: self.width]]
        before, which = np.divmod(at, len(host.rows))
        return _Beam(
            slots[at],
            waste[at],
            (*beam.trail, (before, host.rows[which])),
        )


def _pair(
    one: _Beam, other: _Beam, prices: Floats, budget: float
) -> tuple[int, int] | None:
    """Two sums that together miss nothing and waste little enough."""
    for i in np.argsort(one.waste, kind="stable").tolist():
        slots = one.slots[i] + other.slots
        waste = one.waste[i] + other.waste + slots @ prices
        fits = (slots >= 0).all(axis=1) & (waste <= budget)
        if fits.any():
            return i, int(np.argmax(fits))
    return None
