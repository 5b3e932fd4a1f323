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

"""Cover and weigher: a greedy that plans direct moves alone.

For every host and tier over quota it picks instances until what they hold
covers the excess, the largest first and the cheapest last, and sends each to
the feasible host with the best weight. No source is credited with a departure:
the plan is safe in any order, and whatever needs a chain, an exchange or a hop
stays as it is. It asks our own constraints and our own weigher, so what it
does worse it does worse by search alone.

The first planner of this project; kept as a peer of those that came later.
"""

from collections.abc import Iterable
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import weigher
from watcher_cputier.constraints import capacity

Move = tuple[str, str]


class Ledger:
    """What is taken while the plan grows; nothing is ever given back.

    It is the one mutable thing in planning and never leaves this module.
    """

    def __init__(self, cluster: model.Cluster) -> None:
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
                    self._join(group, member.host)

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """Units of a class in use on a provider, arrivals included."""
        return self._used.get((provider_uuid, resource_class), 0)

    def held(self, host: str, account: str) -> int:
        """Units of an account on a host, arrivals included."""
        return self._held.get((host, account), 0)

    def domain_units(self, host: model.Host, tier: str | None) -> int:
        """Units of a tier in the failure domain of a host."""
        return self._domain.get((host.failure_domain, tier or ""), 0)

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Members of a server group on a host, arrivals included."""
        return self._members.get((group.uuid, host), 0)

    def arrive(
        self,
        cluster: model.Cluster,
        instance: model.Instance,
        target: model.Host,
    ) -> None:
        """Book an instance on its target; it stays booked on its source."""
        charge = capacity.charge(self, instance.flavor, target)
        assert charge is not None  # a target has been admitted
        for key, amount in charge.items():
            self._used[key] = self._used.get(key, 0) + amount
        for account, asked in capacity.claims(cluster, instance).items():
            here = (target.name, account)
            self._held[here] = self._held.get(here, 0) + asked
            there = (target.failure_domain, account)
            self._domain[there] = self._domain.get(there, 0) + asked
        group = cluster.group_by_member.get(instance.uuid)
        if group is not None:
            self._join(group, target.name)

    def _join(self, group: model.ServerGroup, host: str) -> None:
        key = (group.uuid, host)
        self._members[key] = self._members.get(key, 0) + 1


@dataclasses.dataclass(slots=True)
class _Open:
    """An excess that is being worked on."""

    excess: diagnosing.Excess
    left: int
    candidates: list[model.Instance]

    def next_victim(self) -> model.Instance | None:
        """The instance to try now; see the module's first paragraph."""
        if self.left <= 0 or not self.candidates:
            return None
        covering = [c for c in self.candidates if c.units >= self.left]
        if covering:
            return min(covering, key=_last_cost)
        return min(self.candidates, key=_largest_first)


def _last_cost(instance: model.Instance) -> tuple[object, ...]:
    return (
        instance.flavor.memory_mb,
        instance.priority,
        instance.units,
        *instance.sort_key,
    )


def _largest_first(instance: model.Instance) -> tuple[object, ...]:
    return (
        -instance.units,
        instance.flavor.memory_mb,
        instance.priority,
        *instance.sort_key,
    )


def moves(cluster: model.Cluster) -> list[Move]:
    """(instance uuid, target) of each migration, in a serial order."""
    params = parameters.Parameters.of({"max_migrations": 0})
    diagnosis = diagnosing.diagnose(cluster, params)
    search = _Search(
        cluster=cluster,
        diagnosis=diagnosis,
        params=params,
        ledger=Ledger(cluster),
    )
    found: list[Move] = []
    for tier in cluster.tiers:
        work = [
            _open(cluster, excess)
            for excess in diagnosis.excesses
            if excess.tier == tier.name
        ]
        found += _sweep(search, work)
    return found


def _open(cluster: model.Cluster, excess: diagnosing.Excess) -> _Open:
    return _Open(
        excess=excess,
        left=excess.units,
        candidates=[
            instance
            for instance in cluster.instances_by_host.get(excess.host, ())
            if instance.tier == excess.tier
            and constraints.reject_instance(cluster, instance) is None
        ],
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What one run of the planner works with."""

    cluster: model.Cluster
    diagnosis: diagnosing.Diagnosis
    params: parameters.Parameters
    ledger: Ledger

    def proposal(
        self, instance: model.Instance, target: model.Host
    ) -> constraints.Proposal:
        """One instance to one host, in the present state of the plan."""
        return constraints.Proposal(
            cluster=self.cluster,
            diagnosis=self.diagnosis,
            occupancy=self.ledger,
            instance=instance,
            target=target,
        )


def _sweep(search: _Search, work: list[_Open]) -> Iterable[Move]:
    """Serve all hosts over quota in one tier, the largest victim first."""
    while True:
        choices = [
            (-victim.units, item.excess.host, item, victim)
            for item in work
            if (victim := item.next_victim()) is not None
        ]
        if not choices:
            return
        _, _, item, victim = min(choices, key=lambda choice: choice[:2])
        item.candidates.remove(victim)
        target = _best_target(search, victim)
        if target is None:
            continue
        search.ledger.arrive(search.cluster, victim, target)
        item.left -= victim.units
        yield victim.uuid, target.name


def _best_target(
    search: _Search, instance: model.Instance
) -> model.Host | None:
    """The best weighed feasible host."""
    ranked = []
    for host in search.cluster.hosts:
        move = search.proposal(instance, host)
        if constraints.reject_target(move) is not None:
            continue
        weight = _weigh(search.params, search.ledger, instance, host)
        rank = (
            -round(weight.value, 9),
            _utilisation(
                search.cluster,
                search.diagnosis,
                search.ledger,
                instance,
                host,
            ),
            search.ledger.domain_units(host, instance.tier),
            host.name,
        )
        ranked.append((rank, host))
    if not ranked:
        return None
    return min(ranked, key=lambda item: item[0])[1]


def _weigh(
    params: parameters.Parameters,
    ledger: Ledger,
    instance: model.Instance,
    host: model.Host,
) -> weigher.Weight:
    free: dict[str, int] = {}
    for provider in host.providers:
        for name, inventory in provider.inventories.items():
            units = inventory.capacity - ledger.used(provider.uuid, name)
            free[name] = free.get(name, 0) + units
    flavor = instance.flavor
    return weigher.score(
        free,
        host.traits,
        flavor.resources,
        flavor.required_traits,
        resource_classes=_allowed(
            params.weigher_resource_classes, flavor.resources
        ),
        trait_names=_allowed(params.weigher_traits, flavor.required_traits),
        multiplier=params.weigher_multiplier,
    )


def _allowed(
    choice: str | tuple[str, ...], requested: Iterable[str]
) -> tuple[str, ...] | None:
    """The weigher's allow-list that a parameter stands for."""
    if choice == "all":
        return None
    return tuple(requested) if choice == "requested" else tuple(choice)


def _utilisation(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    ledger: Ledger,
    instance: model.Instance,
    host: model.Host,
) -> float:
    """The largest share of a quota that is taken on a host."""
    shares = [
        ledger.held(host.name, account) / quota if quota else 1.0
        for account in cluster.accounts_of(instance)
        if (quota := diagnosis.quota(host.name, account)) is not None
    ]
    return round(max(shares, default=0.0), 9)
