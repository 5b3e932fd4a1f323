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

"""Our own reading of a cloud, without an audit around it.

An audit needs Watcher and a second or two; where a story is about what the
snapshot says, the reader is asked directly, on the same services and as the
same user. What it says is then compared with :mod:`.truth`.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from oslo_config import cfg

from tests.cloud import EmbeddedCloud
from tests.cloud.keystone import USERS
from watcher_cputier import constraints
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import compute_model

WATCHER = "watcher"
assert WATCHER in USERS


def catalogue(options: Mapping[str, Any]) -> tiers_conf.Catalogue:
    """What ``watcher.conf`` would say with these options of [cputier]."""
    conf = cfg.ConfigOpts()
    conf([])
    tiers_conf.register(conf)
    for name, value in options.items():
        conf.set_override(name, value, group=tiers_conf.GROUP)
    return tiers_conf.catalogue(conf)


def reader(cloud: EmbeddedCloud, user: str = WATCHER) -> cloud_source.Reader:
    """A reader that has asked for nothing yet."""
    return cloud_source.Reader(cloud.connection(user))


def everything(cloud: EmbeddedCloud) -> compute_model.Scope:
    """A scope of all hosts and instances."""
    hypervisors = cloud.adapter("compute").get("/os-hypervisors").json()
    return compute_model.Scope(
        hosts=frozenset(str(one["id"]) for one in hypervisors["hypervisors"]),
        instances={
            server["id"]: False for server in cloud.population.servers()
        },
    )


def read(
    cloud: EmbeddedCloud,
    *,
    asked: cloud_source.Reader | None = None,
    scope: compute_model.Scope | None = None,
    detailed: Iterable[str] = (),
    **options: Any,
) -> model.Cluster:
    """The snapshot of the whole cloud, without the moment it was taken at.

    :param asked: the reader, where the story has a word with it afterwards
    :param scope: of Watcher's model; everything unless it is given
    :param detailed: names of hosts to read in detail, besides those in doubt
    :param options: of [cputier]
    """
    names = frozenset(detailed)
    seen_by_watcher = scope or everything(cloud)
    found = (asked or reader(cloud)).get_cluster(
        lambda: seen_by_watcher,
        catalogue(options),
        details=lambda seen: (h.uuid for h in seen.hosts if h.name in names),
    )
    # Pictures of the same cloud are to be equal.
    return dataclasses.replace(found, taken_at=None)


def named(cluster: model.Cluster, instance: str) -> model.Instance:
    """The one instance of this name."""
    (found,) = [one for one in cluster.instances if one.name == instance]
    return found


def findings(cluster: model.Cluster, kind: str) -> dict[str, str]:
    """{subject: text} of the findings of a kind."""
    return {f.subject: f.text for f in cluster.findings if f.kind == kind}


def judged(
    cloud: EmbeddedCloud, instance: str, target: str, **params: Any
) -> tuple[constraints.Rejection | None, planner.Plan]:
    """What our rules have against a host for an instance, and the plan.

    Placement is asked about the pair and about each target of the plan, as
    the strategy asks.

    :param params: of the audit
    """
    asked = reader(cloud)
    given = parameters.Parameters.of(params)
    scope = everything(cloud)
    cluster = asked.get_cluster(
        lambda: scope,
        catalogue({}),
        details=lambda seen: diagnosis.hosts_to_detail(seen, given),
    )
    verdict = diagnosis.diagnose(cluster, given)
    moving, host = named(cluster, instance), cluster.host_by_name[target]
    proposed = [(moving.flavor, host)]
    while True:
        plan = planner.plan(cluster, verdict, given)
        known = cluster
        cluster = asked.get_candidates(
            cluster,
            (
                cluster.host_by_name[move.instance.host]
                for move in plan.migrations
            ),
        )
        if cluster is not known:
            verdict = diagnosis.diagnose(cluster, given)
            continue
        proposed += [
            (move.instance.flavor, cluster.host_by_name[move.target])
            for move in plan.migrations
        ]
        cluster = asked.get_admissions(cluster, proposed)
        if cluster is known:
            break
    found = constraints.reject_instance(
        cluster, moving
    ) or constraints.reject_target(
        constraints.Proposal(
            cluster=cluster,
            diagnosis=verdict,
            occupancy=planner.Books(cluster),
            instance=moving,
            target=host,
        )
    )
    return found, plan


def rejection(
    cloud: EmbeddedCloud, instance: str, target: str, **params: Any
) -> constraints.Rejection | None:
    """What our rules have against a host for an instance; None if nothing."""
    return judged(cloud, instance, target, **params)[0]
