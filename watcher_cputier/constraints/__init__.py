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

"""What may move, and where to: one small checker a rule.

A checker answers one question about one proposal and returns a
:class:`Rejection`, a value with the rule's name, the reason and the
requirement row, or None where it has nothing against it. Checkers see the
cluster as it was read plus an :class:`Occupancy`, the state of the plan so
far; they change neither. What cannot be known is a rejection.

What does not forbid a target may still speak against it:
:func:`soft_penalty` is a tie-break.

:data:`INSTANCE_RULES` ask whether an instance may move at all,
:data:`TARGET_RULES` whether a host may take it. A rule is added by writing
a module with a checker and naming it in one of these tuples.
"""

from watcher_cputier import model
from watcher_cputier.constraints import aggregates
from watcher_cputier.constraints import capacity
from watcher_cputier.constraints import groups
from watcher_cputier.constraints import host
from watcher_cputier.constraints import instance
from watcher_cputier.constraints import proposal
from watcher_cputier.constraints import quota

Extensions = proposal.Extensions
Occupancy = proposal.Occupancy
Proposal = proposal.Proposal
Rejection = proposal.Rejection
soft_penalty = groups.soft_penalty

INSTANCE_RULES: tuple[proposal.InstanceRule, ...] = (
    instance.known,
    instance.in_audit_scope,
    instance.opted_in,
    instance.unlocked,
    instance.source_in_service,
    instance.active,
    instance.at_rest,
    instance.in_order,
    instance.portable,
    instance.releasable,
)

# The cheap rules come first, and the ones that name the plainest reason.
TARGET_RULES: tuple[proposal.TargetRule, ...] = (
    host.elsewhere,
    host.in_audit_scope,
    host.in_service,
    host.compatible,
    quota.within_quota,
    capacity.fits,
    capacity.offered,
    aggregates.in_zone,
    aggregates.matches_extra_specs,
    aggregates.admits_by_trait,
    aggregates.admits_project,
    groups.affinity,
    groups.anti_affinity,
    groups.different_host,
    groups.same_host,
)

# What they say never changes while a plan grows: they ask of a host what it
# is, not what is taken there or who is.
STATIC_RULES: tuple[proposal.TargetRule, ...] = tuple(
    rule
    for rule in TARGET_RULES
    if rule not in (host.elsewhere, quota.within_quota, capacity.offered)
    and rule.__module__ != groups.__name__
)


def reject_instance(
    cluster: model.Cluster, candidate: model.Instance
) -> Rejection | None:
    """Why an instance may not move; None if it may."""
    for rule in INSTANCE_RULES:
        rejection = rule(cluster, candidate)
        if rejection is not None:
            return rejection
    return None


def reject_target(
    move: Proposal, extensions: Extensions | None = None
) -> Rejection | None:
    """Why a host may not take an instance; None if it may."""
    for rule in TARGET_RULES:
        rejection = rule(move)
        if rejection is not None:
            return rejection
    if extensions is None:
        return None
    for rule in extensions.target_rules.values():
        rejection = rule(move)
        if rejection is not None:
            return rejection
    return None
