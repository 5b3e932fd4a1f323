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


"""DevStack as its plugins see it: the phases, the files, the commands.

``Stack.run`` sources the plugin for one phase, in a shell that has what
DevStack's plugin interface promises (``functions.sh``). Around the phases
``Stack.stack`` does what stack.sh does: it lays out the files of the services
before ``post-config`` and starts nova-compute after it, with the
configuration that the plugin has left.
"""

from collections.abc import Iterable, Mapping
import pathlib
import shutil
import subprocess
import sys
from typing import Any

from ceilometer import pipeline
import yaml

from tests.cloud import EmbeddedCloud

PROJECT = pathlib.Path(__file__).parents[2]
PLUGIN = PROJECT / "devstack"
PHASES = ("pre-install", "install", "post-config", "extra", "test-config")
# Those of a machine that has everything.
SERVICES = (
    "n-api",
    "n-cpu",
    "placement-api",
    "watcher-api",
    "watcher-decision-engine",
    "watcher-applier",
    "tempest",
)
TELEMETRY = (
    "ceilometer-acompute",
    "ceilometer-anotification",
    "gnocchi-api",
)


class Stack:
    """One machine that DevStack sets up.

    :param directory: stands for the root of its file system
    :param cloud: where its services are; None for phases that need none
    :param services: what ENABLED_SERVICES has
    :param localrc: variables of local.conf
    :param command: the ``openstack`` command, if a phase needs one
    """

    def __init__(
        self,
        directory: pathlib.Path,
        cloud: EmbeddedCloud | None = None,
        services: Iterable[str] = SERVICES,
        localrc: Mapping[str, object] | None = None,
        command: pathlib.Path | None = None,
    ) -> None:
        self.directory = directory
        self.cloud = cloud
        self._command = command
        self.etc = directory / "etc"
        self.nova_conf = self.etc / "nova" / "nova.conf"
        self.watcher_conf = self.etc / "watcher" / "watcher.conf"
        self.tempest_conf = self.etc / "tempest.conf"
        self.provider_config = self.etc / "nova" / "provider_config"
        self.ceilometer = self.etc / "ceilometer"
        self.localrc = {
            "ENABLED_SERVICES": ",".join(services),
            "STACK_USER": "$(id -un)",
            "DEST": directory,
            "DATA_DIR": directory / "data",
            "NOVA_CONF": self.nova_conf,
            "WATCHER_CONF": self.watcher_conf,
            "CEILOMETER_CONF_DIR": self.ceilometer,
            "TEMPEST_CONFIG": self.tempest_conf,
            "CPUTIER_PROVIDER_CONFIG_DIR": self.provider_config,
            "PYTHON": sys.executable,
            "SERVICE_TIMEOUT": 30,
            "VIRT_DRIVER": "fake",
            "NUMBER_FAKE_NOVA_COMPUTE": 2,
            "HOSTNAME": "compute",
            **(localrc or {}),
        }

    # What stack.sh does around the plugin.

    def lay_out(self, backends: Iterable[str] = ("gnocchi",)) -> None:
        """The files of services and commands, as they are before ours."""
        for path, text in (
            (self.nova_conf, "[DEFAULT]\ndebug = True\n"),
            (self.watcher_conf, "[DEFAULT]\ndebug = True\n"),
            (self.tempest_conf, "[DEFAULT]\n"),
        ):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self._lay_out_telemetry(backends)
        if self._command is not None:
            binaries = self.directory / "bin"
            binaries.mkdir(exist_ok=True)
            (binaries / "openstack").symlink_to(self._command)

    def _lay_out_telemetry(self, backends: Iterable[str]) -> None:
        """As Ceilometer's own plugin makes them of Ceilometer's samples.

        It polls everything, and gives its publisher options, among them the
        archive policy that our defaults tell it.
        """
        policy = subprocess.run(
            [
                "bash",
                "-c",
                'source "$0"; echo "$GNOCCHI_ARCHIVE_POLICY"',
                str(PLUGIN / "override-defaults"),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        self.ceilometer.mkdir(parents=True, exist_ok=True)
        samples = pathlib.Path(sys.prefix, "etc", "ceilometer")
        shutil.copy(samples / "polling_all.yaml", self.polling)
        data = pathlib.Path(pipeline.__file__).parent / "data"
        told = yaml.safe_load((data / "pipeline.yaml").read_text())
        addresses = {
            "gnocchi": f"gnocchi://?archive_policy={policy}"
            "&filter_project=service",
            "sg-core": "tcp://127.0.0.1:4242",
        }
        told["sinks"][0]["publishers"] = [addresses[one] for one in backends]
        self.pipeline.write_text(yaml.safe_dump(told, indent=4))

    @property
    def polling(self) -> pathlib.Path:
        """Ceilometer's polling.yaml."""
        return self.ceilometer / "polling.yaml"

    @property
    def pipeline(self) -> pathlib.Path:
        """Ceilometer's pipeline.yaml."""
        return self.ceilometer / "pipeline.yaml"

    def start_compute(self) -> None:
        """Start every nova-compute with the provider configuration."""
        assert self.cloud is not None
        for host in self.cloud.spec.hosts:
            own = self.cloud.directory / "hosts" / host.name
            for path in own.glob("*.yaml"):
                path.unlink()
            if self.provider_config.is_dir():
                shutil.copytree(self.provider_config, own, dirs_exist_ok=True)
            self.cloud.restart_compute(host.name)

    def stack(self) -> list[str]:
        """All of stack.sh; what the phases said.

        :raises AssertionError: if one of them fails
        """
        said = []
        for phase in PHASES:
            done = self.run("stack", phase)
            assert done.returncode == 0, (phase, done.stdout, done.stderr)
            said.append(done.stdout)
            if phase == "post-config" and self.cloud is not None:
                self.start_compute()
        return said

    def run(
        self, mode: str, phase: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Source the plugin for one phase."""
        localrc = self.directory / "localrc"
        localrc.write_text(
            "".join(
                f'{name}="{value}"\n' for name, value in self.localrc.items()
            )
        )
        return subprocess.run(
            [
                "bash",
                "-u",
                str(PROJECT / "tests" / "devstack" / "run.sh"),
                str(localrc),
                mode,
                *([phase] if phase else []),
            ],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        environment = {
            "PATH": f"{self.directory / 'bin'}:/usr/bin:/bin",
            "HOME": str(self.directory),
            "NO_PROXY": "127.0.0.1",
        }
        if self.cloud is not None:
            clouds = yaml.safe_load(self.cloud.clouds_yaml.read_text())
            clouds["clouds"]["devstack-admin"] = clouds["clouds"]["admin"]
            path = self.directory / "clouds.yaml"
            path.write_text(yaml.safe_dump(clouds))
            environment["OS_CLIENT_CONFIG_FILE"] = str(path)
        return environment

    # What it has come to.

    def files(self) -> dict[str, bytes]:
        """Every file of the machine's configuration and state."""
        return {
            str(path.relative_to(self.directory)): path.read_bytes()
            for part in (self.etc, self.directory / "data")
            for path in sorted(part.rglob("*"))
            if path.is_file()
        }

    def objects(self) -> dict[str, Any]:
        """What the cloud's services have, as they tell it themselves."""
        assert self.cloud is not None
        placement, compute, optimize = (
            self.cloud.adapter(service)
            for service in ("placement", "compute", "infra-optim")
        )
        providers = placement.get("/resource_providers").json()
        found = {
            "classes": placement.get("/resource_classes").json(),
            "providers": providers,
            "flavors": compute.get("/flavors/detail?is_public=None").json(),
            "templates": optimize.get("/v1/audit_templates/detail").json(),
        }
        for one in providers["resource_providers"]:
            found[one["name"]] = placement.get(
                f"/resource_providers/{one['uuid']}/inventories"
            ).json()
        if self.cloud.gnocchi.running:
            metric = self.cloud.adapter("metric")
            found["policies"] = metric.get("/v1/archive_policy").json()
        return found
