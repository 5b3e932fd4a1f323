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


"""``openstack tier plan``: what an audit of the whole cloud would do now."""

import argparse
import json
from typing import Any

from watcher_cputier import diagnosis
from watcher_cputier import explanation
from watcher_cputier import extensions
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import schedule
from watcher_cputier.cli import files
from watcher_cputier.cli import settings as told
from watcher_cputier.goals import indicators
from watcher_cputier.osc import base
from watcher_cputier.osc import picture
from watcher_cputier.osc import settings
from watcher_cputier.strategies import rounds


class Plan(base.Judging, base.Lister):
    """Plan as an audit of the whole cloud would, and change nothing.

    The migrations are listed in the order of their value. What else there is
    to say (what stays over quota and why, what would help, a summary) is
    written to standard error, so that other programs can read the list.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--max-migrations",
            metavar="<number>",
            type=int,
            help="the most migrations, 0 for no limit",
        )
        parser.add_argument(
            "--drain",
            metavar="<host>",
            action="append",
            help="plan as if this host had to be emptied; may be given "
            "several times",
        )
        parser.add_argument(
            "--explain",
            metavar="<instance|host>",
            help="list why the plan does what it does with an instance or a "
            "host, instead of the migrations",
        )
        parser.add_argument(
            "--report",
            metavar="<file>",
            help="write the whole plan to this file as JSON, as "
            "`watcher-cputier plan --format json` has it",
        )
        return parser

    def parameters(
        self, parsed_args: argparse.Namespace
    ) -> parameters.Parameters:
        """The parameters that the command line gives."""
        return settings.validated(
            told.given(
                parsed_args.set,
                max_migrations=parsed_args.max_migrations,
                drain_hosts=parsed_args.drain,
            )
        )

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each migration, or for each host of an explanation."""
        params = self.parameters(parsed_args)
        conf = self.configuration(parsed_args)
        added = extensions.load(conf)
        cluster = picture.get_measured(
            self.connection,
            self.reader,
            conf,
            params,
            details=lambda seen: planner.hosts_to_detail(seen, params),
        )
        verdict = diagnosis.diagnose(cluster, params)
        summary = report.idle(params, cluster.telemetry is not None)
        made = planner.Plan()
        if not summary:
            cluster, verdict, made = rounds.plan(
                self.reader, cluster, verdict, params, added
            )
            verdict = lending.lend(cluster, verdict, params)
            summary = report.summary(cluster, verdict, made)
        order = schedule.arrange(cluster, made.migrations, verdict, params)
        explained = None
        if parsed_args.explain is not None:
            explained = explanation.explain(
                cluster, verdict, params, made, parsed_args.explain
            )
        if parsed_args.report is not None:
            document = _document(cluster, verdict, made, order, explained)
            document["summary"] = summary
            document["reading"] = self.reader.reading
            files.write(
                parsed_args.report, json.dumps(document, indent=2) + "\n"
            )
        if explained is not None:
            rows = self._explained(explained)
        else:
            rows = _migrations(order)
            self._tell_rest(cluster, verdict, made)
        self.tell(summary)
        if order.steps:
            self.tell(report.timing(order))
        return rows

    def _tell_rest(
        self,
        cluster: model.Cluster,
        verdict: diagnosis.Diagnosis,
        made: planner.Plan,
    ) -> None:
        if made.relief is not None:
            for starved in made.relief.before:
                self.tell(f"Starved: {report.condition(starved)}")
        for one in made.deferred:
            self.tell(f"Deferred: {report.sentence(one)}")
        for item in made.unresolved:
            first, *rest = report.unresolved(item)
            self.tell(first)
            for line in rest:
                self.tell(line, level=1)
        for title, lines in report.advice(made):
            self.tell(f"{title}:")
            for line in lines:
                self.tell(line, level=1)
        for finding in (*cluster.findings, *verdict.findings):
            self.tell(f"{finding.kind}: {finding.text}")

    def _explained(
        self, found: explanation.OfInstance | explanation.OfHost
    ) -> base.Rows:
        if isinstance(found, explanation.OfHost):
            self.tell(f"Host {found.host.name}")
            for line in found.why:
                self.tell(line, level=1)
            return _of_host(found)
        for moment in found.moments:
            self.tell(report.moment_title(found.instance, moment))
            for line in moment.why:
                self.tell(line, level=1)
        return _of_instance(found)


def _document(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    made: planner.Plan,
    order: schedule.Schedule,
    explained: explanation.OfInstance | explanation.OfHost | None,
) -> dict[str, Any]:
    document = report.plan_document(
        cluster,
        verdict,
        made,
        schedule=order,
        indicators=indicators.values(made, [t.name for t in cluster.tiers]),
    )
    if explained is not None:
        document["explanation"] = report.explanation_document(explained)
    return document


def _migrations(order: schedule.Schedule) -> base.Rows:
    return (
        (
            "Step",
            "Instance",
            "ID",
            "Tier",
            "Units",
            "Source",
            "Target",
            "Needs",
            "Why",
        ),
        [
            (
                number,
                one.instance.name,
                one.instance.uuid,
                one.tier,
                one.units,
                one.source,
                one.target,
                base.Numbers([place + 1 for place in step.needs]),
                report.why(one),
            )
            for number, step in enumerate(order.steps, start=1)
            for one in (step.migration,)
        ],
    )


def _of_instance(found: explanation.OfInstance) -> base.Rows:
    return (
        ("Step", "Host", "Result", "Weight", "Why"),
        [
            (
                base.Told(moment.number),
                fare.host,
                _result(fare),
                base.Told(None if fare.weight is None else fare.value),
                str(fare.rejection)
                if fare.rejection is not None
                else fare.weight.explain()
                if fare.weight is not None
                else "",
            )
            for moment in found.moments
            for fare in moment.fares
        ],
    )


def _result(fare: explanation.Fare) -> str:
    if fare.taken:
        return "taken"
    return "possible" if fare.rejection is None else "rejected"


def _of_host(found: explanation.OfHost) -> base.Rows:
    moving = [
        *(("leaves", one, one.target) for one in found.leaving),
        *(("comes", one, one.source) for one in found.coming),
    ]
    return (
        ("Instance", "Tier", "Units", "Result", "Other Host", "Why"),
        [
            (
                one.instance.name,
                one.tier,
                one.units,
                result,
                base.Told(other),
                report.why(one),
            )
            for result, one, other in moving
        ]
        + [
            (
                one.instance.name,
                base.Told(one.instance.tier),
                one.instance.units,
                "stays",
                base.Told(None),
                one.why,
            )
            for one in found.staying
        ],
    )
