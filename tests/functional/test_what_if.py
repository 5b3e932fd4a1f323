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


"""Plans for clouds that are not so, against clouds that are made so.

``openstack tier plan --what-if`` is run on one cloud; then an operator does
what the edit says, and the plan without it has to be the same.
"""

import json
import pathlib
import subprocess
import sys
from typing import Any

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional import test_osc
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.test_osc import Result
from tests.functional.test_osc import Run
from tests.functional.truth import Truth

openstack = test_osc.openstack

# Silver is nearly full on host-2, and in the way of nobody yet.
CLOUD = specs.three_tiers(
    instance("large", "gold.4", "host-1"),
    instance("small", "gold.2", "host-1", count=2),
    instance("calm", "silver.2", "host-1"),
    instance("nobody", "plain.1", "host-1"),
    instance("full", "silver.4", "host-2"),
    instance("more", "silver.2", "host-2"),
    instance("tenant", "gold.4", "host-3"),
    flavors=(specs.flavor("gold.8"),),
)


def moves(found: Result) -> dict[str, tuple[Any, Any]]:
    """{instance: (source, target)} of the migrations of a plan."""
    return {
        row["Instance"]: (row["Source"], row["Target"])
        for row in found.data
        if row["Step"] is not None
    }


def assumed(found: Result) -> dict[str, tuple[Any, Any]]:
    """The same of what was assumed."""
    return {
        row["Instance"]: (row["Source"], row["Target"])
        for row in found.data
        if row["Step"] is None
    }


def test_a_plan_for_a_smaller_quota_is_that_of_the_smaller_inventory(
    load: Load,
    cloud: EmbeddedCloud,
    openstack: Run,
    tmp_path: pathlib.Path,
) -> None:
    """A quota that is lowered by what-if, then really."""
    load(CLOUD)
    before, after = tmp_path / "supposed.json", tmp_path / "real.json"
    saved = tmp_path / "cloud.yaml"
    edit = "quota=host-1,tier=gold,units=3"

    now = openstack("tier", "plan")
    mark = cloud.mark()
    supposed = openstack(
        *("tier", "plan", "--what-if", edit, "--report", str(before))
    )
    asked = cloud.requests("placement", since=mark)
    snapshot = openstack(
        "tier", "snapshot", "save", str(saved), formatted=False
    )
    cloud.set_inventory("host-1", specs.GOLD, total=3)
    really = openstack("tier", "plan", "--report", str(after))

    assert snapshot.status == 0, snapshot.err
    assert (now.status, now.data) == (0, [])
    assert {request.method for request in asked} == {"GET"}
    assert len(moves(really)) >= 2
    assert supposed.data == really.data
    told, found = json.loads(before.read_text()), json.loads(after.read_text())
    for name in ("migrations", "hosts", "excess_after", "lower_bound"):
        assert told[name] == found[name], name
    assert told["what_if"]["edits"] == [edit]
    assert "what_if" not in found
    assert "Hypothetical, nothing of this is so" in supposed.err
    assert "host-1 may hold 3 gold units" in supposed.err
    assert "Hypothetical" not in really.err
    # And without the cloud.
    replayed = subprocess.run(
        [
            *(sys.executable, "-c", test_osc.PLAN, "plan", "--format", "json"),
            *("--scenario", str(saved), "--what-if", edit),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    again = json.loads(replayed.stdout)
    assert again["migrations"] == told["migrations"]
    assert again["what_if"] == told["what_if"]


def test_a_plan_for_a_drain_is_that_of_the_parameter(
    load: Load, openstack: Run
) -> None:
    load(CLOUD, shared=True)

    supposed = openstack("tier", "plan", "--what-if", "drain=host-2")
    drained = openstack("tier", "plan", "--drain", "host-2")

    assert set(moves(drained)) == {"full", "more"}
    assert supposed.data == drained.data


def test_hosts_more_and_less_and_instances_more(
    load: Load, cloud: EmbeddedCloud, openstack: Run, truth: Truth
) -> None:
    """N+1: what fits without a host, what does not and why."""
    load(CLOUD, shared=True)
    before = truth.locations()

    less = openstack("tier", "plan", "--what-if", "remove-host=host-1")
    both = openstack(
        *("tier", "plan", "--what-if", "remove-host=host-1"),
        *("--what-if", "add-instances=2,flavor=gold.8"),
    )
    more = openstack(
        *("tier", "plan", "--what-if", "add-host=host-4,like=host-1"),
        *("--what-if", "remove-host=host-1"),
        *("--what-if", "add-instances=2,flavor=gold.8"),
    )

    # All fits: 8 gold units on two hosts with 12 left.
    assert (less.status, moves(less)) == (0, {})
    placed = assumed(less)
    assert set(placed) == {"large", "small-1", "small-2", "calm", "nobody"}
    assert all(
        source == "host-1" and target in ("host-2", "host-3")
        for source, target in placed.values()
    )
    assert "5 of its 5 instances fit on other hosts" in less.err
    # Of 4 gold units that are left then, nobody takes 8.
    assert both.status == 1
    assert [t for s, t in assumed(both).values() if s is None] == [None, None]
    assert "0 of 2 instances of flavor gold.8 fit" in both.err
    assert "within_quota" in both.err
    # With one more host one fits.
    assert more.status == 1
    assert "5 of its 5 instances fit on other hosts" in more.err
    assert "of 2 instances of flavor gold.8 fit" in more.err
    assert truth.locations() == before


def test_so_many_instances_fit_as_nova_then_takes(
    load: Load, cloud: EmbeddedCloud, openstack: Run, truth: Truth
) -> None:
    """The scheduler takes as many as were said to fit, and no more."""
    load(CLOUD)
    told = openstack(
        "tier", "plan", "--what-if", "add-instances=9,flavor=gold.2"
    )
    count = sum(1 for _, target in assumed(told).values() if target)

    cloud.boot(instance("new", "gold.2", count=count))

    assert told.status == 1
    assert 0 < count < 9
    assert sum(1 for name in truth.locations() if name.startswith("new")) == (
        count
    )
    offered = cloud.placement.get(
        "/allocation_candidates", params={"resources": f"{specs.GOLD}:2"}
    ).json()["provider_summaries"]
    assert offered == {}


def test_what_is_no_edit_is_one_clear_error(
    load: Load, openstack: Run
) -> None:
    load(CLOUD, shared=True)

    found = openstack("tier", "plan", "--what-if", "drain=host-9")

    assert (found.status, found.out) == (1, "")
    assert found.err.splitlines() == [
        (
            "--what-if drain=host-9: there is no host 'host-9'. There are "
            "host-1, host-2, host-3"
        )
    ]
