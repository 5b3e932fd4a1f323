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

"""Tiny clouds that are hard: nearly full, bound by more than one thing.

2 to 4 hosts and up to 7 instances, small enough for :mod:`tests.oracle`.
Capacities are those of a goal that keeps them with little to spare, or with
nothing; then some instances are put elsewhere. The way back to the goal, or to
something as good, may be direct, need a chain, an exchange or a hop, or may
not exist. One generator serves hypothesis and seeded chance alike.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import random
from typing import Protocol, TypeVar

from hypothesis import strategies as st

from tests import builders
from tests.property import clouds
from watcher_cputier import model

_T = TypeVar("_T")


class Choose(Protocol):
    """Takes one of several; the first is the simplest."""

    def __call__(self, options: Sequence[_T]) -> _T: ...


def seeded(seed: int) -> clouds.Case:
    """The case of a seed."""
    return tiny(random.Random(seed).choice)


def side_by_side(cases: Iterable[clouds.Case]) -> clouds.Case:
    """Cases as the zones of one cloud, which no instance leaves.

    What is best for each is best for all together, so that the truth about a
    cloud of any size is known.
    """
    together = list(cases)
    hosts: list[model.Host] = []
    guests: list[model.Instance] = []
    groups: list[model.ServerGroup] = []
    drained: list[str] = []
    for number, case in enumerate(together):
        zone = f"z{number:02}"
        hosts += [_moved(host, zone) for host in case.cloud.hosts]
        guests += [
            dataclasses.replace(
                guest,
                uuid=f"{zone}-{guest.uuid}",
                name=f"{zone}-{guest.name}",
                host=f"{zone}-{guest.host}",
                pinned_zone=zone,
                allocations=model.frozen_map(),
            )
            for guest in case.cloud.instances
        ]
        groups += [
            builders.server_group(
                group.policy,
                [f"{zone}-{uuid}" for uuid in group.members],
                name=f"{zone}-{group.name}",
                limit=group.max_per_host,
            )
            for group in case.cloud.server_groups
        ]
        drained += [f"{zone}-{name}" for name in case.drained]
    return clouds.Case(
        cloud=builders.cluster(
            hosts,
            guests,
            tiers=max((case.cloud.tiers for case in together), key=len),
            server_groups=tuple(groups),
        ),
        policies={},
        drained=drained,
    )


def _moved(host: model.Host, zone: str) -> model.Host:
    """The same host, empty, in another zone."""
    found = host.providers[0].inventories
    amounts = {name: found[name].total or 0 for name in found}
    return builders.host(
        f"{zone}-{host.name}",
        gold=amounts.get(builders.class_of("gold")),
        silver=amounts.get(builders.class_of("silver")),
        bronze=None,
        memory_mb=amounts["MEMORY_MB"],
        zone=zone,
    )


@st.composite
def cases(draw: st.DrawFn) -> clouds.Case:
    """Cases for hypothesis."""
    return tiny(lambda options: draw(st.sampled_from(options)))


def tiny(choose: Choose) -> clouds.Case:
    """One case."""
    tiers = builders.tiers(*("gold", "silver")[: choose([1, 2, 1])])
    names = [f"h{n}" for n in range(choose([3, 4, 2, 4, 3]))]
    goal = [
        _instance(choose, f"i{n}", names, tiers)
        for n in range(choose([5, 4, 6, 7, 7]))
    ]
    misplaced = choose([1, 2, 3, 4])
    guests = [
        dataclasses.replace(guest, host=choose(names))
        if n < misplaced
        else guest
        for n, guest in enumerate(goal)
    ]
    binds = choose([False, False, True])
    groups = []
    if choose([False, False, False, True]):
        groups.append(_group(choose, guests))
    return clouds.Case(
        cloud=builders.cluster(
            [_host(choose, name, goal, tiers, binds) for name in names],
            guests,
            tiers=tiers,
            server_groups=tuple(groups),
        ),
        policies={},
        drained=[names[-1]] if choose(range(10)) == 5 else [],
    )


def _instance(
    choose: Choose,
    name: str,
    names: list[str],
    tiers: tuple[model.Tier, ...],
) -> model.Instance:
    size = choose([1, 2, 4, 3, 2])
    return builders.instance(
        name,
        choose(names),
        size,
        choose([tier.name for tier in tiers]),
        memory_mb=1024 * choose([1, 2, 4, size]),
        locked=choose(range(15)) == 7,
    )


def _host(
    choose: Choose,
    name: str,
    goal: list[model.Instance],
    tiers: tuple[model.Tier, ...],
    binds: bool,
) -> model.Host:
    """A host that the goal fits on, with little to spare.

    :param binds: whether memory binds too
    """
    here = [guest for guest in goal if guest.host == name]
    spare = [0, 1, 2, 1]
    sold = {
        tier.name: sum(g.units for g in here if g.tier == tier.name)
        + choose(spare)
        for tier in tiers
    }
    memory = 65536
    if binds:
        memory = sum(g.flavor.memory_mb for g in here) + 1024 * choose(spare)
    return builders.host(
        name,
        gold=max(0, sold["gold"]),
        silver=max(0, sold["silver"]) if "silver" in sold else None,
        bronze=None,
        memory_mb=max(1, memory),
    )


def _group(choose: Choose, guests: list[model.Instance]) -> model.ServerGroup:
    """Members on different hosts, as Nova would have placed them."""
    members: dict[str, str] = {}
    for guest in guests:
        if choose([True, False]):
            members.setdefault(guest.host, guest.uuid)
    return builders.server_group("anti-affinity", members.values())
