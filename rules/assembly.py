"""From tables of bars to what an engine takes: longer periods, unbroken days, prices of one date, forming bars.

Pure: who calls it has read the tables and says what the time is.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Final

import numpy as np

from feeds.exrights import ExRightTable, factors
from feeds.history import PRICES, Bars, BarTable, Factors
from feeds.sessions import Calendar, day_number, midnight_ms, trade_date, unix_ms
from feeds.tick import FloatArray, IntArray
from rules.bars import DAY_MS, LONG_PERIODS, PERIOD_MINUTES, last_day_ms, minute_end_ms, trading_minute

SOURCES: Final = {"1mon": "1d", "1w": "1d", "1d": "5m", "60m": "5m", "30m": "5m", "15m": "5m", "5m": "1m"}
"""Period → the next one that its bars may be made from."""
CLOSE_MS: Final = 15 * 3_600_000


def ends_of(ts_ms: IntArray, period: str) -> IntArray:
    """Return the end (Unix ms) of the bar of a period that each time belongs to, of whatever days."""
    midnight = midnight_ms(ts_ms)
    minutes = PERIOD_MINUTES[period]
    slots = -(-trading_minute(ts_ms - midnight) // minutes)
    if period in LONG_PERIODS:
        days, place = np.unique(midnight, return_inverse=True)
        midnight = np.array([last_day_ms(int(day), period) for day in days], np.int64)[place]
    return np.asarray(midnight + minute_end_ms(slots * minutes))


def longer(table: BarTable, period: str) -> BarTable:
    """Return the bars of a longer period that these make; the newest may be forming still."""
    ends_ms = ends_of(table.ends_ms, period)
    fresh = np.append(True, (table.code[1:] != table.code[:-1]) | (ends_ms[1:] != ends_ms[:-1]))[: len(table)]
    starts = np.flatnonzero(fresh)
    if not starts.size:
        return replace(table, period=period)
    lasts = np.append(starts[1:], len(table)) - 1
    return replace(
        table,
        period=period,
        code=table.code[starts],
        ends_ms=ends_ms[starts],
        open=table.open[starts],
        high=np.fmax.reduceat(table.high, starts),
        low=np.fmin.reduceat(table.low, starts),
        close=table.close[lasts],
        volume_lots=np.add.reduceat(table.volume_lots, starts),
        amount_cny=np.add.reduceat(table.amount_cny, starts),
    )


def joined(older: BarTable, newer: BarTable) -> BarTable:
    """Return the bars of two tables of one period, for the older one's symbols; of two with one end the newer one's."""
    newer = newer if newer.symbols == older.symbols else newer.of(older.symbols)
    code = np.concatenate([older.code, newer.code])
    ends_ms = np.concatenate([older.ends_ms, newer.ends_ms])
    order = np.lexsort((np.arange(len(code)), ends_ms, code))
    last = np.append((np.diff(code[order]) != 0) | (np.diff(ends_ms[order]) != 0), True)[: len(order)]
    rows = order[last]
    columns = {
        name: np.concatenate([getattr(older, name), getattr(newer, name)])[rows]
        for name in (*PRICES, "volume_lots", "amount_cny")
    }
    as_of = np.maximum(older.as_of, newer.as_of)
    return replace(older, code=code[rows], ends_ms=ends_ms[rows], **columns, as_of=as_of)


def dates_of(table: BarTable) -> list[int]:
    """Return the trade dates of which there are bars, oldest first."""
    return [trade_date(int(ms)) for ms in np.unique(midnight_ms(table.ends_ms))]


def whole_dates(table: BarTable) -> frozenset[int]:
    """Return the trade dates whose bars are complete: from the open to the close, and begun by who was there then.

    A symbol without bars on such a date did not trade. On other dates nobody knows.
    """
    days, day = np.unique(midnight_ms(table.ends_ms), return_inverse=True)
    per_day = 1 if table.period in LONG_PERIODS else -(-240 // PERIOD_MINUTES[table.period])
    known = ~np.isnan(table.volume_lots) | np.isnan(table.volume_lots).all()
    distinct = np.unique(np.stack([day[known], table.ends_ms[known]]), axis=1)[0]
    counts = np.bincount(distinct, minlength=len(days))
    return frozenset(trade_date(int(ms)) for ms in days[counts >= per_day])


def unbroken(table: BarTable, dates: Collection[int], *, through: int, calendar: Calendar) -> BarTable:
    """Return the bars from the day on since which no trading day up to `through` is missing among `dates`."""
    first = date = through
    known = frozenset(dates)
    if date not in known:
        return table.take(np.zeros(len(table), np.bool_))
    oldest = min(known)
    while date >= oldest and date in known:
        first, date = date, calendar.previous(date)
    return table.take((table.ends_ms >= unix_ms(first)) & (table.ends_ms < unix_ms(through) + DAY_MS))


def adjusted_by(table: BarTable, factors: Factors, *, as_of: int) -> BarTable:
    """Return bars of their own days' prices at those of `as_of`, by what each day multiplied its past by."""
    price, shares = np.ones(len(table)), np.ones(len(table))
    place = {symbol: i for i, symbol in enumerate(table.symbols)}
    for date, moved in factors.items():
        if date > as_of:
            continue
        begins_ms = unix_ms(date)
        for symbol, (factor, more) in moved.items():
            code = place.get(symbol)
            if code is not None:
                rows = _before(table, code, begins_ms)
                price[rows] *= factor
                shares[rows] *= more
    return _multiplied(table, price, shares, as_of=as_of)


def factors_on_record(table: BarTable, exrights: ExRightTable, *, as_of: int) -> Factors:
    """Return what the ex-rights days on record up to `as_of` do to bars of their own days' prices.

    One that nobody can believe is left to the feed to tell.
    """
    found: dict[int, dict[str, tuple[float, float]]] = {}
    first = min(dates_of(table), default=as_of)
    for code, symbol in enumerate(table.symbols):
        for one in exrights.between(symbol, first, as_of):
            rows = _before(table, code, unix_ms(one.date))
            close = float(table.close[rows.stop - 1]) if rows.start < rows.stop else float("nan")
            day = factors([one], close)
            if day.price == day.price:
                found.setdefault(one.date, {})[symbol] = (day.price, day.shares)
    return found


def _before(table: BarTable, code: int, time_ms: int) -> slice:
    """Return where a symbol's bars before a time stand."""
    start, stop = np.searchsorted(table.code, [code, code + 1])
    return slice(int(start), int(start + np.searchsorted(table.ends_ms[start:stop], time_ms)))


def _multiplied(table: BarTable, price: FloatArray, shares: FloatArray, *, as_of: int) -> BarTable:
    prices = {name: getattr(table, name) * price for name in PRICES}
    dates = np.full(len(table.symbols), as_of, np.int64)
    return replace(table, **prices, volume_lots=table.volume_lots * shares, as_of=dates)


def to_bars(table: BarTable, *, until_ms: int, day: BarTable | None = None) -> Bars:
    """Return what an engine takes; `day` are the same symbols' bars of 1d, for what they had traded on the last day."""
    n = len(table.symbols)
    table = table.take(~np.isnan(table.close))
    before_lots, before_cny = np.full(n, np.nan), np.full(n, np.nan)
    if day is not None:
        today = day_number(day.ends_ms) == day_number(until_ms)
        for before, name in ((before_lots, "volume_lots"), (before_cny, "amount_cny")):
            before[...] = 0.0
            before[day.code[today]] = getattr(day, name)[today]
            forming = table.ends_ms > until_ms
            before[table.code[forming]] -= getattr(table, name)[forming]
    columns = {name: getattr(table, name) for name in (*PRICES, "volume_lots", "amount_cny")}
    return Bars(
        table.period, until_ms, table.symbols, table.counts(), table.ends_ms, **columns, as_of=table.as_of,
        before_lots=before_lots, before_cny=before_cny,
    )  # fmt: skip
