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

"""The exporter's series, read back: breaches of each host over time (N14).

``openstack tier metrics`` counts for how many seconds each host was over a
quota or had starved instances. Prometheus keeps the counters; asked for a
window it tells the difference between the last and the first value in it,
or, where a counter began anew in between, what it extrapolates.
"""

from collections.abc import Iterator, Mapping
import math

from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import metrics
from watcher_cputier import model
from watcher_cputier.audits import values
from watcher_cputier.conf import watcher as watcher_conf
from watcher_cputier.datasources import audits
from watcher_cputier.datasources import prometheus
from watcher_cputier.datasources import telemetry

_GROWTH = (
    "max by ({labels}) (((max_over_time({name}[{span}s]) - "
    "min_over_time({name}[{span}s])) unless resets({name}[{span}s]) > 0) or "
    "(increase({name}[{span}s]) and resets({name}[{span}s]) > 0))"
)


def configured(
    conf: cfg.ConfigOpts, connected: sdk.Connection
) -> prometheus.Source | None:
    """The Prometheus that configuration or catalogue tell; None without.

    :raises ServiceError: if the catalogue cannot be had
    :raises ConfigurationError: if an option is unusable
    """
    watcher_conf.register(conf)
    for source in (prometheus.prometheus, prometheus.aetos):
        try:
            return source(conf, connected, None)
        except telemetry.NotDeployed:
            continue
    return None


def get_series(
    source: prometheus.Source, begin: values.Moment, end: values.Moment
) -> values.Series:
    """What the exporter has counted between two moments.

    :raises ServiceError: if Prometheus cannot be asked
    """
    span = max(1, math.ceil(end.seconds - begin.seconds))
    at = math.ceil(end.seconds)

    def ask(query: str) -> list[tuple[Mapping[str, str], float]]:
        return source.evaluate(query, at)

    first = ask(f"min(min_over_time({metrics.COLLECTED}[{span}s]))")
    last = ask(f"max(max_over_time({metrics.COLLECTED}[{span}s]))")
    if not first or not last or last[0][1] < begin.seconds:
        # Nothing, or a file that nobody has renewed since.
        return values.Series(
            source=source.url, begin=None, end=None, succeeded=None
        )
    succeeded = ask(f"avg(avg_over_time({metrics.SUCCEEDED}[{span}s]))")
    unobserved = {
        labels.get("kind", ""): _minutes(seconds)
        for labels, seconds in ask(
            _GROWTH.format(name=metrics.UNOBSERVED, span=span, labels="kind")
        )
        if seconds > 0
    }
    return values.Series(
        source=source.url,
        begin=audits.moment_at(max(begin.seconds, first[0][1])),
        end=audits.moment_at(last[0][1]),
        succeeded=succeeded[0][1] if succeeded else None,
        unobserved=model.frozen_map(unobserved),
        breaches=tuple(
            _breaches(
                ask(
                    _GROWTH.format(
                        name=metrics.BREACH,
                        span=span,
                        labels="host, tier, kind",
                    )
                ),
                ask(
                    "max by (host, tier) "
                    f"(max_over_time({metrics.EXCESS}[{span}s]))"
                ),
                unobserved,
            )
        ),
    )


def _breaches(
    counted: list[tuple[Mapping[str, str], float]],
    peaks: list[tuple[Mapping[str, str], float]],
    unobserved: Mapping[str, float],
) -> Iterator[values.Breach]:
    """Those that there were, the longest first."""
    peak = {
        (labels.get("host"), labels.get("tier")): units
        for labels, units in peaks
    }
    found = []
    for labels, seconds in counted:
        host, tier = labels.get("host", ""), labels.get("tier", "")
        kind = labels.get("kind", "")
        if seconds <= 0:
            continue
        found.append(
            values.Breach(
                host=host,
                tier=tier,
                kind=kind,
                minutes=_minutes(seconds),
                at_least=kind in unobserved,
                peak_units=(
                    peak.get((host, tier)) if kind == metrics.QUOTA else None
                ),
            )
        )
    yield from sorted(
        found, key=lambda b: (-b.minutes, b.host or "", b.tier, b.kind)
    )


def _minutes(seconds: float) -> float:
    return round(seconds / 60, 1)
