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

"""What is installed: the plugin points that Watcher and oslo.config find.

Packaging fails silently: without setup.py pbr builds a distribution of
version 0.0.0 that has no entry points, and Watcher then knows no strategy.
"""

import configparser
from importlib import metadata
import pathlib
import re

import pytest
from watcher.applier.actions import migration
from watcher.decision_engine.goal import base as goal_base
from watcher.decision_engine.planner import base as planner_base
from watcher.decision_engine.strategy.strategies import base as strategy_base
import yaml

PROJECT = pathlib.Path(__file__).parents[2]
AGAIN = "install it again: pip install -e ."

# (group, name): class
CLASSES = {
    (
        "watcher_goals",
        "continuous_slo_compliance",
    ): "ContinuousSLOCompliance",
    (
        "watcher_strategies",
        "domain_capacity_enforcement",
    ): "DomainCapacityEnforcement",
    (
        "watcher_strategies",
        "domain_capacity_enforcement_balancing",
    ): "DomainCapacityEnforcementBalancing",
}
# Watcher's planners and actions have no names of their own.
NAMELESS = {
    ("watcher_planners", "cputier"): planner_base.BasePlanner,
    ("watcher_actions", "tier_migrate"): migration.Migrate,
}
BASES = {
    "watcher_goals": goal_base.Goal,
    "watcher_strategies": strategy_base.BaseStrategy,
}


@pytest.fixture(scope="module")
def installed():
    found = metadata.distribution("watcher-cputier").entry_points
    return {(e.group, e.name): e for e in found}


def test_version_was_found():
    version = metadata.version("watcher-cputier")
    assert version != "0.0.0", (
        "pbr found no version: is setup.py there, and a git history? "
        "PBR_VERSION overrides it"
    )


@pytest.mark.parametrize(("group", "name"), CLASSES)
def test_plugin_loads(installed, group, name):
    loaded = installed[group, name].load()
    assert loaded.__name__ == CLASSES[group, name]
    assert issubclass(loaded, BASES[group])
    assert loaded.get_name() == name
    assert loaded.get_display_name()


@pytest.mark.parametrize(("group", "name"), NAMELESS)
def test_nameless_plugin_loads(installed, group, name):
    assert issubclass(installed[group, name].load(), NAMELESS[group, name])


def test_strategy_belongs_to_our_goal(installed):
    strategy = installed["watcher_strategies", "domain_capacity_enforcement"]
    goal = strategy.load().get_goal_name()
    assert ("watcher_goals", goal) in installed


def test_options_are_listed(installed):
    list_opts = installed["oslo.config.opts", "watcher_cputier"].load()
    groups = [group for group, _ in list_opts()]
    assert "cputier" in groups
    assert "cputier_tier_gold" in groups


def test_every_declared_entry_point_is_installed(installed):
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.optionxform = str
    parser.read(PROJECT / "setup.cfg")
    declared = {}
    for group, lines in parser["entry_points"].items():
        for line in lines.strip().splitlines():
            name, value = line.split(" = ")
            declared[group, name.strip()] = value.strip()
    found = {key: entry.value for key, entry in installed.items()}
    assert found == declared, AGAIN


@pytest.mark.parametrize("name", ["goals", "strategies"])
def test_every_plugin_class_is_tested(installed, name):
    group = f"watcher_{name}"
    assert {k for k in installed if k[0] == group} == {
        k for k in CLASSES if k[0] == group
    }


def test_pre_commit_and_make_use_the_same_linters():
    pins = dict(
        re.findall(
            r"^([\w-]+)==(\S+)",
            (PROJECT / "lint-requirements.txt").read_text(),
            re.MULTILINE,
        )
    )
    config = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())
    used = {}
    for hook in config["repos"][0]["hooks"]:
        for dependency in hook["additional_dependencies"]:
            name, _, version = dependency.partition("==")
            if version:
                used[name] = version
    assert used == pins
