"""What the gateway can be told: `GatewayOptions`, and the error of a gateway that cannot start."""

from __future__ import annotations

from dataclasses import dataclass

from monitord.errors import DaemonError
from monitord.gateway.auth import Token


class GatewayError(DaemonError):
    """The gateway cannot start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Where to listen, whom to let in, and every limit. The defaults are the documented ones.

    port 0 takes a free one (see `Gateway.address`). Origins are written as a browser sends them: "https://desk.example".
    """

    host: str = "127.0.0.1"
    port: int = 8710
    tokens: tuple[Token, ...] = ()
    allow_loopback_without_token: bool = False
    allowed_origins: tuple[str, ...] = ()
    auth_timeout_s: float = 5.0
    """A connection that has not authenticated by then is closed with 4001."""
    heartbeat_s: float = 5.0
    ping_s: float = 20.0
    """WebSocket pings; half of it without a pong ends the connection."""
    send_timeout_s: float = 5.0
    """A client whose socket takes nothing for this long is aborted (4008)."""
    backlog_bytes: int = 1 << 20
    """A client that is further behind than this is closed (4008)."""
    close_timeout_s: float = 2.0
    """How long a closing handshake may take before the connection is cut."""
    max_message_bytes: int = 65536
    messages_per_s: int = 10
    ring_size: int = 10_000
    """Alerts kept in memory for clients that come back."""
    max_clients: int = 2000
    max_channels: int = 256
    """Channels of one connection."""
    ticket_s: float = 30.0
