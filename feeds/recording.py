"""Recorded sessions, Parquet and CSV, read as the ordered inputs of the engine.

A recording has one row per tick in arrival order, with the columns `symbol`, `ts_event` (ms UTC) and those of a tick
(feeds/tick.py); price 0 means none. What `record` writes has three more: `recv_ms`, `kind` (tick, heartbeat, silent,
gap, alive, control, bars) and `text`. Files are read a stretch of rows at a time, so memory does not grow with length.

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
- Rows of bars are those of the past that a warm-up brought; `recorded` yields them too, as one input each.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from feeds.errors import FeedError
from feeds.history import Bars
from feeds.history import decode as decode_bars
from feeds.inputs import Control, ControlKind, FeedInput, Heartbeat, Mark, MarkKind
from feeds.recordedfile import (
    BARS,
    CONTROL,
    HEARTBEAT,
    MARKS,
    TICK,
    Recording,
    arrivals,
    check_rows,
    clock_of,
    open_recording,
    tables,
    texts,
)
from feeds.sessions import TRADING_DAY_MS, day_number, trading_clock_ms
from feeds.tick import ABSENT, BOOK, CORE, LIMITS, REST, BoolArray, FloatArray, IntArray, TickBatch

SILENT_OVER_MS: Final = 60_000
SILENT_AFTER_MS: Final = 10_000

_TUPLES: Final = 4096
"""Lists of symbols remembered, so that equal ones are one object and their rows are found at a glance."""
_HEAD_ROWS: Final = 64
"""Where a recording's control records are looked for without reading it: before its first ticks."""


# ── several files ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Source:
    """One recording on its way through the merge: the rows read and not yet played, and how far they reach."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording
        self.reach_ms = recording.first_ms
        self.ended = False
        self._tables = tables(recording)
        self._held: Any = None
        self._rows = 0

    def read_on(self) -> None:
        """Read the next stretch of rows, or find that there are no more."""
        table = next(self._tables, None)
        if table is None:
            self.ended = True
            return
        check_rows(self.recording, table, self._rows)
        clock = clock_of(self.recording, table, self._rows, self.reach_ms if self._rows else None)
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

    def __init__(
        self, recordings: Iterable[Recording], *, symbols: Collection[str] | None = None, bars: bool = False
    ) -> None:
        """Keep only ticks of `symbols` (None: all); judge silence unless a recording brings marks of its own.

        bars: `everything` yields bars of the past too.
        """
        self._symbols = None if symbols is None else np.array(sorted(symbols), object)
        self._judges_silence = not any(recording.has_marks for recording in recordings)
        self._bars = bars
        self._tuples: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._clock_ms: int | None = None
        self._next = 0

    def cut(self, passage: Any) -> Iterator[FeedInput]:
        """Yield the inputs of a passage with offsets that go on from the passage before."""
        return (one for one in self.everything(passage) if isinstance(one, FeedInput))

    def everything(self, passage: Any) -> Iterator[FeedInput | Control | Bars]:
        """Yield the inputs of a passage and the records between them; FeedError for a record that is none."""
        clock: IntArray = passage["clock"].to_numpy()
        kinds = texts(passage, "kind", TICK)
        ticks = kinds == TICK
        kept = ticks if self._symbols is None else ticks & np.isin(texts(passage, "symbol", ""), self._symbols)
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

    def _said(self, passage: Any, row: int, kind: str) -> Iterator[FeedInput | Control | Bars]:
        """Yield what a row says that is no tick."""
        ts_ms = passage["ts_event"][row].as_py()
        if kind == CONTROL:
            yield from _control(passage["text"][row].as_py() if "text" in passage.column_names else None)
        elif kind == BARS and self._bars:
            bars = _past(passage["text"][row].as_py())
            yield bars if self._symbols is None else bars.of(self._symbols)
        elif kind == HEARTBEAT:
            yield self._numbered(Heartbeat(ts_ms))
        elif kind in MARKS:
            reason = passage["text"][row].as_py() if "text" in passage.column_names else None
            yield self._numbered(Mark(MARKS[kind], ts_ms, reason or ""))

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
        self._symbols = texts(table, "symbol", "").tolist()
        self._tuples = tuples
        self._ts_ms: IntArray = table["ts_event"].to_numpy()
        self._recv_ms = arrivals(table, self._ts_ms)
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


def _past(text: str | None) -> Bars:
    """Return the bars of a row's text."""
    try:
        return decode_bars(base64.b64decode(text or "", validate=True))
    except (binascii.Error, FeedError) as error:
        raise FeedError(f"a row of bars cannot be read: {error}") from None


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
    paths: Iterable[str | Path],
    symbols: Collection[str] | None = None,
    *,
    controls: Collection[ControlKind],
    bars: bool = False,
) -> Iterator[FeedInput | Control | Bars]:
    """Yield the inputs of these recordings, and between them each control record of these kinds that says a new thing.

    bars: and the bars of the past that the daemon took, of `symbols`.

    Raises FeedError as `inputs` does.
    """
    recordings = open_recordings(paths)
    cutter = Cutter(recordings, symbols=symbols, bars=bars)
    known: dict[ControlKind, Control] = {}
    for passage in passages(recordings):
        for one in cutter.everything(passage):
            if not isinstance(one, Control):
                yield one
            elif one.kind in controls and known.get(one.kind) != one:
                known[one.kind] = one
                yield one


def first_control(recordings: Iterable[Recording], kind: ControlKind) -> Control | None:
    """Return the first control record of a kind among the first rows of these recordings, if there is one."""
    for recording in recordings:
        if "kind" not in recording.columns:
            continue
        table = next(tables(recording, rows=_HEAD_ROWS))
        for place in np.flatnonzero(texts(table, "kind", TICK) == CONTROL).tolist():
            for control in _control(table["text"][place].as_py() if "text" in table.column_names else None):
                if control.kind is kind:
                    return control
    return None
