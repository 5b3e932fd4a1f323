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

"""What the decision engine's record of a run adds to what Watcher keeps.

With ``[cputier] record_directory`` the decision engine leaves
``<uuid of the audit>.report.json``: the plan as
:func:`watcher_cputier.report.plan_document` has it, or the error of a run
that has none. An audit that runs again replaces it, so that a record belongs
to one run: its migrations are compared with the action plan's.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import report as reports
from watcher_cputier.audits import actions
from watcher_cputier.audits import values

_PLAN = "watcher_cputier_plan"
_FAILURE = "watcher_cputier_failure"


class RecordError(errors.TierError):
    """A record cannot be used, or is of another run."""


def failure_of(document: object) -> str | None:
    """The error that a record is of; None if it is of a plan.

    :raises RecordError: if it is neither
    """
    found = _checked(document)
    if _FAILURE not in found:
        return None
    try:
        return str(found["error"]["text"])
    except (KeyError, TypeError) as exc:
        raise _odd(f"it lacks {exc}") from exc


def _checked(document: object) -> Mapping[str, Any]:
    if not isinstance(document, Mapping) or not (
        _PLAN in document or _FAILURE in document
    ):
        raise _odd("it is no record of an audit")
    for member, known in (
        (_PLAN, reports.PLAN_VERSION),
        (_FAILURE, reports.FAILURE_VERSION),
    ):
        if member in document and document[member] != known:
            raise RecordError(
                f"it has {member} {document[member]!r}, known is {known}",
                cure="Use the release of watcher-cputier that wrote it",
            )
    return document


def _odd(what: str) -> RecordError:
    return RecordError(
        what,
        cure="Name a <uuid>.report.json of [cputier] record_directory, or "
        "what `openstack tier plan --report` has written",
    )


def with_record(plan: values.Plan, document: object) -> values.Plan:
    """A plan, with what a record of its run tells besides.

    :raises RecordError: if it is no record of a plan, or of another run
    """
    found = _checked(document)
    try:
        return _joined(plan, found)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise _odd(f"it is not of its form ({exc!r})") from exc


def _joined(plan: values.Plan, found: Mapping[str, Any]) -> values.Plan:
    steps = [*found["migrations"]]
    recorded = Counter(_key(step) for step in steps)
    planned = Counter((m.uuid, m.source, m.target) for m in plan.migrations)
    if recorded != planned:
        raise RecordError(
            f"it has {len(steps)} migrations, action plan {plan.uuid} has "
            f"{len(plan.migrations)}, and they are not the same: it is of "
            "another run",
            cure="A record is replaced at each run of its audit; report on "
            "the newest plan, or leave it out",
        )
    left = {_key(step): step for step in reversed(steps)}
    return dataclasses.replace(
        plan,
        migrations=tuple(
            _detailed(one, left[one.uuid, one.source, one.target])
            for one in plan.migrations
        ),
        record=values.Record(
            summary=str(found["summary"]),
            held=model.frozen_map(dict(_held(found))),
            deferred=tuple(dict(one) for one in found["deferred"]),
            unresolved=tuple(dict(one) for one in found["unresolved"]),
            advice=tuple(_advice(found)),
        ),
    )


def _key(step: Mapping[str, Any]) -> tuple[str, str, str]:
    return str(step["instance"]["uuid"]), step["source"], step["target"]


def _detailed(
    one: values.Migration, step: Mapping[str, Any]
) -> values.Migration:
    reason = one.reason or str(step["reason"])
    return dataclasses.replace(
        one,
        tier=one.tier or step["tier"] or None,
        units=step["units"] if one.units is None else one.units,
        reason=reason,
        concern=one.concern or actions.concern_of(reason),
        held=one.held or actions.held_of(reason),
        relief=int(step["relief"]),
    )


def _held(
    found: Mapping[str, Any],
) -> Iterator[tuple[tuple[str, str], values.Held]]:
    for host in found["hosts"]:
        for tier, account in host["accounts"].items():
            yield (
                (host["name"], tier),
                values.Held(units=account["held"], quota=account["quota"]),
            )


def _advice(found: Mapping[str, Any]) -> Iterator[str]:
    for member in ("relaxations", "suggestions"):
        yield from (str(one["text"]) for one in found[member])
    starvation = found.get("starvation") or {}
    yield from (str(one["text"]) for one in starvation.get("remedies", ()))
