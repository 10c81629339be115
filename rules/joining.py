"""`Joining`: how a segment's ticks join the bars that are being made, and what of them the next ticks are measured by.

A bar's volume is the difference of two cumulative figures, and its extremes may be the day's that have moved; so the
day's figures as of each symbol's last tick are kept beside the bars.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import numpy as np

from feeds.sessions import day_ms, midnight_ms
from feeds.tick import IntArray
from rules.bars import DAY_MINUTES, FINAL, PERIOD_MINUTES, DayColumns, Extremes, PeriodBars
from rules.gaps import NO_GAP, Gaps, Trail
from rules.latest import Latest
from rules.node import Selection
from rules.segment import Segment, all_known, pick
from rules.state import StateTable

AUCTION_RESULT_MS: Final = (9 * 60 + 25) * 60_000
OPENING_MS: Final = (9 * 60 + 30) * 60_000
_DAY_COLUMNS: Final = ("volume_lots", "amount_cny", "high", "low")


class Joining:
    """What ticks bring to bars. The market owns it; the engine calls it before and after the ticks are applied.

    away_ms   (n,) int64, the trading time of our own outage before each symbol's latest tick that makes bars, -1 = none
    has_gaps  whether anything may lie before a latest tick
    """

    def __init__(
        self, state: StateTable, latest: Latest, *, day: DayColumns, gaps: Gaps, dropped: Counter[str]
    ) -> None:
        self._state = state
        self._latest = latest
        self._day = day
        self._gaps = gaps
        self._dropped = dropped
        self.gap = state.claim("now/gap", dtype=np.int64, fill=0)
        """What lies before the symbol's latest tick that makes bars, an index into GAPS."""
        self.away_ms = state.claim("now/away_ms", dtype=np.int64, fill=-1)
        self.has_gaps = False

    @property
    def trail(self) -> Trail:
        """That of the ticks that make bars."""
        return self._gaps.bars

    def mark_gaps(self, at: Selection, times_ms: IntArray) -> None:
        """Note what lies before these ticks, which make bars."""
        found = self._gaps.before(self._gaps.bars, at, times_ms)
        if found is not None:
            self.gap.array[at], self.away_ms.array[at] = found
            self.has_gaps = True
        elif self.has_gaps:
            self.gap.array[at], self.away_ms.array[at] = NO_GAP, -1
            self.has_gaps = not isinstance(at, slice)
        self._gaps.bars.follow(at, times_ms, broken=found is not None)

    def extremes(self, ticks: Segment) -> Extremes:
        """Note first ticks of the day, and return the day's highs and lows that moved since the last tick.

        Volume counts from 0 only if the symbol's first tick is at or before 09:30:00; a later first tick only sets the
        base, of volume as of the extremes.
        """
        at, batch, day = ticks.at, ticks.batch, self._day
        opening_ms = midnight_ms(self._latest.clock_ms) + OPENING_MS
        if not day.first_ms.array[at].all():
            first = day.first_ms.array[at] == 0
            day.first_ms.array[at] = np.where(first, batch.ts_event_ms, day.first_ms.array[at])
            opens = first & (batch.ts_event_ms <= opening_ms)
            for column in (day.volume, day.amount):
                column.mine()[at] = np.where(opens, 0.0, column.array[at])
        high, low = batch.column("high"), batch.column("low")
        known_high, known_low = day.high.array[at], day.low.array[at]
        up, down = high > known_high, low < known_low
        if not (all_known(known_high) and all_known(known_low)):
            early = day.first_ms.array[at] <= opening_ms
            up |= early & np.isnan(known_high)
            down |= early & np.isnan(known_low)
        if ticks.live is not None:
            up, down = up & ticks.live, down & ticks.live
        moved_up, moved_down = np.flatnonzero(up), np.flatnonzero(down)
        return Extremes(ticks.rows[moved_up], high[moved_up], ticks.rows[moved_down], low[moved_down])

    def enter(self, bars: PeriodBars, ticks: Segment, *, ends: int | IntArray, extremes: Extremes) -> None:
        """Open new bars and let every live tick join its bar; the latest columns hold the ticks already."""
        at, last = ticks.at, self._latest.raw("last")
        if not self._all_join(bars, ticks, ends=ends):
            rows, live = ticks.rows, True if ticks.live is None else ticks.live
            held = bars.end_ms.array[at]
            opening = live & (held < ends)
            if opening.any():
                fresh = rows[opening]
                bars.open_bars(fresh, end_ms=pick(ends, opening), last=last[fresh], day=self._day)
                bars.gap.array[fresh], bars.away_ms.array[fresh] = NO_GAP, -1
            joining = live & (held <= ends) & (opening | (bars.closed.array[at] != FINAL))
            if not joining.all():
                self._dropped["late_bar"] += int((live & (held > ends)).sum())
                at = rows[joining]
                joined = np.zeros(self._state.n, np.bool_)
                joined[at] = True
                extremes = extremes.within(joined)
        bars.join(
            at,
            last=last[at],
            extremes=extremes,
            volume_lots=self._latest.raw("volume_lots")[at],
            amount_cny=self._latest.raw("amount_cny")[at],
        )
        if self.has_gaps and PERIOD_MINUTES[bars.period] < DAY_MINUTES:
            # What lies before any of its ticks lies between its close and that of the bar before it.
            bars.gap.array[at] = np.maximum(bars.gap.array[at], self.gap.array[at])
            bars.away_ms.array[at] = np.maximum(bars.away_ms.array[at], self.away_ms.array[at])

    def _all_join(self, bars: PeriodBars, ticks: Segment, *, ends: int | IntArray) -> bool:
        """Tell whether every tick simply joins the open bar that its symbol holds, as nearly always."""
        if ticks.live is not None or isinstance(ends, np.ndarray):
            return False
        held = bars.end_ms.array[ticks.at]
        return bool((held == ends).all()) and not np.count_nonzero(bars.closed.array[ticks.at])

    def count_day(self, ticks: Segment) -> None:
        """Remember the cumulative figures and day extremes for the next tick.

        Before the opening auction's result they may still be those of the day before. What comes without a price counts
        to the next bar; only a base may be set by it.
        """
        at, day = ticks.at, self._day
        counted = (
            None if ticks.live is None else ~np.isnan(self._latest.raw("last")[at]) | np.isnan(day.volume.array[at])
        )
        if counted is not None:
            counted &= day_ms(self._latest.ts_ms.array[at]) >= AUCTION_RESULT_MS
        for column, name in zip((day.volume, day.amount, day.high, day.low), _DAY_COLUMNS, strict=True):
            now = self._latest.raw(name)[at]
            column.mine()[at] = now if counted is None else np.where(counted, now, column.array[at])
