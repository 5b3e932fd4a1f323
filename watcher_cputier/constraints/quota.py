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

"""Whether a host has room within a tier's quota."""

from watcher_cputier.constraints import capacity
from watcher_cputier.constraints import proposal


def within_quota(move: proposal.Proposal) -> proposal.Rejection | None:
    """The target keeps its quotas of what the instance counts against.

    Drains are quotas of 0. An instance without units is no matter of
    quotas.
    """
    name = move.target.name
    claims = capacity.claims(move.cluster, move.instance)
    if claims and name in move.diagnosis.drained:
        return proposal.Rejection(
            rule="within_quota",
            reason=f"it is drained: {move.diagnosis.drained[name]}",
            requirement="R6",
        )
    for account, asked in claims.items():
        quota = move.diagnosis.quotas.get((name, account))
        if quota is None or quota.unlimited:
            continue
        if quota.units is None:
            return proposal.Rejection(
                rule="within_quota",
                reason=f"its quota of {account} is unknown: it reports no "
                "inventory of the class",
                requirement="R6",
            )
        held = move.occupancy.held(name, account)
        if held + asked > quota.units:
            return proposal.Rejection(
                rule="within_quota",
                reason=f"{held} of {quota.units} {account} units are taken, "
                f"{asked} more are asked for",
                requirement="R6",
            )
    return None
