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

"""Rules and rankers of others, found by entry point (R99).

A distribution adds a rule under ``watcher_cputier.constraints`` or a ranker
under ``watcher_cputier.rankers``; an operator switches it on by its name in
``[cputier] constraints`` or ``[cputier] rankers``. The entry point names a
factory: it is called once an audit with the service's configuration, may
read whatever it needs (a rack's temperature, a link's load), and returns the
rule, which from then on sees frozen values only::

    def factory(conf):
        hot = read_hot_racks(conf.my_plugin.url)

        def not_too_hot(move):
            if move.target.name in hot:
                return constraints.Rejection(
                    rule="not_too_hot", reason="its rack is above 30 C"
                )
            return None

        return not_too_hot

A rule or ranker that raises, or returns what is neither a Rejection nor None
(a rule) or no finite number (a ranker), ends the audit with an error that
names it: a check that the operator asked for is never skipped.
"""

from collections.abc import Callable, Mapping
import functools
import math
import numbers
from typing import Any

from oslo_config import cfg
import stevedore
from stevedore import exception as stevedore_exception

from watcher_cputier import constraints
from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier.conf import tiers as tiers_conf

CONSTRAINTS = "watcher_cputier.constraints"
RANKERS = "watcher_cputier.rankers"


def load(conf: cfg.ConfigOpts) -> constraints.Extensions:
    """What the configuration switches on.

    :raises ConfigurationError: if a name has no entry point, or its factory
        fails
    """
    tiers_conf.register(conf)
    group = conf[tiers_conf.GROUP]
    return constraints.Extensions(
        target_rules=_load(conf, CONSTRAINTS, group.constraints),
        rankers=_load(conf, RANKERS, group.rankers),
    )


def _load(
    conf: cfg.ConfigOpts, namespace: str, names: list[str]
) -> Mapping[str, Any]:
    option = f"[{tiers_conf.GROUP}] {namespace.rpartition('.')[2]}"
    found = {}
    for name in names:
        try:
            manager = stevedore.DriverManager(
                namespace,
                name,
                invoke_on_load=True,
                invoke_args=(conf,),
                on_load_failure_callback=_raise,
            )
        except stevedore_exception.NoMatches as exc:
            raise errors.ConfigurationError(
                f"no entry point {name!r} in {namespace}",
                where=option,
                cure="Install the distribution that has it into the "
                "decision engine's environment",
            ) from exc
        except Exception as exc:
            raise errors.ConfigurationError(
                f"{name} could not be loaded: {exc!r}", where=option
            ) from exc
        if not callable(manager.driver):
            raise errors.ConfigurationError(
                f"the factory of {name} returns {manager.driver!r}, which "
                "cannot be called",
                where=option,
                cure="Mend the plugin, or switch it off",
            )
        found[name] = _guarded(
            name,
            option,
            manager.driver,
            _odd_verdict if namespace == CONSTRAINTS else _odd_rank,
        )
    return model.frozen_map(found)


def _raise(_manager: Any, _entry_point: Any, exc: BaseException) -> None:
    raise exc


def _odd_verdict(found: Any) -> str:
    """What is wrong with what a rule returns; empty if nothing."""
    if found is None or isinstance(found, constraints.Rejection):
        return ""
    return "which is neither a Rejection nor None"


def _odd_rank(found: Any) -> str:
    """What is wrong with what a ranker returns; empty if nothing."""
    if isinstance(found, numbers.Real) and math.isfinite(found):
        return ""
    return "which is no finite number"


def _guarded(
    name: str,
    option: str,
    function: Callable[[constraints.Proposal], Any],
    odd: Callable[[Any], str],
) -> Callable[[constraints.Proposal], Any]:
    """The same function; what it raises, or is odd about it, names it."""

    @functools.wraps(function)
    def call(move: constraints.Proposal) -> Any:
        try:
            found = function(move)
        except Exception as exc:
            raise _error(move, f"failed: {exc!r}") from exc
        wrong = odd(found)
        if wrong:
            raise _error(move, f"returns {found!r}, {wrong}")
        return found

    def _error(
        move: constraints.Proposal, what: str
    ) -> errors.ConfigurationError:
        return errors.ConfigurationError(
            f"{name}, asked about {move.instance.name} and "
            f"{move.target.name}, {what}",
            where=option,
            cure="Mend the plugin, or switch it off",
        )

    return call
