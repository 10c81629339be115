"""`Study`: what people look things up with: names, recent bars, and a formula on them. Nothing here touches what runs.

Bars come from the engine, between two inputs; older ones from the feed itself or, in the process of a try-out, from the
cache and files.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from feeds.errors import FeedError
from feeds.history import COLUMNS, BarTable, HistoryRequest, PastBars, sound
from feeds.instruments import Instrument, instrument_of
from feeds.sessions import Calendar, trade_date
from monitord.tryout import TryOut, Wish, checked
from monitord.warmup import base_of
from rules.assembly import SOURCES, adjusted_by, longer
from rules.engine import Engine

VENDOR_S: Final = 8.0
DAYS: Final = 1500
"""Trading days that a try-out's process is told: it checks that none is missing among its bars."""

T = TypeVar("T")
log = structlog.get_logger(__name__)


class Asks(Protocol):
    """Who answers questions about the engine between two inputs (`Pipeline`)."""

    async def ask(self, question: Callable[[Engine], T]) -> T:
        """Return the answer."""


@dataclass(frozen=True, slots=True)
class Shelves:
    """Where older bars and sessions are; what is a function is asked anew each time.

    cache: folder of our own bars; vendor: the feed's history, None = it has none.
    """

    cache: Path | None = None
    files: Callable[[], Sequence[Path]] = tuple
    exrights: Callable[[], str] = str
    calendar: Callable[[], Calendar] = Calendar.xshg
    recordings: Callable[[], Sequence[Path]] = tuple
    vendor: Callable[[HistoryRequest], Awaitable[PastBars]] | None = None


class Study:
    """Answers the gateway. Event loop only."""

    def __init__(self, engine: Asks, shelves: Shelves, *, tryout: TryOut | None = None) -> None:
        self._engine = engine
        self._shelves = shelves
        self._tryout = tryout or TryOut()

    async def instruments(self, words: str, *, limit: int) -> Sequence[Instrument]:
        """Return what is watched whose code or name has these words: codes that begin with them first."""
        symbols, known = await self._engine.ask(
            lambda engine: (engine.market.universe.symbols, engine.market.instruments)
        )
        return search(words, symbols, known, limit=limit)

    async def bars(self, symbol: str, period: str, *, count: int) -> BarTable:
        """Return the newest bars that the engine holds, of finer ones where it makes none of this period."""
        return (await self._engine.ask(lambda engine: held_bars(engine, period, (symbol,)))).newest(count)

    async def try_out(self, wish: Wish) -> bytes:
        """Return as JSON what the formula gives; raises TryOutError, FeedError or RuleError for files that are bad."""
        await asyncio.to_thread(checked, wish)  # what is wrong with it is told at once, without a process
        with self._tryout.place():
            return await self._tryout.run(await self._job(wish))

    async def _job(self, wish: Wish) -> dict[str, Any]:
        """Return what the process is told: the wish, and what it shall try it on."""
        job: dict[str, Any] = {"wish": asdict(wish), "recordings": [], "vendor": None, "now_ms": 0}
        if wish.on == "ticks":
            return {**job, "recordings": [str(path) for path in await asyncio.to_thread(self._shelves.recordings)]}
        held, now_ms = await self._engine.ask(
            lambda engine: (held_bars(engine, wish.period, wish.symbols), engine.market.clock_ms)
        )
        vendor = await self._of_vendor(wish, held, now_ms)
        paper = await asyncio.to_thread(self._paper)
        return {
            **job, "held": _columns(held), "now_ms": now_ms, "vendor": None if vendor is None else _columns(vendor),
            **paper,
        }  # fmt: skip

    def _paper(self) -> dict[str, Any]:
        """Return what the process needs to read cache and files."""
        shelves, calendar = self._shelves, self._shelves.calendar()
        days: list[int] = []
        date = calendar.last_known or 0
        while date and len(days) < DAYS and date >= (calendar.first_known or 0):
            days.append(date)
            date = calendar.previous(date)
        cache = None if shelves.cache is None else str(shelves.cache)
        return {
            "cache": cache, "files": [str(path) for path in shelves.files()], "exrights": shelves.exrights(),
            "days": days,
        }  # fmt: skip

    async def _of_vendor(self, wish: Wish, held: BarTable, now_ms: int) -> BarTable | None:
        """Return the feed's own bars where the engine has too few; None where there are none or it fails."""
        if self._shelves.vendor is None or not now_ms or (held.counts() >= wish.count).all():
            return None
        base, bars = base_of(wish.period, 2 * wish.count)
        try:
            async with asyncio.timeout(VENDOR_S):
                answer = await self._shelves.vendor(HistoryRequest(base, wish.symbols, bars, now_ms))
        except (FeedError, TimeoutError) as error:
            log.warning("tryout_history_failed", why=str(error) or "too slow", symbols=len(wish.symbols))
            return None
        table = adjusted_by(answer.table, answer.factors, as_of=trade_date(now_ms)).of(wish.symbols)
        table = longer(table.take(sound(table)), base)
        return table if base == wish.period else longer(table, wish.period)


def held_bars(engine: Engine, period: str, symbols: Sequence[str]) -> BarTable:
    """Return the engine's bars of a period, of finer ones where it makes none of it."""
    table, finer = engine.recent_bars(period, symbols), period
    while not len(table) and finer in SOURCES:
        finer = SOURCES[finer]
        found = engine.recent_bars(finer, symbols)
        if len(found):
            return longer(found, period)
    return table


def search(words: str, symbols: Sequence[str], known: Mapping[str, Instrument], *, limit: int) -> list[Instrument]:
    """Return up to `limit` instruments: codes that begin with the words, names that do, then any that have them."""
    wanted = words.strip().casefold()
    ranked: list[tuple[int, str]] = []
    for symbol in symbols:
        instrument = known.get(symbol)
        name = "" if instrument is None or instrument.name is None else instrument.name.casefold()
        code = symbol.casefold()
        rank = (
            0 if code.startswith(wanted) else 1 if name.startswith(wanted) else 2 if wanted in code + " " + name else 3
        )
        if rank < 3:
            ranked.append((rank, symbol))
    ranked.sort()
    return [known.get(symbol) or instrument_of(symbol) for _, symbol in ranked[:limit]]


def _columns(table: BarTable) -> dict[str, Any]:
    """Return a table as lists for JSON; of one date's prices."""
    names = [table.symbols[code] for code in table.code.tolist()]
    columns = {name: getattr(table, name).tolist() for name in COLUMNS}
    as_of = int(table.as_of.max(initial=0))
    return {"symbol": names, "ts_end": table.ends_ms.tolist(), "as_of": as_of, **columns}
