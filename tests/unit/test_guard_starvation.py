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

"""Steps for starvation are judged once more, and told, like any others.

``s`` has two vCPUs of silver with the shares of one, beside busy gold and
bronze on ``a``; ``b`` has room.
"""

import dataclasses
import json

import pytest

from tests import builders
from tests import consumption
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import schedule
from watcher_cputier.goals import indicators

PARAMS = parameters.Parameters.of({})


def cloud(*more: model.Instance, demand: float = 1.0) -> model.Cluster:
    return consumption.used(
        builders.cluster(
            [consumption.host("a"), consumption.host("b")],
            [
                consumption.guest("s", "a", "silver", 2, shares=333),
                *consumption.guests("g", "a", 4, "gold"),
                *consumption.guests("z", "a", 4, "bronze"),
                *more,
            ],
        ),
        demand,
    )


@pytest.fixture
def seen() -> model.Cluster:
    return cloud()


@pytest.fixture
def expected(seen: model.Cluster) -> guard.Expectation:
    """Of the one step of the plan, as it travels through JSON."""
    plan = builders.planned(seen)
    assert builders.moves(plan) == [("s", "a", "b")]
    (found,) = guard.expectations(seen, plan.migrations, PARAMS)
    return guard.Expectation.of(json.loads(json.dumps(found.document())))


def test_a_step_rests_on_the_starved_and_on_who_is_there(
    expected: guard.Expectation,
) -> None:
    assert expected.starved == ("s",)
    assert expected.guests == {"s"}
    assert expected.excess is None
    assert expected.instances == ("s",)
    assert dict(expected.hosts) == {"a": "a", "b": "b"}


def test_while_it_is_starved_it_moves(
    seen: model.Cluster, expected: guard.Expectation
) -> None:
    assert guard.objection(seen, expected) == ""


def test_without_telemetry_the_audits_word_holds(
    seen: model.Cluster, expected: guard.Expectation
) -> None:
    blind = dataclasses.replace(seen, telemetry=None)
    assert guard.objection(blind, expected) == ""


def test_with_its_telemetry_gone_it_is_not_called_cured(
    seen: model.Cluster, expected: guard.Expectation
) -> None:
    """A missing number is never zero."""
    unknown = consumption.used(
        dataclasses.replace(seen, telemetry=None), 1.0, unmeasured=["s"]
    )
    assert guard.objection(unknown, expected) == ""


@pytest.mark.parametrize(
    ("demand", "verdict"), [(0.01, "idle"), (0.2, "served")]
)
def test_when_it_is_starved_no_more_it_stays(
    expected: guard.Expectation, demand: float, verdict: str
) -> None:
    found = guard.objection(cloud(demand=demand), expected)
    assert found == f"nobody is starved any more: s ({verdict})"


def test_a_stranger_on_the_target_was_not_predicted_with(
    expected: guard.Expectation,
) -> None:
    now = cloud(consumption.guest("new", "b", "gold"))
    found = guard.objection(now, expected)
    assert found.startswith("new came to b since")


def test_a_competitor_stays_once_the_starved_one_has_left(
    seen: model.Cluster,
) -> None:
    (step,) = builders.planned(seen).migrations
    competitor = seen.instance_by_uuid["g1"]
    (expected,) = guard.expectations(
        seen,
        [dataclasses.replace(step, instance=competitor, tier="gold")],
        PARAMS,
    )
    assert expected.instances == ("g1", "s")
    assert guard.objection(seen, expected) == ""
    gone = dataclasses.replace(
        seen, instances=tuple(i for i in seen.instances if i.uuid != "s")
    )
    found = guard.objection(gone, expected)
    assert found == "the starved instances are no longer on a or b"


def test_the_second_step_of_an_exchange_completes_it(
    seen: model.Cluster,
) -> None:
    """The first one has changed what is measured."""
    (step,) = builders.planned(seen).migrations
    back = dataclasses.replace(
        step,
        instance=seen.instance_by_uuid["g1"],
        source="b",
        target="a",
    )
    first, second = guard.expectations(seen, [step, back], PARAMS)
    assert first.starved == ("s",)
    assert second.starved == ()


def test_the_steps_of_a_cure_need_each_other() -> None:
    """Half an exchange helps nobody: s and t change places."""
    seen = consumption.used(
        builders.cluster(
            [consumption.host("a"), consumption.host("b")],
            [
                consumption.guest("s", "a", "silver", 2, shares=333),
                *consumption.guests("g", "a", 4, "gold", locked=True),
                *consumption.guests("z", "a", 4, "bronze", locked=True),
                consumption.guest("k", "b", "gold", 3, locked=True),
                consumption.guest("t", "b", "silver", 2),
            ],
        ),
        1.0,
    )
    plan = builders.planned(seen)
    assert sorted(builders.moves(plan)) == [("s", "a", "b"), ("t", "b", "a")]
    made = schedule.arrange(
        seen,
        plan.migrations,
        diagnosing.diagnose(seen, PARAMS),
        PARAMS,
    )
    assert [step.needs for step in made.steps] == [(), (0,)]


# What is told of it


def test_the_indicators_of_starvation(seen: model.Cluster) -> None:
    found = indicators.values(builders.planned(seen), ["gold"])
    assert found["instances_starved_before"] == 1
    assert found["instances_starved_after"] == 0


def test_they_are_left_out_where_nobody_was_judged(
    seen: model.Cluster,
) -> None:
    blind = dataclasses.replace(seen, telemetry=None)
    unread = consumption.used(
        blind, 1.0, unmeasured=[i.uuid for i in seen.instances]
    )
    for one in (blind, unread):
        found = indicators.values(builders.planned(one), ["gold"])
        assert not [name for name in found if "starved" in name]
        assert found["excess_units_before"] == 0


def told(seen: model.Cluster, **params: object) -> str:
    typed = parameters.Parameters.of(params)
    return report.summary(
        seen,
        diagnosing.diagnose(seen, typed),
        builders.planned(seen, **params),
    )


def test_the_summary_tells_of_it(seen: model.Cluster) -> None:
    assert told(seen) == (
        "None of 2 hosts is over its quota of gold, silver, bronze; 1 "
        "migration for starvation (instances starved: 1 to 0)"
    )
    assert told(cloud(demand=0.2)).endswith("; nobody is starved")
    assert "starv" not in told(dataclasses.replace(seen, telemetry=None))


def test_the_plans_document_tells_of_it(seen: model.Cluster) -> None:
    plan = builders.planned(seen)
    found = report.plan_document(seen, diagnosing.diagnose(seen, PARAMS), plan)
    json.dumps(found)
    starvation = found["starvation"]
    assert starvation["migrations"] == 1
    (condition,) = starvation["before"]
    assert condition["verdict"] == "mis-weighted"
    assert condition["instance"] == {"name": "s", "uuid": "s"}
    (prediction,) = starvation["predictions"]
    assert prediction["starved_before"]
    assert not prediction["starved_after"]
    assert found["migrations"][0]["concern"] == planner.STARVATION
    assert found["lent"] == []


def test_a_starved_instance_is_told_in_a_line(seen: model.Cluster) -> None:
    plan = builders.planned(seen)
    assert plan.relief is not None
    (condition,) = plan.relief.before
    text = report.condition(condition)
    assert text.startswith(
        "s (silver) on a gets 0.22 CPUs per vCPU of 1.00 that it wants, at a "
        "promised speed of 0.33: mis-weighted. "
    )
    assert "quota:cpu_shares=666" in text
    assert report.starved_rows([condition])[1] == [
        "s", "silver", "a", "0.22", "1.00", "0.33", "mis-weighted",
    ]  # fmt: skip


def test_what_is_lent_is_told(seen: model.Cluster) -> None:
    excess = diagnosing.Excess(host="a", tier="gold", held=4, quota=3)
    verdict = dataclasses.replace(
        diagnosing.diagnose(seen, PARAMS), lent=(excess,)
    )
    text = report.summary(seen, verdict, planner.Plan())
    assert "1 unit above policy is lent on 1 host" in text
    found = report.plan_document(seen, verdict, planner.Plan())
    assert found["lent"] == [{"host": "a", "tier": "gold", "units": 1}]


@pytest.mark.parametrize(
    ("params", "telemetry", "text"),
    [
        ({}, False, ""),
        ({"enforce_quota": False}, True, ""),
        ({"enforce_quota": False, "mix_tiers": True}, False, ""),
        ({"enforce_quota": False}, False, "without telemetry"),
        (
            {"enforce_quota": False, "relieve_starvation": False},
            True,
            "enforce_quota, relieve_starvation and mix_tiers are false",
        ),
    ],
)
def test_an_audit_may_be_for_nothing(
    params: dict[str, bool], telemetry: bool, text: str
) -> None:
    found = report.idle(parameters.Parameters.of(params), telemetry)
    assert text in found
    assert bool(found) == bool(text)
