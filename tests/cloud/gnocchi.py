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


"""Gnocchi as the cloud's owner sees it: start, fill, disturb, forget.

Measures are written as Ceilometer writes them: a resource of type ``instance``
with the server's uuid and project, one metric per counter under the archive
policy ``ceilometer-low-rate`` (5 minutes, ``mean`` and ``rate:mean``), and
batches of samples. ``gnocchi-metricd`` makes the aggregates of them, which
``write`` waits for.
"""

from __future__ import annotations

import concurrent.futures
import configparser
import dataclasses
import os
import pathlib
import pwd
import shutil
import sys
import tempfile
import time
import typing

from tests.cloud import control
from tests.cloud import keystone
from tests.cloud import process

if typing.TYPE_CHECKING:
    from keystoneauth1 import adapter as ksa_adapter


SERVICE = "metric"
CPU = "cpu"
STEAL = "cpu.steal"
RESOURCE_TYPE = "instance"
POLICY = "ceilometer-low-rate"
# Ceilometer's own writer belongs to the service project, as this one does.
WRITER = "watcher"
_MEMORY = "/dev/shm"
_SHELF = "embedded-cloud-gnocchi-"
_START_SECONDS = 90.0
_PROCESS_SECONDS = 600.0
_BATCH = 500
_THREADS = 4
_POLICIES: dict[str, dict[str, typing.Any]] = {
    "ceilometer-low-rate": {
        "aggregation_methods": ["mean", "rate:mean"],
        "granularity": "5 minutes",
    },
    # Without rates, which is what Ceilometer gives most metrics.
    "ceilometer-low": {
        "aggregation_methods": ["mean"],
        "granularity": "5 minutes",
    },
    "every-minute-rate": {
        "aggregation_methods": ["mean", "rate:mean"],
        "granularity": "1 minute",
    },
}
_ATTRIBUTES = ("display_name", "host", "flavor_name", "image_ref")

Samples = typing.Iterable[tuple[float, float]]


class Owner(typing.Protocol):
    """What Gnocchi needs around it: ``EmbeddedCloud``, or less."""

    directory: pathlib.Path
    auth_url: str

    def set_endpoint(self, service: str, port: int) -> None:
        """Enter a service into the catalogue."""

    def remove_endpoint(self, service: str) -> None:
        """Take it out again."""

    def adapter(self, service: str, user: str) -> ksa_adapter.Adapter:
        """A client of a service, as a user."""


class GnocchiError(RuntimeError):
    """Gnocchi refuses, or does not come to an end."""


class CounterSeries(typing.Protocol):
    """What ``kernel.counters`` makes of a declared load."""

    def __iter__(self) -> typing.Iterator[tuple[int, int, int]]:
        """(epoch seconds, CPU time, steal), both in nanoseconds."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resource:
    """An instance as Ceilometer makes it known."""

    uuid: str
    name: str
    project: str
    host: str = ""
    flavor: str = ""


def _sweep(home: pathlib.Path) -> None:
    """Remove what processes left that were killed: it takes memory."""
    for shelf in home.glob(_SHELF + "*"):
        try:
            pid, started = (shelf / "owner").read_text().split()
        except (OSError, ValueError):
            # Just being made, or somebody else's.
            continue
        if str(process.start_time(int(pid))) != started:
            shutil.rmtree(shelf, ignore_errors=True)


class Gnocchi:
    """The Gnocchi process of a cloud; started when somebody asks for it."""

    def __init__(
        self,
        owner: Owner,
        environment: dict[str, str],
        python: str = sys.executable,
    ) -> None:
        self._cloud = owner
        self._process = process.ServiceProcess(
            owner.directory,
            "gnocchi",
            [
                python,
                "-m",
                "tests.cloud.gnocchi_process",
                str(owner.directory),
            ],
            environment,
        )
        # Kept over a restart, if it is still free then.
        self._port = 0
        self._known: set[str] = set()

    # Starting and stopping.

    @property
    def directory(self) -> pathlib.Path:
        return self._cloud.directory / "gnocchi"

    @property
    def record(self) -> process.Record | None:
        """What the running process says about itself."""
        return self._process.record

    @property
    def running(self) -> bool:
        return self.record is not None

    @property
    def control(self) -> control.ControlClient:
        record = self.record
        if record is None:
            raise control.ControlError("Gnocchi does not run")
        return control.ControlClient(record.ports["control"])

    def start(self) -> None:
        """Start, or start again with everything that was there."""
        if self.running:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        shelf = self._shelf()
        self._write_configuration(shelf)
        self._process.start(
            arguments=[str(shelf / "database"), str(self._port)]
        )
        try:
            self._port = self._process.wait(_START_SECONDS).ports["metric"]
        except process.ProcessError:
            self.stop()
            raise
        self.enter()
        self._declare()

    def stop(self) -> None:
        """Stop the process; what it has stored stays until ``discard``."""
        self._process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def discard(self) -> None:
        """Stop, and remove everything that was stored."""
        self.stop()
        path = self.directory / "shelf"
        if path.exists():
            shutil.rmtree(path.read_text(), ignore_errors=True)
        shutil.rmtree(self.directory, ignore_errors=True)
        self._known.clear()

    def enter(self) -> None:
        """Enter it into the cloud's catalogue."""
        self._cloud.set_endpoint(SERVICE, self._port)

    def leave(self) -> None:
        """Take it out of the catalogue: a cloud without Gnocchi."""
        self._cloud.remove_endpoint(SERVICE)

    def _shelf(self) -> pathlib.Path:
        """Where the data live: in memory if there is such a place.

        It is not in the cloud's directory: sockets want a short path, and
        PostgreSQL one that its user can reach.
        """
        note = self.directory / "shelf"
        if note.exists() and pathlib.Path(note.read_text()).is_dir():
            return pathlib.Path(note.read_text())
        home = _MEMORY if os.access(_MEMORY, os.W_OK) else None
        _sweep(pathlib.Path(home or tempfile.gettempdir()))
        made = pathlib.Path(tempfile.mkdtemp(prefix=_SHELF, dir=home))
        pid = os.getpid()
        (made / "owner").write_text("%d %s" % (pid, process.start_time(pid)))
        note.write_text(str(made))
        made.chmod(0o711)
        for name in ("database", "storage", "locks"):
            (made / name).mkdir(mode=0o700)
        if os.geteuid() == 0:
            user = pwd.getpwnam("nobody")
            os.chown(made / "database", user.pw_uid, user.pw_gid)
        return made

    def _write_configuration(self, shelf: pathlib.Path) -> None:
        parser = configparser.ConfigParser(
            interpolation=None, default_section="no default section"
        )
        parser.read_dict(
            {
                "DEFAULT": {
                    "coordination_url": "file://%s" % (shelf / "locks"),
                    # More costs CPU and is no faster on files.
                    "parallel_operations": "1",
                },
                "indexer": {
                    "url": "postgresql+psycopg2://postgres@/gnocchi?host=%s"
                    % (shelf / "database")
                },
                "storage": {
                    "driver": "file",
                    "file_basepath": str(shelf / "storage"),
                },
                "api": {
                    "auth_mode": "keystone",
                    # The process writes it.
                    "paste_config": str(self.directory / "api-paste.ini"),
                },
                "metricd": {
                    "workers": "1",
                    "metric_processing_delay": "1",
                    "metric_cleanup_delay": "3600",
                },
                "keystone_authtoken": {
                    "auth_type": "password",
                    "auth_url": self._cloud.auth_url,
                    "www_authenticate_uri": self._cloud.auth_url,
                    "username": WRITER,
                    "password": keystone.PASSWORD,
                    "project_name": keystone.USERS[WRITER][0],
                    "user_domain_id": "default",
                    "project_domain_id": "default",
                },
            }
        )
        with open(self.directory / "gnocchi.conf", "w") as stream:
            parser.write(stream)

    # What an operator sets up.

    @property
    def adapter(self) -> ksa_adapter.Adapter:
        """Gnocchi's API, as the user whom measures are written by."""
        return self._cloud.adapter(SERVICE, WRITER)

    def _declare(self) -> None:
        """Archive policies and resource type, as ceilometer-upgrade makes."""
        there = {p["name"] for p in self._get("/v1/archive_policy")}
        for name, policy in _POLICIES.items():
            if name not in there:
                self._send(
                    "POST",
                    "/v1/archive_policy",
                    {
                        "name": name,
                        "back_window": 0,
                        "aggregation_methods": policy["aggregation_methods"],
                        "definition": [
                            {
                                "granularity": policy["granularity"],
                                "timespan": "30 days",
                            }
                        ],
                    },
                )
        types = {t["name"] for t in self._get("/v1/resource_type")}
        if RESOURCE_TYPE not in types:
            self._send(
                "POST",
                "/v1/resource_type",
                {
                    "name": RESOURCE_TYPE,
                    "attributes": {
                        name: {
                            "type": "string",
                            "max_length": 255,
                            "required": False,
                        }
                        for name in _ATTRIBUTES
                    },
                },
            )

    # Measures.

    def write(
        self,
        series: typing.Mapping[Resource, CounterSeries],
        *,
        metrics: tuple[str | None, str | None] = (CPU, STEAL),
        factors: tuple[float, float] = (1, 1),
        policy: str = POLICY,
    ) -> None:
        """Write what Ceilometer would have, and wait for the aggregates.

        :param metrics: names of the CPU and the steal metric, None for one
            that is not published
        :param factors: of both; 1e-9 for a pollster that counts in seconds
        """
        measures: dict[Resource, dict[str, Samples]] = {}
        for resource, counters in series.items():
            rows = list(counters)
            measures[resource] = {
                metric: [
                    (row[0], row[1 + place] * factors[place]) for row in rows
                ]
                for place, metric in enumerate(metrics)
                if metric is not None
            }
        self.write_measures(measures, policy=policy)

    def write_measures(
        self,
        measures: typing.Mapping[Resource, typing.Mapping[str, Samples]],
        *,
        policy: str = POLICY,
    ) -> None:
        """Write samples of metrics of resources, and wait for aggregates."""
        self._make_known(measures)
        rows = list(measures.items())
        for first in range(0, len(rows), _BATCH):
            self._send(
                "POST",
                "/v1/batch/resources/metrics/measures?create_metrics=true",
                {
                    resource.uuid: {
                        metric: {
                            "archive_policy_name": policy,
                            "measures": [
                                {"timestamp": float(t), "value": float(v)}
                                for t, v in samples
                            ],
                        }
                        for metric, samples in metrics.items()
                    }
                    for resource, metrics in rows[first : first + _BATCH]
                },
            )
        self.wait_processed()

    def _make_known(self, resources: typing.Iterable[Resource]) -> None:
        new = [r for r in resources if r.uuid not in self._known]

        def make(resource: Resource) -> None:
            self._send(
                "POST",
                "/v1/resource/%s" % RESOURCE_TYPE,
                {
                    "id": resource.uuid,
                    "started_at": "2020-01-01T00:00:00Z",
                    "project_id": resource.project,
                    "display_name": resource.name,
                    "host": resource.host,
                    "flavor_name": resource.flavor,
                },
                # It is there already.
                also=(409,),
            )

        with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(make, new))
        self._known.update(resource.uuid for resource in new)

    def wait_processed(self) -> None:
        """Have aggregates made of all measures, and wait for metricd's."""
        deadline = time.monotonic() + _PROCESS_SECONDS
        while time.monotonic() < deadline:
            if not self.control.call("process_measures", _PROCESS_SECONDS):
                return
        raise GnocchiError(
            "measures are not processed within %d s" % _PROCESS_SECONDS
        )

    def end(self, name: str, when: float) -> None:
        """The instance of this name was deleted then, as events tell."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
        self._send(
            "PATCH",
            "/v1/resource/%s/%s" % (RESOURCE_TYPE, self._uuid(name)),
            {"ended_at": moment},
        )

    def delete_metric(self, name: str, metric: str) -> None:
        """Delete a metric of the instance of this name."""
        self._send(
            "DELETE",
            "/v1/resource/%s/%s/metric/%s"
            % (RESOURCE_TYPE, self._uuid(name), metric),
        )

    def _uuid(self, name: str) -> str:
        found = self._send(
            "POST",
            "/v1/search/resource/%s" % RESOURCE_TYPE,
            {"=": {"display_name": name}},
        )
        if not found:
            raise GnocchiError("no resource is named %s" % name)
        return str(found[0]["id"])

    def forget(self) -> None:
        """Delete all resources, with their metrics."""
        self._send(
            "DELETE",
            # By another type their ids would stay taken.
            "/v1/resource/generic",
            {">": {"started_at": "1970-01-02T00:00:00Z"}},
            # There are none.
            also=(404,),
        )
        self._known.clear()

    # Requests.

    def _get(self, path: str) -> typing.Any:
        return self._send("GET", path)

    def _send(
        self,
        method: str,
        path: str,
        body: typing.Any = None,
        also: tuple[int, ...] = (),
    ) -> typing.Any:
        answer = self.adapter.request(
            path,
            method,
            json=body,
            headers={"Accept": "application/json"},
            raise_exc=False,
        )
        if answer.status_code >= 400 and answer.status_code not in also:
            raise GnocchiError(
                "%s %s: %d %s"
                % (method, path, answer.status_code, answer.text[:500])
            )
        if answer.status_code in also or not answer.content:
            return None
        return answer.json()
