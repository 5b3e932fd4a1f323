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

"""Judging a step once more: each thing that can have changed, by hand."""

import dataclasses
import json

import pytest

from tests import builders
from tests import serial
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner


def cloud(**over: object) -> model.Cluster:
    """a is over by 4 Gold, b is full, c has room."""
    return builders.cluster(
        [
            builders.host("a", gold=4),
            builders.host("b", gold=4, **over),
            builders.host("c"),
        ],
        [
            builders.instance("stay", "a", 4),
            builders.instance("victim", "a", 4),
            builders.instance("ejected", "b", 4),
        ],
    )


def plan(seen: model.Cluster) -> list[planner.Migration]:
    """``ejected`` makes room for ``victim``."""
    excess = diagnosing.Excess(host="a", tier="gold", held=8, quota=4)
    out, relief = serial.by_hand(seen, ("ejected", "c"), ("victim", "b"))
    return [
        dataclasses.replace(
            out, excess=excess, relief=0, makes_room_for="victim"
        ),
        dataclasses.replace(relief, excess=excess),
    ]


def expected(
    index: int, seen: model.Cluster | None = None, **params: object
) -> guard.Expectation:
    seen = seen or cloud()
    typed = parameters.Parameters.of(params)
    return guard.expectations(seen, plan(seen), typed)[index]


def changed(
    name: str, seen: model.Cluster | None = None, **fields: object
) -> model.Cluster:
    """The cloud with one instance otherwise; without it, if no field."""
    seen = seen or cloud()
    return dataclasses.replace(
        seen,
        instances=tuple(
            dataclasses.replace(one, **fields) if one.name == name else one
            for one in seen.instances
            if fields or one.name != name
        ),
    )


def test_nothing_has_changed() -> None:
    assert guard.objection(cloud(), expected(0)) == ""


def test_an_expectation_survives_json() -> None:
    for index in (0, 1):
        one = expected(
            index,
            quotas={"gold": "90%", "silver": 4},
            quotas_by_host={"a": {"gold": 3}, "c": {"gold": "12.5%"}},
            drain_hosts=["b"],
        )
        again = guard.Expectation.of(json.loads(json.dumps(one.document())))
        assert again == one


def test_only_the_hosts_it_has_to_do_with_travel() -> None:
    """The excess is on a third host; the rules of others stay at home."""
    out = expected(0, quotas_by_host={n: {"gold": 3} for n in "ac"})
    assert dict(out.hosts) == {"a": "a", "b": "b", "c": "c"}
    relief = expected(1, quotas_by_host={n: {"gold": 3} for n in "ac"})
    assert dict(relief.hosts) == {"a": "a", "b": "b"}
    assert list(relief.rules["quotas_by_host"]) == ["a"]


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("ejected", {}, "the instance is gone"),
        ("ejected", {"host": "c"}, "is on c and no longer on b"),
        ("ejected", {"host": ""}, "is on no host"),
        ("ejected", {"status": "SHUTOFF"}, "SHUTOFF, not ACTIVE"),
        ("ejected", {"locked": True}, "locked"),
        ("ejected", {"task_state": "rebooting"}, "rebooting"),
        ("ejected", {"opted_out": True}, "optimize=false"),
        ("ejected", {"in_doubt": "odd"}, "odd"),
        ("victim", {}, "makes room for instance victim, which is gone"),
        ("victim", {"host": "c"}, "makes room for victim, which is on c"),
    ],
)
def test_what_becomes_of_the_instances(
    name: str, fields: dict[str, object], words: str
) -> None:
    found = guard.objection(changed(name, **fields), expected(0))
    assert words in found


def test_the_excess_is_cured() -> None:
    """Whoever makes room for a relief that nobody needs stays as well."""
    cured = dataclasses.replace(
        cloud(), held=model.frozen_map({("a", "gold"): 4, ("b", "gold"): 4})
    )
    for index in (0, 1):
        found = guard.objection(cured, expected(index))
        assert "a is no longer over its quota: it holds 4 gold units" in found


def test_the_quota_is_looked_up_again() -> None:
    """90 % of a capacity that is another by now."""
    step = expected(0, quotas={"gold": "90%"})
    roomy = builders.cluster(
        [
            builders.host("a", gold=9),
            builders.host("b", gold=4),
            builders.host("c"),
        ],
        cloud().instances,
    )
    assert "holds 8 gold units of at most 8" in guard.objection(roomy, step)
    assert guard.objection(cloud(), step) == ""


def test_a_drain_is_not_cured_before_all_have_left() -> None:
    seen = cloud()
    (move,) = serial.by_hand(seen, ("ejected", "c"))
    typed = parameters.Parameters.of({"drain_hosts": ["b"]})
    (step,) = guard.expectations(seen, [move], typed)
    assert guard.objection(seen, step) == ""


def with_guest(units: int) -> model.Cluster:
    """Somebody came to c after the plan."""
    return builders.cluster(
        [
            builders.host("a", gold=4),
            builders.host("b", gold=4),
            builders.host("c"),
        ],
        [*cloud().instances, builders.instance("late", "c", units)],
    )


def test_the_target_is_full_or_over_its_policy_quota() -> None:
    full = with_guest(13)
    assert "c may not take it: 13 of 16 gold units" in guard.objection(
        full, expected(0)
    )
    rules = {"quotas_by_host": {"c": {"gold": 15}}}
    late = with_guest(12)
    assert guard.objection(late, expected(0)) == ""
    assert "12 of 15" in guard.objection(late, expected(0, **rules))


def test_the_target_is_out_of_service_or_gone() -> None:
    seen = cloud()
    a, b, c = seen.hosts
    off = dataclasses.replace(
        seen, hosts=(a, b, dataclasses.replace(c, enabled=False))
    )
    assert "compute service is disabled" in guard.objection(off, expected(0))
    gone = dataclasses.replace(seen, hosts=(a, b))
    assert guard.objection(gone, expected(0)) == "c is gone"


def test_who_was_parked_goes_on_whatever_has_become_of_the_excess() -> None:
    """And who waits for a parked one knows where it may come from."""
    seen = cloud()
    moves = serial.by_hand(
        seen, ("ejected", "c"), ("victim", "b"), ("ejected", "a")
    )
    moves[1] = dataclasses.replace(moves[1], makes_room_for="ejected")
    steps = guard.expectations(seen, moves, parameters.Parameters.of({}))
    assert [step.excess for step in steps] == [
        ("b", "gold"),
        ("a", "gold"),
        None,
    ]
    assert steps[1].awaited == "ejected"
    assert steps[1].awaited_at == {"b", "c"}


def test_tiers_of_other_hosts_do_not_matter() -> None:
    """Bronze is sold elsewhere: a few hosts without it are judged."""
    hosts = [
        builders.host("a", gold=4, bronze=None),
        builders.host("b", gold=4, bronze=None),
        builders.host("c", bronze=None),
        builders.host("d"),
    ]
    whole = builders.cluster(hosts, cloud().instances)
    few = builders.cluster(hosts[:3], cloud().instances)
    assert guard.objection(few, expected(0, whole)) == ""
