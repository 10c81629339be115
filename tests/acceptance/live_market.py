"""monitord with a simulated market that waits for nobody.

It opens when its first bridge does. Started again it is where the market has come to meanwhile, and what was told in
between is gone, as with a terminal.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from feeds.feed import FEEDS
from feeds.inputs import FeedInput
from feeds.simulated import SimulatedFeed
from feeds.timetable import make_timetable
from monitord import __main__ as monitord

OPENED = "LIVE_MARKET_OPENED"
"""Environment variable: the file that holds the Unix time at which the market was at feed.simulated.start."""


class LiveMarket(SimulatedFeed):
    """The simulated market without offsets, by the clock on the wall; for one day without lunch."""

    has_offsets = False

    def __init__(self, *, speed: float, **settings: Any) -> None:
        super().__init__(speed=None, **settings)
        self._speed = speed
        self._closed = asyncio.Event()
        self._opened_s = 0.0
        self._is_first = False

    async def open(self, *, after: int = -1) -> None:
        del after
        await super().open(after=-1)
        self._look_when(Path(os.environ[OPENED]))

    def _look_when(self, file: Path) -> None:
        """Read when the market opened, or open it."""
        try:
            self._opened_s = float(file.read_text())
        except FileNotFoundError:
            self._opened_s, self._is_first = time.time(), True
            file.write_text(repr(self._opened_s))

    def _told(self) -> int:
        """Return how many moments the market has told by now."""
        passed_ms = (time.time() - self._opened_s) * 1000 * self._speed
        moments = [moment.clock_ms - self._start_ms for moment in make_timetable(self._interval_ms)]
        return sum(0 <= since_start_ms <= passed_ms for since_start_ms in moments)

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        market = self._market
        assert market is not None
        if not self._is_first:  # what was told while it was made is gone
            market.skip_to(self._start_place + self._told())
        while market.place < len(market.timetable):
            since_start_ms = market.timetable[market.place].clock_ms - self._start_ms
            wait_s = self._opened_s + since_start_ms / 1000 / self._speed - time.time()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(wait_s, 0)):
                    await self._closed.wait()
            value = market.next(whole=market.place == self._start_place)
            if self._closed.is_set() or value is None:
                return
            yield FeedInput(-1, value)

    async def close(self) -> None:
        self._closed.set()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command of monitord on this market; for a process of its own."""
    FEEDS["simulated"] = "tests.acceptance.live_market:LiveMarket"
    return monitord.main(argv)
