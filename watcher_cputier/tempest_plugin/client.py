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

"""Watcher's API, as much of it as the scenarios need."""

import json
from typing import Any

from tempest.lib.common import rest_client


class InfraOptimClient(rest_client.RestClient):
    """A user at Watcher's API."""

    def show_audit_template(self, name: str) -> dict[str, Any]:
        """An audit template by its name or uuid."""
        return self._get(f"/v1/audit_templates/{name}")

    def create_audit(self, template: str, **fields: Any) -> dict[str, Any]:
        """An audit of a template, by default a single one."""
        return self._sent(
            self.post(
                "/v1/audits",
                json.dumps(
                    {
                        "audit_template_uuid": template,
                        "audit_type": "ONESHOT",
                        **fields,
                    }
                ),
            ),
            201,
        )

    def show_audit(self, uuid: str) -> dict[str, Any]:
        """An audit with its state."""
        return self._get(f"/v1/audits/{uuid}")

    def delete_audit(self, uuid: str) -> None:
        """Remove an audit that is over."""
        response, _ = self.delete(f"/v1/audits/{uuid}")
        self.expected_success(204, response.status)

    def list_action_plans(self, audit: str) -> list[dict[str, Any]]:
        """The action plans of an audit."""
        found = self._get(f"/v1/action_plans?audit_uuid={audit}")
        plans: list[dict[str, Any]] = found["action_plans"]
        return plans

    def show_action_plan(self, uuid: str) -> dict[str, Any]:
        """An action plan with its state."""
        return self._get(f"/v1/action_plans/{uuid}")

    def start_action_plan(self, uuid: str) -> dict[str, Any]:
        """Let the applier execute a plan."""
        return self._sent(self.post(f"/v1/action_plans/{uuid}/start", ""), 200)

    def delete_action_plan(self, uuid: str) -> None:
        """Remove an action plan that is over."""
        response, _ = self.delete(f"/v1/action_plans/{uuid}")
        self.expected_success(204, response.status)

    def list_actions(self, plan: str) -> list[dict[str, Any]]:
        """The actions of an action plan, in detail."""
        found = self._get(f"/v1/actions/detail?action_plan_uuid={plan}")
        actions: list[dict[str, Any]] = found["actions"]
        return actions

    def _get(self, path: str) -> dict[str, Any]:
        return self._sent(self.get(path), 200)

    def _sent(self, answer: tuple[Any, Any], status: int) -> dict[str, Any]:
        response, body = answer
        self.expected_success(status, response.status)
        told: dict[str, Any] = json.loads(body)
        return told
