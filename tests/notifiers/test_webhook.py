"""The webhook against real servers that accept, refuse, hang and lie."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import structlog
from yarl import URL

from notifiers.answer import judge, parse_retry_after
from notifiers.errors import DeliveryError
from notifiers.notifier import Notification, Outcome, Verdict
from notifiers.webhook import (
    WebhookNotifier,
    WebhookOptions,
    envelope,
    parse_secret,
    signature,
    signed_headers,
)

NOW_MS = 1_675_216_925_123
SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OLD_SECRET = "whsec_" + base64.b64encode(bytes(range(100, 148))).decode()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC written out after RFC 2104, to check the library's use against."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + message).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()


@asynccontextmanager
async def webhook(url: str, **options: Any) -> AsyncIterator[WebhookNotifier]:
    defaults: dict[str, Any] = {
        "name": "hook",
        "allow_networks": ("127.0.0.0/8",),
        "connect_timeout_s": 0.3,
        "total_timeout_s": 0.5,
    }
    notifier = WebhookNotifier(WebhookOptions(url=url, **{**defaults, **options}))
    await notifier.open()
    try:
        yield notifier
    finally:
        await notifier.close()


def notification(alert: Any, **changes: Any) -> Notification:
    built = alert(**changes)
    return Notification(alert=built, record=built.to_json(), now_ms=NOW_MS)


async def send_once(url: str, note: Notification, **options: Any) -> Outcome:
    async with webhook(url, **options) as notifier:
        return await notifier.send(note)


def test_signature_matches_the_published_example() -> None:
    key = parse_secret("hook", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    body = b'{"test": 2432232314}'
    assert signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, body) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("key", [bytes(24), bytes(range(64)), b"\xff" * 65, bytes(range(200))])
def test_signature_matches_hmac_written_out(key: bytes) -> None:
    body = '{"type":"alert.fire","data":{"名":"贵州茅台"}}'.encode()
    expected = base64.b64encode(hmac_sha256(key, b"al_1.1675216925." + body)).decode()
    assert signature(key, "al_1", 1_675_216_925, body) == "v1," + expected


def test_envelope_holds_the_record_bytes_unchanged(alert: Any) -> None:
    odd = b'{ "b":1.0,\n "a" : "\\u8d35" }'
    assert envelope("alert.fire", "2023-02-01T10:02:03.000+08:00", odd) == (
        b'{"type":"alert.fire","timestamp":"2023-02-01T10:02:03.000+08:00","data":' + odd + b"}"
    )
    record = alert().to_json()
    assert orjson.loads(envelope("alert.fire", "t", record)) == {
        "type": "alert.fire",
        "timestamp": "t",
        "data": orjson.loads(record),
    }


async def test_request_is_a_signed_post_that_a_receiver_can_verify(hook: Any, alert: Any) -> None:
    server, url = hook
    note = notification(alert)
    outcome = await send_once(f"{url}/200", note, secrets=(SECRET, OLD_SECRET))
    assert outcome == Outcome(verdict=Verdict.OK, code=200)
    (request,) = server.received
    headers = request.headers
    assert headers["content-type"] == "application/json"
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == ("al_1", "1675216925")
    signed = b"al_1.1675216925." + request.body
    keys = (bytes(range(32)), bytes(range(100, 148)))
    assert headers["webhook-signature"] == " ".join(
        "v1," + base64.b64encode(hmac_sha256(key, signed)).decode() for key in keys
    )
    payload = orjson.loads(request.body)
    assert list(payload) == ["type", "timestamp", "data"]
    assert payload["type"] == "alert.fire"
    assert payload["timestamp"] == payload["data"]["event_ts"] == "2023-02-01T10:02:03.000+08:00"
    assert request.body.endswith(b'"data":' + note.record + b"}")


def test_without_secrets_there_is_no_signature() -> None:
    assert "webhook-signature" not in signed_headers("al_1", 1, b"{}", ())


ANSWERS = [
    (200, Verdict.OK),
    (202, Verdict.OK),
    (204, Verdict.OK),
    (301, Verdict.RETRY),
    (307, Verdict.RETRY),
    (400, Verdict.PERMANENT),
    (401, Verdict.PERMANENT),
    (404, Verdict.PERMANENT),
    (408, Verdict.RETRY),
    (410, Verdict.DISABLE),
    (425, Verdict.RETRY),
    (429, Verdict.RETRY),
    (500, Verdict.RETRY),
    (502, Verdict.RETRY),
    (503, Verdict.RETRY),
    (599, Verdict.RETRY),
]


@pytest.mark.parametrize(("status", "verdict"), ANSWERS)
async def test_status_decides(hook: Any, alert: Any, status: int, verdict: Verdict) -> None:
    server, url = hook
    outcome = await send_once(f"{url}/{status}", notification(alert))
    assert (outcome.verdict, outcome.code) == (verdict, status)
    assert outcome.retry_after_s == (7.0 if status in {429, 503} else None)
    assert len(server.received) == 1


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [
        (None, None),
        ("0", 0),
        (" 120 ", 120),
        ("3600", 3600),
        ("86400", 3600),
        ("9" * 400, 3600),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("", None),
        ("Wed, 01 Feb 2023 02:03:05 GMT", 60 - 0.123),
        ("Wed, 01 Feb 2023 01:00:00 GMT", 0),
        ("Fri, 01 Feb 2030 02:03:05 GMT", 3600),
        ("Wed, 99 Feb 2023 02:03:05 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_bounded(text: str | None, pause_s: float | None) -> None:
    parsed = parse_retry_after(text, NOW_MS)
    assert parsed == (None if pause_s is None else pytest.approx(pause_s, abs=0.001))


def test_only_429_and_503_may_ask_for_a_pause() -> None:
    assert judge(500, "60", "", NOW_MS).retry_after_s is None
    assert judge(503, "60", "", NOW_MS).retry_after_s == 60


async def test_a_redirect_is_not_followed(hook: Any, alert: Any) -> None:
    target = socket.create_server(("127.0.0.1", 0))
    target.setblocking(False)
    server, url = hook
    server.location = f"http://127.0.0.1:{target.getsockname()[1]}/latest/meta-data/"
    for status in (301, 302, 303, 307, 308):
        outcome = await send_once(f"{url}/{status}", notification(alert))
        assert outcome.verdict is Verdict.RETRY
    with pytest.raises(BlockingIOError):
        target.accept()
    target.close()
    assert len(server.received) == 5


async def test_a_receiver_that_hangs_is_given_up_in_time(hook: Any, alert: Any) -> None:
    _, url = hook
    started = asyncio.get_running_loop().time()
    outcome = await send_once(f"{url}/hang", notification(alert))
    assert outcome == Outcome(verdict=Verdict.RETRY, text="no answer from 127.0.0.1 in time")
    assert asyncio.get_running_loop().time() - started < 2


@asynccontextmanager
async def raw_server(answer: Any) -> AsyncIterator[str]:
    """Serve one function of (reader, writer) on loopback; yield its URL."""
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    finally:
        server.close()


async def test_headers_that_drip_are_given_up_in_time(alert: Any) -> None:
    stop = asyncio.Event()

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while not stop.is_set():
            writer.write(b"a")
            try:
                await asyncio.wait_for(stop.wait(), 0.02)
            except TimeoutError:
                continue
        writer.close()

    async with raw_server(drip) as url:
        outcome = await send_once(url, notification(alert))
        stop.set()
    assert outcome.verdict is Verdict.RETRY


async def test_a_body_that_drips_does_not_undo_the_status(
    hook: Any, alert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifiers.egress.BODY_WAIT_S", 0.05)
    _, url = hook
    assert (await send_once(f"{url}/drip", notification(alert))).verdict is Verdict.OK


async def test_a_gigabyte_and_a_bomb_are_answers_like_others(hook: Any, alert: Any) -> None:
    server, url = hook
    for path in ("huge", "bomb"):
        outcome = await send_once(f"{url}/{path}", notification(alert), total_timeout_s=5)
        assert (outcome.verdict, outcome.code) == (Verdict.RETRY, 500)
        assert len(outcome.text) <= 200
    assert server.bytes_written < 64_000_000


@pytest.mark.parametrize("answer", [b"", b"HTTP/9.9 banana\r\n\r\n", b"\x16\x03\x01\x02", b"HTTP/1.1 200 OK\r\nA"])
async def test_an_answer_that_is_not_http_is_tried_again(alert: Any, answer: bytes) -> None:
    async def garble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with raw_server(garble) as url:
        assert (await send_once(url, notification(alert))).verdict is Verdict.RETRY


async def test_endless_headers_are_bounded(alert: Any) -> None:
    async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n")
        writer.close()

    async with raw_server(pour) as url:
        assert (await send_once(url, notification(alert))).verdict is Verdict.RETRY


async def test_reset_refused_and_unknown_hosts_are_tried_again(hook: Any, alert: Any) -> None:
    _, url = hook
    assert (await send_once(f"{url}/reset", notification(alert))).verdict is Verdict.RETRY
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    refused = await send_once(f"http://127.0.0.1:{port}/x", notification(alert))
    assert refused.verdict is Verdict.RETRY
    assert "ECONNREFUSED" in refused.text
    unknown = await send_once("http://no-such-host.invalid/x", notification(alert))
    assert unknown.verdict is Verdict.RETRY


async def test_a_private_address_is_refused_for_good_and_never_connected_to(hook: Any, alert: Any) -> None:
    server, url = hook
    for target in (url, url.replace("127.0.0.1", "localhost")):
        outcome = await send_once(f"{target}/200", notification(alert), allow_networks=())
        assert outcome.verdict is Verdict.PERMANENT
        assert "allow_networks" in outcome.text
    mapped = await send_once(str(URL(url).with_host("::ffff:127.0.0.1")), notification(alert))
    assert mapped.verdict is Verdict.PERMANENT
    assert server.received == []


async def test_one_connection_serves_many_alerts_and_the_session_can_be_reopened(hook: Any, alert: Any) -> None:
    server, url = hook
    async with webhook(f"{url}/200") as notifier:
        for number in range(3):
            assert (await notifier.send(notification(alert, number=number))).verdict is Verdict.OK
        await notifier.close()
        await notifier.close()
        with pytest.raises(DeliveryError, match="not open"):
            await notifier.send(notification(alert))
        await notifier.open()
        assert (await notifier.send(notification(alert))).verdict is Verdict.OK
    assert len(server.received) == 4


async def test_cancelling_a_send_leaves_no_connection(hook: Any, alert: Any) -> None:
    server, url = hook
    async with webhook(f"{url}/hang", total_timeout_s=30) as notifier:
        task = asyncio.create_task(notifier.send(notification(alert)))
        await server.arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


BAD_URLS = ["", "hook.example/x", "ftp://h/x", "file:///etc/passwd", "http:///", "http://[::1/x", "http://h:99999/x"]


@pytest.mark.parametrize("url", BAD_URLS)
def test_bad_url_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(DeliveryError, match="receiver hook: url") as caught:
        WebhookNotifier(WebhookOptions(name="hook", url=url + "tok3n"))
    assert "tok3n" not in str(caught.value)


@pytest.mark.parametrize(
    "secret", ["", "plain", "whsec_", "whsec_not base64!", "whsec_" + base64.b64encode(b"a" * 23).decode()]
)
def test_bad_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(DeliveryError, match="whsec_") as caught:
        WebhookNotifier(WebhookOptions(name="hook", url="https://h.example/x", secrets=(secret,)))
    assert "plain" not in str(caught.value)
    assert "base64!" not in str(caught.value)


async def test_planted_secrets_show_up_nowhere(hook: Any, alert: Any, capfd: pytest.CaptureFixture[str]) -> None:
    """Every way of failing, with a receiver that echoes what it was called: url, token and secrets stay inside."""
    server, base = hook
    server.echo = True
    closed = socket.create_server(("127.0.0.1", 0))
    dead = f"http://127.0.0.1:{closed.getsockname()[1]}"
    closed.close()
    tail = "pl4nted-path/{}?access_token=pl4nted-token"
    urls = [f"{base}/{tail.format(kind)}" for kind in (200, 301, 400, 410, 429, 500, "hang", "reset", "bomb")]
    urls += [f"{dead}/{tail.format('x')}", f"http://no-such-host.invalid/{tail.format('x')}"]
    shown: list[str] = []
    secret = "whsec_" + base64.b64encode(b"pl4nted-secret-pl4nted-secret").decode()
    with structlog.testing.capture_logs() as logs:
        for url in urls:
            for allow in (("127.0.0.0/8",), ()):
                async with webhook(url, secrets=(secret,), allow_networks=allow) as notifier:
                    shown += [repr(notifier.options), str(notifier.options), repr(notifier), notifier.host]
                    shown.append(repr(await notifier.send(notification(alert))))
    output = capfd.readouterr()
    everything = "\n".join([*shown, repr(logs), output.out, output.err])
    assert server.received
    assert "***" in everything
    for planted in ("pl4nted", secret, secret.removeprefix("whsec_")):
        assert planted not in everything
