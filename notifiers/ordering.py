"""`OrderDesk`: takes order intents from the Redis stream, hands the live ones to a trader, reports what came of each.

Each intent is carried out once at most and reported once, whatever dies in between. Its id is claimed before the order
is placed; the report, the note that it is done with, and the acknowledgement of its entry are one step of the broker's.
Where Redis fails in the middle, the entry is taken up again, and what this process knows of it is told then; where the
process dies between claim and report, nobody knows whether there is an order, and that is what the next one reports. A
dry run, an intent that has expired or is older than this process, and one beyond this side's own limits are reported
and go no further. Reports, fills among them, are entries of the stream `mon:orders:reports` (notifiers/reports.py).
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol

import structlog
from redis.exceptions import RedisError, ResponseError

from feeds.connection import Client, heeding_cancel
from notifiers.consumer import CLAIM_AFTER_MS
from notifiers.orders import KEEP_S, STREAM, Intent
from notifiers.reports import PAUSE_S, REPORTS, Report, State, step_for_ever

GROUP: Final = "trade"
DONE: Final = b"done"
"""Stands under an intent's key instead of who has claimed it, as soon as it is reported."""
MOST_RESULTS: Final = 1000
"""Of so many orders this process remembers what came of them."""
_LOOK_THERE: Final = "look at the terminal before anything else"
_SCRIPT: Final = files("notifiers").joinpath("report.lua").read_text(encoding="utf-8")

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


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry of the stream. intent: its JSON, empty where the stream was trimmed; again: it was handed out before."""

    id: bytes
    intent: bytes
    again: bool


class OrderDesk:
    """Runs in the process that has the trader. `run` and `run_news` are tasks of their own; both go on for ever."""

    stream = STREAM

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
        self._life = f"{name} {secrets.token_hex(8)}".encode()
        """What this process claims with: another one's claim, of the same name too, is not ours."""
        self._newest_before: bytes | None = None
        """Newest entry at the start; what is not newer is nobody's any more."""
        self._has_place = False
        self._unsettled = True
        """Whether an entry may be in our hands that is not done with: one of an earlier life, or a lost answer's."""
        self._results: dict[str, Report] = {}
        """Reports of the newest intents that were handed to the trader."""
        self._news = 0

    async def run(self) -> None:
        """Take intents until cancelled; while Redis is away, try again every second."""
        await step_for_ever(self)

    async def run_news(self) -> None:
        """Report each fill and each order turned down, until cancelled; one at a time, however long Redis is away."""
        while True:
            await self._tell(self._reported(await self._trader.next_news()))

    async def open(self) -> None:
        """Take a place in the stream: behind what is there, unless an earlier life has left one.

        Called again, as after Redis was away, it keeps the place; where Redis has lost it, all that is there is new.
        """
        with heeding_cancel():
            if self._newest_before is None:
                newest: Any = await self._client.xrevrange(STREAM, count=1)
                self._newest_before = newest[0][0] if newest else b"0-0"
            try:
                behind = b"0-0" if self._has_place else self._newest_before
                await self._client.xgroup_create(STREAM, GROUP, id=behind, mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
        self._has_place = True

    async def step(self, *, block_ms: int) -> bool:
        """Take the next intent, waiting so long for it; return whether there was one.

        Raises what the client raises; the intent in hand then comes again with the next step.
        """
        with heeding_cancel():
            entry = await self._next(block_ms)
            if entry is not None:
                await self._take(entry)
            self._unsettled = False
        return entry is not None

    async def _next(self, block_ms: int) -> _Entry | None:
        """Return the entry that is not done with, else one that another consumer has left, else a new one."""
        if self._unsettled and (entry := await self._read("0", again=True)):
            return entry
        self._unsettled = True  # until it is done with: from here on an answer may be lost, with an entry in it
        reply: Any = await self._client.xautoclaim(
            STREAM, GROUP, self._name, min_idle_time=CLAIM_AFTER_MS, start_id="0-0", count=1
        )
        for entry_id, fields in reply[1]:
            if entry_id is not None:  # Redis 6.2 tells so of one that was trimmed
                return _entry(entry_id, fields, again=True)
        return await self._read(">", again=False, block_ms=block_ms)

    async def _read(self, after: str, *, again: bool, block_ms: int = 0) -> _Entry | None:
        reply: Any = await self._client.xreadgroup(GROUP, self._name, {STREAM: after}, count=1, block=block_ms or None)
        return next((_entry(*entry, again=again) for _, found in reply or () for entry in found), None)

    async def _take(self, entry: _Entry) -> None:
        try:
            intent = Intent.from_json(entry.intent)
        except ValueError:
            log.error("order_unreadable", size=len(entry.intent))
            await self._client.xack(STREAM, GROUP, entry.id)
            return
        report = self._results.get(intent.id) or await self._carry_out(intent, entry)
        if report is None:
            log.warning("order_known", intent=intent.id)
            await self._client.xack(STREAM, GROUP, entry.id)
        elif not await self._report_once(_key(intent.id), report, done_with=entry.id):
            log.warning("order_known", intent=intent.id)

    async def _carry_out(self, intent: Intent, entry: _Entry) -> Report | None:
        """Have an intent ordered unless something speaks against it; return the report, None if that is not ours."""
        holder: bytes | None = await self._client.get(_key(intent.id))
        if holder not in (None, self._life):
            if holder == DONE or not entry.again:  # whoever claimed it has an entry of his own
                return None
            return self._about(intent, "unknown", why=f"the bridge ended while it ordered; {_LOOK_THERE}")
        why = self._why_not(intent, entry)
        if why is not None:
            return self._about(intent, "not_ordered", why=why)
        if holder is None and not await self._client.set(_key(intent.id), self._life, nx=True, ex=KEEP_S):
            return None
        return await self._order(intent)

    def _why_not(self, intent: Intent, entry: _Entry) -> str | None:
        """Return why an intent is not carried out, None if it is."""
        if intent.dry_run is not False:
            return "a dry run"
        if self._clock_ms() >= intent.expires_ms:
            return "expired"
        if _place(entry.id) <= _place(self._newest_before or b"0-0"):
            return "older than the bridge, which was started since"
        if intent.side not in ("buy", "sell") or not 0 < intent.quantity <= self._limits.quantity:
            return f"{intent.side} {intent.quantity}: more than {self._limits.quantity} shares, or no order"
        if not 0 < intent.price * intent.quantity <= self._limits.max_cny:
            return f"more than {self._limits.max_cny:g} yuan"
        return None

    async def _order(self, intent: Intent) -> Report:
        """Place the order, never twice in one life; return the report."""
        self._remember(self._about(intent, "unknown", why=f"cut off while it ordered; {_LOOK_THERE}"))
        try:
            number = await self._trader.order(intent)
        except TradeError as error:
            report = self._about(intent, "refused", why=str(error))
        except TimeoutError:
            report = self._about(intent, "unknown", why=f"the terminal did not answer; {_LOOK_THERE}")
        else:
            log.info("order_placed", intent=intent.id, symbol=intent.symbol, side=intent.side, order=number)
            report = self._about(intent, "placed", order=number)
        self._remember(report)
        return report

    def _remember(self, report: Report) -> None:
        self._results[report.id] = report
        if len(self._results) > MOST_RESULTS:
            del self._results[next(iter(self._results))]

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
        """Report, once, however long Redis is away."""
        self._news += 1
        key = f"{STREAM}:told:{self._life.decode()}:{self._news}"
        while True:
            try:
                with heeding_cancel():
                    await self._report_once(key, report)
                return
            except (RedisError, OSError, TimeoutError) as error:
                log.warning("report_not_told", state=report.state, why=type(error).__name__)
            await asyncio.sleep(PAUSE_S)

    async def _report_once(self, key: str, report: Report, *, done_with: bytes = b"") -> bool:
        """Report, and be done with an entry; return False where it was reported before."""
        return bool(
            await self._client.eval(_SCRIPT, 3, STREAM, key, REPORTS, GROUP, done_with, report.to_json(), KEEP_S)
        )  # fmt: skip


def _entry(entry_id: bytes, fields: dict[bytes, bytes] | None, *, again: bool) -> _Entry:
    return _Entry(entry_id, (fields or {}).get(b"intent", b""), again)


def _key(intent_id: str) -> str:
    """Return the key that says who has claimed an intent, or that it is done with."""
    return f"{STREAM}:taken:{intent_id}"


def _place(entry_id: bytes) -> tuple[int, int]:
    ms, _, number = entry_id.partition(b"-")
    return int(ms), int(number)
