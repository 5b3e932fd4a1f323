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

"""Entitlement: the CPUs that weights give, and those that a tier promises.

The kernel shares the CPUs of a host between domains in proportion to their
weights, and hands on what one of them does not take. That is weighted
max-min fairness, also called water filling::

    g_i = min(cap_i, level * w_i)        cap_i = min(demand_i, vCPUs_i)
    level such that  sum(g) = min(C, sum(cap))

with C the CPUs that the host's guests can get together (L7: it conserves
CPUs, is monotone in one's own weight, and a common factor of all weights
changes nothing). Against a real kernel the error is .006 cores on average
for domains that always want to run; for clients that think between requests
it is an upper bound, since they want less when they are slowed.

The weight is the domain's, not the vCPU's: eight vCPUs that share 512 have
64 each (R150). Three instances of one vCPU, gold, silver and bronze with 512,
333 and 167, get 50.6, 32.9 and 16.5 % of one CPU.

The **floor** of a tier on a host is the speed that was sold, per vCPU::

    f0_t = w_t / sum over tiers j of (w_j q_j / N)     at most 1

with q_j the quotas of the tiers on the host before any drain and N its
shared CPUs. When all that was sold is there and wants to run, everybody gets
the floor and all CPUs are used. In single-class mode, where the multiplier
tells a tier and all draw on one class, f0 = multiplier x N / capacity of the
class.
"""

from collections.abc import Mapping
import re

import numpy as np
from numpy import typing as npt

from watcher_cputier import accounting
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model

MULTIPLIER_SPEC = "quota:cpu_shares_multiplier"
QUOTA_SPEC = "quota:cpu_quota"
PERIOD_SPEC = "quota:cpu_period"
# libvirt's, in microseconds, where a flavor sets a quota and no period.
_PERIOD = 100_000
_NUMBER = re.compile(r"^[0-9]+(\.[0-9]+)?$")

# A deficit per vCPU, in CPUs, that no measurement tells from none.
TOLERANCE = 0.02

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]


def weight(flavor: model.Flavor, rule: model.SharesRule) -> float:
    """The weight of a domain among the domains of its host.

    It is what ``quota:cpu_shares`` says, for the domain as a whole. A Nova
    that knows ``quota:cpu_shares_multiplier`` multiplies it by the vCPUs.
    Without either, or with something that is no positive number, nothing is
    set and the kernel's own default holds.
    """
    shares = _number(flavor, accounting.SHARES_SPEC)
    if shares:
        return shares
    multiplier = _number(flavor, MULTIPLIER_SPEC)
    if rule.multiplied and multiplier:
        return multiplier * max(1, flavor.vcpus)
    return float(rule.unset)


def sets_weight(flavor: model.Flavor, rule: model.SharesRule) -> bool:
    """Whether a flavor sets the weight of its domains at all."""
    return bool(
        _number(flavor, accounting.SHARES_SPEC)
        or (rule.multiplied and _number(flavor, MULTIPLIER_SPEC))
    )


def limit_cpus(flavor: model.Flavor) -> float:
    """CPUs that an instance can use at most: its vCPUs, or a hard cap.

    ``quota:cpu_quota`` of each ``quota:cpu_period`` is a cap on every vCPU.
    """
    quota = _number(flavor, QUOTA_SPEC)
    if not quota:
        return float(flavor.vcpus)
    period = _number(flavor, PERIOD_SPEC) or _PERIOD
    return flavor.vcpus * min(1.0, quota / period)


def _number(flavor: model.Flavor, spec: str) -> float:
    """A positive number; 0 where there is none, which sets nothing."""
    told = flavor.extra_specs.get(spec, "")
    return float(told) if _NUMBER.match(told) else 0.0


def fill(
    weights: npt.ArrayLike,
    caps: npt.ArrayLike,
    hosts: npt.ArrayLike,
    cpus: npt.ArrayLike,
) -> Floats:
    """Weighted max-min fair shares on all hosts at once.

    Each round gives every host's open instances the level that its remaining
    CPUs allow; who wants less takes only that and leaves, which raises the
    level for the others. What one host gets depends on its own instances
    alone, to the last bit.

    :param weights: of each instance, positive
    :param caps: CPUs that each can use, min(demand, vCPUs)
    :param hosts: index into ``cpus`` of each instance's host
    :param cpus: CPUs that the guests of each host can get together
    :returns: CPUs of each instance
    :raises ValueError: if a weight is not positive, or a cap or CPUs are
        negative or no number
    """
    weights = np.asarray(weights, np.float64)
    caps = np.asarray(caps, np.float64)
    hosts = np.asarray(hosts, np.intp)
    left = np.array(cpus, np.float64)
    if not (
        np.all(weights > 0)
        and np.all(np.isfinite(weights))
        and np.all(caps >= 0)
        and np.all(left >= 0)
    ):
        raise ValueError("weights must be positive, caps and CPUs 0 or more")
    shares = caps.copy()
    size = len(left)
    short = np.bincount(hosts, caps, size) > left
    index = np.flatnonzero(short[hosts])
    while index.size:
        home = hosts[index]
        mine = weights[index]
        total = np.bincount(home, mine, size)[home]
        level = left[home] * (mine / total)
        full = caps[index] <= level
        settled = ~(np.bincount(home, full, size) > 0)[home]
        shares[index[settled]] = level[settled]
        taken = np.bincount(home[full], caps[index[full]], size)
        left = np.maximum(left - taken, 0.0)
        index = index[~(full | settled)]
    return shares


def threshold(floor: float | Floats) -> Floats:
    """The deficit per vCPU above which an instance of a tier is starved."""
    return np.maximum(TOLERANCE, 0.10 * np.asarray(floor, np.float64))


def floors(
    cluster: model.Cluster, diagnosis: diagnosing.Diagnosis
) -> Mapping[tuple[str, str], float]:
    """f0 of every tier on every host in scope, per vCPU and in CPUs.

    Section 8 of the design, "Floor". A drain changes nothing that was sold:
    the quotas are those that the host would have without it. Tiers of
    unknown quota leave the sum.

    :returns: {(host, tier): floor}, at most 1; pairs whose quota is unknown,
        and hosts whose number of shared CPUs is, are absent
    """
    found: dict[tuple[str, str], float] = {}
    for host in cluster.hosts:
        cpus = host.shared_cpus
        if not cpus or not host.in_scope:
            continue
        if cluster.shares_class is None:
            speeds = _by_quotas(cluster, diagnosis, host, cpus)
        else:
            speeds = _by_multipliers(cluster, host, cpus)
        for tier, speed in speeds.items():
            found[host.name, tier] = min(1.0, speed)
    return model.frozen_map(found)


def _by_quotas(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    host: model.Host,
    cpus: int,
) -> dict[str, float]:
    capacities = [host.capacity(t.resource_class) for t in cluster.tiers]
    reserved = not any(capacities)
    known = {}
    for tier in cluster.tiers:
        quota = diagnosis.quotas.get((host.name, tier.name))
        units = None
        if quota is not None:
            units = _sold(host, tier, quota, reserved)
        if units is not None:
            known[tier] = units
    sold = sum(tier.cpu_shares * units for tier, units in known.items())
    if not sold:
        return {}
    return {tier.name: tier.cpu_shares * cpus / sold for tier in known}


def _by_multipliers(
    cluster: model.Cluster, host: model.Host, cpus: int
) -> dict[str, float]:
    name = cluster.shares_class
    units = None if name is None else _capacity(host, name)
    if not units:
        return {}
    return {t.name: t.multiplier * cpus / units for t in cluster.tiers}


def _sold(
    host: model.Host,
    tier: model.Tier,
    quota: diagnosing.Quota,
    reserved: bool,
) -> int | None:
    """The quota of a tier before any drain; None where it is unknown.

    :param reserved: whether all tier inventories of the host are wholly
        reserved: that is a drain. A single one is a quota of 0.
    """
    capacity = quota.capacity
    policy = quota.policy
    if reserved and capacity == 0:
        capacity = _capacity(host, tier.resource_class)
        if capacity is None:
            return None
        if policy == 0:
            # A percentage of what is reserved, not a quota of nothing.
            policy = None
    limits = [limit for limit in (capacity, policy) if limit is not None]
    return min(limits) if limits else None


def _capacity(host: model.Host, resource_class: str) -> int | None:
    """Capacity of a class with what a drain reserved given back.

    None where the host has no such class, or it is drained and what it had
    is not known.
    """
    units = host.capacity(resource_class)
    if units != 0:
        return units
    total = 0
    for provider in host.providers:
        inventory = provider.inventories.get(resource_class)
        if inventory is None:
            continue
        if inventory.total is None:
            return None
        total += int(inventory.total * inventory.allocation_ratio)
    return total
