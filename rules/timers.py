"""Deadlines on a rule's own clock: the seconds of its sessions, less halts of the symbol and marked outages.

A deadline is kept as the exchange time it falls on if nothing more stands still; when that time comes, what has stood
still meanwhile is counted and the rest is waited for. So a halt or an outage never needs to look for the timers it
moves.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from feeds.sessions import Session, midnight_ms, session_clock_ms, spans_of

TimerKey: TypeAlias = tuple[str, str, str, str]
"""(rule id, rev, leg or "", symbol): one episode at a time has one timer at most."""


@dataclass(frozen=True, slots=True)
class Timer:
    """`length_ms` of own clock from `since_ms` on (Unix ms); `purpose` is "for" or "keep"."""

    key: TimerKey
    order: int
    purpose: str
    since_ms: int
    length_ms: int


class Timers:
    """Running timers, the next one first: by (deadline, rule order, symbol)."""

    def __init__(self) -> None:
        self._running: dict[TimerKey, Timer] = {}
        self._queue: list[tuple[int, int, str, int, Timer]] = []
        self._started = 0

    def start(self, timer: Timer, deadline_ms: int) -> None:
        """Start a timer, or start it again with another deadline; it takes the place of the one its episode has."""
        self._running[timer.key] = timer
        self._started += 1  # keeps equal entries from comparing timers
        heapq.heappush(self._queue, (deadline_ms, timer.order, timer.key[3], self._started, timer))

    def stop(self, key: TimerKey) -> None:
        """Stop an episode's timer if it has one."""
        self._running.pop(key, None)

    @property
    def running(self) -> list[Timer]:
        """All running timers."""
        return list(self._running.values())

    def due(self, before_ms: int) -> Iterator[Timer]:
        """Yield the timers whose deadline is before this time, in order, and stop them; more may be started."""
        while self._queue and self._queue[0][0] < before_ms:
            timer = heapq.heappop(self._queue)[-1]
            if self._running.get(timer.key) is timer:  # else it was stopped or replaced
                del self._running[timer.key]
                yield timer

    def of(self, key: TimerKey) -> Timer | None:
        """Return the timer of an episode, None if none runs."""
        return self._running.get(key)

    @property
    def next_ms(self) -> int | None:
        """The earliest deadline (of a timer that may have been stopped since); None if there is none."""
        return self._queue[0][0] if self._queue else None

    def clear(self) -> None:
        """Stop all."""
        self._running.clear()
        self._queue.clear()

    def dump(self) -> list[list[Any]]:
        """Return all running timers as JSON values."""
        return [[*t.key, t.order, t.purpose, t.since_ms, t.length_ms] for t in self.running]


def load(rows: list[list[Any]]) -> list[Timer]:
    """Return the timers of a dump."""
    return [Timer((row[0], row[1], row[2], row[3]), *row[4:]) for row in rows]


def advance(from_ms: int, length_ms: int, sessions: tuple[Session, ...]) -> int | None:
    """Return the time at which the session clock has run `length_ms` further, None if that is not on this day."""
    midnight = midnight_ms(from_ms)
    target = session_clock_ms(from_ms, sessions) + length_ms
    run = 0
    for span in spans_of(sessions):
        if target <= run + span.end_ms - span.start_ms:
            return midnight + span.start_ms + max(target - run, 0)
        run += span.end_ms - span.start_ms
    return None
