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


"""``openstack tier ...``, run as an operator runs it.

Each command is a process of its own, with the environment of a user of the
embedded cloud; what it prints as JSON is compared with what Placement and
Nova say themselves.
"""

from collections.abc import Callable, Iterator, Mapping
import csv
import dataclasses
from importlib import metadata
import io
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import FlavorSpec
from tests.cloud import HostSpec
from tests.cloud import loads
from tests.functional import specs
from tests.functional import test_starvation
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

# host-1 is 4 Gold units over; a flavor nobody uses yet is the largest.
OVER = specs.three_tiers(
    instance("big", "gold.4", "host-1"),
    instance("small", "gold.2", "host-1", count=2),
    instance("calm", "silver.2", "host-1"),
    instance("nobody", "plain.1", "host-1"),
    instance("full", "bronze.4", "host-2", count=2),
    instance("tenant", "gold.1", "host-3"),
    flavors=(specs.flavor("gold.8"),),
    events=(specs.inventory("host-1", "gold", total=4),),
)


PLAN = (
    "import sys; from watcher_cputier.cli import main; sys.exit(main.main())"
)


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command did."""

    status: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of a command that lists."""
        assert self.status == 0, self.err
        return self.data

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of a command that shows."""
        assert self.status == 0, self.err
        return self.data

    @property
    def data(self) -> Any:
        """What it printed, whatever its status."""
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def openstack(cloud: EmbeddedCloud) -> Run:
    """``openstack("tier", "host", "list")`` runs the command.

    JSON is asked for unless the command writes something else.
    """

    def run(
        *words: str,
        user: str = "admin",
        formatted: bool = True,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OS_") and "proxy" not in name.lower()
        }
        environment.update(cloud.environment(user), **(env or {}))
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "openstackclient.shell",
                *words,
                *(("-f", "json") if formatted else ()),
            ],
            env=environment,
            cwd=cloud.directory,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def _hosts(truth: Truth) -> list[str]:
    return sorted(truth.providers())


def _capacity(truth: Truth, host: str, name: str) -> int:
    record = truth.inventories(host)[name]
    return int(
        (record["total"] - record["reserved"]) * record["allocation_ratio"]
    )


# host


def test_host_list_shows_what_placement_holds(
    load: Load, openstack: Run, truth: Truth
) -> None:
    """R77, R16, R31: units, capacity and what is left, host by host."""
    load(OVER, shared=True)

    rows = openstack("tier", "host", "list").rows

    found = {(row["Host"], row["Tier"]): row for row in rows}
    assert len(found) == len(rows) == 9
    for host in _hosts(truth):
        used = truth.usages(host)
        for tier in specs.TIERS:
            name = specs.tier_class(tier)
            row = found[host, tier]
            quota = _capacity(truth, host, name)
            assert row["Allocated"] == used[name]
            assert row["Quota"] == quota
            assert row["Headroom"] == max(0, quota - used[name])
            # Nobody measured anything: not known is not none.
            assert row["Starved"] is None
            assert row["Deficit CPUs"] is None
    states = {key: row["State"] for key, row in found.items()}
    assert states.pop(("host-1", "gold")) == "over"
    assert states.pop(("host-2", "bronze")) == "near"
    assert set(states.values()) == {"ok"}


def test_host_list_narrows_and_takes_policy_quotas(
    load: Load, openstack: Run
) -> None:
    """R6: the audit's parameters judge here as they do in an audit."""
    load(OVER, shared=True)

    rows = openstack(
        *("tier", "host", "list", "--host", "host-2", "--state", "over"),
        *("--set", 'quotas={"bronze": 6}'),
    ).rows

    assert rows == [
        {
            "Host": "host-2",
            "Tier": "bronze",
            "Allocated": 8,
            "Quota": 6,
            "Headroom": 0,
            "State": "over",
            "Starved": None,
            "Deficit CPUs": None,
        }
    ]


def test_host_show_tells_the_promised_split(
    load: Load, openstack: Run, truth: Truth
) -> None:
    """R3, R15, R20, R42: CPUs of each tier, and percent for people.

    host-3 sells 8 units of each tier on 8 CPUs: 512, 333 and 167 of 1012
    parts of it. Its only instance, one Gold vCPU, would have one CPU.
    """
    load(OVER, shared=True)

    shown = openstack("tier", "host", "show", "host-3").fields

    assert shown["shared cpus"] == truth.inventories("host-3")["VCPU"]["total"]
    assert shown["oversubscription"] == 3
    assert (shown["instances"], shown["untiered"]) == (1, 0)
    tiers = {one["tier"]: one for one in shown["tiers"]}
    for tier, shares in specs.SHARES.items():
        if tier in tiers:
            promised = 8 * shares / 1012
            assert tiers[tier]["promised_cpus"] == pytest.approx(
                promised, abs=1e-3
            )
            assert tiers[tier]["promised_percent"] == pytest.approx(
                promised / 8 * 100, abs=0.1
            )
            assert tiers[tier]["used_cpus"] is None
    assert tiers["gold"]["loaded_cpus"] == pytest.approx(1.0)
    assert tiers["silver"]["loaded_cpus"] == 0
    assert sum(one["promised_cpus"] for one in tiers.values()) == (
        pytest.approx(8, abs=0.01)
    )


def test_host_show_counts_untiered_instances(
    load: Load, openstack: Run
) -> None:
    """R2, R46: one without tier competes too, and is told."""
    load(OVER, shared=True)

    shown = openstack("tier", "host", "show", "host-1").fields

    assert shown["untiered"] == 1
    tiers = {one["tier"]: one for one in shown["tiers"]}
    assert tiers["(untiered)"]["loaded_cpus"] > 0
    assert tiers["(untiered)"]["quota"] is None
    assert any("nobody" in text for text in shown["findings"])


def test_a_host_that_does_not_exist_is_one_clear_error(
    load: Load, openstack: Run
) -> None:
    load(OVER, shared=True)

    found = openstack("tier", "host", "show", "host-9")

    assert found.status == 1
    assert found.out == ""
    assert found.err.splitlines() == [
        (
            "there is no host 'host-9'. Name one that `openstack tier host "
            "list` shows"
        )
    ]


# instance


def test_instance_list_shows_what_nova_and_placement_say(
    load: Load, cloud: EmbeddedCloud, openstack: Run, truth: Truth
) -> None:
    load(OVER, shared=True)

    rows = openstack("tier", "instance", "list").rows

    assert {row["Name"]: row["Host"] for row in rows} == truth.locations()
    for row in rows:
        assert row["ID"] == cloud.server_id(row["Name"])
        (held,) = truth.allocations(row["ID"]).values()
        name = specs.tier_class(row["Tier"]) if row["Tier"] else ""
        assert row["Units"] == held.get(name, 0)
        embedded = truth.server(row["Name"])["flavor"]["extra_specs"]
        shares = embedded.get("quota:cpu_shares")
        assert row["Shares"] == (None if shares is None else int(shares))
        assert row["Verdict"] is None
    by_name = {row["Name"]: row for row in rows}
    assert by_name["nobody"]["Tier"] is None
    assert by_name["tenant"]["Floor"] == pytest.approx(512 / 1012, abs=1e-3)

    here = openstack(
        "tier", "instance", "list", "--host", "host-1", "--untiered"
    ).rows
    assert [row["Name"] for row in here] == ["nobody"]
    wrong = openstack("tier", "instance", "list", "--tier", "tin")
    assert (wrong.status, wrong.out) == (1, "")
    assert wrong.err.splitlines() == [
        "there is no tier 'tin'. The tiers are gold, silver, bronze"
    ]


def test_instance_show_tells_allocations_and_moves(
    load: Load, cloud: EmbeddedCloud, openstack: Run, truth: Truth
) -> None:
    """N12: a live migration of today counts."""
    load(OVER)
    assert cloud.live_migrate("tenant", "host-2") == "completed"

    shown = openstack("tier", "instance", "show", "tenant").fields

    assert shown["host"] == truth.locations()["tenant"] == "host-2"
    held = truth.allocations(cloud.server_id("tenant"))["host-2"]
    assert {
        one["resource_class"]: one["units"] for one in shown["allocations"]
    } == held
    assert shown["promised cpus"] == pytest.approx(512 / 1012, abs=1e-3)
    assert shown["moves"] == 1
    assert [one["kind"] for one in shown["changes"]] == ["live-migration"]


# summary


def test_summary_adds_up_and_what_fits_does_fit(
    load: Load, openstack: Run, truth: Truth, cloud: EmbeddedCloud
) -> None:
    """R105, R126: capacity, headroom, and how often each flavor fits."""
    load(OVER, shared=True)
    records = {
        record["name"]: record
        for record in cloud.adapter("compute")
        .get("/flavors/detail", params={"is_public": "None"})
        .json()["flavors"]
    }

    tiers = {row["Tier"]: row for row in openstack("tier", "summary").rows}
    fits = {
        row["Flavor"]: row
        for row in openstack("tier", "summary", "--flavors").rows
    }

    for tier in specs.TIERS:
        name = specs.tier_class(tier)
        capacities = [_capacity(truth, h, name) for h in _hosts(truth)]
        used = [truth.usages(h)[name] for h in _hosts(truth)]
        pairs = list(zip(capacities, used, strict=True))
        row = tiers[tier]
        assert row["Hosts"] == 3
        assert row["Capacity"] == sum(capacities)
        assert row["Allocated"] == sum(used)
        assert row["Headroom"] == sum(max(0, c - u) for c, u in pairs)
        assert row["Excess"] == sum(max(0, u - c) for c, u in pairs)
    assert tiers["gold"]["Hosts Over"] == 1
    assert tiers["bronze"]["Hosts Near"] == 1
    assert tiers["gold"]["Largest Flavor"] == "gold.8"
    assert tiers["gold"]["Could Carry"] is None
    assert set(fits) == {
        name for name in records if name.split(".")[0] in specs.TIERS
    }
    for name, row in fits.items():
        asked = {
            "VCPU": records[name]["vcpus"],
            "MEMORY_MB": records[name]["ram"],
            "DISK_GB": records[name]["disk"],
            specs.tier_class(row["Tier"]): records[name]["vcpus"],
        }
        counts = [_copies(truth, host, asked) for host in _hosts(truth)]
        assert row["Fits"] == sum(counts), name
        # Placement's own word on which hosts can take one more.
        offered = cloud.placement.get(
            "/allocation_candidates",
            params={
                "resources": ",".join(f"{c}:{n}" for c, n in asked.items())
            },
        ).json()["provider_summaries"]
        assert row["Hosts"] == len(offered) == sum(1 for c in counts if c)


def _copies(truth: Truth, host: str, asked: Mapping[str, int]) -> int:
    used = truth.usages(host)
    return max(
        0,
        min(
            (_capacity(truth, host, name) - used[name]) // amount
            for name, amount in asked.items()
        ),
    )


# check


def test_check_tells_what_works(
    load: Load, cloud: EmbeddedCloud, openstack: Run
) -> None:
    """R79: access, versions, classes and Watcher's services."""
    load(OVER, shared=True)

    rows = openstack("tier", "check").rows

    assert {row["Check"]: row["Result"] for row in rows} == {
        "watcher-cputier": "works",
        "tiers": "works",
        "Nova": "works",
        "Placement": "works",
        "Neutron": "absent",
        **dict.fromkeys(map(specs.tier_class, specs.TIERS), "works"),
        "quotas": "works",
        "shedding": "unknown",
        "telemetry": "absent",
        "Watcher": "works",
        "watcher-decision-engine": "works",
        "watcher-applier": "works",
        "applier workers": "unknown",
    }
    told = {row["Check"]: row["Details"] for row in rows}
    # Nova and Watcher say themselves which versions they have.
    newest = cloud.adapter("compute").get("/").json()["version"]["version"]
    assert told["Nova"].startswith("microversion 2.")
    assert newest.startswith("2.")
    header = (
        cloud.adapter("infra-optim")
        .get("/v1/strategies")
        .headers["OpenStack-API-Maximum-Version"]
    )
    assert f"; API {header.split()[-1]}" in told["Watcher"]


def test_check_compares_the_appliers_workers_with_an_audits_wish(
    load: Load, openstack: Run, tmp_path: pathlib.Path
) -> None:
    """R79, R108: no API tells the option; Watcher's file does."""
    load(OVER, shared=True)
    path = tmp_path / "watcher.conf"
    path.write_text("[watcher_workflow_engines.taskflow]\nmax_workers = 3\n")
    words = ("tier", "check", "--tier-config", str(path))

    found = openstack(*words, "--set", "parallel_total=4")

    (failed,) = [row for row in found.data if row["Result"] == "fails"]
    assert (found.status, failed["Check"]) == (1, "applier workers")
    assert "max_workers is 3, and an audit plans 4" in failed["Details"]


def test_check_names_what_a_user_may_not_see(
    load: Load, openstack: Run
) -> None:
    """R79: the policies that mend it, and exit status 1."""
    load(OVER, shared=True)

    found = openstack("tier", "check", user="member")

    assert found.status == 1
    rows = found.data
    failed = " ".join(r["Details"] for r in rows if r["Result"] == "fails")
    assert "os_compute_api:os-hypervisors:list-detail" in failed
    assert {r["Check"] for r in rows if r["Result"] == "fails"} >= {
        "Nova",
        "Placement",
    }


# plan, snapshot


def test_plan_is_what_an_audit_then_emits(
    load: Load,
    openstack: Run,
    operator: Operator,
    tmp_path: pathlib.Path,
) -> None:
    """The same migrations, and the same plan from the saved snapshot."""
    load(OVER, shared=True)
    report, picture = tmp_path / "plan.json", tmp_path / "cloud.yaml"

    planned = openstack(
        *("tier", "plan", "--max-migrations", "5", "--report", str(report)),
    )
    saved = openstack(
        *("tier", "snapshot", "save", str(picture)),
        *("--set", "max_migrations=5"),
        formatted=False,
    )
    audit = operator.audit(max_migrations=5)

    assert saved.status == 0, saved.err
    moves = {
        row["Instance"]: (row["Source"], row["Target"]) for row in planned.rows
    }
    assert moves == audit.moves
    assert set(moves) == {"big"}
    document = json.loads(report.read_text())
    assert document["summary"] in planned.err
    replayed = subprocess.run(
        [
            sys.executable,
            "-c",
            PLAN,
            *("plan", "--scenario", str(picture), "--format", "json"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    again = json.loads(replayed.stdout)
    assert again["migrations"] == document["migrations"]
    assert again["excess_before"] == document["excess_before"]


def test_plan_explains_and_drains(load: Load, openstack: Run) -> None:
    """R144, N4: why this host, why not the others; a drain that is tried."""
    load(OVER, shared=True)

    explained = openstack("tier", "plan", "--explain", "big")
    drained = openstack("tier", "plan", "--drain", "host-2")

    results = {row["Host"]: row["Result"] for row in explained.rows}
    assert sorted(results.values()) == ["possible", "taken"]
    assert "it takes 4 of the 4 gold units over quota" in explained.err
    moved = {row["Instance"] for row in drained.rows}
    assert moved == {"big", "full-1", "full-2"}
    assert all(row["Target"] != "host-2" for row in drained.rows)


def test_plan_tells_a_wrong_parameter(load: Load, openstack: Run) -> None:
    load(OVER, shared=True)

    found = openstack("tier", "plan", "--set", "windows=0")

    assert found.status == 1
    assert "audit parameter windows" in found.err


# Telemetry

# Two hosts that have sold everything, to instances that want all of it.
SHORT = specs.three_tiers(
    *(
        instance(f"{tier}-{host}", f"{tier}.8", f"host-{host}")
        for tier in specs.TIERS
        for host in (1, 2)
    ),
    hosts=specs.hosts(2),
)
ALL = [f"{tier}-{host}" for tier in specs.TIERS for host in (1, 2)]


@pytest.fixture
def measured(cloud: EmbeddedCloud) -> Iterator[EmbeddedCloud]:
    """The cloud with a Gnocchi, for as long as the test runs."""
    cloud.gnocchi.start()
    cloud.gnocchi.enter()
    yield cloud
    cloud.gnocchi.leave()


def test_what_instances_get_is_shown_where_it_is_measured(
    measured: EmbeddedCloud,
    load: Load,
    openstack: Run,
    operator: Operator,
) -> None:
    """R20, N2: usage, verdicts and the plan that cures, from telemetry.

    ``wide`` has the shares of one of its four vCPUs; host-3 is idle.
    """
    load(test_starvation.CLOUD)
    counters = loads.tell(measured, test_starvation.BUSY)
    assert counters

    hosts = openstack("tier", "host", "list").rows
    wide = openstack("tier", "instance", "show", "wide").fields
    full = openstack("tier", "host", "show", "host-1").fields
    planned = openstack("tier", "plan")
    summary = openstack("tier", "summary").rows
    (row,) = [
        row
        for row in openstack("tier", "check").rows
        if row["Check"] == "telemetry"
    ]

    starved = {
        (row["Host"], row["Tier"]): row["Starved"]
        for row in hosts
        if row["Starved"]
    }
    assert starved == {("host-1", "silver"): 1}
    assert wide["verdict"] == "mis-weighted"
    assert wide["usage"] < wide["floor"] < 1
    assert wide["deficit"] == pytest.approx(
        wide["floor"] * (wide["usage"] + wide["steal"]) - wide["usage"]
    )
    assert "1332" in wide["remedy"]
    tiers = {one["tier"]: one for one in full["tiers"]}
    assert sum(one["used_cpus"] for one in tiers.values()) == (
        pytest.approx(8, rel=0.05)
    )
    assert tiers["silver"]["borrowed_cpus"] == 0
    assert tiers["gold"]["borrowed_cpus"] > 0
    assert [(r["Instance"], r["Target"]) for r in planned.rows] == [
        ("wide", "host-4")
    ]
    # An audit of the same readings emits the same.
    assert operator.audit().moves == {"wide": ("host-1", "host-4")}
    assert "Starved: wide (silver) on host-1" in planned.err
    assert row["Result"] == "works"
    # host-3 and host-4 have nearly all of their 16 CPUs to spare (R94).
    carried = {one["Tier"]: one["Could Carry"] for one in summary}
    assert carried["gold"] == pytest.approx(16 * 1012 / 512, rel=0.1)


def test_where_selling_less_would_cure_what_no_migration_does(
    measured: EmbeddedCloud, load: Load, openstack: Run
) -> None:
    """R94, R105: daemons take half of one host, and the other one is full.

    What is advised is put into the inventories: what is left gets the CPUs
    per vCPU that were sold.
    """
    load(SHORT, shared=True)
    counters = loads.tell(
        measured, dict.fromkeys(ALL, 1.0), daemons={"host-1": 4.0}
    )
    assert counters

    summary = openstack("tier", "summary")
    rows = openstack("tier", "summary", "--lower").rows
    shown = openstack("tier", "host", "show", "host-1").fields

    assert "What a lower over-subscription would cure" in summary.err
    assert {row["Tier"] for row in summary.rows} == set(specs.TIERS)
    assert {row["Host"] for row in rows} == {"host-1"}
    by_tier = {row["Tier"]: row for row in rows}
    used = sum(one["used_cpus"] for one in shown["tiers"])
    for row in by_tier.values():
        assert row["CPUs Sold"] == 8
        assert row["CPUs Left"] == pytest.approx(used, rel=0.05)
        assert row["Quota"] == 8
        assert row["Quota That Cures"] == int(8 * row["CPUs Left"] / 8)
        assert 0 < row["Quota That Cures"] < 8
        assert row["Units To Leave"] == 8 - row["Quota That Cures"]
    assert set(by_tier["gold"]["Starved"]) <= set(ALL)


# Tiers, formats


def test_tiers_come_from_a_file(
    load: Load, openstack: Run, tmp_path: pathlib.Path
) -> None:
    """R8: a file as the decision engine reads it, by option or variable."""
    load(OVER, shared=True)
    path = tmp_path / "tiers.conf"
    path.write_text(
        "[cputier]\ntiers = silver, gold\n"
        "[cputier_tier_gold]\ncpu_shares = 100\n"
    )

    by_option = openstack("tier", "summary", "--tier-config", str(path))
    by_variable = openstack("tier", "summary", env={"OS_TIER_CONFIG": path})

    assert [row["Tier"] for row in by_option.rows] == ["silver", "gold"]
    assert by_variable.rows == by_option.rows
    missing = openstack("tier", "summary", "--tier-config", "/no/such/file")
    assert missing.status == 1
    assert "/no/such/file" in missing.err


def test_every_command_is_found_by_help_and_completion(
    load: Load, openstack: Run
) -> None:
    """What cliff knows of the group is what is installed."""
    load(OVER, shared=True)
    commands = {
        entry.name.replace("_", " ")
        for entry in metadata.entry_points(group="openstack.tier.v1")
    }

    listed = openstack("help", "tier", formatted=False)
    completed = openstack("complete", formatted=False)

    assert listed.status == completed.status == 0
    assert {
        line.strip() for line in listed.out.splitlines() if "tier " in line
    } >= commands
    (words,) = re.findall(r"^  cmds_tier='(.*)'$", completed.out, re.MULTILINE)
    assert set(words.split()) == {name.split()[1] for name in commands}
    for name in commands:
        group, _, verb = name.removeprefix("tier ").partition(" ")
        if verb:
            (words,) = re.findall(
                rf"^  cmds_tier_{group.replace('-', '_')}='(.*)'$",
                completed.out,
                re.MULTILINE,
            )
            assert verb in words.split()


def test_the_clients_formats_are_there(load: Load, openstack: Run) -> None:
    """One listing as table, CSV and YAML; what is unknown is never 0."""
    load(OVER, shared=True)
    words = ("tier", "host", "list", "--host", "host-1", "--tier", "gold")

    table = openstack(*words, formatted=False).out
    as_csv = openstack(*words, "-f", "csv", formatted=False).out
    as_yaml = openstack(*words, "-f", "yaml", formatted=False).out

    assert "| host-1 | gold |         8 | 4     | 0        | over  |" in table
    (row,) = csv.DictReader(io.StringIO(as_csv))
    assert (row["Quota"], row["Starved"]) == ("4", "None")
    assert yaml.safe_load(as_yaml)[0]["Starved"] is None


# provider-config


@pytest.fixture
def install(cloud: EmbeddedCloud) -> Iterator[Callable[[str, str], None]]:
    """``install(host, text)`` gives a host a file and restarts its service."""
    written = []

    def installed(host: str, text: str) -> None:
        path = cloud.directory / "hosts" / host / "provider-tiers.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        written.append(path)
        cloud.restart_compute(host)

    yield installed
    for path in written:
        path.unlink(missing_ok=True)


def test_generated_files_are_what_hosts_then_report(
    load: Load,
    cloud: EmbeddedCloud,
    openstack: Run,
    install: Callable[[str, str], None],
    truth: Truth,
    tmp_path: pathlib.Path,
) -> None:
    """N8, R25, R28: generated, read by Nova, verified against Placement."""
    load(specs.three_tiers(hosts=specs.hosts(2, tiers={})))
    folder = tmp_path / "files"
    facts = tmp_path / "facts.yaml"
    facts.write_text("host-2: {units: {gold: 4}}\n")

    made = openstack(
        *("tier", "provider-config", "generate", "--facts", str(facts)),
        *("--cpu-shared-set", "0-9,^2,^3", "--cpu-affinity", "2 3"),
        *("--directory", str(folder)),
        formatted=False,
    )
    assert made.status == 0, made.err
    before = openstack("tier", "provider-config", "verify", str(folder))
    for host in ("host-1", "host-2"):
        install(host, (folder / host / "provider-tiers.yaml").read_text())
    after = openstack("tier", "provider-config", "verify", str(folder))

    assert before.status == 1
    assert {row["What"] for row in before.data} == {
        *map(specs.tier_class, specs.TIERS)
    }
    assert (after.status, after.data) == (0, [])
    for host, gold in (("host-1", 8), ("host-2", 4)):
        shown = truth.inventories(host)
        for tier, total in (("gold", gold), ("silver", 8), ("bronze", 8)):
            record = dict(shown[specs.tier_class(tier)])
            assert record["total"] == record["max_unit"] == total
            assert record["allocation_ratio"] == 1.0

    cloud.set_inventory("host-1", specs.GOLD, via="api", total=7)
    changed = openstack(
        *("tier", "provider-config", "verify", str(folder)),
        *("--cpu-shared-set", "0-8"),
    )
    assert changed.status == 1
    assert [
        (row["Host"], row["What"], row["File Says"], row["Placement Shows"])
        for row in changed.data
    ] == [
        ("host-1", f"{specs.GOLD} total", "8", "7"),
        ("host-1", "VCPU total", "9", "8"),
        ("host-2", "VCPU total", "9", "8"),
    ]


def test_one_file_for_all_hosts_in_a_config_map(
    load: Load,
    openstack: Run,
    install: Callable[[str, str], None],
    truth: Truth,
    tmp_path: pathlib.Path,
) -> None:
    """R26, R29: ``$COMPUTE_NODE``, with an entry for the one that differs."""
    load(
        specs.three_tiers(
            hosts=(*specs.hosts(2, tiers={}), specs.host("large", 16, {}))
        )
    )

    made = openstack(
        *("tier", "provider-config", "generate", "--compute-node"),
        *("--config-map", "tiers", "--units", "bronze=50%"),
        formatted=False,
    )

    assert made.status == 0, made.err
    document = yaml.safe_load(made.out)
    assert (document["kind"], document["metadata"]["name"]) == (
        "ConfigMap",
        "tiers",
    )
    ((name, text),) = document["data"].items()
    assert name == "provider-tiers.yaml"
    for host in truth.providers():
        install(host, text)
    for host, units in (("host-1", 8), ("host-2", 8), ("large", 16)):
        shown = truth.inventories(host)
        assert shown[specs.GOLD]["total"] == units
        assert shown[specs.BRONZE]["total"] == units // 2
    whole = tmp_path / "map.yaml"
    whole.write_text(made.out)
    verified = openstack("tier", "provider-config", "verify", str(whole))
    assert (verified.status, verified.data) == (0, [])


def test_cores_of_the_host_may_not_be_the_guests(
    load: Load, openstack: Run
) -> None:
    """R10: systemd's CPUAffinity and cpu_shared_set are disjoint."""
    load(OVER, shared=True)

    found = openstack(
        *("tier", "provider-config", "generate", "--host", "host-3"),
        *("--cpu-shared-set", "0-7", "--cpu-affinity", "6,7,8"),
        formatted=False,
    )

    assert (found.status, found.out) == (1, "")
    assert "CPUs 6-7 are in cpu_shared_set and in CPUAffinity" in found.err


# flavor


def test_flavor_create_makes_one_variant_a_tier_and_once(
    load: Load, cloud: EmbeddedCloud, openstack: Run
) -> None:
    """R44, R45, R49: what Nova then has, and that a second run is idle."""
    load(specs.three_tiers())
    words = ("tier", "flavor", "create", "big", "--vcpus", "4")
    words += (
        "--ram",
        "1024",
        "--disk",
        "5",
        "--property",
        "hw:cpu_policy=shared",
    )

    tried = openstack(*words, "--dry-run")
    assert {row["Result"] for row in tried.rows} == {"to be created"}
    assert not _flavors(cloud, "big")
    made = openstack(*words)
    mark = cloud.mark()
    again = openstack(*words)

    assert [row["Result"] for row in made.rows] == ["created"] * 3
    assert [row["Result"] for row in again.rows] == ["unchanged"] * 3
    assert [row["ID"] for row in made.rows] == [
        row["ID"] for row in again.rows
    ]
    assert {r.method for r in cloud.requests("compute", since=mark)} == {"GET"}
    found = _flavors(cloud, "big")
    assert set(found) == {"gold.big", "silver.big", "bronze.big"}
    for tier in specs.TIERS:
        record = found[f"{tier}.big"]
        assert (record["vcpus"], record["ram"], record["disk"]) == (4, 1024, 5)
        assert record["extra_specs"] == {
            f"resources:{specs.tier_class(tier)}": "4",
            "quota:cpu_shares": str(4 * specs.SHARES[tier]),
            "hw:cpu_policy": "shared",
        }


def test_flavor_create_follows_the_class_that_hosts_report(
    load: Load, openstack: Run
) -> None:
    """R32: in single-class mode nobody could take a tier's own class."""
    load(
        specs.three_tiers(
            hosts=(
                HostSpec(
                    name="host-1",
                    vcpus=8,
                    inventories={"CUSTOM_VCPU_SHARES": {"total": 800}},
                ),
            )
        )
    )

    made = openstack(
        *("tier", "flavor", "create", "s", "--vcpus", "2", "--ram", "64"),
        "--dry-run",
    )

    known = {
        name
        for row in made.rows
        for name in row["Properties"]
        if name.startswith("resources:")
    }
    assert known == {"resources:CUSTOM_VCPU_SHARES"}


def test_flavor_create_completes_and_refuses_contradictions(
    load: Load, cloud: EmbeddedCloud, openstack: Run
) -> None:
    """What lacks is added; what contradicts ends it before any writing."""
    load(
        specs.three_tiers(
            flavors=(
                FlavorSpec(name="gold.s", vcpus=2, memory_mb=512, disk_gb=1),
                FlavorSpec(name="silver.l", vcpus=1, memory_mb=1, disk_gb=1),
            )
        )
    )

    completed = openstack(
        *("tier", "flavor", "create", "s", "--vcpus", "2", "--ram", "512"),
        *("--disk", "1", "--tier", "gold"),
    )
    refused = openstack(
        *("tier", "flavor", "create", "l", "--vcpus", "2", "--ram", "1"),
        *("--disk", "1"),
    )

    assert [row["Result"] for row in completed.rows] == ["completed"]
    assert _flavors(cloud, "s")["gold.s"]["extra_specs"] == {
        f"resources:{specs.GOLD}": "2",
        "quota:cpu_shares": "1024",
    }
    assert refused.status == 1
    assert "flavor silver.l" in refused.err
    assert set(_flavors(cloud, "l")) == {"silver.l"}


@pytest.mark.parametrize(
    ("user", "told", "words"),
    [
        ("admin", "nonsense:x", ("--property", "hw:nonsense:x=1")),
        ("reader", "os-flavor-manage:create", ()),
    ],
    ids=["invalid", "forbidden"],
)
def test_flavor_create_leaves_no_half_of_a_flavor(
    load: Load,
    cloud: EmbeddedCloud,
    openstack: Run,
    tmp_path: pathlib.Path,
    user: str,
    told: str,
    words: tuple[str, ...],
) -> None:
    """One without its tier's request would bypass the quotas (R46)."""
    load(specs.three_tiers())
    # So Placement need not be asked, which a reader may not do.
    path = tmp_path / "tiers.conf"
    path.write_text("[cputier]\nmode = classes\n")

    found = openstack(
        *("tier", "flavor", "create", "q", "--vcpus", "1", "--ram", "64"),
        *words,
        user=user,
        env={"OS_TIER_CONFIG": str(path)},
    )

    assert found.status == 1
    assert told in found.err
    assert not _flavors(cloud, "q")


def test_flavor_create_refuses_weights_beyond_the_kernels(
    load: Load, cloud: EmbeddedCloud, openstack: Run, tmp_path: pathlib.Path
) -> None:
    """R14: 512 a vCPU ends at 19; smaller shares are proposed, and do."""
    load(specs.three_tiers())
    words = ("tier", "flavor", "create", "huge", "--vcpus", "32")
    words += ("--ram", "1024")

    refused = openstack(*words)

    assert refused.status == 1
    assert "16384" in refused.err
    assert not _flavors(cloud, "huge")
    path = tmp_path / "scaled.conf"
    path.write_text(
        "".join(
            f"[cputier_tier_{tier}]\ncpu_shares = {shares}\n"
            for tier, shares in (
                ("gold", 256),
                ("silver", 167),
                ("bronze", 84),
            )
        )
    )
    for shares in ("256", "167", "84"):
        assert f"cpu_shares = {shares}" in refused.err
    made = openstack(*words, "--tier-config", str(path))
    assert [row["Result"] for row in made.rows] == ["created"] * 3


def _flavors(cloud: EmbeddedCloud, size: str) -> dict[str, Any]:
    found = cloud.adapter("compute").get(
        "/flavors/detail", params={"is_public": "None"}
    )
    return {
        record["name"]: record
        for record in found.json()["flavors"]
        if record["name"].endswith(f".{size}")
    }


# lint

DRIFTED = specs.three_tiers(
    instance("fine", "gold.2", "host-1"),
    instance("past", "plain.1", "host-1"),
    hosts=(
        specs.host("host-1"),
        specs.host("host-2", tiers={"gold": 8, "silver": 12}),
        specs.host("host-3", cpu_allocation_ratio=16.0),
    ),
    flavors=(
        specs.flavor("gold.2"),
        specs.flavor("silver.2", memory_mb=1024),
        # R13: the shares of one vCPU for the whole instance.
        specs.flavor("bronze.2", extra_specs={"quota:cpu_shares": "167"}),
        # R45: 3 units for 4 vCPUs.
        specs.flavor("gold.4", extra_specs={f"resources:{specs.GOLD}": "3"}),
        # R49: another scale.
        specs.flavor("silver.4", extra_specs={"quota:cpu_shares": "133"}),
        # R14, R144: beyond the kernel's weights, and beyond any host.
        specs.flavor("gold.20"),
        # R50: the name says Silver.
        FlavorSpec(
            name="silver.1",
            vcpus=1,
            extra_specs={
                f"resources:{specs.GOLD}": "1",
                "quota:cpu_shares": "512",
            },
        ),
        # R43, R174.
        FlavorSpec(
            name="odd",
            vcpus=1,
            extra_specs={
                f"resources:{specs.BRONZE}": "1",
                "quota:cpu_shares": "167",
                "resources:CUSTOM_NOBODY_HAS": "1",
                "trait:CUSTOM_NOWHERE": "required",
            },
        ),
    ),
)
EXPECTED = {
    ("error", "inventory_missing", "host host-2"),
    ("error", "plain_shares", "flavor bronze.2"),
    ("error", "units_differ_from_vcpus", "flavor gold.4"),
    ("error", "shares_differ", "flavor silver.4"),
    ("error", "mixed_scales", "flavors"),
    ("error", "weight_out_of_range", "flavor gold.20"),
    ("error", "unknown_class", "flavor odd"),
    ("error", "unknown_trait", "flavor odd"),
    ("error", "orphan_allocation", "dead"),
    ("warning", "fits_nowhere", "flavor gold.20"),
    ("warning", "name_tells_another_tier", "flavor silver.1"),
    ("warning", "variants_differ", "flavor silver.2"),
    ("warning", "untiered_flavor", "flavor plain.1"),
    ("warning", "untiered_instances", "host-1"),
    ("warning", "units_differ_from_cpus", "host host-2"),
    ("warning", "vcpu_ratio", "host host-2"),
    ("warning", "vcpu_ratio", "host host-3"),
    ("warning", "nova_queues_migrations", "nova.conf"),
    ("info", "variant_missing", "size *.4"),
    ("info", "variant_missing", "size *.20"),
}
DEAD = "00000000-0000-4000-8000-00000000dead"


def test_lint_finds_what_drifted(
    load: Load, cloud: EmbeddedCloud, openstack: Run, tmp_path: pathlib.Path
) -> None:
    """N7: each contradiction, told with what mends it."""
    load(DRIFTED)
    _delete_default_flavors(cloud)
    cloud.placement.put(
        f"/allocations/{DEAD}",
        json={
            "allocations": {
                cloud.provider_uuid("host-1"): {"resources": {specs.GOLD: 1}}
            },
            "project_id": DEAD,
            "user_id": DEAD,
            "consumer_generation": None,
        },
    )
    nova = tmp_path / "nova.conf"
    nova.write_text("[DEFAULT]\nmax_concurrent_live_migrations = 1\n")

    found = openstack(
        *("tier", "lint", "--nova-config", str(nova)),
        *("--set", "parallel_per_source=2"),
    )

    assert found.status == 1
    assert {
        (row["Severity"], row["Kind"], row["Object"].replace(DEAD, "dead"))
        for row in found.data
    } == EXPECTED
    assert all(row["Why"] and row["Mend"] for row in found.data)
    (mend,) = [
        row["Mend"]
        for row in found.data
        if row["Kind"] == "units_differ_from_vcpus"
    ]
    assert mend.startswith(
        f"openstack flavor set --property resources:{specs.GOLD}=4 gold.4"
    )
    tolerant = openstack("tier", "lint", "--fail-on", "never")
    assert tolerant.status == 0


def test_lint_is_content_with_what_the_commands_make(
    load: Load, cloud: EmbeddedCloud, openstack: Run
) -> None:
    """Generated inventories and flavors contradict nothing: exit 0."""
    load(specs.three_tiers())
    _delete_default_flavors(cloud)
    made = openstack(
        "tier", "flavor", "create", "s", "--vcpus", "2", "--ram", "64"
    )
    assert made.status == 0, made.err

    found = openstack("tier", "lint", "--fail-on", "info")

    assert (found.status, found.data) == (0, [])


def _delete_default_flavors(cloud: EmbeddedCloud) -> None:
    """Those that Nova's fixtures bring along."""
    compute = cloud.adapter("compute")
    for record in compute.get("/flavors").json()["flavors"]:
        if record["name"].startswith("m1."):
            compute.delete(f"/flavors/{record['id']}")


def test_a_cloud_without_hosts_is_one_clear_error(
    load: Load, openstack: Run
) -> None:
    """Nothing is over quota where nothing is, and nobody says so."""
    load(CloudSpec())

    for words in ("host", "list"), ("plan",), ("summary",), ("lint",):
        found = openstack("tier", *words)

        assert (found.status, found.out) == (1, "")
        assert "/os-hypervisors: Nova has no compute host" in found.err
