"""`compare_limits`: the price limits that a source tells, beside those that the tables of instruments.py come to.

The source's win. A disagreement is worth knowing all the same: it is a rule that has changed and is not in the tables
yet, a name that is out of date, or a source that has not loaded its day.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Final

import numpy as np

from feeds.instruments import Board, Instrument, price_limits_of
from feeds.sessions import Calendar

EXAMPLES: Final = 5
_TIE_CNY: Final = 1e-6


@dataclass(frozen=True, slots=True)
class LimitCheck:
    """How the limits of one day compare. examples: a few that differ, for people."""

    compared: int = 0
    agree: int = 0
    differ: int = 0
    examples: tuple[str, ...] = ()


def compare_limits(instruments: Sequence[Instrument], *, date: int, calendar: Calendar | None = None) -> LimitCheck:
    """Compare every instrument that brings limits of this date (yyyymmdd), or of no named one; indices have none."""
    told = [
        one
        for one in instruments
        if one.limits is not None and one.limits.date in (None, date) and one.board not in (Board.INDEX, Board.UNKNOWN)
    ]
    prev_close = np.array([one.limits.prev_close_cny for one in told if one.limits is not None], np.float64)
    up, down = price_limits_of(told, prev_close, date=date, calendar=calendar)
    differ = [
        f"{one.symbol} {one.name or ''}: {_pair(one.limits.up_cny, one.limits.down_cny)}, ours {_pair(high, low)}"
        for one, high, low in zip(told, up.tolist(), down.tolist(), strict=True)
        if one.limits is not None and not (_same(one.limits.up_cny, high) and _same(one.limits.down_cny, low))
    ]
    return LimitCheck(len(told), len(told) - len(differ), len(differ), tuple(differ[:EXAMPLES]))


def _same(theirs_cny: float, ours_cny: float) -> bool:
    """Tell whether two limits are one; 0 is their way to say that there is none, NaN ours."""
    return abs(theirs_cny - (0.0 if isnan(ours_cny) else ours_cny)) < _TIE_CNY


def _pair(up_cny: float, down_cny: float) -> str:
    return "none" if not up_cny or isnan(up_cny) else f"{down_cny:g}..{up_cny:g}"
