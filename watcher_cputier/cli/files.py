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

"""Scenario files as a command line names them."""

import os
import pathlib
import sys

from watcher_cputier import scenario

STDIN = "-"


def read(name: str) -> scenario.Scenario:
    """The scenario in a file, or on standard input.

    :raises ScenarioError: if it cannot be read or is no valid scenario
    """
    try:
        if name == STDIN:
            content = sys.stdin.buffer.read()
        else:
            content = pathlib.Path(name).read_bytes()
    except (OSError, ValueError) as exc:
        raise scenario.ScenarioError(
            getattr(exc, "strerror", None) or str(exc),
            where=name,
            cure="Name a file that can be read, or - for standard input",
        ) from exc
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise scenario.ScenarioError(
            f"byte {exc.start} is not UTF-8 text",
            where=name,
            cure="A scenario is YAML or JSON",
        ) from exc
    if not text.strip():
        raise scenario.ScenarioError(
            "it is empty",
            where=name,
            cure="`openstack tier snapshot save` and audits write scenarios",
        )
    return scenario.loads(text)


def write(name: str, text: str) -> None:
    """Write a file.

    :raises ScenarioError: if it cannot be written
    """
    try:
        pathlib.Path(name).write_text(text, encoding="utf-8")
    except (OSError, ValueError) as exc:
        raise scenario.ScenarioError(
            getattr(exc, "strerror", None) or str(exc),
            where=name,
            cure="Name a file that can be written",
        ) from exc


def check_writable(*names: str | None) -> None:
    """Refuse files that cannot be written, before anything takes long.

    Nothing is written, and no file is made.

    :param names: None for a file that is not wanted
    :raises ScenarioError: for the first that cannot be written
    """
    for name in names:
        if name is None:
            continue
        path = pathlib.Path(name)
        reason = ""
        try:
            if not name:
                reason = "The name of a file is empty"
            elif path.is_dir():
                reason = "Is a directory"
            elif path.exists():
                reason = "" if os.access(path, os.W_OK) else "Not writable"
            elif not path.parent.is_dir():
                reason = f"There is no directory {path.parent}"
            elif not os.access(path.parent, os.W_OK | os.X_OK):
                reason = f"The directory {path.parent} is not writable"
        except (OSError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or str(exc)
        if reason:
            raise scenario.ScenarioError(
                reason, where=name, cure="Name a file that can be written"
            )
