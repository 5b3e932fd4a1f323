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

"""Entitlement and the rule on starvation on the kernel of this machine.

A short version of ``python -m benchmarks kernel``: real processes in real
groups with the tiers' weights. It needs root and the cpu cgroup controller.
All share one CPU, so that nothing depends on where they are put; shares are
of the CPU that they really got together, so that other work disturbs little.
"""

from collections.abc import Sequence
import pathlib

import pytest

from benchmarks import cgroups
from benchmarks import kernel

WINDOWS = 2
WINDOW_SECONDS = 1.5
TOLERANCE_CPUS = 0.03


@pytest.fixture(autouse=True)
def _possible() -> None:
    try:
        controller = cgroups.Controller()
        controller.open()
    except cgroups.UnavailableError as reason:
        pytest.skip(f"loads in cgroups: {reason}")
    controller.close()


def _measured(*tenants: kernel.Tenant) -> Sequence[Sequence[kernel.Seen]]:
    mix = kernel.mix(kernel.BUSY, "test", *tenants)
    return kernel.measure(
        [mix], windows=WINDOWS, window_seconds=WINDOW_SECONDS
    )


def _left_behind() -> list[pathlib.Path]:
    controller = cgroups.Controller()
    return [
        path
        for root in controller.roots
        for path in root.glob(controller.slice)
    ]


def test_tiers_get_what_was_predicted_and_nobody_starves() -> None:
    """Gold wants a quarter and waits for as long, which is what it pays."""
    rows = _measured(
        kernel.tenant("gold", 0.25),
        kernel.tenant("silver"),
        kernel.tenant("bronze"),
    )

    for seen in (seen for row in rows for seen in row):
        name = seen.tenant.guest.name
        assert seen.error_cpus < TOLERANCE_CPUS, name
        assert not seen.starved, name
    for seen in (seen for row in rows[1:] for seen in row):
        assert seen.usage + seen.steal == pytest.approx(1, abs=0.1)
    assert _left_behind() == []


def test_plain_shares_on_four_vcpus_starve() -> None:
    """A weight is of the domain: its vCPUs share what one was promised."""
    silver, gold, other = _measured(
        kernel.tenant("silver", 1, 1, 1, 1, weight=333, short=True),
        kernel.tenant("gold0"),
        kernel.tenant("gold1"),
    )

    assert all(seen.starved for seen in silver)
    assert not any(seen.starved for seen in (*gold, *other))
    for seen in (*silver, *gold, *other):
        assert seen.error_cpus < TOLERANCE_CPUS


def test_nothing_is_left_when_a_measurement_fails() -> None:
    controller = cgroups.Controller()
    guests = [cgroups.Guest(name="gold", weight=512)]

    with (
        pytest.raises(ZeroDivisionError),
        cgroups.Machine(
            controller, guests, cgroups.quietest_cpus(1), life_seconds=60
        ),
    ):
        raise ZeroDivisionError
    assert _left_behind() == []
