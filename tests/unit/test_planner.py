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

"""The planner: who moves where, what stays, and what the plan says of it."""

from typing import Any

import pytest

from tests import builders
from tests import checker
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier.planner import certificate


def names(plan: planner.Plan) -> list[str]:
    return [m.instance.name for m in plan.migrations]


def targets(plan: planner.Plan) -> dict[str, str]:
    return {m.instance.name: m.target for m in plan.migrations}


def refusals(plan: planner.Plan) -> dict[str, str]:
    """{instance: the rule that keeps it, or {host: rule}}"""
    return {
        one.instance.name: one.rejection.rule
        if one.rejection
        else {h: r.rule for h, r in one.targets.items() if h != item.host}
        for item in plan.unresolved
        for one in item.refusals
    }


# --- who moves

# sizes on a host with quota 8, sizes of those that move (in that order)
COVERS: list[tuple[list[int], list[int]]] = [
    ([8], []),
    ([9], [9]),
    ([4, 4, 1], [1]),
    ([4, 4, 2], [2]),
    ([1] * 10, [1, 1]),
    ([8, 8], [8]),
    ([8, 4, 2, 1], [8]),
    ([8, 4, 2, 1, 1], [8]),
    ([6, 6, 3, 2], [6, 3]),
    ([4, 4, 4, 4], [4, 4]),
    ([2, 3, 5, 7, 1], [7, 3]),
]


@pytest.mark.parametrize(("sizes", "leaving"), COVERS, ids=str)
def test_the_fewest_instances_leave(
    sizes: list[int], leaving: list[int]
) -> None:
    """Equal memory: the last one is the smallest that covers the rest."""
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b", gold=64)],
        builders.instances("i", "a", sizes),
    )
    plan = builders.planned(cloud)
    assert [m.units for m in plan.migrations] == leaving
    assert plan.lower_bound == len(leaving)
    assert plan.optimal
    assert plan.unresolved == ()
    assert sum(plan.excess_after.values()) == 0


LAST: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "the least memory": (
        {"x": {"memory_mb": 4096}, "y": {"memory_mb": 2048}},
        "y",
    ),
    "memory before units": (
        {"x": {"units": 2}, "y": {"units": 4, "memory_mb": 512}},
        "y",
    ),
    "then the lower priority": ({"x": {"priority": 1}, "y": {}}, "y"),
    "a negative priority is lower": (
        {"x": {}, "y": {"priority": -1, "units": 4}},
        "y",
    ),
    "priority before units": (
        {"x": {"units": 2, "priority": 1}, "y": {"units": 4}},
        "y",
    ),
    "then the fewest units": ({"x": {"units": 4}, "y": {"units": 2}}, "y"),
    "then the name": ({"y": {}, "x": {}}, "x"),
    "never one that does not cover": (
        {"x": {"units": 1, "memory_mb": 1}, "y": {"units": 3}},
        "y",
    ),
}


@pytest.mark.parametrize("case", LAST)
def test_the_last_to_leave_is_the_cheapest_that_covers(case: str) -> None:
    """Two units are over; either of x and y is to go."""
    candidates, leaving = LAST[case]
    found = []
    for name, fields in candidates.items():
        given = {"units": 2, **fields}
        found.append(builders.instance(name, "a", given.pop("units"), **given))
    held = sum(one.units for one in found)
    cloud = builders.cluster(
        [builders.host("a", gold=held - 2), builders.host("b")], found
    )
    assert names(builders.planned(cloud)) == [leaving]


def test_an_instance_without_a_target_is_passed_over() -> None:
    """Four are over: the 4 fits nowhere, the 2s do."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=4),
            builders.host("b", gold=model.Inventory(total=16, max_unit=2)),
        ],
        builders.instances("i", "a", [4, 2, 2]),
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["i2", "i3"]
    assert plan.lower_bound == 2
    assert plan.optimal
    assert plan.unresolved == ()


def test_an_unmovable_instance_is_passed_over() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b")],
        [
            *builders.instances("l", "a", [4], locked=True),
            *builders.instances("i", "a", [2, 2]),
        ],
    )
    assert names(builders.planned(cloud)) == ["i1", "i2"]


def test_other_tiers_do_not_leave() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=2), builders.host("b")],
        [
            *builders.instances("g", "a", [2, 1]),
            *builders.instances("s", "a", [1, 16], "silver"),
            builders.instance("u", "a", 1, None),
        ],
    )
    plan = builders.planned(cloud, quotas={"silver": 17})
    assert names(plan) == ["g2", "s1"]


def test_every_instance_leaves_a_drained_host() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b"), builders.host("c")],
        [
            *builders.instances("g", "a", [4, 2]),
            *builders.instances("s", "a", [8], "silver"),
            builders.instance("u", "a", 2, None),
        ],
    )
    plan = builders.planned(cloud, drain_hosts=["a"])
    assert sorted(names(plan)) == ["g1", "g2", "s1"]
    assert plan.optimal


def test_an_orphans_units_are_made_room_for() -> None:
    """Units that no instance holds count; what can move does."""
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b")],
        builders.instances("i", "a", [2, 2]),
        held={("a", "gold"): 7},
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["i1", "i2"]
    assert plan.excess_before == {("a", "gold"): 3}
    assert plan.excess_after == {("a", "gold"): 0}


def test_an_orphans_excess_that_nothing_covers_is_unresolved() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b")],
        builders.instances("i", "a", [2]),
        held={("a", "gold"): 11},
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["i1"]
    (item,) = plan.unresolved
    assert (item.host, item.tier, item.units) == ("a", "gold", 3)
    assert item.instances == 0
    assert item.refusals == ()


def test_an_instance_that_holds_nothing_is_no_relief() -> None:
    """Its flavor asks for Gold, Placement has no allocation for it."""
    ghost = builders.instance("ghost", "a", 4, flavor=builders.flavor(4))
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b")],
        builders.instances("i", "a", [9]),
    )
    # Booked by hand: it holds no units at all.
    cloud = model.Cluster(
        **{
            **{f: getattr(cloud, f) for f in cloud.__dataclass_fields__},
            "instances": (
                *cloud.instances,
                model.Instance(
                    uuid="ghost",
                    name="ghost",
                    host="a",
                    tier="gold",
                    flavor=ghost.flavor,
                ),
            ),
        }
    )
    assert names(builders.planned(cloud)) == ["i1"]


# --- where to


def test_room_at_the_target_shrinks_with_every_arrival() -> None:
    """b has room for one of the two, c for the other."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=4),
            builders.host("b", gold=4),
            builders.host("c", gold=4),
        ],
        builders.instances("i", "a", [4, 4, 4]),
    )
    assert targets(builders.planned(cloud)) == {"i1": "b", "i2": "c"}


def test_memory_at_the_target_shrinks_with_every_arrival() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=1),
            builders.host("b", memory_mb=1500),
            builders.host("c", memory_mb=1500),
        ],
        builders.instances("i", "a", [1, 1, 1]),
    )
    assert sorted(targets(builders.planned(cloud)).values()) == ["b", "c"]


def test_a_source_is_not_credited_with_its_departures() -> None:
    """Swapping what is over is not possible: both sides are held."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=2, silver=4),
            builders.host("b", gold=4, silver=2),
        ],
        [
            builders.instance("g", "a", 4),
            builders.instance("s", "b", 4, "silver"),
        ],
    )
    assert sorted(targets(builders.planned(cloud)).items()) == [
        ("g", "b"),
        ("s", "a"),
    ]
    tight = builders.cluster(
        [
            builders.host("a", gold=2, vcpus=4),
            builders.host("b", silver=2, vcpus=4),
        ],
        cloud.instances,
    )
    assert names(builders.planned(tight)) == []


def test_several_hosts_share_the_room() -> None:
    """The largest victim has the fewest targets and chooses first."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=1),
            builders.host("b", gold=1),
            builders.host("c", gold=6),
            builders.host("d", gold=2),
        ],
        [
            builders.instance("small", "a", 2),
            builders.instance("large", "b", 6),
        ],
    )
    assert targets(builders.planned(cloud)) == {"large": "c", "small": "d"}


NO_TARGET: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "out of scope": ({"in_scope": False}, {}, "in_audit_scope"),
    "disabled": ({"enabled": False}, {}, "in_service"),
    "down": ({"up": False}, {}, "in_service"),
    "drained": ({}, {"drain_hosts": ["b"]}, "within_quota"),
    "reserved": (
        {
            tier: model.Inventory(total=16, reserved=16)
            for tier in builders.BUILT_IN
        },
        {},
        "within_quota",
    ),
    "no inventory": ({"gold": None}, {}, "within_quota"),
    "full in the tier": ({"gold": 3}, {}, "within_quota"),
    "full by policy": (
        {},
        {"quotas_by_host": {"b": {"gold": 3}}},
        "within_quota",
    ),
    "full in memory": ({"memory_mb": 1023}, {}, "fits"),
    "full in CPUs": ({"vcpus": 3}, {}, "fits"),
    "full in disk": ({"disk_gb": 5}, {}, "fits"),
    "no provider": ({"providers": ()}, {}, "within_quota"),
    "a forbidden trait": ({"traits": ["OLD"]}, {}, "has_no_forbidden_trait"),
    "another zone": ({"zone": "az2"}, {}, "in_zone"),
}


@pytest.mark.parametrize("case", NO_TARGET)
def test_a_host_that_may_not_take_it_is_not_chosen(case: str) -> None:
    """Host b would be the best target of all: it is empty, c is not."""
    fields, params, rule = NO_TARGET[case]
    moving = builders.instance(
        "i", "a", 4, forbidden=["OLD"], pinned_zone="nova"
    )
    there = builders.instances("x", "c", [10])
    source = builders.host("a", gold=2)
    target = builders.host("b", **fields)
    other = builders.host("c")
    hosts = [source, builders.host("b"), other]
    best = builders.cluster(hosts, [moving, *there])
    assert targets(builders.planned(best)) == {"i": "b"}
    cloud = builders.cluster([source, target, other], [moving, *there])
    assert targets(builders.planned(cloud, **params)) == {"i": "c"}
    alone = builders.cluster([source, target], [moving])
    plan = builders.planned(alone, **params)
    assert names(plan) == []
    assert refusals(plan) == {"i": {"b": rule}}


# --- which target is the best


def ranked(
    hosts: list[model.Host],
    extra: list[model.Instance] | None = None,
    fields: dict[str, Any] | None = None,
    **params: Any,
) -> str:
    """The target of an instance of 4 Gold units from host src."""
    cloud = builders.cluster(
        [builders.host("src", gold=2), *hosts],
        [builders.instance("i", "src", 4, **(fields or {})), *(extra or [])],
    )
    return targets(builders.planned(cloud, **params))["i"]


def test_the_host_with_the_most_free_units_wins() -> None:
    hosts = [builders.host("b", gold=8), builders.host("c", gold=12)]
    assert ranked(hosts) == "c"


def test_room_counts_less_than_traits_that_nobody_asked_for() -> None:
    """The boring host: the AVX host is left to those who need it."""
    hosts = [builders.host("b", traits=["AVX"]), builders.host("c", gold=15)]
    wants = {"required": ["AVX"]}
    both = [
        builders.host("b", traits=["AVX", "SSD"]),
        builders.host("c", traits=["AVX"], gold=15),
    ]
    assert ranked(hosts) == "b"
    assert ranked(both, fields=wants) == "c"


def test_unrequested_classes_count_only_if_asked_for() -> None:
    """A half-free VGPU attracts an instance that has no use for it."""
    hosts = [
        builders.host("b", more={"VGPU": 2}, gold=8),
        builders.host("c", gold=9),
    ]
    assert ranked(hosts) == "c"
    assert ranked(hosts, weigher_resource_classes="all") == "b"


def test_a_list_of_classes_counts_alone() -> None:
    hosts = [
        builders.host("b", gold=16, memory_mb=2048),
        builders.host("c", gold=8),
    ]
    gold = {"weigher_resource_classes": ["CUSTOM_VCPU_GOLD"]}
    memory = {"weigher_resource_classes": ["MEMORY_MB"]}
    assert ranked(hosts, **gold) == "b"
    assert ranked(hosts, **memory) == "c"


def test_traits_count_as_told() -> None:
    """b has two traits more than c; only AVX is asked for."""
    hosts = [
        builders.host("b", traits=["AVX", "SSD", "X"], gold=16),
        builders.host("c", traits=["AVX"], gold=15),
    ]
    wants = {"required": ["AVX"]}
    assert ranked(hosts, fields=wants) == "c"
    assert ranked(hosts, fields=wants, weigher_traits="requested") == "b"
    assert ranked(hosts, fields=wants, weigher_traits=["AVX"]) == "b"
    assert ranked(hosts, fields=wants, weigher_traits=["AVX", "X"]) == "c"
    assert ranked(hosts, fields=wants, weigher_traits=[]) == "b"


def test_a_multiplier_of_0_leaves_it_to_the_tie_breaks() -> None:
    """R67: b weighs more, but c's Gold is used less, and d's name is last."""
    hosts = [
        builders.host("b", gold=16),
        builders.host("d", gold=8),
        builders.host("c", gold=8),
    ]
    there = builders.instances("x", "b", [4])
    assert ranked(hosts, there, weigher_resource_classes=["VCPU"]) == "c"
    assert (
        ranked(hosts, there, weigher_resource_classes=["CUSTOM_VCPU_GOLD"])
        == "b"
    )
    assert (
        ranked(
            hosts,
            there,
            weigher_resource_classes=["CUSTOM_VCPU_GOLD"],
            weigher_multiplier=0,
        )
        == "c"
    )


def test_utilisation_is_of_the_quota() -> None:
    """Equal books, but policy makes b's Gold fuller than c's."""
    hosts = [builders.host("b"), builders.host("c")]
    there = [
        builders.instance("x", "b", 2),
        builders.instance("y", "c", 2),
    ]
    assert ranked(hosts, there) == "b"
    policy = {"quotas_by_host": {"b": {"gold": 8}}}
    assert ranked(hosts, there, **policy) == "c"


def test_equal_hosts_are_taken_by_name() -> None:
    hosts = [builders.host(name) for name in ("d", "b", "c")]
    assert ranked(hosts) == "b"


def test_arrivals_count_in_the_weight() -> None:
    """Two equal targets take one victim each."""
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b"), builders.host("c")],
        builders.instances("i", "a", [4, 4, 4]),
    )
    assert targets(builders.planned(cloud)) == {"i1": "b", "i2": "c"}


def test_nested_providers_are_weighed_with_their_host() -> None:
    """b's tree has 4 + 4 free units of the class, c's has 6."""

    def numa(host: str, *units: int) -> list[model.Provider]:
        return [
            builders.provider(f"{host}_n{n}", {"CUSTOM_LLC": u}, root=host)
            for n, u in enumerate(units)
        ]

    hosts = [
        builders.host("b", children=numa("b", 6)),
        builders.host("c", children=numa("c", 4, 4)),
    ]
    cloud = builders.cluster(
        [builders.host("src", gold=2, more={"CUSTOM_LLC": 4}), *hosts],
        [builders.instance("i", "src", 4, more={"CUSTOM_LLC": 3})],
    )
    assert targets(builders.planned(cloud)) == {"i": "c"}


# --- caps and order


THREE_TIERS = builders.cluster(
    [
        builders.host("a", gold=2, silver=2, bronze=2),
        builders.host("b", gold=2, silver=2, bronze=2),
        builders.host("c", gold=64, silver=64, bronze=64),
    ],
    [
        *builders.instances("ag", "a", [4]),
        *builders.instances("as", "a", [8], "silver"),
        *builders.instances("ab", "a", [9], "bronze"),
        *builders.instances("bg", "b", [6]),
        *builders.instances("bs", "b", [3], "silver"),
    ],
)


def test_the_most_valuable_come_first() -> None:
    """L6: higher tier first, then gain per migration."""
    plan = builders.planned(THREE_TIERS)
    assert names(plan) == ["bg1", "ag1", "as1", "bs1", "ab1"]
    assert [m.relief for m in plan.migrations] == [4, 2, 6, 1, 7]


def test_value_is_the_relief_and_not_the_size() -> None:
    """The 8 of host a relieves it of 2 units, the 7 of host b of 6."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=6),
            builders.host("b", gold=1),
            builders.host("c", gold=64),
        ],
        [
            builders.instance("large", "a", 8),
            builders.instance("useful", "b", 7),
        ],
    )
    assert names(builders.planned(cloud)) == ["useful", "large"]
    assert names(builders.planned(cloud, max_migrations=1)) == ["useful"]


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4, 5, 6])
def test_a_cap_cuts_the_least_valuable(limit: int) -> None:
    """0 is no limit; what is cut is listed and its excess stays."""
    whole = builders.planned(THREE_TIERS)
    plan = builders.planned(THREE_TIERS, max_migrations=limit)
    kept = limit or 5
    assert plan.migrations == whole.migrations[:kept]
    assert plan.deferred == whole.migrations[kept:]
    gone = sum(m.relief for m in plan.migrations)
    assert sum(plan.excess_after.values()) == 20 - gone
    assert plan.lower_bound == len(plan.migrations)
    assert plan.unresolved == ()


def test_the_default_cap_is_20() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b", gold=64)],
        builders.instances("i", "a", [1] * 26),
    )
    plan = builders.planned(cloud)
    assert len(plan.migrations) == 20
    assert len(plan.deferred) == 5


def test_capped_audits_converge() -> None:
    """Each audit takes its share until nothing is left; none moves twice."""
    cloud = THREE_TIERS
    moved: list[str] = []
    for _ in range(3):
        plan = builders.planned(cloud, max_migrations=2)
        assert plan.migrations
        moved += names(plan)
        cloud = builders.applied(cloud, plan.migrations)
    assert sorted(moved) == ["ab1", "ag1", "as1", "bg1", "bs1"]
    again = builders.planned(cloud, max_migrations=2)
    assert again == planner.Plan()


def test_platinum_goes_before_gold() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=1, more={"CUSTOM_VCPU_PLATINUM": 1}),
            builders.host("b", more={"CUSTOM_VCPU_PLATINUM": 16}),
        ],
        [
            builders.instance("g", "a", 8),
            builders.instance("p", "a", 2, "platinum"),
        ],
        tiers=builders.tiers("platinum", "gold", "silver", "bronze"),
    )
    assert names(builders.planned(cloud)) == ["p", "g"]


# --- what stays


def test_what_stays_is_listed_with_its_reasons() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=2),
            builders.host("b", gold=3),
            builders.host("c", enabled=False),
        ],
        [
            builders.instance("big", "a", 6),
            builders.instance("locked", "a", 2, locked=True),
            builders.instance("small", "a", 2),
            builders.instance("other", "a", 2, "silver"),
        ],
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["small"]
    (item,) = plan.unresolved
    assert (item.host, item.tier, item.units) == ("a", "gold", 6)
    assert item.instances == 1
    assert refusals(plan) == {
        "big": {"b": "within_quota", "c": "in_service"},
        "locked": "unlocked",
    }
    assert plan.excess_after == {("a", "gold"): 6}
    # Every host is accounted for, the source itself included.
    assert set(item.refusals[0].targets) == {"a", "b", "c"}


def test_an_excess_is_resolved_whatever_was_refused_on_the_way() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b")],
        [
            *builders.instances("l", "a", [4], locked=True),
            *builders.instances("i", "a", [4]),
        ],
    )
    assert builders.planned(cloud).unresolved == ()


def test_a_compliant_cloud_needs_nothing() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b")],
        builders.instances("i", "a", [8, 8]),
    )
    plan = builders.planned(cloud)
    assert plan == planner.Plan()
    assert plan.optimal


def test_a_migration_says_why() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b")],
        builders.instances("i", "a", [4, 2]),
    )
    (found,) = builders.planned(cloud).migrations
    assert found.reason == "a holds 6 gold units of at most 4"
    assert (found.units, found.relief, found.tier) == (2, 2, "gold")
    assert found.weight.value == pytest.approx(
        ((14 / 16) + (62 / 64) + (64512 / 65536) + (990 / 1000)) / 4 / 2
    )


# --- the bound


@pytest.mark.parametrize(
    ("sizes", "units", "count"),
    [
        ([], 0, 0),
        ([], 3, 0),
        ([4], 0, 0),
        ([4], -1, 0),
        ([4], 4, 1),
        ([4], 5, 1),
        ([1, 8, 2], 8, 1),
        ([1, 8, 2], 9, 2),
        ([1, 8, 2], 11, 3),
        ([1, 8, 2], 12, 3),
    ],
)
def test_cover_count(sizes: list[int], units: int, count: int) -> None:
    assert certificate.cover_count(sizes, units) == count


def test_the_bound_is_of_what_the_plan_removes() -> None:
    """Of 10 units over, 4 go; the one of 8 that would do stays."""
    cloud = builders.cluster(
        [builders.host("a", gold=2), builders.host("b", gold=4)],
        builders.instances("i", "a", [8, 2, 2]),
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["i2", "i3"]
    assert plan.lower_bound == 2
    assert plan.optimal
    assert plan.residual_bound == 6


def test_the_bound_is_the_sum_over_hosts_and_tiers() -> None:
    plan = builders.planned(THREE_TIERS)
    assert plan.lower_bound == 5


# --- determinism


def test_the_order_of_the_inputs_does_not_matter() -> None:
    whole = builders.planned(THREE_TIERS)
    turned = model.Cluster(
        tiers=THREE_TIERS.tiers,
        hosts=THREE_TIERS.hosts[::-1],
        instances=THREE_TIERS.instances[::-1],
        held=dict(reversed(THREE_TIERS.held.items())),
        tier_classes=THREE_TIERS.tier_classes,
    )
    assert builders.planned(turned) == whole


# --- the tiering plan's own tests


def ones(count: int, hosts: list[str]) -> list[model.Instance]:
    """So many Gold instances of one unit, dealt out evenly."""
    return [
        builders.instance(
            f"i{n:04}", hosts[n % len(hosts)], 1, memory_mb=64, disk_gb=1
        )
        for n in range(count)
    ]


def test_120_instances_leave_hosts_of_112() -> None:
    """R145: of 120 on one host of 112, exactly 8 leave."""
    cloud = builders.cluster(
        [builders.host(n, gold=112, vcpus=256) for n in "ab"],
        ones(120, ["a"]),
    )
    plan = builders.planned(cloud)
    assert len(plan.migrations) == 8
    assert {m.target for m in plan.migrations} == {"b"}


def test_full_hosts_have_no_targets() -> None:
    """R146: one over, all others at 112: nothing moves, all is named."""
    cloud = builders.cluster(
        [builders.host(n, gold=112, vcpus=256) for n in "ab"],
        [*ones(224, ["a", "b"]), builders.instance("extra", "a", 1)],
    )
    plan = builders.planned(cloud)
    assert plan.migrations == ()
    (item,) = plan.unresolved
    assert (item.units, item.instances) == (1, 1)
    assert len(item.refusals) == 113


# --- the cut


def chain() -> model.Cluster:
    """e2 makes room on t for v5, which makes room on o1 for v4."""
    return builders.cluster(
        [
            builders.host("o1", gold=4),
            builders.host("o2", gold=3),
            builders.host("t", gold=5),
            builders.host("s", gold=2),
        ],
        [
            builders.instance("v5", "o1", 5),
            builders.instance("v4", "o2", 4),
            builders.instance("e2", "t", 2),
        ],
    )


def test_a_chain_longer_than_the_cap_is_begun_from_its_beginning() -> None:
    """And gone on with by the next audits, until nothing is over."""
    cloud = chain()
    assert names(builders.planned(cloud)) == ["e2", "v5", "v4"]
    seen = []
    for _ in range(3):
        plan = builders.planned(cloud, max_migrations=1)
        (move,) = plan.migrations
        seen.append((move.instance.name, move.makes_room_for))
        cloud = builders.applied(cloud, plan.migrations)
    assert seen == [("e2", "v5"), ("v5", ""), ("v4", "")]
    assert builders.planned(cloud, max_migrations=1) == planner.Plan()


def test_fewer_units_of_all_tiers_are_not_ruled_out() -> None:
    """Gold comes first, although without it fewer units would stay."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=0, silver=0),
            builders.host("t", memory_mb=4096),
        ],
        [
            builders.instance("g", "a", 1, memory_mb=4096),
            builders.instance("s", "a", 4, "silver", memory_mb=4096),
        ],
    )
    plan = builders.planned(cloud)
    assert names(plan) == ["g"]
    assert sum(plan.excess_after.values()) == 4
    assert plan.residual_bound <= 1


def test_scattered_members_of_an_affinity_group_do_not_change_places():
    """Where the plan has put a member counts, not where it was read."""
    hosts = [
        builders.host("a", gold=1, silver=4, bronze=None),
        builders.host("b", gold=2, silver=0, bronze=None),
    ]
    guests = [
        builders.instance("x", "a", 2, "gold"),
        builders.instance("y", "b", 3, "silver"),
    ]
    cloud = builders.cluster(
        hosts,
        guests,
        tiers=builders.tiers("gold", "silver"),
        server_groups=(builders.server_group("affinity", ["x", "y"]),),
    )
    plan = builders.planned(cloud)
    assert builders.moves(plan) == [("x", "a", "b")]
    assert checker.judge(cloud, plan) == []
