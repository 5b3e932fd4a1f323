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

"""Nova: hosts, servers with their flavors, groups, aggregates, migrations.

Everything is read in bulk and in pages; the records keep what the decision
needs and nothing of Nova's wire format.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from keystoneauth1 import adapter as ksa_adapter

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import service

# 2.98 tells the properties of a server's image, 2.96 the availability zone
# that it was created for, 2.64 the rules of server groups.
MICROVERSION = "2.98"
MINIMUM = (2, 64)
PINNED_ZONE = (2, 96)
# From here on Nova asks each host for its uptime when it lists hypervisors.
UPTIMES = "2.88"
PAGE = 1000

_POLICIES = {
    "os-hypervisors/detail": "os_compute_api:os-hypervisors:list-detail",
    "os-services": "os_compute_api:os-services:list",
    "servers/detail": "os_compute_api:servers:detail:get_all_tenants",
    "servers": "os_compute_api:servers:show",
    "os-aggregates": "os_compute_api:os-aggregates:index",
    "os-server-groups": "os_compute_api:os-server-groups:index:all_projects",
    "os-migrations": "os_compute_api:os-migrations:index",
}

_HOST_KEY = "OS-EXT-SRV-ATTR:host"
_OVER = {
    "cancelled",
    "completed",
    "confirmed",
    "done",
    "error",
    "failed",
    "reverted",
}
# A "finished" one is a resize that waits for its confirmation.
_IN_FLIGHT = (
    "accepted",
    "confirming",
    "finished",
    "migrating",
    "post-migrating",
    "pre-migrating",
    "preparing",
    "queued",
    "reverting",
    "running",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """A compute host as Nova knows it."""

    uuid: str
    name: str
    node_name: str
    zone: str
    enabled: bool
    up: bool
    disabled_reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server; ``host`` is empty while it is on none."""

    uuid: str
    name: str
    host: str
    project: str
    status: str
    task_state: str | None
    locked: bool
    metadata: Mapping[str, str]
    pinned_zone: str | None
    flavor: model.Flavor
    image_properties: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A migration that Nova has a record of."""

    uuid: str
    server: str
    status: str
    source: str
    target: str

    @property
    def in_flight(self) -> bool:
        """Whether it may rightly hold an allocation."""
        return self.status not in _OVER


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """Everything that Nova said, each by name, then uuid.

    :param zones_known: whether the zone that a server is pinned to is told
    """

    computes: tuple[Compute, ...]
    servers: tuple[Server, ...]
    migrations: tuple[Migration, ...]
    aggregates: tuple[model.Aggregate, ...]
    server_groups: tuple[model.ServerGroup, ...]
    zones_known: bool


class Nova:
    """Reader of the compute API."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self.service = service.Service(
            adapter, "Nova", MICROVERSION, _POLICIES
        )
        self._made: dict[str, Any] = {}

    def check_access(self) -> list[errors.ServiceError]:
        """Try each kind of request once; what it could not do (R79)."""
        try:
            self._check_version()
        except errors.ServiceError as exc:
            return [exc]
        return self.service.try_all(
            (
                ("/os-hypervisors/detail", {"limit": 1}),
                ("/os-services", {"binary": "nova-compute"}),
                ("/servers/detail", {"all_tenants": True, "limit": 1}),
                ("/os-aggregates", {}),
                ("/os-server-groups", {"all_projects": True, "limit": 1}),
                ("/os-migrations", {"limit": 1}),
            )
        )

    def get_cloud(self) -> Cloud:
        """Read all of it.

        :raises ServiceError: if Nova cannot be asked or hides what is
            needed
        """
        self._check_version()
        # Migrations before servers: one that ends in between is then still
        # known, and its consumer is not mistaken for an orphan.
        migrations = self.get_migrations()
        computes = self._get_computes()
        servers = self._get_servers()
        return Cloud(
            computes=computes,
            servers=servers,
            migrations=migrations,
            aggregates=self._get_aggregates(),
            server_groups=self._get_server_groups(),
            zones_known=self.service.version >= PINNED_ZONE,
        )

    def _check_version(self) -> None:
        if self.service.version < MINIMUM:
            raise errors.ServiceError(
                f"its newest microversion is {self.service.microversion}",
                where="Nova",
                cure="The rules of server groups need 2.64 (Rocky) or later",
            )

    def _get_computes(self) -> tuple[Compute, ...]:
        listed = self.service.get("/os-services", {"binary": "nova-compute"})
        services = {record["host"]: record for record in listed["services"]}
        found = []
        for record in self.service.pages(
            "/os-hypervisors/detail",
            "hypervisors",
            {"limit": PAGE},
            before=UPTIMES,
        ):
            if record.get("hypervisor_type") == "ironic":
                continue
            name = record["service"]["host"]
            told = services.get(name, {})
            found.append(
                Compute(
                    uuid=str(record["id"]),
                    name=name,
                    node_name=record["hypervisor_hostname"],
                    zone=told.get("zone", ""),
                    enabled=told.get("status") == "enabled",
                    up=told.get("state") == "up",
                    disabled_reason=told.get("disabled_reason") or "",
                )
            )
        return tuple(sorted(found, key=lambda c: (c.name, c.uuid)))

    def _get_servers(self) -> tuple[Server, ...]:
        found = [
            self._server(record)
            for record in self.service.pages(
                "/servers/detail",
                "servers",
                {"all_tenants": True, "limit": PAGE},
            )
        ]
        return tuple(sorted(found, key=lambda s: (s.name, s.uuid)))

    def _server(self, record: Mapping[str, Any]) -> Server:
        _check_visible(record)
        image = record.get("image") or {}
        properties = {
            str(key): str(value)
            for key, value in (image.get("properties") or {}).items()
        }
        return Server(
            uuid=record["id"],
            name=record["name"],
            host=record[_HOST_KEY] or "",
            project=record["tenant_id"],
            status=record["status"],
            task_state=record.get("OS-EXT-STS:task_state"),
            locked=bool(record.get("locked")),
            metadata=self._once(
                model.frozen_map, record.get("metadata") or {}
            ),
            pinned_zone=record.get("pinned_availability_zone"),
            flavor=self._once(flavor, record["flavor"], properties, not image),
            image_properties=self._once(model.frozen_map, properties),
        )

    def _once(self, make: Callable[..., Any], *told: Any) -> Any:
        """What many servers are told to have, made once and shared."""
        key = repr((make.__name__, told))
        if key not in self._made:
            self._made[key] = make(*told)
        return self._made[key]

    def get_server(self, uuid: str) -> Server | None:
        """A server that the list does not have, or None if there is none.

        Nova lists neither soft-deleted servers nor those made since.

        :raises ServiceError: if Nova cannot be asked
        """
        try:
            return self._server(self.service.get(f"/servers/{uuid}")["server"])
        except service.NotFound:
            return None

    def get_migrations(self) -> tuple[Migration, ...]:
        """The migrations that may hold allocations, by uuid.

        Nova keeps the records of all that ever were: where they fill more
        than a page, only those in flight are asked for, status by status.

        :raises ServiceError: if Nova cannot be asked
        """
        path, key = "/os-migrations", "migrations"
        answer = self.service.get(path, {"limit": PAGE})
        records = answer[key]
        if answer.get(f"{key}_links"):
            records = [
                record
                for status in _IN_FLIGHT
                for record in self.service.pages(
                    path, key, {"limit": PAGE, "status": status}
                )
            ]
        found = [
            Migration(
                uuid=record["uuid"],
                server=record["instance_uuid"],
                status=record["status"],
                source=record.get("source_compute") or "",
                target=record.get("dest_compute") or "",
            )
            for record in records
        ]
        return tuple(sorted(found, key=lambda m: m.uuid))

    def _get_aggregates(self) -> tuple[model.Aggregate, ...]:
        listed = self.service.get("/os-aggregates")["aggregates"]
        found = [
            model.Aggregate(
                uuid=record["uuid"],
                name=record["name"],
                hosts=frozenset(record["hosts"]),
                metadata=model.frozen_map(record["metadata"]),
                zone=record.get("availability_zone"),
            )
            for record in listed
        ]
        return tuple(sorted(found, key=lambda a: (a.name, a.uuid)))

    def _get_server_groups(self) -> tuple[model.ServerGroup, ...]:
        found: list[model.ServerGroup] = []
        while True:
            page = self.service.get(
                "/os-server-groups",
                {"all_projects": True, "limit": PAGE, "offset": len(found)},
            )["server_groups"]
            found += [
                model.ServerGroup(
                    uuid=record["id"],
                    name=record["name"],
                    policy=record["policy"],
                    members=frozenset(record["members"]),
                    max_per_host=int(
                        record["rules"].get("max_server_per_host", 1)
                    ),
                )
                for record in page
            ]
            if not page:
                break
        return tuple(sorted(found, key=lambda g: (g.name, g.uuid)))


def _check_visible(record: Mapping[str, Any]) -> None:
    """Refuse a server that is listed without what must be known of it.

    :raises ServiceError: with what would show it
    """
    where = "Nova GET /servers/detail"
    if "flavor" not in record or "name" not in record:
        raise errors.ServiceError(
            f"server {record['id']} is listed without its details: its cell "
            "is down",
            where=where,
            cure="Bring the cell's database back; a part of the cloud cannot "
            "be judged by itself",
        )
    if _HOST_KEY not in record:
        raise errors.ServiceError(
            "servers are listed without their hosts",
            where=where,
            cure="Grant Watcher's user the policy "
            "os_compute_api:os-extended-server-attributes",
        )
    if "extra_specs" not in record["flavor"]:
        raise errors.ServiceError(
            "servers are listed without their flavors' extra specs",
            where=where,
            cure="Grant Watcher's user the policy "
            "os_compute_api:os-flavor-extra-specs:index",
        )


def flavor(
    record: Mapping[str, Any],
    image_properties: Mapping[str, str] | None = None,
    from_volume: bool = False,
) -> model.Flavor:
    """What a server asks for by its embedded flavor and its image.

    :param image_properties: of which ``trait:`` adds required traits
    :param from_volume: whether the root disk is a volume, which takes no
        DISK_GB of the host
    """
    swap_gb = -(-int(record.get("swap") or 0) // 1024)
    root_gb = 0 if from_volume else int(record["disk"])
    specs = {str(k): str(v) for k, v in record["extra_specs"].items()}
    made = model.Flavor.of(
        name=record.get("original_name", ""),
        vcpus=int(record["vcpus"]),
        memory_mb=int(record["ram"]),
        disk_gb=root_gb + int(record.get("ephemeral") or 0) + swap_gb,
        extra_specs=specs,
    )
    by_image = {
        name.removeprefix("trait:")
        for name, value in (image_properties or {}).items()
        if name.startswith("trait:") and value == "required"
    }
    if not by_image:
        return made
    first, *rest = made.groups
    first = dataclasses.replace(
        first, required_traits=first.required_traits | by_image
    )
    return dataclasses.replace(made, groups=(first, *rest))
