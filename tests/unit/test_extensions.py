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

"""Plugins that do not keep to their part; entry points are pretended."""

from collections.abc import Callable
import math
import types
from typing import Any

from oslo_config import cfg
import pytest
import stevedore

from watcher_cputier import constraints
from watcher_cputier import errors
from watcher_cputier import extensions
from watcher_cputier.conf import tiers

MOVE: Any = types.SimpleNamespace(
    instance=types.SimpleNamespace(name="i"),
    target=types.SimpleNamespace(name="b"),
)
REJECTION = constraints.Rejection(rule="mine", reason="no")
Install = Callable[..., constraints.Extensions]


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Switch on one plugin whose factory returns this."""

    def switch_on(option: str, made: Any) -> constraints.Extensions:
        conf = cfg.ConfigOpts()
        conf([], project="watcher")
        tiers.register(conf)
        conf.set_override(option, ["mine"], tiers.GROUP)
        monkeypatch.setattr(
            stevedore,
            "DriverManager",
            lambda *args, **kwargs: types.SimpleNamespace(driver=made),
        )
        return extensions.load(conf)

    return switch_on


@pytest.mark.parametrize("found", [None, REJECTION])
def test_a_rule_that_keeps_to_its_part(install: Install, found: Any) -> None:
    rules = install("constraints", lambda move: found).target_rules
    assert rules["mine"](MOVE) is found


@pytest.mark.parametrize("found", [0, 0.5, -1, True])
def test_a_ranker_that_keeps_to_its_part(install: Install, found: Any) -> None:
    assert install("rankers", lambda move: found).rankers["mine"](MOVE) == (
        found
    )


@pytest.mark.parametrize(
    "found", [None, math.nan, math.inf, -math.inf, "high", REJECTION], ids=str
)
def test_a_ranker_that_returns_no_number_is_named(
    install: Install, found: Any
) -> None:
    ranker = install("rankers", lambda move: found).rankers["mine"]
    with pytest.raises(errors.ConfigurationError) as caught:
        ranker(MOVE)
    assert caught.value.where == "[cputier] rankers"
    assert caught.value.what == (
        f"mine, asked about i and b, returns {found!r}, which is no finite "
        "number"
    )


@pytest.mark.parametrize("found", [True, False, "no", 0, ()], ids=repr)
def test_a_rule_that_returns_no_rejection_is_named(
    install: Install, found: Any
) -> None:
    rule = install("constraints", lambda move: found).target_rules["mine"]
    with pytest.raises(errors.ConfigurationError) as caught:
        rule(MOVE)
    assert caught.value.where == "[cputier] constraints"
    assert "mine, asked about i and b, returns" in caught.value.what


def fail(move: Any) -> Any:
    """A plugin with a bug."""
    raise ZeroDivisionError("oh")


@pytest.mark.parametrize("option", ["constraints", "rankers"])
def test_what_a_plugin_raises_names_it_and_its_option(
    install: Install, option: str
) -> None:
    made = install(option, fail)
    (function,) = [*made.target_rules.values(), *made.rankers.values()]
    with pytest.raises(errors.ConfigurationError) as caught:
        function(MOVE)
    assert str(caught.value).startswith(
        f"[cputier] {option}: mine, asked about i and b, failed: "
        "ZeroDivisionError('oh'). Mend the plugin"
    )


@pytest.mark.parametrize("option", ["constraints", "rankers"])
def test_a_factory_that_returns_nothing_to_call(
    install: Install, option: str
) -> None:
    with pytest.raises(errors.ConfigurationError) as caught:
        install(option, None)
    assert caught.value.where == f"[cputier] {option}"
    assert caught.value.what == (
        "the factory of mine returns None, which cannot be called"
    )
