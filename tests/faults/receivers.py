"""Delivery of a stream in memory over the real store, with real receivers, on a clock that jumps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from feeds.sessions import unix_ms
from monitord.store import Store
from notifiers.consumer import BLOCK_MS, GroupEntry
from notifiers.delivery import Clock, Delivery
from notifiers.notifier import Notifier
from notifiers.routing import NO_ROUTING, Router
from rules.alert import Alert, Event
from tests.faults.histories import Committed, Histories, Posted, Published
from tests.faults.sessions import settled_of
from tests.monitord.test_telling import Stream, Wall

T0_MS = unix_ms(20230201, 10 * 3_600_000)
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
IDLE_MS = MINUTE_MS


def alert(number: int, **changes: Any) -> Alert:
    fields: dict[str, Any] = {
        "id": f"al_{number:020x}", "episode_id": f"ep_{number}", "event": Event.FIRE, "rule": "brk", "rev": "1",
        "symbol": f"{600000 + number % 50}.SH", "severity": "warning", "trade_date": "2023-02-01", "episode": number,
        "ts_event_ms": T0_MS, "period": "tick", "message": f"突破 {number}",
    }  # fmt: skip
    return Alert(**{**fields, **changes})


class Impatient(Stream):
    """A stream whose idle reads take a minute instead of 2 s: an outage of hours is some hundred looks at the store."""

    async def read(self, *, block_ms: int, limit: int) -> Sequence[GroupEntry]:
        return await super().read(block_ms=IDLE_MS if block_ms == BLOCK_MS else block_ms, limit=limit)


class Desk:
    """A store, a clock and a stream for one receiver."""

    def __init__(self, folder: Path, wall: Wall, store: Store) -> None:
        self.folder, self.wall, self.store = folder, wall, store
        self.stream = Impatient(wall)
        self.told: list[Alert] = []

    @classmethod
    async def open(cls, folder: Path) -> Desk:
        await asyncio.to_thread(folder.mkdir, parents=True)
        wall = Wall()
        return cls(folder, wall, await Store.open(folder / "monitord.sqlite", clock_ms=lambda: wall.ms))

    def add(self, alerts: Sequence[Alert], *, every_ms: float = 0.0) -> None:
        """Let these come, one after the other."""
        for number, one in enumerate(alerts):
            self.stream.add(one, at_ms=self.wall.ms + round(number * every_ms))
        self.told += alerts

    async def deliver(self, notifier: Notifier, for_ms: int) -> Delivery:
        """Deliver for so long on the wall's clock."""
        clock = Clock(lambda: self.wall.ms, self.wall.sleep)
        router = Router(notifier.options.name, NO_ROUTING)
        delivery = Delivery(
            notifier, self.stream, self.store.deliveries, router=router, clock=clock, random=lambda: 0.5
        )
        self.wall.horizon_ms = self.wall.ms + for_ms
        self.wall.stop = lambda: delivery.stop(60)
        await asyncio.wait_for(delivery.run(), 300)
        self.wall.stop = lambda: None
        return delivery

    async def histories(self, posted: dict[str, list[Posted]]) -> Histories:
        """Close the store and gather; what the stream held stands for what was committed."""
        await self.store.close()
        committed = [
            Committed(one.id, one.symbol, one.rule, str(one.event), "e1", off) for off, one in enumerate(self.told, 1)
        ]
        published = [Published("e1", off, one.id) for off, one in enumerate(self.told, 1)]
        settled = settled_of(self.folder)
        histories = Histories(committed=committed, published=published, posted=posted, settled=settled)
        histories.write(self.folder / "histories")
        return histories
