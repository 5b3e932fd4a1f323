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

"""Reading from an OpenStack API: retries, and errors that name their cure.

A :class:`Service` wraps a keystoneauth adapter. It only ever sends GET (R95);
who has to send a query by POST uses :meth:`Service.persist`.
Refusals that may pass (409, 429, 500, 502, 503, 504, lost connections) are
tried again a bounded number of times, after pauses that double as
keystoneauth's own do. keystoneauth does not do it by itself here: it would
sleep for as long as a ``Retry-After`` says and give each try the same time,
whereas here all tries and pauses together end with the time budget. What
remains becomes a :class:`~watcher_cputier.errors.ServiceError` that names the
service, the request and what mends it.

An answer knows what it is the answer to: whoever looks for a field that it
lacks raises that error too (:class:`Answer`).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import dataclasses
import email.utils
import functools
import threading
import time
from typing import Any

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import discover
from keystoneauth1 import exceptions as ksa_exceptions
from openstack import exceptions as sdk_exceptions
import requests

from watcher_cputier import errors

RETRIES = 3
RETRIABLE_STATUS = frozenset({409, 429, 500, 502, 503, 504})
TIMEOUT_SECONDS = 60
# Before the first retry; each further pause is twice as long.
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 60


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What was asked of one service, and what it took.

    :param seconds: from request to answer, summed over parallel requests
    :param received_bytes: size of the decoded answers
    """

    requests: int = 0
    seconds: float = 0.0
    received_bytes: int = 0

    def __str__(self) -> str:
        return (
            f"{self.requests} requests, {self.seconds:.2f} s, "
            f"{self.received_bytes / 1e6:.2f} MB"
        )


# Failures that may be over at the next try. An answer that breaks off in its
# middle, as that of a service that restarts, is one that has no name.
_PASSING = (
    ksa_exceptions.RetriableConnectionFailure,
    ksa_exceptions.UnknownConnectionError,
)


class Answer(dict[str, Any]):
    """An object of a service's answer; a field that it lacks is an error.

    :param where: the service and the request
    """

    __slots__ = ("where",)

    def __init__(self, where: str, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.where = where

    def __missing__(self, name: str) -> Any:
        there = ", ".join(sorted(self)[:8])
        raise unexpected(
            self.where,
            f"the answer has no {name!r}"
            + (f" among {there}" if there else ", it is empty"),
        )

    def items_of(self, name: str) -> list["Answer"]:
        """The list of objects in a field.

        :raises ServiceError: if there is none, or something else is in it
        """
        found = self[name]
        if not isinstance(found, list) or not all(
            isinstance(item, Answer) for item in found
        ):
            raise unexpected(
                self.where,
                f"the answer's {name!r} is no list of objects",
            )
        return found


def unexpected(where: str, what: str) -> errors.ServiceError:
    """The error about an answer that is not of the service's form."""
    return errors.ServiceError(
        what, where=where, cure="Check what listens at the service's endpoint"
    )


class Service:
    """One API, asked with GET alone.

    :param adapter: openstacksdk's proxy for the service
    :param name: as operators know it (Nova, Placement)
    :param microversion: the newest version that the reader understands;
        the server's newest is used where that is older. None for a service
        without microversions
    :param policies: {path without ids: name of the policy that allows it}
    """

    def __init__(
        self,
        adapter: ksa_adapter.Adapter,
        name: str,
        microversion: str | None,
        policies: Mapping[str, str],
    ) -> None:
        self.name = name
        self._adapter = adapter
        self._wanted = microversion
        self._policies = policies
        self._negotiated: str | None = None
        self._lock = threading.Lock()
        self.tally = Tally()
        #: time.monotonic() after which nothing more is asked; None for ever
        self.deadline: float | None = None
        #: how long one request may take
        self.timeout_seconds: float = TIMEOUT_SECONDS

    @property
    def microversion(self) -> str | None:
        """The version that requests are made with.

        :raises ServiceError: if the service cannot be reached
        """
        if self._negotiated is None and self._wanted is not None:
            self._negotiated = self._negotiate(self._wanted)
        return self._negotiated

    @property
    def version(self) -> tuple[int, ...]:
        """The same as numbers, to be compared; empty without versions."""
        text = self.microversion or ""
        return tuple(int(part) for part in text.split(".") if part)

    def _negotiate(self, newest_known: str) -> str:
        try:
            data = self._adapter.get_endpoint_data()
        except (
            ksa_exceptions.ClientException,
            sdk_exceptions.SDKException,
        ) as exc:
            raise self.unreachable("version discovery", exc) from exc
        if data is None:
            raise self._error(
                "version discovery",
                "the service catalogue has no endpoint",
                "Register the service, or check region and interface in "
                "Watcher's configuration",
            )
        newest = data.max_microversion
        if newest is None:
            # An endpoint that does not tell its versions is taken at its
            # word: a request with a version it lacks is answered with 406.
            return newest_known
        wanted = discover.normalize_version_number(newest_known)
        return ".".join(str(part) for part in min(wanted, tuple(newest)))

    def get(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        *,
        before: str | None = None,
    ) -> Answer:
        """The JSON document at a path.

        :param before: ask with an older microversion than this one
        :raises ServiceError: if it cannot be had
        :raises NotFound: on 404
        """
        response = self._answered(path, params, before)
        where = f"{self.name} GET {path}"
        try:
            document = response.json(
                object_hook=functools.partial(Answer, where)
            )
        except ValueError:
            raise unexpected(where, "the answer is no JSON document") from None
        if not isinstance(document, Answer):
            raise unexpected(where, "the answer is not of the service's form")
        return document

    def get_modified(self, path: str) -> int | None:
        """When what is at a path was changed, in seconds since the epoch.

        :returns: None where the service does not tell
        :raises ServiceError: if it cannot be asked
        """
        response = self._answered(path)
        told = response.headers.get("Last-Modified", "")
        try:
            return int(email.utils.parsedate_to_datetime(told).timestamp())
        except ValueError:
            return None

    def items(
        self,
        path: str,
        key: str,
        params: Mapping[str, Any] | None = None,
    ) -> list[Answer]:
        """The list of objects that a path's document has under a key.

        :raises ServiceError: as :meth:`get`, or if there is none
        """
        return self.get(path, params).items_of(key)

    def _answered(
        self,
        path: str,
        params: Mapping[str, Any] | None = None,
        before: str | None = None,
    ) -> requests.Response:
        """The answer, where it is 200.

        :raises ServiceError: else
        """
        response = self._ask(path, params, self._older_than(before))
        if response.status_code != 200:
            raise self.refused(f"GET {path}", response)
        return response

    def _ask(
        self,
        path: str,
        params: Mapping[str, Any] | None,
        microversion: str | None,
    ) -> requests.Response:
        """The answer of the last try, whatever it is.

        :raises ServiceError: if the last try brought none
        """
        return self.persist(
            f"GET {path}",
            lambda timeout: self._adapter.get(
                path,
                params=dict(params or {}),
                microversion=microversion,
                raise_exc=False,
                connect_retries=0,
                status_code_retries=0,
                timeout=timeout,
            ),
        )

    def persist(
        self, request: str, send: Callable[[float], requests.Response]
    ) -> requests.Response:
        """Send something that only reads until it is answered.

        :param request: method and path
        :param send: sends it once and waits for so many seconds
        :returns: the answer of the last try, whatever it is
        :raises ServiceError: if the last try brought none
        """
        for retry in range(RETRIES + 1):
            response, failure = None, None
            started = time.monotonic()
            timeout = self._patience(request, started)
            try:
                response = send(timeout)
            except (
                ksa_exceptions.ClientException,
                sdk_exceptions.SDKException,
            ) as exc:
                failure = exc
            self._count(response, time.monotonic() - started)
            pause = _pause(retry, response, failure)
            if pause is None:
                break
            if not self.wait(pause):
                if isinstance(failure, ksa_exceptions.ConnectTimeout):
                    raise self._out_of_time(request) from failure
                break
        if response is None:
            assert failure is not None
            raise self.unreachable(request, failure, timeout) from failure
        return response

    def wait(self, seconds: float) -> bool:
        """Wait, where the time budget leaves time for what comes after."""
        ends = time.monotonic() + seconds
        if self.deadline is not None and ends >= self.deadline:
            return False
        time.sleep(seconds)
        return True

    def _older_than(self, before: str | None) -> str | None:
        """The microversion to ask with, below a limit if there is one."""
        if before is None or self.microversion is None:
            return self.microversion
        major, minor = discover.normalize_version_number(before)[:2]
        if self.version < (major, minor):
            return self.microversion
        return f"{major}.{minor - 1}"

    def _patience(self, request: str, now: float) -> float:
        """Seconds that a try may take within the time budget.

        Half of what is left, so that there may be another one.

        :raises OutOfTime: if nothing is left
        """
        if self.deadline is None:
            return self.timeout_seconds
        left = self.deadline - now
        if left <= 0:
            raise self._out_of_time(request)
        return min(self.timeout_seconds, left, max(1.0, left / 2))

    def _out_of_time(self, request: str) -> "OutOfTime":
        return OutOfTime(
            "the time budget for reading the cloud is used up "
            f"({self.name} so far: {self.tally})",
            where=f"{self.name} {request}",
            cure="Raise [cputier] read_timeout_seconds, or find out what "
            "is slow",
        )

    def _count(
        self, response: requests.Response | None, seconds: float
    ) -> None:
        with self._lock:
            self.tally = Tally(
                requests=self.tally.requests + 1,
                seconds=self.tally.seconds + seconds,
                received_bytes=self.tally.received_bytes
                + (0 if response is None else len(response.content)),
            )

    def try_all(
        self, wanted: Iterable[tuple[str, Mapping[str, Any]]]
    ) -> list[errors.ServiceError]:
        """Send each of these requests; what could not be had.

        Missing permissions are named one and all; after any other failure
        the service is not asked again. An object that is gone meanwhile is
        no failure.
        """
        found: list[errors.ServiceError] = []
        for path, params in wanted:
            try:
                self.get(path, params)
            except NotFound:
                continue
            except Forbidden as exc:
                found.append(exc)
            except errors.ServiceError as exc:
                return [*found, exc]
        return found

    def pages(
        self,
        path: str,
        key: str,
        params: Mapping[str, Any] | None = None,
        *,
        before: str | None = None,
    ) -> Iterator[Answer]:
        """All items of a list that the service answers in pages.

        The link to the next page is followed by its marker, for the host
        part of such links is often wrong behind a proxy.

        :raises ServiceError: as :meth:`get`, if there is no such list, or if
            a page is answered twice
        """
        query = dict(params or {})
        while True:
            document = self.get(path, query, before=before)
            items = document.items_of(key)
            yield from items
            more = any(
                link.get("rel") == "next"
                for link in document.get(f"{key}_links", [])
            )
            if not more or not items:
                return
            last = items[-1]
            marker = last.get("uuid") or last["id"]
            if marker == query.get("marker"):
                raise unexpected(
                    document.where,
                    f"the page after {marker} is answered again and again",
                )
            query["marker"] = marker

    def refused(
        self, request: str, response: requests.Response
    ) -> errors.ServiceError:
        """What an answer other than 200 means, in an operator's words."""
        status = response.status_code
        path = request.partition(" ")[2]
        if status == 404:
            return NotFound("not found", where=f"{self.name} {request}")
        if status == 400:
            return BadRequest(
                f"HTTP 400: {_message(response)}",
                where=f"{self.name} {request}",
                cure="See the service's own log",
            )
        if status == 401:
            return self._error(
                request,
                "the credentials are refused (401)",
                "Check [watcher_clients_auth] in Watcher's configuration",
            )
        if status == 403:
            policy = self._policy(path)
            return Forbidden(
                f"Watcher's user lacks the permission {policy} (403)",
                where=f"{self.name} {request}",
                cure="Grant it a role that the policy admits; the admin role "
                "does by default",
            )
        return self._error(
            request,
            f"HTTP {status}: {_message(response)}",
            "See the service's own log",
        )

    def _policy(self, path: str) -> str:
        parts = path.strip("/").removeprefix("v2.0/").split("/")
        kind = parts[0] if len(parts) < 3 else f"{parts[0]}/*/{parts[-1]}"
        if "detail" in parts:
            kind = f"{parts[0]}/detail"
        elif len(parts) == 2:
            kind = next(
                (k for k in (f"{kind}/*", kind) if k in self._policies), kind
            )
        return self._policies.get(kind, path)

    def unreachable(
        self, request: str, exc: Exception, timeout: float = TIMEOUT_SECONDS
    ) -> errors.ServiceError:
        """What a client library raised, in an operator's words.

        :param timeout: seconds that were waited for an answer
        """
        if isinstance(exc, ksa_exceptions.EndpointNotFound):
            what = "the service catalogue has no endpoint"
            cure = "Register the service, or check region and interface"
        elif isinstance(exc, ksa_exceptions.Unauthorized):
            what = "the credentials are refused (401)"
            cure = "Check [watcher_clients_auth] in Watcher's configuration"
        elif isinstance(exc, ksa_exceptions.ConnectTimeout):
            what = f"no answer within {timeout:.3g} s"
            cure = "Check the service and the network"
        else:
            what = f"unreachable: {_first_line(exc)}"
            cure = "Check that the service runs and its endpoint is right"
        return self._error(request, what, cure)

    def _error(
        self, request: str, what: str, cure: str
    ) -> errors.ServiceError:
        return errors.ServiceError(
            what, where=f"{self.name} {request}", cure=cure
        )


class Forbidden(errors.ServiceError):
    """The service answers, and Watcher's user may not ask for this."""


class OutOfTime(errors.ServiceError):
    """The time budget is used up: nothing more is asked of anybody."""


class BadRequest(errors.ServiceError):
    """The service cannot make sense of the request."""


class NotFound(errors.ServiceError):
    """The service answers, and does not have the object."""


def _pause(
    retry: int,
    response: requests.Response | None,
    failure: Exception | None,
) -> float | None:
    """Seconds to wait before the next try; None if there is none."""
    if retry == RETRIES:
        return None
    wanted: float = PAUSE_SECONDS * 2**retry
    if response is None:
        return wanted if isinstance(failure, _PASSING) else None
    if response.status_code not in RETRIABLE_STATUS:
        return None
    told = response.headers.get("Retry-After", "")
    if told.isdecimal():
        wanted = max(wanted, int(told))
    return min(wanted, LONGEST_PAUSE_SECONDS)


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else repr(exc)


def _message(response: requests.Response) -> str:
    """The service's own words about a refusal, in one line."""
    try:
        document = response.json()
    except ValueError:
        return response.reason or "no reason given"
    # Nova: {"forbidden": {"message": ...}}; Placement: {"errors": [{"detail":
    # ...}]}; Gnocchi: {"description": ...}; whatever stands in front of them
    # may say anything.
    if isinstance(document, dict):
        document = (
            document.get("errors")
            or document.get("description")
            or list(document.values())
        )
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, dict):
        document = (
            document.get("detail") or document.get("message") or document
        )
    return " ".join(str(document or response.reason).split())[:200]
