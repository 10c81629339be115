"""Deliveries in the store: what each receiver is to get, every attempt made, the receivers' health.

`Deliveries` is the `DeliveryStore` that notifiers/delivery.py asks for, with listings for people.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from monitord.errors import StoreError
from monitord.paging import Page, check_page
from notifiers.delivery import Arrival, Attempt, DeliveryState, PendingDelivery
from notifiers.notifier import Verdict
from notifiers.retry import ReceiverState

TEXT_BYTES: Final = 1024
"""What is kept of an attempt's text."""

T = TypeVar("T")


class Run(Protocol):
    """Run work in one transaction on the store's thread."""

    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredDelivery:
    """A delivery as listed. due_ms: Unix ms, None unless pending; reason: why it is dead, else None."""

    id: int
    receiver: str
    alert_id: str
    state: DeliveryState
    failures: int
    attempts: int
    due_ms: int | None
    reason: str | None
    created_ms: int


class Deliveries:
    """The deliveries of one open store; every call is one transaction, as `Store` says."""

    def __init__(self, run: Run, *, clock_ms: Callable[[], int]) -> None:
        self._run, self._clock_ms = run, clock_ms

    async def begin(self, receiver: str, arrivals: Sequence[Arrival]) -> int:
        """Record arrivals in order as pending and due at once, or as dead letters; return how many were new."""
        now_ms = self._clock_ms()

        def record(db: sqlite3.Connection) -> int:
            return sum(
                db.execute(
                    "INSERT INTO deliveries (receiver, alert_id, record, state, due_ms, reason, created_ms) "
                    "VALUES (?,?,?,?,?,?,?) ON CONFLICT (receiver, alert_id) DO NOTHING",
                    (receiver, arrival.alert_id, arrival.record, *_first_state(arrival, now_ms), now_ms),
                ).rowcount
                for arrival in arrivals
            )

        return await self._run(record)

    async def due(self, receiver: str, now_ms: int, *, limit: int) -> Sequence[PendingDelivery]:
        """Return up to `limit` pending deliveries with due_ms ≤ now_ms, lowest id first."""
        rows = await self._all(
            "SELECT id, alert_id, record, failures FROM deliveries "
            "WHERE receiver = ? AND state = 'pending' AND due_ms <= ? ORDER BY id LIMIT ?",
            (receiver, now_ms, limit),
        )
        return [PendingDelivery(id=row[0], alert_id=row[1], record=row[2], failures=row[3]) for row in rows]

    async def next_due_ms(self, receiver: str) -> int | None:
        """Return the earliest due_ms of the receiver's pending deliveries, None if there are none."""
        rows = await self._all(
            "SELECT min(due_ms) FROM deliveries WHERE receiver = ? AND state = 'pending'", (receiver,)
        )
        due_ms: int | None = rows[0][0]
        return due_ms

    async def settle(
        self, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
    ) -> None:
        """Append the attempt and set the delivery's new state; raises StoreError for an id that is not here.

        PENDING needs due_ms and counts a failure; DEAD keeps the attempt's text as its reason.
        """
        if (state is DeliveryState.PENDING) != (due_ms is not None):
            raise StoreError(f"delivery {delivery_id}: due_ms belongs to a pending delivery, and to no other")
        text = _shortened(attempt.text)
        reason = text if state is DeliveryState.DEAD else None

        def record(db: sqlite3.Connection) -> None:
            changed = db.execute(
                "UPDATE deliveries SET state = ?, due_ms = ?, reason = ?, failures = failures + ? WHERE id = ?",
                (str(state), due_ms, reason, int(state is DeliveryState.PENDING), delivery_id),
            ).rowcount
            if not changed:
                raise StoreError(f"there is no delivery {delivery_id}")
            db.execute(
                "INSERT INTO attempts SELECT ?, count(*) + 1, ?, ?, ?, ?, ? FROM attempts WHERE delivery_id = ?",
                (
                    delivery_id, attempt.at_ms, attempt.latency_ms, str(attempt.verdict), attempt.code, text,
                    delivery_id,
                ),
            )  # fmt: skip

        await self._run(record)

    async def replay(self, receiver: str, delivery_ids: Sequence[int] | None = None) -> int:
        """Make dead letters (these, or all of the receiver's) pending again, due at once, no failures; count them."""
        now_ms = self._clock_ms()
        sql = (
            "UPDATE deliveries SET state = 'pending', due_ms = ?, reason = NULL, failures = 0 "
            "WHERE receiver = ? AND state = 'dead'"
        )

        def record(db: sqlite3.Connection) -> int:
            if delivery_ids is None:
                return db.execute(sql, (now_ms, receiver)).rowcount
            return sum(db.execute(f"{sql} AND id = ?", (now_ms, receiver, one)).rowcount for one in delivery_ids)

        return await self._run(record)

    async def receiver_state(self, receiver: str) -> ReceiverState | None:
        """Return the receiver's kept health, None for one never seen."""
        rows = await self._all(
            "SELECT failures, failing_since_ms, hold_until_ms, disabled FROM receivers WHERE name = ?", (receiver,)
        )
        if not rows:
            return None
        failures, since_ms, hold_ms, disabled = rows[0]
        return ReceiverState(failures=failures, failing_since_ms=since_ms, hold_until_ms=hold_ms, disabled=disabled)

    async def set_receiver_state(self, receiver: str, state: ReceiverState) -> None:
        """Keep the receiver's health."""
        values = (receiver, state.failures, state.failing_since_ms, state.hold_until_ms, state.disabled)
        await self._run(lambda db: db.execute("INSERT OR REPLACE INTO receivers VALUES (?,?,?,?,?)", values))

    async def listing(
        self,
        *,
        receiver: str | None = None,
        alert_id: str | None = None,
        state: DeliveryState | None = None,
        page: int = 1,
        page_size: int = 100,
    ) -> Page[StoredDelivery]:
        """Return a page of the deliveries that pass, newest first; page_size is at most 1000."""
        check_page(page, page_size)
        tests = {"receiver = ?": receiver, "alert_id = ?": alert_id, "state = ?": state}
        asked = {test: str(value) for test, value in tests.items() if value is not None}
        where = f"WHERE {' AND '.join(asked)}" if asked else ""
        values = tuple(asked.values())

        def look(db: sqlite3.Connection) -> Page[StoredDelivery]:
            rows = db.execute(
                "SELECT id, receiver, alert_id, state, failures, "
                "(SELECT count(*) FROM attempts WHERE delivery_id = deliveries.id), due_ms, reason, created_ms "
                f"FROM deliveries {where} ORDER BY id DESC LIMIT ? OFFSET ?",
                (*values, page_size, (page - 1) * page_size),
            )
            (total,) = db.execute(f"SELECT count(*) FROM deliveries {where}", values).fetchone()
            return Page(tuple(_stored(row) for row in rows), total, page, page_size)

        return await self._run(look)

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

    async def counts(self) -> dict[tuple[str, str], int]:
        """Return how many deliveries each (receiver, state) has."""
        rows = await self._all("SELECT receiver, state, count(*) FROM deliveries GROUP BY receiver, state", ())
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


def _first_state(arrival: Arrival, now_ms: int) -> tuple[str, int | None, str | None]:
    if arrival.dead is None:
        return str(DeliveryState.PENDING), now_ms, None
    return str(DeliveryState.DEAD), None, _shortened(arrival.dead)


def _stored(row: tuple[Any, ...]) -> StoredDelivery:
    names = ("id", "receiver", "alert_id", "state", "failures", "attempts", "due_ms", "reason", "created_ms")
    fields = dict(zip(names, row, strict=True))
    return StoredDelivery(**{**fields, "state": DeliveryState(fields["state"])})


def _shortened(text: str) -> str:
    return text.encode()[:TEXT_BYTES].decode(errors="ignore")
