"""`Database`: one SQLite file of one process, used on one thread over one connection.

Two connections can lose commits on older SQLite, and a queue of calls needs no busy handling. Every call is one
transaction: durable when it returns, undone when it raises.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from monitord.cpus import roam
from monitord.errors import StoreError
from monitord.schema import migrate
from monitord.storefile import copy_read, take_lock

LONGEST_WAL_PAGES: Final = 10_000
"""Where SQLite copies its write-ahead log into the file by itself, within a commit: 40 MB."""

T = TypeVar("T")


class Database:
    """One file. Methods are called on the event loop; any number may wait at the same time.

    Calls wait in the thread's queue, as many as there are callers. Cancelling a call does not undo it: it still runs,
    and only its answer is lost. Every method raises StoreError when SQLite refuses (disk full, damaged file).
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened before `open`."""
        self.path = path
        self._copy = path.with_name(f"{path.name}.copy")
        self._copying = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="store", initializer=roam)
        self._lock = -1
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open or create the file and bring it to the newest schema.

        Raises StoreError: another process has it open (with its pid), a newer program wrote it, it is damaged or can't
        be written.
        """
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._open)
        except BaseException:
            self._thread.shutdown(wait=False)
            raise

    async def close(self) -> None:
        """Finish the calls that wait, close the file and give it free for others; idempotent."""
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
            self._thread.shutdown()

    async def run(self, work: Callable[[sqlite3.Connection], T], on_done: Callable[[T], None] | None = None, /) -> T:
        """Run `work` in a transaction on the file's thread.

        on_done is given its result on the loop whatever has become of the task that waits here: what is counted must
        be what the file holds. Results come in the order of the transactions.
        """
        if self._db is None:
            raise StoreError(f"store {self.path} is closed")
        working = asyncio.get_running_loop().run_in_executor(self._thread, self._transact, work)
        if on_done is None:
            return await working

        def tell(done: asyncio.Future[T]) -> None:
            if not done.cancelled() and done.exception() is None:
                on_done(done.result())

        working.add_done_callback(tell)
        return await asyncio.shield(working)

    async def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        return await self.run(lambda db: db.execute(sql, values).fetchall())

    async def row(self, sql: str, *values: Any) -> tuple[Any, ...] | None:
        """Return the first row that a query finds, None if there is none."""
        return next(iter(await self.rows(sql, *values)), None)

    async def checkpoint(self) -> None:
        """Copy what the write-ahead log holds into the file."""

        def copy() -> None:
            if self._db is not None:
                with self._errors():
                    self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

        await asyncio.get_running_loop().run_in_executor(self._thread, copy)

    @asynccontextmanager
    async def copied(self) -> AsyncIterator[Path]:
        """Yield a file that holds what this one holds now; it is gone afterwards. Calls go on meanwhile.

        One at a time: a second one waits. Raises StoreError where the disk refuses.
        """
        async with self._copying:
            writing = asyncio.get_running_loop().run_in_executor(None, self._write_copy)
            try:
                await asyncio.shield(writing)
                yield self._copy
            finally:
                await asyncio.wait([writing])  # cancelled, the thread still writes what is removed below
                self._copy.unlink(missing_ok=True)

    def _write_copy(self) -> None:
        with self._errors():
            copy_read(self.path, self._copy)

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise StoreError(f"store {self.path} is closed")
        with self._errors():
            db.execute("BEGIN")
            try:
                result = work(db)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:  # SQLite has already rolled back after some errors, a full disk among them
                    db.execute("ROLLBACK")
                raise
        return result

    def _open(self) -> None:
        with self._errors():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.path)
            try:
                self._db = db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=True)
                for setting in (
                    "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON",
                    f"wal_autocheckpoint = {LONGEST_WAL_PAGES}",
                ):  # fmt: skip
                    db.execute(f"PRAGMA {setting}").fetchall()
                migrate(db, self.path)
                for left in self.path.parent.glob(f"{self._copy.name}*"):
                    left.unlink()  # by a process that was killed
            except BaseException:
                self._close()
                raise

    def _close(self) -> None:
        db, self._db = self._db, None
        lock, self._lock = self._lock, -1
        if db is not None:
            db.close()
        if lock >= 0:  # else closed already, by who asked for it at the same time
            os.close(lock)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn what SQLite and the file system raise into StoreError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"store {self.path}: {error}; check the disk's space and the file") from error
