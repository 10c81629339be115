"""Quotes: the latest tick of every symbol, and the tick channels that carry it, conflated per client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Protocol

import numpy as np
import orjson

from feeds.tick import CORE, REST, TickBatch
from monitord.gateway.outlet import Outlet
from monitord.gateway.protocol import Burst, Dialect

Quote = Mapping[str, Any]
NEWER: Final = 8
TIDY_AFTER: Final = 8
"""Times as many ticks as there are symbols, after which batches of which little is left are looked for."""


class QuoteSource(Protocol):
    """Where the latest ticks are (`QuoteBoard`)."""

    def quote(self, symbol: str, *, book: bool = False) -> Quote | None:
        """Return the columns of the symbol's latest tick, the lazy ones too if `book`; None before its first."""

    def watch(self, changed: Callable[[Collection[str]], None]) -> None:
        """Call `changed(symbols)` on the event loop whenever these symbols have newer ticks."""


class QuoteBoard:
    """The latest tick of every symbol, by reference into its batch: nothing is copied until somebody asks.

    A batch stays while it has the latest tick of any symbol; where that is less than half of it, those are copied. Else
    each push that lacks but one symbol would keep all of the push before, 390 kB a market.

    Event loop only. `update` comes when the events of a batch are stored, and takes no time per symbol, because the
    pump has them to publish now; batches are looked through at the next question, or when `NEWER` other lists of
    symbols have come since.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[TickBatch, int]] = {}
        self._newer: dict[tuple[str, ...], TickBatch] = {}
        """Batches that are not in `_latest` yet, the newest last."""
        self._looked_through = 0
        """Ticks since the last tidying."""
        self._watchers: list[Callable[[Collection[str]], None]] = []

    def update(self, batch: TickBatch) -> None:
        """Take note of a batch; of a symbol that appears twice the later tick counts."""
        self._newer.pop(batch.symbols, None)  # an older one of the same symbols tells nothing any more
        self._newer[batch.symbols] = batch
        if len(self._newer) > NEWER:
            self._look_through(self._newer.pop(next(iter(self._newer))))
        for changed in self._watchers:
            changed(batch.symbols)

    def watch(self, changed: Callable[[Collection[str]], None]) -> None:
        self._watchers.append(changed)

    def quote(self, symbol: str, *, book: bool = False) -> Quote | None:
        for batch in self._newer.values():
            self._look_through(batch)
        self._newer.clear()
        found = self._latest.get(symbol)
        if found is None:
            return None
        batch, row = found
        columns = (*CORE, *(name for name in REST if batch.has(name))) if book else CORE
        times = {"ts_event_ms": int(batch.ts_event_ms[row]), "recv_ms": int(batch.recv_ms[row])}
        prices = {name: float(batch.column(name)[row]) for name in columns}
        return {"symbol": symbol, **times, "status": int(batch.status[row]), **prices}

    def _look_through(self, batch: TickBatch) -> None:
        self._latest.update(zip(batch.symbols, zip(repeat(batch), range(len(batch)), strict=False), strict=True))
        self._looked_through += len(batch)
        if self._looked_through > TIDY_AFTER * len(self._latest):
            self._looked_through = 0
            self._tidy()

    def _tidy(self) -> None:
        """Copy what is left of batches that are mostly superseded; 2 ms for 5,500 symbols."""
        held: dict[int, list[int]] = {}
        batches: dict[int, TickBatch] = {}
        for batch, row in self._latest.values():
            held.setdefault(id(batch), []).append(row)
            batches[id(batch)] = batch
        for key, rows in held.items():
            batch = batches[key]
            if 2 * len(rows) >= len(batch):
                continue
            rest = batch.take(np.array(rows)).alone()  # a part would keep the whole batch
            self._latest.update(zip(rest.symbols, zip(repeat(rest), range(len(rest)), strict=False), strict=True))


@dataclass(eq=False, slots=True)
class _Watch:
    """One client's interest in one symbol."""

    outlet: Outlet
    interval_s: float
    next_s: float = 0.0
    timer: asyncio.TimerHandle | None = None


class Conflator:
    """Sends the tick channels: per client and symbol at most one tick an interval, always the latest. Event loop only.

    The first tick after a quiet interval goes out at once; one that comes too early waits for the interval's end and is
    replaced by newer ones. A client that is behind gets the latest when it has caught up (`Outlet.offer`).
    """

    def __init__(self, source: QuoteSource) -> None:
        self._source = source
        self._watches: dict[str, dict[Outlet, _Watch]] = {}
        self._bursts: dict[tuple[str, int], Burst] = {}
        source.watch(self._changed)

    def follow(self, outlet: Outlet, symbol: str, *, interval_ms: int) -> None:
        """Send this symbol's ticks, the latest one now if there is one."""
        watch = _Watch(outlet, interval_ms / 1000)
        self._watches.setdefault(symbol, {})[outlet] = watch
        self._send(symbol, watch)

    def unfollow(self, outlet: Outlet, symbol: str) -> None:
        """Stop this symbol's ticks; also one that waits."""
        watches = self._watches.get(symbol, {})
        watch = watches.pop(outlet, None)
        if not watches:
            self._watches.pop(symbol, None)
        if watch is not None and watch.timer is not None:
            watch.timer.cancel()
        outlet.retract(_channel(symbol))

    def _changed(self, symbols: Collection[str]) -> None:
        if not self._watches:
            return
        self._bursts.clear()
        now = asyncio.get_running_loop().time()
        for symbol in self._watches.keys() & set(symbols):
            for watch in self._watches[symbol].values():
                if watch.timer is not None:
                    continue  # it will send the latest there is then
                if now >= watch.next_s:
                    self._send(symbol, watch)
                else:
                    watch.timer = asyncio.get_running_loop().call_at(watch.next_s, self._send, symbol, watch)

    def _send(self, symbol: str, watch: _Watch) -> None:
        watch.timer = None
        watch.next_s = asyncio.get_running_loop().time() + watch.interval_s
        burst = self._burst(symbol, watch.outlet.dialect)
        if burst is not None:
            watch.outlet.offer(_channel(symbol), burst)

    def _burst(self, symbol: str, dialect: Dialect) -> Burst | None:
        """Encode the latest tick once for all clients; forgotten at the next change."""
        key = (symbol, id(dialect))
        if key not in self._bursts:
            quote = self._source.quote(symbol)
            if quote is None:
                return None
            text = dialect.plain(_channel(symbol), orjson.dumps(quote))  # orjson writes NaN as null
            self._bursts[key] = dialect.burst([text])
        return self._bursts[key]


def _channel(symbol: str) -> str:
    return f"tick:{symbol}"
