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


"""The plugin's entry point: ``openstack tier`` and what it works with.

python-openstackclient loads this module by the entry point
``openstack.cli.extension`` and the commands by those of
``openstack.tier.v1``. Authentication, clouds and output formats are the
client's own; a command asks the services as the user who runs it.
"""

import argparse
import functools
import os
import typing
from typing import Any

if typing.TYPE_CHECKING:
    from openstack import connection as sdk

    from watcher_cputier.datasources import cloud

API_NAME = "tier"
API_VERSION_OPTION = "os_tier_api_version"
API_VERSIONS = {"1": "watcher_cputier.osc.client.Client"}
DEFAULT_API_VERSION = "1"


class Client:
    """What the commands ask the cloud through.

    :param connected: the connection of the user's session
    """

    def __init__(self, connected: "sdk.Connection") -> None:
        self.connection = connected

    @functools.cached_property
    def reader(self) -> "cloud.Reader":
        """The reader of the user's cloud.

        This module is loaded whenever ``openstack`` starts; what reads is
        large, and is loaded by a command that reads.
        """
        from watcher_cputier.datasources import cloud  # noqa: PLC0415

        return cloud.Reader(self.connection)


def make_client(instance: Any) -> Client:
    """The client of a session.

    :param instance: python-openstackclient's ``ClientManager``
    """
    return Client(instance.sdk_connection)


def build_option_parser(
    parser: argparse.ArgumentParser,
) -> argparse.ArgumentParser:
    """Add the global options of the plugin."""
    parser.add_argument(
        "--os-tier-api-version",
        metavar="<tier-api-version>",
        default=os.environ.get("OS_TIER_API_VERSION", DEFAULT_API_VERSION),
        help="Version of the tier commands, "
        f"default={DEFAULT_API_VERSION} (Env: OS_TIER_API_VERSION)",
    )
    return parser
