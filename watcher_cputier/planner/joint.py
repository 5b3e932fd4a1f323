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


"""The best end state where memory or another class binds beside units.

The covering of an account (:mod:`.covering`) leaves out whatever else binds,
and accounts share a host's memory. Here one integer program says of all
accounts at once how many of each kind leave and enter each host, within every
class and every quota. It is larger than the programs of :mod:`.exact`, and for
some tens of hosts only. Rules on server groups, and the order of migrations,
are left out: what it needs at least, any plan needs.

Needs scipy (HiGHS), the extra ``exact``. Deterministic: HiGHS is given neither
threads nor a clock, but ends at the first node: its cuts and heuristics are
nearly always enough, and branching takes minutes.
"""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from watcher_cputier.planner import certificate
from watcher_cputier.planner import problem as problems
from watcher_cputier.planner import state as states

try:
    from scipy import optimize
    from scipy import sparse
except ImportError:  # the extra is not installed
    optimize = None
    sparse = None

# Hosts times kinds, at most; about five seconds.
_MOST_ARRIVALS = 5400
_NODES = 1
# What a solver's bound may be off by.
_UNITS_OFF = 1e-6
# More than any inventory: what does not bind has no limit.
_PLENTY = 2**39

Floats = npt.NDArray[np.float64]
Places = tuple[npt.NDArray[np.intp], ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An end state of all hosts, and what no plan can better.

    :param out: (H, K) instances that leave, by kind
    :param into: (H, K) instances that arrive; of each kind as many as leave
    :param bound: no plan that leaves nothing over quota needs fewer
        migrations
    """

    out: problems.Units
    into: problems.Units
    bound: int


def suits(state: states.State) -> bool:
    """Whether there is scipy, and the cluster is small enough.

    A host whose class comes from several providers, or an instance that
    does not hold what it asks for, is more than its sums tell.
    """
    problem = state.problem
    return (
        optimize is not None
        and 0 < len(problem.hosts) * len(problem.kinds) <= _MOST_ARRIVALS
        and bool((problem.demands == problem.releases).all())
        and not any(
            len(names) != len(set(names)) or host.shared
            for host in problem.hosts
            for names in [[n for p in host.providers for n in p.inventories]]
        )
    )


def solve(state: states.State) -> Solution | None:
    """The end state within all quotas with the fewest migrations.

    :param state: nothing has moved in it; it :func:`suits`
    :returns: None where there is none, or none was found in so many steps
    """
    shape = state.counts.shape
    most = _most_arrivals(state)
    leaving = np.nonzero(state.counts)
    entering = np.nonzero(most)
    rules, low, high = _rules(state, leaving, entering)
    outs, ins = len(leaving[0]), len(entering[0])
    solved = optimize.milp(
        np.repeat([1.0, 0.0], (outs, ins)),
        integrality=np.ones(outs + ins),
        bounds=optimize.Bounds(
            0, np.append(state.counts[leaving], most[entering])
        ),
        constraints=optimize.LinearConstraint(rules, low, high),
        options={"node_limit": _NODES, "mip_rel_gap": 0.0},
    )
    bound = solved.mip_dual_bound
    if solved.x is None or bound is None or not math.isfinite(bound):
        return None
    found = np.rint(solved.x).astype(np.int64)
    out, into = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    out[leaving], into[entering] = found[:outs], found[outs:]
    both = np.minimum(out, into)
    return Solution(
        out=out - both,
        into=into - both,
        bound=math.ceil(bound - _UNITS_OFF),
    )


def _most_arrivals(state: states.State) -> problems.Units:
    """(H, K) instances of a kind that an emptied host could take."""
    problem = state.problem
    empty = state.room + state.counts @ problem.releases
    found = np.zeros(state.counts.shape, np.int64)
    for kind in problem.kinds:
        asked = np.flatnonzero(kind.demand)
        fitting = (empty[:, asked] // kind.demand[asked]).min(axis=1)
        everywhere = int(state.counts[:, kind.index].sum())
        found[:, kind.index] = np.clip(fitting, 0, everywhere)
    return np.where(problem.all_accepts.T, found, 0)


def _rules(
    state: states.State, leaving: Places, entering: Places
) -> tuple[Any, Floats, Floats]:
    """The rows of the program with their limits.

    :param leaving: the hosts and kinds of the first unknowns
    :param entering: the hosts and kinds of the others
    """
    problem = state.problem
    hosts, kinds = state.counts.shape
    outs, ins = len(leaving[0]), len(entering[0])
    host_of = np.append(leaving[0], entering[0])
    kind_of = np.append(leaving[1], entering[1])
    sign = np.repeat([-1, 1], (outs, ins))
    each = np.arange(outs + ins)
    # Of each kind as many arrive as leave.
    rows = [
        sparse.csr_array((sign, (kind_of, each)), shape=(kinds, len(each)))
    ]
    low: list[Floats] = [np.zeros(kinds)]
    high: list[Floats] = [np.zeros(kinds)]
    quotas = {problem.column["quota", a] for a in problem.accounts}
    for column in np.flatnonzero(problem.demands.any(axis=0)).tolist():
        scale = int(np.gcd.reduce(problem.demands[:, column]))
        taken = problem.demands[kind_of, column] // scale * sign
        rows.append(
            sparse.csr_array(
                (taken, (host_of, each)), shape=(hosts, len(each))
            )
        )
        room = state.room[:, column]
        if column not in quotas:
            # A class that is over its capacity need not be relieved.
            room = np.maximum(room, 0)
        low.append(np.full(hosts, -np.inf))
        high.append(np.where(room < _PLENTY, room // scale, np.inf))
    # What units need at least, host by host, is told to be integral.
    for account in problem.accounts:
        for host in range(hosts):
            units = state.excess(host, account)
            if not units:
                continue
            some = [
                int(i)
                for i in np.flatnonzero(leaving[0] == host)
                if account in problem.kinds[kind_of[i]].accounts
            ]
            sizes = (
                problem.kinds[kind_of[i]].units
                for i in some
                for _ in range(state.counts[host, kind_of[i]])
            )
            row = np.zeros((1, len(each)))
            row[0, some] = 1
            rows.append(sparse.csr_array(row))
            needed = certificate.cover_count(sizes, units)
            low.append(np.array([float(needed)]))
            high.append(np.array([np.inf]))
    return (
        sparse.vstack(rows).tocsr(),
        np.concatenate(low),
        np.concatenate(high),
    )
