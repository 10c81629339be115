"""Bars of the whole market as columns, and how stocks are dealt out to tests.

Five-minute bars of 1,673 stocks over ten days, and daily bars of 5,565 over fifteen.

Every function and formula is compared on a share of the stocks of its own, so that all stocks are compared with
something; with WHOLE_MARKET=1 in the environment each is compared on all of them, which takes most of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

WHOLE = bool(os.environ.get("WHOLE_MARKET"))
STOCKS, DAILY_STOCKS = 1_673, 5_565
DAYS = 15
DAILY_SHARES = 12
"""A daily test compares one stock in so many: 464, on which it takes as long as it does on five-minute bars."""
WORST = 1e-9
"""The largest error allowed, relative to the value or to 1."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of some stocks: each field (bars, n) float64, oldest first, NaN where a stock has none.

    there: (bars, n) bool, where it has one; ends_ms (bars, n) int64 Unix ms, 0 where it has none.
    """

    fields: Mapping[str, np.ndarray]
    there: np.ndarray
    ends_ms: np.ndarray

    def of(self, stocks: np.ndarray) -> Bars:
        """Return those of some stocks."""
        return Bars({w: c[:, stocks] for w, c in self.fields.items()}, self.there[:, stocks], self.ends_ms[:, stocks])


def read_bars(folder: Path) -> Bars:
    """Read the five-minute bars, each stock's from the first row on without holes; suspended stretches are no bars."""
    table = pq.read_table(folder / "bars" / "5m-201708.parquet").to_pandas()
    table = table[(table["open"] > 0) & ~table["suspended"]].sort_values(["symbol", "ts_end"])
    number = table.groupby("symbol").cumcount().to_numpy()
    code = table.groupby("symbol").ngroup().to_numpy()
    return _columns(table, number, code)


def read_daily(folder: Path) -> Bars:
    """Read the daily bars, a row for each trading day; a stock that was not traded has no bar of that day."""
    table = pq.read_table(folder / "bars" / "1d-202602-03.parquet").to_pandas()
    day = np.unique(table["ts_end"], return_inverse=True)[1]
    return _columns(table, day, table.groupby("symbol").ngroup().to_numpy())


def _columns(table: pd.DataFrame, number: np.ndarray, code: np.ndarray) -> Bars:
    """Put each row of the table at the bar and the stock it belongs to."""
    shape = int(number.max()) + 1, int(code.max()) + 1
    fields = {}
    for word, column in (("C", "close"), ("O", "open"), ("H", "high"), ("L", "low"), ("V", "volume_lots")):
        fields[word] = np.full(shape, np.nan)
        fields[word][number, code] = table[column].to_numpy(float)
    ends_ms = np.zeros(shape, np.int64)
    ends_ms[number, code] = table["ts_end"].to_numpy()
    return Bars(fields, ends_ms > 0, ends_ms)


def share(place: int, of: int, *, stocks: int = STOCKS) -> np.ndarray:
    """Return the stocks that the test at a place among so many is to compare."""
    return np.arange(stocks) if WHOLE else np.arange(place % of, stocks, of)


def error_of(mine: np.ndarray, theirs: np.ndarray, *, scale: float = 1.0) -> float:
    """Return the largest error relative to the value, or to `scale` where that is more; unknowns must be the same."""
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    known = ~np.isnan(theirs)
    same = mine[known] == theirs[known]  # infinities too
    with np.errstate(all="ignore"):
        errors = np.abs(mine[known] - theirs[known]) / np.maximum(np.abs(theirs[known]), scale)
    return float(np.max(np.where(same, 0.0, errors), initial=0.0))
