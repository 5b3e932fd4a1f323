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

"""The commands of the documentation, run as a reader types them.

Each page's commands run one after the other in one shell, on the embedded
cloud of ``tests/cloud/examples/three_tiers.yaml`` after its first event:
``host-01`` holds 16 Gold units and may hold 8. What a block shows is compared
with what was printed.
"""

from collections.abc import Iterator
import dataclasses
import os
import pathlib
import re
import shutil

from aetos import policies as aetos_policies
from gnocchi.rest import policies as gnocchi_policies
from nova import policies as nova_policies
from placement import policies as placement_policies
import pytest
from watcher.common import policies as watcher_policies

from tests import documentation
from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.functional import shell as shell_module
from tests.functional import watcher_api
from tests.functional.conftest import Stage
from watcher_cputier.datasources import neutron
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement

pytestmark = pytest.mark.skipif(
    not watcher_api.skips(), reason="pages show what Watcher 15 and later say"
)

_EXAMPLE = documentation.ROOT / "tests" / "cloud" / "examples"
# Pages that only look: they share a cloud, which notices whatever changes.
_READING = (
    "doc/source/alerts.rst",
    "doc/source/cli.rst",
    "doc/source/hardware.rst",
    "doc/source/install.rst",
    "doc/source/pages.rst",
    "doc/source/planner.rst",
    "doc/source/scenario.rst",
    "doc/source/security.rst",
    "doc/source/troubleshooting.rst",
)
# Pages that may follow one another without a new cloud; the others have one
# each.
_SCENES = (
    _READING,
    (
        "doc/source/tenants.rst",
        "doc/source/tuning.rst",
        "doc/source/openstack-tier.rst",
        "doc/source/quickstart.rst",
        "doc/source/strategies/domain_capacity_enforcement.rst",
        # From here on nothing is over its quota.
        "doc/source/audits.rst",
        "README.md",
    ),
)
# {page: (service, group, option, value), what its reader is told to set}
_OPTIONS = {
    "doc/source/operating.rst": [
        ("compute", "scheduler", "enable_isolated_aggregate_filtering", True)
    ]
}
# Programs that a machine with a cloud's clients has, and this may lack.
_OPTIONAL = {"curl"}
_RUN = {
    str(page.relative_to(documentation.ROOT)): commands
    for page in documentation.pages()
    if (
        commands := [
            command
            for block in documentation.blocks(page)
            if not block.elsewhere
            for command in block.commands
        ]
    )
}


def _place(page: str) -> tuple[int, int, str]:
    """Where a page comes: scene by scene, each in its order."""
    for number, scene in enumerate(_SCENES):
        if page in scene:
            return (number, scene.index(page), page)
    return (len(_SCENES), 0, page)


def _lacks(text: str) -> bool:
    """Whether this machine has not even the program."""
    program = text.split(maxsplit=1)[0]
    return program in _OPTIONAL and shutil.which(program) is None


@pytest.fixture(scope="module", autouse=True)
def begun(stage: Stage) -> float:
    """When the first of these tests began."""
    return stage.cloud.mark()


@pytest.fixture(scope="module")
def spec() -> CloudSpec:
    """The cloud that the pages speak of."""
    declared = CloudSpec.from_yaml(_EXAMPLE / "three_tiers.yaml")
    return dataclasses.replace(
        declared, events=(declared.event("gold-shrinks"),)
    )


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where a page's commands run: a copy of the repository by links."""
    for one in documentation.ROOT.iterdir():
        if not one.name.startswith("."):
            (tmp_path / one.name).symlink_to(one)
    # What pages show, and a reader has saved.
    for one in documentation.SOURCE.glob("*-example.*"):
        (tmp_path / one.name).symlink_to(one)
    return tmp_path


@pytest.fixture(scope="module")
def scenes() -> list[tuple[str, ...]]:
    """The scene that was loaded last, if any."""
    return []


@pytest.fixture
def tidied(operator: watcher_api.Operator) -> Iterator[None]:
    """Ends the audits that would go on when a page is over."""
    yield
    for audit in operator.get("/v1/audits")["audits"]:
        if audit["state"] in {"PENDING", "ONGOING"}:
            operator.cancel_audit(audit["uuid"])


@pytest.mark.usefixtures("tidied")
@pytest.mark.parametrize("page", sorted(_RUN, key=_place))
def test_commands_do_what_the_page_says(
    page: str,
    cloud: EmbeddedCloud,
    stage: Stage,
    shell: shell_module.Shell,
    spec: CloudSpec,
    directory: pathlib.Path,
    scenes: list[tuple[str, ...]],
) -> None:
    scene = next((one for one in _SCENES if page in one), (page,))
    reading = scene == _READING
    if reading or scene not in scenes:
        stage.load(spec, shared=reading)
        scenes[:] = [scene]
    for service, group, name, value in _OPTIONS.get(page, ()):
        cloud.set_option(service, group, name, value)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OS_") and "proxy" not in name.lower()
    }
    environment.update(
        OS_CLIENT_CONFIG_FILE=str(cloud.clouds_yaml),
        OS_CLOUD="admin",
        no_proxy="*",
    )
    commands = [command for command in _RUN[page] if not _lacks(command.text)]

    done = shell.run([c.text for c in commands], directory, environment)

    wrong = [
        f"{page}:{command.line}: $ {command.text}\n"
        f"ended with {result.status}, not {command.status}:\n"
        f"{result.out}{result.err}"
        for command, result in zip(commands, done, strict=True)
        if result.status != command.status
        or (
            command.output
            and not documentation.matches(
                command.output, result.out + result.err
            )
        )
    ]
    assert not wrong, "\n\n".join(wrong)


# Policies


def _policies() -> dict[str, set[str]]:
    """{service: names of the policies that it has}, as installed here."""
    return {
        "Nova": {rule.name for rule in nova_policies.list_rules()},
        "Placement": {rule.name for rule in placement_policies.list_rules()},
        "Gnocchi": {rule.name for rule in gnocchi_policies.list_rules()},
        "Aetos": {rule.name for rule in aetos_policies.list_rules()},
        "Watcher": {rule.name for rule in watcher_policies.list_rules()},
    }


def _told_policies() -> dict[str, set[str]]:
    """The same, of the page on security."""
    page = documentation.SOURCE / "security.rst"
    found: dict[str, set[str]] = {}
    services: list[str] = []
    cells = re.findall(
        r"^   (\*| ) -(?: (.*(?:\n       .*)*))?$",
        page.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    for (first, name), (_, policies), _ in zip(
        *[iter(cells)] * 3, strict=True
    ):
        assert first == "*"
        services = name.split(", ") if name else services
        for service in services:
            found.setdefault(service, set()).update(
                re.findall("``(.*?)``", policies)
            )
    return found


def test_the_policies_of_the_page_exist() -> None:
    """What an operator is told to grant is what the services call so."""
    told = _told_policies()

    for service, names in _policies().items():
        assert told[service]
        assert told[service] - names == set()


def test_the_page_has_every_policy_that_the_code_names() -> None:
    """Readers name the policy that a refusal is about."""
    told = set().union(*_told_policies().values())
    named = {
        name
        for module in (neutron, nova, placement)
        for name in module._POLICIES.values()
    }

    assert named - told == set()
    assert told > named


def test_the_page_has_every_request_that_an_audit_sends(
    cloud: EmbeddedCloud,
    stage: Stage,
    spec: CloudSpec,
    operator: watcher_api.Operator,
    begun: float,
) -> None:
    """No request to Nova or Placement is allowed by another policy.

    The pages above have had audits look, and have started plans.
    """
    if not _sent(cloud, "compute", begun):
        stage.load(spec)
        operator.start(operator.audit().plan)

    told = _told_policies()
    for service, name, rules in (
        ("compute", "Nova", nova_policies.list_rules()),
        ("placement", "Placement", placement_policies.list_rules()),
    ):
        allowed = [
            (operation["method"], _pattern(operation["path"]))
            for rule in rules
            if rule.name in told[name]
            for operation in rule.operations
        ]
        sent = _sent(cloud, service, begun)
        assert sent
        # Versions are told to everybody; Watcher's own model asks for a
        # host's record and for its inventories.
        assert {
            one
            for one in sent
            if not any(m == one[0] and p.search(one[1]) for m, p in allowed)
            and not re.fullmatch(r"(/v2\.1)?/?", one[1])
        } == set()


def _sent(
    cloud: EmbeddedCloud, service: str, since: float
) -> set[tuple[str, str]]:
    """Methods and paths of all that Watcher's user has asked a service."""
    return {
        (request.method, request.path)
        for request in cloud.requests(service, since=since)
        if request.user == "watcher"
    }


def _pattern(path: str) -> re.Pattern[str]:
    """Of the requests that a policy's operation is about."""
    plain = path.partition(" ")[0].replace("/details", "/detail")
    return re.compile(re.sub(r"\{\w+\}", "[^/]+", plain) + "$")
