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

"""The laws of the design, section 6, on small clouds of every kind.

L7 and L8 are in test_entitlement and test_relief, L9 is in test_scenarios.
"""

import dataclasses
import itertools
import random

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from tests import builders
from tests import checker
from tests import serial
from tests.property import clouds
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier.planner import labels
from watcher_cputier.planner import planning


def replay(case: clouds.Case) -> checker.Replay:
    return checker.Replay(case.cloud, case.policies, case.drained)


def everything(plan: planner.Plan) -> tuple[planner.Migration, ...]:
    return plan.migrations + plan.deferred


@given(clouds.cases())
def test_l1_no_host_is_more_over_quota_than_before(case: clouds.Case) -> None:
    """L1 "End state: no host is more over quota than before", in any tier;
    and the plan's own account of it is right.
    """
    plan = builders.planned(case.cloud, **case.params)
    event(f"migrations: {min(len(plan.migrations), 5)}")
    event(f"unresolved: {bool(plan.unresolved)}")
    before = replay(case)
    after = replay(case)
    for move in plan.migrations:
        after.start(move.instance, move.target)
        after.finish(move.instance, move.target)
    told = {k: n for k, n in plan.excess_before.items() if n}
    assert told == {k: n for k, n in before.excess().items() if n}
    told = {k: n for k, n in plan.excess_after.items() if n}
    assert told == {k: n for k, n in after.excess().items() if n}
    for key, units in after.excess().items():
        assert units <= before.excess()[key]


@given(clouds.cases())
def test_l1_what_stays_cannot_be_moved_after_the_plan(
    case: clouds.Case,
) -> None:
    """L1 "every excess that can be removed within the limits is removed":
    when the plan is done, no instance of an excess that stays could go
    anywhere; and each of them is named.
    """
    plan = builders.planned(case.cloud, **case.params)
    running = replay(case)
    for move in plan.migrations:
        running.move(move.instance, move.target)
    gone = {m.instance.uuid for m in plan.migrations}
    for item in plan.unresolved:
        stay = {
            i.uuid
            for i in case.cloud.instances
            if i.host == item.host and i.tier == item.tier
        } - gone
        assert stay == {r.instance.uuid for r in item.refusals}
        for uuid in stay:
            instance = case.cloud.instance_by_uuid[uuid]
            for host in case.cloud.hosts:
                if running.objections(instance, host.name):
                    continue
                # Only what Placement would not release is left to refuse.
                (refusal,) = [
                    r for r in item.refusals if r.instance.uuid == uuid
                ]
                assert refusal.rejection is not None
                assert refusal.rejection.rule in (
                    "releasable",
                    "source_in_service",
                )


@given(clouds.cases())
def test_l1_the_rest_is_listed(case: clouds.Case) -> None:
    """Excess after an uncapped plan and what is unresolved are one thing."""
    plan = builders.planned(case.cloud, **case.params)
    left = {k: n for k, n in plan.excess_after.items() if n}
    assert left == {(u.host, u.tier): u.units for u in plan.unresolved}


@given(clouds.cases())
@settings(max_examples=60)
def test_l2_every_migration_finds_its_room(case: clouds.Case) -> None:
    """In the order of the plan, and its own account of itself is right."""
    plan = builders.planned(case.cloud, **case.params)
    event(f"room made: {any(m.makes_room_for for m in plan.migrations)}")
    event(f"parked: {any(m.parking for m in plan.migrations)}")
    assert checker.judge(case.cloud, plan, case.policies, case.drained) == []


@given(clouds.cases(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
@settings(max_examples=60)
def test_l2_every_order_of_the_schedule_is_safe(
    case: clouds.Case, seed: int, failing: float
) -> None:
    """L2 "Every prefix of the schedule is Placement-safe with allocations
    held on both sides of each migration in flight, whatever the finishing
    order of parallel migrations, and whichever of them fail."
    """
    plan = builders.planned(case.cloud, **case.params)
    chance = random.Random(seed)
    params = {**case.params, "parallel_total": 8}
    made = serial.arranged(case.cloud, plan.migrations, **params)
    run = serial.execute(
        made, replay(case), chance, lambda _: chance.random() < failing
    )
    assert run.wrong == []


@given(clouds.cases())
def test_l3_a_plan_is_a_fixed_point(
    case: clouds.Case,
) -> None:
    """L3 "planning the resulting cluster again gives an empty plan"."""
    plan = builders.planned(case.cloud, **case.params)
    after = builders.applied(case.cloud, plan.migrations)
    assert builders.planned(after, **case.params).migrations == ()


@given(clouds.cases())
def test_l3_repeated_audits_end(case: clouds.Case) -> None:
    """L3 "No instance moves twice", "no ping-pong across audits with
    unchanged load": not even where departures make room for instances that
    had no target before.
    """
    cloud = case.cloud
    moved: set[str] = set()
    for _ in range(len(cloud.instances) + 1):
        plan = builders.planned(cloud, **case.params)
        if not plan.migrations:
            return
        assert sum(plan.excess_after.values()) < sum(
            plan.excess_before.values()
        )
        leaving = [m.instance.uuid for m in plan.migrations if not m.parking]
        assert len(leaving) == len(set(leaving))
        assert moved.isdisjoint(leaving)
        moved.update(leaving)
        cloud = builders.applied(cloud, plan.migrations)
    raise AssertionError("each instance has moved and there is still a plan")


@given(clouds.cases(), st.integers(1, 3))
def test_l3_capped_audits_end_too(case: clouds.Case, limit: int) -> None:
    """A cap only spreads the work over more audits: each of them relieves
    the cloud, or makes room that the next one needs; nobody goes back.
    """
    cloud = case.cloud
    params = {**case.params, "max_migrations": limit}
    been = {i.uuid: {i.host} for i in cloud.instances}
    most = sum(replay(case).excess().values()) + len(cloud.instances)
    for _ in range(most + 1):
        plan = builders.planned(cloud, **params)
        if not plan.migrations:
            assert not plan.deferred
            return
        assert len(plan.migrations) <= limit
        for move in plan.migrations:
            assert move.target not in been[move.instance.uuid]
            been[move.instance.uuid].add(move.target)
        cloud = builders.applied(cloud, plan.migrations)
    raise AssertionError(f"still a plan after {most} audits")


@given(clouds.cases(), st.randoms(use_true_random=False))
def test_l4_the_order_of_the_inputs_does_not_matter(
    case: clouds.Case, chance: random.Random
) -> None:
    """L4 "permuting hosts and instances never changes the plan"."""

    def shuffled(items: tuple) -> tuple:
        return tuple(chance.sample(items, len(items)))

    cloud = case.cloud
    turned = dataclasses.replace(
        cloud,
        hosts=shuffled(cloud.hosts),
        instances=shuffled(cloud.instances),
        held=dict(shuffled(tuple(cloud.held.items()))),
    )
    plan = builders.planned(cloud, **case.params)
    again = builders.planned(turned, **case.params)
    assert words(plan) == words(again)
    assert plan == again


def words(plan: planner.Plan) -> list[str]:
    """What an operator reads of a plan, byte for byte."""
    return [
        *(report.sentence(m) for m in everything(plan)),
        *(line for u in plan.unresolved for line in report.unresolved(u)),
    ]


@given(clouds.cases(), st.integers(0, 4))
def test_l5_the_lower_bound_is_one(case: clouds.Case, limit: int) -> None:
    """L5 "number of migrations >= the published lower bound": by trying
    all subsets, per host and tier, of what is there.
    """
    plan = builders.planned(
        case.cloud, **{**case.params, "max_migrations": limit}
    )
    fewest = 0
    for (host, tier), units in plan.excess_before.items():
        if plan.excess_after[host, tier]:
            return
        sizes = [
            i.units
            for i in case.cloud.instances
            if i.host == host and i.tier == tier
        ]
        fewest += brute_force(sizes, units)
    assert fewest <= plan.lower_bound <= len(plan.migrations)
    assert plan.optimal == (len(plan.migrations) == plan.lower_bound)


def brute_force(sizes: list[int], units: int) -> int:
    """The fewest of these sizes that make up so many units."""
    for count in range(len(sizes) + 1):
        if any(
            sum(chosen) >= units
            for chosen in itertools.combinations(sizes, count)
        ):
            return count
    raise AssertionError(f"{sizes} do not make up {units}")


@given(clouds.ample())
def test_l5_the_fewest_leave_where_all_have_targets(
    made: tuple[model.Cluster, list[int], int],
) -> None:
    """Differential: as few as an exhaustive search finds."""
    cloud, sizes, limit = made
    plan = builders.planned(cloud, max_migrations=0)
    assert len(plan.migrations) == brute_force(sizes, sum(sizes) - limit)
    assert plan.optimal
    assert plan.unresolved == ()


@given(clouds.cases(), st.integers(1, 6))
def test_l6_a_cap_keeps_the_most_valuable(
    case: clouds.Case, limit: int
) -> None:
    """L6 "max_migrations [...] always hold; when the cap cuts, the most
    valuable come first (... higher tier first; then gain per cost)".
    """
    whole = builders.planned(case.cloud, **case.params)
    plan = builders.planned(
        case.cloud, **{**case.params, "max_migrations": limit}
    )
    assert len(plan.migrations) <= limit
    assert bool(plan.migrations) == bool(whole.migrations)
    if plan.deferred:
        assert len(whole.migrations) > limit
    removed = [relieved(plan, tier.name) for tier in case.cloud.tiers]
    event(f"cut: {len(whole.migrations) > limit}")
    for prefix in prefixes(whole.migrations, limit):
        assert removed >= [
            sum(m.relief for m in prefix if m.tier == tier.name)
            for tier in case.cloud.tiers
        ]


def relieved(plan: planner.Plan, tier: str) -> int:
    """Units of excess of a tier that a plan removes."""
    return sum(
        units - plan.excess_after[host, name]
        for (host, name), units in plan.excess_before.items()
        if name == tier
    )


def prefixes(
    migrations: tuple[planner.Migration, ...], limit: int
) -> list[tuple[planner.Migration, ...]]:
    """What a plain cut would keep: the first so many."""
    return [migrations[:n] for n in range(min(limit, len(migrations)) + 1)]


@given(clouds.cases())
def test_nobody_moves_without_a_reason(case: clouds.Case) -> None:
    """Each migration relieves a host over quota, of its own tier, once."""
    plan = builders.planned(case.cloud, **case.params)
    seen = [m.instance.uuid for m in plan.migrations if not m.parking]
    assert len(seen) == len(set(seen))
    over = replay(case).excess()
    coming: set[str] = set()
    for move in reversed(plan.migrations):
        assert move.instance.tier == move.tier
        if move.relief:
            assert over[move.source, move.tier] > 0
            assert move.makes_room_for == ""
        else:
            # It makes room for the next to come, or goes on from where it
            # was parked.
            assert move.source in coming or move.instance.host != move.source
        coming.add(move.target)
    for key, units in plan.excess_before.items():
        relief = sum(
            m.relief for m in plan.migrations if (m.source, m.tier) == key
        )
        assert relief == units - plan.excess_after[key]


# Large clouds


@given(clouds.cases())
@settings(max_examples=40)
def test_the_ways_of_large_clouds_keep_the_laws(case: clouds.Case) -> None:
    """L1, L2 and L5 where the planner takes every cloud for a large one.

    From some thousand hosts on it looks less often and is content earlier;
    small clouds go the same ways here.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(labels, "_LARGE", 1)
        patch.setattr(planning, "_LARGE", 1)
        plan = builders.planned(case.cloud, **case.params)
    assert checker.judge(case.cloud, plan, case.policies, case.drained) == []
    assert len(plan.migrations) >= plan.lower_bound
    usual = builders.planned(case.cloud, **case.params)
    left = checker.residual(case.cloud, plan.excess_after)
    if left == checker.residual(case.cloud, usual.excess_after):
        assert plan.lower_bound <= len(usual.migrations)
