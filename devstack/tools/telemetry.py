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

"""Ceilometer's files, extended by the steal of instances.

    telemetry.py polling /etc/ceilometer/polling.yaml
    telemetry.py pipeline /etc/ceilometer/pipeline.yaml
    telemetry.py archive-policy gnocchi_resources_cputier.yaml

``polling`` and ``pipeline`` edit the file that is there, of whatever
deployment it is; a file that has all already stays as it is, byte for byte.
``--undo`` takes out again what they add. ``archive-policy`` prints the name
of the archive policy and below it, one a line, the arguments that ``openstack
metric archive-policy create`` takes for it.
"""

import argparse
from collections.abc import Iterator
import pathlib
import sys
from typing import Any
from urllib import parse

import yaml

METER = "cpu.steal"
# The meter that it belongs to: both are polled in one go.
BESIDE = "cpu"
EXCEPT = f"!{METER}"
SOURCE, SINK = "steal_source", "steal_sink"
DEFINITIONS = "gnocchi_resources_cputier.yaml"


class UnusableError(Exception):
    """The file is not what Ceilometer reads."""


def poll(document: dict[str, Any]) -> None:
    """Name the meter in each source that polls cpu, unless it polls all."""
    sources = [one["meters"] for one in document["sources"]]
    if any(METER in meters or "*" in meters for meters in sources):
        return
    found = [meters for meters in sources if BESIDE in meters]
    if not found:
        raise UnusableError(f"no source polls {BESIDE}")
    for meters in found:
        meters.insert(meters.index(BESIDE) + 1, METER)


def forget_poll(document: dict[str, Any]) -> None:
    """Undo ``poll``."""
    for one in document["sources"]:
        one["meters"] = [name for name in one["meters"] if name != METER]


def send(document: dict[str, Any]) -> None:
    """Give the meter a sink whose publishers know its definition.

    Gnocchi's publisher drops meters that it has no definition of. The
    publishers are those of the source that has all meters, Gnocchi's with
    definitions of the package.
    """
    sources, sinks = document["sources"], document["sinks"]
    if any(one["name"] == SOURCE for one in sources):
        return
    everything = [one for one in sources if "*" in one["meters"]]
    publishers = [
        publisher
        for one in sinks
        if any(one["name"] in source["sinks"] for source in everything)
        for publisher in one["publishers"]
    ]
    if not any(_is_gnocchi(publisher) for publisher in publishers):
        # Whatever else there is takes every meter.
        return
    for source in everything:
        source["meters"].append(EXCEPT)
    sources.append({"name": SOURCE, "meters": [METER], "sinks": [SINK]})
    sinks.append(
        {"name": SINK, "publishers": [_defined(one) for one in publishers]}
    )


def forget_send(document: dict[str, Any]) -> None:
    """Undo ``send``."""
    for one in document["sources"]:
        one["meters"] = [name for name in one["meters"] if name != EXCEPT]
    for part, name in (("sources", SOURCE), ("sinks", SINK)):
        document[part] = [one for one in document[part] if one["name"] != name]


def policy(document: dict[str, Any]) -> Iterator[str]:
    """The archive policy, as arguments of a command."""
    (told,) = document["archive_policies"]
    yield told["name"]
    yield from ("--back-window", str(told["back_window"]))
    for method in told["aggregation_methods"]:
        yield from ("--aggregation-method", method)
    for one in told["definition"]:
        yield from (
            "--definition",
            ",".join(f"{name}:{value}" for name, value in one.items()),
        )


def _is_gnocchi(publisher: str) -> bool:
    return parse.urlsplit(publisher).scheme == "gnocchi"


def _defined(publisher: str) -> str:
    """The publisher with the package's definitions.

    Its archive policy would override theirs, and goes.
    """
    if not _is_gnocchi(publisher):
        return publisher
    told = parse.urlsplit(publisher)
    options = [
        (name, value)
        for name, value in parse.parse_qsl(told.query)
        if name not in ("archive_policy", "resources_definition_file")
    ]
    options.append(("resources_definition_file", DEFINITIONS))
    return f"gnocchi://{told.netloc}{told.path}?{parse.urlencode(options)}"


EDITS = {"polling": (poll, forget_poll), "pipeline": (send, forget_send)}


def _edit(what: str, path: pathlib.Path, *, undo: bool) -> None:
    text = path.read_text(encoding="utf-8")
    document, before = yaml.safe_load(text), yaml.safe_load(text)
    EDITS[what][undo](document)
    if document != before:
        path.write_text(
            yaml.safe_dump(
                document, explicit_start=True, sort_keys=False, indent=2
            ),
            encoding="utf-8",
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=[*EDITS, "archive-policy"])
    parser.add_argument("file", type=pathlib.Path)
    parser.add_argument("--undo", action="store_true")
    told = parser.parse_args()
    try:
        if told.what in EDITS:
            _edit(told.what, told.file, undo=told.undo)
        else:
            text = told.file.read_text(encoding="utf-8")
            print(*policy(yaml.safe_load(text)), sep="\n")
    except OSError as exc:
        print(f"{told.file}: {exc.strerror}", file=sys.stderr)
        return 1
    except (UnusableError, yaml.YAMLError) as exc:
        print(f"{told.file}: {exc}", file=sys.stderr)
        return 1
    except (KeyError, TypeError, ValueError):
        print(
            f"{told.file}: it is no {told.what} file of Ceilometer",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
