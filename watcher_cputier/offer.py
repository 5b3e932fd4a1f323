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

"""What a cloud has left to offer: headroom of tiers, flavors that still fit.

Numbers for people and monitoring; no decision of an audit is made here.

* **Standing** of a host in a tier: what is held, what may be held, and the
  room between the two. It is *over* its quota, *near* it from
  :data:`NEAR_FRACTION` of it on, or *ok*. A drained host that is empty of
  the tier is *drained*; a quota that nobody knows is *unknown*, and neither
  full nor empty.
* **Headroom** of a tier is the sum over the hosts that could take a guest
  now: enabled, up and in scope.
* What hosts could **carry** is told by telemetry and not by quotas: units
  that would still run at their floor on CPUs that nobody wants.
* **Fit** of a flavor is how many more instances of it the cloud would take,
  as Ganeti's hspace counts them: each host is filled with copies of that one
  flavor until a class of its providers, a quota, or a rule says no. Flavors
  compete, so the numbers of two of them do not add up.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import math

from watcher_cputier import accounting
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.constraints import capacity

#: From this fraction of its quota on a host is near it.
NEAR_FRACTION = 0.9

OVER = "over"
NEAR = "near"
OK = "ok"
DRAINED = "drained"
UNKNOWN = "unknown"
STATES = (OVER, NEAR, OK, DRAINED, UNKNOWN)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One host and one account: a tier, or the class of all tiers.

    :param held: units that instances hold there
    :param quota: units that they may hold; None where that is unknown, or
        where there is no quota
    :param limited: whether there is a quota, known or not
    :param serving: whether the host could take a guest now
    """

    host: str
    account: str
    held: int
    quota: int | None
    limited: bool = True
    drained: bool = False
    serving: bool = True

    @property
    def headroom(self) -> int | None:
        """Units that are left; None where nobody knows."""
        return None if self.quota is None else max(0, self.quota - self.held)

    @property
    def excess(self) -> int:
        """Units above the quota; 0 where that is unknown."""
        return 0 if self.quota is None else max(0, self.held - self.quota)

    @property
    def state(self) -> str:
        """One of over, near, ok, drained and unknown."""
        if self.quota is None:
            return UNKNOWN if self.limited else OK
        if self.held > self.quota:
            return OVER
        if self.drained:
            return DRAINED
        near = self.held >= NEAR_FRACTION * self.quota
        return NEAR if self.quota and near else OK


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """How often a flavor still fits.

    :param count: further instances of it that the hosts could take
    :param hosts: {host: instances}, of hosts that could take any
    """

    flavor: model.Flavor
    count: int
    hosts: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One account over all hosts.

    :param capacity: sum of the known quotas of the hosts
    :param allocated: units held, those beyond quotas included
    :param headroom: of hosts that could take a guest now
    :param excess: units over quota
    :param over: hosts over quota
    :param near: hosts that are near it, without those over it
    :param unknown: hosts whose quota nobody knows
    :param largest: the flavor of the most vCPUs, then memory, that still
        fits; None where none does or none is known
    """

    account: str
    hosts: int
    capacity: int
    allocated: int
    headroom: int
    excess: int
    over: int
    near: int
    unknown: int
    largest: Fit | None
    fits: tuple[Fit, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """How the CPUs of one host are shared between its tiers.

    None stands for what is not known. CPUs are those of the host.

    :param account: a tier; empty for instances of no tier
    :param floor: the promised speed of one vCPU, in CPUs
    :param promised_cpus: what the tier gets when everything that may be sold
        there is sold and busy
    :param promised_percent: the same in percent of the host
    :param loaded_cpus: what it would get if all instances that are there now
        were busy at once
    :param loaded_percent: the same in percent of the host
    :param used_cpus: what it used, the mean over all windows of telemetry
    :param borrowed_cpus: what of that is above its promise, which others
        left idle
    :param from_higher_cpus: what of that is above all that may be sold of
        the tier, and which higher tiers left idle of theirs (R20)
    """

    account: str
    floor: float | None = None
    promised_cpus: float | None = None
    promised_percent: float | None = None
    loaded_cpus: float | None = None
    loaded_percent: float | None = None
    used_cpus: float | None = None
    borrowed_cpus: float | None = None
    from_higher_cpus: float | None = None


def standings(
    cluster: model.Cluster, diagnosis: diagnosing.Diagnosis
) -> tuple[Standing, ...]:
    """Every host in scope in every account, by host, then account."""
    found = []
    for host in cluster.hosts:
        if not host.in_scope:
            continue
        for account in cluster.accounts:
            quota = diagnosis.quotas[host.name, account]
            found.append(
                Standing(
                    host=host.name,
                    account=account,
                    held=cluster.held.get((host.name, account), 0),
                    quota=quota.units,
                    limited=not quota.unlimited,
                    drained=host.name in diagnosis.drained,
                    serving=host.enabled and host.up,
                )
            )
    return tuple(found)


def oversubscription(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    host: model.Host,
) -> float | None:
    """VCPUs that may be sold on a host for each of its CPUs (R5).

    None where the CPUs or a quota are not known, or where the tiers draw on
    one class and so have no number of vCPUs.
    """
    cpus = host.shared_cpus
    if not cpus or cluster.shares_class is not None:
        return None
    sold = 0
    for tier in cluster.tiers:
        quota = diagnosis.quota(host.name, tier.name)
        if quota is None:
            return None
        sold += quota
    return sold / cpus


def splits(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    host: model.Host,
) -> tuple[Split, ...]:
    """How a host's CPUs are shared, by tier; instances of none come last.

    R3, R20 and R42: the promise in CPUs and for people in percent, and what
    became of it.
    """
    here = cluster.instances_by_host.get(host.name, ())
    names: list[str] = [tier.name for tier in cluster.tiers]
    if any(instance.tier not in names for instance in here):
        names.append("")
    floors = entitlement.floors(cluster, diagnosis)
    loaded = _loaded(cluster, host, here)
    used = _used(cluster, here)
    found = []
    for name in names:
        floor = floors.get((host.name, name))
        quota = diagnosis.quota(host.name, name)
        promised = None
        if (
            floor is not None
            and quota is not None
            and not cluster.shares_class
        ):
            promised = floor * quota
        busy = None if loaded is None else loaded.get(name, 0.0)
        usage = None if used is None else used.get(name, 0.0)
        borrowed = None
        if usage is not None and floor is not None:
            sold = floor * sum(
                i.flavor.vcpus for i in here if (i.tier or "") == name
            )
            borrowed = max(0.0, usage - sold)
        found.append(
            Split(
                account=name,
                floor=floor,
                promised_cpus=promised,
                promised_percent=_percent(promised, host),
                loaded_cpus=busy,
                loaded_percent=_percent(busy, host),
                used_cpus=usage,
                borrowed_cpus=borrowed,
            )
        )
    return _with_higher(found)


def _with_higher(found: list[Split]) -> tuple[Split, ...]:
    """With what each tier used of the promises that higher ones left idle.

    The higher of two borrowers takes first; an idle CPU is lent once.
    """
    told = []
    idle = 0.0
    known = True
    for one in found:
        known = known and None not in (one.used_cpus, one.promised_cpus)
        if not known:
            told.append(one)
            continue
        spare = (one.promised_cpus or 0.0) - (one.used_cpus or 0.0)
        taken = min(idle, max(0.0, -spare))
        idle += max(0.0, spare) - taken
        told.append(dataclasses.replace(one, from_higher_cpus=taken))
    return tuple(told)


def _percent(cpus: float | None, host: model.Host) -> float | None:
    total = host.shared_cpus
    return None if cpus is None or not total else cpus / total * 100


def _loaded(
    cluster: model.Cluster,
    host: model.Host,
    here: tuple[model.Instance, ...],
) -> dict[str, float] | None:
    """CPUs by tier if every instance on a host were busy at once."""
    cpus = host.shared_cpus
    if not cpus:
        return None
    running = [one for one in here if one.status == "ACTIVE"]
    shares = entitlement.fill(
        [
            entitlement.weight(one.flavor, cluster.shares_rule)
            for one in running
        ],
        [entitlement.limit_cpus(one.flavor) for one in running],
        [0] * len(running),
        [cpus],
    )
    found: dict[str, float] = {}
    for one, share in zip(running, shares, strict=True):
        tier = one.tier or ""
        found[tier] = found.get(tier, 0.0) + float(share)
    return found


def _used(
    cluster: model.Cluster, here: tuple[model.Instance, ...]
) -> dict[str, float] | None:
    """CPUs used by tier; None where one of the instances was not measured."""
    if cluster.telemetry is None:
        return None
    found: dict[str, float] = {}
    for one in here:
        readings = cluster.telemetry.readings.get(one.uuid, ())
        usages = [r.usage_cpus for r in readings if r is not None]
        if not usages:
            if one.status != "ACTIVE":
                continue
            return None
        tier = one.tier or ""
        found[tier] = found.get(tier, 0.0) + sum(usages) / len(usages)
    return found


def offers(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    flavors: Iterable[model.Flavor] = (),
) -> tuple[Offer, ...]:
    """Every account over all hosts, in the order of the accounts.

    :param flavors: those that the cloud sells; a flavor counts for the
        accounts that it claims units of
    """
    by_account: dict[str, list[Standing]] = {a: [] for a in cluster.accounts}
    for one in standings(cluster, diagnosis):
        by_account[one.account].append(one)
    fitting: dict[str, list[Fit]] = {a: [] for a in cluster.accounts}
    for flavor in sorted(flavors, key=lambda f: f.name):
        accounts = capacity.claims(cluster, newcomer(cluster, flavor))
        if not accounts:
            continue
        found = fit(cluster, diagnosis, flavor)
        for account in accounts:
            fitting[account].append(found)
    return tuple(
        _offer(account, by_account[account], fitting[account])
        for account in cluster.accounts
    )


def carriable(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
) -> Mapping[str, int]:
    """Units of each tier that hosts could carry with what is idle there (R94).

    A host has so many CPUs to spare as its guests did not want in the window
    in which they wanted most; each unit takes the floor of its tier. It is
    advice for larger quotas: nothing is changed, and what is idle now may
    wake. Hosts that serve nobody, and those where somebody was not measured,
    are left out.

    :returns: {tier: units}; empty where no host is known
    """
    floors = entitlement.floors(cluster, diagnosis)
    found: dict[str, int] = {}
    for host in cluster.hosts:
        cpus = host.shared_cpus
        if not (cpus and host.in_scope and host.enabled and host.up):
            continue
        if host.name in diagnosis.drained:
            continue
        wanted = [
            lending.wanted_cpus(cluster, instance, params)
            for instance in cluster.instances_by_host.get(host.name, ())
        ]
        known = [one for one in wanted if one is not None]
        if cluster.telemetry is None or len(known) < len(wanted):
            continue
        most = max(map(math.fsum, zip(*known, strict=True)), default=0.0)
        for tier in cluster.tiers:
            floor = floors.get((host.name, tier.name))
            if floor:
                units = int(max(0.0, cpus - most) / floor)
                found[tier.name] = found.get(tier.name, 0) + units
    return model.frozen_map(found)


def _offer(account: str, found: list[Standing], fits: list[Fit]) -> Offer:
    states = [one.state for one in found]
    return Offer(
        account=account,
        hosts=len(found),
        capacity=sum(one.quota or 0 for one in found),
        allocated=sum(one.held for one in found),
        headroom=sum(one.headroom or 0 for one in found if one.serving),
        excess=sum(one.excess for one in found),
        over=states.count(OVER),
        near=states.count(NEAR),
        unknown=states.count(UNKNOWN),
        largest=max(
            (one for one in fits if one.count),
            # Of two of the same size the first by name.
            key=lambda one: (one.flavor.vcpus, one.flavor.memory_mb),
            default=None,
        ),
        fits=tuple(fits),
    )


def newcomer(cluster: model.Cluster, flavor: model.Flavor) -> model.Instance:
    """An instance of a flavor that is nowhere yet."""
    tier = tier_of(cluster, flavor)
    asked = flavor.resources
    units = 0
    if cluster.shares_class is not None:
        units = asked.get(cluster.shares_class, 0)
    elif tier is not None:
        name = cluster.tier_by_name[tier].resource_class
        units = asked.get(name, flavor.vcpus)
    return model.Instance(
        uuid="",
        name=flavor.name,
        host="",
        flavor=flavor,
        tier=tier,
        units=units,
    )


def tier_of(cluster: model.Cluster, flavor: model.Flavor) -> str | None:
    """The tier that instances of a flavor are counted with, if any."""
    counting = accounting_of(cluster)
    claim = counting.asked(flavor)
    if claim is not None:
        return claim.tier
    if cluster.tier_classes:
        return None
    return accounting.by_shares(cluster.tiers, flavor)


def accounting_of(cluster: model.Cluster) -> accounting.Accounting:
    """How this cluster counts tiers."""
    if cluster.shares_class is not None:
        return accounting.SingleClass(cluster.tiers, cluster.shares_class)
    return accounting.ClassPerTier(cluster.tiers)


def fit(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    flavor: model.Flavor,
) -> Fit:
    """How many more instances of a flavor the hosts would take."""
    candidate = newcomer(cluster, flavor)
    claims = capacity.claims(cluster, candidate)
    taken = planner.Books(cluster)
    found = {}
    for host in cluster.hosts:
        move = constraints.Proposal(
            cluster=cluster,
            diagnosis=diagnosis,
            occupancy=taken,
            instance=candidate,
            target=host,
        )
        if constraints.reject_target(move) is not None:
            continue
        count = _copies(taken, flavor, host)
        for account, units in claims.items():
            quota = diagnosis.quotas[host.name, account]
            if quota.units is not None and units:
                room = quota.units - taken.held(host.name, account)
                count = min(count, room // units)
        if count > 0:
            found[host.name] = count
    return Fit(
        flavor=flavor,
        count=sum(found.values()),
        hosts=model.frozen_map(found),
    )


def _copies(
    taken: planner.Books, flavor: model.Flavor, host: model.Host
) -> int:
    """Copies of a flavor that a host's providers would serve.

    Where there is one group and one provider each class allows so many of
    its own; else copies are put there one by one.
    """
    if len(flavor.groups) == len(host.providers) == 1:
        provider = host.providers[0]
        return min(
            (
                (
                    provider.inventories[name].capacity
                    - taken.used(provider.uuid, name)
                )
                // amount
                for name, amount in flavor.resources.items()
            ),
            default=0,
        )
    more = _More(taken)
    count = 0
    while flavor.resources:
        charged = capacity.charge(more, flavor, host)
        if charged is None:
            break
        more.add(charged)
        count += 1
    return count


class _More:
    """Books with copies of a flavor added to them."""

    def __init__(self, taken: planner.Books) -> None:
        self._taken = taken
        self._added: dict[tuple[str, str], int] = {}

    def add(self, charged: capacity.Charge) -> None:
        for key, amount in charged.items():
            self._added[key] = self._added.get(key, 0) + amount

    def used(self, provider_uuid: str, resource_class: str) -> int:
        return self._taken.used(
            provider_uuid, resource_class
        ) + self._added.get((provider_uuid, resource_class), 0)

    def held(self, host: str, tier: str) -> int:
        return self._taken.held(host, tier)

    def members(self, group: model.ServerGroup, host: str) -> int:
        return self._taken.members(group, host)
