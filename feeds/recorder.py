"""`Recorder`: the inputs of any feed → a journal at once, and a Parquet recording a trade date.

What was added and synced survives a kill and a power cut: the next recorder on the folder completes the day's file from
the journal. A date's file is whole when an input of a later date comes, and at `finish`; if more comes for a date, its
file is written anew with the old rows first.

Layout of the folder:

    20250102.parquet            a trade date, as `replay` reads it; each begins with the control records in force
    20250102-1a2b3c4d.parquet   the same date of another source, where the first name was taken, or the rest of a date
                                whose file was moved away: it may be in an archive under that name
    spool/1a2b3c4d/             the journal of a source (feeds/journal.py), kept until its days are whole
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeGuard

import numpy as np
import structlog

from feeds.dayfile import DayFile, note_of
from feeds.errors import FeedError
from feeds.history import COLUMNS, Bars
from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.journal import Journal
from feeds.sessions import trade_date
from feeds.tick import TickBatch

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

SPOOL_SEGMENT_BYTES: Final = 16 << 20
_FUTURE_MS: Final = 10_000
_KEPT: Final = "the clock of what was recorded"
"""Of the mark that carries the market clock over to a next recorder, behind a finished day; no file has it."""

log = structlog.get_logger(__name__)


class Recorder:
    """Records one source into a folder; blocking calls, one thread at a time, one recorder per folder and source.

    Inputs may bring an offset of their source. Then one that was recorded already is passed over, and where some are
    missing a `gap` mark stands in the recording.
    """

    def __init__(self, folder: Path, *, source_id: str, counted: bool = True) -> None:
        """Open the folder, and take up what an earlier recorder left in the journal; raises FeedError.

        counted: offsets grow by one, so one that is missing is seen; else what is missing has to be said (`lose`).
        """
        self._folder = folder
        self._source_id = source_id
        self._counts = dict.fromkeys(
            ("recorded_inputs", "recorded_ticks", "recorded_gaps", "recorded_days", "recordings_damaged"), 0
        )
        self._short = hashlib.sha256(source_id.encode()).hexdigest()[:8]
        spool = folder / "spool" / self._short
        self._lock = _lock(spool)
        self._through = self._recorded_through()
        # Where the journal was taken away, offsets must not begin anew: a file says up to which one it goes.
        self._journal = Journal(
            spool, source_id=source_id, segment_bytes=SPOOL_SEGMENT_BYTES, first_offset=self._through + 1
        )
        self._day: DayFile | None = None
        self._date = 0
        self._clock_ms: int | None = None
        self._controls: dict[ControlKind, Control] = {}
        self._written: dict[ControlKind, Control] = {}
        """What of them the current file holds."""
        self._early: list[TickBatch | Heartbeat | Mark | Bars] = []
        """What came before anything that tells the date it belongs to."""
        self._finished = 0
        """The newest date that was made whole."""
        self._bars: set[bytes] = set()
        """Digests of those recorded: what a start runs again may be told twice."""
        self._missing = ""
        """Why inputs are missing before the next one; empty = as far as known none are."""
        self.last_offset = -1
        """The offset of the newest input recorded, -1 = none with one."""
        self._take_up()
        self._counted = counted
        if not counted and self.last_offset >= 0:
            self._missing = "the recorder was not running"

    @property
    def clock_ms(self) -> int | None:
        """The market clock at the end of what is recorded; None if nothing is."""
        return self._clock_ms

    def add(self, value: Input, *, offset: int = -1, behind: int = -1) -> None:
        """Append an input; it is on the disk after the next `sync`. Raises FeedError when the disk refuses.

        behind: of a control record or bars without an offset, the one they follow, for those that come again.
        """
        if 0 <= behind < self.last_offset:
            return
        if self._is_known(value):
            if offset < 0:
                return
            value = Control(ControlKind.FAILED, "")  # no news but for its offset
        if 0 <= offset <= self.last_offset:
            self._missing = "" if not self._counted else self._missing  # the source goes on from what is recorded
            return
        if self._counted and 0 <= self.last_offset < offset - 1 and self._clock_ms is not None:
            self._missing = f"{offset - 1 - self.last_offset} inputs were not recorded"
        if self._missing and offset >= 0 and self._clock_ms is not None:
            self._counts["recorded_gaps"] += 1
            self._append(Mark(MarkKind.GAP, self._clock_ms, self._missing), offset - 1)
            self._missing = ""
        self._append(value, offset)

    def lose(self, count: int) -> None:
        """Take note that so many inputs are missing here."""
        if not self._counted:
            self._missing = f"{count} inputs were not recorded"

    def resume(self, offset: int) -> None:
        """Take note that the source goes on behind `offset`: nothing is missing if that is not behind our end."""
        if offset <= self.last_offset:
            self._missing = ""

    def sync(self) -> None:
        """Put everything added on the disk; raises FeedError where it fails."""
        self._journal.sync()

    def forget_offsets(self) -> None:
        """Take offsets as new ones: the source counts from the beginning again."""
        self.last_offset = -1

    def finish(self) -> Path | None:
        """Make the current date's file whole, and free the journal; return the file, None if nothing is recorded."""
        if self._day is None:
            return None
        first = self._keep_state()
        path = self._finish_day(self._journal.end)
        self._journal.trim(before=first)
        return path

    def close(self) -> None:
        """Sync and close, the current date's file left to the next recorder unless `finish` came before. Idempotent."""
        day, self._day = self._day, None
        try:
            self._journal.close()
        finally:
            if day is not None:
                day.discard()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def counters(self) -> Mapping[str, int]:
        """Return inputs, ticks, gaps and days recorded since this recorder was opened."""
        return dict(self._counts)

    def _is_known(self, value: Input) -> bool:
        """Tell whether a control record is in force, or bars were recorded since this recorder was opened."""
        if isinstance(value, Bars):
            return _digest(value) in self._bars
        return isinstance(value, Control) and self._controls.get(value.kind) == value

    # ── one input ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _append(self, value: Input, offset: int) -> None:
        if self._is_of_another_date(value):
            self.finish()
        self._journal.append(value, follows=offset)
        self._write(value, offset)
        self._counts["recorded_inputs"] += 1
        self._counts["recorded_ticks"] += len(value) if isinstance(value, TickBatch) else 0

    def _write(self, value: Input, offset: int) -> None:
        """Write a journaled input to its date's file, behind every control record in force that is not in it."""
        before_ms = self._clock_ms
        self._pass(value, offset)
        if _is_kept(value) or (isinstance(value, Control) and value.kind is ControlKind.FAILED):
            return
        if self._day is None and not _tells_date(value, before_ms):
            # The first input that does brings it along. It may be of the next day: yesterday's file is whole, and
            # perhaps not there any more.
            self._early += [] if isinstance(value, Control) else [value]
            return
        assert self._clock_ms is not None
        if self._day is None:
            self._date, self._written = trade_date(self._clock_ms), {}
            self._day = DayFile(self._path(self._date))
        first_ms = int(value.ts_event_ms.min()) if isinstance(value, TickBatch) else self._clock_ms
        for kind, control in self._controls.items():
            if self._written.get(kind) != control:
                self._day.write(control, at_ms=first_ms)
                self._written[kind] = control
        early, self._early = self._early, []
        for said in early:
            self._day.write(said, at_ms=first_ms)
        if not isinstance(value, Control):
            self._day.write(value, at_ms=self._clock_ms)

    def _pass(self, value: Input, offset: int) -> None:
        """Note what an input says of the time, of what is in force, and how far the source has come."""
        if offset >= 0:
            self.last_offset = offset
        if isinstance(value, Control):
            if value.kind is not ControlKind.FAILED:
                self._controls[value.kind] = value
        elif isinstance(value, Bars):
            self._bars.add(_digest(value))
        elif _is_kept(value):
            self._clock_ms = max(value.ts_ms, self._clock_ms or 0)
            self._finished = trade_date(value.ts_ms)
        else:
            self._clock_ms = self._clock_after(value)

    def _clock_after(self, value: TickBatch | Heartbeat | Mark) -> int:
        """Return the market clock once this input is taken: it never goes back, and a mark does not move it."""
        ts_ms = (
            int(np.minimum(value.ts_event_ms, value.recv_ms + _FUTURE_MS).max())
            if isinstance(value, TickBatch)
            else value.ts_ms
        )
        if self._clock_ms is None:
            return ts_ms
        return self._clock_ms if isinstance(value, Mark) else max(self._clock_ms, ts_ms)

    def _is_of_another_date(self, value: Input) -> bool:
        if self._day is None or isinstance(value, Control | Bars):
            return False
        return trade_date(self._clock_after(value)) != self._date

    def _keep_state(self) -> int:
        """Journal again what a next recorder must know, so that all older records can go; return the first offset."""
        assert self._clock_ms is not None
        self._journal.roll()
        first = self._journal.append(Mark(MarkKind.ALIVE, self._clock_ms, _KEPT), follows=self.last_offset)
        for control in self._controls.values():
            self._journal.append(control, follows=self.last_offset)
        self._journal.sync()
        return first

    def _finish_day(self, through: int) -> Path:
        """Make the file whole that holds all inputs up to this offset of the journal."""
        assert self._day is not None
        day, self._day, self._finished = self._day, None, self._date
        day.finish({"source_id": self._source_id, "through": through})
        self._counts["recorded_days"] += 1
        log.info("recording_finished", file=str(day.path))
        return day.path

    def _take_up(self) -> None:
        """Write what an earlier recorder journaled and no finished file holds; dates that are over are made whole."""
        written = 0
        for offset, follows, value in self._journal.records():
            if offset <= self._through:
                self._pass(value, follows)
                continue
            if self._is_of_another_date(value):
                self._finish_day(offset - 1)
            self._write(value, follows)
            written += 1
        if written:
            log.info("recording_taken_up", folder=str(self._folder), inputs=written)

    def _recorded_through(self) -> int:
        """Return the offset of the journal up to which this source's files of its newest date go, -1 without one."""
        date, through = "", -1
        for path in sorted(self._folder.glob("*.parquet"), reverse=True):
            if through >= 0 and not path.name.startswith(date):
                break
            note = self._readable_note(path)
            if note.get("source_id") == self._source_id:
                date, through = path.stem.partition("-")[0], max(through, int(note["through"]))
        return through

    def _path(self, date: int) -> Path:
        path = self._folder / f"{date}.parquet"
        there = path.exists()
        is_anothers = there and self._readable_note(path).get("source_id") != self._source_id
        was_moved = not there and date == self._finished
        return self._folder / f"{date}-{self._short}.parquet" if is_anothers or was_moved else path

    def _readable_note(self, path: Path) -> Mapping[str, Any]:
        """Return a file's note, empty for one that is broken: it is left alone, and the days to come are recorded."""
        try:
            return note_of(path)
        except FeedError as error:
            self._counts["recordings_damaged"] += 1
            log.error("recording_damaged", why=str(error))
            return {}


def _is_kept(value: Input) -> TypeGuard[Mark]:
    return isinstance(value, Mark) and value.reason == _KEPT


def _tells_date(value: Input, clock_ms: int | None) -> bool:
    """Tell whether an input has a time of its own that is later than the clock was; ticks always begin a day's file."""
    if isinstance(value, Heartbeat):
        return clock_ms is None or value.ts_ms > clock_ms
    return isinstance(value, TickBatch)


def _digest(bars: Bars) -> bytes:
    arrays = (bars.counts, bars.ends_ms, *(getattr(bars, name) for name in COLUMNS), bars.before_lots, bars.before_cny)
    digest = hashlib.sha256(repr((bars.period, bars.until_ms, bars.symbols)).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.digest()


def _lock(folder: Path) -> int:
    """Return a descriptor that holds the folder for this recorder alone, until it is closed or its process ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o640)
    except OSError as error:
        raise FeedError(f"{folder}: cannot be used for recordings: {error.strerror}; check the folder") from None
    try:
        if fcntl is not None:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):  # what each of them raises where another process holds it
        os.close(lock)
        raise FeedError(f"{folder}: another recorder is at work here; give each a folder of its own") from None
    return lock
