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

"""Forecast: who would get what if instances were elsewhere.

Every instance wants what it was measured to want, used and waited for, on
average over the windows, wherever it is. The CPUs that the guests of a host
can get are shared by the weights of their domains, and the deficit that
follows is compared with the promise of its tier on that host. On two real
hosts with one CPU each, gold, silver and bronze on the first, this predicted
.754 and .246 for those that stay and 1 for the silver one after it moved to
the second, and just that was measured.

It errs on the safe side: a client that waits for answers wants less than it
was runnable for once it is served faster, and of whom nothing is known is
taken to want all of its vCPUs.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math

import numpy as np

from watcher_cputier import entitlement
from watcher_cputier import loads as measuring


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """A host as it would be: who comes and who goes, by uuid.

    Both are relative to the cluster, so that a plan's moves add up.
    """

    host: str
    arrivals: frozenset[str] = frozenset()
    departures: frozenset[str] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """What the model of entitlement expects on one host.

    :param usage_cpus: {uuid: CPUs of the whole instance}, of all there
    :param deficits: {uuid: deficit per vCPU} of those with a known floor
    :param starved: uuids whose deficit is above the threshold, sorted
    :param guessed: uuids of which nothing was measured, sorted: they are
        taken to want all of their vCPUs
    :param unknown: why the host cannot be judged; empty if it can
    """

    host: str
    usage_cpus: Mapping[str, float]
    deficits: Mapping[str, float]
    starved: tuple[str, ...]
    guessed: tuple[str, ...]
    unknown: str = ""


def predict(
    loads: measuring.Loads, populations: Sequence[Population]
) -> tuple[Forecast, ...]:
    """Fill all populations at once.

    :returns: a forecast for each population, in their order
    :raises KeyError: if a host or an instance is not in scope
    """
    groups = [_rows(loads, population) for population in populations]
    homes = np.array(
        [loads.host_position[p.host] for p in populations], np.intp
    )
    # A host whose CPUs are unknown is filled with none, and not judged.
    cpus = np.nan_to_num(loads.usable_cpus[homes], nan=0.0)
    sizes = [len(rows) for rows in groups]
    rows = np.concatenate([np.zeros(0, np.intp), *groups]).astype(np.intp)
    place = np.repeat(np.arange(len(groups)), sizes)
    demands = loads.demands[rows]
    given = entitlement.fill(
        loads.weights[rows],
        np.minimum(demands, loads.limits[rows]),
        place,
        cpus,
    )
    floor = loads.floor_at(rows, homes[place])
    deficit = (floor * demands - given) / loads.vcpus[rows]
    starved = deficit > entitlement.threshold(floor)
    ends = np.cumsum([0, *sizes]).tolist()
    uuids = [loads.instances[row].uuid for row in rows.tolist()]
    guessed = loads.guessed[rows]
    columns = (given.tolist(), deficit.tolist())
    found = []
    for number, population in enumerate(populations):
        if math.isnan(loads.cpus[homes[number]]):
            found.append(_unknown(population.host))
            continue
        part = slice(ends[number], ends[number + 1])
        names = uuids[part]
        found.append(
            Forecast(
                host=population.host,
                usage_cpus=dict(zip(names, columns[0][part], strict=True)),
                deficits={
                    uuid: value
                    for uuid, value in zip(
                        names, columns[1][part], strict=True
                    )
                    if not math.isnan(value)
                },
                starved=_chosen(names, starved[part]),
                guessed=_chosen(names, guessed[part]),
            )
        )
    return tuple(found)


def _chosen(names: Sequence[str], flags: measuring.Flags) -> tuple[str, ...]:
    return tuple(sorted(names[i] for i in np.flatnonzero(flags).tolist()))


def _unknown(host: str) -> Forecast:
    return Forecast(
        host=host,
        usage_cpus={},
        deficits={},
        starved=(),
        guessed=(),
        unknown=f"Host {host} has no known number of shared CPUs.",
    )


def _rows(loads: measuring.Loads, population: Population) -> measuring.Indices:
    """Rows of those who would be on a host, in their order."""
    here = loads.rows_by_host[loads.host_position[population.host]]
    position = loads.position
    if population.departures:
        gone = {position[uuid] for uuid in population.departures}
        here = np.array([r for r in here.tolist() if r not in gone], np.intp)
    if population.arrivals:
        come = [position[uuid] for uuid in population.arrivals]
        here = np.union1d(here, np.array(come, np.intp))
    return here
