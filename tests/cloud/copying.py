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
zone) is booted through the API; the others get the same rows in Nova's
databases under their own uuid, name and host, an allocation that Placement
itself accepts or refuses, and a guest on the hypervisor. Afterwards the
compute services count what they have, as their periodic task would.

What is skipped is the scheduler: traits and aggregates are not checked for a
copy, only capacity. Instances in server groups and those without a declared
host are therefore never copied.
"""

from __future__ import annotations

import dataclasses
import typing
import uuid

from nova.compute import power_state
from nova.virt import fake

from tests.cloud import driver
from tests.cloud import spec as cloud_spec

# Rows that the events of an action hang on, and what a copy has of its own.
_SKIPPED = {"instance_actions_events", "instance_metadata", "migrations",
            "instance_faults"}
PLACEMENT_VERSION = "1.36"


class CopyError(RuntimeError):
    """Placement refuses the allocation of a copy."""


@dataclasses.dataclass(frozen=True, slots=True)
class Copy:
    """One instance to be made."""

    name: str
    host: str
    metadata: dict[str, str]
    uuid: str = dataclasses.field(
        default_factory=lambda: str(uuid.uuid4()))


class Copier:
    """Makes copies of instances in the databases and in Placement."""

    def __init__(self, cell: typing.Any, api: typing.Any,
                 placement: typing.Any) -> None:
        # Two database engines, and Nova's test client of Placement.
        self._cell = cell
        self._api = api
        self._placement = placement

    def copy(self, original: str, copies: typing.Sequence[Copy]) -> None:
        allocation = self._get("/allocations/%s" % original)
        with self._cell.begin() as connection:
            row = connection.exec_driver_sql(
                "SELECT host, display_name FROM instances WHERE uuid = ?",
                (original,)).one()
            nodes = {r.host: r for r in connection.exec_driver_sql(
                "SELECT host, hypervisor_hostname, id FROM compute_nodes "
                "WHERE deleted = 0")}
        source_host, source_name = row
        providers = {name: self._providers(name) for name in
                     {source_host} | {c.host for c in copies}}
        for copy in copies:
            self._allocate(allocation, copy, providers[source_host],
                           providers[copy.host])
        for engine in (self._cell, self._api):
            with engine.begin() as connection:
                for table, columns in _tables(connection):
                    key = "uuid" if table == "instances" else "instance_uuid"
                    rows = connection.exec_driver_sql(
                        'SELECT * FROM "%s" WHERE %s = ?' % (table, key),
                        (original,)).mappings().all()
                    for copy in copies:
                        for found in rows:
                            _insert(connection, table, _changed(
                                table, found, original, source_name, copy,
                                nodes))
                if engine is self._cell:
                    for copy in copies:
                        self._finish(connection, copy)

    def _finish(self, connection: typing.Any, copy: Copy) -> None:
        for key, value in copy.metadata.items():
            _insert(connection, "instance_metadata", {
                "instance_uuid": copy.uuid, "key": key, "value": value,
                "deleted": 0})
        number = connection.exec_driver_sql(
            "SELECT id FROM instances WHERE uuid = ?", (copy.uuid,)).scalar()
        driver.HYPERVISORS[copy.host].guests[copy.uuid] = fake.FakeInstance(
            "instance-%08x" % number, power_state.RUNNING, copy.uuid)

    def _allocate(self, allocation: dict[str, typing.Any], copy: Copy,
                  source: dict[str, str], target: dict[str, str]) -> None:
        names = {key: suffix for suffix, key in source.items()}
        body = {
            "allocations": {
                target[names[provider]]: {"resources": held["resources"]}
                for provider, held in allocation["allocations"].items()},
            "project_id": allocation["project_id"],
            "user_id": allocation["user_id"],
            "consumer_generation": None,
        }
        answer = self._placement.put("/allocations/%s" % copy.uuid, body,
                                     version=PLACEMENT_VERSION)
        if answer.status != 204:
            raise CopyError("instance %s does not fit on %s: %s" % (
                copy.name, copy.host, answer.body))

    def _providers(self, host: str) -> dict[str, str]:
        """The uuids of a host's providers by what follows its name."""
        tree = self._get("/resource_providers?in_tree=%s" %
                         cloud_spec.node_uuid(host))["resource_providers"]
        return {p["name"][len(host):]: p["uuid"] for p in tree}

    def _get(self, url: str) -> typing.Any:
        return self._placement.get(url, version=PLACEMENT_VERSION).body


def _tables(connection: typing.Any) -> typing.Iterator[
        tuple[str, list[str]]]:
    """The tables that hold something about an instance."""
    names = [r[0] for r in connection.exec_driver_sql(
        "SELECT name FROM sqlite_master WHERE type = 'table'")]
    for name in names:
        columns = [r[1] for r in connection.exec_driver_sql(
            'PRAGMA table_info("%s")' % name)]
        if name in _SKIPPED or name.startswith("shadow_"):
            continue
        if "instance_uuid" in columns or name == "instances":
            yield name, columns


def _changed(table: str, row: typing.Any, original: str, name: str,
             copy: Copy, nodes: dict[str, typing.Any]) -> dict[
                 str, typing.Any]:
    values = {k: v.replace(original, copy.uuid) if isinstance(v, str) else v
              for k, v in row.items() if k != "id"}
    if table == "instances":
        node = nodes[copy.host]
        values.update(
            display_name=copy.name, hostname=copy.name, host=copy.host,
            launched_on=copy.host, node=node.hypervisor_hostname)
        if "compute_id" in values:
            values["compute_id"] = node.id
    elif "uuid" in values:
        values["uuid"] = str(uuid.uuid4())
    return values


def _insert(connection: typing.Any, table: str,
            values: dict[str, typing.Any]) -> None:
    connection.exec_driver_sql('INSERT INTO "%s" (%s) VALUES (%s)' % (
        table, ", ".join('"%s"' % k for k in values),
        ", ".join("?" * len(values))), tuple(values.values()))
