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


"""``openstack tier instance``: what instances hold, are promised and get."""

import argparse
from typing import Any

from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import starvation
from watcher_cputier.osc import base
from watcher_cputier.osc import picture


class ListInstance(base.Judging, base.Lister):
    """List instances with their tiers, shares and what they get.

    Shares are those of the whole instance, the floor (the promised speed),
    usage and steal are CPUs of one vCPU. Moves are those of the last day.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--host", metavar="<host>", help="only those on this host"
        )
        tiers = parser.add_mutually_exclusive_group()
        tiers.add_argument(
            "--tier", metavar="<tier>", help="only those of this tier"
        )
        tiers.add_argument(
            "--untiered",
            action="store_true",
            help="only those that belong to no tier",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each instance."""
        seen = self.picture(parsed_args, whole=False)
        floors = entitlement.floors(seen.cluster, seen.diagnosis)
        wanted = list(seen.cluster.instances)
        if parsed_args.host is not None:
            host = seen.host(parsed_args.host).name
            wanted = [one for one in wanted if one.host == host]
        if parsed_args.tier is not None:
            seen.check_accounts([parsed_args.tier])
            wanted = [one for one in wanted if one.tier == parsed_args.tier]
        if parsed_args.untiered:
            wanted = [one for one in wanted if one.tier is None]
        return (
            (
                "ID",
                "Name",
                "Host",
                "Tier",
                "Units",
                "Shares",
                "Floor",
                "Usage",
                "Steal",
                "Verdict",
                "Moves",
            ),
            [
                (
                    one.uuid,
                    one.name,
                    one.host,
                    base.Told(one.tier),
                    one.units,
                    base.Told(shares(seen.cluster, one.flavor)),
                    base.Told(floors.get((one.host, one.tier or ""))),
                    *_fared(seen, one),
                    moves(seen.cluster, one),
                )
                for one in wanted
            ],
        )


class ShowInstance(base.Judging, base.ShowOne):
    """Show an instance: what it holds, what it is promised and what it got."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "instance",
            metavar="<instance>",
            help="name or uuid of an instance",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Details:
        """The instance's fields."""
        seen = self.picture(parsed_args)
        one = seen.instance(parsed_args.instance)
        floors = entitlement.floors(seen.cluster, seen.diagnosis)
        floor = floors.get((one.host, one.tier or ""))
        usage, steal, verdict = _fared(seen, one)
        found = condition(seen, one)
        cluster = seen.cluster
        shown: dict[str, Any] = {
            "id": one.uuid,
            "name": one.name,
            "project": one.project,
            "host": one.host,
            "status": one.status,
            "flavor": one.flavor.name,
            "vcpus": one.flavor.vcpus,
            "tier": base.Told(one.tier),
            "units": one.units,
            "allocations": base.Table(_allocations(cluster, one)),
            "shares": base.Told(shares(cluster, one.flavor)),
            "weight": entitlement.weight(one.flavor, cluster.shares_rule),
            "floor": base.Told(floor),
            "promised cpus": base.Told(
                None if floor is None else round(floor * one.flavor.vcpus, 3)
            ),
            "usage": usage,
            "steal": steal,
            "deficit": base.Told(None if found is None else found.deficit),
            "verdict": verdict,
            "cause": base.Told((found and found.cause) or None),
            "remedy": base.Told((found and found.remedy) or None),
            "priority": one.priority,
            "opted out": one.opted_out,
            "locked": one.locked,
            "in doubt": base.Told(one.in_doubt or None),
            "moves": moves(cluster, one),
            "changes": base.Table(
                [
                    {
                        "kind": change.kind,
                        "began_at": change.began_at,
                        "ended_at": change.ended_at,
                        "moved": change.moved,
                    }
                    for change in cluster.changes_by_instance.get(one.uuid, ())
                ]
            ),
            "findings": base.Lines(
                [
                    finding.text
                    for finding in cluster.findings
                    if finding.subject in (one.uuid, one.name)
                ]
            ),
        }
        return tuple(shown), tuple(shown.values())


def shares(cluster: model.Cluster, flavor: model.Flavor) -> int | float | None:
    """CPU shares that a flavor sets; None where it sets none."""
    if not entitlement.sets_weight(flavor, cluster.shares_rule):
        return None
    weight = entitlement.weight(flavor, cluster.shares_rule)
    return int(weight) if weight == int(weight) else weight


def moves(cluster: model.Cluster, instance: model.Instance) -> int:
    """How often an instance has moved within the last day."""
    changes = cluster.changes_by_instance.get(instance.uuid, ())
    since = (cluster.taken_at or 0) - picture.DAY_SECONDS
    return sum(1 for one in changes if one.moved and one.began_at >= since)


def condition(
    seen: picture.Picture, instance: model.Instance
) -> starvation.Condition | None:
    """How an instance fares; None where nobody looked."""
    if seen.starved is None or instance.uuid not in seen.starved.verdicts:
        return None
    return seen.starved.condition(instance.uuid)


def _fared(
    seen: picture.Picture, instance: model.Instance
) -> tuple[base.Told, base.Told, base.Told]:
    """Usage, steal and verdict."""
    found = condition(seen, instance)
    if found is None:
        return base.Told(None), base.Told(None), base.Told(None)
    return (
        base.Told(found.usage),
        base.Told(found.steal),
        base.Told(found.verdict),
    )


def _allocations(
    cluster: model.Cluster, instance: model.Instance
) -> list[dict[str, str | int]]:
    names = {
        provider.uuid: provider.name
        for host in cluster.hosts
        for provider in host.providers + host.shared
    }
    return [
        {
            "provider": names.get(uuid, uuid),
            "resource_class": resource_class,
            "units": units,
        }
        for uuid, held in instance.allocations.items()
        for resource_class, units in sorted(held.items())
    ]
