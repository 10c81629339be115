"""Conversations with a stock client: every op, every error code, every close code."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import ClientConnectionResetError, WSMsgType
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitord.gateway.client import Allowance
from monitord.gateway.protocol import CloseCode, ErrorCode
from notifiers.alertstream import Outgoing, Position
from tests.monitord.gateway.stand import (
    EPOCH,
    SECRET,
    FakeAlerts,
    Stand,
    Talk,
    bearer,
    record,
    standing,
    token,
    until,
)


def subscribe(ch: str, *, id: int = 1, **more: Any) -> dict[str, Any]:
    return {"id": id, "op": "subscribe", "args": [{"ch": ch, **more}]}


def since(off: int, epoch: str = EPOCH) -> dict[str, Any]:
    return {"epoch": epoch, "off": off}


async def test_a_stock_websockets_client_authenticates_subscribes_and_hears_alerts() -> None:
    async with standing(tokens=(token(),)) as stand, websockets.connect(stand.ws_url) as ws:
        await ws.send(json.dumps({"id": 1, "op": "auth", "token": SECRET}))
        assert json.loads(await ws.recv()) == {"id": 1, "ok": True, "result": {"name": "desk", "channels": ["*"]}}
        await ws.send(json.dumps(subscribe("alerts", id=2)))
        reply = json.loads(await ws.recv())
        assert reply == {"id": 2, "ok": True, "result": [{"ch": "alerts", "epoch": EPOCH, "off": 0}]}
        stand.alerts.publish()
        heard = json.loads(await ws.recv())
        assert (heard["ch"], heard["epoch"], heard["off"]) == ("alerts", EPOCH, 1)
        assert heard["data"]["id"] == "al_1"
        assert heard["data"]["name"] == "贵州茅台"


async def test_the_query_form_replays_and_goes_live() -> None:
    async with standing(tokens=(token(),)) as stand:
        stand.alerts.publish(9)
        await stand.caught_up(9)
        talk = await stand.connect(f"?ch=alerts&since={EPOCH}:6", headers=bearer())
        reply = await talk.hear()
        assert reply["id"] is None
        assert reply["result"] == [{"ch": "alerts", "epoch": EPOCH, "off": 9, "recovered": True, "replayed": 3}]
        stand.alerts.publish()
        assert [(await talk.hear())["off"] for _ in range(4)] == [7, 8, 9, 10]


async def test_filtered_channels_carry_their_alerts_alone_and_count_what_they_replay() -> None:
    async with standing() as stand:
        for symbol, rule, severity in (("A.SH", "r1", "info"), ("B.SZ", "r2", "warning"), ("A.SH", "r2", "info")):
            stand.alerts.publish(symbol=symbol, rule=rule, severity=severity)
        await stand.caught_up(3)
        for ch, offs in {"alerts:sym:A.SH": [1, 3], "alerts:rule:r2": [2, 3], "alerts:sev:warning": [2]}.items():
            talk = await stand.connect()
            reply = await talk.ask(subscribe(ch, since=since(0)))
            assert reply["result"][0]["replayed"] == len(offs)
            heard = [await talk.hear() for _ in offs]
            assert [message["off"] for message in heard] == offs
            assert {message["ch"] for message in heard} == {ch}


async def test_a_client_with_several_channels_hears_each_alert_once_per_channel_in_order() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        args = [{"ch": "alerts"}, {"ch": "alerts:sym:A.SH"}]
        await talk.ask({"id": 1, "op": "subscribe", "args": args})
        stand.alerts.publish(symbol="A.SH")
        stand.alerts.publish(symbol="B.SZ")
        heard = [await talk.hear() for _ in range(3)]
        assert sorted((m["off"], m["ch"]) for m in heard) == [(1, "alerts"), (1, "alerts:sym:A.SH"), (2, "alerts")]
        assert [m["off"] for m in heard] == [1, 1, 2]


async def test_a_position_older_than_the_stream_is_not_recovered() -> None:
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(50)
        await stand.caught_up(50)
        stand.alerts.trim(below=20)
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts", since=since(10)))
        assert reply["result"] == [{"ch": "alerts", "epoch": EPOCH, "off": 50, "recovered": False, "replayed": 0}]
        stand.alerts.publish()
        assert (await talk.hear())["off"] == 51


async def test_a_position_of_another_epoch_is_not_recovered() -> None:
    async with standing() as stand:
        stand.alerts.publish(5)
        await stand.caught_up(5)
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts", since=since(2, "old1")))
        assert reply["result"][0] == {"ch": "alerts", "epoch": EPOCH, "off": 5, "recovered": False, "replayed": 0}


async def test_a_position_older_than_the_ring_is_replayed_from_the_stream() -> None:
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(700)
        await stand.caught_up(700)
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts", since=since(20)))
        assert reply["result"][0]["replayed"] == 680
        assert [(await talk.hear())["off"] for _ in range(680)] == list(range(21, 701))
        assert stand.alerts.reads > 0


async def test_a_position_in_the_ring_never_reads_the_stream() -> None:
    async with standing(ring_size=100) as stand:
        stand.alerts.publish(700)
        await stand.caught_up(700)
        talk = await stand.connect()
        await talk.ask(subscribe("alerts", since=since(600)))
        assert [(await talk.hear())["off"] for _ in range(100)] == list(range(601, 701))
        assert stand.alerts.reads == 0


async def test_a_restarted_gateway_fills_its_ring_from_the_stream() -> None:
    alerts = FakeAlerts()
    alerts.publish(1200)
    async with standing(alerts=alerts, ring_size=1000) as stand:
        assert stand.gateway.hub.kept.top is not None
        assert stand.gateway.hub.kept.top.off == 1200
        reads = alerts.reads
        talk = await stand.connect()
        await talk.ask(subscribe("alerts", since=since(201)))
        assert [(await talk.hear())["off"] for _ in range(999)] == list(range(202, 1201))
        assert alerts.reads == reads


async def test_alerts_that_come_during_a_replay_are_neither_lost_nor_repeated_nor_early() -> None:
    """The race: the ring's end moves while the stream is read; going live must happen exactly there."""
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(600)
        await stand.caught_up(600)
        talk = await stand.connect()
        await talk.say(subscribe("alerts", since=since(0)))
        for _ in range(60):
            stand.alerts.publish(3)
            await asyncio.sleep(0)
        heard = [await talk.hear() for _ in range(781)]
        assert [message["off"] for message in heard[1:]] == list(range(1, 781))


async def test_forty_cuts_and_resumes_lose_nothing_repeat_nothing_and_keep_the_order() -> None:
    chance = random.Random(7)
    async with standing(ring_size=200) as stand:
        flowing = asyncio.create_task(_flow(stand, chance, total=4000))
        offs, cuts = [0], 0
        while offs[-1] < 4000:
            talk = await stand.connect(f"?ch=alerts&since={EPOCH}:{offs[-1]}")
            reply = await talk.hear()
            assert reply["result"][0]["recovered"] is True
            for _ in range(chance.randint(1, 160)):
                offs.append((await talk.hear())["off"])
                if offs[-1] == 4000:
                    break
            cuts += 1
            transport = talk.ws.get_extra_info("socket")
            transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # RST, not FIN
            talk.ws._response.connection.transport.abort()
        await flowing
        assert offs == list(range(4001))
        assert cuts >= 40


async def _flow(stand: Stand, chance: random.Random, *, total: int) -> None:
    while stand.alerts.newest < total:
        stand.alerts.publish(min(chance.randint(1, 20), total - stand.alerts.newest))
        await asyncio.sleep(0)


async def test_the_very_first_position_is_good_once_alerts_exist() -> None:
    async with standing(alerts=FakeAlerts(epoch="")) as stand:
        talk = await stand.connect()
        place = (await talk.ask(subscribe("alerts")))["result"][0]
        assert (place["epoch"], place["off"]) == ("", 0)
        stand.alerts.announce(Position("n3w0", 0, recovered=True))
        stand.alerts.publish(2)
        assert [(m["epoch"], m["off"]) for m in [await talk.hear(), await talk.hear()]] == [("n3w0", 1), ("n3w0", 2)]
        again = await stand.connect()
        reply = await again.ask(subscribe("alerts", since=since(0, "")))
        assert reply["result"][0] == {"ch": "alerts", "epoch": "n3w0", "off": 2, "recovered": True, "replayed": 2}


async def test_unsubscribing_stops_a_channel_and_allows_it_again() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask(subscribe("alerts"))
        stand.alerts.publish()
        assert (await talk.hear())["off"] == 1
        reply = await talk.ask({"id": 2, "op": "unsubscribe", "args": [{"ch": "alerts"}]})
        assert reply["result"] == [{"ch": "alerts"}]
        stand.alerts.publish()
        await stand.caught_up(2)
        assert (await talk.ask({"id": 3, "op": "ping"}))["result"] == "pong"
        reply = await talk.ask(subscribe("alerts", since=since(1)))
        assert reply["result"][0]["replayed"] == 1
        assert (await talk.hear())["off"] == 2


async def test_heartbeats_tell_the_top_to_those_who_follow_something() -> None:
    async with standing(heartbeat_s=0.02, auth_timeout_s=30, tokens=(token(),)) as stand:
        stand.alerts.publish(3)
        await stand.caught_up(3)
        talk = await stand.connect("?ch=health", headers=bearer())
        while "op" not in (heard := await talk.hear_any()):
            pass
        assert heard == {"op": "hb", "top": {"alerts": 3}}
        stranger = await stand.connect()
        with pytest.raises(TimeoutError):
            await stranger.ws.receive(timeout=0.1)


async def test_no_heartbeat_tells_who_resumes_of_a_top_before_the_alerts_up_to_it() -> None:
    """He takes a heartbeat's top for a position: cut before his subscription, he would resume behind what he missed."""
    async with standing() as stand:
        stand.alerts.publish(5)
        await stand.caught_up(5)
        talk = await stand.connect()
        assert (await talk.ask({"id": 1, "op": "ping"}))["ok"] is True
        stand.gateway.hub.heartbeat()
        await talk.say(subscribe("alerts", since=since(2)))
        heard = [await talk.hear_any() for _ in range(4)]
        assert [m.get("off") for m in heard[1:]] == [3, 4, 5]
        assert heard[0]["ok"] is True
        stand.gateway.hub.heartbeat()
        assert await talk.hear_any() == {"op": "hb", "top": {"alerts": 5}}
        await talk.ask({"id": 2, "op": "unsubscribe", "args": [{"ch": "alerts"}]})
        stand.gateway.hub.heartbeat()
        assert (await talk.ask({"id": 3, "op": "ping"}))["ok"] is True
        assert talk._messages == []


async def test_a_heartbeat_never_overtakes_the_alerts_up_to_its_top() -> None:
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(600)
        await stand.caught_up(600)
        talk = await stand.connect()
        assert (await talk.ask(subscribe("alerts:sym:600519.SH", since=since(0))))["ok"] is True
        last = 0
        for _ in range(40):
            stand.alerts.publish()
            stand.gateway.hub.heartbeat()
            await asyncio.sleep(0)
        stand.gateway.hub.heartbeat()
        while last < 640:
            message = await talk.hear_any()
            if message.get("op") == "hb":
                assert message["top"]["alerts"] <= last
            elif "ch" in message:
                last = message["off"]


async def test_the_health_channel_tells_now_and_when_it_is_told() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask(subscribe("health"))
        assert (await talk.hear()) == {"ch": "health", "data": {"ticks": 7, "ready": True, "reasons": []}}
        stand.health.why = ["the feed is silent"]
        stand.gateway.tell_health()
        assert (await talk.hear())["data"] == {"ticks": 7, "ready": False, "reasons": ["the feed is silent"]}


# ── error codes ───────────────────────────────────────────────────────────────────────────────────────────────────


BAD_REQUESTS: list[tuple[Any, int]] = [
    ({"op": "dance"}, 100),
    ({}, 100),
    ({"op": "subscribe"}, 100),
    ({"op": "subscribe", "args": []}, 100),
    ({"op": "subscribe", "args": {"ch": "alerts"}}, 100),
    ({"op": "subscribe", "args": [7]}, 100),
    ({"op": "subscribe", "args": [{"ch": 7}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "from": 1}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": 7}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": EPOCH}}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": EPOCH, "off": -1}}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": EPOCH, "off": True}}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": 1, "off": 1}}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts", "interval_ms": 5}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "tick:A.SH", "interval_ms": -1}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "tick:A.SH", "interval_ms": 60_001}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "tick:A.SH", "interval_ms": 1.5}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "tick:A.SH", "since": {"epoch": EPOCH, "off": 1}}]}, 100),
    ({"op": "subscribe", "args": [{"ch": "news"}]}, 102),
    ({"op": "subscribe", "args": [{"ch": "tick:"}]}, 102),
    ({"op": "subscribe", "args": [{"ch": "alerts:sym:"}]}, 102),
    ({"op": "subscribe", "args": [{"ch": "tick:A\nB"}]}, 102),
    ({"op": "subscribe", "args": [{"ch": "tick:" + "x" * 300}]}, 102),
    ({"op": "unsubscribe", "args": [{"ch": "alerts"}]}, 100),
    ({"op": "auth"}, 100),
    ({"op": "auth", "token": 5}, 100),
    ({"op": "subscribe", "args": [{"ch": "alerts"}, {"ch": "alerts"}]}, 105),
    ({"op": "subscribe", "args": [{"ch": "alerts", "since": {"epoch": EPOCH, "off": 999}}]}, 106),
    ({"op": "subscribe", "args": [{"ch": f"tick:{n}"} for n in range(5)]}, 104),
]


async def test_every_bad_request_gets_its_code_and_the_connection_stays() -> None:
    async with standing(max_channels=4, messages_per_s=1000) as stand:
        talk = await stand.connect()
        for number, (request, code) in enumerate(BAD_REQUESTS):
            reply = await talk.ask({"id": number, **request})
            assert reply["ok"] is False, request
            assert reply["error"]["code"] == code, (request, reply)
            assert reply["error"]["temporary"] is False
            assert reply["error"]["msg"]
        assert (await talk.ask({"id": "last", "op": "ping"}))["ok"] is True


async def test_an_id_that_cannot_be_is_answered_without_it() -> None:
    async with standing(messages_per_s=1000) as stand:
        talk = await stand.connect()
        for bad in (1.5, True, [1], {"a": 1}, "x" * 300):
            await talk.say({"id": bad, "op": "ping"})
            reply = await talk.hear()
            assert (reply["id"], reply["error"]["code"]) == (None, 100)


async def test_subscribing_twice_is_an_error_and_changes_nothing() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask(subscribe("alerts"))
        reply = await talk.ask({"id": 2, "op": "subscribe", "args": [{"ch": "health"}, {"ch": "alerts"}]})
        assert reply["error"]["code"] == ErrorCode.ALREADY_SUBSCRIBED
        assert (await talk.ask(subscribe("health", id=3)))["ok"] is True


async def test_a_token_reads_only_its_channels() -> None:
    async with standing(tokens=(token("alerts:sym:6*", "health"),)) as stand:
        talk = await stand.connect(headers=bearer())
        assert (await talk.ask(subscribe("alerts:sym:600519.SH")))["ok"] is True
        for ch in ("alerts", "alerts:sym:000001.SZ", "tick:600519.SH"):
            reply = await talk.ask(subscribe(ch))
            assert reply["error"] == {"code": 103, "msg": f"permission denied: {ch}", "temporary": False}


async def test_nothing_but_auth_is_heard_from_a_stranger() -> None:
    async with standing(tokens=(token(),)) as stand:
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts"))
        assert reply["error"]["code"] == ErrorCode.UNAUTHORIZED
        assert (await talk.ask({"id": 9, "op": "auth", "token": SECRET}))["ok"] is True
        assert (await talk.ask(subscribe("alerts")))["ok"] is True


async def test_before_the_channel_was_reached_subscribing_fails_for_now() -> None:
    class Silent(FakeAlerts):
        def subscribe(self, since: tuple[str, int] | None) -> Any:
            stream = super().subscribe(since)
            stream.queue = asyncio.Queue()
            return stream

    async with standing(alerts=Silent(), ready=False) as stand:
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts"))
        assert (reply["error"]["code"], reply["error"]["temporary"]) == (120, True)
        assert (await talk.ask(subscribe("health")))["ok"] is True


async def test_a_broker_that_is_down_fails_a_deep_resume_for_now_and_no_other() -> None:
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(50)
        await stand.caught_up(50)
        stand.alerts.down = True
        talk = await stand.connect()
        reply = await talk.ask(subscribe("alerts", since=since(5)))
        assert (reply["error"]["code"], reply["error"]["temporary"]) == (120, True)
        reply = await talk.ask(subscribe("alerts", since=since(45)))
        assert reply["result"][0]["replayed"] == 5


async def test_a_position_ahead_of_this_gateway_waits_for_it() -> None:
    async with standing() as stand:
        stand.alerts.publish(5)
        await stand.caught_up(5)
        stand.alerts.newest = 8  # the channel is further than what has come here
        talk = await stand.connect()
        await talk.say(subscribe("alerts", since=since(7)))
        await until(lambda: bool(stand.gateway.hub.kept._awaited))
        stand.alerts.newest = 5
        stand.alerts.publish(4)
        reply = await talk.hear()
        assert reply["result"][0] == {"ch": "alerts", "epoch": EPOCH, "off": 7, "recovered": True, "replayed": 0}
        assert [(await talk.hear())["off"] for _ in range(2)] == [8, 9]


# ── close codes ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stop_sends_a_notice_and_1001() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask({"id": 1, "op": "ping"})
        stopping = asyncio.create_task(stand.gateway.stop(reconnect_in_ms=700))
        assert await talk.hear() == {"op": "notice", "code": "shutdown", "reconnect_in_ms": 700}
        assert await talk.close_code() == CloseCode.SHUTDOWN
        await stopping


async def test_alerts_taken_before_a_stop_arrive_before_the_notice() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ask(subscribe("alerts"))
        stand.alerts.publish(3)
        await stand.caught_up(3)
        stopping = asyncio.create_task(stand.gateway.stop())
        heard = [await talk.hear() for _ in range(4)]
        assert [message.get("off", message.get("code")) for message in heard] == [1, 2, 3, "shutdown"]
        assert await talk.close_code() == 1001
        await stopping


async def test_a_message_above_64_kib_closes_with_1009() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ws.send_str("x" * 65537)
        assert await talk.close_code() == CloseCode.TOO_BIG


async def test_no_authentication_in_time_closes_with_4001() -> None:
    async with standing(tokens=(token(),), auth_timeout_s=0.05) as stand:
        assert await (await stand.connect()).close_code() == CloseCode.AUTH_EXPIRED


@pytest.fixture
async def timers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, Callable[[], object]]]:
    """Note the delay of every timer and what it does, so that a test need not wait for it."""
    noted: list[tuple[float, Callable[[], object]]] = []
    loop = asyncio.get_running_loop()
    call_later = loop.call_later

    def note(delay: float, callback: Callable[..., object], *args: Any, **context: Any) -> asyncio.TimerHandle:
        noted.append((delay, lambda: callback(*args)))
        return call_later(delay, callback, *args, **context)

    monkeypatch.setattr(loop, "call_later", note)
    return noted


async def test_authentication_in_time_keeps_the_connection(timers: list[tuple[float, Callable[[], object]]]) -> None:
    async with standing(tokens=(token(),), auth_timeout_s=41.0) as stand:
        talk = await stand.connect(headers=bearer())
        assert (await talk.ask({"id": 1, "op": "ping"}))["ok"] is True
        (ring,) = (ring for delay, ring in timers if delay == 41.0)
        ring()
        assert (await talk.ask({"id": 2, "op": "ping"}))["ok"] is True


async def test_a_token_that_expires_closes_with_4001(timers: list[tuple[float, Callable[[], object]]]) -> None:
    expires_ms = time.time_ns() // 1_000_000 + 5_000_000
    async with standing(tokens=(token(expires_ms=expires_ms),)) as stand:
        talk = await stand.connect(headers=bearer())
        assert (await talk.ask({"id": 1, "op": "ping"}))["ok"] is True
        (ring,) = (ring for delay, ring in timers if 4_000 < delay <= 5_000)
        ring()
        assert await talk.close_code() == CloseCode.AUTH_EXPIRED


async def test_a_gap_in_the_channel_closes_its_followers_with_4010_and_no_one_else() -> None:
    async with standing() as stand:
        follower, other = await stand.connect(), await stand.connect()
        await follower.ask(subscribe("alerts:sym:A.SH"))
        await other.ask(subscribe("health"))
        stand.alerts.announce(Position("n3w0", 40, recovered=False))
        assert await follower.close_code() == CloseCode.GAP
        assert (await other.ask({"id": 2, "op": "ping"}))["ok"] is True
        again = await stand.connect()
        reply = await again.ask(subscribe("alerts", since=since(0)))
        assert reply["result"][0] == {"ch": "alerts", "epoch": "n3w0", "off": 40, "recovered": False, "replayed": 0}
        stand.alerts.publish()
        assert (await again.hear())["off"] == 41


async def test_a_stream_trimmed_under_a_replay_closes_with_4010() -> None:
    async with standing(ring_size=10) as stand:
        stand.alerts.publish(2000)
        await stand.caught_up(2000)
        real = stand.alerts.read

        async def read(*, after: int, count: int) -> Any:
            page = await real(after=after, count=count)
            if count > 1:
                stand.alerts.trim(below=1900)
            return page

        stand.alerts.read = read  # type: ignore[method-assign]
        talk = await stand.connect()
        await talk.say(subscribe("alerts", since=since(0)))
        assert await talk.close_code() == CloseCode.GAP


async def test_too_many_messages_close_with_4029() -> None:
    async with standing(messages_per_s=10) as stand:
        talk = await stand.connect()
        await talk.say(*({"id": n, "op": "ping"} for n in range(30)))
        assert [(await talk.hear())["id"] for _ in range(10)] == list(range(10))
        assert await talk.close_code() == CloseCode.RATE


async def test_too_many_connections_close_with_4029() -> None:
    async with standing(max_clients=2) as stand:
        talks = [await stand.connect() for _ in range(2)]
        for talk in talks:
            await talk.ask({"id": 1, "op": "ping"})
        assert await (await stand.connect()).close_code() == CloseCode.RATE


async def test_a_bad_token_closes_with_4501_in_header_and_message() -> None:
    async with standing(tokens=(token(),)) as stand:
        assert await (await stand.connect(headers=bearer("wrong"))).close_code() == CloseCode.BAD_TOKEN
        talk = await stand.connect()
        reply = await talk.ask({"id": 1, "op": "auth", "token": "wrong"})
        assert reply["error"] == {"code": 101, "msg": "bad token", "temporary": False}
        assert await talk.close_code() == CloseCode.BAD_TOKEN


async def test_a_foreign_origin_closes_with_4503() -> None:
    async with standing(allowed_origins=("https://desk.example",)) as stand:
        for origin, welcome in {
            "https://evil.example": False,
            "null": False,
            "https://desk.example": True,
            f"http://127.0.0.1:{stand.port}": True,
        }.items():
            talk = await stand.connect(headers={"Origin": origin})
            if welcome:
                assert (await talk.ask({"id": 1, "op": "ping"}))["ok"] is True
            else:
                assert await talk.close_code() == CloseCode.FORBIDDEN_ORIGIN


@pytest.mark.parametrize("text", ["garbage", "[1]", "7", '"alerts"', "{", "null", "{'op':'ping'}"])
async def test_what_is_no_json_object_closes_with_4507(text: str) -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ws.send_str(text)
        assert (await talk.hear())["error"]["code"] == 100
        assert await talk.close_code() == CloseCode.PROTOCOL


async def test_a_binary_frame_closes_with_4507() -> None:
    async with standing() as stand:
        talk = await stand.connect()
        await talk.ws.send_bytes(b'{"op":"ping"}')
        assert await talk.close_code() == CloseCode.PROTOCOL


async def test_a_token_in_the_address_is_refused_and_not_repeated() -> None:
    async with standing(tokens=(token(),)) as stand:
        talk = await stand.connect(f"?ch=alerts&token={SECRET}")
        reply = await talk.hear()
        assert reply["error"]["code"] == 100
        assert SECRET not in json.dumps(reply)
        assert await talk.close_code() == CloseCode.PROTOCOL


@pytest.mark.parametrize("query", ["?ch=news", "?ch=alerts&since=rubbish", "?ch=health&since=k3f9:1", "?since=k3f9:1"])
async def test_a_bad_query_is_told_and_closes_with_4507(query: str) -> None:
    async with standing() as stand:
        talk = await stand.connect(query)
        assert (await talk.hear())["error"]["code"] in (100, 102)
        assert await talk.close_code() == CloseCode.PROTOCOL


async def test_a_client_that_is_gone_before_its_ping_is_answered_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    async with standing() as stand:
        good, gone = await stand.connect(), await stand.connect()

        async def pong(*args: Any) -> None:
            raise ClientConnectionResetError("Cannot write to closing transport")

        monkeypatch.setattr("aiohttp.web_ws.WebSocketResponse.pong", pong)
        await gone.ws.ping()
        await gone.close_code()
        assert (await good.ask({"id": 1, "op": "ping"}))["ok"]
        assert not {"client_errors", "closed_1011"} & stand.gateway.counters().keys()


async def test_a_failure_of_our_own_closes_with_1011_and_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    async with standing() as stand:
        good, bad = await stand.connect(), await stand.connect()
        await good.ask(subscribe("alerts"))

        async def broken(*args: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(stand.gateway.hub.kept, "locate", broken)
        await bad.say(subscribe("alerts"))
        assert await bad.close_code() == CloseCode.INTERNAL
        stand.alerts.publish()
        assert (await good.hear())["off"] == 1
        assert stand.gateway.counters()["client_errors"] == 1


# ── many at once, and those who do not read ───────────────────────────────────────────────────────────────────────


async def test_a_burst_reaches_200_clients_as_one_frame_each() -> None:
    async with standing() as stand:
        talks = [await stand.connect("?ch=alerts") for _ in range(200)]
        for talk in talks:
            await talk.hear()
            talk.frames = 0
        stand.alerts.publish(50)
        for talk in talks:
            assert [(await talk.hear())["off"] for _ in range(50)] == list(range(1, 51))
        assert {talk.frames for talk in talks} == {1}


async def test_an_alert_is_encoded_once_for_all_who_follow_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from monitord.gateway.telling import Telling

    encoded = []
    real = Telling._of
    monkeypatch.setattr(Telling, "_of", lambda self, dialect, ch: encoded.append(ch) or real(self, dialect, ch))
    async with standing() as stand:
        talks = [await stand.connect("?ch=alerts") for _ in range(20)]
        for talk in talks:
            await talk.hear()
        stand.alerts.publish()
        for talk in talks:
            assert (await talk.hear())["off"] == 1
        assert encoded == ["alerts"]


async def test_everything_due_at_one_moment_is_one_frame() -> None:
    async with standing() as stand:
        talk = await stand.connect("?ch=alerts&ch=health")
        await talk.hear()
        await talk.hear()
        before = talk.frames
        told = [(off, Outgoing(f"al_{off}", record(off), "600519.SH", "brk", "info")) for off in (1, 2)]
        stand.gateway.hub.hear(EPOCH, told)
        stand.gateway.tell_health()
        stand.gateway.hub.heartbeat()
        heard = [await talk.hear_any() for _ in range(4)]
        assert talk.frames == before + 1
        assert [m.get("off") or m.get("op") or m["ch"] for m in heard] == [1, 2, "hb", "health"]


async def _deaf(stand: Stand) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect a client by hand that subscribes and then never reads."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", stand.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1)
    writer.write(
        b"GET /v1/ws?ch=alerts HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    await writer.drain()
    return reader, writer


async def test_a_client_that_does_not_read_is_aborted_while_the_others_hear_everything() -> None:
    async with standing(send_timeout_s=0.3) as stand:
        good = [await stand.connect("?ch=alerts") for _ in range(3)]
        for talk in good:
            await talk.hear()
        _, writer = await _deaf(stand)
        await until(lambda: stand.gateway.clients == 4)
        heard = [0, 0, 0]
        while stand.gateway.clients == 4:
            stand.alerts.publish(200)
            for number, talk in enumerate(good):
                for _ in range(200):
                    heard[number] += 1
                    assert (await talk.hear())["off"] == heard[number]
        assert stand.gateway.counters()["closed_4008"] == 1
        assert stand.gateway.clients == 3
        writer.transport.abort()


async def test_a_client_too_far_behind_is_told_4008_if_it_still_reads() -> None:
    async with standing(backlog_bytes=50_000, send_timeout_s=5) as stand:
        talk = await stand.connect("?ch=alerts")
        await talk.hear()
        talk.ws._response.connection.transport.pause_reading()
        talk.ws._response.connection.transport.pause_reading = lambda: None  # aiohttp would do it again
        (follower,) = stand.gateway.hub.followers
        while not follower.outlet.ended.done():
            stand.alerts.publish(500)
            await asyncio.sleep(0)
        talk.ws._response.connection.transport.resume_reading()
        assert await talk.close_code() == CloseCode.SLOW


async def test_nothing_is_left_behind_when_clients_leave() -> None:
    async with standing() as stand:
        before = len(asyncio.all_tasks())
        for how in ("close", "abort", "bad"):
            talk = await stand.connect("?ch=alerts&ch=tick:600519.SH&ch=health")
            await talk.hear()
            if how == "close":
                await talk.ws.close()
            elif how == "abort":
                talk.ws._response.connection.transport.abort()
            else:
                await talk.ws.send_str("garbage")
                await talk.close_code()
        await until(lambda: stand.gateway.clients == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert stand.gateway.hub._groups == {}
        assert stand.gateway._floor.ticks._watches == {}


# ── rubbish ───────────────────────────────────────────────────────────────────────────────────────────────────────

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner)
)
words = st.sampled_from(["auth", "subscribe", "unsubscribe", "ping", "alerts", "tick:A.SH", "health", "", EPOCH])
requests = st.fixed_dictionaries(
    {},
    optional={
        "id": anything,
        "op": words | anything,
        "token": anything,
        "args": st.lists(
            st.fixed_dictionaries({}, optional={"ch": words | anything, "since": anything, "interval_ms": anything})
            | anything,
            max_size=3,
        )
        | anything,
    },
)
frames = st.text(max_size=200) | st.binary(max_size=200) | requests.map(json.dumps) | anything.map(json.dumps)


async def _survives(stand: Stand, frame: str | bytes) -> None:
    """Send a frame and a ping behind it: the ping is answered, or the connection ends with a code that says why."""
    talk = await stand.connect()
    answered = False
    try:
        if isinstance(frame, bytes):
            await talk.ws.send_bytes(frame)
        else:
            await talk.ws.send_str(frame)
        await talk.ws.send_str('{"id":"probe","op":"ping"}')
        while True:
            reply = await asyncio.wait_for(talk.ws.receive(), 5)
            if reply.type is not WSMsgType.TEXT:
                break
            messages = [json.loads(line) for line in reply.data.split("\n")]
            if any(message.get("id") == "probe" for message in messages):
                answered = True
                break
            for message in messages:
                assert message.get("ok", True) or 100 <= message["error"]["code"] <= 106
    finally:
        await talk.ws.close()
    ends = (CloseCode.PROTOCOL, CloseCode.BAD_TOKEN, CloseCode.RATE, 1007, 1006)
    assert talk.ws.close_code in ends or (answered and talk.ws.close_code in (1000, None))
    assert "client_errors" not in stand.gateway.counters()


async def _serves_as_if_nothing_had_been(stand: Stand) -> None:
    """Nobody and nothing is left of who came before, and the next client hears the next alert."""
    await until(lambda: stand.gateway.clients == 0)
    assert stand.gateway.hub._groups == {}
    assert stand.gateway._floor.ticks._watches == {}
    talk = await stand.connect()
    assert (await talk.ask(subscribe("alerts")))["result"] == [{"ch": "alerts", "epoch": EPOCH, "off": 0}]
    stand.alerts.publish()
    heard = await talk.hear()
    assert (heard["ch"], heard["off"], heard["data"]["id"]) == ("alerts", 1, "al_1")
    codes = {f"closed_{int(code)}" for code in (CloseCode.PROTOCOL, CloseCode.BAD_TOKEN, CloseCode.RATE)}
    counters = stand.gateway.counters()
    assert (counters["alerts"], counters["clients"]) == (1, 1)
    assert set(counters) <= {"alerts", "clients", "bad_tokens", *codes}
    assert counters.get("bad_tokens", 0) == counters.get(f"closed_{int(CloseCode.BAD_TOKEN)}", 0)


def test_no_frame_whatever_makes_the_gateway_stumble() -> None:
    async def run(batch: list[str | bytes]) -> None:
        async with standing() as stand:
            for frame in batch:
                await _survives(stand, frame)
            await _serves_as_if_nothing_had_been(stand)

    @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(frames, min_size=5, max_size=20))
    def check(batch: list[str | bytes]) -> None:
        asyncio.run(run(batch))

    check()


def test_the_allowance_refills_with_time_and_holds_one_second_of_messages() -> None:
    allowance = Allowance(10, now_s=0.0)
    assert [allowance.take(0.0) for _ in range(11)] == [True] * 10 + [False]
    assert allowance.take(0.1) is True
    assert allowance.take(0.1) is False
    assert [allowance.take(60.0) for _ in range(11)] == [True] * 10 + [False]


async def test_a_talk_needs_no_more_than_one_connection_reset_error() -> None:
    """A client that vanishes in the middle of a replay ends quietly."""
    async with standing() as stand:
        stand.alerts.publish(5000)
        await stand.caught_up(5000)
        talk: Talk = await stand.connect(f"?ch=alerts&since={EPOCH}:0")
        await talk.hear()
        connection = talk.ws._response.connection
        assert isinstance(talk.ws, aiohttp.ClientWebSocketResponse)
        connection.transport.abort()
        await until(lambda: stand.gateway.clients == 0)
        assert "client_errors" not in stand.gateway.counters()
