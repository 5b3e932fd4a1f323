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

"""A shell in which ``openstack`` starts in no time.

The client takes seconds to import what it needs, each time. Here one process
has imported it and forks for each command; what the shell finds on its PATH
hands over its words, its environment, its directory and its three files, and
takes the exit status back. What runs is the client itself, in a process of
its own for each command.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import json
import os
import pathlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NoReturn

_PROGRAMS = ("openstack", "watcher-cputier")
_STUB = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("\\0" + {address!r})
    told = [{name!r}, sys.argv[1:], dict(os.environ), os.getcwd()]
    message = json.dumps(told).encode()
    socket.send_fds(connection, [b"%16d" % len(message)], [0, 1, 2])
    connection.sendall(message)
    sys.exit(int(connection.recv(16) or b"70"))
"""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What became of one command: its exit status, what it printed."""

    status: int
    out: str
    err: str


class Shell:
    """Runs commands one after the other, as somebody types them.

    Variables and the directory last from one command to the next, within one
    call of :meth:`run`.
    """

    def __init__(self, programs: pathlib.Path) -> None:
        self._programs = programs

    def run(
        self,
        commands: Sequence[str],
        directory: pathlib.Path,
        environment: Mapping[str, str],
    ) -> tuple[Done, ...]:
        """Run the commands, whatever becomes of them.

        :param directory: where they run, and where their output is kept
        :param environment: in place of this process's
        """
        kept = directory / ".kept"
        kept.mkdir()
        script = []
        for number, command in enumerate(commands):
            place = shlex.quote(str(kept / str(number)))
            script.append(
                f"{{ {command}\n}} >{place}.out 2>{place}.err </dev/null\n"
                f"echo $? >{place}.status\n"
            )
        subprocess.run(
            ["bash", "-c", "".join(script)],
            cwd=directory,
            env={
                **environment,
                "PATH": f"{self._programs}:{os.environ['PATH']}",
            },
            timeout=240,
            check=True,
        )
        return tuple(
            Done(
                status=int((kept / f"{number}.status").read_text()),
                out=(kept / f"{number}.out").read_text(),
                err=(kept / f"{number}.err").read_text(),
            )
            for number in range(len(commands))
        )


@contextlib.contextmanager
def started(directory: pathlib.Path) -> Iterator[Shell]:
    """A shell, and the process that runs its commands.

    :param directory: an empty one, for the programs
    """
    # Not a file: its name could be too long for a socket's.
    address = f"{__name__}.{os.getpid()}.{time.monotonic_ns()}"
    for name in _PROGRAMS:
        path = directory / name
        path.write_text(
            _STUB.format(python=sys.executable, address=address, name=name)
        )
        path.chmod(0o755)
    # Whoever waits for something looks again sooner than people do.
    path = directory / "sleep"
    path.write_text("#!/bin/sh\nexec /bin/sleep .3\n")
    path.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, address],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        server.stdout.readline()
        try:
            yield Shell(directory)
        finally:
            # It ends with its input, whatever becomes of this process.
            server.stdin.close()


def _serve(address: str) -> None:
    """Import everything, then fork for each command."""
    # The client takes its name from there when it is imported.
    sys.argv = [_PROGRAMS[0]]
    from openstackclient import shell

    from watcher_cputier.cli import main as plans

    for group in ("tier summary", "optimize audit list", "server list"):
        with (
            open(os.devnull, "w", encoding="utf-8") as nowhere,
            contextlib.redirect_stdout(nowhere),
            contextlib.suppress(SystemExit),
        ):
            shell.main(["help", *group.split()])
    programs = {"openstack": shell.main, "watcher-cputier": plans.main}
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{address}")
        listening.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while True:
            connection, _ = listening.accept()
            head, files, _, _ = socket.recv_fds(connection, 16, 3)
            told = b""
            while len(told) < int(head):
                told += connection.recv(int(head) - len(told))
            name, words, environment, directory = json.loads(told)
            if not os.fork():
                listening.close()
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for number, file in enumerate(files):
                    os.dup2(file, number)
                    os.close(file)
                os.environ.clear()
                os.environ.update(environment)
                os.chdir(directory)
                sys.argv = [name, *words]
                _become(programs[name], words, connection)
            for file in files:
                os.close(file)
            connection.close()


def _become(
    program: Callable[[list[str]], Any],
    words: list[str],
    connection: socket.socket,
) -> NoReturn:
    """Run a command to its end and tell its exit status."""
    try:
        status = program(words) or 0
    except SystemExit as exc:
        status = exc.code
        if isinstance(status, str):
            print(status, file=sys.stderr)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    connection.sendall(b"%d" % (status if isinstance(status, int) else 1))
    os._exit(0)


if __name__ == "__main__":

    def _watch() -> None:
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=_watch, daemon=True).start()
    _serve(sys.argv[1])
