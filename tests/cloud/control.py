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

"""Watching, disturbing and steering the services from outside.

``Observer`` is the outermost WSGI middleware of every service. It writes each
request into a ``Ledger`` and lets the ``Fault`` that matches act first: answer
with an error, wait, or drop the connection. Requests that Nova makes inside
its own process (its scheduler asking Placement) do not pass a socket and are
not seen.

``ControlApplication`` is a fifth service: ``POST /NAME`` with a JSON object of
arguments calls the operation NAME and answers ``{"result": ...}`` or
``{"error": ...}``. ``ControlClient`` is its other end.

Marks are readings of the machine's monotonic clock, which all processes
share; so one mark cuts the ledgers of all of them.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import json
import re
import socket
import time
import traceback
import typing
import urllib.error
import urllib.request

_LEDGER_SIZE = 200_000
_BODY_BYTES = 65536

Environ = dict[str, typing.Any]
StartResponse = typing.Callable[..., typing.Any]
Application = typing.Callable[[Environ, StartResponse], typing.Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One API request as a service saw it."""

    mark: float
    time: float
    service: str
    method: str
    path: str
    query: str
    status: int
    duration_seconds: float
    user_agent: str
    user: str
    body: str = ""


@dataclasses.dataclass(slots=True)
class Fault:
    """A disturbance of the requests that match, ``times`` of them."""

    service: str
    method: str | None
    path_regex: str
    status: int | None = None
    delay_seconds: float = 0.0
    drop: bool = False
    times: int | None = 1
    body: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        re.compile(self.path_regex)

    def matches(self, service: str, method: str, path: str) -> bool:
        return (
            self.service == service
            and self.method in (None, method)
            and (self.times is None or self.times > 0)
            and re.search(self.path_regex, path) is not None
        )


class Ledger:
    """The requests of the services of one process, and their faults."""

    def __init__(self) -> None:
        self._requests: collections.deque[Request] = collections.deque(
            maxlen=_LEDGER_SIZE
        )
        self._faults: list[Fault] = []

    def write(self, request: Request) -> None:
        self._requests.append(request)

    def fault(self, service: str, method: str, path: str) -> Fault | None:
        for fault in self._faults:
            if fault.matches(service, method, path):
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None

    # Operations of the control service.

    def requests(
        self, service: str | None = None, since: float | None = None
    ) -> list[dict[str, typing.Any]]:
        return [
            dataclasses.asdict(r)
            for r in list(self._requests)
            if service in (None, r.service)
            and (since is None or r.mark >= since)
        ]

    def inject(self, **fields: typing.Any) -> None:
        self._faults.append(Fault(**fields))

    def clear_faults(self) -> None:
        self._faults.clear()

    def operations(self) -> dict[str, typing.Callable[..., typing.Any]]:
        return {
            "requests": self.requests,
            "inject": self.inject,
            "clear_faults": self.clear_faults,
        }


class Observer:
    """The WSGI middleware around one service."""

    def __init__(
        self, application: Application, service: str, ledger: Ledger
    ) -> None:
        self._application = application
        self._service = service
        self._ledger = ledger

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> typing.Any:
        mark, now = time.monotonic(), time.time()
        method = environ["REQUEST_METHOD"]
        path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
        body = (
            _read_body(environ) if method in ("POST", "PUT", "PATCH") else b""
        )
        statuses: list[int] = []

        def remember(
            status: str, headers: typing.Any, *args: typing.Any
        ) -> typing.Any:
            statuses.append(int(status.split(maxsplit=1)[0]))
            return start_response(status, headers, *args)

        fault = self._ledger.fault(self._service, method, path)
        try:
            if fault is not None:
                answer = _disturb(fault, environ, remember)
                if answer is not None:
                    return answer
            return self._application(environ, remember)
        finally:
            self._ledger.write(
                Request(
                    mark=mark,
                    time=now,
                    service=self._service,
                    method=method,
                    path=path,
                    query=environ.get("QUERY_STRING", ""),
                    status=statuses[-1] if statuses else 0,
                    duration_seconds=time.monotonic() - mark,
                    user_agent=environ.get("HTTP_USER_AGENT", ""),
                    user=environ.get("HTTP_X_USER_NAME", ""),
                    body=body[:_BODY_BYTES].decode("utf-8", "replace")
                    if self._service != "identity"
                    else "",
                )
            )


def _read_body(environ: Environ) -> bytes:
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if not length:
        return b""
    original = environ["wsgi.input"]
    body: bytes = original.read(length)
    environ.setdefault("cloud.socket", _socket(original))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _socket(stream: typing.Any) -> socket.socket | None:
    get_socket = getattr(stream, "get_socket", None)  # eventlet's
    return get_socket() if get_socket else None


def _disturb(
    fault: Fault, environ: Environ, start_response: StartResponse
) -> list[bytes] | None:
    if fault.delay_seconds:
        time.sleep(fault.delay_seconds)
    if fault.drop:
        connection = environ.get("cloud.socket") or _socket(
            environ["wsgi.input"]
        )
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
        start_response("500 Dropped", [("Content-Length", "0")])
        return [b""]
    if fault.status is None:
        return None
    text = fault.body
    if text is None:
        text = json.dumps(
            {
                "errors": [
                    {
                        "status": fault.status,
                        "title": "Injected",
                        "detail": "a fault injected into the embedded cloud",
                    }
                ]
            }
        )
    headers = {"Content-Type": "application/json"} | fault.headers
    body = text.encode()
    headers["Content-Length"] = str(len(body))
    start_response("%d Injected" % fault.status, list(headers.items()))
    return [body]


class ControlApplication:
    """The WSGI application that calls the operations of a process."""

    def __init__(
        self, operations: dict[str, typing.Callable[..., typing.Any]]
    ) -> None:
        self._operations = operations

    def __call__(
        self, environ: Environ, start_response: StartResponse
    ) -> list[bytes]:
        name = environ.get("PATH_INFO", "").strip("/")
        try:
            arguments = json.loads(_read_body(environ) or b"{}")
            if name not in self._operations:
                raise LookupError(
                    "no operation %r, there are: %s"
                    % (name, ", ".join(sorted(self._operations)))
                )
            answer = {"result": self._operations[name](**arguments)}
            status = "200 OK"
        except Exception as error:
            answer = {
                "error": "%s: %s" % (type(error).__name__, error),
                "traceback": traceback.format_exc(),
            }
            status = "500 Failed"
        body = json.dumps(answer, default=str).encode()
        start_response(
            status,
            [
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(body))),
            ],
        )
        return [body]


class ControlError(RuntimeError):
    """An operation of a service process failed, or it does not answer."""


class ControlClient:
    """Calls operations of a service process."""

    def __init__(self, port: int) -> None:
        self._url = "http://127.0.0.1:%d/" % port
        # A proxy of the environment must not see loopback traffic.
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({})
        )

    def call(
        self,
        operation: str,
        timeout_seconds: float = 120,
        **arguments: typing.Any,
    ) -> typing.Any:
        request = urllib.request.Request(
            self._url + operation,
            json.dumps(arguments).encode(),
            {"Content-Type": "application/json"},
        )
        try:
            with self._opener.open(
                request, timeout=timeout_seconds
            ) as response:
                return json.load(response)["result"]
        except urllib.error.HTTPError as error:
            answer = json.load(error)
            raise ControlError(
                "%s failed: %s\n%s"
                % (operation, answer["error"], answer["traceback"])
            ) from None
        except OSError as error:
            raise ControlError(
                "%s: the process does not answer: %s" % (operation, error)
            ) from error
