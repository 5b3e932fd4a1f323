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

"""From the hypervisor to the reading: Ceilometer publishes, Gnocchi keeps.

A hypervisor on record, whose guests' counters the test moves on; Ceilometer's
compute and notification agents with the sample configuration; a real Gnocchi,
which knows instances as ``ceilometer-upgrade`` has it::

    one   two vCPUs, .5 CPUs used and .25 CPUs of steal
    two   two of three vCPUs, 1.5 CPUs used and no steal
"""

from collections.abc import Iterator
import datetime
import logging
import pathlib
import time
from typing import Any

from ceilometer import gnocchi_client
from ceilometer import keystone_client
import pytest

from tests import builders
from tests import ceilometer_agent
from tests.cloud import gnocchi as cloud_gnocchi
from tests.cloud import surroundings as cloud_surroundings
from tests.functional import test_gnocchi
from tests.plugins import recorded_libvirt
from tests.plugins import test_pollster
from watcher_cputier import parameters
from watcher_cputier.datasources import telemetry

WINDOW = 300
ONE = test_pollster.ONE
TWO = test_pollster.TWO
LOADS = {ONE: (0.5, 0.25), TWO: (1.5, 0.0)}

Surroundings = cloud_surroundings.Surroundings


@pytest.fixture(scope="module")
def around() -> Iterator[Surroundings]:
    with Surroundings() as running:
        running.gnocchi.start()
        require_attributes(running)
        yield running


def require_attributes(around: Surroundings) -> None:
    """Of an instance Gnocchi demands what ceilometer-upgrade makes it."""
    path = "/v1/resource_type/%s" % cloud_gnocchi.RESOURCE_TYPE
    adapter = around.gnocchi.adapter
    known = adapter.get(path).json()["attributes"]
    flavor_name = {"type": "string", "max_length": 255, "required": True}
    wanted = gnocchi_client.resources_initial["instance"] | {
        "flavor_name": flavor_name
    }
    adapter.patch(
        path,
        json=[
            operation
            for name, attribute in wanted.items()
            for operation in (
                {"op": "remove", "path": "/attributes/%s" % name},
                {
                    "op": "add",
                    "path": "/attributes/%s" % name,
                    "value": attribute | {"options": {"fill": ""}},
                },
            )
            if operation["op"] == "add" or name in known
        ],
        headers={"Content-Type": "application/json-patch+json"},
    )


@pytest.fixture
def etc(around: Surroundings, tmp_path: pathlib.Path) -> pathlib.Path:
    """/etc/ceilometer, with the credentials of Ceilometer's user."""
    auth = around.auth(cloud_gnocchi.WRITER)
    lines = ["auth_type = password", "region_name = RegionOne"]
    lines += ["%s = %s" % option for option in auth.items()]
    (tmp_path / "ceilometer.conf").write_text(
        "[service_credentials]\n%s\n" % "\n".join(lines)
    )
    return tmp_path


def grown(stats: dict[str, int], load: tuple[float, float]) -> dict[str, int]:
    """What libvirt says one window later."""
    used, waited = (int(cpus * WINDOW * 1e9) for cpus in load)
    vcpus = stats["vcpu.current"]
    return {
        field: value
        + used // vcpus * field.endswith(".time")
        + waited // vcpus * field.endswith(".delay")
        for field, value in stats.items()
    }


def dated(messages: list[dict[str, Any]], when: int) -> list[dict[str, Any]]:
    """The messages, as if they had been polled then."""
    stamp = datetime.datetime.fromtimestamp(when, datetime.UTC)
    for sample in ceilometer_agent.samples(messages):
        sample["timestamp"] = stamp.replace(tzinfo=None).isoformat()
    return messages


def test_what_is_published_is_read(
    around: Surroundings,
    etc: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    connection = recorded_libvirt.Connection()
    recorded_libvirt.install(monkeypatch, connection)
    one = recorded_libvirt.Domain(ONE, recorded_libvirt.TWO_VCPUS)
    two = recorded_libvirt.Domain(TWO, recorded_libvirt.A_GAP)
    connection.domains = [one, two]
    # The stub Keystone knows no projects; samples of one are left out.
    monkeypatch.setattr(
        keystone_client, "get_client", lambda *a, **k: test_pollster.Projects()
    )
    conf = ceilometer_agent.configure(etc, host="compute-1")
    compute = ceilometer_agent.ComputeAgent(conf)
    notification = ceilometer_agent.NotificationAgent(conf)

    now = int(time.time()) // WINDOW * WINDOW - WINDOW // 2
    last = now // WINDOW * WINDOW - 10
    for back in reversed(range(6)):
        notification.take(dated(compute.poll(), last - back * WINDOW))
        for guest in (one, two):
            guest.stats = grown(guest.stats, LOADS[guest.uuid])
    around.gnocchi.wait_processed()
    assert "not handled" not in caplog.text
    assert not [
        record
        for record in caplog.records
        if record.name.startswith("ceilometer")
        and record.levelno >= logging.ERROR
    ]

    resources = around.gnocchi.adapter.get("/v1/resource/instance").json()
    hosts = {r["id"]: (r["host"], r["flavor_id"]) for r in resources}
    assert hosts == {
        ONE: ("compute-1", "flavor-2"),
        TWO: ("compute-1", "flavor-3"),
    }
    reader = telemetry.Reader(
        test_gnocchi.configuration(), around.connection(), None
    )
    cluster = builders.cluster(
        [builders.host("compute-1")],
        [
            builders.instance("one", "compute-1", 2, uuid=ONE),
            builders.instance("two", "compute-1", 2, uuid=TWO),
        ],
    )
    found, findings = reader.get_telemetry(
        cluster, parameters.Parameters.of(None), now
    )
    assert findings == ()
    assert set(found.readings) == {ONE, TWO}
    for uuid, readings in found.readings.items():
        usage, steal = LOADS[uuid]
        for reading in readings:
            assert reading is not None
            assert reading.usage_cpus == pytest.approx(usage)
            assert reading.steal_cpus == pytest.approx(steal)
