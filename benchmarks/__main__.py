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

"""Command line of the benchmarks: ``python -m benchmarks [NAME ...]``."""

import argparse
import importlib.metadata
import os
import pathlib
import platform
import sys

from benchmarks import assembly
from benchmarks import collector
from benchmarks import kernel
from benchmarks import measure
from benchmarks import planner
from benchmarks import report
from benchmarks import snapshot
from benchmarks import starvation
from benchmarks import telemetry

NAMES = (
    "snapshot",
    "collector",
    "assembly",
    "planner",
    "kernel",
    "starvation",
    "telemetry",
)
SIZES = (100, 300, 1000)
_PACKAGES = (
    "watcher-cputier",
    "openstack-placement",
    "nova",
    "python-watcher",
)


def main() -> int:
    """Run; the exit status is 1 if results contradict each other."""
    options = _parse()
    out = report.Report()
    machine = _machine()
    for key, text in machine.items():
        out.progress(f"{key}: {text}")
    for name in options.names or NAMES:
        if name == "snapshot":
            snapshot.run(out, options.sizes, options.rounds)
        elif name == "collector":
            collector.run(out, options.cloud_hosts, options.rounds)
        elif name == "assembly":
            assembly.run(out, options.hosts, options.per_host, options.sizes)
        elif name == "planner":
            planner.run(out, options.plan_sizes)
        elif name == "kernel":
            kernel.run(out, options.rounds)
        elif name == "telemetry":
            telemetry.run(out, options.instances, options.rounds)
        else:
            starvation.run(
                out, options.hosts, options.per_host, options.rounds
            )
    if options.output:
        out.write(options.output, machine)
    return 1 if out.wrong else 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the plugin against its peers, in one run.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"which to run: {', '.join(NAMES)}; all if none is named",
    )
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=SIZES,
        help="hosts in Placement, and hosts to plan for (100,300,1000)",
    )
    parser.add_argument(
        "--rounds",
        type=_positive,
        default=measure.ROUNDS,
        help="how often each contender runs, the median counts; windows "
        "that the kernel's shares are measured in",
    )
    parser.add_argument(
        "--cloud-hosts",
        type=_positive,
        default=collector.HOSTS,
        help="hosts of the cloud that Watcher's collector reads",
    )
    parser.add_argument(
        "--hosts",
        type=_positive,
        default=assembly.HOSTS,
        help="hosts of the recorded answers, and hosts to look for the "
        "starved on",
    )
    parser.add_argument(
        "--per-host",
        type=_positive,
        default=assembly.PER_HOST,
        help="instances on each of them",
    )
    parser.add_argument(
        "--instances",
        type=_sizes,
        default=telemetry.SIZES,
        help="instances whose telemetry is read; the peer needs minutes for "
        "10000",
    )
    parser.add_argument(
        "--plan-sizes",
        type=_sizes,
        default=planner.FULL,
        help="hosts of the clouds that the planners compete on",
    )
    parser.add_argument(
        "--quick",
        dest="plan_sizes",
        action="store_const",
        const=planner.QUICK,
        help="let the planners compete on small clouds only, a minute or two",
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="write results.json and results.md there",
    )
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in NAMES]
    if unknown:
        parser.error(
            f"no benchmark is named {', '.join(unknown)}; there are "
            f"{', '.join(NAMES)}"
        )
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _machine() -> dict[str, str]:
    """What the numbers depend on."""
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{name} (not installed)")
    return {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}",
        "packages": ", ".join(versions),
    }


if __name__ == "__main__":
    sys.exit(main())
