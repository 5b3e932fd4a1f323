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


"""The DevStack plugin without a cloud: its settings and its files."""

import configparser
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.devstack import stack as devstack
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.osc import settings

WATCHER = ("watcher-decision-engine",)
TOOL = devstack.PLUGIN / "tools" / "telemetry.py"
GNOCCHI = "gnocchi://?archive_policy=ceilometer-low&filter_project=service"
SG_CORE = "tcp://127.0.0.1:4242"


@pytest.mark.parametrize(
    ("localrc", "told"),
    [
        (
            {"CPUTIER_UNITS_PLATINUM": 4},
            (
                "CPUTIER_UNITS_PLATINUM: no tier of that name is in "
                "CPUTIER_TIERS=gold,silver,bronze"
            ),
        ),
        (
            {"CPUTIER_TIERS": "platinum,gold"},
            (
                "tier platinum has no CPU shares: set "
                "CPUTIER_SHARES_PLATINUM to those of one vCPU"
            ),
        ),
        (
            {"CPUTIER_SHARES_GOLD": "many"},
            "CPUTIER_SHARES_GOLD=many: it has to be a whole number above 0",
        ),
        (
            {"CPUTIER_UNITS": 0},
            "CPUTIER_UNITS=0: it has to be a whole number above 0",
        ),
        (
            {
                "CPUTIER_TIERS": "best-effort,best_effort",
                "CPUTIER_SHARES_BEST_EFFORT": 100,
            },
            (
                "CPUTIER_TIERS=best-effort,best_effort: two tiers have the "
                "resource class CUSTOM_VCPU_BEST_EFFORT"
            ),
        ),
        (
            {"CPUTIER_TIERS": "gold;silver"},
            (
                "CPUTIER_TIERS=gold;silver: gold;silver is no name of a tier, "
                "which has letters, digits, - and _"
            ),
        ),
        ({"CPUTIER_TIERS": ","}, "CPUTIER_TIERS names no tier"),
        (
            {"CPUTIER_FLAVORS": "small:1:192"},
            (
                "CPUTIER_FLAVORS: small:1:192 is not "
                "<name>:<vcpus>:<MB of memory>:<GB of disk>"
            ),
        ),
    ],
)
def test_wrong_settings_are_told_first(
    tmp_path: pathlib.Path, localrc: dict[str, object], told: str
) -> None:
    """One line, before anything is done."""
    stack = devstack.Stack(tmp_path, localrc=localrc)
    stack.lay_out()
    before = stack.files()

    done = stack.run("stack", "pre-install")

    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("[ERROR] ")
    assert line.endswith(f" {told}")
    assert stack.files() == before


def test_watcher_reads_the_tiers_that_were_set(
    tmp_path: pathlib.Path,
) -> None:
    """R8: other tiers than the built-in ones are a matter of settings."""
    stack = devstack.Stack(
        tmp_path,
        services=WATCHER,
        localrc={
            "CPUTIER_TIERS": "platinum, gold,best-effort",
            "CPUTIER_SHARES_PLATINUM": 1024,
            "CPUTIER_SHARES_BEST_EFFORT": 20,
            "CEILOMETER_PIPELINE_INTERVAL": 60,
        },
    )
    stack.lay_out()
    for phase in ("pre-install", "post-config"):
        done = stack.run("stack", phase)
        assert done.returncode == 0, done.stderr

    conf = settings.configuration([str(stack.watcher_conf)])

    assert [
        (tier.name, tier.resource_class, tier.cpu_shares, tier.rank)
        for tier in tiers_conf.catalogue(conf).tiers
    ] == [
        ("platinum", "CUSTOM_VCPU_PLATINUM", 1024, 1),
        ("gold", "CUSTOM_VCPU_GOLD", tiers_conf.BUILT_IN["gold"][0], 2),
        ("best-effort", "CUSTOM_VCPU_BEST_EFFORT", 20, 3),
    ]
    assert conf.cputier_telemetry.polling_interval_seconds == 60
    assert not stack.provider_config.exists()


def test_a_compute_node_gets_its_inventories_alone(
    tmp_path: pathlib.Path,
) -> None:
    """The second host of a cloud has n-cpu, and nothing of Watcher."""
    stack = devstack.Stack(
        tmp_path,
        services=("n-cpu",),
        localrc={"CPUTIER_CPUS": 12, "CPUTIER_UNITS_GOLD": 6},
    )
    stack.lay_out()
    watcher = stack.watcher_conf.read_bytes()
    for phase in devstack.PHASES:
        done = stack.run("stack", phase)
        assert done.returncode == 0, done.stderr

    (file,) = stack.provider_config.iterdir()
    (provider,) = yaml.safe_load(file.read_text())["providers"]
    assert provider["identification"] == {"uuid": "$COMPUTE_NODE"}
    assert {
        name: (record["total"], record["max_unit"])
        for one in provider["inventories"]["additional"]
        for name, record in one.items()
    } == {
        "CUSTOM_VCPU_GOLD": (6, 6),
        "CUSTOM_VCPU_SILVER": (12, 12),
        "CUSTOM_VCPU_BRONZE": (12, 12),
    }
    assert stack.watcher_conf.read_bytes() == watcher
    nova = configparser.ConfigParser()
    nova.read(stack.nova_conf)
    # 6, 12 and 12 units on 12 CPUs (R23).
    assert nova["DEFAULT"]["cpu_allocation_ratio"] == "2.5"


def test_what_others_have_set_stays(tmp_path: pathlib.Path) -> None:
    """A ratio, a section and a file that are not ours outlive clean."""
    stack = devstack.Stack(tmp_path, services=("n-cpu", *WATCHER))
    stack.lay_out()
    with stack.nova_conf.open("a") as file:
        file.write("cpu_allocation_ratio = 4.0\n\n[compute]\nmax = 1\n")
    with stack.watcher_conf.open("a") as file:
        file.write("\n[cputier]\nmode = classes\n")
    stack.provider_config.mkdir()
    other = stack.provider_config / "other.yaml"
    other.write_text("meta: {schema_version: '1.0'}\n")

    for arguments in (("stack", "post-config"), ("clean",)):
        done = stack.run(*arguments)
        assert done.returncode == 0, done.stderr

    def lines(path: pathlib.Path) -> list[str]:
        return [one for one in path.read_text().splitlines() if one]

    assert lines(stack.nova_conf) == [
        "[DEFAULT]",
        "debug = True",
        "cpu_allocation_ratio = 4.0",
        "[compute]",
        "max = 1",
    ]
    assert lines(stack.watcher_conf) == [
        "[DEFAULT]",
        "debug = True",
        "[cputier]",
        "mode = classes",
    ]
    assert list(stack.provider_config.iterdir()) == [other]


# Telemetry


def _telemetry(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOOL), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("meters", "after"),
    [
        (["memory", "cpu"], ["memory", "cpu", "cpu.steal"]),
        (["cpu", "memory"], ["cpu", "cpu.steal", "memory"]),
        (["cpu", "cpu.steal"], ["cpu", "cpu.steal"]),
        (["*"], ["*"]),
    ],
)
def test_steal_is_polled_with_cpu(
    tmp_path: pathlib.Path, meters: list[str], after: list[str]
) -> None:
    """And the file that has it already is not even written again."""
    path = tmp_path / "polling.yaml"
    path.write_text(
        yaml.safe_dump(
            {"sources": [{"name": "a", "interval": 60, "meters": meters}]}
        )
    )
    for _ in range(2):
        assert _telemetry("polling", path).returncode == 0
        text = path.read_text()
        (source,) = yaml.safe_load(text)["sources"]
        assert source == {"name": "a", "interval": 60, "meters": after}


@pytest.mark.parametrize(
    ("publishers", "own"),
    [
        (
            [GNOCCHI],
            [
                (
                    "gnocchi://?filter_project=service&resources_definition_file="
                    "gnocchi_resources_cputier.yaml"
                )
            ],
        ),
        (
            ["gnocchi://", SG_CORE],
            [
                (
                    "gnocchi://?resources_definition_file="
                    "gnocchi_resources_cputier.yaml"
                ),
                SG_CORE,
            ],
        ),
        ([SG_CORE], None),
    ],
)
def test_gnocchi_gets_steal_with_its_definition(
    tmp_path: pathlib.Path, publishers: list[str], own: list[str] | None
) -> None:
    """Other publishers know every meter, and go on getting it once."""
    path = tmp_path / "pipeline.yaml"
    before = {
        "sources": [{"name": "all", "meters": ["*"], "sinks": ["sink"]}],
        "sinks": [{"name": "sink", "publishers": publishers}],
    }
    path.write_text(yaml.safe_dump(before))
    texts = []
    for _ in range(2):
        assert _telemetry("pipeline", path).returncode == 0
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]

    after = yaml.safe_load(texts[0])
    if own is None:
        assert after == before
    else:
        assert after["sources"] == [
            {"name": "all", "meters": ["*", "!cpu.steal"], "sinks": ["sink"]},
            {
                "name": "steal_source",
                "meters": ["cpu.steal"],
                "sinks": ["steal_sink"],
            },
        ]
        assert after["sinks"] == [
            *before["sinks"],
            {"name": "steal_sink", "publishers": own},
        ]
    for _ in range(2):
        assert _telemetry("pipeline", "--undo", path).returncode == 0
        assert yaml.safe_load(path.read_text()) == before


@pytest.mark.parametrize(
    ("what", "text", "told"),
    [
        ("polling", None, "No such file or directory"),
        ("polling", "a: [", "while parsing"),
        ("polling", "[]", "it is no polling file of Ceilometer"),
        (
            "polling",
            "sources: [{name: a, meters: [memory]}]",
            "no source polls cpu",
        ),
        ("pipeline", "sources: []", "it is no pipeline file of Ceilometer"),
    ],
)
def test_files_of_other_kinds_end_the_run(
    tmp_path: pathlib.Path, what: str, text: str | None, told: str
) -> None:
    stack = devstack.Stack(tmp_path, services=devstack.TELEMETRY)
    stack.lay_out()
    path = stack.ceilometer / f"{what}.yaml"
    path.unlink()
    if text is not None:
        path.write_text(text)

    done = stack.run("stack", "post-config")

    assert done.returncode != 0
    assert str(path) in done.stderr
    assert told in done.stderr
    assert "enable" in done.stderr
