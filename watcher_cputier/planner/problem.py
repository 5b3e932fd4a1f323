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

"""The cluster as arrays: hosts, kinds of instances, and what each binds.

Instances that are alike to the planner (same request, same units, same
memory, pinned alike) are one :class:`Kind`. What an arrival takes is a vector
over *columns*: the resource classes of the requests, and the accounts, that
is quotas. What a host has left is a vector over the same columns.

The arrays propose, the checkers dispose: they say at once which of ten
thousand hosts have room, but no migration is planned that
:func:`~watcher_cputier.constraints.reject_target` has not admitted. Where
arrays cannot say it all (a class that several providers of a host have,
numbered request groups) they err on the side of admitting.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
import operator

import numpy as np
import numpy.typing as npt

from watcher_cputier import constraints
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.constraints import capacity
from watcher_cputier.planner import cooldown
from watcher_cputier.planner import covering

Units = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# More than any inventory: a quota that does not bind.
_PLENTY = 2**40
_NOTHING_TAKEN = -(2**40)
# More than any priority that an operator gives.
_RELUCTANCE = 2**32
# What rules and keys ask of an instance itself, of one without allocations
# and without an image that is known.
_LOOK = operator.attrgetter(
    "status",
    "task_state",
    "locked",
    "known",
    "excluded",
    "opted_out",
    "in_doubt",
    "tied",
    "tier",
    "units",
    "priority",
    "pinned_zone",
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Kind:
    """Movable instances that are alike to the planner.

    :param sample: one of them; any rule but those on server groups and on
        the host it comes from says the same of all
    :param accounts: what their units count against
    :param units: units that each holds
    :param priority: the lower ones move first; that of an instance that
        cools down is higher than any other
    :param demand: (C,) what an arrival takes
    :param release: (C,) what a departure gives back
    """

    index: int
    sample: model.Instance
    accounts: tuple[str, ...]
    units: int
    memory_mb: int
    priority: int
    demand: Units
    release: Units


class _Untaken:
    """An occupancy of empty hosts: only what never changes can reject."""

    def used(self, provider_uuid: str, resource_class: str) -> int:
        return _NOTHING_TAKEN

    def held(self, host: str, account: str) -> int:
        return _NOTHING_TAKEN

    def members(self, group: model.ServerGroup, host: str) -> int:
        return 0


class Problem:
    """What does not change while plans are tried.

    H hosts in the audit's scope, by name; C columns; K kinds, the largest
    first.

    :ivar hosts: the H hosts
    :ivar host_index: {name: row}
    :ivar classes: the resource classes among the columns, which come first
    :ivar column: {class or ("quota", account): column}
    :ivar kinds: the K kinds
    :ivar kind_of: {uuid: kind} of every movable instance with units
    :ivar standing: per host {kind: its instances there, by name}
    :ivar rejected: {uuid: why} of instances with units that may not move
    """

    def __init__(
        self,
        cluster: model.Cluster,
        diagnosis: diagnosing.Diagnosis,
        params: parameters.Parameters,
        extensions: constraints.Extensions,
    ) -> None:
        self.cluster = cluster
        self.diagnosis = diagnosis
        self.params = params
        self.extensions = extensions
        self.hosts = tuple(
            sorted(
                (h for h in cluster.hosts if h.in_scope), key=lambda h: h.name
            )
        )
        self.host_index = {h.name: i for i, h in enumerate(self.hosts)}
        self.accounts = cluster.accounts
        self.rejected: dict[str, constraints.Rejection] = {}
        self._aggregates = _aggregates_by_host(cluster)
        self._cooling = cooldown.cooling(cluster, params)
        self._by_project = any(
            key.startswith("filter_tenant_id")
            for aggregate in cluster.aggregates
            for key in aggregate.metadata
        )
        self._collect()

    # Kinds

    def _alike(self) -> dict[tuple[object, ...], list[model.Instance]]:
        """The movable instances with units, those of a kind together."""
        found: dict[tuple[object, ...], list[model.Instance]] = {}
        flavors = _Interned()
        sources = {
            host.name: (host.up, *host_traits_of_a_source(host))
            for host in self.hosts
        }
        # {what an instance looks like: those that it is equal to}
        alike: dict[tuple[object, ...], list[model.Instance]] = {}
        for instance in sorted(
            self.cluster.instances, key=operator.attrgetter("name", "uuid")
        ):
            source = sources.get(instance.host)
            if source is None or not instance.units:
                continue
            look = None
            if not instance.allocations and not instance.image_properties:
                look = (
                    id(instance.flavor),
                    source,
                    instance.uuid in self._cooling,
                    instance.project if self._by_project else None,
                    *_LOOK(instance),
                )
                equals = alike.get(look)
                if equals is not None:
                    equals.append(instance)
                    continue
            if not self.cluster.accounts_of(instance):
                continue
            rejection = constraints.reject_instance(self.cluster, instance)
            if rejection is not None:
                self.rejected[instance.uuid] = rejection
                continue
            key = (*self._key(flavors, instance), *source[1:])
            equals = found.setdefault(key, [])
            equals.append(instance)
            if look is not None:
                alike[look] = equals
        return found

    def _collect(self) -> None:
        found = self._alike()
        self.classes = tuple(
            sorted(
                {
                    name
                    for key in found
                    for name in found[key][0].flavor.resources
                }
            )
        )
        self.column: dict[object, int] = {
            name: i for i, name in enumerate(self.classes)
        }
        for account in self.accounts:
            self.column["quota", account] = len(self.column)
        self.kind_of: dict[str, Kind] = {}
        self.standing: list[dict[int, list[model.Instance]]] = [
            {} for _ in self.hosts
        ]
        by_host = {
            host.name: here
            for host, here in zip(self.hosts, self.standing, strict=True)
        }
        kinds: list[Kind] = []
        for members in sorted(found.values(), key=_by_size):
            kind = self._kind(len(kinds), members[0])
            kinds.append(kind)
            self.kind_of.update(
                dict.fromkeys(map(operator.attrgetter("uuid"), members), kind)
            )
            for instance in members:
                here = by_host[instance.host]
                alike = here.get(kind.index)
                if alike is None:
                    here[kind.index] = [instance]
                else:
                    alike.append(instance)
        self.kinds = tuple(kinds)

    def _key(
        self, flavors: "_Interned", instance: model.Instance
    ) -> tuple[object, ...]:
        held: object = None
        if instance.allocations:
            told = _totals(instance)
            if told != dict(instance.flavor.resources):
                held = tuple(sorted(told.items()))
        return (
            flavors.number(instance.flavor),
            instance.tier,
            instance.units,
            instance.pinned_zone,
            self._priority(instance),
            instance.project if self._by_project else None,
            held,
        )

    def _priority(self, instance: model.Instance) -> int:
        """How late an instance moves; who cools down later than others."""
        cooling = instance.uuid in self._cooling
        return instance.priority + (_RELUCTANCE if cooling else 0)

    def _kind(self, index: int, sample: model.Instance) -> Kind:
        demand = np.zeros(len(self.column), dtype=np.int64)
        release = np.zeros(len(self.column), dtype=np.int64)
        held = (
            _totals(sample) if sample.allocations else sample.flavor.resources
        )
        for name, amount in sample.flavor.resources.items():
            demand[self.column[name]] = amount
        for name, amount in held.items():
            if name in self.column:
                release[self.column[name]] = amount
        for account, amount in capacity.claims(self.cluster, sample).items():
            demand[self.column["quota", account]] = amount
        accounts = self.cluster.accounts_of(sample)
        for account in accounts:
            release[self.column["quota", account]] = sample.units
        return Kind(
            index=index,
            sample=sample,
            accounts=accounts,
            units=sample.units,
            memory_mb=sample.flavor.memory_mb,
            priority=self._priority(sample),
            demand=demand,
            release=release,
        )

    # What never changes

    @functools.cached_property
    def profiles(self) -> tuple[npt.NDArray[np.intp], tuple[model.Host, ...]]:
        """Which hosts no rule can tell apart but by what is taken.

        :returns: (H,) the profile of each host, and a host of each profile
        """
        numbers: dict[tuple[object, ...], int] = {}
        samples: list[model.Host] = []
        found = np.empty(len(self.hosts), dtype=np.intp)
        for i, host in enumerate(self.hosts):
            key = (
                host.enabled,
                host.up,
                host.zone,
                self._aggregates.get(host.name, ()),
                *host_traits_of_a_source(host),
                tuple(_outline(p, host) for p in host.providers),
                tuple(_outline(p, host) for p in host.shared),
            )
            if key not in numbers:
                numbers[key] = len(samples)
                samples.append(host)
            found[i] = numbers[key]
        return found, tuple(samples)

    def accepts(self, kind: Kind) -> Mask:
        """(H,) hosts that might take a kind, were nothing on them."""
        row = self._accepts.get(kind.index)
        if row is None:
            row = self._accepts[kind.index] = self._accepting(kind)
        return row

    @functools.cached_property
    def _accepts(self) -> dict[int, Mask]:
        return {}

    @functools.cached_property
    def demands(self) -> Units:
        """(K, C) what an arrival of each kind takes."""
        found = np.zeros((len(self.kinds), len(self.column)), dtype=np.int64)
        for kind in self.kinds:
            found[kind.index] = kind.demand
        return found

    @functools.cached_property
    def releases(self) -> Units:
        """(K, C) what a departure of each kind gives back."""
        found = np.zeros((len(self.kinds), len(self.column)), dtype=np.int64)
        for kind in self.kinds:
            found[kind.index] = kind.release
        return found

    @functools.cached_property
    def all_accepts(self) -> Mask:
        """(K, H) :meth:`accepts` of every kind."""
        found = np.zeros((len(self.kinds), len(self.hosts)), dtype=np.bool_)
        for kind in self.kinds:
            found[kind.index] = self.accepts(kind)
        return found

    def _accepting(self, kind: Kind) -> Mask:
        of_host, samples = self.profiles
        by_profile = np.array(
            [
                all(
                    rule(
                        constraints.Proposal(
                            cluster=self.cluster,
                            diagnosis=self.diagnosis,
                            occupancy=_Untaken(),
                            instance=kind.sample,
                            target=host,
                        )
                    )
                    is None
                    for rule in constraints.STATIC_RULES
                )
                for host in samples
            ],
            dtype=np.bool_,
        )
        row: Mask = by_profile[of_host]
        admission = self.cluster.admissions.get(kind.sample.flavor.request)
        if admission is not None:
            for i in np.flatnonzero(row):
                if admission.verdict(self.hosts[i].uuid) is False:
                    row[i] = False
        for account in capacity.claims(self.cluster, kind.sample):
            row &= ~self._unjudged[account]
        return row

    @functools.cached_property
    def _unjudged(self) -> dict[str, Mask]:
        """{account: (H,) hosts that take nothing of it, whatever is free}."""
        found = {}
        for account in self.accounts:
            mask = np.zeros(len(self.hosts), dtype=np.bool_)
            for i, host in enumerate(self.hosts):
                quota = self.diagnosis.quotas[host.name, account]
                unknown = quota.units is None and not quota.unlimited
                mask[i] = unknown or host.name in self.diagnosis.drained
            found[account] = mask
        return found

    def quota_room(self, host: model.Host, account: str, held: int) -> int:
        """Units of an account that a host may still take; negative: over."""
        quota = self.diagnosis.quotas[host.name, account]
        if quota.units is None:
            return _PLENTY if quota.unlimited else 0
        return quota.units - held

    def covering(
        self,
        account: str,
        counts: npt.NDArray[np.int32],
        room: Units,
    ) -> tuple[covering.Covering, list[list[int]]]:
        """The relaxation to one account.

        :param counts: (H, K) movable instances of a kind on a host
        :param room: (H, C) what hosts have left
        :returns: the covering, and for each of its kinds the kinds of this
            problem that are alike in it
        """
        merged: dict[tuple[int, bytes], list[int]] = {}
        for kind in self.kinds:
            if account in kind.accounts and counts[:, kind.index].any():
                key = (kind.units, self.accepts(kind).tobytes())
                merged.setdefault(key, []).append(kind.index)
        order = sorted(merged, key=lambda key: (-key[0], merged[key]))
        groups = [merged[key] for key in order]
        sizes = [size for size, _ in order]
        scale = math.gcd(*sizes) if sizes else 1
        quota = room[:, self.column["quota", account]]
        hosts = len(self.hosts)
        movable = np.zeros((hosts, len(groups)), dtype=np.int64)
        accepts = np.zeros((hosts, len(groups)), dtype=np.bool_)
        for i, group in enumerate(groups):
            movable[:, i] = counts[:, group].sum(axis=1)
            accepts[:, i] = self.accepts(self.kinds[group[0]])
        # No host needs room for more than there is.
        everything = int((movable * np.array(sizes, dtype=np.int64)).sum())
        return (
            covering.Covering(
                account=account,
                sizes=np.array(sizes, dtype=np.int64) // scale,
                movable=movable,
                room=np.minimum(quota, everything) // scale,
                accepts=accepts,
                scale=scale,
            ),
            groups,
        )


def host_traits_of_a_source(host: model.Host) -> tuple[object, ...]:
    """What rules ask of the host that an instance comes from."""
    return (
        getattr(host, "hypervisor_type", None),
        getattr(host, "hypervisor_version", None),
    )


def _totals(instance: model.Instance) -> dict[str, int]:
    found: dict[str, int] = {}
    for amounts in instance.allocations.values():
        for name, amount in amounts.items():
            found[name] = found.get(name, 0) + amount
    return found


def _by_size(members: list[model.Instance]) -> tuple[object, ...]:
    first = members[0]
    return (-first.units, -first.flavor.memory_mb, *first.sort_key)


def _outline(provider: model.Provider, host: model.Host) -> tuple[object, ...]:
    """What rules ask of a provider besides how much of it is free."""
    return (
        provider.parent_uuid is None,
        tuple(
            (
                name,
                (inventory.min_unit, inventory.max_unit, inventory.step_size)
                if inventory.detailed
                else None,
            )
            for name, inventory in provider.inventories.items()
        ),
        provider.traits,
    )


def _aggregates_by_host(
    cluster: model.Cluster,
) -> Mapping[str, tuple[int, ...]]:
    found: dict[str, list[int]] = {}
    for i, aggregate in enumerate(cluster.aggregates):
        if aggregate.metadata:
            for name in aggregate.hosts:
                found.setdefault(name, []).append(i)
    return {name: tuple(items) for name, items in found.items()}


class _Interned:
    """Numbers for flavors, equal for those that say the same."""

    def __init__(self) -> None:
        self._by_id: dict[int, int] = {}
        self._by_content: dict[tuple[object, ...], int] = {}

    def number(self, flavor: model.Flavor) -> int:
        found = self._by_id.get(id(flavor))
        if found is None:
            content = (
                flavor.request,
                flavor.memory_mb,
                flavor.disk_gb,
                flavor.vcpus,
                tuple(flavor.extra_specs.items()),
            )
            found = self._by_content.setdefault(content, len(self._by_content))
            self._by_id[id(flavor)] = found
        return found
