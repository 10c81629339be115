"""The consumer group of one receiver on the Redis alert stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import structlog
from redis.exceptions import RedisError, ResponseError

from feeds.connection import Client, heeding_cancel
from notifiers.alertstream import Names, connect_to
from notifiers.consumer import BLOCK_MS, CLAIM_AFTER_MS, GroupEntry
from notifiers.errors import BrokerUnavailable

log = structlog.get_logger()

SOCKET_TIMEOUT_S: Final = 5.0
"""Above BLOCK_MS: a blocking read longer than the socket's timeout would never return."""


def consumer_client(url: str) -> Client:
    """Return a client for one AlertConsumer: timeouts above BLOCK_MS, no silent second tries.

    Raises DeliveryError for a url that is none.
    """
    return connect_to(url, timeout_s=SOCKET_TIMEOUT_S)


class AlertConsumer:
    """The group `notify:<receiver>` and its one consumer: a GroupReader.

    The client must return bytes and be used by nothing else: a connection is never shared between tasks that can be
    cancelled, or the reply of one would go to the other. Several processes with one receiver need different
    consumer names; each then gets a share of the stream, and takes over what another left unacknowledged.
    """

    def __init__(
        self,
        client: Client,
        receiver: str,
        *,
        names: Names | None = None,
        consumer: str = "monitord",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._stream = (names or Names()).stream
        self._group = f"notify:{receiver}"
        self._consumer = consumer
        self._monotonic = monotonic
        self._recovering = True
        """Own entries may be unacknowledged: at the start, and after a reply that never arrived."""
        self._claimed_at_s = -float("inf")

    async def open(self, *, from_start: bool) -> None:
        async with self._broker_errors():
            await self._create_group("0" if from_start else "$")

    async def read(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        async with self._broker_errors():
            try:
                return await self._next(block_ms=min(block_ms, BLOCK_MS), limit=limit)
            except ResponseError as error:
                if not str(error).startswith(("NOGROUP", "UNBLOCKED")):
                    raise
                # The broker came back without the stream. What is published again begins at its first entry, and what
                # this receiver had before is known by its alert id.
                log.warning("alert_group_recreated", group=self._group)
                await self._create_group("0")
                return ()

    async def ack(self, ids: Sequence[str]) -> None:
        if ids:
            async with self._broker_errors():
                await self._client.xack(self._stream, self._group, *ids)

    async def close(self) -> None:
        await self._client.aclose()

    async def _next(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        """Return own unacknowledged entries, else others' abandoned ones, else new ones."""
        if self._recovering:
            if entries := await self._read_group("0", limit=limit):
                return await self._counted(entries)
            self._recovering = False
        if self._monotonic() - self._claimed_at_s >= CLAIM_AFTER_MS / 1000:
            if entries := await self._claim_abandoned(limit):
                return await self._counted(entries)
            self._claimed_at_s = self._monotonic()
        return await self._read_group(">", limit=limit, block_ms=block_ms)

    async def _read_group(self, after: str, *, limit: int, block_ms: int = 0) -> list[GroupEntry]:
        reply: Any = await self._client.xreadgroup(
            self._group, self._consumer, {self._stream: after}, count=limit, block=block_ms or None
        )
        return [as_entry(entry) for _, entries in reply or () for entry in entries]

    async def _claim_abandoned(self, limit: int) -> list[GroupEntry]:
        reply: Any = await self._client.xautoclaim(
            self._stream, self._group, self._consumer, min_idle_time=CLAIM_AFTER_MS, start_id="0-0", count=limit
        )
        # Redis 6.2 hands a trimmed entry out as nil; later ones drop it from the group and list it apart.
        return [as_entry(entry) for entry in reply[1] if entry[0] is not None]

    async def _counted(self, entries: Sequence[GroupEntry]) -> list[GroupEntry]:
        """Return the entries with the number of times each was handed out."""
        pending: Any = await self._client.xpending_range(
            self._stream, self._group, entries[0].id, entries[-1].id, len(entries), self._consumer
        )
        times = {row["message_id"].decode(): int(row["times_delivered"]) for row in pending}
        return [GroupEntry(id=e.id, record=e.record, deliveries=times.get(e.id, 1)) for e in entries]

    async def _create_group(self, start: str) -> None:
        try:
            await self._client.xgroup_create(self._stream, self._group, id=start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):
                raise

    @asynccontextmanager
    async def _broker_errors(self) -> AsyncIterator[None]:
        """Turn the client's errors into BrokerUnavailable; note that a reply may have been lost, also by cancelling."""
        try:
            with heeding_cancel():
                yield
        except (RedisError, OSError, TimeoutError) as error:
            self._recovering = True
            raise BrokerUnavailable(f"alert stream of {self._group}: {type(error).__name__}") from None
        except asyncio.CancelledError:
            self._recovering = True
            raise


def as_entry(entry: tuple[bytes, dict[bytes, bytes] | None]) -> GroupEntry:
    """Decode (id, fields); a trimmed entry that is still pending has no fields."""
    entry_id, fields = entry
    return GroupEntry(id=entry_id.decode(), record=(fields or {}).get(b"alert"))
