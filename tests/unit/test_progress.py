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

"""The line that tells a terminal what a command waits for."""

import argparse
from collections.abc import Callable
import io
import types
from typing import Any

import pytest

from watcher_cputier.osc import base
from watcher_cputier.osc import progress

READING = {
    "Nova": {"requests": 1200, "seconds": 3.0, "received_bytes": 2_500_000},
    "Placement": {"requests": 3, "seconds": 0.1, "received_bytes": 0},
}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def ordinary(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal as most are, whatever runs the tests."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_the_line() -> None:
    assert progress.told({}, 0.4) == "Working, 0 s"
    assert progress.told(READING, 12.6) == (
        "Working, 13 s; read so far: Nova 1,200 requests (2.5 MB), "
        "Placement 3 requests (0.0 MB)"
    )


class Patient(base.Lister):
    """A command that says something before its rows."""

    def __init__(self, app: Any, tell: bool = False) -> None:
        self.app = app
        self._tell = tell
        self.seen: list[str] = []

    @property
    def reader(self) -> Any:
        """What has read the cloud."""
        return types.SimpleNamespace(reading=READING)

    def _run_before_hooks(self, found: Any) -> Any:
        return found

    def _run_after_hooks(self, _: Any, found: Any) -> Any:
        return found

    @property
    def _formatter_plugins(self) -> Any:
        formatter = types.SimpleNamespace(emit_list=self._emit)
        return {"table": types.SimpleNamespace(obj=formatter)}

    def _emit(self, *_: Any) -> None:
        self.seen.append(self.app.stderr.getvalue())
        self.app.stdout.write("rows\n")

    def take_action(self, _: argparse.Namespace) -> base.Rows:
        """One row."""
        self.seen.append(self.app.stderr.getvalue())
        if self._tell:
            self.tell("a finding")
        return ("Name",), [("value",)]


Run = Callable[..., tuple[Patient, str]]


@pytest.fixture
def run() -> Run:
    def run(
        stream: io.StringIO, *, level: int = 1, tell: bool = False
    ) -> tuple[Patient, str]:
        app = types.SimpleNamespace(
            stdout=io.StringIO(),
            stderr=stream,
            options=types.SimpleNamespace(verbose_level=level),
        )
        command = Patient(app, tell)
        parsed = argparse.Namespace(
            formatter="table",
            columns=(),
            sort_columns=(),
            sort_direction=None,
            quote_mode="all",
        )
        assert command.run(parsed) == 0
        assert app.stdout.getvalue() == "rows\n"
        return command, stream.getvalue()

    return run


def test_a_terminal_sees_it_until_there_are_rows(run: Run) -> None:
    command, told = run(Terminal())
    _, before_rows = command.seen
    assert "Nova 1,200 requests" in before_rows
    # The line was erased before the rows, and nothing came after them.
    assert before_rows.rstrip().endswith("\x1b[2K")
    assert told == before_rows


def test_prose_ends_it(run: Run) -> None:
    _, told = run(Terminal(), tell=True)
    assert told.endswith("\x1b[2Ka finding\n")


@pytest.mark.parametrize("level", [0, 2, 3])
def test_not_for_quiet_nor_for_verbose(run: Run, level: int) -> None:
    assert run(Terminal(), level=level)[1] == ""


def test_a_pipe_sees_nothing(run: Run) -> None:
    assert run(io.StringIO())[1] == ""
    assert run(io.StringIO(), tell=True)[1] == "a finding\n"


def test_a_dumb_terminal_sees_nothing(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert run(Terminal())[1] == ""


def test_it_ends_where_the_command_fails(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no")

    monkeypatch.setattr(Patient, "take_action", fail)
    stream = Terminal()
    with pytest.raises(ValueError, match="no"):
        run(stream)
    assert stream.getvalue().rstrip().endswith("\x1b[2K")


def test_it_ends_once() -> None:
    stream = Terminal()
    shown = progress.Progress(stream, lambda: READING)
    shown.start()
    shown.stop()
    told = stream.getvalue()
    assert "Working" in told
    # The cursor is there again.
    assert "\x1b[?25h" in told
    shown.stop()
    assert stream.getvalue() == told
