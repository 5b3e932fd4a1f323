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


import dataclasses

import pytest

from tests import builders
from tests import checker
from tests import oracle
from tests.property import test_differential
from tests.property import tiny
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.planner import neighbourhoods
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states


def never():
    return False


def begun(cloud, **params):
    """The state before a plan."""
    typed = parameters.Parameters.of({"max_migrations": 0, **params})
    return states.State(
        problems.Problem(
            cloud,
            diagnosing.diagnose(cloud, typed),
            typed,
            constraints.Extensions(),
        )
    )


def host(name, units, **fields):
    return builders.host(name, gold=units, silver=None, bronze=None, **fields)


def crowded(case, more=10):
    """A tiny case among hosts that are full; anybody may move anywhere."""
    names = [f"x{n:02}" for n in range(more)]
    sold = {
        name: 15 if name in case.cloud.tier_by_name else None
        for name in ("gold", "silver", "bronze")
    }
    guests = [
        builders.instance(f"{name}-{tier}-{size}", name, size, tier)
        for name in names
        for tier in case.cloud.tier_by_name
        for size in (1, 2, 3, 4, 5)
    ]
    alone = tiny.side_by_side([case])
    hosts = [
        dataclasses.replace(
            one,
            zone="",
            providers=tuple(
                dataclasses.replace(p, allocated=model.frozen_map())
                for p in one.providers
            ),
        )
        for one in alone.cloud.hosts
    ]
    hosts += [builders.host(name, **sold, zone="") for name in names]
    guests += [
        dataclasses.replace(
            one, pinned_zone=None, allocations=model.frozen_map()
        )
        for one in alone.cloud.instances
    ]
    return dataclasses.replace(
        alone,
        cloud=builders.cluster(
            hosts,
            guests,
            tiers=case.cloud.tiers,
            server_groups=alone.cloud.server_groups,
        ),
    )


def test_zones_are_parts_where_instances_are_bound_to_them():
    hosts = [host(f"h{n}", 4, zone=f"z{n % 2}") for n in range(4)]
    bound = [
        builders.instance(f"i{n}", f"h{n}", pinned_zone=f"z{n % 2}")
        for n in range(4)
    ]
    free = [*bound, builders.instance("free", "h0")]
    tiers = builders.tiers("gold")
    apart = begun(builders.cluster(hosts, bound, tiers=tiers))
    joined = begun(builders.cluster(hosts, free, tiers=tiers))
    assert neighbourhoods.parts(apart.problem, apart) == [(0, 2), (1, 3)]
    assert neighbourhoods.parts(joined.problem, joined) == [(0, 1, 2, 3)]


def test_small_parts_are_solved_as_if_they_were_alone():
    cases = [tiny.seeded(seed) for seed in test_differential.HARD[:6]]
    case = tiny.side_by_side(cases)
    truths = [oracle.truth(c.cloud, c.policies, c.drained) for c in cases]
    found = neighbourhoods.solve_parts(begun(case.cloud, **case.params), never)
    assert sum(found.whole.left) == sum(sum(t.residual) for t in truths)
    assert found.whole.migrations == sum(t.migrations for t in truths)
    assert found.whole.proven


def test_without_time_nothing_is_searched():
    state = begun(tiny.seeded(test_differential.HARD[0]).cloud)
    neighbourhoods.solve_parts(state, lambda: True)
    assert state.moves == []


def test_large_parts_are_not_searched():
    case = crowded(tiny.seeded(test_differential.HARD[0]))
    state = begun(case.cloud, **case.params)
    assert neighbourhoods.solve_parts(state, never) is None
    assert state.moves == []


@pytest.mark.parametrize("seed", test_differential.HARD[:16])
def test_locks_among_many_hosts_are_opened(seed):
    case = tiny.seeded(seed)
    truth = oracle.truth(case.cloud, case.policies, case.drained)
    among = crowded(case)
    plan = builders.planned(among.cloud, **among.params)
    assert checker.judge(among.cloud, plan, {}, among.drained) == []
    assert checker.residual(among.cloud, plan.excess_after) <= truth.residual
    after = builders.applied(among.cloud, plan.migrations)
    assert builders.planned(after, **among.params).migrations == ()


def test_what_is_no_better_is_not_taken():
    """A host that nobody else can relieve stays as it is."""
    cloud = builders.cluster(
        [host("h1", 2), host("h2", 1)],
        [builders.instance("a", "h1", 3), builders.instance("b", "h2", 1)],
        tiers=builders.tiers("gold"),
    )
    state = begun(cloud)
    assert not neighbourhoods.search_around(state, 0, never)
    assert state.moves == []
