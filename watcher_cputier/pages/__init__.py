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

"""Pages for people: a plan, the hosts, what audits did, as one HTML file.

A page is drawn from the document that other programs read as JSON, and from
nothing else: what it says is what they say. It needs no network, no fonts
and no other file, is readable in light and dark and on paper, and is the
same, byte for byte, for the same document.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from watcher_cputier import model
from watcher_cputier.pages import course as courses
from watcher_cputier.pages import delivered
from watcher_cputier.pages import figures
from watcher_cputier.pages import flow
from watcher_cputier.pages import heat
from watcher_cputier.pages import rendering
from watcher_cputier.pages import timeline
from watcher_cputier.pages import told

# What is longer folds away, or is counted.
_MOST_LINES = 30


def plan(document: Mapping[str, Any]) -> str:
    """The page of a plan.

    :param document: as :func:`watcher_cputier.report.plan_document` has it
    """
    tiers = _accounts(document)
    starved = document["starvation"]
    looked = starved is not None and not starved["abstained"]
    return rendering.rendered(
        "plan.html",
        title="CPU tiers: the plan",
        document=document,
        figures=list(figures.of_plan(document)),
        map=heat.draw(
            document["hosts"],
            starved=starved["before"] if looked else None,
            migrations=document["migrations"],
        ),
        flow=flow.draw(document["migrations"], tiers),
        timeline=timeline.draw(
            document["migrations"], document.get("schedule"), tiers
        ),
        bars=delivered.draw(document.get("delivery")),
        tiers=tiers,
        most=_MOST_LINES,
    )


def hosts(document: Mapping[str, Any]) -> str:
    """The page of the hosts.

    :param document: as :func:`watcher_cputier.report.hosts_document` has it
    """
    bars = delivered.draw(document["delivery"])
    found = heat.draw(
        document["hosts"],
        starved=None if bars.abstained else document["starved"],
    )
    return rendering.rendered(
        "hosts.html",
        title="CPU tiers by host",
        document=document,
        summary=_hosts_summary(document, found),
        figures=list(figures.of_hosts(document, found, bars)),
        map=found,
        bars=bars,
        tiers=_accounts(document),
        most=_MOST_LINES,
    )


def audit(document: Mapping[str, Any]) -> str:
    """The page of what audits planned and what became of it.

    :param document: as :func:`watcher_cputier.audits.document` has it, or of
        its members only the notices, for tenants
    """
    if "plans" not in document:
        return rendering.rendered(
            "notices.html",
            title="Moved instances",
            document=document,
            most=_MOST_LINES,
        )
    tiers = _tiers_of_audits(document)
    course = document["course"]
    return rendering.rendered(
        "audit.html",
        title="CPU tiers: what audits did",
        document=document,
        figures=list(figures.of_audits(document)),
        course=None if course is None else courses.draw(course["runs"]),
        flows=[
            flow.draw(
                [
                    one
                    for one in found["migrations"]
                    if one["outcome"] == "moved"
                ],
                tiers,
            )
            for found in document["plans"]
        ],
        ran=[
            timeline.ran(found["migrations"], tiers)
            for found in document["plans"]
        ],
        tiers=tiers,
        most=_MOST_LINES,
    )


def _accounts(document: Mapping[str, Any]) -> Sequence[str]:
    """Tiers in their order, which gives them their colours."""
    found = document["hosts"]
    return list(found[0]["accounts"]) if found else []


def _tiers_of_audits(document: Mapping[str, Any]) -> Sequence[str]:
    """The names that the plans tell.

    Watcher's records know no order of them: the built-in ones have theirs,
    others come after those by name.
    """
    course = document["course"]
    found = {
        one["tier"]
        for plan in document["plans"]
        for one in (*plan["tiers"], *plan["hosts"], *plan["migrations"])
    }
    if course is not None:
        for told_ in (
            course["breaches"]["tiers"],
            course["breaches"]["hosts"],
        ):
            found |= {one["tier"] for one in told_ or ()}
    found -= {None, ""}
    known = list(model.BUILT_IN_TIERS)
    return [name for name in known if name in found] + sorted(
        found - set(known)
    )


def _hosts_summary(document: Mapping[str, Any], found: heat.Map) -> str:
    scope = document["hosts_in_scope"]
    shown = len(found.rows)
    over = [r for r in found.rows if any(c.excess for c in r.cells)]
    which = told.plural(shown, "host")
    if shown < scope:
        which += f" shown here (of {scope:,})"
    if not over:
        return f"None of {which} is over a quota that is known."
    verb = "is" if len(over) == 1 else "are"
    return f"{len(over):,} of {which} {verb} over a quota."
