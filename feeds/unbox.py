"""Numbers out of many dicts of one shape, into columns: most of what a whole-market push costs.

Two ways to the same columns, bit for bit. `_unbox.c` is compiled where there is a compiler, and takes a third of the
time; without it the Python below does the work.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from itertools import chain
from operator import itemgetter
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from feeds.compiled import compiled
from feeds.tick import FloatArray

Unboxer: TypeAlias = Callable[[list[Any], tuple["Field", ...], FloatArray], bool]
_module: Final = compiled("feeds._unbox", layout=2)
COMPILED: Unboxer | None = getattr(_module, "unbox", None)
_compiled_values_of: Callable[[dict[str, Any], tuple[str, ...]], list[Any] | None] | None = getattr(
    _module, "values_of", None
)


class Field(NamedTuple):
    """What to take of each dict under one key.

    width: 1 = a number, more = a list of so many. least, most: what numbers must lie between, ends included. grid: 0 =
    numbers as they are; else prices, rounded to 1/grid, and NaN where that is 0.
    """

    name: str
    width: int
    least: float
    most: float
    grid: float


def unbox(ticks: list[Any], fields: tuple[Field, ...]) -> FloatArray | None:
    """Return the numbers, (sum of widths, ticks) float64, C-contiguous; None if a single one of the ticks is irregular.

    Irregular is what is no dict, lacks a field, or has there no number or one out of bounds (as NaN always is). At most
    16 fields.
    """
    out = np.empty((sum(field.width for field in fields), len(ticks)))
    if COMPILED is not None and COMPILED(ticks, fields, out):
        return out
    return out if unbox_in_python(ticks, fields, out) else None  # takes numbers of other classes than Python's own, too


def values_of(payload: Mapping[str, Any], symbols: tuple[str, ...]) -> list[Any] | None:
    """Return the payload's values if these are its keys, in order; may be None where they are equal and no text."""
    if _compiled_values_of is not None and type(payload) is dict:
        return _compiled_values_of(payload, symbols)
    return list(payload.values()) if len(payload) == len(symbols) and tuple(payload) == symbols else None


def unbox_in_python(ticks: list[Any], fields: tuple[Field, ...], out: FloatArray) -> bool:
    """Write the numbers to `out` and return True; False if a tick is irregular, then `out` is not to be read."""
    row = 0
    if not all(type(tick) is dict for tick in ticks):
        return False
    for field in fields:
        rows = out[row : row + field.width]
        row += field.width
        try:
            rows[...] = _numbers(ticks, field)
        except (KeyError, TypeError, ValueError, OverflowError, _Irregular):
            return False
        if ticks and not (rows.min() >= field.least and rows.max() <= field.most):  # false, too, if one is NaN
            return False
        if field.grid:
            on_grid(rows, field.grid)
    return True


def on_grid(prices: FloatArray, grid: float) -> None:
    """Round prices in place to 1/grid; 0 becomes NaN."""
    np.multiply(prices, grid, prices)
    np.rint(prices, prices)
    np.divide(prices, grid, prices)
    prices[prices == 0] = np.nan


class _Irregular(Exception):
    pass


def _numbers(ticks: list[Any], field: Field) -> FloatArray:
    """Return the (width, ticks) numbers of one field."""
    found = map(itemgetter(field.name), ticks)
    if field.width == 1:
        return np.frombuffer(array("d", found)).reshape(1, -1)
    lists = list(found)
    if any(type(one) is not list or len(one) != field.width for one in lists):
        raise _Irregular
    return np.frombuffer(array("d", chain.from_iterable(lists))).reshape(-1, field.width).T
