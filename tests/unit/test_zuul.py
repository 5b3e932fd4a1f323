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


"""What ``.zuul.yaml`` names is there: jobs, tox environments, tests, plugins.

Zuul reads the file where nobody can run it beforehand. Whatever is not of this
repository is listed here, with the place that documents it.
"""

import configparser
from importlib import metadata
import pathlib
import re
from typing import Any

import pytest
import yaml

from watcher_cputier.tempest_plugin import config as tempest_config

PROJECT = pathlib.Path(__file__).parents[2]
# Jobs that others define: openstack/tempest and openstack/openstack-zuul-jobs.
UPSTREAM_JOBS = {"devstack-tempest", "openstack-tox"}
# Project templates of openstack/openstack-zuul-jobs, and the tox environments
# that their jobs run: docs.openstack.org/infra/manual, "Project templates".
UPSTREAM_TEMPLATES = {
    "openstack-cover-jobs": {"cover"},
    "openstack-python3-jobs": {"pep8", "py3"},
    "publish-openstack-docs-pti": {"docs"},
    "release-notes-jobs-python3": {"releasenotes"},
}
# Node sets of openstack/devstack.
UPSTREAM_NODESETS = {"openstack-two-node-noble"}
# Pipelines of the OpenStack tenant.
PIPELINES = {"check", "gate", "experimental", "periodic-weekly"}
# The tox environments of upstream jobs' own making.
DEVSTACK_ENVIRONMENTS = {"all"}
# Projects with a DevStack plugin of that name.
UPSTREAM_PLUGINS = {"ceilometer", "watcher"}
UPSTREAM_TEMPEST_PLUGINS = {
    "watcher-tempest-plugin": r"watcher_tempest_plugin\.tests\.api"
}
UPSTREAM_SERVICES = {
    "ceilometer-acentral",
    "ceilometer-acompute",
    "ceilometer-anotification",
    "gnocchi-api",
    "gnocchi-metricd",
    "s-account",
    "s-container",
    "s-object",
    "s-proxy",
    "tempest",
    "watcher-api",
    "watcher-applier",
    "watcher-decision-engine",
}
UPSTREAM_VARIABLES = {"CEILOMETER_BACKENDS", "CEILOMETER_PIPELINE_INTERVAL"}

Document = list[dict[str, dict[str, Any]]]


@pytest.fixture(scope="module")
def document() -> Document:
    """The file, as Zuul reads it: a list of objects of one key each."""
    read: Document = yaml.safe_load((PROJECT / ".zuul.yaml").read_text())
    assert all(len(one) == 1 for one in read)
    return read


@pytest.fixture(scope="module")
def jobs(document: Document) -> dict[str, dict[str, Any]]:
    """The jobs by their names."""
    found = [one["job"] for one in document if "job" in one]
    named = {job["name"]: job for job in found}
    assert len(named) == len(found)
    return named


@pytest.fixture(scope="module")
def project(document: Document) -> dict[str, Any]:
    """What runs when."""
    (found,) = [one["project"] for one in document if "project" in one]
    return found


def _environments() -> set[str]:
    told = configparser.ConfigParser(interpolation=None)
    told.read(PROJECT / "tox.ini")
    named = {
        section.partition(":")[2]
        for section in told.sections()
        if section.startswith("testenv:")
    }
    # Those that [testenv] alone makes.
    return named | {"py3"}


def _everywhere(job: dict[str, Any]) -> list[dict[str, Any]]:
    """The variables of all hosts, and those of groups of hosts."""
    return [job.get("vars", {}), *job.get("group-vars", {}).values()]


def test_nothing_but_jobs_and_a_project(document: Document) -> None:
    assert {key for one in document for key in one} == {"job", "project"}


def test_parents_are_there(jobs: dict[str, dict[str, Any]]) -> None:
    for job in jobs.values():
        assert job["parent"] in UPSTREAM_JOBS | set(jobs), job["name"]
        if "nodeset" in job:
            assert job["nodeset"] in UPSTREAM_NODESETS


def test_what_runs_is_there(
    jobs: dict[str, dict[str, Any]], project: dict[str, Any]
) -> None:
    assert set(project["templates"]) <= set(UPSTREAM_TEMPLATES)
    pipelines = {k: v for k, v in project.items() if isinstance(v, dict)}
    assert set(pipelines) <= PIPELINES
    run = {name for one in pipelines.values() for name in one["jobs"]}
    assert run == set(jobs)
    assert pipelines["gate"] == pipelines["check"]


def test_tox_environments_are_there(
    jobs: dict[str, dict[str, Any]], project: dict[str, Any]
) -> None:
    asked = {
        job["vars"]["tox_envlist"]
        for job in jobs.values()
        if job["parent"] == "openstack-tox"
    }
    for template in project["templates"]:
        asked |= UPSTREAM_TEMPLATES[template]
    assert asked <= _environments()
    # What a contributor is told to run is run.
    assert {"functional", "mypy", "demo"} <= asked


def test_files_are_there(jobs: dict[str, dict[str, Any]]) -> None:
    for job in jobs.values():
        for when in ("pre-run", "run", "post-run"):
            for name in job.get(when, []):
                assert (PROJECT / name).is_file(), name
        for pattern in job.get("irrelevant-files", []):
            folder = re.match(r"\^(\w+)/", pattern)
            if folder is not None:
                assert (PROJECT / folder[1]).is_dir(), pattern


def test_devstack_knows_what_it_is_told(
    jobs: dict[str, dict[str, Any]],
) -> None:
    settings = (PROJECT / "devstack" / "settings").read_text()
    (own,) = re.findall(r"^define_plugin (\S+)$", settings, re.MULTILINE)
    required = re.findall(
        rf"^plugin_requires {own} (\S+)$", settings, re.MULTILINE
    )
    variables = set(re.findall(r"^(\w+)=", settings, re.MULTILINE))
    told = [one for job in jobs.values() for one in _everywhere(job)]
    for one in told:
        plugins = set(one.get("devstack_plugins", ()))
        assert plugins <= UPSTREAM_PLUGINS | {own}
        if own in plugins:
            assert set(required) <= plugins
        assert set(one.get("devstack_services", ())) <= UPSTREAM_SERVICES
        assert (
            set(one.get("devstack_localrc", ()))
            <= variables | UPSTREAM_VARIABLES
        )
    assert any(own in one.get("devstack_plugins", ()) for one in told)


def test_plugins_come_from_projects_that_are_there(
    jobs: dict[str, dict[str, Any]],
) -> None:
    """Zuul puts no other repository onto the nodes."""
    for job in jobs.values():
        projects = set(job.get("required-projects", ()))
        parent = jobs.get(job["parent"], {})
        projects |= set(parent.get("required-projects", ()))
        for one in _everywhere(job):
            for name in one.get("devstack_plugins", {}):
                assert f"openstack/{name}" in projects
            for name in one.get("tempest_plugins", ()):
                assert f"openstack/{name}" in projects


def test_tempest_finds_the_tests(jobs: dict[str, dict[str, Any]]) -> None:
    (entry,) = metadata.distribution("watcher-cputier").entry_points.select(
        group="tempest.test_plugins"
    )
    package = entry.module.rpartition(".")[0]
    folder = PROJECT / package.replace(".", "/") / "tests"
    names = [
        ".".join(path.relative_to(PROJECT).with_suffix("").parts)
        for path in folder.rglob("test_*.py")
    ]
    assert names
    for job in jobs.values():
        told = job.get("vars", {})
        if "tempest_test_regex" not in told:
            continue
        assert told["tox_envlist"] in DEVSTACK_ENVIRONMENTS
        assert all(re.search(told["tempest_test_regex"], n) for n in names)
        for name in set(told["tempest_plugins"]) - {"watcher-cputier"}:
            assert UPSTREAM_TEMPEST_PLUGINS[name] in told["tempest_test_regex"]


def test_the_plugin_tells_tempest_options_that_there_are() -> None:
    text = (PROJECT / "devstack" / "plugin.sh").read_text()
    told = set(re.findall(r'"\$TEMPEST_CONFIG" cputier (\w+)', text))
    assert told
    assert told <= {option.name for option in tempest_config.OPTIONS}
