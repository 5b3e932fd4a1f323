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

"""Days of audits: nothing unsafe, no ping-pong, and an end to it."""

import pytest

from tests.simulation import world

SEEDS = range(3)
CAP = 5
DAYS = 2
HOURS = 24


def lived(seed: int, hours: int, *, fill: float = 0.85) -> world.World:
    """A world after a while without audits: something is over quota."""
    found = world.World(seed, fill=fill)
    for _ in range(hours):
        found.hour()
    return found


def settle(found: world.World, cap: int, most: int = 200) -> list[world.Audit]:
    """Audits under unchanged load, until one has nothing to do."""
    audits = []
    for _ in range(most):
        audits.append(found.audit(cap))
        if not audits[-1].plan.migrations:
            return audits
    raise AssertionError(f"{most} audits and no end")


@pytest.mark.parametrize("seed", SEEDS[:2])
def test_days_of_audits(seed: int) -> None:
    """L2 and L6 at every step, whatever happens in between and fails; what
    an audit leaves is never more over quota than what it found.
    """
    found = world.World(seed)
    migrations = 0
    for _ in range(DAYS * HOURS):
        found.hour()
        before = sum(found.residual())
        audit = found.audit(CAP, world.FAILURES)
        assert not audit.wrong
        assert len(audit.plan.migrations) <= CAP
        assert sum(found.residual()) <= before
        migrations += len(audit.moved)
    assert migrations, "nothing happened in all these days"


@pytest.mark.parametrize("fill", [0.7, 0.9])
@pytest.mark.parametrize("seed", SEEDS)
def test_audits_end_within_the_bound(seed: int, fill: float) -> None:
    """Successive audits converge: under unchanged load they take no more
    than :func:`world.audits_needed` says, and when they have come to an end,
    an audit without a cap has nothing to add.
    """
    found = lived(seed, HOURS, fill=fill)
    whole = found.plan(0)
    audits = settle(found, CAP)
    assert [text for audit in audits for text in audit.wrong] == []
    assert not found.plan(0).migrations
    assert len(audits) <= world.audits_needed(whole, CAP)


@pytest.mark.parametrize("cap", [2, 0])
@pytest.mark.parametrize("seed", SEEDS)
def test_no_ping_pong(seed: int, cap: int) -> None:
    """L3 "No instance moves twice except for a declared parking move. No
    ping-pong across audits with unchanged load."
    """
    found = lived(seed, HOURS, fill=0.9)
    audits = settle(found, cap)
    settled: set[str] = set()
    for audit in audits:
        moving = {uuid for uuid, _, _ in audit.moved}
        assert moving.isdisjoint(settled)
        settled |= moving
    assert not world.returns([m for audit in audits for m in audit.moved])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_uncapped_audit_is_a_fixed_point(seed: int) -> None:
    """L3 "planning the resulting cluster again gives an empty plan"."""
    found = lived(seed, HOURS, fill=0.9)
    assert not found.audit(0).wrong
    assert not found.plan(0).migrations


@pytest.mark.parametrize("seed", SEEDS)
def test_failures_only_delay(seed: int) -> None:
    """What fails is tried again, until nothing is left to try."""
    found = lived(seed, HOURS, fill=0.7)
    before = sum(found.residual())
    for _ in range(5):
        audit = found.audit(CAP, failures=0.5)
        assert not audit.wrong
        after = sum(found.residual())
        assert after <= before
        before = after
    settle(found, CAP)
    assert not found.plan(0).migrations


def test_a_cloud_within_its_quotas_is_left_alone() -> None:
    found = world.World(1, fill=0.95)
    assert not any(found.residual())
    assert not found.audit(0).plan.migrations


def test_the_same_seed_is_the_same_story() -> None:
    one, other = (lived(3, HOURS) for _ in range(2))
    assert one.cluster() == other.cluster()
    assert one.audit(CAP).moved == other.audit(CAP).moved
