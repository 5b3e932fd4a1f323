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

"""Mixing on real services: what is planned is done, and once is enough."""

from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

# 8 of 24 Gold units, all on host-1; up to 4 on each host are even.
LOPSIDED = specs.three_tiers(
    *(instance(f"gold-{n}", "gold.2", "host-1") for n in range(4)),
)


def test_tiers_are_evened_out_where_that_is_asked_for(
    cloud: EmbeddedCloud, load: Load, operator: Operator, truth: Truth
) -> None:
    """R84, R101: nothing without ``mix_tiers``; with it two of four
    instances leave, by steps that find their reason still there, and the
    next audit has nothing to do.
    """
    load(LOPSIDED)
    assert operator.audit().moves == {}

    audit = operator.audit(mix_tiers=True)
    assert len(audit.moves) == 2
    assert audit.said("2 migrations for mixing")
    operator.start(audit.plan)
    where = list(truth.locations().values())
    assert where.count("host-1") == 2
    assert truth.over() == {}

    again = operator.audit(mix_tiers=True)
    assert again.moves == {}
    assert again.said("no host is above an even share")
