"""The delivery of alerts to one receiver: recorded first, then acknowledged, then sent until it arrives or is dead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from notifiers.notifier import Verdict
from notifiers.retry import ReceiverState


class DeliveryState(StrEnum):
    """Where a delivery stands in the store."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """An alert read from the stream for one receiver, not recorded yet.

    record  the alert's bytes.
    dead    why it is to be recorded as a dead letter from the start, None for a delivery to be made.
    """

    alert_id: str
    record: bytes
    dead: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingDelivery:
    """A delivery that is due.

    failures  attempts failed since it was recorded or replayed.
    """

    id: int
    alert_id: str
    record: bytes
    failures: int


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
    """

    async def begin(self, receiver: str, arrivals: Sequence[Arrival]) -> int:
        """Record arrivals in order as pending and due at once (or dead, with the reason); return how many were new.

        An alert id already known for this receiver, also twice within `arrivals`, is ignored.
        """

    async def due(self, receiver: str, now_ms: int, *, limit: int) -> Sequence[PendingDelivery]:
        """Return up to `limit` pending deliveries whose time has come (due_ms ≤ now_ms), lowest id first."""

    async def next_due_ms(self, receiver: str) -> int | None:
        """Return the earliest due_ms of the pending deliveries, None if there are none."""

    async def settle(
        self, delivery_id: int, attempt: Attempt, *, state: DeliveryState, due_ms: int | None = None
    ) -> None:
        """Append the attempt and set the delivery's new state.

        PENDING takes due_ms (Unix ms of the next attempt) and adds one to `failures`; DEAD keeps the attempt's text
        as its reason.
        """

    async def replay(self, receiver: str, delivery_ids: Sequence[int] | None = None) -> int:
        """Make dead letters (these, or all of the receiver's) pending again, due at once with no failures; count them."""

    async def receiver_state(self, receiver: str) -> ReceiverState | None:
        """Return the receiver's kept health, None for one never seen."""

    async def set_receiver_state(self, receiver: str, state: ReceiverState) -> None:
        """Keep the receiver's health."""
