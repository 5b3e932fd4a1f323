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

"""What the demo prints: titles, commands, tables and checked claims."""

import rich.console
import rich.markup
import rich.table

_WIDTH = 100


class Screen:
    """A terminal, or a log of fixed width where there is none."""

    def __init__(self) -> None:
        self._console = rich.console.Console(
            width=None if rich.console.Console().is_terminal else _WIDTH,
            highlight=False,
        )

    def title(self, text: str) -> None:
        """A new chapter."""
        self._console.print()
        self._console.rule(f"[bold]{_plain(text)}", align="left")

    def say(self, text: str) -> None:
        """One line."""
        self._console.print(_plain(text), soft_wrap=True)

    def progress(self, text: str) -> None:
        """A step that takes a while."""
        self._console.print(f"[dim]... {_plain(text)}")

    def command(self, text: str) -> None:
        """A command as it is run."""
        self._console.print(f"[bold cyan]$ {_plain(text)}", soft_wrap=True)

    def output(self, text: str) -> None:
        """What a command printed."""
        if text.strip():
            self._console.print(_plain(text.rstrip()), soft_wrap=True)

    def error(self, text: str) -> None:
        """Why the demo ends here."""
        self._console.print(f"[bold red]{_plain(text)}", soft_wrap=True)

    def claim(self, text: str, held: bool) -> None:
        """A claim that was checked."""
        mark = "[green]checked:" if held else "[bold red]NOT TRUE:"
        self._console.print(f"{mark}[/] {_plain(text)}", soft_wrap=True)

    def table(self, title: str, rows: list[list[str]]) -> None:
        """A table, its first row the header; what is over quota in red."""
        drawn = rich.table.Table(title=title, title_justify="left")
        for name in rows[0]:
            drawn.add_column(
                name, justify="left" if name in _WORDS else "right"
            )
        for row in rows[1:]:
            style = "red" if row[-1].startswith("over") else ""
            drawn.add_row(*(_plain(cell) for cell in row), style=style)
        self._console.print(drawn)


_WORDS = ("host", "state", "instance", "from", "to", "when", "waits for")


def _plain(text: str) -> str:
    return rich.markup.escape(text)
