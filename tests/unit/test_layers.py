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

"""The layers of watcher_cputier: imports only go down.

    edges    strategies goals planners actions datasources pollsters conf cli
             osc extensions tempest_plugin
    text     audits pages report scenario metrics
    core     guard schedule explanation planner constraints weigher diagnosis
             lending starvation delivery neighbours causes forecast loads
             entitlement accounting
             catalogue offer lint provider_config
    ground   model parameters errors

A module imports from its own layer and from those below. Everything beneath
the edges is pure: it knows neither OpenStack nor the network, the clock, the
log or chance, and so the same snapshot always gives the same plan. The linter
bans the worst (TID251); this test knows the order, and admits to the pure
layers only what is listed here.
"""

import ast
from collections.abc import Iterator
import graphlib
import pathlib
import tomllib

import pytest

import watcher_cputier

ROOT = pathlib.Path(watcher_cputier.__file__).parent
PROJECT = pathlib.Path(__file__).parents[2]
PACKAGE = "watcher_cputier"

GROUND, CORE, TEXT, EDGES = range(4)
LAYERS = {
    GROUND: ("model", "parameters", "errors"),
    CORE: (
        "guard",
        "schedule",
        "explanation",
        "planner",
        "constraints",
        "weigher",
        "diagnosis",
        "lending",
        "starvation",
        "delivery",
        "neighbours",
        "causes",
        "forecast",
        "loads",
        "vetting",
        "entitlement",
        "accounting",
        "catalogue",
        "offer",
        "lint",
        "provider_config",
        "whatif",
        "advice",
    ),
    TEXT: ("audits", "metrics", "pages", "report", "scenario", "suppositions"),
    EDGES: (
        "strategies",
        "goals",
        "planners",
        "actions",
        "datasources",
        "pollsters",
        "conf",
        "cli",
        "osc",
        "extensions",
        "tempest_plugin",
    ),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}

# What a pure module may import from elsewhere, by the top-level name.
PURE = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "decimal",
    "enum",
    "fractions",
    "functools",
    "graphlib",
    "hashlib",
    "heapq",
    "itertools",
    "json",
    "jsonschema",
    "math",
    "numbers",
    "numpy",
    "operator",
    "re",
    "string",
    "textwrap",
    "types",
    "typing",
}
ALSO_PURE = {TEXT: {"yaml"}}
# Modules without state or I/O of packages that are not pure as a whole: the
# matcher of aggregate metadata is the one that Nova compares with.
PURE_MEMBERS = {
    "oslo_utils.specs_matcher",
    "prometheus_client.metrics_core",
    "prometheus_client.parser",
}
# What a single module may use, and no other: the exact mode's solver, where it
# is installed, and the templates of pages, which are the package's own.
OPTIONAL = {
    "planner.exact": {"scipy"},
    "planner.joint": {"scipy"},
    "pages.rendering": {"base64", "importlib", "jinja2", "markupsafe"},
}
# Builtins that reach out of the process, or around the imports.
IMPURE_CALLS = {"__import__", "breakpoint", "eval", "exec", "input", "open"}
IMPURE_CALLS |= {"print"}
# Members of admitted modules that draw lots.
IMPURE_MEMBERS = {"numpy.random"}

# What design and linter ban by name; the allow-list must not let it in.
BANNED = {
    "datetime",
    "gnocchiclient",
    "keystoneauth1",
    "logging",
    "openstack",
    "os",
    "oslo_config",
    "oslo_log",
    "oslo_utils",
    "random",
    "requests",
    "socket",
    "subprocess",
    "threading",
    "time",
    "urllib",
    "watcher",
}

MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts): path
    for path in sorted(ROOT.rglob("*.py"))
}


def _layer(module: str) -> int | None:
    """The layer of ``watcher_cputier.<name>[...]``; None for an unknown."""
    return LAYER_OF.get(module.split(".")[1])


def _imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield node.lineno, "." * node.level
        elif isinstance(node, ast.ImportFrom):
            yield from (
                (node.lineno, f"{node.module}.{alias.name}")
                for alias in node.names
            )


def _judge_import(layer: int, name: str) -> str | None:
    """What is wrong with an import in a module of this layer, if anything."""
    if name.startswith("."):
        return "relative import"
    top, _, rest = name.partition(".")
    if top == PACKAGE:
        if not rest:
            return f"imports {PACKAGE} as a whole"
        target = _layer(name)
        if target is None:
            return f"{name} is in no layer"
        return f"{name} is of a higher layer" if target > layer else None
    if layer == EDGES:
        return None
    if name in PURE_MEMBERS:
        return None
    if name in IMPURE_MEMBERS:
        return f"{name} is not pure"
    if top not in PURE | ALSO_PURE.get(layer, set()):
        return f"{top} is not pure"
    return None


def _judge_calls(layer: int, tree: ast.AST) -> Iterator[str]:
    if layer == EDGES:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in IMPURE_CALLS:
                yield f"line {node.lineno}: calls {node.func.id}()"
        elif isinstance(node, ast.Attribute) and node.attr == "random":
            yield f"line {node.lineno}: uses .random"


def violations(module: str, source: str) -> list[str]:
    """Everything in a module that breaks the layers."""
    tree = ast.parse(source)
    names = module.split(".")
    if names in ([PACKAGE], [PACKAGE, "__init__"]):
        return [f"line {n}: the root imports {i}" for n, i in _imports(tree)]
    layer = _layer(module)
    if layer is None:
        return [f"{module} is in no layer: enter it in LAYERS of {__file__}"]
    optional = OPTIONAL.get(".".join(names[1:]), set())
    found = [
        f"line {line}: {wrong}"
        for line, name in _imports(tree)
        if name.partition(".")[0] not in optional
        if (wrong := _judge_import(layer, name))
    ]
    return found + list(_judge_calls(layer, tree))


@pytest.mark.parametrize("module", MODULES)
def test_module_keeps_to_its_layer(module):
    found = violations(module, MODULES[module].read_text())
    assert not found


def test_imports_have_no_cycle():
    known = {name.removesuffix(".__init__"): name for name in MODULES}
    graph = {}
    for name, full in known.items():
        tree = ast.parse(MODULES[full].read_text())
        graph[name] = {
            # ``from a.b import c``: the module a.b.c, or c of module a.b
            imported if imported in known else imported.rpartition(".")[0]
            for _, imported in _imports(tree)
        } & known.keys()
    graphlib.TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("model", "from watcher_cputier import planner", "higher layer"),
        ("planner", "from watcher_cputier import report", "higher layer"),
        ("planner.swap", "import watcher_cputier.conf.tiers", "higher layer"),
        ("weigher", "from watcher_cputier import datasources", "higher layer"),
        ("report", "from watcher_cputier.cli import x", "higher layer"),
        ("weigher", "import watcher_cputier", "as a whole"),
        ("weigher", "from . import model", "relative import"),
        ("weigher", "def f():\n    import time", "time is not pure"),
        ("weigher", "import datetime", "datetime is not pure"),
        ("weigher", "from oslo_log import log", "oslo_log is not pure"),
        ("weigher", "import urllib.request", "urllib is not pure"),
        ("weigher", "from numpy import random", "numpy.random is not pure"),
        ("weigher", "import numpy\nnumpy.random.rand()", "uses .random"),
        ("diagnosis", "import yaml", "yaml is not pure"),
        ("planner.prices", "import scipy", "scipy is not pure"),
        ("model", "print(1)", "calls print()"),
        ("parameters", "open('x')", "calls open()"),
        ("helper", "", "in no layer"),
        ("strategies.x", "from watcher_cputier import tools", "in no layer"),
    ],
)
def test_a_violation_is_found(module, source, wrong):
    (found,) = violations(f"{PACKAGE}.{module}", source)
    assert wrong in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("planner", "from watcher_cputier.constraints import capacity"),
        ("planner", "from watcher_cputier import model, weigher"),
        ("report", "import json, yaml"),
        ("weigher", "import numpy"),
        ("planner.exact", "from scipy import optimize"),
        ("strategies.x", "import time\nfrom watcher_cputier import report"),
        ("cli.tier", "print(1)"),
    ],
)
def test_what_the_layers_allow(module, source):
    assert not violations(f"{PACKAGE}.{module}", source)


def test_the_pure_list_admits_nothing_that_is_banned():
    assert not BANNED & PURE.union(*ALSO_PURE.values())


def test_the_linter_bans_the_same():
    with open(PROJECT / "pyproject.toml", "rb") as file:
        lint = tomllib.load(file)["tool"]["ruff"]["lint"]
    banned = lint["flake8-tidy-imports"]["banned-api"]
    assert set(banned) >= BANNED
    exempt = [
        pattern
        for pattern, codes in lint["per-file-ignores"].items()
        if "TID251" in codes and pattern.startswith(PACKAGE)
    ]
    folders = sorted({*LAYERS[EDGES]} - {"extensions"})
    assert exempt == [
        f"{PACKAGE}/{{{','.join(folders)}}}/**",
        f"{PACKAGE}/extensions.py",
        f"{PACKAGE}/constraints/aggregates.py",
    ]
