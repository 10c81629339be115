"""The load generator of `callback_to_client`: a process of its own that plays the terminal and 100 WebSocket clients.

It is lean on purpose, so that what is measured is the daemon: all payloads are made and pickled before the first is
sent, a client keeps the bytes it got with the time they came, and nothing is parsed before the end.
"""

from __future__ import annotations

import base64
import gc
import os
import select
import socket
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Final

import orjson

from feeds.sessions import unix_ms
from feeds.simulated import Market
from feeds.tick import TickBatch
from tests.vendor_payload import vendor_payload

DATE: Final = 20250102
OPENING_MS: Final = (9 * 60 + 52) * 60_000
INTERVAL_S: Final = 3.0
BUFFER_BYTES: Final = 16 << 20
"""What one client gets, and more: 4 MB in three minutes. Memory is taken as it fills."""
_LEN_16: Final = 126
PING: Final = 0x89
PONG: Final = b"\x8a\x80\x00\x00\x00\x00"
"""Masked, as a client's frames must be, with a mask of zeros."""


def play(pipe: Connection, *, symbols: int, snapshots: int, clients: int) -> None:
    """Send one payload every 3 s, the clients being connected to the address that comes; then None.

    Ends by sending the list of (record, received_ns) of every alert of every client.
    """
    payloads = pickled_payloads(symbols, snapshots)
    address: str = pipe.recv()
    gc.collect()
    gc.freeze()
    gc.disable()  # a collection here would be measured as the daemon's
    host, port = address.removeprefix("http://").split(":")
    ears = [Ear(host, int(port)) for _ in range(clients)]
    listening = select.epoll()
    by_number = {ear.socket.fileno(): ear for ear in ears}
    for number in by_number:
        listening.register(number, select.EPOLLIN)
    due = time.monotonic()
    for payload in (*payloads, None):
        due += INTERVAL_S
        while (left := due - time.monotonic()) > 0:
            for number, _ in listening.poll(left):
                by_number[number].hear()
        if payload is not None:
            pipe.send_bytes(payload)  # nobody has anything to say meanwhile: the callback comes when it is all there
    pipe.send(None)
    pipe.send([heard for ear in ears for heard in ear.alerts()])


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


class Ear:
    """A WebSocket client that subscribes to `alerts` and keeps what comes with its time.

    A plain socket and one buffer for all that will come: what a client's library does with a frame is not the daemon's.
    """

    def __init__(self, host: str, port: int) -> None:
        """Connect and shake hands; raises ConnectionError where the server does not."""
        self.socket = socket.create_connection((host, port))
        self._kept = memoryview(bytearray(BUFFER_BYTES))
        self._end = self._heard = self._frames_from = 0
        self._times: list[tuple[int, int]] = []
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in (head := self.hear()):
            pass
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode(errors="replace"))
        self._frames_from = self._heard = head.index(b"\r\n\r\n") + 4
        self._answer()

    def hear(self) -> bytes:
        """Take what has come and note when, answer pings; return the first bytes of all, as long as they are few.

        Raises ConnectionError when the daemon has let the client go: what it misses then would not count as late.
        """
        taken = self.socket.recv_into(self._kept[self._end :])
        self._times.append((time.time_ns(), self._end + taken))
        if not taken:
            raise ConnectionError("the daemon closed a client's connection")
        self._end += taken
        self._answer()
        return bytes(self._kept[: min(self._end, 1024)]) if len(self._times) < 4 else b""

    def _answer(self) -> None:
        """Answer the pings among the frames that are complete; who does not is gone after 30 s."""
        while self._frames_from and (frame := _first_frame(self._kept[self._heard : self._end])) is not None:
            if self._kept[self._heard] == PING:
                self.socket.sendall(PONG)
            self._heard += frame[1]

    def alerts(self) -> list[tuple[bytes, int]]:
        """Return each alert message with the time its frame was complete (Unix ns)."""
        heard, at = [], self._frames_from
        for now_ns, end in self._times:
            while (frame := _first_frame(self._kept[at:end])) is not None:
                payload, size = frame
                at += size
                text = bytes(payload)
                heard += [(line, now_ns) for line in text.split(b"\n") if line.startswith(b'{"ch":"alerts"')]
        return heard


def _first_frame(came: memoryview) -> tuple[memoryview, int] | None:
    """Return the payload and the size of the first unmasked frame, None while it is not complete."""
    if len(came) < 2:
        return None
    length, start = came[1] & 127, 2
    if length >= _LEN_16:
        start += 2 if length == _LEN_16 else 8
        if len(came) < start:
            return None
        length = int.from_bytes(came[2:start], "big")
    return None if len(came) < start + length else (came[start : start + length], start + length)


def latency_ms(line: bytes, received_ns: int, called_ns: Mapping[int, int]) -> float:
    """Return the time from the vendor's callback to the client; called_ns: recv_ms → when the callback came."""
    return (received_ns - called_ns[orjson.loads(line)["data"]["stamps"]["recv_ms"]]) / 1e6
