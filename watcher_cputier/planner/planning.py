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

"""From a diagnosis to a plan: attempts, certificates, the cut, the rest.

1. A first attempt with labels as they are (:mod:`.labels`).
2. Its final labels are prices; prices bound what any plan needs
   (:mod:`.prices`). Where plan and bound meet, the plan is proven optimal.
3. Where they do not, further attempts take those prices for granted from the
   start, or place first what had no place; the end state is optimised (in
   large clouds with scipy) and put in an order (:mod:`.exact`,
   :mod:`.ordering`).
   Parts of a few hosts are searched exhaustively, and what surrounds a host
   that stays over (:mod:`.neighbourhoods`); where memory binds too, targets
   are chosen with care (:mod:`.sparing`), and the end state of some tens of
   hosts is optimised as a whole (:mod:`.joint`).
4. The best attempt is replayed in the order of its value. ``max_migrations``
   cuts there.

The best is the one that leaves the fewest units over quota, the highest tier
first, and then costs least: migrations, memory to copy, priorities.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
import dataclasses

import numpy as np
import numpy.typing as npt

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import weigher
from watcher_cputier.planner import certificate
from watcher_cputier.planner import exact
from watcher_cputier.planner import exhaustive
from watcher_cputier.planner import guarding
from watcher_cputier.planner import joint
from watcher_cputier.planner import labels
from watcher_cputier.planner import neighbourhoods
from watcher_cputier.planner import ordering
from watcher_cputier.planner import prices
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import relaxations
from watcher_cputier.planner import sparing
from watcher_cputier.planner import state as states
from watcher_cputier.planner import values

Step = tuple[model.Instance, int, bool]
"""An instance, the row of its target, and whether it is only parked."""
_Waste = npt.NDArray[np.float64]

# Attempts with prices beside the first one.
_ATTEMPTS = 2
# A cloud of so many hosts is large; a plan so near its bound is left as it is.
_LARGE = 2000
_NEAR = 0.01
# Bounds of a large cloud are not improved for less than this part of a plan.
_TELLING = 0.001
# Attempts that keep to prices: by which part of them targets are guarded, and
# how many times they count for victims.
_GUARDS = ((1.0, 0.0), (1.0, 1.0), (0.9, 1.8))
_MOST_REPAIRS = 48
# A plan so near its bound is not repaired.
_FINE = 0.004
# Hosts whose rejections are told one by one, for each kind that stays.
_TOLD_HOSTS = 200


@dataclasses.dataclass(frozen=True, slots=True)
class _Repair:
    """Which part of a plan is found anew, and how.

    :param least: waste of a host that counts as wasteful
    :param wider: how often the hosts of what is taken back are added
    :param way: the attempt whose guard and labels are used
    :param part: of the other bundles, every so manieth is found anew too;
        0: none
    :param first: the first of those
    """

    least: float
    wider: int
    way: int
    part: int = 0
    first: int = 0


_REPAIRS = (
    *(
        _Repair(least, wider, way)
        for wider in (0, 1)
        for least in (0.3, 0.05)
        for way in (0, 2, 1)
    ),
    *(
        _Repair(0.05, 0, way, part, first)
        for part in (6, 3)
        for first in range(part)
        for way in (0, 2)
    ),
)


# The same where prices say nothing: all chains and what shares their hosts,
# with some of the rest.
_RENEWALS = (
    *(_Repair(least, 0, way) for least in (0.5, 2.5) for way in (0, 1)),
    *(
        _Repair(0.5, 0, way, part, first)
        for part in (7, 3)
        for first in range(part)
        for way in (0, 1)
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What one way of searching came to.

    :param steps: the migrations, in serial order
    :param left: {account: units over quota that stay}
    """

    steps: tuple[Step, ...]
    left: Mapping[str, int]
    cost: tuple[int, int, int]
    cut: bool = False

    @property
    def rank(self) -> tuple[object, ...]:
        """Smaller is better."""
        return (*self.left.values(), *self.cost)


def plan(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    extensions: constraints.Extensions | None = None,
    expired: Callable[[], bool] = prices.never,
) -> values.Plan:
    """Plan the migrations that bring hosts back to their quotas.

    :param extensions: further rules and rankers that the operator switched
        on
    :param expired: whether the time for searching is over; the best safe
        plan so far is returned then, and says so
    :returns: a plan; empty where no host is over quota
    """
    if not diagnosis.excesses:
        return values.Plan()
    problem = problems.Problem(
        cluster,
        diagnosis,
        params,
        extensions or constraints.Extensions(),
    )
    found = Planning(problem, expired).plan()
    return relaxations.advised(cluster, diagnosis, found, extensions)


class Planning:
    """One run of the planner."""

    def __init__(
        self, problem: problems.Problem, expired: Callable[[], bool]
    ) -> None:
        self.problem = problem
        self.expired = expired
        self._start = states.State(problem)
        self._bounds: dict[tuple[str, int], prices.Bound] = {}
        # What bounds were looked for from.
        self._started: set[tuple[str, int, bytes]] = set()
        self._residuals: dict[str, int] = {}
        self._proven: exhaustive.Outcome | None = None
        self._settled: tuple[Step, ...] = ()
        # Whether more than units decides on the targets.
        self._crowded = False
        self._former: Attempt | None = None
        # The fewest migrations of any plan that leaves nothing over quota.
        self._joint: int | None = None
        self.accounts = certificate.accounts(problem, self._start)
        self.over = [
            account
            for account in self.accounts
            if account.covering.excess.any()
        ]

    def plan(self) -> values.Plan:
        """The plan, with what proves it."""
        best = self._best()
        chosen, rest, after = self._cut(best)
        return self._written(best, chosen, rest, after)

    # Attempts

    def _best(self) -> Attempt:
        first = labels.Search(self._start, expired=self.expired)
        first.run()
        best = self._attempt(self._start, first.cut)
        self._start.undo(0)
        if first.cut or self._gap(best, first.highest) is None:
            return best
        small = self._by_parts()
        if small is not None and small.rank < best.rank:
            best = small
        if self._proven is not None:
            return best
        if sparing.worthwhile(self._start):
            spared = self._sparingly()
            if spared.rank < best.rank:
                # An end state of units alone would not be reached.
                self._crowded = True
                best = spared
            best = self._jointly(best)
        if self._joint is None:
            best = self._dearly(best, first)
            best = self._guardedly(best, first.highest)
        if (
            sparing.worthwhile(self._start)
            and len(self.problem.hosts) < _LARGE
        ):
            best = self._anew(best, first.highest)
        if (
            any(best.left.values())
            and not self.expired()
            and self._gap(best, first.highest) is not None
            and not self._close(best)
        ):
            best = neighbourhoods.improve(
                self._start, best, self._attempt, self.expired
            )
        return dataclasses.replace(best, cut=best.cut or self.expired())

    def _dearly(self, best: Attempt, first: labels.Search) -> Attempt:
        """Further attempts that take prices for granted; the exact mode."""
        highest = first.highest
        troubled = frozenset(first.troubled)
        exactly = not self._crowded
        if exactly and any(best.left.values()) and not self.expired():
            # Labels come near what must stay, and seldom to the least cost.
            best = self._exactly(best)
            exactly = False
        large = len(self.problem.hosts) >= _LARGE
        for number in range(1 if large else _ATTEMPTS):
            dear = self._gap(best, highest)
            if dear is None or self.expired():
                return best
            if self._close(best):
                break
            self._settle(self._start)
            search = labels.Search(
                self._start,
                floors=dear,
                first=troubled if number % 2 else frozenset(),
                expired=self.expired,
            )
            search.run()
            found = self._attempt(self._start, search.cut)
            self._start.undo(0)
            highest = np.maximum(highest, search.highest)
            troubled |= search.troubled
            if found.rank < best.rank:
                best = found
        if not exactly or self.expired():
            return best
        if self._gap(best, highest) is not None:
            best = self._exactly(best)
        return best

    def _guardedly(self, best: Attempt, highest: labels.Labels) -> Attempt:
        """Attempts that keep to the prices; the best of them mended."""
        if self._crowded or any(best.left.values()) or self.expired():
            return best
        if self._gap(best, highest) is None or self._close(best):
            return best
        over = [account for account in self.over if account.faithful]
        worth = {a.name: self._bounds[a.name, 0].prices for a in over}
        dear = np.zeros(len(self.problem.kinds))
        for account in over:
            found = account.spread(worth[account.name], len(dear))
            dear = np.maximum(dear, found)
        ways: list[tuple[states.State, labels.Labels | None]] = []
        large = len(self.problem.hosts) >= _LARGE
        # The last one is the best more often than not, and in a large cloud
        # one that is near enough ends the search.
        for share, times in reversed(_GUARDS) if large else _GUARDS:
            if self.expired() or self._gap(best, highest) is None:
                return best
            state = guarding.Guarded(
                self.problem, over, {n: share * p for n, p in worth.items()}
            )
            floors = 1 + np.floor(times * dear + 1e-6).astype(np.int64)
            ways.append((state, floors))
            self._settle(state)
            search = labels.Search(state, floors=floors, expired=self.expired)
            search.run()
            made = self._attempt(state, search.cut)
            state.undo(0)
            best = min(best, made, key=lambda a: a.rank)
            if self._close(best):
                return best
        if large:
            return best
        return self._mended(
            best,
            highest,
            ways,
            _REPAIRS,
            lambda made, _: self._wastes(made, worth),
            fine=_FINE,
        )

    def _mended(
        self,
        best: Attempt,
        highest: labels.Labels,
        ways: Sequence[tuple[states.State, labels.Labels | None]],
        repairs: Sequence["_Repair"],
        wastes: Callable[[Attempt, Sequence["_Bundle"]], _Waste],
        *,
        fine: float = 0.0,
    ) -> Attempt:
        """What is wasteful, planned anew again and again.

        :param ways: what repairs name by number
        :param wastes: (H,) what the hosts of a plan cost too much
        :param fine: a plan so near its bound is left as it is
        """
        bundles = self._bundles(best.steps)
        waste = wastes(best, bundles)
        turn = rounds = 0
        while turn < len(repairs) and rounds < _MOST_REPAIRS:
            if self.expired() or self._gap(best, highest) is None:
                return best
            if self._within(best, fine):
                return best
            repair = repairs[turn]
            state, floors = ways[repair.way]
            made = self._repaired(state, bundles, waste, repair, floors)
            rounds += 1
            turn += 1
            if made.rank < best.rank:
                best, turn = made, 0
                bundles = self._bundles(best.steps)
                waste = wastes(best, bundles)
        return best

    def _anew(self, best: Attempt, highest: labels.Labels) -> Attempt:
        """Where more than units binds: what takes chains, planned anew.

        Prices say nothing of memory. A chain is what a room costs that
        somebody else took.
        """
        if any(best.left.values()):
            return best
        return self._mended(
            best,
            highest,
            [(sparing.Sparing(self.problem), None), (self._start, None)],
            _RENEWALS,
            lambda _, bundles: self._chained(bundles),
        )

    def _chained(
        self, bundles: Sequence["_Bundle"]
    ) -> npt.NDArray[np.float64]:
        """(H,) in how many chains of more than one migration hosts are."""
        found = np.zeros(len(self.problem.hosts))
        rows = self.problem.host_index
        for bundle in bundles:
            if len(bundle.steps) > 1:
                for instance, target, _ in bundle.steps:
                    found[[rows[instance.host], target]] += 1
        return found

    def _repaired(
        self,
        state: states.State,
        bundles: Sequence["_Bundle"],
        waste: npt.NDArray[np.float64],
        repair: "_Repair",
        floors: labels.Labels | None,
    ) -> Attempt:
        """What touches wasteful hosts is taken back, and found anew.

        :param bundles: those of the best attempt
        :param waste: (H,) what its hosts waste
        """
        rows = self.problem.host_index
        wasteful = set(np.flatnonzero(waste > repair.least).tolist())
        touched = [
            (
                bundle,
                {target for _, target, _ in bundle.steps}
                | {rows[instance.host] for instance, _, _ in bundle.steps},
            )
            for bundle in bundles
        ]
        for _ in range(repair.wider):
            wasteful = wasteful.union(
                *(hosts for _, hosts in touched if hosts & wasteful)
            )
        kept = [
            bundle
            for number, (bundle, hosts) in enumerate(touched)
            if not hosts & wasteful
            and not (repair.part and number % repair.part == repair.first)
        ]
        self._applied(state, kept, None)
        search = labels.Search(state, floors=floors, expired=self.expired)
        search.run()
        made = self._attempt(state, search.cut)
        state.undo(0)
        return made

    def _wastes(
        self,
        best: Attempt,
        worth: Mapping[str, npt.NDArray[np.float64]],
    ) -> npt.NDArray[np.float64]:
        """(H,) what the hosts of a plan cost beyond the least."""
        waste = np.zeros(len(self.problem.hosts))
        moves = [(instance, target) for instance, target, _ in best.steps]
        for account in self.over:
            if account.name in worth:
                waste += guarding.wastes(
                    self.problem, account, worth[account.name], moves
                )
        return waste

    def _attempt(self, state: states.State, cut: bool = False) -> Attempt:
        last = {m.instance.uuid: i for i, m in enumerate(state.moves)}
        # Where a way to go on was not found, parked is moved for good.
        steps = tuple(
            (m.instance, m.target, i < last[m.instance.uuid])
            for i, m in enumerate(state.moves)
        )
        return Attempt(
            steps=steps,
            left={
                account.name: self._left(state, account.name)
                for account in self.accounts
            },
            cost=(
                len(steps),
                sum(m.kind.memory_mb for m in state.moves),
                sum(m.kind.priority for m in state.moves),
            ),
            cut=cut,
        )

    def _left(self, state: states.State, account: str) -> int:
        column = self.problem.column["quota", account]
        return int(np.maximum(-state.room[:, column], 0).sum())

    def _gap(
        self, best: Attempt, highest: labels.Labels
    ) -> labels.Labels | None:
        """Prices as labels to start from; None where the best is proven."""
        kinds = len(self.problem.kinds)
        dear = np.ones(kinds)
        bounds: dict[str, int] = {}
        short = False
        for account in self.over:
            left = best.left[account.name]
            enough = self._moves_of(best, account.name)
            if len(self.problem.hosts) >= _LARGE:
                enough -= int(enough * _TELLING)
            bound = self._bound(
                account,
                left,
                enough,
                account.gathered(highest) - 1,
            )
            bounds[account.name] = bound.value
            found = account.spread(bound.prices, kinds)
            dear = np.maximum(dear, 1 + np.floor(found + 1e-6))
            if left > self._residual(account, left):
                short = True
        needed = certificate.together(self.problem, bounds)
        if self._joint is not None and not any(best.left.values()):
            needed = max(needed, self._joint)
        if not short and len(best.steps) <= needed:
            return None
        return dear.astype(np.int64)

    def _bound(
        self,
        account: certificate.Account,
        left: int,
        enough: int,
        start: npt.ArrayLike | None = None,
    ) -> prices.Bound:
        """The fewest migrations that leave so much; the best one known."""
        key = (account.name, left)
        known = self._bounds.get(key)
        if known is not None and (start is None or known.value >= enough):
            return known
        if start is not None:
            begin = (*key, np.asarray(start, dtype=float).tobytes())
            if begin in self._started:
                return self._bounds[key]
            self._started.add(begin)
        found = certificate.migrations(
            account,
            left,
            start=start,
            enough=enough,
            expired=self.expired,
        )
        if known is None or found.value > known.value:
            self._bounds[key] = found
        return self._bounds[key]

    def _residual(self, account: certificate.Account, left: int) -> int:
        """The fewest units over quota that any plan leaves."""
        if not left:
            return 0
        known = self._residuals.get(account.name)
        if known is None:
            known = certificate.residual(
                account, enough=left, expired=self.expired
            )
            self._residuals[account.name] = known
        return known

    def _close(self, best: Attempt) -> bool:
        """Whether more attempts are not worth their time: a large cloud
        whose plan is within a small part of the bound, or leaves no more
        than has to stay.
        """
        if len(self.problem.hosts) < _LARGE:
            return False
        if any(best.left.values()):
            return all(
                best.left[account.name]
                <= self._residual(account, best.left[account.name])
                for account in self.over
            )
        return self._within(best, _NEAR)

    def _within(self, best: Attempt, part: float) -> bool:
        """Whether a plan that leaves nothing is so near its bound."""
        if any(best.left.values()):
            return False
        needed = certificate.together(
            self.problem,
            {a.name: self._bounds[a.name, 0].value for a in self.over},
        )
        return len(best.steps) - needed <= part * needed

    def _moves_of(self, attempt: Attempt, account: str) -> int:
        return sum(
            1
            for instance, _, _ in attempt.steps
            if account in self.problem.kind_of[instance.uuid].accounts
        )

    def _exactly(self, best: Attempt) -> Attempt:
        """The exact end state of every account, put in an order, if better."""
        state = self._start
        wanted = []
        for account in self.over:
            if account.name == self.problem.cluster.shares_class:
                continue
            found = exact.solve(account.covering, expired=self.expired)
            if found is not None:
                wanted.append((account, found))
        if not wanted or self.expired():
            return best
        for account, found in wanted:
            ordering.realise(state, account.groups, found.out, found.into)
        rest = labels.Search(state, expired=self.expired)
        rest.run()
        made = self._attempt(state, rest.cut)
        state.undo(0)
        if made.rank >= best.rank:
            return best
        # What leads there may relieve less, migration by migration.
        self._former = best
        return made

    def _jointly(self, best: Attempt) -> Attempt:
        """The best end state of all accounts and classes, put in an order."""
        if any(best.left.values()) or self.expired():
            return best
        if not joint.suits(self._start):
            return best
        found = joint.solve(self._start)
        if found is None:
            return best
        self._joint = found.bound
        for state in (self._start, sparing.Sparing(self.problem)):
            if len(best.steps) <= found.bound:
                break
            groups = [[kind.index] for kind in self.problem.kinds]
            ordering.realise(state, groups, found.out, found.into)
            rest = labels.Search(state, expired=self.expired)
            rest.run()
            made = self._attempt(state, rest.cut)
            state.undo(0)
            best = min(best, made, key=lambda a: a.rank)
        return best

    def _by_parts(self) -> Attempt | None:
        """The best of all reachable states, in every small part."""
        state = self._start
        found = neighbourhoods.solve_parts(state, self.expired)
        made = None
        if found is not None:
            self._proven = found.whole
            if found.proven:
                self._settled = self._attempt(state).steps
            if found.whole is None:
                labels.Search(state, expired=self.expired).run()
            made = self._attempt(state)
        state.undo(0)
        return made

    def _settle(self, state: states.State) -> None:
        """Begin with what is proven to be best in parts of the cluster."""
        for instance, target, parking in self._settled:
            state.move(instance, target, parking=parking)

    def _sparingly(self) -> Attempt:
        """An attempt with targets that are missed least."""
        state = sparing.Sparing(self.problem)
        self._settle(state)
        search = labels.Search(state, expired=self.expired)
        search.run()
        return self._attempt(state, search.cut)

    # The order of value, and the cut

    def _bundles(self, steps: Iterable[Step]) -> list["_Bundle"]:
        """Each victim with the migrations that make its room."""
        state = self._start
        found: list[_Bundle] = []
        open_steps: list[Step] = []
        for step in steps:
            instance, target, parking = step
            source = state.row_of(instance)
            account, before = self._over(state, instance, source)
            state.move(instance, target, parking=parking)
            open_steps.append(step)
            relief = (
                before - state.excess(source, account)
                if account is not None
                else 0
            )
            if relief > 0 and account is not None and not parking:
                rank = self.problem.accounts.index(account)
                found.append(
                    _Bundle(
                        steps=tuple(open_steps),
                        rank=rank,
                        relief=relief,
                        host=self.problem.hosts[source].name,
                    )
                )
                open_steps = []
        if open_steps and found:
            found[-1] = dataclasses.replace(
                found[-1], steps=(*found[-1].steps, *open_steps)
            )
        state.undo(0)
        return found

    def _over(
        self, state: states.State, instance: model.Instance, source: int
    ) -> tuple[str | None, int]:
        """The first of its accounts that its host is over in."""
        for account in self.problem.kind_of[instance.uuid].accounts:
            units = state.excess(source, account)
            if units > 0:
                return account, units
        return None, 0

    def _cut(self, best: Attempt) -> tuple[list[Step], list[Step], list[Step]]:
        """What is kept, in the order of value; what is deferred; all."""
        bundles = self._bundles(best.steps)
        whole = self._replayed(sorted(bundles, key=_value), None)
        if len(whole) < len(best.steps):
            # An order of value that is not safe: the serial one is.
            whole = list(best.steps)
        limit = self.problem.params.max_migrations
        if not limit or len(whole) <= limit:
            return whole, [], whole
        candidates = [
            # The first of equal worth: the next audit goes on from there.
            self._replayed(self._bundles(whole), limit),
            self._replayed(sorted(bundles, key=_value), limit),
        ]
        if self._former is not None:
            former = sorted(self._bundles(self._former.steps), key=_value)
            candidates.append(self._replayed(former, limit))
        served: list[_Bundle] = []
        for rank in range(len(self.problem.accounts)):
            # Higher tiers as the whole plan serves them, which is with the
            # fewest migrations; then the most relief for each that is left.
            candidates.append(self._eagerly(served, limit))
            following = [*served, *(b for b in bundles if b.rank == rank)]
            if sum(len(b.steps) for b in following) > limit:
                candidates.append(self._exactly_cut(served, rank, limit))
                break
            served = following
        found = exhaustive.search(self._start, self.expired, limit=limit)
        if found is not None:
            candidates.append(list(self._attempt(self._start).steps))
            self._start.undo(0)
        kept = min(candidates, key=self._worth)
        if not kept:
            # No bundle fits the limit: the beginning of the whole plan, safe
            # as every prefix of it is, makes room for the next audit.
            kept = whole[:limit]
        moved = {instance.uuid for instance, _, _ in kept}
        rest = [step for step in whole if step[0].uuid not in moved]
        return kept, rest, whole

    def _eagerly(self, served: Sequence["_Bundle"], limit: int) -> list[Step]:
        """These bundles, and on from there what relieves most for each
        migration.
        """
        state = self._start
        self._applied(state, served, limit)
        labels.Search(
            state, expired=self.expired, limit=limit, eager=True
        ).run()
        made = self._attempt(state)
        state.undo(0)
        return self._replayed(self._bundles(made.steps), limit)

    def _exactly_cut(
        self, served: Sequence["_Bundle"], rank: int, limit: int
    ) -> list[Step]:
        """These bundles, and the most relief of the next tier, put in an
        order.
        """
        name = self.problem.accounts[rank]
        account = next((a for a in self.over if a.name == name), None)
        state = self._start
        spare = limit - len(self._applied(state, served, limit))
        pool = self.problem.cluster.shares_class
        if (
            account is not None
            and spare > 0
            and name != pool
            and not self.expired()
        ):
            found = exact.relieve(
                account.covering, spare, expired=self.expired
            )
            if found is not None:
                ordering.realise(state, account.groups, found.out, found.into)
        made = self._attempt(state)
        state.undo(0)
        return self._replayed(self._bundles(made.steps), limit)

    def _worth(self, steps: list[Step]) -> tuple[object, ...]:
        state = self._start
        for instance, target, parking in steps:
            state.move(instance, target, parking=parking)
        rank = self._attempt(state).rank
        state.undo(0)
        return rank

    def _replayed(
        self, bundles: Iterable["_Bundle"], limit: int | None
    ) -> list[Step]:
        """The bundles in this order, as far as each finds its room."""
        steps = self._applied(self._start, bundles, limit)
        self._start.undo(0)
        return steps

    def _applied(
        self,
        state: states.State,
        bundles: Iterable["_Bundle"],
        limit: int | None,
    ) -> list[Step]:
        """The same, with the state after them.

        One that finds no room is tried again after those that do.
        """
        steps: list[Step] = []
        waiting = list(bundles)
        while waiting:
            later = []
            for bundle in waiting:
                mark = len(state.moves)
                if limit is not None and mark + len(bundle.steps) > limit:
                    later.append(bundle)
                    continue
                for instance, target, parking in bundle.steps:
                    if state.rejection(instance, target) is not None:
                        state.undo(mark)
                        later.append(bundle)
                        break
                    state.move(instance, target, parking=parking)
                else:
                    steps.extend(bundle.steps)
            if len(later) == len(waiting):
                break
            waiting = later
        return steps

    def _come_to(self, steps: list[Step]) -> states.State:
        """The state after these migrations, on from what it shares with
        them.
        """
        state = self._start
        shared = 0
        for move, step in zip(state.moves, steps, strict=False):
            if (move.instance.uuid, move.target) != (step[0].uuid, step[1]):
                break
            shared += 1
        state.undo(shared)
        for instance, target, parking in steps[shared:]:
            state.move(instance, target, parking=parking)
        return state

    # The plan

    def _written(
        self,
        best: Attempt,
        chosen: list[Step],
        rest: list[Step],
        whole: list[Step],
    ) -> values.Plan:
        before = {
            (e.host, e.tier): e.units for e in self.problem.diagnosis.excesses
        }
        # With what follows them: what makes room does so for a migration
        # that may be deferred.
        told = self._migrations(self._followed(chosen, rest), len(chosen))
        migrations, deferred = told[: len(chosen)], told[len(chosen) :]
        after = self._after(chosen, before)
        unresolved = tuple(self._unresolved(whole))
        self._start.undo(0)
        residual = {}
        for account in self.over:
            residual[account.name] = self._residual(
                account, best.left[account.name]
            )
        if self._proven is not None:
            # The highest tier comes first in it: of the others it only tells
            # what is left where that one is served best.
            first = self.over[0].name
            residual[first] = max(
                residual[first],
                self._proven.left[self.problem.accounts.index(first)],
            )
        residual_bound = certificate.together(self.problem, residual)
        return values.Plan(
            migrations=tuple(migrations),
            deferred=tuple(deferred),
            unresolved=unresolved,
            lower_bound=self._lower_bound(before, after, len(migrations)),
            residual_bound=residual_bound,
            relief_bound=(self._relief_bound(before, after) if rest else None),
            excess_before=model.frozen_map(before),
            excess_after=model.frozen_map(after),
            cut=best.cut,
        )

    def _after(
        self, steps: list[Step], before: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], int]:
        state = self._come_to(steps)
        return {
            (host, account): state.excess(
                self.problem.host_index[host], account
            )
            for host, account in before
        }

    def _followed(self, chosen: list[Step], rest: list[Step]) -> list[Step]:
        """What is chosen, and the rest where that still finds its room."""
        if not rest:
            return chosen
        state = self._come_to(chosen)
        steps = list(chosen)
        for instance, target, parking in rest:
            if state.rejection(instance, target) is None:
                state.move(instance, target, parking=parking)
                steps.append((instance, target, parking))
        state.undo(0)
        return steps

    def _migrations(
        self, steps: list[Step], kept: int
    ) -> list[values.Migration]:
        """The steps with their reasons, found by replaying them.

        :param kept: how many of them are not deferred; one whose instance
            goes on later than that is no parking move
        """
        state = self._start
        last = {step[0].uuid: i for i, step in enumerate(steps[:kept])}
        told: list[_Told] = []
        for i, (instance, target, _) in enumerate(steps):
            source = state.row_of(instance)
            account, before = self._over(state, instance, source)
            weight = state.weight(instance, target)
            state.move(
                instance, target, parking=i < last.get(instance.uuid, -1)
            )
            relief = 0
            if account is not None:
                relief = before - state.excess(source, account)
            told.append(
                _Told(
                    move=state.moves[-1],
                    weight=weight,
                    account=account,
                    relief=relief,
                )
            )
        excesses = {
            (e.host, e.tier): e for e in self.problem.diagnosis.excesses
        }
        coming: dict[int, tuple[str, diagnosing.Excess]] = {}
        found: list[values.Migration] = []
        for one in reversed(told):
            host = self.problem.hosts[one.move.source].name
            own = excesses.get((host, one.account or ""))
            beneficiary = ""
            if own is None:
                beneficiary, own = coming.get(
                    one.move.source, ("", self.problem.diagnosis.excesses[0])
                )
            coming[one.move.target] = (one.move.instance.name, own)
            kind = one.move.kind
            found.append(
                values.Migration(
                    instance=one.move.instance,
                    source=host,
                    target=self.problem.hosts[one.move.target].name,
                    tier=one.account or kind.accounts[0],
                    units=one.move.instance.units,
                    relief=one.relief,
                    excess=own,
                    drained=(
                        ""
                        if beneficiary
                        else self.problem.diagnosis.drained.get(host, "")
                    ),
                    weight=one.weight,
                    makes_room_for=beneficiary,
                    parking=one.move.parking,
                )
            )
        return found[::-1]

    def _lower_bound(
        self,
        before: Mapping[tuple[str, str], int],
        after: Mapping[tuple[str, str], int],
        migrations: int,
    ) -> int:
        """The fewest migrations of any plan that removes as much."""
        bounds = {}
        for account in self.over:
            left = sum(n for (_, a), n in after.items() if a == account.name)
            bounds[account.name] = self._bound(account, left, migrations).value
        found = certificate.together(self.problem, bounds)
        if not any(after.values()):
            found = max(found, self._joint or 0)
            if found < migrations and self.problem.cluster.shares_class:
                # Host by host, which bounds of whole accounts are not.
                found = max(found, self._cover_bound(before))
        if self._proven is not None:
            stays = tuple(
                sum(n for (_, a), n in after.items() if a == name)
                for name in self.problem.accounts
            )
            if stays == self._proven.left:
                found = max(found, self._proven.migrations)
        return min(found, migrations)

    def _relief_bound(
        self,
        before: Mapping[tuple[str, str], int],
        after: Mapping[tuple[str, str], int],
    ) -> int:
        """What no plan within the cap removes that puts higher tiers first.

        Such a plan removes as much of the higher tiers as this one at least,
        which takes migrations that the lower tiers do not get.
        """
        spare = self.problem.params.max_migrations
        pooled = self.problem.cluster.shares_class is not None
        known = True
        most = {}
        for account in self.over:
            whole, left = (
                sum(n for (_, a), n in units.items() if a == account.name)
                for units in (before, after)
            )
            most[account.name] = certificate.relief(
                account, spare, enough=whole - left, expired=self.expired
            )
            if known and not pooled:
                # With fewer migrations it would not have come so far.
                spare -= self._bound(account, left, spare).value
            known = known and whole - left >= most[account.name]
        return certificate.together(self.problem, most)

    def _cover_bound(self, before: Mapping[tuple[str, str], int]) -> int:
        """Host by host, for a plan that removes everything."""
        by_host: dict[str, dict[str, int]] = {}
        cluster = self.problem.cluster
        for (host, account), units in before.items():
            sizes = (
                instance.units
                for instance in cluster.instances_by_host.get(host, ())
                if account in cluster.accounts_of(instance)
            )
            by_host.setdefault(host, {})[account] = certificate.cover_count(
                sizes, units
            )
        return sum(
            certificate.together(self.problem, counts)
            for counts in by_host.values()
        )

    # What stays

    def _unresolved(self, steps: list[Step]) -> Iterator[values.Unresolved]:
        state = self._come_to(steps)
        moved = {instance.uuid for instance, _, _ in steps}
        told: dict[int, Mapping[str, constraints.Rejection]] = {}
        cluster = self.problem.cluster
        rank = {name: i for i, name in enumerate(self.problem.accounts)}
        for excess in sorted(
            self.problem.diagnosis.excesses,
            key=lambda e: (rank[e.tier], -e.units, e.host),
        ):
            row = self.problem.host_index[excess.host]
            units = state.excess(row, excess.tier)
            if not units:
                continue
            refusals = tuple(
                self._refusal(state, instance, told)
                for instance in sorted(
                    cluster.instances_by_host.get(excess.host, ()),
                    key=lambda i: i.sort_key,
                )
                if excess.tier in cluster.accounts_of(instance)
                and instance.units
                and instance.uuid not in moved
            )
            yield values.Unresolved(
                host=excess.host,
                tier=excess.tier,
                units=units,
                instances=certificate.cover_count(
                    (r.instance.units for r in refusals), units
                ),
                refusals=refusals,
            )

    def _refusal(
        self,
        state: states.State,
        instance: model.Instance,
        told: dict[int, Mapping[str, constraints.Rejection]],
    ) -> values.Refusal:
        rejection = self.problem.rejected.get(instance.uuid)
        if rejection is not None:
            return values.Refusal(
                instance=instance,
                rejection=rejection,
                targets=model.frozen_map(),
            )
        kind = self.problem.kind_of[instance.uuid].index
        targets = told.get(kind)
        few = len(self.problem.hosts) <= _TOLD_HOSTS
        if targets is None or few:
            targets = self._rejections(state, instance)
            told[kind] = targets
        return values.Refusal(
            instance=instance, rejection=None, targets=targets
        )

    def _rejections(
        self, state: states.State, instance: model.Instance
    ) -> Mapping[str, constraints.Rejection]:
        """Why no host takes it; of many hosts, those that lack least."""
        rows: Iterable[int] = range(len(self.problem.hosts))
        if len(self.problem.hosts) > _TOLD_HOSTS:
            kind = self.problem.kind_of[instance.uuid]
            lack = np.maximum(kind.demand - state.room, 0).sum(axis=1)
            lack[~self.problem.accepts(kind)] += 2**50
            rows = np.argsort(lack, kind="stable")[:_TOLD_HOSTS].tolist()
        found = {}
        for row in rows:
            rejection = state.rejection(instance, row)
            if rejection is None:
                rejection = constraints.Rejection(
                    rule="no_order",
                    reason="it has room, but what would have to move first "
                    "was not found to have a place",
                )
            found[self.problem.hosts[row].name] = rejection
        if len(self.problem.hosts) <= _TOLD_HOSTS:
            for host in self.problem.cluster.hosts:
                if host.name not in found:
                    found[host.name] = constraints.Rejection(
                        rule="in_audit_scope",
                        reason="the host is outside the audit's scope",
                        requirement="R112",
                    )
        return model.frozen_map(found)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Bundle:
    """A victim's migration, after those that make its room.

    :param rank: of its account; 0 is the highest tier
    :param relief: units of excess that it removes
    """

    steps: tuple[Step, ...]
    rank: int
    relief: int
    host: str


def _value(bundle: _Bundle) -> tuple[object, ...]:
    """Sort key: the most valuable first (law L6)."""
    victim = bundle.steps[-1][0]
    return (
        bundle.rank,
        -bundle.relief / len(bundle.steps),
        -bundle.relief,
        bundle.host,
        *victim.sort_key,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """A migration that is replayed, with the excess that it relieves."""

    move: states.Move
    weight: weigher.Weight
    account: str | None
    relief: int
