"""Deliveries as the store keeps them, and what is asked of the store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from notifiers.notifier import BundleKind, Verdict
from notifiers.retry import ReceiverState
from notifiers.routing import Bucket
from rules.alert import Alert


class DeliveryState(StrEnum):
    """Where a delivery stands in the store."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    WITHHELD = "withheld"
    """Not sent on purpose: silenced, inhibited, or dropped in quiet hours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An alert read from the stream for one receiver, not recorded yet.

    record    the alert's bytes.
    dead      why it is to be recorded as a dead letter from the start, None for a delivery to be made.
    withheld  why it is not to be sent, None for a delivery to be made.
    route     the route it came by, "" for none.
    bucket    where it waits for others, None for a delivery by itself and at once.
    """

    alert_id: str
    record: bytes
    dead: str | None = None
    withheld: str | None = None
    route: str = ""
    bucket: Bucket | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelivery:
    """A message that is due: an alert, or a bundle of several.

    alert_id  of a bundle its own id, and its record is no alert's.
    failures  attempts failed since it was recorded or replayed.
    bundle    what it is a bundle as, None for an alert.
    """

    id: int
    alert_id: str
    record: bytes
    failures: int
    bundle: BundleKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How many messages are due: alerts and bundles, and buckets that are to be told; stale: alerts due for long."""

    messages: int
    stale: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try, as the store keeps it.

    at_ms       Unix ms of its start; latency_ms its duration.
    code, text  as in Outcome: redacted.
    """

    at_ms: int
    latency_ms: int
    verdict: Verdict
    code: int | None
    text: str


class DeliveryStore(Protocol):
    """What delivery needs from the store. Each call is one transaction, durable when it returns; event-loop thread.

    A delivery is unique by (receiver, alert_id). Its id grows in the order of recording: it is the order of sending.
    A bundle is a delivery of its own, that its alerts are delivered by: what becomes of it becomes of them.
    """

    async def begin(self, receiver: str, arrivals: Sequence[Arrival]) -> int:
        """Record arrivals in order as pending, due at once or with their bucket; return how many were new.

        Those dead or withheld are recorded as such, with the reason. An alert id already known for this receiver, also
        twice within `arrivals`, is ignored.
        """

    async def due(self, receiver: str, now_ms: int, *, limit: int) -> Sequence[PendingDelivery]:
        """Return up to `limit` pending messages whose time has come (due_ms ≤ now_ms), lowest id first.

        A bundle comes where the first of its alerts would. Neither alerts in a bundle nor those in a bucket are among
        them.
        """

    async def waiting(self, receiver: str, now_ms: int, *, stale_before_ms: int) -> Waiting:
        """Count the messages that are due; of alerts those due first at or before `stale_before_ms` are stale."""

    async def empty_buckets(self, receiver: str, now_ms: int, *, limit: int) -> None:
        """Make bundles of up to `limit` alerts of the buckets that are due; an alert alone stays itself."""

    async def digest(
        self, receiver: str, now_ms: int, *, limit: int, stale_before_ms: int | None = None
    ) -> PendingDelivery | None:
        """Bundle up to `limit` of the oldest alerts that are due, whatever bucket they are in; return the digest.

        With stale_before_ms only those due first at or before it, and these though they wait for another attempt.
        One alert alone is returned as itself, None if there is none.
        """

    async def records(self, bundle_id: int) -> Sequence[bytes]:
        """Return the records of a bundle's alerts in the order of recording."""

    async def sent_since(self, receiver: str, since_ms: int) -> list[int]:
        """Return the times (Unix ms) at which the receiver's attempts after that one ended, ascending."""

    async def next_due_ms(self, receiver: str) -> int | None:
        """Return the earliest due_ms of what is pending, in buckets too, None if there is nothing."""

    async def settle(
        self, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
    ) -> None:
        """Append the attempt and set the delivery's new state.

        PENDING takes due_ms (Unix ms of the next attempt) and adds one to `failures`; DEAD keeps the attempt's text
        as its reason. What becomes of a bundle becomes of its alerts.
        """

    async def divide(self, bundle_id: int, attempt: Attempt) -> Sequence[int]:
        """Append the attempt and make the bundle dead; its alerts become two bundles, due at once: return their ids.

        A bundle of one alert alone, which only this makes, dies with it; then there are no ids.
        """

    async def replay(self, receiver: str, delivery_ids: Sequence[int] | None = None) -> int:
        """Make dead letters (these, or all of the receiver's) pending again, due at once, no failures; count them."""

    async def origin(self) -> str:
        """Return what tells this store from every other one, for as long as it lives."""

    async def receiver_state(self, receiver: str) -> ReceiverState | None:
        """Return the receiver's kept health, None for one never seen."""

    async def set_receiver_state(self, receiver: str, state: ReceiverState, *, alarm: Alert | None = None) -> None:
        """Keep the receiver's health, and put the alert of it, if there is one, into the outbox: both or neither."""
