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

"""Promise against delivery: what each tier was to get, and what it got.

An instance that was runnable for u + s of the time, and promised the speed
f0, was to get f0 (u + s) and got u: the difference, where it is positive, is
its shortfall (:mod:`~watcher_cputier.starvation`). Summed over instances the
two sides say whether a tier was served, and the shortfalls, which no surplus
of others hides, whom it was not. An instance that wants little is promised
little: idle capacity is no shortfall.

Whoever was not measured in every window is counted as such and is in none of
the sums. Nothing is judged here; who is starved is told.
"""

import dataclasses

import numpy as np

from watcher_cputier import starvation as starving


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One tier over all hosts in scope; means over the windows.

    :param instances: those of the tier that run
    :param measured: those of them that have a reading in every window, and
        a known promise; the CPUs are theirs alone
    :param starved: how many do not get what was sold
    :param wanted_cpus: used and waited for
    :param promised_cpus: what they were to get of that
    :param got_cpus: used
    :param short_cpus: sum of the shortfalls of instances
    """

    tier: str
    instances: int
    measured: int
    starved: int
    wanted_cpus: float
    promised_cpus: float
    got_cpus: float
    short_cpus: float


def deliveries(found: starving.Starvation) -> tuple[Delivery, ...]:
    """Every tier, in the order of the cluster; empty if nobody looked."""
    sight = found.sight
    if sight is None:
        return ()
    loads = sight.loads
    known = np.isfinite(sight.deficit) & loads.running
    # Idle instances are known, whoever misses one window is not.
    known &= sight.codes != starving.VERDICTS.index(starving.UNKNOWN)
    starved = sight.codes > starving.VERDICTS.index(starving.SERVED)
    got = sight.usage * loads.vcpus
    wanted = (sight.usage + sight.steal) * loads.vcpus
    promised = loads.floor * wanted
    short = np.maximum(0.0, promised - got)
    return tuple(
        Delivery(
            tier=tier.name,
            instances=int((loads.running & (loads.tier == place)).sum()),
            measured=int((mine := known & (loads.tier == place)).sum()),
            starved=int((mine & starved).sum()),
            wanted_cpus=float(wanted[mine].sum()),
            promised_cpus=float(promised[mine].sum()),
            got_cpus=float(got[mine].sum()),
            short_cpus=float(short[mine].sum()),
        )
        for place, tier in enumerate(sight.cluster.tiers)
    )
