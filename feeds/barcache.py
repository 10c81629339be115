"""`BarCache`: our own bars on disk, one Parquet file per period and trade date: what a start warms up from.

Bars are kept at the prices of their day. What the day multiplied its past by (ex-rights) stands in its file, so that
older days can be brought to later prices. A file is whole or, whenever we are killed, not there; one that is damaged or
not ours is logged and taken for missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import structlog

from feeds.disk import sync_folder
from feeds.errors import FeedError
from feeds.history import COLUMNS, PERIODS, BarTable, PastBars, sound, table_of
from feeds.sessions import DAY_MS, unix_ms

FORMAT: Final = 1
_META: Final = b"monitord.bars"
_SUFFIX: Final = ".parquet"
_BARS_A_DAY: Final = {"1m": 240, "5m": 48, "15m": 16, "30m": 8, "60m": 4, "1d": 1}

log = structlog.get_logger(__name__)
OfDay = Mapping[str, tuple[float, float]]


class _Unusable(Exception):
    """Why a file is not taken."""


def days_for(period: str, bars: int) -> int:
    """Return how many trading days hold so many bars of a period, with some over for days without trading."""
    return -(-bars * 6 // 5 // _BARS_A_DAY[period]) + 3


class BarCache:
    """The bars in one folder. Blocking calls, one writer; a reader beside it sees whole files only.

    only: symbols that are read, and of each file one more, the one with the most bars: it tells whether a day is whole.
    """

    def __init__(self, folder: Path, *, only: frozenset[str] | None = None) -> None:
        self.folder = folder
        self._only = only

    def write(self, table: BarTable, date: int, factors: OfDay) -> Path | None:
        """Put a day's bars on the disk, over what was there of it; None where there are none.

        factors: symbol → what prices and volumes of before were multiplied by that day. Raises FeedError where the disk
        refuses; what was there then stays.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        if not len(table):
            return None
        meta = {"format": FORMAT, "period": table.period, "date": date, "factors": factors}
        symbols = pa.DictionaryArray.from_arrays(table.code.astype(np.int32), pa.array(table.symbols))
        columns = {"symbol": symbols, "ts_end": pa.array(table.ends_ms)}
        columns |= {name: pa.array(getattr(table, name)) for name in COLUMNS}
        content = pa.table(columns).replace_schema_metadata({_META: orjson.dumps(meta)})
        path = self._path(table.period, date)
        beside = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                pq.write_table(content, file, compression="zstd", write_page_checksum=True)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise FeedError(f"cannot write {path}: {error.strerror or error}; check the disk's space") from error
        return path

    def dates(self, period: str) -> list[int]:
        """Return the trade dates there are files of, oldest first."""
        found = (self.folder / period).glob(f"*{_SUFFIX}")
        return sorted(int(path.stem) for path in found if path.stem.isdigit() and len(path.stem) == 8)

    def read(self, period: str, *, bars: int, through: int) -> PastBars | None:
        """Return the days that hold the newest `bars` up to a date, and what days multiplied their past by.

        None where there is nothing to read.
        """
        if period not in _BARS_A_DAY:
            return None
        dates = [date for date in self.dates(period) if date <= through][-days_for(period, bars) :]
        days = list(self._days(period, dates))
        if not days:
            return None
        columns = {name: np.concatenate([day[name] for _, day, _ in days]) for name in COLUMNS}
        symbols = np.concatenate([day["symbol"] for _, day, _ in days])
        ends_ms = np.concatenate([day["ts_end"] for _, day, _ in days])
        factors = {date: moved for date, _, moved in days if moved}
        return PastBars(table_of(period, symbols, ends_ms, columns=columns), factors)

    def prune(self, *, bars: int) -> int:
        """Delete the days beyond those that hold so many bars of each period; return how many files went."""
        gone = 0
        for period in _BARS_A_DAY:
            for date in self.dates(period)[: -days_for(period, bars)]:
                self._path(period, date).unlink(missing_ok=True)
                gone += 1
            for left in (self.folder / period).glob("*.partial"):  # of a writer that was killed
                left.unlink(missing_ok=True)
        return gone

    def periods(self) -> Sequence[str]:
        """Return the periods there are any files of."""
        return [period for period in PERIODS if (self.folder / period).is_dir() and self.dates(period)]

    def _path(self, period: str, date: int) -> Path:
        return self.folder / period / f"{date}{_SUFFIX}"

    def _days(self, period: str, dates: Sequence[int]) -> Iterator[tuple[int, Mapping[str, Any], OfDay]]:
        for date in dates:
            path = self._path(period, date)
            try:
                yield date, *_read(path, period, date, only=self._only)
            except (_Unusable, OSError) as error:
                log.warning("bars_skipped", file=str(path), why=str(error), hint="delete it; another source is asked")


def _read(path: Path, period: str, date: int, *, only: frozenset[str] | None) -> tuple[Mapping[str, Any], OfDay]:
    """Read one day; raises _Unusable with the reason."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        content = pq.read_table(path, page_checksum_verification=True)
        meta = orjson.loads((content.schema.metadata or {}).get(_META, b"null"))
        if not isinstance(meta, dict):
            raise _Unusable("it is not one of ours")
        for key, wanted in (("format", FORMAT), ("period", period), ("date", date)):
            if meta.get(key) != wanted:
                raise _Unusable(f"its {key} is {meta.get(key)!r}, not {wanted!r}")
        if only is not None:
            content = _part(content, only)
        found = {name: content[name].to_numpy() for name in ("ts_end", *COLUMNS)}
        found["symbol"] = content["symbol"].cast(pa.string()).to_numpy().astype(str)
        factors = {str(symbol): (float(pair[0]), float(pair[1])) for symbol, pair in meta["factors"].items()}
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _Unusable(f"damaged or cut short: {' '.join(str(error).split())[:200]}") from None
    begins_ms, ends_ms = unix_ms(date), found["ts_end"]
    if not ((ends_ms >= begins_ms) & (ends_ms < begins_ms + DAY_MS)).all():
        raise _Unusable("it holds bars of another day")
    table = table_of(period, found["symbol"], ends_ms, columns={name: found[name] for name in COLUMNS})
    if len(table) != len(ends_ms) or not sound(table).all():
        raise _Unusable("it holds bars that cannot be")
    return found, factors


def _part(content: Any, only: frozenset[str]) -> Any:
    """Return the rows of some symbols, and those of the one that has the most."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = content["symbol"].cast(pa.string()).combine_chunks()
    counts = pc.value_counts(column).to_pylist()
    densest = max(counts, key=lambda one: one["counts"], default=None)
    wanted = sorted(only | ({densest["values"]} if densest else set()))
    return content.filter(pc.is_in(column, value_set=pa.array(wanted, pa.string())))
