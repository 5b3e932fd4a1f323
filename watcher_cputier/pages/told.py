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

"""Numbers and names as a reader of a page wants them."""

from collections.abc import Mapping, Sequence
import re
from typing import Any

MISSING = "\N{EN DASH}"

_DIGITS = re.compile(r"\d+")
# Longer names are cut in the middle of a drawing; tables have them whole.
_LONGEST = 26


def number(value: float | None) -> str:
    """With a comma between thousands; a missing one is no zero."""
    if value is None:
        return MISSING
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def cpus(value: float | None) -> str:
    """CPUs in tenths, small ones in hundredths."""
    if value is None:
        return MISSING
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def percent(part: float | None, whole: float | None) -> str:
    """Whole percents, rounded down; nothing of nothing is no percentage."""
    if part is None or not whole:
        return MISSING
    return f"{int(part / whole * 100 + 1e-9)} %"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours; long ones without the small change."""
    if seconds is None:
        return MISSING
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def moment(text: str) -> int:
    """Seconds since the epoch of a time such as ``2026-11-21T12:00:03Z``.

    The calendar is the proleptic Gregorian one, its years beginning in
    March, so that leap days come last.
    """
    year, month, day, hour, minute, second = map(int, _DIGITS.findall(text))
    year -= month <= 2
    days = (
        365 * year
        + year // 4
        - year // 100
        + year // 400
        + (153 * ((month + 9) % 12) + 2) // 5
        + day
        - 719_469
    )
    return ((days * 24 + hour) * 60 + minute) * 60 + second


def plural(count: int, one: str, many: str = "") -> str:
    """A number with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def short(name: str, longest: int = _LONGEST) -> str:
    """A name that fits a drawing; its end tells hosts apart, and stays."""
    if len(name) <= longest:
        return name
    tail = longest // 2
    return f"{name[: longest - tail - 1]}…{name[-tail:]}"


def refusal(one: Mapping[str, Any]) -> list[str]:
    """Why an instance of a document stays: its own rule, or each target's.

    One host stands for all that a rule rejects.
    """
    if one["rejection"] is not None:
        return [f"{one['rejection']['reason']} ({one['rejection']['rule']})"]
    by_rule: dict[str, list[tuple[str, str]]] = {}
    for host, found in one["targets"].items():
        if found["rule"] != "elsewhere":
            by_rule.setdefault(found["rule"], []).append(
                (host, found["reason"])
            )
    if not by_rule:
        return ["there is no other host"]
    return [
        f"{plural(len(found), 'host')} by {rule}, for example {found[0][0]}: "
        f"{found[0][1]}"
        for rule, found in sorted(by_rule.items())
    ]


def places(positions: Sequence[int]) -> str:
    """Numbers of steps, counted from 1."""
    return ", ".join(str(place + 1) for place in positions) or MISSING
