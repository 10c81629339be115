"""A broker that stalls, a network that cuts, swallows, breaks off answers and is late: one daemon goes through all."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from monitord.broker import EmbeddedBroker
from tests.faults.counts import LONG, count
from tests.faults.followers import Follower
from tests.faults.lives import ForkedDaemon
from tests.faults.proxy import Proxy, proxied
from tests.faults.sessions import Hook, histories_of, judged, levels, published_of, rule_file, serving_hook
from tests.faults.test_cuts import free_port

pytestmark = pytest.mark.acceptance

STALLS_S = (0.4, 6.0, 60.0) if LONG else (0.4, 6.0)
ROUNDS = count("network_rounds", ci=1, long=50)
RESETS = 5
"""Answers broken off in a round, each at another byte."""
HALF_OPEN_S = 3.0
"""Longer than the 2 s after which an answer is given up."""
RECOVERED_WITHIN_S = 30.0
CAUGHT_UP_WITHIN_S = 300.0
"""A stall of a minute leaves some 1,500 alerts, and a slow machine posts 40 a second while 20 more come."""
UNDER_WAY = 20


class Stand:
    """A daemon whose only way to its broker is a proxy, with who listens to it."""

    def __init__(self, daemon: ForkedDaemon, broker: EmbeddedBroker, proxy: Proxy, hook: Hook) -> None:
        self.daemon, self.broker, self.proxy, self.hook = daemon, broker, proxy, hook
        self.follower = Follower(daemon)
        self.recovered_s: dict[str, float] = {}

    async def until_more_is_told(self, what: str) -> None:
        """Wait until alerts have come to the client and the webhook after a fault; note how long it took."""
        loop = asyncio.get_running_loop()
        began, told, posted = loop.time(), len(self.follower.told), len(self.hook.posts)

        async def more() -> bool:
            return len(self.follower.told) > told + 5 and len(self.hook.posts) > posted + 5

        await self.daemon.until(f"it went on after {what}", more, RECOVERED_WITHIN_S)
        self.recovered_s[what] = max(self.recovered_s.get(what, 0.0), round(loop.time() - began, 2))

    async def until_caught_up(self) -> None:
        """Wait until the webhook has what the client has: behind a long stall it takes one alert after the other.

        A stop waits 10 s for it; what is left then, the next start sends, and here is none.
        """

        async def caught_up() -> bool:
            return len(self.hook.posts) + UNDER_WAY >= len(self.follower.told)

        await self.daemon.until("the webhook had caught up", caught_up, CAUGHT_UP_WITHIN_S)

    async def stall(self, seconds: float) -> None:
        """Stop the broker for so long: it answers nothing, and closes nothing."""
        assert self.broker.pid is not None
        os.kill(self.broker.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(self.broker.pid, signal.SIGCONT)


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[Stand]:
    port = free_port()
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(*levels(-1, -0.5, 0, 0.5, 1)))
    async with (
        running_broker(tmp_path / "b", port) as broker,
        proxied("127.0.0.1", port) as proxy,
        serving_hook() as hook,
    ):
        daemon = ForkedDaemon(
            tmp_path / "d",
            {
                "rules.files": rules,
                "broker.url": f"redis://127.0.0.1:{proxy.port}/0",
                "feed.simulated.symbols": 150,
                "feed.simulated.speed": 60,
                "feed.simulated.start": "10:30:00",
                "gateway.allow_loopback_without_token": True,
                "notify.webhooks": orjson.dumps([hook.section("hook")]).decode(),
            },
        )
        await daemon.start()
        await daemon.listening()
        yield Stand(daemon, broker, proxy, hook)
        await daemon.ended()


@asynccontextmanager
async def running_broker(folder: Path, port: int) -> AsyncIterator[EmbeddedBroker]:
    with tempfile.TemporaryDirectory(prefix="broker-") as short:  # tmp_path may be too long for a socket's path
        broker = EmbeddedBroker(folder, port=port, socket=Path(short) / "s")
        await broker.start()
        yield broker
        await broker.stop()


def network_faults(stand: Stand, number: int) -> dict[str, Callable[[], Awaitable[None]]]:
    proxy = stand.proxy

    async def late() -> None:
        proxy.latency_s = 0.05
        await stand.until_more_is_told("latency of 50 ms each way")
        proxy.latency_s = 0.0

    async def cut() -> None:
        assert proxy.cut(reset=bool(number % 2)) > 0

    async def half_open() -> None:
        proxy.half_open = True
        await asyncio.sleep(HALF_OPEN_S)
        proxy.half_open = False

    async def broken_off() -> None:
        for at in range(RESETS):
            proxy.reset_after_bytes = (number * RESETS + at) * 3
            await stand.daemon.until("an answer was broken off", reset_happened(proxy))

    async def refused() -> None:
        proxy.refusing = True
        proxy.cut()
        await asyncio.sleep(1.0)
        proxy.refusing = False

    return {"latency": late, "a cut": cut, "half-open": half_open, "answers broken off": broken_off, "refusal": refused}


def reset_happened(proxy: Proxy) -> Callable[[], Awaitable[bool]]:
    before = proxy.counts["resets"]

    async def happened() -> bool:
        return proxy.counts["resets"] > before

    return happened


async def test_whatever_lies_between_daemon_and_broker_alerts_come_once_and_in_order(stand: Stand) -> None:
    following = asyncio.create_task(stand.follower.run())
    await stand.until_more_is_told("the start")
    for number in range(ROUNDS):
        for name, fault in network_faults(stand, number).items():
            await fault()
            await stand.until_more_is_told(name)
    for seconds in STALLS_S:
        await stand.stall(seconds)
        await stand.until_more_is_told(f"a stall of {seconds:g} s")
    await stand.until_caught_up()
    assert await stand.daemon.interrupt(signal.SIGTERM) == 0, stand.daemon.tail()
    following.cancel()

    published = await published_of(stand.broker.url)
    histories = await histories_of(
        stand.daemon, published, followers={"follower": stand.follower}, hooks={"hook": stand.hook}
    )
    report = judged(histories, in_order=("hook",))
    print(f"went on within {stand.recovered_s} s; {stand.proxy.counts}, {dict(stand.follower.counts)}")
    assert report.sizes["epochs"] == 1
    assert stand.proxy.counts["swallowed"] > 0
    assert stand.proxy.counts["resets"] == RESETS * ROUNDS


async def test_while_the_broker_is_away_readiness_says_so_and_liveness_does_not(stand: Stand) -> None:
    async with aiohttp.ClientSession(stand.daemon.addresses()[-1]) as session:

        async def ready() -> bool:
            async with session.get("/readyz") as response:
                return response.status == 200

        async def unready() -> bool:
            return not await ready()

        await stand.daemon.until("it was ready", ready)
        stand.proxy.refusing = True
        stand.proxy.cut()
        await stand.daemon.until("it was not ready", unready)
        async with session.get("/livez") as response:
            assert response.status == 200
        stand.proxy.refusing = False
        await stand.daemon.until("it was ready again", ready)
    assert await stand.daemon.interrupt() == 0
