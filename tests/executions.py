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

"""Executions of a schedule that mean it no good, for plans of any size.

A schedule promises that a step may start once its needs have succeeded and
those that it comes after have ended, whatever else runs, ends or fails. Here
everything that may start does so at once, and an adversary chooses what ends
next. :class:`tests.checker.Replay` judges every start. Nothing of the schedule
is used but the fields of its steps: ``migration``, ``needs`` and ``after``.

An execution of n steps with e edges takes (n + e) log n.
"""

from collections.abc import Callable, Iterable, Sequence
import heapq
import random
from typing import Any

from tests import checker
from watcher_cputier import model

# Ranks what is in flight: (step, how many have started) -> lowest ends first.
Adversary = Callable[[int, int], float]


def adversaries(
    steps: Sequence[Any], seeds: Iterable[int] = (1, 2)
) -> dict[str, tuple[Adversary, Callable[[int], bool]]]:
    """{name: (what ends next, what fails)}."""
    arrivals: dict[str, int] = {}
    for step in steps:
        target = step.migration.target
        arrivals[target] = arrivals.get(target, 0) + 1
    found: dict[str, tuple[Adversary, Callable[[int], bool]]] = {
        "oldest first": (lambda i, n: float(n), lambda i: False),
        "newest first": (lambda i, n: float(-n), lambda i: False),
        # Who leaves a host that others want to come to takes his time.
        "room comes last": (
            lambda i, n: float(arrivals.get(steps[i].migration.source, 0)),
            lambda i: False,
        ),
        "every third fails": (
            lambda i, n: float(-n),
            lambda i: i % 3 == 0,
        ),
    }
    for seed in seeds:
        chance = random.Random(seed)
        found[f"chance {seed}"] = (
            lambda i, n, c=chance: c.random(),
            lambda i, c=chance: c.random() < 0.2,
        )
    return found


def judge(
    cloud: model.Cluster,
    steps: Sequence[Any],
    policies: dict[str, int] | None = None,
    drained: Iterable[str] = (),
    *,
    total: int = 0,
    per_source: int = 0,
    per_target: int = 0,
    seeds: Iterable[int] = (1, 2),
) -> list[str]:
    """All that the laws have against a schedule (L2, L6).

    :param total: migrations that may be in flight at once; 0 is no limit,
        here and in the others
    """
    wrong: list[str] = []
    gone = tuple(drained)
    limits = (total, per_source, per_target)
    for name, (adversary, fails) in adversaries(steps, seeds).items():
        books = checker.Replay(cloud, policies or {}, gone)
        run = _Execution(books, steps, adversary, fails, limits)
        wrong += [f"{name}: {text}" for text in run.wrong()]
    return wrong


class _Execution:
    """One execution, from the first step to the last."""

    def __init__(
        self,
        books: checker.Replay,
        steps: Sequence[Any],
        adversary: Adversary,
        fails: Callable[[int], bool],
        limits: tuple[int, int, int],
    ) -> None:
        self._books = books
        self._steps = steps
        self._adversary = adversary
        self._fails = fails
        self._limits = limits
        self._children: list[list[int]] = [[] for _ in steps]
        self._left = [0] * len(steps)
        for i, step in enumerate(steps):
            parents = {*step.needs, *step.after}
            self._left[i] = len(parents)
            for parent in parents:
                self._children[parent].append(i)
        self._outcome: dict[int, bool] = {}
        self._flying: list[tuple[float, int]] = []
        self._busy: dict[tuple[str, str], int] = {}
        self._started = 0
        self._wrong: list[str] = []

    def wrong(self) -> list[str]:
        """Run it."""
        ready = [i for i, left in enumerate(self._left) if not left]
        while ready or self._flying:
            while ready:
                ready += self._start(ready.pop())
            if self._flying:
                ready += self._end(heapq.heappop(self._flying)[1])
        if len(self._outcome) != len(self._steps):
            self._wrong.append("some steps wait for ever")
        return self._wrong

    def _start(self, i: int) -> list[int]:
        """Begin a step, or skip it; who may start for that."""
        step = self._steps[i]
        if not all(self._outcome[need] for need in step.needs):
            return self._over(i, False)
        move = step.migration
        at = self._books.at[move.instance.uuid]
        if at != move.source:
            self._wrong.append(
                f"step {i}: {move.instance.name} is on {at}, not on "
                f"{move.source}"
            )
            return self._over(i, False)
        self._wrong += [
            f"step {i}: {text}"
            for text in self._books.start(move.instance, move.target)
        ]
        for side, limit in zip(self._sides(i), self._limits, strict=True):
            self._busy[side] = self._busy.get(side, 0) + 1
            if limit and self._busy[side] > limit:
                self._wrong.append(
                    f"step {i}: {self._busy[side]} in flight, {side}"
                )
        rank = self._adversary(i, self._started)
        self._started += 1
        heapq.heappush(self._flying, (rank, i))
        return []

    def _sides(self, i: int) -> tuple[tuple[str, str], ...]:
        move = self._steps[i].migration
        return ("all", ""), ("from", move.source), ("to", move.target)

    def _end(self, i: int) -> list[int]:
        move = self._steps[i].migration
        for side in self._sides(i):
            self._busy[side] -= 1
        failed = self._fails(i)
        if failed:
            self._books.fail(move.instance, move.target)
        else:
            self._books.finish(move.instance, move.target)
        return self._over(i, not failed)

    def _over(self, i: int, succeeded: bool) -> list[int]:
        self._outcome[i] = succeeded
        able = []
        for child in self._children[i]:
            self._left[child] -= 1
            if not self._left[child]:
                able.append(child)
        return able
