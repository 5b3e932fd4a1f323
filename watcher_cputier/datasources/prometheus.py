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

"""Telemetry from Prometheus, asked itself or through Aetos (N10).

One instant query per metric brings every window of every instance: PromQL
with one series per instance stands in a subquery whose step is the window, so
that the server evaluates it where each window ends::

    (sum by (resource) (...))[900s:300s]        at the end of the last window

A range query would do the same, but Aetos offers none, and takes GET alone.
Hence also the limit on the query's length: where the names of the instances
would exceed it, all that the metric has is asked for.

A counter's value is the difference between its last sample of the window and
its last sample before, over the time between the two::

    (cpu - cpu offset 300s)
    / (timestamp(cpu) - timestamp(cpu offset 300s) > 150)

``rate()`` would not do. It needs two samples in the window, it takes a reset
for growth from zero, it divides what half a window holds by the whole one, and
it extrapolates: 11 % too much where the samples repeat what was polled every
five minutes. The difference is negative after a reset, absent where less than
half of the window is covered, and exact for polled counters if the time that
it is taken over is a multiple of the polling interval; the window is rounded
down to one, and a wrong interval is noticed.

A counter of CPU time that stands still was not polled, for no running guest
goes without CPU time altogether. Its value is left out: exporters repeat the
last value of a poller that has died.
"""

from collections.abc import Mapping
import math
import re
from typing import Any
import urllib.parse

from keystoneauth1 import adapter as ksa_adapter
from keystoneauth1 import exceptions as ksa_exceptions
from keystoneauth1 import http_basic
from keystoneauth1 import noauth
from keystoneauth1 import session as ksa_session
from observabilityclient import prometheus_client
from openstack import connection as sdk
from oslo_config import cfg
from oslo_utils import netutils
import requests

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.conf import telemetry as telemetry_conf
from watcher_cputier.datasources import service as service_module
from watcher_cputier.datasources import telemetry

COUNTER_QUERY = (
    "sum by (<label>) ((<series> - <series> offset <window>) / "
    "(timestamp(<series>) - timestamp(<series> offset <window>) "
    "> <seconds> / 2))"
)
GAUGE_QUERY = "avg by (<label>) (avg_over_time(<series>[<window>]))"
# Web servers in front of Aetos refuse longer lines than 8190 bytes.
LONGEST_QUERY = 6000
EVERY_INSTANCE = ".+"
# How far back a metric that has nothing is looked for.
SEARCHED = "1d:5m"
# What it takes to tell a polling interval, how far from a whole number of
# polls a window may be, and from how many on it does not matter.
_LEAST_WINDOWS = 3
_UNEVEN = 0.25
_MANY_POLLS = 3.5
_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_PLACEHOLDER = re.compile(r"<([a-z]+)>")
# PromQL's remarks on a query, as opposed to warnings about missing data.
_REMARKS = ("PromQL info:", "PromQL warning:")


_PORT = 9090


def prometheus(
    conf: cfg.ConfigOpts, connected: sdk.Connection, deadline: float | None
) -> "Source":
    """Prometheus itself, where ``[prometheus_client]`` says.

    :raises NotDeployed: if no host is configured
    :raises ConfigurationError: if an option is unusable
    """
    section = "prometheus_client"
    host = _option(conf, section, "host")
    if not host:
        raise telemetry.NotDeployed(
            "no Prometheus is configured",
            where=f"[{section}] host",
            cure="Set host and port of Prometheus",
        )
    # Watcher 14 takes any text for a port, and has no default.
    port = _option(conf, section, "port") or _PORT
    if not netutils.is_valid_port(port):
        raise errors.ConfigurationError(
            f"{port!r} is no port", where=f"[{section}] port"
        )
    authority = f"{netutils.escape_ipv6(host)}:{port}"
    # As Watcher's own helper does: TLS where there is a CA to trust.
    authority_file = _option(conf, section, "cafile")
    certificate = _option(conf, section, "certfile")
    key = _option(conf, section, "keyfile")
    user = _option(conf, section, "username")
    password = _option(conf, section, "password")
    session = ksa_session.Session(
        auth=(
            http_basic.HTTPBasicAuth(username=user, password=password)
            if user and password
            else noauth.NoAuth()
        ),
        verify=authority_file or True,
        cert=(certificate, key) if certificate and key else None,
    )
    scheme = "https" if authority_file else "http"
    return Source(
        "prometheus",
        _Service(
            ksa_adapter.Adapter(session=session),
            "Prometheus",
            unauthorised=f"Check username and password in [{section}]",
            misplaced=f"Check host, port and cafile in [{section}]",
        ),
        f"{scheme}://{authority}",
        conf,
        section,
        deadline,
    )


def named(url: str, conf: cfg.ConfigOpts) -> "Source":
    """Prometheus at a URL that somebody gives.

    :param url: below which ``api/v1`` is; may have a user and a password
    :raises ConfigurationError: if it is no such URL
    """
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise errors.ConfigurationError(str(exc), where=url) from exc
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise errors.ConfigurationError(
            "it is no URL of a Prometheus",
            where=url,
            cure="Name one such as http://prometheus.example.org:9090",
        )
    user, password = parts.username, parts.password
    authority = netutils.escape_ipv6(parts.hostname)
    if port is not None:
        authority = f"{authority}:{port}"
    session = ksa_session.Session(
        auth=(
            http_basic.HTTPBasicAuth(
                username=urllib.parse.unquote(user),
                password=urllib.parse.unquote(password),
            )
            if user and password
            else noauth.NoAuth()
        )
    )
    return Source(
        "prometheus",
        _Service(
            ksa_adapter.Adapter(session=session),
            "Prometheus",
            unauthorised="Check user and password in the URL",
            misplaced="Check the URL",
        ),
        f"{parts.scheme}://{authority}{parts.path}",
        conf,
        "prometheus_client",
        None,
    )


def aetos(
    conf: cfg.ConfigOpts, connected: sdk.Connection, deadline: float | None
) -> "Source":
    """Prometheus behind Aetos, as the service catalogue knows it.

    :raises NotDeployed: if the catalogue has none
    :raises ServiceError: if the catalogue cannot be had
    :raises ConfigurationError: if an option is unusable
    """
    section = "aetos_client"
    adapter = ksa_adapter.Adapter(
        session=connected.session,
        service_type="metric-storage",
        interface=_option(conf, section, "interface"),
        region_name=_option(conf, section, "region_name"),
    )
    service = _Service(
        adapter,
        "Aetos",
        unauthorised="Check [watcher_clients_auth] in Watcher's configuration",
        misplaced="Check the endpoint of metric-storage in the catalogue",
    )
    try:
        endpoint = adapter.get_endpoint()
    except ksa_exceptions.EndpointNotFound:
        endpoint = None
    except ksa_exceptions.ClientException as exc:
        raise service.unreachable("service catalogue", exc) from exc
    if not endpoint:
        raise telemetry.NotDeployed(
            "the service catalogue has no metric-storage endpoint",
            where="Aetos",
            cure=f"Register Aetos, or check region and interface in "
            f"[{section}]",
        )
    return Source(
        "aetos", service, endpoint, conf, section, deadline, guarded=True
    )


def _option(
    conf: cfg.ConfigOpts, section: str, name: str, default: Any = None
) -> Any:
    """An option of Watcher's; the default where this release lacks it.

    :raises ConfigurationError: if its value is not of its form
    """
    if section not in conf or name not in conf[section]:
        return default
    try:
        found = conf[section][name]
    except (cfg.ConfigFileValueError, ValueError) as exc:
        raise errors.ConfigurationError(
            str(exc), where="watcher.conf"
        ) from exc
    return default if found is None else found


class _Service(service_module.Service):
    """The HTTP API of Prometheus, tried and timed as those of OpenStack.

    :param unauthorised: what mends a 401
    :param misplaced: what mends that something else answers
    """

    def __init__(
        self,
        adapter: ksa_adapter.Adapter,
        name: str,
        *,
        unauthorised: str,
        misplaced: str,
    ) -> None:
        super().__init__(adapter, name, None, {})
        self._unauthorised = unauthorised
        self._misplaced = misplaced
        self.timeout_seconds = service_module.TIMEOUT_SECONDS

    def response(
        self, url: str, params: Mapping[str, Any] | None
    ) -> requests.Response:
        """The answer to a GET.

        :raises ServiceError: if there is none, or a refusal
        """
        found = self._ask(url, params, None)
        if found.status_code != 200:
            raise self._refused(url, found)
        return found

    def _patience(self, path: str, now: float) -> float:
        return min(self.timeout_seconds, super()._patience(path, now))

    def unreachable(
        self,
        request: str,
        exc: Exception,
        timeout: float = service_module.TIMEOUT_SECONDS,
    ) -> errors.ServiceError:
        """As with other services, and where this one is looked for."""
        found = super().unreachable(request, exc, timeout)
        if isinstance(exc, ksa_exceptions.ConnectionError) and not isinstance(
            exc, ksa_exceptions.ConnectTimeout
        ):
            return errors.ServiceError(
                found.what,
                where=found.where,
                cure=f"{self._misplaced}, and that it runs",
            )
        return found

    def _refused(
        self, path: str, response: requests.Response
    ) -> errors.ServiceError:
        status = response.status_code
        where = f"{self.name} GET {path}"
        what = f"HTTP {status}: {_reason(response)}"
        if status in (400, 422) and _is_json(response):
            return service_module.BadRequest(what, where=where)
        if status == 401:
            return errors.ServiceError(
                "the credentials are refused (401)",
                where=where,
                cure=self._unauthorised,
            )
        if status == 403:
            return service_module.Forbidden(
                f"{self.name} refuses the request (403)",
                where=where,
                cure="Let Watcher's user query it",
            )
        if status < 500:
            return errors.ServiceError(what, where=where, cure=self._misplaced)
        return errors.ServiceError(
            what, where=where, cure=f"See the log of {self.name}"
        )


class _Transport:
    """What observabilityclient sends its requests through.

    Its own session waits for ever, does not try again and, without a CA,
    trusts anybody.
    """

    def __init__(self, service: _Service, verify: bool) -> None:
        self._service = service
        #: Whence the client takes its choice of http or https.
        self.verify = verify

    def get(
        self,
        url: str,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> requests.Response:
        """As ``requests.Session.get``.

        :raises ServiceError: unless the answer is 200
        """
        return self._service.response(url, params)


class Source:
    """Prometheus, whichever way it is reached.

    :param endpoint: URL below which ``api/v1`` is
    :param section: of Watcher's configuration, with the label of instances
    :param guarded: whether it shows each project its own metrics alone
    """

    def __init__(
        self,
        name: str,
        service: _Service,
        endpoint: str,
        conf: cfg.ConfigOpts,
        section: str,
        deadline: float | None,
        *,
        guarded: bool = False,
    ) -> None:
        self.name = name
        self.service = service
        self._conf = telemetry_conf.read(conf)
        self._section = section
        self._label = str(
            _option(conf, section, "instance_uuid_label", "resource")
        )
        service.deadline = deadline
        service.timeout_seconds = self._conf.timeout_seconds
        scheme, _separator, address = endpoint.rstrip("/").partition("://")
        self._url = f"{endpoint.rstrip('/')}/api/v1/query"
        self._client = prometheus_client.PrometheusAPIClient(address)
        self._client._session = _Transport(service, scheme == "https")
        self._guarded = guarded

    # What is asked for.

    def metrics(self) -> tuple[telemetry.Metric, telemetry.Metric]:
        """The CPU and the steal metric, as Prometheus calls them.

        :raises ConfigurationError: if an option is unusable
        """
        cpu, steal = (
            telemetry.Metric(
                role=role,
                name=self._metric_name(role),
                unit=self._conf[f"{role}_unit"],
            )
            for role in (telemetry.CPU, telemetry.STEAL)
        )
        return cpu, steal

    def _metric_name(self, role: str) -> str:
        option = f"prometheus_{role}_metric"
        name = str(self._conf[option])
        if not _METRIC_NAME.fullmatch(name):
            raise errors.ConfigurationError(
                f"{name!r} is no metric of Prometheus",
                where=f"[{telemetry_conf.GROUP}] {option}",
                cure="Use letters, digits, _ and :",
            )
        return name

    def offers(self, metric: telemetry.Metric) -> bool:
        """Whether it had this metric within the last day.

        :raises ServiceError: if it could not look
        """
        name = metric.name
        found = self._vector(
            metric,
            f"count({name}) or count({name} offset 1h) "
            f"or count({name} offset 1d)",
            None,
        )
        if not found:
            self._check_restriction()
        return bool(found)

    def get(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> telemetry.Answer:
        """The values of a metric, one request for all of them.

        :raises ServiceError: if it could not look
        :raises NoData: if nobody has the metric, or not with that label
        :raises ConfigurationError: if the query makes no sense
        """
        if not question.instances:
            return telemetry.Answer()
        window_seconds = self._window_seconds(metric, question)
        values = self._values(
            metric,
            question,
            self._matrix(
                metric,
                self._query(metric, question, window_seconds),
                question.end,
            ),
        )
        self._check_polling(metric, question, values, window_seconds)
        absent = _standing_still(metric, values)
        findings: tuple[model.Finding, ...] = ()
        if not values:
            if not absent:
                self._explain_nothing(metric, question)
        elif len(values) < len(question.instances):
            findings = self._restriction_finding()
        return telemetry.Answer(
            values=model.frozen_map(
                {u: model.frozen_map(values[u]) for u in sorted(values)}
            ),
            absent=model.frozen_map(absent),
            newest=max((max(v) for v in values.values()), default=None),
            reach_seconds=(
                self._reach_seconds(question, window_seconds)
                if metric.cumulative
                else 0
            ),
            findings=findings,
        )

    def _window_seconds(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> int:
        """Over which time a value is taken, up to its window's end."""
        if not metric.cumulative:
            return question.window_seconds
        interval = int(self._conf.polling_interval_seconds)
        return interval * max(1, question.window_seconds // interval)

    def _reach_seconds(
        self, question: telemetry.Question, window_seconds: int
    ) -> int:
        """How far before a window the older sample of a difference may be.

        It is as old, at that moment, as polls are apart.
        """
        interval = int(self._conf.polling_interval_seconds)
        beyond = window_seconds + interval - question.window_seconds
        return min(interval, beyond)

    def _check_polling(
        self,
        metric: telemetry.Metric,
        question: telemetry.Question,
        values: Mapping[str, Mapping[int, float]],
        window_seconds: int,
    ) -> None:
        """That values are taken over whole polling intervals.

        Otherwise some hold a poll more than others. The instance with the
        longest unbroken run of windows tells how often its counter changes.

        :raises ConfigurationError: if it is the wrong interval
        """
        if metric.role != telemetry.CPU or not self._plain_counter(metric):
            return
        step = question.window_seconds
        runs = {uuid: _run(found, step) for uuid, found in values.items()}
        uuid = max(sorted(runs), key=lambda one: len(runs[one]), default="")
        if len(runs.get(uuid, ())) < _LEAST_WINDOWS:
            return
        span = len(runs[uuid]) * step
        changes = self._vector(
            metric,
            f'max(changes({metric.name}{{{self._label}="{uuid}"}}[{span}s]))',
            runs[uuid][-1] + step,
        )
        if not changes or changes[0][1] < 1:
            return
        interval = span / changes[0][1]
        polls = window_seconds / interval
        if polls > _MANY_POLLS or abs(polls - round(polls)) <= _UNEVEN:
            return
        raise errors.ConfigurationError(
            f"{metric.name} changes about every {interval:.0f} s",
            where=f"[{telemetry_conf.GROUP}] polling_interval_seconds",
            cure=f"Set it to what Ceilometer is told: it is "
            f"{self._conf.polling_interval_seconds}",
        )

    def _plain_counter(self, metric: telemetry.Metric) -> bool:
        """Whether values come from the metric alone, as differences."""
        return (
            metric.cumulative
            and self._conf[f"prometheus_{metric.role}_query"] is None
        )

    def _query(
        self,
        metric: telemetry.Metric,
        question: telemetry.Question,
        window_seconds: int,
    ) -> str:
        """PromQL for all windows.

        It names the instances only if it is short enough with them.
        """
        span = question.end - question.begin
        for instances in ("|".join(question.instances), EVERY_INSTANCE):
            expression = self._expression(metric, instances, window_seconds)
            query = f"({expression})[{span}s:{question.window_seconds}s]"
            if len(urllib.parse.quote_plus(query)) <= LONGEST_QUERY:
                break
        return query

    def _expression(
        self, metric: telemetry.Metric, instances: str, window_seconds: int
    ) -> str:
        """PromQL with one series per instance, for one moment."""
        option = f"prometheus_{metric.role}_query"
        template = self._conf[option] or (
            COUNTER_QUERY if metric.cumulative else GAUGE_QUERY
        )
        words = {
            "metric": metric.name,
            "label": self._label,
            "instances": instances,
            "series": f'{metric.name}{{{self._label}=~"{instances}"}}',
            "window": f"{window_seconds}s",
            "seconds": str(window_seconds),
        }
        asked = set(_PLACEHOLDER.findall(template))
        where = f"[{telemetry_conf.GROUP}] {option}"
        if asked - words.keys():
            raise errors.ConfigurationError(
                f"<{min(asked - words.keys())}> means nothing",
                where=where,
                cure="There are " + ", ".join(f"<{word}>" for word in words),
            )
        if not asked & {"metric", "series"}:
            raise errors.ConfigurationError(
                "the query has neither <metric> nor <series>",
                where=where,
                cure=f"Put the metric's name into prometheus_{metric.role}"
                "_metric and <metric> into the query",
            )
        return _PLACEHOLDER.sub(lambda found: words[found[1]], template)

    # What is answered.

    def _values(
        self,
        metric: telemetry.Metric,
        question: telemetry.Question,
        series: list[tuple[Mapping[str, str], list[tuple[int, float]]]],
    ) -> dict[str, dict[int, float]]:
        """{instance: {begin of a window: value}}, without empty ones."""
        wanted = frozenset(question.instances)
        windows = frozenset(question.windows)
        values: dict[str, dict[int, float]] = {}
        for labels, points in series:
            uuid = labels.get(self._label, "")
            if uuid in values:
                raise errors.ConfigurationError(
                    f"the query finds instance {uuid} twice",
                    where=f"[{telemetry_conf.GROUP}] "
                    f"prometheus_{metric.role}_query",
                    cure="Make one of its series, such as with "
                    f"sum by ({self._label})",
                )
            if uuid in wanted:
                values[uuid] = {
                    time - question.window_seconds: value
                    for time, value in points
                    if time - question.window_seconds in windows
                    and not math.isnan(value)
                }
        return {uuid: found for uuid, found in values.items() if found}

    def _explain_nothing(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> None:
        """Return if the instances have nothing and others do.

        :raises NoData: that says why nobody has
        """
        self._check_restriction()
        if self._conf[f"prometheus_{metric.role}_query"] is None:
            named = f'{metric.name}{{{self._label}!=""}}'
            if self._sample(metric, question, named) is not None:
                return
        labels = self._sample(metric, question, metric.name)
        if labels is None:
            raise self._missing(metric, question)
        if self._conf[f"prometheus_{metric.role}_query"] is None:
            there = ", ".join(sorted(labels.keys() - {"__name__"}))
            raise self._nothing(
                f"{metric.name} has no label {self._label} (but {there})",
                f"Set instance_uuid_label in [{self._section}]",
            )
        raise self._nothing(
            f"the query finds nothing with the label {self._label}, although "
            f"there is {metric.name}",
            f"Check prometheus_{metric.role}_query in "
            f"[{telemetry_conf.GROUP}]",
        )

    def _sample(
        self,
        metric: telemetry.Metric,
        question: telemetry.Question,
        selector: str,
    ) -> Mapping[str, str] | None:
        """Labels of a series that there was within the question's time."""
        span = question.end - question.begin
        found = self._vector(
            metric,
            f"topk(1, last_over_time({selector}[{span}s:5m]))",
            question.end,
        )
        return found[0][0] if found else None

    def _missing(
        self, metric: telemetry.Metric, question: telemetry.Question
    ) -> telemetry.NoData:
        """What is wrong with a metric that is not there."""
        newest = self._vector(
            metric,
            f"max(max_over_time(timestamp({metric.name})[{SEARCHED}]))",
            question.end,
        )
        if newest:
            age = question.end - int(newest[0][1])
            return self._nothing(
                f"the newest sample of {metric.name} is from {age} s before "
                "the end of the newest window",
                "Check what collects it",
            )
        return self._nothing(
            f"there is no metric {metric.name}",
            f"Check prometheus_{metric.role}_metric in "
            f"[{telemetry_conf.GROUP}], and what publishes it",
        )

    def _nothing(self, what: str, cure: str) -> telemetry.NoData:
        return telemetry.NoData(
            what, where=f"{self.service.name} GET {self._url}", cure=cure
        )

    # What others ask for.

    @property
    def url(self) -> str:
        """Where it is asked."""
        return self._url

    def evaluate(
        self, query: str, at: int
    ) -> list[tuple[Mapping[str, str], float]]:
        """(labels, value) of each series that PromQL gives for a moment.

        :param at: in seconds since the epoch
        :raises ServiceError: if it could not look
        """
        return self._vector(None, query, at)

    # Whose metrics are shown.

    def _check_restriction(self) -> None:
        """That nothing is not just nothing of Watcher's own project.

        Aetos answers whoever may not see every project for its own one, as
        if there were no others. Who may not ask for its status may not (the
        policies are alike by default; Watcher's own helper needs both).

        :raises ServiceError: if Watcher's user may not see every project, or
            it could not look
        """
        if not self._guarded:
            return
        try:
            self._document("status/runtimeinfo", {})
        except service_module.Forbidden as exc:
            raise service_module.Forbidden(
                "Watcher's user sees the metrics of its own project alone",
                where=exc.where,
                cure="Grant it the role admin or service, or what the "
                "policies telemetry:query:all_projects and telemetry:status "
                "ask for",
            ) from exc

    def _restriction_finding(self) -> tuple[model.Finding, ...]:
        """The same where some instances have values: they go in."""
        try:
            self._check_restriction()
        except service_module.Forbidden as exc:
            return (
                model.Finding(
                    kind="telemetry_restricted",
                    subject=self.name,
                    text=str(exc),
                ),
            )
        except errors.ServiceError:
            # What was to be read has been read.
            return ()
        return ()

    # Requests.

    def _matrix(
        self, metric: telemetry.Metric, query: str, at: int
    ) -> list[tuple[Mapping[str, str], list[tuple[int, float]]]]:
        """(labels, [(time, value)]) of each series."""
        found = self._result(metric, query, at, "matrix")
        try:
            return [
                (
                    dict(series["metric"]),
                    [
                        (round(float(time)), float(value))
                        for time, value in series.get("values", ())
                    ],
                )
                for series in found
            ]
        except (AttributeError, KeyError, TypeError, ValueError) as exc:
            raise self._unexpected("a series is not of its form") from exc

    def _vector(
        self, metric: telemetry.Metric | None, query: str, at: int | None
    ) -> list[tuple[Mapping[str, str], float]]:
        """(labels, value) of each series."""
        found = self._result(metric, query, at, "vector")
        try:
            return [
                (dict(series["metric"]), float(series["value"][1]))
                for series in found
            ]
        except (IndexError, KeyError, TypeError, ValueError) as exc:
            raise self._unexpected("a series is not of its form") from exc

    def _result(
        self,
        metric: telemetry.Metric | None,
        query: str,
        at: int | None,
        kind: str,
    ) -> list[Any]:
        params = {
            "query": query,
            "timeout": f"{self._conf.timeout_seconds}s",
        }
        if at is not None:
            params["time"] = str(at)
        try:
            document = self._document("query", params)
        except service_module.BadRequest as exc:
            # Aetos makes nonsense of some queries for other projects' users.
            self._check_restriction()
            if metric is None:
                raise
            raise self._senseless(metric, exc) from exc
        warnings = [
            str(text)
            for text in document.get("warnings") or ()
            if not str(text).startswith(_REMARKS)
        ]
        if warnings:
            # What is missing of a sum makes it too small, not absent.
            raise errors.ServiceError(
                f"the answer is partial: {warnings[0]}",
                where=f"{self.service.name} GET {self._url}",
                cure="See that all stores of Prometheus can be reached",
            )
        data = document.get("data")
        if not isinstance(data, dict) or data.get("resultType") != kind:
            raise self._unexpected(f"the answer is no {kind}")
        result = data.get("result")
        if not isinstance(result, list):
            raise self._unexpected("the answer has no list of series")
        return result

    def _document(
        self, endpoint: str, params: Mapping[str, str]
    ) -> Mapping[str, Any]:
        try:
            document = self._client._get(endpoint, dict(params))
        except prometheus_client.PrometheusAPIClientError as exc:
            raise self._unexpected(
                f"the answer is no success: {_reason(exc.resp)}"
            ) from exc
        except (KeyError, TypeError, ValueError) as exc:
            raise self._unexpected(
                "the answer is no JSON document of Prometheus"
            ) from exc
        if not isinstance(document, dict):
            raise self._unexpected("the answer is no JSON object")
        return document

    def _unexpected(self, what: str) -> errors.ServiceError:
        return service_module.unexpected(
            f"{self.service.name} GET {self._url}", what
        )

    def _senseless(
        self, metric: telemetry.Metric, exc: errors.ServiceError
    ) -> errors.ServiceError:
        """What Prometheus cannot make sense of, and the option behind it."""
        section = f"[{telemetry_conf.GROUP}]"
        option = f"prometheus_{metric.role}_query"
        if "too many samples" in exc.what:
            cure = (
                "Raise Prometheus's --query.max-samples, or restrict "
                f"{option} in {section} by a label"
            )
        elif self._conf[option] is None:
            cure = f"Check instance_uuid_label in [{self._section}]"
        else:
            cure = f"Check {option} in {section}"
        return service_module.BadRequest(exc.what, where=exc.where, cure=cure)


def _run(found: Mapping[int, float], step: int) -> list[int]:
    """The longest unbroken run of windows, the newest of the longest."""
    longest: list[int] = []
    run: list[int] = []
    for window in sorted(found):
        if run and window != run[-1] + step:
            run = []
        run = [*run, window]
        if len(run) >= len(longest):
            longest = run
    return longest


def _standing_still(
    metric: telemetry.Metric, values: dict[str, dict[int, float]]
) -> dict[str, str]:
    """Take values off that were not measured; instances without any left."""
    if metric.role != telemetry.CPU or not metric.cumulative:
        return {}
    absent = {}
    for uuid, found in list(values.items()):
        values[uuid] = {time: v for time, v in found.items() if v != 0}
        if not values[uuid]:
            del values[uuid]
            absent[uuid] = f"its {metric.name} stands still: not polled"
    return absent


def _reason(response: requests.Response) -> str:
    """Prometheus's own words about a refusal, also through Aetos."""
    try:
        document = response.json()
    except ValueError:
        return _shortened(response.text) or str(response.reason)
    found: Any = document
    for name in ("error_message", "faultstring", "error"):
        if isinstance(found, dict) and found.get(name):
            found = found[name]
    return _shortened(str(found))


def _is_json(response: requests.Response) -> bool:
    try:
        response.json()
    except ValueError:
        return False
    return True


def _shortened(text: str) -> str:
    """Its begin, and its end, where the cause stands."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:140]} ... {line[-140:]}"
