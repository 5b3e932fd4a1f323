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

"""Who has moved so recently that starvation and mixing leave it alone.

Rules (R104, N12; the design, section 7): after a move an instance stays for
``cooldown_minutes``, and twice as long after each further move within a day::

    quiet = cooldown x 2 ** (moves within the day that ends with the last - 1)

Any move counts, by whomever. A load that swings can so move an instance some
times a day and no more: 1, 2, 4, 8 hours after one another with the default
of an hour. A move for a quota is not forbidden by it; it prefers others.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import model
from watcher_cputier import parameters

DAY_SECONDS = 24 * 60 * 60
# What an instance is at that may not move.
_COOLING = "moved recently"


def cooling(
    cluster: model.Cluster, params: parameters.Parameters
) -> Mapping[str, int]:
    """Seconds for which instances still stay where they are.

    Where nobody looked at the clock, it is as late as the last window of
    telemetry and the last change.

    :returns: {uuid: seconds, at least 1}, of those that moved recently
    """
    found: dict[str, int] = {}
    moved = [change for change in cluster.changes if change.moved]
    if not moved or not params.cooldown_minutes:
        return model.frozen_map(found)
    now = cluster.taken_at
    if now is None:
        now = max(_end(change) for change in cluster.changes)
        if cluster.telemetry is not None and cluster.telemetry.windows:
            now = max(now, cluster.telemetry.ends_at)
    ends: dict[str, list[int]] = {}
    for change in moved:
        # A move that goes on has not cooled at all.
        end = now if change.ended_at is None else change.ended_at
        ends.setdefault(change.instance, []).append(end)
    for uuid, times in ends.items():
        left = max(times) + quiet_seconds(times, params) - now
        if left > 0:
            found[uuid] = left
    return model.frozen_map(found)


def quiet_seconds(ends: Iterable[int], params: parameters.Parameters) -> int:
    """How long an instance stays after the last of its moves.

    :param ends: when they ended, in seconds since the epoch; not empty
    """
    times = list(ends)
    last = max(times)
    recent = sum(1 for end in times if end > last - DAY_SECONDS)
    seconds: int = params.cooldown_minutes * 60 * 2 ** (recent - 1)
    return seconds


def _end(change: model.Change) -> int:
    return change.began_at if change.ended_at is None else change.ended_at


def kept(
    cluster: model.Cluster, params: parameters.Parameters
) -> model.Cluster:
    """The cluster in which those that cool down may not move."""
    still = cooling(cluster, params)
    if not still:
        return cluster
    return dataclasses.replace(
        cluster,
        instances=tuple(
            dataclasses.replace(one, task_state=one.task_state or _COOLING)
            if one.uuid in still
            else one
            for one in cluster.instances
        ),
    )
