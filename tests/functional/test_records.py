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


def test_a_report_says_what_reading_took_and_why_there_is_no_plan(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    tmp_path: pathlib.Path,
) -> None:
    """Of an audit that succeeds the plan, of one that fails the error.

    The failing one has come as far as Placement's details: what Nova and
    Placement had answered until then is told.
    """
    cloud.watcher.configure({("cputier", "record_directory"): str(tmp_path)})
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )

    good = operator.audit()
    cloud.inject(
        "placement",
        path_regex="/resource_providers$",
        times=None,
        status=200,
        body="{}",
    )
    bad = operator.audit()
    cloud.clear_faults()

    plan, failure = (
        json.loads((tmp_path / f"{audit.uuid}.report.json").read_text())
        for audit in (good, bad)
    )
    assert [m["instance"]["name"] for m in plan["migrations"]] == ["mover"]
    assert plan["indicators"]["migrations_planned"] == 1
    assert plan["reading"].keys() >= {"Nova", "Placement"}
    assert bad.state == "FAILED"
    error = failure["error"]
    assert error["kind"] == "ServiceError"
    assert error["where"] == "Placement GET /resource_providers"
    assert "resource_providers" in error["what"]
    assert bad.reason.startswith(error["text"][:200])
    assert failure["reading"]["Nova"]["requests"] >= 6
    assert failure["reading"]["Placement"]["received_bytes"] > 0
    assert not (tmp_path / f"{bad.uuid}.yaml").exists()
    assert bad.said("Reading the cloud took Nova", "until then")
