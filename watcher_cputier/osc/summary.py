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

from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier.osc import base
from watcher_cputier.osc import flavors


class Summary(base.Judging, base.Lister):
    """Sum tiers up over all hosts: capacity, headroom, what still fits.

    Headroom is that of hosts that could take an instance now. "Fits" is how
    many instances of the largest flavor that still fits the hosts would take
    if nothing else were started. "Could carry" is how many units of the tier
    would still get what it promises on CPUs that nobody wants at present.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--flavors",
            action="store_true",
            help="list how many more instances of each flavor fit, instead "
            "of the tiers",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each tier, or for each flavor."""
        seen = self.picture(parsed_args)
        sold = [one.flavor for one in flavors.get_flavors(self.reader)]
        found = offer.offers(seen.cluster, seen.diagnosis, sold)
        carried = offer.carriable(
            seen.cluster, seen.diagnosis, self.parameters(parsed_args)
        )
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
