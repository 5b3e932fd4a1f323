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

"""Mixing: even shares, what comes of them, and how it is told."""

import dataclasses
from typing import Any

import pytest

from tests import builders
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier.planner import mixing


def mixed(cloud: model.Cluster, **params: Any) -> planner.Plan:
    given = {"mix_tiers": True, "max_migrations": 0, **params}
    return builders.planned(cloud, **given)


def held(cloud: model.Cluster, plan: planner.Plan) -> dict[str, list[int]]:
    """Units of each tier per host, by name, after a plan."""
    after = builders.applied(cloud, plan.migrations)
    return {
        tier.name: [
            after.held.get((h.name, tier.name), 0) for h in cloud.hosts
        ]
        for tier in cloud.tiers
    }


def account(plan: planner.Plan) -> planner.Mixing:
    assert plan.mixing is not None
    return plan.mixing


def segregated(free: int = 8) -> model.Cluster:
    """R81: all Gold on one host, all Silver on the other::

    a (64 of 64 Gold)   b (64 of 64 Silver), `free` VCPUs are free on each
    """
    return builders.cluster(
        [
            builders.host(name, gold=64, silver=64, vcpus=64 + free)
            for name in "ab"
        ],
        [
            *builders.instances("g", "a", [8] * 8),
            *builders.instances("s", "b", [8] * 8, "silver"),
        ],
    )


def lopsided(**hosts: model.Host) -> model.Cluster:
    """40 Gold units on a, none on the other hosts; 16 each is even."""
    return builders.cluster(
        [builders.host("a", gold=64), *hosts.values()],
        builders.instances("g", "a", [4] * 10),
    )


def test_it_is_off_unless_asked_for() -> None:
    """R84 "Mixing is an opt-in parameter"."""
    plan = builders.planned(segregated())
    assert plan.migrations == ()
    assert plan.mixing is None


def test_segregated_hosts_swap() -> None:
    """R82: each way in turn, for only one instance more fits anywhere."""
    cloud = segregated()
    plan = mixed(cloud)
    assert held(cloud, plan)["gold"] == [40, 24]
    assert held(cloud, plan)["silver"] == [24, 40]
    assert len(plan.migrations) == account(plan).lower_bound == 6
    assert {m.concern for m in plan.migrations} == {planner.MIXING}
    assert account(plan).optimal


def test_a_swap_without_any_room_is_none() -> None:
    """The fewest units that could move are not free anywhere."""
    plan = mixed(segregated(free=7))
    assert plan.migrations == ()
    assert str(account(plan)) == (
        "mixing finds no place for the 48 units above an even share"
    )


def test_the_next_audit_finds_nothing() -> None:
    cloud = segregated()
    after = builders.applied(cloud, mixed(cloud).migrations)
    again = mixed(after)
    assert again.migrations == ()
    assert str(account(again)) == "no host is above an even share of a tier"


@pytest.mark.parametrize(
    ("tolerance", "left"),
    [(0, 16), (0.1, 16), (0.25, 16), (1, 24), (2.3, 40)],
)
def test_the_tolerance(tolerance: float, left: int) -> None:
    """a may keep ceil(13.3.. x (1 + tolerance)), in instances of 4; with
    none at all 14 each, and the tenth instance has no place.
    """
    cloud = lopsided(
        b=builders.host("b", gold=64), c=builders.host("c", gold=64)
    )
    plan = mixed(cloud, mixing_tolerance=tolerance)
    assert held(cloud, plan)["gold"][0] == left


@pytest.mark.parametrize("tolerance", [-0.1, 11, "much"])
def test_no_tolerance(tolerance: Any) -> None:
    with pytest.raises(errors.ParameterError, match="mixing_tolerance"):
        mixed(segregated(), mixing_tolerance=tolerance)


def test_unequal_hosts_come_to_equal_utilisation() -> None:
    """R101: 60 units of 24 + 96; each may be used to 50 % and a quarter."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=24, vcpus=128),
            builders.host("b", gold=96, vcpus=128),
        ],
        [
            *builders.instances("s", "a", [2] * 12),
            *builders.instances("l", "b", [2] * 18),
        ],
    )
    plan = mixed(cloud)
    assert held(cloud, plan)["gold"] == [14, 46]
    assert len(plan.migrations) == 5


@pytest.mark.parametrize(
    ("fields", "params"),
    [
        ({"enabled": False}, {}),
        ({"up": False}, {}),
        ({"in_scope": False}, {}),
        ({}, {"drain_hosts": ["c"]}),
        ({"gold": None}, {}),
        ({"gold": 0}, {}),
    ],
)
def test_who_takes_no_part(
    fields: dict[str, Any], params: dict[str, Any]
) -> None:
    """c neither receives nor counts: up to 32 are even on a and b."""
    rest = {"gold": 64, **fields}
    cloud = lopsided(
        b=builders.host("b", gold=64), c=builders.host("c", **rest)
    )
    plan = mixed(cloud, mixing_tolerance=0.6, **params)
    assert held(cloud, plan)["gold"] == [32, 8, 0]


def test_who_takes_part() -> None:
    """The same with c: 40 units on three hosts, up to 22 on each."""
    cloud = lopsided(
        b=builders.host("b", gold=64), c=builders.host("c", gold=64)
    )
    plan = mixed(cloud, mixing_tolerance=0.6)
    assert held(cloud, plan)["gold"] == [20, 12, 8]


@pytest.mark.parametrize(
    ("quota", "enabled", "drained"),
    [(64, False, []), (16, False, []), (64, True, ["a"])],
)
def test_a_host_that_takes_no_part_is_left_alone(
    quota: int, enabled: bool, drained: list[str]
) -> None:
    """Its units are not for mixing to bring away, over quota or not, even
    where others have room within their shares.
    """
    cloud = builders.cluster(
        [
            builders.host("a", gold=quota, enabled=enabled),
            builders.host("b", gold=64, silver=64),
            builders.host("c", gold=64, silver=64),
        ],
        [
            *builders.instances("g", "a", [4] * 10),
            *builders.instances("h", "b", [4] * 4),
            *builders.instances("i", "c", [4] * 4),
            *builders.instances("s", "b", [4] * 10, "silver"),
        ],
    )
    plan = mixed(cloud, enforce_quota=False, drain_hosts=drained)
    assert {m.source for m in plan.migrations} == {"b"}


def test_an_even_share_is_within_the_quota() -> None:
    """The usual size is 16 units, and b may hold 12."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=80, vcpus=128),
            builders.host("b", gold=12),
            builders.host("c", gold=80, vcpus=128),
        ],
        [
            *builders.instances("g", "a", [16] * 4),
            *builders.instances("h", "b", [2] * 7),
        ],
    )
    plan = mixed(cloud, enforce_quota=False)
    assert held(cloud, plan)["gold"][1] == 12
    assert plan.excess_before == {("b", "gold"): 2}
    assert plan.excess_after == {("b", "gold"): 0}


def test_few_large_instances_are_spread_too() -> None:
    """The mean is 8 units, and no instance is that small."""
    cloud = builders.cluster(
        [builders.host(name, gold=112, vcpus=112) for name in "abcdefgh"],
        builders.instances("g", "a", [16] * 4),
    )
    plan = mixed(cloud)
    assert sorted(held(cloud, plan)["gold"]) == [0] * 4 + [16] * 4
    # One that is larger than half of them all together does not undo it.
    cloud = builders.moved_in(cloud, [builders.instance("big", "b", 60)])
    plan = mixed(cloud)
    assert held(cloud, plan)["gold"][0] == 16


def test_deleted_instances_are_made_up_for() -> None:
    """R96 "many Bronze VMs got deleted on HostA"."""

    def cloud(on_a: int) -> model.Cluster:
        return builders.cluster(
            [builders.host(name, bronze=64) for name in "abc"],
            [
                *builders.instances("a", "a", [4] * on_a, "bronze"),
                *builders.instances("b", "b", [4] * 10, "bronze"),
                *builders.instances("c", "c", [4] * 10, "bronze"),
            ],
        )

    assert mixed(cloud(on_a=10)).migrations == ()
    late = cloud(on_a=1)
    plan = mixed(late)
    assert {m.target for m in plan.migrations} == {"a"}
    assert held(late, plan)["bronze"] == [20, 32, 32]
    assert mixed(builders.applied(late, plan.migrations)).migrations == ()


def test_a_rack_without_the_tier_is_preferred() -> None:
    """R83: of equal targets the one in the other failure domain."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=64, failure_domain="rack-1"),
            builders.host("b", gold=64, failure_domain="rack-1"),
            builders.host("c", gold=64, failure_domain="rack-2"),
        ],
        builders.instances("g", "a", [4] * 5),
    )
    assert mixed(cloud).migrations[0].target == "c"


def test_quotas_come_first() -> None:
    """The instance that went for the quota stays where it went."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=16),
            builders.host("b", gold=64),
            builders.host("c", gold=64),
        ],
        [
            *builders.instances("g", "a", [8] * 3),
            *builders.instances("h", "b", [4] * 10),
        ],
    )
    plan = mixed(cloud)
    assert [m.concern for m in plan.migrations] == [
        planner.QUOTA,
        planner.MIXING,
        planner.MIXING,
    ]
    assert len({m.instance.uuid for m in plan.migrations}) == 3
    assert plan.lower_bound == 1
    assert plan.optimal
    assert account(plan).lower_bound == 2
    assert sum(plan.excess_after.values()) == 0


def test_nobody_moves_for_a_quota_and_again_for_mixing() -> None:
    """The drain sends it to c, where a stranger has all that is even."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=64),
            builders.host("b", gold=64, vcpus=5, memory_mb=5000),
            builders.host("c", gold=8),
        ],
        [
            builders.instance("mover", "a", 4, memory_mb=4096),
            builders.instance("stranger", "c", 4, known=False),
        ],
    )
    plan = mixed(cloud, drain_hosts=["a"])
    assert builders.moves(plan) == [("mover", "a", "c")]
    assert account(plan).units_after == 4


def test_mixing_gets_what_the_cap_leaves() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=32),
            builders.host("b", gold=64),
            builders.host("c", gold=64),
        ],
        builders.instances("g", "a", [8] * 6),
    )
    whole = mixed(cloud)
    concerns = [m.concern for m in whole.migrations]
    assert concerns == [planner.QUOTA] * 2 + [planner.MIXING] * 3
    some = mixed(cloud, max_migrations=3)
    assert some.migrations == whole.migrations[:3]
    assert [m.concern for m in some.deferred] == [planner.MIXING] * 2
    assert account(some).deferred == 2
    assert str(account(some)).endswith("max_migrations defers 2 more of them")
    for cap in (1, 2):
        none = mixed(cloud, max_migrations=cap)
        assert {m.concern for m in none.migrations} == {planner.QUOTA}
        assert str(account(none)) == "mixing waits until quotas are kept"


def test_mixing_alone() -> None:
    """With enforce_quota off an excess is told, and not seen to."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=64, silver=4),
            builders.host("b", gold=64, silver=4),
        ],
        [
            *builders.instances("g", "a", [4] * 10),
            builders.instance("s", "a", 8, "silver", locked=True),
        ],
    )
    plan = mixed(cloud, enforce_quota=False)
    assert {m.tier for m in plan.migrations} == {"gold"}
    assert plan.excess_before == {("a", "silver"): 4}
    assert plan.excess_after == {("a", "silver"): 4}
    off = builders.planned(cloud, enforce_quota=False)
    stays = model.frozen_map({("a", "silver"): 4})
    assert off == planner.Plan(excess_before=stays, excess_after=stays)


def test_an_excess_that_stays_lets_nothing_in() -> None:
    """b is over and cannot help it; what mixing ejects there is not made up
    for by others.
    """
    cloud = builders.cluster(
        [
            builders.host("a", gold=64),
            builders.host("b", gold=8),
            builders.host("c", gold=64),
        ],
        [
            *builders.instances("g", "a", [4] * 10),
            *builders.instances("l", "b", [6, 6], locked=True),
        ],
    )
    plan = mixed(cloud)
    assert {m.target for m in plan.migrations} == {"c"}
    assert plan.excess_after == {("b", "gold"): 4}
    assert [(u.host, u.units) for u in plan.unresolved] == [("b", 4)]


def test_single_class_mode() -> None:
    """A tier has no quota of its own; that of all tiers stands for it."""
    shares = "VCPU_SHARES"
    one = tuple(
        dataclasses.replace(tier, resource_class=shares)
        for tier in builders.BUILT_IN_TIERS
    )

    def guest(name: str, on: str, tier: str, units: int) -> model.Instance:
        return builders.instance(
            name,
            on,
            2,
            None,
            more={shares: units},
        )

    empty = model.Cluster(
        tiers=one,
        hosts=tuple(
            builders.host(
                name, gold=None, silver=None, bronze=None, more={shares: 1600}
            )
            for name in "ab"
        ),
        tier_classes=frozenset({shares}),
        shares_class=shares,
    )
    guests = [
        dataclasses.replace(
            guest(f"{tier}{n}", on, tier, units), tier=tier, units=units
        )
        for on, tier, units in (("a", "gold", 200), ("b", "silver", 100))
        for n in range(4)
    ]
    cloud = builders.moved_in(empty, guests)
    pool = {("a", shares): 800, ("b", shares): 400}
    cloud = dataclasses.replace(
        cloud, held=model.frozen_map({**cloud.held, **pool})
    )
    plan = mixed(cloud)
    leaving = sorted((m.source, m.tier) for m in plan.migrations)
    assert leaving == [("a", "gold")] * 2 + [("b", "silver")] * 2
    assert account(plan).units_after == 0
    after = mixing.after(cloud, plan.migrations)
    assert after.held["a", "gold"] == after.held["b", "gold"] == 400
    assert after.held["a", shares] == after.held["b", shares] == 600
    assert mixed(after).migrations == ()


def test_the_spread_is_told() -> None:
    plan = mixed(segregated())
    assert dict(account(plan).before)["gold"] == planner.Spread(
        mean=0.5, deviation=0.5, lowest=0.0, highest=1.0
    )
    assert dict(account(plan).after)["gold"] == planner.Spread(
        mean=0.5, deviation=0.125, lowest=0.375, highest=0.625
    )
    assert str(account(plan)) == (
        "6 migrations for mixing (standard deviation of utilisation: gold "
        "50.0% to 12.5%, silver 50.0% to 12.5%); no plan does it with fewer"
    )


def test_one_that_is_not_proven() -> None:
    found = dataclasses.replace(account(mixed(segregated())), lower_bound=5)
    assert str(found).endswith("; at least 5 are needed for that")


def test_a_migration_says_why() -> None:
    first = mixed(segregated()).migrations[0]
    assert first.reason == (
        "a holds 64 gold units, more than an even share of at most 40"
    )


def told(cloud: model.Cluster, **params: Any) -> str:
    typed = parameters.Parameters.of({"mix_tiers": True, **params})
    verdict = diagnosing.diagnose(cloud, typed)
    plan = planner.plan(cloud, verdict, typed)
    return report.summary(cloud, verdict, plan)


def test_the_summary_has_its_price() -> None:
    cloud = segregated()
    assert told(cloud) == (
        "None of 2 hosts is over its quota of gold, silver, bronze; "
        f"{mixed(cloud).mixing}"
    )
    even = builders.applied(cloud, mixed(cloud).migrations)
    assert told(even) == (
        "Nothing to do: none of 2 hosts is over its quota of gold, silver, "
        "bronze; no host is above an even share of a tier"
    )


def test_the_document_has_its_price() -> None:
    cloud = segregated()
    typed = parameters.Parameters.of({"mix_tiers": True})
    verdict = diagnosing.diagnose(cloud, typed)
    plan = planner.plan(cloud, verdict, typed)
    found = report.plan_document(cloud, verdict, plan)
    assert found["migrations"][0]["concern"] == "mixing"
    told = found["mixing"]
    assert (told["migrations"], told["lower_bound"]) == (6, 6)
    assert (told["units_before"], told["units_after"]) == (48, 0)
    assert told["after"]["gold"]["deviation"] == 0.125
    plain = report.plan_document(cloud, verdict, builders.planned(cloud))
    assert plain["mixing"] is None


def test_the_hosts_that_must_shed_are_read_in_detail() -> None:
    cloud = lopsided(b=builders.host("b", gold=64))
    off = parameters.Parameters.of()
    assert planner.hosts_to_detail(cloud, off) == frozenset()
    on = parameters.Parameters.of({"mix_tiers": True})
    assert planner.hosts_to_detail(cloud, on) == {"a"}


def test_a_step_is_skipped_once_its_host_has_its_share() -> None:
    """Not when it is within its quota, as it was all the time."""
    cloud = segregated()
    params = parameters.Parameters.of(
        {"mix_tiers": True, "quotas": {"gold": "90%", "silver": "100%"}}
    )
    plan = mixed(cloud)
    expected = guard.expectations(cloud, plan.migrations, params)
    assert guard.objection(cloud, expected[0]) == ""
    even = builders.applied(cloud, plan.migrations[1:])
    fewer = dataclasses.replace(
        even, held=model.frozen_map({**even.held, ("a", "gold"): 40})
    )
    assert "it holds 40 gold units of at most 40" in guard.objection(
        fewer, expected[0]
    )


def test_a_plan_some_of_which_is_left_out() -> None:
    """As with Watcher's own planner, which leaves steps to the next audit."""
    cloud = segregated()
    params = parameters.Parameters.of({"mix_tiers": True})
    verdict = diagnosing.diagnose(cloud, params)
    plan = planner.plan(cloud, verdict, params)
    some = dataclasses.replace(plan, migrations=plan.migrations[:4])
    found = planner.account_of_mixing(cloud, verdict, params, some)
    assert (found.migrations, found.deferred) == (4, 2)
    assert found.lower_bound == 4
    assert found.units_before == 48
    assert 0 < found.units_after < 48
