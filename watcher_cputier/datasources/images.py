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

"""Glance and Cinder: what images ask for that Nova does not tell.

Nova tells some properties of a server's image, and never the traits that
the image requires (``trait:NAME=required``), nor any property where the
server was booted from a volume. Both are read for the few instances that
may have to move: an image once, whoever was booted from it, and of a volume
the properties that Cinder copied from its image.

What cannot be read is no error, for Nova's scheduler, which is asked about
every target of a plan, knows what the image asks for.
"""

from collections.abc import Callable, Iterable, Mapping
import concurrent.futures
import functools
from typing import Any

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import service

WORKERS = 8
# What decides where an instance may run; all else is left out.
_DECIDING = ("hw_", "trait:")
_Ask = Callable[[], Mapping[str, str]]


class Images:
    """Reader of the image and the volume API.

    :param image: adapter for the image API
    :param volume: adapter for the volume API
    """

    def __init__(
        self, image: ksa_adapter.Adapter, volume: ksa_adapter.Adapter
    ) -> None:
        self._image = image
        self._volume = volume
        self.glance = service.Service(
            image, "Glance", None, {"images": "get_image"}
        )
        self.cinder = service.Service(
            volume, "Cinder", None, {"volumes": "volume:get"}
        )
        # {service: why it cannot be asked at all}
        self._down: dict[str, str] = {}

    def get_properties(
        self, servers: Iterable[nova.Server]
    ) -> tuple[Mapping[str, Mapping[str, str]], Mapping[str, str]]:
        """What the images of servers ask for, as far as it can be seen.

        :returns: {server uuid: properties}, {server uuid: why they cannot be
            seen}; a server is in one of them
        :raises OutOfTime: if the time budget is used up
        """
        asked = {server.uuid: server for server in servers}
        jobs: dict[str, tuple[service.Service, _Ask]] = {}
        for server in asked.values():
            if server.image:
                ask = functools.partial(self._of_image, server.image)
                jobs[server.image] = (self.glance, ask)
            else:
                ask = functools.partial(self._of_volume, server)
                jobs[server.uuid] = (self.cinder, ask)
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            answers = dict(
                zip(
                    jobs,
                    pool.map(lambda job: self._tried(*job), jobs.values()),
                    strict=True,
                )
            )
        found: dict[str, Mapping[str, str]] = {}
        unseen: dict[str, str] = {}
        for uuid, server in asked.items():
            told = answers[server.image or uuid]
            if isinstance(told, str):
                unseen[uuid] = told
            else:
                found[uuid] = told
        return model.frozen_map(found), model.frozen_map(unseen)

    def _tried(
        self, asked: service.Service, ask: _Ask
    ) -> Mapping[str, str] | str:
        """What is asked for, or why it cannot be seen.

        A service that is down is not asked again.
        """
        if asked.name in self._down:
            return self._down[asked.name]
        try:
            return ask()
        except service.OutOfTime:
            raise
        except (service.NotFound, service.Forbidden) as exc:
            return str(exc)
        except errors.ServiceError as exc:
            return self._down.setdefault(asked.name, str(exc))

    def _of_image(self, uuid: str) -> Mapping[str, str]:
        """What an image asks for."""
        endpoint = _endpoint(self._image, self.glance)
        version = "" if endpoint.endswith("/v2") else "/v2"
        return _deciding(self.glance.get(f"{version}/images/{uuid}"))

    def _of_volume(self, server: nova.Server) -> Mapping[str, str]:
        """What the image of a server's root volume asks for.

        Where no volume says that it is the root, all of them together.
        """
        _endpoint(self._volume, self.cinder)
        found: dict[str, str] = {}
        for uuid in server.volumes:
            volume = self.cinder.get(f"/volumes/{uuid}")["volume"]
            told = _deciding(volume.get("volume_image_metadata") or {})
            if _is_root(volume, server):
                return told
            found.update(told)
        return model.frozen_map(found)


def _endpoint(adapter: ksa_adapter.Adapter, asked: service.Service) -> str:
    """Where a service is.

    :raises ServiceError: if it is not in the catalogue
    """
    try:
        endpoint = adapter.get_endpoint()
    except ksa_exceptions.EndpointNotFound:
        endpoint = None
    except ksa_exceptions.ClientException as exc:
        raise asked.unreachable("catalogue", exc) from exc
    if endpoint is None:
        raise errors.ServiceError(
            "it is not in the service catalogue", where=asked.name
        )
    return str(endpoint).rstrip("/")


def _is_root(volume: Mapping[str, Any], server: nova.Server) -> bool:
    return any(
        one.get("server_id") == server.uuid
        and one.get("device") == server.root_device
        for one in volume.get("attachments") or ()
    )


def _deciding(told: Mapping[str, Any]) -> Mapping[str, str]:
    return model.frozen_map(
        {k: str(v) for k, v in told.items() if k.startswith(_DECIDING)}
    )
