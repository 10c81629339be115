"""An alert's whole way to the counter and back: tick, alert, intent, bridge, terminal, fill, and the daemon's API."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from config.loading import load
from feeds import sessions
from feeds.inputs import FeedInput
from feeds.instruments import Instrument
from feeds.sessions import Calendar
from feeds.tick import CORE, TickBatch
from monitord import bridge
from monitord.broker import EmbeddedBroker
from notifiers.orders import intent_id
from tests.acceptance.inprocess import running
from tests.notifiers.trading_terminal import Terminal

pytestmark = pytest.mark.acceptance

SYMBOL, PRICE = "600519.SH", 18.5
TASK = {"stock_code": SYMBOL, "entry_min": 18, "entry_max": 19, "auto_trade": True}
TEN_O_CLOCK_MS = 1_675_216_800_000
WITHIN_S = 60.0


class LiveFeed:
    """Tells one tick, which has come in just now, when `go` is set, and then waits to be closed."""

    source_id, has_offsets, paced = "live", False, True

    def __init__(self) -> None:
        self.go, self._closed = asyncio.Event(), asyncio.Event()

    async def open(self, *, after: int = -1) -> None: ...

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        await self.go.wait()
        if not self._closed.is_set():
            prices = {"last": PRICE, "prev_close": 18.0}
            columns = {name: np.array([prices.get(name, np.nan)]) for name in CORE}
            now_ms = np.array([time.time_ns() // 1_000_000])
            yield FeedInput(-1, TickBatch((SYMBOL,), np.array([TEN_O_CLOCK_MS]), columns=columns, recv_ms=now_ms))
        await self._closed.wait()

    async def instruments(self) -> Sequence[Instrument]:
        return ()

    async def close(self) -> None:
        self._closed.set()
        self.go.set()

    def counters(self) -> Mapping[str, int]:
        return {}


class Page:
    """What is asked of the daemon."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, **options: Any) -> Any:
        async with self._session.request(method, f"/api/v1/monitor{path}", **options) as reply:
            answer = await reply.json()
            assert reply.status == 200, answer
            return answer["data"]

    async def events(self, count: int, *, kind: str) -> list[dict[str, Any]]:
        """Wait for so many events of this type; return them, oldest first."""
        async with asyncio.timeout(WITHIN_S):
            while len(found := (await self.ask("GET", f"/history?type={kind}"))["events"]) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.05)  # seen by asking alone
        return list(reversed(found))

    async def metric(self, line: str) -> bool:
        async with self._session.get("/metrics") as reply:
            return line in (await reply.text()).splitlines()


@pytest.mark.parametrize("sides", ["daemon dry, as by default", "bridge and daemon live"])
async def test_an_alert_is_ordered_where_both_sides_want_it_and_what_came_of_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sides: str
) -> None:
    is_live = sides.endswith("live")
    terminal, feed = Terminal(), LiveFeed()
    for name, module in terminal.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    # the library of all days takes seconds to import, in bridge and daemon
    monkeypatch.setattr(sessions, "_xshg", lambda: Calendar([20230131, 20230201, 20230202]))
    monkeypatch.setattr(bridge, "build_feed", lambda settings, broker_url: feed)
    broker = EmbeddedBroker(tmp_path / "broker")
    await broker.start()
    rules = tmp_path / "rules.yaml"
    rules.write_text("version: 1\ngroups:\n- name: g\n  rules:\n  - {id: other, select: all, when: LAST > 99}\n")
    trading = {
        "state_dir": tmp_path / "bridge", "bridge.url": broker.url, "bridge.name": "pc", "bridge.trade.enabled": True,
        "bridge.trade.path": "C:/qmt", "bridge.trade.account": "123",
    }  # fmt: skip
    daemon = {
        "state_dir": tmp_path / "state", "broker.url": broker.url, "feed.name": "redis", "rules.files": rules,
        "orders.enabled": True, **({"orders.dry_run": False} if is_live else {}),
    }  # fmt: skip
    try:
        async with running(daemon) as session, asyncio.TaskGroup() as tasks:
            page = Page(session)
            carrying = tasks.create_task(bridge._run(load([f"{k}={v}" for k, v in trading.items()]).settings))
            try:
                number = (await page.ask("POST", "/tasks", json=TASK))["id"]
                await page.ask("POST", f"/tasks/{number}/start")
                feed.go.set()
                (alert,) = await page.events(1, kind="entry")
                orders = await page.events(1, kind="order")
                if is_live:
                    assert terminal.orders == [(SYMBOL, 23, 100, 11, PRICE, "monitord", intent_id(alert["id"]))]
                    terminal.fill(intent_id(alert["id"]), order_type=23)
                    orders = await page.events(2, kind="order")
                else:
                    assert terminal.orders == []
                await look_at(page, orders, alert, is_live=is_live)
            finally:
                await feed.close()
            assert await carrying == 0
    finally:
        await broker.stop()


async def look_at(page: Page, orders: list[dict[str, Any]], alert: dict[str, Any], *, is_live: bool) -> None:
    states = ["placed", "filled"] if is_live else ["not_ordered"]
    assert [one["order"] for one in orders] == states
    assert {one["about"] for one in orders} == {alert["id"]}
    assert all(one["reported_at"] for one in orders)
    for state in states:
        assert await page.metric(f'monitord_order_reports_total{{state="{state}"}} 1.0')
    if is_live:
        assert orders[-1]["values"] == {"QUANTITY": 100.0, "PRICE": 18.4}
    else:
        assert "a dry run" in orders[0]["message"]
