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

"""Promise against delivery, as one bar a tier."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

_WIDTH = 400.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """What one tier wanted, was promised and got.

    Widths are of :data:`Bars.width`; the members of ``found`` are the
    document's own.
    """

    found: Mapping[str, Any]
    wanted: float
    promised: float
    got: float


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    """All tiers.

    :param abstained: why nobody looked; empty if somebody did
    :param coverage: share of the running instances that were measured
    """

    abstained: str
    coverage: float | None
    bars: Sequence[Bar]
    width: float = _WIDTH


def draw(found: Mapping[str, Any] | None) -> Bars:
    """The bars of a document's ``delivery``, on one scale.

    :param found: None where the document has none
    """
    if found is None:
        return Bars(
            abstained="This document does not say what the tiers got.",
            coverage=None,
            bars=(),
        )
    most = max(
        (
            max(one["wanted_cpus"], one["promised_cpus"])
            for one in found["tiers"]
        ),
        default=0.0,
    )
    scale = _WIDTH / most if most else 0.0
    return Bars(
        abstained=found["abstained"],
        coverage=found["coverage"],
        bars=tuple(
            Bar(
                found=one,
                wanted=round(one["wanted_cpus"] * scale, 1),
                promised=round(one["promised_cpus"] * scale, 1),
                got=round(one["got_cpus"] * scale, 1),
            )
            for one in found["tiers"]
        ),
    )
