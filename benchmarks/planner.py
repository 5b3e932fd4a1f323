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

"""The planner against its peers, on the same clouds, in one run.

Every family of :mod:`benchmarks.families` at every size; each cloud in a
process of its own (:mod:`benchmarks.contest`). What is measured is judged
against the goals that this project set itself, missed ones included.

The bound of a cloud is the best valid one that some plan of ours publishes,
or the cover bound where that is better. A gap is told only of plans that leave
as little over quota as the best one here: cheaper plans that leave more are no
better plans.
"""

from collections.abc import Iterable, Sequence
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

from benchmarks import contest
from benchmarks import families
from benchmarks import report

QUICK = (40,)
FULL = (40, 100, 1000, 10_000)
ZERO_SLACK_HOSTS = 60
CAPS = (20, 50)
CAPPED = ("75 %", "93 %", "97 %", "holes 0..3")
TIMED = ("75 %", "93 %", "holes 0..3", "memory 0-8 %")
# Watcher's strategies take seconds to load; these show what there is to see.
PEERED = ("75 %", "93 %", "holes 0..3", "memory 0-8 %")
# Up to so many hosts a contender is asked; some take hours for more.
UP_TO = {
    contest.OURS: 10_000,
    contest.EXACT: 10_000,
    contest.FIRST_FIT: 10_000,
    contest.SMALLEST: 10_000,
    contest.GREEDY: 100,
    contest.SHOWN: 300,
    contest.CONSOLIDATION: 300,
    contest.BALANCE: 300,
    contest.STABILIZATION: 100,
}
OURS = (contest.EXACT, contest.OURS)
SMALL_HOSTS, MIDDLE_HOSTS, LARGE_HOSTS = 100, 1000, 10_000
_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PERCENT = ",.2f"

Found = dict[str, Any]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cloud:
    """What became of one cloud.

    :param marginals: see :func:`benchmarks.contest.marginals`
    :param cap: max_migrations; 0 is no limit
    """

    family: families.Family
    hosts: int
    instances: int
    marginals: Sequence[int]
    contenders: dict[str, Found]
    cap: int = 0

    @property
    def least(self) -> int:
        """The least residual that some contender comes to."""
        return min(
            (f["residual"] for f in self.contenders.values() if ok(f)),
            default=0,
        )

    @property
    def bound(self) -> int:
        """No plan with the least residual does with fewer migrations."""
        known = [
            f["lower_bound"]
            for name in OURS
            if ok(f := self.contenders.get(name, {}))
            and f["residual"] == self.least
        ]
        if not self.least:
            known.append(len(self.marginals))
        return max(known, default=0)

    def gap(self, name: str) -> float | None:
        """Percent above the bound; None where there is none to tell."""
        found = self.contenders.get(name, {})
        if not ok(found) or found["residual"] != self.least:
            return None
        above = found["migrations"] - self.bound
        return 100 * above / self.bound if self.bound else float(above > 0)

    @property
    def most(self) -> int:
        """No plan within the cap relieves more units than this.

        None, that is, that serves higher tiers first.
        """
        first = next(f for f in self.contenders.values() if ok(f))
        kept = self.marginals[: self.cap or None]
        bounds = [
            found["residual_bound"]
            for name in OURS
            if ok(found := self.contenders.get(name, {}))
            and found.get("residual_bound") is not None
        ]
        excess: int = first["excess"]
        reliefs = [
            found["relief_bound"]
            for name in OURS
            if ok(found := self.contenders.get(name, {}))
            and found.get("relief_bound") is not None
        ]
        return min(sum(kept), excess - max(bounds, default=0), *reliefs)


def ok(found: Found) -> bool:
    """Whether a contender came to an end."""
    return bool(found) and "failed" not in found


def _measure(job: str, family: str, hosts: int, *words: object) -> Found:
    finished = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "benchmarks.contest",
            job,
            family,
            str(hosts),
            *map(str, words),
        ],
        cwd=_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    found: Found = json.loads(finished.stdout)
    return found


def _contest(
    family: families.Family,
    hosts: int,
    contenders: Iterable[str],
    cap: int = 0,
) -> Cloud:
    found = _measure(
        "contest", family.name, hosts, cap, contest.LIMIT_SECONDS, *contenders
    )
    return Cloud(family=family, hosts=hosts, cap=cap, **found)


_COLUMNS = (
    report.Column("family"),
    report.Column("contender"),
    report.Column("migrations", report.COUNT),
    report.Column("residual", report.COUNT),
    report.Column("refused", report.COUNT),
    report.Column("bound", report.COUNT),
    report.Column("gap %", _PERCENT),
    report.Column("CPU s", report.SECONDS),
    report.Column("peak MB", report.WHOLE),
)
_CAPPED_COLUMNS = (
    report.Column("family"),
    report.Column("hosts", report.COUNT),
    report.Column("cap", report.COUNT),
    report.Column("contender"),
    report.Column("migrations", report.COUNT),
    report.Column("relieved", report.COUNT),
    report.Column("at most", report.COUNT),
    report.Column("percent", _PERCENT),
)
_TIMED_COLUMNS = (
    report.Column("family"),
    report.Column("hosts", report.COUNT),
    report.Column("parallel", report.COUNT),
    report.Column("migrations", report.COUNT),
    report.Column("depth", report.COUNT),
    report.Column("expected s", report.WHOLE),
    report.Column("its bound s", report.WHOLE),
    report.Column("simulated s", report.WHOLE),
    report.Column("bound s", report.WHOLE),
    report.Column("weight s", report.WHOLE),
    report.Column("weight ratio", report.RATIO),
)
_NOTE = (
    "migrations: attempted, refused ones included; residual: units over "
    "quota after executing them one by one; refused: what the judge does not "
    "let happen; bound: no plan of the least residual does with fewer; CPU s: "
    "of ours diagnosis, plan and order. consolidation, balance and "
    "stabilization are Watcher's vm_workload_consolidation, workload_balance "
    "and workload_stabilization, which cannot see tiers; 'consolidation + "
    "tiers' is the offload phase of the first, each tier's quota told as CPUs."
)


class Benchmark:
    """All clouds at some sizes."""

    def __init__(self, out: report.Report) -> None:
        self._out = out
        self._clouds: list[Cloud] = []
        self._capped: list[Cloud] = []

    def run(self, sizes: Sequence[int]) -> None:
        """Measure, show and judge."""
        for hosts in sizes:
            self._size(hosts)
        self._cap([hosts for hosts in sizes if hosts <= MIDDLE_HOSTS])
        self._time([hosts for hosts in sizes if hosts <= MIDDLE_HOSTS])
        self._prove()
        _Goals(self._out, self._clouds, self._capped).judge()

    def _size(self, hosts: int) -> None:
        rows: list[tuple[report.Cell, ...]] = []
        instances: list[int] = []
        for family in families.FAMILIES:
            size = hosts
            if family.exact and hosts < LARGE_HOSTS:
                size = ZERO_SLACK_HOSTS if hosts <= SMALL_HOSTS else hosts
            if any(
                c.family == family and c.hosts == size for c in self._clouds
            ):
                continue
            self._out.progress(f"{size:,} hosts, {family.name}")
            cloud = _contest(family, size, _contenders(family, size))
            self._clouds.append(cloud)
            instances.append(cloud.instances)
            rows += _rows(cloud)
        self._out.add(
            report.Table(
                f"{hosts:,} hosts, {min(instances):,} to "
                f"{max(instances):,} instances",
                _COLUMNS,
                tuple(rows),
                _NOTE,
            )
        )

    def _cap(self, sizes: Iterable[int]) -> None:
        rows: list[tuple[report.Cell, ...]] = []
        contenders = (
            contest.EXACT,
            contest.OURS,
            contest.FIRST_FIT,
            contest.SMALLEST,
        )
        for hosts in sizes:
            for name in CAPPED:
                for cap in CAPS:
                    self._out.progress(f"{hosts:,} hosts, {name}, cap {cap}")
                    cloud = _contest(
                        families.BY_NAME[name], hosts, contenders, cap
                    )
                    self._capped.append(cloud)
                    rows += _capped_rows(cloud)
        self._out.add(
            report.Table(
                "max_migrations cuts",
                _CAPPED_COLUMNS,
                tuple(rows),
                "at most: no plan with so many migrations that puts higher "
                "tiers first relieves more; of the peers, which work tier by "
                "tier too, the first migrations count.",
            )
        )

    def _time(self, sizes: Iterable[int]) -> None:
        rows: list[tuple[report.Cell, ...]] = []
        for hosts in sizes:
            for name in TIMED:
                self._out.progress(f"{hosts:,} hosts, {name}, in order")
                found = _measure("makespan", name, hosts)
                if not ok(found):
                    self._out.progress(found["failed"])
                    continue
                rows += [
                    _timed_row(name, hosts, int(parallel), one)
                    for parallel, one in found.items()
                ]
                self._judge_order(name, hosts, found)
        self._out.add(
            report.Table(
                "Makespan, one migration out of and one into a host at a time",
                _TIMED_COLUMNS,
                tuple(rows),
                "expected: by the plan, with the bound by the same durations; "
                "simulated: each takes 1.05 to 2 times as long; weight: the "
                "same migrations and durations, two at a time with a barrier.",
            )
        )

    def _judge_order(self, name: str, hosts: int, found: Found) -> None:
        if hosts < SMALL_HOSTS:
            return
        for parallel, goal in (("8", 5), ("16", 8)):
            one = found[parallel]
            times = one["weight"] / one["seconds"] if one["seconds"] else 0.0
            most = one["weight"] / one["bound"] if one["bound"] else 0.0
            self._out.judge(
                f"{name}, {hosts:,} hosts: at least {goal} times shorter "
                f"than under weight at {parallel} in parallel, or what the "
                "bound allows",
                f"{times:.1f} times, {most:.1f} allowed",
                times >= min(goal, 0.98 * most),
            )
            ratio = (
                one["expected"] / one["expected_bound"]
                if one["expected_bound"]
                else 1.0
            )
            self._out.judge(
                f"{name}, {hosts:,} hosts, {parallel} in parallel: makespan "
                "within 2 % of its bound",
                f"{100 * (ratio - 1):.2f} % above",
                ratio <= 1.02,
            )

    def _prove(self) -> None:
        wrong = [
            f"{cloud.family.name}, {cloud.hosts} hosts, {name}: {text}"
            for cloud in (*self._clouds, *self._capped)
            for name in OURS
            for text in cloud.contenders.get(name, {}).get("wrong", ())
        ]
        self._out.prove("all plans of ours keep the laws", wrong)


def _contenders(family: families.Family, hosts: int) -> list[str]:
    return [
        name
        for name, most in UP_TO.items()
        if hosts <= most
        and (
            family.name in PEERED
            or name not in (contest.SHOWN, *contest.BLIND)
        )
    ]


def _rows(cloud: Cloud) -> Iterable[tuple[report.Cell, ...]]:
    for name, found in cloud.contenders.items():
        if not ok(found):
            told = f"{name}: {found['failed']}"[:60]
            yield (cloud.family.name, told, *[None] * 7)
            continue
        yield (
            cloud.family.name,
            name,
            found["migrations"],
            found["residual"],
            found["refused"],
            cloud.bound,
            cloud.gap(name),
            found["seconds"],
            found["megabytes"],
        )


def _capped_rows(cloud: Cloud) -> Iterable[tuple[report.Cell, ...]]:
    for name, found in cloud.contenders.items():
        if ok(found):
            relieved = found["excess"] - found["residual"]
            yield (
                cloud.family.name,
                cloud.hosts,
                cloud.cap,
                name,
                found["migrations"],
                relieved,
                cloud.most,
                100 * relieved / cloud.most,
            )


def _timed_row(
    name: str, hosts: int, parallel: int, one: Found
) -> tuple[report.Cell, ...]:
    return (
        name,
        hosts,
        parallel,
        one["migrations"],
        one["depth"],
        one["expected"],
        one["expected_bound"],
        one["seconds"],
        one["bound"],
        one["weight"],
        one["weight"] / one["seconds"] if one["seconds"] else None,
    )


class _Goals:
    """What this project set itself, each judged where it was measured."""

    def __init__(
        self,
        out: report.Report,
        clouds: Sequence[Cloud],
        capped: Sequence[Cloud],
    ) -> None:
        self._out = out
        self._clouds = clouds
        self._capped = capped

    def judge(self) -> None:
        """All of them."""
        self._free_of_memory("up to 100 hosts", 0, SMALL_HOSTS, 2.0)
        self._free_of_memory("1,000 hosts", MIDDLE_HOSTS, MIDDLE_HOSTS, 0.5)
        self._large()
        self._infeasible()
        self._cut()
        self._memory()
        self._zero_slack()

    def _of(self, least: int, most: int, *, free: bool = True) -> list[Cloud]:
        return [
            cloud
            for cloud in self._clouds
            if least <= cloud.hosts <= most
            and (
                not free
                or (
                    cloud.family.feasible
                    and not cloud.family.binds_memory
                    and not cloud.family.exact
                )
            )
        ]

    def _free_of_memory(
        self, where: str, least: int, most: int, percent: float
    ) -> None:
        clouds = self._of(least, most)
        if not clouds:
            return
        for name, goal in ((contest.OURS, percent), (contest.EXACT, 0.0)):
            left = [c for c in clouds if not _cured(c, name)]
            self._tell(
                f"{where}, {name}: residual 0 in all {len(clouds)} clouds "
                "without binding memory",
                left,
            )
            over = [
                c for c in clouds if (gap := c.gap(name)) is None or gap > goal
            ]
            self._tell(
                f"{where}, {name}: at most {goal:g} % over the bound", over
            )

    def _tell(self, goal: str, missed: Sequence[Cloud]) -> None:
        names = [f"{c.family.name} ({c.hosts})" for c in missed]
        told = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        self._out.judge(
            goal,
            f"all but {len(names)}: {told}" if names else "all",
            not names,
        )

    def _large(self) -> None:
        name = contest.OURS
        for cloud in self._of(LARGE_HOSTS, LARGE_HOSTS):
            found = cloud.contenders.get(name, {})
            where = f"{cloud.hosts:,} hosts, {cloud.family.name}"
            if not ok(found):
                self._out.judge(
                    f"{where}: a plan", found.get("failed", "none"), False
                )
                continue
            limit = 40 if cloud.family.zones else 15
            gap = cloud.gap(name)
            self._out.judge(
                f"{where}: within {limit} s CPU, 1 GB and 1 % of the bound",
                f"{found['seconds']:.1f} s, {found['megabytes']:,.0f} MB, "
                + ("no gap to tell" if gap is None else f"{gap:.2f} %"),
                found["seconds"] <= limit
                and found["megabytes"] < 1000
                and gap is not None
                and gap <= 1,
            )
            self._growth(cloud, found["seconds"])

    def _growth(self, cloud: Cloud, seconds: float) -> None:
        for small in self._of(MIDDLE_HOSTS, MIDDLE_HOSTS):
            found = small.contenders.get(contest.OURS, {})
            if small.family == cloud.family and ok(found):
                times = cloud.hosts / small.hosts
                most = times * math.log(cloud.hosts) / math.log(small.hosts)
                grown = seconds / max(found["seconds"], 1e-3)
                self._out.judge(
                    f"{cloud.family.name}: CPU grows no worse than n log n "
                    f"from {small.hosts:,} to {cloud.hosts:,} hosts",
                    f"{grown:.1f} times, {most:.1f} allowed",
                    grown <= most,
                )

    def _infeasible(self) -> None:
        for cloud in self._of(SMALL_HOSTS, MIDDLE_HOSTS, free=False):
            found = cloud.contenders.get(contest.EXACT, {})
            if cloud.family.feasible or not ok(found):
                continue
            bound = found["residual_bound"]
            self._out.judge(
                f"{cloud.hosts:,} hosts, {cloud.family.name}: the residual is "
                "the proven minimum, within 10 s",
                f"{found['residual']} left, "
                f"{'no bound' if bound is None else f'bound {bound}'}, "
                f"{found['seconds']:.1f} s",
                found["residual"] == bound and found["seconds"] <= 10,
            )

    def _cut(self) -> None:
        shares = [
            (found["excess"] - found["residual"]) / cloud.most
            for cloud in self._capped
            if ok(found := cloud.contenders.get(contest.OURS, {}))
        ]
        if shares:
            self._out.judge(
                "max_migrations cuts: at least 99 % of the provable maximum",
                f"{100 * min(shares):.2f} % to {100 * max(shares):.2f} %",
                min(shares) >= 0.99,
            )

    def _memory(self) -> None:
        for cloud in self._clouds:
            if cloud.family.binds_memory:
                gap = cloud.gap(contest.OURS)
                self._out.judge(
                    f"{cloud.hosts:,} hosts, {cloud.family.name}: at most 3 % "
                    "over the best bound",
                    "more residual than a peer or none"
                    if gap is None
                    else f"{gap:.2f} %",
                    gap is not None and gap <= 3,
                )

    def _zero_slack(self) -> None:
        for cloud in self._clouds:
            if cloud.family.exact and cloud.hosts == ZERO_SLACK_HOSTS:
                gap = cloud.gap(contest.EXACT)
                left = cloud.contenders[contest.EXACT].get("residual")
                self._out.judge(
                    f"zero slack, {cloud.hosts} hosts: the bound is met",
                    f"{left} left, gap "
                    + ("unknown" if gap is None else f"{gap:.2f} %"),
                    left == 0 and gap == 0,
                )


def _cured(cloud: Cloud, name: str) -> bool:
    """No residual, or as much as is proven to stay."""
    found = cloud.contenders.get(name, {})
    if not ok(found):
        return False
    return not found["residual"] or (
        found["residual"] == found["residual_bound"]
    )


def run(out: report.Report, sizes: Sequence[int]) -> None:
    """The benchmark ``planner``."""
    out.title(f"planner: {', '.join(f'{n:,}' for n in sizes)} hosts")
    Benchmark(out).run(sizes)
