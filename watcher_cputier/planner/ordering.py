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

"""Put an end state that was found without an order into one.

An end state says how many of each kind leave and enter each host. Migrations
towards it are made as long as one finds its room; where none does, because
each waits for another to leave, one instance is parked on a host that has
room for a while. What memory or another class does not admit stays undone,
and is left to the labels.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

Groups = Sequence[Sequence[int]]


def realise(
    state: states.State,
    groups: Groups,
    out: problems.Units,
    into: problems.Units,
) -> bool:
    """Migrate towards an end state; whether it was reached.

    :param groups: K' sets of kinds that are alike to the end state, those
        with the fewest places first
    :param out: (H, K') instances to leave, by set
    :param into: (H, K') instances to enter
    """
    out, into = out.copy(), into.copy()
    parked: list[tuple[int, model.Instance]] = []
    while out.any() or parked:
        moved = _all_that_fit(state, groups, out, into, parked)
        if moved:
            continue
        if not _park(state, groups, out, into, parked):
            return False
    return True


def _all_that_fit(
    state: states.State,
    groups: Groups,
    out: problems.Units,
    into: problems.Units,
    parked: list[tuple[int, model.Instance]],
) -> bool:
    moved = False
    for item in list(parked):
        group, instance = item
        if _go(state, group, instance, into):
            parked.remove(item)
            moved = True
    # The largest kinds come first, and have the fewest places.
    for group in range(out.shape[1]):
        for host in np.flatnonzero(out[:, group]).tolist():
            while out[host, group]:
                for instance in _candidates(state, groups, host, group):
                    if _go(state, group, instance, into):
                        break
                else:
                    break
                out[host, group] -= 1
                moved = True
    return moved


def _go(
    state: states.State,
    group: int,
    instance: model.Instance,
    into: problems.Units,
) -> bool:
    kind = state.problem.kind_of[instance.uuid]
    mask = state.admits(kind) & (into[:, group] > 0)
    target = state.best_target(instance, kind, mask)
    if target is None:
        return False
    state.move(instance, target)
    into[target, group] -= 1
    return True


def _candidates(
    state: states.State, groups: Groups, host: int, group: int
) -> Iterator[model.Instance]:
    """One instance of each kind, the least memory first."""
    kinds = sorted(
        groups[group],
        key=lambda k: (
            state.problem.kinds[k].memory_mb,
            state.problem.kinds[k].priority,
            k,
        ),
    )
    for kind in kinds:
        here = state.here(host, kind)
        if here:
            yield here[0]


def _park(
    state: states.State,
    groups: Groups,
    out: problems.Units,
    into: problems.Units,
    parked: list[tuple[int, model.Instance]],
) -> bool:
    """Take one instance out of the way, the smallest that there is."""
    for group in reversed(range(out.shape[1])):
        for host in np.flatnonzero(out[:, group]).tolist():
            for instance in _candidates(state, groups, host, group):
                kind = state.problem.kind_of[instance.uuid]
                target = state.best_target(instance, kind)
                if target is None:
                    continue
                state.move(instance, target, parking=True)
                out[host, group] -= 1
                parked.append((group, instance))
                return True
    return False
