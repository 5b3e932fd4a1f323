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

"""``openstack tier audit report`` on what real audits have left behind.

host-1 holds 8 Gold units of at most 4, of which the locked instance may keep
its 4; host-2 holds 4 Silver units of at most 2::

    host-1  db (locked) web-1 web-2      demo, shop
    host-2  batch                        demo
    host-3

Each report is compared with what Watcher's API, Nova and Placement say.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import datetime
import itertools
import json
import os
import pathlib
import re
import shlex
import time
from typing import Any

import pytest

from tests.cloud import EmbeddedCloud
from tests.cloud import prometheus as cloud_prometheus
from tests.functional import polling
from tests.functional import shell as shell_module
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

OVER = specs.three_tiers(
    instance("db", "gold.4", "host-1", locked=True, project="demo"),
    instance("web", "gold.2", "host-1", count=2, project="shop"),
    instance("batch", "silver.4", "host-2", project="demo"),
    events=(
        specs.inventory("host-1", "gold", total=4),
        specs.inventory("host-2", "silver", total=2),
    ),
)
REPORT = ("tier", "audit", "report")
HOSTS = ("host-1", "host-2", "host-3")


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows that it lists."""
        assert self.status == 0, self.err
        found: list[dict[str, Any]] = json.loads(self.out)
        return found


Run = Callable[..., Result]


@pytest.fixture
def report(
    cloud: EmbeddedCloud,
    shell: shell_module.Shell,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """``report("nightly")`` runs the command; JSON is asked for."""

    def run(
        *words: str, command: tuple[str, ...] = REPORT, user: str = "admin"
    ) -> Result:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OS_") and "proxy" not in name.lower()
        }
        (done,) = shell.run(
            [shlex.join(["openstack", *command, *words, "-f", "json"])],
            tmp_path_factory.mktemp("run"),
            {**environment, **cloud.environment(user)},
        )
        # Shown where a story goes wrong.
        print(shlex.join(words), done.out, done.err, sep="\n")
        assert "Traceback" not in done.err, done.err
        return Result(done.status, done.out, done.err)

    return run


@pytest.fixture(autouse=True)
def undisturbed(cloud: EmbeddedCloud) -> Iterator[None]:
    """Whatever a story does to migrations and requests ends with it."""
    yield
    cloud.set_migration_behaviour()
    cloud.clear_faults()


def outcomes(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["Instance"]: row["Outcome"] for row in rows}


def seconds(told: str) -> float:
    """A time of an API or a report, in seconds since the epoch."""
    found = datetime.datetime.fromisoformat(told)
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return found.timestamp()


def test_what_was_planned_and_what_became_of_it(
    load: Load,
    cloud: EmbeddedCloud,
    operator: Operator,
    truth: Truth,
    report: Run,
    tmp_path: pathlib.Path,
) -> None:
    """R120, R121: a plan before its start, after it, and for its tenants.

    `openstack tier plan --report` plans what the audit plans, so that its
    document is a record of the audit's run.
    """
    load(OVER)
    held = {host: truth.usages(host) for host in HOSTS}
    record, written = tmp_path / "record.json", tmp_path / "report.json"
    page = tmp_path / "report.html"
    planned = report("--report", str(record), command=("tier", "plan"))
    assert {row["Instance"] for row in planned.rows} == {
        "web-1",
        "web-2",
        "batch",
    }
    audit = operator.run(name="nightly")
    proposed = report("nightly")

    assert set(outcomes(proposed.rows).values()) == {"planned"}
    assert {
        row["Instance"]: (row["Source"], row["Target"])
        for row in proposed.rows
    } == audit.moves
    assert f"optimize actionplan start {audit.plan.uuid}" in proposed.err

    operator.start(audit.plan)
    done = report(
        audit.uuid, "--record", str(record), "--report", str(written)
    )
    again = report(audit.plan.uuid, "--html", str(page))

    assert outcomes(done.rows) == dict.fromkeys(audit.moves, "moved")
    assert again.rows == done.rows
    for row in done.rows:
        (migration,) = truth.migrations(row["Instance"])
        assert row["ID"] == cloud.server_id(row["Instance"])
        assert truth.locations()[row["Instance"]] == row["Target"]
        took = seconds(migration["updated_at"]) - seconds(
            migration["created_at"]
        )
        assert row["Seconds"] == pytest.approx(took, abs=1)
    made_at = operator.get(f"/v1/action_plans/{audit.plan.uuid}")["created_at"]
    (moved,) = re.findall(
        r"Audit at (\S+) UTC moved 2 instances from host-1 to .* to bring "
        r"gold from 8 to 4 units of at most 4 ",
        done.err,
    )
    assert moved == made_at[11:16]
    document = json.loads(written.read_text())
    (plan,) = document["plans"]
    assert plan["indicators"] == audit.indicators
    for one in plan["hosts"]:
        tier = specs.tier_class(one["tier"])
        assert one["before"] == held[one["host"]].get(tier, 0)
        assert one["after"] == truth.usages(one["host"]).get(tier, 0)
    tiers = {one["tier"]: one for one in plan["tiers"]}
    assert (tiers["gold"]["before"], tiers["gold"]["after"]) == (4, 0)
    assert (tiers["silver"]["before"], tiers["silver"]["after"]) == (2, 0)
    assert {"web-1", "host-1"} <= set(re.findall(r"[\w-]+", page.read_text()))
    tenants = report("nightly", "--tenant", "--html", str(page))
    _tenants_are_told(tenants, page.read_text(), cloud, truth)


def _tenants_are_told(
    told: Result, page: str, cloud: EmbeddedCloud, truth: Truth
) -> None:
    """A notice per project, without hosts and without the others' names."""
    owners = {
        name: truth.server(name)["tenant_id"]
        for name in ("web-1", "web-2", "batch")
    }
    found = {row["Instance"]: row["Project"] for row in told.rows}
    assert found == owners
    assert len(set(owners.values())) == 2
    for host in HOSTS:
        assert host not in told.out + told.err + page
    assert cloud.server_id("web-1") in page
    for row in told.rows:
        assert row["At"] is not None
        assert row["Outcome"] == "moved"
    notices = told.err.split("To project ")[1:]
    shop = next(text for text in notices if "web-1" in text)
    assert "2 of your instances were live-migrated" in shop
    assert cloud.server_id("web-2") in shop
    assert "batch" not in shop


def test_a_record_of_another_run_is_refused(
    operator: Operator, load: Load, report: Run, tmp_path: pathlib.Path
) -> None:
    """Nothing is mixed up, and what is wrong is told in one line."""
    load(OVER, shared=True)
    record = tmp_path / "record.json"
    report(
        *("--max-migrations", "1", "--report", str(record)),
        command=("tier", "plan"),
    )
    audit = operator.audit()

    other = report(audit.uuid, "--record", str(record))
    unknown = report("weekly")
    forbidden = report(audit.uuid, user="member")

    assert other.status == unknown.status == forbidden.status == 1
    assert other.out == unknown.out == forbidden.out == ""
    assert "audit:get" in forbidden.err
    assert "it is of another run" in other.err
    assert str(record) in other.err
    # The shell's process has more than one handler of logs.
    (line,) = set(unknown.err.splitlines())
    assert line.startswith("there is no audit or action plan 'weekly'")


def test_skipped_and_failed_migrations_are_told_with_their_reasons(
    load: Load,
    cloud: EmbeddedCloud,
    operator: Operator,
    truth: Truth,
    report: Run,
) -> None:
    """web-1 is locked before its turn; the copy of batch fails."""
    load(OVER)
    audit = operator.audit()
    cloud.lock("web-1")
    cloud.set_migration_behaviour("host-2", outcome="fail")

    operator.start(audit.plan)
    told = report(audit.plan.uuid)

    assert outcomes(told.rows) == {
        "web-1": "skipped",
        "web-2": "moved",
        "batch": "failed",
    }
    actions = {
        action["input_parameters"]["resource_name"]: action
        for action in operator.get(
            "/v1/actions/detail", action_plan_uuid=audit.plan.uuid
        )["actions"]
    }
    rows = {row["Instance"]: row for row in told.rows}
    for name in ("web-1", "batch"):
        reason = actions[name]["status_message"].partition(": ")[2]
        assert reason
        assert rows[name]["Explanation"].startswith(reason.rstrip("."))
        assert reason.rstrip(".") in told.err
    (failed,) = truth.migrations("batch")
    assert failed["status"] in rows["batch"]["Explanation"]
    assert "gold from 8 to 6 units of at most 4" in told.err
    assert truth.usages("host-1")[specs.GOLD] == 6
    assert "4 gold units, planned to stay: 0, left by what has moved: 2" in (
        told.err
    )
    # Without Nova Watcher's word stands alone, and is told to.
    cloud.inject("compute", path_regex="/os-migrations$", status=403)
    alone = report(audit.plan.uuid)
    cloud.clear_faults()
    assert outcomes(alone.rows) == outcomes(told.rows)
    assert {row["Seconds"] for row in alone.rows} == {None}
    assert "The outcomes are Watcher's word alone" in alone.err
    # Nobody has touched web-1; an instance that is gone had an owner.
    owner = truth.server("web-2")["tenant_id"]
    cloud.delete("web-2")
    tenants = report(audit.plan.uuid, "--tenant")
    assert outcomes(tenants.rows) == {"web-2": "moved", "batch": "failed"}
    projects = {row["Instance"]: row["Project"] for row in tenants.rows}
    assert projects["web-2"] == owner
    assert projects["batch"] == truth.server("batch")["tenant_id"]


def test_the_course_of_audits_over_time(
    load: Load,
    cloud: EmbeddedCloud,
    operator: Operator,
    report: Run,
    tmp_path: pathlib.Path,
) -> None:
    """R123, R127, R130: a run that was late, two that met a slow plan."""
    load(OVER)
    begun = time.time()
    hourly = operator.create_audit(
        name="hourly", audit_type="CONTINUOUS", interval="1"
    )
    polling.until(lambda: operator.plans(hourly), "the first run")
    # The next run waits for an answer of Placement.
    cloud.inject(
        "placement",
        path_regex="/resource_providers$",
        delay_seconds=4,
        times=1,
    )
    polling.until(lambda: operator.plans(hourly)[1:], "the second run")
    operator.cancel_audit(hourly)
    # It may have begun another one just now.
    polling.until(
        lambda: operator.get(f"/v1/audits/{hourly}")["state"] == "CANCELLED",
        "the audit to be cancelled",
    )
    cloud.set_migration_behaviour(duration_seconds=5)
    at_once = dict.fromkeys(
        ("parallel_total", "parallel_per_source", "parallel_per_target"), 4
    )
    slow = operator.run(at_once, name="slow")
    answer = operator.post(f"/v1/action_plans/{slow.plan.uuid}/start")
    assert answer.status_code == 200, answer.text
    polling.until(
        lambda: (
            operator.get(f"/v1/action_plans/{slow.plan.uuid}")["state"]
            == "ONGOING"
        ),
        "the plan to be carried out",
    )
    created = [
        operator.create_audit(name="forced", force=True),
        operator.create_audit(name="polite"),
    ]
    forced, polite = (operator.wait(uuid) for uuid in created)
    operator.wait_for_plan(slow.plan.uuid)

    since = datetime.datetime.fromtimestamp(begun, datetime.UTC).isoformat()
    written = tmp_path / "course.json"
    told = report(
        *("--since", since, "--grace", "2", "--report", str(written))
    )

    listed = operator.get("/v1/action_plans/detail")["action_plans"]
    made = {one["uuid"]: seconds(one["created_at"]) for one in listed}
    rows = {row["Plan"]: row for row in told.rows}
    assert set(rows) == set(made)
    own = [
        one["uuid"]
        for one in sorted(listed, key=lambda one: one["created_at"])
        if one["audit_uuid"] == hourly
    ]
    gaps = {
        after: made[after] - made[before] - 1
        for before, after in itertools.pairwise(own)
    }
    assert max(gaps.values()) > 2
    for uuid, row in rows.items():
        gap = gaps.get(uuid, 0)
        late = row["Late Seconds"]
        assert (late is not None) == (gap > 2)
        assert late is None or late == pytest.approx(gap, abs=0.01)
    assert rows[forced.plan.uuid]["Overlaps"] == [slow.plan.uuid]
    assert polite.state == "CANCELLED"
    (passed_over,) = re.findall("audit polite was cancelled.*", told.err)
    assert slow.plan.uuid in passed_over
    assert rows[slow.plan.uuid]["Excess Before"] == 6
    assert rows[slow.plan.uuid]["Excess After"] == 0
    _records_prove_minutes(json.loads(written.read_text()), made, own)
    assert "Minutes by host are not available" in told.err
    known = report("hourly", "--since", since, "--breaches")
    assert {(row["Host"], row["Tier"]) for row in known.rows} == {
        (None, "gold"),
        (None, "silver"),
    }


def _records_prove_minutes(
    document: dict[str, Any], made: Mapping[str, float], own: list[str]
) -> None:
    """Gold was over at every run of the continuous audit, and until the slow
    plan had ended (N14).
    """
    found = {
        (one["kind"], one["tier"]): one
        for one in document["course"]["breaches"]["tiers"]
    }
    (slow,) = [
        one
        for one in document["course"]["runs"]
        if one["audit_name"] == "slow"
    ]
    assert slow["tiers"]
    assert document["course"]["breaches"]["hosts"] is None
    gold = found["quota", "gold"]
    proven = made[own[-1]] - made[own[0]]
    assert gold["at_least"] is True
    assert gold["minutes"] >= proven / 60 - 0.01
    assert found["quota", "bronze"]["minutes"] == 0
    assert found["quota", "bronze"]["at_least"] is False


def test_minutes_of_every_host_come_from_the_exporters_series(
    load: Load, cloud: EmbeddedCloud, operator: Operator, report: Run
) -> None:
    """N14: read back from a real Prometheus.

    host-1 was over its Gold quota for 20 of the last 60 minutes, its counter
    began anew on the way; host-2 for none.
    """
    load(OVER, shared=True)
    operator.audit()
    cloud.prometheus.start()
    now = int(time.time())
    minutes = range(now - 3600, now + 1, 60)

    def counter(host: str, values: list[float]) -> cloud_prometheus.Series:
        return cloud_prometheus.Series(
            metric="cputier_host_breach_seconds_total",
            labels={"host": host, "tier": "gold", "kind": "quota"},
            samples=tuple(zip(minutes, values, strict=True)),
        )

    growing = [60.0 * min(20, n) for n in range(61)]
    cloud.prometheus.write_series(
        [
            counter("host-1", [500 + value for value in growing]),
            counter("host-2", [700.0] * 61),
            cloud_prometheus.Series(
                metric="cputier_host_excess_units",
                labels={"host": "host-1", "tier": "gold"},
                samples=tuple(
                    (at, 4.0 if n < 20 else 0.0)
                    for n, at in enumerate(minutes)
                ),
            ),
            cloud_prometheus.Series(
                metric="cputier_collected_timestamp_seconds",
                labels={},
                samples=tuple((at, float(at)) for at in minutes),
            ),
            cloud_prometheus.Series(
                metric="cputier_collection_succeeded",
                labels={},
                samples=tuple((at, 1.0) for at in minutes),
            ),
        ]
    )
    url = f"http://127.0.0.1:{cloud.prometheus.server_port}"

    told = report("--since", "2h", "--breaches", "--prometheus", url)
    found = report("--since", "2h", "--breaches")
    cloud.prometheus.halt()
    silent = report("--since", "2h", "--prometheus", url)
    cloud.prometheus.resume()
    cloud.prometheus.leave()

    assert told.rows == [
        {
            "Host": "host-1",
            "Tier": "gold",
            "Kind": "quota",
            "Minutes": 20,
            "At Least": False,
            "Peak Units": 4,
        }
    ]
    assert "host-1 was over its gold quota for 20 minutes" in told.err
    # The same through the cloud's own metric-storage, without a URL.
    assert found.rows == told.rows
    assert silent.status == 1
    assert f"127.0.0.1:{cloud.prometheus.server_port}" in silent.err
