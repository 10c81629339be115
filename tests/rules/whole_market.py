"""Five-minute bars of the whole market: 1,673 stocks over ten days, as columns, and how they are dealt out to tests.

Every function and formula is compared on a share of the stocks of its own, so that all stocks are compared with
something; with WHOLE_MARKET=1 in the environment each is compared on all of them, which takes most of an hour.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

WHOLE = bool(os.environ.get("WHOLE_MARKET"))
STOCKS = 1_673
WORST = 1e-9
"""The largest error allowed, relative to the value or to 1."""


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of some stocks: each field (bars, n) float64, oldest first, NaN behind a stock's last one.

    count: (n,) int64 bars of each stock; ends_ms (bars, n) int64 Unix ms, 0 behind the last.
    """

    fields: Mapping[str, np.ndarray]
    count: np.ndarray
    ends_ms: np.ndarray

    def of(self, stocks: np.ndarray) -> Bars:
        """Return those of some stocks."""
        return Bars({w: c[:, stocks] for w, c in self.fields.items()}, self.count[stocks], self.ends_ms[:, stocks])


def read_bars(folder: Path) -> Bars:
    """Read the file; suspended stretches are no bars."""
    table = pq.read_table(folder / "bars" / "5m-201708.parquet").to_pandas()
    table = table[(table["open"] > 0) & ~table["suspended"]].sort_values(["symbol", "ts_end"])
    number = table.groupby("symbol").cumcount().to_numpy()
    code = table.groupby("symbol").ngroup().to_numpy()
    shape = int(number.max()) + 1, int(code.max()) + 1
    fields = {}
    for word, column in (("C", "close"), ("O", "open"), ("H", "high"), ("L", "low"), ("V", "volume_lots")):
        fields[word] = np.full(shape, np.nan)
        fields[word][number, code] = table[column].to_numpy(float)
    ends_ms = np.zeros(shape, np.int64)
    ends_ms[number, code] = table["ts_end"].to_numpy()
    return Bars(fields, np.bincount(code), ends_ms)


def share(place: int, of: int) -> np.ndarray:
    """Return the stocks that the test at a place among so many is to compare."""
    return np.arange(STOCKS) if WHOLE else np.arange(place, STOCKS, of)


def error_of(mine: np.ndarray, theirs: np.ndarray, *, scale: float = 1.0) -> float:
    """Return the largest error relative to the value, or to `scale` where that is more; unknowns must be the same."""
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    known = ~np.isnan(theirs)
    same = mine[known] == theirs[known]  # infinities too
    with np.errstate(all="ignore"):
        errors = np.abs(mine[known] - theirs[known]) / np.maximum(np.abs(theirs[known]), scale)
    return float(np.max(np.where(same, 0.0, errors), initial=0.0))
