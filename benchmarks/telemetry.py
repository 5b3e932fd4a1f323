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


"""Telemetry of all instances: ours against Watcher's own datasource.

A real Gnocchi (PostgreSQL, metricd, the API behind Keystone's middleware)
with the counters of some hours. The peer is Watcher's ``GnocchiHelper``, asked
for each instance as Watcher's strategies do; it knows no steal metric, which
is added to its map here as an operator can. Ours is the reader that an audit
uses, checks and vetting included. Both begin without a token; requests and
bytes are counted by the HTTP session of each.
"""

from __future__ import annotations

import dataclasses
import logging
import time
import typing
import uuid

from gnocchiclient import client as gnocchi_client
from oslo_config import cfg
from watcher import conf as watcher_conf
from watcher.decision_engine.datasources import gnocchi as watcher_gnocchi

from benchmarks import measure
from benchmarks import report
from tests import builders
from tests.cloud import gnocchi as cloud_gnocchi
from tests.cloud import surroundings
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.datasources import telemetry

SIZES = (100, 1000)
OURS = "get_telemetry"
PEER = "Watcher's GnocchiHelper"
GOAL_SIZE = 1000
FEWER_REQUESTS = 50
LESS_TIME = 10
_PER_HOST = 50
_WINDOW = 300
_SAMPLES = 24
_VCPUS = 2
# A larger cloud is read by the peer once; that takes minutes.
_ROUNDS_UP_TO = 2000
_STEAL = "instance_steal"


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """An instance as Watcher's compute model has it."""

    uuid: str
    vcpus: int


def declare(count: int) -> model.Cluster:
    """A cloud of so many instances of two vCPUs."""
    hosts = [f"host-{n:04d}" for n in range(-(-count // _PER_HOST))]
    flavor = builders.flavor(_VCPUS)
    return model.Cluster(
        tiers=builders.BUILT_IN_TIERS,
        hosts=tuple(builders.host(name) for name in hosts),
        instances=tuple(
            model.Instance(
                uuid=str(uuid.uuid5(uuid.NAMESPACE_DNS, f"instance-{n}")),
                name=f"instance-{n:05d}",
                host=hosts[n // _PER_HOST],
                flavor=flavor,
            )
            for n in range(count)
        ),
    )


def fill(gnocchi: cloud_gnocchi.Gnocchi, cluster: model.Cluster) -> None:
    """Write counters; no two instances have the same load."""
    last = int(time.time()) // _WINDOW * _WINDOW - 10
    times = [last - back * _WINDOW for back in reversed(range(_SAMPLES))]
    series = {}
    for number, instance in enumerate(cluster.instances):
        usage = (number % 97 + 1) / 100
        series[
            cloud_gnocchi.Resource(
                uuid=instance.uuid, name=instance.name, project="tenant"
            )
        ] = [
            (t, int(n * _WINDOW * usage * 1e9), int(n * _WINDOW * 1e8))
            for n, t in enumerate(times)
        ]
    gnocchi.write(series)


class Readers:
    """Ours and the peer, on one Gnocchi."""

    def __init__(
        self, around: surroundings.Surroundings, cluster: model.Cluster
    ) -> None:
        self._around = around
        self._cluster = cluster
        self._conf = cfg.ConfigOpts()
        self._conf([], default_config_files=[], default_config_dirs=[])
        self._params = parameters.Parameters.of()
        self.percent: dict[str, dict[str, float]] = {}

    def ours(self) -> measure.Cost:
        """Both metrics of all instances, checked and vetted."""
        count = _Counter()
        with measure.Stopwatch() as watch:
            connected = self._around.connection("watcher")
            count.watch(connected.session)
            found, _findings = telemetry.Reader(
                self._conf, connected
            ).get_telemetry(self._cluster, self._params, int(time.time()))
        self.percent[OURS] = {
            instance: row[-1].usage_cpus / _VCPUS * 100
            for instance, row in found.readings.items()
            if row[-1] is not None
        }
        return count.cost(watch.seconds)

    def peer(self) -> measure.Cost:
        """The same, one instance and one metric after the other."""
        count = _Counter()
        with measure.Stopwatch() as watch:
            session = self._around.session("watcher")
            count.watch(session)
            helper = watcher_gnocchi.GnocchiHelper(_Clients(session))
            helper.METRIC_MAP = {
                **helper.METRIC_MAP,
                _STEAL: cloud_gnocchi.STEAL,
            }
            self.percent[PEER] = {}
            for one in self._cluster.instances:
                instance = Instance(one.uuid, one.flavor.vcpus)
                for meter in ("instance_cpu_usage", _STEAL):
                    value = helper.statistic_aggregation(
                        instance,
                        "instance",
                        meter,
                        period=6 * _WINDOW,
                        aggregate="rate:mean",
                        granularity=_WINDOW,
                    )
                    if meter != _STEAL:
                        self.percent[PEER][instance.uuid] = value
        return count.cost(watch.seconds)

    def differences(self) -> list[str]:
        """Instances whose usage the two do not agree on."""
        ours, peers = self.percent[OURS], self.percent[PEER]
        return [
            f"{one}: {ours.get(one)} is not {peers.get(one)}"
            for one in sorted({*ours, *peers})
            if one not in ours
            or one not in peers
            or abs(ours[one] - peers[one]) > 1e-6 * peers[one]
        ]


class _Clients:
    """What Watcher's helper takes its client from."""

    def __init__(self, session: typing.Any) -> None:
        self._session = session

    def gnocchi(self) -> typing.Any:
        """A client as ``OpenStackClients`` makes it."""
        return gnocchi_client.Client("1", session=self._session)


class _Counter:
    """Requests and bytes of an HTTP session."""

    def __init__(self) -> None:
        self._requests = 0
        self._bytes = 0

    def watch(self, session: typing.Any) -> None:
        """Count what a keystoneauth session sends from now on."""
        session.session.hooks["response"].append(self._count)

    def _count(
        self, response: typing.Any, *_args: typing.Any, **_k: typing.Any
    ) -> None:
        self._requests += 1
        self._bytes += len(response.content)

    def cost(self, seconds: float) -> measure.Cost:
        """What was counted."""
        return measure.Cost(
            seconds=seconds,
            requests={"all": self._requests},
            received_bytes=self._bytes,
        )


_COLUMNS = (
    report.Column("instances", report.COUNT),
    report.Column("what"),
    report.Column("requests", report.COUNT),
    report.Column("MB", report.MEGABYTES),
    report.Column("seconds", report.SECONDS),
    report.Column("requests ratio", report.RATIO),
    report.Column("seconds ratio", report.RATIO),
)


def run(out: report.Report, sizes: typing.Sequence[int], rounds: int) -> None:
    """The benchmark ``telemetry``."""
    out.title("telemetry: usage and steal of all instances from Gnocchi")
    watcher_conf.CONF([], project="watcher", default_config_files=[])
    logging.getLogger("watcher").setLevel(logging.CRITICAL)
    rows: list[tuple[report.Cell, ...]] = []
    with surroundings.Surroundings() as around:
        out.progress("starting Gnocchi")
        around.gnocchi.start()
        for size in sizes:
            cluster = declare(size)
            out.progress(f"writing the counters of {size} instances")
            fill(around.gnocchi, cluster)
            readers = Readers(around, cluster)
            out.progress(f"reading {size} instances in turns")
            costs = measure.interleaved(
                {PEER: readers.peer, OURS: readers.ours},
                rounds if size <= _ROUNDS_UP_TO else 1,
            )
            out.prove(
                f"both read the same usage of {size} instances",
                readers.differences(),
            )
            rows += _rows(size, costs)
            if size == GOAL_SIZE:
                _judge(out, costs)
            around.gnocchi.forget()
    out.add(
        report.Table(
            "Reading CPU usage and steal of every instance from one Gnocchi",
            _COLUMNS,
            tuple(rows),
            "Ratios: the peer's requests and seconds over ours. Tokens and "
            "version discovery are counted. Ours reads six windows, the peer "
            "takes the newest of them.",
        )
    )


def _rows(
    size: int, costs: typing.Mapping[str, measure.Cost]
) -> list[tuple[report.Cell, ...]]:
    peer = costs[PEER]
    return [
        (
            size,
            name,
            cost.total,
            cost.received_bytes / 1e6,
            cost.seconds,
            *(
                (None, None)
                if name == PEER
                else (
                    peer.total / cost.total,
                    peer.seconds / cost.seconds,
                )
            ),
        )
        for name, cost in costs.items()
    ]


def _judge(
    out: report.Report, costs: typing.Mapping[str, measure.Cost]
) -> None:
    ours, peer = costs[OURS], costs[PEER]
    out.judge(
        f"at least {FEWER_REQUESTS} times fewer requests than the peer at "
        f"{GOAL_SIZE} instances",
        f"{ours.total} instead of {peer.total}",
        ours.total * FEWER_REQUESTS <= peer.total,
    )
    out.judge(
        f"at least {LESS_TIME} times less time than the peer at {GOAL_SIZE} "
        "instances",
        f"{ours.seconds:.2f} s instead of {peer.seconds:.2f} s",
        ours.seconds * LESS_TIME <= peer.seconds,
    )
