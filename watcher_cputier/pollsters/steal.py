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

"""``cpu.steal``: how long the runnable vCPUs of an instance waited for a CPU.

OpenStack has no such meter, and without it nobody can tell an instance that
wants little from one that gets little. This is a pollster for Ceilometer's
compute agent, found by it as an entry point of ``ceilometer.poll.compute``;
nothing else imports this module, and it needs nothing of Watcher.

The number is libvirt's ``vcpu.N.delay`` (since 7.2.0), which is the second
field of ``/proc/<pid>/task/<tid>/schedstat``: nanoseconds that the vCPU's
thread stood in a run queue. It equals the steal that the guest itself sees.

* It is a counter, added up over the vCPUs that are online, as Ceilometer's
  own ``cpu`` is. It starts again wherever the guest's process does: at a hard
  reboot, a stop and start, a resize, at the destination of a live migration.
  It falls when a vCPU is unplugged. Whoever takes differences has to drop the
  negative ones.
* What is not known is not published. A zero would say that nobody waits, so
  there is no sample where libvirt does not tell the field, where it tells it
  of some vCPUs only, or where the kernel does not count. The log says why,
  once.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import typing

import ceilometer
from ceilometer import sample
from ceilometer.compute import pollsters
from ceilometer.compute.virt import inspector as virt_inspector
from ceilometer.compute.virt.libvirt import utils as libvirt_utils
from oslo_log import log

try:
    import libvirt
except ImportError:
    # Ceilometer then has an inspector that knows no hypervisor, and so do we.
    libvirt = None

LOG = log.getLogger(__name__)

# When guests that ran for so long have waited for exactly nothing, the kernel
# does not count.
CERTAIN_AFTER_NS = 10 * 10**9


@dataclasses.dataclass(frozen=True)
class Steal:
    """One answer of libvirt about one instance, all vCPUs together.

    :ivar steal_time: ns that runnable vCPUs waited since the guest's process
        began
    :ivar cpu_number: vCPUs that are online
    """

    steal_time: int
    cpu_number: int


@dataclasses.dataclass(frozen=True)
class Missing:
    """Why there is no number.

    :ivar reason: what the log says; empty where that passes by itself
    """

    reason: str = ""


NOT_TOLD = Missing(
    "libvirt does not report vcpu.N.delay, which it does of QEMU and KVM "
    "guests from 7.2.0 on"
)
NOT_COUNTED = Missing(
    "the kernel does not count how long threads wait (it has no "
    "/proc/<pid>/schedstat; CONFIG_SCHED_INFO)"
)
PASSING = Missing()


def add_up(stats: Mapping[str, int]) -> Steal | Missing:
    """The steal of an instance, from libvirt's domain statistics.

    :param stats: what ``virDomainListGetStats`` answers for the group
        ``VIR_DOMAIN_STATS_VCPU``. vCPUs that are offline are absent; the
        numbers of the others may have gaps.
    """
    numbers = range(stats.get("vcpu.maximum", 0))
    online = [n for n in numbers if f"vcpu.{n}.time" in stats]
    delays = [
        stats[f"vcpu.{n}.delay"] for n in online if f"vcpu.{n}.delay" in stats
    ]
    if not online:
        # The guest is off, or its threads are not there yet.
        return PASSING
    if not delays:
        return NOT_TOLD
    if len(delays) < max(len(online), stats.get("vcpu.current", 0)):
        # The sum of some vCPUs would look like a fall of the counter.
        return PASSING
    if not any(delays):
        # libvirt answers 0 where the kernel has no such file. Nobody really
        # has waited for nothing: the start of a thread takes microseconds.
        ran = sum(stats[f"vcpu.{n}.time"] for n in online)
        return NOT_COUNTED if ran >= CERTAIN_AFTER_NS else PASSING
    return Steal(steal_time=sum(delays), cpu_number=len(online))


class StealInspector:
    """Asks for steal through the connection of Ceilometer's own inspector.

    :param inspector: Ceilometer's inspector; one without a libvirt connection
        cannot be asked
    """

    def __init__(self, inspector: typing.Any) -> None:
        self._inspector = inspector
        self._said: set[str] = set()
        self._ask = libvirt_utils.retry_on_disconnect(self._ask_once)

    def inspect_steal(
        self, instance: typing.Any, duration: float | None = None
    ) -> Sequence[Steal]:
        """One value, or none if there is no number.

        :param instance: the server as Ceilometer's discovery describes it
        :param duration: seconds since the last poll, as Ceilometer passes to
            all inspectors; a counter does not need it
        :raises ceilometer.NotImplementedError: if the inspector is not
            libvirt's: Ceilometer then never asks again
        :raises InstanceNotFoundException: if the instance has gone
        :raises NoDataException: if libvirt could not answer
        """
        # Of the class: the property of the instance opens the connection.
        if libvirt is None or not hasattr(type(self._inspector), "connection"):
            self._say_once(
                "it is read from libvirt, and Ceilometer's inspector is "
                f"{type(self._inspector).__name__}"
                + ("" if libvirt else " (python3-libvirt is not installed)")
            )
            raise ceilometer.NotImplementedError
        try:
            stats = self._ask(instance)
        except libvirt.libvirtError as exc:
            raise virt_inspector.NoDataException(
                f"libvirt does not tell the vCPUs of {instance.id}: {exc}"
            ) from exc
        found = add_up(stats)
        if isinstance(found, Missing):
            if found.reason:
                self._say_once(f"{found.reason}; this is {self._version()}")
            else:
                LOG.debug("No steal of %s now: %s", instance.id, stats)
            return []
        return [found]

    def _ask_once(self, instance: typing.Any) -> Mapping[str, int]:
        connection = self._inspector.connection
        try:
            domain = connection.lookupByUUIDString(instance.id)
        except libvirt.libvirtError as exc:
            if exc.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN:
                raise
            raise virt_inspector.InstanceNotFoundException(str(exc)) from exc
        # NOWAIT: a domain that is busy (with a migration) answers what needs
        # no answer of QEMU, and these numbers are the kernel's.
        answers = connection.domainListGetStats(
            [domain],
            libvirt.VIR_DOMAIN_STATS_VCPU,
            libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT,
        )
        if not answers:
            # It went between the two questions.
            raise virt_inspector.InstanceNotFoundException(instance.id)
        stats: Mapping[str, int] = answers[0][1]
        return stats

    def _version(self) -> str:
        connection = self._inspector.connection
        number = connection.getLibVersion()
        return (
            f"libvirt {number // 1_000_000}.{number // 1000 % 1000}."
            f"{number % 1000} with the driver {connection.getType()}"
        )

    def _say_once(self, reason: str) -> None:
        if reason not in self._said:
            self._said.add(reason)
            LOG.warning(
                "No samples of cpu.steal from this host: %s. Starvation of "
                "its instances cannot be seen.",
                reason,
            )


class StealPollster(pollsters.GenericComputePollster):
    """The meter: cumulative, nanoseconds, one sample per running instance."""

    sample_name = "cpu.steal"
    sample_unit = "ns"
    sample_type = sample.TYPE_CUMULATIVE
    sample_stats_key = "steal_time"
    inspector_method = "inspect_steal"
    inspector: typing.Any

    def setup_environment(self) -> None:
        """Take Ceilometer's inspector, with one question more."""
        super().setup_environment()
        self.inspector = StealInspector(self.inspector)

    @staticmethod
    def get_additional_metadata(
        instance: typing.Any, stats: Steal
    ) -> dict[str, int]:
        """What Ceilometer's ``cpu`` says too: how many vCPUs are online."""
        return {"cpu_number": stats.cpu_number}
