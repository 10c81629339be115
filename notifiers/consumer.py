"""A receiver's place in the alert stream, as delivery sees it; notifiers/group.py keeps it in Redis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK_MS: Final = 2_000
"""The longest wait of one read: below the connection's timeout, else a silent broker and a quiet market look alike."""
CLAIM_AFTER_MS: Final = 60_000
"""Entries another reader took and did not acknowledge for this long are taken over."""
MAX_DELIVERIES: Final = 5
"""An entry handed out more often than this has stopped its reader each time: it becomes a dead letter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupEntry:
    """One entry handed out by the stream.

    id          the stream's entry id.
    record      the alert's bytes; None where the stream was trimmed before it could be read.
    deliveries  how often it has been handed out, this time included.
    """

    id: str
    record: bytes | None
    deliveries: int = 1


class GroupReader(Protocol):
    """Reads the alert stream for one receiver; what is not acknowledged is handed out again. Used by one task."""

    async def open(self, *, from_start: bool) -> None:
        """Make the receiver's place in the stream unless it has one: at the first entry kept, or behind the last.

        Raises BrokerUnavailable. Idempotent.
        """

    async def read(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        """Return the next entries in stream order; wait up to block_ms (≤ BLOCK_MS, 0 = not at all) for the first.

        Raises BrokerUnavailable. After an error or a cancelled read, entries whose reply was lost come again.
        """

    async def ack(self, ids: Sequence[str]) -> None:
        """Never hand these out again. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Release the connection; a later call opens a new one. Idempotent."""
