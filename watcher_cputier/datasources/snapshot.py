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

Tiers and units. An instance's tier is told from its flavor's request (see
:mod:`~watcher_cputier.accounting`), else it is the configured
default tier, else none. Where Placement has allocations for it, its word
counts and a difference is reported.

Allocations are read only for the hosts in doubt: those where the units of
the instances' flavors do not sum up to what Placement counts, those with a
migration in flight, those that must shed, and those from where a plan moves
somebody to make room. Elsewhere the two agree, and an instance holds what
its flavor asks for.

Consumers. What a migration in flight holds on its source is no instance's.
A consumer that is neither a server nor a migration in flight is an orphan,
and a server that holds units on a second host without a migration is
doubled: both are reported with what mends them, and count.

Cells that do not answer. Nova knows of such a cell which hosts and servers
are mapped to it, and no more. Its hosts are reported and take no part, nor
do hosts that its servers hold allocations on.
"""

from collections.abc import Iterable, Mapping
import dataclasses

from watcher_cputier import accounting
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import nova as nova_source
from watcher_cputier.datasources import placement as placement_source

# How many names a finding tells.
_TOLD = 10
_NOTHING: Mapping[str, Mapping[str, int]] = model.frozen_map()
_MOVING_STATUS = ("MIGRATING", "RESIZE", "REVERT_RESIZE", "VERIFY_RESIZE")
_OPT_OUT = "optimize"
_PRIORITY = "cputier:priority"
_MULTIPLIER_SPEC = "quota:cpu_shares_multiplier"


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


def missing_hosts(
    scope: compute_model.Scope, cloud: nova_source.Cloud
) -> tuple[nova_source.Compute, ...]:
    """Hosts that Watcher's model lacks although the audit names no scope."""
    if not scope.whole:
        return ()
    return tuple(c for c in cloud.computes if c.uuid not in scope.hosts)


def unexplained(
    cloud: nova_source.Cloud, providers: placement_source.Providers
) -> tuple[str, ...]:
    """Consumers that are neither a listed server nor in flight, by uuid."""
    known = {server.uuid for server in cloud.servers} | cloud.unreachable
    known |= {m.uuid for m in cloud.migrations if m.in_flight}
    return tuple(sorted(set(providers.consumers) - known))


def outdated(
    cloud: nova_source.Cloud, providers: placement_source.Providers
) -> tuple[str, ...]:
    """Servers that Nova was asked about before their host changed, by uuid.

    Those listed on a host whose tree has changed, and those that hold units
    there now.
    """
    if not providers.changed:
        return ()
    names = {c.name for c in cloud.computes if c.uuid in providers.changed}
    changed = {
        p.uuid for p in providers.providers if p.root_uuid in providers.changed
    }
    return tuple(
        sorted(
            server.uuid
            for server in cloud.servers
            if server.host in names
            or changed & providers.consumers.get(server.uuid, {}).keys()
        )
    )


def in_doubt(
    cluster: model.Cluster, cloud: nova_source.Cloud
) -> frozenset[str]:
    """Uuids of hosts in scope whose allocations must be read to judge them.

    :param cluster: assembled from flavors and Placement's totals
    """
    asked: dict[tuple[str, str], int] = {}
    classes = {tier.resource_class for tier in cluster.tiers}
    for instance in cluster.instances:
        for name, amount in instance.flavor.resources.items():
            if name in classes:
                key = (instance.host, name)
                asked[key] = asked.get(key, 0) + amount
    moving = {
        name
        for migration in cloud.migrations
        if migration.in_flight
        for name in (migration.source, migration.target)
    }
    return frozenset(
        host.uuid
        for host in cluster.hosts
        if host.in_scope
        and host.providers
        and (
            host.name in moving
            or any(
                _used(host, name) != asked.get((host.name, name), 0)
                for name in classes
            )
        )
    )


def _used(host: model.Host, resource_class: str) -> int:
    return sum(p.allocated.get(resource_class, 0) for p in host.providers)


def assemble(
    scope: compute_model.Scope,
    cloud: nova_source.Cloud,
    providers: placement_source.Providers,
    tiers: tuple[model.Tier, ...],
    default_tier: str | None = None,
    *,
    mode: str = "auto",
    shares_class: str | None = None,
    failure_domain_key: str = "",
    shares_rule: model.SharesRule | None = None,
    taken_at: int | None = None,
) -> model.Cluster:
    """Put the answers together; pure, whatever order they came in.

    :param mode: ``auto``, ``classes`` or ``shares``
    :param shares_class: the class of single-class mode, if it has a name
        of its own
    :param failure_domain_key: metadata of aggregates that names what fails
        together
    :param shares_rule: what weights domains have
    :param taken_at: when it was read, in seconds since the epoch
    """
    # A class on hosts that the audit does not look at judges nothing.
    roots = {c.uuid for c in cloud.computes} & scope.hosts
    present = frozenset(
        name
        for provider in providers.providers
        if not roots or provider.root_uuid in roots
        for name in provider.inventories
    )
    counting = accounting.choose(tiers, present, mode, shares_class)
    made = _Assembly(
        scope,
        cloud,
        providers,
        counting,
        present,
        default_tier,
        failure_domain_key,
    ).cluster()
    uuids = {one.uuid for one in made.instances} if cloud.changes else ()
    return dataclasses.replace(
        made,
        shares_rule=shares_rule or model.SharesRule(),
        changes=tuple(
            change for change in cloud.changes if change.instance in uuids
        ),
        taken_at=taken_at,
    )


class _Assembly:
    """The working state of one :func:`assemble`."""

    def __init__(
        self,
        scope: compute_model.Scope,
        cloud: nova_source.Cloud,
        providers: placement_source.Providers,
        counting: accounting.Accounting,
        present: frozenset[str],
        default_tier: str | None,
        failure_domain_key: str,
    ) -> None:
        self.scope = scope
        self.cloud = cloud
        self.providers = providers
        self.consumers = providers.consumers
        self.counting = counting
        self.tiers = counting.tiers
        self.tier_classes = counting.classes & present
        self.default_tier = default_tier
        self.findings: list[model.Finding] = []
        self.asked_by: dict[int, accounting.Claim | None] = {}
        self.provider_by_uuid = {p.uuid: p for p in providers.providers}
        self.trees: dict[str, list[model.Provider]] = {}
        for provider in providers.providers:
            self.trees.setdefault(provider.root_uuid, []).append(provider)
        self.in_flight = {m.uuid for m in cloud.migrations if m.in_flight}
        busy = {s.uuid for s in cloud.servers if s.task_state} | {
            s.uuid for s in cloud.servers if s.status in _MOVING_STATUS
        }
        # A record that nothing else bears out is left over.
        self.moving = {
            m.server
            for m in cloud.migrations
            if m.in_flight
            and (m.uuid in providers.consumers or m.server in busy)
        }
        self.host_of_root = {c.uuid: c.name for c in cloud.computes}
        self.zone_of_host = {c.name: c.zone for c in cloud.computes}
        self.domain_of_host = {
            name: aggregate.metadata[failure_domain_key]
            for aggregate in cloud.aggregates
            if failure_domain_key in aggregate.metadata
            for name in aggregate.hosts
        }
        self.read_hosts = {
            c.name for c in cloud.computes if providers.has_read(c.uuid)
        }
        # By Nova's word, or by those of its servers that we know to be there.
        self.unreachable_hosts = cloud.unreachable_hosts | {
            self.host_of_root[root]
            for uuid in cloud.unreachable
            for provider in self.consumers.get(uuid, ())
            if (root := self.provider_by_uuid[provider].root_uuid)
            in self.host_of_root
        }

    def cluster(self) -> model.Cluster:
        """The cluster, with everything odd about it found."""
        names = [compute.name for compute in self.cloud.computes]
        hosts = tuple(
            self._host(compute, unique=names.count(compute.name) == 1)
            for compute in self.cloud.computes
        )
        instances = tuple(
            self._instance(server)
            for server in self.cloud.servers
            if server.host
        )
        self._report_duplicates(hosts)
        self._report_stale_providers(hosts)
        self._report_orphans()
        self._report_unrequested(hosts, instances)
        self._report_half_enabled(hosts, instances)
        self._report_limit()
        self._report_unreachable()
        self._report_missing_hosts()
        return model.Cluster(
            tiers=self.tiers,
            hosts=hosts,
            instances=instances,
            held=model.frozen_map(self._held(instances)),
            tier_classes=self.tier_classes,
            shares_class=self.counting.shares_class,
            aggregates=self.cloud.aggregates,
            server_groups=self.cloud.server_groups,
            findings=tuple(
                sorted(
                    self.findings, key=lambda f: (f.kind, f.subject, f.text)
                )
            ),
        )

    def _requested(self, flavor: model.Flavor) -> accounting.Claim | None:
        """What a flavor requests; many instances share one."""
        key = id(flavor)
        if key not in self.asked_by:
            self.asked_by[key] = self.counting.asked(flavor)
        return self.asked_by[key]

    def _find(self, kind: str, subject: str, text: str) -> None:
        self.findings.append(
            model.Finding(kind=kind, subject=subject, text=text)
        )

    # Hosts

    def _host(self, compute: nova_source.Compute, unique: bool) -> model.Host:
        """A host; one whose name another claims too takes no part."""
        tree = self.trees.get(compute.uuid, [])
        in_scope = compute.uuid in self.scope.hosts
        if in_scope and not tree:
            self._find(
                "host_without_provider",
                compute.name,
                f"Placement has no resource provider for host {compute.name} "
                f"({compute.uuid}): it takes no part. Check that its "
                "nova-compute runs and reports.",
            )
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
                self.provider_by_uuid[uuid]
                for uuid in self.providers.shared.get(compute.uuid, ())
                if uuid in self.provider_by_uuid
            ),
            enabled=compute.enabled,
            up=compute.up,
            disabled_reason=compute.disabled_reason,
            hypervisor_type=compute.hypervisor_type,
            hypervisor_version=compute.hypervisor_version,
            vcpus=compute.vcpus,
            zone=compute.zone,
            failure_domain=self.domain_of_host.get(compute.name, compute.zone),
            in_scope=in_scope
            and unique
            and compute.name not in self.unreachable_hosts,
        )

    # Instances

    def _instance(self, server: nova_source.Server) -> model.Instance:
        claim = self._judge(server)
        return model.Instance(
            uuid=server.uuid,
            name=server.name,
            host=server.host,
            flavor=server.flavor,
            project=server.project,
            tier=claim.tier,
            units=claim.units,
            allocations=self.consumers.get(server.uuid, _NOTHING),
            status=server.status,
            task_state=server.task_state,
            locked=server.locked,
            known=server.uuid in self.scope.instances,
            excluded=self.scope.instances.get(server.uuid, False),
            opted_out=server.metadata.get(_OPT_OUT, "").lower() == "false",
            priority=self._priority(server),
            pinned_zone=(
                server.pinned_zone
                if self.cloud.zones_known
                # Where Nova does not tell, an instance stays in its zone.
                else self.zone_of_host.get(server.host)
            ),
            image_properties=server.image_properties,
            different_host=server.different_host,
            same_host=server.same_host,
            in_doubt=claim.doubt,
        )

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

    def _judge(self, server: nova_source.Server) -> accounting.Claim:
        """The tier and the units that an instance counts with."""
        asked = self._asked(server.flavor)
        if not self._placed_by_class(asked.tier):
            return asked
        here, elsewhere = self._placed(server)
        doubt = self._doubled(server, elsewhere) or asked.doubt
        if server.host not in self.read_hosts:
            # Flavors and Placement's totals agree: flavors tell.
            requested = self._requested(server.flavor) is not None
            return accounting.Claim(
                asked.tier,
                asked.units if requested else 0,
                doubt,
            )
        if server.uuid in self.moving:
            # Its allocations are between two hosts; it stays what its
            # flavor says and is no candidate.
            return accounting.Claim(
                asked.tier,
                here.get(asked.tier, 0),
                "a migration of it is in progress",
            )
        if not here:
            self._report_unshaped(server, asked)
            return accounting.Claim(asked.tier, 0, doubt)
        if here != {asked.tier: asked.units}:
            self._report_difference(server, asked, here)
        if len(here) > 1:
            doubt = doubt or "it holds units of more than one tier"
        tier = asked.tier if asked.tier in here else next(iter(here))
        return accounting.Claim(tier, here[tier], doubt)

    def _placed_by_class(self, tier: str | None) -> bool:
        """Whether Placement can count a tier: some host has its class."""
        if tier is None:
            return bool(self.tier_classes)
        return self._class_of(tier) in self.tier_classes

    def _asked(self, flavor: model.Flavor) -> accounting.Claim:
        """Tier and units by the flavor and the configuration alone."""
        claim = self._requested(flavor)
        if claim is not None:
            return claim
        tier = None
        if not self.tier_classes:
            tier = accounting.by_shares(self.tiers, flavor)
        tier = tier or self.default_tier
        return accounting.Claim(tier, flavor.vcpus if tier else 0)

    def _placed(
        self, server: nova_source.Server
    ) -> tuple[dict[str | None, int], list[str]]:
        """Units by tier on its host, and other hosts it holds any on."""
        resources: dict[str, int] = {}
        elsewhere = set()
        for uuid, held in self.consumers.get(server.uuid, {}).items():
            provider = self.provider_by_uuid[uuid]
            name = self.host_of_root.get(provider.root_uuid)
            if name is not None and name != server.host:
                elsewhere.add(name)
            elif name is not None:
                for resource_class, amount in held.items():
                    resources[resource_class] = (
                        resources.get(resource_class, 0) + amount
                    )
        here = self.counting.held(resources, server.flavor.vcpus)
        return here, sorted(elsewhere)

    def _held(
        self, instances: Iterable[model.Instance]
    ) -> dict[tuple[str, str], int]:
        """Units that count against the quotas, per host and account."""
        found: dict[tuple[str, str], int] = {}

        def add(host: str, account: str, units: int) -> None:
            found[host, account] = found.get((host, account), 0) + units

        for provider, held in self._holdings():
            host = self.host_of_root.get(provider.root_uuid)
            for account, units in self.counting.totals(held).items():
                if host is not None:
                    add(host, account, units)
        # What Placement does not count by tier, the instances tell.
        for instance in instances:
            if instance.tier is not None and (
                self.counting.shares_class is not None
                or not self._placed_by_class(instance.tier)
            ):
                add(instance.host, instance.tier, instance.units)
        return found

    def _holdings(
        self,
    ) -> Iterable[tuple[model.Provider, Mapping[str, int]]]:
        """All that is allocated, migrations in flight left out."""
        for provider in self.provider_by_uuid.values():
            if not self.providers.has_read(provider.root_uuid):
                yield provider, provider.allocated
        for consumer, allocations in self.consumers.items():
            if consumer in self.in_flight:
                continue
            for uuid, held in allocations.items():
                yield self.provider_by_uuid[uuid], held

    def _class_of(self, tier: str) -> str:
        return next(t.resource_class for t in self.tiers if t.name == tier)

    # What is odd

    def _doubled(
        self, server: nova_source.Server, elsewhere: Iterable[str]
    ) -> str:
        """Report what it holds on other hosts; empty if nothing is odd."""
        if not elsewhere or server.uuid in self.moving:
            return ""
        names = ", ".join(elsewhere)
        self._find(
            "doubled_allocation",
            server.name,
            f"Instance {server.name} ({server.uuid}) runs on {server.host} "
            f"and also holds allocations on {names} without a migration. "
            "Check with `openstack resource provider allocation show "
            f"{server.uuid}` and mend with `nova-manage placement "
            "heal_allocations --force --instance "
            f"{server.uuid}` or by deleting what is stale.",
        )
        return f"it also holds allocations on {names} without a migration"

    def _report_unshaped(
        self, server: nova_source.Server, asked: accounting.Claim
    ) -> None:
        """It asks for units and holds none: from before the class (R37)."""
        if self._requested(server.flavor) is None:
            return
        self._find(
            "never_reshaped",
            server.name,
            f"Instance {server.name} ({server.uuid}) asks for {asked.units} "
            f"{asked.tier} units by its flavor and holds none on "
            f"{server.host}: Placement does not count it. Mend with "
            "`nova-manage placement heal_allocations --force --instance "
            f"{server.uuid}`.",
        )

    def _report_difference(
        self,
        server: nova_source.Server,
        asked: accounting.Claim,
        here: Mapping[str | None, int],
    ) -> None:
        """Its flavor changed without a resize, or the other way (R19)."""
        said = ", ".join(f"{n} {t or 'untiered'}" for t, n in here.items())
        wants = (
            f"{asked.units} {asked.tier or 'untiered'}"
            if asked.units
            else "none"
        )
        self._find(
            "flavor_and_allocation_differ",
            server.name,
            f"Instance {server.name} ({server.uuid}) holds {said} units on "
            f"{server.host}, its flavor asks for {wants}: what it holds "
            "counts. A resize to the right flavor mends it.",
        )

    def _report_duplicates(self, hosts: Iterable[model.Host]) -> None:
        seen: dict[str, model.Host] = {}
        for host in hosts:
            other = seen.setdefault(host.name, host)
            if other is not host:
                self._find(
                    "duplicate_host",
                    host.name,
                    f"Two hypervisors claim the host name {host.name} "
                    f"({other.uuid} and {host.uuid}): neither takes part. "
                    "Delete the stale one from Nova and Placement.",
                )

    def _report_stale_providers(self, hosts: Iterable[model.Host]) -> None:
        """Left over from a host that was renamed or made anew."""
        known = {host.uuid for host in hosts}
        names = {name for h in hosts for name in (h.name, h.node_name)}
        for provider in self.provider_by_uuid.values():
            if (
                provider.name in names
                and provider.uuid == provider.root_uuid
                and provider.uuid not in known
            ):
                self._find(
                    "stale_provider",
                    provider.name,
                    f"Resource provider {provider.name} ({provider.uuid}) has "
                    "the name of a host and belongs to none: what is "
                    "allocated there is lost to that host. Move the "
                    "allocations (`nova-manage placement heal_allocations`) "
                    "and delete it (`openstack resource provider delete "
                    f"{provider.uuid}`).",
                )

    def _report_orphans(self) -> None:
        for uuid in unexplained(self.cloud, self.providers):
            names = sorted(
                {self.provider_by_uuid[p].name for p in self.consumers[uuid]}
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
            requests = self._requested(instance.flavor) is not None
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
                f"bypass its quota and {counts_as}: "
                f"{errors.some(names, _TOLD)}. Give "
                "their flavors a request for a tier's class.",
            )

    def _report_half_enabled(
        self,
        hosts: Iterable[model.Host],
        instances: Iterable[model.Instance],
    ) -> None:
        """Single-class mode, reported or requested by halves (R34-R38)."""
        name = self.counting.shares_class
        if name is None or not self.tier_classes:
            return
        lacking = [
            host.name
            for host in hosts
            if host.in_scope and host.capacity(name) is None
        ]
        if lacking:
            self._find(
                "shares_not_reported",
                name,
                f"Some hosts report {name} and others do not: "
                f"{errors.some(lacking, _TOLD)}. "
                "Turn reporting on there, and never off "
                "again where it was on.",
            )
        unasked = [
            instance.name
            for instance in instances
            if self._requested(instance.flavor) is None
            and {accounting.SHARES_SPEC, _MULTIPLIER_SPEC}
            & instance.flavor.extra_specs.keys()
        ]
        if unasked:
            self._find(
                "shares_not_requested",
                name,
                f"Hosts report {name}, and these instances have CPU shares "
                f"by their flavors without requesting it: "
                f"{errors.some(unasked, _TOLD)}. "
                "Placement does not count them; let flavors request the "
                "class.",
            )
        odd = [
            instance.name
            for instance in instances
            if instance.units and instance.tier is None
        ]
        if odd:
            self._find(
                "unknown_multiplier",
                name,
                f"These instances hold {name} by a multiplier that is no "
                f"tier's: {errors.some(odd, _TOLD)}. "
                "Correct their flavors or add the "
                "tier.",
            )

    def _report_limit(self) -> None:
        if self.providers.limit is not None:
            self._find(
                "candidates_limited",
                "Placement",
                "Placement cuts its list of allocation candidates off at "
                f"{self.providers.limit} ([placement] "
                "max_allocation_candidates): hosts are read one by one, and "
                "Nova's scheduler does not see all of them.",
            )

    def _report_unreachable(self) -> None:
        """Cells of Nova that are down."""
        cure = "Bring the cell's database and message queue back."
        for name in sorted(self.unreachable_hosts):
            self._find(
                "cell_unreachable",
                name,
                f"Nova's cell of host {name} does not answer: what runs there "
                f"is not known, and the host takes no part. {cure}",
            )
        if self.cloud.unreachable:
            names = errors.some(sorted(self.cloud.unreachable), _TOLD)
            self._find(
                "cell_unreachable",
                "servers",
                f"{len(self.cloud.unreachable)} servers are in a cell of Nova "
                f"that does not answer, and are not judged: {names}. {cure}",
            )

    def _report_missing_hosts(self) -> None:
        """Hosts that Watcher has lost, in an audit of the whole cloud."""
        for compute in missing_hosts(self.scope, self.cloud):
            self._find(
                "host_not_in_model",
                compute.name,
                f"Host {compute.name} ({compute.uuid}) is not in Watcher's "
                "compute model, although the audit names no scope: it is "
                "neither source nor target. Watcher leaves out hosts whose "
                "provider has no DISK_GB inventory of its own, and takes a "
                "host for another one whose name contains its name; the "
                "decision engine's log says so where it builds the model. "
                "Let nova-compute report DISK_GB, or rename the host.",
            )
