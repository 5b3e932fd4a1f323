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

"""``python -m tests.cloud``: an embedded cloud from the command line.

start SPEC.yaml   start a detached cloud with the declared state
load SPEC.yaml    bring the running cloud to another declared state
event NAME        let a declared event happen
status            what runs, and where the instances are
env               the variables for the openstack command, for eval
stop              stop it
"""

from __future__ import annotations

import argparse
import pathlib
import shlex
import sys

from tests.cloud import cloud as embedded
from tests.cloud import control
from tests.cloud import keystone
from tests.cloud import population
from tests.cloud import spec as cloud_spec

_DIRECTORY = pathlib.Path(__file__).resolve().parents[2] / ".cloud"


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except (
        embedded.CloudError,
        cloud_spec.SpecError,
        control.ControlError,
        population.PopulationError,
        KeyError,
        OSError,
    ) as error:
        text = error.args[0] if isinstance(error, KeyError) else error
        print("error: %s" % text, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cloud",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=sorted(_COMMANDS))
    parser.add_argument(
        "argument", nargs="?", help="a spec file, or the name of an event"
    )
    parser.add_argument(
        "--directory",
        default=str(_DIRECTORY),
        help="where the cloud lives (%(default)s)",
    )
    parser.add_argument(
        "--user",
        default="admin",
        choices=sorted(keystone.USERS),
        help="for env: whose variables",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="GROUP.NAME=VALUE",
        help="for start: an option of Watcher",
    )
    return parser


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _spec(options: argparse.Namespace) -> cloud_spec.CloudSpec:
    if options.argument is None:
        return cloud_spec.CloudSpec()
    return cloud_spec.CloudSpec.from_yaml(options.argument)


def _start(options: argparse.Namespace) -> None:
    spec = _spec(options)
    watcher_options = {}
    for text in options.option:
        key, _equals, value = text.partition("=")
        group, _dot, name = key.rpartition(".")
        watcher_options[group or "DEFAULT", name] = value
    cloud = embedded.EmbeddedCloud(
        spec,
        directory=options.directory,
        detached=True,
        progress=_say,
        watcher_options=watcher_options,
    )
    cloud.setUp()
    _say(
        "use it: export OS_CLIENT_CONFIG_FILE=%s OS_CLOUD=admin"
        % shlex.quote(str(cloud.clouds_yaml))
    )
    _env(options)


def _load(options: argparse.Namespace) -> None:
    spec = _spec(options)
    cloud = embedded.EmbeddedCloud.attach(options.directory)
    cloud.report_to(_say)
    cloud.load(spec)


def _event(options: argparse.Namespace) -> None:
    cloud = embedded.EmbeddedCloud.attach(options.directory)
    if options.argument is None:
        for event in cloud.spec.events:
            print(
                "%s: %s %s"
                % (
                    event.name,
                    event.action,
                    ", ".join(
                        "%s=%s" % pair for pair in event.arguments.items()
                    ),
                )
            )
        return
    cloud.apply(options.argument)


def _status(options: argparse.Namespace) -> None:
    cloud = embedded.EmbeddedCloud.attach(options.directory)
    print("directory: %s" % cloud.directory)
    for name, record in cloud.processes().items():
        print(
            "%s: process %d, ports %s"
            % (
                name,
                record.pid,
                ", ".join(
                    "%s %d" % pair for pair in sorted(record.ports.items())
                ),
            )
        )
    instances: dict[str, list[str]] = {}
    for name, host in cloud.locations().items():
        instances.setdefault(host, []).append(name)
    for host, state in cloud.control.call("hosts").items():
        print(
            "%s: compute service %s, instances: %s"
            % (
                host,
                "running" if state["running"] else "stopped",
                ", ".join(sorted(instances.get(host, []))) or "none",
            )
        )


def _env(options: argparse.Namespace) -> None:
    cloud = embedded.EmbeddedCloud.attach(options.directory)
    for name, value in cloud.environment(options.user).items():
        print("export %s=%s" % (name, shlex.quote(value)))


def _stop(options: argparse.Namespace) -> None:
    if not embedded.EmbeddedCloud.stop_directory(options.directory):
        _say("nothing was running in %s" % options.directory)


_COMMANDS = {
    "start": _start,
    "load": _load,
    "event": _event,
    "status": _status,
    "env": _env,
    "stop": _stop,
}


if __name__ == "__main__":
    sys.exit(main())
