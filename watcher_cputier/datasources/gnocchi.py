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


"""Gnocchi: the metrics of hundreds of instances with one request.

Gnocchi's *dynamic aggregates* answer for all resources of a search at once:
one request for ``chunk_size`` instances instead of one for each. What that
takes care of:

* One metric whose archive policy lacks the aggregation (404) or the
  granularity (400) fails the request for all. The chunk is then halved until
  the bad ones are alone; where that finds nothing but bad ones it stops.
* An instance without the metric is left out of the answer; if that is all of
  them, the answer is 404.
* To a user who may not read other projects' metrics all of them look missing.
  Where nothing is found, Gnocchi is asked who one is to it.
* ``rate:mean`` is the mean difference between consecutive samples, not per
  second and not per granule: it is divided by the polling interval. That is
  configured, and compared with what the counters themselves say: between two
  granules they grow by the rate times the number of polls.
* Where an archive policy has finer granules only than an audit's windows,
  windows are made of granules.
* ``needed_overlap`` and ``fill`` stay unset, for a filled gap is an invented
  number; ratios of metrics are left to the reader, for Gnocchi fails where
  one instance lacks one of them.

Requests go through gnocchiclient's own session client, with the patience, the
tries and the time budget of all our readers.
"""

from collections.abc import Iterable, Mapping, Sequence
import concurrent.futures
import dataclasses
import datetime
import fnmatch
import functools
import itertools
import json
import statistics
import threading
from typing import Any
import uuid

from gnocchiclient import client as gnocchi_client
from gnocchiclient import exceptions as gnocchi_exceptions
from keystoneauth1 import exceptions as ksa_exceptions
from openstack import connection as sdk
from oslo_config import cfg
import requests

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.conf import telemetry as telemetry_conf
from watcher_cputier.datasources import service as service_module
from watcher_cputier.datasources import telemetry

NAME = "gnocchi"
# Watcher's own section on where Gnocchi is.
CLIENT_GROUP = "gnocchi_client"

_AGGREGATES = "v1/aggregates"
_STATUS = "v1/status"
_POLICIES = {
    "v1/aggregates": "search resource",
    "v1/status": "get status",
    "v1/metric": "list metric",
    "v1/resource": "list resource",
}
_NO_METRIC = "it has no such metric"
# Bad instances in a row, without a good one, after which the rest of them is
# not looked for one by one.
_ENOUGH = 16
# Instances whose counters are looked at for the polling interval, the pairs
# of granules that it takes, and how far off it may be.
_SAMPLE = 20
_PAIRS = 3
_FAR_OFF = 1.5


def create(
    conf: cfg.ConfigOpts, connected: sdk.Connection, deadline: float | None
) -> "Source":
    """The entry point's factory.

    :raises NotDeployed: if the service catalogue has no Gnocchi
    :raises ConfigurationError: if an option is unusable
    """
    options = telemetry_conf.read(conf)
    made = gnocchi_client.Client(
        _option(conf, "api_version", "1"),
        session=connected.session,
        adapter_options={
            "interface": str(
                _option(conf, "endpoint_type", "public")
            ).removesuffix("URL"),
            "region_name": _option(
                conf, "region_name", connected.config.get_region_name("metric")
            ),
        },
    )
    asked = service_module.Service(made.api, "Gnocchi", None, _POLICIES)
    asked.deadline = deadline
    asked.timeout_seconds = options.timeout_seconds
    try:
        endpoint = made.api.get_endpoint()
    except ksa_exceptions.EndpointNotFound:
        endpoint = None
    except ksa_exceptions.ClientException as exc:
        raise asked.unreachable("service catalogue", exc) from exc
    if not endpoint:
        raise telemetry.NotDeployed(
            "the service catalogue has no endpoint of type metric",
            where="Gnocchi",
            cure=f"Register Gnocchi, or check [{CLIENT_GROUP}] region_name "
            "and endpoint_type",
        )
    return Source(made.api, asked, options)


def _option(conf: cfg.ConfigOpts, name: str, default: Any) -> Any:
    """What Watcher's configuration says of its client; else a default."""
    if CLIENT_GROUP not in conf or name not in conf[CLIENT_GROUP]:
        return default
    return conf[CLIENT_GROUP][name] or default


@dataclasses.dataclass(frozen=True, slots=True)
class _Chunk:
    """What is known of some instances.

    :param points: {instance uuid: {metric: {begin: value}}}
    :param bad: {instance uuid: why Gnocchi cannot answer for it}
    """

    points: Mapping[str, Mapping[str, Mapping[int, float]]]
    bad: Mapping[str, str]


class _Bad:
    """Counts bad instances until it is clear that there are no good ones.

    Threads share it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alone = 0
        self._any_good = False

    def good(self) -> None:
        with self._lock:
            self._any_good = True

    def alone(self) -> None:
        with self._lock:
            self._alone += 1

    @property
    def hopeless(self) -> bool:
        return self._alone >= _ENOUGH and not self._any_good


class Source:
    """A Gnocchi, as the reader of telemetry asks it.

    :param api: gnocchiclient's session client
    :param service: with its tally and its deadline
    :param options: ``[cputier_telemetry]``
    """

    name = NAME

    def __init__(
        self,
        api: gnocchi_client.SessionClient,
        service: service_module.Service,
        options: cfg.ConfigOpts.GroupAttr,
    ) -> None:
        self.service = service
        self._api = api
        self._options = options

    def metrics(self) -> tuple[telemetry.Metric, telemetry.Metric]:
        """The CPU and the steal metric, as the options name them."""
        cpu, steal = (
            telemetry.Metric(
                role=role,
                name=self._options[f"{role}_metric"],
                unit=self._options[f"{role}_unit"],
                aggregation=self._options.aggregation,
            )
            for role in (telemetry.CPU, telemetry.STEAL)
        )
        return cpu, steal

    def offers(self, metric: telemetry.Metric) -> bool:
        """Whether any metric of that name is to be seen.

        :raises ServiceError: if Gnocchi cannot be asked
        """
        if "*" not in metric.name:
            return bool(
                self._get("v1/metric", {"name": metric.name, "limit": 1})
            )
        seen = self._get(
            f"v1/resource/{self._options.resource_type}", {"limit": _SAMPLE}
        )
        return any(
            fnmatch.fnmatch(name, metric.name)
            for resource in seen
            for name in resource.get("metrics", ())
        )

    def get(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> telemetry.Answer:
        """The values of a metric, for all instances of the question.

        :raises ServiceError: if Gnocchi cannot be asked, or shows Watcher's
            user nothing
        :raises ConfigurationError: if the resource type does not exist, or
            the polling interval is another one
        """
        if not question.instances:
            return telemetry.Answer()
        asked, found, granule = self._granules(metric, question)
        reach = (
            self._options.polling_interval_seconds if metric.cumulative else 0
        )
        values = {
            uuid_: _in_windows(
                _summarised(metric, series.values()),
                asked.window_seconds,
                question.window_seconds,
                reach,
            )
            for uuid_, series in found.points.items()
        }
        values = {uuid_: there for uuid_, there in values.items() if there}
        absent = dict(found.bad)
        for instance in question.instances:
            if instance not in found.points and instance not in absent:
                absent[instance] = _NO_METRIC
        if not found.points and not found.bad:
            self._check_access()
        if metric.cumulative:
            self._check_interval(metric, asked, found)
            values = {
                uuid_: {t: value / reach for t, value in there.items()}
                for uuid_, there in values.items()
            }
        return telemetry.Answer(
            values=values,
            absent=absent,
            newest=max(
                (t for row in values.values() for t in row), default=None
            ),
            reach_seconds=reach,
            granularity_seconds=granule,
        )

    def _granules(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> tuple[telemetry.Question, _Chunk, int]:
        """The points, of granules that make up windows if need be.

        :returns: the question whose windows are the granules, its answer,
            and the length of windows that there are points for
        """
        aggregation = metric.aggregation if metric.cumulative else "mean"
        wanted = question.window_seconds
        found = self._all(metric.name, aggregation, question)
        if found.points or not found.bad:
            return question, found, wanted
        # An archive policy with other granules?
        there = self._granularities(metric)
        if wanted in there or not there:
            return question, found, wanted
        fitting = [granule for granule in there if wanted % granule == 0]
        if not fitting:
            return question, found, min(there)
        finer = dataclasses.replace(question, window_seconds=max(fitting))
        return finer, self._all(metric.name, aggregation, finer), wanted

    def _granularities(self, metric: telemetry.Metric) -> tuple[int, ...]:
        """What granules the first metric of that name has, in seconds."""
        if "*" in metric.name:
            return ()
        first = self._get("v1/metric", {"name": metric.name, "limit": 1})
        try:
            return tuple(
                int(_span(definition["granularity"]))
                for one in first
                for definition in one["archive_policy"]["definition"]
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise service_module.unexpected(
                f"{self.service.name} GET v1/metric",
                f"the archive policy is not of Gnocchi's form: {exc!r}",
            ) from exc

    # Chunks.

    def _all(
        self, name: str, aggregation: str, question: telemetry.Question
    ) -> _Chunk:
        size = self._options.chunk_size
        everybody = question.instances
        chunks = [
            everybody[first : first + size]
            for first in range(0, len(everybody), size)
        ]
        bad = _Bad()
        ask = functools.partial(
            self._chunk, name, aggregation, question, bad=bad
        )
        with concurrent.futures.ThreadPoolExecutor(
            self._options.threads
        ) as pool:
            return _joined(pool.map(ask, chunks))

    def _chunk(
        self,
        name: str,
        aggregation: str,
        question: telemetry.Question,
        instances: Sequence[str],
        *,
        bad: _Bad,
    ) -> _Chunk:
        """The points of some instances, the bad ones set aside."""
        response = self._query(name, aggregation, question, instances)
        status = response.status_code
        where = f"{self.service.name} POST {_AGGREGATES}"
        if status == 200:
            bad.good()
            return _Chunk(_points(response, where), {})
        cause, text = _refusal(response)
        if status == 404 and text.startswith("Metric"):
            # None of them has it.
            return _Chunk({}, {})
        if status == 400 and "esource type" in cause:
            raise errors.ConfigurationError(
                "there is no resource type "
                f"{self._options.resource_type!r} in Gnocchi",
                where=f"[{telemetry_conf.GROUP}] resource_type",
                cure="Ceilometer's is instance",
            )
        if status not in (400, 404) or not cause or "nvalid" in cause:
            raise self.service.refused(f"POST {_AGGREGATES}", response)
        why = f"Gnocchi says: {cause}"
        if "ranularit" in text:
            why = (
                "its archive policy has no points every "
                f"{question.window_seconds} s"
            )
        elif "aggregation" in cause:
            why = f"its archive policy has no {aggregation}"
        if len(instances) == 1:
            bad.alone()
        elif not bad.hopeless:
            middle = len(instances) // 2
            return _joined(
                self._chunk(name, aggregation, question, half, bad=bad)
                for half in (instances[:middle], instances[middle:])
            )
        return _Chunk({}, dict.fromkeys(instances, why))

    def _query(
        self,
        name: str,
        aggregation: str,
        question: telemetry.Question,
        instances: Sequence[str],
    ) -> requests.Response:
        return self._send(
            "POST",
            _AGGREGATES,
            {
                "start": _stamp(question.begin),
                "stop": _stamp(question.end),
                "granularity": question.window_seconds,
            },
            {
                "operations": f"(metric {name} {aggregation})",
                "resource_type": self._options.resource_type,
                "search": {"in": {"id": list(instances)}},
            },
        )

    # Other questions.

    def _check_access(self) -> None:
        """Tell a user who is shown nothing from a cloud that has nothing.

        :raises Forbidden: if Gnocchi lets Watcher's user see no instance
        """
        if self._get(
            f"v1/resource/{self._options.resource_type}", {"limit": 1}
        ):
            return
        answer = self._send("GET", _STATUS, {"details": "False"})
        if answer.status_code == 403:
            raise service_module.Forbidden(
                "Watcher's user is shown no instance at all, and is no "
                "administrator there (403 for its status)",
                where=f"{self.service.name} GET {_STATUS}",
                cure="Grant it a role that Gnocchi's policies admit for "
                "other projects' resources: admin or service",
            )

    def _check_interval(
        self,
        metric: telemetry.Metric,
        question: telemetry.Question,
        found: _Chunk,
    ) -> None:
        """Compare the polling interval with what the counters say.

        From one granule to the next a counter's mean grows by its rate times
        the polls in between.

        :raises ConfigurationError: if it is clearly another one
        """
        told = self._options.polling_interval_seconds
        busy = [
            uuid_
            for uuid_, series in sorted(found.points.items())
            if any(v > 0 for row in series.values() for v in row.values())
        ][:_SAMPLE]
        if not busy or metric.aggregation != "rate:mean":
            return
        response = self._query(metric.name, "mean", question, busy)
        if response.status_code != 200:
            # Their archive policies have rates alone.
            return
        means = _points(response, f"{self.service.name} POST {_AGGREGATES}")
        seen = [
            interval
            for uuid_ in busy
            for name, rates in found.points[uuid_].items()
            for interval in _intervals(
                rates, means.get(uuid_, {}).get(name, {})
            )
        ]
        if len(seen) < _PAIRS:
            return
        interval = statistics.median(seen)
        if told / _FAR_OFF <= interval <= told * _FAR_OFF:
            return
        raise errors.ConfigurationError(
            f"the counter {metric.name} is polled about every "
            f"{interval:.0f} s, not every {told} s",
            where=f"[{telemetry_conf.GROUP}] polling_interval_seconds",
            cure="Set it to the interval of the metric's source in "
            "Ceilometer's polling.yaml",
        )

    # Requests.

    def _get(self, path: str, params: Mapping[str, Any]) -> Any:
        answer = self._send("GET", path, params)
        if answer.status_code != 200:
            raise self.service.refused(f"GET {path}", answer)
        return _document(answer, f"{self.service.name} GET {path}")

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, Any],
        body: Any = None,
    ) -> requests.Response:
        """The answer, whatever it is, of a request that only reads.

        :raises ServiceError: if there is none
        """

        def send(timeout: float) -> requests.Response:
            try:
                answer: requests.Response = self._api.request(
                    path,
                    method,
                    params=dict(params),
                    json=body,
                    headers={"Accept": "application/json"},
                    raise_exc=False,
                    connect_retries=0,
                    status_code_retries=0,
                    timeout=timeout,
                )
            except gnocchi_exceptions.ClientException as exc:
                # Back to what the client library of all our readers raises.
                if isinstance(exc.__context__, ksa_exceptions.ClientException):
                    raise exc.__context__ from exc
                raise ksa_exceptions.ClientException(str(exc)) from exc
            return answer

        answer = self.service.persist(f"{method} {path}", send)
        if answer.status_code in (401, 403) and path != _STATUS:
            raise self.service.refused(f"{method} {path}", answer)
        return answer


def _joined(chunks: Iterable[_Chunk]) -> _Chunk:
    points: dict[str, Mapping[str, Mapping[int, float]]] = {}
    bad: dict[str, str] = {}
    for chunk in chunks:
        points.update(chunk.points)
        bad.update(chunk.bad)
    return _Chunk(points, bad)


def _summarised(
    metric: telemetry.Metric, series: Iterable[Mapping[int, float]]
) -> Mapping[int, float]:
    """One value for the instance where there is a metric for each vCPU.

    Only windows that all of them have; counters are added up, gauges
    averaged. A vCPU without points is missing, and so is the instance: it is
    never taken to have used nothing.
    """
    rows = tuple(series)
    if len(rows) == 1:
        return rows[0]
    shared = set.intersection(*map(set, rows)) if rows else set()
    return model.frozen_map(
        {
            t: sum(row[t] for row in rows)
            / (1 if metric.cumulative else len(rows))
            for t in sorted(shared)
        }
    )


def _in_windows(
    granules: Mapping[int, float], granule: int, window: int, reach: int
) -> Mapping[int, float]:
    """The mean of the granules that each window has.

    A difference that reaches back over a granule without samples belongs to
    no single one. Where a window is one granule vetting sees to that.
    """
    if granule == window:
        return granules
    steps = range(1, -(-reach // granule) + 1)
    found: dict[int, list[float]] = {}
    for begin, value in granules.items():
        if not reach or any(begin - n * granule in granules for n in steps):
            found.setdefault(begin // window * window, []).append(value)
    # Less than half of a window tells nothing of the whole.
    length = max(granule, reach)
    return {
        t: sum(values) / len(values)
        for t, values in found.items()
        if 2 * len(values) * length >= window
    }


def _span(text: str) -> float:
    """Seconds of ``0:05:00``, ``1 day, 0:00:00`` or a plain number."""
    days, _, rest = str(text).rpartition(", ")
    clock = 0.0
    for part in rest.split(":"):
        clock = clock * 60 + float(part)
    return clock + (86400 * float(days.split()[0]) if days else 0.0)


def _intervals(
    rates: Mapping[int, float], means: Mapping[int, float]
) -> Iterable[float]:
    """Seconds between polls, as pairs of neighbouring granules tell."""
    times = sorted(means)
    for before, after in itertools.pairwise(times):
        growth = means[after] - means[before]
        rate = rates.get(after, 0.0)
        if growth > 0 and rate > 0:
            yield rate * (after - before) / growth


def _points(
    response: requests.Response, where: str
) -> Mapping[str, Mapping[str, Mapping[int, float]]]:
    """{instance uuid: {metric: {begin: value}}} of an answer.

    :raises ServiceError: if it is not of Gnocchi's form
    """
    document = _document(response, where)
    try:
        return {
            str(uuid.UUID(resource)): {
                name: {
                    _seconds(moment): float(value)
                    for points in by_aggregation.values()
                    for moment, _granularity, value in points
                }
                for name, by_aggregation in metrics.items()
            }
            for resource, metrics in document["measures"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise service_module.unexpected(
            where, f"the measures are not of Gnocchi's form: {exc!r}"
        ) from exc


def _document(response: requests.Response, where: str) -> Any:
    try:
        # NaN and Infinity are Python's idea of JSON, and Gnocchi's.
        return json.loads(response.content)
    except ValueError:
        raise service_module.unexpected(
            where, "the answer is no JSON document"
        ) from None


def _refusal(response: requests.Response) -> tuple[str, str]:
    """The cause that Gnocchi names, if it names one, and all that it says."""
    try:
        document = json.loads(response.content)
    except ValueError:
        return "", ""
    described = document.get("description") if document else ""
    if isinstance(described, dict):
        return str(described.get("cause", "")), str(described)
    return "", str(described)


@functools.lru_cache(maxsize=4096)
def _seconds(moment: str) -> int:
    """Seconds since the epoch; the same few moments come again and again."""
    return int(datetime.datetime.fromisoformat(moment).timestamp())


def _stamp(seconds: int) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S")
