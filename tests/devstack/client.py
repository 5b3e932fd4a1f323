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


"""The ``openstack`` command, without its start.

A phase of the plugin runs the command some ten times, and most of a run goes
into importing the client and its plugins. DevStack has a server for that; so
has this module. ``Server`` imports everything once and forks for each command,
which then is a process of its own with the arguments, the environment and the
directory of the caller: the real client, from its first line on.
"""

from importlib import metadata
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile

PROJECT = pathlib.Path(__file__).parents[2]
# What stands for the command on PATH: hands over, and repeats what it is told.
COMMAND = """\
#!{python} -ES
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    there.connect({path!r})
    told = [sys.argv[1:], dict(os.environ), os.getcwd()]
    there.sendall(json.dumps(told).encode())
    there.shutdown(socket.SHUT_WR)
    said = b"".join(iter(lambda: there.recv(65536), b""))
status, out, err = json.loads(said)
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


class Server:
    """The process that has everything imported.

    :param command: where the command is to be
    """

    def __init__(self, command: pathlib.Path) -> None:
        # A socket's path has to be short.
        self._home = tempfile.TemporaryDirectory(prefix="openstack-")
        path = str(pathlib.Path(self._home.name, "socket"))
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith("OS_") and "proxy" not in name.lower()
        }
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.devstack.client", path],
            cwd=PROJECT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"
        command.write_text(COMMAND.format(python=sys.executable, path=path))
        command.chmod(0o755)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.communicate()
        self._home.cleanup()


def serve(path: str) -> None:
    """Answer until somebody ends the process."""
    from openstackclient import shell

    for one in metadata.entry_points(group="openstack.cli.extension"):
        one.load()
    for one in metadata.entry_points(group="openstack.tier.v1"):
        one.load()
    # Nobody waits for the children; their answers are what counts.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(path)
        here.listen()
        print("ready", flush=True)
        while True:
            caller, _ = here.accept()
            with caller:
                if not os.fork():
                    here.close()
                    _answer(caller, shell.main)
                    os._exit(0)


def _answer(caller: socket.socket, main: object) -> None:
    """Run one command in this process."""
    assert callable(main)
    told = b"".join(iter(lambda: caller.recv(65536), b""))
    arguments, environment, directory = json.loads(told)
    # Commands that start processes wait for them.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    with (
        tempfile.TemporaryFile("w+") as out,
        tempfile.TemporaryFile("w+") as err,
    ):
        sys.stdout, sys.stderr = out, err
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        try:
            status = main(arguments)
        except SystemExit as exc:
            status = exc.code
        said = []
        for file in (out, err):
            file.flush()
            file.seek(0)
            said.append(file.read())
    caller.sendall(json.dumps([int(status or 0), *said]).encode())


if __name__ == "__main__":
    serve(sys.argv[1])
