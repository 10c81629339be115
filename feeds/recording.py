"""Recorded sessions, Parquet and CSV, read as the ordered inputs of the engine.

A recording has one row per tick in arrival order, with the columns `symbol`, `ts_event` (ms UTC) and those of a tick
(feeds/tick.py); price 0 means none. What `record` writes has three more: `recv_ms`, `kind` (tick, heartbeat, silent,
gap, alive, control) and `text`. Files are read a stretch of rows at a time, so memory does not grow with their length.

How rows become inputs, the same in every run and at every speed:

- Several files are merged by their clock, ties in the order given. The clock of a row is the running maximum of its
  file's ts_event, held to recv_ms + 10 s, because the engine drops what is further ahead. In a file without recv_ms it
  is ts_event itself, which must not go back.
- Consecutive ticks whose clock shows the same second are one `TickBatch`. Any other cut would do: the engine's events
  do not depend on it.
- A second of which `symbols` leaves no tick is a `Heartbeat`, so that the market clock runs as in the whole recording.
- Where no recording brings its own marks and no row of any symbol comes for over 60 s of trading time, `silent` is put
  10 s behind the last row and `alive` before the next one.
- Control rows (`text`: [kind, text] in JSON) are no inputs of a feed and get no offset; `recorded` yields them where
  they stand, for who plays all that held. A feed tells of them the first table of instruments.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from feeds.errors import FeedError
from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat, Mark, MarkKind
from feeds.sessions import TRADING_DAY_MS, day_number, trading_clock_ms
from feeds.tick import ABSENT, BOOK, CORE, LIMITS, REST, BoolArray, FloatArray, IntArray, TickBatch

REQUIRED: Final = ("symbol", "ts_event", *CORE)
"""A recording without one of these is refused; any other column of a tick that it lacks is as ABSENT says."""
OPTIONAL: Final = (*REST, "status", "recv_ms", "kind", "text")

ROWS_AT_ONCE: Final = 65_536
"""Rows read from a file at a time: 20 MB with all columns."""
SILENT_OVER_MS: Final = 60_000
SILENT_AFTER_MS: Final = 10_000
FUTURE_MS: Final = 10_000
"""The engine drops a tick that is further ahead of its arrival than this, so it must not move the clock here either."""

_TUPLES: Final = 4096
"""Lists of symbols remembered, so that equal ones are one object and their rows are found at a glance."""

_TICK, _HEARTBEAT, _CONTROL = "tick", "heartbeat", "control"
_MARKS: Final = {str(kind): kind for kind in MarkKind}
_KINDS: Final = (_TICK, _HEARTBEAT, _CONTROL, *_MARKS)

_WHOLE: Final = {"ts_event": pa.int64(), "recv_ms": pa.int64(), "trades": pa.int64(), "status": pa.int16()}
_TEXT: Final = ("symbol", "kind", "text")
_HEAD_ROWS: Final = 64
"""Where a recording's control records are looked for without reading it: before its first ticks."""
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
    first = next(_tables(recording, rows=1), None)
    if first is None:
        raise FeedError(f"{path}: holds no rows")
    return Recording(path, recording.columns, int(_clock(recording, first, 0, None)[0]))


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


def _tables(recording: Recording, *, rows: int = ROWS_AT_ONCE) -> Iterator[Any]:
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


def _clock(recording: Recording, table: Any, rows_before: int, last_ms: int | None) -> IntArray:
    """Return the (n,) clock of these rows, the clock having stood at `last_ms`; FeedError for a row that cannot be."""
    path, ts_ms = recording.path, _whole(table, "ts_event", recording.path, rows_before)
    _refuse(path, "ts_event", ts_ms < _EARLIEST_MS, rows_before, "is before 1990; expected ms since 1970, UTC")
    if recording.is_ordered:
        previous = np.concatenate(([ts_ms[0] if last_ms is None else last_ms], ts_ms[:-1]))
        back = "is earlier than the row before; rows must be in the order of arrival (or bring recv_ms)"
        _refuse(path, "ts_event", ts_ms < previous, rows_before, back)
        return ts_ms
    held = np.minimum(ts_ms, _recv(table, ts_ms) + FUTURE_MS)
    if last_ms is not None:
        held[0] = max(held[0], last_ms)
    clock: IntArray = np.maximum.accumulate(held)
    return clock


def _check_rows(recording: Recording, table: Any, rows_before: int) -> None:
    """Raise FeedError for a row of no known kind, or a tick without a symbol."""
    path, ticks = recording.path, np.ones(table.num_rows, np.bool_)
    if recording.has_marks:
        kinds = _texts(table, "kind", _TICK)
        known = np.isin(kinds, _KINDS)
        _refuse(path, "kind", ~known, rows_before, f"is none of {', '.join(_KINDS)}")
        ticks = kinds == _TICK
    _refuse(path, "symbol", ticks & (_texts(table, "symbol", "") == ""), rows_before, "is empty")


def _refuse(path: Path, column: str, bad: BoolArray, rows_before: int, why: str) -> None:
    if bad.any():
        raise FeedError(f"{path}: row {rows_before + int(np.argmax(bad)) + 1}: {column} {why}")


def _whole(table: Any, name: str, path: Path, rows_before: int) -> IntArray:
    column = table[name]
    if column.null_count:
        _refuse(path, name, column.is_null().to_numpy(), rows_before, "is missing; expected a whole number")
    array: IntArray = column.to_numpy()
    return array


def _recv(table: Any, ts_ms: IntArray) -> IntArray:
    """Return when the rows came: recv_ms, and ts_event where there is none."""
    if "recv_ms" not in table.column_names:
        return ts_ms
    recv: IntArray = pc.coalesce(table["recv_ms"], table["ts_event"]).to_numpy()
    return recv


def _texts(table: Any, name: str, absent: str) -> Any:
    """Return a text column as an (n,) object array in which equal texts are one object."""
    if name not in table.column_names:
        return np.full(table.num_rows, absent, object)
    coded = pc.fill_null(table[name], absent).combine_chunks().dictionary_encode()
    return np.array(coded.dictionary.to_pylist(), object)[coded.indices.to_numpy()]


# ── several files ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Source:
    """One recording on its way through the merge: the rows read and not yet played, and how far they reach."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.reach_ms = recording.first_ms
        self.ended = False
        self._tables = _tables(recording)
        self._held: Any = None
        self._rows = 0

    def read_on(self) -> None:
        """Read the next stretch of rows, or find that there are no more."""
        table = next(self._tables, None)
        if table is None:
            self.ended = True
            return
        _check_rows(self.recording, table, self._rows)
        clock = _clock(self.recording, table, self._rows, self.reach_ms if self._rows else None)
        self._rows += table.num_rows
        self.reach_ms = int(clock[-1])
        table = table.append_column("clock", pa.array(clock))
        self._held = table if self._held is None else pa.concat_tables([self._held, table])

    def take_before(self, end_ms: int | None) -> Any:
        """Take the rows whose clock is before `end_ms` (None: all); None if there are none."""
        if self._held is None:
            return None
        held, n = self._held, self._held.num_rows
        count = n if end_ms is None else int(np.searchsorted(held["clock"].to_numpy(), end_ms))
        self._held = held.slice(count) if count < n else None
        return held.slice(0, count) if count else None


def passages(recordings: Sequence[Recording]) -> Iterator[Any]:
    """Merge recordings into Arrow tables of whole seconds, in order, with the rows' `clock`.

    A recording is not read before the others reach its first row, so that a year of files takes the memory of a day.
    Raises FeedError from a row that cannot be.
    """
    sources = [_Source(recording) for recording in recordings]
    while reading := [source for source in sources if not source.ended]:
        # Whatever is still to be read comes at or after the slowest source, so the seconds before it are complete.
        slowest = min(reading, key=lambda source: source.reach_ms)
        yield from _merged(sources, slowest.reach_ms // 1000 * 1000)
        slowest.read_on()
    yield from _merged(sources, None)


def _merged(sources: Sequence[_Source], end_ms: int | None) -> Iterator[Any]:
    parts = [part for part in (source.take_before(end_ms) for source in sources) if part is not None]
    if len(parts) > 1:
        merged = pa.concat_tables(parts, promote_options="default")
        yield merged.take(np.argsort(merged["clock"].to_numpy(), kind="stable"))
    else:
        yield from parts


# ── rows to inputs ────────────────────────────────────────────────────────────────────────────────────────────────


class Cutter:
    """Cuts passages into inputs and numbers them; holds what one passage must know of the one before."""

    def __init__(self, recordings: Iterable[Recording], *, symbols: Collection[str] | None = None) -> None:
        """Keep only ticks of `symbols` (None: all); judge silence unless a recording brings marks of its own."""
        self._symbols = None if symbols is None else np.array(sorted(symbols), object)
        self._judges_silence = not any(recording.has_marks for recording in recordings)
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._clock_ms: int | None = None
        self._next = 0

    def cut(self, passage: Any) -> Iterator[FeedInput]:
        """Yield the inputs of a passage with offsets that go on from the passage before."""
        return (one for one in self.everything(passage) if isinstance(one, FeedInput))

    def everything(self, passage: Any) -> Iterator[FeedInput | Control]:
        """Yield the inputs of a passage and the control records between them; FeedError for a record that is none."""
        clock: IntArray = passage["clock"].to_numpy()
        kinds = _texts(passage, "kind", _TICK)
        ticks = kinds == _TICK
        kept = ticks if self._symbols is None else ticks & np.isin(_texts(passage, "symbol", ""), self._symbols)
        rows_kept = np.concatenate(([0], np.cumsum(kept)))
        if len(self._tuples) > _TUPLES:
            self._tuples.clear()
        ticks_kept = _Ticks(passage if kept.all() else passage.filter(pa.array(kept)), self._tuples)
        edges = _edges(clock, ticks)
        for start, end in pairwise(edges):
            yield from self._silence(int(clock[start]))
            self._clock_ms = int(clock[end - 1])
            if not ticks[start]:
                yield from self._said(passage, start, kinds[start])
            elif rows_kept[start] < rows_kept[end]:
                yield self._numbered(ticks_kept.batch(int(rows_kept[start]), int(rows_kept[end])))
            else:
                yield self._numbered(Heartbeat(self._clock_ms))

    def _numbered(self, value: TickBatch | Heartbeat | Mark) -> FeedInput:
        self._next += 1
        return FeedInput(self._next - 1, value)

    def _said(self, passage: Any, row: int, kind: str) -> Iterator[FeedInput | Control]:
        """Yield what a row says that is no tick."""
        ts_ms = passage["ts_event"][row].as_py()
        if kind == _CONTROL:
            yield from _control(passage["text"][row].as_py() if "text" in passage.column_names else None)
        if kind == _HEARTBEAT:
            yield self._numbered(Heartbeat(ts_ms))
        elif kind in _MARKS:
            reason = passage["text"][row].as_py() if "text" in passage.column_names else None
            yield self._numbered(Mark(_MARKS[kind], ts_ms, reason or ""))

    def _silence(self, next_ms: int) -> Iterator[FeedInput]:
        """Yield the two marks around a silence that ends with a row at `next_ms`."""
        last_ms = self._clock_ms
        if last_ms is None or not self._judges_silence or next_ms - last_ms <= SILENT_OVER_MS:
            return
        silent_ms = trading_ms_between(last_ms, next_ms)
        if silent_ms > SILENT_OVER_MS:
            reason = f"no row for {silent_ms // 1000} s of trading time"
            yield self._numbered(Mark(MarkKind.SILENT, last_ms + SILENT_AFTER_MS, reason))
            yield self._numbered(Mark(MarkKind.ALIVE, next_ms, ""))


def trading_ms_between(last_ms: int, next_ms: int) -> int:
    """Return the trading time between two rows; days between theirs that were not recorded at all don't count."""
    passed_ms = trading_clock_ms(next_ms) - trading_clock_ms(last_ms)
    return passed_ms if day_number(last_ms) == day_number(next_ms) else passed_ms + TRADING_DAY_MS


def _edges(clock: IntArray, ticks: BoolArray) -> list[int]:
    """Return where inputs begin, and the end: at each new second, and around each row that is no tick."""
    second = clock // 1000
    begins = (second[1:] != second[:-1]) | ~ticks[1:] | ~ticks[:-1]
    return [0, *(np.flatnonzero(begins) + 1).tolist(), len(clock)]


class _Ticks:
    """Tick rows as arrays, of which batches are slices; a lazy column is decoded once for all of them."""

    def __init__(self, table: Any, tuples: dict[tuple[str, ...], tuple[str, ...]]) -> None:
        self._table = table
        self._symbols = _texts(table, "symbol", "").tolist()
        self._tuples = tuples
        self._ts_ms: IntArray = table["ts_event"].to_numpy()
        self._recv_ms = _recv(table, self._ts_ms)
        self._status = (
            pc.fill_null(table["status"], 0).to_numpy()
            if "status" in table.column_names
            else np.zeros(table.num_rows, np.int16)
        )
        self._core = {name: _column(table, name) for name in CORE}
        self._rest: dict[str, FloatArray] | None = None

    def batch(self, start: int, end: int) -> TickBatch:
        """Return the ticks of these rows; all arrays are views."""
        symbols = tuple(self._symbols[start:end])
        rows = slice(start, end)
        return TickBatch(
            self._tuples.setdefault(symbols, symbols),
            self._ts_ms[rows],
            columns={name: array[rows] for name, array in self._core.items()},
            recv_ms=self._recv_ms[rows],
            status=self._status[rows],
            load=lambda: self._load(rows),
        )

    def _load(self, rows: slice) -> Mapping[str, FloatArray]:
        if self._rest is None:
            present = set(self._table.column_names)
            self._rest = {name: _column(self._table, name) for name in REST if name in present}
        return {name: array[rows] for name, array in self._rest.items()}


_PRICES: Final = frozenset((*CORE[:5], *LIMITS, *(name for name in BOOK if "_price_" in name)))


def _column(table: Any, name: str) -> FloatArray:
    """Return a column as float64: a price of 0 is NaN, a null what ABSENT says."""
    array: FloatArray = table[name].to_numpy().astype(np.float64, copy=False)
    if name in _PRICES:
        return np.where(array == 0, np.nan, array) if (array == 0).any() else array
    absent = ABSENT[name]
    return array if absent != absent else np.where(np.isnan(array), absent, array)


def _control(text: str | None) -> Iterator[Control]:
    """Yield the control record of a row's text; nothing for a row without one."""
    if not text:
        return
    try:
        kind, content = orjson.loads(text)
        yield Control(ControlKind(kind), str(content))
    except ValueError:
        raise FeedError(f"a control row holds {text[:60]!r}; expected [kind, text] in JSON") from None


# ── offline ───────────────────────────────────────────────────────────────────────────────────────────────────────


def open_recordings(paths: Iterable[str | Path]) -> tuple[Recording, ...]:
    """Look at every file; raises FeedError for the first that is no recording, or if there is none."""
    recordings = tuple(open_recording(path) for path in paths)
    if not recordings:
        raise FeedError("there is no recording to play; name Parquet or CSV files")
    return recordings


def inputs(paths: Iterable[str | Path], symbols: Collection[str] | None = None) -> Iterator[FeedInput]:
    """Yield the inputs of these recordings, the same that `ReplayFeed` yields; for commands without an event loop.

    Raises FeedError before the first input for a file that is no recording, and where a row cannot be.
    """
    recordings = open_recordings(paths)
    cutter = Cutter(recordings, symbols=symbols)
    for passage in passages(recordings):
        yield from cutter.cut(passage)


def recorded(
    paths: Iterable[str | Path], symbols: Collection[str] | None = None, *, controls: Collection[ControlKind]
) -> Iterator[FeedInput | Control]:
    """Yield the inputs of these recordings, and between them each control record of these kinds that says a new thing.

    Raises FeedError as `inputs` does.
    """
    recordings = open_recordings(paths)
    cutter = Cutter(recordings, symbols=symbols)
    known: dict[ControlKind, Control] = {}
    for passage in passages(recordings):
        for one in cutter.everything(passage):
            if isinstance(one, FeedInput):
                yield one
            elif one.kind in controls and known.get(one.kind) != one:
                known[one.kind] = one
                yield one


def first_control(recordings: Iterable[Recording], kind: ControlKind) -> Control | None:
    """Return the first control record of a kind among the first rows of these recordings, if there is one."""
    for recording in recordings:
        if "kind" not in recording.columns:
            continue
        table = next(_tables(recording, rows=_HEAD_ROWS))
        for place in np.flatnonzero(_texts(table, "kind", _TICK) == _CONTROL).tolist():
            for control in _control(table["text"][place].as_py() if "text" in table.column_names else None):
                if control.kind is kind:
                    return control
    return None
