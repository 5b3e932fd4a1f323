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

"""What would help, tried by changing the cloud and planning again."""

import dataclasses
import pathlib

import pytest

from tests import builders
from watcher_cputier import accounting
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import scenario

SCENARIOS = pathlib.Path(__file__).parents[1] / "scenarios"
STUCK = [
    "anti_affinity_leaves_no_target",
    "drain_with_an_immovable_instance",
    "exchange_that_no_order_reaches",
    "free_units_in_no_one_piece",
    "target_full_in_another_class",
    "tier_room_but_no_memory",
    "two_hosts_locked_by_memory",
    "two_hosts_one_slot",
]


def read(name: str) -> scenario.Scenario:
    return scenario.loads((SCENARIOS / f"{name}.yaml").read_text())


def left(cloud: model.Cluster, **given: object) -> int:
    return sum(i.units for i in builders.planned(cloud, **given).unresolved)


def kinds(plan: planner.Plan) -> list[str]:
    return [one.kind for one in plan.relaxations]


def of_kind(plan: planner.Plan, kind: str) -> planner.Relaxation:
    (found,) = (one for one in plan.relaxations if one.kind == kind)
    return found


def enlarged(
    cloud: model.Cluster, name: str, room: dict[str, int]
) -> model.Cluster:
    """The cloud whose host has so much more of classes and tiers."""
    classes = {tier.name: tier.resource_class for tier in cloud.tiers}
    more: dict[str, int] = {}
    for what, units in room.items():
        one = classes.get(what, what)
        more[one] = max(more.get(one, 0), units)

    def grown(host: model.Host) -> model.Host:
        root, *children = host.providers
        amounts = {
            key: dataclasses.replace(
                inventory, total=inventory.total + more.get(key, 0)
            )
            for key, inventory in root.inventories.items()
        }
        root = dataclasses.replace(root, inventories=model.frozen_map(amounts))
        return dataclasses.replace(host, providers=(root, *children))

    return dataclasses.replace(
        cloud,
        hosts=tuple(grown(h) if h.name == name else h for h in cloud.hosts),
    )


def relaxed(cloud: model.Cluster, one: planner.Relaxation) -> model.Cluster:
    if one.kind in {"quota", "room"}:
        return enlarged(cloud, one.target, dict(one.room))
    if one.kind == "hole":
        return dataclasses.replace(
            cloud,
            hosts=(
                *cloud.hosts,
                model.Host(
                    uuid="zz",
                    name="zz",
                    node_name="zz",
                    zone=one.zone,
                    providers=(
                        builders.provider("zz", one.room, traits=one.traits),
                    ),
                ),
            ),
        )
    assert one.kind == "instance"
    free = {i.uuid for i in one.instances}
    return dataclasses.replace(
        cloud,
        instances=tuple(
            dataclasses.replace(i, locked=i.locked and i.uuid not in free)
            for i in cloud.instances
        ),
    )


@pytest.mark.parametrize("name", STUCK)
def test_each_helps_by_as_much_as_it_says(name: str) -> None:
    found = read(name)
    plan = builders.planned(found.cluster, **found.parameters)
    before = left(found.cluster, **found.parameters)
    tried = [one for one in plan.relaxations if one.kind != "units"]
    assert tried
    for one in tried:
        assert one.proven
        after = left(relaxed(found.cluster, one), **found.parameters)
        assert after <= before - one.units, one


@pytest.mark.parametrize("name", STUCK)
def test_a_little_less_does_not_do(name: str) -> None:
    """Of what a host lacks, and of a quota, every unit is needed."""
    found = read(name)
    plan = builders.planned(found.cluster, **found.parameters)
    before = left(found.cluster, **found.parameters)
    for one in plan.relaxations:
        if one.kind not in {"quota", "room"}:
            continue
        classes = {t.name: t.resource_class for t in found.cluster.tiers}
        for what in one.room:
            # A tier and its class are one thing here.
            less = {
                name: units
                - (classes.get(name, name) == classes.get(what, what))
                for name, units in one.room.items()
            }
            cloud = enlarged(found.cluster, one.target, less)
            assert left(cloud, **found.parameters) > before - one.units


def test_missing_units_are_counted_in_the_whole_scope() -> None:
    """Hosts out of service or scope, or drained, have no room for any."""
    cloud = builders.cluster(
        [
            builders.host("a", gold=2),
            builders.host("b", gold=3),
            builders.host("c", enabled=False),
            builders.host("d", in_scope=False),
            builders.host("e", gold=None),
        ],
        builders.instances("i", "a", [4, 4]),
    )
    one = of_kind(builders.planned(cloud), "units")
    assert (one.host, one.tier, one.units, one.proven) == (
        "", "gold", 3, True,
    )  # fmt: skip
    assert one.text == (
        "3 gold units are missing in the whole scope: 6 are over quota, and "
        "hosts that may take some have room for 3"
    )


def test_units_that_a_move_sheds_are_no_proof() -> None:
    """Its flavor has changed: elsewhere it takes less than it holds."""
    shrunk = dataclasses.replace(builders.instance("i1", "a", 2), units=4)
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b", gold=1)], [shrunk]
    )
    one = of_kind(builders.planned(cloud), "units")
    assert not one.proven


def test_one_more_host_needs_the_traits_and_the_zone() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b")],
        [
            builders.instance("big", "a", 6),
            builders.instance(
                "odd", "a", 2, required=["HW_X"], pinned_zone="az7"
            ),
            builders.instance("locked", "a", 2, locked=True),
        ],
        server_groups=(
            builders.server_group("anti-affinity", ["big", "guard"]),
        ),
    )
    cloud = builders.moved_in(cloud, [builders.instance("guard", "b", 1)])
    plan = builders.planned(cloud)
    (item,) = plan.unresolved
    assert item.units == 6
    hole = of_kind(plan, "hole")
    assert [one.name for one in hole.instances] == ["big"]
    cloud = dataclasses.replace(
        cloud,
        instances=tuple(
            dataclasses.replace(i, locked=i.locked or i.name == "big")
            for i in cloud.instances
        ),
    )
    hole = of_kind(builders.planned(cloud), "hole")
    assert [one.name for one in hole.instances] == ["odd"]
    assert (hole.traits, hole.zone, hole.proven) == (("HW_X",), "az7", True)
    assert hole.units == 2
    assert "gold units, 10 DISK_GB, 1024 MEMORY_MB and 2 VCPU" in hole.text
    assert "trait HW_X, in zone az7 would take odd" in hole.text


def test_several_instances_that_one_host_would_take() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b", gold=0, silver=1)],
        builders.instances("i", "a", [3, 2, 2]),
    )
    hole = of_kind(builders.planned(cloud), "hole")
    assert sorted(one.units for one in hole.instances) == [2, 2, 3]
    assert (hole.room["CUSTOM_VCPU_GOLD"], hole.units) == (7, 6)


def test_members_kept_apart_need_no_host_for_both() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=0), builders.host("b", gold=1)],
        builders.instances("i", "a", [2, 2]),
        server_groups=(builders.server_group("anti-affinity", ["i1", "i2"]),),
    )
    hole = of_kind(builders.planned(cloud, drain_hosts=["b"]), "hole")
    assert len(hole.instances) == 1
    assert (hole.room["CUSTOM_VCPU_GOLD"], hole.proven) == (2, True)


def test_a_drained_host_is_given_no_quota() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", gold=1)],
        builders.instances("i", "a", [2]),
    )
    assert kinds(builders.planned(cloud, drain_hosts=["a"])) == [
        "units", "hole", "room",
    ]  # fmt: skip


def test_a_policy_quota_is_named() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", gold=1)],
        builders.instances("i", "a", [4]),
    )
    plan = builders.planned(cloud, quotas_by_host={"a": {"gold": 2}})
    assert of_kind(plan, "quota").text == (
        "a with a quota of 4 gold units instead of 2 (its policy quota) "
        "would keep what it has"
    )


def test_an_exchange_is_said() -> None:
    plan = builders.planned(read("exchange_that_no_order_reaches").cluster)
    hole = of_kind(plan, "hole")
    assert hole.exchange == ("shop", "blog")
    assert hole.room["CUSTOM_VCPU_GOLD"] == 2
    assert hole.target == "rack-2"


def test_nothing_is_advised_where_nothing_stays() -> None:
    plan = builders.planned(read("over_gold_quota").cluster)
    assert (plan.relaxations, plan.suggestions) == ((), ())


def test_the_order_of_hosts_and_instances_changes_nothing() -> None:
    """L4 "permuting hosts and instances never changes the plan." """
    cloud = read("tier_room_but_no_memory").cluster
    turned = dataclasses.replace(
        cloud, hosts=cloud.hosts[::-1], instances=cloud.instances[::-1]
    )
    one, other = builders.planned(cloud), builders.planned(turned)
    assert one.relaxations == other.relaxations
    assert one.suggestions == other.suggestions


def test_advice_is_given_for_some_hosts_only() -> None:
    """What stays on many hosts is looked into on the first twenty."""
    hosts = [builders.host(f"h{n:02}", gold=1) for n in range(30)]
    cloud = builders.cluster(
        hosts,
        [builders.instance(f"i{n:02}", f"h{n:02}", 2) for n in range(30)],
    )
    plan = builders.planned(cloud)
    assert len(plan.unresolved) == 30
    assert len({one.host for one in plan.relaxations if one.host}) == 20


# Suggestions


def full_of(*residents: model.Instance, memory: int = 4096) -> planner.Plan:
    cloud = builders.cluster(
        [
            builders.host("a", gold=1, silver=0, bronze=0, memory_mb=2048),
            builders.host("b", memory_mb=memory),
        ],
        [builders.instance("top", "a", 2, memory_mb=2048), *residents],
    )
    return builders.planned(cloud)


def test_the_fewest_lower_tier_instances_are_named() -> None:
    plan = full_of(
        builders.instance("silver", "b", 1, "silver", memory_mb=2048),
        builders.instance("bronze-1", "b", 1, "bronze", memory_mb=1024),
        builders.instance("bronze-2", "b", 1, "bronze", memory_mb=1024),
    )
    (one,) = plan.suggestions
    assert (one.instance.name, one.source, one.target) == ("top", "a", "b")
    assert dict(one.lacking) == {"MEMORY_MB": 2048}
    assert [each.instance.name for each in one.displaced] == ["silver"]
    assert one.displaced[0].target == ""
    assert one.fewest
    assert one.text == (
        "b has room for top in its tier, and lacks 2048 MEMORY_MB: it would "
        "take it with silver (silver) stopped"
    )
    assert not plan.migrations


def test_of_as_many_the_lowest_tier_is_named() -> None:
    plan = full_of(
        builders.instance("silver", "b", 1, "silver", memory_mb=2048),
        builders.instance("bronze", "b", 1, "bronze", memory_mb=2048),
    )
    assert plan.suggestions[0].displaced[0].instance.name == "bronze"


def test_several_have_to_go() -> None:
    plan = full_of(
        *(builders.instance(f"bronze-{n}", "b", 1, "bronze") for n in range(4))
    )
    assert len(plan.suggestions[0].displaced) == 2


def test_nobody_of_the_same_or_a_higher_tier_is_named() -> None:
    plan = full_of(
        *(
            builders.instance(f"gold-{n}", "b", 1, memory_mb=2048)
            for n in range(2)
        )
    )
    assert plan.unresolved
    assert not plan.suggestions


def test_nobody_is_named_where_the_tier_is_full() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=1), builders.host("b", gold=1)],
        [
            builders.instance("top", "a", 2),
            builders.instance("low", "b", 1, "bronze"),
        ],
    )
    assert not builders.planned(cloud).suggestions


def test_a_suggested_move_names_a_host_that_takes_it() -> None:
    plan = builders.planned(read("target_full_in_another_class").cluster)
    (one,) = plan.suggestions
    assert [(d.instance.name, d.target) for d in one.displaced] == [
        ("cache", "rack-1")
    ]


def test_following_a_suggestion_cures_the_excess() -> None:
    text = (SCENARIOS / "target_full_in_another_class.yaml").read_text()
    before, after = (f"name: cache, host: rack-{n}" for n in (2, 1))
    assert before in text
    moved = scenario.loads(text.replace(before, after)).cluster
    assert left(moved) == 0


def test_shares_of_all_tiers_bind() -> None:
    """Single-class mode: the pool is full, the tier has room."""
    shared = {"VCPU_SHARES": 400}

    def host(name: str) -> model.Host:
        return builders.host(
            name, gold=None, silver=None, bronze=None, more=shared
        )

    def guest(name: str, on: str, tier: str, units: int) -> model.Instance:
        return dataclasses.replace(
            builders.instance(name, on, 1, None, more={"VCPU_SHARES": units}),
            tier=tier,
            units=units,
        )

    cloud = builders.cluster(
        [host("a"), host("b")],
        [
            guest("top-1", "a", "gold", 300),
            guest("top-2", "a", "gold", 300),
            *(guest(f"low-{n}", "b", "bronze", 100) for n in range(4)),
        ],
        tiers=accounting.SingleClass(builders.tiers(), "VCPU_SHARES").tiers,
        shares_class="VCPU_SHARES",
    )
    pool = {("a", "VCPU_SHARES"): 600, ("b", "VCPU_SHARES"): 400}
    cloud = dataclasses.replace(
        cloud, held=model.frozen_map({**cloud.held, **pool})
    )
    plan = builders.planned(cloud)
    (one,) = plan.suggestions
    assert dict(one.lacking) == {"VCPU_SHARES": 300}
    assert len(one.displaced) == 3
    assert {each.instance.tier for each in one.displaced} == {"bronze"}


def test_a_plan_is_read_for_one_host() -> None:
    cloud = read("two_hosts_one_slot").cluster
    params = parameters.Parameters.of()
    verdict = diagnosing.diagnose(cloud, params)
    plan = planner.plan(cloud, verdict, params)
    assert len(plan.about("rack-3").relaxations) == 1
    assert len(plan.about("rack-2").relaxations) == 3
