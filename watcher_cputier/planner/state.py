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

"""The plan so far: books, and arrays of what is left that follow them.

A :class:`State` is the one thing that a search changes. Every migration is
recorded, so that a search can try a chain of them and take it back. Rows of
masks and scores are made when they are asked for and then follow the few
hosts that changed in between.
"""

from collections.abc import Iterable, Iterator
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from watcher_cputier import constraints
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import weigher
from watcher_cputier.constraints import groups
from watcher_cputier.planner import books as bookkeeping
from watcher_cputier.planner import problem as problems

Scores = npt.NDArray[np.float64]

# Scores are compared after rounding: the order in which numpy adds must not
# decide a tie.
_DECIMALS = 9
# Less than anything that a host has left.
_NOTHING = -(2**62)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One migration of the plan so far.

    :param source: row of the host that it leaves
    :param target: row of the host that it goes to
    :param parking: whether it is to move again
    :param room_for: the instance that comes to the source next; None for
        one that relieves an excess itself
    """

    instance: model.Instance
    kind: problems.Kind
    source: int
    target: int
    parking: bool = False
    room_for: model.Instance | None = None


class State:
    """Where everything is after the migrations so far.

    :ivar room: (H, C) what hosts have left; negative where they are over
    :ivar counts: (H, K) movable instances that have not moved yet
    :ivar open: (H,) whether a host takes part as a target; one on which
        room is being made for somebody else does not
    :ivar moves: the migrations so far, in order
    :ivar changes: rows of hosts in the order in which they changed; a
        reader remembers how far it has read
    """

    def __init__(self, problem: problems.Problem) -> None:
        self.problem = problem
        self.books = bookkeeping.Books(problem.cluster)
        self.moves: list[Move] = []
        self.changes: list[int] = []
        hosts, kinds = len(problem.hosts), len(problem.kinds)
        self.counts = np.zeros((hosts, kinds), dtype=np.int32)
        self._here: list[dict[int, list[model.Instance]]] = []
        for i, standing in enumerate(problem.standing):
            self._here.append(dict(standing))
            for kind, members in standing.items():
                self.counts[i, kind] = len(members)
        self.room = np.zeros((hosts, len(problem.column)), dtype=np.int64)
        self._weighed = _Weighed(problem)
        for i in range(hosts):
            self._read(i)
        self._plain = [_plain(host) for host in problem.hosts]
        # A class that a host has not is not given back to it.
        self._has = np.ones(self.room.shape, dtype=np.bool_)
        for j, name in enumerate(problem.classes):
            for i, host in enumerate(problem.hosts):
                self._has[i, j] = any(
                    name in p.inventories for p in host.providers
                )
        # Whether every column of it follows by adding.
        self._follows = self._has.all(axis=1) & np.array(
            self._plain, dtype=np.bool_
        )
        self._before: list[tuple[str, bookkeeping.Charge] | None] = []
        self._scores: dict[int, tuple[int, Scores]] = {}
        # What is not asked for never lacks.
        self._asked = np.where(problem.demands > 0, problem.demands, _NOTHING)
        self._free = np.zeros_like(self.room)
        self._total = np.zeros(len(problem.column), dtype=np.int64)
        self._summed: int | None = None
        self._accepts = problem.all_accepts
        self._admits = np.zeros((kinds, hosts), dtype=np.bool_)
        self._targets = np.zeros(kinds, dtype=np.int64)
        self.open = np.ones(hosts, dtype=np.bool_)
        # Rows whose part of the masks is to be made again when it is asked
        # for.
        self._stale: set[int] = set(range(hosts))
        self._at_first = (
            self.books.copy(),
            self.room.copy(),
            self.counts.copy(),
            self._weighed.saved(),
        )

    # What is left

    def _read(self, i: int) -> None:
        """Take what a host has left from the books."""
        host = self.problem.hosts[i]
        room = self.room[i]
        self._weighed.read(i, host, self.books)
        for j, name in enumerate(self.problem.classes):
            left = -1
            # A numbered group may be served by a provider that shares.
            for provider in host.providers + host.shared:
                inventory = provider.inventories.get(name)
                if inventory is not None:
                    free = inventory.capacity - self.books.used(
                        provider.uuid, name
                    )
                    # Several providers: that one has room is necessary.
                    left = free if left == -1 else max(left, free)
            room[j] = left
        for account in self.problem.accounts:
            column = self.problem.column["quota", account]
            held = self.books.held(host.name, account)
            room[column] = self.problem.quota_room(host, account, held)

    def excess(self, i: int, account: str) -> int:
        """Units of an account that a host is over its quota."""
        column = self.problem.column["quota", account]
        return max(0, -int(self.room[i, column]))

    @property
    def free(self) -> problems.Units:
        """(C,) what all hosts together have left, those that are over left
        out.
        """
        now = len(self.changes)
        if self._summed is None:
            self._free = np.maximum(self.room, 0)
            self._total = self._free.sum(axis=0)
        elif self._summed < now:
            rows = np.array(sorted(set(self.changes[self._summed : now])))
            free = np.maximum(self.room[rows], 0)
            self._total += (free - self._free[rows]).sum(axis=0)
            self._free[rows] = free
        self._summed = now
        return self._total

    def here(self, i: int, kind: int) -> list[model.Instance]:
        """Instances of a kind on a host that have not moved, by name."""
        return self._here[i].get(kind, [])

    def kinds_on(self, i: int) -> Iterator[int]:
        """Kinds of which some instance is on a host, the largest first."""
        for kind, members in sorted(self._here[i].items()):
            if members:
                yield kind

    # Targets

    def admits(self, kind: problems.Kind) -> problems.Mask:
        """(H,) hosts that have room for a kind now, as far as arrays tell.

        Its own host is not left out here.
        """
        self._admit()
        row: problems.Mask = self._admits[kind.index]
        return row

    @property
    def targets(self) -> problems.Units:
        """(K,) how many hosts have room for a kind."""
        self._admit()
        return self._targets

    def _admit(self) -> None:
        """Find anew which kinds the hosts that changed have room for."""
        if not self._stale:
            return
        rows = np.array(sorted(self._stale), dtype=np.intp)
        self._stale = set()
        if not len(self._asked):
            return
        before = self._admits[:, rows].sum(axis=1)
        room = self.room[rows]
        now = self._accepts[:, rows] & self.open[rows]
        for column in range(room.shape[1]):
            now &= self._asked[:, column, None] <= room[:, column]
        self._admits[:, rows] = now
        self._targets += now.sum(axis=1) - before

    def scores(self, kind: problems.Kind) -> Scores:
        """(H,) the weigher's value of every host for a kind."""
        now = len(self.changes)
        read, row = self._scores.get(kind.index, (-1, None))
        if row is None:
            row = self._weighed.values(
                kind, np.arange(len(self.problem.hosts))
            )
        elif read < now:
            which = np.array(sorted(set(self.changes[read:now])), dtype=int)
            row[which] = self._weighed.values(kind, which)
        self._scores[kind.index] = (now, row)
        return row

    def best_target(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask | None = None,
    ) -> int | None:
        """The feasible host that ranks first; None where there is none.

        :param mask: (H,) the hosts to choose from; by default all that have
            room
        """
        candidates = self._elsewhere(instance, kind, mask)
        return self._first(instance, self._ranked(instance, kind, candidates))

    def _elsewhere(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        mask: problems.Mask | None,
    ) -> problems.Mask:
        """(H,) the hosts to choose from but the one where it is."""
        candidates = (self.admits(kind) if mask is None else mask).copy()
        candidates[self.row_of(instance)] = False
        return candidates

    def _first(
        self, instance: model.Instance, rows: Iterable[int]
    ) -> int | None:
        """The first of some hosts that no rule rejects; None if all are."""
        for row in rows:
            if self.rejection(instance, row) is None:
                return row
        return None

    def _ranked(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        candidates: problems.Mask,
    ) -> Iterator[int]:
        """Candidates in the order of preference."""
        if self._particular(instance):
            yield from sorted(
                (int(i) for i in np.flatnonzero(candidates)),
                key=lambda i: self._rank(instance, kind, i),
            )
            return
        scores = np.where(candidates, self.scores(kind), -np.inf)
        while True:
            top = scores.max(initial=-np.inf)
            if top == -np.inf:
                return
            tied = np.flatnonzero(scores == top)
            yield from (
                [int(tied[0])]
                if len(tied) == 1
                else sorted(
                    (int(i) for i in tied),
                    key=lambda i: self._tie_break(instance, kind, i),
                )
            )
            scores[tied] = -np.inf

    def in_order(
        self,
        instance: model.Instance,
        kind: problems.Kind,
        rows: npt.NDArray[np.intp],
        lost: Scores,
    ) -> Iterator[int]:
        """Some hosts by what an arrival loses there, then by preference.

        :param lost: (rows,) rounded
        """
        if not self._particular(instance):
            order = np.lexsort((rows, -self.scores(kind)[rows], lost))
            yield from rows[order].tolist()
            return
        found = []
        for row, loss in zip(rows.tolist(), lost.tolist(), strict=True):
            penalty, *rank = self._rank(instance, kind, row)
            found.append((penalty, loss, *rank, row))
        yield from (int(one[-1]) for one in sorted(found))

    def _particular(self, instance: model.Instance) -> bool:
        """Whether arrays do not tell which hosts an instance prefers."""
        group = self.problem.cluster.group_by_member.get(instance.uuid)
        return bool(self.problem.extensions.rankers) or bool(
            group and group.policy.startswith("soft")
        )

    def _rank(
        self, instance: model.Instance, kind: problems.Kind, i: int
    ) -> tuple[Any, ...]:
        move = self.proposal(instance, i)
        extra = sum(
            ranker(move) for ranker in self.problem.extensions.rankers.values()
        )
        value = float(self.scores(kind)[i])
        return (
            groups.soft_penalty(move),
            -round(value + extra, _DECIMALS),
            *self._tie_break(instance, kind, i),
        )

    def _tie_break(
        self, instance: model.Instance, kind: problems.Kind, i: int
    ) -> tuple[object, ...]:
        host = self.problem.hosts[i]
        shares = []
        for account in kind.accounts:
            quota = self.problem.diagnosis.quota(host.name, account)
            if quota is not None:
                held = self.books.held(host.name, account)
                shares.append(held / quota if quota else 1.0)
        return (
            round(max(shares, default=0.0), _DECIMALS),
            self.books.domain_units(host, instance.tier),
            host.name,
        )

    def row_of(self, instance: model.Instance) -> int:
        """The row of the host that an instance is on."""
        return self.problem.host_index[self.books.location(instance)]

    def proposal(
        self, instance: model.Instance, i: int
    ) -> constraints.Proposal:
        """An instance to a host, in the present state."""
        return constraints.Proposal(
            cluster=self.problem.cluster,
            diagnosis=self.problem.diagnosis,
            occupancy=self.books,
            instance=instance,
            target=self.problem.hosts[i],
        )

    def rejection(
        self, instance: model.Instance, i: int
    ) -> constraints.Rejection | None:
        """Why a host may not take an instance now; None if it may."""
        return constraints.reject_target(
            self.proposal(instance, i), self.problem.extensions
        )

    def weight(self, instance: model.Instance, i: int) -> weigher.Weight:
        """The weigher's score of a host, with its terms."""
        return weight(
            self.problem.params, instance, self.problem.hosts[i], self.books
        )

    # Changes

    def close(self, i: int, *, closed: bool = True) -> None:
        """Keep what is free on a host for somebody, or open it again."""
        self.open[i] = not closed
        self._stale.add(i)
        self.changes.append(i)

    def move(
        self,
        instance: model.Instance,
        target: int,
        *,
        parking: bool = False,
        room_for: model.Instance | None = None,
    ) -> None:
        """Migrate an instance to a host that admits it.

        An instance that has moved counts no more as one that may, unless
        it is only parked.
        """
        kind = self.problem.kind_of[instance.uuid]
        source = self.row_of(instance)
        self.moves.append(
            Move(
                instance=instance,
                kind=kind,
                source=source,
                target=target,
                parking=parking,
                room_for=room_for,
            )
        )
        before = self.books.standing(instance)
        self._before.append(before)
        self.books.move(instance, self.problem.hosts[target])
        if before is None:
            self._leave(instance, kind, source)
        self._shift(kind, source, target, at_home=before is None)

    def undo(self, mark: int) -> None:
        """Take back all migrations but the first so many."""
        if mark == 0 and len(self.moves) > 1:
            self._restart()
        while len(self.moves) > mark:
            move = self.moves.pop()
            before = self._before.pop()
            self.books.back(move.instance, before)
            if before is None:
                self._return(move.instance, move.kind, move.source)
            self._shift(
                move.kind,
                move.source,
                move.target,
                at_home=before is None,
                sign=-1,
            )

    def _restart(self) -> None:
        books, room, counts, weighed = self._at_first
        rows = sorted(
            {m.source for m in self.moves} | {m.target for m in self.moves}
        )
        self.moves = []
        self._before = []
        self.books = books.copy()
        self.room[rows] = room[rows]
        self.counts[rows] = counts[rows]
        self._weighed.restore(weighed, rows)
        for i in rows:
            self._here[i] = dict(self.problem.standing[i])
        self._stale.update(rows)
        self.changes.extend(rows)

    def _shift(
        self,
        kind: problems.Kind,
        source: int,
        target: int,
        *,
        at_home: bool,
        sign: int = 1,
    ) -> None:
        """Have the arrays follow a migration that the books have seen."""
        for i, given in (
            (source, kind.release if at_home else kind.demand),
            (target, -kind.demand),
        ):
            if self._plain[i]:
                change = sign * given
                if not self._follows[i]:
                    change = np.where(self._has[i], change, 0)
                self.room[i] += change
                self._weighed.shift(i, change)
            else:
                self._read(i)
        self._stale.update((source, target))
        self.changes.extend((source, target))

    def _leave(
        self, instance: model.Instance, kind: problems.Kind, i: int
    ) -> None:
        here = self._here[i]
        here[kind.index] = [
            one for one in here[kind.index] if one.uuid != instance.uuid
        ]
        self.counts[i, kind.index] -= 1

    def _return(
        self, instance: model.Instance, kind: problems.Kind, i: int
    ) -> None:
        here = self._here[i]
        here[kind.index] = sorted(
            [*here[kind.index], instance], key=lambda one: one.sort_key
        )
        self.counts[i, kind.index] += 1


class _Weighed:
    """The weigher over all hosts at once, for one request."""

    def __init__(self, problem: problems.Problem) -> None:
        self._problem = problem
        params = problem.params
        self._names = sorted(
            {
                name
                for host in problem.hosts
                for provider in host.providers
                for name in provider.inventories
            }
        )
        self._column = {name: i for i, name in enumerate(self._names)}
        shape = (len(problem.hosts), len(self._names))
        self._free = np.zeros(shape, dtype=np.float64)
        self._present = np.zeros(shape, dtype=np.bool_)
        # The columns of the problem's classes here.
        self._classes = np.array(
            [self._column.get(name, -1) for name in problem.classes], dtype=int
        )
        self._known = np.flatnonzero(self._classes >= 0)
        self._followed = self._classes[self._known]
        self._multiplier = params.weigher_multiplier
        self._by_traits: dict[object, Scores] = {}
        self._trait_sets = [host.traits for host in problem.hosts]

    def read(self, i: int, host: model.Host, books: bookkeeping.Books) -> None:
        """Take what is free on a host from the books."""
        for name, units in _free(host, books).items():
            self._free[i, self._column[name]] = units
            self._present[i, self._column[name]] = True

    def shift(self, i: int, change: problems.Units) -> None:
        """What is free on a host has changed, by columns of the problem."""
        self._free[i, self._followed] += change[self._known]

    def saved(self) -> Scores:
        """What is free now."""
        return self._free.copy()

    def restore(self, saved: Scores, rows: list[int]) -> None:
        """What was free on some hosts."""
        self._free[rows] = saved[rows]

    def values(
        self, kind: problems.Kind, which: npt.NDArray[np.intp]
    ) -> Scores:
        """Weights of some hosts for a kind, rounded."""
        flavor = kind.sample.flavor
        allowed = _allowed(
            self._problem.params.weigher_resource_classes, flavor.resources
        )
        columns = [
            self._column[name]
            for name in (self._names if allowed is None else allowed)
            if name in self._column
        ]
        asked = np.array(
            [flavor.resources.get(self._names[c], 0) for c in columns],
            dtype=np.float64,
        )
        grid = which[:, None], np.array(columns, dtype=int)
        free, present = self._free[grid], self._present[grid]
        some = free > 0
        ratios = np.where(some, 1.0 - asked / np.where(some, free, 1.0), 0.0)
        count = present.sum(axis=1)
        resource = np.where(present, ratios, 0.0).sum(axis=1)
        resource /= np.maximum(count, 1)
        value = (resource + self._traits(flavor)[which]) / 2
        found: Scores = np.round(value * self._multiplier, _DECIMALS)
        return found

    def _traits(self, flavor: model.Flavor) -> Scores:
        """(H,) trait scores, which never change."""
        requested = flavor.required_traits
        row = self._by_traits.get(requested)
        if row is None:
            allowed = _allowed(self._problem.params.weigher_traits, requested)
            by_set: dict[frozenset[str], float] = {}
            for traits in self._trait_sets:
                if traits not in by_set:
                    by_set[traits] = weigher.score(
                        {}, traits, {}, requested, trait_names=allowed
                    ).trait_score
            row = np.array([by_set[traits] for traits in self._trait_sets])
            self._by_traits[requested] = row
        return row


def weight(
    params: parameters.Parameters,
    instance: model.Instance,
    host: model.Host,
    books: bookkeeping.Books,
) -> weigher.Weight:
    """The score of one host for an instance, with its terms."""
    flavor = instance.flavor
    return weigher.score(
        _free(host, books),
        host.traits,
        flavor.resources,
        flavor.required_traits,
        resource_classes=_allowed(
            params.weigher_resource_classes, flavor.resources
        ),
        trait_names=_allowed(params.weigher_traits, flavor.required_traits),
        multiplier=params.weigher_multiplier,
    )


def _plain(host: model.Host) -> bool:
    """Whether each class comes from one provider of its own tree."""
    names = [n for p in host.providers for n in p.inventories]
    return not host.shared and len(names) == len(set(names))


def _free(host: model.Host, books: bookkeeping.Books) -> dict[str, int]:
    free: dict[str, int] = {}
    for provider in host.providers:
        for name, inventory in provider.inventories.items():
            units = inventory.capacity - books.used(provider.uuid, name)
            free[name] = free.get(name, 0) + units
    return free


def _allowed(
    choice: str | tuple[str, ...], requested: Iterable[str]
) -> tuple[str, ...] | None:
    """The weigher's allow-list that a parameter stands for."""
    if choice == "all":
        return None
    return tuple(requested) if choice == "requested" else tuple(choice)
