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

"""Which instances may move, and how those are named that may not."""

from tests.cloud import EmbeddedCloud
from tests.functional import polling
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.test_in_doubt import begin_migration
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator


def test_locked_paused_and_opted_out_instances_stay_and_are_named(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """R92, R95, R162: three of four instances may not be moved.

    host-1 holds 8 Gold units of at most 1: all four would have to leave.
    Nova would live-migrate the locked and the paused one; we do not.
    """
    load(
        specs.three_tiers(
            instance("a-locked", "gold.2", "host-1", locked=True),
            instance("b-paused", "gold.2", "host-1", paused=True),
            instance(
                "c-opted-out",
                "gold.2",
                "host-1",
                metadata={"optimize": "false"},
            ),
            instance("d-free", "gold.2", "host-1"),
            events=(specs.inventory("host-1", "gold", total=1),),
        )
    )

    audit = operator.audit()

    assert set(audit.moves) == {"d-free"}
    assert audit.indicators["excess_units_before"] == 7
    assert audit.indicators["excess_units_after"] == 5
    assert audit.indicators["instances_unresolved"] == 3
    assert audit.said("a-locked stays", "it is locked")
    assert audit.said("b-paused stays", "status is PAUSED")
    assert audit.said("c-opted-out stays", "optimize=false")
    assert not audit.said("d-free stays")

    operator.start(audit.plan)

    locations = truth.locations()
    assert locations.pop("d-free") != "host-1"
    assert set(locations.values()) == {"host-1"}
    assert truth.over() == {("host-1", specs.GOLD): 5}


def test_an_instance_above_max_unit_is_diagnosed_and_not_tried(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R22: ``max_unit`` was lowered below what an instance holds.

    Placement then refuses to hand its allocation to a migration, as Nova
    shows at the end. The small instance still leaves, and 2 units stay.
    """
    load(
        specs.three_tiers(
            instance("big", "gold.4", "host-1"),
            instance("small", "gold.2", "host-1"),
            events=(specs.inventory("host-1", "gold", total=2, max_unit=2),),
        )
    )

    audit = operator.audit()

    assert set(audit.moves) == {"small"}
    assert audit.indicators["excess_units_before"] == 4
    assert audit.indicators["excess_units_after"] == 2
    assert audit.indicators["instances_unresolved"] == 1
    assert audit.said("big stays", "4 CUSTOM_VCPU_GOLD", "max_unit is 2")

    assert cloud.live_migrate("big", "host-2") == "error"
    assert truth.locations()["big"] == "host-1"


def test_an_instance_that_the_model_does_not_know_has_it_refreshed(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """``refresh_model``: Watcher's model is synchronised and it may move.

    ``late`` is booted after the model was built, without notifications.
    """
    _load_late_instance(cloud, load)

    audit = operator.audit()

    assert set(audit.moves) == {"late"}
    assert audit.indicators["excess_units_before"] == 4
    assert audit.indicators["excess_units_after"] == 0
    assert cloud.server_id("late") in cloud.watcher.model()

    operator.start(audit.plan)

    assert truth.locations()["late"] == audit.moves["late"][1]
    assert truth.over() == {}


def test_an_unknown_instance_counts_and_stays_without_a_refresh(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R78: with ``refresh_model`` false it counts, stays and is named."""
    _load_late_instance(cloud, load)

    audit = operator.audit(refresh_model=False)

    assert set(audit.moves) == {"early"}
    assert audit.indicators["excess_units_before"] == 4
    assert audit.indicators["excess_units_after"] == 2
    assert audit.indicators["instances_unresolved"] == 1
    assert audit.said("late stays", "compute model does not know it")
    assert cloud.server_id("late") not in cloud.watcher.model()


def _load_late_instance(cloud: EmbeddedCloud, load: Load) -> None:
    """4 of 6 Gold units on host-1 belong to an instance booted late."""
    load(
        specs.three_tiers(
            instance("early", "gold.2", "host-1"),
            flavors=(specs.flavor("gold.4"),),
        )
    )
    cloud.watcher.synchronize_model()
    cloud.boot(instance("late", "gold.4", "host-1"))
    cloud.set_inventory("host-1", specs.GOLD, total=2)


def test_a_migration_in_flight_is_no_excess_and_no_candidate(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R30: while ``mover`` migrates, both hosts hold its 4 units.

    Placement counts 8 Gold units against host-1's capacity of 4; four of
    them are the migration's own and will be gone, so host-1 is not over its
    quota. When host-1 is drained, ``stay`` has to leave, the mover is left
    alone; when host-2 is, where it will arrive, it is left alone as well.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("stay", "gold.4", "host-1"),
            events=(specs.inventory("host-1", "gold", total=4),),
        )
    )
    # Longer than three audits take on a busy machine; it is forced to end.
    begin_migration(cloud, truth, "mover", "host-2", seconds=600)
    (record,) = truth.migrations("mover")
    mover = cloud.server_id("mover")
    assert truth.allocations(mover)["host-2"][specs.GOLD] == 4
    assert truth.allocations(record["uuid"])["host-1"][specs.GOLD] == 4
    assert truth.over() == {("host-1", specs.GOLD): 4}

    calm = operator.audit()
    source_drained = operator.audit(drain_hosts=["host-1"])
    target_drained = operator.audit(drain_hosts=["host-2"])

    # It was under way all the time.
    assert truth.migrations("mover")[0]["status"] == "running"
    _force_complete(cloud, truth, "mover")
    assert calm.moves == {}
    assert calm.indicators["excess_units_before"] == 0
    assert source_drained.moves == {"stay": ("host-1", "host-3")}
    assert source_drained.indicators["instances_unresolved"] == 0
    assert target_drained.moves == {}
    assert truth.locations()["mover"] == "host-2"
    assert truth.over() == {}


def _force_complete(cloud: EmbeddedCloud, truth: Truth, instance: str) -> None:
    """End a live migration, so that nothing moves under the next story."""
    server = cloud.server_id(instance)
    migration = truth.migrations(instance)[0]["id"]
    cloud.adapter("compute").post(
        f"/servers/{server}/migrations/{migration}/action",
        json={"force_complete": None},
    )
    polling.until(
        lambda: truth.migrations(instance)[0]["status"] == "completed",
        "the migration to complete",
    )
