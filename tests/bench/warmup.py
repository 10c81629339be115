"""How long a warm-up holds up ticks, the engine and the loop: 5,500 symbols, 480 bars of three periods, W1 rules.

A whole daemon's pipeline with its journal takes a market's ticks every second while the past is looked for.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from feeds.barcache import BarCache
from feeds.history import COLUMNS, Bars, table_of
from feeds.inputs import FeedInput
from feeds.journal import Journal
from feeds.sessions import DAY_MS, unix_ms
from feeds.simulated import Market
from feeds.tick import TickBatch
from monitord.checkpoint import CheckpointFolder
from monitord.collector import Collector
from monitord.pipeline import Pipeline
from monitord.store import Store
from monitord.warmup import CHUNK, in_chunks
from rules import rulefile
from tests.given_past import Given
from tests.monitord.test_warmup import RULES, Live

UNTIL_MS = unix_ms(20250102, 0) - 9 * 3_600_000
PERIODS = ("1d", "5m", "1m")
STEP_MS = {"1d": DAY_MS, "5m": 300_000, "1m": 60_000}
EVERY_S = 1.0
T = TypeVar("T")


def history(period: str, bars: int, symbols: Sequence[str]) -> list[Bars]:
    rng = np.random.default_rng(1)
    n = len(symbols)
    close = np.round(20 * np.exp(np.cumsum(rng.normal(0, 0.01, (n, bars)), axis=1)), 2).ravel()
    columns = dict.fromkeys(COLUMNS, close)
    ends = UNTIL_MS - STEP_MS[period] * np.arange(bars - 1, -1, -1)
    table = table_of(period, np.repeat(np.array(symbols), bars), np.tile(ends, n), columns=columns)
    return list(in_chunks(table.of(symbols), until_ms=UNTIL_MS, day=None))


class Ticks(Live):
    """A market every second, until it is told to end."""

    def __init__(self, symbols: int) -> None:
        super().__init__(())
        market = Market(seed=1, symbols=symbols, date=20250102, interval_ms=3000, days=1)
        market.skip_to(next(i for i, one in enumerate(market.timetable) if one.clock_ms >= 36_000_000))
        self._market, self.over, self.sent_s = market, asyncio.Event(), 0.0

    def next(self) -> TickBatch:
        while not isinstance(value := self._market.next(whole=True), TickBatch):
            pass
        return value

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        while not self.over.is_set():
            batch = await asyncio.to_thread(self.next)
            self.sent_s = time.perf_counter()
            yield FeedInput(-1, batch)
            await asyncio.sleep(EVERY_S)


class Timed(Pipeline):
    """Notes how long each turn of the engine's thread takes, by the clock and of its own time."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.turns: list[tuple[float, float]] = []

    async def in_engine(self, work: Callable[[], T]) -> T:
        def timed() -> T:
            at, own = time.perf_counter(), time.thread_time()
            try:
                return work()
            finally:
                self.turns.append((time.perf_counter() - at, time.thread_time() - own))

        return await super().in_engine(timed)


async def measure(symbols: int = 5_500, bars: int = 480) -> dict[str, float]:
    """Return seconds of the whole, of the engine's longest turn, how late the loop and a tick's way were at most."""
    with tempfile.TemporaryDirectory() as name:
        return await _measure(Path(name), symbols, bars)


async def _measure(folder: Path, symbols: int, bars: int) -> dict[str, float]:
    loop, late, ways = asyncio.get_running_loop(), [0.0], [0.0]
    feed, collector = Ticks(symbols), Collector()
    history_of = Given(feed, cache=BarCache(folder / "bars"))
    store = await Store.open(folder / "store.sqlite")
    pipeline = Timed(
        feed, journal=Journal(folder / "s" / "journal", source_id="live"), store=store,
        checkpoints=CheckpointFolder(folder / "s" / "checkpoints"), load_rules=lambda: rulefile.load({"r": RULES}),
        on_alerts=lambda alerts: None, on_ticks=lambda batch: ways.append(time.perf_counter() - feed.sent_s),
        history=history_of, on_rest=collector.rest,
    )  # fmt: skip
    await pipeline.recover()
    collector.start()

    async def watch() -> None:
        while True:
            due = loop.time() + 0.005
            await asyncio.sleep(0.005)
            late.append(loop.time() - due)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(pipeline.run())
        await asyncio.sleep(3 * EVERY_S)
        names = pipeline.engine.market.universe.symbols
        found = [one for period in PERIODS for one in history(period, bars, names)]
        watching = tasks.create_task(watch())
        await asyncio.sleep(4 * EVERY_S)
        without = {"loop_late_s_without": max(late), "tick_s_without": max(ways[-3:])}
        for list_ in (late, ways, pipeline.turns):
            list_.clear()
        history_of.found, past, began = found, pipeline._past, time.perf_counter()
        assert past is not None
        searching = tasks.create_task(past.run())
        past.look_again()
        while history_of.found or history_of.progress or past._lacking.is_set() or not _there(pipeline, bars):  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        whole = time.perf_counter() - began
        turns = pipeline.turns[:]
        searching.cancel()
        watching.cancel()
        feed.over.set()
        await running
    await pipeline.close()
    await store.close()
    collector.stop()
    longest, own = (max(one[place] for one in turns) for place in (0, 1))
    return {
        "whole_s": whole, "turns": len(turns), "longest_turn_s": longest, "longest_turn_cpu_s": own,
        "loop_late_s": max(late), "ticks": len(ways), "tick_s": max(ways), **without,
    }  # fmt: skip


def _there(pipeline: Pipeline, bars: int) -> bool:
    layer: Any = pipeline.engine._graph.layers["1m"]
    return bool((layer.rings.counts.array >= bars).all())


def main() -> None:
    words = [int(word) for word in sys.argv[1:]]
    found = asyncio.run(measure(*words))
    print(f"{CHUNK} at a time: " + ", ".join(f"{name} {value:.3f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
