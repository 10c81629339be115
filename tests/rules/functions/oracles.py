"""Who else computes each function of the language.

`Loop` oracles are written from the function's definition, over one symbol's whole series, one bar after the other, with
unknowns (NaN) and ties; every function has one. The others are libraries, on series without unknowns: they are
compared where they have a value (`from_bar` on). A truth is 1, 0 or NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from math import fsum, isnan, nan

import MyTT.MyTT as mytt
import numpy as np
import talib
from numpy.lib.stride_tricks import sliding_window_view

mytt.RD = lambda value, digits=3: value  # it rounds results to three decimals otherwise

Series = np.ndarray
Compute = Callable[..., Series]


@dataclass(frozen=True, slots=True)
class Reference:
    """A library's word: `compute(*series, *constants)`, to be believed from bar `from_bar(*constants)` on."""

    source: str
    compute: Compute
    from_bar: Callable[..., int] = lambda *constants: 0


@dataclass(frozen=True, slots=True)
class Oracle:
    loop: Compute
    references: tuple[Reference, ...] = ()
    loop_source: str = "loop"

    @property
    def sources(self) -> set[str]:
        return {self.loop_source, *(reference.source for reference in self.references)}


def close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-9 * max(1.0, abs(a), abs(b))


def above(a: float, b: float) -> float:
    """a > b beyond the tolerance: 1, 0 or NaN."""
    return nan if isnan(a) or isnan(b) else float(a > b and not close(a, b))


def truth_not(a: float) -> float:
    return nan if isnan(a) else 1.0 - a


def truth_and(*values: float) -> float:
    if any(v == 0 for v in values):
        return 0.0
    return nan if any(isnan(v) for v in values) else 1.0


def truth_or(*values: float) -> float:
    return truth_not(truth_and(*map(truth_not, values)))


def windowed(rule: Callable[[list[float]], float]) -> Compute:
    """Apply a rule to each full window of N values; NaN before, and while one of them is NaN."""

    def compute(x: Series, n: float) -> Series:
        n = int(n)
        rows = [x[i - n + 1 : i + 1].tolist() if i + 1 >= n else [nan] for i in range(len(x))]
        return np.array([nan if any(map(isnan, row)) else rule(row) for row in rows])

    return compute


def partial(rule: Callable[[list[float]], float]) -> Compute:
    """Apply a rule to the last N values, or as many as there are; N = 0 is all."""

    def compute(x: Series, n: float) -> Series:
        n = int(n) or len(x)
        return np.array([rule(x[max(0, i - n + 1) : i + 1].tolist()) for i in range(len(x))])

    return compute


def pointwise(rule: Callable[..., float]) -> Compute:
    return lambda *series: np.array([rule(*map(float, row)) for row in zip(*series, strict=True)])


def finite(rule: Callable[..., float]) -> Callable[..., float]:
    """NaN in, NaN out; NaN where the rule has no finite value."""

    def guarded(*values: float) -> float:
        if any(map(isnan, values)):
            return nan
        try:
            value = rule(*values)
        except (ValueError, OverflowError, ZeroDivisionError):
            return nan
        return nan if isinstance(value, complex) or not math.isfinite(value) else value

    return guarded


def extreme(pick: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    def rule(row: list[float]) -> float:
        known = [v for v in row if not isnan(v)]
        return pick(known) if known else nan

    return rule


def extreme_bars(pick: Callable[[list[float]], float]) -> Callable[[list[float]], float]:
    def rule(row: list[float]) -> float:
        known = [v for v in row if not isnan(v)]
        return float(row[::-1].index(pick(known))) if known else nan

    return rule


def squares(row: list[float]) -> float:
    if all(close(v, row[0]) for v in row):
        return 0.0
    mean = fsum(row) / len(row)
    return fsum((v - mean) ** 2 for v in row)


def mean_deviation(row: list[float]) -> float:
    mean = fsum(row) / len(row)
    return 0.0 if all(close(v, row[0]) for v in row) else fsum(abs(v - mean) for v in row) / len(row)


def cumulative(x: Series, n: float) -> Series:
    if n > 0:
        return windowed(fsum)(x, n)
    out, total = [], nan
    for v in x.tolist():
        if not isnan(v):
            total = v if isnan(total) else total + v
        out.append(total)
    return np.array(out)


def smoothed(x: Series, weights: Series) -> Series:
    out, y = [], nan
    for v, w in zip(x.tolist(), weights.tolist(), strict=True):
        if not isnan(v) and not isnan(w):
            y = v if isnan(y) else w * v + (1 - w) * y
        out.append(y)
    return np.array(out)


def seeded(x: Series, n: float) -> Series:
    out, y, seeds = [], nan, []
    for v in x.tolist():
        if not isnan(v):
            if isnan(y):
                seeds.append(v)
                y = fsum(seeds) / n if len(seeds) == n else nan
            else:
                y = (2 * v + (n - 1) * y) / (n + 1)
        out.append(y)
    return np.array(out)


def shifted(x: Series, n: float) -> Series:
    n = int(n)
    return np.concatenate([np.full(min(n, len(x)), nan), x[: len(x) - n] if n < len(x) else x[:0]])


def value_when(c: Series, x: Series) -> Series:
    out, then = [], nan
    for cond, v in zip(c.tolist(), x.tolist(), strict=True):
        then = v if cond == 1 else then
        out.append(then)
    return np.array(out)


def every(c: Series, n: float) -> Series:
    n = int(n)
    rows = [c[0 if n == 0 else i - n + 1 : i + 1].tolist() if i + 1 >= n else [nan] for i in range(len(c))]
    return np.array([truth_and(*row) for row in rows])


def last(c: Series, a: float, b: float) -> Series:
    return shifted(every(c, a - b + 1), b)


def bars_last(c: Series) -> Series:
    found = [max((j for j in range(i + 1) if c[j] == 1), default=None) for i in range(len(c))]
    return np.array([nan if j is None else i - j for i, j in enumerate(found)], float)


def bars_since(c: Series) -> Series:
    first = next((i for i, v in enumerate(c) if v == 1), len(c))
    return np.array([nan if i < first else i - first for i in range(len(c))], float)


def bars_count(x: Series) -> Series:
    return bars_since(~np.isnan(x) * 1.0) + 1


def oldest_in_window(row: list[float]) -> float:
    return float(len(row) - 1 - row.index(1.0)) if 1.0 in row else nan


def paired(rule: Callable[[list[float], list[float]], float]) -> Compute:
    """Apply a rule to each full window of N pairs; NaN before, and while a value is NaN."""

    def compute(x: Series, y: Series, n: float) -> Series:
        n = int(n)
        out = []
        for i in range(len(x)):
            rows = [s[i - n + 1 : i + 1].tolist() if i + 1 >= n else [nan] for s in (x, y)]
            out.append(nan if any(map(isnan, rows[0] + rows[1])) else rule(*rows))
        return np.array(out)

    return compute


def line(row: list[float]) -> tuple[float, float]:
    """Return slope and height at the last of 0 … N−1, by the textbook sums."""
    n, mean = len(row), fsum(row) / len(row)
    middle = (n - 1) / 2
    slope = fsum((i - middle) * (v - mean) for i, v in enumerate(row)) / fsum((i - middle) ** 2 for i in range(n))
    return slope, mean + slope * middle


def covariance(x: list[float], y: list[float]) -> float:
    mean_x, mean_y = fsum(x) / len(x), fsum(y) / len(y)
    return fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / len(x)


def correlation(x: list[float], y: list[float]) -> float:
    spread = math.sqrt(squares(x) / len(x)) * math.sqrt(squares(y) / len(y))
    return covariance(x, y) / spread if spread else nan


def parabolic(high: Series, low: Series, close: Series, n: float, step: float, most: float) -> Series:
    """One bar after the other, over the bars that have all three prices; the others hold."""
    out, bars = [], []
    stop, extreme, speed, up = nan, nan, nan, True
    for h, lo, c in zip(high.tolist(), low.tolist(), close.tolist(), strict=True):
        if isnan(h) or isnan(lo) or isnan(c):
            out.append(stop)
            continue
        bars.append((h, lo, c))
        highs, lows = [bar[0] for bar in bars], [bar[1] for bar in bars]
        if len(bars) == n + 1:
            up, speed = c >= bars[0][2], step / 100
            stop = min(lows[:-1]) if up else max(highs[:-1])
            extreme = max(highs) if up else min(lows)
        elif len(bars) > n + 1:
            stop += speed * (extreme - stop)
            if lo < stop if up else h > stop:
                stop, extreme, speed, up = extreme, (lo if up else h), step / 100, not up
            elif h > extreme if up else lo < extreme:
                extreme, speed = (h if up else lo), min(speed + step / 100, most / 100)
        out.append(stop)
    return np.array(out)


def run_length(c: Series) -> Series:
    out, run = [], nan
    for v in c.tolist():
        run = (0 if isnan(run) else run) + 1 if v == 1 else run * 0
        out.append(run)
    return np.array(out)


def filtered(c: Series, n: float) -> Series:
    out, quiet_until = [], -1
    for i, v in enumerate(c.tolist()):
        out.append(0.0 if i <= quiet_until else v)
        if out[-1] == 1:
            quiet_until = i + int(n)
    return np.array(out)


def cross(a: Series, b: Series) -> Series:
    up = [above(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    return np.array([float(i > 0 and up[i - 1] == 0 and up[i] == 1) for i in range(len(up))])


def long_cross(a: Series, b: Series, n: float) -> Series:
    n = int(n)
    up = [above(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    down = [above(y, x) for x, y in zip(a.tolist(), b.tolist(), strict=True)]
    return np.array([float(i >= n and up[i] == 1 and all(v == 1 for v in down[i - n : i])) for i in range(len(up))])


def between(x: float, a: float, b: float) -> float:
    if any(map(isnan, (x, a, b))):
        return nan
    low, high = min(a, b), max(a, b)
    return float((x > low or close(x, low)) and (x < high or close(x, high)))


def chosen(c: float, a: float, b: float) -> float:
    return nan if isnan(c) else a if c else b


def windows_of(rule: Callable[..., Series], **options: float) -> Compute:
    """Apply a numpy reduction to each full window."""

    def compute(x: Series, n: float) -> Series:
        if x.size < n:
            return np.full(x.size, nan)
        rows = sliding_window_view(x, int(n))
        return np.concatenate([np.full(int(n) - 1, nan), rule(rows, axis=-1, **options)])

    return compute


def _overall(pick: np.ufunc, x: Series, n: int) -> Series:
    """TA-Lib takes no window below 2: of 0 is of all, of 1 is the value itself."""
    return pick.accumulate(x) if n == 0 else x


def _full(n: float, *rest: float) -> int:
    return int(n)


def _numpy(compute: Compute) -> tuple[Reference, ...]:
    return (Reference("numpy", compute),)


def _mytt(compute: Compute, from_bar: Callable[..., int] = lambda *constants: 0) -> tuple[Reference, ...]:
    return (Reference("MyTT", lambda *args: np.asarray(compute(*args), float), from_bar),)


def _ints(compute: Compute) -> Compute:
    """Pass constants on as int; libraries insist."""
    return lambda *args: compute(*(a if isinstance(a, np.ndarray) else int(a) for a in args))


def _bool(compute: Compute) -> Compute:
    """Pass truths on as bool arrays, copied, as MyTT's FILTER writes into its argument."""
    return lambda c, *rest: compute(c.astype(bool).copy(), *rest)


def _mytt_barssincen(c: Series, n: int) -> Series:
    """MyTT's is 0 where the condition was true on none of the N bars, and it knows no N = 0."""
    if n == 0:
        return bars_since(c)
    return np.where(mytt.COUNT(c, n) > 0, mytt.BARSSINCEN(c, n).astype(float), nan)


def _numpy_covariance(x: Series, y: Series, n: int) -> Series:
    pairs = zip(sliding_window_view(x, n), sliding_window_view(y, n), strict=True)
    return np.concatenate([np.full(n - 1, nan), [np.cov(a, b, ddof=0)[0, 1] for a, b in pairs]])


def slots_of(seconds: float) -> int:
    return -(-int(seconds) // 3)


def rise(x: Series, seconds: float) -> Series:
    then = shifted(x, slots_of(seconds))
    return pointwise(finite(lambda now, was: (now / was - 1) * 100))(x, then)


def extreme_over(pick: Callable[[list[float]], float]) -> Compute:
    """Apply to the slots of S seconds; unknown where the value S seconds ago is."""

    def compute(x: Series, seconds: float) -> Series:
        n = slots_of(seconds)
        return np.where(np.isnan(shifted(x, n)), nan, partial(extreme(pick))(x, n))

    return compute


def big_tick(day: Series, last: Series, ask: Series, bid: Series, cny: float, times: float) -> Series:
    out: list[float] = []
    before = ask_before = bid_before = usual = nan
    amounts: list[float] = []
    for total, price, offer, want in zip(*(s.tolist() for s in (day, last, ask, bid)), strict=True):
        amount = total if isnan(before) or total < before else total - before
        if isnan(amount) or isnan(usual) or isnan(price):
            out.append(nan)
        elif amount >= max(cny, times * usual) * (1 - 1e-9):
            bought = price > ask_before or close(price, ask_before)
            sold = price < bid_before or close(price, bid_before)
            out.append(1.0 if bought else -1.0 if sold else 0.0)
        else:
            out.append(0.0)
        amounts.append(amount)
        recent = amounts[-5:]
        usual = usual if len(recent) < 5 or any(map(isnan, recent)) else fsum(recent) / 5
        before = before if isnan(total) else total
        ask_before = ask_before if isnan(offer) else offer
        bid_before = bid_before if isnan(want) else want
    return np.array(out)


EXACT = "exact windows"
ORACLES: dict[str, Oracle] = {
    "IF": Oracle(pointwise(chosen), _numpy(np.where)),
    "NOT": Oracle(pointwise(truth_not), _numpy(lambda c: ~c.astype(bool))),
    "BETWEEN": Oracle(
        pointwise(between), _numpy(lambda x, a, b: (x >= np.minimum(a, b)) & (x <= np.maximum(a, b)))
    ),
    "RANGE": Oracle(
        pointwise(lambda x, a, b: truth_and(above(x, a), above(b, x))), _numpy(lambda x, a, b: (x > a) & (x < b))
    ),
    "MAX": Oracle(pointwise(finite(max)), _numpy(np.maximum)),
    "MIN": Oracle(pointwise(finite(min)), _numpy(np.minimum)),
    "POW": Oracle(pointwise(finite(lambda a, b: a**b)), _numpy(np.power)),
    "MOD": Oracle(pointwise(finite(math.fmod)), _numpy(np.fmod)),
    "ABS": Oracle(pointwise(finite(abs)), _numpy(np.abs)),
    "SQRT": Oracle(pointwise(finite(math.sqrt)), _numpy(np.sqrt)),
    "LN": Oracle(pointwise(finite(math.log)), _numpy(np.log)),
    "LOG": Oracle(pointwise(finite(math.log10)), _numpy(np.log10)),
    "EXP": Oracle(pointwise(finite(math.exp)), _numpy(np.exp)),
    "SIGN": Oracle(pointwise(finite(lambda v: (v > 0) - (v < 0))), _numpy(np.sign)),
    "FLOOR": Oracle(pointwise(finite(math.floor)), _numpy(np.floor)),
    "CEILING": Oracle(pointwise(finite(math.ceil)), _numpy(np.ceil)),
    "INTPART": Oracle(pointwise(finite(math.trunc)), _numpy(np.trunc)),
    "REF": Oracle(shifted, _mytt(_ints(mytt.REF))),
    "VALUEWHEN": Oracle(value_when, _mytt(_bool(mytt.VALUEWHEN))),
    "MA": Oracle(
        windowed(lambda row: fsum(row) / len(row)),
        (*_mytt(_ints(mytt.MA)), Reference("TA-Lib", _ints(lambda x, n: talib.MA(x, n)))),
    ),
    "EMA": Oracle(lambda x, n: smoothed(x, np.full(len(x), 2 / (n + 1))), _mytt(_ints(mytt.EMA))),
    "SMA": Oracle(lambda x, n, m: smoothed(x, np.full(len(x), m / n)), _mytt(_ints(mytt.SMA))),
    "DMA": Oracle(smoothed, _mytt(lambda x, a: mytt.DMA(x, float(a[0])))),
    "EXPMEMA": Oracle(seeded, (Reference("TA-Lib", _ints(lambda x, n: talib.EMA(x, n) if n > 1 else x)),)),
    "WMA": Oracle(
        windowed(lambda row: fsum(i * v for i, v in enumerate(row, 1)) * 2 / (len(row) * (len(row) + 1))),
        (*_mytt(_ints(mytt.WMA)), Reference("TA-Lib", _ints(lambda x, n: talib.WMA(x, n) if n > 1 else x))),
    ),
    "SUM": Oracle(cumulative, _mytt(_ints(mytt.SUM))),
    "HHV": Oracle(
        partial(extreme(max)),
        (Reference("TA-Lib", _ints(lambda x, n: talib.MAX(x, n) if n > 1 else _overall(np.maximum, x, n))),),
    ),
    "LLV": Oracle(
        partial(extreme(min)),
        (Reference("TA-Lib", _ints(lambda x, n: talib.MIN(x, n) if n > 1 else _overall(np.minimum, x, n))),),
    ),
    "HHVBARS": Oracle(partial(extreme_bars(max)), loop_source=EXACT),
    "LLVBARS": Oracle(partial(extreme_bars(min)), loop_source=EXACT),
    "COUNT": Oracle(partial(lambda row: float(row.count(1.0))), _mytt(_ints(mytt.COUNT), _full)),
    "EXIST": Oracle(partial(lambda row: float(1.0 in row)), _mytt(_ints(lambda c, n: mytt.EXIST(c, n)), _full)),
    "EVERY": Oracle(every, _mytt(_ints(lambda c, n: mytt.EVERY(c, n)), _full)),
    "LAST": Oracle(last, _mytt(_ints(_bool(mytt.LAST)), _full)),
    "BARSLAST": Oracle(bars_last, _mytt(mytt.BARSLAST)),
    "BARSSINCE": Oracle(bars_since),
    "BARSSINCEN": Oracle(
        partial(oldest_in_window), _mytt(_ints(_mytt_barssincen), _full)
    ),
    "BARSLASTCOUNT": Oracle(run_length, _mytt(mytt.BARSLASTCOUNT)),
    "BARSCOUNT": Oracle(bars_count),
    "FILTER": Oracle(filtered, _mytt(_ints(_bool(mytt.FILTER)))),
    "CROSS": Oracle(cross, _mytt(mytt.CROSS)),
    "LONGCROSS": Oracle(long_cross, _mytt(_ints(mytt.LONGCROSS), _full)),
    "STD": Oracle(
        windowed(lambda row: math.sqrt(squares(row) / (len(row) - 1))),
        (Reference("numpy", windows_of(np.std, ddof=1)),), EXACT,
    ),
    "STDP": Oracle(
        windowed(lambda row: math.sqrt(squares(row) / len(row))), (Reference("numpy", windows_of(np.std)),), EXACT
    ),
    "VAR": Oracle(
        windowed(lambda row: squares(row) / (len(row) - 1)), (Reference("numpy", windows_of(np.var, ddof=1)),), EXACT
    ),
    "VARP": Oracle(windowed(lambda row: squares(row) / len(row)), (Reference("numpy", windows_of(np.var)),), EXACT),
    "DEVSQ": Oracle(windowed(squares), loop_source=EXACT),
    "AVEDEV": Oracle(windowed(mean_deviation), _mytt(_ints(mytt.AVEDEV)), EXACT),
    "SLOPE": Oracle(
        windowed(lambda row: line(row)[0]), (Reference("TA-Lib", _ints(lambda x, n: talib.LINEARREG_SLOPE(x, n))),)
    ),
    "FORCAST": Oracle(
        windowed(lambda row: line(row)[1]), (Reference("TA-Lib", _ints(lambda x, n: talib.LINEARREG(x, n))),)
    ),
    "COVAR": Oracle(paired(covariance), _numpy(_ints(_numpy_covariance))),
    "RELATE": Oracle(paired(correlation), (Reference("TA-Lib", _ints(lambda x, y, n: talib.CORREL(x, y, n))),)),
    "SAR": Oracle(parabolic),
    "RISE": Oracle(rise),
    "HIGHS": Oracle(extreme_over(max)),
    "LOWS": Oracle(extreme_over(min)),
    "BIGTICK": Oracle(big_tick),
}  # fmt: skip
