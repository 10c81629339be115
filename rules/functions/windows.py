"""Functions of the last N bars: sums and extremes.

Each keeps one `base` per symbol, made of the closed N−1 bars. At a bar's close the base is read again from the ring,
oldest first, so no error and no NaN outlives its window; with the forming bar the value is base ⊕ x, one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from feeds.tick import FloatArray, IntArray
from rules.functions import columns
from rules.functions.function import Args, Builder, Constants, Function, Param, Value, call_key, varying_key, window
from rules.functions.values import NumberNode, TruthNode, holes
from rules.functions.varying import Folded, FoldedAge
from rules.language.tree import Kind
from rules.node import Selection, Step
from rules.rings import Ring
from rules.state import StateTable

Rows = Iterator[FloatArray]


class Window(NumberNode):
    """Base of a function of X over N bars: `reread` makes the base of the closed N−1, `extend` adds the forming bar."""

    __slots__ = ("_base", "n", "x")
    EMPTY: float = np.nan
    """The base of no bars at all, for N = 1."""

    def __init__(self, key: str, x: NumberNode, n: int, *, ring: Ring, warmup: int) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=warmup)
        self.x = x
        self.n = n
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._base = self.claim("base", self.EMPTY if self.n == 1 else np.nan)

    def peek(self, at: Selection) -> None:
        self.value = self.extend(self._base.array[at], self.x.value, self.room(at))

    def commit(self, at: IntArray) -> None:
        if self.n > 1:
            assert self.ring is not None
            self._base.array[at] = self.reread(self.ring.rows(at, self.n - 1))

    def extend(self, base: FloatArray, x: FloatArray, out: FloatArray) -> FloatArray:
        """Return the value with x as the forming bar, in `out`."""
        raise NotImplementedError

    def reread(self, rows: Rows) -> FloatArray:
        """Return the base of these closed values, oldest first."""
        raise NotImplementedError


class Sum(Window):
    """Σx over N bars; NaN until there are N and while one of them is NaN."""

    __slots__ = ()
    EMPTY = 0.0

    def recipe(self) -> Step:
        return Step("add", (self._base, self.x))

    def extend(self, base: FloatArray, x: FloatArray, out: FloatArray) -> FloatArray:
        return np.add(base, x, out)

    def reread(self, rows: Rows) -> FloatArray:
        return ordered_sum(rows)


class Mean(Window):
    """Σx/N over N bars; NaN until there are N and while one of them is NaN. The base is the closed bars' part of it."""

    __slots__ = ("_share",)
    EMPTY = 0.0

    def __init__(self, key: str, x: NumberNode, n: int, *, ring: Ring, warmup: int) -> None:
        super().__init__(key, x, n, ring=ring, warmup=warmup)
        self._share = 1.0 / n

    def recipe(self) -> Step:
        return Step("add_share", (self.x, self._base), self._share)

    def extend(self, base: FloatArray, x: FloatArray, out: FloatArray) -> FloatArray:
        columns.add_share(self._share, x, base, out)
        return out

    def reread(self, rows: Rows) -> FloatArray:
        return ordered_sum(rows) / self.n


class Weighted(Window):
    """Σi·x over N bars, the newest weighing N, over N(N+1)/2."""

    __slots__ = ()
    EMPTY = 0.0

    def extend(self, base: FloatArray, x: FloatArray, out: FloatArray) -> FloatArray:
        np.multiply(x, float(self.n), out)
        np.add(base, out, out)
        return np.divide(out, self.n * (self.n + 1) / 2, out)

    def reread(self, rows: Rows) -> FloatArray:
        total = next(rows).copy()
        for weight, row in enumerate(rows, 2):
            np.add(total, row * float(weight), total)
        return total


class Extreme(Window):
    """HHV (`pick` np.fmax) or LLV (np.fmin): over as many of N bars as there are, NaN left out."""

    __slots__ = ("_join", "_pick")

    def __init__(self, key: str, x: NumberNode, n: int, *, ring: Ring, pick: Callable[..., Any]) -> None:
        super().__init__(key, x, n, ring=ring, warmup=x.warmup)
        self._pick = pick
        self._join = columns.higher if pick is np.fmax else columns.lower

    def recipe(self) -> Step:
        return Step(self._join.__name__, (self._base, self.x))

    def extend(self, base: FloatArray, x: FloatArray, out: FloatArray) -> FloatArray:
        return self._join(base, x, out)

    def reread(self, rows: Rows) -> FloatArray:
        best = next(rows).copy()
        for row in rows:
            self._pick(best, row, out=best)
        return best


class Overall(NumberNode):
    """A running value over all bars (N = 0): the extreme, or the sum, which holds on NaN; `pick` joins two values."""

    __slots__ = ("_pick", "_so_far", "_x")

    def __init__(self, key: str, x: NumberNode, pick: Callable[..., Any]) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup)
        self._x = x
        self._pick = pick

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._so_far = self.claim("so_far")

    def peek(self, at: Selection) -> None:
        so_far, x, out = self._so_far.array[at], self._x.value, self.room(at)
        self._pick(so_far, x, out=out)
        hole = holes(out)
        if hole is not None:
            out[hole] = np.where(np.isnan(x[hole]), so_far[hole], x[hole])
        self.value = out

    def commit(self, at: IntArray) -> None:
        self._so_far.array[at] = self.value


class ExtremeBars(NumberNode):
    """HHVBARS, LLVBARS: bars since the extreme of N bars (0: of all), the nearest of equal ones.

    reaches(x, best): x is at least as extreme as best. State: the extreme of the closed bars and its age in bars.
    """

    __slots__ = ("_age", "_best", "_n", "_reaches", "_x")

    def __init__(self, key: str, x: NumberNode, n: int, *, ring: Ring | None, reaches: Callable[..., Any]) -> None:
        super().__init__(key, period=x.period, args=(x,), warmup=x.warmup)
        self._x = x
        self._n = n
        self._reaches = reaches
        self.ring = ring

    def open(self, state: StateTable) -> None:
        super().open(state)
        self._best = self.claim("best")
        self._age = self.claim("age")

    def peek(self, at: Selection) -> None:
        out, x = self.room(at), self._x.value
        np.add(self._age.array[at], 1.0, out)
        out[self._taken(x, self._best.array[at])] = 0.0
        self.value = out

    def commit(self, at: IntArray) -> None:
        if self._n == 0:
            best = self._best.array[at]
            self._best.array[at] = np.where(self._taken(self._x.value, best), self._x.value, best)
            self._age.array[at] = self.value
        elif self._n > 1:
            self._reread(at)

    def _reread(self, at: IntArray) -> None:
        assert self.ring is not None
        best, age = np.full(at.size, np.nan), np.full(at.size, np.nan)
        for row in self.ring.rows(at, self._n - 1):
            age += 1.0
            taken = self._taken(row, best)
            np.copyto(best, row, where=taken)
            age[taken] = 0.0
        self._best.array[at] = best
        self._age.array[at] = age

    def _taken(self, x: FloatArray, best: FloatArray) -> Any:
        return self._reaches(x, best) | (np.isnan(best) & ~np.isnan(x))


def ordered_sum(rows: Rows) -> FloatArray:
    """Add rows up one after the other; numpy's own sum may pair them up in another order for another layout."""
    total = next(rows).copy()
    for row in rows:
        np.add(total, row, total)
    return total


def build_window(builder: Builder, name: str, make: type[Window], x: Value, n: int) -> Value:
    """Return the node of a function of N full bars."""
    number = builder.number(x)
    key = call_key(name, (number,), (float(n),))
    return builder.share(make(key, number, n, ring=builder.ring(number, n - 1), warmup=number.warmup + n - 1))


def folded(
    builder: Builder, key: str, x: NumberNode | TruthNode, n: NumberNode, *,
    cap: int, join: Callable[..., Any], whole: Value | None = None, divides: bool = False,
) -> Value:  # fmt: skip
    """Return the node of a function of X over N bars, N a series; whole: its node over all bars, for N = 0."""
    everything = None if whole is None else builder.number(whole)
    ring = builder.ring(x, cap)
    return builder.share(Folded(key, x, n, ring=ring, cap=cap, whole=everything, join=join, divides=divides))


def _vary_sum(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
    number = builder.number(args[0])
    key = varying_key("SUM", (number,), n, cap)
    return folded(builder, key, number, n, cap=cap, join=np.add, whole=_build_sum(builder, args, (0.0,)))


def _build_sum(builder: Builder, args: Args, constants: Constants) -> Value:
    if constants[0] > 0:
        return build_window(builder, "SUM", Sum, args[0], int(constants[0]))
    number = builder.number(args[0])
    return builder.share(Overall(call_key("SUM", (number,), constants), number, np.add))


def mean(builder: Builder, x: Value, n: int) -> Value:
    """Return the node of MA(x, n)."""
    return build_window(builder, "MA", Mean, x, n)


def extreme(builder: Builder, name: str, x: NumberNode, n: int) -> Value:
    """Return the node of HHV(x, n) or LLV(x, n)."""
    pick = _PICKS[name]
    key = call_key(name, (x,), (float(n),))
    return builder.share(Extreme(key, x, n, ring=builder.ring(x, n - 1), pick=pick))


def _extreme(name: str, pick: Callable[..., Any], meaning: str) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        number, n = builder.number(args[0]), int(constants[0])
        if n == 0:
            return builder.share(Overall(call_key(name, (number,), constants), number, pick))
        return extreme(builder, name, number, n)

    def vary(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
        number = builder.number(args[0])
        key = varying_key(name, (number,), n, cap)
        return folded(builder, key, number, n, cap=cap, join=pick, whole=build(builder, args, (0.0,)))

    return Function(
        name=name, params=(Param("X"), window(least=0)), result=Kind.NUMBER, build=build, vary=vary, oracle="TA-Lib",
        meaning=meaning, history=_whole_window,
    )  # fmt: skip


def _extreme_bars(name: str, reaches: Callable[..., Any], beats: Callable[..., Any], meaning: str) -> Function:
    def build(builder: Builder, args: Args, constants: Constants) -> Value:
        number, n = builder.number(args[0]), int(constants[0])
        ring = builder.ring(number, n - 1) if n > 0 else None
        key = call_key(name, (number,), constants)
        return builder.share(ExtremeBars(key, number, n, ring=ring, reaches=reaches))

    def vary(builder: Builder, args: Args, n: NumberNode, cap: int) -> Value:
        number = builder.number(args[0])
        key, ring = varying_key(name, (number,), n, cap), builder.ring(number, cap)
        whole = builder.number(build(builder, args, (0.0,)))
        return builder.share(FoldedAge(key, number, n, ring=ring, cap=cap, whole=whole, beats=beats))

    return Function(
        name=name, params=(Param("X"), window(least=0)), result=Kind.NUMBER, build=build, vary=vary,
        oracle="exact windows",
        meaning=meaning, history=_whole_window,
    )  # fmt: skip


def _whole_window(constants: Constants) -> int:
    return max(1, int(constants[0]))


_PICKS: Final[dict[str, Callable[..., Any]]] = {"HHV": np.fmax, "LLV": np.fmin}

WINDOWS: Final = (
    Function(
        name="SUM", params=(Param("X"), window(least=0)), result=Kind.NUMBER, build=_build_sum, vary=_vary_sum,
        oracle="MyTT", first=_whole_window,
        meaning="sum of N bars; with N = 0 of all bars so far, bars without a value left out",
    ),
    _extreme("HHV", np.fmax, "highest value of the last N bars, 0: of all"),
    _extreme("LLV", np.fmin, "lowest value of the last N bars, 0: of all"),
    _extreme_bars("HHVBARS", np.greater_equal, np.greater, "bars since the highest of N bars, the nearest of equals"),
    _extreme_bars("LLVBARS", np.less_equal, np.less, "bars since the lowest of N bars, the nearest of equals"),
)  # fmt: skip
