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

"""The audit's scope: what it leaves out counts, and is left alone (R112).

Every host of this cloud is over its Gold quota but host-2 and host-4::

    east  host-1  gold 6 of 4   a-four, b-two
          host-2  gold 2 of 8   c-two
    west  host-3  gold 4 of 2   d-four
          host-4  gold 0 of 8   the best target of all
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

import pytest

from tests.cloud import AggregateSpec
from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

EAST_AND_WEST = specs.three_tiers(
    instance("a-four", "gold.4", "host-1", project="acme"),
    instance("b-two", "gold.2", "host-1"),
    instance("c-two", "gold.2", "host-2"),
    instance("d-four", "gold.4", "host-3"),
    hosts=specs.hosts(4),
    aggregates=(
        AggregateSpec(name="east", hosts=("host-1", "host-2")),
        AggregateSpec(name="west", hosts=("host-3", "host-4")),
    ),
    events=(
        specs.inventory("host-1", "gold", total=4),
        specs.inventory("host-3", "gold", total=2),
    ),
)


def test_without_a_scope_all_hosts_take_part(
    load: Load, operator: Operator
) -> None:
    """The other stories of this module would be empty without this one."""
    load(EAST_AND_WEST, shared=True)

    audit = operator.audit()

    assert set(audit.moves) == {"b-two", "d-four"}
    assert audit.moves["d-four"] == ("host-3", "host-4")
    assert audit.indicators["hosts_over_quota_before"] == 2


def test_hosts_outside_an_aggregate_are_neither_sources_nor_targets(
    load: Load, operator: Operator
) -> None:
    """R112: an audit of east leaves host-3 over and host-4 empty."""
    load(EAST_AND_WEST, shared=True)

    audit = operator.audit_in_scope({"host_aggregates": [{"name": "east"}]})

    assert audit.moves == {"b-two": ("host-1", "host-2")}
    assert audit.indicators["hosts_over_quota_before"] == 1
    assert audit.indicators["excess_units_before"] == 2


@pytest.mark.parametrize("drained", ["host-1", "host-3"])
def test_a_parameter_for_a_host_outside_the_scope_is_reported(
    load: Load, operator: Operator, drained: str
) -> None:
    """A drain outside the scope does nothing, and says so; R112."""
    load(EAST_AND_WEST, shared=True)

    audit = operator.audit_in_scope(
        {"host_aggregates": [{"name": "west"}]}, drain_hosts=[drained]
    )

    assert audit.moves == {"d-four": ("host-3", "host-4")}
    outside = audit.said("host-1", "outside its scope")
    assert bool(outside) == (drained == "host-1")


def test_instances_excluded_by_uuid_count_and_stay(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """The cheapest cure of host-1 is excluded: the next one is taken."""
    load(EAST_AND_WEST, shared=True)
    uuid = truth.server("b-two")["id"]

    audit = operator.audit_in_scope(
        {"exclude": [{"instances": [{"uuid": uuid}]}]}
    )

    assert set(audit.moves) == {"a-four", "d-four"}
    assert audit.indicators["gold_excess_units_before"] == 4
    assert audit.indicators["gold_excess_units_after"] == 0


def test_instances_excluded_by_project_are_named_where_they_block(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """With a quota of 0 everyone would have to leave host-1."""
    load(EAST_AND_WEST, shared=True)
    project = truth.server("a-four")["tenant_id"]
    assert project != truth.server("b-two")["tenant_id"]

    audit = operator.audit_in_scope(
        {"exclude": [{"projects": [{"uuid": project}]}]},
        drain_hosts=["host-1"],
    )

    assert set(audit.moves) == {"b-two", "d-four"}
    assert audit.indicators["gold_excess_units_before"] == 6 + 2
    assert audit.indicators["gold_excess_units_after"] == 4
    assert audit.indicators["instances_unresolved"] == 1
    assert audit.said("a-four stays", "scope excludes it")


def test_excluded_hosts_are_neither_sources_nor_targets(
    load: Load, operator: Operator
) -> None:
    """R112: ``exclude`` by host; host-3's excess and host-4's room."""
    load(EAST_AND_WEST, shared=True)
    excluded: list[Mapping[str, Any]] = [{"name": "host-3"}]

    audit = operator.audit_in_scope(
        {"exclude": [{"compute_nodes": [*excluded, {"name": "host-4"}]}]}
    )

    assert audit.moves == {"b-two": ("host-1", "host-2")}
    assert audit.indicators["hosts_over_quota_before"] == 1


def test_a_host_that_watcher_has_lost_is_reported(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """host-3 has no DISK_GB of its own: Watcher's model leaves it out.

    It would be the only target. An audit of the whole cloud says so, and
    what mends it; an audit with a scope has its own reasons.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("full", "gold.5", "host-2"),
            hosts=(*specs.hosts(2), specs.host("host-3", disk_gb=0)),
            aggregates=(
                AggregateSpec(name="both", hosts=("host-1", "host-2")),
            ),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )
    cloud.watcher.synchronize_model()
    if cloud.provider_uuid("host-3") in cloud.watcher.model():
        pytest.skip("this release of Watcher keeps such hosts")

    audit = operator.audit()
    scoped = operator.audit_in_scope({"host_aggregates": [{"name": "both"}]})

    assert audit.moves == {}
    (line,) = audit.said("host_not_in_model", "host-3", level="WARNING")
    assert "DISK_GB" in line
    assert scoped.moves == {}
    assert not scoped.said("host_not_in_model")


def test_a_host_that_is_new_is_looked_for_once(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """Watcher's model is older than host-3: it is synchronised."""
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("full", "gold.5", "host-2"),
            hosts=specs.hosts(2),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )
    cloud.watcher.synchronize_model()
    added = dataclasses.asdict(specs.host("host-3"))
    cloud.control.call("add_host", host=added)
    assert cloud.provider_uuid("host-3") not in cloud.watcher.model()

    stale = operator.audit(refresh_model=False)
    fresh = operator.audit()

    assert stale.moves == {}
    assert stale.said("host_not_in_model", "host-3")
    assert fresh.moves == {"mover": ("host-1", "host-3")}
    assert not fresh.said("host_not_in_model")
