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

"""Who is where as a plan grows, as forecasts want to know it."""

from collections.abc import Iterable
import math

from watcher_cputier import starvation as starving


class Picture:
    """Populations of hosts, and what the model expects of them."""

    def __init__(self, starvation: starving.Starvation) -> None:
        assert starvation.sight is not None  # somebody was judged
        self._starvation = starvation
        self._loads = starvation.sight.loads
        self._coming: dict[str, frozenset[str]] = {}
        self._going: dict[str, frozenset[str]] = {}
        self._now: dict[str, starving.Forecast] = {}

    def move(self, uuid: str, source: str, target: str) -> None:
        """An instance is on another host from now on."""
        for host, coming, going in (
            (source, (), (uuid,)),
            (target, (uuid,), ()),
        ):
            then = self.population(host, coming, going)
            self._coming[host] = then.arrivals
            self._going[host] = then.departures
            self._now.pop(host, None)

    def population(
        self,
        host: str,
        coming: Iterable[str] = (),
        going: Iterable[str] = (),
    ) -> starving.Population:
        """A host as it would be, relative to what was measured."""
        arrivals = set(self._coming.get(host, ()))
        departures = set(self._going.get(host, ()))
        for uuid in going:
            if self.home(uuid) == host:
                departures.add(uuid)
            arrivals.discard(uuid)
        for uuid in coming:
            if self.home(uuid) != host:
                arrivals.add(uuid)
            departures.discard(uuid)
        return starving.Population(
            host=host,
            arrivals=frozenset(arrivals),
            departures=frozenset(departures),
        )

    def home(self, uuid: str) -> str:
        """Where an instance was measured."""
        loads = self._loads
        return loads.instances[loads.position[uuid]].host

    def demand(self, uuid: str) -> float:
        """CPUs that an instance wants."""
        return float(self._loads.demands[self._loads.position[uuid]])

    def floor(self, uuid: str, host: str) -> float | None:
        """f0 of an instance on a host; None where it is not known."""
        loads = self._loads
        tier = loads.tier[loads.position[uuid]]
        if tier < 0:
            return None
        found = float(loads.floors[loads.host_position[host], tier])
        return None if math.isnan(found) else found

    def judged(self, host: str) -> bool:
        """Whether all that a forecast of a host is made of was measured."""
        now = self.now(host)
        return not (now.unknown or now.guessed)

    def changed(self, host: str) -> bool:
        """Whether other people are there than were measured."""
        return bool(self._coming.get(host) or self._going.get(host))

    def forecasts(
        self, populations: Iterable[starving.Population]
    ) -> tuple[starving.Forecast, ...]:
        """What the model expects."""
        return self._starvation.predict(populations)

    def now(self, host: str) -> starving.Forecast:
        """What the model expects of a host as it is by now."""
        found = self._now.get(host)
        if found is None:
            (found,) = self.forecasts([self.population(host)])
            self._now[host] = found
        return found
