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

"""Plans by hand and by chance, and an executor that means them no good.

The plans are serial: each migration is admissible once those before it have
ended, with both sides held while it is in flight. That is all a schedule is
promised; :func:`execute` then runs one in parallel, in whatever order, and
has :class:`tests.checker.Replay` watch.
"""

from collections.abc import Callable, Sequence
import dataclasses
import random

from tests import checker
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import schedule as scheduling
from watcher_cputier import weigher

WEIGHT = weigher.Weight(resource_score=0.5, trait_score=0.5)


def migration(
    instance: model.Instance, source: str, target: str, **fields: object
) -> planner.Migration:
    """One migration; what it is for does not matter to a schedule."""
    tier = instance.tier or ""
    return planner.Migration(
        **{
            "instance": instance,
            "source": source,
            "target": target,
            "tier": tier,
            "units": instance.units,
            "relief": instance.units,
            "excess": diagnosing.Excess(
                host=source, tier=tier, held=instance.units, quota=0
            ),
            "weight": WEIGHT,
            **fields,
        }
    )


def by_hand(
    cloud: model.Cluster, *moves: tuple[str, str]
) -> list[planner.Migration]:
    """Migrations of (instance, target), from wherever each is by then."""
    at = {i.uuid: i.host for i in cloud.instances}
    found: list[planner.Migration] = []
    for uuid, target in moves:
        for index, earlier in enumerate(found):
            if earlier.instance.uuid == uuid:
                found[index] = dataclasses.replace(earlier, parking=True)
        found.append(migration(cloud.instance_by_uuid[uuid], at[uuid], target))
        at[uuid] = target
    return found


def by_chance(
    cloud: model.Cluster,
    chance: random.Random,
    length: int,
    policies: dict[str, int] | None = None,
    drained: Sequence[str] = (),
) -> list[planner.Migration]:
    """A serial plan without any sense but its admissibility.

    Hosts that something has left are likelier targets, so that chains arise;
    an instance moves twice at most.
    """
    books = checker.Replay(cloud, policies or {}, drained)
    moves: list[tuple[str, str]] = []
    left: list[str] = []
    names = [host.name for host in cloud.hosts]
    for _ in range(length * 8):
        if len(moves) == length or not cloud.instances:
            break
        instance = chance.choice(cloud.instances)
        if sum(1 for uuid, _ in moves if uuid == instance.uuid) > 1:
            continue
        target = chance.choice(
            left if left and chance.random() < 0.7 else names
        )
        if books.objections(instance, target):
            continue
        left.append(books.at[instance.uuid])
        books.start(instance, target)
        books.finish(instance, target)
        moves.append((instance.uuid, target))
    return by_hand(cloud, *moves)


def arranged(
    cloud: model.Cluster,
    migrations: Sequence[planner.Migration],
    **params: object,
) -> scheduling.Schedule:
    """The schedule of a plan, with audit parameters."""
    typed = parameters.Parameters.of(params)
    verdict = diagnosing.diagnose(cloud, typed)
    return scheduling.arrange(cloud, migrations, verdict, typed)


@dataclasses.dataclass
class Run:
    """What became of an execution.

    :param wrong: what the laws had against it, in words
    :param outcomes: per step, whether it succeeded
    :param most: the most in flight at once, in all, of a source, to a target
    """

    wrong: list[str]
    outcomes: list[bool]
    most: tuple[int, int, int]


def execute(
    schedule: scheduling.Schedule,
    books: checker.Replay,
    chance: random.Random,
    fails: Callable[[int], bool],
) -> Run:
    """Run it with everything in flight that may be, ending in any order.

    A step one of whose needs did not succeed is skipped. Some steps are
    slow to start: whatever is not an edge is no promise.
    """
    steps = schedule.steps
    outcomes: dict[int, bool] = {}
    flying: list[int] = []
    wrong: list[str] = []
    most = (0, 0, 0)
    while len(outcomes) < len(steps):
        able = [
            i
            for i, step in enumerate(steps)
            if i not in outcomes
            and i not in flying
            and all(p in outcomes for p in step.parents)
        ]
        chance.shuffle(able)
        for i in able:
            move = steps[i].migration
            if flying and chance.random() < 0.2:
                continue
            if not all(outcomes[n] for n in steps[i].needs):
                outcomes[i] = False
                continue
            if books.at[move.instance.uuid] != move.source:
                wrong.append(f"{move.instance.name} is not on {move.source}")
            wrong += books.start(move.instance, move.target)
            flying.append(i)
        most = _most(most, [steps[i].migration for i in flying])
        if flying:
            i = flying.pop(chance.randrange(len(flying)))
            move = steps[i].migration
            outcomes[i] = not fails(i)
            end = books.finish if outcomes[i] else books.fail
            end(move.instance, move.target)
    return Run(wrong, [outcomes[i] for i in range(len(steps))], most)


def execute_pairs(
    order: Sequence[int],
    schedule: scheduling.Schedule,
    books: checker.Replay,
    chance: random.Random,
) -> list[str]:
    """Two by two with a barrier after each pair, all of them succeeding."""
    wrong: list[str] = []
    for begin in range(0, len(order), 2):
        moves = [schedule.steps[i].migration for i in order[begin : begin + 2]]
        for move in moves:
            if books.at[move.instance.uuid] != move.source:
                wrong.append(f"{move.instance.name} is not on {move.source}")
            wrong += books.start(move.instance, move.target)
        for move in chance.sample(moves, len(moves)):
            books.finish(move.instance, move.target)
    return wrong


def _most(
    before: tuple[int, int, int], flying: Sequence[planner.Migration]
) -> tuple[int, int, int]:
    sources = [move.source for move in flying]
    targets = [move.target for move in flying]
    return (
        max(before[0], len(flying)),
        max([before[1], *(sources.count(name) for name in sources)]),
        max([before[2], *(targets.count(name) for name in targets)]),
    )
