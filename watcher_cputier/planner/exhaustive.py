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

"""All reachable states of a small cluster, as far as they are of use.

Where a few hosts lock each other, the fewest migrations may lead through a
host that nobody stays on, or through an order that no rule of thumb finds.
Small clusters are small enough to look at everything: best first (A*), by
the migrations so far plus those that the excess that is left needs at least.
Equal instances are interchangeable, and a state is how many of each are
where.

The search ends after so many states; a state that it has not seen is then
not spoken of.
"""

from collections.abc import Callable, Iterator
import dataclasses
import heapq

import numpy as np

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

_MOST_HOSTS = 8
_MOST_INSTANCES = 24
_MOST_STATES = 4000

Counts = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the search came to; the state is left where it leads.

    :param left: (accounts) units over quota at the best state
    :param migrations: on the shortest way there
    :param proven: whether everything of use was looked at
    """

    left: tuple[int, ...]
    migrations: int
    proven: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Class:
    """Interchangeable instances.

    :param instances: all of them, by name, wherever they are
    :param group: their anti-affinity group, if any
    """

    kind: problems.Kind
    instances: tuple[model.Instance, ...]
    group: model.ServerGroup | None


def small(state: states.State) -> bool:
    """Whether a cluster is small and plain enough for it."""
    problem = state.problem
    if len(problem.hosts) > _MOST_HOSTS or problem.extensions.target_rules:
        return False
    if len(problem.kind_of) > _MOST_INSTANCES:
        return False
    if any(
        (kind.demand != kind.release).any()
        or len(kind.sample.flavor.groups) > 1
        for kind in problem.kinds
    ):
        return False
    for host in problem.hosts:
        names = [n for p in host.providers for n in p.inventories]
        if len(names) != len(set(names)):
            return False
    if not _classes(problem):
        return False
    return not any(
        i.different_host or i.same_host for i in problem.cluster.instances
    )


def search(state: states.State, expired: Callable[[], bool]) -> Outcome | None:
    """Find the best reachable state, and go there.

    :returns: None where the cluster is not small, or time is up
    """
    if not small(state):
        return None
    walk = _Walk(state)
    found = walk.run(expired)
    if found is None:
        return None
    counts, proven = found
    if not walk.go(counts):
        return None
    return Outcome(
        left=walk.left(counts),
        migrations=walk.steps[counts],
        proven=proven,
    )


class _Walk:
    """The search over counts: one number per class and host."""

    def __init__(self, state: states.State) -> None:
        self._state = state
        problem = state.problem
        self._hosts = len(problem.hosts)
        self._classes = _classes(problem)
        self._base = state.room.copy()
        self._accepts = [
            problem.all_accepts[c.kind.index] for c in self._classes
        ]
        self._quota = [
            problem.column["quota", account] for account in problem.accounts
        ]
        self._start: Counts = tuple(
            sum(1 for i in c.instances if problem.host_index[i.host] == h)
            for c in self._classes
            for h in range(self._hosts)
        )
        self._origin = np.array(self._start).reshape(
            len(self._classes), self._hosts
        )
        self._demand = np.array([c.kind.demand for c in self._classes])
        self._largest = [
            max(
                (int(c.kind.release[column]) for c in self._classes),
                default=1,
            )
            or 1
            for column in self._quota
        ]
        self._others = [self._members(c) for c in self._classes]
        self.steps: dict[Counts, int] = {self._start: 0}
        self._came: dict[Counts, tuple[Counts, int, int, int]] = {}

    def _members(self, found: _Class) -> list[int]:
        """Members of its group per host that no count here speaks of."""
        if found.group is None:
            return [0] * self._hosts
        counted = {i.uuid for c in self._classes for i in c.instances}
        here = [0] * self._hosts
        problem = self._state.problem
        for uuid in found.group.members - counted:
            member = problem.cluster.instance_by_uuid.get(uuid)
            if member is not None and member.host in problem.host_index:
                here[problem.host_index[member.host]] += 1
        return here

    def _room(self, counts: Counts) -> np.ndarray:
        now = np.array(counts).reshape(self._origin.shape)
        return self._base - (now - self._origin).T @ self._demand

    def left(self, counts: Counts) -> tuple[int, ...]:
        """Units over quota, per account."""
        room = self._room(counts)[:, self._quota]
        return tuple(int(n) for n in np.maximum(-room, 0).sum(axis=0))

    def _least(self, room: np.ndarray) -> int:
        """Migrations that the excess needs at least."""
        over = np.maximum(-room[:, self._quota], 0)
        needed = -(-over // np.array(self._largest))
        # An instance of single-class mode counts against two accounts.
        return int(needed.max(axis=1).sum())

    def _memory(self, counts: Counts) -> int:
        moved = np.maximum(
            np.array(counts).reshape(self._origin.shape) - self._origin, 0
        ).sum(axis=1)
        return int(
            sum(
                n * c.kind.memory_mb
                for n, c in zip(moved, self._classes, strict=True)
            )
        )

    def run(self, expired: Callable[[], bool]) -> tuple[Counts, bool] | None:
        """The best state, and whether nothing else can be better."""
        start = self._start
        best = start
        best_rank = (*self.left(start), 0, 0)
        queue = [(self._least(self._room(start)), 0, start)]
        done: set[Counts] = set()
        while queue:
            estimate, _, counts = heapq.heappop(queue)
            if counts in done:
                continue
            if not any(best_rank[:-2]) and estimate > best_rank[-2]:
                break
            done.add(counts)
            if len(done) > _MOST_STATES or expired():
                return best, False
            room = self._room(counts)
            taken = self.steps[counts] + 1
            for c, source, target in self._moves(counts, room):
                after = list(counts)
                after[c * self._hosts + source] -= 1
                after[c * self._hosts + target] += 1
                there = tuple(after)
                if self.steps.get(there, taken + 1) <= taken:
                    continue
                self.steps[there] = taken
                self._came[there] = (counts, c, source, target)
                done.discard(there)
                now = room.copy()
                now[source] += self._demand[c]
                now[target] -= self._demand[c]
                over = np.maximum(-now[:, self._quota], 0).sum(axis=0)
                left = tuple(int(n) for n in over)
                rank = (*left, taken, self._memory(there))
                if rank < best_rank:
                    best, best_rank = there, rank
                heapq.heappush(queue, (taken + self._least(now), taken, there))
        return best, True

    def _moves(
        self, counts: Counts, room: np.ndarray
    ) -> Iterator[tuple[int, int, int]]:
        for c, found in enumerate(self._classes):
            demand = self._demand[c]
            asked = demand > 0
            fits = self._accepts[c] & ((room >= demand) | ~asked).all(axis=1)
            for target in range(self._hosts):
                if not fits[target] or not self._admitted(c, target, counts):
                    continue
                for source in range(self._hosts):
                    if source != target and counts[c * self._hosts + source]:
                        yield c, source, target

    def _admitted(self, c: int, target: int, counts: Counts) -> bool:
        group = self._classes[c].group
        if group is None:
            return True
        present = self._others[c][target] + sum(
            counts[other * self._hosts + target]
            for other, found in enumerate(self._classes)
            if found.group is group
        )
        return present < group.max_per_host

    def go(self, counts: Counts) -> bool:
        """Migrate as the shortest way to a state does.

        :returns: whether the rules let it
        """
        way = []
        while counts in self._came:
            counts, c, source, target = self._came[counts]
            way.append((c, source, target))
        way.reverse()
        for step in _without_detours(self._state, self._classes, way):
            instance, target, parking = step
            if self._state.rejection(instance, target) is not None:
                return False
            self._state.move(instance, target, parking=parking)
        return True


def _without_detours(
    state: states.State,
    classes: tuple[_Class, ...],
    way: list[tuple[int, int, int]],
) -> list[tuple[model.Instance, int, bool]]:
    """Which instance makes each step: one that has not moved, if any."""
    index = state.problem.host_index
    where = {i.uuid: index[i.host] for c in classes for i in c.instances}
    moved: dict[str, int] = {}
    steps: list[tuple[model.Instance, int, bool]] = []
    for c, source, target in way:
        here = [i for i in classes[c].instances if where[i.uuid] == source]
        chosen = min(here, key=lambda i: (i.uuid in moved, i.sort_key))
        if chosen.uuid in moved:
            at = moved[chosen.uuid]
            steps[at] = (chosen, steps[at][1], True)
        moved[chosen.uuid] = len(steps)
        where[chosen.uuid] = target
        steps.append((chosen, target, False))
    return steps


def _classes(problem: problems.Problem) -> tuple[_Class, ...]:
    found: dict[tuple[int, str], list[model.Instance]] = {}
    by_member = problem.cluster.group_by_member
    for instance in sorted(
        (problem.cluster.instance_by_uuid[u] for u in problem.kind_of),
        key=lambda i: i.sort_key,
    ):
        group = by_member.get(instance.uuid)
        tag = group.uuid if group is not None else ""
        key = (problem.kind_of[instance.uuid].index, tag)
        found.setdefault(key, []).append(instance)
    classes = []
    for (kind, _), members in sorted(found.items()):
        group = by_member.get(members[0].uuid)
        if group is not None and group.policy == "affinity":
            # It moves with the others or not at all, that is, not here.
            alone = [
                uuid
                for uuid in group.members
                if uuid in problem.cluster.instance_by_uuid
            ]
            if len(alone) > 1:
                continue
        classes.append(
            _Class(
                kind=problem.kinds[kind],
                instances=tuple(members),
                group=group
                if group is not None and group.policy == "anti-affinity"
                else None,
            )
        )
    return tuple(classes)
