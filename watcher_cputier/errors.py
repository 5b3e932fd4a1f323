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

"""Errors that say what is wrong, where, and how to mend it.

Every error of this package is a :class:`TierError`. Its text is made for
the operator who reads an audit's ``status_message`` or a terminal: one
sentence on what was found and where, one on the cure. The three parts stay
available as attributes so that a report can lay them out on its own.
"""

from collections.abc import Iterable


class TierError(Exception):
    """What was found, where, and what mends it.

    :param what: the defect, in one clause
    :param where: the object that has it (an option, a parameter path, a
        service and request); may be empty
    :param cure: what the operator can do about it; may be empty
    """

    def __init__(self, what: str, *, where: str = "", cure: str = "") -> None:
        self.what = what
        self.where = where
        self.cure = cure
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text}. {cure}" if cure else text)


class ConfigurationError(TierError):
    """An option of the service's configuration file is unusable."""


class ParameterError(TierError):
    """An audit parameter is unknown, ill-typed or names an unknown object."""


class ServiceError(TierError):
    """A service could not be asked: unreachable, refusing or failing."""


class SnapshotError(TierError):
    """What the services answered does not make up a usable cluster."""


def some(names: Iterable[str], limit: int = 5) -> str:
    """The first few names, and how many more there are."""
    told = list(names)
    more = len(told) - limit
    shown = ", ".join(told[:limit])
    return f"{shown} and {more} more" if more > 0 else shown
