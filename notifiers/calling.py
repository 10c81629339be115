"""Calls that can't be cut off, each in a thread of its own, at most one at a time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar, cast

import structlog

T = TypeVar("T")

log = structlog.get_logger(__name__)


class StillBusy(Exception):
    """The call before this one still lasts."""


class LoneCall(Generic[T]):
    """Calls functions that may hang, such as those that write to another machine's disk.

    A call that takes too long is left behind: its thread goes on, and until it ends every further call is refused.
    """

    def __init__(self, name: str) -> None:
        """name: of the threads."""
        self._name = name
        self._busy = threading.Event()

    async def __call__(self, call: Callable[[], T], *, within_s: float) -> T:
        """Return what the call returns, or raise what it raises; TimeoutError when it takes longer, StillBusy.

        Cancelling leaves the call behind, as a timeout does.
        """
        if self._busy.is_set():
            raise StillBusy
        calling: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._busy.set()
        # Not a pool's: Python waits for a pool's threads at its end, and a call that hangs would keep the daemon up.
        threading.Thread(target=self._run, args=(calling, call), name=self._name, daemon=True).start()
        async with asyncio.timeout(within_s):
            return await calling

    def _run(self, calling: asyncio.Future[T], call: Callable[[], T]) -> None:
        came: T | None = None
        failure: Exception | None = None
        try:
            came = call()
        except Exception as error:  # the top of a thread: it is raised again where the call is awaited
            log.debug("call_failed", call=self._name, error=type(error).__name__)
            failure = error
        self._busy.clear()
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            calling.get_loop().call_soon_threadsafe(_settle, calling, came, failure)


def _settle(calling: asyncio.Future[T], came: T | None, failure: Exception | None) -> None:
    if calling.done():
        return
    if failure is None:
        calling.set_result(cast(T, came))
    else:
        calling.set_exception(failure)
