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

"""An example of a rule and of a ranker for watcher-cputier.

Operators mark racks by host aggregates. ``quiet_racks`` keeps migrations
away from hosts of aggregates whose metadata says ``quiet=true``;
``cool_racks`` prefers hosts of aggregates with a low ``temperature`` in
degrees Celsius. Both are switched on in the decision engine's
configuration::

    [cputier]
    constraints = quiet_racks
    rankers = cool_racks
"""

from watcher_cputier import constraints

# A rack at this temperature, or one that says nothing, earns nothing.
_WARM_CELSIUS = 30.0


def quiet_racks(conf):
    """The factory of the rule; it may read ``conf`` and the network."""
    del conf

    def not_in_a_quiet_rack(move):
        for aggregate in move.cluster.aggregates_of(move.target):
            if aggregate.metadata.get("quiet") == "true":
                return constraints.Rejection(
                    rule="quiet_racks",
                    reason=f"its rack {aggregate.name} is to be left quiet",
                )
        return None

    return not_in_a_quiet_rack


def cool_racks(conf):
    """The factory of the ranker: 1 at 0 degrees Celsius, 0 when warm."""
    del conf

    def coolness(move):
        told = [
            float(aggregate.metadata["temperature"])
            for aggregate in move.cluster.aggregates_of(move.target)
            if "temperature" in aggregate.metadata
        ]
        if not told:
            return 0.0
        return max(0.0, 1 - max(told) / _WARM_CELSIUS)

    return coolness
