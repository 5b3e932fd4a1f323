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

"""DomainCapacityEnforcement: Watcher's strategy, a thin adapter.

snapshot -> diagnosis -> plan -> actions and indicators. Everything is read
once; the decision is made by pure functions; this module translates. When
it could not look, the audit fails and says why, in the log and in the
audit's ``status_message``.
"""

from typing import Any

from openstack import connection as sdk
from oslo_config import cfg
from oslo_log import log
from watcher.decision_engine.strategy.strategies import base

from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import extensions
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import schedule
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import recorder
from watcher_cputier.goals import indicators
from watcher_cputier.strategies import backend
from watcher_cputier.strategies import emission
from watcher_cputier.strategies import rounds
from watcher_cputier.strategies import usage

LOG = log.getLogger(__name__)


class DomainCapacityEnforcement(base.BaseStrategy):
    """Domain Capacity Enforcement

    *Description*

    Finds compute hosts that hold more units of a CPU service tier than
    their quota and moves the fewest instances that bring them back.

    *Requirements*

    * Placement, with a resource class per tier (or policy quotas)
    * Nova with live migration
    * For starvation: telemetry of CPU time and steal
    """

    DATASOURCE_METRICS = backend.METRICS

    def __init__(self, config: Any, osc: Any = None) -> None:
        super().__init__(config, osc)
        self._params: parameters.Parameters | None = None

    @classmethod
    def get_name(cls) -> str:
        """Its name in audits, the entry point's."""
        return "domain_capacity_enforcement"

    @classmethod
    def get_display_name(cls) -> str:
        """Its name for people."""
        return "Domain capacity enforcement"

    @classmethod
    def get_translatable_display_name(cls) -> str:
        """Its name, as a translation key."""
        return "Domain capacity enforcement"

    @classmethod
    def get_goal_name(cls) -> str:
        """The goal that it achieves."""
        return "continuous_slo_compliance"

    @classmethod
    def get_config_opts(cls) -> list[cfg.Opt]:
        """Watcher's own, and what ``strategy state`` finds our source by."""
        return [
            *super().get_config_opts(),
            cfg.StrOpt(
                "datasource",
                default="telemetry",
                choices=["telemetry"],
                help="The property of the strategy that `openstack optimize "
                "strategy state` asks for its datasource. Which source that "
                "is, `[cputier_telemetry] datasource` says.",
            ),
        ]

    @property
    def telemetry(self) -> backend.Backend:
        """The datasource, as Watcher asks after it."""
        return backend.Backend(cfg.CONF, cloud.connection(self.osc, cfg.CONF))

    @property
    def datasource_backend(self) -> backend.Backend:
        """The same, where Watcher's own preference is set for it."""
        return self.telemetry

    @classmethod
    def get_schema(cls) -> dict[str, Any]:
        """The JSON schema of its audit parameters."""
        return parameters.json_schema()

    def pre_execute(self) -> None:
        """Nothing: what can fail needs the audit to say so on."""

    def do_execute(self, audit: Any = None) -> None:
        """Look, decide and fill the solution.

        :raises TierError: when it could not look; the reason is saved in
            the audit's status message
        """
        failure = None
        try:
            self._execute(audit)
        except errors.TierError as exc:
            failure = exc
        except Exception as exc:
            _tell(audit, f"Unexpected error, see the log: {exc!r}")
            raise
        # Past the handler, where the log would say everything twice.
        if failure is not None:
            LOG.error("The audit could not look: %s", failure)
            _tell(audit, str(failure))
            raise failure

    def post_execute(self) -> None:
        """Nothing: the indicators are set with the solution."""

    def _execute(self, audit: Any) -> None:
        params = parameters.Parameters.of(self.input_parameters)
        self._planner = params.planner
        idle = report.idle(params)
        if idle:
            LOG.info("%s", idle)
            self._report_nothing()
            return
        connected = cloud.connection(self.osc, cfg.CONF)
        reader = cloud.Reader(connected)
        try:
            self._decide(audit, params, reader, connected)
        except Exception as exc:
            LOG.info("Reading the cloud took %s until then", reader.cost)
            recorder.record_report(
                cfg.CONF,
                audit,
                report.failure_document(exc, reading=reader.reading),
            )
            raise

    def _decide(
        self,
        audit: Any,
        params: parameters.Parameters,
        reader: cloud.Reader,
        connected: sdk.Connection,
    ) -> None:
        """Read, plan, fill the solution and leave the records."""
        cluster = reader.get_cluster(
            self._scope,
            tiers_conf.catalogue(cfg.CONF),
            refresh=self._synchronize if params.refresh_model else None,
            details=lambda seen: planner.hosts_to_detail(seen, params),
            history_seconds=usage.history_seconds(params),
        )
        cluster = usage.with_telemetry(
            reader, cluster, params, cfg.CONF, connected
        )
        recorder.record(cfg.CONF, audit, cluster, self.input_parameters)
        verdict = diagnosis.diagnose(cluster, params)
        seen = cluster
        cluster, verdict, found = rounds.plan(
            reader, cluster, verdict, params, extensions.load(cfg.CONF)
        )
        if cluster is not seen:
            # With Placement's word on the plan's targets.
            recorder.record(cfg.CONF, audit, cluster, self.input_parameters)
        LOG.info("Reading the cloud took %s", reader.cost)
        for finding in emission.preflight(cfg.CONF, params):
            LOG.warning("%s: %s", finding.kind, finding.text)
        found = emission.emit(self.solution, cluster, found, verdict, params)
        verdict = lending.lend(cluster, verdict, params)
        _log(cluster, verdict, found)
        tiers = [tier.name for tier in cluster.tiers]
        recorder.record_report(
            cfg.CONF,
            audit,
            report.plan_document(
                cluster,
                verdict,
                found,
                schedule=schedule.arrange(
                    cluster, found.migrations, verdict, params
                ),
                indicators=indicators.values(found, tiers),
                reading=reader.reading,
            ),
        )
        self._set_indicators(cluster, found)

    def _scope(self) -> compute_model.Scope:
        """The audit's scope.

        Watcher's errors about its model, and those of its scope handlers,
        say too little for an operator: they are put into words here.
        """
        try:
            return compute_model.scope_of(
                self.compute_model, self.audit_scope or []
            )
        except errors.TierError:
            raise
        except Exception as exc:
            raise errors.SnapshotError(
                f"Watcher's compute model cannot be used: {exc!r}",
                where="compute model",
                cure="Check the audit's scope, the collector "
                "([collector] collector_plugins) and the decision engine's "
                "log",
            ) from exc

    def _synchronize(self) -> None:
        """Have Watcher's collector rebuild the compute model."""
        collector = self.collector_manager.get_cluster_model_collector(
            "compute", osc=self.osc
        )
        collector.synchronize()
        self._compute_model = None

    def _report_nothing(self) -> None:
        """A part that did not look reports no indicators."""

    def _set_indicators(
        self, cluster: model.Cluster, plan: planner.Plan
    ) -> None:
        tiers = [tier.name for tier in cluster.tiers]
        self.solution.set_efficacy_indicators(**indicators.values(plan, tiers))


class DomainCapacityEnforcementBalancing(DomainCapacityEnforcement):
    """Domain Capacity Enforcement, under Watcher's stock balancing goal

    The same strategy for clouds whose audit templates use the goal
    workload_balancing (R71). It reports that goal's own indicators.
    """

    @classmethod
    def get_name(cls) -> str:
        """Its name in audits, the entry point's."""
        return "domain_capacity_enforcement_balancing"

    @classmethod
    def get_display_name(cls) -> str:
        """Its name for people."""
        return "Domain capacity enforcement (workload balancing)"

    @classmethod
    def get_translatable_display_name(cls) -> str:
        """Its name, as a translation key."""
        return "Domain capacity enforcement (workload balancing)"

    @classmethod
    def get_goal_name(cls) -> str:
        """The goal that it achieves."""
        return "workload_balancing"

    def _report_nothing(self) -> None:
        """The stock goal wants a count of migrations in any case."""
        self.solution.set_efficacy_indicators(instance_migrations_count=0)

    def _set_indicators(
        self, cluster: model.Cluster, plan: planner.Plan
    ) -> None:
        scoped = {host.name for host in cluster.hosts if host.in_scope}
        self.solution.set_efficacy_indicators(
            instance_migrations_count=len(plan.migrations),
            instances_count=sum(
                1 for i in cluster.instances if i.host in scoped
            ),
        )


def _log(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    plan: planner.Plan,
) -> None:
    for finding in (*cluster.findings, *verdict.findings):
        LOG.warning("%s: %s", finding.kind, finding.text)
    for migration in plan.migrations:
        LOG.info("%s", report.sentence(migration))
    for migration in plan.deferred:
        LOG.info("Deferred: %s", report.sentence(migration))
    for item in plan.unresolved:
        for line in report.unresolved(item):
            LOG.warning("Unresolved: %s", line)
    _log_starved(plan)
    for title, lines in report.advice(plan):
        for line in lines:
            LOG.info("%s: %s", title, line)
    LOG.info("%s", report.summary(cluster, verdict, plan))


def _log_starved(plan: planner.Plan) -> None:
    """Who is starved, or why that is not known."""
    if plan.relief is None:
        return
    if plan.relief.abstained:
        LOG.warning("Starvation: %s", plan.relief)
    for one in plan.relief.before:
        LOG.warning("Starved: %s", report.condition(one))


def _tell(audit: Any, text: str) -> None:
    """Save the reason of a failure on the audit, where Watcher has a place.

    Watcher 14's audits have none; there the log alone tells.
    """
    if audit is not None and "status_message" in getattr(audit, "fields", ()):
        audit.status_message = report.shortened(text)
        audit.save()
