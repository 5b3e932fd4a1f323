#!/usr/bin/env python3
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

"""Load a guest and measure what it gets: CPU, steal, throughput, latency.

Copy this file into an instance and run it there; it needs Python 3.8 on Linux
and nothing else::

    $ python3 tier_load.py --floor 0.506 --windows 3
    2 vCPUs, each wants 100 %; windows of 60 s, a unit of work takes 0.98 ms
    time      used steal speed  units/s  p50 ms  p99 ms deficit
    12:00:00 0.507 0.493 0.507   1034.9    0.99   12.41  -0.001 served

Every vCPU has a process of its own that wants ``--demand`` of it: at 1 it
works all the time, below in bursts that come at their own times, whether the
last one is done or not.

used, steal
    share of the time, per vCPU, as the guest's kernel counts it in /proc/stat;
    what else runs in the guest is used, too
speed
    used / (used + steal): of the processor that the guest seems to have
units/s, p50, p99
    units of work done, by all vCPUs together, and how long they took: since
    they came or, where there is no pause, since the one before
deficit
    floor x (used + steal) - used, where ``--floor`` is the speed per vCPU
    that the tier was sold with. Above max(0.02, 0.1 x floor) it is starved.

The exit status is 1 if the guest is starved in every window.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
import json
import multiprocessing
import os
import pathlib
import sys
import time
from typing import Any

UNIT_ROUNDS = 80000
CALIBRATIONS = 30
# Work that waits for longer is given up.
BACKLOG_SECONDS = 1.0
# A process that is this late has been lost.
LATE_SECONDS = 120.0
# Columns of /proc/stat; guests of this guest are among user and nice.
IDLE = (3, 4)
STEAL = 7
COLUMNS = 8


def main() -> int:
    """Run the load and print a line for each window."""
    options = _parse()
    cpus = sorted(os.sched_getaffinity(0))[: options.vcpus]
    unit_seconds = calibrate()
    print(
        f"{len(cpus)} vCPUs, each wants {options.demand:.0%}; windows of "
        f"{options.window:g} s, a unit of work takes "
        f"{unit_seconds * 1000:.2f} ms"
    )
    print("time      used steal speed  units/s  p50 ms  p99 ms deficit")
    found = []
    for window in measure(options, cpus, unit_seconds):
        found.append(window)
        print(line(window), flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if all(window["starved"] for window in found) else 0


def calibrate() -> float:
    """CPU seconds of a unit of work, if nothing disturbs it."""
    times = []
    for _ in range(CALIBRATIONS):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def work() -> None:
    """One unit."""
    for _ in range(UNIT_ROUNDS):
        pass


def measure(
    options: argparse.Namespace, cpus: Sequence[int], unit_seconds: float
) -> Iterator[dict[str, Any]]:
    """Load some CPUs; what was seen in each window, one after the other."""
    began = time.monotonic() + 1.0
    ends = [
        began + options.window * (number + 1)
        for number in range(options.windows)
    ]
    context = multiprocessing.get_context("fork")
    pipes: list[Any] = []
    workers: list[Any] = []
    try:
        for number, cpu in enumerate(cpus):
            ours, theirs = context.Pipe(duplex=False)
            # Bursts of all vCPUs at once would be a load of another kind.
            phase = options.period * number / len(cpus)
            worker = context.Process(
                target=_load,
                args=(theirs, cpu, began, phase, ends, unit_seconds, options),
                daemon=True,
            )
            worker.start()
            theirs.close()
            pipes.append(ours)
            workers.append(worker)
        _sleep_until(began)
        before = ticks(pathlib.Path("/proc/stat").read_text(), cpus)
        for end in ends:
            _sleep_until(end)
            after = ticks(pathlib.Path("/proc/stat").read_text(), cpus)
            reports = [_received(pipe) for pipe in pipes]
            yield summary(before, after, reports, options)
            before = after
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def ticks(text: str, cpus: Sequence[int]) -> tuple[int, int, int]:
    """(used, stolen, all) ticks of some CPUs, from the text of /proc/stat."""
    names = {f"cpu{cpu}" for cpu in cpus}
    used = stolen = total = 0
    for row in text.splitlines():
        name, *rest = row.split()
        if name not in names:
            continue
        counts = [int(count) for count in rest[:COLUMNS]]
        total += sum(counts)
        stolen += counts[STEAL]
        used += sum(counts) - counts[STEAL] - sum(counts[i] for i in IDLE)
    return used, stolen, total


def summary(
    before: tuple[int, int, int],
    after: tuple[int, int, int],
    reports: Sequence[Sequence[float]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What was seen in a window.

    :param before: and after, of :func:`ticks`
    :param reports: of each worker, how long its units took, in seconds
    """
    total = max(1, after[2] - before[2])
    used = (after[0] - before[0]) / total
    stolen = (after[1] - before[1]) / total
    wanted = used + stolen
    took = sorted(seconds for report in reports for seconds in report)
    deficit = starved = None
    if options.floor is not None:
        deficit = options.floor * wanted - used
        starved = deficit > max(0.02, 0.1 * options.floor)
    return {
        "time": time.strftime("%H:%M:%S"),
        "used": used,
        "steal": stolen,
        "speed": used / wanted if wanted else None,
        "units_per_second": len(took) / options.window,
        "p50_seconds": _percentile(took, 50),
        "p99_seconds": _percentile(took, 99),
        "deficit": deficit,
        "starved": starved,
    }


def line(window: dict[str, Any]) -> str:
    """A window as a row of the table."""
    cells = [
        window["time"],
        _cell(window["used"], "5.3f"),
        _cell(window["steal"], "5.3f"),
        _cell(window["speed"], "5.3f"),
        _cell(window["units_per_second"], "8.1f"),
        _cell(window["p50_seconds"], "7.2f", 1000),
        _cell(window["p99_seconds"], "7.2f", 1000),
    ]
    if window["starved"] is not None:
        cells.append(_cell(window["deficit"], "7.3f"))
        cells.append("STARVED" if window["starved"] else "served")
    return " ".join(cells)


def _cell(number: float | None, layout: str, factor: int = 1) -> str:
    if number is None:
        return "-".rjust(int(layout.split(".", maxsplit=1)[0]))
    return format(number * factor, layout)


def _percentile(ordered: Sequence[float], percent: int) -> float | None:
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


def _load(
    pipe: Any,
    cpu: int,
    began: float,
    phase: float,
    ends: Sequence[float],
    unit_seconds: float,
    options: argparse.Namespace,
) -> None:
    """Work on one CPU until the last window ends."""
    os.sched_setaffinity(0, {cpu})
    burst = max(1, round(options.demand * options.period / unit_seconds))
    pause = burst * unit_seconds / options.demand
    always = options.demand >= 1
    _sleep_until(began)
    came = began + phase
    for end in ends:
        took = []
        now = time.monotonic()
        while now < end:
            if not always and came > now:
                _sleep_until(min(came, end))
                now = time.monotonic()
                continue
            started = now if always else max(came, now - BACKLOG_SECONDS)
            for _ in range(1 if always else burst):
                work()
                now = time.monotonic()
                took.append(now - started)
                if always:
                    started = now
            came = started + pause
        pipe.send(took)


def _sleep_until(moment: float) -> None:
    while True:
        left = moment - time.monotonic()
        if left <= 0:
            return
        time.sleep(left)


def _received(pipe: Any) -> list[float]:
    if not pipe.poll(LATE_SECONDS):
        sys.exit("tier_load: a process did not report")
    took: list[float] = pipe.recv()
    return took


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Load this guest and measure what it gets.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--vcpus", type=_count, help="how many to load; all if not given"
    )
    parser.add_argument(
        "--demand",
        type=_share,
        default=1.0,
        help="of each vCPU, over 0 and up to 1",
    )
    parser.add_argument(
        "--period",
        type=_seconds,
        default=0.1,
        help="about how far apart bursts are, in seconds; below 1 only",
    )
    parser.add_argument(
        "--window",
        type=_seconds,
        default=60.0,
        help="seconds that a line stands for",
    )
    parser.add_argument(
        "--windows", type=_count, default=3, help="how many lines"
    )
    parser.add_argument(
        "--floor",
        type=_share,
        help="speed that a vCPU of this tier was sold with, up to 1",
    )
    parser.add_argument(
        "--json", type=pathlib.Path, metavar="FILE", help="also write it here"
    )
    return parser.parse_args()


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text} is not over 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not over 0 and up to 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
