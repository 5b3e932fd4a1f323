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

"""The vocabulary of the checkers: proposals, occupancy and rejections."""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Protocol

from watcher_cputier import diagnosis
from watcher_cputier import model


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rejection:
    """Why something may not be.

    :param rule: a short stable name, the checker's
    :param reason: one clause with the values that decided
    :param requirement: the row that asks for the rule
    """

    rule: str
    reason: str
    requirement: str = ""

    def __str__(self) -> str:
        return f"{self.rule}: {self.reason}"


class Occupancy(Protocol):
    """What is taken while a plan runs, both sides of each move held."""

    def used(self, provider_uuid: str, resource_class: str) -> int:
        """Units of a class in use on a provider, arrivals included."""

    def held(self, host: str, tier: str) -> int:
        """Units of a tier on a host, arrivals included."""

    def members(self, group: model.ServerGroup, host: str) -> int:
        """Members of a server group on a host, arrivals included."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One instance proposed to one host, in the state of a plan."""

    cluster: model.Cluster
    diagnosis: diagnosis.Diagnosis
    occupancy: Occupancy
    instance: model.Instance
    target: model.Host


class Ranker(Protocol):
    """Prefers some feasible targets to others.

    What it returns is added to the weigher's value, so it should lie in
    [0, 1] times whatever weight the operator gives it.
    """

    def __call__(self, move: Proposal) -> float:
        """How good the target is; higher wins."""


InstanceRule = Callable[[model.Cluster, model.Instance], Rejection | None]
TargetRule = Callable[[Proposal], Rejection | None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extensions:
    """Rules and rankers of others, in the order of their names (R99).

    :param target_rules: {name: rule}; a rejection of theirs ends a proposal
        like one of ours
    :param rankers: {name: ranker}
    """

    target_rules: Mapping[str, TargetRule] = dataclasses.field(
        default_factory=model.frozen_map
    )
    rankers: Mapping[str, Ranker] = dataclasses.field(
        default_factory=model.frozen_map
    )
