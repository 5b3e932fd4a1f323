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

"""The documentation has a word on all that the code can say.

What the code can say is read from its syntax trees; a kind of error or
finding, or a rule, that is added without an entry fails here, and so does an
entry of something that is gone.
"""

import importlib.util
import pathlib
import re
import subprocess
import sys
from types import ModuleType
from xml.etree import ElementTree

import pytest

from tests import documentation
from tests.unit import test_layers
from watcher_cputier import parameters
from watcher_cputier.conf import opts

_PAGE = documentation.SOURCE / "troubleshooting.rst"
_READER = documentation.ROOT / "doc" / "ext" / "sayings.py"

# Commands that need another machine, and are read and not run: {page:
# programs}. Whoever marks another block enters it here.
ELSEWHERE = {
    "README.md": {"make", "pip"},
    "doc/source/alerts.rst": {
        "cd",
        "cp",
        "curl",
        "install",
        "openstack",
        "promtool",
        "setfacl",
        "systemctl",
        "useradd",
    },
    "doc/source/audit-report.rst": {"openstack"},
    "doc/source/audits.rst": {"openstack"},
    "doc/source/datasources.rst": {"curl", "openstack", "promtool"},
    "doc/source/devstack.rst": {"cd", "openstack", "tox"},
    "doc/source/extending.rst": {"pip"},
    "doc/source/hardware.rst": {"lscpu"},
    "doc/source/install.rst": {
        "/path/to/watcher/venv/bin/pip",
        "apt",
        "for",
        "oc",
        "pip",
        "python3",
    },
    "doc/source/measuring.rst": {"python3"},
    "doc/source/openstack-tier.rst": {"#", "openstack", "pip"},
    "doc/source/operating.rst": {"openstack", "systemctl"},
    "doc/source/planner.rst": {"pip"},
    "doc/source/quickstart.rst": {"make"},
    "doc/source/security.rst": {"openstack"},
    "doc/source/support.rst": {
        "./watcher-applier",
        "./watcher-db-manage",
        "./watcher-decision-engine",
        "/opt/watcher-tiers/bin/pip",
        "cd",
        "for",
        "mysql",
        "openstack",
        "python3.12",
        "rabbitmqctl",
    },
    "doc/source/telemetry.rst": {
        "/path/to/ceilometer/venv/bin/pip",
        "curl",
        "openstack",
        "virsh",
    },
}


def _all() -> list[documentation.Block]:
    return [
        block
        for page in documentation.pages()
        for block in documentation.blocks(page)
    ]


@pytest.fixture(scope="module")
def sayings() -> ModuleType:
    """The documentation's own reader of the code."""
    spec = importlib.util.spec_from_file_location("sayings", _READER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _entries(page: pathlib.Path, first: str, last: str) -> set[str]:
    """Names that begin a row of a table, between two headlines."""
    text = page.read_text(encoding="utf-8")
    part = re.split(
        rf"^{first}\n[=-]+$", text, maxsplit=1, flags=re.MULTILINE
    )[1]
    if last:
        part = re.split(
            rf"^{last}\n[=-]+$", part, maxsplit=1, flags=re.MULTILINE
        )[0]
    return {
        name
        for cell in re.findall(
            r"^   \* - (.*(?:\n       .*)*)", part, re.MULTILINE
        )
        for name in re.findall(r"``([A-Za-z_]+)``", cell)
    }


def test_every_kind_of_error_has_its_entry(sayings: ModuleType) -> None:
    assert _entries(_PAGE, "Errors", "Findings") == set(sayings.error_kinds())


def test_every_kind_of_finding_has_its_entry(sayings: ModuleType) -> None:
    kinds = set(sayings.finding_kinds())
    assert "unknown_quota" in kinds
    assert _entries(_PAGE, "Findings", "Rules") == kinds


def test_every_rule_has_its_entry(sayings: ModuleType) -> None:
    rules = set(sayings.rules())
    assert "within_quota" in rules
    assert _entries(_PAGE, "Rules", "All messages") == rules


def test_every_kind_of_drift_has_its_entry(sayings: ModuleType) -> None:
    told = _entries(documentation.SOURCE / "openstack-tier.rst", "Lint", "")
    assert set(sayings.drift_kinds()) - told == set()


def test_every_message_is_listed(
    sayings: ModuleType,
) -> None:
    """The lists of all messages leave out no module of the package."""
    prefixes = tuple(
        prefix
        for line in re.findall(
            r"^ +:modules: (.*)$",
            _PAGE.read_text(encoding="utf-8"),
            re.MULTILINE,
        )
        for prefix in line.split()
    )
    found = list(sayings.messages())
    assert len(found) > 100
    assert {
        one.module for one in found if not one.module.startswith(prefixes)
    } == set()


def test_the_architecture_has_every_module() -> None:
    page = documentation.SOURCE / "contributor" / "architecture.rst"
    text = page.read_text(encoding="utf-8")
    told = set(re.findall("``([a-z_]+)``", text))

    assert set(test_layers.LAYER_OF) - told == set()


def test_options_that_pages_name_exist() -> None:
    """``[cputier] name`` and its like are options of this package."""
    known = {
        group: {option.dest for option in options}
        for group, options in opts.list_opts()
    }
    named = {
        (found[1], found[2])
        for page in documentation.pages()
        for found in re.finditer(
            r"``?\[(cputier\w*)\]\s+([a-z_]+)``?",
            page.read_text(encoding="utf-8"),
        )
    }

    assert len(named) > 10
    assert {
        (group, name) for group, name in named if name not in known[group]
    } == set()


def test_parameters_that_pages_give_exist() -> None:
    """What commands on the pages give to audits with ``-p`` and ``--set``."""
    known = {one.name for one in parameters.PARAMETERS}
    given = {
        name
        for block in _all()
        for command in block.commands
        if command.status == 0
        for name in re.findall(r"(?:-p|--set) '?([a-z_]+)=", command.text)
    }

    assert given
    assert given - known == set()


@pytest.mark.parametrize(
    "path", sorted(documentation.SOURCE.glob("images/*.svg"))
)
def test_pictures_are_for_light_and_dark_and_for_those_who_hear(
    path: pathlib.Path,
) -> None:
    root = ElementTree.parse(path).getroot()
    name = "{http://www.w3.org/2000/svg}"

    assert "prefers-color-scheme: dark" in "".join(
        root.find(f"{name}style").itertext()
    )
    assert root.find(f"{name}title").text
    assert root.find(f"{name}desc").text
    shown = re.findall(
        rf"image:: images/{path.name}\n +:alt: \S+",
        "".join(p.read_text() for p in documentation.pages()),
    )
    assert shown


# How blocks are read.


def test_commands_are_read_with_their_output(tmp_path: pathlib.Path) -> None:
    page = documentation.ROOT / "page.rst"
    text = (
        "Text\n\n.. exit status: 1\n\n.. code-block:: console\n\n"
        "   $ first \\\n       --option\n   some\n\n   output\n"
        "   $ cat > file << 'END'\n   $ not a command\n   END\n   $ last\n"
        "\nMore\n\n.. elsewhere: a host\n\n.. code-block:: console\n\n"
        "   $ virsh list\n"
    )
    path = tmp_path / page.name
    path.write_text(text)
    root = documentation.ROOT
    try:
        documentation.ROOT = tmp_path
        first, second = documentation.blocks(path)
    finally:
        documentation.ROOT = root

    assert [c.text for c in first.commands] == [
        "first \\\n    --option",
        "cat > file << 'END'\n$ not a command\nEND",
        "last",
    ]
    assert first.commands[0].output == "some\n\noutput"
    assert [c.status for c in first.commands] == [0, 0, 1]
    assert (second.elsewhere, first.elsewhere) == ("a host", "")


@pytest.mark.parametrize(
    ("expected", "printed", "right"),
    [
        ("a  b", "a b\n", True),
        ("a ... d", "a b\nc d", True),
        ("| a  |\n+----+", "| a    |\n+------+", True),
        ("...", "anything", True),
        ("a b", "a c", False),
        ("a", "a b", False),
        ("a ... b", "a c", False),
    ],
)
def test_output_is_compared_but_for_blanks(
    expected: str, printed: str, right: bool
) -> None:
    assert documentation.matches(expected, printed) is right


# Every command there is, those that need another machine as well


@pytest.mark.parametrize("page", sorted({block.page for block in _all()}))
def test_every_command_is_one_that_a_shell_can_read(page: str) -> None:
    script = "".join(
        f"{command.text}\n:\n"
        for block in _all()
        if block.page == page
        for command in block.commands
    )

    read = subprocess.run(
        ["bash", "-n", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (read.returncode, read.stderr) == (0, "")


def test_commands_that_are_not_run_are_these() -> None:
    found: dict[str, set[str]] = {}
    for block in _all():
        if block.elsewhere:
            found.setdefault(block.page, set()).update(
                command.text.split()[0] for command in block.commands
            )

    assert found == ELSEWHERE
