"""The guard of outgoing connections: which addresses, by whichever spelling; and what may be kept of an answer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from notifiers.egress import (
    EgressRefused,
    Redactor,
    describe,
    guarded_session,
    is_allowed,
    parse_networks,
    read_limited,
)
from notifiers.errors import DeliveryError

REFUSED = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.250", "240.0.0.1", "255.255.255.255", "168.63.129.16", "192.88.99.1", "::1", "::", "fe80::1",
    "fe80::1%eth0", "fc00::1", "fd12::1", "ff02::1", "ff0e::1", "2001:db8::1", "fec0::1", "::7f00:1",
    "::ffff:0:7f00:1", "::ffff:0:808:808", "4000::1", "1::1", "e000::1", "100::1",
    "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:8.8.8.8", "64:ff9b::7f00:1", "64:ff9b::808:808",
    "64:ff9b:1::a00:1", "2002:7f00:1::1", "2002:808:808::1", "2001::1", "3fff::1", "5f00::1",
]  # fmt: skip
PUBLIC = ["8.8.8.8", "1.1.1.1", "119.29.29.29", "2606:4700:4700::1111", "240e::1", "168.63.129.15", "192.88.98.255"]


@pytest.mark.parametrize("address", REFUSED)
def test_refuses_what_is_not_public(address: str) -> None:
    assert not is_allowed(address, ())


@pytest.mark.parametrize("address", PUBLIC)
def test_allows_public_addresses(address: str) -> None:
    assert is_allowed(address, ())


@pytest.mark.parametrize("text", ["", "localhost", "/var/run/x.sock", "1.2.3", "0x7f000001"])
def test_refuses_what_is_not_an_address(text: str) -> None:
    assert not is_allowed(text, ())


def test_allow_list_opens_its_networks_and_no_other_spelling_of_them() -> None:
    allow = parse_networks(["10.8.0.0/16", "fd00::/8"])
    assert is_allowed("10.8.3.4", allow)
    assert is_allowed("fd00::5", allow)
    assert not is_allowed("10.9.0.1", allow)
    assert not is_allowed("::ffff:10.8.3.4", allow)
    assert not is_allowed("127.0.0.1", allow)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_refused_in_every_ipv6_disguise(ip: ipaddress.IPv4Address) -> None:
    number = int(ip)
    disguises = [
        number,
        (0xFFFF << 32) | number,
        (0xFFFF << 48) | number,
        (0x64FF9B << 96) | number,
        (0x2002 << 112) | (number << 80),
    ]
    for disguise in disguises:
        assert not is_allowed(str(ipaddress.IPv6Address(disguise)), ())


@pytest.mark.parametrize("text", ["10.0.0.0/33", "10.1.2.3/8", "intranet", ""])
def test_bad_network_says_how_to_write_one(text: str) -> None:
    with pytest.raises(DeliveryError, match=r"10\.0\.0\.0/8"):
        parse_networks([text])


class Listener:
    """A listening socket on loopback that counts connections."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0

    async def on_connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    counted = Listener()
    server = await asyncio.start_server(counted.on_connect, host=None, port=0, family=socket.AF_INET, backlog=10)
    counted.port = server.sockets[0].getsockname()[1]
    yield counted
    server.close()
    await server.wait_closed()


def session(*allow: str, resolver: AbstractResolver | None = None) -> aiohttp.ClientSession:
    return guarded_session(allow=parse_networks(allow), connect_timeout_s=1, total_timeout_s=2, resolver=resolver)


SPELLINGS = [
    "127.0.0.1",
    "localhost",
    "LOCALHOST",
    "127.1",
    "0",
    "0.0.0.0",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "127.0.0.1.",
    "①②⑦.⓪.⓪.①",
]


@pytest.mark.parametrize("host", SPELLINGS)
async def test_no_spelling_of_loopback_is_connected_to(listener: Listener, host: str) -> None:
    async with session() as http:
        with pytest.raises((aiohttp.ClientError, OSError, ValueError)):
            await http.post(f"http://{host}:{listener.port}/")
    assert listener.connections == 0


async def test_the_listener_would_have_counted(listener: Listener) -> None:
    async with session("127.0.0.0/8") as http:
        for host in ("127.0.0.1", "localhost"):
            assert (await http.post(f"http://{host}:{listener.port}/")).status == 204
    assert listener.connections == 2


class RebindingResolver(AbstractResolver):
    """Answers with the next of its addresses each time, as a hostile name server does."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        addresses = self.answers.pop(0)
        return [
            ResolveResult(hostname=host, host=a, port=port, family=socket.AF_INET, proto=0, flags=0) for a in addresses
        ]

    async def close(self) -> None:
        pass


async def test_a_name_that_resolves_to_private_addresses_is_refused_by_the_connected_address(
    listener: Listener,
) -> None:
    resolver = RebindingResolver(["127.0.0.1"], ["127.0.0.1", "127.0.0.2", "10.0.0.1"])
    async with session(resolver=resolver) as http:
        for _ in range(2):
            with pytest.raises(aiohttp.ClientConnectorError) as caught:
                await http.post(f"http://rebind.example:{listener.port}/")
            assert isinstance(caught.value.os_error, EgressRefused)
            http.connector._cached_hosts.clear()  # type: ignore[union-attr]
    assert resolver.answers == []
    assert listener.connections == 0


async def test_environment_proxy_is_not_used(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    async with session("127.0.0.0/8", resolver=RebindingResolver(["10.0.0.1"])) as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.post("http://receiver.example/")
    assert listener.connections == 0


async def test_gzip_is_never_inflated(hook: Any) -> None:
    _, url = hook
    async with session("127.0.0.0/8") as http, http.post(f"{url}/bomb") as answer:
        length = int(answer.headers["Content-Length"])
        body = await read_limited(answer)
    assert len(body) == min(length, 65_536)
    assert body[:2] == b"\x1f\x8b"


async def test_a_gigabyte_is_read_no_further_than_the_limit(hook: Any) -> None:
    server, url = hook
    async with session("127.0.0.0/8") as http, http.post(f"{url}/huge") as answer:
        assert len(await read_limited(answer)) == 65_536
        assert answer.connection is None
    assert server.bytes_written < 64_000_000


async def test_an_endless_body_is_cut_and_what_came_is_kept(hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifiers.egress.BODY_WAIT_S", 0.05)
    _, url = hook
    async with session("127.0.0.0/8") as http, http.post(f"{url}/drip") as answer:
        assert await read_limited(answer) == b"x"


def test_redactor_takes_out_every_part_of_the_url_and_the_secrets() -> None:
    url = URL("https://us%65r:passw0rd@hook.example/hooks/T0%2FKEN-abc/send?access_token=q%20tok&k=v1v1")
    redact = Redactor(url, ["whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ="])
    for text in (
        str(url),
        "path /hooks/T0/KEN-abc/send",
        "token T0%2FKEN-abc",
        "q tok and q%20tok",
        "v1v1",
        "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
        "c2VjcmV0LXNlY3JldC1zZWNyZXQ=",
        "user passw0rd",
    ):
        shown = redact(f"<{text}>")
        assert "***" in shown
        for planted in ("KEN-abc", "q tok", "q%20tok", "v1v1", "c2VjcmV0", "passw0rd"):
            assert planted not in shown


@pytest.mark.parametrize(
    "spelt", ["T0%2FKEN-abc", "T0%2fKEN-abc", "T0/KEN-abc", "q%e6%b6%a8tok", "q%E6%B6%a8tok", "q涨tok"]
)
def test_redactor_knows_a_part_by_every_spelling(spelt: str) -> None:
    redact = Redactor(URL("https://hook.example/hooks/T0%2FKEN-abc/send?access_token=q%E6%B6%A8tok"))
    shown = redact(f"<{spelt}>")
    assert "***" in shown
    assert "KEN-abc" not in shown
    assert "tok" not in shown
    assert redact("other words") == "other words"


def test_redactor_keeps_texts_short_and_on_one_line() -> None:
    shown = Redactor(URL("http://h/"))("a\r\nb\x00\x1b[31m" + "x" * 1000)
    assert shown.startswith("a b [31m")
    assert len(shown) == 200


def test_errors_are_named_without_their_text() -> None:
    secret = OSError(111, "http://h/secret")
    assert describe(secret) == "ConnectionRefusedError: ECONNREFUSED"
    assert describe(aiohttp.InvalidURL("http://h/secret")) == "InvalidURL"
