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

"""L7 and L8 of the design, against oracles that work without arrays."""

import dataclasses
import math
import random

from hypothesis import event
from hypothesis import given
from hypothesis import settings
from hypothesis import strategies as st
import numpy as np
import pytest

from tests import builders
from tests import entitlements
from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import entitlement
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation

CLOSE = 1e-9


@dataclasses.dataclass(frozen=True)
class Host:
    """Weights and caps of its domains, and the CPUs that they can get."""

    weights: list[float]
    caps: list[float]
    cpus: float


@st.composite
def hosts(draw: st.DrawFn) -> Host:
    size = draw(st.integers(1, 8))
    weights = st.sampled_from([512, 333, 167, 100, 1024, 4096, 2, 10000])
    caps = st.sampled_from([1, 0, 8]) | st.floats(0, 8)
    return Host(
        draw(st.lists(weights, min_size=size, max_size=size)),
        draw(st.lists(caps, min_size=size, max_size=size)),
        draw(st.sampled_from([1, 4, 0, 16]) | st.floats(0, 16)),
    )


def fill(*filled: Host) -> list[list[float]]:
    """Shares on each host, all of them filled at once, rows interleaved."""
    rows = [
        (number, weight, cap)
        for number, host in enumerate(filled)
        for weight, cap in zip(host.weights, host.caps, strict=True)
    ]
    rows.sort(key=lambda row: row[1])  # hosts in no order
    home, weights, caps = (list(column) for column in zip(*rows, strict=True))
    shares = entitlement.fill(weights, caps, home, [h.cpus for h in filled])
    found: list[list[float]] = [[] for _ in filled]
    for number, share in zip(home, shares.tolist(), strict=True):
        found[number].append(share)
    return found


def by_weight(host: Host) -> Host:
    """The same in the order in which :func:`fill` answers."""
    order = sorted(range(len(host.weights)), key=lambda i: host.weights[i])
    return Host(
        [host.weights[i] for i in order],
        [host.caps[i] for i in order],
        host.cpus,
    )


@given(st.lists(hosts(), min_size=1, max_size=4))
def test_l7_agrees_with_the_exact_water_filling(clouds: list[Host]) -> None:
    for host, found in zip(clouds, fill(*clouds), strict=True):
        told = by_weight(host)
        exact = entitlements.fill(told.weights, told.caps, told.cpus)
        event(f"short: {sum(host.caps) > host.cpus}")
        assert found == pytest.approx([float(x) for x in exact], abs=CLOSE)


@given(hosts())
def test_l7_conserves_cpus(host: Host) -> None:
    """L7 "sum of entitlements = min(C, sum of caps)"; and nobody has more
    than his cap.
    """
    (found,) = fill(host)
    wanted = math.fsum(host.caps)
    assert math.fsum(found) == pytest.approx(min(host.cpus, wanted), abs=CLOSE)
    for share, cap in zip(found, by_weight(host).caps, strict=True):
        assert 0 <= share <= cap
    if wanted <= host.cpus:
        assert found == by_weight(host).caps


@given(hosts(), st.floats(1, 100), st.data())
def test_l7_is_monotone_in_own_weight(
    host: Host, factor: float, data: st.DataObject
) -> None:
    """L7 "monotone in own weight": who weighs more has no less, and nobody
    else has more.
    """
    who = data.draw(st.integers(0, len(host.weights) - 1))
    home = [0] * len(host.weights)
    heavier = list(host.weights)
    heavier[who] *= factor
    before = entitlement.fill(host.weights, host.caps, home, [host.cpus])
    after = entitlement.fill(heavier, host.caps, home, [host.cpus])
    assert after[who] >= before[who] - CLOSE
    others = np.arange(len(home)) != who
    assert np.all(after[others] <= before[others] + CLOSE)


@given(hosts(), st.floats(1e-3, 1e3))
def test_l7_scaling_all_weights_changes_nothing(
    host: Host, factor: float
) -> None:
    """L7 "scaling all weights changes nothing"."""
    scaled = dataclasses.replace(
        host, weights=[weight * factor for weight in host.weights]
    )
    assert fill(scaled)[0] == pytest.approx(fill(host)[0], abs=CLOSE)


@given(hosts(), hosts())
def test_l7_one_host_is_nothing_to_another(one: Host, other: Host) -> None:
    """To the last bit, and so the plan is the same byte for byte."""
    assert fill(one, other) == fill(one) + fill(other)


# --- L8


def part(draw: st.DrawFn, most: float) -> float:
    """A part of a number that is on no threshold by chance."""
    return most * draw(st.integers(0, 996)) / 996.73


@st.composite
def readings(
    draw: st.DrawFn, one: model.Instance, windows: int
) -> tuple[model.Reading | None, ...]:
    """Of one instance: much the same in all windows, as loads are."""
    vcpus = one.flavor.vcpus
    busy = part(draw, vcpus)
    waits = part(draw, vcpus - busy)
    found: list[model.Reading | None] = []
    for _ in range(windows):
        if draw(st.integers(0, 15)) == 7:
            found.append(None)
            continue
        if draw(st.integers(0, 5)) == 3:
            busy = part(draw, vcpus)
            waits = part(draw, vcpus - busy)
        found.append(model.Reading(usage_cpus=busy, steal_cpus=waits))
    return tuple(found)


@st.composite
def clouds(draw: st.DrawFn) -> model.Cluster:
    """One to three hosts with up to six instances each, and an empty one
    that has all tiers.
    """
    names = [f"h{n}" for n in range(draw(st.integers(1, 3)))]
    amounts = st.sampled_from([4, 2, 8, None])
    places = [
        builders.host(
            name,
            vcpus=draw(st.sampled_from([4, 8])),
            gold=4,
            silver=draw(amounts),
            bronze=draw(amounts),
        )
        for name in names
    ]
    places.append(builders.host("spare"))
    people = [
        builders.instance(
            f"{name}-{number}",
            name,
            draw(st.sampled_from([1, 2, 4])),
            draw(st.sampled_from(["gold", "silver", "bronze", None])),
            extra_specs=draw(
                st.sampled_from([{}, {"quota:cpu_shares": "512"}])
            ),
            status=draw(st.sampled_from(["ACTIVE"] * 5 + ["SHUTOFF"])),
        )
        for name in names
        for number in range(draw(st.integers(1, 6)))
    ]
    windows = draw(st.integers(2, 3))
    told = {
        one.uuid: draw(readings(one, windows))
        for one in people
        if one.status == "ACTIVE" and draw(st.integers(0, 9)) != 4
    }
    return builders.cluster(
        places,
        people,
        telemetry=model.Telemetry(
            source="gnocchi",
            window_seconds=300,
            windows=tuple(range(0, 300 * windows, 300)),
            readings=model.frozen_map(told),
        ),
    )


def judge(cloud: model.Cluster) -> starvation.Starvation:
    params = parameters.Parameters.of({"windows": 2})
    verdict = diagnosing.diagnose(cloud, params)
    return starvation.judge(cloud, verdict, params)


@given(clouds())
def test_verdicts_are_those_of_the_definition(cloud: model.Cluster) -> None:
    """Section 8 of the design, one instance at a time."""
    found = judge(cloud)
    if found.abstained:
        event("abstained")
        return
    expected = entitlements.verdicts(cloud, 2)
    assert set(expected) == set(found.verdicts)
    for uuid, verdict in found.verdicts.items():
        event(verdict)
        last = verdict in starvation.VERDICTS[5:]
        assert expected[uuid] == ("starved" if last else verdict)
    assert sum(found.counts.values()) == len(cloud.instances)
    assert {c.instance.uuid for c in found.starved} == {
        uuid
        for uuid, verdict in found.verdicts.items()
        if verdict in starvation.VERDICTS[3:]
    }
    assert all(c.cause and c.remedy for c in found.starved)


@given(clouds(), st.data())
def test_l8_a_missing_number_is_never_zero(
    cloud: model.Cluster, data: st.DataObject
) -> None:
    """L8 "Missing is never zero": who loses a reading is unknown, and for
    the others it makes no difference between starved and not.
    """
    before = judge(cloud)
    assert cloud.telemetry is not None
    told = dict(cloud.telemetry.readings)
    if not told:
        return
    who = data.draw(st.sampled_from(sorted(told)))
    window = data.draw(st.integers(1, 2))
    lost = list(told[who])
    lost[-window] = None
    told[who] = tuple(lost)
    after = judge(
        dataclasses.replace(
            cloud,
            telemetry=dataclasses.replace(
                cloud.telemetry, readings=model.frozen_map(told)
            ),
        )
    )
    if before.abstained:
        assert after.abstained
        return
    if after.abstained:
        event("the last reading was lost")
        return
    assert after.verdicts[who] == "unknown"
    assert after.coverage <= before.coverage
    for uuid, verdict in before.verdicts.items():
        if uuid != who:
            assert _class(after.verdicts[uuid]) == _class(verdict)


def _class(verdict: str) -> str:
    return "starved" if verdict in starvation.VERDICTS[3:] else verdict


@settings(max_examples=30)
@given(clouds(), st.randoms(use_true_random=False))
def test_l4_the_order_of_everything_is_nothing(
    cloud: model.Cluster, chance: random.Random
) -> None:
    people = list(cloud.instances)
    places = list(cloud.hosts)
    chance.shuffle(people)
    chance.shuffle(places)
    assert cloud.telemetry is not None
    told = list(cloud.telemetry.readings.items())
    chance.shuffle(told)
    empty = builders.cluster(
        sorted(
            (
                dataclasses.replace(
                    place,
                    providers=tuple(
                        dataclasses.replace(p, allocated=model.frozen_map())
                        for p in place.providers
                    ),
                )
                for place in places
            ),
            key=lambda place: place.name,
        ),
        people,
        telemetry=dataclasses.replace(cloud.telemetry, readings=dict(told)),
    )
    one, other = judge(cloud), judge(empty)
    assert one == other
    assert repr(one) == repr(other)


@settings(max_examples=50)
@given(clouds())
def test_a_forecast_of_what_is_conserves_cpus(cloud: model.Cluster) -> None:
    """L7 for predictions, and moves add up: there and back is nothing."""
    found = judge(cloud)
    if found.abstained:
        return
    now = found.predict(
        starvation.Population(host=host.name) for host in cloud.hosts
    )
    for forecast, host in zip(now, cloud.hosts, strict=True):
        given_cpus = math.fsum(forecast.usage_cpus.values())
        assert given_cpus <= found.usable_cpus[host.name] + CLOSE
        here = cloud.instances_by_host.get(host.name, ())
        assert set(forecast.usage_cpus) == {i.uuid for i in here}
        for one in here:
            back = starvation.Population(
                host=host.name,
                arrivals=frozenset({one.uuid}),
                departures=frozenset({one.uuid}),
            )
            assert found.predict([back]) == (forecast,)
