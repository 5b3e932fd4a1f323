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


"""Metrics of tiers, time in breach, and the samples that go with them."""

import configparser
import dataclasses
from importlib import metadata
import os
import pathlib
import re
import shlex
import stat

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import exposition
from prometheus_client import parser
from prometheus_client import registry
import pytest
import yaml

from tests import builders
from tests.unit import test_lending
from tests.unit import test_starvation
from watcher_cputier import diagnosis
from watcher_cputier import lending
from watcher_cputier import metrics
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation
from watcher_cputier.osc import metrics as command

ROOT = pathlib.Path(__file__).parents[2]
SAMPLES = ROOT / "etc/prometheus"
DOCUMENTATION = (ROOT / "doc/source/alerts.rst").read_text()
RULES = [
    rule
    for group in yaml.safe_load(
        (SAMPLES / "watcher-cputier.rules.yaml").read_text()
    )["groups"]
    for rule in group["rules"]
]
NOW = 1_700_000_000.0


def look(
    cloud: model.Cluster,
    *,
    flavors: tuple[model.Flavor, ...] | None = None,
    at: float = NOW,
    **given: object,
) -> metrics.Collection:
    """A collection that has seen a cloud."""
    params = parameters.Parameters.of(given)
    found = lending.lend(cloud, diagnosis.diagnose(cloud, params), params)
    starved = None
    if cloud.telemetry is not None:
        starved = starvation.judge(cloud, found, params)
    return metrics.Collection(
        taken_at=at,
        seconds=1.5,
        sight=metrics.Sight(
            cluster=cloud, diagnosis=found, starved=starved, flavors=flavors
        ),
        telemetry=starved is not None,
    )


def text(
    seen: metrics.Collection, counts: metrics.Counts | None = None
) -> str:
    """As it is written."""
    found = registry.CollectorRegistry()
    found.register(command._Once(metrics.families(seen, counts)))
    return exposition.generate_latest(found).decode()


def values(written: str) -> dict[tuple[str, ...], float]:
    """{(name, values of labels in the order of the table): value}."""
    labels = {one.name: one.labels for one in metrics.FAMILIES}
    return {
        (sample.name, *(sample.labels[n] for n in labels[sample.name])): (
            sample.value
        )
        for family in parser.text_string_to_metric_families(written)
        for sample in family.samples
    }


def of(seen: metrics.Collection, name: str) -> dict[tuple[str, ...], float]:
    """{labels: value} of one metric."""
    return {
        key[1:]: value
        for key, value in values(text(seen)).items()
        if key[0] == name
    }


def test_what_is_not_known_has_no_series() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=4), builders.host("b", gold=None)],
        [builders.instance("x", "a", 6), builders.instance("y", "b", 2)],
    )
    seen = look(cloud)
    gold = {
        name: {
            host: value
            for (host, tier), value in of(seen, f"cputier_host_{name}").items()
            if tier == "gold"
        }
        for name in (
            "quota_units", "allocated_units", "headroom_units",
            "excess_units", "over_quota", "starved_instances",
            "unjudged_instances", "lent_units",
        )
    }  # fmt: skip
    assert gold == {
        "quota_units": {"a": 4},
        "allocated_units": {"a": 6, "b": 2},
        "headroom_units": {"a": 0},
        "excess_units": {"a": 2},
        "over_quota": {"a": 1},
        "starved_instances": {},
        "unjudged_instances": {},
        "lent_units": {},
    }
    assert of(seen, "cputier_hosts_unknown") == {
        ("gold",): 1,
        ("silver",): 0,
        ("bronze",): 0,
    }
    # The quotas that are known add up, and so does all that is allocated.
    assert of(seen, "cputier_tier_capacity_units")[("gold",)] == 4
    assert of(seen, "cputier_tier_allocated_units")[("gold",)] == 8
    # Nobody looked at flavors.
    assert of(seen, "cputier_tier_largest_fit_units") == {}
    assert of(seen, "cputier_flavor_fits") == {}


def test_a_tier_without_any_known_quota_has_no_capacity() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=None), builders.host("b")],
        [],
    )
    seen = look(
        dataclasses.replace(
            cloud,
            hosts=tuple(
                dataclasses.replace(h, in_scope=h.name == "a")
                for h in cloud.hosts
            ),
        )
    )
    for name in ("capacity", "headroom"):
        assert set(of(seen, f"cputier_tier_{name}_units")) == {
            ("silver",),
            ("bronze",),
        }
    assert of(seen, "cputier_tier_allocated_units")[("gold",)] == 0
    assert {host for host, _ in of(seen, "cputier_host_quota_units")} == {"a"}


def test_a_failed_collection_tells_only_that() -> None:
    seen = metrics.Collection(taken_at=NOW, seconds=2.0, watcher=False)
    assert values(text(seen)) == {
        ("cputier_collected_timestamp_seconds",): NOW,
        ("cputier_collection_succeeded",): 0,
        ("cputier_collection_duration_seconds",): 2,
        ("cputier_watcher_succeeded",): 0,
    }


def test_largest_flavor_and_what_still_fits() -> None:
    cloud = builders.cluster(
        [builders.host("a", gold=8), builders.host("b", gold=3)],
        [builders.instance("x", "a", 5)],
    )
    sold = tuple(
        dataclasses.replace(builders.flavor(size), name=f"gold.{size}")
        for size in (1, 2, 3, 8)
    )
    seen = look(cloud, flavors=sold)
    assert of(seen, "cputier_tier_largest_fit_units") == {("gold",): 3}
    assert of(seen, "cputier_tier_largest_flavor_units") == {("gold",): 8}
    assert of(seen, "cputier_flavor_fits") == {
        ("gold", "gold.1"): 6,
        ("gold", "gold.2"): 2,
        ("gold", "gold.3"): 2,
        ("gold", "gold.8"): 0,
    }
    none = look(cloud, flavors=sold[-1:])
    assert of(none, "cputier_tier_largest_fit_units") == {("gold",): 0}


def test_what_is_lent_is_no_breach() -> None:
    """R91, R93, N6: neither over quota nor an excess, but told."""
    seen = look(test_lending.borrowed(), **test_lending.BORROW)
    place = ("a", "gold")
    assert of(seen, "cputier_host_lent_units") == {place: 2}
    assert of(seen, "cputier_host_excess_units")[place] == 0
    assert of(seen, "cputier_host_over_quota")[place] == 0
    quotas = seen.breaches(metrics.QUOTA)
    assert quotas is not None
    assert quotas[place] is False


def test_starved_instances_and_those_nobody_knows() -> None:
    cloud = test_starvation.filled(test_starvation.full_host())
    assert cloud.telemetry is not None
    readings = dict(cloud.telemetry.readings)
    readings["gold0"] = (model.Reading(usage_cpus=0.1, steal_cpus=0.9),) * len(
        test_starvation.WINDOWS
    )
    for name in ("gold1", "bronze0", "bronze1", "bronze2", "bronze3"):
        readings[name] = (None,) * len(test_starvation.WINDOWS)
    seen = look(
        dataclasses.replace(
            cloud,
            telemetry=dataclasses.replace(
                cloud.telemetry, readings=model.frozen_map(readings)
            ),
        )
    )
    assert of(seen, "cputier_host_starved_instances") == {
        ("h", "gold"): 1,
        ("h", "silver"): 0,
    }
    assert of(seen, "cputier_host_unjudged_instances") == {
        ("h", "gold"): 1,
        ("h", "silver"): 0,
        ("h", "bronze"): 4,
    }
    ((host, tier, uuid, verdict),) = of(seen, "cputier_instance_starved")
    assert (host, tier, uuid) == ("h", "gold", "gold0")
    assert verdict in starvation.VERDICTS
    lacks = of(seen, "cputier_host_deficit_cpus")
    assert lacks["h", "gold"] == pytest.approx(
        test_starvation.PROMISED["gold"] - 0.1
    )
    assert seen.breaches(metrics.STARVATION) == {
        ("h", "gold"): True,
        ("h", "silver"): False,
    }


# Audits


@pytest.mark.parametrize(
    ("type_", "state", "plan", "alive", "told", "succeeded"),
    [
        ("CONTINUOUS", "PENDING", None, True, True, None),
        ("CONTINUOUS", "ONGOING", "RECOMMENDED", True, True, True),
        ("CONTINUOUS", "ONGOING", "FAILED", True, True, False),
        ("CONTINUOUS", "FAILED", None, False, True, False),
        ("CONTINUOUS", "SUSPENDED", "CANCELLED", False, True, True),
        ("CONTINUOUS", "CANCELLED", "SUCCEEDED", False, False, True),
        # Its end_time has come.
        ("CONTINUOUS", "SUCCEEDED", "SUCCEEDED", False, False, True),
        ("EVENT", "SUCCEEDED", "SUCCEEDED", True, True, True),
        ("EVENT", "FAILED", "SUCCEEDED", False, True, False),
        ("ONESHOT", "SUCCEEDED", "RECOMMENDED", False, True, True),
        ("ONESHOT", "CANCELLED", None, False, False, None),
    ],
)
def test_audits(type_, state, plan, alive, told, succeeded):
    one = metrics.Audit(
        name="a",
        type=type_,
        state=state,
        last=None if plan is None else NOW,
        plan_state=plan,
    )
    assert (one.alive, one.told, one.succeeded) == (alive, told, succeeded)


def test_next_run_is_that_of_audits_that_run() -> None:
    audits = tuple(
        metrics.Audit(
            name=name,
            type="CONTINUOUS",
            state=state,
            last=NOW,
            plan_state="SUCCEEDED",
            next_run=NOW + 60,
        )
        for name, state in (("runs", "ONGOING"), ("gone", "FAILED"))
    )
    seen = metrics.Collection(
        taken_at=NOW, seconds=1, watcher=True, audits=audits
    )
    assert of(seen, "cputier_audit_next_run_timestamp_seconds") == {
        ("runs",): NOW + 60
    }
    assert of(seen, "cputier_audits_alive") == {(): 1}
    assert of(seen, "cputier_audit_last_seconds") == {
        ("runs", "ONGOING"): NOW,
        ("gone", "FAILED"): NOW,
    }
    # Not asked is not none.
    unknown = dataclasses.replace(seen, watcher=None, audits=())
    assert of(unknown, "cputier_audits_alive") == {}


# Time in breach


def small(held: int, quota: int | None = 4) -> model.Cluster:
    """One host with so many units of Gold, and one beside it."""
    return builders.cluster(
        [builders.host("a", gold=quota), builders.host("b", gold=4)],
        [builders.instance(f"i{n}", "a", 1) for n in range(held)],
    )


def run(
    *seen: metrics.Collection, max_gap: float = 1000
) -> tuple[metrics.Counts, str]:
    """Collections one after the other, each reading what the last wrote."""
    written, counts = "", None
    for one in seen:
        past = metrics.read(written) if written else None
        counts = metrics.count(past, one, max_gap)
        written = text(one, counts)
    assert counts is not None
    return counts, written


@pytest.mark.parametrize(
    ("held", "seconds"),
    [
        ((4, 4), 0),
        ((5, 5), 300),
        # Somewhere in between: half of the time, on average.
        ((4, 5), 150),
        ((5, 4), 150),
        ((5, 5, 4, 4, 5), 300 + 150 + 0 + 150),
    ],
)
def test_time_in_breach_is_between_two_looks(held, seconds):
    """N14."""
    counts, written = run(
        *(
            look(small(units), at=NOW + 300 * place)
            for place, units in enumerate(held)
        )
    )
    assert counts.seconds["a", "gold", "quota"] == seconds
    assert counts.seconds["b", "gold", "quota"] == 0
    assert counts.unobserved["quota"] == 0
    name = "cputier_host_breach_seconds_total"
    assert values(written)[name, "a", "gold", "quota"] == seconds
    assert f"# TYPE {name} counter" in written


def test_time_that_nobody_saw_is_no_breach() -> None:
    """Too long a pause, a failed look, a clock that went back."""
    over = small(5)
    counts, _ = run(
        look(over, at=NOW),
        look(over, at=NOW + 1001),
        metrics.Collection(taken_at=NOW + 1101, seconds=1),
        look(over, at=NOW + 1301),
        look(over, at=NOW + 1000),
        look(over, at=NOW + 1010),
    )
    assert counts.seconds["a", "gold", "quota"] == 10
    assert counts.unobserved["quota"] == 1001 + 100 + 200
    # Nobody ever judged starvation.
    assert counts.unobserved["starvation"] == 1301 + 10
    assert ("a", "gold", "starvation") not in counts.seconds


def test_a_quota_that_nobody_knew_is_not_counted() -> None:
    counts, _ = run(
        look(small(5), at=NOW),
        look(small(5), at=NOW + 100),
        look(small(5, None), at=NOW + 200),
        look(small(5), at=NOW + 300),
    )
    assert counts.seconds["a", "gold", "quota"] == 100


def test_counters_end_with_their_host_and_not_with_a_failure() -> None:
    key = ("a", "gold", "quota")
    before = [look(small(5), at=NOW), look(small(5), at=NOW + 100)]
    failed = metrics.Collection(taken_at=NOW + 200, seconds=1)
    counts, written = run(*before, failed)
    assert counts.seconds[key] == 100
    assert "cputier_host_over_quota" not in written
    gone = builders.cluster([builders.host("b", gold=4)], [])
    counts, _ = run(*before, look(gone, at=NOW + 200))
    assert key not in counts.seconds
    assert ("b", "gold", "quota") in counts.seconds


def test_starvation_is_counted_as_well() -> None:
    cloud = test_starvation.one_starved()
    counts, _ = run(look(cloud, at=NOW), look(cloud, at=NOW + 60))
    assert counts.seconds["h", "gold", "starvation"] == 60
    assert counts.seconds["h", "gold", "quota"] == 0
    assert counts.unobserved == {"quota": 0, "starvation": 0}


@given(
    looks=st.lists(
        st.tuples(st.integers(0, 2000), st.sampled_from([4, 5, None])),
        min_size=1,
        max_size=8,
    )
)
def test_time_is_in_breach_or_not_or_unobserved(
    looks: list[tuple[int, int | None]],
) -> None:
    """What is counted never exceeds the time that has passed."""
    moment, seen = NOW, []
    for pause, held in looks:
        moment += pause
        seen.append(
            metrics.Collection(taken_at=moment, seconds=1)
            if held is None
            else look(small(held), at=moment)
        )
    counts, written = run(*seen)
    breach = counts.seconds.get(("a", "gold", "quota"), 0)
    assert 0 <= breach
    assert breach + counts.unobserved["quota"] <= moment - seen[0].taken_at
    past = metrics.read(written)
    assert past.taken_at == moment
    assert past.seconds == counts.seconds
    assert past.unobserved == counts.unobserved


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "plain text\n",
        "some_metric 1\n",
        "cputier_collected_timestamp_seconds 1\n",
        (
            "cputier_host_over_quota 1\n"
            "cputier_collected_timestamp_seconds 1\n"
            "cputier_collection_succeeded 1\n"
        ),
    ],
)
def test_what_no_run_has_written_is_refused(wrong):
    with pytest.raises(metrics.MetricsError):
        metrics.read(wrong)


def test_labels_may_hold_anything() -> None:
    name = 'a "quoted\\ name\n'
    cloud = builders.cluster([builders.host(name, gold=0)], [])
    counts, written = run(look(cloud), look(cloud, at=NOW + 1))
    assert (name, "gold", "quota") in metrics.read(written).seconds
    assert counts.seconds == metrics.read(written).seconds


# The file


def test_a_file_is_replaced_and_may_be_read(tmp_path):
    file = tmp_path / "x.prom"
    file.write_text("old")
    file.chmod(0o600)
    before = os.umask(0o077)
    try:
        command._replace(file, b"new\n")
    finally:
        os.umask(before)
    assert file.read_text() == "new\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path):
    with pytest.raises(metrics.MetricsError, match="write to its directory"):
        command._replace(tmp_path / "no" / "x.prom", b"new\n")


def test_a_name_that_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    (tmp_path / "x.prom" / "full").mkdir(parents=True)
    with pytest.raises(metrics.MetricsError):
        command._replace(tmp_path / "x.prom", b"new\n")
    assert [one.name for one in tmp_path.iterdir()] == ["x.prom"]


@pytest.mark.parametrize(
    "words",
    [
        ["--textfile", "metrics.txt"],
        ["--max-gap", "0"],
        ["--max-gap", "nan"],
        ["--max-gap", "soon"],
    ],
)
def test_options_that_make_no_sense(words, capsys):
    parsed = command.Metrics(None, None).get_parser("metrics")
    with pytest.raises(SystemExit):
        parsed.parse_args(words)
    assert words[0] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        (None, None),
        ("1970-01-02T00:00:00", 86400),
        ("1970-01-02T00:00:00+00:00", 86400),
        ("1970-01-02T01:00:00.500000+01:00", 86400.5),
    ],
)
def test_times_of_watcher(told, seconds):
    assert command._time(told) == seconds


# The samples


def test_every_metric_is_documented() -> None:
    told = re.findall(
        r"^   \* - ``(cputier_\S+?)``$", DOCUMENTATION, re.MULTILINE
    )
    assert told == [
        one.name + (f"{{{','.join(one.labels)}}}" if one.labels else "")
        for one in metrics.FAMILIES
    ]
    for one in metrics.FAMILIES:
        assert one.text.endswith(".")
        assert (one.type == "counter") == one.name.endswith("_total")


def test_alerts_go_by_metrics_that_there_are() -> None:
    known = {one.name for one in metrics.FAMILIES}
    for rule in RULES:
        told = f"{rule['expr']} {rule['annotations']}"
        assert set(re.findall(r"cputier_\w+", told)) <= known
        assert rule["alert"].startswith("CPUTier")
        assert rule["labels"]["severity"] in ("info", "warning", "critical")


def test_alerts_name_commands_that_there_are() -> None:
    groups = {
        "tier": metadata.entry_points(group="openstack.tier.v1"),
        "optimize": metadata.entry_points(group="openstack.infra_optim.v1"),
    }
    for rule in RULES:
        words = shlex.split(rule["annotations"]["command"])
        if words[0] == "systemctl":
            assert (SAMPLES / words[-1]).exists()
            continue
        assert words[0] == "openstack"
        commands = {
            entry.name.replace("_", " "): entry for entry in groups[words[1]]
        }
        (name,) = [
            name
            for name in commands
            if f"{' '.join(words[1:])} ".startswith(f"{name} ")
        ]
        if words[1] == "tier":
            rest = words[1 + len(name.split()) :]
            parsed = commands[name].load()(None, None).get_parser(name)
            text = " ".join(rest)
            # A template stands for one word.
            parsed.parse_args(re.sub(r"{{.*?}}", "x", text).split())


def test_the_unit_runs_a_command_that_there_is() -> None:
    unit = configparser.ConfigParser(strict=False)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    name = "watcher-cputier-metrics"
    unit.read(SAMPLES / f"{name}.service")
    words = shlex.split(unit["Service"]["ExecStart"])
    assert words[:3] == ["openstack", "tier", "metrics"]
    parsed = (
        command.Metrics(None, None).get_parser("metrics").parse_args(words[3:])
    )
    writable = unit["Service"]["ReadWritePaths"].split()
    assert str(parsed.textfile.parent) in writable
    assert unit["Service"]["User"] == "cputier-metrics"
    timer = (SAMPLES / f"{name}.timer").read_text()
    assert f"--textfile {parsed.textfile}" in timer
    assert f"User={unit['Service']['User']}" not in timer
    # Its pause is shorter than what counts as a gap.
    (minutes,) = re.findall(r"OnUnitActiveSec=(\d+)min", timer)
    assert 2 * 60 * int(minutes) < metrics.MAX_GAP_SECONDS
