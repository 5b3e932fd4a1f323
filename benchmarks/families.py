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

"""Clouds to plan for: one seeded generator for every kind of difficulty.

A host has 112 CPUs and, unless a family says otherwise, 112 units of each of
three tiers, which instances of six sizes with three ratios of memory fill.
Then the operator lowers the inventories of some (host, tier) pairs below what
is there: that is the excess. Families differ in what is free elsewhere, and
in what else binds: zones, server groups, memory, awkward sizes::

    h00017  VCPU 112 x 4, MEMORY_MB, CUSTOM_VCPU_GOLD 97 (held 109), ...

A family and a size always make the same cloud, byte for byte. What is alike
is shared: 54 flavors, inventories of equal totals.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import types

import numpy as np
import numpy.typing as npt

from watcher_cputier import model

CPUS = 112
TIERS = ("gold", "silver", "bronze")
MEMORY_PER_UNIT_MB = (1024, 2048, 4096)
POWERS = (1, 2, 4, 8, 16, 32)
ODD = (1, 3, 5, 7, 12, 20)
DOZENS = (1, 2, 3, 6, 12, 24)
# How often each of the six sizes is asked for.
SHARES = (0.12, 0.15, 0.21, 0.23, 0.18, 0.11)
ZONES = 4
SEED = 20260101

Ints = npt.NDArray[np.int64]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """How a kind of cloud is made.

    :param occupancy: units held of all quotas together, the lowered ones
        included; None where ``holes`` says what is free
    :param holes: free units of a (host, tier) pair are evenly 0 to this
    :param lowered: probability of a (host, tier) pair to be over quota
    :param excess: units over quota there are evenly 1 to this
    :param exact: whether free units are made to equal excess units
    :param zones: fraction of instances that are bound to their zone
    :param drained: fraction of hosts whose tiers are wholly reserved
    :param grouped: fraction of instances in anti-affinity groups of three
    :param memory_free: free memory of a host is evenly 0 to this fraction
        of what is used there
    :param memory_filled: memory used of all memory together
    :param feasible: whether a plan without residual may exist
    """

    name: str
    occupancy: float | None = None
    holes: int | None = None
    lowered: float = 0.2
    excess: int = 24
    exact: bool = False
    sizes: Sequence[int] = POWERS
    zones: float = 0.0
    drained: float = 0.0
    grouped: float = 0.0
    memory_free: float | None = None
    memory_filled: float | None = None
    feasible: bool = True

    @property
    def binds_memory(self) -> bool:
        """Whether memory decides on some hosts, not units."""
        return self.memory_free is not None or self.memory_filled is not None


FAMILIES = (
    Family(name="75 %", occupancy=0.75),
    Family(name="85 %", occupancy=0.85),
    Family(name="93 %", occupancy=0.93),
    Family(name="97 %", occupancy=0.97, lowered=0.1, excess=15),
    Family(name="holes 0..3", holes=3, lowered=0.1, excess=12),
    Family(name="holes 0..2", holes=2, lowered=0.1, excess=12),
    Family(name="99.5 %", occupancy=0.995, lowered=0.05, excess=6),
    Family(name="4 zones", occupancy=0.93, zones=0.6),
    Family(name="drain", occupancy=0.75, lowered=0.1, drained=0.01),
    Family(name="groups", occupancy=0.85, lowered=0.15, grouped=0.3),
    Family(name="odd sizes", occupancy=0.93, lowered=0.12, sizes=ODD),
    Family(name="odd, holes 0..4", holes=4, lowered=0.1, excess=12, sizes=ODD),
    Family(name="dozens", occupancy=0.93, lowered=0.12, sizes=DOZENS),
    Family(name="memory 97 %", occupancy=0.85, memory_filled=0.97),
    Family(
        name="infeasible",
        occupancy=1.004,
        lowered=0.08,
        excess=29,
        feasible=False,
    ),
    Family(
        name="memory 0-20 %", occupancy=0.93, lowered=0.12, memory_free=0.20
    ),
    Family(
        name="memory 0-8 %", occupancy=0.93, lowered=0.12, memory_free=0.08
    ),
    Family(name="zero slack", holes=3, lowered=0.1, excess=12, exact=True),
)
BY_NAME = {family.name: family for family in FAMILIES}


def build(family: Family, hosts: int, seed: int = 0) -> model.Cluster:
    """The cloud of a family.

    :param seed: another cloud of the same kind
    """
    place = FAMILIES.index(family) if family in FAMILIES else len(FAMILIES)
    chance = np.random.default_rng((SEED, place, hosts, seed))
    held, quotas = _units(family, hosts, chance)
    zones = [
        f"az{n % ZONES + 1}" if family.zones else "az1" for n in range(hosts)
    ]
    guests = _Guests(family, chance)
    for n in range(hosts):
        for t, tier in enumerate(TIERS):
            guests.fill(f"h{n:05}", zones[n], tier, int(held[n, t]))
    reserved = np.zeros(hosts, dtype=bool)
    if family.drained:
        count = max(1, round(hosts * family.drained))
        reserved[chance.choice(hosts, count, replace=False)] = True
    used = guests.memory(hosts)
    memory = _memory(family, used, chance)
    tiers = _tiers()
    makes = _Hosts(tiers)
    found = tuple(
        makes.host(
            f"h{n:05}",
            zones[n],
            [int(units) for units in held[n]],
            [int(units) for units in quotas[n]],
            (int(used[n]), int(memory[n])),
            bool(reserved[n]),
        )
        for n in range(hosts)
    )
    return model.Cluster(
        tiers=tiers,
        hosts=found,
        instances=tuple(guests.made),
        held=types.MappingProxyType(
            {
                (host.name, tier): int(held[n, t])
                for n, host in enumerate(found)
                for t, tier in enumerate(TIERS)
                if held[n, t]
            }
        ),
        tier_classes=frozenset(tier.resource_class for tier in tiers),
        server_groups=tuple(_groups(family, hosts, guests.made, chance)),
    )


def _tiers() -> tuple[model.Tier, ...]:
    return tuple(
        model.Tier(
            name=name,
            resource_class=model.default_class(name),
            cpu_shares=model.BUILT_IN_TIERS[name][0],
            multiplier=model.BUILT_IN_TIERS[name][1],
            rank=rank,
        )
        for rank, name in enumerate(TIERS, 1)
    )


def _units(
    family: Family, hosts: int, chance: np.random.Generator
) -> tuple[Ints, Ints]:
    """Units held and quotas, each of (hosts, tiers)."""
    shape = (hosts, len(TIERS))
    lowered = chance.random(shape) < family.lowered
    # Some host has an excess, however few there are.
    lowered[chance.integers(hosts), chance.integers(len(TIERS))] = True
    excess = np.where(lowered, chance.integers(1, family.excess, shape), 0)
    if family.holes is not None:
        free = chance.integers(0, family.holes, shape, endpoint=True)
    else:
        free = _free(family, lowered, excess, chance)
    if family.exact:
        for t in range(len(TIERS)):
            _equal(free[:, t], excess[:, t], family.holes or 1)
    if family.holes is not None and family.feasible:
        _curable(lowered, excess, free)
    # Where holes are counted, a pair that is over quota was full before.
    full = lowered & (family.holes is not None)
    held = CPUS - np.where(full, 0, free)
    quotas = np.where(lowered, held - np.minimum(excess, held), CPUS)
    return held, quotas


def _curable(lowered: npt.NDArray[np.bool_], excess: Ints, free: Ints) -> None:
    """Leave pairs alone that would be more excess than there are holes."""
    for t in range(len(TIERS)):
        for n in np.flatnonzero(lowered[:, t])[:0:-1]:
            holes = int(free[~lowered[:, t], t].sum())
            if excess[:, t].sum() <= holes:
                break
            lowered[n, t], excess[n, t] = False, 0


def _free(
    family: Family,
    lowered: npt.NDArray[np.bool_],
    excess: Ints,
    chance: np.random.Generator,
) -> Ints:
    """Units below 112 of each pair, so that the occupancy comes out."""
    assert family.occupancy is not None
    pairs, low = lowered.size, int(lowered.sum())
    # held = occupancy x quotas, with held = 112 - free on every pair.
    wanted = family.occupancy
    mean = CPUS - wanted * (CPUS * (pairs - low) - excess.sum()) / (
        pairs - wanted * low
    )
    spread = 4.0 if mean > CPUS / 20 else 1.0
    free = chance.gamma(spread, max(mean, 0.05) / spread, lowered.shape)
    found = np.minimum(np.rint(free).astype(np.int64), CPUS)
    return _summing(found, round(mean * pairs), chance)


def _summing(found: Ints, total: int, chance: np.random.Generator) -> Ints:
    """The same with a few units more or less, so that the sum is right."""
    flat = found.reshape(-1)
    while (lacking := max(total, 0) - int(flat.sum())) != 0:
        able = flat < CPUS if lacking > 0 else flat > 0
        places = np.flatnonzero(able)
        count = min(abs(lacking), len(places))
        if not count:
            break
        chosen = chance.choice(places, count, replace=False)
        flat[chosen] += 1 if lacking > 0 else -1
    return found


def _equal(free: Ints, excess: Ints, most: int) -> None:
    """As much free as there is excess, on the hosts without one."""
    given = np.flatnonzero(excess == 0)
    free[excess > 0] = 0
    left = int(excess.sum())
    for n in given:
        free[n] = min(most, left, int(free[n]))
        left -= int(free[n])
    for n in given:
        more = min(left, CPUS - int(free[n]), most)
        free[n] += more
        left -= more
    if left:
        raise ValueError(f"{left} units of excess have no room")


class _Guests:
    """The instances, filled in host by host."""

    def __init__(self, family: Family, chance: np.random.Generator) -> None:
        self.made: list[model.Instance] = []
        self._used: dict[str, int] = {}
        self._sizes = sorted(family.sizes)
        self._zones = family.zones
        draws = 1 << 16
        self._draw = chance.choice(
            np.array(sorted(family.sizes)), draws, p=np.array(SHARES)
        ).tolist()
        self._ratio = chance.integers(
            0, len(MEMORY_PER_UNIT_MB), draws
        ).tolist()
        self._bound = (chance.random(draws) < family.zones).tolist()
        self._shift = int(chance.integers(1, draws))
        self._flavors = {
            (tier, size, ratio): _flavor(tier, size, ratio)
            for tier in TIERS
            for size in family.sizes
            for ratio in range(len(MEMORY_PER_UNIT_MB))
        }

    def fill(self, host: str, zone: str, tier: str, units: int) -> None:
        """Put instances of a tier on a host until it holds so many units."""
        while units > 0:
            number = len(self.made)
            place = number % len(self._draw)
            # The draws are used over and over, each time in other company.
            turn = number // len(self._draw) * self._shift
            size = self._draw[(place + turn) % len(self._draw)]
            if size > units:
                size = max(s for s in self._sizes if s <= units)
            ratio = self._ratio[(place + 3 * turn) % len(self._draw)]
            flavor = self._flavors[tier, size, ratio]
            name = f"i{number:06}"
            bound = self._bound[(place + 7 * turn) % len(self._draw)]
            self.made.append(
                model.Instance(
                    uuid=name,
                    name=name,
                    host=host,
                    flavor=flavor,
                    tier=tier,
                    units=size,
                    pinned_zone=zone if bound else None,
                )
            )
            self._used[host] = self._used.get(host, 0) + flavor.memory_mb
            units -= size

    def memory(self, hosts: int) -> Ints:
        """MB in use on each host."""
        return np.array(
            [self._used.get(f"h{n:05}", 0) for n in range(hosts)],
            dtype=np.int64,
        )


def _flavor(tier: str, size: int, ratio: int) -> model.Flavor:
    memory = MEMORY_PER_UNIT_MB[ratio] * size
    name = model.default_class(tier)
    return model.Flavor(
        name=f"{tier}.{size}.{MEMORY_PER_UNIT_MB[ratio] // 1024}",
        vcpus=size,
        memory_mb=memory,
        disk_gb=0,
        groups=(
            model.RequestGroup(
                resources=model.frozen_map(
                    {"VCPU": size, "MEMORY_MB": memory, name: size}
                )
            ),
        ),
        extra_specs=model.frozen_map({f"resources:{name}": str(size)}),
    )


def _memory(family: Family, used: Ints, chance: np.random.Generator) -> Ints:
    """MB of each host."""
    if family.memory_free is not None:
        more = chance.random(len(used)) * family.memory_free
        return np.ceil(used * (1 + more)).astype(np.int64)
    if family.memory_filled is not None:
        low, high = 0.0, float(used.max()) * 2
        # The more memory, the less of it is filled.
        for _ in range(60):
            middle = (low + high) / 2
            filled = used.sum() / np.maximum(used, middle).sum()
            low, high = (
                (middle, high)
                if filled > family.memory_filled
                else (low, middle)
            )
        return np.ceil(np.maximum(used, high)).astype(np.int64)
    return np.full(len(used), 2 * int(used.max()), dtype=np.int64)


class _Hosts:
    """Hosts; equal inventories are one object."""

    def __init__(self, tiers: tuple[model.Tier, ...]) -> None:
        self._classes = [tier.resource_class for tier in tiers]
        self._cpus = model.Inventory(total=CPUS, allocation_ratio=4.0)
        self._known: dict[tuple[int, int], model.Inventory] = {}

    def host(
        self,
        name: str,
        zone: str,
        held: list[int],
        quotas: list[int],
        memory: tuple[int, int],
        drained: bool,
    ) -> model.Host:
        """One host with one provider.

        :param memory: MB in use, and MB that there are
        """
        inventories = {"VCPU": self._cpus, "MEMORY_MB": self._of(memory[1])}
        allocated = {"VCPU": sum(held), "MEMORY_MB": memory[0]}
        for c, units, quota in zip(self._classes, held, quotas, strict=True):
            inventories[c] = self._of(quota, quota if drained else 0)
            allocated[c] = units
        return model.Host(
            uuid=name,
            name=name,
            node_name=name,
            providers=(
                model.Provider(
                    uuid=name,
                    name=name,
                    root_uuid=name,
                    inventories=types.MappingProxyType(inventories),
                    allocated=types.MappingProxyType(allocated),
                ),
            ),
            zone=zone,
            failure_domain=zone,
        )

    def _of(self, total: int, reserved: int = 0) -> model.Inventory:
        key = (total, reserved)
        if key not in self._known:
            # Placement has no inventory of a total of 0.
            self._known[key] = model.Inventory(
                total=max(1, total), reserved=reserved if total else 1
            )
        return self._known[key]


def _groups(
    family: Family,
    hosts: int,
    guests: list[model.Instance],
    chance: np.random.Generator,
) -> Iterator[model.ServerGroup]:
    """Groups of three on different hosts."""
    if not family.grouped:
        return
    count = int(len(guests) * family.grouped)
    chosen = chance.permutation(len(guests))[:count].tolist()
    for n in range(0, count - 2, 3):
        members = [guests[i] for i in chosen[n : n + 3]]
        if len({member.host for member in members}) == len(members):
            yield model.ServerGroup(
                uuid=f"g{n:06}",
                name=f"g{n:06}",
                policy="anti-affinity",
                members=frozenset(member.uuid for member in members),
            )
