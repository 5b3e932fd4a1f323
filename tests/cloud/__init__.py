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

"""The embedded cloud: real Placement, Nova and Watcher on one machine.

``spec`` declares a cloud, ``cloud`` runs it. See README.md in this folder.

The names are imported when they are asked for: the Nova process imports this
package too, and nothing that opens sockets or makes locks may be loaded there
before Nova has decided about eventlet.
"""

from __future__ import annotations

import importlib
import typing

_HOMES = {
    "AggregateSpec": "spec",
    "ChildProviderSpec": "spec",
    "CloudError": "cloud",
    "CloudSpec": "spec",
    "EmbeddedCloud": "cloud",
    "EventSpec": "spec",
    "FlavorSpec": "spec",
    "HostSpec": "spec",
    "InstanceSpec": "spec",
    "ServerGroupSpec": "spec",
    "SpecError": "spec",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(name)
    home = importlib.import_module("%s.%s" % (__name__, _HOMES[name]))
    return getattr(home, name)
