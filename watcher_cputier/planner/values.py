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

"""What the planner hands out: migrations, refusals and the plan."""

from collections.abc import Mapping
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import weigher


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One live migration of a plan.

    :param source: where it is when the migration starts: its host in the
        cluster, or the target of its parking move
    :param units: units of the tier that the source is rid of
    :param relief: how many of them were excess there; 0 for a migration
        that makes room for others
    :param excess: what it is for: the excess that it relieves, or the one
        that the instances relieve for which it makes room
    :param drained: why the source is drained; empty if it is not
    :param weight: the weigher's score of the target, with its terms
    :param makes_room_for: name of the instance that comes to the source
        next; empty where the migration itself relieves an excess
    :param parking: whether the instance stays on the target for a while
        only: a later migration of the same plan takes it on
    """

    instance: model.Instance
    source: str
    target: str
    tier: str
    units: int
    relief: int
    excess: diagnosing.Excess
    weight: weigher.Weight
    drained: str = ""
    makes_room_for: str = ""
    parking: bool = False

    @property
    def reason(self) -> str:
        """Why it moves, in one sentence without a full stop."""
        if self.makes_room_for:
            return f"it makes room on {self.source} for {self.makes_room_for}"
        if self.drained:
            return f"{self.source} is drained ({self.drained})"
        return (
            f"{self.source} holds {self.excess.held} {self.tier} units of "
            f"at most {self.excess.quota}"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why one instance does not move.

    :param rejection: of the instance itself; None if it may move
    :param targets: {host: why it cannot take the instance}, if it may
    """

    instance: model.Instance
    rejection: constraints.Rejection | None
    targets: Mapping[str, constraints.Rejection]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Unresolved:
    """An excess that no feasible migration removes.

    :param units: units left over quota
    :param instances: the fewest instances that would have to leave
    :param refusals: why each instance of the tier there stays
    """

    host: str
    tier: str
    units: int
    instances: int
    refusals: tuple[Refusal, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an audit proposes.

    :param migrations: in a serial order in which each finds its room:
        executed one after the other, every one is admitted. Which of them
        may run at the same time is the schedule's matter
    :param deferred: further migrations that ``max_migrations`` cut off
    :param lower_bound: no plan removes as much excess with fewer
    :param residual_bound: no plan leaves fewer units over quota, however
        many migrations it takes
    :param relief_bound: no plan removes more units of excess with
        ``max_migrations``; None where that did not cut
    :param excess_before: {(host, tier): units over quota}
    :param excess_after: the same after the migrations, deferred ones left
        out
    :param cut: whether the time budget ended the search
    """

    migrations: tuple[Migration, ...] = ()
    deferred: tuple[Migration, ...] = ()
    unresolved: tuple[Unresolved, ...] = ()
    lower_bound: int = 0
    residual_bound: int = 0
    relief_bound: int | None = None
    excess_before: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    excess_after: Mapping[tuple[str, str], int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    cut: bool = False

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no plan does with fewer migrations."""
        return len(self.migrations) == self.lower_bound
