"""The page in a real browser, and what it must never hold."""

from __future__ import annotations

import base64
import gzip
import json
import re
import shutil
import subprocess
import zlib
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.__main__ import main
from flows.report.html.page import write_report
from tests.flows.report.html.made import made_history
from tests.support.history_runs import AT, node, run, stored

pytest.importorskip("vl_convert", reason="needs the report extra: uv sync --extra report")

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--enable-logging=stderr"),
)

# What a person does, and what that changes on the page; written where --dump-dom shows it.
_VISIT = """
addEventListener("load", async () => {
  const rows = () => [...document.querySelectorAll("#all tbody tr")].filter((row) => !row.hidden);
  const count = document.getElementById("all-count");
  const changed = (act) => new Promise((done) => {
    new MutationObserver((_, watch) => { watch.disconnect(); done(); }).observe(count, {childList: true});
    act();
  });
  const said = {shown: rows().length, count: count.textContent};
  const find = document.getElementById("all-find");
  const type = (text) => { find.value = text; return changed(() => find.dispatchEvent(new Event("input"))); };
  await type("FCT refunds");
  said.found = rows().map((row) => row.cells[0].textContent);
  await type("");
  const took = [...document.querySelectorAll("#all th")][5];
  await changed(() => took.querySelector("button").click());
  said.sorted = took.getAttribute("aria-sort");
  said.longest = rows()[0].cells[0].textContent;
  const owner = document.querySelector("#only select");
  owner.selectedIndex = [...owner.options].findIndex((option) => option.text === "Finance");
  await changed(() => owner.dispatchEvent(new Event("change")));
  said.chosen = count.textContent;
  said.failing = [...document.querySelectorAll("#failing tbody tr")].filter((row) => !row.hidden).length;
  said.filters = [...document.querySelectorAll("#only label")].map((label) => label.firstChild.textContent.trim());
  const bar = document.querySelector("#last svg path[aria-label*='stg_payments_10:']");
  bar.dispatchEvent(new PointerEvent("pointermove", {bubbles: true, clientX: 9, clientY: 9}));
  said.told = document.getElementById("told").textContent;
  said.wide = document.documentElement.scrollWidth - innerWidth;
  document.body.dataset.said = JSON.stringify(said);
});
"""


@pytest.fixture(scope="session")
def browser() -> str:
    found = next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("needs Chromium: install it (apt-get install chromium), or put it on the PATH")
    return found


def visit(browser: str, page: Path, folder: Path, *options: str, fragment: str = "") -> str:
    """Open a page, and return what the browser printed; fail when the page complained about anything."""
    arguments = [browser, *_QUIET, f"--user-data-dir={folder / 'browser'}", *options, page.as_uri() + fragment]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints, complaints
    return done.stdout


def acted_on(page: Path) -> Path:
    """Return a copy of a page that somebody uses as soon as it is there."""
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
    copy = page.with_name(f"acted-{page.name}")
    copy.write_text(text.replace("</body>", f"<script>{_VISIT}</script></body>"))
    return copy


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the report of a history whose last run had 5,000 nodes."""
    folder = tmp_path_factory.mktemp("big")
    store = made_history(folder, AT, runs=8, nodes=5000, nodes_before=60)
    write_report(store, "shop", "dev", folder / "report.html")
    return folder / "report.html"


def test_five_thousand_nodes_can_be_filtered_sorted_and_pointed_at(browser: str, big: Path) -> None:
    options = ("--dump-dom", "--window-size=1280,900", "--virtual-time-budget=60000")
    dom = visit(browser, acted_on(big), big.parent, *options)
    found = re.search(r"data-said='([^']*)'|data-said=\"([^\"]*)\"", dom)
    assert found, "the page's scripts did not get to their end"
    said: dict[str, Any] = json.loads((found[1] or found[2]).replace("&quot;", '"'))
    assert said["shown"] == 300
    assert said["count"] == "5,000 of 5,000, the first 300 are shown"
    assert said["found"]
    assert all("fct_refunds" in name for name in said["found"])
    assert (said["sorted"], said["longest"]) == ("descending", "stg_payments_10")
    assert said["filters"] == ["Owner", "Tag", "Folder"], "the nodes of one dbt project are not told apart by it"
    assert re.fullmatch(r"1,6\d\d of 5,000, the first 300 are shown", said["chosen"]), "a third is of that owner"
    assert said["failing"] == 1
    assert said["told"].startswith("stg_payments_10: ")
    assert said["told"].endswith("on the critical path")


@pytest.mark.parametrize(
    ("width", "scheme", "background"),
    [(1280, 1, (0xF6, 0xF7, 0xF9)), (1280, 0, (0x10, 0x14, 0x1B)), (390, 1, (0xF6, 0xF7, 0xF9))],
    ids=["light", "dark", "phone"],
)
def test_the_page_is_drawn_in_light_dark_and_on_a_phone(
    browser: str, big: Path, tmp_path: Path, width: int, scheme: int, background: tuple[int, int, int]
) -> None:
    shot = tmp_path / "page.png"
    options = [f"--window-size={width},1200", f"--blink-settings=preferredColorScheme={scheme}"]
    visit(browser, big, tmp_path, *options, f"--screenshot={shot}")
    assert _first_colour(shot) == background
    assert shot.stat().st_size > 40_000, "text and charts are there"


def _first_colour(png: Path) -> tuple[int, ...]:
    """Return the colour of a screenshot's first pixel, whose neighbours, and so its filter, do not count."""
    data = png.read_bytes()
    unpacked = zlib.decompressobj().decompress(data[data.index(b"IDAT") + 4 :], 4)
    return tuple(unpacked[1:4])


class _Loads(HTMLParser):
    """Collect every address that a page would fetch, and the ids that its links and labels name."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.ids: set[str] = set()
        self.named: set[str] = set()
        self.pages: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.addresses += [value for name in ("src", "href", "action", "xlink:href") if (value := values.get(name))]
        self.pages |= {values["id"] or ""} if tag == "article" else set()
        self.ids |= {value for name, value in attrs if name == "id" and value}
        self.named |= {value for name, value in attrs if name in ("aria-labelledby", "for") and value}


def unpacked(text: str) -> dict[str, str]:
    """Return the pages of nodes that a report holds packed, by the id of each."""
    found = re.search(r'id="packed">([^<]*)<', text)
    return json.loads(gzip.decompress(base64.b64decode(found[1]))) if found else {}


def test_the_page_of_a_model_opens_by_its_address_also_where_the_pages_are_packed(
    browser: str, big: Path, tmp_path: Path
) -> None:
    write_report(made_history(tmp_path, AT, runs=2, nodes=30), "shop", "dev", tmp_path / "small.html")
    small = (tmp_path / "small.html").read_text()
    assert not unpacked(small)
    assert small.count('<article class="page"') == small.count(' class="page"') > 15
    for page, anchor in (
        (big, "node.model.shop.stg_payments_10.10"),
        (tmp_path / "small.html", "node.model.shop.int_payments_10.10"),
    ):
        dom = visit(browser, page, tmp_path, "--dump-dom", "--virtual-time-budget=5000", fragment=f"#{anchor}")
        if page == big:
            assert dom.count('<article class="page"') == 1, "the one that was opened"
        assert f'<article class="page" id="{anchor}"' in dom


def test_the_page_loads_nothing_and_every_link_and_label_leads_somewhere(big: Path) -> None:
    text = big.read_text()
    page = _Loads()
    page.feed(text)
    assert {address[0] for address in page.addresses} == {"#"}
    assert {address[1:] for address in page.addresses} | page.named <= page.ids | unpacked(text).keys()
    inside = _Loads()
    inside.feed("".join(unpacked(text).values()))
    assert {address[1:] for address in inside.addresses} - {"main"} <= unpacked(text).keys() - {"rows"} == inside.pages
    assert "url(" not in text.replace("url(#", "")
    assert "@import" not in text
    assert "default-src 'none'" in text
    assert big.stat().st_size < 5_000_000


def test_what_a_warehouse_says_is_shown_as_text_and_never_run(tmp_path: Path, browser: str) -> None:
    evil = '<script>alert("x")</script>&"\''
    rows = [
        node(evil, "failed", message=f"{evil} " * 50, owner=evil, thread=evil, seconds=3.0),
        node("b", start=3.0, thread="t", waited_for=f"model.shop.{evil}"),
    ]
    runs = [run(rows, AT - timedelta(hours=hours), run_error=evil, warehouse=evil) for hours in (2, 1)]
    write_report(stored(tmp_path, *runs), "shop", "dev", tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text()
    assert text.count("<script>") == 1, "the page's own"
    assert "&lt;script&gt;alert" in text
    dom = visit(browser, tmp_path / "page.html", tmp_path, "--dump-dom")
    assert "All 2 nodes" in dom


def test_a_project_that_was_never_run_has_a_page_that_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    done = CliRunner().invoke(main, ["report"])
    assert (done.exit_code, done.stdout) == (
        0,
        f"tributary on dev: unknown. Open {tmp_path}/report-tributary-dev.html\n",
    )
    assert "uv run tributary run --target dev" in (tmp_path / "report-tributary-dev.html").read_text()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIBUTARY_STATE", str(tmp_path))
    (tmp_path / "file").write_text("")
    done = CliRunner().invoke(main, ["report", "--output", str(tmp_path / "file" / "report.html")])
    assert done.exit_code == 2
    assert "The report can't be written to" in done.stderr
    assert "Name another --output." in done.stderr
