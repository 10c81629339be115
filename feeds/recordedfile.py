"""A recorded session as a file: which columns it has, its rows as Arrow tables, and the clock of each row.

feeds/recording.py says what rows mean and how they become inputs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from feeds.errors import FeedError
from feeds.inputs import MarkKind
from feeds.tick import CORE, REST, BoolArray, IntArray

REQUIRED: Final = ("symbol", "ts_event", *CORE)
"""A recording without one of these is refused; any other column of a tick that it lacks is as ABSENT says."""
OPTIONAL: Final = (*REST, "status", "recv_ms", "kind", "text")

ROWS_AT_ONCE: Final = 65_536
"""Rows read from a file at a time: 20 MB with all columns."""
FUTURE_MS: Final = 10_000
"""The engine drops a tick that is further ahead of its arrival than this, so it must not move the clock here either."""

TICK, HEARTBEAT, CONTROL, BARS = "tick", "heartbeat", "control", "bars"
"""What a row may be, besides a mark; bars of the past stand in `text`, as base64 of feeds/history.py's bytes."""
MARKS: Final = {str(kind): kind for kind in MarkKind}
_KINDS: Final = (TICK, HEARTBEAT, CONTROL, BARS, *MARKS)

_WHOLE: Final = {"ts_event": pa.int64(), "recv_ms": pa.int64(), "trades": pa.int64(), "status": pa.int16()}
_TEXT: Final = ("symbol", "kind", "text")
_EARLIEST_MS: Final = 631_152_000_000
"""1990-01-01: the exchanges are younger, and a time in seconds is far below."""


# ── one file ──────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class Recording:
    """A file found readable; `columns` are those of ours that it has, `first_ms` is the clock of its first row."""

    path: Path
    columns: tuple[str, ...]
    first_ms: int = 0

    @property
    def has_marks(self) -> bool:
        """Tell whether the recorder wrote down what its feed said about itself."""
        return "kind" in self.columns

    @property
    def is_ordered(self) -> bool:
        """Tell whether ts_event must not go back: rows are known to be in the order of arrival only with recv_ms."""
        return "recv_ms" not in self.columns


def open_recording(path: str | Path) -> Recording:
    """Look at a file's columns and first row.

    Raises FeedError naming the file, and the column where one is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise FeedError(f"{path}: {'is a folder; name its files' if path.is_dir() else 'there is no such file'}")
    fields = _fields(path)
    missing = [name for name in REQUIRED if name not in fields]
    if missing:
        raise FeedError(
            f"{path}: no column {', '.join(missing)}; a recorded session has at least {', '.join(REQUIRED)}"
        )
    recording = Recording(path, tuple(name for name in (*REQUIRED, *OPTIONAL) if name in fields))
    if not _is_csv(path):  # the CSV reader is told the types and finds fault itself
        for name in recording.columns:
            _check_type(path, name, fields[name])
    first = next(tables(recording, rows=1), None)
    if first is None:
        raise FeedError(f"{path}: holds no rows")
    return Recording(path, recording.columns, int(clock_of(recording, first, 0, None)[0]))


def fingerprint(paths: Iterable[str | Path], symbols: Collection[str] | None = None) -> str:
    """Return a stable text for what would be played: file names, sizes, first and last bytes, and the symbols chosen.

    A Parquet file's footer, which holds counts and extremes of every column, is among its last bytes. Times of
    modification say nothing about content and are left out. Raises FeedError for a file that cannot be read.
    """
    digest = hashlib.sha256(repr(None if symbols is None else sorted(symbols)).encode())
    for path in map(Path, paths):
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(65_536)
                file.seek(max(0, size - 65_536))
                digest.update(repr((path.name, size)).encode() + head + file.read())
        except OSError as error:
            raise FeedError(f"{path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()[:16]


def _is_csv(path: Path) -> bool:
    return ".csv" in (suffix.lower() for suffix in path.suffixes)  # .csv.gz too


def _type(name: str) -> Any:
    """Return the Arrow type that a column of ours is read into."""
    return pa.string() if name in _TEXT else _WHOLE.get(name, pa.float64())


def _fields(path: Path) -> dict[str, Any]:
    """Return the file's column types by name."""
    try:
        schema = pa.csv.open_csv(path).schema if _is_csv(path) else pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return {field.name: field.type for field in schema}


def _unreadable(path: Path, error: Exception) -> FeedError:
    expected = "a CSV file with a header" if _is_csv(path) else "a Parquet file (a CSV file is known by .csv)"
    reason = " ".join(str(error).split()) or type(error).__name__
    return FeedError(f"{path}: cannot be read as {expected}: {reason}")


def _check_type(path: Path, name: str, found: Any) -> None:
    """Raise FeedError unless the values of a Parquet column can be taken for ours without changing them."""
    types = pa.types
    if types.is_dictionary(found):
        found = found.value_type
    if name in _TEXT:
        expected, good = "text", types.is_string(found) or types.is_large_string(found)
    elif name in _WHOLE:
        expected, good = "whole numbers" + (" (ms since 1970, UTC)" if "_" in name else ""), types.is_integer(found)
    else:
        expected, good = "numbers", types.is_integer(found) or types.is_floating(found) or types.is_decimal(found)
    if not (good or types.is_null(found)):
        raise FeedError(f"{path}: column {name} holds {found}; expected {expected}")


def tables(recording: Recording, *, rows: int = ROWS_AT_ONCE) -> Iterator[Any]:
    """Read a file as Arrow tables of its columns in our types, none of them empty."""
    path = recording.path
    schema = pa.schema([(name, _type(name)) for name in recording.columns])
    try:
        if _is_csv(path):
            options = pa.csv.ConvertOptions(
                column_types=schema, include_columns=list(recording.columns), strings_can_be_null=True
            )
            with pa.csv.open_csv(path, convert_options=options) as reader:
                yield from (pa.Table.from_batches([batch]) for batch in reader if batch.num_rows)
        else:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(rows, columns=list(recording.columns)):
                    if batch.num_rows:
                        yield pa.Table.from_batches([batch]).select(list(recording.columns)).cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


# ── the clock of a file ───────────────────────────────────────────────────────────────────────────────────────────


def clock_of(recording: Recording, table: Any, rows_before: int, last_ms: int | None) -> IntArray:
    """Return the (n,) clock of these rows, the clock having stood at `last_ms`; FeedError for a row that cannot be."""
    path, ts_ms = recording.path, _whole(table, "ts_event", recording.path, rows_before)
    _refuse(path, "ts_event", ts_ms < _EARLIEST_MS, rows_before, "is before 1990; expected ms since 1970, UTC")
    if recording.is_ordered:
        previous = np.concatenate(([ts_ms[0] if last_ms is None else last_ms], ts_ms[:-1]))
        back = "is earlier than the row before; rows must be in the order of arrival (or bring recv_ms)"
        _refuse(path, "ts_event", ts_ms < previous, rows_before, back)
        return ts_ms
    held = np.minimum(ts_ms, arrivals(table, ts_ms) + FUTURE_MS)
    if last_ms is not None:
        held[0] = max(held[0], last_ms)
    clock: IntArray = np.maximum.accumulate(held)
    return clock


def check_rows(recording: Recording, table: Any, rows_before: int) -> None:
    """Raise FeedError for a row of no known kind, or a tick without a symbol."""
    path, ticks = recording.path, np.ones(table.num_rows, np.bool_)
    if recording.has_marks:
        kinds = texts(table, "kind", TICK)
        known = np.isin(kinds, _KINDS)
        _refuse(path, "kind", ~known, rows_before, f"is none of {', '.join(_KINDS)}")
        ticks = kinds == TICK
    _refuse(path, "symbol", ticks & (texts(table, "symbol", "") == ""), rows_before, "is empty")


def _refuse(path: Path, column: str, bad: BoolArray, rows_before: int, why: str) -> None:
    if bad.any():
        raise FeedError(f"{path}: row {rows_before + int(np.argmax(bad)) + 1}: {column} {why}")


def _whole(table: Any, name: str, path: Path, rows_before: int) -> IntArray:
    column = table[name]
    if column.null_count:
        _refuse(path, name, column.is_null().to_numpy(), rows_before, "is missing; expected a whole number")
    array: IntArray = column.to_numpy()
    return array


def arrivals(table: Any, ts_ms: IntArray) -> IntArray:
    """Return when the rows came: recv_ms, and ts_event where there is none."""
    if "recv_ms" not in table.column_names:
        return ts_ms
    recv: IntArray = pc.coalesce(table["recv_ms"], table["ts_event"]).to_numpy()
    return recv


def texts(table: Any, name: str, absent: str) -> Any:
    """Return a text column as an (n,) object array in which equal texts are one object."""
    if name not in table.column_names:
        return np.full(table.num_rows, absent, object)
    coded = pc.fill_null(table[name], absent).combine_chunks().dictionary_encode()
    return np.array(coded.dictionary.to_pylist(), object)[coded.indices.to_numpy()]
