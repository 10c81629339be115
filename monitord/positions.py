"""Positions from files and by API as one set, and the table where those by API are kept.

A book is of the files or of the API, never of both, so that neither can overwrite what the other says.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from monitord.deliveries import Run
from rules import positions
from rules.errors import RuleError
from rules.positions import Position


class Kept(Protocol):
    """Where positions made by API are kept (`ApiPositions`)."""

    async def all(self) -> tuple[Position, ...]:
        """Return every position, by book and symbol."""

    async def replace(self, held: Sequence[Position]) -> None:
        """Let these take the place of all."""


class ApiPositions:
    """The positions made by API in an open store; every call is one transaction, as `Store` says."""

    def __init__(self, run: Run) -> None:
        self._run = run

    async def all(self) -> tuple[Position, ...]:
        """Return every position, by book and symbol."""

        def look(db: sqlite3.Connection) -> tuple[Position, ...]:
            rows = db.execute("SELECT book, symbol, entry, quantity FROM held ORDER BY book, symbol")
            return tuple(Position(*row) for row in rows)

        return await self._run(look)

    async def replace(self, held: Sequence[Position]) -> None:
        """Let these take the place of all."""

        def write(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM held")
            rows = [(one.book, one.symbol, one.entry, one.quantity) for one in held]
            db.executemany("INSERT INTO held VALUES (?, ?, ?, ?)", rows)

        await self._run(write)


@dataclass(frozen=True, slots=True)
class Listed:
    """A position and where it comes from: "file" or "api"."""

    position: Position
    origin: str


class PositionSources:
    """The files and the API as one set of positions."""

    def __init__(self, read_files: Callable[[], Mapping[str, str]], kept: Kept) -> None:
        """Take how the position files are read (blocking; path → text) and where the API's are kept."""
        self._read_files = read_files
        self._kept = kept

    async def source(self) -> str:
        """Return the canonical JSON of all positions now.

        Raises RuleFileError (bad file), RuleError (a book of both), OSError, UnicodeDecodeError or StoreError.
        """
        return positions.encode(one.position for one in await self.listing())

    async def listing(self) -> tuple[Listed, ...]:
        """Return all positions, by book and symbol; raises as `source` does."""
        files = await self._of_files()
        kept = await self._kept.all()
        _refuse_shared_books(files, kept)
        both = [*(Listed(one, "file") for one in files), *(Listed(one, "api") for one in kept)]
        return tuple(sorted(both, key=lambda listed: listed.position))

    async def replace(self, held: Sequence[Position]) -> None:
        """Keep these as the API's positions in place of all it had.

        Raises RuleError for a bad position or a book of the files, and as `source` does; then nothing is changed.
        """
        positions.encode(held)
        _refuse_shared_books(await self._of_files(), held)
        await self._kept.replace(held)

    async def _of_files(self) -> tuple[Position, ...]:
        return await asyncio.to_thread(lambda: positions.load(self._read_files()))


def _refuse_shared_books(files: Iterable[Position], api: Iterable[Position]) -> None:
    shared = {one.book for one in files} & {one.book for one in api}
    if shared:
        names = ", ".join(sorted(shared))
        raise RuleError(f"book {names} is in a position file; give positions by API a book of another name")
