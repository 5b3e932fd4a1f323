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

"""Telemetry read from a real Prometheus, asked itself and through Aetos.

No Nova: a datasource asks about instances that somebody else has named. What
is stored is what scrapes of Ceilometer's exporter bring, each polled value
several times::

    a-1 ... a-4   one vCPU each, .5 CPUs used and .25 CPUs of steal
"""

from collections.abc import Callable, Iterator, Mapping
import json
import pathlib
import re
import textwrap
import threading
import time
from typing import Any
import uuid

from oslo_config import cfg
import pytest

from tests import builders
from tests.cloud import gnocchi as cloud_gnocchi
from tests.cloud import keystone
from tests.cloud import prometheus as cloud_prometheus
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
DIRECT, AETOS = "prometheus", "aetos"
# As the ledger of requests knows the two.
SEEN_AS = {
    DIRECT: cloud_prometheus.DIRECT,
    AETOS: cloud_prometheus.AETOS,
}
# Watcher's own options; the newest releases alone have those of Aetos.
WATCHERS_OPTIONS = {
    "prometheus_client": [
        cfg.HostAddressOpt("host"),
        cfg.PortOpt("port", default=9090),
        cfg.StrOpt("instance_uuid_label", default="resource"),
        cfg.StrOpt("username"),
        cfg.StrOpt("password", secret=True),
        cfg.StrOpt("cafile"),
        cfg.StrOpt("certfile"),
        cfg.StrOpt("keyfile"),
    ],
    "aetos_client": [
        cfg.StrOpt("interface", default="public"),
        cfg.StrOpt("region_name"),
        cfg.StrOpt("instance_uuid_label", default="resource"),
    ],
}

Surroundings = cloud_surroundings.Surroundings
# (time, CPU time in ns, steal in ns)
Counter = list[tuple[int, int, int]]


def identifier(name: str) -> str:
    """The uuid of an instance of this name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))


def resource(
    name: str, project: str = "tenant", host: str = "host-1"
) -> cloud_gnocchi.Resource:
    """The instance as Ceilometer makes it known."""
    return cloud_gnocchi.Resource(
        uuid=identifier(name), name=name, project=project, host=host
    )


def cluster(names: tuple[str, ...] = NAMES, vcpus: int = 1) -> model.Cluster:
    """Instances on one host."""
    return builders.cluster(
        [builders.host("host-1")],
        [
            builders.instance(name, "host-1", vcpus, uuid=identifier(name))
            for name in names
        ],
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Surroundings]:
    """A Prometheus and an Aetos that are started once."""
    if cloud_prometheus.find() is None:
        pytest.skip("there is neither prometheus nor apt-get to fetch it")
    with Surroundings() as around:
        around.prometheus.start()
        yield around


@pytest.fixture
def around(running: Surroundings) -> Surroundings:
    """The same, empty and undisturbed; it runs once something is written."""
    running.clear_faults()
    running.prometheus.enter()
    running.prometheus.forget(resume=False)
    return running


@pytest.fixture(params=[DIRECT, AETOS])
def name(request: pytest.FixtureRequest) -> str:
    """Both ways to Prometheus."""
    return str(request.param)


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
    """Counters that grow evenly, polled last some seconds before now."""
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
    around.prometheus.write(
        {resource(name): rows for name, rows in counters.items()}, **options
    )


Read = Callable[..., tuple[model.Telemetry, tuple[model.Finding, ...]]]


@pytest.fixture
def read(around: Surroundings, now: int) -> Read:
    """``read(cluster)`` as a user, with options."""

    def get(
        seen: model.Cluster,
        name: str = DIRECT,
        *,
        user: str = "watcher",
        seconds: float | None = None,
        port: int | None = None,
        label: str = "resource",
        client: Mapping[str, str] | None = None,
        file: pathlib.Path | None = None,
        **options: Any,
    ) -> tuple[model.Telemetry, tuple[model.Finding, ...]]:
        conf = configuration(file, datasource=name, **options)
        for option, value in (client or {}).items():
            conf.set_override(option, value, group="prometheus_client")
        for section in WATCHERS_OPTIONS:
            conf.set_override("instance_uuid_label", label, group=section)
        if port != 0:
            conf.set_override("host", "127.0.0.1", group="prometheus_client")
            conf.set_override(
                "port",
                port or around.prometheus.port,
                group="prometheus_client",
            )
        reader = telemetry.Reader(
            conf,
            around.connection(user),
            None if seconds is None else time.monotonic() + seconds,
        )
        found = reader.get_telemetry(seen, parameters.Parameters.of(), now)
        assert name in reader.summary
        return found

    return get


def configuration(
    file: pathlib.Path | None = None, **options: Any
) -> cfg.ConfigOpts:
    """A service's configuration with Watcher's options."""
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(file)] if file else [])
    telemetry.telemetry_conf.register(conf)
    for section, known in WATCHERS_OPTIONS.items():
        conf.register_opts(known, group=section)
    for option, value in options.items():
        conf.set_override(option, value, group="cputier_telemetry")
    return conf


def check_readings(
    found: model.Telemetry,
    names: tuple[str, ...] = NAMES,
    times: float = 1.0,
) -> None:
    """Everybody has what was written, in all windows."""
    assert set(found.readings) == {identifier(name) for name in names}
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(times * USAGE)
            assert reading.steal_cpus == pytest.approx(times * STEAL)


def test_one_request_for_each_metric_reads_what_was_written(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    mark = time.monotonic()
    found, findings = read(cluster(), name)
    assert findings == ()
    assert found.source == name
    assert found.windows == tuple(
        now // WINDOW * WINDOW - WINDOW * back for back in (3, 2, 1)
    )
    check_readings(found)
    # One for each metric, and one for the polling interval.
    asked = around.requests(SEEN_AS[name], since=mark)
    assert [(r.method, r.path) for r in asked] == [
        ("GET", "/api/v1/query")
    ] * 3


def test_more_instances_than_a_request_can_name_are_one_request_still(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    names = tuple(f"m-{number:03}" for number in range(300))
    write(around, {name: counter(now) for name in (*names, "stranger")})
    mark = time.monotonic()
    found, findings = read(cluster(names), name)
    assert findings == ()
    check_readings(found, names)
    asked = around.requests(SEEN_AS[name], since=mark)
    assert len(asked) == 3
    assert all(len(r.query) < 8000 for r in asked)


@pytest.mark.parametrize("scrape_seconds", [15, 30, 60, 120])
def test_how_often_prometheus_scrapes_does_not_matter(
    around: Surroundings, read: Read, now: int, scrape_seconds: int
) -> None:
    write(
        around,
        {name: counter(now) for name in NAMES},
        scrape_seconds=scrape_seconds,
    )
    found, findings = read(cluster())
    assert findings == ()
    check_readings(found)


def test_polls_that_do_not_fill_windows_are_counted_whole(
    around: Surroundings, read: Read, now: int
) -> None:
    write(
        around,
        {name: counter(now, interval=120, samples=20) for name in NAMES},
    )
    with pytest.raises(errors.ConfigurationError) as caught:
        read(cluster())
    assert "ceilometer_cpu changes about every 1" in caught.value.what
    assert caught.value.where.endswith("polling_interval_seconds")
    found, findings = read(cluster(), polling_interval_seconds=120)
    assert findings == ()
    check_readings(found)


def test_polls_that_are_further_apart_than_windows_are_refused(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, interval=600) for name in NAMES})
    with pytest.raises(errors.ConfigurationError, match="every 600 s"):
        read(cluster())
    with pytest.raises(telemetry.NoData, match="polled every 600 s"):
        read(cluster(), polling_interval_seconds=600)


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
    check_readings(found)


# Nothing there, or not enough.


def test_a_missing_metric_is_named_with_its_option(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(
        around,
        {name: counter(now) for name in NAMES},
        metrics=(cloud_prometheus.CPU, None),
    )
    with pytest.raises(telemetry.NoData) as caught:
        read(cluster(), name)
    assert caught.value.what == "there is no metric ceilometer_cpu_steal"
    assert "prometheus_steal_metric" in caught.value.cure


def test_a_metric_that_only_others_have_is_no_missing_metric(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    # The newest sample is one of now, for the metric to be there.
    write(around, {"stranger": counter(now, ends=-2 * WINDOW)})
    with pytest.raises(telemetry.NoData, match="none of 4 instances has"):
        read(cluster(), name)


def test_a_stale_metric_is_told_by_its_age(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(around, {name: counter(now, ends=4 * 3600) for name in NAMES})
    with pytest.raises(
        telemetry.NoData, match=r"newest sample of .* is from 14[0-9]{3} s"
    ):
        read(cluster(), name)


def test_samples_that_are_late_shift_the_windows(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now, ends=WINDOW) for name in NAMES})
    found, findings = read(cluster())
    assert found.ends_at == now // WINDOW * WINDOW - WINDOW
    check_readings(found)
    assert [finding.kind for finding in findings] == ["telemetry_late"]


def test_half_the_instances_without_data_are_named_and_unknown(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(around, {name: counter(now) for name in NAMES[:2]})
    found, findings = read(cluster(), name)
    check_readings(found, NAMES[:2])
    (finding,) = findings
    assert finding.kind == "telemetry_coverage"
    assert "2 of 4 running instances" in finding.text
    with pytest.raises(telemetry.NoData, match="2 of 4 running"):
        read(cluster(), name, minimum_coverage=0.6)


def test_a_counter_that_begins_anew_is_rejected_and_counted(
    around: Surroundings, read: Read, now: int
) -> None:
    before = counter(now)
    fresh = counter(now, samples=2, start=0)
    write(around, {"a-1": [*before[:-2], *fresh], "a-2": before})
    found, findings = read(cluster(("a-1", "a-2")))
    assert found.rejected == {vetting.NEGATIVE: 1}
    row = found.readings[identifier("a-1")]
    assert [reading is None for reading in row] == [False, True, False]
    assert [finding.kind for finding in findings] == ["telemetry_rejected"]


def test_another_host_s_series_does_not_go_on_from_the_first_one_s(
    around: Surroundings, read: Read, now: int
) -> None:
    before = counter(now)
    around.prometheus.write(
        {
            resource("a-1"): before[:-2],
            # Greater than before, so that only its labels tell.
            resource("a-1", host="host-2"): counter(
                now, samples=2, start=2e12
            ),
            resource("a-2"): before,
        }
    )
    found, _findings = read(cluster(("a-1", "a-2")))
    row = found.readings[identifier("a-1")]
    assert row[1] is None
    for reading in row:
        if reading is not None:
            assert reading.usage_cpus == pytest.approx(USAGE)


def test_an_exporter_that_repeats_a_dead_poller_s_value_is_no_idle_guest(
    around: Surroundings, read: Read, now: int
) -> None:
    whole = counter(now)
    last = whole[-4]
    dead = [*whole[:-3], *((t, last[1], last[2]) for t, _, _ in whole[-3:])]
    write(around, {"a-1": dead, "a-2": whole})
    found, _findings = read(cluster(("a-1", "a-2")))
    assert found.readings[identifier("a-1")] == (None,) * 3
    assert found.rejected == {vetting.NO_USAGE: 3}
    around.prometheus.forget()
    write(around, {"a-1": [(t, 10**12, 10**12) for t, _, _ in whole]})
    with pytest.raises(telemetry.NoData, match="stands still"):
        read(cluster(("a-1",)))


def test_a_window_that_is_covered_by_less_than_half_has_no_value(
    around: Surroundings, read: Read, now: int
) -> None:
    end = now // WINDOW * WINDOW
    rows = [
        (t, int(1e12 + t % 86400 * 1e9 * USAGE), int(1e12 + t % 86400 * 1e8))
        for t in range(end - 1800, end + 1, 30)
    ]
    # Scraped as it is read, by an exporter that ends early in a window.
    early = [row for row in rows if row[0] <= end - WINDOW + 120]
    write(around, {"a-1": early, "a-2": rows}, metrics=("cpu_time", None))
    write(around, {"a-1": rows, "a-2": rows}, metrics=(None, "stolen"))
    found, _findings = read(
        cluster(("a-1", "a-2")),
        prometheus_cpu_metric="cpu_time",
        prometheus_steal_metric="stolen",
        polling_interval_seconds=30,
    )
    row = found.readings[identifier("a-1")]
    assert [reading is None for reading in row] == [False, False, True]
    assert all(found.readings[identifier("a-2")])
    assert found.rejected == {vetting.NO_USAGE: 1}


def test_the_wrong_label_is_named_with_those_that_are_there(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(around, {name: counter(now) for name in NAMES}, label="uuid")
    with pytest.raises(telemetry.NoData) as caught:
        read(cluster(), name)
    assert "has no label resource (but project, resource_name, uuid" in (
        caught.value.what
    )
    assert "instance_uuid_label" in caught.value.cure
    found, _findings = read(cluster(), name, label="uuid")
    check_readings(found)


def test_not_a_number_is_no_value(
    around: Surroundings, read: Read, now: int
) -> None:
    rows = counter(now)
    write(around, {"a-2": rows})
    holed = [
        (t, float("nan") if place == len(rows) - 1 else u, s)
        for place, (t, u, s) in enumerate(rows)
    ]
    around.prometheus.write({resource("a-1"): holed})  # type: ignore[dict-item]
    found, _findings = read(cluster(("a-1", "a-2")))
    row = found.readings[identifier("a-1")]
    assert [reading is None for reading in row] == [False, False, True]


# Servers that falter.


def test_a_server_that_fails_for_a_moment_is_asked_again(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject(SEEN_AS[name], status=503, times=2)
    found, _findings = read(cluster(), name)
    check_readings(found)
    around.inject(SEEN_AS[name], drop=True, times=1)
    found, _findings = read(cluster(), name)
    check_readings(found)


@pytest.mark.parametrize(
    ("status", "said"),
    [(503, "HTTP 503"), (401, "401"), (403, "403"), (404, "404")],
)
def test_a_server_that_keeps_refusing_is_named(
    around: Surroundings,
    read: Read,
    now: int,
    name: str,
    status: int,
    said: str,
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject(SEEN_AS[name], status=status, times=None)
    with pytest.raises(errors.ServiceError) as caught:
        read(cluster(), name, seconds=2)
    assert said in caught.value.what
    assert "/api/v1/query" in caught.value.where
    assert caught.value.cure


def test_a_server_that_hangs_does_not_take_the_audit_along(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject(cloud_prometheus.DIRECT, delay_seconds=3, times=None)
    with pytest.raises(errors.ServiceError):
        read(cluster(), seconds=2)
    around.clear_faults()
    # Each request has its own limit.
    around.inject(cloud_prometheus.DIRECT, delay_seconds=3, times=1)
    found, _findings = read(cluster(), timeout_seconds=1)
    check_readings(found)


def test_a_restart_during_the_read_is_waited_for(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.prometheus.halt()
    resume = threading.Timer(0.2, around.prometheus.resume)
    resume.start()
    try:
        found, _findings = read(cluster(), port=around.prometheus.server_port)
    finally:
        resume.join()
    check_readings(found)


@pytest.mark.parametrize(
    ("name", "said"), [(DIRECT, "unreachable"), (AETOS, "refused")]
)
def test_a_server_that_is_gone_is_named(
    around: Surroundings, read: Read, now: int, name: str, said: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.prometheus.halt()
    try:
        with pytest.raises(errors.ServiceError, match=said) as caught:
            read(
                cluster(),
                name,
                port=around.prometheus.server_port,
                seconds=2,
            )
    finally:
        around.prometheus.resume()
    assert "/api/v1/query" in caught.value.where


def test_tls_and_a_password_are_those_of_watcher_s_own_helper(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.prometheus.halt()
    around.prometheus.resume(secure=True)
    trusted = {"cafile": str(around.prometheus.certificate)}
    credentials = {"username": "watcher", "password": keystone.PASSWORD}
    port = around.prometheus.server_port
    try:
        found, _findings = read(
            cluster(), port=port, client={**trusted, **credentials}
        )
        check_readings(found)
        for client, said, cured in (
            (trusted, "credentials are refused", "username"),
            ({**trusted, **credentials, "password": "x"}, "401", "password"),
            # It may say so, or reset the connection.
            (credentials, "HTTPS server|unreachable", "cafile"),
        ):
            with pytest.raises(errors.ServiceError, match=said) as caught:
                read(cluster(), port=port, client=client)
            assert cured in caught.value.cure
            assert "[prometheus_client]" in caught.value.cure
    finally:
        around.prometheus.halt()
        around.prometheus.resume()


def answer(**fields: Any) -> str:
    """A document of Prometheus."""
    return json.dumps(
        {
            "status": "success",
            "data": {"resultType": "matrix", "result": []},
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html>", "no JSON document"),
        ("null", "no JSON document"),
        ("[]", "no JSON"),
        ("{}", "no JSON"),
        ('{"status": "error", "error": "out of order"}', "out of order"),
        (answer(data=None), "no matrix"),
        (answer(data={"resultType": "matrix"}), "no list of series"),
        (
            answer(data={"resultType": "matrix", "result": [1]}),
            "a series is not of its form",
        ),
        (answer(warnings=["store b is down"]), "partial: store b is down"),
    ],
)
def test_an_answer_that_is_not_prometheus_s_is_no_data(
    around: Surroundings, read: Read, now: int, body: str, said: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject(cloud_prometheus.DIRECT, status=200, body=body, times=1)
    with pytest.raises(errors.ServiceError, match=said) as caught:
        read(cluster())
    assert "/api/v1/query" in caught.value.where


def test_remarks_on_a_query_do_not_make_it_partial(
    around: Surroundings, read: Read, now: int
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    around.inject(
        cloud_prometheus.DIRECT,
        status=200,
        times=1,
        body=answer(
            warnings=["PromQL info: metric might not be a counter"],
            data={
                "resultType": "matrix",
                "result": [
                    {
                        "metric": {"resource": identifier("a-1")},
                        "values": [
                            [now // WINDOW * WINDOW - WINDOW * back, "5e8"]
                            for back in range(6)
                        ],
                    }
                ],
            },
        ),
    )
    found, _findings = read(cluster(("a-1",)))
    check_readings(found, ("a-1",))


def test_an_empty_answer_is_no_zero(
    around: Surroundings, read: Read, now: int, name: str
) -> None:
    around.prometheus.resume()
    with pytest.raises(telemetry.NoData, match="there is no metric"):
        read(cluster(), name)
    # One sample makes no rate.
    write(around, {name: counter(now, samples=1) for name in NAMES})
    with pytest.raises(telemetry.NoData):
        read(cluster(), name)


# Whom Aetos answers.


@pytest.mark.parametrize("user", ["watcher", "admin"])
def test_an_admin_or_a_service_sees_every_project(
    around: Surroundings, read: Read, now: int, user: str
) -> None:
    write(around, {name: counter(now) for name in NAMES})
    found, findings = read(cluster(), AETOS, user=user)
    assert findings == ()
    check_readings(found)


@pytest.mark.parametrize("user", ["reader", "member"])
@pytest.mark.parametrize("there", [True, False])
def test_missing_permission_does_not_look_like_missing_data(
    around: Surroundings, read: Read, now: int, user: str, there: bool
) -> None:
    around.prometheus.resume()
    if there:
        write(around, {name: counter(now) for name in NAMES})
    with pytest.raises(service.Forbidden) as caught:
        read(cluster(), AETOS, user=user)
    assert "its own project alone" in caught.value.what
    assert "telemetry:query:all_projects" in caught.value.cure


def test_who_sees_some_instances_is_told_about_the_others(
    around: Surroundings, read: Read, now: int
) -> None:
    own = keystone.identifier("project", "demo")
    around.prometheus.write(
        {
            resource(name, own if name != "a-4" else "tenant"): counter(now)
            for name in NAMES
        }
    )
    found, findings = read(cluster(), AETOS, user="member")
    check_readings(found, NAMES[:3])
    assert [finding.kind for finding in findings] == [
        "telemetry_restricted",
        "telemetry_coverage",
    ]


def test_a_cloud_without_either_is_told_so(
    around: Surroundings, read: Read
) -> None:
    around.prometheus.leave()
    with pytest.raises(telemetry.NotDeployed, match="no metric-storage"):
        read(cluster(), AETOS)
    with pytest.raises(telemetry.NotDeployed) as caught:
        read(cluster(), port=0)
    assert caught.value.where == "[prometheus_client] host"


# Other exporters, other queries.


def exported(
    now: int,
    names: tuple[str, ...],
    units: tuple[float, float] = (1.0, 1.0),
) -> Iterator[cloud_prometheus.Series]:
    """A libvirt exporter: domains, two vCPUs each, uuids apart from them."""
    end = now // WINDOW * WINDOW
    times = range(end - 2400, end + 1, 30)
    for number, name in enumerate(names):
        domain = {"domain": f"instance-{number:08}", "instance": "host-1:9177"}
        yield cloud_prometheus.Series(
            metric="libvirt_domain_info_meta",
            labels={**domain, "uuid": identifier(name)},
            samples=tuple((t, 1.0) for t in times),
        )
        for metric, rate in (
            ("libvirt_domain_vcpu_time_seconds_total", units[0] * USAGE),
            ("libvirt_domain_vcpu_delay_seconds_total", units[1] * STEAL),
        ):
            for vcpu in ("0", "1"):
                yield cloud_prometheus.Series(
                    metric=metric,
                    labels={**domain, "vcpu": vcpu},
                    samples=tuple(
                        (t, rate * (t - end + 90000)) for t in times
                    ),
                )


@pytest.fixture
def documented(tmp_path: pathlib.Path) -> pathlib.Path:
    """The documentation's configuration for such an exporter."""
    page = pathlib.Path(__file__).parents[2] / "doc/source/datasources.rst"
    (block,) = re.findall(
        r"``libvirt_domain_info_meta``.*?code-block:: ini\n\n(.*?)\n\S",
        page.read_text(),
        re.DOTALL,
    )
    path = tmp_path / "watcher.conf"
    path.write_text(textwrap.dedent(block))
    return path


def test_a_libvirt_exporter_is_read_through_a_join(
    around: Surroundings,
    read: Read,
    now: int,
    name: str,
    documented: pathlib.Path,
) -> None:
    around.prometheus.write_series(exported(now, NAMES))
    found, findings = read(
        cluster(vcpus=2), name, label="uuid", file=documented
    )
    assert findings == ()
    check_readings(found, times=2)


def test_nanoseconds_that_are_called_seconds_are_noticed(
    around: Surroundings, read: Read, now: int, documented: pathlib.Path
) -> None:
    around.prometheus.write_series(exported(now, NAMES, units=(1.0, 1e9)))
    options = {"label": "uuid", "file": documented}
    with pytest.raises(errors.ConfigurationError) as caught:
        read(cluster(vcpus=2), **options)
    assert "libvirt_domain_vcpu_delay_seconds_total" in caught.value.what
    assert caught.value.where == "[cputier_telemetry] steal_unit"
    assert caught.value.cure == "Set it to ns"
    found, _findings = read(cluster(vcpus=2), steal_unit="ns", **options)
    check_readings(found, times=2)


def test_gauges_are_read_as_means(
    around: Surroundings, read: Read, now: int
) -> None:
    end = now // WINDOW * WINDOW
    around.prometheus.write_series(
        cloud_prometheus.Series(
            metric=metric,
            labels={"resource": identifier(name), "vcpu": vcpu},
            samples=tuple(
                # Up and down, the same on average.
                (t, value * (1 + (-1) ** (t // 30) / 4))
                for t in range(end - 2400, end + 1, 30)
            ),
        )
        for name in NAMES
        for vcpu in ("0", "1")
        for metric, value in (("used_percent", 50.0), ("stolen", 0.25))
    )
    found, findings = read(
        cluster(vcpus=2),
        prometheus_cpu_metric="used_percent",
        cpu_unit="percent",
        prometheus_steal_metric="stolen",
        steal_unit="fraction",
    )
    assert findings == ()
    for row in found.readings.values():
        for reading in row:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(1.0, rel=0.06)
            assert reading.steal_cpus == pytest.approx(0.5, rel=0.06)


@pytest.mark.parametrize(
    ("query", "kind", "said"),
    [
        ("sum by (<label>) (rate(<metric>)", errors.ServiceError, "HTTP 400"),
        (
            "<series> / on () <series>",
            errors.ServiceError,
            "HTTP 422: .*many-to-many",
        ),
        ("<series> + <bogus>", errors.ConfigurationError, "<bogus> means"),
        ("sum(up)", errors.ConfigurationError, "neither <metric> nor"),
        (
            "rate(<series>[<window>])",
            errors.ConfigurationError,
            "finds instance .* twice",
        ),
        (
            "sum(rate(<series>[<window>]))",
            telemetry.NoData,
            "nothing with the label resource",
        ),
    ],
)
def test_a_query_that_makes_no_sense_names_its_option(
    around: Surroundings,
    read: Read,
    now: int,
    name: str,
    query: str,
    kind: type[errors.TierError],
    said: str,
) -> None:
    rows = counter(now)
    around.prometheus.write(
        {resource("a-1"): rows, resource("a-1", host="host-2"): rows}
    )
    with pytest.raises(kind, match=said) as caught:
        read(cluster(("a-1",)), name, prometheus_cpu_query=query)
    assert "prometheus_cpu_query" in str(caught.value)


def test_a_name_that_is_no_metric_is_refused(read: Read) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        read(cluster(), prometheus_cpu_metric="cpu.steal")
    assert caught.value.where == "[cputier_telemetry] prometheus_cpu_metric"
