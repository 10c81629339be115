"""The load generator of `callback_to_client`: a process of its own that plays the terminal and 100 WebSocket clients.

It is lean on purpose, so that what is measured is the daemon: all payloads are made and pickled before the first is
sent, a client keeps the bytes it got with the time they came, and nothing is parsed before the end.
"""

from __future__ import annotations

import asyncio
import base64
import gc
import os
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Final

import orjson

from feeds.sessions import unix_ms
from feeds.simulated import Market
from feeds.tick import TickBatch
from tests.vendor_payload import vendor_payload

DATE: Final = 20250102
OPENING_MS: Final = (9 * 60 + 52) * 60_000
INTERVAL_S: Final = 3.0
_LEN_16, _LEN_64 = 126, 127


def play(pipe: Connection, *, symbols: int, snapshots: int, clients: int) -> None:
    """Send one payload every 3 s, the clients being connected to the address that comes; then None.

    Ends by sending the list of (record, received_ns) of every alert of every client.
    """
    payloads = pickled_payloads(symbols, snapshots)
    address: str = pipe.recv()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection here would be measured as the daemon's
    pipe.send(asyncio.run(_run(pipe, payloads, address, clients)))


def pickled_payloads(symbols: int, snapshots: int) -> list[bytes]:
    """Return the first snapshots after OPENING_MS, each as `pipe.send` would send it; 1.6 MB for 5,500 symbols.

    Made as they are due, they would take the time in which the clients must listen: 60 ms each.
    """
    market = Market(seed=5, symbols=symbols, date=DATE, interval_ms=round(INTERVAL_S * 1000))
    while (moment := market.next(whole=True)) is not None:
        if isinstance(moment, TickBatch) and int(moment.ts_event_ms.max()) >= unix_ms(DATE, OPENING_MS):
            break
    payloads = []
    for _ in range(snapshots):
        batch = market.next(whole=True)
        assert isinstance(batch, TickBatch)
        payloads.append(bytes(ForkingPickler.dumps(vendor_payload(batch))))
    return payloads


async def _run(pipe: Connection, payloads: Sequence[bytes], address: str, clients: int) -> list[tuple[bytes, int]]:
    host, port = address.removeprefix("http://").split(":")
    loop = asyncio.get_running_loop()
    ears = []
    for _ in range(clients):
        _, ear = await loop.create_connection(Ear, host, int(port))
        await ear.subscribed
        ears.append(ear)
    due = loop.time()
    for payload in payloads:
        due += INTERVAL_S
        await asyncio.sleep(due - loop.time())
        await asyncio.to_thread(pipe.send_bytes, payload)
    await asyncio.sleep(INTERVAL_S)
    pipe.send(None)
    return [heard for ear in ears for heard in ear.alerts()]


class Ear(asyncio.BufferedProtocol):
    """A WebSocket client that subscribes to `alerts` and keeps what comes with its time.

    One buffer serves all ears: the loop fills it and hands it over within one call, and a new one for each read of the
    size the loop asks for would cost the instrument more than the reading.
    """

    _buffer = memoryview(bytearray(1 << 20))

    def __init__(self) -> None:
        self.subscribed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pieces: list[tuple[int, bytes]] = []
        self._greeted = False

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def connection_made(self, transport: Any) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        transport.write(
            f"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )

    def buffer_updated(self, nbytes: int) -> None:
        now_ns = time.time_ns()
        piece = bytes(self._buffer[:nbytes])
        if not self._greeted:
            head, _, piece = piece.partition(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 101"):
                self.subscribed.set_exception(ConnectionError(head.decode(errors="replace")))
                return
            self._greeted = True
        if piece:
            self._pieces.append((now_ns, piece))
        if not self.subscribed.done():
            self.subscribed.set_result(None)

    def alerts(self) -> list[tuple[bytes, int]]:
        """Return each alert message with the time its frame was complete (Unix ns)."""
        rest, heard = b"", []
        for now_ns, piece in self._pieces:
            rest += piece
            while (frame := _first_frame(rest)) is not None:
                text, rest = frame
                heard += [(line, now_ns) for line in text.split(b"\n") if line.startswith(b'{"ch":"alerts"')]
        return heard


def _first_frame(data: bytes) -> tuple[bytes, bytes] | None:
    """Return (payload, what follows) of the first unmasked frame, None while it is not complete."""
    if len(data) < 2:
        return None
    length, start = data[1] & 127, 2
    if length >= _LEN_16:
        wide = 2 if length == _LEN_16 else 8
        start += wide
        if len(data) < start:
            return None
        length = int.from_bytes(data[2:start], "big")
    return None if len(data) < start + length else (data[start : start + length], data[start + length :])


def latency_ms(line: bytes, received_ns: int, called_ns: Mapping[int, int]) -> float:
    """Return the time from the vendor's callback to the client; called_ns: recv_ms → when the callback came."""
    return (received_ns - called_ns[orjson.loads(line)["data"]["stamps"]["recv_ms"]]) / 1e6
