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


"""``openstack tier flavor``: the variants of a size."""

import argparse
from collections.abc import Mapping
import dataclasses

from cliff import columns
from openstack import exceptions as sdk_exceptions

from watcher_cputier import accounting
from watcher_cputier import catalogue as variants_of
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.osc import base
from watcher_cputier.osc import flavors

CREATED = "created"
# Of a dry run, before what would come of it.
_TO_BE = "to be "
COMPLETED = "completed"
UNCHANGED = "unchanged"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What has to be done for one variant.

    :param present: the flavor of that name, if there is one
    :param lacking: extra specs that it lacks
    """

    variant: variants_of.Variant
    present: flavors.Listed | None
    lacking: Mapping[str, str]

    @property
    def result(self) -> str:
        """What comes of it."""
        if self.present is None:
            return CREATED
        return COMPLETED if self.lacking else UNCHANGED


class CreateFlavor(base.Lister):
    """Create the flavors of a size, one for each tier.

    Flavors that are there already are left as they are, or get the
    properties that they lack; if one of them contradicts what it should be,
    nothing is written at all. This is the only command of its group that
    changes the cloud.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """The options."""
        parser = super().get_parser(prog_name)
        parser.add_argument("size", metavar="<size>", help="name of the size")
        for name, wanted, what in (
            ("vcpus", True, "number of vCPUs"),
            ("ram", True, "memory in MB"),
            ("disk", False, "root disk in GB (default: 0)"),
            ("ephemeral", False, "ephemeral disk in GB (default: 0)"),
            ("swap", False, "swap in MB (default: 0)"),
        ):
            parser.add_argument(
                f"--{name}",
                metavar="<number>",
                type=int,
                required=wanted,
                default=0,
                help=what,
            )
        parser.add_argument(
            "--tier",
            metavar="<tier>",
            action="append",
            help="only of this tier; may be given several times",
        )
        parser.add_argument(
            "--name",
            metavar="<scheme>",
            default=variants_of.NAME,
            help="how the flavors are named, with {tier} and {size} "
            f"(default: {variants_of.NAME})",
        )
        parser.add_argument(
            "--property",
            metavar="<key=value>",
            action="append",
            default=[],
            help="a further property of all of them; may be given several "
            "times",
        )
        parser.add_argument(
            "--no-vcpu",
            action="store_true",
            help="request no VCPU besides the tier's class",
        )
        parser.add_argument(
            "--private",
            action="store_true",
            help="not available to all projects",
        )
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="tell what would be done, and write nothing",
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Rows:
        """One row for each flavor."""
        conf = self.configuration(parsed_args)
        told = tiers_conf.catalogue(conf)
        size = _size(parsed_args)
        wanted = variants_of.variants(
            size,
            _chosen(told.tiers, parsed_args.tier),
            scheme=parsed_args.name,
            shares_class=self._shares_class(told),
            cgroup_version=conf[tiers_conf.GROUP].cgroup_version,
        )
        there = {
            one.flavor.name: one for one in flavors.get_flavors(self.reader)
        }
        classes = frozenset(tier.resource_class for tier in told.tiers)
        steps = [
            _step(one, there.get(one.name), classes, parsed_args.private)
            for one in wanted
        ]
        ids = {
            step.variant.name: step.present.id if step.present else None
            for step in steps
        }
        if not parsed_args.dry_run:
            for step in steps:
                ids[step.variant.name] = self._write(step, parsed_args.private)
        return (
            (
                "ID",
                "Name",
                "Tier",
                "VCPUs",
                "RAM",
                "Disk",
                "Properties",
                "Result",
            ),
            [
                (
                    base.Told(ids[step.variant.name]),
                    step.variant.name,
                    step.variant.tier,
                    size.vcpus,
                    size.memory_mb,
                    size.disk_gb,
                    Properties(step.variant.extra_specs),
                    _TO_BE + step.result
                    if parsed_args.dry_run and step.result != UNCHANGED
                    else step.result,
                )
                for step in steps
            ],
        )

    def _shares_class(self, told: tiers_conf.Catalogue) -> str | None:
        """The one class of all tiers; None with a class per tier.

        :raises ServiceError: if Placement cannot be asked
        """
        if told.mode == "shares" and told.shares_class is None:
            # Nova's own name is not one that Placement knows yet.
            return accounting.SHARES_CLASSES[1]
        present = self._present(told) if told.mode == "auto" else frozenset()
        return accounting.choose(
            told.tiers, present, told.mode, told.shares_class
        ).shares_class

    def _present(self, told: tiers_conf.Catalogue) -> frozenset[str]:
        """Classes that may count tiers and that some host has units of.

        An audit goes by what hosts report. Before any does, what Placement
        knows tells what the operator means.
        """
        placement = self.reader.placement.service
        known = frozenset(
            one["name"]
            for one in placement.items("/resource_classes", "resource_classes")
        )
        shares = (
            (told.shares_class,)
            if told.shares_class
            else accounting.SHARES_CLASSES
        )
        if not known.intersection(shares):
            return known
        return frozenset(
            name
            for name in (*shares, *(t.resource_class for t in told.tiers))
            if name in known
            and placement.items(
                "/resource_providers",
                "resource_providers",
                {"resources": f"{name}:1"},
            )
        )

    def _write(self, step: Step, private: bool) -> str:
        """Make what a variant lacks; the flavor's id.

        A flavor without its properties would sell vCPUs past the tiers: one
        that does not get them does not stay.
        """
        if step.present is not None:
            self._complete(step, step.present.id)
            return step.present.id
        size = step.variant.size
        compute = self.connection.compute
        try:
            key = str(
                compute.create_flavor(
                    name=step.variant.name,
                    vcpus=size.vcpus,
                    ram=size.memory_mb,
                    disk=size.disk_gb,
                    ephemeral=size.ephemeral_gb,
                    swap=size.swap_mb,
                    is_public=not private,
                ).id
            )
        except sdk_exceptions.SDKException as exc:
            raise _failed(step, exc, "os-flavor-manage:create") from exc
        try:
            self._complete(step, key)
        except errors.ServiceError:
            compute.delete_flavor(key)
            raise
        return key

    def _complete(self, step: Step, key: str) -> None:
        if not step.lacking:
            return
        try:
            self.connection.compute.create_flavor_extra_specs(
                key, dict(step.lacking)
            )
        except sdk_exceptions.SDKException as exc:
            raise _failed(step, exc, "os-flavor-extra-specs:create") from exc


def _failed(
    step: Step, exc: sdk_exceptions.SDKException, policy: str
) -> errors.ServiceError:
    """Why a flavor could not be written."""
    forbidden = isinstance(exc, sdk_exceptions.ForbiddenException)
    told = getattr(exc, "details", None) or str(exc)
    return errors.ServiceError(
        f"it cannot be written: {' '.join(str(told).split()).rstrip('.')}",
        where=f"Nova, flavor {step.variant.name}",
        cure=(
            f"Give the user the policy os_compute_api:{policy}"
            if forbidden
            else "Flavors written before it stay: correct it and run the "
            "command again"
        ),
    )


class Properties(columns.FormattableColumn[Mapping[str, str]]):
    """Properties of a flavor, as `openstack flavor show` has them."""

    def human_readable(self) -> str:
        """``key='value'``, with commas."""
        return ", ".join(f"{k}='{v}'" for k, v in sorted(self._value.items()))

    def machine_readable(self) -> dict[str, str]:
        """The properties."""
        return dict(self._value)


def _size(parsed_args: argparse.Namespace) -> variants_of.Size:
    specs = {}
    for text in parsed_args.property:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise errors.ParameterError(
                "has no value",
                where=f"--property {text}",
                cure="Say key=value",
            )
        specs[key] = value
    for name in ("vcpus", "ram"):
        if getattr(parsed_args, name) < 1:
            raise errors.ParameterError(
                "has to be 1 or more", where=f"--{name}"
            )
    return variants_of.Size(
        name=parsed_args.size,
        vcpus=parsed_args.vcpus,
        memory_mb=parsed_args.ram,
        disk_gb=parsed_args.disk,
        ephemeral_gb=parsed_args.ephemeral,
        swap_mb=parsed_args.swap,
        extra_specs=model.frozen_map(specs),
        counts_vcpus=not parsed_args.no_vcpu,
    )


def _chosen(
    tiers: tuple[model.Tier, ...], wanted: list[str] | None
) -> tuple[model.Tier, ...]:
    names = [tier.name for tier in tiers]
    for name in wanted or ():
        if name not in names:
            raise errors.ParameterError(
                f"unknown tier {name!r}",
                where="--tier",
                cure=f"The tiers are {', '.join(names)}",
            )
    return tuple(t for t in tiers if not wanted or t.name in wanted)


def _step(
    variant: variants_of.Variant,
    present: flavors.Listed | None,
    classes: frozenset[str],
    private: bool,
) -> Step:
    """What a variant lacks.

    :param classes: of all tiers, each with its own
    :param private: whether it shall not be for all projects
    :raises ParameterError: if the flavor of that name is something else
    """
    if present is None:
        return Step(variant=variant, present=None, lacking=variant.extra_specs)
    size, record = variant.size, present.record
    for what, told, wanted in (
        ("vcpus", record["vcpus"], size.vcpus),
        ("ram", record["ram"], size.memory_mb),
        ("disk", record["disk"], size.disk_gb),
        ("ephemeral", record["ephemeral"], size.ephemeral_gb),
        ("swap", int(record.get("swap") or 0), size.swap_mb),
    ):
        if told != wanted:
            raise errors.ParameterError(
                f"it exists with {what} {told} instead of {wanted}, which "
                "cannot be changed",
                where=f"flavor {variant.name}",
                cure="Name the size otherwise, or delete the flavor. Nothing "
                "was written",
            )
    if private and record.get("os-flavor-access:is_public", True):
        raise errors.ParameterError(
            "it exists and is public, which cannot be changed",
            where=f"flavor {variant.name}",
            cure="Name the size otherwise, or delete the flavor. Nothing was "
            "written",
        )
    specs = present.flavor.extra_specs
    for name in sorted(classes & present.flavor.resources.keys()):
        key = f"resources:{name}"
        if key not in variant.extra_specs:
            raise errors.ParameterError(
                f"it exists and requests {name}, which is another tier's",
                where=f"flavor {variant.name}",
                cure=f"Take it out (`openstack flavor unset {variant.name} "
                f"--property {key}`) and resize its instances. Nothing was "
                "written",
            )
    wrong = {
        key: value
        for key, value in variant.extra_specs.items()
        if specs.get(key, value) != value
    }
    if wrong:
        key, value = next(iter(wrong.items()))
        raise errors.ParameterError(
            f"it exists with {key}={specs[key]} instead of {value}",
            where=f"flavor {variant.name}",
            cure=f"Change it (`openstack flavor set {variant.name} "
            f"--property {key}={value}`) and resize its instances. Nothing "
            "was written",
        )
    return Step(
        variant=variant,
        present=present,
        lacking=model.frozen_map(
            {k: v for k, v in variant.extra_specs.items() if k not in specs}
        ),
    )
