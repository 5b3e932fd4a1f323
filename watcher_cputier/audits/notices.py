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

"""What a tenant is told of the migrations of its own instances (R120).

A notice says which instances moved, when, and why in a tenant's words. It
names no host and nothing of another project: not the reason as the planner
gives it, which does, but what lies behind it. What was skipped, dropped or
never begun has not touched anybody and is not told; what is being carried
out, or waits for its start, is announced.
"""

from collections.abc import Iterable, Iterator
import dataclasses

from watcher_cputier.audits import values

_NOTHING_TO_DO = "You need not do anything."
# Outcomes; how one and how several of them are announced; what is to be said
# of one and of several.
_PARTS = (
    (
        (values.MOVED,),
        (
            "One of your instances was live-migrated:",
            "of your instances were live-migrated:",
        ),
        (
            "It kept running while it was moved to other hardware of the "
            "same cloud; addresses, disks and flavor are as they were. "
            + _NOTHING_TO_DO,
            "They kept running while they were moved to other hardware of "
            "the same cloud; addresses, disks and flavors are as they were. "
            + _NOTHING_TO_DO,
        ),
    ),
    (
        (values.MOVING, values.PLANNED),
        (
            "One of your instances is to be live-migrated:",
            "of your instances are to be live-migrated:",
        ),
        (
            f"It goes on running meanwhile. {_NOTHING_TO_DO}",
            f"They go on running meanwhile. {_NOTHING_TO_DO}",
        ),
    ),
    (
        (values.FAILED,),
        (
            "One of your instances could not be live-migrated:",
            "of your instances could not be live-migrated:",
        ),
        (
            f"It is where it was. {_NOTHING_TO_DO}",
            f"They are where they were. {_NOTHING_TO_DO}",
        ),
    ),
)
_TOLD = frozenset(outcome for part in _PARTS for outcome in part[0])


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One migration of an instance, as its owner is told.

    :param at: when it was over; None if it is not, or is not known
    """

    name: str
    uuid: str
    tier: str | None
    at: values.Moment | None
    outcome: str
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """What one project is told.

    :param project: id; None for instances whose project is not known
    """

    project: str | None
    project_name: str | None
    instances: tuple[Instance, ...]
    text: str


def of(report: values.Report) -> Iterator[Notice]:
    """A notice for each project with something to be told, by id."""
    plans = {
        plan.uuid: plan for plan in (*report.plans, *report.runs)
    }.values()
    found: dict[str | None, list[Instance]] = {}
    for plan in sorted(plans, key=lambda p: (p.made_at.seconds, p.uuid)):
        # Who was parked on the way has moved twice, and is told once.
        last = {
            (one.uuid, one.outcome(plan.state)): one for one in plan.migrations
        }
        for (_, outcome), one in last.items():
            if outcome in _TOLD:
                found.setdefault(one.project, []).append(_told(one, plan))
    for project in sorted(found, key=lambda key: (key is None, key or "")):
        name = report.project_names.get(project or "")
        instances = tuple(found[project])
        yield Notice(
            project=project,
            project_name=name,
            instances=instances,
            text="\n".join(_lines(report, name or project, instances)),
        )


def _told(one: values.Migration, plan: values.Plan) -> Instance:
    return Instance(
        name=one.instance,
        uuid=one.uuid,
        tier=one.tier or None,
        at=one.ended_at,
        outcome=one.outcome(plan.state),
        why=why(one),
    )


def why(one: values.Migration) -> str:
    """Why it moves, in the words of who pays for the tier."""
    tier = f"its {one.tier} tier" if one.tier else "its tier"
    if one.concern == values.DRAIN:
        return "the machine that it ran on is to be emptied"
    if one.concern == "starvation":
        if one.uuid in one.relieved:
            return f"it got less CPU time than {tier} promises"
        return (
            "the machine that it ran on could not give everybody the CPU "
            "time that was promised"
        )
    if one.concern == values.ROOM:
        return "instances were rearranged so that all tiers get their share"
    if one.concern == "mixing":
        return "instances of all tiers are spread evenly over the machines"
    if one.concern == "quota":
        of_tier = f"the {one.tier} tier" if one.tier else "its tier"
        return (
            f"the machine that it ran on held more of {of_tier} than it may, "
            "and everybody is to get the CPU time that the tier promises"
        )
    return "every tier is to get the CPU time that it promises"


def _lines(
    report: values.Report,
    project: str | None,
    instances: Iterable[Instance],
) -> Iterator[str]:
    yield f"To project {project or '(not known)'}:"
    yield ""
    told = tuple(instances)
    for outcomes, heading, rest in _PARTS:
        some = tuple(one for one in told if one.outcome in outcomes)
        if not some:
            continue
        count = len(some)
        yield heading[0] if count == 1 else f"{count} {heading[1]}"
        reasons = {one.why for one in some}
        yield from (_line(one, len(reasons) > 1) for one in some)
        if len(reasons) == 1:
            yield f"Why: {some[0].why}."
        yield rest[0] if count == 1 else rest[1]


def _line(one: Instance, reason: bool) -> str:
    at = "" if one.at is None else f" at {_clock(one.at)}"
    return f"- {one.name} ({one.uuid}){at}" + (
        f": {one.why}" if reason else ""
    )


def _clock(moment: values.Moment) -> str:
    return f"{moment.day} {moment.text[11:16]} UTC"
