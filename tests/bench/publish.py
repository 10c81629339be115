"""Publishing 100 alerts a drain through the script, beside redis-py's pipeline (with hiredis) of the same script.

Both on a broker of their own kind: the embedded one, over its unix socket, append-only file on. The pipeline calls the
script once per alert, as a publisher does who knows of no drains.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from redis.asyncio import Redis

from monitord.broker import EmbeddedBroker
from notifiers.alertstream import Outgoing
from notifiers.channel import AlertChannel
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import summary
from tests.monitord.gateway.stand import record

DRAIN, REPEATS = 100, 60
OURS, PIPELINE = "AlertChannel.publish", "redis-py pipeline of EVALSHA"


def run(*, quick: bool = False) -> Report:
    """Race both in turns."""
    took = asyncio.run(_race(3 if quick else REPEATS))
    timings = {name: summary(name, seconds) for name, seconds in took.items()}
    ratio = times_faster(timings[PIPELINE], timings[OURS])
    rate = DRAIN / timings[OURS].median_ms * 1e3
    lines = [
        Line(f"vs {PIPELINE}", ratio, least=None if quick else 1.2),
        Line("alerts a second", rate, "/s"),
    ]
    return Report("publish", lines, timings, [f"drains of {DRAIN} alerts, each told on 4 channels"])


async def _race(repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each drain, by way."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        broker = EmbeddedBroker(Path(folder) / "broker", socket=Path(folder) / "s")
        await broker.start()
        channel, redis = AlertChannel(broker.url), Redis.from_url(broker.url, protocol=2)
        try:
            return await _measure(channel, redis, repeats)
        finally:
            await redis.aclose()
            await channel.close()
            await broker.stop()


async def _measure(channel: AlertChannel, redis: Redis, repeats: int) -> dict[str, list[float]]:
    epoch, _ = await channel.begin_epoch(acked=0)
    script = await redis.script_load(channel.publish_text)
    took: dict[str, list[float]] = {OURS: [], PIPELINE: []}
    for repeat in range(repeats + 2):
        ours, theirs = _drain(2 * repeat), _drain(2 * repeat + 1)
        started = time.perf_counter()
        receipts = await channel.publish(ours, epoch=epoch, acked=0)
        between = time.perf_counter()
        pipeline = redis.pipeline(transaction=False)
        for alert in theirs:
            pipeline.evalsha(script, *channel.call([alert], epoch=epoch, acked=0))
        replies = await pipeline.execute()
        ended = time.perf_counter()
        assert [receipt.off for receipt in receipts] + [off for ((off, _),) in replies] == list(
            range(2 * repeat * DRAIN + 1, 2 * (repeat + 1) * DRAIN + 1)
        )
        if repeat > 1:  # the first two are for warming up
            took[OURS].append(between - started)
            took[PIPELINE].append(ended - between)
    return took


def _drain(number: int) -> list[Outgoing]:
    return [
        Outgoing(f"al_{number}_{place}", record(place), f"60{place:04d}.SH", f"rule{place}", "info")
        for place in range(DRAIN)
    ]
