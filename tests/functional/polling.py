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

"""Waiting for a condition, and for nothing else."""

from collections.abc import Callable
import time
from typing import TypeVar

T = TypeVar("T")
_PAUSE_SECONDS = 0.1


def until(
    question: Callable[[], T | None], what: str, timeout_seconds: float = 60.0
) -> T:
    """Ask until the answer is true; return it.

    :param what: what is waited for, for the error
    """
    deadline = time.monotonic() + timeout_seconds
    while True:
        answer = question()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(
                f"waited {timeout_seconds:g} s in vain for {what}; "
                f"the last answer was {answer!r}"
            )
        time.sleep(_PAUSE_SECONDS)
