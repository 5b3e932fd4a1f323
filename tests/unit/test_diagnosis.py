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

"""The diagnosis: quotas, drains, excess, and what cannot be judged."""

import dataclasses
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tests import builders
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters


def diagnose(cloud: model.Cluster, **params: Any) -> diagnosing.Diagnosis:
    return diagnosing.diagnose(cloud, parameters.Parameters.of(params))


def quotas(found: diagnosing.Diagnosis, tier: str) -> dict[str, int | None]:
    """Quota of each host in scope."""
    return {h: q.units for (h, t), q in found.quotas.items() if t == tier}


def excesses(found: diagnosing.Diagnosis) -> list[tuple[str, str, int]]:
    return [(e.host, e.tier, e.units) for e in found.excesses]


def kinds(found: diagnosing.Diagnosis) -> list[tuple[str, str]]:
    return [(f.kind, f.subject) for f in found.findings]


# --- quotas


QUOTAS: dict[str, tuple[Any, dict[str, Any], int | None]] = {
    "capacity alone": (16, {}, 16),
    "a lower policy": (16, {"quotas": {"gold": 8}}, 8),
    "a higher policy": (16, {"quotas": {"gold": 80}}, 16),
    "a policy of nothing": (16, {"quotas": {"gold": 0}}, 0),
    "another tier's policy": (16, {"quotas": {"silver": 8}}, 16),
    "percent of the capacity": (10, {"quotas": {"gold": "90%"}}, 9),
    "percent rounds down": (16, {"quotas": {"gold": "90%"}}, 14),
    "more than all of it": (16, {"quotas": {"gold": "150%"}}, 16),
    "reserved units are no capacity": (
        model.Inventory(total=16, reserved=4),
        {"quotas": {"gold": "50%"}},
        6,
    ),
    "the ratio makes capacity": (
        model.Inventory(total=16, allocation_ratio=2.5),
        {"quotas": {"gold": "50%"}},
        20,
    ),
    "Placement does not round": (
        model.Inventory(total=100, allocation_ratio=1.15),
        {},
        114,
    ),
    "one unit is one unit": (1, {}, 1),
    "all but one reserved": (model.Inventory(total=8, reserved=7), {}, 1),
    "more reserved than there is": (
        model.Inventory(total=8, reserved=9),
        {},
        0,
    ),
    "the host's own policy": (
        16,
        {"quotas": {"gold": 8}, "quotas_by_host": {"a": {"gold": 12}}},
        12,
    ),
    "the host's own percentage": (
        16,
        {"quotas": {"gold": 8}, "quotas_by_host": {"a": {"gold": "25%"}}},
        4,
    ),
    "another host's policy": (16, {"quotas_by_host": {"b": {"gold": 1}}}, 16),
    "neither inventory nor policy": (None, {}, None),
    "percent of no inventory": (None, {"quotas": {"gold": "90%"}}, None),
    "a policy without inventory": (None, {"quotas": {"gold": 8}}, 8),
}


@pytest.mark.parametrize("case", QUOTAS)
def test_a_quota_is_the_lower_of_capacity_and_policy(case: str) -> None:
    """Host b has Gold, so that Placement knows the class."""
    gold, params, expected = QUOTAS[case]
    cloud = builders.cluster(
        [builders.host("a", gold=gold), builders.host("b")]
    )
    assert diagnose(cloud, **params).quota("a", "gold") == expected


@given(
    st.integers(1, 300),
    st.integers(0, 300),
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_excess_is_what_is_held_beyond_the_quota(
    total: int, reserved: int, policy: int, held: int
) -> None:
    """Section 8: "units that instances hold there minus quota, where
    positive", "Quota = min(Placement capacity, policy quota)".
    """
    inventory = model.Inventory(total=total, reserved=reserved)
    cloud = builders.cluster(
        [builders.host("a", gold=inventory)], held={("a", "gold"): held}
    )
    found = diagnose(cloud, quotas={"gold": policy})
    over = held - min(max(0, total - reserved), policy)
    assert excesses(found) == ([("a", "gold", over)] if over > 0 else [])
    for excess in found.excesses:
        assert excess.held - excess.quota == excess.units


def test_a_quota_says_what_made_it() -> None:
    cloud = builders.cluster([builders.host("a", gold=16)])
    found = diagnose(cloud, quotas={"gold": "50%"})
    assert found.quotas["a", "gold"] == diagnosing.Quota(
        host="a", tier="gold", capacity=16, policy=8, units=8, drained=False
    )


def test_capacity_is_summed_over_the_tree() -> None:
    """Gold units on two NUMA nodes::

    a (no Gold)
      +-- a_numa0 (GOLD 4)
      +-- a_numa1 (GOLD 6)
    """
    gold = builders.class_of("gold")
    children = [
        builders.provider("a_numa0", {gold: 4}, root="a"),
        builders.provider("a_numa1", {gold: 6}, root="a"),
    ]
    cloud = builders.cluster(
        [builders.host("a", gold=None, children=children)]
    )
    assert diagnose(cloud).quota("a", "gold") == 10


# --- excess


@pytest.mark.parametrize(
    ("held", "over"), [(0, []), (15, []), (16, []), (17, [("a", "gold", 1)])]
)
def test_exactly_the_quota_is_no_excess(
    held: int, over: list[tuple[str, str, int]]
) -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=16)], held={("a", "gold"): held}
    )
    assert excesses(diagnose(cloud)) == over


def test_excesses_come_by_rank_then_size_then_name() -> None:
    cloud = builders.cluster(
        [builders.host(n, gold=1, silver=1, bronze=1) for n in "dcba"],
        held={
            ("a", "bronze"): 9,
            ("a", "gold"): 2,
            ("b", "silver"): 2,
            ("c", "gold"): 4,
            ("d", "gold"): 2,
        },
    )
    assert excesses(diagnose(cloud)) == [
        ("c", "gold", 3),
        ("a", "gold", 1),
        ("d", "gold", 1),
        ("b", "silver", 1),
        ("a", "bronze", 8),
    ]


def test_a_fourth_tier_is_judged_like_any_other() -> None:
    """R8: Platinum is configuration, with a rank above Gold."""
    cloud = builders.cluster(
        [builders.host("a", gold=1, more={"CUSTOM_VCPU_PLATINUM": 2})],
        [
            builders.instance("p", "a", 3, "platinum"),
            builders.instance("g", "a", 3, "gold"),
        ],
        tiers=builders.tiers("platinum", "gold", "silver", "bronze"),
    )
    found = diagnose(cloud)
    assert excesses(found) == [("a", "platinum", 1), ("a", "gold", 2)]
    assert quotas(found, "platinum") == {"a": 2}


def test_hosts_out_of_scope_are_not_judged() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", gold=1, in_scope=False)],
        builders.instances("i", "b", [4]),
    )
    found = diagnose(cloud)
    assert excesses(found) == []
    assert quotas(found, "gold") == {"a": 16}
    assert found.quota("b", "gold") is None


def test_a_host_out_of_scope_that_is_named_is_reported() -> None:
    cloud = builders.cluster(
        [
            builders.host("a"),
            builders.host("b", in_scope=False),
            builders.host("c", in_scope=False),
        ],
        builders.instances("i", "b", [4]),
    )
    found = diagnose(
        cloud, drain_hosts=["b"], quotas_by_host={"c": {"gold": 1}, "a": {}}
    )
    assert kinds(found) == [
        ("host_out_of_scope", "b"),
        ("host_out_of_scope", "c"),
    ]
    assert dict(found.drained) == {}


# --- drains


ALL_RESERVED = model.Inventory(total=16, reserved=16)


def test_inventories_wholly_reserved_drain_a_host() -> None:
    cloud = builders.cluster(
        [
            builders.host(
                "a",
                gold=ALL_RESERVED,
                silver=ALL_RESERVED,
                bronze=ALL_RESERVED,
            ),
            builders.host("b"),
        ],
        builders.instances("i", "a", [4]),
    )
    found = diagnose(cloud)
    assert found.drained == {"a": "its tier inventories are wholly reserved"}
    assert excesses(found) == [("a", "gold", 4)]


def test_one_reserved_tier_is_no_drain() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=ALL_RESERVED), builders.host("b")],
        [
            builders.instance("g", "a", 4),
            builders.instance("s", "a", 4, "silver"),
        ],
    )
    found = diagnose(cloud)
    assert dict(found.drained) == {}
    assert excesses(found) == [("a", "gold", 4)]


def test_reserved_tiers_drain_a_host_that_lacks_another() -> None:
    cloud = builders.cluster(
        [
            builders.host(
                "a", gold=ALL_RESERVED, silver=ALL_RESERVED, bronze=None
            ),
            builders.host("b"),
        ],
    )
    found = diagnose(cloud)
    assert list(found.drained) == ["a"]
    assert found.quota("a", "bronze") == 0


def test_a_host_without_any_tier_is_not_drained() -> None:
    cloud = builders.cluster(
        [
            builders.host("a", gold=None, silver=None, bronze=None),
            builders.host("b"),
        ]
    )
    found = diagnose(cloud)
    assert dict(found.drained) == {}
    assert found.quota("a", "gold") is None


def test_a_total_of_one_is_a_quota_of_one() -> None:
    """Placement refuses a total of 0; 1 is not a drain all the same."""
    cloud = builders.cluster(
        [builders.host("a", gold=1, silver=1, bronze=1)],
        builders.instances("i", "a", [1, 1]),
    )
    found = diagnose(cloud)
    assert dict(found.drained) == {}
    assert excesses(found) == [("a", "gold", 1)]


def test_a_named_host_is_drained_of_all_tiers() -> None:
    """Also of a tier whose quota would be unknown there."""
    cloud = builders.cluster(
        [builders.host("a", bronze=None), builders.host("b")],
        [
            builders.instance("g", "a", 4),
            builders.instance("b", "a", 2, "bronze"),
        ],
    )
    found = diagnose(cloud, drain_hosts=["a"])
    assert found.drained == {"a": "named in drain_hosts"}
    assert excesses(found) == [("a", "gold", 4), ("a", "bronze", 2)]
    assert found.quotas["a", "silver"].drained
    assert not found.quotas["b", "silver"].drained


def test_a_drain_beats_a_policy() -> None:
    cloud = builders.cluster([builders.host("a"), builders.host("b")])
    found = diagnose(
        cloud, drain_hosts=["a"], quotas_by_host={"a": {"gold": 8}}
    )
    assert found.quota("a", "gold") == 0


@pytest.mark.parametrize(
    ("reason", "told"),
    [("disk", "disk"), ("", "no reason given")],
)
def test_disabled_hosts_are_drained_if_asked_for(
    reason: str, told: str
) -> None:
    cloud = builders.cluster(
        [
            builders.host("a", enabled=False, disabled_reason=reason),
            builders.host("b", up=False),
        ],
        builders.instances("i", "a", [4]),
    )
    assert excesses(diagnose(cloud)) == []
    found = diagnose(cloud, drain_disabled=True)
    assert found.drained == {"a": f"its compute service is disabled ({told})"}
    assert excesses(found) == [("a", "gold", 4)]


def test_untiered_instances_on_a_drained_host_are_reported() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b")],
        [
            builders.instance("plain-a", "a", tier=None),
            builders.instance("plain-b", "b", tier=None),
        ],
    )
    found = diagnose(cloud, drain_hosts=["a"])
    assert kinds(found) == [("untiered_on_drained_host", "a")]
    assert "plain-a" in found.findings[0].text
    assert "plain-b" not in found.findings[0].text
    assert diagnose(cloud).findings == ()


# --- what cannot be judged


def test_an_unknown_quota_is_no_excess_and_is_reported() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=None), builders.host("b")],
        [
            builders.instance("g1", "a", 4),
            builders.instance("s1", "a", 4, "silver"),
        ],
    )
    found = diagnose(cloud)
    assert excesses(found) == []
    assert kinds(found) == [("unknown_quota", "a")]
    assert "(g1)" in found.findings[0].text
    assert "CUSTOM_VCPU_GOLD" in found.findings[0].text


def test_an_unknown_quota_of_nobody_is_not_worth_a_word() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=None), builders.host("b")]
    )
    assert diagnose(cloud).findings == ()


def test_a_class_missing_everywhere_fails_the_audit() -> None:
    """Two of three tiers have no inventory on any host: both are named."""
    cloud = builders.cluster([builders.host("a", gold=None, bronze=None)])
    with pytest.raises(errors.SnapshotError) as caught:
        diagnose(cloud)
    text = str(caught.value)
    assert "gold (CUSTOM_VCPU_GOLD), bronze (CUSTOM_VCPU_BRONZE)" in text
    assert "silver" not in text
    assert "provider.yaml" in caught.value.cure
    assert "quotas" in caught.value.cure


def test_a_class_missing_everywhere_may_have_a_policy() -> None:
    """Gold's percentages are of N, the others' of their capacities."""
    cloud = builders.cluster(
        [builders.host("a", gold=None, silver=10, vcpus=40)]
    )
    found = diagnose(cloud, quotas={"gold": "50%", "silver": "50%"})
    assert found.quota("a", "gold") == 20
    assert found.quota("a", "silver") == 5
    assert not found.without_placement


def test_without_any_class_policies_alone_hold() -> None:
    """R72, R140: percentages are of N, the root's total of VCPU."""
    bare = {"gold": None, "silver": None, "bronze": None}
    cloud = builders.cluster(
        [
            builders.host("a", vcpus=41, **bare),
            builders.host("b", vcpus=8, **bare),
        ],
        held={},
        tiers=builders.tiers("gold", "silver"),
    )
    found = diagnose(
        cloud,
        quotas={"gold": "50%", "silver": 30},
        quotas_by_host={"b": {"silver": "100%"}},
    )
    assert quotas(found, "gold") == {"a": 20, "b": 4}
    assert quotas(found, "silver") == {"a": 30, "b": 8}
    assert found.without_placement
    assert kinds(found) == [("without_placement", "cloud")]


def test_without_any_class_a_tier_without_policy_fails_the_audit() -> None:
    bare = {"gold": None, "silver": None, "bronze": None}
    cloud = builders.cluster(
        [builders.host("a", **bare)], tiers=builders.tiers("gold", "silver")
    )
    with pytest.raises(errors.SnapshotError, match="tiers: silver "):
        diagnose(cloud, quotas={"gold": 8})


def test_percent_of_unknown_cpus_is_unknown() -> None:
    bare = builders.provider("a", {"MEMORY_MB": 1024})
    cloud = builders.cluster(
        [
            builders.host("a", providers=(bare,)),
            builders.host("b", gold=None, silver=None, bronze=None),
        ],
        tiers=builders.tiers("gold"),
    )
    found = diagnose(cloud, quotas={"gold": "50%"})
    assert found.quota("a", "gold") is None
    assert found.quota("b", "gold") == 32


@pytest.mark.parametrize(
    ("hosts", "says"),
    [
        (
            [builders.host("a", gold=None), builders.host("b", gold=None)],
            "none of the 2 hosts in scope can be judged, none has an inv",
        ),
        (
            [builders.host("a", providers=())],
            (
                "none of the 1 hosts in scope can be judged, these have no "
                "resource provider in Placement: a"
            ),
        ),
    ],
    ids=["no-class", "no-provider"],
)
def test_a_cloud_of_which_nothing_is_known_fails_the_audit(
    hosts: list[model.Host], says: str
) -> None:
    """The class is somewhere, but on no host of the audit's scope."""
    sold = builders.host("z", in_scope=False)
    cloud = builders.cluster([*hosts, sold], tiers=builders.tiers("gold"))
    with pytest.raises(errors.SnapshotError) as caught:
        diagnose(cloud)
    assert str(caught.value).startswith(f"Placement: {says}")
    assert "provider.yaml" in caught.value.cure


def test_one_host_that_is_judged_is_enough() -> None:
    hosts = [builders.host("a", gold=None), builders.host("b", gold=0)]
    cloud = builders.cluster(hosts, tiers=builders.tiers("gold"))
    assert diagnose(cloud).quota("b", "gold") == 0


def test_cells_that_are_down_are_named_where_no_host_is_left() -> None:
    cloud = dataclasses.replace(
        builders.cluster([builders.host("a", in_scope=False)]),
        findings=(
            model.Finding(kind="cell_unreachable", subject="a", text="down"),
        ),
    )
    with pytest.raises(errors.SnapshotError, match="cells do not answer: a"):
        diagnose(cloud)


@pytest.mark.parametrize(
    "hosts", [[], [builders.host("a", in_scope=False)]], ids=["none", "out"]
)
def test_an_empty_scope_fails_the_audit(hosts: list[model.Host]) -> None:
    with pytest.raises(errors.SnapshotError, match="no compute host is in"):
        diagnose(builders.cluster(hosts))


@pytest.mark.parametrize(
    "params",
    [
        {"quotas": {"gld": 1}},
        {"drain_hosts": ["x"]},
        {"quotas_by_host": {"x": {}}},
    ],
    ids=str,
)
def test_unknown_names_fail_the_audit(params: dict[str, Any]) -> None:
    with pytest.raises(errors.ParameterError, match="unknown"):
        diagnose(builders.cluster([builders.host("a")]), **params)
