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


"""What lint compares, and what it finds."""

from collections.abc import Callable, Iterator
import dataclasses

from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import provider_config

ERROR = "error"
WARNING = "warning"
INFO = "info"
SEVERITIES = (ERROR, WARNING, INFO)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """Something that contradicts something else.

    :param kind: a short stable name, the rule's
    :param subject: the object, with what it is (``flavor gold.4``)
    :param why: what is wrong and why it matters
    :param mend: the command or the option that mends it
    :param requirement: the row that asks for the rule
    """

    severity: str
    kind: str
    subject: str
    why: str
    mend: str
    requirement: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A flavor of the catalogue, with what its request does not tell."""

    flavor: model.Flavor
    root_gb: int = 0
    ephemeral_gb: int = 0
    swap_mb: int = 0
    public: bool = True
    rxtx_factor: float = 1.0
    description: str = ""

    @property
    def name(self) -> str:
        """The flavor's."""
        return self.flavor.name


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NovaOptions:
    """Options of Nova that no API shows; None where nobody told them.

    :param live_migrations: ``max_concurrent_live_migrations``, 0 for no
        limit
    :param reports_shares: ``[libvirt] report_vcpu_shares``
    :param requests_shares: ``[filter_scheduler]
        query_placement_for_vcpu_shares``
    :param shared_cpus: size of ``[compute] cpu_shared_set``
    """

    live_migrations: int | None = None
    reports_shares: bool | None = None
    requests_shares: bool | None = None
    shared_cpus: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What is compared.

    :param cluster: all hosts in detail
    :param classes: that Placement knows; None where it was not asked
    :param traits: that Placement knows; None where it was not asked
    :param workers: actions that Watcher's applier runs at the same time;
        None where nobody told
    :param differences: between provider configuration files and Placement
    :param unjudged: why quotas cannot be judged at all; empty if they can
    """

    cluster: model.Cluster
    flavors: tuple[Offered, ...] = ()
    classes: frozenset[str] | None = None
    traits: frozenset[str] | None = None
    cgroup_version: int = 2
    nova: NovaOptions = NovaOptions()
    workers: int | None = None
    differences: tuple[provider_config.Difference, ...] = ()
    unjudged: str = ""


Rule = Callable[[Facts, parameters.Parameters], Iterator[Issue]]


def whole(inventory: model.Inventory) -> int:
    """The capacity with what is reserved given back."""
    if inventory.total is None:
        return inventory.capacity
    return int(inventory.total * inventory.allocation_ratio)
