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


"""What a command is told besides the cloud: tiers and audit parameters.

Tiers come from the files that the decision engine reads, so that a command
and an audit never mean different things by a name.
"""

from collections.abc import Mapping, Sequence
import logging
import os
from typing import Any

from oslo_config import cfg

from watcher_cputier import errors
from watcher_cputier import parameters
from watcher_cputier.conf import telemetry as telemetry_conf
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.conf import watcher as watcher_conf

LOG = logging.getLogger(__name__)

#: Names configuration files, separated as in ``PATH``.
VARIABLE = "OS_TIER_CONFIG"
_PROJECT = "watcher"


def configuration(named: Sequence[str] | None) -> cfg.ConfigOpts:
    """The configuration of the tiers.

    Files that are named come first, then those of :data:`VARIABLE`, then
    Watcher's own where this machine has them and the user may read them.
    Without any the built-in tiers hold.

    :raises ConfigurationError: if a file cannot be read
    """
    told = os.environ.get(VARIABLE, "")
    files = list(named or filter(None, told.split(os.pathsep)))
    conf = cfg.ConfigOpts()
    try:
        conf(
            args=[],
            project=_PROJECT,
            default_config_files=files or _own_files(),
            default_config_dirs=[],
        )
        tiers_conf.register(conf)
        telemetry_conf.register(conf)
        watcher_conf.register(conf)
    except (cfg.Error, OSError) as exc:
        raise errors.ConfigurationError(
            str(exc).replace("\n", " "),
            where=", ".join(files) or "configuration",
            cure="Name a file with [cputier] sections by --tier-config or "
            f"{VARIABLE}",
        ) from exc
    return conf


def _own_files() -> list[str]:
    found = []
    for name in cfg.find_config_files(project=_PROJECT):
        if os.access(name, os.R_OK):
            found.append(name)
        else:
            LOG.warning(
                "%s cannot be read: its tiers are not known here, the "
                "built-in ones hold. Name a copy by --tier-config",
                name,
            )
    return found


def files_of(conf: cfg.ConfigOpts) -> list[str]:
    """The files that a configuration was read from."""
    return [str(name) for name in conf.config_file or ()]


def validated(values: Mapping[str, Any]) -> parameters.Parameters:
    """The parameters of an audit.

    :raises ParameterError: naming the one that is wrong
    """
    return parameters.Parameters.of(values)
