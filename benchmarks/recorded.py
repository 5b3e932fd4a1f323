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

"""Answers of a large cloud's Nova and Placement, as if they were recorded.

Two adapters speak the services' wire format (Nova 2.98, Placement 1.36), so
that the plugin's own readers make its records of them: every server comes
with a flavor of its own, in the middle of all that Nova says about a server.
Answers are made when they are asked for; the seconds that takes are counted
apart, for they are nobody's. The same sizes always make the same cloud.

Flavors, Placement's totals and the consumers agree; every twentieth host
holds more gold than its quota.
"""

from collections.abc import Iterator, Mapping
import dataclasses
import functools
import json
import time
import types
from typing import Any

from watcher_cputier import model

TIERS = ("gold", "silver", "bronze")
CLASSES = tuple(model.default_class(tier) for tier in TIERS)
OVER_EVERY = 20
OVER_UNITS = 4
SPARE_UNITS = 8
RACK = 20
CHILD_EVERY = 10
GROUP_EVERY = 300
GROUP_SIZE = 3
_CACHE = "CUSTOM_LAST_LEVEL_CACHE"
_TRAITS = (
    "COMPUTE_ACCELERATORS",
    "COMPUTE_DEVICE_TAGGING",
    "COMPUTE_NET_ATTACH_INTERFACE",
    "COMPUTE_NODE",
    "COMPUTE_RESCUE_BFV",
    "COMPUTE_TRUSTED_CERTS",
    "COMPUTE_VOLUME_ATTACH_WITH_TAG",
    "COMPUTE_VOLUME_EXTEND",
    "COMPUTE_VOLUME_MULTI_ATTACH",
    "HW_CPU_X86_AESNI",
    "HW_CPU_X86_AVX2",
    "HW_CPU_X86_VMX",
)
_HOST = "00000000"
_SERVER = "00000001"
_CHILD = "00000002"
_GROUP = "00000003"
_OTHER = "00000004"


def _uuid(kind: str, number: int) -> str:
    return f"{kind}-0000-4000-8000-{number:012x}"


def _number(uuid: str) -> int:
    return int(uuid.rpartition("-")[2], 16)


@dataclasses.dataclass(frozen=True, slots=True)
class _FlavorKind:
    """One of the cloud's flavors."""

    tier: int
    vcpus: int
    memory_mb: int

    @property
    def record(self) -> dict[str, Any]:
        """As Nova embeds it into a server."""
        tier = TIERS[self.tier]
        shares = model.BUILT_IN_TIERS[tier][0]
        return {
            "vcpus": self.vcpus,
            "ram": self.memory_mb,
            "disk": 20,
            "ephemeral": 0,
            "swap": 0,
            "original_name": f"{tier}.{self.vcpus}c{self.memory_mb}m",
            "extra_specs": {
                f"resources:{CLASSES[self.tier]}": str(self.vcpus),
                "quota:cpu_shares": str(shares * self.vcpus),
                "hw_rng:allowed": "True",
            },
        }

    @property
    def resources(self) -> dict[str, int]:
        """As Placement allocates it."""
        return {
            "VCPU": self.vcpus,
            "MEMORY_MB": self.memory_mb,
            "DISK_GB": 20,
            CLASSES[self.tier]: self.vcpus,
        }


FLAVORS = tuple(
    _FlavorKind(tier, vcpus, memory)
    for vcpus in (1, 2, 4)
    for memory in (1024, 2048, 4096)
    for tier in range(len(TIERS))
)


@dataclasses.dataclass(frozen=True)
class Cloud:
    """A cloud of so many hosts with so many instances on each."""

    hosts: int
    per_host: int

    @property
    def instances(self) -> int:
        """All of them."""
        return self.hosts * self.per_host

    @property
    def groups(self) -> int:
        """Server groups; every one has a few members."""
        return self.instances // GROUP_EVERY

    def flavor(self, server: int) -> _FlavorKind:
        """The flavor of the n-th instance."""
        host, place = server % self.hosts, server // self.hosts
        return FLAVORS[(place * 7 + host) % len(FLAVORS)]

    def servers_of(self, host: int) -> range:
        """Instances of the n-th host."""
        return range(host, self.instances, self.hosts)

    def used(self, host: int) -> dict[str, int]:
        """Units that are allocated on the n-th host."""
        total: dict[str, int] = {}
        for server in self.servers_of(host):
            for name, units in self.flavor(server).resources.items():
                total[name] = total.get(name, 0) + units
        return total

    def inventories(self, host: int) -> dict[str, dict[str, Any]]:
        """Inventories of the n-th host's root provider."""
        used = self.used(host)
        over = host % OVER_EVERY == 0
        found = {
            "VCPU": _inventory(64, allocation_ratio=4.0),
            "MEMORY_MB": _inventory(524288, reserved=8192),
            "DISK_GB": _inventory(4000),
        }
        for name in CLASSES:
            short = over and name == CLASSES[0]
            spare = -OVER_UNITS if short else SPARE_UNITS
            found[name] = _inventory(max(1, used.get(name, 0) + spare))
        return found


def _inventory(total: int, **fields: float) -> dict[str, Any]:
    return {
        "total": total,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": 1.0,
    } | fields


def host_name(number: int) -> str:
    """The n-th host."""
    return f"host-{number:05d}"


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """As much of ``requests.Response`` as a reader asks for."""

    content: bytes
    status_code: int = 200

    def json(self) -> Any:
        """The document."""
        return json.loads(self.content)


class Recording:
    """An adapter that answers by itself.

    :ivar making_seconds: time that making answers took
    """

    newest: tuple[int, int]

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.making_seconds = 0.0

    def get_endpoint_data(self) -> Any:
        """What version discovery tells."""
        return types.SimpleNamespace(max_microversion=self.newest)

    def get(
        self, path: str, params: Mapping[str, Any], **_options: Any
    ) -> Answer:
        """Answer a request."""
        started = time.perf_counter()
        document = self.answer(path.strip("/").split("/"), params)
        answer = Answer(json.dumps(document).encode())
        self.making_seconds += time.perf_counter() - started
        return answer

    def answer(self, path: list[str], params: Mapping[str, Any]) -> Any:
        """The document at a path."""
        raise NotImplementedError


class Nova(Recording):
    """Nova's answers."""

    newest = (2, 98)

    def answer(self, path: list[str], params: Mapping[str, Any]) -> Any:
        """The document at a path."""
        kind = path[0]
        if kind == "servers":
            return self._page(kind, self.cloud.instances, self._server, params)
        if kind == "os-hypervisors":
            return self._page(
                "hypervisors", self.cloud.hosts, self._hypervisor, params
            )
        if kind == "os-server-groups":
            first = params.get("offset", 0)
            last = min(self.cloud.groups, first + params["limit"])
            return {
                "server_groups": [
                    self._group(number) for number in range(first, last)
                ]
            }
        key, make, count = {
            "os-services": ("services", self._service, self.cloud.hosts),
            "os-aggregates": (
                "aggregates",
                self._aggregate,
                -(-self.cloud.hosts // RACK),
            ),
            "os-migrations": ("migrations", self._migration, 100),
        }[kind]
        return {key: [make(number) for number in range(count)]}

    def _page(
        self, key: str, count: int, make: Any, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        first = _number(params["marker"]) + 1 if "marker" in params else 0
        last = min(count, first + params["limit"])
        page = {key: [make(number) for number in range(first, last)]}
        if last < count:
            page[f"{key}_links"] = [{"rel": "next", "href": "elsewhere"}]
        return page

    def _server(self, number: int) -> dict[str, Any]:
        uuid = _uuid(_SERVER, number)
        host = host_name(number % self.cloud.hosts)
        project = f"{number % 500:032x}"
        here = f"http://nova.example.org/v2.1/servers/{uuid}"
        return {
            "id": uuid,
            "name": f"instance-{number:06d}",
            "tenant_id": project,
            "user_id": project,
            "status": "ACTIVE",
            "flavor": self.cloud.flavor(number).record,
            "image": {
                "id": _uuid(_OTHER, 1),
                "links": [{"rel": "bookmark", "href": here}],
                "properties": {
                    "architecture": "x86_64",
                    "os_distro": "debian",
                },
            },
            "metadata": {"team": f"team-{number % 40}"},
            "addresses": {
                "net": [
                    {
                        "version": 4,
                        "addr": "192.0.2.1",
                        "OS-EXT-IPS:type": "fixed",
                        "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01",
                    }
                ]
            },
            "links": [
                {"rel": "self", "href": here},
                {"rel": "bookmark", "href": here},
            ],
            "security_groups": [{"name": "default"}],
            "hostId": "4c8c8941c32622a17d38d698c02b7c139e9dbe7801e234113f45",
            "created": "2026-01-01T00:00:00Z",
            "updated": "2026-01-01T00:00:00Z",
            "accessIPv4": "",
            "accessIPv6": "",
            "progress": 0,
            "config_drive": "",
            "key_name": "key",
            "OS-DCF:diskConfig": "MANUAL",
            "OS-EXT-AZ:availability_zone": "nova",
            "OS-SRV-USG:launched_at": "2026-01-01T00:00:00.000000",
            "OS-SRV-USG:terminated_at": None,
            "OS-EXT-SRV-ATTR:host": host,
            "OS-EXT-SRV-ATTR:hypervisor_hostname": host,
            "OS-EXT-SRV-ATTR:instance_name": f"instance-{number:08x}",
            "OS-EXT-SRV-ATTR:hostname": f"instance-{number:06d}",
            "OS-EXT-SRV-ATTR:launch_index": 0,
            "OS-EXT-SRV-ATTR:reservation_id": "r-00000000",
            "OS-EXT-SRV-ATTR:root_device_name": "/dev/vda",
            "OS-EXT-SRV-ATTR:kernel_id": "",
            "OS-EXT-SRV-ATTR:ramdisk_id": "",
            "OS-EXT-SRV-ATTR:user_data": None,
            "OS-EXT-STS:task_state": None,
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:power_state": 1,
            "os-extended-volumes:volumes_attached": [],
            "locked": number % 1000 == 999,
            "locked_reason": None,
            "description": None,
            "tags": [],
            "trusted_image_certificates": None,
            "pinned_availability_zone": None,
            "host_status": "UP",
        }

    def _hypervisor(self, number: int) -> dict[str, Any]:
        return {
            "id": _uuid(_HOST, number),
            "hypervisor_hostname": host_name(number),
            "state": "up",
            "status": "enabled",
            "hypervisor_type": "QEMU",
            "hypervisor_version": 9002000,
            "host_ip": "192.0.2.2",
            "service": {
                "id": _uuid(_OTHER, number),
                "host": host_name(number),
                "disabled_reason": None,
            },
            "uptime": None,
        }

    def _service(self, number: int) -> dict[str, Any]:
        return {
            "binary": "nova-compute",
            "host": host_name(number),
            "id": _uuid(_OTHER, number),
            "zone": "nova",
            "status": "enabled",
            "state": "up",
            "updated_at": "2026-01-01T00:00:00.000000",
            "disabled_reason": None,
            "forced_down": False,
        }

    def _aggregate(self, number: int) -> dict[str, Any]:
        first = number * RACK
        last = min(self.cloud.hosts, first + RACK)
        return {
            "uuid": _uuid(_OTHER, 1_000_000 + number),
            "name": f"rack-{number:04d}",
            "hosts": [host_name(host) for host in range(first, last)],
            "metadata": {"rack": str(number)},
            "availability_zone": None,
        }

    def _group(self, number: int) -> dict[str, Any]:
        first = number * GROUP_EVERY
        return {
            "id": _uuid(_GROUP, number),
            "name": f"group-{number:05d}",
            "policy": "anti-affinity",
            "rules": {},
            "members": [
                _uuid(_SERVER, first + place) for place in range(GROUP_SIZE)
            ],
        }

    def _migration(self, number: int) -> dict[str, Any]:
        return {
            "uuid": _uuid(_OTHER, 2_000_000 + number),
            "instance_uuid": _uuid(_SERVER, number),
            "status": "completed",
            "source_compute": host_name((number + 1) % self.cloud.hosts),
            "dest_compute": host_name(number % self.cloud.hosts),
        }


class Placement(Recording):
    """Placement's answers."""

    newest = (1, 36)

    def answer(self, path: list[str], params: Mapping[str, Any]) -> Any:
        """The document at a path."""
        if path == ["allocation_candidates"]:
            return self._candidates()
        if path == ["resource_providers"]:
            # There are no sharing providers to be found by a query.
            found = [] if params else list(self._listed())
            return {"resource_providers": found}
        return self._of(path[1], path[2])

    def _listed(self) -> Iterator[dict[str, Any]]:
        for number in range(self.cloud.hosts):
            uuid, name = _uuid(_HOST, number), host_name(number)
            yield self._item(uuid, name, uuid, None)
            if number % CHILD_EVERY == 0:
                yield self._item(
                    _uuid(_CHILD, number), f"{name}_cache0", uuid, uuid
                )

    def _item(
        self, uuid: str, name: str, root: str, parent: str | None
    ) -> dict[str, Any]:
        base = f"/resource_providers/{uuid}"
        return {
            "uuid": uuid,
            "name": name,
            "generation": 7,
            "root_provider_uuid": root,
            "parent_provider_uuid": parent,
            "links": [
                {"rel": kind, "href": f"{base}/{kind}"}
                for kind in (
                    "self",
                    "inventories",
                    "usages",
                    "aggregates",
                    "traits",
                    "allocations",
                )
            ],
        }

    @functools.cached_property
    def _child_inventories(self) -> dict[str, dict[str, Any]]:
        return {_CACHE: _inventory(20)}

    def _candidates(self) -> dict[str, Any]:
        requests, summaries = [], {}
        for number in range(self.cloud.hosts):
            uuid = _uuid(_HOST, number)
            requests.append(
                {
                    "allocations": {uuid: {"resources": {"MEMORY_MB": 1}}},
                    "mappings": {"": [uuid]},
                }
            )
            summaries[uuid] = _summary(
                uuid,
                None,
                self.cloud.inventories(number),
                self.cloud.used(number),
                _TRAITS,
            )
            if number % CHILD_EVERY == 0:
                summaries[_uuid(_CHILD, number)] = _summary(
                    uuid, uuid, self._child_inventories, {}, ()
                )
        return {
            "allocation_requests": requests,
            "provider_summaries": summaries,
        }

    def _of(self, uuid: str, kind: str) -> dict[str, Any]:
        number = _number(uuid)
        root = uuid.startswith(_HOST)
        found: Any
        if kind == "inventories":
            found = (
                self.cloud.inventories(number)
                if root
                else self._child_inventories
            )
        elif kind == "traits":
            found = list(_TRAITS) if root else []
        elif kind == "aggregates":
            rack = _uuid(_OTHER, 1_000_000 + number // RACK)
            found = [rack] if root else []
        else:
            servers = self.cloud.servers_of(number) if root else ()
            found = {
                _uuid(_SERVER, server): {
                    "resources": self.cloud.flavor(server).resources
                }
                for server in servers
            }
        return {kind: found, "resource_provider_generation": 7}


def _summary(
    root: str,
    parent: str | None,
    inventories: Mapping[str, Mapping[str, Any]],
    used: Mapping[str, int],
    traits: tuple[str, ...],
) -> dict[str, Any]:
    return {
        "resources": {
            name: {
                "capacity": int(
                    (record["total"] - record["reserved"])
                    * record["allocation_ratio"]
                ),
                "used": used.get(name, 0),
            }
            for name, record in inventories.items()
        },
        "traits": list(traits),
        "parent_provider_uuid": parent,
        "root_provider_uuid": root,
    }
