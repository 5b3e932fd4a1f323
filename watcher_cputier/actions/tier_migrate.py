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

"""``tier_migrate``: a live migration that looks before it leaps.

Watcher's own Migrate with a judgement before and a second look after:

* Before Nova is called the step is judged on a fresh reading of its hosts
  (:mod:`~watcher_cputier.guard`), and its parents are looked up: Watcher runs
  the children of a failed action all the same. A step that does not hold any
  more is skipped, with the reason.
* After it, whatever Watcher thinks of the outcome, Nova and Placement are
  asked until the migration is over and has let go of its source. Watcher
  gives up on a migration after a while although Nova goes on, and calls one
  complete a moment before its source is free; others may wait for that room.

Watcher 14 (2025.1) cannot skip an action and executes one whose
pre-condition failed: there the same judgement is part of ``execute``, which
then returns False without calling Nova.
"""

import dataclasses
import time
from typing import Any

from openstack import connection as sdk
from oslo_config import cfg
from oslo_log import log
from watcher import objects
from watcher.applier.actions import migration
from watcher.common import context
from watcher.common import exception

from watcher_cputier import errors
from watcher_cputier import extensions
from watcher_cputier import guard
from watcher_cputier import model
from watcher_cputier import report
from watcher_cputier.conf import tiers as tiers_conf
from watcher_cputier.datasources import cloud
from watcher_cputier.datasources import spot
from watcher_cputier.datasources import telemetry

LOG = log.getLogger(__name__)

POLL_SECONDS = 1.0
# Watcher puts some words in front of a reason.
_REASON_LENGTH = 200
_UUID = (
    "^[a-fA-F0-9]{8}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-[a-fA-F0-9]{4}-"
    "[a-fA-F0-9]{12}$"
)
_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}

# None in releases that cannot skip.
_Skipped = getattr(exception, "ActionSkipped", None)


class TierMigrate(migration.Migrate):
    """Migrates an instance if that still serves its purpose.

    The input is Migrate's, with what the step is for and what it rests on::

        {
            "migration_type": "live",
            "resource_id": uuid of the instance,
            "resource_name": its name,
            "source_node": host, "destination_node": host,
            "reason": why it moves, in words,
            "tier": account of the excess, "units": units that move,
            "needs": uuids of the actions that must have succeeded,
            "expects": see watcher_cputier.guard.Expectation,
        }
    """

    @property
    def schema(self) -> dict[str, Any]:
        """JSON schema of the input parameters."""
        theirs: dict[str, Any] = super().schema
        return {
            **theirs,
            "properties": {
                **theirs["properties"],
                "migration_type": {"type": "string", "enum": ["live"]},
                "destination_node": {"type": "string", "minLength": 1},
                "reason": _STRING,
                "tier": _STRING,
                "units": {"type": "integer", "minimum": 0},
                "needs": {
                    "type": "array",
                    "items": {"type": "string", "pattern": _UUID},
                },
                "expects": {
                    "type": "object",
                    "properties": {
                        "instance": _STRING,
                        "source": _STRING,
                        "target": _STRING,
                        "excess": {
                            "anyOf": [
                                {"type": "null"},
                                {**_STRINGS, "minItems": 2, "maxItems": 2},
                            ]
                        },
                        "awaited": _STRING,
                        "awaited_at": _STRINGS,
                        "starved": _STRINGS,
                        "guests": _STRINGS,
                        "hosts": {
                            "type": "object",
                            "additionalProperties": _STRING,
                        },
                        "shares_class": {"anyOf": [{"type": "null"}, _STRING]},
                        "tier_classes": _STRINGS,
                        "rules": {"type": "object"},
                    },
                    "required": [
                        "instance",
                        "source",
                        "target",
                        "excess",
                        "awaited",
                        "awaited_at",
                        "hosts",
                        "shares_class",
                        "tier_classes",
                        "rules",
                    ],
                    "additionalProperties": False,
                },
            },
            "required": [
                *theirs["required"],
                "destination_node",
                "reason",
                "needs",
                "expects",
            ],
        }

    def get_description(self) -> str:
        """What it does, for people."""
        return (
            "Live migration of an instance, skipped if its reason is gone, "
            "its target has no room, or a migration that it needs failed"
        )

    def check_abort(self) -> bool:
        """Whether it can be aborted; Migrate goes by its own class name."""
        return True

    def pre_condition(self) -> None:
        """Judge the step once more.

        :raises ActionSkipped: if it is not to be taken any more
        :raises TierError: if that cannot be found out; the action fails
        """
        if _Skipped is None:
            return
        reason = self._objection()
        if reason:
            LOG.info("%s is skipped: %s", self._name, reason)
            raise _Skipped(report.shortened(reason, _REASON_LENGTH))

    def execute(self) -> bool:
        """Migrate, and find out what came of it.

        :returns: whether the instance is on its target now, with nothing of
            it left on its source
        :raises WatcherException: if it is not, where Watcher shows reasons
        """
        if _Skipped is None:
            reason = self._objection()
            if reason:
                LOG.warning("%s is not executed: %s", self._name, reason)
                return False
        thought = super().execute()
        found = self._settled()
        if found.host == self.destination_node and not found.moving:
            if thought is not True:
                LOG.info("%s has succeeded after all", self._name)
            return True
        reason = (
            f"the migration is still under way after {self._patience} s: its "
            "outcome is unknown"
            if found.moving
            else f"the instance is on {found.host or 'no host'} and not on "
            f"{self.destination_node}"
        )
        LOG.error("%s has failed: %s", self._name, reason)
        if _Skipped is None:
            return False
        raise exception.WatcherException(
            report.shortened(reason, _REASON_LENGTH)
        )

    @property
    def _name(self) -> str:
        name = self.input_parameters.get("resource_name", self.instance_uuid)
        return (
            f"Migration of {name} from {self.source_node} to "
            f"{self.destination_node}"
        )

    @property
    def _patience(self) -> int:
        tiers_conf.register(cfg.CONF)
        seconds: int = cfg.CONF[tiers_conf.GROUP].migration_timeout_seconds
        return seconds

    def _reader(self) -> cloud.Reader:
        return cloud.Reader(self._connected())

    def _connected(self) -> sdk.Connection:
        return cloud.connection(self.osc, cfg.CONF)

    def _objection(self) -> str:
        """Why the step is not to be taken; empty if it is."""
        return self._parents_failed() or self._misjudged()

    def _parents_failed(self) -> str:
        """Which of the actions that it needs did not succeed."""
        for uuid in self.input_parameters["needs"]:
            parent = objects.Action.get_by_uuid(context.make_context(), uuid)
            if parent.state != objects.action.State.SUCCEEDED:
                name = parent.input_parameters.get("resource_name", "")
                return (
                    f"it needs the migration of {name} (action {uuid}), "
                    f"which is {parent.state}"
                )
        return ""

    def _misjudged(self) -> str:
        """What has changed since the plan was made."""
        expected = guard.Expectation.of(self.input_parameters["expects"])
        now = spot.get_cluster(
            self._reader(),
            tiers_conf.catalogue(cfg.CONF),
            expected.hosts,
            expected.instances,
            expected.shares_class,
        )
        if expected.starved:
            now = self._with_telemetry(now, expected)
        return guard.objection(now, expected, extensions.load(cfg.CONF))

    def _with_telemetry(
        self, now: model.Cluster, expected: guard.Expectation
    ) -> model.Cluster:
        """The cluster with what its instances used of late.

        Where that cannot be read, what the audit saw minutes ago holds.
        """
        seconds = tiers_conf.catalogue(cfg.CONF).read_timeout_seconds
        try:
            found, _ = telemetry.Reader(
                cfg.CONF, self._connected(), time.monotonic() + seconds
            ).get_telemetry(
                now, guard.parameters_of(expected), int(time.time())
            )
        except errors.TierError as exc:
            LOG.warning(
                "%s: whether somebody is still starved cannot be seen: %s",
                self._name,
                exc,
            )
            return now
        return dataclasses.replace(now, telemetry=found)

    def _settled(self) -> spot.Whereabouts:
        """Where the instance is when its migration is over.

        Waits for that as long as the configuration says.
        """
        reader = self._reader()
        deadline = time.monotonic() + self._patience
        while True:
            try:
                found = spot.get_whereabouts(reader, self.instance_uuid)
            except errors.ServiceError as exc:
                LOG.warning("%s: cannot be looked up: %s", self._name, exc)
                found = spot.Whereabouts(host="", moving=True)
            if not found.moving or time.monotonic() > deadline:
                return found
            time.sleep(POLL_SECONDS)
