"""DingTalk, Feishu, WeCom and the other chat bots against stand-ins that check what the vendors check."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from notifiers import dingtalk, feishu
from notifiers.errors import DeliveryError
from notifiers.notifier import Notification, Notifier, Outcome, Verdict, build_notifier
from tests.notifiers.conftest import build_alert
from tests.notifiers.receiving import http_receiver, opened
from tests.notifiers.vendors import BOTS, Bot, hmac_sha256

NOW_MS = 1_675_216_925_000


class Clock:
    """Time that a test sets."""

    def __init__(self) -> None:
        self.ms = NOW_MS

    def now(self) -> int:
        return self.ms


@asynccontextmanager
async def chat(
    kind: str, folder: Path, *, bot: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[tuple[Notifier, Bot, Clock]]:
    """Serve a stand-in with these checks and open a receiver that leads to it."""
    clock = Clock()
    standin = BOTS[kind](now_ms=clock.now, **(bot or {}))

    async def answer(request: web.Request, body: bytes) -> web.Response:
        status, told = standin.answer(request.path, request.rel_url.raw_query_string, body)
        return web.json_response(told, status=status)

    async with http_receiver(kind) as (receiver, port), opened(kind, port, folder, total_timeout_s=5, **options) as one:
        receiver.answer = answer
        yield one, standin, clock


async def send(notifier: Notifier, clock: Clock, number: int = 1, **changes: Any) -> Outcome:
    alert = build_alert(number, id=f"al_{number:020x}", **changes)
    return await notifier.send(Notification(alert=alert, record=alert.to_json(), now_ms=clock.ms))


# ── signatures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_signatures_are_what_openssl_computes() -> None:
    """printf '1675216925123\\nSEC…' | openssl dgst -sha256 -hmac SEC… -binary | base64, and Feishu's with a hex key."""
    assert dingtalk.sign("SEC0123456789abcdef", 1_675_216_925_123) == "0d3Wq+y75HUSdev1VIgXG41SIvddBgHmhj9R5kHDGQE="
    assert feishu.sign("feishuS3cret", 1_675_216_925) == "MUzzWmyYoJbVJeWlJnPtl8skFbgHit9psa++ujWxkuI="


@pytest.mark.parametrize("secret", ["SEC", "SEC" + "x" * 80, "钥匙"])
def test_signatures_are_what_hmac_written_out_gives(secret: str) -> None:
    for now_ms in range(NOW_MS, NOW_MS + 50):
        ours = dingtalk.sign(secret, now_ms)
        assert base64.b64decode(ours) == hmac_sha256(secret.encode(), f"{now_ms}\n{secret}".encode())
        assert base64.b64decode(feishu.sign(secret, now_ms)) == hmac_sha256(f"{now_ms}\n{secret}".encode(), b"")


@pytest.mark.parametrize("kind", ["dingtalk", "feishu"])
async def test_a_sign_with_every_special_character_is_taken(kind: str, tmp_path: Path) -> None:
    """Some signatures have + / = in them, which an address has to spell otherwise: double or no encoding fails."""
    bot = {"secret": "SECpl4nted-secret"}
    async with chat(kind, tmp_path, bot=bot, secret="SECpl4nted-secret") as (notifier, standin, clock):
        for number in range(40):
            clock.ms += 60_001
            assert (await send(notifier, clock, number)).verdict is Verdict.OK
        assert len(standin.texts) == 40


@pytest.mark.parametrize(("kind", "code"), [("dingtalk", 310000), ("feishu", 19021)])
async def test_a_wrong_secret_or_clock_is_for_good(kind: str, code: int, tmp_path: Path) -> None:
    async with chat(kind, tmp_path, bot={"secret": "another"}) as (notifier, standin, clock):
        outcome = await send(notifier, clock)
        assert (outcome.verdict, outcome.code) == (Verdict.PERMANENT, code)
        assert "clock" in outcome.text
    async with chat(kind, tmp_path, bot={"secret": "s"}, secret="s") as (notifier, standin, clock):
        for skew_ms, verdict in ((3_602_000, Verdict.PERMANENT), (3_500_000, Verdict.OK), (-3_500_000, Verdict.OK)):
            ahead = Clock()
            ahead.ms = clock.ms + skew_ms
            assert (await send(notifier, ahead)).verdict is verdict
        assert len(standin.texts) == 2


# ── keyword, calls, formats ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "code"), [("dingtalk", 310000), ("feishu", 19024)])
@pytest.mark.parametrize("keyword", ["监控", "stock_*alert"])
async def test_a_keyword_is_in_each_message_once_it_is_set(kind: str, code: int, keyword: str, tmp_path: Path) -> None:
    async with chat(kind, tmp_path, bot={"keyword": keyword}) as (notifier, _, clock):
        outcome = await send(notifier, clock)
        assert (outcome.verdict, outcome.code) == (Verdict.PERMANENT, code)
        assert "keyword" in outcome.text
    for form in (None, "text"):
        options = {"format": form} if form else {}
        async with chat(kind, tmp_path, bot={"keyword": keyword}, keyword=keyword, **options) as (notifier, _, clock):
            assert (await send(notifier, clock)).verdict is Verdict.OK


@pytest.mark.parametrize("keyword", ["涨停", "rocket"])
async def test_a_keyword_that_a_long_title_loses_at_its_end_is_told_all_the_same(keyword: str, tmp_path: Path) -> None:
    """It stands in the title already, but behind what a title may have."""
    named = {"rule": "r" * 60 + keyword, "message": "-", "name": ""}
    async with chat("dingtalk", tmp_path, bot={"keyword": keyword}, keyword=keyword, format="text") as (
        one,
        bot,
        clock,
    ):
        assert (await send(one, clock, **named)).verdict is Verdict.OK
        assert keyword in bot.texts[0]


async def test_dingtalk_calls_whom_it_is_to_call(tmp_path: Path) -> None:
    async with chat("dingtalk", tmp_path, at_mobiles=["13800000000"], at_all=True) as (notifier, bot, clock):
        await send(notifier, clock)
        assert bot.bodies[0]["at"] == {"atMobiles": ["13800000000"], "atUserIds": [], "isAtAll": True}
        assert bot.texts[0].endswith("@13800000000")


async def test_feishu_calls_in_cards_and_texts(tmp_path: Path) -> None:
    called = {"at_user_ids": ["ou_1"], "at_all": True}
    async with chat("feishu", tmp_path, **called) as (notifier, bot, clock):
        await send(notifier, clock, severity="critical")
        assert bot.texts[0].endswith("<at id=ou_1></at><at id=all></at>")
        assert bot.bodies[0]["card"]["header"]["template"] == "red"
    async with chat("feishu", tmp_path, format="text", **called) as (notifier, bot, clock):
        await send(notifier, clock)
        assert bot.texts[0].endswith('<at user_id="ou_1"></at><at user_id="all"></at>')


async def test_wecom_calls_by_id_in_markdown_and_by_number_in_text(tmp_path: Path) -> None:
    async with chat("wecom", tmp_path, at_user_ids=["zhang"]) as (notifier, bot, clock):
        await send(notifier, clock, message="涨" * 5000)
        assert bot.texts[0].endswith("<@zhang>")
    async with chat("wecom", tmp_path, format="text", at_mobiles=["138"], at_all=True) as (notifier, bot, clock):
        await send(notifier, clock, message="涨" * 5000)
        assert bot.bodies[0]["text"]["mentioned_list"] == ["@all"]
        assert bot.bodies[0]["text"]["mentioned_mobile_list"] == ["138"]
    with pytest.raises(DeliveryError, match='format = "text"'):
        build_notifier("wecom", name="x", url="https://h.example/?key=k", at_all=True)


@pytest.mark.parametrize("kind", sorted(BOTS))
async def test_the_longest_message_is_within_the_vendors_limit(kind: str, tmp_path: Path) -> None:
    for message in ("涨" * 30_000, '"\\\n' * 20_000, "<&>" * 10_000, "\U0001f680" * 10_000):
        async with chat(kind, tmp_path) as (notifier, bot, clock):
            outcome = await send(notifier, clock, message=message)
            assert outcome.verdict is Verdict.OK, outcome
            assert f"al_{1:020x}" in bot.texts[0]


# ── every code of the table ───────────────────────────────────────────────────────────────────────────────────────────

TABLE: list[tuple[str, Any, Verdict, float | None]] = [
    ("dingtalk", {"errcode": 0, "errmsg": "ok"}, Verdict.OK, None),
    ("dingtalk", {"errcode": -1}, Verdict.RETRY, None),
    ("dingtalk", {"errcode": 130101}, Verdict.RETRY, 600),
    ("dingtalk", {"errcode": 410100}, Verdict.RETRY, 600),
    ("dingtalk", {"status": 1111, "wait": 5, "punish": "deny"}, Verdict.RETRY, 60),
    ("dingtalk", {"errmsg": "ok"}, Verdict.RETRY, None),
    *(("dingtalk", {"errcode": code}, Verdict.PERMANENT, None) for code in (310000, 300005)),
    *(("dingtalk", {"errcode": code}, Verdict.PERMANENT, None) for code in (400101, 400102, 400105, 400106, 400199)),
    *(("dingtalk", {"errcode": code}, Verdict.PERMANENT, None) for code in (430101, 430102, 430103, 430104)),
    ("dingtalk", {"errcode": 987654}, Verdict.RETRY, None),
    ("feishu", {"code": 0, "msg": "success"}, Verdict.OK, None),
    ("feishu", {"StatusCode": 0, "StatusMessage": "success"}, Verdict.OK, None),
    ("feishu", {"code": 11232}, Verdict.RETRY, 60),
    ("feishu", {"code": 2200}, Verdict.RETRY, None),
    ("feishu", {"code": 19021, "StatusCode": 0}, Verdict.PERMANENT, None),
    *(("feishu", {"code": code}, Verdict.PERMANENT, None) for code in (9499, 19001, 19002, 19021, 19022, 19024)),
    ("feishu", {"code": 12345}, Verdict.RETRY, None),
    ("wecom", {"errcode": 0, "errmsg": "ok"}, Verdict.OK, None),
    ("wecom", {"errcode": -1}, Verdict.RETRY, None),
    ("wecom", {"errcode": 45009}, Verdict.RETRY, 60),
    *(("wecom", {"errcode": code}, Verdict.PERMANENT, None) for code in (93000, 40058)),
    ("telegram", {"ok": True, "result": {}}, Verdict.OK, None),
    ("telegram", {"ok": False, "error_code": 429, "parameters": {"retry_after": 35}}, Verdict.RETRY, 35),
    ("telegram", {"ok": False, "error_code": 500}, Verdict.RETRY, None),
    ("telegram", {"ok": False, "error_code": 0}, Verdict.RETRY, None),
    *(("telegram", {"ok": False, "error_code": code}, Verdict.PERMANENT, None) for code in (400, 401, 403, 404)),
    ("bark", {"code": 200}, Verdict.OK, None),
    ("bark", {"code": 400, "message": "failed to get device token"}, Verdict.PERMANENT, None),
    ("bark", {"code": 500}, Verdict.RETRY, None),
    ("pushplus", {"code": 200, "data": "1"}, Verdict.OK, None),
    ("pushplus", {"code": 500}, Verdict.RETRY, None),
    ("pushplus", {"code": 900}, Verdict.RETRY, 3600),
    *(("pushplus", {"code": code}, Verdict.PERMANENT, None) for code in (401, 403, 600, 888, 903, 905, 999)),
    ("serverchan", {"code": 0, "data": {}}, Verdict.OK, None),
    ("serverchan", {"code": 40001, "message": "bad key"}, Verdict.PERMANENT, None),
    ("serverchan", {"code": 0, "data": {"errno": 0, "error": "SUCCESS"}}, Verdict.OK, None),
    ("serverchan", {"code": 0, "data": {"errno": 1, "error": "FAIL"}}, Verdict.RETRY, None),
    ("serverchan", {"code": 0, "errno": 40001, "data": {"errno": 0}}, Verdict.PERMANENT, None),
    ("serverchan", {"code": 0, "data": {"errno": "0"}}, Verdict.RETRY, None),
    ("serverchan", {"errno": 0, "errmsg": "success"}, Verdict.OK, None),
    ("serverchan", {"errno": 0, "data": {"errno": 1024}}, Verdict.RETRY, None),
    ("serverchan", {"code": 40001, "message": "[AUTH]超过当天的发送次数限制[5]，请稍后再试"}, Verdict.RETRY, 3600),
]


@pytest.mark.parametrize(("kind", "told", "verdict", "pause_s"), TABLE)
@pytest.mark.parametrize("status", [200, 400])
async def test_every_code_means_what_the_table_says(
    kind: str, told: Any, verdict: Verdict, pause_s: float | None, status: int, tmp_path: Path
) -> None:
    async with http_receiver(kind) as (receiver, port), opened(kind, port, tmp_path) as notifier:
        receiver.status, receiver.body = status, json.dumps(told).encode()
        outcome = await send(notifier, Clock())
    coded = any(name in told for name in ("errcode", "code", "StatusCode", "error_code"))
    if status == 400 and verdict is Verdict.OK:
        assert outcome.verdict is not Verdict.OK
    elif status == 200 or coded:
        assert (outcome.verdict, outcome.retry_after_s) == (verdict, pause_s)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (400, Verdict.RETRY),
        (403, Verdict.RETRY),
        (404, Verdict.PERMANENT),
        (410, Verdict.DISABLE),
        (503, Verdict.RETRY),
    ],
)
async def test_a_front_doors_page_without_a_code_passes(status: int, verdict: Verdict, tmp_path: Path) -> None:
    async with http_receiver("dingtalk") as (receiver, port), opened("dingtalk", port, tmp_path) as notifier:
        receiver.status, receiver.body = status, b'{"status":1111,"wait":5}'
        assert (await send(notifier, Clock())).verdict is verdict


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_compressed_answer_is_read(encoding: str, tmp_path: Path) -> None:
    async def answer(request: web.Request, body: bytes) -> web.Response:
        told = b'{"errcode":0,"errmsg":"ok"}'
        packed = gzip.compress(told) if encoding == "gzip" else zlib.compress(told)
        return web.Response(body=packed, headers={"Content-Encoding": encoding})

    async with http_receiver("dingtalk") as (receiver, port), opened("dingtalk", port, tmp_path) as notifier:
        receiver.answer = answer
        assert (await send(notifier, Clock())).verdict is Verdict.OK


async def test_a_late_body_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("notifiers.egress.BODY_WAIT_S", 0.0)

    async def answer(request: web.Request, body: bytes) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b'{"errcode"')
        await response.write(b':0,"errmsg":"ok"}')
        return response

    async with http_receiver("dingtalk") as (receiver, port), opened("dingtalk", port, tmp_path) as notifier:
        receiver.answer = answer
        assert (await send(notifier, Clock())).verdict is Verdict.OK


async def test_http_5xx_with_a_code_of_its_own_is_judged_by_the_code(tmp_path: Path) -> None:
    async with chat("feishu", tmp_path) as (notifier, bot, clock):
        for status, code, verdict in ((500, 2200, Verdict.RETRY), (500, 19001, Verdict.PERMANENT)):
            bot.forced.append((status, {"code": code, "msg": "x"}))
            assert (await send(notifier, clock)).verdict is verdict


async def test_telegram_writes_html_to_its_chat(tmp_path: Path) -> None:
    async with http_receiver("telegram") as (receiver, port), opened("telegram", port, tmp_path, thread_id=7) as one:
        await send(one, Clock(), message="a < b & c")
        path, _, body = receiver.requests[0]
        told = json.loads(body)
    assert path == "/bot123:pl4nted-token/sendMessage"
    assert (told["chat_id"], told["parse_mode"], told["message_thread_id"]) == ("-1001", "HTML", 7)
    assert "a &lt; b &amp; c" in told["text"]


@pytest.mark.parametrize(
    ("severity", "level"), [("critical", "timeSensitive"), ("warning", "active"), ("info", "passive")]
)
async def test_bark_keeps_its_key_out_of_the_address_and_rings_by_severity(
    severity: str, level: str, tmp_path: Path
) -> None:
    async with http_receiver("bark") as (receiver, port), opened("bark", port, tmp_path) as one:
        await send(one, Clock(), severity=severity)
        path, _, body = receiver.requests[0]
    assert path == "/push"
    assert json.loads(body)["device_key"] == "pl4nted-token"
    assert json.loads(body)["level"] == level


@pytest.mark.parametrize(
    ("key", "address"),
    [("SCT12345Tabcdef", "https://sctapi.ftqq.com/SCT12345Tabcdef.send"),
     ("sctp678tabc", "https://678.push.ft07.com/send/sctp678tabc.send")],
)  # fmt: skip
def test_serverchan_asks_where_its_key_belongs(key: str, address: str) -> None:
    assert str(build_notifier("serverchan", name="x", key=key)._url) == address  # type: ignore[attr-defined]
    with pytest.raises(DeliveryError, match="no SendKey"):
        build_notifier("serverchan", name="x", key="../evil")


# ── rates ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("kind", "limit", "pause_s"), [("dingtalk", 20, 600), ("feishu", 5, 60), ("wecom", 20, 60)])
async def test_too_fast_is_no_success_and_asks_for_the_vendors_pause(
    kind: str, limit: int, pause_s: float, tmp_path: Path
) -> None:
    async with chat(kind, tmp_path) as (notifier, bot, clock):
        outcomes = [await send(notifier, clock, number) for number in range(limit + 1)]
        assert [outcome.verdict for outcome in outcomes] == [Verdict.OK] * limit + [Verdict.RETRY]
        assert outcomes[-1].retry_after_s == pause_s
        clock.ms += int(pause_s * 1000) - 1
        if kind == "dingtalk":
            assert (await send(notifier, clock)).verdict is Verdict.RETRY
        clock.ms += 1
        assert (await send(notifier, clock)).verdict is Verdict.OK
        assert len(bot.texts) == limit + 1


def test_rates_are_within_those_of_the_vendors() -> None:
    rate: Callable[[str], set[tuple[int, float]]] = lambda kind: {  # noqa: E731
        (one.messages, one.window_s)
        for one in build_notifier(kind, name="x", url="https://h.example/?key=k").pacing.rates
    }
    assert rate("dingtalk") == {(19, 60.0)}
    assert rate("feishu") == {(95, 60.0), (5, 1.0)}
    assert rate("wecom") == {(20, 60.0)}
