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

"""The ResourceProviderWeigher: prefer the most boring host (S0, R54-R67).

A host is boring for a request when the request takes little of what is
free there and when the host has few traits that nobody asked for. The
weigher ranks; it never admits: a host must be feasible first, since a
request that exceeds what is free gives a negative ratio.

For each provider tree, with the providers grouped by their root:

1. Per resource class, capacity and used are summed over the tree; the
   traits are united.
2. Resource score: the arithmetic mean over the classes available in the
   tree of ``1 - requested / free``, with 0 requested where the class was
   not asked for (ratio 1), and 0 for a class with nothing free. A tree
   without classes scores 0.
3. Trait score: ``|requested and available| / |available|``; 0 for a tree
   without traits.
4. Weight = (resource score + trait score) / 2 x multiplier.

The specification's pseudocode computes the mean inside the branch for
exhausted classes, so that a host without any would have no score at all;
its prose, which is followed here, does not (R65).

The specification's example, 2 VCPU and an SSD trait on a host with 4 free
VCPU and the traits SSD and HW_CPU_X86_AVX2::

    resource score  1 - 2/4          = 0.5
    trait score     |{SSD}| / 2      = 0.5
    weight          (0.5 + 0.5) / 2  = 0.5

Why a caller may want to limit the classes to those requested: an unrelated
class with free units adds a ratio of 1 and so attracts instances to, say,
hosts with idle GPUs, the opposite of boring.
"""

from collections.abc import Iterable, Mapping
import dataclasses
import functools
from typing import Any

from watcher_cputier import model


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What one resource class contributes to the resource score.

    :param requested: units asked for (0 where the class was not)
    :param free: capacity less used, over the whole tree
    :param ratio: 1 - requested / free; 0 where nothing is free
    """

    resource_class: str
    requested: int
    free: int
    ratio: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weight:
    """The score of one provider tree, with everything that makes it up.

    :param value: (resource_score + trait_score) / 2 x multiplier; within
        [0, multiplier] for a tree that can serve the request
    :param terms: one per class of the tree that counts, by class name
    :param matched_traits: requested traits that the tree has
    :param available_traits: traits of the tree that count
    :param root_known: False where the tree's root is not in the mapping
    """

    resource_score: float
    trait_score: float
    multiplier: float = 1.0
    terms: tuple[Term, ...] = ()
    matched_traits: tuple[str, ...] = ()
    available_traits: tuple[str, ...] = ()
    root_known: bool = True

    @functools.cached_property
    def value(self) -> float:
        """The weight; higher wins."""
        return (self.resource_score + self.trait_score) / 2 * self.multiplier

    def explain(self) -> str:
        """Each term of the score, in one line for a person."""
        classes = ", ".join(
            f"{t.resource_class} "
            + (
                f"1-{t.requested}/{t.free}={t.ratio:.3f}"
                if t.free > 0
                else "0"
            )
            for t in self.terms
        )
        return (
            f"{self.value:.3f} = (resources {self.resource_score:.3f}"
            f" [{classes or 'no class'}] + traits {self.trait_score:.3f}"
            f" [{len(self.matched_traits)}/{len(self.available_traits)}])"
            f" / 2 x {self.multiplier:g}"
        )


@dataclasses.dataclass(slots=True)
class _Tree:
    """A provider tree, flattened."""

    free: dict[str, int] = dataclasses.field(default_factory=dict)
    traits: set[str] = dataclasses.field(default_factory=set)


def _flatten(
    provider_summaries: Mapping[str, Mapping[str, Any]],
) -> dict[str, _Tree]:
    trees: dict[str, _Tree] = {}
    for uuid, summary in provider_summaries.items():
        # A provider that names no root (microversions before 1.29), or one
        # that is not here, stands for itself.
        root = str(summary.get("root_provider_uuid"))
        tree = trees.setdefault(
            root if root in provider_summaries else uuid, _Tree()
        )
        for name, amounts in (summary.get("resources") or {}).items():
            free = amounts["capacity"] - amounts["used"]
            tree.free[name] = tree.free.get(name, 0) + free
        tree.traits.update(summary.get("traits") or ())
    return trees


def _is_root(uuid: str, summary: Mapping[str, Any]) -> bool:
    return (summary.get("root_provider_uuid") or uuid) == uuid


def score(
    free: Mapping[str, int],
    available_traits: Iterable[str],
    resources: Mapping[str, int],
    traits: Iterable[str] = (),
    *,
    resource_classes: Iterable[str] | None = None,
    trait_names: Iterable[str] | None = None,
    multiplier: float = 1.0,
    root_known: bool = True,
) -> Weight:
    """Score one flattened tree; the parameters are those of :func:`weigh`.

    :param free: {class: capacity - used} over the tree; may be negative
        for a class that is over its capacity
    """
    allowed = None if resource_classes is None else set(resource_classes)
    counted = set(available_traits)
    requested = set(traits)
    if trait_names is not None:
        named = set(trait_names)
        counted &= named
        requested &= named
    terms = tuple(
        Term(
            resource_class=name,
            requested=resources.get(name, 0),
            free=free[name],
            ratio=(
                1.0 - resources.get(name, 0) / free[name]
                if free[name] > 0
                else 0.0
            ),
        )
        for name in sorted(free)
        if allowed is None or name in allowed
    )
    matched = requested & counted
    return Weight(
        resource_score=(
            sum(term.ratio for term in terms) / len(terms) if terms else 0.0
        ),
        trait_score=len(matched) / len(counted) if counted else 0.0,
        multiplier=multiplier,
        terms=terms,
        matched_traits=tuple(sorted(matched)),
        available_traits=tuple(sorted(counted)),
        root_known=root_known,
    )


def weigh(
    provider_summaries: Mapping[str, Mapping[str, Any]],
    resources: Mapping[str, int],
    traits: Iterable[str] = (),
    *,
    resource_classes: Iterable[str] | None = None,
    trait_names: Iterable[str] | None = None,
    multiplier: float = 1.0,
) -> dict[str, Weight]:
    """Weigh every provider tree for one request.

    :param provider_summaries: as ``GET /allocation_candidates`` returns it
        at microversion 1.29 or later: {provider uuid: {"resources":
        {class: {"capacity": units, "used": units}}, "traits": [...],
        "parent_provider_uuid": ..., "root_provider_uuid": ...}}
    :param resources: requested units per class
    :param traits: requested traits
    :param resource_classes: the classes that count; None for all
        (``resource_provider_resources`` of the specification, R62)
    :param trait_names: the traits that count; None for all (R63)
    :param multiplier: factor of every weight (R61)
    :returns: {root provider uuid: weight}, by uuid. A provider whose root
        is not in the mapping forms a tree of its own, under its own uuid,
        with ``root_known`` False.
    """
    traits = tuple(traits)
    classes = None if resource_classes is None else tuple(resource_classes)
    names = None if trait_names is None else tuple(trait_names)
    trees = _flatten(provider_summaries)
    return {
        root: score(
            trees[root].free,
            trees[root].traits,
            resources,
            traits,
            resource_classes=classes,
            trait_names=names,
            multiplier=multiplier,
            root_known=_is_root(root, provider_summaries[root]),
        )
        for root in sorted(trees)
    }


def host_summaries(host: model.Host) -> dict[str, dict[str, Any]]:
    """The provider summaries of one host's tree, as Placement words them."""
    return {
        provider.uuid: {
            "resources": {
                name: {
                    "capacity": inventory.capacity,
                    "used": provider.allocated.get(name, 0),
                }
                for name, inventory in provider.inventories.items()
            },
            "traits": sorted(provider.traits),
            "parent_provider_uuid": provider.parent_uuid,
            "root_provider_uuid": provider.root_uuid,
        }
        for provider in host.providers
    }
