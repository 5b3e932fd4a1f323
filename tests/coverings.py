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

"""Coverings of every kind: the families that bounds are measured on.

A family is one tier of a cluster. Hosts are filled with instances of six
sizes up to a number of units that the family says; quotas then make some of
them over quota. What is drawn depends on the seed alone.
"""

import dataclasses
import random

import numpy as np

from watcher_cputier.planner import covering as coverings

BINARY = (1, 2, 4, 8, 16, 32)
ODD = (1, 3, 5, 7, 12, 20)
QUOTA = 64


@dataclasses.dataclass(frozen=True)
class Family:
    """How a cluster is drawn.

    :param free: units free on a host within its quota, drawn evenly from
        this range
    :param over: of 100 hosts, how many are over quota
    :param excess: by how many units, drawn evenly
    :param slack: of the free units, how much the excesses may take; above 1
        no plan cures them all
    :param zones: zones; 60 % of the instances are bound to one
    :param drained: of 100 hosts, how many have quota 0
    """

    free: tuple[int, int]
    over: int = 30
    excess: tuple[int, int] = (1, 16)
    slack: float = 0.9
    sizes: tuple[int, ...] = BINARY
    zones: int = 0
    drained: int = 0


FAMILIES = {
    "75 %": Family(free=(6, 26)),
    "85 %": Family(free=(2, 18)),
    "93 %": Family(free=(0, 9)),
    "97 %": Family(free=(0, 4), over=15, excess=(1, 15)),
    "holes 0..3": Family(free=(0, 3), over=20, excess=(1, 10)),
    "holes 0..2": Family(free=(0, 2), over=20, excess=(1, 10)),
    "99.5 %": Family(free=(0, 1), over=5, excess=(1, 6)),
    "zones": Family(free=(0, 9), zones=4),
    "drain": Family(free=(6, 26), over=10, drained=3),
    "odd sizes": Family(free=(0, 12), sizes=ODD),
    "odd sizes, holes 0..4": Family(
        free=(0, 4), over=20, excess=(1, 12), sizes=ODD
    ),
    "zero slack": Family(free=(0, 6), over=40, slack=1.0),
    "infeasible": Family(free=(0, 4), over=40, slack=1.3),
}


def family(name: str, hosts: int, seed: int) -> coverings.Covering:
    """One cluster of a family."""
    return draw(FAMILIES[name], hosts, random.Random(f"{hosts}/{seed}"))


def draw(
    family: Family, hosts: int, chance: random.Random
) -> coverings.Covering:
    """A cluster as the family says."""
    classes = len(family.sizes)
    zones = range(family.zones)
    sizes = np.array(family.sizes * (1 + family.zones), np.int64)
    movable = np.zeros((hosts, len(sizes)), np.int64)
    accepts = np.zeros((hosts, len(sizes)), bool)
    room = np.array([chance.randint(*family.free) for _ in range(hosts)])
    order = list(range(hosts))
    chance.shuffle(order)
    drained = order[: hosts * family.drained // 100]
    over = order[len(drained) :][: hosts * family.over // 100]
    for host in over:
        room[host] = 0
    budget = int(family.slack * room.sum())
    for host in over:
        excess = min(chance.randint(*family.excess), budget)
        budget -= excess
        room[host] = -excess
    if family.slack >= 1 and over:
        room[over[-1]] -= budget
    for host in range(hosts):
        used = QUOTA - int(room[host])
        zone = host % family.zones if zones else 0
        while used:
            kind = chance.choices(
                range(classes), weights=range(classes, 0, -1)
            )[0]
            if family.sizes[kind] > used:
                continue
            used -= family.sizes[kind]
            bound = zones and chance.random() < 0.6
            movable[host, kind + (classes * (1 + zone) if bound else 0)] += 1
        accepts[host, :classes] = True
        if zones:
            first = classes * (1 + zone)
            accepts[host, first : first + classes] = True
    for host in drained:
        room[host] -= QUOTA
        accepts[host] = False
    return coverings.Covering(
        account="gold",
        sizes=sizes,
        movable=movable,
        room=room.astype(np.int64),
        accepts=accepts,
    )
