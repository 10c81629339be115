"""The steps that whole columns take most often, in numpy; tapes have them compiled, to the same bits (rules/_steps.h).

Columns are (n,) float64, NaN = unknown, masks (n,) bool; results go into `out` and the like, which overlap with no
argument. A column of stride 0, a constant, is taken anywhere.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.tick import BoolArray, FloatArray

TOLERANCE: Final = 1e-9
"""Two numbers are equal if they differ by at most TOLERANCE·max(1,|a|,|b|)."""


def tolerance(x: FloatArray) -> FloatArray:
    """Return TOLERANCE·max(1,|x|)."""
    return TOLERANCE * np.maximum(np.abs(x), 1.0)


def shift(share: float, x: FloatArray, out: FloatArray) -> None:
    """Move x by `share` of max(1,|x|)."""
    np.abs(x, out)
    np.maximum(out, 1.0, out=out)
    np.multiply(out, share, out)
    np.add(x, out, out)


def compare(a: FloatArray, b: FloatArray, above: BoolArray, not_above: BoolArray) -> None:
    """Tell where a > b, and where a ≤ b; neither where one is NaN."""
    np.greater(a, b, above)
    np.less_equal(a, b, not_above)


def cross(a: FloatArray, b: FloatArray, below: BoolArray, crossed: BoolArray, not_crossed: BoolArray) -> None:
    """Tell where a > b and `below` is set, and where that is not so."""
    np.greater(a, b, crossed)
    np.logical_and(crossed, below, crossed)
    np.logical_not(crossed, not_crossed)


def add_share(share: float, x: FloatArray, base: FloatArray, out: FloatArray) -> None:
    """x·share + base."""
    np.multiply(x, share, out)
    np.add(out, base, out)


def smooth(weight: float, x: FloatArray, rest: FloatArray, before: FloatArray, out: FloatArray) -> None:
    """x·weight + rest; where that is NaN `before`, and where that is NaN, too, x."""
    np.multiply(x, weight, out)
    np.add(out, rest, out)
    hole = np.isnan(out)
    if hole.any():
        out[hole] = np.where(np.isnan(before[hole]), x[hole], before[hole])


def higher(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the higher of two; of a number and NaN the number, of two that are equal a."""
    np.copyto(out, np.where((a >= b) | np.isnan(b), a, b))
    return out


def lower(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the lower of two; of a number and NaN the number, of two that are equal a."""
    np.copyto(out, np.where((a <= b) | np.isnan(b), a, b))
    return out


def maximum(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the larger of two; NaN if one is, of two that are equal a."""
    np.copyto(out, np.where((a >= b) | np.isnan(a), a, b))
    return out


def minimum(a: FloatArray, b: FloatArray, out: FloatArray) -> FloatArray:
    """Take the smaller of two; NaN if one is, of two that are equal a."""
    np.copyto(out, np.where((a <= b) | np.isnan(a), a, b))
    return out


def divide(a: FloatArray, b: FloatArray, out: FloatArray) -> None:
    """a / b; NaN where b is 0."""
    np.divide(a, b, out)
    out[b == 0] = np.nan


def divide_near(a: FloatArray, b: FloatArray, side: FloatArray, out: FloatArray) -> None:
    """a / b; NaN where |b| is within the tolerance of `side`."""
    np.divide(a, b, out)
    out[np.abs(b) <= tolerance(side)] = np.nan


def spread(weight: float, x: FloatArray, mean: FloatArray, m2: FloatArray, floor: FloatArray, out: FloatArray) -> None:
    """(x − mean)²·weight + m2; 0 where that is at most `floor`."""
    np.subtract(x, mean, out)
    np.multiply(out, out, out)
    np.multiply(out, weight, out)
    np.add(out, m2, out)
    out[out <= floor] = 0.0


def rooted_spread(
    weight: float, x: FloatArray, mean: FloatArray, m2: FloatArray, floor: FloatArray, out: FloatArray
) -> None:
    """Take the root of `spread`."""
    spread(weight, x, mean, m2, floor, out)
    np.sqrt(out, out)
