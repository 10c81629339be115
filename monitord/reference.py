"""`Reference`: instruments and trading days from the feed, kept for a day under the state directory.

A live feed's names, limits, sectors and trading days change overnight, and asking for them is thousands of calls that
may hang. So a start takes today's from the disk, and waits for the feed only where there are none; later they are asked
for beside the running market, at set times before the open. What the engine uses of them goes through control records.
Where neither feed nor disk knows, codes tell the board and the built-in calendar the days.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from feeds.errors import FeedError
from feeds.feed import Feed, Referenced, Telling
from feeds.instruments import Instrument
from feeds.known import Known, as_record, of_record
from feeds.limitcheck import LimitCheck, compare_limits
from feeds.sessions import DAY_MS, Calendar, day_ms, trade_date

FORMAT: Final = 1
REFRESH_AT: Final = ("08:50", "09:12", "09:26")
"""Shanghai times at which a live feed is asked again: after the terminal has loaded its day, once more before the first
prices, and when the auction is over. A table that says nothing new changes nothing."""
START_WAIT_S: Final = 30.0
"""How long a start waits for a feed of which nothing is kept; then it goes on without, and the table comes later."""
RETRY_S: Final = 60.0
"""How soon a feed that has told nothing of today is asked again."""
MOST_MISSING: Final = 10
"""Trading days that a feed may lack within what the built-in calendar knows of its last year, until it is not believed:
a terminal that has loaded half of its dates would close the market."""

log = structlog.get_logger(__name__)


class Reference:
    """Keeps `Known` of one feed. All methods belong to the event loop; what blocks runs in threads."""

    def __init__(self, feed: Feed, *, folder: Path, now: Callable[[], float] = time.time) -> None:
        """folder: where the table of the day is kept; made when it is needed."""
        self._feed = feed
        self._file = folder / "instruments.json"
        self._now = now
        self._known = Known()
        self._calendar: Calendar | None = None
        self._check = LimitCheck()
        self._days_disputed = 0
        self._refreshes = self._failures = 0

    @property
    def is_daily(self) -> bool:
        """Whether the feed's instruments change from day to day."""
        return isinstance(self._feed, Referenced)

    async def start(self) -> None:
        """Learn what there is, before the first tick: today's from the disk, else the feed's, else an older one."""
        if isinstance(self._feed, Telling):
            await self._start_told(await self._feed.reference())
            return
        if not self.is_daily:
            self._known = Known(instruments=tuple(await self._feed.instruments()))
            return
        kept = await asyncio.to_thread(_read, self._file, self._feed.source_id)
        if kept is not None and kept.date == self._today():
            await self._take(kept)
            return
        try:
            async with asyncio.timeout(START_WAIT_S):
                fresh = await self._ask()
        except TimeoutError:
            fresh = None
        if fresh is not None:
            await self._keep(fresh)
        elif kept is not None:
            log.warning("reference_old", of=kept.date, instruments=len(kept.instruments))
            await self._take(kept)
        else:
            log.warning("reference_unknown", why="neither the feed nor the disk has instruments; codes tell the boards")
            await self._take(Known())

    async def _start_told(self, told: Known) -> None:
        """Take what others have told; nothing, as long as they have not, must not wipe out what they told before."""
        if told.instruments:
            await self._keep(told)
        else:
            kept = await asyncio.to_thread(_read, self._file, self._feed.source_id)
            await self._take(Known() if kept is None else kept)

    async def hear(self, told: Known) -> bool:
        """Take what came among a feed's ticks; True if it is news."""
        if told == self._known or not told.instruments:
            return False
        await self._keep(told)
        return True

    async def run(self, on_news: Callable[[], Awaitable[None]]) -> None:
        """Ask the feed again at its times, for ever, and call `on_news` when there is something new."""
        while self.is_daily:
            await asyncio.sleep(self._until_next_s())
            if await self.refresh():
                await on_news()
        await asyncio.Event().wait()

    async def refresh(self) -> bool:
        """Ask the feed now; True if what is known has changed. A feed that does not answer leaves all as it is."""
        fresh = await self._ask()
        self._refreshes += 1
        if fresh is None:
            self._failures += 1
            return False
        before = self._known
        await self._keep(fresh)
        return (before.instruments, before.trading_dates) != (fresh.instruments, fresh.trading_dates)

    @property
    def known(self) -> Known:
        """What is known now."""
        return self._known

    async def instruments(self) -> Sequence[Instrument]:
        """Return the instruments as they are known now; empty if none are."""
        return self._known.instruments

    def calendar(self) -> Calendar:
        """Return the trading days: the feed's own where it has them, else those built in. Any thread; may take 1 s."""
        if self._calendar is None:
            self._calendar, self._days_disputed = _merged(self._known.trading_dates)
        return self._calendar

    def report(self) -> Mapping[str, Any]:
        """Return what is known and where feed and tables disagree, JSON-able."""
        return {
            "of": self._known.date or None,
            "instruments": len(self._known.instruments),
            "trading_dates": len(self._known.trading_dates),
            "days_disputed": self._days_disputed,
            "limits_compared": self._check.compared,
            "limits_differ": self._check.differ,
            "limits_examples": list(self._check.examples),
            "refreshes": self._refreshes,
            "refreshes_failed": self._failures,
        }

    def counters(self) -> Mapping[str, int]:
        """Return the numbers of `report` that are counts, for metrics."""
        names = ("instruments", "limits_compared", "limits_differ", "days_disputed", "refreshes", "refreshes_failed")
        return {name: int(self.report()[name]) for name in names}

    async def _ask(self) -> Known | None:
        """Ask the feed for everything; None if it knows no instruments now."""
        assert isinstance(self._feed, Referenced)
        date = self._today()
        try:
            instruments = tuple(sorted(await self._feed.instruments(), key=lambda one: one.symbol))
            dates = tuple(await self._feed.trading_dates()) if instruments else ()
        except FeedError as error:
            log.warning("reference_unknown", why=str(error))
            return None
        return Known(date, instruments, dates or self._known.trading_dates) if instruments else None

    async def _keep(self, known: Known) -> None:
        await self._take(known)
        try:
            await asyncio.to_thread(_write, self._file, self._feed.source_id, known)
        except OSError as error:
            log.error("reference_not_kept", file=str(self._file), why=str(error))

    async def _take(self, known: Known) -> None:
        self._known, self._calendar = known, None
        calendar = await asyncio.to_thread(self.calendar)
        self._check = await asyncio.to_thread(compare_limits, known.instruments, date=known.date, calendar=calendar)
        if isinstance(self._feed, Referenced):
            self._feed.use_calendar(calendar)
        if self._check.differ:
            log.warning("limits_differ", differ=self._check.differ, of=self._check.compared, such=self._check.examples)

    def _today(self) -> int:
        return trade_date(int(self._now() * 1000))

    def _until_next_s(self) -> float:
        """Return the seconds until the feed is to be asked next; soon, if what is known is not of today."""
        now_ms = int(self._now() * 1000)
        clocks = [(int(text[:2]) * 60 + int(text[3:])) * 60_000 for text in REFRESH_AT]
        waits_ms = [(clock - day_ms(now_ms)) % DAY_MS or DAY_MS for clock in clocks]
        stale = not self._known.date or (self._known.date != self._today() and day_ms(now_ms) >= clocks[0])
        return min(min(waits_ms) / 1000, RETRY_S) if stale else min(waits_ms) / 1000


def _merged(dates: Sequence[int]) -> tuple[Calendar, int]:
    """Return the calendar in force, and on how many days of the last year the feed's dates and the built-in differ."""
    built_in = Calendar.xshg()
    if not dates:
        return built_in, 0
    year_ago = max(dates) - 10_000
    extra, missing = built_in.differences(day for day in dates if day > year_ago)
    disputed = len(extra) + len(missing)
    if disputed:
        log.warning("trading_days_differ", feed_alone=extra[:5], missing=missing[:5], count=disputed)
    if len(missing) > MOST_MISSING:
        log.error(
            "trading_days_not_believed", missing=len(missing), why="the feed lacks too many: it has not loaded them"
        )
        return built_in, disputed
    return built_in.overridden(dates), disputed


def _read(file: Path, source_id: str) -> Known | None:
    """Read what was kept of this source; None if there is nothing that can be used."""
    try:
        record = orjson.loads(file.read_bytes())
        if record["format"] != FORMAT or record["source"] != source_id:
            return None
        return of_record(record)
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError, FeedError, KeyError, TypeError, ValueError) as error:
        log.warning("reference_unreadable", file=str(file), why=str(error))
        return None


def _write(file: Path, source_id: str, known: Known) -> None:
    """Keep it; the file gets its name only when it is whole."""
    record = {"format": FORMAT, "source": source_id, **as_record(known)}
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    part.write_bytes(orjson.dumps(record))
    os.replace(part, file)
