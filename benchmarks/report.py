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

"""What a benchmark found: tables, goals, and how they are shown.

A :class:`Report` collects tables of plain numbers. The terminal and Markdown
show them formatted, JSON has them as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib
from typing import Any

import rich.console
import rich.markup
import rich.table

_WIDTH = 100
TEXT = ""
COUNT = ",d"
SECONDS = ",.3f"
MEGABYTES = ",.2f"
WHOLE = ",.0f"
RATIO = ",.1f"

Cell = str | int | float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """A column: its header and the format of its numbers."""

    name: str
    layout: str = TEXT

    def show(self, cell: Cell) -> str:
        """A cell as people read it; nothing where it makes no sense."""
        if cell is None:
            return ""
        if isinstance(cell, str):
            return cell
        return format(cell, self.layout) + self.suffix

    @property
    def suffix(self) -> str:
        """Ratios are told from numbers."""
        return "x" if self.name.endswith("ratio") else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """Rows of numbers under one title, with what explains them."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def to_data(self) -> dict[str, Any]:
        """The table with its numbers unformatted."""
        names = [column.name for column in self.columns]
        return {
            "title": self.title,
            "note": self.note,
            "rows": [dict(zip(names, row, strict=True)) for row in self.rows],
        }

    def shown(self) -> list[list[str]]:
        """The formatted rows."""
        return [
            [c.show(cell) for c, cell in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def to_markdown(self) -> str:
        """The table as Markdown."""
        rules = [
            "---" if column.layout == TEXT else "---:"
            for column in self.columns
        ]
        lines = [
            _row([column.name for column in self.columns]),
            _row(rules),
            *(_row(cells) for cells in self.shown()),
        ]
        if self.note:
            lines += ["", self.note]
        return "\n".join([f"### {self.title}", "", *lines])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclasses.dataclass(frozen=True, slots=True)
class Goal:
    """What was to be reached, what was measured, whether it suffices."""

    text: str
    measured: str
    held: bool


class Report:
    """Everything that one run found, shown as soon as it is known.

    :ivar wrong: results that contradict each other; a benchmark of wrong
        results is worth nothing, so the run fails
    """

    def __init__(self) -> None:
        self._console = rich.console.Console(
            width=None if rich.console.Console().is_terminal else _WIDTH,
            highlight=False,
        )
        self.tables: list[Table] = []
        self.goals: list[Goal] = []
        self.wrong: list[str] = []

    def title(self, text: str) -> None:
        """A new benchmark begins."""
        self._console.print()
        self._console.rule(f"[bold]{_plain(text)}", align="left")

    def progress(self, text: str) -> None:
        """A step that takes a while."""
        self._console.print(f"[dim]... {_plain(text)}")

    def add(self, table: Table) -> None:
        """Keep and print a table."""
        self.tables.append(table)
        drawn = rich.table.Table(
            title=_plain(table.title), title_justify="left"
        )
        for column in table.columns:
            drawn.add_column(
                column.name,
                justify="left" if column.layout == TEXT else "right",
            )
        for cells in table.shown():
            drawn.add_row(*(_plain(cell) for cell in cells))
        self._console.print()
        self._console.print(drawn)
        if table.note:
            self._console.print(f"[dim]{_plain(table.note)}")

    def judge(self, text: str, measured: str, held: bool) -> None:
        """Keep and print whether a goal is reached."""
        self.goals.append(Goal(text, measured, held))
        mark = "[green]reached:" if held else "[bold red]MISSED: "
        self._console.print(f"{mark}[/] {_plain(text)}: {_plain(measured)}")

    def prove(self, text: str, differences: Sequence[str]) -> None:
        """Keep and print whether two results are the same."""
        if not differences:
            self._console.print(f"[green]proven: [/] {_plain(text)}")
            return
        self.wrong.append(text)
        self._console.print(
            f"[bold red]NOT TRUE:[/] {_plain(text)}: "
            f"{_plain('; '.join(differences[:5]))}"
            f" ({len(differences)} differences)"
        )

    def write(self, directory: pathlib.Path, machine: dict[str, str]) -> None:
        """Write ``results.json`` and ``results.md``."""
        directory.mkdir(parents=True, exist_ok=True)
        data = {
            "machine": machine,
            "tables": [table.to_data() for table in self.tables],
            "goals": [dataclasses.asdict(goal) for goal in self.goals],
            "wrong": self.wrong,
        }
        (directory / "results.json").write_text(
            json.dumps(data, indent=2) + "\n", "utf-8"
        )
        (directory / "results.md").write_text(self._markdown(machine), "utf-8")
        self.progress(f"written: {directory}/results.json, results.md")

    def _markdown(self, machine: dict[str, str]) -> str:
        parts = [
            "\n".join(f"* {key}: {text}" for key, text in machine.items()),
            *(table.to_markdown() for table in self.tables),
        ]
        if self.goals:
            parts.append(
                "\n".join(
                    [
                        "### Goals",
                        "",
                        _row(["goal", "measured", "reached"]),
                        _row(["---", "---", "---"]),
                        *(
                            _row([g.text, g.measured, _yes(g.held)])
                            for g in self.goals
                        ),
                    ]
                )
            )
        return "\n\n".join(parts) + "\n"


def _yes(held: bool) -> str:
    return "yes" if held else "**no**"


def _plain(text: str) -> str:
    return rich.markup.escape(text)
