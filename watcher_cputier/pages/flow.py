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

"""Migrations as a flow: bands from source hosts to target hosts.

Only hosts that are involved are drawn, and migrations of one tier between
the same two hosts are one band, as high as they have units. Of many bands
the largest are drawn, the others are put together under "other hosts".
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

from watcher_cputier.pages import told

#: Bands that are drawn one by one.
MOST_BANDS = 24

WIDTH = 1080
_LEFT = 215
_RIGHT = WIDTH - 215
_NODE = 10
_LOWEST = 20
_GAP = 12
_TOP = 30
# All bands together, unless they are too many for that.
_HEIGHT = 300
_HIGHEST = 64

Key = tuple[str, str, str]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host on one side."""

    label: str
    title: str
    x: int
    y: float
    height: float
    text_x: int
    anchor: str

    @property
    def middle(self) -> float:
        """Where its name goes."""
        return self.y + self.height / 2


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Migrations of one tier between two hosts.

    :param place: the tier's position, for its colour
    """

    path: str
    place: int
    label: str
    title: str
    text_x: int
    text_y: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """The drawing.

    :param tiers: (position, name) of those that move
    :param gathered: migrations that are drawn under "other hosts"
    """

    width: int
    height: int
    nodes: tuple[Node, ...]
    bands: tuple[Band, ...]
    tiers: tuple[tuple[int, str], ...]
    sources: int
    targets: int
    gathered: int


@dataclasses.dataclass(slots=True)
class _Group:
    """What one band stands for."""

    source: str
    target: str
    tier: str
    names: list[str]
    units: int = 0
    known: bool = True
    others: bool = False
    height: float = 0.0


def draw(
    migrations: Sequence[Mapping[str, Any]], tiers: Sequence[str]
) -> Flow | None:
    """The flow of a document's migrations; None where nothing moves.

    :param tiers: their names, in the order of their colours
    """
    if not migrations:
        return None
    groups, gathered = _grouped(migrations)
    units = sum(group.units for group in groups)
    # A single band would be a wall.
    total = min(_HEIGHT, _HIGHEST * len(groups))
    for group in groups:
        share = group.units / units if units else 0.0
        group.height = max(_LOWEST, share * total)
    sources = _column(groups, "source")
    # The mean position of what comes in: few bands cross.
    place = {name: at for at, name in enumerate(sources)}
    targets = _column(groups, "target", place)
    left = _stacked(sources, groups, "source")
    right = _stacked(targets, groups, "target")
    height = max(_bottom(left), _bottom(right))
    left = _centred(left, height)
    right = _centred(right, height)
    ends = {name: at for at, name in enumerate(targets)}
    hosts = (
        {one["source"] for one in migrations},
        {one["target"] for one in migrations},
    )
    shown = (
        {g.source for g in groups if not g.others},
        {g.target for g in groups if not g.others},
    )
    nodes = [
        _node(name, span, side, groups, len(hosts[side] - shown[side]))
        for side, spans in enumerate((left, right))
        for name, span in spans.items()
    ]
    return Flow(
        width=WIDTH,
        height=round(height + 10),
        nodes=tuple(nodes),
        bands=tuple(_bands(groups, left, right, place, ends, tiers)),
        tiers=tuple(
            (tiers.index(tier) if tier in tiers else len(tiers), tier)
            for tier in sorted(
                {group.tier for group in groups},
                key=lambda t: (tiers.index(t) if t in tiers else 99, t),
            )
        ),
        sources=len(hosts[0]),
        targets=len(hosts[1]),
        gathered=gathered,
    )


def _grouped(
    migrations: Iterable[Mapping[str, Any]],
) -> tuple[list[_Group], int]:
    """Bands, the largest first, and how many migrations are put together."""
    found: dict[Key, _Group] = {}
    for one in migrations:
        key = (one["source"], one["target"], one["tier"] or "")
        group = found.setdefault(key, _Group(*key, names=[]))
        group.names.append(one["instance"]["name"])
        group.units += one["units"] or 0
        group.known &= one["units"] is not None
    ordered = sorted(
        found.values(), key=lambda g: (-g.units, g.source, g.target, g.tier)
    )
    if len(ordered) <= MOST_BANDS:
        return ordered, 0
    shown, rest = ordered[:MOST_BANDS], ordered[MOST_BANDS:]
    others: dict[str, _Group] = {}
    for group in rest:
        other = others.setdefault(
            group.tier, _Group("", "", group.tier, names=[], others=True)
        )
        other.names += group.names
        other.units += group.units
        other.known &= group.known
    return (
        shown + [others[tier] for tier in sorted(others)],
        sum(len(group.names) for group in rest),
    )


def _column(
    groups: Sequence[_Group],
    side: str,
    sources: Mapping[str, int] | None = None,
) -> list[str]:
    """Hosts of one side, top to bottom; the others put together come last."""
    units: dict[str, int] = {}
    pull: dict[str, float] = {}
    for group in groups:
        name = getattr(group, side)
        units[name] = units.get(name, 0) + group.units
        if sources is not None:
            pull[name] = (
                pull.get(name, 0.0) + sources[group.source] * group.units
            )
    return sorted(
        units,
        key=lambda name: (
            not name,
            pull.get(name, 0.0) / (units[name] or 1),
            -units[name],
            name,
        ),
    )


Span = tuple[float, float]


def _stacked(
    names: Sequence[str], groups: Sequence[_Group], side: str
) -> dict[str, Span]:
    """Top and height of each host of a side."""
    found = {}
    y = float(_TOP)
    for name in names:
        height = sum(g.height for g in groups if getattr(g, side) == name)
        found[name] = (y, height)
        y += height + _GAP
    return found


def _bottom(spans: Mapping[str, Span]) -> float:
    return max(y + height for y, height in spans.values())


def _centred(spans: Mapping[str, Span], height: float) -> dict[str, Span]:
    shift = (height - _bottom(spans)) / 2
    return {name: (y + shift, high) for name, (y, high) in spans.items()}


def _node(
    name: str,
    span: Span,
    side: int,
    groups: Sequence[_Group],
    hidden: int,
) -> Node:
    mine = [g for g in groups if (g.target if side else g.source) == name]
    units = ""
    if all(g.known for g in mine):
        units = f", {told.number(sum(g.units for g in mine))} units"
    count = told.plural(sum(len(g.names) for g in mine), "instance")
    whole = name
    if not name:
        whole = f"{told.plural(hidden, 'other host')}" if hidden else "others"
    return Node(
        label=told.short(whole),
        title=f"{whole}: {count}{units} {'come' if side else 'leave'}",
        x=_RIGHT if side else _LEFT - _NODE,
        y=round(span[0], 1),
        height=round(span[1], 1),
        text_x=_RIGHT + _NODE + 8 if side else _LEFT - _NODE - 8,
        anchor="start" if side else "end",
    )


def _bands(
    groups: Sequence[_Group],
    left: Mapping[str, Span],
    right: Mapping[str, Span],
    sources: Mapping[str, int],
    targets: Mapping[str, int],
    tiers: Sequence[str],
) -> Iterable[Band]:
    ends: dict[Key, float] = {}
    used: dict[str, float] = {}
    for group in sorted(groups, key=lambda g: (sources[g.source], g.tier)):
        at = used.get(group.target, 0.0)
        key = (group.source, group.target, group.tier)
        ends[key] = right[group.target][0] + at
        used[group.target] = at + group.height
    used = {}
    for group in sorted(groups, key=lambda g: (targets[g.target], g.tier)):
        at = used.get(group.source, 0.0)
        used[group.source] = at + group.height
        begin = left[group.source][0] + at
        end = ends[group.source, group.target, group.tier]
        yield Band(
            path=_path(begin, end, group.height),
            place=tiers.index(group.tier)
            if group.tier in tiers
            else len(tiers),
            label=_label(group),
            title=_title(group),
            text_x=_LEFT + 8,
            text_y=round(begin + group.height / 2, 1),
        )


def _path(begin: float, end: float, height: float) -> str:
    middle = (_LEFT + _RIGHT) // 2
    a, b = round(begin + 1, 1), round(end + 1, 1)
    c, d = round(begin + height - 1, 1), round(end + height - 1, 1)
    return (
        f"M{_LEFT} {a}C{middle} {a} {middle} {b} {_RIGHT} {b}"
        f"V{d}C{middle} {d} {middle} {c} {_LEFT} {c}Z"
    )


def _label(group: _Group) -> str:
    who = (
        told.short(group.names[0], 24)
        if len(group.names) == 1
        else told.plural(len(group.names), "instance")
    )
    return f"{who} · {_units(group)}" if group.known else who


def _units(group: _Group) -> str:
    return f"{told.number(group.units)} {group.tier}".strip()


def _title(group: _Group) -> str:
    names = ", ".join(group.names[:8])
    if len(group.names) > 8:
        names += f" and {len(group.names) - 8:,} more"
    ways = (
        "between other hosts"
        if group.others
        else f"{group.source} → {group.target}"
    )
    if not group.known:
        return f"{ways}: {names}"
    return f"{ways}: {_units(group)} units ({names})"
