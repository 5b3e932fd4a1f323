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

"""Instances by copying: one is booted, its equals are copies of its rows.

Booting costs Nova a third of a second of CPU each, and a declared state may
hold hundreds of instances. So the first instance of a kind (flavor, project,
zone) is booted through the API and its rows are kept as a ``Mould``; the
others get the same rows in Nova's databases under their own uuid, name and
host, an allocation that Placement itself accepts or refuses, and a guest on
the hypervisor. Afterwards the compute services count what they have, as their
periodic task would. A mould outlives a reset of the databases.

What is skipped is the scheduler: traits and aggregates are not checked for a
copy, only capacity. Instances in server groups and those without a declared
host are therefore never copied.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import typing
import uuid

from nova.compute import power_state
from nova.virt import fake

from tests.cloud import driver
from tests.cloud import spec as cloud_spec

# Rows that the events of an action hang on, and what a copy has of its own.
_SKIPPED = {
    "instance_actions_events",
    "instance_metadata",
    "migrations",
    "instance_faults",
}
PLACEMENT_VERSION = "1.36"


class CopyError(RuntimeError):
    """Placement refuses the allocation of a copy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One instance to be made."""

    name: str
    host: str
    metadata: dict[str, str]
    uuid: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))


@dataclasses.dataclass(frozen=True, slots=True)
class Mould:
    """All that a booted instance left in the databases and in Placement."""

    uuid: str
    flavor: str
    # One list of (table, row) for each database.
    rows: tuple[list[tuple[str, dict[str, typing.Any]]], ...]
    # What is allocated, by what follows the host's name in the provider's.
    resources: dict[str, dict[str, int]]
    project: str
    user: str


class Copier:
    """Makes moulds and copies in the databases and in Placement."""

    def __init__(
        self, cell: typing.Any, api: typing.Any, placement: typing.Any
    ) -> None:
        # Two database engines, and Nova's test client of Placement.
        self._cell = cell
        self._api = api
        self._placement = placement

    def mould(self, original: str, flavor: str) -> Mould:
        """Take the mould of a booted instance."""
        rows: list[list[tuple[str, dict[str, typing.Any]]]] = []
        for engine in (self._cell, self._api):
            with engine.begin() as connection:
                rows.append(
                    [
                        (table, dict(row))
                        for table, key in _tables(connection)
                        for row in connection.exec_driver_sql(
                            'SELECT * FROM "%s" WHERE %s = ?' % (table, key),
                            (original,),
                        )
                        .mappings()
                        .all()
                    ]
                )
        instance = next(r for t, r in rows[0] if t == "instances")
        suffixes = {
            key: suffix
            for suffix, key in self._providers(instance["host"]).items()
        }
        held = self._get("/allocations/%s" % original)
        return Mould(
            uuid=original,
            flavor=flavor,
            rows=tuple(rows),
            resources={
                suffixes[key]: allocation["resources"]
                for key, allocation in held["allocations"].items()
            },
            project=held["project_id"],
            user=held["user_id"],
        )

    def copy(self, mould: Mould, copies: typing.Sequence[Copy]) -> None:
        providers = {
            host: self._providers(host) for host in {c.host for c in copies}
        }
        for copy in copies:
            self._allocate(mould, copy, providers[copy.host])
        with self._api.begin() as connection:
            flavor = connection.exec_driver_sql(
                "SELECT id FROM flavors WHERE name = ?", (mould.flavor,)
            ).scalar()
        with self._cell.begin() as connection:
            nodes = {
                r.host: r
                for r in connection.exec_driver_sql(
                    "SELECT host, hypervisor_hostname, id FROM compute_nodes "
                    "WHERE deleted = 0"
                )
            }
        for engine, rows in zip(
            (self._cell, self._api), mould.rows, strict=True
        ):
            with engine.begin() as connection:
                for copy in copies:
                    for table, row in rows:
                        _insert(
                            connection,
                            table,
                            _changed(
                                table,
                                row,
                                mould.uuid,
                                flavor,
                                copy,
                                nodes[copy.host],
                            ),
                        )
                    if engine is self._cell:
                        self._finish(connection, copy)

    def _finish(self, connection: typing.Any, copy: Copy) -> None:
        for key, value in copy.metadata.items():
            _insert(
                connection,
                "instance_metadata",
                {
                    "instance_uuid": copy.uuid,
                    "key": key,
                    "value": value,
                    "deleted": 0,
                },
            )
        number = connection.exec_driver_sql(
            "SELECT id FROM instances WHERE uuid = ?", (copy.uuid,)
        ).scalar()
        driver.HYPERVISORS[copy.host].guests[copy.uuid] = fake.FakeInstance(
            "instance-%08x" % number, power_state.RUNNING, copy.uuid
        )

    def _allocate(
        self, mould: Mould, copy: Copy, providers: dict[str, str]
    ) -> None:
        answer = self._placement.put(
            "/allocations/%s" % copy.uuid,
            {
                "allocations": {
                    providers[suffix]: {"resources": resources}
                    for suffix, resources in mould.resources.items()
                },
                "project_id": mould.project,
                "user_id": mould.user,
                "consumer_generation": None,
            },
            version=PLACEMENT_VERSION,
        )
        if answer.status != 204:
            raise CopyError(
                "instance %s does not fit on %s: %s"
                % (copy.name, copy.host, answer.body)
            )

    def _providers(self, host: str) -> dict[str, str]:
        """The uuids of a host's providers by what follows its name."""
        tree = self._get(
            "/resource_providers?in_tree=%s" % cloud_spec.node_uuid(host)
        )["resource_providers"]
        return {p["name"][len(host) :]: p["uuid"] for p in tree}

    def _get(self, url: str) -> typing.Any:
        return self._placement.get(url, version=PLACEMENT_VERSION).body


def _tables(connection: typing.Any) -> list[tuple[str, str]]:
    """The tables that tell something of an instance, and their key."""
    found = []
    for (name,) in connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table'"
    ).all():
        if name in _SKIPPED or name.startswith("shadow_"):
            continue
        columns = {
            r[1]
            for r in connection.exec_driver_sql(
                'PRAGMA table_info("%s")' % name
            )
        }
        if name == "instances":
            found.append((name, "uuid"))
        elif "instance_uuid" in columns:
            found.append((name, "instance_uuid"))
    return found


def _changed(
    table: str,
    row: dict[str, typing.Any],
    original: str,
    flavor: int,
    copy: Copy,
    node: typing.Any,
) -> dict[str, typing.Any]:
    values = {
        k: _renewed(v, original, flavor, copy)
        for k, v in row.items()
        if k != "id"
    }
    if table == "instances":
        now = datetime.datetime.now(datetime.UTC).strftime(
            "%Y-%m-%d %H:%M:%S.%f"
        )
        values.update(
            display_name=copy.name,
            hostname=copy.name,
            host=copy.host,
            launched_on=copy.host,
            node=node.hypervisor_hostname,
            instance_type_id=flavor,
            created_at=now,
            updated_at=now,
            launched_at=now,
        )
        if "compute_id" in values:
            values["compute_id"] = node.id
    elif "uuid" in values:
        values["uuid"] = str(uuid.uuid4())
    return values


def _renewed(
    value: typing.Any, original: str, flavor: int, copy: Copy
) -> typing.Any:
    """A column's value with the copy's uuid and the flavor's present id."""
    if not isinstance(value, str):
        return value
    value = value.replace(original, copy.uuid)
    if '"Flavor"' not in value:
        return value
    return json.dumps(_with_flavor(json.loads(value), flavor))


def _with_flavor(value: typing.Any, flavor: int) -> typing.Any:
    if isinstance(value, list):
        return [_with_flavor(entry, flavor) for entry in value]
    if not isinstance(value, dict):
        return value
    changed = {k: _with_flavor(v, flavor) for k, v in value.items()}
    if changed.get("nova_object.name") == "Flavor":
        changed["nova_object.data"]["id"] = flavor
    return changed


def _insert(
    connection: typing.Any, table: str, values: dict[str, typing.Any]
) -> None:
    connection.exec_driver_sql(
        'INSERT INTO "%s" (%s) VALUES (%s)'
        % (
            table,
            ", ".join('"%s"' % k for k in values),
            ", ".join("?" * len(values)),
        ),
        tuple(values.values()),
    )
