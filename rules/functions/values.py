"""Bases of graph nodes: numbers and truths with output buffers that are used again from pass to pass.

A pass over the whole universe (`at` is a slice) writes into a column lent by its plan, or a truth's own buffers, so it
allocates nothing. A pass over a few symbols makes new arrays.
"""

from __future__ import annotations

import numpy as np

from feeds.tick import BoolArray, FloatArray, IntArray
from rules.language.tree import Kind
from rules.node import Bits, Node, Selection, Truth
from rules.rings import Ring
from rules.state import Column, StateTable


class NumberNode(Node):
    """A node whose value is a float64 column, NaN = unknown.

    column_lent: (n,) where a pass over all symbols writes; the `Plan` of the pass sets it.
    """

    __slots__ = ("_state", "column_lent", "ring")
    value: FloatArray

    def __init__(self, key: str, *, period: str, args: tuple[Node, ...] = (), warmup: int = 0) -> None:
        super().__init__(key, period=period, kind=Kind.NUMBER, args=args, warmup=warmup)
        self.column_lent: FloatArray = np.empty(0)
        self.ring: Ring | None = None

    def open(self, state: StateTable) -> None:
        self._state = state

    def claim(self, name: str, fill: float = np.nan) -> Column:
        """Claim a float64 state column of this node."""
        return self._state.claim(f"{self.period}/{self.key}/{name}", fill=fill)

    def rings(self) -> tuple[Ring, ...]:
        """Return the rings this node reads."""
        return () if self.ring is None else (self.ring,)

    def room(self, at: Selection) -> FloatArray:
        """Return an uninitialised array for the selection."""
        return self.column_lent if isinstance(at, slice) else np.empty(at.size)


class TruthNode(Node):
    """A node whose value is a `Truth`.

    lent: where a pass over all symbols writes bits; its own, or those of whoever reads them together.
    """

    __slots__ = ("_masks", "_state", "lent", "ring")
    value: Truth

    def __init__(self, key: str, *, period: str, args: tuple[Node, ...] = (), warmup: int = 0) -> None:
        super().__init__(key, period=period, kind=Kind.TRUTH, args=args, warmup=warmup)
        self._masks = Truth(np.empty(0, np.bool_), np.empty(0, np.bool_))
        self.lent = Bits.of(0)
        self.ring: Ring | None = None

    def open(self, state: StateTable) -> None:
        self._state = state

    def claim(self, name: str, fill: float = np.nan) -> Column:
        """Claim a float64 state column of this node."""
        return self._state.claim(f"{self.period}/{self.key}/{name}", fill=fill)

    def rings(self) -> tuple[Ring, ...]:
        """Return the rings this node reads."""
        return () if self.ring is None else (self.ring,)

    def room(self, at: Selection) -> Truth:
        """Return an uninitialised Truth for the selection."""
        n = self._state.n if isinstance(at, slice) else at.size
        if isinstance(at, slice) and self._masks.t.size == n:
            return self._masks
        fresh = Truth(np.empty(n, np.bool_), np.empty(n, np.bool_))
        if isinstance(at, slice):
            self._masks = fresh
        return fresh

    def lend(self, bits: Bits) -> None:
        """Let passes over all symbols write there, where the values of the latest stand already."""
        self.value = self.lent = bits


class Constant(NumberNode):
    """A number, as a column of stride 0, or written out (`dense`) where a reader is faster so."""

    __slots__ = ("_wide", "dense", "number")

    def __init__(self, key: str, number: float, *, period: str) -> None:
        super().__init__(key, period=period)
        self.number = number
        self.dense = False
        self._wide: FloatArray = np.empty(0)

    def recipe(self) -> float:
        return float(self.number)

    def peek(self, at: Selection) -> None:
        n = self._state.n if isinstance(at, slice) else at.size
        if self._wide.size < max(n, 1):
            column = np.broadcast_to(np.float64(self.number), (max(n, self._state.n, 1),))
            self._wide = column.copy() if self.dense else column
        if self.value.size != n or n == 0:
            self.value = self._wide[:n]  # passes over all and over some alternate: a view costs a tenth of a broadcast


class Field(NumberNode):
    """A column of the market: a view for all symbols, a copy for some."""

    __slots__ = ("column",)

    def __init__(self, key: str, column: Column, *, period: str) -> None:
        super().__init__(key, period=period)
        self.column = column

    def recipe(self) -> Column:
        return self.column

    def peek(self, at: Selection) -> None:
        self.value = self.column.array[at]


class TruthField(TruthNode):
    """A column of the market that holds 1, 0 and NaN."""

    __slots__ = ("column",)

    def __init__(self, key: str, column: Column, *, period: str) -> None:
        super().__init__(key, period=period)
        self.column = column

    def peek(self, at: Selection) -> None:
        raw = self.column.array[at]
        out = self.room(at)
        np.greater(raw, 0.0, out=out.t)
        np.less_equal(raw, 0.0, out=out.f)
        self.value = out


def scalar(number: float) -> FloatArray:
    """Return a number as numpy takes it quickest beside a column: converting a float costs a third of a pass."""
    return np.array(number)


def holes(values: FloatArray) -> IntArray | None:
    """Return where values are NaN, None if nowhere; one pass of 1 µs per 5,500 in the usual case."""
    squares = values.dot(values)
    if squares == squares:  # any NaN makes the sum NaN, and NaN alone is not itself
        return None
    return np.flatnonzero(np.isnan(values))


def true_at(mask: BoolArray) -> IntArray | None:
    """Return where a mask is set, None if nowhere."""
    return np.flatnonzero(mask) if np.count_nonzero(mask) else None
