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


"""Headroom, states, the promised split, and what still fits."""

import dataclasses

import pytest

from tests import builders as b
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters


def judged(cloud, **params):
    return diagnosis.diagnose(cloud, parameters.Parameters.of(params))


def states(cloud, **params):
    return {
        (one.host, one.account): one.state
        for one in offer.standings(cloud, judged(cloud, **params))
    }


@pytest.mark.parametrize(
    ("held", "quota", "drained", "state"),
    [
        (0, 10, False, "ok"),
        (8, 10, False, "ok"),
        (9, 10, False, "near"),
        (10, 10, False, "near"),
        (11, 10, False, "over"),
        # 90 % of 11 is 9.9: 9 is below it.
        (9, 11, False, "ok"),
        (10, 11, False, "near"),
        # A quota of nothing that holds nothing is not nearly full.
        (0, 0, False, "ok"),
        (0, 0, True, "drained"),
        (1, 0, True, "over"),
        (3, None, False, "unknown"),
    ],
)
def test_state(held, quota, drained, state):
    one = offer.Standing(
        host="h", account="gold", held=held, quota=quota, drained=drained
    )
    assert one.state == state
    assert one.state in offer.STATES


def test_what_is_not_known_is_not_zero():
    unknown = offer.Standing(host="h", account="gold", held=3, quota=None)
    assert unknown.headroom is None
    assert unknown.excess == 0
    over = offer.Standing(host="h", account="gold", held=3, quota=2)
    assert (over.headroom, over.excess) == (0, 1)


def test_no_quota_at_all_is_ok():
    free = offer.Standing(
        host="h", account="gold", held=3, quota=None, limited=False
    )
    assert (free.state, free.headroom) == ("ok", None)


def test_standings_of_a_cloud():
    cloud = b.cluster(
        [b.host("a"), b.host("b", gold=None)],
        [b.instance("x", "a", 15), b.instance("y", "a", 4, "silver")],
    )
    assert states(cloud) == {
        ("a", "gold"): "near",
        ("a", "silver"): "ok",
        ("a", "bronze"): "ok",
        ("b", "gold"): "unknown",
        ("b", "silver"): "ok",
        ("b", "bronze"): "ok",
    }
    assert states(cloud, drain_hosts=["a"])["a", "bronze"] == "drained"
    assert states(cloud, quotas={"gold": 14})["a", "gold"] == "over"


def test_offers_add_up_and_leave_out_hosts_that_serve_nobody():
    cloud = b.cluster(
        [
            b.host("a", gold=4),
            b.host("b", gold=10),
            b.host("down", gold=16, up=False),
        ],
        [b.instance("x", "a", 4), b.instance("y", "a", 2)],
        held={("b", "gold"): 3},
    )
    gold, silver, _ = offer.offers(cloud, judged(cloud))
    assert (gold.hosts, gold.capacity, gold.allocated) == (3, 30, 9)
    assert (gold.headroom, gold.excess) == (7, 2)
    assert (gold.over, gold.near, gold.unknown) == (1, 0, 0)
    assert silver.headroom == 32
    assert gold.largest is None


def test_fit_is_what_the_scarcest_class_allows():
    cloud = b.cluster(
        [
            # Memory for 3, gold for 8.
            b.host("a", memory_mb=3 * 1024),
            # Gold for 2 of 2 units each, 1 unit is left over.
            b.host("b", gold=5),
            b.host("c", enabled=False),
        ],
    )
    found = offer.fit(cloud, judged(cloud), b.flavor(2))
    assert found.hosts == {"a": 3, "b": 2}
    assert found.count == 5


def test_fit_keeps_policy_quotas_and_what_is_taken():
    cloud = b.cluster([b.host("a")], [b.instance("x", "a", 6)])
    assert offer.fit(cloud, judged(cloud), b.flavor(2)).count == 5
    capped = judged(cloud, quotas={"gold": 9})
    assert offer.fit(cloud, capped, b.flavor(2)).count == 1
    drained = judged(cloud, drain_hosts=["a"])
    assert offer.fit(cloud, drained, b.flavor(2)).count == 0


def test_fit_fills_nested_providers_one_by_one():
    """Two NUMA nodes with 3 units of cache each; 2 are asked for at once."""
    nodes = [
        b.provider(f"a_{n}", {"CUSTOM_LLC": 3}, root="a") for n in range(2)
    ]
    cloud = b.cluster([b.host("a", children=nodes)])
    flavor = b.flavor(1, groups=[b.group({"CUSTOM_LLC": 2}, suffix="1")])
    assert offer.fit(cloud, judged(cloud), flavor).hosts == {"a": 2}


def test_the_largest_flavor_that_fits():
    cloud = b.cluster([b.host("a", gold=8)])
    flavors = [b.flavor(n, t) for t in ("gold", "silver") for n in (2, 8, 9)]
    flavors.append(b.flavor(30, None))
    gold, silver, bronze = offer.offers(cloud, judged(cloud), flavors)
    assert gold.largest.flavor.name == "gold.8"
    assert {one.flavor.name: one.count for one in gold.fits} == {
        "gold.2": 4,
        "gold.8": 1,
        "gold.9": 0,
    }
    assert silver.largest.flavor.name == "silver.9"
    assert bronze.largest is None


def test_single_class_counts_for_its_tier_and_the_class():
    name = "CUSTOM_VCPU_SHARES"
    tiers = tuple(
        dataclasses.replace(tier, resource_class=name)
        for tier in b.BUILT_IN_TIERS
    )
    bare = b.host("a", gold=None, silver=None, bronze=None, more={name: 1000})
    cloud = model.Cluster(
        tiers=tiers,
        hosts=(bare,),
        tier_classes=frozenset({name}),
        shares_class=name,
    )
    flavor = b.flavor(2, None, more={name: 200})
    found = {
        one.account: one
        for one in offer.offers(cloud, judged(cloud), [flavor])
    }
    assert offer.tier_of(cloud, flavor) == "gold"
    assert found[name].fits[0].count == found["gold"].fits[0].count == 5
    assert found["silver"].fits == ()


# The split


def test_the_promised_split_of_a_host():
    """R3: 512, 333 and 167 of 1012 parts where all tiers are alike."""
    cloud = b.cluster([b.host("a", vcpus=16)])
    found = offer.splits(cloud, judged(cloud), cloud.hosts[0])
    assert [one.account for one in found] == ["gold", "silver", "bronze"]
    assert [one.promised_percent for one in found] == pytest.approx(
        [100 * w / 1012 for w in (512, 333, 167)]
    )
    assert sum(one.promised_cpus for one in found) == pytest.approx(16)
    assert [one.loaded_cpus for one in found] == [0, 0, 0]
    assert all(one.used_cpus is None for one in found)


def test_the_split_under_load_lends_what_nobody_wants():
    """One vCPU of each on one CPU: 50.6, 32.9, 16.5; alone: all of it."""
    specs = {"gold": "512", "silver": "333", "bronze": "167"}
    everyone = [
        b.instance(t, "a", 1, t, extra_specs={"quota:cpu_shares": shares})
        for t, shares in specs.items()
    ]
    host = b.host("a", vcpus=1, gold=1, silver=1, bronze=1, memory_mb=9999)

    def loaded(instances):
        # The books of VCPU are not the point here.
        cloud = b.cluster([host], instances)
        found = offer.splits(cloud, judged(cloud), cloud.hosts[0])
        return {one.account: one.loaded_cpus for one in found}

    assert loaded(everyone) == pytest.approx(
        {"gold": 512 / 1012, "silver": 333 / 1012, "bronze": 167 / 1012}
    )
    assert loaded(everyone[2:]) == pytest.approx(
        {"gold": 0, "silver": 0, "bronze": 1}
    )


def test_what_was_used_beyond_the_promise_is_borrowed():
    """R18, R20: a bronze vCPU that ran all the time on idle gold's CPUs."""
    cloud = b.cluster(
        [b.host("a", vcpus=16)],
        [b.instance("busy", "a", 2, "bronze"), b.instance("idle", "a", 4)],
    )
    readings = {
        "busy": (model.Reading(usage_cpus=2.0, steal_cpus=0.0),),
        "idle": (None, model.Reading(usage_cpus=0.5, steal_cpus=0.0)),
    }
    seen = dataclasses.replace(
        cloud,
        telemetry=model.Telemetry(
            source="x",
            window_seconds=300,
            windows=(0, 300),
            readings=model.frozen_map(readings),
        ),
    )
    found = {
        one.account: one
        for one in offer.splits(seen, judged(seen), seen.hosts[0])
    }
    floor = 167 / 1012
    assert found["bronze"].used_cpus == 2.0
    assert found["bronze"].borrowed_cpus == pytest.approx(2 - 2 * floor)
    assert found["gold"].borrowed_cpus == 0
    # All that may be sold of bronze is more than it used.
    assert found["bronze"].from_higher_cpus == 0
    assert found["gold"].used_cpus == 0.5

    half = dataclasses.replace(
        seen,
        telemetry=dataclasses.replace(
            seen.telemetry,
            readings=model.frozen_map({"busy": readings["busy"]}),
        ),
    )
    lost = offer.splits(half, judged(half), half.hosts[0])
    assert all(one.used_cpus is None for one in lost)


@pytest.mark.parametrize(
    ("used", "higher"),
    [
        # Bronze is sold 16 x .165 = 2.64 of 16 CPUs, gold 8.09, silver 5.26.
        ((0.0, 0.0, 2.0), (0, 0, 0)),
        ((0.0, 0.0, 10.0), (0, 0, 10 - 2.6403)),
        # What gold takes of idle silver is no higher tier's.
        ((10.0, 0.0, 2.0), (0, 0, 0)),
        # Silver comes first: it took what gold left idle.
        ((4.0, 9.3, 2.7), (0, 9.3 - 5.2648, 2.7 - 2.6403)),
        ((8.0, 6.0, 2.0), (0, 0.0949, 0)),
    ],
)
def test_what_higher_tiers_left_idle_is_used_by_lower_ones(used, higher):
    """R20: each idle CPU is lent once, and never upwards."""
    cloud = b.cluster(
        [b.host("a", vcpus=16)],
        [b.instance(tier, "a", 16, tier, memory_mb=1) for tier in b.BUILT_IN],
    )
    seen = dataclasses.replace(
        cloud,
        telemetry=model.Telemetry(
            source="x",
            window_seconds=300,
            windows=(0,),
            readings=model.frozen_map(
                {
                    tier: (model.Reading(usage_cpus=cpus, steal_cpus=0.0),)
                    for tier, cpus in zip(b.BUILT_IN, used, strict=True)
                }
            ),
        ),
    )
    found = offer.splits(seen, judged(seen), seen.hosts[0])
    assert [one.from_higher_cpus for one in found] == pytest.approx(
        list(higher), abs=1e-3
    )


def test_what_idle_hosts_could_carry():
    """R94: 16 CPUs, of which 3 are wanted at most; gold runs at .506."""

    def told(*hosts, **readings):
        cloud = b.cluster(
            hosts,
            [
                b.instance("x", "a", 4),
                b.instance("y", "a", 2, "bronze"),
            ],
        )
        seen = dataclasses.replace(
            cloud,
            telemetry=model.Telemetry(
                source="x",
                window_seconds=300,
                windows=(0, 300, 600),
                readings=model.frozen_map(
                    {
                        uuid: tuple(
                            model.Reading(usage_cpus=u, steal_cpus=0.5)
                            for u in usages
                        )
                        for uuid, usages in readings.items()
                    }
                ),
            ),
        )
        params = parameters.Parameters.of()
        return offer.carriable(seen, judged(seen), params)

    sixteen = b.host("a", vcpus=16)
    both = {"x": (1.0, 1.0, 0.0), "y": (0.0, 1.0, 0.0)}
    assert told(sixteen, **both) == {
        "gold": int(13 / (512 / 1012)),
        "silver": int(13 / (333 / 1012)),
        "bronze": int(13 / (167 / 1012)),
    }
    # Somebody was not measured: not known, and not none.
    assert told(sixteen, x=both["x"]) == {}
    # An empty host has all of its CPUs to spare; one that is off has none.
    empty = b.host("b", vcpus=16)
    assert told(sixteen, empty, x=both["x"])["gold"] == int(16 / (512 / 1012))
    off = dataclasses.replace(empty, enabled=False)
    assert told(sixteen, off, x=both["x"]) == {}
    cloud = b.cluster([sixteen])
    assert not offer.carriable(
        cloud, judged(cloud), parameters.Parameters.of()
    )


def test_instances_of_no_tier_come_last():
    cloud = b.cluster([b.host("a")], [b.instance("x", "a", 1, None)])
    *_, last = offer.splits(cloud, judged(cloud), cloud.hosts[0])
    assert (last.account, last.floor, last.promised_cpus) == ("", None, None)
    assert last.loaded_cpus == pytest.approx(1)


def test_oversubscription():
    cloud = b.cluster([b.host("a", vcpus=16), b.host("b", gold=None)])
    verdict = judged(cloud)
    assert offer.oversubscription(cloud, verdict, cloud.hosts[0]) == 3
    assert offer.oversubscription(cloud, verdict, cloud.hosts[1]) is None
