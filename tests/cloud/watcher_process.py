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

"""The process that holds Watcher: API, decision engine and applier.

``python -m tests.cloud.watcher_process DIR``

The three services share one process, since the in-memory transport of
oslo.messaging does not leave it. They are Watcher's own classes, started by
hand. Two things are adapted:

* The heartbeat of a service keeps the service's name in a class attribute;
  with two services in the process the second would speak for both. Here each
  heartbeat knows its own.
* SQLite: a transaction that reads first and writes later fails at once when
  another one has written in between, whatever the timeout is. Transactions
  therefore begin with BEGIN IMMEDIATE, so that they queue. The journal is a
  write-ahead log, and readers do not wait.

Watcher below 16 runs on eventlet and names its services differently; the
module tolerates both.
"""

from __future__ import annotations

from importlib import metadata
import os
import pathlib
import signal
import sqlite3
import sys
import threading
import time
import typing
from unittest import mock

from tests.cloud import process

process.leave_with_parent()
_RELEASE = int(metadata.version("python-watcher").split(".")[0])
_GREEN = _RELEASE < 16
os.environ["OS_WATCHER_DISABLE_EVENTLET_PATCHING"] = str(not _GREEN).lower()
if _GREEN:
    from watcher import eventlet as watcher_eventlet

    watcher_eventlet.patch()

import socketserver  # noqa: E402
from wsgiref import simple_server  # noqa: E402

from oslo_config import cfg  # noqa: E402
from oslo_db.sqlalchemy import enginefacade  # noqa: E402
import sqlalchemy  # noqa: E402
import sqlalchemy.event  # noqa: E402
from watcher.api import app as watcher_app  # noqa: E402
from watcher.applier import manager as applier_manager  # noqa: E402
from watcher.applier import sync as applier_sync  # noqa: E402
from watcher.common import service as watcher_service  # noqa: E402
from watcher.db.sqlalchemy import migration  # noqa: E402
from watcher.decision_engine import manager as decision_engine_manager  # noqa: E402
from watcher.decision_engine import scheduling as decision_engine_scheduling  # noqa: E402
from watcher.decision_engine import sync as decision_engine_sync  # noqa: E402
from watcher.decision_engine.model.collector import (  # noqa: E402
    manager as collector_manager,
)

try:
    from watcher.applier.service import ApplierService
    from watcher.decision_engine.service import DecisionEngineService
except ImportError:
    ApplierService = DecisionEngineService = None

from tests.cloud import control  # noqa: E402
from tests.cloud import dictation  # noqa: E402

NAME = "watcher"
_FORGOTTEN = (
    "action_plans",
    "actions",
    "audits",
    "audit_templates",
    "efficacy_indicators",
    "apscheduler_jobs",
)


# The database.


def prepare_database(path: pathlib.Path) -> None:
    """Install the transaction hook; make the schema if it is missing."""
    sqlalchemy.event.listen(
        sqlalchemy.engine.Engine,
        "before_cursor_execute",
        _begin_immediate,
        retval=True,
    )
    fresh = not path.exists()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    if fresh:
        # ``upgrade`` stops at an ALTER on SQLite. Alembic would set up the
        # log its own way and silence the loggers that there are.
        with mock.patch("logging.config.fileConfig"):
            migration.create_schema()


def _begin_immediate(
    connection: typing.Any,
    cursor: typing.Any,
    statement: str,
    parameters: typing.Any,
    context: typing.Any,
    many: bool,
) -> typing.Any:
    if statement == "BEGIN":
        statement = "BEGIN IMMEDIATE"
    return statement, parameters


def cancel_interrupted_audits() -> None:
    """What the decision engine's start means to do, and fails at.

    Watcher 17 loads the audits without their goals and then raises
    EagerlyLoadedAuditRequired, so that it does not start at all.
    """
    with enginefacade.writer.get_engine().begin() as connection:
        connection.exec_driver_sql(
            "UPDATE audits SET state = 'CANCELLED' "
            "WHERE state = 'ONGOING' AND audit_type = 'ONESHOT'"
        )


def forget() -> None:
    """Drop audits and what follows from them; goals and strategies stay."""
    dictation.dictate([])
    engine = enginefacade.writer.get_engine()
    present = set(sqlalchemy.inspect(engine).get_table_names())
    with engine.begin() as connection:
        for table in _FORGOTTEN:
            if table in present:
                connection.exec_driver_sql('DELETE FROM "%s"' % table)


# The services.


def separate_heartbeats() -> None:
    """Let every heartbeat speak for the service that it was made for."""
    heartbeat = watcher_service.ServiceHeartbeat
    initialize, send = heartbeat.__init__, heartbeat.send_beat
    lock = threading.RLock()

    def begin(
        self: typing.Any,
        *args: typing.Any,
        service_name: str | None = None,
        **kwargs: typing.Any,
    ) -> None:
        self._own_name = service_name
        initialize(self, *args, service_name=service_name, **kwargs)

    def send_beat(self: typing.Any) -> None:
        with lock:
            heartbeat.service_name = self._own_name
            send(self)

    heartbeat.__init__, heartbeat.send_beat = begin, send_beat


def start_services() -> None:
    separate_heartbeats()
    decision_engine_sync.Syncer().sync()
    applier_sync.Syncer().sync()
    for service in _services():
        service.start()


def _services() -> list[typing.Any]:
    if DecisionEngineService is not None:
        return [DecisionEngineService(), ApplierService()]
    return [
        watcher_service.Service(decision_engine_manager.DecisionEngineManager),
        decision_engine_scheduling.DecisionEngineSchedulingService(),
        watcher_service.Service(applier_manager.ApplierManager),
    ]


def _collector() -> typing.Any:
    return collector_manager.CollectorManager().get_cluster_model_collector(
        "compute"
    )


def synchronize_model(build: bool = True) -> None:
    """Rebuild the model; one that no audit asked for yet only if told to."""
    collector = _collector()
    if collector._audit_scope_handler is None:
        # Watcher builds no model before the first audit sets its scope.
        if not build:
            return
        collector.get_audit_scope_handler([])
    collector.synchronize()
    built = collector.cluster_data_model
    if built is None or built.stale:
        raise RuntimeError(
            "the compute model could not be built; see the "
            "log of the decision engine"
        )


def model() -> str:
    return str(_collector().get_latest_cluster_data_model().to_xml())


# Serving.


class _Server(socketserver.ThreadingMixIn, simple_server.WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Handler(simple_server.WSGIRequestHandler):
    def get_environ(self) -> control.Environ:
        environ = super().get_environ()
        environ["cloud.socket"] = self.connection
        return environ

    def address_string(self) -> str:
        return str(self.client_address[0])

    def log_message(self, *args: typing.Any) -> None:
        """The ledger has it."""


def _serve(application: control.Application, port: int = 0) -> int:
    try:
        server = simple_server.make_server(
            "127.0.0.1", port, application, _Server, _Handler
        )
    except OSError:
        # The port of the time before a restart is taken by now.
        server = simple_server.make_server(
            "127.0.0.1", 0, application, _Server, _Handler
        )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_port)


def main() -> None:
    directory = pathlib.Path(sys.argv[1]).resolve()
    wanted_port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
    # Watcher 14 parses the process's own arguments again later.
    sys.argv = ["watcher", "--config-file", str(directory / "watcher.conf")]
    watcher_service.prepare_service(sys.argv, cfg.CONF)
    prepare_database(directory / "watcher.sqlite")
    cancel_interrupted_audits()
    start_services()
    ledger = control.Ledger()
    application = watcher_app.VersionSelectorApplication()
    ports = {
        "infra-optim": _serve(
            control.Observer(application, "infra-optim", ledger), wanted_port
        ),
        "control": _serve(
            control.ControlApplication(
                ledger.operations()
                | {
                    "synchronize_model": synchronize_model,
                    "model": model,
                    "forget": forget,
                    "dictate": dictation.dictate,
                }
            )
        ),
    }
    process.publish(directory, NAME, ports)
    while True:
        time.sleep(3600)


if __name__ == "__main__":
    main()
