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

"""What Watcher has kept of audits: plans, migrations, and their outcome.

Times are UTC. Whatever Watcher, Nova or a record does not tell is None and
never 0 or "no".
"""

from collections.abc import Mapping
import dataclasses
import functools

from watcher_cputier import model

# What became of a migration.
MOVED = "moved"
MOVING = "moving"
PLANNED = "planned"
SKIPPED = "skipped"
FAILED = "failed"
DROPPED = "dropped"
OUTCOMES = (MOVED, MOVING, PLANNED, SKIPPED, FAILED, DROPPED)

# States of an action plan, as Watcher names them.
RECOMMENDED = "RECOMMENDED"
UNDER_WAY = frozenset({"PENDING", "ONGOING", "CANCELLING"})
CONTINUOUS = "CONTINUOUS"
ACTIVE = frozenset({"PENDING", "ONGOING"})

# Statuses of Nova's migrations: over and done, over and not done.
_COMPLETED = frozenset({"completed"})
_NOT_DONE = frozenset({"error", "failed", "cancelled"})

# What a migration was for, beside the planner's three concerns: an instance
# that gives way to another one, and one that leaves a host which is emptied.
ROOM = "room"
DRAIN = "drain"


@functools.total_ordering
@dataclasses.dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    :param seconds: since the epoch
    :param text: the same as ``2026-11-21T12:00:03Z``
    """

    seconds: float
    text: str

    def __lt__(self, other: "Moment") -> bool:
        return self.seconds < other.seconds

    @property
    def day(self) -> str:
        """``2026-11-21``."""
        return self.text[:10]

    def told(self, now: "Moment") -> str:
        """The time of the day, with the day where that is another one."""
        clock = f"{self.text[11:16]} UTC"
        return clock if self.day == now.day else f"{self.day} {clock}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """Nova's own record of a live migration.

    :param status: as Nova tells it (``completed``, ``error``, ...)
    """

    status: str
    began_at: Moment | None
    ended_at: Moment | None

    @property
    def completed(self) -> bool:
        """Whether the instance is on its target."""
        return self.status in _COMPLETED

    @property
    def moving(self) -> bool:
        """Whether it is not over yet."""
        return self.status not in _COMPLETED | _NOT_DONE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """What a host held of a tier when the audit looked.

    :param units: held by the instances on it
    :param quota: None where the host has none, or it was unknown
    """

    units: int
    quota: int | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """One migration of a plan.

    :param action: uuid of Watcher's action
    :param state: of the action, as Watcher names it
    :param message: the action's status message; None where this Watcher's
        API has none
    :param tier: whose units move; None for a plain ``migrate``
    :param concern: ``quota``, ``starvation``, ``mixing``, ``room`` or
        ``drain``; None where nothing tells
    :param excess: (host, tier) of the excess that it was for
    :param relieved: uuids of the starved instances that it was for
    :param held: what its source held of the tier, with the quota
    :param relief: units of excess that it removes; None where only a record
        would tell
    :param live: Nova's record; None where there is none, or nobody asked
    :param project: id of the instance's project, if known
    :param finished: when Watcher last touched the action
    """

    action: str
    state: str
    message: str | None
    instance: str
    uuid: str
    source: str
    target: str
    tier: str | None = None
    units: int | None = None
    concern: str | None = None
    reason: str = ""
    excess: tuple[str, str] | None = None
    relieved: tuple[str, ...] = ()
    held: Held | None = None
    relief: int | None = None
    live: Live | None = None
    project: str | None = None
    finished: Moment | None = None

    def outcome(self, plan_state: str) -> str:
        """What became of it, in a plan of this state.

        Watcher gives a migration up that takes long, and Nova goes on: where
        both tell, Nova knows where the instance is.
        """
        if self.state == "SUCCEEDED":
            return MOVED
        if self.state == "SKIPPED":
            return SKIPPED
        if self.state == "ONGOING":
            return MOVING
        if self.live is not None and self.live.completed:
            return MOVED
        if self.live is not None and self.live.moving:
            return MOVING
        if self.state == "FAILED":
            return FAILED
        if self.state == "PENDING" and (
            plan_state == RECOMMENDED or plan_state in UNDER_WAY
        ):
            return PLANNED
        return DROPPED

    @property
    def began_at(self) -> Moment | None:
        """When Nova began it."""
        return None if self.live is None else self.live.began_at

    @property
    def ended_at(self) -> Moment | None:
        """When it was over: Nova's word before Watcher's."""
        if self.live is not None:
            return None if self.live.moving else self.live.ended_at
        over = self.state in ("SUCCEEDED", "FAILED", "SKIPPED", "CANCELLED")
        return self.finished if over else None

    @property
    def seconds(self) -> float | None:
        """How long it took, by Nova."""
        if self.live is None or self.live.moving:
            return None
        if self.live.began_at is None or self.live.ended_at is None:
            return None
        return self.live.ended_at.seconds - self.live.began_at.seconds


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What the decision engine's record of a run adds to its plan.

    :param held: {(host, tier): what it held}
    :param deferred: as in :func:`watcher_cputier.report.plan_document`
    :param unresolved: likewise
    :param advice: sentences on what would help
    """

    summary: str
    held: Mapping[tuple[str, str], Held]
    deferred: tuple[Mapping[str, object], ...] = ()
    unresolved: tuple[Mapping[str, object], ...] = ()
    advice: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An action plan: the outcome of one run of an audit.

    :param audit: uuid of the audit
    :param state: as Watcher names it
    :param message: its status message; None where the API has none
    :param made_at: when the audit's run had it ready
    :param changed_at: when Watcher last touched it; None if never
    :param indicators: {efficacy indicator: value}
    :param migrations: in the order of the actions
    :param others: its actions that are no migrations
    :param due_at: when the run should have been, for an audit that repeats
    :param record: what the decision engine's record adds, if it was given
    """

    uuid: str
    audit: str
    state: str
    message: str | None
    made_at: Moment
    changed_at: Moment | None
    indicators: Mapping[str, float] = dataclasses.field(
        default_factory=model.frozen_map
    )
    migrations: tuple[Migration, ...] = ()
    others: int = 0
    due_at: Moment | None = None
    record: Record | None = None

    def outcomes(self, *wanted: str) -> tuple[Migration, ...]:
        """The migrations with one of these outcomes."""
        return tuple(
            one for one in self.migrations if one.outcome(self.state) in wanted
        )

    @property
    def ended_at(self) -> Moment | None:
        """When it was over; None if it is not, or was never started."""
        over = self.state in ("SUCCEEDED", "FAILED", "CANCELLED")
        if not over:
            return None
        return self.changed_at or self.made_at

    @property
    def executed(self) -> tuple[Moment, Moment | None] | None:
        """From when to when it was carried out, as far as is known.

        The begin is that of the first migration by Nova, else the end of the
        first by Watcher, which keeps no begins. None if it never was.
        """
        touched = [
            moment
            for one in self.migrations
            if one.outcome(self.state) in (MOVED, MOVING, FAILED, SKIPPED)
            and (moment := one.began_at or one.finished) is not None
        ]
        if not touched:
            return None
        return min(touched), self.ended_at


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """An audit.

    :param kind: ``ONESHOT``, ``CONTINUOUS`` or ``EVENT``
    :param interval: of one that repeats, as its owner wrote it: seconds or a
        cron expression
    :param message: its status message; None where the API has none
    :param next_at: when Watcher means to run it next, if it repeats
    :param starts_at: before which it does not run, if so
    :param ends_at: after which it does not run, if so
    :param due_at: when its next plan should be there, by its interval; None
        where it has none
    """

    uuid: str
    name: str
    kind: str
    state: str
    goal: str
    strategy: str
    interval: str | None
    message: str | None
    created_at: Moment
    changed_at: Moment | None = None
    next_at: Moment | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    due_at: Moment | None = None

    @property
    def repeats(self) -> bool:
        """Whether it runs again and again by itself, and still does."""
        return self.kind == CONTINUOUS and self.state in ACTIVE


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Breach:
    """For how long a host had too much of a tier, or somebody starved (N14).

    :param host: None where the records tell of the tier alone
    :param kind: ``quota`` or ``starvation``
    :param minutes: that are known of
    :param at_least: whether there may be more of them
    :param peak_units: the most units over quota meanwhile, if known
    """

    host: str | None
    tier: str
    kind: str
    minutes: float
    at_least: bool = False
    peak_units: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """What the exporter's series tell of a window.

    :param source: where they were read
    :param begin: the first collection in the window; None if there was none
    :param end: the last one
    :param succeeded: share of the collections that succeeded, 0 to 1
    :param unobserved: {kind: minutes that no collection can speak for}
    :param breaches: by host, tier and kind
    """

    source: str
    begin: Moment | None
    end: Moment | None
    succeeded: float | None
    unobserved: Mapping[str, float] = dataclasses.field(
        default_factory=model.frozen_map
    )
    breaches: tuple[Breach, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What there is to tell.

    :param taken_at: when it was put together
    :param audits: of the plans, by creation
    :param told: uuids of the audits that the course is about
    :param plans: to be told in detail, the oldest first
    :param since: begin of the course; None where none was asked for
    :param runs: plans of the course, the oldest first
    :param others: plans of other audits of the same goals, which those of
        the course may have met
    :param grace_seconds: how much later than due is not yet late
    :param series: of the exporter; None where there are none
    :param project_names: {id: name}, as far as known
    :param findings: what could not be found out, and why
    """

    taken_at: Moment
    audits: tuple[Audit, ...]
    told: frozenset[str] = frozenset()
    plans: tuple[Plan, ...] = ()
    since: Moment | None = None
    runs: tuple[Plan, ...] = ()
    others: tuple[Plan, ...] = ()
    grace_seconds: float = 60.0
    series: Series | None = None
    project_names: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )
    findings: tuple[str, ...] = ()

    def audit(self, uuid: str) -> Audit | None:
        """The audit of a uuid; None if it is not known any more."""
        return next((one for one in self.audits if one.uuid == uuid), None)

    def name_of(self, plan: Plan) -> str:
        """The name of a plan's audit, or its uuid."""
        found = self.audit(plan.audit)
        return plan.audit if found is None else found.name
