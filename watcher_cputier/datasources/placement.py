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

"""Placement: provider trees, what is allocated on them and to whom.

Reading provider by provider costs four requests each. Instead:

* The *survey* reads all trees from the provider summaries of one
  ``GET /allocation_candidates`` for a class that every host has. They carry
  capacity, used units, traits and nesting of every provider of every tree
  with one unit of the class free. Memory is asked for first, for it is
  hardly ever taken to the last unit; hosts that are left out are looked for
  with the next class, and read one by one only when every class left them
  out. So a server-side limit on candidates is noticed, never believed.
* The *details* (totals, unit rules, allocations by consumer) are read for
  those trees only that a decision turns on.
* *Admissions*: whether max_unit, min_unit and step_size let a request onto
  the targets of a plan is asked of Placement itself, in Nova's own words.
  Placement answers for the present: of a target that is full until the plan
  has made room, the *unit rules* are read instead.

Consistency: the list of providers tells their generations. It is compared
before and after; a tree that changed meanwhile is read again. The details
compare with the survey: a tree that changed since is read again with them,
asked for or not, and :attr:`Providers.changed` names it, for then Nova has to
be asked again too. The reader waits for a burst of changes to end, such as
the first migrations of an action plan. After a bounded number of rounds the
cloud is too busy to be judged on one picture, and the run says so instead of
planning on a mixed one. All this goes for the trees in the audit's scope and
the sharing providers that they use; what happens elsewhere in the cloud
decides nothing.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
import concurrent.futures
import dataclasses
import itertools
from typing import Any

from keystoneauth1 import adapter as ksa_adapter

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import service

# 1.29 has nested trees in its summaries, 1.36 is what Nova itself speaks.
MICROVERSION = "1.36"
MINIMUM = (1, 29)
# Seconds to wait before each round of reading what changed meanwhile. A large
# cloud changes all the time: the sooner the few trees are read again,
# the less has changed. A small one has bursts of changes.
PAUSES = (0.0, 0.0, 0.0, 0.0, 0.5, 1.0, 2.0)
WORKERS = 8
# Hosts refused one by one for a request before all are asked for at once.
REFUSALS = 20
SURVEY_CLASSES = ("MEMORY_MB", "VCPU", "DISK_GB", "PCPU")

_POLICIES = {
    "allocation_candidates": "placement:allocation_candidates:list",
    "resource_classes": "placement:resource_classes:list",
    "resource_providers": "placement:resource_providers:list",
    "resource_providers/*/inventories": (
        "placement:resource_providers:inventories:list"
    ),
    "resource_providers/*/traits": "placement:resource_providers:traits:list",
    "resource_providers/*/aggregates": (
        "placement:resource_providers:aggregates:list"
    ),
    "resource_providers/*/allocations": (
        "placement:resource_providers:allocations:list"
    ),
    "traits": "placement:traits:list",
}

Allocations = Mapping[str, Mapping[str, int]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """What Placement said.

    :param providers: by name, then uuid
    :param consumers: {consumer uuid: {provider uuid: {class: units}}}, of
        the trees whose allocations were read
    :param read: root uuids of those trees; None for all of them
    :param shared: {root uuid: uuids of sharing providers of its aggregates}
    :param changed: root uuids of trees that the last reading of details
        found changed since they were read before
    :param left_out: how many hosts in scope no bulk answer had
    :param limit: the number of candidates at which the server cut its
        answer off; None where it did not
    """

    providers: tuple[model.Provider, ...]
    consumers: Mapping[str, Mapping[str, Mapping[str, int]]]
    read: frozenset[str] | None = None
    changed: frozenset[str] = frozenset()
    shared: Mapping[str, tuple[str, ...]] = dataclasses.field(
        default_factory=model.frozen_map
    )
    left_out: int = 0
    limit: int | None = None

    def has_read(self, root: str) -> bool:
        """Whether it is known who holds what on a tree."""
        return self.read is None or root in self.read


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """One provider read by itself, with who holds what on it."""

    provider: model.Provider
    allocations: Allocations


@dataclasses.dataclass(frozen=True, slots=True)
class _Answer:
    """One bulk answer: how many candidates, on which hosts."""

    resource_class: str
    count: int
    roots: frozenset[str]


class Placement:
    """Reader of the Placement API."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self.service = service.Service(
            adapter, "Placement", MICROVERSION, _POLICIES
        )
        # The number of candidates at which the server was seen to cut off.
        self._cut_at: int | None = None

    def check_access(self) -> list[errors.ServiceError]:
        """Try each kind of request once; what it could not do (R79)."""
        try:
            self._check_version()
            listing = self._list()
        except errors.ServiceError as exc:
            return [exc]
        return self.service.try_all(
            (
                (
                    "/allocation_candidates",
                    {"resources": f"{SURVEY_CLASSES[0]}:1", "limit": 1},
                ),
                *(
                    (f"/resource_providers/{uuid}/{kind}", {})
                    for uuid in list(listing)[:1]
                    for kind in (
                        "inventories",
                        "traits",
                        "aggregates",
                        "allocations",
                    )
                ),
            )
        )

    def get_survey(
        self, roots: Iterable[str], classes: Iterable[str] = ()
    ) -> Providers:
        """All trees from bulk answers; capacities, used units, traits.

        :param roots: uuids of the hosts in scope, which must not be missing
            and on which the picture has to be consistent
        :param classes: further classes to look for hosts by, those of the
            tiers
        :raises ServiceError: if Placement cannot be asked
        :raises SnapshotError: if providers keep changing while they are
            read
        """
        self._check_version()
        before = self._list()
        wanted = {uuid for uuid in roots if uuid in before}
        found, answers = self._summaries(
            before, wanted, (*SURVEY_CLASSES, *classes)
        )
        left_out = wanted - {p.root_uuid for p in found.values()}
        shared = self._get_shared(self._get_sharing())
        used = {uuid for root in wanted for uuid in shared.get(root, ())}
        trees = wanted | {
            before[uuid]["root_provider_uuid"]
            for uuid in used
            if uuid in before
        }
        readings = self._settle(
            before,
            trees,
            _in_trees(before, left_out) | used & before.keys(),
            {uuid: p.generation for uuid, p in found.items()},
        )
        found.update((uuid, r.provider) for uuid, r in readings.items())
        self._notice_limit(wanted, found, answers)
        return Providers(
            providers=_ordered(found.values()),
            consumers=model.frozen_map(),
            read=frozenset(),
            shared=shared,
            left_out=len(left_out),
            limit=self._cut_at,
        )

    def get_changed_at(self, providers: Iterable[str]) -> int | None:
        """When an inventory of these providers was last changed.

        :param providers: uuids
        :returns: in seconds since the epoch; None where Placement does not
            tell
        :raises ServiceError: if Placement cannot be asked
        """
        found = [
            self.service.get_modified(
                f"/resource_providers/{uuid}/inventories"
            )
            for uuid in providers
        ]
        return max((one for one in found if one is not None), default=None)

    def get_details(
        self,
        known: Providers,
        roots: Iterable[str],
        scope: Iterable[str] = (),
    ) -> Providers:
        """The same with totals, unit rules and allocations of some trees.

        :param known: what was read so far
        :param roots: uuids of the trees to read
        :param scope: uuids of the trees that must not have changed since,
            else they are read too
        :raises ServiceError: if Placement cannot be asked
        :raises SnapshotError: if the trees keep changing
        """
        wanted = frozenset(roots)
        trees = wanted | frozenset(scope)
        listing = self._list()
        before = {
            p.uuid: p.generation
            for p in known.providers
            if p.root_uuid in trees
        }
        now = {u: listing[u]["generation"] for u in _in_trees(listing, trees)}
        outdated = {
            listing[uuid]["root_provider_uuid"]
            for uuid, generation in now.items()
            if before.get(uuid) != generation
        } | {
            p.root_uuid
            for p in known.providers
            if p.uuid in before.keys() - now.keys()
        }
        readings = self._settle(
            listing, trees, _in_trees(listing, wanted | outdated), now
        )
        # A deleted allocation leaves the generation as it was.
        allocated = {p.uuid: p.allocated for p in known.providers}
        changed = frozenset(outdated) | {
            reading.provider.root_uuid
            for uuid, reading in readings.items()
            if before.get(uuid) != reading.provider.generation
            or allocated.get(uuid) != reading.provider.allocated
        }
        return dataclasses.replace(
            _with(known, readings, wanted | changed), changed=changed
        )

    def get_admission(
        self,
        request: tuple[tuple[str, str], ...],
        known: model.Admission,
        hosts: Iterable[str],
        others: Iterable[str] = (),
    ) -> model.Admission:
        """Whether Placement offers hosts for a request.

        Each is asked for by itself, as Nova asks for a migration's named
        target: within its tree, so that sharing providers do not serve it.
        Only when many were asked for in vain all hosts are asked for at
        once.

        :param request: of a :class:`~watcher_cputier.model.Flavor`
        :param known: the answer so far
        :param hosts: uuids to ask for
        :param others: uuids of all hosts that have room for it; those of
            them that are not offered when all are asked for are refused
        :raises ServiceError: if Placement cannot be asked
        """
        yes, no = set(known.hosts), set(known.refused)
        for host in sorted(hosts):
            offered = self._candidates({**dict(request), "in_tree": host})
            (yes if host in offered else no).add(host)
        if len(no) > REFUSALS:
            offered = self._candidates(dict(request)) - no
            yes |= offered
            no |= frozenset(others) - offered - yes
        return dataclasses.replace(
            known, hosts=frozenset(yes), refused=frozenset(no)
        )

    def get_inventories(
        self, uuids: Iterable[str]
    ) -> Mapping[str, Mapping[str, model.Inventory]]:
        """{provider uuid: {class: inventory with its unit rules}}.

        :raises ServiceError: if Placement cannot be asked
        """
        found: dict[str, Mapping[str, model.Inventory]] = {}
        for uuid in uuids:
            try:
                answer = self.service.get(
                    f"/resource_providers/{uuid}/inventories"
                )
            except service.NotFound:
                found[uuid] = model.frozen_map()
                continue
            found[uuid] = _inventories(answer)
        return model.frozen_map(found)

    def _check_version(self) -> None:
        if self.service.version < MINIMUM:
            raise errors.ServiceError(
                f"its newest microversion is {self.service.microversion}",
                where="Placement",
                cure="Nested providers need 1.29 (Stein) or later",
            )

    def _list(
        self, params: Mapping[str, str] | None = None
    ) -> dict[str, dict[str, Any]]:
        listed = self.service.items(
            "/resource_providers", "resource_providers", params
        )
        return {item["uuid"]: item for item in listed}

    def _candidates(self, query: Mapping[str, str]) -> frozenset[str]:
        """Roots of the hosts that Placement offers."""
        answer = self.service.get("/allocation_candidates", query)
        summaries = answer["provider_summaries"]
        return frozenset(
            summaries[uuid]["root_provider_uuid"]
            for request in answer.items_of("allocation_requests")
            for uuid in request["allocations"]
            if uuid in summaries
        )

    def _summaries(
        self,
        listing: Mapping[str, Mapping[str, Any]],
        wanted: set[str],
        classes: Iterable[str],
    ) -> tuple[dict[str, model.Provider], list[_Answer]]:
        """Providers of all trees that bulk answers have."""
        found: dict[str, model.Provider] = {}
        answers = []
        for name in classes:
            if wanted <= {p.root_uuid for p in found.values()}:
                break
            try:
                answer = self.service.get(
                    "/allocation_candidates", {"resources": f"{name}:1"}
                )
            except service.BadRequest:
                # Placement has never heard of the class.
                continue
            told = {
                uuid: _of_summary(listing[uuid], summary)
                for uuid, summary in answer["provider_summaries"].items()
                # One that the list does not have was made after it.
                if uuid in listing
            }
            found.update(told)
            answers.append(
                _Answer(
                    name,
                    len(answer.items_of("allocation_requests")),
                    frozenset(p.root_uuid for p in told.values()),
                )
            )
        return found, answers

    def _notice_limit(
        self,
        wanted: set[str],
        found: Mapping[str, model.Provider],
        answers: Iterable[_Answer],
    ) -> None:
        """Remember a server-side limit on candidates.

        It shows where an answer lacks a host that has a unit of the class
        free after all.
        """
        for answer in answers:
            for provider in found.values():
                inventory = provider.inventories.get(answer.resource_class)
                if (
                    provider.root_uuid in wanted - answer.roots
                    and inventory is not None
                    and inventory.min_unit == inventory.step_size == 1
                    and provider.allocated.get(answer.resource_class, 0)
                    < inventory.capacity
                ):
                    self._cut_at = min(
                        answer.count, self._cut_at or answer.count
                    )

    def _get_sharing(self) -> set[str]:
        """Uuids of providers that share their inventories."""
        return set(self._list({"required": model.SHARING_TRAIT}))

    def _get_shared(
        self, sharing: Iterable[str]
    ) -> Mapping[str, tuple[str, ...]]:
        """{root: sharing providers that it may consume from}."""
        members: dict[str, list[str]] = {}
        for uuid in sorted(sharing):
            try:
                answer = self.service.get(
                    f"/resource_providers/{uuid}/aggregates"
                )
            except service.NotFound:
                continue
            if not answer["aggregates"]:
                continue
            query = "in:" + ",".join(sorted(answer["aggregates"]))
            roots = {
                item["root_provider_uuid"]
                for item in self._list({"member_of": query}).values()
            }
            for root in sorted(roots - {uuid}):
                members.setdefault(root, []).append(uuid)
        return model.frozen_map(
            {root: tuple(uuids) for root, uuids in members.items()}
        )

    def _settle(
        self,
        listing: Mapping[str, Mapping[str, Any]],
        trees: AbstractSet[str],
        missing: AbstractSet[str],
        seen: Mapping[str, int],
    ) -> dict[str, _Reading]:
        """Read providers until none of their trees changed meanwhile.

        :param listing: from before anything else was read
        :param trees: root uuids of what must be consistent
        :param missing: uuids to read one by one
        :param seen: {uuid: generation} of what is known already, to be read
            one by one if it has changed
        """
        readings: dict[str, _Reading] = {}
        expected: dict[str, int | None] = {
            uuid: generation
            for uuid, generation in seen.items()
            if uuid in listing and listing[uuid]["root_provider_uuid"] in trees
        }
        # What is not known and was not asked for stays so, unless it is new.
        left_alone = listing.keys() - expected.keys()
        stale = set(missing)
        rounds = 0

        def unexpected() -> set[str]:
            """Providers whose trees are not as they were read."""
            changed = {
                listing[uuid]["root_provider_uuid"]
                for uuid in _in_trees(listing, trees) - left_alone
                if listing[uuid]["generation"] != expected.get(uuid)
            }
            return _in_trees(listing, changed)

        for pause in PAUSES:
            if pause:
                if not self.service.wait(pause):
                    break
                # What changed elsewhere during the pause is read in this
                # round and does not take one more.
                listing = self._list()
                stale |= unexpected()
            self._read_all(listing, stale, readings)
            rounds += 1
            left_alone -= stale
            for uuid in stale:
                reading = readings.get(uuid)
                expected[uuid] = (
                    reading.provider.generation if reading else None
                )
            listing = self._list()
            stale = unexpected()
            if not stale:
                return {
                    uuid: reading
                    for uuid, reading in readings.items()
                    if uuid in listing
                }
        raise errors.SnapshotError(
            f"{len(stale)} resource providers changed while they were read, "
            f"{rounds} times in a row: "
            + ", ".join(sorted(listing[uuid]["name"] for uuid in stale)[:5]),
            where="Placement",
            cure="The cloud is too busy for a consistent picture; run the "
            "audit again later",
        )

    def _read_all(
        self,
        listing: Mapping[str, Mapping[str, Any]],
        uuids: set[str],
        readings: dict[str, _Reading],
    ) -> None:
        """Read these again; one that is gone has no reading any more."""
        for uuid in uuids:
            readings.pop(uuid, None)
        ordered = [listing[uuid] for uuid in sorted(uuids) if uuid in listing]
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for item, reading in zip(
                ordered, pool.map(self._read, ordered), strict=True
            ):
                if reading is not None:
                    readings[item["uuid"]] = reading

    def _read(self, item: Mapping[str, Any]) -> _Reading | None:
        """One provider; None if it is gone or changed meanwhile."""
        base = f"/resource_providers/{item['uuid']}"
        try:
            inventories = self.service.get(f"{base}/inventories")
            traits = self.service.get(f"{base}/traits")
            allocations = self.service.get(f"{base}/allocations")
            answers = [inventories, traits, allocations]
            aggregates = []
            # Whom it shares with; nothing turns on those of the others.
            if model.SHARING_TRAIT in traits["traits"]:
                answers.append(self.service.get(f"{base}/aggregates"))
                aggregates = answers[-1]["aggregates"]
        except service.NotFound:
            return None
        generations = {
            answer["resource_provider_generation"] for answer in answers
        }
        if len(generations) > 1:
            return None
        by_consumer = {
            consumer: model.frozen_map(held["resources"])
            for consumer, held in allocations["allocations"].items()
        }
        total: dict[str, int] = {}
        for name, amount in itertools.chain.from_iterable(
            held.items() for held in by_consumer.values()
        ):
            total[name] = total.get(name, 0) + amount
        return _Reading(
            model.Provider(
                uuid=item["uuid"],
                name=item["name"],
                root_uuid=item["root_provider_uuid"],
                parent_uuid=item["parent_provider_uuid"],
                generation=generations.pop(),
                inventories=_inventories(inventories),
                allocated=model.frozen_map(total),
                traits=frozenset(traits["traits"]),
                aggregates=frozenset(aggregates),
            ),
            by_consumer,
        )


def _in_trees(
    listing: Mapping[str, Mapping[str, Any]], roots: AbstractSet[str]
) -> set[str]:
    """Uuids of all providers of these trees."""
    return {
        uuid
        for uuid, item in listing.items()
        if item["root_provider_uuid"] in roots
    }


def _with(
    known: Providers, readings: Mapping[str, _Reading], trees: frozenset[str]
) -> Providers:
    """What is known, these trees replaced by what was read of them."""
    root_of = {p.uuid: p.root_uuid for p in known.providers}
    providers = {p.uuid: p for p in known.providers}
    consumers: dict[str, dict[str, Mapping[str, int]]] = {}
    for uuid, root in root_of.items():
        if root in trees:
            del providers[uuid]
    for consumer, held in known.consumers.items():
        left = {u: h for u, h in held.items() if root_of.get(u) not in trees}
        if left:
            consumers[consumer] = left
    for uuid, reading in readings.items():
        providers[uuid] = reading.provider
        for consumer, units in reading.allocations.items():
            consumers.setdefault(consumer, {})[uuid] = units
    return dataclasses.replace(
        known,
        providers=_ordered(providers.values()),
        consumers=model.frozen_map(
            {c: model.frozen_map(held) for c, held in consumers.items()}
        ),
        read=(known.read or frozenset()) | trees,
    )


def _ordered(
    providers: Iterable[model.Provider],
) -> tuple[model.Provider, ...]:
    return tuple(sorted(providers, key=lambda p: (p.name, p.uuid)))


def _inventories(
    answer: Mapping[str, Any],
) -> Mapping[str, model.Inventory]:
    return model.frozen_map(
        {
            name: _inventory(record)
            for name, record in answer["inventories"].items()
        }
    )


def _inventory(record: Mapping[str, Any]) -> model.Inventory:
    return model.Inventory(
        total=record["total"],
        reserved=record["reserved"],
        allocation_ratio=record["allocation_ratio"],
        min_unit=record["min_unit"],
        max_unit=record["max_unit"],
        step_size=record["step_size"],
    )


def _of_summary(
    item: Mapping[str, Any], summary: Mapping[str, Any]
) -> model.Provider:
    resources = summary["resources"]
    return model.Provider(
        uuid=item["uuid"],
        name=item["name"],
        root_uuid=summary["root_provider_uuid"],
        parent_uuid=summary["parent_provider_uuid"],
        generation=item["generation"],
        inventories=model.frozen_map(
            {
                name: model.Inventory(known_capacity=amounts["capacity"])
                for name, amounts in resources.items()
            }
        ),
        allocated=model.frozen_map(
            {
                name: amounts["used"]
                for name, amounts in resources.items()
                if amounts["used"]
            }
        ),
        traits=frozenset(summary["traits"]),
    )
