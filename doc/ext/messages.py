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

"""The errors of the code as tables of the documentation.

``messages``
    every error of a part of the package: what is said, and the cure that it
    names. What an error fills in is shown as an ellipsis.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from docutils.parsers.rst import directives
import sayings
from sphinx import application
import tables


class Messages(tables.Table):
    """The errors of some modules: ``:modules:`` names them by prefixes."""

    header = ("What is said", "The cure")
    widths = (55, 45)
    option_spec = {"modules": directives.unchanged_required}  # noqa: RUF012

    def rows(self) -> Iterator[Sequence[str]]:
        """One for each error, in the order of its words."""
        wanted = tuple(self.options["modules"].split())
        seen = {
            (
                _cell(f"{one.where}: {one.what}" if one.where else one.what),
                _cell(_cure(one)),
            )
            for one in sayings.messages()
            if one.module.startswith(wanted)
        }
        yield from sorted(seen)


def _cure(one: sayings.Message) -> str:
    """The cure that an error names, or where it is named."""
    if not one.cure:
        return "Correct what the message names"
    return (
        one.cure
        if one.cure.strip(sayings.HOLE)
        else "The message itself says it"
    )


def _cell(text: str) -> str:
    """Text as such, one line, nothing of it markup."""
    told = " ".join(text.split())
    for character in "\\`*_|":
        told = told.replace(character, "\\" + character)
    # Two hyphens are the beginning of an option, and no dash.
    return told.replace("--", "\\-\\-")


def setup(app: application.Sphinx) -> dict[str, Any]:
    """Register the directive."""
    app.add_directive("messages", Messages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
