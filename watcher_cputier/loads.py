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

"""Loads: the instances of all hosts in scope as arrays.

What the diagnosis of starvation and the prediction of a move both compute
with: who runs where, with which weight, what it used and what it was denied,
and what its tier promises there. One row is one instance, in the cluster's
order; one column is one window.

A missing number is NaN here and never 0: an instance whose reading of a
window is missing has no usage in it, and where nothing at all is known of
what an instance wants, it is taken to want all of its vCPUs. An instance that
is shut off uses nothing, and that is known.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math

import numpy as np
from numpy import typing as npt

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model

# Instances in these states have no domain that runs.
STOPPED = frozenset(
    {
        "DELETED",
        "PAUSED",
        "SHELVED",
        "SHELVED_OFFLOADED",
        "SHUTOFF",
        "SOFT_DELETED",
        "SUSPENDED",
    }
)

Floats = entitlement.Floats
Flags = npt.NDArray[np.bool_]
Indices = entitlement.Indices


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Loads:
    """Instances of the hosts in scope, in rows; windows, in columns.

    :param instances: by (name, uuid)
    :param position: {instance uuid: its row}
    :param hosts: names of the hosts in scope
    :param host_position: {host name: its index}
    :param host: index of each instance's host
    :param tier: index of its tier in the cluster's tiers; -1 for none
    :param running: whether there is a domain at all
    :param vcpus: of its flavor
    :param weights: of its domain
    :param weighted: whether its flavor sets that weight
    :param limits: CPUs that it can use at most
    :param usage: CPUs that it used, (instances, windows); NaN if unknown
    :param steal: CPUs that it waited for, of the same shape
    :param left: whether somebody left a host within the time that a reading
        of it is of, or before that ended: (hosts, windows)
    :param cpus: N, the shared CPUs of each host; NaN if unknown
    :param floors: f0, (hosts, tiers); NaN if unknown
    :param tier_weights: of one vCPU of each tier, in the proportions that
        the floors promise
    """

    instances: tuple[model.Instance, ...]
    position: Mapping[str, int]
    hosts: tuple[str, ...]
    host_position: Mapping[str, int]
    host: Indices
    tier: Indices
    running: Flags
    vcpus: Floats
    weights: Floats
    weighted: Flags
    limits: Floats
    usage: Floats
    steal: Floats
    left: Flags
    cpus: Floats
    floors: Floats
    tier_weights: Floats

    @functools.cached_property
    def floor(self) -> Floats:
        """f0 of each instance where it is now; NaN if unknown."""
        return self.floor_at(np.arange(len(self.instances)), self.host)

    def floor_at(self, rows: Indices, hosts: Indices) -> Floats:
        """f0 that instances would have on hosts; NaN if unknown."""
        tier = self.tier[rows]
        return np.where(tier < 0, math.nan, self.floors[hosts, tier])

    @functools.cached_property
    def scales(self) -> Floats:
        """Weight per vCPU over that of its tier; NaN without a tier.

        Where the scales of a host's instances are equal, its tiers have the
        proportions that were sold.
        """
        right = self.vcpus * self.tier_weights[self.tier]
        return np.where(self.tier < 0, math.nan, self.weights / right)

    @functools.cached_property
    def rows_by_host(self) -> tuple[Indices, ...]:
        """Rows of the instances of each host, in their order."""
        order = np.argsort(self.host, kind="stable")
        ends = np.cumsum(np.bincount(self.host, minlength=len(self.hosts)))
        return tuple(np.split(order, ends[:-1]))

    @functools.cached_property
    def known(self) -> Flags:
        """Whether there is a reading, (instances, windows)."""
        found: Flags = np.isfinite(self.usage) & np.isfinite(self.steal)
        return found

    @functools.cached_property
    def guessed(self) -> Flags:
        """Whether nothing is known of what an instance wants."""
        found: Flags = self.running & ~self.known.any(axis=1)
        return found

    @functools.cached_property
    def demands(self) -> Floats:
        """CPUs that each instance wants: used and waited for, on average.

        All its vCPUs where nothing is known, none where it is shut off.
        """
        wanted = mean(self.usage + self.steal)
        wanted = np.where(np.isnan(wanted), self.vcpus, wanted)
        wanted = np.where(self.running, wanted, 0.0)
        return np.minimum(wanted, self.vcpus)

    @functools.cached_property
    def usable(self) -> Floats:
        """C: CPUs that guests could really get, (hosts, windows).

        What they used while the host is contended, that is while their steal
        is above .05 N, if every guest was measured; else N.
        """
        size = len(self.hosts)
        columns = []
        for window in range(self.usage.shape[1]):
            known = self.known[:, window]
            missing = np.bincount(
                self.host, self.running & ~known, minlength=size
            )
            used, waited = (
                np.bincount(
                    self.host,
                    np.where(known, values[:, window], 0.0),
                    minlength=size,
                )
                for values in (self.usage, self.steal)
            )
            contended = (
                (missing == 0)
                & (waited > 0.05 * self.cpus)
                # Whoever left took what is not among the usage any more.
                & ~self.left[:, window]
            )
            columns.append(
                np.where(contended, np.minimum(used, self.cpus), self.cpus)
            )
        return np.stack(columns, axis=1)

    @functools.cached_property
    def usable_cpus(self) -> Floats:
        """C of each host, the mean over the windows; NaN if unknown."""
        return mean(self.usable)

    @functools.cached_property
    def mean_usage(self) -> Floats:
        """CPUs that each instance used, on average; NaN if unknown."""
        return mean(self.usage)


def tier_weight(cluster: model.Cluster, tier: model.Tier) -> float:
    """Weight of a vCPU of a tier, as the floors promise it.

    In single-class mode the multiplier is what is sold, whatever shares the
    tier is configured with.
    """
    if cluster.shares_class is None:
        return float(tier.cpu_shares)
    return tier.multiplier


def mean(values: Floats) -> Floats:
    """The mean over the windows that are known; NaN if none is."""
    known = np.isfinite(values)
    count = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1)
    return np.where(count > 0, total / np.maximum(count, 1), math.nan)


def measure(
    cluster: model.Cluster, diagnosis: diagnosing.Diagnosis, windows: int
) -> Loads:
    """Lay out what is known of the last windows of the telemetry."""
    hosts = tuple(h.name for h in cluster.hosts if h.in_scope)
    host_position = {name: i for i, name in enumerate(hosts)}
    tiers = {tier.name: i for i, tier in enumerate(cluster.tiers)}
    instances = tuple(i for i in cluster.instances if i.host in host_position)
    # Flavors are few: what follows from one is computed once.
    flavors = {id(i.flavor): i.flavor for i in instances}
    traits = {
        key: (
            float(flavor.vcpus),
            entitlement.weight(flavor, cluster.shares_rule),
            entitlement.limit_cpus(flavor),
            float(entitlement.sets_weight(flavor, cluster.shares_rule)),
        )
        for key, flavor in flavors.items()
    }
    rows = np.array(
        [traits[id(i.flavor)] for i in instances], np.float64
    ).reshape(-1, 4)
    usage, steal = _readings(cluster.telemetry, instances, windows)
    sold = entitlement.floors(cluster, diagnosis)
    return Loads(
        instances=instances,
        position={i.uuid: row for row, i in enumerate(instances)},
        hosts=hosts,
        host_position=host_position,
        host=np.array([host_position[i.host] for i in instances], np.intp),
        tier=np.array(
            [tiers.get(i.tier or "", -1) for i in instances], np.intp
        ),
        running=np.array([i.status not in STOPPED for i in instances], bool),
        vcpus=rows[:, 0],
        weights=rows[:, 1],
        limits=rows[:, 2],
        weighted=rows[:, 3] > 0,
        usage=usage,
        steal=steal,
        left=_left(cluster, host_position, windows),
        cpus=np.array(
            [
                cluster.host_by_name[name].shared_cpus or math.nan
                for name in hosts
            ],
            np.float64,
        ),
        floors=np.array(
            [
                [sold.get((name, tier), math.nan) for tier in tiers]
                for name in hosts
            ],
            np.float64,
        ).reshape(len(hosts), len(tiers)),
        tier_weights=np.array(
            [tier_weight(cluster, tier) for tier in cluster.tiers], np.float64
        ),
    )


def _left(
    cluster: model.Cluster, hosts: Mapping[str, int], windows: int
) -> Flags:
    """In which windows, (hosts, windows), somebody else was there too.

    A value may reach back by a window. A move that goes on has taken nobody
    away yet.
    """
    found = np.zeros((len(hosts), windows), bool)
    telemetry = cluster.telemetry
    if telemetry is None:
        return found
    begins = np.array(telemetry.windows[-windows:], np.int64)
    length = telemetry.window_seconds
    for change in cluster.changes:
        home = hosts.get(change.source)
        if change.moved and home is not None:
            ended = change.ended_at
            if ended is None:
                found[home] = True
            else:
                found[home, windows - len(begins) :] |= begins - length < ended
    return found


def _readings(
    telemetry: model.Telemetry | None,
    instances: tuple[model.Instance, ...],
    windows: int,
) -> tuple[Floats, Floats]:
    """CPUs used and CPUs waited for; NaN where there is no fit reading."""
    readings = {} if telemetry is None else telemetry.readings
    nothing = (math.nan, math.nan)
    values: list[float] = []
    for instance in instances:
        told = readings.get(instance.uuid, ())[-windows:]
        values.extend(nothing * (windows - len(told)))
        for reading in told:
            if reading is None:
                values.extend(nothing)
            else:
                values.extend((reading.usage_cpus, reading.steal_cpus))
    found = np.array(values, np.float64).reshape(-1, windows, 2)
    # What cannot be measured was not: it is missing, never 0.
    fit = np.isfinite(found).all(axis=2) & (found >= 0).all(axis=2)
    found[~fit] = math.nan
    return found[:, :, 0], found[:, :, 1]
