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

"""Single-class mode: one class for all tiers, counted in shares (S0).

A host of 16 CPUs sells 16 x 100 = 1600 units of CUSTOM_VCPU_SHARES, and a
vCPU takes 100 of them in Gold, 50 in Silver and 25 in Bronze. Placement's
quota is the host's capacity for all tiers together; a tier of its own is
limited by policy alone.
"""

from collections.abc import Mapping
import re
from typing import Any

import pytest

from tests.cloud import CloudSpec
from tests.cloud import EmbeddedCloud
from tests.cloud import FlavorSpec
from tests.cloud import HostSpec
from tests.cloud import InstanceSpec
from tests.functional import snapshots
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator
from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import parameters

SHARES = "CUSTOM_VCPU_SHARES"
MULTIPLIERS = {"gold": 100, "silver": 50, "bronze": 25}
CPUS = 16
CAPACITY = 100 * CPUS


def host(name: str, total: int | None = CAPACITY, **classes: int) -> HostSpec:
    """A host with so many shares, or none, and further classes."""
    own = {} if total is None else {SHARES: {"total": total}}
    return HostSpec(
        name=name,
        vcpus=CPUS,
        cpu_allocation_ratio=4.0,
        inventories={**own, **{k: {"total": n} for k, n in classes.items()}},
    )


def flavor(name: str, **extra_specs: str) -> FlavorSpec:
    """``gold.4``: 4 vCPUs of Gold, and 400 shares asked of Placement."""
    tier, _, vcpus = name.partition(".")
    request = {}
    if tier in MULTIPLIERS:
        request[f"resources:{SHARES}"] = str(MULTIPLIERS[tier] * int(vcpus))
    return FlavorSpec(
        name=name,
        vcpus=int(vcpus),
        extra_specs={**request, **extra_specs},
    )


def shared(
    *instances: InstanceSpec,
    hosts: tuple[HostSpec, ...] | None = None,
    flavors: tuple[FlavorSpec, ...] = (),
    **more: Any,
) -> CloudSpec:
    """A cloud of three such hosts."""
    own = {one.name: one for one in flavors}
    for name in {one.flavor for one in instances} - set(own):
        own[name] = flavor(name)
    if hosts is None:
        hosts = tuple(host(f"host-{n + 1}") for n in range(3))
    return CloudSpec(
        hosts=hosts,
        flavors=tuple(own[name] for name in sorted(own)),
        instances=instances,
        **more,
    )


FULL_HOST = (
    instance("gold", "gold.8", "host-1"),
    instance("silver", "silver.8", "host-1"),
    instance("bronze", "bronze.8", "host-1"),
)


def test_a_host_over_its_share_capacity_is_cured(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R32, R33: 1400 shares on a host that has 1000 left of its 1600.

    400 are too many; Silver's 8 vCPUs are 400 shares, one migration. The
    plan is executed, and Placement says that nobody is over.
    """
    load(shared(*FULL_HOST))
    cloud.set_inventory("host-1", SHARES, total=1000)
    assert truth.over() == {("host-1", SHARES): 400}

    audit = operator.audit()

    assert set(audit.moves) == {"silver"}
    assert audit.indicators["excess_units_before"] == 400
    assert audit.indicators["excess_units_after"] == 0
    assert audit.indicators["migrations_lower_bound"] == 1
    operator.start(audit.plan)
    assert truth.over() == {}
    assert truth.usages("host-1")[SHARES] == 1000
    assert operator.audit().moves == {}


def test_the_multiplier_tells_the_tier(
    cloud: EmbeddedCloud, load: Load, truth: Truth
) -> None:
    """R33: 8 vCPUs are Gold with 800 shares, Silver with 400.

    60 shares per vCPU are no tier's: they count, and are named.
    """
    load(
        shared(
            *FULL_HOST,
            instance("odd", "odd.2", "host-2"),
            flavors=(flavor("odd.2", **{f"resources:{SHARES}": "120"}),),
        )
    )

    cluster = snapshots.read(cloud)

    assert cluster.shares_class == SHARES
    assert {i.name: (i.tier, i.units) for i in cluster.instances} == {
        "gold": ("gold", 800),
        "silver": ("silver", 400),
        "bronze": ("bronze", 200),
        "odd": (None, 120),
    }
    for name in ("host-1", "host-2"):
        assert cluster.held[name, SHARES] == truth.usages(name)[SHARES]
    assert "odd" in snapshots.findings(cluster, "unknown_multiplier")[SHARES]


def test_a_tiers_policy_quota_is_in_shares(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R6, R32: at most 500 shares of Gold on each host, whatever is free.

    One Gold instance of 400 shares leaves host-1; host-2 has 400 already and
    is no target.
    """
    load(
        shared(
            instance("gold-a", "gold.4", "host-1"),
            instance("gold-b", "gold.4", "host-1"),
            instance("gold-c", "gold.4", "host-2"),
            instance("ballast", "silver.8", "host-3"),
        )
    )

    audit = operator.audit(quotas={"gold": 500})

    ((name, move),) = audit.moves.items()
    assert name in ("gold-a", "gold-b")
    assert move == ("host-1", "host-3")
    assert audit.indicators["gold_excess_units_before"] == 300
    assert audit.indicators["gold_excess_units_after"] == 0
    assert cloud.live_migrate(name, "host-3") == "completed"
    assert truth.over() == {}


def test_a_full_host_takes_no_tier_at_all(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R31: host-2 has 100 shares free; 200 of Bronze are refused there."""
    load(
        shared(
            instance("mover", "bronze.8", "host-1"),
            instance("full", "gold.15", "host-2"),
            instance("ballast", "gold.12", "host-3"),
        )
    )
    cloud.set_inventory("host-1", SHARES, total=100)

    found = snapshots.rejection(cloud, "mover", "host-2")
    audit = operator.audit()

    assert found is not None
    assert found.rule == "within_quota"
    assert audit.moves == {"mover": ("host-1", "host-3")}
    assert cloud.live_migrate("mover", "host-2") == "error"
    assert cloud.live_migrate("mover", "host-3") == "completed"


def test_half_enabled_states_are_inferred_and_reported(
    cloud: EmbeddedCloud, load: Load, operator: Operator
) -> None:
    """R34 to R38: reporting without requesting, and here and not there.

    host-3 reports no shares. ``unasked`` has shares by its flavor that
    Placement does not count; ``unshaped`` asks for them and holds none.
    """
    load(
        shared(
            instance("asked", "gold.4", "host-1"),
            instance("unshaped", "gold.4", "host-2"),
            instance("unasked", "plain.4", "host-1"),
            hosts=(host("host-1"), host("host-2"), host("host-3", None)),
            flavors=(flavor("plain.4", **{"quota:cpu_shares": "2048"}),),
        )
    )
    server = cloud.server_id("unshaped")
    held = cloud.placement.get(f"/allocations/{server}").json()
    for one in held["allocations"].values():
        del one["generation"], one["resources"][SHARES]
    cloud.placement.put(f"/allocations/{server}", json=held)

    audit = operator.audit()

    (lacking,) = audit.said("shares_not_reported", level="WARNING")
    assert "host-3" in lacking
    assert "host-1" not in lacking
    (unasked,) = audit.said("shares_not_requested", level="WARNING")
    assert re.search(r"\bunasked\b", unasked)
    assert not re.search(r"\basked\b", unasked)
    (unshaped,) = audit.said("never_reshaped", level="WARNING")
    assert server in unshaped
    assert audit.moves == {}


BOTH = shared(
    instance("gold", "gold.4", "host-1"),
    hosts=tuple(
        host(
            f"host-{n + 1}", **{specs.tier_class(t): CPUS for t in specs.TIERS}
        )
        for n in range(2)
    ),
    flavors=(flavor("gold.4", **{f"resources:{specs.GOLD}": "4"}),),
)


@pytest.mark.parametrize(
    ("options", "shares_class", "units"),
    [
        pytest.param({}, None, 4, id="auto"),
        pytest.param({"mode": "classes"}, None, 4, id="classes"),
        pytest.param({"mode": "shares"}, SHARES, 400, id="shares"),
        pytest.param(
            {"mode": "shares", "shares_class": SHARES},
            SHARES,
            400,
            id="named",
        ),
    ],
)
def test_where_both_are_reported_the_configuration_decides(
    cloud: EmbeddedCloud,
    load: Load,
    options: Mapping[str, str],
    shares_class: str | None,
    units: int,
) -> None:
    """A cloud that has a class per tier and shares as well."""
    load(BOTH, shared=True)

    cluster = snapshots.read(cloud, **options)

    assert cluster.shares_class == shares_class
    assert snapshots.named(cluster, "gold").units == units


@pytest.mark.parametrize(
    ("options", "words"),
    [
        pytest.param({"mode": "classes"}, [specs.GOLD], id="classes"),
        pytest.param(
            {"mode": "shares", "shares_class": "CUSTOM_CPU_WEIGHT"},
            ["CUSTOM_CPU_WEIGHT"],
            id="another-class",
        ),
    ],
)
def test_a_mode_that_the_cloud_does_not_have_is_an_error(
    cloud: EmbeddedCloud,
    load: Load,
    options: Mapping[str, str],
    words: list[str],
) -> None:
    """No host has an inventory of what the configuration names."""
    load(shared(instance("gold", "gold.4", "host-1")), shared=True)
    cluster = snapshots.read(cloud, **options)

    with pytest.raises(errors.SnapshotError) as caught:
        diagnosis.diagnose(cluster, parameters.Parameters.of())

    for word in ("no host has an inventory", *words):
        assert word in str(caught.value)


def test_the_mode_and_the_multipliers_are_watchers_configuration(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """``[cputier] mode = shares`` with a class and a tier of one's own."""
    cloud.watcher.configure(
        {
            ("cputier", "mode"): "shares",
            ("cputier", "shares_class"): "CUSTOM_CPU_WEIGHT",
            ("cputier", "tiers"): "high,low",
            ("cputier_tier_high", "cpu_shares"): 900,
            ("cputier_tier_high", "multiplier"): 9,
            ("cputier_tier_low", "cpu_shares"): 100,
            ("cputier_tier_low", "multiplier"): 1,
        }
    )
    weight = {"resources:CUSTOM_CPU_WEIGHT": "36"}
    load(
        shared(
            instance("mover", "high.4", "host-1"),
            hosts=tuple(
                host(f"host-{n + 1}", None, CUSTOM_CPU_WEIGHT=160)
                for n in range(2)
            ),
            flavors=(flavor("high.4", **weight),),
        )
    )

    audit = operator.audit(quotas_by_host={"host-1": {"high": 35}})

    assert audit.moves == {"mover": ("host-1", "host-2")}
    assert audit.indicators["high_excess_units_before"] == 1
