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

"""Borrow and reclaim: a tier above its policy quota while others are idle.

Rules (R91, R93, N6; the design, section 8). In ``quota_mode: borrow`` an
excess of a host is *lent*, and stays, while all of this holds:

* it is above the audit's policy quota and not above what Placement's
  inventory admits: capacity is sold for good and never lent;
* the host is not drained;
* every other tier with instances there is idle: in every window its
  instances together want (usage and steal) at most ``idle_fraction`` of what
  they are promised, which is the floor of each of their vCPUs;
* that is known: there is telemetry of each of those instances, and a floor.

When one of them wakes, or is not known to sleep, the excess is one like any
other and is cured. What cannot be lent because something is not known is
reported: there the audit is strict.

Nobody is brought to a host to borrow. An excess that is lent came about by
itself, and the host takes no more of the tier while it lasts. What has been
pulled back is therefore not lent out again by an audit, and a tier that falls
asleep and wakes by turns moves nobody back and forth.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import math

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import errors
from watcher_cputier import loads
from watcher_cputier import model
from watcher_cputier import parameters

BORROW = "borrow"
# Names of findings.
LENT = "lent"
RECLAIMED = "reclaimed"
NOT_LENT = "not_lent"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Sleep:
    """Whether a tier of a host sleeps.

    :param unknown: why that is not known; empty if it is
    :param wanted_cpus: what it wants in the window in which it wants most
    :param promised_cpus: what its instances are promised together
    """

    tier: str
    unknown: str = ""
    wanted_cpus: float = 0.0
    promised_cpus: float = 0.0

    def idle(self, fraction: float) -> bool:
        """Whether it wants at most this fraction of what it is promised."""
        limit = fraction * self.promised_cpus
        return not self.unknown and self.wanted_cpus <= limit

    def __str__(self) -> str:
        return (
            f"{self.tier} wants {self.wanted_cpus:.2f} of "
            f"{self.promised_cpus:.2f} CPUs promised"
        )


def lend(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
) -> diagnosing.Diagnosis:
    """The diagnosis with excesses that are lent set apart.

    :param diagnosis: one with something lent already is returned as it is
    :returns: in ``quota_mode: strict`` the same; else one whose ``excesses``
        are those to be cured, with the others in ``lent``, and findings of
        what was decided
    """
    if params.quota_mode != BORROW or diagnosis.lent:
        return diagnosis
    if cluster.telemetry is None:
        return _with(diagnosis, (), (_blind(),))
    floors = entitlement.floors(cluster, diagnosis)
    lent = []
    findings = []
    for excess in diagnosis.excesses:
        if not _lendable(diagnosis, excess):
            continue
        others = [
            _sleep(cluster, floors, params, excess.host, tier.name)
            for tier in cluster.tiers
            if tier.name != excess.tier
        ]
        here = [one for one in others if one is not None]
        findings.append(_told(excess, here, params))
        if all(one.idle(params.idle_fraction) for one in here):
            lent.append(excess)
    return _with(diagnosis, lent, findings)


def _blind() -> model.Finding:
    return model.Finding(
        kind=NOT_LENT,
        subject="cloud",
        text="quota_mode is borrow, and there is no telemetry: whether other "
        "tiers are idle is not known, so that nothing is lent and every "
        "excess is cured.",
    )


def _with(
    diagnosis: diagnosing.Diagnosis,
    lent: Iterable[diagnosing.Excess],
    findings: Iterable[model.Finding],
) -> diagnosing.Diagnosis:
    apart = tuple(lent)
    kept = {(one.host, one.tier) for one in apart}
    return dataclasses.replace(
        diagnosis,
        excesses=tuple(
            one
            for one in diagnosis.excesses
            if (one.host, one.tier) not in kept
        ),
        lent=apart,
        findings=(*diagnosis.findings, *findings),
    )


def _lendable(
    diagnosis: diagnosing.Diagnosis, excess: diagnosing.Excess
) -> bool:
    """Whether it is policy alone that an excess is above."""
    quota = diagnosis.quotas[excess.host, excess.tier]
    if quota.drained or excess.host in diagnosis.drained:
        return False
    if quota.policy is None or quota.units != quota.policy:
        return False
    return quota.capacity is None or excess.held <= quota.capacity


def _sleep(
    cluster: model.Cluster,
    floors: Mapping[tuple[str, str], float],
    params: parameters.Parameters,
    host: str,
    tier: str,
) -> _Sleep | None:
    """How a tier of a host sleeps; None where it has no instances there."""
    mine = [
        one
        for one in cluster.instances_by_host.get(host, ())
        if one.tier == tier
    ]
    if not mine:
        return None
    floor = floors.get((host, tier))
    if floor is None:
        return _Sleep(tier=tier, unknown=f"what {tier} is promised there")
    wants: list[tuple[float, ...]] = []
    missing = []
    for one in mine:
        wanted = wanted_cpus(cluster, one, params)
        if wanted is None:
            missing.append(one.name)
        else:
            wants.append(wanted)
    if missing:
        return _Sleep(tier=tier, unknown=f"what {errors.some(missing)} use")
    return _Sleep(
        tier=tier,
        wanted_cpus=max(
            math.fsum(window) for window in zip(*wants, strict=True)
        ),
        promised_cpus=floor * sum(one.flavor.vcpus for one in mine),
    )


def wanted_cpus(
    cluster: model.Cluster,
    instance: model.Instance,
    params: parameters.Parameters,
) -> tuple[float, ...] | None:
    """CPUs that an instance wants, in each of the last windows.

    :returns: None where it is not known in every one of them. One that is
        shut off wants nothing
    """
    if instance.status in loads.STOPPED:
        return (0.0,) * params.windows
    telemetry = cluster.telemetry
    if telemetry is None or len(telemetry.windows) < params.windows:
        return None
    read = telemetry.readings.get(instance.uuid, ())[-params.windows :]
    found = [
        one.usage_cpus + one.steal_cpus for one in read if one is not None
    ]
    return tuple(found) if len(found) == params.windows else None


def _told(
    excess: diagnosing.Excess,
    others: list[_Sleep],
    params: parameters.Parameters,
) -> model.Finding:
    """What was decided about an excess, and why."""
    units = (
        f"{excess.host} holds {excess.held} {excess.tier} units, "
        f"{excess.units} above its policy quota of {excess.quota}"
    )
    fraction = params.idle_fraction
    unknown = [one.unknown for one in others if one.unknown]
    awake = [
        one for one in others if not one.unknown and not one.idle(fraction)
    ]
    if awake:
        kind = RECLAIMED
        why = (
            f"{'; '.join(map(str, awake))}, more than {fraction:g} of it: "
            "they are pulled back"
        )
    elif unknown:
        kind = NOT_LENT
        why = (
            f"it is not known {' and '.join(unknown)}: they are not lent but "
            "pulled back. See that there is telemetry of all instances"
        )
    elif others:
        kind = LENT
        why = f"{'; '.join(map(str, others))}: they are lent while that lasts"
    else:
        kind = LENT
        why = "it has no instances of other tiers: they are lent"
    return model.Finding(
        kind=kind, subject=excess.host, text=f"{units}; {why}."
    )


def lines(diagnosis: diagnosing.Diagnosis) -> Iterator[str]:
    """What is lent, a sentence for each."""
    for one in diagnosis.lent:
        yield (
            f"{one.host} lends {one.tier} {one.units} "
            f"unit{'s' * (one.units != 1)} above its policy quota of "
            f"{one.quota}"
        )
