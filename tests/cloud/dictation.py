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

"""Plans by dictation: an audit that plans what a test tells it.

Runs inside the Watcher process. Everything but the planner's choice is real:
the audit, the strategy, what it emits, the action plan and its execution.
"""

from __future__ import annotations

import dataclasses
import typing

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import weigher

Moves = list[list[str]]

_dictated: list[tuple[Moves, bool]] = []
_real = (planner.plan, guard.expectations)


def dictate(moves: Moves, reasons: bool = True) -> None:
    """Let every audit from now on plan these (instance, target).

    :param moves: names, in serial order; none ends the dictation
    :param reasons: False lets nobody ask what a migration is for
    """
    _dictated[:] = [(moves, reasons)] if moves else []
    planner.plan = _plan
    guard.expectations = _expectations


def _plan(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    *args: typing.Any,
    **kwargs: typing.Any,
) -> planner.Plan:
    if not _dictated:
        return _real[0](cluster, diagnosis, *args, **kwargs)
    named = {i.name: i for i in cluster.instances}
    at = {i.name: i.host for i in cluster.instances}
    wanted = _dictated[0][0]
    excess = {(e.host, e.tier): e for e in diagnosis.excesses}
    before = {key: e.units for key, e in excess.items()}
    after = dict(before)
    found = []
    for index, (name, target) in enumerate(wanted):
        instance, source = named[name], at[name]
        tier = instance.tier or ""
        mine = excess.get((source, tier))
        later = wanted[index + 1 :]
        guest = next((n for n, to in later if to == source), "")
        if mine is not None:
            guest = ""
            after[source, tier] = max(0, after[source, tier] - instance.units)
        elif guest:
            mine = excess.get((at[guest], tier))
        found.append(
            planner.Migration(
                instance=instance,
                source=source,
                target=target,
                tier=tier,
                units=instance.units,
                relief=0,
                excess=mine
                or diagnosing.Excess(host=source, tier=tier, held=1, quota=0),
                weight=weigher.Weight(resource_score=0.0, trait_score=0.0),
                makes_room_for=guest,
                parking=any(other == name for other, _ in later),
            )
        )
        at[name] = target
    return planner.Plan(
        migrations=tuple(found),
        excess_before=model.frozen_map(before),
        excess_after=model.frozen_map(after),
    )


def _expectations(
    *args: typing.Any, **kwargs: typing.Any
) -> tuple[guard.Expectation, ...]:
    found = _real[1](*args, **kwargs)
    if _dictated and not _dictated[0][1]:
        return tuple(
            dataclasses.replace(one, excess=None, awaited="") for one in found
        )
    return found
