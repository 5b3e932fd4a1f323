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


"""Watcher's own options on Prometheus and Aetos, as the readers use them."""

import importlib
import pathlib
import time
from typing import Any

from oslo_config import cfg
import pytest

from watcher_cputier import errors
from watcher_cputier.datasources import prometheus
from watcher_cputier.datasources import service
from watcher_cputier.datasources import telemetry

# What the readers take from there, and what they assume without it.
TAKEN = {
    "prometheus_client": {
        "host": None,
        "port": 9090,
        "instance_uuid_label": "resource",
        "username": None,
        "password": None,
        "cafile": None,
        "certfile": None,
        "keyfile": None,
    },
    "aetos_client": {
        "interface": "public",
        "region_name": None,
        "instance_uuid_label": "resource",
    },
}


def watchers(
    section: str, path: pathlib.Path, **values: Any
) -> cfg.ConfigOpts:
    """A configuration with a section that Watcher itself registers.

    Values come from a file: what overrides one configuration's options would
    override those of all that Watcher's group is registered with.
    """
    try:
        module: Any = importlib.import_module(f"watcher.conf.{section}")
    except ImportError:
        pytest.skip(f"this Watcher has no [{section}]")
    file = path / "watcher.conf"
    lines = [f"{name} = {value}" for name, value in values.items()]
    file.write_text("\n".join([f"[{section}]", *lines, ""]))
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[str(file)])
    module.register_opts(conf)
    return conf


@pytest.mark.parametrize("section", sorted(TAKEN))
def test_watcher_still_has_what_is_taken_from_it(
    section: str, tmp_path: pathlib.Path
) -> None:
    conf = watchers(section, tmp_path)
    found = {name: conf[section][name] for name in TAKEN[section]}
    if found.get("port", 0) is None:
        # Watcher 14 has no default for it.
        found["port"] = 9090
    assert found == TAKEN[section]


def test_no_host_is_no_prometheus(tmp_path: pathlib.Path) -> None:
    conf = watchers("prometheus_client", tmp_path)
    with pytest.raises(telemetry.NotDeployed) as caught:
        prometheus.prometheus(conf, None, None)
    assert caught.value.where == "[prometheus_client] host"


def test_a_watcher_without_the_section_has_no_prometheus() -> None:
    conf = cfg.ConfigOpts()
    conf([], default_config_files=[])
    with pytest.raises(telemetry.NotDeployed):
        prometheus.prometheus(conf, None, None)


def test_a_value_that_is_none_of_its_option_is_one_error(
    tmp_path: pathlib.Path,
) -> None:
    conf = watchers(
        "prometheus_client", tmp_path, host="127.0.0.1", port="nine"
    )
    with pytest.raises(errors.ConfigurationError) as caught:
        prometheus.prometheus(conf, None, None)
    assert caught.value.where in ("watcher.conf", "[prometheus_client] port")


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({"host": "10.0.0.1"}, "http://10.0.0.1:9090/api/v1/query"),
        ({"host": "fd00::1", "port": 80}, "http://[fd00::1]:80/api/v1/query"),
        (
            {"host": "prometheus.example.com", "cafile": "/etc/ca.pem"},
            "https://prometheus.example.com:9090/api/v1/query",
        ),
    ],
)
def test_requests_go_where_watcher_s_options_say(
    tmp_path: pathlib.Path, options: dict[str, Any], url: str
) -> None:
    conf = watchers("prometheus_client", tmp_path, **options)
    # No time is left, so that nothing is sent.
    source = prometheus.prometheus(conf, None, time.monotonic())
    with pytest.raises(service.OutOfTime) as caught:
        source.offers(source.metrics()[0])
    assert caught.value.where == f"Prometheus GET {url}"
