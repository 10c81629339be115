"""Values of another layer of the graph: a longer period's, as this one sees them."""

from __future__ import annotations

import numpy as np

from rules.functions.values import NumberNode, TruthNode
from rules.node import Selection
from rules.state import Column


class BarEnd(NumberNode):
    """The end of the forming bar, Unix ms; 0 where there is none yet today."""

    __slots__ = ("blind", "column")

    def __init__(self, key: str, column: Column, *, period: str) -> None:
        super().__init__(key, period=period)
        self.column = column
        self.blind = False

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        np.copyto(out, np.nan if self.blind else self.column.array[at], casting="same_kind")
        self.value = out


class Across(NumberNode):
    """A number of another period, as of now: with its forming bar.

    blind: the layer is being warmed with old bars, and what the other period was then is not known.
    """

    __slots__ = ("_inner", "blind")

    def __init__(self, key: str, inner: NumberNode, *, period: str) -> None:
        super().__init__(key, period=period, args=(inner,))
        self._inner = inner
        self.blind = False

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        if self.blind:
            out.fill(np.nan)
        else:
            np.copyto(out, self._inner.value)
        self.value = out


class AcrossTruth(TruthNode):
    """A truth of another period, as of now."""

    __slots__ = ("_inner", "blind")

    def __init__(self, key: str, inner: TruthNode, *, period: str) -> None:
        super().__init__(key, period=period, args=(inner,))
        self._inner = inner
        self.blind = False

    def peek(self, at: Selection) -> None:
        out, inner = self.room(at), self._inner.value
        if self.blind:
            out.t.fill(False)
            out.f.fill(False)
        else:
            np.copyto(out.t, inner.t)
            np.copyto(out.f, inner.f)
        self.value = out


class AcrossClosed(NumberNode):
    """A number of a longer period at its last bar that has closed when this period's bar does.

    The longer period's forming bar is that one where it ends no later than this period's bar; else it is the one
    before.
    """

    __slots__ = ("_before", "_inner", "_inner_end", "_own_end", "blind")

    def __init__(self, key: str, inner: NumberNode, before: NumberNode, *, ends: tuple[BarEnd, BarEnd]) -> None:
        inner_end, own_end = ends
        super().__init__(key, period=own_end.period, args=(inner, before, *ends))
        self._inner = inner
        self._before = before
        self._inner_end = inner_end
        self._own_end = own_end
        self.blind = False

    def peek(self, at: Selection) -> None:
        out = self.room(at)
        if self.blind:  # the others have the length of another pass
            out.fill(np.nan)
            self.value = out
            return
        end = self._inner_end.value
        closed = (end > 0) & (end <= self._own_end.value)
        np.copyto(out, np.where(closed, self._inner.value, self._before.value))
        self.value = out


Foreign = (BarEnd, Across, AcrossTruth, AcrossClosed)
