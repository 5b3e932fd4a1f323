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
from collections.abc import Collection, Iterable, Iterator, Mapping
import dataclasses
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import delivery as delivering
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import explanation as explaining
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import schedule as scheduling
from watcher_cputier import starvation as starving
from watcher_cputier import weigher
from watcher_cputier.constraints import capacity

STATUS_MESSAGE_LENGTH = 255


def sentence(migration: planner.Migration) -> str:
    """One migration: what moves where, and why, in one line."""
    units = f"{_units(migration.units, migration.tier)}, "
    return (
        f"Migrate {migration.instance.name} "
        f"({units if migration.tier else ''}"
        f"{migration.instance.uuid}) from "
        f"{migration.source} to {migration.target}: {why(migration)}; "
        f"{migration.target} weighs {migration.weight.explain()}"
    )


def _units(count: int, tier: str = "") -> str:
    of_tier = f"{tier} " if tier else ""
    return f"{count} {of_tier}unit{'' if count == 1 else 's'}"


def why(migration: planner.Migration) -> str:
    """Why an instance moves, and whether it is only parked."""
    if migration.parking:
        return f"{migration.reason}; it is parked there for a while"
    return migration.reason


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
        fine = f"one of {scoped} hosts is over its quota of {tiers}"
        fine += _others(diagnosis, plan)
        return f"N{fine}" if plan.migrations else f"Nothing to do: n{fine}"
    names = cluster.tier_by_name
    before = planner.excess_units(plan.excess_before, names)
    after = planner.excess_units(plan.excess_after, names)
    left = planner.excess_units(
        {(item.host, item.tier): item.units for item in plan.unresolved}, names
    )
    others = plan.mixing.migrations if plan.mixing is not None else 0
    others += plan.relief.migrations if plan.relief is not None else 0
    count = len(plan.migrations) - others
    if not count:
        hosts = len({host for host, _ in plan.excess_before})
        text = (
            f"Nothing moves{' for quotas' if others else ''}: "
            f"{_units(before)} stay{'s' * (before == 1)} over "
            f"quota on {hosts} of {scoped} hosts"
        )
        text += _least(plan, left, "")
    else:
        text = f"{count} migration{' takes' if count == 1 else 's take'}"
        text += (
            f" the units over quota on {scoped} hosts from {before} to {after}"
        )
        text += (
            "; no plan does it with fewer"
            if plan.optimal
            else f"; at least {plan.lower_bound} are needed for that"
        )
    text += _deferred(plan, before - after)
    if plan.unresolved and count:
        stay = "stays" if left == 1 else "stay"
        text += _least(plan, left, f"; {_units(left)} {stay} over quota")
    pairs = [one.exchange for one in plan.relaxations if one.exchange]
    if pairs:
        text += (
            f"; {' and '.join(pairs[0])} could change places, but neither "
            "finds room first"
        )
    text += _others(diagnosis, plan)
    if plan.cut:
        text += (
            "; the search was cut by time_budget_seconds, with more time it "
            "may find better"
        )
    return text


def idle(params: parameters.Parameters, telemetry: bool = True) -> str:
    """Why an audit with these parameters looks at nothing; empty if it does.

    :param telemetry: whether there is any
    """
    if params.enforce_quota or params.mix_tiers:
        return ""
    off = "Nothing to do: enforce_quota"
    if not params.relieve_starvation:
        return f"{off}, relieve_starvation and mix_tiers are false"
    if not telemetry:
        return (
            f"{off} and mix_tiers are false, and starvation cannot be looked "
            "for without telemetry"
        )
    return ""


def _others(diagnosis: diagnosing.Diagnosis, plan: planner.Plan) -> str:
    """What became of the other concerns, and what is lent."""
    text = ""
    if diagnosis.lent:
        units = sum(one.units for one in diagnosis.lent)
        hosts = len({one.host for one in diagnosis.lent})
        text += (
            f"; {_units(units)} above policy {'is' if units == 1 else 'are'} "
            f"lent on {hosts} host{'s' * (hosts > 1)}, whose other tiers are "
            "idle"
        )
    if plan.relief is not None:
        text += f"; {plan.relief}"
    if plan.mixing is not None:
        text += f"; {plan.mixing}"
    return text


def _least(plan: planner.Plan, left: int, told: str) -> str:
    """What is proven of the units that stay, after what is said of them."""
    if left <= plan.residual_bound:
        return f"{told}, and no plan leaves fewer"
    if plan.cut:
        return f"; for {_units(left)} nothing was found"
    if plan.residual_bound:
        return f"{told}, any plan leaves at least {plan.residual_bound}"
    return f"{told}; no way was found, which is no proof that there is none"


def _deferred(plan: planner.Plan, relief: int) -> str:
    """What max_migrations cut off, and what so many could do at most."""
    others = plan.mixing.deferred if plan.mixing is not None else 0
    others += plan.relief.deferred if plan.relief is not None else 0
    late = len(plan.deferred) - others
    if late <= 0:
        return ""
    text = (
        f"; {late} more {'is' if late == 1 else 'are'} deferred to the next "
        "audit by max_migrations"
    )
    if plan.relief_bound is None:
        return text
    if relief >= plan.relief_bound:
        return f"{text}; no plan of that size removes more"
    return f"{text}, at most {_units(plan.relief_bound)} could go now"


def timing(schedule: scheduling.Schedule) -> str:
    """How long the migrations are expected to take, in one sentence."""
    taken = schedule.makespan_seconds
    bound = schedule.makespan_bound_seconds
    text = f"The migrations are expected to take {taken:.0f} s"
    if len(schedule.steps) > 1:
        peak = _peak(schedule)
        text += f", {f'up to {peak}' if peak > 1 else 'one'} at a time"
    if round(taken) > round(bound):
        text += f", {bound:.0f} s at the very least"
    waiting = sum(1 for step in schedule.steps if step.needs)
    if waiting:
        text += (
            f"; {waiting} of {len(schedule.steps)} "
            f"wait{'s' * (waiting == 1)} for room that others "
            f"make, in chains of up to {schedule.depth}"
        )
    return text


def _peak(schedule: scheduling.Schedule) -> int:
    """The most migrations that are expected to run at the same time."""
    events = sorted(
        event
        for step in schedule.steps
        # Of what happens at the same time ends come first.
        for event in ((step.start, 1), (step.end, -1))
    )
    running = most = 0
    for _, change in events:
        running += change
        most = max(most, running)
    return most


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


def advice(plan: planner.Plan) -> list[tuple[str, list[str]]]:
    """Titles with sentences: what would help where an excess stays."""
    found = []
    if plan.relaxations:
        found.append(
            (
                "What would help",
                [
                    _capital(one.text)
                    + ("" if one.proven else " (not proven)")
                    for one in plan.relaxations
                ],
            )
        )
    if plan.suggestions:
        found.append(
            (
                "Suggestions, which are not executed",
                [_capital(one.text) for one in plan.suggestions],
            )
        )
    if plan.relief is not None and plan.relief.predictions:
        found.append(
            (
                "Predicted by the entitlements",
                [str(one) for one in plan.relief.predictions],
            )
        )
    if plan.relief is not None and plan.relief.remedies:
        found.append(
            (
                "What helps where no migration does",
                [one.text for one in plan.relief.remedies],
            )
        )
    return found


def condition(one: starving.Condition) -> str:
    """How a starved instance fares, in one line."""
    numbers = ""
    if None not in (one.usage, one.steal, one.floor):
        wanted = (one.usage or 0.0) + (one.steal or 0.0)
        numbers = (
            f" gets {one.usage:.2f} CPUs per vCPU of {wanted:.2f} that it "
            f"wants, at a promised speed of {one.floor:.2f}"
        )
    text = (
        f"{one.instance.name} ({one.instance.tier}) on {one.instance.host}"
        f"{numbers}: {one.verdict}."
    )
    return " ".join(filter(None, (text, one.cause, one.remedy)))


def starved_rows(
    conditions: Iterable[starving.Condition],
) -> list[list[str]]:
    """The table of starved instances, all numbers in CPUs per vCPU."""

    def told(value: float | None) -> str:
        return "?" if value is None else f"{value:.2f}"

    return [
        ["instance", "tier", "host", "gets", "wants", "promised", "verdict"],
        *(
            [
                one.instance.name,
                one.instance.tier or "-",
                one.instance.host,
                told(one.usage),
                told(
                    None
                    if one.usage is None or one.steal is None
                    else one.usage + one.steal
                ),
                told(one.floor),
                one.verdict,
            ]
            for one in conditions
        ),
    ]


def _capital(text: str) -> str:
    """A sentence, where it does not begin with a name."""
    if text.startswith(("one more host ", "the excess of ")):
        return text[0].upper() + text[1:]
    return text


# Explanations

# Rows of a table of hosts: targets, and others.
_MOST_TARGETS = 10
_MOST_OTHERS = 10


def moment_title(instance: model.Instance, moment: explaining.Moment) -> str:
    """What an instance does at a moment of the plan."""
    step = moment.migration
    if step is None:
        return f"{instance.name} stays on {instance.host}"
    return (
        f"Migration {moment.number}: {instance.name} from {step.source} to "
        f"{step.target}"
    )


def fare_rows(fares: Iterable[explaining.Fare]) -> list[list[str]]:
    """How the hosts fared, the best first; of many those that matter."""
    fares = list(fares)
    targets = [fare for fare in fares if fare.rejection is None]
    others = [fare for fare in fares if fare.rejection is not None]
    shown = [
        *targets[:_MOST_TARGETS],
        *(fare for fare in targets[_MOST_TARGETS:] if fare.taken),
        *others[:_MOST_OTHERS],
    ]
    return [
        ["host", "weight", "why"],
        *(
            [fare.host, _value(fare), f"{_taken(fare)}{_fare(fare)}"]
            for fare in shown
        ),
    ]


def fare_counts(fares: Iterable[explaining.Fare]) -> list[str]:
    """How many hosts fared how, where not all of them are shown."""
    fares = list(fares)
    targets = sum(1 for fare in fares if fare.rejection is None)
    if targets <= _MOST_TARGETS and len(fares) - targets <= _MOST_OTHERS:
        return []
    counted = Counter(
        fare.rejection.rule for fare in fares if fare.rejection is not None
    )
    rules = ", ".join(
        f"{count} not by {rule}" for rule, count in sorted(counted.items())
    )
    text = f"In all {targets} of {len(fares)} hosts may take it"
    return [f"{text}, {rules}" if rules else text]


def _value(fare: explaining.Fare) -> str:
    return "" if fare.rejection is not None else f"{fare.value:.3f}"


def _taken(fare: explaining.Fare) -> str:
    return "taken: " if fare.taken else ""


def _fare(fare: explaining.Fare) -> str:
    if fare.rejection is not None:
        return str(fare.rejection)
    if fare.weight is None:
        return ""
    # The number has a column of its own.
    return fare.weight.explain().partition(" = ")[2]


def balance_rows(
    balances: Iterable[explaining.Balance],
) -> list[list[str]]:
    """The accounts of one host."""

    def told(units: int | None) -> str:
        return "-" if units is None else str(units)

    return [
        ["tier", "held", "quota", "inventory", "policy", "excess", "after"],
        *(
            [
                one.account,
                str(one.held),
                told(one.quota),
                told(one.capacity),
                told(one.policy),
                str(one.excess),
                str(one.after),
            ]
            for one in balances
        ),
    ]


def stay_rows(stays: Iterable[explaining.Stay]) -> list[list[str]]:
    """The instances that do not leave a host."""
    return [
        ["instance", "units", "why"],
        *(
            [
                one.instance.name,
                f"{one.instance.units} {one.instance.tier}"
                if one.instance.tier
                else "-",
                one.why,
            ]
            for one in stays
        ),
    ]


def explanation_document(
    found: explaining.OfInstance | explaining.OfHost,
) -> dict[str, Any]:
    """An explanation as data; doc/source/cli.rst describes it."""
    if isinstance(found, explaining.OfInstance):
        return {
            "instance": _named(found.instance),
            "host": found.instance.host,
            "moments": [_moment(one) for one in found.moments],
        }
    return {
        "host": found.host.name,
        "why": list(found.why),
        "balances": [
            {
                "tier": one.account,
                "held": one.held,
                "quota": one.quota,
                "capacity": one.capacity,
                "policy": one.policy,
                "excess": one.excess,
                "after": one.after,
            }
            for one in found.balances
        ],
        "leaving": [_migration(one) for one in found.leaving],
        "coming": [_migration(one) for one in found.coming],
        "staying": [
            {"instance": _named(one.instance), "why": [one.why]}
            for one in found.staying
        ],
    }


def _moment(one: explaining.Moment) -> dict[str, Any]:
    step = one.migration
    return {
        "number": one.number,
        "source": None if step is None else step.source,
        "target": None if step is None else step.target,
        "deferred": one.deferred,
        "why": list(one.why),
        "fares": [
            {
                "host": fare.host,
                "taken": fare.taken,
                "weight": fare.weight and _weight(fare.weight),
                "rejection": fare.rejection and _rejection(fare.rejection),
                "lacking": dict(fare.lacking),
            }
            for fare in one.fares
        ],
    }


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
                why(one),
            ]
            for one in migrations
        ),
    ]


def plan_document(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    plan: planner.Plan,
    *,
    schedule: scheduling.Schedule | None = None,
    indicators: Mapping[str, float] | None = None,
    reading: Mapping[str, Mapping[str, float]] | None = None,
    starved: starving.Starvation | None = None,
) -> dict[str, Any]:
    """A plan as data for other programs; doc/source/cli.rst describes it.

    Members may be added without a new version.

    :param schedule: the order of its migrations; None leaves it out
    :param indicators: the efficacy indicators, by name
    :param reading: what reading the cloud took, {service: {what: how much}};
        None for a plan on a scenario
    :param starved: who gets what was sold; None leaves out what the tiers
        got
    """
    after = _held_after(cluster, plan.migrations)
    return {
        "watcher_cputier_plan": PLAN_VERSION,
        "summary": summary(cluster, diagnosis, plan),
        "hosts": _hosts(cluster, diagnosis, after),
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
        "relaxations": [_relaxation(one) for one in plan.relaxations],
        "suggestions": [_suggestion(one) for one in plan.suggestions],
        "lower_bound": plan.lower_bound,
        "optimal": plan.optimal,
        "residual_bound": plan.residual_bound,
        "relief_bound": plan.relief_bound,
        "cut": plan.cut,
        "starvation": plan.relief and _relief(plan.relief),
        "lent": [
            {"host": one.host, "tier": one.tier, "units": one.units}
            for one in diagnosis.lent
        ],
        "mixing": plan.mixing and _mixing(plan.mixing),
        "excess_before": _excess(plan.excess_before),
        "excess_after": _excess(plan.excess_after),
        "indicators": dict(indicators or {}),
        "findings": [
            {"kind": one.kind, "subject": one.subject, "text": one.text}
            for one in (*cluster.findings, *diagnosis.findings)
        ],
        **({} if schedule is None else {"schedule": _schedule(schedule)}),
        **({} if starved is None else {"delivery": _delivery(starved)}),
        **_reading(reading),
    }


HOSTS_VERSION = 1


def hosts_document(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    starved: starving.Starvation,
    *,
    hosts: Collection[str] | None = None,
    accounts: Collection[str] | None = None,
) -> dict[str, Any]:
    """The hosts as they are, in the form that a plan has them.

    :param starved: who gets what was sold, or why nobody looked
    :param hosts: names of those that are wanted; None for all in scope
    :param accounts: likewise, tiers
    """
    found = _hosts(cluster, diagnosis)
    scope = len(found)
    if hosts is not None:
        found = [host for host in found if host["name"] in hosts]
    if accounts:
        for host in found:
            host["accounts"] = {
                name: account
                for name, account in host["accounts"].items()
                if name in accounts
            }
    names = {host["name"] for host in found}
    wanted = set(accounts or cluster.accounts)
    excess = {
        (one.host, one.account): one.excess
        for one in offer.standings(cluster, diagnosis)
        if one.excess and one.host in names and one.account in wanted
    }
    return {
        "watcher_cputier_hosts": HOSTS_VERSION,
        "hosts_in_scope": scope,
        "hosts": found,
        "excess": _excess(excess),
        "excess_units": planner.excess_units(excess, cluster.tier_by_name),
        "starved": [
            _condition(one)
            for one in starved.starved
            if one.instance.host in names
            and (accounts is None or one.instance.tier in wanted)
        ],
        "delivery": _delivery(starved),
        "findings": [
            {"kind": one.kind, "subject": one.subject, "text": one.text}
            for one in (*cluster.findings, *diagnosis.findings)
        ],
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


def _hosts(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    after: Mapping[tuple[str, str], int] | None = None,
) -> list[dict[str, Any]]:
    """The hosts in scope, and what they hold once a plan is done."""
    found: dict[str, dict[str, Any]] = {
        host.name: {
            "name": host.name,
            "drained": diagnosis.drained.get(host.name),
            "enabled": host.enabled,
            "up": host.up,
            "accounts": {},
        }
        for host in cluster.hosts
        if host.in_scope
    }
    for one in offer.standings(cluster, diagnosis):
        account: dict[str, Any] = {
            "held": one.held,
            "quota": one.quota,
            "state": one.state,
        }
        if after is not None:
            then = dataclasses.replace(
                one, held=after.get((one.host, one.account), 0)
            )
            account |= {"after": then.held, "state_after": then.state}
        found[one.host]["accounts"][one.account] = account
    return list(found.values())


def _held_after(
    cluster: model.Cluster, migrations: Iterable[planner.Migration]
) -> Mapping[tuple[str, str], int]:
    """Units by host and account when the migrations have been done."""
    held = dict(cluster.held)
    for one in migrations:
        instance = one.instance
        for host, sign in ((one.source, -1), (one.target, +1)):
            # At home it counts with what it holds, elsewhere with what its
            # flavor asks for.
            units = (
                dict.fromkeys(cluster.accounts_of(instance), instance.units)
                if host == instance.host
                else capacity.claims(cluster, instance)
            )
            for account, amount in units.items():
                key = (host, account)
                held[key] = held.get(key, 0) + sign * amount
    return held


def _delivery(starved: starving.Starvation) -> dict[str, Any]:
    """What the tiers were promised and got."""
    return {
        "abstained": starved.abstained,
        "coverage": None if starved.abstained else starved.coverage,
        "tiers": [
            dataclasses.asdict(one) for one in delivering.deliveries(starved)
        ],
    }


def _migration(one: planner.Migration) -> dict[str, Any]:
    return {
        "instance": _named(one.instance),
        "source": one.source,
        "target": one.target,
        "tier": one.tier,
        "units": one.units,
        "relief": one.relief,
        "reason": one.reason,
        "concern": one.concern,
        "makes_room_for": one.makes_room_for,
        "parking": one.parking,
        "weight": _weight(one.weight),
    }


def _weight(weight: weigher.Weight) -> dict[str, Any]:
    return {
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
    }


def _schedule(schedule: scheduling.Schedule) -> dict[str, Any]:
    return {
        "makespan_seconds": schedule.makespan_seconds,
        "makespan_bound_seconds": schedule.makespan_bound_seconds,
        "steps": [
            {
                "needs": list(step.needs),
                "after": list(step.after),
                "start": step.start,
                "seconds": step.seconds,
            }
            for step in schedule.steps
        ],
    }


def _relief(found: planner.Relief) -> dict[str, Any]:
    return {
        "abstained": found.abstained,
        "migrations": found.migrations,
        "deferred": found.deferred,
        "waits": found.waits,
        "before": [_condition(one) for one in found.before],
        "after": list(found.after),
        "by_quota": list(found.by_quota),
        "predictions": [
            {
                "instance": _named(one.instance),
                "source": one.source,
                "target": one.target,
                "starved_before": one.starved_before,
                "starved_after": one.starved_after,
                "demand": one.demand,
                "usage_before": one.usage_before,
                "usage_after": one.usage_after,
                "deficit_before": one.deficit_before,
                "deficit_after": one.deficit_after,
                "threshold_before": one.threshold_before,
                "threshold_after": one.threshold_after,
            }
            for one in found.predictions
        ],
        "remedies": [
            {
                "instance": _named(one.condition.instance),
                "why": one.why,
                "text": one.text,
            }
            for one in found.remedies
        ],
    }


def _condition(one: starving.Condition) -> dict[str, Any]:
    return {
        "instance": _named(one.instance),
        "host": one.instance.host,
        "tier": one.instance.tier,
        "verdict": one.verdict,
        "floor": one.floor,
        "kept": one.kept,
        "usage": one.usage,
        "steal": one.steal,
        "deficit": one.deficit,
        "deficit_cpus": None if one.deficit is None else one.deficit_cpus,
        "threshold": one.threshold,
        "cause": one.cause,
        "remedy": one.remedy,
    }


def _mixing(found: planner.Mixing) -> dict[str, Any]:
    return {
        "migrations": found.migrations,
        "deferred": found.deferred,
        "lower_bound": found.lower_bound,
        "optimal": found.optimal,
        "waits": found.waits,
        "units_before": found.units_before,
        "units_after": found.units_after,
        "before": _spreads(found.before),
        "after": _spreads(found.after),
    }


def _spreads(found: Mapping[str, planner.Spread]) -> dict[str, Any]:
    return {
        tier: {
            "mean": spread.mean,
            "deviation": spread.deviation,
            "lowest": spread.lowest,
            "highest": spread.highest,
        }
        for tier, spread in found.items()
    }


def _relaxation(one: planner.Relaxation) -> dict[str, Any]:
    return {
        "kind": one.kind,
        "host": one.host,
        "tier": one.tier,
        "units": one.units,
        "target": one.target,
        "instances": [_named(instance) for instance in one.instances],
        "room": dict(one.room),
        "traits": list(one.traits),
        "zone": one.zone,
        "exchange": list(one.exchange),
        "proven": one.proven,
        "text": one.text,
    }


def _suggestion(one: planner.Suggestion) -> dict[str, Any]:
    return {
        "instance": _named(one.instance),
        "source": one.source,
        "target": one.target,
        "tier": one.tier,
        "lacking": dict(one.lacking),
        "displaced": [
            {"instance": _named(each.instance), "target": each.target}
            for each in one.displaced
        ],
        "fewest": one.fewest,
        "text": one.text,
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
