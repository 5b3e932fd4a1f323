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

"""The weigher: the specification's example, its edges and its laws."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
import pytest

from tests import builders
from watcher_cputier import weigher


def summary(
    resources: dict[str, tuple[int, int]],
    traits: tuple[str, ...] = (),
    root: str | None = "a",
    parent: str | None = None,
) -> dict[str, Any]:
    """One provider as Placement words it; resources: (capacity, used)."""
    return {
        "resources": {
            name: {"capacity": capacity, "used": used}
            for name, (capacity, used) in resources.items()
        },
        "traits": list(traits),
        "parent_provider_uuid": parent,
        "root_provider_uuid": root,
    }


def weigh_one(
    resources: dict[str, tuple[int, int]],
    asked: dict[str, int],
    traits: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
    **options: Any,
) -> weigher.Weight:
    """The weight of one provider that is its own root, ``a``."""
    found = weigher.weigh(
        {"a": summary(resources, traits)}, asked, required, **options
    )
    assert list(found) == ["a"]
    return found["a"]


EXAMPLE: dict[str, Any] = {
    "resources": {"VCPU": (8, 4)},
    "asked": {"VCPU": 2},
    "traits": ("SSD", "HW_CPU_X86_AVX2"),
    "required": ("SSD",),
}


def test_the_specifications_example_scores_one_half() -> None:
    """2 VCPU and SSD on 4 free VCPU, SSD and AVX2: exactly 0.5."""
    found = weigh_one(**EXAMPLE)
    assert found.resource_score == 0.5
    assert found.trait_score == 0.5
    assert found.value == 0.5


@pytest.mark.parametrize(
    ("factor", "value"), [(0, 0.0), (0.5, 0.25), (1.0, 0.5), (3, 1.5)]
)
def test_the_multiplier_scales_the_weight(factor: float, value: float) -> None:
    found = weigh_one(**EXAMPLE, multiplier=factor)
    assert found.value == value
    assert found.multiplier == factor


CASES = {
    "nothing asked for, all free": ({"VCPU": (4, 0)}, {}, 1.0),
    "all that is free": ({"VCPU": (4, 2)}, {"VCPU": 2}, 0.0),
    "an exhausted class scores nothing": ({"VCPU": (4, 4)}, {}, 0.0),
    "a class over its capacity scores nothing": ({"VCPU": (4, 6)}, {}, 0.0),
    "an exhausted class counts in the mean": (
        {"MEMORY_MB": (4, 4), "VCPU": (4, 0)},
        {"VCPU": 2},
        0.25,
    ),
    "an unrequested class counts with one": (
        {"CUSTOM_VCPU_GOLD": (8, 0), "VGPU": (2, 1)},
        {"CUSTOM_VCPU_GOLD": 4},
        0.75,
    ),
    "a class that the tree lacks does not count": (
        {"VCPU": (4, 0)},
        {"VCPU": 2, "VGPU": 1},
        0.5,
    ),
    "no class": ({}, {"VCPU": 2}, 0.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_resource_score_is_the_mean_over_the_classes(case: str) -> None:
    resources, asked, expected = CASES[case]
    assert weigh_one(resources, asked).resource_score == expected


def test_the_mean_follows_the_prose_and_not_the_pseudocode() -> None:
    """R65: without an exhausted class there is a score all the same."""
    classes = {"MEMORY_MB": (8, 0), "VCPU": (8, 4)}
    found = weigh_one(classes, {"MEMORY_MB": 2, "VCPU": 3})
    assert [t.ratio for t in found.terms] == [0.75, 0.25]
    assert found.resource_score == 0.5


TRAITS = {
    "none anywhere": ((), (), 0.0),
    "asked for, the tree has none": ((), ("SSD",), 0.0),
    "not asked for": (("SSD",), (), 0.0),
    "all asked for": (("AVX", "SSD"), ("AVX", "SSD"), 1.0),
    "one of four": (("A", "B", "C", "D"), ("A", "X"), 0.25),
}


@pytest.mark.parametrize("case", TRAITS)
def test_the_trait_score_is_the_share_that_was_asked_for(case: str) -> None:
    available, required, expected = TRAITS[case]
    found = weigh_one({}, {}, available, required)
    assert found.trait_score == expected
    assert found.resource_score == 0.0


def test_only_allowed_classes_count() -> None:
    classes = {"CUSTOM_VCPU_GOLD": (8, 0), "VGPU": (2, 0)}
    asked = {"CUSTOM_VCPU_GOLD": 6}
    found = weigh_one(
        classes, asked, resource_classes=["CUSTOM_VCPU_GOLD", "VCPU"]
    )
    assert [t.resource_class for t in found.terms] == ["CUSTOM_VCPU_GOLD"]
    assert found.resource_score == 0.25
    assert weigh_one(classes, asked, resource_classes=[]).terms == ()


def test_only_allowed_traits_count() -> None:
    found = weigh_one(
        {}, {}, ("A", "B", "C"), ("A", "C"), trait_names=["A", "B"]
    )
    assert found.matched_traits == ("A",)
    assert found.available_traits == ("A", "B")
    assert found.trait_score == 0.5


def test_allow_lists_may_be_read_once_only() -> None:
    """Every tree is judged by the same lists, iterators included."""
    summaries = {
        "a": summary({"VCPU": (4, 0)}, ("SSD",), "a"),
        "b": summary({"VCPU": (4, 0)}, ("SSD",), "b"),
    }
    found = weigher.weigh(
        summaries,
        {"VCPU": 2},
        iter(["SSD"]),
        resource_classes=iter(["VCPU"]),
        trait_names=iter(["SSD"]),
    )
    assert {w.value for w in found.values()} == {0.75}


def test_a_tree_is_summed_and_its_traits_united() -> None:
    """One tree of root and two NUMA nodes, and another root::

    a (VCPU 4/0, trait SSD)
      +-- n1 (LLC 4/2, trait RDT)
      +-- n2 (LLC 4/2, trait RDT)
    b (VCPU 4/0)
    """
    summaries = {
        "n1": summary({"LLC": (4, 2)}, ("RDT",), "a", "a"),
        "a": summary({"VCPU": (4, 0)}, ("SSD",), "a"),
        "b": summary({"VCPU": (4, 0)}, (), "b"),
        "n2": summary({"LLC": (4, 2)}, ("RDT",), "a", "a"),
    }
    found = weigher.weigh(summaries, {"LLC": 3, "VCPU": 2}, ["RDT"])
    assert list(found) == ["a", "b"]
    assert [(t.resource_class, t.free) for t in found["a"].terms] == [
        ("LLC", 4),
        ("VCPU", 4),
    ]
    assert found["a"].available_traits == ("RDT", "SSD")
    assert found["a"].value == ((0.25 + 0.5) / 2 + 0.5) / 2
    assert found["b"].value == 0.25


def test_a_provider_without_its_root_forms_a_tree_of_its_own() -> None:
    """Two children of a root that is not there stay apart."""
    summaries = {
        "b": summary({"VCPU": (4, 0)}, (), "b"),
        "c1": summary({"VCPU": (4, 2)}, (), "gone", "gone"),
        "c2": summary({"VCPU": (4, 3)}, (), "gone", "gone"),
    }
    found = weigher.weigh(summaries, {"VCPU": 1})
    assert {u: w.root_known for u, w in found.items()} == {
        "b": True,
        "c1": False,
        "c2": False,
    }
    assert found["c1"].resource_score == 0.5
    assert found["c2"].resource_score == 0.0


def test_a_provider_that_names_no_root_stands_for_itself() -> None:
    """Microversions before 1.29 name no roots; that is no defect."""
    old = summary({"VCPU": (4, 0)})
    del old["root_provider_uuid"], old["parent_provider_uuid"]
    found = weigher.weigh({"x": old}, {"VCPU": 1})
    assert found["x"].root_known
    assert found["x"].resource_score == 0.75


def test_a_mapping_without_providers_has_no_weights() -> None:
    assert weigher.weigh({}, {"VCPU": 1}) == {}


def test_summaries_without_traits_or_resources_are_read() -> None:
    """Placement before 1.17 answers no traits."""
    found = weigher.weigh({"x": {"root_provider_uuid": "x"}}, {"VCPU": 1})
    assert found["x"].value == 0.0


def test_each_term_is_explained() -> None:
    found = weigh_one(
        {"MEMORY_MB": (4, 4), "VCPU": (8, 4)},
        {"VCPU": 2},
        ("AVX", "SSD"),
        ("SSD",),
        multiplier=2,
    )
    assert found.explain() == (
        "0.750 = (resources 0.250 [MEMORY_MB 0, VCPU 1-2/4=0.500]"
        " + traits 0.500 [1/2]) / 2 x 2"
    )


def test_a_weight_of_nothing_is_explained() -> None:
    assert weigh_one({}, {}).explain() == (
        "0.000 = (resources 0.000 [no class] + traits 0.000 [0/0]) / 2 x 1"
    )


def test_a_hosts_summaries_are_placements() -> None:
    """The words of a host's own tree give the weight of its books."""
    child = builders.provider(
        "a_numa0", {"CUSTOM_LLC": 8}, root="a", traits=["CUSTOM_RDT"]
    )
    cloud = builders.cluster(
        [builders.host("a", children=[child], traits=["SSD"])],
        [builders.instance("i", "a", 4, more={"CUSTOM_LLC": 2})],
    )
    summaries = weigher.host_summaries(cloud.hosts[0])
    assert summaries["a_numa0"] == {
        "resources": {"CUSTOM_LLC": {"capacity": 8, "used": 2}},
        "traits": ["CUSTOM_RDT"],
        "parent_provider_uuid": "a",
        "root_provider_uuid": "a",
    }
    found = weigher.weigh(
        summaries,
        {"CUSTOM_LLC": 3, "CUSTOM_VCPU_GOLD": 6},
        ["SSD"],
        resource_classes=["CUSTOM_LLC", "CUSTOM_VCPU_GOLD"],
    )
    assert found["a"].value == 0.5


CLASS_NAMES = ["DISK_GB", "GOLD", "MEMORY_MB", "VCPU"]
TRAIT_NAMES = ["A", "B", "C", "D"]
AMOUNTS = st.tuples(st.integers(0, 500), st.integers(0, 500))


@st.composite
def mappings(draw: st.DrawFn) -> dict[str, dict[str, Any]]:
    """Up to four trees of up to three providers, some without a root."""
    found = {}
    for root in draw(st.sets(st.sampled_from("abcd"), min_size=1)):
        children = draw(st.integers(0, 2))
        names = [root, *(f"{root}{n}" for n in range(children))]
        if children and draw(st.booleans()):
            names.remove(root)
        for name in names:
            found[name] = summary(
                draw(st.dictionaries(st.sampled_from(CLASS_NAMES), AMOUNTS)),
                tuple(draw(st.sets(st.sampled_from(TRAIT_NAMES)))),
                root,
            )
    return found


REQUESTS = st.dictionaries(st.sampled_from(CLASS_NAMES), st.integers(0, 500))
REQUIRED = st.sets(st.sampled_from(TRAIT_NAMES))


def feasible(found: weigher.Weight) -> bool:
    """Whether a tree has free what it is asked for, as far as it has it."""
    return all(t.requested <= max(t.free, 0) for t in found.terms)


@given(mappings(), REQUESTS, REQUIRED, st.floats(0.001, 100))
def test_a_feasible_weight_lies_between_0_and_the_multiplier(
    summaries: dict[str, dict[str, Any]],
    asked: dict[str, int],
    required: set[str],
    factor: float,
) -> None:
    """Section 4: "in [0, 1] before the multiplier for every feasible
    target", whatever the units of a class.
    """
    found = weigher.weigh(summaries, asked, required, multiplier=factor)
    for weight in found.values():
        assert 0 <= weight.trait_score <= 1
        assert weight.resource_score <= 1
        if feasible(weight):
            assert 0 <= weight.resource_score
            assert 0 <= weight.value / factor <= 1 + 1e-12


@given(mappings(), REQUESTS, REQUIRED, st.randoms())
def test_the_order_of_the_mapping_does_not_matter(
    summaries: dict[str, dict[str, Any]],
    asked: dict[str, int],
    required: set[str],
    random: Any,
) -> None:
    """L4, for the weigher: equal in every bit, and in the same order."""
    shuffled = list(summaries.items())
    random.shuffle(shuffled)
    found = weigher.weigh(summaries, asked, required)
    again = weigher.weigh(dict(shuffled), asked, required)
    assert list(found.items()) == list(again.items())


@given(mappings(), REQUESTS, REQUIRED, st.data())
def test_more_free_units_never_lower_a_weight(
    summaries: dict[str, dict[str, Any]],
    asked: dict[str, int],
    required: set[str],
    data: st.DataObject,
) -> None:
    """The most boring host wins: freeing units only makes it more so.

    For feasible targets only: a request beyond what is free has a negative
    ratio, below the 0 of a class with nothing free.
    """
    before = weigher.weigh(summaries, asked, required)
    places = [
        (uuid, name)
        for uuid, one in summaries.items()
        for name in one["resources"]
    ]
    if not places:
        return
    uuid, name = data.draw(st.sampled_from(places))
    summaries[uuid]["resources"][name]["capacity"] += data.draw(
        st.integers(1, 500)
    )
    after = weigher.weigh(summaries, asked, required)
    for root, weight in before.items():
        if feasible(weight):
            assert after[root].value >= weight.value - 1e-12


@given(mappings(), REQUESTS, REQUIRED)
def test_the_terms_make_up_the_weight(
    summaries: dict[str, dict[str, Any]],
    asked: dict[str, int],
    required: set[str],
) -> None:
    """Every provider is in exactly one tree and every term is its sum."""
    found = weigher.weigh(summaries, asked, required)
    for name in CLASS_NAMES:
        here = [
            one["resources"][name]["capacity"] - one["resources"][name]["used"]
            for one in summaries.values()
            if name in one["resources"]
        ]
        terms = [
            t.free
            for weight in found.values()
            for t in weight.terms
            if t.resource_class == name
        ]
        assert sum(here) == sum(terms)
