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

"""What happened to instances of late, as Nova has it (R104, N12)."""

import time

import pytest

from tests.cloud import EmbeddedCloud
from tests.functional import polling
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from watcher_cputier import model
from watcher_cputier.datasources import nova

DAY = 86400


def history(
    cloud: EmbeddedCloud, seconds: int = DAY
) -> tuple[model.Cluster, dict[str, list[model.Change]]]:
    """The snapshot, and {instance name: what happened to it}."""
    scope = snapshots.everything(cloud)
    cluster = snapshots.reader(cloud).get_cluster(
        lambda: scope, snapshots.catalogue({}), history_seconds=seconds
    )
    found: dict[str, list[model.Change]] = {}
    for change in cluster.changes:
        name = cluster.instance_by_uuid[change.instance].name
        found.setdefault(name, []).append(change)
    return cluster, found


@pytest.fixture
def moved(load: Load, cloud: EmbeddedCloud) -> EmbeddedCloud:
    """One instance has moved twice, one could not, one has not."""
    load(
        specs.three_tiers(
            specs.instance("mover", "gold.2", "host-1"),
            specs.instance("stuck", "gold.2", "host-2"),
            specs.instance("still", "gold.2", "host-1"),
        )
    )
    assert cloud.live_migrate("mover", "host-2") == "completed"
    assert cloud.live_migrate("mover", "host-1") == "completed"
    cloud.set_migration_behaviour("host-2", outcome="fail")
    assert cloud.live_migrate("stuck", "host-1") != "completed"
    return cloud


def check(found: dict[str, list[model.Change]], begun: float) -> None:
    assert set(found) == {"mover", "stuck"}
    assert [one.moved for one in found["mover"]] == [True, True]
    assert [one.moved for one in found["stuck"]] == [False]
    assert [(one.source, one.target) for one in found["mover"]] == [
        ("host-1", "host-2"),
        ("host-2", "host-1"),
    ]
    for change in (*found["mover"], *found["stuck"]):
        assert change.kind == "live-migration"
        assert change.ended_at is not None
        # Nova's clock is this machine's; it tells whole seconds.
        assert begun - 2 <= change.began_at <= change.ended_at
        assert change.ended_at <= time.time() + 2


def test_migrations_of_the_recent_past_are_known(
    moved: EmbeddedCloud,
) -> None:
    begun = time.time() - 60
    cluster, found = history(moved)
    check(found, begun)
    assert cluster.taken_at is not None
    assert abs(cluster.taken_at - time.time()) < 60
    assert list(cluster.changes) == sorted(
        cluster.changes, key=model.Change.order
    )


def test_they_cost_no_request_where_all_fit_on_a_page(
    moved: EmbeddedCloud,
) -> None:
    mark = moved.mark()
    history(moved)
    asked = [
        request
        for request in moved.requests("compute", since=mark)
        if request.path.endswith("/os-migrations")
    ]
    # One tries the access, one reads.
    assert len(asked) == 2


def test_of_many_only_the_recent_ones_are_asked_for(
    moved: EmbeddedCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nova keeps the records of all migrations that ever were."""
    monkeypatch.setattr(nova, "PAGE", 1)
    begun = time.time() - 60
    mark = moved.mark()
    _, found = history(moved)
    check(found, begun)
    assert any(
        "changes-since" in request.query
        for request in moved.requests("compute", since=mark)
    )


def test_what_is_long_past_is_left_out(moved: EmbeddedCloud) -> None:
    time.sleep(2.1)
    _, found = history(moved, seconds=1)
    assert found == {}


def test_nothing_is_asked_for_where_it_is_of_no_interest(
    moved: EmbeddedCloud,
) -> None:
    assert snapshots.read(moved).changes == ()


def test_a_migration_in_flight_has_no_end(
    load: Load, cloud: EmbeddedCloud
) -> None:
    load(specs.three_tiers(specs.instance("mover", "gold.2", "host-1")))
    cloud.set_migration_behaviour("host-1", duration_seconds=600)
    cloud.live_migrate("mover", "host-2", wait=False)
    polling.until(
        lambda: any(
            one["status"] == "running"
            for one in cloud.migrations(cloud.server_id("mover"))
        ),
        "the migration to run",
    )

    _, found = history(cloud)

    (change,) = found["mover"]
    assert (change.ended_at, change.moved) == (None, False)


def test_a_reboot_is_found_where_somebody_asks(
    load: Load, cloud: EmbeddedCloud
) -> None:
    """Counters of a guest begin anew then."""
    load(specs.three_tiers(specs.instance("vm", "gold.2", "host-1")))
    cluster = snapshots.read(cloud)
    reader = snapshots.reader(cloud)
    instance = snapshots.named(cluster, "vm")
    assert reader.get_actions([instance], DAY) == ()

    cloud.population.act(instance.uuid, "reboot", {"type": "HARD"})
    (change,) = polling.until(
        lambda: reader.get_actions([instance], DAY), "the reboot to be told"
    )

    assert (change.instance, change.kind) == (instance.uuid, "reboot")
    assert abs(change.began_at - time.time()) < 60
    assert not change.moved
