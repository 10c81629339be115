"""Who is told in a soak: WebSocket clients and webhooks, in the loop of the process that runs the soak."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from aiohttp import web

_PING, _CLOSE = 0x89, 0x88
_PONG: Final = b"\x8a\x80\x00\x00\x00\x00"
"""Masked, as a client's frames must be, with a mask of zeros."""
_LEN_16: Final = 126
_ALERT: Final = re.compile(rb'\{"ch":"alerts","epoch":"[^"]*","off":(\d+),"data":\{(?:"v":\d+,)?"id":"([^"]+)"')
_PLACE: Final = re.compile(rb'"ok":true,"result":\[\{"ch":"alerts","epoch":"[^"]*","off":(\d+)')


class Follower(asyncio.Protocol):
    """One client on `alerts`. It keeps no alert: a checksum over the ids says whether it had each one, in order.

    first, last: offsets behind which and up to which it was told; faults: what should not be, in words.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self.last = 0
        self.alerts = 0
        self.checksum = 0
        self.faults: list[str] = []
        self.subscribed = asyncio.get_running_loop().create_future()
        self.closed = False
        self._came = bytearray()
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
                self.faults.append(f"no handshake: {bytes(self._came[:200])!r}")
            del self._came[: end + 4]
            self._shaken = True
        while (frame := first_frame(self._came)) is not None:
            kind, payload = frame
            self._take(kind, payload)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed:
            self.faults.append(f"cut behind {self.last}: {exc}")
        if not self.subscribed.done():
            self.subscribed.set_exception(ConnectionError(str(self.faults)))

    def _take(self, kind: int, payload: bytes) -> None:
        assert self._transport is not None
        if kind == _PING:
            self._transport.write(_PONG)
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
            off = int(alert[1])
            if off != self.last + 1:
                self.faults.append(f"offset {off} behind {self.last}")
            self.last, self.alerts = off, self.alerts + 1
            self.checksum = zlib.crc32(alert[2], self.checksum)
        elif (place := _PLACE.search(line)) is not None:
            self.first = self.last = int(place[1])
            self.subscribed.set_result(None)
        elif line.startswith(b'{"id":null,"ok":false'):
            self.subscribed.set_exception(ConnectionError(line.decode()))
        elif line.startswith(b'{"ch":"alerts"'):
            self.faults.append(f"not understood: {line[:200]!r}")


def first_frame(came: bytearray) -> tuple[int, bytes] | None:
    """Take the first unmasked frame out of what came: its first byte and its payload; None while it is not whole."""
    if len(came) < 2:
        return None
    length, start = came[1] & 127, 2
    if length >= _LEN_16:
        start += 2 if length == _LEN_16 else 8
        if len(came) < start:
            return None
        length = int.from_bytes(came[2:start], "big")
    if len(came) < start + length:
        return None
    kind, payload = came[0], bytes(came[start : start + length])
    del came[: start + length]
    return kind, payload


async def follow(address: str, clients: int) -> list[Follower]:
    """Connect so many clients and wait until each has its place."""
    host, port = address.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    followers = [(await loop.create_connection(Follower, host, int(port)))[1] for _ in range(clients)]
    await asyncio.gather(*(follower.subscribed for follower in followers))
    return followers


@asynccontextmanager
async def hooks(count: int) -> AsyncIterator[tuple[list[str], list[Counter[str]]]]:
    """Serve so many webhooks, a server each; yield their addresses and the ids that each was posted."""
    posted: list[Counter[str]] = [Counter() for _ in range(count)]
    runners: list[web.AppRunner] = []
    try:
        for ids in posted:
            application = web.Application()
            application.router.add_post("/hook", _taking(ids))
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            runners.append(runner)
            await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield [f"http://127.0.0.1:{runner.addresses[0][1]}/hook" for runner in runners], posted
    finally:
        for runner in runners:
            await runner.cleanup()


def _taking(ids: Counter[str]) -> web.RequestHandler:
    async def take(request: web.Request) -> web.Response:
        await request.read()
        ids[request.headers["webhook-id"]] += 1
        return web.Response(status=204)

    return take  # type: ignore[return-value]
