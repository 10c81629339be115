"""Looks over all of a batch: its times, its units, a frame's words. Compiled where there is a compiler."""

from __future__ import annotations

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from feeds.compiled import compiled

Columns: TypeAlias = tuple[NDArray[np.float64], ...]
COMPILED: Final = compiled("feeds._scan", layout=2)


def span(times: NDArray[np.int64]) -> tuple[int, int]:
    """Return the least and the largest of (n,) int64; ValueError where n is 0."""
    found: tuple[int, int] | None = None if COMPILED is None else COMPILED.span(times)
    return (int(times.min()), int(times.max())) if found is None else found


def all_fit(traded: Columns, factor: float) -> bool:
    """Tell whether no tick is among those `misfits` finds."""
    found: bool | None = None if COMPILED is None else COMPILED.all_fit(*traded, factor)
    return not misfits(traded, factor).any() if found is None else found


def misfits(traded: Columns, factor: float) -> NDArray[np.bool_]:
    """Return which ticks' average price of the day is more than a factor off its range; (n,) bool.

    traded: volume, units of it (shares per lot), amount, low, high; each (n,) float64. What has no trades, no amount or
    no prices fits, as does what has a NaN.
    """
    volume, unit, amount, low, high = traded
    shares = volume * unit
    above, below = amount > factor * shares * high, amount * factor < shares * low
    wrong: NDArray[np.bool_] = (above | below) & (shares > 0) & (amount > 0) & (high > 0)
    return wrong


def word_sum(words: bytes | memoryview) -> int:
    """Return the sum of the 8-byte little-endian words of C-contiguous memory, modulo 2**64.

    Bytes behind the last whole word are left out.
    """
    if COMPILED is not None:
        return int(COMPILED.word_sum(words))
    return int(np.frombuffer(words, "<u8", memoryview(words).nbytes // 8).sum(dtype=np.uint64))
