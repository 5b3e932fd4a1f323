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

"""The running cloud: its processes, its directory, its public operations.

``EmbeddedCloud`` starts two processes, that of Nova (with Placement and the
stub Keystone) and that of Watcher, and talks to them through their public
APIs and their control services. It is a fixture: ``setUp`` starts,
``cleanUp`` stops what was started. ``attach`` reaches a cloud that another
process started detached.

Everything of a cloud is below its directory::

    cloud.json             who runs it
    clouds.yaml            for OS_CLIENT_CONFIG_FILE
    spec.yaml              the state declared last
    run/NAME.json          pid, start time and ports of a process
    log/NAME.log
    hosts/HOST/provider.yaml
    watcher.conf, watcher.sqlite
    tmp/                   the processes' temporary files
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import sys
import tempfile
import time
import typing

import fixtures
from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import session
from keystoneauth1.identity import v3
import requests
import yaml

from tests.cloud import control
from tests.cloud import gnocchi
from tests.cloud import keystone
from tests.cloud import population
from tests.cloud import process
from tests.cloud import prometheus
from tests.cloud import spec as cloud_spec
from tests.cloud import watcher

if typing.TYPE_CHECKING:
    from openstack import connection

PLACEMENT_VERSION = "1.36"
# osc-placement knows gaps: 1.30 to 1.36 are none of its versions.
CLI_PLACEMENT_VERSION = "1.39"
CLI_OPTIMIZE_VERSION = (1, 5)
_ROOT = pathlib.Path(__file__).resolve().parents[2]
_START_SECONDS = 120.0

Progress = typing.Callable[[str], typing.Any]


class CloudError(RuntimeError):
    """The cloud cannot be started or reached."""


class EmbeddedCloud(fixtures.Fixture):
    """Real Placement, Nova and Watcher below one directory."""

    def __init__(
        self,
        spec: cloud_spec.CloudSpec | None = None,
        directory: str | os.PathLike[str] | None = None,
        python: str = sys.executable,
        watcher_options: watcher.Options | None = None,
        progress: Progress | None = None,
        detached: bool = False,
        with_watcher: bool = True,
        copy_instances: bool = True,
        placement: str | None = None,
    ) -> None:
        super().__init__()
        self._initial = spec
        self._given = directory
        self._python = python
        self._watcher_options = dict(watcher_options or {})
        self._progress = progress or (lambda text: None)
        self._detached = detached
        self._with_watcher = with_watcher
        self._copy_instances = copy_instances
        self._placement = placement
        self._adapters: dict[
            tuple[str, str, str | None], ksa_adapter.Adapter
        ] = {}

    # Lifecycle.

    def setUp(self) -> None:
        try:
            super().setUp()
        except fixtures.MultipleExceptions as errors:
            # What went wrong, without the fixture's wrapping.
            for _kind, error, _traceback in errors.args:
                if isinstance(error, CloudError):
                    raise error from None
            raise

    def _setUp(self) -> None:
        begun = time.monotonic()
        self._make_directory()
        self._prepare()
        self._claim()
        if not self._detached:
            self.addCleanup(self.stop)
        self._progress("starting Nova, Placement and Keystone")
        self._nova.start(self._detached)
        try:
            record = self._nova.wait(_START_SECONDS, ready=False)
            self._reach(record.ports)
            if self._with_watcher:
                self._progress("starting Watcher")
                self.watcher.launch(self._watcher_options)
            self._nova.wait(_START_SECONDS)
            if self._initial is not None:
                self._populate(self._initial)
            if self._with_watcher:
                self.watcher.wait()
        except (
            process.ProcessError,
            control.ControlError,
            population.PopulationError,
        ) as error:
            self.stop()
            raise CloudError(
                "the embedded cloud did not start: %s" % error
            ) from error
        except BaseException:
            self.stop()
            raise
        self._progress(
            "the cloud is up after %.1f s" % (time.monotonic() - begun)
        )

    @classmethod
    def attach(cls, directory: str | os.PathLike[str]) -> EmbeddedCloud:
        """Reach a cloud that runs detached, instead of starting one."""
        if not (pathlib.Path(directory) / "cloud.json").exists():
            raise CloudError("no cloud was started in %s" % directory)
        cloud = cls(directory=directory, detached=True)
        cloud._make_directory()
        cloud._prepare()
        record = cloud._nova.record
        if record is None:
            raise CloudError("no cloud is running in %s" % cloud.directory)
        cloud._reach(record.ports)
        cloud.watcher.attach()
        path = cloud.directory / "spec.yaml"
        if path.exists():
            cloud.spec = cloud_spec.CloudSpec.from_yaml(path)
        return cloud

    @classmethod
    def stop_directory(cls, directory: str | os.PathLike[str]) -> bool:
        """Stop whatever runs in a directory; tells whether anything did."""
        cloud = cls(directory=directory)
        cloud._make_directory()
        cloud._prepare()
        running = bool(cloud.processes())
        cloud.stop()
        return running

    def processes(self) -> dict[str, process.Record]:
        """The living processes by their names."""
        found = {
            "nova": self._nova.record,
            "watcher": self.watcher.record,
            "gnocchi": self.gnocchi.record,
            "prometheus": self.prometheus.record,
        }
        return {
            name: record
            for name, record in found.items()
            if record is not None
        }

    def report_to(self, progress: Progress) -> None:
        """Tell ``progress`` from now on what goes on."""
        self._progress = progress

    def stop(self) -> None:
        """Stop the processes, by their pids; their files stay."""
        self.watcher.stop()
        self.gnocchi.discard()
        self.prometheus.discard()
        self._nova.stop()
        (self.directory / "cloud.json").unlink(missing_ok=True)

    def _make_directory(self) -> None:
        if self._given is None:
            self.directory = pathlib.Path(
                tempfile.mkdtemp(prefix="embedded-cloud-")
            )
            self.addCleanup(shutil.rmtree, self.directory, ignore_errors=True)
        else:
            self.directory = pathlib.Path(self._given).resolve()
            self.directory.mkdir(parents=True, exist_ok=True)

    def _prepare(self) -> None:
        self.spec = cloud_spec.CloudSpec()
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
        # Another release of Placement stands before the installed one.
        own = filter(None, (self._placement, environment["PYTHONPATH"]))
        self._nova = process.ServiceProcess(
            self.directory,
            "nova",
            [
                self._python,
                "-m",
                "tests.cloud.nova_process",
                str(self.directory),
            ],
            {**environment, "PYTHONPATH": os.pathsep.join(own)},
        )
        self.watcher = watcher.Watcher(
            self,
            process.ServiceProcess(
                self.directory,
                "watcher",
                [
                    self._python,
                    "-m",
                    "tests.cloud.watcher_process",
                    str(self.directory),
                ],
                environment,
            ),
            self._detached,
        )
        self.gnocchi = gnocchi.Gnocchi(self, environment, self._python)
        self.prometheus = prometheus.Prometheus(
            self, environment, self._python
        )
        self.population = population.Population(
            self._compute,
            # Not the method itself: the control is another after a restart.
            lambda *args, **values: self.control.call(*args, **values),  # noqa: PLW0108
        )

    def _claim(self) -> None:
        """Take the directory: refuse a living owner, end leftovers."""
        path = self.directory / "cloud.json"
        try:
            owner = json.loads(path.read_text())
        except (OSError, ValueError):
            owner = None
        if owner is not None:
            alive = process.start_time(owner["pid"]) == owner["started"]
            if owner["detached"]:
                alive = self._nova.record is not None
            if alive:
                raise CloudError(
                    "a cloud already runs in %s (started by process %d); "
                    "stop it first or take another directory"
                    % (self.directory, owner["pid"])
                )
        self.stop()
        for name in (
            "tmp",
            "hosts",
            "nova",
            "log",
            "watcher.sqlite",
            "watcher.sqlite-wal",
            "watcher.sqlite-shm",
        ):
            target = self.directory / name
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink(missing_ok=True)
        (self.directory / "tmp").mkdir()
        # Wherever it lives, no repository shall see it.
        (self.directory / ".gitignore").write_text("*\n")
        pid = os.getpid()
        path.write_text(
            json.dumps(
                {
                    "pid": pid,
                    "started": process.start_time(pid),
                    "detached": self._detached,
                }
            )
        )

    def _reach(self, ports: dict[str, int]) -> None:
        self.ports = dict(ports)
        self.auth_url = "http://127.0.0.1:%d/v3" % ports["identity"]
        self.control = control.ControlClient(ports["control"])
        self._adapters.clear()
        self.clouds_yaml = self.directory / "clouds.yaml"
        self.clouds_yaml.write_text(
            yaml.safe_dump(
                {
                    "clouds": {
                        name: {
                            "region_name": keystone.REGION,
                            "identity_api_version": 3,
                            "auth": self._auth(name),
                        }
                        for name in keystone.USERS
                    }
                }
            )
        )

    def _auth(
        self, user: str, project: str | None = None
    ) -> dict[str, typing.Any]:
        return {
            "auth_url": self.auth_url,
            "username": user,
            "password": keystone.PASSWORD,
            "project_name": project or keystone.USERS[user][0],
            "user_domain_id": "default",
            "project_domain_id": "default",
        }

    # Declared states.

    def load(self, spec: cloud_spec.CloudSpec) -> None:
        """Bring the running cloud to another declared state."""
        begun = time.monotonic()
        self.control.call("clear_faults")
        self.watcher.forget()
        self.control.call("reset")
        self._populate(spec)
        self.watcher.refresh()
        self._progress(
            "the declared state is reached after %.1f s"
            % (time.monotonic() - begun)
        )

    def _populate(self, spec: cloud_spec.CloudSpec) -> None:
        self._progress("starting %d compute services" % len(spec.hosts))
        for host in spec.to_data()["hosts"]:
            self.control.call("add_host", host=host)
        self.population.declare(spec)
        self._progress(
            "booting %d instances" % sum(i.count for i in spec.instances)
        )
        if self._copy_instances:
            self.population.fill(spec)
        else:
            self.population.boot(spec.instances)
        self.spec = spec
        (self.directory / "spec.yaml").write_text(
            yaml.safe_dump(
                json.loads(json.dumps(spec.to_data())), sort_keys=False
            )
        )

    # Clients.

    def adapter(
        self, service: str, user: str = "admin", project: str | None = None
    ) -> ksa_adapter.Adapter:
        """A keystoneauth adapter for a service type, as a user."""
        key = (service, user, project)
        if key not in self._adapters:
            http = requests.Session()
            # A proxy of the environment must not see loopback traffic.
            http.trust_env = False
            keystone_session = session.Session(
                auth=v3.Password(**self._auth(user, project)), session=http
            )
            version = {
                "compute": population.COMPUTE_VERSION,
                "placement": PLACEMENT_VERSION,
            }.get(service)
            self._adapters[key] = ksa_adapter.Adapter(
                keystone_session,
                service_type=service,
                interface="public",
                region_name=keystone.REGION,
                default_microversion=version,
            )
        return self._adapters[key]

    def _compute(self, project: str | None = None) -> ksa_adapter.Adapter:
        return self.adapter("compute", project=project)

    @property
    def placement(self) -> ksa_adapter.Adapter:
        return self.adapter("placement")

    def connection(self, user: str = "admin") -> connection.Connection:
        """An openstacksdk connection as ``user``."""
        import openstack

        return openstack.connect(
            load_yaml_config=False,
            load_envvars=False,
            region_name=keystone.REGION,
            auth=self._auth(user),
            compute_api_version="2",
            identity_api_version="3",
        )

    def environment(self, user: str = "admin") -> dict[str, str]:
        """The variables that make the openstack command use this cloud."""
        return {
            "OS_AUTH_URL": self.auth_url,
            "OS_USERNAME": user,
            "OS_PASSWORD": keystone.PASSWORD,
            "OS_PROJECT_NAME": keystone.USERS[user][0],
            "OS_USER_DOMAIN_ID": "default",
            "OS_PROJECT_DOMAIN_ID": "default",
            "OS_IDENTITY_API_VERSION": "3",
            "OS_REGION_NAME": keystone.REGION,
            "OS_PLACEMENT_API_VERSION": CLI_PLACEMENT_VERSION,
            "OS_INFRA_OPTIM_API_VERSION": self._optimize_version(),
            "OS_COMPUTE_API_VERSION": population.COMPUTE_VERSION,
        }

    def _optimize_version(self) -> str:
        """What the client and this Watcher both know; 1.4 is the oldest's."""
        if not self.watcher.running:
            return "1.4"
        data = self.adapter("infra-optim").get_endpoint_data()
        newest = data.max_microversion if data is not None else None
        return "%d.%d" % min(newest or (1, 4), CLI_OPTIMIZE_VERSION)

    # Operations, which are also the actions of events.

    def apply(self, event: cloud_spec.EventSpec | str) -> typing.Any:
        """Let a declared event happen, given by itself or by its name."""
        if isinstance(event, str):
            event = self.spec.event(event)
        arguments = dict(event.arguments)
        return getattr(self, event.action)(**arguments)

    def boot(
        self, instance: cloud_spec.InstanceSpec | dict[str, typing.Any]
    ) -> dict[str, str]:
        """Boot and wait; returns the uuids by name."""
        if isinstance(instance, dict):
            instance = cloud_spec.InstanceSpec(**instance)
        return self.population.boot([instance])

    def delete(self, name: str) -> None:
        self.population.delete(name)

    def lock(self, name: str) -> None:
        self.population.act(self.server_id(name), "lock")

    def unlock(self, name: str) -> None:
        self.population.act(self.server_id(name), "unlock")

    def server_id(self, name: str) -> str:
        return self.population.server_id(name)

    def locations(self) -> dict[str, str]:
        """Where every instance is: host names by instance names."""
        return {
            s["name"]: s["OS-EXT-SRV-ATTR:host"]
            for s in self.population.servers()
        }

    def live_migrate(
        self, name: str, host: str | None = None, wait: bool = True
    ) -> str:
        """Ask Nova to move an instance; returns the migration's status."""
        key = self.server_id(name)
        earlier = {m["id"] for m in self.migrations(key)}
        self.population.act(
            key, "os-migrateLive", {"host": host, "block_migration": "auto"}
        )
        deadline = time.monotonic() + 60
        status = "not begun"
        while wait and time.monotonic() < deadline:
            for migration in self.migrations(key):
                if migration["id"] not in earlier:
                    status = str(migration["status"])
            if status in ("completed", "error", "failed", "cancelled"):
                self._settle(key)
                return status
            time.sleep(0.1)
        if wait:
            raise CloudError(
                "the migration of %s is still %s" % (name, status)
            )
        return status

    def migrations(self, server: str) -> list[dict[str, typing.Any]]:
        """Nova's records of the migrations of an instance."""
        answer = (
            self._compute()
            .get("/os-migrations", params={"instance_uuid": server})
            .json()
        )
        return typing.cast("list[dict[str, typing.Any]]", answer["migrations"])

    def _settle(self, server: str) -> None:
        """Wait until no task holds the instance any more."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            answer = self._compute().get("/servers/%s" % server).json()
            if answer["server"]["OS-EXT-STS:task_state"] is None:
                return
            time.sleep(0.05)

    def set_inventory(
        self,
        host: str,
        resource_class: str,
        via: str = "provider.yaml",
        provider: str | None = None,
        **fields: typing.Any,
    ) -> None:
        """Change fields of an inventory, as an operator would.

        ``via="provider.yaml"`` edits the file and restarts that compute
        service, ``via="api"`` writes to Placement (there also on a child
        provider, named by ``provider``).
        """
        if via == "provider.yaml":
            self.control.call(
                "set_inventory",
                host=host,
                resource_class=resource_class,
                fields=fields,
            )
            return
        key = self.provider_uuid(provider or host)
        url = "/resource_providers/%s/inventories/%s" % (key, resource_class)
        for _attempt in range(5):
            current = self.placement.get(url, raise_exc=False)
            generation = self.placement.get(
                "/resource_providers/%s" % key
            ).json()["generation"]
            body = current.json() if current.status_code == 200 else {}
            body.update(fields, resource_provider_generation=generation)
            if current.status_code == 200:
                answer = self.placement.put(url, json=body, raise_exc=False)
            else:
                answer = self.placement.post(
                    "/resource_providers/%s/inventories" % key,
                    json=body | {"resource_class": resource_class},
                    raise_exc=False,
                )
            if answer.status_code != 409:
                break
        if answer.status_code >= 400:
            raise CloudError(
                "Placement refused the inventory of %s: %s"
                % (host, answer.text)
            )

    def provider_uuid(self, name: str) -> str:
        found = self.placement.get(
            "/resource_providers", params={"name": name}
        ).json()["resource_providers"]
        if not found:
            raise CloudError("no resource provider is named %s" % name)
        return str(found[0]["uuid"])

    def disable_service(self, host: str) -> None:
        self.population.set_service(host, status="disabled")

    def enable_service(self, host: str) -> None:
        self.population.set_service(host, status="enabled")

    def stop_compute(self, host: str) -> None:
        """Stop the compute service; Nova sees it down at once."""
        self.control.call("stop_compute", host=host)
        self.population.set_service(host, forced_down=True)

    def start_compute(self, host: str) -> None:
        self.control.call("start_compute", host=host)
        self.population.set_service(host, forced_down=False)

    def restart_compute(self, host: str) -> None:
        self.control.call("stop_compute", host=host)
        self.control.call("start_compute", host=host)

    def set_migration_behaviour(
        self,
        host: str | None = None,
        duration_seconds: float = 0.2,
        outcome: str = "success",
    ) -> None:
        """How live migrations go that leave (or, refused, reach) a host."""
        if outcome not in ("success", "fail", "refuse"):
            raise ValueError("outcome is success, fail or refuse")
        self.control.call(
            "set_migration_behaviour",
            host=host,
            duration_seconds=duration_seconds,
            outcome=outcome,
        )

    def set_option(
        self, service: str, group: str, name: str, value: typing.Any
    ) -> None:
        """Set an option of ``compute`` or ``placement`` until ``load``."""
        self.control.call(
            "set_option", service=service, group=group, name=name, value=value
        )

    def set_ports(self, ports: list[dict[str, typing.Any]] | None) -> None:
        """Give the cloud a Neutron with these ports, or None, until ``load``.

        A port has at least ``id`` and ``device_id``, the instance's uuid.
        """
        self.control.call("set_ports", ports=ports)

    def set_image(
        self,
        properties: dict[str, str] | None,
        nova_sees: dict[str, str] | None = None,
    ) -> None:
        """Give the one image properties until ``load``; None: no Glance.

        :param nova_sees: what Nova is told of the image, where it is not
            the same
        """
        self.control.call(
            "set_image",
            properties=properties,
            nova_sees=(properties or {}) if nova_sees is None else nova_sees,
        )

    # Watching and disturbing.

    def mark(self) -> float:
        """Now; give it to ``requests`` or ``watcher.log`` later."""
        return time.monotonic()

    def requests(
        self, service: str | None = None, since: float | None = None
    ) -> list[control.Request]:
        """The API requests that services saw, in order."""
        answers = []
        for client in self._controls(service):
            answers += client.call("requests", service=service, since=since)
        return sorted(
            (control.Request(**a) for a in answers),
            key=lambda request: request.mark,
        )

    def inject(
        self,
        service: str,
        method: str | None = None,
        path_regex: str = ".*",
        **fault: typing.Any,
    ) -> None:
        """Disturb matching requests: status, delay_seconds or drop=True."""
        for client in self._controls(service):
            client.call(
                "inject",
                service=service,
                method=method,
                path_regex=path_regex,
                **fault,
            )

    def clear_faults(self) -> None:
        for client in self._controls(None):
            client.call("clear_faults")

    def set_endpoint(self, service: str, port: int) -> None:
        """Enter a further service on loopback into the catalogue."""
        self.control.call("set_endpoint", service=service, port=port)

    def remove_endpoint(self, service: str) -> None:
        """Take a service out of the catalogue again."""
        self.control.call("remove_endpoint", service=service)

    def _controls(self, service: str | None) -> list[control.ControlClient]:
        measured = {
            gnocchi.SERVICE: self.gnocchi,
            prometheus.DIRECT: self.prometheus,
            prometheus.AETOS: self.prometheus,
        }
        controls = []
        if service != "infra-optim" and service not in measured:
            controls.append(self.control)
        if service in (None, "infra-optim") and self.watcher.running:
            controls.append(self.watcher.control)
        for one in (self.gnocchi, self.prometheus):
            wanted = service is None or measured.get(service) is one
            if wanted and one.running:
                controls.append(one.control)
        return controls
