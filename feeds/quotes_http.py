"""`QuotesHttpFeed`: the public quote pages of Tencent or Sina as a feed, for users without a terminal.

The iterator itself asks: one request at a time, a batch of codes each, all codes once in `interval_s`. While it waits
for the next request it yields a heartbeat a second; a request under way holds them up for `timeout_s` at most. Nothing
is queued: whoever takes inputs slowly has the page asked more slowly.

Only what has changed goes on. The pages are served by many machines that are not of one mind, so a quote older than the
one before is dropped. Pages are asked around the sessions of trading days only, and once at the start.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from feeds.codes import market_codes, read_codes
from feeds.errors import FeedError
from feeds.inputs import FeedInput, Heartbeat, Mark, MarkKind
from feeds.instruments import Instrument
from feeds.quotes_client import QuoteClient, Unanswered
from feeds.quotes_reader import QuoteReader
from feeds.quotes_text import PAGES
from feeds.sessions import Calendar, Session, day_ms, in_session, trade_date, unix_ms
from feeds.tick import TickBatch
from feeds.universe import is_symbol

WITNESS: Final = "000001.SH"
"""Asked beside the others, because it moves all day: its time tells a page that stands still from a quiet stock."""
BATCH: Final = 800
"""Codes in one request: what the pages take, and what a request line has room for."""
SPACING_S: Final = 0.1
"""The least time between two requests."""
HEARTBEAT_S: Final = 1.0
LOG_EVERY_S: Final = 60.0
TRAIL_MS: Final = 3_000
"""Quotes come behind their time by so much, and by up to one interval more; heartbeats must not overtake them."""
SILENT_S: Final = 15.0
"""So long without anything newer, in continuous trading, is silence; with long intervals, four of them."""

_MINUTE_MS: Final = 60_000
_HOURS: Final = (((9 * 60 + 10) * _MINUTE_MS, (11 * 60 + 32) * _MINUTE_MS), (778 * _MINUTE_MS, 932 * _MINUTE_MS))
"""When pages are asked, in ms since midnight: 09:10–11:32 and 12:58–15:32."""

log = structlog.get_logger(__name__)


class QuotesHttpFeed:
    """Quotes of a public page; see `Feed` for the protocol.

    Inputs have no offsets: the journal gives them theirs. Everything belongs to the event loop but `counters`. Only one
    iterator may be in use; cancelling it loses no input that was yielded, and a request under way is given up.
    """

    has_offsets = False
    paced = True

    def __init__(
        self,
        *,
        provider: str = "tencent",
        fallback_after_s: float = 0.0,
        symbols: Sequence[str] | None = None,
        files: Sequence[str | Path] | None = None,
        interval_s: float = 3.0,
        batch: int = BATCH,
        timeout_s: float = 5.0,
        tencent_url: str | None = None,
        sina_url: str | None = None,
        now: Callable[[], float] = time.time,
        calendar: Calendar | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Say what to ask whom: symbols and those in files, or without either every share there is.

        fallback_after_s: after so long without an answer, or with one that stands still in trading hours, the other
        provider is asked, 0 = never. now, calendar, jitter: for tests. Raises FeedError for an unknown provider or a
        symbol that is none.
        """
        if provider not in PAGES:
            raise FeedError(f"quotes_http: no provider {provider!r}; there are: {', '.join(PAGES)}")
        wrong = [symbol for symbol in symbols or () if not is_symbol(symbol)]
        if wrong or not 1 <= batch <= BATCH:
            raise FeedError(f"quotes_http: {f'{wrong[0]!r} is no symbol' if wrong else f'batch is 1 to {BATCH}'}")
        self._symbols, self._files = tuple(symbols or ()), tuple(files or ())
        self.source_id = f"quotes_http:{','.join([*self._symbols, *map(str, self._files)]) or 'market'}"
        self._fallback_after_s, self._interval_s, self._batch = fallback_after_s, interval_s, batch
        self._now, self._calendar = now, calendar
        urls = {"tencent": tencent_url, "sina": sina_url}
        first = [provider, *(name for name in PAGES if name != provider)]
        self._clients = [
            QuoteClient(PAGES[name], url=urls[name] or None, timeout_s=timeout_s, jitter=jitter) for name in first
        ]
        self._counts: Counter[str] = Counter()
        self._closed = asyncio.Event()
        self._is_open = False
        self._begin()

    def _begin(self) -> None:
        """Forget everything that an earlier life has left."""
        self._client, *_ = self._clients
        self._reader = QuoteReader(self._client.page)
        self._counts = Counter(dict.fromkeys(("inputs", "requests", "failed_requests", "switches"), 0))
        self._closed = asyncio.Event()
        self._codes: list[str] = []
        self._swept_on: int | None = None
        """The date on which every code of the market was last asked for; None where codes were named."""
        self._sweeping = False
        self._place, self._round_s, self._next_s = 0, 0.0, 0.0
        self._answered: set[str] = set()
        self._opening: list[TickBatch] = []
        self._failing_since_s: float | None = None
        self._switched_s = 0.0
        self._why, self._log_s = "", 0.0
        self._newest_ms, self._fresh_s = 0, 0.0
        self._silent = self._missed = False
        self._frame_ms, self._frame_s, self._beat_s = 0, 0.0, 0.0
        self._clock_ms: int | None = None

    # ── the life of the feed ──────────────────────────────────────────────────────────────────────────────────────

    async def open(self, *, after: int = -1) -> None:
        """Ask for all codes once, which also tells what is listed and how it is called. `after` is ignored.

        Raises FeedError: a file of codes that cannot be read, no provider that answers, units that cannot be, no quote,
        a clock that is far behind.
        """
        await self.close()
        self._begin()
        if self._calendar is None:
            self._calendar = await asyncio.to_thread(Calendar.xshg)
        codes = await asyncio.to_thread(read_codes, self._files)
        named = list(dict.fromkeys([*self._symbols, *codes]))
        self._reader = QuoteReader(self._client.page, apart=() if WITNESS in named else (WITNESS,))
        self._codes = named if WITNESS in named else [WITNESS, *named]
        self._swept_on = None if named else 0
        try:
            await self._first_round()
        except FeedError:
            await self.close()
            raise
        self._is_open = True
        log.info("quotes_opened", provider=self._client.page.name, symbols=len(self._codes))

    async def _first_round(self) -> None:
        """Ask for all codes, of the other provider if this one does not answer at all and there may be a change."""
        while not self._opening or self._place:
            try:
                self._opening.append(await self._ask())
            except Unanswered as failure:
                if self._opening:  # the rest follows once it answers again
                    self._note(failure)
                    return
                if not self._fallback_after_s or self._counts["switches"]:
                    raise FeedError(f"quotes_http: {failure}; {_advice(failure)}") from None
                self._switch()
                self._place = 0
            if self._place and not await self._reach(self._next_s):
                return
        if not self._reader.instruments():
            raise FeedError("quotes_http: the page knows none of the symbols; check them, or ask the other provider")
        if not self._reader.newest_ms and self._reader.ahead_ms:
            behind_s = self._reader.ahead_ms / 1000
            raise FeedError(f"quotes_http: this machine's clock is {behind_s:.0f} s behind the page's; set it by NTP")

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield batches, heartbeats and marks until `close`; raises FeedError if the quotes' units are proven wrong."""
        if not self._is_open:
            raise FeedError("quotes_http: the feed is not open; call open() first")
        opening, self._opening = self._opening, []
        for batch in opening:
            for value in self._frame(batch):
                if self._closed.is_set():
                    return
                yield self._counted(value)
        while await self._reach(min(self._due_s(), self._beat_s)):
            for value in await self._turn():
                yield self._counted(value)

    async def instruments(self) -> Sequence[Instrument]:
        """Return every symbol that was answered, with its name as the page has it."""
        return self._reader.instruments()

    async def close(self) -> None:
        """End the iteration, also one that waits for an answer. Idempotent; safe at any time."""
        self._closed.set()
        for client in self._clients:
            await client.close()

    def counters(self) -> Mapping[str, int]:
        """Return ticks, inputs, requests and failed ones by reason, what was dropped or unchanged, switches."""
        return {**self._reader.counters(), **self._counts}

    def _counted(self, value: TickBatch | Heartbeat | Mark) -> FeedInput:
        self._counts["inputs"] += 1
        return FeedInput(-1, value)

    # ── asking ────────────────────────────────────────────────────────────────────────────────────────────────────

    async def _turn(self) -> list[TickBatch | Heartbeat | Mark]:
        """Do what is due: a request or a heartbeat."""
        due_s = self._due_s()  # before the clock is read: while pages are asked, due is "now", and now goes on
        if asyncio.get_running_loop().time() < due_s:
            return [*self._beat(), *self._judge()]
        try:
            return [*self._frame(await self._ask()), *self._judge()]
        except Unanswered as failure:
            if self._closed.is_set():
                return []
            self._note(failure)
            return [*self._beat(), *self._judge()]

    async def _ask(self) -> TickBatch:
        """Ask for the next batch of codes and return what is new in it; raises Unanswered or FeedError.

        The next request is for the batch behind it also where this one fails: one that always does must not starve the
        others.
        """
        loop = asyncio.get_running_loop()
        if self._place == 0:
            self._begin_round(loop.time())
        symbols = self._codes[self._place : self._place + self._batch]
        self._place += self._batch
        self._counts["requests"] += 1
        try:
            answer = await self._client.ask(symbols)
        except Unanswered as failure:
            self._counts["failed_requests"] += 1
            self._counts[f"failed_{failure.reason}"] += 1
            self._sweeping = False
            self._end_request(loop.time() + failure.pause_s)
            raise
        self._answered.update(answer.records)
        self._failing_since_s = None
        self._end_request(loop.time() + SPACING_S)
        return self._reader.read(answer, recv_ms=self._now_ms())

    def _begin_round(self, now_s: float) -> None:
        """Begin with the first code again, of the whole market's codes once a day: there are new shares."""
        self._round_s = now_s
        today = trade_date(self._now_ms())
        if self._swept_on is not None and self._swept_on != today:
            self._sweeping, self._answered = True, set()
            self._codes = [WITNESS, *market_codes()]

    def _end_request(self, next_s: float) -> None:
        """Say when the next request may be sent; a round over the market without a failure tells which codes exist."""
        self._next_s = next_s
        if self._place < len(self._codes):
            return
        self._place = 0
        self._next_s = max(next_s, self._round_s + self._interval_s)
        if self._sweeping:
            self._sweeping, self._swept_on = False, trade_date(self._now_ms())
            self._codes = [WITNESS, *(code for code in self._codes if code in self._answered and code != WITNESS)]

    def _due_s(self) -> float:
        """Return the loop's time of the next request."""
        assert self._calendar is not None
        now_ms = self._now_ms()
        closed_s = (asked_from_ms(now_ms, self._calendar) - now_ms) / 1000
        return max(self._next_s, asyncio.get_running_loop().time() + closed_s)

    def _note(self, failure: Unanswered) -> None:
        """Log a failure now and then, and turn to the other provider when they have gone on for too long."""
        now_s = asyncio.get_running_loop().time()
        self._why = str(failure)
        if now_s >= self._log_s:
            self._log_s = now_s + LOG_EVERY_S
            log.warning("quotes_failed", provider=self._client.page.name, why=str(failure), retry_s=failure.pause_s)
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        elif self._fallback_after_s and now_s - self._failing_since_s >= self._fallback_after_s:
            self._switch()

    def _switch(self) -> None:
        """Ask the other provider from now on, at once and from the first code."""
        self._clients.reverse()
        self._client, *_ = self._clients
        self._reader.turn_to(self._client.page)
        self._counts["switches"] += 1
        self._missed = True
        self._failing_since_s = None
        self._switched_s = asyncio.get_running_loop().time()
        self._place, self._next_s = 0, self._switched_s
        log.warning("quotes_switched", provider=self._client.page.name, why=self._why)

    async def _reach(self, moment_s: float) -> bool:
        """Wait until the loop's time has come to the moment; False once the feed is closed."""
        if not self._closed.is_set() and moment_s > asyncio.get_running_loop().time():
            try:
                async with asyncio.timeout_at(moment_s):
                    await self._closed.wait()
            except TimeoutError:
                return True
        return not self._closed.is_set()

    # ── time ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _frame(self, batch: TickBatch) -> list[TickBatch | Heartbeat | Mark]:
        """Return a batch with the marks that belong before it; the clock goes on also where nothing has changed."""
        if self._reader.newest_ms <= self._frame_ms:
            return [batch] if len(batch) else self._beat()
        now_s = asyncio.get_running_loop().time()
        self._frame_ms, self._frame_s, self._beat_s = self._reader.newest_ms, now_s, now_s + HEARTBEAT_S
        self._clock_ms = max(self._frame_ms - self._trail_ms, self._clock_ms or 0)
        marks = []
        if self._silent or self._missed:
            marks.append(Mark(MarkKind.GAP, self._frame_ms, self._why))
        if self._silent:
            marks.append(Mark(MarkKind.ALIVE, self._frame_ms, "quotes come again"))
        self._silent = self._missed = False
        return [*marks, *([batch] if len(batch) else [])]

    def _beat(self) -> list[TickBatch | Heartbeat | Mark]:
        """Return a heartbeat if one is due: last frame's time + time since - what quotes trail, never going back."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._beat_s:
            return []
        self._beat_s = now_s + HEARTBEAT_S
        if self._clock_ms is None:
            return []
        clock_ms = self._frame_ms + int((now_s - self._frame_s) * 1000) - self._trail_ms
        if clock_ms <= self._clock_ms:
            return []
        self._clock_ms = clock_ms
        return [Heartbeat(clock_ms)]

    def _judge(self) -> list[Mark]:
        """Say `silent`, once, when continuous trading goes on and no quote has become newer for too long."""
        now_s = asyncio.get_running_loop().time()
        quiet_s = now_s - self._frame_s
        if self._clock_ms is None or quiet_s < self._longest_s or not self._has_traded_for(self._longest_s):
            return []
        marks = []
        if not self._silent:
            self._silent = True
            if self._failing_since_s is None:
                self._why = f"the page's quotes have stood still for {quiet_s:.0f} s"
            log.warning("quotes_silent", provider=self._client.page.name, why=self._why)
            marks.append(Mark(MarkKind.SILENT, self._clock_ms, self._why))
        stood_s = now_s - max(self._frame_s, self._switched_s)
        if self._fallback_after_s and self._failing_since_s is None and stood_s >= self._fallback_after_s:
            self._switch()  # it answers, with what is of no use: of old quotes, or under names we do not know
        return marks

    def _has_traded_for(self, seconds: float) -> bool:
        """Tell whether continuous trading goes on, and did so long ago."""
        assert self._calendar is not None
        now_ms = self._now_ms()
        trading = all(in_session(ms, Session.CONTINUOUS) for ms in (now_ms, now_ms - int(seconds * 1000)))
        return trading and self._calendar.is_trading(trade_date(now_ms))

    @property
    def _longest_s(self) -> float:
        """After how long without a newer quote silence is said."""
        return max(SILENT_S, 4 * self._interval_s)

    @property
    def _trail_ms(self) -> int:
        return TRAIL_MS + int(self._interval_s * 1000)

    def _now_ms(self) -> int:
        return int(self._now() * 1000)


def asked_from_ms(now_ms: int, calendar: Calendar) -> int:
    """Return `now_ms` where pages are asked now, else the Unix ms at which they are next."""
    clock_ms = day_ms(now_ms)
    if calendar.is_trading(trade_date(now_ms)):
        for start_ms, end_ms in _HOURS:
            if clock_ms < end_ms:
                return now_ms + max(0, start_ms - clock_ms)
    tomorrow = calendar.next(trade_date(now_ms))
    return unix_ms(tomorrow, _HOURS[0][0])


def _advice(failure: Unanswered) -> str:
    """Say what a person can do about a page that does not answer at the start."""
    if failure.reason in ("http_403", "http_429"):
        return "it refuses this machine for now: wait some minutes, ask less often (feed.quotes_http.interval_s)"
    if failure.reason in ("timeout", "unreachable"):
        return "check the network, or change feed.quotes_http.provider"
    return "the page may have changed: change feed.quotes_http.provider, or set its address"
