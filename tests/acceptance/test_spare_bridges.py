"""Two bridges on one market: whoever holds the stream is killed -9, again and again, and not one tick is lost by it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from feeds.connection import Client, connect
from feeds.inputs import Mark
from monitord.broker import EmbeddedBroker
from tests.acceptance.bridging import BridgeProcess, Recorder, account, told_by_market
from tests.acceptance.live_market import BEGAN_AT
from tests.acceptance.test_bridge_kills import by_name, free_port

TAKE_OVERS = 4
MARKET = {"feed.simulated.symbols": 200, "feed.simulated.days": 1, "feed.simulated.start": "14:30:00"}


async def holder(redis: Client) -> str:
    ((_, fields),) = await redis.xrevrange("mon:ticks:main", count=1)
    return str(fields[b"b"].decode())


async def is_held_by(redis: Client, name: str) -> None:
    async with asyncio.timeout(60):
        while await holder(redis) != name:  # noqa: ASYNC110  # another process does it
            await asyncio.sleep(0.05)


async def plays_spare(redis: Client, name: str) -> None:
    """Wait until a bridge has said that it is alive and has nothing to write."""
    async with asyncio.timeout(60):
        while await redis.hget(f"mon:bridge:{name}", "role") != b"spare":  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@by_name
@pytest.mark.acceptance
async def test_a_spare_goes_on_where_a_killed_bridge_stopped(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "b", port=free_port())
    await broker.start()
    began_at = {BEGAN_AT: str(time.time() + 5)}
    bridges = {
        name: BridgeProcess(
            tmp_path / name,
            {**MARKET, "feed.name": "simulated", "feed.simulated.speed": 30, "bridge.name": name,
             "bridge.url": f"redis://127.0.0.1:{broker.port}/0"},
            live=True,
            environment=began_at,
        )
        for name in ("one", "two")
    }  # fmt: skip
    recorder = Recorder(broker.url)
    redis = connect(broker.url)
    try:
        async with asyncio.TaskGroup() as tasks:
            recording = tasks.create_task(recorder.run())
            await bridges["one"].start()
            await bridges["two"].start()
            holds, waits = "one", "two"
            for _ in range(TAKE_OVERS):
                await plays_spare(redis, waits)
                assert await bridges[holds].kill()
                assert await redis.delete(f"mon:bridge:{holds}"), "its heart would beat on for up to 30 s"
                await is_held_by(redis, waits)
                await bridges[holds].start()
                holds, waits = waits, holds
            assert [await one.end(120) for one in bridges.values()] == [0, 0], bridges["one"].tail()
            newest = int((await redis.xrevrange("mon:ticks:main", count=1))[0][0].partition(b"-")[0])
            while recorder.last < newest:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            await recorder.stop()
            await recording
    finally:
        for bridge in bridges.values():
            if bridge.process is not None and bridge.ended is None:
                await bridge.kill()
        await redis.aclose()
        await broker.stop()
    counts = account(recorder.inputs, told_by_market(MARKET))
    print(counts)
    assert counts["delivered"] > 300
    assert counts["missing"] == 0
    reasons = [given.value.reason for given in recorder.inputs if isinstance(given.value, Mark)]
    took_over = [reason for reason in reasons if "took over from" in reason]
    assert took_over[:2] == ["bridge two took over from one", "bridge one took over from two"]
    assert len(took_over) >= TAKE_OVERS
