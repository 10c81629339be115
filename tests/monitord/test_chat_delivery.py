"""Delivery to DingTalk, Feishu and WeCom from the store to the stand-ins, over HTTP, on a clock that jumps."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from monitord.store import Store
from notifiers.delivery import Clock, Delivery
from tests.monitord.test_telling import T0_MS, Stream, Wall, alert
from tests.notifiers.receiving import http_receiver, opened
from tests.notifiers.vendors import BOTS, Bot, DingTalkBot

TROUBLE: dict[str, list[tuple[int, Any]]] = {
    "dingtalk": [(200, {"errcode": -1}), (200, {"status": 1111}), (200, {}), (502, {}), (200, {"errcode": 410100})],
    "feishu": [(200, {"code": 11232}), (200, {"code": 2200}), (500, {}), (200, {"msg": "success"})],
    "wecom": [(200, {"errcode": -1}), (200, {"errcode": 45009}), (503, {}), (200, {"errmsg": "ok"})],
}
"""Answers that are no success and may pass."""


@asynccontextmanager
async def delivering(kind: str, folder: Path, wall: Wall) -> AsyncIterator[tuple[Stream, Store, Bot, Delivery]]:
    """Lead a delivery over the real store to a stand-in that signs and counts by the same clock."""
    secret = {} if kind == "wecom" else {"secret": "pl4nted-secret"}
    bot = BOTS[kind](now_ms=lambda: wall.ms, **secret)

    async def answer(request: web.Request, body: bytes) -> web.Response:
        wall.advance(30)
        status, told = bot.answer(request.path, request.rel_url.raw_query_string, body)
        return web.json_response(told, status=status)

    store = await Store.open(folder / "monitord.db", clock_ms=lambda: wall.ms)
    async with http_receiver(kind) as (receiver, port), opened(kind, port, folder, total_timeout_s=5, **secret) as one:
        receiver.answer = answer
        stream = Stream(wall)
        clock = Clock(lambda: wall.ms, wall.sleep)
        yield stream, store, bot, Delivery(one, stream, store.deliveries, clock=clock, random=lambda: 0.5)
    await store.close()


ALERTS = 100


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let who has nothing to do wait a minute of the moved clock, not two seconds: hours are gone in fewer steps."""
    monkeypatch.setattr("notifiers.delivery.BLOCK_MS", 60_000)


async def run_until(delivery: Delivery, wall: Wall, after_ms: int) -> None:
    wall.horizon_ms = T0_MS + after_ms
    wall.stop = lambda: delivery.stop(60)
    await delivery.open()
    await delivery.run()


@pytest.mark.parametrize("kind", sorted(BOTS))
async def test_whatever_the_vendor_answers_no_alert_is_lost_and_none_told_that_was_refused(
    kind: str, tmp_path: Path
) -> None:
    wall, dice = Wall(), random.Random(kind)
    async with delivering(kind, tmp_path, wall) as (stream, store, bot, delivery):
        for number in range(ALERTS):
            stream.add(alert(number, id=f"al_{number:020x}"), at_ms=T0_MS + number * 7000)
        bot.forced.extend(dice.choice(TROUBLE[kind]) for _ in range(12))
        await run_until(delivery, wall, 5_400_000)
        assert set(await store.deliveries.counts()) == {("contract", "delivered")}
        words = Counter(word for text in bot.texts for word in text.split() if word.startswith("al_"))
        assert words == Counter(f"al_{number:020x}" for number in range(ALERTS))
        assert not isinstance(bot, DingTalkBot) or bot.while_blocked == 0
