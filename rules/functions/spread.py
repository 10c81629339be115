"""Spread about the mean of N bars: STD, VAR, their population forms, DEVSQ and AVEDEV.

Of the closed N−1 bars two numbers are kept: mean m and sum of squared deviations M2, made in two passes over the ring
at the close. The forming x joins by Welford's step: M2 + (x−m)²·(N−1)/N. A running sum of squares would lose
1.8e-3 of STD at a price of 1,700.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from feeds.tick import IntArray
from rules.functions import columns
from rules.functions.columns import TOLERANCE
from rules.functions.function import Args, Builder, Constants, Function, Param, Value, call_key, window
from rules.functions.values import NumberNode
from rules.functions.windows import ordered_sum
from rules.language.tree import Kind
from rules.node import Selection, Step
from rules.rings import Ring
from rules.state import StateTable


class Deviations(NumberNode):
    """Σ(x−mean)² over N bars, over a divisor, or the root of that; exactly 0 for ties, NaN until there are N values.

    State: mean of the closed N−1; their M2 over the divisor; and the value up to which x and they are ties.
    """

    __slots__ = ("_divisor", "_floor", "_join", "_m2", "_mean", "_n", "_weight", "_x")

    def __init__(self, key: str, x: NumberNode, n: int, *, ring: Ring, divisor: int, rooted: bool) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + n - 1)
        self._x = x
        self._n = n
        self._divisor = float(divisor)
        self._weight = (n - 1) / n / divisor
        self._join = columns.rooted_spread if rooted else columns.spread
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._mean = self.claim("mean")
        self._m2 = self.claim("m2")
        self._floor = self.claim("floor")

    def recipe(self) -> Step | None:
        if self._n == 1:
            return None
        return Step(self._join.__name__, (self._x, self._mean, self._m2, self._floor), self._weight)

    def peek(self, at: Selection) -> None:
        out, x = self.room(at), self._x.value
        if self._n == 1:
            np.multiply(x, 0.0, out)
        else:
            self._join(self._weight, x, self._mean.array[at], self._m2.array[at], self._floor.array[at], out)
        self.value = out

    def commit(self, at: IntArray) -> None:
        if self._n == 1:
            return
        assert self.ring is not None
        closed = self._n - 1
        start = self.ring.back(at, 0)  # deviations from one of the values: flat prices have a mean without error
        mean = start + ordered_sum(row - start for row in self.ring.rows(at, closed)) / closed
        self._mean.array[at] = mean
        self._m2.array[at] = ordered_sum(np.square(row - mean) for row in self.ring.rows(at, closed)) / self._divisor
        self._floor.array[at] = np.square(TOLERANCE * np.maximum(1.0, np.abs(mean))) / self._divisor


class MeanDeviation(NumberNode):
    """AVEDEV: mean of |x − mean| over N bars. The forming bar moves the mean, so every pass reads the closed bars."""

    __slots__ = ("_n", "_x")

    def __init__(self, key: str, x: NumberNode, n: int, ring: Ring) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + n - 1)
        self._x = x
        self._n = n
        self.ring = ring

    def peek(self, at: Selection) -> None:
        assert self.ring is not None
        out, x = self.room(at), self._x.value
        total = np.zeros(x.size)
        for row in self.ring.rows(at, self._n - 1):
            total += row - x
        mean = x + total / self._n
        np.abs(x - mean, out)
        for row in self.ring.rows(at, self._n - 1):
            out += np.abs(row - mean)
        out /= self._n
        out[out <= TOLERANCE / self._n * np.maximum(1.0, np.abs(mean))] = 0.0
        self.value = out


def _build_avedev(builder: Builder, args: Args, constants: Constants) -> Value:
    number, n = builder.number(args[0]), int(constants[0])
    key = call_key("AVEDEV", (number,), constants)
    return builder.share(MeanDeviation(key, number, n, builder.ring(number, n - 1)))


def _n_bars(constants: Constants) -> int:
    return int(constants[0])


def deviations(builder: Builder, name: str, x: NumberNode, n: int) -> NumberNode:
    """Return the node of STD, STDP, VAR, VARP or DEVSQ of N bars."""
    divisor, rooted = _FORMS[name]
    key = call_key(name, (x,), (float(n),))
    node = Deviations(key, x, n, ring=builder.ring(x, n - 1), divisor=divisor(n), rooted=rooted)
    return builder.number(builder.share(node))


def _deviations(name: str, meaning: str, *, least: int) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        return deviations(builder, name, builder.number(args[0]), int(constants[0]))

    return Function(
        name=name, params=(Param("X"), window(least=least)), result=Kind.NUMBER, build=build, oracle="exact windows",
        first=_n_bars, meaning=meaning,
    )  # fmt: skip


def _sample(n: int) -> int:
    return n - 1


def _population(n: int) -> int:
    return n


def _one(n: int) -> int:
    return 1


_FORMS: Final[dict[str, tuple[Callable[[int], int], bool]]] = {
    "STD": (_sample, True), "STDP": (_population, True), "VAR": (_sample, False), "VARP": (_population, False),
    "DEVSQ": (_one, False),
}  # fmt: skip
"""Divisor of Σ(x−mean)², and whether the root is taken."""

SPREAD: Final = (
    _deviations("STD", "standard deviation of N bars, divisor N-1", least=2),
    _deviations("STDP", "standard deviation of N bars, divisor N", least=1),
    _deviations("VAR", "variance of N bars, divisor N-1", least=2),
    _deviations("VARP", "variance of N bars, divisor N", least=1),
    _deviations("DEVSQ", "sum of squared deviations from the mean of N bars", least=1),
    Function(
        name="AVEDEV", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_avedev, oracle="exact windows",
        first=_n_bars, meaning="mean of the absolute deviations from the mean of N bars",
    ),
)  # fmt: skip
