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


"""The DevStack plugin: every phase, twice, against the embedded cloud.

``tests/devstack`` gives the plugin what DevStack would: its functions, the
files of the services, and the ``openstack`` command with a cloud behind it.
"""

from collections.abc import Callable, Iterable, Iterator
import configparser
import json
import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.devstack import client
from tests.devstack import stack as devstack
from tests.devstack import tempest
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.truth import Truth

UNITS = 8
LOCALRC = {
    "CPUTIER_CPUS": UNITS,
    "CPUTIER_UNITS_BRONZE": 4,
    "CPUTIER_FLAVORS": "large:4:1024:2",
}
# Two hosts of the names that DevStack gives to fake ones, and nothing on them.
EMPTY = CloudSpec(
    hosts=tuple(
        specs.host(
            name, UNITS, tiers={}, cpu_allocation_ratio=(2 * UNITS + 4) / UNITS
        )
        for name in ("compute1", "compute2")
    )
)
POLICY = "ceilometer-low-rate"
WRITES = ("compute", "placement", "infra-optim", "metric")


Make = Callable[..., devstack.Stack]


@pytest.fixture(scope="module")
def command(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[pathlib.Path]:
    """The ``openstack`` command."""
    path = tmp_path_factory.mktemp("client") / "openstack"
    server = client.Server(path)
    yield path
    server.stop()


@pytest.fixture
def make(
    cloud: EmbeddedCloud, tmp_path: pathlib.Path, command: pathlib.Path
) -> Make:
    """``make(services, **localrc)``: a machine before the plugin has run."""

    def made(
        services: Iterable[str] = devstack.SERVICES, **localrc: object
    ) -> devstack.Stack:
        stack = devstack.Stack(
            tmp_path, cloud, services, {**LOCALRC, **localrc}, command
        )
        stack.lay_out()
        return stack

    return made


@pytest.fixture
def gnocchi(cloud: EmbeddedCloud) -> Iterator[None]:
    """A Gnocchi without the archive policy that is to be made."""
    cloud.gnocchi.start()
    cloud.gnocchi.enter()
    path = f"/v1/archive_policy/{POLICY}"
    metric = cloud.adapter("metric")
    if metric.delete(path, raise_exc=False).status_code != 204:
        # Another story's metrics have it.
        cloud.gnocchi.discard()
        cloud.gnocchi.start()
        metric.delete(path)
    yield
    cloud.gnocchi.leave()


@pytest.fixture
def empty(load: Load, cloud: EmbeddedCloud) -> None:
    """Two hosts without tiers, and nobody has made a tier's class yet."""
    load(EMPTY)
    for name in _classes(cloud):
        cloud.placement.delete(f"/resource_classes/{name}")
    assert _classes(cloud) == set()


def _written(cloud: EmbeddedCloud, since: float) -> list[tuple[str, ...]]:
    return [
        (service, request.method, request.path)
        for service in WRITES
        for request in cloud.requests(service, since=since)
        if request.method != "GET"
    ]


def _options(path: pathlib.Path) -> configparser.ConfigParser:
    found = configparser.ConfigParser()
    found.read(path)
    return found


def test_every_phase_twice_and_back(
    empty: None,
    make: Make,
    cloud: EmbeddedCloud,
    gnocchi: None,
    truth: Truth,
) -> None:
    """R176: tiers are made once, and nothing changes the second time."""
    stack = make(devstack.SERVICES + devstack.TELEMETRY)
    before = stack.files()
    others = stack.objects()

    stack.stack()

    files, objects = stack.files(), stack.objects()
    for host in ("compute1", "compute2"):
        shown = truth.inventories(host)
        for tier, units in (("gold", 8), ("silver", 8), ("bronze", 4)):
            record = shown[specs.tier_class(tier)]
            assert record["total"] == record["max_unit"] == units
            assert (record["reserved"], record["allocation_ratio"]) == (0, 1)
    flavors = {one["name"]: one for one in objects["flavors"]["flavors"]}
    for tier in specs.TIERS:
        for size, vcpus in (("large", 4),):
            one = flavors[f"{tier}.{size}"]
            assert one["vcpus"] == vcpus
            assert one["extra_specs"] == {
                f"resources:{specs.tier_class(tier)}": str(vcpus),
                "quota:cpu_shares": str(specs.SHARES[tier] * vcpus),
            }
    (template,) = objects["templates"]["audit_templates"]
    assert template["name"] == "cpu-tiers"
    assert template["strategy_name"] == "domain_capacity_enforcement"
    (policy,) = (one for one in objects["policies"] if one["name"] == POLICY)
    assert set(policy["aggregation_methods"]) == {"mean", "rate:mean"}
    assert [one["granularity"] for one in policy["definition"]] == ["0:05:00"]
    assert policy not in others["policies"]
    nova = _options(stack.nova_conf)
    assert nova["compute"]["provider_config_location"] == str(
        stack.provider_config
    )
    # 8, 8 and 4 units on 8 CPUs.
    assert nova["DEFAULT"]["cpu_allocation_ratio"] == "2.5"

    mark = cloud.mark()
    stack.stack()

    assert _written(cloud, mark) == []
    assert stack.objects() == objects
    assert stack.files() == files

    # unstack.sh: Nova still answers, and nova-compute still reports.
    for _ in range(2):
        done = stack.run("unstack")
        assert done.returncode == 0, done.stderr
        left = stack.objects()
        assert left["flavors"] == others["flavors"]
        assert left["templates"] == others["templates"]
        assert left["classes"] == objects["classes"]
    for _ in range(2):
        done = stack.run("clean")
        assert (done.returncode, done.stderr) == (0, "")
        assert _meaning(stack.files()) == _meaning(before)
    # Without the file no host reports the classes, and they may go too.
    stack.start_compute()
    assert stack.run("unstack").returncode == 0
    assert stack.objects()["classes"] == others["classes"]


def _meaning(files: dict[str, bytes]) -> dict[str, object]:
    """Files without what no reader sees: blank lines, quotes, indentation."""
    return {
        name: yaml.safe_load(text)
        if name.endswith(".yaml")
        else [line for line in text.decode().splitlines() if line.strip()]
        for name, text in files.items()
        if name != "localrc"
    }


def test_a_call_that_fails_ends_the_run_with_one_line(
    empty: None, make: Make, cloud: EmbeddedCloud
) -> None:
    """What a service refuses is told; the next run begins where it ended.

    R176: nobody reports the classes here, so that the plugin makes them.
    """
    stack = make()
    assert stack.run("stack", "post-config").returncode == 0
    cloud.inject("compute", "POST", "/flavors$", status=503)

    done = stack.run("stack", "extra")

    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    assert line.startswith("[ERROR] ")
    assert "openstack tier flavor create large" in line
    assert "Nova, flavor gold.large: it cannot be written" in line
    assert _classes(cloud) == {specs.GOLD, specs.SILVER, specs.BRONZE}
    assert stack.objects()["flavors"]["flavors"] == []

    cloud.clear_faults()
    mark = cloud.mark()
    assert stack.run("stack", "extra").returncode == 0
    assert {service for service, *_ in _written(cloud, mark)} == {"compute"}
    assert len(stack.objects()["flavors"]["flavors"]) == 3


def _classes(cloud: EmbeddedCloud) -> set[str]:
    """The custom classes of Placement."""
    told = cloud.placement.get("/resource_classes").json()
    names = (one["name"] for one in told["resource_classes"])
    return {name for name in names if name.startswith("CUSTOM_")}


def test_inventories_that_nova_did_not_take_end_the_run(
    load: Load, make: Make
) -> None:
    """R25: what the file says has to be what Placement shows."""
    load(EMPTY, shared=True)
    stack = make(SERVICE_TIMEOUT=0)
    assert stack.run("stack", "post-config").returncode == 0

    verify = stack.run("stack", "test-config")

    assert verify.returncode != 0
    assert "Placement does not show what" in verify.stderr


def test_novas_own_loader_takes_the_file(tmp_path: pathlib.Path) -> None:
    """R25, R29: as nova-compute reads it, in a process of its own."""
    stack = devstack.Stack(tmp_path, localrc=LOCALRC)
    stack.lay_out()
    assert stack.run("stack", "post-config").returncode == 0

    done = subprocess.run(
        [sys.executable, "-c", _LOADER, str(stack.provider_config)],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    (offered,) = json.loads(done.stdout).values()
    totals = {
        name: record["total"]
        for one in offered["inventories"]["additional"]
        for name, record in one.items()
    }
    assert totals == {specs.GOLD: 8, specs.SILVER: 8, specs.BRONZE: 4}


_LOADER = """
import json, sys
from nova.compute import provider_config
found = provider_config.get_provider_configs(sys.argv[1])
json.dump(found, sys.stdout)
"""


def test_the_tempest_scenario(load: Load, make: Make) -> None:
    """R149: tempest itself runs the package's scenario.

    The plugin writes its section of tempest.conf; the rest is what DevStack
    would have told tempest about this cloud.
    """
    load(specs.three_tiers(hosts=specs.hosts(2)))
    # Its inventories are there: no nova-compute that the plugin configures.
    stack = make(set(devstack.SERVICES) - {"n-cpu"})
    assert stack.run("stack", "test-config").returncode == 0
    made = tempest.run(stack)
    assert made.returncode == 0, made.stdout + made.stderr
    assert " - Passed: 1\n" in made.stdout, made.stdout
    assert " - Failed: 0\n" in made.stdout
