"""`Segment`: ticks of one clock second, each symbol once, and what is true of all of them together.

Nearly always every tick has a price, none is halted, all are newer than anything seen: found once per segment, mostly
from two numbers, it spares each later step a pass over its columns.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feeds.tick import BoolArray, FloatArray, IntArray, TickBatch
from rules.node import Selection


class Segment(NamedTuple):
    """Ticks of one clock second, each symbol once; columns are in the order of the ticks.

    rows     (k,) each tick's symbol
    at       the same, or ALL where they are all symbols in order
    arrival  (k,) each tick's place in its batch
    halted   (k,) whose status says that they do not trade; None: nobody's
    live     (k,) which ticks make bars; None: all, so all have a price, of one day, from the auction's result on
    """

    rows: IntArray
    at: Selection
    batch: TickBatch
    arrival: IntArray
    halted: BoolArray | None
    live: BoolArray | None

    @property
    def first_ms(self) -> int:
        """The earliest tick's time, Unix ms."""
        return self.batch.span_ms[0]

    @property
    def last_ms(self) -> int:
        """The latest tick's time, Unix ms."""
        return self.batch.span_ms[1]

    def lives(self) -> tuple[IntArray, IntArray]:
        """Return rows and arrival of the ticks that make bars."""
        return chosen(self.rows, self.live), chosen(self.arrival, self.live)


def chosen(column: NDArray[Any], mask: BoolArray | None) -> NDArray[Any]:
    """Return the chosen elements, all of them (no copy) where there is no mask."""
    return column if mask is None else column[mask]


def pick(ends: int | IntArray, mask: BoolArray) -> int | IntArray:
    """Return the chosen elements of an array, or the one number that stands for all."""
    return ends[mask] if isinstance(ends, np.ndarray) else ends


def places(n: int) -> IntArray:
    """Return 0, 1, … n−1; read-only."""
    return _PLACES[:n] if n <= len(_PLACES) else np.arange(n)


def all_known(column: FloatArray) -> bool:
    """Tell whether no element is NaN, in one pass that makes no array."""
    total = column.dot(column)
    return bool(total == total)  # any NaN makes it NaN, and NaN alone is not itself


_PLACES: Final = np.arange(8192)
_PLACES.flags.writeable = False
