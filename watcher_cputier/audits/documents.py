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

"""A report as data, for other programs and for pages."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from watcher_cputier.audits import changes
from watcher_cputier.audits import course as courses
from watcher_cputier.audits import notices
from watcher_cputier.audits import sentences
from watcher_cputier.audits import values

AUDIT_VERSION = 1


def document(report: values.Report) -> dict[str, Any]:
    """A report as data; members may be added without a new version.

    Times are text such as ``2026-11-21T12:00:03Z``. Units are those of the
    tier's resource class. What is not known is null, never 0::

        {
          "watcher_cputier_audit": 1,
          "taken_at": time,
          "summary": what a reader should know first, in one sentence,
          "sentences": [text],              # all of it
          "audits": [{
            "uuid", "name", "goal", "strategy": text,
            "kind": "ONESHOT" | "CONTINUOUS" | "EVENT",
            "state": as Watcher names it,
            "interval": text | null,        # seconds or cron expression
            "created_at": time, "next_at": time | null,
            "reason": text | null           # why it failed
          }],
          "plans": [{                       # told in detail, oldest first
            "uuid", "audit": uuid, "audit_name", "state": text,
            "reason": text | null,          # its status message
            "made_at": time, "ended_at": time | null,
            "sentences": [text],
            "counts": {outcome: number},    # those that there are
            "indicators": {name: number},
            "tiers": [{                     # units over quota, all hosts
              "tier": text, "before": n, "planned": n, "after": n | null
            }],
            "hosts": [{                     # units held of a tier
              "host", "tier": text, "quota": n | null,
              "before": n | null, "planned": n | null, "after": n | null,
              "left": n, "arrived": n       # by migrations that succeeded
            }],
            "migrations": [{
              "instance": {"name", "uuid"}, "source", "target": text,
              "tier": text | null, "units": n | null,
              "concern": "quota" | "starvation" | "mixing" | "room"
                         | "drain" | null,
              "reason": text,               # "" for a plain migrate
              "outcome": "moved" | "moving" | "planned" | "skipped"
                         | "failed" | "dropped",
              "explanation": text | null,   # of skipped and failed ones
              "action": uuid,
              "began_at": time | null, "ended_at": time | null,
              "seconds": number | null
            }],
            "other_actions": n,
            "deferred": [...] | null,       # of a record, as in the document
            "unresolved": [...] | null,     # of a plan; null without one
            "advice": [text] | null
          }],
          "course": null | {                # with --since
            "since": time, "until": time, "grace_seconds": number,
            "sentences": [text],
            "runs": [{                      # oldest first
              "at": time, "audit": uuid, "audit_name": text, "plan": uuid,
              "state": text,
              "planned": n, "moved": n, "skipped": n, "failed": n,
              "excess": {"before": n, "planned": n, "after": n | null}
                        | null,
              "tiers": as above,
              "due_at": time | null, "late_seconds": number | null,
              "overlaps": [uuid of a plan that was being carried out]
            }],
            "missing": [{                   # runs that are still awaited
              "audit": uuid, "audit_name", "due_at": time,
              "late_seconds": number
            }],
            "failures": [{                  # audits without a plan
              "audit": uuid, "audit_name", "at": time, "state": text,
              "reason": text | null, "overlaps": as above
            }],
            "breaches": {
              "tiers": [{                   # by Watcher's records
                "tier": text,               # "" for all tiers together
                "kind": "quota" | "starvation",
                "minutes": number, "at_least": bool
              }],
              "source": text | null,        # of the exporter's series
              "begin": time | null, "end": time | null,  # they cover
              "unobserved": {kind: minutes} | null,      # of which not
              "hosts": null | [{            # by the exporter's series
                "host", "tier", "kind": as above,
                "minutes": number, "at_least": bool,
                "peak_units": number | null
              }]
            }
          },
          "notices": [{                     # one for each project
            "project": id | null, "project_name": text | null,
            "text": what it may be sent,
            "instances": [{
              "name", "uuid", "tier": text | null, "at": time | null,
              "outcome": as above, "why": text
            }]
          }],
          "findings": [text]                # what could not be found out
        }
    """
    told = courses.course_of(report)
    return {
        "watcher_cputier_audit": AUDIT_VERSION,
        "taken_at": report.taken_at.text,
        "summary": sentences.summary(report),
        "sentences": list(sentences.of_report(report)),
        "audits": [_audit(one) for one in report.audits],
        "plans": [_plan(report, one) for one in report.plans],
        "course": None if told is None else _course(report, told),
        "notices": [notice_document(one) for one in notices.of(report)],
        "findings": list(report.findings),
    }


def _text(moment: values.Moment | None) -> str | None:
    return None if moment is None else moment.text


def _audit(one: values.Audit) -> dict[str, Any]:
    return {
        "uuid": one.uuid,
        "name": one.name,
        "kind": one.kind,
        "state": one.state,
        "goal": one.goal,
        "strategy": one.strategy,
        "interval": one.interval,
        "created_at": one.created_at.text,
        "next_at": _text(one.next_at),
        "reason": one.message or None,
    }


def _plan(report: values.Report, plan: values.Plan) -> dict[str, Any]:
    counted = Counter(one.outcome(plan.state) for one in plan.migrations)
    record = plan.record
    return {
        "uuid": plan.uuid,
        "audit": plan.audit,
        "audit_name": report.name_of(plan),
        "state": plan.state,
        "reason": plan.message or None,
        "made_at": plan.made_at.text,
        "ended_at": _text(plan.ended_at),
        "sentences": list(sentences.of_plan(report, plan)),
        "counts": {name: counted[name] for name in counted},
        "indicators": dict(plan.indicators),
        "tiers": [tier_document(one) for one in changes.of_tiers(plan)],
        "hosts": [
            {
                "host": one.host,
                "tier": one.tier,
                "quota": one.quota,
                "before": one.before,
                "planned": one.planned,
                "after": one.after,
                "left": one.left,
                "arrived": one.arrived,
            }
            for one in changes.of_hosts(plan)
        ],
        "migrations": [
            migration_document(one, plan.state) for one in plan.migrations
        ],
        "other_actions": plan.others,
        "deferred": None if record is None else list(record.deferred),
        "unresolved": None if record is None else list(record.unresolved),
        "advice": None if record is None else list(record.advice),
    }


def tier_document(one: changes.OfTier) -> dict[str, Any]:
    """Units of a tier over quota, as data."""
    return {
        "tier": one.tier,
        "before": one.before,
        "planned": one.planned,
        "after": one.after,
    }


def migration_document(
    one: values.Migration, plan_state: str
) -> dict[str, Any]:
    """One migration as data."""
    return {
        "instance": {"name": one.instance, "uuid": one.uuid},
        "source": one.source,
        "target": one.target,
        "tier": one.tier,
        "units": one.units,
        "concern": one.concern,
        "reason": one.reason,
        "outcome": one.outcome(plan_state),
        "explanation": sentences.explanation(one, plan_state) or None,
        "action": one.action,
        "began_at": _text(one.began_at),
        "ended_at": _text(one.ended_at),
        "seconds": one.seconds,
    }


def _course(report: values.Report, told: courses.Course) -> dict[str, Any]:
    return {
        "since": told.since.text,
        "until": report.taken_at.text,
        "grace_seconds": report.grace_seconds,
        "sentences": list(sentences.of_course(report, told)),
        "runs": [run_document(report, one) for one in told.runs],
        "missing": [
            {
                "audit": one.audit.uuid,
                "audit_name": one.audit.name,
                "due_at": one.due_at.text,
                "late_seconds": one.late_seconds,
            }
            for one in told.missing
        ],
        "failures": [
            {
                "audit": one.audit.uuid,
                "audit_name": one.audit.name,
                "at": one.at.text,
                "state": one.audit.state,
                "reason": one.audit.message or None,
                "overlaps": [each.uuid for each in one.overlaps],
            }
            for one in told.failures
        ],
        "breaches": _breaches(told.breaches),
    }


def run_document(report: values.Report, one: courses.Run) -> dict[str, Any]:
    """One run of an audit, as data."""
    plan = one.plan
    excess = changes.in_all(plan)
    return {
        "at": plan.made_at.text,
        "audit": plan.audit,
        "audit_name": report.name_of(plan),
        "plan": plan.uuid,
        "state": plan.state,
        "planned": len(plan.migrations),
        "moved": len(plan.outcomes(values.MOVED)),
        "skipped": len(plan.outcomes(values.SKIPPED)),
        "failed": len(plan.outcomes(values.FAILED)),
        "excess": None
        if excess is None
        else {
            "before": excess.before,
            "planned": excess.planned,
            "after": excess.after,
        },
        "tiers": [tier_document(each) for each in changes.of_tiers(plan)],
        "due_at": _text(plan.due_at),
        "late_seconds": one.late_seconds,
        "overlaps": [each.uuid for each in one.overlaps],
    }


def _breaches(found: courses.Breaches) -> dict[str, Any]:
    series = found.series
    return {
        "tiers": [
            {
                "tier": one.tier,
                "kind": one.kind,
                "minutes": one.minutes,
                "at_least": one.at_least,
            }
            for one in found.tiers
        ],
        "source": None if series is None else series.source,
        "begin": None if series is None else _text(series.begin),
        "end": None if series is None else _text(series.end),
        "unobserved": None if series is None else dict(series.unobserved),
        "hosts": None
        if series is None or series.begin is None
        else [breach_document(one) for one in series.breaches],
    }


def breach_document(one: values.Breach) -> dict[str, Any]:
    """One breach of a host as data."""
    return {
        "host": one.host,
        "tier": one.tier,
        "kind": one.kind,
        "minutes": one.minutes,
        "at_least": one.at_least,
        "peak_units": one.peak_units,
    }


def notice_document(one: notices.Notice) -> Mapping[str, Any]:
    """A notice as data: nothing in it is of hosts or of other projects."""
    return {
        "project": one.project,
        "project_name": one.project_name,
        "text": one.text,
        "instances": [
            {
                "name": each.name,
                "uuid": each.uuid,
                "tier": each.tier,
                "at": _text(each.at),
                "outcome": each.outcome,
                "why": each.why,
            }
            for each in one.instances
        ],
    }
