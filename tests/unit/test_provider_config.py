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


"""CPU sets, inventories of tiers, and files against what hosts report."""

import dataclasses

import hypothesis
from hypothesis import strategies as st
import pytest

from tests import builders as b
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import provider_config as pc

# CPU sets


@pytest.mark.parametrize(
    ("text", "cpus"),
    [
        ("0-3,^2,8", {0, 1, 3, 8}),
        # An exclusion holds wherever it stands.
        ("^2,0-3", {0, 1, 3}),
        ("0-7,^2-4", {0, 1, 5, 6, 7}),
        (" 1 , 3 - 4,,", {1, 3, 4}),
        ("5", {5}),
    ],
)
def test_sets_as_nova_writes_them(text, cpus):
    assert pc.parse_cpus(text) == cpus


def test_the_set_of_the_plan_has_112_cpus():
    """R9: capacity is the size of cpu_shared_set, not of the machine."""
    assert len(pc.parse_cpus("4-31,36-63,68-95,100-127")) == 112


@pytest.mark.parametrize(
    "text",
    [
        "",
        ",",
        "a",
        "3-1",
        "-1",
        "1-",
        "1--2",
        "^",
        "1,^1",
        "0x1",
        "1 2",
        "0-99999999",
        "0-70000",
    ],
)
def test_what_is_no_set(text):
    with pytest.raises(errors.ConfigurationError, match="cpu_shared_set"):
        pc.parse_cpus(text)


@pytest.mark.parametrize("text", ["0-3,32-35", "0-3 32-35", "0 1 2 3,32-35"])
def test_affinity_as_systemd_writes_it(text):
    assert pc.parse_affinity(text) == {0, 1, 2, 3, 32, 33, 34, 35}


@pytest.mark.parametrize("text", ["^1", "numa", ""])
def test_what_is_no_affinity(text):
    with pytest.raises(errors.ConfigurationError, match="CPUAffinity"):
        pc.parse_affinity(text)


@hypothesis.given(st.frozensets(st.integers(0, 200), min_size=1))
@hypothesis.settings(max_examples=50, deadline=None)
def test_a_set_survives_being_written(cpus):
    assert pc.parse_cpus(pc.format_cpus(cpus)) == cpus


# Inventories


def facts(**fields):
    return pc.Facts(**{"name": "h", "uuid": "u", "cpus": 8, **fields})


def test_each_tier_may_fill_the_host():
    found = pc.tier_inventories(facts(), b.tiers())
    assert set(found) == {b.class_of(t) for t in b.BUILT_IN}
    assert found["CUSTOM_VCPU_GOLD"] == {
        "total": 8,
        "reserved": 0,
        "min_unit": 1,
        "max_unit": 8,
        "step_size": 1,
        "allocation_ratio": 1.0,
    }


def test_reserved_cpus_are_not_sold_and_units_of_ones_own():
    """R7, R10."""
    found = pc.tier_inventories(
        facts(reserved=2, units={"gold": 3}), b.tiers()
    )
    assert [one["total"] for one in found.values()] == [3, 6, 6]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"reserved": 8}, "nothing to sell"),
        ({"shared": frozenset(range(7))}, "has 7 CPUs, and 8 are known"),
        (
            {"shared": frozenset(range(8)), "affinity": frozenset({7, 8})},
            "CPUs 7 are in cpu_shared_set and in CPUAffinity",
        ),
        ({"units": {"platin": 3}}, "unknown tier 'platin'"),
        ({"units": {"gold": 0}}, "0 units of gold"),
    ],
)
def test_facts_that_contradict(fields, wrong):
    with pytest.raises(errors.ConfigurationError, match=wrong) as caught:
        pc.tier_inventories(facts(**fields), b.tiers())
    assert caught.value.where == "host h"


def test_one_class_for_all_tiers():
    """R33, R36: a multiple of the CPUs, with Nova's ratio."""
    ((name, found),) = pc.shares_inventory(
        facts(cpus=16), "CUSTOM_VCPU_SHARES", 100, 3.0
    ).items()
    assert name == "CUSTOM_VCPU_SHARES"
    assert (found["total"], found["allocation_ratio"]) == (1600, 3.0)
    with pytest.raises(errors.ConfigurationError, match="takes no VCPU_SH"):
        pc.shares_inventory(facts(), "VCPU_SHARES", 100, 1.0)


# Documents


def document(*entries):
    return pc.document(
        [
            (who, pc.tier_inventories(facts(cpus=cpus), b.tiers()))
            for who, cpus in entries
        ]
    )


def test_what_is_written_is_read():
    (entry,) = pc.declared(document(({"name": "h"}, 8)), "f.yaml")
    assert (entry.by, entry.value, entry.wildcard) == ("name", "h", False)
    assert entry.inventories["CUSTOM_VCPU_GOLD"]["total"] == 8


def test_placements_defaults_are_filled_in():
    (entry,) = pc.declared(
        {
            "meta": {"schema_version": "1.0"},
            "providers": [
                {
                    "identification": {"uuid": "$COMPUTE_NODE"},
                    "inventories": {
                        "additional": [{"CUSTOM_X": {"total": 3}}]
                    },
                    "traits": {"additional": ["CUSTOM_T"]},
                }
            ],
        },
        "f.yaml",
    )
    assert entry.wildcard
    assert entry.inventories["CUSTOM_X"]["max_unit"] == 2147483647
    assert entry.traits == {"CUSTOM_T"}


def broken(**provider):
    return {"meta": {"schema_version": "1.0"}, "providers": [provider]}


@pytest.mark.parametrize(
    "found",
    [
        None,
        [],
        {},
        {"meta": {"schema_version": 1.0}},
        {"meta": {"schema_version": "1.0"}, "providers": {}},
        broken(),
        broken(identification={}),
        broken(identification={"uuid": "x"}),
        broken(identification={"name": ""}),
        broken(identification={"name": "a", "uuid": "$COMPUTE_NODE"}),
        broken(
            identification={"name": "a"}, inventories={"additional": {"A": 1}}
        ),
        broken(
            identification={"name": "a"}, inventories={"additional": ["A"]}
        ),
        *(
            broken(
                identification={"name": "a"},
                inventories={"additional": [{"CUSTOM_A": fields}]},
            )
            for fields in (
                {},
                3,
                {"total": "3"},
                {"total": True},
                {"total": 1, "x": 1},
            )
        ),
    ],
)
def test_what_nova_would_refuse(found):
    with pytest.raises(errors.ConfigurationError) as caught:
        pc.declared(found, "f.yaml")
    assert caught.value.where == "f.yaml"


# Against Placement


def reported(name="h", **totals):
    amounts = dict.fromkeys(b.BUILT_IN, 8) | totals
    return dataclasses.replace(
        b.host(
            name,
            **{
                tier: None
                if total is None
                else model.Inventory(total=total, max_unit=8)
                for tier, total in amounts.items()
            },
        ),
        uuid=f"00000000-0000-4000-8000-{hash_of(name)}",
    )


def hash_of(name):
    return name.encode().hex().zfill(12)[:12]


def differences(entries, hosts, classes=()):
    found = pc.declared(document(*entries), "f.yaml")
    return [
        (one.host, one.what, one.told, one.shown)
        for one in pc.verify(found, hosts, classes)
    ]


def test_a_host_that_reports_its_file():
    host = reported()
    for who in (
        {"name": "h"},
        {"uuid": host.uuid.upper()},
        {"uuid": "$COMPUTE_NODE"},
    ):
        assert not differences([(who, 8)], [host])


def test_what_a_host_does_not_report():
    host = reported(gold=7, silver=None)
    assert differences([({"name": "h"}, 8)], [host]) == [
        ("h", "CUSTOM_VCPU_GOLD total", "8", "7"),
        ("h", "CUSTOM_VCPU_SILVER", "total 8", ""),
    ]


def test_an_entry_of_its_own_stands_before_the_wildcard():
    entries = [({"uuid": "$COMPUTE_NODE"}, 4), ({"name": "h"}, 8)]
    assert not differences(entries, [reported()])
    wrong = differences(entries, [reported("other")])
    assert {what for host, what, _, _ in wrong if host == "other"} == {
        f"{b.class_of(t)} {field}"
        for t in b.BUILT_IN
        for field in ("total", "max_unit")
    }


def test_entries_for_nobody_and_for_the_same():
    entries = [({"name": "gone"}, 8), ({"name": "h"}, 8), ({"name": "h"}, 8)]
    found = differences(entries, [reported()])
    assert found == [
        ("h", "", "2 entries for the same provider", ""),
        ("gone", "", "a provider", ""),
    ]


def test_what_a_host_reports_and_no_file_declares():
    """Set by hand in Placement, and lost with the next new host."""
    assert differences([], [reported()], ["CUSTOM_VCPU_GOLD"]) == [
        ("h", "CUSTOM_VCPU_GOLD", "", "total 8")
    ]


def test_ratios_are_compared_as_placement_keeps_them():
    told = {"CUSTOM_X": {"total": 4, "allocation_ratio": 1.1}}
    (entry,) = pc.declared(pc.document([({"name": "h"}, told)]), "f.yaml")

    def shown(ratio):
        host = b.host(
            "h",
            more={
                "CUSTOM_X": model.Inventory(total=4, allocation_ratio=ratio)
            },
        )
        return pc.verify([entry], [host])

    assert not shown(1.10000002384)
    assert shown(1.2)
