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

"""Availability zones and host aggregates."""

from typing import Any

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import model


def reject(
    *aggregates: model.Aggregate,
    target: dict[str, Any] | None = None,
    **fields: Any,
) -> constraints.Rejection | None:
    """Why b may not take an instance of a, which is in no aggregate."""
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", **(target or {}))],
        [builders.instance("i", "a", 2, **fields)],
        aggregates=aggregates,
    )
    return constraints.reject_target(builders.proposal(cloud, "i", "b"))


def rule(rejection: constraints.Rejection | None) -> str | None:
    return None if rejection is None else rejection.rule


def on_b(name: str = "agg", **metadata: str) -> model.Aggregate:
    """An aggregate of host b; ``__`` in a key stands for a colon."""
    return builders.aggregate(
        name, ["b"], {k.replace("__", ":"): v for k, v in metadata.items()}
    )


@pytest.mark.parametrize(
    ("pinned", "zone", "expected"),
    [
        (None, "az1", None),
        ("az1", "az1", None),
        ("az1", "az2", "in_zone"),
        ("az1", "", "in_zone"),
    ],
)
def test_a_pinned_instance_keeps_its_zone(
    pinned: str | None, zone: str, expected: str | None
) -> None:
    rejection = reject(target={"zone": zone}, pinned_zone=pinned)
    assert rule(rejection) == expected


SPEC = "aggregate_instance_extra_specs:"

# asked for, metadata of two aggregates of the target, accepted
SPECS: list[tuple[str, str | None, str | None, bool]] = [
    ("true", "true", None, True),
    ("true", None, "true", True),
    ("true", "false", None, False),
    ("true", "false", "true", True),
    ("true", None, None, False),
    ("true", "TRUE", None, False),
    ("fast", "slow,fast", None, True),
    ("fast", "slow, fast", None, True),
    ("<or> fast <or> faster", "faster", None, True),
    ("<or> fast <or> faster", "slow", None, False),
    ("s!= slow", "fast", None, True),
    ("s!= slow", "slow", None, False),
    ("<in> as", "fast", None, True),
    (">= 10", "10", None, True),
    (">= 10", "9", None, False),
    ("<= 10", "9", "11", True),
    ("= 5", "6", None, True),
    ("== 5", "6", None, False),
]


@pytest.mark.parametrize(("wanted", "first", "second", "accepted"), SPECS)
def test_extra_specs_of_aggregates(
    wanted: str, first: str | None, second: str | None, accepted: bool
) -> None:
    """Nova's own operators; any value of any aggregate of the host."""
    aggregates = [
        on_b(name, disk=value) if value is not None else on_b(name)
        for name, value in (("one", first), ("two", second))
    ]
    rejection = reject(*aggregates, extra_specs={f"{SPEC}disk": wanted})
    assert rule(rejection) == (None if accepted else "matches_extra_specs")
    if rejection is not None:
        assert f"disk={wanted}" in rejection.reason


@pytest.mark.parametrize(
    ("wanted", "value"),
    [(">= 10", "plenty"), ("<all-in> a b", "a, b"), ("<range-in> 1 2", "x")],
)
def test_metadata_that_cannot_be_compared_does_not_match(
    wanted: str, value: str
) -> None:
    """ "What cannot be known is a rejection", and no end of the audit."""
    rejection = reject(on_b(disk=value), extra_specs={f"{SPEC}disk": wanted})
    assert rule(rejection) == "matches_extra_specs"


def test_all_extra_specs_must_match() -> None:
    wanted = {f"{SPEC}disk": "ssd", f"{SPEC}net": "fast"}
    one, two = on_b("one", disk="ssd"), on_b("two", net="fast")
    assert reject(one, two, extra_specs=wanted) is None
    assert rule(reject(one, extra_specs=wanted)) == "matches_extra_specs"


def test_other_scopes_are_not_the_aggregates() -> None:
    found = reject(
        extra_specs={"quota:cpu_shares": "1024", "cputier:priority": "1"}
    )
    assert found is None


def test_another_hosts_aggregate_says_nothing() -> None:
    other = builders.aggregate("other", ["a"], {"disk": "ssd"})
    rejection = reject(other, extra_specs={f"{SPEC}disk": "ssd"})
    assert rule(rejection) == "matches_extra_specs"


@pytest.mark.parametrize(
    ("value", "required", "expected"),
    [
        ("required", [], "admits_by_trait"),
        ("required", ["CUSTOM_LICENSED"], None),
        ("forbidden", [], None),
    ],
)
def test_an_aggregate_isolated_by_a_trait(
    value: str, required: list[str], expected: str | None
) -> None:
    """R160: only flavors that require the trait may come."""
    rejection = reject(
        on_b(trait__CUSTOM_LICENSED=value),
        target={"traits": ["CUSTOM_LICENSED"]},
        required=required,
    )
    assert rule(rejection) == expected


def test_a_numbered_groups_trait_opens_an_isolated_aggregate() -> None:
    """Nova asks for the traits of all groups of the request."""
    child = builders.provider(
        "b_numa0", {"CUSTOM_LLC": 4}, root="b", traits=["CUSTOM_LICENSED"]
    )
    rejection = reject(
        on_b(trait__CUSTOM_LICENSED="required"),
        target={"children": [child]},
        groups=[
            builders.group(
                {"CUSTOM_LLC": 1}, suffix="1", required=["CUSTOM_LICENSED"]
            )
        ],
    )
    assert rejection is None


# metadata of two aggregates of the target, accepted for project p1
PROJECTS: dict[str, tuple[dict[str, str], dict[str, str], bool]] = {
    "kept for nobody": ({}, {}, True),
    "kept for it": ({"filter_tenant_id": "p1"}, {}, True),
    "kept for another": ({"filter_tenant_id": "p2"}, {}, False),
    "kept for several": ({"filter_tenant_id": "p2, p1"}, {}, True),
    "a key with a suffix": ({"filter_tenant_id_2": "p1"}, {}, True),
    "another's suffix": ({"filter_tenant_id_2": "p2"}, {}, False),
    "two keys": (
        {"filter_tenant_id": "p2", "filter_tenant_id2": "p1"},
        {},
        True,
    ),
    "another aggregate is kept for it": (
        {"filter_tenant_id": "p2"},
        {"filter_tenant_id": "p1"},
        True,
    ),
    "both are kept for others": (
        {"filter_tenant_id": "p2"},
        {"filter_tenant_id": "p3"},
        False,
    ),
}


@pytest.mark.parametrize("case", PROJECTS)
def test_aggregates_kept_for_projects(case: str) -> None:
    """As Nova's AggregateMultiTenancyIsolation: the projects of all
    aggregates of a host are united.
    """
    first, second, accepted = PROJECTS[case]
    rejection = reject(
        on_b("one", **first), on_b("two", **second), project="p1"
    )
    assert rule(rejection) == (None if accepted else "admits_project")
