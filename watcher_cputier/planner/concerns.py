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

"""The plan of an audit: quotas first, then starvation, then even shares.

Each concern begins where the one before it leaves the cluster, and moves
nobody whom that one has moved:

1. **quota** (:mod:`.planning`): hosts over a quota, drains. With
   ``quota_mode: borrow`` what is lent counts as kept, and its host takes no
   more of the tier (:mod:`watcher_cputier.lending`);
2. **starvation** (:mod:`.relief`): instances that do not get what was sold,
   where the model of entitlement predicts that a migration helps. Without
   telemetry there is no such part, and the others are what they would be
   without it (L8);
3. **mixing** (:mod:`.mixing`), where the audit asks for it. It brings nobody
   to a host where somebody would starve by that.

``max_migrations`` is for all of them together. Where it cuts one concern,
those after it wait.
"""

from collections.abc import Callable
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import lending
from watcher_cputier import loads as measuring
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation as starving
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import mixing
from watcher_cputier.planner import picture as pictures
from watcher_cputier.planner import planning
from watcher_cputier.planner import prices
from watcher_cputier.planner import relief
from watcher_cputier.planner import values

hosts_to_detail = mixing.hosts_to_detail


def plan(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    extensions: constraints.Extensions | None = None,
    expired: Callable[[], bool] = prices.never,
    starvation: starving.Starvation | None = None,
) -> values.Plan:
    """Plan the migrations of one audit, for all of its concerns.

    :param extensions: further rules and rankers that the operator switched
        on
    :param expired: whether the time for searching is over; the best safe
        plan so far is returned then, and says so
    :param starvation: the verdict on the cluster's instances; by default they
        are judged here, where the audit asks for it and there is telemetry
    :returns: a plan; empty where nothing is to be done
    """
    verdict = lending.lend(cluster, diagnosis, params)
    kept, rules = _with_loans(verdict, extensions)
    excess = model.frozen_map(
        {(one.host, one.tier): one.units for one in kept.excesses}
    )
    found = values.Plan(excess_before=excess, excess_after=excess)
    if params.enforce_quota:
        found = planning.plan(cluster, kept, params, rules, expired)
    if params.relieve_starvation and cluster.telemetry is not None:
        if starvation is None:
            starvation = starving.judge(cluster, verdict, params)
        found = relief.added(
            cluster, kept, params, found, starvation, rules, expired
        )
    if params.mix_tiers:
        if starvation is not None:
            rules = _with_care(starvation, found, rules)
        found = mixing.added(cluster, kept, params, found, rules, expired)
    return found


def _with_loans(
    diagnosis: diagnosing.Diagnosis,
    extensions: constraints.Extensions | None,
) -> tuple[diagnosing.Diagnosis, constraints.Extensions | None]:
    """What is lent as kept quotas, and a rule that lets nothing in there."""
    if not diagnosis.lent:
        return diagnosis, extensions
    lent = {(one.host, one.tier): one for one in diagnosis.lent}
    quotas = {
        key: (
            dataclasses.replace(quota, units=lent[key].held)
            if key in lent
            else quota
        )
        for key, quota in diagnosis.quotas.items()
    }

    def lends_no_more(
        move: constraints.Proposal,
    ) -> constraints.Rejection | None:
        """A host above its policy quota of a tier takes no more of it."""
        for account in capacity.claims(move.cluster, move.instance):
            one = lent.get((move.target.name, account))
            if one is not None:
                return constraints.Rejection(
                    rule="lends_no_more",
                    reason=f"it lends {one.units} {account} units above its "
                    f"policy quota of {one.quota} as it is",
                    requirement="N6",
                )
        return None

    return (
        dataclasses.replace(diagnosis, quotas=model.frozen_map(quotas)),
        _with_rule(extensions, "lends_no_more", lends_no_more),
    )


def _with_care(
    starvation: starving.Starvation,
    plan: values.Plan,
    extensions: constraints.Extensions | None,
) -> constraints.Extensions | None:
    """A rule against arrivals that leave somebody starved.

    Where all weights are those of the tiers nobody starves within quotas, so
    that no rule is needed. What is not known speaks against nobody here:
    mixing is for clouds without telemetry too.

    :param plan: the migrations that come first
    """
    if starvation.sight is None or _weighted_right(starvation.sight.loads):
        return extensions
    here = pictures.Picture(starvation)
    for one in plan.migrations:
        here.move(one.instance.uuid, one.source, one.target)
    known: dict[tuple[str, str], bool] = {}

    def starves_nobody(
        move: constraints.Proposal,
    ) -> constraints.Rejection | None:
        """Nobody falls below its floor by an arrival on a host."""
        uuid, target = move.instance.uuid, move.target.name
        if (uuid, target) not in known:
            then = here.forecasts([here.population(target, (uuid,))])[0]
            before = set(here.now(target).starved)
            known[uuid, target] = set(then.starved) <= before
        if known[uuid, target]:
            return None
        return constraints.Rejection(
            rule="starves_nobody",
            reason="somebody there would get less than its tier promises",
            requirement="R87",
        )

    return _with_rule(extensions, "starves_nobody", starves_nobody)


def _weighted_right(loads: measuring.Loads) -> bool:
    """Whether all running instances have weights in proportion to tiers."""
    scales = loads.scales[loads.running]
    if not len(scales):
        return True
    spread = scales.max() - scales.min()
    # NaN, of an instance without a tier, is not right.
    return bool(spread <= 1e-9 * scales.max())


def _with_rule(
    extensions: constraints.Extensions | None,
    name: str,
    rule: Callable[[constraints.Proposal], constraints.Rejection | None],
) -> constraints.Extensions:
    given = extensions or constraints.Extensions()
    return constraints.Extensions(
        target_rules=model.frozen_map({**given.target_rules, name: rule}),
        rankers=given.rankers,
    )
