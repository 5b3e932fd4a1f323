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

"""Watcher's cluster data model: what the audit's scope leaves.

The model is the truth about scope and nothing else. Watcher removes hosts
that the scope leaves out and flags instances that it excludes.
"""

from collections.abc import Mapping
import dataclasses
from typing import Any

from watcher_cputier import errors
from watcher_cputier import model


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Hosts and instances of a scoped model.

    :param hosts: uuids of the hosts that it keeps
    :param instances: {uuid: whether the scope excludes it}
    :param whole: whether the audit names no scope, so that every host of the
        cloud should be in the model
    """

    hosts: frozenset[str]
    instances: Mapping[str, bool]
    whole: bool = False


def scope_of(compute_model: Any, audit_scope: Any = None) -> Scope:
    """Read the scope from a ``watcher...model_root.ModelRoot``.

    :param audit_scope: the audit's own words, as Watcher keeps them:
        ``[{"compute": [{"host_aggregates": [...]}, ...]}]``; None if unknown
    :raises SnapshotError: if there is no model
    """
    if compute_model is None:
        raise errors.SnapshotError(
            "Watcher has built no compute model",
            where="compute model",
            cure="Let the decision engine have a collector for it ([collector]"
            " collector_plugins = compute) that reaches Nova and Placement, "
            "and see its log",
        )
    return Scope(
        hosts=frozenset(compute_model.get_all_compute_nodes()),
        instances=model.frozen_map(
            {
                uuid: bool(instance.watcher_exclude)
                for uuid, instance in compute_model.get_all_instances().items()
            }
        ),
        whole=audit_scope is not None
        and not any(part.get("compute") for part in audit_scope),
    )
