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

"""How the time budget is shared among the searches of one audit."""

from watcher_cputier.strategies import budget


class Clock:
    """Seconds, as told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_the_first_search_may_take_the_whole_budget() -> None:
    clock = Clock()
    expired = budget.Budget(60, clock).search()
    clock.now += 59.9
    assert not expired()
    clock.now += 0.1
    assert expired()


def test_the_budget_runs_from_the_first_search() -> None:
    clock = Clock()
    made = budget.Budget(60, clock)
    clock.now += 100
    first = made.search()
    clock.now += 40
    second = made.search()
    assert not first()
    clock.now += 19
    assert not second()
    clock.now += 1
    assert second()


def test_a_search_after_the_budget_has_a_tenth_of_it() -> None:
    clock = Clock()
    made = budget.Budget(60, clock)
    made.search()
    clock.now += 75
    further = made.search()
    assert not further()
    clock.now += 6
    assert further()
