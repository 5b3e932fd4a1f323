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

"""Whether a host takes part at all, and takes guests from another."""

from watcher_cputier.constraints import proposal


def elsewhere(move: proposal.Proposal) -> proposal.Rejection | None:
    """The same host is no move."""
    if move.target.name != move.instance.host:
        return None
    return proposal.Rejection(
        rule="elsewhere", reason="the instance is there already"
    )


def in_audit_scope(move: proposal.Proposal) -> proposal.Rejection | None:
    """The audit may give to the host."""
    if move.target.in_scope:
        return None
    return proposal.Rejection(
        rule="in_audit_scope",
        reason="the host is outside the audit's scope",
        requirement="R112",
    )


def in_service(move: proposal.Proposal) -> proposal.Rejection | None:
    """Its compute service is enabled and up."""
    if not move.target.enabled:
        why = move.target.disabled_reason
        reason = "its compute service is disabled" + (
            f" ({why})" if why else ""
        )
    elif not move.target.up:
        reason = "its compute service is down"
    else:
        return None
    return proposal.Rejection(
        rule="in_service", reason=reason, requirement="R183"
    )


def compatible(move: proposal.Proposal) -> proposal.Rejection | None:
    """Its hypervisor is of the source's type and not older.

    Nova checks both after its scheduler has agreed. It can be told to skip
    the second (``[workarounds] skip_hypervisor_version_check_on_lm``), which
    no API shows. What is not known of one of the hosts is left to Nova.
    """
    source = move.cluster.host_by_name.get(move.instance.host)
    if source is None:
        return None
    kinds = (source.hypervisor_type, move.target.hypervisor_type)
    if all(kinds) and len(set(kinds)) > 1:
        return proposal.Rejection(
            rule="compatible",
            reason=f"its hypervisor is {kinds[1]}, the source's is {kinds[0]}",
            requirement="R183",
        )
    old, new = source.hypervisor_version, move.target.hypervisor_version
    if old is None or new is None or new >= old:
        return None
    return proposal.Rejection(
        rule="compatible",
        reason=f"version {new} of its hypervisor is older than the source's, "
        f"{old}, and Nova migrates live to the same or a newer one only",
        requirement="R183",
    )
