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
from watcher_cputier.datasources import cloud
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


def adapter(url: str, kind: str = "compute") -> Any:
    """openstacksdk's own proxy; its retries do not wait."""
    session = ksa_session.Session(auth=token_endpoint.Token(url, "token"))
    connection = sdk.Connection(
        session=session, **{f"{kind}_endpoint_override": url}
    )
    proxy = getattr(connection, kind)
    proxy.connect_retry_delay = proxy.status_code_retry_delay = 0.001
    return proxy


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
    assert server.asked == [("GET", "/things")]


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


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_pass_is_tried_again(server: Server, status: int) -> None:
    server.answers = [(status, {}), (status, {}), (200, {"ok": 1})]
    assert reader(server.url).get("/things") == {"ok": 1}
    assert server.asked == [("GET", "/things")] * 3


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_retries_are_bounded(server: Server, status: int) -> None:
    server.answers = [(status, {})]
    with pytest.raises(errors.ServiceError, match=f"HTTP {status}"):
        reader(server.url).get("/things")
    assert len(server.asked) == 1 + service.RETRIES


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
    """A reader whose retries do not wait."""
    found = cloud.Reader(connection)
    for one in (found.nova.service, found.placement.service):
        one._adapter.connect_retry_delay = 0.001
    return found


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


@pytest.mark.parametrize(
    "answer", [page(more=True), page(more=False), (200, {})]
)
def test_an_empty_page_is_the_last(server: Server, answer: Answer) -> None:
    server.answers = [answer]
    assert list(reader(server.url).pages("/things", "things")) == []
    assert len(server.asked) == 1


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


def test_a_server_of_a_cell_that_is_down(server: Server) -> None:
    """From 2.69 on Nova lists such servers with hardly anything known."""
    down = {
        "id": "x",
        "status": "UNKNOWN",
        "tenant_id": "p1",
        "created": "2026-01-01T00:00:00Z",
        "links": [],
    }
    server.answers = [(200, {**EMPTY, "servers": [down, SERVER]})]
    with pytest.raises(errors.TierError) as caught:
        nova.Nova(adapter(server.url)).get_cloud()
    assert "policy" not in str(caught.value)
