"""A TCP proxy of our own between a program and a server, with the faults of networks: cut, reset, deaf, slow."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

CHUNK_BYTES = 65_536


class Proxy:
    """Carries bytes both ways until it is told otherwise. Event loop only.

    latency_s: how much later each chunk comes out. half_open: nothing is carried and nothing is closed, and the system
    goes on acknowledging, as behind a firewall that has forgotten the connection. reset_after_bytes: of the next answer
    so much comes through, then both ends see a reset; it counts down to None.
    """

    def __init__(self) -> None:
        self.port = 0
        self.latency_s = 0.0
        self.reset_after_bytes: int | None = None
        self.refusing = False
        self.counts = {"connections": 0, "cut": 0, "resets": 0, "swallowed": 0}
        self._carrying = asyncio.Event()
        self._carrying.set()
        self._links: set[_Link] = set()
        self._target: tuple[str, int] = ("", 0)

    @property
    def half_open(self) -> bool:
        return not self._carrying.is_set()

    @half_open.setter
    def half_open(self, on: bool) -> None:
        """Connections that were deaf stay so: what they swallowed is gone, so they end with the fault."""
        if on:
            self._carrying.clear()
            return
        deaf = [link for link in self._links if link.has_swallowed]
        self._carrying.set()
        for link in deaf:
            link.end(reset=True)

    def cut(self, *, reset: bool = False) -> int:
        """End every connection, by FIN or RST; return how many there were."""
        links = list(self._links)
        for link in links:
            link.end(reset=reset)
        self.counts["cut"] += len(links)
        return len(links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        self.counts["connections"] += 1
        try:
            there = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, writer, there[1])
        self._links.add(link)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(link.carry(reader, there[1], answers=False))
                ways.create_task(link.carry(there[0], writer, answers=True))
        finally:
            self._links.discard(link)
            link.end()


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, *ends: asyncio.StreamWriter) -> None:
        self._proxy, self._ends = proxy, ends
        self.has_swallowed = False

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        """Carry one way until either end goes."""
        proxy = self._proxy
        with suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if proxy.half_open:
                    self.has_swallowed = True
                    proxy.counts["swallowed"] += len(chunk)
                    continue
                if proxy.latency_s:
                    await asyncio.sleep(proxy.latency_s)
                if answers and proxy.reset_after_bytes is not None:
                    chunk, proxy.reset_after_bytes = chunk[: proxy.reset_after_bytes], None
                    writer.write(chunk)
                    await writer.drain()
                    proxy.counts["resets"] += 1
                    self.end(reset=True)
                    return
                writer.write(chunk)
                await writer.drain()
        self.end()

    def end(self, *, reset: bool = False) -> None:
        for writer in self._ends:
            if reset:
                raw: socket.socket | None = writer.get_extra_info("socket")
                with suppress(OSError, AttributeError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # type: ignore[union-attr]
                writer.transport.abort()
            else:
                writer.close()


@asynccontextmanager
async def proxied(host: str, port: int, *, listen_on: int = 0) -> AsyncIterator[Proxy]:
    """Run a proxy before a server; `proxy.port` is where it listens on loopback."""
    proxy = Proxy()
    proxy._target = (host, port)
    server = await asyncio.start_server(proxy._serve, "127.0.0.1", listen_on)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
