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

"""A report in words: "Audit at 12:00 moved 2 instances from ..." (R121)."""

from collections import Counter
from collections.abc import Iterable, Iterator
import dataclasses
import re

from watcher_cputier import errors
from watcher_cputier.audits import changes
from watcher_cputier.audits import course as courses
from watcher_cputier.audits import values

# What Watcher puts in front of an action's own words.
_PREFIX = re.compile(
    r"Action (was skipped automatically|failed in (?P<phase>\w+)): "
)
_SILENT = (
    "Watcher tells no reason; see the log of its applier, or that of "
    "nova-compute"
)
_DONE = {
    values.MOVED: "moved",
    values.MOVING: "is moving",
    values.PLANNED: "wants to move",
    values.DROPPED: "wanted to move",
}
_NAMES = 5
# Hosts that are told one by one.
_HOSTS = 10


def summary(report: values.Report) -> str:
    """What a reader should know first."""
    return next(iter(of_report(report)), "There is nothing to report.")


def of_report(report: values.Report) -> Iterator[str]:
    """All of it, the most important first."""
    told = courses.course_of(report)
    if told is not None:
        yield from of_course(report, told)
        return
    planned = {plan.audit for plan in report.plans}
    for audit in report.audits:
        # One that repeats has plans of the time before it failed.
        if audit.uuid not in planned or audit.state == "FAILED":
            yield of_audit(report, audit)
    for plan in report.plans:
        yield from of_plan(report, plan)


def of_audit(report: values.Report, audit: values.Audit) -> str:
    """An audit that has no plan to tell of."""
    at = (audit.changed_at or audit.created_at).told(report.taken_at)
    if audit.state == "FAILED":
        return f"Audit {audit.name} failed at {at}: {_why(audit)}."
    if audit.state == "CANCELLED":
        return (
            f"Audit {audit.name} was cancelled at {at} and has made no plan: "
            "by somebody, or by Watcher because a plan was being carried out."
        )
    if audit.state in values.ACTIVE:
        return f"Audit {audit.name} is {audit.state}: it has no plan yet."
    return f"Audit {audit.name} is {audit.state} and has no plan."


def _why(audit: values.Audit) -> str:
    if audit.message:
        return audit.message.rstrip(".")
    return "Watcher tells no reason; see the log of the decision engine"


# A plan


def of_plan(report: values.Report, plan: values.Plan) -> Iterator[str]:
    """What it was for, what became of it, and what is left."""
    at = f"Audit at {plan.made_at.told(report.taken_at)}"
    if not plan.migrations:
        yield _nothing(plan, at)
    else:
        for group in _groups(plan):
            yield _of_group(plan, group, at)
        for one in plan.outcomes(values.SKIPPED):
            yield (
                f"Skipped: {_named(one)} from {one.source} to {one.target}, "
                f"because {explanation(one, plan.state)}."
            )
        for one in plan.outcomes(values.FAILED):
            yield (
                f"Failed: {_named(one)} from {one.source} to {one.target}: "
                f"{explanation(one, plan.state)}."
            )
        for one in plan.outcomes(values.MOVED):
            told = explanation(one, plan.state)
            if told:
                yield f"{_named(one)}: {told}."
    yield from _tiers(plan)
    yield _state(report, plan)
    yield from _recorded(plan)


def _nothing(plan: values.Plan, at: str) -> str:
    told = changes.in_all(plan)
    if plan.others:
        return (
            f"{at} planned no migration, but {plan.others} other "
            f"action{'s' * (plan.others > 1)}."
        )
    starved = int(plan.indicators.get("instances_starved_before", 0))
    if told is None:
        return f"{at} planned no migration."
    if told.before:
        return (
            f"{at} planned no migration: {_units(told.before)} over quota "
            f"{'stays' if told.before == 1 else 'stay'}."
        )
    if starved:
        return (
            f"{at} planned no migration: {starved} "
            f"instance{'s' * (starved > 1)} starved, and no migration helps."
        )
    return f"{at} planned no migration: no host was over its quota."


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Migrations from one host for one reason, with one outcome."""

    outcome: str
    source: str
    tier: str | None
    concern: str | None
    reason: str
    migrations: tuple[values.Migration, ...]


def _groups(plan: values.Plan) -> Iterator[_Group]:
    """In the order of their first migrations."""
    found: dict[
        tuple[str, str, str | None, str | None, str], list[values.Migration]
    ] = {}
    for one in plan.migrations:
        outcome = one.outcome(plan.state)
        if outcome not in _DONE:
            continue
        key = (outcome, one.source, one.tier, one.concern, one.reason)
        found.setdefault(key, []).append(one)
    for key, members in found.items():
        outcome, source, tier, concern, reason = key
        yield _Group(
            outcome=outcome,
            source=source,
            tier=tier,
            concern=concern,
            reason=reason,
            migrations=tuple(members),
        )


def _of_group(plan: values.Plan, group: _Group, at: str) -> str:
    count = len(group.migrations)
    text = (
        f"{at} {_DONE[group.outcome]} {count} "
        f"instance{'s' * (count > 1)} from {group.source} to "
        f"{_targets(group.migrations)}"
    )
    return f"{text}{_purpose(plan, group)} ({_names(group.migrations)})."


def _targets(migrations: Iterable[values.Migration]) -> str:
    counted = Counter(one.target for one in migrations)
    if len(counted) == 1:
        return next(iter(counted))
    return " and ".join(
        f"{target} ({count})" for target, count in sorted(counted.items())
    )


def _purpose(plan: values.Plan, group: _Group) -> str:
    """What it was for, with a blank in front."""
    held = group.migrations[0].held
    if group.concern == "quota" and held is not None:
        here = next(
            one
            for one in changes.of_hosts(plan)
            if (one.host, one.tier) == (group.source, group.tier)
        )
        after = here.after if group.outcome == values.MOVED else here.planned
        quota = "" if held.quota is None else f" of at most {held.quota}"
        return (
            f" to bring {group.tier} from {held.units} to "
            f"{_units(after or 0)}{quota}"
        )
    return f", because {group.reason.rstrip('.')}" if group.reason else ""


def _names(migrations: Iterable[values.Migration]) -> str:
    return errors.some((one.instance for one in migrations), _NAMES)


def _named(one: values.Migration) -> str:
    return one.instance


def explanation(one: values.Migration, plan_state: str) -> str:
    """Why it did not end as planned; empty where it did."""
    outcome = one.outcome(plan_state)
    said = _PREFIX.sub("", one.message or "").strip().rstrip(".")
    if outcome == values.MOVED:
        if one.state == "SUCCEEDED":
            return ""
        return (
            f"Watcher gave the migration up ({one.state}), Nova completed it"
        )
    if outcome == values.SKIPPED:
        return said or _SILENT
    if outcome == values.FAILED:
        if one.live is not None:
            nova = f"Nova's migration is {one.live.status}"
            return f"{said}; {nova}" if said else nova
        return said or _SILENT
    if outcome == values.DROPPED:
        return said or f"its action plan is {plan_state}"
    return ""


def _tiers(plan: values.Plan) -> Iterator[str]:
    for one in changes.of_tiers(plan):
        if not one.before:
            continue
        text = (
            f"Over quota before: {_units(one.before, one.tier)}, planned to "
            f"stay: {one.planned}"
        )
        if one.after is None:
            yield f"{text}."
        else:
            yield f"{text}, left by what has moved: {one.after}."


def _state(report: values.Report, plan: values.Plan) -> str:
    """What has become of the plan as a whole."""
    counted = Counter(one.outcome(plan.state) for one in plan.migrations)
    told = ", ".join(
        f"{counted[name]} {name}" for name in values.OUTCOMES if counted[name]
    )
    text = f"Action plan {plan.uuid} is {plan.state}"
    if told:
        text += f": {told}"
    if plan.message:
        text += f" ({plan.message.rstrip('.')})"
    if plan.migrations and plan.executed and plan.ended_at:
        began, ended = plan.executed
        if ended is not None:
            text += (
                f"; carried out from {began.told(report.taken_at)} to "
                f"{ended.told(report.taken_at)}"
            )
    if plan.state == values.RECOMMENDED:
        text += (
            f"; it waits for `openstack optimize actionplan start {plan.uuid}`"
        )
    return f"{text}."


def _recorded(plan: values.Plan) -> Iterator[str]:
    """What only the record of the run tells."""
    if plan.record is None:
        return
    for one in plan.record.deferred:
        yield f"Deferred to the next audit: {_deferred(one)}."
    for one in plan.record.unresolved:
        yield (
            f"Unresolved: {one['host']} stays "
            f"{_units(int(str(one['units'])), str(one['tier']))} over its "
            f"quota; at least {one['instances']} more would have to leave."
        )
    for text in plan.record.advice:
        yield f"Advice: {text.rstrip('.')}."


def _deferred(one: object) -> str:
    assert isinstance(one, dict)
    return (
        f"{one['instance']['name']} from {one['source']} to {one['target']}, "
        f"because {one['reason']}"
    )


def _units(count: int, tier: str = "") -> str:
    of_tier = f"{tier} " if tier else ""
    return f"{count} {of_tier}unit{'' if count == 1 else 's'}"


# A course


def of_course(report: values.Report, told: courses.Course) -> Iterator[str]:
    """How the audits went since then."""
    yield _counts(report, told)
    yield from _excess(report, told)
    yield from _late(report, told)
    yield from _overlapping(report, told)
    for one in told.missing:
        yield (
            f"Late: audit {one.audit.name} was due at "
            f"{one.due_at.told(report.taken_at)} and has not run since "
            f"({_span(one.late_seconds)} late)."
        )
    for failure in told.failures:
        yield _of_failure(report, failure)
    yield from _breaches(report, told.breaches)


def _counts(report: values.Report, told: courses.Course) -> str:
    plans = [run.plan for run in told.runs]
    outcomes = Counter(
        one.outcome(plan.state) for plan in plans for one in plan.migrations
    )
    migrations = ", ".join(
        f"{outcomes[name]} {name}"
        for name in values.OUTCOMES
        if outcomes[name]
    )
    late = sum(1 for run in told.runs if run.late_seconds is not None)
    late += len(told.missing)
    meeting = sum(1 for run in told.runs if run.overlaps)
    meeting += sum(1 for failure in told.failures if failure.overlaps)
    count = len(plans)
    audits = len({plan.audit for plan in plans})
    return (
        f"Since {told.since.told(report.taken_at)}: {count} "
        f"run{'s' * (count != 1)} of {audits} audit{'s' * (audits != 1)}, "
        f"{late} late, {meeting} overlapping, {len(told.failures)} failed or "
        f"cancelled; migrations: {migrations or 'none'}."
    )


def _excess(report: values.Report, told: courses.Course) -> Iterator[str]:
    """Each tier at the first run that tells of it, and at the last (R123).

    Units that the plans have removed are told beside: what comes back is
    removed again.
    """
    first: dict[str, tuple[values.Plan, changes.OfTier]] = {}
    last: dict[str, tuple[values.Plan, changes.OfTier]] = {}
    most: Counter[str] = Counter()
    removed: Counter[str] = Counter()
    for run in told.runs:
        for one in changes.of_tiers(run.plan):
            if one.after is not None:
                removed[one.tier] += one.before - one.after
            first.setdefault(one.tier, (run.plan, one))
            last[one.tier] = (run.plan, one)
            most[one.tier] = max(most[one.tier], one.before)
    for tier in sorted(first):
        if not most[tier]:
            continue
        (plan, begin), (newest, end) = first[tier], last[tier]
        text = (
            f"{tier}: {_units(begin.before)} over quota at the first run "
            f"({plan.made_at.told(report.taken_at)}), {most[tier]} at most, "
            f"{end.before} at the last "
            f"({newest.made_at.told(report.taken_at)})"
        )
        if end.after is not None and end.after != end.before:
            text += f", {end.after} after its plan"
        yield f"{text}; plans have removed {_units(removed[tier])}."
    yield from _starved(told)


def _starved(told: courses.Course) -> Iterator[str]:
    found = [
        int(run.plan.indicators["instances_starved_before"])
        for run in told.runs
        if "instances_starved_before" in run.plan.indicators
    ]
    if any(found):
        yield (
            f"Starved instances: {found[0]} at the first run that looked, "
            f"{max(found)} at most, {found[-1]} at the last."
        )


def _late(report: values.Report, told: courses.Course) -> Iterator[str]:
    """The late runs of each audit, in the order of the first ones."""
    for runs in _by_audit(run for run in told.runs if run.late_seconds):
        name = report.name_of(runs[0].plan)
        worst = max(runs, key=lambda run: run.late_seconds or 0)
        at = worst.plan.made_at.told(report.taken_at)
        span = _span(worst.late_seconds or 0)
        if len(runs) == 1:
            yield f"Late: audit {name} ran at {at}, {span} after it was due."
        else:
            yield (
                f"Late: audit {name} ran late {len(runs)} times, {span} at "
                f"most (at {at})."
            )


def _overlapping(report: values.Report, told: courses.Course) -> Iterator[str]:
    for runs in _by_audit(run for run in told.runs if run.overlaps):
        name = report.name_of(runs[0].plan)
        last = runs[-1]
        at = last.plan.made_at.told(report.taken_at)
        others = errors.some(
            f"{one.uuid} of audit {report.name_of(one)}"
            for one in last.overlaps
        )
        times = "" if len(runs) == 1 else f" {len(runs)} times, the last"
        yield (
            f"Overlapping: audit {name} ran{times} at {at} while action plan "
            f"{others} was being carried out."
        )


def _by_audit(
    runs: Iterable[courses.Run],
) -> Iterable[list[courses.Run]]:
    found: dict[str, list[courses.Run]] = {}
    for run in runs:
        found.setdefault(run.plan.audit, []).append(run)
    return found.values()


def _of_failure(report: values.Report, failure: courses.Failure) -> str:
    audit = failure.audit
    if audit.state != "CANCELLED" or not failure.overlaps:
        return of_audit(report, audit)
    plans = errors.some(one.uuid for one in failure.overlaps)
    return (
        f"Overlapping: audit {audit.name} was cancelled at "
        f"{failure.at.told(report.taken_at)}, while action plan {plans} was "
        "being carried out: Watcher passes over whoever is not forced."
    )


def _breaches(report: values.Report, found: courses.Breaches) -> Iterator[str]:
    for one in found.tiers:
        if not one.at_least:
            continue
        what = (
            "somebody was starved"
            if one.kind == courses.STARVATION
            else f"{one.tier} was over quota"
        )
        if one.minutes:
            yield (
                f"By Watcher's records {what} for at least "
                f"{_minutes(one.minutes)}."
            )
        else:
            yield (
                f"By Watcher's records {what}; for how long they do not tell."
            )
    series = found.series
    if series is None:
        yield (
            "Minutes by host are not available: they come from the exporter's "
            "series, which no Prometheus was named for (--prometheus)."
        )
        return
    if series.begin is None or series.end is None:
        yield (
            "Minutes by host are not available: "
            f"{series.source} has no series of the exporter in this time."
        )
        return
    yield (
        f"The exporter has counted from {series.begin.told(report.taken_at)} "
        f"to {series.end.told(report.taken_at)}"
        + (
            ""
            if series.succeeded is None or series.succeeded >= 1
            else f"; {1 - series.succeeded:.0%} of its collections failed"
        )
        + ":"
        + (" no breach on any host." if not series.breaches else "")
    )
    for kind, minutes in sorted(series.unobserved.items()):
        yield (
            f"For {_minutes(minutes)} of that nobody knows about {kind}: "
            "collections failed, or were too far apart."
        )
    for breach in series.breaches[:_HOSTS]:
        what = (
            f"had starved {breach.tier} instances"
            if breach.kind == courses.STARVATION
            else f"was over its {breach.tier} quota"
        )
        peak = (
            ""
            if not breach.peak_units
            else f", by {breach.peak_units:.0f} units at most"
        )
        yield (
            f"{breach.host} {what} for "
            f"{'at least ' * breach.at_least}"
            f"{_minutes(breach.minutes)}{peak}."
        )
    more = len(series.breaches) - _HOSTS
    if more > 0:
        yield f"And {more} more, which --breaches lists."


def _minutes(count: float) -> str:
    return f"{count:g} minute{'' if count == 1 else 's'}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"
