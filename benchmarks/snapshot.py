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

"""One snapshot of Placement: bulk answers against reads per provider.

A real Placement, hosts made through its API. Ours is ``Placement.get_survey``
with all hosts wanted; the peers read inventories, usages, traits and
aggregates of each provider, one by one and with a pool. All go through the
same kind of client, with keep-alive and the same token, and are counted in
the same place; Placement's own ledger must agree with the count. Both must
find the same capacities, used units and traits, or the run fails.
"""

from collections.abc import Callable, Iterable
import concurrent.futures
import dataclasses
from typing import Any

from benchmarks import farm as farming
from benchmarks import measure
from benchmarks import report
from tests import cloud as embedded
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import service

POOL = 8
SHEDDING = 10
# One host in so many is full.
FULL_EVERY = 20
REQUESTS_GOAL = 50
SECONDS_GOAL = 20
GOAL_SIZE = 1000
OURS = "get_survey"
SERIAL = "per provider"
POOLED = f"per provider, pool of {POOL}"


@dataclasses.dataclass(frozen=True, slots=True)
class View:
    """What all ways of reading tell of a provider."""

    capacity: dict[str, int]
    used: dict[str, int]
    traits: frozenset[str]


Picture = dict[str, View]


class Readers:
    """Ours and the peers, on one Placement."""

    def __init__(
        self, cloud: embedded.EmbeddedCloud, farm: farming.Farm
    ) -> None:
        self._cloud = cloud
        self._farm = farm
        self.survey: placement.Providers | None = None
        self.pictures: dict[str, Picture] = {}
        # Token, version discovery and the first connection are nobody's.
        self._service().get("/resource_providers", {"name": "none"})

    def ours(self) -> measure.Cost:
        """One survey of all hosts."""
        reader = placement.Placement(self._cloud.placement)
        roots = [host.uuid for host in self._farm.hosts]

        def read() -> Picture:
            self.survey = reader.get_survey(roots, farming.TIERS)
            return _picture(self.survey)

        return self._run(OURS, reader.service, read)

    def serial(self) -> measure.Cost:
        """Reads per provider, one after the other."""
        asked = self._service()
        return self._run(
            SERIAL,
            asked,
            lambda: dict(_per_provider(asked, uuid) for uuid in _list(asked)),
        )

    def pooled(self) -> measure.Cost:
        """Reads per provider, some at a time."""
        asked = self._service()

        def read() -> Picture:
            with concurrent.futures.ThreadPoolExecutor(POOL) as pool:
                return dict(
                    pool.map(
                        lambda uuid: _per_provider(asked, uuid), _list(asked)
                    )
                )

        return self._run(POOLED, asked, read)

    def details(self) -> measure.Cost:
        """What judging some hosts costs on top of a survey."""
        reader = placement.Placement(self._cloud.placement)
        roots = [host.uuid for host in self._farm.hosts[:SHEDDING]]
        known = self.survey
        assert known is not None

        def read() -> Picture:
            return _picture(reader.get_details(known, roots))

        return self._run("get_details", reader.service, read)

    def compare(self, one: str, other: str) -> list[str]:
        """Where two pictures differ."""
        return _differences(self.pictures[one], self.pictures[other])

    def _service(self) -> service.Service:
        return service.Service(
            self._cloud.placement, "Placement", placement.MICROVERSION, {}
        )

    def _run(
        self,
        name: str,
        asked: service.Service,
        read: Callable[[], Picture],
    ) -> measure.Cost:
        mark = self._cloud.mark()
        with measure.Stopwatch() as watch:
            self.pictures[name] = read()
        seen = self._cloud.requests("placement", since=mark)
        if len(seen) != asked.tally.requests:
            raise RuntimeError(
                f"{name}: Placement saw {len(seen)} requests, the client "
                f"counts {asked.tally.requests}"
            )
        return measure.Cost(
            seconds=watch.seconds,
            requests={"Placement": len(seen)},
            received_bytes=asked.tally.received_bytes,
        )


def _list(asked: service.Service) -> list[str]:
    listed = asked.get("/resource_providers")["resource_providers"]
    return [item["uuid"] for item in listed]


def _per_provider(asked: service.Service, uuid: str) -> tuple[str, View]:
    def of(kind: str) -> Any:
        return asked.get(f"/resource_providers/{uuid}/{kind}")[kind]

    inventories, usages = of("inventories"), of("usages")
    traits = of("traits")
    of("aggregates")
    return uuid, View(
        capacity={
            name: int(
                (record["total"] - record["reserved"])
                * record["allocation_ratio"]
            )
            for name, record in inventories.items()
        },
        used={name: units for name, units in usages.items() if units},
        traits=frozenset(traits),
    )


def _picture(providers: placement.Providers) -> Picture:
    return {
        provider.uuid: View(
            capacity={
                name: inventory.capacity
                for name, inventory in provider.inventories.items()
            },
            used={n: u for n, u in provider.allocated.items() if u},
            traits=provider.traits,
        )
        for provider in providers.providers
    }


def _differences(ours: Picture, peers: Picture) -> list[str]:
    return [
        f"{uuid}: {ours.get(uuid)} is not {peers.get(uuid)}"
        for uuid in sorted({*ours, *peers})
        if ours.get(uuid) != peers.get(uuid)
    ]


Row = tuple[report.Cell, ...]

_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("providers", report.COUNT),
    report.Column("how"),
    report.Column("requests", report.COUNT),
    report.Column("seconds", report.SECONDS),
    report.Column("MB", report.MEGABYTES),
    report.Column("requests ratio", report.RATIO),
    report.Column("seconds ratio", report.RATIO),
)
_FULL_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("full", report.COUNT),
    report.Column("of"),
    report.Column("read one by one", report.COUNT),
    report.Column("requests", report.COUNT),
    report.Column("seconds", report.SECONDS),
    report.Column("requests ratio", report.RATIO),
    report.Column("seconds ratio", report.RATIO),
)
_DETAIL_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("shedding", report.COUNT),
    report.Column("requests", report.COUNT),
    report.Column("seconds", report.SECONDS),
    report.Column("MB", report.MEGABYTES),
)


class Benchmark:
    """All sizes, one after the other, on one Placement that grows."""

    def __init__(
        self, out: report.Report, sizes: Iterable[int], rounds: int
    ) -> None:
        self._out = out
        self._sizes = sorted(set(sizes))
        self._rounds = rounds
        self._rows: list[Row] = []
        self._full: list[Row] = []
        self._details: list[Row] = []
        self._ours: dict[int, measure.Cost] = {}
        self._serial: dict[int, measure.Cost] = {}
        # {classes: {hosts: requests}}
        self._full_requests: dict[str, dict[int, int]] = {}
        self._unequal: list[str] = []

    def run(self) -> None:
        """Measure, show and judge."""
        cloud = embedded.EmbeddedCloud(
            embedded.CloudSpec(),
            with_watcher=False,
            progress=self._out.progress,
        )
        with cloud:
            farm = farming.Farm(cloud.placement)
            readers = Readers(cloud, farm)
            for size in self._sizes:
                self._out.progress(f"making {size} hosts in Placement")
                farm.grow(size)
                self._out.progress(f"reading {size} hosts")
                self._measure(farm, readers)
        self._show()

    def _measure(self, farm: farming.Farm, readers: Readers) -> None:
        size = len(farm.hosts)
        costs = measure.interleaved(
            {
                OURS: readers.ours,
                SERIAL: readers.serial,
                POOLED: readers.pooled,
            },
            self._rounds,
        )
        ours = costs[OURS]
        self._ours[size], self._serial[size] = ours, costs[SERIAL]
        for name, cost in costs.items():
            self._rows.append(
                (
                    size,
                    farm.providers,
                    name,
                    cost.total,
                    cost.seconds,
                    cost.received_bytes / 1e6,
                    *(
                        (None, None)
                        if name == OURS
                        else (
                            cost.total / ours.total,
                            cost.seconds / ours.seconds,
                        )
                    ),
                )
            )
            self._unequal += readers.compare(OURS, name)
        details = measure.interleaved(
            {"get_details": readers.details}, self._rounds
        )["get_details"]
        self._unequal += readers.compare("get_details", SERIAL)
        self._details.append(
            (
                size,
                min(SHEDDING, size),
                details.total,
                details.seconds,
                details.received_bytes / 1e6,
            )
        )
        for classes in (("MEMORY_MB",), ("MEMORY_MB", "VCPU", "DISK_GB")):
            self._measure_full(farm, readers, classes)

    def _measure_full(
        self,
        farm: farming.Farm,
        readers: Readers,
        classes: tuple[str, ...],
    ) -> None:
        full = farm.hosts[::FULL_EVERY]
        fillers = farm.fill(full, classes)
        size = len(farm.hosts)
        ours = measure.interleaved({OURS: readers.ours}, self._rounds)[OURS]
        assert readers.survey is not None
        readers.pooled()
        self._unequal += readers.compare(OURS, POOLED)
        farm.release(fillers)
        peer = self._serial[size]
        named = ", ".join(classes)
        self._full_requests.setdefault(named, {})[size] = ours.total
        self._full.append(
            (
                size,
                len(full),
                named,
                readers.survey.left_out,
                ours.total,
                ours.seconds,
                peer.total / ours.total,
                peer.seconds / ours.seconds,
            )
        )

    def _show(self) -> None:
        self._out.add(
            report.Table(
                "Reading all hosts from Placement",
                _COLUMNS,
                tuple(self._rows),
                "Ratios: the peer's requests and seconds over ours. The "
                "peers also learn totals, unit rules and aggregates, which "
                "ours reads for the hosts that a decision turns on.",
            )
        )
        self._out.add(
            report.Table(
                "Full hosts, which bulk answers leave out",
                _FULL_COLUMNS,
                tuple(self._full),
                "Ratios: reads per provider, one by one, over ours.",
            )
        )
        self._out.add(
            report.Table(
                "Totals, unit rules and allocations of shedding hosts",
                _DETAIL_COLUMNS,
                tuple(self._details),
            )
        )
        self._out.prove(
            "all ways of reading found the same capacities, used units and "
            "traits",
            self._unequal,
        )
        self._judge()

    def _judge(self) -> None:
        size = self._sizes[-1]
        if size >= GOAL_SIZE:
            self._judge_ratios(size)
        self._judge_growth(
            "the number of requests does not grow with the hosts",
            {size: cost.total for size, cost in self._ours.items()},
        )
        for classes, counts in self._full_requests.items():
            self._judge_growth(
                f"nor where one of {FULL_EVERY} hosts is full of {classes}",
                counts,
            )

    def _judge_ratios(self, size: int) -> None:
        ours, peer = self._ours[size], self._serial[size]
        requests = peer.total / ours.total
        seconds = peer.seconds / ours.seconds
        self._out.judge(
            f"at least {REQUESTS_GOAL} times fewer requests than per "
            f"provider at {size:,} hosts",
            f"{requests:,.0f} times",
            requests >= REQUESTS_GOAL,
        )
        self._out.judge(
            f"at least {SECONDS_GOAL} times less wall time than per "
            f"provider at {size:,} hosts",
            f"{seconds:,.1f} times",
            seconds >= SECONDS_GOAL,
        )

    def _judge_growth(self, text: str, counts: dict[int, int]) -> None:
        if len(counts) < 2:
            return
        self._out.judge(
            text,
            ", ".join(f"{n:,} for {size:,}" for size, n in counts.items()),
            len(set(counts.values())) == 1,
        )


def run(out: report.Report, sizes: Iterable[int], rounds: int) -> None:
    """The benchmark ``snapshot``."""
    out.title("snapshot: all hosts from Placement")
    Benchmark(out, sizes, rounds).run()
