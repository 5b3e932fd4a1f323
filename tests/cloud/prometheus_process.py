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


"""The process that holds a real Prometheus and a real Aetos.

``python -m tests.cloud.prometheus_process DIR``

The server is a child that ends with this process, however it ends. Requests
reach it directly, through a forwarder behind ``Observer``, or through Aetos,
which is served from here, behind ``Observer`` too.
"""

from __future__ import annotations

import configparser
import ctypes
import datetime
import ipaddress
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import typing
import urllib.error
import urllib.request

from tests.cloud import process

process.leave_with_parent()

from aetos import app  # noqa: E402
from cheroot import wsgi  # noqa: E402
from cryptography import x509  # noqa: E402
from cryptography.hazmat.primitives import hashes  # noqa: E402
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec  # noqa: E402

from tests.cloud import control  # noqa: E402

NAME = "prometheus"
_THREADS = 8
_START_SECONDS = 30.0
_STOP_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1
# Of the word "password", with few rounds.
_BCRYPT = "$2b$04$kt9ZnIsCD2NMmnIHQvXWve.s0OAFi87VrI61Z6x5gT748wI9EbeTG"
_LIBC = ctypes.CDLL(None, use_errno=True)
# A proxy of the environment must not see loopback traffic.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Server:
    """Prometheus itself, on one port for as long as this process lives."""

    def __init__(self, program: str, directory: pathlib.Path) -> None:
        self._program = program
        self._directory = directory
        self._child: subprocess.Popen[bytes] | None = None
        #: Whether it wants TLS and the password of a user.
        self.secure = False
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])

    def start(self) -> None:
        """Start, and wait until it answers."""
        if self._child is not None:
            return
        configuration = self._directory / "prometheus.yml"
        configuration.write_text("{}\n")
        self._child = subprocess.Popen(
            [
                self._program,
                "--config.file=%s" % configuration,
                "--storage.tsdb.path=%s" % (self._directory / "data"),
                # Tests choose their own time.
                "--storage.tsdb.retention.time=100y",
                "--web.listen-address=127.0.0.1:%d" % self.port,
                "--log.level=warn",
                "--web.config.file=%s" % self._web_configuration(),
            ],
            stdin=subprocess.DEVNULL,
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._ready():
            if time.monotonic() > deadline or self._child.poll() is not None:
                raise RuntimeError("Prometheus did not start; see this log")
            time.sleep(0.02)

    def _web_configuration(self) -> pathlib.Path:
        path = self._directory / "web.yml"
        if not self.secure:
            path.write_text("{}\n")
            return path
        certificate, key = _self_signed(self._directory)
        path.write_text(
            json.dumps(
                {
                    "tls_server_config": {
                        "cert_file": str(certificate),
                        "key_file": str(key),
                    },
                    "basic_auth_users": {"watcher": _BCRYPT},
                }
            )
        )
        return path

    def stop(self) -> None:
        if self._child is None:
            return
        self._child.terminate()
        try:
            self._child.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._child = None

    def _ready(self) -> bool:
        try:
            with _OPENER.open(
                "http://127.0.0.1:%d/-/ready" % self.port, timeout=5
            ) as answer:
                return bool(answer.status == 200)
        except urllib.error.HTTPError as refusal:
            # That it wants TLS.
            return self.secure and refusal.code == 400
        except OSError:
            return False

    def forward(
        self, environ: control.Environ, start_response: control.StartResponse
    ) -> list[bytes]:
        """A WSGI application: the server's own answer to a GET."""
        url = "http://127.0.0.1:%d%s?%s" % (
            self.port,
            environ.get("PATH_INFO", ""),
            environ.get("QUERY_STRING", ""),
        )
        try:
            with _OPENER.open(url, timeout=60) as answer:
                status, body = answer.status, answer.read()
        except urllib.error.HTTPError as refusal:
            status, body = refusal.code, refusal.read()
        except OSError as error:
            status, body = 502, str(error).encode()
        start_response(
            "%d Forwarded" % status,
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ],
        )
        return [body]


def _self_signed(
    directory: pathlib.Path,
) -> tuple[pathlib.Path, pathlib.Path]:
    """A certificate for the loopback address, its own CA, and its key."""
    certificate, private = directory / "cert.pem", directory / "key.pem"
    if certificate.exists():
        return certificate, private
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "prometheus")]
    )
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
            ),
            critical=False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate, private


def _die_with_parent() -> None:
    """What the child does first: be ended when its parent is gone."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _aetos(
    directory: pathlib.Path, settings: dict[str, str], port: int
) -> control.Application:
    """Aetos; it and its middleware find their file below HOME."""
    parser = configparser.ConfigParser(
        interpolation=None, default_section="no default section"
    )
    parser.read_dict(
        {
            "DEFAULT": {"auth_mode": "keystone", "use_stderr": "true"},
            "prometheus": {"host": "127.0.0.1", "port": str(port)},
            "keystone_authtoken": {
                "auth_type": "password",
                "auth_url": settings["auth_url"],
                "www_authenticate_uri": settings["auth_url"],
                "username": settings["user"],
                "password": settings["password"],
                "project_name": settings["project"],
                "user_domain_id": "default",
                "project_domain_id": "default",
            },
        }
    )
    folder = directory / ".aetos"
    folder.mkdir(exist_ok=True)
    with open(folder / "aetos.conf", "w") as stream:
        parser.write(stream)
    application: control.Application = app.build_wsgi_app(argv=[])
    return application


class _Gateway(wsgi.Gateway_10):  # type: ignore[misc]
    """Faults may want to drop the connection."""

    def get_environ(self) -> control.Environ:
        environ = super().get_environ()
        environ["cloud.socket"] = self.req.conn.socket
        return environ


def _serve(application: control.Application) -> int:
    server = wsgi.Server(("127.0.0.1", 0), application, numthreads=_THREADS)
    server.gateway = _Gateway
    server.prepare()
    threading.Thread(target=server.serve, daemon=True).start()
    return int(server.bind_addr[1])


def main() -> None:
    directory = pathlib.Path(sys.argv[1]).resolve()
    settings = json.loads((directory / "settings.json").read_text())
    server = Server(settings["program"], directory)
    lock = threading.Lock()

    def leave(*_args: typing.Any) -> None:
        server.stop()
        os._exit(0)

    def halt() -> None:
        with lock:
            server.stop()

    def resume(secure: bool = False) -> None:
        # The child dies with the thread that starts it; those that serve
        # live as long as the process.
        with lock:
            server.secure = secure
            server.start()

    signal.signal(signal.SIGTERM, leave)
    server.start()
    ledger = control.Ledger()
    ports = {
        "server": server.port,
        "prometheus": _serve(
            control.Observer(server.forward, "prometheus", ledger)
        ),
        "metric-storage": _serve(
            control.Observer(
                _aetos(directory, settings, server.port),
                "metric-storage",
                ledger,
            )
        ),
        "control": _serve(
            control.ControlApplication(
                ledger.operations() | {"halt": halt, "resume": resume}
            )
        ),
    }
    process.publish(directory.parent, NAME, ports)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
