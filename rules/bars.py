"""Bars of every period for all symbols, made from ticks: the forming bar of each symbol as columns.

A bar covers (start, end] of trading time and bears its end; the first bar of each half-day also takes its own start.
Ticks of lunch count at 11:30, ticks after the close at 15:00.

A bar goes through three steps, each its own method, because the engine has work to do between them:

* it *forms* while ticks `join` it;
* it *closes* when its symbol trades in a later bar, or when the market clock says so. Rules of `eval: bar_close` are
  evaluated here. A late tick may still amend a bar that the clock has closed;
* it is *committed* to the graph right before the symbol's next bar opens, so an amended bar enters every indicator with
  its amended values and nothing ever has to be undone.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Final, overload

import numpy as np

from feeds.sessions import day_ms, midnight_ms
from feeds.tick import BoolArray, FloatArray, IntArray, TickBatch
from rules import counted
from rules.alert import SHANGHAI
from rules.node import Selection
from rules.state import Column, StateTable

PERIOD_MINUTES: Final = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "60m": 60, "1d": 240, "1w": 240, "1mon": 240}
"""Trading minutes after which a bar of each period may end, shortest first; a trading day has 240."""
LONG_PERIODS: Final = ("1w", "1mon")
"""Periods whose bar goes on over the night."""
DAY_MINUTES: Final = 240
FIELDS: Final = ("O", "H", "L", "C", "V", "AMO")

MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
CLOSE_DELAY_MS: Final = 3_000
"""How long after a bar's end the market clock closes it."""
_MORNING_MS: Final = (9 * 60 + 30) * MINUTE_MS
_AFTERNOON_MS: Final = 13 * 60 * MINUTE_MS
_CLOSE_MS: Final = 15 * 60 * MINUTE_MS
_HALF: Final = 120

OPEN, CLOSED_BY_CLOCK, FINAL = 0, 1, 2
"""Values of a bar's `closed` column. A late tick amends CLOSED_BY_CLOCK, never FINAL."""


def trading_minute(day_ms: IntArray) -> IntArray:
    """Return the 1-based trading minute (1..240) whose 1m bar takes a tick at these ms since Shanghai midnight."""
    morning = np.clip(-((_MORNING_MS - day_ms) // MINUTE_MS), 1, _HALF)
    afternoon = np.clip(-((_AFTERNOON_MS - day_ms) // MINUTE_MS), 1, _HALF) + _HALF
    return np.where(day_ms < _AFTERNOON_MS, morning, afternoon)


def minute_at(day_ms: int) -> int:
    """Return the trading minute of one time."""
    start, passed = (_MORNING_MS, 0) if day_ms < _AFTERNOON_MS else (_AFTERNOON_MS, _HALF)
    return passed + min(max(-((start - day_ms) // MINUTE_MS), 1), _HALF)


@overload
def minute_end_ms(minute: int) -> int: ...
@overload
def minute_end_ms(minute: IntArray) -> IntArray: ...
def minute_end_ms(minute: IntArray | int) -> IntArray | int:
    """Return ms since Shanghai midnight of the end of this 1-based trading minute; 0 gives the morning's start."""
    if isinstance(minute, int):
        return minute * MINUTE_MS + (_MORNING_MS if minute <= _HALF else _AFTERNOON_MS - _HALF * MINUTE_MS)
    start = np.where(minute <= _HALF, _MORNING_MS, _AFTERNOON_MS - _HALF * MINUTE_MS)
    return np.asarray(start + minute * MINUTE_MS)


@lru_cache(maxsize=64)
def last_day_ms(midnight: int, period: str) -> int:
    """Return the Shanghai midnight of the day a bar of `period` on this day ends.

    A week ends on its Friday and a month on its last calendar day, whether or not the market trades then.
    """
    day = datetime.fromtimestamp(midnight / 1000, SHANGHAI)
    if period == "1w":
        return midnight + (4 - day.weekday()) * DAY_MS
    if period == "1mon":
        return midnight + (monthrange(day.year, day.month)[1] - day.day) * DAY_MS
    return midnight


def bar_end_ms(ts_ms: IntArray, period: str) -> IntArray:
    """Return the end (Unix ms) of the bar of this period that takes a tick at each ts; all of one trade date."""
    midnight = midnight_ms(int(ts_ms[0])) if len(ts_ms) else 0
    minutes = PERIOD_MINUTES[period]
    slots = -(-trading_minute(ts_ms - midnight) // minutes)
    return last_day_ms(midnight, period) + minute_end_ms(slots * minutes)


def bar_start_ms(end_ms: int, period: str) -> int:
    """Return the start (Unix ms) of the bar of this period that ends at `end_ms`; lunch is skipped.

    Of a long period it is the start of its last day.
    """
    midnight = midnight_ms(end_ms)
    minute = int(trading_minute(np.array([end_ms - midnight]))[0]) - PERIOD_MINUTES[period]
    start = minute_end_ms(minute)
    return midnight + (_AFTERNOON_MS if minute == _HALF else start)


class DayColumns:
    """What bars of all periods share per symbol and day: cumulative volume, day extremes, the first tick's time."""

    def __init__(self, state: StateTable) -> None:
        self.first_ms = state.claim("day/first_ms", dtype=np.int64, fill=0)
        self.volume = state.claim("day/volume")
        self.amount = state.claim("day/amount")
        self.high = state.claim("day/high")
        self.low = state.claim("day/low")

    def roll(self) -> None:
        """Forget the old day."""
        for column in (self.first_ms, self.volume, self.amount, self.high, self.low):
            column.mine()[...] = column.fill

    def borrow(self, batch: TickBatch) -> None:
        """Remember the figures of a tick of every symbol in order."""
        for column, shown in self.shown(batch):
            column.borrow(shown)

    def shown(self, batch: TickBatch) -> Iterator[tuple[Column, FloatArray]]:
        """Yield each column of figures with that of the batch which it remembers."""
        yield self.volume, batch.column("volume_lots")
        yield self.amount, batch.column("amount_cny")
        yield self.high, batch.column("high")
        yield self.low, batch.column("low")


@dataclass(frozen=True, slots=True)
class Extremes:
    """The day's highs and lows where they moved since their symbol's last tick: a bar widens to them, too.

    up, down: rows; high, low: what they moved to.
    """

    up: IntArray
    high: FloatArray
    down: IntArray
    low: FloatArray

    def within(self, held: BoolArray) -> Extremes:
        """Return those of the rows that are set in (n,) `held`."""
        up, down = held[self.up], held[self.down]
        return Extremes(self.up[up], self.high[up], self.down[down], self.low[down])


class PeriodBars:
    """The forming (or closed, not yet committed) bar of one period for every symbol.

    fields["C"] … (n,) float64; V in lots and AMO in yuan are NaN for a bar whose start was not seen. `end_ms` 0 = no
    bar of this trade date yet.
    """

    def __init__(self, period: str, state: StateTable) -> None:
        self.period = period
        claim = state.claim
        self.end_ms = claim(f"bars/{period}/end_ms", dtype=np.int64, fill=0)
        self.closed = claim(f"bars/{period}/closed", dtype=np.int8, fill=OPEN)
        self.flat = claim(f"bars/{period}/flat", dtype=np.bool_, fill=False)
        self.partial = claim(f"bars/{period}/partial", dtype=np.bool_, fill=False)
        """The symbol ticked today before this period came into use: its first bar's volume is unknown."""
        self.gap = claim(f"bars/{period}/gap", dtype=np.int8, fill=0)
        """What lies between this bar's close and that of the bar before, an index into gaps.GAPS."""
        self.away_ms = claim(f"bars/{period}/away_ms", dtype=np.int64, fill=-1)
        """The trading time there in which we ourselves were away, -1 = none."""
        prices: dict[str, Column] = {name: claim(f"bars/{period}/{name}") for name in ("O", "H", "L", "C")}
        names = [(f"bars/{period}/volume_at_start", "V"), (f"bars/{period}/amount_at_start", "AMO")]
        (self.volume_at_start, self._volume), (self.amount_at_start, self._amount) = (
            counted.claim(state, start=start, grown=f"bars/{period}/{name}") for start, name in names
        )
        self.fields: dict[str, Column] = {**prices, "V": self._volume, "AMO": self._amount}
        self.widened: tuple[Column, ...] = (self.end_ms, self.closed, self.flat, prices["H"], prices["L"])
        """What an ordinary batch looks at and widens (ordinary.py)."""

    def ends_before(self, at: Selection, end_ms: int | IntArray) -> BoolArray:
        """Tell which symbols hold a bar of today that ends before `end_ms`: it must be committed to make room."""
        held = self.end_ms.array[at]
        return np.asarray((held > 0) & (held < end_ms))

    def open_bars(self, rows: IntArray, *, end_ms: int | IntArray, last: FloatArray, day: DayColumns) -> None:
        """Start a bar at each symbol's `last`; volume counts from what the symbol had traded before this tick.

        `day` still holds the state before the tick. A symbol whose first tick of the day came after 09:30:00 has an
        unknown (NaN) volume base, so V and AMO of its first, partial bar are NaN.
        """
        self.end_ms.array[rows] = end_ms
        self.closed.array[rows] = OPEN
        self.flat.array[rows] = False
        for name in ("O", "H", "L", "C"):
            self.fields[name].mine()[rows] = last
        partial = self.partial.array[rows]
        self.volume_at_start.array[rows] = np.where(partial, np.nan, day.volume.array[rows])
        self.amount_at_start.array[rows] = np.where(partial, np.nan, day.amount.array[rows])
        self.partial.array[rows] = False

    def join(
        self, at: Selection, *, last: FloatArray, extremes: Extremes, volume_lots: FloatArray, amount_cny: FloatArray
    ) -> None:
        """Let one tick per symbol widen the bar its symbol holds."""
        fields = self.fields
        flat = self.flat.array[at]
        if np.count_nonzero(flat):  # made by the clock without a trade, and now a late tick shows there was one
            fresh = np.arange(len(self.flat.array))[at][flat]
            for name in ("O", "H", "L"):
                fields[name].array[fresh] = last[flat]
            self.flat.array[fresh] = False
        self._widen(at, last, extremes)
        fields["C"].mine()[at] = last
        for name, now, start in (
            ("V", volume_lots, self.volume_at_start.array),
            ("AMO", amount_cny, self.amount_at_start.array),
        ):
            if isinstance(at, slice):
                np.subtract(now, start, fields[name].array)
            else:
                fields[name].array[at] = now - start[at]

    def follow(self, batch: TickBatch) -> None:
        """Let a tick of every symbol in order be the latest of the bar it holds, which has been widened to it."""
        self.fields["C"].borrow(batch.column("last"))
        self._volume.follow(batch.column("volume_lots"))
        self._amount.follow(batch.column("amount_cny"))

    def _widen(self, at: Selection, last: FloatArray, extremes: Extremes) -> None:
        high, low = self.fields["H"].array, self.fields["L"].array
        if isinstance(at, slice):
            np.fmax(high, last, high)
            np.fmin(low, last, low)
        else:
            high[at] = np.fmax(high[at], last)
            low[at] = np.fmin(low[at], last)
        if extremes.up.size:
            high[extremes.up] = np.fmax(high[extremes.up], extremes.high)
        if extremes.down.size:
            low[extremes.down] = np.fmin(low[extremes.down], extremes.low)

    def lay_flat(self, rows: IntArray, end_ms: int | IntArray, *, day: DayColumns) -> None:
        """Put the closed bar of a minute without trades in place: all prices the last close, V = AMO = 0."""
        close = self.fields["C"].array[rows]
        for name in ("O", "H", "L"):
            self.fields[name].array[rows] = close
        for name in ("V", "AMO"):
            self.fields[name].array[rows] = 0.0
        self.volume_at_start.array[rows] = day.volume.array[rows]
        self.amount_at_start.array[rows] = day.amount.array[rows]
        self.end_ms.array[rows] = end_ms
        self.closed.array[rows] = CLOSED_BY_CLOCK
        self.gap.array[rows] = 0
        self.away_ms.array[rows] = -1
        self.flat.array[rows] = True

    def carry(self, day: DayColumns) -> None:
        """Take the bars over into the next day; volume counts from 0 again there, so its base moves below 0."""
        self.volume_at_start.array -= np.where(np.isnan(day.volume.array), 0.0, day.volume.array)
        self.amount_at_start.array -= np.where(np.isnan(day.amount.array), 0.0, day.amount.array)

    def roll(self) -> None:
        """Forget the bars of the old day, which have been committed."""
        self.end_ms.array[...] = 0
        self.closed.array[...] = OPEN
        self.flat.array[...] = False


def due_times(midnight: int, periods: tuple[str, ...]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Return (due_ms, bar end, periods that end there) of a day in order, all Unix ms.

    The clock closes a bar 3 s after its end (pushes trail by up to 3 s); the day's last bar of every period at
    15:01:00, because closing prints come at 15:00:02 and later.
    """
    due: list[tuple[int, int, tuple[str, ...]]] = []
    for minute in range(1, DAY_MINUTES + 1):
        ending = tuple(p for p in periods if minute % PERIOD_MINUTES[p] == 0 and last_day_ms(midnight, p) == midnight)
        if ending:
            end = midnight + minute_end_ms(minute)
            due.append((int(due_ms(end)), end, ending))
    return due


def due_ms(end_ms: IntArray | int) -> IntArray:
    """Return when the clock closes the bars that end then (Unix ms)."""
    last = day_ms(np.asarray(end_ms, np.int64)) == _CLOSE_MS
    return np.asarray(end_ms + np.where(last, MINUTE_MS, CLOSE_DELAY_MS))
