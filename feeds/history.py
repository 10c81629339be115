"""Bars of the past: what is asked for, what comes, and how an engine takes it in as one of its inputs.

Whoever finds bars (the cache, files, a vendor) hands out a `BarTable`: bars of one period at the prices of their own
days, and what ex-rights days made of them. `Bars` is made from it: what the engine takes and the journal keeps, at the
prices of one date.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Final, Protocol

import numpy as np
import orjson
from numpy.typing import NDArray

from feeds.errors import FeedError
from feeds.tick import BoolArray, FloatArray, IntArray
from feeds.universe import is_symbol

PERIODS: Final = ("1m", "5m", "15m", "30m", "60m", "1d", "1w", "1mon")
PRICES: Final = ("open", "high", "low", "close")
COLUMNS: Final = (*PRICES, "volume_lots", "amount_cny")
_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """Bars asked for: the newest `bars` of one period, for each of these symbols, none after `until_ms` (Unix ms)."""

    period: str
    symbols: tuple[str, ...]
    bars: int
    until_ms: int


@dataclass(frozen=True, slots=True)
class BarTable:
    """n bars of one period, by symbol and within it by end, each (symbol, end) once.

    symbols     each once, those without bars too; code (n,) int64 is the place of each bar's symbol among them
    ends_ms     (n,) int64 Unix ms, END of the bar
    open …      (n,) float64 yuan, NaN = unknown; volume_lots, amount_cny (n,) float64, NaN = unknown
    as_of       (n_symbols,) int64: the prices are those of this trade date (yyyymmdd), and no later ex-rights day is in
                them; 0 = of the day of each bar
    """

    period: str
    symbols: tuple[str, ...]
    code: IntArray
    ends_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume_lots: FloatArray
    amount_cny: FloatArray
    as_of: IntArray

    def __len__(self) -> int:
        return len(self.ends_ms)

    def take(self, rows: NDArray[Any]) -> BarTable:
        """Return some of the bars, in their order; `rows` is a mask or an array of places."""
        columns = {name: getattr(self, name)[rows] for name in ("code", "ends_ms", *COLUMNS)}
        return replace(self, **columns)

    def counts(self) -> IntArray:
        """Return (n_symbols,) int64 how many bars each symbol has."""
        return np.bincount(self.code, minlength=len(self.symbols))

    def newest(self, bars: int) -> BarTable:
        """Return the newest `bars` of each symbol."""
        counts = self.counts()
        from_end = np.repeat(np.cumsum(counts), counts) - np.arange(len(self))
        return self.take(from_end <= bars)

    def of(self, symbols: Sequence[str]) -> BarTable:
        """Return the bars of these symbols, in their order; one that has none is there without."""
        place = {symbol: i for i, symbol in enumerate(self.symbols)}
        chosen = np.array([place.get(symbol, -1) for symbol in symbols], np.int64)
        known = np.flatnonzero(chosen >= 0)
        new_code = np.full(len(self.symbols), -1)
        new_code[chosen[known]] = known
        code = new_code[self.code]
        rows = np.flatnonzero(code >= 0)
        rows = rows[np.argsort(code[rows], kind="stable")]
        as_of = np.zeros(len(symbols), np.int64)
        as_of[known] = self.as_of[chosen[known]]
        return replace(self.take(rows), symbols=tuple(symbols), code=code[rows], as_of=as_of)


def table_of(
    period: str, symbols: NDArray[Any], ends_ms: IntArray, *, columns: dict[str, FloatArray], as_of: int = 0
) -> BarTable:
    """Put bars in order; `symbols` (n,) text. Of a symbol's bars with one end the last one counts."""
    names, code = np.unique(symbols.astype(str), return_inverse=True)
    order = np.lexsort((np.arange(len(code)), ends_ms, code))
    code, ends = code[order].astype(np.int64), ends_ms[order].astype(np.int64)
    last = np.append((code[1:] != code[:-1]) | (ends[1:] != ends[:-1]), True)[: len(code)]
    kept = {name: np.asarray(column, np.float64)[order][last] for name, column in columns.items()}
    dates = np.full(len(names), as_of, np.int64)
    return BarTable(period, tuple(map(str, names)), code[last], ends[last], **kept, as_of=dates)


def sound(table: BarTable) -> BoolArray:
    """Tell which bars can be: prices above 0 with low ≤ open, close ≤ high, volume and amount not below 0.

    To within 1e-6: adjusted prices are rounded one by one.
    """
    low, high = table.low * (1 - 1e-6), table.high * (1 + 1e-6)
    with np.errstate(invalid="ignore"):
        inside = (low > 0) & (low <= table.open) & (table.open <= high) & (low <= table.close) & (table.close <= high)
        return np.asarray(inside & ~(table.volume_lots < 0) & ~(table.amount_cny < 0))


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of the past as an input of the engine: they take the place of what it knows of them up to `until_ms`.

    until_ms      nothing traded up to here is missing (Unix ms). A bar that ends later is a symbol's last: the forming
                  one, as far as it goes
    counts        (n_symbols,) int64 bars of each; the columns hold them one symbol behind the other, oldest first
    as_of         (n_symbols,) int64 yyyymmdd: the prices are those of this date, and are at none later
    before_lots, before_cny  (n_symbols,) float64: what had been traded on the day of `until_ms` before the forming bar
                  began, below 0 where it began on an earlier day; NaN = unknown
    """

    period: str
    until_ms: int
    symbols: tuple[str, ...]
    counts: IntArray
    ends_ms: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume_lots: FloatArray
    amount_cny: FloatArray
    as_of: IntArray
    before_lots: FloatArray
    before_cny: FloatArray

    def of(self, symbols: Collection[str]) -> Bars:
        """Return the bars of those of its symbols that are among these."""
        kept = np.isin(np.array(self.symbols, object), list(symbols))
        rows = np.repeat(kept, self.counts)
        columns = {name: getattr(self, name)[kept if name in _PER_SYMBOL else rows] for name in _ARRAYS}
        return replace(self, symbols=tuple(s for s, one in zip(self.symbols, kept, strict=True) if one), **columns)


_ARRAYS: Final = tuple(field.name for field in fields(Bars) if field.name not in ("period", "until_ms", "symbols"))
_WHOLE: Final = ("counts", "ends_ms", "as_of")
_PER_SYMBOL: Final = ("counts", "as_of", "before_lots", "before_cny")


def encode(bars: Bars) -> bytes:
    """Return bars as bytes: a line of JSON, then the columns, compressed."""
    head = {
        "v": _VERSION, "period": bars.period, "until_ms": bars.until_ms, "symbols": bars.symbols, "n": len(bars.ends_ms)
    }  # fmt: skip
    columns = b"".join(np.ascontiguousarray(getattr(bars, name)).tobytes() for name in _ARRAYS)
    return orjson.dumps(head) + b"\n" + zlib.compress(columns, 1)


def decode(content: bytes) -> Bars:
    """Return the bars of bytes made by `encode`; raises FeedError if they are none."""
    try:
        line, _, packed = content.partition(b"\n")
        head = orjson.loads(line)
        if head["v"] != _VERSION:
            raise FeedError(f"bars of version {head['v']!r}, this program reads {_VERSION}")
        raw, at = zlib.decompress(packed), 0
        arrays: dict[str, NDArray[Any]] = {}
        for name in _ARRAYS:
            count = len(head["symbols"]) if name in _PER_SYMBOL else head["n"]
            dtype = np.int64 if name in _WHOLE else np.float64
            arrays[name] = np.frombuffer(raw, dtype, count, at)
            at += 8 * count
        bars = Bars(head["period"], head["until_ms"], tuple(head["symbols"]), **arrays)
    except (orjson.JSONDecodeError, zlib.error, KeyError, TypeError, ValueError) as error:
        raise FeedError(f"not the bytes of bars: {error}") from None
    check(bars)
    return bars


def check(bars: Bars) -> None:
    """Raise FeedError for bars that no engine can take: out of order, of no symbol, of no period."""
    fault = _fault(bars)
    if fault is not None:
        raise FeedError(f"bars of {bars.period}: {fault}")


def _fault(bars: Bars) -> str | None:
    n = len(bars.symbols)
    if bars.period not in PERIODS:
        return f"there is no such period; there are {', '.join(PERIODS)}"
    if not all(map(is_symbol, bars.symbols)) or len(set(bars.symbols)) != n:
        return "its symbols are codes such as 600519.SH, each once"
    if any(len(getattr(bars, name)) != n for name in _PER_SYMBOL) or bars.counts.sum() != len(bars.ends_ms):
        return "its columns do not fit together"
    if any(len(getattr(bars, name)) != len(bars.ends_ms) for name in COLUMNS):
        return "its columns do not fit together"
    code = np.repeat(np.arange(n), bars.counts)
    same = code[1:] == code[:-1]
    if (same & (bars.ends_ms[1:] <= bars.ends_ms[:-1])).any():
        return "a symbol's bars are oldest first, each once"
    if (same & (bars.ends_ms[:-1] > bars.until_ms)).any():
        return "only a symbol's last bar may go on behind what is known"
    if np.isnan(bars.close).any():
        return "each has a close"
    return None


Factors = Mapping[int, Mapping[str, tuple[float, float]]]
"""Trade date (yyyymmdd) → symbol → what prices and volumes of before it are multiplied by to be as of it."""


@dataclass(frozen=True, slots=True)
class PastBars:
    """An answer: bars at the prices of their own days, and the ex-rights days among and behind them."""

    table: BarTable
    factors: Factors


class History(Protocol):
    """A feed that can tell bars of the past. A feed that cannot simply lacks the method (`history_of`)."""

    async def history(self, request: HistoryRequest) -> PastBars:
        """Return what there is of the bars asked for; fewer or none is no error.

        A bar that is not over yet at `until_ms` is not among them. Raises FeedError where the source fails or is too
        slow; cancelling it gives up waiting.
        """
