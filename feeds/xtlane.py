"""`VendorLane`: blocking calls of the vendor on a thread of their own, and left behind with it when they hang.

The vendor's calls may wait for ever (a download does, and a query for 150 s). A thread of `ThreadPoolExecutor` that
hangs cannot be given up: the pool stays one short, and the interpreter waits for it at its end. So a lane has a daemon
thread, and takes a new one when a call is over its time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, Final, TypeVar

from feeds.errors import FeedError

MOST_STUCK: Final = 8
"""So many threads may hang in the vendor at a time; then nothing more is asked of it until one comes back."""

_Answer = TypeVar("_Answer")


class VendorLane:
    """Runs one blocking call at a time. Create and use it on the event loop; what it calls runs on its thread.

    abandoned  calls that took longer than they were given; their thread ends when they do, their answer is dropped
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._worker: _Worker | None = None
        self._stuck: list[_Worker] = []
        self._turn = asyncio.Lock()
        self.abandoned = 0

    @property
    def is_busy(self) -> bool:
        """Whether a call is under way."""
        return self._worker is not None and self._worker.is_busy

    async def ask(self, call: Callable[[], _Answer], *, timeout_s: float) -> _Answer:
        """Call when those before are over; raises what the call raises, TimeoutError, or FeedError (see `submit`)."""
        async with self._turn:
            return await self.submit(call, timeout_s=timeout_s)

    def submit(self, call: Callable[[], _Answer], *, timeout_s: float) -> asyncio.Future[_Answer]:
        """Begin a call now and return its future, which fails with TimeoutError when the time is over.

        A call that is still under way is left behind first: its asker has gone. Raises FeedError where too many hang.
        """
        if self.is_busy:
            self._abandon()
        self._stuck = [worker for worker in self._stuck if worker.is_alive()]
        if len(self._stuck) >= MOST_STUCK:
            raise FeedError(f"xt: {MOST_STUCK} calls of the vendor hang; restart the terminal (miniQMT)")
        loop = asyncio.get_running_loop()
        if self._worker is None:
            self._worker = _Worker(self._name, loop)
            self._worker.start()
        worker, future = self._worker, loop.create_future()
        timer = loop.call_later(timeout_s, self._give_up, worker, future)
        future.add_done_callback(lambda _: timer.cancel())
        worker.begin(call, future)
        return future

    def close(self) -> None:
        """End the thread when its call is over. Idempotent; a later `submit` begins another."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.end()

    def _give_up(self, worker: _Worker, future: asyncio.Future[Any]) -> None:
        if future.done():
            return
        if worker is self._worker:
            self._abandon()
        future.set_exception(TimeoutError())

    def _abandon(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            self.abandoned += 1
            worker.end()
            self._stuck.append(worker)


class _Worker(Thread):
    """The thread of a lane. All but `run` belong to the event loop."""

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(name=name, daemon=True)
        self._loop = loop
        self._calls: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        self._pending = 0

    @property
    def is_busy(self) -> bool:
        return self._pending > 0

    def begin(self, call: Callable[[], Any], future: asyncio.Future[Any]) -> None:
        self._pending += 1
        self._calls.put((call, future))

    def end(self) -> None:
        self._calls.put(None)

    def run(self) -> None:
        while (given := self._calls.get()) is not None:
            call, future = given
            answer, error = None, None
            try:
                answer = call()
            except (Exception, SystemExit) as raised:  # handed to whoever asked; a vendor must not end the thread
                error = raised
            try:
                self._loop.call_soon_threadsafe(self._deliver, future, answer, error)
            except RuntimeError:  # the loop has closed: nobody waits any more
                return

    def _deliver(self, future: asyncio.Future[Any], answer: Any, error: BaseException | None) -> None:
        self._pending -= 1
        if future.done():
            return
        if error is None:
            future.set_result(answer)
        elif isinstance(error, Exception) and not isinstance(error, StopIteration):
            future.set_exception(error)
        else:  # a future takes no StopIteration, and SystemExit of the vendor is not ours
            future.set_exception(FeedError(f"xt: the vendor raised {error!r}"))
