"""`Subscription`: follows the alert channel without a gap, whatever becomes of the broker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from math import inf
from typing import Any, Final, cast

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError

from feeds.connection import TIMEOUT_S, Client, heeding_cancel
from notifiers.alertstream import (
    Connect,
    Envelope,
    Head,
    Names,
    Position,
    has_something,
    head_of,
    open_envelope,
    read_entries,
)
from notifiers.errors import DeliveryError

CHECK_S: Final = 1.0
PAGE: Final = 500
"""Stream entries read at once while catching up, and so the most a subscription holds in memory."""
GATHER_S: Final = 0.001
"""How long a live message waits for the others of its burst."""
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 2.0

log = structlog.get_logger(__name__)


class Subscription:
    """Follows the channel without loss, duplicate or disorder; an async iterator of Position and Envelope.

    The first thing out is a Position, then envelopes with contiguous offsets; another Position comes wherever they do
    not go on. Live messages come by pub/sub; every second the top offset is compared over a second connection, because
    a frozen server neither sends nor closes, and pub/sub drops messages without a word. Whatever happens to the broker,
    the iterator goes on: it reconnects for ever (0.05 to 2 s between tries) and fills from the stream.

    One task at a time. Cancelling `__anext__` loses nothing: the next call goes on behind the last one returned.
    """

    def __init__(
        self,
        connect: Connect,
        names: Names,
        *,
        since: Position | None = None,
        check_s: float = CHECK_S,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._connect, self._names = connect, names
        self._check_s, self._sleep = check_s, sleep
        self._cursor = since
        self._begun = False
        self._ready: deque[Position | Envelope] = deque()
        self._live: PubSub | None = None
        self._clients: tuple[Client, ...] = ()
        self._behind = False
        self._next_check = 0.0
        self._pause_s = FIRST_PAUSE_S
        self._counters = dict.fromkeys(("envelopes", "filled", "dropped_old", "foreign", "reconnects", "holes"), 0)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Position | Envelope:
        while not self._ready:
            try:
                with heeding_cancel():
                    await self._advance()
            except (RedisError, OSError) as error:  # redis-py's TimeoutError and asyncio's are both among these
                await self._reconnect_later(error)
            except BaseException:  # cancelled in the middle of a reply: what follows on that connection is not ours
                await self.aclose()
                raise
        return self._ready.popleft()

    async def aclose(self) -> None:
        """Close both connections; idempotent. The next `__anext__` would connect again and go on."""
        live, clients = self._live, self._clients
        self._live, self._clients = None, ()
        for closing in (live, *clients):
            if closing is not None:
                with suppress(RedisError, OSError):
                    await closing.aclose()

    def counters(self) -> Mapping[str, int]:
        """Return counts: envelopes, filled from the stream, dropped_old (seen before), foreign, reconnects, holes."""
        return dict(self._counters)

    async def _advance(self) -> None:
        loop = asyncio.get_running_loop()
        if self._live is None:
            await self._attach()
        messages: list[bytes] = []
        if not self._behind:
            messages = await self._next_messages(max(self._next_check - loop.time(), 0.0))
        if self._behind or loop.time() >= self._next_check:
            await self._catch_up()
            self._next_check = loop.time() + self._check_s
            self._pause_s = FIRST_PAUSE_S
        for message in messages:
            await self._take(message)

    async def _attach(self) -> None:
        """Attach the live connection first and wait until it is: what is published from then on cannot be missed."""
        self._clients = (self._connect(), self._connect())
        self._live = live = self._clients[0].pubsub()
        await live.subscribe(self._names.live)
        if await live.get_message(timeout=TIMEOUT_S) is None:
            raise TimeoutError("no answer to SUBSCRIBE")
        self._behind = True

    async def _next_messages(self, wait_s: float) -> list[bytes]:
        """Wait for a message and return it with those that came beside it, [] if none came.

        The first is waited for as redis-py does it; at 0.07 ms each, the other 60 of a burst would take longer than
        everything else behind the script. They are looked at GATHER_S later, when whoever has published them in this
        process has got his answer and told of it: to read them before would hold him up for 2 ms. Raises TimeoutError
        if one of them does not come to its end.
        """
        live: Any = self._live  # redis-py types one method of three here
        message = await live.get_message(ignore_subscribe_messages=True, timeout=wait_s)
        messages = []
        if message is not None:
            await asyncio.sleep(GATHER_S)
        async with asyncio.timeout(TIMEOUT_S):
            while message is not None:
                messages.append(cast(bytes, message["data"]))
                connection = live.connection
                if len(messages) == PAGE or not await has_something(connection):
                    break
                reply = await connection.read_response(timeout=inf, disconnect_on_error=False)
                message = await live.handle_message(reply, ignore_subscribe_messages=True)
        return messages

    async def _reconnect_later(self, error: Exception) -> None:
        self._counters["reconnects"] += 1
        log.warning("channel_lost", error=str(error), retry_s=self._pause_s)
        await self.aclose()
        await self._sleep(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)

    async def _take(self, message: bytes) -> None:
        """Take a live message if it is the next one; anything else is settled by what the stream says."""
        try:
            envelope = open_envelope(message)
        except DeliveryError as error:  # somebody else publishes here; the stream is what counts
            self._counters["foreign"] += 1
            log.warning("foreign_message", error=str(error))
            return
        cursor = self._cursor
        if cursor is None or envelope.epoch != cursor.epoch or envelope.off > cursor.off + 1:
            await self._catch_up()
        elif envelope.off == cursor.off + 1:
            self._hand_out(envelope)
        else:
            self._counters["dropped_old"] += 1

    async def _catch_up(self) -> None:
        """Compare with the broker's top offset and read at most one page of what is missing from the stream."""
        reader = self._clients[1]
        head = await head_of(reader, self._names)
        self._orient(head)
        cursor = self._cursor
        self._behind = cursor is not None and head.epoch != "" and cursor.off < head.top
        if not self._behind or cursor is None:
            return
        page = await read_entries(reader, self._names, after=cursor.off, upto=str(head.top), count=PAGE)
        if not page:  # trimmed to nothing, or deleted by hand
            self._announce(Position(head.epoch, head.top, recovered=False))
        for envelope in page:
            if envelope.epoch != head.epoch:  # a new epoch began between the two reads: the next look sees it
                return
            self._fill(envelope)
        self._behind = self._cursor is not None and self._cursor.off < head.top

    def _orient(self, head: Head) -> None:
        """Announce where the envelopes begin, or go on after a new epoch."""
        cursor = self._cursor
        if cursor is None:
            self._announce(Position(head.epoch, head.top, recovered=True))
        elif head.epoch == "":
            if not self._begun:
                self._announce(replace(cursor, recovered=cursor.epoch == ""))
        elif cursor.epoch != head.epoch:
            self._announce(Position(head.epoch, head.base, recovered=cursor.epoch == ""))
        elif not self._begun and cursor.off >= head.top:
            self._announce(Position(head.epoch, head.top, recovered=cursor.off == head.top))

    def _fill(self, envelope: Envelope) -> None:
        assert self._cursor is not None
        if envelope.off != self._cursor.off + 1:
            self._announce(Position(envelope.epoch, envelope.off - 1, recovered=False))
        elif not self._begun:
            self._announce(self._cursor)
        self._counters["filled"] += 1
        self._hand_out(envelope)

    def _announce(self, position: Position) -> None:
        self._counters["holes"] += not position.recovered
        self._cursor, self._begun = position, True
        self._ready.append(position)

    def _hand_out(self, envelope: Envelope) -> None:
        self._counters["envelopes"] += 1
        self._cursor = Position(envelope.epoch, envelope.off, recovered=True)
        self._ready.append(envelope)
