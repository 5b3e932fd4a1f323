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
from collections.abc import Iterator, Mapping, Sequence
import json
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import diagnosis
from watcher_cputier import explanation
from watcher_cputier import extensions
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
from watcher_cputier.cli import settings as told
from watcher_cputier.goals import indicators
from watcher_cputier.osc import base
from watcher_cputier.osc import flavors
from watcher_cputier.osc import picture
from watcher_cputier.osc import settings
from watcher_cputier.strategies import budget
from watcher_cputier.strategies import rounds


class Plan(base.Judging, base.Lister):
    """Plan as an audit of the whole cloud would, and change nothing.

    The migrations are listed in the order of their value. What else there is
    to say (what stays over quota and why, what would help, a summary) is
    written to standard error, so that other programs can read the list.

    With --what-if the plan is one for a cloud that is not so. Rows without a
    step are then what was assumed: the host that an instance would have, or
    none. Exit status 1 says that an instance would have none.
    """

    failed = False

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
            "--what-if",
            metavar="<edit>",
            action="append",
            default=[],
            help="plan as if something were otherwise; may be given several "
            "times, and each edit sees what those before it left. The edits "
            f"are {', '.join(whatif.FORMS.values())}",
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
        base.add_html(parser)
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it; 1 if an instance of an edit has no host."""
        status: int = super().run(parsed_args)
        return status or int(self.failed)

    def parameters(
        self, parsed_args: argparse.Namespace
    ) -> parameters.Parameters:
        """The parameters that the command line gives."""
        return settings.validated(_given(parsed_args))

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each migration, or for each host of an explanation."""
        files.check_writable(parsed_args.report, parsed_args.html)
        params = self.parameters(parsed_args)
        edits = whatif.parse(parsed_args.what_if)
        conf = self.configuration(parsed_args)
        added = extensions.load(conf)
        cluster = picture.get_measured(
            self.connection,
            self.reader,
            conf,
            params,
            # Placement cannot be asked later about what is not so.
            details=None
            if edits
            else lambda seen: planner.hosts_to_detail(seen, params),
        )
        supposed = None
        if edits:
            supposed = self._supposed(
                cluster, _given(parsed_args), edits, added
            )
            cluster = supposed.cluster
            params = settings.validated(supposed.parameters)
            self.failed = not supposed.fits
        verdict = diagnosis.diagnose(cluster, params)
        summary = report.idle(params, cluster.telemetry is not None)
        made = planner.Plan()
        if not summary:
            cluster, verdict, made = (
                rounds.plan(self.reader, cluster, verdict, params, added)
                if supposed is None
                else (
                    cluster,
                    verdict,
                    _planned(cluster, verdict, params, added),
                )
            )
            verdict = lending.lend(cluster, verdict, params)
            summary = report.summary(cluster, verdict, made)
        if supposed is not None:
            summary = suppositions.summary(summary)
        order = schedule.arrange(cluster, made.migrations, verdict, params)
        explained = None
        if parsed_args.explain is not None:
            explained = explanation.explain(
                cluster, verdict, params, made, parsed_args.explain
            )
        if (parsed_args.report, parsed_args.html) != (None, None):
            document = _document(
                cluster, verdict, params, made, order, explained, supposed
            )
            document["summary"] = summary
            document["reading"] = self.reader.reading
            _write(parsed_args, document)
        if supposed is not None:
            self._tell_supposed(supposed)
        if explained is not None:
            rows = self._explained(explained)
        else:
            rows = _migrations(order, supposed)
            self._tell_rest(cluster, verdict, made)
        self.tell(summary)
        if order.steps:
            self.tell(report.timing(order))
        return rows

    def _supposed(
        self,
        cluster: model.Cluster,
        given: Mapping[str, Any],
        edits: Sequence[whatif.Edit],
        added: constraints.Extensions,
    ) -> whatif.Hypothesis:
        """The cloud as it would be."""
        seconds = settings.validated(given).time_budget_seconds
        sold: tuple[model.Flavor, ...] = ()
        if any(edit.kind == whatif.ADD_INSTANCES for edit in edits):
            sold = tuple(
                one.flavor for one in flavors.get_flavors(self.reader)
            )
        return whatif.apply(
            cluster,
            given,
            edits,
            flavors=sold,
            extensions=added,
            expired=budget.Budget(seconds).search(),
        )

    def _tell_supposed(self, supposed: whatif.Hypothesis) -> None:
        for title, lines in suppositions.titled(supposed):
            self.tell(f"{title}:" if lines else title)
            for line in lines:
                self.tell(line, level=1)

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


def _given(parsed_args: argparse.Namespace) -> dict[str, Any]:
    return told.given(
        parsed_args.set,
        max_migrations=parsed_args.max_migrations,
        drain_hosts=parsed_args.drain,
    )


def _planned(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    params: parameters.Parameters,
    added: constraints.Extensions,
) -> planner.Plan:
    """The plan for a cloud that nobody can be asked about."""
    time = budget.Budget(params.time_budget_seconds)
    return planner.plan(cluster, verdict, params, added, expired=time.search())


def _document(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    params: parameters.Parameters,
    made: planner.Plan,
    order: schedule.Schedule,
    explained: explanation.OfInstance | explanation.OfHost | None,
    supposed: whatif.Hypothesis | None,
) -> dict[str, Any]:
    document = report.plan_document(
        cluster,
        verdict,
        made,
        schedule=order,
        indicators=indicators.values(made, [t.name for t in cluster.tiers]),
        starved=starvation.judge(cluster, verdict, params),
    )
    if explained is not None:
        document["explanation"] = report.explanation_document(explained)
    if supposed is not None:
        document["what_if"] = suppositions.document(supposed)
    return document


def _write(
    parsed_args: argparse.Namespace, document: Mapping[str, Any]
) -> None:
    """The files that are asked for."""
    if parsed_args.report is not None:
        files.write(parsed_args.report, json.dumps(document, indent=2) + "\n")
    if parsed_args.html is not None:
        files.write(parsed_args.html, pages.plan(document))


def _migrations(
    order: schedule.Schedule, supposed: whatif.Hypothesis | None
) -> base.Rows:
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
            *_assumed(supposed),
            *(
                (
                    base.Told(number),
                    one.instance.name,
                    one.instance.uuid,
                    base.Told(one.tier),
                    one.units,
                    base.Told(one.source),
                    base.Told(one.target),
                    base.Numbers([place + 1 for place in step.needs]),
                    report.why(one),
                )
                for number, step in enumerate(order.steps, start=1)
                for one in (step.migration,)
            ),
        ],
    )


def _assumed(
    supposed: whatif.Hypothesis | None,
) -> Iterator[Sequence[Any]]:
    """Rows of the instances that edits are about; they are no migrations."""
    for outcome in () if supposed is None else supposed.outcomes:
        for one in outcome.placements:
            yield _place(one.instance, one.target, outcome.edit.text)
        for refusal in outcome.unplaced:
            why = f"{outcome.edit.text}: {suppositions.why(refusal)}"
            yield _place(refusal.instance, None, why)


def _place(
    instance: model.Instance, target: str | None, why: str
) -> Sequence[Any]:
    return (
        base.Told(None),
        instance.name,
        instance.uuid,
        base.Told(instance.tier),
        instance.units,
        base.Told(instance.host or None),
        base.Told(target),
        base.Numbers([]),
        why,
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
