"""How fast a receiver may be told: its limits as plain numbers, and which of the next messages have to be digests."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from notifiers.errors import DeliveryError

PATIENCE_MS: Final = 10_000
"""How long an alert may wait for its turn before it goes into a digest with all the others that wait."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `messages` within any `window_s` seconds. Raises DeliveryError for what is no rate."""

    messages: int
    window_s: float

    def __post_init__(self) -> None:
        if self.messages < 1 or not 0 < self.window_s <= 86_400:
            raise DeliveryError(f"{self.messages} messages in {self.window_s} s is no rate")

    @property
    def window_ms(self) -> int:
        return round(self.window_s * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pacing:
    """What a kind of receiver takes.

    rates          its limits, all of which hold at once; () = none.
    bundle_alerts  the most alerts that one message can carry with all their ids. Raises DeliveryError below 2.
    stale_after_s  so long after it was due first, an alert that has not arrived is told in a digest with all others
                   like it; None: each is tried by itself until its schedule ends.
    """

    rates: tuple[Rate, ...] = ()
    bundle_alerts: int = 100
    stale_after_s: float | None = None

    def __post_init__(self) -> None:
        if self.bundle_alerts < 2:
            raise DeliveryError(f"a message of {self.bundle_alerts} alerts is no digest")

    @property
    def longest_ms(self) -> int:
        """How far back the sending times matter."""
        return max((rate.window_ms for rate in self.rates), default=0)

    def slowed(self, per_minute: int) -> Pacing:
        """Return the same with one more rate, of the settings; 0 = none."""
        return replace(self, rates=(*self.rates, Rate(per_minute, 60.0))) if per_minute else self


NO_LIMIT: Final = Pacing()


def next_slot_ms(rates: Sequence[Rate], sent_ms: Sequence[int], now_ms: int) -> int:
    """Return the first ms from now on at which one more message breaks no rate; sent_ms ascends."""
    at_ms = now_ms
    for rate in rates:
        if len(sent_ms) >= rate.messages:
            at_ms = max(at_ms, sent_ms[-rate.messages] + rate.window_ms)
    return at_ms


def slots(rates: Sequence[Rate], sent_ms: Sequence[int], now_ms: int, *, within_ms: int = PATIENCE_MS) -> int:
    """Return how many messages may be sent from now until `within_ms` later, both ends included; rates are not empty.

    sent_ms: ascending, what was sent within the longest window; times ahead of now (the wall clock was set back) count.
    """
    planned = list(sent_ms)
    until_ms, count = now_ms + within_ms, 0
    at_ms = next_slot_ms(rates, planned, now_ms)
    while at_ms <= until_ms:
        planned.append(at_ms)
        count += 1
        at_ms = next_slot_ms(rates, planned, at_ms)
    return count


def by_themselves(waiting: int, free: int, *, bundle_alerts: int) -> int:
    """Return how many of the waiting messages go out as they are, so that digests in the free slots carry the rest.

    All of them where there are slots for all; else as many as leave slots for the digests, 0 where those take all.
    """
    if waiting <= free:
        return waiting
    digests = -(-(waiting - free) // (bundle_alerts - 1))  # each frees bundle_alerts - 1 slots
    return max(free - digests, 0)


def recent(sent_ms: Sequence[int], since_ms: int) -> list[int]:
    """Return the times after since_ms of ascending ones."""
    return list(sent_ms[bisect_right(sent_ms, since_ms) :])
