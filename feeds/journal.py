"""The ordered journal of inputs: what the engine's state is a function of, and what `record` turns into Parquet.

A journal is a folder of segment files named by the offset of their first record. A record is

    magic (2 bytes) · length (u32) · crc32 (u32) · kind (u8) · follows (i64) · payload (length bytes)

little endian; the checksum covers kind, follows and payload. Offsets are not written: they are the segment's first
offset plus the record's place in it. The first record of a segment is its header (format, source, first offset).

The lazy columns of a batch (its book) may stand in a record of their own behind it, which has no offset: decoding and
writing them takes longer than all the rest of a tick's way, and events that are decided without them need not wait.

A process killed at any moment leaves a prefix of what it wrote, so a bad record with no good one behind it is a torn
tail and is cut. A bad record with a good one behind it is damage: replaying past it would make another state than the
one that decided the alerts, so it is an error.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import orjson
import structlog

from feeds import frame, history
from feeds.errors import FeedError
from feeds.frame import Part
from feeds.history import Bars
from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.tick import TickBatch

FORMAT: Final = 1
SEGMENT_BYTES: Final = 64 << 20
MAX_PAYLOAD: Final = 1 << 30
OWN_OFFSETS: Final = -2
"""`follows` of a record that follows the one before it in the journal, not an input of a feed with its own offsets."""

_MAGIC: Final = b"\xa5J"
_HEAD: Final = struct.Struct("<2sIIBq")
_SUMMED: Final = struct.Struct("<Bq")
_I64: Final = struct.Struct("<q")
_SUFFIX: Final = ".journal"
_datasync = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have no fdatasync

log = structlog.get_logger(__name__)


class _Kind(IntEnum):
    HEADER = 0
    TICKS = 1
    HEARTBEAT = 2
    MARK = 3
    CONTROL = 4
    REST = 5
    BARS = 6


class Record(NamedTuple):
    """One journaled input.

    offset: its place in the journal, growing by one. follows: the feed offset that a control record, or bars, came
    behind (-1 = before the feed's first input), OWN_OFFSETS for all records of a live feed's journal.
    """

    offset: int
    follows: int
    value: Input


@dataclass(frozen=True, slots=True)
class _Segment:
    path: Path
    first: int


class _Packed(NamedTuple):
    """A record as it is written; size: bytes of all parts, of which there are 40 at most (a system takes 1024)."""

    size: int
    parts: list[Part]


class Journal:
    """The writer of one journal folder, which also reads it back.

    Blocking calls, one thread at a time, one writer per folder.

    `append` returns when the record is in the kernel's page cache (it survives a kill of this process); `sync` returns
    when everything appended is on the disk (it survives a power cut).
    """

    def __init__(
        self, folder: Path, *, source_id: str = "", segment_bytes: int = SEGMENT_BYTES, first_offset: int = 0
    ) -> None:
        """Open or create the journal; cut a torn tail (logged, counted in `counters`).

        source_id: of the feed whose inputs these are; a folder with another source's records raises FeedError.
        first_offset: what an empty folder starts at (after a lost journal: behind the newest checkpoint's offset).
        Raises FeedError for damage in the newest segment, for a newer format, and where the folder can't be written.
        """
        self.folder = folder
        self.source_id = source_id
        self._segment_bytes = segment_bytes
        self._counters = dict.fromkeys(("records", "bytes", "syncs", "torn_bytes", "segments_trimmed"), 0)
        self._broken: str | None = None
        self._last_follows = -1
        self._unfinished: TickBatch | None = None
        """The newest record's batch while its lazy columns are not written."""
        self._fd = -1
        with _DiskErrors(f"open the journal {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            self._segments = _list_segments(folder)
            self._recover(first_offset)

    @property
    def end(self) -> int:
        """Return the offset of the newest record; one less than the first offset where there is none."""
        return self._next - 1

    @property
    def start(self) -> int:
        """Return the oldest offset still here; `end + 1` where there is none."""
        return self._segments[0].first

    @property
    def newest_follows(self) -> int:
        """Return the feed offset the newest control record of a feed with own offsets follows, -1 if there is none."""
        return self._last_follows

    def append(
        self, value: Input, *, rest_later: bool = False, follows: int = OWN_OFFSETS, packed: bytes | None = None
    ) -> int:
        """Append an input of a feed without own offsets and return the offset it gets here.

        follows: what `records` shall tell beside it, for who numbers inputs in his own way. packed: of bars, what
        `history.encode` made of them already: compressing a thousand symbols' takes 0.3 s.
        rest_later: leave out lazy columns that nobody has asked for; `append_rest` adds them, at the latest the next
        append or `close`. Killed before, the batch is read back without them, as from a source that has none: not for
        batches whose lazy columns anything is decided from. Raises FeedError when the disk refuses (full, read-only):
        nothing was appended, the next try may succeed.
        """
        return self._append(value, follows, rest_later=rest_later, packed=packed)

    def append_rest(self) -> bool:
        """Append what the newest record left out, if it did; return whether there was something.

        Raises FeedError as `append` does.
        """
        batch = self._unfinished
        if batch is None:
            return False
        self._check_usable()
        self._put(_pack(_Kind.REST, frame.rest_parts(batch), OWN_OFFSETS))
        self._unfinished = None
        return True

    def append_control(self, control: Control | Bars, *, follows: int, packed: bytes | None = None) -> int:
        """Append a control record, or bars of the past, behind the feed's input of an offset; return its own offset.

        follows: -1 = before the feed's first input. packed: as for `append`. Raises FeedError if a record already here
        follows a later one: the run again has not reached the end.
        """
        if follows < self._last_follows:
            raise FeedError(
                f"journal {self.folder}: a control record cannot follow input {follows}, the newest one here follows "
                f"input {self._last_follows}; run the feed to that offset first"
            )
        offset = self._append(control, follows, packed=packed)
        self._last_follows = follows
        return offset

    def sync(self) -> None:
        """Put everything appended on the disk.

        Raises FeedError where the disk fails; the journal then refuses further records, because the kernel may have
        dropped the pages it could not write and a second sync would report success without them.
        """
        self._check_usable()
        try:
            _datasync(self._fd)
        except OSError as error:
            self._broken = f"an earlier sync failed ({error.strerror})"
            raise FeedError(f"cannot sync the journal {self.folder}: {error.strerror}; check the disk") from error
        self._counters["syncs"] += 1

    def read(self, *, after: int = -1) -> Iterator[tuple[int, Input]]:
        """Yield (offset, input) of every record behind `after`, oldest first; raises FeedError where one is damaged."""
        return ((record.offset, record.value) for record in self.records(after=after))

    def records(self, *, after: int = -1) -> Iterator[Record]:
        """Yield the records behind `after` with the feed offset each follows; raises FeedError for damage or a hole."""
        return read_journal(self.folder, after=after)

    def controls(self, *, after: int = -1) -> Iterator[Control]:
        """Yield the control records behind `after`, decoding nothing else; raises FeedError where one is damaged."""
        for place, segment in enumerate(self._segments):
            if place + 1 < len(self._segments) and self._segments[place + 1].first <= after + 1:
                continue
            with _DiskErrors(f"read the journal {self.folder}"):
                yield from _controls_of(segment, after=after)

    def roll(self) -> None:
        """Go on in a new segment, so that `trim` can free every record that is here; raises FeedError."""
        self._check_usable()
        self.append_rest()
        if self._next > self._segments[-1].first:
            self._roll()

    def trim(self, *, before: int) -> int:
        """Delete the segments all of whose records are older than offset `before`; return how many."""
        doomed = [old for old, newer in zip(self._segments, self._segments[1:], strict=False) if newer.first <= before]
        with _DiskErrors(f"trim the journal {self.folder}"):
            for segment in doomed:
                segment.path.unlink()
                self._segments.remove(segment)
            if doomed:
                sync_folder(self.folder)
        self._counters["segments_trimmed"] += len(doomed)
        return len(doomed)

    def close(self) -> None:
        """Finish the newest record, sync and close; idempotent. Raises FeedError where the disk refuses."""
        if self._fd < 0:
            return
        try:
            if self._broken is None:
                self.append_rest()
                self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1

    def counters(self) -> Mapping[str, int]:
        """Return counts since open: records, bytes, syncs, torn_bytes cut, segments_trimmed."""
        return dict(self._counters)

    def _append(self, value: Input, follows: int, *, rest_later: bool = False, packed: bytes | None = None) -> int:
        self._check_usable()
        self.append_rest()
        unfinished = value if rest_later and isinstance(value, TickBatch) and value.rest_waits else None
        record = _pack(*_encode(value, whole=unfinished is None, packed=packed), follows)
        rest_size = 0 if unfinished is None else _HEAD.size + frame.rest_size(len(unfinished))
        if self._size + record.size + rest_size > self._segment_bytes and self._next > self._segments[-1].first:
            self._roll()
        self._put(record)
        self._unfinished = unfinished
        self._next += 1
        return self._next - 1

    def _put(self, record: _Packed) -> None:
        self._write(record)
        self._counters["records"] += 1
        self._counters["bytes"] += record.size

    def _write(self, record: _Packed) -> None:
        """Write all of it or nothing: a half-written record would be damage in the middle once another one follows."""
        try:
            _write(self._fd, record)
        except MemoryError:  # joining what a system left of it
            self._undo()
            raise
        except OSError as error:
            self._undo()
            raise FeedError(
                f"cannot write the journal {self.folder}: {error.strerror}; free space or fix the disk"
            ) from error
        self._size += record.size

    def _undo(self) -> None:
        try:
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            self._broken = f"half a record could not be taken back ({error.strerror})"

    def _check_usable(self) -> None:
        if self._fd < 0:
            raise FeedError(f"journal {self.folder} is closed")
        if self._broken is not None:
            raise FeedError(
                f"journal {self.folder} takes no more records: {self._broken}; restart after fixing the disk"
            )

    def _roll(self) -> None:
        """Go on in a new segment. The old one is synced first, so that `sync` has only the newest to care for."""
        self.sync()
        with _DiskErrors(f"start a segment of the journal {self.folder}"):
            old = self._fd
            self._start_segment(self._next)
            os.close(old)

    def _start_segment(self, first: int) -> None:
        path = self.folder / f"{first:020d}{_SUFFIX}"
        header = {"format": FORMAT, "source_id": self.source_id, "first": first}
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o640)
        try:
            record = _pack(_Kind.HEADER, [orjson.dumps(header)], OWN_OFFSETS)
            _write(fd, record)
            _datasync(fd)
            sync_folder(self.folder)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        self._fd, self._size, self._next = fd, record.size, first
        self._segments.append(_Segment(path, first))

    def _recover(self, first_offset: int) -> None:
        """Find the end of the newest segment, cut what is torn behind it, and go on writing there."""
        while self._segments:
            segment = self._segments[-1]
            bytes_ = segment.path.read_bytes()
            good, count, follows = _scan(segment, bytes_, self.source_id)
            if good < len(bytes_):
                log.warning("journal_tail_cut", segment=segment.path.name, kept=good, cut=len(bytes_) - good)
                self._counters["torn_bytes"] += len(bytes_) - good
            if good == 0:  # killed while the segment was born: its header never got here, so no record did
                segment.path.unlink()
                self._segments.pop()
                first_offset = segment.first
                continue
            self._fd = os.open(segment.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
            os.ftruncate(self._fd, good)
            self._size, self._next = good, segment.first + count
            self._last_follows = follows if follows is not None else self._older_follows()
            return
        self._start_segment(first_offset)

    def _older_follows(self) -> int:
        """Return the newest `follows` of the segments before the last one, which holds no control record."""
        for segment in reversed(self._segments[:-1]):
            _, _, follows = _scan(segment, segment.path.read_bytes(), self.source_id)
            if follows is not None:
                return follows
        return -1


def read_journal(folder: Path, *, after: int = -1) -> Iterator[Record]:
    """Yield the records of a journal folder behind `after` without changing it; a torn tail ends the reading quietly.

    Safe beside a running writer: the records that were complete when their segment was read come out. Raises FeedError
    where a record is damaged, where one is missing between `after` and the end, or where the segments leave a hole.
    """
    with _DiskErrors(f"read the journal {folder}"):
        segments = _list_segments(folder)
        if segments and segments[0].first > after + 1 and after >= 0:
            raise FeedError(
                f"journal {folder} begins at offset {segments[0].first}, but the records behind {after} are asked for; "
                "they were trimmed: use a newer checkpoint"
            )
        for place, segment in enumerate(segments):
            newer = segments[place + 1].first if place + 1 < len(segments) else None
            if newer is not None and newer <= after + 1:
                continue
            yield from _read_segment(segment, after=after, newer=newer)


def _read_segment(segment: _Segment, *, after: int, newer: int | None) -> Iterator[Record]:
    offset = segment.first - 1
    for kind, follows, payload, rest in _finished(_walk(segment.path, segment.path.read_bytes())):
        if kind != _Kind.HEADER and (offset := offset + 1) > after:
            yield Record(offset, follows, _decode(kind, payload, rest, f"{segment.path} offset {offset}"))
    if newer is not None and offset + 1 != newer:
        raise FeedError(
            f"journal {segment.path.parent}: records {offset + 1} to {newer - 1} are missing from {segment.path.name}; "
            "restore the file, or move the folder away to start without history"
        )


def _controls_of(segment: _Segment, *, after: int) -> Iterator[Control]:
    offset = segment.first - 1
    for kind, _, payload in _walk(segment.path, segment.path.read_bytes()):
        offset += kind not in (_Kind.HEADER, _Kind.REST)
        if kind == _Kind.CONTROL and offset > after:
            control = _decode(kind, payload, None, f"{segment.path} offset {offset}")
            assert isinstance(control, Control)
            yield control


def _finished(records: Iterator[tuple[int, int, bytes]]) -> Iterator[tuple[int, int, bytes, bytes | None]]:
    """Yield (kind, follows, payload, rest) of each record; rest: what was written behind it, None = nothing."""
    held: tuple[int, int, bytes] | None = None
    for record in records:
        if record[0] == _Kind.REST:
            if held is not None:
                yield *held, record[2]
            held = None
            continue
        if held is not None:
            yield *held, None
        held = record
    if held is not None:
        yield *held, None


def _scan(segment: _Segment, bytes_: bytes, source_id: str) -> tuple[int, int, int | None]:
    """Return (bytes up to the last good record, records, newest `follows` of a control with one) of a segment."""
    good, count, newest = 0, -1, None
    for kind, follows, payload in _walk(segment.path, bytes_):
        if kind == _Kind.HEADER:
            _check_header(segment, payload, source_id)
        elif kind in (_Kind.CONTROL, _Kind.BARS) and follows != OWN_OFFSETS:
            newest = follows
        good += _HEAD.size + len(payload)
        count += kind != _Kind.REST
    return good, count, newest


def _check_header(segment: _Segment, payload: bytes, source_id: str) -> None:
    header = orjson.loads(payload)
    if header["format"] != FORMAT:
        raise FeedError(f"{segment.path} has journal format {header['format']}, this program reads {FORMAT}")
    if header["source_id"] != source_id:
        raise FeedError(
            f"journal {segment.path.parent} holds inputs of the source {header['source_id']!r}, not of {source_id!r}; "
            "give every source a folder of its own"
        )


def _walk(path: Path, bytes_: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (kind, follows, payload) of each good record up to the torn tail; raises FeedError for damage before it."""
    at = 0
    while (found := _record_at(bytes_, at)) is not None:
        yield found
        at += _HEAD.size + len(found[2])
    behind = bytes_.find(_MAGIC, at + 1)
    while behind >= 0:
        if _record_at(bytes_, behind) is not None:
            raise FeedError(
                f"journal segment {path} is damaged at byte {at}: good records go on at byte {behind}; "
                "restore the file, or move the folder away to start without history"
            )
        behind = bytes_.find(_MAGIC, behind + 1)


def _record_at(bytes_: bytes, at: int) -> tuple[int, int, bytes] | None:
    if at + _HEAD.size > len(bytes_):
        return None
    magic, length, crc, kind, follows = _HEAD.unpack_from(bytes_, at)
    end = at + _HEAD.size + length
    if magic != _MAGIC or length > MAX_PAYLOAD or end > len(bytes_):
        return None
    payload = bytes_[at + _HEAD.size : end]
    return (kind, follows, payload) if _checksum(kind, follows, [payload]) == crc else None


def _pack(kind: _Kind, payload: list[Part], follows: int) -> _Packed:
    size = sum(memoryview(part).nbytes for part in payload)
    if size > MAX_PAYLOAD:
        raise FeedError(f"an input of {size} bytes is larger than a journal record may be ({MAX_PAYLOAD})")
    head = _HEAD.pack(_MAGIC, size, _checksum(kind, follows, payload), kind, follows)
    return _Packed(_HEAD.size + size, [head, *payload])


def _checksum(kind: int, follows: int, payload: list[Part]) -> int:
    crc = zlib.crc32(_SUMMED.pack(kind, follows))
    for part in payload:
        crc = zlib.crc32(part, crc)
    return crc


def _write(fd: int, record: _Packed) -> None:
    """Write the parts of a record; raises OSError, with some of them written already.

    To join a market's 450 kB first would take half as long again. Windows cannot write parts, and any system may stop
    in the middle of one: the rest is joined.
    """
    written = os.writev(fd, record.parts) if hasattr(os, "writev") else 0
    if written < record.size:
        rest = memoryview(b"".join(record.parts))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _encode(value: Input, *, whole: bool, packed: bytes | None) -> tuple[_Kind, list[Part]]:
    match value:
        case TickBatch():
            return _Kind.TICKS, frame.parts(value, columns="all" if whole else "core")
        case Heartbeat():
            return _Kind.HEARTBEAT, [_I64.pack(value.ts_ms)]
        case Mark():
            return _Kind.MARK, [orjson.dumps([value.kind, value.ts_ms, value.reason])]
        case Control():
            return _Kind.CONTROL, [orjson.dumps([value.kind, value.text])]
        case Bars():
            return _Kind.BARS, [history.encode(value) if packed is None else packed]


def _decode(kind: int, payload: bytes, rest: bytes | None, where: str) -> Input:
    match kind:
        case _Kind.TICKS:
            return frame.decode(payload, rest)
        case _Kind.HEARTBEAT:
            return Heartbeat(*_I64.unpack(payload))
        case _Kind.MARK:
            name, ts_ms, reason = orjson.loads(payload)
            return Mark(MarkKind(name), ts_ms, reason)
        case _Kind.CONTROL:
            name, text = orjson.loads(payload)
            return Control(ControlKind(name), text)
        case _Kind.BARS:
            return history.decode(payload)
    raise FeedError(f"{where}: no record kind {kind}; the journal was written by a newer program")


def _list_segments(folder: Path) -> list[_Segment]:
    if not folder.is_dir():
        return []
    return [_Segment(path, int(path.stem)) for path in sorted(folder.glob(f"*{_SUFFIX}")) if path.stem.isdigit()]


def sync_folder(folder: Path) -> None:
    """Put the folder's own entries (a new or deleted file) on the disk."""
    if os.name == "nt":  # a folder cannot be opened there, and NTFS journals its entries
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class _DiskErrors:
    """Turn an OSError into a FeedError that says what was being done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise FeedError(f"cannot {self._doing}: {error.strerror or error}; check the path and the disk") from error
