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

"""What is wrong: hosts that hold more of a tier than their quota.

Rules (contract of the design, section 8):

* Quota(host, tier) = min(Placement capacity of the tier's class on the
  host's tree, policy quota if one is given).
* Where no host of the cloud has a tier's class, its policy quota alone
  holds, percentages are of N, the shared CPUs of the host, and the
  diagnosis says that it enforces without Placement (R72, R140). Without a
  policy quota either, the tier cannot be judged and the audit fails.
* A host without the tier's inventory and without a policy quota has an
  *unknown* quota: no excess, no target, its instances of that tier are
  reported.
* In single-class mode the host's share capacity is the quota of all tiers
  together; a tier has a quota of its own only by policy. Units are shares.
* Drain = quota 0 of all tiers: every tier inventory of the host has
  capacity 0 (``reserved = total``), or the audit names the host, or asks
  for hosts with a disabled service. ``total = 1`` is quota 1.
* Excess(host, tier) = units held there minus quota, where positive. A
  migration in flight holds its source through a consumer of its own and is
  no part of it.

Only hosts in the audit's scope are diagnosed.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many units of a tier a host may hold, and why.

    :param capacity: Placement's, of the class; None without inventory
    :param policy: the audit's quota in units; None if it sets none
    :param units: the quota; None where it is unknown or there is none
    :param unlimited: whether there is none: a tier in single-class mode
        without a policy quota
    """

    host: str
    tier: str
    capacity: int | None
    policy: int | None
    units: int | None
    drained: bool = False
    unlimited: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A host that holds more of a tier than its quota.

    :param tier: the account: a tier, or the class in single-class mode
    :param held: units that instances hold there
    :param quota: units that they may hold
    """

    host: str
    tier: str
    held: int
    quota: int

    @property
    def units(self) -> int:
        """Units over quota, always positive."""
        return self.held - self.quota


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The verdict on every host in scope.

    :param quotas: {(host, account): quota} of every host in scope
    :param excesses: by tier rank, then units (largest first), then host
    :param drained: {host: why}
    :param without_placement: whether policy quotas alone are enforced
    :param findings: what is odd but no excess
    :param lent: excesses that are none for now, because the other tiers of
        their hosts are idle (:mod:`watcher_cputier.lending`); in the same
        order
    """

    quotas: Mapping[tuple[str, str], Quota]
    excesses: tuple[Excess, ...]
    drained: Mapping[str, str]
    without_placement: bool
    findings: tuple[model.Finding, ...]
    lent: tuple[Excess, ...] = ()

    def quota(self, host: str, tier: str) -> int | None:
        """Quota in units; None where unknown or out of scope."""
        found = self.quotas.get((host, tier))
        return None if found is None else found.units


def diagnose(
    cluster: model.Cluster, params: parameters.Parameters
) -> Diagnosis:
    """Find every host over quota and everything that hides one.

    :raises ParameterError: if a parameter names an unknown tier or host
    :raises SnapshotError: if there is no host in scope, if a tier has
        neither an inventory on any host nor a policy quota, or if no host in
        scope has a known quota of any tier
    """
    params.check_names(cluster)
    scoped = [host for host in cluster.hosts if host.in_scope]
    if not scoped:
        _check_cells(cluster)
        raise errors.SnapshotError(
            "no compute host is in the scope of the audit",
            where="compute model",
            cure="Check the audit's scope and that Watcher's compute model "
            "is not empty",
        )
    _check_tiers(cluster, params)
    without = not cluster.tier_classes
    drained = _drained(cluster, scoped, params)
    quotas = {
        (host.name, account): _quota(
            cluster, host, account, params, host.name in drained
        )
        for host in scoped
        for account in cluster.accounts
    }
    _check_judged(cluster, scoped, quotas)
    excesses = [
        Excess(host=host, tier=tier, held=held, quota=quota.units)
        for (host, tier), quota in quotas.items()
        if quota.units is not None
        and (held := cluster.held.get((host, tier), 0)) > quota.units
    ]
    rank = {account: i for i, account in enumerate(cluster.accounts)}
    excesses.sort(key=lambda e: (rank[e.tier], -e.units, e.host))
    return Diagnosis(
        quotas=model.frozen_map(quotas),
        excesses=tuple(excesses),
        drained=model.frozen_map(drained),
        without_placement=without,
        findings=tuple(
            _findings(cluster, scoped, params, quotas, drained, without)
        ),
    )


def hosts_to_detail(
    cluster: model.Cluster, params: parameters.Parameters
) -> frozenset[str]:
    """Uuids of hosts whose totals or allocations a diagnosis turns on.

    Those that must shed, and, where percentages are of the shared CPUs, all
    in scope.

    :raises TierError: as :func:`diagnose` does
    """
    if _needs_totals(cluster, params):
        return frozenset(h.uuid for h in cluster.hosts if h.in_scope)
    found = diagnose(cluster, params)
    shedding = {excess.host for excess in found.excesses}
    return frozenset(h.uuid for h in cluster.hosts if h.name in shedding)


def _needs_totals(
    cluster: model.Cluster, params: parameters.Parameters
) -> bool:
    """Whether some quota is a percentage of a tier without inventories."""
    unplaced = {
        tier.name
        for tier in cluster.tiers
        if tier.resource_class not in cluster.tier_classes
    }
    return any(
        quota.millipercent is not None and tier in unplaced
        for quotas in (params.quotas, *params.quotas_by_host.values())
        for tier, quota in quotas.items()
    )


def _drained(
    cluster: model.Cluster,
    hosts: Iterable[model.Host],
    params: parameters.Parameters,
) -> dict[str, str]:
    found = {}
    for host in hosts:
        capacities = [
            capacity
            for tier in cluster.tiers
            if (capacity := host.capacity(tier.resource_class)) is not None
        ]
        if host.name in params.drain_hosts:
            found[host.name] = "named in drain_hosts"
        elif params.drain_disabled and not host.enabled:
            why = host.disabled_reason or "no reason given"
            found[host.name] = f"its compute service is disabled ({why})"
        elif capacities and not any(capacities):
            found[host.name] = "its tier inventories are wholly reserved"
    return found


def _check_tiers(
    cluster: model.Cluster, params: parameters.Parameters
) -> None:
    """Refuse a tier that has no quota anywhere."""
    missing = [
        tier
        for tier in cluster.tiers
        if tier.resource_class not in cluster.tier_classes
        and not params.names_tier(tier.name)
    ]
    if missing:
        names = ", ".join(f"{t.name} ({t.resource_class})" for t in missing)
        raise errors.SnapshotError(
            f"no host has an inventory of the class of these tiers: {names}",
            where="Placement",
            cure="Let nova-compute report it (provider.yaml), set the audit "
            "parameter quotas for the tier, or take the tier out of "
            "[cputier] tiers",
        )


def _check_cells(cluster: model.Cluster) -> None:
    """Say so where no host is left because Nova's cells are down."""
    down = sorted(
        finding.subject
        for finding in cluster.findings
        if finding.kind == "cell_unreachable"
    )
    if down:
        raise errors.SnapshotError(
            "no host in scope can be judged, Nova's cells do not answer: "
            f"{errors.some(down)}",
            where="Nova",
            cure="Bring the cells' databases and message queues back",
        )


def _check_judged(
    cluster: model.Cluster,
    hosts: Iterable[model.Host],
    quotas: Mapping[tuple[str, str], Quota],
) -> None:
    """Refuse to call a cloud fine of which nothing is known."""
    if any(quota.units is not None for quota in quotas.values()):
        return
    hosts = list(hosts)
    lost = [host.name for host in hosts if not host.providers]
    why = (
        f"these have no resource provider in Placement: {errors.some(lost)}"
        if lost
        else "none has an inventory of a tier's class or a policy quota"
    )
    raise errors.SnapshotError(
        f"none of the {len(hosts)} hosts in scope can be judged, {why}",
        where="Placement",
        cure="Check that their nova-compute services run and report the "
        "tiers' classes (provider.yaml), or set the audit parameter quotas",
    )


def _quota(
    cluster: model.Cluster,
    host: model.Host,
    account: str,
    params: parameters.Parameters,
    drained: bool,
) -> Quota:
    tier = cluster.tier_by_name.get(account)
    name = tier.resource_class if tier else account
    capacity = host.capacity(name)
    # Where the class exists nowhere, a percentage is of the shared CPUs.
    base = capacity if name in cluster.tier_classes else host.shared_cpus
    if tier and cluster.shares_class is not None:
        capacity = None
    asked = params.policy(host.name, account)
    policy = None
    if asked is not None and (asked.units is not None or base is not None):
        policy = asked.of_capacity(base or 0)
    limits = [limit for limit in (capacity, policy) if limit is not None]
    units = min(limits) if limits else None
    if drained:
        units = 0
    return Quota(
        host=host.name,
        tier=account,
        capacity=capacity,
        policy=policy,
        units=units,
        drained=drained,
        unlimited=(
            units is None
            and tier is not None
            and cluster.shares_class is not None
        ),
    )


def _findings(
    cluster: model.Cluster,
    hosts: Iterable[model.Host],
    params: parameters.Parameters,
    quotas: Mapping[tuple[str, str], Quota],
    drained: Mapping[str, str],
    without_placement: bool,
) -> Iterable[model.Finding]:
    if without_placement:
        yield model.Finding(
            kind="without_placement",
            subject="cloud",
            text="No host has an inventory of any tier's class: units are "
            "counted from flavors, policy quotas are enforced without "
            "Placement, and Nova may schedule past them.",
        )
    scoped = {host.name for host in hosts}
    for name in sorted({*params.drain_hosts, *params.quotas_by_host}):
        if name not in scoped:
            yield model.Finding(
                kind="host_out_of_scope",
                subject=name,
                text=f"Host {name} is named in the audit's parameters but "
                "is outside its scope: nothing is done there.",
            )
    for host in hosts:
        here = cluster.instances_by_host.get(host.name, ())
        for account in cluster.accounts:
            quota = quotas[host.name, account]
            if quota.units is not None or quota.unlimited:
                continue
            strays = [
                i.name for i in here if account in cluster.accounts_of(i)
            ]
            tier = cluster.tier_by_name.get(account)
            if strays:
                yield model.Finding(
                    kind="unknown_quota",
                    subject=host.name,
                    text=f"Host {host.name} has no inventory of "
                    f"{tier.resource_class if tier else account} and no "
                    f"policy quota for {account}: its {account} instances "
                    f"({', '.join(strays)}) are not judged. Report the "
                    "class from its provider.yaml, or set quotas_by_host.",
                )
        untiered = [i.name for i in here if not i.units]
        if host.name in drained and untiered:
            yield model.Finding(
                kind="untiered_on_drained_host",
                subject=host.name,
                text=f"Host {host.name} is drained ({drained[host.name]}) "
                "and keeps instances that hold no units of a tier: "
                f"{', '.join(untiered)}. Move them by hand.",
            )
