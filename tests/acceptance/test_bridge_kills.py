"""Bridge and daemon as two processes over a real broker, each killed -9 again and again.

Every tick is accounted for: delivered once and in order, or known to be missing. Alerts are exactly those of one engine
that is given what was delivered; as long as only daemon and broker are killed, that is all there was.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

import aiohttp
import orjson
import pytest

from feeds.connection import connect
from feeds.inputs import FeedInput
from monitord.broker import EmbeddedBroker
from notifiers.alertstream import Envelope
from notifiers.channel import AlertChannel
from tests.acceptance.bridging import BridgeProcess, Recorder, account, decided, told_by_market
from tests.acceptance.daemon import whole_stream
from tests.acceptance.live_market import OPENED
from tests.faults.lives import ForkedDaemon

KILLS = int(os.environ.get("MONITORD_TEST_BRIDGE_KILLS", "5"))
"""How often bridge and daemon are killed each, and the broker a fifth as often; the long run sets 50."""
IS_LONG = KILLS > 5
SPEED = float(os.environ.get("MONITORD_TEST_BRIDGE_SPEED", "10" if IS_LONG else "15"))
SEED = int(os.environ.get("MONITORD_TEST_BRIDGE_SEED", "11"))
SYMBOLS = int(os.environ.get("MONITORD_TEST_BRIDGE_SYMBOLS", "5500" if IS_LONG else "400"))
"""The long run has the whole market; what is lost or doubled by a kill is the same of fewer."""
START = os.environ.get("MONITORD_TEST_BRIDGE_START", "13:00:00")
"""The market is stopped when everything was killed often enough; it must last as long as that takes."""
ENOUGH = 20
"""Inputs before a bridge is killed."""
RULES = """
version: 1
groups:
- name: kills
  rules:
  - {id: rise, select: all, when: PCT > 3, rearm: PCT < 2, freq: always}
  - {id: fall, select: all, when: PCT < -3, rearm: PCT > -2, freq: always, cooldown: 1m}
  - {id: turn, select: all, when: "CROSS(MA(C,3), MA(C,6)) AND PCT > 2", period: 1m, eval: bar_close}
  - {id: depth, select: all, when: "BIDV1 > 20 * ASKV1 AND PCT > 1", rearm: BIDV1 < 10 * ASKV1, cooldown: 5m}
"""
MARKET = {
    "feed.simulated.symbols": SYMBOLS,
    "feed.simulated.days": 1,
    "feed.simulated.start": START,
}


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Stand:
    """A broker, a bridge, a daemon and a recorder, and the faults that befall them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.broker = EmbeddedBroker(folder / "b", port=free_port())
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        url = f"redis://127.0.0.1:{self.broker.port}/0"
        self.daemon = ForkedDaemon(
            folder / "daemon",
            {"feed.name": "redis", "broker.url": url, "rules.files": rules, "engine.checkpoint_s": 0.5,
             "engine.window": 30,
             "gateway.allow_loopback_without_token": True},
        )  # fmt: skip
        market = {**MARKET, "feed.name": "simulated", "feed.simulated.speed": SPEED}
        self.bridge = BridgeProcess(
            folder / "bridge",
            {**market, "bridge.url": url, "bridge.name": "one", "bridge.spool_mb": 512},
            live=True,
            environment={OPENED: str(folder / "opened")},
        )
        self.recorder = Recorder(self.broker.url)
        self.chance = random.Random(SEED)
        self.kills = {"bridge": 0, "daemon": 0, "broker": 0}
        self.restarts = 0
        """Daemons started once more, because they found no broker at their start."""

    async def run(self) -> None:
        """Let the market's time pass under the faults, and everything come to its end."""
        await self.broker.start()
        try:
            await self._run()
        finally:
            for process in (self.bridge.process, self.daemon.process):
                if process is not None and process.returncode is None:
                    process.kill()
                    await process.wait()
            await self.broker.stop()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(self.broker.run())
            recording = tasks.create_task(self.recorder.run())
            await self.daemon.start()  # whoever is there first waits for the other
            await self.bridge.start()
            await self._harm(("daemon", KILLS), ("broker", max(KILLS // 5, 1)))
            await self._until_told(ENOUGH)  # where processes start fast, all are killed before the market has said much
            await self._until_recorded()
            self.whole_to = self.recorder.last
            await self._harm(("bridge", KILLS), ("daemon", max(KILLS // 5, 1)))
            await self.bridge.until_it_holds()  # signals are heard from then on
            assert await self.bridge.stop() == 0, self.bridge.tail()
            await self._until_recorded()
            await self._until_decided()
            assert await self.daemon.interrupt() == 0, self.daemon.tail()
            await self.recorder.stop()
            await recording
            self.alerts = await self._published()
            await self.broker.stop()
            await watching

    async def _harm(self, *whom: tuple[str, int]) -> None:
        """Kill each of these so often, all at the same time."""
        kill = {"daemon": self._kill_daemon, "broker": self._kill_broker, "bridge": self._kill_bridge}
        async with asyncio.TaskGroup() as tasks:
            for name, times in whom:
                tasks.create_task(self._harm_one(name, times, kill[name]))

    async def _harm_one(self, whom: str, times: int, kill: Callable[[], Awaitable[bool]]) -> None:
        for _ in range(times):
            await asyncio.sleep(self.chance.uniform(0.1, 4.0 if whom == "broker" else 0.5))
            self.kills[whom] += await kill()

    async def _kill_daemon(self) -> bool:
        if self.kills["daemon"] % 4:  # every fourth is killed wherever it has come to, the others not before they work
            await self._until_daemon_works()
        killed = await self.daemon.killed_after(0.0)
        await self.daemon.start()
        return killed

    async def _until_daemon_works(self) -> None:
        """Wait until it listens; one that started while there was no broker has ended, and systemd starts it again."""
        while True:
            try:
                await self.daemon.listening()
                await asyncio.sleep(self.chance.uniform(0.1, 3.0 if IS_LONG else 1.0))
                return
            except AssertionError:
                if self.daemon.process is None or self.daemon.process.returncode != 2:
                    raise
                assert "the broker cannot be used" in self.daemon.tail(1000), self.daemon.tail()
                self.restarts += 1
                await self.daemon.start()

    async def _kill_bridge(self) -> bool:
        if self.kills["bridge"] % 4:
            await self.bridge.until_it_holds()
            await asyncio.sleep(self.chance.uniform(0.2, 2.0 if IS_LONG else 1.0))
        assert await self.bridge.kill(), "the market was over too early: lower MONITORD_TEST_BRIDGE_SPEED"
        await self.bridge.start()
        return True

    async def _kill_broker(self) -> bool:
        pid = self.broker.pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        while self.broker.pid == pid:  # noqa: ASYNC110  # the next kill needs the next server
            await asyncio.sleep(0.05)
        return True

    async def _until_told(self, inputs: int) -> None:
        while sum(given.known is None for given in self.recorder.inputs) <= inputs:  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _until_recorded(self) -> None:
        redis = connect(self.broker.url)
        ((newest, _),) = await redis.xrevrange("mon:ticks:main", count=1)
        await redis.aclose()
        while self.recorder.last < int(newest.partition(b"-")[0]):  # noqa: ASYNC110
            await asyncio.sleep(0.05)

    async def _until_decided(self) -> None:
        """Wait until the daemon has taken the last input and told all that follows."""
        await self._until_daemon_works()

        async def done() -> bool:
            try:
                address = self.daemon.addresses()[-1]
                async with aiohttp.ClientSession(address) as session, session.get("/v1/health") as response:
                    health = await response.json()
            except aiohttp.ClientError:
                return False
            return bool(health["engine"]["offset"] >= self.recorder.last and not health["outbox"]["lag_rows"])

        await self.daemon.until("the daemon had decided everything", done, 300)

    async def _published(self) -> list[Envelope]:
        channel = AlertChannel(self.broker.url)
        try:
            return await whole_stream(channel)
        finally:
            await channel.close()


def records(alerts: list[Envelope]) -> list[bytes]:
    """Return the events without their stamps, in the order told."""
    return [without_stamps(envelope.alert_json) for envelope in alerts]


def without_stamps(record_json: bytes) -> bytes:
    record = orjson.loads(record_json)
    record.pop("stamps", None)
    return orjson.dumps(record)


def check_stream(alerts: list[Envelope]) -> None:
    ids = [orjson.loads(envelope.alert_json)["id"] for envelope in alerts]
    assert len(ids) == len(set(ids)), "an alert stands twice in the stream"
    assert [envelope.off for envelope in alerts] == list(range(1, len(alerts) + 1)), "offsets are not contiguous"
    assert len({envelope.epoch for envelope in alerts}) == 1, "nothing was lost, so nothing had to begin anew"


@pytest.mark.acceptance
async def test_every_tick_is_accounted_for_whoever_is_killed(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    await stand.run()
    inputs, state = stand.recorder.inputs, stand.daemon.state_dir
    whole = [given for given in inputs if given.offset <= stand.whole_to]
    counts, alerts = account(inputs, told_by_market(MARKET)), records(stand.alerts)
    print(f"{stand.kills}: {counts}, {len(whole)} inputs before a bridge was killed, {len(alerts)} alerts")
    assert stand.kills["bridge"] == KILLS, "the market was over too early"
    assert stand.kills["daemon"] >= KILLS
    assert stand.kills["broker"] == max(KILLS // 5, 1)
    assert counts["missing"] > 0
    assert counts["gap_marks"] > KILLS / 2, "most were killed while they worked"
    check_stream(stand.alerts)
    assert alerts == decided_records(inputs, state)
    # Killed daemons and brokers change nothing at all: this is all there was, and what one engine makes of it.
    said = [given.value for given in whole if given.known is None]
    assert said == list(islice(told_by_market(MARKET), len(said)))
    assert len(said) > ENOUGH
    before = decided_records(whole, state)
    assert before
    assert alerts[: len(before)] == before


def decided_records(inputs: Sequence[FeedInput], state_dir: Path) -> list[bytes]:
    return [without_stamps(alert.to_json()) for alert in decided(inputs, state_dir)]
