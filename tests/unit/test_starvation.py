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

"""Starvation: every verdict, why, what cures it, and what would follow.

Unless a test says otherwise there is one host, sold once per tier::

    h (VCPU 4; CUSTOM_VCPU_GOLD 4, _SILVER 4, _BRONZE 4)

so that a vCPU of gold is promised .506 of a CPU, one of silver .329 and one
of bronze .165, and a full host gives just that.
"""

from collections.abc import Iterable, Sequence
import dataclasses
from typing import Any

import pytest

from tests import builders
from tests.cloud import kernel
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation

WINDOWS = (0, 300, 600)
PROMISED = {"gold": 512 / 1012, "silver": 333 / 1012, "bronze": 167 / 1012}

# (usage, steal) of a whole instance, in CPUs; None where nothing is known.
Load = tuple[float, float] | None


def host(name: str = "h", **fields: Any) -> model.Host:
    return builders.host(
        name, **{"gold": 4, "silver": 4, "bronze": 4, "vcpus": 4, **fields}
    )


def shared(
    name: str,
    tier: str | None,
    vcpus: int = 1,
    shares: int | None = None,
    on: str = "h",
    **fields: Any,
) -> model.Instance:
    """An instance whose flavor sets what is right, or these shares.

    :param shares: 0 for a flavor that sets none
    """
    if shares is None:
        shares = vcpus * builders.SHARES.get(tier or "", 0)
    specs = {"quota:cpu_shares": str(shares)} if shares else {}
    return builders.instance(
        name,
        on,
        vcpus,
        tier,
        extra_specs={**specs, **fields.pop("extra_specs", {})},
        **fields,
    )


def measured(
    cloud: model.Cluster,
    loads: dict[str, Load | Sequence[Load]],
    **fields: Any,
) -> model.Cluster:
    """A cloud with telemetry: the same in all windows, or one for each."""

    def read(load: Load) -> model.Reading | None:
        if load is None:
            return None
        return model.Reading(usage_cpus=load[0], steal_cpus=load[1])

    readings = {
        name: tuple(read(one) for one in told)
        if isinstance(told, list)
        else (read(told),) * len(WINDOWS)
        for name, told in loads.items()
    }
    telemetry = model.Telemetry(
        **{
            "source": "gnocchi",
            "window_seconds": 300,
            "windows": WINDOWS,
            "readings": model.frozen_map(readings),
            **fields,
        }
    )
    return dataclasses.replace(cloud, telemetry=telemetry)


def filled(cloud: model.Cluster, cpus: float = 4) -> model.Cluster:
    """All of one host want all of their vCPUs and get what weights give."""
    weights = [
        entitlement.weight(i.flavor, cloud.shares_rule)
        for i in cloud.instances
    ]
    vcpus = [i.flavor.vcpus for i in cloud.instances]
    given = entitlement.fill(weights, vcpus, [0] * len(vcpus), [cpus])
    return measured(
        cloud,
        {
            i.uuid: (float(g), i.flavor.vcpus - float(g))
            for i, g in zip(cloud.instances, given, strict=True)
        },
    )


def judge(cloud: model.Cluster, **params: Any) -> starvation.Starvation:
    typed = parameters.Parameters.of(params)
    return starvation.judge(cloud, diagnosing.diagnose(cloud, typed), typed)


def everybody(on: str = "h") -> list[model.Instance]:
    """What was sold on a host is there, in instances of one vCPU."""
    return [
        shared(f"{tier}{number}", tier, on=on)
        for tier in builders.BUILT_IN
        for number in range(4)
    ]


def full_host(*changed: model.Instance, **fields: Any) -> model.Cluster:
    """A host on which all that was sold is there, some of it changed."""
    others = {i.name: i for i in everybody()}
    others.update({i.name: i for i in changed})
    return builders.cluster([host()], others.values(), **fields)


# --- nobody starves


def test_fair_contention_is_served() -> None:
    """All that was sold runs at once: expected full contention (R88)."""
    found = judge(filled(full_host()))
    assert found.abstained == ""
    assert found.coverage == 1.0
    assert {n: k for n, k in found.counts.items() if k} == {"served": 12}
    assert found.starved == ()
    assert found.findings == ()
    assert found.usable_cpus == {"h": 4.0}
    gold = found.condition("gold0")
    assert (gold.floor, gold.kept) == pytest.approx((PROMISED["gold"],) * 2)
    assert gold.deficit == pytest.approx(0, abs=1e-9)
    assert gold.usage == pytest.approx(PROMISED["gold"])
    assert gold.threshold == pytest.approx(0.1 * PROMISED["gold"])
    assert not gold.starved


def test_one_silver_beside_112_busy_gold_is_served() -> None:
    """R85, R88: twice its promise although .58 % of the host."""
    big = builders.host("h", gold=112, silver=112, bronze=112, vcpus=112)
    gold = [shared(f"g{n}", "gold", memory_mb=1) for n in range(112)]
    silver = shared("s", "silver", memory_mb=1)
    found = judge(filled(builders.cluster([big], [*gold, silver]), 112))
    assert set(found.verdicts.values()) == {"served"}
    condition = found.condition("s")
    assert condition.usage == pytest.approx(0.647, abs=0.001)
    assert condition.floor == pytest.approx(0.329, abs=0.001)


def test_a_satisfied_gold_beside_full_others_is_served() -> None:
    """The naive test, usage below min(demand, floor), calls it starved."""
    speed = PROMISED["gold"]
    usage = 0.25
    runnable = usage / speed
    assert usage < min(runnable, speed) - 0.05
    cloud = measured(full_host(), {"gold0": (usage, runnable - usage)})
    assert judge(cloud).verdicts["gold0"] == "served"


def test_idle_tiers_are_left_alone() -> None:
    """R89 to R91, whatever little they wait for."""
    cloud = full_host()
    loads: dict[str, Any] = {
        i.uuid: (1.0, 0.0) for i in cloud.instances if i.tier == "bronze"
    }
    # Below a tenth of .506, of which it got nothing at all.
    loads["gold0"] = (0.0, 0.05)
    loads["gold1"] = (0.0, 0.0)
    found = judge(measured(cloud, loads))
    assert found.verdicts["gold0"] == "idle"
    assert found.verdicts["gold1"] == "idle"
    assert found.verdicts["bronze0"] == "served"
    assert found.condition("gold1").cause == ""


def test_awake_in_one_window_is_not_idle() -> None:
    loads = [(0.0, 0.0), (0.0, 0.0), (0.2, 0.0)]
    found = judge(measured(full_host(), {"gold0": loads}))
    assert found.verdicts["gold0"] == "served"


# --- what is not known


def one_starved(
    *loads: Load, cloud: model.Cluster | None = None, **fields: Any
) -> model.Cluster:
    """A gold vCPU that gets half of its promise, or these loads."""
    starving = list(loads) or [(0.25, 0.75)] * 3
    return measured(cloud or full_host(), {"gold0": starving}, **fields)


def test_without_telemetry_it_abstains_and_says_why() -> None:
    """L8 "Missing is never zero"."""
    found = judge(full_host())
    assert found.abstained == "No telemetry was read."
    assert found.coverage == 0.0
    assert not found.counts
    assert not found.verdicts
    assert not found.starved
    assert not found.usable_cpus
    with pytest.raises(KeyError):
        found.condition("gold0")
    with pytest.raises(ValueError, match="nothing was measured"):
        found.predict([starvation.Population(host="h")])


def test_too_few_windows_abstain() -> None:
    found = judge(one_starved(), windows=4)
    assert found.abstained == (
        "The telemetry of gnocchi covers 3 windows and 4 are asked for "
        "(audit parameter windows)."
    )
    assert not found.verdicts


def test_fewer_windows_than_there_are_are_the_last_ones() -> None:
    cloud = one_starved((0.6, 0.0), (0.25, 0.75), (0.25, 0.75))
    assert judge(cloud).verdicts["gold0"] == "served"
    found = judge(cloud, windows=2)
    assert found.condition("gold0").starved
    assert found.condition("gold0").usage == pytest.approx(0.25)


def test_no_fit_reading_at_all_abstains_with_the_reasons() -> None:
    cloud = one_starved(
        None, None, None, rejected=model.frozen_map({"stale": 36})
    )
    assert judge(cloud).abstained == (
        "No instance has a fit reading from gnocchi in all of 3 windows "
        "(rejected: 36 stale)."
    )


def test_no_known_promise_abstains() -> None:
    unread = model.Inventory(known_capacity=4)
    cloud = builders.cluster([host(more={"VCPU": unread})], everybody())
    assert "No promise of any tier is known" in (
        judge(one_starved(cloud=cloud)).abstained
    )


def test_a_cloud_where_nothing_runs_has_been_looked_at() -> None:
    found = judge(measured(builders.cluster([host()]), {}))
    assert found.abstained == ""
    assert found.coverage == 1.0
    assert sum(found.counts.values()) == 0


@pytest.mark.parametrize("missing", range(3))
def test_a_missing_window_is_unknown(missing: int) -> None:
    """Never zero, neither as idle nor as starved (R103)."""
    loads: list[Load] = [(0.25, 0.75)] * 3
    loads[missing] = None
    cloud = measured(full_host(), {"gold0": loads, "gold1": (0.6, 0.0)})
    found = judge(cloud)
    assert found.verdicts["gold0"] == "unknown"
    assert found.counts["unknown"] == 11
    assert found.coverage == pytest.approx(1 / 12)
    condition = found.condition("gold0")
    assert condition.cause == "1 of 3 windows have no fit reading of it."
    assert condition.usage == pytest.approx(0.25)
    assert [f.kind for f in found.findings] == ["telemetry_coverage"]
    assert "11 of 12 running instances" in found.findings[0].text


def test_nothing_known_has_no_numbers() -> None:
    condition = judge(one_starved()).condition("gold1")
    assert condition.verdict == "unknown"
    assert condition.usage is None
    assert condition.steal is None
    assert condition.deficit is None
    assert condition.deficit_cpus == 0.0
    assert condition.cause == "3 of 3 windows have no fit reading of it."


@pytest.mark.parametrize(
    "reading", [(float("nan"), 0.5), (0.5, float("inf")), (-0.1, 0.5)]
)
def test_what_cannot_be_measured_was_not(reading: Load) -> None:
    cloud = measured(
        full_host(),
        {"gold0": [(0.25, 0.75), reading, (0.25, 0.75)], "gold1": (1.0, 0.0)},
    )
    assert judge(cloud).verdicts["gold0"] == "unknown"


def test_readings_that_begin_late_are_those_of_the_last_windows() -> None:
    found = judge(one_starved((0.25, 0.75), (0.25, 0.75)), windows=2)
    assert found.condition("gold0").starved
    cloud = measured(
        full_host(), {"gold0": [(0.25, 0.75)] * 2, "gold1": (1.0, 0.0)}
    )
    assert judge(cloud).verdicts["gold0"] == "unknown"


def test_untiered_instances_were_promised_nothing() -> None:
    cloud = measured(full_host(shared("plain", None)), {"plain": (0.0, 1.0)})
    found = judge(cloud)
    assert found.verdicts["plain"] == "unknown"
    assert "belongs to no tier" in found.condition("plain").cause
    assert [f.kind for f in found.findings] == [
        "telemetry_coverage",
        "untiered_beside_tiers",
    ]
    assert " h." in found.findings[1].text


def test_a_tier_of_unknown_quota_is_unknown() -> None:
    cloud = builders.cluster(
        [host(bronze=None), host("other")],
        [shared("b", "bronze"), shared("g", "gold")],
    )
    found = judge(measured(cloud, {"b": (0.0, 1.0), "g": (0.1, 0.9)}))
    assert found.verdicts["b"] == "unknown"
    assert found.condition("b").cause == (
        "The quota of bronze on host h is not known."
    )
    assert found.condition("g").floor == pytest.approx(512 / 845)


def test_a_host_of_unknown_size_is_unknown_and_named() -> None:
    unread = model.Inventory(known_capacity=4)
    cloud = builders.cluster(
        [host(more={"VCPU": unread}), host("other")],
        [shared("g", "gold"), shared("o", "gold", on="other")],
    )
    found = judge(measured(cloud, {"g": (0.0, 1.0), "o": (1.0, 0.0)}))
    assert found.verdicts == {"g": "unknown", "o": "served"}
    assert "no known number of shared CPUs" in found.condition("g").cause
    assert [f.kind for f in found.findings] == ["unknown_floors"]
    assert found.usable_cpus == {"other": 4.0}
    (forecast,) = found.predict([starvation.Population(host="h")])
    assert "no known number of shared CPUs" in forecast.unknown
    assert not forecast.usage_cpus


def test_who_is_shut_off_needs_no_telemetry() -> None:
    cloud = full_host(shared("off", "gold", status="SHUTOFF"))
    loads: dict[str, Any] = {
        i.uuid: (1 / 3, 0.5) for i in cloud.instances if i.uuid != "off"
    }
    found = judge(measured(cloud, loads))
    assert found.coverage == 1.0
    assert found.verdicts["off"] == "unknown"
    assert found.condition("off").cause == (
        "It does not run (status SHUTOFF)."
    )
    # Everybody who runs was measured, and the host is contended.
    assert found.usable_cpus["h"] == pytest.approx(4.0)


def test_hosts_out_of_scope_are_not_judged() -> None:
    cloud = builders.cluster(
        [host(), host("away", in_scope=False)],
        [shared("g", "gold"), shared("a", "gold", on="away")],
    )
    found = judge(measured(cloud, {"g": (1.0, 0.0), "a": (0.1, 0.9)}))
    assert found.verdicts == {"g": "served"}


# --- sustained


def test_starved_is_starved_in_all_windows() -> None:
    assert judge(one_starved()).condition("gold0").starved
    for good in range(3):
        loads: list[Load] = [(0.25, 0.75)] * 3
        loads[good] = (0.5, 0.5)
        found = judge(one_starved(*loads))
        assert found.verdicts["gold0"] == "served"


@pytest.mark.parametrize(
    ("tier", "lack", "starved"),
    [
        ("gold", 0.0505, False),
        ("gold", 0.0507, True),
        ("bronze", 0.0199, False),
        ("bronze", 0.0201, True),
    ],
)
def test_threshold(tier: str, lack: float, starved: bool) -> None:
    usage = PROMISED[tier] - lack
    cloud = measured(full_host(), {f"{tier}0": (usage, 1 - usage)})
    condition = judge(cloud).condition(f"{tier}0")
    assert condition.starved == starved
    assert condition.deficit == pytest.approx(lack)


def test_numbers_are_per_vcpu() -> None:
    cloud = full_host(shared("big", "gold", 4))
    found = judge(measured(cloud, {"big": (1.0, 3.0)})).condition("big")
    assert (found.usage, found.steal) == (0.25, 0.75)
    assert found.deficit == pytest.approx(PROMISED["gold"] - 0.25)
    assert found.deficit_cpus == pytest.approx(4 * PROMISED["gold"] - 1)


# --- why, in the contract's order


def why(
    cloud: model.Cluster, name: str = "gold0", **params: Any
) -> starvation.Condition:
    return judge(cloud, **params).condition(name)


def test_short_host() -> None:
    """Daemons take half: f is half of f0, and everybody has that."""
    found = judge(filled(full_host(), cpus=2))
    assert set(found.verdicts.values()) == {"short host"}
    assert len(found.starved) == 12
    assert found.usable_cpus == {"h": pytest.approx(2.0)}
    condition = found.condition("gold0")
    assert condition.kept == pytest.approx(PROMISED["gold"] / 2)
    assert "got 2.00 of its 4 CPUs" in condition.cause
    assert "cpu_shared_set" in condition.remedy


def test_short_host_needs_telemetry_of_every_guest() -> None:
    cloud = filled(full_host(), cpus=2)
    assert cloud.telemetry is not None
    readings = dict(cloud.telemetry.readings)
    del readings["bronze3"]
    found = judge(
        dataclasses.replace(
            cloud,
            telemetry=dataclasses.replace(
                cloud.telemetry, readings=model.frozen_map(readings)
            ),
        )
    )
    assert found.verdicts["gold0"] == "unexplained"
    assert "1 instances of host h have no telemetry" in (
        found.condition("gold0").cause
    )
    assert found.usable_cpus == {"h": 4.0}


def test_a_host_that_is_short_in_some_window_is_short() -> None:
    """In all windows nobody was below what the host could keep."""
    cloud = full_host()
    loads: dict[str, Any] = {
        i.uuid: [(PROMISED[i.tier or ""] / 2, 0.5)] * 3
        for i in cloud.instances
    }
    loads["bronze3"][2] = None
    found = judge(measured(cloud, loads))
    assert found.verdicts["gold0"] == "short host"
    assert found.usable_cpus == {
        "h": pytest.approx((2 + 2 + 4) / 3, abs=0.001)
    }


def test_a_host_that_nobody_waits_for_is_not_short() -> None:
    """Little usage without steal is little demand."""
    cloud = full_host()
    loads: dict[str, Any] = {i.uuid: (0.1, 0.016) for i in cloud.instances}
    assert judge(measured(cloud, loads)).usable_cpus == {"h": 4.0}


def test_over_quota() -> None:
    """Twelve gold where four were sold."""
    more = [shared(f"more{n}", "gold") for n in range(8)]
    cloud = filled(full_host(*more))
    condition = why(cloud)
    assert condition.verdict == "over quota"
    assert "12 units of gold where 4 are its quota" in condition.cause
    promised = 4 + 8 * PROMISED["gold"]
    assert f"promised {promised:.2f} CPUs together and it has 4" in (
        condition.cause
    )
    assert "enforce_quota" in condition.remedy


def test_more_of_one_tier_and_less_of_others_is_not_over_quota() -> None:
    """What counts is what was promised together."""
    cloud = builders.cluster(
        [host()],
        [shared(f"g{n}", "gold") for n in range(5)] + [shared("s", "silver")],
    )
    cloud = measured(cloud, {"g0": (0.1, 0.9)})
    assert why(cloud, "g0").verdict == "unexplained"


def test_noisy_untiered() -> None:
    """A domain of no tier, with the kernel's default weight of v1."""
    noise = [shared(f"noise{n}", None, 1) for n in range(2)]
    rule = model.SharesRule(unset=1024)
    cloud = full_host(*noise, shares_rule=rule)
    condition = why(filled(cloud))
    assert condition.verdict == "noisy untiered"
    assert "noise0, which belongs to no tier" in condition.cause
    assert "weighs 1024, and 1 more like it" in condition.cause
    assert "host without tiers" in condition.remedy


def test_noisy_untiered_whose_flavor_sets_shares() -> None:
    noise = shared("noise", None, shares=9000)
    assert why(filled(full_host(noise))).verdict == "noisy untiered"


def test_an_untiered_that_uses_nothing_takes_nothing() -> None:
    cloud = full_host(shared("quiet", None))
    loads: dict[str, Any] = {"gold0": (0.25, 0.75), "quiet": (0.01, 0.0)}
    assert why(measured(cloud, loads)).verdict == "unexplained"
    del loads["quiet"]
    assert why(measured(cloud, loads)).verdict == "noisy untiered"


def test_a_tier_without_shares_is_noise_where_the_default_is_heavy() -> None:
    lost = [shared(f"bronze{n}", "bronze", shares=0) for n in range(4)]
    cloud = full_host(*lost, shares_rule=model.SharesRule(unset=1024))
    condition = why(filled(cloud))
    assert condition.verdict == "noisy untiered"
    assert "whose bronze flavor bronze.1 sets no shares" in condition.cause
    light = full_host(*lost, shares_rule=model.SharesRule(unset=100))
    found = judge(filled(light))
    assert found.verdicts["gold0"] == "served"
    assert found.verdicts["bronze0"] == "mis-weighted"


def test_mis_weighted_by_plain_shares_on_several_vcpus() -> None:
    """512 on a domain of eight vCPUs gives each of them 64."""
    wide = builders.host("h", gold=16, silver=16, bronze=16, vcpus=16)
    cloud = builders.cluster(
        [wide],
        [
            shared("plain", "gold", 8, shares=512),
            shared("right", "gold", 8),
            *(shared(f"s{n}", "silver", 8) for n in range(2)),
        ],
    )
    found = judge(filled(cloud, 16))
    assert found.verdicts == {
        "plain": "mis-weighted",
        "right": "served",
        "s0": "served",
        "s1": "served",
    }
    condition = found.condition("plain")
    assert "sets quota:cpu_shares=512" in condition.cause
    assert "each of its 8 vCPUs has 64; 512 per vCPU are gold's" in (
        condition.cause
    )
    assert "Set quota:cpu_shares=4096 on flavor gold.8" in condition.remedy
    assert "libvirt refuses" not in condition.remedy


def test_a_weight_that_libvirt_refuses_asks_for_a_smaller_scale() -> None:
    """512 x 20 is more than 10,000, on cgroup v2 alone."""
    wide = builders.host("h", gold=32, silver=32, bronze=32, vcpus=32)
    people = [
        shared("plain", "gold", 20, shares=512),
        *(shared(f"s{n}", "silver", 8) for n in range(4)),
    ]
    cloud = builders.cluster([wide], people)
    remedy = why(filled(cloud, 32), "plain").remedy
    assert "Set quota:cpu_shares=10240" in remedy
    assert "refuses more than 10000" in remedy
    assert "at most 500 per vCPU of gold" in remedy
    old = dataclasses.replace(cloud, shares_rule=model.SharesRule(unset=1024))
    assert "refuses" not in why(filled(old, 32), "plain").remedy


def test_mis_weighted_by_lost_shares() -> None:
    cloud = full_host(shared("gold0", "gold", shares=0))
    condition = why(filled(cloud))
    assert condition.verdict == "mis-weighted"
    assert "sets no quota:cpu_shares" in condition.cause
    assert "has the weight 100" in condition.cause
    assert "Set quota:cpu_shares=512" in condition.remedy


def test_plain_shares_are_told_where_all_set_them() -> None:
    """512 for eight vCPUs is an eighth of it and 333 for two a half."""
    wide = builders.host("h", gold=16, silver=16, bronze=16, vcpus=16)
    cloud = builders.cluster(
        [wide],
        [
            *(shared(f"g{n}", "gold", 8, shares=512) for n in range(2)),
            *(shared(f"s{n}", "silver", 2, shares=333) for n in range(8)),
        ],
    )
    condition = why(filled(cloud, 16), "g0")
    assert condition.verdict == "mis-weighted"
    assert "Set quota:cpu_shares=4096" in condition.remedy


def test_a_small_error_of_a_weight_is_no_example() -> None:
    cloud = full_host(
        shared("gold0", "gold", shares=256),
        shared("gold1", "gold", shares=530),
    )
    assert "Set quota:cpu_shares=512" in why(filled(cloud)).remedy


def test_a_light_domain_without_shares_is_no_noise() -> None:
    """It has less than its tier gives, if more than the one that starves."""
    wide = builders.host("h", gold=16, silver=16, bronze=16, vcpus=16)
    people = [
        shared("plain", "gold", 8, shares=512),
        shared("lost", "gold", shares=0),
        *(shared(f"s{n}", "silver", 8) for n in range(2)),
    ]
    cloud = builders.cluster([wide], people)
    assert why(filled(cloud, 16), "plain").verdict == "mis-weighted"


def test_a_domain_without_shares_is_no_noise_to_a_heavier_one() -> None:
    cloud = full_host(
        shared("gold0", "gold", shares=4096),
        shared("bronze0", "bronze", shares=0),
        shares_rule=model.SharesRule(unset=1024),
    )
    assert why(one_starved(cloud=cloud)).verdict == "unexplained"


def test_mis_weighted_by_mixed_scales() -> None:
    """A host of 51, 33 and 17 per vCPU, and gold with a tenth of that."""
    small = {"gold": 51, "silver": 33, "bronze": 17}
    others = [
        shared(i.name, i.tier, shares=small[i.tier or ""]) for i in everybody()
    ]
    assert set(judge(filled(full_host(*others))).verdicts.values()) == {
        "served"
    }
    others[0] = shared("gold0", "gold", shares=5)
    condition = why(filled(full_host(*others)))
    assert condition.verdict == "mis-weighted"
    assert "gives its domain of 1 vCPU the weight 5" in condition.cause
    assert "Set quota:cpu_shares=51 on" in condition.remedy


def test_mis_weighted_by_a_neighbour() -> None:
    heavy = [shared(f"bronze{n}", "bronze", shares=2048) for n in range(2)]
    condition = why(filled(full_host(*heavy)))
    assert condition.verdict == "mis-weighted"
    assert "bronze0 of flavor bronze.1 has the weight 2048" in condition.cause
    assert "167 are bronze's" in condition.cause
    assert "and 1 more like it" in condition.cause
    assert "Set quota:cpu_shares=167 on flavor bronze.1" in condition.remedy


def test_the_neighbour_that_is_most_out_of_proportion_is_named() -> None:
    cloud = full_host(
        shared("bronze0", "bronze", shares=1000),
        shared("bronze1", "bronze", shares=4000),
        shared("bronze2", "bronze", shares=2000),
    )
    assert "Beside it, bronze1 of" in why(filled(cloud)).cause


def test_a_heavy_neighbour_that_uses_nothing_is_not_blamed() -> None:
    cloud = full_host(shared("bronze0", "bronze", shares=2048))
    loads: dict[str, Any] = {"gold0": (0.25, 0.75), "bronze0": (0.0, 0.0)}
    assert why(measured(cloud, loads)).verdict == "unexplained"


def test_several_causes_are_all_told_the_first_gives_the_verdict() -> None:
    """Over quota before noise before weights."""
    noise = [shared("noise", None)]
    weights = [shared("gold0", "gold", shares=100)]
    excess = [shared(f"more{n}", "gold") for n in range(8)]
    both = why(filled(full_host(*noise, *weights)))
    assert both.verdict == "noisy untiered"
    assert "Besides, its flavor gold.1 gives" in both.cause
    all_three = why(filled(full_host(*noise, *weights, *excess)))
    assert all_three.verdict == "over quota"
    assert all_three.cause.count("Besides") == 2
    assert "enforce_quota" in all_three.remedy
    assert "quota:cpu_shares=512" in all_three.remedy


def test_short_host_comes_before_over_quota() -> None:
    """12 gold where 4 were sold, on a host that keeps a fifth of it."""
    more = [shared(f"more{n}", "gold") for n in range(8)]
    cloud = full_host(*more)
    loads: dict[str, Any] = {i.uuid: (0.01, 0.09) for i in cloud.instances}
    loads["gold0"] = (0.10, 0.9)
    found = judge(measured(cloud, loads))
    assert found.verdicts["gold0"] == "short host"


def test_unexplained() -> None:
    condition = why(one_starved(cloud=full_host()))
    assert condition.verdict == "unexplained"
    assert "Weights and quotas are right" in condition.cause
    assert "it got 0.250" in condition.cause
    assert "11 instances of host h have no telemetry" in condition.cause


def test_unexplained_with_everything_known() -> None:
    cloud = filled(full_host())
    assert cloud.telemetry is not None
    readings = dict(cloud.telemetry.readings)
    readings["gold0"] = (model.Reading(usage_cpus=0.3, steal_cpus=0.7),) * 3
    cloud = dataclasses.replace(
        cloud,
        telemetry=dataclasses.replace(
            cloud.telemetry, readings=model.frozen_map(readings)
        ),
    )
    condition = why(cloud)
    assert condition.verdict == "unexplained"
    assert "other control groups" in condition.remedy
    assert "would get 0.4" in condition.cause


def test_unexplained_after_a_migration_names_the_weight() -> None:
    change = model.Change(
        instance="gold0",
        kind="live-migration",
        began_at=0,
        ended_at=30,
        moved=True,
    )
    condition = why(one_starved(cloud=full_host(changes=(change,))))
    assert condition.verdict == "unexplained"
    assert "migrated a short while ago" in condition.cause
    assert "virsh schedinfo" in condition.remedy


def test_unexplained_by_its_own_cap() -> None:
    slow = shared("gold0", "gold", extra_specs={"quota:cpu_quota": "25000"})
    condition = why(one_starved(cloud=full_host(slow)))
    assert condition.verdict == "unexplained"
    assert "caps it at 0.25 CPUs" in condition.cause
    assert "quota:cpu_quota" in condition.remedy


def test_single_class_mode_promises_multiples() -> None:
    """100 : 50 : 25 is what is sold, whatever shares the tiers have."""
    tiers = tuple(
        dataclasses.replace(tier, resource_class="VCPU_SHARES")
        for tier in builders.BUILT_IN_TIERS
    )
    bare = builders.host(
        "h",
        gold=None,
        silver=None,
        bronze=None,
        vcpus=4,
        more={"VCPU_SHARES": 800},
    )
    people = []
    for number in range(4):
        for tier, units, shares in (("gold", 100, 512), ("silver", 50, 333)):
            one = shared(f"{tier}{number}", tier, shares=shares)
            people.append(dataclasses.replace(one, units=units))
    cloud = builders.cluster(
        [bare], people, tiers=tiers, shares_class="VCPU_SHARES"
    )
    # Eight times a half and a quarter are promised: three of four CPUs.
    found = judge(filled(cloud))
    assert found.verdicts["gold0"] == "served"
    assert found.condition("gold0").floor == 0.5
    found = judge(measured(cloud, {"gold0": (0.4, 0.6), "silver0": (1, 0)}))
    assert found.verdicts["gold0"] == "mis-weighted"
    assert "Set quota:cpu_shares=666" in found.condition("gold0").remedy


# --- order


def test_order_of_the_starved() -> None:
    """By tier, priority, what the whole instance lacks, and name."""
    cloud = full_host(
        shared("silver0", "silver"),
        shared("gold2", "gold", 2),
        shared("gold3", "gold", priority=1),
    )
    names = ["silver0", "gold0", "gold1", "gold2", "gold3"]
    loads: dict[str, Any] = dict.fromkeys(names, (0.1, 0.9))
    loads["gold2"] = (0.2, 1.8)
    found = judge(measured(cloud, loads))
    assert [c.instance.name for c in found.starved] == [
        "gold3",
        "gold2",
        "gold0",
        "gold1",
        "silver0",
    ]


def test_verdicts_are_named_as_the_contract_has_them() -> None:
    assert starvation.VERDICTS == (
        "unknown",
        "idle",
        "served",
        "short host",
        "over quota",
        "noisy untiered",
        "mis-weighted",
        "unexplained",
    )
    assert tuple(judge(one_starved()).counts) == starvation.VERDICTS


# --- prediction


def predict(
    found: starvation.Starvation,
    at: str,
    come: Iterable[str] = (),
    go: Iterable[str] = (),
) -> starvation.Forecast:
    (forecast,) = found.predict(
        [
            starvation.Population(
                host=at, arrivals=frozenset(come), departures=frozenset(go)
            )
        ]
    )
    return forecast


def two_hosts() -> model.Cluster:
    """One of each tier on a host with one CPU, another host empty."""
    one = {"gold": 1, "silver": 1, "bronze": 1, "vcpus": 1}
    return builders.cluster(
        [host("h", **one), host("o", **one)],
        [shared(t[0], t) for t in builders.BUILT_IN],
    )


def test_prediction_of_a_move_that_was_made_on_real_hosts() -> None:
    """.506/.329/.165, then .754/.246 and 1."""
    found = judge(filled(two_hosts(), 1))
    before = predict(found, "h")
    assert [round(before.usage_cpus[n], 3) for n in "gsb"] == [
        0.506,
        0.329,
        0.165,
    ]
    assert before.starved == ()
    assert before.deficits["g"] == pytest.approx(0, abs=1e-9)
    after = predict(found, "h", go="s")
    assert {k: round(v, 3) for k, v in after.usage_cpus.items()} == {
        "g": 0.754,
        "b": 0.246,
    }
    assert predict(found, "o", come="s").usage_cpus == {"s": 1.0}


def test_prediction_shows_starvation_and_its_cure() -> None:
    """Plain shares on eight vCPUs, cured by a host without competitors."""
    wide = {"gold": 16, "silver": 16, "bronze": 16, "vcpus": 16}
    cloud = builders.cluster(
        [builders.host("h", **wide), builders.host("o", **wide)],
        [
            shared("plain", "gold", 8, shares=512),
            *(shared(f"g{n}", "gold", 8) for n in range(1)),
            *(shared(f"s{n}", "silver", 8) for n in range(2)),
        ],
    )
    found = judge(filled(cloud, 16))
    assert [c.instance.name for c in found.starved] == ["plain"]
    now, then, there = found.predict(
        [
            starvation.Population(host="h"),
            starvation.Population(host="h", departures=frozenset({"plain"})),
            starvation.Population(host="o", arrivals=frozenset({"plain"})),
        ]
    )
    assert now.starved == ("plain",)
    measured_ = found.condition("plain")
    assert now.deficits["plain"] == pytest.approx(measured_.deficit)
    assert then.starved == ()
    assert "plain" not in then.usage_cpus
    assert there.starved == ()
    assert there.usage_cpus == {"plain": 8.0}


def test_a_forecast_compares_with_what_is_promised_there() -> None:
    """A host that sells gold alone promises a whole CPU."""
    gold = {"gold": 4, "silver": 0, "bronze": 0}
    cloud = builders.cluster(
        [host(), host("o", **gold)],
        [
            shared("g", "gold"),
            *(shared(f"o{n}", "gold", 2, on="o") for n in range(2)),
        ],
    )
    found = judge(
        measured(cloud, dict.fromkeys(("g", "o0", "o1"), (1.0, 0.0)))
    )
    forecast = predict(found, "o", come="g")
    assert forecast.deficits["g"] == pytest.approx(0, abs=1e-9)
    busy = {"g": (1.0, 0.0), "o0": (2.0, 0.0), "o1": (2.0, 0.0)}
    forecast = predict(judge(measured(cloud, busy)), "o", come="g")
    assert forecast.deficits["g"] == pytest.approx(1 - 0.8)
    assert forecast.starved == ("g", "o0", "o1")


def test_nobody_wants_or_gets_more_than_there_is() -> None:
    """Measurements err; a host of 4 CPUs does not give 4.2."""
    cloud = full_host()
    loads: dict[str, Any] = {i.uuid: (0.35, 0.7) for i in cloud.instances}
    found = judge(measured(cloud, loads))
    assert found.usable_cpus == {"h": 4.0}
    forecast = predict(found, "h")
    assert forecast.deficits["gold0"] == pytest.approx(0, abs=1e-9)


def test_a_swap_is_predicted_too() -> None:
    cloud = two_hosts()
    one = shared("x", "bronze", on="o")
    cloud = builders.moved_in(cloud, [one])
    found = judge(measured(cloud, dict.fromkeys("gsbx", (0.5, 0.5))))
    forecast = predict(found, "h", come="x", go="b")
    assert set(forecast.usage_cpus) == {"g", "s", "x"}
    again = predict(found, "h", come="b", go="b")
    assert again == predict(found, "h")


def test_who_was_not_measured_is_taken_to_want_everything() -> None:
    cloud = two_hosts()
    found = judge(measured(cloud, {"g": (0.5, 0.5)}))
    forecast = predict(found, "h")
    assert forecast.guessed == ("b", "s")
    assert forecast.usage_cpus["s"] == pytest.approx(333 / 1012)


def test_who_is_shut_off_wants_nothing() -> None:
    cloud = builders.moved_in(
        two_hosts(), [shared("off", "gold", status="SHUTOFF")]
    )
    found = judge(measured(cloud, {"g": (0.5, 0.5)}))
    forecast = predict(found, "h")
    assert forecast.usage_cpus["off"] == 0.0
    assert forecast.guessed == ("b", "s")


def test_a_capped_instance_stays_starved_wherever_it_goes() -> None:
    slow = shared("gold0", "gold", extra_specs={"quota:cpu_quota": "25000"})
    cloud = builders.cluster([host(), host("o")], [slow])
    found = judge(measured(cloud, {"gold0": (0.25, 0.75)}))
    forecast = predict(found, "o", come=["gold0"])
    assert forecast.usage_cpus == {"gold0": 0.25}
    assert forecast.starved == ("gold0",)


def test_a_short_host_stays_short() -> None:
    found = judge(filled(full_host(), cpus=2))
    forecast = predict(found, "h")
    assert sum(forecast.usage_cpus.values()) == pytest.approx(2.0)
    assert len(forecast.starved) == 12


def test_untiered_ones_have_a_share_and_no_deficit() -> None:
    cloud = filled(full_host(shared("plain", None)))
    forecast = predict(judge(cloud), "h")
    assert forecast.usage_cpus["plain"] > 0
    assert "plain" not in forecast.deficits


def test_prediction_refuses_names_that_do_not_exist() -> None:
    found = judge(filled(two_hosts(), 1))
    with pytest.raises(KeyError):
        predict(found, "nowhere")
    with pytest.raises(KeyError):
        predict(found, "h", come=["nobody"])
    assert found.predict([]) == ()


# --- on a simulated kernel, which knows nothing of entitlement


def simulated(
    people: Iterable[model.Instance],
    demands: dict[str, float] | None = None,
    rule: model.SharesRule | None = None,
    daemons_cpus: float = 0.0,
) -> starvation.Starvation:
    """Judge host h after its kernel ran; who is not named wants all."""
    rule = rule or model.SharesRule()
    people = list(people)
    domains = [
        kernel.Domain(
            name=i.name,
            weight=entitlement.weight(i.flavor, rule),
            demands=((demands or {}).get(i.name, 1.0),) * i.flavor.vcpus,
        )
        for i in people
    ]
    seen = kernel.simulate(
        kernel.Host(cpus=4, domains=tuple(domains), daemons_cpus=daemons_cpus),
        seconds=5,
        windows=len(WINDOWS),
    )
    cloud = builders.cluster([host()], people, shares_rule=rule)
    return judge(
        measured(
            cloud,
            {
                i.uuid: [
                    (window[i.name].usage_cpus, window[i.name].steal_cpus)
                    for window in seen
                ]
                for i in people
            },
        )
    )


def test_full_contention_on_a_simulated_kernel() -> None:
    found = simulated(everybody())
    assert set(found.verdicts.values()) == {"served"}


def test_mixed_demands_on_a_simulated_kernel() -> None:
    """Those that want little are not taken for starved."""
    demands = {"gold0": 0.25, "gold1": 0.4, "silver0": 0.1, "bronze0": 0.02}
    found = simulated(everybody(), demands)
    assert set(found.verdicts.values()) <= {"served", "idle"}


def test_short_host_on_a_simulated_kernel() -> None:
    found = simulated(everybody(), daemons_cpus=4)
    assert set(found.verdicts.values()) == {"short host"}
    assert found.usable_cpus["h"] == pytest.approx(2.0, abs=0.1)


def test_noise_on_a_simulated_kernel() -> None:
    noise = [shared(f"noise{n}", None) for n in range(4)]
    rule = model.SharesRule(unset=1024)
    found = simulated([*everybody(), *noise], rule=rule)
    assert {c.verdict for c in found.starved} == {"noisy untiered"}
    assert "gold0" in {c.instance.name for c in found.starved}


def test_plain_shares_on_a_simulated_kernel() -> None:
    """A silver instance of four vCPUs with 333 for all of them."""
    people = [i for i in everybody() if i.tier != "silver"]
    found = simulated([*people, shared("wide", "silver", 4, shares=333)])
    assert [c.instance.name for c in found.starved] == ["wide"]
    assert found.verdicts["wide"] == "mis-weighted"
    assert "Set quota:cpu_shares=1332" in found.starved[0].remedy
