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

"""The snapshot: one frozen Cluster out of what three services said.

Who is believed about what:

* Watcher's model about scope, and about nothing else;
* Nova about hosts, where instances run and in which state;
* Placement about capacity and who holds how much of it.

Tiers and units. An instance's tier is the one whose class its flavor
requests, else the configured default tier, else none. Where Placement has
allocations of a tier's class for it, its word counts and a difference is
reported. Where no host has any tier's class, the tier is told from the
flavor alone: by its request, else by ``quota:cpu_shares`` (R72, R140).

Consumers. What a migration in flight holds on its source is no instance's.
A consumer that is neither a server nor a migration in flight is an orphan,
and a server that holds units on a second host without a migration is
doubled: both are reported with what mends them, and count.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import model
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova as nova_source
from watcher_cputier.datasources import placement as placement_source

_OPT_OUT = "optimize"
_PRIORITY = "cputier:priority"
_SHARES = "quota:cpu_shares"


def strangers(
    scope: compute_model.Scope, cloud: nova_source.Cloud
) -> tuple[str, ...]:
    """Uuids of servers on hosts in scope that the model does not know."""
    names = {c.name for c in cloud.computes if c.uuid in scope.hosts}
    return tuple(
        server.uuid
        for server in cloud.servers
        if server.host in names and server.uuid not in scope.instances
    )


def assemble(
    scope: compute_model.Scope,
    cloud: nova_source.Cloud,
    providers: placement_source.Providers,
    tiers: tuple[model.Tier, ...],
    default_tier: str | None = None,
) -> model.Cluster:
    """Put the answers together; pure, whatever order they came in."""
    return _Assembly(scope, cloud, providers, tiers, default_tier).cluster()


@dataclasses.dataclass(frozen=True)
class _Judged:
    """A server with the tier and units that it counts with."""

    tier: str | None
    units: int
    in_doubt: str = ""


class _Assembly:
    """The working state of one :func:`assemble`."""

    def __init__(
        self,
        scope: compute_model.Scope,
        cloud: nova_source.Cloud,
        providers: placement_source.Providers,
        tiers: tuple[model.Tier, ...],
        default_tier: str | None,
    ) -> None:
        self.scope = scope
        self.cloud = cloud
        self.tiers = tiers
        self.default_tier = default_tier
        self.consumers = providers.consumers
        self.findings: list[model.Finding] = []
        self.provider_by_uuid = {p.uuid: p for p in providers.providers}
        self.trees: dict[str, list[model.Provider]] = {}
        for provider in providers.providers:
            self.trees.setdefault(provider.root_uuid, []).append(provider)
        self.sharing = [p for p in providers.providers if p.shares]
        self.tier_classes = frozenset(
            tier.resource_class
            for tier in tiers
            for provider in providers.providers
            if tier.resource_class in provider.inventories
        )
        self.in_flight = {m.uuid for m in cloud.migrations if m.in_flight}
        self.moving = {m.server for m in cloud.migrations if m.in_flight}

        self.host_of_root = {c.uuid: c.name for c in cloud.computes}

    def cluster(self) -> model.Cluster:
        """The cluster, with everything odd about it found."""
        hosts = tuple(self._host(c) for c in self.cloud.computes)
        instances = tuple(
            self._instance(server)
            for server in self.cloud.servers
            if server.host
        )
        self._report_duplicates(hosts)
        self._report_orphans()
        self._report_unrequested(hosts, instances)
        return model.Cluster(
            tiers=self.tiers,
            hosts=hosts,
            instances=instances,
            held=model.frozen_map(self._held(instances)),
            tier_classes=self.tier_classes,
            aggregates=self.cloud.aggregates,
            server_groups=self.cloud.server_groups,
            findings=tuple(
                sorted(
                    self.findings, key=lambda f: (f.kind, f.subject, f.text)
                )
            ),
        )

    def _find(self, kind: str, subject: str, text: str) -> None:
        self.findings.append(
            model.Finding(kind=kind, subject=subject, text=text)
        )

    def _host(self, compute: nova_source.Compute) -> model.Host:
        tree = self.trees.get(compute.uuid, [])
        if not tree:
            self._find(
                "host_without_provider",
                compute.name,
                f"Placement has no resource provider for host {compute.name} "
                f"({compute.uuid}): it takes no part. Check that its "
                "nova-compute runs and reports.",
            )
        groups = frozenset().union(*(p.aggregates for p in tree))
        return model.Host(
            uuid=compute.uuid,
            name=compute.name,
            node_name=compute.node_name,
            providers=tuple(
                sorted(
                    tree, key=lambda p: (p.uuid != p.root_uuid, p.name, p.uuid)
                )
            ),
            shared=tuple(
                provider
                for provider in self.sharing
                if provider not in tree and provider.aggregates & groups
            ),
            enabled=compute.enabled,
            up=compute.up,
            disabled_reason=compute.disabled_reason,
            zone=compute.zone,
            in_scope=compute.uuid in self.scope.hosts,
        )

    def _instance(self, server: nova_source.Server) -> model.Instance:
        judged = self._judge(server)
        return model.Instance(
            uuid=server.uuid,
            name=server.name,
            host=server.host,
            flavor=server.flavor,
            project=server.project,
            tier=judged.tier,
            units=judged.units,
            allocations=self.consumers.get(server.uuid, model.frozen_map()),
            status=server.status,
            task_state=server.task_state,
            locked=server.locked,
            known=server.uuid in self.scope.instances,
            excluded=self.scope.instances.get(server.uuid, False),
            opted_out=server.metadata.get(_OPT_OUT, "").lower() == "false",
            priority=self._priority(server),
            pinned_zone=self._pinned_zone(server),
            in_doubt=judged.in_doubt,
        )

    def _pinned_zone(self, server: nova_source.Server) -> str | None:
        """Where Nova does not tell, an instance stays in its zone."""
        if self.cloud.zones_known:
            return server.pinned_zone
        for compute in self.cloud.computes:
            if compute.name == server.host:
                return compute.zone
        return None

    def _priority(self, server: nova_source.Server) -> int:
        told = server.metadata.get(
            _PRIORITY, server.flavor.extra_specs.get(_PRIORITY, "0")
        )
        try:
            return int(told)
        except ValueError:
            self._find(
                "unreadable_priority",
                server.name,
                f"Instance {server.name}: {_PRIORITY}={told!r} is no whole "
                "number and counts as 0.",
            )
            return 0

    def _judge(self, server: nova_source.Server) -> _Judged:
        asked = self._asked(server)
        if not self.tier_classes:
            return asked
        here, elsewhere = self._placed(server)
        in_doubt = asked.in_doubt
        if elsewhere and server.uuid not in self.moving:
            in_doubt = (
                f"it also holds allocations on {', '.join(elsewhere)} without "
                "a migration"
            )
            self._find(
                "doubled_allocation",
                server.name,
                f"Instance {server.name} ({server.uuid}) runs on "
                f"{server.host} and also holds allocations on "
                f"{', '.join(elsewhere)} without a migration. Check with "
                f"`openstack resource provider allocation show {server.uuid}`"
                " and mend with `nova-manage placement audit --delete`.",
            )
        if server.uuid in self.moving:
            # Its allocations are between two hosts; it stays what its
            # flavor says and is no candidate.
            return _Judged(
                asked.tier,
                here.get(asked.tier or "", 0),
                in_doubt or "a migration of it is in progress",
            )
        return self._settle(server, asked, here, in_doubt)

    def _settle(
        self,
        server: nova_source.Server,
        asked: _Judged,
        here: Mapping[str, int],
        in_doubt: str,
    ) -> _Judged:
        """Where flavor and allocation differ, Placement's word counts."""
        held = {tier: units for tier, units in here.items() if units}
        if not held:
            if asked.tier is not None and self._requests_class(server):
                self._find(
                    "never_reshaped",
                    server.name,
                    f"Instance {server.name} ({server.uuid}) asks for "
                    f"{asked.units} {asked.tier} units by its flavor and "
                    f"holds none on {server.host}: Placement does not count "
                    "it. Mend with `nova-manage placement heal_allocations "
                    f"--instance {server.uuid} --force`.",
                )
            return _Judged(asked.tier, 0, in_doubt)
        tier = asked.tier if asked.tier in held else min(held, key=self._rank)
        if held != {asked.tier: asked.units}:
            said = ", ".join(f"{n} {t}" for t, n in sorted(held.items()))
            wants = (
                f"{asked.units} {asked.tier}" if asked.tier else "no tier"
            )
            self._find(
                "flavor_and_allocation_differ",
                server.name,
                f"Instance {server.name} ({server.uuid}) holds {said} units "
                f"on {server.host}, its flavor asks for {wants}: what it "
                "holds counts. A resize to the right flavor mends it.",
            )
        if len(held) > 1:
            in_doubt = in_doubt or "it holds units of more than one tier"
        return _Judged(tier, held[tier], in_doubt)

    def _rank(self, name: str) -> tuple[int, str]:
        return next((t.rank, t.name) for t in self.tiers if t.name == name)

    def _requests_class(self, server: nova_source.Server) -> bool:
        return any(
            tier.resource_class in server.flavor.resources
            for tier in self.tiers
        )

    def _asked(self, server: nova_source.Server) -> _Judged:
        """Tier and units by the flavor alone."""
        asked = {
            tier.name: server.flavor.resources[tier.resource_class]
            for tier in self.tiers
            if tier.resource_class in server.flavor.resources
        }
        if len(asked) > 1:
            first = min(asked, key=self._rank)
            return _Judged(
                first,
                asked[first],
                f"its flavor asks for several tiers ({', '.join(asked)})",
            )
        for name, units in asked.items():
            return _Judged(name, units)
        if not self.tier_classes:
            by_shares = self._by_shares(server)
            if by_shares is not None:
                return _Judged(by_shares, server.flavor.vcpus)
        if self.default_tier is not None:
            return _Judged(self.default_tier, server.flavor.vcpus)
        return _Judged(None, 0)

    def _by_shares(self, server: nova_source.Server) -> str | None:
        """The tier whose shares the flavor sets, per vCPU or as a whole."""
        told = server.flavor.extra_specs.get(_SHARES, "")
        if not told.isdigit():
            return None
        for vcpus in (server.flavor.vcpus, 1):
            for tier in self.tiers:
                if tier.cpu_shares * vcpus == int(told):
                    return tier.name
        return None

    def _placed(
        self, server: nova_source.Server
    ) -> tuple[dict[str, int], list[str]]:
        """Units per tier on its host, and other hosts it holds any of."""
        here: dict[str, int] = {}
        elsewhere = set()
        for uuid, held in self.consumers.get(server.uuid, {}).items():
            provider = self.provider_by_uuid[uuid]
            name = self.host_of_root.get(provider.root_uuid)
            if name is not None and name != server.host:
                elsewhere.add(name)
                continue
            for tier in self.tiers:
                units = held.get(tier.resource_class, 0)
                here[tier.name] = here.get(tier.name, 0) + units
        return here, sorted(elsewhere)

    def _held(
        self, instances: Iterable[model.Instance]
    ) -> dict[tuple[str, str], int]:
        """Units that count against the quotas, per host and tier."""
        found: dict[tuple[str, str], int] = {}
        placed = set(self.tier_classes)
        for uuid, allocations in self.consumers.items():
            if uuid in self.in_flight:
                continue
            for provider, held in allocations.items():
                root = self.provider_by_uuid[provider].root_uuid
                host = self.host_of_root.get(root)
                for tier in self.tiers:
                    units = held.get(tier.resource_class, 0)
                    if host is not None and units:
                        key = (host, tier.name)
                        found[key] = found.get(key, 0) + units
        for instance in instances:
            tier_name = instance.tier
            if tier_name is None:
                continue
            tier = next(t for t in self.tiers if t.name == tier_name)
            if tier.resource_class not in placed:
                key = (instance.host, tier_name)
                found[key] = found.get(key, 0) + instance.units
        return found

    def _report_duplicates(self, hosts: Iterable[model.Host]) -> None:
        seen: dict[str, model.Host] = {}
        for host in hosts:
            other = seen.setdefault(host.name, host)
            if other is not host:
                self._find(
                    "duplicate_host",
                    host.name,
                    f"Two hypervisors claim the host name {host.name} "
                    f"({other.uuid} and {host.uuid}). Delete the stale one "
                    "from Nova and Placement.",
                )

    def _report_orphans(self) -> None:
        servers = {server.uuid for server in self.cloud.servers}
        for uuid, allocations in self.consumers.items():
            if uuid in servers or uuid in self.in_flight:
                continue
            names = sorted(
                {self.provider_by_uuid[p].name for p in allocations}
            )
            self._find(
                "orphan_allocation",
                uuid,
                f"Consumer {uuid} holds allocations on {', '.join(names)} "
                "and is neither a server nor a migration in progress: it "
                "counts until it is deleted. Mend with `nova-manage "
                "placement audit --delete` or `openstack resource provider "
                f"allocation delete {uuid}`.",
            )

    def _report_unrequested(
        self,
        hosts: Iterable[model.Host],
        instances: Iterable[model.Instance],
    ) -> None:
        """Instances past the accounting: no request for a tier (R46, R47)."""
        if not self.tier_classes:
            return
        scoped = {host.name for host in hosts if host.in_scope}
        found: dict[str, list[str]] = {}
        for instance in instances:
            requests = any(
                tier.resource_class in instance.flavor.resources
                for tier in self.tiers
            )
            if instance.host in scoped and not requests and not instance.units:
                found.setdefault(instance.host, []).append(instance.name)
        counts_as = (
            f"count as {self.default_tier} ([cputier] default_tier) without "
            "holding units of it"
            if self.default_tier
            else "belong to no tier"
        )
        for host, names in sorted(found.items()):
            self._find(
                "untiered_instances",
                host,
                f"{len(names)} instances on {host} request no tier's class, "
                f"bypass its quota and {counts_as}: {_some(names)}. Give "
                "their flavors a request for a tier's class.",
            )


def _some(names: list[str], limit: int = 10) -> str:
    """The first few names, and how many more there are."""
    shown = ", ".join(names[:limit])
    more = len(names) - limit
    return f"{shown} and {more} more" if more > 0 else shown
