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

"""Service processes: started and stopped by pid, never by name.

Every process of a cloud owns ``DIR/run/NAME.json`` with its pid, the time the
kernel started it and its ports. A pid alone is not trusted: only if the start
time agrees too is the process the one that wrote the file. So a file that a
crash left behind is either recognised as stale or leads to the leftover, which
is then ended.

A process that is not detached holds the reading end of a pipe; the kernel
closes the writing end when the parent dies, however it dies, and the child
leaves. Nothing in here imports more than the standard library, because the
Nova process uses it before eventlet's monkey patching.
"""

from __future__ import annotations

import _thread
import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time
import typing

LIFELINE = "EMBEDDED_CLOUD_LIFELINE"
_TAIL_LINES = 25
_STOP_SECONDS = 5.0


class ProcessError(RuntimeError):
    """A process did not start; the message holds the tail of its log."""


def start_time(pid: int) -> int | None:
    """When the kernel started ``pid``, in its ticks; None if it is gone."""
    try:
        stat = pathlib.Path("/proc/%d/stat" % pid).read_text()
    except OSError:
        return None
    # The command, in parentheses, may itself contain blanks.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """What a process says about itself."""

    pid: int
    started: int
    ports: dict[str, int]
    ready: bool

    @classmethod
    def read(cls, path: pathlib.Path) -> Record | None:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write(self, path: pathlib.Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".new")
        draft.write_text(json.dumps(dataclasses.asdict(self)))
        draft.rename(path)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started


def publish(
    directory: pathlib.Path,
    name: str,
    ports: dict[str, int],
    ready: bool = True,
) -> None:
    """Called by a process: here I am."""
    started = start_time(os.getpid())
    assert started is not None
    Record(pid=os.getpid(), started=started, ports=ports, ready=ready).write(
        record_path(directory, name)
    )


def record_path(directory: pathlib.Path, name: str) -> pathlib.Path:
    return directory / "run" / ("%s.json" % name)


def leave_with_parent() -> None:
    """Called by a process: end when the parent is gone."""
    lifeline = os.environ.pop(LIFELINE, None)
    if lifeline is None:
        return
    # Taken before monkey patching: a native thread in a native read.
    read, leave, descriptor = os.read, os._exit, int(lifeline)

    def wait() -> None:
        read(descriptor, 1)
        leave(1)

    _thread.start_new_thread(wait, ())


class ServiceProcess:
    """One child process, seen from the outside."""

    def __init__(
        self,
        directory: pathlib.Path,
        name: str,
        command: typing.Sequence[str],
        environment: dict[str, str],
    ) -> None:
        self._directory = directory
        self.name = name
        self._command = list(command)
        self._environment = environment
        self._child: subprocess.Popen[bytes] | None = None
        self._lifeline: int | None = None

    @property
    def log_path(self) -> pathlib.Path:
        return self._directory / "log" / ("%s.log" % self.name)

    @property
    def record(self) -> Record | None:
        """What the running process says about itself, None if none runs."""
        record = Record.read(record_path(self._directory, self.name))
        return record if record is not None and record.alive else None

    def start(
        self, detached: bool = False, arguments: typing.Sequence[str] = ()
    ) -> None:
        self.stop()
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        environment = dict(self._environment)
        reading = -1
        descriptors: tuple[int, ...] = ()
        if not detached:
            reading, self._lifeline = os.pipe()
            environment[LIFELINE] = str(reading)
            descriptors = (reading,)
        with open(self.log_path, "ab") as log:
            self._child = subprocess.Popen(
                [*self._command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                pass_fds=descriptors,
                start_new_session=True,
            )
        if reading >= 0:
            os.close(reading)

    def wait(self, timeout_seconds: float, ready: bool = True) -> Record:
        """Wait until the process has published (that it is ready)."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            record = self.record
            if (
                record is not None
                and (record.ready or not ready)
                and (self._child is None or record.pid == self._child.pid)
            ):
                return record
            code = self._child.poll() if self._child else None
            if code is not None:
                raise ProcessError(
                    "the %s process ended with status %d while "
                    "starting; its log ends with:\n%s"
                    % (self.name, code, self.tail())
                )
            if time.monotonic() > deadline:
                raise ProcessError(
                    "the %s process was not ready within %d s; "
                    "its log ends with:\n%s"
                    % (self.name, timeout_seconds, self.tail())
                )
            time.sleep(0.05)

    def tail(self) -> str:
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return "(there is no log)"
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def stop(self) -> None:
        """End the process, ours or the leftover of an earlier run."""
        record = self.record
        if record is not None:
            _end(record)
        if self._child is not None:
            if self._child.poll() is None:
                self._child.terminate()
            try:
                self._child.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()
            self._child = None
        if self._lifeline is not None:
            os.close(self._lifeline)
            self._lifeline = None
        record_path(self._directory, self.name).unlink(missing_ok=True)


def _end(record: Record) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + _STOP_SECONDS
        while record.alive and time.monotonic() < deadline:
            try:
                os.kill(record.pid, number)
            except ProcessLookupError:
                return
            time.sleep(0.05)
