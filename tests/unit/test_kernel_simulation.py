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

"""The simulated kernel against what a real one was measured to do.

The expectations are measurements (Linux 6.18, cgroup v1 and v2, KVM guests)
and bookkeeping that any kernel keeps. None is computed by the plugin.
"""

import itertools
from typing import Any

import pytest

from tests.cloud import CloudSpec
from tests.cloud import FlavorSpec
from tests.cloud import HostSpec
from tests.cloud import InstanceSpec
from tests.cloud import kernel

GOLD, SILVER, BRONZE = 512, 333, 167
TOLERANCE = 0.02
# Delays depend on the length of bursts and slices.
WAITING = 0.05
# What was measured over some seconds with sticky placements.
COARSE = 0.08


def domain(
    name: str, weight: float, *demands: float, closed: bool = False
) -> kernel.Domain:
    return kernel.Domain(
        name=name, weight=weight, demands=demands or (1.0,), closed=closed
    )


def run(
    *domains: kernel.Domain,
    cpus: int = 1,
    daemons_cpus: float = 0.0,
    seconds: float = 10,
    seed: int = 0,
) -> dict[str, kernel.Times]:
    host = kernel.Host(cpus=cpus, domains=domains, daemons_cpus=daemons_cpus)
    (found,) = kernel.simulate(host, seconds=seconds, seed=seed)
    return found


def three(cpus: int, each: int) -> tuple[kernel.Domain, ...]:
    return tuple(
        domain(f"{tier}-{n:03}", weight)
        for tier, weight in (("g", GOLD), ("s", SILVER), ("b", BRONZE))
        for n in range(each)
    )


def usage(found: dict[str, kernel.Times], *names: str) -> list[float]:
    return [found[name].usage_cpus for name in names or sorted(found)]


def near(*expected: float, within: float = TOLERANCE) -> Any:
    return pytest.approx(list(expected), abs=within)


def test_one_of_each_tier_on_one_cpu() -> None:
    found = run(domain("g", GOLD), domain("s", SILVER), domain("b", BRONZE))

    assert usage(found, "g", "s", "b") == near(0.504, 0.328, 0.164)


@pytest.mark.parametrize(
    ("rival", "expected", "delay"),
    [(167, 0.666, 0.334), (512, 0.394, 0.606), (1024, 0.245, 0.754)],
)
def test_rivals_beside_silver(
    rival: float, expected: float, delay: float
) -> None:
    found = run(domain("s", SILVER), domain("r", rival))

    assert found["s"].usage_cpus == pytest.approx(expected, abs=TOLERANCE)
    assert found["s"].steal_cpus == pytest.approx(delay, abs=TOLERANCE)


def test_alone_after_the_move() -> None:
    """Silver left for an idle host: its neighbours measured .754 and .246."""
    found = run(domain("g", GOLD), domain("b", BRONZE))

    assert usage(found, "g", "b") == near(0.754, 0.246)
    assert usage(run(domain("s", SILVER))) == near(1.0)


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_usage_and_steal_of_the_always_runnable_are_one(cpus: int) -> None:
    found = run(*three(cpus, cpus), domain("u", 1024, 1.0, 1.0), cpus=cpus)

    for times in found.values():
        for ran, waited in zip(
            times.run_seconds, times.delay_seconds, strict=True
        ):
            assert ran + waited == pytest.approx(times.seconds, rel=0.01)


def test_a_satisfied_gold_beside_full_neighbours() -> None:
    """Its usage is its demand although it waits a lot: .243 was measured."""
    found = run(
        domain("g", GOLD, 0.25), domain("s", SILVER), domain("b", BRONZE)
    )

    gold = found["g"]
    assert gold.usage_cpus == pytest.approx(0.25, abs=TOLERANCE)
    assert gold.steal_cpus == pytest.approx(0.243, abs=WAITING)
    assert usage(found, "s", "b") == near(0.495, 0.249)


@pytest.mark.parametrize(
    ("demands", "measured", "delays"),
    [
        ((0.6, 0.2, 1.0), (0.598, 0.2, 0.195), (0.402, 0.4, 0.804)),
        ((0.2, 0.2, 0.2), (0.201, 0.199, 0.2), (0.082, 0.113, 0.149)),
        ((0.4, 0.6, 0.5), (0.4, 0.395, 0.198), (0.394, 0.605, 0.802)),
    ],
)
def test_work_that_comes_at_its_own_times(
    demands: tuple[float, ...],
    measured: tuple[float, ...],
    delays: tuple[float, ...],
) -> None:
    """Demand that is not met leaves a vCPU runnable all the time."""
    tiers = (("g", GOLD), ("s", SILVER), ("b", BRONZE))
    found = run(
        *(
            domain(name, weight, demand)
            for (name, weight), demand in zip(tiers, demands, strict=True)
        )
    )

    assert usage(found, "g", "s", "b") == near(*measured)
    waited = [found[name].steal_cpus for name, _weight in tiers]
    assert waited == near(*delays, within=WAITING)


@pytest.mark.parametrize(
    ("demands", "closed", "measured"),
    [
        ((0.5, 1.0, 1.0), (True, False, False), (0.336, 0.439, 0.22)),
        ((0.5, 0.5, 0.5), (True, True, True), (0.375, 0.326, 0.233)),
    ],
)
def test_clients_that_wait_for_answers(
    demands: tuple[float, ...],
    closed: tuple[bool, ...],
    measured: tuple[float, ...],
) -> None:
    """They ask for less when they are slowed.

    Measured: usage = d / (d / r + 1 - d), r the rate while runnable.
    """
    tiers = (("g", GOLD), ("s", SILVER), ("b", BRONZE))
    found = run(
        *(
            domain(name, weight, demand, closed=waits)
            for (name, weight), demand, waits in zip(
                tiers, demands, closed, strict=True
            )
        )
    )

    assert usage(found, "g", "s", "b") == near(*measured, within=WAITING)
    gold = found["g"]
    rate = gold.usage_cpus / (gold.usage_cpus + gold.steal_cpus)
    assert gold.usage_cpus == pytest.approx(
        0.5 / (0.5 / rate + 0.5), abs=TOLERANCE
    )


def test_a_weight_is_of_the_domain() -> None:
    """Eight vCPUs at the weight of one are served like an eighth."""
    found = run(
        domain("s8", SILVER, *(8 * [1.0])),
        *(domain(f"g{n}", GOLD) for n in range(4)),
        cpus=4,
        seconds=20,
    )

    eight = found["s8"]
    assert eight.usage_cpus == pytest.approx(4 * 333 / 2381, abs=0.04)
    each = [ran / eight.seconds for ran in eight.run_seconds]
    assert max(each) < 0.1


def test_idle_vcpus_lend_their_weight_to_their_siblings() -> None:
    found = run(
        domain("a", GOLD, 1.0, 0.0, 0.0, 0.0), domain("r", GOLD), seconds=5
    )

    assert usage(found, "a", "r") == near(0.5, 0.5)


def test_a_vcpu_runs_on_one_cpu_at_a_time() -> None:
    found = run(domain("a", 10_000), domain("b", 2), domain("c", 2), cpus=2)

    assert usage(found, "a", "b", "c") == near(1.0, 0.5, 0.5)


def test_few_entities_on_few_cpus_stick() -> None:
    """Measured: mean error .022 and at most .071 of a core, here likewise."""
    found = run(
        *(domain(f"g{n}", GOLD) for n in range(2)),
        *(domain(f"s{n}", SILVER) for n in range(2)),
        domain("b0", BRONZE),
        cpus=4,
        seconds=20,
    )

    assert usage(found, "g0", "g1") == near(1.0, 1.0)
    assert usage(found, "s0", "s1", "b0") == near(0.8, 0.8, 0.4, within=COARSE)


@pytest.mark.parametrize(("cpus", "each"), [(2, 8), (4, 8), (16, 16)])
def test_placements_rotate_until_everybody_had_the_same(
    cpus: int, each: int
) -> None:
    found = run(*three(cpus, each), cpus=cpus, seconds=20)

    assert sum(usage(found)) == pytest.approx(cpus, rel=0.001)
    for tier, weight in (("g", GOLD), ("s", SILVER), ("b", BRONZE)):
        got = [t.usage_cpus for n, t in found.items() if n.startswith(tier)]
        fair = weight * cpus / (1012 * each)
        assert got == near(*(each * [fair]))


def test_all_guests_together_get_half_beside_busy_daemons() -> None:
    """Measured beside a sibling of the same weight that is always busy."""
    tiers = (domain("g", GOLD), domain("s", SILVER), domain("b", BRONZE))

    found = run(*tiers, daemons_cpus=1)
    assert usage(found, "g", "s", "b") == near(0.253, 0.1645, 0.0825)
    found = run(*tiers, daemons_cpus=0.2)
    assert sum(usage(found)) == pytest.approx(0.8, abs=TOLERANCE)


def test_daemons_on_one_of_four_cpus() -> None:
    found = run(*three(4, 4), cpus=4, daemons_cpus=1, seconds=20)

    gold = [t.usage_cpus for n, t in found.items() if n.startswith("g")]
    assert gold == near(*(4 * [3 * 0.506 / 4]))


def test_nothing_is_stolen_where_nobody_waits() -> None:
    found = run(*three(4, 1), cpus=4)

    assert usage(found) == near(1, 1, 1)
    assert sum(t.steal_cpus for t in found.values()) == 0


def test_nobody_runs_longer_than_there_was_time() -> None:
    domains = [
        domain(f"d{n}", 100 + 50 * n, *(0.1 * ((n + k) % 9) for k in range(3)))
        for n in range(12)
    ]
    found = run(*domains, cpus=4, seconds=10)

    wanted = sum(sum(d.demands) for d in domains)
    assert sum(usage(found)) == pytest.approx(min(4, wanted), rel=0.02)
    for times in found.values():
        for ran, waited in zip(
            times.run_seconds, times.delay_seconds, strict=True
        ):
            assert 0 <= ran
            assert 0 <= waited
            assert ran + waited <= times.seconds * (1 + 1e-9)


def test_the_same_seed_gives_the_same_numbers_in_any_order() -> None:
    domains = [domain(f"d{n}", 100 * n + 100, 0.2 * n) for n in range(5)]

    one = run(*domains, cpus=2, seconds=3, seed=7)
    other = run(*reversed(domains), cpus=2, seconds=3, seed=7)
    assert one == other
    assert one != run(*domains, cpus=2, seconds=3, seed=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"weight": 0, "demands": (1.0,)},
        {"weight": 1, "demands": ()},
        {"weight": 1, "demands": (1.2,)},
        {"weight": 1, "demands": (0.5,), "period_seconds": 0},
    ],
)
def test_declarations_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="odd"):
        kernel.Domain(name="odd", **wrong)


SPEC = CloudSpec(
    hosts=(HostSpec(name="host-1", vcpus=1), HostSpec(name="host-2", vcpus=2)),
    flavors=(
        FlavorSpec(name="g", extra_specs={"quota:cpu_shares": "512"}),
        FlavorSpec(name="s", extra_specs={"quota:cpu_shares": "333"}),
        FlavorSpec(name="b", extra_specs={"quota:cpu_shares": "167"}),
        FlavorSpec(name="plain"),
        FlavorSpec(name="two", vcpus=2, extra_specs={"quota:cpu_shares": "1"}),
    ),
    instances=(
        InstanceSpec(name="g", flavor="g", host="host-1"),
        InstanceSpec(name="s", flavor="s", host="host-1"),
        InstanceSpec(name="b", flavor="b", host="host-1"),
        InstanceSpec(name="off", flavor="g", host="host-1", stopped=True),
        InstanceSpec(name="two", flavor="two", host="host-2"),
        InstanceSpec(name="many", flavor="plain", host="host-2", count=2),
    ),
)
LOADS: dict[str, kernel.Demand] = {
    "g": 1.0,
    "s": 1.0,
    "b": 1.0,
    "two": (0.5, 0.0),
    "many": 0.2,
}


def rates(series: kernel.Series, seconds: int) -> list[tuple[float, float]]:
    points = list(series)
    return [
        ((b[1] - a[1]) / seconds / 1e9, (b[2] - a[2]) / seconds / 1e9)
        for a, b in itertools.pairwise(points)
    ]


def test_counters_of_a_declared_cloud() -> None:
    found = kernel.counters(
        SPEC, LOADS, begin=1_700_000_100, interval_seconds=300, samples=4
    )

    assert sorted(found) == ["b", "g", "many-1", "many-2", "s", "two"]
    gold = found["g"]
    assert (gold.host, gold.vcpus) == ("host-1", 1)
    assert gold.times[:2] == (1_700_000_100, 1_700_000_400)
    assert gold.cpu_ns[0] > 0
    for usage_cpus, steal_cpus in rates(gold, 300):
        assert usage_cpus == pytest.approx(0.504, abs=TOLERANCE)
        assert steal_cpus == pytest.approx(0.496, abs=TOLERANCE)
    assert rates(found["two"], 300)[0][0] == pytest.approx(0.5, abs=TOLERANCE)
    assert found["two"].vcpus == 2


@pytest.mark.parametrize(
    ("unset", "expected"), [(100, 512 / 612), (1024, 1 / 3)]
)
def test_flavors_without_shares(unset: float, expected: float) -> None:
    """Beside Gold: a fifth of it on cgroup v2, twice as much on v1."""
    spec = CloudSpec(
        hosts=SPEC.hosts,
        flavors=SPEC.flavors,
        instances=(
            InstanceSpec(name="g", flavor="g", host="host-1"),
            InstanceSpec(name="plain", flavor="plain", host="host-1"),
        ),
    )
    found = kernel.counters(
        spec, {}, otherwise=1.0, begin=0, samples=2, unset_weight=unset
    )

    assert rates(found["g"], 300)[0][0] == pytest.approx(expected, abs=0.02)


def test_counters_go_on_and_begin_anew_elsewhere() -> None:
    first = kernel.counters(SPEC, LOADS, begin=300, samples=2)
    then = kernel.counters(
        SPEC,
        LOADS,
        begin=900,
        samples=2,
        earlier=first,
        placed={"s": "host-2"},
    )

    assert then["g"].cpu_ns[0] > first["g"].cpu_ns[-1]
    assert len(then["g"].times) == 2
    assert then["s"].host == "host-2"
    assert then["s"].cpu_ns[0] < first["s"].cpu_ns[-1]
    assert rates(then["g"], 300)[0][0] == pytest.approx(0.754, abs=TOLERANCE)


def test_daemons_take_from_all_guests() -> None:
    found = kernel.counters(
        SPEC, LOADS, begin=0, samples=2, daemons={"host-1": 1.0}
    )

    assert rates(found["g"], 300)[0][0] == pytest.approx(0.253, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("loads", "more", "message"),
    [
        ({"g": 1.0}, {}, "no demand for s"),
        ({"x": 1.0}, {}, "loads: x is not declared"),
        ({**LOADS, "two": (1.0,)}, {}, "1 demands for 2 vCPUs"),
        (LOADS, {"daemons": {"host-9": 1.0}}, "daemons: host-9"),
        (LOADS, {"placed": {"g": "host-9"}}, "no declared host for g"),
    ],
)
def test_loads_that_do_not_fit(
    loads: dict[str, kernel.Demand], more: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kernel.counters(SPEC, loads, begin=0, **more)
