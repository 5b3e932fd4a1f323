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

"""How the cloud is read: in few requests, completely, and at one moment.

What is counted here is counted by the services themselves, in the ledger of
the requests that they saw.
"""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import json
import re
import threading
from typing import Any

import pytest

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import ServerGroupSpec
from tests.functional import polling
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.test_in_doubt import begin_migration
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator
from watcher_cputier import model
from watcher_cputier.datasources import placement

# Of the details of one provider: inventories, traits, allocations. Whom it
# shares with is asked of sharing providers alone.
PER_PROVIDER = 3


def one_each(count: int) -> CloudSpec:
    """So many hosts with two Gold units each, nobody over anything."""
    return specs.three_tiers(
        *(
            instance(f"guest-{n + 1}", "gold.2", f"host-{n + 1}")
            for n in range(count)
        ),
        hosts=specs.hosts(count),
    )


def asked_for(cloud: EmbeddedCloud, service: str, since: float) -> list[str]:
    """The requests of Watcher's user that a service saw, with queries."""
    return [
        f"{request.path}?{request.query}"
        for request in cloud.requests(service, since)
        if request.user == snapshots.WATCHER
    ]


def test_an_audit_asks_no_more_of_a_larger_cloud(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """Requests do not grow with the hosts, but for those that take part.

    3 hosts and 8 hosts, all compliant, then with one and two over quota;
    the log's account of the reading is the services' own.
    """
    needed: dict[tuple[int, int], int] = {}
    for count in (3, 8):
        load(one_each(count))
        # Watcher's own collector asks per host; ours is what is counted.
        cloud.watcher.synchronize_model()
        for over in (0, 1, 2):
            if over:
                cloud.set_inventory(f"host-{over}", specs.GOLD, total=1)
            begun = cloud.mark()
            audit = operator.audit()

            assert len(audit.moves) == over
            seen = {
                name: len(asked_for(cloud, service, begun))
                for name, service in (
                    ("Nova", "compute"),
                    ("Placement", "placement"),
                )
            }
            # Placement is asked about each target of the plan, once.
            targets = {target for _, target in audit.moves.values()}
            needed[count, over] = seen["Placement"] - len(targets)
            (line,) = audit.said("Reading the cloud took")
            told = {
                match["name"]: int(match["requests"])
                for match in re.finditer(
                    r"(?P<name>\w+) (?P<requests>\d+) requests, "
                    r"\d+\.\d\d s, \d+\.\d\d MB",
                    line,
                )
            }
            # Images are asked for of instances that may have to move.
            assert set(told) - {"Glance"} == set(seen)
            # Version discovery is not counted as reading.
            for name, requests in seen.items():
                assert 0 <= requests - told[name] <= 2

    assert needed[3, 0] == needed[8, 0]
    assert needed[3, 1] == needed[8, 1]
    assert needed[3, 2] == needed[8, 2]
    assert needed[8, 2] - needed[8, 1] == PER_PROVIDER


def test_only_hosts_that_differ_are_read_one_by_one(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """One server of 8 hosts holds less than its flavor says: R19, R37."""
    load(one_each(8))
    begun = cloud.mark()
    snapshots.read(cloud)
    before = asked_for(cloud, "placement", begun)
    rewrite(cloud, truth, "guest-5", {specs.GOLD: None})

    begun = cloud.mark()
    cluster = snapshots.read(cloud)

    after = asked_for(cloud, "placement", begun)
    differs = cloud.provider_uuid("host-5")
    extra = [path for path in after if differs in path]
    looked = [path for path in before if differs in path]
    assert len(extra) - len(looked) == PER_PROVIDER
    # And the lists before and after, which tell the generations.
    assert len(after) - len(before) == PER_PROVIDER + 2
    assert {i.name for i in cluster.instances if i.allocations} == {"guest-5"}


def rewrite(
    cloud: EmbeddedCloud,
    truth: Truth,
    name: str,
    changes: dict[str, int | None],
) -> None:
    """Change what a server holds on its host, past Nova."""
    uuid = cloud.server_id(name)
    current = cloud.placement.get(f"/allocations/{uuid}").json()
    for one in current["allocations"].values():
        del one["generation"]
        one["resources"] = {
            name: units
            for name, units in {**one["resources"], **changes}.items()
            if units is not None
        }
    cloud.placement.put(f"/allocations/{uuid}", json=current)


@pytest.mark.parametrize(
    ("flavor", "individually"),
    [
        pytest.param({"memory_mb": 65536}, False, id="memory"),
        pytest.param(
            {"memory_mb": 65536, "vcpus": 8, "disk_gb": 1000},
            True,
            id="everything",
        ),
    ],
)
def test_a_host_that_bulk_answers_leave_out_is_judged_all_the_same(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    flavor: dict[str, int],
    individually: bool,
) -> None:
    """host-1 has no MB free, or nothing: Placement offers it to nobody.

    It is not in the answer for MEMORY_MB. The next class has it, or it is
    read by itself; that it is over its quota is seen either way.
    """
    gold = {f"resources:{specs.GOLD}": "4"}
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            hosts=specs.hosts(3, cpu_allocation_ratio=1.0),
            flavors=(
                specs.flavor(
                    "gold.4", **{"vcpus": 4, **flavor}, extra_specs=gold
                ),
            ),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )
    free = cloud.placement.get(
        "/allocation_candidates", params={"resources": "MEMORY_MB:1"}
    ).json()
    assert cloud.provider_uuid("host-1") not in free["provider_summaries"]

    begun = cloud.mark()
    audit = operator.audit()

    asked = asked_for(cloud, "placement", begun)
    tried = {
        match[1]
        for path in asked
        if (match := re.search(r"resources=(\w+)(?:%3A|:)1$", path))
    }
    assert ("DISK_GB" in tried) == individually
    assert set(audit.moves) == {"mover"}
    assert audit.indicators["gold_excess_units_before"] == 2
    _, target = audit.moves["mover"]
    assert cloud.live_migrate("mover", target) == "completed"
    assert truth.over() == {}


def test_a_limit_on_candidates_is_noticed_and_the_plan_is_right(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """``max_allocation_candidates = 2``: Placement shows 2 of 6 hosts.

    host-6 alone admits 4 Gold units; the others lack room or a max_unit.
    Whichever two Placement offers, the mover goes to host-6.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            *(instance(f"full-{n}", "gold.5", f"host-{n}") for n in (2, 3)),
            hosts=specs.hosts(6),
            events=(
                specs.inventory("host-1", "gold", total=2),
                specs.inventory("host-4", "gold", max_unit=3),
                specs.inventory("host-5", "gold", max_unit=3),
            ),
        )
    )
    cloud.set_option("placement", "placement", "max_allocation_candidates", 2)
    shown = cloud.placement.get(
        "/allocation_candidates", params={"resources": "MEMORY_MB:1"}
    ).json()
    assert len(shown["allocation_requests"]) == 2

    audit = operator.audit()

    assert audit.moves == {"mover": ("host-1", "host-6")}
    assert audit.said("candidates_limited", "2", level="WARNING")
    cluster = snapshots.read(cloud)
    assert {h.name for h in cluster.hosts if h.providers} == {
        f"host-{n}" for n in range(1, 7)
    }
    assert cloud.live_migrate("mover", "host-6") == "completed"


def test_a_large_answer_comes_in_pages(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """Nova shows two things at a time; all that matters is read.

    Of the four migrations one is under way.
    """
    load(
        specs.three_tiers(
            *(instance(f"guest-{n}", "gold.1", "host-1") for n in range(5)),
            *(
                instance(
                    f"member-{n}", "silver.1", "host-2", group=f"group-{n}"
                )
                for n in range(3)
            ),
            server_groups=tuple(
                ServerGroupSpec(name=f"group-{n}") for n in range(3)
            ),
        )
    )
    for n in range(3):
        assert cloud.live_migrate(f"guest-{n}", "host-3") == "completed"
    begin_migration(cloud, truth, "guest-4", "host-3")
    scope = snapshots.everything(cloud)
    whole = snapshots.read(cloud, scope=scope)
    cloud.set_option("compute", "api", "max_limit", 2)
    page = cloud.adapter("compute").get(
        "/servers", params={"all_tenants": 1, "limit": 1000}
    )
    assert len(page.json()["servers"]) == 2

    cluster = snapshots.read(cloud, scope=scope)

    assert truth.migrations("guest-4")[0]["status"] == "running"
    assert cluster == whole
    assert len(cluster.instances) == 8
    assert len(cluster.hosts) == len(cluster.server_groups) == 3
    assert "in progress" in snapshots.named(cluster, "guest-4").in_doubt


def test_a_provider_that_changes_meanwhile_is_read_again(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """The bulk answer is slow; host-2 loses half its Gold before it comes.

    The list of providers, from before, tells the old generation: host-2 is
    read by itself and the picture is that of after the change.
    """
    load(one_each(3))
    slow = "/allocation_candidates$"
    # The first is the check of permissions, the second the survey.
    cloud.inject("placement", path_regex=slow, times=1)
    cloud.inject("placement", path_regex=slow, times=1, delay_seconds=2.0)
    begun = cloud.mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        reading = pool.submit(snapshots.read, cloud)
        polling.until(
            lambda: _lists(cloud, begun) >= 2, "the list before the survey"
        )
        cloud.set_inventory("host-2", specs.GOLD, via="api", total=4)
        assert not reading.done()
        cluster = reading.result()

    host = cluster.host_by_name["host-2"]
    assert host.capacity(specs.GOLD) == 4
    assert truth.inventories("host-2")[specs.GOLD]["total"] == 4
    again = [
        path
        for path in asked_for(cloud, "placement", begun)
        if cloud.provider_uuid("host-2") in path
    ]
    assert len(again) >= PER_PROVIDER


def _lists(cloud: EmbeddedCloud, since: float) -> int:
    paths = asked_for(cloud, "placement", since)
    return paths.count("/resource_providers?")


def test_a_cloud_that_never_rests_is_too_busy(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """host-2 changes all the time: one clear error and no mixed plan."""
    load(one_each(3))
    # Answers take a while, and the provider has changed by then.
    _slow_answers(cloud, 0.5)

    with _restless(cloud, "host-2"):
        audit = operator.audit()

    assert audit.state == "FAILED"
    assert "Placement" in audit.reason
    assert "host-2" in audit.reason
    assert "too busy" in audit.reason
    assert len(audit.said("could not look", level="ERROR")) == 1


def test_a_burst_of_changes_is_let_pass(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """host-2 changes in each of the rounds that follow at once, then rests."""
    load(one_each(3))
    _slow_answers(cloud, 0.3)
    at_once = placement.PAUSES.count(0.0)
    begun = cloud.mark()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with _restless(cloud, "host-2"):
            reading = pool.submit(snapshots.read, cloud)
            # The survey has two: of all providers and of those that share.
            polling.until(
                lambda: reading.done() or _lists(cloud, begun) >= 2 + at_once,
                "the list after the last of these rounds",
            )
        cluster = reading.result()

    assert _lists(cloud, begun) > 2 + at_once
    held = cluster.host_by_name["host-2"].capacity(specs.SILVER)
    assert held == truth.inventories("host-2")[specs.SILVER]["total"]


def test_what_never_rests_elsewhere_is_nobodys_business(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """host-3 is outside the scope, and so is a provider of its own.

    Neither keeps the two others from being judged, in detail too.
    """
    load(one_each(3))
    whole = snapshots.everything(cloud)
    scope = dataclasses.replace(
        whole, hosts=whole.hosts - {cloud.provider_uuid("host-3")}
    )
    _slow_answers(cloud, 0.5)

    with _restless(cloud, "host-3"):
        cluster = snapshots.read(cloud, scope=scope, detailed=["host-1"])

    scoped = [host.name for host in cluster.hosts if host.in_scope]
    assert scoped == ["host-1", "host-2"]
    root = cluster.host_by_name["host-1"].root
    assert root is not None
    assert root.inventories[specs.GOLD].detailed


def test_hosts_out_of_scope_are_not_read_one_by_one(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """guest-3 holds less than its flavor says, where nothing is decided."""
    load(one_each(3))
    rewrite(cloud, truth, "guest-3", {specs.GOLD: None})
    whole = snapshots.everything(cloud)
    outside = cloud.provider_uuid("host-3")
    begun = cloud.mark()

    snapshots.read(
        cloud,
        scope=dataclasses.replace(whole, hosts=whole.hosts - {outside}),
    )

    asked = asked_for(cloud, "placement", begun)
    looked = [path for path in asked if outside in path]
    # At most the check of permissions, which takes any provider.
    assert len(looked) in (0, PER_PROVIDER + 1)


def test_a_server_that_leaves_between_survey_and_details(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """guest-1 goes to host-2 when all lists have been read.

    host-1 is read in detail and shows it; host-2, which nobody asked for, is
    read again as well, and Nova is asked again: one picture, of afterwards.
    """
    load(one_each(3))
    scope = snapshots.everything(cloud)
    moved: list[str] = []

    def detailed(cluster: model.Cluster) -> list[str]:
        if not moved:
            assert cluster.held["host-1", "gold"] == 2
            moved.append(cloud.live_migrate("guest-1", "host-2"))
        return [cloud.provider_uuid("host-1")]

    cluster = snapshots.reader(cloud).get_cluster(
        lambda: scope, snapshots.catalogue({}), details=detailed
    )

    assert moved == ["completed"]
    assert snapshots.named(cluster, "guest-1").host == "host-2"
    assert cluster.held.get(("host-1", "gold"), 0) == 0
    assert cluster.held["host-2", "gold"] == 4
    assert truth.usages("host-2")[specs.GOLD] == 4
    assert cluster.findings == ()


def test_a_server_that_is_deleted_between_survey_and_details(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """It is gone from the picture, and not an instance without units."""
    load(one_each(2))
    scope = snapshots.everything(cloud)
    done: list[str] = []

    def detailed(cluster: model.Cluster) -> list[str]:
        if not done:
            done.append("deleted")
            cloud.delete("guest-1")
        return [cloud.provider_uuid("host-1")]

    cluster = snapshots.reader(cloud).get_cluster(
        lambda: scope, snapshots.catalogue({}), details=detailed
    )

    assert [i.name for i in cluster.instances] == ["guest-2"]
    assert cluster.findings == ()


def test_the_cost_of_reading_is_told_as_data(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """By service: what the ledger of the services counts, and bytes."""
    load(one_each(2))
    asked = snapshots.reader(cloud)
    scope = snapshots.everything(cloud)
    begun = cloud.mark()

    snapshots.read(cloud, asked=asked, scope=scope)

    told = asked.reading
    assert set(told) == {"Nova", "Placement"}
    for name, service in (("Nova", "compute"), ("Placement", "placement")):
        seen = len(asked_for(cloud, service, begun))
        assert 0 <= seen - told[name]["requests"] <= 2
        assert told[name]["received_bytes"] > 1000
        assert told[name]["seconds"] > 0


# Cells of Nova that do not answer.


def test_a_cell_that_does_not_answer_leaves_the_rest_to_be_judged(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """Nova tells of such a cell the hosts and servers mapped to it.

    Its hosts are no hypervisors then. host-2 is in that cell: what Nova says
    is made from what it really said, as its API does it.
    """
    load(one_each(3))
    scope = snapshots.everything(cloud)
    compute = cloud.adapter("compute", "watcher")
    lost = cloud.server_id("guest-2")

    def said(path: str, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = compute.get(
            path, microversion="2.87"
        ).json()[key]
        return found

    partial = {"id": lost, "status": "UNKNOWN", "tenant_id": "p", "links": []}
    for path, key, query, change in (
        (
            "/servers/detail",
            "servers",
            "?all_tenants=1",
            lambda one: partial if one["id"] == lost else one,
        ),
        (
            "/os-services",
            "services",
            "?binary=nova-compute",
            lambda one: (
                {"host": "host-2", "status": "UNKNOWN"}
                if one["host"] == "host-2"
                else one
            ),
        ),
        (
            "/os-hypervisors/detail",
            "hypervisors",
            "",
            lambda one: None if one["service"]["host"] == "host-2" else one,
        ),
    ):
        told = [change(one) for one in said(path + query, key)]
        cloud.inject(
            "compute",
            path_regex=f"{path}$",
            times=None,
            status=200,
            body=json.dumps({key: [one for one in told if one]}),
        )

    cluster = snapshots.read(cloud, scope=scope, detailed=["host-1"])

    assert [h.name for h in cluster.hosts if h.in_scope] == [
        "host-1",
        "host-3",
    ]
    assert {i.name for i in cluster.instances} == {"guest-1", "guest-3"}
    found = snapshots.findings(cluster, "cell_unreachable")
    assert list(found) == ["host-2", "servers"]
    assert lost in found["servers"]
    assert snapshots.findings(cluster, "orphan_allocation") == {}


def _slow_answers(cloud: EmbeddedCloud, seconds: float) -> None:
    """Let each round of reading Placement take a while."""
    cloud.inject(
        "placement",
        path_regex="/(traits|allocation_candidates)$",
        times=None,
        delay_seconds=seconds,
    )


@contextlib.contextmanager
def _restless(cloud: EmbeddedCloud, host: str) -> Iterator[None]:
    """Let a host's inventory of Silver change without end."""
    enough = threading.Event()

    def change() -> None:
        total = 8
        while not enough.is_set():
            total = 24 - total
            cloud.set_inventory(host, specs.SILVER, via="api", total=total)

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        changing = pool.submit(change)
        try:
            yield
        finally:
            enough.set()
        changing.result()


def test_a_provider_that_is_gone_for_a_moment_is_read_again(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """404 on a provider that the next list still has."""
    load(one_each(3))
    whole = snapshots.read(cloud, detailed=["host-1", "host-2"])
    # The first is the check of permissions.
    path = f"{cloud.provider_uuid('host-2')}/inventories$"
    cloud.inject("placement", path_regex=path, status=404, times=1)

    assert snapshots.read(cloud, detailed=["host-1", "host-2"]) == whole
