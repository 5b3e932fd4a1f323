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

"""Tables of the documentation that are read from the code.

``audit-parameters``
    the audit parameters, from ``watcher_cputier.parameters.PARAMETERS``
``efficacy-indicators``
    the indicators, from ``watcher_cputier.goals.indicators``
``entry-points``
    the plugins of the package, from its installed metadata
``scenario-format``
    the format of scenarios, from ``watcher_cputier.scenario.SCHEMA``
"""

import ast
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import metadata
import inspect
import json
import pathlib
from typing import Any

from docutils import nodes
from docutils import statemachine
from sphinx import application
from sphinx.util import docutils

from watcher_cputier import parameters
from watcher_cputier import scenario
from watcher_cputier.goals import indicators

PACKAGE = pathlib.Path(__file__).parents[2] / "watcher_cputier"


class Table(docutils.SphinxDirective):
    """A list-table, one row a record."""

    has_content = False
    header: Sequence[str]
    widths: Sequence[int]

    def rows(self) -> Iterator[Sequence[str]]:
        """Cells in reStructuredText."""
        raise NotImplementedError

    def lines(self) -> Iterator[str]:
        """The directive in reStructuredText."""
        yield from self.table(self.rows())

    def table(self, rows: Iterable[Sequence[str]]) -> Iterator[str]:
        """One table in reStructuredText."""
        yield from (
            ".. list-table::",
            "   :header-rows: 1",
            f"   :widths: {' '.join(str(width) for width in self.widths)}",
            "",
        )
        for cells in (self.header, *rows):
            for index, cell in enumerate(cells):
                yield f"   {'*' if index == 0 else ' '} - {cell}"

    def run(self) -> list[nodes.Node]:
        lines = list(self.lines())
        self.env.note_dependency(self._source())
        parent = nodes.Element()
        self.state.nested_parse(
            statemachine.StringList(lines, source=self._source()), 0, parent
        )
        return parent.children

    def _source(self) -> str:
        return inspect.getsourcefile(inspect.getmodule(self.rows)) or ""


class AuditParameters(Table):
    """Name, type, default and meaning of each audit parameter."""

    header = ("Parameter", "Takes", "Default", "Meaning")
    widths = (22, 22, 14, 42)

    def rows(self) -> Iterator[Sequence[str]]:
        for parameter in parameters.PARAMETERS:
            yield (
                f"``{parameter.name}``",
                words(parameter.schema),
                f"``{json.dumps(parameter.default)}``",
                parameter.help.replace("`", "``"),
            )


class EfficacyIndicators(Table):
    """Name, unit and meaning of each efficacy indicator."""

    header = ("Indicator", "Unit", "Meaning")
    widths = (38, 10, 52)

    def rows(self) -> Iterator[Sequence[str]]:
        of_tier = indicators.of_tier("<tier>")
        for indicator in (*indicators.QUOTA, *indicators.STARVATION, *of_tier):
            yield (
                f"``{indicator.name}``",
                indicator.unit or "count",
                indicator.description,
            )


class EntryPoints(Table):
    """Name and purpose of each entry point, namespace by namespace."""

    header = ("Name", "What it is")
    widths = (36, 64)

    def lines(self) -> Iterator[str]:
        found = metadata.distribution("watcher-cputier").entry_points
        for group in sorted({point.group for point in found}):
            yield f".. rubric:: ``{group}``"
            yield ""
            yield from self.table(
                (f"``{point.name.replace('_', ' ')}``", _purpose(point))
                if group.startswith("openstack.tier")
                else (f"``{point.name}``", _purpose(point))
                for point in sorted(found.select(group=group))
            )
            yield ""

    def rows(self) -> Iterator[Sequence[str]]:
        """None: there is a table for each namespace."""
        return iter(())


def _purpose(point: metadata.EntryPoint) -> str:
    """The first paragraph of what is said of an entry point in its code.

    Nothing is imported: what a plugin needs is not here.
    """
    parts = point.module.split(".")[1:]
    path = PACKAGE.joinpath(*parts, "__init__.py")
    if not path.is_file():
        path = PACKAGE.joinpath(*parts).with_suffix(".py")
    tree: ast.AST = ast.parse(path.read_text(encoding="utf-8"))
    for name in point.attr.split(".") if point.attr else ():
        tree = next(
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef | ast.FunctionDef)
            and node.name == name
        )
    assert isinstance(tree, ast.Module | ast.ClassDef | ast.FunctionDef)
    told = ast.get_docstring(tree) or ""
    return " ".join(told.split("\n\n")[0].split())


class ScenarioFormat(Table):
    """Key, type and meaning of each part of a scenario, part by part."""

    header = ("Key", "Takes", "Meaning")
    widths = (24, 26, 50)

    def lines(self) -> Iterator[str]:
        for part in parts(scenario.SCHEMA):
            yield f".. rubric:: {part['title'].capitalize()}"
            yield ""
            yield from self.table(self._keys(part))
            yield ""

    def rows(self) -> Iterator[Sequence[str]]:
        """Those of the scenario itself."""
        yield from self._keys(scenario.SCHEMA)

    def _keys(self, part: Mapping[str, Any]) -> Iterator[Sequence[str]]:
        for name, schema in part["properties"].items():
            required = name in part.get("required", ())
            yield (
                f"``{name}``" + (" (required)" if required else ""),
                takes(schema),
                schema["description"],
            )


def parts(schema: Any) -> Iterator[Mapping[str, Any]]:
    """The schemas of all kinds of records, each once, outer ones first."""
    seen: set[str] = set()
    waiting = [schema]
    while waiting:
        one = waiting.pop(0)
        if isinstance(one, list):
            waiting.extend(one)
        if not isinstance(one, dict):
            continue
        if one.get("type") == "object" and isinstance(one.get("title"), str):
            if one["title"] in seen:
                continue
            seen.add(one["title"])
            yield one
        waiting.extend(one.values())


_KINDS = {
    "boolean": "true or false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "string": "text",
}


def takes(schema: Mapping[str, Any]) -> str:
    """What a key of a scenario takes."""
    if "anyOf" in schema:
        return " or ".join(takes(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"``{json.dumps(v)}``" for v in schema["enum"])
    if "title" in schema:
        return str(schema["title"])
    if schema["type"] == "array":
        return f"list of: {takes(schema['items'])}"
    if schema["type"] == "object":
        if "additionalProperties" not in schema:
            return "map"
        return f"map of name to: {takes(schema['additionalProperties'])}"
    kinds = schema["type"]
    names = [kinds] if isinstance(kinds, str) else kinds
    return " or ".join(_KINDS[name] for name in names)


def words(schema: Mapping[str, Any]) -> str:
    """A JSON schema as an operator would say it."""
    if "anyOf" in schema:
        return " or ".join(words(one) for one in schema["anyOf"])
    if "enum" in schema:
        return " or ".join(f"``{json.dumps(v)}``" for v in schema["enum"])
    kind = schema["type"]
    if schema.get("pattern", "").endswith("%$"):
        return "percentage"
    if kind == "array":
        return f"list of {schema['items']['type']}s"
    if kind == "object":
        (value,) = schema["patternProperties"].values()
        return f"map of name to {words(value)}"
    return kind + _limits(schema)


def _limits(schema: Mapping[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    if low is not None:
        return f", at least {low}"
    if high is not None:
        return f", at most {high}"
    return ""


def setup(app: application.Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("audit-parameters", AuditParameters)
    app.add_directive("entry-points", EntryPoints)
    app.add_directive("efficacy-indicators", EfficacyIndicators)
    app.add_directive("scenario-format", ScenarioFormat)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
