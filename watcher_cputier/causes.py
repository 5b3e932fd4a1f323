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

"""Causes: why an instance starves, in words, and what would cure it.

Each function takes the numbers that prove its cause and returns one
:class:`Cause`. The words are for an operator who knows flavors and hosts but
not this package.
"""

from collections.abc import Sequence
import dataclasses

from watcher_cputier import accounting

# libvirt refuses a larger weight on a host with cgroup v2.
LARGEST_WEIGHT = 10_000
# The kernel's default weight of a cgroup v1; that of v2 is 100.
DEFAULT_V1 = 1024
_EMBEDDED = (
    "Instances keep the extra specs that they were made with: make a new "
    "flavor and resize those that run to it."
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cause:
    """One or two sentences of why, and as many of what to do."""

    cause: str
    remedy: str

    def besides(self, other: "Cause") -> "Cause":
        """Both causes, this one first."""
        return Cause(
            f"{self.cause} Besides, {other.cause[0].lower()}{other.cause[1:]}",
            f"{self.remedy} {other.remedy}",
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Domain:
    """An instance as its host's kernel sees it.

    :param tier: empty for an untiered one
    :param weight: of the domain
    :param set_by_flavor: whether its flavor sets the weight
    :param tier_weight: of one vCPU of its tier
    """

    name: str
    flavor: str
    tier: str
    vcpus: int
    weight: float
    set_by_flavor: bool
    tier_weight: float

    @property
    def per_vcpu(self) -> float:
        """Weight of one vCPU when all of them are busy."""
        return self.weight / self.vcpus

    @property
    def plain(self) -> bool:
        """Whether its weight is that of one vCPU although it has several."""
        return self.vcpus > 1 and self.weight == self.tier_weight


def not_running(status: str) -> Cause:
    """It has no running domain."""
    return Cause(f"It does not run (status {status}).", "")


def untiered() -> Cause:
    """It was promised nothing."""
    return Cause("It belongs to no tier, nothing was promised to it.", "")


def no_floor(host: str, tier: str, cpus_known: bool) -> Cause:
    """What was promised to it is not known."""
    if not cpus_known:
        return Cause(
            f"Host {host} has no known number of shared CPUs.",
            "Let nova-compute report VCPU on its root provider.",
        )
    return Cause(
        f"The quota of {tier} on host {host} is not known.",
        "Report the tier's class from its provider.yaml, or set the audit "
        "parameter quotas_by_host.",
    )


def no_reading(missing: int, windows: int) -> Cause:
    """Some window lacks a fit reading."""
    return Cause(
        f"{missing} of {windows} windows have no fit reading of it.",
        "Check that its host's collector runs; readings that span a "
        "migration, a reboot or a resize are not used.",
    )


def short_host(
    host: str, cpus: float, usable: float, floor: float, kept: float
) -> Cause:
    """Something outside the guests took CPUs of the host."""
    lost = cpus - usable
    return Cause(
        f"All guests of host {host} together got {usable:.2f} of its "
        f"{cpus:g} CPUs although they wanted more: {lost:.2f} CPUs went to "
        "something that is no guest, such as the host's own daemons. Of the "
        f"{floor:.3f} CPU per vCPU that was promised the host could keep "
        f"{kept:.3f}, and it has that.",
        f"Stop what takes the CPUs of host {host}, or give it CPUs of its "
        "own: leave them out of [compute] cpu_shared_set, and lower the "
        "quotas in proportion.",
    )


def over_quota(
    host: str,
    cpus: float,
    promised: float,
    excesses: Sequence[tuple[str, int, int]],
) -> Cause:
    """More was sold than the host has.

    :param excesses: (tier, units held, quota) of the tiers over quota
    """
    which = ", ".join(
        f"{held} units of {tier} where {quota} are its quota"
        for tier, held, quota in excesses
    )
    return Cause(
        f"The instances of host {host} are promised {promised:.2f} CPUs "
        f"together and it has {cpus:g}"
        + (f": it holds {which}." if which else "."),
        "Bring the host back to its quotas (audit parameter enforce_quota, "
        "quota_mode strict).",
    )


def noisy(host: str, domains: Sequence[Domain]) -> Cause:
    """Domains beside it that no tier accounts for.

    :param domains: the heaviest first
    """
    first = domains[0]
    if first.tier:
        kind = f"whose {first.tier} flavor {first.flavor} sets no shares"
    else:
        kind = "which belongs to no tier"
    more = len(domains) - 1
    others = f", and {more} more like it" if more else ""
    return Cause(
        f"Beside it on host {host} runs {first.name}, {kind} and whose "
        f"domain weighs {first.weight:g}{others}. What such domains take was "
        "sold to nobody.",
        f"Move {first.name} to a host without tiers, or resize it to a "
        f"flavor of a tier that sets {accounting.SHARES_SPEC}.",
    )


def under_weighted(domain: Domain, scale: float, default: int) -> Cause:
    """Its own domain weighs less than its tier gives.

    :param scale: weight that the host's other domains have for each unit of
        their tiers' weight
    :param default: weight of a domain that sets none
    """
    right = f"{domain.tier_weight * scale:.4g} per vCPU are {domain.tier}'s"
    if not domain.set_by_flavor:
        why = (
            f"Its flavor {domain.flavor} sets no {accounting.SHARES_SPEC}, so "
            f"that its domain of {_vcpus(domain)} has the weight "
            f"{domain.weight:g}, {domain.per_vcpu:.4g} per vCPU; {right}."
        )
    elif domain.plain:
        why = (
            f"Its flavor {domain.flavor} sets {accounting.SHARES_SPEC}="
            f"{domain.weight:g}, which is the weight of the whole domain: "
            f"each of its {domain.vcpus} vCPUs has {domain.per_vcpu:.4g}; "
            f"{right}."
        )
    else:
        why = (
            f"Its flavor {domain.flavor} gives its domain of "
            f"{_vcpus(domain)} the weight {domain.weight:g}, "
            f"{domain.per_vcpu:.4g} per vCPU; {right} among the domains of "
            "this host."
        )
    return Cause(why, _set_shares(domain, scale, default))


def over_weighted(
    domains: Sequence[Domain], scale: float, default: int
) -> Cause:
    """Another domain weighs more than its tier gives.

    :param domains: the one that is most out of proportion first
    """
    first = domains[0]
    more = len(domains) - 1
    others = f", and {more} more like it" if more else ""
    return Cause(
        f"Beside it, {first.name} of flavor {first.flavor} has the weight "
        f"{first.per_vcpu:.4g} per vCPU; {first.tier_weight * scale:.4g} are "
        f"{first.tier}'s among the domains of this host{others}.",
        _set_shares(first, scale, default),
    )


def capped(domain: Domain, limit_cpus: float) -> Cause:
    """Its own flavor does not let it run faster."""
    return Cause(
        f"Its flavor {domain.flavor} caps it at {limit_cpus:.2f} CPUs "
        "(quota:cpu_quota), less than its tier promises.",
        f"Take quota:cpu_quota out of flavor {domain.flavor}. {_EMBEDDED}",
    )


def unexplained(
    host: str, expected: float, usage: float, unmeasured: int, moved: bool
) -> Cause:
    """Weights and quotas are right as far as they are known.

    :param expected: CPUs per vCPU that the model gives it
    :param unmeasured: running instances of the host without telemetry
    :param moved: whether it was migrated a short while ago
    """
    why = (
        "Weights and quotas are right as far as flavors and Placement tell: "
        f"by them it would get {expected:.3f} CPU per vCPU, and it got "
        f"{usage:.3f}."
    )
    if moved:
        return Cause(
            f"{why} It was migrated a short while ago; a live migration can "
            "lose the weight of a domain.",
            "Compare `virsh schedinfo` of its domain with its flavor; a hard "
            "reboot restores the weight.",
        )
    if unmeasured:
        return Cause(
            f"{why} {unmeasured} instances of host {host} have no telemetry, "
            "so that it cannot be told what the host's own daemons took.",
            "Let the collectors of all its instances report usage and steal.",
        )
    return Cause(
        why,
        f"Look on host {host} for what the model does not see: pinned CPUs, "
        "other control groups, weights set by hand (`virsh schedinfo`).",
    )


def _vcpus(domain: Domain) -> str:
    return "1 vCPU" if domain.vcpus == 1 else f"{domain.vcpus} vCPUs"


def _set_shares(domain: Domain, scale: float, default: int) -> str:
    value = max(2, round(domain.tier_weight * scale * domain.vcpus))
    text = (
        f"Set {accounting.SHARES_SPEC}={value} on flavor {domain.flavor} "
        f"({domain.tier_weight * scale:.4g} x {domain.vcpus}). {_EMBEDDED}"
    )
    if value > LARGEST_WEIGHT and default != DEFAULT_V1:
        per_vcpu = LARGEST_WEIGHT // domain.vcpus
        text += (
            f" libvirt refuses more than {LARGEST_WEIGHT} on hosts with "
            "cgroup v2, so give all flavors of all tiers a smaller scale, "
            f"with at most {per_vcpu} per vCPU of {domain.tier}."
        )
    return text
