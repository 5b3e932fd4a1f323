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

"""Scenario files: what may be left out, and what is refused in which words."""

import copy
import dataclasses
import json
import math
import pathlib

import pytest

from tests import builders
from watcher_cputier import model
from watcher_cputier import scenario
from watcher_cputier.cli import main
from watcher_cputier.scenario import schema

PROJECT = pathlib.Path(__file__).parents[2]
GOLD = builders.class_of("gold")

SMALL = """
watcher_cputier_scenario: 1
tiers: [{name: gold}, {name: bronze}]
hosts:
  - {name: a, inventories: {VCPU: 8, CUSTOM_VCPU_GOLD: 4}, traits: [T]}
  - name: b
    uuid: b-id
    providers:
      - {name: b, uuid: b-id, inventories: {VCPU: 8, CUSTOM_VCPU_GOLD: 4}}
      - {name: cell, parent: b-id, inventories: {CUSTOM_LLC: 2}}
    shared: [disks]
sharing_providers: [{name: disks, inventories: {DISK_GB: 100}}]
flavors:
  small:
    vcpus: 2
    disk_gb: 5
    extra_specs:
      "resources:CUSTOM_VCPU_GOLD": "2"
      "resources1:CUSTOM_LLC": "1"
  plain: {vcpus: 1}
instances:
  - {name: i1, host: a, flavor: small}
  - {name: i2, host: b, flavor: small}
  - {name: i3, host: b, flavor: plain}
aggregates: [{name: agg, hosts: [a]}]
server_groups: [{name: g, policy: affinity, members: [i1, stranger]}]
"""


@pytest.fixture
def small():
    """The document of :data:`SMALL`, to be spoilt."""
    return copy.deepcopy(scenario.text.parse(SMALL))


def refused(document):
    with pytest.raises(scenario.ScenarioError) as caught:
        scenario.load(document)
    return caught.value


# What may be left out


def test_a_host_may_have_one_provider():
    host = scenario.loads(SMALL).cluster.host_by_name["a"]
    (root,) = host.providers
    assert (root.uuid, root.name, root.root_uuid) == ("a", "a", "a")
    assert root.inventories[GOLD] == model.Inventory(total=4)
    assert root.traits == {"T"}
    assert (host.node_name, host.enabled, host.in_scope) == ("a", True, True)


def test_allocations_follow_from_the_instances():
    """Each class from the one provider that has it, sharing ones too."""
    cluster = scenario.loads(SMALL).cluster
    a, b = cluster.hosts
    assert dict(a.providers[0].allocated) == {GOLD: 2, "VCPU": 2}
    assert dict(b.providers[0].allocated) == {GOLD: 2, "VCPU": 3}
    assert dict(b.providers[1].allocated) == {"CUSTOM_LLC": 1}
    assert dict(b.shared[0].allocated) == {"DISK_GB": 5}
    assert cluster.held == {("a", "gold"): 2, ("b", "gold"): 2}


def test_allocations_that_are_told_are_believed(small):
    small["hosts"][1]["providers"][1]["allocated"] = {"CUSTOM_LLC": 2}
    b = scenario.load(small).cluster.host_by_name["b"]
    assert b.providers[0].allocated == {}
    assert b.providers[1].allocated == {"CUSTOM_LLC": 2}
    assert b.shared[0].allocated == {"DISK_GB": 5}


def test_who_serves_has_to_be_told_where_several_could(small):
    small["hosts"][1]["providers"].append(
        {"name": "cell2", "inventories": {"CUSTOM_LLC": 2}}
    )
    error = refused(small)
    assert error.where == "hosts[1]"
    assert "2 providers have CUSTOM_LLC" in error.what
    assert "allocated" in error.cure


def test_tier_and_units_follow_from_the_flavor():
    i1, _, i3 = scenario.loads(SMALL).cluster.instances
    assert (i1.tier, i1.units, i1.uuid) == ("gold", 2, "i1")
    assert (i3.tier, i3.units) == (None, 0)


def test_without_placement_the_shares_tell_the_tier(small):
    del small["hosts"][0]["inventories"][GOLD]
    del small["hosts"][1]["providers"][0]["inventories"][GOLD]
    small["flavors"]["plain"]["extra_specs"] = {"quota:cpu_shares": "512"}
    cluster = scenario.load(small).cluster
    assert cluster.tier_classes == frozenset()
    assert cluster.instances[2].tier == "gold"
    assert cluster.instances[2].units == 1


def test_single_class_mode(small):
    small["shares_class"] = "CUSTOM_LLC"
    cluster = scenario.load(small).cluster
    assert {tier.resource_class for tier in cluster.tiers} == {"CUSTOM_LLC"}
    assert cluster.tier_classes == {"CUSTOM_LLC"}
    assert cluster.held == {("a", "CUSTOM_LLC"): 1, ("b", "CUSTOM_LLC"): 1}


def test_tiers_have_built_in_defaults(small):
    small["tiers"].insert(0, {"name": "platinum", "cpu_shares": 1024})
    platinum, gold, bronze = scenario.load(small).cluster.tiers
    assert (platinum.rank, platinum.multiplier) == (1, 200.0)
    assert platinum.resource_class == "CUSTOM_VCPU_PLATINUM"
    assert (gold.cpu_shares, gold.multiplier, gold.rank) == (512, 100.0, 2)
    assert bronze.rank == 3


def test_json_is_read_too(small):
    assert scenario.loads(json.dumps(small)) == scenario.loads(SMALL)


def test_dates_are_text():
    found = scenario.loads(SMALL + "description: 2026-01-01\n")
    assert found.description == "2026-01-01"


def test_what_is_not_described_is_listed():
    """A real cloud has instances on hosts that are gone."""
    cloud = builders.cluster(
        [builders.host("a")],
        [builders.instance("i", "gone", allocations={"old": {"VCPU": 1}})],
        aggregates=(builders.aggregate("agg", ["ironic"]),),
    )
    found = scenario.Scenario(cluster=cloud)
    document = scenario.dump(found)
    assert document["other_hosts"] == ["gone", "ironic"]
    assert document["other_providers"] == ["old"]
    assert scenario.load(document) == found


def test_two_hosts_may_claim_one_name():
    """As a real cloud may have it; it is reported, not refused."""
    twins = [builders.host("a"), builders.host("b")]
    twins[1] = dataclasses.replace(twins[1], name="a")
    found = scenario.Scenario(
        cluster=model.Cluster(
            tiers=builders.BUILT_IN_TIERS,
            hosts=tuple(twins),
            tier_classes=frozenset(
                tier.resource_class for tier in builders.BUILT_IN_TIERS
            ),
        )
    )
    assert scenario.loads(scenario.dumps(found)) == found


def test_flavors_of_one_name_are_told_apart():
    """A flavor may have been created anew with other contents."""
    cloud = builders.cluster(
        [builders.host("a")],
        [
            builders.instance("i", "a", memory_mb=1024),
            builders.instance("j", "a", memory_mb=2048),
        ],
    )
    document = scenario.dump(scenario.Scenario(cluster=cloud))
    assert list(document["flavors"]) == ["gold.1", "gold.1#2"]
    assert scenario.load(document).cluster == cloud


# What is refused

TELEMETRY = {"source": "x", "window_seconds": 60, "windows": [0]}
WRONG = [
    # path to replace, value, where, what, cure
    ("tiers", [], "tiers", "no tier is described", ""),
    ("tiers.0.name", "a b", "tiers[0].name", "does not match", ""),
    ("tiers.0.name", "tin", "tiers[0].cpu_shares", "is missing", "shares"),
    ("tiers.1.name", "gold", "tiers[1].name", "'gold' appears twice", ""),
    ("tiers.1.resource_class", GOLD, "tiers[1].resource_class", "twice", ""),
    ("tiers.0.rank", 0, "tiers[0].rank", "less than the minimum", ""),
    ("tier_classes", ["X"], "tier_classes[0]", "no tier", GOLD),
    ("hosts.0.nickname", 1, "hosts[0].nickname", "unknown key", "name, uuid"),
    ("hosts.0.up", "yes", "hosts[0].up", "'yes' is not true or false", ""),
    ("hosts.0.name", 7, "hosts[0].name", "7 is not text", "quotes"),
    ("hosts.0.uuid", "b-id", "hosts[1].providers", "'b-id' appears", ""),
    ("hosts.0.traits", "T", "hosts[0].traits", "'T' is not a list", ""),
    ("hosts.1.traits", [], "hosts[1].traits", "either providers", ""),
    ("hosts.1.shared", ["x"], "hosts[1].shared[0]", "no sharing", "sharing_"),
    ("hosts.1.uuid", "c", "hosts[1].providers", "none of them", "uuid"),
    (
        "hosts.0.inventories.VCPU",
        -1,
        "hosts[0].inventories.VCPU",
        "-1 is less than",
        "",
    ),
    (
        "hosts.0.inventories.VCPU",
        {"total": 1, "ratio": 2},
        "hosts[0].inventories.VCPU.ratio",
        "unknown key",
        "allocation_ratio",
    ),
    (
        "hosts.0.inventories.VCPU",
        {"reserved": 1},
        "hosts[0].inventories.VCPU.total",
        "is missing",
        "",
    ),
    (
        "hosts.1.providers.1.root",
        "x",
        "hosts[1].providers[1].root",
        "'x' is not the root",
        "",
    ),
    (
        "hosts.1.providers.1.parent",
        "x",
        "hosts[1].providers[1].parent",
        "no provider 'x'",
        "",
    ),
    (
        "hosts.1.providers.1.parent",
        "cell",
        "hosts[1].providers[1].parent",
        "descends from it",
        "",
    ),
    (
        "hosts.1.providers.0.parent",
        "cell",
        "hosts[1].providers[0].parent",
        "the root has no parent",
        "",
    ),
    (
        "hosts.1.providers.1.uuid",
        "a",
        "hosts[1].providers",
        "provider 'a' appears twice",
        "",
    ),
    (
        "sharing_providers.0.uuid",
        "a",
        "sharing_providers",
        "provider 'a' appears twice",
        "",
    ),
    ("flavors.small.vcpus", 1.0, "flavors.small.vcpus", "whole number", ""),
    (
        "flavors.small.extra_specs",
        {"hw:numa_nodes": 2},
        "flavors.small.extra_specs['hw:numa_nodes']",
        "2 is not text",
        "quotes",
    ),
    ("instances.0.host", "c", "instances[0].host", "no host", "other_hosts"),
    ("instances.0.flavor", "x", "instances[0].flavor", "no flavor", "flavors"),
    ("instances.0.tier", "tin", "instances[0].tier", "no tier", "gold, b"),
    ("instances.0.tier", "bronze", "instances[0].units", "is missing", "how"),
    ("instances.1.name", "i1", "instances[1].name", "'i1' appears", ""),
    ("instances.1.uuid", "i1", "instances[1].uuid", "'i1' appears", ""),
    (
        "instances.0.allocations",
        {"x": {"VCPU": 1}},
        "instances[0].allocations.x",
        "no provider 'x'",
        "other_providers",
    ),
    ("aggregates.0.hosts", ["x"], "aggregates[0].hosts[0]", "no host", ""),
    ("aggregates.0.metadata", {"k": 1}, "aggregates[0].metadata.k", "1", ""),
    (
        "held",
        [{"host": "x", "account": "gold", "units": 1}],
        "held[0].host",
        "no host 'x'",
        "",
    ),
    (
        "held",
        [{"host": "a", "account": "x", "units": 1}],
        "held[0].account",
        "no account 'x'",
        "gold, bronze",
    ),
    (
        "held",
        2 * [{"host": "a", "account": "gold", "units": 1}],
        "held[1]",
        "gold of a appears twice",
        "",
    ),
    (
        "admissions",
        [{"request": [["resources", "VCPU:1"]], "hosts": ["x"]}],
        "admissions[0].hosts[0]",
        "no provider 'x'",
        "",
    ),
    (
        "admissions",
        2 * [{"request": [["resources", "VCPU:1"]]}],
        "admissions[1].request",
        "appears twice",
        "",
    ),
    ("server_groups.0.name", "", "server_groups[0].name", "", ""),
    (
        "telemetry",
        {"source": "x", "window_seconds": 60, "windows": [0, 61]},
        "telemetry.windows[1]",
        "61 does not follow 0 by 60 seconds",
        "consecutive",
    ),
    (
        "telemetry",
        TELEMETRY | {"readings": {"x": [None]}},
        "telemetry.readings.x",
        "no instance 'x'",
        "instances",
    ),
    (
        "telemetry",
        TELEMETRY | {"readings": {"i1": []}},
        "telemetry.readings.i1",
        "has 0 readings for 1 windows",
        "null",
    ),
    (
        "telemetry",
        TELEMETRY | {"readings": {"i1": [[1.0]]}},
        "telemetry.readings.i1[0]",
        "[1.0] is too short",
        "",
    ),
    (
        "telemetry",
        TELEMETRY | {"readings": {"i1": [[1, -1]]}},
        "telemetry.readings.i1[0][1]",
        "-1 is less than",
        "",
    ),
    (
        "telemetry",
        TELEMETRY | {"readings": {"i1": [[math.nan, 0]]}},
        "telemetry.readings.i1[0]",
        "no pair of numbers",
        "null",
    ),
    (
        "changes",
        [{"instance": "x", "kind": "reboot", "began_at": 1}],
        "changes[0].instance",
        "no instance 'x'",
        "instances",
    ),
    ("parameters", {"x": 1}, "parameters.x", "unknown parameter", "quotas"),
    (
        "parameters",
        {"max_migrations": -1},
        "parameters.max_migrations",
        "-1 is less than",
        "",
    ),
    (
        "parameters",
        {"quotas": {"gold": "x"}},
        "parameters.quotas[gold]",
        "'x' is of no form",
        "",
    ),
    (
        "watcher_cputier_scenario",
        2,
        "watcher_cputier_scenario",
        "format 2 is unknown",
        "format 1",
    ),
]


@pytest.mark.parametrize(("path", "value", "where", "what", "cure"), WRONG)
def test_what_is_wrong_is_said_where(small, path, value, where, what, cure):
    *steps, last = [
        int(part) if part.isdigit() else part for part in path.split(".")
    ]
    place = small
    for step in steps:
        place = place[step]
    place[last] = value
    error = refused(small)
    assert error.where == where
    assert what in error.what
    assert cure in error.cure


@pytest.mark.parametrize("name", ["tiers", "hosts", schema.KEY])
def test_what_is_missing_is_named(small, name):
    del small[name]
    error = refused(small)
    assert (error.where, error.what) == (name, "is missing")


@pytest.mark.parametrize("document", [None, [], "x", 3])
def test_a_scenario_is_a_map(document):
    error = refused(document)
    assert error.where == "scenario"
    assert error.what.endswith("is not a map")


TEXTS = [
    # text, where, what
    ("a: [", "line ", ""),
    ("{", "line ", ""),
    ("\x00", "scenario", ""),
    ("a: 1\na: 2", "line 2, column 1", "key 'a' appears twice"),
    ('{"a": 1, "a": 2}', "scenario", "key 'a' appears twice"),
    ("1: x", "scenario", "key 1 is not text"),
    ("tiers: {on: x}", "tiers", "key True is not text"),
    ("a: &x [1]\nb: *x", "", "aliases are not taken"),
    ("a: &x [*x]", "a", "aliases are not taken"),
    ("a: [{b: .nan}]", "a[0].b", "nan is no finite number"),
    ('{"a": NaN}', "a", "nan is no finite number"),
    ('{"a": 1e999}', "a", "inf is no finite number"),
    ('{"a": "\\ud800"}', "a", "is no valid text"),
    ("a: !!python/object:os.system x", "line 1, column 4", "constructor"),
    ("a: !!int x", "scenario", "invalid literal"),
    ("a: " + "9" * 5000, "scenario", "digits"),
    ("[" * 5000, "", ""),
    ('{"a":' * 50000, "", ""),
]


@pytest.mark.parametrize(("source", "where", "what"), TEXTS)
def test_text_that_is_none(source, where, what):
    with pytest.raises(scenario.ScenarioError) as caught:
        scenario.loads(source)
    assert where in caught.value.where
    assert what in caught.value.what
    assert "\n" not in str(caught.value)


def test_a_long_value_is_cut_in_the_message(small):
    small["tiers"] = {"x": "y" * 5000}
    assert len(str(refused(small))) < 400


# The format


def test_the_schema_that_is_published_is_the_one_in_use():
    published = PROJECT / "doc" / "schema" / "scenario-1.json"
    assert json.loads(published.read_text()) == scenario.SCHEMA, (
        "renew it: watcher-cputier scenario schema > "
        "doc/schema/scenario-1.json"
    )


RECORDS = [
    # value, its title in the schema, fields under other names, more keys
    (model.Tier, "tier", {}, set()),
    (model.Host, "host", {}, {"inventories", "traits"}),
    (
        model.Provider,
        "provider",
        {"root_uuid": "root", "parent_uuid": "parent"},
        set(),
    ),
    (model.Inventory, "inventory", {"known_capacity": "capacity"}, set()),
    (model.Flavor, "flavor", {}, set()),
    (model.Instance, "instance", {}, set()),
    (model.Aggregate, "aggregate", {}, set()),
    (model.ServerGroup, "server group", {}, set()),
    (model.Admission, "admission", {}, {"request"}),
    (model.Finding, "finding", {}, set()),
]


@pytest.mark.parametrize(
    ("kind", "title", "names", "more"),
    RECORDS,
    ids=[title for _, title, _, _ in RECORDS],
)
def test_every_field_of_the_model_has_its_key(kind, title, names, more):
    """A field that a scenario forgets would change its plan in silence."""
    fields = {field.name for field in dataclasses.fields(kind)}
    expected = {names.get(name, name) for name in fields} | more
    assert set(object_schema(title)["properties"]) == expected


def test_every_field_of_a_cluster_is_a_part_of_a_scenario():
    fields = {field.name for field in dataclasses.fields(model.Cluster)}
    assert fields <= set(scenario.SCHEMA["properties"])


def object_schema(title, inside=scenario.SCHEMA):
    """The first schema of this title, depth first."""
    if isinstance(inside, list):
        inside = dict(enumerate(inside))
    if not isinstance(inside, dict):
        return None
    if inside.get("title") == title:
        return inside
    for value in inside.values():
        found = object_schema(title, value)
        if found is not None:
            return found
    return None


def test_every_key_is_described():
    def check(where):
        for name, value in where.get("properties", {}).items():
            assert value.get("description"), name
            check(value)
        for inner in (where.get("items"), where.get("additionalProperties")):
            if isinstance(inner, dict):
                check(inner)
        for inner in where.get("anyOf", ()):
            check(inner)

    check(scenario.SCHEMA)


def test_a_keyword_that_the_compiled_check_ignores_is_refused():
    with pytest.raises(KeyError):
        schema.compiled({"type": "string", "maxLength": 3})


# Pseudonyms

SECRET = """
watcher_cputier_scenario: 1
description: secret-story
tiers: [{name: gold}]
hosts:
  - name: secret-host
    uuid: secret-root
    node_name: secret-node.example
    zone: secret-zone
    failure_domain: secret-rack
    disabled_reason: secret-reason
    providers:
      - {name: secret-node.example, uuid: secret-root, aggregates: [secret-a],
         inventories: {VCPU: 4, CUSTOM_VCPU_GOLD: 1}, traits: [CUSTOM_T]}
      - {name: secret-child, uuid: secret-child-id, parent: secret-root}
flavors:
  secret-flavor:
    vcpus: 2
    extra_specs:
      "resources:CUSTOM_VCPU_GOLD": "2"
      "hw:cpu_policy": shared
      "owner": secret-owner
      "aggregate_instance_extra_specs:disk": secret-disk
instances:
  - {name: secret-vm, uuid: secret-uuid, host: secret-host,
     flavor: secret-flavor, project: secret-project, in_doubt: secret-doubt,
     pinned_zone: secret-zone, tied: secret-port,
     different_host: [secret-m], same_host: [secret-n],
     allocations: {secret-root: {VCPU: 2}},
     image_properties: {os_owner: secret-image, hw_cpu_policy: shared}}
aggregates:
  - name: secret-agg
    uuid: secret-a
    hosts: [secret-host]
    zone: secret-zone
    metadata:
      availability_zone: secret-zone
      filter_tenant_id: secret-project, secret-other
      disk: secret-disk
      note: secret-note
      "trait:CUSTOM_T": required
server_groups:
  - {name: secret-group, policy: affinity, members: [secret-uuid, secret-m]}
admissions: [{request: [[resources, "VCPU:2"]], hosts: [secret-root]}]
findings:
  - {kind: odd, subject: secret-vm, text: secret-text}
  - {kind: odd, subject: secret-thing, text: secret-text}
parameters:
  drain_hosts: [secret-host]
  quotas_by_host: {secret-host: {gold: 1}}
"""


def test_pseudonyms_leave_no_name():
    text = scenario.dumps(scenario.pseudonymised(scenario.loads(SECRET)))
    assert "secret" not in text


def test_pseudonyms_are_consistent_and_keep_what_decides():
    found = scenario.pseudonymised(scenario.loads(SECRET))
    cluster = found.cluster
    (host,) = cluster.hosts
    (instance,) = cluster.instances
    (aggregate,) = cluster.aggregates
    root, child = host.providers
    assert host.name == instance.host == "host-0001"
    assert aggregate.hosts == {"host-0001"}
    assert found.parameters["drain_hosts"] == ["host-0001"]
    assert found.parameters["quotas_by_host"] == {"host-0001": {"gold": 1}}
    assert root.name == host.node_name == "host-0002"
    assert root.uuid == host.uuid == child.parent_uuid == child.root_uuid
    assert set(instance.allocations) == {root.uuid}
    assert root.aggregates == {aggregate.uuid}
    assert root.traits == {"CUSTOM_T"}
    assert instance.uuid in cluster.server_groups[0].members
    assert host.zone == instance.pinned_zone == aggregate.zone
    assert host.zone.startswith("zone-")
    assert host.failure_domain.startswith("zone-")
    assert instance.project in aggregate.metadata["filter_tenant_id"]
    assert aggregate.metadata["trait:CUSTOM_T"] == "required"
    assert aggregate.metadata["availability_zone"] == host.zone
    specs = instance.flavor.extra_specs
    assert specs["hw:cpu_policy"] == "shared"
    assert specs[f"resources:{GOLD}"] == "2"
    assert (
        specs["aggregate_instance_extra_specs:disk"]
        == aggregate.metadata["disk"]
    )
    assert instance.image_properties["hw_cpu_policy"] == "shared"
    first, second = cluster.findings
    assert first.subject == instance.name
    assert second.subject.startswith("subject-")
    assert first.text == second.text


def test_pseudonyms_stay_the_same_beside_what_keeps_its_value(small):
    """Kept values and known subjects take no number from others."""
    specs = small["flavors"]["small"]["extra_specs"]
    specs |= {"hw:zzz": "a-first", "hw:aaa": "z-last", "owner": "m-middle"}
    small["findings"] = [
        {"kind": "odd", "subject": subject, "text": "t"}
        for subject in (small["hosts"][0]["name"], "a-thing", "~")
    ]
    once = scenario.pseudonymised(scenario.load(small))
    assert scenario.pseudonymised(once) == once
    subjects = [finding.subject for finding in once.cluster.findings]
    assert subjects[1:] == ["subject-0001", "subject-0002"]


@pytest.mark.parametrize("key", ["\ufeff" * 300, "\u2028" * 499, "\x01" * 200])
def test_keys_that_are_long_as_they_are_written(small, key):
    """YAML looks for a colon within 1024 characters."""
    small["flavors"]["small"]["extra_specs"][key] = "x" * 300
    found = scenario.load(small)
    assert scenario.loads(scenario.dumps(found)) == found


def test_an_expression_over_metadata_keeps_what_it_compares(small):
    """Renamed values would no longer meet ``<in>`` or ``>=``."""
    key = "aggregate_instance_extra_specs:rack"
    small["flavors"]["small"]["extra_specs"][key] = "<in> 7"
    small["aggregates"][0]["metadata"] = {"rack": "17"}
    cluster = scenario.pseudonymised(scenario.load(small)).cluster
    assert cluster.aggregates[0].metadata["rack"] == "17"
    assert cluster.instances[0].flavor.extra_specs[key] == "<in> 7"


# The documentation


def test_the_example_of_the_documentation_has_the_plan_shown(capsys):
    folder = PROJECT / "doc" / "source"
    example = folder / "scenario-example.yaml"
    assert main.main(["plan", "--scenario", str(example)]) == 0
    shown = (folder / "scenario-example.out").read_text()
    assert capsys.readouterr().out == shown
