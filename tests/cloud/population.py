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

"""From a declaration to API calls: flavors, aggregates, groups, instances.

Everything goes through Nova's public API as the cloud's administrator, so a
declared state is one that an operator could have made; only the equals of an
instance are copied instead of booted (``fill``, see ``copying``). Instances
are asked for first and waited for together. Few requests are in flight at a
time: Nova runs in one process, more would only queue.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import time
import typing

from keystoneauth1 import adapter
from keystoneauth1 import exceptions

from tests.cloud import keystone
from tests.cloud import spec as cloud_spec

COMPUTE_VERSION = "2.90"
_PARALLEL = 4
_BOOT_SECONDS = 120.0


class PopulationError(RuntimeError):
    """Nova did not do what the declaration asks for."""


class Population:
    """Makes and finds what lives in a cloud."""

    def __init__(
        self,
        compute: typing.Callable[..., adapter.Adapter],
        control_call: typing.Callable[..., typing.Any],
    ) -> None:
        # compute(project=None) gives an adapter scoped to that project.
        self._compute = compute
        self._control_call = control_call
        self._groups: dict[str, str] = {}
        self._flavors: dict[str, str] = {}

    def declare(self, spec: cloud_spec.CloudSpec) -> None:
        """Make everything but the hosts and the instances."""
        self._groups.clear()
        self._flavors.clear()
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(self.add_flavor, spec.flavors))
        for name, hosts, metadata in _aggregates(spec):
            self.add_aggregate(name, hosts, metadata)
        for group in spec.server_groups:
            self.add_group(group)
        for host in spec.hosts:
            if host.disabled:
                self.set_service(host.name, status="disabled")

    def add_flavor(self, flavor: cloud_spec.FlavorSpec) -> None:
        body = {
            "name": flavor.name,
            "vcpus": flavor.vcpus,
            "ram": flavor.memory_mb,
            "disk": flavor.disk_gb,
            "id": flavor.name,
        }
        answer = self._compute().post("/flavors", json={"flavor": body})
        key = answer.json()["flavor"]["id"]
        self._flavors[flavor.name] = key
        if flavor.extra_specs:
            self._compute().post(
                "/flavors/%s/os-extra_specs" % key,
                json={"extra_specs": flavor.extra_specs},
            )

    def add_aggregate(
        self, name: str, hosts: typing.Iterable[str], metadata: dict[str, str]
    ) -> None:
        answer = (
            self._compute()
            .post("/os-aggregates", json={"aggregate": {"name": name}})
            .json()
        )
        action = "/os-aggregates/%s/action" % answer["aggregate"]["id"]
        if metadata:
            self._compute().post(
                action, json={"set_metadata": {"metadata": metadata}}
            )
        for host in hosts:
            self._compute().post(action, json={"add_host": {"host": host}})

    def add_group(self, group: cloud_spec.ServerGroupSpec) -> None:
        body: dict[str, typing.Any] = {
            "name": group.name,
            "policy": group.policy,
        }
        if group.rules:
            body["rules"] = group.rules
        answer = (
            self._compute()
            .post("/os-server-groups", json={"server_group": body})
            .json()
        )
        self._groups[group.name] = answer["server_group"]["id"]

    def set_service(self, host: str, **fields: typing.Any) -> None:
        services = (
            self._compute()
            .get(
                "/os-services", params={"host": host, "binary": "nova-compute"}
            )
            .json()["services"]
        )
        self._compute().put("/os-services/%s" % services[0]["id"], json=fields)

    def fill(self, spec: cloud_spec.CloudSpec) -> None:
        """Boot one instance of every new kind, and copy it for its equals."""
        booted: list[cloud_spec.InstanceSpec] = []
        kinds: dict[str, list[cloud_spec.InstanceSpec]] = {}
        for instance in spec.instances:
            if instance.group or instance.hints or instance.host is None:
                booted.append(instance)
            else:
                kinds.setdefault(_kind(spec, instance), []).append(instance)
        known = self._control_call("moulds") if kinds else []
        first = {
            kind: dataclasses.replace(
                members[0],
                name=members[0].names[0],
                count=1,
                locked=False,
                paused=False,
                stopped=False,
            )
            for kind, members in kinds.items()
            if kind not in known
        }
        servers = self.boot(booted + list(first.values()))
        for kind, members in kinds.items():
            copies = [
                {
                    "name": name,
                    "host": member.host,
                    "metadata": member.metadata,
                }
                for member in members
                for name in member.names
            ]
            original = None
            if kind in first:
                original = servers[first[kind].name]
                del copies[0]
            self._control_call(
                "copy_instances",
                kind=kind,
                copies=copies,
                flavor=members[0].flavor,
                original=original,
            )
        if kinds:
            self._control_call("count_resources")
        unusual = [
            i
            for members in kinds.values()
            for i in members
            if i.locked or i.paused or i.stopped
        ]
        if unusual:
            everyone = {s["name"]: s["id"] for s in self.servers()}
            for instance in unusual:
                self._finish(instance, everyone)
            self._settle(unusual)

    def boot(
        self, instances: typing.Sequence[cloud_spec.InstanceSpec]
    ) -> dict[str, str]:
        """Boot them all; returns the uuids by name."""
        if not instances:
            return {}
        with concurrent.futures.ThreadPoolExecutor(_PARALLEL) as pool:
            list(pool.map(self._ask_for, instances))
            servers = self._wait_for(
                [n for i in instances for n in i.names], "ACTIVE"
            )
            list(pool.map(lambda i: self._finish(i, servers), instances))
        self._settle(instances)
        return servers

    def _settle(
        self, instances: typing.Sequence[cloud_spec.InstanceSpec]
    ) -> None:
        for status, field in (("PAUSED", "paused"), ("SHUTOFF", "stopped")):
            names = [
                n for i in instances if getattr(i, field) for n in i.names
            ]
            if names:
                self._wait_for(names, status)

    def _ask_for(self, instance: cloud_spec.InstanceSpec) -> None:
        server: dict[str, typing.Any] = {
            "name": instance.name,
            "flavorRef": self._flavor(instance.flavor),
            "imageRef": keystone.IMAGE_ID,
            "networks": "none",
            "min_count": instance.count,
            "max_count": instance.count,
            "metadata": instance.metadata,
        }
        if instance.host is not None:
            server["host"] = instance.host
        if instance.availability_zone is not None:
            server["availability_zone"] = instance.availability_zone
        body: dict[str, typing.Any] = {"server": server}
        if instance.group is not None:
            body["os:scheduler_hints"] = {"group": self._group(instance.group)}
        if instance.hints:
            body.setdefault("os:scheduler_hints", {}).update(instance.hints)
        try:
            self._compute(project=instance.project).post("/servers", json=body)
        except exceptions.HttpError as error:
            raise PopulationError(
                "instance %s is refused: %s" % (instance.name, error)
            ) from error

    def _finish(
        self, instance: cloud_spec.InstanceSpec, servers: dict[str, str]
    ) -> None:
        for name in instance.names:
            for wanted, action in (
                (instance.paused, "pause"),
                (instance.stopped, "os-stop"),
                (instance.locked, "lock"),
            ):
                if wanted:
                    self.act(servers[name], action)

    def act(
        self, server: str, action: str, arguments: typing.Any = None
    ) -> None:
        self._compute().post(
            "/servers/%s/action" % server, json={action: arguments}
        )

    def servers(self) -> list[dict[str, typing.Any]]:
        found: list[dict[str, typing.Any]] = []
        while True:
            params: dict[str, typing.Any] = {"all_tenants": 1, "limit": 1000}
            if found:
                params["marker"] = found[-1]["id"]
            page = (
                self._compute()
                .get("/servers/detail", params=params)
                .json()["servers"]
            )
            found += page
            if len(page) < 1000:
                return found

    def server_id(self, name: str) -> str:
        found = (
            self._compute()
            .get("/servers", params={"all_tenants": 1, "name": "^%s$" % name})
            .json()["servers"]
        )
        if len(found) != 1:
            raise PopulationError(
                "%d instances are named %s" % (len(found), name)
            )
        return str(found[0]["id"])

    def delete(self, name: str) -> None:
        key = self.server_id(name)
        self._compute().delete("/servers/%s" % key)
        deadline = time.monotonic() + _BOOT_SECONDS
        while time.monotonic() < deadline:
            answer = self._compute().get("/servers/%s" % key, raise_exc=False)
            if answer.status_code == 404:
                return
            time.sleep(0.1)
        raise PopulationError("instance %s is not deleted" % name)

    def _wait_for(
        self, names: typing.Sequence[str], status: str
    ) -> dict[str, str]:
        wanted = set(names)
        deadline = time.monotonic() + _BOOT_SECONDS
        while True:
            found = {
                s["name"]: s for s in self.servers() if s["name"] in wanted
            }
            failed = [s for s in found.values() if s["status"] == "ERROR"]
            if failed:
                raise PopulationError(
                    "instance %s is in ERROR: %s"
                    % (
                        failed[0]["name"],
                        failed[0].get("fault", {}).get("message"),
                    )
                )
            missing = sorted(
                n
                for n in wanted
                if n not in found
                or found[n]["status"] != status
                or found[n]["OS-EXT-STS:task_state"]
            )
            if not missing:
                return {n: s["id"] for n, s in found.items()}
            if time.monotonic() > deadline:
                raise PopulationError(
                    "not %s in time: %s" % (status, ", ".join(missing))
                )
            # Listing costs Nova time that it needs for booting.
            time.sleep(min(1.0, 0.1 + 0.01 * len(missing)))

    def _flavor(self, name: str) -> str:
        if name not in self._flavors:
            self._flavors.update(
                (f["name"], f["id"])
                for f in self._compute().get("/flavors").json()["flavors"]
            )
        return self._flavors[name]

    def _group(self, name: str) -> str:
        if name not in self._groups:
            self._groups.update(
                (g["name"], g["id"])
                for g in self._compute()
                .get("/os-server-groups", params={"all_projects": "true"})
                .json()["server_groups"]
            )
        return self._groups[name]


def _kind(
    spec: cloud_spec.CloudSpec, instance: cloud_spec.InstanceSpec
) -> str:
    """Instances of one kind differ in name, host and metadata only."""
    flavor = next(f for f in spec.flavors if f.name == instance.flavor)
    return json.dumps(
        [
            dataclasses.asdict(flavor),
            instance.project,
            instance.availability_zone,
        ],
        sort_keys=True,
    )


def _aggregates(
    spec: cloud_spec.CloudSpec,
) -> typing.Iterator[tuple[str, list[str], dict[str, str]]]:
    """The declared aggregates, those of hosts, one per zone of hosts."""
    declared = {
        a.name: (list(a.hosts), dict(a.metadata)) for a in spec.aggregates
    }
    for aggregate in spec.aggregates:
        if aggregate.availability_zone is not None:
            declared[aggregate.name][1]["availability_zone"] = (
                aggregate.availability_zone
            )
    for host in spec.hosts:
        for name in host.aggregates:
            members = declared.setdefault(name, ([], {}))[0]
            if host.name not in members:
                members.append(host.name)
        if host.availability_zone is not None:
            declared.setdefault(
                "zone-" + host.availability_zone,
                ([], {"availability_zone": host.availability_zone}),
            )[0].append(host.name)
    for name, (hosts, metadata) in declared.items():
        yield name, hosts, metadata
