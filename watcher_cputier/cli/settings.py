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


"""Audit parameters as command lines tell them: ``NAME=VALUE``."""

from collections.abc import Iterable
import json
import math
from typing import Any

from watcher_cputier import errors


def given(told: Iterable[str], **named: Any) -> dict[str, Any]:
    """The parameters of a command line.

    :param told: ``NAME=VALUE`` each; the last of a name holds
    :param named: those that have options of their own; None where they were
        not given
    :raises ParameterError: for what is no ``NAME=VALUE``
    """
    found: dict[str, Any] = {}
    for text in told:
        name, equals, value = text.partition("=")
        if not equals:
            raise errors.ParameterError(
                "has no value", where=f"--set {text}", cure="Say NAME=VALUE"
            )
        found[name] = _value(value)
    found.update({k: v for k, v in named.items() if v is not None})
    return found


def _value(text: str) -> Any:
    """JSON, or else the text itself."""
    try:
        return json.loads(text, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return text


def _refuse(text: str) -> None:
    raise ValueError(text)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number
