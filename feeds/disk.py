"""What is asked of a disk: that what was written is there after a power cut, and that its errors say what was done."""

from __future__ import annotations

import os
from pathlib import Path

from feeds.errors import FeedError

datasync = getattr(os, "fdatasync", os.fsync)  # Windows and macOS have no fdatasync


def sync_folder(folder: Path) -> None:
    """Put the folder's own entries (a new or deleted file) on the disk."""
    if os.name == "nt":  # a folder cannot be opened there, and NTFS journals its entries
        return
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class DiskErrors:
    """Turn an OSError into a FeedError that says what was being done."""

    def __init__(self, doing: str) -> None:
        self._doing = doing

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, OSError):
            raise FeedError(f"cannot {self._doing}: {error.strerror or error}; check the path and the disk") from error
