"""`ExRights`: on which days symbols start from another reference price than their last close.

There are two witnesses. A table of ex-rights days, given by control record, is believed as it stands. Without a record
the feed tells: on an ex-rights day the previous close that the exchange publishes is not the last close but the
reference price made from it. That is only to be seen where the last close is surely known: of the very trading day
before a tick with a closing status, or one at or after 15:00:02 with nothing missed behind it; or a day on which we
missed nothing and the symbol did not trade.

A symbol is looked at from 09:15 of each trade date on, until its first price of the day: from there on the day's own
bars would be changed too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from feeds.exrights import LEAST, MOST, NO_EXRIGHTS, ExRightTable, decode_exrights
from feeds.exrights import factors as factors_of
from feeds.instruments import Board, Instrument, instrument_of
from feeds.sessions import day_ms, midnight_ms, trade_date
from feeds.tick import BoolArray, FloatArray, IntArray, TickBatch
from rules.latest import Latest
from rules.node import Selection
from rules.state import StateTable

EXRIGHT: Final = "exright"
"""The `gap` of an event that compares the price of an ex-rights day with a number of before it."""
CLOSING_STATUS: Final = (15, 22, 23)
_SAME: Final = 1e-9
_NO_END: Final = 1 << 62
_OPEN_AUCTION_MS: Final = (9 * 60 + 15) * 60_000
_AUCTION_RESULT_MS: Final = (9 * 60 + 25) * 60_000
_CLOSE_MS: Final = 15 * 3_600_000 + 2_000
"""From when on a tick may show the close: the closing auction's result is printed no earlier, at 15:00:00 it is not."""


@dataclass(frozen=True, slots=True)
class Adjustment:
    """What the past of some symbols is multiplied by: prices by `price`, volumes by `shares`, (k,) float64 each."""

    rows: IntArray
    price: FloatArray
    shares: FloatArray


class ExRights:
    """The known days, and per symbol the last close and what has been decided of today; part of the market's state.

    source: the canonical JSON in force.
    """

    def __init__(self, state: StateTable) -> None:
        self.source = NO_EXRIGHTS
        self.table = ExRightTable()
        self.unbelieved: dict[tuple[str, int], str] = {}
        """(symbol, date) → what was told of that day and is not believed; no state: for whoever runs the engine."""
        self._close = state.claim("exrights/close")
        """Last price of the last day with one, in yuan, NaN = none; on an ex-rights day the reference made from it."""
        self._close_date = state.claim("exrights/close_date", dtype=np.int64, fill=0)
        """The trade date whose close that surely is (yyyymmdd), 0 = none."""
        self._read_date = state.claim("exrights/read_date", dtype=np.int64, fill=0)
        """Up to which date the table has been applied."""
        self._decided_date = state.claim("exrights/decided_date", dtype=np.int64, fill=0)
        """The last date on which nothing is open any more."""
        self._settled = (0, 0)
        """A date on which nothing is open any more of so many symbols: all there were then."""
        self._missed_ms = state.claim("exrights/missed_ms", dtype=np.int64, fill=0)
        """Since when ticks were missing last, Unix ms; _NO_END = since before today."""
        self.ex_date = state.claim("exrights/ex_date", dtype=np.int64, fill=0)
        """The symbol's last ex-rights day that we know of, 0 = none, or the feed has taken it back."""
        self._told = state.claim("exrights/told", fill=1.0)
        """What the factors come to that the feed has told on `read_date`; 1 = nothing, or all has been taken back."""
        self.price = state.claim("exrights/price", fill=1.0)
        self.shares = state.claim("exrights/shares", fill=1.0)
        """What prices and volumes of before `read_date` have been multiplied by on it."""

    def take(self, source: str) -> None:
        """Let this table take the place of what was known; raises FeedError if it is none."""
        self.table = decode_exrights(source)
        self.source = source

    def miss(self, ts_ms: int) -> None:
        """Note that ticks are missing between this time and the next ones."""
        missed_ms = self._missed_ms.array
        missed_ms[...] = np.where(missed_ms == _NO_END, ts_ms, np.maximum(missed_ms, ts_ms))

    def is_ex(self, row: int, ts_ms: int) -> bool:
        """Tell whether this is an ex-rights day of the symbol."""
        return bool(self.ex_date.array[row] == trade_date(ts_ms))

    def waits(self, at: Selection, date: int) -> bool:
        """Tell whether there is something to decide of some of these symbols on this date: rarely after the open."""
        decided = self._decided_date.array
        if self._settled == (date, len(decided)):
            return False
        waiting = not (decided[at] == date).all()
        if not waiting and isinstance(at, slice):
            self._settled = date, len(decided)
        return waiting

    def end_day(self, latest: Latest, *, date: int, midnight: int) -> None:
        """Remember the closes of a date that is over, as its last ticks tell them."""
        here = latest.ts_ms.array >= midnight
        if not here.any():  # no trading day, or not one of ours
            return
        last, volume = latest.raw("last"), latest.raw("volume_lots")
        traded = here & ~np.isnan(last) & ~(volume <= 0)
        ts_ms, missed_ms = latest.ts_ms.array, self._missed_ms.array
        # Marks are as of a second. What was missed since before today is no more once there are ticks again.
        complete = (missed_ms < ts_ms // 1000 * 1000) | (missed_ms == _NO_END)
        over = ((day_ms(ts_ms) >= _CLOSE_MS) & complete) | np.isin(latest.status.array, CLOSING_STATUS)
        stood = ~traded & (missed_ms < midnight) & (self._close_date.array == self.table.previous(date))
        self._close.array[traded] = last[traded]
        self._close_date.array[...] = np.where((traded & over) | stood, date, 0)
        # What was missed behind the day's last ticks may have been some of the next day too.
        newest_ms = int(ts_ms.max()) // 1000 * 1000
        missed_ms[...] = np.where((missed_ms >= newest_ms) & (missed_ms < _NO_END), _NO_END, 0)

    def decide(
        self, rows: IntArray, batch: TickBatch, *, symbols: Sequence[str], instruments: Mapping[str, Instrument]
    ) -> Adjustment | None:
        """Return what these ticks, which have not been applied yet, tell of ex-rights; None where it is nothing."""
        date = trade_date(int(batch.ts_event_ms.max()))
        clock = day_ms(batch.ts_event_ms)
        of_today = batch.ts_event_ms >= midnight_ms(int(batch.ts_event_ms.max()))
        open_ = (self._decided_date.array[rows] != date) & (clock >= _OPEN_AUCTION_MS) & of_today
        if not open_.any():
            return None
        rows, prev = rows[open_], batch.column("prev_close")[open_]
        priced = (clock[open_] >= _AUCTION_RESULT_MS) & ~np.isnan(batch.column("last")[open_])
        price, shares = np.ones(len(rows)), np.ones(len(rows))
        filed = self._read_table(rows, symbols, date=date, price=price, shares=shares)
        known = self._close.array[rows], self._close_date.array[rows]
        told = ~filed & self._is_told(
            rows, prev, *known, tick_of=_ticks(symbols, instruments), symbols=symbols, date=date
        )
        self._hear(rows, prev, told, price=price, date=date)
        self.price.array[rows] *= price
        self.shares.array[rows] *= shares
        self._decided_date.array[rows[priced | filed]] = date
        changed = (price != 1) | (shares != 1)
        return Adjustment(rows[changed], price[changed], shares[changed]) if changed.any() else None

    def _hear(self, rows: IntArray, prev: FloatArray, told: BoolArray, *, price: FloatArray, date: int) -> None:
        """Write into `price` what the feed tells, and remember it; the last closes follow what is in `price`."""
        price[told] = prev[told] / self._close.array[rows[told]]
        self._close.array[rows] *= price
        self._told.array[rows[told]] *= price[told]
        taken_back = np.abs(self._told.array[rows[told]] - 1) <= _SAME
        self.ex_date.array[rows[told]] = np.where(taken_back, 0, date)

    def _read_table(
        self, rows: IntArray, symbols: Sequence[str], *, date: int, price: FloatArray, shares: FloatArray
    ) -> BoolArray:
        """Write the factors of the days on record since the symbols were last seen; return which had any.

        Where they come to nothing that is believed, only the day is: it is left to the feed to tell by how much.
        """
        filed = np.zeros(len(rows), np.bool_)
        days = self.table.days
        for i in np.flatnonzero(self._read_date.array[rows] != date) if days else ():
            row = int(rows[i])
            since = self._read_date.array[row]
            due = self.table.between(symbols[row], int(since), date)
            if not due:
                continue
            if due[-1].date == date:
                self.ex_date.array[row] = date
            found = factors_of(due, float(self._close.array[row]))
            filed[i] = not since or not np.isnan(found.price)
            if not filed[i]:
                self._doubt(symbols[row], date, f"records up to {due[-1].date} come to a factor out of bounds")
            if since and filed[i]:
                price[i], shares[i] = found.price, found.shares
        anew = rows[self._read_date.array[rows] != date]
        for column in (self._told, self.price, self.shares):
            column.array[anew] = 1
        self._read_date.array[rows] = date
        return filed

    # ── bars of the past ──────────────────────────────────────────────────────────────────────────────────────────

    def factors_since(self, rows: IntArray, dates: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return what prices and volumes of these dates are to be multiplied by to be as of what has been read.

        1 where nothing has been read yet, or nothing later than the date.
        """
        later = self._read_date.array[rows] > dates
        return np.where(later, self.price.array[rows], 1.0), np.where(later, self.shares.array[rows], 1.0)

    def factors_on(self, date: int) -> tuple[FloatArray, FloatArray]:
        """Return what prices and volumes of before a date were multiplied by on it, (n,) each; 1 = were not."""
        on = self._read_date.array == date
        return np.where(on, self.price.array, 1.0), np.where(on, self.shares.array, 1.0)

    def behind(self, rows: IntArray, dates: IntArray) -> BoolArray:
        """Tell for which symbols ex-rights have been read only up to before these dates, though at some time."""
        read = self._read_date.array[rows]
        return np.asarray((read > 0) & (read < dates))

    def catch_up(self, rows: IntArray, *, date: int, symbols: Sequence[str]) -> Adjustment | None:
        """Return what the table tells of these symbols up to a date on which they have not been looked at."""
        price, shares = np.ones(len(rows)), np.ones(len(rows))
        self._read_table(rows, symbols, date=date, price=price, shares=shares)
        self._close.array[rows] *= price
        self._close_date.array[rows] = 0
        self.price.array[rows] *= price
        self.shares.array[rows] *= shares
        changed = (price != 1) | (shares != 1)
        return Adjustment(rows[changed], price[changed], shares[changed]) if changed.any() else None

    def hear_late(
        self, rows: IntArray, *, dates: IntArray, close: FloatArray, prev: FloatArray, symbols: Sequence[str],
        instruments: Mapping[str, Instrument], date: int,
    ) -> None:  # fmt: skip
        """Decide of symbols whose ticks of this date have come before any close was known: here are the closes.

        Nothing of before is known of them, so there is nothing to adjust; `factors_since` tells it for what comes.
        """
        late = self._is_late(rows, dates, date=date)
        if not late.any():
            return
        rows, prev, close, dates = rows[late], prev[late], close[late], dates[late]
        self._close.array[rows], self._close_date.array[rows] = close, dates
        price = np.ones(len(rows))
        tick_of = _ticks(symbols, instruments)
        told = self._is_told(rows, prev, close, dates, tick_of=tick_of, symbols=symbols, date=date)
        self._hear(rows, prev, told, price=price, date=date)
        self.price.array[rows] *= price

    def factors_to_be(
        self, rows: IntArray, *, dates: IntArray, close: FloatArray, prev: FloatArray, symbols: Sequence[str],
        instruments: Mapping[str, Instrument], date: int,
    ) -> tuple[FloatArray, FloatArray]:  # fmt: skip
        """Return what `factors_since` will say once `hear_late` has been told the same."""
        price, shares = self.factors_since(rows, dates)
        late = np.flatnonzero(self._is_late(rows, dates, date=date))
        if late.size:
            known = rows[late], prev[late], close[late], dates[late]
            told = self._is_told(*known, tick_of=_ticks(symbols, instruments), symbols=symbols, date=date)
            those = late[told]
            price[those] *= prev[those] / close[those]
        return price, shares

    def _is_late(self, rows: IntArray, dates: IntArray, *, date: int) -> BoolArray:
        """Tell whose ticks of this date have come before any close was known; dates: those of the closes to come."""
        unknown = (self._read_date.array[rows] == date) & np.isnan(self._close.array[rows])
        return np.asarray(unknown & (dates < date))

    def begin(self, rows: IntArray, *, dates: IntArray, close: FloatArray) -> None:
        """Take these for the closes of those dates, of symbols never looked at: the next day is measured by them."""
        new = self._read_date.array[rows] == 0
        rows, dates, close = rows[new], dates[new], close[new]
        self._read_date.array[rows] = dates
        self._close.array[rows] = close
        self._close_date.array[rows] = dates

    def _is_told(
        self,
        rows: IntArray,
        prev: FloatArray,
        close: FloatArray,
        close_dates: IntArray,
        *,
        tick_of: Callable[[int], float],
        symbols: Sequence[str],
        date: int,
    ) -> BoolArray:
        """Tell whose previous close is not the close of a date that is surely yesterday's, by more than half a tick."""
        with np.errstate(all="ignore"):
            ratio = prev / close
            told = (close_dates == self.table.previous(date)) & (prev != close)
            product = self._told.array[rows] * ratio
            bounded = (ratio >= LEAST) & (ratio <= MOST) & (product >= LEAST) & (product <= MOST)
        for i in np.flatnonzero(told & ~bounded & ~np.isnan(ratio)):
            why = f"previous close {prev[i]:g} after a close of {close[i]:g}: a factor out of bounds"
            self._doubt(symbols[int(rows[i])], date, why)
        told &= bounded
        for i in np.flatnonzero(told):
            told[i] = abs(prev[i] - close[i]) > tick_of(int(rows[i])) / 2 * (1 + 1e-9)
        return np.asarray(told)

    def _doubt(self, symbol: str, date: int, why: str) -> None:
        self.unbelieved.setdefault((symbol, date), why)


def _ticks(symbols: Sequence[str], instruments: Mapping[str, Instrument]) -> Callable[[int], float]:
    """Return what tells a row's price tick; that of an index is endless, as it is of nobody's shares."""

    def tick_of(row: int) -> float:
        known = instruments.get(symbols[row]) or instrument_of(symbols[row])
        return np.inf if known.board is Board.INDEX else known.tick

    return tick_of
