"""Bars in files: Parquet or CSV to a table of one period, and evaluated bars back into a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from monitord.commands import CommandError
from rules.evaluate import BarTable, EvaluatedBars
from rules.rule import PERIODS

PRICES: Final = ("open", "high", "low", "close")
REQUIRED: Final = ("symbol", "ts_end", *PRICES)
AMOUNTS: Final = ("volume_lots", "amount_cny")
"""Columns that a file may lack; then they are unknown."""
BAR_PERIODS: Final = tuple(period for period in PERIODS if period != "tick")


def read_bars(file: Path, period: str | None) -> BarTable:
    """Read the bars of one period in the order of the file; columns that are not ours are ignored.

    Raises CommandError for a file that cannot be read, lacks a column, holds several periods and none is chosen, or
    has no bars of the one that is.
    """
    frame = _of_period(file, _read(file), period)
    columns = {name: _numbers(file, frame, name) for name in PRICES}
    columns |= {name: _numbers(file, frame, name) if name in frame else _unknown(frame) for name in AMOUNTS}
    return BarTable(
        period=str(frame["period"].iloc[0]),
        symbol=frame["symbol"].astype(str).to_numpy(dtype=object),
        ts_end=_times(file, frame),
        suspended=_truths(file, frame),
        **columns,
    )


def write_evaluated(rows: EvaluatedBars, file: Path) -> None:
    """Write symbol, ts_end, the outputs as written in the formula, and `condition`: 1, 0 or NaN = unknown.

    The file gets its name only when it is whole. Raises CommandError if it cannot be written.
    """
    taken = {"symbol", "ts_end", "condition"} & set(rows.outputs)
    if taken:
        raise CommandError(
            f"the output {min(taken)!r} of the formula has the name of a column of the result; rename it"
        )
    frame = pd.DataFrame({"symbol": rows.symbol, "ts_end": rows.ts_end, **rows.outputs, "condition": rows.condition})
    part = file.with_name(f".{file.name}.part")
    write: Callable[[Path], None] = {
        "csv": lambda path: frame.to_csv(path, index=False, na_rep="NaN", lineterminator="\n"),
        "parquet": lambda path: frame.to_parquet(path, index=False),
    }[format_of(file)]
    try:
        write(part)
        os.replace(part, file)
    except OSError as error:
        raise CommandError(f"{file}: cannot be written: {error.strerror or error}") from None
    finally:
        part.unlink(missing_ok=True)


def format_of(file: Path) -> str:
    """Return "csv" or "parquet" by the file's extension; raises CommandError for any other."""
    known = {".csv": "csv", ".parquet": "parquet"}
    if file.suffix.lower() not in known:
        raise CommandError(f"{file}: is neither .parquet nor .csv")
    return known[file.suffix.lower()]


def _read(file: Path) -> pd.DataFrame:
    try:
        if format_of(file) == "csv":
            return pd.read_csv(file, dtype={"symbol": str, "period": str})
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:  # what pandas and pyarrow raise for a broken file are ValueErrors
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(f"{file}: cannot be read: {reason}") from None


def _of_period(file: Path, frame: pd.DataFrame, period: str | None) -> pd.DataFrame:
    """Return the rows of one period, with its name in the column `period`."""
    missing = [name for name in REQUIRED if name not in frame]
    if missing:
        raise CommandError(f"{file}: no column {', '.join(missing)}; bars have at least {', '.join(REQUIRED)}")
    if "period" not in frame:
        if period is None:
            raise CommandError(f"{file}: does not say its period; name it: --period {'|'.join(BAR_PERIODS)}")
        frame = frame.assign(period=period)
    there = [str(name) for name in frame["period"].unique()]
    if period is None and len(there) > 1:
        raise CommandError(f"{file}: holds the periods {', '.join(there)}; choose one with --period")
    chosen = frame[frame["period"] == (period or (there or [""])[0])]
    if chosen.empty:
        raise CommandError(f"{file}: has no bars" + (f" of {period}; it holds {', '.join(there)}" if there else ""))
    return chosen


def _numbers(file: Path, frame: pd.DataFrame, name: str) -> Any:
    try:
        return pd.to_numeric(frame[name]).to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as error:
        raise CommandError(f"{file}: column {name} holds no numbers: {error}") from None


def _times(file: Path, frame: pd.DataFrame) -> Any:
    column = frame["ts_end"]
    if not pd.api.types.is_integer_dtype(column) or column.isna().any():
        raise CommandError(f"{file}: column ts_end holds {column.dtype}; expected whole ms since 1970, UTC")
    return column.to_numpy(dtype=np.int64)


def _truths(file: Path, frame: pd.DataFrame) -> Any:
    if "suspended" not in frame:
        return np.zeros(len(frame), np.bool_)
    column = frame["suspended"].fillna(value=False)
    if not pd.api.types.is_bool_dtype(column.infer_objects()) and not column.isin([0, 1]).all():
        raise CommandError(f"{file}: column suspended holds {column.dtype}; expected true or false")
    return column.astype(bool).to_numpy()


def _unknown(frame: pd.DataFrame) -> Any:
    return np.full(len(frame), np.nan)
