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

"""Server groups: affinity, anti-affinity, and how many a host."""

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import model
from watcher_cputier import planner

HOSTS = [
    builders.host("a"),
    builders.host("b"),
    builders.host("c", in_scope=False),
]


def reject(
    group: model.ServerGroup, homes: dict[str, str], target: str = "b"
) -> constraints.Rejection | None:
    """Why instance i, on host a, may not go to a host."""
    cloud = builders.cluster(
        HOSTS,
        [builders.instance(n, h) for n, h in {"i": "a", **homes}.items()],
        server_groups=(group,),
    )
    return constraints.reject_target(builders.proposal(cloud, "i", target))


def rule(rejection: constraints.Rejection | None) -> str | None:
    return None if rejection is None else rejection.rule


@pytest.mark.parametrize(
    ("homes", "expected"),
    [
        ({}, None),
        ({"j": "a"}, "affinity"),
        ({"j": "b"}, None),
        ({"j": "c"}, "affinity"),
        ({"j": "b", "k": "a"}, "affinity"),
    ],
)
def test_affinity(homes: dict[str, str], expected: str | None) -> None:
    group = builders.server_group("affinity", ["i", *homes])
    rejection = reject(group, homes)
    assert rule(rejection) == expected
    if rejection is not None:
        assert "group" in rejection.reason
        assert rejection.requirement == "R181"


@pytest.mark.parametrize(
    ("homes", "limit", "expected"),
    [
        ({}, 1, None),
        ({"j": "a"}, 1, None),
        ({"j": "c"}, 1, None),
        ({"j": "b"}, 1, "anti_affinity"),
        ({"j": "b"}, 2, None),
        ({"j": "b", "k": "b"}, 2, "anti_affinity"),
        ({"j": "b", "k": "b"}, 3, None),
    ],
)
def test_anti_affinity(
    homes: dict[str, str], limit: int, expected: str | None
) -> None:
    """max_server_per_host allows more than one."""
    group = builders.server_group("anti-affinity", ["i", *homes], limit=limit)
    rejection = reject(group, homes)
    assert rule(rejection) == expected
    if rejection is not None:
        assert f"of at most {limit} members" in rejection.reason


@pytest.mark.parametrize("policy", ["soft-affinity", "soft-anti-affinity"])
def test_soft_policies_reject_nothing(policy: str) -> None:
    group = builders.server_group(policy, ["i", "j", "k"])
    assert reject(group, {"j": "a", "k": "b"}) is None


@pytest.mark.parametrize("policy", ["affinity", "anti-affinity"])
def test_members_that_no_longer_exist_do_not_count(policy: str) -> None:
    group = builders.server_group(policy, ["i", "gone"])
    assert reject(group, {}) is None


@pytest.mark.parametrize("policy", ["affinity", "anti-affinity"])
def test_strangers_to_the_group_do_not_count(policy: str) -> None:
    group = builders.server_group(policy, ["i"])
    assert reject(group, {"j": "a", "k": "b"}) is None


def test_members_that_are_to_arrive_count() -> None:
    cloud = builders.cluster(
        HOSTS,
        [builders.instance("i", "a"), builders.instance("j", "a")],
        server_groups=(builders.server_group("anti-affinity", ["i", "j"]),),
    )
    books = planner.Books(cloud)
    move = builders.proposal(cloud, "i", "b")
    books.move(cloud.instance_by_uuid["j"], cloud.hosts[1])
    planned = constraints.Proposal(
        cluster=cloud,
        diagnosis=move.diagnosis,
        occupancy=books,
        instance=move.instance,
        target=move.target,
    )
    assert rule(constraints.reject_target(move)) is None
    assert rule(constraints.reject_target(planned)) == "anti_affinity"


@pytest.mark.parametrize(
    ("policy", "homes", "expected"),
    [
        ("soft-anti-affinity", {"j": "a", "k": "a"}, 0),
        ("soft-anti-affinity", {"j": "b", "k": "a"}, 1),
        ("soft-anti-affinity", {"j": "b", "k": "b"}, 2),
        ("soft-affinity", {"j": "a", "k": "a"}, 2),
        ("soft-affinity", {"j": "b", "k": "a"}, 1),
        ("soft-affinity", {"j": "b", "k": "b"}, 0),
        ("affinity", {"j": "a"}, 0),
        ("anti-affinity", {"j": "b"}, 0),
    ],
)
def test_soft_policies_prefer(
    policy: str, homes: dict[str, str], expected: int
) -> None:
    """Few members of soft anti-affinity, many of soft affinity."""
    group = builders.server_group(policy, ["i", "gone", *homes])
    cloud = builders.cluster(
        HOSTS,
        [builders.instance(n, h) for n, h in {"i": "a", **homes}.items()],
        server_groups=(group,),
    )
    move = builders.proposal(cloud, "i", "b")
    assert constraints.soft_penalty(move) == expected


def test_an_instance_of_no_group_prefers_nothing() -> None:
    cloud = builders.cluster(HOSTS, [builders.instance("i", "a")])
    assert constraints.soft_penalty(builders.proposal(cloud, "i", "b")) == 0


@pytest.mark.parametrize(
    ("hint", "homes", "expected"),
    [
        ("different_host", {"j": "a"}, None),
        ("different_host", {"j": "b"}, "different_host"),
        ("different_host", {"j": "a", "k": "b"}, "different_host"),
        ("different_host", {}, None),
        ("same_host", {"j": "b"}, None),
        ("same_host", {"j": "a", "k": "b"}, None),
        ("same_host", {"j": "a"}, "same_host"),
        ("same_host", {}, "same_host"),
    ],
)
def test_scheduler_hints(
    hint: str, homes: dict[str, str], expected: str | None
) -> None:
    """R182: the hint names j and k, which may no longer exist."""
    hinted = builders.instance("i", "a", **{hint: frozenset({"j", "k"})})
    cloud = builders.cluster(
        HOSTS,
        [hinted, *(builders.instance(n, h) for n, h in homes.items())],
    )
    rejection = constraints.reject_target(builders.proposal(cloud, "i", "b"))
    assert rule(rejection) == expected
    if rejection is not None:
        assert "scheduler hint" in rejection.reason
        assert rejection.requirement == "R182"


def test_a_hint_does_not_bind_those_that_it_names() -> None:
    cloud = builders.cluster(
        HOSTS,
        [
            builders.instance("i", "a"),
            builders.instance("j", "b", different_host=frozenset({"i"})),
        ],
    )
    assert (
        constraints.reject_target(builders.proposal(cloud, "i", "b")) is None
    )
