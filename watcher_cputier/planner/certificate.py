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

"""What no plan can better: the bounds that a plan is published with.

An instance holds units of one tier on one host, so that the bounds of the
tiers add up. In single-class mode it also counts against the class of all
tiers, and the larger of the two counts: host by host for covers, as a whole
for prices.
"""

from collections.abc import Callable, Iterable, Mapping
import dataclasses

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import covering as coverings
from watcher_cputier.planner import prices
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Account:
    """One account before the plan: its covering and who is who in it.

    :param groups: per kind of the covering the kinds of the problem
    :param faithful: whether what an instance holds is what it asks of a new
        host, so that the prices of the covering prove anything
    """

    name: str
    covering: coverings.Covering
    groups: list[list[int]]
    faithful: bool

    @property
    def hosts_over(self) -> int:
        """Hosts that are over their quota."""
        return int((self.covering.room < 0).sum())

    def spread(
        self, values: npt.ArrayLike, kinds: int
    ) -> npt.NDArray[np.float64]:
        """Values per kind of the covering, as values per kind."""
        found = np.zeros(kinds)
        for value, group in zip(
            np.asarray(values, dtype=float), self.groups, strict=True
        ):
            found[group] = value
        return found

    def gathered(
        self, values: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.float64]:
        """Values per kind, as values per kind of the covering."""
        return np.array([float(values[group].min()) for group in self.groups])


def accounts(problem: problems.Problem, state: states.State) -> list[Account]:
    """The accounts of a state in which nothing has moved, in their order."""
    found = []
    for name in problem.accounts:
        made, groups = problem.covering(name, state.counts, state.room)
        column = problem.column["quota", name]
        found.append(
            Account(
                name=name,
                covering=made,
                groups=groups,
                faithful=all(
                    problem.kinds[k].units == problem.kinds[k].demand[column]
                    for group in groups
                    for k in group
                ),
            )
        )
    return found


def together(problem: problems.Problem, values: Mapping[str, int]) -> int:
    """Bounds of accounts as one: tiers add up, the class of all is all."""
    pool = problem.cluster.shares_class
    tiers = sum(n for name, n in values.items() if name != pool)
    return max(tiers, values.get(pool, 0)) if pool is not None else tiers


def migrations(
    account: Account,
    residual: int,
    *,
    start: npt.ArrayLike | None = None,
    enough: int | None = None,
    expired: Callable[[], bool] = prices.never,
) -> prices.Bound:
    """The fewest migrations that leave so many units over quota.

    :param residual: in units of the class
    """
    scale = account.covering.scale
    # Excess was rounded up to whole multiples of the scale, host by host.
    rounded = account.hosts_over * (scale - 1) if residual else 0
    if not account.faithful:
        # What leaves is known, what arrives is not: the cover alone holds,
        # whatever the targets are.
        free = account.covering
        most = int((free.movable @ free.sizes).sum())
        free = dataclasses.replace(
            free,
            accepts=np.ones_like(free.accepts),
            room=np.where(free.room < 0, free.room, most),
        )
        left = (residual + rounded) // scale
        return prices.Bound(
            value=prices.cover_bound(free, left),
            prices=np.zeros(len(account.groups)),
            move_cost=1.0,
            residual_cost=0.0,
        )
    return prices.migration_bound(
        account.covering,
        (residual + rounded) // scale,
        start,
        enough=enough,
        expired=expired,
    )


def residual(
    account: Account,
    *,
    enough: int | None = None,
    expired: Callable[[], bool] = prices.never,
) -> int:
    """The fewest units over quota that any plan leaves in an account."""
    if not account.groups or not account.faithful:
        return 0
    scale = account.covering.scale
    rounded = account.hosts_over * (scale - 1)
    found = prices.residual_bound(
        account.covering,
        enough=None if enough is None else -(-(enough + rounded) // scale),
        expired=expired,
    )
    return max(0, found.value * scale - rounded)


def relief(
    account: Account,
    limit: int,
    *,
    enough: int | None = None,
    expired: Callable[[], bool] = prices.never,
) -> int:
    """The most units of excess of an account that so many migrations remove.

    Without faithful prices all of its excess.
    """
    scale = account.covering.scale
    total = int(account.covering.excess.sum()) * scale
    if not account.groups or not account.faithful:
        return total
    found = prices.relief_bound(
        account.covering,
        limit,
        enough=None if enough is None else enough // scale,
        expired=expired,
    )
    return min(total, found.value * scale)


def cover_count(sizes: Iterable[int], units: int) -> int:
    """The fewest of these sizes whose sum reaches so many units.

    All of them where even their sum does not.
    """
    count = 0
    for size in sorted(sizes, reverse=True):
        if units <= 0:
            break
        units -= size
        count += 1
    return count
