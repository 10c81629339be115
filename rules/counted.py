"""Columns of what a figure of the day has grown by since its bar began, worked out when somebody looks.

Volume and amount of the forming bar are differences of cumulative figures. Few rules read them, and bars close once a
minute at most; to make both of 5,500 symbols at each tick of the market would move six columns of 44 kB.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from feeds.tick import FloatArray
from rules.state import Column, StateTable


class Start(Column):
    """The figure as of each symbol's start of the bar; who looks may write, so what counts from it is made before."""

    __slots__ = ("_grown", "own")

    def __init__(self, array: FloatArray, fill: float) -> None:
        self._grown: Counted | None = None
        super().__init__(array, fill)

    def count(self, grown: Counted) -> None:
        """Let this column count from here."""
        self._grown = grown

    @property
    def array(self) -> NDArray[Any]:
        if self._grown is not None:
            self._grown.settle()
        return self.own

    @array.setter
    def array(self, array: NDArray[Any]) -> None:
        self.own = array


class Counted(Column):
    """By how much the figure has grown since its `Start`."""

    __slots__ = ("_now", "_own", "_start")

    def __init__(self, start: Start) -> None:
        self._start = start
        self._now: FloatArray | None = None
        super().__init__(np.full_like(start.own, np.nan), np.nan)
        start.count(self)

    def follow(self, now: FloatArray) -> None:
        """Let (n,) `now` be the figure of all symbols; nobody may write to it from here on."""
        self._now = now

    def settle(self) -> None:
        """Work out what `follow` has left to be done."""
        if self._now is not None:
            now, self._now = self._now, None
            np.subtract(now, self._start.own, self._own)

    @property
    def array(self) -> NDArray[Any]:
        self.settle()
        return self._own

    @array.setter
    def array(self, array: NDArray[Any]) -> None:
        self._now = None
        self._own = array


def claim(state: StateTable, *, start: str, grown: str) -> tuple[Start, Counted]:
    """Make the two columns under these names of the state table."""
    first = Start(np.full(state.n, np.nan), np.nan)
    second = Counted(first)
    state.put(start, first)
    state.put(grown, second)
    return first, second
