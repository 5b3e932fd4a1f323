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

"""The time that an audit may spend on searching (``time_budget_seconds``).

The core reads no clock. What is made here is the ``expired`` that
:func:`watcher_cputier.planner.plan` asks.
"""

from collections.abc import Callable
import time

# Placement may refuse a target of a plan that took the whole budget. The
# search after that has this part of it.
_SHARE_OF_FURTHER = 0.1


class Budget:
    """The budget of one search, or of several for one audit.

    :param seconds: from the beginning of the first search
    :param clock: seconds that never run backwards
    """

    def __init__(
        self, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds = seconds
        self._clock = clock
        self._deadline: float | None = None

    def search(self) -> Callable[[], bool]:
        """Begin a search; what says whether its time is over.

        The first may take the whole budget, each one after it what is left,
        but a tenth of the budget at least.
        """
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + self._seconds
        deadline = max(self._deadline, now + self._seconds * _SHARE_OF_FURTHER)
        return lambda: self._clock() >= deadline
