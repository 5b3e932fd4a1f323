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

A :class:`Service` wraps the adapter that openstacksdk has for a service. It
only ever sends GET (R95). Refusals that may pass (429, 502, 503, 504, lost
connections) are tried again by keystoneauth, a bounded number of times and
with its back-off; what remains becomes a
:class:`~watcher_cputier.errors.ServiceError` that names the service, the
request and what mends it.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
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
RETRIABLE_STATUS = [429, 502, 503, 504]
TIMEOUT_SECONDS = 60


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
    ) -> dict[str, Any]:
        """The JSON document at a path.

        :param before: ask with an older microversion than this one
        :raises ServiceError: if it cannot be had
        :raises NotFound: on 404
        """
        microversion = self._older_than(before)
        started = time.monotonic()
        try:
            response = self._adapter.get(
                path,
                params=dict(params or {}),
                microversion=microversion,
                raise_exc=False,
                connect_retries=RETRIES,
                status_code_retries=RETRIES,
                retriable_status_codes=RETRIABLE_STATUS,
                timeout=self._patience(path, started),
            )
        except (
            ksa_exceptions.ClientException,
            sdk_exceptions.SDKException,
        ) as exc:
            raise self.unreachable(f"GET {path}", exc) from exc
        self._count(response, time.monotonic() - started)
        if response.status_code != 200:
            raise self._refused(path, response)
        try:
            document = response.json()
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise self._error(
                f"GET {path}",
                "the answer is no JSON document"
                if document is None
                else "the answer is not of the service's form",
                "Check what listens at the service's endpoint",
            )
        return document

    def _older_than(self, before: str | None) -> str | None:
        """The microversion to ask with, below a limit if there is one."""
        if before is None or self.microversion is None:
            return self.microversion
        major, minor = discover.normalize_version_number(before)[:2]
        if self.version < (major, minor):
            return self.microversion
        return f"{major}.{minor - 1}"

    def _patience(self, path: str, now: float) -> float:
        """Seconds that a request may take within the time budget."""
        if self.deadline is None:
            return TIMEOUT_SECONDS
        left = self.deadline - now
        if left <= 0:
            raise OutOfTime(
                "the time budget for reading the cloud is used up "
                f"({self.name} so far: {self.tally})",
                where=f"{self.name} GET {path}",
                cure="Raise [cputier] read_timeout_seconds, or find out what "
                "is slow",
            )
        # Each try may take as long, and a lost one is tried again.
        return min(TIMEOUT_SECONDS, max(1.0, left / (RETRIES + 1)))

    def _count(self, response: requests.Response, seconds: float) -> None:
        with self._lock:
            self.tally = Tally(
                requests=self.tally.requests + 1,
                seconds=self.tally.seconds + seconds,
                received_bytes=(
                    self.tally.received_bytes + len(response.content)
                ),
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
    ) -> Iterator[dict[str, Any]]:
        """All items of a list that the service answers in pages.

        The link to the next page is followed by its marker, for the host
        part of such links is often wrong behind a proxy.
        """
        query = dict(params or {})
        while True:
            document = self.get(path, query, before=before)
            items = document.get(key, [])
            yield from items
            more = any(
                link.get("rel") == "next"
                for link in document.get(f"{key}_links", [])
            )
            if not more or not items:
                return
            last = items[-1]
            query["marker"] = last.get("uuid") or last["id"]

    def _refused(
        self, path: str, response: requests.Response
    ) -> errors.ServiceError:
        status = response.status_code
        request = f"GET {path}"
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
        return self._policies.get(kind, path)

    def unreachable(self, request: str, exc: Exception) -> errors.ServiceError:
        """What a client library raised, in an operator's words."""
        if isinstance(exc, ksa_exceptions.EndpointNotFound):
            what = "the service catalogue has no endpoint"
            cure = "Register the service, or check region and interface"
        elif isinstance(exc, ksa_exceptions.Unauthorized):
            what = "the credentials are refused (401)"
            cure = "Check [watcher_clients_auth] in Watcher's configuration"
        elif isinstance(exc, ksa_exceptions.ConnectTimeout):
            what = f"no answer within {TIMEOUT_SECONDS} s"
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


def _first_line(exc: Exception) -> str:
    return str(exc).strip().splitlines()[0] if str(exc).strip() else repr(exc)


def _message(response: requests.Response) -> str:
    """The service's own words about a refusal, in one line."""
    try:
        document = response.json()
    except ValueError:
        return response.reason or "no reason given"
    # Nova: {"forbidden": {"message": ...}}; Placement: {"errors": [{"detail":
    # ...}]}; whatever stands in front of them may say anything.
    if isinstance(document, dict):
        document = document.get("errors") or list(document.values())
    if isinstance(document, list) and document:
        document = document[0]
    if isinstance(document, dict):
        document = (
            document.get("detail") or document.get("message") or document
        )
    return " ".join(str(document or response.reason).split())[:200]
