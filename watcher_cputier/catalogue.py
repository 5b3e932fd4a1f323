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


"""The flavors of a size: one variant for each tier (R44, R45, R49 to R53).

A variant requests the tier's class, one unit for each vCPU, and sets
``quota:cpu_shares`` to the tier's shares times its vCPUs, for the kernel
weighs the instance as a whole. Variants of one size differ in nothing else.

Control groups v2 know weights from 1 to 10 000, and libvirt refuses others:
512 a vCPU ends at 19 vCPUs. A larger flavor needs smaller shares of *every*
tier, for weights of two scales on one host cannot be compared; what would do
is proposed, and nothing is made.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import string

from watcher_cputier import accounting
from watcher_cputier import errors
from watcher_cputier import model

#: {version of control groups: the least and the greatest weight}
WEIGHTS = {1: (2, 262144), 2: (1, 10000)}
NAME = "{tier}.{size}"
# Divisors that are tried one after another, in units of the power before.
_STEPS = (2, 5, 10)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """What the variants of a size have in common.

    :param extra_specs: besides those of the tier
    :param counts_vcpus: whether they take VCPU of the host too (R24)
    """

    name: str
    vcpus: int
    memory_mb: int
    disk_gb: int
    ephemeral_gb: int = 0
    swap_mb: int = 0
    extra_specs: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )
    counts_vcpus: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One flavor to be."""

    name: str
    tier: str
    size: Size
    extra_specs: Mapping[str, str]


def variants(
    size: Size,
    tiers: Sequence[model.Tier],
    *,
    scheme: str = NAME,
    shares_class: str | None = None,
    cgroup_version: int = 2,
) -> tuple[Variant, ...]:
    """The flavors of a size, by rank of their tiers.

    :param scheme: of their names, with ``{tier}`` and ``{size}``
    :param shares_class: the class of single-class mode
    :raises ParameterError: for a weight that the kernel does not take, units
        that are not whole, or names that do not tell the tiers apart
    """
    check_weights(size.vcpus, tiers, cgroup_version)
    found = []
    for tier in tiers:
        specs = dict(size.extra_specs)
        if shares_class is None:
            specs[f"resources:{tier.resource_class}"] = str(size.vcpus)
        else:
            specs[f"resources:{shares_class}"] = str(_units(tier, size.vcpus))
        if not size.counts_vcpus:
            specs["resources:VCPU"] = "0"
        specs[accounting.SHARES_SPEC] = str(tier.cpu_shares * size.vcpus)
        found.append(
            Variant(
                name=_name(scheme, tier.name, size.name),
                tier=tier.name,
                size=size,
                extra_specs=model.frozen_map(specs),
            )
        )
    if len({one.name for one in found}) < len(found):
        raise errors.ParameterError(
            f"{scheme!r} names several flavors alike",
            where="--name",
            cure="Let {tier} be part of it",
        )
    return tuple(found)


def _name(scheme: str, tier: str, size: str) -> str:
    try:
        fields = {field for _, field, _, _ in string.Formatter().parse(scheme)}
        if not fields <= {None, "tier", "size"}:
            raise ValueError(f"unknown fields in {scheme!r}")
        return scheme.format(tier=tier, size=size)
    except ValueError as exc:
        raise errors.ParameterError(
            str(exc), where="--name", cure=f"Use {{tier}} and {{size}}: {NAME}"
        ) from exc


def _units(tier: model.Tier, vcpus: int) -> int:
    """Units of the one class; a multiplier may be fractional, they not."""
    units = tier.multiplier * vcpus
    if units != int(units) or units < 1:
        raise errors.ParameterError(
            f"{vcpus} vCPUs with the multiplier {tier.multiplier:g} are "
            f"{units:g} units, and Placement counts whole ones",
            where=f"tier {tier.name}",
            cure="Change the multiplier or the number of vCPUs",
        )
    return int(units)


def check_weights(
    vcpus: int, tiers: Sequence[model.Tier], cgroup_version: int
) -> None:
    """Refuse weights that the kernel does not take.

    :raises ParameterError: with shares for all tiers that would do
    """
    least, greatest = WEIGHTS[cgroup_version]
    for tier in tiers:
        weight = tier.cpu_shares * vcpus
        if weight > greatest:
            raise errors.ParameterError(
                f"{vcpus} vCPUs of {tier.cpu_shares} shares weigh {weight}, "
                f"and control groups v{cgroup_version} take {greatest} at "
                "most",
                where=f"tier {tier.name}",
                cure=_proposal(vcpus, tiers, greatest),
            )
        if weight < least:
            raise errors.ParameterError(
                f"{vcpus} vCPUs of {tier.cpu_shares} shares weigh {weight}, "
                f"and control groups v{cgroup_version} take {least} at least",
                where=f"tier {tier.name}",
                cure="Raise the shares of all tiers alike",
            )


def _proposal(vcpus: int, tiers: Sequence[model.Tier], greatest: int) -> str:
    divisor = scale_down(vcpus, tiers, greatest)
    if divisor is None:
        return "No smaller shares tell the tiers apart: take fewer vCPUs"
    shares = {t.name: _scaled(t.cpu_shares, divisor) for t in tiers}
    told = ", ".join(
        f"[cputier_tier_{name}] cpu_shares = {number}"
        for name, number in shares.items()
    )
    return (
        f"Divide the shares of all tiers and all flavors by {divisor}: "
        f"{told}; that is enough for {greatest // max(shares.values())} "
        "vCPUs. Weights of two scales on one host cannot be compared, so "
        "change all flavors, and resize or recreate their instances"
    )


def scale_down(
    vcpus: int, tiers: Sequence[model.Tier], greatest: int
) -> int | None:
    """The least of 2, 5, 10, 20, ... that brings all weights in range.

    None where the tiers' shares would not differ any more.
    """
    power = 1
    before = len({tier.cpu_shares for tier in tiers})
    while True:
        for step in _STEPS:
            divisor = power * step
            scaled = [_scaled(tier.cpu_shares, divisor) for tier in tiers]
            if len(set(scaled)) < before or min(scaled) < 1:
                return None
            if max(scaled) * vcpus <= greatest:
                return divisor
        power *= 10


def _scaled(shares: int, divisor: int) -> int:
    """Half up, as people round."""
    return (2 * shares + divisor) // (2 * divisor)
