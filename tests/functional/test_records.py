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

"""What an audit records is what it decided on."""

import json
import pathlib

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.watcher_api import Operator
from watcher_cputier import scenario
from watcher_cputier.cli import main


def test_a_recorded_audit_is_replayed_without_the_cloud(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    tmp_path: pathlib.Path,
    capsys,
) -> None:
    """L9: the same plan from the file, and from one without names."""
    cloud.watcher.configure({("cputier", "record_directory"): str(tmp_path)})
    load(
        specs.three_tiers(
            instance("good", "gold.4", "host-1"),
            instance("fine", "gold.2", "host-1"),
            instance("cheap", "bronze.2", "host-2"),
            hosts=specs.hosts(3),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )

    audit = operator.audit(drain_hosts=["host-2"])

    path = tmp_path / f"{audit.uuid}.yaml"
    assert path.stat().st_mode & 0o777 == 0o600
    assert main.main(["plan", "--scenario", str(path), "--format=json"]) == 0
    replayed = json.loads(capsys.readouterr().out)
    assert {
        m["instance"]["name"]: (m["source"], m["target"])
        for m in replayed["migrations"]
    } == dict(audit.moves)
    for name, value in replayed["indicators"].items():
        assert audit.indicators[name] == value

    found = scenario.loads(path.read_text())
    assert scenario.dumps(found) == path.read_text()
    nameless = tmp_path / "nameless.yaml"
    nameless.write_text(scenario.dumps(scenario.pseudonymised(found)))
    for name in ("host-1", "good", "cheap"):
        assert f"{name}:" not in nameless.read_text()
        assert f" {name}," not in nameless.read_text()
    main.main(["plan", "--scenario", str(nameless), "--format=json"])
    again = json.loads(capsys.readouterr().out)
    assert [m["weight"] for m in again["migrations"]] == [
        m["weight"] for m in replayed["migrations"]
    ]
