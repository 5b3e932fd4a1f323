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

"""What would help where a plan cannot: relaxations and suggestions.

A plan that leaves hosts over quota says what the smallest changes are that
would cure them (N10), each tried on the state that the plan leads to:

* the units that are missing in the whole scope, by conservation: what hosts
  hold too much and no host may take stays, whatever moves (R126);
* the quota of the host, raised to what stays there;
* one more host with just the room, the traits and the zone that the smallest
  sufficient set of instances asks for, or that an instance asks for in whose
  place one of them would go;
* a host that is there and lacks the least;
* instances that may not move and would have to.

Where a host has room in the tier but not in a class that tiers share (memory,
VCPU, all tiers' shares), the fewest instances of lower tiers that stand in
the way are named (R106, R111). Whether they move or are stopped is for the
operator to decide.
"""

from collections.abc import Callable, Iterable, Iterator
import dataclasses
import itertools

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import books as bookkeeping
from watcher_cputier.planner import lacks
from watcher_cputier.planner import values

# Excesses, in the order of the plan, for which help is looked for, ...
_MOST_ITEMS = 20
# ... kinds of instances that are tried for each, ...
_MOST_KINDS = 4
# ... hosts that are tried for each of those, the nearest first, ...
_MOST_HOSTS = 10
# ... and instances that a suggestion asks to leave.
_MOST_LEAVING = 4


def advised(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    plan: values.Plan,
    extensions: constraints.Extensions | None = None,
) -> values.Plan:
    """A plan with the relaxations and suggestions for what it leaves."""
    if not plan.unresolved:
        return plan
    books = bookkeeping.Books(cluster)
    for migration in (*plan.migrations, *plan.deferred):
        books.move(migration.instance, cluster.host_by_name[migration.target])
    advice = _Advice(lacks.Lacks(cluster, diagnosis, books, extensions))
    return dataclasses.replace(
        plan,
        relaxations=tuple(advice.relaxations(plan.unresolved)),
        suggestions=tuple(advice.suggestions(plan.unresolved)),
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Hole:
    """What one more host would have to have for some instances.

    :param instances: those that it would take
    :param instance: the one of the host over quota; it goes to ``target``
        in place of another one, unless it is among ``instances``
    :param tier_rank: of the tier that the host would need room in
    :param exchange: whether the other one would have its place then
    """

    instances: tuple[model.Instance, ...]
    instance: model.Instance
    tier_rank: int
    target: str = ""
    exchange: bool = False

    @property
    def rank(self) -> tuple[object, ...]:
        """The smallest first."""
        return (
            sum(one.units for one in self.instances),
            sum(one.flavor.memory_mb for one in self.instances),
            len(self.instances),
            -self.tier_rank,
            bool(self.target),
            [one.sort_key for one in self.instances],
        )


class _Advice:
    """What there is to say about one state."""

    def __init__(self, lacking: lacks.Lacks) -> None:
        self._lacks = lacking
        self._cluster = lacking.cluster
        self._diagnosis = lacking.diagnosis
        self._rank = {tier.name: tier.rank for tier in self._cluster.tiers}

    # Relaxations

    def relaxations(
        self, unresolved: tuple[values.Unresolved, ...]
    ) -> Iterator[values.Relaxation]:
        """Those of the whole scope, then those of each host."""
        for account in self._cluster.accounts:
            if any(item.tier == account for item in unresolved):
                yield from self._units(account)
        for item in unresolved[:_MOST_ITEMS]:
            yield from self._quota(item)
            yield from self._instance(item)
            yield from self._hole(item)
            yield from self._room(item)

    def _units(self, account: str) -> Iterator[values.Relaxation]:
        """What is missing in the whole scope, by conservation of units."""
        held = over = free = 0
        for host in self._lacks.hosts:
            quota = self._diagnosis.quotas[host.name, account]
            if quota.unlimited:
                return
            if quota.units is None:
                continue
            # Units never come from nor go to nowhere: it does not matter
            # how many of them a plan has moved already.
            here = self._cluster.held.get((host.name, account), 0)
            over += max(0, here - quota.units)
            if host.enabled and host.up:
                free += max(0, quota.units - here)
            held += here
        if over > free:
            yield values.Relaxation(
                kind="units",
                host="",
                tier=account,
                units=over - free,
                room=model.frozen_map({account: over - free}),
                proven=self._conserved(account),
                text=f"{_units(over - free, account)} "
                f"{_are(over - free)} missing in the whole scope: "
                f"{over} {_are(over)} over quota, and hosts that may take "
                f"some have room for {free}",
            )

    def _conserved(self, account: str) -> bool:
        """Whether no instance asks a new host for less than it holds."""
        return all(
            capacity.claims(self._cluster, one).get(account, 0) >= one.units
            for one in self._cluster.instances
            if account in self._cluster.accounts_of(one)
        )

    def _quota(self, item: values.Unresolved) -> Iterator[values.Relaxation]:
        quota = self._diagnosis.quotas[item.host, item.tier]
        if quota.drained or quota.units is None:
            return
        units = quota.units + item.units
        what = []
        if quota.policy is not None and quota.policy < units:
            what.append("its policy quota")
        if quota.capacity is not None and quota.capacity < units:
            what.append("its inventory")
        yield values.Relaxation(
            kind="quota",
            host=item.host,
            tier=item.tier,
            units=item.units,
            target=item.host,
            room=model.frozen_map({item.tier: item.units}),
            text=f"{item.host} with a quota of {units} {item.tier} units "
            f"instead of {quota.units} ({' and '.join(what)}) would keep "
            "what it has",
        )

    def _instance(
        self, item: values.Unresolved
    ) -> Iterator[values.Relaxation]:
        """The fewest that may not move and would have to."""
        movable = sum(one.units for one in _movable(item))
        missing = item.units - movable
        if missing <= 0:
            return
        fixed = sorted(
            (one for one in item.refusals if one.rejection is not None),
            key=lambda one: (-one.instance.units, one.instance.sort_key),
        )
        chosen = []
        for one in fixed:
            if missing <= 0:
                break
            chosen.append(one)
            missing -= one.instance.units
        if not chosen or missing > 0:
            return
        told = []
        homes = 0
        for refusal in chosen:
            home = self._home(refusal.instance)
            homes += home != ""
            reason = refusal.rejection.reason if refusal.rejection else ""
            told.append(
                f"{refusal.instance.name} ({reason}; "
                + (f"{home} would take it)" if home else "no host takes it)")
            )
        instances = tuple(one.instance for one in chosen)
        yield values.Relaxation(
            kind="instance",
            host=item.host,
            tier=item.tier,
            units=min(item.units, sum(one.units for one in instances)),
            instances=instances,
            proven=homes == len(chosen) == 1,
            text=f"the excess of {item.host} can go only with {_listed(told)}",
        )

    def _home(self, instance: model.Instance, without: str = "") -> str:
        """A host that would take an instance; empty if there is none."""
        here = self._lacks.books.location(instance)
        for host in self._lacks.hosts:
            if (
                host.name not in (here, without)
                and self._lacks.rejection(instance, host) is None
            ):
                return host.name
        return ""

    def _hole(self, item: values.Unresolved) -> Iterator[values.Relaxation]:
        victims = _smallest_cover(_movable(item), item.units)
        if not victims:
            return
        holes = [self._direct(victims)]
        if len(victims) > 1 and not self._serves(holes[0]):
            # One host alone does not do for members of one server group.
            holes = [self._direct(victims[-1:])]
        if len(victims) == 1:
            holes.extend(self._ejections(victims[0]))
        for hole in sorted(holes, key=lambda one: one.rank):
            proven = self._serves(hole)
            if proven or hole is holes[0]:
                yield self._written(item, hole, proven)
                return

    def _direct(self, victims: tuple[model.Instance, ...]) -> _Hole:
        return _Hole(
            instances=victims,
            instance=victims[-1],
            tier_rank=self._rank.get(victims[-1].tier or "", 0),
        )

    def _ejections(self, victim: model.Instance) -> Iterator[_Hole]:
        """Smaller ones, that a resident of some host would leave through."""
        near = self._lacks.nearest(victim)
        for host, room in itertools.islice(near, _MOST_HOSTS):
            candidates = sorted(
                (
                    one
                    for one in self._lacks.residents(host.name)
                    if one.units
                    and constraints.reject_instance(self._cluster, one) is None
                ),
                key=lambda one: (
                    one.units,
                    one.flavor.memory_mb,
                    one.sort_key,
                ),
            )
            found = self._lacks.in_the_way(
                victim, host, room, candidates, most=1
            )
            if found is None:
                continue
            (resident,) = found[0]
            source = self._cluster.host_by_name[victim.host]
            yield _Hole(
                instances=(resident,),
                instance=victim,
                tier_rank=self._rank.get(resident.tier or "", 0),
                target=host.name,
                exchange=self._lacks.rejection(
                    resident, source, self._lacks.released([victim])
                )
                is None,
            )

    def _serves(self, hole: _Hole) -> bool:
        """Whether a host with just that room would take the instances."""
        host = _made(self._cluster, hole.instances)
        group = [
            self._cluster.group_by_member.get(one.uuid)
            for one in hole.instances
        ]
        apart = [g.uuid for g in group if g is not None]
        if len(set(apart)) < len(apart):
            return False
        quotas = {
            (host.name, account): diagnosing.Quota(
                host=host.name,
                tier=account,
                capacity=None,
                policy=None,
                units=sum(
                    capacity.claims(self._cluster, one).get(account, 0)
                    for one in hole.instances
                ),
            )
            for account in self._cluster.accounts
        }
        diagnosis = dataclasses.replace(
            self._diagnosis,
            quotas=model.frozen_map({**self._diagnosis.quotas, **quotas}),
        )
        return all(
            constraints.reject_target(
                constraints.Proposal(
                    cluster=self._cluster,
                    diagnosis=diagnosis,
                    occupancy=self._lacks.books,
                    instance=one,
                    target=host,
                ),
                self._lacks.extensions,
            )
            is None
            for one in hole.instances
        )

    def _written(
        self, item: values.Unresolved, hole: _Hole, proven: bool
    ) -> values.Relaxation:
        host = _made(self._cluster, hole.instances)
        root = host.providers[0]
        room = {name: i.capacity for name, i in root.inventories.items()}
        traits = tuple(sorted(root.traits))
        units = sum(
            one.units
            for one in (
                [hole.instance] if hole.target else list(hole.instances)
            )
        )
        wanted = f"one more host with {self.told(room)} free"
        if traits:
            wanted += f", trait{'s' * (len(traits) > 1)} {', '.join(traits)}"
        if host.zone:
            wanted += f", in zone {host.zone}"
        names = _names(hole.instances)
        text = f"{wanted} would take {names}"
        if hole.target:
            text += f" of {hole.target}, which would then take "
            text += hole.instance.name
        if hole.exchange:
            text += "; a host that lends it for a while does as well"
        if not proven:
            text += ", as far as room goes"
        return values.Relaxation(
            kind="hole",
            host=item.host,
            tier=item.tier,
            units=min(item.units, units),
            instances=hole.instances,
            target=hole.target,
            room=model.frozen_map(room),
            traits=traits,
            zone=host.zone,
            exchange=(
                (hole.instance.name, hole.instances[0].name)
                if hole.exchange
                else ()
            ),
            proven=proven,
            text=text,
        )

    def _room(self, item: values.Unresolved) -> Iterator[values.Relaxation]:
        """The host that lacks least for one of the instances."""
        best = None
        for victim in _kinds(_movable(item), item.units):
            for host, room in self._lacks.nearest(victim):
                if self._lacks.suffices(victim, host, room):
                    relief = min(item.units, victim.units)
                    rank = (-relief, len(room), sum(room.values()), host.name)
                    if best is None or rank < best[0]:
                        best = (rank, victim, host, room)
                    break
        if best is None:
            return
        _, victim, host, room = best
        yield values.Relaxation(
            kind="room",
            host=item.host,
            tier=item.tier,
            units=min(item.units, victim.units),
            instances=(victim,),
            target=host.name,
            room=room,
            text=f"{host.name} with {self.told(room)} more would take "
            f"{victim.name}",
        )

    def told(self, room: lacks.Room) -> str:
        """Room in words: units of tiers, then what they share."""
        classes = {
            tier.resource_class: tier.name for tier in self._cluster.tiers
        }
        if self._cluster.shares_class is not None:
            classes = {}
        merged: dict[str, int] = {}
        for name, units in room.items():
            account = classes.get(name, name)
            merged[account] = max(merged.get(account, 0), units)
        tiers = [name for name in self._rank if name in merged]
        others = sorted(name for name in merged if name not in self._rank)
        return _listed(
            [_units(merged[name], name) for name in tiers]
            + [f"{merged[name]} {name}" for name in others]
        )

    # Suggestions

    def suggestions(
        self, unresolved: tuple[values.Unresolved, ...]
    ) -> Iterator[values.Suggestion]:
        """At most one for each excess, and none twice."""
        told: set[tuple[str, frozenset[str]]] = set()
        for item in unresolved[:_MOST_ITEMS]:
            found = self._suggestion(item)
            if found is None:
                continue
            key = (
                found.target,
                frozenset(one.instance.uuid for one in found.displaced),
            )
            if key not in told:
                told.add(key)
                yield found

    def _suggestion(self, item: values.Unresolved) -> values.Suggestion | None:
        best = None
        for victim in _kinds(_movable(item), item.units):
            near = self._lacks.nearest(victim, self._shared_by(victim))
            for host, room in itertools.islice(near, _MOST_HOSTS):
                most = _MOST_LEAVING if best is None else best[0][1]
                found = self._lacks.in_the_way(
                    victim, host, room, self._lower(victim, host), most
                )
                if found is None:
                    continue
                leaving, fewest = found
                rank = (
                    -min(item.units, victim.units),
                    len(leaving),
                    sum(one.flavor.memory_mb for one in leaving),
                    host.name,
                )
                if best is None or rank < best[0]:
                    best = (rank, victim, host, room, leaving, fewest)
        if best is None:
            return None
        _, victim, host, room, leaving, fewest = best
        displaced = tuple(self._displaced(leaving, victim, host))
        return values.Suggestion(
            instance=victim,
            source=self._lacks.books.location(victim),
            target=host.name,
            tier=item.tier,
            lacking=room,
            displaced=displaced,
            fewest=fewest,
            text=self._suggested(victim, host, room, displaced),
        )

    def _shared_by(
        self, victim: model.Instance
    ) -> Callable[[lacks.Room], bool]:
        """Whether only what tiers share is lacking."""
        tier = self._cluster.tier_by_name.get(victim.tier or "")
        if tier is None:
            return lambda room: False
        own = {tier.name}
        if self._cluster.shares_class is None:
            own.add(tier.resource_class)
        return own.isdisjoint

    def _lower(
        self, victim: model.Instance, host: model.Host
    ) -> list[model.Instance]:
        """Residents of lower tiers: the lowest first, then the smallest."""
        lowest = 1 + max(self._rank.values())
        own = self._rank.get(victim.tier or "", lowest)
        found = [
            (self._rank.get(one.tier or "", lowest), one)
            for one in self._lacks.residents(host.name)
        ]
        return [
            one
            for rank, one in sorted(
                found,
                key=lambda pair: (
                    -pair[0],
                    pair[1].flavor.memory_mb,
                    pair[1].sort_key,
                ),
            )
            if rank > own
        ]

    def _displaced(
        self,
        leaving: Iterable[model.Instance],
        victim: model.Instance,
        host: model.Host,
    ) -> Iterator[values.Displacement]:
        """Each with a host that takes it, the ones before it in place."""
        books = self._lacks.books
        moved = []
        for one in leaving:
            target = ""
            if constraints.reject_instance(self._cluster, one) is None:
                target = self._home(one, without=host.name)
            if target:
                books.move(one, self._cluster.host_by_name[target])
                moved.append(one)
            yield values.Displacement(instance=one, target=target)
        for one in reversed(moved):
            books.back(one, None)

    def _suggested(
        self,
        victim: model.Instance,
        host: model.Host,
        room: lacks.Room,
        displaced: tuple[values.Displacement, ...],
    ) -> str:
        moves = [
            f"{_described(one.instance)} moved to {one.target}"
            if one.target
            else f"{_described(one.instance)} stopped"
            for one in displaced
        ]
        return (
            f"{host.name} has room for {victim.name} in its tier, and lacks "
            f"{self.told(room)}: it would take it with {_listed(moves)}"
        )


def _movable(item: values.Unresolved) -> list[model.Instance]:
    return [one.instance for one in item.refusals if one.rejection is None]


def _kinds(
    instances: Iterable[model.Instance], units: int
) -> list[model.Instance]:
    """One of each flavor: those that suffice first, the smallest of them.

    Of those that do not the largest come first.
    """
    found: dict[tuple[object, ...], model.Instance] = {}
    for one in sorted(
        instances,
        key=lambda one: (
            one.units < units,
            one.units if one.units >= units else -one.units,
            one.flavor.memory_mb,
            one.sort_key,
        ),
    ):
        found.setdefault((one.flavor.request, one.pinned_zone), one)
    return list(found.values())[:_MOST_KINDS]


def _smallest_cover(
    instances: Iterable[model.Instance], units: int
) -> tuple[model.Instance, ...]:
    """The fewest units that cover an excess, then the fewest instances.

    All of them where even all do not.
    """
    order = sorted(
        instances,
        key=lambda one: (-one.units, one.flavor.memory_mb, one.sort_key),
    )
    if sum(one.units for one in order) <= units:
        return tuple(order)
    # {units: the fewest of those so far with that sum}
    best: dict[int, tuple[int, ...]] = {0: ()}
    for i, one in enumerate(order):
        for total, chosen in sorted(best.items(), reverse=True):
            if total >= units:
                continue
            more = total + one.units
            if more not in best or len(best[more]) > len(chosen) + 1:
                best[more] = (*chosen, i)
    least = min(total for total in best if total >= units)
    return tuple(order[i] for i in best[least])


def _made(
    cluster: model.Cluster, instances: tuple[model.Instance, ...]
) -> model.Host:
    """A host that has just what some instances ask for.

    Its name is one that no host has.
    """
    name = "one more host"
    while name in cluster.host_by_name:
        name += "'"
    room: dict[str, int] = {}
    traits: set[str] = set()
    zones = set()
    for one in instances:
        for resource_class, amount in one.flavor.resources.items():
            room[resource_class] = room.get(resource_class, 0) + amount
        for account, units in capacity.claims(cluster, one).items():
            tier = cluster.tier_by_name.get(account)
            if tier is None or cluster.shares_class is not None:
                continue
            if tier.resource_class in cluster.tier_classes:
                continue
            # Enforced without Placement: units by the tier's own name.
            room[account] = room.get(account, 0) + units
        traits |= one.flavor.required_traits
        if one.pinned_zone:
            zones.add(one.pinned_zone)
    source = cluster.host_by_name[instances[0].host]
    return model.Host(
        uuid=name,
        name=name,
        node_name=name,
        providers=(
            model.Provider(
                uuid=name,
                name=name,
                root_uuid=name,
                inventories=model.frozen_map(
                    {
                        resource_class: model.Inventory(total=amount)
                        for resource_class, amount in room.items()
                    }
                ),
                traits=frozenset(traits),
            ),
        ),
        zone=min(zones, default=""),
        hypervisor_type=source.hypervisor_type,
        hypervisor_version=source.hypervisor_version,
    )


def _units(count: int, tier: str) -> str:
    return f"{count} {tier} unit{'' if count == 1 else 's'}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _described(instance: model.Instance) -> str:
    return f"{instance.name} ({instance.tier or 'no tier'})"


def _names(instances: Iterable[model.Instance]) -> str:
    return _listed([one.name for one in instances])


def _listed(parts: list[str], most: int = 8) -> str:
    if len(parts) > most:
        return f"{', '.join(parts[:most])} and {len(parts) - most} more"
    if len(parts) < 2:
        return "".join(parts)
    return f"{', '.join(parts[:-1])} and {parts[-1]}"
