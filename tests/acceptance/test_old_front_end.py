"""Plays the front end of the system before: a task for 600519.SH, followed over a real session past every crossing."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.acceptance.inprocess import HeldFeed, only, running

pytestmark = pytest.mark.acceptance

SYMBOL = "600519.SH"
SESSION = "sessions/600519-000333-20230201.parquet"
ENTRY, TAKE, STOP, INTERVAL_S = (1840.0, 1845.0), 1852.0, 1825.0, 60
TASK: dict[str, Any] = {
    "task_name": "茅台短线", "stock_code": SYMBOL, "stock_name": "贵州茅台", "check_interval": INTERVAL_S,
    "auto_trade": False, "trading_hours_only": True, "entry_min": ENTRY[0], "entry_max": ENTRY[1],
    "take_profit": TAKE, "stop_loss": STOP, "notification_enabled": True, "quant_config": None,
}  # fmt: skip
AM, PM = (34_200, 41_400), (46_800, 53_820)
"""Continuous trading in seconds of the day; 11:30:00 is in it, 14:57:00 is not."""
NEAR = 3
"""Ticks before and behind a crossing that are played."""
WITHIN_S = 120.0


@dataclass
class Edge:
    """One price of the task, counted by hand. cooldown_s: of trading time, None = none."""

    cooldown_s: int | None
    was: bool = False
    sent_s: float = -1e9

    def sample(self, true: bool, clock_s: float) -> str | None:
        rose, self.was = true and not self.was, true
        if not rose:
            return None
        if self.cooldown_s is not None and clock_s - self.sent_s < self.cooldown_s:
            return "suppressed"
        self.sent_s = clock_s
        return "fire"


def trading_s(second: int) -> int | None:
    """Return the seconds of continuous trading until this second of the day, None outside."""
    if AM[0] <= second <= AM[1]:
        return second - AM[0]
    return AM[1] - AM[0] + second - PM[0] if PM[0] <= second < PM[1] else None


def by_brute_force(path: Path) -> Iterator[tuple[str, str, int, float]]:
    """Yield (type, event, time, price) of every crossing, tick by tick."""
    edges = {"entry": Edge(INTERVAL_S), "take_profit": Edge(INTERVAL_S), "stop_loss": Edge(None)}
    table = pq.read_table(path, columns=["ts_event", "last"])
    for ts_ms, last in zip(table["ts_event"].to_pylist(), table["last"].to_pylist(), strict=True):
        clock_s = trading_s((ts_ms // 1000 + 8 * 3600) % 86_400)
        if clock_s is None or last <= 0:
            continue
        true = {"entry": ENTRY[0] <= last <= ENTRY[1], "take_profit": last >= TAKE, "stop_loss": last <= STOP}
        for kind, edge in edges.items():
            event = edge.sample(true[kind], clock_s)
            if event is not None:
                yield kind, event, ts_ms, last


def around_crossings(path: Path) -> Path:
    """Write the whole day's ticks near each crossing, both ways, and one of ten between: a quarter of the work."""
    table = pq.read_table(path)
    last = table["last"].to_numpy()
    true = np.stack([(last >= ENTRY[0]) & (last <= ENTRY[1]), last >= TAKE, (last <= STOP) & (last > 0)])
    crosses = np.pad((true[:, 1:] != true[:, :-1]).any(0), (1, 0))
    near = np.convolve(crosses, np.ones(2 * NEAR + 1), "same") > 0
    shorter = path.with_name("shorter.parquet")
    pq.write_table(table.filter(pa.array(near | (np.arange(len(last)) % 10 == 0))), shorter)
    return shorter


class FrontEnd:
    """What the old page did: REST in envelopes, and one socket."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self.heard: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        async with self._session.request(method, f"/api/v1/monitor{path}", **options) as reply:
            answer = await reply.json()
            assert (reply.status, answer["code"]) == (200, 20000), answer
            return answer["data"]

    async def text(self, path: str) -> str:
        async with self._session.get(f"/api/v1/monitor{path}") as reply:
            return await reply.text(encoding="utf-8-sig")

    async def follow(self, channel: str) -> None:
        """Take down what a channel says, until it is closed."""
        async with self._session.ws_connect(f"/v1/ws?ch={channel}", max_msg_size=0) as ws:
            async for frame in ws:
                said = [orjson.loads(line) for line in frame.data.split("\n")]
                self.heard += [one["data"] for one in said if one.get("ch") == channel]
                self._changed.set()

    def events(self) -> list[tuple[str, str, int, float]]:
        """Return (type, event, time, price) of the events heard, in the order they came."""
        events = [one for one in self.heard if one["type"].startswith("alert.")]
        return [(one["labels"]["task_event"], one["event"], one["ts_event_ms"], one["tick"]["last"]) for one in events]

    async def until(self, true: Any) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not true():
                self._changed.clear()
                await self._changed.wait()

    def said(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.heard if one["type"] == kind]


async def test_a_task_is_told_where_brute_force_has_it(market_data: Path, tmp_path: Path) -> None:
    whole = only(market_data / SESSION, SYMBOL, into=tmp_path)
    recording = around_crossings(whole)
    expected = list(by_brute_force(whole))
    assert list(by_brute_force(recording)) == expected
    assert {kind for kind, event, _, _ in expected if event == "fire"} == {"entry", "take_profit", "stop_loss"}
    other = "{id: other, select: all, when: LAST > 1850, rearm: LAST < 1840}"
    (tmp_path / "rules.yaml").write_text(f"version: 1\ngroups:\n- name: g\n  rules:\n  - {other}\n")
    settings = {"state_dir": tmp_path / "state", "rules.files": tmp_path / "rules.yaml"}
    feed = HeldFeed(inputs=[recording])
    async with running(settings, feed=feed) as session, asyncio.TaskGroup() as tasks:
        page = FrontEnd(session)
        task = await page.ask("POST", "/tasks", json=TASK)
        number = task["id"]
        started = await page.ask("POST", f"/tasks/{number}/start")
        assert (started["status"], started["stock_code"], started["task_id"]) == ("started", SYMBOL, number)
        assert (await page.ask("POST", f"/tasks/{number}/start"))["status"] == "already_running"
        following = tasks.create_task(page.follow(task["channel"]))
        await page.until(lambda: page.said("status"))
        feed.go.set()
        async with asyncio.timeout(WITHIN_S):
            await feed.played.wait()
        await page.until(lambda: len(page.events()) >= len(expected))
        assert page.events() == expected
        await look_at_history(page, number, expected)
        assert (await page.ask("POST", f"/tasks/{number}/stop"))["status"] == "stopped"
        await page.until(lambda: page.said("status")[-1]["status"] == "stopped")
        assert page.said("status")[0]["status"] == "running"
        progress = page.said("progress")[-1]
        assert progress["last"] == pytest.approx(last_price(recording))
        assert progress["to_stop_loss_pct"] == pytest.approx((STOP / progress["last"] - 1) * 100)
        following.cancel()


def last_price(recording: Path) -> float:
    return float(pc.last(pq.read_table(recording, columns=["last"])["last"]).as_py())


async def look_at_history(page: FrontEnd, number: int, expected: list[tuple[str, str, int, float]]) -> None:
    """The history has the same events, newest first, by page, by filter and as CSV."""

    def told(events: Any) -> list[tuple[str, str, int, float]]:
        return [(one["type"], one["event"], one["ts_event_ms"], one["price"]) for one in events]

    pages = [await page.ask("GET", f"/history?page={n}&page_size=40") for n in range(1, len(expected) // 40 + 2)]
    assert told(event for one in pages for event in one["events"]) == expected[::-1]
    assert pages[0]["total"] == len(expected)
    stops = await page.ask("GET", f"/history?type=stop_loss&stock_code={SYMBOL}&event=fire&page_size=1000")
    assert told(stops["events"]) == [one for one in expected[::-1] if one[:2] == ("stop_loss", "fire")]
    since, until = expected[2][2], expected[-2][2]
    between = await page.ask("GET", f"/history?since={since}&until={until}&page_size=1000")
    assert told(between["events"]) == [one for one in expected[::-1] if since <= one[2] < until]
    rows = list(csv.DictReader(io.StringIO(await page.text("/history?format=csv&type=take_profit&page_size=1"))))
    takes = [one for one in expected[::-1] if one[0] == "take_profit"]
    assert [(row["type"], row["event"], float(row["price"])) for row in rows] == [(t, e, p) for t, e, _, p in takes]
    status = await page.ask("GET", f"/tasks/{number}/status")
    assert (status["status"], status["events"], status["problem"]) == ("running", len(expected), None)
    assert told([status["last_event"]]) == [expected[-1]]
