"""`Leaving`: work that is nobody's any more when its client has gone, and ends with the connection.

aiohttp tells nobody of a client that leaves: it ends every handler (`handler_cancellation`) or none, and most of ours
must not end between keeping a change and putting it in force.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeVar

from aiohttp import web

T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody is there to answer."""


class Leaving:
    """Knows of every connection's end. Event-loop thread."""

    def __init__(self) -> None:
        self._waiting: dict[Any, asyncio.Event] = {}
        """Connection → what is set when it ends; of those alone that somebody waits for."""

    def watch(self, server: web.Server) -> None:
        """Hear of the connections of this server, which tells itself of each one's end."""
        tell = server.connection_lost

        def connection_lost(handler: Any, exc: BaseException | None = None) -> None:
            tell(handler, exc)
            left = self._waiting.get(handler)
            if left is not None:
                left.set()

        server.connection_lost = connection_lost  # type: ignore[method-assign]

    async def unless_left(self, request: web.Request, work: Awaitable[T]) -> T:
        """Return what the work returns or raise what it raises; raises ClientLeft when the client was first.

        The work is cancelled then, and has ended when this raises. Of one connection one request at a time is answered.
        """
        handler, left = request.protocol, asyncio.Event()
        self._waiting[handler] = left
        if request.transport is None or request.transport.is_closing():
            left.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                working = tasks.create_task(_awaited(work))
                leaving = tasks.create_task(left.wait())
                await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
                working.cancel()
                leaving.cancel()
        except ExceptionGroup as failures:  # only the work can fail
            raise failures.exceptions[0] from None
        finally:
            del self._waiting[handler]
        if working.cancelled():
            raise ClientLeft
        return working.result()


async def _awaited(work: Awaitable[T]) -> T:
    return await work
