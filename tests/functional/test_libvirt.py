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

"""The meter of steal, on a real hypervisor: libvirt's word is the kernel's.

A private libvirtd runs guests whose vCPUs are all busy on one CPU, so that
they steal from each other; Ceilometer's own compute agent polls them over its
own connection to libvirt. What is published has to lie between two looks at
``/proc/<pid>/task/<tid>/schedstat``.

Needs libvirtd, qemu-system-x86_64 and the Python module libvirt. On Debian and
Ubuntu: apt install libvirt-daemon libvirt-daemon-driver-qemu qemu-system-x86
libvirt-dev gcc pkg-config, then pip install libvirt-python.
"""

from collections.abc import Iterator
import pathlib

import pytest

from tests import ceilometer_agent
from tests.cloud import hypervisor as hypervisor_module

ABSENT = hypervisor_module.why_not()
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=ABSENT)

ONE = "11111111-1111-4111-8111-111111111111"
TWO = "22222222-2222-4222-8222-222222222222"


@pytest.fixture(scope="module")
def host() -> Iterator[hypervisor_module.Hypervisor]:
    with hypervisor_module.Hypervisor() as running:
        yield running


@pytest.fixture
def hypervisor(
    host: hypervisor_module.Hypervisor,
) -> Iterator[hypervisor_module.Hypervisor]:
    yield host
    host.clear()


@pytest.fixture
def agent(
    hypervisor: hypervisor_module.Hypervisor, tmp_path: pathlib.Path
) -> ceilometer_agent.ComputeAgent:
    conf = ceilometer_agent.configure(
        tmp_path, libvirt_uri=hypervisor.uri, host="compute-1"
    )
    return ceilometer_agent.ComputeAgent(conf)


def poll(agent: ceilometer_agent.ComputeAgent) -> dict[str, int]:
    """{instance: its steal} of one poll."""
    return {
        sample["resource_id"]: sample["counter_volume"]
        for sample in ceilometer_agent.samples(agent.poll())
        if sample["counter_name"] == "cpu.steal"
    }


def test_steal_is_the_kernels(hypervisor, agent):
    guest = hypervisor.boot(ONE, vcpus=2)
    rival = hypervisor.boot(TWO)
    hypervisor.wait_for_steal(guest, rival)
    before = [hypervisor.schedstat(g) for g in (guest, rival)]
    steal = poll(agent)
    after = [hypervisor.schedstat(g) for g in (guest, rival)]
    assert [set(waited) for waited in before] == [{0, 1}, {0}]
    assert set(steal) == {ONE, TWO}
    for uuid, earlier, later in zip((ONE, TWO), before, after, strict=True):
        assert sum(earlier.values()) <= steal[uuid] <= sum(later.values())


def test_vcpus_are_plugged_in(hypervisor, agent):
    """The numbers of the vCPUs have a gap, and then it is filled."""
    guest = hypervisor.boot(ONE, vcpus=3, offline=(1,))
    hypervisor.wait_for_steal(guest)
    for online in ({0, 2}, {0, 1, 2}):
        guest.setVcpus(len(online))
        before = hypervisor.schedstat(guest)
        steal = poll(agent)
        after = hypervisor.schedstat(guest)
        assert set(before) == online
        assert sum(before.values()) <= steal[ONE] <= sum(after.values())


def test_guests_that_do_not_run(hypervisor, agent):
    """Off: no sample. Paused: the counter stands, near where it was."""
    off = hypervisor.boot(ONE)
    paused = hypervisor.boot(TWO)
    hypervisor.wait_for_steal(off, paused)
    hypervisor.switch_off(off)
    paused.suspend()
    assert len(hypervisor.connection.listAllDomains()) == 2
    stood = poll(agent)
    assert set(stood) == {TWO}
    assert stood[TWO] >= hypervisor_module.PLENTY_NS


def test_daemon_restarts(hypervisor, agent):
    """Guests outlive the daemon, and the agent finds it again."""
    guest = hypervisor.boot(ONE, lasting=True)
    hypervisor.wait_for_steal(guest)
    earlier = poll(agent)
    hypervisor.restart()
    later = poll(agent)
    assert set(earlier) == set(later) == {ONE}
    assert later[ONE] > earlier[ONE]
