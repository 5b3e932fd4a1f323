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

"""What an audit leaves behind with ``[cputier] record_directory``."""

import dataclasses
import json
import stat

from oslo_config import cfg
import pytest

from tests import builders
from watcher_cputier import report
from watcher_cputier import scenario
from watcher_cputier.conf import tiers
from watcher_cputier.datasources import recorder

CLOUD = builders.cluster(
    [builders.host("a", gold=1), builders.host("b")],
    builders.instances("i", "a", [1, 1]),
)


@dataclasses.dataclass
class Audit:
    uuid: str = "4f6c"


@pytest.fixture
def conf(tmp_path):
    found = cfg.ConfigOpts()
    found([], project="watcher")
    tiers.register(found)
    found.set_override(
        "record_directory", str(tmp_path / "records"), tiers.GROUP
    )
    return found


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "records"


def test_nothing_is_recorded_by_default(conf, directory):
    conf.clear_override("record_directory", tiers.GROUP)
    recorder.record(conf, Audit(), CLOUD, {})
    assert not directory.exists()


def test_an_audit_is_recorded(conf, directory):
    """Cluster and given parameters, for the service's user alone."""
    given = {"quotas": {"gold": 1}, "drain_hosts": []}
    recorder.record(conf, Audit(), CLOUD, given)
    (path,) = directory.iterdir()
    assert path.name == "4f6c.yaml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    found = scenario.loads(path.read_text())
    assert found.cluster == CLOUD
    assert found.parameters == given


def test_the_next_run_replaces_it(conf, directory):
    recorder.record(conf, Audit(), CLOUD, {"max_migrations": 1})
    recorder.record(conf, Audit(), CLOUD, {"max_migrations": 2})
    (path,) = directory.iterdir()
    assert scenario.loads(path.read_text()).parameters["max_migrations"] == 2


def test_a_run_without_an_audit(conf, directory):
    recorder.record(conf, None, CLOUD, {})
    assert [path.name for path in directory.iterdir()] == ["audit.yaml"]


def test_a_directory_that_cannot_be_is_a_warning(conf, directory, caplog):
    directory.write_text("a file is in the way")
    recorder.record(conf, Audit(), CLOUD, {})
    assert "The record yaml of audit 4f6c cannot be written" in caplog.text
    assert "[cputier] record_directory" in caplog.text


def test_what_cannot_be_written_is_a_warning(conf, directory, caplog):
    """Whatever the reason; nothing half-written stays."""
    (directory / "4f6c.yaml").mkdir(parents=True)
    recorder.record(conf, Audit(), CLOUD, {})
    assert "cannot be written" in caplog.text
    assert [path.name for path in directory.iterdir()] == ["4f6c.yaml"]


def test_a_cluster_that_cannot_be_dumped_is_a_warning(conf, caplog):
    recorder.record(conf, Audit(), None, {})
    assert "cannot be written" in caplog.text


def test_a_report_is_recorded_beside_it(conf, directory):
    """Of the next run there is one again, whatever it came to."""
    recorder.record(conf, Audit(), CLOUD, {})
    failed = report.failure_document(ValueError("no"), reading={})
    for document in ({"summary": "fine"}, failed):
        recorder.record_report(conf, Audit(), document)
        path = directory / "4f6c.report.json"
        assert json.loads(path.read_text()) == document
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {p.name for p in directory.iterdir()} == {
        "4f6c.yaml",
        "4f6c.report.json",
    }


def test_no_report_is_recorded_by_default(conf, directory):
    conf.clear_override("record_directory", tiers.GROUP)
    recorder.record_report(conf, Audit(), {})
    assert not directory.exists()


def test_a_report_that_is_no_json_is_a_warning(conf, directory, caplog):
    recorder.record_report(conf, Audit(), {"x": object()})
    assert "The record report.json of audit 4f6c cannot be" in caplog.text
    assert list(directory.glob("*")) == []
