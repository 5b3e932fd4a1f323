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

"""Watcher's compute model as the audit's scope."""

import types
from typing import Any

import pytest

from watcher_cputier import errors
from watcher_cputier.datasources import compute_model


def model_root() -> Any:
    """As much of Watcher's model as a scope is read from."""
    instances = {
        "i": types.SimpleNamespace(watcher_exclude=False),
        "j": types.SimpleNamespace(watcher_exclude=True),
    }
    return types.SimpleNamespace(
        get_all_compute_nodes=lambda: {"a": None, "b": None},
        get_all_instances=lambda: instances,
    )


def test_hosts_and_instances_are_told_apart() -> None:
    scope = compute_model.scope_of(model_root())
    assert scope.hosts == {"a", "b"}
    assert scope.instances == {"i": False, "j": True}
    assert not scope.whole


@pytest.mark.parametrize(
    ("audit_scope", "whole"),
    [
        ([], True),
        ([{"compute": []}], True),
        ([{"storage": [{"availability_zones": [{"name": "*"}]}]}], True),
        ([{"compute": [{"host_aggregates": [{"name": "east"}]}]}], False),
        ([{"compute": [{"exclude": [{"projects": []}]}]}], False),
        (None, False),
    ],
    ids=str,
)
def test_an_audit_without_a_scope_means_the_whole_cloud(
    audit_scope: Any, whole: bool
) -> None:
    assert compute_model.scope_of(model_root(), audit_scope).whole is whole


def test_no_model_is_a_clear_error() -> None:
    with pytest.raises(errors.SnapshotError) as caught:
        compute_model.scope_of(None)
    assert str(caught.value).startswith(
        "compute model: Watcher has built no compute model. "
    )
    assert "collector_plugins" in caught.value.cure
