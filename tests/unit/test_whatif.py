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


"""Edits: how they are told, what they change, and what they leave alone."""

import dataclasses
import json

import pytest

from tests import builders as b
from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier import scenario
from watcher_cputier import suppositions
from watcher_cputier import whatif
from watcher_cputier.cli import main


def supposed(cloud, *told, given=None, flavors=()):
    return whatif.apply(
        cloud, given or {}, whatif.parse(told), flavors=flavors
    )


def verdict_of(found):
    return diagnosis.diagnose(
        found.cluster, parameters.Parameters.of(found.parameters)
    )


def moves_of(found):
    return b.moves(b.planned(found.cluster, **found.parameters))


def two_hosts(**fields):
    return b.cluster(
        [b.host("a", **fields), b.host("b")],
        [
            b.instance("x", "a", 8),
            b.instance("y", "a", 4, "silver"),
            b.instance("z", "b", 2),
        ],
    )


# How they are told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("burn=a", "there is no edit 'burn'. The edits are drain=HOST, quo"),
        ("drain", "drain has no value. Say drain=HOST"),
        ("drain=", "drain has no value. Say drain=HOST"),
        ("drain=a,like=b", "drain has no option 'like'. Say drain=HOST"),
        ("quota=a,tier=gold", "units is missing. Say quota=HOST,tier=TIER,un"),
        ("quota=a", "tier and units is missing"),
        ("quota=a,tier=gold,units=", "units has no value"),
        ("quota=a,tier=gold,tier=gold,units=1", "tier is told twice"),
        ("", "there is no edit ''"),
    ],
)
def test_what_is_no_edit_says_how_one_is_told(text, told):
    with pytest.raises(errors.ParameterError) as caught:
        whatif.parse([text])
    assert str(caught.value).startswith(f"--what-if {text}: {told}")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("drain=c", "there is no host 'c'. There are a, b"),
        ("quota=a,tier=tin,units=1", "there is no tier 'tin'. There are gold"),
        ("quota=a,tier=gold,units=-1", "'-1' is no whole number from 0 to"),
        ("quota=a,tier=gold,units=1.5", "'1.5' is no whole number"),
        ("add-host=a,like=b", "there is a host 'a' already"),
        ("add-host=c d,like=b", "'c d' is no name of a host"),
        ("add-host=c,like=d", "there is no host 'd'"),
        ("remove-host=c", "there is no host 'c'"),
        ("add-instances=0,flavor=gold.2", "'0' is no whole number from 1"),
        ("add-instances=2,flavor=tin.2", "there is no flavor 'tin.2'. There"),
        ("add-instances=2,flavor=gold.2,host=c", "there is no host 'c'"),
    ],
)
def test_what_is_not_there_is_one_clear_error(text, told):
    with pytest.raises(errors.ParameterError) as caught:
        supposed(two_hosts(), text)
    assert str(caught.value).startswith(f"--what-if {text}: {told}")


def test_the_last_host_cannot_be_removed():
    cloud = b.cluster([b.host("a"), b.host("far", in_scope=False)])
    with pytest.raises(errors.ParameterError, match="no other host"):
        supposed(cloud, "remove-host=a")


def test_names_may_have_commas():
    (edit,) = whatif.parse(["add-instances=2,flavor=gold, large,host=a"])
    assert dict(edit.options) == {"flavor": "gold, large", "host": "a"}


# What they change


def test_no_edit_changes_nothing():
    cloud = two_hosts()
    found = supposed(cloud, given={"max_migrations": 3})
    assert found.cluster is cloud
    assert dict(found.parameters) == {"max_migrations": 3}
    assert (found.assumptions, found.outcomes) == ((), ())
    assert found.fits


def test_a_smaller_quota_is_that_of_a_smaller_inventory():
    found = supposed(two_hosts(), "quota=a,tier=gold,units=4")
    assert verdict_of(found).quota("a", "gold") == 4
    assert found.cluster == two_hosts(gold=4)
    assert moves_of(found) == [("x", "a", "b")]
    first, last = found.assumptions
    assert first == (
        "a may hold 4 gold units: total 4, nothing reserved and ratio 1 of "
        "CUSTOM_VCPU_GOLD on a, where 16 are now."
    )
    assert "Placement was not asked" in last


def test_a_quota_of_nothing_is_reserved_as_placement_wants_it():
    found = supposed(two_hosts(), "quota=a,tier=gold,units=0")
    inventory = found.cluster.host_by_name["a"].root.inventories[
        b.class_of("gold")
    ]
    assert (inventory.total, inventory.reserved) == (16, 16)
    assert verdict_of(found).quota("a", "gold") == 0
    # Its other tiers are as they were: it is not drained.
    assert verdict_of(found).drained == {}


@pytest.mark.parametrize(
    ("most", "then"), [(16, 20), (12, 12), (2147483647, 2147483647)]
)
def test_what_limits_an_instance_grows_with_a_total_that_it_was(most, then):
    gold = model.Inventory(total=16, max_unit=most)
    found = supposed(two_hosts(gold=gold), "quota=a,tier=gold,units=20")
    inventory = found.cluster.host_by_name["a"].root.inventories[
        b.class_of("gold")
    ]
    assert (inventory.capacity, inventory.max_unit) == (20, then)


def test_a_host_that_lacks_a_class_gets_it():
    found = supposed(two_hosts(bronze=None), "quota=a,tier=bronze,units=6")
    assert verdict_of(found).quota("a", "bronze") == 6


def test_a_policy_quota_gives_way():
    """Both are raised: the quota is the smaller of the two."""
    found = supposed(
        two_hosts(),
        "quota=a,tier=gold,units=20",
        given={"quotas": {"gold": "50%"}},
    )
    verdict = verdict_of(found)
    assert verdict.quota("a", "gold") == 20
    assert verdict.quota("b", "gold") == 8


def test_other_policy_quotas_of_the_host_stay():
    found = supposed(
        two_hosts(),
        "quota=a,tier=gold,units=3",
        given={"quotas_by_host": {"a": {"gold": 5, "silver": "25%"}}},
    )
    verdict = verdict_of(found)
    assert verdict.quota("a", "gold") == 3
    assert verdict.quota("a", "silver") == 4


def test_without_placement_a_quota_is_one_of_policy():
    cloud = b.cluster(
        [b.host(n, gold=None, silver=None, bronze=None) for n in "ab"],
        [b.instance("x", "a", 4)],
    )
    given = {"quotas": {"gold": 8, "silver": 8, "bronze": 8}}
    found = supposed(cloud, "quota=a,tier=gold,units=2", given=given)
    assert verdict_of(found).quota("a", "gold") == 2
    assert not found.cluster.tier_classes
    assert "quotas_by_host" in found.assumptions[0]


def test_which_of_several_providers_changes_must_be_told():
    gold = b.class_of("gold")
    numa = [b.provider(f"a_{n}", {gold: 8}, root="a") for n in range(2)]
    cloud = b.cluster([b.host("a", gold=None, children=numa), b.host("b")])
    with pytest.raises(errors.ParameterError, match="2 providers of a"):
        supposed(cloud, "quota=a,tier=gold,units=4")


def test_an_added_host_is_empty_and_like_the_other():
    cloud = two_hosts(
        gold=4,
        traits=["FAST"],
        children=[b.provider("a_numa", {"CUSTOM_LLC": 4}, root="a")],
        enabled=False,
    )
    cloud = dataclasses.replace(
        cloud, aggregates=(b.aggregate("fast", ["a"]),)
    )
    found = supposed(
        cloud,
        "add-host=c,like=a",
        given={"quotas_by_host": {"a": {"gold": 3}}},
    )
    added = found.cluster.host_by_name["c"]
    assert [h.name for h in found.cluster.hosts] == ["a", "b", "c"]
    assert added.enabled
    assert added.traits == {"FAST"}
    assert [p.name for p in added.providers] == ["c", "c_numa"]
    root, child = added.providers
    assert (root.uuid, child.parent_uuid) == (added.uuid, added.uuid)
    assert {p.uuid for p in added.providers}.isdisjoint({"a", "a_numa"})
    assert not any(p.allocated for p in added.providers)
    assert found.cluster.aggregates[0].hosts == {"a", "c"}
    assert verdict_of(found).quota("c", "gold") == 3
    # What is over goes where the new room is, too.
    assert moves_of(found)


def test_placement_has_not_refused_a_host_that_is_not_there():
    cloud = two_hosts(gold=4)
    request = cloud.instances[0].flavor.request
    cloud = dataclasses.replace(
        cloud,
        admissions=model.frozen_map(
            {request: model.Admission(hosts=frozenset({"a"}), complete=True)}
        ),
    )
    assert b.moves(b.planned(cloud)) == []
    found = supposed(cloud, "add-host=c,like=b")
    assert moves_of(found) == [("x", "a", "c")]


# A host less: N+1


def test_a_removed_host_leaves_its_instances_elsewhere():
    found = supposed(two_hosts(), "remove-host=a")
    (outcome,) = found.outcomes
    assert found.fits
    assert [(p.instance.name, p.target) for p in outcome.placements] == [
        ("x", "b"),
        ("y", "b"),
    ]
    assert found.cluster == b.cluster(
        [b.host("b")],
        [
            b.instance("x", "b", 8),
            b.instance("y", "b", 4, "silver"),
            b.instance("z", "b", 2),
        ],
    )
    assert outcome.text == (
        "Without a, 2 of its 2 instances fit on other hosts"
    )


@pytest.mark.parametrize(
    "state",
    [
        {"locked": True},
        {"status": "SHUTOFF"},
        {"task_state": "resizing"},
        {"opted_out": True},
        {"excluded": True},
        {"known": False},
    ],
    ids=lambda state: next(iter(state)),
)
def test_whoever_may_not_move_today_goes_with_its_host(state):
    cloud = b.cluster(
        [b.host("a", up=False), b.host("b")],
        [b.instance("x", "a", 8, **state)],
    )
    found = supposed(cloud, "remove-host=a")
    (x,) = found.cluster.instances
    assert x.host == "b"
    # It is what it was, for the plan that follows.
    assert all(getattr(x, name) == value for name, value in state.items())


def test_what_its_own_host_thinks_of_its_size_is_no_matter():
    gold = model.Inventory(total=16, max_unit=4)
    found = supposed(two_hosts(gold=gold), "remove-host=a")
    assert found.fits


def test_who_finds_no_host_is_named_with_why():
    cloud = b.cluster(
        [b.host("a"), b.host("b", gold=9), b.host("c", gold=4, up=False)],
        [
            b.instance("x", "a", 8),
            b.instance("y", "a", 4),
            b.instance("plain", "a", 1, None),
            b.instance(
                "pinned", "a", 1, extra_specs={"hw:cpu_policy": "dedicated"}
            ),
        ],
    )
    found = supposed(cloud, "remove-host=a")
    (outcome,) = found.outcomes
    assert not found.fits
    placed = {p.instance.name for p in outcome.placements}
    refused = {r.instance.name: r for r in outcome.unplaced}
    # The one that relieves most has the place.
    assert placed == {"x", "plain"}
    assert set(refused) == {"y", "pinned"}
    assert refused["pinned"].rejection.rule == "portable"
    assert {h: r.rule for h, r in refused["y"].targets.items()} == {
        "b": "within_quota",
        "c": "in_service",
    }
    assert {i.name for i in found.cluster.instances} == placed
    lines = [line for _, lines in suppositions.titled(found) for line in lines]
    assert any(
        line.startswith("No host for y: has no target (1 host by in_service")
        for line in lines
    )


def test_the_planner_finds_places_that_the_first_fit_misses():
    """6 and 4 fill 10, and 5 and 3 fill 8; the largest first would not."""
    cloud = b.cluster(
        [b.host("a", gold=20), b.host("b", gold=10), b.host("c", gold=8)],
        b.instances("i", "a", [6, 5, 4, 3]),
    )
    assert supposed(cloud, "remove-host=a").fits


def test_nobody_makes_way_for_those_of_a_removed_host():
    cloud = b.cluster(
        [b.host("a"), b.host("b", gold=10), b.host("c", gold=6)],
        [b.instance("x", "a", 10), b.instance("y", "b", 4)],
    )
    found = supposed(cloud, "remove-host=a")
    assert not found.fits
    assert {i.name: i.host for i in found.cluster.instances} == {"y": "b"}


def test_parameters_forget_a_removed_host():
    found = supposed(
        two_hosts(),
        "drain=a",
        "remove-host=a",
        given={"quotas_by_host": {"a": {"gold": 3}}},
    )
    assert found.parameters["drain_hosts"] == []
    assert found.parameters["quotas_by_host"] == {}
    assert verdict_of(found).excesses == ()


def test_groups_are_kept_apart():
    cloud = b.cluster(
        [b.host(name) for name in "abc"],
        [b.instance("x", "a"), b.instance("y", "b")],
        server_groups=(b.server_group("anti-affinity", ["x", "y"]),),
    )
    (outcome,) = supposed(cloud, "remove-host=a").outcomes
    assert [p.target for p in outcome.placements] == ["c"]


# Instances more


def test_so_many_instances_fit_as_the_offer_says():
    cloud = b.cluster(
        [b.host("a"), b.host("b", gold=9), b.host("c", memory_mb=3072)],
        [b.instance("x", "a", 3)],
    )
    flavor = b.flavor(2)
    count = offer.fit(cloud, verdict_of(supposed(cloud)), flavor).count
    found = supposed(cloud, "add-instances=30,flavor=gold.2", flavors=[flavor])
    (outcome,) = found.outcomes
    assert len(outcome.placements) == count
    assert len(outcome.unplaced) == 30 - count
    assert set(outcome.unplaced[0].targets) == {"a", "b", "c"}
    assert len(found.cluster.instances) == 1 + count
    assert outcome.text == f"{count} of 30 instances of flavor gold.2 fit"


def test_new_instances_count_like_any_others():
    cloud = b.cluster([b.host("a"), b.host("b")])
    found = supposed(
        cloud, "add-instances=3,flavor=gold.2,host=a", flavors=[b.flavor(2)]
    )
    names = [f"new-gold.2-{n}" for n in (1, 2, 3)]
    assert found.cluster == b.cluster(
        [b.host("a"), b.host("b")],
        [b.instance(name, "a", 2) for name in names],
    )


def test_a_flavor_may_be_that_of_an_instance():
    found = supposed(two_hosts(), "add-instances=1,flavor=gold.8")
    assert found.fits
    assert len(found.cluster.instances) == 4


def test_two_flavors_of_one_name_are_told_apart_by_nobody():
    cloud = b.cluster(
        [b.host("a")],
        [b.instance("x", "a", 2), b.instance("y", "a", 2, memory_mb=2048)],
    )
    with pytest.raises(errors.ParameterError, match="2 different flavors"):
        supposed(cloud, "add-instances=1,flavor=gold.2")


# Together


def test_each_edit_sees_what_those_before_it_left():
    cloud = b.cluster(
        [b.host("a"), b.host("b", gold=4)], b.instances("i", "a", [4, 4, 4])
    )
    alone = supposed(cloud, "remove-host=a")
    together = supposed(cloud, "add-host=c,like=a", "remove-host=a")
    too_late = supposed(cloud, "remove-host=a", "add-host=c,like=b")
    assert not alone.fits
    assert together.fits
    assert not too_late.fits
    smaller = supposed(
        cloud,
        "add-host=c,like=a",
        "quota=c,tier=gold,units=4",
        "remove-host=a",
    )
    (outcome,) = smaller.outcomes
    assert len(outcome.unplaced) == 1


def test_new_instances_are_in_the_way_of_those_that_come_later():
    cloud = two_hosts()
    found = supposed(
        cloud,
        "add-instances=1,flavor=gold.8,host=b",
        "remove-host=a",
    )
    added, removed = found.outcomes
    assert not added.unplaced
    assert [r.instance.name for r in removed.unplaced] == ["x"]


# What is not known


def measured(cloud, *uuids):
    reading = model.Reading(usage_cpus=1.0, steal_cpus=0.5)
    return dataclasses.replace(
        cloud,
        telemetry=model.Telemetry(
            source="test",
            window_seconds=300,
            windows=(0, 300, 600),
            readings=model.frozen_map(dict.fromkeys(uuids, (reading,) * 3)),
        ),
    )


def test_what_was_measured_elsewhere_is_not_taken_along():
    cloud = measured(two_hosts(), "x", "y", "z")
    found = supposed(cloud, "remove-host=a", "add-instances=1,flavor=gold.2")
    assert set(found.cluster.telemetry.readings) == {"z"}


# As the program tells it


def test_the_program_says_that_it_is_not_so(tmp_path, capsys):
    """First what is assumed, then who fits, then the plan for it."""
    path = tmp_path / "cloud.yaml"
    path.write_text(scenario.dumps(scenario.Scenario(cluster=two_hosts())))
    words = ["plan", "--scenario", str(path)]

    assert main.main([*words, "--what-if", "remove-host=a"]) == 0
    table = capsys.readouterr().out
    assert main.main([*words, "--what-if", "drain=q"]) == 2
    wrong = capsys.readouterr()
    edits = ["--what-if", "add-instances=9,flavor=gold.8"]
    assert main.main([*words, *edits, "--format", "json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert main.main([*words, "--format", "json"]) == 0
    plain = json.loads(capsys.readouterr().out)

    first, *_ = table.strip().splitlines()
    assert first == f"{suppositions.NOTICE}. It is assumed that"
    assert "Without a, 2 of its 2 instances fit on other hosts" in table
    assert "b takes 2: x, y" in table
    assert table.splitlines()[-1].startswith("Hypothetical: nothing to do")
    assert (wrong.out, wrong.err) == (
        "",
        (
            "watcher-cputier: --what-if drain=q: there is no host 'q'. "
            "There are a, b\n"
        ),
    )
    assert document["what_if"]["edits"] == edits[1:]
    assert not document["what_if"]["fits"]
    (outcome,) = document["what_if"]["outcomes"]
    assert [p["target"] for p in outcome["placements"]] == ["b", "a"]
    assert outcome["placements"][0]["source"] is None
    assert len(outcome["unplaced"]) == 7
    assert "within_quota" in outcome["unplaced"][0]["why"]
    assert document["summary"].startswith("Hypothetical: ")
    assert "what_if" not in plain
    assert not plain["summary"].startswith("Hypothetical")


# One class for all tiers

SHARES = "CUSTOM_VCPU_SHARES"


def single():
    """Two hosts with 1600 units each; a vCPU of gold takes 100."""
    hosts = [
        b.host(on, gold=None, silver=None, bronze=None, more={SHARES: 1600})
        for on in "ab"
    ]
    return dataclasses.replace(
        b.cluster(hosts),
        tiers=tuple(
            dataclasses.replace(tier, resource_class=SHARES)
            for tier in b.BUILT_IN_TIERS
        ),
        tier_classes=frozenset({SHARES}),
        shares_class=SHARES,
    )


def test_the_class_of_all_tiers_has_a_capacity_and_tiers_have_policies():
    gold = b.flavor(4, None, more={SHARES: 400})
    found = supposed(
        single(),
        f"quota=a,tier={SHARES},units=800",
        "quota=a,tier=gold,units=400",
        "add-instances=3,flavor=plain.4,host=a",
        flavors=[gold],
    )
    verdict = verdict_of(found)
    assert verdict.quota("a", SHARES) == 800
    assert verdict.quota("b", SHARES) == 1600
    assert verdict.quota("a", "gold") == 400
    # Of three one keeps the policy quota of gold, and two the capacity.
    (outcome,) = found.outcomes
    assert len(outcome.placements) == 1
    (new,) = found.cluster.instances
    assert (new.tier, new.units) == ("gold", 400)
    assert found.cluster.held == {("a", "gold"): 400, ("a", SHARES): 400}
    assert supposed(single(), "remove-host=a").fits
