"""The engine process is killed -9 in mid-work, again and again, now and then together with its broker.

The market goes on through lunch and over midnight meanwhile; the last life ends by SIGTERM under full load.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import orjson
import pytest

from feeds.timetable import make_timetable
from tests.faults.counts import LONG, count
from tests.faults.followers import Follower
from tests.faults.lives import ForkedDaemon
from tests.faults.sessions import (
    Hook,
    broker_pid,
    health_of,
    histories_of,
    judged,
    kill_and_see_it_die,
    published_in,
    rule_file,
    serving_hook,
)

pytestmark = pytest.mark.acceptance

STORMS = (0, 1) if LONG else (0,)
"""Two in the long counts, in a part of an hour each: together 1,000 and 200 kills."""
ENGINE_KILLS = count("engine_kills", ci=20, long=500)
BOTH_KILLS = count("both_kills", ci=5, long=100)
LATEST_S = 0.3
"""A life that is killed wherever it has come to is no older than this."""
MOST_ALERTS = 12 if LONG else 40
"""A life that works is killed behind any number of new alerts up to this: on a slow machine it lives the longer. Those
of earlier lives don't count: the first minute decides 40 again each time, and no kill would ever come behind it."""
INTERVAL_S = 15
SPEED = 3000
"""Market seconds a second: some 200 inputs, for each life has its minutes."""
START = "11:25:00"
START_MS = (11 * 60 + 25) * 60_000
OVER_MIDNIGHT = sum(moment.clock_ms >= START_MS for moment in make_timetable(INTERVAL_S * 1000)) + 50
"""An input of the second day."""
RULES = rule_file(
    "{id: rise, select: all, when: PCT > 1, rearm: PCT < 0.8, freq: always}",
    "{id: fall, select: all, when: PCT < -1, rearm: PCT > -0.8, freq: always, cooldown: 1m}",
    '{id: turn, select: all, when: "CROSS(MA(C,5), MA(C,10))", period: 1m, eval: bar_close, freq: once_per_bar}',
    '{id: burst, select: all, when: "V > 3 * MA(REF(V,1), 5)", period: 1m, freq: once_per_bar}',
    "{id: held, select: all, when: PCT > 0.5, mode: state, for: 30s}",
)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with serving_hook() as serving:
        yield serving


@pytest.fixture
async def daemon(tmp_path: Path, hook: Hook) -> AsyncIterator[ForkedDaemon]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    daemon = ForkedDaemon(
        tmp_path / "d",
        {
            "rules.files": rules,
            "feed.simulated.symbols": 60,
            "feed.simulated.speed": SPEED,
            "feed.simulated.start": START,
            "feed.simulated.interval_s": INTERVAL_S,
            "engine.checkpoint_s": 0.3,
            "broker.strict": True,  # else a kill may cost it what it acknowledged, while the disk syncs
            "gateway.allow_loopback_without_token": True,
            "notify.webhooks": orjson.dumps([hook.section("hook")]).decode(),
        },
    )
    yield daemon
    await daemon.ended()


class Storm:
    """Kills a daemon as planned, and counts."""

    def __init__(self, daemon: ForkedDaemon, follower: Follower, *, seed: int) -> None:
        self._daemon, self._follower, self._chance = daemon, follower, random.Random(seed)
        self.kills = {"engine": 0, "both": 0}
        self.seen: set[str] = set()
        """Alerts that any life so far has decided."""

    async def run(self) -> None:
        """Give life after life.

        Every fourth is killed wherever it has come to, two not before they work (in one of them the client stays away,
        and has to be told afterwards), one not before the client is there.
        """
        plan = ["engine"] * ENGINE_KILLS + ["both"] * BOTH_KILLS
        self._chance.shuffle(plan)
        for number, whom in enumerate(plan):
            if number % 4 == 1:
                self._follower.wanted.clear()
            await self._daemon.start()
            if number % 4 == 0:
                await asyncio.sleep(self._chance.uniform(0.0, LATEST_S))
            else:
                await self._daemon.until("it worked", self._works(with_the_client=number % 4 == 3))
            self.kills[whom] += await self._kill(both=whom == "both")
            self.seen |= self._decided()
            self._follower.wanted.set()

    def _works(self, *, with_the_client: bool) -> Callable[[], Awaitable[bool]]:
        """Return whether this life has decided so much, and the client has come to stand in it."""
        stood = self._follower.counts["stood"] - (not with_the_client)
        alerts = self._chance.randrange(MOST_ALERTS)

        async def works() -> bool:
            return (
                self._follower.counts["stood"] > stood
                and bool(self._daemon.addresses())
                and len(self._decided() - self.seen) >= alerts
            )

        return works

    def _decided(self) -> set[str]:
        return {str(line["id"]) for line in self._daemon.events("alert_fired")}

    async def _kill(self, *, both: bool) -> bool:
        pid = await broker_pid(f"unix://{self._daemon.state_dir / 'broker' / 'broker.sock'}") if both else None
        first_the_broker = self._chance.random() < 0.5
        if pid is not None and first_the_broker:
            await kill_and_see_it_die(pid)
        killed = self._daemon.kill()
        await self._daemon.process.wait()
        if pid is not None and not first_the_broker:
            await kill_and_see_it_die(pid)
        return killed


@pytest.mark.parametrize("number", STORMS)
async def test_killed_engines_and_brokers_tell_exactly_what_one_engine_decides_that_lives(
    daemon: ForkedDaemon, hook: Hook, number: int
) -> None:
    follower = Follower(daemon)
    storm = Storm(daemon, follower, seed=7 + number)
    following = asyncio.create_task(follower.run())
    await storm.run()
    await daemon.start()
    await daemon.listening()

    async def is_the_day_after() -> bool:
        return bool((await health_of(daemon)).get("engine", {}).get("offset", -1) >= OVER_MIDNIGHT)

    await daemon.until("the second day had come", is_the_day_after, 300)
    assert await daemon.interrupt(signal.SIGTERM) == 0, daemon.tail()
    following.cancel()

    histories = await histories_of(
        daemon, await published_in(daemon.state_dir), followers={"follower": follower}, hooks={"hook": hook}
    )
    report = judged(histories, repeats={"hook": sum(storm.kills.values())}, in_order=("hook",))
    print(f"{storm.kills}, {dict(follower.counts)}")
    assert storm.kills == {"engine": ENGINE_KILLS, "both": BOTH_KILLS}
    assert report.sizes["epochs"] == 1, "kill -9 of a broker loses nothing of what it acknowledged"
    assert len(storm.seen) > (ENGINE_KILLS + BOTH_KILLS) * MOST_ALERTS // 4, "the lives have come on"
    assert report.sizes["committed"] > 500
    assert follower.counts["stood"] > (ENGINE_KILLS + BOTH_KILLS) // 4
    assert follower.counts["replayed"] > 0
    assert follower.counts["notice_shutdown"] == 1
