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

"""The story that the demo tells, and the one in which nothing is wrong."""

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator


def test_hosts_over_quota_and_drained_hosts_are_cured_for_good(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R6, R80, R109: over quota by a lowered provider.yaml, and a drain.

    host-1 holds 8 Gold units when its provider.yaml is lowered to 5; host-3
    is drained by ``reserved = total``. The fewest instances leave: the one
    Gold instance whose 4 units cover host-1's excess of 3, and the two of
    host-3. Nova carries the plan out, Placement finds every host within its
    capacity, and the next audit has nothing left to do.
    """
    load(
        specs.three_tiers(
            instance("gold-big", "gold.4", "host-1"),
            instance("gold-small", "gold.2", "host-1", count=2),
            instance("silver-home", "silver.4", "host-1"),
            instance("gold-drained", "gold.2", "host-3"),
            instance("bronze-drained", "bronze.2", "host-3"),
            instance("bronze-there", "bronze.4", "host-2"),
            hosts=specs.hosts(4),
            events=(
                specs.inventory("host-1", "gold", total=5),
                *specs.reserved("host-3"),
            ),
        )
    )
    assert truth.over() == {
        ("host-1", specs.GOLD): 3,
        ("host-3", specs.GOLD): 2,
        ("host-3", specs.BRONZE): 2,
    }

    first = operator.audit()

    assert {name: source for name, (source, _) in first.moves.items()} == {
        "gold-big": "host-1",
        "gold-drained": "host-3",
        "bronze-drained": "host-3",
    }
    assert {target for _, target in first.moves.values()} <= {
        "host-2",
        "host-4",
    }
    assert first.indicators == {
        "hosts_over_quota_before": 2,
        "hosts_over_quota_after": 0,
        "excess_units_before": 7,
        "excess_units_after": 0,
        "migrations_planned": 3,
        "migrations_lower_bound": 3,
        "instances_unresolved": 0,
        "gold_excess_units_before": 5,
        "gold_excess_units_after": 0,
        "silver_excess_units_before": 0,
        "silver_excess_units_after": 0,
        "bronze_excess_units_before": 2,
        "bronze_excess_units_after": 0,
    }
    assert first.plan.efficacy == {"excess_removed": 100}
    # Audit-only is the default: nothing has moved yet (R117).
    assert first.plan.state == "RECOMMENDED"
    assert truth.locations() == {
        "gold-big": "host-1",
        "gold-small-1": "host-1",
        "gold-small-2": "host-1",
        "silver-home": "host-1",
        "gold-drained": "host-3",
        "bronze-drained": "host-3",
        "bronze-there": "host-2",
    }
    # One line a migration says what moves where and why (R107, R121).
    for name, (source, target) in first.moves.items():
        uuid = cloud.server_id(name)
        assert first.said(name, uuid, f"from {source} to {target}: {source} ")

    done = operator.start(first.plan)

    assert done.state == "SUCCEEDED"
    assert {action["state"] for action in done.actions} == {"SUCCEEDED"}
    locations = truth.locations()
    for name, (_, target) in first.moves.items():
        assert locations[name] == target
    assert truth.over() == {}
    assert not any(truth.usages("host-3").values())

    second = operator.audit()

    assert second.moves == {}
    assert not any(second.indicators.values())
    assert second.plan.efficacy == {"excess_removed": 100}


def test_a_compliant_cloud_gets_an_empty_plan_and_the_reason(
    load: Load, operator: Operator, truth: Truth
) -> None:
    """Every host is at or below its quotas: no plan, and the log says why."""
    load(
        specs.three_tiers(
            instance("full", "gold.8", "host-1"),
            instance("half", "silver.4", "host-2"),
        )
    )

    audit = operator.audit()

    assert audit.moves == {}
    assert audit.plan.actions == ()
    assert not any(audit.indicators.values())
    assert audit.plan.efficacy == {"excess_removed": 100}
    assert audit.said("Nothing to do: none of 3 hosts is over its quota")
    assert truth.over() == {}
