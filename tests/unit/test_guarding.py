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

"""Attempts that keep to prices."""

import dataclasses

import numpy as np
import pytest

from benchmarks import families
from tests import builders
from tests import checker
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import parameters
from watcher_cputier.planner import certificate
from watcher_cputier.planner import guarding
from watcher_cputier.planner import labels
from watcher_cputier.planner import prices
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import sparing
from watcher_cputier.planner import state as states


def begun(cloud, extensions=None, **params):
    """The problem, and the state before a plan."""
    typed = parameters.Parameters.of({"max_migrations": 0, **params})
    problem = problems.Problem(
        cloud,
        diagnosing.diagnose(cloud, typed),
        typed,
        extensions or constraints.Extensions(),
    )
    return problem, states.State(problem)


def host(name, units):
    return builders.host(name, gold=units, silver=None, bronze=None)


def holes(**fields):
    """A host that is over by 1, a hole of 4 and a hole of 1.

    rack-1  3 of 2    blog (1), shop (2)
    rack-2  4 of 8    wide (4)
    rack-3  4 of 5    long (4)
    """
    return builders.cluster(
        [host("rack-1", 2), host("rack-2", 8), host("rack-3", 5)],
        [
            builders.instance("blog", "rack-1", 1, "gold"),
            builders.instance("shop", "rack-1", 2, "gold"),
            builders.instance("wide", "rack-2", 4, "gold"),
            builders.instance("long", "rack-3", 4, "gold"),
        ],
        tiers=builders.tiers("gold"),
        **fields,
    )


def guarded(problem, state, worth):
    accounts = certificate.accounts(problem, state)
    return guarding.Guarded(problem, accounts, worth)


def test_the_weigher_alone_would_break_the_large_hole():
    problem, state = begun(holes())
    blog = problem.cluster.instance_by_uuid["blog"]
    kind = problem.kind_of[blog.uuid]
    assert problem.hosts[state.best_target(blog, kind)].name == "rack-2"


def test_a_small_instance_leaves_the_large_hole_whole():
    # Kinds by size: 4, 2 and 1. A slot of 4 is worth two migrations.
    problem, state = begun(holes())
    state = guarded(problem, state, {"gold": np.array([2.0, 0.0, 0.0])})
    blog = problem.cluster.instance_by_uuid["blog"]
    kind = problem.kind_of[blog.uuid]
    assert problem.hosts[state.best_target(blog, kind)].name == "rack-3"


def test_without_prices_the_weigher_chooses():
    problem, state = begun(holes())
    state = guarded(problem, state, {"gold": np.zeros(3)})
    blog = problem.cluster.instance_by_uuid["blog"]
    kind = problem.kind_of[blog.uuid]
    assert problem.hosts[state.best_target(blog, kind)].name == "rack-2"


def favour(name):
    """An extension that would have everything on one host."""
    return constraints.Extensions(
        rankers={"favour": lambda move: 9.0 * (move.target.name == name)}
    )


@pytest.mark.parametrize("kind_of_state", ["guarded", "sparing"])
def test_rankers_choose_among_what_is_lost_alike(kind_of_state):
    cloud = builders.cluster(
        [host("rack-1", 2), *(host(f"rack-{n}", 4) for n in range(2, 6))],
        [
            builders.instance("blog", "rack-1", 2, "gold"),
            builders.instance("shop", "rack-1", 2, "gold"),
        ],
        tiers=builders.tiers("gold"),
    )
    problem, state = begun(cloud, favour("rack-4"))
    if kind_of_state == "guarded":
        state = guarded(problem, state, {"gold": np.array([1.0])})
    else:
        state = sparing.Sparing(problem)
    blog = problem.cluster.instance_by_uuid["blog"]
    kind = problem.kind_of[blog.uuid]
    assert problem.hosts[state.best_target(blog, kind)].name == "rack-4"


@pytest.mark.parametrize("kind_of_state", ["guarded", "sparing"])
def test_soft_affinity_comes_before_what_is_lost(kind_of_state):
    pair = builders.server_group("soft-affinity", ["blog", "wide"])
    cloud = holes(server_groups=(pair,))
    problem, state = begun(cloud)
    if kind_of_state == "guarded":
        state = guarded(problem, state, {"gold": np.array([2.0, 0.0, 0.0])})
    else:
        state = sparing.Sparing(problem)
    blog = problem.cluster.instance_by_uuid["blog"]
    kind = problem.kind_of[blog.uuid]
    assert problem.hosts[state.best_target(blog, kind)].name == "rack-2"


@pytest.mark.parametrize("name", ["93 %", "holes 0..3", "4 zones"])
def test_wastes_are_the_distance_from_the_bound(name):
    """A plan costs what its prices prove, and its hosts' wastes."""
    cloud = families.build(families.BY_NAME[name], 20)
    problem, state = begun(cloud)
    accounts = certificate.accounts(problem, state)
    search = labels.Search(state)
    search.run()
    moves = [(move.instance, move.target) for move in state.moves]
    for account in accounts:
        found = prices.migration_bound(account.covering)
        waste = guarding.wastes(problem, account, found.prices, moves)
        made = sum(
            account.name in problem.kind_of[instance.uuid].accounts
            for instance, _ in moves
        )
        proven = prices.evaluate(account.covering, found.prices)
        assert waste.min() >= -1e-6
        assert waste.sum() == pytest.approx(made - proven)


@pytest.mark.parametrize("name", ["holes 0..3", "4 zones"])
def test_plans_of_forty_hosts_meet_the_bound_without_scipy(name, monkeypatch):
    monkeypatch.setattr("watcher_cputier.planner.exact.optimize", None)
    monkeypatch.setattr("watcher_cputier.planner.joint.optimize", None)
    cloud = families.build(families.BY_NAME[name], 40)
    plan = builders.planned(cloud, max_migrations=0)
    assert checker.judge(cloud, plan, {}, []) == []
    assert not any(plan.excess_after.values())
    assert len(plan.migrations) == plan.lower_bound


def test_the_order_of_the_inputs_does_not_matter(monkeypatch):
    monkeypatch.setattr("watcher_cputier.planner.exact.optimize", None)
    monkeypatch.setattr("watcher_cputier.planner.joint.optimize", None)
    cloud = families.build(families.BY_NAME["4 zones"], 40)
    other = dataclasses.replace(
        cloud, hosts=cloud.hosts[::-1], instances=cloud.instances[::-1]
    )
    assert builders.planned(cloud, max_migrations=0) == builders.planned(
        other, max_migrations=0
    )


def test_costs_that_no_machine_number_holds():
    dear = 511 << 50
    items = [(0, 1, 20, dear), (1, 30, 1, 21 * dear)]
    assert labels.knapsack(items, 20) == [0] * 20
    assert labels.knapsack(items, 21) == [1]
    assert labels.knapsack([(0, 1, 9, labels.NEVER << 50)], 2) == [0, 0]
