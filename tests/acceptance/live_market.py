"""`python -m tests.acceptance.live_market bridge …`: monitord with a simulated market that waits for nobody.

Started again it is where the market has come to meanwhile, and what was told in between is gone, as with a terminal.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from feeds.feed import FEEDS
from feeds.inputs import FeedInput
from feeds.simulated import SimulatedFeed
from feeds.timetable import make_timetable
from monitord.__main__ import main

BEGAN_AT = "LIVE_MARKET_BEGAN_AT"
"""Environment variable: the Unix time at which the market was at feed.simulated.start."""


class LiveMarket(SimulatedFeed):
    """The simulated market without offsets."""

    has_offsets = False

    def __init__(self, *, speed: float, **settings: Any) -> None:
        super().__init__(speed=speed, **settings)
        self._speed = speed

    async def open(self, *, after: int = -1) -> None:
        del after
        passed_ms = (time.time() - float(os.environ[BEGAN_AT])) * 1000 * self._speed
        moments = [moment.clock_ms - self._start_ms for moment in make_timetable(self._interval_ms)]
        told = sum(0 <= since_start_ms <= passed_ms for since_start_ms in moments)
        await super().open(after=told - 1)

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        async for given in super().__aiter__():
            yield FeedInput(-1, given.value)


if __name__ == "__main__":
    FEEDS["simulated"] = "tests.acceptance.live_market:LiveMarket"
    sys.exit(main())
