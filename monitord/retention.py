"""Retention: history that is older than wanted leaves the store, once a day while the daemon runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from monitord.store import Store

FIRST_S: Final = 3_600.0
"""When a run prunes first: a daemon that is stopped every evening gets there, and by then a checkpoint is newer than
whatever goes. Else a start after a long rest could decide pruned events again from its journal, as new ones."""
EVERY_S: Final = 86_400.0
DAY_MS: Final = 86_400_000

log = structlog.get_logger(__name__)


class Retention:
    """Keeps so many days of history in one store. Event-loop thread; one `run` at a time."""

    def __init__(
        self,
        store: Store,
        *,
        keep_days: int,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """keep_days: counted from the sending of an event and the recording of a delivery, 0 = for ever."""
        self._store, self._keep_days = store, keep_days
        self._clock_ms, self._sleep = clock_ms, sleep

    async def run(self) -> None:
        """Prune again and again; return at once if history is kept for ever.

        Raises StoreError when the store fails. Cancelling leaves for the next time what was not pruned yet.
        """
        if not self._keep_days:
            return
        await self._sleep(FIRST_S)
        while True:
            await self.prune()
            await self._sleep(EVERY_S)

    async def prune(self) -> int:
        """Delete what is too old now; return how many events."""
        events, deliveries = await self._store.prune(before_ms=self._clock_ms() - self._keep_days * DAY_MS)
        log.info("history_pruned", events=events, deliveries=deliveries, keep_days=self._keep_days)
        return events
