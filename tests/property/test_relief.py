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

"""Relief of starvation on small clouds of every kind.

What everybody gets is worked out by the oracle of :mod:`tests.entitlements`,
before the plan and after it.
"""

import dataclasses
import random
from typing import Any

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st

from tests import builders
from tests import checker
from tests import consumption
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation

NOW = 1_000_000
# Room for rounding: the oracle is exact.
EPSILON = 1e-6


@st.composite
def clouds(draw: st.DrawFn) -> model.Cluster:
    """2 to 5 hosts of four CPUs, and up to 20 instances with weights that
    are right, those of one vCPU, none or much too large.
    """
    hosts = [
        consumption.host(
            f"h{number}",
            gold=draw(st.sampled_from([4, 4, 2, 6])),
            memory_mb=1024 * draw(st.sampled_from([64, 64, 8])),
            enabled=draw(st.integers(0, 9)) != 6,
        )
        for number in range(draw(st.integers(2, 5)))
    ]
    guests = []
    for number in range(draw(st.sampled_from([10, 14, 20, 6]))):
        tier = draw(st.sampled_from(["silver", "gold", "bronze", "gold"]))
        vcpus = draw(st.sampled_from([2, 1, 1, 4]))
        right = builders.SHARES[tier]
        shares = draw(
            st.sampled_from([right * vcpus, right * vcpus, right, 0, 9000])
        )
        # Half of them are on the first two.
        home = draw(st.sampled_from(hosts[:2] if number % 2 else hosts))
        guests.append(
            consumption.guest(
                f"i{number:02}",
                home.name,
                None if draw(st.integers(0, 19)) == 13 else tier,
                vcpus,
                shares=shares,
                locked=draw(st.integers(0, 5)) == 3,
                priority=draw(st.sampled_from([0, 0, 1])),
                memory_mb=1024 * draw(st.integers(1, 3)),
            )
        )
    groups = []
    if draw(st.booleans()):
        members = draw(
            st.sets(
                st.sampled_from([g.uuid for g in guests]),
                min_size=2,
                max_size=3,
            )
        )
        groups.append(builders.server_group("anti-affinity", members))
    cloud = builders.cluster(
        hosts, guests, server_groups=tuple(groups), taken_at=NOW
    )
    wants = {
        guest.uuid: guest.flavor.vcpus
        * draw(st.sampled_from([1, 0.5, 0, 0.9]))
        for guest in guests
    }
    return consumption.used(cloud, wants)


def hungry(cloud: model.Cluster, **params: Any) -> dict[str, float]:
    """{uuid: deficit} of everybody, the starved and the others."""
    typed = parameters.Parameters.of(params)
    verdict = diagnosing.diagnose(cloud, typed)
    judged = starvation.judge(cloud, verdict, typed)
    found = {}
    for one in cloud.instances:
        deficit = judged.condition(one.uuid).deficit
        if deficit is not None:
            found[one.uuid] = deficit
    return found


def starved(cloud: model.Cluster, **params: Any) -> set[str]:
    typed = parameters.Parameters.of(params)
    verdict = diagnosing.diagnose(cloud, typed)
    return {
        one.instance.uuid
        for one in starvation.judge(cloud, verdict, typed).starved
    }


def after(cloud: model.Cluster, plan: planner.Plan) -> model.Cluster:
    """The cloud when the plan is done, everybody wanting the same."""
    done = builders.applied(cloud, plan.migrations)
    changes = tuple(
        model.Change(
            instance=move.instance.uuid,
            kind="live-migration",
            began_at=NOW,
            ended_at=NOW + 60,
            moved=True,
        )
        for move in sorted(plan.migrations, key=lambda m: m.instance.sort_key)
    )
    return consumption.used(
        dataclasses.replace(done, changes=changes, taken_at=NOW + 1000),
        consumption.demands_of(cloud),
    )


@given(clouds())
@settings(max_examples=40)
def test_every_plan_keeps_the_laws(cloud: model.Cluster) -> None:
    """L1, L2, L5 and L6: each step finds its room and its quota."""
    plan = builders.planned(cloud, max_migrations=0)
    found = [m for m in plan.migrations if m.concern == planner.STARVATION]
    event(f"migrations: {min(len(found), 4)}")
    event(f"starved: {bool(plan.relief and plan.relief.before)}")
    assert checker.judge(cloud, plan) == []
    uuids = [m.instance.uuid for m in found]
    assert len(set(uuids)) == len(uuids)
    assert {
        m.instance.uuid
        for m in plan.migrations
        if m.concern != planner.STARVATION
    }.isdisjoint(uuids)


@given(clouds())
@settings(max_examples=40)
def test_what_is_promised_comes_about(cloud: model.Cluster) -> None:
    """The forecast holds: who is to be relieved is, who was well off is not
    starved by it, and whoever moved is clearly served.
    """
    plan = builders.planned(cloud, enforce_quota=False, max_migrations=0)
    relief = plan.relief
    assert relief is not None
    before, then = hungry(cloud), after(cloud, plan)
    left = starved(then)
    assert left == set(relief.after)
    assert left <= {one.instance.uuid for one in relief.before}
    now = hungry(then)
    moved = {m.instance.uuid for m in plan.migrations}
    for told in relief.predictions:
        assert told.starved_after == (told.instance.uuid in left)
        if told.deficit_after is not None:
            uuid = told.instance.uuid
            assert abs(told.deficit_after - now[uuid]) <= 1e-5
            if uuid in moved:
                assert told.threshold_after is not None
                clear = told.threshold_after / 2
                assert told.deficit_after <= max(clear, before[uuid]) + 1e-5
    if plan.migrations:
        total = sum(max(0.0, before[uuid]) for uuid in before)
        assert sum(max(0.0, now[uuid]) for uuid in now) < total


@given(clouds())
@settings(max_examples=30)
def test_l3_a_second_plan_is_empty(cloud: model.Cluster) -> None:
    """L3 "planning the resulting cluster again gives an empty plan", when
    everybody wants the same and Nova tells who has moved. Whom a quota has
    left starved the first plan has foretold; those alone it may cure.
    """
    plan = builders.planned(cloud, max_migrations=0)
    again = builders.planned(after(cloud, plan), max_migrations=0)
    assert plan.relief is not None
    assert {m.concern for m in again.migrations} <= {planner.STARVATION}
    before = {one.instance.uuid for one in plan.relief.before}
    foretold = set(plan.relief.after) - before
    event(f"foretold: {bool(foretold)}")
    for move in again.migrations:
        assert foretold.intersection(move.relieves)
    alone = builders.planned(cloud, max_migrations=0, enforce_quota=False)
    again = builders.planned(
        after(cloud, alone), max_migrations=0, enforce_quota=False
    )
    assert again.migrations == ()


@given(clouds(), st.integers(0, 2**32))
@settings(max_examples=20)
def test_l4_no_order_changes_the_plan(cloud: model.Cluster, seed: int) -> None:
    """L4 "permuting hosts and instances never changes the plan"."""
    shuffled = random.Random(seed)
    hosts, instances = list(cloud.hosts), list(cloud.instances)
    shuffled.shuffle(hosts)
    shuffled.shuffle(instances)
    assert cloud.telemetry is not None
    uuids = list(cloud.telemetry.readings)
    shuffled.shuffle(uuids)
    other = dataclasses.replace(
        cloud,
        hosts=tuple(hosts),
        instances=tuple(instances),
        telemetry=dataclasses.replace(
            cloud.telemetry,
            readings={uuid: cloud.telemetry.readings[uuid] for uuid in uuids},
        ),
    )
    first, second = builders.planned(cloud), builders.planned(other)
    assert first.migrations == second.migrations
    assert first.deferred == second.deferred
    assert (first.relief is None) == (second.relief is None)
    if first.relief is not None and second.relief is not None:
        assert first.relief.predictions == second.relief.predictions
        assert first.relief.after == second.relief.after


@given(clouds(), st.integers(1, 3))
@settings(max_examples=30)
def test_l6_a_cap_holds_and_the_rest_is_deferred(
    cloud: model.Cluster, cap: int
) -> None:
    """L6: never more than allowed, and what is cut off is listed. Whoever
    is cured belongs to a tier that is no lower than that of those deferred,
    where the cap leaves room for one of these.
    """
    whole = builders.planned(cloud, max_migrations=0, enforce_quota=False)
    plan = builders.planned(cloud, max_migrations=cap, enforce_quota=False)
    assert len(plan.migrations) <= cap
    assert plan.relief is not None
    assert plan.relief.deferred == len(plan.deferred)
    if len(whole.migrations) <= cap:
        assert plan.migrations == whole.migrations
        assert not plan.deferred
    elif whole.migrations:
        assert plan.migrations or plan.deferred
    assert starved(after(cloud, plan)) == set(plan.relief.after)


@given(clouds())
@settings(max_examples=30)
def test_l8_without_telemetry_quotas_are_what_they_were(
    cloud: model.Cluster,
) -> None:
    """L8 "without telemetry the quota part is unchanged": and with it too,
    for quotas come first.
    """
    blind = dataclasses.replace(cloud, telemetry=None)
    plan = builders.planned(blind, max_migrations=0)
    assert plan.relief is None
    assert plan == builders.planned(
        blind, max_migrations=0, relieve_starvation=False
    )
    seen = builders.planned(cloud, max_migrations=0)
    assert plan.migrations == seen.migrations[: len(plan.migrations)]


@given(clouds(), st.data())
@settings(max_examples=25)
def test_nobody_goes_where_somebody_is_not_known(
    cloud: model.Cluster, data: st.DataObject
) -> None:
    """Unknown is a rejection, on targets and of what others would gain."""
    assert cloud.telemetry is not None
    lost = data.draw(
        st.sampled_from(sorted(cloud.telemetry.readings)), label="lost"
    )
    readings = {
        uuid: told
        for uuid, told in cloud.telemetry.readings.items()
        if uuid != lost
    }
    partly = dataclasses.replace(
        cloud,
        telemetry=dataclasses.replace(
            cloud.telemetry, readings=model.frozen_map(readings)
        ),
    )
    plan = builders.planned(partly, enforce_quota=False, max_migrations=0)
    dark = cloud.instance_by_uuid[lost].host
    assert plan.relief is not None
    for move in plan.migrations:
        assert move.target != dark
        if move.source == dark:
            # Only who starves itself leaves there.
            assert move.instance.uuid in move.relieves
