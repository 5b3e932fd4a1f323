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

"""Text for a terminal, or for a file or another program.

A terminal gets lines that fit its width, cells folded where they have to
be. A pipe gets one line for each row and sentence, however long, so that
grep finds what belongs together.
"""

from collections.abc import Callable, Sequence
import io
import sys

from rich import box
from rich import console
from rich import markup
from rich import padding
from rich import table

# Wider than any row; a table takes what it needs.
_NO_LIMIT = 100_000
_WORDS = ("host", "state", "instance", "from", "to", "why")


class Page:
    """What is laid out, top to bottom."""

    def __init__(self, target: console.Console) -> None:
        self._console = target

    def title(self, text: str) -> None:
        """A new part, after an empty line."""
        self._console.print()
        if text:
            self._console.print(f"[bold]{_plain(text)}")

    def item(self, text: str, level: int = 0) -> None:
        """One sentence, its continuation indented."""
        self._console.print(
            padding.Padding(_plain(text), (0, 0, 0, 2 * level), expand=False)
        )

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """A table, its first row the header."""
        drawn = table.Table(
            box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
        )
        for name in rows[0]:
            drawn.add_column(
                _plain(name),
                justify="left" if name in _WORDS else "right",
                overflow="fold",
            )
        for row in rows[1:]:
            style = "red" if row[-1].startswith("over") else ""
            drawn.add_row(*map(_plain, row), style=style)
        self._console.print(drawn)


def rendered(lay_out: Callable[[Page], None], width: int | None = None) -> str:
    """The text of a page.

    :param width: columns; None for the terminal's, without limit where
        standard output is none
    """
    terminal = width is None and sys.stdout.isatty()
    written = io.StringIO()
    target = console.Console(
        file=written,
        force_terminal=terminal,
        width=width or (None if terminal else _NO_LIMIT),
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    lay_out(Page(target))
    lines = written.getvalue().splitlines()
    return "\n".join(line.rstrip() for line in lines) + "\n"


def printable(text: str) -> str:
    """Text without what steers a terminal."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def encodable(text: str, encoding: str | None) -> str:
    """Text that an output can take; the lines of tables as ASCII."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        plain = text.replace("─", "-")
        return plain.encode(encoding, "backslashreplace").decode(encoding)
    return text


def _plain(text: str) -> str:
    escaped: str = markup.escape(printable(text))
    return escaped
