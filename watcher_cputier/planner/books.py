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

"""What is taken where while a plan grows: arrivals and departures.

A plan is made as a serial order of migrations: each begins when those before
it have ended, so a migration finds the room that earlier departures left.
While it is in flight it holds its allocation on both sides; that it fits the
target *before* it leaves its source is therefore all that an order of that
kind has to keep. Which of them may run at the same time is the schedule's
matter.
"""

from collections.abc import Mapping

from watcher_cputier import model
from watcher_cputier.constraints import capacity

Charge = Mapping[tuple[str, str], int]


class Books:
    """Allocations, held units and group members at one moment of a plan.

    It is one of the two mutable things in planning (the other one is the
    state that keeps arrays of it) and never leaves the planner.
    """

    def __init__(self, cluster: model.Cluster) -> None:
        self._cluster = cluster
        self._used: dict[tuple[str, str], int] = {}
        for host in cluster.hosts:
            for provider in host.providers + host.shared:
                for name, amount in provider.allocated.items():
                    self._used[provider.uuid, name] = amount
        self._held = dict(cluster.held)
        self._domain: dict[tuple[str, str], int] = {}
        for (name, account), units in cluster.held.items():
            known = cluster.host_by_name.get(name)
            if known is not None:
                key = (known.failure_domain, account)
                self._domain[key] = self._domain.get(key, 0) + units
        self._members: dict[tuple[str, str], int] = {}
        for group in cluster.server_groups:
            for uuid in group.members:
                member = cluster.instance_by_uuid.get(uuid)
                if member is not None:
                    self._join(group, member.host, 1)
        # Where migrated instances are, and what they were charged there.
        self._moved: dict[str, tuple[str, Charge]] = {}

    def copy(self) -> "Books":
        """Books of their own that say the same."""
        twin = Books.__new__(Books)
        twin._cluster = self._cluster
        twin._used = dict(self._used)
        twin._held = dict(self._held)
        twin._domain = dict(self._domain)
        twin._members = dict(self._members)
        twin._moved = dict(self._moved)
        return twin

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """Units of a class in use on a provider."""
        return self._used.get((provider_uuid, resource_class), 0)

    def held(self, host: str, account: str) -> int:
        """Units of an account that instances hold on a host."""
        return self._held.get((host, account), 0)

    def domain_units(self, host: model.Host, tier: str | None) -> int:
        """Units of a tier in the failure domain of a host."""
        return self._domain.get((host.failure_domain, tier or ""), 0)

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Members of a server group on a host."""
        return self._members.get((group.uuid, host), 0)

    def location(self, instance: model.Instance) -> str:
        """Name of the host that an instance is on."""
        moved = self._moved.get(instance.uuid)
        return instance.host if moved is None else moved[0]

    def move(self, instance: model.Instance, target: model.Host) -> None:
        """Migrate an instance to a host that has been found to admit it."""
        self._put(
            instance,
            target.name,
            capacity.charge(self, instance.flavor, target),
        )

    def back(
        self, instance: model.Instance, before: tuple[str, Charge] | None
    ) -> None:
        """Undo the last migration of an instance.

        :param before: what :meth:`standing` told before that migration
        """
        if before is None:
            self._put(instance, instance.host, None)
            del self._moved[instance.uuid]
        else:
            self._put(instance, *before)

    def standing(self, instance: model.Instance) -> tuple[str, Charge] | None:
        """Where a migrated instance is, with its charge; None at home."""
        return self._moved.get(instance.uuid)

    def _put(
        self, instance: model.Instance, name: str, charge: Charge | None
    ) -> None:
        source = self.location(instance)
        self._book(instance, source, self._charge(instance), -1)
        if name == instance.host:
            charge = released(self._cluster, instance)
        assert charge is not None  # a target has been admitted
        self._moved[instance.uuid] = (name, charge)
        self._book(instance, name, charge, +1)

    def _charge(self, instance: model.Instance) -> Charge:
        moved = self._moved.get(instance.uuid)
        return released(self._cluster, instance) if moved is None else moved[1]

    def _book(
        self, instance: model.Instance, name: str, charge: Charge, sign: int
    ) -> None:
        for key, amount in charge.items():
            self._used[key] = self._used.get(key, 0) + sign * amount
        cluster = self._cluster
        host = cluster.host_by_name.get(name)
        domain = host.failure_domain if host is not None else None
        # At home it counts with what it holds, elsewhere with what it asks.
        units = (
            dict.fromkeys(cluster.accounts_of(instance), instance.units)
            if name == instance.host
            else capacity.claims(cluster, instance)
        )
        for account, amount in units.items():
            here = (name, account)
            self._held[here] = self._held.get(here, 0) + sign * amount
            if domain is not None:
                there = (domain, account)
                self._domain[there] = (
                    self._domain.get(there, 0) + sign * amount
                )
        group = cluster.group_by_member.get(instance.uuid)
        if group is not None:
            self._join(group, name, sign)

    def _join(self, group: model.ServerGroup, host: str, sign: int) -> None:
        key = (group.uuid, host)
        self._members[key] = self._members.get(key, 0) + sign


def released(cluster: model.Cluster, instance: model.Instance) -> Charge:
    """What the host of an instance is rid of when it has left.

    Placement's word where its allocations were read, else what its flavor
    asks for, of the one provider that has the class. Where several have it,
    it cannot be told which is relieved, and nothing is counted on.
    """
    if instance.allocations:
        return {
            (uuid, name): amount
            for uuid, amounts in instance.allocations.items()
            for name, amount in amounts.items()
        }
    host = cluster.host_by_name.get(instance.host)
    if host is None:
        return {}
    found = {}
    for name, amount in instance.flavor.resources.items():
        having = [
            provider.uuid
            for provider in host.providers
            if name in provider.inventories
        ]
        if len(having) == 1:
            found[having[0], name] = amount
    return found
