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


"""Limits on migrations, and what reading the cloud found."""

from collections.abc import Iterator

from watcher_cputier import parameters
from watcher_cputier.lint import values

ERROR = values.ERROR
WARNING = values.WARNING
INFO = values.INFO
Facts = values.Facts
Issue = values.Issue

# {kind of a finding of the reader: its severity}; others are warnings.
_FOUND = {
    "cell_unreachable": ERROR,
    "doubled_allocation": ERROR,
    "duplicate_host": ERROR,
    "flavor_and_allocation_differ": ERROR,
    "host_without_provider": ERROR,
    "never_reshaped": ERROR,
    "orphan_allocation": ERROR,
    "placement_keeps_excess": ERROR,
    "shares_not_reported": ERROR,
    "shares_not_requested": ERROR,
    "stale_provider": ERROR,
    "candidates_limited": INFO,
}


def _limits(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """Limits on migrations that contradict one another (R108)."""
    for name in ("parallel_per_source", "parallel_per_target"):
        each = getattr(params, name)
        if each > params.parallel_total:
            yield Issue(
                severity=INFO,
                kind="limits_contradict",
                subject="audit parameters",
                why=f"{name} is {each}, and parallel_total "
                f"{params.parallel_total}: so many never run at the same time",
                mend=f"Raise parallel_total to {each}, or lower {name}",
                requirement="R108",
            )
    nova = facts.nova.live_migrations
    most = max(params.parallel_per_source, 1)
    if nova and nova < most:
        yield Issue(
            severity=WARNING,
            kind="nova_queues_migrations",
            subject="nova.conf",
            why=f"a host sends {nova} instances at the same time at most, "
            f"and an audit plans {most}: those above it wait in Nova",
            mend=f"[DEFAULT] max_concurrent_live_migrations = {most}, or the "
            f"audit parameter parallel_per_source = {nova}",
            requirement="R108",
        )
    if facts.workers is not None and facts.workers < params.parallel_total:
        yield Issue(
            severity=WARNING,
            kind="few_workers",
            subject="watcher.conf",
            why=f"Watcher's applier runs {facts.workers} actions at the same "
            f"time, and an audit plans {params.parallel_total}: it takes "
            "longer than expected",
            mend="[watcher_workflow_engines.taskflow] max_workers = "
            f"{params.parallel_total}",
            requirement="R108",
        )


def _found(facts: Facts, params: parameters.Parameters) -> Iterator[Issue]:
    """What reading the cloud found: orphans, doubled and lost allocations."""
    for one in facts.cluster.findings:
        # What mends it is the last sentence.
        why, _, mend = one.text.rstrip(".").rpartition(". ")
        yield Issue(
            severity=_FOUND.get(one.kind, WARNING),
            kind=one.kind,
            subject=one.subject,
            why=why or mend,
            mend=mend if why else "",
            requirement="R170" if "allocation" in one.kind else "",
        )
    if facts.unjudged:
        yield Issue(
            severity=ERROR,
            kind="not_judged",
            subject="cloud",
            why=facts.unjudged,
            mend="openstack tier check",
        )


RULES: tuple[values.Rule, ...] = (
    _limits,
    _found,
)
