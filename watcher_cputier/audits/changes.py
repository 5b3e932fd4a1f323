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

"""Before and after: what a plan was to change, and what it did change.

"After" is what a plan's own migrations have left: what others did meanwhile
is not in Watcher's records, and the next audit sees it.
"""

from collections import Counter
import dataclasses
import re

from watcher_cputier.audits import values

_OF_TIER = re.compile(r"(?P<tier>.+)_excess_units_before")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OfTier:
    """Units of a tier over quota, all hosts together.

    :param before: when the audit looked
    :param planned: what the plan was to leave
    :param after: what it has left; None where that is not known, or not
        decided yet
    """

    tier: str
    before: int
    planned: int
    after: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OfHost:
    """Units of a tier that a host holds.

    :param before: when the audit looked; None where nothing tells
    :param planned: after the whole plan; None likewise
    :param after: after what has moved; None likewise
    :param left: units that have left it
    :param arrived: units that have come to it
    """

    host: str
    tier: str
    quota: int | None
    before: int | None
    planned: int | None
    after: int | None
    left: int
    arrived: int


def of_tiers(plan: values.Plan) -> tuple[OfTier, ...]:
    """The tiers whose excess the plan's indicators tell, by name."""
    found = []
    for name in sorted(plan.indicators):
        match = _OF_TIER.fullmatch(name)
        after = match and plan.indicators.get(
            f"{match['tier']}_excess_units_after"
        )
        if match is None or after is None:
            continue
        tier, before = match["tier"], int(plan.indicators[name])
        found.append(
            OfTier(
                tier=tier,
                before=before,
                planned=int(after),
                after=_left(
                    plan,
                    before,
                    int(after),
                    tuple(
                        one
                        for one in plan.migrations
                        if one.excess is not None and one.excess[1] == tier
                    ),
                ),
            )
        )
    return tuple(found)


def in_all(plan: values.Plan) -> OfTier | None:
    """The same for all tiers together; None where no indicator tells.

    Tiers do not simply add up: units over a tier's quota may be over that
    of all tiers together as well.
    """
    before = plan.indicators.get("excess_units_before")
    planned = plan.indicators.get("excess_units_after")
    if before is None or planned is None:
        return None
    return OfTier(
        tier="",
        before=int(before),
        planned=int(planned),
        after=_left(
            plan,
            int(before),
            int(planned),
            tuple(
                one
                for one in plan.migrations
                # A plain migration does not say what it is for.
                if one.excess is not None or one.concern is None
            ),
        ),
    )


def _left(
    plan: values.Plan,
    before: int,
    planned: int,
    concerned: tuple[values.Migration, ...],
) -> int | None:
    """Units over quota that the migrations of an excess have left."""
    outcomes = Counter(one.outcome(plan.state) for one in concerned)
    if outcomes[values.PLANNED] or outcomes[values.MOVING]:
        return None
    if outcomes[values.MOVED] == len(concerned):
        if plan.migrations and not concerned and before != planned:
            # Plain migrations, which do not say what they are for.
            every = len(plan.outcomes(values.MOVED)) == len(plan.migrations)
            return planned if every else None
        return planned
    if not outcomes[values.MOVED]:
        return before
    removed = _removed(
        tuple(
            one for one in concerned if one.outcome(plan.state) == values.MOVED
        )
    )
    return None if removed is None else before - removed


def _removed(moved: tuple[values.Migration, ...]) -> int | None:
    """Units of excess that some of a plan's migrations remove.

    A record tells of each migration. Without one it follows from what the
    source held of its quota; of a host that is emptied every unit counts, and
    what makes room for others removes nothing.
    """
    total = 0
    beyond: dict[tuple[str, str | None], int] = {}
    for one in moved:
        if one.relief is not None:
            total += one.relief
        elif one.units is None:
            return None
        elif one.concern == values.DRAIN:
            total += one.units
        elif one.concern == "quota":
            if one.held is None or one.held.quota is None:
                return None
            key = (one.source, one.tier)
            excess = max(0, one.held.units - one.held.quota)
            left = beyond.get(key, excess)
            total += min(left, one.units)
            beyond[key] = max(0, left - one.units)
    return total


def of_hosts(plan: values.Plan) -> tuple[OfHost, ...]:
    """Hosts that a migration leaves or enters, and those of the record."""
    held = dict(plan.record.held) if plan.record is not None else {}
    left: Counter[tuple[str, str]] = Counter()
    arrived: Counter[tuple[str, str]] = Counter()
    change: Counter[tuple[str, str]] = Counter()
    for one in plan.migrations:
        if not one.tier or one.units is None:
            continue
        source, target = (one.source, one.tier), (one.target, one.tier)
        if one.held is not None:
            held.setdefault(source, one.held)
        change[source] -= one.units
        change[target] += one.units
        if one.outcome(plan.state) == values.MOVED:
            left[source] += one.units
            arrived[target] += one.units
    found = []
    for key in sorted({*change, *held}):
        at_first = held.get(key)
        before = None if at_first is None else at_first.units
        found.append(
            OfHost(
                host=key[0],
                tier=key[1],
                quota=None if at_first is None else at_first.quota,
                before=before,
                planned=None if before is None else before + change[key],
                after=None
                if before is None
                else before - left[key] + arrived[key],
                left=left[key],
                arrived=arrived[key],
            )
        )
    return tuple(found)
