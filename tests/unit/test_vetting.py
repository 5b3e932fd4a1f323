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


"""Which readings are fit: one table of what is wrong with the others.

Windows of 300 s begin at 300, 600 and 900; what came before serves to tell
gaps. An instance has two vCPUs, unless a test says otherwise.
"""

import math

import hypothesis
from hypothesis import strategies as st
import pytest

from tests import builders
from watcher_cputier import model
from watcher_cputier import vetting

LENGTH = 300
WINDOWS = (300, 600, 900)
ALL = (0, *WINDOWS)
INSTANCE = builders.instance("i", "host-1", 2)
ROWS = dict[int, float]


def even(value: float) -> ROWS:
    """The same value in every window, the one before them included."""
    return dict.fromkeys(ALL, value)


def measured(
    rows: ROWS, unit: str = "s", reach: int = LENGTH
) -> vetting.Measured:
    return vetting.Measured(unit=unit, values={"i": rows}, reach_seconds=reach)


def vet(
    cpu: vetting.Measured,
    steal: vetting.Measured,
    *changes: model.Change,
    instance: model.Instance = INSTANCE,
    includes_wait: bool = False,
) -> model.Telemetry:
    return vetting.vet(
        source="somewhere",
        windows=WINDOWS,
        window_seconds=LENGTH,
        instances=[instance],
        cpu=cpu,
        steal=steal,
        changes={"i": changes},
        cpu_includes_wait=includes_wait,
    )


def change(
    began_at: int, ended_at: int | None, kind: str = "reboot"
) -> model.Change:
    return model.Change(
        instance="i", kind=kind, began_at=began_at, ended_at=ended_at
    )


def fit(found: model.Telemetry) -> list[bool]:
    """Which of the three windows have a reading."""
    return [reading is not None for reading in found.readings["i"]]


# --- units


@pytest.mark.parametrize(
    ("unit", "value", "cpus"),
    [
        ("ns", 1.5e9, 1.5),
        ("s", 1.5, 1.5),
        ("fraction", 0.75, 1.5),
        ("percent", 75.0, 1.5),
    ],
)
def test_units_become_cpus_of_the_whole_instance(
    unit: str, value: float, cpus: float
) -> None:
    found = vet(measured(even(value), unit), measured(even(0.0)))
    assert found.rejected == {}
    assert found.windows == WINDOWS
    assert (
        found.readings["i"]
        == (model.Reading(usage_cpus=pytest.approx(cpus), steal_cpus=0.0),) * 3
    )


def test_a_measured_zero_is_a_reading() -> None:
    found = vet(measured(even(0.0)), measured(even(0.0)))
    assert (
        found.readings["i"]
        == (model.Reading(usage_cpus=0.0, steal_cpus=0.0),) * 3
    )


def test_who_has_nothing_is_left_out_and_not_counted() -> None:
    nothing = vetting.Measured(unit="ns", values={})
    found = vet(nothing, nothing)
    assert found.readings == {}
    assert found.rejected == {}


# --- what is wrong with one value


ODD: dict[str, tuple[vetting.Measured, vetting.Measured, str]] = {
    "negative usage": (
        measured({**even(1.0), 600: -5.0}),
        measured(even(0.1)),
        vetting.NEGATIVE,
    ),
    "negative steal": (
        measured(even(1.0)),
        measured({**even(0.1), 600: -0.001}),
        vetting.NEGATIVE,
    ),
    "no number": (
        measured({**even(1.0), 600: math.nan}),
        measured(even(0.1)),
        vetting.NOT_FINITE,
    ),
    "infinite": (
        measured(even(1.0)),
        measured({**even(0.1), 600: math.inf}),
        vetting.NOT_FINITE,
    ),
    "beyond a fraction": (
        measured({**even(0.5), 600: 1.5}, "fraction"),
        measured(even(0.1)),
        vetting.OUT_OF_RANGE,
    ),
    "below a percentage": (
        measured({**even(50.0), 600: -1.0}, "percent"),
        measured(even(0.1)),
        vetting.OUT_OF_RANGE,
    ),
    "usage and steal together beyond the vCPUs": (
        measured({**even(1.0), 600: 1.5}),
        measured({**even(0.1), 600: 1.5}),
        vetting.TOO_MUCH,
    ),
    "steal is missing": (
        measured(even(1.0)),
        measured({t: 0.1 for t in ALL if t != 600}, reach=0),
        vetting.NO_STEAL,
    ),
    "usage is missing": (
        measured({t: 0.1 for t in ALL if t != 600}, reach=0),
        measured(even(1.0)),
        vetting.NO_USAGE,
    ),
}


@pytest.mark.parametrize(("cpu", "steal", "why"), ODD.values(), ids=ODD.keys())
def test_what_is_odd_is_rejected_and_counted(
    cpu: vetting.Measured, steal: vetting.Measured, why: str
) -> None:
    found = vet(cpu, steal)
    assert fit(found) == [True, False, True]
    assert found.rejected == {why: 1}


def test_uneven_polls_may_read_a_little_too_much() -> None:
    found = vet(measured(even(2.1)), measured(even(0.2)))
    assert fit(found) == [True] * 3


def test_unfit_readings_alone_are_not_nothing() -> None:
    found = vet(measured(even(-1.0)), measured(even(0.0)))
    assert found.readings == {"i": (None, None, None)}
    assert found.rejected == {vetting.NEGATIVE: 3}


# --- gaps


def test_a_value_after_a_gap_is_no_rate_of_its_window() -> None:
    holed = {0: 1.0, 300: 1.0, 900: 1.0}
    found = vet(measured(holed), measured(holed))
    assert fit(found) == [True, False, False]
    assert found.rejected == {vetting.GAP: 1}


def test_the_first_value_ever_follows_a_gap() -> None:
    late = {600: 1.0, 900: 1.0}
    found = vet(measured(late), measured(late))
    assert fit(found) == [False, False, True]


def test_gauges_and_ready_made_rates_know_no_gap() -> None:
    holed = {900: 1.0}
    found = vet(measured(holed, reach=0), measured(holed, reach=0))
    assert fit(found) == [False, False, True]
    assert found.rejected == {}


# --- changes


CHANGES: dict[str, tuple[model.Change, int, list[bool]]] = {
    "long ago": (change(-500, -400), LENGTH, [True, True, True]),
    "just before the first sample": (change(-10, 0), LENGTH, [True] * 3),
    "before the first window, within its reach": (
        change(-10, 1),
        LENGTH,
        [False, True, True],
    ),
    "the same for ready-made rates": (change(-10, 1), 0, [True] * 3),
    "within a window": (change(650, 660), LENGTH, [True, False, False]),
    "within a window, for ready-made rates": (
        change(650, 660),
        0,
        [True, False, True],
    ),
    "over an end": (change(590, 610), 0, [False, False, True]),
    "still going on": (change(610, None), LENGTH, [True, False, False]),
    "after the last window": (change(1200, 1300), LENGTH, [True] * 3),
}


@pytest.mark.parametrize(
    ("happened", "reach", "expected"), CHANGES.values(), ids=CHANGES.keys()
)
def test_windows_that_span_a_change_are_rejected(
    happened: model.Change, reach: int, expected: list[bool]
) -> None:
    found = vet(
        measured(even(1.0), reach=reach),
        measured(even(0.1), reach=reach),
        happened,
    )
    assert fit(found) == expected
    lost = expected.count(False)
    assert found.rejected == (
        {"spans a change (reboot)": lost} if lost else {}
    )


def test_a_change_explains_more_than_the_negative_rate_that_it_makes() -> None:
    found = vet(
        measured({**even(1.0), 600: -9.0}),
        measured(even(0.1)),
        change(650, 660, "live-migration"),
    )
    assert found.rejected == {"spans a change (live-migration)": 2}


def test_changes_that_are_found_later_take_their_windows_out() -> None:
    rows = measured(even(1.0)), measured(even(0.1))
    happened = change(650, 660)
    later = vetting.without_changes(vet(*rows), {"i": [happened]})
    assert later == vet(*rows, happened)
    # Once more, or for nobody: nothing changes.
    assert vetting.without_changes(later, {"i": [happened]}) == later
    assert vetting.without_changes(later, {"j": [happened]}) == later


# --- wait


def test_the_wait_is_taken_off_where_usage_includes_it() -> None:
    found = vet(measured(even(1.5)), measured(even(0.5)), includes_wait=True)
    assert found.readings["i"][0] == model.Reading(
        usage_cpus=1.0, steal_cpus=0.5
    )


def test_more_wait_than_usage_and_wait_is_odd() -> None:
    found = vet(measured(even(0.1)), measured(even(1.5)), includes_wait=True)
    assert found.rejected == {vetting.WAIT_MISSING: 3}


# --- doubts


def cloud(count: int = 6) -> list[model.Instance]:
    return builders.instances("i", "host-1", [2] * count)


def spread(
    low: float, high: float, unit: str, count: int = 6
) -> vetting.Measured:
    """Instances from idle to busy."""
    return vetting.Measured(
        unit=unit,
        values={
            f"i{n}": dict.fromkeys(
                WINDOWS, low * (high / low) ** ((n - 1) / (count - 1))
            )
            for n in range(1, count + 1)
        },
    )


# What instances from idle to busy read, in each unit.
TRUE = {
    "ns": (1e6, 1.2e9),
    "s": (1e-3, 1.2),
    "fraction": (1e-3, 0.95),
    "percent": (0.1, 95.0),
}


@pytest.mark.parametrize("said", TRUE)
@pytest.mark.parametrize("meant", TRUE)
def test_a_wrong_unit_is_doubted_and_the_right_one_named(
    said: str, meant: str
) -> None:
    cpu = spread(*TRUE[meant], said)
    steal = vetting.Measured(unit="ns", values={})
    found = vetting.doubts(cloud(), cpu, steal)
    # A second per second and a fraction are alike, and a percentage could be
    # either of an idle or of a busy cloud.
    alike = {("s", "percent"), ("percent", "s"), ("percent", "fraction")}
    if (
        said == meant
        or {said, meant} == {"s", "fraction"}
        or (said, meant) in alike
    ):
        assert found == ()
    else:
        (doubt,) = found
        assert doubt.role == "cpu"
        assert meant in doubt.units
        assert said not in doubt.units


def test_nanoseconds_that_are_called_seconds_are_noticed_in_steal() -> None:
    cpu = spread(*TRUE["s"], "s")
    steal = spread(1e3, 1e8, "s")
    (doubt,) = vetting.doubts(cloud(), cpu, steal)
    assert doubt.role == "steal"
    assert doubt.units == ("ns",)
    assert "CPUs on one vCPU" in doubt.text


def test_an_idle_cloud_raises_no_doubt() -> None:
    none = vetting.Measured(
        unit="ns", values={f"i{n}": even(0.0) for n in range(1, 7)}
    )
    assert vetting.doubts(cloud(), spread(2e5, 3e6, "ns"), none) == ()


def test_single_odd_values_raise_no_doubt() -> None:
    cpu = spread(*TRUE["s"], "s")
    values = {**cpu.values, "i1": {300: 1e9, 600: -1e9, 900: math.nan}}
    odd = vetting.Measured(unit="s", values=values)
    assert vetting.doubts(cloud(), odd, spread(1e-4, 0.5, "s")) == ()
    few = vetting.Measured(unit="s", values={"i1": {300: 1e9, 600: 1e9}})
    assert vetting.doubts(cloud(), few, few) == ()


# --- the law


values = st.one_of(
    st.floats(allow_nan=True, allow_infinity=True),
    st.floats(min_value=0, max_value=3),
)
rows = st.dictionaries(st.sampled_from(ALL), values)


@hypothesis.given(
    cpu=rows,
    steal=rows,
    unit=st.sampled_from(vetting.UNITS),
    reach=st.sampled_from([0, LENGTH]),
    began=st.integers(-900, 1500),
    lasted=st.one_of(st.none(), st.integers(0, 900)),
)
def test_missing_is_never_zero(
    cpu: ROWS,
    steal: ROWS,
    unit: str,
    reach: int,
    began: int,
    lasted: int | None,
) -> None:
    """L8: a reading stands on two values, and is one that a kernel makes."""
    happened = change(began, None if lasted is None else began + lasted)
    found = vet(
        measured(cpu, unit, reach), measured(steal, unit, reach), happened
    )
    row = found.readings.get("i", (None,) * 3)
    for window, reading in zip(WINDOWS, row, strict=True):
        if reading is None:
            continue
        assert window in cpu
        assert window in steal
        assert reading.usage_cpus >= 0
        assert reading.steal_cpus >= 0
        assert reading.usage_cpus + reading.steal_cpus <= 2 * (
            1 + vetting.TOLERANCE
        )
    there = sum(1 for window in WINDOWS if window in cpu or window in steal)
    fit_ones = sum(1 for reading in row if reading is not None)
    assert fit_ones + sum(found.rejected.values()) == there
