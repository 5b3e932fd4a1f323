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

"""Neighbours: the domains of one host as a starved instance sees them.

Weights are compared by their *scale*, the weight of a vCPU over that of its
tier. Where all scales of a host are equal, be they 1 or .1, its tiers have
the proportions that were sold; where one differs, somebody gets more than was
sold and another less. Scales within a twentieth of each other are taken for
equal, because small weights are rounded: 51, 33 and 17 for 512, 333 and 167.
"""

import functools

from watcher_cputier import causes
from watcher_cputier import entitlement
from watcher_cputier import loads as measuring
from watcher_cputier import model

_ROUNDING = 1.05


class Neighbours:
    """The domains of one host as those see them that starve there.

    Whoever is known to use nothing takes nothing from anybody and is left
    out; of whom nothing is known is not.
    """

    def __init__(
        self, cluster: model.Cluster, loads: measuring.Loads, home: int
    ) -> None:
        self._cluster = cluster
        self._loads = loads
        self._awake = [
            row
            for row in loads.rows_by_host[home].tolist()
            if loads.running[row]
            and not loads.mean_usage[row] <= entitlement.TOLERANCE
        ]
        self._tiered = [r for r in self._awake if loads.tier[r] >= 0]

    @functools.cached_property
    def scale(self) -> float:
        """Weight that a unit of a tier's weight has on this host.

        1 where some domain has just its tier's, or would have but for its
        number of vCPUs; else the scale that most vCPUs have.
        """
        vcpus: dict[float, float] = {}
        for row in self._tiered:
            one = self._domain(row)
            scale = float(self._loads.scales[row])
            if _same(scale, 1.0) or one.plain:
                return 1.0
            near = next((k for k in vcpus if _same(k, scale)), scale)
            vcpus[near] = vcpus.get(near, 0.0) + one.vcpus
        return max(vcpus, key=lambda scale: (vcpus[scale], scale))

    def right_scale(self, row: int) -> float:
        """The scale that the domain of a row should have here.

        Small weights are rounded: what others of its tier have fits best.
        """
        if self.scale == 1.0:
            return 1.0
        alike = [
            float(self._loads.scales[other])
            for other in self._tiered
            if other != row
            and self._loads.tier[other] == self._loads.tier[row]
            and _same(float(self._loads.scales[other]), self.scale)
        ]
        return max(alike, default=self.scale)

    def noisy(self, row: int) -> list[causes.Domain]:
        """Domains that no tier accounts for, the heaviest first."""
        found = [
            self._domain(other)
            for other in self._unaccounted
            if self._disturbs(other, row)
        ]
        return sorted(found, key=lambda d: (-d.weight, d.name))

    @functools.cached_property
    def _unaccounted(self) -> list[int]:
        """Rows of domains of no tier, or of one that sets them no weight."""
        loads = self._loads
        return [
            row
            for row in self._awake
            if loads.tier[row] < 0 or not loads.weighted[row]
        ]

    def _disturbs(self, other: int, row: int) -> bool:
        loads = self._loads
        if loads.tier[other] < 0:
            return True
        heavy = max(loads.scales[row], self.scale)
        return _above(float(loads.scales[other]), float(heavy))

    def outweighed(self, row: int) -> bool:
        """Whether some domain weighs more than this one, for its tier."""
        return _above(self._heaviest, float(self._loads.scales[row]))

    def mis_weighted(self, row: int) -> causes.Cause:
        """Whose weight is out of proportion, of one that is outweighed."""
        scales = self._loads.scales
        own = float(scales[row])
        heavier = [r for r in self._tiered if _above(float(scales[r]), own)]
        default = self._cluster.shares_rule.unset
        if _above(self.scale, own):
            return causes.under_weighted(
                self._domain(row), self.right_scale(row), default
            )
        # Rows are in the order of names, which breaks ties.
        heavier.sort(key=lambda r: (-float(scales[r]), r))
        return causes.over_weighted(
            [self._domain(r) for r in heavier],
            self.right_scale(heavier[0]),
            default,
        )

    @functools.cached_property
    def _heaviest(self) -> float:
        scales = self._loads.scales
        return max((float(scales[r]) for r in self._tiered), default=0.0)

    def _domain(self, row: int) -> causes.Domain:
        return describe(self._cluster, self._loads.instances[row])


def describe(
    cluster: model.Cluster, instance: model.Instance
) -> causes.Domain:
    """An instance as its host's kernel sees it."""
    tier = cluster.tier_by_name.get(instance.tier or "")
    promised = 0.0
    if tier is not None:
        promised = measuring.tier_weight(cluster, tier)
    return causes.Domain(
        name=instance.name,
        flavor=instance.flavor.name,
        tier="" if tier is None else tier.name,
        vcpus=instance.flavor.vcpus,
        weight=entitlement.weight(instance.flavor, cluster.shares_rule),
        set_by_flavor=entitlement.sets_weight(
            instance.flavor, cluster.shares_rule
        ),
        tier_weight=promised,
    )


def _above(one: float, other: float) -> bool:
    return one > _ROUNDING * other


def _same(one: float, other: float) -> bool:
    return not _above(one, other) and not _above(other, one)
