"""`OrderDesk`: takes order intents from the Redis stream, hands the live ones to a trader, reports what came of each.

Each intent is carried out once at most: its id is claimed before the order is placed, so that a crash in between costs
the order and never doubles it. A dry run, an intent that has expired, and one beyond this side's own limits are
reported and go no further. Reports, fills among them, are entries of the stream `mon:orders:reports`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog
from redis.exceptions import RedisError, ResponseError

from feeds.connection import Client, heeding_cancel
from notifiers.orders import KEEP_S, STREAM, Intent
from notifiers.reports import REPORTS, Report, State

GROUP: Final = "trade"
BLOCK_MS: Final = 2000
"""Below the socket's timeout: a longer read would never return."""
AT_ONCE: Final = 10
PAUSE_S: Final = 1.0
"""Before the next try where Redis does not answer."""

log = structlog.get_logger(__name__)


class TradeError(Exception):
    """An order was not placed; the text says why, and may be told."""


@dataclass(frozen=True, slots=True)
class Fill:
    """A part of an order that was dealt. intent_id: what the order bore as its remark; price: yuan a share.

    order, deal: their numbers; deal is that of this part alone.
    """

    intent_id: str
    symbol: str
    side: str
    quantity: int
    price: float
    order: str
    deal: str


@dataclass(frozen=True, slots=True)
class TurnedDown:
    """An order that was placed, and that the counter or the exchange then refused."""

    intent_id: str
    order: str
    why: str


class Trader(Protocol):
    """Who places orders."""

    async def order(self, intent: Intent) -> str:
        """Place an order and return its number; raises TradeError where it was not, TimeoutError if nobody knows."""

    async def next_news(self) -> Fill | TurnedDown:
        """Wait for what comes next of the orders that were placed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderLimits:
    """What this side lets through, whatever an intent says. quantity: shares of an order; max_cny: yuan of one."""

    quantity: int
    max_cny: float


class OrderDesk:
    """Runs in the process that has the trader. `run` and `run_news` are tasks of their own; both go on for ever."""

    def __init__(
        self,
        client: Client,
        trader: Trader,
        *,
        limits: OrderLimits,
        name: str,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """name: of this consumer in the stream's group."""
        self._client, self._trader, self._limits, self._name, self._clock_ms = client, trader, limits, name, clock_ms
        self._began = False

    async def run(self) -> None:
        """Take intents until cancelled; while Redis is away, try again every second."""
        while True:
            try:
                await self.open()
                while True:
                    await self.step(block_ms=BLOCK_MS)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("orders_not_read", why=type(error).__name__)
                await asyncio.sleep(PAUSE_S)

    async def run_news(self) -> None:
        """Report each fill and each order turned down, until cancelled; one at a time, however long Redis is away."""
        while True:
            await self._tell(self._reported(await self._trader.next_news()))

    async def open(self) -> None:
        """Take a place behind what is there: an intent of before the start is nobody's any more.

        Called again, as after Redis was away, it keeps the place.
        """
        try:
            await self._client.xgroup_create(STREAM, GROUP, id="$", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise
            if not self._began:  # the group is of an earlier run, and stands where that ended
                await self._client.xgroup_setid(STREAM, GROUP, "$")
        self._began = True

    async def step(self, *, block_ms: int) -> int:
        """Take what is new, waiting so long for it; return how many intents there were."""
        with heeding_cancel():
            reply: Any = await self._client.xreadgroup(
                GROUP, self._name, {STREAM: ">"}, count=AT_ONCE, block=block_ms or None
            )
        entries = [entry for _, found in reply or () for entry in found]
        for entry_id, fields in entries:
            await self._take(fields.get(b"intent", b""))
            await self._client.xack(STREAM, GROUP, entry_id)
        return len(entries)

    async def _take(self, text: bytes) -> None:
        try:
            intent = Intent.from_json(text)
        except ValueError:
            log.error("order_unreadable", size=len(text))
            return
        why = self._why_not(intent)
        if why is not None:
            await self._report(self._about(intent, "not_ordered", why=why))
        elif await self._client.set(f"{STREAM}:taken:{intent.id}", self._name, nx=True, ex=KEEP_S):
            await self._order(intent)
        else:
            log.warning("order_known", intent=intent.id)

    def _why_not(self, intent: Intent) -> str | None:
        """Return why an intent is not carried out, None if it is."""
        if intent.dry_run is not False:
            return "a dry run"
        if self._clock_ms() >= intent.expires_ms:
            return "expired"
        if intent.side not in ("buy", "sell") or not 0 < intent.quantity <= self._limits.quantity:
            return f"{intent.side} {intent.quantity}: more than {self._limits.quantity} shares, or no order"
        if not 0 < intent.price * intent.quantity <= self._limits.max_cny:
            return f"more than {self._limits.max_cny:g} yuan"
        return None

    async def _order(self, intent: Intent) -> None:
        try:
            number = await self._trader.order(intent)
        except TradeError as error:
            await self._report(self._about(intent, "refused", why=str(error)))
        except TimeoutError:
            why = "the terminal did not answer; look there before anything else"
            await self._report(self._about(intent, "unknown", why=why))
        else:
            log.info("order_placed", intent=intent.id, symbol=intent.symbol, side=intent.side, order=number)
            await self._report(self._about(intent, "placed", order=number))

    def _about(self, intent: Intent, state: State, *, order: str = "", why: str = "") -> Report:
        return Report(
            id=intent.id, state=state, at_ms=self._clock_ms(), symbol=intent.symbol, side=intent.side,
            quantity=intent.quantity, price=intent.price, dry_run=intent.dry_run is not False, order=order, why=why,
        )  # fmt: skip

    def _reported(self, news: Fill | TurnedDown) -> Report:
        """Return what is reported of an order that was placed; of one turned down the terminal names no terms."""
        if isinstance(news, TurnedDown):
            return Report(
                id=news.intent_id, state="failed", at_ms=self._clock_ms(), symbol="", side="", quantity=0, price=0.0,
                order=news.order, why=news.why,
            )  # fmt: skip
        return Report(
            id=news.intent_id, state="filled", at_ms=self._clock_ms(), symbol=news.symbol, side=news.side,
            quantity=news.quantity, price=news.price, order=news.order, deal=news.deal,
        )  # fmt: skip

    async def _tell(self, report: Report) -> None:
        """Report, however long Redis is away; told twice it is the same report, which its reader knows by its deal."""
        while True:
            try:
                return await self._report(report)
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("report_not_told", state=report.state, why=type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    async def _report(self, report: Report) -> None:
        with heeding_cancel():
            await self._client.xadd(REPORTS, {"report": report.to_json()}, maxlen=10_000, approximate=True)
