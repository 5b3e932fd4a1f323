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

"""Why a plan does what it does: replayed, never remembered."""

import dataclasses
import pathlib

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import explanation
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import scenario

SCENARIOS = pathlib.Path(__file__).parents[1] / "scenarios"


def explained(
    cloud: model.Cluster, name: str, **given: object
) -> explanation.OfInstance | explanation.OfHost:
    params = parameters.Parameters.of(given)
    verdict = diagnosing.diagnose(cloud, params)
    plan = planner.plan(cloud, verdict, params)
    return explanation.explain(cloud, verdict, params, plan, name)


def of(name: str, what: str):
    found = scenario.loads((SCENARIOS / f"{name}.yaml").read_text())
    return explained(found.cluster, what, **found.parameters)


@pytest.mark.parametrize(
    "path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_target_of_each_migration_is_told_with_its_weight(path) -> None:
    """What is replayed is what the planner saw."""
    found = scenario.loads(path.read_text())
    cloud = found.cluster
    params = parameters.Parameters.of(found.parameters)
    verdict = diagnosing.diagnose(cloud, params)
    plan = planner.plan(cloud, verdict, params)
    for number, step in enumerate(plan.migrations, 1):
        told = explanation.explain(
            cloud, verdict, params, plan, step.instance.uuid
        )
        (moment,) = (m for m in told.moments if m.number == number)
        (taken,) = (fare for fare in moment.fares if fare.taken)
        assert taken.host == step.target
        assert taken.weight == step.weight
        assert taken.rejection is None
        others = {h.name for h in cloud.hosts if h.in_scope} - {step.source}
        assert {fare.host for fare in moment.fares} == others


def test_targets_come_first_and_the_nearest_of_the_others_next() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=2),
            builders.host("b", gold=8),
            builders.host("c", gold=16),
            builders.host("d", gold=1),
            builders.host("e", gold=3),
            builders.host("f", enabled=False),
        ],
        [builders.instance("i", "a", 4)],
    )
    (moment,) = explained(cloud, "i").moments
    assert [fare.host for fare in moment.fares] == ["c", "b", "e", "d", "f"]
    assert moment.fares[0].taken
    assert "of 2 hosts that may take it then, c weighs most" in moment.why
    assert moment.fares[2].lacking == {"gold": 1, "CUSTOM_VCPU_GOLD": 1}
    assert moment.fares[4].rejection.rule == "in_service"
    assert not moment.fares[4].lacking


def test_a_trait_is_told_before_what_room_would_mend() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=2), builders.host("b", gold=0)],
        [builders.instance("i", "a", 4, required=["HW_X"])],
    )
    (moment,) = explained(cloud, "i").moments
    assert moment.fares[0].rejection.rule == "has_traits"


def test_a_better_host_would_cost_another_migration_its_room() -> None:
    (moment,) = of("favourite_that_is_the_only_hole", "small").moments
    assert moment.why[-1].startswith(
        "with rack-3 instead, large could not go to rack-3 any more: "
    )


def test_both_migrations_of_one_that_is_parked() -> None:
    first, second = of("hop_that_is_needed", "blog").moments
    assert (first.number, second.number) == (1, 3)
    assert "it is parked there, and goes on to rack-1 later" in first.why
    assert "it makes room on rack-2 for shop" in first.why
    back = next(f for f in second.fares if f.host == "rack-2")
    assert back.rejection.reason == "the instance came from there in this plan"


def test_a_deferred_migration_says_so() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b")],
        builders.instances("i", "a", [2, 1]),
    )
    moments = [
        moment
        for name in ("i1", "i2")
        for moment in explained(cloud, name, max_migrations=1).moments
    ]
    assert [m.deferred for m in moments if m.number == 1] == [False]
    for moment in moments:
        if moment.deferred:
            assert "max_migrations defers it to the next audit" in moment.why


STAYING = builders.cluster(
    [
        builders.host("a", gold=4),
        builders.host("b", gold=0),
        builders.host("c", gold=9),
        builders.host("z", in_scope=False),
    ],
    [
        builders.instance("goes", "a", 2),
        builders.instance("rests", "a", 4),
        builders.instance("locked", "a", 1, "silver", locked=True),
        builders.instance("plain", "a", 1, None),
        builders.instance("stuck", "b", 12),
        builders.instance("fixed", "b", 1, locked=True),
        builders.instance("far", "z", 1),
    ],
)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("rests", "goes leaves instead, which is enough"),
        ("locked", "; it could not move either: it is locked"),
        ("plain", "it holds no units of a tier"),
        ("stuck", "b stays 13 gold units over its quota, and no host can"),
        ("fixed", "it may not move: it is locked"),
        ("far", "its host, z, is outside the audit's scope"),
    ],
)
def test_why_an_instance_stays(name: str, why: str) -> None:
    (moment,) = explained(STAYING, name).moments
    assert (moment.number, moment.migration) == (None, None)
    assert why in moment.why[0]
    assert moment.fares


def test_a_host() -> None:
    found = explained(STAYING, "a")
    assert found.why == ("it is 2 gold units over its quota",)
    gold = found.balances[0]
    assert (gold.held, gold.quota, gold.excess, gold.after) == (6, 4, 2, 4)
    assert [one.instance.name for one in found.leaving] == ["goes"]
    assert not found.coming
    assert [one.instance.name for one in found.staying] == [
        "locked", "plain", "rests",
    ]  # fmt: skip
    other = explained(STAYING, "c")
    assert [one.instance.name for one in other.coming] == ["goes"]
    assert other.why == ("it is within its quotas",)


def test_a_host_out_of_scope() -> None:
    found = explained(STAYING, "z")
    assert "outside the audit's scope" in found.why[0]
    assert found.balances == ()


@pytest.mark.parametrize(
    ("field", "why"),
    [
        ({"enabled": False, "disabled_reason": "disk"}, "disabled (disk)"),
        ({"up": False}, "is down"),
    ],
)
def test_a_host_out_of_service(field: dict[str, object], why: str) -> None:
    cloud = builders.cluster([builders.host("a", **field)])
    assert why in explained(cloud, "a", drain_hosts=["a"]).why[1]


@pytest.mark.parametrize("name", ["nope", "", "A"])
def test_what_nothing_is_called(name: str) -> None:
    with pytest.raises(errors.ParameterError, match="no instance and no host"):
        explained(STAYING, name)


def test_what_several_are_called() -> None:
    twins = [
        dataclasses.replace(builders.instance("twin", "a"), uuid=f"u{n}")
        for n in range(7)
    ]
    cloud = builders.cluster([builders.host("a")], twins)
    with pytest.raises(errors.ParameterError) as caught:
        explained(cloud, "twin")
    assert "instance u0, instance u1" in str(caught.value)
    assert "and 2 more. Give the uuid" in str(caught.value)
    assert explained(cloud, "u3").instance.uuid == "u3"


def test_rankers_of_the_operator_count() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b"), builders.host("c")],
        [builders.instance("i", "a", 2)],
    )
    params = parameters.Parameters.of()
    verdict = diagnosing.diagnose(cloud, params)
    added = constraints.Extensions(
        rankers=model.frozen_map(
            {"cool": lambda move: float(move.target.name == "c")}
        )
    )
    plan = planner.plan(cloud, verdict, params, added)
    told = explanation.explain(cloud, verdict, params, plan, "i", added)
    best, other = told.moments[0].fares
    assert (best.host, best.taken) == ("c", True)
    assert best.value == pytest.approx(other.value + 1)


def test_of_many_hosts_the_table_shows_the_nearest() -> None:
    hosts = [builders.host(f"f{n:02}", gold=4) for n in range(15)]
    small = [builders.host(f"s{n:02}", gold=1) for n in range(15)]
    small += [builders.host("off", enabled=False)]
    cloud = builders.cluster(
        [builders.host("a", gold=1), *hosts, *small],
        [builders.instance("i", "a", 2)],
    )
    (moment,) = explained(cloud, "i").moments
    assert len(moment.fares) == 31
    rows = report.fare_rows(moment.fares)
    assert len(rows) == 21
    assert "off" not in {row[0] for row in rows}
    (counts,) = report.fare_counts(moment.fares)
    assert counts == (
        "In all 15 of 31 hosts may take it, 1 not by in_service, 15 not by "
        "within_quota"
    )
    assert report.fare_counts(moment.fares[:5]) == []


def test_a_target_that_is_far_down_is_shown_all_the_same() -> None:
    hosts = [builders.host(f"f{n:02}", gold=4) for n in range(15)]
    cloud = builders.cluster(
        [builders.host("a", gold=1), *hosts], [builders.instance("i", "a", 2)]
    )
    (moment,) = explained(cloud, "i").moments
    first, *rest = moment.fares
    moved = (*rest, first)
    rows = report.fare_rows(moved)
    assert rows[-1][0] == first.host
    assert rows[-1][2].startswith("taken: ")
