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

"""Days in the life of a cloud, one audit an hour, all of it from a seed.

The world is a pure cluster: hosts with three tiers, instances that come, go
and are resized, operators who lower and raise inventories and drain hosts.
Every hour something happens (:meth:`World.hour`), then an audit plans and its
migrations are executed (:meth:`World.audit`), one by one in the plan's order.
Some fail. What executes them is :class:`tests.checker.Replay`, which knows
the laws and not the planner.

A world can be left alone: no more events, no more failures. That is when
audits have to come to an end.
"""

from collections.abc import Sequence
import dataclasses
import random

from tests import builders
from tests import checker
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner

HOSTS = 8
UNITS = 20
SIZES = (1, 1, 2, 2, 4, 4, 8)
MEMORY_MB = 128 * 1024
FAILURES = 0.1


@dataclasses.dataclass(kw_only=True)
class Machine:
    """A host, as operators change it.

    :param quotas: {tier: units}
    """

    quotas: dict[str, int]
    drained: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What became of one audit.

    :param plan: what was planned
    :param moved: (instance uuid, source, target) of what succeeded, in order
    :param failed: migrations that failed
    :param skipped: migrations that no longer held after a failure
    :param wrong: what the laws have against it
    """

    plan: planner.Plan
    moved: tuple[tuple[str, str, str], ...]
    failed: int
    skipped: int
    wrong: tuple[str, ...]


class World:
    """A cloud that changes.

    :param fill: units that are taken at first, of all
    """

    def __init__(self, seed: int, *, fill: float = 0.85) -> None:
        self._chance = random.Random(seed)
        self._born = 0
        self.machines = {
            f"h{n:02}": Machine(quotas=dict.fromkeys(builders.BUILT_IN, UNITS))
            for n in range(HOSTS)
        }
        self.guests: dict[str, model.Instance] = {}
        wanted = fill * HOSTS * UNITS * len(builders.BUILT_IN)
        for _ in range(10_000):
            if sum(g.units for g in self.guests.values()) >= wanted:
                break
            self.arrive()

    def cluster(self) -> model.Cluster:
        """The cloud as an audit reads it."""
        used: dict[str, dict[str, int]] = {n: {} for n in self.machines}
        held: dict[tuple[str, str], int] = {}
        for guest in self.guests.values():
            for name, units in guest.flavor.resources.items():
                here = used[guest.host]
                here[name] = here.get(name, 0) + units
            key = (guest.host, guest.tier or "")
            held[key] = held.get(key, 0) + guest.units
        return model.Cluster(
            tiers=builders.BUILT_IN_TIERS,
            hosts=tuple(
                _host(name, machine, used[name])
                for name, machine in sorted(self.machines.items())
            ),
            instances=tuple(
                sorted(self.guests.values(), key=lambda g: g.sort_key)
            ),
            held=model.frozen_map(held),
            tier_classes=frozenset(
                tier.resource_class for tier in builders.BUILT_IN_TIERS
            ),
            server_groups=self._groups(),
        )

    def _groups(self) -> tuple[model.ServerGroup, ...]:
        """Every tenth instance is one of a pair that stays apart."""
        pairs: dict[int, list[model.Instance]] = {}
        for uuid, guest in sorted(self.guests.items()):
            number = int(uuid[1:])
            if number % 10 < 2:
                pairs.setdefault(number // 10, []).append(guest)
        return tuple(
            builders.server_group(
                "anti-affinity", [g.uuid for g in pair], name=f"g{number}"
            )
            for number, pair in sorted(pairs.items())
            if len({g.host for g in pair}) == len(pair) > 1
        )

    def hour(self) -> None:
        """What happens in an hour: a few things of every kind."""
        for event, times in (
            (self.arrive, 6),
            (self.depart, 5),
            (self.resize, 2),
            (self.change_inventory, 3),
            (self.drain, 1),
        ):
            for _ in range(self._chance.randint(0, times)):
                event()

    def arrive(self) -> None:
        """An instance comes to a host that has room, if there is one."""
        self._born += 1
        guest = builders.instance(
            f"i{self._born:05}",
            "",
            self._chance.choice(SIZES),
            self._chance.choice(builders.BUILT_IN),
            memory_mb=1024 * self._chance.choice((1, 2, 4, 8)),
            disk_gb=0,
            locked=self._chance.random() < 0.015,
            priority=self._chance.choice((0, 0, 0, 1)),
        )
        able = [name for name in self.machines if self._fits(guest, name)]
        if able:
            home = self._chance.choice(able)
            self.guests[guest.uuid] = dataclasses.replace(guest, host=home)

    def _fits(self, guest: model.Instance, name: str) -> bool:
        machine = self.machines[name]
        here = [g for g in self.guests.values() if g.host == name]
        units = sum(g.units for g in here if g.tier == guest.tier)
        memory = sum(g.flavor.memory_mb for g in here)
        return (
            not machine.drained
            and units + guest.units <= machine.quotas[guest.tier or ""]
            and memory + guest.flavor.memory_mb <= MEMORY_MB
        )

    def depart(self) -> None:
        """An instance is deleted."""
        if self.guests:
            del self.guests[self._chance.choice(sorted(self.guests))]

    def resize(self) -> None:
        """An instance gets another size or tier, where it is."""
        guest = self.guests.pop(self._chance.choice(sorted(self.guests)))
        resized = builders.instance(
            guest.name,
            guest.host,
            self._chance.choice(SIZES),
            self._chance.choice(builders.BUILT_IN),
            memory_mb=guest.flavor.memory_mb,
            disk_gb=0,
        )
        kept = resized if self._fits(resized, guest.host) else guest
        self.guests[guest.uuid] = kept

    def change_inventory(self) -> None:
        """An operator sells less or more of a tier on a host."""
        name = self._chance.choice(sorted(self.machines))
        tier = self._chance.choice(builders.BUILT_IN)
        self.machines[name].quotas[tier] = self._chance.choice(
            (UNITS, UNITS, UNITS - 4, UNITS - 8, UNITS + 8)
        )

    def drain(self) -> None:
        """A host goes into maintenance, or one comes back from it."""
        drained = [n for n, m in sorted(self.machines.items()) if m.drained]
        if drained:
            self.machines[self._chance.choice(drained)].drained = False
        elif self._chance.random() < 0.3:
            name = self._chance.choice(sorted(self.machines))
            self.machines[name].drained = True

    def plan(self, max_migrations: int) -> planner.Plan:
        """What an audit would plan now."""
        cloud = self.cluster()
        params = parameters.Parameters.of({"max_migrations": max_migrations})
        return planner.plan(cloud, diagnosing.diagnose(cloud, params), params)

    def audit(self, max_migrations: int, failures: float = 0.0) -> Audit:
        """Plan, and execute what was planned.

        :param failures: probability of a migration to fail
        """
        cloud = self.cluster()
        plan = self.plan(max_migrations)
        wrong = checker.judge(cloud, plan, max_migrations=max_migrations)
        books = checker.Replay(cloud, {})
        moved: list[tuple[str, str, str]] = []
        failed = skipped = 0
        for move in plan.migrations:
            guest = move.instance
            elsewhere = books.at[guest.uuid] != move.source
            if elsewhere or books.objections(guest, move.target):
                # The step guards itself; only a failure is an excuse.
                skipped += 1
                if not failed:
                    wrong.append(f"{guest.name} to {move.target} is skipped")
                continue
            books.start(guest, move.target)
            if self._chance.random() < failures:
                books.fail(guest, move.target)
                failed += 1
                continue
            books.finish(guest, move.target)
            moved.append((guest.uuid, move.source, move.target))
            self.guests[guest.uuid] = dataclasses.replace(
                self.guests[guest.uuid], host=move.target
            )
        return Audit(
            plan=plan,
            moved=tuple(moved),
            failed=failed,
            skipped=skipped,
            wrong=tuple(wrong),
        )

    def residual(self) -> tuple[int, ...]:
        """Units over quota of each tier, the highest first."""
        cloud = self.cluster()
        return checker.residual(cloud, checker.Replay(cloud, {}).excess())


def _host(name: str, machine: Machine, used: dict[str, int]) -> model.Host:
    amounts: dict[str, int | model.Inventory] = {
        builders.class_of(tier): model.Inventory(
            total=units, reserved=units if machine.drained else 0
        )
        for tier, units in machine.quotas.items()
    }
    return builders.host(
        name,
        gold=None,
        silver=None,
        bronze=None,
        vcpus=4 * UNITS,
        memory_mb=MEMORY_MB,
        disk_gb=1,
        more=amounts,
        allocated=used,
    )


def audits_needed(plan: planner.Plan, max_migrations: int) -> int:
    """How many audits a cap makes of an uncapped plan, at most.

    As many as its migrations take, and one that finds nothing left to do. A
    migration that relieves and those that make room for it belong together:
    an audit may leave so many places of its cap empty, less one, because the
    next ones do not fit in whole.
    """
    longest = together = 1
    for move in plan.migrations:
        together = 1 if move.relief else together + 1
        longest = max(longest, together)
    usable = max(1, max_migrations - longest + 1)
    return -(-len(plan.migrations) // usable) + 1


def returns(moves: Sequence[tuple[str, str, str]]) -> list[str]:
    """Instances that came back to a host that they had left."""
    left: dict[str, set[str]] = {}
    found = []
    for uuid, source, target in moves:
        if target in left.get(uuid, ()):
            found.append(uuid)
        left.setdefault(uuid, set()).add(source)
    return found
