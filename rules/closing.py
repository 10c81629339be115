"""`Closing`: how bars come to their end: left behind by a later tick, by the clock, by the day's closing status.

A bar that closes confirms or withdraws what was told of it before, and is what the rules with `eval: bar_close` sample.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from feeds.sessions import day_ms, session_clock_ms
from feeds.tick import BoolArray, IntArray
from rules.bars import CLOSED_BY_CLOCK, FINAL, LONG_PERIODS, OPEN, PeriodBars, bar_start_ms
from rules.fires import Fires
from rules.graph import Graph
from rules.loaded import Loaded
from rules.market import Market
from rules.program import Sample, Sessions
from rules.reporter import AFTER_TICK, BEFORE_TICK, Reporter
from rules.rule import Evaluation, Mode
from rules.segment import Segment, pick

_CLOSING_STATUS: Final = (15, 22, 23)
_CLOSE_MS: Final = 15 * 3_600_000


class Closing:
    """Closes bars and commits them to the graph. The engine owns it and calls it in the order of causes."""

    def __init__(self, market: Market, graph: Graph, *, loaded: Loaded, fires: Fires, reporter: Reporter) -> None:
        self._market = market
        self._graph = graph
        self._loaded = loaded
        self._fires = fires
        self._reporter = reporter

    # ── by ticks ──────────────────────────────────────────────────────────────────────────────────────────────────

    def leave(self, bars: PeriodBars, ticks: Segment, *, ends: int | IntArray) -> None:
        """Close and commit the bars of symbols that now trade in a later one.

        A minute just past in which a symbol did not trade, and which the clock has not closed yet, is laid flat here;
        all earlier ones have been, except where there is no bar at all (halts, silences).
        """
        behind = bars.ends_before(ticks.at, ends)
        if ticks.live is not None:
            behind &= ticks.live
        if not np.count_nonzero(behind):
            return
        rows, arrival, ends = ticks.rows[behind], ticks.arrival[behind], pick(ends, behind)
        still_open = bars.closed.array[rows] == OPEN
        self._close(bars, rows[still_open], closed=FINAL, arrival=arrival[still_open])
        skipped, between = self._market.skipped(bars, rows, ends=ends)
        if skipped.any():
            self._lay_flat(bars, rows[skipped], ends=between[skipped], arrival=arrival[skipped])
        self._graph.commit(bars.period, rows, values=False)

    def by_status(self, ticks: Segment) -> None:
        """Close the day's last bars of symbols whose tick says that their day is over."""
        if day_ms(ticks.last_ms) < _CLOSE_MS:
            return
        batch = ticks.batch
        over = np.isin(batch.status, _CLOSING_STATUS) & (day_ms(batch.ts_event_ms) >= _CLOSE_MS)
        if not over.any():
            return
        rows, arrival = ticks.rows[over], ticks.arrival[over]
        for bars in self._market.bars.values():
            ready = bars.closed.array[rows] == OPEN
            ready &= bars.end_ms.array[rows] == self._market.midnight_ms + _CLOSE_MS
            self._close(bars, rows[ready], closed=FINAL, arrival=arrival[ready], phase=AFTER_TICK)

    def overdue(self, ticks: Segment) -> None:
        """Close the bars that these ticks began after the clock had come to their close: it will not come again.

        They are a symbol's first of the day, or follow a silence or a halt; else a closed bar stands there to amend.
        """
        for bars in self._market.bars.values():
            late = self._market.overdue(bars, ticks.rows)
            if late.any():
                rows, arrival = ticks.rows[late], ticks.arrival[late]
                self._close(bars, rows, closed=CLOSED_BY_CLOCK, arrival=arrival, phase=AFTER_TICK)

    # ── by the clock ──────────────────────────────────────────────────────────────────────────────────────────────

    def finish_day(self, second_ms: int) -> None:
        """Close and commit what the clock has left of the old day, if it ends before the trade date of `second_ms`.

        Bars close late rather than never.
        """
        for bars in self._market.bars.values():
            if self._market.ends_before(bars, second_ms):
                # A week whose Friday did not trade was not closed by the clock.
                self._close(bars, np.flatnonzero((bars.end_ms.array > 0) & (bars.closed.array == OPEN)), closed=FINAL)
                self._graph.commit(bars.period, np.flatnonzero(bars.end_ms.array > 0), values=False)

    def by_clock(self, bars: PeriodBars, end_ms: int) -> None:
        """Close every bar that ends here and is still open; symbols that did not trade in it get a flat one."""
        held = bars.end_ms.array
        idle = np.flatnonzero((held > 0) & (held < end_ms) & ~self._market.latest.halted())
        self._close(bars, np.flatnonzero((held == end_ms) & (bars.closed.array == OPEN)), closed=CLOSED_BY_CLOCK)
        if len(idle) and not self._market.outages.is_silent(bar_start_ms(end_ms, bars.period), end_ms):
            self._lay_flat(bars, idle, ends=end_ms)

    # ── one by one ────────────────────────────────────────────────────────────────────────────────────────────────

    def _lay_flat(
        self, bars: PeriodBars, rows: IntArray, *, ends: int | IntArray, arrival: IntArray | None = None
    ) -> None:
        """Commit these symbols' closed bars and close a flat one after each."""
        self._graph.commit(bars.period, rows, values=False)
        bars.lay_flat(rows, ends, day=self._market.day)
        self._market.mark_flat(bars, rows, ends=ends)
        self._close(bars, rows, closed=CLOSED_BY_CLOCK, arrival=arrival)

    def _close(
        self,
        bars: PeriodBars,
        rows: IntArray,
        *,
        closed: int,
        arrival: IntArray | None = None,
        phase: int = BEFORE_TICK,
    ) -> None:
        """Mark these bars closed and sample the rules that wait for it; no `arrival`: the clock did it."""
        bars.closed.array[rows] = closed
        if not len(rows):
            return
        ends = bars.end_ms.array[rows]
        if arrival is None:
            arrival = np.zeros(len(rows), np.int64)
        self._fires.confirm(bars, rows, arrival=arrival, phase=phase)  # also in a silence: it was promised
        if self._reporter.is_silent:
            return

        def overlap(ends_ms: IntArray, sessions: Sessions) -> BoolArray:
            return _bars_in_session(ends_ms, sessions, bars.period)

        sample = Sample(rows, self._market.state.n, ends, overlap)
        for mode in Mode:
            group = self._loaded.groups.get((bars.period, Evaluation.BAR_CLOSE, mode))
            if group is not None:
                self._fires.take(group, sample, rows, bars=bars, arrival=arrival, phase=phase)


def _bars_in_session(ends_ms: IntArray, sessions: Sessions, period: str) -> BoolArray:
    """Tell which bars overlap the sessions for some time; those of a long period always do."""
    if period in LONG_PERIODS:
        return np.ones(len(ends_ms), np.bool_)
    distinct, inverse = np.unique(ends_ms, return_inverse=True)
    inside = [
        session_clock_ms(int(end), sessions) > session_clock_ms(bar_start_ms(int(end), period), sessions)
        for end in distinct
    ]
    return np.array(inside, np.bool_)[inverse]
