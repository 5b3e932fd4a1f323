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

"""One account's side of the problem: a knapsack on every host.

The relaxation that bounds and the exact mode work on: of all that binds an
instance to a host it keeps the units of one account (a tier, or the class of
single-class mode) and which hosts may ever take it. Memory, other classes and
server groups are left out, so that whatever no solution of the covering can
do no plan can do either.

Instances that are alike to the planner are one *kind*; kinds are numbered
from 0, hosts too, both in the order of their names.
"""

import dataclasses

import numpy as np
import numpy.typing as npt

Units = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Covering:
    """The hosts and kinds of one account.

    H hosts, K kinds. Units are divided by their greatest common divisor, so
    that the numbers are small whatever the class counts.

    :param account: the tier, or the class of single-class mode
    :param sizes: (K,) units of one instance of a kind, at least 1
    :param movable: (H, K) instances of a kind on a host that may move
    :param room: (H,) units free within the quota, negative where the host
        is over it (minus the excess); a host of unknown quota has 0
    :param accepts: (H, K) whether a host may ever take a kind, were it
        empty
    :param scale: units that one unit here stands for
    """

    account: str
    sizes: Units
    movable: Units
    room: Units
    accepts: Mask
    scale: int = 1

    @property
    def excess(self) -> Units:
        """(H,) units over quota."""
        return np.maximum(-self.room, 0)
