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

"""The decision in words: sentences for logs, rows for tables.

Nothing here decides; everything reads the core's values. Rows are lists of
strings, first row the header, for whatever draws tables at the edge.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import schedule as scheduling

STATUS_MESSAGE_LENGTH = 255


def sentence(migration: planner.Migration) -> str:
    """One migration: what moves where, and why, in one line."""
    return (
        f"Migrate {migration.instance.name} "
        f"({_units(migration.units, migration.tier)}, "
        f"{migration.instance.uuid}) from "
        f"{migration.source} to {migration.target}: {migration.reason}; "
        f"{migration.target} weighs {migration.weight.explain()}"
    )


def _units(count: int, tier: str) -> str:
    return f"{count} {tier} unit{'' if count == 1 else 's'}"


def refusal(item: planner.Refusal) -> str:
    """Why one instance stays, by rule, with one host as the example."""
    if item.rejection is not None:
        return f"{item.instance.name} stays ({item.rejection})"
    others = {
        host: rejection
        for host, rejection in item.targets.items()
        if rejection.rule != "elsewhere"
    }
    if not others:
        return f"{item.instance.name} stays (there is no other host)"
    counted = Counter(rejection.rule for rejection in others.values())
    parts = []
    for rule, count in sorted(counted.items()):
        host, example = next(
            (h, r) for h, r in others.items() if r.rule == rule
        )
        parts.append(
            f"{count} host{'s' if count > 1 else ''} by {rule}, e.g. {host}: "
            f"{example.reason}"
        )
    return f"{item.instance.name} has no target ({'; '.join(parts)})"


def unresolved(item: planner.Unresolved) -> Iterator[str]:
    """An excess that stays, and why each instance there does."""
    yield (
        f"{item.host} stays {_units(item.units, item.tier)} over its quota; "
        f"at least {item.instances} more would have to leave"
    )
    for one in item.refusals:
        yield f"{item.host}: {refusal(one)}"


def summary(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    plan: planner.Plan,
) -> str:
    """The outcome of an audit in one sentence."""
    scoped = sum(1 for host in cluster.hosts if host.in_scope)
    if not diagnosis.excesses:
        tiers = ", ".join(tier.name for tier in cluster.tiers)
        return (
            f"Nothing to do: none of {scoped} hosts is over its quota of "
            f"{tiers}"
        )
    names = cluster.tier_by_name
    before = planner.excess_units(plan.excess_before, names)
    after = planner.excess_units(plan.excess_after, names)
    count = len(plan.migrations)
    text = f"{count} migration{' takes' if count == 1 else 's take'}"
    text += f" the units over quota on {scoped} hosts from {before} to {after}"
    if plan.migrations:
        text += (
            "; no plan does it with fewer"
            if plan.optimal
            else f"; at least {plan.lower_bound} are needed for that"
        )
    if plan.deferred:
        text += (
            f"; {len(plan.deferred)} more are deferred to the next audit by "
            "max_migrations"
        )
    if plan.unresolved:
        left = sum(item.units for item in plan.unresolved)
        text += f"; {left} units cannot be moved"
    return text


def timing(schedule: scheduling.Schedule) -> str:
    """How long the migrations are expected to take, in one sentence."""
    taken = schedule.makespan_seconds
    bound = schedule.makespan_bound_seconds
    text = f"The migrations are expected to take {taken:.0f} s"
    if taken > bound:
        text += f", {bound:.0f} s at the very least"
    waiting = sum(1 for step in schedule.steps if step.needs)
    if waiting:
        text += (
            f"; {waiting} of {len(schedule.steps)} wait for room that others "
            f"make, in chains of up to {schedule.depth}"
        )
    return text


def host_rows(
    cluster: model.Cluster, diagnosis: diagnosing.Diagnosis
) -> list[list[str]]:
    """The host x tier table: held/quota, and what is wrong (R77)."""
    rows = [["host", *cluster.accounts, "state"]]
    for host in cluster.hosts:
        if not host.in_scope:
            continue
        cells = []
        over = []
        for account in cluster.accounts:
            held = cluster.held.get((host.name, account), 0)
            quota = diagnosis.quotas[host.name, account]
            cells.append(
                str(held)
                if quota.unlimited
                else f"{held}/{'?' if quota.units is None else quota.units}"
            )
            if quota.units is not None and held > quota.units:
                over.append(f"{account} +{held - quota.units}")
        state = [f"over: {', '.join(over)}"] if over else ["ok"]
        if host.name in diagnosis.drained:
            state.append("drained")
        if not host.enabled:
            state.append("disabled")
        if not host.up:
            state.append("down")
        rows.append([host.name, *cells, ", ".join(state)])
    return rows


def shortened(text: str, length: int = STATUS_MESSAGE_LENGTH) -> str:
    """Text that fits a status message, its cut marked."""
    return text if len(text) <= length else text[: length - 3] + "..."


# The plan as data

PLAN_VERSION = 1


def migration_rows(
    migrations: Iterable[planner.Migration],
) -> list[list[str]]:
    """The table of migrations, in the order of the plan."""
    return [
        ["instance", "units", "from", "to", "weight", "why"],
        *(
            [
                one.instance.name,
                f"{one.units} {one.tier}",
                one.source,
                one.target,
                f"{one.weight.value:.3f}",
                one.reason,
            ]
            for one in migrations
        ),
    ]


def plan_document(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    plan: planner.Plan,
    *,
    indicators: Mapping[str, float] | None = None,
    reading: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """A plan as data for other programs; doc/source/cli.rst describes it.

    Members may be added without a new version.

    :param indicators: the efficacy indicators, by name
    :param reading: what reading the cloud took, {service: {what: how much}};
        None for a plan on a scenario
    """
    return {
        "watcher_cputier_plan": PLAN_VERSION,
        "summary": summary(cluster, diagnosis, plan),
        "hosts": [
            _host(cluster, diagnosis, host)
            for host in cluster.hosts
            if host.in_scope
        ],
        "migrations": [_migration(one) for one in plan.migrations],
        "deferred": [_migration(one) for one in plan.deferred],
        "unresolved": [
            {
                "host": item.host,
                "tier": item.tier,
                "units": item.units,
                "instances": item.instances,
                "refusals": [_refusal(one) for one in item.refusals],
            }
            for item in plan.unresolved
        ],
        "lower_bound": plan.lower_bound,
        "optimal": plan.optimal,
        "excess_before": _excess(plan.excess_before),
        "excess_after": _excess(plan.excess_after),
        "indicators": dict(indicators or {}),
        "findings": [
            {"kind": one.kind, "subject": one.subject, "text": one.text}
            for one in (*cluster.findings, *diagnosis.findings)
        ],
        **_reading(reading),
    }


FAILURE_VERSION = 1


def failure_document(
    error: Exception,
    *,
    reading: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    """An audit that has no plan, as data; doc/source/scenario.rst has it.

    :param reading: what reading the cloud took until then
    """
    return {
        "watcher_cputier_failure": FAILURE_VERSION,
        "error": {
            "kind": type(error).__name__,
            "text": str(error) or repr(error),
            "what": getattr(error, "what", str(error) or repr(error)),
            "where": getattr(error, "where", ""),
            "cure": getattr(error, "cure", ""),
        },
        **_reading(reading),
    }


def _reading(
    told: Mapping[str, Mapping[str, float]] | None,
) -> dict[str, Any]:
    """The cost of reading, where there was any reading."""
    if told is None:
        return {}
    return {"reading": {name: dict(told[name]) for name in sorted(told)}}


def _host(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    host: model.Host,
) -> dict[str, Any]:
    return {
        "name": host.name,
        "drained": diagnosis.drained.get(host.name),
        "accounts": {
            account: {
                "held": cluster.held.get((host.name, account), 0),
                "quota": diagnosis.quota(host.name, account),
            }
            for account in cluster.accounts
        },
    }


def _migration(one: planner.Migration) -> dict[str, Any]:
    weight = one.weight
    return {
        "instance": _named(one.instance),
        "source": one.source,
        "target": one.target,
        "tier": one.tier,
        "units": one.units,
        "relief": one.relief,
        "reason": one.reason,
        "weight": {
            "value": weight.value,
            "resource_score": weight.resource_score,
            "trait_score": weight.trait_score,
            "terms": [
                {
                    "resource_class": term.resource_class,
                    "requested": term.requested,
                    "free": term.free,
                    "ratio": term.ratio,
                }
                for term in weight.terms
            ],
        },
    }


def _refusal(one: planner.Refusal) -> dict[str, Any]:
    return {
        "instance": _named(one.instance),
        "rejection": one.rejection and _rejection(one.rejection),
        "targets": {
            host: _rejection(found) for host, found in one.targets.items()
        },
    }


def _rejection(found: constraints.Rejection) -> dict[str, str]:
    return {
        "rule": found.rule,
        "reason": found.reason,
        "requirement": found.requirement,
    }


def _named(instance: model.Instance) -> dict[str, str]:
    return {"name": instance.name, "uuid": instance.uuid}


def _excess(units: Mapping[tuple[str, str], int]) -> list[dict[str, Any]]:
    return [
        {"host": host, "tier": tier, "units": units[host, tier]}
        for host, tier in sorted(units)
    ]
