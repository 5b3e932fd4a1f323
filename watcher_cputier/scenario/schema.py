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

"""The format of scenarios, as a JSON schema, and the check against it.

The schema is draft 4, as the audit parameters' is. jsonschema words what is
wrong; a compiled check of the few keywords that are used here accepts what
is right, some thirty times faster, so that the picture of a cloud of ten
thousand hosts loads in seconds.
"""

from collections.abc import Callable, Iterable, Mapping
import re
from typing import Any

import jsonschema

from watcher_cputier import parameters
from watcher_cputier.scenario import values

VERSION = 1
KEY = "watcher_cputier_scenario"
_MESSAGE_LENGTH = 200

Schema = dict[str, Any]


def _object(
    title: str, required: Iterable[str] = (), **properties: Schema
) -> Schema:
    return {
        "title": title,
        "type": "object",
        "properties": properties,
        **({"required": sorted(required)} if required else {}),
        "additionalProperties": False,
    }


def _list(of: Mapping[str, Any]) -> Schema:
    return {"type": "array", "items": of}


def _map(to: Mapping[str, Any]) -> Schema:
    return {"type": "object", "additionalProperties": to}


def _is(kind: Mapping[str, Any], description: str) -> Schema:
    return {**kind, "description": description}


_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["string", "null"]}
_NAME = {"type": "string", "minLength": 1}
# The greatest whole number that every reader of JSON keeps.
_WHOLE = {"type": "integer", "minimum": -(2**53) + 1, "maximum": 2**53 - 1}
_COUNT = {**_WHOLE, "minimum": 0}
_COUNT_OR_NULL = {**_COUNT, "type": ["integer", "null"]}
_POSITIVE = {**_WHOLE, "minimum": 1}
# The greatest allocation ratio of Placement.
_RATIO = {"type": "number", "minimum": 0, "maximum": 3.40282e38}
_FLAG = {"type": "boolean"}
_NAMES = _list(_NAME)
_AMOUNTS = _map(_COUNT)
_TEXTS = _map(_TEXT)

_INVENTORY = {
    "anyOf": [
        _COUNT,
        _object(
            "inventory",
            total=_is(_COUNT, "Units there are."),
            reserved=_is(_COUNT, "Units of them that are not handed out."),
            allocation_ratio=_is(_RATIO, "Factor of what is handed out."),
            min_unit=_is(_COUNT, "Least units of one allocation."),
            max_unit=_is(_COUNT, "Most units of one allocation."),
            step_size=_is(_POSITIVE, "Units come in multiples of it."),
            capacity=_is(
                _COUNT,
                "Units handed out, where Placement told them instead of "
                "what makes them up.",
            ),
        ),
    ]
}
_INVENTORIES = _is(
    _map(_INVENTORY), "{class: its total alone, or its inventory}."
)
_PROVIDER = _object(
    "provider",
    ["name"],
    name=_is(_NAME, "Name of the resource provider."),
    uuid=_is(_NAME, "Its uuid; the name stands for it."),
    root=_is(
        _NAME, "Uuid of its root; the host's own, or itself if it shares."
    ),
    parent=_is(_NAME, "Uuid of its parent; the root has none."),
    generation=_is(_COUNT, "Its generation in Placement."),
    inventories=_INVENTORIES,
    allocated=_is(
        _AMOUNTS,
        "{class: units allocated by all consumers}. Where no provider of "
        "the tree says it, it is what the instances ask for.",
    ),
    traits=_is(_NAMES, "Its traits."),
    aggregates=_is(_NAMES, "Uuids of its Placement aggregates."),
)
_TIER = _object(
    "tier",
    ["name"],
    name=_is({"type": "string", "pattern": parameters.TIER_NAME}, "Its name."),
    resource_class=_is(_NAME, "Its class; CUSTOM_VCPU_<NAME>."),
    cpu_shares=_is(
        _POSITIVE,
        "CPU shares of one vCPU. The built-in tiers gold, silver and bronze "
        "have theirs; any other tier says it.",
    ),
    multiplier=_is(_RATIO, "Units of one vCPU in single-class mode."),
    rank=_is(_POSITIVE, "1 is the highest; the position in the list."),
)
_HOST = _object(
    "host",
    ["name"],
    name=_is(_NAME, "Name of the compute service's host."),
    uuid=_is(_NAME, "Uuid of its root provider; the name stands for it."),
    node_name=_is(_NAME, "The hypervisor's name; the host's."),
    zone=_is(_TEXT, "Its availability zone."),
    failure_domain=_is(
        _TEXT, "What it fails together with, such as a rack; its zone."
    ),
    enabled=_is(_FLAG, "Whether its compute service is enabled; true."),
    up=_is(_FLAG, "Whether its compute service is up; true."),
    disabled_reason=_is(_TEXT, "Why it was disabled."),
    in_scope=_is(_FLAG, "Whether it is in the audit's scope; true."),
    hypervisor_type=_is(_TEXT, "Type of its hypervisor; unknown."),
    hypervisor_version=_is(
        _COUNT_OR_NULL, "Version of its hypervisor, null if unknown; null."
    ),
    vcpus=_is(_COUNT_OR_NULL, "CPUs that Nova counts, null if unknown; null."),
    providers=_is(_list(_PROVIDER), "Its provider tree."),
    inventories=_is(
        _map(_INVENTORY), "Inventories of a single provider, its root."
    ),
    traits=_is(_NAMES, "Traits of a single provider, its root."),
    shared=_is(_NAMES, "Uuids of the providers that share with it."),
)
_GROUP = _object(
    "request group",
    resources=_is(_AMOUNTS, "{class: units}."),
    required_traits=_is(_NAMES, "Traits that it requires."),
    forbidden_traits=_is(_NAMES, "Traits that it forbids."),
)
_FLAVOR = _object(
    "flavor",
    ["vcpus"],
    name=_is(_TEXT, "Its name; the key in the map."),
    vcpus=_is(_COUNT, "vCPUs."),
    memory_mb=_is(_COUNT, "Memory in MB; 0."),
    disk_gb=_is(_COUNT, "Disk in GB; 0."),
    extra_specs=_is(_TEXTS, "Its extra specs, all of them text."),
    groups=_is(
        _map(_GROUP),
        "{suffix: what the group asks Placement for}; what Nova makes of the "
        "flavor.",
    ),
)
_INSTANCE = _object(
    "instance",
    ["name", "host", "flavor"],
    name=_is(_NAME, "Its name."),
    uuid=_is(_NAME, "Its uuid; the name stands for it."),
    host=_is(_NAME, "Name of the host that it runs on."),
    flavor=_is(_NAME, "Key of its flavor."),
    project=_is(_TEXT, "Its project."),
    tier=_is(_TEXT_OR_NULL, "Its tier, null for none; its flavor's."),
    units=_is(_COUNT, "Units of the tier that it holds; its flavor's."),
    allocations=_is(
        _map(_AMOUNTS),
        "{provider's uuid: {class: units}} where they were read.",
    ),
    status=_is(_NAME, "Its status; ACTIVE."),
    task_state=_is(_TEXT_OR_NULL, "What Nova is doing with it; null."),
    locked=_is(_FLAG, "Whether it is locked; false."),
    known=_is(_FLAG, "Whether Watcher's model has it; true."),
    excluded=_is(_FLAG, "Whether the audit's scope excludes it; false."),
    opted_out=_is(_FLAG, "Whether its metadata say optimize=false; false."),
    priority=_is(_WHOLE, "Higher moves later; 0."),
    pinned_zone=_is(
        _TEXT_OR_NULL, "Availability zone that it was created for; null."
    ),
    image_properties=_is(_TEXTS, "Properties of its image."),
    different_host=_is(
        _NAMES, "Uuids of instances that it must not share a host with."
    ),
    same_host=_is(
        _NAMES, "Uuids of instances one of which it must share a host with."
    ),
    tied=_is(_TEXT, "What ties it to its host besides flavor and image."),
    in_doubt=_is(_TEXT, "Why its allocations cannot be trusted."),
)
_HELD = _object(
    "holding",
    ["host", "account", "units"],
    host=_is(_NAME, "Name of a host."),
    account=_is(_NAME, "A tier, or the class of single-class mode."),
    units=_is(_COUNT, "Units of it that instances hold there."),
)
_AGGREGATE = _object(
    "aggregate",
    ["name"],
    name=_is(_NAME, "Name of the host aggregate."),
    uuid=_is(_NAME, "Its uuid; the name stands for it."),
    hosts=_is(_NAMES, "Names of its hosts."),
    metadata=_is(_TEXTS, "Its metadata, all of it text."),
    zone=_is(_TEXT_OR_NULL, "The availability zone that it makes; null."),
)
_SERVER_GROUP = _object(
    "server group",
    ["name", "policy"],
    name=_is(_NAME, "Its name."),
    uuid=_is(_NAME, "Its uuid; the name stands for it."),
    policy=_is(_NAME, "affinity, anti-affinity, or a soft form of them."),
    members=_is(
        _NAMES, "Uuids of its instances, those that are not here included."
    ),
    max_per_host=_is(_POSITIVE, "Rule max_server_per_host; 1."),
)
_ADMISSION = _object(
    "admission",
    ["request"],
    request=_is(
        _list({**_list(_TEXT), "minItems": 2, "maxItems": 2}),
        "Parameters of GET /allocation_candidates, as pairs.",
    ),
    hosts=_is(_NAMES, "Uuids of the hosts that Placement offers."),
    refused=_is(_NAMES, "Uuids of hosts that it was asked for in vain."),
    complete=_is(_FLAG, "Whether all other hosts are refused as well; true."),
)
_FINDING = _object(
    "finding",
    ["kind", "subject", "text"],
    kind=_is(_NAME, "What kind of thing was odd."),
    subject=_is(_TEXT, "What it is about."),
    text=_is(_TEXT, "What was seen and what mends it."),
)

_AMOUNT = {"type": "number", "minimum": 0, "maximum": 3.40282e38}
_SHARES_RULE = _object(
    "shares rule",
    unset=_is(
        _POSITIVE,
        "Weight of a domain whose flavor sets no shares: 1024 with cgroup "
        "v1, 100 with v2; 100.",
    ),
    multiplied=_is(
        _FLAG,
        "Whether Nova applies quota:cpu_shares_multiplier; false.",
    ),
)
_TELEMETRY = _object(
    "telemetry",
    ["source", "window_seconds", "windows"],
    source=_is(_NAME, "Name of the datasource."),
    window_seconds=_is(_POSITIVE, "Length of a window."),
    windows=_is(
        {**_list(_WHOLE), "minItems": 1},
        "When each begins, in seconds since the epoch, oldest first.",
    ),
    readings=_is(
        _map(
            _list(
                {
                    "anyOf": [
                        {"type": "null"},
                        {**_list(_AMOUNT), "minItems": 2, "maxItems": 2},
                    ]
                }
            )
        ),
        "{instance's uuid: for each window CPUs used and CPUs denied, or "
        "null}.",
    ),
    rejected=_is(_AMOUNTS, "{why: readings that are not fit}."),
)
_CHANGE = _object(
    "change",
    ["instance", "kind", "began_at"],
    instance=_is(_NAME, "Uuid of the instance."),
    kind=_is(_NAME, "Type of a migration, or name of an instance action."),
    began_at=_is(_WHOLE, "When it began, in seconds since the epoch."),
    ended_at=_is(
        {**_WHOLE, "type": ["integer", "null"]},
        "When it ended, null while it goes on; null.",
    ),
    moved=_is(_FLAG, "Whether the instance is elsewhere since; false."),
    source=_is(_TEXT, "Name of the host that it came from."),
    target=_is(_TEXT, "Name of the host that it was to go to."),
)

SCHEMA: Schema = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    **_object(
        "scenario",
        [KEY, "tiers", "hosts"],
        **{
            "description": _is(_TEXT, "What it shows, for people."),
            KEY: _is({"enum": [VERSION]}, f"The format: {VERSION}."),
            "tiers": _is(_list(_TIER), "The tiers, highest first."),
            "tier_classes": _is(
                _NAMES, "The tiers' classes that some host has."
            ),
            "shares_class": _is(
                _NAME,
                "The class that all tiers draw on, in single-class mode.",
            ),
            "hosts": _is(_list(_HOST), "The compute hosts."),
            "sharing_providers": _is(
                _list(_PROVIDER), "Providers outside the hosts' trees."
            ),
            "flavors": _is(_map(_FLAVOR), "{key: flavor}."),
            "instances": _is(_list(_INSTANCE), "The instances."),
            "held": _is(
                _list(_HELD),
                "Units that instances hold, by host and tier; what the "
                "instances say.",
            ),
            "aggregates": _is(_list(_AGGREGATE), "Nova's host aggregates."),
            "server_groups": _is(_list(_SERVER_GROUP), "Server groups."),
            "admissions": _is(
                _list(_ADMISSION), "Placement's own word on requests."
            ),
            "findings": _is(_list(_FINDING), "What was odd while reading."),
            "shares_rule": _is(_SHARES_RULE, "What weights domains have."),
            "telemetry": _is(_TELEMETRY, "What instances used."),
            "changes": _is(
                _list(_CHANGE), "What happened to instances of late."
            ),
            "taken_at": _is(
                _WHOLE, "When it was read, in seconds since the epoch."
            ),
            "other_hosts": _is(
                _NAMES,
                "Names of hosts that are referred to and not described.",
            ),
            "other_providers": _is(
                _NAMES,
                "Uuids of providers that are referred to and not described.",
            ),
            "parameters": _is(
                {"type": "object"}, "The audit's parameters, as given."
            ),
        },
    ),
}


# The check


def check(document: Any) -> None:
    """Refuse a document that is not of the format.

    :raises ScenarioError: with the path of the first offending element
    """
    if isinstance(document, dict) and document.get(KEY, VERSION) != VERSION:
        raise values.ScenarioError(
            f"format {document[KEY]!r} is unknown",
            where=KEY,
            cure=f"This release reads format {VERSION}",
        )
    if _conforms(document):
        return
    for error in jsonschema.Draft4Validator(SCHEMA).iter_errors(document):
        raise _worded(_deepest(error))


def path(parts: Iterable[Any]) -> str:
    """The path of an element as messages write it: ``hosts[0].name``."""
    return "".join(map(step, parts)).removeprefix(".") or "scenario"


def step(part: Any) -> str:
    """One step of a path, into a list or a map."""
    if isinstance(part, str) and re.fullmatch(r"[\w-]+", part):
        return f".{part}"
    return f"[{part!r}]"


def _deepest(
    error: jsonschema.ValidationError,
) -> jsonschema.ValidationError:
    """Of several forms, the error of the one that the value is nearest to."""
    while error.validator == "anyOf" and error.context:
        told = [one for one in error.context if one.validator != "type"]
        error = (told or error.context)[0]
    return error


def _worded(error: jsonschema.ValidationError) -> values.ScenarioError:
    """What is wrong, where, and what mends it."""
    parts = list(error.absolute_path)
    # Of a schema of this module, so it is there.
    of: Any = error.schema
    told: Any = error.instance
    known = of.get("properties", {})
    what, cure = error.message, of.get("description", "").rstrip(".")
    if error.validator == "additionalProperties":
        parts.append(next(key for key in told if key not in known))
        what = "unknown key"
        cure = f"The keys are {', '.join(known)}"
    elif error.validator == "required":
        name = next(key for key in of["required"] if key not in told)
        parts.append(name)
        what = "is missing"
        cure = known[name].get("description", "").rstrip(".")
    elif error.validator == "type":
        what, cure = _wrong_type(told, of["type"], cure)
    if len(what) > _MESSAGE_LENGTH:
        what = what[: _MESSAGE_LENGTH - 3] + "..."
    return values.ScenarioError(what, where=path(parts), cure=cure)


_KINDS = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a map",
    "string": "text",
}


def _wrong_type(
    told: Any, wanted: str | list[str], description: str
) -> tuple[str, str]:
    names = [wanted] if isinstance(wanted, str) else wanted
    what = f"{told!r} is not {' or '.join(_KINDS[name] for name in names)}"
    if "string" in names and not isinstance(told, dict | list):
        return what, "Put it in quotes"
    return what, description


# The same check, compiled

Check = Callable[[Any], bool]
_TYPES: dict[str, type | tuple[type, ...]] = {
    "array": list,
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": (int, float),
    "object": dict,
    "string": str,
}
_ANNOTATIONS = {"$schema", "title", "description"}


def compiled(schema: Mapping[str, Any]) -> Check:
    """A function that tells whether a value conforms to a schema.

    :raises KeyError: for a keyword that it does not know
    """
    makers = dict.fromkeys(
        _KEYWORDS[name] for name in schema if name not in _ANNOTATIONS
    )
    checks = [make(schema) for make in makers]
    if len(checks) == 1:
        return checks[0]
    return lambda value: all(accepts(value) for accepts in checks)


def _members(schema: Mapping[str, Any]) -> Check:
    known = {
        name: compiled(one)
        for name, one in schema.get("properties", {}).items()
    }
    others = schema.get("additionalProperties", True)
    default = (
        (lambda value: others)
        if isinstance(others, bool)
        else compiled(others)
    )
    required = schema.get("required", ())

    def accepts(value: Any) -> bool:
        if not isinstance(value, dict):
            return True
        for name, item in value.items():
            if not known.get(name, default)(item):
                return False
        return all(name in value for name in required)

    return accepts


def _type(schema: Mapping[str, Any]) -> Check:
    told = schema["type"]
    names = [told] if isinstance(told, str) else told
    kinds: list[type] = []
    for name in names:
        kind = _TYPES[name]
        kinds.extend(kind if isinstance(kind, tuple) else (kind,))
    expected = frozenset(kinds)
    # Exact types: a bool is no whole number.
    return lambda value: type(value) in expected


def _items(schema: Mapping[str, Any]) -> Check:
    accepts = compiled(schema["items"])
    return lambda value: (
        not isinstance(value, list) or all(accepts(item) for item in value)
    )


def _limit(
    name: str, measure: Callable[[Any], Any], kinds: tuple[type, ...]
) -> Callable[[Mapping[str, Any]], Check]:
    """A keyword that bounds what is measured of values of some types."""
    least = name.startswith("min")

    def made(schema: Mapping[str, Any]) -> Check:
        bound = schema[name]
        if least:
            return lambda value: (
                not isinstance(value, kinds) or measure(value) >= bound
            )
        return lambda value: (
            not isinstance(value, kinds) or measure(value) <= bound
        )

    return made


def _pattern(schema: Mapping[str, Any]) -> Check:
    found = re.compile(schema["pattern"]).search
    return lambda value: not isinstance(value, str) or bool(found(value))


def _any_of(schema: Mapping[str, Any]) -> Check:
    ways = [compiled(one) for one in schema["anyOf"]]
    return lambda value: any(accepts(value) for accepts in ways)


def _enum(schema: Mapping[str, Any]) -> Check:
    found = schema["enum"]
    return lambda value: any(
        value == one and type(value) is type(one) for one in found
    )


_KEYWORDS: dict[str, Callable[[Mapping[str, Any]], Check]] = {
    "type": _type,
    "properties": _members,
    "required": _members,
    "additionalProperties": _members,
    "items": _items,
    "minimum": _limit("minimum", lambda number: number, (int, float)),
    "maximum": _limit("maximum", lambda number: number, (int, float)),
    "minLength": _limit("minLength", len, (str,)),
    "minItems": _limit("minItems", len, (list,)),
    "maxItems": _limit("maxItems", len, (list,)),
    "pattern": _pattern,
    "anyOf": _any_of,
    "enum": _enum,
}

_conforms = compiled(SCHEMA)
