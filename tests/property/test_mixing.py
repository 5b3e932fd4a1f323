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

"""Mixing on small clouds of every kind: what it must never do, and its end.

The even shares are computed here once more, from the contract and not from
the planner.
"""

import dataclasses
import fractions
import math
import random
from typing import Any

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests import builders
from tests import checker
from tests import serial
from tests.property import clouds
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier.planner import mixing


def mixed(case: clouds.Case, **more: Any) -> planner.Plan:
    params = {**case.params, "mix_tiers": True, **more}
    return builders.planned(case.cloud, **params)


def for_quota(plan: planner.Plan) -> tuple[planner.Migration, ...]:
    return tuple(m for m in plan.migrations if m.concern == planner.QUOTA)


def for_mixing(plan: planner.Plan) -> tuple[planner.Migration, ...]:
    return tuple(m for m in plan.migrations if m.concern == planner.MIXING)


def shares(
    case: clouds.Case, cloud: model.Cluster, tolerance: str = "0.25"
) -> dict[tuple[str, str], int]:
    """The oracle: ceil(mean utilisation x quota x (1 + tolerance)), no less
    than the usual size of an instance, no more than the quota.
    """
    books = checker.Replay(cloud, case.policies, case.drained)
    factor = 1 + fractions.Fraction(tolerance)
    found = {}
    for tier in cloud.tiers:
        quotas = {
            host.name: books.quota(host, tier)
            for host in cloud.hosts
            if host.in_scope and host.enabled and host.up
        }
        quotas = {name: units for name, units in quotas.items() if units}
        if not quotas:
            continue
        held = sum(cloud.held.get((name, tier.name), 0) for name in quotas)
        mean = fractions.Fraction(held, sum(quotas.values()))
        sizes = [
            i.units
            for i in cloud.instances
            if i.host in quotas and i.tier == tier.name
        ]
        usual = next(
            (
                size
                for size in sorted(sizes)
                if 2 * sum(s for s in sizes if s <= size) >= sum(sizes)
            ),
            0,
        )
        for name, units in quotas.items():
            fair = max(math.ceil(mean * units * factor), usual)
            found[name, tier.name] = min(units, fair)
    return found


@given(clouds.cases())
def test_quotas_come_first(case: clouds.Case) -> None:
    """What is done for quotas is what is done without mixing, and before
    it; nobody moves for both.
    """
    alone = builders.planned(case.cloud, **case.params)
    plan = mixed(case)
    assert plan.mixing is not None
    event(f"mixing: {min(plan.mixing.migrations, 5)}")
    event(f"quota: {bool(alone.migrations)}")
    first = for_quota(plan)
    assert plan.migrations == (*first, *for_mixing(plan))
    assert first == alone.migrations
    assert plan.lower_bound == alone.lower_bound
    assert plan.optimal == alone.optimal
    moved = {m.instance.uuid for m in first}
    assert moved.isdisjoint(m.instance.uuid for m in for_mixing(plan))


@given(clouds.cases())
@settings(max_examples=25)
def test_no_quota_is_broken_and_nobody_goes_where_they_must_not(
    case: clouds.Case,
) -> None:
    """L1, L2 and L5 hold of the whole: each migration finds its room within
    quotas, no host is more over them than before, none is drained or out of
    service.
    """
    plan = mixed(case)
    wrong = checker.judge(case.cloud, plan, case.policies, case.drained)
    # Relief is of excess for quotas, and of an even share for mixing.
    assert [text for text in wrong if not text.startswith("relief of")] == []


@given(clouds.cases(), st.integers(0, 2**32), st.sampled_from([0.0, 0.3]))
def test_every_order_of_its_schedule_is_safe(
    case: clouds.Case, seed: int, failing: float
) -> None:
    """L2 "whatever the finishing order of parallel migrations, and
    whichever of them fail".
    """
    plan = mixed(case)
    chance = random.Random(seed)
    params = {**case.params, "parallel_total": 8}
    made = serial.arranged(case.cloud, plan.migrations, **params)
    books = checker.Replay(case.cloud, case.policies, case.drained)
    run = serial.execute(
        made, books, chance, lambda _: chance.random() < failing
    )
    assert run.wrong == []


@given(clouds.cases(), st.sampled_from(["0", "0.1", "0.25", "2"]))
@settings(max_examples=25)
def test_only_hosts_below_their_even_share_receive(
    case: clouds.Case, tolerance: str
) -> None:
    """No host is above its even share that was not, none is further above
    it, and the account that the plan gives of that is right.
    """
    plan = mixed(case, mixing_tolerance=float(tolerance))
    assert plan.mixing is not None
    start = builders.applied(case.cloud, for_quota(plan))
    end = builders.applied(case.cloud, plan.migrations)
    above = {"before": 0, "after": 0}
    for key, share in shares(case, start, tolerance).items():
        before, after = start.held.get(key, 0), end.held.get(key, 0)
        assert after <= max(before, share)
        above["before"] += max(0, before - share)
        above["after"] += max(0, after - share)
    assert plan.mixing.units_before == above["before"]
    assert plan.mixing.units_after == above["after"]
    event(f"all even: {above['before'] > above['after'] == 0}")


@given(clouds.cases())
@settings(max_examples=25)
def test_it_is_a_fixed_point(case: clouds.Case) -> None:
    """L3: planning the result again gives nothing.

    Where the first audit had quotas to see to as well, those whom it moved
    for them could not move again, and may do so once.
    """
    plan = mixed(case)
    cloud = builders.applied(case.cloud, plan.migrations)
    again = builders.planned(cloud, **case.params, mix_tiers=True)
    assert plan.mixing is not None
    if not plan.mixing.units_after:
        assert again.migrations == ()
    if not for_quota(plan):
        assert again.migrations == ()
    assert for_quota(again) == ()


@given(clouds.cases(), st.integers(1, 3))
def test_repeated_audits_end(case: clouds.Case, limit: int) -> None:
    """L3 "no ping-pong across audits": once quotas are kept each audit
    leaves fewer units above even shares, or is empty; cap or no cap.
    """
    params = {**case.params, "mix_tiers": True, "max_migrations": limit}
    cloud = case.cloud
    most = 2 * sum(i.units for i in cloud.instances) + 2
    for _ in range(most):
        plan = builders.planned(cloud, **params)
        assert plan.mixing is not None
        assert len(plan.migrations) <= limit
        if not plan.migrations:
            assert not plan.deferred
            return
        if plan.mixing.migrations and not plan.mixing.deferred:
            assert plan.mixing.units_after < plan.mixing.units_before
        assert plan.mixing.units_after <= plan.mixing.units_before
        cloud = builders.applied(cloud, plan.migrations)
    raise AssertionError(f"still a plan after {most} audits")


@given(clouds.cases(), st.integers(0, 4))
def test_the_cap_is_shared_and_quotas_are_served_first(
    case: clouds.Case, limit: int
) -> None:
    """L6 "violations before starvation before mixing"."""
    plan = mixed(case, max_migrations=limit)
    alone = builders.planned(
        case.cloud, **{**case.params, "max_migrations": limit}
    )
    assert plan.mixing is not None
    if limit:
        assert len(plan.migrations) <= limit
    assert for_quota(plan) == alone.migrations
    if alone.deferred:
        assert for_mixing(plan) == ()
        assert plan.mixing.waits
    assert plan.mixing.migrations == len(for_mixing(plan))
    assert plan.mixing.lower_bound <= plan.mixing.migrations
    assert plan.mixing.deferred == sum(
        1 for m in plan.deferred if m.concern == planner.MIXING
    )


@given(clouds.cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_inputs_does_not_matter(
    case: clouds.Case, chance: random.Random
) -> None:
    """L4, of mixing."""

    def shuffled(items: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(chance.sample(items, len(items)))

    turned = dataclasses.replace(
        case.cloud,
        hosts=shuffled(case.cloud.hosts),
        instances=shuffled(case.cloud.instances),
        held=dict(shuffled(tuple(case.cloud.held.items()))),
    )
    params = {**case.params, "mix_tiers": True}
    again = builders.planned(turned, **params)
    assert mixed(case) == again


@given(clouds.cases())
def test_after_a_plan_the_books_are_those_of_the_cloud(
    case: clouds.Case,
) -> None:
    """The state that mixing begins with, against a cloud built anew."""
    plan = builders.planned(case.cloud, **case.params)
    expected = builders.applied(case.cloud, plan.migrations)
    found = mixing.after(case.cloud, plan.migrations)
    assert found.instances == expected.instances
    assert allocated(found) == allocated(expected)
    assert {k: n for k, n in found.held.items() if n} == {
        k: n for k, n in expected.held.items() if n
    }


def allocated(cloud: model.Cluster) -> dict[tuple[str, str], int]:
    return {
        (provider.uuid, name): units
        for host in cloud.hosts
        for provider in (*host.providers, *host.shared)
        for name, units in provider.allocated.items()
        if units
    }
