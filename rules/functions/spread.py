"""Spread about the mean of N bars: STD, VAR, their population forms, DEVSQ and AVEDEV.

Of the closed N−1 bars two numbers are kept: mean m and sum of squared deviations M2, made in two passes over the ring
at the close. The forming x joins by Welford's step: M2 + (x−m)²·(N−1)/N. A running sum of squares would lose
1.8e-3 of STD at a price of 1,700.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.tick import IntArray
from rules.functions.arithmetic import TOLERANCE
from rules.functions.function import Args, Builder, Constants, Function, Param, Value, call_key, window
from rules.functions.values import NumberNode, true_at
from rules.language.tree import Kind
from rules.node import Selection
from rules.rings import Ring
from rules.state import StateTable


class SquaredDeviations(NumberNode):
    """DEVSQ: Σ(x−mean)² over N bars; exactly 0 where the N values are ties, NaN until there are N.

    State: mean and M2 of the closed N−1, and the M2 up to which their deviations are within the tolerance of ties.
    """

    __slots__ = ("_floor", "_m2", "_mean", "_n", "_x")

    def __init__(self, key: str, x: NumberNode, n: int, ring: Ring) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup + n - 1)
        self._x = x
        self._n = n
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._mean = self.claim("mean")
        self._m2 = self.claim("m2")
        self._floor = self.claim("floor")

    def peek(self, at: Selection) -> None:
        out, x = self.room(at), self._x.value
        if self._n == 1:
            np.multiply(x, 0.0, out=out)
        else:
            np.subtract(x, self._mean.array[at], out=out)
            np.multiply(out, out, out=out)
            np.multiply(out, (self._n - 1) / self._n, out=out)
            np.add(out, self._m2.array[at], out=out)
            ties = true_at(out <= self._floor.array[at])
            if ties is not None:
                out[ties] = 0.0
        self.value = out

    def commit(self, at: IntArray) -> None:
        if self._n == 1:
            return
        assert self.ring is not None
        closed = self._n - 1
        start = self.ring.back(at, 0)  # deviations from one of the values: flat prices have a mean without error
        total = np.zeros(at.size)
        for row in self.ring.rows(at, closed):
            total += row - start
        mean = start + total / closed
        m2 = np.zeros(at.size)
        for row in self.ring.rows(at, closed):
            deviation = row - mean
            m2 += deviation * deviation
        self._mean.array[at] = mean
        self._m2.array[at] = m2
        self._floor.array[at] = np.square(TOLERANCE * np.maximum(1.0, np.abs(mean)))


class Spread(NumberNode):
    """STD, VAR, STDP or VARP, of the shared squared deviations."""

    __slots__ = ("_deviations", "_rooted", "_share")

    def __init__(self, key: str, deviations: NumberNode, divisor: int, *, rooted: bool) -> None:
        super().__init__(key, period=deviations.period, args=(deviations,), warmup=deviations.warmup)
        self._deviations = deviations
        self._share = 1.0 / divisor
        self._rooted = rooted

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.multiply(self._deviations.value, self._share, out=out)
        if self._rooted:
            np.sqrt(out, out=out)
        self.value = out


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
        np.abs(x - mean, out=out)
        for row in self.ring.rows(at, self._n - 1):
            out += np.abs(row - mean)
        out /= self._n
        out[out <= TOLERANCE / self._n * np.maximum(1.0, np.abs(mean))] = 0.0
        self.value = out


def deviations(builder: Builder, x: Value, n: int) -> NumberNode:
    """Return the node of DEVSQ(x, n)."""
    number = builder.number(x)
    key = call_key("DEVSQ", (number,), (float(n),))
    return builder.number(builder.share(SquaredDeviations(key, number, n, builder.ring(number, n - 1))))


def _build_devsq(builder: Builder, args: Args, constants: Constants) -> Value:
    return deviations(builder, args[0], int(constants[0]))


def _build_avedev(builder: Builder, args: Args, constants: Constants) -> Value:
    number, n = builder.number(args[0]), int(constants[0])
    key = call_key("AVEDEV", (number,), constants)
    return builder.share(MeanDeviation(key, number, n, builder.ring(number, n - 1)))


def _n_bars(constants: Constants) -> int:
    return int(constants[0])


def _spread(name: str, meaning: str, *, sample: int, rooted: bool) -> Function:
    """sample: 1 where the divisor is N−1."""

    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        n = int(constants[0])
        shared = deviations(builder, args[0], n)
        key = call_key(name, (builder.number(args[0]),), constants)
        return builder.share(Spread(key, shared, n - sample, rooted=rooted))

    return Function(
        name=name, params=(Param("X"), window(least=1 + sample)), result=Kind.NUMBER, build=build, oracle="exact windows",
        first=_n_bars, meaning=meaning,
    )  # fmt: skip


SPREAD: Final = (
    _spread("STD", "standard deviation of N bars, divisor N-1", sample=1, rooted=True),
    _spread("STDP", "standard deviation of N bars, divisor N", sample=0, rooted=True),
    _spread("VAR", "variance of N bars, divisor N-1", sample=1, rooted=False),
    _spread("VARP", "variance of N bars, divisor N", sample=0, rooted=False),
    Function(
        name="DEVSQ", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_devsq, oracle="exact windows",
        first=_n_bars, meaning="sum of the squared deviations from the mean of N bars",
    ),
    Function(
        name="AVEDEV", params=(Param("X"), window()), result=Kind.NUMBER, build=_build_avedev, oracle="exact windows",
        first=_n_bars, meaning="mean of the absolute deviations from the mean of N bars",
    ),
)  # fmt: skip
