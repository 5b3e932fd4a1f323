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

"""Pages: they say what the document says, and nothing happens in them.

A real HTML parser, which knows no mercy, reads every page.
"""

import base64
import dataclasses
import datetime
import hashlib
from importlib import resources
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import html5lib
import pytest

from benchmarks import families
from tests import builders
from tests import clouds_to_see
from tests import consumption
from watcher_cputier import audits
from watcher_cputier import delivery
from watcher_cputier import diagnosis
from watcher_cputier import model
from watcher_cputier import offer
from watcher_cputier import pages
from watcher_cputier import parameters
from watcher_cputier import report
from watcher_cputier import starvation
from watcher_cputier.cli import main
from watcher_cputier.pages import flow
from watcher_cputier.pages import heat
from watcher_cputier.pages import rendering
from watcher_cputier.pages import timeline
from watcher_cputier.pages import told

ROOT = pathlib.Path(__file__).parents[2]
SCENARIOS = sorted((ROOT / "tests" / "scenarios").glob("*.yaml"))
EVIL = "<script>alert(1)</script>"
EVILER = "\"'><img src=http://evil.example/x onerror=alert(1)>{{ 7*7 }}"


def parsed(page: str) -> ElementTree.Element:
    """The document, if it is valid HTML."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    return parser.parse(page)


def text_of(element: ElementTree.Element) -> str:
    """All that is written in an element."""
    return " ".join("".join(element.itertext()).split())


def figures(tree: ElementTree.Element) -> dict[str, list[float] | str]:
    """The numbers at the top of a page, by label."""
    found = {}
    for one in tree.iterfind(".//dl[@class='figures']/div"):
        label = text_of(one.find("dt"))
        numbers = [float(d.get("value")) for d in one.iter("data")]
        found[label] = numbers or text_of(one.find("dd"))
    return found


def table(tree: ElementTree.Element, caption: str) -> list[list[str]]:
    """The rows of the table whose caption begins like this."""
    (found,) = [
        one
        for one in tree.iter("table")
        if text_of(one.find("caption")).startswith(caption)
    ]
    return [[text_of(cell) for cell in row] for row in found.find("tbody")]


def number(cell: str) -> int | None:
    """The number of a cell, which may have a sign before it."""
    found = re.search(r"[\d,]+", cell)
    return int(found[0].replace(",", "")) if found else None


@pytest.fixture(scope="module")
def six() -> dict[str, Any]:
    return clouds_to_see.plan_document(clouds_to_see.six())


@pytest.fixture(scope="module")
def thousand() -> dict[str, Any]:
    cloud = families.build(families.BY_NAME["drain"], 1000)
    return clouds_to_see.plan_document(cloud, max_migrations=60)


@pytest.fixture(scope="module")
def thousand_tree(thousand: dict[str, Any]) -> ElementTree.Element:
    return parsed(pages.plan(thousand))


@pytest.fixture(scope="module")
def hosts_of_six() -> dict[str, Any]:
    return clouds_to_see.hosts_document(clouds_to_see.six())


@pytest.fixture(scope="module")
def audit() -> dict[str, Any]:
    return audits.document(clouds_to_see.audit_report())


# Numbers


def check_map(document: dict[str, Any], rows: list[list[str]]) -> None:
    """Every host is there, with every number."""
    by_name = {row[0]: row[1:-1] for row in rows}
    assert len(by_name) == len(rows) == len(document["hosts"])
    for host in document["hosts"]:
        cells = iter(by_name[host["name"]])
        for account in host["accounts"].values():
            for units in ("held", "after"):
                if units not in account:
                    continue
                held, _, quota = next(cells).partition(" / ")
                assert number(held) == account[units]
                assert number(quota) == account["quota"]
        assert not list(cells)


def test_map_of_few_hosts(six: dict[str, Any]) -> None:
    check_map(six, table(parsed(pages.plan(six)), "Units held / quota"))


def test_map_of_many_hosts(
    thousand: dict[str, Any], thousand_tree: ElementTree.Element
) -> None:
    tree = thousand_tree
    check_map(thousand, table(tree, "Units held / quota"))
    squares = tree.findall(".//ul[@class='squares']")
    # Three tiers, before and after.
    assert [len(one) for one in squares] == [1000] * 6
    for account, (before, after) in zip(
        ("gold", "silver", "bronze"),
        (squares[n : n + 2] for n in (0, 2, 4)),
        strict=True,
    ):
        for member, squares_of in (("state", before), ("state_after", after)):
            states = [
                h["accounts"][account][member] for h in thousand["hosts"]
            ]
            levels = [square.get("class") for square in squares_of]
            assert levels.count("o") == states.count("over")
            assert levels.count("n") == states.count("near")
            assert states.count("over") > 0
        tips = {one.get("title").partition(":")[0]: one for one in before}
        assert set(tips) == {host["name"] for host in thousand["hosts"]}
        for host in thousand["hosts"]:
            units = host["accounts"][account]
            tip = tips[host["name"]].get("title").partition(": ")[2]
            numbers = [number(one) for one in re.findall(r"[\d,]+", tip)]
            changed = units["held"] != units["after"]
            assert numbers == [
                units["held"],
                *([units["after"]] if changed else []),
                units["quota"],
            ]


def test_hot_hosts_come_first(thousand: dict[str, Any]) -> None:
    found = heat.draw(
        thousand["hosts"], migrations=thousand["migrations"]
    ).rows
    over = [sum(cell.excess for cell in row.cells) for row in found]
    assert over == sorted(over, reverse=True)
    assert over[0] > 0
    # Whoever is over quota is among those that need attention.
    calling = {row.host for row in found if row.calls}
    assert {r.host for r in found if any(c.excess for c in r.cells)} <= calling
    assert {one["source"] for one in thousand["migrations"]} <= calling
    assert len(calling) < 1000


def test_figures_of_a_plan(six: dict[str, Any]) -> None:
    found = figures(parsed(pages.plan(six)))
    values = six["indicators"]
    for label, name in (
        ("Hosts over quota", "hosts_over_quota"),
        ("Units over quota", "excess_units"),
        ("Starved instances", "instances_starved"),
    ):
        pair = [values[f"{name}_before"], values[f"{name}_after"]]
        assert pair[0] != pair[1], label
        assert found[label] == pair
    assert found["Migrations"] == [len(six["migrations"])]


def test_migrations_with_their_times(six: dict[str, Any]) -> None:
    rows = table(parsed(pages.plan(six)), "The migrations")
    assert len(rows) == len(six["migrations"]) > 3
    for place, (row, one, step) in enumerate(
        zip(rows, six["migrations"], six["schedule"]["steps"], strict=True)
    ):
        assert row == [
            str(place + 1),
            one["instance"]["name"],
            one["tier"],
            str(one["units"]),
            one["source"],
            one["target"],
            told.duration(step["start"]),
            told.duration(step["seconds"]),
            told.places(step["needs"]),
            one["reason"],
        ]


def test_deferred_migrations_are_listed(
    thousand: dict[str, Any], thousand_tree: ElementTree.Element
) -> None:
    tree = thousand_tree
    assert figures(tree)["Deferred"] == [len(thousand["deferred"])]
    rows = table(tree, "Deferred migrations")
    listed = [row[0] for row in rows]
    wanted = [one["instance"]["name"] for one in thousand["deferred"]]
    assert listed == wanted[: len(listed)]
    assert len(listed) >= 100


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_has_a_page(
    path: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The command writes it; what is blocked is there with its reasons."""
    page = tmp_path / "plan.html"
    words = ["plan", "--scenario", str(path), "--format", "json"]
    assert main.main([*words, "--html", str(page)]) == 0
    document = json.loads(capsys.readouterr().out)
    content = page.read_text()
    assert content == pages.plan(document)
    tree = parsed(content)
    check_map(document, table(tree, "Units held / quota"))
    said = text_of(tree.find("body"))
    for one in document["unresolved"]:
        assert (
            f"{one['host']} stays {told.plural(one['units'], 'unit')} over"
        ) in said
        for refusal in one["refusals"]:
            for text in told.refusal(refusal):
                assert " ".join(text.split()) in said
    for one in (*document["relaxations"], *document["suggestions"]):
        assert one["text"] in said


def test_what_was_assumed(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = ROOT / "tests" / "scenarios" / "over_gold_quota.yaml"
    page = tmp_path / "plan.html"
    words = ["--scenario", str(scenario), "--what-if", "remove-host=rack-2"]
    main.main(["plan", *words, "--format", "json", "--html", str(page)])
    document = json.loads(capsys.readouterr().out)
    said = text_of(parsed(page.read_text()).find("body"))
    for one in document["what_if"]["outcomes"]:
        assert one["edit"] in said
        assert one["text"] in said


# Hosts


def test_hosts_of_few(hosts_of_six: dict[str, Any]) -> None:
    tree = parsed(pages.hosts(hosts_of_six))
    check_map(hosts_of_six, table(tree, "Units held / quota"))
    found = figures(tree)
    assert found["Hosts"] == [6]
    assert found["Hosts over quota"] == [2]
    assert found["Units over quota"] == [hosts_of_six["excess_units"]] == [22]
    assert found["Starved instances"] == [len(hosts_of_six["starved"])] == [1]
    (starved,) = table(tree, "Instances that do not get")
    assert starved[0] == hosts_of_six["starved"][0]["instance"]["name"]


def test_hosts_that_are_picked_out() -> None:
    document = clouds_to_see.hosts_document(
        clouds_to_see.six(), hosts={"compute-1"}, accounts={"gold"}
    )
    tree = parsed(pages.hosts(document))
    (row,) = table(tree, "Units held / quota")
    assert row[:2] == ["compute-1", "▲32 / 24"]
    assert "1 of 1 host shown here (of 6) is over" in text_of(tree)


def test_a_pool_is_not_counted_twice() -> None:
    """Units over a policy quota may be over that of all tiers as well."""
    cloud = clouds_to_see.single_class()
    document = clouds_to_see.hosts_document(cloud, quotas={"gold": 300})
    over = {
        (one["host"], one["tier"]): one["units"] for one in document["excess"]
    }
    assert over == {("rack-1", "VCPU_SHARES"): 100, ("rack-1", "gold"): 100}
    found = figures(parsed(pages.hosts(document)))
    assert found["Units over quota"] == [100]


# Promise and delivery


def test_delivery_by_hand() -> None:
    """Per tier what the telemetry says, against the floor."""
    cloud = clouds_to_see.six()
    params = parameters.Parameters.of({})
    verdict = diagnosis.diagnose(cloud, params)
    found = starvation.judge(cloud, verdict, params)
    assert cloud.telemetry is not None
    for one in delivery.deliveries(found):
        mine = [i for i in cloud.instances if i.tier == one.tier]
        got = wanted = promised = short = 0.0
        measured = 0
        for instance in mine:
            readings = cloud.telemetry.readings.get(instance.uuid)
            if readings is None:
                continue
            measured += 1
            (reading, *_) = readings
            assert reading is not None
            floor = found.condition(instance.uuid).floor
            assert floor is not None
            demand = reading.usage_cpus + reading.steal_cpus
            got += reading.usage_cpus
            wanted += demand
            promised += floor * demand
            short += max(0.0, floor * demand - reading.usage_cpus)
        assert (one.instances, one.measured) == (len(mine), measured)
        assert one.got_cpus == pytest.approx(got)
        assert one.wanted_cpus == pytest.approx(wanted)
        assert one.promised_cpus == pytest.approx(promised)
        assert one.short_cpus == pytest.approx(short)
        assert one.starved == sum(
            c.instance.tier == one.tier for c in found.starved
        )
    assert sum(one.starved for one in delivery.deliveries(found)) == 1


def test_delivery_on_the_page(six: dict[str, Any]) -> None:
    rows = table(parsed(pages.plan(six)), "Promise and delivery by tier")
    for row, one in zip(rows, six["delivery"]["tiers"], strict=True):
        assert row[:7] == [
            one["tier"],
            told.cpus(one["promised_cpus"]),
            told.cpus(one["got_cpus"]),
            told.percent(one["got_cpus"], one["promised_cpus"]),
            told.cpus(one["short_cpus"]),
            f"▲ {one['starved']}" if one["starved"] else "0",
            f"{one['measured']} of {one['instances']}",
        ]
        assert one["got_cpus"] > 0


def test_no_telemetry_is_said() -> None:
    cloud = builders.cluster([builders.host("a")], [])
    for page in (
        pages.plan(clouds_to_see.plan_document(cloud)),
        pages.hosts(clouds_to_see.hosts_document(cloud)),
    ):
        tree = parsed(page)
        assert "No telemetry. No telemetry was read." in text_of(tree)
        assert figures(tree)["Starved instances"] == "unknown"


def test_a_tier_that_nobody_measured_has_no_zeros() -> None:
    cloud = consumption.used(
        builders.cluster(
            [consumption.host("a")],
            [
                consumption.guest("g", "a"),
                consumption.guest("s", "a", "silver"),
            ],
        ),
        1.0,
        unmeasured=["s"],
    )
    tree = parsed(pages.hosts(clouds_to_see.hosts_document(cloud)))
    gold, silver, bronze = table(tree, "Promise and delivery by tier")
    assert gold[6] == "1 of 1"
    assert gold[2] != told.MISSING
    assert silver[1:7] == [told.MISSING] * 5 + ["0 of 1"]
    assert silver[7] == "none was measured"
    assert bronze[7] == "no running instance"
    assert "50 % of the running instances were measured" in text_of(tree)


def test_unknown_and_absent_quotas_have_signs() -> None:
    hosts = [builders.host("a", gold=None), builders.host("b")]
    cloud = builders.cluster(hosts, [builders.instance("x", "a", 3)])
    document = clouds_to_see.hosts_document(cloud, drain_hosts=["b"])
    rows = table(parsed(pages.hosts(document)), "Units held / quota")
    by_name = {row[0]: row for row in rows}
    assert by_name["a"][1] == "?3 / ?"
    assert by_name["b"][1] == "○0 / 0"
    assert "drained" in by_name["b"][-1]


# What audits did


def test_audit(audit: dict[str, Any]) -> None:
    tree = parsed(pages.audit(audit))
    (plan,) = audit["plans"]
    rows = table(tree, "The migrations, and what became of them")
    for row, one in zip(rows, plan["migrations"], strict=True):
        assert row[0] == one["instance"]["name"]
        assert row[5].endswith(one["outcome"])
    assert {row[5].split()[-1] for row in rows} == {
        "moved",
        "skipped",
        "failed",
    }
    (tier,) = table(tree, "Units over quota by tier")
    (told_,) = plan["tiers"]
    assert [number(cell) for cell in tier[1:]] == [
        told_["before"],
        told_["planned"],
        told_["after"],
    ]
    runs = table(tree, "Runs")
    assert [row[0] for row in runs] == [
        one["at"] for one in audit["course"]["runs"]
    ]
    assert [number(row[7]) for row in runs] == [
        one["excess"]["before"] for one in audit["course"]["runs"]
    ]
    said = text_of(tree)
    for text in (*plan["sentences"], *audit["findings"]):
        assert " ".join(text.split()) in said


def test_notices_name_no_host(audit: dict[str, Any]) -> None:
    told_ = ("watcher_cputier_audit", "taken_at", "notices")
    page = pages.audit({name: audit[name] for name in told_})
    said = text_of(parsed(page))
    hosts = {one["host"] for one in audit["plans"][0]["hosts"]}
    assert hosts
    assert not [host for host in hosts if host in page]
    for one in audit["notices"]:
        assert " ".join(one["text"].split()) in said


# Nothing happens in a page


@pytest.fixture(scope="module")
def every_tree(
    every_page: dict[str, str], thousand_tree: ElementTree.Element
) -> dict[str, ElementTree.Element]:
    return {
        name: thousand_tree if name == "thousand" else parsed(page)
        for name, page in every_page.items()
    }


@pytest.fixture(scope="module")
def every_page(
    six: dict[str, Any],
    thousand: dict[str, Any],
    hosts_of_six: dict[str, Any],
    audit: dict[str, Any],
) -> dict[str, str]:
    return {
        "six": pages.plan(six),
        "thousand": pages.plan(thousand),
        "hosts": pages.hosts(hosts_of_six),
        "audit": pages.audit(audit),
    }


def test_nothing_is_loaded(
    every_page: dict[str, str], every_tree: dict[str, ElementTree.Element]
) -> None:
    for name, page in every_page.items():
        assert "http:" not in page
        assert "https:" not in page
        assert "@import" not in page
        assert "url(" not in page
        for element in every_tree[name].iter():
            for where in ("src", "href", "action", "data", "srcset", "poster"):
                assert element.get(where, "data:,") == "data:,"
            assert element.tag not in {"iframe", "object", "embed", "base"}
            assert not [one for one in element.attrib if one[:2] == "on"]
            # The page's policy lets no style of a single element through.
            assert "style" not in element.attrib


def test_the_policy_knows_the_page(every_page: dict[str, str]) -> None:
    """Browsers refuse whatever script or style is not the page's own."""
    for page in every_page.values():
        (policy,) = re.findall(
            r'<meta http-equiv="Content-Security-Policy" content="([^"]+)">',
            page,
        )
        policy = policy.replace("&#39;", "'")
        assert policy.startswith("default-src 'none'")
        for tag in ("script", "style"):
            (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
            digest = hashlib.sha256(content.encode()).digest()
            wanted = f"sha256-{base64.b64encode(digest).decode()}"
            assert f"{tag}-src '{wanted}'" in policy
        assert "unsafe" not in policy


def test_same_input_same_bytes(six: dict[str, Any]) -> None:
    code = (
        "import json, sys\n"
        "from watcher_cputier import pages\n"
        "sys.stdout.write(pages.plan(json.load(sys.stdin)))"
    )
    page = pages.plan(six)
    assert page == pages.plan(json.loads(json.dumps(six)))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(six),
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    assert done.stdout == page


@pytest.mark.parametrize("name", [EVIL, EVILER])
def test_names_of_tenants_are_inert(name: str) -> None:
    cloud = clouds_to_see.six(instance=name, host=name)
    document = clouds_to_see.plan_document(cloud)
    moved = {one["instance"]["name"] for one in document["migrations"]}
    hosts = {one["source"] for one in document["migrations"]}
    assert name in moved & hosts
    for page in (
        pages.plan(document),
        pages.hosts(clouds_to_see.hosts_document(cloud)),
    ):
        assert name not in page
        tree = parsed(page)
        assert len(list(tree.iter("script"))) == 1
        assert not list(tree.iter("img"))
        assert " ".join(name.split()) in text_of(tree)
        assert any(
            name in element.get("data-host", "") for element in tree.iter("tr")
        )


def test_names_in_audits_are_inert(audit: dict[str, Any]) -> None:
    for name in (EVIL, EVILER):
        # Each text of the document is the evil one.
        text = json.loads(
            json.dumps(audit),
            object_hook=lambda found, name=name: {
                key: name
                if isinstance(value, str)
                and key not in ("outcome", "kind", "began_at")
                else value
                for key, value in found.items()
            },
        )
        page = pages.audit(text)
        assert name not in page
        tree = parsed(page)
        assert len(list(tree.iter("script"))) == 1
        assert not list(tree.iter("img"))


def test_templates_belong_to_the_package() -> None:
    folder = resources.files("watcher_cputier.pages") / "templates"
    names = {one.name for one in folder.iterdir()}
    assert {"base.html", "page.css", "page.js", "plan.html"} <= names
    for name in names - {"page.css", "page.js"}:
        rendering._environment().get_template(name)


def test_a_large_page_is_small(every_page: dict[str, str]) -> None:
    assert len(every_page["thousand"]) < 700_000
    assert len(every_page["six"]) < 50_000


# For all eyes


def test_headings_and_heads(
    every_tree: dict[str, ElementTree.Element],
) -> None:
    for tree in every_tree.values():
        assert tree.get("lang") == "en"
        assert text_of(tree.find("head/title"))
        assert len(list(tree.iter("h1"))) == 1
        levels = [
            int(element.tag[1])
            for element in tree.iter()
            if element.tag in {"h1", "h2", "h3", "h4"}
        ]
        # No level is left out on the way down.
        assert levels[0] == 1
        steps = itertools.pairwise(levels)
        assert all(after <= before + 1 for before, after in steps)
        for one in tree.iter("table"):
            assert text_of(one.find("caption"))
            assert all(th.get("scope") for th in one.iter("th"))
        for one in tree.iter("svg"):
            assert one.get("role") == "img"
            assert one.get("aria-label")


def colours(block: str) -> dict[str, tuple[int, int, int]]:
    """The colours that a block of the style sheet names."""
    return {
        name: tuple(bytes.fromhex(value))
        for name, value in re.findall(r"--([a-z0-9-]+): #([0-9a-f]{6})", block)
    }


def palettes() -> dict[str, dict[str, tuple[int, int, int]]]:
    blocks = re.findall(
        r":root \{(.*?)\}", rendering._template("page.css"), re.DOTALL
    )
    light, dark, printed = map(colours, blocks)
    return {"light": light, "dark": {**light, **dark}, "print": printed}


def linear(colour: tuple[int, int, int]) -> list[float]:
    return [
        part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4
        for part in (value / 255 for value in colour)
    ]


def luminance(colour: tuple[int, int, int]) -> float:
    red, green, blue = linear(colour)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    """WCAG 2's, 1 to 21."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("name", ["light", "dark", "print"])
@pytest.mark.parametrize(
    ("ink", "ground"),
    [
        ("ink", "page"),
        ("ink", "card"),
        ("muted", "page"),
        ("muted", "card"),
        ("good", "card"),
        ("bad", "card"),
        ("ink", "q0"),
        ("ink", "q1"),
        ("ink", "q2"),
        ("q3-ink", "q3"),
        ("near-ink", "near"),
        ("over-ink", "over"),
    ],
)
def test_contrast_of_text(name: str, ink: str, ground: str) -> None:
    """WCAG 2 AA for text."""
    palette = palettes()[name]
    assert contrast(palette[ink], palette[ground]) >= 4.5


# Machado, Oliveira and Fernandes (2009), severity 1: what dichromats see.
DICHROMATS = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def seen(colour: tuple[int, int, int], kind: str) -> list[float]:
    """A colour in CIE L*a*b*, as a dichromat sees it."""
    rgb = linear(colour)
    rgb = [
        min(1.0, max(0.0, sum(w * v for w, v in zip(row, rgb, strict=True))))
        for row in DICHROMATS[kind]
    ]
    xyz = [
        (0.4124 * rgb[0] + 0.3576 * rgb[1] + 0.1805 * rgb[2]) / 0.9505,
        0.2126 * rgb[0] + 0.7152 * rgb[1] + 0.0722 * rgb[2],
        (0.0193 * rgb[0] + 0.1192 * rgb[1] + 0.9505 * rgb[2]) / 1.089,
    ]
    x, y, z = (
        v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116 for v in xyz
    )
    return [116 * y - 16, 500 * (x - y), 200 * (y - z)]


@pytest.mark.parametrize("kind", DICHROMATS)
@pytest.mark.parametrize("name", ["light", "dark", "print"])
@pytest.mark.parametrize(
    "group", [("q1", "q2", "q3", "near", "over"), ("t0", "t1", "t2")]
)
def test_colours_for_the_colour_blind(
    name: str, kind: str, group: tuple[str, ...]
) -> None:
    """Ten steps apart are two colours to everybody, side by side."""
    palette = palettes()[name]
    for place, one in enumerate(group):
        for other in group[place + 1 :]:
            apart = sum(
                (a - b) ** 2
                for a, b in zip(
                    seen(palette[one], kind),
                    seen(palette[other], kind),
                    strict=True,
                )
            )
            assert apart**0.5 > 10, (one, other)


def test_every_level_has_a_sign_or_a_shade() -> None:
    signs = [sign for sign, _ in heat.LEVELS.values() if sign]
    assert len(signs) == len(set(signs))
    assert {"o", "n", "u", "d", "x"} == {
        level for level, (sign, _) in heat.LEVELS.items() if sign
    }


# Drawings


def _move(
    number: int, source: str, target: str, tier: str = "gold", units: int = 4
) -> dict[str, Any]:
    return {
        "instance": {"name": f"i{number}", "uuid": f"i{number}"},
        "source": source,
        "target": target,
        "tier": tier,
        "units": units,
    }


def test_a_flow_loses_nobody() -> None:
    moves = [
        _move(n, f"s{n % 70}", f"t{n % 50}", "gold" if n % 3 else "silver")
        for n in range(500)
    ]
    found = flow.draw(moves, ["gold", "silver"])
    assert found is not None
    assert (found.sources, found.targets) == (70, 50)
    assert len(found.bands) <= flow.MOST_BANDS + 2
    counts = []
    for band in found.bands:
        counted = re.match(r"(\d+) instances", band.label)
        counts.append(int(counted[1]) if counted else 1)
    assert sum(counts) == 500
    assert found.gathered == sum(
        count
        for count, band in zip(counts, found.bands, strict=True)
        if band.title.startswith("between other hosts")
    )
    # Hosts of one side do not overlap.
    for anchor in ("start", "end"):
        side = sorted(
            (n.y, n.y + n.height) for n in found.nodes if n.anchor == anchor
        )
        for (_, bottom), (top, _) in itertools.pairwise(side):
            assert bottom < top
        assert side[-1][1] <= found.height


def test_bands_of_a_host_fill_it() -> None:
    moves = [
        _move(1, "a", "c", units=8),
        _move(2, "a", "d", units=4),
        _move(3, "b", "c", "silver", units=4),
    ]
    found = flow.draw(moves, ["gold", "silver"])
    assert found is not None
    heights = {
        (one.title.partition(":")[0], one.anchor): one.height
        for one in found.nodes
    }
    assert heights["a", "end"] == pytest.approx(heights["c", "start"], abs=0.2)
    assert heights["a", "end"] == pytest.approx(
        heights["b", "end"] * 3, abs=0.3
    )
    assert [place for place, _ in found.tiers] == [0, 1]


def test_units_that_nobody_knows_are_not_told() -> None:
    found = flow.draw(
        [{**_move(1, "a", "b"), "tier": None, "units": None}], []
    )
    assert found is not None
    assert found.bands[0].label == "i1"
    assert flow.draw([], []) is None


def test_a_timeline_keeps_the_order() -> None:
    moves = [_move(n, "a", f"t{n}") for n in range(3)]
    steps = [
        {"needs": [], "after": [], "start": 0.0, "seconds": 10.0},
        {"needs": [], "after": [], "start": 0.0, "seconds": 30.0},
        {"needs": [0], "after": [], "start": 10.0, "seconds": 20.0},
    ]
    order = {"makespan_seconds": 30.0, "steps": steps}
    found = timeline.draw(moves, order, ["gold"])
    assert found is not None
    assert (found.rows, found.lanes, len(found.links)) == (True, 2, 1)
    first, second, third = found.bars
    assert (first.x, second.x) == (found.left, found.left)
    assert third.x == pytest.approx(first.x + first.width, abs=0.2)
    assert second.width == pytest.approx(3 * first.width, abs=0.2)
    assert "waits for 1" in third.title
    many = timeline.draw(
        moves * 20,
        {
            "makespan_seconds": 600.0,
            "steps": [
                {
                    "needs": [],
                    "after": [],
                    "start": 10.0 * (n // 2),
                    "seconds": 10.0,
                }
                for n in range(60)
            ],
        },
        ["gold"],
    )
    assert many is not None
    assert (many.rows, many.lanes) == (False, 2)
    assert len({bar.y for bar in many.bars}) == 2


def test_a_timeline_of_what_ran(audit: dict[str, Any]) -> None:
    """Nova's records of two; the others never ran."""
    (plan,) = audit["plans"]
    found = timeline.ran(plan["migrations"], ["gold"])
    assert found is not None
    assert [bar.name for bar in found.bars] == ["shop-1", "shop-2"]
    # A minute apart, 42 seconds each.
    first, second = found.bars
    assert found.seconds == pytest.approx(102)
    assert (second.x - first.x) / first.width == pytest.approx(60 / 42, 0.01)
    assert timeline.ran([], ["gold"]) is None
    nothing = [{**one, "began_at": None} for one in plan["migrations"]]
    assert timeline.ran(nothing, ["gold"]) is None


@pytest.mark.parametrize(
    "text",
    [
        "1970-01-01T00:00:00Z",
        "2000-02-29T23:59:59Z",
        "2000-03-01T00:00:00Z",
        "2026-11-21T12:00:03Z",
        "2027-12-31T23:59:59Z",
        "2100-02-28T01:02:03Z",
    ],
)
def test_moments(text: str) -> None:
    assert (
        told.moment(text) == datetime.datetime.fromisoformat(text).timestamp()
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, told.MISSING),
        (0, "0 s"),
        (119, "119 s"),
        (120, "2 min"),
        (250, "4 min 10 s"),
        (1232, "21 min"),
        (7200, "2 h"),
        (8520, "2 h 22 min"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert told.duration(seconds) == text


def test_numbers() -> None:
    assert told.number(None) == told.MISSING
    assert told.number(0) == "0"
    assert told.number(1234567) == "1,234,567"
    assert told.number(0.125) == "0.12"
    assert told.percent(1, 0) == told.MISSING
    assert told.percent(None, 1) == told.MISSING
    assert told.percent(999, 1000) == "99 %"
    assert told.percent(0, 3) == "0 %"
    name = "compute-0123456789.rack-7.example.org"
    assert len(told.short(name)) == 26
    assert told.short(name).startswith("compute-")
    assert told.short(name).endswith("example.org")


# Units after a plan


def test_units_after_a_plan(six: dict[str, Any]) -> None:
    """They are what the migrations leave, and agree with the excess."""
    after = {
        (host["name"], tier): account["after"]
        for host in six["hosts"]
        for tier, account in host["accounts"].items()
    }
    for host in six["hosts"]:
        for tier, account in host["accounts"].items():
            change = sum(
                one["units"] * (one["target"] == host["name"])
                - one["units"] * (one["source"] == host["name"])
                for one in six["migrations"]
                if one["tier"] == tier
            )
            assert account["after"] == account["held"] + change
            one = offer.Standing(
                host="",
                account="",
                held=account["after"],
                quota=account["quota"],
            )
            assert account["state_after"] == one.state
    for one in six["excess_after"]:
        assert after[one["host"], one["tier"]] > 0


def test_an_instance_that_is_parked_is_counted_once() -> None:
    path = ROOT / "tests" / "scenarios" / "hop_that_is_needed.yaml"
    document = clouds_to_see.scenario_document(path)
    moves = [one["instance"]["name"] for one in document["migrations"]]
    assert len(moves) > len(set(moves))
    for tier in document["hosts"][0]["accounts"]:
        accounts = [host["accounts"][tier] for host in document["hosts"]]
        assert sum(one["held"] for one in accounts) == sum(
            one["after"] for one in accounts
        )


def test_an_instance_counts_elsewhere_with_what_its_flavor_asks_for() -> None:
    """It holds 4 units; its flavor, changed since, asks for 6."""
    guest = builders.instance("x", "a", 4)
    changed = builders.instance("x", "a", 6).flavor
    guest = dataclasses.replace(guest, flavor=changed)
    hosts = [builders.host("a", gold=2), builders.host("b")]
    document = clouds_to_see.plan_document(builders.cluster(hosts, [guest]))
    source, target = (host["accounts"]["gold"] for host in document["hosts"])
    assert (source["held"], source["after"]) == (4, 0)
    assert (target["held"], target["after"]) == (0, 6)


def test_in_single_class_mode_both_accounts_change() -> None:
    document = clouds_to_see.plan_document(clouds_to_see.single_class())
    (move,) = document["migrations"]
    by_name = {host["name"]: host["accounts"] for host in document["hosts"]}
    source, target = by_name[move["source"]], by_name[move["target"]]
    for account in (move["tier"], "bronze"):
        assert (
            source[account]["held"] - source[account]["after"] == move["units"]
        )
        assert (
            target[account]["after"] - target[account]["held"] == move["units"]
        )


def test_the_document_is_the_report() -> None:
    """Nothing of the model is needed to draw a page."""
    cloud: model.Cluster = clouds_to_see.six()
    params = parameters.Parameters.of({})
    verdict = diagnosis.diagnose(cloud, params)
    found = starvation.judge(cloud, verdict, params)
    document = report.hosts_document(cloud, verdict, found)
    assert pages.hosts(document) == pages.hosts(
        json.loads(json.dumps(document))
    )
