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

"""How tiers are counted: one class each, or multiples of a single class."""

from typing import Any

import pytest

from tests import builders
from watcher_cputier import accounting
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters

GOLD = builders.class_of("gold")
SILVER = builders.class_of("silver")
SHARES = "CUSTOM_VCPU_SHARES"
TIERS = builders.BUILT_IN_TIERS
PER_TIER = accounting.ClassPerTier(TIERS)
SINGLE = accounting.SingleClass(TIERS, SHARES)


CHOICES: dict[str, tuple[set[str], str, str | None, str | None]] = {
    "classes are there": ({GOLD}, "auto", None, None),
    "both are there": ({GOLD, SHARES}, "auto", None, None),
    "shares alone are there": ({SHARES}, "auto", None, SHARES),
    "the standard class": ({"VCPU_SHARES"}, "auto", None, "VCPU_SHARES"),
    "both names": ({SHARES, "VCPU_SHARES"}, "auto", None, "VCPU_SHARES"),
    "nothing is there": ({"VCPU"}, "auto", None, None),
    "shares are meant": ({GOLD, SHARES}, "shares", None, SHARES),
    "shares are meant, none there": (set(), "shares", None, "VCPU_SHARES"),
    "classes are meant": ({SHARES}, "classes", None, None),
    "a name of its own": ({"CUSTOM_X"}, "auto", "CUSTOM_X", "CUSTOM_X"),
    "not the name": ({SHARES}, "auto", "CUSTOM_X", None),
    "a name that is meant": (set(), "shares", "CUSTOM_X", "CUSTOM_X"),
}


@pytest.mark.parametrize("case", CHOICES)
def test_the_mode(case: str) -> None:
    """auto: a class per tier wherever some host has one."""
    present, mode, name, expected = CHOICES[case]
    found = accounting.choose(TIERS, frozenset(present), mode, name)
    assert found.shares_class == expected
    if expected is None:
        assert found.tiers == TIERS
        assert found.classes == {t.resource_class for t in TIERS}
    else:
        assert found.classes == {expected}
        assert {t.resource_class for t in found.tiers} == {expected}


def plain(vcpus: int, **more: int) -> model.Flavor:
    return builders.flavor(vcpus, None, more=more)


@pytest.mark.parametrize(
    ("flavor", "claim"),
    [
        (plain(2), None),
        (plain(2, **{GOLD: 2}), ("gold", 2, False)),
        (plain(2, **{SILVER: 1}), ("silver", 1, False)),
        (plain(2, **{SILVER: 2, GOLD: 1}), ("gold", 1, True)),
    ],
)
def test_a_claim_by_class(
    flavor: model.Flavor, claim: tuple[str, int, bool] | None
) -> None:
    found = PER_TIER.asked(flavor)
    told = found and (found.tier, found.units, bool(found.doubt))
    assert told == claim


@pytest.mark.parametrize(
    ("vcpus", "units", "claim"),
    [
        (2, 0, None),
        (2, 200, ("gold", 200)),
        (2, 100, ("silver", 100)),
        (1, 100, ("gold", 100)),
        (2, 50, ("bronze", 50)),
        (2, 199, (None, 199)),
        (2, 300, (None, 300)),
    ],
)
def test_a_claim_by_multiplier(
    vcpus: int, units: int, claim: tuple[str | None, int] | None
) -> None:
    """R33: 2 x 100 is Gold on two vCPUs."""
    found = SINGLE.asked(plain(vcpus, **{SHARES: units}))
    assert (found and (found.tier, found.units)) == claim
    held = SINGLE.held({SHARES: units}, vcpus)
    assert held == ({claim[0]: claim[1]} if claim else {})


def test_a_fractional_multiplier_is_rounded() -> None:
    tier = model.Tier(
        name="odd",
        resource_class="X",
        cpu_shares=1,
        multiplier=32.6,
        rank=1,
    )
    single = accounting.SingleClass((tier,), SHARES)
    asked = [
        single.asked(plain(3, **{SHARES: units})) for units in (97, 98, 99)
    ]
    assert [a and a.tier for a in asked] == [None, "odd", None]


def test_amounts_by_account() -> None:
    amounts = {GOLD: 2, SILVER: 0, SHARES: 7, "VCPU": 9}
    assert PER_TIER.totals(amounts) == {"gold": 2}
    assert SINGLE.totals(amounts) == {SHARES: 7}


# --- decisions in single-class mode


def shared_cloud(
    capacities: dict[str, int], guests: list[tuple[str, str, str, int]]
) -> model.Cluster:
    """Hosts with share capacities; guests: name, host, tier, vCPUs.

    The books are made by hand: shares count for the tier and for the class.
    """
    bare: dict[str, Any] = {"gold": None, "silver": None, "bronze": None}
    instances = []
    held: dict[tuple[str, str], int] = {}
    used: dict[str, int] = {}
    for name, home, tier, vcpus in guests:
        units = int(builders.MULTIPLIERS.get(tier, 25.0) * vcpus)
        instances.append(
            builders.instance(
                name,
                home,
                units,
                tier,
                flavor=plain(vcpus, **{SHARES: units}),
                allocations={home: {SHARES: units}},
            )
        )
        for account in (tier, SHARES):
            key = (home, account)
            held[key] = held.get(key, 0) + units
        used[home] = used.get(home, 0) + units
    return model.Cluster(
        tiers=SINGLE.tiers,
        hosts=tuple(
            builders.host(
                name,
                more={SHARES: units},
                allocated={SHARES: used.get(name, 0)},
                **bare,
            )
            for name, units in capacities.items()
        ),
        instances=tuple(instances),
        held=held,
        tier_classes=frozenset({SHARES}),
        shares_class=SHARES,
    )


def excesses(cloud: model.Cluster, **given: Any) -> list[tuple[Any, ...]]:
    found = diagnosing.diagnose(cloud, parameters.Parameters.of(given))
    return [(e.host, e.tier, e.units) for e in found.excesses]


MIXED = [("g", "a", "gold", 2), ("s", "a", "silver", 2)]


def test_all_tiers_draw_on_one_capacity() -> None:
    cloud = shared_cloud({"a": 250, "b": 400}, MIXED)
    assert excesses(cloud) == [("a", SHARES, 50)]


def test_a_tier_has_a_quota_of_its_own_only_by_policy() -> None:
    cloud = shared_cloud({"a": 400, "b": 400}, MIXED)
    assert excesses(cloud) == []
    assert excesses(cloud, quotas={"gold": 150}) == [("a", "gold", 50)]
    # Percentages are of the share capacity.
    assert excesses(cloud, quotas={"gold": "25%"}) == [("a", "gold", 100)]


def test_the_cheapest_cover_of_the_class_leaves() -> None:
    """50 shares over: either would do, Silver is the smaller one."""
    cloud = shared_cloud({"a": 250, "b": 400}, MIXED)
    plan = builders.planned(cloud)
    assert builders.moves(plan) == [("s", "a", "b")]
    assert plan.optimal


def test_what_leaves_for_its_tier_relieves_the_class_too() -> None:
    """Gold is over its policy; the class is cured by the same move."""
    cloud = shared_cloud({"a": 250, "b": 400}, MIXED)
    plan = builders.planned(cloud, quotas_by_host={"a": {"gold": 100}})
    assert builders.moves(plan) == [("g", "a", "b")]
    assert set(plan.excess_after.values()) == {0}
    assert plan.lower_bound == 1


def test_a_target_without_shares_is_not_chosen() -> None:
    cloud = shared_cloud({"a": 250, "b": 99}, MIXED)
    plan = builders.planned(cloud)
    assert plan.migrations == ()
    (item,) = plan.unresolved
    assert (item.host, item.tier, item.units) == ("a", SHARES, 50)


def test_a_drain_moves_all_tiers() -> None:
    cloud = shared_cloud({"a": 400, "b": 400}, MIXED)
    plan = builders.planned(cloud, drain_hosts=["a"])
    assert sorted(m.instance.name for m in plan.migrations) == ["g", "s"]
    assert plan.lower_bound == 2
    assert plan.optimal
