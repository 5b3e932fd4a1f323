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

"""Entitlement and the verdict on starvation against the real kernel.

Mixes of busy and partly busy guests run in cgroups with the tiers' weights
on one or two CPUs of this machine (:mod:`benchmarks.cgroups`). What each one
got and how long it waited is compared with what :mod:`watcher_cputier
.entitlement` says that it gets, and the rule of design section 8 judges them:

* C is what all guests of the mix really got together, window by window: what
  else runs on the machine takes its part, as the daemons of a host do;
* a guest is *satisfied* by construction: weights follow the tiers, and no more
  is there than was sold. Then no deficit may be above the threshold. Guests
  that are *short* by construction (plain shares on several vCPUs, a neighbour
  without a tier, lost shares, more than was sold) must be found.

Shares settle while CPUs are shared by many; where there are hardly more
guests than CPUs they depend on where the kernel put them, and clients that
wait for answers ask for less than they would (*few*, *closed*): those are
shown, and bound nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import math

import numpy as np

from benchmarks import cgroups
from benchmarks import report
from watcher_cputier import entitlement

WEIGHTS = {"gold": 512, "silver": 333, "bronze": 167}
WINDOW_SECONDS = 4.0
WARM_UP_SECONDS = 1.0
ERROR_GOAL_CPUS = 0.01
# Waiting of all guests together, in CPUs of one, that tells contention.
CONTENDED = 0.05
# The test that suggests itself, and its tolerance in CPUs.
NAIVE_TOLERANCE = 0.02

BUSY = "always runnable"
LARGE = "several vCPUs"
PARTIAL = "partial"
WRONG = "weights or quotas are wrong"
FEW = "few guests, two CPUs"
CLOSED = "closed loop"
FAMILIES = (BUSY, LARGE, PARTIAL, WRONG, FEW, CLOSED)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """A guest of a mix.

    :ivar tier: that it was sold as; empty for none
    :ivar short: by construction it lacks what it was sold
    """

    guest: cgroups.Guest
    tier: str
    short: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Guests side by side.

    :ivar quotas: vCPUs of each tier that were sold; those that are there if
        nothing is said
    """

    family: str
    name: str
    tenants: tuple[Tenant, ...]
    cpus: int = 1
    quotas: Mapping[str, int] | None = None

    def floors(self) -> dict[str, float]:
        """{tier: f0} of the host, per vCPU."""
        sold: dict[str, int] = dict(self.quotas or {})
        if self.quotas is None:
            for tenant in self.tenants:
                if tenant.tier:
                    vcpus = tenant.guest.vcpus
                    sold[tenant.tier] = sold.get(tenant.tier, 0) + vcpus
        total = sum(WEIGHTS[tier] * units for tier, units in sold.items())
        return {
            tier: min(1.0, WEIGHTS[tier] * self.cpus / total) for tier in sold
        }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One guest in one window.

    :ivar predicted_cpus: its entitlement among all
    :ivar floor: f, what the host could keep of its tier's floor
    :ivar usage, steal: per vCPU
    """

    mix: Mix
    tenant: Tenant
    predicted_cpus: float
    sample: cgroups.Sample
    floor: float | None

    @property
    def error_cpus(self) -> float:
        """How far off the prediction is."""
        return abs(self.sample.usage_cpus - self.predicted_cpus)

    @property
    def usage(self) -> float:
        """Of a vCPU, in CPUs."""
        return self.sample.usage_cpus / self.tenant.guest.vcpus

    @property
    def steal(self) -> float:
        """Of a vCPU, in CPUs."""
        return self.sample.steal_cpus / self.tenant.guest.vcpus

    @property
    def deficit(self) -> float:
        """Of a vCPU, in CPUs; nothing is owed where nothing was sold."""
        if self.floor is None:
            return -math.inf
        return self.floor * (self.usage + self.steal) - self.usage

    @property
    def starved(self) -> bool:
        """By the rule."""
        return self.floor is not None and (
            self.deficit > float(entitlement.threshold(self.floor))
        )

    @property
    def naively_starved(self) -> bool:
        """By the test that suggests itself: less than demand and floor."""
        return self.floor is not None and self.usage < (
            min(self.usage + self.steal, self.floor) - NAIVE_TOLERANCE
        )


def tenant(
    name: str,
    *demands: float,
    weight: int | None = None,
    short: bool = False,
    closed: bool = False,
) -> Tenant:
    """A guest of the tier that its name begins with; busy by default.

    Its weight is what the tier has for so many vCPUs, unless one is given.
    """
    demands = demands or (1.0,)
    tier = name.rstrip("0123456789")
    if weight is None:
        weight = WEIGHTS[tier] * len(demands)
    return Tenant(
        guest=cgroups.Guest(
            name=name, weight=weight, demands=demands, closed=closed
        ),
        tier=tier if tier in WEIGHTS else "",
        short=short,
    )


def mix(
    family: str,
    name: str,
    *tenants: Tenant,
    cpus: int = 1,
    quotas: Mapping[str, int] | None = None,
) -> Mix:
    """A mix with its guests one by one."""
    return Mix(
        family=family, name=name, tenants=tenants, cpus=cpus, quotas=quotas
    )


def _each(*counts: int) -> list[Tenant]:
    """So many busy ones of gold, silver and bronze."""
    return [
        tenant(f"{tier}{number}")
        for tier, count in zip(WEIGHTS, counts, strict=True)
        for number in range(count)
    ]


ONE_EACH = {"gold": 1, "silver": 1, "bronze": 1}
MIXES = (
    mix(BUSY, "1:1:1", *_each(1, 1, 1)),
    mix(BUSY, "1:1:0", *_each(1, 1, 0)),
    mix(BUSY, "1:0:1", *_each(1, 0, 1)),
    mix(BUSY, "0:1:1", *_each(0, 1, 1)),
    mix(BUSY, "1:0:3", *_each(1, 0, 3)),
    mix(BUSY, "2:2:2", *_each(2, 2, 2)),
    mix(BUSY, "2:2:2 on two", *_each(2, 2, 2), cpus=2),
    mix(BUSY, "4:4:4 on two", *_each(4, 4, 4), cpus=2),
    mix(BUSY, "2:4:8 on two", *_each(2, 4, 8), cpus=2),
    mix(LARGE, "2 vCPUs", tenant("gold", 1, 1), *_each(0, 2, 2), cpus=2),
    mix(
        LARGE,
        "2 vCPUs each",
        *(tenant(tier, 1, 1) for tier in WEIGHTS),
        cpus=2,
    ),
    mix(LARGE, "4 vCPUs", tenant("silver", 1, 1, 1, 1), *_each(2, 0, 2)),
    mix(LARGE, "idle siblings", tenant("gold", 1, 0), *_each(0, 1, 1)),
    mix(PARTIAL, "gold .25", tenant("gold", 0.25), *_each(0, 1, 1)),
    mix(
        PARTIAL,
        "gold .6, silver .2",
        *(tenant("gold", 0.6), tenant("silver", 0.2), tenant("bronze")),
    ),
    mix(
        PARTIAL,
        "all a little",
        *(tenant(tier, 0.2) for tier in WEIGHTS),
    ),
    mix(
        PARTIAL,
        "bronze wants .5",
        *(tenant("gold", 0.4), tenant("silver", 0.6), tenant("bronze", 0.5)),
    ),
    mix(
        PARTIAL,
        "4:4:4 on two, gold .2",
        *(tenant(f"gold{n}", 0.2) for n in range(4)),
        *_each(0, 4, 4),
        cpus=2,
    ),
    mix(
        WRONG,
        "plain shares, 4 vCPUs",
        tenant("silver", 1, 1, 1, 1, weight=333, short=True),
        *_each(2, 0, 0),
    ),
    mix(
        WRONG,
        "untiered 1024",
        tenant("gold", short=True),
        tenant("silver", short=True),
        tenant("bronze", short=True),
        tenant("untiered", weight=1024),
    ),
    mix(
        WRONG,
        "lost shares, weight 100",
        tenant("gold", weight=100, short=True),
        *_each(0, 1, 1),
    ),
    mix(
        WRONG,
        "two gold, one sold",
        tenant("gold0", short=True),
        tenant("gold1", short=True),
        tenant("silver", short=True),
        tenant("bronze", short=True),
        quotas=ONE_EACH,
    ),
    mix(FEW, "1:1:1 on two", *_each(1, 1, 1), cpus=2),
    mix(FEW, "2:2:1 on two", *_each(2, 2, 1), cpus=2),
    mix(CLOSED, "gold .5", tenant("gold", 0.5, closed=True), *_each(0, 1, 1)),
    mix(
        CLOSED,
        "all .5",
        *(tenant(tier, 0.5, closed=True) for tier in WEIGHTS),
    ),
)


def run(out: report.Report, windows: int) -> None:
    """Run all mixes that this machine has the CPUs for."""
    out.title("The kernel: entitlement and verdicts against real loads")
    try:
        found = measure(MIXES, windows=windows, progress=out)
    except cgroups.UnavailableError as reason:
        out.progress(f"skipped: {reason}")
        return
    out.add(_errors(found))
    out.add(_verdicts(found, windows))
    out.add(_details(found))
    _judge(out, found)


def measure(
    mixes: Iterable[Mix],
    *,
    windows: int,
    window_seconds: float = WINDOW_SECONDS,
    progress: report.Report | None = None,
) -> list[list[Seen]]:
    """Run mixes one after the other.

    :returns: of each guest of each mix what was seen in every window
    :raises cgroups.UnavailableError: if groups cannot be made here
    """
    controller = cgroups.Controller()
    found: list[list[Seen]] = []
    life = WARM_UP_SECONDS + windows * window_seconds
    with cgroups.ended_by_signals():
        for each in mixes:
            if progress:
                progress.progress(f"{each.family}: {each.name}")
            try:
                cpus = cgroups.quietest_cpus(each.cpus)
            except cgroups.UnavailableError as reason:
                if progress:
                    progress.progress(f"skipped: {reason}")
                continue
            guests = [one.guest for one in each.tenants]
            with cgroups.Machine(
                controller, guests, cpus, 10 + 2 * life
            ) as machine:
                machine.window(WARM_UP_SECONDS)
                seen = [
                    _compare(each, machine.window(window_seconds))
                    for _ in range(windows)
                ]
            found += [list(row) for row in zip(*seen, strict=True)]
    return found


def _compare(mix: Mix, samples: Mapping[str, cgroups.Sample]) -> list[Seen]:
    guests = [one.guest for one in mix.tenants]
    usable = float(mix.cpus)
    if sum(s.steal_cpus for s in samples.values()) > CONTENDED * mix.cpus:
        usable = sum(s.usage_cpus for s in samples.values())
    predicted = entitlement.fill(
        [guest.weight for guest in guests],
        [sum(guest.demands) for guest in guests],
        [0] * len(guests),
        [usable],
    )
    floors = mix.floors()
    return [
        Seen(
            mix=mix,
            tenant=one,
            predicted_cpus=float(cpus),
            sample=samples[one.guest.name],
            floor=floors[one.tier] * usable / mix.cpus if one.tier else None,
        )
        for one, cpus in zip(mix.tenants, predicted, strict=True)
    ]


def _of(found: Sequence[Sequence[Seen]], *families: str) -> list[Seen]:
    return [s for row in found for s in row if s.mix.family in families]


def _errors(found: Sequence[Sequence[Seen]]) -> report.Table:
    rows: list[tuple[report.Cell, ...]] = []
    for family in FAMILIES:
        seen = _of(found, family)
        if not seen:
            continue
        errors = [s.error_cpus for s in seen]
        rows.append(
            (
                family,
                len({s.mix.name for s in seen}),
                len(errors),
                float(np.mean(errors)),
                float(np.percentile(errors, 95)),
                max(errors),
            )
        )
    return report.Table(
        "Predicted against real, error in cores",
        (
            report.Column("load"),
            report.Column("mixes", report.COUNT),
            report.Column("guest windows", report.COUNT),
            report.Column("mean", ".4f"),
            report.Column("p95", ".4f"),
            report.Column("max", ".4f"),
        ),
        tuple(rows),
        f"Windows of {WINDOW_SECONDS:g} s. C is what the guests of a mix "
        "really got together.",
    )


def _verdicts(found: Sequence[Sequence[Seen]], windows: int) -> report.Table:
    rows: list[tuple[report.Cell, ...]] = []
    sold = [row for row in found if row[0].floor is not None]
    for title, short in (("satisfied", False), ("short", True)):
        group = [row for row in sold if row[0].tenant.short is short]
        single = [s for row in group for s in row]
        rows.append(
            (
                title,
                len(group),
                len(single),
                sum(s.naively_starved for s in single),
                sum(s.starved for s in single),
                sum(all(s.starved for s in row) for row in group),
            )
        )
    return report.Table(
        "Called starved",
        (
            report.Column("guests that are"),
            report.Column("guests", report.COUNT),
            report.Column("windows", report.COUNT),
            report.Column("naive test", report.COUNT),
            report.Column("rule, single windows", report.COUNT),
            report.Column(f"rule, {windows} in a row", report.COUNT),
        ),
        tuple(rows),
        "Naive: u < min(u + s, f) - 0.02. Rule: f (u + s) - u > "
        "max(0.02, 0.1 f).",
    )


def _details(found: Sequence[Sequence[Seen]]) -> report.Table:
    """Equal guests of a mix in one row."""
    alike: dict[tuple[object, ...], list[Sequence[Seen]]] = {}
    for row in found:
        one = row[0].tenant
        key = (row[0].mix.name, one.tier, one.guest.weight, one.guest.demands)
        alike.setdefault(key, []).append(row)
    return report.Table(
        "Guests, means over the windows, in CPUs",
        (
            report.Column("mix"),
            report.Column("guests"),
            report.Column("predicted", ".3f"),
            report.Column("got", ".3f"),
            report.Column("waited", ".3f"),
            report.Column("f", ".3f"),
            report.Column("deficit", ".3f"),
            report.Column("starved"),
        ),
        tuple(_detail(rows) for rows in alike.values()),
        "Demands of vCPUs in brackets unless all are 1; f and deficit per "
        "vCPU.",
    )


def _detail(rows: Sequence[Sequence[Seen]]) -> tuple[report.Cell, ...]:
    first = rows[0][0]
    seen = [s for row in rows for s in row]
    floors = [s.floor for s in seen if s.floor is not None]
    name = first.tenant.guest.name.rstrip("0123456789")
    demands = first.tenant.guest.demands
    if set(demands) != {1.0}:
        name += f" ({', '.join(format(d, 'g') for d in demands)})"
    return (
        first.mix.name,
        f"{len(rows)} {name}",
        _mean(s.predicted_cpus for s in seen),
        _mean(s.sample.usage_cpus for s in seen),
        _mean(s.sample.steal_cpus for s in seen),
        _mean(floors) if floors else None,
        _mean(s.deficit for s in seen) if floors else None,
        f"{sum(s.starved for s in seen)} of {len(seen)}",
    )


def _mean(numbers: Iterable[float]) -> float:
    return float(np.mean(list(numbers)))


def _judge(out: report.Report, found: Sequence[Sequence[Seen]]) -> None:
    errors = [s.error_cpus for s in _of(found, BUSY, LARGE)]
    if not errors:
        return
    mean = _mean(errors)
    out.judge(
        f"mean error at most {ERROR_GOAL_CPUS} of a core, always runnable",
        f"{mean:.4f}",
        mean <= ERROR_GOAL_CPUS,
    )
    sold = [row for row in found if row[0].floor is not None]
    calm = [row for row in sold if not row[0].tenant.short]
    accused = [
        f"{row[0].mix.name}: {row[0].tenant.guest.name}"
        for row in calm
        if all(s.starved for s in row)
    ]
    out.judge(
        "no satisfied guest is called starved",
        ", ".join(accused) or f"none of {len(calm)}",
        not accused,
    )
    short = [row for row in sold if row[0].tenant.short]
    if not short:
        return
    missed = [
        f"{row[0].mix.name}: {row[0].tenant.guest.name}"
        for row in short
        if not all(s.starved for s in row)
    ]
    out.judge(
        "every guest that is short is found",
        ", ".join(missed) or f"all {len(short)}",
        not missed,
    )
