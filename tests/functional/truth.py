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

"""What Placement and Nova say, read past all code under test."""

from collections.abc import Mapping
from typing import Any

from tests.cloud import EmbeddedCloud


class Truth:
    """Independent readings of a cloud."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._cloud = cloud

    def providers(self) -> dict[str, str]:
        """{name: uuid} of all resource providers."""
        listed = self._placement("/resource_providers")
        return {
            one["name"]: one["uuid"] for one in listed["resource_providers"]
        }

    def inventories(self, provider: str) -> dict[str, Mapping[str, Any]]:
        """The inventories of a provider, by class."""
        found: dict[str, Mapping[str, Any]] = self._of(
            provider, "inventories"
        )["inventories"]
        return found

    def usages(self, provider: str) -> dict[str, int]:
        """Allocated units of a provider, by class."""
        found: dict[str, int] = self._of(provider, "usages")["usages"]
        return found

    def traits(self, provider: str) -> set[str]:
        """The traits of a provider."""
        return set(self._of(provider, "traits")["traits"])

    def over(self) -> dict[tuple[str, str], int]:
        """{(provider, class): units allocated above its capacity}."""
        found = {}
        for provider in self.providers():
            usages = self.usages(provider)
            for name, record in self.inventories(provider).items():
                room = int(
                    (record["total"] - record["reserved"])
                    * record["allocation_ratio"]
                )
                if usages.get(name, 0) > room:
                    found[provider, name] = usages[name] - room
        return found

    def allocations(self, consumer: str) -> dict[str, dict[str, int]]:
        """{provider: {class: units}} that a consumer uuid holds."""
        names = {uuid: name for name, uuid in self.providers().items()}
        held = self._placement(f"/allocations/{consumer}")["allocations"]
        return {names[uuid]: one["resources"] for uuid, one in held.items()}

    def server(self, name: str) -> dict[str, Any]:
        """Nova's record of an instance."""
        key = self._cloud.server_id(name)
        answer = self._cloud.adapter("compute").get(f"/servers/{key}")
        record: dict[str, Any] = answer.json()["server"]
        return record

    def locations(self) -> dict[str, str]:
        """{instance: host}, by Nova."""
        return self._cloud.locations()

    def migrations(self, instance: str) -> list[dict[str, Any]]:
        """Nova's records of an instance's migrations, the newest first."""
        answer = self._cloud.adapter("compute").get(
            "/os-migrations",
            params={"instance_uuid": self._cloud.server_id(instance)},
        )
        found: list[dict[str, Any]] = answer.json()["migrations"]
        return found

    def _placement(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = self._cloud.placement.get(path).json()
        return document

    def _of(self, provider: str, what: str) -> dict[str, Any]:
        uuid = self._cloud.provider_uuid(provider)
        return self._placement(f"/resource_providers/{uuid}/{what}")
