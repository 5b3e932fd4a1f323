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

"""Why a plan does what it does with one instance, or with one host.

The plan is replayed up to the moment of a migration, and every host is judged
anew there: by the rule that rejects it and by what it lacks, or by the terms
of its weight. Nothing is remembered from the search, so that what is told
holds of any plan, whoever made it.

Where a host weighs more than the one that was taken, the rest of the plan is
replayed with it instead, which shows the migration that would not find its
room any more.
"""

from collections.abc import Iterable, Iterator, Mapping
import dataclasses
import itertools

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier import weigher
from watcher_cputier.planner import lacks
from watcher_cputier.planner import state as states

_DECIMALS = 9
# Hosts that weigh more than the target and are tried in its place.
_MOST_OTHERS = 3
_BACK = constraints.Rejection(
    rule="elsewhere", reason="the instance came from there in this plan"
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Fare:
    """How one host fared as a target.

    :param weight: the weigher's score; None of a host that is no target
    :param value: what targets are ranked by, rankers of the operator's
        included
    :param rejection: why it is no target
    :param lacking: {resource class or account: units} that it lacks; empty
        where something else than room is in the way as well
    :param taken: whether the plan takes it
    """

    host: str
    weight: weigher.Weight | None
    value: float = 0.0
    rejection: constraints.Rejection | None = None
    lacking: Mapping[str, int] = dataclasses.field(
        default_factory=model.frozen_map
    )
    taken: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """One migration of an instance, or the end of the plan if it stays.

    :param number: of the migration in the plan, from 1; deferred ones are
        counted after it; None at the end of the plan
    :param why: sentences, without full stops
    :param fares: targets, the best first; then the other hosts, those that
        lack least first
    """

    number: int | None
    migration: planner.Migration | None
    deferred: bool
    why: tuple[str, ...]
    fares: tuple[Fare, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OfInstance:
    """What a plan does with an instance.

    :param moments: its migrations; one of the end of the plan if it stays
    """

    instance: model.Instance
    moments: tuple[Moment, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """One account on one host.

    :param quota: None where it is unknown, or there is none
    :param capacity: Placement's; None without an inventory
    :param policy: the audit's; None if it sets none
    :param excess: units over quota
    :param after: units held after the plan, deferred migrations left out
    """

    account: str
    held: int
    quota: int | None
    capacity: int | None
    policy: int | None
    excess: int
    after: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stay:
    """Why an instance stays on its host."""

    instance: model.Instance
    why: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class OfHost:
    """What a plan does with a host.

    :param why: sentences on its state, without full stops
    :param leaving: migrations from it, in the order of the plan
    :param coming: migrations to it
    :param staying: the instances that do not leave
    """

    host: model.Host
    why: tuple[str, ...]
    balances: tuple[Balance, ...]
    leaving: tuple[planner.Migration, ...]
    coming: tuple[planner.Migration, ...]
    staying: tuple[Stay, ...]


def explain(
    cluster: model.Cluster,
    diagnosis: diagnosing.Diagnosis,
    params: parameters.Parameters,
    plan: planner.Plan,
    name: str,
    extensions: constraints.Extensions | None = None,
) -> OfInstance | OfHost:
    """Explain what a plan does with what has that name or uuid.

    :raises ParameterError: if nothing or several things have it
    """
    found = _named(cluster, name)
    replay = _Replay(
        cluster,
        diagnosis,
        params,
        plan,
        extensions or constraints.Extensions(),
    )
    if isinstance(found, model.Host):
        return replay.of_host(found)
    return replay.of_instance(found)


def _named(cluster: model.Cluster, name: str) -> model.Host | model.Instance:
    things: list[model.Host | model.Instance] = [
        one for one in cluster.hosts if name in (one.name, one.uuid)
    ]
    things += [
        one for one in cluster.instances if name in (one.name, one.uuid)
    ]
    if len(things) == 1:
        return things[0]
    if not things:
        raise errors.ParameterError(
            "no instance and no host of the scenario has this name or uuid",
            where=f"--explain {name}",
            cure="Name one of them",
        )
    told = [
        f"{'host' if isinstance(one, model.Host) else 'instance'} {one.uuid}"
        for one in things
    ]
    raise errors.ParameterError(
        f"several have this name: {errors.some(told)}",
        where=f"--explain {name}",
        cure="Give the uuid of one of them",
    )


class _Replay:
    """A plan that is gone through once more."""

    def __init__(
        self,
        cluster: model.Cluster,
        diagnosis: diagnosing.Diagnosis,
        params: parameters.Parameters,
        plan: planner.Plan,
        extensions: constraints.Extensions,
    ) -> None:
        self._cluster = cluster
        self._diagnosis = diagnosis
        self._params = params
        self._plan = plan
        self._extensions = extensions
        self._steps = (*plan.migrations, *plan.deferred)

    def _after(self, count: int) -> lacks.Lacks:
        """The state after so many migrations."""
        books = planner.Books(self._cluster)
        for step in self._steps[:count]:
            books.move(step.instance, self._cluster.host_by_name[step.target])
        return lacks.Lacks(
            self._cluster, self._diagnosis, books, self._extensions
        )

    # An instance

    def of_instance(self, instance: model.Instance) -> OfInstance:
        """Its migrations, or why it stays."""
        moments = tuple(
            self._moment(index, step)
            for index, step in enumerate(self._steps)
            if step.instance.uuid == instance.uuid
        )
        return OfInstance(
            instance=instance, moments=moments or (self._end(instance),)
        )

    def _moment(self, index: int, step: planner.Migration) -> Moment:
        state = self._after(index)
        fares = self._fares(state, step.instance, step.target)
        return Moment(
            number=index + 1,
            migration=step,
            deferred=index >= len(self._plan.migrations),
            why=(
                *self._why_it_moves(index, step),
                *self._why_there(state, index, fares),
            ),
            fares=tuple(fares),
        )

    def _end(self, instance: model.Instance) -> Moment:
        state = self._after(len(self._steps))
        return Moment(
            number=None,
            migration=None,
            deferred=False,
            why=(self._why_it_stays(instance),),
            fares=tuple(self._fares(state, instance, "")),
        )

    def _whom_it_relieves(self, step: planner.Migration) -> Iterator[str]:
        """What becomes of the instances that a cure of starvation is for."""
        relief = self._plan.relief
        if relief is None:
            return
        for found in relief.predictions:
            if found.instance.uuid in (*step.relieves, step.instance.uuid):
                yield str(found)

    def _why_it_moves(
        self, index: int, step: planner.Migration
    ) -> Iterator[str]:
        yield step.reason
        excess = step.excess
        if excess is None:
            yield from self._whom_it_relieves(step)
        elif step.makes_room_for and excess.host != step.source:
            yield (
                f"all of it is for the {excess.units} {excess.tier} "
                f"unit{'s' * (excess.units != 1)} {step.beyond} on "
                f"{excess.host}"
            )
        if excess is not None and step.relief:
            others = sum(
                one.relief
                for i, one in enumerate(self._steps)
                if i != index
                and (one.source, one.tier) == (step.source, step.tier)
            )
            rest = f", other migrations take {others}" if others else ""
            yield (
                f"it takes {step.relief} of the {excess.units} "
                f"{step.tier} units {step.beyond} off {step.source}{rest}"
            )
        if step.parking:
            later = next(
                one.target
                for one in self._steps[index + 1 :]
                if one.instance.uuid == step.instance.uuid
            )
            yield f"it is parked there, and goes on to {later} later"
        if index >= len(self._plan.migrations):
            yield "max_migrations defers it to the next audit"

    def _why_there(
        self, state: lacks.Lacks, index: int, fares: list[Fare]
    ) -> Iterator[str]:
        """Why the target was taken, and not one that weighs more."""
        targets = [fare for fare in fares if fare.rejection is None]
        taken = next(fare for fare in targets if fare.taken)
        if len(targets) == 1:
            yield f"{taken.host} is the only host that may take it then"
            return
        better = list(itertools.takewhile(lambda f: not f.taken, targets))
        if not better:
            tied = sum(1 for f in targets if f.value == taken.value) > 1
            yield (
                f"of {len(targets)} hosts that may take it then, "
                f"{taken.host} weighs most"
                + (
                    "; it shares that with others, of which it has the least "
                    "of its quota in use"
                    if tied
                    else ""
                )
            )
            return
        yield (
            f"{len(better)} of {len(targets)} hosts that may take it then "
            f"rank{'s' * (len(better) == 1)} before {taken.host}"
        )
        for fare in better[:_MOST_OTHERS]:
            yield self._instead(index, fare.host)

    def _instead(self, index: int, host: str) -> str:
        """What would come of the rest of the plan with another target."""
        state = self._after(index)
        step = self._steps[index]
        state.books.move(step.instance, self._cluster.host_by_name[host])
        for later in self._steps[index + 1 :]:
            target = self._cluster.host_by_name[later.target]
            if later.instance.uuid == step.instance.uuid:
                break
            rejection = state.rejection(later.instance, target)
            if rejection is not None:
                return (
                    f"with {host} instead, {later.instance.name} could not go "
                    f"to {later.target} any more: {rejection.reason}"
                )
            state.books.move(later.instance, target)
        return (
            f"with {host} instead the other migrations would find their room "
            "too: targets are chosen for the plan as a whole"
        )

    def _why_it_stays(self, instance: model.Instance) -> str:
        rejection = constraints.reject_instance(self._cluster, instance)
        host = self._cluster.host_by_name.get(instance.host)
        if host is None or not host.in_scope:
            return f"its host, {instance.host}, is outside the audit's scope"
        over = self._over(instance)
        if not over:
            if not instance.units:
                text = "it holds no units of a tier: quotas are not about it"
            else:
                text = (
                    f"{instance.host} is within its quota of "
                    f"{' and '.join(self._accounts(instance))}, and no "
                    "migration needs the room that it takes"
                )
            if rejection is not None:
                text += f"; it could not move either: {rejection.reason}"
            return text
        if rejection is not None:
            return f"it may not move: {rejection.reason}"
        account = over[0]
        left = self._left(instance.host, account)
        if not left:
            return self._others(instance.host, account)
        return (
            f"{instance.host} stays {left} {account} units over its quota, "
            "and no host can take it"
        )

    def _accounts(self, instance: model.Instance) -> tuple[str, ...]:
        return self._cluster.accounts_of(instance)

    def _over(self, instance: model.Instance) -> list[str]:
        """Accounts of an instance that its host is over in."""
        over = {(e.host, e.tier) for e in self._diagnosis.excesses}
        return [
            account
            for account in self._accounts(instance)
            if instance.units and (instance.host, account) in over
        ]

    def _left(self, host: str, account: str) -> int:
        return sum(
            item.units
            for item in self._plan.unresolved
            if (item.host, item.tier) == (host, account)
        )

    def _others(self, host: str, account: str) -> str:
        names = [
            step.instance.name
            for step in self._steps
            if step.source == host and step.relief and step.tier == account
        ]
        if not names:
            return f"nothing is planned for the excess of {host}"
        return (
            f"{errors.some(names)} leave"
            f"{'s' * (len(names) == 1)} instead, which is enough"
        )

    def _fares(
        self, state: lacks.Lacks, instance: model.Instance, taken: str
    ) -> list[Fare]:
        """All other hosts, the best first."""
        here = state.books.location(instance)
        targets = []
        others = []
        for host in state.hosts:
            if host.name == here:
                continue
            rejection = state.rejection(instance, host)
            if rejection is None:
                targets.append(self._target(state, instance, host, taken))
                continue
            if host.name == instance.host:
                rejection = _BACK
            shortage = state.shortage(instance, host)
            others.append(
                (
                    shortage.rank,
                    Fare(
                        host=host.name,
                        weight=None,
                        # What room would not mend is what there is to know.
                        rejection=(
                            rejection
                            if rejection is _BACK
                            else shortage.blocked or rejection
                        ),
                        lacking=(
                            model.frozen_map()
                            if shortage.blocked
                            else shortage.room
                        ),
                    ),
                )
            )
        return [fare for _, fare in sorted(targets, key=_first)] + [
            fare for _, fare in sorted(others, key=_first)
        ]

    def _target(
        self,
        state: lacks.Lacks,
        instance: model.Instance,
        host: model.Host,
        taken: str,
    ) -> tuple[tuple[object, ...], Fare]:
        """How a host that may take an instance weighs; its rank first."""
        weight = states.weight(self._params, instance, host, state.books)
        proposal = constraints.Proposal(
            cluster=self._cluster,
            diagnosis=self._diagnosis,
            occupancy=state.books,
            instance=instance,
            target=host,
        )
        value = round(
            weight.value
            + sum(
                rank(proposal) for rank in self._extensions.rankers.values()
            ),
            _DECIMALS,
        )
        rank = (
            constraints.soft_penalty(proposal),
            -value,
            self._utilisation(state, instance, host),
            state.books.domain_units(host, instance.tier),
            host.name,
        )
        return rank, Fare(
            host=host.name,
            weight=weight,
            value=value,
            taken=host.name == taken,
        )

    def _utilisation(
        self,
        state: lacks.Lacks,
        instance: model.Instance,
        host: model.Host,
    ) -> float:
        shares = []
        for account in self._accounts(instance):
            quota = self._diagnosis.quota(host.name, account)
            if quota is not None:
                held = state.books.held(host.name, account)
                shares.append(held / quota if quota else 1.0)
        return round(max(shares, default=0.0), _DECIMALS)

    # A host

    def of_host(self, host: model.Host) -> OfHost:
        """What it holds, what comes and goes, and why the rest stays."""
        leaving = tuple(s for s in self._steps if s.source == host.name)
        coming = tuple(s for s in self._steps if s.target == host.name)
        gone = {step.instance.uuid for step in leaving}
        balances = tuple(self._balances(host)) if host.in_scope else ()
        return OfHost(
            host=host,
            why=tuple(self._why_host(host, balances)),
            balances=balances,
            leaving=leaving,
            coming=coming,
            staying=tuple(
                Stay(instance=one, why=self._why_it_stays(one))
                for one in self._cluster.instances_by_host.get(host.name, ())
                if one.uuid not in gone
            ),
        )

    def _balances(self, host: model.Host) -> Iterator[Balance]:
        end = self._after(len(self._plan.migrations)).books
        for account in self._cluster.accounts:
            quota = self._diagnosis.quotas[host.name, account]
            held = self._cluster.held.get((host.name, account), 0)
            yield Balance(
                account=account,
                held=held,
                quota=quota.units,
                capacity=quota.capacity,
                policy=quota.policy,
                excess=(
                    0 if quota.units is None else max(0, held - quota.units)
                ),
                after=end.held(host.name, account),
            )

    def _why_host(
        self, host: model.Host, balances: Iterable[Balance]
    ) -> Iterator[str]:
        if not host.in_scope:
            yield "it is outside the audit's scope: nothing is done there"
            return
        if host.name in self._diagnosis.drained:
            yield f"it is drained: {self._diagnosis.drained[host.name]}"
        if not host.enabled:
            reason = host.disabled_reason
            yield "its compute service is disabled" + (
                f" ({reason})" if reason else ""
            )
        if not host.up:
            yield "its compute service is down"
        over = [one for one in balances if one.excess]
        if not over:
            yield "it is within its quotas"
        for one in over:
            left = self._left(host.name, one.account)
            yield (
                f"it is {one.excess} {one.account} unit"
                f"{'s' * (one.excess != 1)} over its quota"
                + (f", and {left} of them stay" if left else "")
            )


def _first(pair: tuple[tuple[object, ...], Fare]) -> tuple[object, ...]:
    return pair[0]
