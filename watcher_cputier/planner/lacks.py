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

"""What a host lacks to take an instance, and who stands in the way.

Rules say that a host does not take an instance; here is by how much: units of
an account within its quota, units of a resource class, or something that no
room would mend (a trait, a zone, a server group). Numbers are of one moment
of a plan, an occupancy; whether they suffice is tried with the rules
themselves, on an occupancy from which they are taken off.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import itertools

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import books as bookkeeping

Room = Mapping[str, int]
"""Units by resource class or account."""

_NOTHING_TAKEN = -(2**40)
# Sets of instances on one host that are looked at, for each instance that
# wants in.
_MOST_SETS = 5000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Eased:
    """An occupancy from which some is taken off.

    :param used: {(provider uuid, class): units less}
    :param held: {(host, account): units less}
    """

    base: constraints.Occupancy
    charge: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    units: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=model.frozen_map
    )

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """Units of a class in use on a provider."""
        key = (provider_uuid, resource_class)
        return self.base.used(*key) - self.charge.get(key, 0)

    def held(self, host: str, tier: str) -> int:
        """Units of an account that instances hold on a host."""
        return self.base.held(host, tier) - self.units.get((host, tier), 0)

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Members of a server group on a host."""
        return self.base.members(group, host)


class _Untaken:
    """Hosts without instances, but with the members of server groups."""

    def __init__(self, base: constraints.Occupancy) -> None:
        self._base = base

    def used(self, provider_uuid: str, resource_class: str) -> int:
        return _NOTHING_TAKEN

    def held(self, host: str, tier: str) -> int:
        return _NOTHING_TAKEN

    def members(self, group: model.ServerGroup, host: str) -> int:
        return self._base.members(group, host)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shortage:
    """What one host lacks for one instance.

    :param room: what is missing; empty where nothing is, or where room
        alone would not do
    :param blocked: what no room would mend
    """

    host: str
    room: Room
    distance: float
    blocked: constraints.Rejection | None = None

    @property
    def rank(self) -> tuple[object, ...]:
        """Smaller is nearer to taking it."""
        return (
            self.blocked is not None,
            len(self.room),
            round(self.distance, 9),
            self.host,
        )


class Lacks:
    """What hosts lack at one moment of a plan.

    :param books: that moment; they are read, and given back as they were
    """

    def __init__(
        self,
        cluster: model.Cluster,
        diagnosis: diagnosing.Diagnosis,
        books: bookkeeping.Books,
        extensions: constraints.Extensions | None = None,
    ) -> None:
        self.cluster = cluster
        self.diagnosis = diagnosis
        self.books = books
        self.extensions = extensions or constraints.Extensions()
        self.hosts = tuple(
            sorted((h for h in cluster.hosts if h.in_scope), key=_name)
        )
        self._residents: dict[str, list[model.Instance]] = {}
        self._lists: dict[
            tuple[object, ...], list[tuple[model.Host, Room]]
        ] = {}

    def rejection(
        self,
        instance: model.Instance,
        host: model.Host,
        occupancy: constraints.Occupancy | None = None,
    ) -> constraints.Rejection | None:
        """Why a host may not take an instance; None if it may."""
        return constraints.reject_target(
            constraints.Proposal(
                cluster=self.cluster,
                diagnosis=self.diagnosis,
                occupancy=self.books if occupancy is None else occupancy,
                instance=instance,
                target=host,
            ),
            self.extensions,
        )

    def blocked(
        self, instance: model.Instance, host: model.Host
    ) -> constraints.Rejection | None:
        """What keeps an instance off a host whatever room it has."""
        return self.rejection(instance, host, _Untaken(self.books))

    def lacking(
        self, instance: model.Instance, host: model.Host
    ) -> tuple[dict[str, int], float]:
        """Units that are missing, and how much that is of what is asked.

        Where several providers of a host have a class, the one with the
        most room counts.
        """
        found: dict[str, int] = {}
        distance = 0.0
        for account, asked in capacity.claims(self.cluster, instance).items():
            quota = self.diagnosis.quota(host.name, account)
            if quota is None or not asked:
                continue
            short = self.books.held(host.name, account) + asked - quota
            if short > 0:
                found[account] = short
                distance += short / asked
        for name, asked in instance.flavor.resources.items():
            free = max(
                (
                    provider.inventories[name].capacity
                    - self.books.used(provider.uuid, name)
                    for provider in host.providers
                    if name in provider.inventories
                ),
                default=0,
            )
            if asked > free:
                found[name] = max(found.get(name, 0), asked - free)
                distance += (asked - free) / asked
        return found, distance

    def shortage(self, instance: model.Instance, host: model.Host) -> Shortage:
        """What a host lacks for an instance."""
        missing, distance = self.lacking(instance, host)
        return Shortage(
            host=host.name,
            room=model.frozen_map(missing),
            distance=distance,
            blocked=self.blocked(instance, host),
        )

    def nearest(
        self,
        instance: model.Instance,
        wanted: Callable[[Room], bool] = bool,
    ) -> Iterator[tuple[model.Host, Room]]:
        """Hosts that room alone would make a target, the nearest first.

        :param wanted: what has to hold of what they lack
        """
        here = self.books.location(instance)
        for host, room in self._nearest(instance):
            if (
                host.name != here
                and wanted(room)
                and self.blocked(instance, host) is None
            ):
                yield host, room

    def _nearest(
        self, instance: model.Instance
    ) -> list[tuple[model.Host, Room]]:
        """Hosts that lack room, whatever else; alike for alike instances."""
        key = (
            instance.flavor.request,
            *sorted(capacity.claims(self.cluster, instance).items()),
        )
        found = self._lists.get(key)
        if found is None:
            ranked = []
            for host in self.hosts:
                if not host.enabled or not host.up:
                    continue
                missing, distance = self.lacking(instance, host)
                if missing:
                    rank = (len(missing), round(distance, 9), host.name)
                    ranked.append((rank, host, model.frozen_map(missing)))
            ranked.sort(key=lambda one: one[0])
            found = [(host, room) for _, host, room in ranked]
            self._lists[key] = found
        return found

    def suffices(
        self, instance: model.Instance, host: model.Host, room: Room
    ) -> bool:
        """Whether a host with so much more room would take an instance."""
        eased = Eased(
            base=self.books,
            charge={
                (provider.uuid, name): units
                for provider in host.providers
                for name, units in room.items()
            },
            units={
                (host.name, account): units for account, units in room.items()
            },
        )
        return self.rejection(instance, host, eased) is None

    # Who stands in the way

    def residents(self, host: str) -> list[model.Instance]:
        """Instances that are on a host and have not moved in the plan."""
        found = self._residents.get(host)
        if found is None:
            found = [
                one
                for one in self.cluster.instances_by_host.get(host, ())
                if self.books.standing(one) is None
            ]
            self._residents[host] = found
        return found

    def released(self, leaving: Iterable[model.Instance]) -> Eased:
        """The occupancy without some instances."""
        charge: dict[tuple[str, str], int] = {}
        units: dict[tuple[str, str], int] = {}
        for one in leaving:
            given = bookkeeping.released(self.cluster, one)
            for key, amount in given.items():
                charge[key] = charge.get(key, 0) + amount
            for account in self.cluster.accounts_of(one):
                here = (one.host, account)
                units[here] = units.get(here, 0) + one.units
        return Eased(base=self.books, charge=charge, units=units)

    def gives(self, one: model.Instance) -> dict[str, int]:
        """What its host is rid of without an instance, by class and account.

        Where the class is an account too, it is the same number.
        """
        found: dict[str, int] = {}
        given = bookkeeping.released(self.cluster, one)
        for (_, name), amount in given.items():
            found[name] = found.get(name, 0) + amount
        for account in self.cluster.accounts_of(one):
            found[account] = one.units
        return found

    def in_the_way(
        self,
        instance: model.Instance,
        host: model.Host,
        room: Room,
        candidates: Iterable[model.Instance],
        most: int | None = None,
    ) -> tuple[tuple[model.Instance, ...], bool] | None:
        """The fewest of some residents without which a host takes it.

        :param room: what the host lacks
        :param candidates: in the order of preference among equally many
        :param most: no more of them than that
        :returns: those instances, and whether it is proven that fewer do
            not do; None where even all of them do not
        """
        giving = []
        for one in candidates:
            gives = self.gives(one)
            if any(gives.get(name) for name in room):
                giving.append((one, gives))
        fewest = _fewest([gives for _, gives in giving], room)
        if fewest is None:
            return None
        limit = len(giving) if most is None else min(most, len(giving))
        sets = itertools.chain.from_iterable(
            itertools.combinations(giving, count)
            for count in range(fewest, limit + 1)
        )
        for chosen in itertools.islice(sets, _MOST_SETS):
            if not _enough([gives for _, gives in chosen], room):
                continue
            leaving = tuple(one for one, _ in chosen)
            if self.rejection(instance, host, self.released(leaving)) is None:
                return leaving, True
        return self._greedily(instance, host, room, giving, most)

    def _greedily(
        self,
        instance: model.Instance,
        host: model.Host,
        room: Room,
        giving: list[tuple[model.Instance, dict[str, int]]],
        most: int | None,
    ) -> tuple[tuple[model.Instance, ...], bool] | None:
        """Some of them, each the one that gives most of what is missing."""
        missing = dict(room)
        left = list(giving)
        leaving: list[model.Instance] = []
        while left and any(units > 0 for units in missing.values()):
            best = max(
                range(len(left)),
                key=lambda i: (
                    sum(
                        min(left[i][1].get(name, 0), units) / room[name]
                        for name, units in missing.items()
                        if units > 0
                    ),
                    -i,
                ),
            )
            one, gives = left.pop(best)
            leaving.append(one)
            for name in missing:
                missing[name] -= gives.get(name, 0)
        if most is not None and len(leaving) > most:
            return None
        if self.rejection(instance, host, self.released(leaving)) is not None:
            return None
        return tuple(leaving), False


def _fewest(gives: list[dict[str, int]], room: Room) -> int | None:
    """At least so many are needed; None where all are not enough."""
    most = 1
    for name, units in room.items():
        count, missing = 0, units
        for amount in sorted((g.get(name, 0) for g in gives), reverse=True):
            if missing <= 0:
                break
            missing -= amount
            count += 1
        if missing > 0:
            return None
        most = max(most, count)
    return most


def _enough(gives: list[dict[str, int]], room: Room) -> bool:
    return all(
        sum(one.get(name, 0) for one in gives) >= units
        for name, units in room.items()
    )


def _name(host: model.Host) -> str:
    return host.name
