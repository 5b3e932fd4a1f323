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

"""Whether a host takes part, and its room within the quota."""

from typing import Any

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner


def reject(
    target: model.Host,
    *,
    gone: int = 2,
    tier: str | None = "gold",
    instances: tuple[model.Instance, ...] = (),
    name: str = "b",
    **params: Any,
) -> constraints.Rejection | None:
    """Why the target may not take an instance of so many units from a."""
    cloud = builders.cluster(
        [builders.host("a"), target],
        [builders.instance("i", "a", gone, tier), *instances],
    )
    return constraints.reject_target(
        builders.proposal(cloud, "i", name, **params)
    )


def rule(rejection: constraints.Rejection | None) -> str | None:
    return None if rejection is None else rejection.rule


def test_an_ordinary_host_takes_it() -> None:
    assert reject(builders.host("b")) is None


def test_the_same_host_is_no_move() -> None:
    rejection = reject(builders.host("b"), name="a")
    assert rule(rejection) == "elsewhere"


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        (("QEMU", 9), ("QEMU", 9), None),
        (("QEMU", 9), ("QEMU", 10), None),
        (("QEMU", 9), ("QEMU", 8), "version 8 of its hypervisor is older"),
        (("QEMU", 9), ("VMware", 9), "is VMware, the source's is QEMU"),
        (("", None), ("QEMU", 8), None),
        (("QEMU", 9), ("", None), None),
    ],
)
def test_hypervisors(
    source: tuple[str, int | None],
    target: tuple[str, int | None],
    words: str | None,
) -> None:
    """R183: of one type, and the target's not older than the source's."""
    names = ("hypervisor_type", "hypervisor_version")
    cloud = builders.cluster(
        [
            builders.host("a", **dict(zip(names, source, strict=True))),
            builders.host("b", **dict(zip(names, target, strict=True))),
        ],
        [builders.instance("i", "a")],
    )
    rejection = constraints.reject_target(builders.proposal(cloud, "i", "b"))
    if words is None:
        assert rejection is None
        return
    assert rejection is not None
    assert rejection.rule == "compatible"
    assert words in rejection.reason
    assert rejection.requirement == "R183"


SERVICES: list[tuple[dict[str, Any], str, str]] = [
    ({"in_scope": False}, "in_audit_scope", "outside the audit's scope"),
    ({"enabled": False}, "in_service", "service is disabled"),
    (
        {"enabled": False, "disabled_reason": "new disk"},
        "in_service",
        "service is disabled (new disk)",
    ),
    ({"up": False}, "in_service", "service is down"),
]


@pytest.mark.parametrize(("fields", "name", "words"), SERVICES)
def test_a_host_that_takes_no_part(
    fields: dict[str, Any], name: str, words: str
) -> None:
    rejection = reject(builders.host("b", **fields))
    assert rejection is not None
    assert rejection.rule == name
    assert rejection.reason.endswith(words)
    assert rejection.requirement.startswith("R")


@pytest.mark.parametrize(
    ("held", "gone", "expected"),
    [
        (0, 16, None),
        (0, 17, "within_quota"),
        (14, 2, None),
        (15, 2, "within_quota"),
        (20, 1, "within_quota"),
    ],
)
def test_a_target_keeps_its_quota(
    held: int, gone: int, expected: str | None
) -> None:
    there = (builders.instance("x", "b", held),) if held else ()
    rejection = reject(builders.host("b", gold=16), gone=gone, instances=there)
    assert rule(rejection) == expected


@pytest.mark.parametrize(
    ("policy", "expected"), [(6, None), (5, "within_quota")]
)
def test_a_policy_quota_binds_the_target(
    policy: int, expected: str | None
) -> None:
    """Placement would have room for all of it."""
    rejection = reject(
        builders.host("b", gold=16),
        instances=(builders.instance("x", "b", 4),),
        quotas_by_host={"b": {"gold": policy}},
    )
    assert rule(rejection) == expected
    if rejection is not None:
        assert rejection.reason == (
            "4 of 5 gold units are taken, 2 more are asked for"
        )


def test_another_tiers_excess_at_the_target_does_not_matter() -> None:
    """A host over in Silver still accepts Gold (facts, section 2)."""
    rejection = reject(
        builders.host("b", silver=2),
        instances=(builders.instance("x", "b", 4, "silver"),),
    )
    assert rejection is None


def test_a_drained_host_is_no_target() -> None:
    rejection = reject(builders.host("b"), drain_hosts=["b"])
    assert rule(rejection) == "within_quota"
    assert rejection is not None
    assert "drained: named in drain_hosts" in rejection.reason


def test_a_host_of_unknown_quota_is_no_target() -> None:
    rejection = reject(builders.host("b", gold=None))
    assert rule(rejection) == "within_quota"
    assert rejection is not None
    assert "unknown" in rejection.reason


def test_a_policy_makes_no_inventory() -> None:
    """With a policy the quota is known, but Placement would refuse."""
    rejection = reject(builders.host("b", gold=None), quotas={"gold": 8})
    assert rule(rejection) == "fits"


def test_an_untiered_instance_is_no_matter_of_quotas() -> None:
    rejection = reject(
        builders.host("b", gold=None), tier=None, quotas={"gold": 8}
    )
    assert rejection is None


def test_without_classes_units_are_the_instances() -> None:
    """R140: the flavor requests no class, the quota counts all the same."""
    bare = {"gold": None, "silver": None, "bronze": None}
    gold = builders.instance(
        "i", "a", 2, tier="gold", flavor=builders.flavor(2, None)
    )
    cloud = builders.cluster(
        [builders.host("a", **bare), builders.host("b", **bare)],
        [gold],
        tiers=builders.tiers("gold"),
    )
    for quota, expected in ((2, None), (1, "within_quota")):
        move = builders.proposal(
            cloud,
            "i",
            "b",
            quotas_by_host={"b": {"gold": quota}, "a": {"gold": 0}},
        )
        assert rule(constraints.reject_target(move)) == expected


def test_a_migration_claims_what_the_flavor_asks_for() -> None:
    """It holds 2 units, its changed flavor asks for 4 at the target."""
    held = builders.instance("i", "a", 2, flavor=builders.flavor(4, "gold"))
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", gold=3)], [held]
    )
    typed = parameters.Parameters.of()
    rejection = constraints.reject_target(
        constraints.Proposal(
            cluster=cloud,
            diagnosis=diagnosing.diagnose(cloud, typed),
            occupancy=planner.Books(cloud),
            instance=cloud.instances[0],
            target=cloud.hosts[1],
        )
    )
    assert rejection is not None
    assert "4 more" in rejection.reason


def test_arrivals_take_room_and_departures_give_it_back() -> None:
    """A migration that begins when another has ended finds its room."""
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b", gold=4)],
        builders.instances("i", "a", [3]) + builders.instances("j", "b", [2]),
    )
    books = planner.Books(cloud)
    books.move(cloud.instance_by_uuid["j1"], cloud.hosts[0])
    assert books.held("a", "gold") == 5
    assert books.held("b", "gold") == 0
    assert books.used("a", "CUSTOM_VCPU_GOLD") == 5
    assert books.used("b", "CUSTOM_VCPU_GOLD") == 0
    assert books.used("a", "MEMORY_MB") == 2048
    assert books.used("b", "MEMORY_MB") == 0
    books.back(cloud.instance_by_uuid["j1"], None)
    assert books.held("a", "gold") == 3
    assert books.held("b", "gold") == 2
    assert books.used("b", "MEMORY_MB") == 1024
