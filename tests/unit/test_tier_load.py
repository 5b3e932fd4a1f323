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

"""The load script that operators copy into their guests."""

import argparse
import importlib.util
import json
import pathlib
import subprocess
import sys
from types import ModuleType

import pytest

PATH = pathlib.Path(__file__).parents[2] / "tools" / "tier_load.py"
BEFORE = """\
cpu  300 0 100 1000 0 0 0 200 0 0
cpu0 100 0 50 500 0 0 0 100 40 0
cpu1 200 0 50 500 0 0 0 100 0 0
intr 12345 67
"""
# CPU 0 ran for .5 of a second, of which .1 was a guest's, and .4 was stolen.
AFTER = """\
cpu  300 0 100 1000 0 0 0 200 0 0
cpu0 135 0 60 504 6 3 2 140 50 0
cpu1 900 0 50 500 0 0 0 100 0 0
intr 12345 67
"""


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tier_load", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _window(tool: ModuleType, floor: float | None) -> dict[str, object]:
    return dict(
        tool.summary(
            tool.ticks(BEFORE, [0]),
            tool.ticks(AFTER, [0]),
            [[0.003, 0.001], [0.002]],
            argparse.Namespace(floor=floor, window=1.5),
        )
    )


def test_what_the_kernel_counts_is_used_stolen_or_idle(
    tool: ModuleType,
) -> None:
    window = _window(tool, None)

    assert window["used"] == pytest.approx(0.5)
    assert window["steal"] == pytest.approx(0.4)
    assert window["speed"] == pytest.approx(5 / 9)
    assert window["units_per_second"] == 2
    assert window["p50_seconds"] == 0.002
    assert window["p99_seconds"] == 0.003
    assert window["starved"] is None
    assert tool.line(window).endswith("2.0    2.00    3.00")


@pytest.mark.parametrize(
    ("floor", "starved"), [(0.506, False), (0.61, False), (0.7, True)]
)
def test_starved_is_who_runs_slower_than_was_sold(
    tool: ModuleType, floor: float, starved: bool
) -> None:
    window = _window(tool, floor)

    assert window["deficit"] == pytest.approx(floor * 0.9 - 0.5)
    assert window["starved"] is starved


def test_nothing_ran_and_nothing_waited(tool: ModuleType) -> None:
    same = tool.ticks(BEFORE, [0])
    window = tool.summary(
        same, same, [[]], argparse.Namespace(floor=0.5, window=1.0)
    )

    assert (window["speed"], window["starved"]) == (None, False)
    assert "    -" in tool.line(window)


def test_a_short_run(tmp_path: pathlib.Path) -> None:
    written = tmp_path / "windows.json"
    done = subprocess.run(
        [
            *(sys.executable, str(PATH), "--vcpus", "1", "--demand", "0.2"),
            *("--window", "0.3", "--windows", "2", "--floor", "0.001"),
            *("--json", str(written)),
        ],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    windows = json.loads(written.read_text("utf-8"))
    assert len(windows) == 2
    assert all(w["units_per_second"] > 0 for w in windows)
    assert done.stdout.rstrip().endswith("served")
