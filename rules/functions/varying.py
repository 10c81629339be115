"""Windows whose length is a series: HHV(H,BARSLAST(C)+1), REF(X,N) with an N of its own on every bar.

On each bar the value is the one that the function with that bar's constant N would have. N is cut to a whole number;
an N that is unknown, below what the function takes, or longer than the cap gives an unknown value. Nothing can be
carried from bar to bar, as the next N may be any, so a pass reads the closed bars newest first, up to the longest N.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.functions.columns import TOLERANCE
from rules.functions.values import NumberNode, TruthNode
from rules.node import Node, Selection
from rules.rings import Ring
from rules.state import Column

DEFAULT_CAP: Final = 250
"""Bars a window of series length may span unless the rule sets `cap:`."""
UNKNOWN: Final = -1


def spans(n: FloatArray, *, least: int, cap: int) -> IntArray:
    """Return each bar's N as whole bars, UNKNOWN where it is none the function takes."""
    whole = np.floor(n + TOLERANCE)
    return np.where((whole >= least) & (whole <= cap), whole, UNKNOWN).astype(np.int64)


class _Varying(NumberNode):
    """Base: X (a number or a truth) over N bars. `whole` is the function over all bars, for N = 0 where it has one."""

    __slots__ = ("_cap", "_n", "_whole", "_x")

    def __init__(
        self, key: str, x: Node, n: NumberNode, *, ring: Ring, cap: int, whole: NumberNode | None = None
    ) -> None:
        args = (x, n) if whole is None else (x, n, whole)
        super().__init__(key, period=n.period, args=args, warmup=max(x.warmup, n.warmup))
        self._x = x
        self._n = n
        self._whole = whole
        self._cap = cap
        self.ring = ring

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        length = spans(self._n.value, least=0 if self._whole is not None else 1, cap=self._cap)
        out.fill(np.nan)
        if self._whole is not None:
            np.copyto(out, self._whole.value, where=length == 0)
        if length.size:
            self._fill(out, length, at)
        self.value = out

    def _fill(self, out: FloatArray, length: IntArray, at: Selection) -> None:
        """Write the value wherever `length` is 1 or more."""
        raise NotImplementedError

    def _now(self) -> Any:
        """Return X of this bar; of a truth whether it is known true."""
        value = self._x.value
        return value if isinstance(value, np.ndarray) else value.t


class Folded(_Varying):
    """SUM, MA, COUNT, HHV, LLV: one operation after the other from this bar back."""

    __slots__ = ("_divides", "_join")

    def __init__(
        self, key: str, x: Node, n: NumberNode, *, ring: Ring, cap: int, whole: NumberNode | None,
        join: Callable[..., Any], divides: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(key, x, n, ring=ring, cap=cap, whole=whole)
        self._join = join
        self._divides = divides

    def _fill(self, out: FloatArray, length: IntArray, at: Selection) -> None:
        assert self.ring is not None
        asked = set(np.unique(length).tolist())
        total = self._now().astype(np.float64)
        for bars in range(1, max(asked) + 1):
            if bars > 1:
                self._join(total, self.ring.back(at, bars - 2), out=total)
            if bars in asked:
                np.copyto(out, total, where=length == bars)
        if self._divides:
            np.divide(out, length, out=out, where=length > 0)


class FoldedAge(_Varying):
    """HHVBARS, LLVBARS: bars since the extreme, the nearest of equal ones."""

    __slots__ = ("_beats",)

    def __init__(
        self, key: str, x: Node, n: NumberNode, *, ring: Ring, cap: int, whole: NumberNode, beats: Callable[..., Any]
    ) -> None:
        super().__init__(key, x, n, ring=ring, cap=cap, whole=whole)
        self._beats = beats

    def _fill(self, out: FloatArray, length: IntArray, at: Selection) -> None:
        assert self.ring is not None
        asked = set(np.unique(length).tolist())
        best = self._now().copy()
        age = np.where(np.isnan(best), np.nan, 0.0)
        for bars in range(1, max(asked) + 1):
            if bars > 1:
                row = self.ring.back(at, bars - 2)
                taken = self._beats(row, best) | (np.isnan(best) & ~np.isnan(row))
                np.copyto(best, row, where=taken)
                age[taken] = bars - 1
            if bars in asked:
                np.copyto(out, age, where=length == bars)


class EarlierBy(NumberNode):
    """REF(X,N): X of N bars ago, N = 0 being this bar."""

    __slots__ = ("_cap", "_n", "_x")

    def __init__(self, key: str, x: NumberNode, n: NumberNode, *, ring: Ring, cap: int) -> None:
        super().__init__(key, period=x.period, args=(x, n), warmup=max(x.warmup, n.warmup))
        self._x = x
        self._n = n
        self._cap = cap
        self.ring = ring

    def peek(self, at: Selection) -> None:
        assert self.ring is not None
        out = self.room(at)
        bars = spans(self._n.value, least=0, cap=self._cap)
        np.copyto(out, self.ring.back(at, np.maximum(bars - 1, 0)))
        np.copyto(out, self._x.value, where=bars == 0)
        out[bars == UNKNOWN] = np.nan
        self.value = out


class ExistsWithin(TruthNode):
    """EXIST(COND,N): the age of the last true bar is below N; 0 is any bar."""

    __slots__ = ("_age", "_cap", "_n")

    def __init__(self, key: str, age: NumberNode, n: NumberNode, cap: int) -> None:
        super().__init__(key, period=n.period, args=(age, n), warmup=max(age.warmup, n.warmup))
        self._age = age
        self._n = n
        self._cap = cap

    def peek(self, at: Selection) -> None:
        out, age = self.room(at), self._age.value
        length = spans(self._n.value, least=0, cap=self._cap)
        found = np.where(length == 0, ~np.isnan(age), age < length)
        np.logical_and(found, length != UNKNOWN, out=out.t)
        np.logical_and(~found, length != UNKNOWN, out=out.f)
        self.value = out


class EveryWithin(TruthNode):
    """EVERY(COND,N), by the ages of the last bar that was not true and of the last that was false."""

    __slots__ = ("_cap", "_counts", "_false", "_n", "_untrue")

    def __init__(
        self, key: str, ages: tuple[NumberNode, NumberNode], n: NumberNode, *, counts: Column, cap: int
    ) -> None:
        super().__init__(key, period=n.period, args=(*ages, n), warmup=max(ages[0].warmup, n.warmup))
        self._untrue, self._false = ages
        self._n = n
        self._cap = cap
        self._counts = counts

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        length = spans(self._n.value, least=1, cap=self._cap)
        full: BoolArray = (length != UNKNOWN) & (self._counts.array[at] + 1 >= length)
        np.logical_and(self._false.value < length, full, out=out.f)
        np.logical_and(~(self._untrue.value < length), full, out=out.t)
        self.value = out
