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


"""The strategy's rounds of planning, asking Placement and planning again."""

from collections.abc import Iterable, Iterator
import dataclasses
import functools
import itertools

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.strategies import budget
from watcher_cputier.strategies import rounds

BUDGET_SECONDS = 60


class Reader:
    """Placement's word on the targets of plans, as ``cloud.Reader`` has it.

    :param refused: names of hosts that are never offered
    """

    def __init__(self, refused: Iterable[str] = ()) -> None:
        self.rounds = 0
        self._refused = set(refused)

    def get_candidates(
        self, cluster: model.Cluster, hosts: Iterable[model.Host]
    ) -> model.Cluster:
        assert all(host in cluster.hosts for host in hosts)
        return cluster

    def get_admissions(
        self,
        cluster: model.Cluster,
        proposed: Iterable[tuple[model.Flavor, model.Host]],
    ) -> model.Cluster:
        self.rounds += 1
        known = dict(cluster.admissions)
        for flavor, host in proposed:
            one = known.get(flavor.request, model.Admission())
            known[flavor.request] = (
                dataclasses.replace(one, refused=one.refused | {host.uuid})
                if host.name in self._refused
                else dataclasses.replace(one, hosts=one.hosts | {host.uuid})
            )
        if known == cluster.admissions:
            return cluster
        return dataclasses.replace(cluster, admissions=model.frozen_map(known))


def full_hosts() -> model.Cluster:
    """Eight hosts over their quota and eight with room."""
    return builders.cluster(
        [
            *(builders.host(f"full-{n}", gold=4) for n in range(8)),
            *(builders.host(f"room-{n}") for n in range(8)),
        ],
        [
            one
            for n in range(8)
            for one in builders.instances(f"i{n}-", f"full-{n}", [4, 4])
        ],
    )


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch):
    """``planned(reader, ticks)``: a clock that reads one tick a look."""

    def run(reader: Reader, tick_seconds: float) -> planner.Plan:
        looks: Iterator[float] = itertools.count(0, tick_seconds)
        monkeypatch.setattr(
            rounds.budget,
            "Budget",
            functools.partial(budget.Budget, clock=looks.__next__),
        )
        params = parameters.Parameters.of(
            {"time_budget_seconds": BUDGET_SECONDS}
        )
        cloud = full_hosts()
        return rounds.plan(
            reader,
            cloud,
            diagnosis.diagnose(cloud, params),
            params,
            constraints.Extensions(),
        )[2]

    return run


def test_with_time_enough_a_plan_is_made_until_its_targets_are_known(planned):
    reader = Reader()
    plan = planned(reader, 0.001)
    assert not plan.cut
    assert len(plan.migrations) == 8
    assert reader.rounds == 2


def test_a_cut_plan_whose_targets_are_offered_is_taken(planned):
    """Not searched for again: there is a tenth of the time for that."""
    reader = Reader()
    plan = planned(reader, BUDGET_SECONDS / 4)
    assert plan.cut
    assert 0 < len(plan.migrations) < 8
    assert reader.rounds == 1


def test_a_cut_plan_with_a_refused_target_is_made_anew(planned):
    targets = {
        m.target for m in planned(Reader(), BUDGET_SECONDS / 4).migrations
    }
    reader = Reader(refused=targets)
    plan = planned(reader, BUDGET_SECONDS / 4)
    assert reader.rounds > 1
    assert not targets & {m.target for m in plan.migrations}
