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


"""``openstack tier metrics``, its alerts, and Watcher's own notifications.

The command runs as an operator's timer runs it. What it writes is compared
with what Placement, Nova and Watcher say themselves, scraped by a real
Prometheus, and judged by the alerts that are shipped.

The cloud is that of the stories about starvation, with a host that holds two
Gold units too many and one that sells no Gold at all.
"""

import calendar
from collections.abc import Callable, Iterator, Mapping
import dataclasses
import functools
import http.server
import json
import os
import pathlib
import re
import shlex
import socket
import stat
import subprocess
import threading
import time
from typing import Any
import urllib.parse
import urllib.request

from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics
import pytest
import yaml

from tests.cloud import EmbeddedCloud
from tests.cloud import loads
from tests.cloud import prometheus as cloud_prometheus
from tests.functional import polling
from tests.functional import shell as shell_module
from tests.functional import specs
from tests.functional import test_starvation
from tests.functional.conftest import Load
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

SAMPLES = pathlib.Path(__file__).parents[2] / "etc/prometheus"
DOCUMENTATION = SAMPLES.parents[1] / "doc/source/alerts.rst"
RULES = SAMPLES / "watcher-cputier.rules.yaml"
CLOUD = dataclasses.replace(
    test_starvation.CLOUD,
    hosts=(
        *specs.hosts(3),
        specs.host("host-4", tiers={"silver": 8, "bronze": 8}),
    ),
    events=(specs.inventory("host-3", "gold", total=6),),
)
OVER = ("host-3", "gold")
UNKNOWN = ("host-4", "gold")
STARVED = ("host-1", "silver")

Run = Callable[..., shell_module.Done]


class Exposition:
    """What was written or printed.

    ``found["cputier_host_quota_units", "host-1", "gold"]``: the name, and
    the values of the labels in the order in which the metric has them.
    """

    _ORDER = (
        "host", "tier", "kind", "flavor", "audit", "state", "instance_uuid",
        "verdict",
    )  # fmt: skip

    def __init__(self, text: str) -> None:
        self.values = {
            (
                sample.name,
                *(
                    sample.labels[name]
                    for name in self._ORDER
                    if name in sample.labels
                ),
            ): sample.value
            for family in parser.text_string_to_metric_families(text)
            for sample in family.samples
        }

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return self.values[(key,) if isinstance(key, str) else key]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """{labels: value} of one metric."""
        return {
            key[1:]: value
            for key, value in self.values.items()
            if key[0] == name
        }


def read(file: pathlib.Path) -> Exposition:
    """What was written to a file."""
    return Exposition(file.read_text())


@pytest.fixture
def openstack(
    cloud: EmbeddedCloud,
    shell: shell_module.Shell,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    """``openstack("tier", "metrics")`` runs the command."""

    def run(
        *words: str, env: Mapping[str, str] | None = None
    ) -> shell_module.Done:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OS_") and "proxy" not in name.lower()
        }
        (done,) = shell.run(
            [shlex.join(["openstack", *words])],
            tmp_path_factory.mktemp("run"),
            {**environment, **cloud.environment("admin"), **(env or {})},
        )
        assert "Traceback" not in done.err, done.err
        return done

    return run


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    """What node exporter would read."""
    return tmp_path / "watcher_cputier.prom"


@pytest.fixture
def collect(openstack: Run, file: pathlib.Path) -> Callable[..., Exposition]:
    """``collect()`` runs the command as its timer does, and it succeeds."""

    def run(*words: str) -> Exposition:
        done = openstack(
            *("tier", "metrics", "--textfile", str(file), *words),
        )
        assert (done.status, done.out) == (0, ""), done.err
        return read(file)

    return run


@pytest.fixture
def measured(cloud: EmbeddedCloud) -> Iterator[EmbeddedCloud]:
    """The cloud with a Gnocchi, for as long as the test runs."""
    cloud.gnocchi.start()
    cloud.gnocchi.enter()
    yield cloud
    cloud.gnocchi.leave()


@pytest.fixture(scope="module")
def programs() -> pathlib.Path:
    """Where Prometheus' own programs are."""
    found = cloud_prometheus.find()
    if found is None:
        pytest.skip("there is neither prometheus nor apt-get to fetch it")
    return found


def promtool(
    programs: pathlib.Path, *words: str, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run Prometheus' own checks."""
    return subprocess.run(
        [str(programs / "promtool"), *words],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


# What is written


def test_numbers_are_placements_and_time_in_breach_adds_up(
    measured: EmbeddedCloud,
    load: Load,
    collect: Callable[..., Exposition],
    truth: Truth,
    file: pathlib.Path,
    programs: pathlib.Path,
) -> None:
    """R16, R31, R124, R126, N14: what is not known has no series."""
    load(CLOUD, shared=True)
    loads.tell(measured, test_starvation.BUSY)

    found = collect()

    # Hosts.
    units = {"headroom": 0, "excess": 0, "allocated": 0, "capacity": 0}
    sums = {tier: dict(units) for tier in specs.TIERS}
    for host in truth.providers():
        used, inventories = truth.usages(host), truth.inventories(host)
        for tier in specs.TIERS:
            name = specs.tier_class(tier)
            allocated = used.get(name, 0)
            place = (host, tier)
            assert found["cputier_host_allocated_units", *place] == allocated
            sums[tier]["allocated"] += allocated
            if name not in inventories:
                assert place == UNKNOWN
                continue
            quota = inventories[name]["total"]
            sums[tier]["capacity"] += quota
            sums[tier]["headroom"] += max(0, quota - allocated)
            for metric, value in (
                ("quota_units", quota),
                ("headroom_units", max(0, quota - allocated)),
                ("excess_units", max(0, allocated - quota)),
                ("over_quota", float(allocated > quota)),
            ):
                assert found[f"cputier_host_{metric}", *place] == value
    for metric in ("quota_units", "headroom_units", "excess_units"):
        assert UNKNOWN not in found.of(f"cputier_host_{metric}")
    over = {p for p, v in found.of("cputier_host_over_quota").items() if v}
    names = {specs.tier_class(tier): tier for tier in specs.TIERS}
    assert over == {(h, names[c]) for h, c in truth.over() if c in names}
    assert over == {OVER}

    # Tiers.
    for tier in specs.TIERS:
        for what in ("capacity", "allocated", "headroom"):
            assert (
                found[f"cputier_tier_{what}_units", tier] == sums[tier][what]
            )
    assert found.of("cputier_hosts_unknown") == {
        (tier,): float(tier == "gold") for tier in specs.TIERS
    }
    # No host that sells Gold has a unit left.
    assert found["cputier_tier_largest_fit_units", "gold"] == 0
    assert found["cputier_tier_largest_flavor_units", "gold"] == 8
    assert found["cputier_flavor_fits", "bronze", "bronze.2"] == 3

    # Starvation.
    assert found["cputier_telemetry_succeeded"] == 1
    starved = {
        place: value
        for place, value in found.of("cputier_host_starved_instances").items()
        if value
    }
    assert starved == {STARVED: 1}
    assert found["cputier_host_deficit_cpus", *STARVED] > 0
    wide = measured.server_id("wide")
    assert found.of("cputier_instance_starved") == {
        (*STARVED, wide, "mis-weighted"): 1
    }

    # Watcher.
    assert found["cputier_watcher_succeeded"] == 1
    assert found["cputier_audits_alive"] == 0

    # Everybody may read the file, and it is well made.
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    checked = promtool(programs, "check", "metrics", input=file.read_text())
    assert (checked.returncode, checked.stderr) == (0, "")

    # The first time nothing has passed yet.
    breach = "cputier_host_breach_seconds_total"
    assert found[breach, *OVER, "quota"] == 0
    assert found[breach, *STARVED, "starvation"] == 0
    assert (*UNKNOWN, "quota") not in found.of(breach)

    later = collect()

    moment = "cputier_collected_timestamp_seconds"
    passed = later[moment] - found[moment]
    assert passed > 0
    assert later[breach, *OVER, "quota"] == pytest.approx(passed)
    assert later[breach, *STARVED, "starvation"] == pytest.approx(passed)
    assert {key for key, value in later.of(breach).items() if value} == {
        (*OVER, "quota"),
        (*STARVED, "starvation"),
    }

    # What is too far apart is not known, and no breach.
    last = collect("--max-gap", "0.001")

    assert last.of(breach) == later.of(breach)
    for kind in ("quota", "starvation"):
        assert last[
            "cputier_breach_unobserved_seconds_total", kind
        ] == pytest.approx(last[moment] - later[moment])


def test_a_failed_collection_says_so_and_keeps_no_host(
    cloud: EmbeddedCloud,
    load: Load,
    openstack: Run,
    collect: Callable[..., Exposition],
    file: pathlib.Path,
) -> None:
    """Neither Placement's failure nor Keystone's leaves old numbers."""
    load(CLOUD, shared=True)
    before = collect()
    # Nobody measured anything: not known is not none.
    assert before["cputier_telemetry_succeeded"] == 0
    assert not before.of("cputier_host_starved_instances")
    assert before.of("cputier_host_quota_units")
    # As if it had been so for a while.
    counted = (
        "cputier_host_breach_seconds_total"
        '{host="host-3",kind="quota",tier="gold"} '
    )
    text = file.read_text()
    assert f"{counted}0.0\n" in text
    file.write_text(text.replace(f"{counted}0.0\n", f"{counted}600.0\n"))
    words = ("tier", "metrics", "--textfile", str(file))

    # For good, and not for once: what may pass is tried again.
    cloud.inject("placement", "GET", "/allocation_candidates", status=403)
    failed = openstack(*words)
    cloud.clear_faults()

    assert failed.status == 1
    assert "placement:allocation_candidates:list" in failed.err
    told = read(file)
    assert told["cputier_collection_succeeded"] == 0
    assert told["cputier_watcher_succeeded"] == 1
    counter = "cputier_host_breach_seconds_total"
    stale = ("cputier_host_", "cputier_hosts_", "cputier_tier_")
    assert {n for n, *_ in told.values if n.startswith(stale)} == {counter}
    assert told[counter, *OVER, "quota"] == 600
    moment = "cputier_collected_timestamp_seconds"
    unobserved = "cputier_breach_unobserved_seconds_total"
    gap = told[moment] - before[moment]
    assert told[unobserved, "quota"] == pytest.approx(gap)

    refused = openstack(*words, env={"OS_PASSWORD": "no"})

    assert refused.status == 1
    assert refused.err.startswith("Keystone: ")
    assert len(set(refused.err.splitlines())) == 1, refused.err
    told = read(file)
    assert told["cputier_collection_succeeded"] == 0
    assert told["cputier_watcher_succeeded"] == 0
    assert told[counter, *OVER, "quota"] == 600


def test_what_is_printed_is_openmetrics(load: Load, openstack: Run) -> None:
    """Without a file nothing is counted, and no counter claims to be 0."""
    load(CLOUD, shared=True)

    done = openstack(
        *("tier", "metrics", "--openmetrics", "--no-fits"),
    )

    assert done.status == 0, done.err
    families = {
        family.name: family
        for family in openmetrics.text_string_to_metric_families(done.out)
    }
    assert "cputier_host_quota_units" in families
    assert "cputier_flavor_fits" not in families
    assert {family.type for family in families.values()} == {"gauge"}


def test_audits_are_those_of_watcher(
    load: Load,
    operator: Operator,
    collect: Callable[..., Exposition],
) -> None:
    """R127, R130: when each last ran, how that ended, when it is due."""
    load(CLOUD, shared=True)
    done = operator.audit()
    audits = {
        name: operator.create_audit(parameters, name=name, **fields)
        for name, parameters, fields in (
            ("enforce", {}, {"audit_type": "CONTINUOUS", "interval": "3600"}),
            ("called", {}, {"audit_type": "EVENT"}),
            # There is no telemetry that it could go by.
            ("blind", {"enforce_quota": False}, {"audit_type": "EVENT"}),
        )
    }
    operator.post(f"/v1/webhooks/{audits['blind']}", {})
    operator.wait(audits["blind"])
    plan = polling.until(
        lambda: operator.get(
            "/v1/action_plans/detail", audit_uuid=audits["enforce"]
        )["action_plans"],
        "the first run of the continuous audit",
    )[0]
    due = polling.until(
        lambda: operator.get(f"/v1/audits/{audits['enforce']}")[
            "next_run_time"
        ],
        "its next run",
    )

    found = collect("--no-fits")
    operator.cancel_audit(audits["enforce"])

    assert found["cputier_audits_alive"] == 2
    oneshot = operator.get(f"/v1/audits/{done.uuid}")["name"]
    assert found.of("cputier_audit_last_succeeded") == {
        ("enforce",): 1,
        ("blind",): 0,
        (oneshot,): 1,
    }
    last = found.of("cputier_audit_last_seconds")
    assert set(last) == {("enforce", "ONGOING"), (oneshot, "SUCCEEDED")}
    assert last["enforce", "ONGOING"] == _moment(plan["created_at"])
    assert found.of("cputier_audit_next_run_timestamp_seconds") == {
        ("enforce",): _moment(due)
    }


def _moment(text: str) -> float:
    """Seconds since the epoch of a time that Watcher tells."""
    plain, _, fraction = text.removesuffix("+00:00").partition(".")
    whole = calendar.timegm(time.strptime(plain, "%Y-%m-%dT%H:%M:%S"))
    return whole + float(f"0.{fraction or 0}")


# Alerts


def test_the_alerts_do_what_they_say(programs: pathlib.Path) -> None:
    """By Prometheus' own tests of rules, minute by minute."""
    checked = promtool(programs, "check", "rules", str(RULES))
    assert checked.returncode == 0, checked.stdout + checked.stderr

    tests = SAMPLES / "watcher-cputier.rules.test.yaml"
    tested = promtool(programs, "test", "rules", tests.name, cwd=SAMPLES)
    assert tested.returncode == 0, tested.stdout + tested.stderr

    alerts = {
        rule["alert"]
        for group in yaml.safe_load(RULES.read_text())["groups"]
        for rule in group["rules"]
    }
    fired = {
        case["alertname"]
        for test in yaml.safe_load(tests.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired == alerts


class _Node(http.server.BaseHTTPRequestHandler):
    """What node exporter does with a textfile: serve it."""

    def __init__(self, file: pathlib.Path, *args: Any) -> None:
        self._file = file
        super().__init__(*args)

    def do_GET(self) -> None:
        """The metrics as they are."""
        text = self._file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        """Nobody needs to know."""


@pytest.fixture
def prometheus(
    programs: pathlib.Path, file: pathlib.Path, tmp_path: pathlib.Path
) -> Iterator[str]:
    """A Prometheus that scrapes the file and has the alerts; its address.

    The alerts are those that are shipped, but for the patience.
    """
    rules = tmp_path / "rules.yaml"
    rules.write_text(re.sub(r"for: \w+", "for: 0s", RULES.read_text()))
    node = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Node, file)
    )
    threading.Thread(target=node.serve_forever, daemon=True).start()
    configuration = tmp_path / "prometheus.yml"
    configuration.write_text(
        json.dumps(
            {
                "global": {
                    "scrape_interval": "1s",
                    "evaluation_interval": "1s",
                },
                "rule_files": [str(rules)],
                "scrape_configs": [
                    {
                        "job_name": "node",
                        "static_configs": [
                            {"targets": [f"127.0.0.1:{node.server_port}"]}
                        ],
                    }
                ],
            }
        )
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    server = subprocess.Popen(
        [
            str(programs / "prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address={address}",
            "--log.level=error",
        ],
        stdin=subprocess.DEVNULL,
    )
    try:
        yield f"http://{address}"
    finally:
        server.terminate()
        server.wait()
        node.shutdown()
        node.server_close()


def ask(prometheus: str, path: str, **query: str) -> Any:
    """What Prometheus answers; nothing where it does not yet."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    encoded = urllib.parse.urlencode(query)
    try:
        with opener.open(f"{prometheus}/api/v1/{path}?{encoded}") as answer:
            return json.load(answer)["data"]
    except OSError:
        return {}


def test_a_host_over_quota_raises_an_alert(
    load: Load,
    collect: Callable[..., Exposition],
    truth: Truth,
    prometheus: str,
) -> None:
    """R124, R126: from Placement to somebody who is called."""
    load(CLOUD, shared=True)
    collect()

    def alerts() -> dict[str, list[Mapping[str, Any]]]:
        found: dict[str, list[Mapping[str, Any]]] = {}
        for one in ask(prometheus, "alerts").get("alerts", ()):
            if one["state"] == "firing":
                found.setdefault(one["labels"]["alertname"], []).append(one)
        return found

    polling.until(
        lambda: {
            "CPUTierHostOverQuota", "CPUTierLargestFlavorGone",
        } <= alerts().keys(),
        "the alerts",
    )  # fmt: skip
    found = alerts()

    (over,) = found["CPUTierHostOverQuota"]
    ((provider, name),) = truth.over()
    assert over["labels"]["host"] == provider
    assert specs.tier_class(over["labels"]["tier"]) == name
    units = truth.over()[provider, name]
    assert over["annotations"]["description"].startswith(f"{units} units")
    # host-4 sells no Gold, and could still take silver.8, but no bronze.8.
    for alert, tier in (
        ("CPUTierHostQuotaUnknown", "gold"),
        ("CPUTierFullySubscribed", "gold"),
        ("CPUTierLargestFlavorGone", "bronze"),
    ):
        assert [one["labels"]["tier"] for one in found[alert]] == [tier]
    assert not {name for name in found if name.startswith("CPUTierColl")}


@pytest.fixture
def own_cloud(tmp_path: pathlib.Path) -> Iterator[EmbeddedCloud]:
    """A cloud of its own: what its policies were told stays with them."""
    with EmbeddedCloud(CLOUD, directory=tmp_path / "own") as cloud:
        yield cloud


def test_the_policies_that_are_named_are_enough(
    own_cloud: EmbeddedCloud, openstack: Run, tmp_path: pathlib.Path
) -> None:
    """R79: a user who may do nothing else sees what an administrator sees."""
    named = re.findall(r"``(\w+:[\w:-]+)``", DOCUMENTATION.read_text())
    for service, prefix in (
        ("compute", "os_compute_api:"),
        ("placement", "placement:"),
    ):
        policies = {
            name: "role:reader or role:admin"
            for name in named
            if name.startswith(prefix)
        }
        assert policies
        (tmp_path / service).mkdir()
        (tmp_path / service / "policy.yaml").write_text(json.dumps(policies))
        own_cloud.set_option(
            service, "oslo_policy", "policy_dirs", [str(tmp_path / service)]
        )

    mine, theirs = (
        openstack("tier", "metrics", env=own_cloud.environment(user))
        for user in ("reader", "admin")
    )

    assert theirs.status == 0, theirs.err
    # Watcher's policies are as they were.
    assert mine.status == 1
    assert "audit:detail" in mine.err
    values = [
        {
            key: value
            for key, value in Exposition(done.out).values.items()
            if key[0].startswith(("cputier_host", "cputier_tier", "cputier_f"))
        }
        for done in (mine, theirs)
    ]
    assert len(values[0]) > 50
    assert values[0] == values[1]


# Watcher's own notifications


def test_watcher_notifies_of_an_audit_that_an_alert_calls(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R115, R116: the webhook takes what Alertmanager sends.

    From the call to the end of the migration all is notified, with the
    names that the documentation has.
    """
    cloud.watcher.configure(
        {("oslo_messaging_notifications", "driver"): "log"}
    )
    load(CLOUD)
    mark = cloud.watcher.log_mark()
    uuid = operator.create_audit(
        {"quotas_by_host": {"host-2": {"silver": 4}}},
        name="called",
        audit_type="EVENT",
        auto_trigger=True,
    )

    answer = operator.post(
        "/v1/webhooks/called",
        {
            "version": "4",
            "status": "firing",
            "receiver": "watcher",
            "alerts": [{"labels": {"alertname": "CPUTierHostOverQuota"}}],
        },
    )

    assert answer.status_code == 202
    plan = operator.wait_for_plan(operator.wait(uuid).plan.uuid, started=False)
    assert plan.state == "SUCCEEDED"
    assert truth.locations()["silver-fair"] == "host-4"
    sent = [
        json.loads(record)
        for record in re.findall(
            r" oslo\.messaging\.notification\.\S+ \[[^\]]*\] (\{.*\})$",
            cloud.watcher.log(mark),
            re.MULTILINE,
        )
    ]
    names = [one["event_type"] for one in sent]
    described = DOCUMENTATION.read_text()
    assert [name for name in names if f"``{name}``" not in described] == []
    (execution,) = [
        one for one in sent if one["event_type"] == "action.execution.end"
    ]
    told = execution["payload"]["watcher_object.data"]
    assert told["action_type"] == "tier_migrate"
    assert told["input_parameters"]["source_node"] == "host-2"
    for name in (
        "audit.create", "audit.strategy.start", "audit.strategy.end",
        "audit.planner.end", "action_plan.create", "action_plan.update",
        "action_plan.execution.start", "action.execution.start",
        "action_plan.execution.end", "audit.update",
    ):  # fmt: skip
        assert name in names
