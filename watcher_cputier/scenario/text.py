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

"""Scenarios as text: YAML or JSON to plain data, plain data to YAML.

JSON is read as JSON, for that is a dozen times faster. Reading refuses what
YAML takes in silence and nobody means: a key that appears twice, a key that
is no text, anchors and aliases (a few lines of which can stand for
gigabytes), numbers that are not finite.

Writing lays a record out on one line where it fits, as YAML's flow style,
so that large scenarios stay short and two of them compare line by line.
"""

from collections.abc import Iterator, Mapping
import functools
import json
import math
import re
from typing import Any, ClassVar

import yaml

from watcher_cputier.scenario import schema
from watcher_cputier.scenario import values

WIDTH = 120
DEPTH = 50
_BASE: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


# Reading


def parse(text: str) -> Any:
    """Plain data out of YAML or JSON.

    :raises ScenarioError: for text that is neither
    """
    document = None
    if text.lstrip().startswith("{"):
        document = _from_json(text)
    if document is None:
        document = _from_yaml(text)
    _check_values(document)
    return document


def _from_json(text: str) -> Any:
    """Plain data; None for what is no JSON, YAML maybe."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise values.ScenarioError(
            f"key {twice!r} appears twice in one map", where="scenario"
        )
    return found


def _from_yaml(text: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe one
    except values.ScenarioError:
        raise
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        raise values.ScenarioError(
            str(exc.problem or exc.context),
            where=_line(mark) if mark else "scenario",
            cure="It has to be YAML or JSON",
        ) from exc
    except Exception as exc:
        # Conversions of tagged or huge values raise whatever they like.
        raise values.ScenarioError(
            " ".join(str(exc).split()) or type(exc).__name__,
            where="scenario",
            cure="It has to be YAML or JSON",
        ) from exc


def _line(mark: Any) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Loader(_BASE):  # type: ignore[misc] # chosen at run time
    """PyYAML's safe loader, strict about keys; dates are text."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag != "tag:yaml.org,2002:timestamp"
        ]
        for first, resolvers in _BASE.yaml_implicit_resolvers.items()
    }

    # The C parser overflows its stack on lists in lists in lists. These two
    # are called for each node, and for paths of tags that nobody uses here.
    _depth = 0

    def descend_resolver(self, parent: Any, index: Any) -> None:
        self._depth += 1
        if self._depth > DEPTH:
            raise values.ScenarioError(
                "lists and maps are nested too deeply", where="scenario"
            )

    def ascend_resolver(self) -> None:
        self._depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            self._refuse_repeated(node)
        return found

    @staticmethod
    def _refuse_repeated(node: Any) -> None:
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise values.ScenarioError(
                    f"key {key.value!r} appears twice in one map",
                    where=_line(key.start_mark),
                )
            seen.add(key.value)


def _check_values(document: Any) -> None:
    """Refuse values that neither JSON nor a scenario has."""
    seen: set[int] = set()
    waiting: list[tuple[Any, tuple[Any, ...]]] = [(document, ())]
    while waiting:
        value, where = waiting.pop()
        if isinstance(value, dict | list):
            if id(value) in seen:
                raise values.ScenarioError(
                    "anchors and aliases are not taken",
                    where=schema.path(where),
                    cure="Write it out",
                )
            seen.add(id(value))
        for key, item in _members(value):
            if isinstance(item, dict | list):
                waiting.append((item, (*where, key)))
            elif isinstance(item, float | str):
                _check_value(item, (*where, key))
            if not isinstance(key, str | int) or (
                isinstance(value, dict) and not isinstance(key, str)
            ):
                raise values.ScenarioError(
                    f"key {key!r} is not text",
                    where=schema.path(where),
                    cure="Put it in quotes",
                )
            if isinstance(key, str) and not key.isascii():
                _check_value(key, where)


def _check_value(value: float | str, where: tuple[Any, ...]) -> None:
    if isinstance(value, str):
        try:
            value.isascii() or value.encode()
        except UnicodeEncodeError:
            raise values.ScenarioError(
                f"{value!r} is no valid text", where=schema.path(where)
            ) from None
    elif not math.isfinite(value):
        raise values.ScenarioError(
            f"{value} is no finite number", where=schema.path(where)
        )


def _members(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


# Writing

# Text that YAML takes as it is, in flow style too: names and uuids.
_PLAIN = re.compile(
    r"(?!(?:true|false|yes|no|y|n|on|off|null)$)[a-z_][a-z0-9_./-]*"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    re.IGNORECASE,
)
# What JSON leaves in quotes as it is and YAML does not.
_UNSAFE = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")
# Keys that are longer as they are written have to be announced, in flow
# style for simplicity; YAML looks for the colon 1024 characters far.
_LONGEST_KEY = 500


def render(document: Mapping[str, Any]) -> str:
    """Plain data as YAML text, in the order of its keys."""
    lines: list[str] = []
    for key, value in document.items():
        _block(lines, f"{_key(key)}:", value, "")
    return "\n".join(lines) + "\n"


def _block(lines: list[str], head: str, value: Any, indent: str) -> None:
    """A value under a head: beside it where that fits, else below.

    Members of the document's own lists begin a line in any case.
    """
    if indent or not _nested(value):
        flow = _flow(value)
        if len(indent + head) + len(flow) < WIDTH or not _breakable(value):
            lines.append(f"{indent}{head} {flow}")
            return
    if head == "-":
        _below_dash(lines, value, indent)
        return
    lines.append(indent + head)
    if isinstance(value, dict):
        for key, item in value.items():
            _block(lines, f"{_key(key)}:", item, indent + "  ")
    else:
        for item in value:
            _block(lines, "-", item, indent + "  ")


def _nested(value: Any) -> bool:
    """Whether some member of a value has members itself."""
    return isinstance(value, dict | list) and any(
        isinstance(item, dict | list) for _, item in _members(value)
    )


def _breakable(value: Any) -> bool:
    """Whether a value can be laid out on several lines."""
    if isinstance(value, dict):
        return bool(value) and not any(map(_is_long, map(_scalar, value)))
    return isinstance(value, list) and bool(value)


def _below_dash(
    lines: list[str], value: dict[str, Any] | list[Any], indent: str
) -> None:
    """A member of a list that does not fit on one line."""
    first = len(lines)
    if isinstance(value, dict):
        for key, item in value.items():
            _block(lines, f"{_key(key)}:", item, indent + "  ")
    else:
        for item in value:
            _block(lines, "-", item, indent + "  ")
    lines[first] = f"{indent}- {lines[first][len(indent) + 2 :]}"


def _flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, str):
        return _scalar(value)
    if isinstance(value, dict):
        items = (f"{_key(k)}: {_flow(v)}" for k, v in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    if isinstance(value, float):
        # YAML's numbers have a point before the exponent.
        text = repr(value)
        return text if "." in text else text.replace("e", ".0e")
    return json.dumps(value)


@functools.lru_cache(maxsize=4096)
def _key(text: str) -> str:
    found = _scalar(text)
    return f"? {found} " if _is_long(found) else found


def _is_long(key: str) -> bool:
    """Whether a key, as it is written, is too long to stand for itself."""
    return len(key) > _LONGEST_KEY


@functools.lru_cache(maxsize=65536)
def _scalar(text: str) -> str:
    if _PLAIN.fullmatch(text):
        return text
    return _UNSAFE.sub(
        lambda found: f"\\u{ord(found[0]):04x}",
        json.dumps(text, ensure_ascii=False),
    )
