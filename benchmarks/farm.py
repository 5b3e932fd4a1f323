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

"""Hosts that exist in Placement alone, made through its public API.

Each host is a root provider with VCPU, MEMORY_MB, DISK_GB and a class for
each tier, a dozen traits and an aggregate; every tenth has a child with a
last-level cache. Every second one is in use. Names and uuids are the same in
every run.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any
import uuid

from keystoneauth1 import adapter as ksa_adapter

TIERS = ("CUSTOM_VCPU_GOLD", "CUSTOM_VCPU_SILVER", "CUSTOM_VCPU_BRONZE")
CACHE = "CUSTOM_LAST_LEVEL_CACHE"
CACHE_TRAIT = "CUSTOM_CACHE_ALLOCATION"
TRAITS = (
    "COMPUTE_NODE",
    "COMPUTE_VOLUME_ATTACH",
    "COMPUTE_VOLUME_EXTEND",
    "HW_CPU_X86_AESNI",
    "HW_CPU_X86_AVX",
    "HW_CPU_X86_AVX2",
    "HW_CPU_X86_BMI",
    "HW_CPU_X86_FMA3",
    "HW_CPU_X86_SSE41",
    "HW_CPU_X86_SSE42",
    "HW_CPU_X86_SSSE3",
    "HW_CPU_X86_VMX",
)
EVEN_TRAIT = "HW_CPU_X86_AVX512F"
IN_USE = {
    "VCPU": 24,
    "MEMORY_MB": 49152,
    "DISK_GB": 240,
    "CUSTOM_VCPU_GOLD": 4,
    "CUSTOM_VCPU_SILVER": 8,
    "CUSTOM_VCPU_BRONZE": 12,
}
RACK = 20
CHILD_EVERY = 10
_CHUNK = 50
_OWNER = str(uuid.uuid5(uuid.NAMESPACE_DNS, "benchmarks"))

Resources = Mapping[str, int]


def key(name: str) -> str:
    """The uuid of a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


@dataclasses.dataclass(frozen=True, slots=True)
class Host:
    """The n-th host."""

    number: int

    @property
    def name(self) -> str:
        """Of the root provider."""
        return f"host-{self.number:05d}"

    @property
    def uuid(self) -> str:
        """Of the root provider."""
        return key(self.name)

    @property
    def child(self) -> str | None:
        """The child's name; None without one."""
        if self.number % CHILD_EVERY:
            return None
        return f"{self.name}_cache0"

    @property
    def in_use(self) -> bool:
        """Whether a consumer holds something there."""
        return self.number % 2 == 0

    @property
    def inventories(self) -> dict[str, dict[str, float]]:
        """Of the root provider."""
        gold, silver, bronze = TIERS
        return {
            "VCPU": {"total": 64, "allocation_ratio": 4.0},
            "MEMORY_MB": {"total": 524288, "reserved": 8192},
            "DISK_GB": {"total": 2000, "allocation_ratio": 1.15},
            gold: {"total": 16 + self.number % 3},
            silver: {"total": 32},
            bronze: {"total": 64},
        }

    @property
    def traits(self) -> list[str]:
        """Of the root provider."""
        return [*TRAITS, *([EVEN_TRAIT] if self.in_use else [])]


class Farm:
    """The hosts of one Placement."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self._adapter = adapter
        self.hosts: list[Host] = []
        for name in (*TIERS, CACHE):
            self._send("PUT", f"/resource_classes/{name}")
        self._send("PUT", f"/traits/{CACHE_TRAIT}")

    @property
    def providers(self) -> int:
        """How many providers there are, children included."""
        return len(self.hosts) + sum(1 for h in self.hosts if h.child)

    def grow(self, size: int) -> None:
        """Add hosts until there are so many."""
        added = [Host(number) for number in range(len(self.hosts), size)]
        for host in added:
            self._add(host)
        self._allocate(
            {
                key(f"consumer of {host.name}"): self._use(host)
                for host in added
                if host.in_use
            }
        )
        self.hosts += added

    def fill(self, hosts: Iterable[Host], classes: Iterable[str]) -> list[str]:
        """Take what is left of these classes; the consumers that do."""
        wanted = list(classes)
        holders = {}
        for host in hosts:
            free = {}
            for name in wanted:
                record = host.inventories[name]
                capacity = int(
                    (record["total"] - record.get("reserved", 0))
                    * record.get("allocation_ratio", 1.0)
                )
                used = IN_USE[name] if host.in_use else 0
                free[name] = capacity - used
            holders[key(f"filler of {host.name}")] = {host.uuid: free}
        self._allocate(holders)
        return list(holders)

    def release(self, consumers: Iterable[str]) -> None:
        """Let consumers go."""
        for consumer in consumers:
            self._send("DELETE", f"/allocations/{consumer}")

    def _add(self, host: Host) -> None:
        self._provider(
            host.name,
            host.inventories,
            host.traits,
            [key(f"rack {host.number // RACK}")],
        )
        if host.child:
            self._provider(
                host.child,
                {CACHE: {"total": 20}},
                [CACHE_TRAIT],
                [],
                parent=host.uuid,
            )

    def _provider(
        self,
        name: str,
        inventories: Mapping[str, Any],
        traits: list[str],
        aggregates: list[str],
        parent: str | None = None,
    ) -> None:
        base = f"/resource_providers/{key(name)}"
        self._send(
            "POST",
            "/resource_providers",
            {
                "uuid": key(name),
                "name": name,
                "parent_provider_uuid": parent,
            },
        )
        # Each change of a provider makes its generation one more.
        for generation, (kind, value) in enumerate(
            (
                ("inventories", inventories),
                ("traits", traits),
                ("aggregates", aggregates),
            )
        ):
            self._send(
                "PUT",
                f"{base}/{kind}",
                {kind: value, "resource_provider_generation": generation},
            )

    def _use(self, host: Host) -> dict[str, Resources]:
        held: dict[str, Resources] = {host.uuid: IN_USE}
        if host.child:
            held[key(host.child)] = {CACHE: 2}
        return held

    def _allocate(
        self, holders: Mapping[str, Mapping[str, Resources]]
    ) -> None:
        """{consumer: {provider: {class: units}}}, some at a time."""
        consumers = list(holders.items())
        for start in range(0, len(consumers), _CHUNK):
            self._send(
                "POST",
                "/allocations",
                {
                    consumer: {
                        "allocations": {
                            provider: {"resources": dict(resources)}
                            for provider, resources in held.items()
                        },
                        "consumer_generation": None,
                        "project_id": _OWNER,
                        "user_id": _OWNER,
                    }
                    for consumer, held in consumers[start : start + _CHUNK]
                },
            )

    def _send(self, method: str, path: str, body: Any = None) -> None:
        answer = self._adapter.request(
            path, method, json=body, raise_exc=False
        )
        if answer.status_code >= 400:
            raise RuntimeError(
                f"Placement refused {method} {path}: {answer.text}"
            )
