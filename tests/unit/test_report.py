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

"""The decision in words, on one story.

Host a holds 6 Gold units of 4: small (2) goes to b. Host c is drained: its
locked instance stays.
"""

import dataclasses

import pytest

from tests import builders
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report

STORY = builders.cluster(
    [
        builders.host("a", gold=4),
        builders.host("b", bronze=None),
        builders.host("c", enabled=False),
        builders.host("d", up=False),
        builders.host("z", in_scope=False),
    ],
    [
        builders.instance("large", "a", 4),
        builders.instance("small", "a", 2),
        builders.instance("stays", "c", 2, locked=True),
        builders.instance("pinned", "c", 2, pinned_zone="az9"),
    ],
)
PARAMS = parameters.Parameters.of({"drain_hosts": ["c"]})
VERDICT = diagnosing.diagnose(STORY, PARAMS)
PLAN = planner.plan(STORY, VERDICT, PARAMS)


def test_a_migration_in_one_line() -> None:
    """What moves where, why, and how the target weighs."""
    (migration,) = PLAN.migrations
    text = report.sentence(migration)
    assert text.startswith(
        "Migrate small (2 gold units, small) from a to b: "
        "a holds 6 gold units of at most 4; b weighs 0."
    )
    assert "CUSTOM_VCPU_GOLD 1-2/16=0.875" in text
    assert "\n" not in text


def test_what_stays_and_why() -> None:
    (item,) = PLAN.unresolved
    lines = list(report.unresolved(item))
    assert lines[0] == (
        "c stays 4 gold units over its quota; at least 2 more would have to "
        "leave"
    )
    assert lines[1].startswith("c: pinned has no target (")
    assert lines[2] == "c: stays stays (unlocked: it is locked)"
    assert len(lines) == 3


def test_refusals_are_counted_by_rule_with_an_example() -> None:
    (item,) = PLAN.unresolved
    text = report.refusal(item.refusals[0])
    assert "2 hosts by in_zone, e.g. a: " not in text
    assert "1 host by in_audit_scope, e.g. z: " in text
    assert "1 host by in_service, e.g. d: its compute service is down" in text
    assert "1 host by in_zone, e.g. b: " in text
    assert "1 host by within_quota, e.g. a: 4 of 4 gold units" in text
    assert "elsewhere" not in text


def test_one_host_alone_has_no_other() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1)], builders.instances("i", "a", [2])
    )
    plan = builders.planned(cloud)
    (refusal,) = plan.unresolved[0].refusals
    text = report.refusal(refusal)
    assert text == "i1 stays (there is no other host)"


def summary(cloud: model.Cluster, **given: object) -> str:
    params = parameters.Parameters.of(given)
    verdict = diagnosing.diagnose(cloud, params)
    return report.summary(cloud, verdict, planner.plan(cloud, verdict, params))


def test_the_summary_of_a_compliant_cloud() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", in_scope=False)]
    )
    assert summary(cloud) == (
        "Nothing to do: none of 1 hosts is over its quota of gold, silver, "
        "bronze"
    )


def test_the_summary_of_a_plan() -> None:
    assert report.summary(STORY, VERDICT, PLAN) == (
        "1 migration takes the units over quota on 4 hosts from 6 to 4; no "
        "plan does it with fewer; 4 units stay over quota, and no plan leaves "
        "fewer"
    )


def test_the_summary_of_a_capped_plan() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b")],
        builders.instances("i", "a", [1, 1, 1]),
    )
    text = summary(cloud, max_migrations=1)
    assert "on 2 hosts from 2 to 1; no plan does it with fewer; 1 more" in text
    assert text.endswith(
        "deferred to the next audit by max_migrations; no plan of "
        "that size removes more"
    )


def test_a_plan_whose_search_was_cut_says_so() -> None:
    """What was not searched to the end is not called impossible."""
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b")],
        builders.instances("i", "a", [1, 1, 1]),
    )
    params = parameters.Parameters.of()
    verdict = diagnosing.diagnose(cloud, params)
    cut = planner.plan(cloud, verdict, params, expired=lambda: True)
    text = report.summary(cloud, verdict, cut)
    assert "the search was cut by time_budget_seconds" in text
    assert "for 2 units nothing was found" in text
    assert "cannot be moved" not in text
    assert report.plan_document(cloud, verdict, cut)["cut"] is True


def test_a_plan_that_is_not_optimal_does_not_say_so() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b")],
        builders.instances("i", "a", [2, 2, 2, 2]),
    )
    params = parameters.Parameters.of({})
    verdict = diagnosing.diagnose(cloud, params)
    made = planner.plan(cloud, verdict, params)
    assert "no plan does it with fewer" in report.summary(cloud, verdict, made)
    weaker = dataclasses.replace(made, lower_bound=1)
    text = report.summary(cloud, verdict, weaker)
    assert "at least 1 " in text
    assert "no plan does it with fewer" not in text


def test_the_table_of_hosts() -> None:
    """Held and quota of each tier; hosts out of scope are left out."""
    assert report.host_rows(STORY, VERDICT) == [
        ["host", "gold", "silver", "bronze", "state"],
        ["a", "6/4", "0/16", "0/16", "over: gold +2"],
        ["b", "0/16", "0/16", "0/?", "ok"],
        ["c", "4/0", "0/0", "0/0", "over: gold +4, drained, disabled"],
        ["d", "0/16", "0/16", "0/16", "ok, down"],
    ]


@pytest.mark.parametrize("length", [0, 1, 254, 255])
def test_what_fits_is_not_cut(length: int) -> None:
    assert report.shortened("x" * length) == "x" * length


@pytest.mark.parametrize("length", [256, 257, 1000])
def test_what_does_not_fit_is_cut_with_a_mark(length: int) -> None:
    """A status message holds 255 characters."""
    text = report.shortened("x" * length)
    assert len(text) == 255
    assert text == "x" * 252 + "..."


READING = {
    "Placement": {"requests": 7, "seconds": 0.5, "received_bytes": 9},
    "Nova": {"requests": 6, "seconds": 0.25, "received_bytes": 10},
}


def test_a_plan_says_what_reading_took() -> None:
    told = report.plan_document(STORY, VERDICT, PLAN, reading=READING)
    assert list(told["reading"]) == ["Nova", "Placement"]
    assert told["reading"] == READING
    assert "reading" not in report.plan_document(STORY, VERDICT, PLAN)


def test_a_failure_as_data() -> None:
    """What, where and cure of our errors; of others, what they say."""
    ours = errors.ServiceError("it is broken", where="Nova", cure="Mend it")
    told = report.failure_document(ours, reading=READING)
    assert told["watcher_cputier_failure"] == 1
    assert told["error"] == {
        "kind": "ServiceError",
        "text": "Nova: it is broken. Mend it",
        "what": "it is broken",
        "where": "Nova",
        "cure": "Mend it",
    }
    assert told["reading"] == READING
    other = report.failure_document(KeyError())
    assert other["error"]["text"] == "KeyError()"
    assert "reading" not in other
