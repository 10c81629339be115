"""`PastSearch`: finds the bars that rules need from before their first tick, while ticks go on.

What is at hand (the local cache, files) comes before the first tick; the vendor is asked last. New rules and symbols
are looked for when they come. What is found takes effect as an input of the engine, journaled as any other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from itertools import chain
from typing import Final, Protocol, TypeVar

import structlog

from feeds.errors import FeedError
from feeds.history import Bars, check, encode
from feeds.instruments import Instrument
from feeds.tick import TickBatch
from monitord.warmup import Progress, Warmup
from rules.engine import Engine
from rules.needs import Lack
from rules.rehearsal import TOGETHER, Rehearsal

TURN_S: Final = 0.01
"""How long the engine may be busy with the past while a tick waits."""
AGAIN_AFTER_S: Final = 60.0
"""How long after a failed search the next one begins: at once, a fault that stays would end the process."""
MOST_ROWS: Final = 64
log = structlog.get_logger(__name__)
T = TypeVar("T")


class Host(Protocol):
    """What the search needs of the pipeline."""

    turn: asyncio.Lock
    """Held by whoever gives the engine something or asks it."""

    @property
    def engine(self) -> Engine:
        """The engine, for numbers only."""

    async def in_engine(self, work: Callable[[], T]) -> T:
        """Run this on the engine's thread; the turn is the caller's."""

    async def take_bars(self, bars: Bars, packed: bytes) -> None:
        """Journal sound bars of the past and let them take effect; packed: encoded. The turn is the caller's."""


class PastSearch:
    """Looks for the past of the symbols and rules of one pipeline. Event loop only."""

    def __init__(
        self,
        host: Host,
        history: Warmup,
        *,
        keep_today: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """keep_today: writes what there is of today's bars into the cache; called before it is searched. clock: seconds
        by which turns are as long as they may be."""
        self._clock = clock
        self._host = host
        self._history = history
        self._keep_today = keep_today
        self._met = False
        self._looked_among = 0
        """How many symbols had ticked when it was last looked for what they lack."""
        self._lacking = asyncio.Event()
        self._looked_for: dict[tuple[str, str], int] = {}
        """(period, symbol) → bars that were looked for, today."""
        self._looked_on = 0

    @property
    def progress(self) -> Progress | None:
        """How far the search is; None while nothing is searched."""
        return self._history.progress

    def look_again(self) -> None:
        """Take note that rules or symbols have come whose past nobody has looked for."""
        self._lacking.set()

    async def meet(self, batch: TickBatch, *, known: Sequence[Instrument]) -> None:
        """Let the past of all that ticks be known before the first tick is; what is not at hand comes later.

        known: what may tick later. The turn is the caller's. The symbols of the first batch come first, in its
        order: rows in the order of a feed's batches are read as one.
        """
        engine = self._host.engine
        if self._met:
            if self._looked_among != len(engine.market.universe):
                self._lacking.set()
            return
        self._met = True
        await asyncio.to_thread(engine.learn_needs)
        symbols = tuple(dict.fromkeys((*batch.symbols, *(instrument.symbol for instrument in known))))
        lacks = await self._host.in_engine(lambda: engine.lacks(symbols))
        count = 0
        async for some in in_groups(self._history.near(lacks, batch.span_ms[1], met=False)):
            count += await self._take(some, nullcontext())
        if lacks:
            log.info("history_read", bars=count, lacked={lack.period: len(lack.symbols) for lack in lacks})
        self._lacking.set()

    async def run(self) -> None:
        """Look for the past of what has come, whenever something has. Cancelling it loses nothing.

        Raises what a search raises; whoever calls again goes on with it AGAIN_AFTER_S later.
        """
        while True:
            await self._lacking.wait()
            self._lacking.clear()
            try:
                await self._search()
            except Exception:
                asyncio.get_running_loop().call_later(AGAIN_AFTER_S, self._lacking.set)
                raise

    async def _search(self) -> None:
        """Look for all that is lacking and was not looked for today."""
        async with self._host.turn:  # behind the batch that is being met, not beside the next one's alerts
            market = self._host.engine.market
            if not market.date:
                return  # no tick has said what day it is; the first one looks for everything
            self._looked_among = len(market.universe)
        await self._keep_today()
        sought = self._unsought(await self._lacks(None))
        async for some in in_groups(self._history.near(sought, self._host.engine.market.clock_ms)):
            await self._take(some, self._host.turn)
        # Race: rules that have come meanwhile have set `_lacking`, and are looked for from the beginning.
        left = [left for lack in sought for left in await self._lacks(lack.symbols) if left.period == lack.period]
        await self._ask_vendor(left)
        self._note(sought)

    async def _ask_vendor(self, lacks: Sequence[Lack]) -> None:
        count = 0
        async for some in in_groups(self._history.far(lacks, lambda: self._host.engine.market.clock_ms)):
            count += await self._take(some, self._host.turn)
        if lacks and self._history.asks_vendor:
            log.info("history_asked", bars=count, lacking={lack.period: len(lack.symbols) for lack in lacks})

    async def _take(self, some: Sequence[Bars], turn: AbstractAsyncContextManager[None]) -> int:
        """Let bars of one period take effect, and return how many there were; turn: entered for each part of it.

        The engine lives through them in short turns, whatever comes between, and then takes over some symbols at a
        time. Only that is an input.
        """
        engine, pace = self._host.engine, Pace(self._clock)
        async with turn:
            rehearsal = await self._host.in_engine(lambda: engine.rehearse(some))
        more = True
        while more:
            async with turn:
                more = await self._host.in_engine(lambda: pace.let(rehearsal))
        count = 0
        for bars in some:
            packed = await asyncio.to_thread(_packed, bars)
            if packed is not None:
                async with turn:
                    await self._host.take_bars(bars, packed)
                count += len(bars.ends_ms)
        return count

    async def _lacks(self, symbols: Sequence[str] | None) -> list[Lack]:
        """Return what these symbols lack, None: all that have ticked."""
        engine = self._host.engine
        await asyncio.to_thread(engine.learn_needs)  # a thousand rules would hold the ticks up for two seconds
        asked = engine.market.universe.symbols if symbols is None else symbols
        found: dict[str, list[Lack]] = {}
        for start in range(0, len(asked), TOGETHER):
            some = asked[start : start + TOGETHER]
            async with self._host.turn:
                lacks = await self._host.in_engine(partial(engine.lacks, some))
            for lack in lacks:
                found.setdefault(lack.period, []).append(lack)
        return [
            Lack(period, max(one.bars for one in some), tuple(chain.from_iterable(one.symbols for one in some)))
            for period, some in found.items()
        ]

    def _unsought(self, lacks: Sequence[Lack]) -> list[Lack]:
        """Return what has not been looked for today: a new listing never has the bars that a rule needs."""
        if self._looked_on != self._host.engine.market.date:
            self._looked_on = self._host.engine.market.date
            self._looked_for.clear()
        found = []
        for lack in lacks:
            new = [one for one in lack.symbols if self._looked_for.get((lack.period, one), 0) < lack.bars]
            if new:
                found.append(Lack(lack.period, lack.bars, tuple(new)))
        return found

    def _note(self, lacks: Sequence[Lack]) -> None:
        for lack in lacks:
            self._looked_for.update(dict.fromkeys(((lack.period, symbol) for symbol in lack.symbols), lack.bars))


class Pace:
    """Chooses how many bars a rehearsal lives through in a turn, by what the last ones took. The engine's thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.rows = 1
        self._clock = clock

    def let(self, rehearsal: Rehearsal) -> bool:
        """Let a rehearsal go on for a turn; return whether there is more to do."""
        began, lived = self._clock(), rehearsal.lived
        try:
            more = rehearsal.go_on(self.rows)
        except Exception as error:  # the input fails in the same way, and there it is noted and passed over
            log.warning("rehearsal_failed", why=f"{type(error).__name__}: {error}")
            return False
        took_s = self._clock() - began
        if rehearsal.lived == lived:
            pass  # a part that is no bars tells nothing of how long they take
        elif took_s > TURN_S:
            self.rows = max(self.rows // 2, 1)
        elif took_s < TURN_S / 2:
            self.rows = min(self.rows * 2, MOST_ROWS)
        return more


async def in_groups(found: AsyncIterator[Bars]) -> AsyncIterator[list[Bars]]:
    """Yield bars as they are best lived through together: of one period, some thousand symbols."""
    group: list[Bars] = []
    async for bars in found:
        symbols = sum(len(one.symbols) for one in group)
        if group and (bars.period != group[0].period or symbols + len(bars.symbols) > TOGETHER):
            yield group
            group = []
        group.append(bars)
    if group:
        yield group


def _packed(bars: Bars) -> bytes | None:
    """Return bars as the journal keeps them; None for bars that no engine can take, which it would hear of always."""
    try:
        check(bars)
    except FeedError as error:
        log.error("history_refused", why=str(error))
        return None
    return encode(bars)
