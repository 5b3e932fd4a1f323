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

"""All readers together: the way from a connection to a Cluster.

Nova is read first, its migrations before its servers, then Placement. What
changes in between shows as a consumer that Nova's lists do not explain; for
those Nova is asked once more before anybody calls them orphans. It is asked
again about the servers of a host, too, whose provider tree has changed
between the survey and the details.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
import concurrent.futures
import contextlib
import dataclasses
import gc
import threading
import time
from typing import Any

from keystoneauth1 import adapter as ksa_adapter
from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import accounting
from watcher_cputier import constraints
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.constraints import capacity
from watcher_cputier.datasources import candidates
from watcher_cputier.datasources import compute_model
from watcher_cputier.datasources import images
from watcher_cputier.datasources import neutron
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import placement
from watcher_cputier.datasources import service
from watcher_cputier.datasources import snapshot

# Requests that are sent at once where one is not enough.
WORKERS = 8
# A flavor's request, as Placement is asked.
_Request = tuple[tuple[str, str], ...]


def connection(osc: Any, conf: cfg.ConfigOpts) -> sdk.Connection:
    """A connection with Watcher's own credentials, region and interface.

    :param osc: a ``watcher.common.clients.OpenStackClients``
    """
    options: dict[str, Any] = {}
    for name, sections in (
        ("compute", ("nova", "nova_client")),
        ("placement", ("placement", "placement_client")),
        ("network", ("neutron", "neutron_client")),
        ("image", ("glance", "glance_client")),
        ("block_storage", ("cinder", "cinder_client")),
    ):
        options.update(_adapter_options(conf, name, sections))
    # A Watcher without options for one of the others has it where Nova is.
    for name in ("region_name", "interface"):
        if f"compute_{name}" in options:
            for other in ("network", "image", "block_storage"):
                options.setdefault(
                    f"{other}_{name}", options[f"compute_{name}"]
                )
    return sdk.Connection(session=osc.session, **options)


def _adapter_options(
    conf: cfg.ConfigOpts, service: str, sections: tuple[str, ...]
) -> dict[str, Any]:
    """Region and interface of a service, whichever release named them.

    Watcher before 2026.1 has them in ``[nova_client]`` and
    ``[placement_client]``, later ones in ``[nova]`` and ``[placement]``.
    """
    found: dict[str, Any] = {}
    for section in sections:
        if section not in conf:
            continue
        group = conf[section]
        for option, name in (
            ("region_name", "region_name"),
            ("interface", "interface"),
            ("endpoint_type", "interface"),
            ("endpoint_override", "endpoint_override"),
        ):
            value = group.get(option) if option in group else None
            if option == "endpoint_type" and value:
                # Watcher's old default is written publicURL.
                value = value.removesuffix("URL")
            if value:
                found.setdefault(f"{service}_{name}", value)
        interfaces = (
            group.valid_interfaces if "valid_interfaces" in group else None
        )
        if interfaces:
            found.setdefault(f"{service}_interface", next(iter(interfaces)))
    return found


def _adapter(
    connected: sdk.Connection, service_type: str
) -> ksa_adapter.Adapter:
    """An adapter for a service, as the connection is configured.

    Not the connection's own proxy: that looks for versions as soon as it is
    named, and fails in words of its own.
    """
    region = connected.config
    return ksa_adapter.Adapter(
        session=region.get_session(),
        service_type=service_type,
        interface=region.get_interface(service_type),
        region_name=region.get_region_name(service_type),
        endpoint_override=region.get_endpoint(service_type),
    )


def _classes(catalogue: tiers_conf.Catalogue) -> list[str]:
    """The classes that tiers may be counted by."""
    found = [tier.resource_class for tier in catalogue.tiers]
    shares = catalogue.shares_class
    return [*found, *((shares,) if shares else accounting.SHARES_CLASSES)]


_collecting = threading.Lock()
_readers: list[tuple[int, int, int]] = []


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Collect garbage seldom while a large cloud's records pile up.

    None of them is garbage, and looking through all of them time and again
    takes as long as making them. Audits overlap: the first to enter saves
    the process's thresholds, the last to leave restores them.
    """
    with _collecting:
        _readers.append(_readers[0] if _readers else gc.get_threshold())
        gc.set_threshold(200_000, 50, 100)
    try:
        yield
    finally:
        with _collecting:
            before = _readers.pop()
            if not _readers:
                gc.set_threshold(*before)


class Reader:
    """Reads a whole cloud through one connection."""

    def __init__(self, connected: sdk.Connection) -> None:
        self.nova = nova.Nova(_adapter(connected, "compute"))
        self.placement = placement.Placement(_adapter(connected, "placement"))
        self.neutron = neutron.Neutron(_adapter(connected, "network"))
        self.images = images.Images(
            _adapter(connected, "image"), _adapter(connected, "block-storage")
        )
        self._picture: _Picture | None = None
        # Reading time that is left, once a cluster was read.
        self._left_seconds: float | None = None
        # What was added to the picture, and goes with every new one.
        self._added: Callable[[model.Cluster], model.Cluster] | None = None

    def check_access(self) -> None:
        """Try every kind of request that reading needs (R79).

        :raises ServiceError: that names all that is missing
        """
        missing: list[errors.ServiceError] = []
        for one in (self.nova, self.placement, self.neutron):
            if not any(isinstance(exc, service.OutOfTime) for exc in missing):
                missing += one.check_access()
        if len(missing) == 1:
            raise missing[0]
        if missing:
            raise errors.ServiceError("; ".join(str(exc) for exc in missing))

    def get_cluster(
        self,
        scope: Callable[[], compute_model.Scope],
        catalogue: tiers_conf.Catalogue,
        *,
        refresh: Callable[[], None] | None = None,
        details: Callable[[model.Cluster], Iterable[str]] | None = None,
        history_seconds: int | None = None,
    ) -> model.Cluster:
        """Read and put together the whole picture.

        :param scope: gives the audit's scope, called again after a refresh
        :param catalogue: the tiers
        :param refresh: synchronises Watcher's model; called once, if hosts
            in scope hold servers that it does not know, or if it lacks hosts
            and the audit names no scope
        :param details: names the hosts (uuids) whose totals, unit rules and
            allocations the decision turns on, besides those in doubt
        :param history_seconds: how far back the history of instances is
            read; None to leave it
        :raises TierError: if it cannot look
        """
        with few_collections(), self._reading():
            return self._get_cluster(
                scope, catalogue, refresh, details, history_seconds
            )

    def with_more(
        self,
        cluster: model.Cluster,
        more: Callable[[model.Cluster], model.Cluster],
    ) -> model.Cluster:
        """The cluster with what others have read about it.

        :param more: adds it; it is called again for the clusters that come
            of reading further details, which have the same instances
        """
        self._added = more
        return more(cluster)

    def get_actions(
        self, instances: Iterable[model.Instance], history_seconds: int
    ) -> tuple[model.Change, ...]:
        """What was done to some instances of late, by instance, then time.

        :raises ServiceError: if Nova cannot be asked
        """
        since = int(time.time()) - history_seconds
        with (
            self._reading(),
            concurrent.futures.ThreadPoolExecutor(WORKERS) as pool,
        ):
            found = pool.map(
                lambda uuid: self.nova.get_actions(uuid, since),
                sorted(instance.uuid for instance in instances),
            )
            return tuple(change for changes in found for change in changes)

    def get_candidates(
        self, cluster: model.Cluster, hosts: Iterable[model.Host]
    ) -> model.Cluster:
        """The cluster with details of further hosts that a plan empties.

        Instances that make room for others leave hosts that are within their
        quotas: what ties those, and what they hold, was not asked about yet.

        :param hosts: where the instances of a plan are
        :returns: the same cluster if all are known in detail
        :raises TierError: if it cannot look
        """
        picture = self._picture
        assert picture is not None  # the cluster came from here
        if not picture.lacks(host.uuid for host in hosts):
            return cluster
        with few_collections(), self._reading():
            found = dataclasses.replace(
                picture.settled(), admissions=cluster.admissions
            )
            return found if self._added is None else self._added(found)

    def next_deadline(self) -> float | None:
        """When the time for reading is over, if somebody reads on now."""
        if self._left_seconds is None:
            return None
        return time.monotonic() + self._left_seconds

    def spend(self, seconds: float) -> None:
        """Others have read for so long, out of the same budget."""
        if self._left_seconds is not None:
            self._left_seconds -= seconds

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Reading time runs; that of planning in between does not count."""
        if self._left_seconds is not None:
            self._set_deadline(time.monotonic() + self._left_seconds)
        try:
            yield
        finally:
            deadline = self.placement.service.deadline
            if deadline is not None:
                self._left_seconds = deadline - time.monotonic()

    def _get_cluster(
        self,
        scope: Callable[[], compute_model.Scope],
        catalogue: tiers_conf.Catalogue,
        refresh: Callable[[], None] | None,
        details: Callable[[model.Cluster], Iterable[str]] | None,
        history_seconds: int | None,
    ) -> model.Cluster:
        taken_at = int(time.time())
        deadline = time.monotonic() + catalogue.read_timeout_seconds
        self._set_deadline(deadline)
        self.check_access()
        # Watcher may build its model for this: not our reading.
        started = time.monotonic()
        scoped = scope()
        deadline += time.monotonic() - started
        self._set_deadline(deadline)
        cloud = self.nova.get_cloud(
            None if history_seconds is None else taken_at - history_seconds
        )
        if refresh is not None and (
            snapshot.strangers(scoped, cloud)
            or snapshot.missing_hosts(scoped, cloud)
        ):
            started = time.monotonic()
            refresh()
            scoped = scope()
            self._set_deadline(deadline + time.monotonic() - started)
        providers = self.placement.get_survey(
            (c.uuid for c in cloud.computes if c.uuid in scoped.hosts),
            _classes(catalogue),
        )

        self._picture = _Picture(
            self, scoped, catalogue, cloud, providers, details, taken_at
        )
        return self._picture.settled()

    def _set_deadline(self, deadline: float) -> None:
        for one in self._services:
            one.deadline = deadline

    def up_to_date(
        self, cloud: nova.Cloud, providers: placement.Providers
    ) -> nova.Cloud:
        """What Nova says, asked again where Placement says otherwise.

        Consumers that its lists do not explain are servers that it does not
        list, or servers and migrations made since; what remains is an orphan.
        Servers of hosts that have changed since may have gone elsewhere.
        """
        outdated = snapshot.outdated(cloud, providers)
        if outdated:
            cloud = self._with_migrations(cloud)
        asked = [*outdated, *snapshot.unexplained(cloud, providers)]
        unreachable = set(cloud.unreachable)
        told: dict[str, nova.Server | None] = {}
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            for uuid, found in zip(
                asked, pool.map(self._get_server, asked), strict=True
            ):
                if isinstance(found, nova.CellDown):
                    unreachable.add(uuid)
                    told[uuid] = None
                else:
                    told[uuid] = found
        servers = {s.uuid: s for s in cloud.servers if s.uuid not in told}
        servers.update((u, found) for u, found in told.items() if found)
        cloud = dataclasses.replace(
            cloud,
            servers=tuple(
                sorted(servers.values(), key=lambda s: (s.name, s.uuid))
            ),
            unreachable=frozenset(unreachable),
        )
        if snapshot.unexplained(cloud, providers):
            cloud = self._with_migrations(cloud)
        return cloud

    def _get_server(self, uuid: str) -> nova.Server | nova.CellDown | None:
        try:
            return self.nova.get_server(uuid)
        except nova.CellDown as exc:
            return exc

    def _with_migrations(self, cloud: nova.Cloud) -> nova.Cloud:
        """With the migrations of now.

        One that was in flight before may have held what Placement told, even
        if it is over by now.
        """
        found = {m.uuid: m for m in self.nova.get_migrations()}
        found.update((m.uuid, m) for m in cloud.migrations if m.in_flight)
        return dataclasses.replace(
            cloud, migrations=tuple(found[uuid] for uuid in sorted(found))
        )

    @property
    def reading(self) -> Mapping[str, Mapping[str, float]]:
        """What reading took so far, by service, for documents."""
        return {
            one.name: {
                "requests": one.tally.requests,
                "seconds": round(one.tally.seconds, 3),
                "received_bytes": one.tally.received_bytes,
            }
            for one in self._services
            if one.tally.requests
        }

    @property
    def cost(self) -> str:
        """What reading took so far, by service, for the log."""
        return ", ".join(
            f"{one.name} {one.tally}"
            for one in self._services
            if one.tally.requests
        )

    @property
    def _services(self) -> tuple[service.Service, ...]:
        return (
            self.nova.service,
            self.placement.service,
            self.neutron.service,
            self.images.glance,
            self.images.cinder,
        )

    def get_admissions(
        self,
        cluster: model.Cluster,
        proposed: Iterable[tuple[model.Flavor, model.Host]],
    ) -> model.Cluster:
        """The cluster with Placement's word on proposed flavors and hosts.

        Placement offers what has room now. A plan may make the room: a
        target that is full so far is judged by its inventories' unit rules,
        as Placement would judge it when it is empty.

        :returns: the same cluster if it has been asked for all of them
        :raises ServiceError: if Placement cannot be asked
        """
        due: dict[_Request, tuple[model.Flavor, list[model.Host]]] = {}
        for flavor, host in proposed:
            known = cluster.admissions.get(flavor.request)
            if known is None or known.verdict(host.uuid) is None:
                due.setdefault(flavor.request, (flavor, []))[1].append(host)
        if not due:
            return cluster
        with self._reading():
            admissions = self._admissions(cluster, due)
        return dataclasses.replace(
            cluster, admissions=model.frozen_map(admissions)
        )

    def _admissions(
        self,
        cluster: model.Cluster,
        due: Mapping[_Request, tuple[model.Flavor, list[model.Host]]],
    ) -> dict[_Request, model.Admission]:
        """Those of the cluster, and what is due of flavors and hosts."""
        taken = planner.Books(cluster)
        admissions = dict(cluster.admissions)
        for request, (flavor, hosts) in sorted(due.items()):
            found = admissions.get(request, model.Admission())
            roomy = set(_with_room(taken, flavor, hosts))
            if roomy:
                found = self.placement.get_admission(
                    request,
                    found,
                    roomy,
                    _with_room(
                        taken, flavor, (h for h in cluster.hosts if h.in_scope)
                    ),
                )
            full = {h.uuid: h for h in hosts if h.uuid not in roomy}
            able = {u for u, h in full.items() if self._would_serve(flavor, h)}
            admissions[request] = dataclasses.replace(
                found,
                hosts=found.hosts | able,
                refused=found.refused | full.keys() - able,
            )
        return admissions

    def _would_serve(self, flavor: model.Flavor, host: model.Host) -> bool:
        """Whether a host would serve a flavor if nothing were taken there."""
        if not all(
            inventory.detailed
            for provider in host.providers
            for inventory in provider.inventories.values()
        ):
            known = self.placement.get_inventories(
                provider.uuid for provider in host.providers
            )
            host = dataclasses.replace(
                host,
                providers=tuple(
                    dataclasses.replace(
                        provider, inventories=known[provider.uuid]
                    )
                    for provider in host.providers
                ),
            )
        return capacity.charge(_Empty(), flavor, host) is not None


def _with_room(
    taken: constraints.Occupancy,
    flavor: model.Flavor,
    hosts: Iterable[model.Host],
) -> Iterator[str]:
    """Uuids of those hosts that could serve a flavor now."""
    for host in hosts:
        if capacity.charge(taken, flavor, host) is not None:
            yield host.uuid


class _Picture:
    """What was read so far; details are added to it."""

    def __init__(
        self,
        reader: Reader,
        scoped: compute_model.Scope,
        catalogue: tiers_conf.Catalogue,
        cloud: nova.Cloud,
        providers: placement.Providers,
        details: Callable[[model.Cluster], Iterable[str]] | None,
        taken_at: int,
    ) -> None:
        self._reader = reader
        self._taken_at = taken_at
        self._scoped = scoped
        self._catalogue = catalogue
        self._cloud = cloud
        self._providers = providers
        self._details = details or (lambda cluster: ())
        self._read: frozenset[str] = frozenset()
        # What is known in detail, as it was wanted; and what a plan wants.
        self._known: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()

    def lacks(self, hosts: Iterable[str]) -> bool:
        """Want these hosts (uuids) in detail; whether they were not yet."""
        self._wanted |= frozenset(hosts)
        return not self._wanted <= self._known

    def settled(self) -> model.Cluster:
        """The cluster, when nothing more has to be read.

        What details tell may bring further hosts into doubt or over their
        quota. Each round reads some that were not, so it ends.
        """
        cluster = self._assembled()
        while True:
            wanted: frozenset[str] = frozenset()
            due = snapshot.in_doubt(cluster, self._cloud) - self._read
            if not due:
                wanted = self._wanted.union(self._details(cluster))
                due = wanted - self._read
            if not due:
                self._known = wanted
                return candidates.Readers(
                    nova=self._reader.nova,
                    neutron=self._reader.neutron,
                    images=self._reader.images,
                    placement=self._reader.placement,
                ).completed(cluster, self._cloud, wanted)
            self._detail(cluster, due)
            cluster = self._assembled()
            self._read |= due | (self._providers.read or due)

    def _assembled(self) -> model.Cluster:
        catalogue = self._catalogue
        return snapshot.assemble(
            self._scoped,
            self._cloud,
            self._providers,
            catalogue.tiers,
            catalogue.default_tier,
            mode=catalogue.mode,
            shares_class=catalogue.shares_class,
            failure_domain_key=catalogue.failure_domain_key,
            shares_rule=catalogue.shares_rule,
            taken_at=self._taken_at,
        )

    def _detail(self, cluster: model.Cluster, roots: frozenset[str]) -> None:
        self._providers = self._reader.placement.get_details(
            self._providers,
            roots,
            (h.uuid for h in cluster.hosts if h.in_scope),
        )
        self._cloud = self._reader.up_to_date(self._cloud, self._providers)


class _Empty:
    """An occupancy of hosts where nothing is taken."""

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """None of any class."""
        return 0

    def held(self, host: str, tier: str) -> int:
        """None of any tier."""
        return 0

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Nobody."""
        return 0
