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

"""The tiers, ``[cputier]`` and one ``[cputier_tier_<name>]`` section each.

The decision engine and the command lines read the same options. A tier is
added by naming it and giving it a section; nothing else knows its name.
"""

import dataclasses
import re

from oslo_config import cfg

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import parameters

GROUP = "cputier"
TIER_GROUP_PREFIX = "cputier_tier_"

BUILT_IN = model.BUILT_IN_TIERS
# {version of control groups: weight of a domain without shares}
UNSET_SHARES = {1: 1024, 2: 100}

OPTIONS = [
    cfg.ListOpt(
        "tiers",
        default=list(BUILT_IN),
        help="""
Names of the service tiers, highest first.

Each tier may have a section ``[cputier_tier_<name>]``. Gold, silver and
bronze have built-in defaults (512, 333 and 167 shares per vCPU); any other
tier has to say at least its ``cpu_shares``.
""",
    ),
    cfg.StrOpt(
        "mode",
        default="auto",
        choices=[
            ("auto", "Whichever of the two the cloud's inventories show."),
            ("classes", "One resource class per tier."),
            (
                "shares",
                "One class for all tiers, in multiples of their vCPUs.",
            ),
        ],
        help="""
How tiers are counted in Placement.
""",
    ),
    cfg.StrOpt(
        "shares_class",
        regex=r"^[A-Z0-9_]+$",
        help="""
The resource class of single-class mode.

Without it ``VCPU_SHARES`` or ``CUSTOM_VCPU_SHARES`` is taken, whichever some
host has.
""",
    ),
    cfg.StrOpt(
        "failure_domain_key",
        default="rack",
        help="""
Metadata of host aggregates that names what fails together.

Between equally good targets the one is taken whose failure domain has the
fewest units of the tier. Hosts without it belong to the domain of their
availability zone.
""",
    ),
    cfg.IntOpt(
        "cgroup_version",
        default=2,
        choices=[(1, "Control groups v1."), (2, "Control groups v2.")],
        help="""
Version of the control groups on the compute hosts.

It tells the weight of an instance whose flavor sets no ``quota:cpu_shares``:
1024 with v1, which is twice the share of a Gold vCPU, and 100 with v2, which
is a fifth of it. ``stat -fc %T /sys/fs/cgroup`` on a host says ``cgroup2fs``
for v2.
""",
    ),
    cfg.BoolOpt(
        "nova_multiplies_shares",
        default=False,
        help="""
Whether this cloud's Nova applies ``quota:cpu_shares_multiplier``.

With it the shares of an instance are those of its flavor times its vCPUs.
No released Nova does so.
""",
    ),
    cfg.ListOpt(
        "constraints",
        default=[],
        help="""
Further rules on targets to switch on.

Names of entry points in the namespace ``watcher_cputier.constraints``.
""",
    ),
    cfg.ListOpt(
        "rankers",
        default=[],
        help="""
Further rankers of targets to switch on.

Names of entry points in the namespace ``watcher_cputier.rankers``; their
values are added to the weigher's.
""",
    ),
    cfg.IntOpt(
        "read_timeout_seconds",
        default=300,
        min=1,
        help="""
Time budget for reading the cloud.

All requests, tries and pauses between them together: what a service refuses
or does not answer is asked for again only as long as the budget lasts. An
audit that could not read the cloud within it fails and says where the time
went.
""",
    ),
    cfg.IntOpt(
        "migration_timeout_seconds",
        default=3600,
        min=1,
        help="""
How long a migration may take before its action counts as failed.

Watcher's own patience ends after ``[nova] migration_max_retries`` times
``migration_interval``, although Nova may well complete the migration later.
The action ``tier_migrate`` then asks Nova until the migration is over, for so
long; what waits for the room of a migration that is still under way does not
start.
""",
    ),
    cfg.StrOpt(
        "record_directory",
        help="""
Directory in which each audit leaves a scenario: all that it saw.

The file ``<uuid of the audit>.yaml`` holds the cluster and the audit's
parameters, for ``watcher-cputier plan`` and for bug reports; see
``watcher-cputier scenario pseudonymise`` for taking the names out. Each run
of a continuous audit replaces the file of the run before. Beside it,
``<uuid of the audit>.report.json`` holds the plan and what reading the cloud
took, or the error of a run that has no plan. Only the service's user can read
the files. An audit whose files cannot be written warns and
goes on. Nothing is recorded by default.
""",
    ),
    cfg.StrOpt(
        "default_tier",
        help="""
The tier that instances belong to whose flavor requests no tier's class.

Without it such instances are untiered: they are reported and never moved. A
default tier does not change what Placement counts: give the default flavors
a request for the tier's class to have them counted there too.
""",
    ),
]


def tier_options(name: str) -> list[cfg.Opt]:
    """The options of one tier's section, with that tier's defaults."""
    shares, multiplier = BUILT_IN.get(name, (None, None))
    return [
        cfg.StrOpt(
            "resource_class",
            default=model.default_class(name),
            regex=r"^CUSTOM_[A-Z0-9_]+$",
            help="""
The Placement resource class that represents the tier.

One unit of it is one vCPU of the tier. Compute hosts report it through
nova-compute's provider configuration file, flavors request it as
``resources:<class>=<vcpus>``.
""",
        ),
        cfg.IntOpt(
            "cpu_shares",
            default=shares,
            min=1,
            max=262144,
            help="""
CPU shares of one vCPU of the tier.

A flavor of n vCPUs needs ``quota:cpu_shares = n x cpu_shares``, for the
kernel weighs the whole instance.
""",
        ),
        cfg.FloatOpt(
            "multiplier",
            default=multiplier,
            min=0,
            help="""
Share units of one vCPU of the tier where a single class counts shares.

Only read in single-class mode.
""",
        ),
        cfg.IntOpt(
            "rank",
            min=1,
            help="""
Rank of the tier, 1 for the highest.

Defaults to its position in ``[cputier] tiers``. Excess of a higher tier is
cured first.
""",
        ),
    ]


def register(conf: cfg.ConfigOpts) -> None:
    """Register the options, and those of each configured tier."""
    conf.register_opts(OPTIONS, group=GROUP)
    for name in conf[GROUP].tiers:
        conf.register_opts(tier_options(name), group=TIER_GROUP_PREFIX + name)


def read(conf: cfg.ConfigOpts) -> tuple[model.Tier, ...]:
    """The configured tiers, by rank, then name.

    :raises ConfigurationError: for a tier without shares, a name or class
        used twice, or a default tier that is none
    """
    try:
        register(conf)
        names = conf[GROUP].tiers
        found = [_read_tier(conf, i + 1, n) for i, n in enumerate(names)]
    except cfg.ConfigFileValueError as exc:
        raise errors.ConfigurationError(
            str(exc), where="watcher.conf"
        ) from exc
    _check(conf, found)
    return tuple(sorted(found, key=lambda tier: (tier.rank, tier.name)))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """What the configuration says about tiers.

    :param tiers: by rank, then name
    :param default_tier: of instances whose flavor names none
    :param mode: ``auto``, ``classes`` or ``shares``
    :param shares_class: of single-class mode, if it has a name of its own
    :param failure_domain_key: metadata of aggregates that name racks
    :param read_timeout_seconds: time budget for reading the cloud
    :param shares_rule: what weights domains have
    """

    tiers: tuple[model.Tier, ...]
    default_tier: str | None
    mode: str
    shares_class: str | None
    failure_domain_key: str
    read_timeout_seconds: int
    shares_rule: model.SharesRule = dataclasses.field(
        default_factory=model.SharesRule
    )


def catalogue(conf: cfg.ConfigOpts) -> Catalogue:
    """The tiers and how they are counted.

    :raises ConfigurationError: as :func:`read` does
    """
    tiers = read(conf)
    try:
        group = conf[GROUP]
        return Catalogue(
            tiers=tiers,
            default_tier=group.default_tier,
            mode=group.mode,
            shares_class=group.shares_class,
            failure_domain_key=group.failure_domain_key,
            read_timeout_seconds=group.read_timeout_seconds,
            shares_rule=model.SharesRule(
                unset=UNSET_SHARES[group.cgroup_version],
                multiplied=group.nova_multiplies_shares,
            ),
        )
    except cfg.ConfigFileValueError as exc:
        raise errors.ConfigurationError(
            str(exc), where="watcher.conf"
        ) from exc


def _read_tier(conf: cfg.ConfigOpts, position: int, name: str) -> model.Tier:
    section = TIER_GROUP_PREFIX + name
    if not re.match(parameters.TIER_NAME, name):
        raise errors.ConfigurationError(
            f"{name!r} is no usable tier name",
            where=f"[{GROUP}] tiers",
            cure="Use letters, digits, - and _",
        )
    group = conf[section]
    if group.cpu_shares is None:
        raise errors.ConfigurationError(
            f"tier {name} has no cpu_shares",
            where=f"[{section}]",
            cure="Set the shares of one of its vCPUs; gold has "
            f"{BUILT_IN['gold'][0]}",
        )
    return model.Tier(
        name=name,
        resource_class=group.resource_class,
        cpu_shares=group.cpu_shares,
        multiplier=(
            group.multiplier
            if group.multiplier is not None
            else model.default_multiplier(group.cpu_shares)
        ),
        rank=group.rank or position,
    )


def _check(conf: cfg.ConfigOpts, tiers: list[model.Tier]) -> None:
    if not tiers:
        raise errors.ConfigurationError(
            "no tier is named", where=f"[{GROUP}] tiers"
        )
    for what, values in (
        ("tier", [tier.name for tier in tiers]),
        ("resource class", [tier.resource_class for tier in tiers]),
    ):
        twice = sorted({v for v in values if values.count(v) > 1})
        if twice:
            raise errors.ConfigurationError(
                f"{what} {', '.join(twice)} is used more than once",
                where=f"[{GROUP}] tiers",
            )
    default = conf[GROUP].default_tier
    if default is not None and default not in [t.name for t in tiers]:
        raise errors.ConfigurationError(
            f"unknown tier {default!r}",
            where=f"[{GROUP}] default_tier",
            cure="The tiers are " + ", ".join(t.name for t in tiers),
        )
