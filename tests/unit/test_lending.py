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

"""Borrow and reclaim: what is lent, and when it is pulled back.

Host a has sold four CPUs to each tier and holds six vCPUs of gold, two more
than the audit's policy quota of four; its inventory would admit eight.
"""

import dataclasses
from typing import Any

import pytest

from tests import builders
from tests import consumption
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner

BORROW = {"quota_mode": "borrow", "quotas": {"gold": 4}}


def borrowed(
    wants: float = 0.0, unmeasured: tuple[str, ...] = (), **fields: Any
) -> model.Cluster:
    """Gold is busy, silver wants so much of each vCPU, bronze nothing."""
    cloud = builders.cluster(
        [consumption.host("a", gold=8, **fields), consumption.host("b")],
        [
            *consumption.guests("g", "a", 6, "gold"),
            *consumption.guests("s", "a", 2, "silver"),
            *consumption.guests("z", "a", 2, "bronze"),
        ],
    )
    return consumption.used(
        cloud,
        {
            one.uuid: {"gold": 0.5, "silver": wants, "bronze": 0.0}[
                one.tier or ""
            ]
            for one in cloud.instances
        },
        unmeasured=unmeasured,
    )


def lent(
    cloud: model.Cluster, **params: Any
) -> tuple[diagnosing.Diagnosis, list[tuple[str, str]]]:
    """The diagnosis, and the kinds and subjects of what it found."""
    typed = parameters.Parameters.of({**BORROW, **params})
    plain = diagnosing.diagnose(cloud, typed)
    found = lending.lend(cloud, plain, typed)
    told = found.findings[len(plain.findings) :]
    assert all(one.text.endswith(".") for one in told)
    assert {*found.excesses, *found.lent} == set(plain.excesses)
    assert found.quotas == plain.quotas
    return found, [(one.kind, one.subject) for one in told]


def test_an_excess_is_lent_while_the_others_sleep() -> None:
    """R91, R93, N6: and nothing moves."""
    cloud = borrowed()
    found, told = lent(cloud)
    assert told == [("lent", "a")]
    assert not found.excesses
    assert list(lending.lines(found)) == [
        "a lends gold 2 units above its policy quota of 4"
    ]
    plan = builders.planned(cloud, **BORROW)
    assert not plan.migrations
    assert not plan.unresolved
    assert builders.planned(cloud, quotas={"gold": 4}).migrations


def test_strict_is_the_default() -> None:
    cloud = borrowed()
    params = parameters.Parameters.of({"quotas": {"gold": 4}})
    verdict = diagnosing.diagnose(cloud, params)
    assert lending.lend(cloud, verdict, params) is verdict


def test_it_is_pulled_back_when_they_wake() -> None:
    cloud = borrowed(wants=0.5)
    found, told = lent(cloud)
    assert told == [("reclaimed", "a")]
    assert [(e.host, e.units) for e in found.excesses] == [("a", 2)]
    assert "silver wants 1.00 of" in found.findings[-1].text
    plan = builders.planned(cloud, **BORROW)
    assert [m.target for m in plan.migrations] == ["b", "b"]


def test_one_window_awake_is_awake() -> None:
    cloud = borrowed()
    assert cloud.telemetry is not None
    asleep, awake = (
        model.Reading(usage_cpus=used, steal_cpus=0.0) for used in (0.0, 0.5)
    )
    readings = {**cloud.telemetry.readings, "s1": (asleep, awake, asleep)}
    cloud = dataclasses.replace(
        cloud,
        telemetry=dataclasses.replace(
            cloud.telemetry, readings=model.frozen_map(readings)
        ),
    )
    assert lent(cloud)[1] == [("reclaimed", "a")]
    # Of the last windows, as many as the audit looks at.
    assert lent(cloud, windows=1)[1] == [("lent", "a")]


def test_they_sleep_at_most_at_the_idle_fraction() -> None:
    """Silver is promised 333 / (2 x 512 + 333 + 167) of a CPU each there."""
    floor = 333 * 4 / (4 * 512 + 4 * 333 + 4 * 167)
    for part, kind in ((0.2, "lent"), (0.2001, "reclaimed")):
        cloud = borrowed(wants=part * floor)
        assert lent(cloud, idle_fraction=0.20001)[1] == [(kind, "a")]


def test_steal_is_wanted_too() -> None:
    """Who waits is awake, even if it gets nothing."""
    cloud = borrowed()
    assert cloud.telemetry is not None
    waits = model.Reading(usage_cpus=0.0, steal_cpus=0.5)
    readings = {**cloud.telemetry.readings, "z1": (waits,) * 3}
    cloud = dataclasses.replace(
        cloud,
        telemetry=dataclasses.replace(
            cloud.telemetry, readings=model.frozen_map(readings)
        ),
    )
    assert lent(cloud)[1] == [("reclaimed", "a")]


@pytest.mark.parametrize("missing", ["s1", "z2"])
def test_without_telemetry_of_all_of_them_it_is_strict(missing: str) -> None:
    """Missing is never idle; and it is said loudly."""
    found, told = lent(borrowed(unmeasured=(missing,)))
    assert told == [("not_lent", "a")]
    assert found.excesses
    assert f"it is not known what {missing} use" in found.findings[-1].text
    # Nobody asks what the borrower itself uses.
    assert lent(borrowed(unmeasured=("g1",)))[1] == [("lent", "a")]


def test_without_any_telemetry_it_is_strict() -> None:
    cloud = dataclasses.replace(borrowed(), telemetry=None)
    found, told = lent(cloud)
    assert told == [("not_lent", "cloud")]
    assert found.excesses
    assert "there is no telemetry" in found.findings[-1].text
    assert builders.planned(cloud, **BORROW) == builders.planned(
        cloud, quotas={"gold": 4}
    )
    # Fewer windows than the audit wants to see are no telemetry either.
    assert lent(borrowed(), windows=4)[1] == [("not_lent", "a")]


def test_one_that_is_shut_off_sleeps() -> None:
    cloud = borrowed(unmeasured=("s1",))
    off = dataclasses.replace(cloud.instance_by_uuid["s1"], status="SHUTOFF")
    cloud = dataclasses.replace(
        cloud,
        instances=tuple(
            off if one.uuid == "s1" else one for one in cloud.instances
        ),
    )
    assert lent(cloud)[1] == [("lent", "a")]


def test_capacity_is_never_lent() -> None:
    """What the inventory does not admit is cured, and so is a drain."""
    full = borrowed()
    small = dataclasses.replace(
        full,
        hosts=(
            consumption.host("a", gold=5, allocated={}),
            full.host_by_name["b"],
        ),
    )
    assert lent(small) == (lent(small)[0], [])
    assert lent(small)[0].excesses
    drained = lent(full, drain_hosts=["a"])
    assert drained[1] == []
    assert drained[0].excesses
    # Without a policy quota there is nothing to be lent.
    plain = parameters.Parameters.of({"quota_mode": "borrow"})
    verdict = diagnosing.diagnose(small, plain)
    assert lending.lend(small, verdict, plain).excesses == verdict.excesses


def test_a_tier_alone_is_lent() -> None:
    cloud = builders.cluster(
        [consumption.host("a", gold=8)],
        consumption.guests("g", "a", 6, "gold"),
    )
    found, told = lent(consumption.used(cloud, 1.0))
    assert told == [("lent", "a")]
    assert "no instances of other tiers" in found.findings[-1].text


def test_nobody_comes_to_a_host_that_lends() -> None:
    """What leaves it makes no room there for others."""
    cloud = builders.cluster(
        [
            consumption.host("a", gold=8),
            consumption.host("b", gold=8),
            consumption.host("c", gold=8, memory_mb=1024),
        ],
        [
            *consumption.guests("g", "a", 6, "gold"),
            consumption.guest("s", "a", "silver"),
            *consumption.guests("h", "b", 5, "gold"),
            consumption.guest("t", "b", "silver"),
        ],
    )
    wants = {i.uuid: 0.0 for i in cloud.instances} | {"t": 1.0}
    plan = builders.planned(consumption.used(cloud, wants), **BORROW)
    assert [(m.source, m.target) for m in plan.migrations] == [("b", "c")]
    assert dict(plan.excess_before) == {("b", "gold"): 1}
    full = dataclasses.replace(
        cloud, hosts=tuple(h for h in cloud.hosts if h.name != "c")
    )
    plan = builders.planned(consumption.used(full, wants), **BORROW)
    assert not plan.migrations
    (left,) = plan.unresolved
    reasons = {
        refusal.targets["a"].rule
        for refusal in left.refusals
        if refusal.rejection is None
    }
    assert reasons <= {"within_quota", "lends_no_more"}


def test_mixing_leaves_what_is_lent() -> None:
    cloud = borrowed()
    plan = builders.planned(cloud, mix_tiers=True, **BORROW)
    assert {m.instance.tier for m in plan.migrations} <= {"silver", "bronze"}
    assert isinstance(plan, planner.Plan)
    strict = builders.planned(cloud, mix_tiers=True, quotas={"gold": 8})
    assert "gold" in {m.instance.tier for m in strict.migrations}


def test_lending_twice_is_lending_once() -> None:
    cloud = borrowed()
    params = parameters.Parameters.of(BORROW)
    once = lent(cloud)[0]
    assert lending.lend(cloud, once, params) == once
    assert planner.plan(cloud, once, params) == builders.planned(
        cloud, **BORROW
    )
