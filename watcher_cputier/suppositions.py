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


"""A hypothesis in words: what was assumed, who fits, and that it is not so."""

from collections.abc import Iterable, Iterator
from typing import Any

from watcher_cputier import errors
from watcher_cputier import model
from watcher_cputier import planner
from watcher_cputier import report
from watcher_cputier import whatif

NOTICE = "Hypothetical, nothing of this is so"


def summary(text: str) -> str:
    """The summary of a plan for a cloud that is not so."""
    return f"Hypothetical: {text[:1].lower()}{text[1:]}"


def titled(found: whatif.Hypothesis) -> list[tuple[str, list[str]]]:
    """Titles with sentences: what was assumed, and who finds a host."""
    told = [(f"{NOTICE}. It is assumed that", list(found.assumptions))]
    for outcome in found.outcomes:
        by_host: dict[str, list[str]] = {}
        for one in outcome.placements:
            by_host.setdefault(one.target, []).append(one.instance.name)
        lines = [
            f"{host} takes {len(names)}: {errors.some(names)}"
            for host, names in sorted(by_host.items())
        ]
        lines += _unplaced(outcome.unplaced)
        told.append((outcome.text, lines))
    return told


def _unplaced(refusals: Iterable[planner.Refusal]) -> Iterator[str]:
    """Who finds no host, and why; those with the same reasons together."""
    found: dict[str, list[str]] = {}
    for one in refusals:
        found.setdefault(why(one), []).append(one.instance.name)
    for reason, names in found.items():
        yield f"No host for {errors.some(names)}: {reason}"


def why(one: planner.Refusal) -> str:
    """Why an instance finds no host."""
    if one.rejection is not None:
        return str(one.rejection)
    # Without its name, which is said before.
    _, _, text = report.refusal(one).partition(f"{one.instance.name} ")
    return text


def document(found: whatif.Hypothesis) -> dict[str, Any]:
    """A hypothesis as data; doc/source/cli.rst describes it."""
    return {
        "edits": [edit.text for edit in found.edits],
        "assumptions": list(found.assumptions),
        "fits": found.fits,
        "outcomes": [
            {
                "edit": outcome.edit.text,
                "text": outcome.text,
                "proven": outcome.proven,
                "placements": [
                    {
                        **_instance(one.instance),
                        "source": one.instance.host or None,
                        "target": one.target,
                    }
                    for one in outcome.placements
                ],
                "unplaced": [
                    {
                        **_instance(one.instance),
                        "source": one.instance.host or None,
                        "why": why(one),
                    }
                    for one in outcome.unplaced
                ],
            }
            for outcome in found.outcomes
        ],
    }


def _instance(instance: model.Instance) -> dict[str, Any]:
    return {
        "instance": {"name": instance.name, "uuid": instance.uuid},
        "tier": instance.tier,
        "units": instance.units,
    }
