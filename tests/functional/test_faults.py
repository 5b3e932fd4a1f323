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

"""Services that falter, refuse or do not answer while the cloud is read.

What passes is tried again; what does not ends in one clear error that names
the service and the request. See :mod:`.test_bad_input` for the same in whole
audits, and for the permissions of Watcher's user.
"""

from collections.abc import Iterator
import json
import re
from typing import Any

import pytest

from tests.cloud import EmbeddedCloud
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.watcher_api import Operator
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import neutron
from watcher_cputier.datasources import service as service_source

OVER_QUOTA = specs.three_tiers(
    instance("mover", "gold.4", "host-1"),
    instance("stay", "gold.2", "host-1"),
    events=(specs.inventory("host-1", "gold", total=2),),
)
# A request of every kind, by service.
REQUESTS = [
    *(
        ("placement", f"{path}$")
        for path in (
            "/resource_providers",
            "/allocation_candidates",
            "/inventories",
            "/traits",
            "/aggregates",
            "/allocations",
        )
    ),
    *(
        ("compute", f"{path}$")
        for path in (
            "/os-hypervisors/detail",
            "/os-services",
            "/servers/detail",
            "/os-aggregates",
            "/os-server-groups",
            "/os-migrations",
        )
    ),
]
NAMES = {"compute": "Nova", "placement": "Placement", "network": "Neutron"}


@pytest.fixture(autouse=True)
def quiet(cloud: EmbeddedCloud) -> Iterator[None]:
    """What a story disturbs is over with it."""
    yield
    cloud.clear_faults()


class Disturbed:
    """Reads a cloud that is disturbed after the story has looked around."""

    def __init__(self, cloud: EmbeddedCloud) -> None:
        self._cloud = cloud
        self._scope = snapshots.everything(cloud)

    def read(self, **options: Any) -> model.Cluster:
        """The snapshot, host-1 in detail."""
        return snapshots.read(
            self._cloud, scope=self._scope, detailed=["host-1"], **options
        )

    def read_in_vain(self, **options: Any) -> str:
        """The error that reading ends in."""
        with pytest.raises(errors.ServiceError) as caught:
            self.read(**options)
        return str(caught.value)


@pytest.mark.parametrize(
    ("service", "status"), [("compute", 429), ("placement", 503)]
)
def test_a_service_that_falters_is_asked_again(
    cloud: EmbeddedCloud, load: Load, service: str, status: int
) -> None:
    """Twice too busy, on each kind of request, then fine."""
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    whole = disturbed.read()
    paths = [path for kind, path in REQUESTS if kind == service]
    begun = cloud.mark()
    # Of one kind two in a row; each of the waits is half a second and one.
    cloud.inject(service, path_regex=paths[0], status=status, times=2)
    for path in paths[1:]:
        cloud.inject(service, path_regex=path, status=status, times=1)

    again = disturbed.read()

    assert again == whole
    seen = [r.status for r in cloud.requests(service, begun)]
    assert seen.count(status) == len(paths) + 1


def test_an_audit_survives_expired_tokens_and_busy_services(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """401 once at each service: Watcher's session takes a new token.

    Together with a 429, a 503 and a lost connection.
    """
    load(OVER_QUOTA, shared=True)
    operator.audit()
    begun = cloud.mark()
    for service, path in (
        ("placement", "/allocation_candidates$"),
        ("compute", "/servers/detail$"),
    ):
        cloud.inject(service, path_regex=path, status=401, times=1)
    cloud.inject("placement", path_regex="/traits$", status=429, times=1)
    cloud.inject("compute", path_regex="/os-services$", status=503, times=1)
    cloud.inject("compute", path_regex="/os-migrations$", drop=True, times=1)

    audit = operator.audit()

    assert set(audit.moves) == {"mover"}
    seen = [
        r.status
        for service in ("compute", "placement")
        for r in cloud.requests(service, begun)
    ]
    assert seen.count(401) == 2
    assert seen.count(429) == seen.count(503) == 1
    renewed = [
        r for r in cloud.requests("identity", begun) if r.method == "POST"
    ]
    assert renewed


@pytest.mark.parametrize(
    ("service", "path"), REQUESTS, ids=[path[:-1] for _, path in REQUESTS]
)
def test_each_request_that_fails_for_good_is_named(
    cloud: EmbeddedCloud,
    load: Load,
    monkeypatch: pytest.MonkeyPatch,
    service: str,
    path: str,
) -> None:
    """R79: HTTP 500 every time: a bounded number of tries, one error."""
    monkeypatch.setattr(service_source, "PAUSE_SECONDS", 0.01)
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    cloud.inject(service, path_regex=path, status=500, times=None)
    begun = cloud.mark()

    error = disturbed.read_in_vain()

    seen = [r.status for r in cloud.requests(service, begun)]
    assert seen.count(500) == 1 + service_source.RETRIES
    assert re.match(rf"{NAMES[service]} GET \S*{path[:-1]}: HTTP 500", error)
    assert "a fault injected" in error
    assert error.count(" GET /") == 1


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        pytest.param({"status": 503}, "503", id="busy"),
        pytest.param({"drop": True}, "unreachable", id="lost"),
        pytest.param({"status": 401}, "401", id="credentials"),
        pytest.param({"status": 403}, "permission", id="forbidden"),
        pytest.param({"status": 200, "body": "[]"}, "", id="another-json"),
        pytest.param(
            {"status": 200, "body": "{}"},
            "the answer has no 'resource_provider_generation', it is empty",
            id="empty-json",
        ),
    ],
)
def test_one_clear_error_whatever_is_wrong_with_an_answer(
    cloud: EmbeddedCloud, load: Load, fault: dict[str, Any], says: str
) -> None:
    """Retries are bounded, and no library's own words get through alone."""
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    path = f"{cloud.provider_uuid('host-1')}/inventories$"
    cloud.inject("placement", path_regex=path, times=None, **fault)
    begun = cloud.mark()

    error = disturbed.read_in_vain()

    assert error.startswith("Placement GET /resource_providers/")
    assert says in error
    tries = [
        r
        for r in cloud.requests("placement", begun)
        if r.path.endswith("/inventories")
    ]
    assert 1 <= len(tries) <= 4


# Nothing is shared in this cloud: what aggregates are for is not looked at.
LOOKED_AT = [
    (service, path) for service, path in REQUESTS if path != "/aggregates$"
]


@pytest.mark.parametrize(
    ("service", "path"), LOOKED_AT, ids=[path[:-1] for _, path in LOOKED_AT]
)
def test_each_answer_without_what_was_asked_for_is_named(
    cloud: EmbeddedCloud, load: Load, service: str, path: str
) -> None:
    """``{}`` from something that is not the service, at each request."""
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    cloud.inject(service, path_regex=path, status=200, body="{}", times=None)

    error = disturbed.read_in_vain()

    assert re.match(
        rf"{NAMES[service]} GET \S*{path[:-1]}: the answer has no '\w+', "
        "it is empty",
        error,
    )


@pytest.mark.parametrize("service", ["placement", "compute"])
def test_a_slow_service_uses_the_time_budget_up_and_no_more(
    cloud: EmbeddedCloud, load: Load, service: str
) -> None:
    """``read_timeout_seconds``: all requests together, and which one it was.

    Every answer takes .7 s, which is not slow for a request; a budget of 3 s
    is soon used up by all of them.
    """
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    cloud.inject(service, times=None, delay_seconds=0.7)
    begun = cloud.mark()

    error = disturbed.read_in_vain(read_timeout_seconds=3)

    assert cloud.mark() - begun < 8
    assert error.startswith(f"{NAMES[service]} GET /")
    assert f"{NAMES[service]} so far: " in error
    assert "read_timeout_seconds" in error
    assert error.count("time budget") == 1


def test_a_service_that_hangs_does_not_hang_the_reading(
    cloud: EmbeddedCloud, load: Load
) -> None:
    """One request is never answered in time.

    Its tries, and the pauses between them, share what is left of the budget.
    """
    load(OVER_QUOTA, shared=True)
    disturbed = Disturbed(cloud)
    cloud.inject(
        "placement",
        path_regex="/allocation_candidates$",
        times=None,
        delay_seconds=5,
    )
    begun = cloud.mark()

    error = disturbed.read_in_vain(read_timeout_seconds=4)

    # Half a second for what is not waited for.
    assert cloud.mark() - begun < 4 + 0.5
    assert error.startswith("Placement GET /allocation_candidates: ")
    assert error.count(" GET /") == 1


# Neutron.


def port(server: str, kind: str) -> dict[str, str]:
    """A port of a server."""
    return {
        "id": f"port-{kind}",
        "device_id": server,
        "binding:vnic_type": kind,
    }


def test_a_port_on_a_device_ties_an_instance_to_its_host(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R178: SR-IOV is neither in the flavor nor in Placement.

    The mover would be the right one to leave. It stays, is named with its
    port, and the other one leaves, although that cures only half. Ports are
    asked for of the instances on hosts that must shed, not of all.
    """
    load(
        specs.three_tiers(
            instance("mover", "gold.4", "host-1"),
            instance("stay", "gold.2", "host-1"),
            instance("far", "gold.2", "host-2"),
            events=(specs.inventory("host-1", "gold", total=2),),
        )
    )
    mover, stay = cloud.server_id("mover"), cloud.server_id("stay")
    cloud.set_ports([port(mover, "direct"), port(stay, "normal")])
    begun = cloud.mark()

    audit = operator.audit()

    assert set(audit.moves) == {"stay"}
    assert audit.said("mover stays", "port-direct", "vnic_type direct")
    checked, asked = [
        r
        for r in cloud.requests("network", begun)
        if r.path.endswith("/ports")
    ]
    assert "limit=1&" in checked.query
    assert mover not in checked.query
    assert mover in asked.query
    assert stay in asked.query
    assert cloud.server_id("far") not in asked.query
    assert asked.method == "GET"
    cloud.set_ports([port(mover, "normal")])
    assert set(operator.audit().moves) == {"mover"}


@pytest.mark.parametrize(
    ("status", "says"), [(503, "HTTP 503"), (403, "permission get_port")]
)
def test_a_neutron_that_cannot_be_asked_is_an_error(
    cloud: EmbeddedCloud, load: Load, status: int, says: str
) -> None:
    """What ties an instance is not known: nothing is planned past it."""
    load(OVER_QUOTA)
    cloud.set_ports([])
    disturbed = Disturbed(cloud)
    cloud.inject("network", path_regex="/ports$", times=None, status=status)

    error = disturbed.read_in_vain()

    assert error.startswith("Neutron GET ")
    assert says in error


def with_addresses(cloud: EmbeddedCloud, *names: str) -> None:
    """Let Nova say that these instances have addresses."""
    listed = cloud.adapter("compute", "watcher").get(
        "/servers/detail?all_tenants=1", microversion="2.96"
    )
    document = listed.json()
    for record in document["servers"]:
        if record["name"] in names:
            record["addresses"] = {"net": [{"addr": "10.0.0.7"}]}
    cloud.inject(
        "compute",
        path_regex="/servers/detail$",
        times=None,
        status=200,
        body=json.dumps(document),
    )


def test_an_instance_whose_ports_cannot_be_seen_stays(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """Neutron does not refuse: it leaves out what its policy hides.

    The mover is plugged into something, by Nova's word. Once its port is
    seen and plain, it moves.
    """
    load(OVER_QUOTA)
    cloud.set_ports([])
    with_addresses(cloud, "mover")

    audit = operator.audit()

    assert set(audit.moves) == {"stay"}
    assert audit.said("mover stays", "none of its ports", "get_port")
    cloud.set_ports([port(cloud.server_id("mover"), "normal")])
    assert set(operator.audit().moves) == {"mover"}


def test_ports_come_in_pages(
    cloud: EmbeddedCloud, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that ties the mover is on the second page."""
    load(OVER_QUOTA)
    mover = cloud.server_id("mover")
    plain = [{**port(mover, "normal"), "id": f"port-{n}"} for n in range(3)]
    cloud.set_ports([*plain, port(mover, "direct")])
    monkeypatch.setattr(neutron, "PAGE", 2)

    cluster = Disturbed(cloud).read()

    assert "port-direct" in snapshots.named(cluster, "mover").tied
