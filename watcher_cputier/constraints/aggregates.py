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

"""Availability zones and host aggregates (R41, R160, R181).

Nova's filters for aggregates are options of its scheduler, and which are
on cannot be read through its API. Metadata that one of them would act on
is therefore always respected: an operator who sets it means it.
"""

from oslo_utils import specs_matcher

from watcher_cputier.constraints import proposal

_SCOPE = "aggregate_instance_extra_specs:"
_PROJECT_KEY = "filter_tenant_id"


def in_zone(move: proposal.Proposal) -> proposal.Rejection | None:
    """An instance created for a zone stays in that zone."""
    pinned = move.instance.pinned_zone
    zone = move.target.zone
    if pinned is None or pinned == zone:
        return None
    return proposal.Rejection(
        rule="in_zone",
        reason=f"it is in availability zone {zone}, and the instance was "
        f"created for {pinned}",
        requirement="R181",
    )


def matches_extra_specs(
    move: proposal.Proposal,
) -> proposal.Rejection | None:
    """Metadata that the flavor asks for is on one of its aggregates."""
    metadata: dict[str, set[str]] = {}
    for aggregate in move.cluster.aggregates_of(move.target):
        for key, value in aggregate.metadata.items():
            metadata.setdefault(key, set()).update(
                part.strip() for part in value.split(",")
            )
    known = {k for a in move.cluster.aggregates for k in a.metadata}
    for name, wanted in sorted(move.instance.flavor.extra_specs.items()):
        key = name.removeprefix(_SCOPE)
        # Nova compares bare keys too; most of those are for others, unless
        # some aggregate has the key.
        if key == name and (":" in name or name not in known):
            continue
        values = metadata.get(key, set())
        if any(_matches(value, wanted) for value in values):
            continue
        return proposal.Rejection(
            rule="matches_extra_specs",
            reason=f"none of its aggregates has {key}={wanted}",
            requirement="R41",
        )
    return None


def _matches(value: str, wanted: str) -> bool:
    """Whether metadata meets a flavor's requirement, as Nova compares."""
    try:
        return bool(specs_matcher.match(value, wanted))
    except (SyntaxError, TypeError, ValueError):
        # A number or a list is asked for, and this is none.
        return False


def admits_by_trait(move: proposal.Proposal) -> proposal.Rejection | None:
    """An aggregate isolated by a required trait takes only who asks."""
    required = move.instance.flavor.required_traits
    for aggregate in move.cluster.aggregates_of(move.target):
        for key, value in aggregate.metadata.items():
            trait = key.removeprefix("trait:")
            if trait == key or value != "required" or trait in required:
                continue
            return proposal.Rejection(
                rule="admits_by_trait",
                reason=f"its aggregate {aggregate.name} is reserved for "
                f"flavors that require {trait}",
                requirement="R160",
            )
    return None


def admits_project(move: proposal.Proposal) -> proposal.Rejection | None:
    """A host whose aggregates are kept for some projects takes theirs only.

    The projects of all its aggregates count together, as in Nova.
    """
    kept_by = []
    projects: set[str] = set()
    for aggregate in move.cluster.aggregates_of(move.target):
        for key, value in aggregate.metadata.items():
            if key.startswith(_PROJECT_KEY):
                kept_by.append(aggregate.name)
                projects.update(part.strip() for part in value.split(","))
    if not projects or move.instance.project in projects:
        return None
    return proposal.Rejection(
        rule="admits_project",
        reason=f"{', '.join(kept_by)} keeps it for other projects",
        requirement="R41",
    )
