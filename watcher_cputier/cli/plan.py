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

"""``watcher-cputier plan``: what an audit of a scenario would propose."""

import argparse
import dataclasses
import functools
import json
from typing import Any

from watcher_cputier import diagnosis
from watcher_cputier import explanation
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import pages
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import schedule
from watcher_cputier import starvation
from watcher_cputier import suppositions
from watcher_cputier import whatif
from watcher_cputier.cli import files
from watcher_cputier.cli import screen
from watcher_cputier.cli import settings
from watcher_cputier.goals import indicators
from watcher_cputier.strategies import budget


def add_to(commands: Any) -> None:
    """Add the command to those of the program."""
    text = "plan on a scenario as an audit would"
    command = commands.add_parser(
        "plan",
        help=text,
        description=text,
        epilog="The audit's parameters are: "
        + ", ".join(p.name for p in parameters.PARAMETERS),
    )
    command.add_argument(
        "--scenario",
        metavar="FILE",
        required=True,
        help="the scenario, YAML or JSON; - reads stdin",
    )
    command.add_argument(
        "--format",
        choices=("table", "json"),
        default="table",
        help="tables for people (default), or one JSON document",
    )
    command.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="a parameter of the audit, in place of the scenario's own; the "
        "value is JSON or plain text; may be given several times",
    )
    command.add_argument(
        "--explain",
        metavar="INSTANCE|HOST",
        help="why the plan does what it does with an instance or a host, "
        "named by name or uuid",
    )
    command.add_argument(
        "--what-if",
        metavar="EDIT",
        action="append",
        default=[],
        help="plan as if something were otherwise; may be given several "
        f"times. The edits are {', '.join(whatif.FORMS.values())}",
    )
    command.add_argument(
        "--html",
        metavar="FILE",
        help="write the plan to this file as a page for a browser, besides",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> str:
    """The plan in words or as JSON.

    :raises TierError: for a scenario or parameter that cannot be planned on
    """
    files.check_writable(arguments.html)
    found = files.read(arguments.scenario)
    given = {**found.parameters, **settings.given(arguments.set)}
    params = parameters.Parameters.of(given)
    supposed = None
    if arguments.what_if:
        supposed = whatif.apply(
            found.cluster,
            given,
            whatif.parse(arguments.what_if),
            expired=budget.Budget(params.time_budget_seconds).search(),
        )
        found = dataclasses.replace(found, cluster=supposed.cluster)
        params = parameters.Parameters.of(supposed.parameters)
        # Somebody has no host then.
        arguments.status = int(not supposed.fits)
    verdict = diagnosis.diagnose(found.cluster, params)
    summary = report.idle(params, found.cluster.telemetry is not None)
    made = planner.Plan()
    if not summary:
        made = planner.plan(
            found.cluster,
            verdict,
            params,
            expired=budget.Budget(params.time_budget_seconds).search(),
        )
        verdict = lending.lend(found.cluster, verdict, params)
        summary = report.summary(found.cluster, verdict, made)
    if supposed is not None:
        summary = suppositions.summary(summary)
    explained = None
    if arguments.explain is not None:
        explained = explanation.explain(
            found.cluster, verdict, params, made, arguments.explain
        )
    order = schedule.arrange(found.cluster, made.migrations, verdict, params)
    document = functools.partial(
        _document,
        found.cluster,
        verdict,
        params,
        made,
        summary,
        order,
        explained,
        supposed,
    )
    if arguments.html is not None:
        files.write(arguments.html, pages.plan(document()))
    if arguments.format == "json":
        return json.dumps(document(), indent=2) + "\n"

    def lay_out(page: screen.Page) -> None:
        if supposed is not None:
            _lay_out_supposed(page, supposed)
        if explained is not None:
            _lay_out_why(page, explained, made, summary)
        else:
            _lay_out(page, found.cluster, verdict, made, summary, order)

    return screen.rendered(lay_out)


def _document(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    params: parameters.Parameters,
    made: planner.Plan,
    summary: str,
    order: schedule.Schedule,
    explained: explanation.OfInstance | explanation.OfHost | None,
    supposed: whatif.Hypothesis | None,
) -> dict[str, Any]:
    tiers = [tier.name for tier in cluster.tiers]
    document = report.plan_document(
        cluster,
        verdict,
        made,
        schedule=order,
        indicators=indicators.values(made, tiers),
        starved=starvation.judge(cluster, verdict, params),
    )
    document["summary"] = summary
    if supposed is not None:
        document["what_if"] = suppositions.document(supposed)
    if explained is not None:
        document["explanation"] = report.explanation_document(explained)
    return document


def _lay_out_supposed(page: screen.Page, supposed: whatif.Hypothesis) -> None:
    for title, lines in suppositions.titled(supposed):
        page.title(title)
        for line in lines:
            page.item(line, level=1)
    page.title("The plan for it")


def _lay_out(
    page: screen.Page,
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    made: planner.Plan,
    summary: str,
    order: schedule.Schedule,
) -> None:
    page.table(report.host_rows(cluster, verdict))
    if made.relief is not None and made.relief.before:
        page.title("Starved, in CPUs per vCPU")
        page.table(report.starved_rows(made.relief.before))
    _lay_out_migrations(page, made)
    if made.unresolved:
        page.title("Unresolved")
        for item in made.unresolved:
            first, *rest = report.unresolved(item)
            page.item(first)
            for line in rest:
                page.item(line, level=1)
    for title, lines in report.advice(made):
        page.title(title)
        for line in lines:
            page.item(line)
    findings = (*cluster.findings, *verdict.findings)
    if findings:
        page.title("Findings")
        for finding in findings:
            page.item(f"{finding.kind}: {finding.text}")
    page.title("")
    page.item(summary)
    if order.steps:
        page.item(report.timing(order))


def _lay_out_migrations(page: screen.Page, made: planner.Plan) -> None:
    for title, migrations in (
        ("Migrations", made.migrations),
        ("Deferred by max_migrations", made.deferred),
    ):
        if migrations:
            page.title(title)
            page.table(report.migration_rows(migrations))


def _lay_out_why(
    page: screen.Page,
    explained: explanation.OfInstance | explanation.OfHost,
    made: planner.Plan,
    summary: str,
) -> None:
    if isinstance(explained, explanation.OfHost):
        _lay_out_host(page, explained, made)
    else:
        for number, moment in enumerate(explained.moments):
            if number:
                page.title("")
            page.item(report.moment_title(explained.instance, moment))
            for line in moment.why:
                page.item(line, level=1)
            if moment.fares:
                page.title("How the other hosts fared")
                page.table(report.fare_rows(moment.fares))
                for line in report.fare_counts(moment.fares):
                    page.item(line)
    page.title("")
    page.item(summary)


def _lay_out_host(
    page: screen.Page, explained: explanation.OfHost, made: planner.Plan
) -> None:
    name = explained.host.name
    page.item(f"Host {name}")
    for line in explained.why:
        page.item(line, level=1)
    if explained.balances:
        page.title("Units")
        page.table(report.balance_rows(explained.balances))
    for title, migrations in (
        ("Leaving", explained.leaving),
        ("Coming", explained.coming),
    ):
        if migrations:
            page.title(title)
            page.table(report.migration_rows(migrations))
    if explained.staying:
        page.title("Staying")
        page.table(report.stay_rows(explained.staying))
    for title, lines in report.advice(made.about(name)):
        page.title(title)
        for line in lines:
            page.item(line)
