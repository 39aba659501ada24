"""Take the pictures of the README from real runs: `python -m benchmarks.pictures` writes docs/pictures/*.png.

A Prefect server of its own, the example project on a DuckDB file, three builds: a good one, one that a critical test
stops because payments of the source were changed, and a good one again. Chromium has to be on the PATH; where pngquant
is, the pictures are a third of the size.
"""

from __future__ import annotations

import asyncio
import base64
import html
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import duckdb

from benchmarks.server import free_port, prefect_server
from infrastructure.console import EntryCommand
from infrastructure.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
# Sharp on a display of two pixels to the point, where a README shows them some 900 points wide.
_SCALE = 1.5
# Where the pictures were taken is of no interest, and each machine has its own.
_SHORTEN = """
for (let texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), text; (text = texts.nextNode());)
  text.data = text.data.replaceAll(%s, "");
"""
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_TARGETS = """
profile: tributary
default: prod
targets:
  prod: {{warehouse: duckdb, path: {path}, schema: analytics}}
"""
# A reconciliation that fails: what was recorded as paid is not what was worked out.
_CHANGED_PAYMENTS = """
update raw.supabase_payment set net_amount = net_amount + 12.50
where payment_id in (select payment_id from raw.supabase_payment where paid order by payment_id desc limit 3)
"""


@click.command(cls=EntryCommand, help="Take the pictures of the README from real runs.")
@click.option("--keep", type=click.Path(path_type=Path), help="Leave warehouse, state and pages in this folder.")
def main(keep: Path | None) -> None:
    """Run, look, write."""
    browser = next((found for name in _BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        raise ConfigError("Pictures are taken by Chromium, which is not on the PATH: apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as temporary:
        folder = (keep or Path(temporary)).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        environment = _environment(folder)
        with prefect_server(environment) as url:
            environment["PREFECT_API_URL"] = url
            runs = _three_runs(environment, folder)
            with _open_browser(browser, folder) as port:
                for name, address, width, height, wait_for in _pages(environment, folder, url, runs):
                    picture = PICTURES / f"{name}.png"
                    picture.write_bytes(asyncio.run(_taken(port, address, (width, height), wait_for, str(folder))))
                    _make_small(picture)
                    click.echo(f"{picture.relative_to(ROOT)}  {picture.stat().st_size / 1000:.0f} kB")


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "TRIBUTARY_"))}
    return kept | {
        "PREFECT_HOME": str(folder / "prefect"),
        "TRIBUTARY_WORKSPACE": str(folder),
        "TRIBUTARY_STATE": str(folder / "state"),
    }


def _three_runs(environment: dict[str, str], folder: Path) -> list[str]:
    """Return the ids of the flow runs: good, failed, good again."""
    path = folder / "warehouse.duckdb"
    (folder / "tributary.yml").write_text(f"project: {ROOT / 'dbt'}\n")
    (folder / "targets.yml").write_text(_TARGETS.format(path=path))
    _program(environment, "infrastructure.setup_profiles", "--blocks-only")
    build = ("flows", "run", "--target", "prod")
    _program(environment, *build, "--data")
    # What is there before the pictures: a few builds, so that the report has a past.
    for _ in range(3):
        _program(environment, *build, "--no-data", "--select", "tag:marts+")
    _program(environment, *build, "--no-data")
    with duckdb.connect(str(path)) as warehouse:
        before = warehouse.sql("select * from raw.supabase_payment").fetchall()
        warehouse.sql(_CHANGED_PAYMENTS)
    _program(environment, *build, "--no-data", may_fail=True)
    _program(environment, "flows", "report", "--target", "prod", "--output", str(folder / "report.html"))
    (folder / "incidents.json").write_text(_alert(environment))
    with duckdb.connect(str(path)) as warehouse:
        warehouse.sql("delete from raw.supabase_payment")
        warehouse.executemany(f"insert into raw.supabase_payment values ({', '.join('?' * len(before[0]))})", before)
    _program(environment, *build, "--no-data")
    runs = _flow_runs(environment["PREFECT_API_URL"])
    for run in runs:
        _wait_for_all_nodes(environment["PREFECT_API_URL"], run)
    return runs


def _program(environment: dict[str, str], module: str, *arguments: str, may_fail: bool = False) -> None:
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode and not may_fail:
        raise ConfigError(f"{' '.join(command[1:])} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")


def _alert(environment: dict[str, str]) -> str:
    """Return the message that Slack would be sent, as JSON."""
    code = (
        "import json, os; from datetime import UTC, datetime\n"
        "from flows.alerts.incident_store import Notice, store_of\n"
        "from flows.alerts.send.slack import slack_message\n"
        "found = tuple(store_of('prod', os.environ).read().incidents.values())\n"
        "print(json.dumps(slack_message(Notice('prod', new=found), lambda owner: owner, datetime.now(UTC))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, check=True, capture_output=True, text=True
    )
    return done.stdout


def _flow_runs(url: str) -> list[str]:
    body = json.dumps({"sort": "START_TIME_DESC", "limit": 2, "flow_runs": {"parent_task_run_id": {"is_null_": True}}})
    request = urllib.request.Request(f"{url}/flow_runs/filter", body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        latest = json.load(answer)
    return [run["id"] for run in latest]


def _wait_for_all_nodes(url: str, run: str) -> None:
    """Wait until the server has made task runs of the events that it was sent: for five seconds, nothing is new."""
    seen, since = "", time.monotonic()
    while time.monotonic() - since < 5:
        with urllib.request.urlopen(f"{url}/flow_runs/{run}/graph-v2") as answer:
            now = answer.read().decode()
        if now != seen:
            seen, since = now, time.monotonic()
        time.sleep(1)


def _pages(
    environment: dict[str, str], folder: Path, url: str, runs: list[str]
) -> Iterator[tuple[str, str, int, int, str]]:
    """Yield name, address, width and height of each picture, and a JavaScript expression that says that it is drawn."""
    page = f"{url.removesuffix('/api')}/runs/flow-run"
    drawn = "document.querySelector('canvas') && !document.querySelector('.p-loading-icon')"
    yield "run", f"{page}/{runs[0]}", 1060, 500, drawn
    yield "failed-run", f"{page}/{runs[1]}", 1060, 500, drawn
    yield "report", (folder / "report.html").as_uri(), 1060, 900, "document.querySelector('svg')"
    message = folder / "alert.html"
    message.write_text(_message_page(json.loads((folder / "incidents.json").read_text())))
    yield "alert", message.as_uri(), 760, 410, "true"


def _message_page(message: dict[str, Any]) -> str:
    """Return a page with a Slack message: its blocks, drawn as plainly as they can be."""
    parts = list[str]()
    for block in message["blocks"]:
        if "text" in block:
            text = html.escape(html.unescape(block["text"]["text"]), quote=False)
            text = re.sub(r"```\n?(.*?)```", r"<pre>\1</pre>", text, flags=re.S)
            text = re.sub(r"`([^`\n]+)`", r"<code>\1</code>", text)
            text = re.sub(r"\*([^*\n]+)\*", r"<b>\1</b>", text)
            text = re.sub(r"&lt;!date\^\d+\^[^|]*\|([^&]*)&gt;", r"\1", text)
            text = re.sub(r"&lt;([^|&]+)\|([^&]*)&gt;", r'<a href="\1">\2</a>', text)
            tag = "h3" if block["type"] == "header" else "p"
            parts.append(f"<{tag}>{text}</{tag}>")
        for element in block.get("elements", []):
            label = element["text"]["text"] if isinstance(element.get("text"), dict) else element.get("text", "")
            parts.append(f"<span class=button>{html.escape(label)}</span>")
    style = (
        "body{font:15px/1.45 system-ui,sans-serif;margin:0;padding:20px 24px;color:#1d1c1d;background:#fff}"
        "h3{margin:0 0 6px;font-size:18px}p{margin:0 0 10px;white-space:pre-line}"
        "pre,code{font:12.5px/1.5 ui-monospace,monospace;background:#f6f6f6;border:1px solid #ddd;border-radius:4px}"
        "pre{padding:8px;margin:6px 0;white-space:pre-wrap;overflow-wrap:anywhere}"
        "code{padding:1px 4px}a{color:#1264a3;text-decoration:none}"
        ".button{display:inline-block;border:1px solid #bbb;border-radius:4px;padding:5px 12px;font-weight:600}"
    )
    return f"<!doctype html><meta charset=utf-8><style>{style}</style>{''.join(parts)}"


@contextmanager
def _open_browser(browser: str, folder: Path) -> Iterator[int]:
    """Run a browser without a window for the time of the block, and yield the port that it listens on."""
    port = free_port()
    quiet = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run")
    drawing = ("--enable-unsafe-swiftshader", "--hide-scrollbars", "--force-device-scale-factor=1")
    process = subprocess.Popen(
        [browser, "--headless", "--no-sandbox", *quiet, *drawing, f"--remote-debugging-port={port}",
         f"--user-data-dir={folder / 'browser'}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield port
    finally:
        process.terminate()
        process.wait()


async def _taken(port: int, address: str, size: tuple[int, int], wait_for: str, folder: str) -> bytes:
    """Open a page, wait until it is drawn, and return what is seen of it, as PNG; paths begin below the folder."""
    from websockets.asyncio.client import connect

    async with connect(_tab(port), max_size=None) as tab:
        numbers = itertools.count(1)

        async def ask(method: str, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401  (the protocol's)
            number = next(numbers)
            await tab.send(json.dumps({"id": number, "method": method, "params": parameters}))
            async for text in tab:
                answer = json.loads(text)
                if answer.get("id") == number:
                    return answer["result"]
            raise ConfigError("The browser ended before the picture was taken.")

        width, height = size
        await ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=_SCALE, mobile=False
        )
        await ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
        await ask("Page.navigate", url=address)
        until = time.monotonic() + 60
        while time.monotonic() < until:
            there = await ask("Runtime.evaluate", expression=f"Boolean({wait_for})", returnByValue=True)
            if there["result"].get("value"):
                break
            await asyncio.sleep(0.5)
        else:
            raise ConfigError(f"{address} was not drawn within a minute.")
        # The graph of a run is laid out by a worker of the page, which says nothing when it is done.
        await asyncio.sleep(12)
        await ask("Runtime.evaluate", expression=_SHORTEN % json.dumps(f"{folder}/"))
        shot = await ask("Page.captureScreenshot", format="png")
        return base64.b64decode(shot["data"])


def _tab(port: int) -> str:
    """Open an empty page, and return where it is spoken to."""
    until = time.monotonic() + 30
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)["webSocketDebuggerUrl"]
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _make_small(picture: Path) -> None:
    if shutil.which("pngquant"):
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--ext", ".png", str(picture)], check=False)


if __name__ == "__main__":
    main()
