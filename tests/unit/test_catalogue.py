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


"""The variants of a size, and the weights that the kernel takes."""

import dataclasses

import pytest

from tests import builders as b
from watcher_cputier import catalogue
from watcher_cputier import errors


def size(vcpus=2, **fields):
    return catalogue.Size(
        name="m", vcpus=vcpus, memory_mb=1024, disk_gb=10, **fields
    )


def test_a_variant_for_each_tier():
    gold, silver, bronze = catalogue.variants(size(4), b.tiers())
    assert [one.name for one in (gold, silver, bronze)] == [
        "gold.m",
        "silver.m",
        "bronze.m",
    ]
    assert gold.extra_specs == {
        "resources:CUSTOM_VCPU_GOLD": "4",
        "quota:cpu_shares": "2048",
    }
    assert bronze.extra_specs["quota:cpu_shares"] == "668"


def test_other_properties_are_the_same_for_all():
    made = catalogue.variants(
        size(extra_specs={"hw:x": "1"}, counts_vcpus=False), b.tiers()
    )
    assert {one.extra_specs["hw:x"] for one in made} == {"1"}
    assert {one.extra_specs["resources:VCPU"] for one in made} == {"0"}


def test_units_of_a_single_class():
    made = catalogue.variants(size(3), b.tiers(), shares_class="CUSTOM_S")
    assert [one.extra_specs["resources:CUSTOM_S"] for one in made] == [
        "300",
        "150",
        "75",
    ]


def test_fractional_units_are_refused_and_fractional_multipliers_not():
    """R53: 12.5 for two vCPUs is 25; for one there is no half a unit."""
    (tier,) = b.tiers("gold")
    half = dataclasses.replace(tier, multiplier=12.5)
    (made,) = catalogue.variants(size(2), [half], shares_class="CUSTOM_S")
    assert made.extra_specs["resources:CUSTOM_S"] == "25"
    with pytest.raises(errors.ParameterError, match=r"12\.5 units"):
        catalogue.variants(size(1), [half], shares_class="CUSTOM_S")


@pytest.mark.parametrize(
    ("scheme", "wrong"),
    [
        ("{size}", "names several flavors alike"),
        ("{flavor}.{tier}", "unknown fields"),
        ("{tier", "expected"),
        ("{}", "unknown fields"),
        ("{tier.name}", "unknown fields"),
    ],
)
def test_names_that_cannot_be(scheme, wrong):
    with pytest.raises(errors.ParameterError, match=wrong):
        catalogue.variants(size(), b.tiers(), scheme=scheme)


def test_a_scheme_of_ones_own():
    made = catalogue.variants(size(), b.tiers(), scheme="x1-{size}_{tier}")
    assert made[1].name == "x1-m_silver"


@pytest.mark.parametrize(("vcpus", "fits"), [(19, True), (20, False)])
def test_512_a_vcpu_ends_at_19_on_v2(vcpus, fits):
    """R14: 512 x 19 = 9728, and libvirt refuses more than 10 000."""
    if fits:
        assert catalogue.variants(size(vcpus), b.tiers())
        return
    with pytest.raises(errors.ParameterError, match="10240") as caught:
        catalogue.variants(size(vcpus), b.tiers())
    assert "cpu_shares = 256" in str(caught.value)
    assert catalogue.variants(size(vcpus), b.tiers(), cgroup_version=1)


@pytest.mark.parametrize(
    ("vcpus", "divisor"),
    [(20, 2), (39, 2), (40, 5), (98, 5), (99, 10), (196, 10), (197, 20)],
)
def test_the_scale_that_is_proposed_does(vcpus, divisor):
    tiers = b.tiers()
    found = catalogue.scale_down(vcpus, tiers, 10000)
    assert found == divisor
    scaled = [
        dataclasses.replace(t, cpu_shares=round(t.cpu_shares / found + 1e-9))
        for t in tiers
    ]
    catalogue.check_weights(vcpus, scaled, 2)


def test_no_scale_where_tiers_would_be_alike():
    near = [
        dataclasses.replace(tier, cpu_shares=500 + place)
        for place, tier in enumerate(b.tiers())
    ]
    assert catalogue.scale_down(64, near, 10000) is None
    with pytest.raises(errors.ParameterError, match="fewer vCPUs"):
        catalogue.check_weights(64, near, 2)


def test_a_weight_of_nothing_is_refused():
    (tier,) = b.tiers("gold")
    tiny = dataclasses.replace(tier, cpu_shares=1)
    with pytest.raises(errors.ParameterError, match="2 at least"):
        catalogue.check_weights(1, [tiny], 1)
