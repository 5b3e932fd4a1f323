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


"""``openstack tier provider-config``: inventories of tiers as Nova's files."""

import argparse
from collections.abc import Iterable, Mapping
import pathlib
import re
from typing import Any

import yaml

from watcher_cputier import accounting
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import provider_config
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.osc import base
from watcher_cputier.osc import picture

FILE = "provider-tiers.yaml"
_FACTS = ("cpu_shared_set", "cpu_affinity", "reserved_host_cpus", "units")
_UNITS = re.compile(r"^([A-Za-z0-9_-]+)=([0-9]{1,9})(%?)$")


class Generate(base.Command):
    """Generate provider configuration files with the inventories of tiers.

    The hosts, and the number of their shared CPUs where no cpu_shared_set is
    given, come from Nova and Placement. Without --directory one document is
    written to standard output.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        _add_facts(parser)
        _add_forms(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Read the hosts and write the files."""
        conf = self.configuration(parsed_args)
        catalogue = tiers_conf.catalogue(conf)
        cluster = picture.get_cluster(self.reader, conf)
        hosts = _chosen(cluster.hosts, parsed_args.host)
        facts = _facts(parsed_args, hosts, [t.name for t in catalogue.tiers])
        made = {
            one.name: _inventories(parsed_args, catalogue, cluster, one)
            for one in facts
        }
        texts = {
            name: _text(found)
            for name, found in _documents(parsed_args, facts, made).items()
        }
        if parsed_args.config_map is not None:
            texts = {
                "": _text(
                    provider_config.config_map(
                        parsed_args.config_map,
                        parsed_args.namespace,
                        {
                            f"provider-{host}.yaml" if host else FILE: text
                            for host, text in texts.items()
                        },
                    )
                )
            }
        if parsed_args.directory is None:
            self.app.stdout.write("---\n".join(texts.values()))
            return
        for name, text in texts.items():
            path = pathlib.Path(parsed_args.directory, name, FILE)
            _write(path, text)
            self.tell(f"{path} is written")


class Verify(base.Lister):
    """Compare provider configuration files with what hosts report.

    Lists what differs; exit status 1 if something does.
    """

    differs = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            "file",
            metavar="<file>",
            nargs="+",
            help="a file, or a directory as `generate --directory` writes "
            "it, with a directory for each host",
        )
        parser.add_argument(
            "--host",
            metavar="<host>",
            action="append",
            help="only this host; may be given several times",
        )
        parser.add_argument(
            "--cpu-shared-set",
            metavar="<set>",
            help="CPUs that the hosts' cpu_shared_set names, such as "
            "0-3,^2,8: their number is compared with Placement's VCPU",
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Run it; 1 if something differs."""
        status: int = super().run(parsed_args)
        return status or int(self.differs)

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each difference."""
        conf = self.configuration(parsed_args)
        shared: list[str] = []
        by_host: dict[str, list[str]] = {}
        for name in parsed_args.file:
            path = pathlib.Path(name)
            if not path.is_dir():
                shared.append(name)
                continue
            for found in sorted(path.glob("*/*.yaml")):
                by_host.setdefault(found.parent.name, []).append(str(found))
        cluster = picture.get_cluster(self.reader, conf)
        hosts = _chosen(cluster.hosts, parsed_args.host)
        classes = {tier.resource_class for tier in cluster.tiers}
        rows = _differences(shared, by_host, hosts, classes)
        rows += _cpus(parsed_args.cpu_shared_set, hosts)
        self.differs = bool(rows)
        self.tell(
            f"{len(rows)} differences on {len(hosts)} hosts"
            if rows
            else f"{len(hosts)} hosts report what the files say"
        )
        return (
            ("Host", "File", "What", "File Says", "Placement Shows", "Mend"),
            [
                (
                    one.host,
                    base.Told(one.source or None),
                    base.Told(one.what or None),
                    base.Told(one.told or None),
                    base.Told(one.shown or None),
                    one.mend,
                )
                for one in rows
            ],
        )


def _differences(
    shared: list[str],
    by_host: Mapping[str, list[str]],
    hosts: list[model.Host],
    classes: Iterable[str],
) -> list[provider_config.Difference]:
    """Those of files for all hosts, and of each host's own files."""
    common = [one for name in shared for one in read(name)]
    if not by_host:
        return list(provider_config.verify(common, hosts, classes))
    found: list[provider_config.Difference] = []
    for host in hosts:
        own = [
            one for name in by_host.get(host.name, ()) for one in read(name)
        ]
        entries = [one for one in common if one.wildcard or one.names(host)]
        found += provider_config.verify([*entries, *own], [host], classes)
    return found


def _cpus(
    text: str | None, hosts: list[model.Host]
) -> list[provider_config.Difference]:
    """Hosts whose VCPU inventory is of another number of CPUs (R40)."""
    if text is None:
        return []
    cpus = len(provider_config.parse_cpus(text, where="--cpu-shared-set"))
    return [
        provider_config.Difference(
            host=host.name,
            source="",
            what="VCPU total",
            told=str(cpus),
            shown=str(host.shared_cpus),
            mend=f"Restart nova-compute on {host.name} with this "
            "cpu_shared_set, or correct it",
        )
        for host in hosts
        if host.shared_cpus != cpus
    ]


def read(name: str) -> tuple[provider_config.Declared, ...]:
    """What a file declares, or the files in a ConfigMap do.

    :raises ConfigurationError: if it cannot be read, or Nova would refuse it
    """
    try:
        found = yaml.safe_load(pathlib.Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise errors.ConfigurationError(
            getattr(exc, "strerror", None) or " ".join(str(exc).split()),
            where=name,
            cure="Name a file that can be read and is YAML",
        ) from exc
    if isinstance(found, dict) and found.get("kind") == "ConfigMap":
        return tuple(
            one
            for key, text in (found.get("data") or {}).items()
            for one in provider_config.declared(
                yaml.safe_load(text), f"{name}: {key}"
            )
        )
    return provider_config.declared(found, name)


def _add_facts(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("facts of the hosts")
    group.add_argument(
        "--host",
        metavar="<host>",
        action="append",
        help="only this host; may be given several times",
    )
    group.add_argument(
        "--cpu-shared-set",
        metavar="<set>",
        help="[compute] cpu_shared_set of all hosts, such as 0-3,^2,8",
    )
    group.add_argument(
        "--cpu-affinity",
        metavar="<set>",
        help="systemd's CPUAffinity of all hosts, which must name no CPU of "
        "cpu_shared_set",
    )
    group.add_argument(
        "--reserved-host-cpus",
        metavar="<number>",
        type=int,
        default=0,
        help="CPUs of cpu_shared_set that Nova keeps back on all hosts",
    )
    group.add_argument(
        "--units",
        metavar="<tier>=<units>",
        action="append",
        default=[],
        help="units of a tier on all hosts, or a percentage of the CPUs "
        "such as gold=80%%; one unit for each CPU by default",
    )
    group.add_argument(
        "--facts",
        metavar="<file>",
        help="YAML file with facts of single hosts, {host: "
        "{cpu_shared_set, cpu_affinity, reserved_host_cpus, units: {tier: "
        "units}}}; they replace those of all hosts",
    )


def _add_forms(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("form of the files")
    form = group.add_mutually_exclusive_group()
    form.add_argument(
        "--by",
        choices=("uuid", "name"),
        default="uuid",
        help="how entries name their provider (default: uuid)",
    )
    form.add_argument(
        "--compute-node",
        action="store_true",
        help="one entry $COMPUTE_NODE for the hosts that are alike, and "
        "entries of their own for the others",
    )
    group.add_argument(
        "--directory",
        metavar="<directory>",
        help=f"write <directory>/<host>/{FILE} for each host, or "
        f"<directory>/{FILE} with --compute-node",
    )
    group.add_argument(
        "--config-map",
        metavar="<name>",
        help="write a Kubernetes ConfigMap of this name, for RHOSO",
    )
    group.add_argument(
        "--namespace",
        metavar="<namespace>",
        default="openstack",
        help="namespace of the ConfigMap (default: openstack)",
    )
    group.add_argument(
        "--single-class",
        action="store_true",
        help="one inventory for all tiers, as [cputier] mode = shares has it",
    )
    group.add_argument(
        "--multiplier",
        metavar="<units>",
        type=int,
        default=provider_config.SHARE_MULTIPLIER,
        help="units of one CPU with --single-class "
        f"(default: {provider_config.SHARE_MULTIPLIER})",
    )
    group.add_argument(
        "--allocation-ratio",
        metavar="<ratio>",
        type=float,
        help="over-subscription with --single-class (default: that of VCPU)",
    )


def _chosen(
    hosts: Iterable[model.Host], wanted: list[str] | None
) -> list[model.Host]:
    """The hosts that are named; all unless some are."""
    hosts = list(hosts)
    by_name = {name: h for h in hosts for name in (h.uuid, h.name)}
    for name in wanted or ():
        if name not in by_name:
            raise errors.ParameterError(
                f"there is no host {name!r}",
                where="--host",
                cure="Name one that `openstack tier host list` shows",
            )
    if not wanted:
        return hosts
    return [h for h in hosts if {h.uuid, h.name} & set(wanted)]


def _facts(
    parsed_args: argparse.Namespace, hosts: list[model.Host], tiers: list[str]
) -> list[provider_config.Facts]:
    """What is known of each host."""
    own = _own_facts(parsed_args.facts, {host.name for host in hosts})
    found = []
    for host in hosts:
        told = {
            "cpu_shared_set": parsed_args.cpu_shared_set,
            "cpu_affinity": parsed_args.cpu_affinity,
            "reserved_host_cpus": parsed_args.reserved_host_cpus,
            **own.get(host.name, {}),
        }
        shared = told["cpu_shared_set"]
        cpus = None
        if shared is not None:
            shared = provider_config.parse_cpus(
                str(shared), where=f"cpu_shared_set of {host.name}"
            )
            cpus = len(shared)
        elif host.shared_cpus is not None:
            cpus = host.shared_cpus
        if cpus is None:
            raise errors.ConfigurationError(
                "nobody knows its shared CPUs",
                where=f"host {host.name}",
                cure="Name its cpu_shared_set: it has no VCPU inventory",
            )
        affinity = told["cpu_affinity"]
        sold = cpus - told["reserved_host_cpus"]
        units = {
            **_units(parsed_args.units, sold, tiers),
            **_whole(told.get("units") or {}, host.name),
        }
        found.append(
            provider_config.Facts(
                name=host.name,
                uuid=host.uuid,
                cpus=cpus,
                shared=shared,
                affinity=affinity
                and provider_config.parse_affinity(str(affinity)),
                reserved=told["reserved_host_cpus"],
                units=model.frozen_map(units),
            )
        )
    return found


def _own_facts(name: str | None, hosts: set[str]) -> dict[str, dict[str, Any]]:
    """The file of facts."""
    if name is None:
        return {}
    try:
        found = yaml.safe_load(pathlib.Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise errors.ConfigurationError(
            getattr(exc, "strerror", None) or " ".join(str(exc).split()),
            where=name,
        ) from exc
    found = found or {}
    for host, facts in found.items() if isinstance(found, dict) else ():
        unknown = sorted(set(facts or {}) - set(_FACTS))
        if host not in hosts or unknown:
            raise errors.ConfigurationError(
                f"unknown fact {unknown[0]!r}"
                if unknown
                else f"there is no host {host!r}",
                where=f"{name}: {host}",
                cure=f"The facts of a host are {', '.join(_FACTS)}",
            )
    if not isinstance(found, dict):
        raise errors.ConfigurationError("it is no mapping", where=name)
    return {str(host): dict(facts or {}) for host, facts in found.items()}


def _units(told: Iterable[str], sold: int, tiers: list[str]) -> dict[str, int]:
    """Units of tiers, percentages of the CPUs rounded down."""
    found = {}
    for text in told:
        matched = _UNITS.match(text)
        if matched is None or matched[1] not in tiers:
            raise errors.ParameterError(
                "it is no <tier>=<units> or <tier>=<percentage>%",
                where=f"--units {text}",
                cure=f"The tiers are {', '.join(tiers)}",
            )
        number = int(matched[2])
        found[matched[1]] = sold * number // 100 if matched[3] else number
    return found


def _whole(told: Mapping[str, Any], host: str) -> dict[str, int]:
    for tier, units in told.items():
        if not isinstance(units, int) or isinstance(units, bool):
            raise errors.ConfigurationError(
                f"{units!r} units of {tier} are no whole number",
                where=f"host {host}",
            )
    return dict(told)


def _inventories(
    parsed_args: argparse.Namespace,
    catalogue: tiers_conf.Catalogue,
    cluster: model.Cluster,
    facts: provider_config.Facts,
) -> Mapping[str, provider_config.Inventory]:
    if not parsed_args.single_class and catalogue.mode != "shares":
        return provider_config.tier_inventories(facts, catalogue.tiers)
    ratio = parsed_args.allocation_ratio
    root = cluster.host_by_name[facts.name].root
    if ratio is None and root is not None and "VCPU" in root.inventories:
        ratio = root.inventories["VCPU"].allocation_ratio
    return provider_config.shares_inventory(
        facts,
        catalogue.shares_class or accounting.SHARES_CLASSES[1],
        parsed_args.multiplier,
        ratio or 1.0,
    )


def _documents(
    parsed_args: argparse.Namespace,
    facts: list[provider_config.Facts],
    made: Mapping[str, Mapping[str, provider_config.Inventory]],
) -> dict[str, provider_config.Document]:
    """Documents by the directory that they belong to."""
    by = parsed_args.by
    entries = {
        one.name: (
            {by: one.uuid if by == "uuid" else one.name},
            made[one.name],
        )
        for one in facts
    }
    if parsed_args.compute_node:
        # What most hosts have; of equally many the first host's.
        kinds = [dict(found) for _, found in entries.values()]
        usual = max(kinds, key=kinds.count, default={})
        return {
            "": provider_config.document(
                [
                    ({"uuid": provider_config.COMPUTE_NODE}, usual),
                    *(one for one in entries.values() if one[1] != usual),
                ]
            )
        }
    if parsed_args.directory is None:
        return {"": provider_config.document(entries.values())}
    return {
        name: provider_config.document([entry])
        for name, entry in entries.items()
    }


def _text(found: provider_config.Document) -> str:
    return str(yaml.dump(found, Dumper=_Dumper, sort_keys=False))


class _Dumper(yaml.SafeDumper):
    """Files inside a ConfigMap as blocks of text."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent)


def _write(path: pathlib.Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        raise errors.ConfigurationError(
            exc.strerror or str(exc), where=str(path)
        ) from exc
