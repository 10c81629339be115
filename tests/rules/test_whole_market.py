"""Every function and standard formula over real bars of the whole market, against those who compute it otherwise.

Forming bars are peeked at between the commits, at random; some of those values are computed from scratch too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rules.evaluate import as_floats
from rules.functions.registry import FUNCTIONS
from rules.graph import Graph
from rules.language.parser import parse
from rules.language.tree import Expr
from rules.node import Node
from rules.state import StateTable
from tests.rules.catalog.test_standard import NAMES, REFERENCES, Reference
from tests.rules.functions.oracles import ORACLES
from tests.rules.functions.test_registry import APART, PERIODS, call_of, constants_of
from tests.rules.w1 import Columns
from tests.rules.whole_market import STOCKS, WORST, Bars, error_of, read_bars, share

PERIOD = "5m"
PEEKED = 0.1
"""Share of the bars before which a forming value is looked at."""
BY_SCRATCH = 3
"""Forming values per stock that are computed from scratch, of this many stocks."""
FUNCTION = sorted(FUNCTIONS.keys() - APART)


@pytest.fixture(scope="module")
def bars(market_data: Path) -> Bars:
    found = read_bars(market_data)
    assert found.count.size == STOCKS
    return found


class Line:
    """Some expressions over bars of some stocks, committed one after the other and peeked at in between."""

    def __init__(self, exprs: list[Expr], rows: dict[str, np.ndarray], count: np.ndarray, *, period: str) -> None:
        self.rows, self.count, self.period = rows, count, period
        self.state = StateTable(count.size)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=20)
        self.nodes: list[Node] = [self.graph.add(expr, period=period) for expr in exprs]
        self.plan = self.graph.plan(self.nodes)
        self.peeks: list[tuple[int, float, list[np.ndarray]]] = []
        """(bar, what its words were multiplied by, values) of forming bars."""
        self.ends_ms: np.ndarray | None = None
        """When bars end, for what looks at the clock."""

    def run(self, seed: int) -> list[np.ndarray]:
        """Return the closed values, (bars, n) of each expression."""
        rng = np.random.default_rng(seed)
        length = int(self.count.max())
        values = [np.full((length, self.count.size), np.nan) for _ in self.nodes]
        for i in range(length):
            at = np.flatnonzero(self.count > i)
            if rng.random() < PEEKED and at.size == self.count.size:
                self._put(i, factor := float(np.round(1 + rng.normal(0, 0.01), 4)))
                self.plan.peek(slice(None))
                self.peeks.append((i, factor, [as_floats(node).copy() for node in self.nodes]))
            self._put(i, 1.0)
            self.graph.commit(self.period, at)
            for column, node in zip(values, self.nodes, strict=True):
                column[i, at] = as_floats(node)
        return values

    def _put(self, i: int, factor: float) -> None:
        self.source.set(self.period, slice(None), **{word: self.forming(word, i, factor) for word in self.rows})
        if self.ends_ms is not None:
            self.source.set(self.period, slice(None), END=self.ends_ms[i])

    def forming(self, word: str, i: int, factor: float) -> np.ndarray:
        """Return a word's forming values: prices are moved, truths and weights are not."""
        return self.rows[word][i] * (factor if word in ("P", "R", *"COHLV") else 1.0)

    def scratch(self, word: str, stock: int, i: int, factor: float) -> np.ndarray:
        """Return a word's closed values of one stock and the forming one after them."""
        return np.append(self.rows[word][:i, stock], self.forming(word, i, factor)[stock])


def words_of(name: str, bars: Bars) -> dict[str, np.ndarray]:
    """Return what a function's arguments are to be, by word."""
    c, o, h, low = (bars.fields[word] for word in "COHL")
    known = ~np.isnan(c)
    truths = {"SEALUP": c > o, "SEALDOWN": c < o, "VALID": h > c}
    weights = {"DMA": 0.3, "POW": 1.5}
    q = np.where(known, weights[name], np.nan) if name in weights else o
    amount = np.cumsum(np.where(known, h - low, 0.0), axis=0)
    read = {"P": c, "Q": q, "R": h, "C": c, "H": h, "L": low, "LAST": c, "ASKP1": c, "BIDP1": o, "AMTDAY": amount}
    return read | {word: np.where(known, truth, np.nan) for word, truth in truths.items()}


@pytest.mark.parametrize("name", FUNCTION)
def test_a_function_over_the_whole_market(name: str, bars: Bars, record_property: Callable[..., None]) -> None:
    function, place = FUNCTIONS[name], FUNCTION.index(name)
    stocks = share(place, len(FUNCTION))
    mine_of, choices = bars.of(stocks), constants_of(function)
    calls = [call_of(function, constants) for constants in choices]
    words = calls[0][1]
    rows = {word: column for word, column in words_of(name, mine_of).items() if word in words}
    line = Line([expr for expr, _ in calls], rows, mine_of.count, period=PERIODS[function.clock])
    values = line.run(seed=place)
    oracle, worst = ORACLES[name].loop, 0.0
    for stock in range(stocks.size):
        k, length = stock % len(choices), int(mine_of.count[stock])
        theirs = oracle(*(rows[word][:length, stock] for word in words), *choices[k])
        worst = max(worst, error_of(values[k][:length, stock], theirs))
    for i, factor, peeked in line.peeks[-BY_SCRATCH:]:
        for stock in range(0, stocks.size, max(1, stocks.size // BY_SCRATCH)):
            k = stock % len(choices)
            theirs = oracle(*(line.scratch(word, stock, i, factor) for word in words), *choices[k])
            worst = max(worst, error_of(peeked[k][stock : stock + 1], theirs[-1:]))
    record_property("stocks", stocks.size)
    record_property("largest_relative_error", worst)
    print(f"{name}: {stocks.size} stocks, largest relative error {worst:.1e}")
    assert worst <= WORST


@pytest.mark.parametrize("name", NAMES)
def test_a_standard_formula_over_the_whole_market(name: str, bars: Bars, record_property: Callable[..., None]) -> None:
    place = NAMES.index(name)
    stocks = share(place, len(NAMES))
    mine_of = bars.of(stocks)
    rows = dict(mine_of.fields)
    first = REFERENCES[name](Reference({word: column[: mine_of.count[0], 0] for word, column in rows.items()}))
    outputs = list(first)
    exprs = [parse(f'"{name}.{output}"').statements[0].expr for output in outputs]
    line = Line(exprs, rows, mine_of.count, period=PERIOD)
    values = line.run(seed=place)
    worst = 0.0
    for stock in range(stocks.size):
        length = int(mine_of.count[stock])
        with np.errstate(all="ignore"):
            theirs = REFERENCES[name](Reference({word: column[:length, stock] for word, column in rows.items()}))
        for k, output in enumerate(outputs):
            column = np.asarray(theirs[output], float)
            scale = max(1.0, float(np.nanmax(np.abs(column), initial=0.0)))
            worst = max(worst, error_of(values[k][:length, stock], column, scale=scale))
    for i, factor, peeked in line.peeks[-BY_SCRATCH:]:
        for stock in range(0, stocks.size, max(1, stocks.size // BY_SCRATCH)):
            with np.errstate(all="ignore"):
                theirs = REFERENCES[name](Reference({word: line.scratch(word, stock, i, factor) for word in rows}))
            for k, output in enumerate(outputs):
                column = np.asarray(theirs[output], float)
                scale = max(1.0, float(np.nanmax(np.abs(column), initial=0.0)))
                worst = max(worst, error_of(peeked[k][stock : stock + 1], column[-1:], scale=scale))
    record_property("stocks", stocks.size)
    record_property("largest_relative_error", worst)
    print(f"{name}: {stocks.size} stocks, largest relative error {worst:.1e}")
    assert worst <= WORST


def test_the_volume_ratio_over_the_whole_market(bars: Bars, record_property: Callable[..., None]) -> None:
    """By pandas: the day's volume so far over its mean at that minute on the last three days with bars."""
    mine_of = bars.of(share(0, len(FUNCTION)))
    day = np.where(mine_of.ends_ms > 0, (mine_of.ends_ms + 8 * 3_600_000) // 86_400_000, -1)
    so_far, usual = np.full(day.shape, np.nan), np.full(day.shape, np.nan)
    for stock in range(mine_of.count.size):
        length = int(mine_of.count[stock])
        ends_ms = mine_of.ends_ms[:length, stock]
        table = pd.DataFrame({"day": day[:length, stock], "minute": ends_ms % 86_400_000})
        table["so_far"] = pd.Series(mine_of.fields["V"][:length, stock]).groupby(table["day"]).cumsum()
        whole = table.pivot(index="day", columns="minute", values="so_far").ffill(axis=1)
        mean = whole.shift(1).rolling(3).mean()
        so_far[:length, stock] = table["so_far"]
        usual[:length, stock] = [mean.at[row.day, row.minute] for row in table.itertuples()]
    line = Line([parse("VRATIO(3)").statements[0].expr], {"VOLDAY": so_far}, mine_of.count, period="1m")
    line.ends_ms = mine_of.ends_ms
    with np.errstate(all="ignore"):
        worst = error_of(line.run(seed=0)[0], np.where(usual > 0, so_far / usual, np.nan))
    record_property("stocks", mine_of.count.size)
    record_property("largest_relative_error", worst)
    print(f"VRATIO: {mine_of.count.size} stocks, largest relative error {worst:.1e}")
    assert worst <= WORST


def test_all_stocks_are_compared_with_something() -> None:
    for tests in (len(FUNCTION), len(NAMES)):
        assert set(range(STOCKS)) == {int(stock) for place in range(tests) for stock in share(place, tests)}
