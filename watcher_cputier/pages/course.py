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

"""The course of audits: units over quota before and after each run."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from watcher_cputier.pages import told

WIDTH = 1080
_HIGH = 150
_TOP = 22
_LEFT = 60
_RIGHT = WIDTH - 10


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One run.

    :param before: height; None where it is not known
    :param after: likewise
    :param sign: whether it was late or met another one, in a sign
    """

    x: float
    width: float
    before: float | None
    after: float | None
    sign: str
    title: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The drawing.

    :param ticks: (y, text)
    """

    width: int
    height: int
    bottom: int
    left: int
    right: int
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...]
    first: str
    last: str


def draw(runs: Sequence[Mapping[str, Any]]) -> Course | None:
    """The columns of a document's runs; None where there are none."""
    known = [
        units
        for run in runs
        if run["excess"] is not None
        for units in (run["excess"]["before"], run["excess"]["after"])
        if units is not None
    ]
    if not known:
        return None
    most = max(1, *known)
    scale = _HIGH / most
    apart = min(60.0, (_RIGHT - _LEFT) / len(runs))

    def high(units: float | None) -> float | None:
        return None if units is None else round(units * scale, 1)

    columns = []
    for place, run in enumerate(runs):
        excess = run["excess"] or {"before": None, "after": None}
        columns.append(
            Column(
                x=round(_LEFT + place * apart + apart * 0.1, 1),
                width=round(apart * 0.8, 1),
                before=high(excess["before"]),
                after=high(excess["after"]),
                sign=("L" if run["late_seconds"] is not None else "")
                + ("O" if run["overlaps"] else ""),
                title=_title(run, excess),
            )
        )
    return Course(
        width=WIDTH,
        height=_TOP + _HIGH + 30,
        bottom=_TOP + _HIGH,
        left=_LEFT,
        right=_RIGHT,
        columns=tuple(columns),
        ticks=(
            (_TOP + _HIGH, "0"),
            (_TOP, told.number(most)),
        ),
        first=runs[0]["at"],
        last=runs[-1]["at"] if len(runs) > 1 else "",
    )


def _title(run: Mapping[str, Any], excess: Mapping[str, Any]) -> str:
    text = (
        f"{run['at']} {run['audit_name']}: {told.number(excess['before'])} "
        f"units over quota before, {told.number(excess['after'])} after, "
        f"{run['moved']} of {run['planned']} moved"
    )
    if run["late_seconds"] is not None:
        text += f", {told.duration(run['late_seconds'])} late"
    if run["overlaps"]:
        text += ", met a plan that was being carried out"
    return text
