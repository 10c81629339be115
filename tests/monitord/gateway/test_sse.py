"""Server-sent events, read with a client that knows nothing of the gateway's own code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
import pytest

from tests.monitord.gateway.stand import EPOCH, Stand, bearer, standing, token, until


@dataclass
class Event:
    name: str
    data: Any
    last_id: str


async def events(reply: aiohttp.ClientResponse) -> AsyncIterator[Event]:
    """Parse a stream as the HTML standard says: fields, comments, and an id that outlives its event."""
    last_id, name, lines = "", "message", list[str]()
    async for raw in reply.content:
        line = raw.decode().rstrip("\n")
        if not line:
            if lines:
                yield Event(name, orjson.loads("\n".join(lines)), last_id)
            name, lines = "message", []
        elif not line.startswith(":"):
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "id":
                last_id = value
            elif field == "event":
                name = value
            elif field == "data":
                lines.append(value)


async def listen(stand: Stand, query: str = "?ch=alerts", **headers: str) -> aiohttp.ClientResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await stand.session.get(f"{stand.gateway.address}/v1/sse{query}", headers=named)


async def test_alerts_come_with_ids_that_resume() -> None:
    async with standing() as stand:
        reply = await listen(stand)
        assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        stream = events(reply)
        first = await anext(stream)
        assert (first.name, first.last_id) == ("subscribed", f"{EPOCH}:0")
        stand.alerts.publish(2)
        heard = [await anext(stream) for _ in range(2)]
        assert [(event.name, event.last_id, event.data["id"]) for event in heard] == [
            ("alert", f"{EPOCH}:1", "al_1"),
            ("alert", f"{EPOCH}:2", "al_2"),
        ]
        reply.close()


async def test_cut_and_resumed_streams_lose_nothing_and_repeat_nothing() -> None:
    async with standing(ring_size=50) as stand:
        last_id, seen = f"{EPOCH}:0", list[str]()
        for cut in range(20):
            stand.alerts.publish(7)
            reply = await listen(stand, Last_Event_ID=last_id)
            async for event in events(reply):
                last_id = event.last_id
                if event.name == "alert":
                    seen.append(event.data["id"])
                if len(seen) >= 7 * cut + 5:
                    break
            reply.close()
        assert seen == [f"al_{n}" for n in range(1, len(seen) + 1)]
        assert len(seen) >= 7 * 19


async def test_the_header_of_a_reconnecting_browser_wins_over_the_query() -> None:
    async with standing() as stand:
        stand.alerts.publish(9)
        await stand.caught_up(9)
        reply = await listen(stand, f"?ch=alerts&since={EPOCH}:1", Last_Event_ID=f"{EPOCH}:7")
        stream = events(reply)
        assert (await anext(stream)).data == {
            "ch": "alerts", "epoch": EPOCH, "off": 9, "recovered": True, "replayed": 2,
        }  # fmt: skip
        assert (await anext(stream)).data["id"] == "al_8"
        reply.close()


async def test_an_id_of_another_epoch_is_told_as_not_recovered() -> None:
    async with standing() as stand:
        stand.alerts.publish(9)
        await stand.caught_up(9)
        reply = await listen(stand, Last_Event_ID="old1:3")
        first = await anext(events(reply))
        assert first.data["recovered"] is False
        assert first.last_id == f"{EPOCH}:9"
        reply.close()


async def test_heartbeats_move_the_id_of_a_filtered_stream_without_an_event() -> None:
    async with standing() as stand:
        reply = await listen(stand, "?ch=alerts:sym:B.SZ")
        stream = events(reply)
        await anext(stream)
        stand.alerts.publish(5, symbol="A.SH")
        await stand.caught_up(5)
        stand.gateway.hub.heartbeat()
        stand.alerts.publish(symbol="B.SZ")
        heard = await anext(stream)
        assert heard.data["symbol"] == "B.SZ"
        raw = b"id: k3f9:5\n: hb\n\n"
        reply.close()
        reply = await listen(stand, "?ch=alerts:sym:B.SZ")
        await reply.content.readuntil(b"\n\n")
        await reply.content.readuntil(b"\n\n")
        stand.gateway.hub.heartbeat()
        assert await reply.content.readuntil(b"\n\n") == raw.replace(b":5", b":6")
        reply.close()


async def test_an_alert_on_two_channels_of_one_stream_comes_once() -> None:
    async with standing() as stand:
        stand.alerts.publish(3)
        await stand.caught_up(3)
        reply = await listen(stand, f"?ch=alerts,alerts:sym:600519.SH&since={EPOCH}:1")
        stream = events(reply)
        assert [(await anext(stream)).name for _ in range(2)] == ["subscribed", "subscribed"]
        stand.alerts.publish(2)
        assert [(await anext(stream)).data["id"] for _ in range(4)] == ["al_2", "al_3", "al_4", "al_5"]
        reply.close()


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("", {}, 400, "bad_request"),
        ("?ch=news", {}, 400, "bad_request"),
        ("?ch=alerts&ch=alerts", {}, 400, "bad_request"),
        ("?ch=alerts&since=x", {}, 400, "bad_request"),
        ("?ch=alerts&token=x", {}, 400, "bad_request"),
        ("?ch=alerts", {"Last_Event_ID": "rubbish"}, 400, "bad_request"),
        (f"?ch=alerts&since={EPOCH}:99", {}, 409, "unrecoverable_position"),
        ("?ch=health", {}, 403, "permission_denied"),
        ("?ch=alerts", {"Authorization": "Bearer wrong"}, 401, "unauthorized"),
        ("?ch=alerts", {"Origin": "https://evil.example"}, 403, "forbidden_origin"),
    ],
)
async def test_a_stream_that_cannot_be_is_refused_in_json(
    query: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with standing(tokens=(token("alerts*", "news"),)) as stand:
        reply = await listen(stand, query, **{"Authorization": bearer()["Authorization"], **headers})
        assert (reply.status, (await reply.json())["error"]["code"]) == (status, code)


async def test_a_stream_ends_at_a_stop_so_that_the_browser_comes_back() -> None:
    async with standing() as stand:
        reply = await listen(stand)
        stream = events(reply)
        await anext(stream)
        await stand.gateway.stop()
        assert [event async for event in stream] == []


async def test_a_listener_that_does_not_read_is_cut_while_others_hear_on(caplog: pytest.LogCaptureFixture) -> None:
    async with standing(send_timeout_s=0.2) as stand:
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        _, writer = await asyncio.open_connection("127.0.0.1", stand.port, limit=1)
        writer.write(b"GET /v1/sse?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        await until(lambda: stand.gateway.clients == 2)
        heard = 0
        while stand.gateway.clients == 2:
            stand.alerts.publish(200)
            for _ in range(200):
                heard += 1
                assert (await talk.hear())["off"] == heard
        writer.transport.abort()
        await asyncio.sleep(0.01)
        assert "Traceback" not in caplog.text
        assert (await talk.ask({"id": 1, "op": "ping"}))["ok"] is True


async def test_a_listener_that_leaves_is_noticed_at_the_next_heartbeat() -> None:
    async with standing() as stand:
        stays, leaves = await listen(stand), await listen(stand)
        hears_on = events(stays)
        await anext(hears_on)
        await anext(events(leaves))
        assert stand.gateway.clients == 2
        leaves.close()
        await asyncio.sleep(0.01)
        stand.gateway.hub.heartbeat()
        await until(lambda: stand.gateway.clients == 1)
        (group,) = stand.gateway.hub._groups.values()
        assert group == stand.gateway.hub.followers
        stand.alerts.publish()
        heard = await anext(hears_on)
        assert (heard.name, heard.last_id, heard.data["id"]) == ("alert", f"{EPOCH}:1", "al_1")
        stays.close()
        await asyncio.sleep(0.01)
        stand.gateway.hub.heartbeat()
        await until(lambda: stand.gateway.clients == 0)
        assert stand.gateway.hub._groups == {}
        assert stand.gateway.counters() == {"alerts": 1, "clients": 0}  # a client that leaves is no error


async def test_health_and_ticks_come_as_events_of_their_own() -> None:
    async with standing() as stand:
        reply = await listen(stand, "?ch=health")
        event = await anext(events(reply))
        assert (event.name, event.data["ready"]) == ("health", True)
        reply.close()
