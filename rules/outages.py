"""`Outages`: when nothing was to be seen: silences of the feed, halts of single symbols. Clocks leave them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np

from feeds.tick import BoolArray, IntArray
from rules.bars import DAY_MS

OUTAGES_KEPT_MS: Final = 14 * DAY_MS
"""How far back silences and halts are remembered: a clock that runs over more days counts older ones as running."""
Span = tuple[int, int | None]
"""(since, until) in Unix ms, within a day; until is None while it lasts."""


class Outages:
    """Silences in order, and halts by row in order."""

    def __init__(self) -> None:
        self.silences: list[Span] = []
        self.halts: dict[int, list[Span]] = {}

    def begin_silence(self, ts_ms: int) -> None:
        """Note that the feed is silent from now on."""
        self.silences.append((ts_ms, None))

    def end_silence(self, ts_ms: int, *, clock_ms: int) -> tuple[int, int]:
        """Note that the feed is back, and return from when to when it was silent, on this day.

        Where its clock has been put back to before that, the market's tells the end: no silence is of negative length.
        """
        since_ms = self.silences[-1][0]
        until_ms = ts_ms if ts_ms >= since_ms else max(clock_ms, since_ms)
        self.silences[-1] = since_ms, until_ms
        return since_ms, until_ms

    def follow(self, rows: IntArray, times_ms: IntArray, *, halted: BoolArray, before: BoolArray) -> None:
        """Note which halts begin and end with ticks of these symbols, `before` being who was halted until now."""
        for i in np.flatnonzero(halted & ~before):
            self.halts.setdefault(int(rows[i]), []).append((int(times_ms[i]), None))
        for i in np.flatnonzero(before & ~halted):
            spans = self.halts[int(rows[i])]
            spans[-1] = spans[-1][0], int(times_ms[i])

    def end_day(self, midnight_ms: int, *, new_midnight_ms: int) -> None:
        """End the old day's silences and halts with it; a silence that lasts goes on in the new one.

        They are kept for the cooldowns and stretches of days that span them.
        """
        last_ms, kept_ms = midnight_ms + DAY_MS - 1, new_midnight_ms - OUTAGES_KEPT_MS
        lasts = bool(self.silences) and self.silences[-1][1] is None
        self.silences = [(since, until or last_ms) for since, until in self.silences if since >= kept_ms]
        if lasts:
            self.silences.append((new_midnight_ms, None))
        self.halts = {
            row: [(since, until or last_ms) for since, until in spans]
            for row, spans in self.halts.items()
            if spans[-1][0] >= kept_ms
        }

    def is_silent(self, start_ms: int, end_ms: int) -> bool:
        """Tell whether this stretch lies wholly inside a marked silence."""
        return any(since <= start_ms and (until is None or end_ms <= until) for since, until in self.silences)

    def before(self, ts_ms: int, row: int | None = None) -> tuple[tuple[int, int], ...]:
        """Return what clocks leave out before `ts_ms`: marked silences and, of one symbol, its halts.

        In order, and no two of them overlap.
        """
        if not self.silences and (row is None or row not in self.halts):
            return ()
        spans = self.silences if row is None else [*self.silences, *self.halts.get(row, ())]
        ended = sorted((since, min(until or ts_ms, ts_ms)) for since, until in spans if since < ts_ms)
        merged: list[tuple[int, int]] = []
        for since, until in ended:
            if merged and since <= merged[-1][1]:
                since, until = merged[-1][0], max(until, merged.pop()[1])
            merged.append((since, until))
        return tuple(merged)

    def before_each(self, times_ms: Sequence[int], rows: Sequence[int]) -> Iterable[tuple[tuple[int, int], ...]]:
        """Return what `before` does for each of these samples; without an end where that is nothing for any."""
        if not self.silences and not self.halts:
            return repeat(())
        return map(self.before, times_ms, rows)

    def put_back(self, silences: Sequence[Any], halts: Sequence[Any]) -> None:
        """Take up what a checkpoint's header holds."""
        self.silences = [(since, until) for since, until in silences]
        self.halts = {row: [(since, until) for since, until in spans] for row, spans in halts}
