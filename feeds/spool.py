"""The spool of a bridge: inputs on the disk until the tick stream has them, in order, and no more than so many bytes.

One SQLite file. It survives being killed at any moment, is locked against a second bridge by the system it runs on,
Windows included, and gives back the room of what is deleted. All calls block; one thread at a time.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from feeds.errors import FeedError
from feeds.inputs import Mark, MarkKind
from feeds.tickstream import KEEP_ENTRIES, KEEP_S, Kind, Spooled, encode

MAX_BYTES: Final = 2 << 30
"""An hour of a whole market with its book is 1.6 GB."""
READ_BYTES: Final = 4 << 20
READ_ROWS: Final = 64
"""What is read, and then sent, at once; one input may be larger."""
_SCHEMA: Final = """
BEGIN IMMEDIATE;
CREATE TABLE inputs (
    number INTEGER PRIMARY KEY, stamp INTEGER NOT NULL, ts_ms INTEGER NOT NULL, ticks INTEGER NOT NULL,
    kind TEXT NOT NULL, size INTEGER NOT NULL, value BLOB NOT NULL
);
CREATE TABLE state (
    spool TEXT NOT NULL, source TEXT NOT NULL, feed_offset INTEGER NOT NULL, ts_ms INTEGER NOT NULL,
    number INTEGER NOT NULL, stamp INTEGER NOT NULL, sent INTEGER NOT NULL,
    dropped_inputs INTEGER NOT NULL, dropped_ticks INTEGER NOT NULL
);
PRAGMA user_version = 1;
COMMIT;
"""
VERSION: Final = 1

log = structlog.get_logger(__name__)


class Spool:
    """The inputs of one bridge, numbered from 1.

    Overflow policy: the oldest are deleted; those that were not sent yet are counted (`dropped_inputs`,
    `dropped_ticks`), and `read` gives a gap mark in their place. What `read` has given out may be under way, so it is
    never dropped. What was sent stays for as long as the stream keeps it, because a server that loses its newest
    entries gets them again.
    """

    def __init__(
        self,
        folder: Path,
        *,
        source: str,
        max_bytes: int = MAX_BYTES,
        keep_s: float = KEEP_S,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        """Open or create the spool. source: of the feed whose inputs these are; another one begins at its beginning.

        Raises FeedError: another bridge uses the folder, it cannot be written, or the file is damaged.
        """
        self._path = folder / "spool.sqlite"
        self._max_bytes, self._keep_us, self._now_us = max_bytes, round(keep_s * 1e6), now_us
        with self._errors():
            folder.mkdir(parents=True, exist_ok=True)
            # The loop's thread opens it, one worker uses it.
            self._db = sqlite3.connect(self._path, isolation_level=None, timeout=0, check_same_thread=False)
            try:
                self._open(source)
            except BaseException:
                self._db.close()
                raise

    def _open(self, source: str) -> None:
        db = self._db
        db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        db.execute("PRAGMA journal_mode = WAL").fetchall()
        db.execute("PRAGMA synchronous = NORMAL").fetchall()
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(_SCHEMA)
        elif version != VERSION:
            raise FeedError(
                f"the spool {self._path} has version {version}, this program reads {VERSION}; go back to the newer "
                "release, or move the file away to begin a new one"
            )
        db.execute("BEGIN IMMEDIATE")
        if db.execute("SELECT 1 FROM state").fetchone() is None:
            db.execute("INSERT INTO state VALUES (?, ?, -1, 0, 0, 0, 0, 0, 0)", (secrets.token_hex(8), source))
        db.execute("UPDATE state SET source = ?, feed_offset = -1 WHERE source <> ?", (source, source))
        db.execute("COMMIT")
        (
            self.id, self.feed_offset, self.ts_ms, self._number, self._stamp, self._sent,
            self.dropped_inputs, self.dropped_ticks,
        ) = db.execute(
            "SELECT spool, feed_offset, ts_ms, number, stamp, sent, dropped_inputs, dropped_ticks FROM state"
        ).fetchone()  # fmt: skip
        self._bytes = db.execute("SELECT coalesce(sum(size), 0) FROM inputs").fetchone()[0]
        self._given_out = self._sent
        self._found = self._number
        self._told_ahead = False

    @property
    def newest(self) -> int:
        """The number of the newest input, 0 before the first."""
        return int(self._number)

    @property
    def waiting(self) -> int:
        """How many inputs are not known to be in the stream."""
        return int(self._number - self._sent)

    def close(self) -> None:
        """Close the file; idempotent."""
        self._db.close()

    def knows(self, number: int) -> bool:
        """Tell whether input `number`, which the stream has from us, can be one of this file.

        A power cut may have taken the newest from the disk, and their numbers may have been given again since.
        """
        return bool(number <= max(self._found, self._given_out))

    def renew(self) -> None:
        """Take another name: the stream holds inputs under the old one that are lost here."""
        with self._errors():
            self._db.execute("UPDATE state SET spool = ?, sent = 0", (renewed := secrets.token_hex(8),))
        self.id, self._sent = renewed, 0

    def append(
        self, kind: Kind, value: bytes, *, ts_ms: int | None, ticks: int = 0, feed_offset: int | None = None
    ) -> None:
        """Append an input. ts_ms: exchange time of its newest tick; feed_offset: where its feed is; None = as before.

        Raises FeedError where the disk refuses; nothing was appended then.
        """
        now_us = self._now_us()
        number, stamp = self._number + 1, max(now_us, self._stamp + 2)
        newest_ms = self.ts_ms if ts_ms is None else ts_ms
        came_to = self.feed_offset if feed_offset is None else feed_offset
        self._tell_ahead(stamp - now_us)
        before = self._bytes, self.dropped_inputs, self.dropped_ticks
        try:
            with self._errors(), self._transaction():
                self._make_room(number, stamp, len(value))
                self._db.execute(
                    "INSERT INTO inputs VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (number, stamp, newest_ms, ticks, kind, len(value), value),
                )
                self._db.execute(
                    "UPDATE state SET number = ?, stamp = ?, ts_ms = ?, feed_offset = ?",
                    (number, stamp, newest_ms, came_to),
                )
        except FeedError:  # nothing was deleted either
            self._bytes, self.dropped_inputs, self.dropped_ticks = before
            raise
        self._number, self._stamp, self.ts_ms, self.feed_offset = number, stamp, newest_ms, came_to
        self._bytes += len(value)

    def _tell_ahead(self, ahead_us: int) -> None:
        """Log, once each time, that ids are further ahead of the clock than anything is kept."""
        told, self._told_ahead = self._told_ahead, ahead_us > self._keep_us
        if self._told_ahead and not told:
            log.error(
                "spool_ahead_of_clock", ahead_s=round(ahead_us / 1e6),
                hint=f"the clock went ahead and back; set it by NTP. Until then {KEEP_ENTRIES} inputs are kept",
            )  # fmt: skip

    def read(self, *, after: int) -> list[Spooled]:
        """Return the next inputs behind that number, oldest first; a gap mark stands for those that were dropped."""
        with self._errors():
            found: list[Spooled] = []
            size = 0
            rows = self._db.execute(
                "SELECT number, stamp, ts_ms, kind, value, size FROM inputs WHERE number > ? ORDER BY number LIMIT ?",
                (after, READ_ROWS),
            )
            for number, stamp, ts_ms, kind, value, bytes_ in rows:
                if found and size + bytes_ > READ_BYTES:
                    break
                if number > after + 1:
                    found.append(_hole(number, stamp, ts_ms, missing=number - after - 1))
                found.append(Spooled(number, stamp, ts_ms, Kind(kind), value))
                after, size = number, size + bytes_
            rows.close()
        self._given_out = max(self._given_out, after)
        return found

    def before_oldest(self) -> int:
        """Return the number before the oldest input that is here."""
        with self._errors():
            oldest = self._db.execute("SELECT min(number) FROM inputs").fetchone()[0]
        return int(self._number if oldest is None else oldest - 1)

    def behind(self, ts_ms: int) -> int:
        """Return the number before the first input whose newest tick is later than `ts_ms` of the exchange's time."""
        with self._errors():
            first = self._db.execute("SELECT min(number) FROM inputs WHERE ts_ms > ?", (ts_ms,)).fetchone()[0]
        return int(self._number if first is None else first - 1)

    def mark_sent(self, number: int) -> None:
        """Note that the stream has everything up to this number, or that nobody wants it from us."""
        if number != self._sent:
            with self._errors():
                self._db.execute("UPDATE state SET sent = ?", (number,))
            self._sent = number

    def before(self, seconds: float) -> int:
        """Return the number of the newest input that came longer ago than that."""
        with self._errors():
            found = self._db.execute(
                "SELECT max(number) FROM inputs WHERE stamp < ?", (self._now_us() - round(seconds * 1e6),)
            ).fetchone()[0]
        return int(found or 0)

    def _make_room(self, number: int, stamp: int, size: int) -> None:
        """Delete what was sent and is too old to be sent again, and the oldest if the input that comes has no room.

        In the transaction that appends it: where that fails, these stay.
        """
        is_full = self._bytes + size > self._max_bytes
        while (row := self._oldest_sent(number, stamp, is_full=is_full)) is not None or (
            is_full and (row := self._oldest_waiting()) is not None
        ):
            deleted, ticks, bytes_ = row
            self._db.execute("DELETE FROM inputs WHERE number = ?", (deleted,))
            self._bytes -= bytes_
            is_full = self._bytes + size > self._max_bytes
            if deleted > self._sent:
                self._count_dropped(ticks)

    def _oldest_sent(self, number: int, stamp: int, *, is_full: bool) -> tuple[int, int, int] | None:
        """Return the oldest input if it was sent and has to go: there is no room, its time is over, or its number."""
        return self._one(
            "number = (SELECT min(number) FROM inputs) AND number <= ? AND (? OR stamp < ? OR number <= ?)",
            self._sent,
            is_full,
            stamp - self._keep_us,
            number - KEEP_ENTRIES,
        )

    def _oldest_waiting(self) -> tuple[int, int, int] | None:
        """Return the oldest input that waits and is not under way."""
        return self._one("number > ?", max(self._sent, self._given_out))

    def _one(self, where: str, *values: int) -> tuple[int, int, int] | None:
        row: tuple[int, int, int] | None = self._db.execute(
            f"SELECT number, ticks, size FROM inputs WHERE {where} ORDER BY number LIMIT 1", values
        ).fetchone()
        return row

    def _count_dropped(self, ticks: int) -> None:
        self.dropped_inputs += 1
        self.dropped_ticks += ticks
        self._db.execute(
            "UPDATE state SET dropped_inputs = ?, dropped_ticks = ?", (self.dropped_inputs, self.dropped_ticks)
        )

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # SQLite has already rolled back after some errors, a full disk among them
                self._db.execute("ROLLBACK")
            raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise FeedError(
                    f"the spool {self._path} is used by another bridge; give each a folder of its own"
                ) from None
            raise FeedError(f"the spool {self._path}: {error}; check the disk's space and the path") from error
        except (sqlite3.Error, OSError) as error:
            raise FeedError(
                f"the spool {self._path}: {error}; check the disk, or move the file away to begin a new one"
            ) from error


def _hole(number: int, stamp: int, ts_ms: int, *, missing: int) -> Spooled:
    """Return the mark for inputs that were dropped before this one."""
    mark = Mark(MarkKind.GAP, ts_ms, f"{missing} inputs were dropped from the bridge's spool")
    return Spooled(number - 1, stamp - 2, ts_ms, *encode(mark))
