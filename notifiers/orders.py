"""Order intents of tasks with `auto_trade`: one entry of a Redis stream for each fire, and nothing more.

Nothing here talks to a broker of stocks. An intent is an offer to whoever reads the stream; `dry_run`, which it is
unless the settings say otherwise, tells them to do nothing. Intents are published once (their id follows from the
alert's), only while they are fresh, and never more in a day or for more money than the settings allow.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, ClassVar, Final

import orjson
from redis.exceptions import RedisError

from feeds.connection import Client, heeding_cancel
from notifiers.errors import DeliveryError
from notifiers.filters import AlertFilter
from notifiers.notifier import Bundle, Notification, NotifierOptions, Outcome, Verdict
from notifiers.pacing import NO_LIMIT
from notifiers.retry import RetrySchedule
from rules.alert import Alert, shanghai_iso

STREAM: Final = "mon:orders"
INTENT: Final = "or_"
"""What ids of intents begin with."""
TRADE_LABEL: Final = "auto_trade"
"""Label of a task's rule whose fires become intents; its value is the side."""
_TRADES: Final = re.compile(r"task-[0-9]{1,18}\.(entry|take_profit|stop_loss)")
"""Rules that may trade. Labels are anybody's who writes a rule; these ids no rule but a task's can have."""
SIDES: Final = ("buy", "sell")
LOT: Final = 100
KEEP_S: Final = 172_800
_SCRIPT: Final = files("notifiers").joinpath("order.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class Intent:
    """An order that somebody may place. price: yuan a share, a limit; quantity: shares; times: Unix ms."""

    id: str
    alert_id: str
    rule: str
    symbol: str
    side: str
    quantity: int
    price: float
    dry_run: bool
    created_ms: int
    expires_ms: int

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> Intent:
        """Decode; raises ValueError for what is no intent."""
        try:
            intent = cls(**orjson.loads(text))
        except TypeError as error:
            raise ValueError(f"no order intent: {error}") from None
        texts = (intent.id, intent.alert_id, intent.rule, intent.symbol, intent.side)
        whole = (intent.quantity, intent.created_ms, intent.expires_ms)
        if not (
            all(isinstance(one, str) for one in texts)
            and all(isinstance(one, int) for one in whole)
            and isinstance(intent.price, int | float)
        ):
            raise ValueError("no order intent: a field of it is of another type")
        return intent


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeFilter(AlertFilter):
    """Fires of tasks that say on which side they trade."""

    def passes(self, alert: Alert) -> bool:
        trades = may_trade(alert.rule) and alert.labels.get(TRADE_LABEL) in SIDES
        return trades and AlertFilter.passes(self, alert)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderOptions(NotifierOptions):
    """What an intent may be. Raises DeliveryError for a quantity that is no whole number of lots.

    quantity    shares of each order. max_cny: of one order, in yuan. max_orders_per_day: intents of one day, Shanghai.
    valid_s     an alert that is older is not ordered any more, and for so long an intent is good; a live one needs a
                tick as young.
    """

    dry_run: bool = True
    quantity: int = LOT
    max_cny: float = 50_000.0
    max_orders_per_day: int = 10
    valid_s: float = 30.0

    def __post_init__(self) -> None:
        NotifierOptions.__post_init__(self)  # no super(): a slotted dataclass is another class than its body saw
        if self.quantity < LOT or self.quantity % LOT:
            raise DeliveryError(f"{self.name}: quantity is a multiple of {LOT} shares")

    @property
    def filter(self) -> AlertFilter:
        return TradeFilter(events=self.events)


class OrderNotifier:
    """Publishes intents; used as a receiver is, so that each has its attempts and its end in the store."""

    options_class: ClassVar = OrderOptions
    schedule = RetrySchedule((0, 1, 2, 5))
    pacing = NO_LIMIT

    def __init__(self, options: OrderOptions, client: Client) -> None:
        """client: of the daemon's own Redis; closed with this."""
        self.options: NotifierOptions = options
        self._limits = options
        self._client = client

    async def open(self) -> None:
        """Do nothing: a command connects."""

    async def close(self) -> None:
        await self._client.aclose()

    async def send(self, notification: Notification) -> Outcome:
        alert, options, now_ms = notification.alert, self._limits, notification.now_ms
        intent = intent_of(alert, options, now_ms=now_ms)
        if intent is None:
            return _refused("the alert bears no symbol or no price")
        if now_ms - _known_since_ms(alert, live=not options.dry_run) > options.valid_s * 1000:
            return _refused(f"the alert, or its price, is older than {options.valid_s:g} s")
        if intent.price * intent.quantity > options.max_cny:
            return _refused(f"{intent.quantity} shares at {intent.price:g} are more than {options.max_cny:g} yuan")
        return await self._publish(intent, day=shanghai_iso(now_ms)[:10])

    async def send_bundle(self, bundle: Bundle) -> Outcome:
        """Refuse: what had to wait for others is too old to be ordered."""
        return _refused("orders do not wait for others")

    async def _publish(self, intent: Intent, *, day: str) -> Outcome:
        keys = (STREAM, f"{STREAM}:dedup:{intent.id}", f"{STREAM}:day:{day}")
        most = self._limits.max_orders_per_day
        try:
            with heeding_cancel():
                answer: Any = await self._client.eval(_SCRIPT, 3, *keys, intent.to_json(), most, KEEP_S)
        except (RedisError, OSError, TimeoutError) as error:
            return Outcome(verdict=Verdict.RETRY, text=f"Redis: {type(error).__name__}")
        said, count = answer[0].decode(), int(answer[1])
        if said == "limit":
            return _refused(f"{count} orders today, the settings allow {most}")
        kind = "dry run" if intent.dry_run else "live"
        return Outcome(verdict=Verdict.OK, text=f"{kind}: {intent.side} {intent.quantity} at {intent.price:g} ({said})")


def may_trade(rule: str) -> bool:
    """Tell whether fires of this rule may become orders."""
    return _TRADES.fullmatch(rule) is not None


def intent_of(alert: Alert, options: OrderOptions, *, now_ms: int) -> Intent | None:
    """Return the order that an alert asks for, None where it has no symbol or no price."""
    price = (alert.tick or {}).get("last")
    if alert.symbol is None or price is None or price <= 0:
        return None
    return Intent(
        id=intent_id(alert.id), alert_id=alert.id, rule=alert.rule, symbol=alert.symbol,
        side=alert.labels[TRADE_LABEL], quantity=options.quantity, price=price, dry_run=options.dry_run,
        created_ms=now_ms, expires_ms=now_ms + round(options.valid_s * 1000),
    )  # fmt: skip


def intent_id(alert_id: str) -> str:
    """Return the id of the order that an alert asks for; the terminal keeps 24 characters of it, as a remark."""
    return f"{INTENT}{alert_id.removeprefix('al_')}"


def alert_of(intent: str) -> str:
    """Return the id of the alert that asked for the order of this id."""
    return f"al_{intent.removeprefix(INTENT)}"


def _known_since_ms(alert: Alert, *, live: bool) -> int:
    """Return our own clock at the decision; for a live intent at the arrival of its tick, where that was earlier.

    After an outage, and in a replay, ticks of long ago are decided upon now: practice may have them, money may not.
    """
    stamps = alert.stamps or {}
    names = ("evaluated_ms", "recv_ms") if live else ("evaluated_ms",)
    return min((stamps[name] for name in names if name in stamps), default=alert.ts_event_ms)


def _refused(why: str) -> Outcome:
    return Outcome(verdict=Verdict.PERMANENT, text=f"no order: {why}", own=True)
