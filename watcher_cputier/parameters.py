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

"""The table of audit parameters: one home of every name and default.

Watcher's JSON schema, the strategy's documentation, the command line's
options and the values that the core works with are all derived from
:data:`PARAMETERS`. Watcher validates an audit against the schema when it is
created (HTTP 400) and fills in the defaults; :meth:`Parameters.of` does
both once more, so that a caller without Watcher gets the same treatment.

Maps (``quotas``) use ``patternProperties``: Watcher refuses every key that
``properties`` do not name, and fills in defaults from there only.
"""

from collections.abc import Mapping
import copy
import dataclasses
import re
from typing import Any

import jsonschema

from watcher_cputier import errors
from watcher_cputier import model

TIER_NAME = "^[A-Za-z0-9][A-Za-z0-9_-]*$"
_PERCENT = r"^[0-9]{1,4}(\.[0-9]{1,3})?%$"
_CLASS_NAME = "^[A-Z0-9_]+$"

_QUOTA = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": _PERCENT},
    ]
}
_QUOTAS = {
    "type": "object",
    "patternProperties": {TIER_NAME: _QUOTA},
    "additionalProperties": False,
}


def _names(pattern: str) -> dict[str, Any]:
    return {
        "type": "array",
        "items": {"type": "string", "pattern": pattern},
        "uniqueItems": True,
    }


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One audit parameter.

    :param schema: JSON schema (draft 4) of its value, without the default
    :param help: one or two sentences for an operator
    """

    name: str
    default: Any
    schema: Mapping[str, Any]
    help: str


PARAMETERS: tuple[Parameter, ...] = (
    Parameter(
        name="enforce_quota",
        default=True,
        schema={"type": "boolean"},
        help="Whether to cure hosts that hold more units of a tier than "
        "their quota.",
    ),
    Parameter(
        name="relieve_starvation",
        default=True,
        schema={"type": "boolean"},
        help="Whether to look for instances that do not get the share that "
        "their tier promises, and to cure them by migrations where that "
        "helps. It needs telemetry and abstains, and says so, where there "
        "is none.",
    ),
    Parameter(
        name="mix_tiers",
        default=False,
        schema={"type": "boolean"},
        help="Whether to even out the tiers over the hosts once quotas are "
        "kept, so that the loss of one host is not the loss of most of a "
        "tier. It takes many migrations: look at their number in the summary "
        "of an audit that is not applied before you switch it on for good.",
    ),
    Parameter(
        name="quotas",
        default={},
        schema=_QUOTAS,
        help="Policy quotas of every host: {tier: units}, or a percentage "
        'such as "90%" of the host\'s Placement capacity, rounded down. '
        "The lower of policy quota and capacity holds.",
    ),
    Parameter(
        name="quotas_by_host",
        default={},
        schema={
            "type": "object",
            "patternProperties": {"^.+$": _QUOTAS},
            "additionalProperties": False,
        },
        help="Policy quotas of single hosts, {host: {tier: units or "
        "percentage}}; they replace those of `quotas` tier by tier.",
    ),
    Parameter(
        name="quota_mode",
        default="strict",
        schema={"type": "string", "enum": ["strict", "borrow"]},
        help="`strict` cures every excess, whatever the load; with `borrow` "
        "a tier above its policy quota stays while the other tiers of the "
        "host are idle, and is pulled back when they wake. Borrowing needs "
        "telemetry of the host; where there is none it is strict.",
    ),
    Parameter(
        name="idle_fraction",
        default=0.1,
        schema={"type": "number", "minimum": 0, "maximum": 1},
        help="In `quota_mode` borrow a tier of a host is idle while its "
        "instances want at most this fraction of what they are promised.",
    ),
    Parameter(
        name="drain_hosts",
        default=[],
        schema=_names("^.+$"),
        help="Hosts whose quota is 0 for all tiers.",
    ),
    Parameter(
        name="drain_disabled",
        default=False,
        schema={"type": "boolean"},
        help="Whether hosts whose compute service is disabled are drained "
        "too.",
    ),
    Parameter(
        name="max_migrations",
        default=20,
        schema={"type": "integer", "minimum": 0},
        help="The most migrations that one audit plans, 0 for no limit. The "
        "most valuable come first; the rest is listed as deferred.",
    ),
    Parameter(
        name="windows",
        default=3,
        schema={"type": "integer", "minimum": 1, "maximum": 100},
        help="Consecutive windows of telemetry in which an instance has to "
        "fall short to count as starved.",
    ),
    Parameter(
        name="window_seconds",
        default=300,
        schema={"type": "integer", "minimum": 60, "maximum": 86400},
        help="Length of a window: the granularity of the metric, 300 with "
        "Ceilometer's usual policy.",
    ),
    Parameter(
        name="cooldown_minutes",
        default=60,
        schema={"type": "integer", "minimum": 0, "maximum": 10080},
        help="How long an instance that has moved is left alone by "
        "starvation and mixing; it doubles with each further move within a "
        "day. A migration for a quota merely prefers others.",
    ),
    Parameter(
        name="mixing_tolerance",
        default=0.25,
        schema={"type": "number", "minimum": 0, "maximum": 10},
        help="How far above the mean utilisation of a tier a host may be "
        "before `mix_tiers` moves something: with 0.25, a quarter. It counts "
        "in thousandths. The smaller it is the more migrations it takes.",
    ),
    Parameter(
        name="parallel_total",
        default=2,
        schema={"type": "integer", "minimum": 1, "maximum": 1000},
        help="The most migrations of a plan that run at the same time; 1 "
        "runs them one by one. Watcher's applier runs at most "
        "`[watcher_workflow_engines.taskflow] max_workers` of them.",
    ),
    Parameter(
        name="parallel_per_source",
        default=1,
        schema={"type": "integer", "minimum": 1, "maximum": 1000},
        help="The most migrations that leave a host at the same time. Nova "
        "queues what exceeds its own `max_concurrent_live_migrations`.",
    ),
    Parameter(
        name="parallel_per_target",
        default=1,
        schema={"type": "integer", "minimum": 1, "maximum": 1000},
        help="The most migrations that come to a host at the same time.",
    ),
    Parameter(
        name="weigher_multiplier",
        default=1.0,
        schema={"type": "number", "minimum": 0, "maximum": 1_000_000},
        help="Factor of the weigher's score; with 0 the tie-breaks alone "
        "rank the targets.",
    ),
    Parameter(
        name="weigher_resource_classes",
        default="requested",
        schema={
            "anyOf": [
                {"type": "string", "enum": ["requested", "all"]},
                _names(_CLASS_NAME),
            ]
        },
        help="Resource classes that the weigher scores: those that the "
        "instance requests, all, or a list.",
    ),
    Parameter(
        name="weigher_traits",
        default="all",
        schema={
            "anyOf": [
                {"type": "string", "enum": ["requested", "all"]},
                _names(_CLASS_NAME),
            ]
        },
        help="Traits that the weigher scores: all, those that the instance "
        "requires, or a list.",
    ),
    Parameter(
        name="time_budget_seconds",
        default=60,
        schema={"type": "integer", "minimum": 1},
        help="Search time; the best safe plan so far is taken. A plan whose "
        "search was cut says so, and may come out otherwise the next time.",
    ),
    Parameter(
        name="planner",
        default="cputier",
        schema={"type": "string", "enum": ["cputier", "weight"]},
        help="The Watcher planner that orders the action plan: `cputier` "
        "lets each migration wait for those alone whose room or slot it "
        "takes, and each checks once more that it still makes sense; "
        "`weight` is Watcher's own and runs plain migrations two by two, "
        "whatever the limits above say.",
    ),
    Parameter(
        name="refresh_model",
        default=True,
        schema={"type": "boolean"},
        help="Whether Watcher's compute model is synchronised, once, when "
        "hosts in scope hold instances that it does not know.",
    ),
)


def json_schema() -> dict[str, Any]:
    """The JSON schema of all parameters, as a Watcher strategy wants it."""
    properties = {}
    for parameter in PARAMETERS:
        properties[parameter.name] = {
            **copy.deepcopy(dict(parameter.schema)),
            "default": copy.deepcopy(parameter.default),
            "description": parameter.help,
        }
    return {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


@dataclasses.dataclass(frozen=True, slots=True)
class PolicyQuota:
    """A quota that an audit sets: units, or a fraction of a capacity.

    Exactly one of the two is given. The fraction is held in thousandths of
    a percent, so that "90%" of 10 is 9 and not 8.999.
    """

    units: int | None = None
    millipercent: int | None = None

    @classmethod
    def of(cls, value: int | str) -> "PolicyQuota":
        """Read ``8`` or ``"90%"``; the schema has admitted it."""
        if isinstance(value, int):
            return cls(units=value)
        whole, _, part = value.rstrip("%").partition(".")
        return cls(millipercent=int(whole) * 1000 + int(f"{part:0<3}"))

    def of_capacity(self, capacity: int) -> int:
        """The quota in units for a host of this capacity, rounded down."""
        if self.units is not None:
            return self.units
        assert self.millipercent is not None  # one of the two is given
        return capacity * self.millipercent // 100_000

    def __str__(self) -> str:
        if self.units is not None:
            return str(self.units)
        assert self.millipercent is not None  # one of the two is given
        return f"{self.millipercent / 1000:g}%"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The validated parameters of one audit."""

    enforce_quota: bool
    relieve_starvation: bool
    mix_tiers: bool
    quotas: Mapping[str, PolicyQuota]
    quotas_by_host: Mapping[str, Mapping[str, PolicyQuota]]
    quota_mode: str
    idle_fraction: float
    drain_hosts: frozenset[str]
    drain_disabled: bool
    max_migrations: int
    windows: int
    window_seconds: int
    cooldown_minutes: int
    mixing_tolerance: float
    parallel_total: int
    parallel_per_source: int
    parallel_per_target: int
    weigher_multiplier: float
    weigher_resource_classes: str | tuple[str, ...]
    weigher_traits: str | tuple[str, ...]
    time_budget_seconds: int
    planner: str
    refresh_model: bool

    @classmethod
    def of(cls, values: Mapping[str, Any] | None = None) -> "Parameters":
        """Validate, fill in defaults and type the parameters of an audit.

        :raises ParameterError: naming the parameter, what is wrong with it
            and what it takes
        """
        given = dict(values or {})
        _validate(given)
        merged = {
            p.name: given.get(p.name, copy.deepcopy(p.default))
            for p in PARAMETERS
        }
        merged["quotas"] = _quotas(merged["quotas"])
        merged["quotas_by_host"] = model.frozen_map(
            {h: _quotas(q) for h, q in merged["quotas_by_host"].items()}
        )
        merged["drain_hosts"] = frozenset(merged["drain_hosts"])
        for name in ("weigher_resource_classes", "weigher_traits"):
            if not isinstance(merged[name], str):
                merged[name] = tuple(merged[name])
        return cls(**merged)

    def policy(self, host: str, tier: str) -> PolicyQuota | None:
        """The policy quota of a tier on a host; None where none is set."""
        own = self.quotas_by_host.get(host, {})
        return own.get(tier, self.quotas.get(tier))

    def names_tier(self, tier: str) -> bool:
        """Whether some policy quota is for this tier."""
        return tier in self.quotas or any(
            tier in quotas for quotas in self.quotas_by_host.values()
        )

    def check_names(self, cluster: model.Cluster) -> None:
        """Refuse parameters that name tiers or hosts that do not exist.

        :raises ParameterError: with the names that would be right
        """
        tiers = sorted(tier.name for tier in cluster.tiers)
        named = [("quotas", self.quotas)] + [
            (f"quotas_by_host[{host}]", quotas)
            for host, quotas in self.quotas_by_host.items()
        ]
        for where, quotas in named:
            for name in quotas:
                if name not in tiers:
                    raise errors.ParameterError(
                        f"unknown tier {name!r}",
                        where=f"audit parameter {where}",
                        cure=f"The tiers are {', '.join(tiers)} "
                        "([cputier] tiers)",
                    )
        for where, hosts in (
            ("drain_hosts", self.drain_hosts),
            ("quotas_by_host", self.quotas_by_host),
        ):
            for name in sorted(hosts):
                if name not in cluster.host_by_name:
                    raise errors.ParameterError(
                        f"unknown host {name!r}",
                        where=f"audit parameter {where}",
                        cure="Name compute hosts as `openstack compute "
                        "service list` shows them",
                    )


def _quotas(values: Mapping[str, int | str]) -> Mapping[str, PolicyQuota]:
    return model.frozen_map(
        {tier: PolicyQuota.of(value) for tier, value in values.items()}
    )


def _validate(values: Mapping[str, Any]) -> None:
    names = [p.name for p in PARAMETERS]
    for name in values:
        if name not in names:
            raise errors.ParameterError(
                "unknown parameter",
                where=f"audit parameter {name}",
                cure=f"The parameters are {', '.join(names)}",
            )
    for parameter in PARAMETERS:
        if parameter.name not in values:
            continue
        validator = jsonschema.Draft4Validator(dict(parameter.schema))
        for error in sorted(
            validator.iter_errors(values[parameter.name]),
            key=lambda e: [str(part) for part in e.absolute_path],
        ):
            path = "".join(f"[{part}]" for part in error.absolute_path)
            raise errors.ParameterError(
                _reason(error),
                where=f"audit parameter {parameter.name}{path}",
                cure=parameter.help,
            )


def _reason(error: jsonschema.ValidationError) -> str:
    if error.validator == "anyOf":
        return f"{error.instance!r} is of no form that it takes"
    return re.sub(r"\s+", " ", error.message)
