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

"""Which instances belong together, and which apart (R181, R182).

Server groups, whose members outside the audit's scope count too, and the
scheduler hints ``different_host`` and ``same_host`` of an instance. Nova
keeps the hints and asks its filters again for a live migration, where they
are on; as with aggregates, which are on cannot be read through its API, and
a hint is always respected. Hints bind the instance that has them and not
those that they name.
"""

from watcher_cputier.constraints import proposal


def affinity(move: proposal.Proposal) -> proposal.Rejection | None:
    """Members of an affinity group stay on one host."""
    group = move.cluster.group_by_member.get(move.instance.uuid)
    if group is None or group.policy != "affinity":
        return None
    others = [
        member
        for uuid in sorted(group.members - {move.instance.uuid})
        if (member := move.cluster.instance_by_uuid.get(uuid)) is not None
    ]
    if move.occupancy.members(group, move.target.name) >= len(others):
        return None
    for member in others:
        if member.host != move.target.name:
            return proposal.Rejection(
                rule="affinity",
                reason=f"{member.name} of its server group {group.name} "
                f"stays on {member.host}",
                requirement="R181",
            )
    return proposal.Rejection(
        rule="affinity",
        reason=f"members of its server group {group.name} leave "
        f"{move.target.name}",
        requirement="R181",
    )


def anti_affinity(move: proposal.Proposal) -> proposal.Rejection | None:
    """No host has more members of an anti-affinity group than allowed."""
    group = move.cluster.group_by_member.get(move.instance.uuid)
    if group is None or group.policy != "anti-affinity":
        return None
    present = move.occupancy.members(group, move.target.name)
    if present < group.max_per_host:
        return None
    return proposal.Rejection(
        rule="anti_affinity",
        reason=f"{present} of at most {group.max_per_host} members of its "
        f"server group {group.name} are there",
        requirement="R181",
    )


def soft_penalty(move: proposal.Proposal) -> int:
    """How badly a target suits a soft server group; 0 is best.

    The members that are there, for soft anti-affinity; the members that are
    elsewhere, for soft affinity. Members that no longer exist count
    nowhere.
    """
    group = move.cluster.group_by_member.get(move.instance.uuid)
    if group is None or not group.policy.startswith("soft-"):
        return 0
    present = move.occupancy.members(group, move.target.name)
    if group.policy == "soft-anti-affinity":
        return present
    others = [
        uuid
        for uuid in group.members
        if uuid != move.instance.uuid and uuid in move.cluster.instance_by_uuid
    ]
    return max(0, len(others) - present)


def different_host(move: proposal.Proposal) -> proposal.Rejection | None:
    """No instance is there that its hint keeps it apart from."""
    there = _standing(move, move.instance.different_host)
    if not there:
        return None
    return proposal.Rejection(
        rule="different_host",
        reason=f"{there[0]} is there, and the instance was created with the "
        "scheduler hint not to share a host with it",
        requirement="R182",
    )


def same_host(move: proposal.Proposal) -> proposal.Rejection | None:
    """One of the instances is there that its hint keeps it with."""
    hint = move.instance.same_host
    if not hint or _standing(move, hint):
        return None
    found = [move.cluster.instance_by_uuid.get(uuid) for uuid in sorted(hint)]
    where = [f"{one.name} on {one.host}" for one in found if one is not None]
    return proposal.Rejection(
        rule="same_host",
        reason="the instance was created with the scheduler hint to share a "
        f"host with {' or '.join(where) or 'an instance that is gone'}",
        requirement="R182",
    )


def _standing(move: proposal.Proposal, uuids: frozenset[str]) -> list[str]:
    """Names of those of the instances that are on the target."""
    if not uuids:
        return []
    found = (move.cluster.instance_by_uuid.get(uuid) for uuid in uuids)
    return sorted(
        one.name
        for one in found
        if one is not None and one.host == move.target.name
    )
