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

from collections.abc import Callable, Iterable, Mapping
import dataclasses
import datetime
import sys
from typing import Any

from keystoneauth1 import adapter as ksa_adapter

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import service

# 2.100 tells the scheduler hints of a server, 2.98 the properties of its
# image, 2.96 the availability zone that it was created for, 2.71 its server
# group, 2.64 the rules of server groups.
MICROVERSION = "2.100"
MINIMUM = (2, 64)
OWN_GROUP = (2, 71)
PINNED_ZONE = (2, 96)
IMAGES = (2, 98)
# From here on Nova asks each host for its uptime when it lists hypervisors.
UPTIMES = "2.88"
PAGE = 1000

_POLICIES = {
    "os-hypervisors": "os_compute_api:os-hypervisors:list",
    "os-hypervisors/detail": "os_compute_api:os-hypervisors:list-detail",
    "os-services": "os_compute_api:os-services:list",
    "servers/detail": "os_compute_api:servers:detail:get_all_tenants",
    "servers": "os_compute_api:servers:index:get_all_tenants",
    "servers/*": "os_compute_api:servers:show",
    "os-aggregates": "os_compute_api:os-aggregates:index",
    "os-server-groups": "os_compute_api:os-server-groups:index:all_projects",
    "os-migrations": "os_compute_api:os-migrations:index",
}

_HOST_KEY = "OS-EXT-SRV-ATTR:host"
_ROOT_KEY = "OS-EXT-SRV-ATTR:root_device_name"
_VOLUMES_KEY = "os-extended-volumes:volumes_attached"
_MIGRATIONS = "/os-migrations"
_LIVE_MIGRATION = "live-migration"
# What Nova says where Placement did not hand an allocation to a migration.
_REFUSED_CLAIM = "Unable to replace instance claim on source"
# Statuses of migrations after which the server is on the other host.
_MOVED = {"completed", "confirmed", "done", "finished", "confirming"}
# Instance actions that start the counters of a guest anew.
_DISTURBING = {
    "evacuate",
    "reboot",
    "rebuild",
    "rescue",
    "restore",
    "resume",
    "shelve",
    "start",
    "stop",
    "suspend",
    "unrescue",
    "unshelve",
}
_OVER = {
    "cancelled",
    "completed",
    "confirmed",
    "done",
    "error",
    "failed",
    "reverted",
}
# In the order in which a migration goes through them: one that proceeds
# between two requests is met again by a later one, and missed by none. A
# "finished" one is a resize that waits for its confirmation.
_IN_FLIGHT = (
    "accepted",
    "queued",
    "preparing",
    "running",
    "pre-migrating",
    "migrating",
    "post-migrating",
    "finished",
    "confirming",
    "reverting",
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
    hypervisor_type: str = ""
    hypervisor_version: int | None = None
    vcpus: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server; ``host`` is empty while it is on none.

    :param image_properties: those that Nova tells, which are neither the
        traits that the image requires nor those of a volume's image
    :param image: uuid of its image; empty if it was booted from a volume
    :param volumes: uuids of its volumes, where it was booted from one
    :param root_device: name of its root disk
    :param networked: whether it has addresses, and so ports
    """

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
    image: str = ""
    volumes: tuple[str, ...] = ()
    root_device: str = ""
    different_host: frozenset[str] = frozenset()
    same_host: frozenset[str] = frozenset()
    networked: bool = False


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

    :param changes: what migrations of the recent past did to servers, those
        that are gone included, by server, then time
    :param zones_known: whether the zone that a server is pinned to is told
    :param images_known: whether properties of images are told
    :param groups_whole: whether server groups of all projects are known to
        be listed
    :param unreachable: uuids of servers whose cell does not answer
    :param unreachable_hosts: names of hosts whose cell does not answer
    """

    computes: tuple[Compute, ...]
    servers: tuple[Server, ...]
    migrations: tuple[Migration, ...]
    aggregates: tuple[model.Aggregate, ...]
    server_groups: tuple[model.ServerGroup, ...]
    zones_known: bool
    images_known: bool = True
    groups_whole: bool = True
    unreachable: frozenset[str] = frozenset()
    unreachable_hosts: frozenset[str] = frozenset()
    changes: tuple[model.Change, ...] = ()


class CellDown(errors.ServiceError):
    """A server is listed with hardly anything known: its cell is down."""


class Nova:
    """Reader of the compute API."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self.service = service.Service(
            adapter, "Nova", MICROVERSION, _POLICIES
        )
        self._adapter = adapter
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

    def get_cloud(self, since: int | None = None) -> Cloud:
        """Read all of it.

        :param since: how far back the history of servers is of interest, in
            seconds since the epoch; None where it is not
        :raises ServiceError: if Nova cannot be asked or hides what is
            needed
        """
        self._check_version()
        # Migrations before servers: one that ends in between is then still
        # known, and its consumer is not mistaken for an orphan.
        records, whole = self._get_migration_records()
        migrations = _migrations(records)
        changes = self._get_changes(records, whole, since)
        services = {
            record["host"]: record
            for record in self.service.items(
                "/os-services", "services", {"binary": "nova-compute"}
            )
        }
        computes = self._get_computes(services)
        servers, unreachable = self._get_servers()
        server_groups, groups_whole = self._get_server_groups()
        return Cloud(
            computes=computes,
            servers=servers,
            migrations=migrations,
            aggregates=self._get_aggregates(),
            server_groups=server_groups,
            zones_known=self.service.version >= PINNED_ZONE,
            images_known=self.service.version >= IMAGES,
            groups_whole=groups_whole,
            unreachable=unreachable,
            changes=changes,
            # Of a cell that is down Nova knows which hosts are mapped to it.
            unreachable_hosts=frozenset(
                name
                for name, told in services.items()
                if told.get("status") == "UNKNOWN"
            ),
        )

    def _check_version(self) -> None:
        if self.service.version < MINIMUM:
            raise errors.ServiceError(
                f"its newest microversion is {self.service.microversion}",
                where="Nova",
                cure="The rules of server groups need 2.64 (Rocky) or later",
            )

    def _get_computes(
        self, services: Mapping[str, Mapping[str, Any]]
    ) -> tuple[Compute, ...]:
        """The hosts; Nova lists none of a cell that is down."""
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
                    hypervisor_type=record.get("hypervisor_type") or "",
                    hypervisor_version=record.get("hypervisor_version"),
                    vcpus=record.get("vcpus"),
                )
            )
        return tuple(sorted(found, key=lambda c: (c.name, c.uuid)))

    def _get_servers(self) -> tuple[tuple[Server, ...], frozenset[str]]:
        """The servers, and the uuids of those whose cell is down."""
        found, unreachable = [], set()
        for record in self.service.pages(
            "/servers/detail", "servers", {"all_tenants": True, "limit": PAGE}
        ):
            try:
                found.append(self._server(record))
            except CellDown:
                unreachable.add(record["id"])
        return (
            tuple(sorted(found, key=lambda s: (s.name, s.uuid))),
            frozenset(unreachable),
        )

    def _server(self, record: Mapping[str, Any]) -> Server:
        _check_visible(record)
        image = record.get("image") or {}
        properties = {
            str(key): str(value)
            for key, value in (image.get("properties") or {}).items()
        }
        hints = record.get("scheduler_hints") or {}
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
            flavor=self._once(flavor, record["flavor"], not image),
            image_properties=self._once(model.frozen_map, properties),
            image=sys.intern(str(image.get("id") or "")),
            volumes=()
            if image
            else tuple(one["id"] for one in record.get(_VOLUMES_KEY) or ()),
            root_device=sys.intern(record.get(_ROOT_KEY) or ""),
            different_host=_named_by(hints, "different_host"),
            same_host=_named_by(hints, "same_host"),
            networked=any((record.get("addresses") or {}).values()),
        )

    def _once(self, make: Callable[..., Any], *told: Any) -> Any:
        """What many servers are told to have, made once and shared."""
        key = repr((make.__name__, told))
        if key not in self._made:
            self._made[key] = make(*told)
        return self._made[key]

    def get_server(self, uuid: str) -> Server | None:
        """A server that the list does not have, or None if there is none.

        Nova lists neither soft-deleted servers nor those made since, nor
        those of a cell that is down.

        :raises CellDown: if its cell does not answer
        :raises ServiceError: if Nova cannot be asked
        """
        try:
            return self._server(self.service.get(f"/servers/{uuid}")["server"])
        except service.NotFound:
            return None

    def get_servers_on(self, host: str) -> tuple[Server, ...]:
        """The servers of one host, by name, then uuid.

        :raises CellDown: if its cell does not answer
        :raises ServiceError: if Nova cannot be asked
        """
        found = [
            self._server(record)
            for record in self.service.pages(
                "/servers/detail",
                "servers",
                {"all_tenants": True, "host": host, "limit": PAGE},
            )
        ]
        return tuple(sorted(found, key=lambda s: (s.name, s.uuid)))

    def get_group(self, uuid: str) -> str | None:
        """Uuid of the server group that a server itself says to be in.

        :returns: None where it is in none, does not exist, or Nova is too
            old to tell
        :raises ServiceError: if Nova cannot be asked
        """
        if self.service.version < OWN_GROUP:
            return None
        try:
            told = self.service.get(f"/servers/{uuid}")["server"]
        except service.NotFound:
            return None
        return next(iter(told.get("server_groups") or ()), None)

    def get_migrations(self) -> tuple[Migration, ...]:
        """The migrations that may hold allocations, by uuid.

        Nova keeps the records of all that ever were: where they fill more
        than a page, only those in flight are asked for, status by status.

        :raises ServiceError: if Nova cannot be asked
        """
        return _migrations(self._get_migration_records()[0])

    def _get_migration_records(self) -> tuple[list[service.Answer], bool]:
        """Records of migrations, and whether those are all there are."""
        answer = self.service.get(_MIGRATIONS, {"limit": PAGE})
        if not answer.get("migrations_links"):
            return answer.items_of("migrations"), True
        return [
            record
            for status in _IN_FLIGHT
            for record in self.service.pages(
                _MIGRATIONS, "migrations", {"limit": PAGE, "status": status}
            )
        ], False

    def _get_changes(
        self,
        records: Iterable[Mapping[str, Any]],
        whole: bool,
        since: int | None,
    ) -> tuple[model.Change, ...]:
        """What migrations did to servers since then.

        :param records: the records of migrations that are known
        :param whole: whether there are no others
        """
        if since is None:
            return ()
        if not whole:
            records = self.service.pages(
                _MIGRATIONS,
                "migrations",
                {"limit": PAGE, "changes-since": _told_time(since)},
            )
        found = {
            change
            for record in records
            if (change := _change(record)) is not None
            and (change.ended_at is None or change.ended_at >= since)
        }
        return tuple(sorted(found, key=model.Change.order))

    def get_actions(self, uuid: str, since: int) -> tuple[model.Change, ...]:
        """What else was done to a server since then, such as reboots.

        :param since: in seconds since the epoch
        :raises ServiceError: if Nova cannot be asked
        """
        path = f"/servers/{uuid}/os-instance-actions"
        try:
            records = self.service.items(path, "instanceActions")
        except service.NotFound:
            return ()
        found = []
        for record in records:
            began = _epoch(record.get("start_time"))
            ended = _epoch(record.get("updated_at"))
            if (
                record.get("action") in _DISTURBING
                and began is not None
                and (ended or began) >= since
            ):
                found.append(
                    model.Change(
                        instance=uuid,
                        kind=record["action"],
                        began_at=began,
                        ended_at=ended,
                    )
                )
        return tuple(sorted(found, key=model.Change.order))

    def get_refused_claim(self, uuid: str, since: int) -> int | None:
        """When Placement refused to let a server go, if it did so last.

        Nova hands a server's allocation to the migration before it moves
        anything, and says so where Placement does not take that.

        :param since: in seconds since the epoch
        :returns: when the last live migration ended so; None where it ended
            otherwise, was before, or Nova does not tell
        :raises ServiceError: if Nova cannot be asked
        """
        path = f"/servers/{uuid}/os-instance-actions"
        try:
            tried = [
                (began, record["request_id"])
                for record in self.service.items(path, "instanceActions")
                if record.get("action") == _LIVE_MIGRATION
                and (began := _epoch(record.get("start_time"))) is not None
                and began >= since
            ]
            if not tried:
                return None
            began, request = max(tried)
            action = self.service.get(f"{path}/{request}")["instanceAction"]
        except (service.NotFound, service.Forbidden):
            return None
        for event in action.get("events") or ():
            told = f"{event.get('details')} {event.get('traceback')}"
            if _REFUSED_CLAIM in told:
                return began
        return None

    def _foreign(self, projects: set[str]) -> bool:
        """Whether one of the projects is not the user's own."""
        return bool(projects) and projects != {self._adapter.get_project_id()}

    def _get_aggregates(self) -> tuple[model.Aggregate, ...]:
        listed = self.service.items("/os-aggregates", "aggregates")
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

    def _get_server_groups(self) -> tuple[tuple[model.ServerGroup, ...], bool]:
        """The server groups, and whether no project's are missing.

        Whom Nova does not take for an admin is told those of its own project
        alone, and not that there are more.
        """
        found: list[model.ServerGroup] = []
        projects: set[str] = set()
        while True:
            page = self.service.items(
                "/os-server-groups",
                "server_groups",
                {"all_projects": True, "limit": PAGE, "offset": len(found)},
            )
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
            projects.update(record.get("project_id", "") for record in page)
            if not page:
                break
        return (
            tuple(sorted(found, key=lambda g: (g.name, g.uuid))),
            self._foreign(projects - {""}),
        )


def _check_visible(record: Mapping[str, Any]) -> None:
    """Refuse a server that is listed without what must be known of it.

    :raises ServiceError: with what would show it
    """
    where = "Nova GET /servers/detail"
    if "flavor" not in record or "name" not in record:
        raise CellDown(
            f"server {record['id']} is listed without its details: its cell "
            "is down",
            where=where,
            cure="Bring the cell's database back",
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
            "os_compute_api:servers:show:flavor-extra-specs (in older "
            "releases os_compute_api:os-flavor-extra-specs:index)",
        )


def _migrations(
    records: Iterable[Mapping[str, Any]],
) -> tuple[Migration, ...]:
    """Each migration once, by uuid."""
    found = {
        record["uuid"]: Migration(
            uuid=record["uuid"],
            server=record["instance_uuid"],
            status=record["status"],
            source=record.get("source_compute") or "",
            target=record.get("dest_compute") or "",
        )
        for record in records
    }
    return tuple(found[uuid] for uuid in sorted(found))


def _change(record: Mapping[str, Any]) -> model.Change | None:
    """What a migration did; None where its record tells no time."""
    began = _epoch(record.get("created_at"))
    if began is None:
        return None
    over = record["status"] in _OVER
    # A resize is there as soon as it waits for its confirmation.
    moved = record["status"] in _MOVED and record.get(
        "source_compute"
    ) != record.get("dest_compute")
    return model.Change(
        instance=record["instance_uuid"],
        kind=record.get("migration_type") or "migration",
        began_at=began,
        ended_at=(_epoch(record.get("updated_at")) or began) if over else None,
        moved=moved,
        source=record.get("source_compute") or "",
        target=record.get("dest_compute") or "",
    )


def _epoch(text: str | None) -> int | None:
    """Seconds since the epoch of a time as Nova writes it, which is UTC."""
    if not text:
        return None
    told = datetime.datetime.fromisoformat(text)
    if told.tzinfo is None:
        told = told.replace(tzinfo=datetime.UTC)
    return int(told.timestamp())


def _told_time(epoch: int) -> str:
    """A time as Nova reads it."""
    told = datetime.datetime.fromtimestamp(epoch, datetime.UTC)
    return told.strftime("%Y-%m-%dT%H:%M:%SZ")


def _named_by(hints: Mapping[str, Any], name: str) -> frozenset[str]:
    """The servers that a scheduler hint names, one or a list of them."""
    told = hints.get(name) or ()
    return frozenset((told,) if isinstance(told, str) else map(str, told))


def flavor(
    record: Mapping[str, Any], from_volume: bool = False
) -> model.Flavor:
    """What a server asks for by its embedded flavor.

    :param from_volume: whether the root disk is a volume, which takes no
        DISK_GB of the host
    """
    swap_gb = -(-int(record.get("swap") or 0) // 1024)
    root_gb = 0 if from_volume else int(record["disk"])
    specs = {str(k): str(v) for k, v in record["extra_specs"].items()}
    return model.Flavor.of(
        name=record.get("original_name", ""),
        vcpus=int(record["vcpus"]),
        memory_mb=int(record["ram"]),
        disk_gb=root_gb + int(record.get("ephemeral") or 0) + swap_gb,
        extra_specs=specs,
    )
