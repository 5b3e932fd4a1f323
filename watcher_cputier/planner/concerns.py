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
3. **mixing** (:mod:`.mixing`), where the audit asks for it.

``max_migrations`` is for all of them together. Where it cuts one concern,
those after it wait.
"""

from collections.abc import Callable
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation as starving
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import mixing
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
    found = values.Plan()
    if params.enforce_quota:
        found = planning.plan(cluster, kept, params, rules, expired)
    if params.relieve_starvation and cluster.telemetry is not None:
        if starvation is None:
            starvation = starving.judge(cluster, verdict, params)
        found = relief.added(
            cluster, kept, params, found, starvation, rules, expired
        )
    if params.mix_tiers:
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

    given = extensions or constraints.Extensions()
    return (
        dataclasses.replace(diagnosis, quotas=model.frozen_map(quotas)),
        constraints.Extensions(
            target_rules=model.frozen_map(
                {**given.target_rules, "lends_no_more": lends_no_more}
            ),
            rankers=given.rankers,
        ),
    )
