"""The ordered journal of inputs: what the engine's state is a function of, and what `record` turns into Parquet.

A journal is a folder of segments (segment.py), each going on where the one before ends; only the newest is written.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import structlog

from feeds.disk import DiskErrors, datasync, sync_folder
from feeds.errors import FeedError
from feeds.history import Bars
from feeds.inputs import Control, Input
from feeds.segment import OWN_OFFSETS, Packed, Record, Segment, pack, pack_rest, rest_bytes, segments_of, write
from feeds.tick import TickBatch

SEGMENT_BYTES: Final = 64 << 20

log = structlog.get_logger(__name__)


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
        with DiskErrors(f"open the journal {folder}"):
            folder.mkdir(parents=True, exist_ok=True)
            self._segments = segments_of(folder)
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
        self._put(pack_rest(batch))
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
            datasync(self._fd)
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
            with DiskErrors(f"read the journal {self.folder}"):
                yield from segment.controls(after=after)

    def roll(self) -> None:
        """Go on in a new segment, so that `trim` can free every record that is here; raises FeedError."""
        self._check_usable()
        self.append_rest()
        if self._next > self._segments[-1].first:
            self._roll()

    def trim(self, *, before: int) -> int:
        """Delete the segments all of whose records are older than offset `before`; return how many."""
        doomed = [old for old, newer in zip(self._segments, self._segments[1:], strict=False) if newer.first <= before]
        with DiskErrors(f"trim the journal {self.folder}"):
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
        record = pack(value, follows=follows, whole=unfinished is None, packed=packed)
        rest_size = 0 if unfinished is None else rest_bytes(unfinished)
        if self._size + record.size + rest_size > self._segment_bytes and self._next > self._segments[-1].first:
            self._roll()
        self._put(record)
        self._unfinished = unfinished
        self._next += 1
        return self._next - 1

    def _put(self, record: Packed) -> None:
        self._write(record)
        self._counters["records"] += 1
        self._counters["bytes"] += record.size

    def _write(self, record: Packed) -> None:
        """Write all of it or nothing: a half-written record would be damage in the middle once another one follows."""
        try:
            write(self._fd, record)
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
        with DiskErrors(f"start a segment of the journal {self.folder}"):
            old = self._fd
            self._start_segment(self._next)
            os.close(old)

    def _start_segment(self, first: int) -> None:
        segment, self._fd, self._size = Segment.create(self.folder, first, source_id=self.source_id)
        self._next = first
        self._segments.append(segment)

    def _recover(self, first_offset: int) -> None:
        """Find the end of the newest segment, cut what is torn behind it, and go on writing there."""
        while self._segments:
            segment = self._segments[-1]
            bytes_ = segment.path.read_bytes()
            good, count, follows = segment.scan(bytes_, source_id=self.source_id)
            if good < len(bytes_):
                log.warning("journal_tail_cut", segment=segment.path.name, kept=good, cut=len(bytes_) - good)
                self._counters["torn_bytes"] += len(bytes_) - good
            if good == 0:  # killed while the segment was born: its header never got here, so no record did
                segment.path.unlink()
                self._segments.pop()
                first_offset = segment.first
                continue
            self._fd = segment.go_on(size=good)
            self._size, self._next = good, segment.first + count
            self._last_follows = follows if follows is not None else self._older_follows()
            return
        self._start_segment(first_offset)

    def _older_follows(self) -> int:
        """Return the newest `follows` of the segments before the last one, which holds no control record."""
        for segment in reversed(self._segments[:-1]):
            follows = segment.scan(segment.path.read_bytes(), source_id=self.source_id).newest_follows
            if follows is not None:
                return follows
        return -1


def read_journal(folder: Path, *, after: int = -1) -> Iterator[Record]:
    """Yield the records of a journal folder behind `after` without changing it; a torn tail ends the reading quietly.

    Safe beside a running writer: the records that were complete when their segment was read come out. Raises FeedError
    where a record is damaged, where one is missing between `after` and the end, or where the segments leave a hole.
    """
    with DiskErrors(f"read the journal {folder}"):
        segments = segments_of(folder)
        if segments and segments[0].first > after + 1 and after >= 0:
            raise FeedError(
                f"journal {folder} begins at offset {segments[0].first}, but the records behind {after} are asked for; "
                "they were trimmed: use a newer checkpoint"
            )
        for place, segment in enumerate(segments):
            newer = segments[place + 1].first if place + 1 < len(segments) else None
            if newer is not None and newer <= after + 1:
                continue
            yield from segment.records(after=after, newer=newer)
