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

"""The highest point of a concave function: cutting planes at their centre.

The function is known by its values and slopes only, and each is dear. Every
point that was looked at says that the function nowhere lies above a plane.
The next point is the analytic centre of what all planes leave between the
best value so far and themselves, within a box (Goffin, Haurie and Vial,
Decomposition and nondifferentiable optimization with the projective
algorithm, 1992). Unlike the highest point under the planes it needs no LP
solver and does not jump about.
"""

from collections.abc import Callable, Iterable
import dataclasses

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Function = Callable[[Floats], tuple[float, Floats]]

_NEWTON_STEPS = 60
_CLOSE = 1e-3


@dataclasses.dataclass(frozen=True, slots=True)
class Top:
    """The highest point that was found, and how high others may lie."""

    point: Floats
    value: float
    ceiling: float


@dataclasses.dataclass(slots=True)
class _Planes:
    """Slopes (M, n) and values at the origin (M,) of the planes."""

    slopes: Floats
    values: Floats

    def add(self, point: Floats, value: float, slope: Floats) -> None:
        self.slopes = np.vstack([self.slopes, slope])
        self.values = np.append(self.values, value - slope @ point)


def climb(
    function: Function,
    starts: Iterable[Floats],
    high: Floats,
    *,
    rounds: int,
    enough: Callable[[float, float], bool],
    expired: Callable[[], bool],
) -> Top:
    """Maximise a concave function over the box from 0 to high.

    :param function: value and slope (any supergradient) at a point
    :param starts: points to look at first, in the box or not; at least one
    :param high: (n,) above 0
    :param rounds: points to look at after the first ones, at most
    :param enough: whether the best value will do, given it and the ceiling
    :param expired: whether time is up; asked before each round
    """
    size = len(high)
    planes = _Planes(np.empty((0, size)), np.empty(0))
    best, top = -np.inf, np.zeros(size)
    for start in starts:
        value, slope = function(start)
        planes.add(start, value, slope)
        if value > best:
            best, top = value, start
    ceiling = np.inf
    centre = np.clip(top, 0.01 * high, 0.99 * high)
    for _ in range(rounds):
        if enough(best, ceiling) or expired():
            break
        found = _centre(planes, high, best, centre)
        if found is None:
            break
        centre, highest = found
        ceiling = min(ceiling, highest)
        if enough(best, ceiling):
            break
        value, slope = function(centre)
        planes.add(centre, value, slope)
        if value > best:
            best, top = value, centre
    return Top(top, best, ceiling)


def _centre(
    planes: _Planes, high: Floats, floor: float, start: Floats
) -> tuple[Floats, float] | None:
    """The analytic centre, and how high the planes can meet in the box.

    None where rounding leaves nothing to go by.
    """
    size = len(high)
    count = len(planes.values)
    # Rows of limits @ (point, height) <= bounds.
    identity = np.eye(size)
    none = np.zeros((size, 1))
    limits = np.vstack(
        [
            np.hstack([-planes.slopes, np.ones((count, 1))]),
            np.hstack([identity, none]),
            np.hstack([-identity, none]),
            np.append(np.zeros(size), -1.0)[None],
        ]
    )
    bounds = np.concatenate([planes.values, high, np.zeros(size), [-floor]])
    weights = np.ones(len(bounds))
    weights[-1] = count
    at = np.append(start, floor + 1.0)
    slack = np.maximum(bounds - limits @ at, 1e-2)
    for _ in range(_NEWTON_STEPS):
        missing = bounds - limits @ at - slack
        curve = weights / slack**2
        try:
            step = np.linalg.solve(
                (limits.T * curve) @ limits,
                limits.T @ (curve * missing - weights / slack),
            )
        except np.linalg.LinAlgError:
            return None
        change = missing - limits @ step
        shrink = np.min(change / slack, initial=0.0)
        length = 1.0 if shrink >= -0.5 else min(1.0, -0.9 / shrink)
        at = at + length * step
        slack = slack + length * change
        if not np.all(np.isfinite(slack)):
            return None
        if length == 1.0 and np.max(np.abs(change / slack)) < _CLOSE:
            break
    share = 1.0 / slack[:count]
    share /= share.sum()
    slope = share @ planes.slopes
    ceiling = share @ planes.values + np.maximum(slope * high, 0.0).sum()
    return np.clip(at[:-1], 0.0, high), float(ceiling)
