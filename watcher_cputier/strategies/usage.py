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

"""What instances used, added to the picture that an audit decides on.

Only what needs telemetry asks for it: starvation, and ``quota_mode: borrow``.
Where it cannot be had, those parts abstain and say why; the others do what
they would do anyway (L8). An audit that was for them alone has not looked,
and fails.
"""

import dataclasses
import time

from openstack import connection as sdk
from oslo_config import cfg
from oslo_log import log

from watcher_cputier import diagnosis as diagnosing
from watcher_cputier import errors
from watcher_cputier import lending
from watcher_cputier import model
from watcher_cputier import parameters
from watcher_cputier import starvation as starving
from watcher_cputier import vetting
from watcher_cputier.datasources import cloud as cloud_source
from watcher_cputier.datasources import telemetry

LOG = log.getLogger(__name__)

_DAY_SECONDS = 86400
# Name of a finding.
ABSTAINED = "no_telemetry"


def wanted(params: parameters.Parameters) -> bool:
    """Whether some part of the audit goes by telemetry."""
    return params.relieve_starvation or (
        params.enforce_quota and params.quota_mode == lending.BORROW
    )


def history_seconds(params: parameters.Parameters) -> int | None:
    """How far back it matters what happened to instances; None if it does
    not.

    Cool-downs double with each move of a day.
    """
    if not (wanted(params) or params.mix_tiers):
        return None
    return _DAY_SECONDS + 2 * 60 * params.cooldown_minutes


def with_telemetry(
    reader: cloud_source.Reader,
    cluster: model.Cluster,
    params: parameters.Parameters,
    conf: cfg.ConfigOpts,
    connected: sdk.Connection,
) -> model.Cluster:
    """The cluster with what its instances used, and findings about that.

    :raises TierError: if it could not be read, and the audit is for nothing
        else
    """
    if not wanted(params):
        return cluster
    try:
        found, findings = _read(reader, cluster, params, conf, connected)
    except errors.TierError as exc:
        if not (params.enforce_quota or params.mix_tiers):
            raise
        found = None
        findings = (
            model.Finding(
                kind=ABSTAINED,
                subject="cloud",
                text=f"{_given_up(params)}, since there is no telemetry: "
                f"{exc}",
            ),
        )

    def more(seen: model.Cluster) -> model.Cluster:
        return dataclasses.replace(
            seen,
            telemetry=found,
            findings=tuple(
                sorted(
                    {*seen.findings, *findings},
                    key=lambda f: (f.kind, f.subject, f.text),
                )
            ),
        )

    return reader.with_more(cluster, more)


def _read(
    reader: cloud_source.Reader,
    cluster: model.Cluster,
    params: parameters.Parameters,
    conf: cfg.ConfigOpts,
    connected: sdk.Connection,
) -> tuple[model.Telemetry, tuple[model.Finding, ...]]:
    source = telemetry.Reader(conf, connected, reader.next_deadline())
    started = time.monotonic()
    found, findings = source.get_telemetry(
        cluster, params, cluster.taken_at or int(time.time())
    )
    reader.spend(time.monotonic() - started)
    LOG.info("Telemetry: %s", source.summary)
    if not params.relieve_starvation:
        return found, findings
    verdicts = judged(dataclasses.replace(cluster, telemetry=found), params)
    # What the lists do not tell, such as reboots, is asked about those only
    # whom it concerns.
    actions = reader.get_actions(
        (one.instance for one in verdicts.starved), _DAY_SECONDS
    )
    if actions:
        found = vetting.without_changes(
            found,
            dataclasses.replace(cluster, changes=actions).changes_by_instance,
        )
        verdicts = judged(
            dataclasses.replace(cluster, telemetry=found), params
        )
    if verdicts.abstained:
        raise telemetry.NoData(verdicts.abstained.rstrip("."))
    return found, findings


def _given_up(params: parameters.Parameters) -> str:
    """What an audit does without, where there is no telemetry."""
    parts = []
    if params.relieve_starvation:
        parts.append("starvation is not looked for")
    if params.quota_mode == lending.BORROW:
        parts.append("nothing is lent (quota_mode)")
    text = " and ".join(parts)
    return text[0].upper() + text[1:]


def judged(
    cluster: model.Cluster, params: parameters.Parameters
) -> starving.Starvation:
    """The verdicts on a cluster that is judged on its own."""
    return starving.judge(
        cluster, diagnosing.diagnose(cluster, params), params
    )
