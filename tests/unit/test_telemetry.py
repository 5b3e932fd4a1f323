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


"""Which source is asked, for which windows, and what it has to have.

The sources here hold their points in memory; how real ones answer is a
matter of the functional tests. It is 10:07:30 on the first day of the epoch:
windows of 300 s end at 10:05 for whoever waits two minutes for late samples.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import types
from typing import Any

from oslo_config import cfg
import pytest
import stevedore
from stevedore import exception as stevedore_exception

from tests import builders
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.conf import telemetry as telemetry_conf
from watcher_cputier.datasources import telemetry

NOW = 10 * 3600 + 450
END = 10 * 3600 + 300
LENGTH = 300
PARAMS = parameters.Parameters.of()
NAMES = ("a", "b", "c", "d")


@dataclasses.dataclass
class Memory:
    """A source that knows a number of windows of some instances.

    :param cpu: {instance: begins of the windows that it has}
    :param steal: the same
    """

    name: str = "memory"
    cpu: Mapping[str, range] = dataclasses.field(default_factory=dict)
    steal: Mapping[str, range] = dataclasses.field(default_factory=dict)
    value: float = 0.5
    unit: str = "s"
    reach: int = 0
    granularity: int | None = None
    absent: Mapping[str, str] = dataclasses.field(default_factory=dict)
    known: bool = False
    notes: tuple[model.Finding, ...] = ()
    asked: list[telemetry.Question] = dataclasses.field(default_factory=list)

    def metrics(self) -> tuple[telemetry.Metric, telemetry.Metric]:
        return (
            telemetry.Metric(role="cpu", name="used", unit=self.unit),
            telemetry.Metric(role="steal", name="waited", unit=self.unit),
        )

    def offers(self, metric: telemetry.Metric) -> bool:
        return self.known

    def get(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> telemetry.Answer:
        self.asked.append(question)
        held = self.cpu if metric.role == "cpu" else self.steal
        values = {
            one: {t: self.value for t in held[one] if t in question.windows}
            for one in question.instances
            if one in held
        }
        return telemetry.Answer(
            values={one: row for one, row in values.items() if row},
            absent={
                one: why
                for one, why in self.absent.items()
                if not values.get(one)
            },
            newest=max(
                (t for row in values.values() for t in row), default=None
            ),
            reach_seconds=self.reach,
            granularity_seconds=self.granularity,
            findings=self.notes,
        )


def windows(count: int = 8, late: int = 0) -> range:
    """The last windows that have ended, less so many that have not come."""
    last = END - late * LENGTH
    return range(last - count * LENGTH, last, LENGTH)


def full(names: tuple[str, ...] = NAMES, **fields: Any) -> Memory:
    """A source that has everything of these instances."""
    there = dict.fromkeys(names, windows())
    return Memory(**{"cpu": there, "steal": there, **fields})


Install = Callable[..., telemetry.Reader]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """A reader among these entry points: factories, or sources that they
    make."""

    def make(
        entry_points: Mapping[str, Any],
        preferred: tuple[str, ...] = (),
        **options: Any,
    ) -> telemetry.Reader:
        conf = cfg.ConfigOpts()
        conf([])
        telemetry_conf.register(conf)
        conf.register_opts([cfg.ListOpt("datasources")], "watcher_datasources")
        conf.set_override(
            "datasources", list(preferred), "watcher_datasources"
        )
        for name, value in options.items():
            conf.set_override(name, value, telemetry_conf.GROUP)

        def driver(namespace: str, name: str, **_options: Any) -> Any:
            if name not in entry_points:
                raise stevedore_exception.NoMatches(name)
            found = entry_points[name]
            if isinstance(found, Memory):
                return types.SimpleNamespace(driver=lambda *args: found)
            return types.SimpleNamespace(driver=found)

        monkeypatch.setattr(stevedore, "DriverManager", driver)
        monkeypatch.setattr(
            stevedore,
            "ExtensionManager",
            lambda namespace: types.SimpleNamespace(
                names=lambda: list(entry_points)
            ),
        )
        connected: Any = None
        return telemetry.Reader(conf, connected)

    return make


def cluster(names: tuple[str, ...] = NAMES, **fields: Any) -> model.Cluster:
    return builders.cluster(
        [builders.host("host-1"), builders.host("far", in_scope=False)],
        [builders.instance(name, "host-1", **fields) for name in names],
    )


def read(
    reader: telemetry.Reader,
    seen: model.Cluster | None = None,
    params: parameters.Parameters = PARAMS,
) -> tuple[model.Telemetry, tuple[model.Finding, ...]]:
    return reader.get_telemetry(seen or cluster(), params, NOW)


def absent(*_args: Any) -> Any:
    """The factory of a source that the cloud does not have."""
    raise telemetry.NotDeployed("it is not here", where="Elsewhere")


# --- which source


def test_the_option_decides(install: Install) -> None:
    reader = install(
        {"one": full(name="one"), "two": full(name="two")},
        ("one",),
        datasource="two",
    )
    assert read(reader)[0].source == "two"


def test_watchers_preference_decides_otherwise(install: Install) -> None:
    reader = install(
        {"one": full(name="one"), "two": full(name="two")},
        ("grafana", "two", "one"),
    )
    assert read(reader)[0].source == "two"


@pytest.mark.parametrize(
    "first", [absent, Memory(name="empty")], ids=["absent", "empty"]
)
def test_what_is_not_there_or_has_nothing_is_passed_over(
    install: Install, first: Any
) -> None:
    reader = install({"one": first, "two": full(name="two")}, ("one", "two"))
    assert read(reader)[0].source == "two"


def test_what_is_named_is_not_passed_over(install: Install) -> None:
    reader = install(
        {"one": absent, "two": full(name="two")},
        ("one", "two"),
        datasource="one",
    )
    with pytest.raises(telemetry.NotDeployed, match="it is not here"):
        read(reader)


def test_a_cloud_that_has_none_of_them_is_told_as_such(
    install: Install,
) -> None:
    reader = install({"one": absent, "two": absent}, ("one", "two"))
    with pytest.raises(telemetry.NotDeployed, match="it is not here"):
        read(reader)


def test_what_fails_is_not_passed_over(install: Install) -> None:
    def failing(*_args: Any) -> Any:
        raise errors.ServiceError("it is down", where="One")

    reader = install({"one": failing, "two": full()}, ("one", "two"))
    with pytest.raises(errors.ServiceError, match="One: it is down"):
        read(reader)


def test_the_one_that_is_there_says_why_it_has_nothing(
    install: Install,
) -> None:
    reader = install(
        {"one": absent, "two": Memory(name="two")}, ("one", "two")
    )
    with pytest.raises(telemetry.NoData) as caught:
        read(reader)
    assert caught.value.where == "two metric used"
    assert "it is not here" not in str(caught.value)


def test_none_of_the_preferred_is_one_of_ours(install: Install) -> None:
    reader = install({"one": full()}, ("grafana", "monasca"))
    with pytest.raises(errors.ConfigurationError) as caught:
        read(reader)
    assert caught.value.where == "[watcher_datasources] datasources"
    assert "Name one of one" in caught.value.cure


def test_a_name_without_an_entry_point_is_refused(install: Install) -> None:
    reader = install({"one": full()}, datasource="won")
    with pytest.raises(errors.ConfigurationError, match="There are one"):
        read(reader)


def test_a_factory_that_fails_is_named(install: Install) -> None:
    def broken(*_args: Any) -> Any:
        raise KeyError("oops")

    reader = install({"one": broken}, datasource="one")
    with pytest.raises(
        errors.ConfigurationError, match="one could not be started: KeyError"
    ):
        read(reader)


@pytest.mark.parametrize(
    "line",
    [
        "minimum_coverage = much",
        "steal_unit = ms",
        "aggregation = mean",
        "cpu_metric = cpu) (",
    ],
)
def test_an_option_of_another_form_is_refused(
    tmp_path: pathlib.Path, line: str
) -> None:
    path = tmp_path / "watcher.conf"
    path.write_text(f"[{telemetry_conf.GROUP}]\n{line}\n")
    conf = cfg.ConfigOpts()
    conf(["--config-file", str(path)])
    with pytest.raises(errors.ConfigurationError) as caught:
        telemetry_conf.read(conf)
    assert line.partition(" ")[0] in str(caught.value)


# --- which windows, and whose


def test_windows_are_aligned_and_have_ended(install: Install) -> None:
    source = full()
    found, findings = read(install({"one": source}, datasource="one"))
    assert findings == ()
    assert found.windows == (END - 900, END - 600, END - 300)
    assert found.ends_at == END
    (question, again) = source.asked
    assert question == again
    assert question.instances == NAMES
    assert question.end == END


def test_whoever_waits_longer_looks_at_older_windows(
    install: Install,
) -> None:
    source = full()
    found, _findings = read(
        install({"one": source}, datasource="one", lag_seconds=151)
    )
    assert found.ends_at == END - LENGTH


def test_instances_of_hosts_out_of_scope_are_not_asked_about(
    install: Install,
) -> None:
    source = full()
    seen = builders.moved_in(cluster(), [builders.instance("stranger", "far")])
    found, findings = read(install({"one": source}, datasource="one"), seen)
    assert findings == ()
    assert source.asked[0].instances == NAMES
    assert set(found.readings) == set(NAMES)


def test_an_empty_cloud_asks_nobody(install: Install) -> None:
    source = full()
    reader = install({"one": source}, datasource="one")
    found, findings = read(reader, cluster(()))
    assert source.asked == []
    assert findings == ()
    assert found.readings == {}
    assert len(found.windows) == PARAMS.windows


@pytest.mark.parametrize("late", [1, 2])
def test_empty_windows_at_the_end_are_waited_for(
    install: Install, late: int
) -> None:
    there = dict.fromkeys(NAMES, windows(late=late))
    source = Memory(cpu=there, steal=there)
    found, findings = read(install({"one": source}, datasource="one"))
    assert found.ends_at == END - late * LENGTH
    assert all(all(row) for row in found.readings.values())
    assert [finding.kind for finding in findings] == ["telemetry_late"]
    assert "lag_seconds" in findings[0].text


def test_single_instances_that_are_late_shift_nothing(
    install: Install,
) -> None:
    there = {**dict.fromkeys(NAMES, windows()), "a": windows(late=1)}
    source = Memory(cpu=there, steal=there)
    found, findings = read(install({"one": source}, datasource="one"))
    assert found.ends_at == END
    assert findings == ()
    assert found.readings["a"][-1] is None


# --- what it has to have


def test_coverage_counts_running_instances_that_have_both(
    install: Install,
) -> None:
    source = full(absent={"b": "it is too new"})
    source.cpu = dict.fromkeys("acd", windows())
    source.steal = dict.fromkeys(["a", "b", "d"], windows())
    found, findings = read(install({"one": source}, datasource="one"))
    (finding, rejected) = findings
    assert finding.kind == "telemetry_coverage"
    assert finding.text.startswith(
        "2 of 4 running instances have no telemetry (used of 1 and waited of "
        "1 is missing): b, c (used: it is too new)."
    )
    assert rejected.kind == "telemetry_rejected"
    assert found.readings["a"][-1] is not None


@pytest.mark.parametrize(
    ("minimum", "enough"), [(0.75, True), (0.76, False), (0.0, True)]
)
def test_too_little_coverage_is_no_telemetry(
    install: Install, minimum: float, enough: bool
) -> None:
    reader = install(
        {"one": full(("a", "b", "c"))},
        datasource="one",
        minimum_coverage=minimum,
    )
    if enough:
        assert len(read(reader)[0].readings) == 3
    else:
        with pytest.raises(telemetry.NoData, match="1 of 4 running") as caught:
            read(reader)
        assert "minimum_coverage" in caught.value.cure


def test_a_granularity_of_its_own_is_named(install: Install) -> None:
    reader = install({"one": full(granularity=60)}, datasource="one")
    with pytest.raises(telemetry.NoData, match="points every 60 s") as caught:
        read(reader)
    assert "window_seconds to 60" in caught.value.cure


def test_polls_further_apart_than_windows_are_refused(
    install: Install,
) -> None:
    reader = install({"one": full(reach=301)}, datasource="one")
    with pytest.raises(telemetry.NoData, match="polled every 301 s"):
        read(reader)


def test_age_is_told_where_it_is_too_old(install: Install) -> None:
    there = dict.fromkeys(NAMES, windows(late=20))
    reader = install(
        {"one": Memory(name="one", cpu=there, steal=there)}, datasource="one"
    )
    with pytest.raises(telemetry.NoData) as caught:
        read(reader)
    assert str(caught.value).startswith(
        "one metric used: stale: its newest point is of 1970-01-01 08:20 "
        "UTC, 107 minutes ago."
    )


def test_a_clock_that_is_ahead_shows(install: Install) -> None:
    there = dict.fromkeys(NAMES, range(END + LENGTH, END + 1800, LENGTH))
    reader = install({"one": Memory(cpu=there, steal=there)}, datasource="one")
    with pytest.raises(telemetry.NoData, match="points begin at") as caught:
        read(reader)
    assert "clocks" in caught.value.cure


def test_a_steal_metric_that_nobody_has_names_the_pollster(
    install: Install,
) -> None:
    reader = install({"one": full(steal={})}, datasource="one")
    with pytest.raises(telemetry.NoData) as caught:
        read(reader)
    assert "waited: no instance has it" in str(caught.value)
    assert "pollster" in caught.value.cure


def test_a_metric_of_others_is_not_missing(install: Install) -> None:
    reader = install(
        {
            "one": Memory(
                known=True, absent=dict.fromkeys(NAMES, "its policy is odd")
            )
        },
        datasource="one",
    )
    with pytest.raises(
        telemetry.NoData, match=r"none of 4 .*\(its policy is odd\), others"
    ):
        read(reader)


def test_an_implausible_unit_names_its_option(install: Install) -> None:
    reader = install({"one": full(value=4e8)}, datasource="one")
    with pytest.raises(errors.ConfigurationError) as caught:
        read(reader)
    assert caught.value.where == "[cputier_telemetry] cpu_unit"
    assert caught.value.cure == "Set it to ns"


def test_many_readings_beyond_the_vcpus_point_to_the_options(
    install: Install,
) -> None:
    reader = install({"one": full(value=0.9)}, datasource="one")
    _found, findings = read(reader)
    (finding,) = findings
    assert finding.kind == "telemetry_rejected"
    assert "12 of 12 readings are not fit: 12 more than its" in finding.text
    assert "cpu_includes_wait" in finding.text


def test_what_the_source_noticed_is_passed_on_once(install: Install) -> None:
    note = model.Finding(kind="odd", subject="one", text="It is odd.")
    reader = install({"one": full(notes=(note,))}, datasource="one")
    assert read(reader)[1] == (note,)


def test_the_summary_tells_what_was_read(install: Install) -> None:
    reader = install({"one": full(name="one")}, datasource="one")
    read(reader)
    assert reader.summary == (
        "one: used (s) and waited (s), 3 windows of 300 s up to 1970-01-01 "
        "10:05 UTC, complete for 4 of 4 instances"
    )
