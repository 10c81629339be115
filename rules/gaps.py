"""What lies between a symbol's sample and the one before: a night, lunch, a halt, ticks that the feed or we missed.

A cross over such a gap is told, but tagged: nobody saw the price pass. A *trail* is one way of sampling (the ticks of
one choice of sessions, or those that make bars): when a rule of the continuous session comes to its first tick in the
morning, an all-day rule has seen the auction's result.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np

from feeds.sessions import Session, elapsed_ms, midnight_ms
from feeds.tick import IntArray
from rules.node import Selection
from rules.state import StateTable

GAPS: Final = (None, "feed", "lunch", "session", "halt")
"""By strength: of several things that lie between two samples the last one here is told."""
NO_GAP, FEED_GAP, LUNCH_GAP, NIGHT_GAP, HALT_GAP = range(5)
AFTERNOON_MS: Final = 13 * 3_600_000
_TRADING: Final = (Session.CONTINUOUS, Session.CLOSE_AUCTION)
_FEED, _HALT, _AWAY = 1, 2, 4


def half_began_ms(ts_ms: int) -> int:
    """Return the time from which on a sample has no night and no lunch between it and one at `ts_ms`."""
    today_ms = midnight_ms(ts_ms)
    return today_ms + AFTERNOON_MS if ts_ms >= today_ms + AFTERNOON_MS else today_ms


class Trail:
    """When each symbol was last sampled in one way (Unix ms, 0 never), and what has broken off since, as bits."""

    __slots__ = ("broken", "sampled_ms")

    def __init__(self, name: str, state: StateTable) -> None:
        self.sampled_ms = state.claim(f"trail/{name}/sampled_ms", dtype=np.int64, fill=0)
        self.broken = state.claim(f"trail/{name}/broken", dtype=np.uint8, fill=0)

    def follow(self, at: Selection, times_ms: IntArray, *, broken: bool = True) -> None:
        """Note a sample of these symbols; `broken`: something may have broken off before it."""
        self.sampled_ms.mine()[at] = times_ms
        if broken:
            self.broken.array[at] = 0

    def borrow(self, times_ms: IntArray) -> None:
        """Note a sample of every symbol in order, before which nothing has broken off."""
        self.sampled_ms.borrow(times_ms)


class Gaps:
    """The trails of all ways of sampling; `bars` is that of the ticks that make bars."""

    def __init__(self, state: StateTable) -> None:
        self._state = state
        self._trails: dict[str, Trail] = {}
        self.bars = Trail("bars", state)
        self.away_since_ms = 0
        """When we were last known to be there, before our own outage."""

    def trail(self, layer: str) -> Trail:
        """Return the trail of a layer of ticks ("tick@continuous")."""
        return self._trails[layer]

    def watch(self, layers: Iterable[str]) -> None:
        """Keep trails of these layers and no others."""
        wanted = dict.fromkeys(layers)
        for layer in self._trails.keys() - wanted.keys():
            del self._trails[layer]
            self._state.release(f"trail/{layer}/")
        for layer in wanted.keys() - self._trails.keys():
            self._trails[layer] = Trail(layer, self._state)

    def miss(self, *, away_since_ms: int | None = None) -> None:
        """Note that ticks are missing before the next ones, by our own fault if we were `away`."""
        if away_since_ms is not None:
            self.away_since_ms = away_since_ms
        for trail in (self.bars, *self._trails.values()):
            trail.broken.array |= np.uint8(_FEED if away_since_ms is None else _FEED | _AWAY)

    def resume(self, rows: IntArray) -> None:
        """Note that a halt lies behind these symbols."""
        for trail in (self.bars, *self._trails.values()):
            trail.broken.array[rows] |= _HALT

    def before_one(self, trail: Trail, row: int, ts_ms: int) -> tuple[int, int]:
        """Return what `before` does for one symbol: (NO_GAP, -1) where nothing lies between, as nearly always."""
        noon_ms = midnight_ms(ts_ms) + AFTERNOON_MS
        half_ms = noon_ms if ts_ms >= noon_ms else noon_ms - AFTERNOON_MS
        if trail.sampled_ms.array.item(row) >= half_ms and not trail.broken.array.item(row):
            return NO_GAP, -1
        found = self.before(trail, np.array([row]), np.array([ts_ms]))
        return (NO_GAP, -1) if found is None else (int(found[0][0]), int(found[1][0]))

    def before(self, trail: Trail, at: Selection, times_ms: IntArray) -> tuple[IntArray, IntArray] | None:
        """Return what lies between the last samples of these symbols on a trail and ones now, all of one day.

        (k,) int64 indexes into GAPS, and (k,) int64 ms of trading time in which we ourselves were away, -1 = none; None
        where nothing lies between for any of them, as nearly always.
        """
        sampled_ms, broken = trail.sampled_ms.array[at], trail.broken.array[at]
        newest_ms = int(times_ms.max(initial=0))
        today_ms, half_ms = midnight_ms(newest_ms), half_began_ms(newest_ms)
        noon_ms = today_ms + AFTERNOON_MS
        if sampled_ms.min(initial=half_ms) >= half_ms and not broken.any():
            return None
        gaps = np.where(broken > 0, FEED_GAP, NO_GAP)
        gaps[(sampled_ms < noon_ms) & (times_ms >= noon_ms)] = LUNCH_GAP
        gaps[sampled_ms < today_ms] = NIGHT_GAP
        gaps[broken & _HALT > 0] = HALT_GAP
        gaps[sampled_ms == 0] = NO_GAP
        away_ms = np.full(len(times_ms), -1)
        hidden = (broken & _AWAY > 0) & (sampled_ms > 0)
        if hidden.any():
            away_ms[hidden] = self._away_ms(sampled_ms[hidden], times_ms[hidden], gaps=gaps[hidden])
        return gaps, away_ms

    def _away_ms(self, sampled_ms: IntArray, times_ms: IntArray, *, gaps: IntArray) -> IntArray:
        """Return the trading time of our outage that may have hidden ticks; -1 where a night or lunch hid it all."""
        since_ms = np.maximum(sampled_ms, np.minimum(self.away_since_ms, times_ms))
        away_ms = elapsed_ms(since_ms, times_ms, _TRADING)
        return np.where((away_ms == 0) & np.isin(gaps, (LUNCH_GAP, NIGHT_GAP)), -1, away_ms)
