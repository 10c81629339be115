"""Who may connect and see what: bearer tokens, single-use tickets, Origin, loopback.

A token is known here by its SHA-256 alone; what a client presents is hashed and compared in constant time, and neither
is ever part of a log line, an error or a repr.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

LOOPBACK_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
FORWARDING: Final = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
MAX_TICKETS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What somebody may see. channels: glob patterns over channel and resource names, such as ``alerts:sym:6*``."""

    name: str
    channels: tuple[str, ...] = ("*",)
    expires_ms: int | None = None

    def allows(self, channel: str) -> bool:
        return any(fnmatchcase(channel, pattern) for pattern in self.channels)

    def expired(self, now_ms: float) -> bool:
        return self.expires_ms is not None and now_ms >= self.expires_ms


@dataclass(frozen=True, slots=True)
class Token:
    """A grant and the SHA-256 (hex) of the secret that earns it."""

    sha256: str = field(repr=False)
    grant: Grant

    @classmethod
    def of(cls, secret: str, *, name: str, channels: tuple[str, ...] = ("*",), expires_ms: int | None = None) -> Token:
        """Hash the secret and forget it."""
        return cls(_sha256(secret), Grant(name, channels, expires_ms))


LOOPBACK: Final = Grant("loopback")


def _sha256(secret: str) -> str:
    # surrogates come in from undecodable header bytes; they must fail the comparison, not the program
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Gate:
    """Decides who comes in. Tickets live here: at most MAX_TICKETS, the oldest goes first."""

    def __init__(
        self,
        tokens: tuple[Token, ...],
        *,
        allow_loopback: bool = False,
        origins: tuple[str, ...] = (),
        ticket_s: float = 30.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`clock` tells Unix seconds."""
        self._tokens = tokens
        self._allow_loopback = allow_loopback
        self._origins = frozenset(origin.rstrip("/").lower() for origin in origins)
        self._ticket_s = ticket_s
        self._clock = clock
        self._tickets: dict[str, tuple[float, Grant]] = {}

    def now_ms(self) -> float:
        return self._clock() * 1000

    def by_token(self, secret: str) -> Grant | None:
        """Return what this secret earns, or None. Every known hash is compared, so the time tells nothing."""
        presented, found = _sha256(secret), None
        for token in self._tokens:
            if hmac.compare_digest(presented, token.sha256.lower()):
                found = token.grant
        return None if found is None or found.expired(self.now_ms()) else found

    def by_ticket(self, ticket: str) -> Grant | None:
        """Return what this ticket earns and use it up; None if unknown, used or older than its 30 s."""
        until, grant = self._tickets.pop(_sha256(ticket), (0.0, None))
        return grant if grant is not None and self._clock() < until and not grant.expired(self.now_ms()) else None

    def issue_ticket(self, grant: Grant) -> str:
        """Return a new single-use ticket for this grant."""
        now = self._clock()
        self._tickets = {key: kept for key, kept in self._tickets.items() if kept[0] > now}
        while len(self._tickets) >= MAX_TICKETS:
            del self._tickets[next(iter(self._tickets))]
        ticket = secrets.token_urlsafe(24)
        self._tickets[_sha256(ticket)] = (now + self._ticket_s, grant)
        return ticket

    def of_request(self, request: web.BaseRequest) -> Grant | None:
        """Return what the request's own credentials earn: bearer header, else ticket, else loopback; None if nothing.

        Credentials that are wrong are never made good by loopback.
        """
        header = request.headers.get("Authorization")
        if header is not None:
            scheme, _, secret = header.partition(" ")
            return self.by_token(secret.strip()) if scheme.lower() == "bearer" else None
        ticket = request.query.get("ticket")
        if ticket is not None:
            return self.by_ticket(ticket)
        return LOOPBACK if self._allow_loopback and _is_loopback(request) else None

    def admits_origin(self, request: web.BaseRequest) -> bool:
        """Tell whether the page the request comes from may use us. No Origin: not a browser, nothing to decide."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        return origin.lower() in self._origins or _is_same_origin(origin, request.host)


def has_credentials(request: web.BaseRequest) -> bool:
    """Tell whether the request brings a token or a ticket, right or wrong."""
    return "Authorization" in request.headers or "ticket" in request.query


def _is_same_origin(origin: str, host: str) -> bool:
    try:
        parts = urlsplit(origin.lower())
        default = {"http": ":80", "https": ":443"}[parts.scheme]
    except (ValueError, KeyError):
        return False
    return bool(parts.netloc) and parts.netloc.removesuffix(default) == host.lower().removesuffix(default)


def _is_loopback(request: web.BaseRequest) -> bool:
    """Tell whether the peer is this machine and says so itself.

    A proxy on this machine makes everybody look local, hence no forwarding headers. A name that an attacker's DNS
    points at 127.0.0.1 makes his page same-origin with us, hence only the loopback names as Host.
    """
    if any(name in request.headers for name in FORWARDING) or request.remote is None:
        return False
    host = request.host.lower()
    name = host[: host.rindex("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
    try:
        address = ipaddress.ip_address(request.remote.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return name in LOOPBACK_NAMES and (mapped or address).is_loopback
