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


"""Plan, ask about what the plan turns on, and plan again.

What leaves a host that is within its quota, to make room, has not been
looked at closely when the planning begins; and Placement itself has to offer
every target. Each round asks about instances, requests or hosts that were
not asked about before, so it ends.
"""

from watcher_cputier import constraints
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.datasources import cloud
from watcher_cputier.strategies import budget


def plan(
    reader: cloud.Reader,
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    params: parameters.Parameters,
    added: constraints.Extensions,
) -> tuple[model.Cluster, diagnosis.Diagnosis, planner.Plan]:
    """Plan until all that the plan turns on has been asked about.

    A plan that is cut and whose targets are all offered is taken as it is:
    there is no time to search for it once more.

    :returns: the plan, with the cluster and the verdict that it is made on
    :raises TierError: if something cannot be asked
    """
    time = budget.Budget(params.time_budget_seconds)
    while True:
        found = planner.plan(
            cluster, verdict, params, added, expired=time.search()
        )
        looked = reader.get_candidates(
            cluster,
            (
                cluster.host_by_name[move.instance.host]
                for move in found.migrations
            ),
        )
        if looked is not cluster:
            cluster = looked
            verdict = diagnosis.diagnose(cluster, params)
            continue
        asked = reader.get_admissions(
            cluster,
            (
                (move.instance.flavor, cluster.host_by_name[move.target])
                for move in found.migrations
            ),
        )
        if asked is cluster or (found.cut and _offered(asked, found)):
            return asked, verdict, found
        cluster = asked


def _offered(cluster: model.Cluster, found: planner.Plan) -> bool:
    """Whether Placement, asked about each target of a plan, offers it."""
    return all(
        cluster.admissions[move.instance.flavor.request].verdict(
            cluster.host_by_name[move.target].uuid
        )
        for move in found.migrations
    )
