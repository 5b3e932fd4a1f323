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

"""The numbers at the top of a page."""

from collections.abc import Iterator, Mapping
import dataclasses
from typing import Any

from watcher_cputier import offer
from watcher_cputier.pages import delivered
from watcher_cputier.pages import heat
from watcher_cputier.pages import told

NOBODY_LOOKED = "no telemetry, nobody looked"
GOOD = "good"
BAD = "bad"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, or one that becomes another.

    :param value: None where ``text`` stands for it
    :param then: what becomes of it; None where that is not the point
    :param note: a few words below
    :param tone: ``good``, ``bad`` or empty
    """

    label: str
    value: float | None = None
    then: float | None = None
    text: str = ""
    note: str = ""
    tone: str = ""


def of_plan(document: Mapping[str, Any]) -> Iterator[Figure]:
    """Of a plan."""
    values = document["indicators"]
    yield _change("Hosts over quota", values, "hosts_over_quota")
    yield _change("Units over quota", values, "excess_units")
    yield _change(
        "Starved instances", values, "instances_starved", NOBODY_LOOKED
    )
    count = len(document["migrations"])
    note = "nothing moves"
    if count:
        note = (
            "fewer cannot do it"
            if document["optimal"]
            else f"at least {document['lower_bound']:,} are needed"
        )
    yield Figure(label="Migrations", value=count, note=note)
    order = document.get("schedule")
    if order is not None and count:
        yield Figure(
            label="Expected to take",
            text=told.duration(order["makespan_seconds"]),
        )
    if document["deferred"]:
        yield Figure(
            label="Deferred",
            value=len(document["deferred"]),
            note="to the next audit",
        )
    if document["unresolved"]:
        yield Figure(
            label="Units that stay over",
            value=sum(one["units"] for one in document["unresolved"]),
            note=f"blocked on {_places(document['unresolved'])}",
            tone=BAD,
        )


def _places(unresolved: list[Mapping[str, Any]]) -> str:
    return told.plural(len({one["host"] for one in unresolved}), "host")


def _change(
    label: str,
    values: Mapping[str, float],
    name: str,
    missing: str = "not counted",
) -> Figure:
    before = values.get(f"{name}_before")
    after = values.get(f"{name}_after")
    if before is None or after is None:
        return Figure(label=label, text="unknown", note=missing)
    return Figure(
        label=label,
        value=before,
        then=after,
        note="before and after" if before == after and before else "",
        tone=BAD if after else GOOD,
    )


def of_hosts(
    document: Mapping[str, Any], found: heat.Map, bars: delivered.Bars
) -> Iterator[Figure]:
    """Of the hosts as they are."""
    worst = [
        {cell.state for cell in row.cells if cell.state} for row in found.rows
    ]
    over = sum(offer.OVER in states for states in worst)
    near = sum(
        offer.NEAR in states and offer.OVER not in states for states in worst
    )
    units = document["excess_units"]
    yield Figure(label="Hosts", value=len(found.rows))
    yield Figure(
        label="Hosts over quota", value=over, tone=BAD if over else GOOD
    )
    yield Figure(
        label="Units over quota", value=units, tone=BAD if units else GOOD
    )
    yield Figure(label="Hosts near quota", value=near)
    if bars.abstained:
        yield Figure(
            label="Starved instances", text="unknown", note=NOBODY_LOOKED
        )
    else:
        starved = len(document["starved"])
        yield Figure(
            label="Starved instances",
            value=starved,
            tone=BAD if starved else GOOD,
        )


def of_audits(document: Mapping[str, Any]) -> Iterator[Figure]:
    """Of the course, or else of the newest plan."""
    if document["course"] is not None:
        yield from _of_course(document["course"])
        return
    for plan in document["plans"][-1:]:
        yield from _of_outcome(plan)


def _of_outcome(plan: Mapping[str, Any]) -> Iterator[Figure]:
    """Of what became of one plan."""
    counts = plan["counts"]
    total = len(plan["migrations"])
    moved = counts.get("moved", 0)
    yield Figure(
        label="Moved",
        value=moved,
        note=f"of {told.plural(total, 'migration')}",
        tone=GOOD if total and moved == total else "",
    )
    for outcome in ("moving", "planned", "skipped", "failed", "dropped"):
        if outcome in counts:
            yield Figure(
                label=outcome.capitalize(),
                value=counts[outcome],
                tone=BAD if outcome == "failed" else "",
            )
    for one in plan["tiers"]:
        yield _left(f"{one['tier'].capitalize()} over quota", one)


def _left(label: str, found: Mapping[str, Any]) -> Figure:
    """Units over quota before, and what is left of them if that is known."""
    after = found["after"]
    return Figure(
        label=label,
        value=found["before"],
        then=after,
        note="what is left is not known" if after is None else "units",
        tone="" if after is None else BAD if after else GOOD,
    )


def _of_course(course: Mapping[str, Any]) -> Iterator[Figure]:
    """Of all runs together."""
    runs = course["runs"]
    yield Figure(label="Runs", value=len(runs))
    yield Figure(label="Moved", value=sum(run["moved"] for run in runs))
    failed = sum(run["failed"] for run in runs)
    yield Figure(label="Failed", value=failed, tone=BAD if failed else "")
    known = [run["excess"] for run in runs if run["excess"] is not None]
    if known:
        yield _left(
            "Units over quota",
            {"before": known[0]["before"], "after": known[-1]["after"]},
        )
    late = sum(run["late_seconds"] is not None for run in runs)
    late += len(course["missing"])
    yield Figure(label="Late or missing runs", value=late)
    if course["failures"]:
        yield Figure(
            label="Audits without a plan",
            value=len(course["failures"]),
            tone=BAD,
        )
