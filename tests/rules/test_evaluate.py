"""Formulas over tables of bars: the whole market bar by bar, halts, vendor faults, and refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import talib

from rules.errors import RuleError
from rules.evaluate import BarTable, EvaluatedBars, evaluate
from rules.language.parser import parse
from tests.rules.functions import oracles
from tests.rules.w1 import walk

nan = np.nan


def table(symbols: list[str], closes: list[float], **columns: Any) -> BarTable:
    """Return a table of 1m bars in the order given, ends counted up over all rows, prices all at the close."""
    close = np.array(closes, float)
    n = close.size
    filled: dict[str, Any] = {
        "symbol": np.array(symbols, object), "ts_end": np.arange(n) * 60_000, "open": close, "high": close,
        "low": close, "close": close, "volume_lots": np.ones(n), "amount_cny": np.full(n, nan),
        "suspended": np.zeros(n, bool),
    }  # fmt: skip
    return BarTable(period="1m", **(filled | columns))


def read(path: Path, period: str) -> BarTable:
    columns = pq.read_table(path)
    names = ("ts_end", "open", "high", "low", "close", "volume_lots", "amount_cny", "suspended")
    symbol = columns["symbol"].to_numpy()
    return BarTable(period=period, symbol=symbol, **{name: columns[name].to_numpy() for name in names})


def run(text: str, bars: BarTable) -> EvaluatedBars:
    return evaluate(parse(text), bars)


def test_interleaved_symbols_each_see_their_own_bars_in_order_of_time() -> None:
    bars = table(["B", "A", "A", "B", "A"], [1.0, 10.0, 30.0, 3.0, 20.0], ts_end=np.array([1, 1, 3, 2, 2]))
    result = run("prev:REF(C,1); Ma2:MA(C,2); C>prev", bars)
    np.testing.assert_array_equal(result.outputs["prev"], [nan, nan, 20.0, 1.0, 10.0])
    np.testing.assert_array_equal(result.outputs["Ma2"], [nan, nan, 25.0, 2.0, 15.0])
    np.testing.assert_array_equal(result.condition, [nan, nan, 1.0, 1.0, 1.0])
    assert list(result.outputs) == ["prev", "Ma2"]


def test_a_suspended_bar_is_no_bar() -> None:
    closes = [10.0, 11.0, 99.0, 12.0]
    result = run("X:REF(C,1); X>0", table(["A"] * 4, closes, suspended=np.array([False, False, True, False])))
    np.testing.assert_array_equal(result.outputs["X"], [nan, 10.0, nan, 11.0])
    np.testing.assert_array_equal(result.condition, [nan, 1.0, nan, 1.0])


def test_price_zero_is_unknown_and_never_below() -> None:
    result = run("O<5", table(["A"] * 2, [10.0, 10.0], open=np.array([0.0, 4.0])))
    np.testing.assert_array_equal(result.condition, [nan, 1.0])


def test_words_that_bars_do_not_give_are_unknown_and_last_is_the_close() -> None:
    result = run("L1:LAST; B:BIDP1; S:SEALUP; L1>0", table(["A"], [10.0]))
    assert result.outputs["L1"][0] == 10.0
    assert np.isnan(result.outputs["B"][0])
    assert np.isnan(result.outputs["S"][0])


def test_a_truth_output_is_one_or_zero() -> None:
    result = run("UP:C>REF(C,1); UP", table(["A"] * 3, [1.0, 2.0, 1.0]))
    np.testing.assert_array_equal(result.outputs["UP"], [nan, 1.0, 0.0])


def test_an_empty_table_gives_empty_columns() -> None:
    result = run("X:C; X>1", table([], []))
    assert result.condition.size == result.outputs["X"].size == 0


def test_two_bars_with_one_end_are_refused() -> None:
    with pytest.raises(RuleError, match="rows 0 and 2 are one symbol's bars with one ts_end"):
        run("C>1", table(["A", "B", "A"], [1.0, 1.0, 1.0], ts_end=np.array([5, 5, 5])))


def test_period_tick_is_refused() -> None:
    with pytest.raises(RuleError, match="period tick"):
        run(
            "C>1",
            BarTable(period="tick", **{k: getattr(table([], []), k) for k in BarTable.__slots__ if k != "period"}),
        )


def test_the_order_of_rows_changes_no_bit() -> None:
    bars = walk(6, 80, seed=7)
    symbols, ts = [f"S{i % 6}" for i in range(480)], np.repeat(np.arange(80), 6)
    text = "D:EMA(C,12)-EMA(C,26); S:STD(C,20); CROSS(D,EMA(D,9))"
    order = np.random.default_rng(7).permutation(480)
    flat = bars["C"].ravel()
    straight = run(text, table(symbols, flat.tolist(), ts_end=ts))
    shuffled = run(text, table([symbols[i] for i in order], flat[order].tolist(), ts_end=ts[order]))
    np.testing.assert_array_equal(straight.condition[order], shuffled.condition)
    np.testing.assert_array_equal(straight.outputs["S"][order], shuffled.outputs["S"])


def test_longer_periods_are_made_from_the_bars_given(market_data: Path) -> None:
    bars = read(market_data / "bars" / "1m-000001-201801.parquet", "1m")
    text = "D:CLOSE#DAY; H1:HIGH#MIN60; V5:VOL#MIN5; M:ON(DAY,MA(C,3)); W:ON(WEEK,REF(C,1)); O1:OPEN#DAY; D>0"
    result = run(text, bars)
    frame = pd.DataFrame({"c": bars.close, "h": bars.high, "o": bars.open, "v": bars.volume_lots})
    frame.index = pd.to_datetime(bars.ts_end, unit="ms", utc=True).tz_convert("Asia/Shanghai")
    day = frame.groupby(frame.index.date)
    minute = day.cumcount()
    closes = day.c.last()
    two_before = pd.Series(frame.index.date, frame.index).map(closes.shift(1) + closes.shift(2))
    week = frame.c.groupby(frame.index.isocalendar().week.to_numpy())
    np.testing.assert_array_equal(result.outputs["D"], frame.c)
    np.testing.assert_array_equal(result.outputs["O1"], day.o.transform("first"))
    np.testing.assert_array_equal(result.outputs["H1"], frame.h.groupby([frame.index.date, minute // 60]).cummax())
    five = frame.v.groupby([frame.index.date, minute // 5]).cumsum()
    np.testing.assert_allclose(result.outputs["V5"], five, rtol=1e-12)
    np.testing.assert_allclose(result.outputs["M"], (two_before + frame.c) / 3, rtol=1e-12)
    last_week = frame.index.isocalendar().week.map(week.last().shift(1))
    np.testing.assert_array_equal(result.outputs["W"], last_week)


@pytest.mark.parametrize("text", ["RISE(180)>3", "VRATIO(5)>2", '"SH000001$CLOSE">1', "DYNAINFO(17)>1"])
def test_what_bars_of_one_period_cannot_tell_is_refused(text: str) -> None:
    bars = table(["A"], [10.0])
    with pytest.raises(RuleError, match="run a replay"):
        run(text, BarTable(period="5m", **{k: getattr(bars, k) for k in BarTable.__slots__ if k != "period"}))


WHOLE_MARKET = """
DIF:EMA(CLOSE,12)-EMA(CLOSE,26); DEA:EMA(DIF,9); M20:MA(C,20); UP:M20+2*STD(C,20);
RSV:=(C-LLV(L,9))/(HHV(H,9)-LLV(L,9))*100; K:SMA(RSV,3,1); MEAN:EXPMEMA(C,12); SINCE:BARSLAST(C>UP);
CROSS(DIF,DEA) AND C>M20
"""


def test_the_whole_market_equals_loops_and_talib_symbol_by_symbol(market_data: Path) -> None:
    bars = read(market_data / "bars" / "5m-201708.parquet", "5m")
    result = run(WHOLE_MARKET, bars)
    assert np.nansum(result.condition) > 1000
    codes = np.unique(bars.symbol, return_inverse=True)[1]
    for code in range(0, codes.max() + 1, 97):
        rows = np.flatnonzero(codes == code)
        _compare_one(bars, result, rows[np.argsort(bars.ts_end[rows])])


def _compare_one(bars: BarTable, result: EvaluatedBars, rows: np.ndarray) -> None:
    close, high, low = (np.where(column[rows] > 0, column[rows], nan) for column in (bars.close, bars.high, bars.low))
    expected = {
        "M20": oracles.windowed(lambda row: sum(row) / len(row))(close, 20),
        "MEAN": talib.EMA(close, 12),
        "DIF": oracles.ORACLES["EMA"].loop(close, 12) - oracles.ORACLES["EMA"].loop(close, 26),
    }
    expected["DEA"] = oracles.ORACLES["EMA"].loop(expected["DIF"], 9)
    expected["UP"] = expected["M20"] + 2 * oracles.ORACLES["STD"].loop(close, 20)
    lowest, highest = oracles.ORACLES["LLV"].loop(low, 9), oracles.ORACLES["HHV"].loop(high, 9)
    with np.errstate(invalid="ignore"):
        expected["K"] = oracles.smoothed((close - lowest) / (highest - lowest) * 100, np.full(close.size, 1 / 3))
    above_up = np.array([oracles.above(a, b) for a, b in zip(close, expected["UP"], strict=True)])
    expected["SINCE"] = oracles.bars_last(above_up)
    for name, values in expected.items():
        np.testing.assert_allclose(result.outputs[name][rows], values, rtol=1e-9, atol=1e-9, err_msg=name)
    above_mean = np.array([oracles.above(a, b) for a, b in zip(close, expected["M20"], strict=True)])
    both = [
        oracles.truth_and(*pair)
        for pair in zip(oracles.cross(expected["DIF"], expected["DEA"]), above_mean, strict=True)
    ]
    np.testing.assert_array_equal(result.condition[rows], both)
