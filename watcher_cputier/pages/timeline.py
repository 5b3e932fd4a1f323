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

"""The order of the migrations, in time.

Up to :data:`MOST_ROWS` migrations have a row each, with what waits for what.
More are packed into as many lanes as run at the same time.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

from watcher_cputier.pages import told

#: Migrations that have a row each.
MOST_ROWS = 30

WIDTH = 1080
_LEFT = 215
_RIGHT = WIDTH - 20
_TOP = 30
_ROW = 26
_LANE = 34
_BAR = 16
# Tick marks are so many seconds apart.
_TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_MOST_TICKS = 9
# Pixels that a letter of a bar's label takes.
_LETTER = 6.6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One migration.

    :param name: of the instance, beside the bar; empty in a lane
    :param ways: from where to where
    """

    x: float
    y: float
    width: float
    place: int
    number: int
    name: str
    ways: str
    ways_x: float
    anchor: str
    title: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """The drawing.

    :param ticks: (x, text)
    :param links: paths from what makes room to what waits for it
    """

    width: int
    height: int
    left: int
    bar: int
    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    links: tuple[str, ...]
    lanes: int
    rows: bool
    seconds: float


def draw(
    migrations: Sequence[Mapping[str, Any]],
    schedule: Mapping[str, Any] | None,
    tiers: Sequence[str],
) -> Timeline | None:
    """The timeline of a document; None where nothing moves or none is told.

    :param tiers: their names, in the order of their colours
    """
    if not migrations or schedule is None:
        return None
    steps = schedule["steps"]
    ends = [step["start"] + step["seconds"] for step in steps]
    total = max(schedule["makespan_seconds"], *ends, 1.0)
    scale = (_RIGHT - _LEFT) / total
    order = sorted(range(len(steps)), key=lambda n: (steps[n]["start"], n))
    rows = len(order) <= MOST_ROWS
    lane = _lanes(steps, order)
    height = _ROW if rows else _LANE
    at = {n: (row if rows else lane[n]) for row, n in enumerate(order)}
    bars = []
    for n in order:
        step, one = steps[n], migrations[n]
        x = _LEFT + step["start"] * scale
        width = max(3.0, step["seconds"] * scale)
        ways = f"{told.short(one['source'])} → {told.short(one['target'])}"
        before = x + width + 8 + len(ways) * _LETTER > _RIGHT
        if before and x - 8 - len(ways) * _LETTER < _LEFT:
            # Neither side has room: on the bar, from its beginning.
            ways_x, anchor = x + 6, "on"
        elif before:
            ways_x, anchor = x - 6, "end"
        else:
            ways_x, anchor = x + width + 6, "start"
        bars.append(
            Bar(
                x=round(x, 1),
                y=_TOP + at[n] * height,
                width=round(width, 1),
                place=tiers.index(one["tier"])
                if one["tier"] in tiers
                else len(tiers),
                number=n + 1,
                name=told.short(one["instance"]["name"], 22) if rows else "",
                ways=ways if rows else "",
                ways_x=round(ways_x, 1),
                anchor=anchor,
                title=_title(n, one, step),
            )
        )
    count = len(order) if rows else 1 + max(lane.values())
    return Timeline(
        width=WIDTH,
        height=_TOP + count * height + 8,
        left=_LEFT,
        bar=_BAR if rows else _LANE - 10,
        bars=tuple(bars),
        ticks=tuple(_ticks(total, scale)),
        links=tuple(_links(steps, at, scale)) if rows else (),
        lanes=1 + max(lane.values()),
        rows=rows,
        seconds=total,
    )


def ran(
    migrations: Sequence[Mapping[str, Any]], tiers: Sequence[str]
) -> Timeline | None:
    """When migrations of an audit's document really ran.

    None where Nova's records tell of none of them.
    """
    known = sorted(
        (
            one
            for one in migrations
            if one["began_at"] is not None and one["seconds"] is not None
        ),
        key=lambda one: (
            told.moment(one["began_at"]),
            one["instance"]["name"],
        ),
    )
    if not known:
        return None
    first = told.moment(known[0]["began_at"])
    steps = [
        {
            "needs": (),
            "start": told.moment(one["began_at"]) - first,
            "seconds": one["seconds"],
        }
        for one in known
    ]
    ends = (step["start"] + step["seconds"] for step in steps)
    return draw(known, {"steps": steps, "makespan_seconds": max(ends)}, tiers)


def _lanes(
    steps: Sequence[Mapping[str, Any]], order: Sequence[int]
) -> dict[int, int]:
    """The first lane that is free when a migration starts."""
    ends: list[float] = []
    found = {}
    for n in order:
        start = steps[n]["start"]
        free = (p for p, end in enumerate(ends) if end <= start + 1e-6)
        place = next(free, len(ends))
        if place == len(ends):
            ends.append(0.0)
        ends[place] = start + steps[n]["seconds"]
        found[n] = place
    return found


def _ticks(total: float, scale: float) -> Iterable[tuple[float, str]]:
    apart = next(
        (one for one in _TICKS if total / one <= _MOST_TICKS),
        -(-int(total / _MOST_TICKS) // 3600) * 3600,
    )
    for count in range(int(total / apart) + 1):
        seconds = count * apart
        text = "start" if not seconds else told.duration(seconds)
        yield round(_LEFT + seconds * scale, 1), text


def _links(
    steps: Sequence[Mapping[str, Any]], at: Mapping[int, int], scale: float
) -> Iterable[str]:
    for n, step in enumerate(steps):
        for need in step["needs"]:
            end = steps[need]["start"] + steps[need]["seconds"]
            x = round(_LEFT + end * scale, 1)
            above = _TOP + at[need] * _ROW + _BAR
            below = _TOP + at[n] * _ROW
            start = round(_LEFT + step["start"] * scale + 3, 1)
            yield f"M{x - 3:g} {above}V{below - 4}H{start}v3"


def _title(n: int, one: Mapping[str, Any], step: Mapping[str, Any]) -> str:
    waits = ""
    if step["needs"]:
        waits = f", waits for {told.places(step['needs'])}"
    return (
        f"{n + 1}. {one['instance']['name']}: {one['source']} → "
        f"{one['target']}, {_units(one)}"
        f"from {told.duration(step['start'])} to "
        f"{told.duration(step['start'] + step['seconds'])}{waits}"
    )


def _units(one: Mapping[str, Any]) -> str:
    if one["units"] is None:
        return ""
    return f"{told.number(one['units'])} {one['tier'] or ''} units, "
