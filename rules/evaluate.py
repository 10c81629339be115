"""A formula over a table of bars, bar by bar through the same graph the engine runs.

The k-th bars of all symbols are one step: what a symbol's node holds never depends on which other symbols are
committed with it, and steps in which all symbols have equally many bars are the graph's fast path.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.errors import RuleError
from rules.graph import BAR_FIELDS, Graph
from rules.language.tree import Formula
from rules.node import Node, Truth
from rules.state import Column, StateTable

PRICES: Final = ("C", "O", "H", "L")


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
    """The forming bar of a table as columns; of the now words it gives LAST, which is C; the rest are NaN."""

    def __init__(self, state: StateTable) -> None:
        self._state = state
        self._columns: dict[str, Column] = {}

    def column(self, period: str, word: str) -> Column:
        """Return the column of a canonical word (FieldSource)."""
        name = "C" if word == "LAST" else word
        if name not in self._columns:
            self._columns[name] = self._state.claim(f"table/{name}")
        return self._columns[name]

    def row(self, symbol: str) -> int | None:
        """Refuse: symbols of a table are evaluated bar by bar, each at its own pace (FieldSource)."""
        raise RuleError(f"{symbol}: a value of another symbol can't be evaluated over a table of bars; run a replay")

    def put(self, at: IntArray, bars: Mapping[str, FloatArray], rows: IntArray) -> None:
        """Make these rows of the table the forming bars of symbols `at`."""
        for name, column in bars.items():
            self._columns[name].array[at] = column[rows]


def evaluate(formula: Formula, bars: BarTable) -> EvaluatedBars:
    """Evaluate a formula incrementally over all bars; each value is that at the bar's close.

    Raises RuleError if the formula can't be compiled, or a symbol has two bars of one end.
    """
    if bars.period == "tick":
        raise RuleError("bars can't be evaluated on period tick")
    names, codes = np.unique(bars.symbol, return_inverse=True)
    state = StateTable(names.size)
    source = TableSource(state)
    graph = Graph(state, source)
    condition, outputs = graph.add_formula(formula, period=bars.period)
    wanted = {"": condition, **outputs}
    results = {name: np.full(bars.ts_end.size, np.nan) for name in wanted}
    columns = _columns(bars)
    for rows in _steps(codes, bars.ts_end, np.flatnonzero(~bars.suspended)):
        at = codes[rows]
        source.put(at, columns, rows)
        graph.commit(bars.period, at)
        for name, node in wanted.items():
            results[name][rows] = as_floats(node)
    return EvaluatedBars(bars.symbol, bars.ts_end, results.pop(""), results)


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
