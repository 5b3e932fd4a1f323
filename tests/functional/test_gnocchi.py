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


"""Telemetry read from a real Gnocchi, and what is said when it is not fit.

Gnocchi runs with PostgreSQL, metricd and the stub Keystone; no Nova, for a
datasource asks about instances that somebody else has named. Counters are
written as Ceilometer writes them, an instance's first sample some windows
back::

    a-1 ... a-4   one vCPU each, .5 CPUs used and .25 CPUs of steal
"""

from collections.abc import Callable, Iterator, Mapping
import time
from typing import Any
import uuid

from oslo_config import cfg
import pytest

from tests import builders
from tests.cloud import gnocchi as cloud_gnocchi
from tests.cloud import surroundings as cloud_surroundings
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import vetting
from watcher_cputier.datasources import service
from watcher_cputier.datasources import telemetry

WINDOW = 300
NAMES = ("a-1", "a-2", "a-3", "a-4")
USAGE, STEAL = 0.5, 0.25

Surroundings = cloud_surroundings.Surroundings
# (time, CPU time in ns, steal in ns)
Counter = list[tuple[int, int, int]]


def identifier(name: str) -> str:
    """The uuid of an instance of this name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def resource(name: str, project: str = "tenant") -> cloud_gnocchi.Resource:
    """The instance as Ceilometer makes it known."""
    return cloud_gnocchi.Resource(
        uuid=identifier(name), name=name, project=project
    )


def cluster(
    names: tuple[str, ...] = NAMES,
    changes: tuple[model.Change, ...] = (),
    **fields: Any,
) -> model.Cluster:
    """Instances of one vCPU on one host."""
    return builders.cluster(
        [builders.host("host-1")],
        [
            builders.instance(name, "host-1", uuid=identifier(name), **fields)
            for name in names
        ],
        changes=changes,
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Surroundings]:
    """A Gnocchi that is started once."""
    with Surroundings() as around:
        around.gnocchi.start()
        yield around


@pytest.fixture
def around(running: Surroundings) -> Surroundings:
    """The same, empty and undisturbed."""
    running.clear_faults()
    running.gnocchi.enter()
    running.gnocchi.forget()
    return running


@pytest.fixture
def now() -> int:
    """A moment in the middle of a window, so that no test runs over an end."""
    return int(time.time()) // WINDOW * WINDOW - WINDOW // 2


def counter(
    now: int,
    *,
    usage: float = USAGE,
    steal: float = STEAL,
    samples: int = 8,
    interval: int = WINDOW,
    ends: int = 0,
    start: float = 1e12,
) -> Counter:
    """Counters that grow evenly, the last sample some seconds before now."""
    last = now // WINDOW * WINDOW - 10 - ends
    return [
        (
            last - back * interval,
            int(start + (samples - back) * interval * usage * 1e9),
            int(start + (samples - back) * interval * steal * 1e9),
        )
        for back in reversed(range(samples))
    ]


def write(
    around: Surroundings,
    counters: Mapping[str, Counter],
    **options: Any,
) -> None:
    """Write counters of instances by their names."""
    around.gnocchi.write(
        {resource(name): rows for name, rows in counters.items()}, **options
    )


Read = Callable[..., tuple[model.Telemetry, tuple[model.Finding, ...]]]


@pytest.fixture
def read(around: Surroundings, now: int) -> Read:
    """``read(cluster)`` as a user, with options and audit parameters."""

    def get(
        seen: model.Cluster,
        *,
        user: str = "watcher",
        seconds: float | None = None,
        params: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> tuple[model.Telemetry, tuple[model.Finding, ...]]:
        reader = telemetry.Reader(
            configuration(**options),
            around.connection(user),
            None if seconds is None else time.monotonic() + seconds,
        )
        found = reader.get_telemetry(
            seen, parameters.Parameters.of(params), now
        )
        assert "gnocchi" in reader.summary
        return found

    return get


def configuration(**options: Any) -> cfg.ConfigOpts:
    """A service's configuration that names Gnocchi."""
    conf = cfg.ConfigOpts()
    conf([])
    telemetry.telemetry_conf.register(conf)
    for name, value in {"datasource": "gnocchi", **options}.items():
        conf.set_override(name, value, group="cputier_telemetry")
    return conf


def test_everybodys_windows_are_read_with_a_few_requests(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    mark = time.monotonic()
    found, findings = read(cluster())
    assert findings == ()
    assert found.windows == tuple(
        now // WINDOW * WINDOW - WINDOW * back for back in (3, 2, 1)
    )
    assert set(found.readings) == {identifier(name) for name in NAMES}
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(USAGE)
            assert reading.steal_cpus == pytest.approx(STEAL)
    # Two for each metric: its rates, and the polling interval.
    asked = around.requests("metric", since=mark)
    assert [(r.method, r.path) for r in asked] == [
        ("POST", "/v1/aggregates")
    ] * 4


def test_instances_are_asked_about_in_chunks(
    around: Surroundings, read: Read, now: int
) -> None:
    names = tuple(f"c-{number}" for number in range(7))
    write(around, {name: counter(now) for name in names})
    found, _findings = read(cluster(names), chunk_size=2, threads=3)
    assert set(found.readings) == {identifier(name) for name in names}


def test_no_steal_metric_is_said_with_what_mends_it(
    around: Surroundings, read: Read, now: int
) -> None:
    write(
        around,
        {name: counter(now) for name in NAMES},
        metrics=("cpu", None),
    )
    with pytest.raises(telemetry.NoData) as caught:
        read(cluster())
    assert "metric cpu.steal: no instance has it" in str(caught.value)
    assert "[cputier_telemetry] steal_metric" in caught.value.cure


def test_a_metric_that_only_others_have_is_no_missing_metric(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {"stranger": counter(now)})
    with pytest.raises(telemetry.NoData, match="none of 4 instances has"):
        read(cluster())


def test_a_stale_metric_is_told_by_its_age(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, ends=4 * 3600) for name in NAMES})
    with pytest.raises(
        telemetry.NoData, match=r"stale: its newest point .* 24[0-9] minutes"
    ):
        read(cluster())


def test_samples_that_are_late_shift_the_windows(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, ends=WINDOW) for name in NAMES})
    found, findings = read(cluster())
    assert found.ends_at == now // WINDOW * WINDOW - WINDOW
    assert all(all(row) for row in found.readings.values())
    assert [finding.kind for finding in findings] == ["telemetry_late"]


def test_half_the_instances_without_data_are_named_and_unknown(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES[:2]})
    found, findings = read(cluster())
    assert set(found.readings) == {identifier(name) for name in NAMES[:2]}
    (finding,) = findings
    assert finding.kind == "telemetry_coverage"
    assert "2 of 4 running instances" in finding.text
    assert "a-3, a-4" in finding.text
    with pytest.raises(telemetry.NoData, match="2 of 4 running"):
        read(cluster(), minimum_coverage=0.6)


def test_a_stopped_instance_is_not_missed(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    seen = builders.moved_in(
        cluster(),
        [
            builders.instance(
                "off", "host-1", uuid=identifier("off"), status="SHUTOFF"
            )
        ],
    )
    _found, findings = read(seen)
    assert findings == ()


@pytest.mark.parametrize(
    ("factors", "options", "named"),
    [
        ((1, 1), {"steal_unit": "s"}, "steal_unit"),
        ((1, 1), {"cpu_unit": "s"}, "cpu_unit"),
        ((1e-9, 1e-9), {}, "cpu_unit"),
        ((1, 1e-9), {}, "steal_unit"),
    ],
)
def test_a_wrong_unit_is_noticed_and_the_right_one_named(
    around: Surroundings,
    read: Read,
    now: int,
    factors: tuple[float, float],
    options: dict[str, str],
    named: str,
) -> None:
    write(around, {name: counter(now) for name in NAMES}, factors=factors)
    with pytest.raises(errors.ConfigurationError) as caught:
        read(cluster(), **options)
    assert caught.value.where == f"[cputier_telemetry] {named}"
    right = "ns" if options else "s"
    assert caught.value.cure.startswith(f"Set it to {right}")
    found, _findings = read(
        cluster(),
        cpu_unit="ns" if factors[0] == 1 else "s",
        steal_unit="ns" if factors[1] == 1 else "s",
    )
    assert all(all(row) for row in found.readings.values())


def test_a_wrong_polling_interval_is_noticed(
    around: Surroundings, read: Read, now: int
) -> None:
    write(
        around,
        {name: counter(now, interval=60, samples=40) for name in NAMES},
    )
    with pytest.raises(errors.ConfigurationError, match="about every 60 s"):
        read(cluster())
    found, findings = read(cluster(), polling_interval_seconds=60)
    assert findings == ()
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(USAGE)


def test_polls_that_are_further_apart_than_windows_are_refused(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, interval=600) for name in NAMES})
    with pytest.raises(errors.ConfigurationError, match="about every 600 s"):
        read(cluster())
    with pytest.raises(telemetry.NoData, match="polled every 600 s"):
        read(cluster(), polling_interval_seconds=600)
    # Which is mended by longer windows, made of two granules each.
    found, _findings = read(
        cluster(),
        polling_interval_seconds=600,
        params={"window_seconds": 600},
    )
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(USAGE)


def test_windows_may_be_several_granules_long(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, samples=20) for name in NAMES})
    found, findings = read(cluster(), params={"window_seconds": 900})
    assert findings == ()
    assert found.window_seconds == 900
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(USAGE)


def test_counters_that_begin_anew_are_rejected_and_counted(
    around: Surroundings, read: Read, now: int
) -> None:
    before = counter(now)
    # The last two samples come from another host.
    fresh = counter(now, samples=2, start=0)
    write(around, {"a-1": [*before[:-2], *fresh], "a-2": before})
    found, findings = read(cluster(("a-1", "a-2")))
    assert found.rejected == {vetting.NEGATIVE: 1}
    row = found.readings[identifier("a-1")]
    assert [reading is None for reading in row] == [False, True, False]
    assert [finding.kind for finding in findings] == ["telemetry_rejected"]
    # With what Nova knows about it, the windows around it go too, and those
    # of the time on the other host.
    moved = model.Change(
        instance=identifier("a-1"),
        kind="live-migration",
        began_at=fresh[0][0] - 60,
        ended_at=fresh[0][0] - 30,
        moved=True,
    )
    found, _findings = read(cluster(("a-1", "a-2"), (moved,)))
    assert found.rejected == {"spans a change (live-migration)": 3}
    assert found.readings[identifier("a-1")] == (None,) * 3
    assert all(found.readings[identifier("a-2")])


def test_a_gap_in_the_polls_spoils_the_value_after_it(
    around: Surroundings, read: Read, now: int
) -> None:
    whole = counter(now)
    holed = [*whole[:-3], *whole[-2:]]
    write(around, {"a-1": holed, "a-2": whole})
    found, _findings = read(cluster(("a-1", "a-2")))
    row = found.readings[identifier("a-1")]
    assert [reading is None for reading in row] == [True, True, False]
    assert found.rejected == {vetting.GAP: 1}


def test_an_instance_deleted_in_between_is_unknown(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.gnocchi.delete_metric("a-1", "cpu")
    around.gnocchi.end("a-2", now - 10)
    found, findings = read(cluster())
    assert set(found.rejected) == {vetting.NO_USAGE}
    assert found.readings[identifier("a-1")] == (None,) * 3
    assert all(found.readings[identifier("a-2")])
    assert "telemetry_coverage" in [finding.kind for finding in findings]


def test_one_instance_with_another_archive_policy_spoils_nobody_else(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES[1:]})
    write(around, {"a-1": counter(now)}, policy="ceilometer-low")
    found, findings = read(cluster())
    assert set(found.readings) == {identifier(name) for name in NAMES[1:]}
    (finding,) = findings
    assert "a-1 (" in finding.text
    assert "; cpu: its archive policy has no rate:mean)" in finding.text


def test_a_cloud_of_wrong_archive_policies_is_not_asked_one_by_one(
    around: Surroundings, read: Read, now: int
) -> None:
    names = tuple(f"w-{number:02}" for number in range(60))
    write(
        around,
        {name: counter(now, samples=2) for name in names},
        policy="ceilometer-low",
    )
    mark = time.monotonic()
    with pytest.raises(telemetry.NoData, match="policy has no rate:mean"):
        read(cluster(names))
    assert len(around.requests("metric", since=mark)) < len(names)


def test_another_granularity_is_named(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    with pytest.raises(
        telemetry.NoData, match="points every 300 s, windows are 60 s long"
    ):
        read(
            cluster(),
            params={"window_seconds": 60},
            polling_interval_seconds=60,
        )
    around.gnocchi.forget()
    write(
        around,
        {name: counter(now, interval=60, samples=20) for name in NAMES},
        policy="every-minute-rate",
    )
    found, findings = read(
        cluster(),
        params={"window_seconds": 60},
        polling_interval_seconds=60,
        lag_seconds=180,
    )
    assert findings == ()
    assert all(all(row) for row in found.readings.values())


def test_a_server_that_fails_for_a_moment_is_asked_again(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject("metric", method="POST", status=503, times=2)
    found, _findings = read(cluster())
    assert all(all(row) for row in found.readings.values())
    around.inject("metric", method="POST", drop=True, times=1)
    found, _findings = read(cluster())
    assert all(all(row) for row in found.readings.values())


def test_a_server_that_keeps_failing_is_named(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject("metric", status=503, times=None)
    with pytest.raises(errors.ServiceError) as caught:
        read(cluster(), seconds=2)
    assert "Gnocchi POST v1/aggregates" in str(caught.value)
    assert "503" in str(caught.value)


def test_a_server_that_hangs_does_not_take_the_audit_along(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject("metric", delay_seconds=4, times=None)
    with pytest.raises(errors.ServiceError):
        read(cluster(), seconds=2)
    # What it still had to answer is over before the next story.
    time.sleep(4)


def test_a_restart_loses_nothing(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.gnocchi.stop()
    with pytest.raises(errors.ServiceError, match="unreachable"):
        read(cluster(), seconds=2)
    around.gnocchi.start()
    found, _findings = read(cluster())
    assert all(all(row) for row in found.readings.values())


def test_an_answer_that_is_not_gnocchis_is_no_data(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    for body in ("{}", "<html>", '{"measures": {"a": 1}}', "null"):
        around.inject("metric", method="POST", status=200, body=body, times=1)
        with pytest.raises(errors.ServiceError, match="endpoint"):
            read(cluster())


def test_an_empty_answer_is_no_zero(
    around: Surroundings, read: Read, now: int
) -> None:
    # One sample makes no rate.
    write(around, {name: counter(now, samples=1) for name in NAMES})
    with pytest.raises(telemetry.NoData):
        read(cluster())


@pytest.mark.parametrize("user", ["reader", "member"])
def test_missing_authorisation_does_not_look_like_missing_data(
    around: Surroundings, read: Read, now: int, user: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    with pytest.raises(service.Forbidden) as caught:
        read(cluster(), user=user)
    assert "role" in caught.value.cure


def test_a_cloud_without_gnocchi_is_told_so(
    around: Surroundings, read: Read
) -> None:
    around.gnocchi.leave()
    with pytest.raises(telemetry.NotDeployed, match="no endpoint"):
        read(cluster())


def test_an_unknown_resource_type_names_its_option(
    around: Surroundings, read: Read
) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        read(cluster(), resource_type="virtual_machine")
    assert caught.value.where == "[cputier_telemetry] resource_type"


def test_metrics_per_vcpu_are_added_up(
    around: Surroundings, read: Read, now: int
) -> None:
    rows = counter(now)
    around.gnocchi.write_measures(
        {
            resource("a-1"): {
                **{
                    f"vcpu.{n}.time": [(t, u) for t, u, _ in rows]
                    for n in (0, 1)
                },
                **{
                    f"vcpu.{n}.delay": [(t, s) for t, _, s in rows]
                    for n in (0, 1)
                },
            }
        }
    )
    found, _findings = read(
        builders.cluster(
            [builders.host("host-1")],
            [builders.instance("a-1", "host-1", 2, uuid=identifier("a-1"))],
        ),
        cpu_metric="vcpu.*.time",
        steal_metric="vcpu.*.delay",
    )
    for reading in found.readings[identifier("a-1")]:
        assert reading is not None
        assert reading.usage_cpus == pytest.approx(2 * USAGE)
        assert reading.steal_cpus == pytest.approx(2 * STEAL)


def test_gauges_are_read_as_they_are(
    around: Surroundings, read: Read, now: int
) -> None:
    times = [t for t, _, _ in counter(now)]
    around.gnocchi.write_measures(
        {
            resource("a-1"): {
                "cpu_util": [(t, 40.0) for t in times],
                "steal_util": [(t, 0.2) for t in times],
            }
        },
        policy="ceilometer-low",
    )
    found, _findings = read(
        cluster(("a-1",)),
        cpu_metric="cpu_util",
        cpu_unit="percent",
        steal_metric="steal_util",
        steal_unit="fraction",
    )
    for reading in found.readings[identifier("a-1")]:
        assert reading is not None
        assert reading.usage_cpus == pytest.approx(0.4)
        assert reading.steal_cpus == pytest.approx(0.2)
