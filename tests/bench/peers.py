"""Peers at their fastest: W1 of one snapshot, symbol by symbol, as each library is meant to be used.

Every peer answers for the same ten conditions with the same edge: what is newly true since the last snapshot is an
event. What decides the crosses on the bar before is worked out once per closed bar, outside of the timing, where the
library lets it (TA-Lib, akquant, talipp). Methods are bound and attributes looked up once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import akquant
import MyTT
import numpy as np
import pandas as pd
from talib import stream
from talipp.indicators import BB, EMA, MACD, RSI, SMA, SMMA, Stoch
from talipp.ma import MAType
from talipp.ohlcv import OHLCV

from feeds.tick import FloatArray

Prices: TypeAlias = Iterable[tuple[float, float, float]]
"""(last, high, low) of every symbol: the forming bar."""
Truths: TypeAlias = tuple[bool, ...]
Event: TypeAlias = tuple[int, int]
"""(symbol's row, condition's number)."""

VALUES = ("MA5", "MA10", "MA20", "MA60", "DIF", "DEA", "MACD", "RSI", "UPPER", "LOWER", "K", "D", "J")
SAMPLE_WIDTH = 2.0 * (20 / 19) ** 0.5
"""Two standard deviations with divisor N−1 (TDX) where a library divides by N."""
KEPT_BARS = 250
"""How much history those who recompute look at."""


@dataclass(frozen=True, slots=True)
class History:
    """Closed bars, each (bars, symbols), oldest first."""

    close: FloatArray
    high: FloatArray
    low: FloatArray

    @property
    def symbols(self) -> int:
        return self.close.shape[1]

    def of(self, row: int) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return one symbol's close, high and low, contiguous."""
        close, high, low = (np.ascontiguousarray(array[:, row]) for array in (self.close, self.high, self.low))
        return close, high, low


def sides(values: Mapping[str, float], close: float) -> Truths:
    """Return, for the seven crosses of W1, whether the side that rises was not above on this bar."""
    v = values
    return (
        v["MA5"] <= v["MA10"], v["MA10"] <= v["MA5"], v["DIF"] <= v["DEA"], v["DEA"] <= v["DIF"],
        close <= v["UPPER"], v["LOWER"] <= close, v["K"] <= v["D"],
    )  # fmt: skip


def conditions(values: Mapping[str, float], close: float, below: Truths) -> Truths:
    """Return the ten conditions of W1."""
    ma5, ma10, ma20, ma60, dif, dea, _, rsi, upper, lower, k, d, j = (values[name] for name in VALUES)
    u1, u2, u3, u4, u5, u6, u7 = below
    return (
        ma5 > ma10 and u1 and close > ma60, ma10 > ma5 and u2, dif > dea and u3 and dif < 0, dea > dif and u4,
        rsi < 20, rsi > 80, close > upper and u5, lower > close and u6, k > d and u7 and j < 20,
        ma5 > ma10 and ma10 > ma20 and not ma20 < ma60,
    )  # fmt: skip


def news(was: list[Truths], now: list[Truths]) -> list[Event]:
    """Return what became true, and remember what is."""
    events = [
        (row, number)
        for row, (old, new) in enumerate(zip(was, now, strict=True))
        if new != old
        for number, truth in enumerate(new)
        if truth and not old[number]
    ]
    was[:] = now
    return events


class TaLib:
    """TA-Lib 0.8 `stream`: one handle per indicator and symbol, `peek` for the forming bar; O(1), commits nothing."""

    name = "TA-Lib stream"

    def __init__(self, history: History) -> None:
        self._handles = [_talib_handles(*history.of(row)) for row in range(history.symbols)]
        self._peeks = [tuple(handle.peek for handle in handles) for handles in self._handles]
        closes = history.close[-1].tolist()
        self._below = [sides(_talib_values(h), c) for h, c in zip(self._handles, closes, strict=True)]
        self._was: list[Truths] = [(False,) * 10] * history.symbols

    def snapshot(self, prices: Prices) -> list[Event]:
        """Return the events of one snapshot."""
        now = []
        append = now.append
        for peeks, below, (close, high, low) in zip(self._peeks, self._below, prices, strict=True):
            p5, p10, p20, p60, e12, e26, peek_macd, peek_rsi, peek_boll, peek_kdj = peeks
            u1, u2, u3, u4, u5, u6, u7 = below
            ma5, ma10, ma20, ma60 = p5(close), p10(close), p20(close), p60(close)
            e12(close)
            e26(close)
            dif, dea, _ = peek_macd(close)
            rsi = peek_rsi(close)
            upper, _, lower = peek_boll(close)
            k, d, j = peek_kdj(high, low, close)
            append((
                ma5 > ma10 and u1 and close > ma60, ma10 > ma5 and u2, dif > dea and u3 and dif < 0, dea > dif and u4,
                rsi < 20, rsi > 80, close > upper and u5, lower > close and u6, k > d and u7 and j < 20,
                ma5 > ma10 and ma10 > ma20 and not ma20 < ma60,
            ))  # fmt: skip
        return news(self._was, now)

    def values(self, prices: Prices) -> dict[str, FloatArray]:
        """Return every indicator with the forming bar, to compare with."""
        rows = []
        for peeks, (close, high, low) in zip(self._peeks, prices, strict=True):
            (upper, _, lower), kdj = peeks[8](close), peeks[9](high, low, close)
            dif, dea, bar = peeks[6](close)
            rows.append((*(p(close) for p in peeks[:4]), dif, dea, 2 * bar, peeks[7](close), upper, lower, *kdj))
        return dict(zip(VALUES, np.array(rows).T, strict=True))


def _talib_handles(close: FloatArray, high: FloatArray, low: FloatArray) -> tuple[Any, ...]:
    return (
        *(stream.SMA(close, n) for n in (5, 10, 20, 60)),
        stream.EMA(close, 12), stream.EMA(close, 26), stream.MACD(close, 12, 26, 9), stream.RSI(close, 14),
        stream.BBANDS(close, 20, SAMPLE_WIDTH, SAMPLE_WIDTH), stream.KDJ(high, low, close),
    )  # fmt: skip


def _talib_values(handles: tuple[Any, ...]) -> dict[str, float]:
    dif, dea, bar = handles[6].value
    upper, _, lower = handles[8].value
    averages = (handle.value for handle in handles[:4])
    found = (*averages, dif, dea, 2 * bar, handles[7].value, upper, lower, *handles[9].value)
    return dict(zip(VALUES, found, strict=True))


class AkQuant:
    """akquant (Rust): `update` of one indicator per symbol. It has no provisional value, so each snapshot is a bar."""

    name = "akquant (Rust)"

    def __init__(self, history: History) -> None:
        self._updates = []
        self._kdj = []
        for row in range(history.symbols):
            close, high, low = history.of(row)
            singles = [akquant.SMA(n) for n in (5, 10, 20, 60)]
            singles += [akquant.EMA(12), akquant.EMA(26), akquant.MACD(12, 26, 9), akquant.RSI(14)]
            singles.append(akquant.BollingerBands(20, SAMPLE_WIDTH))
            for indicator in singles:
                indicator.update_many(close)
            highest, lowest = akquant.MAX(9), akquant.MIN(9)
            highest.update_many(high)
            lowest.update_many(low)
            self._updates.append(tuple(it.update for it in (*singles, highest, lowest)))
            self._kdj.append((50.0, 50.0))
        self._below: list[Truths] = [(True, False, True, False, True, True, True)] * history.symbols
        self._was: list[Truths] = [(False,) * 10] * history.symbols

    def snapshot(self, prices: Prices) -> list[Event]:
        """Return the events of one snapshot."""
        now = []
        append, kdj = now.append, self._kdj
        for row, (updates, below, (close, high, low)) in enumerate(
            zip(self._updates, self._below, prices, strict=True)
        ):
            u5_, u10, u20, u60, e12, e26, macd, rsi_, boll, highest, lowest = updates
            u1, u2, u3, u4, u5, u6, u7 = below
            ma5, ma10, ma20, ma60 = u5_(close), u10(close), u20(close), u60(close)
            e12(close)
            e26(close)
            dif, dea, _ = macd(close)
            rsi = rsi_(close)
            upper, _, lower = boll(close)
            least = lowest(low)
            k, d = kdj[row]
            span = highest(high) - least
            if span:
                k += ((close - least) / span * 100 - k) / 3
                d += (k - d) / 3
                kdj[row] = k, d
            j = 3 * k - 2 * d
            append((
                ma5 > ma10 and u1 and close > ma60, ma10 > ma5 and u2, dif > dea and u3 and dif < 0, dea > dif and u4,
                rsi < 20, rsi > 80, close > upper and u5, lower > close and u6, k > d and u7 and j < 20,
                ma5 > ma10 and ma10 > ma20 and not ma20 < ma60,
            ))  # fmt: skip
        return news(self._was, now)


class Talipp:
    """talipp: incremental pure Python; `update` replaces the forming bar."""

    name = "talipp"

    def __init__(self, history: History) -> None:
        self._indicators = [_talipp_indicators(*history.of(row)) for row in range(history.symbols)]
        closes = history.close[-1].tolist()
        self._below = [sides(_talipp_values(it), close) for it, close in zip(self._indicators, closes, strict=True)]
        for indicators, close in zip(self._indicators, closes, strict=True):
            *singles, stoch, d = indicators
            for indicator in singles:
                indicator.add(close)
            stoch.add(OHLCV(close, close, close, close))
            d.add(stoch[-1].d)
        self._was: list[Truths] = [(False,) * 10] * history.symbols

    def snapshot(self, prices: Prices) -> list[Event]:
        """Return the events of one snapshot."""
        now = []
        for indicators, below, (close, high, low) in zip(self._indicators, self._below, prices, strict=True):
            *singles, stoch, d = indicators
            for indicator in singles:
                indicator.update(close)
            stoch.update(OHLCV(close, high, low, close))
            d.update(stoch[-1].d)
            now.append(conditions(_talipp_values(indicators), close, below))
        return news(self._was, now)


def _talipp_indicators(close: FloatArray, high: FloatArray, low: FloatArray) -> tuple[Any, ...]:
    closes = close[-120:].tolist()
    bars = [OHLCV(c, h, lo, c) for c, h, lo in zip(closes, high[-120:].tolist(), low[-120:].tolist(), strict=True)]
    stoch = Stoch(9, 3, bars, ma_type=MAType.SMMA)
    return (
        *(SMA(n, closes) for n in (5, 10, 20, 60)), EMA(12, closes), EMA(26, closes), MACD(12, 26, 9, closes),
        RSI(14, closes), BB(20, SAMPLE_WIDTH, closes), stoch,
        SMMA(3, [value.d for value in stoch if value and value.d]),
    )  # fmt: skip


def _talipp_values(indicators: tuple[Any, ...]) -> dict[str, float]:
    *averages, _, _, macd, rsi, boll, stoch, d = indicators
    last, width, k = macd[-1], boll[-1], stoch[-1].d
    found = (last.macd, last.signal, 2 * last.histogram, rsi[-1], width.ub, width.lb, k, d[-1], 3 * k - 2 * d[-1])
    return dict(zip(VALUES, (*(average[-1] for average in averages), *found), strict=True))


class Recompute:
    """Everything anew from the last 250 bars at every snapshot: what a script over DataFrames does."""

    def __init__(
        self, name: str, history: History, compute: Callable[[FloatArray, FloatArray, FloatArray], Any]
    ) -> None:
        self.name = name
        self._compute = compute
        self._bars = [
            tuple(np.append(array[-KEPT_BARS + 1 :], array[-1]) for array in history.of(row))
            for row in range(history.symbols)
        ]
        self._was: list[Truths] = [(False,) * 10] * history.symbols

    def snapshot(self, prices: Prices) -> list[Event]:
        """Return the events of one snapshot."""
        now = []
        for (c, h, low_), (close, high, low) in zip(self._bars, prices, strict=True):
            c[-1], h[-1], low_[-1] = close, high, low
            with np.errstate(all="ignore"):
                values = self._compute(c, h, low_)
            before = {name: float(values[name][-2]) for name in VALUES}
            forming = {name: float(values[name][-1]) for name in VALUES}
            now.append(conditions(forming, close, sides(before, c[-2])))
        return news(self._was, now)


def pandas_recompute(history: History) -> Recompute:
    """Return the peer of rolling and ewm over one Series per symbol."""
    return Recompute("pandas recompute", history, _with_pandas)


def mytt_recompute(history: History) -> Recompute:
    """Return the peer of MyTT, the usual Python port of the formula language."""
    return Recompute("MyTT", history, _with_mytt)


def _with_pandas(close: FloatArray, high: FloatArray, low: FloatArray) -> dict[str, Any]:
    c, h, lo = pd.Series(close), pd.Series(high), pd.Series(low)
    averages = {f"MA{n}": c.rolling(n).mean() for n in (5, 10, 20, 60)}
    dif = c.ewm(span=12, adjust=False).mean() - c.ewm(span=26, adjust=False).mean()
    dea = dif.ewm(span=9, adjust=False).mean()
    change = c.diff()
    rsi = change.clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
    rsi = rsi / change.abs().ewm(alpha=1 / 14, adjust=False).mean() * 100
    width = 2 * c.rolling(20).std()
    least = lo.rolling(9).min()
    rsv = (c - least) / (h.rolling(9).max() - least) * 100
    k = rsv.ewm(alpha=1 / 3, adjust=False).mean()
    d = k.ewm(alpha=1 / 3, adjust=False).mean()
    found = {
        **averages, "DIF": dif, "DEA": dea, "MACD": 2 * (dif - dea), "RSI": rsi, "UPPER": averages["MA20"] + width,
        "LOWER": averages["MA20"] - width, "K": k, "D": d, "J": 3 * k - 2 * d,
    }  # fmt: skip
    return {name: series.to_numpy() for name, series in found.items()}


def _with_mytt(close: FloatArray, high: FloatArray, low: FloatArray) -> dict[str, Any]:
    dif, dea, macd = MyTT.MACD(close)
    upper, _, lower = MyTT.BOLL(close)
    k, d, j = MyTT.KDJ(close, high, low)
    averages = {f"MA{n}": MyTT.MA(close, n) for n in (5, 10, 20, 60)}
    return {
        **averages, "DIF": dif, "DEA": dea, "MACD": macd, "RSI": MyTT.RSI(close, 14), "UPPER": upper, "LOWER": lower,
        "K": k, "D": d, "J": j,
    }  # fmt: skip


def some(history: History, symbols: int) -> History:
    """Return the first symbols of a history, for peers too slow for all of them."""
    return History(history.close[:, :symbols], history.high[:, :symbols], history.low[:, :symbols])


def triples(columns: Sequence[FloatArray]) -> Prices:
    """Return three columns as a list of (last, high, low), made before the clock runs."""
    return list(zip(*(column.tolist() for column in columns), strict=True))
