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


"""A line on a terminal that tells what a command waits for.

It is on standard error, and only if that is a terminal: pipes, logs and cron
never see it. It is gone when the command has something to say.
"""

from collections.abc import Callable, Mapping
import time
from typing import TextIO

from rich import console
from rich import status
from rich import text

Reading = Mapping[str, Mapping[str, float]]


class _Line:
    """What was read so far, anew each time that it is drawn."""

    def __init__(self, reading: Callable[[], Reading]) -> None:
        self._reading = reading
        self._started = time.monotonic()

    def __rich__(self) -> text.Text:
        return text.Text(told(self._reading(), self._elapsed()))

    def _elapsed(self) -> float:
        return time.monotonic() - self._started


def told(reading: Reading, seconds: float) -> str:
    """The line, without the sign that turns."""
    asked = ", ".join(
        f"{name} {cost['requests']:,.0f} requests "
        f"({cost['received_bytes'] / 1e6:.1f} MB)"
        for name, cost in reading.items()
    )
    if not asked:
        return f"Working, {seconds:.0f} s"
    return f"Working, {seconds:.0f} s; read so far: {asked}"


class Progress:
    """The line, while there is something to wait for.

    :param stream: where it goes; nothing is written to what is no terminal
    :param reading: what reading took so far, by service, as
        :attr:`watcher_cputier.datasources.cloud.Reader.reading` has it
    """

    def __init__(self, stream: TextIO, reading: Callable[[], Reading]) -> None:
        self._status: status.Status | None = None
        target = console.Console(file=stream)
        if target.is_terminal and not target.is_dumb_terminal:
            self._status = status.Status(_Line(reading), console=target)

    def start(self) -> None:
        """Show it."""
        if self._status is not None:
            self._status.start()

    def stop(self) -> None:
        """Take it away, for good."""
        if self._status is not None:
            self._status.stop()
            self._status = None
