"""The store as a file: who holds it, and whole copies of it while it is written on."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from config.settings import Settings
from feeds.disk import sync_folder
from monitord.errors import StoreError

try:
    import fcntl
except ImportError:  # Windows, where `record` and `doctor` come by here
    fcntl = None  # type: ignore[assignment]


STORE_NAME: Final = "monitord.sqlite"
"""In the state directory, or in a share's own folder there."""


def state_folder(settings: Settings) -> Path:
    """Return the folder of journal, checkpoints and store: of one process alone, so each share has its own."""
    share = settings.engine.share
    return settings.state_dir / f"share-{share.replace('/', '-of-')}" if share else settings.state_dir


def take_lock(path: Path) -> int:
    """Return a descriptor holding the lock beside the store; raises StoreError that names the process holding it."""
    if fcntl is None:
        raise StoreError(f"store {path}: this system has no locks that a killed process lets go; use Linux or macOS")
    # no link is followed: root comes by here too, in a folder of the service's
    lock = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if os.geteuid() == 0:  # made by root, the service could not open it
        owner = path.parent.stat()
        with suppress(OSError):  # a root that may not, as in a container, has no service besides itself
            os.fchown(lock, owner.st_uid, owner.st_gid)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 20).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise StoreError(
            f"store {path} is already open by pid {holder}; stop that process or use another state directory"
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the store's lock: no daemon opens it meanwhile; raises StoreError where one has it open."""
    lock = take_lock(path)
    try:
        yield
    finally:
        os.close(lock)


def kept_copy(path: Path, version: int) -> Path:
    """Return where the copy of this schema version stands that an upgrade or a downgrade leaves behind."""
    return path.with_name(f"{path.name}.v{version}")


def copy_read(path: Path, target: Path) -> None:
    """Write a copy of the open store as it is at one moment, over a connection that only reads. Any thread.

    It holds up no commit: a reader of a write-ahead log never does. Nor is it the second connection by which older
    SQLite loses commits, which takes one that writes or copies the log into the file; a read-only one does neither.
    Raises sqlite3.Error or OSError; what was written by then is removed.
    """
    with closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)) as reading:
        write_copy(reading, target)


def write_copy(reading: sqlite3.Connection, target: Path) -> None:
    """Write what a connection sees into one file, in place of what was there, whole and synced or not at all."""
    part = target.with_name(f"{target.name}.part")
    part.unlink(missing_ok=True)
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # alerts are not for everybody's eyes
        with closing(sqlite3.connect(part, isolation_level=None)) as writing:
            writing.execute("PRAGMA synchronous = OFF").fetchall()  # it is synced as a whole, below
            reading.backup(writing)
            writing.execute("PRAGMA journal_mode = DELETE").fetchall()  # one file, with no log beside it
        sync_file(part)
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def sync_file(path: Path) -> None:
    """Have the disk hold a file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
