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

"""``openstack tier audit report``: what was planned, and what became of it."""

import argparse
from collections.abc import Iterable, Sequence
import dataclasses
import datetime
import json
import math
import pathlib
import re
import time
from typing import Any

from watcher_cputier import audits
from watcher_cputier import errors
from watcher_cputier import pages
from watcher_cputier.audits import values
from watcher_cputier.cli import files
from watcher_cputier.datasources import audits as reading
from watcher_cputier.datasources import breaches
from watcher_cputier.datasources import prometheus
from watcher_cputier.osc import base

GRACE_SECONDS = 60
_SPAN = re.compile(r"(?P<count>[0-9]+)(?P<unit>[mhdw])")
_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


class AuditReport(base.Lister):
    """Report what an audit planned, and what became of it.

    The migrations are listed with their outcomes; the same in sentences, with
    what is left over quota, is written to standard error. Of an audit that
    runs again and again the newest action plan is told; --since tells the
    course of its runs, or without an audit of all runs.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "audit",
            metavar="<audit|action-plan>",
            nargs="?",
            help="an audit by name or UUID, or an action plan by UUID; may "
            "be left out with --since",
        )
        parser.add_argument(
            "--since",
            metavar="<time>",
            help="report the course from then to now: a time in UTC such as "
            "2026-11-21T12:00, or an age such as 90m, 24h, 7d or 2w",
        )
        parser.add_argument(
            "--breaches",
            action="store_true",
            help="with --since, list for how many minutes each host was over "
            "a quota or had starved instances, instead of the runs",
        )
        parser.add_argument(
            "--grace",
            metavar="<seconds>",
            type=float,
            default=GRACE_SECONDS,
            help="how much later than its interval says a run is not yet "
            f"late (default: {GRACE_SECONDS})",
        )
        parser.add_argument(
            "--prometheus",
            metavar="<url>",
            help="the Prometheus that has the series of `openstack tier "
            "metrics`, for minutes by host (default: that of "
            "[prometheus_client] in a --tier-config file, else the cloud's "
            "metric-storage)",
        )
        parser.add_argument(
            "--tenant",
            action="store_true",
            help="write a notice for each project instead: which of its "
            "instances moved, when and why, without hosts and other projects; "
            "so do then --report and --html",
        )
        parser.add_argument(
            "--record",
            metavar="<file>",
            help="the <uuid>.report.json that the decision engine left in "
            "[cputier] record_directory: adds what Watcher cannot store",
        )
        parser.add_argument(
            "--report",
            metavar="<file>",
            help="write the whole report to this file as JSON",
        )
        parser.add_argument(
            "--html",
            metavar="<file>",
            help="write the whole report to this file as a web page",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each migration, run, breach or notice."""
        _check(parsed_args)
        files.check_writable(parsed_args.report, parsed_args.html)
        now = time.time()
        report = self._report(parsed_args, now)
        document = audits.document(report)
        if parsed_args.tenant:
            # A report for tenants names no hosts, in whatever form.
            document = {
                member: document[member]
                for member in (
                    "watcher_cputier_audit",
                    "taken_at",
                    "notices",
                )
            }
        if parsed_args.report is not None:
            files.write(
                parsed_args.report, json.dumps(document, indent=2) + "\n"
            )
        if parsed_args.html is not None:
            files.write(parsed_args.html, pages.audit(document))
        if parsed_args.tenant:
            for text in report.findings:
                self.tell(text)
            return self._notices(document)
        for text in (*document["sentences"], *report.findings):
            self.tell(text)
        if parsed_args.breaches:
            return _breaches(document["course"]["breaches"])
        if parsed_args.since is not None:
            return _runs(document["course"])
        return _migrations(document["plans"])

    # What is read.

    def _report(
        self, parsed_args: argparse.Namespace, now: float
    ) -> values.Report:
        watcher = reading.Watcher(reading.adapter(self.connection))
        audit, plan = None, None
        if parsed_args.audit is not None:
            audit, plan = watcher.find(parsed_args.audit)
        report = values.Report(
            taken_at=reading.moment_at(now),
            audits=() if audit is None else (audit,),
            grace_seconds=parsed_args.grace,
        )
        if parsed_args.since is not None:
            if plan is not None and audit is not None:
                raise errors.ParameterError(
                    "--since is for audits, and this is an action plan",
                    cure=f"Name its audit, {audit.name}",
                )
            report = self._course(
                parsed_args,
                watcher,
                report,
                reading.moment_at(_since(parsed_args.since, now)),
            )
        elif audit is not None:
            report = self._newest(watcher, report, audit, plan)
        report = self._with_nova(report, parsed_args.tenant)
        if parsed_args.record is not None:
            report = _recorded(report, parsed_args.record)
        return report

    def _newest(
        self,
        watcher: reading.Watcher,
        report: values.Report,
        audit: values.Audit,
        plan: values.Plan | None,
    ) -> values.Report:
        """An action plan, or the newest one of an audit."""
        if plan is not None:
            return dataclasses.replace(
                report, plans=(watcher.with_actions(plan),)
            )
        plans = watcher.get_plans(audit.uuid)
        findings = report.findings
        if len(plans) > 1:
            text = (
                f"Told is the newest of {len(plans)} action plans of audit "
                f"{audit.name}; name another one, or tell the course with "
                "--since."
            )
            findings += (text,)
        return dataclasses.replace(
            report,
            plans=tuple(watcher.with_actions(one) for one in plans[-1:]),
            findings=findings,
        )

    def _course(
        self,
        parsed_args: argparse.Namespace,
        watcher: reading.Watcher,
        report: values.Report,
        since: values.Moment,
    ) -> values.Report:
        """The runs since then, and whatever they have met."""
        everything = watcher.get_audits()
        told = {one.uuid for one in report.audits} or {
            one.uuid for one in everything if reading.is_ours(one)
        }
        goals = {one.goal for one in everything if one.uuid in told}
        concerned = [one for one in everything if one.goal in goals]
        reach = reading.longest_interval_seconds(concerned)
        plans = watcher.get_plans(
            since=reading.moment_at(since.seconds - reach)
        )
        runs: list[values.Plan] = []
        others: list[values.Plan] = []
        known = []
        for audit in concerned:
            own = [plan for plan in plans if plan.audit == audit.uuid]
            judged, own_plans = reading.with_dues(audit, own)
            known.append(judged if audit.uuid in told else audit)
            for plan in own_plans:
                if audit.uuid in told and plan.made_at >= since:
                    runs.append(plan)
                elif (plan.changed_at or plan.made_at) >= since:
                    others.append(plan)
        orphans = sum(1 for one in plans if not one.audit)
        if orphans:
            text = (
                f"{orphans} action plans have lost their audits, and are not "
                "told."
            )
            report = dataclasses.replace(
                report, findings=(*report.findings, text)
            )
        report = dataclasses.replace(
            report,
            since=since,
            audits=tuple(known),
            told=frozenset(told),
            runs=_ordered(watcher.with_actions(one) for one in runs),
            others=_ordered(watcher.with_actions(one) for one in others),
        )
        return self._with_series(parsed_args, report)

    def _with_series(
        self, parsed_args: argparse.Namespace, report: values.Report
    ) -> values.Report:
        """The exporter's series, where there is a Prometheus.

        One that is named has to answer; of others that do not, the report
        says so.
        """
        assert report.since is not None
        conf = self.configuration(parsed_args)
        if parsed_args.prometheus is not None:
            source = prometheus.named(parsed_args.prometheus, conf)
            found = breaches.get_series(source, report.since, report.taken_at)
            return dataclasses.replace(report, series=found)
        try:
            known = breaches.configured(conf, self.connection)
            if known is None:
                return report
            return dataclasses.replace(
                report,
                series=breaches.get_series(
                    known, report.since, report.taken_at
                ),
            )
        except errors.TierError as exc:
            return dataclasses.replace(
                report, findings=(*report.findings, str(exc))
            )

    def _with_nova(self, report: values.Report, tenant: bool) -> values.Report:
        """Nova's word on the migrations; for tenants, whose they are."""
        compute = self.reader.nova
        try:
            report = dataclasses.replace(
                report,
                plans=reading.with_lives(compute, report.plans),
                runs=reading.with_lives(compute, report.runs),
                others=reading.with_lives(compute, report.others),
            )
        except errors.ServiceError as exc:
            if tenant:
                raise
            text = (
                "The outcomes are Watcher's word alone, Nova could not be "
                f"asked: {exc}"
            )
            return dataclasses.replace(
                report, findings=(*report.findings, text)
            )
        if not tenant:
            return report
        report = dataclasses.replace(
            report,
            plans=reading.with_projects(compute, report.plans),
            runs=reading.with_projects(compute, report.runs),
        )
        projects = {
            one.project
            for plan in (*report.plans, *report.runs)
            for one in plan.migrations
            if one.project is not None
        }
        return dataclasses.replace(
            report,
            project_names=reading.get_project_names(self.connection, projects),
        )

    # What is written.

    def _notices(self, document: dict[str, Any]) -> base.Rows:
        if not document["notices"]:
            self.tell("Nothing has moved: there is nobody to be told.")
        for place, notice in enumerate(document["notices"]):
            if place:
                self.tell("")
            for line in notice["text"].splitlines():
                self.tell(line)
        return (
            (
                "Project",
                "Project Name",
                "Instance",
                "ID",
                "Tier",
                "Outcome",
                "At",
                "Why",
            ),
            [
                (
                    base.Told(notice["project"]),
                    base.Told(notice["project_name"]),
                    one["name"],
                    one["uuid"],
                    base.Told(one["tier"]),
                    one["outcome"],
                    base.Told(one["at"]),
                    one["why"],
                )
                for notice in document["notices"]
                for one in notice["instances"]
            ],
        )


def _check(parsed_args: argparse.Namespace) -> None:
    """What does not go together.

    :raises ParameterError: that says so
    """
    if parsed_args.since is None:
        if parsed_args.audit is None:
            raise errors.ParameterError(
                "there is nothing to report on",
                cure="Name an audit or an action plan, or give --since",
            )
        if parsed_args.breaches:
            raise errors.ParameterError(
                "--breaches lists a course over time",
                cure="Give --since as well",
            )
    elif parsed_args.record is not None:
        raise errors.ParameterError(
            "--record is of one run, and --since tells of many",
            cure="Leave one of them out",
        )
    if not 0 <= parsed_args.grace < math.inf:
        raise errors.ParameterError(
            f"{parsed_args.grace:g} is no number of seconds",
            where="--grace",
            cure=f"Give 0 or more; the default is {GRACE_SECONDS}",
        )


def _since(text: str, now: float) -> float:
    """A time or an age, in seconds since the epoch.

    :raises ParameterError: if it is neither, or in the future
    """
    span = _SPAN.fullmatch(text)
    try:
        if span is not None:
            found = now - int(span["count"]) * _SECONDS[span["unit"]]
            reading.moment_at(found)
            return found
        told = datetime.datetime.fromisoformat(text)
        found = reading.moment(told).seconds
    except (ValueError, OverflowError, OSError) as exc:
        raise errors.ParameterError(
            f"{text!r} is neither a time nor an age",
            where="--since",
            cure="Write it as 2026-11-21T12:00 (UTC), 90m, 24h, 7d or 2w",
        ) from exc
    if found > now:
        raise errors.ParameterError(
            f"{text} is in the future",
            where="--since",
            cure="Times without a zone are UTC",
        )
    return found


def _ordered(plans: Iterable[values.Plan]) -> tuple[values.Plan, ...]:
    return tuple(sorted(plans, key=lambda plan: (plan.made_at, plan.uuid)))


def _recorded(report: values.Report, name: str) -> values.Report:
    """A report with what a record tells besides.

    :raises RecordError: if it cannot be used
    """
    try:
        document = json.loads(pathlib.Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as exc:
        raise audits.RecordError(
            getattr(exc, "strerror", None) or str(exc),
            where=name,
            cure="Name a file of [cputier] record_directory that can be read",
        ) from exc
    try:
        failure = audits.failure_of(document)
        if failure is not None:
            return dataclasses.replace(
                report,
                findings=(*report.findings, f"The run failed: {failure}"),
            )
        if not report.plans:
            raise audits.RecordError(
                "the audit has no action plan that it could belong to"
            )
        return dataclasses.replace(
            report,
            plans=tuple(
                audits.with_record(plan, document) for plan in report.plans
            ),
        )
    except audits.RecordError as exc:
        raise audits.RecordError(exc.what, where=name, cure=exc.cure) from exc


def _migrations(plans: Sequence[dict[str, Any]]) -> base.Rows:
    return (
        (
            "Instance",
            "ID",
            "Tier",
            "Units",
            "Source",
            "Target",
            "Outcome",
            "Ended",
            "Seconds",
            "Why",
            "Explanation",
        ),
        [
            (
                one["instance"]["name"],
                one["instance"]["uuid"],
                base.Told(one["tier"]),
                base.Told(one["units"]),
                one["source"],
                one["target"],
                one["outcome"],
                base.Told(one["ended_at"]),
                base.Told(one["seconds"]),
                one["reason"],
                base.Told(one["explanation"]),
            )
            for plan in plans
            for one in plan["migrations"]
        ],
    )


def _runs(course: dict[str, Any]) -> base.Rows:
    return (
        (
            "At",
            "Audit",
            "Plan",
            "State",
            "Planned",
            "Moved",
            "Skipped",
            "Failed",
            "Excess Before",
            "Excess After",
            "Late Seconds",
            "Overlaps",
        ),
        [
            (
                one["at"],
                one["audit_name"],
                one["plan"],
                one["state"],
                one["planned"],
                one["moved"],
                one["skipped"],
                one["failed"],
                base.Told(one["excess"] and one["excess"]["before"]),
                base.Told(one["excess"] and one["excess"]["after"]),
                base.Told(one["late_seconds"]),
                base.Lines(one["overlaps"]),
            )
            for one in course["runs"]
        ],
    )


def _breaches(found: dict[str, Any]) -> base.Rows:
    """By host where the exporter tells, else by tier."""
    rows = found["hosts"]
    if rows is None:
        rows = [one for one in found["tiers"] if one["at_least"]]
    return (
        ("Host", "Tier", "Kind", "Minutes", "At Least", "Peak Units"),
        [
            (
                base.Told(one.get("host")),
                one["tier"],
                one["kind"],
                one["minutes"],
                one["at_least"],
                base.Told(one.get("peak_units")),
            )
            for one in rows
        ],
    )
