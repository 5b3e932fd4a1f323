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

"""Watcher as the cloud's owner sees it: configure, start, stop, restart."""

from __future__ import annotations

import configparser
import pathlib
import typing

from tests.cloud import control
from tests.cloud import keystone
from tests.cloud import process

if typing.TYPE_CHECKING:
    from tests.cloud import cloud

Options = dict[tuple[str, str], typing.Any]
_START_SECONDS = 90.0


class Watcher:
    """The Watcher process of a cloud."""

    def __init__(
        self,
        owner: cloud.EmbeddedCloud,
        service: process.ServiceProcess,
        detached: bool,
    ) -> None:
        self._cloud = owner
        self._process = service
        self._detached = detached
        self._options: Options = {}
        self._user = "watcher"
        # Kept over a restart, if it is still free then.
        self._port = 0

    @property
    def record(self) -> process.Record | None:
        """What the running process says about itself."""
        return self._process.record

    @property
    def running(self) -> bool:
        return self.record is not None

    @property
    def control(self) -> control.ControlClient:
        record = self.record
        if record is None:
            raise control.ControlError("Watcher does not run")
        return control.ControlClient(record.ports["control"])

    # Starting and stopping.

    def launch(self, options: Options | None = None) -> None:
        """Start without waiting."""
        if options is not None:
            self._options = dict(options)
        self._write_configuration()
        self._process.start(self._detached, [str(self._port)])

    def wait(self) -> None:
        """Wait until it serves, and enter it into the catalogue."""
        record = self._process.wait(_START_SECONDS)
        self._port = record.ports["infra-optim"]
        self._cloud.control.call(
            "set_endpoint", service="infra-optim", port=self._port
        )

    def start(self) -> None:
        try:
            self.launch()
            self.wait()
        except process.ProcessError:
            self._process.stop()
            raise

    def stop(self) -> None:
        self._process.stop()

    def restart(self) -> None:
        self.stop()
        self.start()

    def attach(self) -> None:
        """Take over what another process configured."""
        parser = _parser()
        parser.read(self.configuration_path)
        record = self._process.record
        if record is not None:
            self._port = record.ports["infra-optim"]
        self._user = parser.get(
            "watcher_clients_auth", "username", fallback="watcher"
        )
        self._options = {
            (group, name): value
            for group in parser.sections()
            for name, value in parser.items(group)
        }

    def configure(
        self, options: Options | None = None, user: str = "watcher"
    ) -> None:
        """Run with exactly these options; restart only for a difference.

        ``user`` is whom Watcher's clients authenticate as.
        """
        wanted = dict(options or {})
        if (wanted, user) == (self._options, self._user) and self.running:
            return
        self._options, self._user = wanted, user
        self.restart()

    # Operations of the running process.

    def synchronize_model(self) -> None:
        """Let the decision engine rebuild its compute model now."""
        self.control.call("synchronize_model")

    def dictate(self, *moves: tuple[str, str], reasons: bool = True) -> None:
        """Let audits plan these (instance, target), until ``forget``."""
        self.control.call("dictate", moves=moves, reasons=reasons)

    def forget(self) -> None:
        """Drop all audits, action plans and templates."""
        if self.running:
            self.control.call("clear_faults")
            self.control.call("forget")

    def refresh(self) -> None:
        """Rebuild the model if there is one already."""
        if self.running:
            self.control.call("synchronize_model", build=False)

    def model(self) -> str:
        """The compute model as XML."""
        return typing.cast(str, self.control.call("model"))

    # The log.

    @property
    def log_path(self) -> pathlib.Path:
        return self._process.log_path

    def log_mark(self) -> int:
        """The present length of the log, for ``log``."""
        return self.log_path.stat().st_size if self.log_path.exists() else 0

    def log(self, since: int = 0) -> str:
        """The log's text, from a ``log_mark`` on."""
        if not self.log_path.exists():
            return ""
        with open(self.log_path, "rb") as stream:
            stream.seek(since)
            return stream.read().decode("utf-8", "replace")

    # Configuration.

    @property
    def configuration_path(self) -> pathlib.Path:
        return self._cloud.directory / "watcher.conf"

    def _write_configuration(self) -> None:
        options = _defaults(self._cloud, self._user) | self._options
        parser = _parser()
        for (group, name), value in sorted(options.items()):
            if not parser.has_section(group):
                parser.add_section(group)
            parser.set(group, name, str(value))
        with open(self.configuration_path, "w") as stream:
            parser.write(stream)


def _parser() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        interpolation=None,
        default_section="no default section",
        delimiters=("=",),
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    return parser


def _defaults(owner: cloud.EmbeddedCloud, user: str) -> Options:
    options: Options = {
        ("DEFAULT", "transport_url"): "fake:/",
        ("DEFAULT", "host"): "watcher-host",
        ("DEFAULT", "debug"): False,
        ("DEFAULT", "use_stderr"): True,
        ("DEFAULT", "state_path"): owner.directory / "tmp",
        ("DEFAULT", "periodic_interval"): 10,
        ("database", "connection"): "sqlite:///%s"
        % (owner.directory / "watcher.sqlite"),
        ("oslo_concurrency", "lock_path"): owner.directory / "tmp",
        ("oslo_messaging_notifications", "driver"): "noop",
        ("watcher_decision_engine", "continuous_audit_interval"): 2,
        ("watcher_workflow_engines.taskflow", "max_workers"): 4,
        ("collector", "collector_plugins"): "compute",
        ("collector", "api_query_max_retries"): 2,
        ("collector", "api_query_interval"): 1,
        # Without telemetry a strategy shall find that out at once.
        ("watcher_datasources", "query_max_retries"): 1,
        ("watcher_datasources", "query_interval"): 0,
        ("watcher_datasources", "query_timeout"): 0,
        ("compute_model", "enable_extended_attributes"): True,
        ("nova", "migration_max_retries"): 60,
        ("nova", "migration_interval"): 0.5,
        ("nova", "api_version"): "2.96",
        ("nova_client", "api_version"): "2.96",
    }
    for group, name in (
        ("keystone_authtoken", "watcher"),
        ("watcher_clients_auth", user),
        ("nova", user),
        ("placement", user),
    ):
        options.update(
            {
                (group, "auth_type"): "password",
                (group, "auth_url"): owner.auth_url,
                (group, "username"): name,
                (group, "password"): keystone.PASSWORD,
                (group, "project_name"): keystone.USERS[name][0],
                (group, "user_domain_id"): "default",
                (group, "project_domain_id"): "default",
            }
        )
    options["keystone_authtoken", "www_authenticate_uri"] = owner.auth_url
    return options
