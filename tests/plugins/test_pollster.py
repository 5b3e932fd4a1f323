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

"""The meter of steal in the real Ceilometer, on a hypervisor on record.

A compute agent finds the pollster by its entry point, polls as the sample
``polling.yaml`` says, and what it sends goes through the sample
``pipeline.yaml`` to Ceilometer's own publisher for Gnocchi.
"""

import configparser
import logging
import pathlib
import subprocess
import sys
import types
from typing import Any

from ceilometer import gnocchi_client
from ceilometer import keystone_client
from ceilometer import publisher as publishers
from ceilometer.compute.virt import inspector as virt_inspector
from ceilometer.polling import plugin_base
from ceilometer.polling import prom_exporter
from ceilometer.publisher import gnocchi as gnocchi_publisher
import pytest
import tenacity
import yaml

from tests import ceilometer_agent
from tests.plugins import recorded_libvirt
from watcher_cputier.conf import telemetry
from watcher_cputier.pollsters import steal

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"
TWO_VCPUS = recorded_libvirt.TWO_VCPUS
A_GAP = recorded_libvirt.A_GAP
SHUT_OFF = recorded_libvirt.SHUT_OFF
DEFINITIONS = "gnocchi_resources_cputier.yaml"
DEFAULTS = {option.dest: option.default for option in telemetry.OPTIONS}


def without(stats: dict[str, int], *fields: str) -> dict[str, int]:
    return {k: v for k, v in stats.items() if not k.endswith(fields)}


# Adding up.


@pytest.mark.parametrize(
    ("stats", "steal_time", "cpu_number"),
    [
        (TWO_VCPUS, 3473491135 + 3451087486, 2),
        (A_GAP, 2997092039 + 2936588698, 2),
        # A vCPU that was idle all the time may never have waited.
        (
            TWO_VCPUS
            | {"vcpu.1.delay": 0, "vcpu.1.time": 0, "vcpu.0.time": 10**12},
            3473491135,
            2,
        ),
    ],
)
def test_steal_is_added_up(stats, steal_time, cpu_number):
    assert steal.add_up(stats) == steal.Steal(
        steal_time=steal_time, cpu_number=cpu_number
    )


@pytest.mark.parametrize(
    ("stats", "missing"),
    [
        (without(TWO_VCPUS, ".delay"), steal.NOT_TOLD),
        # The sum of one vCPU would look like a fall of the counter.
        (without(TWO_VCPUS, ".1.delay"), steal.PASSING),
        (without(TWO_VCPUS, ".1.delay", ".1.time"), steal.PASSING),
        # libvirt says 0 where the kernel says nothing.
        (
            TWO_VCPUS
            | {"vcpu.0.delay": 0, "vcpu.1.delay": 0, "vcpu.0.time": 10**10},
            steal.NOT_COUNTED,
        ),
        # After two seconds that is too early to say, but no number either.
        (TWO_VCPUS | {"vcpu.0.delay": 0, "vcpu.1.delay": 0}, steal.PASSING),
        (SHUT_OFF, steal.PASSING),
        ({}, steal.PASSING),
    ],
)
def test_missing_is_never_zero(stats, missing):
    assert steal.add_up(stats) is missing


# The compute agent.


@pytest.fixture
def connection() -> recorded_libvirt.Connection:
    return recorded_libvirt.Connection()


@pytest.fixture
def etc(tmp_path) -> pathlib.Path:
    """/etc/ceilometer."""
    return tmp_path / "ceilometer"


@pytest.fixture
def start(monkeypatch, etc, connection):
    """``start(DOMAIN, ...)`` starts the agent of a host with these guests."""

    def start_agent(
        *domains: recorded_libvirt.Domain, **options: Any
    ) -> ceilometer_agent.ComputeAgent:
        recorded_libvirt.install(monkeypatch, connection)
        connection.domains = list(domains)
        conf = ceilometer_agent.configure(etc, host="compute-1", **options)
        return ceilometer_agent.ComputeAgent(conf)

    return start_agent


def polled(agent: ceilometer_agent.ComputeAgent) -> dict[str, dict[str, int]]:
    """{meter: {instance: volume}} of one poll."""
    meters: dict[str, dict[str, int]] = {}
    for sample in ceilometer_agent.samples(agent.poll()):
        volumes = meters.setdefault(sample["counter_name"], {})
        volumes[sample["resource_id"]] = sample["counter_volume"]
    return meters


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was complained of, by the pollster and about it."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno > logging.INFO
        and any(word in record.getMessage() for word in ("cpu.steal", "Steal"))
    ]


def test_sample(start):
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    sample = next(
        s
        for s in ceilometer_agent.samples(agent.poll())
        if s["counter_name"] == "cpu.steal"
    )
    assert sample["counter_type"] == "cumulative"
    assert sample["counter_unit"] == "ns"
    assert sample["counter_volume"] == 3473491135 + 3451087486
    assert sample["resource_id"] == ONE
    assert sample["project_id"] == "project"
    assert sample["resource_metadata"]["cpu_number"] == 2


def test_polled_with_cpu(start):
    agent = start(
        recorded_libvirt.Domain(ONE, TWO_VCPUS),
        recorded_libvirt.Domain(TWO, A_GAP),
    )
    meters = polled(agent)
    assert set(meters) == {"cpu", "cpu.steal"}
    assert set(meters["cpu"]) == set(meters["cpu.steal"]) == {ONE, TWO}


def test_asks_for_little_and_does_not_wait(start, connection):
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    agent.poll()
    libvirt = recorded_libvirt.LIBVIRT
    assert connection.questions == [
        (
            libvirt.VIR_DOMAIN_STATS_VCPU,
            libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
        )
    ]


def test_counter_follows_vcpus(start):
    guest = recorded_libvirt.Domain(ONE, A_GAP)
    agent = start(guest)
    before = polled(agent)["cpu.steal"][ONE]
    plugged = {
        "vcpu.1.state": 1,
        "vcpu.1.time": 10,
        "vcpu.1.wait": 0,
        "vcpu.1.delay": 7,
        "vcpu.current": 3,
    }
    guest.stats = A_GAP | plugged
    assert polled(agent)["cpu.steal"][ONE] == before + 7
    guest.stats = without(A_GAP, ".2.state", ".2.time", ".2.wait", ".2.delay")
    guest.stats |= {"vcpu.current": 1}
    assert polled(agent)["cpu.steal"][ONE] == A_GAP["vcpu.0.delay"]


def test_old_libvirt(start, connection, caplog):
    connection.version = 7_000_000
    old = without(TWO_VCPUS, ".delay")
    agent = start(
        recorded_libvirt.Domain(ONE, old), recorded_libvirt.Domain(TWO, old)
    )
    for _ in range(2):
        assert set(polled(agent)) == {"cpu"}
    (warning,) = warnings(caplog)
    assert "from 7.2.0 on" in warning
    assert "this is libvirt 7.0.0 with the driver QEMU" in warning


def test_kernel_that_does_not_count(start, caplog):
    silent = {
        field: 10**12 if field.endswith("time") else value
        for field, value in TWO_VCPUS.items()
    } | {"vcpu.0.delay": 0, "vcpu.1.delay": 0}
    agent = start(recorded_libvirt.Domain(ONE, silent))
    for _ in range(2):
        assert set(polled(agent)) == {"cpu"}
    (warning,) = warnings(caplog)
    assert "CONFIG_SCHED_INFO" in warning


def test_guest_that_is_starting(start, caplog):
    starting = {k: v for k, v in TWO_VCPUS.items() if k.count(".") == 1}
    agent = start(
        recorded_libvirt.Domain(ONE, starting),
        recorded_libvirt.Domain(TWO, TWO_VCPUS),
    )
    assert set(polled(agent)["cpu.steal"]) == {TWO}
    assert not warnings(caplog)


@pytest.mark.parametrize("moment", ["gone", "going"])
def test_guest_that_goes(start, connection, caplog, moment):
    agent = start(
        recorded_libvirt.Domain(ONE, TWO_VCPUS),
        recorded_libvirt.Domain(TWO, TWO_VCPUS),
    )
    getattr(connection, moment).add(ONE)
    assert set(polled(agent)["cpu.steal"]) == {TWO}
    assert not warnings(caplog)


@pytest.mark.parametrize("report_stopped", [False, True])
def test_guest_that_is_off(start, caplog, report_stopped):
    agent = start(
        recorded_libvirt.Domain(ONE, SHUT_OFF),
        recorded_libvirt.Domain(TWO, TWO_VCPUS),
        compute__report_stopped_instance_metrics=report_stopped,
    )
    assert set(polled(agent)["cpu.steal"]) == {TWO}
    assert not warnings(caplog)


@pytest.mark.parametrize("question", ["who", "what"])
def test_libvirt_fails(start, connection, caplog, question):
    first = recorded_libvirt.Domain(ONE, TWO_VCPUS)
    agent = start(first, recorded_libvirt.Domain(TWO, TWO_VCPUS))
    # The pollsters of a source are polled in any order: this one alone.
    pollster = agent.pollsters["cpu.steal"]
    guests = agent.manager.discover(["local_instances"])
    if question == "who":
        connection.error = recorded_libvirt.failed()
    else:
        first.errors = [recorded_libvirt.failed()]
    found = list(pollster.get_samples(agent.manager, {}, guests))
    assert [sample.resource_id for sample in found] == [TWO]
    (warning,) = warnings(caplog)
    assert "does not tell the vCPUs of %s" % ONE in warning
    assert set(polled(agent)["cpu.steal"]) == {ONE, TWO}


def test_daemon_restarts(start, connection, monkeypatch):
    slept: list[float] = []
    monkeypatch.setattr(tenacity.nap.time, "sleep", slept.append)
    guest = recorded_libvirt.Domain(ONE, TWO_VCPUS)
    agent = start(guest)
    agent.poll()
    opened = connection.opened
    guest.errors = [recorded_libvirt.disconnected()]
    pollster = agent.pollsters["cpu.steal"]
    guests = agent.manager.discover(["local_instances"])
    # The daemon is not back at once.
    connection.refusals = 1
    (sample,) = pollster.get_samples(agent.manager, {}, guests)
    assert sample.resource_id == ONE
    assert len(slept) == 2
    assert connection.opened == opened + 1


def test_no_libvirt(monkeypatch, etc, caplog):
    """Without python3-libvirt Ceilometer finds no guests; nothing breaks."""
    recorded_libvirt.install(monkeypatch, None)
    agent = ceilometer_agent.ComputeAgent(ceilometer_agent.configure(etc))
    assert not agent.poll()
    pollster = agent.pollsters["cpu.steal"]
    guest = types.SimpleNamespace(id=ONE)
    for _ in range(2):
        with pytest.raises(plugin_base.PollsterPermanentError):
            list(pollster.get_samples(agent.manager, {}, [guest]))
    (warning,) = warnings(caplog)
    assert "python3-libvirt is not installed" in warning


def test_other_inspector(start, caplog):
    class Other(virt_inspector.Inspector):
        """An inspector of another hypervisor."""

    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    pollster = agent.pollsters["cpu.steal"]
    pollster.inspector = steal.StealInspector(Other(agent.manager.conf))
    assert "cpu.steal" not in polled(agent)
    ours, ceilometers = warnings(caplog)
    assert "Ceilometer's inspector is Other" in ours
    assert "Prevent pollster cpu.steal from polling" in ceilometers


def test_prometheus_exporter(start):
    """Where the agent is scraped itself, the defaults of ours fit."""
    agent = start(
        recorded_libvirt.Domain(ONE, TWO_VCPUS),
        polling__enable_notifications=False,
        polling__enable_prometheus_exporter=True,
        polling__prometheus_listen_addresses=[],
    )
    agent.poll()
    value = {
        (sample.name, sample.labels["resource"]): sample.value
        for family in prom_exporter.CEILOMETER_REGISTRY.collect()
        for sample in family.samples
    }
    name = DEFAULTS["prometheus_steal_metric"]
    assert value[name, ONE] == 3473491135 + 3451087486
    assert (DEFAULTS["prometheus_cpu_metric"], ONE) in value


def test_compute_hosts_need_nothing_of_watcher():
    """``pip install --no-deps`` suffices beside Ceilometer."""
    code = (
        "import sys, watcher_cputier.pollsters.steal; "
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    assert not {"watcher", "numpy", "taskflow", "nova"} & set(loaded)


# Samples of configuration.


def test_samples_are_packaged():
    parser = configparser.ConfigParser(delimiters=("=",))
    parser.read(ceilometer_agent.PROJECT / "setup.cfg")
    lines = parser["files"]["data_files"].strip().splitlines()
    patterns = dict(line.split(" = ") for line in lines)
    pattern = patterns["share/watcher-cputier/ceilometer"]
    packaged = set(ceilometer_agent.PROJECT.glob(pattern))
    assert packaged == set(ceilometer_agent.SAMPLES.iterdir())


def test_polling_yaml(start):
    agent = start()
    (source,) = agent.manager.polling_manager.sources
    assert source.get_interval() == DEFAULTS["polling_interval_seconds"]
    assert source.support_meter(DEFAULTS["cpu_metric"])
    assert source.support_meter(DEFAULTS["steal_metric"])


class Recorder:
    """A client of Gnocchi that accepts and keeps everything."""

    def __init__(self) -> None:
        self.policies: dict[str, dict[str, Any]] = {}
        self.measures: dict[str, dict[str, Any]] = {}
        self.resources: dict[str, dict[str, Any]] = {}
        self.archive_policy = types.SimpleNamespace(create=self._make_policy)
        self.metric = types.SimpleNamespace(
            batch_resources_metrics_measures=self._write
        )
        self.resource = types.SimpleNamespace(update=self._update)

    def _make_policy(self, policy):
        # As Gnocchi: there is one of each name.
        assert self.policies.setdefault(policy["name"], policy) == policy

    def _write(self, measures, create_metrics):
        assert create_metrics
        for uuid, metrics in measures.items():
            self.measures.setdefault(uuid, {}).update(metrics)

    def _update(self, resource_type, uuid, attributes):
        assert resource_type == "instance"
        self.resources.setdefault(uuid, {}).update(attributes)


class Projects:
    """Keystone: the project whose own samples are left out is another one."""

    def find_domain(self, **filters):
        return types.SimpleNamespace(id="default")

    def find_project(self, **filters):
        return types.SimpleNamespace(id="project of the services")


@pytest.fixture
def gnocchi(monkeypatch) -> Recorder:
    recorder = Recorder()
    monkeypatch.setattr(
        gnocchi_client, "get_gnocchiclient", lambda *a, **k: recorder
    )
    monkeypatch.setattr(
        keystone_client, "get_client", lambda *a, **k: Projects()
    )
    return recorder


def test_chain(start, gnocchi, caplog):
    """From the hypervisor to Gnocchi, by the samples of configuration."""
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    notification_agent = ceilometer_agent.NotificationAgent(agent.manager.conf)
    notification_agent.take(agent.poll())
    metrics = gnocchi.measures[ONE]
    assert set(metrics) == {"cpu", "cpu.steal"}
    assert metrics["cpu.steal"]["archive_policy_name"] == "ceilometer-low-rate"
    assert metrics["cpu"]["archive_policy_name"] == "ceilometer-low-rate"
    assert metrics["cpu.steal"]["unit"] == "ns"
    (measure,) = metrics["cpu.steal"]["measures"]
    assert measure["value"] == 3473491135 + 3451087486
    policy = gnocchi.policies["ceilometer-low-rate"]
    assert DEFAULTS["aggregation"] in policy["aggregation_methods"]
    assert gnocchi.resources[ONE]["host"] == "compute-1"
    assert "not handled" not in caplog.text


def publisher(
    agent: ceilometer_agent.ComputeAgent, url: str
) -> gnocchi_publisher.GnocchiPublisher:
    return publishers.get_publisher(
        agent.manager.conf, url, "ceilometer.sample.publisher"
    )


def read(agent: ceilometer_agent.ComputeAgent) -> list[Any]:
    """One poll, as a notification agent reads it from the bus."""
    endpoint = ceilometer_agent.notifications.TelemetryIpc(
        agent.manager.conf, None
    )
    return [s for m in agent.poll() for s in endpoint.build_sample(m)]


def test_without_definitions_samples_are_dropped(start, gnocchi, caplog):
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    publisher(agent, "gnocchi://").publish_samples(read(agent))
    assert set(gnocchi.measures[ONE]) == {"cpu"}
    assert "metric cpu.steal is not handled by Gnocchi" in caplog.text


def test_definitions_of_the_deployment_may_have_it(start, gnocchi, etc):
    """The other way: the lines go into the deployment's own definitions."""
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    packaged = yaml.safe_load(
        pathlib.Path(gnocchi_publisher.__file__)
        .with_name("data")
        .joinpath("gnocchi_resources.yaml")
        .read_text()
    )
    (ours,) = yaml.safe_load((etc / DEFINITIONS).read_text())["resources"]
    (instance,) = (
        resource
        for resource in packaged["resources"]
        if resource["resource_type"] == "instance"
    )
    instance["metrics"] |= ours["metrics"]
    (etc / "gnocchi_resources.yaml").write_text(yaml.safe_dump(packaged))
    publisher(agent, "gnocchi://").publish_samples(read(agent))
    steal_metric = gnocchi.measures[ONE]["cpu.steal"]
    assert steal_metric["archive_policy_name"] == "ceilometer-low-rate"


def test_definitions_agree_with_ceilometers_own(start, gnocchi):
    """Two publishers write the same attributes, or they would take turns."""
    agent = start(recorded_libvirt.Domain(ONE, TWO_VCPUS))
    theirs = publisher(agent, "gnocchi://")
    ours = publisher(
        agent, "gnocchi://?resources_definition_file=%s" % DEFINITIONS
    )
    (sample, _) = read(agent)
    written = ours.metric_map["cpu.steal"].sample_attributes(sample)
    assert written.items() <= (
        theirs.metric_map["cpu"].sample_attributes(sample).items()
    )
    required = {
        name
        for name, attribute in gnocchi_client.resources_initial[
            "instance"
        ].items()
        if attribute["required"]
    }
    assert required <= set(written)
    policies = {p["name"]: p for p in theirs.archive_policies_definition}
    for policy in ours.archive_policies_definition:
        assert policy == policies[policy["name"]]
