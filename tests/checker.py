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

:func:`judge` replays a whole plan in its serial order, one migration after
the other, and holds what the plan says of itself against it (L1, L2, L3, L5,
L6). Plans with chains, exchanges and parking moves are what it is made for:
a migration is judged by where things are when it starts. It is linear in the
instances and migrations, for clouds of 10,000 hosts as well.

Only for clouds in which one provider of a host has each class, so that there
is but one way to serve a request.
"""

from collections.abc import Iterable, Mapping
import math
from typing import Any

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
        self.hosts = {host.name: host for host in cloud.hosts}
        self.at = {i.uuid: i.host for i in cloud.instances}
        self.home = {i.uuid: {i.host} for i in cloud.instances}
        for host in cloud.hosts:
            for provider in host.providers:
                for name, units in provider.allocated.items():
                    self.used[provider.uuid, name] = units
        self._tiers = {tier.name: tier for tier in cloud.tiers}
        self._quotas: dict[tuple[str, str], int] = {}
        self._groups_of: dict[str, list[model.ServerGroup]] = {}
        for group in cloud.server_groups:
            for uuid in group.members:
                self._groups_of.setdefault(uuid, []).append(group)

    def quota(self, host: model.Host, tier: model.Tier) -> int:
        """Section 8, in whole units; computed once."""
        key = (host.name, tier.name)
        if key not in self._quotas:
            self._quotas[key] = quota(
                self.cloud, host, tier, self.policies, self.drained
            )
        return self._quotas[key]

    def excess(self) -> dict[tuple[str, str], int]:
        """Units over quota per host in scope and tier, zeros included."""
        return {
            (host.name, tier.name): max(
                0,
                self.held.get((host.name, tier.name), 0)
                - self.quota(host, tier),
            )
            for host in self.cloud.hosts
            for tier in self.cloud.tiers
            if host.in_scope
        }

    def start(self, instance: model.Instance, target: str) -> list[str]:
        """Begin a migration; what the laws have against it."""
        wrong = self.objections(instance, target)
        self._arrive(instance, target)
        return wrong

    def move(self, instance: model.Instance, target: str) -> None:
        """Begin and end a migration that nobody asks about."""
        self._arrive(instance, target)
        self.finish(instance, target)

    def _arrive(self, instance: model.Instance, target: str) -> None:
        self._take(instance, self.hosts[target], +1)
        self.home[instance.uuid].add(target)

    def finish(self, instance: model.Instance, target: str) -> None:
        """The source lets go; from now on the instance is elsewhere."""
        self._leave(instance, self.at[instance.uuid])
        self.at[instance.uuid] = target

    def fail(self, instance: model.Instance, target: str) -> None:
        """The target lets go; the instance stays where it was."""
        self._leave(instance, target)

    def _leave(self, instance: model.Instance, name: str) -> None:
        self._take(instance, self.hosts[name], -1)
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
        host = self.hosts[target]
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
        source = self.hosts.get(self.at[instance.uuid])
        if source is None:
            return
        if not source.up:
            yield "nothing leaves a host that is down"
        for provider in source.providers:
            held = instance.allocations.get(provider.uuid, {})
            for name, units in held.items():
                if name in provider.inventories and not _in_units(
                    provider.inventories[name], units
                ):
                    yield f"its source cannot hand over its {name}"

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
                if not _in_units(found, units):
                    yield f"{name} beyond its unit limits or out of step"
        if instance.tier is not None:
            tier = self._tiers[instance.tier]
            held = self.held.get((host.name, tier.name), 0)
            if held + instance.units > self.quota(host, tier):
                yield f"{tier.name} beyond its quota"

    def _groups(self, instance: model.Instance, target: str) -> Iterable[str]:
        for group in self._groups_of.get(instance.uuid, ()):
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


def _in_units(found: model.Inventory, units: int) -> bool:
    """Placement's unit rules, where they are known."""
    if found.total is None:
        return True
    return (
        found.min_unit <= units <= found.max_unit
        and units % found.step_size == 0
    )


def residual(
    cloud: model.Cluster, excess: Mapping[tuple[str, str], int]
) -> tuple[int, ...]:
    """Units over quota of each tier, the highest tier first."""
    return tuple(
        sum(units for (_, name), units in excess.items() if name == tier.name)
        for tier in sorted(cloud.tiers, key=lambda t: (t.rank, t.name))
    )


def judge(
    cloud: model.Cluster,
    plan: Any,
    policies: dict[str, int] | None = None,
    drained: Iterable[str] = (),
    *,
    max_migrations: int = 0,
) -> list[str]:
    """All that the laws have against a plan; empty if it keeps them.

    :param plan: anything with the fields of a plan
    :param max_migrations: the audit's cap; 0 is none
    """
    books = Replay(cloud, policies or {}, drained)
    before = books.excess()
    wrong = list(_serially(books, plan.migrations))
    after = books.excess()
    wrong += [
        f"{host} is {units} units over its quota of {tier}, "
        f"{before[host, tier]} before"
        for (host, tier), units in after.items()
        if units > before[host, tier]
    ]
    wrong += _account("excess before", plan.excess_before, before)
    wrong += _account("excess after", plan.excess_after, after)
    wrong += _relief(plan.migrations, before, after)
    wrong += _certificate(plan, sum(after.values()))
    if max_migrations and len(plan.migrations) > max_migrations:
        wrong.append(
            f"{len(plan.migrations)} migrations, {max_migrations} are allowed"
        )
    return wrong


def _serially(books: Replay, migrations: Iterable[Any]) -> Iterable[str]:
    """L2 in the serial order; L3: nothing moves twice but what is parked."""
    parked: dict[str, str] = {}
    moved: set[str] = set()
    for move in migrations:
        uuid, name = move.instance.uuid, move.instance.name
        if uuid not in books.at:
            yield f"{name} is not there"
            continue
        if books.at[uuid] != move.source:
            yield f"{name} is on {books.at[uuid]}, not on {move.source}"
        if uuid in moved and uuid not in parked:
            yield f"{name} moves twice and was not parked"
        parked.pop(uuid, None)
        moved.add(uuid)
        yield from books.start(move.instance, move.target)
        books.finish(move.instance, move.target)
        if getattr(move, "parking", False):
            parked[uuid] = name
    for name in parked.values():
        yield f"{name} is parked for good"


def _account(
    what: str,
    told: Mapping[tuple[str, str], int],
    counted: Mapping[tuple[str, str], int],
) -> Iterable[str]:
    for key in sorted({*told, *counted}):
        if told.get(key, 0) != counted.get(key, 0):
            yield (
                f"{what} of {key}: {told.get(key, 0)} told, "
                f"{counted.get(key, 0)} counted"
            )


def _relief(
    migrations: Iterable[Any],
    before: Mapping[tuple[str, str], int],
    after: Mapping[tuple[str, str], int],
) -> Iterable[str]:
    """What the migrations claim to relieve is what goes away."""
    claimed: dict[tuple[str, str], int] = {}
    for move in migrations:
        key = (move.source, move.tier)
        claimed[key] = claimed.get(key, 0) + move.relief
        if not 0 <= move.relief <= move.units:
            yield f"{move.instance.name}: relief {move.relief}"
    for key in before:
        gone = before[key] - after[key]
        if claimed.get(key, 0) != gone:
            yield f"relief of {key}: {claimed.get(key, 0)} told, {gone} gone"


def _certificate(plan: Any, left: int) -> Iterable[str]:
    """L5, as far as a plan alone can show it."""
    if len(plan.migrations) < plan.lower_bound:
        yield (
            f"{len(plan.migrations)} migrations are fewer than the bound, "
            f"{plan.lower_bound}"
        )
    bound = getattr(plan, "residual_bound", None)
    if bound is not None and left < bound:
        yield f"{left} units are left, fewer than the bound, {bound}"
