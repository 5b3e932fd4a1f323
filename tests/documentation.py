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

"""The commands that the documentation tells people to type.

A console block is a list of commands, each behind ``$``, with what it prints
below it; ``...`` in there stands for anything. A comment right before the
block says what a reader need not see::

    .. elsewhere: a compute host      it needs another machine: not run
    .. exit status: 1                 the last command ends so

and the same as ``<!-- ... -->`` in Markdown. A block whose prompt is ``#`` is
for the root of some machine, and not run either.
"""

from collections.abc import Iterator
import dataclasses
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[1]
SOURCE = ROOT / "doc" / "source"

_BLOCK = re.compile(r"^(?P<indent> *)(?:\.\. code-block:: console|```console)")
_COMMENT = re.compile(
    r"^ *(?:\.\.|<!--) (?P<key>elsewhere|exit status): (?P<value>.*?)"
    r"(?: -->)?$"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command of a block.

    :param line: where it stands, from 1
    :param text: as the shell gets it, of several lines perhaps
    :param output: what it prints; empty where that is not shown
    :param status: the exit status that it ends with
    """

    line: int
    text: str
    output: str
    status: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One console block.

    :param page: relative to the repository
    :param elsewhere: the machine that it needs; empty where it is run
    """

    page: str
    elsewhere: str
    commands: tuple[Command, ...]


def pages() -> tuple[pathlib.Path, ...]:
    """All pages that may have commands: the readme, then by name."""
    return (ROOT / "README.md", *sorted(SOURCE.rglob("*.rst")))


def blocks(page: pathlib.Path) -> Iterator[Block]:
    """The console blocks of a page, in order."""
    lines = page.read_text(encoding="utf-8").splitlines()
    number = 0
    while number < len(lines):
        found = _BLOCK.match(lines[number])
        number += 1
        if found is None:
            continue
        marks = _marks(lines[: number - 1])
        begin, number = number, _end(lines, number, found)
        commands = _commands(
            lines[begin:number], begin, int(marks.get("exit status", "0"))
        )
        of_root = _prompt(lines[begin:number]) == "#"
        yield Block(
            page=str(page.relative_to(ROOT)),
            elsewhere=marks.get("elsewhere", "root" if of_root else ""),
            commands=tuple(commands),
        )


def _marks(before: list[str]) -> dict[str, str]:
    """The comments that end right before a block."""
    marks = {}
    for line in reversed(before):
        found = _COMMENT.match(line)
        if found is not None:
            marks[found["key"]] = found["value"]
        elif line.strip():
            break
    return marks


def _end(lines: list[str], begin: int, found: re.Match[str]) -> int:
    """The number of the first line behind a block."""
    indent = len(found["indent"])
    for number in range(begin, len(lines)):
        line = lines[number]
        if found[0].endswith("```console"):
            if line.strip() == "```":
                return number
        elif line.strip() and len(line) - len(line.lstrip()) <= indent:
            return number
    return len(lines)


def _prompt(lines: list[str]) -> str:
    """What a block's commands stand behind."""
    return next((ln.split()[0] for ln in lines if ln.strip()), "")


def _commands(lines: list[str], offset: int, status: int) -> Iterator[Command]:
    """Commands and their output; the status is that of the last one."""
    margin = min(
        (len(ln) - len(ln.lstrip()) for ln in lines if ln.strip()), default=0
    )
    prompt = "# " if _prompt(lines) == "#" else "$ "
    drafts: list[tuple[int, list[str], list[str]]] = []
    continued = False
    for number, line in enumerate(lines, offset + 1):
        told = line[margin:]
        if continued:
            drafts[-1][1].append(told)
        elif told.startswith(prompt):
            drafts.append((number, [told[2:]], []))
        elif drafts:
            drafts[-1][2].append(told)
        elif told.strip():
            raise ValueError(f"line {number}: no command before {told!r}")
        continued = bool(drafts) and _goes_on(drafts[-1], told)
    for place, (number, text, output) in enumerate(drafts):
        yield Command(
            line=number,
            text="\n".join(text),
            output="\n".join(output).strip("\n"),
            status=status if place == len(drafts) - 1 else 0,
        )


def _goes_on(draft: tuple[int, list[str], list[str]], line: str) -> bool:
    """Whether the next line belongs to the command as well."""
    if draft[2]:
        return False
    if line.endswith("\\"):
        return True
    # A document that the shell is given up to its mark.
    mark = re.search(r"<< ?'?(\w+)'?", draft[1][0])
    return mark is not None and line != mark[1]


def matches(expected: str, printed: str) -> bool:
    """Whether a command printed what its block shows.

    Blanks and the lengths of rules in tables do not matter, and ``...``
    stands for anything.
    """
    parts = [re.escape(_plain(part)) for part in expected.split("...")]
    return re.fullmatch(" ?.*? ?".join(parts), _plain(printed)) is not None


def _plain(text: str) -> str:
    return re.sub(r"-{2,}", "--", " ".join(text.split()))
