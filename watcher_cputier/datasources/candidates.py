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
* An instance on a host that is over its capacity may not go where Placement
  was seen to refuse it: releases before 14.0.0 (2025.2) check the hand-over of
  an allocation to a migration like a new one. No API tells the release. What
  tells is how Nova's live migrations from such hosts have ended within the
  last day; after that, and when the host's inventories have been changed, it
  is tried again.
* Traits that an image requires join those of the flavor. Where an image
  cannot be read a finding says so and the instance may move: its targets
  are asked of Nova's scheduler, which knows the image.
"""

from collections.abc import Collection, Mapping
import concurrent.futures
import dataclasses

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.constraints import instance as instance_rules
from watcher_cputier.datasources import images as image_source
from watcher_cputier.datasources import neutron as neutron_source
from watcher_cputier.datasources import nova as nova_source
from watcher_cputier.datasources import placement as placement_source

WORKERS = 8
_TRAIT = "trait:"
_SHOWN = 10
# Failed live migrations that are looked into.
_MOST_FAILURES = 10
_DAY_SECONDS = 24 * 60 * 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Readers:
    """Whom to ask."""

    nova: nova_source.Nova
    neutron: neutron_source.Neutron
    images: image_source.Images
    placement: placement_source.Placement

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
        cluster = with_refusals(
            cluster, uuids, self._refused(cluster, cloud, servers)
        )
        told, unseen = self.images.get_properties(servers.values())
        if cloud.images_known:
            told = {
                uuid: _traits(properties)
                if servers[uuid].image
                else properties
                for uuid, properties in told.items()
            }
        return with_images(with_ties(cluster, ties), told, unseen)

    def _refused(
        self,
        cluster: model.Cluster,
        cloud: nova_source.Cloud,
        servers: Mapping[str, nova_source.Server],
    ) -> dict[str, int]:
        """{server uuid: when Placement refused to let it go}."""
        failed = {
            one.server
            for one in cloud.migrations
            if one.status == "error" and not one.target
        } | {
            one.instance
            for one in cloud.changes
            if one.ended_at is not None and not one.moved and not one.target
        }
        asked = [
            one.uuid
            for one in cluster.instances
            if one.uuid in failed & servers.keys()
            and _held_too_much(cluster, one)
        ][:_MOST_FAILURES]
        since = (cluster.taken_at or 0) - _DAY_SECONDS
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            found = dict(
                zip(
                    asked,
                    pool.map(
                        lambda uuid: self.nova.get_refused_claim(uuid, since),
                        asked,
                    ),
                    strict=True,
                )
            )
        return {
            uuid: when
            for uuid, when in found.items()
            if when is not None
            and not _left_since(cluster, uuid, when)
            and not self._changed_since(cluster, uuid, when)
        }

    def _changed_since(
        self, cluster: model.Cluster, uuid: str, when: int
    ) -> bool:
        """Whether the host's inventories are others than at a refusal.

        A unit rule may have kept the instance, and been mended.
        """
        host = cluster.host_by_name[cluster.instance_by_uuid[uuid].host]
        changed = self.placement.get_changed_at(
            one.uuid for one in host.providers + host.shared
        )
        return changed is not None and changed >= when

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


def overfull(host: model.Host) -> frozenset[str]:
    """Classes of which more is allocated on a host than it has."""
    return frozenset(
        name
        for provider in host.providers + host.shared
        for name, inventory in provider.inventories.items()
        if provider.allocated.get(name, 0) > inventory.capacity
    )


def _held_too_much(
    cluster: model.Cluster, instance: model.Instance
) -> frozenset[str]:
    """Classes that an instance holds and its host has too little of.

    Where a unit rule keeps it there, that is the reason.
    """
    host = cluster.host_by_name.get(instance.host)
    if host is None or instance_rules.releasable(cluster, instance):
        return frozenset()
    held = {
        name for amounts in instance.allocations.values() for name in amounts
    }
    return overfull(host) & held


def _left_since(cluster: model.Cluster, uuid: str, when: int) -> bool:
    """Whether Placement has let another one go from the same host since."""
    kept = cluster.instance_by_uuid[uuid]
    classes = _held_too_much(cluster, kept)
    return any(
        change.moved
        and change.source == kept.host
        and change.began_at > when
        and (other := cluster.instance_by_uuid.get(change.instance))
        is not None
        and classes & other.flavor.resources.keys()
        for change in cluster.changes
    )


def with_refusals(
    cluster: model.Cluster,
    candidates: Collection[str],
    refused: Mapping[str, int],
) -> model.Cluster:
    """The cluster with what Placement does not let go.

    One refusal tells it for all: it is Placement that is so.

    :param candidates: instances (uuids) that may have to go
    :param refused: {instance: when it was refused}
    """
    if not refused:
        return cluster
    kept = {
        one.uuid: classes
        for one in cluster.instances
        if one.uuid in candidates and (classes := _held_too_much(cluster, one))
    }
    hosts: dict[str, set[str]] = {}
    for uuid, classes in kept.items():
        home = cluster.instance_by_uuid[uuid].host
        hosts.setdefault(home, set()).update(classes)
    seen = errors.some(
        sorted(cluster.instance_by_uuid[uuid].name for uuid in refused)
    )
    return dataclasses.replace(
        cluster,
        instances=tuple(
            dataclasses.replace(
                one,
                in_doubt=one.in_doubt
                or f"its host is over its capacity of "
                f"{', '.join(sorted(kept[one.uuid]))}, and this Placement "
                "refuses to hand an allocation there to a migration, which "
                "14.0.0 (2025.2) and later do not",
            )
            if one.uuid in kept
            else one
            for one in cluster.instances
        ),
        findings=tuple(
            sorted(
                (
                    *cluster.findings,
                    *(
                        _keeps_excess(name, classes, seen)
                        for name, classes in hosts.items()
                    ),
                ),
                key=lambda f: (f.kind, f.subject, f.text),
            )
        ),
    )


def _keeps_excess(
    host: str, classes: Collection[str], seen: str
) -> model.Finding:
    return model.Finding(
        kind="placement_keeps_excess",
        subject=host,
        text=f"Host {host} is over its capacity of "
        f"{', '.join(sorted(classes))} and cannot shed its instances: "
        f"Placement refused to let {seen} go within the last day (Nova: "
        "unable to replace instance claim on source), as its releases before "
        "14.0.0 (2025.2) do wherever a host is over its capacity. "
        "Upgrade Placement; or raise the inventory back above what is "
        "allocated and ask for the lower number by the audit parameter "
        "quotas_by_host, or drain_hosts, until the instances have left.",
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
