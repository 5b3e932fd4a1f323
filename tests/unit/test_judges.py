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

"""The judges themselves: they find what is wrong with a plan."""

import dataclasses
from typing import Any

import pytest

from tests import builders
from tests import checker
from tests import executions
from tests import oracle
from watcher_cputier import model


@dataclasses.dataclass(frozen=True)
class Move:
    instance: model.Instance
    source: str
    target: str
    tier: str = "gold"
    units: int = 4
    relief: int = 4
    parking: bool = False


@dataclasses.dataclass(frozen=True)
class Plan:
    migrations: tuple[Move, ...]
    excess_before: dict[tuple[str, str], int]
    excess_after: dict[tuple[str, str], int]
    lower_bound: int = 0
    residual_bound: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
    migration: Move
    needs: tuple[int, ...] = ()
    after: tuple[int, ...] = ()


# a is 4 over; b is full until y has left it for c.
CLOUD = builders.cluster(
    [
        builders.host("a", gold=4),
        builders.host("b", gold=4),
        builders.host("c", gold=4),
    ],
    [
        builders.instance("x", "a", 4),
        builders.instance("x2", "a", 4),
        builders.instance("y", "b", 4),
    ],
)
OUT = Move(CLOUD.instance_by_uuid["y"], "b", "c", relief=0)
IN = Move(CLOUD.instance_by_uuid["x"], "a", "b")
BEFORE = {("a", "gold"): 4}


def plan(*moves: Move, **fields: Any) -> Plan:
    return Plan(
        moves, **{"excess_before": BEFORE, "excess_after": {}} | fields
    )


def judged(*moves: Move, **fields: Any) -> str:
    return "; ".join(checker.judge(CLOUD, plan(*moves, **fields)))


def test_a_right_plan_is_right() -> None:
    assert judged(OUT, IN) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (judged(IN, OUT), "gold beyond its quota"),
        (judged(IN), "gold beyond its quota"),
        (judged(OUT), "excess after"),
        (judged(OUT, IN, excess_before={}), "excess before"),
        (judged(OUT, dataclasses.replace(IN, relief=3)), "relief of"),
        (judged(OUT, dataclasses.replace(IN, relief=5)), "relief 5"),
        (judged(OUT, IN, lower_bound=3), "fewer than the bound"),
        (
            judged(excess_after=BEFORE, residual_bound=5),
            "fewer than the bound",
        ),
        (judged(OUT, dataclasses.replace(IN, source="c")), "not on c"),
        (
            judged(dataclasses.replace(OUT, parking=True), IN),
            "parked for good",
        ),
        (
            judged(OUT, dataclasses.replace(OUT, source="c", target="b"), IN),
            "moves twice",
        ),
    ],
)
def test_what_is_wrong_is_told(text: str, told: str) -> None:
    assert told in text


def test_a_cap_is_one() -> None:
    found = checker.judge(CLOUD, plan(OUT, IN), max_migrations=1)
    assert found == ["2 migrations, 1 are allowed"]


def test_a_schedule_with_its_edges_is_right() -> None:
    steps = [Step(OUT), Step(IN, needs=(0,))]
    assert executions.judge(CLOUD, steps, total=1) == []


def test_a_schedule_without_its_edge_is_found_out() -> None:
    found = executions.judge(CLOUD, [Step(OUT), Step(IN)])
    assert any("beyond its quota" in text for text in found)


def test_to_come_after_is_not_to_need() -> None:
    """Only the adversary that lets steps fail finds that out."""
    found = executions.judge(CLOUD, [Step(OUT), Step(IN, after=(0,))])
    assert found
    assert all("fails" in text or "chance" in text for text in found)


def test_limits_are_counted() -> None:
    moves = [
        Move(CLOUD.instance_by_uuid[name], "a", "c", units=4)
        for name in ("x", "x2")
    ]
    found = executions.judge(CLOUD, [Step(m) for m in moves], per_source=1)
    assert any("2 in flight, ('from', 'a')" in text for text in found)


def test_steps_that_wait_for_each_other_are_found_out() -> None:
    found = executions.judge(
        CLOUD, [Step(OUT, needs=(1,)), Step(IN, after=(0,))]
    )
    assert found
    assert all("wait for ever" in text for text in found)


def test_the_oracle_takes_the_shorter_way() -> None:
    best = oracle.truth(CLOUD)
    assert (best.migrations, best.residual) == (1, (0, 0, 0))
    assert best.steps[0][1] == "c"


def test_the_oracle_keeps_to_a_cap() -> None:
    tight = builders.cluster(
        [builders.host("a", gold=0), builders.host("b", gold=4)],
        [builders.instance("x", "a", 2), builders.instance("y", "a", 1)],
    )
    best = oracle.truth(tight, most=1)
    assert (best.migrations, best.residual) == (1, (1, 0, 0))
    assert oracle.truth(tight).migrations == 2
