"""Lines through N bars and how two series move together: SLOPE, FORCAST, COVAR, RELATE.

A least-squares line over evenly spaced bars is a weighted sum of its values, so the closed N−1 bars are one number.
They are taken as distances from the newest closed value: flat prices then have a slope of exactly 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.functions.function import Args, Builder, Constants, Function, Param, Value, call_key, numbers, window
from rules.functions.spread import deviations
from rules.functions.values import NumberNode
from rules.functions.windows import ordered_sum
from rules.language.tree import Kind
from rules.node import Selection
from rules.rings import Ring
from rules.state import StateTable

Weights = Callable[[int], FloatArray]


class Fitted(NumberNode):
    """Σ weight·x over N bars, for weights of the sum 0 (a slope) or 1 (a point of the line); NaN until N are known.

    State: the newest closed value, and the weighted sum of the closed N−1 values' distances from it.
    """

    __slots__ = ("_base", "_keeps", "_start", "_weights", "_x")

    def __init__(self, key: str, x: NumberNode, weights: FloatArray, ring: Ring) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + weights.size - 1)
        self._x = x
        self._weights = weights
        self._keeps = float(round(weights.sum()))
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._start = self.claim("start")
        self._base = self.claim("base")

    def peek(self, at: Selection) -> None:
        out, start = self.room(at), self._start.array[at]
        np.subtract(self._x.value, start, out=out)
        out *= self._weights[-1]
        out += self._base.array[at]
        if self._keeps:
            out += start
        self.value = out

    def commit(self, at: IntArray) -> None:
        assert self.ring is not None
        start = self.ring.back(at, 0).copy()
        rows = self.ring.rows(at, self._weights.size - 1)
        self._base.array[at] = ordered_sum((row - start) * w for row, w in zip(rows, self._weights[:-1], strict=True))
        self._start.array[at] = start


class Covariance(NumberNode):
    """Population covariance of X and Y over N bars; NaN until N pairs are known.

    State: both means of the closed N−1 and their sum of products of deviations, made in two passes; Welford's step adds
    the forming pair.
    """

    __slots__ = ("_mean_x", "_mean_y", "_n", "_other", "_products", "_x", "_y")

    def __init__(self, key: str, x: NumberNode, y: NumberNode, n: int, *, rings: tuple[Ring, Ring]) -> None:
        super().__init__(key, period=x.period, args=(x, y), warmup=max(x.warmup, y.warmup) + n - 1)
        self._x = x
        self._y = y
        self._n = n
        self.ring, self._other = rings

    def rings(self) -> tuple[Ring, ...]:
        assert self.ring is not None
        return self.ring, self._other

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._mean_x = self.claim("mean_x")
        self._mean_y = self.claim("mean_y")
        self._products = self.claim("products")

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.subtract(self._x.value, self._mean_x.array[at], out=out)
        out *= (self._n - 1) / self._n
        out *= self._y.value - self._mean_y.array[at]
        out += self._products.array[at]
        out /= self._n
        self.value = out

    def commit(self, at: IntArray) -> None:
        assert self.ring is not None
        mean_x, mean_y = _mean(self.ring, at, self._n - 1), _mean(self._other, at, self._n - 1)
        pairs = zip(self.ring.rows(at, self._n - 1), self._other.rows(at, self._n - 1), strict=True)
        self._products.array[at] = ordered_sum((x - mean_x) * (y - mean_y) for x, y in pairs)
        self._mean_x.array[at] = mean_x
        self._mean_y.array[at] = mean_y


class Correlation(NumberNode):
    """Covariance over both deviations; NaN where one of the series is all ties."""

    __slots__ = ("_covariance", "_x", "_y")

    def __init__(self, key: str, covariance: NumberNode, x: NumberNode, y: NumberNode) -> None:
        super().__init__(key, period=x.period, args=(covariance, x, y), warmup=covariance.warmup)
        self._covariance = covariance
        self._x = x
        self._y = y

    def peek(self, at: Selection) -> None:
        out, x, y = self.room(at), self._x.value, self._y.value
        np.divide(self._covariance.value, x, out=out)
        np.divide(out, y, out=out)
        out[(x == 0) | (y == 0)] = np.nan
        self.value = np.clip(out, -1.0, 1.0, out=out)


def _mean(ring: Ring, at: IntArray, length: int) -> FloatArray:
    start = ring.back(at, 0)  # of distances from one of the values, so that flat prices have a mean without error
    return start + ordered_sum(row - start for row in ring.rows(at, length)) / length


def slope_weights(n: int) -> FloatArray:
    """Return the weights of N values, oldest first, that sum to the slope of their line per bar."""
    from_middle = np.arange(n) - (n - 1) / 2
    return np.asarray(from_middle / np.square(from_middle).sum())


def end_weights(n: int) -> FloatArray:
    """Return the weights that sum to the line's value at the last bar."""
    return 1.0 / n + slope_weights(n) * (n - 1) / 2


def _fitted(name: str, weights: Weights, meaning: str) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        number, n = builder.number(args[0]), int(constants[0])
        key = call_key(name, (number,), constants)
        return builder.share(Fitted(key, number, weights(n), builder.ring(number, n - 1)))

    return Function(
        name=name, params=(Param("X"), window(least=2)), result=Kind.NUMBER, build=build, oracle="TA-Lib",
        first=_n_bars, meaning=meaning,
    )  # fmt: skip


def _covariance(builder: Builder, x: NumberNode, y: NumberNode, n: int) -> NumberNode:
    if y.key < x.key:
        x, y = y, x
    rings = builder.ring(x, n - 1), builder.ring(y, n - 1)
    return builder.number(builder.share(Covariance(call_key("COVAR", (x, y), (float(n),)), x, y, n, rings=rings)))


def _build_covar(builder: Builder, args: Args, constants: Constants) -> Value:
    return _covariance(builder, builder.number(args[0]), builder.number(args[1]), int(constants[0]))


def _build_relate(builder: Builder, args: Args, constants: Constants) -> Value:
    x, y, n = builder.number(args[0]), builder.number(args[1]), int(constants[0])
    spreads = (deviations(builder, "STDP", x, n), deviations(builder, "STDP", y, n))
    key = call_key("RELATE", (x, y) if x.key <= y.key else (y, x), constants)
    return builder.share(Correlation(key, _covariance(builder, x, y, n), *spreads))


def _n_bars(constants: Constants) -> int:
    return int(constants[0])


REGRESSION: Final = (
    _fitted("SLOPE", slope_weights, "slope per bar of the least-squares line through the last N bars"),
    _fitted("FORCAST", end_weights, "value at the last bar of the least-squares line through the last N bars"),
    Function(
        name="COVAR", params=(*numbers("X", "Y"), window(least=2)), result=Kind.NUMBER, build=_build_covar,
        oracle="numpy", first=_n_bars, meaning="population covariance of X and Y over the last N bars",
    ),
    Function(
        name="RELATE", params=(*numbers("X", "Y"), window(least=2)), result=Kind.NUMBER, build=_build_relate,
        oracle="TA-Lib", first=_n_bars, meaning="correlation of X and Y over N bars; unknown where one never moves",
    ),
)  # fmt: skip
