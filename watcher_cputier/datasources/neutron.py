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

"""Neutron: ports that tie an instance to a device of its host.

A port on an SR-IOV or passed-through device is not in Nova's answers. Asked
for are only the ports of instances that may have to move, in chunks and
pages. A cloud without Neutron in its catalogue has no such ports.

Neutron leaves out of its lists what the user may not see. An instance that
has addresses by Nova's word and no port by Neutron's is therefore tied: what
it is plugged into cannot be known.
"""

from collections.abc import Mapping

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import service

CHUNK = 50
PAGE = 500
PORTS = "/v2.0/ports"
_TIED = {
    "accelerator-direct",
    "accelerator-direct-physical",
    "direct",
    "direct-physical",
    "macvtap",
    "remote-managed",
    "vdpa",
    "virtio-forwarder",
}
_POLICIES = {"ports": "get_port"}


class Neutron:
    """Reader of the network API."""

    def __init__(self, adapter: ksa_adapter.Adapter) -> None:
        self._adapter = adapter
        self.service = service.Service(adapter, "Neutron", None, _POLICIES)

    def check_access(self) -> list[errors.ServiceError]:
        """Try to read ports; what it could not do (R79)."""
        try:
            path = self._path()
        except errors.ServiceError as exc:
            return [exc]
        if path is None:
            return []
        return self.service.try_all([(path, {"limit": 1, "fields": ["id"]})])

    def get_ties(self, servers: Mapping[str, bool]) -> Mapping[str, str]:
        """{server uuid: why it is tied to its host}, of those that are.

        :param servers: {server uuid: whether it has addresses}
        :raises ServiceError: if Neutron is there and cannot be asked
        """
        ordered = sorted(servers)
        path = self._path() if ordered else None
        found: dict[str, str] = {}
        seen: set[str] = set()
        if path is not None:
            for start in range(0, len(ordered), CHUNK):
                for port in self.service.pages(
                    path,
                    "ports",
                    {
                        "device_id": ordered[start : start + CHUNK],
                        "fields": ["device_id", "binding:vnic_type", "id"],
                        "limit": PAGE,
                    },
                ):
                    seen.add(port["device_id"])
                    kind = port.get("binding:vnic_type", "normal")
                    if kind in _TIED:
                        found[port["device_id"]] = (
                            f"its port {port['id']} is on a device of the "
                            f"host (vnic_type {kind})"
                        )
        for uuid in ordered:
            if servers[uuid] and uuid not in seen:
                found[uuid] = _unseen(path)
        return model.frozen_map(found)

    def _path(self) -> str | None:
        """Where the ports are; None in a cloud without Neutron.

        Some catalogues have the version in the endpoint, others do not.
        """
        try:
            endpoint = self._adapter.get_endpoint()
        except ksa_exceptions.EndpointNotFound:
            return None
        except ksa_exceptions.ClientException as exc:
            raise self.service.unreachable("catalogue", exc) from exc
        if endpoint is None:
            return None
        return "/ports" if endpoint.rstrip("/").endswith("v2.0") else PORTS


def _unseen(path: str | None) -> str:
    """Why an instance with addresses is tied that has no port to be seen."""
    if path is None:
        return (
            "it has addresses and the service catalogue has no Neutron to "
            "tell their ports (register it, or check region and interface)"
        )
    return (
        "it has addresses and Neutron shows none of its ports (grant "
        "Watcher's user the policy get_port for all projects; the admin role "
        "has it by default)"
    )
