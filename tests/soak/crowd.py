"""Who is told in a soak: WebSocket clients in the loop of the process that runs the soak."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from typing import Final

from tests.bench.load import PING, PONG, first_frame
from tests.faults.histories import Began, Heard, Step

_CLOSE: Final = 0x88
_ALERT: Final = re.compile(rb'\{"ch":"alerts","epoch":"([^"]*)","off":(\d+),"data":\{(?:"v":\d+,)?"id":"([^"]+)"')
_PLACE: Final = re.compile(rb'"ok":true,"result":\[\{"ch":"alerts","epoch":"([^"]*)","off":(\d+)')


class Follower(asyncio.Protocol):
    """One client on `alerts`, which judges nothing.

    steps: its history, for the checker. faults: what no history can say, in words.
    """

    def __init__(self, known: dict[bytes, Heard] | None = None) -> None:
        """known: steps of all clients. A market day is 10 million of them: each is kept once, not once a client."""
        self._known = {} if known is None else known
        self.steps: list[Step] = []
        self.faults: list[str] = []
        self.subscribed = asyncio.get_running_loop().create_future()
        self.closed = False
        self._came = b""
        self._shaken = False
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        self._came += data
        if not self._shaken:
            end = self._came.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self._came.startswith(b"HTTP/1.1 101"):
                self.faults.append(f"no handshake: {self._came[:200]!r}")
            self._came = self._came[end + 4 :]
            self._shaken = True
        came, at = memoryview(self._came), 0
        while (frame := first_frame(came[at:])) is not None:
            payload, size = frame
            self._take(came[at], bytes(payload))
            at += size
        self._came = self._came[at:]

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.faults.append(f"cut behind {self.steps[-1:]}: {exc}")
        if not self.subscribed.done():
            self.subscribed.set_exception(ConnectionError(str(self.faults)))

    def _take(self, kind: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == PING:
            self._transport.write(PONG)
        elif kind == _CLOSE:
            self.closed = True
            if payload[:2] != (1001).to_bytes(2, "big"):
                self.faults.append(f"closed with {payload!r}")
            self._transport.close()
        else:
            for line in payload.split(b"\n"):
                self._read(line)

    def _read(self, line: bytes) -> None:
        if (alert := _ALERT.match(line)) is not None:
            step = self._known.get(alert[0])
            if step is None:
                step = self._known[alert[0]] = Heard(alert[1].decode(), int(alert[2]), alert[3].decode())
            self.steps.append(step)
        elif (place := _PLACE.search(line)) is not None:
            self.steps.append(Began(place[1].decode(), int(place[2]), recovered=None))
            self.subscribed.set_result(None)
        elif line.startswith(b'{"id":null,"ok":false'):
            self.subscribed.set_exception(ConnectionError(line.decode()))
        elif line.startswith(b'{"ch":"alerts"'):
            self.faults.append(f"not understood: {line[:200]!r}")


async def follow(address: str, clients: int) -> list[Follower]:
    """Connect so many clients and wait until each has its place."""
    host, port = address.removeprefix("http://").split(":")
    loop, known = asyncio.get_running_loop(), dict[bytes, Heard]()
    followers = [
        (await loop.create_connection(lambda: Follower(known), host, int(port)))[1] for _ in range(clients)
    ]  # fmt: skip
    await asyncio.gather(*(follower.subscribed for follower in followers))
    return followers
