"""A burst of 50 alerts to 1,000 WebSocket clients: the gateway's hub beside a loop of aiohttp's `send_str` and
`websockets.broadcast`.

Each way has 1,000 connections of its own from one other process, which reads and forgets. Timed is the sender: from the
burst at hand until every byte of it is with the kernel.
"""

from __future__ import annotations

import asyncio
import base64
import multiprocessing
import os
import select
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from multiprocessing.connection import Connection
from typing import Final

from aiohttp import web
from websockets.asyncio.server import broadcast, serve

from monitord.gateway.hub import Hub
from notifiers.alertstream import Outgoing
from tests.bench.report import Line, Report, times_faster
from tests.bench.timing import summary
from tests.monitord.gateway.stand import EPOCH, record, standing, until

CLIENTS, BURST, REPEATS = 1000, 50, 15
OURS, LOOP, BROADCAST = "gateway", "aiohttp send_str loop", "websockets.broadcast"
READ_BYTES: Final = 1 << 18

Send = Callable[[], Awaitable[None]]


def run(*, quick: bool = False) -> Report:
    """Race the three ways in turns."""
    clients, repeats = (50, 3) if quick else (CLIENTS, REPEATS)
    took = asyncio.run(_race(clients, repeats))
    timings = {name: summary(name, seconds) for name, seconds in took.items()}
    lines = [
        Line(f"vs {peer}", times_faster(timings[peer], timings[OURS]), least=None if quick else least)
        for peer, least in ((LOOP, 20.0), (BROADCAST, 30.0))
    ]
    size = len(_burst(1)[0][1].json)
    return Report("fan_out", lines, timings, [f"{BURST} alerts of {size} bytes to {clients} clients"])


async def _race(clients: int, repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each burst, by way."""
    async with AsyncExitStack() as stack:
        ways = {
            OURS: await stack.enter_async_context(_gateway(clients)),
            LOOP: await stack.enter_async_context(_send_str(clients)),
            BROADCAST: await stack.enter_async_context(_broadcast(clients)),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for repeat in range(repeats + 1):
            for name, send in ways.items():
                started = time.perf_counter()
                await send()
                if repeat:  # the first is for warming up
                    took[name].append(time.perf_counter() - started)
                await asyncio.sleep(0.1)  # the readers' time is not the next one's
        return took


@asynccontextmanager
async def _gateway(clients: int) -> AsyncIterator[Send]:
    """Yield how the gateway sends the next burst, as the pump tells it."""
    async with standing(max_clients=clients + 1, ping_s=3600.0) as stand:
        hub, off = stand.gateway.hub, 0
        async with _crowd(stand.port, clients, path="/v1/ws?ch=alerts"):
            await until(lambda: sum(bool(follower.live) for follower in hub.followers) == clients, within_s=30)

            async def send() -> None:
                nonlocal off
                hub.hear(EPOCH, _burst(off + 1))
                off += BURST
                await asyncio.sleep(0)
                await _all_written(_behind(hub))

            yield send


@asynccontextmanager
async def _send_str(clients: int) -> AsyncIterator[Send]:
    """Yield how a loop over aiohttp's connections sends a burst."""
    sockets: list[web.WebSocketResponse] = []
    transports: list[asyncio.WriteTransport] = []
    stopping = asyncio.Event()

    async def handle(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(compress=False)
        await ws.prepare(request)
        sockets.append(ws)
        assert request.transport is not None
        transports.append(request.transport)
        await stopping.wait()
        return ws

    app = web.Application()
    app.router.add_get("/", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def send() -> None:
        for text in _messages():
            for ws in sockets:
                await ws.send_str(text)
        await _all_written(lambda: sum(transport.get_write_buffer_size() for transport in transports))

    try:
        async with _crowd(runner.addresses[0][1], clients):
            await until(lambda: len(sockets) == clients, within_s=30)
            yield send
    finally:
        stopping.set()
        await runner.cleanup()


@asynccontextmanager
async def _broadcast(clients: int) -> AsyncIterator[Send]:
    """Yield how `websockets.broadcast` sends a burst."""
    async with serve(lambda ws: ws.wait_closed(), "127.0.0.1", 0, compression=None, ping_interval=None) as server:

        async def send() -> None:
            for text in _messages():
                broadcast(server.connections, text)
            await _all_written(lambda: sum(ws.transport.get_write_buffer_size() for ws in server.connections))

        async with _crowd(server.sockets[0].getsockname()[1], clients):
            await until(lambda: len(server.connections) == clients, within_s=30)
            yield send


async def _all_written(left: Callable[[], int]) -> None:
    while left():  # noqa: ASYNC110  # transports tell nobody when they are empty
        await asyncio.sleep(0)


def _behind(hub: Hub) -> Callable[[], int]:
    return lambda: sum(follower.outlet.behind_bytes for follower in hub.followers)


def _burst(first: int) -> Sequence[tuple[int, Outgoing]]:
    """Return what the pump tells of the next alerts."""
    return [
        (off, Outgoing(f"al_{off}", record(off), "600519.SH", "brk", "info")) for off in range(first, first + BURST)
    ]


def _messages() -> list[str]:
    """Return the same alerts as messages, one each; made here, as ours are."""
    return [f'{{"ch":"alerts","epoch":"{EPOCH}","off":{off},"data":{alert.json.decode()}}}' for off, alert in _burst(1)]


@asynccontextmanager
async def _crowd(port: int, clients: int, *, path: str = "/") -> AsyncIterator[None]:
    """Run a process of so many clients, connected when this is entered."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_listen, args=(theirs, port, clients, path))
    process.start()
    try:
        await asyncio.to_thread(ours.recv)
        yield
    finally:
        ours.send(None)
        await asyncio.to_thread(process.join)


def _listen(pipe: Connection, port: int, clients: int, path: str) -> None:
    """Connect, shake hands, say so, then read and forget until told to stop."""
    listening = select.epoll()
    sockets = [_connect(port, path) for _ in range(clients)]
    by_number = {one.fileno(): one for one in sockets}
    for number in by_number:
        listening.register(number, select.EPOLLIN)
    listening.register(pipe.fileno(), select.EPOLLIN)
    pipe.send(None)
    forgotten = bytearray(READ_BYTES)
    while True:
        for number, _ in listening.poll():
            if number == pipe.fileno():
                return
            if not by_number[number].recv_into(forgotten):
                listening.unregister(number)


def _connect(port: int, path: str) -> socket.socket:
    one = socket.create_connection(("127.0.0.1", port))
    key = base64.b64encode(os.urandom(16)).decode()
    one.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    head = b""
    while b"\r\n\r\n" not in head:
        head += one.recv(4096)
    if not head.startswith(b"HTTP/1.1 101"):
        raise ConnectionError(head.decode(errors="replace"))
    return one
