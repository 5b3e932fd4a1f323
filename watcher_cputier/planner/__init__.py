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

"""Which instances move where so that hosts keep their quotas again.

Theory of operation. For every host and tier over quota the planner picks
instances until what they hold covers the excess:

* While no single instance covers what is left, the largest one is taken;
  taking the largest first gives the fewest instances that cover an excess.
* As soon as single instances cover it, the cheapest of them is the last:
  the least memory to copy, then the lowest priority, then the fewest units,
  then the name.
* An instance without a target is passed over and the next best is tried, so
  that a cover whose targets do not exist is never preferred.

All hosts over quota in a tier are served in one sweep, the largest victim
first, for it has the fewest targets. Higher tiers go before lower ones.

A victim goes to the feasible host with the best weight (see
:mod:`~watcher_cputier.weigher`); ties go to the lower tier utilisation, then
to the failure domain with the fewest units of the tier (R83), then to the
host's name. The target's room shrinks with every arrival while no
source is credited with a departure: each migration holds its allocation on
both sides until it has ended, so the plan is safe in every order, with any
two of its migrations in flight together, and whichever of them fail.

The published lower bound is the cover bound: the fewest instances of each
host and tier whose units make up the excess that the plan removes there. An
instance belongs to one host and tier, so the sum over tiers is valid. In
single-class mode it also counts against the class of all tiers, so that of
the two covers of a host, by tier and by class, the larger one counts.

``max_migrations`` keeps the most valuable moves: higher tiers first, then
the most relief per migration. The rest is deferred to the next audit.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import weigher
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import values

Migration = values.Migration
Plan = values.Plan
Refusal = values.Refusal
Unresolved = values.Unresolved


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
    refusals: list[Refusal]

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


def plan(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    extensions: constraints.Extensions | None = None,
) -> Plan:
    """Plan the migrations that bring hosts back to their quotas.

    :param extensions: further rules and rankers that the operator switched
        on
    :returns: a plan; empty where no host is over quota
    """
    search = _Search(
        cluster=cluster,
        diagnosis=diagnosis,
        params=params,
        ledger=Ledger(cluster),
        extensions=extensions or constraints.Extensions(),
    )
    found: list[Migration] = []
    unresolved: list[Unresolved] = []
    before = {(e.host, e.tier): e.units for e in diagnosis.excesses}
    after = dict(before)
    for account in cluster.accounts:
        work = [
            _open(cluster, excess, found)
            for excess in diagnosis.excesses
            if excess.tier == account
        ]
        found += _sweep(search, work)
        unresolved += [
            _unresolved(cluster, item) for item in work if item.left > 0
        ]
    found.sort(key=lambda m: _value(cluster, m))
    limit = params.max_migrations or len(found)
    kept, deferred = found[:limit], found[limit:]
    for migration in kept:
        for account in cluster.accounts_of(migration.instance):
            key = (migration.source, account)
            if key in after:
                after[key] -= migration.units
    after = {key: max(0, units) for key, units in after.items()}
    return Plan(
        migrations=tuple(kept),
        deferred=tuple(deferred),
        unresolved=tuple(unresolved),
        lower_bound=_cover_bound(cluster, before, after),
        excess_before=model.frozen_map(before),
        excess_after=model.frozen_map(after),
    )


def _open(
    cluster: model.Cluster,
    excess: diagnosing.Excess,
    leaving: Iterable[Migration],
) -> _Open:
    """Start on an excess, less what leaves the host for another account."""
    left = excess.units
    gone = set()
    for migration in leaving:
        if excess.tier in cluster.accounts_of(migration.instance):
            gone.add(migration.instance.uuid)
            if migration.source == excess.host:
                left -= migration.units
    candidates, refusals = [], []
    for instance in _holders(cluster, excess.host, excess.tier):
        if instance.uuid in gone:
            continue
        rejection = constraints.reject_instance(cluster, instance)
        if rejection is None:
            candidates.append(instance)
        else:
            refusals.append(
                Refusal(
                    instance=instance,
                    rejection=rejection,
                    targets=model.frozen_map(),
                )
            )
    return _Open(
        excess=excess,
        left=left,
        candidates=candidates,
        refusals=refusals,
    )


def _holders(
    cluster: model.Cluster, host: str, account: str
) -> list[model.Instance]:
    """Instances that hold units of an account on a host."""
    return [
        instance
        for instance in cluster.instances_by_host.get(host, ())
        if account in cluster.accounts_of(instance) and instance.units > 0
    ]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Search:
    """What one run of the planner works with."""

    cluster: model.Cluster
    diagnosis: diagnosing.Diagnosis
    params: parameters.Parameters
    ledger: Ledger
    extensions: constraints.Extensions

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


def _sweep(search: _Search, work: list[_Open]) -> Iterable[Migration]:
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
        best, rejections = _best_target(search, victim)
        if best is None:
            item.refusals.append(
                Refusal(
                    instance=victim,
                    rejection=None,
                    targets=model.frozen_map(rejections),
                )
            )
            continue
        target, weight = best
        search.ledger.arrive(search.cluster, victim, target)
        yield Migration(
            instance=victim,
            source=item.excess.host,
            target=target.name,
            tier=item.excess.tier,
            units=victim.units,
            relief=min(victim.units, item.left),
            excess=item.excess,
            drained=search.diagnosis.drained.get(item.excess.host, ""),
            weight=weight,
        )
        item.left -= victim.units


def _best_target(
    search: _Search, instance: model.Instance
) -> tuple[
    tuple[model.Host, weigher.Weight] | None,
    dict[str, constraints.Rejection],
]:
    """The best weighed feasible host, and why the others are not."""
    rejections: dict[str, constraints.Rejection] = {}
    ranked = []
    for host in search.cluster.hosts:
        move = search.proposal(instance, host)
        rejection = constraints.reject_target(move, search.extensions)
        if rejection is not None:
            rejections[host.name] = rejection
            continue
        weight = _weigh(search.params, search.ledger, instance, host)
        extra = sum(
            ranker(move) for ranker in search.extensions.rankers.values()
        )
        # Rounded, so that the order of a sum does not decide a tie.
        rank = (
            -round(weight.value + extra, 9),
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
        ranked.append((rank, host, weight))
    if not ranked:
        return None, rejections
    _, host, weight = min(ranked, key=lambda item: item[0])
    return (host, weight), rejections


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


def _value(cluster: model.Cluster, migration: Migration) -> tuple[object, ...]:
    """Sort key: the most valuable migration first (law L6)."""
    return (
        cluster.accounts.index(migration.tier),
        -migration.relief,
        migration.source,
        *migration.instance.sort_key,
    )


def _unresolved(cluster: model.Cluster, item: _Open) -> Unresolved:
    stay = [refusal.instance for refusal in item.refusals]
    return Unresolved(
        host=item.excess.host,
        tier=item.excess.tier,
        units=item.left,
        instances=cover_count((i.units for i in stay), item.left),
        refusals=tuple(
            sorted(item.refusals, key=lambda r: r.instance.sort_key)
        ),
    )


def _cover_bound(
    cluster: model.Cluster,
    before: Mapping[tuple[str, str], int],
    after: Mapping[tuple[str, str], int],
) -> int:
    by_host: dict[str, tuple[int, int]] = {}
    for (host, account), units in before.items():
        sizes = (i.units for i in _holders(cluster, host, account))
        count = cover_count(sizes, units - after[host, account])
        tiers, pool = by_host.get(host, (0, 0))
        by_host[host] = (
            (tiers, count)
            if account == cluster.shares_class
            else (tiers + count, pool)
        )
    return sum(max(tiers, pool) for tiers, pool in by_host.values())


def cover_count(sizes: Iterable[int], units: int) -> int:
    """The fewest of these sizes whose sum reaches so many units.

    All of them where even their sum does not.
    """
    count = 0
    for size in sorted(sizes, reverse=True):
        if units <= 0:
            break
        units -= size
        count += 1
    return count


def excess_units(
    excess: Mapping[tuple[str, str], int], tiers: Iterable[str]
) -> int:
    """Units over quota, each counted once."""
    names = set(tiers)
    by_host: dict[str, tuple[int, int]] = {}
    for (host, account), units in excess.items():
        own, pool = by_host.get(host, (0, 0))
        by_host[host] = (
            (own + units, pool) if account in names else (own, pool + units)
        )
    return sum(max(pair) for pair in by_host.values())
