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

"""A few hosts as they are at this moment, for a step that is about to begin.

The same readers and the same assembly as for an audit, for the hosts and
instances that one migration turns on: a dozen requests, whatever the size of
the cloud. Aggregates and what ties instances to hardware are not read again;
neither changes while a plan runs.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import model
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova as nova_source
from watcher_cputier.datasources import placement as placement_source
from watcher_cputier.datasources import snapshot


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Whereabouts:
    """Where an instance is.

    :param host: its host; empty if it is on none or is gone
    :param moving: whether a migration of it holds anything yet
    """

    host: str
    moving: bool


def get_whereabouts(reader: cloud_source.Reader, instance: str) -> Whereabouts:
    """Where an instance is, and whether it is there for good.

    A migration is over when Nova says so *and* its own allocation, the one on
    the source, is gone from Placement: Nova lets go of it last.

    :param instance: its uuid
    :raises ServiceError: if Nova or Placement cannot be asked
    """
    nova = reader.nova
    moving = False
    for record in nova.service.items(
        "/os-migrations", "migrations", {"instance_uuid": instance}
    ):
        migration = nova_source.Migration(
            uuid=record["uuid"],
            server=instance,
            status=record["status"],
            source=record.get("source_compute") or "",
            target=record.get("dest_compute") or "",
        )
        held = reader.placement.service.get(f"/allocations/{migration.uuid}")
        if migration.in_flight or held["allocations"]:
            moving = True
    server = nova.get_server(instance)
    if server is None:
        return Whereabouts(host="", moving=moving)
    return Whereabouts(
        host=server.host, moving=moving or server.task_state == "migrating"
    )


def get_cluster(
    reader: cloud_source.Reader,
    catalogue: tiers_conf.Catalogue,
    hosts: Mapping[str, str],
    instances: Iterable[str],
    shares_class: str | None = None,
) -> model.Cluster:
    """These hosts with all instances on them, and these instances.

    Every host is in scope and every instance known: whether they were was
    settled when the plan was made.

    :param hosts: {name: uuid}
    :param instances: uuids, wherever they are
    :param shares_class: of single-class mode; None with a class per tier
    :raises TierError: if it cannot look
    """
    cloud = _get_cloud(reader.nova, hosts, tuple(instances))
    providers = reader.placement.get_details(
        placement_source.Providers(
            providers=(), consumers=model.frozen_map(), read=frozenset()
        ),
        hosts.values(),
    )
    return snapshot.assemble(
        compute_model.Scope(
            hosts=frozenset(hosts.values()),
            instances={server.uuid: False for server in cloud.servers},
        ),
        cloud,
        providers,
        catalogue.tiers,
        catalogue.default_tier,
        mode="classes" if shares_class is None else "shares",
        shares_class=shares_class,
        failure_domain_key=catalogue.failure_domain_key,
        shares_rule=catalogue.shares_rule,
    )


def _get_cloud(
    nova: nova_source.Nova,
    hosts: Mapping[str, str],
    instances: tuple[str, ...],
) -> nova_source.Cloud:
    migrations = nova.get_migrations()
    computes = [
        compute
        for name, uuid in sorted(hosts.items())
        if (compute := _get_compute(nova, name, uuid)) is not None
    ]
    servers = {
        server.uuid: server
        for name in sorted(hosts)
        for server in nova.get_servers_on(name)
    }
    groups = _get_groups(nova, instances)
    wanted = {*instances, *(m for g in groups for m in g.members)}
    for uuid in sorted(wanted - servers.keys()):
        server = nova.get_server(uuid)
        if server is not None:
            servers[uuid] = server
    return nova_source.Cloud(
        computes=tuple(computes),
        servers=tuple(
            sorted(servers.values(), key=lambda s: (s.name, s.uuid))
        ),
        migrations=migrations,
        aggregates=(),
        server_groups=groups,
        zones_known=nova.service.version >= nova_source.PINNED_ZONE,
    )


def _get_compute(
    nova: nova_source.Nova, name: str, uuid: str
) -> nova_source.Compute | None:
    """A host by its compute service; None if that is gone."""
    for record in nova.service.items(
        "/os-services", "services", {"binary": "nova-compute", "host": name}
    ):
        return nova_source.Compute(
            uuid=uuid,
            name=name,
            node_name=name,
            zone=record.get("zone", ""),
            enabled=record.get("status") == "enabled",
            up=record.get("state") == "up",
            disabled_reason=record.get("disabled_reason") or "",
        )
    return None


def _get_groups(
    nova: nova_source.Nova, instances: Iterable[str]
) -> tuple[model.ServerGroup, ...]:
    """The server groups of these instances, by name."""
    found = {}
    for uuid in {u for i in instances if (u := nova.get_group(i))}:
        record = nova.service.get(f"/os-server-groups/{uuid}")["server_group"]
        found[uuid] = model.ServerGroup(
            uuid=uuid,
            name=record["name"],
            policy=record["policy"],
            members=frozenset(record["members"]),
            max_per_host=int(record["rules"].get("max_server_per_host", 1)),
        )
    return tuple(sorted(found.values(), key=lambda g: (g.name, g.uuid)))
