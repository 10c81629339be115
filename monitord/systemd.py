"""Tell systemd how we are (`Type=notify`), without a library: one datagram on the socket it names."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from typing import Final

WATCHDOG_S: Final = 4.0
"""How often systemd's watchdog hears from us: well within the units' WatchdogSec."""


def notify(state: str) -> bool:
    """Send a state such as READY=1; return False where systemd does not listen, which is no error."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):  # the abstract namespace is written with an @ and begins with a NUL
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.sendto(state.encode(), address)
    return True


async def tell_alive(stopping: asyncio.Event) -> None:
    """Tell the watchdog for as long as the loop runs, until we stop."""
    while not stopping.is_set():
        notify("WATCHDOG=1")
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCHDOG_S):
                await stopping.wait()
    notify("STOPPING=1")
