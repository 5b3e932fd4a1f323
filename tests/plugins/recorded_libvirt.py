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

"""A hypervisor on record: what libvirt 9.0.0 answered, played back.

The answers are those of libvirt 9.0.0 with QEMU 7.2 (``Hypervisor`` in
tests/cloud boots the guests), so that the real Ceilometer can be run where
there is no libvirt. Only the questions that Ceilometer and the pollster ask
have an answer.
"""

import types
from typing import Any

import pytest

# virDomainListGetStats with the groups STATE and VCPU.
TWO_VCPUS = {
    "state.state": 1,
    "state.reason": 1,
    "vcpu.current": 2,
    "vcpu.maximum": 2,
    "vcpu.0.state": 1,
    "vcpu.0.time": 1130000000,
    "vcpu.0.wait": 0,
    "vcpu.0.delay": 3473491135,
    "vcpu.1.state": 1,
    "vcpu.1.time": 1090000000,
    "vcpu.1.wait": 0,
    "vcpu.1.delay": 3451087486,
}
# Three vCPUs, the second not plugged in.
A_GAP = {
    "state.state": 1,
    "state.reason": 1,
    "vcpu.current": 2,
    "vcpu.maximum": 3,
    "vcpu.0.state": 1,
    "vcpu.0.time": 1010000000,
    "vcpu.0.wait": 0,
    "vcpu.0.delay": 2997092039,
    "vcpu.2.state": 1,
    "vcpu.2.time": 940000000,
    "vcpu.2.wait": 0,
    "vcpu.2.delay": 2936588698,
}
SHUT_OFF = {
    "state.state": 5,
    "state.reason": 0,
    "vcpu.current": 2,
    "vcpu.maximum": 2,
}

_XML = """
<domain type="kvm"><os><type arch="x86_64" machine="pc">hvm</type></os>
</domain>"""
_METADATA = """
<instance>
  <name>{name}</name>
  <flavor name="silver.{vcpus}" id="flavor-{vcpus}">
    <memory>32</memory><disk>0</disk><swap>0</swap><ephemeral>0</ephemeral>
    <vcpus>{vcpus}</vcpus><extraSpecs/>
  </flavor>
  <owner><user uuid="user"/><project uuid="project"/></owner>
</instance>"""


class LibvirtError(Exception):
    """libvirt's exception, with its code and its domain."""

    def __init__(self, text: str, code: int, domain: int = 10) -> None:
        super().__init__(text)
        self._code = code
        self._domain = domain

    def get_error_code(self) -> int:
        return self._code

    def get_error_domain(self) -> int:
        return self._domain


def failed() -> LibvirtError:
    """QEMU's monitor does not answer."""
    return LibvirtError("cannot acquire state change lock", 68)


def disconnected() -> LibvirtError:
    """The daemon was restarted."""
    return LibvirtError("client socket is closed", 1, 7)


class Domain:
    """A guest, with one answer for every poll."""

    def __init__(self, uuid: str, stats: dict[str, int]) -> None:
        self.uuid = uuid
        self.stats = stats
        # Raised by the next questions, in turn.
        self.errors: list[LibvirtError] = []

    def UUIDString(self) -> str:
        return self.uuid

    def name(self) -> str:
        return "instance-%s" % self.uuid[-8:]

    def state(self) -> list[int]:
        return [self.stats["state.state"], self.stats["state.reason"]]

    def info(self) -> list[int]:
        vcpus = self.stats["vcpu.current"]
        return [self.stats["state.state"], 32768, 32768, vcpus, 0]

    def memoryStats(self) -> dict[str, int]:
        return {"actual": 32768, "rss": 44188}

    def metadata(self, kind: int, uri: str) -> str:
        return _METADATA.format(
            name=self.uuid, vcpus=self.stats["vcpu.maximum"]
        )

    def XMLDesc(self, flags: int = 0) -> str:
        return _XML


class Connection:
    """libvirt's connection to the recorded hypervisor."""

    def __init__(self, version: int = 9_000_000) -> None:
        self.version = version
        self.domains: list[Domain] = []
        # Domains that discovery still sees and nobody can look up.
        self.gone: set[str] = set()
        # Domains that go between being looked up and being asked.
        self.going: set[str] = set()
        # Raised by the next time that somebody is looked up.
        self.error: LibvirtError | None = None
        self.questions: list[tuple[int, int]] = []
        self.opened = 0
        self.refusals = 0
        self.alive = True

    def isAlive(self) -> bool:
        return self.alive

    def getLibVersion(self) -> int:
        return self.version

    def getType(self) -> str:
        return "QEMU"

    def listAllDomains(self) -> list[Domain]:
        return self.domains

    def lookupByUUIDString(self, uuid: str) -> Domain:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        for domain in self.domains:
            if domain.uuid == uuid and uuid not in self.gone:
                return domain
        raise LibvirtError("Domain not found", LIBVIRT.VIR_ERR_NO_DOMAIN)

    def domainListGetStats(
        self, domains: list[Domain], groups: int, flags: int = 0
    ) -> list[tuple[Domain, dict[str, int]]]:
        if flags:
            # Ceilometer itself asks for everything, without flags.
            self.questions.append((groups, flags))
            for domain in domains:
                if domain.errors:
                    error = domain.errors.pop(0)
                    rpc = LIBVIRT.VIR_FROM_RPC
                    self.alive = error.get_error_domain() != rpc
                    raise error
        return [(d, d.stats) for d in domains if d.uuid not in self.going]

    def open(self, uri: str) -> "Connection":
        if self.refusals:
            self.refusals -= 1
            raise disconnected()
        self.opened += 1
        self.alive = True
        return self


LIBVIRT = types.SimpleNamespace(
    libvirtError=LibvirtError,
    VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT=1 << 29,
    VIR_DOMAIN_METADATA_ELEMENT=2,
    VIR_DOMAIN_SHUTOFF=5,
    VIR_DOMAIN_STATS_VCPU=8,
    VIR_ERR_INTERNAL_ERROR=1,
    VIR_ERR_NO_DOMAIN=42,
    VIR_ERR_NO_DOMAIN_METADATA=80,
    VIR_ERR_SYSTEM_ERROR=38,
    VIR_FROM_REMOTE=13,
    VIR_FROM_RPC=7,
)
# All that import it, under this name.
_IMPORTERS = (
    "ceilometer.compute.virt.libvirt.inspector",
    "ceilometer.compute.virt.libvirt.utils",
    "watcher_cputier.pollsters.steal",
)


def install(
    monkeypatch: pytest.MonkeyPatch, connection: Connection | None
) -> None:
    """Give all of them the record instead of libvirt, or no libvirt at all."""
    module: Any = None
    if connection is not None:
        module = types.SimpleNamespace(
            **vars(LIBVIRT), openReadOnly=connection.open
        )
    for importer in _IMPORTERS:
        monkeypatch.setattr("%s.libvirt" % importer, module)
