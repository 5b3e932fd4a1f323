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

"""A judge of plans that knows the laws and nothing of the planner.

:class:`Replay` keeps the books as Placement and Nova would while migrations
start, end and fail in any order. An instance in flight holds its request on
both sides. Everything that a law forbids is returned as text; no code of the
planner or of its constraints is used here.

Only for clouds in which one provider of a host has each class, so that there
is but one way to serve a request.
"""

from collections.abc import Iterable
import math

from watcher_cputier import model


def quota(
    cloud: model.Cluster,
    host: model.Host,
    tier: model.Tier,
    policies: dict[str, int],
    drained: frozenset[str],
) -> int:
    """Section 8, in whole units: min(capacity, policy), drained is 0."""
    if host.name in drained:
        return 0
    capacity = 0
    for provider in host.providers:
        found = provider.inventories.get(tier.resource_class)
        if found is not None:
            free = (found.total - found.reserved) * found.allocation_ratio
            capacity += math.floor(max(0, free))
    return min(capacity, policies.get(tier.name, capacity))


class Replay:
    """The books of a cloud while a plan runs.

    :param policies: {tier: policy quota in units}
    """

    def __init__(
        self,
        cloud: model.Cluster,
        policies: dict[str, int],
        drained: Iterable[str] = (),
    ) -> None:
        self.cloud = cloud
        self.policies = policies
        self.drained = frozenset(drained)
        self.used: dict[tuple[str, str], int] = {}
        self.held = dict(cloud.held)
        self.home = {i.uuid: {i.host} for i in cloud.instances}
        for host in cloud.hosts:
            for provider in host.providers:
                for name, units in provider.allocated.items():
                    self.used[provider.uuid, name] = units

    def excess(self) -> dict[tuple[str, str], int]:
        """Units over quota per host in scope and tier, zeros included."""
        return {
            (host.name, tier.name): max(
                0,
                self.held.get((host.name, tier.name), 0)
                - quota(self.cloud, host, tier, self.policies, self.drained),
            )
            for host in self.cloud.hosts
            for tier in self.cloud.tiers
            if host.in_scope
        }

    def start(self, instance: model.Instance, target: str) -> list[str]:
        """Begin a migration; what the laws have against it."""
        wrong = self.objections(instance, target)
        self._take(instance, self.cloud.host_by_name[target], +1)
        self.home[instance.uuid].add(target)
        return wrong

    def finish(self, instance: model.Instance, target: str) -> None:
        """The source lets go."""
        self._leave(instance, instance.host)

    def fail(self, instance: model.Instance, target: str) -> None:
        """The target lets go; the instance stays where it was."""
        self._leave(instance, target)

    def _leave(self, instance: model.Instance, name: str) -> None:
        self._take(instance, self.cloud.host_by_name[name], -1)
        self.home[instance.uuid].remove(name)

    def _take(
        self, instance: model.Instance, host: model.Host, sign: int
    ) -> None:
        for group in instance.flavor.groups:
            for name, units in group.resources.items():
                for provider in host.providers:
                    if name in provider.inventories:
                        key = (provider.uuid, name)
                        self.used[key] = self.used.get(key, 0) + sign * units
        if instance.tier is not None:
            here = (host.name, instance.tier)
            self.held[here] = self.held.get(here, 0) + sign * instance.units

    def objections(self, instance: model.Instance, target: str) -> list[str]:
        """Every rule that forbids a migration to begin now."""
        host = self.cloud.host_by_name[target]
        return [
            f"{instance.name} to {target}: {text}"
            for text in (
                *self._movable(instance),
                *self._admits(instance, host),
                *self._room(instance, host),
                *self._groups(instance, target),
            )
        ]

    def _movable(self, instance: model.Instance) -> Iterable[str]:
        if instance.locked or instance.task_state:
            yield "locked or busy"
        if instance.status != "ACTIVE" or instance.opted_out:
            yield "not active or opted out"
        if instance.excluded or not instance.known or instance.in_doubt:
            yield "excluded, unknown or in doubt"

    def _admits(
        self, instance: model.Instance, host: model.Host
    ) -> Iterable[str]:
        if host.name in self.home[instance.uuid]:
            yield "it is there"
        if not host.in_scope or not host.enabled or not host.up:
            yield "the host takes no part"
        if instance.pinned_zone not in (None, host.zone):
            yield "another zone"
        for group in instance.flavor.groups:
            serving = [
                provider
                for provider in host.providers
                if group.resources.keys() & provider.inventories.keys()
            ]
            traits = {t for provider in serving for t in provider.traits}
            if group.required_traits - traits:
                yield "a trait is lacking"
            if group.forbidden_traits & traits:
                yield "a trait is forbidden"

    def _room(
        self, instance: model.Instance, host: model.Host
    ) -> Iterable[str]:
        for group in instance.flavor.groups:
            for name, units in group.resources.items():
                where = [p for p in host.providers if name in p.inventories]
                if not where:
                    yield f"no {name}"
                    continue
                found = where[0].inventories[name]
                room = math.floor(
                    (found.total - found.reserved) * found.allocation_ratio
                )
                if self.used.get((where[0].uuid, name), 0) + units > room:
                    yield f"{name} beyond its capacity"
                if not found.min_unit <= units <= found.max_unit:
                    yield f"{name} beyond its unit limits"
                if units % found.step_size:
                    yield f"{name} out of step"
        for tier in self.cloud.tiers:
            if tier.name != instance.tier:
                continue
            limit = quota(self.cloud, host, tier, self.policies, self.drained)
            held = self.held.get((host.name, tier.name), 0)
            if held + instance.units > limit:
                yield f"{tier.name} beyond its quota"

    def _groups(self, instance: model.Instance, target: str) -> Iterable[str]:
        for group in self.cloud.server_groups:
            if instance.uuid not in group.members:
                continue
            homes = [
                name
                for uuid in group.members - {instance.uuid}
                for name in self.home.get(uuid, ())
            ]
            if group.policy == "anti-affinity":
                if homes.count(target) >= group.max_per_host:
                    yield "anti-affinity"
            elif group.policy == "affinity" and set(homes) - {target}:
                yield "affinity"
