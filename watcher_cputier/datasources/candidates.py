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

"""What is asked about the few instances that may have to move.

No bulk answer tells it: which ports are on a device of the host, which
server group an instance is in although the list of groups does not have it,
and what the image asks for. The instances of the hosts that must shed, and
of those from where a plan moves one to make room, are asked about one by one;
there is nothing to be known of all others.

* An instance in a group that Nova does not list for Watcher's user is tied
  to its host: where the other members are cannot be known.
* Traits that an image requires join those of the flavor. Where an image
  cannot be read a finding says so and the instance may move: its targets
  are asked of Nova's scheduler, which knows the image.
"""

from collections.abc import Mapping
import concurrent.futures
import dataclasses

from watcher_cputier import model
from watcher_cputier.datasources import images as image_source
from watcher_cputier.datasources import neutron as neutron_source
from watcher_cputier.datasources import nova as nova_source

WORKERS = 8
_TRAIT = "trait:"
_SHOWN = 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Whom to ask."""

    nova: nova_source.Nova
    neutron: neutron_source.Neutron
    images: image_source.Images

    def completed(
        self,
        cluster: model.Cluster,
        cloud: nova_source.Cloud,
        hosts: frozenset[str],
    ) -> model.Cluster:
        """The cluster with what is known of its candidates alone.

        :param cloud: what Nova said
        :param hosts: uuids of the hosts that instances may have to leave
        :raises ServiceError: if a service cannot be asked
        """
        names = {host.name for host in cluster.hosts if host.uuid in hosts}
        uuids = {
            instance.uuid
            for instance in cluster.instances
            if instance.host in names and instance.units
        }
        servers = {s.uuid: s for s in cloud.servers if s.uuid in uuids}
        if not servers:
            return cluster
        ties = {
            **self._hidden_groups(cloud, servers),
            **self.neutron.get_ties(
                {uuid: server.networked for uuid, server in servers.items()}
            ),
        }
        told, unseen = self.images.get_properties(servers.values())
        if cloud.images_known:
            told = {
                uuid: _traits(properties)
                if servers[uuid].image
                else properties
                for uuid, properties in told.items()
            }
        return with_images(with_ties(cluster, ties), told, unseen)

    def _hidden_groups(
        self,
        cloud: nova_source.Cloud,
        servers: Mapping[str, nova_source.Server],
    ) -> dict[str, str]:
        """{server uuid: why it is tied}, of those in a group not listed."""
        if cloud.groups_whole:
            return {}
        listed = {group.uuid for group in cloud.server_groups}
        members = {m for group in cloud.server_groups for m in group.members}
        asked = sorted(servers.keys() - members)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            groups = pool.map(self.nova.get_group, asked)
            return {
                uuid: f"it is in server group {group}, which Nova does not "
                "list for Watcher's user"
                for uuid, group in zip(asked, groups, strict=True)
                if group is not None and group not in listed
            }


def with_ties(
    cluster: model.Cluster, ties: Mapping[str, str]
) -> model.Cluster:
    """The cluster with what ties instances to their hosts."""
    if not ties:
        return cluster
    return dataclasses.replace(
        cluster,
        instances=tuple(
            dataclasses.replace(i, tied=ties[i.uuid]) if i.uuid in ties else i
            for i in cluster.instances
        ),
    )


def with_images(
    cluster: model.Cluster,
    told: Mapping[str, Mapping[str, str]],
    unseen: Mapping[str, str],
) -> model.Cluster:
    """The cluster with what images ask for.

    :param told: {instance: properties of its image that Nova did not tell}
    :param unseen: {instance: why its image cannot be read}
    """
    flavors: dict[tuple[int, frozenset[str]], model.Flavor] = {}

    def improved(instance: model.Instance) -> model.Instance:
        properties = told.get(instance.uuid)
        if not properties:
            return instance
        traits = frozenset(
            key.removeprefix(_TRAIT)
            for key, value in _traits(properties).items()
            if value == "required"
        )
        flavor = instance.flavor
        if traits:
            made = (id(flavor), traits)
            if made not in flavors:
                flavors[made] = flavor.requiring(traits)
            flavor = flavors[made]
        return dataclasses.replace(
            instance,
            flavor=flavor,
            image_properties=model.frozen_map(
                {**properties, **instance.image_properties}
            ),
        )

    if not told and not unseen:
        return cluster
    return dataclasses.replace(
        cluster,
        instances=tuple(map(improved, cluster.instances)),
        findings=tuple(
            sorted(
                (*cluster.findings, *_unseen(cluster, unseen)),
                key=lambda f: (f.kind, f.subject, f.text),
            )
        ),
    )


def _traits(properties: Mapping[str, str]) -> Mapping[str, str]:
    """What an image says about traits.

    Its other properties Nova tells as they were when the instance was
    created, and acts on those.
    """
    return {k: v for k, v in properties.items() if k.startswith(_TRAIT)}


def _unseen(
    cluster: model.Cluster, unseen: Mapping[str, str]
) -> list[model.Finding]:
    """Candidates whose images cannot be read, by the reason."""
    found: dict[str, list[str]] = {}
    for instance in cluster.instances:
        if instance.uuid in unseen:
            names = found.setdefault(unseen[instance.uuid], [])
            names.append(instance.name)
    return [
        model.Finding(
            kind="image_unseen",
            subject=names[0] if len(names) == 1 else f"{len(names)} instances",
            text="What the images ask for cannot be read of "
            f"{', '.join(names[:_SHOWN])}"
            + (
                f" and {len(names) - _SHOWN} more"
                if len(names) > _SHOWN
                else ""
            )
            + f" ({reason.rstrip('.')}): a migration of theirs to a host that "
            "lacks a trait which an image requires is refused by Nova when it "
            "is tried.",
        )
        for reason, names in sorted(found.items())
    ]
