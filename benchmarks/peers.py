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

"""Greedy ways to shed excess: what an operator would write in an afternoon.

Both know tiers, quotas, memory, zones and server groups, plan one migration
after the other and never take one back. They differ in what goes first and in
where it goes:

* :func:`first_fit` takes the largest instance of the host that is over its
  quota and the first host by name that has room;
* :func:`offload` does as Watcher's consolidation does in its offload phase:
  the smallest instance first, to the fullest host that has room.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from watcher_cputier import model

Move = tuple[str, str]


def first_fit(cloud: model.Cluster) -> list[Move]:
    """Largest first, to the first host that has room."""
    return _Shedding(cloud).run(largest=True, fullest=False)


def offload(cloud: model.Cluster) -> list[Move]:
    """Smallest first, to the fullest host that has room."""
    return _Shedding(cloud).run(largest=False, fullest=True)


class _Shedding:
    """What is free on each host, by class."""

    def __init__(self, cloud: model.Cluster) -> None:
        self._cloud = cloud
        self._names = [host.name for host in cloud.hosts]
        self._number = {name: n for n, name in enumerate(self._names)}
        classes = sorted(
            {c for h in cloud.hosts for c in h.providers[0].inventories}
        )
        self._free = {
            name: np.array(
                [
                    host.providers[0].inventories[name].capacity
                    - host.providers[0].allocated.get(name, 0)
                    for host in cloud.hosts
                ],
                dtype=np.int64,
            )
            for name in classes
        }
        self._open = np.array(
            [h.in_scope and h.enabled and h.up for h in cloud.hosts]
        )
        self._zone = np.array([host.zone for host in cloud.hosts])
        self._at = {i.uuid: self._number[i.host] for i in cloud.instances}

    def run(self, *, largest: bool, fullest: bool) -> list[Move]:
        """Shed tier by tier, host by host."""
        moves: list[Move] = []
        for tier in self._cloud.tiers:
            free = self._free[tier.resource_class]
            for source in np.flatnonzero(free < 0).tolist():
                guests = sorted(
                    (
                        i
                        for i in self._cloud.instances_by_host.get(
                            self._names[source], ()
                        )
                        if i.tier == tier.name and not i.locked
                    ),
                    key=lambda i: (-i.units if largest else i.units, i.name),
                )
                moves += self._shed(source, guests, free, fullest)
        return moves

    def _shed(
        self,
        source: int,
        guests: Iterable[model.Instance],
        free: npt.NDArray[np.int64],
        fullest: bool,
    ) -> Iterable[Move]:
        for guest in guests:
            if free[source] >= 0:
                return
            target = self._target(guest, source, free, fullest)
            if target is None:
                continue
            for name, units in guest.flavor.resources.items():
                self._free[name][source] += units
                self._free[name][target] -= units
            self._at[guest.uuid] = target
            yield guest.uuid, self._names[target]

    def _target(
        self,
        guest: model.Instance,
        source: int,
        free: npt.NDArray[np.int64],
        fullest: bool,
    ) -> int | None:
        able = self._open.copy()
        able[source] = False
        for name, units in guest.flavor.resources.items():
            able &= self._free[name] >= units
        if guest.pinned_zone is not None:
            able &= self._zone == guest.pinned_zone
        group = self._cloud.group_by_member.get(guest.uuid)
        if group is not None:
            for uuid in group.members - {guest.uuid}:
                if uuid in self._at:
                    able[self._at[uuid]] = False
        if not able.any():
            return None
        if not fullest:
            return int(able.argmax())
        return int(np.where(able, free, np.iinfo(np.int64).max).argmin())
