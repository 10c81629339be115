"""Moving averages: over a window, and recursive ones that carry one value from bar to bar."""

from __future__ import annotations

from math import ceil
from typing import Final

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.functions import columns
from rules.functions.function import (
    Args,
    Builder,
    Constants,
    Function,
    Param,
    ParamKind,
    Value,
    call_key,
    varying_key,
    window,
)
from rules.functions.values import Constant, NumberNode, holes
from rules.functions.windows import Weighted, build_window, folded, mean
from rules.language.tree import Kind
from rules.node import Selection, Step
from rules.state import StateTable

_LN_1E9: Final = 20.8


class Smoothed(NumberNode):
    """y = weight·x + (1 − weight)·y′, first y = first x; NaN in x holds y.

    State: y of the last closed bar, and its part of the next, so that a pass is two operations.
    """

    __slots__ = ("_rest", "_weight", "_x", "_y")

    def __init__(self, key: str, x: NumberNode, weight: float) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup)
        self._x = x
        self._weight = weight

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._y = self.claim("y")
        self._rest = self.claim("rest")

    def recipe(self) -> Step:
        return Step("smooth", (self._x, self._rest, self._y), self._weight)

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        columns.smooth(self._weight, self._x.value, self._rest.array[at], self._y.array[at], out)
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._y.array[at] = self.value
        self._rest.array[at] = self.value * (1.0 - self._weight)


class DynamicAverage(NumberNode):
    """DMA: as `Smoothed` with a weight of its own on every bar; NaN in x or the weight holds y."""

    __slots__ = ("_weight", "_x", "_y")

    def __init__(self, key: str, x: NumberNode, weight: NumberNode) -> None:
        super().__init__(key, period=x.period, args=(x, weight), warmup=max(x.warmup, weight.warmup))
        self._x = x
        self._weight = weight

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._y = self.claim("y")

    def peek(self, at: Selection) -> None:
        x, weight, y, out = self._x.value, self._weight.value, self._y.array[at], self.room(at)
        np.subtract(x, y, out)
        np.multiply(out, weight, out)
        np.add(out, y, out)
        hole = holes(out)
        if hole is not None:
            held, fresh = y[hole], np.where(np.isnan(weight[hole]), np.nan, x[hole])
            out[hole] = np.where(np.isnan(held), fresh, held)
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._y.array[at] = self.value


class SeededAverage(NumberNode):
    """EXPMEMA: an EMA that starts as the mean of the first N valid values; NaN in x holds it.

    State: y; and, until there are N values, their sum and number.
    """

    __slots__ = ("_n", "_seen", "_sum", "_x", "_y")

    def __init__(self, key: str, x: NumberNode, n: int) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + n - 1)
        self._x = x
        self._n = n

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._y = self.claim("y", np.nan)
        self._sum = self.claim("sum", 0.0)
        self._seen = self.claim("seen", 0.0)

    def peek(self, at: Selection) -> None:
        x, y, out = self._x.value, self._y.array[at], self.room(at)
        np.subtract(x, y, out)
        np.multiply(out, 2.0 / (self._n + 1), out)
        np.add(out, y, out)
        hole = holes(out)
        if hole is not None:
            out[hole] = self._held_or_seeded(at, x, y, hole)
        self.value = out

    def _held_or_seeded(self, at: Selection, x: FloatArray, y: FloatArray, hole: IntArray) -> FloatArray:
        seeds = self._seen.array[at][hole] == self._n - 1
        mean = (self._sum.array[at][hole] + x[hole]) / self._n
        return np.where(np.isnan(y[hole]) & seeds, mean, y[hole])

    def commit(self, at: IntArray) -> None:
        self._y.array[at] = self.value
        seed = ~np.isnan(self._x.value) & (self._seen.array[at] < self._n)
        self._sum.array[at[seed]] += self._x.value[seed]
        self._seen.array[at[seed]] += 1.0


def smoothed(builder: Builder, x: Value, weight: float) -> Value:
    """Return the node of a recursive average; equal weights are one node, whatever function they came by."""
    number = builder.number(x)
    key = call_key("DMA", (number,), (weight,))
    return builder.share(Smoothed(key, number, weight))


def _build_ma(builder: Builder, args: Args, constants: Constants) -> Value:
    return mean(builder, args[0], int(constants[0]))


def _vary_ma(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    number = builder.number(args[0])
    return folded(builder, varying_key("MA", (number,), n, cap), number, n, cap=cap, join=np.add, divides=True)


def _build_wma(builder: Builder, args: Args, constants: Constants) -> Value:
    return build_window(builder, "WMA", Weighted, args[0], int(constants[0]))


def _build_ema(builder: Builder, args: Args, constants: Constants) -> Value:
    return smoothed(builder, args[0], 2.0 / (constants[0] + 1.0))


def _build_sma(builder: Builder, args: Args, constants: Constants) -> Value:
    n, m = constants
    return smoothed(builder, args[0], m / n)


def _sma_fault(constants: Constants) -> str | None:
    n, m = constants
    return None if 0 < m <= n else f"M must be above 0 and at most N = {n:g}, not {m:g}"


def _build_dma(builder: Builder, args: Args, constants: Constants) -> Value:
    x, weight = builder.number(args[0]), builder.number(args[1])
    if isinstance(weight, Constant):
        return smoothed(builder, x, weight.number)
    return builder.share(DynamicAverage(call_key("DMA", (x, weight)), x, weight))


def _build_seeded(builder: Builder, args: Args, constants: Constants) -> Value:
    number = builder.number(args[0])
    return builder.share(SeededAverage(call_key("EXPMEMA", (number,), constants), number, int(constants[0])))


def forgetting(weight: float) -> int:
    """Return the bars until what was before weighs less than 1e-9, by its bound ln(1e9)/weight: 10.4·(N+1) of EMA."""
    return 1 if weight >= 1 else ceil(_LN_1E9 / weight)


def _n_bars(constants: Constants) -> int:
    return int(constants[0])


AVERAGES: Final = (
    Function(
        name="MA", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_ma, vary=_vary_ma,
        oracle="MyTT", first=_n_bars, meaning="mean of the last N bars",
    ),
    Function(
        name="EMA", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_ema, oracle="MyTT",
        history=lambda constants: forgetting(2 / (constants[0] + 1)),
        meaning="exponential average with weight 2/(N+1), started by the first value",
    ),
    Function(
        name="SMA", params=(Param("X"), window(), Param("M", ParamKind.CONSTANT, 0)), result=Kind.NUMBER,
        build=_build_sma, fault=_sma_fault, oracle="MyTT",
        history=lambda constants: forgetting(constants[1] / constants[0]),
        meaning="exponential average with weight M/N, started by the first value",
    ),
    Function(
        name="EXPMEMA", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_seeded, oracle="TA-Lib",
        first=_n_bars, history=lambda constants: int(constants[0]) + forgetting(2 / (constants[0] + 1)),
        meaning="exponential average with weight 2/(N+1), started by the mean of the first N values",
    ),
    Function(
        name="DMA", params=(Param("X"), Param("A")), result=Kind.NUMBER, build=_build_dma, oracle="MyTT",
        meaning="exponential average with weight A, which may change from bar to bar",
    ),
    Function(
        name="WMA", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_wma, oracle="TA-Lib",
        first=_n_bars, meaning="mean of the last N bars, weighted 1 … N, the newest most",
    ),
)  # fmt: skip
