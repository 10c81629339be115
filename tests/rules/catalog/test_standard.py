"""Standard formulas as published: parsed, checked and evaluated unchanged, against MyTT, TA-Lib and pandas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import MyTT.MyTT as mytt
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import talib

from rules.catalog import instance, read_standard, standard_formulas
from rules.errors import RuleError
from rules.evaluate import as_floats
from rules.graph import Graph
from rules.language.checker import check
from rules.language.parser import parse
from rules.node import ALL
from rules.state import StateTable
from tests.rules.functions import oracles
from tests.rules.w1 import Columns

nan = np.nan
Bars = dict[str, np.ndarray]
"""C O H L V as (bars,) each."""
Outputs = dict[str, np.ndarray]
PERIOD = "5m"
BARS = 480
TIE = 1e-9
"""Prices that differ by less are equal."""


class Reference:
    """Vectors of one stock's bars, and the functions of the formulas as libraries have them, NaN where they say so."""

    def __init__(self, bars: Bars) -> None:
        self.c, self.o, self.h, self.low, self.v = (bars[name] for name in ("C", "O", "H", "L", "V"))
        self.lc = self.ref(self.c, 1)

    @staticmethod
    def ref(x: np.ndarray, n: int) -> np.ndarray:
        return pd.Series(x).shift(n).to_numpy()

    @staticmethod
    def ma(x: np.ndarray, n: int) -> np.ndarray:
        if x.size < n:
            return np.full(x.size, nan)
        rows = np.lib.stride_tricks.sliding_window_view(x, n)
        return np.concatenate([np.full(n - 1, nan), rows.mean(axis=-1)])

    @staticmethod
    def sum(x: np.ndarray, n: int) -> np.ndarray:
        if n == 0:
            return pd.Series(x).cumsum().ffill().to_numpy()
        if x.size < n:
            return np.full(x.size, nan)
        rows = np.lib.stride_tricks.sliding_window_view(x, n)
        return np.concatenate([np.full(n - 1, nan), rows.sum(axis=-1)])

    @staticmethod
    def smooth(x: np.ndarray, alpha: float) -> np.ndarray:
        """Recursive average from the first known value on; unknown values leave it as it is."""
        return pd.Series(x[~np.isnan(x)]).ewm(alpha=alpha, adjust=False).mean().reindex(
            np.where(np.isnan(x), -1, np.cumsum(~np.isnan(x)) - 1)
        ).ffill().to_numpy()  # fmt: skip

    def ema(self, x: np.ndarray, n: int) -> np.ndarray:
        return self.smooth(x, 2 / (n + 1))

    def sma(self, x: np.ndarray, n: int, m: int) -> np.ndarray:
        return self.smooth(x, m / n)

    @staticmethod
    def expmema(x: np.ndarray, n: int) -> np.ndarray:
        known = ~np.isnan(x)
        out = np.full(x.size, nan)
        out[known] = talib.EMA(x[known], n)
        return pd.Series(out).ffill().to_numpy()

    @staticmethod
    def hhv(x: np.ndarray, n: int) -> np.ndarray:
        return pd.Series(x).rolling(n, min_periods=1).max().to_numpy()

    @staticmethod
    def llv(x: np.ndarray, n: int) -> np.ndarray:
        return pd.Series(x).rolling(n, min_periods=1).min().to_numpy()

    @staticmethod
    def count(c: np.ndarray, n: int) -> np.ndarray:
        return pd.Series(c.astype(float)).rolling(n, min_periods=1).sum().to_numpy()

    @staticmethod
    def divided(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """x/0 is unknown; sums of equal prices are 0 to 1e-9."""
        return np.where(np.abs(b) <= 1e-9, nan, a / np.where(b == 0, 1, b))

    def true_range(self) -> np.ndarray:
        return np.maximum(np.maximum(self.h - self.low, np.abs(self.h - self.lc)), np.abs(self.lc - self.low))

    def when(self, condition: np.ndarray, a: object, b: object) -> np.ndarray:
        """IF over yesterday's close: unknown on the first bar."""
        return np.where(np.isnan(self.lc), nan, np.where(condition, a, b))


def macd(r: Reference) -> Outputs:
    dif, dea, bar = mytt.MACD(r.c, 12, 26, 9)
    return {"DIF": dif, "DEA": dea, "MACD": bar}


def kdj(r: Reference) -> Outputs:
    low, high = r.llv(r.low, 9), r.hhv(r.h, 9)
    k = r.sma(r.divided(r.c - low, high - low) * 100, 3, 1)
    d = r.sma(k, 3, 1)
    return {"K": k, "D": d, "J": 3 * k - 2 * d}


def rsi(r: Reference) -> Outputs:
    change = r.c - r.lc
    return {
        f"RSI{i}": r.divided(r.sma(np.maximum(change, 0), n, 1), r.sma(np.abs(change), n, 1)) * 100
        for i, n in enumerate((6, 12, 24), 1)
    }


def boll(r: Reference, m: int = 20) -> Outputs:
    mid, width = r.ma(r.c, m), 2 * oracles.windows_of(np.std, ddof=1)(r.c, m)
    return {"BOLL": mid, "UB": mid + width, "LB": mid - width}


def wr(r: Reference) -> Outputs:
    return {
        f"WR{i}": 100 * r.divided(r.hhv(r.h, n) - r.c, r.hhv(r.h, n) - r.llv(r.low, n)) for i, n in ((1, 10), (2, 6))
    }


def cci(r: Reference) -> Outputs:
    price = (r.h + r.low + r.c) / 3
    deviation = oracles.ORACLES["AVEDEV"].loop(price, 14)
    return {"CCI": r.divided((price - r.ma(price, 14)) * 1000, 15 * deviation)}


def bias(r: Reference) -> Outputs:
    return dict(zip(("BIAS1", "BIAS2", "BIAS3"), mytt.BIAS(r.c, 6, 12, 24), strict=True))


def atr(r: Reference) -> Outputs:
    return {"MTR": r.true_range(), "ATR": r.ma(r.true_range(), 14)}


def obv(r: Reference, m: int = 30) -> Outputs:
    flow = r.when(np.isclose(r.c, r.lc, rtol=0, atol=1e-9), 0, np.where(r.c > r.lc, r.v, -r.v))
    return {"OBV": (total := r.sum(flow, 0)), "MAOBV": r.ma(total, m)}


def vr(r: Reference, n: int = 26, m: int = 6) -> Outputs:
    tie = np.isclose(r.c, r.lc, rtol=0, atol=1e-9)
    up, down, flat = (
        r.sum(r.when(c, r.v, 0), n) for c in ((r.c > r.lc) & ~tie, (r.c < r.lc) & ~tie, tie)
    )  # fmt: skip
    ratio = r.divided(100 * (up * 2 + flat), down * 2 + flat)
    return {"VR": ratio, "MAVR": r.ma(ratio, m)}


def dmi(r: Reference) -> Outputs:
    up, down = r.h - r.ref(r.h, 1), r.ref(r.low, 1) - r.low
    spread = r.expmema(r.true_range(), 14)
    plus = r.expmema(r.when((up > TIE) & (up > down + TIE), up, 0), 14) * 100 / spread
    minus = r.expmema(r.when((down > TIE) & (down > up + TIE), down, 0), 14) * 100 / spread
    adx = r.expmema(r.divided(np.abs(minus - plus), minus + plus) * 100, 6)
    return {"PDI": plus, "MDI": minus, "ADX": adx, "ADXR": r.expmema(adx, 6)}


def roc(r: Reference) -> Outputs:
    return dict(zip(("ROC", "MAROC"), mytt.ROC(r.c, 12, 6), strict=True))


def mtm(r: Reference) -> Outputs:
    return dict(zip(("MTM", "MTMMA"), mytt.MTM(r.c, 12, 6), strict=True))


def psy(r: Reference) -> Outputs:
    rises = r.count(np.where(np.isnan(r.lc), False, r.c > r.lc + 1e-9), 12) / 12 * 100
    return {"PSY": rises, "PSYMA": r.ma(rises, 6)}


def trix(r: Reference) -> Outputs:
    triple = r.ema(r.ema(r.ema(r.c, 12), 12), 12)
    value = (triple - r.ref(triple, 1)) / r.ref(triple, 1) * 100
    return {"TRIX": value, "MATRIX": r.ma(value, 9)}


def dma(r: Reference, n1: int = 10, n2: int = 50, m: int = 10) -> Outputs:
    dif = talib.SMA(r.c, n1) - talib.SMA(r.c, n2)
    return {"DIF": dif, "DIFMA": r.ma(dif, m)}


def ene(r: Reference, n: int = 25, m1: int = 6, m2: int = 6) -> Outputs:
    mid = r.ma(r.c, n)
    upper, lower = (1 + m1 / 100) * mid, (1 - m2 / 100) * mid
    return {"UPPER": upper, "LOWER": lower, "ENE": (upper + lower) / 2}


def mike(r: Reference) -> Outputs:
    price = r.ref(r.ma((r.h + r.low + r.c) / 3, 10), 1)
    high, low = r.ema(r.hhv(r.h, 10), 3), r.ema(r.llv(r.low, 10), 3)
    levels = {
        "STOR": 2 * high - low, "MIDR": price + high - low, "WEKR": price * 2 - low, "WEKS": price * 2 - high,
        "MIDS": price - high + low, "STOS": 2 * low - high,
    }  # fmt: skip
    return {name: r.ema(level, 3) for name, level in levels.items()}


def bbi(r: Reference, m1: int = 3, m2: int = 6, m3: int = 12, m4: int = 24) -> Outputs:
    return {"BBI": mytt.BBI(r.c, m1, m2, m3, m4)}


def arbr(r: Reference, m1: int = 26) -> Outputs:
    gain, loss = np.maximum(0, r.h - r.lc), np.maximum(0, r.lc - r.low)
    return {
        "AR": r.divided(r.sum(r.h - r.o, m1), r.sum(r.o - r.low, m1)) * 100,
        "BR": r.divided(r.sum(gain, m1), r.sum(loss, m1)) * 100,
    }


def cr(r: Reference, n: int = 26, m1: int = 10, m2: int = 20, m3: int = 40, m4: int = 62) -> Outputs:
    mid = r.ref(r.h + r.low, 1) / 2
    value = r.divided(r.sum(np.maximum(0, r.h - mid), n), r.sum(np.maximum(0, mid - r.low), n)) * 100
    means = {f"MA{i}": r.ref(r.ma(value, m), int(m / 2.5 + 1)) for i, m in enumerate((m1, m2, m3, m4), 1)}
    return {"CR": value, **means}


def mass(r: Reference, n1: int = 9, n2: int = 25, m: int = 6) -> Outputs:
    spread = r.ma(r.h - r.low, n1)
    value = r.sum(r.divided(spread, r.ma(spread, n1)), n2)
    return {"MASS": value, "MAMASS": r.ma(value, m)}


def emv(r: Reference, n: int = 14, m: int = 9) -> Outputs:
    volume = r.divided(r.ma(r.v, n), r.v)
    middle = 100 * (r.h + r.low - r.ref(r.h + r.low, 1)) / (r.h + r.low)
    value = r.ma(r.divided(middle * volume * (r.h - r.low), r.ma(r.h - r.low, n)), n)
    return {"EMV": value, "MAEMV": r.ma(value, m)}


def asi(r: Reference, m1: int = 26, m2: int = 10) -> Outputs:
    lo, hl = r.ref(r.o, 1), r.ref(r.low, 1)
    a, b, c, d = (np.abs(x) for x in (r.h - r.lc, r.low - r.lc, r.h - hl, r.lc - lo))
    range_ = np.where(
        (a > b + TIE) & (a > c + TIE),
        a + b / 2 + d / 4,
        np.where((b > c + TIE) & (b > a + TIE), b + a / 2 + d / 4, c + d / 4),
    )
    move = r.c - r.lc + (r.c - r.o) / 2 + r.lc - lo
    value = r.sum(r.divided(16 * move, range_) * np.maximum(a, b), m1)
    return {"ASI": value, "ASIT": r.ma(value, m2)}


def sar(r: Reference) -> Outputs:
    return {"SAR": oracles.parabolic(r.h, r.low, r.c, 10, 2, 20)}


def expma(r: Reference) -> Outputs:
    return dict(zip(("EXP1", "EXP2"), mytt.EXPMA(r.c, 12, 50), strict=True))


REFERENCES: dict[str, Callable[..., Outputs]] = {
    "MACD": macd, "KDJ": kdj, "RSI": rsi, "WR": wr, "CCI": cci, "BIAS": bias, "BOLL": boll, "DMI": dmi, "OBV": obv,
    "VR": vr, "TRIX": trix, "DMA": dma, "ROC": roc, "MTM": mtm, "PSY": psy, "EMV": emv, "ARBR": arbr, "CR": cr,
    "MASS": mass, "BBI": bbi, "EXPMA": expma, "ENE": ene, "MIKE": mike, "ASI": asi, "SAR": sar, "ATR": atr,
}  # fmt: skip
NAMES = sorted(REFERENCES)


@pytest.fixture(scope="module")
def stocks(market_data: Path) -> list[Bars]:
    """Return real 5m bars of a dear stock, a cheap one full of ties, an illiquid one and one sealed for days."""
    table = pq.read_table(market_data / "bars" / "5m-201708.parquet").to_pandas()
    found: list[Bars] = []
    for symbol in ("600519.SH", "000979.SZ", "600455.SH", "300688.SZ"):
        rows = table[(table.symbol == symbol) & (table.open > 0)].sort_values("ts_end").tail(BARS)
        names = zip("COHLV", ("close", "open", "high", "low", "volume_lots"), strict=True)
        found.append({word: rows[column].to_numpy(float) for word, column in names})
    assert [bars["C"].size for bars in found] == [BARS] * 4
    return found


class Run:
    """All outputs of one standard formula over several stocks at once."""

    def __init__(self, name: str, stocks: list[Bars]) -> None:
        self.stocks = stocks
        self.state = StateTable(len(stocks))
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=20)
        self.nodes = {
            output: self.graph.add(parse(f'"{name}.{output}"').statements[0].expr, period=PERIOD)
            for output in standard_formulas()[name].outputs
        }
        self.plan = self.graph.plan(self.nodes.values())

    def put(self, i: int, *, factor: float = 1.0) -> None:
        row = {word: np.array([bars[word][i] for bars in self.stocks]) * factor for word in "COHLV"}
        self.source.set(PERIOD, ALL, **row)

    def values(self) -> dict[str, np.ndarray]:
        return {output: as_floats(node).copy() for output, node in self.nodes.items()}

    def peek(self, i: int, *, factor: float = 1.0) -> dict[str, np.ndarray]:
        self.put(i, factor=factor)
        self.plan.peek(ALL)
        return self.values()

    def close(self, i: int) -> dict[str, np.ndarray]:
        self.put(i)
        self.graph.commit(PERIOD, np.arange(len(self.stocks)))
        return self.values()


def expected(name: str, bars: Bars) -> Outputs:
    with np.errstate(all="ignore"):
        return REFERENCES[name](Reference(bars))


def assert_close(mine: np.ndarray, theirs: np.ndarray, scale: np.ndarray, what: str) -> None:
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs), err_msg=what)
    largest = max(1.0, np.max(np.abs(scale[~np.isnan(scale)]), initial=0.0))
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-9 * largest, err_msg=what)


@pytest.mark.parametrize("name", NAMES)
def test_on_real_bars_it_equals_independent_code_with_the_same_unknowns(name: str, stocks: list[Bars]) -> None:
    run = Run(name, stocks)
    rows = [run.close(i) for i in range(BARS)]
    for s, bars in enumerate(stocks):
        theirs = expected(name, bars)
        assert theirs.keys() == run.nodes.keys()
        for output, column in theirs.items():
            mine = np.array([row[output][s] for row in rows])
            assert s > 0 or np.isfinite(mine).sum() > BARS / 2
            assert_close(mine, np.asarray(column, float), column, f"{name}.{output} of stock {s}")


@pytest.mark.parametrize("name", NAMES)
def test_forming_bars_equal_recompute_wherever_they_are_peeked(name: str, stocks: list[Bars]) -> None:
    rng = np.random.default_rng(len(name))
    run = Run(name, stocks[:2])
    for i in range(170):
        if i > 90 and rng.random() < 0.15:
            factor = 1 + rng.normal(0, 0.01)
            mine = run.peek(i, factor=factor)
            for s, bars in enumerate(run.stocks):
                now = {word: np.append(column[:i], column[i] * factor) for word, column in bars.items()}
                for output, column in expected(name, now).items():
                    assert_close(mine[output][s : s + 1], np.asarray(column[-1:], float), column, f"{name}.{output}")
        run.close(i)


@pytest.mark.parametrize("name", NAMES)
def test_as_published_with_its_parameters_assigned_it_parses_and_checks(name: str) -> None:
    standard = standard_formulas()[name]
    text = (Path(__file__).parents[3] / "rules" / "catalog" / f"{name}.tdx").read_text(encoding="utf-8")
    given = "".join(f"{parameter}:={value:g};" for parameter, value in standard.parameters)
    found = check(parse(given + text), period="1d")
    assert [statement.name for statement in found.formula.outputs] == list(standard.outputs)
    assert not [warning for warning in found.warnings if "condition is a number" not in warning.message]
    assert found.needs["1d"] > 1


def test_the_25_of_the_language_page_and_atr_are_shipped() -> None:
    assert set(standard_formulas()) == set(REFERENCES)


def test_given_parameters_replace_the_defaults_and_equal_ones_are_one_node() -> None:
    graph = Graph(state := StateTable(1), Columns(state))

    def node(text: str) -> object:
        return graph.add(parse(text).statements[0].expr, period="1d")

    assert node('"MACD.DIF"(12,26,9)') is node("EMA(CLOSE,12)-EMA(CLOSE,26)")
    assert node('"MACD.DIF"') is node('"macd.dif"(12,26,3)')
    assert node('"MACD.DIF"(5,26,9)') is node("EMA(C,5)-EMA(C,26)")
    assert node('"KDJ.K#WEEK"(5,3,3)') is not node('"KDJ.K"(5,3,3)')
    assert node('"KDJ.K#WEEK"(9,3,3)') is node('ON(WEEK,"KDJ.K")')
    assert node('"BBI"') is node('"BBI.BBI"(3,6,12,24)')


def test_a_formula_file_without_its_header_is_refused() -> None:
    with pytest.raises(RuleError, match="begins with"):
        read_standard("K:SMA(C,3,1);")
    with pytest.raises(RuleError, match="there is no shipped formula NONE"):
        instance("NONE", "X")
