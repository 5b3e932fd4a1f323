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

"""Loads of a declared cloud, run by the simulated kernel, told to Gnocchi.

What an instance gets is the simulation's business (``tests/cloud/kernel.py``),
never that of the entitlements which the product predicts by.
"""

from __future__ import annotations

from collections.abc import Mapping
import time
import typing

from tests.cloud import gnocchi
from tests.cloud import kernel

if typing.TYPE_CHECKING:
    from tests.cloud import cloud as embedded

WINDOW = 300
#: Samples that are written: what an audit looks at, and some before.
SAMPLES = 8


def tell(
    cloud: embedded.EmbeddedCloud,
    loads: Mapping[str, kernel.Demand],
    *,
    placed: Mapping[str, str] | None = None,
    daemons: Mapping[str, float] | None = None,
    ends: int | None = None,
    without: frozenset[str] = frozenset(),
) -> dict[str, kernel.Series]:
    """Write the counters of every instance, up to now.

    :param loads: demand per vCPU by name; who is not named is idle
    :param placed: {instance: host} of those that have moved since
    :param daemons: {host: CPUs that its daemons want}
    :param ends: when the last sample is taken; now unless it is given
    :param without: names of instances that nobody polls
    :returns: {instance: its counters}
    """
    end = (int(time.time()) if ends is None else ends) // WINDOW * WINDOW
    counters = kernel.counters(
        cloud.spec,
        loads,
        begin=end - SAMPLES * WINDOW,
        interval_seconds=WINDOW,
        samples=SAMPLES + 1,
        placed=placed,
        daemons=daemons,
        otherwise=0.01,
        simulated_seconds=4.0,
    )
    servers = {one["name"]: one for one in cloud.population.servers()}
    cloud.gnocchi.forget()
    cloud.gnocchi.write(
        {
            gnocchi.Resource(
                uuid=servers[name]["id"],
                name=name,
                project=servers[name]["tenant_id"],
            ): series
            for name, series in counters.items()
            if name not in without
        }
    )
    return counters
