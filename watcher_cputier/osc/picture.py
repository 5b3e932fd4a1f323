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


"""The cloud as the commands see it: everything that the user may see.

An audit sees what its scope leaves; a command has no audit, and all hosts
and instances are in its scope.
"""

from collections.abc import Callable, Iterable
import dataclasses

from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova
from watcher_cputier.strategies import usage

DAY_SECONDS = 24 * 60 * 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A cloud, judged.

    :param starved: who gets what was sold; None where nobody looked
    """

    cluster: model.Cluster
    diagnosis: diagnosis.Diagnosis
    starved: starvation.Starvation | None = None

    def host(self, named: str) -> model.Host:
        """The host of a name or uuid.

        :raises ParameterError: if there is none
        """
        for host in self.cluster.hosts:
            if named in (host.name, host.uuid, host.node_name):
                return host
        raise errors.ParameterError(
            f"there is no host {named!r}",
            cure="Name one that `openstack tier host list` shows",
        )

    def check_accounts(self, named: Iterable[str]) -> None:
        """Refuse what is neither a tier nor the class of all tiers.

        :raises ParameterError: with the names that would be right
        """
        for name in named:
            if name not in self.cluster.accounts:
                raise errors.ParameterError(
                    f"there is no tier {name!r}",
                    cure=f"The tiers are {', '.join(self.cluster.accounts)}",
                )

    def instance(self, named: str) -> model.Instance:
        """The instance of a name or uuid.

        :raises ParameterError: if there is none, or more than one
        """
        found = self.cluster.instance_by_uuid.get(named)
        if found is not None:
            return found
        several = [i for i in self.cluster.instances if i.name == named]
        if len(several) == 1:
            return several[0]
        if several:
            raise errors.ParameterError(
                f"{len(several)} instances are named {named!r}: "
                + ", ".join(i.uuid for i in several[:5]),
                cure="Name it by its uuid",
            )
        raise errors.ParameterError(
            f"there is no instance {named!r}",
            cure="Name one that `openstack tier instance list` shows",
        )


def get_scope(reader: cloud.Reader) -> compute_model.Scope:
    """All hosts and all instances.

    :raises ServiceError: if Nova cannot be asked
    :raises SnapshotError: if it has no compute host
    """
    service = reader.nova.service
    hosts = list(
        service.pages(
            "/os-hypervisors",
            "hypervisors",
            {"limit": nova.PAGE},
            before=nova.UPTIMES,
        )
    )
    if not hosts:
        raise errors.SnapshotError(
            "Nova has no compute host",
            where="GET /os-hypervisors",
            cure="See that nova-compute runs on the hosts, that `nova-manage "
            "cell_v2 discover_hosts` has entered them and that "
            "--os-region-name names their region",
        )
    servers = service.pages(
        "/servers", "servers", {"all_tenants": True, "limit": nova.PAGE}
    )
    return compute_model.Scope(
        hosts=frozenset(str(one["id"]) for one in hosts),
        instances=model.frozen_map(
            dict.fromkeys((str(one["id"]) for one in servers), False)
        ),
    )


def get_cluster(
    reader: cloud.Reader,
    conf: cfg.ConfigOpts,
    *,
    details: Callable[[model.Cluster], Iterable[str]] | None = None,
    history_seconds: int | None = None,
) -> model.Cluster:
    """The whole cloud, without telemetry.

    :param details: as :meth:`cloud.Reader.get_cluster` takes it; all hosts
        unless it is given
    :param history_seconds: as it takes them
    :raises TierError: if it cannot look
    """
    return reader.get_cluster(
        lambda: get_scope(reader),
        tiers_conf.catalogue(conf),
        details=details or (lambda seen: (host.uuid for host in seen.hosts)),
        history_seconds=history_seconds,
    )


def get_measured(
    connected: sdk.Connection,
    reader: cloud.Reader,
    conf: cfg.ConfigOpts,
    params: parameters.Parameters,
    *,
    details: Callable[[model.Cluster], Iterable[str]] | None = None,
) -> model.Cluster:
    """The whole cloud as an audit with these parameters would see it.

    :raises TierError: if it cannot look
    """
    cluster = get_cluster(
        reader,
        conf,
        details=details,
        history_seconds=usage.history_seconds(params) or DAY_SECONDS,
    )
    return usage.with_telemetry(reader, cluster, params, conf, connected)


def get_picture(
    connected: sdk.Connection,
    reader: cloud.Reader,
    conf: cfg.ConfigOpts,
    params: parameters.Parameters,
    *,
    whole: bool = True,
) -> Picture:
    """The whole cloud with the verdict on every host and instance.

    :param whole: whether all hosts are read in detail, which takes some
        requests for each of them
    :raises TierError: if it cannot look, or nothing can be judged
    """
    cluster = get_measured(
        connected,
        reader,
        conf,
        params,
        details=None
        if whole
        else lambda seen: planner.hosts_to_detail(seen, params),
    )
    verdict = diagnosis.diagnose(cluster, params)
    return Picture(
        cluster=cluster,
        diagnosis=verdict,
        starved=judged(cluster, verdict, params),
    )


def judged(
    cluster: model.Cluster,
    verdict: diagnosis.Diagnosis,
    params: parameters.Parameters,
) -> starvation.Starvation | None:
    """Who gets what was sold; None where there is no telemetry to tell."""
    if cluster.telemetry is None:
        return None
    found = starvation.judge(cluster, verdict, params)
    return None if found.abstained else found
