"""Many WebSocket clients in a process of their own: some read and note when, some never read.

`python -m tests.faults.crowd PORT READERS DEAF`: says `ready` when all have subscribed, and as soon as its stdin is
closed one JSON object of what they saw.
"""

from __future__ import annotations

import json
import re
import select
import socket
import sys
import time
from dataclasses import dataclass, field
from typing import Any

HANDSHAKE = (
    b"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
READ_BYTES = 1 << 18
OFFSET = re.compile(rb'"off":(\d+),"data"')
PING = b"\x89\x00"
"""No JSON text holds a zero byte, so this is what the server asks every 20 s; who does not answer is cut."""
PONG = b"\x8a\x80\x00\x00\x00\x00"
DEAF_BUFFER_BYTES = 4096


@dataclass
class Reader:
    """A client that reads: the newest offset, and when each came (ns of the monotonic clock)."""

    off: int = 0
    gaps: int = 0
    tail: bytes = b""
    heard_ns: dict[int, int] = field(default_factory=dict)
    ended: bool = False

    def read(self, chunk: bytes, now_ns: int) -> bool:
        """Take what came; return whether it asks for an answer."""
        text = self.tail + chunk
        asked = PING in self.tail[-1:] + chunk
        end = 0
        for match in OFFSET.finditer(text):
            off, end = int(match[1]), match.end()
            self.gaps += off != self.off + 1
            self.off = off
            self.heard_ns[off] = now_ns
        self.tail = text[max(end, len(text) - 64) :]
        return asked


def main(port: int, readers: int, deaf: int) -> None:
    silent = [_connect(port, buffer=DEAF_BUFFER_BYTES) for _ in range(deaf)]
    listening = {one.fileno(): (one, Reader()) for one in (_connect(port) for _ in range(readers))}
    poll = select.epoll()
    for number, (one, _) in listening.items():
        one.setblocking(False)
        poll.register(number, select.EPOLLIN)
    poll.register(0, select.EPOLLIN | select.EPOLLHUP)
    print("ready", flush=True)
    while not _read_all(poll, listening):
        pass
    print(json.dumps(_account(silent, [reader for _, reader in listening.values()])), flush=True)


def _connect(port: int, *, buffer: int | None = None) -> socket.socket:
    one = socket.socket()
    if buffer is not None:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    one.connect(("127.0.0.1", port))
    one.sendall(HANDSHAKE)
    said = b""
    while b'"ok":true' not in said:
        said += one.recv(1000)
    return one


def _read_all(poll: select.epoll, listening: dict[int, tuple[socket.socket, Reader]]) -> bool:
    """Read what there is; return whether stdin was closed."""
    for number, _ in poll.poll(1.0):
        if number == 0:
            return True
        one, reader = listening[number]
        try:
            chunk = one.recv(READ_BYTES)
        except ConnectionError:
            chunk = b""
        if chunk:
            if reader.read(chunk, time.monotonic_ns()):
                one.sendall(PONG)
        else:
            reader.ended = True
            poll.unregister(number)
    return False


def _account(silent: list[socket.socket], readers: list[Reader]) -> dict[str, Any]:
    return {
        "offs": [reader.off for reader in readers],
        "gaps": sum(reader.gaps for reader in readers),
        "ended": sum(reader.ended for reader in readers),
        "heard_ns": [reader.heard_ns for reader in readers],
        "deaf_cut": sum(_was_cut(one) for one in silent),
    }


def _was_cut(one: socket.socket) -> bool:
    """Tell whether the other side has ended a connection: behind what lies in the buffer comes the end."""
    one.settimeout(1.0)
    try:
        while one.recv(READ_BYTES):
            pass
    except TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
