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

"""A cloud under load: hours pass, CPUs are used, audits look and act.

What instances use and wait for comes from :mod:`tests.cloud.kernel`, which
schedules their vCPUs tick by tick and knows nothing of floors and forecasts.
Migrations are executed in the plan's order by :class:`tests.checker.Replay`,
and Nova's history tells the audits that follow who has moved.
"""

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

from tests import builders
from tests import checker
from tests import consumption
from tests.cloud import kernel
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation

HOUR = 3600
WINDOW_SECONDS = 300
WINDOWS = 3
# Of each window, the seconds that are simulated.
SIMULATED_SECONDS = 2.0

Load = Callable[[int, model.Instance], float]
"""What each vCPU of an instance wants at an hour, 0 to 1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
    """What became of one audit.

    :param lent: hosts with an excess that was lent
    :param starved: names of those that were starved
    :param wrong: what the laws have against it
    """

    hour: int
    plan: planner.Plan
    moved: tuple[tuple[str, str, str], ...]
    lent: tuple[str, ...]
    starved: tuple[str, ...]
    wrong: tuple[str, ...]


class Loaded:
    """Hosts with instances that want more at some hours than at others."""

    def __init__(
        self,
        hosts: Iterable[model.Host],
        guests: Iterable[model.Instance],
        load: Load,
        **params: Any,
    ) -> None:
        self.hosts = tuple(hosts)
        self.guests = {guest.uuid: guest for guest in guests}
        self.load = load
        self.params = parameters.Parameters.of(params)
        self.hour = 0
        self.changes: list[model.Change] = []

    def cluster(self) -> model.Cluster:
        """The cloud as an audit reads it, telemetry included."""
        now = (self.hour + 24) * HOUR
        begin = now - WINDOWS * WINDOW_SECONDS
        return dataclasses.replace(
            builders.cluster(self.hosts, self.guests.values()),
            taken_at=now,
            changes=tuple(sorted(self.changes, key=lambda c: c.order())),
            telemetry=model.Telemetry(
                source="kernel",
                window_seconds=WINDOW_SECONDS,
                windows=tuple(
                    begin + number * WINDOW_SECONDS
                    for number in range(WINDOWS)
                ),
                readings=model.frozen_map(dict(self._readings())),
            ),
        )

    def _readings(
        self,
    ) -> Iterable[tuple[str, tuple[model.Reading | None, ...]]]:
        for host in self.hosts:
            here = [g for g in self.guests.values() if g.host == host.name]
            assert host.shared_cpus is not None
            windows = kernel.simulate(
                kernel.Host(
                    cpus=host.shared_cpus,
                    domains=tuple(
                        kernel.Domain(
                            name=guest.uuid,
                            weight=consumption.weight(guest),
                            demands=(self.load(self.hour, guest),)
                            * guest.flavor.vcpus,
                        )
                        for guest in here
                    ),
                ),
                seconds=SIMULATED_SECONDS,
                windows=WINDOWS,
                tick_seconds=0.02,
                warm_up_seconds=1.0,
                seed=self.hour,
            )
            for guest in here:
                yield (
                    guest.uuid,
                    tuple(
                        model.Reading(
                            usage_cpus=window[guest.uuid].usage_cpus,
                            steal_cpus=window[guest.uuid].steal_cpus,
                        )
                        for window in windows
                    ),
                )

    def audit(self, hours: int = 1) -> Audit:
        """Look, plan, execute; and some hours pass."""
        cloud = self.cluster()
        plain = diagnosing.diagnose(cloud, self.params)
        verdict = lending.lend(cloud, plain, self.params)
        judged = starvation.judge(cloud, verdict, self.params)
        plan = planner.plan(cloud, verdict, self.params, starvation=judged)
        books = checker.Replay(cloud, {})
        wrong: list[str] = []
        moved = []
        for step in plan.migrations:
            uuid = step.instance.uuid
            wrong += books.start(step.instance, step.target)
            books.finish(step.instance, step.target)
            moved.append((uuid, step.source, step.target))
            self.guests[uuid] = dataclasses.replace(
                self.guests[uuid], host=step.target
            )
            assert cloud.taken_at is not None
            self.changes.append(
                model.Change(
                    instance=uuid,
                    kind="live-migration",
                    began_at=cloud.taken_at + 10,
                    ended_at=cloud.taken_at + 20,
                    moved=True,
                )
            )
        found = Audit(
            hour=self.hour,
            plan=plan,
            moved=tuple(moved),
            lent=tuple(one.host for one in verdict.lent),
            starved=tuple(one.instance.name for one in judged.starved),
            wrong=tuple(wrong),
        )
        self.hour += hours
        return found

    def audits(self, hours: int, every: int = 1) -> list[Audit]:
        """An audit every so many hours."""
        return [self.audit(every) for _ in range(0, hours, every)]
