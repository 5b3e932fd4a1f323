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

"""The course of audits over time, from what Watcher has kept of them.

*Late* is a run whose plan comes more than the grace after it was due: its
audit's interval after the plan before. The decision engine was down, busy, or
passed the run over because some plan was being carried out.

*Overlapping* is a run that ended while a plan of another audit of the same
goal was being carried out: it judged a cloud that was changing under it.

Minutes of a breach are counted as far as the records prove them: from a run
that found units over quota to the end of the plan that removed them, or to
the next run of the same audit that found some still. Before the first run
that found them, and after the last, nobody looked: the minutes are a lower
bound. What the exporter counted on each host is more exact, and stands
beside them.
"""

from collections.abc import Iterable
import dataclasses

from watcher_cputier.audits import changes
from watcher_cputier.audits import values

# Watcher does not keep when a plan was begun, and its first migration looks
# around before Nova is told: so much later the latter may begin.
_STARTING_SECONDS = 60.0

QUOTA = "quota"
STARVATION = "starvation"
ALL_TIERS = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of an audit.

    :param late_seconds: how long after it was due; None if it was in time,
        or nothing was due
    :param overlaps: the plans of others that were being carried out
    """

    plan: values.Plan
    late_seconds: float | None
    overlaps: tuple[values.Plan, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A run that is due, and is not there yet."""

    audit: values.Audit
    due_at: values.Moment
    late_seconds: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An audit that has failed, or was cancelled before it made a plan."""

    audit: values.Audit
    at: values.Moment
    overlaps: tuple[values.Plan, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Breaches:
    """For how long promises were not kept.

    :param tiers: by Watcher's records
    :param series: by host, as the exporter counted; None where there is none
    """

    tiers: tuple[values.Breach, ...]
    series: values.Series | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """What happened since a moment."""

    since: values.Moment
    runs: tuple[Run, ...]
    missing: tuple[Missing, ...]
    failures: tuple[Failure, ...]
    breaches: Breaches


def course_of(report: values.Report) -> Course | None:
    """The course of a report; None where none was asked for."""
    if report.since is None:
        return None
    met = _met(report)
    return Course(
        since=report.since,
        runs=tuple(
            Run(
                plan=plan,
                late_seconds=_late(plan, report.grace_seconds),
                overlaps=_overlaps(report, plan, met),
            )
            for plan in report.runs
        ),
        missing=tuple(_missing(report)),
        failures=tuple(_failures(report, met)),
        breaches=Breaches(
            tiers=tuple(_of_records(report.runs)), series=report.series
        ),
    )


def _late(plan: values.Plan, grace_seconds: float) -> float | None:
    if plan.due_at is None:
        return None
    late = plan.made_at.seconds - plan.due_at.seconds
    return late if late > grace_seconds else None


def _met(report: values.Report) -> tuple[values.Plan, ...]:
    """Plans that were carried out, each once."""
    found = {
        plan.uuid: plan
        for plan in (*report.runs, *report.others)
        if plan.executed is not None
    }
    return tuple(
        sorted(found.values(), key=lambda p: (p.made_at.seconds, p.uuid))
    )


def _overlaps(
    report: values.Report,
    plan: values.Plan,
    met: Iterable[values.Plan],
) -> tuple[values.Plan, ...]:
    audit = report.audit(plan.audit)
    begin = plan.made_at
    if audit is not None and audit.kind == "ONESHOT":
        # Of these alone Watcher tells when they began.
        begin = audit.created_at
    return tuple(
        other
        for other in met
        if other.audit != plan.audit
        and _goal(report, other) == _goal(report, plan)
        and _carried_out(other, begin, plan.made_at)
    )


def _goal(report: values.Report, plan: values.Plan) -> str | None:
    audit = report.audit(plan.audit)
    return None if audit is None else audit.goal


def _carried_out(
    plan: values.Plan,
    begin: values.Moment,
    end: values.Moment,
    starting_seconds: float = 0.0,
) -> bool:
    """Whether it was between two moments.

    :param starting_seconds: how much before its first migration it may have
        been under way
    """
    if plan.executed is None:
        return False
    started, ended = plan.executed
    begun = max(plan.made_at.seconds, started.seconds - starting_seconds)
    return begun < end.seconds and (ended is None or begin < ended)


def _missing(report: values.Report) -> Iterable[Missing]:
    for audit in report.audits:
        if audit.uuid not in report.told:
            continue
        if audit.repeats and audit.due_at is not None:
            late = report.taken_at.seconds - audit.due_at.seconds
            if late > report.grace_seconds:
                yield Missing(
                    audit=audit, due_at=audit.due_at, late_seconds=late
                )


def _failures(
    report: values.Report, met: Iterable[values.Plan]
) -> Iterable[Failure]:
    made = {plan.audit for plan in report.runs}
    for audit in report.audits:
        at = audit.changed_at or audit.created_at
        if audit.uuid not in report.told:
            continue
        if report.since is None or at < report.since:
            continue
        given_up = audit.state == "CANCELLED" and audit.uuid not in made
        if audit.state == "FAILED" or given_up:
            yield Failure(
                audit=audit,
                at=at,
                overlaps=tuple(
                    plan
                    for plan in met
                    if plan.audit != audit.uuid
                    and _carried_out(
                        plan, audit.created_at, at, _STARTING_SECONDS
                    )
                ),
            )


@dataclasses.dataclass(frozen=True, slots=True)
class _Finding:
    """What a run found of one tier, and when its own plan had cured it."""

    at: float
    over: bool
    cured_at: float | None


def _of_records(
    runs: Iterable[values.Plan],
) -> Iterable[values.Breach]:
    """Minutes by tier, in the order of their names; starvation last."""
    findings: dict[tuple[str, str], dict[str, list[_Finding]]] = {}
    for plan in runs:
        for key, found in _found(plan):
            findings.setdefault(key, {}).setdefault(plan.audit, []).append(
                found
            )
    for (kind, tier), by_audit in sorted(findings.items()):
        spans = [span for one in by_audit.values() for span in _spans(one)]
        yield values.Breach(
            host=None,
            tier=tier,
            kind=kind,
            minutes=round(_union(spans) / 60, 1),
            # Breaches begin before somebody finds them.
            at_least=any(
                found.over for one in by_audit.values() for found in one
            ),
        )


def _found(
    plan: values.Plan,
) -> Iterable[tuple[tuple[str, str], _Finding]]:
    at = plan.made_at.seconds
    for one in changes.of_tiers(plan):
        cured = one.after == 0 and plan.ended_at is not None
        yield (
            (QUOTA, one.tier),
            _Finding(
                at,
                one.before > 0,
                plan.ended_at.seconds if cured and plan.ended_at else None,
            ),
        )
    starved = plan.indicators.get("instances_starved_before")
    if starved is not None:
        # That a migration relieved somebody is known from the next run.
        yield (STARVATION, ALL_TIERS), _Finding(at, starved > 0, None)


def _spans(findings: list[_Finding]) -> Iterable[tuple[float, float]]:
    """From when to when something was over, as far as it is proven."""
    ordered = sorted(findings, key=lambda found: found.at)
    for place, found in enumerate(ordered):
        if not found.over:
            continue
        following = ordered[place + 1] if place + 1 < len(ordered) else None
        if found.cured_at is not None:
            end = found.cured_at
            if following is not None:
                end = min(end, following.at)
            yield found.at, max(found.at, end)
        elif following is not None and following.over:
            yield found.at, following.at


def _union(spans: Iterable[tuple[float, float]]) -> float:
    """Seconds that at least one of them covers."""
    total, until = 0.0, float("-inf")
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total
