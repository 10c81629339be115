"""The outgoing half of one connection: what is due goes out as one frame, and a client that falls behind is let go."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from monitord.gateway.fanout import FanOut
from monitord.gateway.protocol import Burst, CloseCode, Dialect

SEND_BYTES: Final = 1 << 18
"""What a socket takes at once. By itself it begins with 16 kB and grows as it is used, so that a client's first burst
of 90 alerts left in pieces, which took 25 ms for 100 clients, and ever after 3."""


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a connection ends. code None: it is gone already. cut: don't bother with a closing handshake."""

    code: CloseCode | None
    reason: str = ""
    cut: bool = False


class Outlet:
    """Sends to one client without ever making anyone wait. Event loop only.

    Bursts that are due in one turn of the loop leave as one frame, at its end (`FanOut`). As long as the socket takes
    everything, no task is woken for that: it is what makes 1,000 clients cheap. As soon as it takes less than was
    written, frames wait in a queue and `run` writes them when the socket is empty again.

    Overflow: bursts are never dropped; more than `backlog_bytes` behind ends the connection with 4008, and so does a
    socket that takes nothing for `send_timeout_s`. What is offered under a key (ticks) keeps the latest per key.
    """

    def __init__(
        self,
        transport: asyncio.Transport,
        drain: Callable[[], Awaitable[None]],
        dialect: Dialect,
        *,
        fan_out: FanOut,
        backlog_bytes: int,
        send_timeout_s: float,
    ) -> None:
        """`drain` returns when the transport's buffer is empty, and raises ConnectionError if it can't be any more."""
        self._transport = transport
        self._fan_out = fan_out
        self.number = -1
        """Of the socket; -1 where frames must not be written past the transport."""
        self._drain = drain
        self._backlog_bytes = backlog_bytes
        self._send_timeout_s = send_timeout_s
        self._loop = asyncio.get_running_loop()
        self._due: list[Burst] = []
        self._latest: dict[str, Burst] = {}
        self._queue: deque[bytes] = deque()
        self._queued_bytes = 0
        self._scheduled = self._silent = self._finishing = False
        self._behind = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dialect = dialect
        self.ended: asyncio.Future[Ending] = self._loop.create_future()
        # with a high-water mark of 0 "paused" means "the socket did not take everything", the start of the 5 seconds
        transport.set_write_buffer_limits(high=0)
        if (connected := transport.get_extra_info("socket")) is not None:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
            if transport.get_extra_info("sslcontext") is None and os.name == "posix":
                self.number = connected.fileno()

    @property
    def behind_bytes(self) -> int:
        """Bytes accepted for this client that its socket has not taken."""
        return self._queued_bytes + self._transport.get_write_buffer_size()

    def add(self, burst: Burst) -> None:
        """Send this with all else that is due now."""
        self._due.append(burst)
        self._schedule()

    def say(self, *texts: bytes) -> None:
        """Send these texts, made for this client alone."""
        self.add(self.dialect.burst(texts))

    def offer(self, key: str, burst: Burst) -> None:
        """Send this now, or when the client has caught up and nothing newer was offered under the same key."""
        self._latest[key] = burst
        self._schedule()

    def retract(self, key: str) -> None:
        """Forget what was offered under this key and has not left yet."""
        self._latest.pop(key, None)

    async def settled(self) -> None:
        """Wait until the socket has taken everything said so far, or the connection has ended."""
        self.flush()
        await self._idle.wait()

    def end(self, ending: Ending) -> None:
        """Ask the connection to end; the first reason stands."""
        if not self.ended.done():
            self.ended.set_result(ending)
            self._idle.set()

    def flush(self) -> None:
        """Write what is due, or queue it behind what the socket has not taken yet."""
        self._scheduled = False
        if self._silent:
            return
        if self._transport.is_closing():
            self.end(Ending(None))
        elif self._queue or self._transport.get_write_buffer_size():
            self._enqueue()
        else:
            self._write(self._take(latest=True))

    def take_single(self) -> Burst | None:
        """Take what is due if it is a single burst that may be written to the socket now, past the transport.

        Else None: `flush` knows what to do. Holds for this turn of the loop.
        """
        if len(self._due) != 1 or self._latest or self._queue or self._silent or self.number < 0:
            return None
        if self._transport.get_write_buffer_size() or self._transport.is_closing():
            return None
        self._scheduled = False
        return self._due.pop()

    def write_rest(self, frame: bytes, taken: int) -> None:
        """Write what the socket did not take of a frame."""
        self._write(frame[taken:])

    async def finish(self, writing: asyncio.Task[None], *, within_s: float) -> None:
        """Let `writing`, the task of `run`, write out what there is and end; cancel it if that takes too long.

        To be called once the connection is ending. What is left then (`behind_bytes`) can only be cut off. Cancelling
        at once would not do: aiohttp's drain hands the cancelled future to the next who waits, the closing handshake.
        """
        self.flush()
        self._finishing = True
        self._behind.set()
        impatience = self._loop.call_later(within_s, writing.cancel)
        try:
            await asyncio.wait([writing])
        finally:
            impatience.cancel()

    def discard(self) -> None:
        """Forget all that has not reached the transport; from now on nothing is written, only the closing handshake."""
        self._silent = True
        self.end(Ending(None))
        self._due, self._queue, self._queued_bytes = [], deque(), 0
        self._latest.clear()

    def abort(self) -> None:
        """Cut the connection, whatever is still on its way."""
        self._transport.abort()

    async def run(self) -> None:
        """Write out the queue whenever there is one, until the client is too slow or gone. May be cancelled."""
        try:
            while True:
                await self._behind.wait()
                async with asyncio.timeout(self._send_timeout_s):
                    await self._drain()
                if self._transport.is_closing():
                    self.end(Ending(None))
                    return
                self._catch_up()
                if self._finishing and not self.behind_bytes:
                    return
        except TimeoutError:
            seconds = f"{self._send_timeout_s:g} s"
            self.end(Ending(CloseCode.SLOW, f"nothing was read for {seconds}", cut=True))
        except ConnectionError:
            self.end(Ending(None))

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._fan_out.add(self)

    def _take(self, *, latest: bool) -> bytes:
        """Return one frame of all that is due, b"" if nothing is."""
        due, self._due = self._due, []
        if latest and self._latest:
            due.extend(self._latest.values())
            self._latest.clear()
        if len(due) == 1:
            return due[0].frame
        return self.dialect.frame(self.dialect.join.join([burst.text for burst in due])) if due else b""

    def _enqueue(self) -> None:
        frame = self._take(latest=False)
        if frame:
            self._queue.append(frame)
            self._queued_bytes += len(frame)
        self._fall_behind()
        if self.behind_bytes > self._backlog_bytes:
            self._queue.clear()  # the client resumes from its last offset; room for the close frame, if it reads at all
            self._queued_bytes = 0
            self.end(Ending(CloseCode.SLOW, f"more than {self._backlog_bytes} bytes behind"))

    def _write(self, frame: bytes) -> None:
        if frame:
            self._transport.write(frame)
        if self._transport.get_write_buffer_size():
            self._fall_behind()

    def _fall_behind(self) -> None:
        self._behind.set()
        if not self.ended.done():
            self._idle.clear()

    def _catch_up(self) -> None:
        """Write the queue as it is; what was offered meanwhile goes out when there is no queue left."""
        frames = b"".join(self._queue)
        self._queue.clear()
        self._queued_bytes = 0
        self._write(frames)
        if not self._transport.get_write_buffer_size():
            self._write(self._take(latest=True))
        if not self._transport.get_write_buffer_size():
            self._behind.clear()
            self._idle.set()
