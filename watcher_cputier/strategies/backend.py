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

"""Our datasource, as ``openstack optimize strategy state`` asks after it.

Watcher wants an object with a name, a map of metrics, and two questions. It
has no place for a reason: that goes into what it prints for the state.
"""

from collections.abc import Mapping
import functools
import time

from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import errors
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import telemetry

AVAILABLE = "available"
# Watcher's API waits a minute for the whole answer, by default.
_PATIENCE_SECONDS = 20
#: What a strategy of ours needs, by the names of roles.
METRICS = (telemetry.CPU, telemetry.STEAL)


class Backend:
    """The source that telemetry would be read from now.

    :param conf: the service's configuration
    :param connected: a connection with Watcher's credentials
    """

    def __init__(self, conf: cfg.ConfigOpts, connected: sdk.Connection):
        self._conf = conf
        self._connected = connected

    @property
    def NAME(self) -> str:  # noqa: N802 - Watcher's name for it
        """The name of the source, or of the first that was looked for."""
        source = self._source
        if isinstance(source, errors.TierError):
            return "telemetry"
        return source.name

    @property
    def METRIC_MAP(self) -> Mapping[str, str]:  # noqa: N802 - Watcher's
        """{what is needed: its name there}."""
        source = self._source
        if isinstance(source, errors.TierError):
            return {role: role for role in METRICS}
        try:
            return {metric.role: metric.name for metric in source.metrics()}
        except errors.TierError:
            return {role: role for role in METRICS}

    def check_availability(self) -> str:
        """``available``, or what keeps it from being so."""
        source = self._source
        if isinstance(source, errors.TierError):
            return f"not available: {source}"
        try:
            for metric in source.metrics():
                source.offers(metric)
        except errors.TierError as exc:
            return f"not available: {exc}"
        return AVAILABLE

    def list_metrics(self) -> list[str]:
        """Names of the needed metrics that are there."""
        source = self._source
        if isinstance(source, errors.TierError):
            return []
        try:
            return [
                metric.name
                for metric in source.metrics()
                if source.offers(metric)
            ]
        except errors.TierError:
            return []

    @functools.cached_property
    def _source(self) -> telemetry.Source | errors.TierError:
        """The first source that the cloud has, or why there is none."""
        first: errors.TierError | None = None
        try:
            seconds = min(
                _PATIENCE_SECONDS,
                tiers_conf.catalogue(self._conf).read_timeout_seconds,
            )
            for name in telemetry.preference(self._conf):
                try:
                    return telemetry.load(
                        name,
                        self._conf,
                        self._connected,
                        time.monotonic() + seconds,
                    )
                except telemetry.NotDeployed as exc:
                    first = first or exc
        except errors.TierError as exc:
            return exc
        assert first is not None  # there is a preference
        return first
