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

"""Which instances move where so that hosts keep their quotas again.

==============  ========================================================
values         migrations, refusals, advice, the plan
problem        the cluster as arrays: kinds of instances, what hosts lack
books, state   what is taken where while a plan grows
labels         the search: covers, targets, ejections
covering       the relaxation to one account, for ...
prices         ... the bounds that certify a plan, and
exact          ... its optimum (in large clouds with scipy, optional)
selection      a pattern for every host, where there is no scipy
joint          the optimum where memory binds too (optional, with scipy)
sparing        targets that spare the room of those that have few others
guarding       targets that keep to prices, and what to plan anew
ordering       an end state put in an order
exhaustive     all reachable states of a few hosts
neighbourhoods parts of a cluster, and the hosts around a lock
certificate    bounds of accounts put together
planning       attempts, the cut, the plan for quotas
relief         starved instances that a migration helps, with ...
picture, scene who is where, what CPUs are to spare, who starves,
targets        who could take them and serve everybody,
exchanges      who could make way for them, and
cures          which migrations help whom most
cooldown       who has moved so recently that it stays
mixing         even shares
concerns       the plan of an audit: quotas, starvation, mixing
==============  ========================================================
"""

from collections.abc import Iterable, Mapping

from watcher_cputier.planner import books
from watcher_cputier.planner import concerns
from watcher_cputier.planner import mixing
from watcher_cputier.planner import relief
from watcher_cputier.planner import values

MIXING = values.MIXING
QUOTA = values.QUOTA
STARVATION = values.STARVATION
Books = books.Books
Displacement = values.Displacement
Migration = values.Migration
Mixing = values.Mixing
Plan = values.Plan
Prediction = values.Prediction
Refusal = values.Refusal
Relaxation = values.Relaxation
Relief = values.Relief
Remedy = values.Remedy
Suggestion = values.Suggestion
Spread = values.Spread
Unresolved = values.Unresolved
account_of_mixing = mixing.account
account_of_relief = relief.account
hosts_to_detail = concerns.hosts_to_detail
plan = concerns.plan


def excess_units(
    excess: Mapping[tuple[str, str], int], tiers: Iterable[str]
) -> int:
    """Units over quota, each counted once."""
    names = set(tiers)
    by_host: dict[str, tuple[int, int]] = {}
    for (host, account), units in excess.items():
        own, pool = by_host.get(host, (0, 0))
        by_host[host] = (
            (own + units, pool) if account in names else (own, pool + units)
        )
    return sum(max(pair) for pair in by_host.values())
