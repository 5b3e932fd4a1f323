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

"""The plan as actions of a solution, for one planner or the other."""

from collections.abc import Iterator
import dataclasses
from typing import Any

from oslo_config import cfg
from oslo_log import log
from stevedore import driver

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import schedule as scheduling
from watcher_cputier import starvation as starving

LOG = log.getLogger(__name__)

ACTION = "tier_migrate"
WATCHERS_ACTION = "migrate"
_ENGINE = "taskflow"
_GROUP = f"watcher_workflow_engines.{_ENGINE}"


def emit(
    solution: Any,
    cluster: model.Cluster,
    plan: planner.Plan,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
) -> planner.Plan:
    """Add the actions of a plan to a solution.

    :returns: the plan as it is emitted: Watcher's own planner cannot run
        what would share a pair with a migration that it needs, and leaves it
        to the next audit
    """
    made = scheduling.arrange(cluster, plan.migrations, diagnosis, params)
    if params.planner == "weight":
        pairs = scheduling.pairs(made, params)
        for index in pairs.order:
            migration = made.steps[index].migration
            _add(solution, WATCHERS_ACTION, migration, {})
        found = _without(cluster, plan, pairs.left_out)
        if pairs.left_out and found.relief is not None:
            found = dataclasses.replace(
                found,
                relief=planner.account_of_relief(
                    found, starving.judge(cluster, diagnosis, params)
                ),
            )
        if pairs.left_out and found.mixing is not None:
            found = dataclasses.replace(
                found,
                mixing=planner.account_of_mixing(
                    cluster, diagnosis, params, found
                ),
            )
        return found
    if plan.migrations:
        LOG.info("%s", report.timing(made))
    expected = guard.expectations(cluster, plan.migrations, params)
    for step, expectation in zip(made.steps, expected, strict=True):
        _add(
            solution,
            ACTION,
            step.migration,
            {
                "reason": step.migration.reason,
                "tier": step.migration.tier,
                "units": step.migration.units,
                "needs": list(step.needs),
                "after": list(step.after),
                "expects": expectation.document(),
            },
        )
    return plan


def _add(
    solution: Any,
    action: str,
    migration: planner.Migration,
    more: dict[str, Any],
) -> None:
    solution.add_action(
        action_type=action,
        resource_id=migration.instance.uuid,
        input_parameters={
            "migration_type": "live",
            "source_node": migration.source,
            "destination_node": migration.target,
            "resource_name": migration.instance.name,
            **more,
        },
    )


def _without(
    cluster: model.Cluster, plan: planner.Plan, left_out: tuple[int, ...]
) -> planner.Plan:
    """A plan some of whose migrations are deferred."""
    if not left_out:
        return plan
    late = [plan.migrations[index] for index in left_out]
    after = dict(plan.excess_after)
    for migration in late:
        if migration.concern != planner.QUOTA:
            continue
        for account in cluster.accounts_of(migration.instance):
            key = (migration.source, account)
            if key in after:
                after[key] = min(
                    plan.excess_before[key], after[key] + migration.units
                )
    return dataclasses.replace(
        plan,
        migrations=tuple(
            migration
            for index, migration in enumerate(plan.migrations)
            if index not in left_out
        ),
        deferred=(*late, *plan.deferred),
        # What is left out relieves by one migration each.
        lower_bound=max(
            0,
            plan.lower_bound
            - sum(1 for one in late if one.concern == planner.QUOTA),
        ),
        excess_after=model.frozen_map(after),
    )


def preflight(
    conf: cfg.ConfigOpts, params: parameters.Parameters
) -> Iterator[model.Finding]:
    """What keeps the applier from running a plan as it is scheduled.

    The option belongs to the applier. Here only this machine's configuration
    can be read, which is the applier's where both run from one file.
    """
    if params.planner == "weight":
        return
    engine = conf.watcher_applier.workflow_engine
    if engine != _ENGINE:
        yield model.Finding(
            kind="workflow_engine_unknown",
            subject=engine,
            text=f"[watcher_applier] workflow_engine is {engine}: how many "
            "actions it runs at the same time cannot be seen, and the plan "
            f"has up to {params.parallel_total} (parallel_total).",
        )
        return
    # As Watcher's own loader registers them, when the applier needs it.
    found = driver.DriverManager(
        "watcher_workflow_engines", _ENGINE, invoke_on_load=False
    )
    conf.register_opts(found.driver.get_config_opts(), group=_GROUP)
    workers = conf[_GROUP].max_workers
    if workers >= params.parallel_total:
        return
    where = conf.get_location("max_workers", _GROUP).location
    by_default = where in (
        cfg.Locations.opt_default,
        cfg.Locations.set_default,
    )
    source = (
        "its default, the number of CPUs, is as much on this machine"
        if by_default
        else "it is set so on this machine"
    )
    yield model.Finding(
        kind="few_workers",
        subject=_GROUP,
        text=f"Watcher's applier runs at most {workers} actions at the same "
        f"time ([{_GROUP}] max_workers; {source}), fewer than "
        f"parallel_total, {params.parallel_total}: the plan takes longer "
        "than expected. Raise the option where the applier runs.",
    )
