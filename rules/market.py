"""`Market`: everything the engine knows of the market itself: universe, instruments, latest ticks, bars, the clock.

It knows nothing of rules. The engine drives it step by step, because rules are sampled between the steps.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise, repeat
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.instruments import Instrument, decode_table
from feeds.scan import span
from feeds.sessions import day_ms, midnight_ms, trade_date
from feeds.tick import BoolArray, IntArray, TickBatch
from feeds.universe import Universe
from rules import ordinary
from rules.bars import (
    CLOSE_DELAY_MS,
    DAY_MINUTES,
    DAY_MS,
    OPEN,
    PERIOD_MINUTES,
    DayColumns,
    PeriodBars,
    bar_start_ms,
    due_ms,
    due_times,
    last_day_ms,
    minute_at,
    minute_end_ms,
    trading_minute,
)
from rules.books import Books
from rules.exrights import ExRights
from rules.gaps import GAPS, LUNCH_GAP, NO_GAP, Gaps, half_began_ms
from rules.joining import AUCTION_RESULT_MS, Joining
from rules.latest import HALTED, Latest, is_halted
from rules.node import ALL, Selection, is_tick
from rules.outages import Outages
from rules.segment import Segment, all_known, chosen
from rules.state import Column, StateTable

RESTART: Final = "restart"
"""Reason of a gap mark that stands for our own outage."""
FUTURE_MS: Final = 10_000
"""A tick stamped further than this ahead of its arrival is dropped: it would drag the market clock along."""


class Market:
    """State of the market as columns over the universe, and the market clock.

    clock_ms  running maximum of all times seen, floored to the second (Unix ms); 0 before the first
    midnight_ms  Shanghai midnight of the clock's date (Unix ms)
    date      trade date of the clock, yyyymmdd; day_number counts the trade dates seen
    dropped   ticks not used, by reason: future, old_day, out_of_order, duplicate; late_bar counts ticks used for the
              latest prices but too late for their bar
    """

    def __init__(self) -> None:
        self.state = StateTable()
        self.universe = Universe()
        self.instruments: Mapping[str, Instrument] = {}
        self.instruments_source = ""
        self.latest = Latest(self.state)
        self.books = Books(self.state, self.latest)
        self.day = DayColumns(self.state)
        self.bars: dict[str, PeriodBars] = {}
        self.clock_ms = 0
        self.midnight_ms = midnight_ms(0)
        self.date = 0
        self.day_number = 0
        self.ticks = 0
        self.dropped: Counter[str] = Counter()
        self.gaps = Gaps(self.state)
        self.exrights = ExRights(self.state)
        self.joining = Joining(self.state, self.latest, day=self.day, gaps=self.gaps, dropped=self.dropped)
        self.outages = Outages()
        self._due: list[tuple[int, int, tuple[str, ...]]] = []
        self._next_due = 0
        self._ends_of: tuple[tuple[int, int, int], list[tuple[PeriodBars, int]]] = ((-1, 0, 0), [])
        """What `_bars_of` has found last: it holds for a minute."""
        self._in_order: IntArray | None = None
        """The last rows that were found to be those of all symbols in order; decoders repeat the very object."""

    # ── words and instruments ─────────────────────────────────────────────────────────────────────────────────────

    def column(self, period: str, word: str) -> Column:
        """Return the column of a word: the forming bar's field or end (END), or a now word (FieldSource)."""
        if "@" in word:
            return self.books.column(word)
        if word == "END":
            return self.period(period).end_ms
        if word == "TICK_MS":
            return self.latest.ts_ms
        if word not in ("O", "H", "L", "C", "V", "AMO"):
            return self.latest.column(word)
        return self.latest.column("LAST") if is_tick(period) else self.period(period).fields[word]

    def period(self, period: str) -> PeriodBars:
        """Return the bars of a period, which are made from the next tick on if nobody has asked for them before."""
        bars = self.bars.get(period)
        if bars is None:
            bars = self.bars[period] = PeriodBars(period, self.state)
            bars.partial.array[...] = self.day.first_ms.array > 0
            self.bars = {name: self.bars[name] for name in PERIOD_MINUTES if name in self.bars}
            self._plan_day()
        return bars

    def know(self, source: str) -> None:
        """Take a whole new table of instruments (canonical JSON); raises FeedError if it is none."""
        self.instruments = {instrument.symbol: instrument for instrument in decode_table(source)}
        self.instruments_source = source
        self.survey()

    def survey(self) -> None:
        """Let the latest columns follow universe, instruments and date."""
        self.latest.know(self.universe.symbols, self.instruments, date=self.date)

    def row(self, symbol: str) -> int | None:
        """Return the row of a symbol, None if it is not in the universe (FieldSource)."""
        return self.universe.row(symbol)

    def rows(self, symbols: tuple[str, ...]) -> tuple[IntArray, bool]:
        """Return each symbol's row, and whether the universe has grown by new ones."""
        rows = self.universe.rows(symbols)
        grown = len(self.universe) != self.state.n
        if grown:
            self.state.grow(len(self.universe))
            self.books.lay(self.universe.row)
            self.survey()
        return rows, grown

    def selection(self, rows: IntArray) -> Selection:
        """Return ALL where `rows` are all symbols in order (the contiguous fast path), else the rows."""
        if rows is not self._in_order:
            if len(rows) != self.state.n or not len(rows) or rows[0] or not (rows[1:] > rows[:-1]).all():
                return rows
            self._in_order = rows
        return ALL if len(rows) == self.state.n else rows

    # ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def admit(self, batch: TickBatch) -> TickBatch:
        """Count a batch and drop what cannot be from now."""
        self.ticks += len(batch)
        if not len(batch) or batch.span_ms[1] <= span(batch.recv_ms)[0] + FUTURE_MS:
            return batch
        future = batch.ts_event_ms > batch.recv_ms + FUTURE_MS
        self._drop("future", int(np.count_nonzero(future)))
        return batch.keep(~future)

    def is_one_segment(self, rows: IntArray, batch: TickBatch, *, quiet_until_ms: int) -> bool:
        """Tell whether `segments` would cut nothing, as nearly always where a whole market comes; no may be wrong."""
        return rows is self._in_order and max(batch.span_ms[1], self.clock_ms) < quiet_until_ms

    def segments(self, rows: IntArray, batch: TickBatch, *, quiet_until_ms: int) -> Iterator[slice]:
        """Cut a batch where the market clock enters a second in which something is due, and where a symbol repeats.

        Before `quiet_until_ms` entering a second does nothing, so ticks of several seconds are one segment: a snapshot
        of the whole market spreads over three, and one pass over all columns costs less than three over some.
        """
        cuts = self._cuts(batch, quiet_until_ms)
        repeats = rows is not self._in_order and len(rows) > 1 and int(np.bincount(rows).max()) > 1
        for start, stop in pairwise(cuts):
            if repeats:
                yield from _without_repeats(rows, start, stop)
            else:
                yield slice(start, stop)

    def seconds(self, batch: TickBatch) -> Iterator[TickBatch]:
        """Cut a batch where the market clock enters a new second."""
        for start, stop in pairwise(self._cuts(batch, 0)):
            yield batch.take(slice(start, stop))

    def _cuts(self, batch: TickBatch, quiet_until_ms: int) -> list[int]:
        """Return where parts begin, and the end: wherever the clock enters a second that is not before that time."""
        quiet_s = -(-quiet_until_ms // 1000) - 1
        cuts = [0, len(batch)]
        if max(batch.span_ms[1], self.clock_ms) // 1000 > quiet_s:
            reached = np.maximum.accumulate(np.maximum(batch.ts_event_ms, self.clock_ms)) // 1000
            reached = np.maximum(reached, quiet_s)
            cuts[1:1] = (np.flatnonzero(np.diff(reached)) + 1).tolist()
        return cuts

    def news(self, at: Selection, batch: TickBatch) -> BoolArray | None:
        """Tell which ticks are to be used: of the clock's day, not older than their symbol's last, and no repeats.

        None: all of them. A feed's first push may hold the last tick of a day long past for what has not ticked today.
        """
        if batch.span_ms[0] > self.latest.newest_ms and batch.span_ms[0] >= self.midnight_ms:
            return None
        found = ordinary.news(
            batch, self.latest, rows=None if isinstance(at, slice) else at, midnight_ms=self.midnight_ms,
            result_ms=self.midnight_ms + AUCTION_RESULT_MS,
        )  # fmt: skip
        news, counts = self._news(at, batch) if found is None else found
        for reason, count in zip(("old_day", "out_of_order", "duplicate"), counts, strict=True):
            self._drop(reason, count)
        return news if any(counts) else None

    def _news(self, at: Selection, batch: TickBatch) -> tuple[BoolArray, tuple[int, int, int]]:
        """Return what `ordinary.news` does, of any ticks."""
        stale = batch.ts_event_ms < self.midnight_ms
        old = (batch.ts_event_ms < self.latest.ts_ms.array[at]) & ~stale
        repeats = self.latest.repeats(at, batch) & ~stale
        counts = int(np.count_nonzero(stale)), int(np.count_nonzero(old)), int(np.count_nonzero(repeats))
        return ~(stale | old | repeats), counts

    def _drop(self, reason: str, count: int) -> None:
        if count:
            self.dropped[reason] += count

    def segment(self, rows: IntArray, batch: TickBatch, *, arrival: IntArray) -> Segment:
        """Return these ticks, which are news of one clock second, with what holds for all of them."""
        at = self.selection(rows)
        halted = None if _is_one_trading(batch.status) else is_halted(batch.status)
        if halted is not None and not halted.any():
            halted = None
        live = None if halted is None and self._all_priced(batch) else self._live(at, batch, halted=halted)
        return Segment(rows, at, batch, arrival, halted, live)

    def take_ordinary(self, rows: IntArray, batch: TickBatch, *, whole: TickBatch, arrival: IntArray) -> Segment | None:
        """Take these ticks, which are news, at once; None, with nothing done, if something is out of the ordinary.

        They stand at `arrival` in the whole batch.
        """
        at, (first_ms, last_ms) = self.selection(rows), batch.span_ms
        minute = minute_at(first_ms - self.midnight_ms)
        if (
            not AUCTION_RESULT_MS <= first_ms - self.midnight_ms <= last_ms - self.midnight_ms < DAY_MS
            or minute != minute_at(last_ms - self.midnight_ms)
        ):
            return None
        done = ordinary.take(
            whole, self.latest, some=None if isinstance(at, slice) else (rows, arrival), day=self.day,
            joining=self.joining, since_ms=half_began_ms(last_ms), bars=self._bars_of(minute),
        )  # fmt: skip
        if not done:
            return None
        self.latest.go_on(at, last_ms)
        return Segment(rows, at, batch, arrival, None, None)

    def _bars_of(self, minute: int) -> list[tuple[PeriodBars, int]]:
        """Return each period's bars, and the end (Unix ms) of the one that holds this trading minute of today."""
        key = self.midnight_ms, minute, len(self.bars)
        if self._ends_of[0] != key:
            self._ends_of = key, [(one, int(self.ends(minute, period))) for period, one in self.bars.items()]
        return self._ends_of[1]

    def _all_priced(self, batch: TickBatch) -> bool:
        """Tell whether all ticks have a price, are of one day, and come after the opening auction's result."""
        first_ms, last_ms = batch.span_ms
        return (
            day_ms(first_ms) >= AUCTION_RESULT_MS
            and last_ms < midnight_ms(first_ms) + DAY_MS
            and all_known(batch.column("last"))
        )

    def _live(self, at: Selection, batch: TickBatch, *, halted: BoolArray | None) -> BoolArray:
        """Tell which ticks make bars: from the opening auction's result on, price not NaN, and the symbol trading.

        A halt's first tick may still bring the last trades before it; the ones after it repeat what was.
        """
        live = (day_ms(batch.ts_event_ms) >= AUCTION_RESULT_MS) & ~np.isnan(batch.column("last"))
        if halted is not None:
            live &= ~halted | (batch.column("volume_lots") > self.day.volume.array[at])
        return np.asarray(live)

    def mark_gaps(self, ticks: Segment) -> None:
        """Note what lies before the ticks that make bars, and halts; call it before the ticks are applied."""
        self._note_halts(ticks)
        if not self.bars:
            return
        trading, times_ms = ticks.lives()[0], chosen(ticks.batch.ts_event_ms, ticks.live)
        if not len(trading):
            return
        at = ticks.at if ticks.live is None else self.selection(trading)
        self.joining.mark_gaps(at, times_ms)

    def _note_halts(self, ticks: Segment) -> None:
        if ticks.halted is None and not self.latest.has_halts:
            return
        rows, times_ms = ticks.rows, ticks.batch.ts_event_ms
        before = is_halted(self.latest.status.array[rows])
        now = np.zeros_like(before) if ticks.halted is None else ticks.halted
        self.gaps.resume(rows[before & ~now])
        self.outages.follow(rows, times_ms, halted=now, before=before)

    def minutes(self, ticks: Segment) -> int | IntArray:
        """Return the trading minute of each tick; one number where all share it (it only grows with time)."""
        first, last = minute_at(ticks.first_ms - self.midnight_ms), minute_at(ticks.last_ms - self.midnight_ms)
        return first if first == last else trading_minute(ticks.batch.ts_event_ms - self.midnight_ms)

    def ends(self, minute: int | IntArray, period: str) -> int | IntArray:
        """Return the end (Unix ms) of the bar of this period that holds each trading minute."""
        minutes, midnight = PERIOD_MINUTES[period], last_day_ms(self.midnight_ms, period)
        return midnight + minute_end_ms(-(-minute // minutes) * minutes)

    def skipped(self, bars: PeriodBars, rows: IntArray, *, ends: int | IntArray) -> tuple[BoolArray, IntArray]:
        """Tell which symbols, now trading in the bars that end at `ends`, left out the bar before, and its ends.

        Only a bar that the clock has yet to close counts: what came before that was closed, or is no bar.
        """
        minutes = trading_minute(np.asarray(ends) - self.midnight_ms) - PERIOD_MINUTES[bars.period]
        before = np.broadcast_to(self.midnight_ms + minute_end_ms(minutes), rows.shape)
        undue = before + CLOSE_DELAY_MS > self.clock_ms
        halted = is_halted(self.latest.status.array[rows])
        skipped = (bars.end_ms.array[rows] < before) & undue & ~halted
        if self.outages.silences and skipped.any():
            starts = {int(end): bar_start_ms(int(end), bars.period) for end in np.unique(before)}
            skipped &= [not self.outages.is_silent(starts[int(end)], int(end)) for end in before]
        return skipped, before

    def is_late(self, ticks: Segment) -> bool:
        """Tell whether the clock has come to the close of some bar at or after the trading minute of one of these."""
        if not self._next_due:
            return False
        first = minute_at(ticks.first_ms - self.midnight_ms)
        return first <= minute_at(self._due[self._next_due - 1][1] - self.midnight_ms)

    def overdue(self, bars: PeriodBars, rows: IntArray) -> BoolArray:
        """Tell which of these symbols hold a bar that is open although the clock has come to its close before."""
        ends = bars.end_ms.array[rows]
        return np.asarray((ends > 0) & (bars.closed.array[rows] == OPEN) & (due_ms(ends) <= self.clock_ms))

    def mark_flat(self, bars: PeriodBars, rows: IntArray, *, ends: int | IntArray) -> None:
        """Note that lunch lies before the afternoon's first bar, also where nothing was traded in it."""
        if PERIOD_MINUTES[bars.period] < DAY_MINUTES:
            first_ms = self.ends(DAY_MINUTES // 2 + 1, bars.period)
            bars.gap.array[rows] = np.where(ends == first_ms, LUNCH_GAP, NO_GAP)

    # ── the clock ─────────────────────────────────────────────────────────────────────────────────────────────────

    def reach(self, second_ms: int) -> None:
        """Set the clock."""
        self.clock_ms = second_ms
        self.latest.reach(second_ms)
        if not 0 <= second_ms - self.midnight_ms < DAY_MS:
            self.midnight_ms = midnight_ms(second_ms)

    def roll(self, second_ms: int) -> None:
        """Begin the trade date of `second_ms`: the old day's words, counts and (committed) bars are forgotten."""
        self.outages.end_day(self.midnight_ms, new_midnight_ms=midnight_ms(second_ms))
        if self.date:
            self.exrights.end_day(self.latest, date=self.date, midnight=self.midnight_ms)
        self.reach(second_ms)
        self.date = trade_date(second_ms)
        self.day_number += 1
        for bars in self.bars.values():
            if self.ends_before(bars, second_ms):
                bars.roll()
            else:
                bars.carry(self.day)
        self.survey()
        self.latest.roll()
        self.day.roll()
        self._plan_day()

    def ends_before(self, bars: PeriodBars, second_ms: int) -> bool:
        """Tell whether the bars of this period that are held end before the trade date of `second_ms`."""
        return int(bars.end_ms.array.max(initial=0)) < midnight_ms(second_ms)

    def due(self, second_ms: int) -> Iterator[tuple[int, int, tuple[str, ...]]]:
        """Yield (due time, bar end, periods) of bars that the clock closes up to `second_ms`, each once, in order."""
        while self._next_due < len(self._due) and self._due[self._next_due][0] <= second_ms:
            due = self._due[self._next_due]
            self._next_due += 1
            yield due

    @property
    def next_due_ms(self) -> int:
        """When the clock closes bars next; the next midnight where it closes none any more."""
        tomorrow_ms = self.midnight_ms + DAY_MS
        return self._due[self._next_due][0] if self._next_due < len(self._due) else tomorrow_ms

    @property
    def last_due_ms(self) -> int:
        """When the current day's last bars are due."""
        return self._due[-1][0] if self._due else self.clock_ms

    def gap_before(self, layer: str, row: int, ts_ms: int, *, closing: bool) -> tuple[str | None, int | None]:
        """Return what lies before a sample of a symbol now (GAPS), and the trading time we were away there, if at all.

        layer: a period of bars, or ticks of some sessions; `closing`: a bar is sampled at its close, not at a tick.
        """
        bars = self.bars.get(layer)
        if bars is not None:
            gap, away_ms = bars.gap.array.item(row), (bars if closing else self.joining).away_ms.array.item(row)
        else:
            gap, away_ms = self.gaps.before_one(self.gaps.trail(layer), row, ts_ms)
        return GAPS[gap], None if away_ms < 0 else away_ms

    def gaps_before(
        self, layer: str, rows: IntArray, times_ms: IntArray, *, closing: bool
    ) -> Iterable[tuple[str | None, int | None]]:
        """Return what `gap_before` does for each of these symbols; without an end where that is nothing for any."""
        bars = self.bars.get(layer)
        if bars is not None:
            gaps = bars.gap.array.take(rows)
            away_ms = (bars if closing else self.joining).away_ms.array.take(rows)
        else:
            found = self.gaps.before(self.gaps.trail(layer), rows, times_ms)
            if found is None:
                return repeat((None, None))
            gaps, away_ms = found
        return [
            (GAPS[gap], None if away < 0 else away) for gap, away in zip(gaps.tolist(), away_ms.tolist(), strict=True)
        ]

    def _plan_day(self) -> None:
        """List the bar closes of the current date that are still to come."""
        self._due = due_times(self.midnight_ms, tuple(self.bars)) if self.date else []
        self._next_due = bisect_right(self._due, self.clock_ms, key=lambda due: due[0])

    # ── reading and checkpoint ────────────────────────────────────────────────────────────────────────────────────

    def quote(self, row: int) -> dict[str, float | int | None]:
        """Return every kept column of a symbol's latest tick, with its time and status."""
        stamp = {"ts_event_ms": int(self.latest.ts_ms.array[row]), "status": int(self.latest.status.array[row])}
        return stamp | {name: _known(self.latest.raw(name).item(row)) for name in self.latest.columns}

    def header(self) -> dict[str, Any]:
        """Return as JSON values all state that is not in the state table."""
        return {
            "clock_ms": self.clock_ms, "date": self.date, "day_number": self.day_number, "ticks": self.ticks,
            "symbols": list(self.universe.symbols), "instruments": self.instruments_source,
            "positions": self.books.source, "exrights": self.exrights.source, "books": list(self.books.names),
            "periods": list(self.bars), "columns": list(self.latest.columns), "silences": self.outages.silences,
            "dropped": dict(self.dropped), "away_since_ms": self.gaps.away_since_ms,
            "halts": list(self.outages.halts.items()),
        }  # fmt: skip

    def prepare(self, header: Mapping[str, Any]) -> None:
        """Claim what a checkpoint's market had, before its rules are compiled and its arrays are put back."""
        self.rows(tuple(header["symbols"]))
        for period in header["periods"]:
            self.period(period)
        self.latest.keep(header["columns"])
        self.books.restore(header["positions"], header["books"], self.universe.row)
        self.exrights.take(header["exrights"])
        if header["instruments"]:
            self.know(header["instruments"])

    def put_back(self, header: Mapping[str, Any]) -> None:
        """Take the rest of a checkpoint's header, after its arrays."""
        self.date, self.day_number, self.ticks = header["date"], header["day_number"], header["ticks"]
        self.outages.put_back(header["silences"], header["halts"])
        self.gaps.away_since_ms = header["away_since_ms"]
        self.dropped.clear()
        self.dropped.update(header["dropped"])
        self.latest.recount()
        self.joining.has_gaps = True
        self.reach(header["clock_ms"])
        self._plan_day()
        self.survey()


def _is_one_trading(status: NDArray[np.int16]) -> bool:
    """Tell whether all ticks have one status, and that is no halt; no may be wrong."""
    return bool((status == status[0]).all()) and int(status[0]) not in HALTED


def _known(number: float) -> float | None:
    return None if number != number else number  # NaN alone is not itself


def _without_repeats(rows: IntArray, start: int, stop: int) -> Iterator[slice]:
    """Cut a stretch greedily so that no symbol comes twice in a part."""
    seen: set[int] = set()
    first = start
    for position in range(start, stop):
        row = int(rows[position])
        if row in seen:
            yield slice(first, position)
            first = position
            seen.clear()
        seen.add(row)
    yield slice(first, stop)
