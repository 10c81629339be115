"""`Keeping`: our own bars of each day into the cache, for starts to come.

They are read out of the engine once a day, when the day's last bars have closed, or else right before the next day
begins; and at a stop, as far as the day has come. The files are written beside the ticks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

import structlog

from feeds.barcache import BarCache
from feeds.errors import FeedError
from feeds.history import BarTable
from feeds.inputs import Heartbeat, Mark
from feeds.sessions import midnight_ms, trade_date
from feeds.tick import TickBatch
from rules.engine import Engine

OVER_MS: Final = 15 * 3_600_000 + 65_000
"""Since midnight: the day's last bars close at 15:01:00."""
WAITING: Final = 3
"""Days that may wait to be written; what comes on top takes the place of the oldest: only a replay is that quick."""

log = structlog.get_logger(__name__)


class Keeping:
    """Reads bars out on the engine thread, and writes them in worker threads, one write at a time.

    bars: how many of each period are kept on the disk.
    """

    def __init__(self, cache: BarCache, *, bars: int) -> None:
        self._cache = cache
        self._bars = bars
        self._days: deque[tuple[int, list[BarTable], dict[str, tuple[float, float]]]] = deque(maxlen=WAITING)
        self._waiting = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing = asyncio.Lock()
        self._kept = 0
        """The newest trade date that was read out whole."""

    def look(self, engine: Engine, value: TickBatch | Heartbeat | Mark) -> None:
        """Read the day out if it is over, before this input is taken; on the engine thread."""
        date = engine.market.date
        if not date or date == self._kept:
            return
        newest_ms = value.span_ms[1] if isinstance(value, TickBatch) and len(value) else getattr(value, "ts_ms", 0)
        over = trade_date(newest_ms) > date
        if over or engine.market.clock_ms >= midnight_ms(engine.market.clock_ms) + OVER_MS:
            self._kept = date
            self._read(engine, date, over=over)

    def read_today(self, engine: Engine) -> None:
        """Read out what there is of the day's bars; on the engine thread."""
        if engine.market.date and engine.market.date != self._kept:
            self._read(engine, engine.market.date, over=False)

    def _read(self, engine: Engine, date: int, *, over: bool) -> None:
        found = (engine.bars(period, date, over=over) for period in engine.market.bars)
        tables = [table for table in found if table is not None and len(table)]
        if tables:
            self._days.append((date, tables, dict(engine.exright_factors(date))))
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._waiting.set)

    async def run(self) -> None:
        """Write each day that was read out; a disk that refuses is logged, and costs that day."""
        self._loop = asyncio.get_running_loop()
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            await self.write()

    async def write(self) -> None:
        """Write what waits."""
        async with self._writing:
            while self._days:
                date, tables, factors = self._days.popleft()
                await asyncio.to_thread(self._write, date, tables, factors)

    def _write(self, date: int, tables: list[BarTable], factors: dict[str, tuple[float, float]]) -> None:
        try:
            for table in tables:
                self._cache.write(table, date, factors)
            gone = self._cache.prune(bars=self._bars)
        except (FeedError, OSError) as error:
            log.error("bars_not_kept", date=date, why=str(error))
            return
        log.info("bars_kept", date=date, bars={table.period: len(table) for table in tables}, old_files_deleted=gone)
