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


"""Pages, as a browser shows them and as the commands write them.

The browser is a real Chromium without a window and without a network. What
it takes pictures of is looked at by a small reader of their pixels: a page
is not blank, dark is dark, and what is over quota is seen.
"""

from collections.abc import Mapping
import dataclasses
import functools
import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import threading
from typing import Any

from PIL import Image
import pytest

from benchmarks import families
from tests import clouds_to_see
from tests.cloud import EmbeddedCloud
from tests.functional import specs
from tests.functional import test_osc
from tests.functional.conftest import Load
from tests.functional.specs import instance
from tests.unit import test_pages as parsing
from watcher_cputier import audits
from watcher_cputier import pages
from watcher_cputier.pages import rendering

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
browsing = pytest.mark.skipif(
    BROWSER is None,
    reason=f"none of {', '.join(NAMES)} is on PATH: Debian's package chromium "
    "has the first one",
)
WIDTH, HEIGHT = 1240, 1800
DARK, LIGHT = 0, 1

openstack = test_osc.openstack


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shown:
    """What a browser made of a page.

    :param dom: the document when its script has run
    :param said: what it wrote to its console
    :param asked: addresses that the page wanted
    """

    dom: str
    said: list[str]
    asked: list[str]
    picture: Image.Image
    printed: bytes

    def share(self, colour: tuple[int, ...]) -> float:
        """Of the pixels that have this very colour."""
        size = self.picture.width * self.picture.height
        counted = self.picture.getcolors(size) or ()
        return sum(n for n, found in counted if found == colour) / size

    @property
    def pages(self) -> int:
        """Sheets of paper that it was printed on."""
        return len(re.findall(rb"/Type /Page\b", self.printed))


def show(page: str, folder: pathlib.Path, scheme: int = LIGHT) -> Shown:
    """Open a page, and look at everything."""
    assert BROWSER is not None
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    network = folder / "network.json"
    done = subprocess.run(
        [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--no-first-run",
            f"--user-data-dir={folder / 'profile'}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            "--enable-logging=stderr",
            "--virtual-time-budget=3000",
            f"--log-net-log={network}",
            f"--window-size={WIDTH},{HEIGHT}",
            f"--blink-settings=preferredColorScheme={scheme}",
            f"--screenshot={folder / 'page.png'}",
            f"--print-to-pdf={folder / 'page.pdf'}",
            "--no-pdf-header-footer",
            "--dump-dom",
            file.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    events = json.loads(network.read_text())["events"]
    asked = [
        told["url"]
        for told in (event.get("params") or {} for event in events)
        # The browser's own affairs have no origin.
        if told.get("initiator", "not an origin") != "not an origin"
        and not told["url"].startswith("file:")
    ]
    with Image.open(folder / "page.png") as picture:
        return Shown(
            dom=done.stdout,
            said=re.findall(r"CONSOLE.*?\] (.*)", done.stderr),
            asked=asked,
            picture=picture.convert("RGB"),
            printed=(folder / "page.pdf").read_bytes(),
        )


def colour(name: str, palette: str) -> tuple[int, ...]:
    """A colour of the style sheet."""
    return parsing.palettes()[palette][name]


@functools.cache
def six() -> str:
    return pages.plan(clouds_to_see.plan_document(clouds_to_see.six()))


@functools.cache
def thousand() -> str:
    cloud = families.build(families.BY_NAME["drain"], 1000)
    return pages.plan(clouds_to_see.plan_document(cloud, max_migrations=60))


@functools.cache
def hosts() -> str:
    return pages.hosts(clouds_to_see.hosts_document(clouds_to_see.six()))


@functools.cache
def audit() -> str:
    return pages.audit(audits.document(clouds_to_see.audit_report()))


# In a browser


@browsing
def test_what_is_looked_for_would_be_found(tmp_path: pathlib.Path) -> None:
    """A page that loads things and fails is caught doing it."""
    shown = show(
        "<!DOCTYPE html><title>x</title>"
        '<img src="http://elsewhere.example/a.png">'
        "<script>missing();</script>",
        tmp_path,
    )
    assert shown.asked == ["http://elsewhere.example/a.png"]
    assert any("missing is not defined" in line for line in shown.said)
    assert shown.share((255, 255, 255)) > 0.99


@browsing
@pytest.mark.parametrize(
    ("make", "sheets", "scheme", "palette"),
    [
        (six, 4, LIGHT, "light"),
        (six, 4, DARK, "dark"),
        (thousand, 8, LIGHT, "light"),
        (thousand, 8, DARK, "dark"),
        (hosts, 2, LIGHT, "light"),
        (audit, 4, DARK, "dark"),
    ],
)
def test_a_page_in_a_browser(
    make: Any, sheets: int, scheme: int, palette: str, tmp_path: pathlib.Path
) -> None:
    """It is seen, in the colours that were asked for, and is left in peace."""
    page = make()
    shown = show(page, tmp_path, scheme)

    assert shown.said == []
    assert shown.asked == []
    # The script has run, and has left everything else alone.
    assert shown.dom.count("<script>") == 1
    assert ('id="find"' in shown.dom) == (make is thousand)
    if make is thousand:
        assert '<p class="find">' in shown.dom
    assert shown.picture.size == (WIDTH, HEIGHT)
    ground = colour("page", palette)
    assert shown.picture.getpixel((2, 2)) == ground
    assert shown.share(ground) + shown.share(colour("card", palette)) < 0.97
    assert shown.share(colour("card", palette)) > 0.3
    assert shown.share(colour("over", palette)) > 0.0004
    other = "dark" if palette == "light" else "light"
    assert shown.share(colour("page", other)) < 0.01
    # Nothing runs out of the window to the right.
    assert {
        shown.picture.getpixel((WIDTH - 2, y)) for y in range(0, HEIGHT, 7)
    } == {ground}
    assert shown.printed.startswith(b"%PDF")
    assert 1 <= shown.pages <= sheets


@browsing
def test_what_tenants_write_does_not_run(tmp_path: pathlib.Path) -> None:
    """Neither as it is, nor if nothing were escaped at all."""
    evil = "<script>document.title = 'taken over'</script>"
    document = clouds_to_see.plan_document(clouds_to_see.six(instance=evil))
    page = pages.plan(document)

    shown = show(page, tmp_path)
    raw = page.replace("&lt;", "<").replace("&gt;", ">")
    assert evil in raw.replace("&#39;", "'")
    broken = show(raw.replace("&#39;", "'"), tmp_path)

    assert "<title>CPU tiers: the plan</title>" in shown.dom
    assert shown.said == []
    # The page's policy forbids it, and the browser says so.
    assert "<title>CPU tiers: the plan</title>" in broken.dom
    assert any("Content Security Policy" in line for line in broken.said)


@browsing
def test_finding_a_host(tmp_path: pathlib.Path) -> None:
    """The script finds and sorts; its own text is replaced to press keys."""
    page = thousand()
    keys = (
        "window.addEventListener('load', function () {"
        "var find = document.getElementById('find');"
        "find.value = 'H0012';"
        "find.dispatchEvent(new Event('input'));"
        "var head = document.querySelector('table.list thead button');"
        "head.click(); head.click();"
        "});"
    )
    script = rendering._template("page.js")
    page = page.replace(script, script + keys)
    # The policy knows the old script.
    page = re.sub(
        "script-src &#39;[^&]*&#39;", "script-src 'unsafe-inline'", page
    )

    shown = show(page, tmp_path)

    assert shown.said == []
    tree = parsing.html5lib.parse(shown.dom, namespaceHTMLElements=False)
    assert parsing.text_of(tree.find(".//output[@id='hits']")) == "10 hosts"
    squares = tree.find(".//ul[@class='squares dim']")
    hits = [one for one in squares if "hit" in one.get("class")]
    assert sorted(one.get("title").partition(":")[0] for one in hits) == [
        f"h0012{digit}" for digit in range(10)
    ]
    rows = [
        row
        for row in tree.find(".//table[@id='all']/tbody")
        if row.get("hidden") is None
    ]
    assert len(rows) == 10
    sorted_ = tree.find(".//th[@aria-sort]")
    assert sorted_.get("aria-sort") == "descending"


# From the commands

EVIL = "<script>alert(1)</script>"
OVER = specs.three_tiers(
    instance(EVIL, "gold.4", "host-1"),
    instance("small", "gold.2", "host-1", count=2),
    instance("full", "bronze.4", "host-2", count=2),
    events=(specs.inventory("host-1", "gold", total=4),),
)


def test_pages_of_the_commands(
    load: Load,
    openstack: test_osc.Run,
    cloud: EmbeddedCloud,
    tmp_path: pathlib.Path,
) -> None:
    """They show what the commands print, which Placement confirms elsewhere.

    Names come from Nova, where tenants write what they like.
    """
    load(OVER, shared=True)
    seen, planned, report = (
        tmp_path / name for name in ("hosts.html", "plan.html", "plan.json")
    )

    rows = openstack("tier", "host", "list", "--html", str(seen)).rows
    made = openstack(
        *("tier", "plan", "--html", str(planned), "--report", str(report))
    )
    refused = openstack("tier", "plan", "--html", str(tmp_path / "no" / "x"))

    tree = parsing.parsed(seen.read_text())
    shown = {
        row[0]: row[1:-1] for row in parsing.table(tree, "Units held / quota")
    }
    tiers = list(dict.fromkeys(row["Tier"] for row in rows))
    assert shown.keys() == {row["Host"] for row in rows}
    for row in rows:
        cell = shown[row["Host"]][tiers.index(row["Tier"])]
        held, _, quota = cell.partition(" / ")
        assert parsing.number(held) == row["Allocated"]
        assert parsing.number(quota) == row["Quota"]
        assert ("▲" in cell) == (row["State"] == "over")
    document = json.loads(report.read_text())
    assert planned.read_text() == pages.plan(document)
    moves = parsing.table(
        parsing.parsed(planned.read_text()), "The migrations"
    )
    assert [[row[1], row[4], row[5]] for row in moves] == [
        [row["Instance"], row["Source"], row["Target"]] for row in made.rows
    ]
    assert EVIL in {row[1] for row in moves}
    assert EVIL not in planned.read_text()
    # Found out before the cloud is read.
    assert refused.status == 1
    assert "There is no directory" in refused.err
    assert refused.out == ""


def on_a_terminal(
    words: list[str], environment: Mapping[str, str]
) -> tuple[str, str]:
    """What a command prints, and what its terminal sees of standard error."""
    ours, theirs = pty.openpty()
    seen: list[bytes] = []

    def read() -> None:
        while True:
            try:
                found = os.read(ours, 65536)
            except OSError:
                return
            if not found:
                return
            seen.append(found)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        done = subprocess.run(
            words,
            env={**environment, "TERM": "xterm", "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=theirs,
            text=True,
            timeout=180,
            check=True,
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return done.stdout, b"".join(seen).decode()


def test_a_terminal_is_told_what_is_read(
    load: Load, openstack: test_osc.Run, cloud: EmbeddedCloud
) -> None:
    """And a pipe is not."""
    load(OVER, shared=True)
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("OS_") and "proxy" not in name.lower()
    }
    environment.update(cloud.environment("admin"))
    words = [sys.executable, "-m", "openstackclient.shell"]
    words += ["tier", "summary", "-f", "json"]

    out, told = on_a_terminal(words, environment)
    piped = openstack("tier", "summary")

    assert "Working, 0 s" in told
    assert re.search(r"read so far: .*Placement \d+ requests", told)
    assert json.loads(out) == piped.data
    assert "Working" not in piped.err
    # The line is taken away.
    assert told.rstrip().endswith(("\x1b[2K", "\x1b[?25h"))
