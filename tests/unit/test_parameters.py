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

"""The table of parameters: defaults, validation, percentages, names."""

import copy
from fractions import Fraction
import json
import types
from typing import Any
import warnings

from hypothesis import given
from hypothesis import strategies as st
import jsonschema
import pytest

from tests import builders
from watcher_cputier import errors
from watcher_cputier import parameters

# The contract, design section 8; `near_fraction` is the command line's.
CONTRACT = {
    "enforce_quota": True,
    "relieve_starvation": True,
    "mix_tiers": False,
    "quota_mode": "strict",
    "idle_fraction": 0.1,
    "windows": 3,
    "window_seconds": 300,
    "cooldown_minutes": 60,
    "mixing_tolerance": 0.25,
    "quotas": {},
    "quotas_by_host": {},
    "drain_hosts": [],
    "drain_disabled": False,
    "max_migrations": 20,
    "parallel_total": 2,
    "parallel_per_source": 1,
    "parallel_per_target": 1,
    "weigher_multiplier": 1.0,
    "weigher_resource_classes": "requested",
    "weigher_traits": "all",
    "time_budget_seconds": 60,
    "planner": "cputier",
    "refresh_model": True,
}


@pytest.fixture(scope="module")
def watcher() -> types.ModuleType:
    """Watcher's own validation; its imports warn of eventlet's end."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from watcher.common import exception
        from watcher.common import utils
    return types.SimpleNamespace(
        Validator=utils.StrictDefaultValidatingDraft4Validator,
        NotAllowed=exception.AuditParameterNotAllowed,
    )


@pytest.mark.parametrize("name", CONTRACT)
def test_a_default_is_the_contracts(name: str) -> None:
    table = {p.name: p.default for p in parameters.PARAMETERS}
    assert table[name] == CONTRACT[name]


def test_the_table_has_nothing_else() -> None:
    table = {p.name: p.default for p in parameters.PARAMETERS}
    assert table == CONTRACT


def test_nothing_given_means_the_defaults() -> None:
    found = parameters.Parameters.of()
    assert found == parameters.Parameters.of({})
    assert found.max_migrations == 20
    assert found.drain_hosts == frozenset()
    assert dict(found.quotas) == {}
    assert found.weigher_resource_classes == "requested"
    assert found.weigher_traits == "all"


def test_every_parameter_is_explained() -> None:
    for parameter in parameters.PARAMETERS:
        assert parameter.help.endswith(".")
        assert "  " not in parameter.help


# --- Watcher's own validation


def test_watcher_fills_in_every_default(watcher: Any) -> None:
    given: dict[str, Any] = {}
    watcher.Validator(parameters.json_schema()).validate(given)
    assert given == {p.name: p.default for p in parameters.PARAMETERS}
    assert parameters.Parameters.of(given) == parameters.Parameters.of()


def test_the_schema_is_a_valid_one_and_survives_json() -> None:
    schema = parameters.json_schema()
    jsonschema.Draft4Validator.check_schema(schema)
    assert json.loads(json.dumps(schema)) == schema


def test_callers_cannot_spoil_the_table(watcher: Any) -> None:
    """Watcher hands the schema's defaults out; each is a copy."""
    before = copy.deepcopy(parameters.PARAMETERS)
    given: dict[str, Any] = {}
    watcher.Validator(parameters.json_schema()).validate(given)
    given["quotas"]["gold"] = 1
    given["drain_hosts"].append("a")
    assert before == parameters.PARAMETERS


ACCEPTED: list[dict[str, Any]] = [
    {"quotas": {"gold": 8}},
    {"quotas": {"gold": 0}},
    {"quotas": {"gold": "90%", "silver": "12.5%", "x-1_y": "0.125%"}},
    {"quotas": {"gold": "150%"}},
    {"quotas_by_host": {"a.example.org": {"gold": 8}, "b": {}}},
    {"drain_hosts": ["a", "b"]},
    {"drain_disabled": True, "enforce_quota": False, "refresh_model": False},
    {"max_migrations": 0},
    {"weigher_multiplier": 0},
    {"weigher_multiplier": 2.5},
    {"weigher_resource_classes": "all", "weigher_traits": "requested"},
    {"weigher_resource_classes": ["VCPU", "CUSTOM_VCPU_GOLD"]},
    {"weigher_resource_classes": [], "weigher_traits": []},
    {"time_budget_seconds": 1},
    {"planner": "weight"},
]

# parameters, the place of the mistake, words of the complaint
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"max_migrations": -1}, "max_migrations", "minimum"),
    ({"time_budget_seconds": 0}, "time_budget_seconds", "minimum"),
    ({"max_migrations": "20"}, "max_migrations", "integer"),
    ({"max_migrations": 1.5}, "max_migrations", "integer"),
    ({"max_migrations": True}, "max_migrations", "integer"),
    ({"max_migrations": None}, "max_migrations", "integer"),
    ({"enforce_quota": "yes"}, "enforce_quota", "boolean"),
    ({"drain_disabled": 1}, "drain_disabled", "boolean"),
    ({"weigher_multiplier": -0.1}, "weigher_multiplier", "minimum"),
    ({"weigher_multiplier": "1"}, "weigher_multiplier", "number"),
    ({"weigher_traits": "some"}, "weigher_traits", "some"),
    ({"weigher_traits": ["ssd"]}, "weigher_traits", "ssd"),
    ({"weigher_resource_classes": 3}, "weigher_resource_classes", "3"),
    ({"drain_hosts": "a"}, "drain_hosts", "array"),
    ({"drain_hosts": ["a", "a"]}, "drain_hosts", "unique"),
    ({"drain_hosts": ["a", ""]}, "drain_hosts[1]", ""),
    ({"quotas": 8}, "quotas", "object"),
    ({"quotas": {"gold": -1}}, "quotas[gold]", "-1"),
    ({"quotas": {"gold": 1.5}}, "quotas[gold]", "1.5"),
    ({"quotas": {"gold": True}}, "quotas[gold]", "True"),
    ({"quotas": {"gold": "90"}}, "quotas[gold]", "90"),
    ({"quotas": {"gold": "-5%"}}, "quotas[gold]", "-5%"),
    ({"quotas": {"gold": "1.2345%"}}, "quotas[gold]", "1.2345%"),
    ({"quotas": {"gold": "%"}}, "quotas[gold]", "%"),
    ({"quotas": {"no tier": 8}}, "quotas", "no tier"),
    ({"quotas_by_host": {"a": 8}}, "quotas_by_host[a]", "object"),
    (
        {"quotas_by_host": {"a": {"gold": "lots"}}},
        "quotas_by_host[a][gold]",
        "lots",
    ),
    ({"planner": "cheapest"}, "planner", "cheapest"),
]


@pytest.mark.parametrize("given", ACCEPTED, ids=json.dumps)
def test_good_values_pass_watcher_and_us(
    watcher: Any, given: dict[str, Any]
) -> None:
    watcher.Validator(parameters.json_schema()).validate(copy.deepcopy(given))
    parameters.Parameters.of(given)


@pytest.mark.parametrize(("given", "where", "words"), REFUSED, ids=str)
def test_bad_values_are_refused_by_watcher_and_us(
    watcher: Any, given: dict[str, Any], where: str, words: str
) -> None:
    """The error says where, what, and what the parameter takes."""
    with pytest.raises(jsonschema.ValidationError):
        watcher.Validator(parameters.json_schema()).validate(
            copy.deepcopy(given)
        )
    with pytest.raises(errors.ParameterError) as caught:
        parameters.Parameters.of(given)
    assert caught.value.where == f"audit parameter {where}"
    assert words in caught.value.what
    helps = {p.name: p.help for p in parameters.PARAMETERS}
    assert caught.value.cure == helps[next(iter(given))]
    assert "\n" not in str(caught.value)


def test_an_unknown_parameter_is_refused(watcher: Any) -> None:
    given = {"max_migration": 3}
    with pytest.raises(watcher.NotAllowed):
        watcher.Validator(parameters.json_schema()).validate(dict(given))
    with pytest.raises(errors.ParameterError) as caught:
        parameters.Parameters.of(given)
    assert str(caught.value).startswith(
        "audit parameter max_migration: unknown parameter. The parameters are"
    )
    assert "max_migrations" in caught.value.cure


# --- policy quotas


@pytest.mark.parametrize(
    ("value", "capacity", "units"),
    [
        (8, 100, 8),
        (0, 100, 0),
        ("90%", 10, 9),
        ("90%", 112, 100),
        ("100%", 112, 112),
        ("0%", 112, 0),
        ("33.333%", 3, 0),
        ("12.5%", 8, 1),
        ("0.5%", 200, 1),
        ("29%", 100, 29),  # int(0.29 * 100) is 28
        ("150%", 10, 15),
    ],
)
def test_a_policy_quota_in_units(
    value: int | str, capacity: int, units: int
) -> None:
    policy = parameters.PolicyQuota.of(value)
    assert policy.of_capacity(capacity) == units
    assert str(policy) == str(value)


@given(st.integers(0, 9999), st.integers(0, 999), st.integers(0, 10**9))
def test_percentages_round_down_exactly(
    whole: int, thousandths: int, capacity: int
) -> None:
    """Section 8: "Percentages round down", with no floating point in it."""
    text = f"{whole}.{thousandths:03}%"
    exact = Fraction(f"{whole}.{thousandths:03}") * capacity / 100
    assert parameters.PolicyQuota.of(text).of_capacity(capacity) == (
        exact.numerator // exact.denominator
    )


@given(st.integers(0, 9999), st.integers(1, 3), st.data())
def test_short_fractions_mean_what_they_say(
    whole: int, digits: int, data: st.DataObject
) -> None:
    """ "12.5%" is 12.500 %, not 12.005 %."""
    part = data.draw(st.integers(0, 10**digits - 1))
    text = f"{whole}.{part:0{digits}}"
    units = parameters.PolicyQuota.of(f"{text}%").of_capacity(100_000)
    assert units == Fraction(text) * 1000


def test_a_hosts_policy_replaces_the_general_one_tier_by_tier() -> None:
    found = parameters.Parameters.of(
        {
            "quotas": {"gold": 8, "silver": "50%"},
            "quotas_by_host": {"a": {"gold": 4}, "b": {"bronze": 0}},
        }
    )
    told = {
        (host, tier): None if policy is None else str(policy)
        for host in "abc"
        for tier in ("gold", "silver", "bronze")
        for policy in [found.policy(host, tier)]
    }
    assert told == {
        ("a", "gold"): "4",
        ("a", "silver"): "50%",
        ("a", "bronze"): None,
        ("b", "gold"): "8",
        ("b", "silver"): "50%",
        ("b", "bronze"): "0",
        ("c", "gold"): "8",
        ("c", "silver"): "50%",
        ("c", "bronze"): None,
    }


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, False),
        ({"quotas": {"silver": 1}}, False),
        ({"quotas": {"gold": 0}}, True),
        ({"quotas_by_host": {"a": {"gold": 0}}}, True),
        ({"quotas_by_host": {"a": {"silver": 0}}}, False),
    ],
)
def test_whether_a_tier_is_named(given: dict[str, Any], named: bool) -> None:
    assert parameters.Parameters.of(given).names_tier("gold") is named


@pytest.mark.parametrize(
    ("given", "where", "what", "cure"),
    [
        (
            {"quotas": {"gld": 1}},
            "quotas",
            "unknown tier 'gld'",
            "The tiers are bronze, gold, silver",
        ),
        (
            {"quotas_by_host": {"a": {"Gold": 1}}},
            "quotas_by_host[a]",
            "unknown tier 'Gold'",
            "The tiers are bronze, gold, silver",
        ),
        (
            {"quotas_by_host": {"x": {"gold": 1}}},
            "quotas_by_host",
            "unknown host 'x'",
            "openstack compute service list",
        ),
        (
            {"drain_hosts": ["a", "x"]},
            "drain_hosts",
            "unknown host 'x'",
            "openstack compute service list",
        ),
    ],
)
def test_names_that_do_not_exist_are_refused(
    given: dict[str, Any], where: str, what: str, cure: str
) -> None:
    cloud = builders.cluster([builders.host("a")])
    with pytest.raises(errors.ParameterError) as caught:
        parameters.Parameters.of(given).check_names(cloud)
    assert caught.value.where == f"audit parameter {where}"
    assert caught.value.what == what
    assert cure in caught.value.cure


def test_names_that_exist_are_accepted() -> None:
    cloud = builders.cluster(
        [builders.host("a"), builders.host("b", in_scope=False)]
    )
    parameters.Parameters.of(
        {
            "quotas": {"gold": 1},
            "quotas_by_host": {"b": {"silver": 1}},
            "drain_hosts": ["a", "b"],
        }
    ).check_names(cloud)
