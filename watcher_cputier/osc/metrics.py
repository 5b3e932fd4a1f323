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


"""``openstack tier metrics``: what Prometheus is told of tiers.

The textfile collector of Prometheus' node exporter serves what the command
writes; there is no daemon. A run that fails writes that it failed, and fails.
"""

import argparse
from collections.abc import Iterator
import dataclasses
import datetime
import math
import os
import pathlib
import tempfile
import time
from typing import Any

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import connection as sdk
from openstack import exceptions as sdk_exceptions
from prometheus_client import exposition
from prometheus_client import registry
from prometheus_client.openmetrics import exposition as openmetrics

from watcher_cputier import errors
from watcher_cputier import lending
from watcher_cputier import metrics
from watcher_cputier import parameters
from watcher_cputier.datasources import audits
from watcher_cputier.datasources import service
from watcher_cputier.osc import base
from watcher_cputier.osc import client
from watcher_cputier.osc import flavors
from watcher_cputier.osc import picture
from watcher_cputier.strategies import usage

STRATEGIES = (
    "domain_capacity_enforcement",
    "domain_capacity_enforcement_balancing",
)
_POLICIES = {"v1/detail": "audit:detail or action_plan:detail"}
_PAGE = 1000
# Everybody may read it: node exporter has a user of its own.
_MODE = 0o644
SUFFIX = ".prom"


class Metrics(base.Judging):
    """Write the state of tiers as metrics for Prometheus.

    Quotas, units over quota, headroom, starved instances, what still fits,
    and the last audits. With --textfile it writes a file for the textfile
    collector of node exporter and counts for how long hosts were in breach;
    without it prints the metrics of this moment. What is not known has no
    series. If the cloud cannot be seen, it writes that, and its exit status
    is 1.
    """

    # A Keystone that does not answer is a collection that fails, too.
    auth_required = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--textfile",
            metavar="<file>",
            type=_textfile,
            help="write to this file, replacing it in one step; its name "
            f"ends in {SUFFIX}. The time in breach that the last run wrote "
            "there is counted on",
        )
        parser.add_argument(
            "--max-gap",
            metavar="<seconds>",
            type=_seconds,
            default=metrics.MAX_GAP_SECONDS,
            help="time between two runs from which on nobody knows what "
            "happened in between; it is counted as unobserved, not as a "
            "breach (default: %(default)s)",
        )
        parser.add_argument(
            "--no-fits",
            action="store_true",
            help="leave out what still fits, which takes the details of "
            "every host",
        )
        parser.add_argument(
            "--openmetrics",
            action="store_true",
            help="print the OpenMetrics format; a textfile is always in "
            "Prometheus' own, which is all that node exporter reads",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Look, count and write."""
        past = self._past(parsed_args.textfile)
        began = time.time()
        look = _Look(self, parsed_args)
        try:
            look.take()
        finally:
            seen = metrics.Collection(
                taken_at=round(began, 3),
                seconds=time.time() - began,
                sight=look.sight,
                telemetry=look.telemetry,
                watcher=look.watcher,
                audits=look.audits,
            )
            self._write(parsed_args, seen, past)
        for failure in look.failures[1:]:
            self.tell(str(failure))
        if look.failures:
            raise look.failures[0]

    def _past(self, file: pathlib.Path | None) -> metrics.Past | None:
        """What the last run wrote; None if there was none."""
        if file is None:
            return None
        try:
            return metrics.read(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise _unusable(file, exc) from exc
        except (UnicodeDecodeError, metrics.MetricsError):
            # Alerts are worth more than the sum of earlier breaches.
            self.tell(
                f"{file}: this is not what an earlier run wrote. It is "
                "replaced, and the time in breach counted anew"
            )
            return None

    def _write(
        self,
        parsed_args: argparse.Namespace,
        seen: metrics.Collection,
        past: metrics.Past | None,
    ) -> None:
        file: pathlib.Path | None = parsed_args.textfile
        counts = None
        if file is not None:
            counts = metrics.count(past, seen, parsed_args.max_gap)
        found = registry.CollectorRegistry(auto_describe=False)
        found.register(_Once(metrics.families(seen, counts)))
        if file is not None:
            _replace(file, exposition.generate_latest(found))
        elif parsed_args.openmetrics:
            self._print(_openmetrics(found))
        else:
            self._print(exposition.generate_latest(found))

    def _print(self, text: bytes) -> None:
        self.app.stdout.write(text.decode())

    @property
    def _client(self) -> client.Client:
        """Made here, where a failure can be told."""
        if self._made is None:
            self._made = client.Client(self._connect())
        return self._made

    _made: client.Client | None = None

    def _connect(self) -> sdk.Connection:
        """The connection that the global options describe.

        :raises ServiceError: if they do not, or Keystone refuses them
        """
        try:
            region = self.app.cloud_config.get_one(
                cloud=self.app.options.cloud, argparse=self.app.options
            )
            connected = sdk.Connection(config=region)
            # Once, and not as the failure of every service.
            connected.authorize()
            return connected
        except (
            ksa_exceptions.ClientException,
            sdk_exceptions.SDKException,
        ) as exc:
            raise errors.ServiceError(
                " ".join(str(exc).split()).rstrip("."),
                where="Keystone",
                cure="Check clouds.yaml, the name of the cloud and the OS_ "
                "variables, and that Keystone runs",
            ) from exc


class _Look:
    """What is seen of each source, and what went wrong."""

    def __init__(
        self,
        command: Metrics,
        parsed_args: argparse.Namespace,
    ) -> None:
        self._command = command
        self._args = parsed_args
        self.failures: list[errors.TierError] = []
        self.sight: metrics.Sight | None = None
        self.telemetry: bool | None = None
        self.watcher: bool | None = None
        self.audits: tuple[metrics.Audit, ...] = ()

    def take(self) -> None:
        """Look at everything; one failure does not hide the others."""
        try:
            connected = self._command.connection
        except errors.TierError as exc:
            self.watcher = False
            self.failures.append(exc)
            return
        try:
            params = self._command.parameters(self._args)
            self.sight = self._sight(params)
        except errors.TierError as exc:
            self.failures.append(exc)
        else:
            if params.relieve_starvation:
                self.telemetry = self.sight.starved is not None
        try:
            watcher = _Watcher(connected)
            if watcher.there:
                self.audits = watcher.get_audits()
                self.watcher = True
        except errors.TierError as exc:
            self.watcher = False
            self.failures.append(exc)

    def _sight(self, params: parameters.Parameters) -> metrics.Sight:
        command = self._command
        conf = command.configuration(self._args)
        whole = not self._args.no_fits
        seen = picture.get_picture(
            command.connection,
            command.reader,
            conf,
            params,
            whole=whole,
        )
        for finding in seen.cluster.findings:
            if finding.kind == usage.ABSTAINED:
                command.tell(finding.text)
        sold = None
        if whole:
            sold = tuple(
                one.flavor for one in flavors.get_flavors(command.reader)
            )
        return metrics.Sight(
            cluster=seen.cluster,
            diagnosis=lending.lend(seen.cluster, seen.diagnosis, params),
            starved=seen.starved,
            flavors=sold,
        )


class _Watcher:
    """Watcher's records of this package's audits."""

    def __init__(self, connected: sdk.Connection) -> None:
        self._adapter = audits.adapter(connected)
        self._service = service.Service(
            self._adapter, "Watcher", None, _POLICIES
        )

    @property
    def there(self) -> bool:
        """Whether the catalogue has one.

        :raises ServiceError: if Keystone does not tell
        """
        try:
            return self._adapter.get_endpoint() is not None
        except ksa_exceptions.EndpointNotFound:
            return False
        except ksa_exceptions.ClientException as exc:
            raise self._service.unreachable("catalogue", exc) from exc

    def get_audits(self) -> tuple[metrics.Audit, ...]:
        """Those that may run again or failed, and the last one-shot, by name.

        Of those that share a name the newest counts.

        :raises ServiceError: if it cannot be asked
        """
        records = [
            record
            for strategy in STRATEGIES
            for record in self._records(strategy)
        ]
        records.sort(key=lambda one: _time(one["created_at"]) or 0)
        oneshot: dict[str, metrics.Audit] = {}
        found: dict[str, metrics.Audit] = {}
        for record in records:
            audit = metrics.Audit(
                name=record["name"] or record["uuid"],
                type=record["audit_type"],
                state=record["state"],
                next_run=_time(record.get("next_run_time")),
            )
            if not audit.told:
                continue
            if audit.type == metrics.ONESHOT:
                oneshot = {record["uuid"]: audit}
            else:
                found[record["uuid"]] = audit
        by_name = {
            audit.name: (uuid, audit)
            for uuid, audit in (*found.items(), *oneshot.items())
        }
        return tuple(
            self._with_plan(uuid, audit)
            for _, (uuid, audit) in sorted(by_name.items())
        )

    def _records(self, strategy: str) -> Iterator[service.Answer]:
        query: dict[str, Any] = {"strategy": strategy, "limit": _PAGE}
        while True:
            document = self._service.get("/v1/audits/detail", query)
            page = document.items_of("audits")
            yield from page
            if not page or not document.get("next"):
                return
            query["marker"] = page[-1]["uuid"]

    def _with_plan(self, uuid: str, audit: metrics.Audit) -> metrics.Audit:
        """The audit with what became of its last run."""
        plans = self._service.items(
            "/v1/action_plans/detail",
            "action_plans",
            {"audit_uuid": uuid, "sort_dir": "desc", "limit": 1},
        )
        if not plans:
            return audit
        return dataclasses.replace(
            audit,
            last=_time(plans[0]["created_at"]),
            plan_state=plans[0]["state"],
        )


class _Once(registry.Collector):
    """Metrics that are there already."""

    def __init__(self, found: Iterator[Any]) -> None:
        self._found = list(found)

    def collect(self) -> Iterator[Any]:
        """The metrics."""
        return iter(self._found)


def _openmetrics(found: registry.CollectorRegistry) -> bytes:
    text: bytes = openmetrics.generate_latest(found)  # type: ignore[no-untyped-call]
    return text


def _time(text: str | None) -> float | None:
    """Seconds since the epoch; what names no zone is UTC."""
    if not text:
        return None
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    return moment.timestamp()


def _textfile(text: str) -> pathlib.Path:
    if not text.endswith(SUFFIX):
        raise argparse.ArgumentTypeError(
            f"{text!r} does not end in {SUFFIX}, and node exporter would "
            "not read it"
        )
    return pathlib.Path(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no positive number of seconds"
        )
    return seconds


def _replace(file: pathlib.Path, text: bytes) -> None:
    """Put a file in its place in one step, so that nobody reads half of it.

    :raises MetricsError: if it cannot be written
    """
    temporary = None
    try:
        # Beside it, for a rename stays on one file system; node exporter
        # leaves what has another suffix alone.
        handle, temporary = tempfile.mkstemp(
            prefix=f".{file.name}.", dir=file.parent
        )
        with os.fdopen(handle, "wb") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), _MODE)
        pathlib.Path(temporary).replace(file)
    except OSError as exc:
        if temporary is not None:
            pathlib.Path(temporary).unlink(missing_ok=True)
        raise _unusable(file, exc) from exc


def _unusable(file: pathlib.Path, exc: OSError) -> metrics.MetricsError:
    return metrics.MetricsError(
        exc.strerror or str(exc),
        where=str(file),
        cure="Let the user who runs the command write to its directory",
    )
