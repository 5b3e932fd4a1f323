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


"""The stub Keystone alone, for services that can do without Nova.

A datasource needs tokens and a catalogue, and instances that have names and
uuids: neither has to be booted. ``Surroundings`` offers as much of
``EmbeddedCloud`` as such a service's owner uses, from threads of the own
process.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import socketserver
import sys
import tempfile
import threading
import typing
from wsgiref import simple_server

import fixtures
from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import session
from keystoneauth1.identity import v3
import openstack
import requests

from tests.cloud import control
from tests.cloud import gnocchi
from tests.cloud import keystone
from tests.cloud import prometheus

if typing.TYPE_CHECKING:
    from openstack import connection

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(simple_server.WSGIRequestHandler):
    def log_message(self, *args: typing.Any) -> None:
        """Nobody wants to know."""


class Surroundings(fixtures.Fixture):
    """A directory, a Keystone, and services that use them.

    :ivar gnocchi: a real one, once it is started
    :ivar prometheus: a real one behind Aetos, once it is started
    """

    def _setUp(self) -> None:
        self.directory = pathlib.Path(
            tempfile.mkdtemp(prefix="embedded-cloud-")
        )
        self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        (self.directory / "tmp").mkdir()
        self.identity = keystone.Identity()
        server = simple_server.make_server(
            "127.0.0.1",
            0,
            keystone.IdentityApplication(self.identity),
            _Server,
            _Handler,
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.identity.set_endpoint("identity", server.server_port)
        self.auth_url = self.identity.endpoint("identity")
        self._adapters: dict[tuple[str, str], ksa_adapter.Adapter] = {}
        environment = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("OS_") and "proxy" not in k.lower()
        }
        environment.update(
            TMPDIR=str(self.directory / "tmp"),
            PYTHONUNBUFFERED="1",
            PYTHONWARNINGS="ignore",
            NO_PROXY="127.0.0.1",
            PYTHONPATH=os.pathsep.join(
                filter(None, (str(_ROOT), os.environ.get("PYTHONPATH")))
            ),
        )
        self.gnocchi = gnocchi.Gnocchi(self, environment, sys.executable)
        self.addCleanup(self.gnocchi.discard)
        self.prometheus = prometheus.Prometheus(
            self, environment, sys.executable
        )
        self.addCleanup(self.prometheus.discard)

    def set_endpoint(self, service: str, port: int) -> None:
        """Enter a service on loopback into the catalogue."""
        self.identity.set_endpoint(service, port)
        self._adapters.clear()

    def remove_endpoint(self, service: str) -> None:
        """Take it out again."""
        self.identity.remove_endpoint(service)
        self._adapters.clear()

    def auth(self, user: str) -> dict[str, typing.Any]:
        """What a client authenticates with."""
        return {
            "auth_url": self.auth_url,
            "username": user,
            "password": keystone.PASSWORD,
            "project_name": keystone.USERS[user][0],
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    def session(self, user: str = "watcher") -> session.Session:
        """A keystoneauth session; a proxy must not see loopback traffic."""
        http = requests.Session()
        http.trust_env = False
        return session.Session(
            auth=v3.Password(**self.auth(user)), session=http
        )

    def adapter(self, service: str, user: str) -> ksa_adapter.Adapter:
        """A keystoneauth adapter for a service type, as a user."""
        if (service, user) not in self._adapters:
            self._adapters[service, user] = ksa_adapter.Adapter(
                self.session(user),
                service_type=service,
                interface="public",
                region_name=keystone.REGION,
            )
        return self._adapters[service, user]

    def connection(self, user: str = "watcher") -> connection.Connection:
        """An openstacksdk connection as a user."""
        return openstack.connection.Connection(
            session=self.session(user), region_name=keystone.REGION
        )

    def requests(
        self, service: str, since: float = 0.0
    ) -> list[control.Request]:
        """The requests that a service saw, in order."""
        answers = self._control(service).call(
            "requests", service=service, since=since
        )
        return [control.Request(**answer) for answer in answers]

    def inject(self, service: str, **fault: typing.Any) -> None:
        """Disturb matching requests: status, delay_seconds or drop=True."""
        fault.setdefault("method", None)
        fault.setdefault("path_regex", ".*")
        self._control(service).call("inject", service=service, **fault)

    def clear_faults(self) -> None:
        """Disturb nobody any more."""
        for one in (self.gnocchi, self.prometheus):
            if one.running:
                one.control.call("clear_faults")

    def _control(self, service: str) -> control.ControlClient:
        return {
            gnocchi.SERVICE: self.gnocchi,
            prometheus.DIRECT: self.prometheus,
            prometheus.AETOS: self.prometheus,
        }[service].control
