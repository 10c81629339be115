"""`Engine`: the pure heart. Ordered inputs in, events of rules out; all state is a function of the inputs so far.

The way of a batch: it is split where the market clock enters a new second and where a symbol comes twice; each segment
first lets the clock close bars that are due, then drops ticks that are no news, closes and commits the bars its ticks leave
behind, applies the ticks, and samples the tick-evaluated rules. One thread owns an engine; nothing here waits or reads a
clock.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.instruments import Instrument, decode_table
from feeds.sessions import date_text, day_ms, midnight_ms, session_clock_ms, trade_date
from feeds.tick import CORE, BoolArray, FloatArray, IntArray, TickBatch
from feeds.universe import Universe
from rules import rulefile
from rules.alert import Alert, Event, identity
from rules.bars import (
    CLOSED_BY_CLOCK, FINAL, OPEN, PERIOD_MINUTES, DayColumns, Extremes, PeriodBars, bar_start_ms, due_times,
    minute_end_ms, trading_minute,
)  # fmt: skip
from rules.errors import RuleError
from rules.graph import Graph
from rules.lifecycle import Ledger, Moment
from rules.node import ALL, Node, Selection, Truth
from rules.latest import HALTED, Latest
from rules.program import Fire, Group, Sessions, Slot, compile_slots, group_slots, ticks_in_session
from rules.rule import Evaluation, Rule, RuleSet
from rules.state import Column, StateTable

CHECKPOINT_VERSION: Final = 1
FUTURE_MS: Final = 10_000
"""A tick stamped further than this ahead of its arrival is dropped: it would drag the market clock along."""
FEED_RULE: Final = "feed"
_CLOSING_STATUS: Final = (15, 22, 23)
_OPENING_MS: Final = (9 * 60 + 30) * 60_000
_AUCTION_RESULT_MS: Final = (9 * 60 + 25) * 60_000
_CLOSE_MS: Final = 15 * 3_600_000


@dataclass(frozen=True, slots=True)
class _Found:
    """An event with what orders it: place of its cause in arrival order, phase around that tick, rule order, symbol."""

    cause: int
    phase: int
    order: int
    symbol: str
    alert: Alert


BEFORE_TICK, AT_TICK, AFTER_TICK = 0, 1, 2
"""Phases of one tick: it closes the bar it leaves behind, is a sample itself, and may be the day's closing tick."""


class Engine:
    """Rules over ticks. `step` is the only way in; the same inputs give the same events, however they are cut.

    window: bars kept per period for warm-up of rules that come later and for look-back functions.
    """

    def __init__(self, *, window: int = 250) -> None:
        self._window = window
        self.universe = Universe()
        self.instruments: dict[str, Instrument] = {}
        self.rules = RuleSet((), "[]")
        self.dropped: Counter[str] = Counter()
        """Ticks not used, by reason: future, out_of_order, duplicate, late_bar (used, but too late for its bar)."""
        self.ticks = 0
        self.clock_ms = 0
        """The market clock: running maximum of all times seen, floored to the second (Unix ms)."""
        self._state = StateTable()
        self._latest = Latest(self._state)
        self._day = DayColumns(self._state)
        self._bars: dict[str, PeriodBars] = {}
        self._graph = Graph(self._state, self, window=window)
        self._groups: dict[tuple[str, Evaluation], Group] = {}
        self._slots: list[Slot] = []
        self._ledger = Ledger()
        self._expired: set[str] = set()
        self._date = 0
        self._day_number = 0
        self._due: list[tuple[int, int, tuple[str, ...]]] = []
        self._next_due = 0
        self._silences: list[tuple[int, int | None]] = []
        self._silent_episode: tuple[str, int] | None = None
        self._instrument_text = ""
        self._found: list[_Found] = []
        self._out: list[Alert] = []
        self._aligned: tuple[int, int] = (0, 0)

    # ── the one way in ────────────────────────────────────────────────────────────────────────────────────────────

    def step(self, value: Input, *, offset: int = -1) -> list[Alert]:
        """Take the next input and return the events it caused, in order. `offset` is only remembered.

        Raises RuleError for a control record that does not hold what it should; the state is then as before.
        """
        self._out = []
        if isinstance(value, TickBatch):
            self._take_ticks(value)
        elif isinstance(value, Heartbeat):
            self._enter(value.ts_ms)
        elif isinstance(value, Mark):
            self._take_mark(value)
        else:
            self._take_control(value)
        if offset >= 0:
            self.offset = offset
        return self._out

    offset: int = -1
    """The offset of the last input taken; -1 before the first."""

    def _take_control(self, control: Control) -> None:
        if control.kind is ControlKind.RULES:
            self._load_rules(rulefile.from_source(control.text))
        elif control.kind is ControlKind.INSTRUMENTS:
            self.instruments = {instrument.symbol: instrument for instrument in decode_table(control.text)}
            self._instrument_text = control.text
            self._cover()
        else:
            raise RuleError("positions are not evaluated by this version")

    # ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_ticks(self, batch: TickBatch) -> None:
        self.ticks += len(batch)
        future = batch.ts_event_ms > batch.recv_ms + FUTURE_MS
        if future.any():
            self.dropped["future"] += int(future.sum())
            batch = batch.take(np.flatnonzero(~future))
        if not len(batch):
            return
        rows = self.universe.rows(batch.symbols)
        if len(self.universe) != self._state.n:
            self._state.grow(len(self.universe))
            self._cover()
        for part in _segments(rows, batch.ts_event_ms, clock_ms=self.clock_ms):
            whole = part.start == 0 and part.stop == len(rows)
            self._take_segment(rows[part], batch if whole else batch.take(part))

    def _take_segment(self, rows: IntArray, batch: TickBatch) -> None:
        """Take ticks of one clock second, each symbol once."""
        self._enter(int(batch.ts_event_ms.max()))
        arrival = np.arange(len(rows))
        keep = self._news(rows, batch)
        if not keep.all():
            kept = np.flatnonzero(keep)
            rows, arrival, batch = rows[kept], arrival[kept], batch.take(kept)
            if not len(rows):
                return
        at = self._selection(rows)
        live = self._live(batch)
        minute = self._minute(batch.ts_event_ms)
        for bars in self._bars.values():
            self._leave_bars(bars, rows[live], arrival[live], _pick(self._ends(minute, bars.period), live))
        extremes = self._first_and_extremes(at, batch)
        self._latest.apply(at, batch)
        for bars in self._bars.values():
            self._enter_bars(bars, at, rows, live, self._ends(minute, bars.period), extremes, batch)
        self._count_day(at, batch)
        self._sample_ticks(at, rows, arrival, batch)
        self._close_by_status(rows, arrival, batch)
        self._flush()

    def _news(self, rows: IntArray, batch: TickBatch) -> BoolArray:
        """Tell which ticks are to be used: not older than their symbol's last, and not that very payload again."""
        at = self._selection(rows)
        old = batch.ts_event_ms < self._latest.ts_ms.array[at]
        repeats = self._latest.repeats(at, batch)
        self.dropped["out_of_order"] += int(old.sum())
        self.dropped["duplicate"] += int(repeats.sum())
        return ~(old | repeats)

    def _live(self, batch: TickBatch) -> BoolArray:
        """Tell which ticks bring a price of today: from the opening auction's result on, and not NaN."""
        return (day_ms(batch.ts_event_ms) >= _AUCTION_RESULT_MS) & ~np.isnan(batch.column("last"))

    def _minute(self, ts_ms: IntArray) -> int | IntArray:
        """Return the trading minute of each tick; one number where all share it (it grows with time)."""
        first, last = trading_minute(np.array([ts_ms.min(), ts_ms.max()]) - self._midnight)
        return int(first) if first == last else trading_minute(ts_ms - self._midnight)

    def _ends(self, minute: int | IntArray, period: str) -> int | IntArray:
        """Return the end (Unix ms) of the bar of this period that holds each trading minute."""
        minutes = PERIOD_MINUTES[period]
        end = self._midnight + minute_end_ms(-(-minute // minutes) * minutes)
        return end if isinstance(minute, np.ndarray) else int(end)

    def _leave_bars(self, bars: PeriodBars, rows: IntArray, arrival: IntArray, ends: int | IntArray) -> None:
        """Close and commit the bars of symbols that now trade in a later one, and those they skipped without a trade."""
        behind = bars.ends_before(rows, ends)
        if not behind.any():
            return
        rows, arrival, ends = rows[behind], arrival[behind], _pick(ends, behind)
        still_open = bars.closed.array[rows] == OPEN
        self._close(bars, rows[still_open], closed=FINAL, causes=arrival[still_open])
        skipped = self._next_ends(bars, rows) < ends
        while skipped.any():
            self._lay_flat(bars, rows[skipped], causes=arrival[skipped])
            skipped = self._next_ends(bars, rows) < ends
        self._graph.commit(bars.period, rows)

    def _next_ends(self, bars: PeriodBars, rows: IntArray) -> IntArray:
        minute = trading_minute(bars.end_ms.array[rows] - self._midnight) + PERIOD_MINUTES[bars.period]
        return np.asarray(self._midnight + minute_end_ms(minute))

    def _enter_bars(
        self,
        bars: PeriodBars,
        at: Selection,
        rows: IntArray,
        live: BoolArray,
        ends: int | IntArray,
        extremes: Extremes,
        batch: TickBatch,
    ) -> None:
        """Open new bars and let every live tick join the bar it belongs to."""
        held = bars.end_ms.array[at]
        opening = live & (held < ends)
        last = self._latest.raw("last")
        if opening.any():
            fresh = rows[opening]
            bars.open_bars(fresh, end_ms=_pick(ends, opening), last=last[fresh], day=self._day)
        joining = live & (held <= ends) & (opening | (bars.closed.array[at] != FINAL))
        if not joining.all():
            self.dropped["late_bar"] += int((live & ~joining).sum())
            at = rows[joining]
            extremes = Extremes(extremes.high[joining], extremes.low[joining])
        bars.join(
            at,
            last=last[at],
            extremes=extremes,
            volume_lots=self._latest.raw("volume_lots")[at],
            amount_cny=self._latest.raw("amount_cny")[at],
        )

    def _first_and_extremes(self, at: Selection, batch: TickBatch) -> Extremes:
        """Note first ticks of the day, and return the day's high and low where they moved since the last tick.

        Volume counts from 0 only if the symbol's first tick is at or before 09:30:00; a later first tick sets the base.
        """
        day = self._day
        first = day.first_ms.array[at] == 0
        if first.any():
            opens = first & (batch.ts_event_ms <= self._midnight + _OPENING_MS)
            day.first_ms.array[at] = np.where(first, batch.ts_event_ms, day.first_ms.array[at])
            for column in (day.volume, day.amount):
                column.array[at] = np.where(opens, 0.0, column.array[at])
        early = day.first_ms.array[at] <= self._midnight + _OPENING_MS
        blank = ~self._live(batch)
        high, low = batch.column("high"), batch.column("low")
        known_high, known_low = day.high.array[at], day.low.array[at]
        up = (high > known_high) | (early & np.isnan(known_high))
        down = (low < known_low) | (early & np.isnan(known_low))
        return Extremes(np.where(up & ~blank, high, np.nan), np.where(down & ~blank, low, np.nan))

    def _count_day(self, at: Selection, batch: TickBatch) -> None:
        """Remember the cumulative figures and day extremes for the next tick."""
        for column, name in (
            (self._day.volume, "volume_lots"),
            (self._day.amount, "amount_cny"),
            (self._day.high, "high"),
            (self._day.low, "low"),
        ):
            column.array[at] = self._latest.raw(name)[at]

    def _sample_ticks(self, at: Selection, rows: IntArray, arrival: IntArray, batch: TickBatch) -> None:
        """Sample the tick-evaluated rules of every period; on period tick each sample is a bar of its own."""
        place: dict[int, int] | None = None
        for (period, evaluation), group in self._groups.items():
            if evaluation is not Evaluation.TICK:
                continue
            fires = group.sample(
                at, n_symbols=self._state.n, times_ms=batch.ts_event_ms, overlap=ticks_in_session
            )
            if fires:
                place = place or {int(row): position for position, row in enumerate(rows)}
                bars = self._bars.get(period)
                for slot, some in _by_slot(fires):
                    positions = [place[fire.row] for fire in some]
                    moments = [
                        self._moment(int(batch.ts_event_ms[i]), None if bars is None else int(bars.end_ms.array[rows[i]]))
                        for i in positions
                    ]
                    self._tell(slot, some, moments, causes=arrival[positions], phase=AT_TICK)
        if "tick" in self._graph_periods:
            self._graph.commit("tick", rows)

    def _close_by_status(self, rows: IntArray, arrival: IntArray, batch: TickBatch) -> None:
        """Close the day's last bars of symbols whose tick says that their day is over."""
        over = np.isin(batch.status, _CLOSING_STATUS) & (day_ms(batch.ts_event_ms) >= _CLOSE_MS)
        if not over.any():
            return
        done, causes = rows[over], arrival[over]
        for bars in self._bars.values():
            ready = (bars.closed.array[done] == OPEN) & (bars.end_ms.array[done] == self._midnight + _CLOSE_MS)
            self._close(bars, done[ready], closed=FINAL, causes=causes[ready], phase=AFTER_TICK)

    # ── the market clock ──────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _midnight(self) -> int:
        return midnight_ms(self.clock_ms)

    def _enter(self, ts_ms: int) -> None:
        """Let the market clock reach the second of `ts_ms`: bars close in turn, days roll; it never goes back."""
        second = ts_ms - ts_ms % 1000
        if second <= self.clock_ms:
            return
        if trade_date(second) != self._date:
            self._roll(second)
        self.clock_ms = second
        self._latest.clock_ms = second
        self._close_due(second)
        self._expire()

    def _roll(self, second: int) -> None:
        """Begin a new trade date: the old day's bars close and are committed, its words and counts are forgotten."""
        if self._date:
            self._close_due(self._due[-1][0] if self._due else second)
            for bars in self._bars.values():
                self._graph.commit(bars.period, np.flatnonzero(bars.end_ms.array > 0))
                bars.roll()
        self._date = trade_date(second)
        self._day_number += 1
        self.clock_ms = second
        self._latest.know(self.universe.symbols, self.instruments, date=self._date)
        self._latest.roll()
        self._day.roll()
        self._silences = [(start, end) for start, end in self._silences if end is None]
        self._plan_day()

    def _plan_day(self) -> None:
        """List the bar closes of the current date that are still to come."""
        self._due = due_times(self._midnight, tuple(self._bars)) if self._date else []
        self._next_due = bisect_right(self._due, self.clock_ms, key=lambda due: due[0])

    def _close_due(self, second: int) -> None:
        while self._next_due < len(self._due) and self._due[self._next_due][0] <= second:
            due_ms, end_ms, periods = self._due[self._next_due]
            self._next_due += 1
            for period in periods:
                self._close_by_clock(self._bars[period], end_ms)
            self._flush()

    def _close_by_clock(self, bars: PeriodBars, end_ms: int) -> None:
        """Close every bar that ends here and is still open; symbols that did not trade in it get a flat one."""
        held = bars.end_ms.array
        self._close(bars, np.flatnonzero((held == end_ms) & (bars.closed.array == OPEN)), closed=CLOSED_BY_CLOCK)
        if self._is_silent(bar_start_ms(end_ms, bars.period), end_ms):
            return
        idle = np.flatnonzero((held > 0) & (held < end_ms) & ~self._latest.halted())
        if len(idle):
            self._lay_flat(bars, idle, end_ms=end_ms)

    def _lay_flat(
        self, bars: PeriodBars, rows: IntArray, *, end_ms: int | None = None, causes: IntArray | None = None
    ) -> None:
        """Commit these symbols' closed bars and close a flat one after each."""
        ends = self._next_ends(bars, rows) if end_ms is None else end_ms
        self._graph.commit(bars.period, rows)
        bars.lay_flat(rows, ends, day=self._day)
        self._close(bars, rows, closed=CLOSED_BY_CLOCK, causes=causes)

    def _close(
        self,
        bars: PeriodBars,
        rows: IntArray,
        *,
        closed: int,
        causes: IntArray | None = None,
        phase: int = BEFORE_TICK,
    ) -> None:
        """Mark these bars closed and sample the rules that wait for it; `causes` None: the clock did it."""
        if not len(rows):
            return
        bars.closed.array[rows] = closed
        group = self._groups.get((bars.period, Evaluation.BAR_CLOSE))
        if group is None:
            return
        ends = bars.end_ms.array[rows]
        fires = group.sample(
            rows, n_symbols=self._state.n, times_ms=ends, overlap=lambda ms, s: _bars_in_session(ms, s, bars.period)
        )
        if not fires:
            return
        place = {int(row): position for position, row in enumerate(rows)}
        for slot, some in _by_slot(fires):
            positions = [place[fire.row] for fire in some]
            moments = [self._moment(int(ends[i]), int(ends[i])) for i in positions]
            order = np.zeros(len(some), np.int64) if causes is None else causes[positions]
            self._tell(slot, some, moments, causes=order, phase=phase)

    def _is_silent(self, start_ms: int, end_ms: int) -> bool:
        """Tell whether a bar lies wholly inside a marked silence."""
        return any(since <= start_ms and (until is None or end_ms <= until) for since, until in self._silences)

    def _expire(self) -> None:
        """Tell once about rules whose time is over; they are not evaluated any more."""
        over = [
            rule
            for rule in self.rules.rules
            if rule.expires_ms is not None and rule.expires_ms <= self.clock_ms and rule.id not in self._expired
        ]
        for rule in over:
            self._expired.add(rule.id)
            self._found.append(_Found(0, BEFORE_TICK, self._order(rule), "", self._plain(rule.id, rule, Event.EXPIRED)))
        if over:
            self._cover()
            self._flush()

    # ── marks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_mark(self, mark: Mark) -> None:
        """Note what the feed says of itself; a silence is an episode of the rule `feed`: nodata, then resolve."""
        if mark.kind is MarkKind.GAP:
            return
        self._enter(mark.ts_ms)
        silent = self._silent_episode is not None
        if mark.kind is MarkKind.SILENT and not silent:
            date = date_text(mark.ts_ms)
            episode = self._ledger.next_episode(FEED_RULE, leg=None, symbol="", date=date)
            self._silent_episode = date, episode
            self._silences.append((mark.ts_ms, None))
            self._out.append(self._feed_event(Event.NODATA, mark))
        elif mark.kind is MarkKind.ALIVE and silent:
            self._silences[-1] = self._silences[-1][0], mark.ts_ms
            self._out.append(self._feed_event(Event.RESOLVE, mark))
            self._silent_episode = None

    def _feed_event(self, event: Event, mark: Mark) -> Alert:
        assert self._silent_episode is not None
        date, episode = self._silent_episode
        parts = (FEED_RULE, "", None, None, date, episode)
        return Alert(
            id=f"al_{identity(*parts, event, 1)}", episode_id=f"ep_{identity(*parts)}", event=event, rule=FEED_RULE,
            rev="", severity="warning", trade_date=date, episode=episode, ts_event_ms=mark.ts_ms, period="tick",
            why=mark.reason or None, message="行情中断" if event is Event.NODATA else "行情恢复",
        )  # fmt: skip

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _moment(self, ts_ms: int, bar_end_ms: int | None) -> Moment:
        return Moment(ts_ms, date_text(ts_ms), self._day_number, bar_end_ms)

    def _tell(
        self, slot: Slot, fires: Sequence[Fire], moments: Sequence[Moment], *, causes: IntArray, phase: int
    ) -> None:
        """Judge the fires of one slot and note their events with the values they report."""
        rows = np.array([fire.row for fire in fires], np.int64)
        values = self._values_at(slot, rows)
        for i, (fire, moment) in enumerate(zip(fires, moments, strict=True)):
            alert = self._fire_event(slot, fire, moment, {text: column[i] for text, column in values.items()})
            self._found.append(_Found(int(causes[i]), phase, slot.order, alert.symbol or "", alert))

    def _values_at(self, slot: Slot, rows: IntArray) -> dict[str, list[float | None]]:
        """Evaluate what a slot reports for these symbols; unknown is None."""
        self._graph.plan(slot.values.values()).peek(rows)
        return {text: _floats(node) for text, node in slot.values.items()}

    def _fire_event(self, slot: Slot, fire: Fire, moment: Moment, values: dict[str, float | None]) -> Alert:
        rule, leg = slot.rule, slot.leg.name
        symbol = self.universe.symbols[fire.row]
        verdict = self._ledger.judge(rule, symbol, leg=leg, moment=moment)
        event = Event.FIRE if verdict.why is None else Event.SUPPRESSED
        instrument = self.instruments.get(symbol)
        name = None if instrument is None else instrument.name
        parts = (rule.id, rule.rev, leg, symbol, moment.date, verdict.episode)
        return Alert(
            id=f"al_{identity(*parts, event, 1)}", episode_id=f"ep_{identity(*parts)}", event=event, rule=rule.id,
            rev=rule.rev, leg=leg, symbol=symbol, name=name, severity=rule.severity, labels=dict(rule.labels),
            trade_date=moment.date, episode=verdict.episode, ts_event_ms=moment.ts_ms, period=rule.period,
            bar_end_ms=moment.bar_end_ms, late=fire.late, values=values, tick=self._tick(fire.row),
            suppressed=verdict.held_back, why=verdict.why, message=_message(rule, event, symbol, name, values),
        )  # fmt: skip

    def _plain(self, subject: str, rule: Rule, event: Event) -> Alert:
        """Make an event of a rule as a whole, such as its expiry."""
        date = date_text(self.clock_ms)
        parts = (rule.id, rule.rev, None, None, date, 1)
        return Alert(
            id=f"al_{identity(*parts, event, 1)}", episode_id=f"ep_{identity(*parts)}", event=event, rule=rule.id,
            rev=rule.rev, severity=rule.severity, labels=dict(rule.labels), trade_date=date, episode=1,
            ts_event_ms=self.clock_ms, period=rule.period, message=f"{subject} {event}",
        )  # fmt: skip

    def _tick(self, row: int) -> dict[str, float | None]:
        """Return the core columns of a symbol's latest tick; unknown is None."""
        columns = {name: float(self._latest.raw(name)[row]) for name in CORE}
        return {name: None if np.isnan(number) else number for name, number in columns.items()}

    def _flush(self) -> None:
        """Pass on the events of one cause after the other, each in rule order, then by symbol."""
        self._found.sort(key=lambda found: (found.cause, found.phase, found.order, found.symbol))
        self._out.extend(found.alert for found in self._found)
        self._found.clear()

    # ── rules ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def column(self, period: str, word: str) -> Column:
        """Return the column of a word for the graph: the forming bar's field, or a now word (FieldSource)."""
        if word not in ("O", "H", "L", "C", "V", "AMO"):
            return self._latest.column(word)
        if period == "tick":
            return self._latest.column("LAST")
        return self._period(period).fields[word]

    def _period(self, period: str) -> PeriodBars:
        bars = self._bars.get(period)
        if bars is None:
            bars = self._bars[period] = PeriodBars(period, self._state)
            bars.partial.array[...] = self._day.first_ms.array > 0
            self._bars = {name: self._bars[name] for name in PERIOD_MINUTES if name in self._bars}
            self._plan_day()
        return bars

    def _load_rules(self, rules: RuleSet) -> None:
        """Swap the rule set; slots whose rule id and rev are unchanged keep their arming, nodes in use their state."""
        slots = compile_slots(rules, self._graph)
        for slot in slots:
            if slot.rule.period != "tick":
                self._period(slot.rule.period)
        groups = group_slots(slots, self._graph)
        for group in groups.values():
            group.bits.grow(self._state.n)
            for old in self._groups.values():
                group.bits.adopt(old.bits)
        self.rules, self._slots, self._groups = rules, slots, groups
        self._graph.remove_unused([node for slot in slots for node in slot.nodes])
        self._ledger.forget({slot.key for slot in slots})
        self._expired = {rule.id for rule in rules.rules if rule.id in self._expired and not self._is_over_again(rule)}
        self._cover()

    def _is_over_again(self, rule: Rule) -> bool:
        """Tell whether a rule that had expired has been given more time."""
        return rule.expires_ms is None or rule.expires_ms > self.clock_ms

    @property
    def _graph_periods(self) -> set[str]:
        return {slot.rule.period for slot in self._slots}

    def _order(self, rule: Rule) -> int:
        return next((slot.order for slot in self._slots if slot.rule.id == rule.id), 0)

    def _cover(self) -> None:
        """Let scopes, limits and names follow the universe and the instruments."""
        self._latest.know(self.universe.symbols, self.instruments, date=self._date)
        for group in self._groups.values():
            group.cover(self.universe.symbols, self.instruments, expired=self._expired)

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    def quote(self, symbol: str) -> dict[str, float | int | None] | None:
        """Return the kept columns of a symbol's latest tick with ts_event_ms and status; None if never seen."""
        row = self.universe.row(symbol)
        if row is None:
            return None
        kept = {name: float(self._latest.raw(name)[row]) for name in self._latest.columns}
        figures: dict[str, float | int | None] = {k: None if np.isnan(v) else v for k, v in kept.items()}
        return {"ts_event_ms": int(self._latest.ts_ms.array[row]), "status": int(self._latest.status.array[row])} | figures

    def values(self, symbol: str) -> dict[str, dict[str, float | None]]:
        """Return, per rule that watches the symbol, what it would report now: its operands and named outputs."""
        row = self.universe.row(symbol)
        found: dict[str, dict[str, float | None]] = {}
        if row is None:
            return found
        for group in self._groups.values():
            for slot_row, slot in enumerate(group.slots):
                if group.covers(slot_row, row):
                    column = self._values_at(slot, np.array([row]))
                    key = slot.rule.id if slot.leg.name is None else f"{slot.rule.id}/{slot.leg.name}"
                    found[key] = {text: numbers[0] for text, numbers in column.items()}
        return found

    def raise_episodes(self, counts: Mapping[tuple[str, str, str], int], date: str) -> None:
        """Make the episode counters of a trade date at least these ((rule, leg, symbol) → episode)."""
        self._ledger.raise_to(counts, date)

    # ── checkpoint ────────────────────────────────────────────────────────────────────────────────────────────────

    def checkpoint(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all state as (arrays by name, JSON header); copies, so the engine may go on at once."""
        arrays = self._state.dump()
        for (period, evaluation), group in self._groups.items():
            arrays[f"armed/{period}/{evaluation}"] = group.bits.armed.copy()
            arrays[f"started/{period}/{evaluation}"] = group.bits.started.copy()
        header = {
            "version": CHECKPOINT_VERSION, "window": self._window, "offset": self.offset, "clock_ms": self.clock_ms,
            "date": self._date, "day_number": self._day_number, "symbols": list(self.universe.symbols),
            "rules": self.rules.source, "instruments": self._instrument_text, "periods": list(self._bars),
            "columns": list(self._latest.columns), "ledger": self._ledger.dump(), "expired": sorted(self._expired),
            "silences": self._silences, "silent_episode": self._silent_episode, "dropped": dict(self.dropped),
            "ticks": self.ticks,
        }  # fmt: skip
        return arrays, header

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Engine:
        """Make the engine that `checkpoint` was taken of.

        Raises RuleError for another version or if the arrays do not fit the rule set of the header.
        """
        if header.get("version") != CHECKPOINT_VERSION:
            raise RuleError(f"checkpoint version {header.get('version')!r}, this program reads {CHECKPOINT_VERSION}")
        engine = cls(window=header["window"])
        engine.universe.rows(tuple(header["symbols"]))
        engine._state.grow(len(engine.universe))
        for period in header["periods"]:
            engine._period(period)
        engine._latest.keep(header["columns"])
        if header["instruments"]:
            engine.step(Control(ControlKind.INSTRUMENTS, header["instruments"]))
        engine.step(Control(ControlKind.RULES, header["rules"]))
        engine._state.load(arrays)
        for (period, evaluation), group in engine._groups.items():
            group.bits.armed = np.array(arrays[f"armed/{period}/{evaluation}"])
            group.bits.started = np.array(arrays[f"started/{period}/{evaluation}"])
        engine._put_back(header)
        return engine

    def _put_back(self, header: Mapping[str, Any]) -> None:
        self.offset, self.clock_ms, self.ticks = header["offset"], header["clock_ms"], header["ticks"]
        self._latest.clock_ms = self.clock_ms
        self._date, self._day_number = header["date"], header["day_number"]
        self._ledger = Ledger.load(header["ledger"])
        self._expired = set(header["expired"])
        self._silences = [(start, end) for start, end in header["silences"]]
        episode = header["silent_episode"]
        self._silent_episode = None if episode is None else (episode[0], episode[1])
        self.dropped = Counter(header["dropped"])
        self._plan_day()
        self._cover()

    def _selection(self, rows: IntArray) -> Selection:
        """Return ALL where `rows` are all symbols in order (the contiguous fast path), else the rows."""
        if len(rows) != self._state.n or len(rows) == 0 or rows[0] != 0:
            return rows
        if self._aligned == (id(rows), len(rows)) or bool((np.diff(rows) == 1).all()):
            return ALL
        return rows


def _segments(rows: IntArray, ts_ms: IntArray, *, clock_ms: int) -> Iterator[slice]:
    """Cut a batch where the market clock enters a new second and where a symbol comes a second time."""
    reached = np.maximum.accumulate(np.maximum(ts_ms, clock_ms)) // 1000
    cuts = [0, *(np.flatnonzero(np.diff(reached)) + 1), len(rows)]
    repeats = len(rows) > 1 and int(np.bincount(rows).max()) > 1
    for start, stop in zip(cuts, cuts[1:], strict=False):
        if repeats:
            yield from _without_repeats(rows, int(start), int(stop))
        else:
            yield slice(int(start), int(stop))


def _without_repeats(rows: IntArray, start: int, stop: int) -> Iterator[slice]:
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


def _pick(ends: int | IntArray, mask: BoolArray) -> int | IntArray:
    return ends[mask] if isinstance(ends, np.ndarray) else ends


def _by_slot(fires: Sequence[Fire]) -> Iterator[tuple[Slot, list[Fire]]]:
    """Group fires by slot; they come in slot order."""
    some: list[Fire] = []
    for fire in fires:
        if some and fire.slot is not some[0].slot:
            yield some[0].slot, some
            some = []
        some.append(fire)
    if some:
        yield some[0].slot, some


def _bars_in_session(ends_ms: IntArray, sessions: Sessions, period: str) -> BoolArray:
    """Tell which bars overlap the sessions for some time."""
    distinct, inverse = np.unique(ends_ms, return_inverse=True)
    inside = [
        session_clock_ms(int(end), sessions) > session_clock_ms(bar_start_ms(int(end), period), sessions)
        for end in distinct
    ]
    return np.array(inside, np.bool_)[inverse]


def _floats(node: Node) -> list[float | None]:
    value = node.value
    if isinstance(value, Truth):
        return [1.0 if t else 0.0 if f else None for t, f in zip(value.t, value.f, strict=True)]
    return [None if np.isnan(number) else float(number) for number in value]


def _message(
    rule: Rule, event: Event, symbol: str, name: str | None, values: Mapping[str, float | None]
) -> str:
    template = rule.messages.get(str(event)) or rule.messages.get("fire")
    if template is None:
        return f"{name or symbol} {rule.id}"
    return template.render({"name": name or symbol, "symbol": symbol, "rule": rule.id, **values})
