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

"""Ceilometer's own agents, run in the test's process.

``ComputeAgent`` is the agent of a compute host: the real polling manager, with
whatever pollsters and inspector are installed. What it would put on the bus is
kept instead, by oslo.messaging's own test driver; ``NotificationAgent`` takes
it from there through the real pipeline to its publishers.
"""

import pathlib
import shutil
from typing import Any

from ceilometer import keystone_client
from ceilometer import messaging
from ceilometer import opts
from ceilometer import sample as ceilometer_sample
from ceilometer.compute import pollsters
from ceilometer.pipeline import sample as sample_pipeline
from ceilometer.polling import manager as polling_manager
from ceilometer.telemetry import notifications
from oslo_config import cfg
from oslo_log import log
from oslo_messaging.notify import _impl_test as kept

PROJECT = pathlib.Path(__file__).parents[1]
SAMPLES = PROJECT / "etc" / "ceilometer"


def configure(folder: pathlib.Path, **overrides: Any) -> cfg.ConfigOpts:
    """Lay out ``/etc/ceilometer`` as the samples say, and read it.

    ``service.prepare_service`` would do more: it takes over the process's log.

    :param folder: where the configuration is to be; a ``ceilometer.conf``
        that is there already counts
    :param overrides: ``GROUP__OPTION=value``, or ``OPTION=value`` of DEFAULT
    """
    shutil.copytree(SAMPLES, folder, dirs_exist_ok=True)
    file = folder / "ceilometer.conf"
    if not file.exists():
        # Where no service is asked, none has to be reached.
        file.write_text("[service_credentials]\nauth_type = none\n")
    conf = cfg.ConfigOpts()
    for group, options in opts.list_opts():
        conf.register_opts(
            list(options), group=None if group == "DEFAULT" else group
        )
    keystone_client.register_keystoneauth_opts(conf)
    log.register_options(conf)
    conf(["--config-file", str(file)])
    keystone_client.post_register_keystoneauth_opts(conf)
    ceilometer_sample.setup(conf)
    messaging.setup()
    conf.set_override("telemetry_driver", "test", "publisher_notifier")
    for name, value in overrides.items():
        group, _, option = name.rpartition("__")
        conf.set_override(option, value, group or None)
    return conf


class ComputeAgent:
    """One compute host's polling agent.

    :param conf: see ``configure``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        # One inspector serves all agents of a process, so as to share its
        # connection; here each agent has its own hypervisor.
        if hasattr(pollsters.GenericComputePollster, "_inspector"):
            del pollsters.GenericComputePollster._inspector
        messaging.TRANSPORTS[messaging.DEFAULT_URL] = messaging.get_transport(
            conf, "fake://", cache=False
        )
        self.manager = polling_manager.AgentManager(0, conf, "compute")
        # No session with Keystone: nothing that is polled here needs one.
        self.manager._keystone = object()
        self.manager.polling_manager = polling_manager.PollingManager(conf)
        self.tasks = self.manager.setup_polling_tasks()

    @property
    def pollsters(self) -> dict[str, Any]:
        """The pollsters that were found, by name."""
        return {e.name: e.obj for e in self.manager.extensions}

    def poll(self) -> list[dict[str, Any]]:
        """Poll every source once; the messages it sends."""
        kept.NOTIFICATIONS.clear()
        for task in self.tasks.values():
            task.poll_and_notify()
        return [message for _, message, _, _ in kept.NOTIFICATIONS]


def samples(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The samples in an agent's messages."""
    return [s for m in messages for s in m["payload"]["samples"]]


class NotificationAgent:
    """What turns the messages of compute agents into Gnocchi's measures.

    :param conf: see ``configure``
    """

    def __init__(self, conf: cfg.ConfigOpts) -> None:
        self.pipelines = sample_pipeline.SamplePipelineManager(conf)
        self._endpoint = notifications.TelemetryIpc(
            conf, self.pipelines.publisher()
        )

    def take(self, messages: list[dict[str, Any]]) -> None:
        """Publish what a compute agent sent."""
        self._endpoint.sample(messages)
