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

"""Server groups (R181); members outside the audit's scope count too."""

from watcher_cputier.constraints import proposal


def affinity(move: proposal.Proposal) -> proposal.Rejection | None:
    """Members of an affinity group stay on one host."""
    group = move.cluster.group_by_member.get(move.instance.uuid)
    if group is None or group.policy != "affinity":
        return None
    for uuid in sorted(group.members - {move.instance.uuid}):
        member = move.cluster.instance_by_uuid.get(uuid)
        if member is not None and member.host != move.target.name:
            return proposal.Rejection(
                rule="affinity",
                reason=f"{member.name} of its server group {group.name} "
                f"stays on {member.host}",
                requirement="R181",
            )
    return None


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
