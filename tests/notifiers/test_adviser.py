"""The adviser over a local server that speaks the protocol: what it asks, what its answers become, its bounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest
from aiohttp import web

from notifiers.adviser import Adviser, AdviserOptions
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, BundleKind, Notification, Outcome, Verdict
from rules.alert import Alert, Event

KEY = "sk-very-secret-key"
NOW_MS = 1_675_216_930_000
ALERT = Alert(
    id="al_1", episode_id="ep_1", event=Event.FIRE, rule="task-3.entry", rev="r", symbol="600519.SH", name="贵州茅台",
    labels={"task": "3"}, trade_date="2023-02-01", episode=1, ts_event_ms=1_675_216_923_000, period="tick",
    values={"LAST": 1849.0}, tick={"last": 1849.0}, message="进入买入区间", stamps={"evaluated_ms": NOW_MS - 5},
)  # fmt: skip
ADVICE = {"decision": "buy", "confidence": 80, "reasons": ["站上均线", "量能配合"]}


class Model:
    """An endpoint that answers as it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.status, self.text, self.usage, self.body = 200, orjson.dumps(ADVICE).decode(), {"total_tokens": 120}, b""
        self.hangs, self.released = False, asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.asked.append(orjson.loads(await request.read()))
        self.keys.append(request.headers.get("Authorization"))
        if self.hangs:
            await self.released.wait()
        answer: Any = {"choices": [{"message": {"role": "assistant", "content": self.text}}], "usage": self.usage}
        body = self.body or orjson.dumps(answer)
        return web.Response(status=self.status, body=body, content_type="application/json")


@pytest.fixture
async def model() -> AsyncIterator[Model]:
    model = Model()
    application = web.Application()
    application.router.add_post("/v1/chat/completions", model.handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    model.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    yield model
    model.released.set()
    await runner.cleanup()


class Asking:
    """An adviser, and the events its answers became."""

    def __init__(self, model: Model, **options: Any) -> None:
        given = {
            "name": "adviser", "url": model.url, "key": KEY, "model": "m-1",
            "allow_networks": ("127.0.0.0/8",), **options,
        }  # fmt: skip
        self.told: list[Alert] = []
        self.adviser = Adviser(AdviserOptions(**given), tell=self._tell)

    async def _tell(self, alert: Alert) -> None:
        self.told.append(alert)

    async def about(self, alert: Alert = ALERT, *, now_ms: int = NOW_MS) -> Outcome:
        await self.adviser.open()
        try:
            return await self.adviser.send(Notification(alert=alert, record=alert.to_json(), now_ms=now_ms))
        finally:
            await self.adviser.close()


async def test_an_answer_becomes_a_later_event_of_the_task(model: Model) -> None:
    asking = Asking(model)
    assert await asking.about() == Outcome(verdict=Verdict.OK, code=200, text="120 tokens")
    (asked,), (advice,) = model.asked, asking.told
    assert (asked["model"], asked["max_tokens"], model.keys) == ("m-1", 300, [f"Bearer {KEY}"])
    context = orjson.loads(asked["messages"][1]["content"])
    assert (context["symbol"], context["message"], context["values"]) == ("600519.SH", "进入买入区间", {"LAST": 1849.0})
    assert (advice.rule, advice.symbol, advice.event) == ("task-3.advice", "600519.SH", Event.FIRE)
    assert advice.labels == {"about": "al_1", "about_rule": "task-3.entry", "decision": "buy", "model": "m-1"}
    assert advice.values == {"CONFIDENCE": 80.0, "TOKENS": 120.0}
    assert advice.message == "buy: 站上均线；量能配合"
    await asking.about()
    assert asking.told[0].id == asking.told[1].id  # a second try's answer is known by its id


@pytest.mark.parametrize(
    ("text", "decision", "confidence", "message"),
    [
        ('```json\n{"decision":"sell","confidence":70,"reasons":["x"]}\n```', "sell", 70.0, "sell: x"),
        ('{"decision":"all in","confidence":900,"reasons":["x"]}', "unknown", None, "unknown: x"),
        ("I would buy.", "unknown", None, "unknown: I would buy."),
        ("{broken", "unknown", None, "unknown: {broken"),
        (f"your key is {KEY}\n\x00", "unknown", None, "unknown: your key is ***"),
        ("长" * 5000, "unknown", None, None),
    ],
)
async def test_whatever_a_model_says_becomes_an_event_that_can_be_told(
    model: Model, text: str, decision: str, confidence: float | None, message: str | None
) -> None:
    model.text = text
    asking = Asking(model)
    assert (await asking.about(replace(ALERT, rule="brk", labels={}))).verdict is Verdict.OK
    (advice,) = asking.told
    assert (advice.rule, advice.labels["decision"], advice.values["CONFIDENCE"]) == ("adviser", decision, confidence)
    assert message in (None, advice.message)
    assert len(advice.message) <= 600


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (429, b"slow down", Verdict.RETRY),
        (500, b"{}", Verdict.RETRY),
        (401, f"bad key {KEY}".encode(), Verdict.PERMANENT),
        (200, b"not json", Verdict.PERMANENT),
        (200, b'{"choices":[]}', Verdict.PERMANENT),
        (200, b'{"choices":[{"message":{"content":null}}]}', Verdict.PERMANENT),
    ],
)
async def test_a_failure_is_an_outcome_without_the_key(
    model: Model, status: int, body: bytes, verdict: Verdict
) -> None:
    model.status, model.body = status, body or b" "
    asking = Asking(model)
    outcome = await asking.about()
    assert (outcome.verdict, asking.told) == (verdict, [])
    assert KEY not in outcome.text
    assert KEY not in repr(asking.adviser.options)


async def test_a_model_that_hangs_costs_its_time_and_no_more(model: Model) -> None:
    model.hangs = True
    asking = Asking(model, connect_timeout_s=0.05, total_timeout_s=0.05)
    assert (await asking.about()).verdict is Verdict.RETRY
    assert asking.told == []


async def test_what_is_too_old_too_much_or_too_fast_is_not_asked(model: Model) -> None:
    asking = Asking(model, tokens_per_day=1500)
    model.usage = {"total_tokens": 1000}
    assert "too old" in (await asking.about(now_ms=NOW_MS + 121_000)).text
    assert (await asking.about()).text == "1000 tokens"
    assert "1000 tokens are spent" in (await asking.about()).text
    tomorrow = NOW_MS + 86_400_000
    fresh = replace(ALERT, stamps={"evaluated_ms": tomorrow})
    assert (await asking.about(fresh, now_ms=tomorrow)).text == "1000 tokens"
    bundle = Bundle(id="b", kind=BundleKind.DIGEST, alerts=(ALERT,) * 3, records=(b"",) * 3, now_ms=NOW_MS)
    assert await asking.adviser.send_bundle(bundle) == Outcome(verdict=Verdict.OK, text="not asked: 3 alerts at once")
    assert len(model.asked) == 2


async def test_of_an_alert_that_nobody_is_to_be_told_of_nobody_is_told_the_advice(model: Model) -> None:
    asking = Asking(model)
    await asking.about(replace(ALERT, labels={"task": "3", "deliver": "never"}))
    assert asking.told[0].labels["deliver"] == "never"


async def test_it_is_never_asked_about_its_own_answers_and_goes_to_no_private_address_unasked(model: Model) -> None:
    asking = Asking(model)
    await asking.about()
    passes = asking.adviser.options.filter.passes
    assert passes(ALERT)
    assert not passes(asking.told[0])
    assert not passes(replace(asking.told[0], rule="adviser"))
    guarded = Asking(model, allow_networks=())
    assert "not a public address" in (await guarded.about()).text
    with pytest.raises(DeliveryError, match="url"):
        Asking(model, url="ftp://x")
