"""The load generator of `callback_to_client`: a process of its own that plays the terminal and 100 WebSocket clients.

It is lean on purpose, so that what is measured is the daemon: all payloads are made and pickled before the first is
sent, a client keeps the bytes it got with the time they came, in memory that is there already, and nothing is parsed
before the burst is long over.
"""

from __future__ import annotations

import base64
import gc
import os
import select
import socket
import time
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
BUFFER_BYTES: Final = 1 << 20
"""What one client gets in an interval, and more: 70 kB."""
RECEIVE_BYTES: Final = 1 << 20
"""What a client's kernel takes in: by itself it grows to it, and the first burst finds it too small."""
_LEN_16: Final = 126
PING: Final = 0x89
PONG: Final = b"\x8a\x80\x00\x00\x00\x00"
"""Masked, as a client's frames must be, with a mask of zeros."""


def play(pipe: Connection, *, symbols: int, snapshots: int, clients: int, pushes: int = 1) -> None:
    """Send a snapshot every 3 s, the clients being connected to the address that comes; then None.

    pushes: in so many payloads, at equal intervals, each with its share of the symbols. Ends by sending what each
    client heard: of every alert when its tick came (recv_ms), and when the alert did (Unix ns).
    """
    payloads = pickled_payloads(symbols, snapshots, pushes=pushes)
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

    def listen(until: float) -> None:
        while (left := until - time.monotonic()) > 0:
            for number, _ in listening.poll(left):
                by_number[number].hear()

    due, interval_s = time.monotonic(), INTERVAL_S / pushes
    for number, payload in enumerate((*payloads, None)):
        due += interval_s
        listen(due - interval_s / 3)  # by then the burst is over
        for ear in ears[number % pushes :: pushes]:
            ear.tidy()
        listen(due)
        if payload is not None:
            pipe.send_bytes(payload)  # nobody has anything to say meanwhile: the callback comes when it is all there
    for ear in ears:
        ear.tidy()
    pipe.send(None)
    pipe.send([heard for ear in ears for heard in ear.alerts])


def pickled_payloads(symbols: int, snapshots: int, *, pushes: int = 1) -> list[bytes]:
    """Return the first snapshots after OPENING_MS, each push as `pipe.send` would send it; 1.6 MB for 5,500 symbols.

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
        ticks = list(vendor_payload(batch).items())
        payloads += [bytes(ForkingPickler.dumps(dict(ticks[share::pushes]))) for share in range(pushes)]
    return payloads


class Ear:
    """A WebSocket client that subscribes to `alerts` and notes when each came.

    A plain socket and a buffer: what a client's library does with a frame is not the daemon's.
    """

    def __init__(self, host: str, port: int) -> None:
        """Connect and shake hands; raises ConnectionError where the server does not."""
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        self.socket.connect((host, port))
        self.alerts: list[tuple[int, int]] = []
        """Of each alert the recv_ms of its tick, and when its frame was complete (Unix ns); see `tidy`."""
        self._kept = memoryview(bytearray(b"\xff" * BUFFER_BYTES))  # written to, else the first burst would find it
        self._end = 0
        self._times: list[tuple[int, int]] = []
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in (head := bytes(self._kept[: self._end])):
            self.hear()
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(head.decode(errors="replace"))
        self._forget(head.index(b"\r\n\r\n") + 4)

    def hear(self) -> None:
        """Take what has come and note when.

        Raises ConnectionError when the daemon has let the client go: what it misses then would not count as late.
        """
        taken = self.socket.recv_into(self._kept[self._end :])
        if not taken:
            raise ConnectionError("the daemon closed a client's connection")
        self._end += taken
        self._times.append((time.time_ns(), self._end))

    def tidy(self) -> None:
        """Note the alerts that are complete and answer pings, which may wait 10 s; then forget what came."""
        at = 0
        for now_ns, end in self._times:
            while (frame := first_frame(self._kept[at:end])) is not None:
                payload, size = frame
                if self._kept[at] == PING:
                    self.socket.sendall(PONG)
                at += size
                lines = bytes(payload).split(b"\n")
                self.alerts += [(recv_ms_of(line), now_ns) for line in lines if line.startswith(b'{"ch":"alerts"')]
        self._forget(at)

    def _forget(self, size: int) -> None:
        """Drop so many bytes; what is left of an incomplete frame is as old as its newest byte."""
        rest = bytes(self._kept[size : self._end])
        self._kept[: len(rest)] = rest
        self._times = [(self._times[-1][0], len(rest))] if rest else []
        self._end = len(rest)


def recv_ms_of(line: bytes) -> int:
    """Return when the tick behind an alert message came."""
    recv_ms: int = orjson.loads(line)["data"]["stamps"]["recv_ms"]
    return recv_ms


def first_frame(came: memoryview) -> tuple[memoryview, int] | None:
    """Return the payload of the first unmasked frame and the size of the whole frame, None while it is not complete."""
    if len(came) < 2:
        return None
    length, start = came[1] & 127, 2
    if length >= _LEN_16:
        start += 2 if length == _LEN_16 else 8
        if len(came) < start:
            return None
        length = int.from_bytes(came[2:start], "big")
    return None if len(came) < start + length else (came[start : start + length], start + length)
