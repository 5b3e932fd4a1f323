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


"""``openstack tier summary``: what each tier has left over all hosts."""

import argparse
import dataclasses

from watcher_cputier import advice
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier.osc import base
from watcher_cputier.osc import flavors
from watcher_cputier.osc import picture
from watcher_cputier.strategies import budget


class Summary(base.Judging, base.Lister):
    """Sum tiers up over all hosts: capacity, headroom, what still fits.

    Headroom is that of hosts that could take an instance now. "Fits" is how
    many instances of the largest flavor that still fits the hosts would take
    if nothing else were started. "Could carry" is how many units of the tier
    would still get what it promises on CPUs that nobody wants at present.

    What no migration can cure, and what would (lower quotas where a host
    sells more CPUs than it has, more room where units stay over quota), is
    told on standard error.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        listed = parser.add_mutually_exclusive_group()
        listed.add_argument(
            "--flavors",
            action="store_true",
            help="list how many more instances of each flavor fit, instead "
            "of the tiers",
        )
        listed.add_argument(
            "--lower",
            action="store_true",
            help="list the hosts whose over-subscription is to be lowered, "
            "for it starves instances that no migration helps, instead of "
            "the tiers",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each tier, or for each flavor."""
        params = self.parameters(parsed_args)
        seen = self.picture(parsed_args)
        lowerings = self._told(seen, params)
        if parsed_args.lower:
            return _lowerings(lowerings)
        sold = [one.flavor for one in flavors.get_flavors(self.reader)]
        found = offer.offers(seen.cluster, seen.diagnosis, sold)
        carried = offer.carriable(seen.cluster, seen.diagnosis, params)
        if parsed_args.flavors:
            return _flavors(seen.cluster, found)
        return (
            (
                "Tier",
                "Hosts",
                "Capacity",
                "Allocated",
                "Headroom",
                "Excess",
                "Hosts Over",
                "Hosts Near",
                "Hosts Unknown",
                "Largest Flavor",
                "Fits",
                "Could Carry",
            ),
            [
                (
                    one.account,
                    one.hosts,
                    one.capacity,
                    one.allocated,
                    one.headroom,
                    one.excess,
                    one.over,
                    one.near,
                    one.unknown,
                    base.Told(one.largest and one.largest.flavor.name),
                    base.Told(one.largest and one.largest.count),
                    base.Told(carried.get(one.account)),
                )
                for one in found
            ],
        )

    def _told(
        self, seen: picture.Picture, params: parameters.Parameters
    ) -> tuple[advice.Lowering, ...]:
        """Tell what no migration cures and what would."""
        starved = seen.starved
        if not seen.diagnosis.excesses and not (starved and starved.starved):
            return ()
        made = planner.plan(
            seen.cluster,
            seen.diagnosis,
            params,
            expired=budget.Budget(params.time_budget_seconds).search(),
            starvation=starved,
        )
        for title, lines in report.advice(
            dataclasses.replace(made, relief=None)
        ):
            self.tell(f"{title}:")
            for line in lines:
                self.tell(line, level=1)
        if starved is None or made.relief is None:
            return ()
        found = advice.lowerings(
            seen.cluster, seen.diagnosis, starved, made.relief.remedies
        )
        if found:
            self.tell("What a lower over-subscription would cure:")
            for one in found:
                self.tell(one.text, level=1)
        return found


def _lowerings(found: tuple[advice.Lowering, ...]) -> base.Rows:
    return (
        (
            "Host",
            "Tier",
            "CPUs Sold",
            "CPUs Left",
            "Quota",
            "Quota That Cures",
            "Units To Leave",
            "Starved",
        ),
        [
            (
                one.host,
                account,
                one.cpus,
                base.Told(round(one.left_cpus, 3)),
                now,
                then,
                one.leaving[account],
                base.Lines(one.starved),
            )
            for one in found
            for account, (now, then) in one.totals.items()
        ],
    )


def _flavors(
    cluster: model.Cluster, found: tuple[offer.Offer, ...]
) -> base.Rows:
    names = {tier.name for tier in cluster.tiers}
    return (
        ("Flavor", "Tier", "VCPUs", "Memory MB", "Disk GB", "Fits", "Hosts"),
        [
            (
                one.flavor.name,
                tier.account,
                one.flavor.vcpus,
                one.flavor.memory_mb,
                one.flavor.disk_gb,
                one.count,
                len(one.hosts),
            )
            for tier in found
            if tier.account in names
            for one in tier.fits
        ],
    )
