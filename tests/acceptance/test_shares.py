"""Two engine processes with half the rules each over one stream of ticks and one of alerts; and a zombie among them."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp
import pytest

from feeds.inputs import Control, ControlKind
from monitord.broker import EmbeddedBroker
from notifiers.channel import AlertChannel
from rules import rulefile
from rules.share import Share
from tests.acceptance.bridging import BridgeProcess, Recorder, decided
from tests.acceptance.daemon import Daemon, whole_stream
from tests.acceptance.test_bridge_kills import check_stream, free_port, without_stamps
from tests.faults.lives import ForkedDaemon

RULES = """
version: 1
groups:
- name: shares
  rules:
  - {id: rise, select: all, when: PCT > 1, rearm: PCT < 0.8, freq: always}
  - {id: fall, select: all, when: PCT < -1, rearm: PCT > -0.8, freq: always, cooldown: 1m}
  - {id: turn, select: all, when: "CROSS(MA(C,5), MA(C,10))", period: 1m, eval: bar_close, freq: once_per_bar}
  - {id: wide, over: {all: true}, agg: {N: "count(PCT > 1)"}, when: N > 10, rearm: N < 8, freq: always}
"""


def share_of(rules: Path, url: str, share: str, folder: Path) -> ForkedDaemon:
    return ForkedDaemon(
        folder,
        {"feed.name": "redis", "broker.url": url, "rules.files": rules, "engine.share": share,
         "engine.checkpoint_s": 1, "gateway.allow_loopback_without_token": True},
        name=f"{folder.name}-{share.replace('/', '-of-')}",
    )  # fmt: skip


async def caught_up(daemon: Daemon, offset: int) -> None:
    await daemon.listening()

    async def done() -> bool:
        address = daemon.addresses()[-1]
        async with aiohttp.ClientSession(address) as session, session.get("/v1/health") as response:
            health = await response.json()
        return bool(health["engine"]["offset"] >= offset and not health["outbox"]["lag_rows"])

    await daemon.until("it had decided everything", done)


@pytest.mark.acceptance
async def test_two_halves_tell_what_one_engine_does_and_a_zombie_tells_nothing(tmp_path: Path) -> None:
    assert [[Share(n, 2).takes(name) for name in ("rise", "fall", "turn", "wide")].count(True) for n in (0, 1)] == [
        2,
        2,
    ]
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    broker = EmbeddedBroker(tmp_path / "b", port=free_port())
    await broker.start()
    url = f"redis://127.0.0.1:{broker.port}/0"
    market = {"feed.simulated.symbols": 60, "feed.simulated.days": 1, "feed.simulated.start": "11:00:00"}
    bridge = BridgeProcess(
        tmp_path / "bridge", {**market, "feed.name": "simulated", "feed.simulated.speed": 600, "bridge.url": url}
    )
    halves = [share_of(rules, url, f"{n}/2", tmp_path / "daemons") for n in (0, 1)]
    recorder = Recorder(broker.url)
    try:
        async with asyncio.TaskGroup() as tasks:
            recording = tasks.create_task(recorder.run())
            for half in halves:  # before there is anything to read
                await half.start()
            await bridge.start()
            assert await bridge.end(300) == 0, bridge.tail()
            for half in halves:
                await caught_up(half, recorder.last)
            alerts = await told(url)
            check_stream(alerts)
            whole = Control(ControlKind.RULES, rulefile.load({"rules": RULES}).source)
            expected = decided(recorder.inputs, tmp_path / "daemons" / "share-0-of-2", rules=whole)
            assert len(expected) > 500
            assert sorted(without_stamps(one.alert_json) for one in alerts) == sorted(
                without_stamps(one.to_json()) for one in expected
            )

            # Another machine takes the first half over; the old holder must not tell anything any more.
            taken = share_of(rules, url, "0/2", tmp_path / "elsewhere")
            await taken.start()
            await caught_up(taken, recorder.last)
            assert await halves[0].end(60) == 3, halves[0].tail()
            (line,) = halves[0].events("daemon_fenced")
            assert "the share 0/2 is held with token 2, ours is 1" in str(line["why"])
            assert [one.alert_json for one in await told(url)] == [one.alert_json for one in alerts], (
                "known by their ids"
            )
            assert await taken.interrupt() == 0
            assert await halves[1].interrupt() == 0
            await recorder.stop()
            await recording
    finally:
        for process in (bridge.process, *(half.process for half in halves)):
            if process is not None and process.returncode is None:
                process.send_signal(signal.SIGKILL)
                await process.wait()
        await broker.stop()


async def told(url: str) -> list:  # type: ignore[type-arg]
    channel = AlertChannel(url)
    try:
        return await whole_stream(channel)
    finally:
        await channel.close()


@pytest.mark.acceptance
async def test_a_share_needs_a_broker_that_the_others_have_too(tmp_path: Path) -> None:
    alone = Daemon(tmp_path / "alone", {"engine.share": "0/2", "feed.simulated.symbols": 5})
    await alone.start()
    assert await alone.end(60) == 2
    assert "set broker.url" in alone.tail()
