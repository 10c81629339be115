"""The gateway over the real alert channel and a real broker."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from monitord.broker import EmbeddedBroker
from notifiers.alertstream import Outgoing
from notifiers.channel import AlertChannel
from notifiers.errors import DeliveryError
from tests.monitord.gateway.stand import record, standing

pytestmark = pytest.mark.acceptance


class Publisher:
    """Publishes numbered alerts through the real script, as the pump does."""

    def __init__(self, channel: AlertChannel) -> None:
        self.channel = channel
        self.epoch, self.acked, self.number = "", 0, 0

    async def begin(self) -> None:
        self.epoch, self.acked = await self.channel.begin_epoch(acked=self.acked)

    async def publish(self, count: int) -> None:
        numbers = range(self.number + 1, self.number + count + 1)
        self.number += count
        await self.send([Outgoing(f"al_{n}", record(n), "600519.SH", "brk", "info") for n in numbers])

    async def send(self, batch: Sequence[Outgoing]) -> None:
        receipts = await self.channel.publish(batch, epoch=self.epoch, acked=self.acked)
        self.acked = max(receipt.off for receipt in receipts)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[EmbeddedBroker]:
    server = EmbeddedBroker(tmp_path / "broker", strict=True)
    await server.start()
    yield server
    await server.stop()


@pytest.fixture
async def publisher(broker: EmbeddedBroker) -> AsyncIterator[Publisher]:
    channel = AlertChannel(broker.url)
    publisher = Publisher(channel)
    await publisher.begin()
    yield publisher
    await channel.close()


async def test_forty_cuts_while_alerts_flow_lose_nothing_and_repeat_nothing(publisher: Publisher) -> None:
    chance = random.Random(11)
    total = 3000

    async def flow() -> None:
        while publisher.number < total:
            await publisher.publish(min(chance.randint(1, 30), total - publisher.number))
            await asyncio.sleep(0.002)

    async with standing(alerts=publisher.channel, ring_size=100) as stand:  # type: ignore[arg-type]
        flowing = asyncio.create_task(flow())
        ids, off, cuts = list[str](), 0, 0
        while len(ids) < total:
            talk = await stand.connect(f"?ch=alerts&since={publisher.epoch}:{off}")
            (place,) = (await talk.hear())["result"]
            assert place["recovered"] is True
            for _ in range(min(chance.randint(1, 130), total - len(ids))):
                heard = await talk.hear()
                ids.append(heard["data"]["id"])
                assert heard["off"] == off + 1
                off = heard["off"]
            cuts += 1
            talk.ws._response.connection.transport.abort()
        await flowing
        assert ids == [f"al_{n}" for n in range(1, total + 1)]
        assert cuts >= 40


async def test_a_burst_that_was_published_at_once_takes_few_frames(publisher: Publisher) -> None:
    async with standing(alerts=publisher.channel) as stand:  # type: ignore[arg-type]
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        before = talk.frames
        await publisher.publish(50)
        assert [(await talk.hear())["off"] for _ in range(50)] == list(range(1, 51))
        assert talk.frames - before <= 10


async def test_clients_stay_and_hear_on_when_the_broker_was_killed(
    publisher: Publisher, broker: EmbeddedBroker
) -> None:
    async with standing(alerts=publisher.channel) as stand:  # type: ignore[arg-type]
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        await publisher.publish(20)
        running = asyncio.create_task(broker.run())
        assert broker.pid is not None
        os.kill(broker.pid, signal.SIGKILL)
        await _again(publisher, 20)
        assert [(await talk.hear())["off"] for _ in range(40)] == list(range(1, 41))
        running.cancel()


async def _again(publisher: Publisher, count: int) -> None:
    """Publish, and again until the broker takes it, as the pump does."""
    numbers = range(publisher.number + 1, publisher.number + count + 1)
    batch = [Outgoing(f"al_{n}", record(n), "600519.SH", "brk", "info") for n in numbers]
    publisher.number += count
    for _ in range(500):
        try:
            return await publisher.send(batch)
        except DeliveryError:
            await asyncio.sleep(0.02)
    raise AssertionError("the broker did not come back")


async def test_a_new_epoch_is_told_and_a_fresh_start_hears_the_alerts_published_again(publisher: Publisher) -> None:
    async with standing(alerts=publisher.channel) as stand:  # type: ignore[arg-type]
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        await publisher.publish(3)
        last: dict[str, Any] = {}
        for _ in range(3):
            last = await talk.hear()
        await publisher.begin()
        await publisher.publish(1)
        assert await talk.close_code() == 4010
        again = await stand.connect(f"?ch=alerts&since={last['epoch']}:{last['off']}")
        (place,) = (await again.hear())["result"]
        assert (place["epoch"], place["recovered"]) == (publisher.epoch, False)
        await publisher.publish(1)
        heard = await again.hear()
        while heard["data"]["id"] != "al_5":
            heard = await again.hear()
        assert heard["epoch"] == publisher.epoch


async def test_a_gateway_that_starts_later_serves_old_positions_from_its_ring(publisher: Publisher) -> None:
    await publisher.publish(1500)
    async with standing(alerts=publisher.channel) as stand:  # type: ignore[arg-type]
        talk = await stand.connect(f"?ch=alerts&since={publisher.epoch}:0")
        (place,) = (await talk.hear())["result"]
        assert (place["recovered"], place["replayed"]) == (True, 1500)
        assert [(await talk.hear())["off"] for _ in range(1500)] == list(range(1, 1501))
