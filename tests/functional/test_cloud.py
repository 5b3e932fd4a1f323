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

"""The embedded cloud itself: what is declared is what the services show."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
import yaml

from tests.cloud import AggregateSpec
from tests.cloud import ChildProviderSpec
from tests.cloud import CloudError
from tests.cloud import EmbeddedCloud
from tests.cloud import HostSpec
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_placement_and_nova_show_what_is_declared(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R21: inventories from provider.yaml, a nested child, traits, zones."""
    load(
        specs.three_tiers(
            instance("here", "gold.4", "host-1", metadata={"owner": "me"}),
            instance("locked", "silver.2", "host-2", locked=True),
            instance("paused", "silver.2", "host-2", paused=True),
            hosts=(
                specs.host(
                    "host-1",
                    traits=("CUSTOM_SSD",),
                    availability_zone="east",
                    children=(
                        ChildProviderSpec(
                            name_suffix="card",
                            inventories={"CUSTOM_CARD": {"total": 2}},
                            traits=("CUSTOM_FAST",),
                        ),
                    ),
                ),
                specs.host("host-2", tiers={"silver": 6}, memory_mb=2048),
            ),
            aggregates=(
                AggregateSpec(
                    name="racks", hosts=("host-2",), metadata={"rack": "7"}
                ),
            ),
        )
    )

    gold = truth.inventories("host-1")[specs.GOLD]
    assert (gold["total"], gold["reserved"]) == (8, 0)
    assert truth.inventories("host-1")["VCPU"]["total"] == 8
    assert truth.inventories("host-1")["VCPU"]["allocation_ratio"] == 3.0
    assert set(truth.inventories("host-2")) == {
        *("VCPU", "MEMORY_MB", "DISK_GB"),
        specs.SILVER,
    }
    assert truth.inventories("host-2")["MEMORY_MB"]["total"] == 2048
    assert "CUSTOM_SSD" in truth.traits("host-1") - truth.traits("host-2")

    child = truth.inventories("host-1_card")
    assert child["CUSTOM_CARD"]["total"] == 2
    assert "CUSTOM_FAST" in truth.traits("host-1_card")
    listed = cloud.placement.get(
        "/resource_providers", params={"name": "host-1_card"}
    ).json()["resource_providers"]
    root = cloud.provider_uuid("host-1")
    assert listed[0]["parent_provider_uuid"] == root
    assert listed[0]["root_provider_uuid"] == root

    here = truth.server("here")
    assert here["OS-EXT-SRV-ATTR:host"] == "host-1"
    assert here["OS-EXT-AZ:availability_zone"] == "east"
    assert here["metadata"] == {"owner": "me"}
    assert truth.allocations(here["id"]) == {
        "host-1": {
            "VCPU": 4,
            "MEMORY_MB": 1024,
            "DISK_GB": 1,
            specs.GOLD: 4,
        }
    }
    assert truth.server("locked")["locked"] is True
    assert truth.server("paused")["status"] == "PAUSED"
    listed = cloud.adapter("compute").get("/os-aggregates").json()
    members = {one["name"]: one["hosts"] for one in listed["aggregates"]}
    assert members["racks"] == ["host-2"]


def test_loading_another_declaration_replaces_the_first(
    load: Load, truth: Truth
) -> None:
    """Nothing of the old state is left, not even under the same names."""
    load(
        specs.three_tiers(
            instance("old", "gold.4", "host-1"),
            instance("same-name", "gold.2", "host-3"),
        )
    )
    old = truth.server("same-name")["id"]
    assert set(truth.providers()) == {"host-1", "host-2", "host-3"}

    load(
        specs.three_tiers(
            instance("same-name", "silver.2", "host-1"),
            hosts=(specs.host("host-1", tiers={"silver": 4}),),
        )
    )

    assert set(truth.providers()) == {"host-1"}
    assert truth.locations() == {"same-name": "host-1"}
    assert truth.server("same-name")["id"] != old
    assert truth.allocations(old) == {}
    assert truth.usages("host-1")[specs.SILVER] == 2
    assert specs.GOLD not in truth.inventories("host-1")


def test_a_lowered_provider_yaml_is_read_when_nova_compute_restarts(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R25: Placement shows what the file says; its instances stay."""
    load(specs.three_tiers(instance("four", "gold.4", "host-1")))

    cloud.set_inventory("host-1", specs.GOLD, total=2, reserved=1)

    path = cloud.directory / "hosts" / "host-1" / "provider.yaml"
    (provider,) = yaml.safe_load(path.read_text())["providers"]
    written = provider["inventories"]["additional"]
    assert {specs.GOLD: {"total": 2, "reserved": 1}} in written
    shown = truth.inventories("host-1")[specs.GOLD]
    assert (shown["total"], shown["reserved"]) == (2, 1)
    assert truth.over() == {("host-1", specs.GOLD): 3}
    assert truth.locations() == {"four": "host-1"}
    # What Placement was told by hand is put right by the next restart.
    cloud.set_inventory("host-1", specs.GOLD, via="api", total=6, reserved=0)
    assert truth.over() == {}
    cloud.restart_compute("host-1")
    assert truth.over() == {("host-1", specs.GOLD): 3}


def test_live_migrations_end_as_they_are_told_to(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """Success, failure of the copy, and refusal before it."""
    load(specs.three_tiers(instance("mover", "gold.4", "host-1")))

    cloud.set_migration_behaviour(host="host-1", outcome="fail")
    assert cloud.live_migrate("mover", "host-2") == "failed"
    cloud.set_migration_behaviour(host="host-1", outcome="refuse")
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert truth.locations() == {"mover": "host-1"}
    cloud.set_migration_behaviour(host="host-1")
    assert cloud.live_migrate("mover", "host-2") == "completed"

    assert truth.locations() == {"mover": "host-2"}
    assert truth.usages("host-1")[specs.GOLD] == 0
    assert truth.usages("host-2")[specs.GOLD] == 4


def test_two_clouds_run_side_by_side(
    cloud: EmbeddedCloud, load: Load, truth: Truth, tmp_path: pathlib.Path
) -> None:
    """On their own ports and in their own directories."""
    load(specs.three_tiers(instance("mine", "gold.2", "host-1")))
    other = EmbeddedCloud(
        specs.three_tiers(hosts=(HostSpec(name="lonely"),)),
        directory=tmp_path,
        with_watcher=False,
    )

    with other:
        assert not set(other.ports.values()) & set(cloud.ports.values())
        assert set(Truth(other).providers()) == {"lonely"}
        assert set(truth.providers()) == {"host-1", "host-2", "host-3"}
        with pytest.raises(CloudError, match="already runs"):
            EmbeddedCloud(directory=tmp_path, with_watcher=False).setUp()
        pid = other._nova.record.pid

    assert truth.locations() == {"mine": "host-1"}
    assert not pathlib.Path(f"/proc/{pid}").exists()


def test_a_crash_leaves_nothing_that_blocks_the_next_start(
    tmp_path: pathlib.Path,
) -> None:
    """The owner is killed; its directory is taken over."""
    script = (
        "import sys, time\n"
        "from tests.cloud import EmbeddedCloud\n"
        "cloud = EmbeddedCloud(directory=sys.argv[1], with_watcher=False)\n"
        "cloud.setUp()\n"
        "sys.stdout.write('up\\n')\n"
        "sys.stdout.flush()\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "up\n"
        left = EmbeddedCloud(directory=tmp_path, with_watcher=False)
        owner.send_signal(signal.SIGKILL)
    assert (tmp_path / "cloud.json").exists()

    begun = time.monotonic()
    with left:
        assert Truth(left).providers() == {}
        took = time.monotonic() - begun
    assert took < 60
