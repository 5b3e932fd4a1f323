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

"""Starvation: who does not get the share that was sold, and why.

A vCPU of a tier is promised a processor of its own of speed f0, the floor of
:mod:`~watcher_cputier.entitlement`. While it was runnable for u + s of the
time it should have run for f0 (u + s), so that per vCPU::

    deficit = f0 (u + s) - u
    starved = deficit > max(.02, .10 f0)     in all windows

It compares the speed while it wants to run with the one that was promised,
and never the share of the host: one silver vCPU beside 112 busy gold ones
gets .58 % of a host with 112 CPUs, which is .65 of a CPU and twice its
promise (R85, R88). The naive test, usage below min(demand, floor), calls one
in six satisfied instances starved; this one calls one in a hundred so in
windows of 6 seconds, and fewer in longer ones.

Verdicts, the first that applies:

unknown
    no fit telemetry in some window, no known promise, or no running domain
idle
    it wants less than a tenth of its floor (R89 to R91)
served
    it is not starved; contention that equals the promised split is served
short host
    not starved by f = f0 C/N, what the host could keep of the promise, with
    C the CPUs that all guests got: host daemons or others took the rest
over quota
    more was sold on the host than it has: sum of units x f0 > N
noisy untiered
    beside it runs a domain of no tier, or one whose tier sets it no shares
    and that has more weight than its tier gives
mis-weighted
    another domain has more weight per vCPU, measured by its tier's, than it
unexplained
    none of these: with right weights and quotas kept, nobody starves

A missing window makes an instance unknown, it never counts as zero (L8, R103).
Without telemetry at all the judgement abstains and says why.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import math
import types

import numpy as np

from watcher_cputier import causes
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import errors
from watcher_cputier import forecast as forecasting
from watcher_cputier import loads as measuring
from watcher_cputier import model
from watcher_cputier import neighbours as neighbouring
from watcher_cputier import parameters

UNKNOWN = "unknown"
IDLE = "idle"
SERVED = "served"
SHORT_HOST = "short host"
OVER_QUOTA = "over quota"
NOISY_UNTIERED = "noisy untiered"
MIS_WEIGHTED = "mis-weighted"
UNEXPLAINED = "unexplained"
VERDICTS = (
    UNKNOWN,
    IDLE,
    SERVED,
    SHORT_HOST,
    OVER_QUOTA,
    NOISY_UNTIERED,
    MIS_WEIGHTED,
    UNEXPLAINED,
)

Population = forecasting.Population
Forecast = forecasting.Forecast


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How one instance fares: the verdict, the numbers, the way out.

    Numbers are per vCPU, in CPUs, means over the windows; None where they
    are not known.

    :param floor: f0, the speed that its tier was sold with on this host
    :param kept: f, what the host could keep of it
    :param usage: u, what it used
    :param steal: s, what it was runnable for and did not get
    :param deficit: f0 (u + s) - u; negative where it has more than promised
    :param threshold: the deficit from which on it is starved
    :param cause: why it is starved, or why nothing is known; else empty
    :param remedy: the configuration that would cure it; else empty
    """

    instance: model.Instance
    verdict: str
    floor: float | None
    kept: float | None
    usage: float | None
    steal: float | None
    deficit: float | None
    threshold: float | None
    cause: str = ""
    remedy: str = ""

    @property
    def starved(self) -> bool:
        """Whether it does not get what was sold, whatever the cause."""
        return VERDICTS.index(self.verdict) > VERDICTS.index(SERVED)

    @property
    def deficit_cpus(self) -> float:
        """What all its vCPUs lack together; 0 where that is not known."""
        return (self.deficit or 0.0) * self.instance.flavor.vcpus


@dataclasses.dataclass(frozen=True, kw_only=True)
class Starvation:
    """The verdict on every instance of the hosts in scope.

    :param abstained: why nobody was judged; empty if it looked
    :param coverage: share of the running instances with a reading in every
        window, 0 to 1; 0 where it abstained
    :param counts: {verdict: instances}, all verdicts; empty if it abstained
    :param verdicts: {uuid: verdict}; empty if it abstained
    :param starved: by tier rank, priority (highest first), deficit of the
        whole instance (largest first), name
    :param usable_cpus: {host: C}, the mean over the windows, of hosts whose
        CPUs are known
    :param findings: what an operator should know besides
    """

    abstained: str = ""
    coverage: float = 0.0
    counts: Mapping[str, int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    verdicts: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )
    starved: tuple[Condition, ...] = ()
    usable_cpus: Mapping[str, float] = dataclasses.field(
        default_factory=model.frozen_map
    )
    findings: tuple[model.Finding, ...] = ()
    sight: "Sight | None" = dataclasses.field(
        default=None, repr=False, compare=False
    )

    def condition(self, uuid: str) -> Condition:
        """How one instance fares.

        :raises KeyError: if it was not judged
        """
        if self.sight is None:
            raise KeyError(uuid)
        return self.sight.condition(self.sight.loads.position[uuid])

    def predict(
        self, populations: Iterable[Population]
    ) -> tuple[Forecast, ...]:
        """Who would get what on hosts as they would be after moves.

        A host as it is has a forecast too: where that does not show the
        starvation that was measured, the model does not explain it, and no
        move is promised to cure it. Many populations at once cost little
        more than one; the same host may be among them several times.

        :returns: a forecast for each population, in their order
        :raises KeyError: if a host or an instance is not in scope
        :raises ValueError: if the judgement abstained
        """
        if self.sight is None:
            raise ValueError("nothing was measured to predict from")
        return forecasting.predict(self.sight.loads, tuple(populations))


def judge(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
) -> Starvation:
    """Judge every instance of the hosts in scope.

    It looks at the last ``params.windows`` windows of the telemetry.
    """
    telemetry = cluster.telemetry
    if telemetry is None:
        return Starvation(abstained="No telemetry was read.")
    if len(telemetry.windows) < params.windows:
        return Starvation(
            abstained=f"The telemetry of {telemetry.source} covers "
            f"{len(telemetry.windows)} windows and {params.windows} are "
            "asked for (audit parameter windows)."
        )
    loads = measuring.measure(cluster, diagnosis, params.windows)
    running = int(loads.running.sum())
    fit = int((loads.running & loads.known.all(axis=1)).sum())
    if running and not fit:
        return Starvation(
            abstained=f"No instance has a fit reading from "
            f"{telemetry.source} in all of {params.windows} windows"
            f"{_rejected(telemetry)}."
        )
    if np.isnan(loads.floors).all():
        return Starvation(
            abstained="No promise of any tier is known: no host in scope "
            "has both a known quota and a known number of shared CPUs."
        )
    sight = _look(cluster, diagnosis, loads)
    names = [VERDICTS[code] for code in sight.codes.tolist()]
    uuids = [instance.uuid for instance in loads.instances]
    return Starvation(
        coverage=fit / running if running else 1.0,
        counts=types.MappingProxyType(
            {name: names.count(name) for name in VERDICTS}
        ),
        verdicts=model.frozen_map(dict(zip(uuids, names, strict=True))),
        starved=sight.starved(),
        usable_cpus=model.frozen_map(
            {
                host: cpus
                for host, cpus in zip(
                    loads.hosts, loads.usable_cpus.tolist(), strict=True
                )
                if not math.isnan(cpus)
            }
        ),
        findings=tuple(_findings(sight, running, fit)),
        sight=sight,
    )


def _rejected(telemetry: model.Telemetry) -> str:
    reasons = [f"{n} {why}" for why, n in telemetry.rejected.items()]
    return f" (rejected: {', '.join(reasons)})" if reasons else ""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Sight:
    """What the verdicts were made of, one row for each instance.

    :param codes: index into :data:`VERDICTS`
    :param kept: f, the mean over the windows
    :param usage: per vCPU, the mean over the windows; so are the next two
    :param promised: CPUs that the instances of each host are promised
    """

    cluster: model.Cluster
    diagnosis: diagnosing.Diagnosis
    loads: measuring.Loads
    codes: measuring.Indices
    kept: measuring.Floats
    usage: measuring.Floats
    steal: measuring.Floats
    deficit: measuring.Floats
    promised: measuring.Floats
    neighbours: Mapping[int, neighbouring.Neighbours]

    def starved(self) -> tuple[Condition, ...]:
        """Everybody who is, the most urgent first."""
        rows = np.flatnonzero(self.codes > VERDICTS.index(SERVED))
        found = [self.condition(row) for row in rows.tolist()]
        rank = {tier.name: tier.rank for tier in self.cluster.tiers}
        found.sort(
            key=lambda c: (
                rank[c.instance.tier or ""],
                -c.instance.priority,
                -round(c.deficit_cpus, 9),
                c.instance.sort_key,
            )
        )
        return tuple(found)

    def condition(self, row: int) -> Condition:
        """How the instance of a row fares."""
        loads = self.loads
        floor = _or_none(loads.floor[row])
        verdict = VERDICTS[self.codes[row]]
        cause = self._cause(row, verdict)
        return Condition(
            instance=loads.instances[row],
            verdict=verdict,
            floor=floor,
            kept=_or_none(self.kept[row]),
            usage=_or_none(self.usage[row]),
            steal=_or_none(self.steal[row]),
            deficit=_or_none(self.deficit[row]),
            threshold=None
            if floor is None
            else float(entitlement.threshold(floor)),
            cause=cause.cause,
            remedy=cause.remedy,
        )

    def _cause(self, row: int, verdict: str) -> causes.Cause:
        if verdict in (IDLE, SERVED):
            return causes.Cause("", "")
        if verdict == UNKNOWN:
            return self._why_unknown(row)
        loads = self.loads
        home = loads.host[row]
        host = loads.hosts[home]
        if verdict == SHORT_HOST:
            return causes.short_host(
                host,
                float(loads.cpus[home]),
                float(loads.usable_cpus[home]),
                float(loads.floor[row]),
                float(self.kept[row]),
            )
        beside = self.neighbours[int(home)]
        if verdict == UNEXPLAINED:
            return self._unexplained(row)
        found = []
        if verdict == OVER_QUOTA:
            found.append(self._over_quota(home))
        if beside.noisy(row):
            found.append(causes.noisy(host, beside.noisy(row)))
        if beside.outweighed(row):
            found.append(beside.mis_weighted(row))
        first, *others = found
        for other in others:
            first = first.besides(other)
        return first

    def _why_unknown(self, row: int) -> causes.Cause:
        loads = self.loads
        instance = loads.instances[row]
        if not loads.running[row]:
            return causes.not_running(instance.status)
        if instance.tier is None:
            return causes.untiered()
        if math.isnan(loads.floor[row]):
            known = not math.isnan(loads.cpus[loads.host[row]])
            return causes.no_floor(instance.host, instance.tier, known)
        known = loads.known[row]
        return causes.no_reading(int((~known).sum()), len(known))

    def _over_quota(self, home: int) -> causes.Cause:
        host = self.loads.hosts[home]
        return causes.over_quota(
            host,
            float(self.loads.cpus[home]),
            float(self.promised[home]),
            [
                (excess.tier, excess.held, excess.quota)
                for excess in self._excesses.get(host, ())
            ],
        )

    @functools.cached_property
    def _excesses(self) -> Mapping[str, Sequence[diagnosing.Excess]]:
        found: dict[str, list[diagnosing.Excess]] = {}
        for excess in self.diagnosis.excesses:
            found.setdefault(excess.host, []).append(excess)
        return found

    def _unexplained(self, row: int) -> causes.Cause:
        loads = self.loads
        instance = loads.instances[row]
        vcpus = loads.vcpus[row]
        if loads.limits[row] < loads.floor[row] * vcpus:
            return causes.capped(
                neighbouring.describe(self.cluster, instance),
                float(loads.limits[row]),
            )
        (forecast,) = forecasting.predict(
            loads, (Population(host=instance.host),)
        )
        beside = loads.rows_by_host[loads.host[row]]
        unmeasured = loads.running & ~loads.known.all(axis=1)
        return causes.unexplained(
            instance.host,
            forecast.usage_cpus[instance.uuid] / vcpus,
            float(self.usage[row]),
            int(unmeasured[beside].sum()),
            any(
                change.moved
                for change in self.cluster.changes_by_instance.get(
                    instance.uuid, ()
                )
            ),
        )


def _look(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    loads: measuring.Loads,
) -> Sight:
    """Give every row the first verdict that applies."""
    vcpus = loads.vcpus[:, np.newaxis]
    usage, steal = loads.usage / vcpus, loads.steal / vcpus
    floor = loads.floor[:, np.newaxis]
    kept = floor * (loads.usable / loads.cpus[:, np.newaxis])[loads.host]
    deficit = floor * (usage + steal) - usage
    unknown = ~(loads.running & np.isfinite(deficit).all(axis=1))
    idle = (usage + steal < floor / 10).all(axis=1)
    starved = _starved(floor, usage, steal)
    promised = _promised(cluster, loads)
    codes = np.select(
        [
            unknown,
            idle,
            ~starved,
            ~_starved(kept, usage, steal),
            (promised > loads.cpus * (1 + 1e-9))[loads.host],
        ],
        [VERDICTS.index(v) for v in VERDICTS[:5]],
        VERDICTS.index(UNEXPLAINED),
    ).astype(np.intp)
    neighbours = {
        home: neighbouring.Neighbours(cluster, loads, home)
        for home in set(
            loads.host[codes > VERDICTS.index(SHORT_HOST)].tolist()
        )
    }
    for row in np.flatnonzero(codes == VERDICTS.index(UNEXPLAINED)).tolist():
        beside = neighbours[int(loads.host[row])]
        if beside.noisy(row):
            codes[row] = VERDICTS.index(NOISY_UNTIERED)
        elif beside.outweighed(row):
            codes[row] = VERDICTS.index(MIS_WEIGHTED)
    return Sight(
        cluster=cluster,
        diagnosis=diagnosis,
        loads=loads,
        codes=codes,
        kept=measuring.mean(kept),
        usage=measuring.mean(usage),
        steal=measuring.mean(steal),
        deficit=measuring.mean(deficit),
        promised=promised,
        neighbours=neighbours,
    )


def _starved(
    floor: measuring.Floats, usage: measuring.Floats, steal: measuring.Floats
) -> measuring.Flags:
    """Whether the deficit is above its threshold in all windows."""
    deficit = floor * (usage + steal) - usage
    found: measuring.Flags = np.all(
        deficit > entitlement.threshold(floor), axis=1
    )
    return found


def _promised(
    cluster: model.Cluster, loads: measuring.Loads
) -> measuring.Floats:
    """CPUs promised to the units that are held on each host."""
    tiers = {tier.name: i for i, tier in enumerate(cluster.tiers)}
    found = np.zeros(len(loads.hosts))
    for (host, account), units in cluster.held.items():
        home = loads.host_position.get(host)
        tier = tiers.get(account)
        if home is None or tier is None:
            continue
        floor = loads.floors[home, tier]
        if not math.isnan(floor):
            vcpus = float(units)
            if cluster.shares_class is not None:
                vcpus /= cluster.tiers[tier].multiplier
            found[home] += vcpus * floor
    return found


def _or_none(value: float) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


def _findings(sight: Sight, running: int, fit: int) -> Iterable[model.Finding]:
    loads = sight.loads
    if fit < running:
        yield model.Finding(
            kind="telemetry_coverage",
            subject="cloud",
            text=f"{running - fit} of {running} running instances have no "
            "fit reading in every window: it is not known whether they are "
            "starved.",
        )
    known = np.isfinite(loads.floors).any(axis=1)
    lost = [loads.hosts[i] for i in np.flatnonzero(~known).tolist()]
    if lost:
        yield model.Finding(
            kind="unknown_floors",
            subject="cloud",
            text="What tiers are promised is not known on these hosts, for "
            f"want of quotas or a number of shared CPUs: {errors.some(lost)}.",
        )
    tiered = loads.running & (loads.tier >= 0)
    loose = loads.running & (loads.tier < 0)
    size = len(loads.hosts)
    both = np.bincount(loads.host[tiered], minlength=size) * np.bincount(
        loads.host[loose], minlength=size
    )
    mixed = [loads.hosts[i] for i in np.flatnonzero(both).tolist()]
    if mixed:
        yield model.Finding(
            kind="untiered_beside_tiers",
            subject="cloud",
            text="Instances of no tier run beside tiers on these hosts and "
            "take CPUs that were sold to nobody: "
            f"{errors.some(mixed)}. Keep them on hosts of their own.",
        )


def by_place(
    cluster: model.Cluster, found: Starvation
) -> Mapping[tuple[str, str], tuple[Condition, ...]]:
    """Starved instances of hosts in scope, where anybody was judged.

    :returns: {(host, tier): those}. A place without instances has none that
        is starved; one where nothing is known of any of them is left out
    """
    if found.abstained:
        return model.frozen_map()
    places: dict[tuple[str, str], list[Condition]] = {}
    for host in cluster.hosts:
        if not host.in_scope:
            continue
        here = cluster.instances_by_host.get(host.name, ())
        for tier in cluster.tiers:
            verdicts = {
                found.verdicts.get(one.uuid, UNKNOWN)
                for one in here
                if one.tier == tier.name
            }
            if verdicts != {UNKNOWN}:
                places[host.name, tier.name] = []
    for one in found.starved:
        if one.instance.tier is not None:
            places[one.instance.host, one.instance.tier].append(one)
    return model.frozen_map(
        {place: tuple(those) for place, those in places.items()}
    )
