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

"""Entitlement: weights, the shares that follow, and what tiers promise."""

from typing import Any

import numpy as np
import pytest

from tests import builders
from tests import entitlements
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import parameters

V1 = model.SharesRule(unset=1024)
V2 = model.SharesRule(unset=100)
MULTIPLYING = model.SharesRule(unset=100, multiplied=True)
GOLD, SILVER, BRONZE = 512, 333, 167


def on_one_host(
    weights: list[float], caps: list[float], cpus: float
) -> list[float]:
    shares = entitlement.fill(weights, caps, [0] * len(weights), [cpus])
    exact = entitlements.fill(weights, caps, cpus)
    assert shares == pytest.approx([float(s) for s in exact], abs=1e-9)
    return list(shares)


def percent(shares: list[float], cpus: float) -> list[float]:
    return [round(100 * share / cpus, 1) for share in shares]


# --- weights


WEIGHTS: dict[str, tuple[dict[str, str], model.SharesRule, float]] = {
    "plain shares are the domain's": ({"quota:cpu_shares": "512"}, V2, 512),
    "nothing set, cgroup v2": ({}, V2, 100),
    "nothing set, cgroup v1": ({}, V1, 1024),
    "no number sets nothing": ({"quota:cpu_shares": "high"}, V1, 1024),
    "zero sets nothing": ({"quota:cpu_shares": "0"}, V2, 100),
    "a multiplier that Nova does not know": (
        {"quota:cpu_shares_multiplier": "25.0"},
        V2,
        100,
    ),
    "a multiplier that Nova knows": (
        {"quota:cpu_shares_multiplier": "25.0"},
        MULTIPLYING,
        200,
    ),
    "plain shares before a multiplier": (
        {"quota:cpu_shares": "512", "quota:cpu_shares_multiplier": "25.0"},
        MULTIPLYING,
        512,
    ),
}


@pytest.mark.parametrize(
    ("specs", "rule", "expected"), WEIGHTS.values(), ids=WEIGHTS
)
def test_weight_of_a_domain_of_eight_vcpus(
    specs: dict[str, str], rule: model.SharesRule, expected: float
) -> None:
    flavor = builders.flavor(8, "gold", extra_specs=specs)
    assert entitlement.weight(flavor, rule) == expected
    assert entitlement.sets_weight(flavor, rule) == (expected != rule.unset)


@pytest.mark.parametrize(
    ("specs", "expected"),
    [
        ({}, 4.0),
        ({"quota:cpu_quota": "50000"}, 2.0),
        ({"quota:cpu_quota": "50000", "quota:cpu_period": "25000"}, 4.0),
        ({"quota:cpu_quota": "5000", "quota:cpu_period": "20000"}, 1.0),
        ({"quota:cpu_quota": "-1"}, 4.0),
    ],
)
def test_a_hard_cap_limits_every_vcpu(
    specs: dict[str, str], expected: float
) -> None:
    flavor = builders.flavor(4, extra_specs=specs)
    assert entitlement.limit_cpus(flavor) == expected


# --- the specification's examples


def test_example_as_bare_ratios() -> None:
    """100 : 50 : 50 : 25 : 25 : 25, all of them on one CPU."""
    shares = on_one_host([100, 50, 50, 25, 25, 25], [1] * 6, 1)
    assert percent(shares, 1) == [36.4, 18.2, 18.2, 9.1, 9.1, 9.1]


def test_example_on_its_four_cpus() -> None:
    """The one vCPU of gold cannot use more than one of the four CPUs."""
    shares = on_one_host([100, 50, 50, 25, 25, 25], [1] * 6, 4)
    assert percent(shares, 4) == [25.0, 21.4, 21.4, 10.7, 10.7, 10.7]


@pytest.mark.parametrize("vcpus", [1, 112])
def test_one_of_each_tier_per_cpu(vcpus: int) -> None:
    weights = [GOLD] * vcpus + [SILVER] * vcpus + [BRONZE] * vcpus
    shares = on_one_host(weights, [1] * 3 * vcpus, vcpus)
    found = percent([shares[0], shares[vcpus], shares[-1]], 1)
    assert found == [50.6, 32.9, 16.5]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ((112, 56, 56), [67.2, 21.9, 11.0]),
        ((112, 112, 0), [60.6, 39.4, 0.0]),
        ((112, 1, 0), [99.4, 0.6, 0.0]),
    ],
)
def test_tiers_of_a_host_of_112_cpus(
    counts: tuple[int, ...], expected: list[float]
) -> None:
    weights = [
        weight
        for weight, count in zip((GOLD, SILVER, BRONZE), counts, strict=True)
        for _ in range(count)
    ]
    shares = on_one_host(weights, [1] * len(weights), 112)
    sums = [
        sum(s for s, w in zip(shares, weights, strict=True) if w == weight)
        for weight in (GOLD, SILVER, BRONZE)
    ]
    assert percent(sums, 112) == expected


def test_one_silver_beside_112_gold_has_twice_its_promise() -> None:
    """.58 % of the host is .65 of a CPU; the promise is .329 (R85, R88)."""
    *_, silver = on_one_host([GOLD] * 112 + [SILVER], [1] * 113, 112)
    assert round(100 * silver / 112, 2) == 0.58
    assert round(silver, 2) == 0.65
    assert silver / (SILVER / 1012) == pytest.approx(2, abs=0.04)


# --- against a real kernel


MEASURED: dict[
    str, tuple[list[float], list[float], float, list[float], float]
] = {
    # weights, caps, CPUs, measured CPUs, stated error
    "one of each, cgroup v1": (
        [512, 333, 167],
        [1, 1, 1],
        1,
        [0.504, 0.328, 0.164],
        0.0055,
    ),
    "one of each, cgroup v2": (
        [512, 333, 167],
        [1, 1, 1],
        1,
        [0.506, 0.329, 0.165],
        0.0055,
    ),
    "beside half a bronze": ([333, 167], [1, 1], 1, [0.666, 0.334], 0.0055),
    "beside gold": ([333, 512], [1, 1], 1, [0.394, 0.606], 0.0055),
    "beside no shares": ([333, 1024], [1, 1], 1, [0.245, 0.755], 0.0055),
    "beside busy daemons": (
        [512, 333, 167],
        [1, 1, 1],
        0.5,
        [0.253, 0.1645, 0.0825],
        0.0055,
    ),
    "after silver has left": ([512, 167], [1, 1], 1, [0.754, 0.246], 0.0055),
    "silver alone": ([333], [1], 1, [1.0], 0.0055),
}


@pytest.mark.parametrize(
    ("weights", "caps", "cpus", "measured", "error"),
    MEASURED.values(),
    ids=MEASURED,
)
def test_agrees_with_what_a_kernel_gave(
    weights: list[float],
    caps: list[float],
    cpus: float,
    measured: list[float],
    error: float,
) -> None:
    """L7 "agrees with facts/cpu-shares.md within its stated error"."""
    assert on_one_host(weights, caps, cpus) == pytest.approx(
        measured, abs=error
    )


# --- the water filling


def test_what_one_leaves_goes_to_the_others() -> None:
    assert on_one_host([512, 333, 167], [0.1, 1, 1], 1) == pytest.approx(
        [0.1, 0.9 * 333 / 500, 0.9 * 167 / 500]
    )


def test_who_has_enough_pays_for_nobody() -> None:
    caps = [0.5, 0.25, 3.0]
    assert on_one_host([1, 100, 7], caps, 3.75) == caps


def test_hosts_do_not_touch_each_other() -> None:
    alone = entitlement.fill([512, 333, 167], [1, 1, 0.05], [0, 0, 0], [1])
    hosts = np.array([1, 0, 1, 0, 1, 0])
    both = entitlement.fill(
        [512, 3, 333, 1, 167, 1], [1, 1, 1, 1, 0.05, 1], hosts, [2, 1]
    )
    assert both[hosts == 1].tolist() == alone.tolist()


def test_nobody_and_nothing() -> None:
    assert entitlement.fill([], [], [], []).tolist() == []
    assert entitlement.fill([], [], [], [4]).tolist() == []
    assert on_one_host([5, 1], [1, 1], 0) == [0, 0]
    assert on_one_host([5, 1], [0, 0], 1) == [0, 0]


@pytest.mark.parametrize(
    ("weight", "cap", "cpus"),
    [
        (0, 1, 1),
        (-1, 1, 1),
        (float("inf"), 1, 1),
        (float("nan"), 1, 1),
        (1, -1, 1),
        (1, float("nan"), 1),
        (1, 1, -1),
        (1, 1, float("nan")),
    ],
)
def test_what_is_no_quantity_is_refused(
    weight: float, cap: float, cpus: float
) -> None:
    with pytest.raises(ValueError, match="weights must be positive"):
        entitlement.fill([weight], [cap], [0], [cpus])


# --- floors


def floors(cloud: model.Cluster, **params: Any) -> dict[str, float]:
    """f0 of each tier on host h, to three places."""
    verdict = diagnosing.diagnose(cloud, parameters.Parameters.of(params))
    found = entitlement.floors(cloud, verdict)
    return {t: round(f, 3) for (h, t), f in found.items() if h == "h"}


def host(**fields: Any) -> model.Host:
    return builders.host(
        "h",
        **{"gold": 64, "silver": 64, "bronze": 64, "vcpus": 64, **fields},
    )


SOLD = {"gold": 0.506, "silver": 0.329, "bronze": 0.165}
OTHER = builders.host("other")


def test_a_host_that_is_sold_once_per_tier() -> None:
    assert floors(builders.cluster([host()])) == SOLD


def test_who_sells_less_promises_more_but_never_more_than_a_cpu() -> None:
    cloud = builders.cluster([host(gold=32, silver=16, bronze=16)])
    sold = (512 * 32 + 333 * 16 + 167 * 16) / 64
    assert floors(cloud) == {
        "gold": 1.0,
        "silver": round(333 / sold, 3),
        "bronze": round(167 / sold, 3),
    }


def test_policy_quotas_count() -> None:
    cloud = builders.cluster([host()])
    assert floors(cloud, quotas={"silver": 0, "bronze": 0}) == {
        "gold": 1.0,
        "silver": 0.65,
        "bronze": 0.326,
    }
    assert floors(cloud, quotas={"gold": 999}) == SOLD


def test_a_tier_of_unknown_quota_leaves_the_sum() -> None:
    cloud = builders.cluster([host(bronze=None), OTHER])
    assert floors(cloud) == {
        "gold": round(512 / 845, 3),
        "silver": round(333 / 845, 3),
    }


def test_quotas_of_nothing_promise_nothing() -> None:
    quotas = {"gold": 0, "silver": 0, "bronze": 0}
    assert floors(builders.cluster([host()]), quotas=quotas) == {}


def test_a_host_without_a_number_of_cpus_promises_nothing() -> None:
    unread = model.Inventory(known_capacity=64)
    cloud = builders.cluster([host(more={"VCPU": unread}), OTHER])
    assert floors(cloud) == {}


def test_a_host_out_of_scope_is_left_out() -> None:
    cloud = builders.cluster([host(in_scope=False), OTHER])
    assert floors(cloud) == {}


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({}, {"drain_hosts": ["h"]}),
        ({"enabled": False}, {"drain_disabled": True}),
    ],
)
def test_a_drain_changes_nothing_that_was_sold(
    fields: dict[str, Any], params: dict[str, Any]
) -> None:
    cloud = builders.cluster([host(**fields), OTHER])
    assert floors(cloud, **params) == SOLD
    assert floors(cloud, quotas={"gold": "50%"}, **params) == floors(
        cloud, quotas={"gold": "50%"}
    )


def reserved(total: int | None, ratio: float = 1.0) -> model.Inventory:
    if total is None:
        return model.Inventory(known_capacity=0)
    return model.Inventory(total=total, reserved=total, allocation_ratio=ratio)


def test_a_wholly_reserved_host_has_what_its_totals_say() -> None:
    drained = {tier: reserved(64) for tier in SOLD}
    cloud = builders.cluster([host(**drained), OTHER])
    assert floors(cloud) == SOLD
    assert floors(cloud, quotas={"gold": "100%"}) == SOLD
    assert floors(cloud, quotas={"gold": 32}) == {
        "gold": round(512 / 756, 3),
        "silver": round(333 / 756, 3),
        "bronze": round(167 / 756, 3),
    }


def test_a_ratio_of_a_reserved_inventory_counts() -> None:
    drained = {tier: reserved(32, 2.0) for tier in SOLD}
    assert floors(builders.cluster([host(**drained), OTHER])) == SOLD


def test_a_drained_host_may_have_other_providers() -> None:
    child = builders.provider("h_numa", {"CUSTOM_LLC": 4}, root="h")
    drained = {tier: reserved(64) for tier in SOLD}
    cloud = builders.cluster([host(children=[child], **drained), OTHER])
    assert floors(cloud) == SOLD


def test_a_wholly_reserved_host_of_unknown_totals_promises_nothing() -> None:
    drained = {tier: reserved(None) for tier in SOLD}
    cloud = builders.cluster([host(**drained), OTHER])
    assert floors(cloud) == {}
    assert floors(cloud, quotas={"gold": 32}) == {}


def test_one_reserved_inventory_is_no_drain() -> None:
    cloud = builders.cluster([host(gold=reserved(64))])
    assert floors(cloud) == {
        "gold": 1.0,
        "silver": round(333 / 500, 3),
        "bronze": round(167 / 500, 3),
    }


def single_class(units: int | model.Inventory) -> model.Cluster:
    tiers = tuple(
        model.Tier(
            name=name,
            resource_class="VCPU_SHARES",
            cpu_shares=shares,
            multiplier=multiplier,
            rank=rank,
        )
        for rank, (name, (shares, multiplier)) in enumerate(
            model.BUILT_IN_TIERS.items(), 1
        )
    )
    bare = builders.host(
        "h",
        gold=None,
        silver=None,
        bronze=None,
        vcpus=4,
        more={"VCPU_SHARES": units},
    )
    return builders.cluster([bare], tiers=tiers, shares_class="VCPU_SHARES")


@pytest.mark.parametrize(
    ("units", "expected"),
    [
        (400, {"gold": 1.0, "silver": 0.5, "bronze": 0.25}),
        (800, {"gold": 0.5, "silver": 0.25, "bronze": 0.125}),
        (200, {"gold": 1.0, "silver": 1.0, "bronze": 0.5}),
        (reserved(400), {"gold": 1.0, "silver": 0.5, "bronze": 0.25}),
        (reserved(None), {}),
    ],
)
def test_multiples_of_one_class(
    units: int | model.Inventory, expected: dict[str, float]
) -> None:
    """The specification's host: 4 CPUs, 100 units each."""
    assert floors(single_class(units)) == expected


# --- thresholds


@pytest.mark.parametrize(
    ("floor", "expected"), [(0.0, 0.02), (0.165, 0.02), (0.506, 0.0506)]
)
def test_threshold_of_a_deficit(floor: float, expected: float) -> None:
    assert entitlement.threshold(floor) == pytest.approx(expected)
