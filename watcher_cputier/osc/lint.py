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


"""``openstack tier lint``: what contradicts what."""

import argparse
import pathlib

from oslo_config import cfg

from watcher_cputier import diagnosis
from watcher_cputier import errors
from watcher_cputier import lint
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import provider_config
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.osc import base
from watcher_cputier.osc import flavors
from watcher_cputier.osc import picture
from watcher_cputier.osc import provider_config as files

_ENGINE = "watcher_workflow_engines.taskflow"
_NEVER = "never"


class Lint(base.Judging, base.Lister):
    """List where inventories, flavors, shares and instances contradict.

    Exit status 1 if something of the severity of --fail-on or above it is
    found.
    """

    failed = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "--fail-on",
            choices=(*lint.SEVERITIES, _NEVER),
            default=lint.ERROR,
            help="the least severity that makes the exit status 1 (default: "
            f"{lint.ERROR})",
        )
        parser.add_argument(
            "--severity",
            choices=lint.SEVERITIES,
            default=lint.INFO,
            help=f"the least severity that is listed (default: {lint.INFO})",
        )
        parser.add_argument(
            "--provider-config",
            metavar="<file>",
            action="append",
            default=[],
            help="a provider configuration file to compare with what hosts "
            "report; may be given several times",
        )
        parser.add_argument(
            "--nova-config",
            metavar="<file>",
            action="append",
            default=[],
            help="nova.conf of the compute hosts and the scheduler, for what "
            "no API shows; may be given several times",
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it; 1 if it found what --fail-on names."""
        status: int = super().run(parsed_args)
        return status or int(self.failed)

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each finding."""
        params = self.parameters(parsed_args)
        conf = self.configuration(parsed_args)
        found = lint.audit(self._facts(parsed_args, conf, params), params)
        self.failed = any(
            _within(one, parsed_args.fail_on)
            for one in found
            if parsed_args.fail_on != _NEVER
        )
        counted = [
            f"{sum(1 for one in found if one.severity == severity)} {severity}"
            for severity in lint.SEVERITIES
        ]
        self.tell(f"Found: {', '.join(counted)}")
        return (
            ("Severity", "Kind", "Object", "Why", "Mend"),
            [
                (one.severity, one.kind, one.subject, one.why, one.mend)
                for one in found
                if _within(one, parsed_args.severity)
            ],
        )

    def _facts(
        self,
        parsed_args: argparse.Namespace,
        conf: cfg.ConfigOpts,
        params: parameters.Parameters,
    ) -> lint.Facts:
        declared = [
            one
            for name in parsed_args.provider_config
            for one in files.read(name)
        ]
        nova = _nova_options(parsed_args.nova_config)
        cluster = picture.get_cluster(self.reader, conf)
        params.check_names(cluster)
        unjudged = ""
        try:
            diagnosis.diagnose(cluster, params)
        except errors.SnapshotError as exc:
            unjudged = str(exc)
        placement = self.reader.placement.service
        return lint.Facts(
            cluster=cluster,
            flavors=tuple(
                _offered(one) for one in flavors.get_flavors(self.reader)
            ),
            classes=frozenset(
                one["name"]
                for one in placement.items(
                    "/resource_classes", "resource_classes"
                )
            ),
            traits=frozenset(placement.get("/traits")["traits"]),
            cgroup_version=conf[tiers_conf.GROUP].cgroup_version,
            nova=nova,
            workers=_workers(conf),
            differences=_differences(declared, cluster),
            unjudged=unjudged,
        )


def _within(one: lint.Issue, severity: str) -> bool:
    order = lint.SEVERITIES
    return order.index(one.severity) <= order.index(severity)


def _offered(one: flavors.Listed) -> lint.Offered:
    record = one.record
    return lint.Offered(
        flavor=one.flavor,
        root_gb=int(record["disk"]),
        ephemeral_gb=int(record["ephemeral"]),
        swap_mb=int(record.get("swap") or 0),
        public=bool(record.get("os-flavor-access:is_public", True)),
        rxtx_factor=float(record.get("rxtx_factor") or 1.0),
        description=str(record.get("description") or ""),
    )


def _differences(
    declared: list[provider_config.Declared], cluster: model.Cluster
) -> tuple[provider_config.Difference, ...]:
    if not declared:
        return ()
    classes = {tier.resource_class for tier in cluster.tiers}
    return provider_config.verify(declared, cluster.hosts, classes)


def _workers(conf: cfg.ConfigOpts) -> int | None:
    """What the configuration says of Watcher's applier; None if nothing."""
    try:
        conf.register_opts([cfg.IntOpt("max_workers")], group=_ENGINE)
    except cfg.DuplicateOptError:
        return None
    found: int | None = conf[_ENGINE].max_workers
    return found


def _nova_options(names: list[str]) -> lint.NovaOptions:
    """What Nova's files say, and nothing where they are silent.

    :raises ConfigurationError: if a file cannot be read
    """
    if not names:
        return lint.NovaOptions()
    conf = cfg.ConfigOpts()
    try:
        for name in names:
            pathlib.Path(name).read_bytes()
        conf(args=[], default_config_files=names, default_config_dirs=[])
        # Where the file is silent Nova has its own default.
        conf.register_opts(
            [cfg.IntOpt("max_concurrent_live_migrations", default=1)]
        )
        conf.register_opts([cfg.StrOpt("cpu_shared_set")], group="compute")
        conf.register_opts(
            [cfg.BoolOpt("report_vcpu_shares")], group="libvirt"
        )
        conf.register_opts(
            [cfg.BoolOpt("query_placement_for_vcpu_shares")],
            group="filter_scheduler",
        )
        shared = conf.compute.cpu_shared_set
        return lint.NovaOptions(
            live_migrations=conf.max_concurrent_live_migrations,
            reports_shares=conf.libvirt.report_vcpu_shares,
            requests_shares=(
                conf.filter_scheduler.query_placement_for_vcpu_shares
            ),
            shared_cpus=(
                len(provider_config.parse_cpus(shared)) if shared else None
            ),
        )
    except (cfg.Error, OSError) as exc:
        raise errors.ConfigurationError(
            " ".join(str(exc).split()), where=", ".join(names)
        ) from exc
