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

"""Whether Placement would grant the request on a host's provider tree.

Placement's own rules, on its own numbers (S3, R22, R155, R168, R169):

* Each class of a request group is served whole by one provider. Classes of
  the unnumbered group may come from different providers; a numbered group
  comes from one provider alone.
* The unnumbered group is served by the host's own tree. A plan names its
  targets, and for a named target Nova asks ``in_tree`` of that group, which
  leaves out providers that share with the host. Numbered groups may be
  served by those too.
* Units must keep min_unit, max_unit and step_size, and used + amount must
  not exceed the capacity.
* The traits that a group requires are had by the providers that serve it,
  none of which has a trait that the group forbids.
* With ``group_policy=isolate`` no two numbered groups share a provider.

A search over the few ways to serve the groups decides, and its answer, the
providers charged, is what a plan books on the target.
"""

from collections.abc import Iterator, Mapping
import itertools

from watcher_cputier import model
from watcher_cputier.constraints import instance as instance_rules
from watcher_cputier.constraints import proposal

Charge = Mapping[tuple[str, str], int]


def claims(cluster: model.Cluster, instance: model.Instance) -> dict[str, int]:
    """Units by account that an instance takes on a new host.

    A migration claims what the flavor asks for, which may differ from what
    the instance holds where its flavor changed without a resize.
    """
    asked = instance.flavor.resources
    if cluster.shares_class is not None:
        units = asked.get(cluster.shares_class, instance.units)
        return dict.fromkeys(cluster.accounts_of(instance), units)
    found = {
        tier.name: asked[tier.resource_class]
        for tier in cluster.tiers
        if tier.resource_class in asked
    }
    if not found and instance.tier is not None:
        return {instance.tier: instance.units}
    return found


def fits(move: proposal.Proposal) -> proposal.Rejection | None:
    """Some way to serve every request group exists on the target."""
    if charge(move.occupancy, move.instance.flavor, move.target) is not None:
        return None
    return _explain(move)


def offered(move: proposal.Proposal) -> proposal.Rejection | None:
    """Placement itself offers the target for the request.

    Where it was not asked yet this says nothing: a plan's targets are asked
    for before the plan is emitted.
    """
    admission = move.cluster.admissions.get(move.instance.flavor.request)
    if admission is None or admission.verdict(move.target.uuid) is not False:
        return None
    return proposal.Rejection(
        rule="offered",
        reason="Placement does not offer it for the flavor's request, "
        "although the units are free: max_unit, min_unit or step_size of one "
        "of its inventories does not admit the amount, or a class such as "
        "DISK_GB comes from a sharing provider, which Nova leaves out when a "
        "target is named",
        requirement="R22",
    )


def charge(
    occupancy: proposal.Occupancy, flavor: model.Flavor, host: model.Host
) -> Charge | None:
    """What a flavor would take from which provider of a host.

    :returns: {(provider uuid, class): units}; None if the host cannot
        serve the flavor
    """
    if not host.providers:
        return None
    if len(flavor.groups) == len(host.providers) == 1 and not host.shared:
        return _served_alone(occupancy, flavor.groups[0], host.providers[0])
    isolate = flavor.extra_specs.get("group_policy") == "isolate"
    return _serve(occupancy, list(flavor.groups), host, isolate, {}, ())


def _served_alone(
    occupancy: proposal.Occupancy,
    group: model.RequestGroup,
    provider: model.Provider,
) -> Charge | None:
    """The same where there is one group and one provider: the usual case."""
    if not _traits_match(group, (provider,)):
        return None
    for name in group.resources:
        if not _has_room(occupancy, provider, name, group, {}):
            return None
    return {(provider.uuid, name): n for name, n in group.resources.items()}


def _serve(
    occupancy: proposal.Occupancy,
    groups: list[model.RequestGroup],
    host: model.Host,
    isolate: bool,
    taken: dict[tuple[str, str], int],
    used_up: tuple[str, ...],
) -> Charge | None:
    if not groups:
        return taken
    group, rest = groups[0], groups[1:]
    for providers in _ways(occupancy, group, host, taken):
        numbered = {p.uuid for p in providers.values()} if group.suffix else ()
        if isolate and any(uuid in used_up for uuid in numbered):
            continue
        together = dict(taken)
        for name, amount in group.resources.items():
            key = (providers[name].uuid, name)
            together[key] = together.get(key, 0) + amount
        found = _serve(
            occupancy, rest, host, isolate, together, (*used_up, *numbered)
        )
        if found is not None:
            return found
    return None


def _ways(
    occupancy: proposal.Occupancy,
    group: model.RequestGroup,
    host: model.Host,
    taken: Mapping[tuple[str, str], int],
) -> Iterator[dict[str, model.Provider]]:
    """The ways to serve a group: {class: provider}, in a stable order."""
    if not group.resources:
        # Traits alone are asked of the root.
        root = host.providers[0]
        if _traits_match(group, [root]):
            yield {}
        return
    names = sorted(group.resources)
    able = [
        [
            provider
            for provider in _askable(group, host)
            if _has_room(occupancy, provider, name, group, taken)
        ]
        for name in names
    ]
    for chosen in itertools.product(*able):
        if group.suffix and len({p.uuid for p in chosen}) > 1:
            continue
        if _traits_match(group, chosen):
            yield dict(zip(names, chosen, strict=True))


def _askable(
    group: model.RequestGroup, host: model.Host
) -> tuple[model.Provider, ...]:
    """The providers that may serve a group of a named target."""
    return host.providers + host.shared if group.suffix else host.providers


def _has_room(
    occupancy: proposal.Occupancy,
    provider: model.Provider,
    name: str,
    group: model.RequestGroup,
    taken: Mapping[tuple[str, str], int],
) -> bool:
    inventory = provider.inventories.get(name)
    if inventory is None:
        return False
    amount = group.resources[name]
    in_use = occupancy.used(provider.uuid, name)
    in_use += taken.get((provider.uuid, name), 0)
    return (
        not instance_rules.unit_limit(inventory, amount)
        and in_use + amount <= inventory.capacity
    )


def _traits_match(
    group: model.RequestGroup,
    providers: tuple[model.Provider, ...] | list[model.Provider],
) -> bool:
    if not group.required_traits and not group.forbidden_traits:
        return True
    traits = frozenset().union(*(p.traits for p in providers))
    return group.required_traits <= traits and not (
        group.forbidden_traits & traits
    )


def _explain(move: proposal.Proposal) -> proposal.Rejection:
    """The first thing that keeps a flavor from being served."""
    host, flavor = move.target, move.instance.flavor
    if not host.providers:
        return proposal.Rejection(
            rule="fits",
            reason="Placement has no provider for it",
            requirement="R137",
        )
    for group in flavor.groups:
        for name in sorted(group.resources):
            reason = _shortage(move, name, group)
            if reason:
                return proposal.Rejection(
                    rule="fits", reason=reason, requirement="R22"
                )
    for group in flavor.groups:
        traits = frozenset().union(*(p.traits for p in _askable(group, host)))
        lacking = sorted(group.required_traits - traits)
        if lacking:
            return proposal.Rejection(
                rule="has_traits",
                reason=f"it lacks {', '.join(lacking)}",
                requirement="R159",
            )
        unwanted = sorted(group.forbidden_traits & traits)
        if unwanted:
            return proposal.Rejection(
                rule="has_no_forbidden_trait",
                reason=f"it has {', '.join(unwanted)}, which is forbidden",
                requirement="R159",
            )
    return proposal.Rejection(
        rule="fits",
        reason="no choice of its providers serves all request groups together",
        requirement="R169",
    )


def _shortage(
    move: proposal.Proposal, name: str, group: model.RequestGroup
) -> str:
    """What is wrong with one class on the whole host; else empty."""
    best = ""
    amount = group.resources[name]
    able = _askable(group, move.target)
    for provider in able:
        inventory = provider.inventories.get(name)
        if inventory is None:
            continue
        limit = instance_rules.unit_limit(inventory, amount)
        used = move.occupancy.used(provider.uuid, name)
        if limit:
            best = f"{amount} {name} are asked for, and {limit}"
        elif used + amount > inventory.capacity:
            best = (
                f"{used} of {inventory.capacity} {name} are taken, "
                f"{amount} more are asked for"
            )
        else:
            return ""
    best = best or f"it has no inventory of {name}"
    sharing = [
        provider.name
        for provider in move.target.shared
        if provider not in able and name in provider.inventories
    ]
    if not sharing:
        return best
    return (
        f"{best}, and what {', '.join(sharing)} shares with it Nova leaves "
        "out when a target is named"
    )
