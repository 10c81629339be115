"""The steps that whole columns take most often: each one pass where there was a compiler, some of numpy's elsewhere.

Both ways give the same bits. Columns are (n,) float64, NaN = unknown, masks (n,) bool; results go into `out` and the
like, which overlap with no argument. A column of stride 0, a constant, is taken anywhere. What the compiled steps are
called in a pass over all symbols says rules/tape.py.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.tick import BoolArray, FloatArray

COMPILED: ModuleType | None
try:
    from rules.functions import _columns as COMPILED
except ImportError:  # no compiler at installation
    COMPILED = None

TOLERANCE: Final = 1e-9
"""Two numbers are equal if they differ by at most TOLERANCE·max(1,|a|,|b|)."""


def _taken(step: str, number: float, *columns: NDArray[Any]) -> bool:
    return COMPILED is not None and COMPILED.take(step, number, *columns)


def tolerance(x: FloatArray) -> FloatArray:
    """Return TOLERANCE·max(1,|x|)."""
    return TOLERANCE * np.maximum(np.abs(x), 1.0)


def shift(share: float, x: FloatArray, out: FloatArray) -> None:
    """Move x by `share` of max(1,|x|)."""
    if not _taken("shift", share, x, out):
        np.abs(x, out)
        np.maximum(out, 1.0, out=out)
        np.multiply(out, share, out)
        np.add(x, out, out)


def compare(a: FloatArray, b: FloatArray, above: BoolArray, not_above: BoolArray) -> None:
    """Tell where a > b, and where a ≤ b; neither where one is NaN."""
    if not _taken("compare", 0.0, a, b, above, not_above):
        np.greater(a, b, above)
        np.less_equal(a, b, not_above)


def cross(a: FloatArray, b: FloatArray, below: BoolArray, crossed: BoolArray, not_crossed: BoolArray) -> None:
    """Tell where a > b and `below` is set, and where that is not so."""
    if not _taken("cross", 0.0, a, b, below, crossed, not_crossed):
        np.greater(a, b, crossed)
        np.logical_and(crossed, below, crossed)
        np.logical_not(crossed, not_crossed)


def add_share(share: float, x: FloatArray, base: FloatArray, out: FloatArray) -> None:
    """x·share + base."""
    if not _taken("add_share", share, x, base, out):
        np.multiply(x, share, out)
        np.add(out, base, out)


def smooth(weight: float, x: FloatArray, rest: FloatArray, before: FloatArray, out: FloatArray) -> None:
    """x·weight + rest; where that is NaN `before`, and where that is NaN, too, x."""
    if not _taken("smooth", weight, x, rest, before, out):
        np.multiply(x, weight, out)
        np.add(out, rest, out)
        hole = np.isnan(out)
        if hole.any():
            out[hole] = np.where(np.isnan(before[hole]), x[hole], before[hole])


def higher(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the higher of two; of a number and NaN the number, of two that are equal a."""
    if not _taken("higher", 0.0, a, b, out):
        np.copyto(out, np.where((a >= b) | np.isnan(b), a, b))
    return out


def lower(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the lower of two; of a number and NaN the number, of two that are equal a."""
    if not _taken("lower", 0.0, a, b, out):
        np.copyto(out, np.where((a <= b) | np.isnan(b), a, b))
    return out


def maximum(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the larger of two; NaN if one is, of two that are equal a."""
    if not _taken("maximum", 0.0, a, b, out):
        np.copyto(out, np.where((a >= b) | np.isnan(a), a, b))
    return out


def minimum(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the smaller of two; NaN if one is, of two that are equal a."""
    if not _taken("minimum", 0.0, a, b, out):
        np.copyto(out, np.where((a <= b) | np.isnan(a), a, b))
    return out


def divide(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """a / b; NaN where b is 0."""
    if not _taken("divide", 0.0, a, b, out):
        np.divide(a, b, out)
        out[b == 0] = np.nan


def divide_near(a: FloatArray, b: FloatArray, side: FloatArray, out: FloatArray) -> None:
    """a / b; NaN where |b| is within the tolerance of `side`."""
    if not _taken("divide_near", 0.0, a, b, side, out):
        np.divide(a, b, out)
        out[np.abs(b) <= tolerance(side)] = np.nan


def spread(weight: float, x: FloatArray, mean: FloatArray, m2: FloatArray, floor: FloatArray, out: FloatArray) -> None:
    """(x − mean)²·weight + m2; 0 where that is at most `floor`."""
    if not _taken("spread", weight, x, mean, m2, floor, out):
        np.subtract(x, mean, out)
        np.multiply(out, out, out)
        np.multiply(out, weight, out)
        np.add(out, m2, out)
        out[out <= floor] = 0.0


def rooted_spread(
    weight: float, x: FloatArray, mean: FloatArray, m2: FloatArray, floor: FloatArray, out: FloatArray
) -> None:
    """Take the root of `spread`."""
    if not _taken("rooted_spread", weight, x, mean, m2, floor, out):
        spread(weight, x, mean, m2, floor, out)
        np.sqrt(out, out)
