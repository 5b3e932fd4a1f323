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

"""The planner against exhaustive search over all reachable states."""

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import pytest

from tests import builders
from tests import checker
from tests import oracle
from tests.property import clouds
from tests.property import tiny

# Seeds of tiny.seeded: direct moves alone do not reach the optimum there,
# which takes three migrations or more.
HARD = (
    36, 52, 83, 116, 191, 248, 323, 345, 381, 435, 465, 485, 545, 621,
    651, 746, 766, 777, 799, 964, 1003, 1016, 1017, 1022, 1032, 1095,
    1169, 1299, 1330, 1552, 1647, 1675, 1708, 1722, 1772, 1794, 1795,
    1898, 1914, 2000, 2019, 2105, 2158, 2173, 2188, 2199, 2209, 2276,
    2296, 2358, 2361, 2376, 2492, 2610, 2666, 2672, 2694, 2737, 2758,
    2795, 2846, 2915, 3000, 3031, 3045, 3202, 3204, 3222, 3247, 3298,
    3332, 3505, 3541, 3707, 3722, 3811, 3826, 3880, 3881, 3904, 3962,
    4058, 4116, 4131, 4392, 4417, 4423, 4431, 4481, 4573, 4594, 4625,
    4685, 4780, 4830, 4874, 4893, 5111, 5117, 5153,
)  # fmt: skip


def differences(case: clouds.Case) -> list[str]:
    """What the laws and the truth have against the plan.

    The truth is the least residual, the highest tier first, with the fewest
    migrations that any order can reach. Each step is safe (L2), and the
    bounds that the plan publishes are bounds (L5).
    """
    plan = builders.planned(case.cloud, **case.params)
    best = oracle.truth(case.cloud, case.policies, case.drained)
    wrong = checker.judge(case.cloud, plan, case.policies, case.drained)
    left = checker.residual(case.cloud, plan.excess_after)
    if (left, len(plan.migrations)) != (best.residual, best.migrations):
        wrong.append(
            f"{left} stays after {len(plan.migrations)} migrations, and "
            f"{best.residual} after {best.migrations}: {best.steps}"
        )
    if left == best.residual and plan.lower_bound > best.migrations:
        wrong.append(f"{plan.lower_bound} is no bound: {best.steps}")
    return wrong


@given(tiny.cases())
@settings(max_examples=150)
def test_the_plan_is_what_trying_everything_finds(case: clouds.Case) -> None:
    assert differences(case) == []


@pytest.mark.parametrize("seed", HARD)
def test_hard_cases(seed: int) -> None:
    assert differences(tiny.seeded(seed)) == []


def cut_short(case: clouds.Case, cap: int) -> list[str]:
    """What the truth has against a plan that ``max_migrations`` cuts.

    The truth is the least residual, the highest tier first, that so many
    migrations reach; its relief is within the bound that the plan publishes.
    """
    plan = builders.planned(
        case.cloud, **{**case.params, "max_migrations": cap}
    )
    if plan.relief_bound is None:
        return []
    best = oracle.truth(case.cloud, case.policies, case.drained, most=cap)
    left = checker.residual(case.cloud, plan.excess_after)
    before = checker.residual(case.cloud, plan.excess_before)
    wrong = []
    if left != best.residual:
        wrong.append(f"{left} stays, and {best.residual} after {best.steps}")
    if sum(before) - sum(best.residual) > plan.relief_bound:
        wrong.append(f"{plan.relief_bound} is no bound: {best.steps}")
    return wrong


@given(tiny.cases(), st.integers(1, 3))
@settings(max_examples=60)
def test_a_cap_keeps_what_is_most_worth(case: clouds.Case, cap: int) -> None:
    """L6 "when the cap cuts, the most valuable come first"."""
    assert cut_short(case, cap) == []


@pytest.mark.parametrize("cap", (1, 2, 3))
@pytest.mark.parametrize("seed", HARD[::8])
def test_hard_cases_that_are_cut(seed: int, cap: int) -> None:
    assert cut_short(tiny.seeded(seed), cap) == []


@pytest.mark.parametrize("first", range(0, 60, 6))
def test_zones_side_by_side(first: int) -> None:
    """Clouds that are too large to try everything at once, and the truth is
    known all the same: what is best for each zone. The plan attains it, says
    so, and keeps the laws.
    """
    cases = [tiny.seeded(seed) for seed in HARD[first : first + 6]]
    case = tiny.side_by_side(cases)
    truths = [oracle.truth(c.cloud, c.policies, c.drained) for c in cases]
    plan = builders.planned(case.cloud, **case.params)
    assert checker.judge(case.cloud, plan, {}, case.drained) == []
    left = checker.residual(case.cloud, plan.excess_after)
    # A case with gold alone has nothing of silver.
    assert left == tuple(
        sum(t.residual[i] for t in truths if i < len(t.residual))
        for i in range(len(left))
    )
    assert plan.residual_bound <= sum(left)
    assert len(plan.migrations) == sum(t.migrations for t in truths)
    assert plan.optimal
