"""Quiet hours: when nobody wants to be told, by the clock on the wall in Shanghai and the exchange's trading days."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from feeds.sessions import DAY_MS, SHANGHAI_MS, Calendar, Session, day_number, spans_of
from notifiers.errors import DeliveryError

FARTHEST_DAYS: Final = 60
"""How far ahead an end of quiet hours is looked for; the longest holiday takes 11 days."""
_RANGE: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)|([01]\d|2[0-3]):([0-5]\d)-24:00")


class Window(NamedTuple):
    """A stretch of a trading day, ms since its midnight: first_ms ≤ t < end_ms, which may lie in the day after."""

    first_ms: int
    end_ms: int


class QuietThen(StrEnum):
    """What becomes of alerts that come in quiet hours."""

    DIGEST = "digest"
    """They are told together at the end."""
    DROP = "drop"
    """They are recorded as withheld, and nobody is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Quiet outside of `active` and inside of `hours`; active () = always active. Raises DeliveryError if for ever."""

    calendar: Calendar
    active: tuple[Window, ...] = ()
    hours: tuple[Window, ...] = ()
    then: QuietThen = QuietThen.DIGEST

    def __post_init__(self) -> None:
        if self.active and self.ends_ms(0) is None:
            raise DeliveryError("is quiet at all times: nothing of `active` is outside of `quiet`")

    def is_quiet(self, now_ms: int) -> bool:
        """Tell whether this ms belongs to the quiet hours."""
        return (bool(self.active) and not self._inside(self.active, now_ms)) or self._inside(self.hours, now_ms)

    def ends_ms(self, now_ms: int) -> int | None:
        """Return the first ms after now that is not quiet, None if there is none within FARTHEST_DAYS."""
        today = day_number(now_ms)
        for day in range(today - 1, today + FARTHEST_DAYS):
            if not self.calendar.trades_on(day):
                continue
            midnight_ms = day * DAY_MS - SHANGHAI_MS
            edges = {*(window.first_ms for window in self.active), *(window.end_ms for window in self.hours)}
            for edge_ms in sorted(midnight_ms + edge for edge in edges):
                if edge_ms > now_ms and not self.is_quiet(edge_ms):
                    return edge_ms
        return None

    def _inside(self, windows: tuple[Window, ...], now_ms: int) -> bool:
        today = day_number(now_ms)
        return any(
            window.first_ms <= now_ms - (day * DAY_MS - SHANGHAI_MS) < window.end_ms
            for day in (today, today - 1)
            if windows and self.calendar.trades_on(day)
            for window in windows
        )


def windows_of(words: tuple[str, ...]) -> tuple[Window, ...]:
    """Read sessions by name and ranges such as 11:30-13:00 or, into the next day, 22:00-06:00; raises DeliveryError."""
    return tuple(window for word in words for window in _windows(word))


def _windows(word: str) -> tuple[Window, ...]:
    if word in set(Session):
        return tuple(Window(span.first_ms, span.last_ms + 1) for span in spans_of(Session(word)))
    if not _RANGE.fullmatch(word):
        raise DeliveryError(f"{word!r} is no time such as 11:30-13:00, and no session: {', '.join(Session)}")
    first_ms, end_ms = (int(part[:2]) * 3_600_000 + int(part[3:]) * 60_000 for part in word.split("-"))
    if first_ms == end_ms:
        raise DeliveryError(f"{word!r} begins and ends at one time; for a whole day write 00:00-24:00")
    return (Window(first_ms, end_ms if end_ms > first_ms else end_ms + DAY_MS),)
