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

"""Measuring: contenders take turns, the median of each counts.

They are interleaved, and the one that begins changes from round to round,
so that whatever else the machine does meets all of them alike.
"""

from collections.abc import Callable, Mapping
import dataclasses
import statistics
import time

ROUNDS = 3


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one run took.

    :param requests: by service, or under one name
    """

    seconds: float
    requests: Mapping[str, int]
    received_bytes: int = 0

    @property
    def total(self) -> int:
        """Requests to all services."""
        return sum(self.requests.values())


def interleaved(
    contenders: Mapping[str, Callable[[], Cost]], rounds: int = ROUNDS
) -> dict[str, Cost]:
    """{contender: its median run}."""
    names = list(contenders)
    costs: dict[str, list[Cost]] = {name: [] for name in names}
    for turn in range(rounds):
        begin = turn % len(names)
        for name in names[begin:] + names[:begin]:
            costs[name].append(contenders[name]())
    return {name: _median(found) for name, found in costs.items()}


def _median(costs: list[Cost]) -> Cost:
    middle = statistics.median_low(cost.seconds for cost in costs)
    return next(cost for cost in costs if cost.seconds == middle)


class Stopwatch:
    """Seconds that a ``with`` block took."""

    seconds = 0.0

    def __enter__(self) -> "Stopwatch":
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.seconds = time.perf_counter() - self._started
