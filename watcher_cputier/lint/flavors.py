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


"""Flavors and their instances against tiers and the kernel."""

from collections.abc import Iterator, Mapping
import re

from watcher_cputier import accounting
from watcher_cputier import catalogue
from watcher_cputier import entitlement
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier.lint import values

ERROR = values.ERROR
WARNING = values.WARNING
INFO = values.INFO
Facts = values.Facts
Issue = values.Issue
Offered = values.Offered

# Shares per vCPU that differ less are a rounding of the same scale.
_SAME_SCALE = 0.02
# Units that differ less are the same whole number.
_WHOLE = 1e-6
_NUMBER = re.compile(r"^[0-9]+(\.[0-9]+)?$")
_PLAIN = re.compile(r"^[A-Za-z0-9_.:/=-]+$")
_WORD = re.compile(r"[A-Za-z0-9]+")
_REQUESTED = re.compile(r"^(resources|trait)[a-zA-Z0-9_-]{0,64}:(.+)$")


def _flavors(facts: Facts) -> Iterator[tuple[str, model.Flavor]]:
    """Flavors with their names for people, deleted ones in use included."""
    known = {one.name for one in facts.flavors}
    for one in facts.flavors:
        yield f"flavor {one.name}", one.flavor
    gone: dict[str, model.Flavor] = {}
    for instance in facts.cluster.instances:
        if instance.flavor.name not in known:
            gone.setdefault(instance.flavor.name, instance.flavor)
    for name, flavor in sorted(gone.items()):
        yield f"flavor {name} (deleted, in use)", flavor


def _set(flavor: model.Flavor, specs: Mapping[str, str]) -> str:
    told = " ".join(
        f"--property {_quoted(f'{key}={value}')}"
        for key, value in specs.items()
    )
    return f"openstack flavor set {told} {_quoted(flavor.name)}"


def _quoted(text: str) -> str:
    """A word of a shell."""
    if _PLAIN.match(text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


_RESIZE = "; instances keep the flavor that they were made with: resize them"


def _request(facts: Facts, tier: model.Tier, vcpus: int) -> dict[str, str]:
    """What a flavor of a tier has to ask for."""
    shares = str(tier.cpu_shares * vcpus)
    name = facts.cluster.shares_class
    if name is not None:
        units = str(round(tier.multiplier * vcpus))
        return {f"resources:{name}": units, accounting.SHARES_SPEC: shares}
    return {
        f"resources:{tier.resource_class}": str(vcpus),
        accounting.SHARES_SPEC: shares,
    }


def _untiered_flavors(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Flavors that bypass the accounting (R46, R47)."""
    cluster = facts.cluster
    if not cluster.tier_classes:
        return
    for subject, flavor in _flavors(facts):
        if offer.accounting_of(cluster).asked(flavor) is not None:
            continue
        tier = _named_tier(cluster, flavor.name) or cluster.tiers[-1]
        yield Issue(
            severity=WARNING,
            kind="untiered_flavor",
            subject=subject,
            why="it requests no tier's class: its instances bypass the "
            "quotas, and beside tiered ones they weigh "
            f"{entitlement.weight(flavor, cluster.shares_rule):g}",
            mend=_set(flavor, _request(facts, tier, flavor.vcpus)) + _RESIZE,
            requirement="R46",
        )


def _units(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """One unit is one vCPU (R45), and of one tier."""
    cluster = facts.cluster
    for subject, flavor in _flavors(facts):
        claim = offer.accounting_of(cluster).asked(flavor)
        if claim is None:
            continue
        if claim.doubt:
            yield Issue(
                severity=ERROR,
                kind="several_tiers",
                subject=subject,
                why=claim.doubt,
                mend="Leave it the request of one tier: openstack flavor "
                f"unset --property resources:<class> {_quoted(flavor.name)}",
                requirement="R45",
            )
            continue
        if cluster.shares_class is not None:
            if claim.tier is not None:
                yield from _fraction(facts, subject, flavor, claim)
            else:
                yield Issue(
                    severity=ERROR,
                    kind="unknown_multiplier",
                    subject=subject,
                    why=f"{claim.units} units of {cluster.shares_class} for "
                    f"{flavor.vcpus} vCPUs are the multiplier of no tier: "
                    "its instances belong to none",
                    mend="Correct the request, or add a tier with the "
                    f"multiplier {claim.units / max(1, flavor.vcpus):g}",
                    requirement="R32",
                )
            continue
        if claim.tier is not None and claim.units != flavor.vcpus:
            tier = cluster.tier_by_name[claim.tier]
            name = f"resources:{tier.resource_class}"
            yield Issue(
                severity=ERROR,
                kind="units_differ_from_vcpus",
                subject=subject,
                why=f"it requests {claim.units} {tier.resource_class} for "
                f"{flavor.vcpus} vCPUs: quotas count what nobody runs, or "
                "less than what runs",
                mend=_set(flavor, {name: str(flavor.vcpus)}) + _RESIZE,
                requirement="R45",
            )


def _fraction(
    facts: Facts,
    subject: str,
    flavor: model.Flavor,
    claim: accounting.Claim,
) -> Iterator[Issue]:
    """A multiplier that makes no whole number of units (R53)."""
    tier = facts.cluster.tier_by_name[claim.tier or ""]
    exact = tier.multiplier * flavor.vcpus
    if abs(exact - claim.units) < _WHOLE:
        return
    yield Issue(
        severity=WARNING,
        kind="fractional_units",
        subject=subject,
        why=f"{flavor.vcpus} vCPUs of {tier.name} are {exact:g} units, and it "
        f"requests {claim.units}: Placement counts whole ones, so that the "
        "rounding is sold or lost with each instance",
        mend=f"[cputier_tier_{tier.name}] multiplier = a number of which "
        f"{flavor.vcpus} make a whole one, and the flavors with it",
        requirement="R53",
    )


def _shares(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """Shares have to be those of the tier, times the vCPUs (R13, R49)."""
    cluster = facts.cluster
    scales: dict[float, list[str]] = {}
    for subject, flavor in _flavors(facts):
        tier = cluster.tier_by_name.get(offer.tier_of(cluster, flavor) or "")
        if tier is None or flavor.vcpus < 1:
            continue
        wanted = tier.cpu_shares * flavor.vcpus
        mend = _set(flavor, {accounting.SHARES_SPEC: str(wanted)}) + _RESIZE
        if not entitlement.sets_weight(flavor, cluster.shares_rule):
            yield Issue(
                severity=ERROR,
                kind="shares_missing",
                subject=subject,
                why=f"it is {tier.name} and sets no {accounting.SHARES_SPEC}: "
                f"its instances weigh {cluster.shares_rule.unset} instead of "
                f"{wanted}",
                mend=mend,
                requirement="R49",
            )
            continue
        weight = entitlement.weight(flavor, cluster.shares_rule)
        if flavor.vcpus > 1 and weight == tier.cpu_shares:
            yield Issue(
                severity=ERROR,
                kind="plain_shares",
                subject=subject,
                why=f"{weight:g} shares are for the instance as a whole: "
                f"each of its {flavor.vcpus} vCPUs has "
                f"{weight / flavor.vcpus:g} instead of {tier.cpu_shares}",
                mend=mend,
                requirement="R13",
            )
            continue
        scale = weight / wanted
        known = next((s for s in scales if _alike(s, scale)), scale)
        scales.setdefault(known, []).append(flavor.name)
        if not _alike(scale, 1.0):
            yield Issue(
                severity=ERROR,
                kind="shares_differ",
                subject=subject,
                why=f"it sets {weight:g} shares, and {flavor.vcpus} vCPUs of "
                f"{tier.name} have {wanted}: beside others it gets "
                f"{'more' if scale > 1 else 'less'} than what was sold",
                mend=mend,
                requirement="R49",
            )
    if len(scales) > 1:
        yield _mixed(scales)


def _mixed(scales: Mapping[float, list[str]]) -> Issue:
    told = "; ".join(
        f"{scale:g} ({errors.some(sorted(names))})"
        for scale, names in sorted(scales.items())
    )
    return Issue(
        severity=ERROR,
        kind="mixed_scales",
        subject="flavors",
        why="their shares are of different scales, measured by those of the "
        f"tiers: {told}. The kernel compares them on one host",
        mend="Bring all flavors to one scale, [cputier_tier_<name>] "
        f"cpu_shares too{_RESIZE}",
        requirement="R49",
    )


def _alike(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_SCALE * max(one, other)


def _weights(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """What the kernel takes (R14), and whether it is a number (R52, R53)."""
    least, greatest = catalogue.WEIGHTS[facts.cgroup_version]
    for subject, flavor in _flavors(facts):
        for key in (accounting.SHARES_SPEC, entitlement.MULTIPLIER_SPEC):
            told = flavor.extra_specs.get(key)
            if told is None:
                continue
            plural = key == entitlement.MULTIPLIER_SPEC
            value = float(told) if _NUMBER.match(told) else 0.0
            weight = value * flavor.vcpus if plural else value
            if not plural and value != int(value):
                value = 0.0
            if not value or not least <= weight <= greatest:
                yield Issue(
                    severity=ERROR,
                    kind="weight_out_of_range",
                    subject=subject,
                    why=f"{key}={told} "
                    + (
                        f"makes a weight of {weight:g}, and control groups "
                        f"v{facts.cgroup_version} take {least} to {greatest}:"
                        " libvirt refuses to start the instance"
                        if value
                        else "is no usable number, and sets nothing"
                    ),
                    mend="Smaller shares for all tiers and flavors; "
                    "`openstack tier flavor create` proposes some",
                    requirement="R52" if plural else "R14",
                )
            elif plural and facts.cluster.shares_class and weight % 1:
                yield Issue(
                    severity=ERROR,
                    kind="fractional_units",
                    subject=subject,
                    why=f"{key}={told} with {flavor.vcpus} vCPUs makes "
                    f"{weight:g} units, and Placement counts whole ones",
                    mend="Change the multiplier or the number of vCPUs",
                    requirement="R53",
                )


def _unknown_names(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Classes and traits that Placement does not know (R43, R174)."""
    for subject, flavor in _flavors(facts):
        for key, value in flavor.extra_specs.items():
            matched = _REQUESTED.match(key)
            if matched is None:
                continue
            kind, name = matched.groups()
            known = facts.classes if kind == "resources" else facts.traits
            if known is None or name in known or value in ("0", "forbidden"):
                continue
            what = "class" if kind == "resources" else "trait"
            yield Issue(
                severity=ERROR,
                kind=f"unknown_{what}",
                subject=subject,
                why=f"{key}: Placement knows no such {what}, and no host can "
                "take its instances",
                mend=f"Correct the name, or openstack "
                f"{'resource class' if what == 'class' else 'trait'} create "
                f"{_quoted(name)} (CUSTOM_ ones)",
                requirement="R43" if what == "class" else "R174",
            )
    if facts.classes is None or facts.cluster.shares_class is not None:
        return
    for tier in facts.cluster.tiers:
        if tier.resource_class not in facts.classes:
            yield Issue(
                severity=ERROR,
                kind="unknown_class",
                subject=f"tier {tier.name}",
                why="Placement does not know its class, "
                f"{tier.resource_class}",
                mend="openstack tier provider-config generate, and restart "
                "nova-compute; or correct [cputier_tier_"
                f"{tier.name}] resource_class",
                requirement="R43",
            )


def _fits_nowhere(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Flavors that no host could take if it were empty (R144)."""
    cluster = facts.cluster
    for subject, flavor in _flavors(facts):
        claim = offer.accounting_of(cluster).asked(flavor)
        if claim is None or claim.doubt:
            continue
        for name in sorted(
            offer.accounting_of(cluster).classes & flavor.resources.keys()
        ):
            most = max(
                (_largest(host, name) for host in cluster.hosts), default=0
            )
            if flavor.resources[name] > most:
                yield Issue(
                    severity=WARNING,
                    kind="fits_nowhere",
                    subject=subject,
                    why=f"it requests {flavor.resources[name]} {name}, and "
                    f"the most that a single host grants is {most}",
                    mend="openstack tier provider-config generate with a "
                    "higher total or max_unit, or openstack flavor delete "
                    f"{_quoted(flavor.name)}",
                    requirement="R144",
                )


def _largest(host: model.Host, name: str) -> int:
    """The most units of a class that an empty host grants at once."""
    return max(
        (
            min(inventory.max_unit, values.whole(inventory))
            for provider in host.providers
            if (inventory := provider.inventories.get(name)) is not None
        ),
        default=0,
    )


def _named_tier(cluster: model.Cluster, name: str) -> model.Tier | None:
    """The tier that a name tells, by one of its words."""
    words = {word.lower() for word in _WORD.findall(name)}
    for tier in cluster.tiers:
        if tier.name.lower() in words:
            return tier
    return None


def _names(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """Names that tell another tier (R50)."""
    cluster = facts.cluster
    for one in facts.flavors:
        tier = offer.tier_of(cluster, one.flavor)
        wrong = [
            (what, named)
            for what, text in (
                ("name", one.name),
                ("description", one.description),
            )
            if (named := _named_tier(cluster, text)) is not None
            and tier not in (None, named.name)
        ]
        if not wrong:
            continue
        what, told = wrong[0]
        yield Issue(
            severity=WARNING,
            kind="name_tells_another_tier",
            subject=f"flavor {one.name}",
            why=f"it is {tier}, and its {what} says {told.name}: people "
            "choose flavors by that",
            mend="Correct the request ("
            + _set(one.flavor, _request(facts, told, one.flavor.vcpus))
            + f", and take that of {tier} out), or make it anew under "
            "another name",
            requirement="R50",
        )


def _variants(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """Variants of a size differ in their tier alone (R51)."""
    cluster = facts.cluster
    sizes: dict[str, dict[str, Offered]] = {}
    for one in facts.flavors:
        tier = _named_tier(cluster, one.name)
        if tier is None or offer.tier_of(cluster, one.flavor) != tier.name:
            continue
        base = re.sub(
            rf"(?i)\b{re.escape(tier.name)}\b", "*", one.name.replace("_", "-")
        )
        sizes.setdefault(base, {})[tier.name] = one
    for base, found in sorted(sizes.items()):
        ranked = [t.name for t in cluster.tiers if t.name in found]
        first = found[ranked[0]]
        for name in ranked[1:]:
            yield from _compared(cluster, found[name], first)
        missing = [t.name for t in cluster.tiers if t.name not in found]
        if missing:
            yield Issue(
                severity=INFO,
                kind="variant_missing",
                subject=f"size {base}",
                why=f"there is no variant of {', '.join(missing)}",
                mend="openstack tier flavor create "
                f"{' '.join(f'--tier {m}' for m in missing)} "
                f"--vcpus {first.flavor.vcpus} --ram {first.flavor.memory_mb}"
                f" --disk {first.root_gb} "
                f"--name {_quoted(base.replace('*', '{tier}', 1))} "
                f"{_quoted(base.strip('*.- ') or base)}",
                requirement="R44",
            )


def _compared(
    cluster: model.Cluster, one: Offered, other: Offered
) -> Iterator[Issue]:
    for what, mine, theirs in (
        ("vCPUs", one.flavor.vcpus, other.flavor.vcpus),
        ("MB of memory", one.flavor.memory_mb, other.flavor.memory_mb),
        ("GB of disk", one.root_gb, other.root_gb),
        ("GB of ephemeral disk", one.ephemeral_gb, other.ephemeral_gb),
        ("MB of swap", one.swap_mb, other.swap_mb),
        ("as rxtx_factor", one.rxtx_factor, other.rxtx_factor),
    ):
        if mine != theirs:
            yield Issue(
                severity=WARNING,
                kind="variants_differ",
                subject=f"flavor {one.name}",
                why=f"it has {mine:g} {what}, and {other.name} has "
                f"{theirs:g}: variants of a size differ in their tier alone",
                mend=f"openstack flavor delete {_quoted(one.name)}, and make "
                "it anew with openstack tier flavor create",
                requirement="R51",
            )
    if one.public != other.public:
        access = "public" if other.public else "private"
        yield Issue(
            severity=WARNING,
            kind="variants_differ",
            subject=f"flavor {one.name}",
            why=f"it is {'public' if one.public else 'private'}, and "
            f"{other.name} is {access}: variants of a size differ in their "
            "tier alone",
            mend="Nova does not change that of a flavor: openstack flavor "
            f"delete {_quoted(one.name)}, and make it anew with openstack "
            "tier flavor create",
            requirement="R51",
        )
    own, others = _other_specs(cluster, one), _other_specs(cluster, other)
    for key in sorted(own.keys() | others.keys()):
        wanted = others.get(key)
        if own.get(key) == wanted:
            continue
        yield Issue(
            severity=WARNING,
            kind="variants_differ",
            subject=f"flavor {one.name}",
            why=f"it has {_told(key, own)}, and {other.name} has "
            f"{_told(key, others)}: variants of a size differ in their tier "
            "alone",
            mend=(
                f"openstack flavor unset --property {_quoted(key)} "
                f"{_quoted(one.name)}"
                if wanted is None
                else _set(one.flavor, {key: wanted})
            ),
            requirement="R51",
        )


def _told(key: str, specs: Mapping[str, str]) -> str:
    return f"{key}={specs[key]}" if key in specs else f"no {key}"


def _other_specs(cluster: model.Cluster, one: Offered) -> dict[str, str]:
    """Extra specs that are not the tier's own."""
    own = {accounting.SHARES_SPEC, entitlement.MULTIPLIER_SPEC}
    own |= {
        f"resources:{name}" for name in offer.accounting_of(cluster).classes
    }
    return {k: v for k, v in one.flavor.extra_specs.items() if k not in own}


def _outdated_instances(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Instances that keep what their flavor was (R19, R49)."""
    sold = {one.name: one.flavor for one in facts.flavors}
    stale: dict[str, list[str]] = {}
    for instance in facts.cluster.instances:
        flavor = sold.get(instance.flavor.name)
        if flavor is not None and _essence(flavor) != _essence(
            instance.flavor
        ):
            stale.setdefault(flavor.name, []).append(instance.name)
    for name, instances in sorted(stale.items()):
        yield Issue(
            severity=WARNING,
            kind="instances_of_an_older_flavor",
            subject=f"flavor {name}",
            why=f"{len(instances)} instances were made before it was "
            f"changed, and keep the old tier, units or shares: "
            f"{errors.some(sorted(instances))}",
            mend="openstack server resize, to a flavor that says what they "
            "shall have",
            requirement="R49",
        )


def _essence(flavor: model.Flavor) -> tuple[object, ...]:
    specs = {
        key: value
        for key, value in flavor.extra_specs.items()
        if key.startswith(("resources", "quota:cpu_shares"))
    }
    return (flavor.vcpus, tuple(sorted(specs.items())))


RULES: tuple[values.Rule, ...] = (
    _untiered_flavors,
    _units,
    _shares,
    _weights,
    _unknown_names,
    _fits_nowhere,
    _names,
    _variants,
    _outdated_instances,
)
