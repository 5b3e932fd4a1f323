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

"""Entitlement and starvation in a large cloud, against one at a time.

The cloud is made up: hosts of 64 CPUs that sell each tier once, one in ten
sold more, with instances of one to sixteen vCPUs, one flavor in eight of which
sets plain shares. What each vCPU wants is drawn; what it gets is what the
weights give. One reading in a hundred is missing.

Ours is :func:`watcher_cputier.starvation.judge`, causes and remedies of all
starved instances included. The peer is the scalar oracle of the tests
(``tests/entitlements.py``), which gives verdicts without reasons. Both fill
all hosts once more, as a prediction does.

The memory of each is that of a process of its own: ``python -m
benchmarks.starvation CONTENDER HOSTS PER_HOST`` prints it as JSON.
"""

from collections.abc import Callable, Iterator
import gc
import json
import math
import pathlib
import random
import re
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks import report
from tests import entitlements
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation

OURS = "cputier"
PEER = "one by one"
SECONDS_GOAL = 10
MEGABYTES_GOAL = 1000
SMALL = 1000
_CPUS = 64
_SIZES = (1, 1, 2, 2, 4, 4, 8, 16)
_WINDOWS = 3
_SEED = 7
_ROOT = pathlib.Path(__file__).resolve().parents[1]

_TIERS = tuple(
    model.Tier(
        name=name,
        resource_class=model.default_class(name),
        cpu_shares=shares,
        multiplier=multiplier,
        rank=rank,
    )
    for rank, (name, (shares, multiplier)) in enumerate(
        model.BUILT_IN_TIERS.items(), 1
    )
)
_RULE = model.SharesRule()


def make(hosts: int, per_host: int) -> model.Cluster:
    """The same cloud in every run."""
    chance = random.Random(_SEED)
    flavors = list(_flavors())
    places = []
    people: list[model.Instance] = []
    held: dict[tuple[str, str], int] = {}
    told: dict[str, tuple[model.Reading | None, ...]] = {}
    for number in range(hosts):
        place = _host(number)
        places.append(place)
        here = []
        for _ in range(per_host):
            tier, flavor = chance.choice(flavors)
            # uuids in the order of names, as a cluster has its instances
            name = f"instance-{len(people):07d}"
            one = model.Instance(
                uuid=name,
                name=name,
                host=place.name,
                flavor=flavor,
                tier=tier,
                units=flavor.vcpus,
            )
            key = place.name, tier
            held[key] = held.get(key, 0) + flavor.vcpus
            here.append(one)
            people.append(one)
        told.update(_loads(chance, here))
    return model.Cluster(
        tiers=_TIERS,
        hosts=tuple(places),
        instances=tuple(people),
        held=model.frozen_map(held),
        tier_classes=frozenset(tier.resource_class for tier in _TIERS),
        telemetry=model.Telemetry(
            source="made up",
            window_seconds=300,
            windows=tuple(range(0, 300 * _WINDOWS, 300)),
            readings=model.frozen_map(told),
        ),
    )


def _flavors() -> Iterator[tuple[str, model.Flavor]]:
    for tier in _TIERS:
        for number, vcpus in enumerate(_SIZES):
            shares = tier.cpu_shares * (1 if number == 5 else vcpus)
            flavor = model.Flavor.of(
                name=f"{tier.name}.{number}",
                vcpus=vcpus,
                memory_mb=2048 * vcpus,
                disk_gb=10,
                extra_specs={
                    f"resources:{tier.resource_class}": str(vcpus),
                    "quota:cpu_shares": str(shares),
                },
            )
            yield tier.name, flavor


def _host(number: int) -> model.Host:
    name = f"host-{number:05d}"
    sold = _CPUS * 6 // 10 if number % 10 == 0 else _CPUS
    amounts = {"VCPU": _CPUS, **{t.resource_class: sold for t in _TIERS}}
    root = model.Provider(
        uuid=name,
        name=name,
        root_uuid=name,
        inventories=model.frozen_map(
            {key: model.Inventory(total=n) for key, n in amounts.items()}
        ),
    )
    return model.Host(uuid=name, name=name, node_name=name, providers=(root,))


def _loads(
    chance: random.Random, here: list[model.Instance]
) -> Iterator[tuple[str, tuple[model.Reading | None, ...]]]:
    wanted = [i.flavor.vcpus * chance.betavariate(2, 1) for i in here]
    weights = [entitlement.weight(i.flavor, _RULE) for i in here]
    given = entitlements.fill(weights, wanted, _CPUS, float)
    for one, demand, usage in zip(here, wanted, given, strict=True):
        yield (
            one.uuid,
            tuple(
                None
                if chance.random() < 0.01
                else model.Reading(
                    usage_cpus=usage * chance.uniform(0.98, 1.0),
                    steal_cpus=demand - usage,
                )
                for _ in range(_WINDOWS)
            ),
        )


class Contest:
    """Both contenders on one cloud, in one process."""

    def __init__(self, hosts: int, per_host: int) -> None:
        self.cluster = make(hosts, per_host)
        self._params = parameters.Parameters.of({"windows": _WINDOWS})
        self._diagnosis = diagnosing.diagnose(self.cluster, self._params)
        # What a cluster computes once is no contender's cost.
        _ = self.cluster.instances_by_host
        self.found = starvation.Starvation()
        self.verdicts: dict[str, str] = {}
        self.filled: dict[str, list[float]] = {}

    def judge(self, who: str) -> measure.Cost:
        """Verdicts on everybody."""
        gc.collect()
        with measure.Stopwatch() as watch:
            if who == OURS:
                self.found = starvation.judge(
                    self.cluster, self._diagnosis, self._params
                )
            else:
                self.verdicts = entitlements.verdicts(self.cluster, _WINDOWS)
        return measure.Cost(seconds=watch.seconds, requests={})

    def fill(self, who: str) -> measure.Cost:
        """Shares of everybody, from the same weights and caps."""
        assert self.found.sight is not None
        loads = self.found.sight.loads
        caps = np.minimum(loads.demands, loads.limits)
        cpus = loads.usable_cpus
        plain = [
            (loads.weights[rows].tolist(), caps[rows].tolist(), float(usable))
            for rows, usable in zip(loads.rows_by_host, cpus, strict=True)
        ]
        gc.collect()
        with measure.Stopwatch() as watch:
            if who == OURS:
                shares = entitlement.fill(
                    loads.weights, caps, loads.host, cpus
                ).tolist()
            else:
                shares = []
                for row in plain:
                    shares += entitlements.fill(*row, float)
        self.filled[who] = shares
        return measure.Cost(seconds=watch.seconds, requests={})

    def predict(self, who: str) -> measure.Cost:
        """Forecasts of all hosts; the peer has none."""
        assert who == OURS
        populations = [
            starvation.Population(host=host.name)
            for host in self.cluster.hosts
        ]
        with measure.Stopwatch() as watch:
            self.found.predict(populations)
        return measure.Cost(seconds=watch.seconds, requests={})

    def differences(self) -> list[str]:
        """Where the two do not agree."""
        names = starvation.VERDICTS[5:]
        wrong = [
            f"{uuid}: {verdict}, not {self.verdicts[uuid]}"
            for uuid, verdict in self.found.verdicts.items()
            if ("starved" if verdict in names else verdict)
            != self.verdicts[uuid]
        ]
        worst = max(
            map(
                lambda a, b: abs(a - b),
                self.filled[OURS],
                self.filled[PEER],
            )
        )
        if not worst < 1e-9:
            wrong.append(f"shares differ by {worst}")
        return wrong


def run(out: report.Report, hosts: int, per_host: int, rounds: int) -> None:
    """The benchmark ``starvation``."""
    out.title(f"starvation: {hosts:,} hosts, {hosts * per_host:,} instances")
    rows: list[tuple[report.Cell, ...]] = []
    wrong: list[str] = []
    seconds = megabytes = math.nan
    for size in sorted({min(SMALL, hosts), hosts}):
        out.progress(f"{size:,} hosts, judged {rounds} times by each")
        contest = Contest(size, per_host)
        judged = measure.interleaved(
            {who: _of(contest.judge, who) for who in (OURS, PEER)}, rounds
        )
        filled = measure.interleaved(
            {who: _of(contest.fill, who) for who in (OURS, PEER)}, rounds
        )
        forecast = measure.interleaved(
            {OURS: _of(contest.predict, OURS)}, rounds
        )
        wrong += contest.differences()
        for who in (OURS, PEER):
            memory = _child(who, size, per_host)
            rows.append(
                (
                    size,
                    who,
                    judged[who].seconds,
                    filled[who].seconds,
                    forecast[who].seconds if who in forecast else None,
                    len(contest.found.starved) if who == OURS else None,
                    memory["cloud_mb"],
                    memory["peak_mb"] - memory["cloud_mb"],
                )
            )
            if who == OURS:
                seconds = judged[who].seconds
                megabytes = memory["peak_mb"] - memory["cloud_mb"]
    out.add(
        report.Table(
            f"Verdicts on all instances, {per_host} on each host, "
            f"{_WINDOWS} windows",
            _COLUMNS,
            tuple(rows),
            "judge: from the snapshot to verdicts, ours with the causes and "
            "remedies of all starved; fill: entitlements of all, from equal "
            "numbers; predict: forecasts of all hosts; cloud MB: the process "
            "with the snapshot; more MB: what judging added at its peak.",
        )
    )
    out.prove("both give the same verdicts and shares", wrong)
    out.judge(
        f"judged within {SECONDS_GOAL} s and {MEGABYTES_GOAL:,} MB",
        f"{seconds:,.1f} s, {megabytes:,.0f} MB",
        seconds <= SECONDS_GOAL and megabytes <= MEGABYTES_GOAL,
    )


_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("contender"),
    report.Column("judge s", report.SECONDS),
    report.Column("fill s", report.SECONDS),
    report.Column("predict s", report.SECONDS),
    report.Column("starved", report.COUNT),
    report.Column("cloud MB", report.WHOLE),
    report.Column("more MB", report.WHOLE),
)


def _of(
    action: Callable[[str], measure.Cost], who: str
) -> Callable[[], measure.Cost]:
    return lambda: action(who)


def _child(who: str, hosts: int, per_host: int) -> dict[str, Any]:
    """The memory of one contender, in a process of its own."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.starvation",
            who,
            str(hosts),
            str(per_host),
        ],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    made: dict[str, Any] = json.loads(finished.stdout)
    return made


def _megabytes(which: str) -> float:
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    found = re.search(rf"^{which}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def main(arguments: list[str]) -> None:
    """Judge once and print the memory that it took."""
    who, hosts, per_host = arguments
    contest = Contest(int(hosts), int(per_host))
    # Forget the peak of making the cloud.
    gc.collect()
    pathlib.Path("/proc/self/clear_refs").write_text("5", "utf-8")
    cloud = _megabytes("VmHWM")
    contest.judge(who)
    print(json.dumps({"cloud_mb": cloud, "peak_mb": _megabytes("VmHWM")}))


if __name__ == "__main__":
    main(sys.argv[1:])
