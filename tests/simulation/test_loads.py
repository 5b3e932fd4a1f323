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

"""Days under load: lending and its end, starvation and its cure."""

from collections.abc import Iterable
import dataclasses
import itertools

from tests import consumption
from tests.simulation import loaded
from tests.simulation import world
from watcher_cputier import model
from watcher_cputier import planner

DAY = 24


def by_day(hour: int) -> bool:
    """Offices are open from 8 to 18."""
    return 8 <= hour % DAY < 18


def moves(audits: Iterable[loaded.Audit]) -> list[tuple[str, str, str]]:
    return [one for audit in audits for one in audit.moved]


def borrowers() -> loaded.Loaded:
    """Gold works day and night, silver and bronze by day.

    Each host is sold four times per tier by policy, and could hold eight of
    gold by its inventory; a holds six.
    """

    def load(hour: int, guest: model.Instance) -> float:
        if guest.tier == "gold":
            return 0.4
        return 0.4 if by_day(hour) else 0.0

    return loaded.Loaded(
        [consumption.host(name, gold=8) for name in "abc"],
        [
            *consumption.guests("g", "a", 6, "gold"),
            *(
                guest
                for host in "abc"
                for guest in (
                    *consumption.guests(f"s-{host}", host, 2, "silver"),
                    *consumption.guests(f"z-{host}", host, 2, "bronze"),
                )
            ),
        ],
        load,
        quota_mode="borrow",
        quotas={"gold": 4},
    )


def test_lending_by_night_and_the_pull_back_in_the_morning() -> None:
    """N6: at night what a holds above its quota stays; when the offices
    open it is pulled back, once, and no later night or day moves anything.
    """
    cloud = borrowers()
    audits = cloud.audits(3 * DAY, every=2)
    assert [text for audit in audits for text in audit.wrong] == []
    night, morning, rest = audits[:4], audits[4], audits[5:]
    assert [audit.lent for audit in night] == [("a",)] * 4
    assert not moves(night)
    assert len(morning.moved) == 2
    assert {source for _, source, _ in morning.moved} == {"a"}
    assert not moves(rest)
    assert not any(audit.lent for audit in rest)


def test_what_comes_at_night_is_lent_until_the_morning() -> None:
    """Nova may schedule above the policy quota: the inventory admits it."""
    cloud = borrowers()
    cloud.hour = 10
    first = cloud.audit(DAY - 10)
    assert len(first.moved) == 2
    number = 10
    while gold_on(cloud, "b") < 6:
        guest = consumption.guest(f"g{number}", "b", "gold")
        cloud.guests[guest.uuid] = guest
        number += 1
    audits = cloud.audits(2 * DAY, every=2)
    lent = [audit.hour for audit in audits if audit.lent]
    assert lent == [DAY, DAY + 2, DAY + 4, DAY + 6]
    assert [audit.hour for audit in audits if audit.moved] == [DAY + 8]
    assert gold_on(cloud, "b") == 4
    assert not world.returns([*first.moved, *moves(audits)])


def gold_on(cloud: loaded.Loaded, host: str) -> int:
    return sum(
        1
        for guest in cloud.guests.values()
        if guest.tier == "gold" and guest.host == host
    )


def test_strict_does_not_wait_for_the_morning() -> None:
    cloud = borrowers()
    cloud.params = dataclasses.replace(cloud.params, quota_mode="strict")
    assert len(cloud.audit().moved) == 2
    assert not moves(cloud.audits(DAY, every=4))


def starving() -> loaded.Loaded:
    """s has the shares of one vCPU for both of its own. Beside it a is full
    of right weights that work by day; b is as full and sleeps; c is empty.
    """

    def load(hour: int, guest: model.Instance) -> float:
        if guest.host == "b" and guest.uuid != "s":
            return 0.0
        return 1.0 if by_day(hour) else 0.1

    return loaded.Loaded(
        [consumption.host(name) for name in "abc"],
        [
            consumption.guest("s", "a", "silver", 2, shares=333),
            *(
                guest
                for host in "ab"
                for guest in (
                    *consumption.guests(f"g-{host}", host, 4, "gold"),
                    *consumption.guests(f"z-{host}", host, 4, "bronze"),
                )
            ),
            *consumption.guests("t", "a", 2, "silver"),
        ],
        load,
    )


def test_starvation_appears_and_is_cured() -> None:
    """Nobody is moved by night; by day the starved one is, and after that
    nobody starves and nothing moves, for days.
    """
    cloud = starving()
    audits = cloud.audits(2 * DAY, every=2)
    assert [text for audit in audits for text in audit.wrong] == []
    night, morning, rest = audits[:4], audits[4], audits[5:]
    assert not any(audit.starved for audit in night)
    assert morning.starved == ("s",)
    (step,) = morning.plan.migrations
    assert step.concern == planner.STARVATION
    assert moves(night) == []
    assert not any(audit.starved for audit in rest)
    assert not moves(rest)
    # What was foretold is what the kernel made of it.
    assert morning.plan.relief is not None
    told = {one.instance.uuid: one for one in morning.plan.relief.predictions}[
        "s"
    ]
    cloud.hour = DAY + 9
    cluster = cloud.cluster()
    assert cluster.telemetry is not None
    reading = cluster.telemetry.readings["s"][-1]
    assert reading is not None
    assert told.usage_after is not None
    assert abs(reading.usage_cpus / 2 - told.usage_after) < 0.05


def test_a_load_that_swings_makes_fewer_and_fewer_moves() -> None:
    """R104, N12: two crowds work by turns, hour by hour, and the instance
    with too little weight would run away from each. The cool-down doubles:
    1, 2, 4, 8 hours, so that a day has five moves at most, and not 24.
    """

    def load(hour: int, guest: model.Instance) -> float:
        if guest.uuid == "s":
            return 1.0
        return 1.0 if (hour + (guest.host == "b")) % 2 else 0.0

    cloud = loaded.Loaded(
        [consumption.host(name) for name in "ab"],
        [
            consumption.guest("s", "a", "silver", 2, shares=333),
            *(
                guest
                for host in "ab"
                for guest in (
                    *consumption.guests(
                        f"g-{host}", host, 4, "gold", locked=True
                    ),
                    *consumption.guests(
                        f"z-{host}", host, 4, "bronze", locked=True
                    ),
                )
            ),
        ],
        load,
    )
    audits = cloud.audits(DAY)
    found = moves(audits)
    assert 2 <= len(found) <= 5
    assert {uuid for uuid, _, _ in found} == {"s"}
    hours = [audit.hour for audit in audits if audit.moved]
    gaps = [later - hour for hour, later in itertools.pairwise(hours)]
    assert all(gap >= 2**number for number, gap in enumerate(gaps))


def test_without_relief_it_starves_on() -> None:
    """The simulation can tell the difference."""
    cloud = starving()
    cloud.params = dataclasses.replace(cloud.params, relieve_starvation=False)
    audits = cloud.audits(DAY, every=2)
    starved = [audit.hour for audit in audits if audit.starved]
    assert starved == [8, 10, 12, 14, 16]
    assert not moves(audits)
