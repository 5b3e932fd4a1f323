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


"""``openstack tier snapshot``: the cloud as a scenario file."""

import argparse

from watcher_cputier import scenario
from watcher_cputier.cli import files
from watcher_cputier.cli import settings as told
from watcher_cputier.osc import base
from watcher_cputier.osc import picture
from watcher_cputier.osc import settings


class SaveSnapshot(base.Judging):
    """Save what an audit would see as a scenario file.

    ``watcher-cputier plan --scenario <file>`` plans on it without a cloud.
    """

    patient = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "file", metavar="<file>", help="where to write it, as YAML"
        )
        parser.add_argument(
            "--pseudonymise",
            action="store_true",
            help="replace names, uuids and texts by pseudonyms",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Read and write."""
        files.check_writable(parsed_args.file)
        given = told.given(parsed_args.set)
        params = settings.validated(given)
        conf = self.configuration(parsed_args)
        cluster = picture.get_measured(
            self.connection, self.reader, conf, params
        )
        params.check_names(cluster)
        found = scenario.Scenario(cluster=cluster, parameters=given)
        if parsed_args.pseudonymise:
            found = scenario.pseudonymised(found)
        files.write(parsed_args.file, scenario.dumps(found))
        self.tell(
            f"{parsed_args.file}: {len(cluster.hosts)} hosts and "
            f"{len(cluster.instances)} instances"
        )
