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

"""How tiers are counted: one class each, or multiples of a single class.

Both ways answer the same questions of a flavor and of an allocation: which
tier, and how many units. With a class per tier (S1) the class names the
tier and its amount is the number of vCPUs. With a single class (S0) the
amount is the number of vCPUs times the tier's multiplier, and the tier is
the one whose multiplier it is.

Where no host has any of the classes, tiers are told from flavors alone, by
``quota:cpu_shares`` where there is no request (R72, R140).
"""

from collections.abc import Mapping
import dataclasses
from typing import Protocol

from watcher_cputier import model

SHARES_CLASSES = ("VCPU_SHARES", "CUSTOM_VCPU_SHARES")
SHARES_SPEC = "quota:cpu_shares"


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """A tier and the units that count for it.

    :param tier: None for units, or an instance, of no tier
    :param doubt: why the claim cannot be trusted; empty if it can
    """

    tier: str | None
    units: int
    doubt: str = ""


class Accounting(Protocol):
    """One way to count tiers."""

    @property
    def tiers(self) -> tuple[model.Tier, ...]:
        """The tiers, each with the class that it is counted by."""

    @property
    def classes(self) -> frozenset[str]:
        """The classes that count."""

    @property
    def shares_class(self) -> str | None:
        """The one class of all tiers; None with a class per tier."""

    def asked(self, flavor: model.Flavor) -> Claim | None:
        """What a flavor claims; None if it requests none of the classes."""

    def held(
        self, resources: Mapping[str, int], vcpus: int
    ) -> dict[str | None, int]:
        """{tier: units} of what an instance of so many vCPUs holds."""

    def totals(self, resources: Mapping[str, int]) -> dict[str, int]:
        """{account: units} that amounts of classes count against."""


class ClassPerTier:
    """One resource class for each tier; one unit is one vCPU."""

    shares_class = None

    def __init__(self, tiers: tuple[model.Tier, ...]) -> None:
        self.tiers = tiers
        self.classes = frozenset(tier.resource_class for tier in tiers)
        self._order = {tier.name: i for i, tier in enumerate(tiers)}

    def asked(self, flavor: model.Flavor) -> Claim | None:
        """The tier whose class the flavor requests."""
        asked = self.totals(flavor.resources)
        if not asked:
            return None
        first = min(asked, key=lambda name: self._order[name])
        doubt = (
            f"its flavor asks for several tiers ({', '.join(asked)})"
            if len(asked) > 1
            else ""
        )
        return Claim(first, asked[first], doubt)

    def held(
        self,
        resources: Mapping[str, int],
        vcpus: int,
    ) -> dict[str | None, int]:
        """Units by the tiers' classes."""
        held: dict[str | None, int] = {}
        held.update(self.totals(resources))
        return held

    def totals(self, resources: Mapping[str, int]) -> dict[str, int]:
        """Units by tier."""
        return {
            tier.name: resources[tier.resource_class]
            for tier in self.tiers
            if resources.get(tier.resource_class)
        }


class SingleClass:
    """Multiples of one class; the multiplier tells the tier (R32, R33)."""

    def __init__(
        self, tiers: tuple[model.Tier, ...], shares_class: str
    ) -> None:
        self.shares_class: str = shares_class
        self.classes = frozenset({shares_class})
        self.tiers = tuple(
            dataclasses.replace(tier, resource_class=shares_class)
            for tier in tiers
        )

    def asked(self, flavor: model.Flavor) -> Claim | None:
        """The tier whose multiplier the request is, per vCPU."""
        units = flavor.resources.get(self.shares_class)
        if not units:
            return None
        return Claim(self._tier(units, flavor.vcpus), units)

    def held(
        self, resources: Mapping[str, int], vcpus: int
    ) -> dict[str | None, int]:
        """All units, by the tier that they amount to."""
        units = resources.get(self.shares_class, 0)
        return {self._tier(units, vcpus): units} if units else {}

    def totals(self, resources: Mapping[str, int]) -> dict[str, int]:
        """Units of the class that all tiers draw on."""
        units = resources.get(self.shares_class, 0)
        return {self.shares_class: units} if units else {}

    def _tier(self, units: int, vcpus: int) -> str | None:
        for tier in self.tiers:
            # Units are whole; a fractional multiplier is rounded by whoever
            # wrote the flavor.
            if abs(units - tier.multiplier * vcpus) <= 0.5:
                return tier.name
        return None


def choose(
    tiers: tuple[model.Tier, ...],
    present: frozenset[str],
    mode: str,
    shares_class: str | None,
) -> Accounting:
    """The accounting that the configuration names or the cloud shows.

    :param present: classes that some provider has an inventory of
    :param mode: ``auto``, ``classes`` or ``shares``
    :param shares_class: the class of single-class mode; None to take the
        one of :data:`SHARES_CLASSES` that is there
    """
    per_tier = ClassPerTier(tiers)
    candidates = (shares_class,) if shares_class else SHARES_CLASSES
    shared = [name for name in candidates if name in present]
    if mode == "shares" or (
        mode == "auto" and shared and not per_tier.classes & present
    ):
        return SingleClass(tiers, (*shared, *candidates)[0])
    return per_tier


def by_shares(
    tiers: tuple[model.Tier, ...], flavor: model.Flavor
) -> str | None:
    """The tier whose CPU shares a flavor sets, per vCPU or as a whole."""
    told = flavor.extra_specs.get(SHARES_SPEC, "")
    if not told.isdigit():
        return None
    for vcpus in (flavor.vcpus, 1):
        for tier in tiers:
            if tier.cpu_shares * vcpus == int(told):
                return tier.name
    return None
