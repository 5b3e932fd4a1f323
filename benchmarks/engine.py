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

"""A simulated workflow engine: how long a plan takes, in no time.

It does what Watcher's TaskFlow engine does with a graph of actions: whatever
has all its parents ended runs, first come first served, on so many workers.
Nothing is random; whoever compares orders draws the durations.
"""

from collections.abc import Sequence
import heapq

from watcher_cputier import schedule as scheduling


def simulate(
    steps: Sequence[scheduling.Step],
    seconds: Sequence[float],
    workers: int,
    *,
    per_source: int = 1,
    per_target: int = 1,
) -> float:
    """The makespan of a schedule with these durations.

    :param seconds: of each step, in the order of the steps
    :raises AssertionError: if more migrations than that leave or reach a
        host at the same time: the edges alone have to prevent it
    """
    children: list[list[int]] = [[] for _ in steps]
    left = [len(step.parents) for step in steps]
    for index, step in enumerate(steps):
        for parent in step.parents:
            children[parent].append(index)
    # In the order in which they became ready.
    queue = [(0.0, i) for i, count in enumerate(left) if not count]
    heapq.heapify(queue)
    running: list[tuple[float, int]] = []
    leaving: dict[str, int] = {}
    coming: dict[str, int] = {}
    now = 0.0
    while queue or running:
        while queue and len(running) < workers:
            _, index = heapq.heappop(queue)
            move = steps[index].migration
            leaving[move.source] = leaving.get(move.source, 0) + 1
            coming[move.target] = coming.get(move.target, 0) + 1
            assert leaving[move.source] <= per_source, move.source
            assert coming[move.target] <= per_target, move.target
            heapq.heappush(running, (now + seconds[index], index))
        now, index = heapq.heappop(running)
        move = steps[index].migration
        leaving[move.source] -= 1
        coming[move.target] -= 1
        for child in children[index]:
            left[child] -= 1
            if not left[child]:
                heapq.heappush(queue, (now, child))
    assert not any(left)
    return now


def simulate_chunks(
    order: Sequence[int],
    steps: Sequence[scheduling.Step],
    seconds: Sequence[float],
    workers: int,
    *,
    size: int = scheduling.PAIR,
) -> float:
    """The makespan of the same migrations under Watcher's ``weight``.

    Chunks of list neighbours with a barrier after each. Two of a chunk that
    leave one host go one after the other: Nova queues the second.

    :param order: positions of the steps, as they are emitted
    """
    total = 0.0
    for begin in range(0, len(order), size):
        chunk = order[begin : begin + size]
        busy: dict[str, float] = {}
        for index in chunk:
            source = steps[index].migration.source
            busy[source] = busy.get(source, 0.0) + seconds[index]
        if workers >= len(chunk):
            total += max(busy.values())
        else:
            total += max(
                sum(seconds[i] for i in chunk) / workers, *busy.values()
            )
    return total
