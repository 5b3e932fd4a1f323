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


"""What would be if: a cluster with a few things otherwise than they are.

An operator asks before acting: what would an audit do if this host were
drained, that quota smaller, a host more or less, some instances more? The
answer is the plan of another cluster, made here from the one that was read.
Nothing is asked of anybody and nothing is changed anywhere.

Edits are made in the order in which they are told, and each sees what those
before it left:

==============================================  ============================
``drain=HOST``                                  the audit parameter
                                                ``drain_hosts``
``quota=HOST,tier=TIER,units=UNITS``            another quota of a tier
``add-host=NAME,like=HOST``                     one host more, empty
``remove-host=HOST``                            one host less; its instances
                                                have to find other hosts
``add-instances=NUMBER,flavor=FLAVOR``          instances more, on
``[,host=HOST]``                                ``HOST`` or where there is
                                                room
==============================================  ============================

A removed host is the N+1 check: it is gone at once, so that its instances go
whether they may be moved today or not, locked and stopped ones too, and
nobody on the other hosts makes way for them. The planner looks for their
places, as it would to empty the host; those that find none are named, with
what every host said to them. All rules for targets hold. What cannot be shown
to fit (pinned CPUs, devices) has no place.

What instances used is not known of those that are somewhere else by an edit,
nor of new ones: their readings are left out, never taken for zero.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import dataclasses
import heapq
import re
from typing import Any

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import parameters
from watcher_cputier import planner
from watcher_cputier.constraints import capacity

DRAIN = "drain"
QUOTA = "quota"
ADD_HOST = "add-host"
REMOVE_HOST = "remove-host"
ADD_INSTANCES = "add-instances"

#: {kind of edit: how it is told}
FORMS: Mapping[str, str] = {
    DRAIN: "drain=HOST",
    QUOTA: "quota=HOST,tier=TIER,units=UNITS",
    ADD_HOST: "add-host=NAME,like=HOST",
    REMOVE_HOST: "remove-host=HOST",
    ADD_INSTANCES: "add-instances=NUMBER,flavor=FLAVOR[,host=HOST]",
}
# {kind: (options that it must have, options that it may have)}
_OPTIONS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    DRAIN: ((), ()),
    QUOTA: (("tier", "units"), ()),
    ADD_HOST: (("like",), ()),
    REMOVE_HOST: ((), ()),
    ADD_INSTANCES: (("flavor",), ("host",)),
}
# A comma separates where an option follows; names may have commas.
_SEPARATOR = re.compile(r",(?=[a-z-]+=)")
_DIGITS = re.compile(r"^[0-9]{1,10}$")
_HOST_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$")
_MOST_INSTANCES = 100_000
# Of units of a class; Placement takes no total above it.
_MOST_UNITS = 2147483647


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """Something that shall be otherwise, as it was told.

    :param kind: one of :data:`FORMS`
    :param subject: what follows the kind
    """

    text: str
    kind: str
    subject: str
    options: Mapping[str, str] = dataclasses.field(
        default_factory=model.frozen_map
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """An instance that is on another host than it was, or a new one.

    :param instance: as it was; a new one is on no host
    """

    instance: model.Instance
    target: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Whether the instances that an edit is about fit somewhere.

    :param placements: those that do, by name
    :param unplaced: those that do not, with why; they are nowhere in the
        hypothetical cluster
    :param proven: whether it is known that no other arrangement places more
    """

    edit: Edit
    placements: tuple[Placement, ...] = ()
    unplaced: tuple[planner.Refusal, ...] = ()
    proven: bool = True

    @property
    def text(self) -> str:
        """How many fit, in one sentence."""
        fit, all_of_them = len(self.placements), len(self.placements)
        all_of_them += len(self.unplaced)
        if self.edit.kind == REMOVE_HOST:
            if not all_of_them:
                return f"{self.edit.subject} holds no instance"
            where = "fits" if fit == 1 else "fit"
            doubt = "" if self.proven else ", as far as a place was found"
            return (
                f"Without {self.edit.subject}, {fit} of its {all_of_them} "
                f"instances {where} on other hosts{doubt}"
            )
        return (
            f"{fit} of {all_of_them} instances of flavor "
            f"{self.edit.options['flavor']} fit"
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hypothesis:
    """A cluster that is not so, with what was assumed to make it.

    :param parameters: of the audit, as they are given
    :param assumptions: one sentence each
    :param outcomes: of the edits that are about instances, in their order
    """

    cluster: model.Cluster
    parameters: Mapping[str, Any]
    edits: tuple[Edit, ...] = ()
    assumptions: tuple[str, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether all instances that edits are about have a host."""
        return not any(one.unplaced for one in self.outcomes)


def parse(told: Iterable[str]) -> tuple[Edit, ...]:
    """Read edits as a command line tells them.

    :raises ParameterError: for the first that is none, with how it is told
    """
    return tuple(_parse(text) for text in told)


def apply(
    cluster: model.Cluster,
    given: Mapping[str, Any],
    edits: Iterable[Edit],
    *,
    flavors: Iterable[model.Flavor] = (),
    extensions: constraints.Extensions | None = None,
    expired: Callable[[], bool] = lambda: False,
) -> Hypothesis:
    """Make a cluster with the edits.

    :param given: the parameters of the audit, as they are given
    :param flavors: those that instances may be made of, besides those of
        the instances that are there
    :param extensions: further rules that the operator switched on
    :param expired: whether the time for searching places is over
    :raises ParameterError: if an edit names something that is not there, or
        that is there already
    :raises SnapshotError: if quotas cannot be judged
    """
    draft = _Draft(cluster, given, tuple(flavors), extensions, expired)
    edits = tuple(edits)
    for edit in edits:
        draft.make(edit)
    return draft.hypothesis(edits)


def _parse(text: str) -> Edit:
    head, *rest = _SEPARATOR.split(text)
    kind, equals, subject = head.partition("=")
    if kind not in FORMS:
        raise _wrong(
            text,
            f"there is no edit {kind!r}",
            "The edits are " + ", ".join(FORMS.values()),
        )
    cure = f"Say {FORMS[kind]}"
    if not equals or not subject:
        raise _wrong(text, f"{kind} has no value", cure)
    needed, possible = _OPTIONS[kind]
    options: dict[str, str] = {}
    for part in rest:
        name, _, value = part.partition("=")
        if name not in (*needed, *possible):
            raise _wrong(text, f"{kind} has no option {name!r}", cure)
        if name in options:
            raise _wrong(text, f"{name} is told twice", cure)
        if not value:
            raise _wrong(text, f"{name} has no value", cure)
        options[name] = value
    missing = [name for name in needed if name not in options]
    if missing:
        raise _wrong(text, f"{' and '.join(missing)} is missing", cure)
    return Edit(
        text=text,
        kind=kind,
        subject=subject,
        options=model.frozen_map(options),
    )


def _wrong(text: str, what: str, cure: str = "") -> errors.ParameterError:
    return errors.ParameterError(what, where=f"--what-if {text}", cure=cure)


def _number(edit: Edit, text: str, least: int, most: int) -> int:
    if not _DIGITS.match(text) or not least <= int(text) <= most:
        raise _wrong(
            edit.text,
            f"{text!r} is no whole number from {least} to {most}",
            f"Say {FORMS[edit.kind]}",
        )
    return int(text)


class _Draft:
    """The cluster and the parameters while edits are made."""

    def __init__(
        self,
        cluster: model.Cluster,
        given: Mapping[str, Any],
        flavors: tuple[model.Flavor, ...],
        extensions: constraints.Extensions | None,
        expired: Callable[[], bool],
    ) -> None:
        self._cluster = cluster
        self._given = dict(given)
        self._flavors = flavors
        self._extensions = extensions
        self._expired = expired
        self._assumptions: list[str] = []
        self._outcomes: list[Outcome] = []
        self._makers: Mapping[str, Callable[[Edit], None]] = {
            DRAIN: self._drain,
            QUOTA: self._set_quota,
            ADD_HOST: self._add_host,
            REMOVE_HOST: self._remove_host,
            ADD_INSTANCES: self._add_instances,
        }

    def make(self, edit: Edit) -> None:
        """Make one edit on what the edits before it left."""
        self._makers[edit.kind](edit)

    def hypothesis(self, edits: tuple[Edit, ...]) -> Hypothesis:
        """What the edits made."""
        if edits:
            self._assume(
                "All else is as it was read. Placement was not asked about "
                "what is not so: its capacities, unit rules and traits were "
                "judged here."
            )
        return Hypothesis(
            cluster=self._cluster,
            parameters=model.frozen_map(self._given),
            edits=edits,
            assumptions=tuple(self._assumptions),
            outcomes=tuple(self._outcomes),
        )

    @property
    def _params(self) -> parameters.Parameters:
        return parameters.Parameters.of(self._given)

    def _assume(self, text: str) -> None:
        self._assumptions.append(text)

    def _host(self, edit: Edit, named: str) -> model.Host:
        for host in self._cluster.hosts:
            if named in (host.name, host.uuid, host.node_name):
                return host
        names = errors.some(host.name for host in self._cluster.hosts)
        raise _wrong(
            edit.text, f"there is no host {named!r}", f"There are {names}"
        )

    # Quotas

    def _drain(self, edit: Edit) -> None:
        host = self._host(edit, edit.subject)
        drained = list(self._given.get("drain_hosts") or ())
        if host.name not in drained:
            self._given["drain_hosts"] = sorted([*drained, host.name])
        self._assume(
            f"{host.name} is drained: its quota of every tier is 0, as the "
            "audit parameter drain_hosts makes it."
        )

    def _set_quota(self, edit: Edit) -> None:
        host = self._host(edit, edit.subject)
        account = edit.options["tier"]
        if account not in self._cluster.accounts:
            raise _wrong(
                edit.text,
                f"there is no tier {account!r}",
                "There are " + ", ".join(self._cluster.accounts),
            )
        units = _number(edit, edit.options["units"], 0, _MOST_UNITS)
        told = []
        name = self._counted_by(account)
        if name is not None:
            told.append(self._set_inventory(edit, host, name, units))
        params = self._params
        own = params.quotas_by_host.get(host.name, {})
        if name is None or params.policy(host.name, account) is not None:
            quotas = dict(self._given.get("quotas_by_host") or {})
            quotas[host.name] = {
                **{tier: _as_given(quota) for tier, quota in own.items()},
                account: units,
            }
            self._given["quotas_by_host"] = quotas
            told.append("the audit parameter quotas_by_host says so")
        self._assume(
            f"{host.name} may hold {units} {account} units: "
            f"{', and '.join(told)}."
        )

    def _counted_by(self, account: str) -> str | None:
        """The class whose capacity is a quota; None where policy is it."""
        cluster = self._cluster
        tier = cluster.tier_by_name.get(account)
        if tier is None:
            return account
        if cluster.shares_class is not None or not cluster.tier_classes:
            return None
        return tier.resource_class

    def _set_inventory(
        self, edit: Edit, host: model.Host, name: str, units: int
    ) -> str:
        """Give a host a capacity of a class; what was assumed."""
        having = [p for p in host.providers if name in p.inventories]
        if len(having) > 1:
            raise _wrong(
                edit.text,
                f"{len(having)} providers of {host.name} have {name}, and "
                "which of them changes is not told",
            )
        provider = having[0] if having else host.root
        if provider is None:
            raise _wrong(
                edit.text,
                f"Placement has no provider for {host.name}",
                "Start nova-compute there",
            )
        before = provider.inventories.get(name)
        after, told = _resized(before, units)
        inventories = {**provider.inventories, name: after}
        self._change_providers(
            {
                provider.uuid: dataclasses.replace(
                    provider, inventories=model.frozen_map(inventories)
                )
            }
        )
        self._cluster = dataclasses.replace(
            self._cluster,
            tier_classes=self._cluster.tier_classes | {name},
            admissions=_unasked(self._cluster, {host.uuid}),
        )
        now = "none" if before is None else before.capacity
        return f"{told} of {name} on {provider.name}, where {now} are now"

    def _change_providers(self, changed: Mapping[str, model.Provider]) -> None:
        def renewed(
            providers: tuple[model.Provider, ...],
        ) -> tuple[model.Provider, ...]:
            return tuple(changed.get(one.uuid, one) for one in providers)

        self._cluster = dataclasses.replace(
            self._cluster,
            hosts=tuple(
                dataclasses.replace(
                    host,
                    providers=renewed(host.providers),
                    shared=renewed(host.shared),
                )
                if any(
                    one.uuid in changed for one in host.providers + host.shared
                )
                else host
                for host in self._cluster.hosts
            ),
        )

    # Hosts

    def _add_host(self, edit: Edit) -> None:
        name = edit.subject
        if not _HOST_NAME.match(name):
            raise _wrong(
                edit.text,
                f"{name!r} is no name of a host",
                "Use letters, digits, dots, - and _",
            )
        for one in self._cluster.hosts:
            if name in (one.name, one.uuid, one.node_name):
                raise _wrong(
                    edit.text,
                    f"there is a host {name!r} already",
                    "Give the new one another name",
                )
        pattern = self._host(edit, edit.options["like"])
        added = _copied(pattern, name)
        cluster = self._cluster
        self._cluster = dataclasses.replace(
            cluster,
            hosts=tuple(
                sorted((*cluster.hosts, added), key=lambda h: (h.name, h.uuid))
            ),
            aggregates=tuple(
                dataclasses.replace(one, hosts=one.hosts | {name})
                if pattern.name in one.hosts
                else one
                for one in cluster.aggregates
            ),
            admissions=_unasked(cluster, {added.uuid}),
        )
        quotas = dict(self._given.get("quotas_by_host") or {})
        if pattern.name in quotas:
            self._given["quotas_by_host"] = {
                **quotas,
                name: quotas[pattern.name],
            }
        self._assume(
            f"{name} is one more host, empty, enabled and up: inventories, "
            f"traits, aggregates and policy quotas are those of "
            f"{pattern.name}."
        )

    def _remove_host(self, edit: Edit) -> None:
        host = self._host(edit, edit.subject)
        here = self._cluster.instances_by_host.get(host.name, ())
        if not any(h.in_scope for h in self._cluster.hosts if h is not host):
            raise _wrong(
                edit.text, "no other host is in scope", "Leave one there"
            )
        self._force(host, here)
        books = planner.Books(self._cluster)
        verdict = self._diagnosed()
        found, proven = self._emptied(host)
        placed: list[Placement] = []
        unplaced: list[planner.Refusal] = []
        # Those of the plan first, in its order, which found them room.
        for instance in sorted(
            here,
            key=lambda i: (
                i.uuid not in found,
                found.get(i.uuid, (0, "")),
                i.sort_key,
            ),
        ):
            target = None
            if instance.uuid in found:
                target = self._cluster.host_by_name[found[instance.uuid][1]]
                if capacity.charge(books, instance.flavor, target) is None:
                    target = None
            if target is None:
                answer = self._find(books, verdict, instance, host.name)
                if isinstance(answer, planner.Refusal):
                    unplaced.append(answer)
                    continue
                target = answer
            books.move(instance, target)
            placed.append(Placement(instance=instance, target=target.name))
        placed.sort(key=lambda p: p.instance.sort_key)
        unplaced.sort(key=lambda r: r.instance.sort_key)
        self._without(host, books, placed)
        self._outcomes.append(
            Outcome(
                edit=edit,
                placements=tuple(placed),
                unplaced=tuple(unplaced),
                # What has a reason of its own fits in no arrangement.
                proven=proven or all(one.rejection for one in unplaced),
            )
        )
        self._assume(
            f"{host.name} is gone with its inventories. Its {len(here)} "
            "instances, those that may not be moved today too, are placed on "
            "other hosts, where nobody makes way for them."
        )

    def _force(self, host: model.Host, here: Sequence[model.Instance]) -> None:
        """Nothing keeps instances on a host that is gone.

        Not their state, nor what it thinks of their allocations.
        """
        own = {one.uuid for one in here}
        self._change_providers(
            {one.uuid: _admitting(one) for one in host.providers}
        )
        cluster = self._cluster
        self._cluster = dataclasses.replace(
            cluster,
            hosts=tuple(
                dataclasses.replace(one, in_scope=True, up=True)
                if one.name == host.name
                else one
                for one in cluster.hosts
            ),
            instances=tuple(
                _forced(one) if one.uuid in own else one
                for one in cluster.instances
            ),
        )

    def _emptied(
        self, host: model.Host
    ) -> tuple[dict[str, tuple[int, str]], bool]:
        """{uuid: (order, target)} where the planner finds places.

        Nobody else may move meanwhile.

        :returns: also whether no arrangement leaves fewer units
        """
        own = {
            one.uuid
            for one in self._cluster.instances_by_host.get(host.name, ())
        }
        if not own:
            return {}, True
        cluster = dataclasses.replace(
            self._cluster,
            instances=tuple(
                one
                if one.uuid in own
                else dataclasses.replace(one, locked=True)
                for one in self._cluster.instances
            ),
            # It is no matter what Nova did to them of late.
            changes=(),
        )
        params = parameters.Parameters.of(
            {
                **self._given,
                "enforce_quota": True,
                "relieve_starvation": False,
                "mix_tiers": False,
                "quota_mode": "strict",
                "max_migrations": 0,
                "drain_hosts": sorted(
                    {*(self._given.get("drain_hosts") or ()), host.name}
                ),
            }
        )
        made = planner.plan(
            cluster,
            diagnosing.diagnose(cluster, params),
            params,
            self._extensions,
            expired=self._expired,
        )
        left = planner.excess_units(
            {(item.host, item.tier): item.units for item in made.unresolved},
            cluster.tier_by_name,
        )
        return {
            one.instance.uuid: (place, one.target)
            for place, one in enumerate(made.migrations)
            if one.instance.uuid in own
        }, left <= made.residual_bound

    def _without(
        self,
        host: model.Host,
        books: planner.Books,
        placed: Sequence[Placement],
    ) -> None:
        """Take a host out; its instances are where they were placed."""
        cluster = self._cluster
        moved = {p.instance.uuid: p for p in placed}
        lost = [
            one
            for one in cluster.instances_by_host.get(host.name, ())
            if one.uuid not in moved
        ]
        self._settle(books, placed, lost)
        cluster = self._cluster
        gone = {one.uuid for one in lost}
        self._cluster = dataclasses.replace(
            cluster,
            hosts=tuple(h for h in cluster.hosts if h.name != host.name),
            instances=tuple(
                one for one in cluster.instances if one.uuid not in gone
            ),
            held=model.frozen_map(
                {k: n for k, n in cluster.held.items() if k[0] != host.name}
            ),
            aggregates=tuple(
                dataclasses.replace(one, hosts=one.hosts - {host.name})
                for one in cluster.aggregates
            ),
        )
        drained = self._given.get("drain_hosts") or ()
        if host.name in drained:
            self._given["drain_hosts"] = [h for h in drained if h != host.name]
        quotas = self._given.get("quotas_by_host") or {}
        if host.name in quotas:
            self._given["quotas_by_host"] = {
                name: told
                for name, told in quotas.items()
                if name != host.name
            }

    # Instances

    def _add_instances(self, edit: Edit) -> None:
        number = _number(edit, edit.subject, 1, _MOST_INSTANCES)
        flavor = self._flavor(edit)
        hosts = self._cluster.hosts
        if "host" in edit.options:
            hosts = (self._host(edit, edit.options["host"]),)
        names = self._names(flavor, number)
        pattern = offer.newcomer(self._cluster, flavor)
        new = [
            dataclasses.replace(pattern, uuid=name, name=name)
            for name in names
        ]
        books = planner.Books(self._cluster)
        verdict = self._diagnosed()
        refused: dict[str, constraints.Rejection] = {}
        # The best first; what a host says may change with each that comes.
        waiting: list[tuple[tuple[object, ...], model.Host]] = []
        for host in hosts:
            rejection = self._rejection(books, verdict, pattern, host)
            if rejection is None:
                room = self._room(books, verdict, pattern, host)
                waiting.append((room, host))
            else:
                refused[host.name] = rejection
        heap = [(room, place) for place, (room, _) in enumerate(waiting)]
        heapq.heapify(heap)
        placed: list[Placement] = []
        for instance in new:
            while heap:
                _, place = heapq.heappop(heap)
                host = waiting[place][1]
                rejection = self._rejection(books, verdict, instance, host)
                if rejection is not None:
                    refused[host.name] = rejection
                    continue
                books.move(instance, host)
                placed.append(Placement(instance=instance, target=host.name))
                room = self._room(books, verdict, instance, host)
                heapq.heappush(heap, (room, place))
                break
            else:
                break
        unplaced = tuple(
            planner.Refusal(
                instance=instance,
                rejection=None,
                targets=model.frozen_map(refused),
            )
            for instance in new[len(placed) :]
        )
        self._settle(books, placed, ())
        self._outcomes.append(
            Outcome(edit=edit, placements=tuple(placed), unplaced=unplaced)
        )
        where = (
            f"on {hosts[0].name}"
            if "host" in edit.options
            else "each on the host with the most room in its tier, where "
            "Nova's scheduler may choose another one"
        )
        self._assume(
            f"{number} instances of flavor {flavor.name} are started, {where}."
        )

    def _flavor(self, edit: Edit) -> model.Flavor:
        named = edit.options["flavor"]
        known = [f for f in self._flavors if f.name == named]
        if not known:
            # Of those in use each once.
            for instance in self._cluster.instances:
                flavor = instance.flavor
                if flavor.name == named and flavor not in known:
                    known.append(flavor)
        if len(known) > 1:
            raise _wrong(
                edit.text,
                f"{len(known)} different flavors are named {named!r}",
                "Rename one of them",
            )
        if known:
            return known[0]
        names = {f.name for f in self._flavors} | {
            instance.flavor.name for instance in self._cluster.instances
        }
        raise _wrong(
            edit.text,
            f"there is no flavor {named!r}",
            f"There are {errors.some(sorted(names), 10)}" if names else "",
        )

    def _names(self, flavor: model.Flavor, number: int) -> list[str]:
        """Names that no instance has."""
        taken = {one.name for one in self._cluster.instances}
        taken |= {one.uuid for one in self._cluster.instances}
        found: list[str] = []
        count = 0
        while len(found) < number:
            count += 1
            name = f"new-{flavor.name}-{count}"
            if name not in taken:
                found.append(name)
        return found

    # Places

    def _diagnosed(self) -> diagnosing.Diagnosis:
        return diagnosing.diagnose(self._cluster, self._params)

    def _rejection(
        self,
        books: planner.Books,
        verdict: diagnosing.Diagnosis,
        instance: model.Instance,
        host: model.Host,
    ) -> constraints.Rejection | None:
        return constraints.reject_target(
            constraints.Proposal(
                cluster=self._cluster,
                diagnosis=verdict,
                occupancy=books,
                instance=instance,
                target=host,
            ),
            self._extensions,
        )

    def _find(
        self,
        books: planner.Books,
        verdict: diagnosing.Diagnosis,
        instance: model.Instance,
        source: str,
    ) -> model.Host | planner.Refusal:
        """The host with the most room for an instance, or why none has."""
        rejection = constraints.reject_instance(
            self._cluster, self._cluster.instance_by_uuid[instance.uuid]
        )
        if rejection is not None:
            return planner.Refusal(
                instance=instance,
                rejection=rejection,
                targets=model.frozen_map(),
            )
        refused = {}
        found = []
        for host in self._cluster.hosts:
            if host.name == source:
                continue
            said = self._rejection(books, verdict, instance, host)
            if said is not None:
                refused[host.name] = said
            else:
                room = self._room(books, verdict, instance, host)
                found.append((room, host))
        if found:
            return min(found, key=lambda one: one[0])[1]
        return planner.Refusal(
            instance=instance,
            rejection=None,
            targets=model.frozen_map(refused),
        )

    def _room(
        self,
        books: planner.Books,
        verdict: diagnosing.Diagnosis,
        instance: model.Instance,
        host: model.Host,
    ) -> tuple[int, int, str]:
        """Sort key: the most units of its tier free, then memory, first."""
        units = 0
        for account in capacity.claims(self._cluster, instance):
            quota = verdict.quota(host.name, account)
            if quota is not None:
                units = quota - books.held(host.name, account)
                break
        memory = (host.capacity("MEMORY_MB") or 0) - sum(
            books.used(provider.uuid, "MEMORY_MB")
            for provider in host.providers
        )
        return (-units, -memory, host.name)

    def _settle(
        self,
        books: planner.Books,
        placed: Sequence[Placement],
        lost: Sequence[model.Instance],
    ) -> None:
        """Write down where instances were placed, and what they take.

        :param lost: instances that are nowhere from now on
        """
        cluster = self._cluster
        charges: dict[str, capacity.Charge] = {}
        touched: set[str] = set()
        for one in placed:
            standing = books.standing(one.instance)
            assert standing is not None  # it was placed
            charges[one.instance.uuid] = standing[1]
            touched |= {uuid for uuid, _ in standing[1]}
            touched |= set(one.instance.allocations)
        freed: dict[tuple[str, str], int] = {}
        for instance in lost:
            for uuid, amounts in instance.allocations.items():
                touched.add(uuid)
                for name, amount in amounts.items():
                    key = (uuid, name)
                    freed[key] = freed.get(key, 0) + amount
        self._change_providers(
            {
                provider.uuid: dataclasses.replace(
                    provider,
                    allocated=model.frozen_map(
                        {
                            name: units - freed.get((provider.uuid, name), 0)
                            for name in {
                                *provider.allocated,
                                *provider.inventories,
                            }
                            if (units := books.used(provider.uuid, name))
                            or name in provider.allocated
                        }
                    ),
                )
                for host in cluster.hosts
                for provider in host.providers + host.shared
                if provider.uuid in touched
            }
        )
        held = dict(cluster.held)
        for host in {one.target for one in placed}:
            for account in cluster.accounts:
                units = books.held(host, account)
                if units or (host, account) in held:
                    held[host, account] = units
        moved = {
            one.instance.uuid: self._placed(one, charges[one.instance.uuid])
            for one in placed
        }
        known = {one.uuid for one in cluster.instances}
        telemetry = cluster.telemetry
        if telemetry is not None:
            telemetry = dataclasses.replace(
                telemetry,
                readings=model.frozen_map(
                    {
                        uuid: readings
                        for uuid, readings in telemetry.readings.items()
                        if uuid not in moved
                    }
                ),
            )
        self._cluster = dataclasses.replace(
            self._cluster,
            held=model.frozen_map(held),
            telemetry=telemetry,
            instances=tuple(
                sorted(
                    (
                        *(moved.get(i.uuid, i) for i in cluster.instances),
                        *(i for u, i in moved.items() if u not in known),
                    ),
                    key=lambda instance: instance.sort_key,
                )
            ),
        )

    def _placed(
        self, one: Placement, charge: capacity.Charge
    ) -> model.Instance:
        """An instance as it is where it was placed."""
        claims = capacity.claims(self._cluster, one.instance)
        units = one.instance.units
        if self._cluster.shares_class is not None:
            units = claims.get(self._cluster.shares_class, units)
        elif one.instance.tier is not None:
            units = claims.get(one.instance.tier, units)
        allocations: dict[str, dict[str, int]] = {}
        for (uuid, name), amount in charge.items():
            allocations.setdefault(uuid, {})[name] = amount
        return dataclasses.replace(
            one.instance,
            host=one.target,
            units=units,
            allocations=model.frozen_map(
                {u: model.frozen_map(held) for u, held in allocations.items()}
            ),
        )


def _as_given(quota: parameters.PolicyQuota) -> int | str:
    """A policy quota as the audit parameter gives it."""
    return quota.units if quota.units is not None else str(quota)


def _forced(instance: model.Instance) -> model.Instance:
    """An instance that has to go, whether it may be moved today or not."""
    return dataclasses.replace(
        instance,
        status="ACTIVE",
        task_state=None,
        locked=False,
        known=True,
        excluded=False,
        opted_out=False,
    )


def _admitting(provider: model.Provider) -> model.Provider:
    """A provider whose unit rules admit whatever is allocated there."""
    usual = model.Inventory()
    return dataclasses.replace(
        provider,
        inventories=model.frozen_map(
            {
                name: dataclasses.replace(
                    inventory,
                    min_unit=usual.min_unit,
                    max_unit=usual.max_unit,
                    step_size=usual.step_size,
                )
                for name, inventory in provider.inventories.items()
            }
        ),
    )


def _resized(
    before: model.Inventory | None, units: int
) -> tuple[model.Inventory, str]:
    """An inventory with another capacity, and how it comes about."""
    old = before or model.Inventory()
    if not units:
        # Placement refuses a total of 0.
        total = max(1, old.total or old.known_capacity or 1)
        return (
            dataclasses.replace(
                old, total=total, reserved=total, known_capacity=None
            ),
            f"all {total} are reserved",
        )
    most = old.max_unit
    if before is not None and most == before.total and units > most:
        most = units
    new = dataclasses.replace(
        old,
        total=units,
        reserved=0,
        allocation_ratio=1.0,
        max_unit=most,
        known_capacity=None,
    )
    told = f"total {units}, nothing reserved and ratio 1"
    if before is not None and before.detailed and most != before.max_unit:
        told += f", max_unit {most} too"
    elif units < most < _MOST_UNITS:
        told += f", max_unit {most} as it is"
    return new, told


def _copied(pattern: model.Host, name: str) -> model.Host:
    """An empty host of another name."""
    uuids = {
        provider.uuid: f"what-if-{name}" + (f"-{place}" if place else "")
        for place, provider in enumerate(pattern.providers)
    }
    providers = tuple(
        dataclasses.replace(
            provider,
            uuid=uuids[provider.uuid],
            name=_renamed(provider.name, pattern, name),
            root_uuid=uuids.get(provider.root_uuid, provider.root_uuid),
            parent_uuid=uuids.get(provider.parent_uuid or ""),
            allocated=model.frozen_map(),
        )
        for provider in pattern.providers
    )
    return dataclasses.replace(
        pattern,
        uuid=uuids[pattern.providers[0].uuid]
        if providers
        else f"what-if-{name}",
        name=name,
        node_name=name,
        providers=providers,
        enabled=True,
        up=True,
        disabled_reason="",
    )


def _renamed(provider: str, pattern: model.Host, name: str) -> str:
    for known in (pattern.node_name, pattern.name):
        if provider.startswith(known):
            return name + provider[len(known) :]
    return f"{name}_{provider}"


def _unasked(
    cluster: model.Cluster, hosts: set[str]
) -> Mapping[tuple[tuple[str, str], ...], model.Admission]:
    """Placement's word on requests, without hosts that it does not know so.

    :param hosts: their uuids
    """
    all_hosts = {host.uuid for host in cluster.hosts}
    return model.frozen_map(
        {
            request: model.Admission(
                hosts=known.hosts - hosts,
                refused=(
                    known.refused
                    | (all_hosts - known.hosts if known.complete else set())
                )
                - hosts,
            )
            for request, known in cluster.admissions.items()
        }
    )
