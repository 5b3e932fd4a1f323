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

"""Small clouds of every kind, for the property tests.

Hosts h0 to h5, some drained, disabled, out of scope or with a child::

    h<n> (VCPU, MEMORY_MB, DISK_GB, a class per tier; traits A, B)
      +-- h<n>_numa (CUSTOM_LLC; on some hosts)

Each class is on one provider of a host only, so that a request is served in
one way or not at all. What runs on a host may be more than its inventories:
that is how excess comes about, when an operator lowers them.
"""

import dataclasses
from typing import Any

from hypothesis import strategies as st

from tests import builders
from watcher_cputier import model

ALL_TIERS = ("platinum", "gold", "silver", "bronze")


@dataclasses.dataclass(frozen=True)
class Case:
    """A cloud with the parameters of an audit of it."""

    cloud: model.Cluster
    policies: dict[str, int]
    drained: list[str]

    @property
    def params(self) -> dict[str, Any]:
        """The audit's parameters, without any cap."""
        return {
            "quotas": self.policies,
            "drain_hosts": self.drained,
            "max_migrations": 0,
        }


def rarely(draw: st.DrawFn) -> bool:
    """True about one time in ten; not where hypothesis likes to look."""
    return draw(st.integers(0, 9)) == 6


@st.composite
def hosts(draw: st.DrawFn, name: str, tiers: tuple[str, ...]) -> model.Host:
    amounts: dict[str, int | model.Inventory] = {}
    for tier in tiers:
        if rarely(draw):
            amounts[builders.class_of(tier)] = model.Inventory(
                total=16,
                reserved=draw(st.integers(0, 16)),
                max_unit=draw(st.integers(2, 16)),
                step_size=draw(st.integers(1, 2)),
            )
        else:
            amounts[builders.class_of(tier)] = draw(
                st.sampled_from([2, 16, 1, 6, 32])
            )
    children = ()
    if rarely(draw):
        children = (
            builders.provider(
                f"{name}_numa",
                {"CUSTOM_LLC": draw(st.integers(1, 8))},
                root=name,
                traits=draw(st.sets(st.sampled_from("AB"))),
            ),
        )
    return builders.host(
        name,
        gold=None,
        silver=None,
        bronze=None,
        vcpus=draw(st.sampled_from([64, 32, 16])),
        memory_mb=1024 * draw(st.sampled_from([64, 24, 12])),
        more=amounts,
        traits=draw(st.sets(st.sampled_from("AB"))),
        children=children,
        enabled=not rarely(draw),
        up=not rarely(draw),
        in_scope=not rarely(draw),
        zone="az2" if rarely(draw) else "az1",
    )


@st.composite
def instances(
    draw: st.DrawFn, name: str, home: model.Host, tiers: tuple[str, ...]
) -> model.Instance:
    has_llc = len(home.providers) > 1
    return builders.instance(
        name,
        home.name,
        draw(st.sampled_from([2, 1, 4, 3, 8, 5])),
        None if rarely(draw) else draw(st.sampled_from(tiers)),
        memory_mb=1024 * draw(st.integers(1, 6)),
        required=home.providers[0].traits if rarely(draw) else (),
        forbidden={"B"} - home.traits if rarely(draw) else (),
        more={"CUSTOM_LLC": 1} if has_llc and draw(st.booleans()) else {},
        locked=rarely(draw),
        known=not rarely(draw),
        priority=draw(st.integers(-1, 1)),
        pinned_zone=home.zone if rarely(draw) else None,
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A cloud of 2 to 6 hosts, 1 to 4 tiers and up to 16 instances, half
    of them on the first two hosts.
    """
    tiers = ALL_TIERS[: draw(st.sampled_from([1, 2, 3, 4, 2, 1]))]
    names = [f"h{n}" for n in range(draw(st.integers(2, 6)))]
    found = [draw(hosts(name, tiers)) for name in names]
    if not any(host.in_scope for host in found):
        found[0] = dataclasses.replace(found[0], in_scope=True)
    guests = [
        draw(
            instances(
                f"i{n:02}",
                draw(st.sampled_from(found[:2] if n % 2 else found)),
                tiers,
            )
        )
        for n in range(draw(st.sampled_from([8, 12, 4, 16, 1])))
    ]
    groups = []
    if len(guests) > 2 and draw(st.booleans()):
        members = draw(
            st.sets(
                st.sampled_from([g.uuid for g in guests]),
                min_size=2,
                max_size=4,
            )
        )
        groups.append(
            builders.server_group(
                draw(st.sampled_from(["anti-affinity", "affinity"])),
                members,
                limit=draw(st.integers(1, 2)),
            )
        )
    policies = {
        tier: draw(st.integers(0, 12)) for tier in tiers if rarely(draw)
    }
    drained = [name for name in names if rarely(draw)]
    return Case(
        cloud=builders.cluster(
            found,
            guests,
            tiers=builders.tiers(*tiers),
            server_groups=tuple(groups),
        ),
        policies=policies,
        drained=drained,
    )


@st.composite
def ample(draw: st.DrawFn) -> tuple[model.Cluster, list[int], int]:
    """One host over quota and an empty one with room for everything.

    :returns: the cloud, the sizes on its host ``a`` and a's quota
    """
    sizes = draw(st.lists(st.integers(1, 8), min_size=1, max_size=9))
    limit = draw(st.integers(1, sum(sizes)))
    guests = [
        builders.instance(
            f"i{n}", "a", size, memory_mb=1024 * draw(st.integers(1, 4))
        )
        for n, size in enumerate(sizes)
    ]
    cloud = builders.cluster(
        [builders.host("a", gold=limit), builders.host("b", gold=999)],
        guests,
    )
    return cloud, sizes, limit
