"""Starting and stopping."""

from __future__ import annotations

import asyncio
import socket

import aiohttp
import pytest

from monitord.errors import Stopping
from monitord.gateway.options import GatewayError
from tests.monitord.gateway.stand import standing


async def test_an_address_that_is_taken_is_said_with_what_to_change() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(GatewayError, match=rf"127\.0\.0\.1:{port}: .*change gateway\.host or gateway\.port"):
            async with standing(port=port):
                raise AssertionError("it listens on a port that is taken")


async def test_the_address_is_where_it_listens() -> None:
    async with standing() as stand:
        assert stand.gateway.address == f"http://127.0.0.1:{stand.port}"
        assert stand.port > 0


async def test_after_a_stop_nobody_gets_in_and_a_second_stop_is_fine() -> None:
    async with standing() as stand:
        await stand.gateway.stop()
        await stand.gateway.stop()
        with pytest.raises(aiohttp.ClientConnectorError):
            await stand.connect()


async def test_a_stop_does_not_wait_for_a_client_that_does_not_answer() -> None:
    async with standing(close_timeout_s=0.1) as stand:
        reader, writer = await asyncio.open_connection("127.0.0.1", stand.port)
        writer.write(
            b"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        await reader.readuntil(b'"ok":true')
        started = asyncio.get_running_loop().time()
        await stand.gateway.stop()
        assert asyncio.get_running_loop().time() - started < 1
        assert b"shutdown" in await reader.read()
        writer.close()


async def test_who_asks_for_what_a_stopping_daemon_does_no_more_is_told_to_come_back() -> None:
    async def reload() -> None:
        raise Stopping("the daemon is stopping; try again when it is back")

    async with standing() as stand:
        stand.rules.reload = reload  # type: ignore[method-assign]
        async with stand.session.post(f"http://127.0.0.1:{stand.port}/v1/rules/reload") as reply:
            told = (await reply.json())["error"]
    assert (reply.status, told["code"], told["msg"]) == (
        503, "unavailable", "the daemon is stopping; try again when it is back",
    )  # fmt: skip


async def test_the_heartbeat_comes_again_after_one_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with standing(heartbeat_s=0.01) as stand:
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        beats = [ZeroDivisionError()]
        real = stand.gateway.hub.heartbeat

        def heartbeat() -> None:
            if beats:
                raise beats.pop()
            real()

        monkeypatch.setattr(stand.gateway.hub, "heartbeat", heartbeat)
        assert (await talk.hear_any())["op"] == "hb"
        assert (await talk.hear_any())["op"] == "hb"
