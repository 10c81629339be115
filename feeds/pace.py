"""`Pace`: lets a feed that could run at once run in (scaled) real time instead."""

from __future__ import annotations

import asyncio

from feeds.errors import FeedError


class Pace:
    """Waits until moments of market time have come, by the loop's clock and without drift; `stop` wakes the waiter.

    Each wait is for an absolute deadline, counted from the first moment, so late wake-ups and slow takers don't add up.
    Moments belong to stretches; the first moment of a new stretch is due at once and time is counted from there.
    """

    def __init__(self, speed: float | None) -> None:
        """Run `speed` times as fast as the market, None or 0: as fast as moments are asked for."""
        if speed is not None and not (0 <= speed < float("inf")):
            raise FeedError(f"speed {speed!r} makes no sense; 1 is real time, 10 ten times as fast, 0 flat out")
        self._speed = speed or 0.0
        self._stretch: int | None = None
        self._anchor_ms = 0
        self._anchor_s = 0.0
        self._stopped = asyncio.Event()

    @property
    def is_real(self) -> bool:
        """Tell whether moments are waited for at all."""
        return self._speed > 0

    def start(self) -> None:
        """Begin anew: the next moment is due at once."""
        self._stretch = None
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """Make every `reach` return False at once, until `start`. From the loop's thread only."""
        self._stopped.set()

    async def reach(self, moment_ms: int, stretch: int = 0) -> bool:
        """Wait until the moment has come; return False if the pace was stopped. Cancelling leaves nothing behind."""
        if not self.is_real or self._stopped.is_set():
            return not self._stopped.is_set()
        now_s = asyncio.get_running_loop().time()
        if stretch != self._stretch:
            self._stretch, self._anchor_ms, self._anchor_s = stretch, moment_ms, now_s
        deadline_s = self._anchor_s + (moment_ms - self._anchor_ms) / 1000 / self._speed
        if deadline_s <= now_s:
            return True
        try:
            async with asyncio.timeout_at(deadline_s):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False
