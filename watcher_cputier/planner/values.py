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

"""What the planner hands out: migrations, refusals, advice and the plan."""

from collections.abc import Mapping
import dataclasses

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import starvation as starving
from watcher_cputier import weigher

# What a migration is for.
QUOTA = "quota"
STARVATION = "starvation"
MIXING = "mixing"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One live migration of a plan.

    :param source: where it is when the migration starts: its host in the
        cluster, or the target of its parking move
    :param units: units of the tier that the source is rid of
    :param relief: how many of them were excess there; 0 for a migration
        that makes room for others
    :param excess: what it is for: the excess that it relieves, or the one
        that the instances relieve for which it makes room. For mixing the
        quota in it is the host's even share; None for starvation
    :param drained: why the source is drained; empty if it is not
    :param weight: the weigher's score of the target, with its terms
    :param makes_room_for: name of the instance that comes to the source
        next; empty where the migration itself relieves an excess
    :param parking: whether the instance stays on the target for a while
        only: a later migration of the same plan takes it on
    :param concern: ``quota``, ``starvation`` or ``mixing``
    :param relieves: uuids of the starved instances that it helps, the one
        that it is for first; empty for another concern
    :param cause: why it moves, for starvation
    """

    instance: model.Instance
    source: str
    target: str
    tier: str
    units: int
    relief: int
    excess: diagnosing.Excess | None
    weight: weigher.Weight
    drained: str = ""
    makes_room_for: str = ""
    parking: bool = False
    concern: str = QUOTA
    relieves: tuple[str, ...] = ()
    cause: str = ""

    @property
    def beyond(self) -> str:
        """What the units are beyond that it relieves its host of."""
        if self.concern == MIXING:
            return "above an even share"
        return "over quota"

    @property
    def reason(self) -> str:
        """Why it moves, in one sentence without a full stop."""
        if self.concern == STARVATION or self.excess is None:
            return self.cause
        if self.makes_room_for:
            return f"it makes room on {self.source} for {self.makes_room_for}"
        if self.drained:
            return f"{self.source} is drained ({self.drained})"
        if self.concern == MIXING:
            return (
                f"{self.source} holds {self.excess.held} {self.tier} units, "
                f"more than an even share of at most {self.excess.quota}"
            )
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
class Relaxation:
    """A small change, outside of what a plan may do, that would help.

    The kinds, and what the other members are in each:

    ``units``
        ``units`` of the account are missing in the whole scope: whatever
        moves, so many stay over quota. ``host`` is empty.
    ``quota``
        The quota of ``host`` raised by ``units``.
    ``hole``
        One more host with ``room``, the ``traits`` and in the ``zone`` would
        take the ``instances``.
    ``room``
        ``target``, a host that is there, with ``room`` more than it has
        would take the instance.
    ``instance``
        The ``instances``, which may not move, would have to.

    :param host: the host over quota that it is for
    :param tier: the account that is over quota there
    :param units: units of excess that it would remove
    :param room: {resource class, or account: units} that it needs
    :param exchange: of a hole that would have to be lent for a while only,
        the names of the two instances that would change places then
    :param proven: of ``units``, that no plan leaves fewer over quota; of the
        others, that they were tried on the state that the plan leads to
    :param text: the whole in one clause
    """

    kind: str
    host: str
    tier: str
    units: int
    text: str
    target: str = ""
    instances: tuple[model.Instance, ...] = ()
    room: Mapping[str, int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    traits: tuple[str, ...] = ()
    zone: str = ""
    exchange: tuple[str, ...] = ()
    proven: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Displacement:
    """An instance that would make room for one of a higher tier.

    :param target: where it could go; empty where no host was found, so that
        it would have to be stopped
    """

    instance: model.Instance
    target: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """The fewest lower-tier instances that stand in the way (R106, R111).

    It is for the operator to decide; no action comes of it.

    :param instance: the one that would find room, of ``source``
    :param target: the host whose tier has room for it, and ``lacking`` has
        not
    :param lacking: {resource class or account: units}
    :param fewest: whether it is proven that no fewer make room there
    :param text: the whole in one clause
    """

    instance: model.Instance
    source: str
    target: str
    tier: str
    lacking: Mapping[str, int]
    displaced: tuple[Displacement, ...]
    fewest: bool
    text: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How evenly a tier lies on the hosts that take part in mixing.

    All are fractions of a host's quota.

    :param mean: of all hosts together: units held by units that they may
        hold
    :param deviation: the standard deviation of the hosts
    """

    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Mixing:
    """What evening out the tiers takes, and what it brings.

    It begins where the migrations for quotas leave the cluster.

    :param migrations: how many of the plan's are for mixing
    :param deferred: how many more ``max_migrations`` cut off
    :param lower_bound: no plan that begins there brings as many units to
        hosts below their even share with fewer migrations
    :param units_before: units above the even shares of hosts
    :param units_after: the same after the migrations, deferred ones left
        out
    :param before: {tier: how it lies}, where the tier is on several hosts
    :param after: the same after the migrations
    :param waits: whether nothing was planned because quotas come first and
        took all of ``max_migrations``, or all of the time
    """

    migrations: int = 0
    deferred: int = 0
    lower_bound: int = 0
    units_before: int = 0
    units_after: int = 0
    before: Mapping[str, Spread] = dataclasses.field(
        default_factory=model.frozen_map
    )
    after: Mapping[str, Spread] = dataclasses.field(
        default_factory=model.frozen_map
    )
    waits: bool = False

    @property
    def optimal(self) -> bool:
        """Whether it is proven that no plan does with fewer migrations."""
        return self.migrations == self.lower_bound

    def __str__(self) -> str:
        """Its price and what it brings, in a clause."""
        if self.waits:
            return "mixing waits until quotas are kept"
        if not self.units_before:
            return "no host is above an even share of a tier"
        if not self.migrations:
            return (
                f"mixing finds no place for the {self.units_before} units "
                "above an even share"
            )
        changes = ", ".join(
            f"{tier} {spread.deviation:.1%} to "
            f"{self.after[tier].deviation:.1%}"
            for tier, spread in self.before.items()
            if spread != self.after[tier]
        )
        text = (
            f"{self.migrations} migration{'s' * (self.migrations > 1)} for "
            f"mixing (standard deviation of utilisation: {changes})"
        )
        text += (
            "; no plan does it with fewer"
            if self.optimal
            else f"; at least {self.lower_bound} are needed for that"
        )
        if self.deferred:
            text += f"; max_migrations defers {self.deferred} more of them"
        return text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """How one instance fares, before a plan and after it.

    All numbers are CPUs per vCPU. Those before were measured; those after
    are what the model of entitlement expects where everybody wants what they
    were measured to want, or what was measured where the model does not
    explain that. None is a number that is not known.

    :param source: where it is before the plan
    :param target: where it is after it; the same if it stays
    :param starved_before: whether it was judged to be starved
    :param starved_after: whether it is expected to be
    :param demand: what it wants: what it used and waited for
    :param threshold_before: the deficit above which it is starved
    """

    instance: model.Instance
    source: str
    target: str
    starved_before: bool
    starved_after: bool
    demand: float
    usage_before: float | None
    usage_after: float | None
    deficit_before: float | None
    deficit_after: float | None
    threshold_before: float | None
    threshold_after: float | None

    def __str__(self) -> str:
        where = self.source
        if self.target != self.source:
            where += f" to {self.target}"
        before, after = (
            "?" if number is None else f"{number:.2f}"
            for number in (self.usage_before, self.usage_after)
        )
        return (
            f"{self.instance.name} ({where}) gets {after} CPUs per vCPU "
            f"instead of {before}, of {self.demand:.2f} that it wants"
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """What helps a starved instance that no migration helps (R105).

    :param condition: how it fares, with the cause and the configuration that
        would cure it
    :param why: why no migration does, in one clause
    """

    condition: starving.Condition
    why: str

    @property
    def text(self) -> str:
        """The whole in a few sentences."""
        one = self.condition
        stays = (
            f"{one.instance.name} on {one.instance.host} stays starved "
            f"({one.verdict}): {self.why}."
        )
        return " ".join(filter(None, (stays, one.cause, one.remedy)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Relief:
    """What becomes of starved instances.

    It begins where the migrations for quotas leave the cluster.

    :param migrations: how many of the plan's are for starvation
    :param deferred: how many more ``max_migrations`` cut off
    :param before: the instances that were judged to be starved, the first to
        be cured first
    :param after: uuids of those that are expected to be so after the
        migrations, deferred ones left out; in the same order, followed by
        those whom migrations for quotas leave starved, by name
    :param by_quota: uuids of those that migrations for quotas relieve
    :param predictions: of the instances starved before or after, and of all
        that move for them; by name
    :param remedies: for those that no migration helps, deferred ones
        included
    :param waits: whether nothing was planned because quotas come first and
        took all of ``max_migrations``, or all of the time
    :param abstained: why nobody was judged; empty if it looked
    """

    migrations: int = 0
    deferred: int = 0
    before: tuple[starving.Condition, ...] = ()
    after: tuple[str, ...] = ()
    by_quota: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = ()
    remedies: tuple[Remedy, ...] = ()
    waits: bool = False
    abstained: str = ""

    def __str__(self) -> str:
        """What it takes and what it brings, in a clause."""
        if self.abstained:
            return f"starvation was not judged: {self.abstained}"
        count = len(self.before)
        left = len(self.after)
        if not count:
            text = "nobody is starved"
            if left:
                text += f"; migrations for quotas leave {left} starved"
            return text
        starved = f"{count} instance{'s' * (count > 1)} starved"
        if self.waits:
            return f"{starved}; relief waits until quotas are kept"
        if not self.migrations:
            text = f"{starved}, and no migration helps"
            if self.by_quota:
                text = f"{starved}, {left} after the migrations for quotas"
        else:
            text = (
                f"{self.migrations} migration{'s' * (self.migrations > 1)} "
                f"for starvation (instances starved: {count} to {left})"
            )
        if self.deferred:
            text += f"; max_migrations defers {self.deferred} more of them"
        return text


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an audit proposes.

    :param migrations: in a serial order in which each finds its room:
        executed one after the other, every one is admitted. Which of them
        may run at the same time is the schedule's matter
    :param deferred: further migrations that ``max_migrations`` cut off
    :param lower_bound: no plan removes as much excess with fewer;
        migrations for starvation and mixing are not among those that it
        bounds
    :param residual_bound: no plan leaves fewer units over quota, however
        many migrations it takes
    :param relief_bound: no plan of ``max_migrations`` that serves higher
        tiers first removes more units of excess; None where that did not
        cut
    :param excess_before: {(host, tier): units over quota}
    :param excess_after: the same after the migrations, deferred ones left
        out
    :param cut: whether the time budget ended the search
    :param relaxations: what would help where an excess stays
    :param suggestions: lower-tier instances that stand in the way
    :param relief: what becomes of starved instances; None where that is
        switched off or there is no telemetry
    :param mixing: what mixing takes and brings; None where it is off
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
    relaxations: tuple[Relaxation, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    relief: Relief | None = None
    mixing: Mixing | None = None

    def about(self, host: str) -> "Plan":
        """The plan with the advice alone that concerns a host."""
        return dataclasses.replace(
            self,
            relaxations=tuple(
                one
                for one in self.relaxations
                if host in (one.host, one.target)
            ),
            suggestions=tuple(
                one
                for one in self.suggestions
                if host in (one.source, one.target)
            ),
        )

    @property
    def optimal(self) -> bool:
        """Whether no plan removes as much excess with fewer, as is proven.

        Whether the same is proven of mixing is told there.
        """
        others = self.mixing.migrations if self.mixing else 0
        others += self.relief.migrations if self.relief else 0
        return len(self.migrations) - others == self.lower_bound
