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

"""The command ``watcher-cputier``: arguments, errors and exit statuses.

0 is success and 2 a file, parameter or command line that cannot be used. An
error is one message of one line on standard error: where, what, and the
cure.
"""

import argparse
from collections.abc import Sequence
import importlib.metadata
import os
import sys

from watcher_cputier import errors
from watcher_cputier.cli import plan
from watcher_cputier.cli import scenarios
from watcher_cputier.cli import screen

PROGRAM = "watcher-cputier"
# What a shell shows for a program that a closed pipe or Ctrl-C ended.
_BROKEN_PIPE = 141
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    :param argv: the arguments; those of the process by default
    :returns: the exit status
    """
    arguments = parser().parse_args(argv)
    try:
        text = arguments.run(arguments)
        sys.stdout.write(screen.encodable(text, sys.stdout.encoding))
        sys.stdout.flush()
        status: int = getattr(arguments, "status", 0)
    except errors.TierError as exc:
        _complain(str(exc))
        return 2
    except BrokenPipeError:
        _abandon_output()
        return _BROKEN_PIPE
    except OSError as exc:
        _abandon_output()
        _complain(f"standard output: {exc.strerror}")
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED
    return status


def parser() -> argparse.ArgumentParser:
    """The arguments of all commands."""
    made = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Plan on a picture of a cloud, without the cloud.",
    )
    made.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {importlib.metadata.version(PROGRAM)}",
    )
    commands = made.add_subparsers(required=True, metavar="COMMAND")
    plan.add_to(commands)
    scenarios.add_to(commands)
    return made


def _complain(text: str) -> None:
    line = screen.printable(" ".join(text.split()))
    print(f"{PROGRAM}: {line}", file=sys.stderr)


def _abandon_output() -> None:
    """Let Python's own last flush of standard output succeed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    except OSError:
        # Standard output is no file of its own: a test has replaced it.
        pass
    finally:
        os.close(nowhere)
