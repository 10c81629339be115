"""The contract that every kind of receiver keeps: one test for each clause, run for each kind in the registry."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
import structlog
from aiohttp import web

from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, BundleKind, Notification, Notifier, NotifierOptions, Verdict, build_notifier
from rules.alert import Event
from tests.notifiers.receiving import (
    ALL,
    BADNESSES,
    OVER_HTTP,
    OVER_TCP,
    SECRET,
    WITH_CODES,
    Mailbox,
    bad_server,
    http_receiver,
    mail_server,
    opened,
    redis_server,
    section,
)

NOW_MS = 1_675_216_925_000
DIRTY = '*ST华微_*_<@all> <at user_id="all"></at> [点我](http://x) `涨` # | \U0001f680 \x00\x1b[31m\r\n第二行 & <b>'


def note(alert: Any, **changes: Any) -> Notification:
    built = alert(**changes)
    return Notification(alert=built, record=built.to_json(), now_ms=NOW_MS)


def bundle(alert: Any, count: int, **changes: Any) -> Bundle:
    alerts = tuple(alert(n, id=f"al_{n:020x}", symbol=f"{600000 + n}.SH", **changes) for n in range(count))
    records = tuple(one.to_json() for one in alerts)
    return Bundle(id="bu_1", kind=BundleKind.DIGEST, alerts=alerts, records=records, now_ms=NOW_MS)


@asynccontextmanager
async def good_receiver(kind: str, folder: Path) -> AsyncIterator[tuple[int, Callable[[], str]]]:
    """Serve a receiver that takes everything; yield its port and what it has been told so far, as text."""
    if kind == "tdx":
        yield 0, lambda: (folder / "extern_user.txt").read_bytes().decode("gbk")
    elif kind == "email":
        mailbox = Mailbox()
        async with mail_server(mailbox) as port:
            yield port, lambda: "\n".join(mail_text(content) for _, content in mailbox.mails)
    elif kind == "redis":
        async with redis_server() as (_, port):
            yield port, lambda: listed(port)
    else:
        async with http_receiver(kind) as (receiver, port):
            yield port, lambda: "\n".join(texts_in(json.loads(body)) for _, _, body in receiver.requests)


def mail_text(content: bytes) -> str:
    mail = message_from_bytes(content, policy=policy.default)
    return f"{mail['Subject']}\n{mail.get_content()}"


def listed(port: int) -> str:
    import redis

    with redis.Redis(port=port, protocol=2) as client:
        return b"\n".join(client.lrange("monitord:alerts", 0, -1)).decode()


def texts_in(value: Any) -> str:
    """Return every text of a JSON value, a line each."""
    if isinstance(value, dict):
        return "\n".join(map(texts_in, value.values()))
    return "\n".join(map(texts_in, value)) if isinstance(value, list) else str(value)


@asynccontextmanager
async def told(kind: str, folder: Path, **options: Any) -> AsyncIterator[tuple[Notifier, Callable[[], str]]]:
    async with good_receiver(kind, folder) as (port, heard):
        if kind == "redis":
            options["url"] = f"redis://127.0.0.1:{port}/0"
        async with opened(kind, port, folder, total_timeout_s=5, connect_timeout_s=2, **options) as notifier:
            yield notifier, heard


# ── success ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ALL)
async def test_an_alert_arrives_with_what_it_says(kind: str, alert: Any, tmp_path: Path) -> None:
    async with told(kind, tmp_path) as (notifier, heard):
        outcome = await notifier.send(note(alert))
        assert outcome.verdict is Verdict.OK, outcome
        for part in ("突破", "600519"):
            assert part in heard()
        assert "al_1" in heard() or kind == "tdx"


@pytest.mark.parametrize("kind", ALL)
async def test_a_full_bundle_arrives_in_one_message_with_every_id(kind: str, alert: Any, tmp_path: Path) -> None:
    async with told(kind, tmp_path) as (notifier, heard):
        many = bundle(alert, notifier.pacing.bundle_alerts, message="一条很长的消息 " * 30)
        outcome = await notifier.send_bundle(many)
        assert outcome.verdict is Verdict.OK, outcome
        words = heard().replace('"', " ").replace(",", " ").split()
        missing = [one for one in many.alerts if one.id not in words]
        if kind == "tdx":  # a sign of each stock; there is no room for ids
            missing = [one for one in many.alerts if (one.symbol or "")[:6] not in heard()]
        assert missing == []


@pytest.mark.parametrize("kind", ALL)
async def test_any_text_of_others_is_carried(kind: str, alert: Any, tmp_path: Path) -> None:
    async with told(kind, tmp_path) as (notifier, heard):
        dirty = {"message": DIRTY * 200, "name": DIRTY, "rule": DIRTY, "labels": {DIRTY: DIRTY}, "group": DIRTY}
        outcome = await notifier.send(note(alert, **dirty))
        assert outcome.verdict is Verdict.OK, outcome
        assert "al_1" in heard() or kind == "tdx"
        assert "\x1b" not in heard() or kind in {"webhook", "redis"}  # these carry the record as it is


@pytest.mark.parametrize("kind", ALL)
async def test_it_can_be_closed_twice_and_opened_again(kind: str, alert: Any, tmp_path: Path) -> None:
    async with told(kind, tmp_path) as (notifier, _):
        for number in range(2):
            await notifier.close()
            await notifier.close()
            await notifier.open()
            assert (await notifier.send(note(alert, number=number))).verdict is Verdict.OK


@pytest.mark.parametrize("kind", ALL)
def test_schedule_begins_at_once_and_grows(kind: str, tmp_path: Path) -> None:
    notifier = build_notifier(kind, name="contract", **section(kind, 1, tmp_path))
    delays = notifier.schedule.delays_s
    assert delays[0] == 0
    assert list(delays) == sorted(delays)
    assert notifier.pacing.bundle_alerts >= 2


@pytest.mark.parametrize("kind", ["dingtalk", "feishu", "wecom", "telegram", "bark", "pushplus", "serverchan"])
def test_chat_bots_are_tried_by_the_chat_schedule(kind: str, tmp_path: Path) -> None:
    notifier = build_notifier(kind, name="contract", **section(kind, 1, tmp_path))
    assert notifier.schedule.delays_s == (0, 2, 10, 30, 60, 120, 300)
    assert notifier.pacing.stale_after_s == 900


# ── trouble ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("badness", sorted(BADNESSES))
@pytest.mark.parametrize("kind", OVER_TCP)
async def test_a_bad_server_is_given_up_in_time_and_tried_again(
    kind: str, badness: str, alert: Any, tmp_path: Path
) -> None:
    async with bad_server(badness) as (connections, port), opened(kind, port, tmp_path) as notifier:
        started = asyncio.get_running_loop().time()
        outcome = await notifier.send(note(alert))
        assert outcome.verdict is Verdict.RETRY, outcome
        assert asyncio.get_running_loop().time() - started < 3
        assert connections


@pytest.mark.parametrize("kind", OVER_TCP)
async def test_a_closed_port_is_tried_again(kind: str, alert: Any, tmp_path: Path) -> None:
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    async with opened(kind, port, tmp_path) as notifier:
        assert (await notifier.send(note(alert))).verdict is Verdict.RETRY


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f000001", "017700000001", "[::ffff:127.0.0.1]"])
@pytest.mark.parametrize("kind", OVER_TCP)
async def test_no_private_address_is_connected_to_unless_allowed(
    kind: str, host: str, alert: Any, tmp_path: Path
) -> None:
    async with bad_server("hush") as (connections, port):
        if kind == "email":
            host = host.strip("[]")
        if kind == "apprise" and host.startswith("["):
            with pytest.raises(DeliveryError, match="none that Apprise knows"):
                build_notifier(kind, name="x", **section(kind, port, tmp_path, host))
            return
        async with opened(kind, port, tmp_path, host=host, allow_networks=[]) as notifier:
            outcome = await notifier.send(note(alert))
        assert outcome.verdict is not Verdict.OK
        if host in {"127.0.0.1", "localhost"}:
            assert outcome.verdict is Verdict.PERMANENT
            assert "allow_networks" in outcome.text
        assert connections == []


@pytest.mark.parametrize("status", [500, 502, 503, 429, 301, 302, 307, 308, 408, 425])
@pytest.mark.parametrize("kind", OVER_HTTP)
async def test_an_http_status_that_may_pass_is_tried_again(kind: str, status: int, alert: Any, tmp_path: Path) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.status, receiver.body, receiver.headers = status, b"", {"Retry-After": "7"}
        outcome = await notifier.send(note(alert))
        assert (outcome.verdict, outcome.code) == (Verdict.RETRY, status)
        assert outcome.retry_after_s == (7.0 if status in {429, 503} else None)


@pytest.mark.parametrize("status", [500, 429, 301])
@pytest.mark.parametrize("kind", WITH_CODES)
async def test_a_code_of_success_under_an_http_failure_is_no_success(
    kind: str, status: int, alert: Any, tmp_path: Path
) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.status = status
        assert (await notifier.send(note(alert))).verdict is Verdict.RETRY


@pytest.mark.parametrize("kind", OVER_HTTP)
async def test_what_is_gone_is_for_good(kind: str, alert: Any, tmp_path: Path) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.status, receiver.body = 404, b"nginx"
        assert (await notifier.send(note(alert))).verdict is Verdict.PERMANENT
        receiver.status = 410
        assert (await notifier.send(note(alert))).verdict is Verdict.DISABLE


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("kind", OVER_HTTP)
async def test_a_refusal_is_for_good_unless_it_comes_without_the_code_the_receiver_speaks_by(
    kind: str, status: int, alert: Any, tmp_path: Path
) -> None:
    """A proxy or a front door knows nothing of the message."""
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.status, receiver.body = status, b"nginx"
        expected = Verdict.RETRY if kind in WITH_CODES else Verdict.PERMANENT
        assert (await notifier.send(note(alert))).verdict is expected


NO_ANSWERS = [
    b"", b"ok", b"null", b"[]", b"0", b"{}", b'{"status":1111,"wait":5,"source":"x5","punish":"deny"}',
    b'{"errcode":"0","code":"0","ok":"true"}', b'{"errcode":null,"code":null,"ok":1}', b'{"errcode":0.0,"code":200.0}',
    b'{"errcode":false,"code":false}', b"<html>login</html>", b'\xff\xfe{"errcode":0}', b'{"errcode":0',
    b'[{"errcode":0,"code":0,"ok":true}]', b'{"data":{"errcode":0,"code":0}}',
]  # fmt: skip


@pytest.mark.parametrize("body", NO_ANSWERS)
@pytest.mark.parametrize("kind", WITH_CODES)
async def test_http_200_without_the_protocols_code_is_no_success(
    kind: str, body: bytes, alert: Any, tmp_path: Path
) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.body = body
        assert (await notifier.send(note(alert))).verdict is Verdict.RETRY


@pytest.mark.parametrize("kind", WITH_CODES)
async def test_a_gzip_bomb_and_a_gigabyte_are_no_success_and_take_no_memory(
    kind: str, alert: Any, tmp_path: Path
) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path, total_timeout_s=5) as notifier:
        receiver.headers, receiver.body = {"Content-Encoding": "gzip"}, gzip.compress(receiver.body + bytes(50_000_000))
        assert (await notifier.send(note(alert))).verdict is Verdict.RETRY
        receiver.answer = receiver.pour
        assert (await notifier.send(note(alert))).verdict is Verdict.RETRY
        assert receiver.written < 64_000_000


@pytest.mark.parametrize("kind", [*OVER_HTTP, "apprise"])
async def test_a_redirect_is_followed_to_no_private_address(kind: str, alert: Any, tmp_path: Path) -> None:
    allowed, other = ["127.0.0.1/32"], "127.0.0.2"
    target = await asyncio.start_server(lambda r, w: reached.append(1), other, 0)
    reached: list[int] = []
    async with (
        http_receiver(kind) as (receiver, port),
        opened(kind, port, tmp_path, allow_networks=allowed) as notifier,
    ):
        inside = f"http://{other}:{target.sockets[0].getsockname()[1]}/latest/meta-data/"
        for location in (inside, "http://169.254.169.254/latest/meta-data/"):
            receiver.status, receiver.headers = 307, {"Location": location}
            assert (await notifier.send(note(alert))).verdict is not Verdict.OK
    target.close()
    assert reached == []


# ── secrets ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def _echo(request: web.Request, body: bytes) -> web.Response:
    status = int(request.headers.get("X-Status", "200"))
    told = {"errcode": 310000, "code": 999, "errmsg": f"{request.url} {dict(request.headers)} {body.decode()}"}
    return web.Response(status=status, text=json.dumps(told, ensure_ascii=False))


@pytest.mark.parametrize("kind", ALL)
async def test_planted_secrets_show_up_nowhere(
    kind: str, alert: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Every way of failing, with a receiver that echoes what it was told: url, token and secrets stay inside."""
    caplog.set_level("DEBUG")
    shown: list[str] = []

    async def attempt(port: int, **options: Any) -> None:
        async with opened(kind, port, tmp_path, **options) as notifier:
            shown.extend((repr(notifier.options), str(notifier.options), repr(notifier)))
            shown.append(repr(await notifier.send(note(alert))))
            shown.append(repr(await notifier.send_bundle(bundle(alert, 2))))

    with structlog.testing.capture_logs() as logs:
        async with http_receiver(kind) as (receiver, port):
            receiver.answer = _echo
            await attempt(port)
            receiver.answer, receiver.status = None, 403
            await attempt(port)
            await attempt(port, allow_networks=[])
        for badness in ("hush", "garble", "hang"):
            async with bad_server(badness) as (_, port):
                await attempt(port)
        await attempt(port)  # closed by now
    output = capfd.readouterr()
    everything = "\n".join([*shown, repr(logs), output.out, output.err, caplog.text])
    assert SECRET not in everything


@pytest.mark.parametrize("kind", ALL)
def test_a_section_that_is_refused_shows_no_secret(kind: str, tmp_path: Path) -> None:
    fields = section(kind, 1, tmp_path)
    said: list[str] = []
    for key in fields.keys() & {"url", "secret", "token", "key", "server"}:
        try:
            build_notifier(kind, name="contract", **{**fields, key: f"\x00{SECRET} {fields[key]}"})
        except DeliveryError as error:
            said.append(f"{error} {error.__cause__} {error!r}")
    assert SECRET not in "".join(said)
    assert said or kind in {"email", "tdx", "bark", "telegram", "pushplus"}


# ── options that all have ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ALL)
def test_every_kind_takes_filters_and_refuses_unknown_fields(kind: str, tmp_path: Path) -> None:
    fields = section(kind, 1, tmp_path)
    options: NotifierOptions = build_notifier(kind, name="x", events=["fire"], rules=["brk"], **fields).options
    assert (options.events, options.rules) == ((Event.FIRE,), ("brk",))
    with pytest.raises(Exception, match="no field colour"):
        build_notifier(kind, name="x", colour="red", **fields)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in {"webhook", "redis"}])
async def test_who_writes_for_people_writes_english_where_asked(kind: str, alert: Any, tmp_path: Path) -> None:
    async with told(kind, tmp_path, language="en") as (notifier, heard):
        await notifier.send(note(alert, message="breakout"))
        assert "fire" in heard()
        assert "触发" not in heard()
