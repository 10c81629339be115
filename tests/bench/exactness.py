"""False crosses on ties, and the distance from TA-Lib where the definitions are the same."""

from __future__ import annotations

import numpy as np
import talib

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.node import ALL, Truth
from tests.bench.kernel import PERIOD, Kernel
from tests.bench.peers import VALUES, History, TaLib, triples
from tests.bench.report import Line, Report
from tests.bench.w1 import make_market
from tests.rules.w1 import MA5, MA10, call

_SETTLED_BARS = 800
"""TA-Lib seeds recursive averages by a mean, TDX by the first value; after so many bars nothing is left of either."""


def run(*, quick: bool) -> Report:
    """Compare values, and count crosses that exact arithmetic in ticks does not know."""
    error = max(relative_errors(40 if quick else 400).values())
    ours, missed, peer, ties = false_crosses(symbols=200 if quick else 5_500, bars=40 if quick else 120)
    lines = [
        Line("largest relative error vs TA-Lib", error, "", most=1e-12),
        Line("false CROSS on ties", ours, "", most=0),
        Line("CROSS missed", missed, "", most=0),
        Line("false CROSS of TA-Lib's averages, compared as floats", peer, ""),
    ]
    return Report("exactness", lines, notes=[f"{ties:,} ties of MA5 and MA10"])


def relative_errors(symbols: int) -> dict[str, float]:
    """Return the largest relative error of each indicator with the forming bar.

    DIF, DEA and MACD are differences of averages near the price, and J is one of K and D near 100: their errors are
    measured on what they are made of.
    """
    market = make_market(symbols, bars=_SETTLED_BARS, seed=3)
    kernel, peer = Kernel(market.history), TaLib(market.history)
    batch = market.next()
    columns = [batch.column(name) for name in ("last", "high", "low")]
    kernel.put(*columns)
    kernel.graph.plan(kernel.indicators.values()).peek(ALL)
    theirs = peer.values(triples(columns))
    made_of = {"DIF": columns[0], "DEA": columns[0], "MACD": columns[0], "J": np.full(symbols, 100.0)}
    errors = {}
    for name in VALUES:
        size = np.maximum(np.abs(theirs[name]), made_of.get(name, np.zeros(symbols)))
        errors[name] = float(np.max(np.abs(kernel.indicators[name].value - theirs[name]) / size))
    return errors


def false_crosses(*, symbols: int, bars: int) -> tuple[int, int, int, int]:
    """Count, over forming and closed bars: our false and missed crosses of MA10 over MA5, TA-Lib's false ones, ties."""
    ticks = _prices(symbols, bars)
    exact, ties = _exact_crosses(ticks)
    ours = _our_crosses(ticks)
    theirs = _float_crosses(ticks)
    return int((ours & ~exact).sum()), int((exact & ~ours).sum()), int((theirs & ~exact).sum()), int(ties.sum())


def _prices(symbols: int, bars: int) -> IntArray:
    """Return (bars, symbols) prices in ticks that stand still or move by one, at all price levels: ties abound."""
    rng = np.random.default_rng(5)
    level = rng.integers(100, 170_000, symbols)
    return np.asarray(level + np.cumsum(rng.choice([-1, 0, 0, 1], (bars, symbols)), axis=0) % 3)


def _exact_crosses(ticks: IntArray) -> tuple[BoolArray, BoolArray]:
    """Return where MA10 crosses MA5 and where they tie, by sums of whole numbers."""
    lead = np.full(ticks.shape, -1)
    tie = np.zeros(ticks.shape, np.bool_)
    for bar in range(9, len(ticks)):
        lead[bar] = ticks[bar - 9 : bar + 1].sum(axis=0) - 2 * ticks[bar - 4 : bar + 1].sum(axis=0)
        tie[bar] = lead[bar] == 0
    crosses = np.zeros(ticks.shape, np.bool_)
    crosses[10:] = (lead[10:] > 0) & (lead[9:-1] <= 0)
    return crosses, tie


def _our_crosses(ticks: IntArray) -> BoolArray:
    empty = np.empty((0, ticks.shape[1]))
    kernel = Kernel(History(empty, empty, empty))
    node = kernel.graph.add(call("CROSS", MA10, MA5), period=PERIOD)
    plan = kernel.graph.plan([node])
    crosses = np.zeros(ticks.shape, np.bool_)
    for bar, row in enumerate(ticks / 100):
        kernel.put(row, row, row)
        plan.peek(ALL)
        assert isinstance(node.value, Truth)
        crosses[bar] = node.value.t
        kernel.graph.commit(PERIOD, np.arange(row.size))
    return crosses


def _float_crosses(ticks: IntArray) -> BoolArray:
    prices: FloatArray = ticks / 100
    lead = np.stack([talib.SMA(one, 10) - talib.SMA(one, 5) for one in np.ascontiguousarray(prices.T)], axis=1)
    crosses = np.zeros(ticks.shape, np.bool_)
    crosses[1:] = (lead[1:] > 0) & (lead[:-1] <= 0)
    return crosses
