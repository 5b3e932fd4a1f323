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

"""The truth about tiny clouds, by trying everything.

A breadth-first search over all states that serial migrations can reach: one
migration after the other, each of them held on both sides while it runs. What
may start is asked of :mod:`tests.checker` alone. A state is where everything
is; what a host may take depends on who is there, so that answers are kept.

For at most 4 hosts and 7 instances or so: there are hosts ** instances
states, of which most are full beyond reach.
"""

from collections.abc import Iterable
import dataclasses

from tests import checker
from watcher_cputier import model

LARGEST = 200_000

State = tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What the best sequence of migrations comes to.

    :param residual: units over quota that stay, of each tier, the highest
        first: the least there is, in lexicographic order
    :param migrations: the fewest that reach it
    :param steps: one such sequence: (instance name, target) each
    :param states: how many states there are to reach
    """

    residual: tuple[int, ...]
    migrations: int
    steps: tuple[tuple[str, str], ...]
    states: int


class Search:
    """All states of one cloud, from where its instances are.

    :param hops: whether an instance may move more than once
    """

    def __init__(
        self,
        cloud: model.Cluster,
        policies: dict[str, int] | None = None,
        drained: Iterable[str] = (),
        *,
        hops: bool = True,
    ) -> None:
        self._hops = hops
        self._books = checker.Replay(cloud, policies or {}, drained)
        self._instances = cloud.instances
        self._names = [host.name for host in cloud.hosts]
        number = {name: n for n, name in enumerate(self._names)}
        self._start = tuple(number[i.host] for i in cloud.instances)
        self._now = self._start
        self._answers: dict[tuple[object, ...], bool] = {}
        self._cloud = cloud
        tied = {
            uuid
            for group in cloud.server_groups
            if group.policy == "affinity"
            for uuid in group.members
        }
        self._tied = [i.uuid in tied for i in cloud.instances]

    def run(self, most: int = 0, limit: int = LARGEST) -> Truth:
        """Look at every state.

        :param most: migrations that are allowed; 0 is no limit
        :raises ValueError: if there are more states than ``limit``
        """
        parents: dict[State, tuple[State, int] | None] = {self._start: None}
        best, depth = self._start, 0
        least = self._residual(self._start)
        level = [self._start]
        steps = 0
        while level and (not most or steps < most):
            steps += 1
            following = []
            for state in level:
                for item, after in self._next(state):
                    if after in parents:
                        continue
                    parents[after] = (state, item)
                    following.append(after)
                    residual = self._residual(after)
                    if residual < least:
                        least, best, depth = residual, after, steps
            if len(parents) > limit:
                raise ValueError(f"more than {limit} states")
            level = following
        return Truth(
            residual=least,
            migrations=depth,
            steps=self._way(parents, best),
            states=len(parents),
        )

    def _way(
        self, parents: dict[State, tuple[State, int] | None], state: State
    ) -> tuple[tuple[str, str], ...]:
        found = []
        while (parent := parents[state]) is not None:
            before, item = parent
            target = self._names[state[item]]
            found.append((self._instances[item].name, target))
            state = before
        return tuple(reversed(found))

    def _next(self, state: State) -> Iterable[tuple[int, State]]:
        for item, source in enumerate(state):
            if not self._hops and source != self._start[item]:
                continue
            for target in range(len(self._names)):
                if target != source and self._may(state, item, target):
                    yield item, (*state[:item], target, *state[item + 1 :])

    def _may(self, state: State, item: int, target: int) -> bool:
        key: tuple[object, ...] = (
            item,
            state[item],
            target,
            # An affinity group asks where everybody is.
            state
            if self._tied[item]
            else tuple(n for n, host in enumerate(state) if host == target),
        )
        if key not in self._answers:
            self._go(state)
            self._answers[key] = not self._books.objections(
                self._instances[item], self._names[target]
            )
        return self._answers[key]

    def _go(self, state: State) -> None:
        """Bring the books to a state."""
        for item, target in enumerate(state):
            if self._now[item] != target:
                self._books.move(self._instances[item], self._names[target])
        self._now = state

    def _residual(self, state: State) -> tuple[int, ...]:
        held = dict(self._cloud.held)
        for item, target in enumerate(state):
            instance = self._instances[item]
            if instance.tier is None or target == self._start[item]:
                continue
            for name, sign in ((instance.host, -1), (self._names[target], 1)):
                key = (name, instance.tier)
                held[key] = held.get(key, 0) + sign * instance.units
        excess = {
            (host.name, tier.name): max(
                0,
                held.get((host.name, tier.name), 0)
                - self._books.quota(host, tier),
            )
            for host in self._cloud.hosts
            for tier in self._cloud.tiers
            if host.in_scope
        }
        return checker.residual(self._cloud, excess)


def truth(
    cloud: model.Cluster,
    policies: dict[str, int] | None = None,
    drained: Iterable[str] = (),
    *,
    most: int = 0,
    hops: bool = True,
) -> Truth:
    """The least residual, then the fewest migrations, of a tiny cloud.

    :param most: migrations that are allowed; 0 is no limit
    :param hops: whether an instance may move more than once
    """
    return Search(cloud, policies, drained, hops=hops).run(most)
