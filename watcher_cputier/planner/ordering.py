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
towards it are made as long as one finds its room. Where none does, because
each waits for another to leave, a room that one of them needed went to
somebody who could have waited: all is taken back, and what leaves the hosts
that were waited for goes first. Where that does not help, one instance is
parked on a host that has room for a while. What memory or another class does
not admit stays undone, and is left to the labels.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from watcher_cputier import model
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

Groups = Sequence[Sequence[int]]

# How often an order is begun anew before somebody is parked.
_TRIES = 8


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
    mark = len(state.moves)
    first: tuple[int, ...] = ()
    for _ in range(_TRIES):
        waited_for = _directly(state, groups, out, into, first)
        if not waited_for:
            return True
        state.undo(mark)
        if first[: len(waited_for)] == waited_for:
            break
        rest = tuple(h for h in first if h not in waited_for)
        first = waited_for + rest
    out, into = out.copy(), into.copy()
    parked: list[tuple[int, model.Instance]] = []
    while out.any() or parked:
        moved = _all_that_fit(state, groups, out, into, parked)
        if moved:
            continue
        if not _park(state, groups, out, into, parked):
            return False
    return True


def _directly(
    state: states.State,
    groups: Groups,
    out: problems.Units,
    into: problems.Units,
    first: tuple[int, ...],
) -> tuple[int, ...]:
    """Migrate without parking; the hosts that are waited for in the end.

    :param first: hosts that instances leave before others do
    """
    out, into = out.copy(), into.copy()
    leaves = out.any(axis=1)
    while _all_that_fit(state, groups, out, into, [], first):
        pass
    if not out.any():
        return ()
    lacking = into[:, out.any(axis=0)].any(axis=1)
    return tuple(np.flatnonzero(lacking & leaves).tolist()) or tuple(
        np.flatnonzero(lacking).tolist()
    )


def _all_that_fit(
    state: states.State,
    groups: Groups,
    out: problems.Units,
    into: problems.Units,
    parked: list[tuple[int, model.Instance]],
    first: tuple[int, ...] = (),
) -> bool:
    """One round of what finds its room; whether anything did."""
    moved = False
    for item in list(parked):
        group, instance = item
        if _go(state, group, instance, into):
            parked.remove(item)
            moved = True
    # The largest kinds come first, and have the fewest places.
    order = [
        (host, group)
        for hosts in ((first, None) if first else (None,))
        for group in range(out.shape[1])
        for host in hosts or np.flatnonzero(out[:, group]).tolist()
    ]
    for host, group in order:
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
