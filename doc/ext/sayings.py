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

"""What the code can say: errors, kinds of findings, names of rules.

Nothing is imported: where a call has a text it is taken from the syntax tree.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import TypeVar

PACKAGE = pathlib.Path(__file__).parents[2] / "watcher_cputier"
HOLE = "…"
_Node = TypeVar("_Node", bound=ast.AST)
# Functions that make an error from a text: (position of what, of the cure).
_MAKERS: Mapping[str, tuple[int, int | None]] = {
    "unexpected": (1, None),
    "_error": (1, 2),
}
# What the function adds on its own.
_CURES = {"unexpected": "Check what listens at the service's endpoint"}


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One error that the code can raise.

    :param module: path relative to the package
    :param kind: class of the error, or the function that makes it
    """

    module: str
    line: int
    kind: str
    where: str
    what: str
    cure: str


def error_kinds() -> tuple[str, ...]:
    """Names of all classes of errors, by name."""
    found = {"TierError"}
    classes = [
        node for _, tree in _trees() for node in _of(tree, ast.ClassDef)
    ]
    while True:
        more = {
            one.name
            for one in classes
            if found & {_name(base) for base in one.bases}
        } - found
        if not more:
            return tuple(sorted(found))
        found |= more


def messages() -> Iterator[Message]:
    """Every error that is made somewhere, by module and line."""
    kinds = set(error_kinds())
    for module, tree in _trees():
        for call in _of(tree, ast.Call):
            name = _name(call.func)
            if name not in kinds and name not in _MAKERS:
                continue
            what, cure = _MAKERS.get(name, (0, None))
            named = {one.arg: one.value for one in call.keywords}
            told = _text(_argument(call, what), module)
            if not told.strip(HOLE + " ;"):
                # The words are somebody else's.
                continue
            yield Message(
                module=module,
                line=call.lineno,
                kind=name,
                where=_text(named.get("where"), module),
                what=told,
                cure=_text(named.get("cure") or _argument(call, cure), module)
                or _CURES.get(name, ""),
            )


def finding_kinds() -> tuple[str, ...]:
    """Kinds of the findings of audits."""
    return tuple(sorted(set(_told(("Finding", "_find"), "kind", ("lint",)))))


def drift_kinds() -> tuple[str, ...]:
    """Kinds of what ``openstack tier lint`` lists of its own."""
    return tuple(
        sorted(
            {
                kind
                for module, tree in _trees()
                if module.startswith("lint/")
                for call in _of(tree, ast.Call)
                for kind in _values(call, "kind", tree)
            }
        )
    )


def rules() -> tuple[str, ...]:
    """Names of the rules that reject a target or keep an instance."""
    return tuple(
        sorted(set(_told(("Rejection",), "rule", ("extensions.py",))))
    )


def _told(
    makers: Sequence[str], key: str, without: Sequence[str]
) -> Iterator[str]:
    for module, tree in _trees():
        if module.startswith(tuple(without)):
            continue
        for call in _of(tree, ast.Call):
            if _name(call.func) in makers:
                yield from _values(call, key, tree)


def _values(call: ast.Call, key: str, tree: ast.Module) -> Iterator[str]:
    """The texts that an argument may be, through names of the module."""
    named = {one.arg: one.value for one in call.keywords}
    value = named.get(key)
    if value is None and _name(call.func) == "_find":
        value = _argument(call, 0)
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.Name):
        yield from _assigned(value.id, tree, set())


def _assigned(name: str, tree: ast.Module, seen: set[str]) -> Iterator[str]:
    """What a name of the module may stand for, wherever it is set."""
    seen.add(name)
    for node in _of(tree, ast.Assign):
        if any(_name(target) == name for target in node.targets):
            if isinstance(node.value, ast.Constant):
                yield str(node.value.value)
            elif isinstance(node.value, ast.Name) and (
                node.value.id not in seen
            ):
                yield from _assigned(node.value.id, tree, seen)


@functools.cache
def _trees() -> tuple[tuple[str, ast.Module], ...]:
    return tuple(
        (
            str(path.relative_to(PACKAGE)),
            ast.parse(path.read_text(encoding="utf-8")),
        )
        for path in sorted(PACKAGE.rglob("*.py"))
    )


def _of(tree: ast.AST, kind: type[_Node]) -> Iterator[_Node]:
    return (node for node in ast.walk(tree) if isinstance(node, kind))


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _argument(call: ast.Call, place: int | None) -> ast.AST | None:
    if place is None or place >= len(call.args):
        return None
    return call.args[place]


@functools.cache
def _constants() -> Mapping[str, Mapping[str, str]]:
    """{module: {name: text}}, of names that are set once and for all."""
    return {
        module: {
            _name(node.targets[0]): node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        }
        for module, tree in _trees()
    }


@functools.cache
def _aliases(module: str) -> Mapping[str, str]:
    """{name in a module: the module that it stands for}."""
    tree = dict(_trees())[module]
    return {
        one.asname or one.name: "/".join(
            [*str(node.module).split(".")[1:], f"{one.name}.py"]
        )
        for node in _of(tree, ast.ImportFrom)
        if str(node.module).startswith(PACKAGE.name)
        for one in node.names
    }


def _filled(node: ast.AST, module: str) -> str:
    """What is filled in, where that is always the same."""
    if isinstance(node, ast.Name):
        return _constants()[module].get(node.id, HOLE)
    if isinstance(node, ast.Attribute):
        other = _aliases(module).get(_name(node.value), "")
        return _constants().get(other, {}).get(node.attr, HOLE)
    return HOLE


def _text(node: ast.AST | None, module: str) -> str:
    """What an expression says, with ellipses for what is filled in."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        told = "".join(
            str(part.value)
            if isinstance(part, ast.Constant)
            else _filled(part.value, module)
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
        return told.replace(HOLE + HOLE, HOLE)
    if isinstance(node, ast.BinOp):
        told = _text(node.left, module) + _text(node.right, module)
        return told.replace(HOLE + HOLE, HOLE)
    if isinstance(node, ast.IfExp):
        return f"{_text(node.body, module)} / {_text(node.orelse, module)}"
    return _filled(node, module)
