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

"""What an operator does with Watcher, through its REST API."""

from collections.abc import Mapping
import dataclasses
from importlib import metadata
import re
from typing import Any

from keystoneauth1 import adapter
import requests

from tests.cloud import EmbeddedCloud
from tests.functional import polling

GOAL = "continuous_slo_compliance"
STRATEGY = "domain_capacity_enforcement"
_VERSION = "latest"
_UNDER_WAY = ("PENDING", "ONGOING")
_OURS = re.compile(
    r"^\S+ \S+ \d+ (?P<level>[A-Z]+) watcher_cputier\S* "
    r"\[[^\]]*\] (?P<text>.*)$",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Plan:
    """An action plan.

    :param moves: {instance name: (source, target)}
    :param indicators: {efficacy indicator: value}
    :param efficacy: {global efficacy indicator: value}
    :param actions: as the API shows them
    """

    uuid: str
    state: str
    moves: Mapping[str, tuple[str, str]]
    indicators: Mapping[str, float]
    efficacy: Mapping[str, float]
    actions: tuple[Mapping[str, Any], ...]


@dataclasses.dataclass(frozen=True)
class Audit:
    """An audit that has come to its end.

    :param status_message: None where this Watcher has none (14)
    :param plans: what it recommended; one, unless it failed
    :param log: everything that Watcher logged meanwhile
    """

    uuid: str
    state: str
    status_message: str | None
    plans: tuple[Plan, ...]
    log: str

    @property
    def plan(self) -> Plan:
        """The plan of an audit that succeeded."""
        assert self.state == "SUCCEEDED", (self.status_message, self.log)
        (plan,) = self.plans
        return plan

    @property
    def moves(self) -> Mapping[str, tuple[str, str]]:
        """{instance name: (source, target)} of its plan."""
        return self.plan.moves

    @property
    def indicators(self) -> Mapping[str, float]:
        """The efficacy indicators of its plan."""
        return self.plan.indicators

    @property
    def reason(self) -> str:
        """Why it failed: its status message, else what the log says."""
        if self.status_message is not None:
            return self.status_message
        return " ".join(self.said("could not look", level="ERROR"))

    def said(self, *words: str, level: str = "") -> list[str]:
        """Log lines of the strategy that contain all these words."""
        return [
            match["text"]
            for match in _OURS.finditer(self.log)
            if match["level"] in (level or match["level"])
            and all(word in match["text"] for word in words)
        ]


class Operator:
    """Creates audits and starts plans; waits for both."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._cloud = cloud

    @property
    def api(self) -> adapter.Adapter:
        """Watcher's API, as the cloud's administrator."""
        return self._cloud.adapter("infra-optim")

    def get(self, path: str, **params: str) -> dict[str, Any]:
        """One document of the API."""
        answer = self.api.get(path, params=params, microversion=_VERSION)
        document: dict[str, Any] = answer.json()
        return document

    def post(self, path: str, body: Any = None) -> requests.Response:
        """A request, its answer whatever it is."""
        return self.api.post(
            path, json=body, microversion=_VERSION, raise_exc=False
        )

    def ask_for_audit(
        self,
        parameters: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> requests.Response:
        """Try to create an audit; the answer, be it 201 or 400."""
        body = {
            "audit_type": "ONESHOT",
            "goal": GOAL,
            "strategy": STRATEGY,
            "parameters": dict(parameters or {}),
            **fields,
        }
        return self.post(
            "/v1/audits",
            {name: value for name, value in body.items() if value is not None},
        )

    def create_audit(
        self, parameters: Mapping[str, Any] | None = None, **fields: Any
    ) -> str:
        """Create an audit; its uuid."""
        answer = self.ask_for_audit(parameters, **fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["uuid"])

    def audit(self, **parameters: Any) -> Audit:
        """Run a one-shot audit with these parameters to its end."""
        return self.run(parameters)

    def audit_in_scope(self, *scope: Any, **parameters: Any) -> Audit:
        """Run a one-shot audit of a scope, made from an audit template.

        Watcher takes a scope from an audit template only.

        :param scope: the entries below ``compute``
        """
        name = f"template-{len(self._templates())}"
        answer = self.post(
            "/v1/audit_templates",
            {
                "name": name,
                "goal": GOAL,
                "strategy": STRATEGY,
                "scope": [{"compute": list(scope)}],
            },
        )
        assert answer.status_code == 201, answer.text
        return self.run(
            parameters,
            goal=None,
            strategy=None,
            audit_template_uuid=answer.json()["uuid"],
        )

    def _templates(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/v1/audit_templates")[
            "audit_templates"
        ]
        return found

    def run(
        self, parameters: Mapping[str, Any] | None = None, **fields: Any
    ) -> Audit:
        """Create an audit and wait for its end."""
        mark = self._cloud.watcher.log_mark()
        return self.wait(self.create_audit(parameters, **fields), mark)

    def wait(self, uuid: str, log_mark: int = 0) -> Audit:
        """Wait until an audit is neither pending nor under way."""
        record = polling.until(
            lambda: self._ended(f"/v1/audits/{uuid}"), f"audit {uuid} to end"
        )
        return Audit(
            uuid=uuid,
            state=record["state"],
            status_message=(
                record["status_message"] or ""
                if "status_message" in record
                else None
            ),
            plans=self.plans(uuid),
            log=self._cloud.watcher.log(log_mark),
        )

    def cancel_audit(self, uuid: str) -> None:
        """End a CONTINUOUS or EVENT audit."""
        self.api.patch(
            f"/v1/audits/{uuid}",
            json=[{"op": "replace", "path": "/state", "value": "CANCELLED"}],
            microversion=_VERSION,
        )

    def plans(self, audit: str) -> tuple[Plan, ...]:
        """The action plans of an audit, the oldest first."""
        listed = self.get("/v1/action_plans/detail", audit_uuid=audit)
        records = sorted(
            listed["action_plans"], key=lambda record: record["created_at"]
        )
        return tuple(self._plan(record) for record in records)

    def start(self, plan: Plan) -> Plan:
        """Execute a plan and wait for its end."""
        answer = self.post(f"/v1/action_plans/{plan.uuid}/start")
        assert answer.status_code == 200, answer.text
        return self.wait_for_plan(plan.uuid)

    def wait_for_plan(self, uuid: str, *, started: bool = True) -> Plan:
        """Wait until a plan is executed.

        :param started: whether it is known to have been started; Watcher
            itself starts one (``auto_trigger``) some time after it has
            recommended it
        """
        path = f"/v1/action_plans/{uuid}"
        before = _UNDER_WAY if started else (*_UNDER_WAY, "RECOMMENDED")
        record = polling.until(
            lambda: self._ended(path, before), f"action plan {uuid} to end"
        )
        return self._plan(record)

    def _ended(
        self, path: str, before: tuple[str, ...] = _UNDER_WAY
    ) -> dict[str, Any] | None:
        record = self.get(path)
        return None if record["state"] in before else record

    def _plan(self, record: Mapping[str, Any]) -> Plan:
        actions = self.get(
            "/v1/actions/detail", action_plan_uuid=record["uuid"]
        )["actions"]
        wanted = [
            action["input_parameters"]
            for action in actions
            if "destination_node" in action["input_parameters"]
        ]
        moves: dict[str, tuple[str, str]] = {}
        for one in wanted:
            name = one["resource_name"]
            if name in moves:
                # Only what is parked moves twice; it then goes on whatever
                # has become of the excess.
                assert one["expects"]["excess"] is None, f"twice: {wanted}"
            source, _ = moves.get(name, (one["source_node"], ""))
            moves[name] = (source, one["destination_node"])
        return Plan(
            uuid=record["uuid"],
            state=record["state"],
            moves=moves,
            indicators=_values(record["efficacy_indicators"]),
            efficacy=_values(record["global_efficacy"] or []),
            actions=tuple(actions),
        )


def skips() -> bool:
    """Whether this Watcher can skip actions; releases before 15 cannot."""
    return int(metadata.version("python-watcher").split(".")[0]) >= 15


def _values(indicators: Any) -> dict[str, float]:
    return {one["name"]: one["value"] for one in indicators}
