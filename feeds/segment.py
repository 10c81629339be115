"""`Segment`: one file of a journal, named by the offset of its first record.

A record is

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
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from feeds import frame, history
from feeds.disk import datasync, sync_folder
from feeds.errors import FeedError
from feeds.frame import Part
from feeds.history import Bars
from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.tick import TickBatch

FORMAT: Final = 1
MAX_PAYLOAD: Final = 1 << 30
OWN_OFFSETS: Final = -2
"""`follows` of a record that follows the one before it in the journal, not an input of a feed with its own offsets."""

_MAGIC: Final = b"\xa5J"
_HEAD: Final = struct.Struct("<2sIIBq")
_SUMMED: Final = struct.Struct("<Bq")
_I64: Final = struct.Struct("<q")
_SUFFIX: Final = ".journal"


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


class Packed(NamedTuple):
    """A record as it is written; size: bytes of all parts, of which there are 40 at most (a system takes 1024)."""

    size: int
    parts: list[Part]


class Found(NamedTuple):
    """What a segment holds: bytes up to its last good record, records, newest `follows` of a control; None: of none."""

    good: int
    records: int
    newest_follows: int | None


@dataclass(frozen=True, slots=True)
class Segment:
    """One file; `first`: the offset of its first record. Reads it anew at every call, safe beside its writer.

    Each call raises FeedError where a record is damaged, and OSError where the file cannot be read.
    """

    path: Path
    first: int

    @classmethod
    def create(cls, folder: Path, first: int, *, source_id: str) -> tuple[Segment, int, int]:
        """Make a new one, on the disk with its header; return it with its file descriptor and size. Raises OSError."""
        path = folder / f"{first:020d}{_SUFFIX}"
        header = {"format": FORMAT, "source_id": source_id, "first": first}
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0), 0o640)
        try:
            record = _pack(_Kind.HEADER, [orjson.dumps(header)], OWN_OFFSETS)
            write(fd, record)
            datasync(fd)
            sync_folder(folder)
        except OSError:
            os.close(fd)
            path.unlink()
            raise
        return cls(path, first), fd, record.size

    def go_on(self, *, size: int) -> int:
        """Open the file for more records behind `size` bytes, the rest cut off; return its file descriptor."""
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | getattr(os, "O_BINARY", 0))
        os.ftruncate(fd, size)
        return fd

    def records(self, *, after: int, newer: int | None) -> Iterator[Record]:
        """Yield the records behind `after`; newer: the next segment's first, up to which none may be missing."""
        offset = self.first - 1
        for kind, follows, payload, rest in _finished(_walk(self.path, self.path.read_bytes())):
            if kind != _Kind.HEADER and (offset := offset + 1) > after:
                yield Record(offset, follows, _decode(kind, payload, rest, f"{self.path} offset {offset}"))
        if newer is not None and offset + 1 != newer:
            raise FeedError(
                f"journal {self.path.parent}: records {offset + 1} to {newer - 1} are missing from {self.path.name}; "
                "restore the file, or move the folder away to start without history"
            )

    def controls(self, *, after: int) -> Iterator[Control]:
        """Yield the control records behind `after`, decoding nothing else."""
        offset = self.first - 1
        for kind, _, payload in _walk(self.path, self.path.read_bytes()):
            offset += kind not in (_Kind.HEADER, _Kind.REST)
            if kind == _Kind.CONTROL and offset > after:
                control = _decode(kind, payload, None, f"{self.path} offset {offset}")
                assert isinstance(control, Control)
                yield control

    def scan(self, bytes_: bytes, *, source_id: str) -> Found:
        """Find the end of the good records in these bytes of it; raises FeedError for another format or source."""
        good, count, newest = 0, -1, None
        for kind, follows, payload in _walk(self.path, bytes_):
            if kind == _Kind.HEADER:
                self._check_header(payload, source_id)
            elif kind in (_Kind.CONTROL, _Kind.BARS) and follows != OWN_OFFSETS:
                newest = follows
            good += _HEAD.size + len(payload)
            count += kind != _Kind.REST
        return Found(good, count, newest)

    def _check_header(self, payload: bytes, source_id: str) -> None:
        header = orjson.loads(payload)
        if header["format"] != FORMAT:
            raise FeedError(f"{self.path} has journal format {header['format']}, this program reads {FORMAT}")
        if header["source_id"] != source_id:
            raise FeedError(
                f"journal {self.path.parent} holds inputs of the source {header['source_id']!r}, not of {source_id!r}; "
                "give every source a folder of its own"
            )


def segments_of(folder: Path) -> list[Segment]:
    """Return the segments of a folder, oldest first."""
    if not folder.is_dir():
        return []
    return [Segment(path, int(path.stem)) for path in sorted(folder.glob(f"*{_SUFFIX}")) if path.stem.isdigit()]


def pack(value: Input, *, follows: int, whole: bool, packed: bytes | None) -> Packed:
    """Make the record of an input; whole: with its lazy columns.

    packed: of bars, what `history.encode` made of them already.
    """
    return _pack(*_encode(value, whole=whole, packed=packed), follows)


def pack_rest(batch: TickBatch) -> Packed:
    """Make the record of what the record of a batch left out."""
    return _pack(_Kind.REST, frame.rest_parts(batch), OWN_OFFSETS)


def rest_bytes(batch: TickBatch) -> int:
    """Return the size of that record, decoding nothing."""
    return _HEAD.size + frame.rest_size(len(batch))


def write(fd: int, record: Packed) -> None:
    """Write the parts of a record; raises OSError, with some of them written already.

    To join a market's 450 kB first would take half as long again. Windows cannot write parts, and any system may stop
    in the middle of one: the rest is joined.
    """
    written = os.writev(fd, record.parts) if hasattr(os, "writev") else 0
    if written < record.size:
        rest = memoryview(b"".join(record.parts))[written:]
        while rest:
            rest = rest[os.write(fd, rest) :]


def _pack(kind: _Kind, payload: list[Part], follows: int) -> Packed:
    size = sum(memoryview(part).nbytes for part in payload)
    if size > MAX_PAYLOAD:
        raise FeedError(f"an input of {size} bytes is larger than a journal record may be ({MAX_PAYLOAD})")
    head = _HEAD.pack(_MAGIC, size, _checksum(kind, follows, payload), kind, follows)
    return Packed(_HEAD.size + size, [head, *payload])


def _checksum(kind: int, follows: int, payload: list[Part]) -> int:
    crc = zlib.crc32(_SUMMED.pack(kind, follows))
    for part in payload:
        crc = zlib.crc32(part, crc)
    return crc


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
