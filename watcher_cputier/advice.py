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


"""Where selling less would cure what no migration can (R94, R105).

With right weights and quotas kept nobody starves on CPUs that the host has.
It has fewer than it sold where something else takes them: its own daemons
(C of its N CPUs are left for guests) or instances of no tier, which nobody
accounts for. Who starves of that, and whom no migration helps, is served
when the host sells only what it has::

    A  = C - what untiered instances use
    q' = int(q A / N)         for the quota q of each tier

Each unit was sold with the floor f0, and the sum of q f0 is N at most, so
that the sum of q' f0 is A at most: when what is above q' has left, all that
remains gets its floor, however busy it is.

A says what was measured. It is advice: the lower totals go into the host's
provider.yaml, its VCPU ratio and cpu_shared_set with them; nothing is changed
here. What is not measured is not advised on.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import starvation as starving

# Of N; less is no more than what a measurement may be wrong by.
_LEAST = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lowering:
    """A host that should sell less.

    :param cpus: N, that it sells
    :param left_cpus: A, that its tiers' instances can have
    :param totals: {account: (its quota now, what cures)}
    :param leaving: {account: units that are above that now}
    :param starved: names of those whom no migration helps
    """

    host: str
    cpus: int
    left_cpus: float
    totals: Mapping[str, tuple[int, int]]
    leaving: Mapping[str, int]
    starved: tuple[str, ...]

    @property
    def text(self) -> str:
        """The whole in a few sentences."""
        told = ", ".join(
            f"{account} {then} instead of {now}"
            for account, (now, then) in self.totals.items()
        )
        going = ", ".join(
            f"{units} {account}"
            for account, units in self.leaving.items()
            if units
        )
        stays = "starve" if len(self.starved) > 1 else "starves"
        return (
            f"{self.host} sells {self.cpus} CPUs and has "
            f"{self.left_cpus:.2f} for its tiers: "
            f"{errors.some(self.starved)} {stays} there, and no migration "
            f"helps. With quotas of {told} it would keep what it sells"
            + (
                f"; {going} units would have to leave."
                if going
                else "; nothing would have to leave."
            )
        )


def lowerings(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    starvation: starving.Starvation,
    remedies: Iterable[planner.Remedy],
) -> tuple[Lowering, ...]:
    """Hosts whose over-subscription is to be lowered, by name.

    :param starvation: who starves, and what CPUs guests could have
    :param remedies: of those whom no migration of a plan helps
    """
    helpless: dict[str, list[str]] = {}
    for remedy in remedies:
        one = remedy.condition
        if one.verdict in (starving.SHORT_HOST, starving.NOISY_UNTIERED):
            names = helpless.setdefault(one.instance.host, [])
            names.append(one.instance.name)
    found = []
    for name, starved in sorted(helpless.items()):
        host = cluster.host_by_name[name]
        cpus = host.shared_cpus
        left = _left_cpus(cluster, starvation, name)
        if not cpus or left is None or left > cpus * (1 - _LEAST):
            continue
        totals = {
            account: (quota, int(quota * max(0.0, left) / cpus))
            for account in cluster.accounts
            if (quota := diagnosis.quota(name, account)) is not None
        }
        found.append(
            Lowering(
                host=name,
                cpus=cpus,
                left_cpus=max(0.0, left),
                totals=totals,
                leaving={
                    account: max(
                        0, cluster.held.get((name, account), 0) - then
                    )
                    for account, (_, then) in totals.items()
                },
                starved=tuple(sorted(starved)),
            )
        )
    return tuple(found)


def _left_cpus(
    cluster: model.Cluster, starvation: starving.Starvation, host: str
) -> float | None:
    """A; None where somebody on the host was not measured."""
    left = starvation.usable_cpus.get(host)
    if left is None or cluster.telemetry is None:
        return None
    for instance in cluster.instances_by_host.get(host, ()):
        if instance.status != "ACTIVE":
            continue
        readings = cluster.telemetry.readings.get(instance.uuid, ())
        used = [one.usage_cpus for one in readings if one is not None]
        if not used:
            return None
        if instance.tier is None:
            left -= sum(used) / len(used)
    return left
