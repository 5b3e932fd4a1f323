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

"""What an action of Watcher's tells of a migration.

``tier_migrate`` tells why, of which tier and how many units; a plain
``migrate`` from where to where. What a step is for is not a field of its
input: it follows from what the step expects to find
(:class:`watcher_cputier.guard.Expectation`) and from the words of its reason
(:attr:`watcher_cputier.planner.Migration.reason`).
"""

from collections.abc import Mapping
import re
from typing import Any

from watcher_cputier import planner
from watcher_cputier.audits import values

TYPES = frozenset({"tier_migrate", "migrate"})

_HOLDS = re.compile(
    r".+ holds (?P<held>\d+) .+ units of at most (?P<quota>\d+)"
)
_EVEN = re.compile(r".+ holds (?P<held>\d+) .+, more than an even share of .+")
_DRAINED = re.compile(r".+ is drained \(.*\)")
_ROOM = re.compile(r"it makes room on .+ for .+")


def migration_of(
    action: Mapping[str, Any], finished: values.Moment | None
) -> values.Migration | None:
    """The migration of an action; None for another kind of action.

    :param action: as Watcher's API shows it in detail
    :param finished: when Watcher last touched it
    """
    told = action.get("input_parameters") or {}
    if action.get("action_type") not in TYPES or "source_node" not in told:
        return None
    expects = told.get("expects") or {}
    reason = str(told.get("reason") or "")
    excess = expects.get("excess")
    relieved = tuple(expects.get("starved") or ())
    return values.Migration(
        action=str(action["uuid"]),
        state=str(action["state"]),
        message=_message(action),
        instance=str(told.get("resource_name") or told["resource_id"]),
        uuid=str(told["resource_id"]),
        source=str(told["source_node"]),
        target=str(told.get("destination_node") or ""),
        tier=told.get("tier") or None,
        units=told.get("units"),
        concern=concern_of(reason, relieved),
        reason=reason,
        excess=(excess[0], excess[1]) if excess else None,
        relieved=relieved,
        held=held_of(reason),
        finished=finished,
    )


def _message(action: Mapping[str, Any]) -> str | None:
    """Its status message; None where the API is too old to have one."""
    if "status_message" not in action:
        return None
    return str(action["status_message"] or "")


def concern_of(reason: str, relieved: tuple[str, ...] = ()) -> str | None:
    """What a migration is for, by its reason and by whom it relieves."""
    if not reason:
        return None
    if relieved:
        return planner.STARVATION
    for pattern, concern in (
        (_ROOM, values.ROOM),
        (_DRAINED, values.DRAIN),
        (_EVEN, planner.MIXING),
        (_HOLDS, planner.QUOTA),
    ):
        if pattern.fullmatch(reason):
            return concern
    # The other steps of a cure of starvation say what its first one says.
    return planner.STARVATION


def held_of(reason: str) -> values.Held | None:
    """What the source held of its quota, where the reason tells."""
    found = _HOLDS.fullmatch(reason)
    if found is None:
        return None
    return values.Held(units=int(found["held"]), quota=int(found["quota"]))
