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

"""Command line of the demo: ``python -m demo [--keep | --clean]``."""

import argparse
import pathlib
import sys

from demo import story
from demo import terminal
from tests import cloud as embedded

_HERE = pathlib.Path(__file__).resolve().parent
DIRECTORY = _HERE.parent / ".demo"


def main() -> int:
    """Run or clean up; the exit status is 0 only if every claim held."""
    parser = argparse.ArgumentParser(prog="python -m demo")
    parser.add_argument(
        "--keep", action="store_true", help="leave the cloud running"
    )
    parser.add_argument(
        "--clean", action="store_true", help="stop a cloud that was kept"
    )
    parser.add_argument("--directory", type=pathlib.Path, default=DIRECTORY)
    options = parser.parse_args()
    screen = terminal.Screen()
    if options.clean:
        return _clean(screen, options.directory)
    cloud = embedded.EmbeddedCloud(
        embedded.CloudSpec.from_yaml(_HERE / "cloud.yaml"),
        directory=options.directory,
        progress=screen.progress,
        detached=options.keep,
    )
    screen.title("A small real cloud: Nova, Placement, Watcher, six hosts")
    try:
        with cloud:
            held = story.Story(cloud, screen).tell()
            if options.keep:
                _explain_keeping(screen, cloud, options.directory)
    except (embedded.CloudError, story.CommandError) as error:
        screen.error(str(error))
        return 1
    return 0 if held else 1


def _clean(screen: terminal.Screen, directory: pathlib.Path) -> int:
    cloud = embedded.EmbeddedCloud(directory=directory)
    try:
        cloud.attach().stop()
    except embedded.CloudError as error:
        screen.say(f"Nothing to stop: {error}")
        return 0
    screen.say("The demo's cloud is stopped.")
    return 0


def _explain_keeping(
    screen: terminal.Screen,
    cloud: embedded.EmbeddedCloud,
    directory: pathlib.Path,
) -> None:
    screen.title("The cloud is kept running")
    screen.say("Talk to it with the clients in the virtual environment:")
    screen.say(f"  export OS_CLIENT_CONFIG_FILE={cloud.clouds_yaml}")
    screen.say("  export OS_CLOUD=admin")
    client = pathlib.Path(sys.executable).parent / "openstack"
    screen.say(f"  {client} optimize audit list")
    screen.say(f"Its logs are in {directory / 'log'}; stop it with")
    screen.say("  make clean-demo")


if __name__ == "__main__":
    sys.exit(main())
