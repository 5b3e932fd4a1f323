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

"""Rules and rankers of others (R99): the example plugin, really installed.

It is installed by pip into a directory of its own, so that the environment
of the tests stays as it was, and loaded in a process that sees it.
"""

import pathlib
import subprocess
import sys
import textwrap

import pytest

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "quiet_racks"

PLAN = textwrap.dedent(
    """
    import sys
    from oslo_config import cfg
    from watcher_cputier import diagnosis, extensions, parameters, planner
    from watcher_cputier import report, scenario

    conf = cfg.ConfigOpts()
    conf([], default_config_files=[sys.argv[1]])
    told = scenario.loads(open(sys.argv[2]).read())
    params = parameters.Parameters.of(told.parameters)
    verdict = diagnosis.diagnose(told.cluster, params)
    plan = planner.plan(
        told.cluster, verdict, params, extensions.load(conf)
    )
    for move in plan.migrations:
        print("to", move.target)
    for item in plan.unresolved:
        print(*report.unresolved(item), sep="\\n")
    """
)

SCENARIO = """
watcher_cputier_scenario: 1
tiers: [{name: gold}]
hosts:
- {name: a, inventories: {VCPU: 48, CUSTOM_VCPU_GOLD: 4}}
- {name: b, inventories: {VCPU: 48, CUSTOM_VCPU_GOLD: 16}}
- {name: c, inventories: {VCPU: 48, CUSTOM_VCPU_GOLD: 16}}
flavors:
  g4: {vcpus: 4, extra_specs: {"resources:CUSTOM_VCPU_GOLD": "4"}}
instances:
- {name: i1, host: a, flavor: g4}
- {name: i2, host: a, flavor: g4}
aggregates:
- {name: rack-b, hosts: [b], metadata: {quiet: "true", temperature: "24"}}
- {name: rack-c, hosts: [c], metadata: {QUIET_C temperature: "18"}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where pip has put the example plugin."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
            "--target", str(target), str(EXAMPLE),
        ],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


def plan(
    installed: pathlib.Path | None,
    folder: pathlib.Path,
    options: str,
    quiet_c: str = "",
) -> subprocess.CompletedProcess[str]:
    """Plan the scenario in a process that sees the plugin."""
    (folder / "watcher.conf").write_text(f"[cputier]\n{options}\n")
    (folder / "scenario.yaml").write_text(
        SCENARIO.replace("QUIET_C ", quiet_c)
    )
    return subprocess.run(
        [
            sys.executable, "-c", PLAN,
            str(folder / "watcher.conf"), str(folder / "scenario.yaml"),
        ],
        env={"PYTHONPATH": str(installed)} if installed else {},
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip


def test_without_it_the_first_name_wins(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    assert plan(installed, tmp_path, "").stdout == "to b\n"


def test_its_rule_rejects_a_target_for_a_reason_of_its_own(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = plan(installed, tmp_path, "constraints = quiet_racks")
    assert done.stdout == "to c\n", done.stderr


def test_its_rejection_is_reported(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = plan(
        installed, tmp_path, "constraints = quiet_racks", 'quiet: "true", '
    )
    assert "its rack rack-b is to be left quiet" in done.stdout, done.stderr


def test_its_ranker_prefers_the_cooler_rack(
    installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    done = plan(installed, tmp_path, "rankers = cool_racks")
    assert done.stdout == "to c\n", done.stderr


def test_a_name_without_a_plugin_is_one_clear_error(
    tmp_path: pathlib.Path,
) -> None:
    done = plan(None, tmp_path, "constraints = quiet_racks")
    assert done.returncode
    assert (
        "[cputier] constraints: no entry point 'quiet_racks' in "
        "watcher_cputier.constraints. Install the distribution"
    ) in done.stderr
