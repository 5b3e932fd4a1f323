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

"""``watcher-cputier scenario``: check, pseudonymise and describe files."""

import argparse
import json
from typing import Any

from watcher_cputier import parameters
from watcher_cputier import scenario
from watcher_cputier.cli import files


def add_to(commands: Any) -> None:
    """Add the commands to those of the program."""
    found = commands.add_parser(
        "scenario", help="check, pseudonymise and describe scenario files"
    ).add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("validate", validate, "tell whether a file is a valid scenario"),
        (
            "pseudonymise",
            pseudonymise,
            "replace names, uuids and texts by pseudonyms",
        ),
        ("schema", schema, "print the JSON schema of scenarios"),
    ):
        command = found.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        if run is not schema:
            command.add_argument(
                "file", metavar="FILE", help="the scenario; - reads stdin"
            )
        if run is pseudonymise:
            command.add_argument(
                "-o",
                "--output",
                metavar="OUT",
                help="write to this file instead of standard output",
            )


def validate(arguments: argparse.Namespace) -> str:
    """What is in a valid scenario, in one line.

    :raises TierError: for a file that is none
    """
    found = files.read(arguments.file)
    cluster = found.cluster
    parameters.Parameters.of(found.parameters).check_names(cluster)
    tiers = ", ".join(tier.name for tier in cluster.tiers)
    return (
        f"{arguments.file}: a valid scenario of {len(cluster.hosts)} hosts "
        f"and {len(cluster.instances)} instances, with the tiers {tiers}\n"
    )


def pseudonymise(arguments: argparse.Namespace) -> str:
    """The scenario with pseudonyms, unless a file takes it.

    :raises TierError: for a file that is none, or cannot be written
    """
    text = scenario.dumps(scenario.pseudonymised(files.read(arguments.file)))
    if arguments.output is None:
        return text
    files.write(arguments.output, text)
    return ""


def schema(
    arguments: argparse.Namespace,
) -> str:
    """The JSON schema."""
    return json.dumps(scenario.SCHEMA, indent=2) + "\n"
