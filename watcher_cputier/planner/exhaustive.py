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

"""All reachable states of a few hosts, as far as they are of use.

Where a few hosts lock each other, the fewest migrations may lead through a
host that nobody stays on, or through an order that no rule of thumb finds.
A few hosts are few enough to look at everything: best first (A*), by the
migrations so far plus those that the excess that is left needs at least.
Equal instances are interchangeable, and a state is how many of each are
where.

The hosts may be a whole cluster, a part that no instance leaves or enters
(:mod:`.neighbourhoods`), or any others: what is elsewhere stays there then,
and nothing is proven. The search ends after so many states; a state that it
has not seen is not spoken of.
"""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import heapq

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

MOST_HOSTS = 8
MOST_INSTANCES = 24
MOST_STATES = 4000

Counts = tuple[int, ...]
Room = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the search came to; the state is left where it leads.

    :param left: (accounts) units over quota on the hosts at the best state
    :param migrations: on the shortest way there
    :param proven: whether everything of use was looked at
    :param seen: states that were looked at
    """

    left: tuple[int, ...]
    migrations: int
    proven: bool
    seen: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Class:
    """Interchangeable instances.

    :param instances: all of them, by name, wherever they are
    :param group: their anti-affinity group, if any
    """

    kind: problems.Kind
    instances: tuple[model.Instance, ...]
    group: model.ServerGroup | None


def search(
    state: states.State,
    expired: Callable[[], bool],
    rows: Sequence[int] | None = None,
    most_states: int = MOST_STATES,
    limit: int | None = None,
) -> Outcome | None:
    """Find the best reachable state, and go there.

    Only instances that have not moved yet are moved.

    :param rows: the hosts to look at; all of the cluster by default
    :param limit: the most migrations; what is proven then holds for as many
    :returns: None where the hosts are too many or arrays do not tell all
        about them; the state is as it was then
    """
    problem = state.problem
    if rows is None:
        rows = range(len(problem.hosts))
    if len(rows) > MOST_HOSTS or problem.extensions.target_rules:
        return None
    here = [
        instance
        for row in rows
        for kind in state.kinds_on(row)
        for instance in state.here(row, kind)
    ]
    if len(here) > MOST_INSTANCES or not all(
        _plain(problem.hosts[row]) for row in rows
    ):
        return None
    walk = _Walk(state, tuple(rows), here)
    if not walk.classes:
        return None
    counts, proven = walk.run(expired, most_states, limit)
    mark = len(state.moves)
    if not walk.go(counts):
        state.undo(mark)
        return None
    return Outcome(
        left=walk.left(counts),
        migrations=walk.steps[counts],
        proven=proven and walk.whole,
        seen=walk.seen,
    )


def _plain(host: model.Host) -> bool:
    """Whether each class comes from one provider."""
    names = [n for p in host.providers for n in p.inventories]
    return len(names) == len(set(names))


class _Walk:
    """The search over counts: one number per class and host.

    :ivar whole: whether no other instance could move here, and none of
        these elsewhere
    """

    def __init__(
        self,
        state: states.State,
        rows: tuple[int, ...],
        here: Sequence[model.Instance],
    ) -> None:
        self._state = state
        self._rows = rows
        problem = state.problem
        hosts = self._hosts = len(rows)
        self.classes = _classes(problem, here)
        moving = sum(len(c.instances) for c in self.classes)
        inside = set(rows)
        self.whole = moving == len(here) and not any(
            move.source in inside or move.target in inside
            for move in state.moves
        )
        # What a class takes, as (column, amount).
        self._takes: list[list[tuple[int, int]]] = []
        self._targets: list[list[int]] = []
        columns: dict[int, int] = {}
        for found in self.classes:
            takes = []
            for column, amount in enumerate(found.kind.demand.tolist()):
                if amount:
                    at = columns.setdefault(column, len(columns))
                    takes.append((at, amount))
            self._takes.append(takes)
            accepts = problem.all_accepts[found.kind.index]
            self._targets.append([h for h in range(hosts) if accepts[rows[h]]])
            if set(accepts.nonzero()[0].tolist()) - inside:
                self.whole = False
        quota = [problem.column["quota", a] for a in problem.accounts]
        for column in quota:
            columns.setdefault(column, len(columns))
        self._quota = [columns[column] for column in quota]
        self._width = len(columns)
        room = state.room[list(rows)][:, list(columns)]
        self._base: Room = tuple(room.ravel().tolist())
        self._largest = [
            max(
                (int(c.kind.release[column]) for c in self.classes),
                default=1,
            )
            or 1
            for column in quota
        ]
        self._local = {row: h for h, row in enumerate(rows)}
        self._start: Counts = tuple(
            sum(1 for i in c.instances if self._at(i) == h)
            for c in self.classes
            for h in range(hosts)
        )
        self._memory_of = [c.kind.memory_mb for c in self.classes]
        self._others = [self._members(c) for c in self.classes]
        self.steps: dict[Counts, int] = {self._start: 0}
        self.seen = 0
        self._came: dict[Counts, tuple[Counts, int, int, int]] = {}

    def _at(self, instance: model.Instance) -> int:
        return self._local[self._state.problem.host_index[instance.host]]

    def _members(self, found: _Class) -> list[int]:
        """Members of its group per host that no count here speaks of."""
        here = [0] * self._hosts
        if found.group is None:
            return here
        books, problem = self._state.books, self._state.problem
        for h, row in enumerate(self._rows):
            here[h] = books.members(found.group, problem.hosts[row].name)
        for other in self.classes:
            if other.group is found.group:
                for instance in other.instances:
                    here[self._at(instance)] -= 1
        return here

    def _room(self, counts: Counts) -> Room:
        room = list(self._base)
        hosts, width = self._hosts, self._width
        for at, (now, before) in enumerate(
            zip(counts, self._start, strict=True)
        ):
            if now != before:
                c, h = divmod(at, hosts)
                for column, amount in self._takes[c]:
                    room[h * width + column] -= (now - before) * amount
        return tuple(room)

    def left(self, counts: Counts) -> tuple[int, ...]:
        """Units over quota, per account."""
        return self._judged(self._room(counts))[0]

    def _judged(self, room: Sequence[int]) -> tuple[tuple[int, ...], int]:
        """Units over quota per account, and migrations that they need."""
        left = [0] * len(self._quota)
        least = 0
        for start in range(0, len(room), self._width):
            # An instance of single-class mode counts against two accounts.
            most = 0
            for a, column in enumerate(self._quota):
                units = room[start + column]
                if units < 0:
                    left[a] -= units
                    most = max(most, -(units // self._largest[a]))
            least += most
        return tuple(left), least

    def _memory(self, counts: Counts) -> int:
        return sum(
            (now - before) * self._memory_of[at // self._hosts]
            for at, (now, before) in enumerate(
                zip(counts, self._start, strict=True)
            )
            if now > before
        )

    def run(
        self,
        expired: Callable[[], bool],
        most_states: int,
        limit: int | None = None,
    ) -> tuple[Counts, bool]:
        """The best state, and whether nothing else can be better."""
        start = self._start
        best = start
        left, least = self._judged(self._base)
        best_rank = (*left, 0, 0)
        queue = [(least, 0, start)]
        done: set[Counts] = set()
        hosts, width = self._hosts, self._width
        while queue:
            estimate, _, counts = heapq.heappop(queue)
            if counts in done or self.steps[counts] == limit:
                continue
            if not any(best_rank[:-2]) and estimate > best_rank[-2]:
                break
            done.add(counts)
            self.seen += 1
            if self.seen > most_states or expired():
                return best, False
            room = self._room(counts)
            taken = self.steps[counts] + 1
            for c, source, target in self._moves(counts, room):
                after = list(counts)
                after[c * hosts + source] -= 1
                after[c * hosts + target] += 1
                there = tuple(after)
                if self.steps.get(there, taken + 1) <= taken:
                    continue
                self.steps[there] = taken
                self._came[there] = (counts, c, source, target)
                done.discard(there)
                now = list(room)
                for column, amount in self._takes[c]:
                    now[source * width + column] += amount
                    now[target * width + column] -= amount
                left, least = self._judged(now)
                if (*left, taken) <= best_rank[:-1]:
                    rank = (*left, taken, self._memory(there))
                    if rank < best_rank:
                        best, best_rank = there, rank
                heapq.heappush(queue, (taken + least, taken, there))
        return best, True

    def _moves(
        self, counts: Counts, room: Room
    ) -> Iterator[tuple[int, int, int]]:
        hosts, width = self._hosts, self._width
        for c, takes in enumerate(self._takes):
            sources = [h for h in range(hosts) if counts[c * hosts + h]]
            for target in self._targets[c]:
                start = target * width
                for column, amount in takes:
                    if room[start + column] < amount:
                        break
                else:
                    if not self._admitted(c, target, counts):
                        continue
                    for source in sources:
                        if source != target:
                            yield c, source, target

    def _admitted(self, c: int, target: int, counts: Counts) -> bool:
        group = self.classes[c].group
        if group is None:
            return True
        present = self._others[c][target] + sum(
            counts[other * self._hosts + target]
            for other, found in enumerate(self.classes)
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
        for instance, local, parking in self._without_detours(way):
            target = self._rows[local]
            if self._state.rejection(instance, target) is not None:
                return False
            self._state.move(instance, target, parking=parking)
        return True

    def _without_detours(
        self, way: list[tuple[int, int, int]]
    ) -> list[tuple[model.Instance, int, bool]]:
        """Which instance makes each step: one that has not moved, if any."""
        where = {
            i.uuid: self._at(i) for c in self.classes for i in c.instances
        }
        moved: dict[str, int] = {}
        steps: list[tuple[model.Instance, int, bool]] = []
        for c, source, target in way:
            here = [
                i for i in self.classes[c].instances if where[i.uuid] == source
            ]
            chosen = min(here, key=lambda i: (i.uuid in moved, i.sort_key))
            if chosen.uuid in moved:
                at = moved[chosen.uuid]
                steps[at] = (chosen, steps[at][1], True)
            moved[chosen.uuid] = len(steps)
            where[chosen.uuid] = target
            steps.append((chosen, target, False))
        return steps


def _classes(
    problem: problems.Problem, here: Sequence[model.Instance]
) -> tuple[_Class, ...]:
    """The instances that arrays tell all about, alike ones together."""
    found: dict[tuple[int, str], list[model.Instance]] = {}
    by_member = problem.cluster.group_by_member
    for instance in sorted(here, key=lambda i: i.sort_key):
        kind = problem.kind_of[instance.uuid]
        if (
            (kind.demand != kind.release).any()
            or len(kind.sample.flavor.groups) > 1
            or instance.different_host
            or instance.same_host
        ):
            continue
        group = by_member.get(instance.uuid)
        tag = group.uuid if group is not None else ""
        found.setdefault((kind.index, tag), []).append(instance)
    classes = []
    for (index, _), members in sorted(found.items()):
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
                kind=problem.kinds[index],
                instances=tuple(members),
                group=group
                if group is not None and group.policy == "anti-affinity"
                else None,
            )
        )
    return tuple(classes)
