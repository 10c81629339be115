"""`FanOut`: what is due to many leaves in one go. Compiled where there is a compiler."""

from __future__ import annotations

import asyncio
import os
from array import array
from typing import Final, Protocol

import structlog

from feeds.compiled import compiled
from monitord.gateway.protocol import Burst

COMPILED: Final = compiled("monitord.gateway._fanout", layout=1)

log = structlog.get_logger(__name__)


class Due(Protocol):
    """A connection that has something to send (`Outlet`)."""

    number: int
    """Of its socket."""

    def take_single(self) -> Burst | None:
        """Take what is due if that is a single burst, and the socket may be written to now, past the transport."""

    def write_rest(self, frame: bytes, taken: int) -> None:
        """Write what the socket did not take of a frame."""

    def flush(self) -> None:
        """Write what is due, or queue it."""

    def abort(self) -> None:
        """Cut the connection."""


class FanOut:
    """Sends for all connections of a gateway, once in a turn of the loop. Event loop only.

    Most of what telling a crowd costs is each connection's own way through asyncio, 10 µs, while the kernel takes 50 kB
    in 15. So whoever is due the very same bytes as others is written to beside them, in one call; that call leaves the
    interpreter to other threads.
    """

    def __init__(self) -> None:
        self._due: list[Due] = []

    def add(self, outlet: Due) -> None:
        """Let this one send what it has at the end of this turn."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self.flush)
        self._due.append(outlet)

    def flush(self) -> None:
        """Send what is due to everyone."""
        due, self._due = self._due, []
        crowds: dict[int, tuple[bytes, list[Due], array[int]]] = {}
        for outlet in due:
            try:
                burst = outlet.take_single()
                if burst is None:
                    outlet.flush()
                    continue
                frame = burst.frame
                _, crowd, numbers = crowds.setdefault(id(frame), (frame, [], array("i")))
                crowd.append(outlet)
                numbers.append(outlet.number)
            except Exception:  # cut off, he resumes from his last offset, and the others do not suffer
                log.exception("gateway_send_failed", clients=1)
                outlet.abort()
        for frame, crowd, numbers in crowds.values():
            try:
                takings = send_to_all(numbers, frame)
            except Exception:  # how much anyone took, nobody knows
                log.exception("gateway_send_failed", clients=len(crowd))
                for outlet in crowd:
                    outlet.abort()
                continue
            for outlet, taken in zip(crowd, takings, strict=True):
                if taken < len(frame):
                    try:
                        outlet.write_rest(frame, taken)
                    except Exception:
                        log.exception("gateway_send_failed", clients=1)
                        outlet.abort()


def send_to_all(numbers: array[int], frame: bytes) -> list[int]:
    """Write the frame to each of these sockets ("i") as far as it takes it without waiting; return how many bytes.

    0 also where a socket is broken: whoever writes the rest will find out.
    """
    if COMPILED is not None:
        taken: list[int] = COMPILED.send_to_all(numbers, frame)
        return taken
    return [_send(number, frame) for number in numbers]


def _send(number: int, frame: bytes) -> int:
    try:
        return os.write(number, frame)  # asyncio's sockets do not wait
    except OSError:  # BlockingIOError among them
        return 0
