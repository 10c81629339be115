"""Deliveries in the store: what each receiver is to get, every attempt made, the receivers' health.

`Deliveries` is the `DeliveryStore` that notifiers/delivery.py asks for, with listings for people.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import orjson

from monitord.errors import StoreError
from monitord.paging import Page, check_page
from notifiers.notifier import BundleKind, Verdict
from notifiers.recorded import Arrival, Attempt, DeliveryState, PendingDelivery, Waiting
from notifiers.retry import ReceiverState
from notifiers.routing import LONGEST_INTERVAL_MS, bundle_kind, group_due_ms
from rules.alert import Alert, identity

TEXT_BYTES: Final = 1024
"""What is kept of an attempt's text."""

LONGEST_ATTEMPT_MS: Final = 60_000
"""A receiver's total timeout is no longer."""
_WAITS: Final = "receiver = ? AND state = 'pending' AND bundle IS NULL"
_DUE: Final = f"{_WAITS} AND due_ms <= ?"
_BUCKET_DUE: Final = f"{_DUE} AND bucket IS NOT NULL"
_PLACE: Final = (
    "CASE WHEN kind IS NULL THEN id ELSE "
    "(SELECT min(one.id) FROM deliveries AS one WHERE one.bundle = deliveries.id) END, id"
)
"""A bundle comes where the first of its alerts would."""
_REVIVE: Final = "UPDATE deliveries SET state = 'pending', due_ms = ?, since_ms = ?, reason = NULL, failures = 0"
_IN_BUNDLE: Final = "UPDATE deliveries SET bucket = NULL, bundle = ? WHERE id = ?"
_LISTED: Final = (
    "id, receiver, alert_id, state, failures, (SELECT count(*) FROM attempts WHERE delivery_id = deliveries.id), "
    "due_ms, reason, created_ms, route, kind, bundle"
)

T = TypeVar("T")


class Run(Protocol):
    """Run work in one transaction on the store's thread.

    on_done is given its result on the loop, even where the caller was cancelled meanwhile.
    """

    def __call__(
        self, work: Callable[[sqlite3.Connection], T], on_done: Callable[[T], None] | None = None, /
    ) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A delivery as listed. due_ms: Unix ms, None unless pending; reason: why it is dead or withheld, else None.

    kind: None for an alert, else what its alerts are told as; bundle: the id of the delivery that delivers it.
    """

    id: int
    receiver: str
    alert_id: str
    state: DeliveryState
    failures: int
    attempts: int
    due_ms: int | None
    reason: str | None
    created_ms: int
    route: str = ""
    kind: BundleKind | None = None
    bundle: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryFilter:
    """What to list or replay; None lets all pass. since_ms ≤ created_ms < until_ms (Unix ms)."""

    ids: tuple[int, ...] | None = None
    receiver: str | None = None
    alert_id: str | None = None
    alert_ids: tuple[str, ...] | None = None
    state: DeliveryState | None = None
    since_ms: int | None = None
    until_ms: int | None = None

    def where(self) -> tuple[str, tuple[Any, ...]]:
        """Return the SQL condition, "1" for all, and its values."""
        tests = {
            "receiver = ?": self.receiver,
            "alert_id = ?": self.alert_id,
            "state = ?": None if self.state is None else str(self.state),
            "created_ms >= ?": self.since_ms,
            "created_ms < ?": self.until_ms,
        }
        asked: dict[str, Any] = {test: value for test, value in tests.items() if value is not None}
        if self.ids is not None:  # as one value: SQLite takes a limited number of them
            asked["id IN (SELECT value FROM json_each(?))"] = orjson.dumps(self.ids).decode()
        if self.alert_ids is not None:
            asked["alert_id IN (SELECT value FROM json_each(?))"] = orjson.dumps(self.alert_ids).decode()
        return " AND ".join(asked) or "1", tuple(asked.values())


class Deliveries:
    """The deliveries of one open store; every call is one transaction, as `Store` says."""

    def __init__(
        self,
        run: Run,
        *,
        clock_ms: Callable[[], int],
        tell: Callable[[sqlite3.Connection, Alert], int] = lambda db, alert: 0,
        on_told: Callable[[int], None] = lambda new: None,
    ) -> None:
        """tell: puts an alert into the outbox, within a transaction; on_told: hears afterwards how many were new."""
        self._run, self._clock_ms = run, clock_ms
        self._tell, self._on_told = tell, on_told

    async def begin(self, receiver: str, arrivals: Sequence[Arrival]) -> int:
        """Record arrivals in order; return how many were new."""
        now_ms = self._clock_ms()

        def record(db: sqlite3.Connection) -> int:
            return sum(_record(db, receiver, arrival, now_ms) for arrival in arrivals)

        return await self._run(record)

    async def due(self, receiver: str, now_ms: int, *, limit: int) -> Sequence[PendingDelivery]:
        """Return up to `limit` pending messages with due_ms ≤ now_ms in order; none that waits for others."""
        rows = await self._all(
            f"SELECT id, alert_id, record, failures, kind FROM deliveries WHERE {_DUE} AND bucket IS NULL "
            f"ORDER BY {_PLACE} LIMIT ?",
            (receiver, now_ms, limit),
        )
        return [_pending(row) for row in rows]

    async def waiting(self, receiver: str, now_ms: int, *, stale_before_ms: int) -> Waiting:
        """Count the messages that are due, a bucket as one, and of the alerts among them those due for long."""
        rows = await self._all(
            "SELECT count(*) FILTER (WHERE bucket IS NULL) + count(DISTINCT bucket), "
            "count(*) FILTER (WHERE bucket IS NULL AND kind IS NULL AND since_ms <= ?) "
            f"FROM deliveries WHERE {_DUE}",
            (stale_before_ms, receiver, now_ms),
        )
        return Waiting(messages=rows[0][0], stale=rows[0][1])

    async def empty_buckets(self, receiver: str, now_ms: int, *, limit: int) -> None:
        """Make bundles of up to `limit` alerts of the buckets that are due; an alert alone stays itself."""

        def empty(db: sqlite3.Connection) -> None:
            for (bucket,) in db.execute(
                f"SELECT bucket FROM deliveries WHERE {_DUE} AND bucket IS NOT NULL GROUP BY bucket ORDER BY min(id)",
                (receiver, now_ms),
            ).fetchall():
                chosen = db.execute(
                    f"SELECT id, alert_id FROM deliveries WHERE {_DUE} AND bucket = ? ORDER BY id",
                    (receiver, now_ms, bucket),
                ).fetchall()
                for first in range(0, len(chosen), limit):
                    _bundle(db, receiver, chosen[first : first + limit], bundle_kind(bucket), now_ms)
                _note_told(db, receiver, bucket, now_ms)

        # By that index: the other would have all that is due looked through, each time.
        sql = f"SELECT EXISTS (SELECT 1 FROM deliveries INDEXED BY deliveries_bucket WHERE {_BUCKET_DUE})"
        if (await self._all(sql, (receiver, now_ms)))[0][0]:
            await self._run(empty)

    async def digest(
        self, receiver: str, now_ms: int, *, limit: int, stale_before_ms: int | None = None
    ) -> PendingDelivery | None:
        """Bundle up to `limit` of the oldest alerts that are due, from buckets too, or of those due for long."""
        if stale_before_ms is None:
            where, values = f"{_DUE} AND kind IS NULL", (receiver, now_ms)
        else:
            where, values = f"{_WAITS} AND kind IS NULL AND bucket IS NULL AND since_ms <= ?", (
                receiver, stale_before_ms,
            )  # fmt: skip

        def bundle(db: sqlite3.Connection) -> PendingDelivery | None:
            chosen = db.execute(
                f"SELECT id, alert_id, bucket FROM deliveries WHERE {where} ORDER BY id LIMIT ?", (*values, limit)
            ).fetchall()
            for bucket in sorted({bucket for _, _, bucket in chosen if bucket is not None}):
                _note_told(db, receiver, bucket, now_ms)
            delivery_id = _bundle(db, receiver, [row[:2] for row in chosen], BundleKind.DIGEST, now_ms)
            row = db.execute(
                "SELECT id, alert_id, record, failures, kind FROM deliveries WHERE id = ?", (delivery_id,)
            ).fetchone()
            return None if row is None else _pending(row)

        return await self._run(bundle)

    async def records(self, bundle_id: int) -> Sequence[bytes]:
        """Return the records of a bundle's pending alerts in the order of recording."""
        rows = await self._all(
            "SELECT record FROM deliveries WHERE bundle = ? AND state = 'pending' ORDER BY id", (bundle_id,)
        )
        return [row[0] for row in rows]

    async def sent_since(self, receiver: str, since_ms: int) -> list[int]:
        """Return when the receiver's attempts after that time ended, ascending."""
        rows = await self._all(
            "SELECT at_ms + latency_ms FROM attempts JOIN deliveries ON deliveries.id = delivery_id "
            "WHERE at_ms > ? AND receiver = ? AND at_ms + latency_ms > ? ORDER BY 1",
            (since_ms - LONGEST_ATTEMPT_MS, receiver, since_ms),
        )
        return [row[0] for row in rows]

    async def next_due_ms(self, receiver: str) -> int | None:
        """Return the earliest due_ms of what is pending for the receiver, None if there is nothing."""
        rows = await self._all(f"SELECT min(due_ms) FROM deliveries WHERE {_WAITS}", (receiver,))
        due_ms: int | None = rows[0][0]
        return due_ms

    async def settle(
        self, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
    ) -> None:
        """Append the attempt and set the new state, of a bundle's alerts too; raises StoreError for an unknown id.

        PENDING needs due_ms and counts a failure; DEAD keeps the attempt's text as its reason.
        """
        if (state is DeliveryState.PENDING) != (due_ms is not None):
            raise StoreError(f"delivery {delivery_id}: due_ms belongs to a pending delivery, and to no other")
        await self._run(lambda db: _settle(db, delivery_id, attempt, state=state, due_ms=due_ms))

    async def divide(self, bundle_id: int, attempt: Attempt) -> Sequence[int]:
        """Append the attempt and make the bundle dead; its alerts become two bundles, due at once: return their ids.

        A bundle of one alert alone, which only this makes, dies with it; then there are no ids. One alone stays in a
        bundle so that no digest takes it in again. Raises StoreError for an unknown id.
        """
        now_ms = self._clock_ms()

        def divide(db: sqlite3.Connection) -> list[int]:
            chosen = db.execute(
                "SELECT id, alert_id FROM deliveries WHERE bundle = ? AND state = 'pending' ORDER BY id", (bundle_id,)
            ).fetchall()
            ids: list[int] = []
            if len(chosen) > 1:
                sql = "SELECT receiver, kind FROM deliveries WHERE id = ?"
                receiver, kind = db.execute(sql, (bundle_id,)).fetchone()
                middle = len(chosen) // 2
                for half in (chosen[:middle], chosen[middle:]):
                    ids.append(_new_bundle(db, receiver, half, BundleKind(kind), now_ms))
            _settle(db, bundle_id, attempt, state=DeliveryState.DEAD)
            return ids

        return await self._run(divide)

    async def replay(self, receiver: str, delivery_ids: Sequence[int] | None = None) -> int:
        """Make dead letters (these, or all of the receiver's) pending again, due at once, no failures; count them."""
        ids = None if delivery_ids is None else tuple(delivery_ids)
        return await self.replay_all(DeliveryFilter(receiver=receiver, ids=ids))

    async def replay_all(self, wanted: DeliveryFilter) -> int:
        """Make the dead letters that pass pending again, due at once, no failures; return how many alerts they are.

        A bundle comes with all of its alerts; an alert without its bundle comes by itself.
        """
        where, values = wanted.where()
        now_ms = self._clock_ms()

        def revive(db: sqlite3.Connection) -> int:
            bundles = db.execute(
                f"SELECT id FROM deliveries WHERE state = 'dead' AND kind IS NOT NULL AND ({where}) AND EXISTS "
                "(SELECT 1 FROM deliveries AS one WHERE one.bundle = deliveries.id AND one.state = 'dead')",
                values,
            ).fetchall()
            alerts = 0
            for (bundle,) in bundles:
                db.execute(f"{_REVIVE} WHERE id = ?", (now_ms, now_ms, bundle))
                alerts += db.execute(
                    f"{_REVIVE} WHERE bundle = ? AND state = 'dead'", (now_ms, now_ms, bundle)
                ).rowcount
            return (
                alerts
                + db.execute(
                    f"{_REVIVE}, bundle = NULL WHERE state = 'dead' AND kind IS NULL AND ({where})",
                    (now_ms, now_ms, *values),
                ).rowcount
            )

        return await self._run(revive)

    async def origin(self) -> str:
        """Return the id that the store was given when it was made."""
        return str((await self._all("SELECT id FROM identity", ()))[0][0])

    async def receiver_state(self, receiver: str) -> ReceiverState | None:
        """Return the receiver's kept health, None for one never seen."""
        rows = await self._all(
            "SELECT failures, failing_since_ms, hold_until_ms, disabled, refusals, alarms, alarmed "
            "FROM receivers WHERE name = ?",
            (receiver,),
        )
        if not rows:
            return None
        failures, since_ms, hold_ms, disabled, refusals, alarms, alarmed = rows[0]
        return ReceiverState(
            failures=failures, failing_since_ms=since_ms, hold_until_ms=hold_ms, disabled=disabled,
            refusals=refusals, alarms=alarms, alarmed=bool(alarmed),
        )  # fmt: skip

    async def set_receiver_state(self, receiver: str, state: ReceiverState, *, alarm: Alert | None = None) -> None:
        """Keep the receiver's health, and put the alert of it into the outbox."""
        values = (
            receiver, state.failures, state.failing_since_ms, state.hold_until_ms, state.disabled,
            state.refusals, state.alarms, int(state.alarmed),
        )  # fmt: skip

        def keep(db: sqlite3.Connection) -> int:
            db.execute("INSERT OR REPLACE INTO receivers VALUES (?,?,?,?,?,?,?,?)", values)
            return 0 if alarm is None else self._tell(db, alarm)

        await self._run(keep, self._on_told)

    async def listing(self, wanted: DeliveryFilter, *, page: int = 1, page_size: int = 100) -> Page[StoredDelivery]:
        """Return a page of the deliveries that pass, newest first; page_size is at most 1000."""
        check_page(page, page_size)
        where, values = wanted.where()

        def look(db: sqlite3.Connection) -> Page[StoredDelivery]:
            rows = db.execute(
                f"SELECT {_LISTED} FROM deliveries WHERE {where} ORDER BY id DESC LIMIT ? OFFSET ?",
                (*values, page_size, (page - 1) * page_size),
            )
            (total,) = db.execute(f"SELECT count(*) FROM deliveries WHERE {where}", values).fetchone()
            return Page(tuple(_stored(row) for row in rows), total, page, page_size)

        return await self._run(look)

    async def one(self, delivery_id: int) -> StoredDelivery | None:
        """Return the delivery of this id, None if there is none."""
        rows = await self._all(f"SELECT {_LISTED} FROM deliveries WHERE id = ?", (delivery_id,))
        return _stored(rows[0]) if rows else None

    async def alert_ids(self, delivery_id: int) -> list[str]:
        """Return the ids of the alerts that a bundle was made of, in order; none for an alert."""
        rows = await self._all("SELECT record FROM deliveries WHERE id = ? AND kind IS NOT NULL", (delivery_id,))
        return list(orjson.loads(rows[0][0])) if rows else []

    async def attempts(self, delivery_id: int) -> list[Attempt]:
        """Return the delivery's attempts, oldest first."""
        rows = await self._all(
            "SELECT at_ms, latency_ms, verdict, code, text FROM attempts WHERE delivery_id = ? ORDER BY n",
            (delivery_id,),
        )
        return [
            Attempt(at_ms=at_ms, latency_ms=latency_ms, verdict=Verdict(verdict), code=code, text=text)
            for at_ms, latency_ms, verdict, code, text in rows
        ]

    async def attempts_of(self, delivery_ids: Sequence[int]) -> dict[int, list[Attempt]]:
        """Return the attempts of these deliveries, oldest first, by delivery; one without any is left out."""
        rows = await self._all(
            "SELECT delivery_id, at_ms, latency_ms, verdict, code, text FROM attempts "
            "WHERE delivery_id IN (SELECT value FROM json_each(?)) ORDER BY delivery_id, n",
            (orjson.dumps(list(delivery_ids)).decode(),),
        )
        found: dict[int, list[Attempt]] = {}
        for delivery_id, at_ms, latency_ms, verdict, code, text in rows:
            attempt = Attempt(at_ms=at_ms, latency_ms=latency_ms, verdict=Verdict(verdict), code=code, text=text)
            found.setdefault(delivery_id, []).append(attempt)
        return found

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many deliveries each (receiver, state) has."""
        rows = await self._all("SELECT receiver, state, count(*) FROM deliveries GROUP BY receiver, state", ())
        return {(receiver, state): count for receiver, state, count in rows}

    async def backlog(self) -> dict[tuple[str, str], int]:
        """Return how many deliveries are pending or dead, by (receiver, state); those delivered are not looked at."""
        rows = await self._all(
            "SELECT receiver, state, count(*) FROM deliveries WHERE state IN ('pending', 'dead') "
            "GROUP BY receiver, state",
            (),
        )
        return {(receiver, state): count for receiver, state, count in rows}

    async def prune(self, *, created_before_ms: int, at_once: int) -> int:
        """Delete up to `at_once` deliveries of that age and their attempts, none that is pending; return how many."""
        sql = (
            "DELETE FROM deliveries WHERE id IN "
            "(SELECT id FROM deliveries WHERE state <> 'pending' AND created_ms < ? LIMIT ?)"
        )
        return await self._run(lambda db: db.execute(sql, (created_before_ms, at_once)).rowcount)

    async def _all(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        return await self._run(lambda db: db.execute(sql, values).fetchall())


def _settle(
    db: sqlite3.Connection, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
) -> None:
    """Append the attempt and set the new state, of a bundle's alerts too; raises StoreError for an unknown id."""
    text = _shortened(attempt.text)
    reason = text if state is DeliveryState.DEAD else None
    changed = db.execute(
        "UPDATE deliveries SET state = ?, due_ms = ?, reason = ?, failures = failures + ? WHERE id = ?",
        (str(state), due_ms, reason, int(state is DeliveryState.PENDING), delivery_id),
    ).rowcount
    if not changed:
        raise StoreError(f"there is no delivery {delivery_id}")
    if state is not DeliveryState.PENDING:
        db.execute(
            "UPDATE deliveries SET state = ?, due_ms = NULL, reason = ? WHERE bundle = ? AND state = 'pending'",
            (str(state), reason, delivery_id),
        )
    db.execute(
        "INSERT INTO attempts SELECT ?, count(*) + 1, ?, ?, ?, ?, ? FROM attempts WHERE delivery_id = ?",
        (delivery_id, attempt.at_ms, attempt.latency_ms, str(attempt.verdict), attempt.code, text, delivery_id),
    )


def _record(db: sqlite3.Connection, receiver: str, arrival: Arrival, now_ms: int) -> int:
    """Record one arrival; return 1, or 0 where it is known."""
    bucket, state, due_ms = arrival.bucket, DeliveryState.PENDING, now_ms
    reason = arrival.dead if arrival.dead is not None else arrival.withheld
    if reason is not None:
        state = DeliveryState.WITHHELD if arrival.dead is None else DeliveryState.DEAD
        bucket = None
    if bucket is not None:
        due_ms = group_due_ms(bucket, now_ms, **_bucket_times(db, receiver, bucket.key))
    return db.execute(
        "INSERT INTO deliveries (receiver, alert_id, record, state, due_ms, reason, created_ms, since_ms, route, "
        "bucket) VALUES (?,?,?,?,?,?,?,?,?,?) ON CONFLICT (receiver, alert_id) DO NOTHING",
        (
            receiver, arrival.alert_id, arrival.record, str(state), None if reason is not None else due_ms,
            None if reason is None else _shortened(reason), now_ms, due_ms, arrival.route,
            None if bucket is None else bucket.key,
        ),
    ).rowcount  # fmt: skip


def _bucket_times(db: sqlite3.Connection, receiver: str, bucket: str) -> dict[str, int | None]:
    """Return when those in a bucket are due, and when its group was told last."""
    (open_ms,) = db.execute(
        f"SELECT min(due_ms) FROM deliveries WHERE {_WAITS} AND bucket = ?", (receiver, bucket)
    ).fetchone()
    told = db.execute("SELECT told_ms FROM buckets WHERE receiver = ? AND bucket = ?", (receiver, bucket)).fetchone()
    return {"open_ms": open_ms, "told_ms": None if told is None else told[0]}


def _note_told(db: sqlite3.Connection, receiver: str, bucket: str, now_ms: int) -> None:
    """Remember when a group was told, as long as that can matter."""
    db.execute("DELETE FROM buckets WHERE told_ms < ?", (now_ms - LONGEST_INTERVAL_MS,))
    if bundle_kind(bucket) is BundleKind.GROUP:
        db.execute("INSERT OR REPLACE INTO buckets VALUES (?, ?, ?)", (receiver, bucket, now_ms))


def _bundle(
    db: sqlite3.Connection, receiver: str, chosen: Sequence[tuple[int, str]], kind: BundleKind, now_ms: int
) -> int | None:
    """Make one delivery of these (id, alert id); return its id: of one alone its own, None of none."""
    if not chosen:
        return None
    if len(chosen) == 1:
        db.execute(_IN_BUNDLE, (None, chosen[0][0]))
        return chosen[0][0]
    return _new_bundle(db, receiver, chosen, kind, now_ms)


def _new_bundle(
    db: sqlite3.Connection, receiver: str, chosen: Sequence[tuple[int, str]], kind: BundleKind, now_ms: int
) -> int:
    """Make a bundle of these (id, alert id), due at once, also of one alone; return its id."""
    ids = [alert_id for _, alert_id in chosen]
    bundle_id = f"bu_{identity(*ids)}"
    db.execute(
        "INSERT INTO deliveries (receiver, alert_id, record, state, due_ms, created_ms, since_ms, kind) "
        "VALUES (?,?,?,'pending',?,?,?,?) ON CONFLICT (receiver, alert_id) DO UPDATE SET state = 'pending', "
        "due_ms = excluded.due_ms, since_ms = excluded.since_ms, failures = 0, reason = NULL",
        (receiver, bundle_id, orjson.dumps(ids), now_ms, now_ms, now_ms, str(kind)),
    )
    (delivery_id,) = db.execute(
        "SELECT id FROM deliveries WHERE receiver = ? AND alert_id = ?", (receiver, bundle_id)
    ).fetchone()
    db.executemany(_IN_BUNDLE, ((delivery_id, one) for one, _ in chosen))
    return int(delivery_id)


def _pending(row: tuple[Any, ...]) -> PendingDelivery:
    kind = None if row[4] is None else BundleKind(row[4])
    return PendingDelivery(id=row[0], alert_id=row[1], record=row[2], failures=row[3], bundle=kind)


def _stored(row: tuple[Any, ...]) -> StoredDelivery:
    names = (
        "id", "receiver", "alert_id", "state", "failures", "attempts", "due_ms", "reason", "created_ms", "route",
        "kind", "bundle",
    )  # fmt: skip
    fields = dict(zip(names, row, strict=True))
    kind = None if fields["kind"] is None else BundleKind(fields["kind"])
    return StoredDelivery(**{**fields, "state": DeliveryState(fields["state"]), "kind": kind})


def _shortened(text: str) -> str:
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")
