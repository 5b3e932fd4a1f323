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


import numpy as np
import pytest

from benchmarks import families
from tests import builders
from tests import checker
from tests import oracle
from tests.property import tiny
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import parameters
from watcher_cputier.planner import joint
from watcher_cputier.planner import labels
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import sparing
from watcher_cputier.planner import state as states

pytest.importorskip("scipy")

MEMORY = ("memory 97 %", "memory 0-20 %", "memory 0-8 %")


def begun(cloud, kind=states.State, **params):
    """The state before a plan."""
    typed = parameters.Parameters.of({"max_migrations": 0, **params})
    return kind(
        problems.Problem(
            cloud,
            diagnosing.diagnose(cloud, typed),
            typed,
            constraints.Extensions(),
        )
    )


def check(state, solution):
    """The solution is an end state within every class and quota."""
    problem = state.problem
    out, into = solution.out, solution.into
    assert (out >= 0).all()
    assert (out <= state.counts).all()
    assert not into[~problem.all_accepts.T].any()
    assert (out.sum(axis=0) == into.sum(axis=0)).all()
    room = state.room + out @ problem.releases - into @ problem.demands
    assert (room >= np.minimum(state.room, 0))[into.any(axis=1)].all()
    quotas = [problem.column["quota", a] for a in problem.accounts]
    assert (room[:, quotas] >= 0).all()
    assert out.sum() >= solution.bound


@pytest.mark.parametrize("name", MEMORY)
def test_the_optimum_where_memory_binds(name):
    state = begun(families.build(families.BY_NAME[name], 12))
    solution = joint.solve(state)
    check(state, solution)
    assert solution.out.sum() == solution.bound


@pytest.mark.parametrize("name", MEMORY)
def test_plans_are_next_to_the_bound_where_memory_binds(name):
    cloud = families.build(families.BY_NAME[name], 20)
    plan = builders.planned(cloud, max_migrations=0)
    assert checker.judge(cloud, plan, {}, []) == []
    assert not any(plan.excess_after.values())
    assert len(plan.migrations) <= plan.lower_bound + 1


def test_no_sequence_of_migrations_does_with_fewer():
    """The bound against everything that migrations can reach."""
    judged = 0
    for seed in range(60):
        case = tiny.seeded(seed)
        truth = oracle.truth(case.cloud, case.policies, case.drained)
        state = begun(case.cloud, **case.params)
        if any(truth.residual) or not joint.suits(state):
            continue
        solution = joint.solve(state)
        check(state, solution)
        assert solution.bound <= truth.migrations
        judged += truth.migrations > 0
    assert judged > 15


def test_an_excess_without_a_cure_has_no_end_state():
    cloud = builders.cluster(
        [builders.host("h1", gold=2), builders.host("h2", gold=1)],
        [builders.instance("a", "h1", 3)],
    )
    assert joint.solve(begun(cloud)) is None


def test_large_clusters_do_not_suit():
    hosts = [builders.host(f"h{n}") for n in range(5500)]
    cloud = builders.cluster(hosts, [builders.instance("a", "h1")])
    assert not joint.suits(begun(cloud))


def test_hosts_with_a_class_on_two_providers_do_not_suit():
    child = builders.provider("c1", {builders.class_of("gold"): 4}, root="h1")
    cloud = builders.cluster(
        [builders.host("h1", gold=1, children=[child])],
        [builders.instance("a", "h1")],
    )
    assert not joint.suits(begun(cloud))


def two_rooms():
    """m may go to h2 or h3; n, with its memory, to h2 alone."""
    return builders.cluster(
        [
            builders.host("h1", gold=8, memory_mb=65536),
            builders.host("h2", gold=8, memory_mb=9216),
            builders.host("h3", gold=8, memory_mb=2048),
        ],
        [
            builders.instance("m", "h1", 4, memory_mb=2048),
            builders.instance("n", "h1", 8, memory_mb=8192),
        ],
        tiers=builders.tiers("gold"),
    )


def test_the_room_of_those_with_few_places_is_spared():
    found = {}
    for kind in (states.State, sparing.Sparing):
        state = begun(two_rooms(), kind)
        m = state.problem.cluster.instance_by_uuid["m"]
        row = state.best_target(m, state.problem.kind_of["m"])
        found[kind] = state.problem.hosts[row].name
    assert found == {states.State: "h2", sparing.Sparing: "h3"}


def test_a_sparing_target_is_admitted():
    state = begun(two_rooms(), sparing.Sparing)
    labels.Search(state).run()
    assert [m.instance.name for m in state.moves]
    assert (state.room[:, state.problem.column["quota", "gold"]] >= 0).all()


def test_care_is_worthwhile_where_more_than_units_binds():
    plenty = builders.cluster(
        [builders.host("h1"), builders.host("h2")],
        [builders.instance("a", "h1")],
    )
    assert sparing.worthwhile(begun(two_rooms()))
    assert not sparing.worthwhile(begun(plenty))
