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

"""Law L9 of the design, section 6, and the laws of scenario files.

L9 "Round trip: load(dump(snapshot)) == snapshot; a plan replayed from its
dump is the same plan."
"""

import dataclasses
import json
import random
from typing import Any

from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import jsonschema
import yaml

from tests import builders
from tests.property import clouds
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import scenario
from watcher_cputier.scenario import schema
from watcher_cputier.scenario import text

# Everything that YAML and JSON could trip over, numbers and words of theirs
# among it.
TRAPS = [
    "null Yes ~ 1e3 0x1f 012 1:30 2026-01-01 .nan # { = << y *a &a !b % @",
    *"'\"# \u2028\x85\ufeff\x00\uffff",
    *(
        "- a",
        "a: b",
        "*a",
        "&a",
        "!b",
        "<<",
        "y",
        "Yes",
        "null",
        "012",
        "1:30",
    ),
    *("1e3", "0x1f", "2026-01-01", ".nan", "~", "@", "%", "="),
]
TEXT = st.text(max_size=12) | st.sampled_from(TRAPS)
NAME = TEXT.filter(bool)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
UUID = st.uuids().map(str)
AMOUNTS = st.dictionaries(NAME, st.integers(0, 2**40), max_size=3)


@st.composite
def inventories(draw: st.DrawFn) -> model.Inventory:
    if draw(st.booleans()):
        return model.Inventory(known_capacity=draw(st.integers(0, 99)))
    return model.Inventory(
        total=draw(st.integers(0, 2**31)),
        reserved=draw(st.integers(0, 99)),
        allocation_ratio=draw(st.floats(0, 1e9)),
        min_unit=draw(st.integers(0, 5)),
        max_unit=draw(st.integers(0, 2**31)),
        step_size=draw(st.integers(1, 9)),
    )


@st.composite
def flavors(draw: st.DrawFn) -> model.Flavor:
    made = model.Flavor.of(
        name=draw(TEXT),
        vcpus=draw(st.integers(0, 99)),
        memory_mb=draw(st.integers(0, 99999)),
        disk_gb=draw(st.integers(0, 99)),
        extra_specs=draw(TEXTS),
    )
    if draw(st.booleans()):
        return made
    suffixes = sorted(draw(st.sets(TEXT, max_size=2)))
    return dataclasses.replace(
        made,
        groups=tuple(
            builders.group(
                draw(AMOUNTS),
                suffix=suffix,
                required=draw(st.sets(NAME, max_size=2)),
                forbidden=draw(st.sets(NAME, max_size=2)),
            )
            for suffix in suffixes
        ),
    )


@st.composite
def telemetry(draw: st.DrawFn, uuids: list[str]) -> model.Telemetry | None:
    if draw(st.booleans()):
        return None
    first, length = draw(st.integers(0, 2**31)), draw(st.integers(60, 600))
    count = draw(st.integers(1, 3))
    cpus = st.floats(0, 64, allow_nan=False)
    reading = st.builds(model.Reading, usage_cpus=cpus, steal_cpus=cpus)
    return model.Telemetry(
        source=draw(NAME),
        window_seconds=length,
        windows=tuple(first + length * n for n in range(count)),
        readings=model.frozen_map(
            {
                uuid: tuple(draw(st.none() | reading) for _ in range(count))
                for uuid in uuids
                if draw(st.booleans())
            }
        ),
        rejected=model.frozen_map(draw(AMOUNTS)),
    )


@st.composite
def changes(draw: st.DrawFn, uuids: list[str]) -> tuple[model.Change, ...]:
    found = st.builds(
        model.Change,
        instance=st.sampled_from(uuids),
        kind=NAME,
        began_at=st.integers(0, 9),
        ended_at=st.none() | st.integers(0, 9),
        moved=st.booleans(),
        source=st.sampled_from(["", "h0", "gone"]),
        target=st.sampled_from(["", "h1", "elsewhere"]),
    )
    return tuple(
        sorted(draw(st.sets(found, max_size=3)), key=model.Change.order)
    )


@st.composite
def dressed(draw: st.DrawFn) -> scenario.Scenario:
    """A cloud as the planner's laws have it, with everything else that a
    cluster may hold on top.
    """
    case = draw(clouds.cases())
    cloud = case.cloud
    storage = model.Provider(
        uuid="storage",
        name=draw(NAME),
        root_uuid=draw(st.sampled_from(["storage", "elsewhere"])),
        inventories=model.frozen_map({draw(NAME): draw(inventories())}),
        allocated=model.frozen_map(draw(AMOUNTS)),
        traits=draw(st.frozensets(NAME, max_size=2)),
    )
    kinds = draw(st.lists(flavors(), min_size=1, max_size=3))
    uuids = [instance.uuid for instance in cloud.instances]
    return scenario.Scenario(
        cluster=dataclasses.replace(
            cloud,
            shares_rule=model.SharesRule(
                unset=draw(st.sampled_from([100, 1024])),
                multiplied=draw(st.booleans()),
            ),
            telemetry=draw(telemetry(uuids)),
            changes=draw(changes(uuids)),
            taken_at=draw(st.none() | st.integers(0, 2**31)),
            hosts=tuple(
                dataclasses.replace(
                    host,
                    node_name=draw(NAME),
                    zone=draw(TEXT),
                    failure_domain=draw(TEXT),
                    disabled_reason=draw(TEXT),
                    shared=(storage,) if draw(st.booleans()) else (),
                    hypervisor_type=draw(TEXT),
                    hypervisor_version=draw(st.none() | st.integers(0, 9)),
                    vcpus=draw(st.none() | st.integers(0, 9)),
                )
                for host in cloud.hosts
            ),
            instances=tuple(
                dataclasses.replace(
                    instance,
                    flavor=draw(st.sampled_from([instance.flavor, *kinds])),
                    project=draw(TEXT),
                    status=draw(NAME),
                    task_state=draw(st.none() | TEXT),
                    host=draw(st.sampled_from([instance.host, "gone"])),
                    allocations=model.frozen_map(
                        draw(st.dictionaries(NAME, AMOUNTS, max_size=2))
                    ),
                    image_properties=model.frozen_map(draw(TEXTS)),
                    pinned_zone=draw(st.none() | TEXT),
                    in_doubt=draw(TEXT),
                    different_host=draw(st.frozensets(NAME, max_size=2)),
                    same_host=draw(st.frozensets(NAME, max_size=2)),
                    tied=draw(TEXT),
                )
                for instance in cloud.instances
            ),
            aggregates=tuple(
                model.Aggregate(
                    uuid=f"agg{number}",
                    name=f"agg{number}",
                    hosts=draw(st.frozensets(NAME, max_size=2)),
                    metadata=model.frozen_map(draw(TEXTS)),
                    zone=draw(st.none() | TEXT),
                )
                for number in range(draw(st.integers(0, 2)))
            ),
            admissions=model.frozen_map(
                {
                    tuple(sorted(draw(TEXTS).items())): model.Admission(
                        hosts=draw(st.frozensets(NAME, max_size=2)),
                        refused=draw(st.frozensets(NAME, max_size=2)),
                        complete=draw(st.booleans()),
                    )
                    for _ in range(draw(st.integers(0, 2)))
                }
            ),
            findings=tuple(
                model.Finding(
                    kind=draw(NAME), subject=draw(TEXT), text=draw(TEXT)
                )
                for _ in range(draw(st.integers(0, 2)))
            ),
        ),
        parameters={
            "max_migrations": draw(st.integers(0, 9)),
            "weigher_multiplier": draw(st.floats(0, 1e6)),
            "drain_hosts": sorted(
                draw(st.sets(st.text("h0123", min_size=1), max_size=2))
            ),
        },
        description=draw(TEXT),
    )


def plan_of(found: scenario.Scenario) -> planner.Plan:
    params = parameters.Parameters.of(found.parameters)
    verdict = diagnosing.diagnose(found.cluster, params)
    return planner.plan(found.cluster, verdict, params)


@given(dressed())
@settings(max_examples=30)
def test_l9_round_trip(found: scenario.Scenario) -> None:
    """L9 "load(dump(snapshot)) == snapshot", as data, YAML and JSON; and
    the same bytes again.
    """
    document = scenario.dump(found)
    jsonschema.Draft4Validator(scenario.SCHEMA).validate(document)
    assert scenario.load(document) == found
    written = scenario.dumps(found)
    assert yaml.safe_load(written) == document
    again = scenario.loads(written)
    assert again == found
    assert scenario.dumps(again) == written
    assert scenario.loads(json.dumps(document)) == found


@given(clouds.cases())
def test_l9_a_plan_replayed_from_its_dump_is_the_same(
    case: clouds.Case,
) -> None:
    """L9 "a plan replayed from its dump is the same plan"."""
    found = scenario.Scenario(cluster=case.cloud, parameters=case.params)
    again = scenario.loads(scenario.dumps(found))
    assert again == found
    assert plan_of(again) == plan_of(found)


@given(dressed(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_equal_scenarios_have_equal_bytes(
    found: scenario.Scenario, chance: random.Random
) -> None:
    """Whatever order maps were filled in."""

    def turned(value: Any) -> Any:
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(
                value,
                **{
                    field.name: turned(getattr(value, field.name))
                    for field in dataclasses.fields(value)
                },
            )
        if isinstance(value, tuple):
            return tuple(map(turned, value))
        if hasattr(value, "keys"):
            items = list(value.items())
            chance.shuffle(items)
            return {key: turned(item) for key, item in items}
        return value

    again = turned(found)
    assert again == found
    assert scenario.dumps(again) == scenario.dumps(found)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(JSON)
def test_what_is_written_reads_back(value: Any) -> None:
    """Any plain data, not scenarios alone; as any reader of YAML has it."""
    written = text.render({"value": value})
    assert yaml.safe_load(written) == {"value": value}


@given(st.text())
def test_any_text_is_read_or_refused(source: str) -> None:
    """A ScenarioError is all that a file can bring about."""
    try:
        scenario.loads(source)
    except scenario.ScenarioError as exc:
        assert exc.where
        assert exc.what


@given(dressed(), st.randoms(use_true_random=False), JSON)
@settings(max_examples=40)
def test_a_spoilt_scenario_is_refused_at_the_spoilt_place(
    found: scenario.Scenario, chance: random.Random, value: Any
) -> None:
    """Whatever replaces whatever: it has a plan, or one error says where;
    the compiled check agrees with jsonschema.
    """
    document = json.loads(json.dumps(scenario.dump(found)))
    # Hosts to drain are made up, and would end every plan.
    del document["parameters"]["drain_hosts"]
    place: Any = document
    while True:
        key = chance.choice(
            list(place) if isinstance(place, dict) else range(len(place))
        )
        inner = place[key]
        if isinstance(inner, dict | list) and inner and chance.random() < 0.8:
            place = inner
            continue
        if isinstance(place, dict) and chance.random() < 0.3:
            del place[key]
        else:
            place[key] = value
        break
    accepted = schema.compiled(scenario.SCHEMA)(document)
    assert accepted == jsonschema.Draft4Validator(scenario.SCHEMA).is_valid(
        document
    )
    try:
        plan_of(scenario.load(document))
    except errors.TierError as exc:
        assert exc.where
        assert "\n" not in str(exc)


def names_of(found: scenario.Scenario) -> dict[str, str]:
    """What there is to rename, in a stable order; hosts and instances."""
    cluster = found.cluster
    return {
        **{host.name: f"{i}h" for i, host in enumerate(cluster.hosts)},
        **{i.uuid: f"{n}i" for n, i in enumerate(cluster.instances)},
    }


def outline(found: scenario.Scenario) -> list[Any]:
    """A plan up to the names of hosts and instances."""
    plan, names = plan_of(found), names_of(found)
    return [
        [
            (
                names[m.instance.uuid], names[m.source], names[m.target],
                m.tier, m.units, m.relief, m.weight.value,
            )
            for m in (*plan.migrations, *plan.deferred)
        ],
        len(plan.migrations),
        plan.lower_bound,
        [
            (
                names[item.host], item.tier, item.units, item.instances,
                [
                    (
                        names[r.instance.uuid],
                        r.rejection and r.rejection.rule,
                        [
                            (names[host], r.targets[host].rule)
                            for host in sorted(r.targets)
                        ],
                    )
                    for r in item.refusals
                ],
            )
            for item in plan.unresolved
        ],
    ]  # fmt: skip


@st.composite
def named(draw: st.DrawFn) -> scenario.Scenario:
    """A cloud with aggregates, tenants and zones that decide something."""
    case = draw(clouds.cases())
    asked = draw(st.sampled_from(["ssd", "<in> ss", ">= 2", "7"]))
    offered = draw(st.sampled_from(["ssd", "hdd,ssd", "7", "x"]))
    spec = {"aggregate_instance_extra_specs:disk": asked}
    cloud = dataclasses.replace(
        case.cloud,
        hosts=tuple(
            dataclasses.replace(h, disabled_reason=draw(TEXT))
            for h in case.cloud.hosts
        ),
        instances=tuple(
            dataclasses.replace(
                i,
                project=draw(st.sampled_from(["", "acme", "globex"])),
                in_doubt="text of doubt" if clouds.rarely(draw) else "",
                flavor=dataclasses.replace(
                    i.flavor, extra_specs=model.frozen_map(spec)
                )
                if clouds.rarely(draw)
                else i.flavor,
            )
            for i in case.cloud.instances
        ),
        aggregates=(
            builders.aggregate(
                "agg-1",
                draw(st.sets(st.sampled_from(["h0", "h1", "h2"]))),
                {"disk": offered, "availability_zone": "az1"},
            ),
            builders.aggregate(
                "agg-2",
                ["h1"] if draw(st.booleans()) else [],
                {"filter_tenant_id": "acme, initech", "trait:T": "required"},
            ),
        ),
    )
    return scenario.Scenario(
        cluster=cloud,
        parameters={
            **case.params,
            "max_migrations": draw(st.integers(0, 3)),
            "quotas_by_host": {"h1": {case.cloud.tiers[0].name: "50%"}}
            if draw(st.booleans())
            else {},
        },
    )


@given(named())
@settings(max_examples=40)
def test_pseudonyms_change_the_plan_in_names_only(
    found: scenario.Scenario,
) -> None:
    """Ties break by name, so pseudonyms sort as the names do."""
    renamed = scenario.pseudonymised(found)
    assert outline(renamed) == outline(found)
    assert scenario.loads(scenario.dumps(renamed)) == renamed
    before, after = plan_of(found), plan_of(renamed)
    params = parameters.Parameters.of(found.parameters)
    assert report.summary(
        found.cluster, diagnosing.diagnose(found.cluster, params), before
    ) == report.summary(
        renamed.cluster,
        diagnosing.diagnose(
            renamed.cluster, parameters.Parameters.of(renamed.parameters)
        ),
        after,
    )


@given(dressed())
@settings(max_examples=30)
def test_pseudonyms_of_pseudonyms_are_the_same(
    found: scenario.Scenario,
) -> None:
    once = scenario.pseudonymised(found)
    assert scenario.loads(scenario.dumps(once)) == once
    assert scenario.pseudonymised(once) == once
