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


"""Inventories of hosts against tiers, CPUs and their files."""

from collections.abc import Iterator

from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier.lint import values

ERROR = values.ERROR
WARNING = values.WARNING
INFO = values.INFO
Facts = values.Facts
Issue = values.Issue


def _inventories(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Hosts that lack a tier's class, or sell it otherwise (R22, R39, R40)."""
    cluster = facts.cluster
    if cluster.shares_class is not None or not cluster.tier_classes:
        return
    for host in cluster.hosts:
        subject = f"host {host.name}"
        generate = (
            f"openstack tier provider-config generate --host {host.name}, "
            "and restart nova-compute there"
        )
        lacking = [
            tier.name
            for tier in cluster.tiers
            if tier.resource_class in cluster.tier_classes
            and host.capacity(tier.resource_class) is None
        ]
        if lacking:
            yield Issue(
                severity=ERROR,
                kind="inventory_missing",
                subject=subject,
                why=f"it reports no inventory of {', '.join(lacking)}: it "
                "takes no instance of them, and those there are not judged",
                mend=generate,
                requirement="R137",
            )
        for tier in cluster.tiers:
            yield from _inventory(host, tier, subject, generate)


def _inventory(
    host: model.Host, tier: model.Tier, subject: str, generate: str
) -> Iterator[Issue]:
    totals = []
    for provider in host.providers:
        inventory = provider.inventories.get(tier.resource_class)
        if inventory is None or inventory.total is None:
            continue
        totals.append(inventory.total)
        if inventory.allocation_ratio != 1.0:
            yield Issue(
                severity=WARNING,
                kind="tier_ratio",
                subject=subject,
                why=f"its inventory of {tier.name} has the ratio "
                f"{inventory.allocation_ratio:g}: units of a tier are not "
                "over-subscribed, total says how many there are",
                mend="allocation_ratio: 1.0 in its provider.yaml",
                requirement="R22",
            )
    # One total of all its providers, which may be nodes of its memory.
    cpus, total = host.shared_cpus, sum(totals)
    if totals and cpus is not None and total != cpus:
        more = total > cpus
        yield Issue(
            severity=WARNING if more else INFO,
            kind="units_differ_from_cpus",
            subject=subject,
            why=f"it offers {total} units of {tier.name} on {cpus} "
            "shared CPUs: "
            + (
                "the tier alone over-subscribes it; its provider.yaml may be "
                "older than its cpu_shared_set"
                if more
                else "meant so, or its provider.yaml is older than its "
                "cpu_shared_set"
            ),
            mend=generate,
            requirement="R39",
        )


def _vcpus(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """VCPU against the sum of the tiers (R5, R23)."""
    cluster = facts.cluster
    tiered = [
        one.flavor
        for one in facts.flavors
        if offer.accounting_of(cluster).asked(one.flavor) is not None
    ]
    # Flavors may take none of it on purpose (R24).
    if (
        cluster.shares_class is not None
        or not cluster.tier_classes
        or (tiered and not any("VCPU" in f.resources for f in tiered))
    ):
        return
    for host in cluster.hosts:
        classes = {tier.resource_class for tier in cluster.tiers}
        sold = sum(
            values.whole(inventory)
            for provider in host.providers
            for name, inventory in provider.inventories.items()
            if name in classes
        )
        having = [
            provider.inventories["VCPU"]
            for provider in host.providers
            if "VCPU" in provider.inventories
        ]
        cpus = host.shared_cpus
        whole = sum(map(values.whole, having))
        if not having or not sold or not cpus or whole == sold:
            continue
        less = whole < sold
        yield Issue(
            severity=WARNING,
            kind="vcpu_ratio",
            subject=f"host {host.name}",
            why=f"its VCPU inventory holds {whole} (ratio "
            f"{having[0].allocation_ratio:g}) and its tiers {sold}: "
            + (
                "VCPU runs out before the tiers are full"
                if less
                else f"{whole - sold} are open to instances of no tier"
            ),
            mend=f"[DEFAULT] cpu_allocation_ratio = {sold / cpus:g} in its "
            "nova.conf",
            requirement="R23",
        )


def _single_class(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Nova's options for the one class, switched on by halves (R35, R38)."""
    cluster, nova = facts.cluster, facts.nova
    name = cluster.shares_class
    shown = name is not None and name in cluster.tier_classes
    if nova.reports_shares and nova.requests_shares is False:
        yield Issue(
            severity=ERROR,
            kind="shares_half_enabled",
            subject="nova.conf",
            why="hosts report shares, and the scheduler does not ask for "
            "them: nobody is held to the capacity",
            mend="[filter_scheduler] query_placement_for_vcpu_shares = true",
            requirement="R35",
        )
    if nova.reports_shares is False and shown:
        yield Issue(
            severity=ERROR,
            kind="shares_turned_off",
            subject="nova.conf",
            why=f"report_vcpu_shares is off, and hosts have {name}: where it "
            "was on it must not be turned off again",
            mend="[libvirt] report_vcpu_shares = true",
            requirement="R38",
        )


def _share_capacities(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """Units of the one class for each CPU, the same on all hosts (R33)."""
    cluster = facts.cluster
    name = cluster.shares_class
    if name is None:
        return
    multiples: dict[float, list[str]] = {}
    for host in cluster.hosts:
        for provider in host.providers:
            inventory = provider.inventories.get(name)
            if inventory is None or not inventory.total:
                continue
            if host.shared_cpus:
                each = inventory.total / host.shared_cpus
                multiples.setdefault(each, []).append(host.name)
    usual = max(multiples, key=lambda m: (len(multiples[m]), m), default=0)
    for each, hosts in sorted(multiples.items()):
        if each == usual:
            continue
        for named in hosts:
            yield Issue(
                severity=WARNING,
                kind="shares_capacity_differs",
                subject=f"host {named}",
                why=f"it offers {each:g} units of {name} for each shared "
                f"CPU, and most hosts {usual:g}: a unit is not worth the "
                "same everywhere",
                mend="openstack tier provider-config generate --single-class "
                f"--multiplier {usual:g} --host {named}",
                requirement="R33",
            )


def _shared_sets(
    facts: Facts, params: parameters.Parameters
) -> Iterator[Issue]:
    """VCPU against the size of cpu_shared_set (R9, R40)."""
    cpus = facts.nova.shared_cpus
    if cpus is None:
        return
    for host in facts.cluster.hosts:
        if host.shared_cpus not in (None, cpus):
            yield Issue(
                severity=WARNING,
                kind="cpu_shared_set_differs",
                subject=f"host {host.name}",
                why=f"it reports {host.shared_cpus} VCPU, and cpu_shared_set "
                f"names {cpus} CPUs",
                mend=f"Restart nova-compute on {host.name}, or correct "
                "[compute] cpu_shared_set",
                requirement="R40",
            )


def _files(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """Provider configuration files against Placement (R25, R39)."""
    for one in facts.differences:
        said = (
            f"{one.source} says {one.told}" if one.told else "no file has it"
        )
        yield Issue(
            severity=ERROR,
            kind="provider_config_differs",
            subject=f"host {one.host}",
            why=f"{one.what}: {said}, Placement shows {one.shown or 'nothing'}"
            if one.what
            else f"{said}",
            mend=one.mend,
            requirement="R25",
        )


RULES: tuple[values.Rule, ...] = (
    _inventories,
    _vcpus,
    _single_class,
    _share_capacities,
    _shared_sets,
    _files,
)
