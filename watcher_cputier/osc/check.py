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


"""``openstack tier check``: what works, what is missing, what mends it."""

import argparse
from collections.abc import Callable, Iterator
import importlib.metadata
import time

from keystoneauth1 import exceptions as ksa_exceptions
from openstack import connection as sdk
from oslo_config import cfg

from watcher_cputier import accounting
from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import audits
from watcher_cputier.datasources import candidates
from watcher_cputier.datasources import nova
from watcher_cputier.datasources import service
from watcher_cputier.datasources import telemetry
from watcher_cputier.osc import base
from watcher_cputier.osc import picture
from watcher_cputier.osc import settings

WORKS = "works"
FAILS = "fails"
ABSENT = "absent"
UNKNOWN = "unknown"
STRATEGY = "domain_capacity_enforcement"
_UNKNOWN_CLASS = (
    "Placement does not know the class. Report it from the hosts' "
    "provider.yaml (`openstack tier provider-config generate`), or "
    "`openstack resource class create {}`"
)
_NO_ENDPOINT = "the service catalogue has no endpoint"
_NO_STRATEGY = (
    f"it does not have the strategy {STRATEGY}. Install watcher-cputier into "
    "the decision engine's environment and restart it"
)
_NOT_WATCHERS = (
    "GET /v1/{}: the answer is none of Watcher's. Check what listens at the "
    "service's endpoint"
)
# {what Watcher is asked about: what is read of it, and what to do where it
# refuses}
_WATCHER_POLICIES = {
    "strategies": (
        ("name",),
        "Give the user the policy `strategy:get_all`",
    ),
    "services": (
        ("name", "status", "host"),
        "Give the user the policy `service:get_all`",
    ),
}
# {service: ((microversion, what is not known to an older one), ...)}
_MATRIX = {
    "Nova": (
        (nova.OWN_GROUP, "server groups of other projects"),
        (nova.PINNED_ZONE, "the zone that an instance is pinned to"),
        (nova.IMAGES, "properties of images, which Glance is asked for"),
    ),
}
# Watcher's API from which on actions are skipped and failures are told.
_WATCHER_API = (1, 5)
_API_HEADER = "OpenStack-API-Maximum-Version"
_ENGINE = "watcher_workflow_engines.taskflow"
_KEEPS_EXCESS = "placement_keeps_excess"
_SHEDDING = (
    "no refusal within the last day. Placement does not tell its release: "
    "before 14.0.0 (2025.2) nothing can leave a host that is over its "
    "capacity by live migration"
)
_Row = tuple[str, str, str]


class Check(base.Judging, base.Lister):
    """Check access, versions, tiers and Watcher; exit status 1 if one fails.

    Each kind of request that an audit sends is tried as the user who runs
    the command. Run it with Watcher's own credentials to know whether the
    decision engine may see what it needs.
    """

    failed = False

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each thing that was tried."""
        rows = list(self._rows(parsed_args))
        self.failed = any(row[1] == FAILS for row in rows)
        return ("Check", "Result", "Details"), rows

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it; 1 if something fails."""
        status: int = super().run(parsed_args)
        return status or int(self.failed)

    def _rows(self, parsed_args: argparse.Namespace) -> Iterator[_Row]:
        yield (
            "watcher-cputier",
            WORKS,
            importlib.metadata.version("watcher-cputier"),
        )
        params = self.parameters(parsed_args)
        conf: cfg.ConfigOpts | None = None
        try:
            conf = self.configuration(parsed_args)
            catalogue = tiers_conf.catalogue(conf)
        except errors.TierError as exc:
            conf = None
            yield "tiers", FAILS, str(exc)
        else:
            names = ", ".join(
                f"{t.name} ({t.resource_class}, {t.cpu_shares} shares)"
                for t in catalogue.tiers
            )
            files = ", ".join(settings.files_of(conf)) or "built-in defaults"
            yield "tiers", WORKS, f"{names}; from {files}"
        reader = self.reader
        usable = True
        for one in (reader.nova, reader.placement, reader.neutron):
            rows = list(_service(one.service, one.check_access))
            usable = usable and rows[-1][1] != FAILS
            yield from rows
        if conf is not None and usable:
            yield from self._classes(catalogue)
            yield from self._cloud(conf, params)
        yield from _watcher(self.connection)
        if conf is not None:
            yield _workers(conf, params)

    def _cloud(
        self, conf: cfg.ConfigOpts, params: parameters.Parameters
    ) -> Iterator[_Row]:
        """What reading the cloud tells."""
        try:
            cluster = picture.get_cluster(
                self.reader,
                conf,
                details=lambda seen: (
                    host.uuid
                    for host in seen.hosts
                    if candidates.overfull(host)
                ),
                history_seconds=picture.DAY_SECONDS,
            )
        except errors.TierError as exc:
            yield "quotas", FAILS, str(exc)
            return
        yield _quotas(cluster, params)
        refused = [f.text for f in cluster.findings if f.kind == _KEEPS_EXCESS]
        if refused:
            yield "shedding", FAILS, " ".join(refused)
        else:
            yield "shedding", UNKNOWN, _SHEDDING
        yield from self._telemetry(conf, params, cluster)

    def _telemetry(
        self,
        conf: cfg.ConfigOpts,
        params: parameters.Parameters,
        cluster: model.Cluster,
    ) -> Iterator[_Row]:
        """Whether starvation can be judged (N11)."""
        try:
            source = telemetry.Reader(
                conf, self.connection, self.reader.next_deadline()
            )
            _, findings = source.get_telemetry(
                cluster, params, cluster.taken_at or int(time.time())
            )
        except telemetry.NotDeployed as exc:
            yield "telemetry", ABSENT, f"{exc}. Starvation cannot be judged"
        except errors.TierError as exc:
            yield "telemetry", FAILS, str(exc)
        else:
            told = [source.summary, *(one.text for one in findings)]
            yield "telemetry", WORKS, "; ".join(told)

    def _classes(self, catalogue: tiers_conf.Catalogue) -> Iterator[_Row]:
        """Which of the tiers' classes Placement and its hosts have."""
        try:
            known = {
                one["name"]
                for one in self.reader.placement.service.items(
                    "/resource_classes", "resource_classes"
                )
            }
        except errors.ServiceError as exc:
            yield "resource classes", FAILS, str(exc)
            return
        shares = (
            (catalogue.shares_class,)
            if catalogue.shares_class
            else accounting.SHARES_CLASSES
        )
        for tier in catalogue.tiers:
            if tier.resource_class in known:
                yield tier.resource_class, WORKS, "Placement knows the class"
            elif catalogue.mode == "shares" or known & set(shares):
                yield (
                    tier.resource_class,
                    ABSENT,
                    "not needed where one class counts all tiers",
                )
            else:
                yield (
                    tier.resource_class,
                    FAILS,
                    _UNKNOWN_CLASS.format(tier.resource_class),
                )


def _service(
    one: service.Service, check: Callable[[], list[errors.ServiceError]]
) -> Iterator[_Row]:
    found = check()
    if not found and not one.tally.requests:
        yield (
            one.name,
            ABSENT,
            _NO_ENDPOINT,
        )
    elif not found:
        version = one.microversion
        told = f"microversion {version}" if version else "it answers"
        lacking = [
            what
            for least, what in _MATRIX.get(one.name, ())
            if one.version < least
        ]
        if lacking:
            told += f", which does not tell {', '.join(lacking)}"
        yield one.name, WORKS, told
    for exc in found:
        yield one.name, FAILS, str(exc)


def _watcher(connected: sdk.Connection) -> Iterator[_Row]:
    """Whether a Watcher has the strategy and its services run."""
    adapter = audits.adapter(connected)
    documents = {}
    version = ""
    for what, (names, cure) in _WATCHER_POLICIES.items():
        try:
            answer = adapter.get(f"/v1/{what}", raise_exc=False)
        except ksa_exceptions.EndpointNotFound:
            yield "Watcher", ABSENT, _NO_ENDPOINT
            return
        except ksa_exceptions.ClientException as exc:
            yield "Watcher", FAILS, f"it cannot be reached: {exc}"
            return
        if answer.status_code != 200:
            yield (
                "Watcher",
                FAILS,
                f"GET /v1/{what} answers {answer.status_code}. {cure}",
            )
            return
        try:
            documents[what] = [
                {name: str(one[name]) for name in names}
                for one in answer.json()[what]
            ]
        except (ValueError, KeyError, TypeError):
            why = _NOT_WATCHERS.format(what)
            yield "Watcher", FAILS, why
            return
        version = answer.headers.get(_API_HEADER, "").rpartition(" ")[2]
    if STRATEGY in {one["name"] for one in documents["strategies"]}:
        yield (
            "Watcher",
            WORKS,
            f"it has the strategy {STRATEGY}; {_api(version)}",
        )
    else:
        yield (
            "Watcher",
            FAILS,
            _NO_STRATEGY,
        )
    for one in documents["services"]:
        yield (
            one["name"],
            WORKS if one["status"] == "ACTIVE" else FAILS,
            f"{one['status'].lower()} on {one['host']}",
        )


def _api(version: str) -> str:
    """What a Watcher of this API version does."""
    known = tuple(int(part) for part in version.split(".") if part.isdigit())
    if not known:
        return "it does not tell its API's version"
    if known >= _WATCHER_API:
        return f"API {version}"
    return (
        f"API {version}, before 2025.2: an action that is out of date fails "
        "and is not skipped, and why an audit failed is in the decision "
        "engine's log alone"
    )


def _quotas(cluster: model.Cluster, params: parameters.Parameters) -> _Row:
    """Whether hosts can be judged at all, as an audit would."""
    try:
        verdict = diagnosis.diagnose(cluster, params)
    except errors.TierError as exc:
        return "quotas", FAILS, str(exc)
    unknown = {
        host
        for (host, _), quota in verdict.quotas.items()
        if quota.units is None and not quota.unlimited
    }
    told = f"{len(cluster.hosts)} hosts are judged"
    if unknown:
        told += (
            f"; some quota is unknown of {errors.some(sorted(unknown))}: "
            "`openstack tier lint` says which"
        )
    return "quotas", WORKS, told


def _workers(conf: cfg.ConfigOpts, params: parameters.Parameters) -> _Row:
    """How many migrations the applier runs at the same time (R108).

    No API tells it. The file is the applier's where both run from one.
    """
    name = "applier workers"
    wanted = params.parallel_total
    option = f"[{_ENGINE}] max_workers"
    try:
        conf.register_opts([cfg.IntOpt("max_workers")], group=_ENGINE)
        workers: int | None = conf[_ENGINE].max_workers
    except (cfg.DuplicateOptError, cfg.ConfigFileValueError) as exc:
        return name, FAILS, f"{option} cannot be read: {exc}"
    if workers is None:
        told = (
            f"{option} is not set in the files that were read: its default is "
            "the number of CPUs where the applier runs. An audit plans "
            f"{wanted} migrations at the same time (parallel_total)"
        )
        return name, UNKNOWN, told
    if workers < wanted:
        told = (
            f"{option} is {workers}, and an audit plans {wanted} migrations "
            "at the same time: a plan takes longer than expected. Set it to "
            f"{wanted} where the applier runs, or the audit parameter "
            f"parallel_total to {workers}"
        )
        return name, FAILS, told
    return name, WORKS, f"{option} is {workers}, parallel_total {wanted}"
