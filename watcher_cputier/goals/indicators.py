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

"""Efficacy indicators: what an audit found and what its plan removes.

One table names them all; the goal's specification, the values that a
strategy reports and the documentation come from it. An indicator whose part
of the audit did not run is left out, never 0.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import planner


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Indicator:
    """Name, unit and meaning of one number."""

    name: str
    unit: str | None
    description: str


QUOTA: tuple[Indicator, ...] = (
    Indicator(
        name="hosts_over_quota_before",
        unit=None,
        description="Hosts that hold more units of some tier than their "
        "quota, before the plan.",
    ),
    Indicator(
        name="hosts_over_quota_after",
        unit=None,
        description="Hosts that hold more units of some tier than their "
        "quota, after the plan.",
    ),
    Indicator(
        name="excess_units_before",
        unit="units",
        description="Units over quota, all hosts and tiers, before the plan.",
    ),
    Indicator(
        name="excess_units_after",
        unit="units",
        description="Units over quota, all hosts and tiers, after the plan.",
    ),
    Indicator(
        name="migrations_planned",
        unit=None,
        description="Live migrations in the plan.",
    ),
    Indicator(
        name="migrations_lower_bound",
        unit=None,
        description="No plan removes as much excess with fewer migrations; "
        "with `mix_tiers`, and none then mixes as well with fewer. Those "
        "that relieve starvation are not bounded.",
    ),
    Indicator(
        name="instances_unresolved",
        unit=None,
        description="Instances that would still have to leave a host over "
        "quota and cannot.",
    ),
)


STARVATION: tuple[Indicator, ...] = (
    Indicator(
        name="instances_starved_before",
        unit=None,
        description="Instances that do not get the share that their tier "
        "promises, before the plan.",
    ),
    Indicator(
        name="instances_starved_after",
        unit=None,
        description="Instances that are expected not to get the share that "
        "their tier promises, after the plan.",
    ),
)


def of_tier(tier: str) -> tuple[Indicator, ...]:
    """The two indicators of one tier."""
    return tuple(
        Indicator(
            name=f"{tier}_excess_units_{when}",
            unit="units",
            description=f"Units of {tier} over quota {when} the plan.",
        )
        for when in ("before", "after")
    )


def values(plan: planner.Plan, tiers: Iterable[str]) -> dict[str, int]:
    """The indicators of a plan, by name.

    Those of starvation are left out where nobody was judged. Units over a
    tier's quota and over that of all tiers together (single-class mode) are
    the same units: each host counts the larger sum.
    """
    tiers = tuple(tiers)
    found = {
        "hosts_over_quota_before": _hosts(plan.excess_before),
        "hosts_over_quota_after": _hosts(plan.excess_after),
        "excess_units_before": planner.excess_units(plan.excess_before, tiers),
        "excess_units_after": planner.excess_units(plan.excess_after, tiers),
        "migrations_planned": len(plan.migrations),
        "migrations_lower_bound": plan.lower_bound
        + (plan.mixing.lower_bound if plan.mixing is not None else 0),
        "instances_unresolved": sum(u.instances for u in plan.unresolved),
    }
    for tier in tiers:
        before, after = of_tier(tier)
        found[before.name] = _units(plan.excess_before, tier)
        found[after.name] = _units(plan.excess_after, tier)
    if plan.relief is not None and not plan.relief.abstained:
        found["instances_starved_before"] = len(plan.relief.before)
        found["instances_starved_after"] = len(plan.relief.after)
    return found


def excess_removed_percent(before: float, after: float) -> float:
    """Share of the excess that a plan removes; 100 where there is none."""
    return 100.0 if before <= 0 else (before - after) / before * 100


def _hosts(excess: Mapping[tuple[str, str], int]) -> int:
    return len({host for (host, _), units in excess.items() if units > 0})


def _units(excess: Mapping[tuple[str, str], int], tier: str) -> int:
    return sum(units for (_, name), units in excess.items() if name == tier)
