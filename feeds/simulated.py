"""`SimulatedFeed`: a whole market made from a seed, at any hour and any speed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from feeds.errors import FeedError
from feeds.inputs import FeedInput, Heartbeat
from feeds.instruments import Instrument
from feeds.listing import make_listing
from feeds.market import Day, Plan, plan_day
from feeds.pace import Pace
from feeds.sessions import HOUR_MS, Calendar, unix_ms
from feeds.tick import TickBatch
from feeds.timetable import Moment, Phase, make_timetable

_DAY_END_MS: Final = 15 * HOUR_MS


class Market:
    """The days of a simulated market one after the other; `place` counts their moments from the first day's first.

    For whoever needs no event loop; not for use by several threads at once.
    """

    def __init__(self, *, seed: int, symbols: int, date: int, interval_ms: int, days: int | None = None) -> None:
        """Make up the instruments; raises FeedError if `date` (yyyymmdd) is no trading day. It takes about a second."""
        self._seed, self._interval_ms, self._days = seed, interval_ms, days
        self._calendar = Calendar.xshg()
        if not self._calendar.is_trading(date):
            raise FeedError(f"{date} is no trading day; the next one is {self._calendar.next(date)}")
        self.listing = make_listing(symbols, seed=seed, first_date=date, calendar=self._calendar)
        self.timetable = make_timetable(interval_ms)
        self.place = 0
        self._date = date
        self._close = self.listing.base_ticks
        self._today: Day | None = None

    def skip_to(self, place: int) -> None:
        """Let the market come to where `place` is next, telling nothing; whole days cost no more than their plan."""
        while self.place + len(self.timetable) <= place and self.place % len(self.timetable) == 0:
            self._plan()
            self.place += len(self.timetable)
        while self.place < place and self._step() is not None:
            pass

    def next(self, *, whole: bool = False) -> TickBatch | Heartbeat | None:
        """Return what the next moment tells (`whole`: of every stock, changed or not), None after the last day."""
        moment = self._step()
        if moment is None or self._today is None:
            return None
        if moment.phase is Phase.QUIET and not whole:
            # As far as a live feed would say: its ticks trail by up to one interval.
            return Heartbeat(self._today.midnight_ms + moment.clock_ms - self._interval_ms)
        return self._today.batch(whole=whole)

    @property
    def due_ms(self) -> int:
        """Return how long the market will have run when the next moment comes, without lunch and nights."""
        day, moment = divmod(self.place, len(self.timetable))
        return day * (self.timetable[-1].run_ms + self._interval_ms) + self.timetable[moment].run_ms

    def _step(self) -> Moment | None:
        """Come to the next moment, and on the way to the next day; None after the last."""
        day, place = divmod(self.place, len(self.timetable))
        if self._days is not None and day >= self._days:
            return None
        if place == 0:
            plan = self._plan()
            self._today = Day(self.listing, plan, self.timetable, seed=self._seed, interval_ms=self._interval_ms)
        assert self._today is not None  # place 0 of each day was just passed, also by skip_to
        self._today.step(self.timetable[place])
        self.place += 1
        return self.timetable[place]

    def _plan(self) -> Plan:
        """Settle the next day and remember how it closes."""
        day, date = self.place // len(self.timetable), self._date
        plan = plan_day(self.listing, self._close, seed=self._seed, day=day, date=date, calendar=self._calendar)
        self._close, self._date = plan.close, self._calendar.next(date)
        return plan


class SimulatedFeed:
    """A made-up market on a clock of its own; the same settings give the same inputs, byte for byte.

    Input k is moment k of the timetables of its days one after the other, counted from `start`: a batch of the stocks
    that changed, or a heartbeat while nothing does. Input 0 is the whole market as it stands at `start`. Lunch and
    nights are not waited for. Only one iterator may be in use.
    """

    has_offsets = True

    def __init__(
        self,
        *,
        seed: int = 1,
        symbols: int = 5500,
        speed: float | None = 1.0,
        start: str = "09:30:00",
        date: str = "2025-01-02",
        days: int | None = None,
        interval_s: float = 3.0,
    ) -> None:
        """Take the settings; raises FeedError for one that makes no sense.

        seed: what the market is made from. symbols: number of instruments. speed: multiple of real time, None or 0: as
        fast as inputs are taken. start: time of day of the first input, HH:MM:SS in Shanghai; the day up to then has
        happened. date: first trading day, yyyy-mm-dd. days: trading days until the feed ends, None or 0: never.
        interval_s: market time between two batches, 0.1 to 60.
        """
        self._seed, self._count, self._days = seed, symbols, days or None
        self._start_ms, self._date = _clock_ms(start), _yyyymmdd(date)
        self._interval_ms = round(interval_s * 1000)
        if not 100 <= self._interval_ms <= 60_000:
            raise FeedError(f"interval_s = {interval_s:g}: expected 0.1 to 60 seconds")
        self._pace = Pace(speed)
        self.paced = self._pace.is_real
        self.source_id = f"simulated:1:{seed}:{symbols}:{self._date}:{self._start_ms}:{self._interval_ms}"
        self._market: Market | None = None
        self._start_place = 0
        self._counts = {"ticks": 0, "inputs": 0}

    async def open(self, *, after: int = -1) -> None:
        """Make the market and let it come to the input behind `after`, in a worker thread (0.2 ms for each one passed).

        Raises FeedError for a date that is no trading day, or a number of symbols that cannot be.
        """
        self._market = await asyncio.to_thread(self._make, after)
        self._counts = dict.fromkeys(self._counts, 0)
        self._pace.start()

    def _make(self, after: int) -> Market:
        market = Market(
            seed=self._seed,
            symbols=self._count,
            date=self._date,
            interval_ms=self._interval_ms,
            days=self._days,
        )
        at_or_after = (place for place, moment in enumerate(market.timetable) if moment.clock_ms >= self._start_ms)
        self._start_place = next(at_or_after)
        market.skip_to(self._start_place + after + 1)
        return market

    async def __aiter__(self) -> AsyncIterator[FeedInput]:
        """Yield inputs to the end of the last day, or until `close`. Cancelling loses nothing."""
        market = self._market
        if market is None:
            raise FeedError("the simulated feed was not opened; call open() before iterating")
        while await self._pace.reach(market.due_ms):
            offset = market.place - self._start_place
            value = market.next(whole=offset == 0)
            if value is None:
                return
            self._counts["inputs"] += 1
            self._counts["ticks"] += len(value) if isinstance(value, TickBatch) else 0
            yield FeedInput(offset, value)

    async def instruments(self) -> Sequence[Instrument]:
        """Return every instrument with the name it bears on the first day, after `open`."""
        return () if self._market is None else self._market.listing.instruments

    async def close(self) -> None:
        """End the iterator, also one that waits for its next moment."""
        self._pace.stop()

    def counters(self) -> Mapping[str, int]:
        """Return ticks and inputs yielded since open."""
        return dict(self._counts)


def _clock_ms(start: str) -> int:
    """Return ms since midnight of HH:MM or HH:MM:SS; FeedError unless the market is open some time after it."""
    found = re.fullmatch(r"(\d\d?):([0-5]\d)(?::([0-5]\d))?", start)
    if found is None:
        raise FeedError(f"start = {start!r}: expected a time of day such as 09:29:55")
    hour, minute, second = (int(part or 0) for part in found.groups())
    clock_ms = ((hour * 60 + minute) * 60 + second) * 1000
    if clock_ms > _DAY_END_MS:
        raise FeedError(f"start = {start!r}: the market closes at 15:00")
    return clock_ms


def _yyyymmdd(date: str) -> int:
    """Return a date as a number; FeedError for what is not written yyyy-mm-dd or is no date."""
    found = re.fullmatch(r"(\d{4})-?(\d\d)-?(\d\d)", date)
    if found is None:
        raise FeedError(f"date = {date!r}: expected a day such as 2025-01-02")
    number = int("".join(found.groups()))
    unix_ms(number)
    return number
