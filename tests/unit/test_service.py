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

"""Reading over HTTP: every answer of a service, from a real server.

The server answers what the test has put in its queue and writes down what it
was asked; keystoneauth and openstacksdk are the real ones.
"""

from collections.abc import Iterator
import http.server
import json
import socket
import threading
import time
from typing import Any

from keystoneauth1 import access as ksa_access
from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import fixture as ksa_fixture
from keystoneauth1 import session as ksa_session
from keystoneauth1 import token_endpoint
from keystoneauth1.identity import access as ksa_identity
from openstack import connection as sdk
import pytest

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import cloud
from watcher_cputier.datasources import neutron
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import service

Answer = tuple[int, Any]


def versions(url: str, newest: str = "2.96") -> dict[str, Any]:
    """A version document as Nova's at its endpoint."""
    return {
        "version": {
            "id": "v2.1",
            "status": "CURRENT",
            "version": newest,
            "min_version": "2.1",
            "links": [{"rel": "self", "href": url}],
        }
    }


class Server(http.server.ThreadingHTTPServer):
    """Answers from a queue; its last answer is repeated for ever."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = []
        self.asked: list[tuple[str, str]] = []
        self.newest: str | None = "2.96"
        self.headers: dict[str, str] = {}
        # Set when a test is over, so that no answer is slept on.
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(http.server.BaseHTTPRequestHandler):
    """The version document at the root, else the queue."""

    server: Server

    def do_GET(self) -> None:
        if self.path == "/":
            if self.server.newest is None:
                self.reply(404, "nothing here")
            else:
                self.reply(200, versions(self.server.url, self.server.newest))
            return
        self.server.asked.append((self.command, self.path))
        answers = self.server.answers
        status, body = answers.pop(0) if len(answers) > 1 else answers[0]
        if status == 0:
            self.server.over.wait(10)
            return
        self.reply(status, body)

    # Whatever else a reader might send is written down all the same.
    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815
    do_PATCH = do_DELETE = do_GET  # noqa: N815

    def reply(self, status: int, body: Any) -> None:
        raw = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw.encode())

    def log_message(self, *words: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(
            target=running.serve_forever, args=(0.01,), daemon=True
        )
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries do not wait."""
    monkeypatch.setattr(service, "PAUSE_SECONDS", 0.001)


def adapter(url: str, kind: str = "compute") -> Any:
    """openstacksdk's own proxy."""
    session = ksa_session.Session(auth=token_endpoint.Token(url, "token"))
    connection = sdk.Connection(
        session=session, **{f"{kind}_endpoint_override": url}
    )
    return getattr(connection, kind)


POLICIES = {
    "things": "os_api:things:list",
    "things/detail": "os_api:things:detail",
    "things/*/parts": "os_api:things:parts:list",
}


def reader(url: str, microversion: str = "2.90") -> service.Service:
    return service.Service(adapter(url), "Nova", microversion, POLICIES)


def test_a_document(server: Server) -> None:
    server.answers = [(200, {"things": [1]})]
    found = reader(server.url).get("/things", {"limit": 3, "all": True})
    assert found == {"things": [1]}
    assert server.asked == [("GET", "/things?limit=3&all=True")]


@pytest.mark.parametrize(
    ("newest", "wanted", "used"),
    [
        ("2.96", "2.90", "2.90"),
        ("2.9", "2.90", "2.9"),
        ("2.100", "2.90", "2.90"),
        ("2.90", "2.90", "2.90"),
    ],
)
def test_the_microversion_is_the_older_of_the_two(
    server: Server, newest: str, wanted: str, used: str
) -> None:
    server.newest = newest
    assert reader(server.url, wanted).microversion == used


# status, body, what, a word of the cure
REFUSALS: list[tuple[int, Any, str, str]] = [
    (401, {}, "the credentials are refused (401)", "watcher_clients_auth"),
    (
        403,
        {"forbidden": {"message": "no"}},
        "Watcher's user lacks the permission os_api:things:list (403)",
        "role",
    ),
    (
        500,
        {"computeFault": {"code": 500, "message": "It  is\nbroken."}},
        "HTTP 500: It is broken.",
        "log",
    ),
    (
        400,
        {"errors": [{"status": 400, "detail": "JSON is wrong\n\nreally"}]},
        "HTTP 400: JSON is wrong really",
        "log",
    ),
    (406, "no JSON", "HTTP 406: Not Acceptable", "log"),
    (500, ["broken"], "HTTP 500: broken", "log"),
    (500, '"broken"', "HTTP 500: broken", "log"),
    (500, "null", "HTTP 500: ", "log"),
    (500, {}, "HTTP 500: ", "log"),
    (204, "", "HTTP 204: No Content", "log"),
    (200, "<html>", "the answer is no JSON document", "endpoint"),
    (200, "[]", "the answer is not of the service's form", "endpoint"),
]


@pytest.mark.parametrize(("status", "body", "what", "cure"), REFUSALS)
def test_a_refusal_says_what_and_how_to_mend_it(
    server: Server, status: int, body: Any, what: str, cure: str
) -> None:
    server.answers = [(status, body)]
    with pytest.raises(errors.ServiceError) as caught:
        reader(server.url).get("/things")
    assert caught.value.where == "Nova GET /things"
    assert caught.value.what.startswith(what)
    assert cure in caught.value.cure
    assert "\n" not in str(caught.value)
    tries = 1 + service.RETRIES if status == 500 else 1
    assert server.asked == [("GET", "/things")] * tries


def test_long_words_of_a_service_are_cut(server: Server) -> None:
    server.answers = [(500, {"fault": {"message": "x" * 5000}})]
    with pytest.raises(errors.ServiceError) as caught:
        reader(server.url).get("/things")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("path", "policy"),
    [
        ("/things", "os_api:things:list"),
        ("/things/detail", "os_api:things:detail"),
        ("/things/7f/parts", "os_api:things:parts:list"),
        ("/others", "/others"),
    ],
)
def test_a_missing_permission_is_named(
    server: Server, path: str, policy: str
) -> None:
    server.answers = [(403, {})]
    with pytest.raises(errors.ServiceError, match=r"\(403\)") as caught:
        reader(server.url).get(path)
    assert f"permission {policy} " in caught.value.what


def test_what_is_not_there_is_told_apart(server: Server) -> None:
    server.answers = [(404, {"itemNotFound": {"message": "no"}})]
    with pytest.raises(service.NotFound, match="Nova GET /things: not found"):
        reader(server.url).get("/things")


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.answers = [(status, {}), (status, {}), (200, {"ok": 1})]
    assert reader(server.url).get("/things") == {"ok": 1}
    assert server.asked == [("GET", "/things")] * 3


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503, 504])
def test_retries_are_bounded(server: Server, status: int) -> None:
    server.answers = [(status, {})]
    with pytest.raises(errors.ServiceError, match=f"HTTP {status}"):
        reader(server.url).get("/things")
    assert len(server.asked) == 1 + service.RETRIES


def test_pauses_between_tries_double(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As keystoneauth's do: half a second, one, two."""
    slept: list[float] = []
    monkeypatch.setattr(service, "PAUSE_SECONDS", 0.5)
    monkeypatch.setattr(service.time, "sleep", slept.append)
    server.answers = [(503, {})]
    with pytest.raises(errors.ServiceError):
        reader(server.url).get("/things")
    assert slept == [0.5, 1.0, 2.0]


@pytest.mark.parametrize(
    ("told", "slept"),
    [
        ("7", [7.0]),
        ("0", [0.001]),
        ("-5", [0.001]),
        ("Wed, 21 Oct 2026 07:28:00 GMT", [0.001]),
        ("86400", [60.0]),
    ],
)
def test_a_service_may_say_how_long_to_wait(
    server: Server,
    monkeypatch: pytest.MonkeyPatch,
    told: str,
    slept: list[float],
) -> None:
    found: list[float] = []
    monkeypatch.setattr(service.time, "sleep", found.append)
    server.headers = {"Retry-After": told}
    server.answers = [(429, {}), (200, {})]
    reader(server.url).get("/things")
    assert found == slept


@pytest.mark.parametrize("told", [None, "30"])
def test_pauses_do_not_overshoot_the_time_budget(
    server: Server, monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    """A pause that does not fit is not begun: the refusal is the error."""
    slept: list[float] = []
    monkeypatch.setattr(service, "PAUSE_SECONDS", 0.5 if told else 30)
    monkeypatch.setattr(service.time, "sleep", slept.append)
    server.headers = {"Retry-After": told} if told else {}
    server.answers = [(503, {"f": {"message": "too busy"}})]
    asking = reader(server.url)
    assert asking.microversion
    asking.deadline = time.monotonic() + 20
    with pytest.raises(errors.ServiceError, match="HTTP 503: too busy"):
        asking.get("/things")
    assert slept == []
    assert len(server.asked) == 1


def test_a_hanging_service_ends_with_the_time_budget(server: Server) -> None:
    """The first try takes half of what is left, so that there is another."""
    server.answers = [(0, None)]
    asking = reader(server.url)
    assert asking.microversion
    asking.deadline = time.monotonic() + 1.5
    with pytest.raises(service.OutOfTime, match="time budget"):
        asking.get("/things")
    assert len(server.asked) == 2
    assert asking.tally.requests == 2


def test_a_service_that_does_not_answer(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "TIMEOUT_SECONDS", 0.05)
    server.answers = [(0, None)]
    with pytest.raises(errors.ServiceError) as caught:
        reader(server.url).get("/things")
    assert caught.value.what == "no answer within 0.05 s"
    assert len(server.asked) == 1 + service.RETRIES


def unused_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_a_service_that_is_down() -> None:
    """Version discovery is the first to notice."""
    url = f"http://127.0.0.1:{unused_port()}"
    session = ksa_session.Session(auth=token_endpoint.Token(url, "token"))
    bare = ksa_adapter.Adapter(session, endpoint_override=url)
    with pytest.raises(errors.ServiceError) as caught:
        service.Service(bare, "Nova", "2.90", POLICIES).get("/things")
    assert caught.value.where == "Nova version discovery"
    assert "\n" not in str(caught.value)
    assert "endpoint" in caught.value.cure


def catalogue(**urls: str) -> sdk.Connection:
    """A connection whose catalogue has these services, without Keystone."""
    token = ksa_fixture.V3Token()
    token.set_project_scope()
    for kind, url in urls.items():
        token.add_service(kind, name=kind).add_standard_endpoints(public=url)
    plugin = ksa_identity.AccessInfoPlugin(
        ksa_access.create(body=token, auth_token="token")
    )
    return sdk.Connection(session=ksa_session.Session(auth=plugin))


def read_by(connection: sdk.Connection) -> cloud.Reader:
    return cloud.Reader(connection)


@pytest.mark.parametrize("overridden", [False, True])
def test_services_that_are_down_are_named(overridden: bool) -> None:
    """openstacksdk looks for versions as soon as a proxy is named."""
    url = f"http://127.0.0.1:{unused_port()}"
    connection = catalogue(compute=url, placement=url)
    if overridden:
        connection = sdk.Connection(
            session=connection.session,
            compute_endpoint_override=url,
            placement_endpoint_override=url,
        )
    with pytest.raises(errors.ServiceError) as caught:
        read_by(connection).check_access()
    assert "Nova " in str(caught.value)
    assert "Placement " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_services_that_the_catalogue_lacks_are_named() -> None:
    with pytest.raises(errors.ServiceError) as caught:
        read_by(catalogue()).check_access()
    assert "Nova " in str(caught.value)
    assert "Placement " in str(caught.value)
    assert "catalogue has no endpoint" in str(caught.value)


def test_placement_alone_is_down(server: Server) -> None:
    """What works is not blamed."""
    server.answers = [(200, {})]
    url = f"http://127.0.0.1:{unused_port()}"
    connection = catalogue(compute=server.url, placement=url)
    with pytest.raises(errors.ServiceError) as caught:
        read_by(connection).check_access()
    assert str(caught.value).startswith("Placement ")
    assert "Nova" not in str(caught.value)


def test_a_service_that_goes_away(server: Server) -> None:
    """Between two requests the connection is refused."""
    asking = reader(server.url)
    assert asking.microversion
    server.shutdown()
    server.server_close()
    with pytest.raises(errors.ServiceError) as caught:
        asking.get("/things")
    assert caught.value.where == "Nova GET /things"
    assert caught.value.what.startswith("unreachable: ")
    assert "endpoint" in caught.value.cure


def test_a_time_budget_that_is_used_up(server: Server) -> None:
    asking = reader(server.url)
    asking.deadline = 0.0
    with pytest.raises(errors.ServiceError) as caught:
        asking.get("/things")
    assert "time budget" in caught.value.what
    assert "read_timeout_seconds" in caught.value.cure
    assert server.asked == []


def test_requests_are_counted(server: Server) -> None:
    server.answers = [(200, {"a": 1})]
    asking = reader(server.url)
    for _ in range(3):
        asking.get("/things")
    assert asking.tally.requests == 3
    assert asking.tally.received_bytes == 3 * len('{"a": 1}')
    assert str(asking.tally).startswith("3 requests, ")


# --- pages


def page(*names: str, more: bool, key: str = "id") -> Answer:
    links = [{"rel": "next", "href": "http://wrong.example/x"}] if more else []
    return 200, {"things": [{key: n} for n in names], "things_links": links}


def test_pages_are_followed_by_their_markers(server: Server) -> None:
    """The link's host is wrong, as it often is behind a proxy."""
    server.answers = [
        page("a", "b", more=True),
        page("c", more=True, key="uuid"),
        page("d", more=False),
    ]
    found = list(reader(server.url).pages("/things", "things", {"limit": 2}))
    assert [next(iter(item.values())) for item in found] == list("abcd")
    assert [path for _, path in server.asked] == [
        "/things?limit=2",
        "/things?limit=2&marker=b",
        "/things?limit=2&marker=c",
    ]


@pytest.mark.parametrize("answer", [page(more=True), page(more=False)])
def test_an_empty_page_is_the_last(server: Server, answer: Answer) -> None:
    server.answers = [answer]
    assert list(reader(server.url).pages("/things", "things")) == []
    assert len(server.asked) == 1


def test_a_page_that_comes_again_is_an_error(server: Server) -> None:
    """A service that does not know markers would be asked for ever."""
    server.answers = [page("a", more=True)]
    with pytest.raises(errors.ServiceError, match="the page after a is"):
        list(reader(server.url).pages("/things", "things"))
    assert len(server.asked) == 2


# --- answers that lack what was asked for


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({}, "the answer has no 'things', it is empty"),
        ({"a": 1, "b": 2}, "the answer has no 'things' among a, b"),
        ({"things": None}, "the answer's 'things' is no list of objects"),
        ({"things": {"id": 1}}, "the answer's 'things' is no list"),
        ({"things": ["a"]}, "the answer's 'things' is no list of objects"),
    ],
)
@pytest.mark.parametrize("how", ["items", "pages"])
def test_a_list_that_is_missing_is_named(
    server: Server, answer: dict[str, Any], says: str, how: str
) -> None:
    server.answers = [(200, answer)]
    with pytest.raises(errors.ServiceError) as caught:
        list(getattr(reader(server.url), how)("/things", "things"))
    assert caught.value.where == "Nova GET /things"
    assert caught.value.what.startswith(says)
    assert "endpoint" in caught.value.cure


def test_a_field_that_is_missing_deep_inside_is_named(server: Server) -> None:
    server.answers = [(200, {"things": [{"id": 1, "part": {"size": 2}}]})]
    (thing,) = reader(server.url).items("/things", "things")
    assert thing["part"]["size"] == 2
    assert thing.get("name") is None
    with pytest.raises(errors.ServiceError) as caught:
        thing["part"]["colour"]
    assert str(caught.value).startswith(
        "Nova GET /things: the answer has no 'colour' among size"
    )


# --- the readers


@pytest.mark.parametrize(
    ("newest", "words"),
    [("2.63", "Nova: its newest microversion is 2.63"), ("2.64", None)],
)
def test_an_old_nova_is_refused(
    server: Server, newest: str, words: str | None
) -> None:
    server.newest = newest
    server.answers = [(200, {})]
    found = nova.Nova(adapter(server.url)).check_access()
    assert [str(e).startswith(words or "") for e in found] == [True] * bool(
        words
    )


def test_each_permission_that_nova_lacks_is_named(server: Server) -> None:
    """R79: all of them at once, not one an audit."""
    server.answers = [(403, {})]
    found = nova.Nova(adapter(server.url)).check_access()
    said = " ".join(exc.what for exc in found)
    for policy in (
        "os_compute_api:os-hypervisors:list-detail",
        "os_compute_api:os-services:list",
        "os_compute_api:servers:detail:get_all_tenants",
        "os_compute_api:os-aggregates:index",
        "os_compute_api:os-server-groups:index:all_projects",
        "os_compute_api:os-migrations:index",
    ):
        assert policy in said
    assert len(found) == 6
    assert {method for method, _ in server.asked} == {"GET"}


def test_an_old_placement_is_refused(server: Server) -> None:
    server.newest = "1.28"
    found = placement.Placement(
        adapter(server.url, "placement")
    ).check_access()
    assert [e.what for e in found] == ["its newest microversion is 1.28"]


SERVER = {
    "id": "i",
    "name": "i",
    "OS-EXT-SRV-ATTR:host": "a",
    "tenant_id": "p1",
    "status": "ACTIVE",
    "image": {"id": "x"},
    "flavor": {
        "original_name": "m1",
        "vcpus": 1,
        "ram": 1,
        "disk": 1,
        "extra_specs": {},
    },
}

EMPTY = {
    "migrations": [],
    "services": [],
    "hypervisors": [],
    "aggregates": [],
    "server_groups": [],
}

HIDDEN: dict[str, tuple[dict[str, Any], str]] = {
    "its host": (
        {k: v for k, v in SERVER.items() if k != "OS-EXT-SRV-ATTR:host"},
        "os_compute_api:os-extended-server-attributes",
    ),
    "its extra specs": (
        {
            **SERVER,
            "flavor": {
                k: v
                for k, v in SERVER["flavor"].items()  # type: ignore[attr-defined]
                if k != "extra_specs"
            },
        },
        "os_compute_api:os-flavor-extra-specs:index",
    ),
}


@pytest.mark.parametrize("case", HIDDEN)
def test_what_nova_hides_of_a_server_is_named(
    server: Server, case: str
) -> None:
    """Nova leaves out what a policy does not let the user see."""
    hidden, policy = HIDDEN[case]
    server.answers = [(200, {**EMPTY, "servers": [hidden]})]
    with pytest.raises(errors.ServiceError) as caught:
        nova.Nova(adapter(server.url)).get_cloud()
    assert policy in str(caught.value)


def test_a_server_as_nova_lists_it(server: Server) -> None:
    """One without an image boots from a volume: no DISK_GB of the host."""
    volume = {**SERVER, "id": "v", "name": "v", "image": ""}
    server.answers = [(200, {**EMPTY, "servers": [volume, SERVER]})]
    found = nova.Nova(adapter(server.url)).get_cloud()
    assert [s.name for s in found.servers] == ["i", "v"]
    assert found.servers[0].flavor.resources["DISK_GB"] == 1
    assert "DISK_GB" not in found.servers[1].flavor.resources
    assert found.zones_known
    assert {method for method, _ in server.asked} == {"GET"}


DOWN = {
    "id": "x",
    "status": "UNKNOWN",
    "tenant_id": "p1",
    "created": "2026-01-01T00:00:00Z",
    "links": [],
}


def test_a_server_of_a_cell_that_is_down(server: Server) -> None:
    """From 2.69 on Nova lists such servers with hardly anything known.

    And their hosts among the services, as far as mapped; none of them as
    hypervisors. The rest of the cloud is read.
    """
    services = [
        {"binary": "nova-compute", "host": "dark", "status": "UNKNOWN"},
        {
            "binary": "nova-compute",
            "host": "a",
            "status": "enabled",
            "state": "up",
            "zone": "nova",
        },
    ]
    server.answers = [
        (200, {**EMPTY, "services": services, "servers": [DOWN, SERVER]})
    ]
    found = nova.Nova(adapter(server.url)).get_cloud()
    assert [s.uuid for s in found.servers] == ["i"]
    assert found.unreachable == {"x"}
    assert found.unreachable_hosts == {"dark"}


def test_servers_of_a_cell_that_is_down_in_pages(server: Server) -> None:
    """The last of a page may be one of them: its id is the marker."""
    server.newest = "2.98"
    reading = nova.Nova(adapter(server.url))
    pages = [
        {"servers": [SERVER, DOWN], "servers_links": [{"rel": "next"}]},
        {"servers": [{**SERVER, "id": "j", "name": "j"}]},
    ]
    server.answers = [(200, page) for page in pages]
    servers, unreachable = reading._get_servers()
    assert [s.uuid for s in servers] == ["i", "j"]
    assert unreachable == {"x"}
    assert "marker=x" in server.asked[-1][1]


def test_a_server_of_a_cell_that_is_down_by_itself(server: Server) -> None:
    """Asked for alone it has a flavor, and neither name nor host."""
    alone = {**DOWN, "flavor": SERVER["flavor"], "image": ""}
    server.answers = [(200, {"server": alone})]
    with pytest.raises(nova.CellDown, match="its cell is down"):
        nova.Nova(adapter(server.url)).get_server("x")


@pytest.mark.parametrize(
    ("addresses", "networked"),
    [
        ({"net": [{"addr": "10.0.0.1", "version": 4}]}, True),
        ({"net": []}, False),
        ({}, False),
        (None, False),
    ],
)
def test_a_server_with_addresses_has_ports(
    server: Server, addresses: Any, networked: bool
) -> None:
    listed = {**SERVER, "addresses": addresses}
    server.answers = [(200, {**EMPTY, "servers": [listed]})]
    (found,) = nova.Nova(adapter(server.url)).get_cloud().servers
    assert found.networked is networked


def test_a_migration_that_proceeds_while_it_is_read(server: Server) -> None:
    """Asked for status by status, in the order of a migration's life.

    One is met twice, and counts once, in the state that was seen last.
    """

    def answer(status: str, *uuids: str) -> Answer:
        return 200, {
            "migrations": [
                {"uuid": u, "instance_uuid": "i", "status": status}
                for u in uuids
            ]
        }

    later = {**answer("done", "old")[1], "migrations_links": [{"rel": "next"}]}
    server.answers = [
        (200, later),
        answer("accepted", "m"),
        answer("queued"),
        answer("preparing"),
        answer("running", "m"),
        answer("none"),
    ]
    (found,) = nova.Nova(adapter(server.url)).get_migrations()
    assert (found.uuid, found.status) == ("m", "running")
    asked = [path.partition("status=")[2] for _, path in server.asked[1:]]
    assert asked == list(nova._IN_FLIGHT)
    lives = (
        ("accepted", "queued", "preparing", "running"),
        ("accepted", "pre-migrating", "migrating", "post-migrating"),
        ("post-migrating", "finished", "confirming"),
        ("finished", "reverting"),
    )
    for life in lives:
        assert sorted(life, key=asked.index) == list(life)


def candidates(*hosts: str) -> Answer:
    """Placement's candidates, each a tree of one provider."""
    return 200, {
        "allocation_requests": [
            {"allocations": {host: {"resources": {"VCPU": 4}}}}
            for host in hosts
        ],
        "provider_summaries": {
            host: {"root_provider_uuid": host} for host in hosts
        },
    }


def test_after_many_refusals_placement_is_asked_for_all(
    server: Server,
) -> None:
    """What has room and is not among them is refused. What has none yet
    stays open: a plan may make its room.
    """
    asked = [f"no-{n:02}" for n in range(placement.REFUSALS + 1)]
    server.answers = [
        *[candidates()] * len(asked),
        candidates("no-00", "offered"),
    ]
    found = placement.Placement(
        adapter(server.url, "placement")
    ).get_admission(
        (("resources", "VCPU:4"),),
        model.Admission(hosts=frozenset({"known"})),
        asked,
        [*asked, "known", "offered", "has-room"],
    )
    assert [p for _, p in server.asked if "in_tree=no-00" in p]
    assert "in_tree" not in server.asked[-1][1]
    assert found.hosts == {"known", "offered"}
    assert found.refused == {*asked, "has-room"}
    assert found.verdict("full") is None


def test_one_refusal_asks_for_no_others(server: Server) -> None:
    server.answers = [candidates("a"), candidates()]
    found = placement.Placement(
        adapter(server.url, "placement")
    ).get_admission(
        (("resources", "VCPU:4"),), model.Admission(), ["b", "a"], ["c"]
    )
    assert found == model.Admission(
        hosts=frozenset({"a"}), refused=frozenset({"b"})
    )


EMPTY_ANSWERS: list[tuple[str, Any, str]] = [
    (
        "Placement GET /resource_providers",
        lambda url: placement.Placement(adapter(url, "placement")).get_survey(
            []
        ),
        "resource_providers",
    ),
    (
        "Nova GET /os-migrations",
        lambda url: nova.Nova(adapter(url)).get_cloud(),
        "migrations",
    ),
    (
        "Nova GET /servers/x",
        lambda url: nova.Nova(adapter(url)).get_server("x"),
        "server",
    ),
    (
        "Neutron GET /v2.0/ports",
        lambda url: ports_of(url).get_ties({"i": True}),
        "ports",
    ),
]


def ports_of(url: str) -> neutron.Neutron:
    """A reader of ports."""
    session = ksa_session.Session(auth=token_endpoint.Token(url, "token"))
    return neutron.Neutron(ksa_adapter.Adapter(session, endpoint_override=url))


@pytest.mark.parametrize(
    ("where", "read", "expected"),
    EMPTY_ANSWERS,
    ids=[where for where, _, _ in EMPTY_ANSWERS],
)
def test_an_answer_without_anything_is_one_clear_error(
    server: Server, where: str, read: Any, expected: str
) -> None:
    server.answers = [(200, {})]
    with pytest.raises(errors.ServiceError) as caught:
        read(server.url)
    assert str(caught.value).startswith(
        f"{where}: the answer has no '{expected}', it is empty"
    )


# --- ports


def ports(*told: tuple[str, str], more: bool = False) -> Answer:
    links = [{"rel": "next", "href": "http://wrong.example/x"}] if more else []
    return 200, {
        "ports": [
            {"id": f"port-{i}", "device_id": i, "binding:vnic_type": kind}
            for i, kind in told
        ],
        "ports_links": links,
    }


def test_ports_come_in_pages(server: Server) -> None:
    server.answers = [
        ports(("i", "normal"), ("j", "direct"), more=True),
        ports(("k", "macvtap")),
    ]
    found = ports_of(server.url).get_ties(dict.fromkeys("ijk", True))
    assert set(found) == {"j", "k"}
    assert "port-j" in found["j"]
    assert f"limit={neutron.PAGE}" in server.asked[0][1]
    assert "marker=port-j" in server.asked[1][1]


def test_an_instance_whose_ports_cannot_be_seen_is_tied(
    server: Server,
) -> None:
    """Neutron leaves out what the user may not see; Nova's word is enough."""
    server.answers = [ports(("i", "normal"))]
    found = ports_of(server.url).get_ties({"i": True, "j": True, "k": False})
    assert list(found) == ["j"]
    assert "policy get_port " in found["j"]


def test_addresses_without_a_neutron_are_a_tie() -> None:
    session = catalogue().session
    reading = neutron.Neutron(
        ksa_adapter.Adapter(session, service_type="network")
    )
    found = reading.get_ties({"i": True, "k": False})
    assert list(found) == ["i"]
    assert "catalogue has no Neutron" in found["i"]


def test_the_permission_to_see_ports_is_checked_first(server: Server) -> None:
    """R79: with all others that are missing, not when a plan is made."""
    server.answers = [(403, {})]
    (missing,) = ports_of(server.url).check_access()
    assert "permission get_port " in missing.what
