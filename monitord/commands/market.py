"""What files tell of the market: which instruments there are, how many bars, which went ex-rights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from feeds.errors import FeedError
from feeds.exrights import ExRight
from feeds.instruments import Instrument, instrument_of
from feeds.recordedfile import open_recording
from feeds.sessions import DAY_MS, SHANGHAI_MS, Calendar
from feeds.universe import is_symbol
from monitord.commands import CommandError
from monitord.commands.bars import format_of
from rules.bars import LONG_PERIODS, PERIOD_MINUTES
from rules.lints import KnownMarket

_DATE_IN_NAME = re.compile(r"(?<!\d)(20\d{6})(?!\d)")
_HALF_A_TICK: Final = 0.005


def known_market(
    tables: Sequence[Path], sessions: Sequence[Path], *, history: int | None, exrights: Sequence[ExRight] = ()
) -> KnownMarket:
    """Read tables of instruments and recorded sessions; raises CommandError for a file that cannot be used.

    A table has a column symbol, and may have name, sector, and with a date in the file's name last and prev_close.
    history: bars of each period that the feed has; None: as many as the sessions hold, or not known without any.
    """
    recorded = [day for path in sessions for day in _of_session(path)]
    days = [*(_of_table(path) for path in tables), *recorded]
    instruments: dict[str, Instrument] = {}
    for _, frame in days:
        for row in frame.to_dict("records"):
            known = instruments.get(str(row["symbol"]))
            if known is None or known.name is None:
                instruments[str(row["symbol"])] = _instrument(row)
    for one in exrights:
        instruments.setdefault(one.symbol, instrument_of(one.symbol))
    dates = {date for date, _ in recorded}
    ex_dates = dict(_ex_dates(days)) | {one.symbol: _date_text(one.date) for one in exrights}
    return KnownMarket(tuple(instruments.values()), _bars(len(dates), history), ex_dates)


def _instrument(row: Mapping[Any, Any]) -> Instrument:
    name, sector = row.get("name"), row.get("sector")
    sectors = tuple(sector.split(";")) if isinstance(sector, str) and sector else ()
    return instrument_of(str(row["symbol"]), name=name if isinstance(name, str) else None, sectors=sectors)


def _bars(days: int, history: int | None) -> dict[str, int]:
    """Return the bars there are of each period."""
    if history is not None:
        return dict.fromkeys(PERIOD_MINUTES, history)
    if not days:
        return {}
    return {period: days * (240 // minutes) for period, minutes in PERIOD_MINUTES.items() if period not in LONG_PERIODS}


def _ex_dates(days: Sequence[tuple[int | None, pd.DataFrame]]) -> Iterator[tuple[str, str]]:
    """Yield (symbol, date) where the previous close is not the last price of the trading day before."""
    dated = sorted(((date, frame) for date, frame in days if date is not None), key=lambda day: day[0])
    if len(dated) < 2:
        return
    calendar = Calendar.xshg()
    for (before, old), (date, new) in pairwise(dated):
        if calendar.previous(date) != before or not {"last", "prev_close"} <= set(old) & set(new):
            continue
        joined = new.merge(old[["symbol", "last"]], on="symbol", suffixes=("", "_before"))
        moved = (joined["prev_close"] - joined["last_before"]).abs() > _HALF_A_TICK
        yield from ((symbol, _date_text(date)) for symbol in joined["symbol"][moved])


def _date_text(date: int) -> str:
    return f"{date // 10_000}-{date // 100 % 100:02}-{date % 100:02}"


def _of_table(path: Path) -> tuple[int | None, pd.DataFrame]:
    """Return the date in a table's name, if any, and its rows of known columns."""
    try:
        frame = pd.read_csv(path, dtype={"symbol": str}) if format_of(path) == "csv" else pd.read_parquet(path)
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CommandError(f"{path}: cannot be read: {reason}") from None
    if "symbol" not in frame or not all(map(is_symbol, frame["symbol"])):
        raise CommandError(f"{path}: needs a column symbol of codes such as 600519.SH")
    match = _DATE_IN_NAME.search(path.stem)
    columns = [name for name in ("symbol", "name", "sector", "last", "prev_close") if name in frame]
    return None if match is None else int(match[1]), frame[columns]


def _of_session(path: Path) -> list[tuple[int, pd.DataFrame]]:
    """Return (date, each symbol's last price and previous close) of the days of a recorded session."""
    try:
        open_recording(path)
        columns = ["symbol", "ts_event", "last", "prev_close"]
        frame = (
            pd.read_csv(path, usecols=columns, dtype={"symbol": str})
            if ".csv" in path.suffixes
            else pd.read_parquet(path, columns=columns)
        )
    except FeedError as error:
        raise CommandError(str(error)) from None
    frame = frame[frame["last"] > 0].assign(day=(frame["ts_event"] + SHANGHAI_MS) // DAY_MS)
    found: list[tuple[int, pd.DataFrame]] = []
    for day, part in frame.groupby("day"):
        date = int(np.datetime64(int(str(day)), "D").astype(str).replace("-", ""))
        found.append((date, part.groupby("symbol", as_index=False)[["last", "prev_close"]].last()))
    return found
