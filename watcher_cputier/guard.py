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

"""Whether a step of a plan still makes sense when its turn comes.

Between a plan and its last migration lie minutes or hours in which instances
are deleted, resized and moved by others, quotas change, and other steps fail.
A step is therefore judged once more, by the same rules as when it was planned,
on a fresh reading of the few hosts that it has to do with. It no longer holds
when

* its instance is gone, is elsewhere, or may not move any more (not ACTIVE,
  locked, busy, opted out, ...);
* the excess that it was planned for is cured: its host holds no more of the
  tier than its quota. Instances alone count there; what migrations in flight
  hold on their source is as good as gone;
* it makes room for an instance that is gone, or that is neither where it was
  nor where the plan parks it in between;
* it was to relieve instances that are starved no more, or that are gone; or
  somebody is on the target by now of whom the prediction did not know;
* its target would be rejected now. Placement does not know policy quotas and
  drains, so nobody else would refuse what exceeds those.

An instance that was parked goes on even if the excess is cured meanwhile: it
is not where it belongs.
"""

from collections.abc import Iterable, Mapping
import dataclasses
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import starvation as starving
from watcher_cputier.planner import books

# The audit parameters that a quota follows from.
_RULES = (
    "drain_disabled",
    "drain_hosts",
    "quotas",
    "quotas_by_host",
    "windows",
    "window_seconds",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a step was planned on; it travels in the action's input.

    :param instance: uuid of what moves
    :param excess: (host, account) of the excess that it is for; None where
        it is for none
    :param awaited: uuid of the instance that it makes room for; empty if it
        does not
    :param awaited_at: names of the hosts that this one may come from
    :param starved: uuids of the instances that it relieves; empty where it
        is for none, or goes on with what another step has begun
    :param guests: uuids of the instances that may be on its target, if it is
        for starvation
    :param hosts: {name: uuid} of all hosts that it has to do with
    :param shares_class: of single-class mode
    :param tier_classes: the tiers' classes that some host of the cloud has
    :param rules: audit parameters, as far as they concern these hosts
    """

    instance: str
    source: str
    target: str
    excess: tuple[str, str] | None
    awaited: str = ""
    awaited_at: frozenset[str] = frozenset()
    starved: tuple[str, ...] = ()
    guests: frozenset[str] = frozenset()
    hosts: Mapping[str, str]
    shares_class: str | None = None
    tier_classes: frozenset[str] = frozenset()
    rules: Mapping[str, Any] = dataclasses.field(
        default_factory=model.frozen_map
    )

    @property
    def instances(self) -> tuple[str, ...]:
        """Uuids of the instances that it turns on."""
        others = (*((self.awaited,) if self.awaited else ()), *self.starved)
        return (
            self.instance,
            *(uuid for uuid in others if uuid != self.instance),
        )

    def document(self) -> dict[str, Any]:
        """The expectation as JSON; see :meth:`of`."""
        return {
            "instance": self.instance,
            "source": self.source,
            "target": self.target,
            "excess": self.excess and list(self.excess),
            "awaited": self.awaited,
            "awaited_at": sorted(self.awaited_at),
            "starved": list(self.starved),
            "guests": sorted(self.guests),
            "hosts": dict(self.hosts),
            "shares_class": self.shares_class,
            "tier_classes": sorted(self.tier_classes),
            "rules": dict(self.rules),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> "Expectation":
        """The expectation that a document was made of."""
        excess = document["excess"]
        return cls(
            **{
                **document,
                "excess": (excess[0], excess[1]) if excess else None,
                "awaited_at": frozenset(document["awaited_at"]),
                "starved": tuple(document.get("starved", ())),
                "guests": frozenset(document.get("guests", ())),
                "hosts": model.frozen_map(document["hosts"]),
                "tier_classes": frozenset(document["tier_classes"]),
                "rules": model.frozen_map(document["rules"]),
            }
        )


def expectations(
    cluster: model.Cluster,
    migrations: Iterable[planner.Migration],
    params: parameters.Parameters,
) -> tuple[Expectation, ...]:
    """What each migration of a plan rests on, in the plan's order."""
    plan = tuple(migrations)
    itinerary: dict[str, list[str]] = {}
    for migration in plan:
        itinerary.setdefault(migration.instance.uuid, []).append(
            migration.source
        )
    found = []
    moved: set[str] = set()
    begun: set[str] = set()
    for index, migration in enumerate(plan):
        awaited = _awaited(plan, index)
        # Whoever was parked goes on in any case.
        goes_on = migration.instance.uuid in moved
        moved.add(migration.instance.uuid)
        excess = None if goes_on else migration.excess
        names = {migration.source, migration.target}
        if excess is not None:
            names.add(excess.host)
        rules = _rules(params, names)
        if migration.concern == planner.MIXING and excess is not None:
            rules = _with_share(rules, excess)
        starved: tuple[str, ...] = ()
        if migration.relieves and migration.relieves[0] not in begun:
            # What comes after the first step of a cure completes it.
            begun.add(migration.relieves[0])
            starved = migration.relieves
        found.append(
            Expectation(
                instance=migration.instance.uuid,
                source=migration.source,
                target=migration.target,
                excess=None if excess is None else (excess.host, excess.tier),
                awaited=awaited,
                awaited_at=frozenset(itinerary.get(awaited, ())),
                starved=starved,
                guests=_guests(cluster, plan, migration),
                hosts=model.frozen_map(
                    {
                        name: cluster.host_by_name[name].uuid
                        for name in names
                        if name in cluster.host_by_name
                    }
                ),
                shares_class=cluster.shares_class,
                tier_classes=cluster.tier_classes,
                rules=rules,
            )
        )
    return tuple(found)


def _guests(
    cluster: model.Cluster,
    plan: tuple[planner.Migration, ...],
    migration: planner.Migration,
) -> frozenset[str]:
    """Uuids of those on a target: who is there, and whom the plan brings."""
    if migration.concern != planner.STARVATION:
        return frozenset()
    here = cluster.instances_by_host.get(migration.target, ())
    return frozenset(one.uuid for one in here).union(
        one.instance.uuid for one in plan if one.target == migration.target
    )


def _awaited(plan: tuple[planner.Migration, ...], index: int) -> str:
    """Uuid of the instance that a migration makes room for, if any."""
    migration = plan[index]
    if not migration.makes_room_for:
        return ""
    for later in plan[index + 1 :]:
        if (
            later.instance.name == migration.makes_room_for
            and later.target == migration.source
        ):
            return later.instance.uuid
    return ""


def _rules(
    params: parameters.Parameters, hosts: Iterable[str]
) -> Mapping[str, Any]:
    """The audit's parameters again, as far as these hosts see them."""

    def told(
        quotas: Mapping[str, parameters.PolicyQuota],
    ) -> dict[str, int | str]:
        return {
            tier: str(quota) if quota.units is None else quota.units
            for tier, quota in quotas.items()
        }

    names = sorted(hosts)
    return model.frozen_map(
        {
            "windows": params.windows,
            "window_seconds": params.window_seconds,
            "drain_disabled": params.drain_disabled,
            "drain_hosts": [n for n in names if n in params.drain_hosts],
            "quotas": told(params.quotas),
            "quotas_by_host": {
                name: told(params.quotas_by_host[name])
                for name in names
                if name in params.quotas_by_host
            },
        }
    )


def _with_share(
    rules: Mapping[str, Any], share: diagnosing.Excess
) -> Mapping[str, Any]:
    """The same with an even share for a policy quota of its host.

    A share is never above the quota, so that it takes the place of what the
    audit sets there.
    """
    quotas = {name: dict(q) for name, q in rules["quotas_by_host"].items()}
    quotas.setdefault(share.host, {})[share.tier] = share.quota
    return model.frozen_map({**rules, "quotas_by_host": quotas})


def objection(
    cluster: model.Cluster,
    expected: Expectation,
    extensions: constraints.Extensions | None = None,
) -> str:
    """Why a step is not to be taken; empty if it is.

    :param cluster: the hosts that the step has to do with, as they are now,
        all of them in scope; and the instances on them. Whether somebody is
        still starved is judged where there is telemetry
    :param extensions: further rules that the operator switched on
    """
    instance = cluster.instance_by_uuid.get(expected.instance)
    if instance is None:
        return "the instance is gone"
    if instance.host != expected.source:
        return (
            f"the instance is on {instance.host or 'no host'} and no longer "
            f"on {expected.source}"
        )
    rejection = constraints.reject_instance(cluster, instance)
    if rejection is not None:
        return f"the instance may not move: {rejection.reason}"
    params = parameters_of(expected)
    judged = _judgeable(cluster, expected, params)
    try:
        verdict = diagnosing.diagnose(judged, params)
    except errors.TierError as exc:
        return f"its hosts cannot be judged: {exc}"
    return (
        _cured(judged, verdict, expected)
        or _deserted(cluster, expected)
        or _relieved(judged, verdict, expected, params)
        or _joined(cluster, expected)
        or _refused(judged, verdict, expected, instance, extensions)
    )


def parameters_of(expected: Expectation) -> parameters.Parameters:
    """The audit's parameters, as far as the step sees them."""
    return parameters.Parameters.of(
        {
            name: expected.rules[name]
            for name in _RULES
            if name in expected.rules
        }
    )


def _judgeable(
    cluster: model.Cluster,
    expected: Expectation,
    params: parameters.Parameters,
) -> model.Cluster:
    """The cluster with what a few hosts cannot tell of the whole cloud."""
    return dataclasses.replace(
        cluster,
        tier_classes=expected.tier_classes,
        tiers=tuple(
            tier
            for tier in cluster.tiers
            if tier.resource_class in expected.tier_classes
            or params.names_tier(tier.name)
        ),
    )


def _cured(
    cluster: model.Cluster,
    verdict: diagnosing.Diagnosis,
    expected: Expectation,
) -> str:
    if expected.excess is None:
        return ""
    host, account = expected.excess
    quota = verdict.quota(host, account)
    held = cluster.held.get((host, account), 0)
    if quota is None:
        return f"the quota of {account} on {host} is unknown by now"
    if held <= quota:
        return (
            f"{host} is no longer over its quota: it holds {held} {account} "
            f"units of at most {quota}"
        )
    return ""


def _deserted(cluster: model.Cluster, expected: Expectation) -> str:
    """Whether the instance that it makes room for does not come any more."""
    if not expected.awaited:
        return ""
    guest = cluster.instance_by_uuid.get(expected.awaited)
    if guest is None:
        return f"it makes room for instance {expected.awaited}, which is gone"
    if guest.host not in expected.awaited_at:
        return (
            f"it makes room for {guest.name}, which is on "
            f"{guest.host or 'no host'} and not where the plan expects it"
        )
    return ""


def _relieved(
    cluster: model.Cluster,
    verdict: diagnosing.Diagnosis,
    expected: Expectation,
    params: parameters.Parameters,
) -> str:
    """Whether nobody is left whom the step relieves."""
    if not expected.starved:
        return ""
    there = [
        instance
        for uuid in expected.starved
        if (instance := cluster.instance_by_uuid.get(uuid)) is not None
        and instance.host in (expected.source, expected.target)
    ]
    if not there:
        return (
            "the starved instances are no longer on "
            f"{expected.source} or {expected.target}"
        )
    judged = starving.judge(cluster, verdict, params)
    if judged.abstained:
        return ""
    found = [judged.condition(instance.uuid) for instance in there]
    if any(one.starved or one.verdict == starving.UNKNOWN for one in found):
        return ""
    names = ", ".join(f"{one.instance.name} ({one.verdict})" for one in found)
    return f"nobody is starved any more: {names}"


def _joined(cluster: model.Cluster, expected: Expectation) -> str:
    """Who is on the target and was not when its effect was predicted."""
    if not expected.guests:
        return ""
    strangers = [
        instance.name
        for instance in cluster.instances_by_host.get(expected.target, ())
        if instance.uuid not in expected.guests
    ]
    if not strangers:
        return ""
    return (
        f"{', '.join(strangers)} came to {expected.target} since: what the "
        "migration would do to them was not predicted"
    )


def _refused(
    cluster: model.Cluster,
    verdict: diagnosing.Diagnosis,
    expected: Expectation,
    instance: model.Instance,
    extensions: constraints.Extensions | None,
) -> str:
    target = cluster.host_by_name.get(expected.target)
    if target is None:
        return f"{expected.target} is gone"
    rejection = constraints.reject_target(
        constraints.Proposal(
            cluster=cluster,
            diagnosis=verdict,
            occupancy=books.Books(cluster),
            instance=instance,
            target=target,
        ),
        extensions,
    )
    if rejection is None:
        return ""
    return f"{expected.target} may not take it: {rejection.reason}"
