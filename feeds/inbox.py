"""`TickInbox`: the one way from a vendor's threads into the event loop.

A producer never blocks, and wakes the loop only when the consumer sleeps: one `call_soon_threadsafe` per batch at most,
300 times cheaper than one per tick.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from typing import TypeAlias

import numpy as np

from feeds.errors import FeedError
from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.tick import TickBatch

Received: TypeAlias = TickBatch | Heartbeat | Mark


class TickInbox:
    """A bounded queue from any thread to one asyncio task, in order of arrival.

    Overflow policy: with `maxsize` batches waiting, the oldest is dropped and counted, and the consumer gets a `gap`
    mark in its place (one mark, however many batches in a row were dropped). Marks are never dropped; a heartbeat that
    follows a heartbeat, or stands before a dropped batch, is superseded.

    Create it on the running loop. The push methods, `close` and `counters` may be called from any thread, also when the
    loop is closing or closed. Only one task may iterate; cancelling it loses nothing.
    """

    __slots__ = ("_asleep", "_batches", "_closed", "_counts", "_lock", "_loop", "_maxsize", "_queue", "_ready")

    def __init__(self, maxsize: int) -> None:
        if maxsize < 1:
            raise FeedError(f"an inbox for {maxsize} batches holds nothing; it needs room for 1 at least")
        self._maxsize = maxsize
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._lock = threading.Lock()  # held for a few queue operations, never while calling out
        self._queue: deque[Received] = deque()
        self._batches = 0
        self._asleep = False
        self._closed = False
        self._counts = {"inbox_dropped_batches": 0, "inbox_dropped_ticks": 0, "inbox_late": 0, "inbox_wakes": 0}

    def __len__(self) -> int:
        """Return how many batches wait."""
        return self._batches

    def push(self, batch: TickBatch) -> bool:
        """Append a batch; False if the inbox is closed (counted as late). An empty batch is nothing to push."""
        if not len(batch):
            return not self._closed
        with self._lock:
            if self._batches == self._maxsize and not self._closed:
                self._drop_oldest()
            accepted, wake = self._append(batch)
            self._batches += accepted
        return accepted and (not wake or self._wake())

    def push_mark(self, mark: Mark) -> bool:
        """Append a mark; False if the inbox is closed."""
        with self._lock:
            accepted, wake = self._append(mark)
        return accepted and (not wake or self._wake())

    def push_heartbeat(self, heartbeat: Heartbeat) -> bool:
        """Append a heartbeat, in place of one that nobody has taken yet; False if the inbox is closed."""
        with self._lock:
            if self._queue and isinstance(self._queue[-1], Heartbeat):
                self._queue.pop()
            accepted, wake = self._append(heartbeat)
        return accepted and (not wake or self._wake())

    def close(self) -> None:
        """Take nothing more; the iteration ends behind what is queued. Idempotent."""
        with self._lock:
            self._closed = True
            wake, self._asleep = self._asleep, False
        if wake:
            self._wake()

    def counters(self) -> Mapping[str, int]:
        """Return batches and ticks dropped, inputs that came after `close`, and wake-ups of the loop."""
        with self._lock:
            return dict(self._counts)

    def __aiter__(self) -> AsyncIterator[Received]:
        return self

    async def __anext__(self) -> Received:
        while True:
            with self._lock:
                if self._queue:
                    return self._take()
                if self._closed:
                    raise StopAsyncIteration
                # Race: a push between "the queue is empty" and "wait" must wake us. The queue and `_asleep` change
                # under the lock, so it comes before (and we see its batch) or after (and it sees us asleep).
                # A `set` of an earlier push that runs only now wakes us for nothing; the loop looks again.
                self._asleep = True
                self._ready.clear()
            await self._ready.wait()

    def _take(self) -> Received:
        value = self._queue.popleft()
        self._batches -= isinstance(value, TickBatch)
        return value

    def _append(self, value: Received) -> tuple[bool, bool]:
        """Queue the value unless closed; return (accepted, the loop must be woken). The lock is held."""
        if self._closed:
            self._counts["inbox_late"] += 1
            return False, False
        self._queue.append(value)
        wake, self._asleep = self._asleep, False
        self._counts["inbox_wakes"] += wake
        return True, wake

    def _drop_oldest(self) -> None:
        """Put a gap mark where the oldest batch was, unless one stands before it already. The lock is held."""
        before: list[Received] = []
        while not isinstance(value := self._queue.popleft(), TickBatch):
            if not isinstance(value, Heartbeat):
                before.append(value)
        self._batches -= 1
        self._counts["inbox_dropped_batches"] += 1
        self._counts["inbox_dropped_ticks"] += len(value)
        if not any(isinstance(mark, Mark) and mark.kind is MarkKind.GAP for mark in before):
            # The median: one tick with an absurd time must not date the mark.
            before.append(Mark(MarkKind.GAP, int(np.median(value.ts_event_ms)), "the inbox overflowed"))
        self._queue.extendleft(reversed(before))

    def _wake(self) -> bool:
        """Wake the consumer; False, and closed from now on, if its loop is gone.

        Race: the loop may close between our push and this call, from another thread. Then nobody will ever take what we
        queued: that is an end of service, not an error in the vendor's thread.
        """
        try:
            self._loop.call_soon_threadsafe(self._ready.set)
        except RuntimeError:
            with self._lock:
                self._closed = True
            return False
        return True
