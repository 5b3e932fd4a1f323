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

"""Evening out the tiers over the hosts: quotas first, then even shares.

Theory of operation. A host that holds much more of a tier than others do
takes much of the tier with it when it fails (R81, R83), and where instances
were deleted a tier lies unevenly although every quota is kept (R96). Mixing
(R84: only where the audit asks for it) gives every host a *soft quota* of
each tier, an even share with a tolerance, and runs the planner once more,
with soft quotas for quotas, on the cluster as the migrations for quotas leave
it. Moves, and swaps where hosts are full (R82), are thus those of the
planner, found and proven as any others.

The even share of a host follows from its quota, so that unequal hosts come
to equal utilisation (R101)::

    soft(h, t) = min(quota(h, t),
                     max(ceil((1 + tolerance) x quota(h, t) x
                              held(t) / quota(t)),
                         granule(t)))

held(t) and quota(t) are summed over the hosts that take part: in scope, in
service, not drained, with a quota of the tier. In single-class mode, where a
tier has no quota of its own but by policy, the quota of all tiers stands for
it.

The granule is the usual size of an instance: half of the tier's units are in
instances of at most this size. Without it four instances of 16 units on one
of eight hosts would stay there, for the mean is 8 and no host could take one.

A soft quota is never above the quota, so that no quota is broken on the way.
Nobody moves whom the migrations for quotas or starvation have moved, or who
cools down from an earlier move, and where those were cut by
``max_migrations`` or by the time, mixing waits.

Moving units does not change even shares. A plan that brings all hosts below
theirs is therefore followed by an empty one; where it cannot, each further
plan leaves fewer units above them, so that audits end.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import math

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import books as bookkeeping
from watcher_cputier.planner import certificate
from watcher_cputier.planner import cooldown
from watcher_cputier.planner import planning
from watcher_cputier.planner import prices
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import values

# Spreads are told, and compared, to this many decimals.
_DECIMALS = 6
SETTLED = "moved by the migrations for quotas"

Bases = Mapping[str, Mapping[str, int]]
"""{tier: {host: units that its share is in proportion to}}"""


def added(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    found: values.Plan,
    extensions: constraints.Extensions | None = None,
    expired: Callable[[], bool] = prices.never,
) -> values.Plan:
    """A plan with migrations that even out the tiers added to it.

    Who has moved recently, in this plan or before it, stays.

    :param found: the plan for what comes before mixing
    :param extensions: further rules and rankers that the operator switched
        on
    :param expired: whether the time for searching is over; the best safe
        plan so far is returned then, and says so
    """
    start = cooldown.kept(
        after(cluster, found.migrations, settled=SETTLED), params
    )
    bases = _bases(cluster, diagnosis)
    spread = _spreads(start, bases)
    shares = _shares(start, diagnosis, params, bases)
    verdict = _evened(start, diagnosis, shares)
    mixing = values.Mixing(
        units_before=_above(start, shares),
        units_after=_above(start, shares),
        before=spread,
        after=spread,
    )
    left = params.max_migrations - len(found.migrations)
    if found.deferred or found.cut or (params.max_migrations and left <= 0):
        return dataclasses.replace(
            found, mixing=dataclasses.replace(mixing, waits=True)
        )
    if not mixing.units_before:
        return dataclasses.replace(found, mixing=mixing)
    problem = problems.Problem(
        start,
        verdict,
        dataclasses.replace(
            params, max_migrations=left if params.max_migrations else 0
        ),
        extensions or constraints.Extensions(),
    )
    made = planning.Planning(problem, expired).plan()
    end = after(start, made.migrations)
    return _joined(
        found,
        made,
        end,
        diagnosis,
        dataclasses.replace(
            mixing,
            migrations=len(made.migrations),
            deferred=len(made.deferred),
            lower_bound=made.lower_bound,
            units_after=_above(end, shares),
            after=_spreads(end, bases),
        ),
    )


def account(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    plan: values.Plan,
) -> values.Mixing:
    """What mixing takes and brings in a plan some of which was left out.

    :param plan: one that mixes; what was left out of it is deferred
    """
    assert plan.mixing is not None
    first = [m for m in plan.migrations if m.concern != values.MIXING]
    start = after(cluster, first)
    end = after(cluster, plan.migrations)
    bases = _bases(cluster, diagnosis)
    shares = _shares(start, diagnosis, params, bases)
    migrations = len(plan.migrations) - len(first)
    left_out = plan.mixing.migrations - migrations
    return dataclasses.replace(
        plan.mixing,
        migrations=migrations,
        deferred=plan.mixing.deferred + left_out,
        # Each of them brings one instance to another host.
        lower_bound=max(0, plan.mixing.lower_bound - left_out),
        units_before=_above(start, shares),
        units_after=_above(end, shares),
        before=_spreads(start, bases),
        after=_spreads(end, bases),
    )


def hosts_to_detail(
    cluster: model.Cluster, params: parameters.Parameters
) -> frozenset[str]:
    """Uuids of hosts whose totals or allocations a plan turns on.

    Those of the diagnosis, and, where tiers are mixed, those above their even
    shares.

    :raises TierError: as :func:`~watcher_cputier.diagnosis.diagnose` does
    """
    found = diagnosing.hosts_to_detail(cluster, params)
    if not params.mix_tiers:
        return found
    diagnosis = diagnosing.diagnose(cluster, params)
    shares = _shares(cluster, diagnosis, params, _bases(cluster, diagnosis))
    return found.union(
        cluster.host_by_name[host].uuid
        for (host, tier), units in shares.items()
        if cluster.held.get((host, tier), 0) > units
    )


# Even shares


def _bases(
    cluster: model.Cluster, diagnosis: diagnosing.Diagnosis
) -> dict[str, dict[str, int]]:
    """The hosts that take part, tier by tier."""
    found: dict[str, dict[str, int]] = {}
    for tier in cluster.tiers:
        bases: dict[str, int] = {}
        for host in sorted(cluster.hosts, key=lambda h: h.name):
            if not _takes_part(host, diagnosis):
                continue
            quota = diagnosis.quotas[host.name, tier.name]
            units = quota.units
            if quota.unlimited and cluster.shares_class is not None:
                units = diagnosis.quota(host.name, cluster.shares_class)
            if units:
                bases[host.name] = units
        found[tier.name] = bases
    return found


def _takes_part(host: model.Host, diagnosis: diagnosing.Diagnosis) -> bool:
    return (
        host.in_scope
        and host.enabled
        and host.up
        and host.name not in diagnosis.drained
    )


def _shares(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    bases: Bases,
) -> dict[tuple[str, str], int]:
    """{(host, tier): the soft quota} of the hosts that take part."""
    # In whole thousandths, so that no rounding decides.
    factor = 1000 + round(params.mixing_tolerance * 1000)
    found = {}
    for tier, hosts in bases.items():
        held = sum(cluster.held.get((host, tier), 0) for host in hosts)
        whole = 1000 * sum(hosts.values())
        granule = _granule(cluster, tier, hosts)
        for host, units in hosts.items():
            fair = -(-held * units * factor // whole)
            found[host, tier] = min(units, max(fair, granule))
    for excess in diagnosis.lent:
        # What is lent stays.
        if (excess.host, excess.tier) in found:
            found[excess.host, excess.tier] = excess.held
    return found


def _granule(cluster: model.Cluster, tier: str, hosts: Iterable[str]) -> int:
    """Half of the units are in instances of at most this size."""
    sizes = sorted(
        instance.units
        for host in hosts
        for instance in cluster.instances_by_host.get(host, ())
        if instance.tier == tier
    )
    half = sum(sizes)
    below = 0
    for size in sizes:
        below += 2 * size
        if below >= half:
            return size
    return 0


def _above(
    cluster: model.Cluster, shares: Mapping[tuple[str, str], int]
) -> int:
    """Units above the even shares of hosts."""
    return sum(
        max(0, cluster.held.get(key, 0) - units)
        for key, units in shares.items()
    )


def _evened(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    shares: Mapping[tuple[str, str], int],
) -> diagnosing.Diagnosis:
    """The diagnosis with soft quotas, and what is above them for excess.

    An excess of a host that takes no part is nothing to be cured here, and
    it lets nothing in.
    """
    quotas = dict(diagnosis.quotas)
    for (host, account), quota in diagnosis.quotas.items():
        units = shares.get((host, account))
        if units is None and quota.units is not None:
            units = quota.units
            if not _takes_part(cluster.host_by_name[host], diagnosis):
                units = max(units, cluster.held.get((host, account), 0))
        if units is not None:
            quotas[host, account] = dataclasses.replace(
                quota, units=units, unlimited=False
            )
    excesses = [
        diagnosing.Excess(
            host=host, tier=account, held=held, quota=quota.units
        )
        for (host, account), quota in quotas.items()
        if quota.units is not None
        and (held := cluster.held.get((host, account), 0)) > quota.units
    ]
    rank = {account: i for i, account in enumerate(cluster.accounts)}
    excesses.sort(key=lambda e: (rank[e.tier], -e.units, e.host))
    return dataclasses.replace(
        diagnosis,
        quotas=model.frozen_map(quotas),
        excesses=tuple(excesses),
    )


def _spreads(
    cluster: model.Cluster, bases: Bases
) -> Mapping[str, values.Spread]:
    """How each tier lies; tiers that are on one host at most are left out."""
    found = {}
    for tier, hosts in bases.items():
        if len(hosts) < 2:
            continue
        held = [cluster.held.get((host, tier), 0) for host in hosts]
        mean = sum(held) / sum(hosts.values())
        levels = [
            n / units for n, units in zip(held, hosts.values(), strict=True)
        ]
        middle = math.fsum(levels) / len(levels)
        variance = math.fsum((x - middle) ** 2 for x in levels) / len(levels)
        found[tier] = values.Spread(
            mean=round(mean, _DECIMALS),
            deviation=round(math.sqrt(variance), _DECIMALS),
            lowest=round(min(levels), _DECIMALS),
            highest=round(max(levels), _DECIMALS),
        )
    return model.frozen_map(found)


# The cluster after migrations


def after(
    cluster: model.Cluster,
    migrations: Iterable[values.Migration],
    *,
    settled: str = "",
) -> model.Cluster:
    """The cluster as migrations leave it that are done one by one.

    :param migrations: in an order in which each is admitted
    :param settled: a task state for what has moved, so that it stays; by
        default it may move again
    """
    moves = tuple(migrations)
    if not moves:
        return cluster
    books = bookkeeping.Books(cluster)
    names: set[str] = set()
    for move in moves:
        books.move(move.instance, cluster.host_by_name[move.target])
        names.update((move.source, move.target))
    moved = {}
    for move in moves:
        standing = books.standing(move.instance)
        assert standing is not None  # it has just moved
        moved[move.instance.uuid] = _settled(
            cluster, move.instance, standing, settled
        )
    held = dict(cluster.held)
    for name in sorted(names):
        for account in cluster.accounts:
            units = books.held(name, account)
            if units or (name, account) in held:
                held[name, account] = units
    return dataclasses.replace(
        cluster,
        hosts=tuple(
            _booked(host, books) if host.name in names else host
            for host in cluster.hosts
        ),
        instances=tuple(moved.get(one.uuid, one) for one in cluster.instances),
        held=model.frozen_map(held),
    )


def _settled(
    cluster: model.Cluster,
    instance: model.Instance,
    standing: tuple[str, bookkeeping.Charge],
    task_state: str,
) -> model.Instance:
    """An instance where it has come to, with what it holds there."""
    name, charge = standing
    allocations: dict[str, dict[str, int]] = {}
    for (uuid, resource_class), amount in charge.items():
        allocations.setdefault(uuid, {})[resource_class] = amount
    units = instance.units
    if name != instance.host:
        claims = capacity.claims(cluster, instance)
        units = claims.get(instance.tier or "", units)
    return dataclasses.replace(
        instance,
        host=name,
        units=units,
        allocations=model.frozen_map(
            {
                uuid: model.frozen_map(amounts)
                for uuid, amounts in allocations.items()
            }
        ),
        task_state=task_state or instance.task_state,
    )


def _booked(host: model.Host, books: bookkeeping.Books) -> model.Host:
    """A host with what is taken on its providers by now."""

    def told(provider: model.Provider) -> model.Provider:
        names = {*provider.allocated, *provider.inventories}
        return dataclasses.replace(
            provider,
            allocated=model.frozen_map(
                {
                    name: units
                    for name in names
                    if (units := books.used(provider.uuid, name))
                    or name in provider.allocated
                }
            ),
        )

    return dataclasses.replace(
        host,
        providers=tuple(told(p) for p in host.providers),
        shared=tuple(told(p) for p in host.shared),
    )


# One plan of two


def _joined(
    found: values.Plan,
    made: values.Plan,
    end: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    mixing: values.Mixing,
) -> values.Plan:
    """The plan for quotas followed by the one for mixing."""
    left = {
        (e.host, e.tier): max(0, end.held.get((e.host, e.tier), 0) - e.quota)
        for e in diagnosis.excesses
    }
    moved = {m.instance.uuid for m in made.migrations}
    return dataclasses.replace(
        found,
        migrations=(*found.migrations, *_for_mixing(made.migrations)),
        deferred=tuple(_for_mixing(made.deferred)),
        unresolved=tuple(
            shortened(item, left[item.host, item.tier], moved)
            for item in found.unresolved
            if left[item.host, item.tier]
        ),
        excess_before=model.frozen_map(
            {(e.host, e.tier): e.units for e in diagnosis.excesses}
        ),
        excess_after=model.frozen_map(left),
        cut=made.cut,
        mixing=mixing,
    )


def _for_mixing(
    migrations: Iterable[values.Migration],
) -> Iterable[values.Migration]:
    return (
        dataclasses.replace(one, concern=values.MIXING) for one in migrations
    )


def shortened(
    item: values.Unresolved, units: int, moved: set[str]
) -> values.Unresolved:
    """What is left of an excess some of which mixing has removed."""
    if units == item.units:
        return item
    refusals = tuple(
        one for one in item.refusals if one.instance.uuid not in moved
    )
    return dataclasses.replace(
        item,
        units=units,
        instances=certificate.cover_count(
            (one.instance.units for one in refusals), units
        ),
        refusals=refusals,
    )
