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


"""The state of tiers as metrics for Prometheus, and time spent in breach.

A collection is one look at the cloud. What it found becomes gauges; what it
did not find out has no series, for a missing number is never zero. Two
counters outlive a collection: they are read back from what the last one
wrote, and the time in between is added to them (N14).

Nobody knows what happened between two looks. A breach that both saw is taken
to have lasted from one to the other, a breach that one of them saw for half
of that time: whatever moment the change came at, the mean is right. Two looks
that are further apart than a stated maximum, or one of which failed, say
nothing about the time between them. That time is no breach, and is counted
as unobserved.

:data:`FAMILIES` is the table of all metrics; the documentation lists the
same.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import functools

from prometheus_client import metrics_core
from prometheus_client import parser

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import starvation
from watcher_cputier.constraints import capacity

#: Time between two collections that is still taken to be observed.
MAX_GAP_SECONDS = 1800
QUOTA = "quota"
STARVATION = "starvation"
KINDS = (QUOTA, STARVATION)

CONTINUOUS = "CONTINUOUS"
EVENT = "EVENT"
ONESHOT = "ONESHOT"
FAILED = "FAILED"
# States in which an audit of the type will run again.
_ALIVE = {
    CONTINUOUS: frozenset({"PENDING", "ONGOING"}),
    EVENT: frozenset({"PENDING", "ONGOING", "SUCCEEDED"}),
}
# States of an audit that is over, and of which nothing needs to be told.
_OVER = {
    CONTINUOUS: frozenset({"SUCCEEDED", "CANCELLED", "DELETED"}),
    EVENT: frozenset({"CANCELLED", "DELETED"}),
    ONESHOT: frozenset({"CANCELLED", "DELETED"}),
}

_OVER_QUOTA = "cputier_host_over_quota"
_STARVED = "cputier_host_starved_instances"
EXCESS = "cputier_host_excess_units"
COLLECTED = "cputier_collected_timestamp_seconds"
SUCCEEDED = "cputier_collection_succeeded"
_TELEMETRY = "cputier_telemetry_succeeded"
BREACH = "cputier_host_breach_seconds_total"
UNOBSERVED = "cputier_breach_unobserved_seconds_total"

_HOST = ("host", "tier")
_TIER = ("tier",)
_AUDIT = ("audit",)

#: (host, tier)
Place = tuple[str, str]
# Values of the labels of a series, and its own.
_Samples = Iterable[tuple[tuple[str, ...], float]]


class MetricsError(errors.TierError):
    """What an earlier collection wrote is no metrics of this package."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """An audit of this package's strategies, as Watcher tells it.

    Times are in seconds since the epoch.

    :param type: ONESHOT, CONTINUOUS or EVENT
    :param last: when its last action plan was made; None where there is none
    :param plan_state: that of its last action plan
    :param next_run: when it is to run next; None where it does not tell
    """

    name: str
    type: str
    state: str
    last: float | None = None
    plan_state: str | None = None
    next_run: float | None = None

    @property
    def alive(self) -> bool:
        """Whether it will run again without being created again."""
        return self.state in _ALIVE.get(self.type, ())

    @property
    def told(self) -> bool:
        """Whether there is something to tell of it."""
        return self.state not in _OVER.get(self.type, ())

    @property
    def succeeded(self) -> bool | None:
        """Whether its last run did; None where it has had none."""
        if FAILED in (self.state, self.plan_state):
            return False
        return None if self.last is None else True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sight:
    """A cloud, judged.

    :param diagnosis: with what is lent set apart
    :param starved: who gets what was sold; None where nobody was judged
    :param flavors: those that the cloud sells; None where nobody looked
    """

    cluster: model.Cluster
    diagnosis: diagnosing.Diagnosis
    starved: starvation.Starvation | None = None
    flavors: tuple[model.Flavor, ...] | None = None

    @functools.cached_property
    def standings(self) -> tuple[offer.Standing, ...]:
        """Every host in every tier."""
        return offer.standings(self.cluster, self.diagnosis)

    @functools.cached_property
    def offers(self) -> tuple[offer.Offer, ...]:
        """Every tier over all hosts."""
        return offer.offers(self.cluster, self.diagnosis, self.flavors or ())

    @functools.cached_property
    def excess(self) -> Mapping[Place, int]:
        """Units over quota that an audit would want to cure."""
        return {
            (one.host, one.tier): one.units for one in self.diagnosis.excesses
        }

    @functools.cached_property
    def lent(self) -> Mapping[Place, int]:
        """Units over quota that are none for now."""
        return {(one.host, one.tier): one.units for one in self.diagnosis.lent}

    @functools.cached_property
    def starving(self) -> Mapping[Place, tuple[starvation.Condition, ...]]:
        """Starved instances, where anybody was judged."""
        if self.starved is None:
            return {}
        return starvation.by_place(self.cluster, self.starved)

    @functools.cached_property
    def unjudged(self) -> Mapping[Place, int]:
        """Instances of a tier that nothing is known of, where any."""
        found: dict[Place, int] = {}
        if self.starved is None:
            return found
        for one in self.cluster.instances:
            verdict = self.starved.verdicts.get(one.uuid)
            if verdict == starvation.UNKNOWN and one.tier is not None:
                place = (one.host, one.tier)
                found[place] = found.get(place, 0) + 1
        return found


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One look at the cloud.

    :param taken_at: when it began, in seconds since the epoch
    :param seconds: how long it took
    :param sight: what was seen; None if that failed
    :param telemetry: whether instances could be judged; None where that was
        not asked for, or could not be, for nothing was seen
    :param watcher: whether Watcher answered; None where there is none
    :param audits: what it answered
    """

    taken_at: float
    seconds: float
    sight: Sight | None = None
    telemetry: bool | None = None
    watcher: bool | None = None
    audits: tuple[Audit, ...] = ()

    def breaches(self, kind: str) -> Mapping[Place, bool] | None:
        """Where there is a breach and where not; None if nobody looked."""
        if self.sight is None:
            return None
        if kind == QUOTA:
            return {
                (one.host, one.account): (one.host, one.account)
                in self.sight.excess
                for one in self.sight.standings
                if one.quota is not None
            }
        if self.sight.starved is None:
            return None
        return {
            place: bool(those) for place, those in self.sight.starving.items()
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """What the last collection wrote.

    :param taken_at: when it began, in seconds since the epoch
    :param breaches: {kind: {place: whether}} of the kinds that it looked at
    :param seconds: {(host, tier, kind): time in breach so far}
    :param unobserved: {kind: time that nobody saw}
    """

    taken_at: float
    breaches: Mapping[str, Mapping[Place, bool]]
    seconds: Mapping[tuple[str, str, str], float]
    unobserved: Mapping[str, float]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Time in breach, all collections together.

    :param seconds: {(host, tier, kind): seconds}
    :param unobserved: {kind: seconds that nobody saw}
    """

    seconds: Mapping[tuple[str, str, str], float]
    unobserved: Mapping[str, float]


def read(text: str) -> Past:
    """What an earlier collection wrote.

    :param text: in Prometheus' text format
    :raises MetricsError: if it is something else
    """
    values: dict[str, dict[tuple[str, ...], float]] = {}
    try:
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                names = _LABELS.get(sample.name)
                if names is not None:
                    labels = tuple(sample.labels[name] for name in names)
                    values.setdefault(sample.name, {})[labels] = sample.value
        ((taken_at,),) = [values[COLLECTED].values()]
        ((succeeded,),) = [values[SUCCEEDED].values()]
    except (ValueError, KeyError) as exc:
        raise MetricsError(
            "it does not have what an earlier collection writes",
            cure="Remove it; the time in breach is then counted anew",
        ) from exc
    breaches = {}
    if succeeded:
        breaches[QUOTA] = _places(values.get(_OVER_QUOTA, {}))
    if values.get(_TELEMETRY, {}).get((), 0):
        breaches[STARVATION] = _places(values.get(_STARVED, {}))
    return Past(
        taken_at=taken_at,
        breaches=breaches,
        seconds={
            (host, tier, kind): value
            for (host, tier, kind), value in values.get(BREACH, {}).items()
        },
        unobserved={
            kind: value
            for (kind,), value in values.get(UNOBSERVED, {}).items()
        },
    )


def _places(found: Mapping[tuple[str, ...], float]) -> dict[Place, bool]:
    return {(host, tier): value > 0 for (host, tier), value in found.items()}


def count(
    past: Past | None,
    seen: Collection,
    max_gap_seconds: float = MAX_GAP_SECONDS,
) -> Counts:
    """Time in breach, with what has passed since the last collection.

    Hosts and tiers that are no more are dropped; where nobody could look at
    the hosts, all are kept.

    :param past: the last collection; None for the first
    """
    seconds = {} if past is None else dict(past.seconds)
    unobserved = dict.fromkeys(KINDS, 0.0)
    for kind in KINDS:
        now = seen.breaches(kind)
        for place in now or ():
            seconds.setdefault((*place, kind), 0.0)
        if past is None:
            continue
        unobserved[kind] = past.unobserved.get(kind, 0.0)
        gap = seen.taken_at - past.taken_at
        before = past.breaches.get(kind)
        if now is None or before is None or not 0 <= gap <= max_gap_seconds:
            unobserved[kind] += max(0.0, gap)
            continue
        for place in before.keys() & now.keys():
            times_seen = before[place] + now[place]
            seconds[*place, kind] += gap * times_seen / 2
    if seen.sight is not None:
        there = {(one.host, one.account) for one in seen.sight.standings}
        seconds = {
            key: value for key, value in seconds.items() if key[:2] in there
        }
    return Counts(seconds=seconds, unobserved=unobserved)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A metric: its name, its labels, and where its values come from.

    :param text: what it is, in one line
    :param values: of a collection
    :param counted: of the counters that outlive one
    """

    name: str
    text: str
    labels: tuple[str, ...] = ()
    values: Callable[[Collection], _Samples] | None = None
    counted: Callable[[Counts], _Samples] | None = None

    @property
    def type(self) -> str:
        """``gauge`` or ``counter``."""
        return "gauge" if self.counted is None else "counter"


def families(
    seen: Collection, counts: Counts | None = None
) -> Iterator[metrics_core.Metric]:
    """What was seen, as metrics; those without a series are left out.

    :param counts: the counters; None where nobody keeps them
    """
    for one in FAMILIES:
        samples: list[tuple[tuple[str, ...], float]] = []
        if one.values is not None:
            samples = sorted(one.values(seen))
        elif one.counted is not None and counts is not None:
            samples = sorted(one.counted(counts))
        if not samples:
            continue
        kind = (
            metrics_core.GaugeMetricFamily
            if one.counted is None
            else metrics_core.CounterMetricFamily
        )
        family = kind(one.name, one.text, labels=one.labels)
        for labels, value in samples:
            family.add_metric(labels, value)
        yield family


def _whole(
    value: Callable[[Collection], float | None],
) -> Callable[[Collection], _Samples]:
    """Of the collection as a whole."""

    def samples(seen: Collection) -> _Samples:
        found = value(seen)
        return [] if found is None else [((), found)]

    return samples


def _places_of(
    value: Callable[[Sight, offer.Standing], float | None],
) -> Callable[[Collection], _Samples]:
    """Of each host and tier."""

    def samples(seen: Collection) -> _Samples:
        if seen.sight is None:
            return
        for one in seen.sight.standings:
            found = value(seen.sight, one)
            if found is not None:
                yield (one.host, one.account), found

    return samples


def _tiers_of(
    value: Callable[[Sight, offer.Offer], float | None],
) -> Callable[[Collection], _Samples]:
    """Of each tier."""

    def samples(seen: Collection) -> _Samples:
        if seen.sight is None:
            return
        for one in seen.sight.offers:
            found = value(seen.sight, one)
            if found is not None:
                yield (one.account,), found

    return samples


def _audits_of(
    value: Callable[[Audit], float | None],
) -> Callable[[Collection], _Samples]:
    """Of each audit."""

    def samples(seen: Collection) -> _Samples:
        for one in seen.audits:
            found = value(one)
            if found is not None:
                yield (one.name,), found

    return samples


def _over(sight: Sight, one: offer.Standing) -> float | None:
    if one.quota is None:
        return None
    return float((one.host, one.account) in sight.excess)


def _excess(sight: Sight, one: offer.Standing) -> float | None:
    if one.quota is None:
        return None
    return sight.excess.get((one.host, one.account), 0)


def _lent(sight: Sight, one: offer.Standing) -> float | None:
    return sight.lent.get((one.host, one.account))


def _starved(sight: Sight, one: offer.Standing) -> float | None:
    found = sight.starving.get((one.host, one.account))
    return None if found is None else len(found)


def _deficit(sight: Sight, one: offer.Standing) -> float | None:
    found = sight.starving.get((one.host, one.account))
    if found is None:
        return None
    return round(sum(each.deficit_cpus for each in found), 6)


def _unjudged(sight: Sight, one: offer.Standing) -> float | None:
    if sight.starved is None:
        return None
    names = [tier.name for tier in sight.cluster.tiers]
    if one.account not in names:
        return None
    return sight.unjudged.get((one.host, one.account), 0)


def _starved_instances(seen: Collection) -> _Samples:
    if seen.sight is None or seen.sight.starved is None:
        return
    for one in seen.sight.starved.starved:
        told = one.instance
        yield (
            (told.host, told.tier or "", told.uuid, one.verdict),
            1.0,
        )


def _coverage(seen: Collection) -> float | None:
    if seen.sight is None or seen.sight.starved is None:
        return None
    return seen.sight.starved.coverage


def _known(found: Callable[[offer.Offer], int]) -> Callable[..., float | None]:
    """A sum of quotas, where any of them is known."""

    def value(sight: Sight, one: offer.Offer) -> float | None:
        if all(
            each.quota is None
            for each in sight.standings
            if each.account == one.account
        ):
            return None
        return found(one)

    return value


def _largest_fit(sight: Sight, one: offer.Offer) -> float | None:
    if not one.fits:
        return None
    if one.largest is None:
        return 0
    return _units(sight, one, one.largest.flavor)


def _largest_flavor(sight: Sight, one: offer.Offer) -> float | None:
    return max(
        (_units(sight, one, fit.flavor) for fit in one.fits), default=None
    )


def _units(sight: Sight, one: offer.Offer, flavor: model.Flavor) -> int:
    """Units that an instance of a flavor claims of a tier."""
    candidate = offer.newcomer(sight.cluster, flavor)
    return capacity.claims(sight.cluster, candidate)[one.account]


def _fits(seen: Collection) -> _Samples:
    if seen.sight is None:
        return
    for one in seen.sight.offers:
        for fit in one.fits:
            yield (one.account, fit.flavor.name), fit.count


def _last(seen: Collection) -> _Samples:
    for one in seen.audits:
        if one.last is not None:
            yield (one.name, one.state), one.last


#: Every metric, in the order in which they are written.
FAMILIES = (
    Family(
        name=COLLECTED,
        text="When the last collection began, failed or not (Unix time).",
        values=_whole(lambda seen: seen.taken_at),
    ),
    Family(
        name=SUCCEEDED,
        text="Whether the last collection could see the hosts.",
        values=_whole(lambda seen: float(seen.sight is not None)),
    ),
    Family(
        name="cputier_collection_duration_seconds",
        text="How long the last collection took.",
        values=_whole(lambda seen: round(seen.seconds, 3)),
    ),
    Family(
        name=_TELEMETRY,
        text="Whether starvation could be judged.",
        values=_whole(
            lambda seen: (
                None if seen.telemetry is None else float(seen.telemetry)
            )
        ),
    ),
    Family(
        name="cputier_telemetry_coverage_ratio",
        text="Share of the running instances with a reading in every window.",
        values=_whole(_coverage),
    ),
    Family(
        name="cputier_watcher_succeeded",
        text="Whether Watcher could be asked for its audits.",
        values=_whole(
            lambda seen: None if seen.watcher is None else float(seen.watcher)
        ),
    ),
    Family(
        name="cputier_host_quota_units",
        text="Units of a tier that a host may hold.",
        labels=_HOST,
        values=_places_of(lambda sight, one: one.quota),
    ),
    Family(
        name="cputier_host_allocated_units",
        text="Units of a tier that instances hold on a host.",
        labels=_HOST,
        values=_places_of(lambda sight, one: one.held),
    ),
    Family(
        name="cputier_host_headroom_units",
        text="Units of a tier that are left on a host.",
        labels=_HOST,
        values=_places_of(lambda sight, one: one.headroom),
    ),
    Family(
        name=EXCESS,
        text="Units of a tier above a host's quota, without lent ones.",
        labels=_HOST,
        values=_places_of(_excess),
    ),
    Family(
        name="cputier_host_lent_units",
        text="Units above a policy quota that idle tiers lend meanwhile.",
        labels=_HOST,
        values=_places_of(_lent),
    ),
    Family(
        name=_OVER_QUOTA,
        text="Whether a host is over its quota of a tier.",
        labels=_HOST,
        values=_places_of(_over),
    ),
    Family(
        name=_STARVED,
        text="Instances of a tier that do not get what was sold.",
        labels=_HOST,
        values=_places_of(_starved),
    ),
    Family(
        name="cputier_host_deficit_cpus",
        text="CPUs that the starved instances of a tier lack together.",
        labels=_HOST,
        values=_places_of(_deficit),
    ),
    Family(
        name="cputier_host_unjudged_instances",
        text="Instances of a tier without telemetry to judge them by.",
        labels=_HOST,
        values=_places_of(_unjudged),
    ),
    Family(
        name="cputier_instance_starved",
        text="A starved instance, with the verdict on the cause.",
        labels=("host", "tier", "instance_uuid", "verdict"),
        values=_starved_instances,
    ),
    Family(
        name="cputier_hosts_unknown",
        text="Hosts whose quota of a tier nobody knows.",
        labels=_TIER,
        values=_tiers_of(lambda sight, one: one.unknown),
    ),
    Family(
        name="cputier_tier_capacity_units",
        text="Sum of the known quotas of a tier.",
        labels=_TIER,
        values=_tiers_of(_known(lambda one: one.capacity)),
    ),
    Family(
        name="cputier_tier_allocated_units",
        text="Units of a tier that instances hold.",
        labels=_TIER,
        values=_tiers_of(lambda sight, one: one.allocated),
    ),
    Family(
        name="cputier_tier_headroom_units",
        text="Units of a tier left on hosts that could take an instance now.",
        labels=_TIER,
        values=_tiers_of(_known(lambda one: one.headroom)),
    ),
    Family(
        name="cputier_tier_largest_fit_units",
        text="Units of the largest flavor of a tier that still fits; 0 if "
        "none does.",
        labels=_TIER,
        values=_tiers_of(_largest_fit),
    ),
    Family(
        name="cputier_tier_largest_flavor_units",
        text="Units of the largest flavor of a tier that is sold.",
        labels=_TIER,
        values=_tiers_of(_largest_flavor),
    ),
    Family(
        name="cputier_flavor_fits",
        text="Further instances of a flavor that the hosts would take.",
        labels=("tier", "flavor"),
        values=_fits,
    ),
    Family(
        name="cputier_audits_alive",
        text="Audits of this package's strategies that will run again.",
        values=_whole(
            lambda seen: (
                sum(one.alive for one in seen.audits) if seen.watcher else None
            )
        ),
    ),
    Family(
        name="cputier_audit_last_seconds",
        text="When an audit made its last action plan (Unix time), with the "
        "audit's state.",
        labels=("audit", "state"),
        values=_last,
    ),
    Family(
        name="cputier_audit_last_succeeded",
        text="Whether neither an audit nor its last action plan has failed.",
        labels=_AUDIT,
        values=_audits_of(
            lambda one: None if one.succeeded is None else float(one.succeeded)
        ),
    ),
    Family(
        name="cputier_audit_next_run_timestamp_seconds",
        text="When a continuous audit is to run next (Unix time).",
        labels=_AUDIT,
        values=_audits_of(lambda one: one.next_run if one.alive else None),
    ),
    Family(
        name=BREACH,
        text="Time that a host was seen over quota or with starved instances.",
        labels=("host", "tier", "kind"),
        counted=lambda counts: counts.seconds.items(),
    ),
    Family(
        name=UNOBSERVED,
        text="Time between collections that is not known to be a breach or "
        "none.",
        labels=("kind",),
        counted=lambda counts: (
            ((kind,), value) for kind, value in counts.unobserved.items()
        ),
    ),
)
_LABELS = {one.name: one.labels for one in FAMILIES}
