"""The pump: carries committed events from the store's outbox to the alert channel, in store order, until each is there.

An event is published only after it was committed, and is taken out of the outbox only after the broker acknowledged it;
what is published twice in between, the channel's script gives its first offset.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple

import structlog

from monitord.store import Batch, Store
from notifiers.alertstream import Behind, ChannelDown, Outgoing, Receipt
from notifiers.channel import AlertChannel, Prepared
from rules.alert import stamp_published

BATCH_ROWS: Final = 256
CHECK_S: Final = 5.0
"""How often an idle pump asks the broker whether it still has what it acknowledged."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0

log = structlog.get_logger(__name__)


class _Staged(NamedTuple):
    """A batch that is being committed, and what publishing it takes."""

    batch: Batch
    prepared: Prepared


class Pump:
    """Publishes the outbox of one store on one channel. Event-loop thread; one `run` at a time.

    The outbox is its queue: it grows while the broker is away, bounded by the disk, and nothing in it is ever dropped.
    """

    def __init__(
        self,
        store: Store,
        channel: AlertChannel,
        *,
        on_offered: Callable[[str, Sequence[Outgoing]], None] = lambda epoch, alerts: None,
        on_published: Callable[[str, Sequence[tuple[int, Outgoing]]], None] = lambda epoch, alerts: None,
        batch_rows: int = BATCH_ROWS,
        check_s: float = CHECK_S,
        random_share: Callable[[], float] = random.random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Make ready without starting.

        on_offered is told the epoch and the alerts that the broker is busy with; on_published the epoch and each alert
        with its offset, as soon as the broker has a batch. random_share gives the jitter, uniform in [0, 1); sleep
        waits between tries while closing.
        """
        self._store, self._channel = store, channel
        self._on_offered, self._on_published = on_offered, on_published
        self._batch_rows, self._check_s = batch_rows, check_s
        self._random_share, self._sleep = random_share, sleep
        self._closing = asyncio.Event()
        self._finished = asyncio.Event()
        self._pause_s = FIRST_PAUSE_S
        self._staged: _Staged | None = None
        store.on_staged = self.prepare
        self._seen = ("", 0)
        """Epoch and greatest offset the broker was ever seen to have, ours or another publisher's."""
        self._counters = dict.fromkeys(("published", "duplicates", "redrives", "failures"), 0)
        self.steps = 0
        """Looks at the outbox since the start: one that stands still hangs."""
        self.up = False
        """Whether the broker took the last thing offered (for readiness)."""

    def counters(self) -> Mapping[str, int]:
        """Return counts since the start: published, duplicates, redrives, failures; and lag_rows as it is now."""
        return {**self._counters, "lag_rows": self._store.lag_rows}

    async def run(self) -> None:
        """Publish until `drain` finds the outbox empty.

        Raises Fenced when another publisher took over, StoreError when the store fails. Cancelling loses nothing: what
        was not marked sent is published again by the next run.
        """
        self._finished.clear()
        try:
            while not await self._step():
                pass
        finally:
            self._finished.set()

    async def drain(self, deadline_s: float) -> int:
        """Let `run` end as soon as the outbox is empty; return how many rows are left at the deadline."""
        self._closing.set()
        self._store.committed.set()  # wakes an idle run; it finds the outbox empty and sees that we close
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._finished.wait()
        return self._store.lag_rows

    async def _step(self) -> bool:
        """Publish one batch, or wait for one; return whether this was the last."""
        self.steps += 1
        self._store.committed.clear()  # before looking: a commit from here on wakes the wait below
        batch = await self._store.batch(limit=self._batch_rows)
        if not batch.rows and self._closing.is_set():
            return True
        try:
            await self._publish(batch)
            self.up, self._pause_s = True, FIRST_PAUSE_S
        except Behind as error:
            await self._redrive(error)
        except ChannelDown as error:
            await self._back_off(error)
        else:
            if not batch.rows:
                await self._wait_for_commit()
        return False

    def prepare(self, batch: Batch) -> None:
        """Make ready what publishing a batch takes, while the disk syncs it: 0.5 ms for 70 alerts. Nothing is sent."""
        self._staged = _Staged(batch, self._prepared(batch))

    def _prepared(self, batch: Batch) -> Prepared:
        now_ms = time.time_ns() // 1_000_000
        outgoing = [
            Outgoing(row.id, stamp_published(row.record, now_ms), row.symbol, row.rule, row.severity)
            for row in batch.rows
        ]
        return self._channel.prepare(outgoing, epoch=batch.epoch, acked=batch.acked)

    async def _publish(self, batch: Batch) -> None:
        """Publish a batch and mark it sent; an empty one only asks whether the broker has all it acknowledged."""
        rows, epoch, acked = batch.rows, batch.epoch, batch.acked
        if not rows:
            await self._channel.make_ready()
            head, kept = await self._channel.kept()
            if epoch == "" or head.epoch != epoch or kept < acked:
                raise Behind(f"the broker has epoch {head.epoch!r} top {kept}, not {epoch!r} {acked}")
            self._see(epoch, head.top, at_least=head.top)
            return
        staged, self._staged = self._staged, None
        # Only the very batch that the store hands out was committed; one that it never hands out is never sent.
        prepared = staged.prepared if staged is not None and staged.batch is batch else self._prepared(batch)
        outgoing = prepared.alerts
        offering = asyncio.get_running_loop().call_soon(self._on_offered, epoch, outgoing)  # when the call has gone out
        receipts = await self._channel.send(prepared)
        offering.cancel()
        self._on_published(epoch, [(receipt.off, alert) for receipt, alert in zip(receipts, outgoing, strict=True)])
        await asyncio.sleep(0)  # whoever was told sends first: the store's thread would take the interpreter from him
        self._see(epoch, max(receipt.off for receipt in receipts), at_least=_top_before(receipts))
        await self._store.mark_sent(
            [(row.seq, receipt.off) for row, receipt in zip(rows, receipts, strict=True)], epoch=epoch
        )
        duplicates = sum(receipt.duplicate for receipt in receipts)
        self._counters["duplicates"] += duplicates
        self._counters["published"] += len(receipts) - duplicates

    def _see(self, epoch: str, top: int, *, at_least: int | None) -> None:
        """Remember how far the broker was; raises Behind where it gives offsets of this epoch for the second time.

        Another publisher may be away whose alerts they were; nobody but us can tell then. at_least: the top as it is
        now, None = not told.
        """
        seen = self._seen[1] if self._seen[0] == epoch else 0
        self._seen = epoch, max(seen, top)
        if at_least is not None and at_least < seen:
            raise Behind(f"the broker is at {at_least} and was at {seen} before, both in epoch {epoch!r}")

    async def _redrive(self, behind: Behind) -> None:
        """Go on in a new epoch, ours or one that another publisher has begun, with everything kept in the outbox again.

        The broker first: should we die in between, the store's old epoch makes the next publish `behind` once more.
        """
        before, acked = await self._store.acked()
        try:
            epoch, base = await self._channel.begin_epoch(acked=max(acked, self._seen[1]), ours=before)
        except ChannelDown as error:
            await self._back_off(error)
            return
        waiting = await self._store.begin_epoch(epoch, base=base)
        if before == "":  # nothing was ever acknowledged to us, so nothing can have been lost
            log.info("first_epoch", epoch=epoch, base=base, rows=waiting)
            return
        self._counters["redrives"] += 1
        log.warning("redrive", why=str(behind), epoch=epoch, base=base, rows=waiting)

    async def _wait_for_commit(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self._check_s):
                await self._store.committed.wait()

    async def _back_off(self, error: ChannelDown) -> None:
        """Wait before the next try: 0.1 to 5 s, half of it by chance; closing cuts it short, then keeps to 0.1 s."""
        self.up = False
        self._counters["failures"] += 1
        pause_s = self._pause_s * (0.5 + 0.5 * self._random_share())
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        log.warning("channel_down", why=str(error), lag_rows=self._store.lag_rows, retry_s=round(pause_s, 3))
        if self._closing.is_set():
            await self._sleep(FIRST_PAUSE_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._closing.wait()


def _top_before(receipts: Sequence[Receipt]) -> int | None:
    """Return the top before the first offset that was given now, None where all had been published before."""
    return next((receipt.off - 1 for receipt in receipts if not receipt.duplicate), None)
