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

"""Relief of starvation: the part of a plan that is for starved instances.

It begins where the migrations for quotas leave the cluster, takes what they
leave of ``max_migrations`` and of the time, and moves nobody whom they have
moved. Which migrations help whom is found in :mod:`.cures`; here they become
a part of the plan, with what is expected for everybody concerned.

A starved instance that no migration helps is listed with the reason, and with
what does help it: the cause that its verdict names, and the configuration
that would cure that (R105).
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import typing

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation as starving
from watcher_cputier.planner import cooldown
from watcher_cputier.planner import cures
from watcher_cputier.planner import mixing
from watcher_cputier.planner import picture as pictures
from watcher_cputier.planner import prices
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import scene as scenes
from watcher_cputier.planner import state as states
from watcher_cputier.planner import values

# Numbers are told to this many decimals.
_DECIMALS = 6


def added(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    found: values.Plan,
    starvation: starving.Starvation,
    extensions: constraints.Extensions | None = None,
    expired: Callable[[], bool] = prices.never,
) -> values.Plan:
    """A plan with migrations that relieve starvation added to it.

    :param found: the plan for quotas
    :param starvation: the verdict on the cluster as it was read
    :param extensions: further rules and rankers that the operator switched
        on
    :param expired: whether the time for searching is over
    """
    if starvation.abstained:
        return dataclasses.replace(
            found, relief=values.Relief(abstained=starvation.abstained)
        )
    if not starvation.starved:
        after, predictions = outlook(starvation, found.migrations)
        return dataclasses.replace(
            found,
            relief=values.Relief(after=after, predictions=predictions),
        )
    unsettled = _unsettled(cluster)
    open_to_cures = dataclasses.replace(
        starvation,
        starved=tuple(
            one
            for one in starvation.starved
            if one.instance.host not in unsettled
        ),
    )
    start = mixing.after(cluster, found.migrations, settled=mixing.SETTLED)
    state = states.State(
        problems.Problem(
            start, diagnosis, params, extensions or constraints.Extensions()
        )
    )
    scene = scenes.Scene(
        state,
        open_to_cures,
        cooldown.cooling(cluster, params),
        ((m.instance.uuid, m.source, m.target) for m in found.migrations),
        {one.instance.host for one in starvation.starved} & unsettled.keys(),
    )
    search = cures.Search(scene, expired)
    by_quota = tuple(scene.relieved)
    left = params.max_migrations - len(found.migrations)
    limit = left if params.max_migrations else None
    waits = (
        bool(found.cut or found.deferred)
        if limit is None
        else bool(found.cut or found.deferred or limit <= 0)
    )
    if waits:
        return _waiting(found, starvation, by_quota)
    search.run(limit)
    count = len(search.told)
    held = {
        (e.host, e.tier): state.books.held(e.host, e.tier)
        for e in diagnosis.excesses
    }
    if limit is not None:
        # What would follow without the limit.
        search.run(None)
    written = tuple(_migration(one) for one in search.told)
    migrations = (*found.migrations, *written[:count])
    after, predictions = outlook(starvation, migrations)
    return _with(
        found,
        migrations,
        diagnosis,
        held,
        values.Relief(
            migrations=count,
            deferred=len(written) - count,
            before=starvation.starved,
            after=after,
            by_quota=by_quota,
            predictions=predictions,
            remedies=tuple(
                values.Remedy(
                    condition=one,
                    why=unsettled.get(one.instance.host)
                    or search.why_not(one),
                )
                for one in starvation.starved
                if one.instance.uuid in scene.standing
                or one.instance.host in unsettled
            ),
        ),
        deferred=written[count:],
        cut=expired(),
    )


def _unsettled(cluster: model.Cluster) -> dict[str, str]:
    """Hosts that somebody has left since the readings began, and what of it.

    Who is measured as starved there may be cured by that: another migration
    waits until readings from after it say otherwise (L3, N12).
    """
    telemetry = cluster.telemetry
    assert telemetry is not None  # somebody was judged
    names = cluster.instance_by_uuid
    # A value may reach back by a window.
    begin = telemetry.windows[0] - telemetry.window_seconds
    found: dict[str, str] = {}
    for change in cluster.changes:
        ended = change.ended_at
        if not change.moved or (ended is not None and ended <= begin):
            continue
        found[change.source] = (
            f"{names[change.instance].name} has left {change.source} since "
            "the readings began, and later ones have to show whether that is "
            "enough"
        )
    return found


def account(
    plan: values.Plan, starvation: starving.Starvation
) -> values.Relief:
    """What becomes of starved instances in a plan some of which was left out.

    :param plan: one with relief; what was left out of it is deferred
    """
    assert plan.relief is not None
    count = sum(1 for m in plan.migrations if m.concern == values.STARVATION)
    if starvation.abstained:
        return plan.relief
    after, predictions = outlook(starvation, plan.migrations)
    return dataclasses.replace(
        plan.relief,
        migrations=count,
        deferred=plan.relief.deferred + plan.relief.migrations - count,
        after=after,
        predictions=predictions,
    )


def _waiting(
    found: values.Plan,
    starvation: starving.Starvation,
    by_quota: tuple[str, ...],
) -> values.Plan:
    """The plan where quotas take all that there is."""
    after, predictions = outlook(starvation, found.migrations)
    return dataclasses.replace(
        found,
        relief=values.Relief(
            before=starvation.starved,
            after=after,
            by_quota=by_quota,
            predictions=predictions,
            waits=bool(after),
        ),
    )


# What is expected


def outlook(
    starvation: starving.Starvation,
    migrations: Iterable[values.Migration],
) -> tuple[tuple[str, ...], tuple[values.Prediction, ...]]:
    """Who starves after migrations, and how everybody concerned fares.

    Whose starvation the model does not explain is expected to starve on. A
    migration for a quota may also leave somebody starved who is not now, for
    quotas come first.

    :param migrations: of all concerns, in their order
    :returns: uuids of those that starve, the most urgent first, and then
        those that do not now, by name; and predictions for all of them, for
        those that starved before and those that move for them, by name
    """
    moves = tuple(migrations)
    picture = pictures.Picture(starvation)
    explained = {
        one.instance.uuid
        for one in starvation.starved
        if one.instance.uuid in picture.now(one.instance.host).starved
    }
    touched = {name for move in moves for name in (move.source, move.target)}
    shown = {uuid for name in touched for uuid in picture.now(name).starved}
    at: dict[str, str] = {}
    for move in moves:
        uuid = move.instance.uuid
        picture.move(uuid, move.source, move.target)
        at[uuid] = move.target
    before = {one.instance.uuid for one in starvation.starved}
    newly = {
        uuid
        for name in touched
        if picture.judged(name)
        for uuid in picture.now(name).starved
    } - (before | shown)
    concerned = before.union(
        newly,
        (m.instance.uuid for m in moves if m.concern == values.STARVATION),
    )
    found = [
        _prediction(
            picture,
            starvation.condition(uuid),
            at.get(uuid, picture.home(uuid)),
            uuid in before and uuid not in explained,
        )
        for uuid in sorted(concerned)
    ]
    found.sort(key=lambda one: one.instance.sort_key)
    starves = {one.instance.uuid for one in found if one.starved_after}
    urgent = [one.instance.uuid for one in starvation.starved]
    others = [one.instance.uuid for one in found if one.instance.uuid in newly]
    return (
        tuple(uuid for uuid in (*urgent, *others) if uuid in starves),
        tuple(found),
    )


def _prediction(
    picture: pictures.Picture,
    one: starving.Condition,
    target: str,
    puzzling: bool,
) -> values.Prediction:
    """How an instance fares.

    :param puzzling: whether it starves and the model does not show it
    """
    instance = one.instance
    uuid = instance.uuid
    vcpus = instance.flavor.vcpus
    then = picture.now(target)
    usage = then.usage_cpus.get(uuid)
    deficit = then.deficits.get(uuid)
    floor = picture.floor(uuid, target)
    threshold = None
    if floor is not None:
        threshold = float(entitlement.threshold(floor))
    starves = puzzling or uuid in then.starved
    if one.starved and not puzzling and not picture.judged(target):
        starves = True
    if puzzling and target == instance.host:
        # What was measured goes on.
        usage = None if one.usage is None else one.usage * vcpus
        deficit = one.deficit
    return values.Prediction(
        instance=instance,
        source=instance.host,
        target=target,
        starved_before=one.starved,
        starved_after=starves,
        demand=_rounded(picture.demand(uuid) / vcpus),
        usage_before=_rounded(one.usage),
        usage_after=None if usage is None else _rounded(usage / vcpus),
        deficit_before=_rounded(one.deficit),
        deficit_after=_rounded(deficit),
        threshold_before=_rounded(one.threshold),
        threshold_after=_rounded(threshold),
    )


@typing.overload
def _rounded(number: float) -> float: ...
@typing.overload
def _rounded(number: float | None) -> float | None: ...
def _rounded(number: float | None) -> float | None:
    return None if number is None else round(float(number), _DECIMALS)


# The plan


def _migration(told: cures.Told) -> values.Migration:
    """One step of a cure as a migration of the plan."""
    return values.Migration(
        instance=told.instance,
        source=told.source,
        target=told.target,
        tier=told.account,
        units=told.instance.units,
        relief=told.units,
        excess=None,
        weight=told.weight,
        concern=values.STARVATION,
        relieves=told.cure.relieved,
        cause=_cause(told),
    )


def _cause(told: cures.Told) -> str:
    """Why an instance moves, in one clause."""
    focal = told.cure.focal
    mine = told.instance.uuid == focal.instance.uuid
    usage, steal, floor = focal.usage, focal.steal, focal.floor
    assert usage is not None  # it was judged
    assert steal is not None
    assert floor is not None
    # Rounded first: the order of a sum must not decide on a digit.
    usage, due, then = (
        _rounded(number)
        for number in (usage, floor * (usage + steal), told.usage_after)
    )
    name = focal.instance.name
    gets = (
        f"gets {usage:.2f} of {due:.2f} CPUs per vCPU on "
        f"{told.cure.source} ({focal.verdict}"
    )
    first = focal.cause.split(". ")[0].rstrip(".")
    gets += f": {first})" if first else ")"
    if mine:
        return f"{name} {gets}"
    if any(one.uuid == focal.instance.uuid for one, _ in told.cure.steps):
        if told.target == told.cure.source:
            return f"it changes places with {name}, which {gets}"
        return f"it makes way for {name}, which {gets}"
    return f"{name} {gets}, and {then:.2f} without what leaves"


def _with(
    found: values.Plan,
    migrations: tuple[values.Migration, ...],
    diagnosis: diagnosing.Diagnosis,
    held: Mapping[tuple[str, str], int],
    relief: values.Relief,
    *,
    deferred: tuple[values.Migration, ...],
    cut: bool,
) -> values.Plan:
    """The plan for quotas followed by the one for starvation.

    :param held: {(host, tier): units} of the excesses after the migrations
    """
    left = {
        (e.host, e.tier): max(0, held[e.host, e.tier] - e.quota)
        for e in diagnosis.excesses
    }
    unresolved = found.unresolved
    if left != dict(found.excess_after):
        moved = {m.instance.uuid for m in migrations}
        unresolved = tuple(
            mixing.shortened(item, left[item.host, item.tier], moved)
            for item in found.unresolved
            if left[item.host, item.tier]
        )
    return dataclasses.replace(
        found,
        migrations=migrations,
        deferred=deferred,
        unresolved=unresolved,
        excess_before=model.frozen_map(
            {(e.host, e.tier): e.units for e in diagnosis.excesses}
        ),
        excess_after=model.frozen_map(left),
        cut=found.cut or cut,
        relief=relief,
    )
