"""`Turns`: whose turn it is at one receiver: what is due, as the rates allow, by itself or in a digest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from notifiers.pacing import Pacing, by_themselves, next_slot_ms, recent, slots
from notifiers.recorded import DeliveryStore, PendingDelivery

SEND_BATCH: Final = 32
"""Attempts between two reads of the stream."""


class Turns:
    """The sending order of one receiver, and how much of its rates is used. Event loop only."""

    def __init__(self, receiver: str, store: DeliveryStore, *, pacing: Pacing) -> None:
        self._receiver = receiver
        self._store = store
        self._pacing = pacing
        self._sent_ms: list[int] = []
        """When attempts ended, as far back as the rates look."""

    async def restore(self, now_ms: int) -> None:
        """Take up what a receiver was sent that the store knows."""
        if self._pacing.rates:
            # The attempt that a kill cut off is recorded nowhere, and counts at the receiver all the same.
            since_ms = now_ms - self._pacing.longest_ms
            self._sent_ms = [*await self._store.sent_since(self._receiver, since_ms), now_ms]

    def sent(self, now_ms: int) -> None:
        """Note the end of an attempt: by then it has surely reached who counts."""
        if self._pacing.rates:
            self._sent_ms.append(now_ms)

    def slot_ms(self, now_ms: int) -> int:
        """Return when the rates allow the next message."""
        rates = self._pacing.rates
        return next_slot_ms(rates, self._recent(now_ms), now_ms) if rates else now_ms

    async def next_messages(self, now_ms: int) -> Sequence[PendingDelivery]:
        """Return what may be sent now, in order; where rates leave no room for all, digests of what there is."""
        pacing, limit = self._pacing, SEND_BATCH
        if not pacing.rates and pacing.stale_after_s is None:
            await self._store.empty_buckets(self._receiver, now_ms, limit=pacing.bundle_alerts)
            return await self._store.due(self._receiver, now_ms, limit=limit)
        if self.slot_ms(now_ms) > now_ms:
            return ()
        stale_ms = -1 if pacing.stale_after_s is None else now_ms - round(pacing.stale_after_s * 1000)
        waiting = await self._store.waiting(self._receiver, now_ms, stale_before_ms=stale_ms)
        if waiting.stale:
            return await self._digest(now_ms, stale_before_ms=stale_ms)
        if pacing.rates:
            sent_ms = self._recent(now_ms)
            free = slots(pacing.rates, sent_ms, now_ms)
            singles = by_themselves(waiting.messages, free, bundle_alerts=pacing.bundle_alerts)
            if waiting.messages and not singles:
                return await self._digest_unless_overtaking(now_ms)
            limit = min(limit, singles, slots(pacing.rates, sent_ms, now_ms, within_ms=0))
        await self._store.empty_buckets(self._receiver, now_ms, limit=pacing.bundle_alerts)
        return await self._store.due(self._receiver, now_ms, limit=limit)

    async def _digest_unless_overtaking(self, now_ms: int) -> Sequence[PendingDelivery]:
        """Return a digest of what is due; but a bundle that is older comes first, else it might never."""
        first = await self._store.due(self._receiver, now_ms, limit=1)
        if first and first[0].bundle is not None:
            return first
        return await self._digest(now_ms) or first

    async def _digest(self, now_ms: int, *, stale_before_ms: int | None = None) -> Sequence[PendingDelivery]:
        digest = await self._store.digest(
            self._receiver, now_ms, limit=self._pacing.bundle_alerts, stale_before_ms=stale_before_ms
        )
        return () if digest is None else (digest,)

    def _recent(self, now_ms: int) -> list[int]:
        """Return when attempts ended, as far as rates care; later than now: the wall clock was set back."""
        self._sent_ms = [at_ms for at_ms in recent(self._sent_ms, now_ms - self._pacing.longest_ms) if at_ms <= now_ms]
        return self._sent_ms
