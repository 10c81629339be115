"""Bars of the past from files: Parquet or CSV with symbol, period, ts_end (ms), open, high, low, close, and volume_lots
and amount_cny where they are known; prices of their own days.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import structlog

from feeds.errors import FeedError
from feeds.history import COLUMNS, PERIODS, PRICES, BarTable, sound, table_of
from feeds.universe import is_symbol

if TYPE_CHECKING:
    import pandas as pd

REQUIRED: Final = ("symbol", "period", "ts_end", *PRICES)

log = structlog.get_logger(__name__)


def read_files(files: Iterable[Path]) -> dict[str, BarTable]:
    """Return the bars of all files by period; of one bar in several files the last one's counts.

    Bars that cannot be (a price of 0, a high below the low) are left out, counted in the log. Raises FeedError for a
    file that is unusable as a whole.
    """
    frames = [_frame(file) for file in files]
    if not frames:
        return {}
    import pandas as pd  # where there are files: a daemon without any starts in half the time

    whole = pd.concat(frames, ignore_index=True)
    found: dict[str, BarTable] = {}
    for period, frame in whole.groupby("period", sort=False):
        columns = {name: frame[name].to_numpy(np.float64) for name in COLUMNS}
        symbols, ends_ms = frame["symbol"].to_numpy(dtype=str), frame["ts_end"].to_numpy(np.int64)
        found[str(period)] = table_of(str(period), symbols, ends_ms, columns=columns)
    return found


def _frame(file: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        frame = pd.read_csv(file, dtype={"symbol": str}) if file.suffix.lower() == ".csv" else pd.read_parquet(file)
    except (OSError, ValueError) as error:  # what pandas and pyarrow raise for a broken file are ValueErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FeedError(f"history file {file}: cannot be read: {reason}") from None
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise FeedError(f"history file {file}: no column {', '.join(missing)}; bars have {', '.join(REQUIRED)}")
    _check(file, frame)
    for name in COLUMNS:
        frame[name] = pd.to_numeric(frame[name], errors="coerce") if name in frame else np.nan
    if "suspended" in frame:
        frame = frame[~frame["suspended"].fillna(value=False).astype(bool)]
    frame = frame[["symbol", "period", "ts_end", *COLUMNS]]
    good = sound(table_view(frame))
    if not good.all():
        log.warning("history_bars_left_out", file=str(file), bars=int((~good).sum()), of=len(frame))
    return frame[good]


def table_view(frame: pd.DataFrame) -> BarTable:
    """Return the columns of a frame as they stand: neither in order nor by symbol."""
    columns = {name: frame[name].to_numpy(np.float64) for name in COLUMNS}
    nothing = np.zeros(len(frame), np.int64)
    return BarTable("", (), nothing, nothing, **columns, as_of=nothing[:0])


def _check(file: Path, frame: pd.DataFrame) -> None:
    import pandas as pd

    odd = [str(name) for name in frame["period"].unique() if name not in PERIODS]
    if odd:
        raise FeedError(f"history file {file}: period {odd[0]!r} is none of {', '.join(PERIODS)}")
    wrong = [str(code) for code in frame["symbol"].unique() if not is_symbol(code)]
    if wrong:
        raise FeedError(f"history file {file}: {wrong[0]!r} is no symbol such as 600519.SH")
    if not pd.api.types.is_integer_dtype(frame["ts_end"]):
        raise FeedError(f"history file {file}: ts_end holds {frame['ts_end'].dtype}; expected whole ms since 1970, UTC")
