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


"""Drift, rule by rule: what is found, and what is left in peace."""

import dataclasses
import random

import pytest

from tests import builders as b
from watcher_cputier import lint
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import provider_config

DEFAULTS = parameters.Parameters.of()
SHARES_CLASS = "CUSTOM_VCPU_SHARES"


def flavor(name, vcpus=2, tier=None, **specs):
    """A flavor as Nova would read it, right unless told otherwise."""
    told = {key.replace("__", ":"): str(v) for key, v in specs.items()}
    tier = name.partition(".")[0] if tier is None else tier
    if tier in b.BUILT_IN:
        told.setdefault(f"resources:{b.class_of(tier)}", str(vcpus))
        told.setdefault("quota:cpu_shares", str(b.SHARES[tier] * vcpus))
    return model.Flavor.of(
        name=name,
        vcpus=vcpus,
        memory_mb=1024,
        disk_gb=10,
        extra_specs={k: v for k, v in told.items() if v != "None"},
    )


def host(name="a", **fields):
    return b.host(
        name,
        **{
            "vcpus": model.Inventory(total=16, allocation_ratio=3.0),
            **fields,
        },
    )


def facts(*flavors, hosts=None, **fields):
    offered = tuple(
        one if isinstance(one, lint.Offered) else lint.Offered(flavor=one)
        for one in flavors
    )
    cluster = fields.pop("cluster", None) or b.cluster(hosts or [host()])
    return lint.Facts(cluster=cluster, flavors=offered, **fields)


def found(told, params=DEFAULTS, without=("variant_missing",)):
    return {
        (one.severity, one.kind, one.subject)
        for one in lint.audit(told, params)
        if one.kind not in without
    }


def everything(*sizes):
    return [flavor(f"{t}.{n}", n) for t in b.BUILT_IN for n in sizes]


def test_a_cloud_without_drift():
    told = facts(*everything(1, 2, 4), hosts=[host(), host("b")])
    assert lint.audit(told, DEFAULTS) == ()


def test_every_issue_says_why_and_what_mends_it():
    told = facts(
        flavor("plain.2"),
        flavor("gold.2", quota__cpu_shares=512),
        hosts=[host(gold=None)],
    )
    for one in lint.audit(told, DEFAULTS):
        assert one.why
        assert one.mend
        assert one.severity in lint.SEVERITIES


def test_the_order_is_that_of_severity_and_never_of_the_input():
    flavors = [flavor("plain.2"), flavor("gold.2", quota__cpu_shares=1)]
    flavors += [flavor("plain.1"), flavor("gold.4", quota__cpu_shares=2048)]
    hosts = [host(), host("b", gold=None)]
    first = lint.audit(facts(*flavors, hosts=hosts), DEFAULTS)
    order = [lint.SEVERITIES.index(one.severity) for one in first]
    assert order == sorted(order)
    random.Random(1).shuffle(flavors)
    again = lint.audit(facts(*flavors, hosts=hosts[::-1]), DEFAULTS)
    assert again == first


@pytest.mark.parametrize(
    ("made", "issues"),
    [
        (flavor("plain.2"), {("warning", "untiered_flavor")}),
        (
            flavor("gold.4", 4, resources__CUSTOM_VCPU_GOLD=3),
            {("error", "units_differ_from_vcpus")},
        ),
        (
            flavor("gold.2", resources__CUSTOM_VCPU_SILVER=2),
            {("error", "several_tiers")},
        ),
        (
            flavor("gold.2", quota__cpu_shares=None),
            {("error", "shares_missing")},
        ),
        (flavor("gold.2", quota__cpu_shares=512), {("error", "plain_shares")}),
        # One vCPU with the shares of one vCPU is right.
        (flavor("gold.1", 1, quota__cpu_shares=512), set()),
        (
            flavor("gold.2", quota__cpu_shares=900),
            {("error", "shares_differ")},
        ),
        # A rounding of the same scale.
        (flavor("gold.2", quota__cpu_shares=1020), set()),
        (
            flavor("gold.20", 20),
            {("error", "weight_out_of_range"), ("warning", "fits_nowhere")},
        ),
        (
            flavor("gold.2", quota__cpu_shares="many"),
            {("error", "weight_out_of_range"), ("error", "shares_missing")},
        ),
        (
            flavor("gold.2", quota__cpu_shares_multiplier="1e3"),
            {("error", "weight_out_of_range")},
        ),
        (flavor("gold.2", quota__cpu_shares_multiplier="25.5"), set()),
        (
            flavor("gold.2", tier="silver"),
            {("warning", "name_tells_another_tier")},
        ),
        # A name may tell the tier anywhere, and no tier at all.
        (flavor("m.GOLD-2", tier="gold"), set()),
        (flavor("golden.2", tier="silver"), set()),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_one_flavor(made, issues):
    assert found(facts(made)) == {
        (severity, kind, f"flavor {made.name}") for severity, kind in issues
    }


def test_v1_takes_weights_that_v2_does_not():
    made = flavor("gold.2", quota__cpu_shares=20000)
    kinds = {k for _, k, _ in found(facts(made, cgroup_version=1))}
    assert "weight_out_of_range" not in kinds


def test_the_command_that_mends_a_flavor():
    (one,) = lint.audit(facts(flavor("my flavor")), DEFAULTS)
    assert one.mend.startswith(
        "openstack flavor set --property resources:CUSTOM_VCPU_BRONZE=2 "
        "--property quota:cpu_shares=334 'my flavor'"
    )


def test_a_scale_that_all_share_is_not_mixed():
    """They differ from the configuration, and not from one another."""
    tenth = [
        flavor("gold.2", quota__cpu_shares=102),
        flavor("silver.2", quota__cpu_shares=67),
        flavor("bronze.2", quota__cpu_shares=33),
    ]
    kinds = {kind for _, kind, _ in found(facts(*tenth))}
    assert kinds == {"shares_differ"}
    mixed = facts(*tenth, *everything(4))
    assert ("error", "mixed_scales", "flavors") in found(mixed)


def test_flavors_that_are_gone_and_in_use():
    gone = flavor("gold.9", quota__cpu_shares=512)
    instance = dataclasses.replace(b.instance("x", "a", 2), flavor=gone)
    told = facts(cluster=b.cluster([host()], [instance]))
    assert found(told) == {
        ("error", "plain_shares", "flavor gold.9 (deleted, in use)")
    }


def test_instances_made_before_their_flavor_was_changed():
    old = dataclasses.replace(
        b.instance("x", "a", 2),
        flavor=flavor("gold.2", quota__cpu_shares=512),
    )
    told = facts(flavor("gold.2"), cluster=b.cluster([host()], [old]))
    assert found(told) == {
        ("warning", "instances_of_an_older_flavor", "flavor gold.2")
    }


def test_names_that_placement_does_not_know():
    """R43, R174; a class that is asked for with 0, a forbidden trait: fine."""
    made = flavor(
        "gold.2",
        resources__CUSTOM_A=1,
        resources__VCPU=0,
        resources1__CUSTOM_B=1,
        trait__CUSTOM_T="required",
        trait__CUSTOM_U="forbidden",
    )
    known = frozenset(map(b.class_of, b.BUILT_IN))
    told = facts(made, classes=known, traits=frozenset())
    issues = lint.audit(told, DEFAULTS)
    assert [
        (one.kind, one.why.split(": ")[0])
        for one in issues
        if one.kind.startswith("unknown")
    ] == [
        ("unknown_class", "resources1:CUSTOM_B"),
        ("unknown_class", "resources:CUSTOM_A"),
        ("unknown_trait", "trait:CUSTOM_T"),
    ]
    # Who was not asked does not know.
    assert not {k for _, k, _ in found(facts(made))} & {"unknown_class"}
    lost = facts(classes=known - {"CUSTOM_VCPU_GOLD"})
    assert ("error", "unknown_class", "tier gold") in found(lost)


def test_variants_differ_in_their_tier_alone():
    """R51: memory, disk, swap and other properties."""
    gold, silver, bronze = (
        lint.Offered(flavor=flavor(f"{t}-m"), root_gb=10) for t in b.BUILT_IN
    )
    gold, silver, bronze = (
        lint.Offered(flavor=flavor(f"{t}-m", tier=t), root_gb=10)
        for t in b.BUILT_IN
    )
    assert not found(facts(gold, silver, bronze))
    swapped = dataclasses.replace(silver, swap_mb=64)
    odd = dataclasses.replace(
        bronze, flavor=flavor("bronze-m", tier="bronze", hw__x=1)
    )
    told = facts(gold, swapped, odd)
    assert found(told) == {
        ("warning", "variants_differ", "flavor silver-m"),
        ("warning", "variants_differ", "flavor bronze-m"),
    }
    mends = {one.subject: one.mend for one in lint.audit(told, DEFAULTS)}
    assert mends["flavor bronze-m"] == (
        "openstack flavor unset --property hw:x bronze-m"
    )


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("root_gb", 20, "it has 20 GB of disk, and gold-m has 0"),
        ("ephemeral_gb", 5, "it has 5 GB of ephemeral disk"),
        ("rxtx_factor", 2.0, "it has 2 as rxtx_factor, and gold-m has 1"),
        ("public", False, "it is private, and gold-m is public"),
    ],
)
def test_whatever_a_variant_differs_in_is_told(field, value, told):
    """R51: each thing that a flavor has besides its tier."""
    gold, silver, bronze = (
        lint.Offered(flavor=flavor(f"{t}-m", tier=t)) for t in b.BUILT_IN
    )
    other = dataclasses.replace(bronze, **{field: value})
    (one,) = lint.audit(facts(gold, silver, other), DEFAULTS)
    assert (one.kind, one.subject) == ("variants_differ", "flavor bronze-m")
    assert one.why.startswith(told)


@pytest.mark.parametrize(
    ("name", "description", "wrong"),
    [
        ("gold.2", "", False),
        ("silver.2", "", True),
        ("m1.2", "", False),
        ("m1.2", "Our SILVER service", True),
        ("m1.2", "not as golden as Gold", False),
        ("gold.2", "half the price of bronze", True),
    ],
)
def test_what_a_flavor_says_of_its_tier(name, description, wrong):
    """R50: its name, or its description."""
    made = lint.Offered(
        flavor=flavor(name, tier="gold"), description=description
    )
    told = found(facts(made))
    assert told == (
        {("warning", "name_tells_another_tier", f"flavor {name}")}
        if wrong
        else set()
    )


def test_a_variant_that_is_missing_is_told():
    (one,) = lint.audit(facts(flavor("gold.2"), flavor("bronze.2")), DEFAULTS)
    assert (one.severity, one.kind, one.subject) == (
        "info",
        "variant_missing",
        "size *.2",
    )
    assert "--tier silver --vcpus 2 --ram 1024" in one.mend


# Hosts


@pytest.mark.parametrize(
    ("fields", "issues"),
    [
        ({"gold": None}, {("error", "inventory_missing")}),
        ({"gold": 17}, {("warning", "units_differ_from_cpus")}),
        ({"gold": 15}, {("info", "units_differ_from_cpus")}),
        (
            {"gold": model.Inventory(total=16, allocation_ratio=2.0)},
            {("warning", "tier_ratio")},
        ),
        ({"vcpus": model.Inventory(total=16, allocation_ratio=16.0)}, set()),
        ({"vcpus": model.Inventory(total=16)}, set()),
        # A drain changes nothing that is sold.
        ({"gold": model.Inventory(total=16, reserved=16)}, set()),
    ],
)
def test_one_host(fields, issues):
    told = found(facts(hosts=[host("a", **fields), host("b")]))
    assert {i for i in told if i[1] != "vcpu_ratio"} == {
        (severity, kind, "host a") for severity, kind in issues
    }


@pytest.mark.parametrize(
    ("ratio", "wrong"),
    [(3.0, None), (2.0, "runs out"), (16.0, "208 are open")],
)
def test_vcpu_against_the_sum_of_the_tiers(ratio, wrong):
    """R23: three tiers of 16 units on 16 CPUs are a ratio of 3.0."""
    vcpus = model.Inventory(total=16, allocation_ratio=ratio)
    found_issues = lint.audit(
        facts(*everything(2), hosts=[host(vcpus=vcpus)]), DEFAULTS
    )
    if wrong is None:
        assert found_issues == ()
        return
    (one,) = found_issues
    assert one.kind == "vcpu_ratio"
    assert wrong in one.why
    assert one.mend.startswith("[DEFAULT] cpu_allocation_ratio = 3 ")


def test_hosts_whose_tiers_are_on_nodes_of_their_memory():
    """R169: totals of one class add up over the tree."""
    halves = {b.class_of(tier): 8 for tier in b.BUILT_IN}
    nodes = [b.provider(f"a_{n}", halves, root="a") for n in range(2)]
    one = host(gold=None, silver=None, bronze=None, children=nodes)
    assert not found(facts(hosts=[one]))
    lost = host(gold=None, silver=None, bronze=None, children=nodes[:1])
    assert {kind for _, kind, _ in found(facts(hosts=[lost]))} == {
        "units_differ_from_cpus",
        "vcpu_ratio",
    }


def test_flavors_that_take_no_vcpu_do_not_care_for_its_ratio():
    """R24: resources:VCPU=0 is supported."""
    flavors = [flavor(f"{t}.2", resources__VCPU=0) for t in b.BUILT_IN]
    vcpus = model.Inventory(total=16, allocation_ratio=16.0)
    assert not found(facts(*flavors, hosts=[host(vcpus=vcpus)]))


def single(*hosts):
    tiers = tuple(
        dataclasses.replace(tier, resource_class=SHARES_CLASS)
        for tier in b.BUILT_IN_TIERS
    )
    return model.Cluster(
        tiers=tiers,
        hosts=tuple(
            b.host(
                name,
                gold=None,
                silver=None,
                bronze=None,
                vcpus=16,
                more={SHARES_CLASS: total},
            )
            for name, total in hosts
        ),
        tier_classes=frozenset({SHARES_CLASS}),
        shares_class=SHARES_CLASS,
    )


def test_capacities_of_the_one_class():
    """R33: as many units for each CPU everywhere."""
    cloud = single(("a", 1600), ("b", 1600), ("c", 800))
    assert found(facts(cluster=cloud)) == {
        ("warning", "shares_capacity_differs", "host c")
    }


@pytest.mark.parametrize(
    ("units", "kind"), [(200, None), (120, "unknown_multiplier")]
)
def test_units_of_the_one_class(units, kind):
    made = flavor(
        "x",
        **{f"resources__{SHARES_CLASS}": units, "quota__cpu_shares": 1024},
    )
    told = found(facts(made, cluster=single(("a", 1600))))
    assert {k for _, k, _ in told} == ({kind} if kind else set())


def test_units_of_the_one_class_that_are_rounded():
    """R53: 12.5 for each vCPU are a whole number for two of them alone."""
    cloud = single(("a", 1600))
    cloud = dataclasses.replace(
        cloud,
        tiers=tuple(
            dataclasses.replace(t, multiplier=12.5)
            if t.name == "bronze"
            else t
            for t in cloud.tiers
        ),
    )
    told = {
        one.subject: one
        for one in lint.audit(
            facts(
                *(
                    flavor(
                        f"bronze.{vcpus}",
                        vcpus,
                        tier="",
                        **{
                            f"resources__{SHARES_CLASS}": units,
                            "quota__cpu_shares": 167 * vcpus,
                        },
                    )
                    for vcpus, units in ((1, 13), (2, 25), (3, 38))
                ),
                cluster=cloud,
            ),
            DEFAULTS,
        )
        if one.kind == "fractional_units"
    }
    assert set(told) == {"flavor bronze.1", "flavor bronze.3"}
    assert "1 vCPUs of bronze are 12.5 units, and it requests 13" in (
        told["flavor bronze.1"].why
    )


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"reports_shares": True, "requests_shares": True}, None),
        (
            {"reports_shares": True, "requests_shares": False},
            "shares_half_enabled",
        ),
        ({"reports_shares": False}, "shares_turned_off"),
        ({}, None),
    ],
)
def test_options_by_halves(options, kind):
    """R35, R38; what nobody told is no contradiction."""
    told = facts(cluster=single(("a", 1600)), nova=lint.NovaOptions(**options))
    assert {k for _, k, _ in found(told)} == ({kind} if kind else set())


def test_a_shared_set_of_another_size():
    told = facts(
        hosts=[host(), host("b")], nova=lint.NovaOptions(shared_cpus=16)
    )
    assert not found(told)
    told = facts(hosts=[host()], nova=lint.NovaOptions(shared_cpus=15))
    assert found(told) == {("warning", "cpu_shared_set_differs", "host a")}


def test_files_that_differ():
    one = provider_config.Difference(
        host="a",
        source="f.yaml",
        what="CUSTOM_X total",
        told="8",
        shown="7",
        mend="Restart",
    )
    (issue,) = lint.audit(facts(differences=(one,)), DEFAULTS)
    assert (issue.kind, issue.why) == (
        "provider_config_differs",
        "CUSTOM_X total: f.yaml says 8, Placement shows 7",
    )


# Limits, findings


@pytest.mark.parametrize(
    ("nova", "asked", "queues"),
    [(1, 1, False), (1, 2, True), (0, 9, False), (None, 9, False)],
)
def test_limits_of_nova(nova, asked, queues):
    """0 is no limit, and None is nobody's word."""
    told = facts(nova=lint.NovaOptions(live_migrations=nova))
    params = parameters.Parameters.of(
        {"parallel_per_source": asked, "parallel_total": 9}
    )
    assert bool(found(told, params)) == queues


def test_limits_of_an_audit_that_are_never_reached():
    params = parameters.Parameters.of(
        {"parallel_per_source": 3, "parallel_per_target": 2}
    )
    assert found(facts(), params) == {
        ("info", "limits_contradict", "audit parameters")
    }
    (one,) = lint.audit(facts(), params)
    assert (
        one.mend == "Raise parallel_total to 3, or lower parallel_per_source"
    )


def test_limits_of_the_applier():
    params = parameters.Parameters.of({"parallel_total": 4})
    assert found(facts(workers=2), params) == {
        ("warning", "few_workers", "watcher.conf")
    }
    assert not found(facts(workers=4), params)


def test_what_the_reader_found_is_told():
    """R170: its severity, and what mends it apart from what is wrong."""
    cloud = dataclasses.replace(
        b.cluster([host()]),
        findings=(
            model.Finding(
                kind="orphan_allocation",
                subject="x",
                text="Consumer x holds allocations. Mend with `y`.",
            ),
            model.Finding(
                kind="something_new", subject="z", text="Odd, and no more."
            ),
        ),
    )
    orphan, new = lint.audit(facts(cluster=cloud, unjudged=""), DEFAULTS)
    assert (orphan.severity, orphan.why, orphan.mend) == (
        "error",
        "Consumer x holds allocations",
        "Mend with `y`",
    )
    assert (new.severity, new.why, new.mend) == (
        "warning",
        "Odd, and no more",
        "",
    )


def test_a_cloud_that_cannot_be_judged():
    (one,) = lint.audit(facts(unjudged="no inventory"), DEFAULTS)
    assert (one.severity, one.kind) == ("error", "not_judged")
