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


"""``openstack tier host``: what hosts hold and may hold of each tier."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import pages
from watcher_cputier import report
from watcher_cputier import starvation
from watcher_cputier.cli import files
from watcher_cputier.osc import base
from watcher_cputier.osc import picture

_Lacks = Mapping[tuple[str, str], Sequence[float]]


class ListHost(base.Judging, base.Lister):
    """List hosts with their quotas of each tier.

    A host is over its quota of a tier, near it (90 % of it or more), or ok.
    A quota is unknown where the host reports no inventory of the tier's
    class and no policy quota is given.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--host",
            metavar="<host>",
            action="append",
            help="only this host; may be given several times",
        )
        parser.add_argument(
            "--tier",
            metavar="<tier>",
            action="append",
            help="only this tier; may be given several times",
        )
        parser.add_argument(
            "--state",
            choices=offer.STATES,
            action="append",
            help="only hosts in this state; may be given several times",
        )
        base.add_html(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each host and tier."""
        files.check_writable(parsed_args.html)
        seen = self.picture(parsed_args, whole=False)
        names = [seen.host(name).name for name in parsed_args.host or ()]
        seen.check_accounts(parsed_args.tier or ())
        lacks = _lacks(seen)
        found = [
            one
            for one in offer.standings(seen.cluster, seen.diagnosis)
            if (not names or one.host in names)
            and _among(one.account, parsed_args.tier)
            and _among(one.state, parsed_args.state)
        ]
        if parsed_args.html is not None:
            document = report.hosts_document(
                seen.cluster,
                seen.diagnosis,
                starvation.judge(
                    seen.cluster,
                    seen.diagnosis,
                    self.parameters(parsed_args),
                ),
                hosts={one.host for one in found},
                accounts=parsed_args.tier,
            )
            files.write(parsed_args.html, pages.hosts(document))
        return (
            (
                "Host",
                "Tier",
                "Allocated",
                "Quota",
                "Headroom",
                "State",
                "Starved",
                "Deficit CPUs",
            ),
            [
                (
                    one.host,
                    one.account,
                    one.held,
                    base.Told(one.quota),
                    base.Told(one.headroom),
                    one.state,
                    *_told(lacks, one),
                )
                for one in found
            ],
        )


def _among(value: str, wanted: Sequence[str] | None) -> bool:
    return not wanted or value in wanted


def _lacks(seen: picture.Picture) -> _Lacks:
    """CPUs that starved instances lack, where anybody was judged."""
    if seen.starved is None:
        return {}
    return {
        place: [one.deficit_cpus for one in those]
        for place, those in starvation.by_place(
            seen.cluster, seen.starved
        ).items()
    }


def _told(lacks: _Lacks, one: offer.Standing) -> tuple[base.Told, base.Told]:
    found = lacks.get((one.host, one.account))
    if found is None:
        return base.Told(None), base.Told(None)
    return base.Told(len(found)), base.Told(round(sum(found), 3))


class ShowHost(base.Judging, base.ShowOne):
    """Show a host: its tiers, what they are promised and what they got.

    "promised" is what the tier gets when everything that may be sold there
    is sold and busy; "loaded" what it would get if all instances that are
    there now were busy at once. Both are CPUs of the host.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "host", metavar="<host>", help="name or uuid of a compute host"
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Details:
        """The host's fields."""
        seen = self.picture(parsed_args)
        host = seen.host(parsed_args.host)
        here = seen.cluster.instances_by_host.get(host.name, ())
        shown: dict[str, Any] = {
            "name": host.name,
            "uuid": host.uuid,
            "service": _service(host),
            "drained": base.Told(seen.diagnosis.drained.get(host.name)),
            "zone": host.zone,
            "failure domain": host.failure_domain,
            "shared cpus": base.Told(host.shared_cpus),
            "vcpu capacity": base.Told(host.capacity("VCPU")),
            "oversubscription": base.Told(
                offer.oversubscription(seen.cluster, seen.diagnosis, host)
            ),
            "instances": len(here),
            "untiered": sum(1 for one in here if one.tier is None),
            "tiers": base.Table(_tiers(seen, host)),
            "findings": base.Lines(
                [
                    finding.text
                    for finding in (
                        *seen.cluster.findings,
                        *seen.diagnosis.findings,
                    )
                    if finding.subject in (host.name, host.node_name)
                ]
            ),
        }
        return tuple(shown), tuple(shown.values())


def _service(host: model.Host) -> str:
    told = "enabled" if host.enabled else "disabled"
    if host.disabled_reason:
        told += f" ({host.disabled_reason})"
    return f"{told}, {'up' if host.up else 'down'}"


def _tiers(
    seen: picture.Picture, host: model.Host
) -> list[dict[str, str | int | float | None]]:
    splits = {
        one.account: one
        for one in offer.splits(seen.cluster, seen.diagnosis, host)
    }
    lacks = _lacks(seen)
    found = []
    for one in offer.standings(seen.cluster, seen.diagnosis):
        if one.host != host.name:
            continue
        split = splits.pop(one.account, offer.Split(account=one.account))
        starved, deficit = _told(lacks, one)
        found.append(
            {
                "tier": one.account,
                "allocated": one.held,
                "quota": one.quota,
                "headroom": one.headroom,
                "state": one.state,
                **_split(split),
                "starved": starved.machine_readable(),
                "deficit_cpus": deficit.machine_readable(),
            }
        )
    found += [
        {
            "tier": split.account or "(untiered)",
            "allocated": None,
            "quota": None,
            "headroom": None,
            "state": None,
            **_split(split),
            "starved": None,
            "deficit_cpus": None,
        }
        for split in splits.values()
    ]
    return found


def _split(one: offer.Split) -> dict[str, float | None]:
    return {
        "floor_cpus": _rounded(one.floor),
        "promised_cpus": _rounded(one.promised_cpus),
        "promised_percent": _rounded(one.promised_percent, 1),
        "loaded_cpus": _rounded(one.loaded_cpus),
        "loaded_percent": _rounded(one.loaded_percent, 1),
        "used_cpus": _rounded(one.used_cpus),
        "borrowed_cpus": _rounded(one.borrowed_cpus),
        "from_higher_cpus": _rounded(one.from_higher_cpus),
    }


def _rounded(value: float | None, digits: int = 3) -> float | None:
    return None if value is None else round(value, digits)
