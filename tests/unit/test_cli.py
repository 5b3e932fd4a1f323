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

"""The command ``watcher-cputier``, as a shell would run it."""

import importlib.metadata
import io
import json
import pathlib
import subprocess
import sys

import pytest

from watcher_cputier import diagnosis
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import scenario
from watcher_cputier import schedule
from watcher_cputier.cli import main
from watcher_cputier.cli import plan
from watcher_cputier.cli import screen

SCENARIOS = pathlib.Path(__file__).parents[1] / "scenarios"
DRAIN = SCENARIOS / "drain_with_an_immovable_instance.yaml"
SLOT = SCENARIOS / "two_hosts_one_slot.yaml"
MEMORY = SCENARIOS / "target_full_in_another_class.yaml"
FAVOURITE = SCENARIOS / "favourite_that_is_the_only_hole.yaml"
HOP = SCENARIOS / "hop_that_is_needed.yaml"
PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from watcher_cputier.cli import main; sys.exit(main.main())",
]


@pytest.fixture
def run(capsys):
    """Run a command; its status, standard output and standard error."""

    def made(*words):
        status = main.main([str(word) for word in words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return made


# plan


def test_plan_in_tables(run):
    status, out, err = run("plan", "--scenario", DRAIN)
    assert (status, err) == (0, "")
    assert "rack-1    8/0" in out
    assert "shop         4 gold   rack-1   rack-2" in out
    assert "vault stays (unlocked: it is locked)" in out
    assert "untiered_on_drained_host: " in out
    assert "; 4 units stay over quota, and no plan leaves fewer\n" in out
    assert out.endswith(
        "The migrations are expected to take 6 s, one at a time\n"
    )


def test_plan_as_json(run):
    status, out, err = run("plan", "--scenario", DRAIN, "--format", "json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["watcher_cputier_plan"] == 1
    assert found["lower_bound"] == 2
    assert found["optimal"] is True
    assert found["cut"] is False
    shop, batch = found["migrations"]
    assert shop["instance"] == {"name": "shop", "uuid": "shop"}
    assert (shop["source"], shop["target"]) == ("rack-1", "rack-2")
    assert (shop["tier"], shop["units"], shop["relief"]) == ("gold", 4, 4)
    assert shop["reason"] == "rack-1 is drained (named in drain_hosts)"
    assert 0 < shop["weight"]["value"] < 1
    gold, *_ = shop["weight"]["terms"]
    assert gold == {
        "resource_class": "CUSTOM_VCPU_GOLD",
        "requested": 4,
        "free": 16,
        "ratio": 0.75,
    }
    assert batch["tier"] == "bronze"
    (item,) = found["unresolved"]
    assert (item["host"], item["units"]) == ("rack-1", 4)
    (refusal,) = item["refusals"]
    assert refusal["rejection"]["rule"] == "unlocked"
    assert refusal["targets"] == {}
    assert found["excess_before"] == [
        {"host": "rack-1", "tier": "bronze", "units": 2},
        {"host": "rack-1", "tier": "gold", "units": 8},
    ]
    assert found["excess_after"][1]["units"] == 4
    assert found["indicators"]["excess_units_after"] == 4
    assert found["hosts"][0] == {
        "name": "rack-1",
        "drained": "named in drain_hosts",
        "enabled": True,
        "up": True,
        "accounts": {
            "gold": {
                "held": 8,
                "quota": 0,
                "state": "over",
                "after": 4,
                "state_after": "over",
            },
            "silver": {
                "held": 0,
                "quota": 0,
                "state": "drained",
                "after": 0,
                "state_after": "drained",
            },
            "bronze": {
                "held": 2,
                "quota": 0,
                "state": "over",
                "after": 0,
                "state_after": "drained",
            },
        },
    }
    assert found["delivery"]["abstained"] == "No telemetry was read."
    assert found["delivery"]["tiers"] == []
    (finding,) = found["findings"]
    assert finding["kind"] == "untiered_on_drained_host"


def test_json_names_the_rule_of_each_host(run):
    _, out, _ = run("plan", "--scenario", SLOT, "--format", "json")
    refusal, _ = json.loads(out)["unresolved"][0]["refusals"]
    assert refusal["rejection"] is None
    assert {host: r["rule"] for host, r in refusal["targets"].items()} == {
        "rack-1": "within_quota",
        "rack-2": "elsewhere",
        "rack-3": "within_quota",
    }


def test_every_member_of_the_plan_is_documented(run):
    page = (
        pathlib.Path(__file__).parents[2] / "doc" / "source" / "cli.rst"
    ).read_text()
    for words in (
        (DRAIN, "--explain", "shop"),
        (DRAIN, "--explain", "rack-1"),
        (SLOT,),
        (MEMORY,),
    ):
        _, out, _ = run("plan", "--format", "json", "--scenario", *words)
        missing = {
            name
            for name in members(json.loads(out))
            if f"``{name}``" not in page
        }
        assert not missing


def members(
    value, free=("accounts", "targets", "indicators", "room", "lacking")
):
    """Names of all members; those below a map of names are skipped."""
    if isinstance(value, list):
        for item in value:
            yield from members(item)
    elif isinstance(value, dict):
        for name, item in value.items():
            yield name
            as_map = name in free and isinstance(item, dict)
            inner = item.values() if as_map else [item]
            for one in inner:
                yield from members(one)


def test_settings_replace_the_parameters_of_the_file(run):
    _, out, _ = run(
        "plan", "--scenario", SLOT, "--set", "drain_hosts=[]",
        "--set", 'quotas_by_host={"rack-3": {"gold": 0}}',
        "--set", "max_migrations=1", "--set", "max_migrations=0",
    )  # fmt: skip
    assert out.endswith(
        "Nothing moves: 8 units stay over quota on 2 of 3 hosts, and no plan "
        "leaves fewer\n"
    )
    assert "\nMigrations\n" not in out


def test_a_setting_may_be_plain_text(run):
    status, _, _ = run(
        "plan", "--scenario", SLOT, "--set", "weigher_traits=requested"
    )
    assert status == 0


def test_the_order_is_part_of_the_document(run):
    _, out, _ = run("plan", "--scenario", HOP, "--format", "json")
    found = json.loads(out)
    steps = found["schedule"]["steps"]
    assert [one["needs"] for one in steps] == [[], [0], [0, 1], [2]]
    assert found["schedule"]["makespan_seconds"] == 10
    assert found["schedule"]["makespan_bound_seconds"] == 10
    assert [one["parking"] for one in found["migrations"]] == [
        True, False, False, False,
    ]  # fmt: skip
    assert found["migrations"][0]["makes_room_for"] == "shop"


def test_a_stay_of_a_while_is_marked(run):
    _, out, _ = run("plan", "--scenario", HOP)
    parked = [line for line in out.splitlines() if "is parked there" in line]
    assert len(parked) == 1
    assert parked[0].startswith("blog")
    assert "makes room on rack-2 for shop" in parked[0]


def test_explain_an_instance(run):
    """Its target is not the best one: the plan as a whole says why."""
    status, out, err = run(
        "plan", "--scenario", FAVOURITE, "--explain", "small"
    )
    assert (status, err) == (0, "")
    assert out.startswith("Migration 1: small from rack-1 to rack-4\n")
    assert "with rack-3 instead, large could not go to rack-3 any more" in out
    rows = [line for line in out.splitlines() if line.startswith("rack-")]
    assert [row.split()[0] for row in rows] == ["rack-3", "rack-4", "rack-2"]
    assert "taken: (resources" in rows[1]
    assert "within_quota: it is drained" in rows[2]


def test_explain_a_host(run):
    status, out, _ = run("plan", "--scenario", DRAIN, "--explain", "rack-1")
    assert status == 0
    assert "it is 8 gold units over its quota, and 4 of them stay" in out
    assert "\nLeaving\n" in out
    assert "\nStaying\n" in out
    assert "it may not move: it is locked" in out
    assert "can go only with vault" in out


def test_an_explanation_as_json(run):
    _, out, _ = run(
        "plan", "--scenario", FAVOURITE, "--explain", "small",
        "--format", "json",
    )  # fmt: skip
    (moment,) = json.loads(out)["explanation"]["moments"]
    assert moment["number"] == 1
    best, taken, drained = moment["fares"]
    assert best["weight"]["value"] > taken["weight"]["value"]
    assert (best["taken"], taken["taken"]) == (False, True)
    assert drained["rejection"]["rule"] == "within_quota"


@pytest.mark.parametrize("form", ["table", "json"])
def test_explaining_what_is_not_there_is_one_message(run, form):
    status, out, err = run(
        "plan", "--scenario", SLOT, "--explain", "nope", "--format", form
    )
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "--explain nope: no instance and no host" in err


def test_deferred_migrations_are_shown(run):
    _, out, _ = run("plan", "--scenario", DRAIN, "--set", "max_migrations=1")
    assert "\nDeferred by max_migrations\n" in out


@pytest.mark.parametrize("form", ["table", "json"])
def test_nothing_to_enforce(run, form):
    status, out, _ = run(
        "plan", "--scenario", DRAIN, "--set", "enforce_quota=false",
        "--format", form,
    )  # fmt: skip
    assert status == 0
    assert "Nothing to do: enforce_quota and mix_tiers are false" in out
    assert "without telemetry" in out


def test_a_scenario_may_come_through_a_pipe(run, monkeypatch):
    stdin = io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + SLOT.read_bytes()))
    monkeypatch.setattr(sys, "stdin", stdin)
    status, out, _ = run("plan", "--scenario", "-")
    assert status == 0
    assert "a-1" in out


# Errors


def bad_file(tmp_path, content):
    path = tmp_path / "scenario.yaml"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "where", "cure"),
    [
        (b"", ": it is empty", "`openstack tier snapshot save`"),
        (b"[1", "line 2, column 1: ", "It has to be YAML or JSON"),
        (b"\xff\xfe", "byte 0 is not UTF-8 text", "YAML or JSON"),
        (b"hosts: []", "tiers: is missing", ""),
        (SLOT.read_bytes() + b"held: 3\n", "held: 3 is not a list", ""),
        (
            SLOT.read_bytes() + b"parameters: {max_migrations: x}\n",
            "parameters.max_migrations: 'x' is not of type 'integer'",
            "The most migrations",
        ),
        (
            SLOT.read_bytes() + b"parameters: {drain_hosts: [rack-9]}\n",
            "drain_hosts: unknown host 'rack-9'",
            "",
        ),
        (b"\x1b[31m: 1", "", ""),
    ],
)
@pytest.mark.parametrize(
    "command", [("plan", "--scenario"), ("scenario", "validate")]
)
def test_a_bad_file_is_one_message(
    run, tmp_path, command, content, where, cure
):
    status, out, err = run(*command, bad_file(tmp_path, content))
    assert (status, out) == (2, "")
    assert err.startswith("watcher-cputier: ")
    assert err.count("\n") == 1
    assert where in err
    assert cure in err
    assert "\x1b" not in err


def test_a_file_that_is_not_there(run, tmp_path):
    status, out, err = run("scenario", "validate", tmp_path / "none")
    assert (status, out) == (2, "")
    assert "none: No such file or directory. Name a file" in err


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("max_migrations", "--set max_migrations: has no value"),
        ("no_such=1", "audit parameter no_such: unknown parameter"),
        ("max_migrations=x", "audit parameter max_migrations: 'x' is not"),
        ("weigher_multiplier=NaN", "'NaN' is not of type 'number'"),
        ("weigher_multiplier=1e999", "'1e999' is not of type 'number'"),
        ('quotas={"tin": 1}', "audit parameter quotas: unknown tier 'tin'"),
        ("drain_hosts=rack-1", "audit parameter drain_hosts: 'rack-1' is"),
    ],
)
def test_a_bad_parameter_is_one_message(run, setting, message):
    status, out, err = run("plan", "--scenario", SLOT, "--set", setting)
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_command_line_that_is_none(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["plan"])
    assert caught.value.code == 2
    assert "--scenario" in capsys.readouterr().err


# scenario


def test_validate(run):
    status, out, err = run("scenario", "validate", SLOT)
    assert (status, err) == (0, "")
    assert out == (
        f"{SLOT}: a valid scenario of 3 hosts and 4 instances, with the "
        "tiers gold, silver\n"
    )


def test_pseudonymise(run, tmp_path):
    status, out, _ = run("scenario", "pseudonymise", SLOT)
    assert status == 0
    assert "rack-1" not in out
    found = scenario.loads(out)
    assert found.cluster.hosts[0].name == "host-0001"
    target = tmp_path / "out.yaml"
    status, nothing, _ = run("scenario", "pseudonymise", SLOT, "-o", target)
    assert (status, nothing) == (0, "")
    assert target.read_text() == out


def test_pseudonymise_into_a_place_that_is_none(run, tmp_path):
    target = tmp_path / "none" / "out.yaml"
    status, _, err = run("scenario", "pseudonymise", SLOT, "-o", target)
    assert status == 2
    assert f"{target}: No such file or directory" in err


def test_schema(run):
    status, out, _ = run("scenario", "schema")
    assert status == 0
    assert json.loads(out) == scenario.SCHEMA


# The screen


@pytest.mark.parametrize(
    "path", sorted(SCENARIOS.glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_terminal_of_80_columns_is_enough(path):
    """No line is longer and nothing is left out."""
    found = scenario.loads(path.read_text())
    params = parameters.Parameters.of(found.parameters)
    verdict = diagnosis.diagnose(found.cluster, params)
    made = planner.plan(found.cluster, verdict, params)
    summary = report.summary(found.cluster, verdict, made)
    order = schedule.arrange(found.cluster, made.migrations, verdict, params)

    def lay_out(page):
        plan._lay_out(page, found.cluster, verdict, made, summary, order)

    narrow = screen.rendered(lay_out, 80)
    assert max(map(len, narrow.splitlines())) <= 80
    assert "…" not in narrow
    wide = screen.rendered(lay_out, 500)
    assert words(narrow) == words(wide)


def words(text):
    """All words, in any order; the lines of tables differ in length."""
    return sorted(word for word in text.split() if set(word) != {"─"})


def test_a_pipe_gets_a_line_for_each_row(run):
    """However long: grep finds what belongs together."""
    _, out, _ = run("plan", "--scenario", SCENARIOS / "single_class.yaml")
    (line,) = [one for one in out.splitlines() if one.startswith("batch")]
    assert line.endswith("rack-1 holds 900 VCPU_SHARES units of at most 800")
    assert all(one == one.rstrip() for one in out.splitlines())


def test_markup_and_control_characters_are_shown_as_they_are():
    page = screen.rendered(
        lambda page: page.table([["host"], ["[red]x[/red]"], ["a\x1b[1mb\n"]])
    )
    assert "[red]x[/red]" in page
    assert "a\\x1b[1mb\\n" in page


def test_an_output_without_unicode():
    assert screen.encodable("─é", "ascii") == "-\\xe9"
    assert screen.encodable("─é", "utf-8") == "─é"
    assert screen.encodable("─", None) == "─"


# The process


def test_it_is_installed():
    (script,) = importlib.metadata.entry_points(
        group="console_scripts", name="watcher-cputier"
    )
    assert script.load() is main.main


def test_it_needs_no_cloud():
    """Nor Watcher, nor the clients, which take seconds to import."""
    code = (
        "import sys\n"
        "from watcher_cputier.cli import main\n"
        f"main.main(['plan', '--scenario', {str(SLOT)!r}])\n"
        "names = {name.partition('.')[0] for name in sys.modules}\n"
        "assert not names & {'watcher', 'openstack', 'keystoneauth1',\n"
        "                    'oslo_config', 'oslo_log'}, names\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pipe_that_is_closed_is_no_error():
    with subprocess.Popen(
        [*PROGRAM, "scenario", "schema"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(
    not pathlib.Path("/dev/full").exists(), reason="no /dev/full here"
)
def test_a_full_disk_is_one_message():
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*PROGRAM, "scenario", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == (
        b"watcher-cputier: standard output: No space left on device\n"
    )


def test_the_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("watcher-cputier ")
