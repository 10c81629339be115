"""Order intents: what an alert becomes, that it does so once, and everything that keeps it from being one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis

from feeds.connection import connect
from monitord.tasks import MonitorTask, TaskTerms
from notifiers.errors import DeliveryError
from notifiers.notifier import Bundle, BundleKind, Notification, Outcome, Verdict
from notifiers.orders import STREAM, Intent, OrderNotifier, OrderOptions, alert_of, intent_id
from rules import rulefile
from rules.alert import Alert, Event, identities

NOW_MS = 1_675_216_930_000
ALERT = Alert(
    id="al_1", episode_id="ep_1", event=Event.FIRE, rule="task-3.entry", rev="r", symbol="600519.SH",
    labels={"auto_trade": "buy"}, trade_date="2023-02-01", episode=1, ts_event_ms=0, period="tick",
    tick={"last": 18.5}, stamps={"evaluated_ms": NOW_MS - 1000},
)  # fmt: skip


class Desk:
    """A publisher over a Redis in memory."""

    def __init__(self, redis: Any, **options: Any) -> None:
        self.redis = redis
        self.notifier = OrderNotifier(OrderOptions(name="orders", events=(Event.FIRE,), **options), redis)

    async def offer(self, *, now_ms: int = NOW_MS, **changes: Any) -> Outcome:
        alert = replace(ALERT, **changes)
        return await self.notifier.send(Notification(alert=alert, record=alert.to_json(), now_ms=now_ms))

    async def intents(self) -> list[Intent]:
        return [Intent.from_json(fields[b"intent"]) for _, fields in await self.redis.xrange(STREAM)]


@pytest.fixture
async def redis() -> AsyncIterator[Any]:
    client = FakeAsyncRedis()
    yield client
    await client.aclose()


async def test_a_fire_becomes_one_dry_intent_however_often_it_is_tried(redis: Any) -> None:
    desk = Desk(redis)
    assert (await desk.offer()).text == "dry run: buy 100 at 18.5 (appended)"
    assert (await desk.offer(now_ms=NOW_MS + 5)).text.endswith("(known)")
    (intent,) = await desk.intents()
    assert (intent.symbol, intent.side, intent.quantity, intent.price) == ("600519.SH", "buy", 100, 18.5)
    assert (intent.dry_run, intent.alert_id, intent.expires_ms - intent.created_ms) == (True, "al_1", 30_000)


async def test_only_the_settings_make_an_intent_live(redis: Any) -> None:
    desk = Desk(redis, dry_run=False, quantity=300)
    assert (
        await desk.offer(labels={"auto_trade": "sell", "dry_run": "no"})
    ).text == "live: sell 300 at 18.5 (appended)"
    assert [(one.dry_run, one.quantity) for one in await desk.intents()] == [(False, 300)]


@pytest.mark.parametrize(
    ("changes", "options", "why"),
    [
        ({"now_ms": NOW_MS + 29_001}, {}, "older than 30 s"),
        ({"tick": None}, {}, "no price"),
        ({"tick": {"last": 0.0}}, {}, "no price"),
        ({"symbol": None}, {}, "no symbol"),
        ({"tick": {"last": 500.01}}, {}, "more than 50000 yuan"),
        ({}, {"max_orders_per_day": 0}, "the settings allow 0"),
    ],
)
async def test_what_must_not_be_ordered_is_refused_for_good(
    redis: Any, changes: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    desk = Desk(redis, **options)
    outcome = await desk.offer(**changes)
    assert (outcome.verdict, outcome.own) == (Verdict.PERMANENT, True)
    assert why in outcome.text
    assert await desk.intents() == []


@pytest.mark.parametrize(("dry_run", "verdict"), [(True, Verdict.OK), (False, Verdict.PERMANENT)])
async def test_money_is_never_for_a_tick_of_long_ago_however_new_the_alert(
    redis: Any, dry_run: bool, verdict: Verdict
) -> None:
    caught_up = {"recv_ms": NOW_MS - 600_000, "evaluated_ms": NOW_MS - 1000}
    assert (await Desk(redis, dry_run=dry_run).offer(stamps=caught_up)).verdict is verdict


async def test_a_days_orders_are_counted_across_restarts(redis: Any) -> None:
    for number in range(3):
        outcome = await Desk(redis, max_orders_per_day=2).offer(id=f"al_{number}")
        assert (outcome.verdict is Verdict.OK) is (number < 2)
    assert (await Desk(redis, max_orders_per_day=2).offer(id="al_1")).text.endswith("(known)")
    day_ms = 86_400_000
    later = await Desk(redis, max_orders_per_day=2).offer(
        id="al_9", now_ms=NOW_MS + day_ms, stamps={"evaluated_ms": NOW_MS + day_ms}
    )
    assert later.verdict is Verdict.OK


async def test_orders_wait_for_nobody_and_a_redis_that_is_away_is_tried_again(redis: Any) -> None:
    bundle = Bundle(id="b", kind=BundleKind.DIGEST, alerts=(ALERT,) * 2, records=(b"",) * 2, now_ms=NOW_MS)
    assert (await Desk(redis).notifier.send_bundle(bundle)).verdict is Verdict.PERMANENT
    away = Desk(connect("redis://127.0.0.1:1/0", timeout_s=0.2))
    assert (await away.offer()).verdict is Verdict.RETRY
    await away.notifier.close()
    with pytest.raises(DeliveryError, match="multiple of 100"):
        Desk(redis, quantity=150)


def test_only_a_task_with_auto_trade_trades_and_its_conditions_never_do() -> None:
    terms = {
        "stock_code": "600519.SH", "entry_min": 1, "entry_max": 2, "take_profit": 9, "stop_loss": 0.5,
        "quant_config": {"when": "LAST > 5"},
    }  # fmt: skip

    def sides(*, auto: bool) -> dict[str, str | None]:
        text = MonitorTask(id=1, terms=TaskTerms.model_validate({**terms, "auto_trade": auto})).text()
        rules = rulefile.load({text.name: text.text}).rules
        return {rule.id.partition(".")[2]: rule.labels.get("auto_trade") for rule in rules}

    assert set(sides(auto=False).values()) == {None}
    assert sides(auto=True) == {"entry": "buy", "take_profit": "sell", "stop_loss": "sell", "condition-1": None}
    passes = OrderOptions(name="o", events=(Event.FIRE,)).filter.passes
    assert passes(ALERT)
    assert not passes(replace(ALERT, labels={}))
    # Anybody who writes a rule may write the label.
    for other in ("mine", "task-3", "task-3.advice", "task-3.entry.x", "task-x.entry", f"task-{10**18}.entry"):
        assert not passes(replace(ALERT, rule=other))
    assert not passes(replace(ALERT, event=Event.SUPPRESSED))


def test_an_intents_id_tells_its_alert_and_fits_into_a_remark_of_24_characters() -> None:
    alert_id, _ = identities("task-3.entry", "r", event=Event.FIRE)
    assert alert_of(intent_id(alert_id)) == alert_id
    assert len(intent_id(alert_id)) <= 24
