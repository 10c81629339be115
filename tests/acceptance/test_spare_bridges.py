"""Two bridges on one market: whoever holds the stream is killed -9, again and again, and not one tick is lost by it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from feeds.connection import Client, connect
from feeds.inputs import Mark
from monitord.broker import EmbeddedBroker
from tests.acceptance.bridging import BridgeProcess, Recorder, account, told_by_market
from tests.acceptance.live_market import OPENED
from tests.acceptance.test_bridge_kills import free_port

TAKE_OVERS = 4 if "MONITORD_TEST_BRIDGE_KILLS" in os.environ else 2
MARKET = {"feed.simulated.symbols": 200, "feed.simulated.days": 1, "feed.simulated.start": "13:00:00"}


async def holder(redis: Client) -> str:
    ((_, fields),) = await redis.xrevrange("mon:ticks:main", count=1)
    return str(fields[b"b"].decode())


async def is_held_by(redis: Client, name: str) -> None:
    async with asyncio.timeout(60):
        while await holder(redis) != name:  # noqa: ASYNC110  # another process does it
            await asyncio.sleep(0.05)


async def plays_spare(redis: Client, name: str) -> None:
    """Wait until a bridge has what comes from now on, and the holder has told all that was before that."""
    async with asyncio.timeout(60):
        while True:
            role, last_tick = await redis.hmget(f"mon:bridge:{name}", "role", "last_tick")
            if role == b"spare" and int(last_tick):
                break
            await asyncio.sleep(0.05)
        while True:
            ((_, fields),) = await redis.xrevrange("mon:ticks:main", count=1)
            if int(fields[b"ts"]) >= int(last_tick):
                return
            await asyncio.sleep(0.05)


@pytest.mark.acceptance
async def test_a_spare_goes_on_where_a_killed_bridge_stopped(tmp_path: Path) -> None:
    broker = EmbeddedBroker(tmp_path / "b", port=free_port())
    await broker.start()
    market = {OPENED: str(tmp_path / "opened")}
    bridges = {
        name: BridgeProcess(
            tmp_path / name,
            {**MARKET, "feed.name": "simulated", "feed.simulated.speed": 30, "bridge.name": name,
             "bridge.url": f"redis://127.0.0.1:{broker.port}/0"},
            live=True,
            environment=market,
        )
        for name in ("one", "two")
    }  # fmt: skip
    recorder = Recorder(broker.url)
    redis = connect(broker.url)
    try:
        async with asyncio.TaskGroup() as tasks:
            recording = tasks.create_task(recorder.run())
            await bridges["one"].start()
            await bridges["one"].until_it_holds()
            await bridges["two"].start()
            holds, waits = "one", "two"
            for left in reversed(range(TAKE_OVERS)):
                await plays_spare(redis, waits)
                assert await bridges[holds].kill()
                assert await redis.delete(f"mon:bridge:{holds}"), "its heart would beat on for up to 30 s"
                await is_held_by(redis, waits)
                holds, waits = waits, holds
                if left:
                    await bridges[waits].start()
            told = len(recorder.inputs)
            while len(recorder.inputs) < told + 20:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            assert await bridges[holds].stop() == 0, bridges[holds].tail()
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
    assert counts["delivered"] > 20 * TAKE_OVERS
    assert counts["missing"] == 0
    reasons = [given.value.reason for given in recorder.inputs if isinstance(given.value, Mark)]
    took_over = [reason for reason in reasons if "took over from" in reason]
    assert took_over[:2] == ["bridge two took over from one", "bridge one took over from two"]
    assert len(took_over) >= TAKE_OVERS
