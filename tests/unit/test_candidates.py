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

"""What is asked about the few instances that may have to move."""

from collections.abc import Iterator
import dataclasses
import http.server
import json
import threading
from typing import Any

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import session as ksa_session
from keystoneauth1 import token_endpoint
import pytest

from tests import builders
from tests.unit import test_snapshot
from watcher_cputier import model
from watcher_cputier.datasources import candidates
from watcher_cputier.datasources import images
from watcher_cputier.datasources import nova

SSD = {"trait:CUSTOM_SSD": "required"}


class Services(http.server.ThreadingHTTPServer):
    """Answers by path; anything else is not found."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[str, Any] = {}
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """What the test has put down for the path."""

    server: Services

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        found = self.server.answers.get(self.path)
        status = found if isinstance(found, int) else 404 if not found else 200
        body = json.dumps(found or {}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def services() -> Iterator[Services]:
    with Services() as running:
        thread = threading.Thread(
            target=running.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        yield running
        running.shutdown()
        thread.join()


class Absent(ksa_adapter.Adapter):  # type: ignore[misc] # untyped
    """The adapter of a service that is not in the catalogue."""

    def get_endpoint(self, auth: Any = None, **_options: Any) -> None:
        raise ksa_exceptions.EndpointNotFound


def adapter(url: str) -> ksa_adapter.Adapter:
    http_session = ksa_session.Session(auth=token_endpoint.Token(url, "token"))
    return ksa_adapter.Adapter(http_session, endpoint_override=url)


def reader(services: Services, *, version: str = "") -> images.Images:
    return images.Images(
        adapter(services.url + version), adapter(services.url + "/v3/p1")
    )


def booted(name: str, **fields: Any) -> nova.Server:
    return test_snapshot.server(name, "a", **fields)


@pytest.mark.parametrize("version", ["", "/v2"])
def test_an_image_is_read_once(services: Services, version: str) -> None:
    """And of it only what decides where an instance may run."""
    services.answers["/v2/images/img"] = {
        "id": "img", "hw_cpu_policy": "dedicated", "os_distro": "x", **SSD,
    }  # fmt: skip
    told, unseen = reader(services, version=version).get_properties(
        [booted("i", image="img"), booted("j", image="img")]
    )
    expected = {"hw_cpu_policy": "dedicated", **SSD}
    assert told == {"i": expected, "j": expected}
    assert unseen == {}
    assert services.asked == ["/v2/images/img"]


def volume(*attached: tuple[str, str], **properties: str) -> dict[str, Any]:
    return {
        "volume": {
            "attachments": [
                {"server_id": server, "device": device}
                for server, device in attached
            ],
            "volume_image_metadata": properties,
        }
    }


def test_the_root_volume_tells_what_its_image_asks_for(
    services: Services,
) -> None:
    services.answers = {
        "/v3/p1/volumes/data": volume(("i", "/dev/vdb"), hw_x="1"),
        "/v3/p1/volumes/root": volume(("i", "/dev/vda"), **SSD),
    }
    server = booted("i", volumes=("data", "root"), root_device="/dev/vda")
    told, _ = reader(services).get_properties([server])
    assert told == {"i": SSD}


def test_where_no_volume_is_the_root_all_of_them_tell(
    services: Services,
) -> None:
    services.answers = {
        "/v3/p1/volumes/one": volume(hw_x="1"),
        "/v3/p1/volumes/two": volume(**SSD),
    }
    server = booted("i", volumes=("one", "two"), root_device="/dev/vda")
    told, _ = reader(services).get_properties([server])
    assert told == {"i": {"hw_x": "1", **SSD}}


def test_an_image_that_is_gone_is_unseen(services: Services) -> None:
    told, unseen = reader(services).get_properties([booted("i", image="img")])
    assert told == {}
    assert "Glance GET /v2/images/img: not found" in unseen["i"]


def test_services_out_of_the_catalogue_leave_images_unseen() -> None:
    absent = Absent(ksa_session.Session())
    told, unseen = images.Images(absent, absent).get_properties(
        [booted("i", image="img"), booted("v", volumes=("vol",))]
    )
    assert told == {}
    assert unseen["i"] == "Glance: it is not in the service catalogue"
    assert unseen["v"] == "Cinder: it is not in the service catalogue"


def test_a_service_that_fails_is_not_asked_again(services: Services) -> None:
    services.answers = dict.fromkeys(
        (f"/v2/images/img{n}" for n in range(40)), 500
    )
    _, unseen = reader(services).get_properties(
        booted(f"i{n:02}", image=f"img{n}") for n in range(40)
    )
    assert len(unseen) == 40
    assert len(services.asked) < 40
    assert "500" in unseen["i39"]


CLOUD = builders.cluster(
    [builders.host("a"), builders.host("b")],
    [
        builders.instance("i", "a"),
        builders.instance("j", "a"),
        builders.instance("k", "b"),
    ],
)


def test_traits_of_images_join_those_of_flavors() -> None:
    found = candidates.with_images(
        CLOUD,
        {"i": {"hw_x": "1", "trait:T": "forbidden", **SSD}, "j": {}},
        {},
    )
    i, j, k = found.instances
    assert i.flavor.required_traits == {"CUSTOM_SSD"}
    assert i.flavor.resources == CLOUD.instances[0].flavor.resources
    assert i.image_properties["hw_x"] == "1"
    assert (j, k) == CLOUD.instances[1:]
    assert found.findings == ()


def test_what_nova_tells_of_an_image_is_kept() -> None:
    """Nova acts on the properties of the day of creation."""
    cloud = builders.cluster(
        [builders.host("a")],
        [
            builders.instance(
                "i", "a", image_properties=model.frozen_map({"hw_x": "old"})
            )
        ],
    )
    found = candidates.with_images(cloud, {"i": {"hw_x": "new"}}, {})
    assert found.instances[0].image_properties == {"hw_x": "old"}


def test_unseen_images_are_found_by_their_reason() -> None:
    found = candidates.with_images(
        CLOUD, {}, {"i": "Glance: gone.", "j": "Glance: gone.", "k": "Cinder"}
    )
    assert [(f.kind, f.subject) for f in found.findings] == [
        ("image_unseen", "2 instances"),
        ("image_unseen", "k"),
    ]
    assert "of i, j (Glance: gone): " in found.findings[0].text


def test_ties_are_of_those_alone() -> None:
    found = candidates.with_ties(CLOUD, {"j": "a port"})
    assert [i.tied for i in found.instances] == ["", "a port", ""]
    assert candidates.with_ties(CLOUD, {}) is CLOUD


# What an old Placement does not let go


def over() -> model.Cluster:
    """a is over in gold, b is not; x, y and s are on a, z is on b."""
    return builders.cluster(
        [builders.host("a", gold=4), builders.host("b", gold=8)],
        [
            builders.instance("s", "a", 2, "silver"),
            builders.instance("x", "a", 4),
            builders.instance("y", "a", 2),
            builders.instance("z", "b", 2),
        ],
    )


def test_which_classes_a_host_is_over_its_capacity_of() -> None:
    a, b = over().hosts
    assert candidates.overfull(a) == {"CUSTOM_VCPU_GOLD"}
    assert candidates.overfull(b) == frozenset()


def test_one_refusal_tells_it_for_all_who_hold_the_class_there() -> None:
    cloud = over()
    told = candidates.with_refusals(cloud, {"s", "x", "y"}, {"x": 100})
    kept = {one.name for one in told.instances if one.in_doubt}
    assert kept == {"x", "y"}
    (finding,) = told.findings
    assert (finding.kind, finding.subject) == ("placement_keeps_excess", "a")
    assert "Placement refused to let x go" in finding.text
    plan = builders.planned(told)
    assert builders.moves(plan) == []
    assert builders.moves(builders.planned(cloud)) != []
    assert {
        refusal.rejection.rule
        for item in plan.unresolved
        for refusal in item.refusals
        if refusal.rejection
    } == {"in_order"}


def test_without_a_refusal_nothing_is_said() -> None:
    cloud = over()
    assert candidates.with_refusals(cloud, {"x", "y"}, {}) is cloud


@pytest.mark.parametrize(
    ("instance", "source", "began_at", "left"),
    [
        ("z", "a", 101, True),
        # Before the refusal, from another host, or of another class.
        ("z", "a", 99, False),
        ("z", "b", 101, False),
        ("s", "a", 101, False),
    ],
)
def test_who_left_since_shows_that_it_lets_go_now(
    instance: str, source: str, began_at: int, left: bool
) -> None:
    """An upgraded Placement is believed at once."""
    cloud = dataclasses.replace(
        over(),
        changes=(
            model.Change(
                instance=instance,
                kind="live-migration",
                began_at=began_at,
                ended_at=began_at + 5,
                moved=True,
                source=source,
                target="b",
            ),
        ),
    )
    assert candidates._left_since(cloud, "x", 100) is left


def test_a_unit_rule_is_a_reason_of_its_own() -> None:
    """It is told by itself, and is no sign of an old Placement."""
    cloud = builders.cluster(
        [builders.host("a", gold=model.Inventory(total=2, max_unit=2))],
        [builders.instance("x", "a", 4)],
    )
    (x,) = cloud.instances
    assert candidates._held_too_much(cloud, x) == frozenset()
