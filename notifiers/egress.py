"""The way out: an HTTP session that connects to public addresses only, and what of an answer or error may be kept.

The address is judged where the socket is made. Everything before that can lie: a host name may resolve to something
else the next time, and an address literal (also as 0x7f000001 or 017700000001) never reaches a resolver.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import re
import socket
import zlib
from asyncio import timeout
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus, unquote

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from notifiers.errors import DeliveryError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

READ_LIMIT_BYTES: Final = 65_536
"""The most that is read of an answer's body."""
BODY_WAIT_S: Final = 1.0
"""The status decides; a body that drips longer than this is cut."""
EXCERPT_CHARACTERS: Final = 200
_ESCAPES: Final = re.compile(r"(%[0-9A-Fa-f]{2})")

DENIED: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # the host's agent on Azure, public by its number
        "192.88.99.0/24",  # 6to4 relays
        "224.0.0.0/4",
        "ff00::/8",
        "::/96",  # IPv4-compatible: an IPv4 address in disguise
        "::ffff:0:0/96",  # IPv4-mapped
        "::ffff:0:0:0/96",  # IPv4-translated (SIIT)
        "64:ff9b::/96",  # NAT64
        "64:ff9b:1::/48",
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local, retired but still routed in places
        "3fff::/20",  # documentation
        "5f00::/16",  # segment routing
    )
)
"""Never connected to, though `is_global` calls them public (it depends on the Python version for some)."""
IPV6_UNICAST: Final = ipaddress.ip_network("2000::/3")
"""All that was ever given out as public in IPv6. What is outside may be translated to anything on the way."""


class EgressRefused(OSError):
    """The address is not public and not allow-listed; no packet was sent."""

    def __init__(self) -> None:
        # One constant text: where every address of a host is refused, the connector raises this very exception only
        # if all texts are equal.
        super().__init__(errno.EACCES, "address is not public")


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse networks such as "10.0.0.0/8"; raises DeliveryError for one that is none."""
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise DeliveryError(f'allow_networks: {error}; write a network such as "10.0.0.0/8"') from None


def is_allowed(address: str, allow: Sequence[Network]) -> bool:
    """Return whether this address (text, as in a sockaddr, perhaps with %scope) may be connected to."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(ip in network for network in allow):
        return True
    if ip.version == 6 and ip not in IPV6_UNICAST:
        return False
    return ip.is_global and not any(ip in network for network in DENIED)


def guarded_session(
    *,
    allow: Sequence[Network],
    connect_timeout_s: float,
    total_timeout_s: float,
    resolver: AbstractResolver | None = None,
) -> aiohttp.ClientSession:
    """Return a session that refuses private addresses, proxies of the environment, cookies and decompression.

    Connecting elsewhere fails with an aiohttp error whose `os_error` is EgressRefused. resolver is for tests. Call this
    in a running event loop.
    """

    def open_socket(addr_info: Any) -> socket.socket:
        family, kind, protocol, _, sockaddr = addr_info
        if not is_allowed(sockaddr[0], allow):
            raise EgressRefused
        return socket.socket(family=family, type=kind, proto=protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(socket_factory=open_socket, limit=4, resolver=resolver),
        timeout=aiohttp.ClientTimeout(total=total_timeout_s, connect=connect_timeout_s),
        trust_env=False,
        auto_decompress=False,  # a gzip bomb stays the size it has on the wire; who needs the body calls `inflated`
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": "monitord", "Accept-Encoding": "identity"},
        max_line_size=8190,
        max_field_size=8190,
    )


async def guarded_socket(host: str, port: int, *, allow: Sequence[Network]) -> socket.socket:
    """Return a non-blocking socket connected to the first address of the host that may and can be connected to.

    Raises EgressRefused where no address may be, else the last OSError. Cancelling closes the socket in the making; it
    has no limit in time of its own.
    """
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    error: OSError = EgressRefused()
    for family, kind, protocol, _, sockaddr in addresses:
        if not is_allowed(str(sockaddr[0]), allow):
            continue
        connecting = socket.socket(family, kind, protocol)
        connecting.setblocking(False)
        try:
            await loop.sock_connect(connecting, sockaddr)
        except OSError as refused:
            connecting.close()
            error = refused
        except BaseException:
            connecting.close()
            raise
        else:
            return connecting
    raise error


def inflated(body: bytes, encoding: str) -> bytes:
    """Return at most READ_LIMIT_BYTES of what a Content-Encoding of gzip or deflate holds, b"" where it holds none.

    A body without one is returned as it is; of another kind (br, zstd) nothing is.
    """
    if encoding in {"", "identity"}:
        return body
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        return b""
    try:
        return zlib.decompressobj(47).decompress(body, READ_LIMIT_BYTES)  # 47: by the header, zlib's or gzip's
    except zlib.error:
        return b""


async def read_limited(response: aiohttp.ClientResponse, *, wait_s: float | None = None) -> bytes:
    """Return at most READ_LIMIT_BYTES of the body, and what came within wait_s; never raises for a broken body.

    wait_s: None = BODY_WAIT_S, for whom the status is enough.

    The connection is kept for the next request only if the body ended.
    """
    body = bytearray()
    try:
        async with timeout(BODY_WAIT_S if wait_s is None else wait_s):
            while len(body) < READ_LIMIT_BYTES:
                chunk = await response.content.read(READ_LIMIT_BYTES - len(body))
                if not chunk:
                    break
                body += chunk
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass
    if not response.content.at_eof():
        response.close()
    return bytes(body)


class Redactor:
    """Takes a receiver's URL and secrets out of texts that others wrote (a receiver may echo them).

    public: parts of the URL that are the same for everybody, such as "send": an answer's words stay readable.
    """

    def __init__(self, url: URL, secrets: Iterable[str] = (), *, public: Collection[str] = ()) -> None:
        parts = {str(url), url.path_qs, url.raw_path_qs, url.query_string, url.raw_query_string, url.path, url.raw_path}
        parts |= {part for part in (url.user, url.password) if part}
        parts |= {*url.parts, *url.raw_parts, *url.query.keys(), *url.query.values()} - set(public)
        parts |= set(secrets) | {secret.removeprefix("whsec_") for secret in secrets}
        parts |= {spell(part) for part in tuple(parts) for spell in (unquote, quote, quote_plus)}
        known = sorted((part for part in parts if len(part) >= 4), key=len, reverse=True)
        self._known = re.compile("|".join(map(_spelt_anyhow, known))) if known else None

    def __call__(self, text: str) -> str:
        """Return the text on one line, printable, short, without any part of the URL's path, query or secrets."""
        if self._known is not None:
            text = self._known.sub("***", text)
        plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        return plain[:EXCERPT_CHARACTERS]


def _spelt_anyhow(part: str) -> str:
    """Return a pattern of this part in which the digits of %2F may be small ones too: either is right in an address."""
    return "".join(
        f"(?i:{piece})" if number % 2 else re.escape(piece) for number, piece in enumerate(_ESCAPES.split(part))
    )


def describe(error: BaseException) -> str:
    """Name an exception without its own text, which may hold the URL."""
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    name = type(error).__name__
    return f"{name}: {errno.errorcode[number]}" if isinstance(number, int) and number in errno.errorcode else name
