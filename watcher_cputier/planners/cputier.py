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

"""``cputier``: an action plan with the parents of the schedule.

The strategy has put each action's place into its input: ``needs`` and
``after``, the positions of other actions in the solution. They become
parents. ``needs`` stays in the input, by the actions' uuids now, for the
action itself has to know whose success it depends on.
"""

from typing import Any

from oslo_log import log
from watcher import objects
from watcher.common import utils
from watcher.decision_engine.planner import base

LOG = log.getLogger(__name__)

NEEDS = "needs"
AFTER = "after"


class CPUTierPlanner(base.BasePlanner):
    """Creates the actions of a plan with exactly the schedule's edges."""

    def schedule(self, context: Any, audit_id: int, solution: Any) -> Any:
        """Write the action plan of a solution, and all its actions.

        :returns: the plan, RECOMMENDED; an empty one has SUCCEEDED
        """
        plan = _create_plan(context, audit_id, solution)
        for indicator in solution.efficacy_indicators:
            objects.EfficacyIndicator(
                context,
                uuid=utils.generate_uuid(),
                name=indicator.name,
                description=indicator.description,
                unit=indicator.unit,
                value=indicator.value,
                action_plan_id=plan.id,
            ).create()
        uuids = [utils.generate_uuid() for _ in solution.actions]
        for uuid, action in zip(uuids, solution.actions, strict=True):
            told = dict(action["input_parameters"])
            needs = [uuids[i] for i in told.get(NEEDS, ())]
            after = [uuids[i] for i in told.pop(AFTER, ())]
            if NEEDS in told:
                told[NEEDS] = needs
            objects.Action(
                context,
                uuid=uuid,
                action_plan_id=plan.id,
                action_type=action["action_type"],
                input_parameters=told,
                parents=[*needs, *after],
            ).create()
        if not uuids:
            LOG.info("The action plan %s is empty", plan.uuid)
            plan.state = objects.action_plan.State.SUCCEEDED
            plan.save()
        return plan


def _create_plan(context: Any, audit_id: int, solution: Any) -> Any:
    strategy = objects.Strategy.get_by_name(context, solution.strategy.name)
    plan = objects.ActionPlan(
        context,
        uuid=utils.generate_uuid(),
        audit_id=audit_id,
        strategy_id=strategy.id,
        state=objects.action_plan.State.RECOMMENDED,
        global_efficacy=solution.global_efficacy,
    )
    plan.create()
    return plan
