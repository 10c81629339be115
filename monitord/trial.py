"""A test message to one receiver, by the very code that delivers alerts."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from notifiers.errors import DeliveryError
from notifiers.notifier import Notification, Outcome, Verdict, build_notifier
from rules.alert import Alert, Event, identities, shanghai_iso

if TYPE_CHECKING:
    from config.receivers import Receiver

SYMBOL: Final = ("000001.SH", "上证指数")
"""What the test alert is about: receivers that mark stocks need something to mark."""


async def try_out(receiver: Receiver) -> Outcome:
    """Make one attempt; a receiver that can't be built or opened is an outcome as well."""
    try:
        notifier = build_notifier(receiver.kind, **receiver.options())
    except DeliveryError as error:
        return Outcome(verdict=Verdict.PERMANENT, text=str(error))
    await notifier.open()
    try:
        return await notifier.send(_notification(receiver, time.time_ns() // 1_000_000))
    finally:
        await notifier.close()


def _notification(receiver: Receiver, now_ms: int) -> Notification:
    symbol, name = SYMBOL
    alert_id, episode_id = identities("monitord.test", receiver.name, now_ms, event=Event.FIRE)
    message = "monitord: a test message" if getattr(receiver, "language", "zh") == "en" else "monitord 测试消息"
    alert = Alert(
        id=alert_id, episode_id=episode_id, event=Event.FIRE, rule="monitord.test", rev="test", symbol=symbol,
        name=name, trade_date=shanghai_iso(now_ms)[:10], episode=1, ts_event_ms=now_ms, period="tick", message=message,
    )  # fmt: skip
    return Notification(alert=alert, record=alert.to_json(), now_ms=now_ms)
