"""`Warmup`: finds the bars of the past that rules need: in the cache, in the vendor's history, in files, in this order.

What is at hand (cache and files) is read in a worker thread; the vendor is asked for some symbols at a time while ticks
go on. A day that is missing is never bridged: bars of before it are left out, and the next source is asked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from feeds.barcache import BarCache
from feeds.barfiles import read_files
from feeds.errors import FeedError
from feeds.exrights import ExRightTable, decode_exrights
from feeds.feed import Feed, history_of
from feeds.history import COLUMNS, Bars, BarTable, Factors, HistoryRequest, sound, table_of
from feeds.sessions import DAY_MS, Calendar, day_ms, midnight_ms, trade_date, unix_ms
from feeds.tick import FloatArray
from rules.assembly import (
    CLOSE_MS,
    SOURCES,
    adjusted_by,
    factors_on_record,
    joined,
    longer,
    to_bars,
    unbroken,
    whole_dates,
)
from rules.bars import LONG_PERIODS, PERIOD_MINUTES, minute_at, minute_end_ms
from rules.errors import RuleError

if TYPE_CHECKING:
    from rules.needs import Lack  # and with it all of the rule files, which a try-out on bars does without

CHUNK: Final = 100
"""Symbols whose bars an engine takes over at a time, once it has lived through those of ten times as many: that is
10 ms of its time for 480 bars, and 0.7 MB of the journal."""
ASK: Final = 500
"""Symbols that a vendor is asked for at a time, in as many calls as the feed makes of it."""
WITNESS: Final = "000001.SH"
"""An index that trades on every trading day: whether its bars are there tells holes from suspensions."""
_PER_LONG: Final = {"1w": 5, "1mon": 23}
BASES: Final = ("1m", "5m", "1d")
"""Periods a vendor is asked for; the others are made from them."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the search is: symbols done of all, where it looks, and for how many more seconds (None = not known)."""

    done: int
    total: int
    source: str
    eta_s: float | None = None


class Warmup:
    """One search at a time. `near` and `far` are called on the event loop; what they read, they read in threads.

    files, exrights: called anew at each search, for what they say then.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        cache: BarCache | None = None,
        files: Callable[[], Sequence[Path]] = tuple,
        exrights: Callable[[], str] | None = None,
        calendar: Callable[[], Calendar] = Calendar.xshg,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = history_of(feed)
        self.cache = cache
        self._files = files
        self._exrights = exrights
        self._calendar = calendar
        self._monotonic = monotonic
        self.progress: Progress | None = None
        """None when nothing is searched."""

    @property
    def asks_vendor(self) -> bool:
        """Whether the feed has a history to be asked for."""
        return self._ask is not None

    # ── what is at hand ───────────────────────────────────────────────────────────────────────────────────────────

    async def near(self, lacks: Sequence[Lack], now_ms: int, *, met: bool = True) -> AsyncIterator[Bars]:
        """Yield what cache and files have of what is lacking, some symbols at a time; now_ms: of the ticks to come.

        met: whether the engine has met the symbols; if not, it hears of all of them at once, before their bars: its
        state grows by a hundred symbols in the time it does by all.
        """
        shelf = await asyncio.to_thread(self._shelf)
        if shelf is None:
            return
        for lack in with_days(lacks):
            self.progress = Progress(0, len(lack.symbols), f"cache and files, {lack.period}")
            found = await asyncio.to_thread(_listed, shelf, lack, now_ms)
            if len(found) > 1 and not met:
                yield no_bars(found)
            for bars in found:
                yield bars
        self.progress = None

    def _shelf(self) -> Shelf | None:
        """Return what is at hand; None where ex-rights days cannot be read: without them old prices would be wrong."""
        table = ExRightTable()
        try:
            if self._exrights is not None:
                table = decode_exrights(self._exrights())
        except (FeedError, RuleError, OSError, UnicodeDecodeError) as error:
            log.error("history_exrights_unusable", why=str(error), hint="mend the file and reload")
            return None
        files: dict[str, BarTable] = {}
        try:
            files = read_files(self._files())
        except (FeedError, OSError) as error:
            log.error("history_files_unusable", why=str(error))
        return Shelf(self.cache, files, exrights=table, calendar=self._calendar())

    # ── the vendor ────────────────────────────────────────────────────────────────────────────────────────────────

    async def far(self, lacks: Sequence[Lack], now_ms: Callable[[], int]) -> AsyncIterator[Bars]:
        """Yield what the feed's own history has, some symbols at a time; nothing where it has none.

        A failed call is logged and its symbols are left out. now_ms: the market's time, asked anew for each call.
        """
        if self._ask is None or not lacks:
            return
        calendar = await asyncio.to_thread(self._calendar)
        symbols = tuple(dict.fromkeys(symbol for lack in lacks for symbol in lack.symbols))
        began, failures = self._monotonic(), 0
        try:
            for start in range(0, len(symbols), ASK):
                chunk = symbols[start : start + ASK]
                left = self._eta_s(began, start, len(symbols))
                self.progress = Progress(start, len(symbols), "the vendor's history", left)
                try:
                    for bars in await self._chunk(lacks, chunk, now_ms(), calendar):
                        yield bars
                except FeedError as error:
                    failures += 1
                    log.warning("history_call_failed", why=str(error), symbols=len(chunk), first=chunk[0])
                    if failures >= 3:
                        log.error("history_given_up", symbols_left=len(symbols) - start)
                        return
        finally:
            self.progress = None

    def _eta_s(self, began: float, done: int, total: int) -> float | None:
        return None if not done else round((self._monotonic() - began) / done * (total - done), 1)

    async def _chunk(
        self, lacks: Sequence[Lack], symbols: tuple[str, ...], now_ms: int, calendar: Calendar
    ) -> list[Bars]:
        """Ask for everything these symbols lack and put it together."""
        assert self._ask is not None
        depth: dict[str, int] = {}
        for lack in with_days(lacks):
            base, bars = base_of(lack.period, lack.bars)
            depth[base] = max(depth.get(base, 0), bars)
        if in_day(now_ms, calendar):
            depth["1m"] = max(depth.get("1m", 0), 240)
        tables: dict[str, BarTable] = {}
        factors: dict[int, dict[str, tuple[float, float]]] = {}
        asked = tuple(dict.fromkeys((*symbols, WITNESS)))
        for base, bars in depth.items():
            answer = await self._ask(HistoryRequest(base, asked, bars, now_ms))
            table = answer.table.of(asked)
            # The auction's own bar of 09:30 becomes part of the first minute, and a day that bears its midnight ends.
            table = longer(table.take(sound(table)), base)
            tables[base] = table.take(table.ends_ms <= now_ms)
            for date, moved in answer.factors.items():
                factors.setdefault(date, {}).update(moved)
        wanted = [replace(lack, symbols=tuple(s for s in symbols if s in set(lack.symbols))) for lack in lacks]
        return await asyncio.to_thread(
            lambda: list(_from_vendor(tables, factors, [w for w in wanted if w.symbols], now_ms, calendar=calendar))
        )


class Shelf:
    """What is at hand: the cache, and bars of files. Blocking."""

    def __init__(
        self, cache: BarCache | None, files: dict[str, BarTable], *, exrights: ExRightTable, calendar: Calendar
    ) -> None:
        self._cache = cache
        self._files = files
        self._exrights = exrights
        self._calendar = calendar
        self._moved_today: Factors = {}
        self._found: dict[tuple[str, int, int], BarTable | None] = {}

    def bars(self, lack: Lack, now_ms: int) -> Iterator[Bars]:
        """Yield bars for what is lacking; nothing where they would not reach up to the ticks to come."""
        minutes = self._today(now_ms, lack.symbols)
        through = last_day(now_ms, self._calendar)
        until_ms = unix_ms(through) + CLOSE_MS
        if minutes is not None:
            until_ms = int(minutes.ends_ms.max())
        elif in_day(now_ms, self._calendar) and PERIOD_MINUTES[lack.period] < 240:
            return  # the minutes between the open and the ticks to come are missing
        # Today's minutes are at today's prices, and so must be what is before them.
        as_of = through if minutes is None else trade_date(now_ms)
        table = _of(self._table(lack.period, lack.bars, through, as_of=as_of), lack.period, lack.symbols)
        day = _of(self._table("1d", 1, through, as_of=as_of), "1d", lack.symbols)
        if minutes is not None:
            table, day = _with_today(table, minutes, lack.period), _with_today(day, minutes, "1d")
        yield from in_chunks(table.newest(lack.bars), until_ms=until_ms, day=day)

    def holdings(self, period: str, bars: int, now_ms: int) -> BarTable | None:
        """Return the unbroken bars of a period up to the last trading day that is over, of all symbols."""
        through = last_day(now_ms, self._calendar)
        return self._table(period, bars, through, as_of=through)

    def _table(self, period: str, bars: int, through: int, *, as_of: int) -> BarTable | None:
        """Return all symbols' bars up to a day, without holes, at the prices of `as_of`; of finer ones if need be."""
        key = period, bars, as_of
        if key not in self._found:
            table = self._exact(period, bars, through, as_of=as_of)
            finer = SOURCES.get(period)
            if table is None and finer is not None:
                made_from = self._table(finer, bars * ratio(period, finer), through, as_of=as_of)
                table = None if made_from is None else longer(made_from, period)
            self._found[key] = table
        return self._found[key]

    def _exact(self, period: str, bars: int, through: int, *, as_of: int) -> BarTable | None:
        """Return what cache and files have of this very period: files may hold what is older than our own bars."""
        cached = None if self._cache is None else self._cache.read(period, bars=bars, through=through)
        filed = self._files.get(period)
        found = [table for table in (filed, None if cached is None else cached.table) if table is not None]
        if not found:
            return None
        symbols = tuple(sorted({symbol for table in found for symbol in table.symbols}))
        tables = [table.of(symbols) for table in found]
        table = self._unbroken(tables[0] if len(tables) == 1 else joined(*tables), through)
        if not len(table):
            return None
        told = {**({} if cached is None else cached.factors), **self._moved_today}
        ours = set() if cached is None else whole_dates(cached.table)
        # What our own days saw is in what they told; of the others there is only what is on record.
        filed_days = factors_on_record(table, self._exrights, as_of=as_of).items()
        on_record = {date: day for date, day in filed_days if date not in ours}
        return adjusted_by(table, {**on_record, **told}, as_of=as_of)

    def _unbroken(self, table: BarTable, through: int) -> BarTable:
        """Return the bars behind the last hole; says in the log where there is one."""
        kept = unbroken(table, whole_dates(table), through=through, calendar=self._calendar)
        if len(kept) < len(table):
            log.info(
                "history_broken", period=table.period, through=through, bars=len(kept), left_out=len(table) - len(kept)
            )
        return kept

    def _today(self, now_ms: int, symbols: tuple[str, ...]) -> BarTable | None:
        """Return today's minutes where the cache has them up to the minute of the ticks to come."""
        if self._cache is None or not in_day(now_ms, self._calendar):
            return None
        got = self._cache.read("1m", bars=1, through=trade_date(now_ms))
        if got is None:
            return None
        today = trade_date(now_ms)
        self._moved_today = {date: moved for date, moved in got.factors.items() if date == today}
        return reaching(got.table.of(symbols), now_ms)


def _listed(shelf: Shelf, lack: Lack, now_ms: int) -> list[Bars]:
    return list(shelf.bars(lack, now_ms))


def no_bars(found: Sequence[Bars]) -> Bars:
    """Return an input that tells of the symbols of others and brings no bars."""
    symbols = tuple(symbol for bars in found for symbol in bars.symbols)
    none, zeros = np.zeros(0), np.zeros(len(symbols))
    columns = dict.fromkeys(COLUMNS, none)
    dates = zeros.astype(np.int64)
    return Bars(
        found[0].period, found[0].until_ms, symbols, dates, none.astype(np.int64), **columns, as_of=dates,
        before_lots=zeros, before_cny=zeros,
    )  # fmt: skip


# ── parts of it ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_vendor(
    tables: dict[str, BarTable], factors: Factors, lacks: Sequence[Lack], now_ms: int, *, calendar: Calendar
) -> Iterator[Bars]:
    through = last_day(now_ms, calendar)
    until_ms = unix_ms(through) + CLOSE_MS
    minutes = None
    if in_day(now_ms, calendar):
        minutes = reaching(tables["1m"], now_ms)
        until_ms = until_ms if minutes is None else int(minutes.ends_ms.max())
    as_of = through if minutes is None else trade_date(now_ms)
    whole = {
        base: adjusted_by(_whole(table, through, calendar), factors, as_of=as_of) for base, table in tables.items()
    }
    for lack in with_days(lacks):
        if minutes is None and PERIOD_MINUTES[lack.period] < 240 and in_day(now_ms, calendar):
            continue
        base, _ = base_of(lack.period, lack.bars)
        table = longer(whole[base], lack.period) if base != lack.period else whole[base]
        day = whole["1d"].of(lack.symbols) if "1d" in whole else None
        table = table.of(lack.symbols)
        if minutes is not None:
            table = _with_today(table, minutes, lack.period)
            day = None if day is None else _with_today(day, minutes, "1d")
        yield from in_chunks(table.newest(lack.bars), until_ms=until_ms, day=day)


def _whole(table: BarTable, through: int, calendar: Calendar) -> BarTable:
    """Return the bars behind the last hole, up to the last trading day that is over."""
    known = whole_dates(table)
    kept = unbroken(table, known, through=through, calendar=calendar)
    oldest = min(known, default=0)
    if not len(kept) and len(table):
        log.warning("history_broken", period=table.period, through=through, newest=max(known, default=0))
    elif len(kept) < len(table) and oldest < trade_date(int(kept.ends_ms.min())):
        log.warning("history_broken", period=table.period, since=trade_date(int(kept.ends_ms.min())))
    return kept


def _with_today(table: BarTable, minutes: BarTable, period: str) -> BarTable:
    """Return the bars with those of today behind them, of which the newest may be forming."""
    today = minutes if period == "1m" else longer(minutes, period)
    if period in LONG_PERIODS:  # the week's forming bar holds earlier days already
        older = table.of(table.symbols)
        today = today.of(table.symbols)
        return _widened(older, today)
    return joined(table, replace(today, as_of=np.zeros(len(today.symbols), np.int64)))


def _widened(older: BarTable, today: BarTable) -> BarTable:
    """Return the bars of a long period with today's part of the newest one in it."""
    code = np.concatenate([older.code, today.code])
    ends_ms = np.concatenate([older.ends_ms, today.ends_ms])
    order = np.lexsort((np.arange(len(code)), ends_ms, code))

    def both(name: str) -> FloatArray:
        return np.asarray(np.concatenate([getattr(older, name), getattr(today, name)])[order])

    merged = replace(
        older, code=code[order], ends_ms=ends_ms[order], open=both("open"), high=both("high"), low=both("low"),
        close=both("close"), volume_lots=both("volume_lots"), amount_cny=both("amount_cny"),
    )  # fmt: skip
    return longer(merged, older.period)


def reaching(table: BarTable, now_ms: int) -> BarTable | None:
    """Return today's minutes if they go from the open up to the minute before the one of `now_ms`; else None."""
    today = midnight_ms(now_ms)
    minutes = table.take((table.ends_ms > today) & (table.ends_ms < today + DAY_MS))
    if not len(minutes):
        return None
    ends = np.unique(minutes.ends_ms)
    wanted = today + minute_end_ms(np.arange(1, minute_at(day_ms(int(ends[-1]))) + 1))
    due = minute_at(day_ms(now_ms)) - 1
    is_whole = len(ends) == len(wanted) and (ends == wanted).all()
    return minutes if is_whole and len(ends) >= due else None


def _of(table: BarTable | None, period: str, symbols: tuple[str, ...]) -> BarTable:
    """Return these symbols' bars, none where there is no table."""
    if table is not None:
        return table.of(symbols)
    none = np.zeros(0)
    columns = dict.fromkeys(COLUMNS, none)
    return table_of(period, np.zeros(0, "U1"), none.astype(np.int64), columns=columns).of(symbols)


def in_chunks(table: BarTable, *, until_ms: int, day: BarTable | None) -> Iterator[Bars]:
    """Yield a table's symbols that have bars as inputs of an engine, in their order."""
    symbols = tuple(table.symbols[i] for i in np.flatnonzero(table.counts()))
    days = repeat(None) if day is None else _cut(day.of(symbols))
    for some, of_day in zip(_cut(table.of(symbols)), days, strict=False):
        yield to_bars(some, until_ms=until_ms, day=of_day)


def _cut(table: BarTable) -> Iterator[BarTable]:
    """Yield some symbols' bars at a time; they lie one symbol behind the other."""
    begins = np.cumsum([0, *table.counts()])
    for start in range(0, len(table.symbols), CHUNK):
        stop = min(start + CHUNK, len(table.symbols))
        rows = slice(begins[start], begins[stop])
        columns = {name: getattr(table, name)[rows] for name in ("ends_ms", *COLUMNS)}
        yield replace(
            table, symbols=table.symbols[start:stop], code=table.code[rows] - start, as_of=table.as_of[start:stop],
            **columns,
        )  # fmt: skip


def with_days(lacks: Sequence[Lack]) -> list[Lack]:
    """Return what is lacking with the days of weeks and months before them: volumes of a week go on from the day's."""
    days = [lack for lack in lacks if lack.period == "1d"]
    others = [lack for lack in lacks if lack.period != "1d"]
    if others and not days:
        symbols = tuple(dict.fromkeys(symbol for lack in others for symbol in lack.symbols))
        days = [replace(others[0], period="1d", bars=1, symbols=symbols)]
    return [*days, *others]


def base_of(period: str, bars: int) -> tuple[str, int]:
    """Return the period that a vendor is asked for, and how many bars of it."""
    while period not in BASES:
        bars, period = bars * ratio(period, SOURCES[period]), SOURCES[period]
    return period, bars


def ratio(period: str, finer: str) -> int:
    """Return how many bars of a finer period make one."""
    return _PER_LONG.get(period) or -(-PERIOD_MINUTES[period] // PERIOD_MINUTES[finer])


def in_day(now_ms: int, calendar: Calendar) -> bool:
    """Tell whether trading minutes of the day are over already, and the day is not."""
    is_trading = calendar.is_trading(trade_date(now_ms)) and day_ms(now_ms) < CLOSE_MS
    return is_trading and minute_at(day_ms(now_ms)) > 1


def last_day(now_ms: int, calendar: Calendar) -> int:
    """Return the last trading day (yyyymmdd) that is over: today's from 15:00 on."""
    date = trade_date(now_ms)
    over = calendar.is_trading(date) and day_ms(now_ms) >= CLOSE_MS
    return date if over else calendar.previous(date)
