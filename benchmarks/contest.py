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

"""One cloud, several contenders: what each plans, and what it costs.

``python -m benchmarks.contest JOB FAMILY HOSTS [WORDS]`` builds the cloud of
a family in a process of its own and prints as JSON what became of it. Each
contender works in a fork of that process: it finds the cloud built and
nothing of the others, its CPU seconds and its peak memory are its own, and
one that takes too long is stopped.

The judge is :mod:`tests.checker`: it executes the moves one by one and refuses
what the laws forbid at that moment; a refused migration does not happen.
"""

from collections.abc import Callable, Iterable, Sequence
import gc
import json
import os
import pathlib
import re
import signal
import sys
import time
from typing import Any

import numpy as np

from benchmarks import families
from benchmarks import peers
from tests import checker
from tests import executions
from watcher_cputier import model

Move = tuple[str, str]
Found = dict[str, Any]

OURS = "cputier"
EXACT = "cputier [exact]"
GREEDY = "cover + weigher"
FIRST_FIT = "first fit, largest"
SMALLEST = "offload, smallest"
# Watcher's vm_workload_consolidation, workload_balance and
# workload_stabilization.
SHOWN = "consolidation + tiers"
CONSOLIDATION = "consolidation"
BALANCE = "balance"
STABILIZATION = "stabilization"
BLIND = (CONSOLIDATION, BALANCE, STABILIZATION)

LIMIT_SECONDS = 900
PARALLEL = (8, 16)
SLOWEST = 2.0
FASTEST = 1.05


def peak_megabytes() -> float:
    """The most memory that this process had so far."""
    status = pathlib.Path("/proc/self/status").read_text("utf-8")
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024 / 1e6


def forked(action: Callable[[], Found], limit: int = LIMIT_SECONDS) -> Found:
    """What an action returns, from a fork that ends with it.

    :returns: ``{"failed": why}`` where it does not return in time or at all
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        signal.alarm(limit)
        try:
            text = json.dumps(action())
        except Exception as error:
            text = json.dumps({"failed": f"{type(error).__name__}: {error}"})
        with os.fdopen(writer, "w", encoding="utf-8") as pipe:
            pipe.write(text)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        stopped = os.WTERMSIG(status) == signal.SIGALRM
        return {"failed": f"over {limit} s" if stopped else "killed"}
    found: Found = json.loads(text)
    return found


def contest(
    cloud: model.Cluster,
    contenders: Iterable[str],
    max_migrations: int = 0,
    limit: int = LIMIT_SECONDS,
) -> dict[str, Found]:
    """{contender: what it planned, judged}."""
    gc.freeze()
    found = {
        name: forked(lambda n=name: _run(cloud, n, max_migrations), limit)
        for name in contenders
    }
    gc.unfreeze()
    return found


def _run(cloud: model.Cluster, name: str, max_migrations: int) -> Found:
    if name in (OURS, EXACT):
        return _ours(cloud, max_migrations, exact=name == EXACT)
    plan = _contender(name)
    started = time.process_time()
    moves = plan(cloud)
    seconds = time.process_time() - started
    megabytes = peak_megabytes()
    return {
        **_executed(cloud, moves, max_migrations),
        "seconds": seconds,
        "megabytes": megabytes,
    }


def _contender(name: str) -> Callable[[model.Cluster], Sequence[Move]]:
    """A peer; what it needs is loaded here, in its own process."""
    if name == FIRST_FIT:
        return peers.first_fit
    if name == SMALLEST:
        return peers.offload
    if name == GREEDY:
        from benchmarks import greedy

        return greedy.moves
    from benchmarks import strategies

    return {
        SHOWN: strategies.offload,
        CONSOLIDATION: strategies.consolidation,
        BALANCE: strategies.balance,
        STABILIZATION: strategies.stabilization,
    }[name]


def _ours(cloud: model.Cluster, max_migrations: int, *, exact: bool) -> Found:
    if not exact:
        # As if it were not installed; nothing here has loaded it yet.
        sys.modules["scipy"] = None  # type: ignore[assignment]
    from watcher_cputier import diagnosis
    from watcher_cputier import parameters
    from watcher_cputier import planner
    from watcher_cputier import schedule

    if exact:
        import scipy.optimize  # noqa: F401
    params = parameters.Parameters.of({"max_migrations": max_migrations})
    started = time.process_time()
    verdict = diagnosis.diagnose(cloud, params)
    diagnosed = time.process_time()
    plan = planner.plan(cloud, verdict, params)
    planned = time.process_time()
    order = schedule.arrange(cloud, plan.migrations, verdict, params)
    ended = time.process_time()
    megabytes = peak_megabytes()
    wrong = checker.judge(cloud, plan, max_migrations=max_migrations)
    wrong += executions.judge(
        cloud,
        order.steps,
        total=params.parallel_total,
        per_source=params.parallel_per_source,
        per_target=params.parallel_per_target,
    )
    return {
        **_executed(
            cloud, [(m.instance.uuid, m.target) for m in plan.migrations], 0
        ),
        "lower_bound": plan.lower_bound,
        "residual_bound": getattr(plan, "residual_bound", None),
        "relief_bound": plan.relief_bound,
        "room_making": sum(
            1 for m in plan.migrations if getattr(m, "makes_room_for", "")
        ),
        "parking": sum(
            1 for m in plan.migrations if getattr(m, "parking", False)
        ),
        "seconds": ended - started,
        "diagnose": diagnosed - started,
        "plan": planned - diagnosed,
        "order": ended - planned,
        "megabytes": megabytes,
        "wrong": wrong[:5],
        "wrongs": len(wrong),
    }


def _executed(
    cloud: model.Cluster, moves: Iterable[Move], max_migrations: int
) -> Found:
    """Execute moves one by one; what the judge refuses does not happen.

    :param max_migrations: stop after so many; 0 is no limit
    """
    books = checker.Replay(cloud, {})
    guests = {guest.uuid: guest for guest in cloud.instances}
    before = sum(books.excess().values())
    done = refused = 0
    for uuid, target in moves:
        if max_migrations and done + refused == max_migrations:
            break
        if books.objections(guests[uuid], target):
            refused += 1
            continue
        books.move(guests[uuid], target)
        done += 1
    return {
        "migrations": done + refused,
        "refused": refused,
        "excess": before,
        "residual": sum(books.excess().values()),
    }


def marginals(cloud: model.Cluster) -> list[int]:
    """What each migration of a largest-first cover relieves, of all hosts.

    Higher tiers first, then the most relief. Their number is a lower bound on
    the migrations that cure everything, and the sum of the first K an upper
    bound on what K migrations relieve if a higher tier always comes first: an
    instance belongs to one host and tier, and there the largest first relieve
    the most.
    """
    sizes: dict[tuple[str, str], list[int]] = {}
    for guest in cloud.instances:
        sizes.setdefault((guest.host, guest.tier or ""), []).append(
            guest.units
        )
    rank = {tier.name: tier.rank for tier in cloud.tiers}
    found: list[tuple[int, int]] = []
    for (host, tier), excess in checker.Replay(cloud, {}).excess().items():
        left = excess
        for size in sorted(sizes.get((host, tier), ()), reverse=True):
            if left <= 0:
                break
            found.append((rank[tier], -min(size, left)))
            left -= size
    return [-units for _, units in sorted(found)]


def makespan(cloud: model.Cluster) -> Found:
    """The plan in order: simulated, against ``weight`` and its own bound.

    Each migration takes longer than expected by a factor that is drawn
    evenly from 1.05 to 2, always the same.
    """
    from benchmarks import engine
    from watcher_cputier import diagnosis
    from watcher_cputier import parameters
    from watcher_cputier import planner
    from watcher_cputier import schedule

    chance = np.random.default_rng(families.SEED)
    found: Found = {}
    for parallel in PARALLEL:
        params = parameters.Parameters.of(
            {"max_migrations": 0, "parallel_total": parallel}
        )
        verdict = diagnosis.diagnose(cloud, params)
        plan = planner.plan(cloud, verdict, params)
        order = schedule.arrange(cloud, plan.migrations, verdict, params)
        factors = chance.uniform(FASTEST, SLOWEST, len(order.steps))
        seconds = [
            float(step.seconds * factor)
            for step, factor in zip(order.steps, factors, strict=True)
        ]
        took = engine.simulate(order.steps, seconds, parallel)
        emitted = schedule.pairs(order, params)
        under_weight = engine.simulate_chunks(
            emitted.order, order.steps, seconds, parallel
        )
        found[str(parallel)] = {
            "migrations": len(order.steps),
            "left_out": len(emitted.left_out),
            "depth": order.depth,
            "expected": order.makespan_seconds,
            "expected_bound": order.makespan_bound_seconds,
            "seconds": took,
            "bound": _least(order.steps, seconds, parallel),
            "weight": under_weight,
        }
    return found


def _least(
    steps: Sequence[Any], seconds: Sequence[float], parallel: int
) -> float:
    """No order of these migrations takes less than this."""
    ends: list[float] = []
    sides: dict[tuple[str, str], float] = {}
    for step, took in zip(steps, seconds, strict=True):
        ends.append(took + max((ends[i] for i in step.needs), default=0.0))
        for side in (
            ("from", step.migration.source),
            ("to", step.migration.target),
        ):
            sides[side] = sides.get(side, 0.0) + took
    return max(
        [sum(seconds) / parallel, *ends, *sides.values()],
        default=0.0,
    )


def main(arguments: list[str]) -> None:
    """Do one job and print what was found."""
    job, family, hosts, *words = arguments
    cloud = families.build(families.BY_NAME[family], int(hosts))
    if job == "makespan":
        found = forked(lambda: makespan(cloud))
    else:
        cap, limit, *contenders = words
        found = {
            "instances": len(cloud.instances),
            "marginals": marginals(cloud),
            "contenders": contest(cloud, contenders, int(cap), int(limit)),
        }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
