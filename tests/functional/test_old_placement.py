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


r"""A Placement before 14.0.0, where an over-full host cannot shed.

Such a release checks the hand-over of an allocation to a migration like a new
allocation, and refuses it where a host is over its capacity. No API tells the
release; how Nova's live migrations ended does. The stories need one::

    pip install --no-deps --target DIRECTORY \
        openstack-placement==13.0.1 'oslo.policy<5'
    OLD_PLACEMENT=DIRECTORY python -m pytest \
        tests/functional/test_old_placement.py
"""

import os
import pathlib

import pytest

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional import test_osc
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.test_osc import Run
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

pytestmark = pytest.mark.skipif(
    "OLD_PLACEMENT" not in os.environ,
    reason="OLD_PLACEMENT names no release of Placement before 14.0.0",
)
openstack = test_osc.openstack

CLOUD = specs.three_tiers(
    instance("big", "gold.4", "host-1"),
    instance("small", "gold.2", "host-1", count=2),
    instance("calm", "silver.2", "host-1"),
    events=(specs.inventory("host-1", "gold", total=4),),
)


def shedding(openstack: Run) -> tuple[int, str, str]:
    """Exit status of the check, and what it says about shedding."""
    found = openstack("tier", "check")
    (row,) = [row for row in found.data if row["Check"] == "shedding"]
    return found.status, row["Result"], row["Details"]


def test_the_release_is_the_one_that_the_stories_are_about(
    load: Load, cloud: EmbeddedCloud
) -> None:
    """It refuses what is there already: later ones answer 204."""
    load(CLOUD)
    uuid = cloud.server_id("big")
    held = cloud.placement.get(f"/allocations/{uuid}").json()

    answer = cloud.placement.put(
        f"/allocations/{uuid}", json=held, raise_exc=False
    )

    assert answer.status_code == 409, answer.text
    assert cloud.live_migrate("calm", "host-2") == "completed"


def test_why_an_over_full_host_cannot_shed_is_told_and_what_helps(
    load: Load,
    cloud: EmbeddedCloud,
    openstack: Run,
    operator: Operator,
    truth: Truth,
    tmp_path: pathlib.Path,
) -> None:
    """One refusal is enough to know; then nothing is tried in vain."""
    load(CLOUD)
    saved = tmp_path / "cloud.yaml"

    before = shedding(openstack)
    first = operator.audit()
    tried = operator.start(first.plan)
    there = truth.locations()
    after = shedding(openstack)
    planned = openstack("tier", "plan")
    second = operator.audit()
    lint = openstack("tier", "lint", "--severity", "error")
    openstack("tier", "snapshot", "save", str(saved), formatted=False)

    # Nobody can know yet, and nobody says that all is well.
    assert before[:2] == (0, "unknown")
    assert "14.0.0" in before[2]
    # It is tried, and Nova refuses.
    assert first.moves == {"big": ("host-1", "host-2")}
    assert {action["state"] for action in tried.actions} == {"FAILED"}
    assert there["big"] == "host-1"
    # Now it is known, for all who are on that host.
    assert after[:2] == (1, "fails")
    for told in (after[2], planned.err):
        assert "Host host-1 is over its capacity of CUSTOM_VCPU_GOLD" in told
        assert "Placement refused to let big go" in told
        assert "Upgrade Placement; or raise the inventory" in told
    assert planned.data == []
    assert "host-1 stays 4 gold units over its quota" in planned.err
    for name in ("big", "small-1", "small-2"):
        assert f"{name} stays (in_order: its host is over" in planned.err
    # The audit says the same and emits nothing.
    assert second.moves == {}
    assert second.said("placement_keeps_excess", "host-1")
    assert second.indicators["excess_units_after"] == 4
    (row,) = [
        row for row in lint.data if row["Kind"] == "placement_keeps_excess"
    ]
    assert row["Object"] == "host-1"
    assert row["Mend"].startswith("Upgrade Placement; or")
    assert "in_doubt:" in saved.read_text()

    # What it proposes: the inventory as it was, the quota by policy.
    cloud.set_inventory("host-1", specs.GOLD, total=8)
    quotas = {"host-1": {"gold": 4}}
    third = operator.audit(quotas_by_host=quotas)
    done = operator.start(third.plan)

    assert third.moves == first.moves
    assert done.state == "SUCCEEDED"
    assert truth.locations()["big"] == "host-2"
    cloud.set_inventory("host-1", specs.GOLD, total=4)
    assert operator.audit().moves == {}
    assert shedding(openstack)[:2] == (0, "unknown")
