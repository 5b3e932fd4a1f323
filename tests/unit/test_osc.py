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


"""The plugin of python-openstackclient, without a cloud."""

import dataclasses
from importlib import metadata
import json

import pytest

from tests import builders as b
from watcher_cputier import catalogue
from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import lint
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.cli import settings as cli_settings
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import prometheus
from watcher_cputier.datasources import telemetry
from watcher_cputier.osc import base
from watcher_cputier.osc import check
from watcher_cputier.osc import client
from watcher_cputier.osc import flavor as flavor_command
from watcher_cputier.osc import flavors
from watcher_cputier.osc import lint as lint_command
from watcher_cputier.osc import picture
from watcher_cputier.osc import provider_config
from watcher_cputier.osc import settings

COMMANDS = metadata.entry_points(group="openstack.tier.v1")


# Plugin


def test_the_client_finds_the_plugin():
    (found,) = [
        entry
        for entry in metadata.entry_points(group="openstack.cli.extension")
        if entry.name == "tier"
    ]
    plugin = found.load()
    assert plugin is client
    assert plugin.API_NAME == "tier"
    assert plugin.DEFAULT_API_VERSION in plugin.API_VERSIONS


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_every_command_explains_itself(entry):
    """Help without a cloud: one line, and a text for each option."""
    command = entry.load()(None, None)
    parser = command.get_parser(entry.name)
    (first, *_) = command.get_description().splitlines()
    assert first.endswith(".")
    assert "--tier-config" in parser.format_help()
    assert all(action.help for action in parser._actions)


def test_the_commands():
    assert sorted(entry.name for entry in COMMANDS) == [
        "tier_audit_report",
        "tier_check",
        "tier_flavor_create",
        "tier_host_list",
        "tier_host_show",
        "tier_instance_list",
        "tier_instance_show",
        "tier_lint",
        "tier_metrics",
        "tier_plan",
        "tier_provider-config_generate",
        "tier_provider-config_verify",
        "tier_snapshot_save",
        "tier_summary",
    ]


# Settings


def test_the_last_value_of_a_name_holds_and_options_before_it():
    told = ["max_migrations=3", "max_migrations=4", 'quotas={"gold": "90%"}']
    assert cli_settings.given(told) == {
        "max_migrations": 4,
        "quotas": {"gold": "90%"},
    }
    assert cli_settings.given(told, max_migrations=5)["max_migrations"] == 5
    assert cli_settings.given(told, max_migrations=None)["max_migrations"] == 4


@pytest.mark.parametrize("text", ["NaN", "1e999", "plain text", "[1"])
def test_what_is_no_json_is_text(text):
    assert cli_settings.given([f"planner={text}"]) == {"planner": text}


def test_a_setting_without_a_value():
    with pytest.raises(errors.ParameterError, match="--set windows"):
        cli_settings.given(["windows"])


@pytest.fixture
def alone(monkeypatch):
    """A machine without Watcher's own files."""
    monkeypatch.delenv(settings.VARIABLE, raising=False)
    monkeypatch.setattr(settings.cfg, "find_config_files", lambda project: [])


@pytest.mark.usefixtures("alone")
def test_built_in_tiers_where_there_is_no_file():
    conf = settings.configuration(None)
    assert settings.files_of(conf) == []
    assert [t.name for t in tiers_conf.read(conf)] == list(b.BUILT_IN)


@pytest.mark.usefixtures("alone")
def test_files_by_option_stand_before_those_of_the_environment(
    monkeypatch, tmp_path
):
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text("[cputier]\ntiers = gold\n")
    two.write_text(
        "[cputier]\ntiers = silver\n[cputier_tier_silver]\nrank=7\n"
    )
    monkeypatch.setenv(settings.VARIABLE, f"{two}:{one}")
    (tier,) = tiers_conf.read(settings.configuration(None))
    assert tier.name == "gold"
    (tier,) = tiers_conf.read(settings.configuration([str(two)]))
    assert (tier.name, tier.rank) == ("silver", 7)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    "content", [None, "no section", "[cputier]\nmode=x\n"]
)
def test_files_that_cannot_be_used(tmp_path, content):
    path = tmp_path / "x.conf"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.ConfigurationError):
        tiers_conf.catalogue(settings.configuration([str(path)]))


def test_watchers_own_file_that_may_not_be_read_is_told(monkeypatch, caplog):
    monkeypatch.delenv(settings.VARIABLE, raising=False)
    monkeypatch.setattr(
        settings.cfg, "find_config_files", lambda project: ["/no/such/file"]
    )
    assert settings.files_of(settings.configuration(None)) == []
    assert "/no/such/file cannot be read" in caplog.text


# Columns


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "-"), (0, "0"), (0.5, "0.500"), ("x", "x"), (False, "False")],
)
def test_what_is_not_known_is_not_zero(value, shown):
    cell = base.Told(value)
    assert cell.human_readable() == shown
    assert cell.machine_readable() is value


def test_a_table_in_a_field():
    rows = [{"tier": "gold", "units": 12}, {"tier": "silver", "units": None}]
    cell = base.Table(rows)
    assert cell.human_readable().splitlines() == [
        "tier    units",
        "gold       12",
        "silver      -",
    ]
    assert json.loads(json.dumps(cell.machine_readable())) == rows
    assert base.Table([]).human_readable() == "-"


def test_texts_and_numbers_in_a_field():
    assert base.Lines(["a", "b"]).human_readable() == "a\nb"
    assert base.Lines([]).human_readable() == "-"
    assert base.Lines(("a",)).machine_readable() == ["a"]
    assert base.Numbers((1, 2)).human_readable() == "1, 2"
    assert base.Numbers(()).human_readable() == "-"


# The picture


@pytest.fixture
def seen():
    cluster = b.cluster(
        [b.host("a"), b.host("b")],
        [
            b.instance("twin", "a"),
            dataclasses.replace(b.instance("other", "b"), name="twin"),
            b.instance("single", "a"),
        ],
    )
    params = parameters.Parameters.of()
    verdict = diagnosis.diagnose(cluster, params)
    return picture.Picture(
        cluster=cluster,
        diagnosis=verdict,
        starved=picture.judged(cluster, verdict, params),
    )


def test_without_telemetry_nobody_was_judged(seen):
    assert seen.starved is None


def test_objects_by_name_and_uuid(seen):
    assert seen.host("b").name == "b"
    assert seen.instance("single").uuid == "single"
    # A uuid stands before a name.
    assert seen.instance("twin").uuid == "twin"
    assert seen.instance("other").name == "twin"


def test_objects_that_are_not_there_or_twice(seen):
    with pytest.raises(errors.ParameterError, match="no host 'c'"):
        seen.host("c")
    with pytest.raises(errors.ParameterError, match="no instance 'c'"):
        seen.instance("c")
    renamed = dataclasses.replace(
        seen,
        cluster=b.cluster(
            [b.host("a")],
            [
                dataclasses.replace(b.instance(uuid, "a"), name="twin")
                for uuid in ("x", "y")
            ],
        ),
    )
    with pytest.raises(errors.ParameterError, match="2 instances"):
        renamed.instance("twin")


# Files


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a: [", "f.yaml"),
        ("- 1", "no mapping"),
        ("meta: {schema_version: '2.0'}", "schema_version"),
    ],
)
def test_files_that_nova_would_refuse(tmp_path, text, wrong):
    path = tmp_path / "f.yaml"
    path.write_text(text)
    with pytest.raises(errors.ConfigurationError, match=wrong):
        provider_config.read(str(path))


def test_files_in_a_config_map(tmp_path):
    inner = "meta: {schema_version: '1.0'}\nproviders: []\n"
    path = tmp_path / "map.yaml"
    path.write_text(
        "kind: ConfigMap\ndata:\n  a.yaml: |\n    "
        + inner.replace("\n", "\n    ").rstrip()
        + "\n"
    )
    assert provider_config.read(str(path)) == ()


def test_hosts_that_nobody_knows_the_cpus_of():
    host = model.Host(uuid="u", name="h", node_name="h")
    parser = provider_config.Generate(None, None).get_parser("x")
    with pytest.raises(errors.ConfigurationError, match="nobody knows"):
        provider_config._facts(parser.parse_args([]), [host], ["gold"])


# Nova's options


def test_what_novas_files_say_and_do_not_say(tmp_path):
    path = tmp_path / "nova.conf"
    path.write_text(
        "[DEFAULT]\nmax_concurrent_live_migrations = 3\nother = x\n"
        "[compute]\ncpu_shared_set = 0-7,^3\n"
        "[libvirt]\nreport_vcpu_shares = true\n"
    )
    assert lint_command._nova_options([str(path)]) == lint.NovaOptions(
        live_migrations=3,
        reports_shares=True,
        requests_shares=None,
        shared_cpus=7,
    )
    assert lint_command._nova_options([]) == lint.NovaOptions()


@pytest.mark.parametrize(
    "content", [None, "no section", "[compute]\ncpu_shared_set = x\n"]
)
def test_novas_files_that_cannot_be_used(tmp_path, content):
    path = tmp_path / "nova.conf"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.ConfigurationError):
        lint_command._nova_options([str(path)])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("line", "workers"), [("", None), ("=3", 3)])
def test_what_the_configuration_says_of_the_applier(tmp_path, line, workers):
    path = tmp_path / "watcher.conf"
    path.write_text(
        "[watcher_workflow_engines.taskflow]\n"
        + (f"max_workers {line}\n" if line else "")
    )
    conf = settings.configuration([str(path)])
    assert lint_command._workers(conf) == workers


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("line", "result", "told"),
    [
        ("", "unknown", "its default is the number of CPUs"),
        ("max_workers = 2", "works", "max_workers is 2, parallel_total 2"),
        ("max_workers = 1", "fails", "parallel_total to 1"),
        ("max_workers = few", "fails", "cannot be read"),
    ],
)
def test_the_appliers_workers_against_an_audits_wish(
    tmp_path, line, result, told
):
    """R79, R108: what no file tells is not known, and not enough."""
    path = tmp_path / "watcher.conf"
    path.write_text(f"[watcher_workflow_engines.taskflow]\n{line}\n")
    conf = settings.configuration([str(path)])
    found = check._workers(conf, parameters.Parameters.of())
    assert found[:2] == ("applier workers", result)
    assert told in found[2]


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("1.7", "API 1.7"),
        ("1.5", "API 1.5"),
        ("1.4", "API 1.4, before 2025.2: an action that is out of date"),
        ("", "it does not tell its API's version"),
    ],
)
def test_what_an_older_watcher_lacks(version, told):
    """R135, R152."""
    assert check._api(version).startswith(told)


# Flavors that are there already


def listed(**fields):
    """A flavor gold.s of 2 vCPUs as Nova lists it."""
    specs = fields.pop("specs", {})
    return flavors.Listed(
        id="1",
        flavor=model.Flavor.of(
            name="gold.s",
            vcpus=2,
            memory_mb=64,
            disk_gb=0,
            extra_specs=specs,
        ),
        record={
            "vcpus": 2,
            "ram": 64,
            "disk": 0,
            "ephemeral": 0,
            "swap": "",
            **fields,
        },
    )


def stepped(present, private=False):
    size = catalogue.Size(name="s", vcpus=2, memory_mb=64, disk_gb=0)
    (gold, *_) = catalogue.variants(size, b.BUILT_IN_TIERS)
    classes = frozenset(t.resource_class for t in b.BUILT_IN_TIERS)
    return flavor_command._step(gold, present, classes, private)


def test_a_flavor_that_is_right_lacks_nothing():
    right = {"resources:CUSTOM_VCPU_GOLD": "2", "quota:cpu_shares": "1024"}
    assert not stepped(listed(specs=right)).lacking
    assert set(stepped(listed()).lacking) == set(right)


@pytest.mark.parametrize(
    ("fields", "private", "told"),
    [
        ({"ram": 65}, False, "it exists with ram 65 instead of 64"),
        ({}, True, "it exists and is public"),
        (
            {"specs": {"resources:CUSTOM_VCPU_SILVER": "2"}},
            False,
            "it exists and requests CUSTOM_VCPU_SILVER, which is another",
        ),
        (
            {"specs": {"quota:cpu_shares": "512"}},
            False,
            "it exists with quota:cpu_shares=512 instead of 1024",
        ),
    ],
)
def test_a_flavor_that_contradicts_its_tier_is_refused(fields, private, told):
    with pytest.raises(errors.ParameterError) as caught:
        stepped(listed(**fields), private)
    assert str(caught.value).startswith(f"flavor gold.s: {told}")
    assert "Nothing was written" in str(caught.value)


def test_a_file_tells_where_telemetry_is(tmp_path):
    """Watcher's own options are read without Watcher's code."""
    (tmp_path / "watcher.conf").write_text(
        "[watcher_datasources]\ndatasources = prometheus\n"
        "[prometheus_client]\nhost = prom.example.org\nport = 9091\n"
        "[aetos_client]\ninterface = internal\n"
    )
    conf = settings.configuration([str(tmp_path / "watcher.conf")])
    assert telemetry.preference(conf) == ("prometheus",)
    source = prometheus.prometheus(conf, None, None)
    assert source.url.startswith("http://prom.example.org:9091/")
    assert conf.aetos_client.interface == "internal"


def test_without_a_file_telemetry_is_looked_for_as_watcher_does():
    conf = settings.configuration([])
    assert telemetry.preference(conf) == ("gnocchi", "aetos")
