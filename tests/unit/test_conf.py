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

"""The tiers as an operator configures them, from real files."""

from pathlib import Path

from oslo_config import cfg
import pytest

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.conf import opts
from watcher_cputier.conf import tiers


@pytest.fixture
def conf(tmp_path: Path):
    """Make a configuration of a file's text."""

    def made(text: str = "") -> cfg.ConfigOpts:
        path = tmp_path / "watcher.conf"
        path.write_text(text)
        found = cfg.ConfigOpts()
        found(["--config-file", str(path)], project="watcher")
        return found

    return made


def test_the_built_in_tiers(conf) -> None:
    found = tiers.read(conf())
    assert [
        (t.name, t.resource_class, t.cpu_shares, t.multiplier, t.rank)
        for t in found
    ] == [
        ("gold", "CUSTOM_VCPU_GOLD", 512, 100.0, 1),
        ("silver", "CUSTOM_VCPU_SILVER", 333, 50.0, 2),
        ("bronze", "CUSTOM_VCPU_BRONZE", 167, 25.0, 3),
    ]


def test_platinum_is_configuration_only(conf) -> None:
    """R8: one name and one number make a tier."""
    found = tiers.read(
        conf(
            """
[cputier]
tiers = platinum,gold,silver,bronze
[cputier_tier_platinum]
cpu_shares = 1024
"""
        )
    )
    assert [(t.rank, t.name) for t in found] == [
        (1, "platinum"),
        (2, "gold"),
        (3, "silver"),
        (4, "bronze"),
    ]
    platinum = found[0]
    assert platinum.resource_class == "CUSTOM_VCPU_PLATINUM"
    assert platinum.cpu_shares == 1024
    # In proportion to the shares, as gold's 100 are to its 512.
    assert platinum.multiplier == 200.0


def test_everything_of_a_tier_can_be_set(conf) -> None:
    (found,) = tiers.read(
        conf(
            """
[cputier]
tiers = gold
[cputier_tier_gold]
resource_class = CUSTOM_FAST
cpu_shares = 2000
multiplier = 7.5
rank = 4
"""
        )
    )
    assert (found.resource_class, found.cpu_shares) == ("CUSTOM_FAST", 2000)
    assert (found.multiplier, found.rank) == (7.5, 4)


def test_ranks_order_the_tiers(conf) -> None:
    """Equal ranks go by name; others by their position."""
    found = tiers.read(
        conf(
            """
[cputier]
tiers = bronze,silver,gold
[cputier_tier_gold]
rank = 1
[cputier_tier_bronze]
rank = 2
"""
        )
    )
    assert [t.name for t in found] == ["gold", "bronze", "silver"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gold", "CUSTOM_VCPU_GOLD"),
        ("very-fast", "CUSTOM_VCPU_VERY_FAST"),
        ("t_1", "CUSTOM_VCPU_T_1"),
    ],
)
def test_the_default_class(name: str, expected: str) -> None:
    assert model.default_class(name) == expected


BAD = {
    "no shares": ("[cputier]\ntiers = copper", "copper has no cpu_shares"),
    "no tier": ("[cputier]\ntiers =", "no tier is named"),
    "twice": ("[cputier]\ntiers = gold,gold", "tier gold is used more than"),
    "a bad name": ("[cputier]\ntiers = gold,b@d", "'b@d' is no usable tier"),
    "one class for two": (
        "[cputier_tier_silver]\nresource_class = CUSTOM_VCPU_GOLD",
        "resource class CUSTOM_VCPU_GOLD is used more than once",
    ),
    "a standard class": (
        "[cputier_tier_gold]\nresource_class = VCPU",
        "resource_class",
    ),
    "shares of nothing": ("[cputier_tier_gold]\ncpu_shares = 0", "cpu_shares"),
    "shares in words": ("[cputier_tier_gold]\ncpu_shares = x", "cpu_shares"),
    "a negative factor": (
        "[cputier_tier_gold]\nmultiplier = -1",
        "multiplier",
    ),
    "rank 0": ("[cputier_tier_gold]\nrank = 0", "rank"),
    "an unknown default": (
        "[cputier]\ndefault_tier = copper",
        "unknown tier 'copper'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_refused(conf, case: str) -> None:
    """The error says in which section, and is ours."""
    text, words = BAD[case]
    with pytest.raises(errors.ConfigurationError) as caught:
        tiers.read(conf(text))
    assert words in str(caught.value)
    assert caught.value.where


def test_the_default_tier(conf) -> None:
    assert tiers.catalogue(conf()).default_tier is None
    told = tiers.catalogue(conf("[cputier]\ndefault_tier = bronze"))
    assert told.default_tier == "bronze"


def test_reading_twice_is_harmless(conf) -> None:
    """Every audit reads it anew in one long-running service."""
    once = conf()
    assert tiers.read(once) == tiers.read(once)


def test_the_catalogue_by_default(conf) -> None:
    found = tiers.catalogue(conf())
    assert len(found.tiers) == 3
    assert found.default_tier is None
    assert found.mode == "auto"
    assert found.shares_class is None
    assert found.read_timeout_seconds == 300


def test_the_catalogue_as_configured(conf) -> None:
    found = tiers.catalogue(
        conf(
            """
[cputier]
mode = shares
shares_class = CUSTOM_SHARES
default_tier = gold
read_timeout_seconds = 7
"""
        )
    )
    assert (found.mode, found.shares_class) == ("shares", "CUSTOM_SHARES")
    assert (found.default_tier, found.read_timeout_seconds) == ("gold", 7)


@pytest.mark.parametrize(
    "line",
    ["mode = both", "shares_class = no class", "read_timeout_seconds = 0"],
)
def test_a_bad_catalogue_is_refused(conf, line: str) -> None:
    with pytest.raises(errors.ConfigurationError):
        tiers.catalogue(conf(f"[cputier]\n{line}\n"))


def test_the_options_are_listed_with_help() -> None:
    """What oslo-config-generator makes the sample file of."""
    listed = dict(opts.list_opts())
    assert list(listed) == [
        "cputier",
        "cputier_telemetry",
        "cputier_tier_gold",
        "cputier_tier_silver",
        "cputier_tier_bronze",
    ]
    for options in listed.values():
        assert options
        for option in options:
            assert option.help.strip()
    (shares,) = [
        o for o in listed["cputier_tier_silver"] if o.name == "cpu_shares"
    ]
    assert shares.default == 333
