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


"""Prometheus as the cloud's owner sees it: fetch, start, fill, disturb.

Measures are written as a Prometheus that scrapes Ceilometer's exporter every
30 seconds has them: ``ceilometer_cpu`` and ``ceilometer_cpu_steal`` with the
server's uuid in the label ``resource``, each polled value repeated until the
next. ``promtool`` makes blocks of them, so that the past may be any; the
server reads blocks when it starts.

Two ways lead to it: ``port``, with an ``Observer`` in front (``inject`` and
``requests`` of the cloud know it as ``prometheus``), and Aetos, the
``metric-storage`` of the cloud's catalogue, which asks the cloud's Keystone
who is asking. ``server_port`` is the server itself.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import pathlib
import shutil
import subprocess
import sys
import typing

from tests.cloud import control
from tests.cloud import gnocchi
from tests.cloud import keystone
from tests.cloud import process

if typing.TYPE_CHECKING:
    from tests.cloud import cloud

DIRECT = "prometheus"
AETOS = "metric-storage"
CPU = "ceilometer_cpu"
STEAL = "ceilometer_cpu_steal"
LABEL = "resource"
SCRAPE_SECONDS = 30
PROGRAMS = ("prometheus", "promtool")
_CACHE = pathlib.Path(__file__).resolve().parents[2] / ".prometheus"
_START_SECONDS = 60.0


class PrometheusError(RuntimeError):
    """Prometheus cannot be had, or refuses what is written."""


def find() -> pathlib.Path | None:
    """The folder of Prometheus's programs; None if nothing could have them.

    Those on PATH, or those of Debian's package, fetched once.

    :raises PrometheusError: if the package cannot be fetched
    """
    on_path = [shutil.which(program) for program in PROGRAMS]
    folders = {pathlib.Path(path).parent for path in on_path if path}
    if all(on_path) and len(folders) == 1:
        return folders.pop()
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    _CACHE.mkdir(exist_ok=True)
    (_CACHE / ".gitignore").write_text("*\n")
    with open(_CACHE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((_CACHE / program).exists() for program in PROGRAMS):
            _fetch()
    return _CACHE


def _fetch() -> None:
    """Debian's package, unpacked and not installed."""
    download = ["apt-get", "download", "-qq", "prometheus"]
    try:
        _run(download, _CACHE)
    except PrometheusError:
        # A fresh machine has no lists of packages.
        _run(["apt-get", "update", "-qq"], _CACHE)
        _run(download, _CACHE)
    for package in _CACHE.glob("prometheus_*.deb"):
        _run(["dpkg-deb", "-x", str(package), "unpacked"], _CACHE)
        package.unlink()
    for program in PROGRAMS:
        (_CACHE / "unpacked/usr/bin" / program).rename(_CACHE / program)
    shutil.rmtree(_CACHE / "unpacked")


def _run(command: list[str], directory: pathlib.Path) -> None:
    done = subprocess.run(
        command,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PrometheusError(
            "%s failed with status %d:\n%s"
            % (" ".join(command), done.returncode, done.stdout[-2000:])
        )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """One series as it is stored."""

    metric: str
    labels: typing.Mapping[str, str]
    samples: tuple[tuple[float, float], ...]


class Prometheus:
    """The Prometheus of a cloud; started when somebody asks for it."""

    def __init__(
        self,
        owner: cloud.EmbeddedCloud,
        environment: dict[str, str],
        python: str = sys.executable,
    ) -> None:
        self._cloud = owner
        self._environment = environment
        self._python = python
        self._process: process.ServiceProcess | None = None
        self._ports: dict[str, int] = {}
        self._programs: pathlib.Path | None = None

    # Starting and stopping.

    @property
    def directory(self) -> pathlib.Path:
        return self._cloud.directory / "prometheus"

    @property
    def record(self) -> process.Record | None:
        """What the running process says about itself."""
        return self._process.record if self._process else None

    @property
    def running(self) -> bool:
        return self.record is not None

    @property
    def control(self) -> control.ControlClient:
        record = self.record
        if record is None:
            raise control.ControlError("Prometheus does not run")
        return control.ControlClient(record.ports["control"])

    @property
    def port(self) -> int:
        """Where faults can be injected."""
        return self._ports[DIRECT]

    @property
    def server_port(self) -> int:
        """That of the server itself."""
        return self._ports["server"]

    def start(self) -> None:
        """Start it, empty, and Aetos before it.

        :raises PrometheusError: if this machine has no Prometheus
        """
        if self.running:
            return
        self._programs = find()
        if self._programs is None:
            raise PrometheusError(
                "there is neither prometheus on PATH nor apt-get to fetch it"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "settings.json").write_text(
            json.dumps(
                {
                    "program": str(self._programs / "prometheus"),
                    "auth_url": self._cloud.auth_url,
                    "user": "watcher",
                    "password": keystone.PASSWORD,
                    "project": keystone.USERS["watcher"][0],
                }
            )
        )
        self._process = process.ServiceProcess(
            self._cloud.directory,
            "prometheus",
            [
                self._python,
                "-m",
                "tests.cloud.prometheus_process",
                str(self.directory),
            ],
            # Where Aetos and its middleware look for their configuration.
            {**self._environment, "HOME": str(self.directory)},
        )
        self._process.start()
        try:
            self._ports = self._process.wait(_START_SECONDS).ports
        except process.ProcessError:
            self.stop()
            raise
        self.enter()

    def stop(self) -> None:
        """Stop the process; what it has stored stays until ``discard``."""
        if self._process is not None:
            self._process.stop()

    def discard(self) -> None:
        """Stop, and remove everything that was stored."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def enter(self) -> None:
        """Enter Aetos into the cloud's catalogue."""
        self._cloud.set_endpoint(AETOS, self._ports[AETOS])

    def leave(self) -> None:
        """Take Aetos out of the catalogue: a cloud without it."""
        self._cloud.remove_endpoint(AETOS)

    def halt(self) -> None:
        """Stop the server; whoever asks is refused the connection."""
        self.control.call("halt")

    def resume(self, *, secure: bool = False) -> None:
        """Start the server again, with what it has stored.

        :param secure: with TLS, ``certificate``, and a password, for the
            user ``watcher``; neither the forwarder nor Aetos knows it then
        """
        self.control.call("resume", secure=secure)

    @property
    def certificate(self) -> pathlib.Path:
        """The server's, which has signed itself."""
        return self.directory / "cert.pem"

    # Measures.

    def write(
        self,
        series: typing.Mapping[gnocchi.Resource, gnocchi.CounterSeries],
        *,
        metrics: tuple[str | None, str | None] = (CPU, STEAL),
        factors: tuple[float, float] = (1, 1),
        scrape_seconds: int = SCRAPE_SECONDS,
        label: str = LABEL,
    ) -> None:
        """Write what would have been scraped from Ceilometer's exporter.

        :param metrics: names of the CPU and the steal metric, None for one
            that is not published
        :param factors: of both; 1e-9 for an exporter that counts in seconds
        :param label: that has the instance's uuid
        """
        found = []
        for resource, counters in series.items():
            rows = list(counters)
            for place, metric in enumerate(metrics):
                if metric is None:
                    continue
                polled = [
                    (row[0], row[1 + place] * factors[place]) for row in rows
                ]
                found.append(
                    Series(
                        metric=metric,
                        labels={
                            label: resource.uuid,
                            "project": resource.project,
                            "resource_name": resource.name,
                            "vm_instance": resource.host,
                        },
                        samples=tuple(scraped(polled, scrape_seconds)),
                    )
                )
        self.write_series(found)

    def write_series(self, series: typing.Iterable[Series]) -> None:
        """Write series as they are."""
        assert self._programs is not None
        path = self.directory / "measures.txt"
        with open(path, "w") as stream:
            for one in sorted(series, key=lambda one: one.metric):
                labels = ",".join(
                    '%s="%s"' % item for item in sorted(one.labels.items())
                )
                stream.writelines(
                    "%s{%s} %r %r\n" % (one.metric, labels, value, time)
                    for time, value in one.samples
                )
            stream.write("# EOF\n")
        self.halt()
        try:
            _run(
                [
                    str(self._programs / "promtool"),
                    *("tsdb", "create-blocks-from", "openmetrics"),
                    *("--quiet", str(path), str(self.directory / "data")),
                ],
                self.directory,
            )
        finally:
            self.resume()

    def forget(self, *, resume: bool = True) -> None:
        """Drop everything that is stored.

        :param resume: whether the server is wanted before the next ``write``
        """
        self.halt()
        shutil.rmtree(self.directory / "data", ignore_errors=True)
        if resume:
            self.resume()


def scraped(
    polled: typing.Sequence[tuple[float, float]], scrape_seconds: int
) -> typing.Iterator[tuple[float, float]]:
    """Each polled value, repeated at every scrape until the next one."""
    times = [time for time, _value in polled[1:]]
    if polled:
        times.append(polled[-1][0] + scrape_seconds)
    for (time, value), until in zip(polled, times, strict=True):
        moment = time
        while moment < until:
            yield moment, value
            moment += scrape_seconds
