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

"""The process that holds the stub Keystone, Placement and Nova.

``python -m tests.cloud.nova_process DIR``

Nova's own functional-test fixtures, driven by hand, bring up the conductor,
the scheduler and the databases (SQLite in memory). The WSGI applications of
Nova and Placement, each behind ``Observer`` and ``Authenticator``, and those
of the stubs are served on loopback ports that the kernel picks. Everything
runs on eventlet: with native threads the fixtures' cell lock and SQLite's
write lock block each other as soon as several guests boot at once.

Placement exists once but has two doors. Nova's own requests take the
fixture's: in-process, as administrator. Requests from outside take the other,
where the token decides.

``reset`` brings the databases back to the state after the start: all rows are
deleted except those that the services keep in mind or cannot make again
(cells, the controller services, the catalogues of traits and classes), and
what Nova caches is forgotten. That takes a blink where deleting servers
through the API takes seconds, and it leaves no leaked allocation.
"""

from __future__ import annotations

import os
import pathlib
import signal
import socket
import sys
import typing

from tests.cloud import process

process.leave_with_parent()
os.environ["OS_NOVA_DISABLE_EVENTLET_PATCHING"] = "false"

import logging  # noqa: E402
import threading  # noqa: E402

import eventlet.wsgi  # noqa: E402
import fixtures  # noqa: E402
from nova import availability_zones  # noqa: E402
from nova import context as nova_context  # noqa: E402
from nova import objects  # noqa: E402
from nova import quota  # noqa: E402
from nova import tests as _nova_tests  # noqa: E402,F401 (patches eventlet)
from nova.api import auth as nova_auth  # noqa: E402
from nova.compute import rpcapi as compute_rpcapi  # noqa: E402
from nova.db.api import api as nova_api_db  # noqa: E402
from nova.scheduler import host_manager  # noqa: E402
from nova.scheduler.client import report  # noqa: E402
from nova.tests import fixtures as nova_fixtures  # noqa: E402
from nova.tests.functional import fixtures as func_fixtures  # noqa: E402
from nova.tests.functional import integrated_helpers  # noqa: E402
from oslo_config import cfg  # noqa: E402
from placement import db_api as placement_db  # noqa: E402
from placement import deploy as placement_deploy  # noqa: E402
import yaml  # noqa: E402

from tests.cloud import control  # noqa: E402
from tests.cloud import copying  # noqa: E402
from tests.cloud import driver  # noqa: E402
from tests.cloud import keystone  # noqa: E402
from tests.cloud import spec as cloud_spec  # noqa: E402

NAME = "nova"
_KEPT = {
    "api": {"alembic_version", "cell_mappings"},
    "cell": {"alembic_version", "services"},
    "placement": {
        "alembic_version",
        "traits",
        "resource_classes",
        "projects",
        "users",
        "consumer_types",
    },
}
_LOG_FORMAT = "%(asctime)s %(levelname)s [%(name)s] %(message)s"
LOG = logging.getLogger(__name__)


class _LogToStream(fixtures.Fixture):
    """Instead of Nova's StandardLogging, which keeps all logs in memory."""

    def _setUp(self) -> None:
        root = logging.getLogger()
        root.handlers.clear()
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(_LOG_FORMAT))
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        for name in (
            "alembic",
            "oslo_db",
            "placement.requestlog",
            "stevedore",
            "wsgi_intercept",
        ):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.useFixture(
            fixtures.MonkeyPatch("oslo_log.log.setup", lambda *args: None)
        )


class _NoNotifications(fixtures.Fixture):
    """Instead of Nova's NotificationFixture, which keeps them in memory."""


class NovaServices(integrated_helpers.ProviderUsageBaseTestCase):  # type: ignore[misc]
    """Nova and Placement, as a test case that nobody runs."""

    compute_driver = driver.COMPUTE_DRIVER

    def __init__(self, directory: pathlib.Path) -> None:
        super().__init__("runTest")
        self._directory = directory
        self.placement_fixture: typing.Any = None
        self._cell_databases: typing.Any = None
        self._moulds: dict[str, copying.Mould] = {}
        self._compute_lock = threading.Lock()
        # Options that are not as they were at the start, with their values
        # of then.
        self._original_options: dict[
            tuple[str, str, str], tuple[typing.Any, typing.Any]
        ] = {}

    def runTest(self) -> None:
        """A test case needs one."""

    def setUp(self) -> None:
        create_context = nova_auth.NovaKeystoneContext._create_context
        super().setUp()
        for _kind, engine in self._engines():
            # A database in memory need not be asked whether it is there.
            engine.pool._pre_ping = False
        # Back from the fixture's idea of a user to the real one.
        nova_auth.NovaKeystoneContext._create_context = staticmethod(
            create_context
        )

    def useFixture(self, fixture: typing.Any) -> typing.Any:
        """Let Nova's fixtures pass, exchange some, remember others."""
        if isinstance(fixture, nova_fixtures.StandardLogging):
            fixture = _LogToStream()
        elif isinstance(fixture, nova_fixtures.NotificationFixture):
            fixture = _NoNotifications()
        elif isinstance(fixture, nova_fixtures.CellDatabases):
            self._cell_databases = fixture
        elif isinstance(fixture, func_fixtures.PlacementFixture):
            self.placement_fixture = fixture
        return super().useFixture(fixture)

    def flags(self, **options: typing.Any) -> None:
        super().flags(**options)
        if "compute_driver" in options:
            # The first thing ProviderUsageBaseTestCase.setUp does; the
            # fixtures only set defaults, so these hold.
            self._configure()

    def _configure(self) -> None:
        paste = pathlib.Path(sys.prefix) / "etc" / "nova" / "api-paste.ini"
        settings: dict[str, dict[str, typing.Any]] = {
            "wsgi": {"api_paste_config": str(paste)},
            "compute": {
                # Inventories changed through the API are seen at once, kept.
                "resource_provider_association_refresh": 0
            },
            "notifications": {"notification_format": "unversioned"},
            "api": {"response_validation": "ignore"},
            "DEFAULT": {
                "report_interval": 5,
                "service_down_time": 60,
                "max_concurrent_builds": 0,
                "max_concurrent_live_migrations": 0,
                "state_path": str(self._directory / "nova"),
            },
            "quota": {"driver": "nova.quota.NoopQuotaDriver"},
        }
        for group, options in settings.items():
            super().flags(
                group=None if group == "DEFAULT" else group, **options
            )

    # Applications.

    def placement_application(self) -> control.Application:
        """Placement's second door, where the token decides."""
        conf = self.placement_fixture.conf_fixture.conf
        conf.set_override("auth_strategy", "keystone", group="api")
        real, placement_deploy.auth.filter_factory = (
            placement_deploy.auth.filter_factory,
            lambda *args, **options: lambda application: application,
        )
        try:
            return typing.cast(
                control.Application, placement_deploy.loadapp(conf)
            )
        finally:
            placement_deploy.auth.filter_factory = real
            conf.set_override("auth_strategy", "noauth2", group="api")

    def compute_application(self) -> control.Application:
        return typing.cast(control.Application, self.api_fixture.app())

    # Operations of the control service.

    def set_option(
        self, service: str, group: str, name: str, value: typing.Any
    ) -> None:
        """Set an option of Nova or Placement until the next reset."""
        conf = {
            "compute": cfg.CONF,
            "placement": self.placement_fixture.conf_fixture.conf,
        }[service]
        self._original_options.setdefault(
            (service, group, name), (conf, conf[group][name])
        )
        conf.set_override(name, value, group=group)
        self._renew_scheduler()

    def set_image_properties(self, properties: dict[str, str]) -> None:
        """What Nova sees of the one image, besides what it is made with."""
        made_with = nova_fixtures.GlanceFixture.image1["properties"]
        self.glance.images[keystone.IMAGE_ID]["properties"] = {
            **made_with,
            **properties,
        }

    def _restore_options(self) -> None:
        for key, (conf, value) in self._original_options.items():
            _service, group, name = key
            conf.set_override(name, value, group=group)
        self._original_options.clear()

    def reset(self) -> None:
        driver.abort_migrations()
        self._restore_options()
        for host in list(self.computes):
            self.stop_compute(host)
        for kind, engine in self._engines():
            with engine.begin() as connection:
                tables = connection.exec_driver_sql(
                    "SELECT name FROM sqlite_master WHERE type = 'table'"
                )
                for table in [row[0] for row in tables]:
                    if table not in _KEPT[kind] and "sqlite" not in table:
                        connection.exec_driver_sql('DELETE FROM "%s"' % table)
                if kind == "cell":
                    connection.exec_driver_sql(
                        "DELETE FROM services WHERE binary = 'nova-compute'"
                    )
        self.host_mappings.clear()
        driver.HYPERVISORS.clear()
        self._forget()

    def _engines(self) -> typing.Iterator[tuple[str, typing.Any]]:
        yield "api", nova_api_db.get_engine()
        for manager in self._cell_databases._ctxt_mgrs.values():
            yield "cell", manager.writer.get_engine()
        yield "placement", placement_db.get_placement_engine()

    def _forget(self) -> None:
        """Drop what Nova keeps in mind about hosts and instances."""
        nova_context.reset_globals()
        objects.Service.clear_min_version_cache()
        quota.UID_QFD_POPULATED_CACHE_BY_PROJECT = set()
        quota.UID_QFD_POPULATED_CACHE_ALL = False
        compute_rpcapi.reset_globals()
        availability_zones.reset_cache()
        report.PLACEMENTCLIENT = None
        self._renew_scheduler()

    def _renew_scheduler(self) -> None:
        """Let the scheduler forget hosts, and read its filters anew."""
        self.scheduler_service.manager.host_manager = (
            host_manager.HostManager()
        )

    def add_host(self, host: dict[str, typing.Any]) -> None:
        children = tuple(
            cloud_spec.ChildProviderSpec(**c) for c in host.pop("children")
        )
        spec = cloud_spec.HostSpec(**host, children=children)
        driver.HYPERVISORS[spec.name] = driver.Hypervisor(spec)
        self.start_compute(spec.name)

    def start_compute(self, host: str) -> None:
        if host in self.computes:
            return
        self._write_provider_config(driver.HYPERVISORS[host].spec)
        with self._compute_lock:
            super().flags(
                group="compute",
                provider_config_location=str(self._provider_config(host)),
            )
            # A new service reads Placement afresh.
            report.report_client_singleton().invalidate_resource_provider(
                cloud_spec.node_uuid(host)
            )
            self._start_compute(host)

    def stop_compute(self, host: str) -> None:
        service = self.computes.pop(host, None)
        if service is not None:
            service.stop()

    def set_inventory(
        self, host: str, resource_class: str, fields: dict[str, float]
    ) -> None:
        """What an operator does: edit provider.yaml, restart nova-compute."""
        hypervisor = driver.HYPERVISORS[host]
        inventory = hypervisor.spec.inventories.setdefault(resource_class, {})
        inventory.update(fields)
        running = host in self.computes
        self.stop_compute(host)
        if running:
            self.start_compute(host)

    def set_migration_behaviour(
        self, host: str | None = None, **fields: typing.Any
    ) -> None:
        for name, hypervisor in driver.HYPERVISORS.items():
            if host in (None, name):
                hypervisor.behaviour = driver.MigrationBehaviour(**fields)

    def moulds(self) -> list[str]:
        """The kinds of instances that can be copied without booting one."""
        return sorted(self._moulds)

    def copy_instances(
        self,
        kind: str,
        flavor: str,
        copies: list[dict[str, typing.Any]],
        original: str | None = None,
    ) -> None:
        """Make equals of a booted instance; see ``copying``."""
        cell = self._cell_databases._ctxt_mgrs[
            self.cell_mappings["cell1"].database_connection
        ]
        copier = copying.Copier(
            cell.writer.get_engine(), nova_api_db.get_engine(), self.placement
        )
        if original is not None:
            self._moulds[kind] = copier.mould(original, flavor)
        copier.copy(
            self._moulds[kind], [copying.Copy(**copy) for copy in copies]
        )

    def count_resources(self) -> None:
        """Let every compute service and the scheduler look around."""
        self._run_periodics()
        self._renew_scheduler()

    def hosts(self) -> dict[str, dict[str, typing.Any]]:
        return {
            name: {
                "running": name in self.computes,
                "guests": sorted(h.guests),
                "inventories": h.spec.inventories,
            }
            for name, h in sorted(driver.HYPERVISORS.items())
        }

    def _provider_config(self, host: str) -> pathlib.Path:
        return self._directory / "hosts" / host

    def _write_provider_config(self, spec: cloud_spec.HostSpec) -> None:
        folder = self._provider_config(spec.name)
        folder.mkdir(parents=True, exist_ok=True)
        provider: dict[str, typing.Any] = {
            "identification": {
                "uuid": spec.uuid
                if spec.identified_by == "uuid"
                else spec.identified_by
            }
        }
        custom = {
            name: fields
            for name, fields in spec.inventories.items()
            if name not in cloud_spec.DRIVER_CLASSES
        }
        if custom:
            provider["inventories"] = {
                "additional": [
                    {name: dict(fields)} for name, fields in custom.items()
                ]
            }
        if spec.traits:
            provider["traits"] = {"additional": list(spec.traits)}
        path = folder / "provider.yaml"
        if not custom and not spec.traits:
            path.unlink(missing_ok=True)
            return
        path.write_text(
            yaml.safe_dump(
                {"meta": {"schema_version": "1.0"}, "providers": [provider]}
            )
        )


def _listen() -> tuple[typing.Any, int]:
    listener = eventlet.listen(("127.0.0.1", 0), backlog=256)
    return listener, listener.getsockname()[1]


def _serve(listener: socket.socket, application: control.Application) -> None:
    eventlet.spawn(
        eventlet.wsgi.server,
        listener,
        application,
        log_output=False,
        debug=False,
        keepalive=True,
        socket_timeout=600,
    )


def main() -> None:
    directory = pathlib.Path(sys.argv[1]).resolve()
    signal.signal(signal.SIGTERM, lambda *args: os._exit(0))
    listeners, ports = {}, {}
    for service in (
        *("identity", "compute", "placement", "image", "network"),
        "control",
    ):
        listeners[service], ports[service] = _listen()
    process.publish(directory, NAME, ports, ready=False)

    driver.register()
    identity = keystone.Identity()
    for service in ("identity", "compute", "placement", "image"):
        identity.set_endpoint(service, ports[service])
    ledger = control.Ledger()
    services = NovaServices(directory)
    services.setUp()

    network = keystone.NetworkApplication(identity, ports["network"])

    image = keystone.ImageApplication()

    def set_image(
        properties: dict[str, str] | None, nova_sees: dict[str, str]
    ) -> None:
        """What Glance says of the image, None for no Glance, and Nova."""
        services.set_image_properties(nova_sees)
        image.properties = dict(properties or {})
        if properties is None:
            identity.remove_endpoint("image")
        else:
            identity.set_endpoint("image", ports["image"])

    def reset() -> None:
        network.set_ports(None)
        set_image({}, {})
        services.reset()

    applications: dict[str, control.Application] = {
        "identity": keystone.IdentityApplication(identity),
        "compute": keystone.Authenticator(
            services.compute_application(), identity, ("", "/v2", "/v2.1")
        ),
        "placement": keystone.Authenticator(
            services.placement_application(), identity, ("",)
        ),
        "image": image,
        "network": keystone.Authenticator(network, identity, ("",)),
    }
    for service, application in applications.items():
        _serve(
            listeners[service], control.Observer(application, service, ledger)
        )
    operations = ledger.operations() | {
        "set_endpoint": identity.set_endpoint,
        "remove_endpoint": identity.remove_endpoint,
        "set_ports": network.set_ports,
        "set_image": set_image,
        "set_option": services.set_option,
        "reset": reset,
        "hosts": services.hosts,
        "add_host": services.add_host,
        "moulds": services.moulds,
        "copy_instances": services.copy_instances,
        "count_resources": services.count_resources,
        "start_compute": services.start_compute,
        "stop_compute": services.stop_compute,
        "set_inventory": services.set_inventory,
        "set_migration_behaviour": services.set_migration_behaviour,
    }
    _serve(listeners["control"], control.ControlApplication(operations))
    process.publish(directory, NAME, ports)
    while True:
        eventlet.sleep(3600)


if __name__ == "__main__":
    main()
