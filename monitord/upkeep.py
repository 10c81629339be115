"""Work on a store that no daemon has open: what a copy holds, putting one in its place, going back a schema version."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote

from feeds.disk import sync_folder
from monitord import schema
from monitord.errors import StoreError
from monitord.storefile import locked, sync_file, write_copy

LOGS: Final = ("-wal", "-shm")
"""What SQLite has beside a file that is in use, or was when its program was killed."""
NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL
BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a store holds. waiting: events to be published; pending: deliveries to be made; newest_ms: Unix ms."""

    version: int
    size_bytes: int
    events: int
    waiting: int
    pending: int
    newest_ms: int | None


def examine(path: Path) -> Contents:
    """Read a store that nobody has open, every page of it; raises StoreError if it is none, damaged or too new."""
    log = path.with_name(path.name + LOGS[0])
    if log.exists() and log.stat().st_size:
        raise StoreError(
            f"{path} has a log beside it ({log.name}), without which it is not whole: it is a store in use, or a plain "
            "copy of one; make backups with `monitord backup`"
        )
    if not path.is_file():
        raise StoreError(f"there is no file {path}")
    with _refusals(path), closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro&immutable=1", uri=True)) as db:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        version = schema.version_of(db)
        if version < 1 or not {"events", "inputs", "channel", "deliveries"} <= tables:
            raise StoreError(f"{path} is no store of monitord")
        if version > len(schema.MIGRATIONS):
            raise StoreError(
                f"{path} has schema version {version}, this program knows up to {len(schema.MIGRATIONS)}; "
                "it was written by a newer monitord: use that one"
            )
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise StoreError(f"{path} is damaged: {verdict}")
        return _contents(db, path, version)


def copy_closed(path: Path, target: Path) -> None:
    """Write a copy of a store that nobody has open; raises StoreError where a daemon has."""
    with _refusals(path), locked(path), closing(sqlite3.connect(path, isolation_level=None)) as db:
        write_copy(db, target)


def restore(backup: Path, path: Path, *, now_s: Callable[[], float] = time.time) -> tuple[Contents, Path | None]:
    """Put a backup in the place of a store; return what it holds, and where the old one is kept, None if none was.

    Killed at any moment, it leaves the old store or the new one, whole. Raises StoreError: the backup is not good, or a
    daemon has the store open.
    """
    contents = examine(backup)
    with _refusals(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
        if path.exists() and os.path.samefile(backup, path):
            raise StoreError(f"{backup} is the store itself")
        with locked(path):
            new = _copied_in(backup, path.with_name(f"{path.name}.new"))
            kept = None
            if path.exists():
                kept = _unused(
                    path.with_name(f"{path.name}.before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime(now_s()))}")
                )
                _set_aside(path, kept)
            new.replace(path)
            _own_as_folder(path)
            sync_folder(path.parent)
    return contents, kept


def downgrade(path: Path, *, to: int) -> int:
    """Bring a store back to an older schema version, a copy of it kept; return which it had. Raises StoreError."""
    if not path.is_file():
        raise StoreError(f"there is no store {path}")
    with _refusals(path), locked(path), closing(sqlite3.connect(path, isolation_level=None)) as db:
        before = schema.version_of(db)
        schema.downgrade(db, path, to=to)
    _own_as_folder(*path.parent.glob(f"{path.name}*"))
    return before


def settle(path: Path) -> None:
    """Copy the log of a store into it, as one does that was killed; the caller holds the lock. Raises StoreError."""
    with _refusals(path), closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _contents(db: sqlite3.Connection, path: Path, version: int) -> Contents:
    def number(sql: str) -> int:
        return int(db.execute(sql).fetchone()[0])

    newest = db.execute("SELECT max(committed_ms) FROM events").fetchone()[0]
    return Contents(
        version=version,
        size_bytes=path.stat().st_size,
        events=number("SELECT count(*) FROM events"),
        waiting=number("SELECT count(*) FROM events WHERE sent_ms IS NULL"),
        pending=number("SELECT count(*) FROM deliveries WHERE state = 'pending'"),
        newest_ms=newest,
    )


def _copied_in(backup: Path, new: Path) -> Path:
    """Copy a backup into a file made for it, whole and synced or not at all; what is in its place goes, a link too."""
    new.unlink(missing_ok=True)
    try:
        with backup.open("rb") as source, os.fdopen(os.open(new, NEW_FILE, 0o600), "wb") as target:
            shutil.copyfileobj(source, target, BLOCK_BYTES)
        sync_file(new)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    return new


def _set_aside(path: Path, kept: Path) -> None:
    """Keep the old store under another name, its log with it, so that `path` can be replaced in one step.

    A log left beside the new file would be taken for its own and destroy it. Usually it is gone by then: closing a
    store copies the log into it. A damaged one cannot be opened; what is kept is as damaged as it was.
    """
    with suppress(StoreError):
        settle(path)
    os.link(path, kept)
    for suffix in LOGS:
        log = path.with_name(path.name + suffix)
        if log.exists():
            log.replace(kept.with_name(kept.name + suffix))


def _unused(path: Path) -> Path:
    names = (path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000)))
    return next(name for name in names if not name.exists())


def _own_as_folder(*paths: Path) -> None:
    """Give files to whom their folder belongs: made by root, the service could not open them."""
    if os.geteuid() == 0:
        for path in paths:
            owner = path.parent.stat()
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)  # whatever the service linked there


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"{path}: {error}; check the disk's space, the file and who may use it") from error
