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

"""The weigher's choice on a real cloud equals the documented ranking (R54).

The specification's formula is written down here once more, in its plainest
form, and fed with the provider summaries that Placement itself answers::

    host-2  gold 4 of 8   a child provider with two idle classes
    host-3  gold 3 of 8
    host-4  gold 3 of 8   and a trait that nobody asks for
    host-5  gold 5 of 8   cannot take the mover
"""

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from tests.cloud import ChildProviderSpec
from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.functional.truth import Truth
from tests.functional.watcher_api import Operator

ACCELERATOR = "CUSTOM_ACCELERATOR"
SSD = "CUSTOM_SSD"
REQUEST = {"VCPU": 4, "MEMORY_MB": 1024, "DISK_GB": 1, specs.GOLD: 4}
DIFFERENT_HOSTS = specs.three_tiers(
    instance("mover", "gold.4", "host-1"),
    instance("on-2", "gold.4", "host-2"),
    instance("on-3", "gold.3", "host-3"),
    instance("on-4", "gold.3", "host-4"),
    instance("on-5", "gold.5", "host-5"),
    hosts=(
        specs.host("host-1", traits=(SSD,)),
        specs.host(
            "host-2",
            traits=(SSD,),
            children=(
                ChildProviderSpec(
                    name_suffix="card",
                    inventories={
                        ACCELERATOR: {"total": 8},
                        "CUSTOM_LICENCE": {"total": 8},
                    },
                ),
            ),
        ),
        specs.host("host-3", traits=(SSD,)),
        specs.host("host-4", traits=(SSD, "CUSTOM_NOBODY_ASKS")),
        specs.host("host-5", traits=(SSD,)),
    ),
    flavors=(
        specs.flavor("gold.4", extra_specs={f"trait:{SSD}": "required"}),
    ),
    events=(specs.inventory("host-1", "gold", total=2),),
)


@pytest.mark.parametrize(
    ("parameters", "best"),
    [
        pytest.param({}, "host-3", id="requested-classes"),
        pytest.param(
            {"weigher_resource_classes": "all"}, "host-2", id="all-classes"
        ),
        pytest.param(
            {"weigher_resource_classes": [ACCELERATOR]},
            "host-2",
            id="a-list-of-classes",
        ),
        pytest.param({"weigher_traits": []}, "host-3", id="no-traits"),
    ],
)
def test_the_chosen_target_has_the_highest_documented_weight(
    cloud: EmbeddedCloud,
    load: Load,
    operator: Operator,
    truth: Truth,
    parameters: Mapping[str, Any],
    best: str,
) -> None:
    """R55-R63: trees flattened, classes and traits as the audit lists them.

    With all classes the idle ones, which the mover does not ask for, attract
    it to host-2.

    host-4 equals host-3 but for its extra trait and its name; where traits
    do not count, the name decides.
    """
    load(DIFFERENT_HOSTS, shared=True)

    weights = _weights(cloud, truth, parameters)
    audit = operator.audit(**parameters)

    highest = max(weights.values())
    ranking = sorted(
        name for name, weight in weights.items() if weight == highest
    )
    assert ranking[0] == best
    assert audit.moves == {"mover": ("host-1", best)}
    # The log shows the weight that the formula gives.
    assert audit.said("mover", f"{best} weighs {highest:.3f}")


def _weights(
    cloud: EmbeddedCloud, truth: Truth, parameters: Mapping[str, Any]
) -> dict[str, float]:
    """The documented formula on Placement's own allocation candidates."""
    answer = cloud.placement.get(
        "/allocation_candidates",
        params={
            "resources": ",".join(f"{c}:{n}" for c, n in REQUEST.items()),
            "required": SSD,
        },
    ).json()
    names = {uuid: name for name, uuid in truth.providers().items()}
    trees: dict[str, list[Mapping[str, Any]]] = {}
    for summary in answer["provider_summaries"].values():
        name = names[summary["root_provider_uuid"]]
        trees.setdefault(name, []).append(summary)
    trees.pop("host-1", None)
    assert set(trees) == {"host-2", "host-3", "host-4"}
    classes = parameters.get("weigher_resource_classes", "requested")
    traits = parameters.get("weigher_traits", "all")
    return {
        name: (_resources(tree, classes) + _traits(tree, traits)) / 2
        for name, tree in trees.items()
    }


def _resources(
    tree: Collection[Mapping[str, Any]], classes: Collection[str]
) -> float:
    free: dict[str, int] = {}
    for summary in tree:
        for name, amounts in summary["resources"].items():
            units = amounts["capacity"] - amounts["used"]
            free[name] = free.get(name, 0) + units
    if classes == "requested":
        classes = set(REQUEST)
    elif classes == "all":
        classes = set(free)
    ratios = [
        1 - REQUEST.get(name, 0) / units if units > 0 else 0.0
        for name, units in sorted(free.items())
        if name in classes
    ]
    return sum(ratios) / len(ratios) if ratios else 0.0


def _traits(
    tree: Collection[Mapping[str, Any]], counted: Collection[str]
) -> float:
    available = {trait for summary in tree for trait in summary["traits"]}
    if counted != "all":
        available &= set(counted)
    return len({SSD} & available) / len(available) if available else 0.0
