"""Can anybody read the gateway, and is its port free?"""

from __future__ import annotations

import errno
import socket
from typing import Final

from monitord.checks import Examined, Finding, Verdict, in_thread

DEADLINE_S: Final = 5.0


async def check(examined: Examined) -> Finding:
    """Bind the address for a moment, and look who is let in."""
    gateway = examined.settings.gateway
    address = f"{gateway.host}:{gateway.port}"
    error = await in_thread(lambda: _bind(gateway.host, gateway.port))
    if error is not None and error.errno == errno.EADDRINUSE:
        todo = "nothing, if it is this daemon that runs; else set another gateway.port"
        return Finding(Verdict.WARN, f"somebody listens on {address} already", todo)
    if error is not None:
        return Finding(
            Verdict.FAIL, f"cannot listen on {address}: {error.strerror or error}", "set another gateway.host"
        )
    if not gateway.tokens and not gateway.allow_loopback_without_token:
        todo = "name a token under [[gateway.tokens]], or set gateway.allow_loopback_without_token=true"
        return Finding(Verdict.WARN, f"{address} is free, and nobody would be let in", todo)
    return Finding(Verdict.OK, f"{address} is free, {len(gateway.tokens)} tokens")


def _bind(host: str, port: int) -> OSError | None:
    try:
        with socket.create_server((host, port)):
            return None
    except OSError as error:
        return error
