"""Every function and standard formula over real bars of the whole market, against those who compute it otherwise.

Forming bars are peeked at between the commits, at random; some of those values are computed from scratch too. On daily
bars a stock that was not traded has no bar of that day: its bars before and after it are neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rules.catalog import standard_formulas
from rules.evaluate import as_floats
from rules.functions.function import Clock, Function
from rules.functions.registry import FUNCTIONS
from rules.graph import Graph
from rules.language.parser import parse
from rules.language.tree import Expr
from rules.node import Node
from rules.state import StateTable
from tests.rules.catalog.test_standard import NAMES, REFERENCES, Reference
from tests.rules.functions.oracles import ORACLES
from tests.rules.functions.test_registry import APART, CONSTANTS, PERIODS, call_of, constants_of
from tests.rules.w1 import Columns
from tests.rules.whole_market import (
    DAILY_SHARES,
    DAILY_STOCKS,
    DAYS,
    STOCKS,
    WORST,
    Bars,
    error_of,
    read_bars,
    read_daily,
    share,
)

PEEKED, DAILY_PEEKED = 0.1, 0.5
"""Share of the bars before which a forming value is looked at."""
BY_SCRATCH = 3
"""Forming values per stock that are computed from scratch, of this many stocks."""
FUNCTION = sorted(FUNCTIONS.keys() - APART)
OF_BARS = sorted(name for name, function in FUNCTIONS.items() if function.clock is Clock.BARS)
SHORTER: dict[str, dict[str, int]] = {
    "ARBR": {"M1": 5}, "ASI": {"M1": 5, "M2": 3}, "BBI": {"M1": 2, "M2": 3, "M3": 4, "M4": 6}, "BOLL": {"M": 5},
    "CR": {"N": 4, "M1": 2, "M2": 3, "M3": 4, "M4": 5}, "DMA": {"N1": 3, "N2": 7, "M": 3}, "EMV": {"N": 3, "M": 3},
    "ENE": {"N": 5, "M1": 6, "M2": 6}, "MASS": {"N1": 3, "N2": 4, "M": 2}, "OBV": {"M": 5}, "VR": {"N": 5, "M": 3},
}  # fmt: skip
"""Parameters with which a formula says something within 15 days that has more to say than it does by default."""


@pytest.fixture(scope="module")
def bars(market_data: Path) -> Bars:
    found = read_bars(market_data)
    assert found.there.shape[1] == STOCKS
    return found


@pytest.fixture(scope="module")
def daily(market_data: Path) -> Bars:
    found = read_daily(market_data)
    assert found.there.shape == (DAYS, DAILY_STOCKS)
    return found


class Line:
    """Some expressions over bars of some stocks, committed one after the other and peeked at in between."""

    def __init__(
        self, exprs: list[Expr], rows: dict[str, np.ndarray], there: np.ndarray, *, period: str, peeked: float = PEEKED
    ) -> None:
        self.rows, self.there, self.period, self.peeked = rows, there, period, peeked
        self.state = StateTable(there.shape[1])
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
        values = [np.full(self.there.shape, np.nan) for _ in self.nodes]
        for i, there in enumerate(self.there):
            at = np.flatnonzero(there)
            if rng.random() < self.peeked and at.size > 0.9 * there.size:
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
        closed = self.rows[word][:i, stock][self.there[:i, stock]]
        return np.append(closed, self.forming(word, i, factor)[stock])

    def closed(self, word: str, stock: int) -> np.ndarray:
        """Return a word's values on all bars of one stock."""
        return self.rows[word][self.there[:, stock], stock]

    def looks(self, start: int) -> Iterator[tuple[int, float, list[np.ndarray], int]]:
        """Yield the forming values to compute from scratch: those of some stocks in the last looks."""
        for i, factor, peeked in self.peeks[-BY_SCRATCH:]:
            n = self.there.shape[1]
            for stock in range(start % max(1, n // BY_SCRATCH), n, max(1, n // BY_SCRATCH)):
                if self.there[i, stock]:
                    yield i, factor, peeked, stock


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


def compare_function(
    name: str, constants: Sequence[tuple[float, ...]], bars: Bars, *, period: str, place: int, peeked: float = PEEKED
) -> float:
    """Return the largest error of a function, with each stock's own choice of constants, against its loop oracle."""
    calls = [call_of(FUNCTIONS[name], chosen) for chosen in constants]
    words = calls[0][1]
    rows = {word: column for word, column in words_of(name, bars).items() if word in words}
    line = Line([expr for expr, _ in calls], rows, bars.there, period=period, peeked=peeked)
    values = line.run(seed=place)
    oracle, worst = ORACLES[name].loop, 0.0
    for stock in range(bars.there.shape[1]):
        k = stock % len(constants)
        theirs = oracle(*(line.closed(word, stock) for word in words), *constants[k])
        worst = max(worst, error_of(values[k][bars.there[:, stock], stock], theirs))
    for i, factor, looked, stock in line.looks(place):
        k = stock % len(constants)
        theirs = oracle(*(line.scratch(word, stock, i, factor) for word in words), *constants[k])
        worst = max(worst, error_of(looked[k][stock : stock + 1], theirs[-1:]))
    return worst


def compare_formula(
    name: str, given: Mapping[str, int], bars: Bars, *, period: str, place: int, peeked: float = PEEKED
) -> tuple[float, int]:
    """Return the largest error of a standard formula's outputs against independent code, and the values compared."""
    outputs, rows = standard_formulas()[name].outputs, dict(bars.fields)
    written = f"({','.join(map(str, given.values()))})" if given else ""
    exprs = [parse(f'"{name}.{output}"{written}').statements[0].expr for output in outputs]
    line = Line(exprs, rows, bars.there, period=period, peeked=peeked)
    values = line.run(seed=place)
    constants, worst, known = {key.lower(): value for key, value in given.items()}, 0.0, 0

    def compare(mine: Sequence[np.ndarray], series: dict[str, np.ndarray], at: slice) -> tuple[float, int]:
        with np.errstate(all="ignore"):
            theirs = REFERENCES[name](Reference(series), **constants)
        columns = [np.asarray(theirs[output], float) for output in outputs]
        scales = [max(1.0, float(np.nanmax(np.abs(column), initial=0.0))) for column in columns]
        pairs = zip(mine, columns, scales, strict=True)
        errors = [error_of(one, column[at], scale=scale) for one, column, scale in pairs]
        return max(errors), sum(int(np.count_nonzero(~np.isnan(column[at]))) for column in columns)

    for stock, there in enumerate(bars.there.T):
        series = {word: line.closed(word, stock) for word in rows}
        error, count = compare([column[there, stock] for column in values], series, slice(None))
        worst, known = max(worst, error), known + count
    for i, factor, looked, stock in line.looks(place):
        series = {word: line.scratch(word, stock, i, factor) for word in rows}
        error, count = compare([column[stock : stock + 1] for column in looked], series, slice(-1, None))
        worst, known = max(worst, error), known + count
    return worst, known


@pytest.fixture
def told(record_property: Callable[..., None]) -> Callable[..., None]:
    """Report what was compared."""

    def tell(name: str, stocks: int, worst: float) -> None:
        record_property("stocks", stocks)
        record_property("largest_relative_error", worst)
        print(f"{name}: {stocks} stocks, largest relative error {worst:.1e}")
        assert worst <= WORST

    return tell


@pytest.mark.parametrize("name", FUNCTION)
def test_a_function_over_the_whole_market(name: str, bars: Bars, told: Callable[..., None]) -> None:
    function, place = FUNCTIONS[name], FUNCTION.index(name)
    stocks = share(place, len(FUNCTION))
    period = PERIODS[function.clock]
    told(name, stocks.size, compare_function(name, constants_of(function), bars.of(stocks), period=period, place=place))


@pytest.mark.parametrize("name", NAMES)
def test_a_standard_formula_over_the_whole_market(name: str, bars: Bars, told: Callable[..., None]) -> None:
    place = NAMES.index(name)
    stocks = share(place, len(NAMES))
    worst, known = compare_formula(name, {}, bars.of(stocks), period="5m", place=place)
    assert known
    told(name, stocks.size, worst)


@pytest.mark.parametrize("name", OF_BARS)
def test_a_function_over_fifteen_days_of_the_whole_market(name: str, daily: Bars, told: Callable[..., None]) -> None:
    place = OF_BARS.index(name)
    stocks = share(place, DAILY_SHARES, stocks=DAILY_STOCKS)
    choices = [*constants_of(FUNCTIONS[name]), *daily_windows(FUNCTIONS[name])]
    worst = compare_function(name, choices, daily.of(stocks), period="1d", place=place, peeked=DAILY_PEEKED)
    told(name, stocks.size, worst)


def daily_windows(function: Function) -> list[tuple[float, ...]]:
    """Return windows that are full on the last days, or never, beside those that every period has."""
    windows = [param for param in function.params if param.is_constant]
    return [(n,) for n in (10, 14, 15, 16)] if len(windows) == 1 and function.name not in CONSTANTS else []


@pytest.mark.parametrize(("name", "given"), [*((name, {}) for name in NAMES), *SHORTER.items()])
def test_a_standard_formula_over_fifteen_days_of_the_whole_market(
    name: str, given: dict[str, int], daily: Bars, told: Callable[..., None]
) -> None:
    place = NAMES.index(name)
    stocks = share(place, DAILY_SHARES, stocks=DAILY_STOCKS)
    worst, known = compare_formula(name, given, daily.of(stocks), period="1d", place=place, peeked=DAILY_PEEKED)
    assert known or (not given and name in SHORTER)
    told(name, stocks.size, worst)


def test_previous_closes_go_over_the_days_a_stock_was_not_traded(daily: Bars) -> None:
    """By pandas: the change since the last bar there is, whatever lies between, and how many days that is."""
    holes = np.flatnonzero(~daily.there.all(axis=0))
    assert holes.size == 35
    mine_of = daily.of(holes)
    exprs = [parse(text).statements[0].expr for text in ("(C/REF(C,1)-1)*100", "C-REF(C,1)", "BARSCOUNT(C)")]
    line = Line(exprs, {"C": mine_of.fields["C"]}, mine_of.there, period="1d", peeked=DAILY_PEEKED)
    change, moved, bars_so_far = line.run(seed=0)
    closes = pd.DataFrame(mine_of.fields["C"])
    before = closes.ffill().shift(1).where(closes.notna())
    assert error_of(change, ((closes / before - 1) * 100).to_numpy()) <= WORST
    assert error_of(moved, (closes - before).to_numpy()) <= WORST
    assert error_of(bars_so_far, closes.notna().cumsum().where(closes.notna()).to_numpy(float)) == 0


def test_the_volume_ratio_over_the_whole_market(bars: Bars, told: Callable[..., None]) -> None:
    """By pandas: the day's volume so far over its mean at that minute on the last three days with bars."""
    mine_of = bars.of(share(0, len(FUNCTION)))
    day = np.where(mine_of.ends_ms > 0, (mine_of.ends_ms + 8 * 3_600_000) // 86_400_000, -1)
    so_far, usual = np.full(day.shape, np.nan), np.full(day.shape, np.nan)
    for stock, there in enumerate(mine_of.there.T):
        length = int(np.count_nonzero(there))
        ends_ms = mine_of.ends_ms[:length, stock]
        table = pd.DataFrame({"day": day[:length, stock], "minute": ends_ms % 86_400_000})
        table["so_far"] = pd.Series(mine_of.fields["V"][:length, stock]).groupby(table["day"]).cumsum()
        whole = table.pivot(index="day", columns="minute", values="so_far").ffill(axis=1)
        mean = whole.shift(1).rolling(3).mean()
        so_far[:length, stock] = table["so_far"]
        usual[:length, stock] = [mean.at[row.day, row.minute] for row in table.itertuples()]
    line = Line([parse("VRATIO(3)").statements[0].expr], {"VOLDAY": so_far}, mine_of.there, period="1m")
    line.ends_ms = mine_of.ends_ms
    with np.errstate(all="ignore"):
        worst = error_of(line.run(seed=0)[0], np.where(usual > 0, so_far / usual, np.nan))
    told("VRATIO", mine_of.there.shape[1], worst)


def test_all_stocks_are_compared_with_something() -> None:
    for tests in (len(FUNCTION), len(NAMES)):
        assert set(range(STOCKS)) == {int(stock) for place in range(tests) for stock in share(place, tests)}
    daily = {int(stock) for place in range(DAILY_SHARES) for stock in share(place, DAILY_SHARES, stocks=DAILY_STOCKS)}
    assert daily == set(range(DAILY_STOCKS))
    assert min(len(OF_BARS), len(NAMES)) >= DAILY_SHARES
