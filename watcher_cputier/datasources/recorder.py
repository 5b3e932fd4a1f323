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

"""What an audit saw, as a scenario file: what operators attach to reports.

``[cputier] record_directory`` turns it on. A run of an audit replaces the
file of the run before it, at once and as a whole. So it does with the report
beside it: the plan with what reading the cloud took, or the error of a run
that has none. Nothing that goes wrong here fails an audit.
"""

from collections.abc import Callable, Mapping
import json
import os
import pathlib
import tempfile
from typing import Any

from oslo_config import cfg
from oslo_log import log

from watcher_cputier import model
from watcher_cputier import scenario
from watcher_cputier.conf import tiers

LOG = log.getLogger(__name__)


def record(
    conf: cfg.ConfigOpts,
    audit: Any,
    cluster: model.Cluster,
    given: Mapping[str, Any],
) -> None:
    """Write ``<directory>/<audit's uuid>.yaml``; a failure is a warning.

    :param audit: Watcher's audit; None for a run without one
    :param given: its parameters
    """
    _record(
        conf,
        audit,
        "yaml",
        lambda: scenario.dumps(
            scenario.Scenario(cluster=cluster, parameters=given)
        ),
    )


def record_report(
    conf: cfg.ConfigOpts, audit: Any, document: Mapping[str, Any]
) -> None:
    """Write ``<directory>/<audit's uuid>.report.json``, as above.

    :param document: of :func:`watcher_cputier.report.plan_document` or
        :func:`watcher_cputier.report.failure_document`
    """
    _record(
        conf,
        audit,
        "report.json",
        lambda: json.dumps(document, indent=2) + "\n",
    )


def _record(
    conf: cfg.ConfigOpts, audit: Any, suffix: str, text: Callable[[], str]
) -> None:
    directory = conf[tiers.GROUP].record_directory
    if not directory:
        return
    name = getattr(audit, "uuid", None) or "audit"
    try:
        path = pathlib.Path(directory, f"{name}.{suffix}")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(path, text())
    except Exception as exc:  # noqa: BLE001 - an audit matters more
        LOG.warning(
            "The record %s of audit %s cannot be written to %s: %s. Check "
            "[cputier] record_directory.",
            suffix,
            name,
            directory,
            exc,
        )
    else:
        LOG.info("What the audit saw is recorded in %s", path)


def _replace(path: pathlib.Path, text: str) -> None:
    """Write a file as a whole or not at all, for its owner alone."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        pathlib.Path(draft).replace(path)
    except BaseException:
        pathlib.Path(draft).unlink(missing_ok=True)
        raise
