"""The page in a real browser, over a real daemon: one of each for the whole file.

The daemon plays a simulated market; the page needs its token, so every test goes through the ticket route.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pandas as pd
import pytest
import pytest_asyncio
from aiohttp import web

from tests.acceptance.daemon import Daemon

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed: pip install -e .[dev]")
axe = pytest.importorskip("axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed")

playwright.expect.set_options(timeout=20_000)  # for a machine that is busy: each waits for a condition, not so long
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the PATH: apt-get install chromium"),
]

SECRET = "s3cret-of-the-page"
SYMBOLS = ("600519.SH", "000001.SZ")
VIEWS = ("board", "history", "rules", "tasks", "health")
RULES = """\
version: 1
groups:
- name: page
  rules:
  - id: move
    select: all
    when: "X: PCT; X > 0.3"
    rearm: "PCT < 0.25"
    on_start: fire
    freq: always
    message: "up {PCT:+.2f}%"
  - {id: each-minute, select: all, period: 1m, eval: bar_close, when: "C > O", freq: always}
"""
QUIET = """\
version: 1
groups:
- name: page
  rules:
  - {id: never, select: all, when: "LAST < 0"}
"""
NETWORK = ("ERR_CONNECTION", "ERR_EMPTY_RESPONSE", "WebSocket is closed", "ERR_NETWORK")
"""What a browser itself says of a server that is away; only the test that restarts it takes them for good."""


@dataclass
class Stage:
    """The daemon and the browser. complaints: what any page said in error since the test began."""

    daemon: Daemon
    browser: Any
    url: str
    rules: Path
    complaints: list[str] = field(default_factory=list)

    async def page(self, view: str = "board", *, token: bool = True, **context: Any) -> Any:
        """Open the page in a context of its own; by default in English, in light, with the token."""
        # without motion: each frame of it is drawn by the processor
        looks = {"locale": "en-GB", "color_scheme": "light", "reduced_motion": "reduce"}
        made = await self.browser.new_context(**{**looks, **context})
        if token:
            await made.add_init_script(f"sessionStorage.setItem('monitord.token', '{SECRET}')")
        page = await made.new_page()
        page.set_default_timeout(40_000)
        page.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        await page.goto(f"{self.url}/#{view}")
        if token:
            await is_live(page)
        return page

    async def ask(self, path: str, method: str = "GET") -> Any:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with aiohttp.ClientSession(self.url, headers=headers) as session, session.request(method, path) as reply:
            assert reply.status == 200, await reply.text()
            return await reply.json()

    async def use_rules(self, text: str) -> None:
        self.rules.write_text(text)
        await self.ask("/v1/rules/reload", "POST")


async def is_live(page: Any) -> None:
    """Wait until the page hears the gateway."""
    await playwright.expect(page.locator(".state")).to_have_attribute("data-state", "live", timeout=60_000)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def past_bars(file: Path) -> pd.DataFrame:
    """Write the minutes of the day before the market begins: a wave, with a phase of its own for each symbol."""
    midnight_ms = 1_735_574_400_000  # 2024-12-31 in Shanghai
    minutes = [*range(9 * 60 + 31, 11 * 60 + 31), *range(13 * 60 + 1, 15 * 60 + 1)]
    frames = []
    for place, symbol in enumerate(SYMBOLS):
        close = np.round(20 + np.sin(np.arange(240) / 9 + place), 2)
        frames.append(
            pd.DataFrame(
                {
                    "symbol": symbol, "period": "1m", "ts_end": [midnight_ms + m * 60_000 for m in minutes],
                    "open": close, "high": close, "low": close, "close": close, "volume_lots": 10.0,
                    "amount_cny": 1e4,
                }
            )
        )  # fmt: skip
    bars = pd.concat(frames, ignore_index=True)
    bars.to_csv(file, index=False)
    return bars


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    folder = tmp_path_factory.mktemp("page")
    rules = folder / "rules.yaml"
    rules.write_text(RULES)
    past_bars(folder / "past.csv")
    port = free_port()
    settings = {
        "rules.files": rules, "history.files": folder / "past.csv", "gateway.port": port,
        "gateway.tokens": orjson.dumps([{"name": "page", "token": SECRET}]).decode(), "feed.simulated.symbols": 40,
        "feed.simulated.speed": 10, "feed.simulated.start": "10:00:00",
    }  # fmt: skip
    daemon = Daemon(folder / "state", settings)
    await daemon.start()
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            await daemon.listening(180.0)
            yield Stage(daemon, browser, f"http://127.0.0.1:{port}", rules)
        finally:
            await browser.close()
            if daemon.process is not None and daemon.process.returncode is None:
                await daemon.interrupt()


@pytest_asyncio.fixture(loop_scope="module")
async def stage(running: Stage) -> AsyncIterator[Stage]:
    """Give the stage, and see to it that no page complained and none stays open."""
    running.complaints.clear()
    yield running
    for context in running.browser.contexts:
        await context.close()
    assert running.complaints == []


async def test_an_alert_is_on_the_page_within_a_second_of_its_decision(stage: Stage) -> None:
    page = await stage.page()
    delays_ms = await page.evaluate(
        """async () => {
          const { stream } = await import(new URL("page/stream.js", document.baseURI));
          return await new Promise((done) => {
            const delays = [];
            stream.addEventListener("alert", ({ detail: alert }) => requestAnimationFrame(() => {
              const row = document.querySelector(`[data-id="${alert.id}"]`);
              if (row) delays.push(Date.now() - alert.stamps.evaluated_ms);
              if (delays.length === 5) done(delays);
            }));
          });
        }"""
    )
    assert sorted(delays_ms)[2] < 1000, delays_ms
    assert await page.locator(".alert").count() >= 5
    await playwright.expect(page.locator("[role=log]")).to_contain_text("lert")


async def test_an_alert_opens_to_its_values_its_condition_and_its_deliveries(stage: Stage) -> None:
    page = await stage.page()
    newest = page.locator(".alert", has_text="move").first
    one = page.locator(f'[data-id="{await newest.get_attribute("data-id")}"]')  # others come in above it
    await one.locator("button").first.click()
    await playwright.expect(one.locator(".tree")).to_contain_text("X>0.3")
    why = await one.locator(".why").inner_text()
    assert "PCT" in why
    assert "No receiver was to get this." in why


async def test_quotes_move_and_symbols_are_found_added_removed_and_remembered(stage: Stage) -> None:
    page = await stage.page()
    rows = page.locator(".watch tbody tr")
    await playwright.expect(rows).to_have_count(8)
    await playwright.expect(rows.first.locator(".last")).to_have_text(re.compile(r"\d+\.\d\d"))
    box = page.get_by_role("combobox").first
    await box.fill("600519")
    await page.locator("[role=option]").first.wait_for()
    await box.press("Enter")
    await playwright.expect(rows).to_have_count(9)
    await playwright.expect(rows.first).to_contain_text("600519.SH")
    await rows.nth(1).locator(".drop").click()
    await page.reload()
    await playwright.expect(page.locator(".watch tbody tr")).to_have_count(8)
    await playwright.expect(page.locator(".watch tbody tr").first).to_contain_text("600519.SH")


async def test_a_formula_is_tried_out_and_marked_where_it_fires(stage: Stage, tmp_path: Path) -> None:
    closes = past_bars(tmp_path / "past.csv").set_index("symbol").loc["600519.SH", "close"].reset_index(drop=True)
    above = closes.rolling(5).mean() > closes.rolling(20).mean()
    known = closes.rolling(20).mean().notna()
    expected = int((above & ~above.shift(1, fill_value=True) & known.shift(1, fill_value=False)).sum())
    assert expected > 2
    page = await stage.page("rules")
    await _choose_only(page, "600519")
    await page.locator("textarea").fill("FAST: MA(C,5); SLOW: MA(C,20);\nFAST > SLOW")
    async with page.expect_response("**/v1/tryout", timeout=90_000) as answered:
        await page.get_by_role("button", name="Run", exact=True).click()
    told = await (await answered.value).json()
    chart = page.locator("[data-role=tryout-chart]")
    await chart.wait_for()
    fires = int((await page.locator("[data-role=fire-count]").inner_text()).split()[0])
    assert int(await chart.get_attribute("data-marks")) == fires == len(told["symbols"][0]["fires"])
    past = [fire for fire in told["symbols"][0]["fires"] if fire["ts_ms"] < 1_735_660_800_000]
    assert len(past) == expected  # the market's own minutes come behind them


async def test_a_bad_formula_says_where_with_a_caret(stage: Stage) -> None:
    page = await stage.page("rules")
    await _choose_only(page, "600519")
    await page.locator("textarea").fill("MA(C,5) >\n  FOO(C)")
    await page.get_by_role("button", name="Run", exact=True).click()
    finding = page.locator(".finding").first
    await finding.wait_for()
    lines = (await finding.inner_text()).splitlines()
    assert lines[0].startswith("formula:2:3: error")
    assert lines[1:3] == ["  FOO(C)", "  ^^^"]
    await page.get_by_role("button", name="Go to it").first.click()
    assert await page.locator("textarea").evaluate(SELECTED) == "FOO"
    stage.complaints[:] = [said for said in stage.complaints if "422" not in said]


async def test_a_task_is_made_started_and_stopped(stage: Stage) -> None:
    page = await stage.page("tasks")
    await page.get_by_role("button", name="+ New task").click()
    for name, text in {"Task": "mine", "Symbol": "600519.SH", "Entry from": "1", "Entry to": "9999"}.items():
        await page.locator(".form").get_by_label(name, exact=True).fill(text)
    await page.get_by_role("button", name="Create").click()
    task = page.locator("[data-task]")
    status = task.locator("[data-role=status]")
    await playwright.expect(status).to_have_text("stopped")
    await task.get_by_role("button", name="Start").click()
    await playwright.expect(status).to_have_text("running")
    await task.get_by_role("button", name="Stop").click()
    await playwright.expect(status).to_have_text("stopped")
    told = await stage.ask("/api/v1/monitor/tasks")
    assert [(one["task_name"], one["entry_max"], one["status"]) for one in told["data"]["tasks"]] == [
        ("mine", 9999.0, "stopped")
    ]


async def test_a_page_without_a_token_asks_for_it_and_keeps_it_in_its_tab(stage: Stage) -> None:
    page = await stage.page(token=False)
    field = page.get_by_label("Token", exact=True)
    await field.fill("wrong")
    await field.press("Enter")
    await playwright.expect(page.locator("dialog [role=alert]")).to_have_text("That token is wrong or has expired.")
    await page.get_by_label("Token", exact=True).fill(SECRET)
    await page.get_by_role("button", name="Connect").click()
    await is_live(page)
    assert SECRET not in await page.evaluate("JSON.stringify(localStorage)")
    assert SECRET not in page.url
    stage.complaints[:] = [said for said in stage.complaints if "401" not in said]


async def test_language_theme_and_colours_are_switched_and_remembered(stage: Stage) -> None:
    page = await stage.page(locale="zh-CN")
    await playwright.expect(page.locator("html")).to_have_attribute("lang", "zh-CN")
    up = "getComputedStyle(document.documentElement).getPropertyValue('--up')"
    red = await page.evaluate(up)
    await page.get_by_role("button", name="Switch to English").click()
    await page.get_by_role("button", name="Colours: now red up").click()
    await page.get_by_role("button", name="Light or dark").click()
    await page.reload()
    await is_live(page)
    await playwright.expect(page.locator(".tabs a").first).to_have_text("Board")
    await playwright.expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    assert await page.evaluate(up) != red


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_serious_in_any_view(stage: Stage, scheme: str) -> None:
    page = await stage.page(color_scheme=scheme)
    await page.locator(".alert button").first.click()
    found = []
    for view in VIEWS:
        await _go(page, view)
        if view == "history":
            await page.locator("tbody button.link").first.click()
        report = (await axe.Axe().run(page, context=LOOKED_AT, options=RULES_OF_AXE[scheme])).response
        found += [
            (view, one["id"], node["target"], node.get("failureSummary", "")[:300])
            for one in report["violations"]
            if one["impact"] in ("serious", "critical")
            for node in one["nodes"]
        ]
    assert found == []


async def test_no_view_scrolls_sideways_on_a_phone(stage: Stage) -> None:
    page = await stage.page(viewport={"width": 360, "height": 740}, has_touch=True)
    await page.locator(".alert button").first.click()
    widths = {}
    for view in VIEWS:
        await _go(page, view)
        widths[view] = await page.evaluate("document.documentElement.scrollWidth")
    assert widths == dict.fromkeys(VIEWS, 360)


async def test_the_page_can_be_walked_by_keyboard(stage: Stage) -> None:
    page = await stage.page()
    first = page.locator(".watch tbody tr").nth(0).get_by_role("button").first
    await first.focus()
    await page.keyboard.press("ArrowDown")
    await playwright.expect(page.locator(".watch tr.chosen")).to_have_attribute(
        "data-symbol", str(await page.locator(".watch tbody tr").nth(1).get_attribute("data-symbol"))
    )
    alert = page.locator(".alert > button").first
    await alert.focus()
    await page.keyboard.press("Enter")
    await playwright.expect(page.locator(".why").first).to_be_visible()


async def test_another_version_that_answers_is_told_with_a_way_to_reload(stage: Stage) -> None:
    page = await stage.page()
    await page.evaluate(UPGRADED)
    await playwright.expect(page.locator(".notice")).to_contain_text("9.9.9")
    await page.locator(".notice button", has_text="Reload").click()
    await playwright.expect(page.locator(".notice")).to_have_count(0)
    await is_live(page)


async def test_a_board_whose_first_question_fails_is_filled_when_it_can_be(stage: Stage) -> None:
    page = await stage.page()
    await page.route("**/v1/instruments?*", lambda route: route.fulfill(status=503, json={}))
    await page.evaluate("localStorage.clear()")
    async with page.expect_response("**/v1/instruments?*"):
        await page.reload()
    await is_live(page)
    await playwright.expect(page.locator("[data-symbol]")).to_have_count(0)
    await page.unroute("**/v1/instruments?*")
    await page.evaluate(ANEW)
    await playwright.expect(page.locator("[data-symbol]").first).to_be_visible()
    stage.complaints[:] = [said for said in stage.complaints if "503" not in said]


async def test_behind_a_proxy_page_and_reference_work_below_its_path(stage: Stage) -> None:
    async with below_a_path(stage.url) as url:
        page = await stage.page()
        await page.goto(f"{url}/monitor/")
        await is_live(page)
        await page.locator("a", has_text="API").click()
        await page.wait_for_url("**/monitor/docs")
        await playwright.expect(page.locator(".opblock-summary").first).to_be_visible()
        assert await page.locator(".servers option").first.get_attribute("value") == f"{url}/monitor"


async def test_a_daemon_that_cannot_tell_alerts_yet_is_asked_again_over_one_connection(stage: Stage) -> None:
    page = await stage.page()
    sockets: list[Any] = []
    page.on("websocket", lambda socket: sockets.append(socket))
    assert await page.evaluate(REFUSED_ONCE) == ["begun"]

    async def one_is_open() -> bool:
        return [socket.is_closed() for socket in sockets].count(False) == 1

    await _until(one_is_open)


async def test_after_a_restart_the_page_has_every_alert_that_the_history_has(stage: Stage) -> None:
    """The last test: it leaves the market with rules that never fire."""
    page = await stage.page()
    before = await _count(page)
    assert await stage.daemon.interrupt() == 0
    await playwright.expect(page.locator(".state")).not_to_have_attribute("data-state", "live")
    await stage.daemon.start()
    await stage.daemon.listening(180.0)
    await is_live(page)
    await _until(lambda: _more_than(page, before))
    await stage.use_rules(QUIET)

    async def agrees() -> bool:
        history = await stage.ask("/v1/alerts?page_size=1")
        return bool(history["total"] == await _count(page))

    await _until(agrees)
    history = await stage.ask("/v1/alerts?page_size=200")
    there = await page.evaluate(KNOWN)
    assert [one["data"]["id"] for one in history["alerts"] if one["data"]["id"] not in there] == []
    await _go(page, "history")
    await playwright.expect(page.locator("[data-role=history-count]")).to_have_attribute(
        "data-count", str(history["total"])
    )
    stage.complaints[:] = [said for said in stage.complaints if not any(word in said for word in NETWORK)]


@asynccontextmanager
async def below_a_path(upstream: str) -> AsyncIterator[str]:
    """Serve what is upstream below /monitor/, as a reverse proxy does, and nothing elsewhere."""

    async def pass_on(request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        headers = {name: value for name, value in request.headers.items() if name in ("Host", "Authorization")}
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await pass_socket_on(request, path)
        async with session.request(
            request.method, path, params=request.query, headers=headers, data=await request.read()
        ) as reply:
            kept = {name: value for name, value in reply.headers.items() if name.startswith("Content-Security")}
            return web.Response(
                status=reply.status, body=await reply.read(), headers=kept, content_type=reply.content_type
            )

    async def pass_socket_on(request: web.Request, path: str) -> web.WebSocketResponse:
        client = web.WebSocketResponse()
        await client.prepare(request)
        there = session.ws_connect(path, params=request.query, origin=upstream, max_msg_size=0)
        async with there as server, asyncio.TaskGroup() as tasks:
            down = tasks.create_task(copied(server, client))
            await copied(client, server)
            down.cancel()
        return client

    async def copied(source: Any, sink: Any) -> None:
        async for message in source:
            await sink.send_str(message.data)

    application = web.Application()
    application.router.add_route("*", "/monitor/{path:.*}", pass_on)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession(upstream) as session:
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


UPGRADED = """async () => {
  const { stream } = await import(new URL("page/stream.js", document.baseURI));
  const { report, reports } = await import(new URL("page/report.js", document.baseURI));
  if (!report()) await new Promise((told) => reports.addEventListener("told", told, { once: true }));
  stream.dispatchEvent(new CustomEvent("health", { detail: { ...report(), version: "9.9.9" } }));
}"""
ANEW = """async () => (await import(new URL("page/stream.js", document.baseURI))).connect()"""
KNOWN = """async () => {
  const { known } = await import(new URL("page/ledger.js", document.baseURI));
  return known().map((alert) => alert.id);
}"""
REFUSED_ONCE = """async () => {
  const { connect, stream } = await import(new URL("page/stream.js", document.baseURI));
  const send = WebSocket.prototype.send, heard = [];
  let isRefused = false;
  WebSocket.prototype.send = function (text) {
    const { id, args } = JSON.parse(text);
    if (isRefused || args[0].ch !== "alerts") return send.call(this, text);
    isRefused = true;
    setTimeout(() => this.onmessage({ data: JSON.stringify({ id, ok: false, error: { code: 120, msg: "later" } }) }));
    return undefined;
  };
  const begun = new Promise((done) => stream.addEventListener("begun", done, { once: true }));
  for (const name of ["begun", "refused"]) stream.addEventListener(name, () => heard.push(name));
  connect();
  connect();
  await begun;
  return heard;
}"""
"""Connects twice at once, to a gateway that has not reached the channel of alerts at first."""
SELECTED = "area => area.value.slice(area.selectionStart, area.selectionEnd)"
CONTENT = {
    "board": ".watch tbody tr", "history": "tbody tr", "rules": "textarea", "tasks": "[data-role=tasks-empty]",
    "health": ".big",
}  # fmt: skip
"""What each view has once it is there."""
RULES_OF_AXE = {
    "light": {"resultTypes": ["violations"]},
    "dark": {"resultTypes": ["violations"], "runOnly": {"type": "rule", "values": ["color-contrast"]}},
}
"""In the dark nothing is different but the colours."""
LOOKED_AT = {"include": [["html"]], "exclude": [[".alert:nth-child(n+6)"], ["tbody tr:nth-child(n+8)"]]}
"""For axe: of long lists the first rows, as the others are made alike."""


async def _go(page: Any, view: str) -> None:
    await page.evaluate(f"location.hash = '#{view}'")
    await page.locator(f"main {CONTENT[view]}").first.wait_for(state="attached")
    await page.evaluate("document.fonts.ready")


async def _choose_only(page: Any, code: str) -> None:
    """Let the try-out be of one symbol."""
    chips = page.locator(".chip button")
    await chips.first.wait_for()
    while await chips.count():
        await chips.first.click()
    box = page.locator(".chips").get_by_role("combobox")
    await box.fill(code)
    await page.locator("[role=option]").first.wait_for()
    await box.press("Enter")
    await chips.first.wait_for()


async def _count(page: Any) -> int:
    counted = page.locator("[data-role=alert-count]")
    await playwright.expect(counted).to_have_attribute("data-count", re.compile(r"\d+"))
    return int(await counted.get_attribute("data-count"))


async def _more_than(page: Any, count: int) -> bool:
    return await _count(page) > count


async def _until(true: Callable[[], Awaitable[bool]], deadline_s: float = 30.0) -> None:
    """Wait for what only asking can tell."""
    import asyncio

    until = time.monotonic() + deadline_s
    while not await true():
        assert time.monotonic() < until, "not within the deadline"
        await asyncio.sleep(0.1)
