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

"""Law L2 on serial plans of every kind, chains and parked instances too."""

import dataclasses
import itertools
import random

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests import builders
from tests import checker
from tests import serial
from tests.property import clouds
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import schedule as scheduling

LIMITS = st.fixed_dictionaries(
    {
        "parallel_total": st.integers(1, 6),
        "parallel_per_source": st.integers(1, 3),
        "parallel_per_target": st.integers(1, 3),
    }
)


@st.composite
def full(draw: st.DrawFn) -> clouds.Case:
    """Few hosts with next to nothing free, some of them over their quota.

    Gold, memory and places in a server group bind, each somewhere.
    """
    names = [f"h{n}" for n in range(draw(st.integers(2, 5)))]
    guests = []
    hosts = []
    for name in names:
        sizes = draw(st.lists(st.sampled_from([1, 2, 4]), max_size=4))
        memory = draw(st.lists(st.integers(1, 4), min_size=4, max_size=4))
        guests += [
            builders.instance(
                f"{name}-{n}", name, size, memory_mb=1024 * memory[n]
            )
            for n, size in enumerate(sizes)
        ]
        used = sum(memory[: len(sizes)])
        hosts.append(
            builders.host(
                name,
                gold=max(0, sum(sizes) + draw(st.integers(-3, 4))),
                memory_mb=1024 * max(1, used + draw(st.integers(0, 5))),
            )
        )
    groups = []
    if len(guests) > 2 and draw(st.booleans()):
        members = draw(
            st.sets(
                st.sampled_from([g.uuid for g in guests]),
                min_size=2,
                max_size=4,
            )
        )
        groups.append(
            builders.server_group(
                draw(st.sampled_from(["anti-affinity", "affinity"])),
                members,
                limit=draw(st.integers(1, 2)),
            )
        )
    return clouds.Case(
        cloud=builders.cluster(hosts, guests, server_groups=tuple(groups)),
        policies={"gold": draw(st.integers(2, 9))}
        if draw(st.booleans())
        else {},
        drained=[],
    )


PLANS = st.tuples(
    st.one_of(full(), full(), clouds.cases()), st.integers(0, 2**32)
)


def plan_of(
    case: clouds.Case, seed: int, limits: dict[str, int]
) -> tuple[scheduling.Schedule, random.Random]:
    chance = random.Random(seed)
    moves = serial.by_chance(
        case.cloud, chance, 14, case.policies, case.drained
    )
    made = serial.arranged(case.cloud, moves, **{**case.params, **limits})
    needing = sum(1 for step in made.steps if step.needs)
    event(f"steps that need others: {min(needing, 5)}")
    event(f"parked: {any(m.parking for m in moves)}")
    return made, chance


def replay(case: clouds.Case) -> checker.Replay:
    return checker.Replay(case.cloud, case.policies, case.drained)


@given(PLANS, LIMITS, st.sampled_from([0.0, 0.2, 0.6]))
@settings(max_examples=300)
def test_l2_any_execution_is_safe(
    plan: tuple[clouds.Case, int], limits: dict[str, int], failing: float
) -> None:
    """L2 "Every prefix of the schedule is Placement-safe with allocations
    held on both sides of each migration in flight, whatever the finishing
    order of parallel migrations, and whichever of them fail."; L6 "per-host
    and per-plan concurrency always hold".
    """
    case, seed = plan
    made, chance = plan_of(case, seed, limits)
    before = replay(case).excess()
    books = replay(case)
    run = serial.execute(
        made, books, chance, lambda _: chance.random() < failing
    )
    assert run.wrong == []
    assert run.most[0] <= limits["parallel_total"]
    assert run.most[1] <= limits["parallel_per_source"]
    assert run.most[2] <= limits["parallel_per_target"]
    if not failing:
        assert all(run.outcomes)
    for key, units in books.excess().items():
        assert units <= before[key]


@given(PLANS)
def test_l2_watchers_own_pairs_are_safe(plan: tuple[clouds.Case, int]) -> None:
    """The same for the order in which the pairs of ``weight`` run; every
    step is in it or left out, and nothing in it needs what is left out.
    """
    case, seed = plan
    made, chance = plan_of(case, seed, {})
    pairs = scheduling.pairs(made, parameters.Parameters.of(case.params))
    assert sorted(pairs.order + pairs.left_out) == list(range(len(made.steps)))
    assert serial.execute_pairs(pairs.order, made, replay(case), chance) == []
    for step in pairs.order:
        assert set(made.steps[step].needs) <= set(pairs.order)


@given(PLANS, LIMITS)
def test_the_expected_times_keep_edges_limits_and_the_bound(
    plan: tuple[clouds.Case, int], limits: dict[str, int]
) -> None:
    """Expected starts are what the edges and the limits allow."""
    case, seed = plan
    made, _ = plan_of(case, seed, limits)
    for step in made.steps:
        assert not set(step.needs) & set(step.after)
        for parent in step.parents:
            assert made.steps[parent].end <= step.start
    last = max((step.end for step in made.steps), default=0.0)
    assert made.makespan_seconds == last
    assert made.makespan_bound_seconds <= last + 1e-9


@given(PLANS, st.randoms(use_true_random=False))
def test_l4_the_order_of_the_inputs_does_not_matter(
    plan: tuple[clouds.Case, int], chance: random.Random
) -> None:
    """L4, as far as the schedule adds to it."""
    case, seed = plan
    cloud = case.cloud
    moves = serial.by_chance(
        cloud, random.Random(seed), 14, case.policies, case.drained
    )

    def edges(seen: model.Cluster) -> scheduling.Schedule:
        return serial.arranged(seen, moves, **case.params)

    turned = dataclasses.replace(
        cloud,
        hosts=tuple(chance.sample(cloud.hosts, len(cloud.hosts))),
        instances=tuple(chance.sample(cloud.instances, len(cloud.instances))),
    )
    assert edges(turned) == edges(cloud)


def shortest(
    steps: tuple[scheduling.Step, ...], limits: dict[str, int]
) -> float:
    """The least makespan there is, by trying all orders.

    Each order is made a schedule by starting its steps one after the other,
    each as early as its needs and the limits admit at all times that it
    takes; the best of these schedules is the best of all (regular measure).
    """
    best = float("inf")
    for order in itertools.permutations(range(len(steps))):
        place = {step: at for at, step in enumerate(order)}
        if any(
            place[need] > place[step]
            for step in order
            for need in steps[step].needs
        ):
            continue
        starts: dict[int, float] = {}
        for step in order:
            one = steps[step]
            ready = max(
                (starts[n] + steps[n].seconds for n in one.needs), default=0.0
            )
            times = {ready} | {
                starts[n] + steps[n].seconds
                for n in starts
                if starts[n] + steps[n].seconds > ready
            }
            starts[step] = min(
                t for t in times if admitted(steps, starts, limits, step, t)
            )
        best = min(
            best,
            max((s + steps[n].seconds for n, s in starts.items()), default=0),
        )
    return best


def admitted(
    steps: tuple[scheduling.Step, ...],
    starts: dict[int, float],
    limits: dict[str, int],
    step: int,
    start: float,
) -> bool:
    """Whether the limits hold at all times of a step that starts then."""
    end = start + steps[step].seconds
    moments = {start} | {s for s in starts.values() if start < s < end}
    for moment in moments:
        there = [
            steps[n].migration
            for n, s in starts.items()
            if s <= moment < s + steps[n].seconds
        ]
        own = steps[step].migration
        if (
            len(there) >= limits["parallel_total"]
            or sum(m.source == own.source for m in there)
            >= limits["parallel_per_source"]
            or sum(m.target == own.target for m in there)
            >= limits["parallel_per_target"]
        ):
            return False
    return True


@given(
    st.one_of(full(), full(), clouds.cases()), st.integers(0, 2**32), LIMITS
)
@settings(max_examples=150)
def test_no_order_is_shorter_than_the_makespan_bound(
    case: clouds.Case, seed: int, limits: dict[str, int]
) -> None:
    """The published bound is one, and the schedule is seldom above it."""
    moves = serial.by_chance(
        case.cloud, random.Random(seed), 6, case.policies, case.drained
    )
    made = serial.arranged(case.cloud, moves, **{**case.params, **limits})
    least = shortest(made.steps, limits)
    assert made.makespan_bound_seconds <= least + 1e-9
    assert least <= made.makespan_seconds + 1e-9
    event(f"shortest: {made.makespan_seconds <= least + 1e-9}")
