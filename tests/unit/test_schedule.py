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

"""Schedules: what waits for what, by hand; and how long it all takes."""

import dataclasses
import random
import warnings

import pytest

from benchmarks import engine
from tests import builders
from tests import checker
from tests import serial
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import schedule as scheduling

WIDE = {
    "parallel_total": 99,
    "parallel_per_source": 99,
    "parallel_per_target": 99,
}


def edges(made: scheduling.Schedule) -> list[tuple[int, ...]]:
    return [step.needs for step in made.steps]


def after(made: scheduling.Schedule) -> list[tuple[int, ...]]:
    return [step.after for step in made.steps]


def full(
    name: str, *sizes: int, **fields: object
) -> tuple[model.Host, list[model.Instance]]:
    """A host whose Gold is taken to the last unit."""
    guests = builders.instances(f"{name}.", name, sizes)
    return builders.host(name, **{"gold": sum(sizes), **fields}), guests


def cloud(*made: tuple[model.Host, list[model.Instance]], **fields: object):
    return builders.cluster(
        [host for host, _ in made],
        [guest for _, guests in made for guest in guests],
        **fields,
    )


def test_no_plan_takes_no_time() -> None:
    made = serial.arranged(cloud(full("a", 4)), [])
    assert made == scheduling.Schedule()
    assert made.depth == 0


def test_what_has_room_anyway_needs_nobody() -> None:
    """The initial pool comes first, and only then a departure."""
    seen = cloud(full("a", 4, 4), full("b", 2), (builders.host("c"), []))
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "c"), ("a.2", "c"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (), ()]


def test_an_arrival_needs_the_departure_that_makes_its_room() -> None:
    seen = cloud(full("a", 4), full("b", 4), (builders.host("c"), []))
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "b"))
    made = serial.arranged(seen, plan, **WIDE)
    assert edges(made) == [(), (0,)]
    assert made.depth == 2


def test_a_unit_is_not_earmarked_twice() -> None:
    """Two departures, two arrivals: each has one of its own."""
    seen = cloud(full("a", 4, 4), full("b", 4, 4), (builders.host("c"), []))
    plan = serial.by_hand(
        seen, ("b.1", "c"), ("b.2", "c"), ("a.1", "b"), ("a.2", "b")
    )
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (), (0,), (1,)]


def test_part_of_the_room_is_there_already() -> None:
    seen = cloud(
        full("a", 4), full("b", 2, 2, gold=6), (builders.host("c"), [])
    )
    plan = serial.by_hand(seen, ("b.1", "c"), ("b.2", "c"), ("a.1", "b"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (), (0,)]


def test_a_deficit_is_paid_off_first() -> None:
    """b is 3 over: b.1 pays, b.2 makes the room, a.1 needs both.

    If b.1 stayed, b would still be over with b.2 gone, and refuse a.1.
    """
    seen = cloud(
        full("a", 1), full("b", 3, 3, gold=3), (builders.host("c"), [])
    )
    plan = serial.by_hand(seen, ("b.1", "c"), ("b.2", "c"), ("a.1", "b"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (), (0, 1)]


def test_a_host_over_in_gold_takes_silver_at_once() -> None:
    host, guests = full("b", 4, gold=2)
    silver = builders.instance("s", "a", 2, "silver")
    seen = cloud(
        (builders.host("a", silver=0), [silver]),
        (host, guests),
        (builders.host("c"), []),
    )
    plan = serial.by_hand(seen, ("b.1", "c"), ("s", "b"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), ()]


@pytest.mark.parametrize("binding", ["memory", "policy"])
def test_any_class_and_the_policy_quota_can_be_the_one(binding: str) -> None:
    """Memory as much as units; a policy quota where Placement has room."""
    more = {"memory_mb": 1024} if binding == "memory" else {}
    seen = cloud(
        full("a", 4, gold=16),
        full("b", 4, gold=16, **more),
        (builders.host("c"), []),
    )
    quotas = {"gold": 4} if binding == "policy" else {}
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "b"))
    made = serial.arranged(seen, plan, quotas=quotas, **WIDE)
    assert edges(made) == [(), (0,)]
    assert edges(serial.arranged(seen, plan, **WIDE))[1] == (
        (0,) if binding == "memory" else ()
    )


def test_a_place_in_an_anti_affinity_group_is_room() -> None:
    seen = cloud(
        (builders.host("a"), builders.instances("a.", "a", [1])),
        (builders.host("b"), builders.instances("b.", "b", [1])),
        (builders.host("c"), []),
        server_groups=(
            builders.server_group("anti-affinity", ["a.1", "b.1"]),
        ),
    )
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "b"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (0,)]


def test_members_of_an_affinity_group_go_one_by_one() -> None:
    seen = cloud(
        (builders.host("a"), builders.instances("a.", "a", [1])),
        (builders.host("b"), builders.instances("b.", "b", [1])),
        (builders.host("c"), []),
        server_groups=(builders.server_group("affinity", ["a.1", "b.1"]),),
    )
    plan = serial.by_hand(seen, ("a.1", "b"), ("b.1", "c"))
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (0,)]


@pytest.mark.parametrize("hint", ["different_host", "same_host"])
def test_hints_keep_the_order_of_the_plan(hint: str) -> None:
    """Whichever of the two has the hint, and whoever goes first."""
    one = builders.instance("x", "a", **{hint: frozenset({"y"})})
    other = builders.instance("y", "b")
    seen = cloud(
        (builders.host("a"), [one]),
        (builders.host("b"), [other]),
        (builders.host("c"), []),
    )
    for plan in ((("x", "c"), ("y", "a")), (("y", "c"), ("x", "b"))):
        made = serial.arranged(seen, serial.by_hand(seen, *plan), **WIDE)
        assert edges(made) == [(), (0,)]


def test_a_parked_instance_goes_on_after_it_came() -> None:
    """An exchange of two full hosts through a third.

    x is parked on c, y takes its place, x goes on to b: it needs its own
    first move and y's departure; y needs x's.
    """
    seen = cloud(full("a", 4), full("b", 4), (builders.host("c"), []))
    plan = serial.by_hand(seen, ("a.1", "c"), ("b.1", "a"), ("a.1", "b"))
    assert [m.parking for m in plan] == [True, False, False]
    assert [m.source for m in plan] == ["a", "b", "c"]
    made = serial.arranged(seen, plan, **WIDE)
    assert edges(made) == [(), (0,), (0, 1)]


def test_room_at_the_parking_place_is_given_back() -> None:
    """z can have it when x has gone on."""
    seen = cloud(
        full("a", 4),
        full("b", 4),
        full("d", 4),
        (builders.host("c", gold=4), []),
    )
    plan = serial.by_hand(
        seen, ("a.1", "c"), ("b.1", "a"), ("a.1", "b"), ("d.1", "c")
    )
    assert edges(serial.arranged(seen, plan, **WIDE))[3] == (2,)


def test_departures_with_short_chains_are_preferred() -> None:
    """b.2's place is there after one move, b.1's after two."""
    seen = cloud(
        full("a", 4),
        full("b", 4, 4),
        full("c", 4),
        (builders.host("d", gold=8), []),
    )
    plan = serial.by_hand(
        seen, ("c.1", "d"), ("b.1", "c"), ("b.2", "d"), ("a.1", "b")
    )
    assert edges(serial.arranged(seen, plan, **WIDE)) == [(), (0,), (), (2,)]


def test_what_cannot_be_told_apart_waits_for_all() -> None:
    """Two child providers have the class, and b.1's allocations were not
    read: which of them it relieves is unknown, so a.1 waits for everything.
    """

    def host(name: str, llc: int) -> model.Host:
        return builders.host(
            name,
            children=[
                builders.provider(
                    f"{name}_{n}", {"CUSTOM_LLC": llc}, root=name
                )
                for n in range(2)
            ],
        )

    def guest(name: str, on: str) -> model.Instance:
        return builders.instance(name, on, more={"CUSTOM_LLC": 1})

    seen = cloud(
        (host("a", 1), [guest("a.1", "a")]),
        (host("b", 1), [guest("b.1", "b"), guest("b.2", "b")]),
        (host("c", 4), [builders.instance("c.1", "c")]),
    )
    blind = dataclasses.replace(
        seen,
        hosts=tuple(
            dataclasses.replace(
                one,
                providers=(
                    one.providers[0],
                    *(
                        dataclasses.replace(
                            p, allocated=model.frozen_map({"CUSTOM_LLC": 1})
                        )
                        for p in one.providers[1:]
                    ),
                ),
            )
            if one.name == "b"
            else one
            for one in seen.hosts
        ),
        instances=tuple(
            dataclasses.replace(one, allocations=model.frozen_map())
            for one in seen.instances
        ),
    )
    plan = serial.by_hand(blind, ("c.1", "a"), ("b.1", "c"), ("a.1", "b"))
    assert edges(serial.arranged(blind, plan, **WIDE)) == [(), (), (0, 1)]


# --- limits


def test_a_source_lets_one_go_at_a_time() -> None:
    seen = cloud(
        full("a", 4, 4), (builders.host("c"), []), (builders.host("d"), [])
    )
    plan = serial.by_hand(seen, ("a.1", "c"), ("a.2", "d"))
    made = serial.arranged(seen, plan, parallel_total=9)
    assert edges(made) == [(), ()]
    assert after(made) == [(), (0,)]
    both = serial.arranged(seen, plan, parallel_per_source=2)
    assert after(both) == [(), ()]


def test_a_target_takes_one_at_a_time() -> None:
    seen = cloud(full("a", 4), full("b", 4), (builders.host("c"), []))
    plan = serial.by_hand(seen, ("a.1", "c"), ("b.1", "c"))
    assert after(serial.arranged(seen, plan, parallel_total=9)) == [(), (0,)]
    both = serial.arranged(seen, plan, parallel_per_target=2)
    assert after(both) == [(), ()]


def test_one_by_one() -> None:
    """R108: ``parallel_total`` 1 makes a chain of all."""
    seen = cloud(
        *(full(n, 4) for n in "abc"), *((builders.host(n), []) for n in "xyz")
    )
    plan = serial.by_hand(seen, ("a.1", "x"), ("b.1", "y"), ("c.1", "z"))
    made = serial.arranged(seen, plan, parallel_total=1)
    assert after(made) == [(), (0,), (1,)]
    assert made.makespan_seconds == made.makespan_bound_seconds == 3.0


def test_the_longest_chain_goes_first() -> None:
    """b.1 has a.1 behind it; with one slot it goes before c.1."""
    seen = cloud(
        full("a", 4), full("b", 4), full("c", 4), (builders.host("d"), [])
    )
    plan = serial.by_hand(seen, ("c.1", "d"), ("b.1", "d"), ("a.1", "b"))
    made = serial.arranged(seen, plan, parallel_total=1, parallel_per_target=2)
    starts = [step.start for step in made.steps]
    assert starts == [1.0, 0.0, 2.0] or starts == [2.0, 0.0, 1.0]
    assert starts[1] == 0.0


def test_durations_follow_the_memory() -> None:
    seen = builders.cluster(
        [builders.host("a"), builders.host("b")],
        [
            builders.instance("big", "a", memory_mb=8192),
            builders.instance("small", "a", memory_mb=128),
        ],
    )
    plan = serial.by_hand(seen, ("big", "b"), ("small", "b"))
    made = serial.arranged(seen, plan)
    assert [step.seconds for step in made.steps] == [8.0, 1.0]
    assert made.makespan_seconds == 9.0


# --- pairs


def pairs(seen: model.Cluster, plan: list, **params: int) -> scheduling.Pairs:
    return scheduling.pairs(
        serial.arranged(seen, plan, **params), parameters.Parameters.of(params)
    )


def test_a_chain_is_never_in_one_pair() -> None:
    """In serial order b.1 and a.1 would be one pair, a.1 too early."""
    seen = cloud(
        full("a", 4),
        full("b", 4),
        full("e", 4),
        (builders.host("c"), []),
        (builders.host("d"), []),
    )
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "b"), ("e.1", "d"))
    assert pairs(seen, plan) == scheduling.Pairs(order=(0, 2, 1))


def test_what_would_share_a_pair_with_its_need_is_left_out() -> None:
    seen = cloud(full("a", 4), full("b", 4), (builders.host("c"), []))
    plan = serial.by_hand(seen, ("b.1", "c"), ("a.1", "b"))
    assert pairs(seen, plan) == scheduling.Pairs(order=(0,), left_out=(1,))


def test_pairs_prefer_different_hosts() -> None:
    seen = cloud(
        full("a", 4, 4), full("b", 4), *((builders.host(n), []) for n in "cde")
    )
    plan = serial.by_hand(seen, ("a.1", "c"), ("a.2", "d"), ("b.1", "e"))
    assert pairs(seen, plan).order == (0, 2, 1)


def test_watchers_planner_makes_the_same_chunks() -> None:
    """``PAIR`` is what Watcher's planner runs together by default."""
    with warnings.catch_warnings():
        # Of eventlet's end.
        warnings.simplefilter("ignore")
        from watcher.decision_engine.planner import weight
    assert weight.WeightPlanner.parallelization["migrate"] == scheduling.PAIR


# --- makespans


def chains(count: int) -> tuple[model.Cluster, list]:
    """Of each three hosts one is over, one full and one empty.

    Instances of 1 to 16 GB, as mixed as they come.
    """
    made, moves = [], []
    for n in range(count):
        gb = 1024 * (1 + n * 7 % 16)
        made += [
            full(f"a{n:02}", 4, gold=0),
            full(f"b{n:02}", 4),
            (builders.host(f"c{n:02}"), []),
        ]
        made[-3][1][0] = builders.instance(
            f"a{n:02}.1", f"a{n:02}", 4, memory_mb=gb
        )
        moves += [(f"b{n:02}.1", f"c{n:02}"), (f"a{n:02}.1", f"b{n:02}")]
    seen = cloud(*made)
    return seen, serial.by_hand(seen, *moves)


@pytest.mark.parametrize(("parallel", "gain"), [(8, 5), (16, 8)])
def test_the_makespan_against_barriers(parallel: int, gain: int) -> None:
    """100 chains of two, with durations that nobody foresaw, against the
    same migrations two by two in the order of the plan.
    """
    seen, plan = chains(100)
    made = serial.arranged(seen, plan, parallel_total=parallel)
    chance = random.Random(1)
    seconds = [step.seconds * chance.uniform(1.05, 2) for step in made.steps]
    ours = engine.simulate(made.steps, seconds, workers=parallel)
    theirs = engine.simulate_chunks(range(200), made.steps, seconds, workers=2)
    assert theirs / ours >= gain
    assert made.makespan_seconds <= 1.02 * made.makespan_bound_seconds


def test_the_simulated_engine_keeps_to_its_workers() -> None:
    seen, plan = chains(4)
    made = serial.arranged(seen, plan, parallel_total=8)
    ones = [1.0] * 8
    assert engine.simulate(made.steps, ones, workers=8) == 2.0
    assert engine.simulate(made.steps, ones, workers=2) == 4.0
    assert engine.simulate(made.steps, ones, workers=1) == 8.0
    order = range(8)
    assert engine.simulate_chunks(order, made.steps, ones, workers=2) == 4.0


def test_many_plans_and_adversaries() -> None:
    """More of what the property tests do, on larger clouds."""
    for seed in range(30):
        chance = random.Random(seed)
        seen = cloud(
            *(
                full(
                    f"h{n}",
                    *(chance.choice([1, 2, 4]) for _ in range(4)),
                    gold=chance.randint(7, 14),
                )
                for n in range(8)
            )
        )
        plan = serial.by_chance(seen, chance, 30)
        made = serial.arranged(seen, plan, parallel_total=6)
        for failing in (0.0, 0.3):
            run = serial.execute(
                made,
                checker.Replay(seen, {}),
                chance,
                lambda _, c=chance, p=failing: c.random() < p,
            )
            assert run.wrong == []
            assert run.most[0] <= 6
            assert run.most[1] == run.most[2] == 1
