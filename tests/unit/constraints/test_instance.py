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

"""Whether an instance may move at all: each rule, and their order."""

from typing import Any

import pytest

from tests import builders
from watcher_cputier import constraints
from watcher_cputier import model
from watcher_cputier.constraints import instance as rules


def reject(
    on: dict[str, Any] | None = None, **fields: Any
) -> constraints.Rejection | None:
    """Why an instance of two Gold units on host a may not move."""
    cloud = builders.cluster(
        [builders.host("a", **(on or {})), builders.host("b")],
        [builders.instance("i", "a", 2, **fields)],
    )
    return constraints.reject_instance(cloud, cloud.instances[0])


def test_an_ordinary_instance_may_move() -> None:
    assert reject() is None


# field, value, rule, words
STATES: list[tuple[str, Any, str, str]] = [
    ("known", False, "known", "does not know it"),
    ("excluded", True, "in_audit_scope", "scope excludes it"),
    ("opted_out", True, "opted_in", "optimize=false"),
    ("locked", True, "unlocked", "locked"),
    ("status", "PAUSED", "active", "PAUSED"),
    ("status", "SHUTOFF", "active", "SHUTOFF"),
    ("status", "VERIFY_RESIZE", "active", "VERIFY_RESIZE"),
    ("status", "ERROR", "active", "ERROR"),
    ("task_state", "migrating", "at_rest", "migrating"),
    ("in_doubt", "it is doubled", "in_order", "it is doubled"),
]


@pytest.mark.parametrize(("field", "value", "rule", "words"), STATES)
def test_a_state_keeps_an_instance(
    field: str, value: Any, rule: str, words: str
) -> None:
    rejection = reject(**{field: value})
    assert rejection is not None
    assert rejection.rule == rule
    assert words in rejection.reason
    assert rejection.requirement.startswith("R")
    assert str(rejection) == f"{rule}: {rejection.reason}"


def test_every_rule_bears_the_name_that_it_gives() -> None:
    """A rejection's rule is the checker's name, for whoever looks it up."""
    names = {rule.__name__ for rule in constraints.INSTANCE_RULES}
    assert {rule for _, _, rule, _ in STATES} <= names
    assert names == {
        "known",
        "in_audit_scope",
        "opted_in",
        "unlocked",
        "active",
        "at_rest",
        "in_order",
        "portable",
        "releasable",
        "source_in_service",
    }


HARDWARE = [
    ("hw:cpu_policy", "dedicated"),
    ("hw:cpu_policy", "mixed"),
    ("hw:cpu_realtime", "yes"),
    ("hw:mem_page_size", "large"),
    ("hw:mem_page_size", "1GB"),
    ("hw:numa_nodes", "2"),
    ("hw:pmem", "6GB"),
    ("pci_passthrough:alias", "a1:2"),
    ("accel:device_profile", "fpga"),
]


@pytest.mark.parametrize(("name", "value"), HARDWARE)
def test_what_is_tied_to_hardware_stays(name: str, value: str) -> None:
    """Pinned CPUs, NUMA, huge pages, PCI: a fit elsewhere is not shown."""
    rejection = reject(extra_specs={name: value})
    assert rejection is not None
    assert rejection.rule == "portable"
    assert f"{name}={value}" in rejection.reason


HARMLESS = [
    ("hw:cpu_policy", "shared"),
    ("hw:cpu_policy", "SHARED"),
    ("hw:cpu_realtime", "no"),
    ("hw:cpu_sockets", "2"),
    ("quota:cpu_shares", "1024"),
    ("hw_rng:allowed", "True"),
    ("something:unknown", "dedicated"),
]


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_what_is_not_tied_to_hardware_moves(name: str, value: str) -> None:
    assert reject(extra_specs={name: value}) is None


@pytest.mark.parametrize("name", ["PCPU", "VGPU", "PCI_DEVICE", "PGPU"])
@pytest.mark.parametrize("numbered", [False, True])
def test_devices_are_not_movable(name: str, numbered: bool) -> None:
    if numbered:
        fields = {"groups": [builders.group({name: 1}, suffix="1")]}
    else:
        fields = {"more": {name: 1}}
    rejection = reject({"more": {name: 4}}, **fields)
    assert rejection is not None
    assert rejection.rule == "portable"
    assert name in rejection.reason


GOLD_LIMITS = {
    "max_unit lowered": ({"max_unit": 1}, "max_unit is 1"),
    "min_unit raised": ({"min_unit": 4}, "min_unit is 4"),
    "step_size raised": ({"step_size": 4}, "step_size is 4"),
}


@pytest.mark.parametrize("case", GOLD_LIMITS)
def test_an_inventory_that_no_longer_admits_keeps_the_instance(
    case: str,
) -> None:
    """Placement refuses to hand such an allocation to a migration."""
    limits, words = GOLD_LIMITS[case]
    rejection = reject({"gold": model.Inventory(total=16, **limits)})
    assert rejection is not None
    assert rejection.rule == "releasable"
    assert rejection.requirement == "R22"
    assert "2 CUSTOM_VCPU_GOLD on a" in rejection.reason
    assert words in rejection.reason


def test_limits_that_admit_exactly_what_is_held_keep_nothing() -> None:
    gold = model.Inventory(total=16, min_unit=2, max_unit=2, step_size=2)
    assert reject({"gold": gold}) is None


def test_a_limit_of_another_class_keeps_the_instance_too() -> None:
    memory = model.Inventory(total=65536, max_unit=512)
    rejection = reject({"memory_mb": memory})
    assert rejection is not None
    assert rejection.rule == "releasable"
    assert "1024 MEMORY_MB on a" in rejection.reason


def test_a_limit_of_a_class_that_it_does_not_hold_does_not() -> None:
    silver = model.Inventory(total=16, max_unit=1)
    assert reject({"silver": silver}) is None


def test_a_nested_providers_limit_counts() -> None:
    child = builders.provider(
        "a_numa0",
        {"CUSTOM_LLC": model.Inventory(total=8, max_unit=1)},
        root="a",
    )
    rejection = reject({"children": [child]}, more={"CUSTOM_LLC": 2})
    assert rejection is not None
    assert "2 CUSTOM_LLC on a_numa0" in rejection.reason


def test_a_sharing_providers_limit_counts() -> None:
    shared = builders.provider(
        "nfs",
        {"CUSTOM_STORE": model.Inventory(total=100, max_unit=5)},
        traits=[model.SHARING_TRAIT],
    )
    rejection = reject({"shared": (shared,)}, more={"CUSTOM_STORE": 10})
    assert rejection is not None
    assert "10 CUSTOM_STORE on nfs" in rejection.reason


@pytest.mark.parametrize(
    ("amount", "limits", "broken"),
    [
        (4, {}, ""),
        (4, {"max_unit": 4}, ""),
        (5, {"max_unit": 4}, "max_unit is 4"),
        (4, {"min_unit": 4}, ""),
        (3, {"min_unit": 4}, "min_unit is 4"),
        (6, {"step_size": 3}, ""),
        (7, {"step_size": 3}, "step_size is 3"),
    ],
)
def test_unit_rules(amount: int, limits: dict[str, int], broken: str) -> None:
    inventory = model.Inventory(total=16, **limits)
    assert rules.unit_limit(inventory, amount) == broken
