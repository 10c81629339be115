"""The store: events (outbox and history), the input offset, what the broker acknowledged, deliveries. One database."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from monitord.database import Database
from monitord.deliveries import Deliveries
from monitord.paging import Page, check_page
from monitord.positions import ApiPositions
from monitord.silences import StoredSilences
from monitord.storedrules import StoredMonitors, StoredService, StoredTasks
from notifiers.routing import DELIVERY_RULE
from rules.alert import Alert

REDRIVE_MS: Final = 24 * 3_600_000
"""How long a sent row is kept for publishing it again, should the broker lose it."""
HANDED_ON: Final = 256
"""How many rows of the outbox a commit hands to the pump: more come by themselves only in a redrive."""
PRUNED_AT_ONCE: Final = 200
"""Rows of one transaction when history is pruned: a few ms."""

CHECKPOINT_ROWS: Final = 250
"""So many events sent, and the write-ahead log is copied into the file: about as often as SQLite would by itself."""


class OutboxRow(NamedTuple):
    """An event that is to be published; record: the bytes of `Alert.to_json`."""

    seq: int
    id: str
    record: bytes
    symbol: str | None
    rule: str
    severity: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What is to be published next, and what the broker acknowledged: epoch ("" = none yet) and greatest offset."""

    rows: list[OutboxRow]
    epoch: str
    acked: int


@dataclass(frozen=True, slots=True)
class _Committed:
    """What a commit brought: how many events were new, and if any were, what is to be published now."""

    added: int
    waiting: Batch | None


@dataclass(frozen=True, slots=True)
class StoredAlert:
    """An event of the history; epoch and off are None until it is published."""

    seq: int
    id: str
    record: bytes
    epoch: str | None
    off: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryFilter:
    """What to list; None lets all pass. since_ms ≤ ts_event_ms < until_ms (Unix ms); trade_date "2023-02-01".

    task_rules: a glob of rules of tasks; before_seq: only older ones, to read on where a page ended.
    """

    rule: str | None = None
    symbol: str | None = None
    severity: str | None = None
    event: str | None = None
    trade_date: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    task_rules: str | None = None
    before_seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeCounter:
    """What a trade date has seen of one (rule, rev, leg, symbol or group): enough to count on after a lost checkpoint.

    episode: greatest number given; fires: sent ones; last_fire_ms: Unix ms, None = none; suppressed: fires held back
    since the last one sent.
    """

    rule: str
    rev: str
    leg: str | None
    symbol: str | None
    group: str | None
    episode: int
    fires: int
    last_fire_ms: int | None
    suppressed: int


class Store:
    """What one `Database` holds; every method is one call of it, with what that says of threads, cancelling and errors.

    copied     yields a file that holds the store as it is now
    on_staged  is told on the loop, once a commit's events are written and while they are synced, what `batch` returns
               next if that succeeds; only where nothing waited before
    committed  is set whenever a commit brought new events; whoever waits for it clears it.
    lag_rows   events committed and not marked sent.
    """

    def __init__(self, path: Path, *, clock_ms: Callable[[], int]) -> None:
        """Use `open`."""
        self.path = path
        self.file = Database(path)
        self.copied = self.file.copied
        self.committed = asyncio.Event()
        self.on_staged: Callable[[Batch], None] = lambda batch: None
        self.lag_rows = 0
        self.duplicates = 0
        self.deliveries = Deliveries(self.file.run, clock_ms=clock_ms, tell=self._tell, on_told=self._on_told)
        self.silences = StoredSilences(self.file.run, clock_ms=clock_ms)
        self.held = ApiPositions(self.file.run)
        self.monitors = StoredMonitors(self.file.run, clock_ms=clock_ms)
        self.tasks = StoredTasks(self.file.run, clock_ms=clock_ms)
        self.service = StoredService(self.file.run, clock_ms=clock_ms)
        self._clock_ms = clock_ms
        self._unchecked_rows = 0
        self._waiting: Batch | None = None
        """What the newest commit found in the outbox, until the outbox changes otherwise."""

    @classmethod
    async def open(cls, path: Path, *, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> Store:
        """Open or create the store; raises as `Database.open` does."""
        store = cls(path, clock_ms=clock_ms)
        await store.file.open()
        try:
            (store.lag_rows,) = await store.file.row("SELECT count(*) FROM events WHERE sent_ms IS NULL") or (0,)
        except BaseException:
            await store.file.close()
            raise
        if store.lag_rows:
            store.committed.set()
        return store

    async def close(self) -> None:
        """Finish the calls that wait, close the file and give it free for others; idempotent."""
        await self.file.close()

    async def commit(
        self, alerts: Sequence[Alert], *, offset: int, source_id: str = "", records: Sequence[bytes] | None = None
    ) -> int:
        """Put events into the outbox and move the input offset, in one transaction; return how many events were new.

        records: each event's JSON (`Alert.to_json`); None: it is encoded here. An event whose id is here already is a
        duplicate: it was decided before from the same inputs. The offset never goes back. Cancelled, it is counted and
        tells the pump as ever.
        """
        loop = asyncio.get_running_loop()
        committed = await self.file.run(
            lambda db: self._commit(db, alerts, records, offset, source_id, loop=loop),
            lambda committed: self._count(committed, len(alerts)),
        )
        return committed.added

    async def offset(self, *, source_id: str = "") -> int:
        """Return the newest committed input offset of the source, -1 if there is none."""
        row = await self.file.row("SELECT offset FROM inputs WHERE source_id = ?", source_id)
        return -1 if row is None else int(row[0])

    async def pending(self, *, limit: int) -> list[OutboxRow]:
        """Return the first `limit` events of the outbox in store order."""
        return (await self.batch(limit=limit)).rows

    async def batch(self, *, limit: int) -> Batch:
        """Return up to `limit` events of the outbox in store order, and what was acknowledged, in one call.

        Right after a commit that is what the commit has found, without asking again: half a millisecond on an alert's
        way.
        """
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            return waiting if len(waiting.rows) <= limit else replace(waiting, rows=waiting.rows[:limit])
        return await self.file.run(lambda db: _look(db, limit))

    async def mark_sent(self, receipts: Sequence[tuple[int, int]], *, epoch: str) -> None:
        """Take (seq, stream offset) pairs out of the outbox and remember the greatest offset as acknowledged."""
        await self.file.run(lambda db: self._mark_sent(db, receipts, epoch), self._count_sent)
        if self._unchecked_rows >= CHECKPOINT_ROWS and not self.lag_rows:
            # By itself SQLite would do it within a commit that events wait for: 12 ms in place of 4.
            self._unchecked_rows = 0
            await self.file.checkpoint()

    async def acked(self) -> tuple[str, int]:
        """Return (epoch, greatest offset the broker acknowledged in it), ("", 0) before the first epoch."""
        epoch, off = await self.file.row("SELECT epoch, acked FROM channel") or ("", 0)
        return epoch, off

    async def begin_epoch(self, epoch: str, *, base: int) -> int:
        """Put all events sent within the last 24 h back into the outbox for a new epoch; return how many wait there."""
        return await self.file.run(lambda db: self._begin_epoch(db, epoch, base), self._count_all)

    async def prune(self, *, before_ms: int) -> tuple[int, int]:
        """Delete events sent, deliveries recorded, silences ended before then; return how many of the first two.

        Nothing a redrive may need goes: no event, and no delivery by which it is known to have arrived. In many short
        transactions, so that a commit waits for one of them at most; cancelling ends it after one.
        """
        limit_ms = min(before_ms, self._clock_ms() - REDRIVE_MS)
        events = deliveries = 0
        while some := await self.file.run(lambda db: db.execute(_PRUNE, (limit_ms, PRUNED_AT_ONCE)).rowcount):
            events += some
        while some := await self.deliveries.prune(created_before_ms=limit_ms, at_once=PRUNED_AT_ONCE):
            deliveries += some
        await self.silences.prune(ended_before_ms=limit_ms)
        return events, deliveries

    async def history(self, wanted: HistoryFilter, *, page: int = 1, page_size: int = 100) -> Page[StoredAlert]:
        """Return a page of the events that pass, newest first; page_size is at most 1000."""
        check_page(page, page_size)
        where, values = _where(wanted)
        # Named, for SQLite would take that of all rules, and sort what it finds there.
        events = "events" if wanted.task_rules is None else "events INDEXED BY events_of_tasks"
        return await self.file.run(
            lambda db: Page(
                tuple(
                    StoredAlert(*row)
                    for row in db.execute(
                        f"SELECT seq, id, record, epoch, off FROM {events} {where} ORDER BY seq DESC LIMIT ? OFFSET ?",
                        (*values, page_size, (page - 1) * page_size),
                    )
                ),
                db.execute(f"SELECT count(*) FROM {events} {where}", values).fetchone()[0],
                page,
                page_size,
            )
        )

    async def alert(self, alert_id: str) -> StoredAlert | None:
        """Return the event of this id, None if there is none."""
        row = await self.file.row("SELECT seq, id, record, epoch, off FROM events WHERE id = ?", alert_id)
        return None if row is None else StoredAlert(*row)

    async def alerts(self, alert_ids: Sequence[str]) -> dict[str, StoredAlert]:
        """Return the events of these ids that there are, by id."""
        rows = await self.file.rows(
            "SELECT seq, id, record, epoch, off FROM events WHERE id IN (SELECT value FROM json_each(?))",
            orjson.dumps(list(alert_ids)).decode(),
        )
        return {row[1]: StoredAlert(*row) for row in rows}

    async def recent(self, *, within_ms: int) -> list[bytes]:
        """Return the records of the market's events of so long before the newest of them, in store order.

        By their own time: a simulated or replayed market's is not ours, which receivers' events have.
        """
        newest = "SELECT max(ts_event_ms) FROM events WHERE rule <> ?"
        rows = await self.file.rows(
            f"SELECT record FROM events WHERE ts_event_ms >= ({newest}) - ? ORDER BY seq", DELIVERY_RULE, within_ms
        )
        return [row[0] for row in rows]

    async def counters(self, trade_date: str) -> list[EpisodeCounter]:
        """Return what that trade date ("2023-02-01") has seen, per (rule, rev, leg, symbol or group)."""
        rows = await self.file.rows(_COUNTERS, trade_date)
        return [
            EpisodeCounter(
                rule=rule, rev=rev, leg=leg, symbol=symbol, group=group,
                episode=episode, fires=fires, last_fire_ms=last_ms, suppressed=held,
            )
            for rule, rev, leg, symbol, group, episode, fires, last_ms, held in rows
        ]  # fmt: skip

    async def episodes(self, *, since_date: str) -> dict[tuple[str, str, str, str], int]:
        """Return (rule, leg or "", symbol or group or "", trade date) → greatest episode, from `since_date` on."""
        rows = await self.file.rows(
            "SELECT rule, coalesce(leg, ''), coalesce(symbol, \"group\", ''), trade_date, max(episode) FROM events "
            "WHERE trade_date >= ? GROUP BY 1, 2, 3, 4",
            since_date,
        )
        return {(rule, leg, symbol, date): episode for rule, leg, symbol, date, episode in rows}

    async def position(self, consumer: str) -> tuple[str, int] | None:
        """Return (epoch, offset) up to which a consumer of the channel has read, None for a new one."""
        row = await self.file.row("SELECT epoch, off FROM positions WHERE consumer = ?", consumer)
        return None if row is None else (row[0], row[1])

    async def set_position(self, consumer: str, *, epoch: str, off: int) -> None:
        """Remember how far a consumer of the channel has read."""
        await self.file.run(
            lambda db: db.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", (consumer, epoch, off))
        )

    def _commit(
        self,
        db: sqlite3.Connection,
        alerts: Sequence[Alert],
        records: Sequence[bytes] | None,
        offset: int,
        source_id: str,
        *,
        loop: asyncio.AbstractEventLoop,
    ) -> _Committed:
        nothing_waits = bool(alerts) and db.execute(_ANY_PENDING).fetchone() is None
        rows = _rows(alerts, [alert.to_json() for alert in alerts] if records is None else records)
        added = self._insert(db, alerts, rows)
        (last_seq,) = db.execute("SELECT last_insert_rowid()").fetchone()
        db.execute(
            "INSERT INTO inputs VALUES (?, ?) "
            "ON CONFLICT (source_id) DO UPDATE SET offset = max(offset, excluded.offset)",
            (source_id, offset),
        )
        if not added:
            return _Committed(0, None)
        if nothing_waits and added == len(rows) <= HANDED_ON:
            waiting = _just_added(db, rows, last_seq)
            with suppress(RuntimeError):  # the loop is closed: nobody is left to be told, and the events stay
                loop.call_soon_threadsafe(self.on_staged, waiting)
            return _Committed(added, waiting)
        return _Committed(added, _look(db, HANDED_ON))

    def _insert(self, db: sqlite3.Connection, alerts: Sequence[Alert], rows: Sequence[OutboxRow]) -> int:
        """Put events into the outbox; return how many were new."""
        now_ms = self._clock_ms()
        added = db.executemany(
            "INSERT INTO events (id, event, rule, rev, leg, symbol, \"group\", severity, trade_date, episode, "
            "ts_event_ms, record, committed_ms) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (id) DO NOTHING",
            [
                (
                    alert.id, str(alert.event), alert.rule, alert.rev, alert.leg, alert.symbol, alert.group,
                    alert.severity, alert.trade_date, alert.episode, alert.ts_event_ms, row.record, now_ms,
                )
                for alert, row in zip(alerts, rows, strict=True)
            ],
        ).rowcount  # fmt: skip
        return max(added, 0)  # -1 for no alert at all

    async def tell(self, alert: Alert) -> None:
        """Put an event that no input decided into the outbox; one whose id is here already is passed over."""
        await self.file.run(lambda db: self._tell(db, alert), self._on_told)

    def _tell(self, db: sqlite3.Connection, alert: Alert) -> int:
        """Put an event that no input decided into the outbox."""
        return self._insert(db, [alert], _rows([alert], [alert.to_json(evaluated_ms=alert.ts_event_ms)]))

    def _on_told(self, new: int) -> None:
        """Count such events and tell the pump. What a commit found before lacks them: the outbox is asked again."""
        if new:
            self._waiting = None
            self.lag_rows += new
            self.committed.set()

    def _count(self, committed: _Committed, alerts: int) -> None:
        """Count what a commit brought and tell the pump.

        Race: a batch may be marked sent while we commit, and what we found still holds it. Both calls ran one after the
        other on the store's thread, and are told in that order: whichever came last is right about `_waiting`.
        """
        self.lag_rows += committed.added
        self.duplicates += alerts - committed.added
        if committed.added:
            self._waiting = committed.waiting
            self.committed.set()

    def _count_sent(self, marked: int) -> None:
        self._waiting = None
        self.lag_rows -= marked
        self._unchecked_rows += marked

    def _count_all(self, waiting: int) -> None:
        """Count a whole outbox anew."""
        self._waiting = None
        self.lag_rows = waiting

    def _mark_sent(self, db: sqlite3.Connection, receipts: Sequence[tuple[int, int]], epoch: str) -> int:
        now_ms = self._clock_ms()
        marked = db.executemany(
            "UPDATE events SET sent_ms = ?, epoch = ?, off = ? WHERE seq = ? AND sent_ms IS NULL",
            ((now_ms, epoch, off, seq) for seq, off in receipts),
        ).rowcount
        top = max((off for _, off in receipts), default=0)
        db.execute("UPDATE channel SET acked = max(acked, ?) WHERE epoch = ?", (top, epoch))
        return max(marked, 0)

    def _begin_epoch(self, db: sqlite3.Connection, epoch: str, base: int) -> int:
        db.execute("UPDATE channel SET epoch = ?, acked = ?", (epoch, base))
        db.execute(
            "UPDATE events SET sent_ms = NULL, epoch = NULL, off = NULL WHERE sent_ms >= ?",
            (self._clock_ms() - REDRIVE_MS,),
        )
        (waiting,) = db.execute("SELECT count(*) FROM events WHERE sent_ms IS NULL").fetchone()
        return int(waiting)


_PRUNE: Final = "DELETE FROM events WHERE seq IN (SELECT seq FROM events WHERE sent_ms < ? LIMIT ?)"
_PENDING: Final = (
    "SELECT seq, id, record, symbol, rule, severity FROM events WHERE sent_ms IS NULL ORDER BY seq LIMIT ?"
)
_ANY_PENDING: Final = "SELECT 1 FROM events WHERE sent_ms IS NULL LIMIT 1"
_COUNTERS: Final = """
WITH day AS (SELECT * FROM events WHERE trade_date = ?),
fired AS (
    SELECT rule, rev, leg, symbol, "group", count(*) AS fires, max(ts_event_ms) AS last_ms, max(seq) AS last_seq
    FROM day WHERE event = 'fire' GROUP BY rule, rev, leg, symbol, "group"
)
SELECT day.rule, day.rev, day.leg, day.symbol, day."group", max(day.episode), coalesce(max(fires), 0), max(last_ms),
       sum(day.event = 'suppressed' AND day.seq > coalesce(last_seq, 0))
FROM day LEFT JOIN fired
    ON fired.rule = day.rule AND fired.rev = day.rev AND fired.leg IS day.leg
    AND fired.symbol IS day.symbol AND fired."group" IS day."group"
GROUP BY day.rule, day.rev, day.leg, day.symbol, day."group"
ORDER BY min(day.seq)
"""


def _rows(alerts: Sequence[Alert], records: Sequence[bytes]) -> list[OutboxRow]:
    """Return events as rows of the outbox; their `seq` comes when they are inserted."""
    return [
        OutboxRow(0, alert.id, record, alert.symbol, alert.rule, alert.severity)
        for alert, record in zip(alerts, records, strict=True)
    ]


def _look(db: sqlite3.Connection, limit: int) -> Batch:
    return Batch([OutboxRow(*row) for row in db.execute(_PENDING, (limit,))], *_acked(db))


def _just_added(db: sqlite3.Connection, rows: Sequence[OutboxRow], last_seq: int) -> Batch:
    """Return what `_look` would find where nothing waits but what was inserted just now: all in turn."""
    first = last_seq - len(rows) + 1
    return Batch([OutboxRow(seq, *row[1:]) for seq, row in enumerate(rows, first)], *_acked(db))


def _acked(db: sqlite3.Connection) -> tuple[str, int]:
    """Return epoch and greatest offset that the broker acknowledged."""
    epoch, acked = db.execute("SELECT epoch, acked FROM channel").fetchone() or ("", 0)
    return epoch, acked


def _where(wanted: HistoryFilter) -> tuple[str, tuple[Any, ...]]:
    tests = {
        "rule = ?": wanted.rule,
        "symbol = ?": wanted.symbol,
        "severity = ?": wanted.severity,
        "event = ?": wanted.event,
        "trade_date = ?": wanted.trade_date,
        "ts_event_ms >= ?": wanted.since_ms,
        "ts_event_ms < ?": wanted.until_ms,
        # The first half is the index's own condition, word for word: else SQLite would not take it.
        "rule GLOB 'task-*' AND rule GLOB ?": wanted.task_rules,
        "seq < ?": wanted.before_seq,
    }
    asked = {test: value for test, value in tests.items() if value is not None}
    return f"WHERE {' AND '.join(asked)}" if asked else "", tuple(asked.values())
