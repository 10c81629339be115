"""The trading calendar and the trading clock: pure functions of a time, in arrays and scalars.

All times are int ms of the Unix epoch (UTC); the exchange is Asia/Shanghai, UTC+8 without daylight saving since 1991.
A function that takes `ts_ms` as an int answers with an int (or bool); given an int64 array it answers with an array of
the same shape. Nothing here reads a clock: days and sessions follow from the time a tick brings.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from datetime import date, timedelta
from enum import StrEnum
from functools import cache, lru_cache
from typing import Final, NamedTuple, TypeAlias, cast, overload

import numpy as np

from feeds.errors import FeedError
from feeds.tick import BoolArray, IntArray
from feeds.tradingdays import trading_dates

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
SHANGHAI_MS: Final = 8 * HOUR_MS
"""Shanghai is this far ahead of UTC, all year."""
_EPOCH: Final = date(1970, 1, 1)


class Session(StrEnum):
    """A part of the trading day that a rule may be limited to."""

    __hash__ = str.__hash__  # an Enum's own is Python code, and sessions are keys of look-ups at every batch

    CONTINUOUS = "continuous"
    OPEN_AUCTION = "open_auction"
    CLOSE_AUCTION = "close_auction"
    AFTER_HOURS = "after_hours"
    ALL_TRADING = "all_trading"


Sessions: TypeAlias = Session | tuple[Session, ...]
"""One session, or several that count as their union."""


class Span(NamedTuple):
    """A stretch of the day in ms since Shanghai midnight.

    start_ms, end_ms: what the session clock runs over; first_ms, last_ms: the first and last ms that belong to it, so
    that every ms of the day belongs to one session at most.
    """

    start_ms: int
    end_ms: int
    first_ms: int
    last_ms: int


def _ms(hour: int, minute: int) -> int:
    return hour * HOUR_MS + minute * 60_000


def _span(start_ms: int, end_ms: int, *, opened: bool = True, closed: bool = True) -> Span:
    """Return the span whose first (`opened`) and last (`closed`) ms belong to it, or don't."""
    return Span(start_ms, end_ms, start_ms if opened else start_ms + 1, end_ms if closed else end_ms - 1)


SPANS: Final[dict[Session, tuple[Span, ...]]] = {
    # 11:30:00.000 and 15:00:00.000 belong to what they end: Shenzhen stamps its last trades of the half-day so.
    Session.OPEN_AUCTION: (_span(_ms(9, 15), _ms(9, 30), closed=False),),
    Session.CONTINUOUS: (_span(_ms(9, 30), _ms(11, 30)), _span(_ms(13, 0), _ms(14, 57), closed=False)),
    Session.CLOSE_AUCTION: (_span(_ms(14, 57), _ms(15, 0)),),
    Session.AFTER_HOURS: (_span(_ms(15, 0), _ms(15, 30), opened=False),),
    Session.ALL_TRADING: (_span(_ms(9, 15), _ms(11, 30)), _span(_ms(13, 0), _ms(15, 30))),
}

TRADING_DAY_MS: Final = 4 * HOUR_MS
"""The trading clock at 15:00: 09:30–11:30 and 13:00–15:00."""
_TRADING_SPANS: Final = (_span(_ms(9, 30), _ms(11, 30)), _span(_ms(13, 0), _ms(15, 0)))


@cache
def spans_of(sessions: Sessions) -> tuple[Span, ...]:
    """Return the union of these sessions as disjoint spans in order; touching spans are one."""
    chosen = (sessions,) if isinstance(sessions, Session) else sessions
    merged: list[Span] = []
    for span in sorted(span for session in set(chosen) for span in SPANS[session]):
        if merged and span.first_ms <= merged[-1].last_ms + 1:
            last = merged.pop()
            span = Span(last.start_ms, max(last.end_ms, span.end_ms), last.first_ms, max(last.last_ms, span.last_ms))
        merged.append(span)
    return tuple(merged)


# ── the day ───────────────────────────────────────────────────────────────────────────────────────────────────────


@overload
def day_ms(ts_ms: int) -> int: ...
@overload
def day_ms(ts_ms: IntArray) -> IntArray: ...
def day_ms(ts_ms: int | IntArray) -> int | IntArray:
    """Return ms since Shanghai midnight, 0..86_399_999."""
    if isinstance(ts_ms, np.ndarray) and ts_ms.size:
        midnight = midnight_ms(int(ts_ms.min()))
        if ts_ms.max() < midnight + DAY_MS:  # times of one day, as nearly always: a remainder costs three subtractions
            return ts_ms - midnight
    return (ts_ms + SHANGHAI_MS) % DAY_MS


@overload
def midnight_ms(ts_ms: int) -> int: ...
@overload
def midnight_ms(ts_ms: IntArray) -> IntArray: ...
def midnight_ms(ts_ms: int | IntArray) -> int | IntArray:
    """Return the Unix ms of the Shanghai midnight that began this day."""
    return ts_ms - (ts_ms + SHANGHAI_MS) % DAY_MS


@overload
def day_number(ts_ms: int) -> int: ...
@overload
def day_number(ts_ms: IntArray) -> IntArray: ...
def day_number(ts_ms: int | IntArray) -> int | IntArray:
    """Return the Shanghai day as days since 1970-01-01; equal numbers are the same trade date."""
    return (ts_ms + SHANGHAI_MS) // DAY_MS


def trade_date(ts_ms: int) -> int:
    """Return the Shanghai date as yyyymmdd."""
    return _date_of(day_number(int(ts_ms)))


def date_text(ts_ms: int) -> str:
    """Return the Shanghai date as ``2023-02-01``."""
    return _text_of(day_number(int(ts_ms)))


def unix_ms(date: int, clock_ms: int = 0) -> int:
    """Return the Unix ms of `clock_ms` since Shanghai midnight of this date (yyyymmdd); FeedError if it is no date."""
    return _number_of(date) * DAY_MS - SHANGHAI_MS + clock_ms


@lru_cache(maxsize=4096)
def _date_of(number: int) -> int:
    day = _EPOCH + timedelta(days=number)
    return day.year * 10_000 + day.month * 100 + day.day


@lru_cache(maxsize=4096)
def _text_of(number: int) -> str:
    return (_EPOCH + timedelta(days=number)).isoformat()


@lru_cache(maxsize=16384)
def _number_of(yyyymmdd: int) -> int:
    try:
        return (date(yyyymmdd // 10_000, yyyymmdd // 100 % 100, yyyymmdd % 100) - _EPOCH).days
    except (ValueError, OverflowError):
        raise FeedError(f"{yyyymmdd!r} is not a date; write yyyymmdd such as 20230201") from None


# ── sessions and their clocks ─────────────────────────────────────────────────────────────────────────────────────


@overload
def in_session(ts_ms: int, session: Sessions) -> bool: ...
@overload
def in_session(ts_ms: IntArray, session: Sessions) -> BoolArray: ...
def in_session(ts_ms: int | IntArray, session: Sessions) -> bool | BoolArray:
    """Tell whether the time of day lies in the session (or in any of several); the date is not looked at."""
    spans = spans_of(session)
    if isinstance(ts_ms, np.ndarray):
        clock = day_ms(ts_ms)
        inside = np.zeros(clock.shape, np.bool_)
        for span in spans:
            inside |= (clock >= span.first_ms) & (clock <= span.last_ms)
        return inside
    now_ms = day_ms(int(ts_ms))
    return any(span.first_ms <= now_ms <= span.last_ms for span in spans)


@overload
def session_clock_ms(ts_ms: int, sessions: Sessions) -> int: ...
@overload
def session_clock_ms(ts_ms: IntArray, sessions: Sessions) -> IntArray: ...
def session_clock_ms(ts_ms: int | IntArray, sessions: Sessions) -> int | IntArray:
    """Return how many ms of these sessions have passed since the day's midnight; it stands still between them."""
    return _clock(ts_ms, spans_of(sessions))


@overload
def trading_clock_ms(ts_ms: int) -> int: ...
@overload
def trading_clock_ms(ts_ms: IntArray) -> IntArray: ...
def trading_clock_ms(ts_ms: int | IntArray) -> int | IntArray:
    """Return the ms of 09:30–11:30 and 13:00–15:00 that have passed, 0..14_400_000."""
    return _clock(ts_ms, _TRADING_SPANS)


def session_length_ms(sessions: Sessions) -> int:
    """Return the ms that these sessions last in one day, overlaps counted once."""
    return sum(span.end_ms - span.start_ms for span in spans_of(sessions))


def _clock(ts_ms: int | IntArray, spans: tuple[Span, ...]) -> int | IntArray:
    if isinstance(ts_ms, np.ndarray):
        clock = day_ms(ts_ms)
        passed = np.zeros(clock.shape, np.int64)
        for span in spans:
            passed += np.clip(clock, span.start_ms, span.end_ms) - span.start_ms
        return passed
    now_ms = day_ms(int(ts_ms))
    return sum(min(max(now_ms, span.start_ms), span.end_ms) - span.start_ms for span in spans)


@overload
def elapsed_ms(start_ms: int, end_ms: int, sessions: Sessions, *, calendar: Calendar | None = None) -> int: ...
@overload
def elapsed_ms(
    start_ms: IntArray, end_ms: int | IntArray, sessions: Sessions, *, calendar: Calendar | None = None
) -> IntArray: ...
@overload
def elapsed_ms(
    start_ms: int, end_ms: IntArray, sessions: Sessions, *, calendar: Calendar | None = None
) -> IntArray: ...
def elapsed_ms(
    start_ms: int | IntArray, end_ms: int | IntArray, sessions: Sessions, *, calendar: Calendar | None = None
) -> int | IntArray:
    """Return the ms of these sessions between two times, also across days; negative if `end_ms` is before `start_ms`.

    A day that is no trading day of `calendar` counts nothing; without a calendar Monday to Friday count.
    """
    passed: int | IntArray = _since_epoch_ms(end_ms, sessions, calendar) - _since_epoch_ms(start_ms, sessions, calendar)
    return passed


def _since_epoch_ms(ts_ms: int | IntArray, sessions: Sessions, calendar: Calendar | None) -> int | IntArray:
    """Return the session ms from 1970 to `ts_ms`: whole trading days before its day, and its own day's clock."""
    calendar = _WEEKDAYS if calendar is None else calendar
    clock, length_ms = _clock(ts_ms, spans_of(sessions)), session_length_ms(sessions)
    if isinstance(ts_ms, np.ndarray):
        days, where = np.unique(day_number(ts_ms), return_inverse=True)
        before = np.array([calendar.days_before(int(day)) for day in days], np.int64)
        trades = np.array([calendar.trades_on(int(day)) for day in days], np.int64)
        where = where.reshape(ts_ms.shape)  # numpy 2.0 alone gave it flat
        return cast(IntArray, before[where] * length_ms + trades[where] * clock)
    day = day_number(int(ts_ms))
    return calendar.days_before(day) * length_ms + int(calendar.trades_on(day)) * int(clock)


# ── the calendar ──────────────────────────────────────────────────────────────────────────────────────────────────


class Calendar:
    """The trading days of the exchange, as dates yyyymmdd; immutable.

    It knows what lies between `first_known` and `last_known` (both included). Outside of that it takes Monday to Friday
    for trading days: an out-of-date calendar then errs on holidays only and never stops the watch; `knows(date)`
    tells which of the two an answer is.
    """

    __slots__ = ("_days", "_numbers")

    def __init__(self, dates: Iterable[int]) -> None:
        """Take trading days in any order; raises FeedError for a number that is no date."""
        self._numbers = tuple(sorted({_number_of(int(day)) for day in dates}))
        self._days = frozenset(self._numbers)

    @classmethod
    def xshg(cls) -> Calendar:
        """Return the calendar of `exchange_calendars` (XSHG), made once per process."""
        return _xshg()

    def overridden(self, dates: Iterable[int]) -> Calendar:
        """Return this calendar with these trading days in place of its own, from the first of them to the last.

        Raises FeedError for a number that is no date.
        """
        others = Calendar(dates)
        if not len(others):
            return self
        first, last = others._numbers[0], others._numbers[-1]
        merged = Calendar(())
        merged._numbers = tuple(sorted({*(day for day in self._numbers if not first <= day <= last), *others._numbers}))
        merged._days = frozenset(merged._numbers)
        return merged

    def differences(self, dates: Iterable[int]) -> tuple[list[int], list[int]]:
        """Return (days of these that are none here, days here that are missing), as far as both know."""
        others = Calendar(dates)
        if not len(others) or not len(self):
            return [], []
        first = max(self._numbers[0], others._numbers[0])
        last = min(self._numbers[-1], others._numbers[-1])
        extra = sorted(day for day in others._days - self._days if first <= day <= last)
        missing = sorted(day for day in self._days - others._days if first <= day <= last)
        return [*map(_date_of, extra)], [*map(_date_of, missing)]

    @property
    def first_known(self) -> int | None:
        """The first trading day (yyyymmdd) of which anything is known; None if nothing is."""
        return _date_of(self._numbers[0]) if self._numbers else None

    @property
    def last_known(self) -> int | None:
        """The last trading day (yyyymmdd) of which anything is known; None if nothing is."""
        return _date_of(self._numbers[-1]) if self._numbers else None

    def __len__(self) -> int:
        return len(self._numbers)

    def knows(self, date: int) -> bool:
        """Tell whether the date lies within what the calendar was built from."""
        return self._knows(_number_of(date))

    def is_trading(self, date: int) -> bool:
        """Tell whether the exchange trades on this date."""
        return self.trades_on(_number_of(date))

    def previous(self, date: int) -> int:
        """Return the last trading day before this date."""
        number = _number_of(date) - 1
        while not self.trades_on(number):
            number -= 1
        return _date_of(number)

    def next(self, date: int) -> int:
        """Return the first trading day after this date."""
        number = _number_of(date) + 1
        while not self.trades_on(number):
            number += 1
        return _date_of(number)

    def between(self, first: int, last: int) -> int:
        """Return the number of trading days from `first` to `last`, both included; 0 if last < first."""
        return max(0, self.days_before(_number_of(last) + 1) - self.days_before(_number_of(first)))

    def trades_on(self, number: int) -> bool:
        """Tell the same of a day counted from 1970-01-01 (`day_number`)."""
        return number in self._days if self._knows(number) else _is_weekday(number)

    def days_before(self, number: int) -> int:
        """Return the trading days from 1970-01-01 up to, without, the day of this number (`day_number`)."""
        if not self._numbers or number <= self._numbers[0]:
            return _weekdays_before(number)
        known = bisect_left(self._numbers, number)
        beyond = max(0, _weekdays_before(number) - _weekdays_before(self._numbers[-1] + 1))
        return _weekdays_before(self._numbers[0]) + known + beyond

    def _knows(self, number: int) -> bool:
        return bool(self._numbers) and self._numbers[0] <= number <= self._numbers[-1]


def sessions_since(list_date: int, date: int, *, calendar: Calendar) -> int:
    """Return which trading day of its life `date` is for what was listed on `list_date`: 1 on the first, 0 before."""
    return calendar.between(list_date, date)


def _is_weekday(number: int) -> bool:
    return (number + 3) % 7 < 5  # 1970-01-01 was a Thursday


def _weekdays_before(number: int) -> int:
    """Return the Mondays to Fridays from 1970-01-01 up to, without, this day; negative before 1970."""
    weeks, day = divmod(number + 3, 7)
    return weeks * 5 + min(day, 5) - 3


_WEEKDAYS: Final = Calendar(())


@cache
def _xshg() -> Calendar:
    return Calendar(trading_dates())
