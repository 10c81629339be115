"""The disk is full in mid-work, and free again: what was told stands, the daemon ends and starts anew, none is lost.

A limit on the size of files stands for the full disk: a running process gets it from outside, and is rid of it so too.
"""

from __future__ import annotations

import asyncio
import random
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from monitord.app import FAILED
from tests.faults.counts import count
from tests.faults.followers import Follower
from tests.faults.lives import ForkedDaemon
from tests.faults.sessions import Hook, histories_of, judged, levels, published_in, rule_file, serving_hook

pytestmark = pytest.mark.acceptance

FILLINGS = count("disk_fillings", ci=2, long=100)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with serving_hook() as serving:
        yield serving


@pytest.fixture
async def daemon(tmp_path: Path, hook: Hook) -> AsyncIterator[ForkedDaemon]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(rule_file(*levels(-1, -0.5, 0, 0.5, 1)))
    daemon = ForkedDaemon(
        tmp_path / "d",
        {
            "rules.files": rules,
            "feed.simulated.symbols": 100,
            "feed.simulated.speed": 600,
            "feed.simulated.start": "10:30:00",
            "engine.checkpoint_s": 0.5,
            "gateway.allow_loopback_without_token": True,
            "notify.webhooks": orjson.dumps([hook.section("hook")]).decode(),
        },
    )
    yield daemon
    await daemon.ended()


def fill_the_disk(daemon: ForkedDaemon) -> None:
    """Let no file grow any more, but for the log, which tells what happens then."""
    room = daemon.log.stat().st_size
    largest = max(file.stat().st_size for file in daemon.state_dir.rglob("*.sqlite*"))
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (max(room + 20_000, largest), resource.RLIM_INFINITY))


async def test_a_full_disk_ends_the_daemon_and_what_it_had_told_is_told_once(daemon: ForkedDaemon, hook: Hook) -> None:
    chance, follower = random.Random(2), Follower(daemon)
    following = asyncio.create_task(follower.run())
    failures: list[str] = []
    for _ in range(FILLINGS):
        await daemon.start()
        await daemon.listening()
        told = len(follower.told)

        async def works(told: int = told) -> bool:
            return len(follower.told) > told + 5

        await daemon.until("alerts came", works)
        await asyncio.sleep(chance.uniform(0.0, 0.3))
        fill_the_disk(daemon)
        assert await daemon.end(60) == FAILED, daemon.tail()
        failures += [str(line["why"]) for line in daemon.events("daemon_failed")]
    await daemon.start()
    await daemon.listening()
    told = len(follower.told)
    await daemon.until("alerts came", works)
    assert await daemon.interrupt() == 0, daemon.tail()
    following.cancel()
    histories = await histories_of(
        daemon, await published_in(daemon.state_dir), followers={"follower": follower}, hooks={"hook": hook}
    )
    judged(histories, repeats={"hook": FILLINGS})
    print(f"{FILLINGS} times full: {failures}")
