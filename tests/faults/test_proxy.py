"""The proxy of the fault tests does what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from tests.faults.proxy import Proxy, proxied


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy before a server that says everything twice."""

    async def twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk * 2)
        writer.close()

    server = await asyncio.start_server(twice, "127.0.0.1", 0)
    async with proxied("127.0.0.1", server.sockets[0].getsockname()[1]) as one:
        yield one
    server.close()


async def connected(proxy: Proxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"ab")
    assert await reader.readexactly(4) == b"abab"
    return reader, writer


async def test_it_carries_both_ways_and_is_late_by_its_latency(proxy: Proxy) -> None:
    reader, writer = await connected(proxy)
    proxy.latency_s = 0.05
    asked = asyncio.get_running_loop().time()
    writer.write(b"c")
    assert await reader.readexactly(2) == b"cc"
    assert asyncio.get_running_loop().time() - asked >= 0.1
    writer.close()


async def test_a_cut_is_an_end_and_a_reset_an_error(proxy: Proxy) -> None:
    reader, _ = await connected(proxy)
    assert proxy.cut() == 1
    assert await reader.read() == b""
    reader, _ = await connected(proxy)
    proxy.cut(reset=True)
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert proxy.counts["connections"] == 2


async def test_half_open_swallows_in_silence_and_ends_with_a_reset(proxy: Proxy) -> None:
    reader, writer = await connected(proxy)
    proxy.half_open = True
    writer.write(b"lost")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    assert proxy.counts["swallowed"] == 4
    proxy.half_open = False
    with pytest.raises(ConnectionResetError):
        await reader.read()
    await connected(proxy)


async def test_an_answer_is_broken_off_in_its_middle(proxy: Proxy) -> None:
    reader, writer = await connected(proxy)
    proxy.reset_after_bytes = 3
    writer.write(b"xy")
    with suppress(ConnectionResetError):  # what had come before the reset may be lost with it
        assert await reader.readexactly(1) == b"x"
    with pytest.raises(ConnectionResetError):
        await reader.readexactly(3)
    assert proxy.counts["resets"] == 1
    await connected(proxy)


async def test_nobody_behind_it_is_a_refusal() -> None:
    gone = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port = gone.sockets[0].getsockname()[1]
    gone.close()
    async with proxied("127.0.0.1", port) as proxy:
        reader, _ = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(1)
