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

"""A large cloud from recorded answers: seconds and memory, without services.

Every run is a process of its own, for memory once taken is not given back:
``python -m benchmarks.assembly STAGE HOSTS PER_HOST`` prints its steps as
JSON. Making the answers is not counted, parsing them is.
"""

from collections.abc import Callable, Iterable
import json
import pathlib
import re
import subprocess
import sys
from typing import Any, TypeVar

from oslo_config import cfg

from benchmarks import measure
from benchmarks import recorded
from benchmarks import report
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import scenario
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import snapshot

HOSTS = 10_000
PER_HOST = 30
SECONDS_GOAL = 30
MEGABYTES_GOAL = 2000
# Up to here the goal counts: a snapshot is built and dumped.
DUMPED = "dump"
SMALL = 1000
# PyYAML takes minutes and gigabytes for more; JSON does not.
YAML_LOADS = 100_000
_ROOT = pathlib.Path(__file__).resolve().parents[1]

Result = TypeVar("Result")
Made = dict[str, Any]


class Steps:
    """What each step took, and the most memory until its end."""

    def __init__(self) -> None:
        self.rows: list[Made] = []

    def take(
        self,
        name: str,
        action: Callable[[], Result],
        recording: recorded.Recording | None = None,
    ) -> Result:
        """Run a step; the time a recording takes is not its own."""
        before = recording.making_seconds if recording else 0.0
        with measure.Stopwatch() as watch:
            result = action()
        made = recording.making_seconds - before if recording else 0.0
        self.rows.append(
            {
                "step": name,
                "seconds": watch.seconds - made,
                "peak_mb": _peak_megabytes(),
            }
        )
        return result


def _peak_megabytes() -> float:
    """The most memory that this process had so far.

    Not getrusage's: what a process is born with there is its parent's.
    """
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def _catalogue() -> tiers_conf.Catalogue:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[], default_config_dirs=[])
    return tiers_conf.catalogue(conf)


def _scope(cloud: nova.Cloud) -> compute_model.Scope:
    """A scope that leaves everything, as if from Watcher's model."""
    return compute_model.Scope(
        hosts=frozenset(c.uuid for c in cloud.computes),
        instances=model.frozen_map({s.uuid: False for s in cloud.servers}),
    )


def build(
    steps: Steps,
    size: recorded.Cloud,
    details: Callable[[model.Cluster], Iterable[str]] | None = None,
) -> model.Cluster:
    """The way of ``Reader.get_cluster``, on recorded answers."""
    with cloud_source.few_collections():
        return _build(steps, size, details)


def _build(
    steps: Steps,
    size: recorded.Cloud,
    details: Callable[[model.Cluster], Iterable[str]] | None,
) -> model.Cluster:
    of_nova, of_placement = recorded.Nova(size), recorded.Placement(size)
    catalogue = _catalogue()
    cloud = steps.take("read Nova", nova.Nova(of_nova).get_cloud, of_nova)
    scope = _scope(cloud)
    reader = placement.Placement(of_placement)
    providers = steps.take(
        "read Placement",
        lambda: reader.get_survey(c.uuid for c in cloud.computes),
        of_placement,
    )

    def assemble() -> model.Cluster:
        return snapshot.assemble(scope, cloud, providers, catalogue.tiers)

    cluster = steps.take("assemble", assemble)
    doubtful = steps.take(
        "look for doubt", lambda: snapshot.in_doubt(cluster, cloud)
    )
    if doubtful:
        raise RuntimeError(f"{len(doubtful)} hosts are in doubt")
    if details is not None:
        wanted = list(details(cluster))
        providers = steps.take(
            "read details",
            lambda: reader.get_details(providers, wanted),
            of_placement,
        )
        cluster = steps.take("assemble again", assemble)
    return cluster


def _dump(
    size: recorded.Cloud,
    render: Callable[[scenario.Scenario], str],
    loads: bool = True,
) -> Made:
    steps = Steps()
    written = scenario.Scenario(cluster=build(steps, size))
    text = steps.take(DUMPED, lambda: render(written))
    equal = True
    if loads:
        read = steps.take("load", lambda: scenario.loads(text))
        equal = read == written
    return {
        "steps": steps.rows,
        "megabytes": len(text.encode()) / 1e6,
        "equal": equal,
    }


def _plan(size: recorded.Cloud) -> Made:
    steps = Steps()
    params = parameters.Parameters.of({"max_migrations": 0})
    cluster = build(
        steps,
        size,
        lambda seen: diagnosis.hosts_to_detail(seen, params),
    )
    verdict = steps.take(
        "diagnose", lambda: diagnosis.diagnose(cluster, params)
    )
    found = steps.take("plan", lambda: planner.plan(cluster, verdict, params))
    return {
        "steps": steps.rows,
        "excesses": len(verdict.excesses),
        "migrations": len(found.migrations),
        "lower_bound": found.lower_bound,
        "unresolved": len(found.unresolved),
    }


STAGES: dict[str, Callable[[recorded.Cloud], Made]] = {
    "yaml": lambda size: _dump(
        size, scenario.dumps, loads=size.instances <= YAML_LOADS
    ),
    "json": lambda size: _dump(
        size, lambda written: json.dumps(scenario.dump(written))
    ),
    "plan": _plan,
}


def _child(stage: str, hosts: int, per_host: int) -> Made:
    """Run a stage in a process of its own."""
    finished = subprocess.run(
        [
            sys.executable,
            "-m",
            "benchmarks.assembly",
            stage,
            str(hosts),
            str(per_host),
        ],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        check=True,
    )
    made: Made = json.loads(finished.stdout)
    return made


_STEP_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("format"),
    report.Column("step"),
    report.Column("seconds", report.SECONDS),
    report.Column("seconds so far", report.SECONDS),
    report.Column("peak MB so far", report.WHOLE),
    report.Column("file MB", report.MEGABYTES),
)
_PLAN_COLUMNS = (
    report.Column("hosts", report.COUNT),
    report.Column("instances", report.COUNT),
    report.Column("read s", report.SECONDS),
    report.Column("diagnose s", report.SECONDS),
    report.Column("plan s", report.SECONDS),
    report.Column("over", report.COUNT),
    report.Column("moves", report.COUNT),
    report.Column("bound", report.COUNT),
    report.Column("left", report.COUNT),
    report.Column("peak MB", report.WHOLE),
)


class Benchmark:
    """Building and dumping at some sizes, in each format."""

    def __init__(self, out: report.Report, per_host: int) -> None:
        self._out = out
        self._per_host = per_host
        self._rows: list[tuple[report.Cell, ...]] = []
        self._unequal: list[str] = []

    def run(self, sizes: Iterable[int]) -> None:
        """Measure, show and judge; the goal is for the last size."""
        totals = {}
        for hosts in sizes:
            for form in ("yaml", "json"):
                self._out.progress(f"{hosts:,} hosts, built, dumped as {form}")
                totals[form] = self._measure(form, hosts)
        self._out.add(
            report.Table(
                f"Recorded answers, {self._per_host} instances on each host",
                _STEP_COLUMNS,
                tuple(self._rows),
                f"YAML is loaded up to {YAML_LOADS:,} instances.",
            )
        )
        self._out.prove(
            "what was dumped and loaded is what was dumped", self._unequal
        )
        for form, (seconds, megabytes) in totals.items():
            self._out.judge(
                f"built and dumped as {form} within {SECONDS_GOAL} s and "
                f"{MEGABYTES_GOAL:,} MB",
                f"{seconds:,.1f} s, {megabytes:,.0f} MB",
                seconds <= SECONDS_GOAL and megabytes <= MEGABYTES_GOAL,
            )

    def _measure(self, form: str, hosts: int) -> tuple[float, float]:
        """Seconds and peak memory until the dump is made."""
        made = _child(form, hosts, self._per_host)
        if not made["equal"]:
            self._unequal.append(f"{form} of {hosts:,} hosts")
        so_far, total = 0.0, (0.0, 0.0)
        for step in made["steps"]:
            so_far += step["seconds"]
            dumped = step["step"] == DUMPED
            if dumped:
                total = so_far, step["peak_mb"]
            self._rows.append(
                (
                    hosts,
                    form,
                    step["step"],
                    step["seconds"],
                    so_far,
                    step["peak_mb"],
                    made["megabytes"] if dumped else None,
                )
            )
        return total


def run(
    out: report.Report, hosts: int, per_host: int, sizes: Iterable[int]
) -> None:
    """The benchmark ``assembly``."""
    out.title(f"assembly: {hosts:,} hosts, {hosts * per_host:,} instances")
    Benchmark(out, per_host).run(sorted({min(SMALL, hosts), hosts}))
    _run_plans(out, per_host, sorted(set(sizes)))


def _run_plans(
    out: report.Report, per_host: int, sizes: Iterable[int]
) -> None:
    rows: list[tuple[report.Cell, ...]] = []
    for hosts in sizes:
        out.progress(f"diagnosing and planning for {hosts} hosts")
        made = _child("plan", hosts, per_host)
        seconds = {s["step"]: s["seconds"] for s in made["steps"]}
        diagnosed, planned = seconds.pop("diagnose"), seconds.pop("plan")
        rows.append(
            (
                hosts,
                hosts * per_host,
                sum(seconds.values()),
                diagnosed,
                planned,
                made["excesses"],
                made["migrations"],
                made["lower_bound"],
                made["unresolved"],
                made["steps"][-1]["peak_mb"],
            )
        )
    out.add(
        report.Table(
            "Diagnosis and plan, one host of "
            f"{recorded.OVER_EVERY} over its gold quota",
            _PLAN_COLUMNS,
            tuple(rows),
            "read: until the snapshot is assembled, details included; over: "
            "excesses; moves: migrations planned; bound: no plan does with "
            "fewer; left: excesses that no migration removes.",
        )
    )


def main(arguments: list[str]) -> None:
    """Run one stage and print what it took."""
    stage, hosts, per_host = arguments
    size = recorded.Cloud(int(hosts), int(per_host))
    print(json.dumps(STAGES[stage](size)))


if __name__ == "__main__":
    main(sys.argv[1:])
