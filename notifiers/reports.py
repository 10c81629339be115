"""`Report`: what the side that trades says of an order intent; `ReportDesk` makes each a later event of the task.

Reports are read from the stream `mon:orders:reports` in a group of this daemon's own and acknowledged when the event is
in the store. A report that comes again, as after a lost acknowledgement, has the same event id and changes nothing.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, Protocol, get_args

import orjson
import structlog
from redis.exceptions import RedisError, ResponseError

from feeds.connection import Client, heeding_cancel
from notifiers.consumer import BLOCK_MS
from notifiers.orders import STREAM, TRADE_LABEL, alert_of, may_trade
from notifiers.routing import DELIVER_LABEL, NEVER
from rules.alert import Alert, Event, identities

REPORTS: Final = f"{STREAM}:reports"
CONSUMER: Final = "daemon"
"""One a group, and the same after a restart: so it finds what it had and did not acknowledge."""
TIMEOUT_S: Final = 5.0
AT_ONCE: Final = 100
PAUSE_S: Final = 1.0
"""Before the next try where Redis does not answer."""
WHY_CHARACTERS: Final = 300

State = Literal["not_ordered", "placed", "refused", "unknown", "failed", "filled"]
"""not_ordered: a dry run, expired, or beyond the limits there. refused: not placed. unknown: perhaps placed. failed:
placed, and then turned down. filled: a part of it, or all."""
STATES: Final[tuple[State, ...]] = get_args(State)
_TROUBLE: Final = ("refused", "unknown", "failed")
_REPORTED: Final = re.compile(r"task-[0-9]{1,18}\.order")
_TEXTS: Final = ("id", "state", "symbol", "side", "order", "deal", "why")
_SAID: Final[Mapping[str, Mapping[State, str]]] = {
    "zh": {"not_ordered": "未下单", "placed": "已委托", "refused": "被拒绝", "unknown": "结果不明",
           "failed": "委托失败", "filled": "已成交"},
    "en": {"not_ordered": "not ordered", "placed": "placed", "refused": "refused", "unknown": "unknown",
           "failed": "failed", "filled": "filled"},
}  # fmt: skip
_SIDES: Final[Mapping[str, Mapping[str, str]]] = {
    "zh": {"buy": "买入", "sell": "卖出"},
    "en": {"buy": "buy", "sell": "sell"},
}

Find = Callable[[str], Awaitable[bytes | None]]
"""Returns the record of the event of this id, None if there is none."""
Tell = Callable[[Alert], Awaitable[object]]
"""Stores an event and lets it be published; one whose id is there already is passed over."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an order intent. id: the intent's; order, deal: numbers at the terminal, "" = none.

    quantity: shares, of a fill those that were dealt; price: yuan a share, of a fill the one it was dealt at. at_ms:
    the bridge's clock. dry_run: what the intent said, of a fill False.
    """

    id: str
    state: State
    at_ms: int
    symbol: str
    side: str
    quantity: int
    price: float
    dry_run: bool = False
    order: str = ""
    deal: str = ""
    why: str = ""

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @classmethod
    def from_json(cls, text: bytes) -> Report:
        """Decode; unknown keys are passed over. Raises ValueError for what is no report."""
        given = orjson.loads(text)
        if not isinstance(given, dict):
            raise ValueError("no report: not an object")
        try:
            report = cls(**{one.name: given[one.name] for one in fields(cls) if one.name in given})
        except TypeError as error:
            raise ValueError(f"no report: {error}") from None
        report._check()
        return report

    def _check(self) -> None:
        for name in _TEXTS:
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"no report: {name} is no text")
        if self.state not in STATES:
            raise ValueError(f"no report: state is one of {', '.join(STATES)}")
        if type(self.at_ms) is not int or type(self.quantity) is not int or type(self.dry_run) is not bool:
            raise ValueError("no report: at_ms and quantity are whole numbers, dry_run is true or false")
        if isinstance(self.price, bool) or not isinstance(self.price, int | float) or not math.isfinite(self.price):
            raise ValueError("no report: price is a number")


def is_report(rule: str) -> bool:
    """Tell whether this is the rule of what became of a task's orders."""
    return _REPORTED.fullmatch(rule) is not None


def event_of(report: Report, alert: Alert, *, language: str) -> Alert:
    """Return the event of a report about the order that an alert asked for.

    Its time is the alert's, as everything of a replayed market is told by the market's clock; stamps has the bridge's.
    """
    # What is no fill happens to an intent once, whoever tells it again; a fill is known by its number.
    deal = (report.deal or str(report.at_ms)) if report.state == "filled" else ""
    alert_id, episode_id = identities("order", alert.id, report.state, deal, event=Event.FIRE)
    labels = {
        "about": alert.id, "about_rule": alert.rule, "order_state": report.state, "side": _side(report, alert),
        "dry_run": "true" if report.dry_run else "false",
    }  # fmt: skip
    if report.order:
        labels["order"] = _plain(report.order)
    if report.dry_run:
        labels[DELIVER_LABEL] = NEVER  # practice: on page and in history, on nobody's phone
    elif DELIVER_LABEL in alert.labels:
        labels[DELIVER_LABEL] = alert.labels[DELIVER_LABEL]
    return Alert(
        id=alert_id, episode_id=episode_id, event=Event.FIRE, rule=f"{alert.rule.rpartition('.')[0]}.order",
        rev="order",
        severity="warning" if report.state in _TROUBLE else "info", symbol=alert.symbol, group=alert.group,
        name=alert.name, trade_date=alert.trade_date, episode=alert.episode, ts_event_ms=alert.ts_event_ms,
        period=alert.period, labels=labels, tick=alert.tick, message=_message(report, alert, language),
        values={"QUANTITY": float(report.quantity) or None, "PRICE": float(report.price) or None},
        stamps={"reported_ms": report.at_ms},
    )  # fmt: skip


def _side(report: Report, alert: Alert) -> str:
    """Return buy or sell; what the terminal says of an order turned down is without it."""
    return _plain(report.side) or alert.labels.get(TRADE_LABEL, "")


def _message(report: Report, alert: Alert, language: str) -> str:
    side = _side(report, alert)
    terms = f" {report.quantity} @ {report.price:g}" if report.quantity else ""
    what = f"{alert.name or alert.symbol} {_SIDES[language].get(side, side)}{terms}"
    return f"{what}: {_SAID[language][report.state]}" + (f" ({_plain(report.why)})" if report.why else "")


def _plain(text: str) -> str:
    """Return a text of the terminal's, printable and short."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:WHY_CHARACTERS]


class ReportDesk:
    """Reads reports in the daemon. `run` is a task of its own and goes on for ever."""

    stream = REPORTS

    def __init__(self, client: Client, *, name: str, find: Find, tell: Tell, language: str = "zh") -> None:
        """client: used by nothing else, times out after more than BLOCK_MS. name: of the group, one a store."""
        self._client, self._group, self._find, self._tell, self._language = client, name, find, tell, language
        self._recovering = True
        """Entries may have been handed out and not acknowledged: at the start, and after any failure."""
        self._counts = dict.fromkeys((*STATES, "unreadable", "strange"), 0)

    def counters(self) -> Mapping[str, int]:
        """Return reports taken since the start by state; strange: about no alert of this store."""
        return dict(self._counts)

    async def run(self) -> None:
        """Take reports until cancelled; while Redis is away, try again every second. Raises what `tell` raises."""
        await step_for_ever(self)

    async def open(self) -> None:
        """Take a place in the stream: the one held before, else at its beginning."""
        self._recovering = True
        try:
            await self._client.xgroup_create(REPORTS, self._group, id="0", mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    async def close(self) -> None:
        await self._client.aclose()

    async def step(self, *, block_ms: int) -> int:
        """Take what is new, waiting so long for it; return how many entries there were."""
        after = "0" if self._recovering else ">"
        with heeding_cancel():
            reply: Any = await self._client.xreadgroup(
                self._group, CONSUMER, {REPORTS: after}, count=AT_ONCE, block=block_ms or None
            )
        entries = [entry for _, found in reply or () for entry in found]
        if self._recovering and not entries:
            self._recovering = False
            return await self.step(block_ms=block_ms)
        for entry_id, given in entries:
            await self._take((given or {}).get(b"report", b""))  # a trimmed entry that still waits has no fields
            await self._client.xack(REPORTS, self._group, entry_id)
        return len(entries)

    async def _take(self, text: bytes) -> None:
        try:
            report = Report.from_json(text)
        except ValueError as error:
            self._counts["unreadable"] += 1
            log.error("report_unreadable", size=len(text), why=str(error)[:200])
            return
        record = await self._find(alert_of(report.id))
        alert = None if record is None else Alert.from_json(record)
        if alert is None or not may_trade(alert.rule):  # another daemon's alert, one that is gone, or none of a task's
            self._counts["strange"] += 1
            return
        event = event_of(report, alert, language=self._language)
        await self._tell(event)
        self._counts[report.state] += 1
        log.info("order_reported", intent=report.id, state=report.state, alert=event.labels["about"])


class Stepping(Protocol):
    """Who takes entries of a stream in steps."""

    stream: str
    """Key of the stream."""

    async def open(self) -> None:
        """Take a place in the stream, or the one held before."""

    async def step(self, *, block_ms: int) -> int:
        """Take what comes next, waiting so long for it; return how many entries there were."""


async def step_for_ever(who: Stepping) -> None:
    """Take step after step until cancelled; while Redis is away, say so and try again every second."""
    while True:
        try:
            await who.open()
            while True:
                await who.step(block_ms=BLOCK_MS)
        except (RedisError, OSError, TimeoutError) as error:
            log.warning("stream_not_read", stream=who.stream, why=type(error).__name__)
            await asyncio.sleep(PAUSE_S)
