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

All numbers come from Placement itself: inventories as they are accounted
for, allocations by consumer. A provider that changes while it is read is
told by its generation and read again; after a bounded number of rounds the
cloud is too busy to be judged on one picture, and the run says so.
"""

from collections.abc import Iterable, Mapping
import concurrent.futures
import dataclasses
from typing import Any

from keystoneauth1 import adapter as ksa_adapter

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import service

# 1.20 has generations in every answer that is read here, 1.29 nested trees.
MICROVERSION = "1.36"
MINIMUM = (1, 29)
ROUNDS = 4
WORKERS = 8

_POLICIES = {
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
}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Providers:
    """Everything that Placement said.

    :param providers: by name, then uuid
    :param consumers: {consumer uuid: {provider uuid: {class: units}}}
    """

    providers: tuple[model.Provider, ...]
    consumers: Mapping[str, Mapping[str, Mapping[str, int]]]


@dataclasses.dataclass(frozen=True, slots=True)
class _Reading:
    """One provider with who holds what on it, at one generation."""

    provider: model.Provider
    allocations: Mapping[str, Mapping[str, int]]


class Placement:
    """Reader of the Placement API."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self._service = service.Service(
            adapter, "Placement", MICROVERSION, _POLICIES
        )

    def check_access(self) -> list[errors.ServiceError]:
        """Try each kind of request once; what it could not do (R79)."""
        try:
            self._check_version()
            listing = self._list()
        except errors.ServiceError as exc:
            return [exc]
        found = []
        for uuid in list(listing)[:1]:
            for kind in ("inventories", "traits", "aggregates", "allocations"):
                try:
                    self._service.get(f"/resource_providers/{uuid}/{kind}")
                except service.NotFound:
                    continue
                except errors.ServiceError as exc:
                    found.append(exc)
        return found

    def get_providers(self) -> Providers:
        """All providers, read at one generation each.

        :raises ServiceError: if Placement cannot be asked
        :raises SnapshotError: if providers keep changing while they are
            read
        """
        self._check_version()
        readings: dict[str, _Reading] = {}
        listing = self._list()
        for _ in range(ROUNDS):
            stale = [
                item
                for uuid, item in listing.items()
                if uuid not in readings
                or readings[uuid].provider.generation != item["generation"]
            ]
            if not stale:
                return _collect(readings[uuid] for uuid in listing)
            with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
                for item, reading in zip(
                    stale, pool.map(self._read, stale), strict=True
                ):
                    if reading is not None:
                        readings[item["uuid"]] = reading
            listing = self._list()
        raise errors.SnapshotError(
            f"{len(stale)} resource providers changed while they were read, "
            f"{ROUNDS} times in a row",
            where="Placement",
            cure="The cloud is too busy for a consistent picture; run the "
            "audit again later",
        )

    def _check_version(self) -> None:
        have = tuple(
            int(part) for part in self._service.microversion.split(".")
        )
        if have < MINIMUM:
            raise errors.ServiceError(
                f"its newest microversion is {self._service.microversion}",
                where="Placement",
                cure="Nested providers need 1.29 (Stein) or later",
            )

    def _list(self) -> dict[str, dict[str, Any]]:
        listed = self._service.get("/resource_providers")
        return {item["uuid"]: item for item in listed["resource_providers"]}

    def _read(self, item: Mapping[str, Any]) -> _Reading | None:
        """One provider; None if it is gone or changed meanwhile."""
        base = f"/resource_providers/{item['uuid']}"
        try:
            inventories = self._service.get(f"{base}/inventories")
            traits = self._service.get(f"{base}/traits")
            aggregates = self._service.get(f"{base}/aggregates")
            allocations = self._service.get(f"{base}/allocations")
        except service.NotFound:
            return None
        generations = {
            answer["resource_provider_generation"]
            for answer in (inventories, traits, aggregates, allocations)
        }
        if len(generations) > 1:
            return None
        by_consumer = {
            consumer: model.frozen_map(held["resources"])
            for consumer, held in allocations["allocations"].items()
        }
        total: dict[str, int] = {}
        for held in by_consumer.values():
            for name, amount in held.items():
                total[name] = total.get(name, 0) + amount
        return _Reading(
            model.Provider(
                uuid=item["uuid"],
                name=item["name"],
                root_uuid=item["root_provider_uuid"],
                parent_uuid=item["parent_provider_uuid"],
                generation=generations.pop(),
                inventories=model.frozen_map(
                    {
                        name: _inventory(record)
                        for name, record in inventories["inventories"].items()
                    }
                ),
                allocated=model.frozen_map(total),
                traits=frozenset(traits["traits"]),
                aggregates=frozenset(aggregates["aggregates"]),
            ),
            by_consumer,
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


def _collect(readings: Iterable[_Reading]) -> Providers:
    providers = []
    consumers: dict[str, dict[str, Mapping[str, int]]] = {}
    for reading in readings:
        providers.append(reading.provider)
        for consumer, held in reading.allocations.items():
            consumers.setdefault(consumer, {})[reading.provider.uuid] = held
    return Providers(
        providers=tuple(sorted(providers, key=lambda p: (p.name, p.uuid))),
        consumers=model.frozen_map(
            {uuid: model.frozen_map(held) for uuid, held in consumers.items()}
        ),
    )
