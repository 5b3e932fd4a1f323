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

"""What tempest asks a plugin for."""

import pathlib
from typing import Any

from oslo_config import cfg
from tempest import config as tempest_config
from tempest.test_discover import plugins

from watcher_cputier.tempest_plugin import config


class CPUTierTempestPlugin(plugins.TempestPlugin):
    """The entry point."""

    def load_tests(self) -> tuple[str, str]:
        """Where the tests are, and the directory that their names begin in."""
        here = pathlib.Path(__file__).resolve().parent
        return str(here / "tests"), str(here.parents[1])

    def register_opts(self, conf: cfg.ConfigOpts) -> None:
        """Register the options of the scenarios."""
        conf.register_opt(config.service_option, group="service_available")
        conf.register_group(config.group)
        conf.register_opts(config.OPTIONS, group=config.group)

    def get_opt_lists(self) -> list[tuple[str, list[cfg.Opt]]]:
        """The options again, for tempest's sample configuration."""
        return [
            ("service_available", [config.service_option]),
            (config.group.name, config.OPTIONS),
        ]

    def get_service_clients(self) -> list[dict[str, Any]]:
        """The client of Watcher, which tempest gives to each user."""
        options = {
            **tempest_config.service_client_config(),
            "service": tempest_config.CONF.cputier.catalog_type,
        }
        return [
            {
                "name": "infra_optim",
                "service_version": "infra-optim.v1",
                "module_path": "watcher_cputier.tempest_plugin.client",
                "client_names": ["InfraOptimClient"],
                **options,
            }
        ]
