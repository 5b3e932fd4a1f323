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

L7 waits for entitlements, L8 for telemetry and L9 for scenarios.
"""

import dataclasses
import itertools
import random

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests import builders
from tests import checker
from tests.property import clouds
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import report


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
def test_l1_what_stays_cannot_be_moved_beside_the_plan(
    case: clouds.Case,
) -> None:
    """L1 "every excess that can be removed within the limits is removed":
    no instance of an excess that stays could go anywhere as well, with both
    sides of the plan's migrations held; and each of them is named.
    """
    plan = builders.planned(case.cloud, **case.params)
    running = replay(case)
    for move in plan.migrations:
        running.start(move.instance, move.target)
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


@given(clouds.cases(), st.integers(0, 2**32))
@settings(max_examples=100)
def test_l2_every_order_is_safe(case: clouds.Case, seed: int) -> None:
    """L2 "Every prefix of the schedule is Placement-safe with allocations
    held on both sides of each migration in flight, whatever the finishing
    order of parallel migrations, and whichever of them fail."

    The migrations start in any order here, end in any order, and any of them
    fail: the plan promises as much.
    """
    plan = builders.planned(case.cloud, **case.params)
    books = replay(case)
    chance = random.Random(seed)
    waiting = [(m.instance, m.target) for m in plan.migrations]
    chance.shuffle(waiting)
    flying: list[tuple[model.Instance, str]] = []
    while waiting or flying:
        if waiting and (not flying or chance.random() < 0.6):
            move = waiting.pop()
            assert books.start(*move) == []
            flying.append(move)
        else:
            move = flying.pop(chance.randrange(len(flying)))
            chance.choice([books.finish, books.fail])(*move)


@given(clouds.cases())
def test_l2_all_at_once_is_safe(case: clouds.Case) -> None:
    """The fullest that the cloud can get: everything in flight."""
    plan = builders.planned(case.cloud, **case.params)
    books = replay(case)
    for move in plan.migrations:
        assert books.start(move.instance, move.target) == []


@given(clouds.cases())
def test_l3_a_plan_that_solves_all_is_a_fixed_point(
    case: clouds.Case,
) -> None:
    """L3 "planning the resulting cluster again gives an empty plan"."""
    plan = builders.planned(case.cloud, **case.params)
    if plan.unresolved:
        return
    after = builders.applied(case.cloud, plan.migrations)
    assert builders.planned(after, **case.params) == planner.Plan()


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
        leaving = [m.instance.uuid for m in plan.migrations]
        assert len(leaving) == len(set(leaving))
        assert moved.isdisjoint(leaving)
        moved.update(leaving)
        cloud = builders.applied(cloud, plan.migrations)
    raise AssertionError("each instance has moved and there is still a plan")


@given(clouds.cases(), st.integers(1, 3))
def test_l3_capped_audits_end_too(case: clouds.Case, limit: int) -> None:
    """A cap only spreads the work over more audits."""
    cloud = case.cloud
    params = {**case.params, "max_migrations": limit}
    moved: set[str] = set()
    for _ in range(len(cloud.instances) + 1):
        plan = builders.planned(cloud, **params)
        if not plan.migrations:
            assert not plan.deferred
            return
        leaving = {m.instance.uuid for m in plan.migrations}
        assert moved.isdisjoint(leaving)
        moved |= leaving
        cloud = builders.applied(cloud, plan.migrations)
    raise AssertionError("each instance has moved and there is still a plan")


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
        sizes = [
            i.units
            for i in case.cloud.instances
            if i.host == host and i.tier == tier
        ]
        fewest += brute_force(sizes, units - plan.excess_after[host, tier])
    assert plan.lower_bound == fewest
    assert len(plan.migrations) >= plan.lower_bound
    assert plan.optimal == (len(plan.migrations) == fewest)


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
    assert len(plan.migrations) == min(limit, len(whole.migrations))
    assert everything(plan) == whole.migrations
    rank = {tier.name: tier.rank for tier in case.cloud.tiers}
    values = [(rank[m.tier], -m.relief) for m in everything(plan)]
    assert values == sorted(values)


@given(clouds.cases())
def test_nobody_moves_without_a_reason(case: clouds.Case) -> None:
    """Each migration relieves a host over quota, of its own tier, once."""
    plan = builders.planned(case.cloud, **case.params)
    seen = [m.instance.uuid for m in plan.migrations]
    assert len(seen) == len(set(seen))
    over = replay(case).excess()
    for move in plan.migrations:
        assert move.instance.host == move.source
        assert move.instance.tier == move.tier
        assert over[move.source, move.tier] > 0
        assert 0 < move.relief <= move.units
    for key, units in plan.excess_before.items():
        relief = sum(
            m.relief for m in plan.migrations if (m.source, m.tier) == key
        )
        assert relief == units - plan.excess_after[key]
