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

"""Whether Placement would grant a request on a tree of providers."""

from typing import Any

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier.constraints import capacity


def fits(
    target: model.Host, *instances: model.Instance, **fields: Any
) -> constraints.Rejection | None:
    """What capacity says of an instance of two units moving from a to b."""
    source = builders.host(
        "a", more=dict.fromkeys(("CUSTOM_LLC", "CUSTOM_BW", "CUSTOM_X"), 99)
    )
    cloud = builders.cluster(
        [source, target],
        [builders.instance("i", "a", 2, **fields), *instances],
    )
    return capacity.fits(builders.proposal(cloud, "i", "b"))


def rule(rejection: constraints.Rejection | None) -> str | None:
    return None if rejection is None else rejection.rule


# --- single classes


CLASSES: dict[str, tuple[dict[str, Any], str]] = {
    "cpus": ({"vcpus": 1}, "0 of 1 VCPU are taken, 2 more"),
    "memory": ({"memory_mb": 1023}, "0 of 1023 MEMORY_MB are taken"),
    "disk": ({"disk_gb": 9}, "0 of 9 DISK_GB are taken, 10 more"),
    "the tier": ({"gold": 1}, "0 of 1 CUSTOM_VCPU_GOLD are taken"),
    "no inventory": ({"gold": None}, "it has no inventory of CUSTOM_VCPU_"),
    "reserved": (
        {"memory_mb": model.Inventory(total=4096, reserved=3073)},
        "0 of 1023 MEMORY_MB are taken",
    ),
    "max_unit": (
        {"gold": model.Inventory(total=16, max_unit=1)},
        "2 CUSTOM_VCPU_GOLD are asked for, and max_unit is 1",
    ),
    "min_unit": (
        {"gold": model.Inventory(total=16, min_unit=3)},
        "and min_unit is 3",
    ),
    "step_size": (
        {"gold": model.Inventory(total=16, step_size=4)},
        "and step_size is 4",
    ),
}


@pytest.mark.parametrize("case", CLASSES)
def test_every_class_must_fit(case: str) -> None:
    fields, words = CLASSES[case]
    rejection = fits(builders.host("b", **fields))
    assert rejection is not None
    assert rejection.rule == "fits"
    assert words in rejection.reason
    assert rejection.requirement == "R22"


def test_a_request_fits_to_the_last_unit() -> None:
    target = builders.host(
        "b",
        vcpus=2,
        memory_mb=1024,
        disk_gb=10,
        gold=model.Inventory(total=2, min_unit=2, max_unit=2, step_size=2),
    )
    assert fits(target) is None


def test_a_target_full_in_a_class_of_the_request_is_refused() -> None:
    """Room for Gold, none for memory."""
    neighbour = builders.instance("x", "b", 1, "silver", memory_mb=64512)
    rejection = fits(builders.host("b"), neighbour, memory_mb=1025)
    assert rejection is not None
    assert rejection.reason == (
        "64512 of 65536 MEMORY_MB are taken, 1025 more are asked for"
    )
    assert fits(builders.host("b"), neighbour, memory_mb=1024) is None


def test_a_target_over_in_a_class_of_nobodys_concern_fits() -> None:
    """Placement checks the classes of a request alone."""
    full = builders.host("b", silver=1, allocated={"CUSTOM_VCPU_SILVER": 3})
    assert fits(full) is None


def test_allocations_of_others_than_instances_count() -> None:
    full = builders.host("b", gold=16, allocated={"CUSTOM_VCPU_GOLD": 15})
    assert rule(fits(full)) == "fits"


def test_a_host_without_a_provider_is_refused() -> None:
    rejection = fits(builders.host("b", providers=()))
    assert rejection is not None
    assert rejection.rule == "fits"
    assert rejection.reason == "Placement has no provider for it"


# --- trees


def numa(*amounts: int, name: str = "CUSTOM_LLC") -> list[model.Provider]:
    """Nested providers b_numa0, b_numa1, ... with so many units each."""
    return [
        builders.provider(
            f"b_numa{number}",
            {name: amount},
            root="b",
            traits=[f"CUSTOM_NODE_{number}"],
        )
        for number, amount in enumerate(amounts)
    ]


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [((4,), None), ((3,), "fits"), ((2, 4), None), ((3, 3), "fits")],
)
def test_a_class_is_served_whole_by_one_nested_provider(
    nodes: tuple[int, ...], expected: str | None
) -> None:
    """3 + 3 units on two NUMA nodes do not serve a request of 4."""
    target = builders.host("b", children=numa(*nodes))
    assert rule(fits(target, more={"CUSTOM_LLC": 4})) == expected


SHARED = builders.provider(
    "nfs", {"CUSTOM_X": 4}, traits=[model.SHARING_TRAIT]
)


def test_a_sharing_provider_serves_no_unnumbered_group() -> None:
    """Nova asks for a named target with ``in_tree``, which leaves it out."""
    rejection = fits(
        builders.host("b", shared=(SHARED,)), more={"CUSTOM_X": 4}
    )
    assert rejection is not None
    assert rejection.rule == "fits"
    assert rejection.reason == (
        "it has no inventory of CUSTOM_X, and what nfs shares with it Nova "
        "leaves out when a target is named"
    )
    own = builders.host("b", shared=(SHARED,), more={"CUSTOM_X": 3})
    rejection = fits(own, more={"CUSTOM_X": 4})
    assert rejection is not None
    assert "of 3 CUSTOM_X are taken, 4 more" in rejection.reason
    assert "nfs" in rejection.reason
    rejection = fits(builders.host("b"), more={"CUSTOM_X": 4})
    assert rejection is not None
    assert rejection.reason == "it has no inventory of CUSTOM_X"


def test_a_sharing_provider_serves_a_numbered_group() -> None:
    """``in_tree`` is asked of the unnumbered group alone."""
    sharing = builders.host("b", shared=(SHARED,))
    for amount, expected in ((4, None), (5, "fits")):
        group = builders.group({"CUSTOM_X": amount}, suffix="1")
        assert rule(fits(sharing, groups=[group])) == expected


def test_classes_of_the_unnumbered_group_may_part() -> None:
    target = builders.host(
        "b", children=[*numa(4), *numa(0, 4, name="CUSTOM_BW")[1:]]
    )
    assert fits(target, more={"CUSTOM_LLC": 4, "CUSTOM_BW": 4}) is None


def numbered(
    suffix: str, *, required: tuple[str, ...] = (), **units: int
) -> model.RequestGroup:
    """A numbered group; units by the last part of a custom class."""
    return builders.group(
        {f"CUSTOM_{name.upper()}": n for name, n in units.items()},
        suffix=suffix,
        required=required,
    )


def test_a_numbered_group_comes_from_one_provider() -> None:
    """LLC on node 0 and BW on node 1 serve two groups, not one."""
    apart = [
        builders.provider("b_numa0", {"CUSTOM_LLC": 4}, root="b"),
        builders.provider("b_numa1", {"CUSTOM_BW": 4}, root="b"),
    ]
    together = [
        builders.provider(
            "b_numa0", {"CUSTOM_LLC": 4, "CUSTOM_BW": 4}, root="b"
        )
    ]
    one = [numbered("1", llc=2, bw=2)]
    two = [numbered("1", llc=2), numbered("2", bw=2)]
    tables = [
        (apart, one, "fits"),
        (apart, two, None),
        (together, one, None),
        (together, two, None),
    ]
    for children, groups, expected in tables:
        target = builders.host("b", children=children)
        assert rule(fits(target, groups=groups)) == expected


def test_groups_share_the_room_of_a_provider() -> None:
    """Two groups of 3 do not both fit on one node of 4."""
    groups = [numbered("1", llc=3), numbered("2", llc=3)]
    rejection = fits(builders.host("b", children=numa(4)), groups=groups)
    assert rejection is not None
    assert "serves all request groups together" in rejection.reason
    assert fits(builders.host("b", children=numa(4, 4)), groups=groups) is None
    assert fits(builders.host("b", children=numa(6)), groups=groups) is None


def test_the_search_does_not_stop_at_the_first_way() -> None:
    """Group 1 must leave the large node to group 2."""
    groups = [numbered("1", llc=2), numbered("2", llc=8)]
    target = builders.host("b", children=numa(8, 2))
    assert fits(target, groups=groups) is None


def test_isolated_groups_do_not_share_a_provider() -> None:
    groups = [numbered("1", llc=2), numbered("2", llc=2)]
    isolate = {"group_policy": "isolate"}
    one = builders.host("b", children=numa(8))
    two = builders.host("b", children=numa(8, 2))
    assert fits(one, groups=groups) is None
    assert fits(one, groups=groups, extra_specs={"group_policy": "none"}) is (
        None
    )
    assert rule(fits(one, groups=groups, extra_specs=isolate)) == "fits"
    assert fits(two, groups=groups, extra_specs=isolate) is None


def test_the_unnumbered_group_is_not_isolated() -> None:
    """group_policy is for numbered groups; the root serves both here."""
    target = builders.host("b", more={"CUSTOM_X": 4})
    found = fits(
        target,
        groups=[numbered("1", x=1)],
        extra_specs={"group_policy": "isolate"},
    )
    assert found is None


# --- traits


@pytest.mark.parametrize(
    ("traits", "fields", "expected"),
    [
        ({"SSD"}, {"required": ["SSD"]}, None),
        (set(), {"required": ["SSD"]}, "has_traits"),
        ({"SSD"}, {"required": ["SSD", "AVX"]}, "has_traits"),
        (set(), {"forbidden": ["SSD"]}, None),
        ({"SSD"}, {"forbidden": ["SSD"]}, "has_no_forbidden_trait"),
        ({"SSD", "AVX"}, {"required": ["SSD"], "forbidden": ["OLD"]}, None),
    ],
)
def test_traits(
    traits: set[str], fields: dict[str, Any], expected: str | None
) -> None:
    rejection = fits(builders.host("b", traits=traits), **fields)
    assert rule(rejection) == expected
    if rejection is not None:
        assert rejection.requirement == "R159"


def test_what_a_target_lacks_is_named() -> None:
    rejection = fits(
        builders.host("b", traits=["C"]), required=["A", "B", "C"]
    )
    assert rejection is not None
    assert rejection.reason == "it lacks A, B"


def test_only_a_provider_that_serves_the_group_counts() -> None:
    """The trait is on a node that gives the request nothing::

    b (VCPU, MEMORY_MB, ...)
      +-- b_numa0 (CUSTOM_LLC 4, CUSTOM_NODE_0)
    """
    target = builders.host("b", children=numa(4))
    required = {"required": ["CUSTOM_NODE_0"]}
    assert rule(fits(target, **required)) == "fits"
    assert fits(target, more={"CUSTOM_LLC": 1}, **required) is None


def test_a_forbidden_trait_of_a_provider_that_does_not_serve() -> None:
    target = builders.host("b", children=numa(4, 4))
    forbidden = {"forbidden": ["CUSTOM_NODE_0"]}
    assert fits(target, **forbidden) is None
    # The other node can serve it.
    assert fits(target, more={"CUSTOM_LLC": 4}, **forbidden) is None
    alone = builders.host("b", children=numa(4))
    assert (
        rule(fits(alone, more={"CUSTOM_LLC": 4}, **forbidden))
        == "has_no_forbidden_trait"
    )


def test_a_numbered_groups_trait_is_on_its_own_provider() -> None:
    groups = [numbered("1", llc=2, required=("CUSTOM_NODE_1",))]
    both = builders.host("b", children=numa(4, 4))
    wrong = builders.host("b", children=numa(4), traits=["CUSTOM_NODE_1"])
    assert fits(both, groups=groups) is None
    assert rule(fits(both, groups=groups)) is None
    assert rule(fits(wrong, groups=groups)) == "fits"


def test_a_group_of_traits_alone_asks_the_root() -> None:
    groups = [builders.group(suffix="1", required=["SSD"])]
    assert fits(builders.host("b", traits=["SSD"]), groups=groups) is None
    assert rule(fits(builders.host("b"), groups=groups)) == "has_traits"


# --- charges


def test_a_charge_names_the_providers() -> None:
    cloud = builders.cluster([builders.host("b", children=numa(1, 4))])
    asked = builders.flavor(2, more={"CUSTOM_LLC": 3})
    found = capacity.charge(planner.Books(cloud), asked, cloud.hosts[0])
    assert found == {
        ("b", "VCPU"): 2,
        ("b", "MEMORY_MB"): 1024,
        ("b", "DISK_GB"): 10,
        ("b", "CUSTOM_VCPU_GOLD"): 2,
        ("b_numa1", "CUSTOM_LLC"): 3,
    }


def test_arrivals_are_booked_where_they_were_charged() -> None:
    """The second arrival of 3 units finds the node of 4 taken."""
    cloud = builders.cluster(
        [
            builders.host("a", more={"CUSTOM_LLC": 9}),
            builders.host("b", children=numa(4, 3)),
        ],
        [
            builders.instance(f"i{n}", "a", 1, more={"CUSTOM_LLC": 3})
            for n in range(3)
        ],
    )
    books = planner.Books(cloud)
    target = cloud.hosts[1]
    room = []
    for one in cloud.instances:
        room.append(capacity.charge(books, one.flavor, target) is not None)
        if room[-1]:
            books.move(one, target)
    assert room == [True, True, False]
    assert books.used("b_numa0", "CUSTOM_LLC") == 3
    assert books.used("b_numa1", "CUSTOM_LLC") == 3


@pytest.mark.parametrize(
    ("tier", "units", "asked", "expected"),
    [
        ("gold", 2, builders.flavor(2, "gold"), {"gold": 2}),
        ("gold", 2, builders.flavor(4, "gold"), {"gold": 4}),
        ("gold", 2, builders.flavor(4, "silver"), {"silver": 4}),
        ("gold", 2, builders.flavor(4, None), {"gold": 2}),
        (None, 0, builders.flavor(4, None), {}),
    ],
)
def test_a_migration_claims_what_the_flavor_asks_for(
    tier: str | None,
    units: int,
    asked: model.Flavor,
    expected: dict[str, int],
) -> None:
    """What it holds counts where the flavor asks for no class at all."""
    cloud = builders.cluster([builders.host("a")])
    one = model.Instance(
        uuid="i", name="i", host="a", flavor=asked, tier=tier, units=units
    )
    assert capacity.claims(cloud, one) == expected


# --- what Placement itself says


@pytest.mark.parametrize(
    ("admission", "expected"),
    [
        (None, None),
        (model.Admission(hosts=frozenset({"b"})), None),
        (
            model.Admission(hosts=frozenset({"c"}), complete=True),
            "offered",
        ),
        (model.Admission(complete=False), None),
        (
            model.Admission(refused=frozenset({"b"}), complete=False),
            "offered",
        ),
    ],
)
def test_a_host_that_placement_does_not_offer_is_refused(
    admission: model.Admission | None, expected: str | None
) -> None:
    """Where it was not asked, or its answer was cut off, nothing is said."""
    one = builders.instance("i", "a", 2)
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b")],
        [one],
        admissions={one.flavor.request: admission} if admission else {},
    )
    rejection = constraints.reject_target(builders.proposal(cloud, "i", "b"))
    assert rule(rejection) == expected


def test_a_request_is_worded_as_placement_wants_it() -> None:
    asked = builders.flavor(
        2,
        required=["SSD"],
        forbidden=["OLD"],
        groups=[
            builders.group(
                {"CUSTOM_B": 1, "CUSTOM_A": 2}, suffix="_net", required=["X"]
            )
        ],
        extra_specs={"group_policy": "isolate"},
    )
    assert asked.request == (
        ("group_policy", "isolate"),
        ("required", "SSD,!OLD"),
        ("required_net", "X"),
        (
            "resources",
            "CUSTOM_VCPU_GOLD:2,DISK_GB:10,MEMORY_MB:1024,VCPU:2",
        ),
        ("resources_net", "CUSTOM_A:2,CUSTOM_B:1"),
    )
