"""A formula over a table of bars, bar by bar through the same graph the engine runs.

The k-th bars of all symbols are one step: what a symbol's node holds never depends on which other symbols are
committed with it, and steps in which all symbols have equally many bars are the graph's fast path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.bars import DAY_MS, bar_end_ms
from rules.errors import RuleError
from rules.graph import BAR_FIELDS, Graph
from rules.language.tree import Formula
from rules.language.words import PERIODS, is_upward
from rules.node import Node, Truth
from rules.state import Column, StateTable

PRICES: Final = ("C", "O", "H", "L")
SHANGHAI_MS: Final = 8 * 3_600_000
"""How far Shanghai is ahead of UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BarTable:
    """n bars of one period, of any number of symbols, in any order; one symbol's `ts_end` are distinct.

    symbol (n,) text; ts_end (n,) int64 ms UTC, the bar's end; prices (n,) float64 yuan, 0 or NaN = unknown; volume_lots
    and amount_cny (n,) float64, NaN = unknown; suspended (n,) bool, True = no bar: it yields NaN and leaves no trace.
    """

    period: str
    symbol: NDArray[Any]
    ts_end: IntArray
    open: FloatArray
    high: FloatArray
    low: FloatArray
    close: FloatArray
    volume_lots: FloatArray
    amount_cny: FloatArray
    suspended: BoolArray


@dataclass(frozen=True, slots=True)
class EvaluatedBars:
    """One row for each row of the table, in its order.

    condition (n,) float64: 1 true, 0 false, NaN unknown; outputs: each named output as written, (n,) float64, NaN =
    unknown, a truth as 1 or 0.
    """

    symbol: NDArray[Any]
    ts_end: IntArray
    condition: FloatArray
    outputs: Mapping[str, FloatArray]


class TableSource:
    """The forming bars of a table as columns; of the now words it gives LAST, which is C; the rest are NaN.

    Bars of longer periods are made from the table's own.
    """

    def __init__(self, state: StateTable, period: str) -> None:
        self._state = state
        self._period = period
        self._columns: dict[tuple[str, str], Column] = {}

    @property
    def longer(self) -> tuple[str, ...]:
        """Return the longer periods asked for, shortest first."""
        asked = {period for period, _ in self._columns}
        return tuple(period for period in PERIODS.values() if period in asked and period != self._period)

    def column(self, period: str, word: str) -> Column:
        """Return the column of a canonical word (FieldSource)."""
        if period != self._period and not is_upward(period, self._period):
            raise RuleError(f"bars of {self._period} can't tell what happens inside them; run a replay over ticks")
        word = "C" if word == "LAST" else word
        place = (period, word) if word in (*BAR_FIELDS, "END") else (self._period, word)
        if place not in self._columns:
            dtype, fill = (np.int64, 0) if word == "END" else (np.float64, np.nan)
            self._columns[place] = self._state.claim(f"table/{place[0]}/{word}", dtype=dtype, fill=fill)
        return self._columns[place]

    def row(self, symbol: str) -> int | None:
        """Refuse: symbols of a table are evaluated bar by bar, each at its own pace (FieldSource)."""
        raise RuleError(f"{symbol}: a value of another symbol can't be evaluated over a table of bars; run a replay")

    def put(self, at: IntArray, bars: Mapping[str, FloatArray], rows: IntArray, *, ends_ms: IntArray) -> None:
        """Make these rows of the table the forming bars of symbols `at`."""
        for name, column in bars.items():
            self.column(self._period, name).array[at] = column[rows]
        self.column(self._period, "END").array[at] = ends_ms

    def behind(self, period: str, at: IntArray, *, ends_ms: IntArray) -> IntArray:
        """Return which of these symbols hold a longer bar that ends before the one of their new bar."""
        held = self.column(period, "END").array[at]
        return at[(held > 0) & (held < ends_ms)]

    def join(self, period: str, at: IntArray, *, ends_ms: IntArray) -> None:
        """Let the forming bars of symbols `at` widen their bars of a longer period, or begin them."""
        now = {name: self.column(self._period, name).array[at] for name in BAR_FIELDS}
        end = self.column(period, "END")
        fresh = end.array[at] != ends_ms
        joins: dict[str, Callable[[FloatArray, FloatArray], Any]] = {
            "O": _first,
            "H": np.fmax,
            "L": np.fmin,
            "C": _second,
            "V": np.add,
            "AMO": np.add,
        }
        for name, join in joins.items():
            column = self.column(period, name).array
            column[at] = np.where(fresh, now[name], join(column[at], now[name]))
        end.array[at] = ends_ms


def evaluate(formula: Formula, bars: BarTable) -> EvaluatedBars:
    """Evaluate a formula incrementally over all bars; each value is that at the bar's close.

    Longer periods are made from the bars given, and seen with their forming bar. Raises RuleError if the formula can't
    be compiled, asks for what bars can't tell, or a symbol has two bars of one end.
    """
    if bars.period == "tick":
        raise RuleError("bars can't be evaluated on period tick")
    names, codes = np.unique(bars.symbol, return_inverse=True)
    state = StateTable(names.size)
    source = TableSource(state, bars.period)
    graph = Graph(state, source)
    condition, outputs = graph.add_formula(formula, period=bars.period)
    wanted = {"": condition, **outputs}
    results = {name: np.full(bars.ts_end.size, np.nan) for name in wanted}
    columns = _columns(bars)
    ends_ms = {period: _ends(bars.ts_end, period) for period in source.longer}
    for rows in _steps(codes, bars.ts_end, np.flatnonzero(~bars.suspended)):
        at = codes[rows]
        for period, ends in ends_ms.items():
            graph.commit(period, source.behind(period, at, ends_ms=ends[rows]))
        source.put(at, columns, rows, ends_ms=bars.ts_end[rows])
        for period, ends in ends_ms.items():
            source.join(period, at, ends_ms=ends[rows])
        graph.commit(bars.period, at)
        for name, node in wanted.items():
            results[name][rows] = as_floats(node)
    return EvaluatedBars(bars.symbol, bars.ts_end, results.pop(""), results)


def _first(a: FloatArray, b: FloatArray) -> FloatArray:
    return a


def _second(a: FloatArray, b: FloatArray) -> FloatArray:
    return b


def _ends(ts_end: IntArray, period: str) -> IntArray:
    """Return the end of the bar of a longer period that each bar belongs to."""
    ends = np.zeros(ts_end.size, np.int64)
    days, day = np.unique((ts_end + SHANGHAI_MS) // DAY_MS, return_inverse=True)
    for number in range(days.size):
        rows = np.flatnonzero(day == number)
        ends[rows] = bar_end_ms(ts_end[rows], period)
    return ends


def as_floats(node: Node) -> FloatArray:
    """Return a node's value as numbers: of a truth 1, 0 or NaN; not to be written to."""
    value = node.value
    if not isinstance(value, Truth):
        return value
    return np.where(value.t, 1.0, np.where(value.f, 0.0, np.nan))


def _columns(bars: BarTable) -> dict[str, FloatArray]:
    raw = (bars.close, bars.open, bars.high, bars.low, bars.volume_lots, bars.amount_cny)
    columns = {name: np.asarray(column, np.float64) for name, column in zip(BAR_FIELDS, raw, strict=True)}
    for name in PRICES:
        columns[name] = np.where(columns[name] > 0, columns[name], np.nan)
    return columns


def _steps(codes: IntArray, ts_end: IntArray, rows: IntArray) -> list[IntArray]:
    """Return the table's rows of every symbol's first bar, of every second one, and so on, by symbol in each."""
    order = rows[np.lexsort((ts_end[rows], codes[rows]))]
    code, ts = codes[order], ts_end[order]
    twice = np.flatnonzero((code[1:] == code[:-1]) & (ts[1:] == ts[:-1]))
    if twice.size:
        raise RuleError(f"rows {order[twice[0]]} and {order[twice[0] + 1]} are one symbol's bars with one ts_end")
    starts = np.flatnonzero(np.r_[True, code[1:] != code[:-1]]) if order.size else np.empty(0, np.int64)
    number = np.arange(order.size) - np.repeat(starts, np.diff(np.r_[starts, order.size]))
    by_number = np.argsort(number, kind="stable")
    return np.split(order[by_number], np.cumsum(np.bincount(number))[:-1]) if order.size else []
