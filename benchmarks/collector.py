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

"""The whole picture of a cloud: ours against Watcher's own collector.

A cloud of real Nova and Placement with fake hypervisors. The peer is
Watcher's collector for its compute model, run in the decision engine as an
audit would. Ours is ``Reader.get_cluster``, which reads more (allocations in
doubt, nested providers, server groups, aggregates, migrations) and does not
read telemetry either. Requests are counted by the services, those for tokens
and version discovery included; each run of either begins without a token.
"""

import collections
import time
from xml.etree import ElementTree

from oslo_config import cfg

from benchmarks import measure
from benchmarks import report
from tests import cloud as embedded
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import compute_model

HOSTS = 100
SHEDDING = 5
TIERS = ("gold", "silver", "bronze")
QUOTA = 16
UNITS = 2
OURS = "get_cluster"
PEER = "Watcher's collector"
_SERVICES = ("identity", "compute", "placement")
_NOVA_SETTLES_SECONDS = 1.0


def declare(hosts: int) -> embedded.CloudSpec:
    """Hosts with one small instance of each tier."""
    names = [f"host-{number:04d}" for number in range(hosts)]
    return embedded.CloudSpec(
        hosts=tuple(
            embedded.HostSpec(
                name=name,
                vcpus=32,
                cpu_allocation_ratio=4.0,
                inventories={
                    model.default_class(tier): {"total": QUOTA}
                    for tier in TIERS
                },
            )
            for name in names
        ),
        flavors=tuple(
            embedded.FlavorSpec(
                name=f"{tier}.small",
                vcpus=UNITS,
                memory_mb=2048,
                extra_specs={
                    f"resources:{model.default_class(tier)}": str(UNITS)
                },
            )
            for tier in TIERS
        ),
        instances=tuple(
            embedded.InstanceSpec(
                name=f"{tier}-of-{name}", flavor=f"{tier}.small", host=name
            )
            for name in names
            for tier in TIERS
        ),
    )


class Readers:
    """Ours and the peer, on one cloud."""

    def __init__(self, cloud: embedded.EmbeddedCloud) -> None:
        self._cloud = cloud
        self._params = parameters.Parameters.of()
        conf = cfg.ConfigOpts()
        conf([], default_config_files=[], default_config_dirs=[])
        self._catalogue = tiers_conf.catalogue(conf)
        self.cluster: model.Cluster | None = None

    def peer(self) -> measure.Cost:
        """Watcher's collector builds its model."""
        mark = self._cloud.mark()
        with measure.Stopwatch() as watch:
            self._cloud.watcher.synchronize_model()
        return self._cost(mark, watch.seconds)

    def ours(self) -> measure.Cost:
        """All that an audit reads, the scope's model apart."""
        scope = self._scope()
        mark = self._cloud.mark()
        with (
            measure.Stopwatch() as watch,
            self._cloud.connection("watcher") as connected,
        ):
            self.cluster = cloud_source.Reader(connected).get_cluster(
                lambda: scope,
                self._catalogue,
                details=lambda seen: diagnosis.hosts_to_detail(
                    seen, self._params
                ),
            )
        return self._cost(mark, watch.seconds)

    def differences(self) -> list[str]:
        """Where ours has an instance that the peer has elsewhere."""
        assert self.cluster is not None
        ours = {i.uuid: i.host for i in self.cluster.instances}
        peers = {
            instance.attrib["uuid"]: node.attrib["hostname"]
            for node in self._model().iter("ComputeNode")
            for instance in node.iter("Instance")
        }
        return [
            f"{uuid}: {ours.get(uuid)} is not {peers.get(uuid)}"
            for uuid in sorted({*ours, *peers})
            if ours.get(uuid) != peers.get(uuid)
        ]

    def _model(self) -> ElementTree.Element:
        return ElementTree.fromstring(self._cloud.watcher.model())

    def _scope(self) -> compute_model.Scope:
        built = self._model()
        return compute_model.Scope(
            hosts=frozenset(
                node.attrib["uuid"] for node in built.iter("ComputeNode")
            ),
            instances=model.frozen_map(
                {one.attrib["uuid"]: False for one in built.iter("Instance")}
            ),
        )

    def _cost(self, mark: float, seconds: float) -> measure.Cost:
        seen = collections.Counter(
            request.service for request in self._cloud.requests(since=mark)
        )
        return measure.Cost(seconds=seconds, requests=seen)


_COLUMNS = (
    report.Column("what"),
    report.Column("identity", report.COUNT),
    report.Column("Nova", report.COUNT),
    report.Column("Placement", report.COUNT),
    report.Column("requests", report.COUNT),
    report.Column("seconds", report.SECONDS),
    report.Column("requests ratio", report.RATIO),
    report.Column("seconds ratio", report.RATIO),
)


def run(out: report.Report, hosts: int, rounds: int) -> None:
    """The benchmark ``collector``."""
    spec = declare(hosts)
    count = len(spec.instances)
    out.title(f"collector: a cloud of {hosts} hosts and {count} instances")
    with embedded.EmbeddedCloud(spec, progress=out.progress) as cloud:
        readers = Readers(cloud)
        # The peer's first run makes the model that ours takes its scope
        # from; it is none of those that count.
        readers.peer()
        out.progress("reading the cloud in turns")
        costs = measure.interleaved(
            {PEER: readers.peer, OURS: readers.ours}, rounds
        )
        differences = readers.differences()
        for host in spec.hosts[:SHEDDING]:
            for tier in TIERS:
                cloud.set_inventory(
                    host.name, model.default_class(tier), via="api", total=1
                )
        time.sleep(_NOVA_SETTLES_SECONDS)
        shedding = f"{OURS}, {SHEDDING} hosts must shed"
        costs |= measure.interleaved({shedding: readers.ours}, rounds)
        differences += readers.differences()
    _show(out, hosts, count, costs)
    out.prove("both found the same instances on the same hosts", differences)


def _show(
    out: report.Report,
    hosts: int,
    instances: int,
    costs: dict[str, measure.Cost],
) -> None:
    peer = costs[PEER]
    out.add(
        report.Table(
            f"Reading {hosts} hosts and {instances} instances from Nova and "
            "Placement",
            _COLUMNS,
            tuple(
                (
                    name,
                    *(cost.requests.get(kind, 0) for kind in _SERVICES),
                    cost.total,
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
            ),
            "Ratios: the collector's requests and seconds over ours.",
        )
    )
