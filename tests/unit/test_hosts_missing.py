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

"""Hosts that Watcher, Nova or the audit's scope leave out of the picture.

Two hosts, a and b; their uuids are their names with ``-id``.
"""

from typing import Any

import pytest

from tests import builders
from tests.unit.test_snapshot import compute
from tests.unit.test_snapshot import migration
from tests.unit.test_snapshot import root
from tests.unit.test_snapshot import server
from watcher_cputier import model
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import snapshot

GOLD = builders.class_of("gold")


def cloud(**fields: Any) -> nova.Cloud:
    """What Nova says; nothing but the two hosts unless it is given."""
    return nova.Cloud(
        **{
            "computes": (compute("a"), compute("b")),
            "servers": (),
            "migrations": (),
            "aggregates": (),
            "server_groups": (),
            "zones_known": True,
            **fields,
        }
    )


def scope(*hosts: str, whole: bool = False, servers: Any = ()) -> Any:
    """Watcher's model of these hosts."""
    return compute_model.Scope(
        hosts=frozenset(f"{name}-id" for name in hosts),
        instances=dict.fromkeys(servers, False),
        whole=whole,
    )


def providers(
    consumers: Any = None, *, changed: Any = (), **allocated: int
) -> placement.Providers:
    """What Placement says: {consumer: host of its two Gold units}."""
    return placement.Providers(
        providers=tuple(
            root(name, allocated={GOLD: allocated.get(name, 0)})
            for name in ("a", "b")
        ),
        consumers={
            consumer: {f"{host}-id": {GOLD: 2}}
            for consumer, host in (consumers or {}).items()
        },
        changed=frozenset(changed),
    )


def assemble(
    scoped: Any, told: nova.Cloud, held: placement.Providers
) -> model.Cluster:
    return snapshot.assemble(scoped, told, held, builders.BUILT_IN_TIERS)


def findings(cluster: model.Cluster, kind: str) -> dict[str, str]:
    return {f.subject: f.text for f in cluster.findings if f.kind == kind}


# Watcher's model.


@pytest.mark.parametrize(
    ("scoped", "missing"),
    [
        (scope("a", "b", whole=True), []),
        (scope("a", whole=True), ["b"]),
        (scope("a"), []),
    ],
    ids=["all", "one", "an-audit-with-a-scope"],
)
def test_a_host_that_watcher_has_lost_is_reported(
    scoped: Any, missing: list[str]
) -> None:
    """Only where the audit names no scope is its absence a loss."""
    found = snapshot.missing_hosts(scoped, cloud())
    assert [host.name for host in found] == missing
    cluster = assemble(scoped, cloud(), providers())
    told = findings(cluster, "host_not_in_model")
    assert list(told) == missing
    assert all("DISK_GB" in text for text in told.values())


# Hosts out of scope.


def test_hosts_out_of_scope_are_not_in_doubt() -> None:
    """Nothing is decided on b, whoever holds units there."""
    told = cloud(
        servers=(server("i", "a"), server("j", "b")),
        migrations=(migration("m", "j", "running", "b", "a"),),
    )
    held = providers(a=3, b=7)
    for scoped, doubtful in (
        (scope("a", "b"), {"a-id", "b-id"}),
        (scope("b"), {"b-id"}),
        (scope(), set()),
    ):
        cluster = assemble(scoped, told, held)
        assert snapshot.in_doubt(cluster, told) == doubtful


def test_a_provider_is_looked_for_in_scope_only() -> None:
    """What Placement's answer leaves out elsewhere was not asked for."""
    none = placement.Providers(providers=(root("a"),), consumers={})
    for scoped, lost in ((scope("a", "b"), ["b"]), (scope("a"), [])):
        cluster = assemble(scoped, cloud(), none)
        assert list(findings(cluster, "host_without_provider")) == lost


# Hosts that changed while they were read.


@pytest.mark.parametrize(
    ("changed", "asked"),
    [((), []), (("a-id",), ["i", "k"]), (("b-id",), ["j", "k"])],
    ids=["none", "a", "b"],
)
def test_servers_of_a_host_that_changed_are_asked_for_again(
    changed: Any, asked: list[str]
) -> None:
    """Those listed there, and k, that has gone there since."""
    told = cloud(
        servers=(server("i", "a"), server("j", "b"), server("k", "b"))
    )
    held = providers({"i": "a", "j": "b", "k": "a"}, changed=changed)
    assert list(snapshot.outdated(told, held)) == asked


# Cells that do not answer.


def test_a_host_of_a_cell_that_is_down_takes_no_part() -> None:
    told = cloud(unreachable_hosts=frozenset({"b", "dark"}))
    cluster = assemble(scope("a", "b"), told, providers())
    assert [h.name for h in cluster.hosts if h.in_scope] == ["a"]
    found = findings(cluster, "cell_unreachable")
    assert list(found) == ["b", "dark"]
    assert "takes no part" in found["b"]


def test_a_server_of_a_cell_that_is_down_is_no_orphan() -> None:
    """Its allocation must not be called a thing to be deleted.

    The host that it holds units on is not judged, for what else runs there
    is not known either.
    """
    told = cloud(unreachable=frozenset({"x"}))
    held = providers({"x": "b"})
    assert snapshot.unexplained(told, held) == ()
    cluster = assemble(scope("a", "b"), told, held)
    assert findings(cluster, "orphan_allocation") == {}
    assert [h.name for h in cluster.hosts if h.in_scope] == ["a"]
    found = findings(cluster, "cell_unreachable")
    assert list(found) == ["b", "servers"]
    assert "1 servers are in a cell" in found["servers"]
