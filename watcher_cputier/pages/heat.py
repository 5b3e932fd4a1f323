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

"""The heat map: hosts and tiers, before and after.

A cell is darker the fuller it is; a quota that is exceeded, nearly reached,
unknown or absent has a sign of its own, so that neither colour nor a good
eye is needed. Few hosts are rows of a table with their numbers. Many are
squares, in the same order in every panel, and a table has those that need
attention.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
from typing import Any

from watcher_cputier import offer
from watcher_cputier.pages import told

#: Up to so many hosts every one has a row.
MOST_ROWS = 40

_NEAR = f"{offer.NEAR_FRACTION:.0%}".replace("%", " %")
#: Class of a cell: its sign and what it means.
LEVELS: Mapping[str, tuple[str, str]] = {
    "q0": ("", "less than 25 % of the quota"),
    "q1": ("", "25 to 50 %"),
    "q2": ("", "50 to 75 %"),
    "q3": ("", f"75 to {_NEAR}"),
    "n": ("◆", f"near: {_NEAR} or more"),
    "o": ("▲", "over quota"),
    "d": ("○", "drained and empty"),
    "u": ("?", "quota unknown"),
    "x": ("∞", "no quota"),
}
_ALWAYS = ("q0", "q1", "q2", "q3", "n", "o")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One host in one account.

    :param after: units held once the plan is done; None where there is none
    """

    account: str
    held: int
    quota: int | None
    state: str
    after: int | None = None
    state_after: str = ""

    @property
    def changed(self) -> bool:
        """Whether the plan changes what is held."""
        return self.after is not None and self.after != self.held

    @property
    def excess(self) -> int:
        """Units above the quota; 0 where it is unknown."""
        return 0 if self.quota is None else max(0, self.held - self.quota)

    @property
    def fill(self) -> float:
        """Units held by units that may be held, to sort by."""
        return self.held / self.quota if self.quota else 0.0

    @property
    def level(self) -> str:
        """The class of the cell as it is."""
        return _level(self.state, self.held, self.quota)

    @property
    def level_after(self) -> str:
        """The class of the cell once the plan is done."""
        if self.after is None:
            return self.level
        return _level(self.state_after, self.after, self.quota)

    @property
    def limit(self) -> str:
        """The quota in words that fit a cell."""
        if self.quota is not None:
            return told.number(self.quota)
        return "?" if self.state == offer.UNKNOWN else "∞"

    @property
    def text(self) -> str:
        """Units held and the quota."""
        return f"{told.number(self.held)} / {self.limit}"

    @property
    def text_after(self) -> str:
        """The same once the plan is done."""
        units = self.held if self.after is None else self.after
        return f"{told.number(units)} / {self.limit}"

    @property
    def tip(self) -> str:
        """What is behind the square, in one line."""
        change = f" → {told.number(self.after)}" if self.changed else ""
        limit = f"of {self.limit}"
        if self.quota is None:
            limit = LEVELS[self.level][1]
        return f"{told.number(self.held)}{change} {limit}"


def level_of(held: int | None, quota: int | None) -> str:
    """The class of units held, where nothing else is known of a host."""
    if held is None:
        return "u"
    one = offer.Standing(host="", account="", held=held, quota=quota)
    return _level(one.state, held, quota)


def _level(state: str, held: int, quota: int | None) -> str:
    known = {
        offer.OVER: "o",
        offer.NEAR: "n",
        offer.UNKNOWN: "u",
        offer.DRAINED: "d",
    }
    if state in known:
        return known[state]
    if quota is None:
        return "x"
    return f"q{min(3, held * 4 // quota) if quota else 0}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One host.

    :param notes: what else there is to know, in few words
    :param starved: its instances that do not get what was sold; None where
        nobody looked
    :param short_cpus: what those lack together
    :param moves: migrations that it is source or target of
    """

    host: str
    cells: tuple[Cell, ...]
    notes: tuple[str, ...]
    starved: int | None
    short_cpus: float | None
    moves: int

    @property
    def heat(self) -> tuple[Any, ...]:
        """Hot hosts come first."""
        return (
            -sum(cell.excess for cell in self.cells),
            -(self.short_cpus or 0.0),
            -max((cell.fill for cell in self.cells), default=0.0),
            self.host,
        )

    @property
    def calls(self) -> bool:
        """Whether somebody should look at it."""
        return bool(
            self.notes
            or self.starved
            or self.moves
            or any(
                state in (offer.OVER, offer.UNKNOWN)
                for cell in self.cells
                for state in (cell.state, cell.state_after)
            )
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One account over all hosts.

    :param held: units, all hosts together
    :param quota: of hosts whose quota is known
    :param before: {state: hosts}, of states that occur
    :param after: the same once the plan is done; empty where there is none
    """

    account: str
    place: int
    held: int
    quota: int
    before: Mapping[str, int]
    after: Mapping[str, int]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """All hosts, the hottest first.

    :param planned: whether there is an after
    """

    rows: tuple[Row, ...]
    panels: tuple[Panel, ...]
    planned: bool

    @property
    def dense(self) -> bool:
        """Whether there are too many hosts for a row each."""
        return len(self.rows) > MOST_ROWS

    @property
    def calling(self) -> tuple[Row, ...]:
        """Those that need attention."""
        return tuple(row for row in self.rows if row.calls)

    @property
    def legend(self) -> list[tuple[str, str, str]]:
        """Class, sign and meaning of what is on the map."""
        used = {
            level
            for row in self.rows
            for cell in row.cells
            for level in (cell.level, cell.level_after)
        }
        return [
            (name, *LEVELS[name])
            for name in LEVELS
            if name in _ALWAYS or name in used
        ]


def draw(
    hosts: Sequence[Mapping[str, Any]],
    *,
    starved: Iterable[Mapping[str, Any]] | None = None,
    migrations: Iterable[Mapping[str, Any]] = (),
) -> Map:
    """The map of a document's hosts.

    :param starved: the document's starved instances; None where nobody
        looked
    :param migrations: those of the plan
    """
    lacking: dict[str, list[float]] = {}
    for one in starved or ():
        lacking.setdefault(one["host"], []).append(one["deficit_cpus"] or 0.0)
    moves: dict[str, int] = {}
    for one in migrations:
        for end in ("source", "target"):
            moves[one[end]] = moves.get(one[end], 0) + 1
    rows = []
    for host in hosts:
        lacks = lacking.get(host["name"], [])
        rows.append(
            Row(
                host=host["name"],
                cells=tuple(
                    _cell(account, told_)
                    for account, told_ in host["accounts"].items()
                ),
                notes=tuple(_notes(host)),
                starved=None if starved is None else len(lacks),
                short_cpus=None if starved is None else sum(lacks),
                moves=moves.get(host["name"], 0),
            )
        )
    rows.sort(key=lambda row: row.heat)
    planned = any(c.after is not None for row in rows for c in row.cells)
    accounts = [cell.account for cell in rows[0].cells] if rows else []
    return Map(
        rows=tuple(rows),
        panels=tuple(
            _panel(place, [row.cells[place] for row in rows], planned)
            for place, _ in enumerate(accounts)
        ),
        planned=planned,
    )


def _cell(account: str, found: Mapping[str, Any]) -> Cell:
    return Cell(
        account=account,
        held=found["held"],
        quota=found["quota"],
        state=found["state"],
        after=found.get("after"),
        state_after=found.get("state_after", ""),
    )


def _notes(host: Mapping[str, Any]) -> Iterable[str]:
    if host["drained"] is not None:
        yield f"drained: {host['drained']}"
    if not host["enabled"]:
        yield "service disabled"
    if not host["up"]:
        yield "service down"


def _panel(place: int, cells: Sequence[Cell], planned: bool) -> Panel:
    def counted(states: Iterable[str]) -> dict[str, int]:
        found = list(states)
        return {s: found.count(s) for s in offer.STATES if s in found}

    return Panel(
        account=cells[0].account,
        place=place,
        held=sum(cell.held for cell in cells),
        quota=sum(cell.quota or 0 for cell in cells),
        before=counted(cell.state for cell in cells),
        after=counted(cell.state_after for cell in cells) if planned else {},
    )
