"""`Latest`: the latest tick of every symbol as columns, and the now words of the language made from it.

Before 09:25:00 a `last` is no price of today (vendors push yesterday's close, or 0): LAST and the day's prices are NaN
there and only the auction's virtual price moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feeds.instruments import Instrument, instrument_of, plain_name, price_limits_of
from feeds.sessions import Calendar, day_ms, trade_date, trading_clock_ms
from feeds.tick import CORE, BoolArray, FloatArray, IntArray, TickBatch
from rules.node import Selection
from rules.segment import Segment
from rules.state import Column, StateTable

HALTED: Final = (1, 16, 17, 20)
"""Status codes of a symbol that does not trade: suspended, volatility halt, temporary halt, halted to close."""
_HALTED_TABLE: Final = np.isin(np.arange(1 << 16), HALTED)
"""By every int16 as an unsigned number: a look-up costs a tenth of a search."""
_WEEKDAYS: Final = Calendar(())
_AUCTION_RESULT_MS: Final = (9 * 60 + 25) * 60_000
_OPEN_AUCTION_MS: Final = (9 * 60 + 15) * 60_000
_CLOSE_AUCTION_MS: Final = ((14 * 60 + 57) * 60_000, 15 * 3_600_000)

_RAW: Final = {
    "LAST": "last", "PRECLOSE": "prev_close", "DAYOPEN": "open", "DAYHIGH": "high", "DAYLOW": "low",
    "VOLDAY": "volume_lots", "AMTDAY": "amount_cny",
}  # fmt: skip
_BOOK: Final = {
    f"{side}{letter}{level}": f"{word}_{what}_{level}"
    for side, word in (("BID", "bid"), ("ASK", "ask"))
    for letter, what in (("P", "price"), ("V", "lots"))
    for level in range(1, 6)
}
_UNTIL_AUCTION_RESULT: Final = ("last", "open", "high", "low")


Tick: TypeAlias = dict[str, float | None]
"""The core columns of one tick by name; unknown is None."""


class Latest:
    """Columns of the latest tick per symbol; `column(word)` gives a word's, kept current from then on."""

    def __init__(self, state: StateTable) -> None:
        self._state = state
        self.ts_ms = state.claim("now/ts_ms", dtype=np.int64, fill=0)
        self.status = state.claim("now/status", dtype=np.int16, fill=0)
        self.newest_ms = 0
        """The latest time of any tick here."""
        self.has_halts = False
        """Whether some symbol's latest status is a halt."""
        self.clock_ms = 0
        """The market clock, for FEED_AGE; `reach` sets it."""
        self._raw: dict[str, Column] = {name: state.claim(f"now/{name}") for name in CORE}
        self._words: dict[str, Column] = {word: self._raw[name] for word, name in _RAW.items()}
        self._derived: list[tuple[Column, Callable[[Selection], FloatArray]]] = []
        self._instruments: Mapping[str, Instrument] = {}
        self._symbols: Sequence[str] = ()
        self._ours: dict[str, Column] = {}
        """Our own price limits by word, from prev_close and board; only where a rule uses the word."""
        self._date = 0
        self._limits_for: FloatArray = np.empty(0)

    def column(self, word: str) -> Column:
        """Return the column of a now word, made current for all symbols; raises KeyError for an unknown word."""
        found = self._words.get(word)
        if found is not None:
            return found
        if word in _BOOK:
            column = self._words[word] = self._rest(_BOOK[word])
            return column
        derive = self._derivation(word)
        column = self._state.claim(f"now/{word}")
        column.array[...] = derive(slice(None))
        self._words[word] = column
        self._derived.append((column, derive))
        return column

    def follow(self, column: Column, derive: Callable[[Selection], FloatArray]) -> None:
        """Keep a column of someone else current from now on: `derive` gives its values after each tick."""
        self._derived.append((column, derive))

    def leave(self, column: Column) -> None:
        """Let go of a column of someone else."""
        self._derived = [one for one in self._derived if one[0] is not column]

    def reach(self, clock_ms: int) -> None:
        """Let the market clock come to this second: what does not tick grows old."""
        self.clock_ms = clock_ms
        age = self._words.get("FEED_AGE")
        if age is not None:
            age.array[...] = self._age(slice(None))

    def uses(self, word: str) -> bool:
        """Tell whether somebody has asked for this word."""
        return word in self._words

    @property
    def columns(self) -> tuple[str, ...]:
        """The tick columns kept, CORE first."""
        return tuple(self._raw)

    def keep(self, columns: Iterable[str]) -> None:
        """Keep these tick columns from now on (a restored engine keeps what its checkpoint kept)."""
        for name in columns:
            self._rest(name)

    def raw(self, name: str) -> FloatArray:
        """Return a kept tick column, (n,) float64."""
        return self._raw[name].array

    def tick(self, row: int) -> Tick:
        """Return the core columns of a symbol's latest tick."""
        numbers = {name: self._raw[name].array.item(row) for name in CORE}  # item: an element in half the time
        return {name: number if number == number else None for name, number in numbers.items()}  # NaN is not itself

    def ticks(self, rows: IntArray) -> list[Tick]:
        """Return the core columns of these symbols' latest ticks."""
        columns = [knowns(self._raw[name].array.take(rows)) for name in CORE]
        return [  # names written out: half the time of a dict of pairs
            {
                "last": last, "open": first, "high": high, "low": low, "prev_close": prev, "volume_lots": lots,
                "amount_cny": cny,
            }
            for last, first, high, low, prev, lots, cny in zip(*columns, strict=True)
        ]  # fmt: skip

    def halted(self) -> BoolArray:
        """Tell which symbols' latest status is a halt."""
        return is_halted(self.status.array)

    def know(self, symbols: Sequence[str], instruments: Mapping[str, Instrument], *, date: int) -> None:
        """Take the universe (row order), what is known of its instruments and the trade date (yyyymmdd, 0 unknown)."""
        self._symbols = symbols
        self._instruments = instruments
        self._date = date
        self._limits_for = np.full(len(symbols), np.nan)
        self.refresh()

    def refresh(self) -> None:
        """Derive every derived word anew for all symbols."""
        self._update_limits(np.arange(len(self._symbols)))
        for column, derive in self._derived:
            column.array[...] = derive(slice(None))

    def roll(self) -> None:
        """Forget the old trade date: all words are unknown until the new day's first tick of a symbol."""
        for column in self._raw.values():
            column.mine()[...] = np.nan
        self.status.mine()[...] = 0
        self.has_halts = False
        self._limits_for[...] = np.nan
        self.refresh()

    def repeats(self, at: Selection, batch: TickBatch) -> BoolArray:
        """Tell which ticks are the very payload their symbol already shows (same time, status and kept columns)."""
        same: BoolArray = (self.ts_ms.array[at] == batch.ts_event_ms) & (self.status.array[at] == batch.status)
        places = np.flatnonzero(same)  # few, but before the opening: the other columns are looked at for them alone
        if not len(places):
            return same
        rows = places if isinstance(at, slice) else at[places]
        blank = _before_result(batch.ts_event_ms[places])
        for name, column in self._raw.items():
            old, new = column.array[rows], batch.column(name)[places]
            if name in _UNTIL_AUCTION_RESULT:
                new = np.where(blank, np.nan, new)
            same[places] &= (old == new) | (np.isnan(old) & np.isnan(new))
        return same

    def recount(self) -> None:
        """Find anew what is true of all symbols, after their arrays were put back."""
        self.newest_ms = int(self.ts_ms.array.max(initial=0))
        self.has_halts = bool(self.halted().any())

    def apply(self, ticks: Segment) -> None:
        """Put one tick per selected symbol in place and bring the words in use up to date."""
        at, batch = ticks.at, ticks.batch
        self._date = trade_date(int(batch.ts_event_ms[0]))
        self.newest_ms = max(self.newest_ms, ticks.last_ms)
        self.ts_ms.mine()[at] = batch.ts_event_ms
        self.status.mine()[at] = batch.status
        if self.has_halts or ticks.halted is not None:
            self.has_halts = bool(self.halted().any())
        blank = None if ticks.live is None else _before_result(batch.ts_event_ms)
        for name, column in self._raw.items():
            new = batch.column(name)
            if blank is not None and name in _UNTIL_AUCTION_RESULT:
                new = np.where(blank, np.nan, new)
            column.mine()[at] = new
        self._derive(at)

    def borrow(self, batch: TickBatch) -> None:
        """Show one tick per symbol of all in order, each of them of the clock's day, with a price and trading.

        `go_on` comes behind it.
        """
        for column, shown in self.shown(batch):
            column.borrow(shown)

    def shown(self, batch: TickBatch) -> Iterator[tuple[Column, NDArray[Any]]]:
        """Yield each column kept with that of the batch which it shows."""
        yield self.ts_ms, batch.ts_event_ms
        yield self.status, batch.status
        for column, shown, _ in self.numbers(batch):
            yield column, shown

    def numbers(self, batch: TickBatch) -> Iterator[tuple[Column, FloatArray, bool]]:
        """Yield each column of numbers, that of the batch which it shows, and whether it begins with the auction."""
        for name, column in self._raw.items():
            yield column, batch.column(name), name in _UNTIL_AUCTION_RESULT

    def go_on(self, at: Selection, last_ms: int) -> None:
        """Bring the words in use up to date: ticks of these symbols have been put in place, the newest at `last_ms`."""
        self.newest_ms = max(self.newest_ms, last_ms)
        self._derive(at)

    def _derive(self, at: Selection) -> None:
        if self._ours:
            self._update_limits(np.arange(len(self._symbols))[at])
        for column, derive in self._derived:
            column.array[at] = derive(at)

    def _rest(self, name: str) -> Column:
        column = self._raw.get(name)
        if column is None:
            column = self._raw[name] = self._state.claim(f"now/{name}")
        return column

    def _derivation(self, word: str) -> Callable[[Selection], FloatArray]:
        if word == "PCT":
            last, prev = self._raw["last"], self._raw["prev_close"]
            return lambda at: (last.array[at] / prev.array[at] - 1.0) * 100.0
        if word in ("LIMITUP", "LIMITDOWN"):
            return self._limit(word)
        if word in ("SEALUP", "SEALDOWN", "SEALED"):
            return self._seal(word)
        if word == "AUCP":
            return self._auction_price()
        if word == "VALID":
            last, status = self._raw["last"], self.status
            return lambda at: (~np.isnan(last.array[at]) & ~is_halted(status.array[at])).astype(np.float64)
        if word == "TIME":
            return lambda at: np.where(self.ts_ms.array[at] == 0, np.nan, _hhmmss(self.ts_ms.array[at]))
        if word == "FROMOPEN":
            return lambda at: np.where(
                self.ts_ms.array[at] == 0, np.nan, trading_clock_ms(self.ts_ms.array[at]) // 60_000
            )
        if word == "FEED_AGE":
            return self._age
        raise KeyError(word)

    def _age(self, at: Selection) -> FloatArray:
        ts_ms = self.ts_ms.array[at]
        return np.where(ts_ms == 0, np.nan, np.maximum(self.clock_ms - ts_ms, 0) / 1000.0)

    def _auction_price(self) -> Callable[[Selection], FloatArray]:
        bid, ask = self._rest("bid_price_1"), self._rest("ask_price_1")

        def derive(at: Selection) -> FloatArray:
            clock = day_ms(self.ts_ms.array[at])
            auction = (clock >= _OPEN_AUCTION_MS) & (clock < _AUCTION_RESULT_MS)
            auction |= (clock >= _CLOSE_AUCTION_MS[0]) & (clock < _CLOSE_AUCTION_MS[1])
            return np.where(auction & (bid.array[at] == ask.array[at]) & (bid.array[at] > 0), bid.array[at], np.nan)

        return derive

    def _limit(self, word: str) -> Callable[[Selection], FloatArray]:
        feeds = self._rest("limit_up" if word == "LIMITUP" else "limit_down")
        ours = self._ours[word] = self._state.claim(f"now/{word}/ours")
        self._limits_for[...] = np.nan
        self._update_limits(np.arange(len(self._symbols)))

        def derive(at: Selection) -> FloatArray:
            given = feeds.array[at]
            # The feed's limit wins; 0 and >= 10000 are its ways to say "no limit today".
            limit = np.where(np.isnan(given), ours.array[at], given)
            return np.where((limit <= 0) | (limit >= 10_000), np.nan, limit)

        return derive

    def _update_limits(self, rows: IntArray) -> None:
        """Work out our own limits of symbols whose prev_close has become known or changed: once a day each."""
        if not self._ours:
            return
        prev = self._raw["prev_close"].array
        if len(self._limits_for) != len(prev):
            self._limits_for = np.full(len(prev), np.nan)
        known = self._limits_for[rows]
        changed = rows[(prev[rows] != known) & ~(np.isnan(prev[rows]) & np.isnan(known))]
        if not len(changed):
            return
        for word, limits in zip(("LIMITUP", "LIMITDOWN"), self._own_limits(changed), strict=True):
            if word in self._ours:
                self._ours[word].array[changed] = limits
        self._limits_for[changed] = prev[changed]

    def _own_limits(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return (limit_up, limit_down), (n,) yuan, of these symbols today; what their source told, where it holds."""
        prev = self._raw["prev_close"].array[rows]
        if self._date == 0:
            return np.full_like(prev, np.nan), np.full_like(prev, np.nan)
        known = [self._as_limited(self._symbols[row]) for row in rows]
        up, down = price_limits_of(known, prev, date=self._date, calendar=_WEEKDAYS)
        for place, one in enumerate(known):
            given = one.limits
            if given is not None and given.hold(prev_close_cny=float(prev[place]), date=self._date):
                # 0: none today, whatever the board has
                up[place], down[place] = given.up_cny or np.nan, given.down_cny or np.nan
        return up, down

    def _as_limited(self, symbol: str) -> Instrument:
        """Return what is known of an instrument, or what its code tells, as far as it goes for limits."""
        known = self._instruments.get(symbol)
        if known is None:
            return instrument_of(symbol)
        # An N or C in the name tells the first days surely; our count of days takes holidays for trading days.
        told = known.name is not None and plain_name(known.name)[:1] in ("N", "C")
        return replace(known, list_date=None) if told else known

    def _seal(self, word: str) -> Callable[[Selection], FloatArray]:
        if word == "SEALED":
            up, down = self.column("SEALUP"), self.column("SEALDOWN")

            def either(at: Selection) -> FloatArray:
                a, b = up.array[at], down.array[at]
                return np.where((a == 1) | (b == 1), 1.0, np.where((a == 0) & (b == 0), 0.0, np.nan))

            return either
        own, other, limit_word = ("bid", "ask", "LIMITUP") if word == "SEALUP" else ("ask", "bid", "LIMITDOWN")
        limit, last = self.column(limit_word), self._raw["last"]
        price, lots = self._rest(f"{own}_price_1"), self._rest(f"{own}_lots_1")
        opposite = self._rest(f"{other}_lots_1")

        def derive(at: Selection) -> FloatArray:
            bound, price_now, quoted = limit.array[at], last.array[at], price.array[at]
            no = (lots.array[at] <= 0) | (opposite.array[at] > 0) | _differ(price_now, bound) | _differ(quoted, bound)
            unknown = np.isnan(bound) | np.isnan(price_now) | np.isnan(quoted) | np.isnan(lots.array[at])
            return np.where(no, 0.0, np.where(unknown | np.isnan(opposite.array[at]), np.nan, 1.0))

        return derive


def knowns(numbers: FloatArray) -> list[float | None]:
    """Return these numbers one by one; NaN, which is unknown, as None."""
    listed: list[float | None] = numbers.tolist()
    total = sum(listed)  # type: ignore[arg-type]  # not None yet
    # One NaN makes the sum NaN, and NaN alone is not itself: a fifth of what asking each costs.
    return listed if total == total else [number if number == number else None for number in listed]


def is_halted(status: NDArray[np.int16]) -> BoolArray:
    """Tell which status codes mean that the symbol does not trade."""
    return _HALTED_TABLE.take(np.ascontiguousarray(status, np.int16).view(np.uint16))


def _differ(a: FloatArray, b: FloatArray) -> BoolArray:
    """Tell where two known prices are not the same; a tie is within 1e-9 of the larger, as in every comparison."""
    return np.asarray(np.abs(a - b) > 1e-9 * np.maximum(1.0, np.maximum(np.abs(a), np.abs(b))))


def _hhmmss(ts_ms: IntArray) -> IntArray:
    """Return Shanghai times of day as numbers such as 93003."""
    seconds = day_ms(ts_ms) // 1000
    return np.asarray(seconds // 3600 * 10_000 + seconds // 60 % 60 * 100 + seconds % 60)


def _before_result(ts_ms: IntArray) -> BoolArray:
    """Tell which times are before the opening auction's result of 09:25:00."""
    return np.asarray(day_ms(ts_ms) < _AUCTION_RESULT_MS)
