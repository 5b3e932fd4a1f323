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

"""Goldens: each scenario here with the plan that it has to have.

``<name>.yaml`` opens with a description of what has to happen and why;
``<name>.expected.txt`` is what ``watcher-cputier plan`` says to it. After a
change that was meant::

    UPDATE_GOLDENS=1 pytest tests/scenarios

rewrites the expectations; read the difference before committing it.
"""

import os
import pathlib

import pytest

from watcher_cputier import diagnosis
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import scenario
from watcher_cputier.cli import main

HERE = pathlib.Path(__file__).parent
FILES = sorted(HERE.glob("*.yaml"))
AGAIN = "if it was meant: UPDATE_GOLDENS=1 pytest tests/scenarios"


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def path(request):
    return request.param


def plan_of(found):
    params = parameters.Parameters.of(found.parameters)
    verdict = diagnosis.diagnose(found.cluster, params)
    return planner.plan(found.cluster, verdict, params)


def test_the_plan_is_the_expected_one(path, capsys):
    assert main.main(["plan", "--scenario", str(path)]) == 0
    text = capsys.readouterr().out
    golden = path.with_suffix(".expected.txt")
    if os.environ.get("UPDATE_GOLDENS"):
        golden.write_text(text)
    assert text == golden.read_text(), AGAIN


def test_it_opens_with_prose(path):
    assert path.read_text().startswith("description: >\n")
    assert len(scenario.loads(path.read_text()).description) > 80


def test_its_dump_is_the_same_scenario_with_the_same_plan(path):
    """L9 "load(dump(snapshot)) == snapshot; a plan replayed from its dump
    is the same plan."
    """
    found = scenario.loads(path.read_text())
    again = scenario.loads(scenario.dumps(found))
    assert again == found
    assert plan_of(again) == plan_of(found)


def test_every_expectation_has_its_scenario():
    assert {path.name.removesuffix(".yaml") for path in FILES} == {
        path.name.removesuffix(".expected.txt")
        for path in HERE.glob("*.expected.txt")
    }
