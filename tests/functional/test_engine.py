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

"""Plans on Watcher's real workflow engine, with real Nova and Placement.

The audits here plan what the story dictates (serial plans with chains and
parked instances); the strategy, the planner plugin, the engine and the action
are the real ones. Nova's own records say whether Placement refused anything:
such a migration ends in ``error``.
"""

from collections.abc import Iterator, Mapping
import random
from typing import Any

import pytest

from tests import serial
from tests.cloud import EmbeddedCloud
from tests.functional import polling
from tests.functional import snapshots
from tests.functional import specs
from tests.functional import watcher_api
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator
from tests.functional.watcher_api import Plan


@pytest.fixture(autouse=True)
def undisturbed(cloud: EmbeddedCloud) -> Iterator[None]:
    """Whatever a story does to migrations ends with it."""
    yield
    cloud.set_migration_behaviour()


def actions(plan: Plan) -> dict[str, Mapping[str, Any]]:
    """{instance: its action}, the last one of a parked instance."""
    return {a["input_parameters"]["resource_name"]: a for a in plan.actions}


def states(plan: Plan) -> dict[str, str]:
    """{instance: state of its action}."""
    return {name: action["state"] for name, action in actions(plan).items()}


def not_done(skips: bool) -> str:
    """What becomes of a step that does not hold: old Watchers cannot skip."""
    return "SKIPPED" if skips else "FAILED"


def reason(plan: Plan, name: str, log: str) -> str:
    """Why a step was not taken: its status message, else the log."""
    told = actions(plan)[name].get("status_message")
    return told or log


@pytest.fixture
def skipped(cloud: EmbeddedCloud) -> str:
    """The state of an action that was not worth taking."""
    return not_done(watcher_api.skips())


def asked_to_move(cloud: EmbeddedCloud, since: float) -> list[str]:
    """Uuids of the instances that Nova was asked to migrate, in order."""
    return [
        request.path.split("/")[-2]
        for request in cloud.requests("compute", since)
        if request.method == "POST" and "os-migrateLive" in request.body
    ]


def chain(*more: Any, **fields: Any) -> Any:
    """host-1 is over by 4 Gold; host-2, its only target by the plan, is full.

    ::

        host-1  gold 4 (holds 8: victim 4, stay 4)
        host-2  gold 4 (holds 4: ejected 4)
        host-3  gold 8
    """
    events = fields.pop("events", ())
    return specs.three_tiers(
        instance("victim", "gold.4", "host-1"),
        instance("stay", "gold.4", "host-1"),
        instance("ejected", "gold.4", "host-2"),
        *more,
        events=(
            specs.inventory("host-1", "gold", total=4),
            specs.inventory("host-2", "gold", total=4),
            *events,
        ),
        **fields,
    )


CHAIN = (("ejected", "host-3"), ("victim", "host-2"))


def test_a_chain_waits_for_its_room(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """The victim's parent is the one whose room it takes, and no other."""
    load(chain(instance("other", "silver.2", "host-1")))
    cloud.watcher.dictate(
        ("ejected", "host-3"),
        ("victim", "host-2"),
        ("other", "host-3"),
        reasons=False,
    )
    cloud.set_migration_behaviour("host-2", duration_seconds=2)

    audit = operator.audit(
        parallel_total=3, parallel_per_source=2, parallel_per_target=2
    )
    found = actions(audit.plan)
    ejected = found["ejected"]["uuid"]
    assert found["victim"]["parents"] == [ejected]
    assert found["victim"]["input_parameters"]["needs"] == [ejected]
    assert found["other"]["parents"] == found["ejected"]["parents"] == []
    assert {a["action_type"] for a in audit.plan.actions} == {"tier_migrate"}

    begun = cloud.mark()
    plan = operator.start(audit.plan)

    assert plan.state == "SUCCEEDED"
    assert set(states(plan).values()) == {"SUCCEEDED"}
    assert truth.locations()["victim"] == "host-2"
    assert truth.over() == {}
    order = asked_to_move(cloud, begun)
    assert order.index(cloud.server_id("ejected")) < order.index(
        cloud.server_id("victim")
    )
    assert statuses(cloud) == {"completed"}


def statuses(cloud: EmbeddedCloud) -> set[str]:
    """How all migrations have ended, by Nova."""
    listed = cloud.adapter("compute").get("/os-migrations").json()
    return {m["status"] for m in listed["migrations"]}


def test_limits_become_parents(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R108: with ``parallel_total`` 1 one goes after the other, and none
    needs another's success.
    """
    load(chain(instance("other", "silver.2", "host-1")))
    cloud.watcher.dictate(("ejected", "host-3"), ("other", "host-3"))

    audit = operator.audit(parallel_total=1)

    first, second = actions(audit.plan).values()
    assert sorted(len(a["parents"]) for a in (first, second)) == [0, 1]
    for action in (first, second):
        assert action["input_parameters"]["needs"] == []
        assert "after" not in action["input_parameters"]


def test_a_failure_stops_those_that_need_it_and_no_others(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
) -> None:
    """The copy of ``ejected`` fails: ``victim`` is never asked to move,
    although Watcher runs the children of a failed action.
    """
    load(chain(instance("other", "silver.2", "host-3")))
    cloud.watcher.dictate(*CHAIN, ("other", "host-1"), reasons=False)
    cloud.set_migration_behaviour("host-2", outcome="fail")
    audit = operator.audit(parallel_total=3)

    begun, mark = cloud.mark(), cloud.watcher.log_mark()
    plan = operator.start(audit.plan)

    assert states(plan) == {
        "ejected": "FAILED",
        "victim": skipped,
        "other": "SUCCEEDED",
    }
    if skipped == "SKIPPED":
        # Watcher 14 calls a plan with failures a success.
        assert plan.state == "FAILED"
    assert "needs the migration of ejected" in reason(
        plan, "victim", cloud.watcher.log(mark)
    )
    assert cloud.server_id("victim") not in asked_to_move(cloud, begun)
    assert truth.locations()["victim"] == "host-1"
    assert truth.over() == {("host-1", specs.GOLD): 4}


def test_a_parked_instance_goes_on(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """Two full hosts exchange instances through a third."""
    load(
        specs.three_tiers(
            instance("x", "gold.8", "host-1"),
            instance("y", "gold.8", "host-2"),
        )
    )
    cloud.watcher.dictate(
        ("x", "host-3"), ("y", "host-1"), ("x", "host-2"), reasons=False
    )

    plan = operator.start(operator.audit(parallel_total=4).plan)

    assert plan.state == "SUCCEEDED"
    assert len(plan.actions) == 3
    assert truth.locations() == {"x": "host-2", "y": "host-1"}
    assert truth.over() == {}
    assert statuses(cloud) == {"completed"}


@pytest.mark.parametrize(
    ("change", "moves", "idle", "words"),
    [
        ("delete", CHAIN, {"ejected"}, "gone"),
        ("move", CHAIN, {"ejected", "victim"}, "is on host-3"),
        ("lock", CHAIN, {"ejected", "victim"}, "locked"),
        ("cure", CHAIN, {"ejected", "victim"}, "no longer over"),
        ("fill", (("victim", "host-3"),), {"victim"}, "may not take it"),
        ("disable", (("victim", "host-3"),), {"victim"}, "disabled"),
    ],
)
def test_what_no_longer_holds_is_skipped_with_the_reason(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
    change: str,
    moves: tuple[tuple[str, str], ...],
    idle: set[str],
    words: str,
) -> None:
    """N13: between the plan and its execution somebody changes the cloud."""
    load(chain())
    cloud.watcher.dictate(*moves)
    audit = operator.audit(parallel_total=2)

    _change(cloud, change)
    begun, mark = cloud.mark(), cloud.watcher.log_mark()
    plan = operator.start(audit.plan)

    found = states(plan)
    assert {n for n, state in found.items() if state != "SUCCEEDED"} >= idle
    first = moves[0][0]
    assert found[first] == skipped
    assert words in reason(plan, first, cloud.watcher.log(mark))
    moved = asked_to_move(cloud, begun)
    for name in idle - {"ejected"} if change == "delete" else idle:
        assert cloud.server_id(name) not in moved


def _change(cloud: EmbeddedCloud, change: str) -> None:
    if change == "delete":
        cloud.delete("ejected")
    elif change == "move":
        assert cloud.live_migrate("ejected", "host-3") == "completed"
    elif change == "lock":
        cloud.lock("ejected")
    elif change == "cure":
        cloud.set_inventory("host-1", specs.GOLD, via="api", total=8)
    elif change == "fill":
        cloud.boot(instance("late", "gold.4", "host-3"))
        cloud.boot(instance("later", "gold.4", "host-3"))
    elif change == "disable":
        cloud.disable_service("host-3")


def test_a_policy_quota_holds_although_placement_has_room(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
) -> None:
    """At most 4 Gold a host. By its capacity host-3 could take ``victim``
    beside ``late``, which came after the plan; by the quota it could not.
    """
    load(
        specs.three_tiers(
            instance("victim", "gold.4", "host-1"),
            instance("stay", "gold.4", "host-1"),
        )
    )
    cloud.watcher.dictate(("victim", "host-3"))
    audit = operator.audit(quotas={"gold": "50%"})
    cloud.boot(instance("late", "gold.4", "host-3"))

    mark = cloud.watcher.log_mark()
    plan = operator.start(audit.plan)

    assert states(plan) == {"victim": skipped}
    assert "4 of 4 gold units are taken" in reason(
        plan, "victim", cloud.watcher.log(mark)
    )
    assert truth.usages("host-3")[specs.GOLD] == 4
    assert truth.migrations("victim") == []


def test_room_is_not_made_for_who_does_not_come(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
) -> None:
    """``victim`` has been taken elsewhere; host-1 is still over by ``stay``,
    which has no room without it.
    """
    load(chain(events=(specs.inventory("host-1", "gold", total=2),)))
    cloud.watcher.dictate(*CHAIN)
    audit = operator.audit()
    assert cloud.live_migrate("victim", "host-3") == "completed"

    mark = cloud.watcher.log_mark()
    plan = operator.start(audit.plan)

    assert states(plan) == {"ejected": skipped, "victim": skipped}
    assert "makes room for victim" in reason(
        plan, "ejected", cloud.watcher.log(mark)
    )
    assert truth.migrations("ejected") == []


def test_a_migration_that_outlasts_watchers_patience_succeeds(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
) -> None:
    """Watcher gives up after a second, Nova is done after four; and only
    then the one that needs the room begins.
    """
    cloud.watcher.configure(
        {
            ("nova", "migration_max_retries"): 2,
            ("nova", "migration_interval"): 0.5,
        }
    )
    load(chain())
    cloud.watcher.dictate(*CHAIN)
    cloud.set_migration_behaviour("host-2", duration_seconds=4)

    mark = cloud.watcher.log_mark()
    plan = operator.start(operator.audit().plan)

    assert states(plan) == {"ejected": "SUCCEEDED", "victim": "SUCCEEDED"}
    if skipped == "SKIPPED":
        # The patience of Watcher 14 is two minutes, and no option.
        assert "succeeded after all" in cloud.watcher.log(mark)
    assert statuses(cloud) == {"completed"}
    assert truth.over() == {}


def test_what_is_not_over_in_time_has_failed(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    skipped: str,
) -> None:
    """Unknown is no success: nobody takes the room that may not be there."""
    if skipped != "SKIPPED":
        pytest.skip("the patience of Watcher 14 is two minutes")
    cloud.watcher.configure(
        {
            ("nova", "migration_max_retries"): 1,
            ("nova", "migration_interval"): 0.5,
            ("cputier", "migration_timeout_seconds"): 1,
        }
    )
    load(chain())
    cloud.watcher.dictate(*CHAIN)
    cloud.set_migration_behaviour("host-2", duration_seconds=8)

    mark = cloud.watcher.log_mark()
    plan = operator.start(operator.audit().plan)

    assert states(plan) == {"ejected": "FAILED", "victim": skipped}
    assert "outcome is unknown" in reason(
        plan, "ejected", cloud.watcher.log(mark)
    )
    assert truth.migrations("victim") == []
    polling.until(
        lambda: truth.locations()["ejected"] == "host-3", "Nova to be done"
    )


def test_watchers_own_planner_runs_safe_pairs(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """``planner: weight``: plain ``migrate`` actions, two by two. In serial
    order ``ejected`` and ``victim`` would run together, and Placement would
    refuse ``victim``.
    """
    load(chain(instance("other", "silver.2", "host-2")))
    cloud.watcher.dictate(*CHAIN, ("other", "host-1"))
    cloud.set_migration_behaviour("host-2", duration_seconds=1)

    audit = operator.audit(planner="weight")
    assert {a["action_type"] for a in audit.plan.actions} == {"migrate"}
    plan = operator.start(audit.plan)

    assert set(states(plan).values()) == {"SUCCEEDED"}
    assert statuses(cloud) == {"completed"}
    assert truth.over() == {}


def test_what_no_pair_can_take_is_deferred(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """The victim alone would share its pair with the one that it needs."""
    load(chain(), shared=True)
    cloud.watcher.dictate(*CHAIN)

    audit = operator.audit(planner="weight")

    assert set(audit.moves) == {"ejected"}
    assert audit.said("Deferred", "victim")
    assert audit.indicators["migrations_planned"] == 1
    assert audit.indicators["gold_excess_units_after"] == 4


def test_too_few_workers_are_named(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """The tests' applier has 4 workers; the audit wants 5 migrations."""
    load(chain(), shared=True)
    cloud.watcher.dictate(*CHAIN)

    assert operator.audit(parallel_total=5).said("few_workers", "at most 4")
    assert not operator.audit(parallel_total=4).said("few_workers")


@pytest.mark.parametrize("seed", range(3))
def test_no_allocation_is_refused_whatever_happens(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    seed: int,
) -> None:
    """Senseless but admissible plans on nearly full hosts, some migrations
    slow and those off one host failing: Placement refuses nothing, no host
    is more over its capacity than before, and the limits hold.
    """
    chance = random.Random(seed)
    names = [f"host-{n + 1}" for n in range(4)]
    load(
        specs.three_tiers(
            *(
                instance(f"i{n}-{k}", f"gold.{size}", name)
                for n, name in enumerate(names)
                for k, size in enumerate(
                    [(4, 2, 1), (4, 4), (2, 2, 2), (4, 2)][n]
                )
            ),
            hosts=specs.hosts(4),
        )
    )
    seen = snapshots.read(cloud, detailed=names)
    moves = serial.by_chance(seen, chance, 14)
    for name in names:
        cloud.set_migration_behaviour(
            name, duration_seconds=chance.choice([0.2, 1.0, 2.0])
        )
    cloud.set_migration_behaviour(chance.choice(names), outcome="fail")
    cloud.watcher.dictate(
        *((m.instance.name, m.target) for m in moves), reasons=False
    )
    audit = operator.audit(parallel_total=4)
    needing = [a for a in audit.plan.actions if a["input_parameters"]["needs"]]
    assert needing

    operator.post(f"/v1/action_plans/{audit.plan.uuid}/start")
    most = _watch(cloud, operator, audit.plan.uuid)
    plan = operator.wait_for_plan(audit.plan.uuid)

    listed = cloud.adapter("compute").get("/os-migrations").json()
    ended = {m["status"] for m in listed["migrations"]}
    assert ended <= {"completed", "failed"}
    assert truth.over() == {}
    assert most["plan"] <= 4
    assert most["from"] <= 1
    assert most["to"] <= 1
    for action in plan.actions:
        needs = action["input_parameters"]["needs"]
        fates = [a["state"] for a in plan.actions if a["uuid"] in needs]
        if action["state"] == "SUCCEEDED":
            assert set(fates) <= {"SUCCEEDED"}


def _watch(
    cloud: EmbeddedCloud, operator: Operator, uuid: str
) -> dict[str, int]:
    """The most migrations that were seen at once while a plan runs."""
    most = {"plan": 0, "from": 0, "to": 0}

    def look() -> bool:
        listed = cloud.adapter("compute").get("/os-migrations").json()
        flying = [
            m
            for m in listed["migrations"]
            if m["status"] in ("accepted", "preparing", "queued", "running")
        ]
        sources = [m["source_compute"] for m in flying]
        targets = [m["dest_compute"] for m in flying if m["dest_compute"]]
        most["plan"] = max(most["plan"], len(flying))
        most["from"] = max([most["from"], *map(sources.count, sources)])
        most["to"] = max([most["to"], *map(targets.count, targets)])
        state = operator.get(f"/v1/action_plans/{uuid}")["state"]
        return state not in ("PENDING", "ONGOING")

    polling.until(look, "the plan to end", timeout_seconds=180)
    return most
