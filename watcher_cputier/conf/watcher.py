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

"""Options of Watcher's own that telemetry is found by.

Within Watcher they are there. A command line reads Watcher's files without
Watcher's code, and registers as much of them as it needs.
"""

from oslo_config import cfg

_OPTIONS = {
    "watcher_datasources": [
        # As Watcher has it: Prometheus itself only where it is named.
        cfg.ListOpt("datasources", default=["gnocchi", "aetos"]),
    ],
    "gnocchi_client": [
        cfg.StrOpt("api_version"),
        cfg.StrOpt("endpoint_type"),
        cfg.StrOpt("region_name"),
    ],
    "aetos_client": [
        cfg.StrOpt("interface"),
        cfg.StrOpt("region_name"),
        cfg.StrOpt("instance_uuid_label"),
    ],
    "prometheus_client": [
        cfg.StrOpt("host"),
        cfg.StrOpt("port"),
        cfg.StrOpt("username"),
        cfg.StrOpt("password", secret=True),
        cfg.StrOpt("cafile"),
        cfg.StrOpt("certfile"),
        cfg.StrOpt("keyfile"),
        cfg.StrOpt("instance_uuid_label"),
    ],
}


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options, unless they are there already."""
    for group, options in _OPTIONS.items():
        for option in options:
            if group not in conf or option.dest not in conf[group]:
                conf.register_opt(option, group=group)
