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


"""Few hosts out of many, on which everything can be tried.

A *part* is a set of hosts that no movable instance leaves or enters, by zone,
trait or whatever else: what is best for each part is best for all together,
so a small part is searched exhaustively (:mod:`.exhaustive`) and its outcome
holds for every plan.

Hosts that stay over quota may be locked by others that many more could also
serve. Such a host is searched together with a few that lack least to take
what it has, and a few with room to turn in; the rest of the cluster is
planned around what that search has found, and the whole counts only if it is
better.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from watcher_cputier import model
from watcher_cputier.planner import exhaustive
from watcher_cputier.planner import labels
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

Rows = tuple[int, ...]


class Attempt(Protocol):
    """What a search came to (:class:`.planning.Attempt`)."""

    @property
    def steps(self) -> tuple[tuple[model.Instance, int, bool], ...]:
        """An instance, the row of its target, and whether it is parked."""

    @property
    def rank(self) -> tuple[object, ...]:
        """Smaller is better."""


Found = TypeVar("Found", bound=Attempt)

# States that are looked at in all parts together, and around one host.
_MOST_STATES = 24_000
_MOST_STATES_AROUND = 1500
_ROUNDS = 4
# Hosts that stay over quota whose surroundings are searched.
_MOST_STUCK = 8
# Hosts around one that stays over: those that lack least, those with room.
_TAKING = 4
_TURNING = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What became of the small parts; the state is left where they lead.

    :param whole: the outcome of the cluster; None unless every part with an
        excess was proven
    :param proven: rows of the parts whose outcome nothing betters
    """

    whole: exhaustive.Outcome | None
    proven: frozenset[int]


def parts(problem: problems.Problem, state: states.State) -> list[Rows]:
    """The smallest sets of hosts that no movable instance leaves."""
    part = np.arange(len(problem.hosts))
    for kind in problem.kinds:
        linked = problem.all_accepts[kind.index] | (
            state.counts[:, kind.index] > 0
        )
        joined = np.unique(part[linked])
        if len(joined) > 1:
            part[np.isin(part, joined)] = joined[0]
        if not part.any():
            break
    order = np.argsort(part, kind="stable")
    cuts = np.flatnonzero(np.diff(part[order])) + 1
    return sorted(
        tuple(rows.tolist()) for rows in np.split(order, cuts) if len(rows)
    )


def solve_parts(
    state: states.State, expired: Callable[[], bool]
) -> Parts | None:
    """Search every small part with an excess; go where nothing is better.

    :param state: nothing has moved in it
    :returns: None where no part was small enough
    """
    problem = state.problem
    left = [0] * len(problem.accounts)
    migrations, budget = 0, _MOST_STATES
    proven: list[int] = []
    tried = False
    whole = True
    for rows in parts(problem, state):
        if not any(_excess(state, row) for row in rows):
            continue
        if len(rows) > exhaustive.MOST_HOSTS or budget <= 0 or expired():
            whole = False
            continue
        mark = len(state.moves)
        found = exhaustive.search(
            state, expired, rows, min(budget, exhaustive.MOST_STATES)
        )
        if found is None:
            whole = False
            continue
        tried = True
        budget -= found.seen
        if not found.proven:
            # Of one part, what was found is better than nothing.
            if len(rows) < len(problem.hosts):
                state.undo(mark)
            whole = False
            continue
        proven += rows
        migrations += found.migrations
        left = [a + b for a, b in zip(left, found.left, strict=True)]
    if not tried:
        return None
    return Parts(
        whole=exhaustive.Outcome(
            left=tuple(left), migrations=migrations, proven=True
        )
        if whole
        else None,
        proven=frozenset(proven),
    )


def _excess(state: states.State, row: int) -> int:
    return sum(state.excess(row, a) for a in state.problem.accounts)


def improve(
    state: states.State,
    best: Found,
    attempt: Callable[[states.State], Found],
    expired: Callable[[], bool],
) -> Found:
    """Relieve hosts that stay over quota in the best attempt, if possible.

    Before everything else, while the room is there that others will take,
    and after everything else.

    :param state: nothing has moved in it, and nothing will have
    :param attempt: what a state has come to
    :returns: a better attempt, or the same
    """
    for _ in range(_ROUNDS):
        before = best
        best = _improved(state, best, attempt, expired)
        if best is before or expired():
            break
    return best


def _improved(
    state: states.State,
    best: Found,
    attempt: Callable[[states.State], Found],
    expired: Callable[[], bool],
) -> Found:
    for row in _stuck(state, best):
        mark = len(state.moves)
        if expired():
            break
        if not search_around(state, row, expired):
            continue
        kept = len(state.moves)
        found = _finished(state, attempt, expired)
        if found.rank < best.rank:
            best = found
            state.undo(kept)
        else:
            state.undo(mark)
    state.undo(0)
    for row in _stuck(state, best):
        _replay(state, best)
        if search_around(state, row, expired):
            found = _finished(state, attempt, expired)
            if found.rank < best.rank:
                best = found
        state.undo(0)
    return best


def _finished(
    state: states.State,
    attempt: Callable[[states.State], Found],
    expired: Callable[[], bool],
) -> Found:
    labels.Search(state, expired=expired).run()
    return attempt(state)


def _replay(state: states.State, best: Attempt) -> None:
    for instance, target, parking in best.steps:
        state.move(instance, target, parking=parking)


def _stuck(state: states.State, best: Attempt) -> Rows:
    """Hosts that the best attempt leaves over quota, the worst first."""
    _replay(state, best)
    rows = [r for r in range(len(state.problem.hosts)) if _excess(state, r)]

    def order(row: int) -> tuple[int, ...]:
        accounts = state.problem.accounts
        return (*(-state.excess(row, a) for a in accounts), row)

    rows.sort(key=order)
    state.undo(0)
    return tuple(rows[:_MOST_STUCK])


def search_around(
    state: states.State, row: int, expired: Callable[[], bool]
) -> bool:
    """Relieve a host together with a few others, if that is possible.

    :returns: whether it is less over quota now; else the state is as before
    """
    before = _excess(state, row)
    mark = len(state.moves)
    for rows in _neighbourhoods(state, row):
        if expired():
            break
        found = exhaustive.search(state, expired, rows, _MOST_STATES_AROUND)
        if found is not None and _excess(state, row) < before:
            return True
        state.undo(mark)
    return False


def _neighbourhoods(state: states.State, row: int) -> Iterator[Rows]:
    """The host with those that lack least, and with those with room too."""
    problem = state.problem
    over = [a for a in problem.accounts if state.excess(row, a)]
    kinds = [
        problem.kinds[k]
        for k in state.kinds_on(row)
        if set(problem.kinds[k].accounts) & set(over)
    ]
    if not kinds:
        return
    hosts = len(problem.hosts)
    lack = np.full(hosts, np.inf)
    for kind in kinds:
        asked = np.flatnonzero(kind.demand)
        missing = np.maximum(kind.demand[asked] - state.room[:, asked], 0)
        share = (missing / kind.demand[asked]).sum(axis=1)
        lack = np.minimum(
            lack, np.where(problem.all_accepts[kind.index], share, np.inf)
        )
    lack[row] = np.inf
    taking = _first(np.round(lack, 9), _TAKING)
    column = problem.column["quota", over[0]]
    room = np.where(np.isfinite(lack), -state.room[:, column], np.inf)
    room[list(taking)] = np.inf
    turning = _first(room.astype(float), _TURNING)
    seen = set()
    for rows in ((row, *taking, *turning), (row, *taking)):
        chosen = _few_enough(state, rows)
        if len(chosen) > 1 and chosen not in seen:
            seen.add(chosen)
            yield chosen


def _first(values: npt.NDArray[np.float64], count: int) -> Rows:
    """Rows of the smallest finite values, ties by row."""
    order = np.argsort(values, kind="stable")[:count]
    return tuple(int(i) for i in order if np.isfinite(values[i]))


def _few_enough(state: states.State, rows: Sequence[int]) -> Rows:
    """As many of the hosts as the search admits, the first ones."""
    chosen: list[int] = []
    instances = 0
    for row in rows:
        here = int(state.counts[row].sum())
        if instances + here <= exhaustive.MOST_INSTANCES:
            chosen.append(row)
            instances += here
    return tuple(sorted(chosen)) if rows[0] in chosen else ()
