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

"""Watcher's records: audits, action plans and actions; with Nova's word.

Watcher keeps when a plan was made and when an action was last touched, but
not when either began, nor whose an instance is. Nova tells both, and what
became of a migration that Watcher has given up. Where
Nova cannot be asked, Watcher's word stands alone.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import dataclasses
import datetime
from typing import Any
import urllib.parse
import uuid

import croniter
from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions
from openstack import connection as sdk
from openstack import exceptions as sdk_exceptions

from watcher_cputier import audits
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.audits import values
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import service

SERVICE_TYPE = "infra-optim"
# 1.5 tells the status messages of actions, plans and audits.
MICROVERSION = "1.5"
GOAL = "continuous_slo_compliance"
STRATEGIES = frozenset(
    {"domain_capacity_enforcement", "domain_capacity_enforcement_balancing"}
)
_NOUNS = {
    "audits": "audit",
    "action_plans": "action_plan",
    "actions": "action",
}
# Indicators that count a plan's migrations, ours and the stock goal's.
_COUNTS = ("migrations_planned", "instance_migrations_count")
_PAGE = 1000
_DAY_SECONDS = 24 * 60 * 60
# A clock of Watcher's may be so much ahead of Nova's.
_SLACK_SECONDS = 60
_MIGRATIONS = "/os-migrations"


def moment(told: datetime.datetime) -> values.Moment:
    """A time as the report has it; without a zone it is UTC."""
    if told.tzinfo is None:
        told = told.replace(tzinfo=datetime.UTC)
    told = told.astimezone(datetime.UTC)
    return values.Moment(told.timestamp(), told.strftime("%Y-%m-%dT%H:%M:%SZ"))


def moment_at(seconds: float) -> values.Moment:
    """The same of seconds since the epoch."""
    return moment(datetime.datetime.fromtimestamp(seconds, datetime.UTC))


def _moment(told: object) -> values.Moment | None:
    """A time of an API's answer, if there is one."""
    if not told:
        return None
    return moment(datetime.datetime.fromisoformat(str(told)))


def adapter(connected: sdk.Connection) -> ksa_adapter.Adapter:
    """An adapter for Watcher's API, as the connection is configured."""
    region = connected.config
    return ksa_adapter.Adapter(
        session=region.get_session(),
        service_type=SERVICE_TYPE,
        interface=region.get_interface(SERVICE_TYPE),
        region_name=region.get_region_name(SERVICE_TYPE),
        endpoint_override=region.get_endpoint(SERVICE_TYPE),
    )


def is_ours(audit: values.Audit) -> bool:
    """Whether an audit is of this strategy.

    One that names no strategy has the goal's only one.
    """
    return audit.strategy in STRATEGIES or (
        not audit.strategy and audit.goal == GOAL
    )


class _Service(service.Service):
    """Watcher's API, whose policies are named by its collections."""

    def _policy(self, path: str) -> str:
        noun, what = path.strip("/").removeprefix("v1/").split("/", 1)
        return f"{_NOUNS[noun]}:{'detail' if what == 'detail' else 'get'}"


class Watcher:
    """Reader of Watcher's API."""

    def __init__(self, api: ksa_adapter.Adapter) -> None:
        self.service = _Service(api, "Watcher", MICROVERSION, {})

    def find(self, named: str) -> tuple[values.Audit, values.Plan | None]:
        """An audit by uuid or name, or an action plan with its audit.

        :raises ParameterError: if there is neither
        :raises ServiceError: if Watcher cannot be asked
        """
        found = self._get_audit(named)
        if found is not None:
            return found, None
        plan = self._get_plan(named) if _is_uuid(named) else None
        if plan is None:
            raise errors.ParameterError(
                f"there is no audit or action plan {named!r}",
                cure="Name one that `openstack optimize audit list` or "
                "`openstack optimize actionplan list` shows",
            )
        audit = self._get_audit(plan.audit) if plan.audit else None
        if audit is None:
            raise errors.ParameterError(
                f"action plan {named} has lost its audit",
                cure="Name one whose audit was not deleted",
            )
        return audit, plan

    def _get_audit(self, named: str) -> values.Audit | None:
        path = f"/v1/audits/{urllib.parse.quote(named, safe='')}"
        try:
            return _audit(self.service.get(path))
        except service.NotFound:
            return None

    def _get_plan(self, named: str) -> values.Plan | None:
        try:
            return _plan(self.service.get(f"/v1/action_plans/{named}"))
        except service.NotFound:
            return None

    def get_audits(self) -> tuple[values.Audit, ...]:
        """All audits, the oldest first.

        :raises ServiceError: if Watcher cannot be asked
        """
        listed = self._pages("/v1/audits/detail", "audits", {})
        return tuple(
            sorted(map(_audit, listed), key=lambda a: (a.created_at, a.uuid))
        )

    def get_plans(
        self, audit: str | None = None, since: values.Moment | None = None
    ) -> tuple[values.Plan, ...]:
        """Action plans, the oldest first, without their actions.

        :param audit: of this audit alone
        :param since: made since then; those before are not read
        :raises ServiceError: if Watcher cannot be asked
        """
        params = {"sort_key": "id", "sort_dir": "desc"}
        if audit is not None:
            params["audit_uuid"] = audit
        found = []
        for record in self._pages(
            "/v1/action_plans/detail", "action_plans", params
        ):
            plan = _plan(record)
            if since is not None and plan.made_at < since:
                break
            found.append(plan)
        return tuple(sorted(found, key=lambda p: (p.made_at, p.uuid)))

    def with_actions(self, plan: values.Plan) -> values.Plan:
        """A plan with its migrations.

        One whose indicators count none is taken at its word: a CONTINUOUS
        audit leaves many of those.

        :raises ServiceError: if Watcher cannot be asked
        """
        if any(plan.indicators.get(name) == 0 for name in _COUNTS):
            return plan
        records = list(
            self._pages(
                "/v1/actions/detail",
                "actions",
                {"action_plan_uuid": plan.uuid},
            )
        )
        migrations = [
            found
            for record in records
            if (
                found := audits.migration_of(
                    record, _moment(record.get("updated_at"))
                )
            )
            is not None
        ]
        return dataclasses.replace(
            plan,
            migrations=tuple(migrations),
            others=len(records) - len(migrations),
        )

    def _pages(
        self, path: str, key: str, params: Mapping[str, Any]
    ) -> Iterator[service.Answer]:
        """All items of a list that Watcher answers in pages."""
        query: dict[str, Any] = {"limit": _PAGE, **params}
        while True:
            document = self.service.get(path, query)
            items = document.items_of(key)
            yield from items
            if not items or not document.get("next"):
                return
            query["marker"] = items[-1]["uuid"]


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def _audit(record: service.Answer) -> values.Audit:
    return values.Audit(
        uuid=record["uuid"],
        name=record.get("name") or record["uuid"],
        kind=record["audit_type"],
        state=record["state"],
        goal=record.get("goal_name") or "",
        strategy=record.get("strategy_name") or "",
        interval=record.get("interval") or None,
        message=record.get("status_message"),
        created_at=_created(record),
        changed_at=_moment(record.get("updated_at")),
        next_at=_moment(record.get("next_run_time")),
        starts_at=_moment(record.get("start_time")),
        ends_at=_moment(record.get("end_time")),
    )


def _plan(record: service.Answer) -> values.Plan:
    return values.Plan(
        uuid=record["uuid"],
        audit=record.get("audit_uuid") or "",
        state=record["state"],
        message=record.get("status_message"),
        made_at=_created(record),
        changed_at=_moment(record.get("updated_at")),
        indicators=model.frozen_map(
            {
                str(one["name"]): float(one["value"])
                for one in record.get("efficacy_indicators") or ()
            }
        ),
    )


def _created(record: service.Answer) -> values.Moment:
    found = _moment(record["created_at"])
    if found is None:
        raise service.unexpected(record.where, "it has an empty 'created_at'")
    return found


# When a run is due


def with_dues(
    audit: values.Audit, plans: Sequence[values.Plan]
) -> tuple[values.Audit, tuple[values.Plan, ...]]:
    """An audit and its plans, with when each was due by its interval.

    :param plans: of the audit, the oldest first
    """
    if audit.kind != values.CONTINUOUS or not audit.interval:
        return audit, tuple(plans)
    found: list[values.Plan] = []
    for plan in plans:
        due = _after(found[-1].made_at, audit.interval) if found else None
        found.append(dataclasses.replace(plan, due_at=due))
    if found:
        following = _after(found[-1].made_at, audit.interval)
    else:
        following = max(
            filter(None, (audit.created_at, audit.starts_at)),
            default=audit.created_at,
        )
    if following and audit.ends_at and audit.ends_at < following:
        following = None
    return dataclasses.replace(audit, due_at=following), tuple(found)


def _after(last: values.Moment, interval: str) -> values.Moment | None:
    """When a run is due after another; None for an unknown interval."""
    if interval.isdecimal():
        return moment_at(last.seconds + int(interval))
    try:
        # Watcher reads cron expressions in UTC.
        times = croniter.croniter(interval, last.seconds)
    except (KeyError, ValueError):
        return None
    return moment_at(times.get_next(float))


def longest_interval_seconds(found: Iterable[values.Audit]) -> float:
    """How far back the run before may be; a day for cron expressions."""
    return max(
        (
            float(one.interval) if one.interval.isdecimal() else _DAY_SECONDS
            for one in found
            if one.interval
        ),
        default=0.0,
    )


# Nova's word


def with_lives(
    compute: nova.Nova, plans: Sequence[values.Plan]
) -> tuple[values.Plan, ...]:
    """Plans whose migrations have Nova's records.

    :raises ServiceError: if Nova cannot be asked
    """
    begun = [plan for plan in plans if plan.migrations]
    if not begun:
        return tuple(plans)
    since = min(plan.made_at for plan in begun)
    records = sorted(
        compute.service.pages(
            _MIGRATIONS,
            "migrations",
            {
                "limit": nova.PAGE,
                "migration_type": "live-migration",
                "changes-since": moment_at(
                    since.seconds - _SLACK_SECONDS
                ).text,
            },
        ),
        key=lambda record: int(record["id"]),
    )
    found: dict[tuple[str, str, str], list[service.Answer]] = {}
    for record in records:
        key = (
            str(record["instance_uuid"]),
            str(record["source_compute"]),
            str(record["dest_compute"]),
        )
        found.setdefault(key, []).append(record)
    return tuple(_with_lives(plan, found) for plan in plans)


def _with_lives(
    plan: values.Plan,
    found: Mapping[tuple[str, str, str], list[service.Answer]],
) -> values.Plan:
    return dataclasses.replace(
        plan,
        migrations=tuple(
            _with_live(
                one, plan, found.get((one.uuid, one.source, one.target))
            )
            for one in plan.migrations
        ),
    )


def _with_live(
    one: values.Migration,
    plan: values.Plan,
    records: Sequence[service.Answer] | None,
) -> values.Migration:
    """The first migration of its kind since the plan was made.

    One that the action ended before is somebody else's.
    """
    for record in records or ():
        began = _moment(record["created_at"])
        if began is None or began.seconds < (
            plan.made_at.seconds - _SLACK_SECONDS
        ):
            continue
        if one.finished is None:
            # The action was never begun.
            continue
        over = one.state not in ("PENDING", "ONGOING", "CANCELLING")
        if over and one.finished.seconds + _SLACK_SECONDS < began.seconds:
            continue
        return dataclasses.replace(
            one,
            live=values.Live(
                status=str(record["status"]),
                began_at=began,
                ended_at=_moment(record.get("updated_at")),
            ),
        )
    return one


def with_projects(
    compute: nova.Nova, plans: Sequence[values.Plan]
) -> tuple[values.Plan, ...]:
    """Plans whose migrations have projects, as far as Nova knows them.

    The server tells: a migration's own project is that of who asked for it.

    :raises ServiceError: if Nova cannot be asked
    """
    known = {
        uuid: _project(compute, uuid)
        for uuid in sorted(
            {one.uuid for plan in plans for one in plan.migrations}
        )
    }
    return tuple(
        dataclasses.replace(
            plan,
            migrations=tuple(
                dataclasses.replace(one, project=known[one.uuid])
                for one in plan.migrations
            ),
        )
        for plan in plans
    )


def _project(compute: nova.Nova, server: str) -> str | None:
    """Whose a server is, or was while Nova kept it."""
    try:
        found = compute.service.get(f"/servers/{server}")["server"]
    except service.NotFound:
        gone = compute.service.items(
            "/servers/detail",
            "servers",
            {"all_tenants": True, "deleted": True, "uuid": server},
        )
        found = next((one for one in gone if one["id"] == server), {})
    return str(found["tenant_id"]) if found.get("tenant_id") else None


def get_project_names(
    connected: sdk.Connection, ids: Iterable[str]
) -> Mapping[str, str]:
    """The names of projects, as far as the user may see them."""
    found = {}
    for key in sorted(set(ids)):
        try:
            identity: Any = connected.identity
            found[key] = str(identity.get_project(key).name)
        except (
            sdk_exceptions.SDKException,
            ksa_exceptions.ClientException,
        ):
            # A notice goes by the id as well.
            continue
    return model.frozen_map(found)
