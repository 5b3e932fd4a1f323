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

"""A real hypervisor of one's own: libvirt and QEMU, nothing shared.

It is a session daemon with its sockets and its state in a folder of its own,
beside whatever libvirt this machine may run, and it needs no root (root lends
it the user ``nobody``). Guests are emulated (TCG) and have no operating
system: some bytes of machine code start all vCPUs, and each of them then runs
in a circle for ever. So a guest boots at once, and wants all the CPU that it
can get.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import shutil
import struct
import subprocess
import tempfile
import time
import typing

if typing.TYPE_CHECKING:
    import libvirt

LIBVIRTD = "libvirtd"
QEMU = "qemu-system-x86_64"
# More than a guest waits before it is busy.
PLENTY_NS = 100 * 10**6
_START_SECONDS = 30.0
_STEAL_SECONDS = 60.0
_NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"


class HypervisorError(RuntimeError):
    """The daemon did not start; the message holds the end of its log."""


def _path() -> str:
    return os.environ.get("PATH", os.defpath) + os.pathsep + "/usr/sbin"


def why_not() -> str:
    """Why there can be no hypervisor here; empty if there can."""
    try:
        import libvirt  # noqa: F401
    except ImportError:
        return "no hypervisor: the Python module libvirt is not installed"
    for program in (LIBVIRTD, QEMU):
        if shutil.which(program, path=_path()) is None:
            return "no hypervisor: %s is not installed" % program
    return ""


def busy_kernel() -> bytes:
    """A kernel for ``<kernel>``: all vCPUs are runnable for ever.

    A multiboot image, entered in 32-bit protected mode. It writes an endless
    loop for real mode to 0x8000, sends INIT and two STARTUPs there to all
    other CPUs through the local APIC, and loops itself.
    """
    load, page, apic = 0x100000, 0x8000, 0xFEE00000

    def store(address: int, value: int) -> bytes:
        return b"\xc7\x05" + struct.pack("<II", address, value)

    endless = b"\xeb\xfe"
    pause = b"\xb9" + struct.pack("<I", 1_000_000) + b"\x49\x75\xfd"
    startup = store(apic + 0x300, 0x000C4600 | page >> 12) + pause
    code = b"".join(
        (
            b"\x66\xc7\x05" + struct.pack("<I", page) + endless,
            store(apic + 0xF0, 0x1FF),
            store(apic + 0x300, 0x000C4500) + pause,
            startup * 2,
            endless,
        )
    )
    magic, flags = 0x1BADB002, 0x00010000
    checksum = -(magic + flags) & 0xFFFFFFFF
    entry = load + 32
    header = struct.pack(
        "<8I", magic, flags, checksum, load, load, 0, 0, entry
    )
    return header + code


class Hypervisor(contextlib.AbstractContextManager):
    """A private libvirtd, and guests on it."""

    def __init__(self) -> None:
        # Short: a socket's path has 107 bytes.
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="hypervisor-"))
        self._daemon: subprocess.Popen[bytes] | None = None
        self._connection: libvirt.virConnect | None = None

    def __enter__(self) -> Hypervisor:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        with contextlib.suppress(Exception):
            self.clear()
        self._stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    # The daemon.

    @property
    def _socket(self) -> pathlib.Path:
        return self._directory / "run" / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """For ``libvirt.open`` and for Ceilometer's ``libvirt_uri``."""
        return "qemu+unix:///session?socket=%s" % self._socket

    @property
    def connection(self) -> libvirt.virConnect:
        """A connection that may do everything."""
        assert self._connection is not None
        return self._connection

    def restart(self) -> None:
        """Restart the daemon; guests go on."""
        self._stop()
        self._start()

    def _stop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
            self._connection = None
        if self._daemon is not None:
            self._daemon.terminate()
            self._daemon.wait()
            self._daemon = None

    def _prepare(self) -> tuple[dict[str, str], dict[str, typing.Any]]:
        """The daemon's folders, as environment, and its owner."""
        folders = {
            "HOME": self._directory,
            "XDG_RUNTIME_DIR": self._directory / "run",
            "XDG_CACHE_HOME": self._directory / "cache",
            "XDG_CONFIG_HOME": self._directory / "config",
            "XDG_DATA_HOME": self._directory / "data",
        }
        for folder in folders.values():
            folder.mkdir(exist_ok=True, mode=0o700)
        kernel = self._directory / "busy"
        kernel.write_bytes(busy_kernel())
        kernel.chmod(0o644)
        (self._directory / "libvirtd.conf").write_text("")
        environment = {name: str(path) for name, path in folders.items()}
        environment["PATH"] = _path()
        if os.geteuid() != 0:
            return environment, {}
        nobody = pwd.getpwnam("nobody")
        for folder in folders.values():
            os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        return environment, {
            "user": nobody.pw_uid,
            "group": nobody.pw_gid,
            "extra_groups": [],
        }

    def _start(self) -> None:
        environment, owner = self._prepare()
        log = self._directory / "log"
        with open(log, "ab") as output:
            self._daemon = subprocess.Popen(
                [
                    shutil.which(LIBVIRTD, path=_path()),
                    "--config",
                    str(self._directory / "libvirtd.conf"),
                    # It leaves by itself when everybody has gone.
                    "--timeout",
                    "30",
                ],
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                **owner,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self._connect():
            if self._daemon.poll() is not None or time.monotonic() > deadline:
                raise HypervisorError(
                    "libvirtd did not start; its log ends with:\n%s"
                    % log.read_text(errors="replace")[-2000:]
                )
            time.sleep(0.05)

    def _connect(self) -> bool:
        import libvirt

        if self._socket.exists():
            with contextlib.suppress(libvirt.libvirtError):
                self._connection = libvirt.open(self.uri)
        return self._connection is not None

    # Guests.

    def boot(
        self,
        uuid: str,
        *,
        vcpus: int = 1,
        offline: tuple[int, ...] = (),
        lasting: bool = False,
    ) -> libvirt.virDomain:
        """Start a guest whose vCPUs share one CPU, as Nova would describe it.

        :param vcpus: how many it may have
        :param offline: the numbers of those that are not plugged in (0 is)
        :param lasting: it outlives the daemon; others end with this process
            in any case, however that ends
        """
        import libvirt

        switches = "".join(
            '<vcpu id="%d" enabled="%s" hotpluggable="%s"/>'
            % (
                number,
                "no" if number in offline else "yes",
                "yes" if number else "no",
            )
            for number in range(vcpus)
        )
        return self.connection.createXML(
            """
            <domain type="qemu">
              <name>instance-{name}</name>
              <uuid>{uuid}</uuid>
              <metadata>
                <nova:instance xmlns:nova="{nova}">
                  <nova:name>server</nova:name>
                  <nova:flavor name="silver.{vcpus}" id="flavor-{vcpus}">
                    <nova:memory>32</nova:memory>
                    <nova:disk>0</nova:disk>
                    <nova:swap>0</nova:swap>
                    <nova:ephemeral>0</nova:ephemeral>
                    <nova:vcpus>{vcpus}</nova:vcpus>
                    <nova:extraSpecs/>
                  </nova:flavor>
                  <nova:owner>
                    <nova:user uuid="{user}">user</nova:user>
                    <nova:project uuid="{project}">project</nova:project>
                  </nova:owner>
                </nova:instance>
              </metadata>
              <memory unit="MiB">32</memory>
              <vcpu cpuset="{cpu}" current="{current}">{vcpus}</vcpu>
              <vcpus>{switches}</vcpus>
              <os>
                <type arch="x86_64" machine="pc">hvm</type>
                <kernel>{kernel}</kernel>
              </os>
              <features><acpi/><apic/></features>
              <cpu mode="custom"><model>qemu64</model></cpu>
              <devices>
                <emulator>{emulator}</emulator>
                <controller type="usb" model="none"/>
                <memballoon model="none"/>
              </devices>
            </domain>
            """.format(
                name=uuid[-8:],
                uuid=uuid,
                nova=_NOVA,
                user="5" * 32,
                project="6" * 32,
                vcpus=vcpus,
                current=vcpus - len(offline),
                switches=switches,
                cpu=min(os.sched_getaffinity(0)),
                kernel=self._directory / "busy",
                emulator=shutil.which(QEMU, path=_path()),
            ),
            0 if lasting else libvirt.VIR_DOMAIN_START_AUTODESTROY,
        )

    def switch_off(self, domain: libvirt.virDomain) -> None:
        """Stop a guest that stays defined, as Nova stops a server."""
        self.connection.defineXML(domain.XMLDesc())
        domain.destroy()

    def clear(self) -> None:
        """Remove all guests."""
        for domain in self.connection.listAllDomains():
            if domain.isActive():
                domain.destroy()
        for domain in self.connection.listAllDomains():
            domain.undefine()

    def wait_for_steal(self, *domains: libvirt.virDomain) -> None:
        """Wait until every vCPU of these guests waited for some time."""
        deadline = time.monotonic() + _STEAL_SECONDS
        while any(
            waited < PLENTY_NS
            for domain in domains
            for waited in self.schedstat(domain).values()
        ):
            if time.monotonic() > deadline:
                raise HypervisorError("a vCPU does not wait for a CPU")
            time.sleep(0.1)

    def schedstat(self, domain: libvirt.virDomain) -> dict[int, int]:
        """What the kernel says itself: {vCPU: ns in a run queue}."""
        run = self._directory / "run" / "libvirt" / "qemu" / "run"
        pid = int((run / ("%s.pid" % domain.name())).read_text())
        waited = {}
        for thread in pathlib.Path("/proc/%d/task" % pid).iterdir():
            with contextlib.suppress(FileNotFoundError):
                kind, number, *_ = [
                    *(thread / "comm").read_text().replace("/", " ").split(),
                    "",
                ]
                if kind == "CPU":
                    fields = (thread / "schedstat").read_text().split()
                    waited[int(number)] = int(fields[1])
        return waited
