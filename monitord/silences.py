"""Silences in the store, and as JSON: what the API takes and shows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson

from feeds.instruments import Board
from monitord.deliveries import Run
from notifiers.matching import Matcher
from notifiers.silences import MOST, Silence, SilenceError
from rules.alert import Event


class StoredSilences:
    """The silences of one open store; every call is one transaction, as `Store` says."""

    def __init__(self, run: Run, *, clock_ms: Callable[[], int]) -> None:
        self._run, self._clock_ms = run, clock_ms

    async def add(self, silence: Silence) -> Silence:
        """Keep a new silence and return it with its id; raises SilenceError if there are too many."""
        now_ms = self._clock_ms()

        def write(db: sqlite3.Connection) -> Silence:
            (alive,) = db.execute("SELECT count(*) FROM silences WHERE end_ms > ?", (now_ms,)).fetchone()
            if alive >= MOST:
                raise SilenceError("match", f"there are {alive} silences already; expire some, or match more with one")
            row = (encode(silence.matcher), silence.start_ms, silence.end_ms, silence.author, silence.comment, now_ms)
            added = db.execute(
                "INSERT INTO silences (matcher, start_ms, end_ms, author, comment, created_ms) VALUES (?,?,?,?,?,?)",
                row,
            )
            return replace(silence, id=added.lastrowid or 0, created_ms=now_ms)

        return await self._run(write)

    async def expire(self, silence_id: int) -> Silence | None:
        """End a silence now, one that has not begun before it begins; return it, None if there is none of this id.

        One that has expired stays as it is.
        """
        now_ms = self._clock_ms()

        def write(db: sqlite3.Connection) -> Silence | None:
            db.execute(
                "UPDATE silences SET end_ms = max(?, start_ms) WHERE id = ? AND end_ms > ?",
                (now_ms, silence_id, now_ms),
            )
            row = db.execute(f"{_SELECT} WHERE id = ?", (silence_id,)).fetchone()
            return None if row is None else _silence(row)

        return await self._run(write)

    async def alive(self) -> list[Silence]:
        """Return those that are active or will be, by id."""
        now_ms = self._clock_ms()
        return await self._run(
            lambda db: [_silence(row) for row in db.execute(f"{_SELECT} WHERE end_ms > ? ORDER BY id", (now_ms,))]
        )

    async def newest(self, *, limit: int) -> list[Silence]:
        """Return the newest, expired ones too, newest first."""
        return await self._run(
            lambda db: [_silence(row) for row in db.execute(f"{_SELECT} ORDER BY id DESC LIMIT ?", (limit,))]
        )

    async def prune(self, *, ended_before_ms: int) -> None:
        """Forget those that ended before that time."""
        await self._run(lambda db: db.execute("DELETE FROM silences WHERE end_ms < ?", (ended_before_ms,)))


_SELECT = "SELECT id, matcher, start_ms, end_ms, author, comment, created_ms FROM silences"


def _silence(row: Sequence[Any]) -> Silence:
    return Silence(
        id=row[0], matcher=decode(orjson.loads(row[1])), start_ms=row[2], end_ms=row[3], author=row[4],
        comment=row[5], created_ms=row[6],
    )  # fmt: skip


def encode(matcher: Matcher) -> str:
    """Return a matcher as JSON; what is empty is left out."""
    return orjson.dumps(record_of(matcher)).decode()


def record_of(matcher: Matcher) -> dict[str, Any]:
    """Return a matcher as a JSON-able dict; what is empty is left out."""
    record = {name: value for name, value in asdict(matcher).items() if value}
    return {**record, **({"labels": dict(matcher.labels)} if matcher.labels else {})}


def decode(record: Mapping[str, Any]) -> Matcher:
    """Build a matcher from its record; raises ValueError for a board or event that there is not."""
    fields: dict[str, Any] = {name: tuple(value) for name, value in record.items() if name != "labels"}
    fields["boards"] = tuple(map(Board, record.get("boards", ())))
    fields["events"] = tuple(map(Event, record.get("events", ())))
    return Matcher(**fields, labels=tuple(dict(record.get("labels", {})).items()))
