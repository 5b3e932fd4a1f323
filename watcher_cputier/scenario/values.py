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

"""What a scenario is, and what is wrong with one."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from watcher_cputier import errors
from watcher_cputier import model

Document = dict[str, Any]


class ScenarioError(errors.TierError):
    """A file that is no valid scenario; ``where`` is the element's path."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster and the parameters of an audit, as they were given.

    :param description: what it shows, for people
    """

    cluster: model.Cluster
    parameters: Mapping[str, Any] = dataclasses.field(
        default_factory=model.frozen_map
    )
    description: str = ""
