"""`Engine`: the pure heart. Ordered inputs in, events of rules out; all state is a function of the inputs so far.

The way of a batch: it is split where the market clock enters a new second and where a symbol comes twice; each segment
first lets the clock close bars that are due, then drops ticks that are no news, closes and commits the bars its ticks
leave behind, applies the ticks, and samples the tick-evaluated rules. One thread owns an engine; nothing here waits or
reads a clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.sessions import Session, day_ms, session_clock_ms, trade_date
from feeds.tick import BoolArray, IntArray, TickBatch
from rules import rulefile
from rules.adjuster import Adjuster
from rules.alert import Alert, Event
from rules.bars import CLOSED_BY_CLOCK, FINAL, LONG_PERIODS, OPEN, PeriodBars, bar_start_ms
from rules.books import rows_of
from rules.breadth import Breadth
from rules.episodes import Episodes
from rules.errors import RuleError
from rules.graph import Graph
from rules.lifecycle import Ledger, Moment, SlotKey
from rules.market import RESTART, Market, pick
from rules.node import is_tick
from rules.plan import Plan
from rules.program import (
    EdgeGroup,
    Fire,
    GroupKey,
    Sample,
    Sessions,
    Slot,
    StateGroup,
    compile_slots,
    group_slots,
    layer_name,
    layer_of,
    ticks_in_session,
)
from rules.reported import Reported
from rules.reporter import AFTER_TICK, AT_TICK, BEFORE_TICK, Cause, Reporter
from rules.rule import Evaluation, Mode, Rule, RuleSet
from rules.segment import Segment, places

CHECKPOINT_VERSION: Final = 3
NEVER_MS: Final = 1 << 60
"""A time that does not come."""
_CLOSING_STATUS: Final = (15, 22, 23)
_CLOSE_MS: Final = 15 * 3_600_000


@dataclass(frozen=True, slots=True)
class Provisional:
    """A fire sent before its bar closed: slot, symbol's row, and its episode's number and trade date."""

    key: SlotKey
    row: int
    episode: int
    date: str


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of, for reading (explain.py)."""

    graph: Graph
    slots: Sequence[Slot]
    groups: Sequence[EdgeGroup | StateGroup]
    reporter: Reporter
    episodes: Episodes


class Engine:
    """Rules over ticks. `step` is the only way in; the same inputs give the same events, however they are cut.

    window: bars kept per period for rules that come later and for look-back functions.
    offset: that of the last input taken, -1 before the first.
    """

    def __init__(self, *, window: int = 250) -> None:
        self.window = window
        self.offset = -1
        self.market = Market()
        self.rules = RuleSet((), "[]")
        self._graph = Graph(self.market.state, self.market, window=window)
        self._slots: list[Slot] = []
        self._groups: dict[GroupKey, EdgeGroup | StateGroup] = {}
        self._reported = Reported(self._value_plan)
        self._breadth = Breadth(self.market)
        self._reporter = Reporter(self.market, self._breadth.names)
        self._adjuster = Adjuster(self._graph, self.market)
        self._episodes = Episodes(self.market, self._reporter, self._reported.look)
        self._provisional: dict[str, list[Provisional]] = {}
        """Fires that wait for their bar's close, by period."""
        self._expired: set[str] = set()
        self._next_expiry_ms = NEVER_MS
        self._shortest_timer_ms = NEVER_MS
        self._out: list[Alert] = []

    def step(self, value: Input, *, offset: int = -1) -> list[Alert]:
        """Take the next input and return the events it caused, in order; `offset` is only remembered.

        Raises RuleError or FeedError for a control record that does not hold what it should; state is then as before.
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

    # ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_ticks(self, batch: TickBatch) -> None:
        batch = self.market.admit(batch)
        if not len(batch):
            return
        rows, grown = self.market.rows(batch.symbols)
        if grown:
            self._cover()
        quiet_until_ms = self._quiet_until_ms(batch.span_ms[0])
        for part in self.market.segments(rows, batch, quiet_until_ms=quiet_until_ms):
            whole = part.start == 0 and part.stop == len(rows)
            self._take_segment(rows if whole else rows[part], batch if whole else batch.take(part))

    def _quiet_until_ms(self, from_ms: int) -> int:
        """Return the time before which entering a second does nothing, whatever ticks from `from_ms` on bring.

        Nothing is due, no rule expires, no timer rings, not even one that such a tick may start.
        """
        market, rings_ms = self.market, self._episodes.timers.next_ms
        if trade_date(from_ms) != market.date or self._watches_seconds:
            return 0
        quiet_ms = min(market.next_due_ms, from_ms + self._shortest_timer_ms, self._next_expiry_ms)
        return quiet_ms if rings_ms is None else min(quiet_ms, rings_ms)

    @property
    def _watches_seconds(self) -> bool:
        """Whether some rule looks at the market as of each second: then none may be passed over."""
        return self._breadth.is_watching or self._graph.wants_seconds or self.market.latest.uses("FEED_AGE")

    def _take_segment(self, rows: IntArray, batch: TickBatch) -> None:
        """Take ticks of one clock second, each symbol once."""
        market = self.market
        self._enter(batch.span_ms[1])
        arrival = places(len(rows))
        news = market.news(market.selection(rows), batch)
        if news is not None:
            arrival = np.flatnonzero(news)
            rows, batch = rows[arrival], batch.take(arrival)
            if not len(rows):
                return
        if market.exrights.waits(market.selection(rows), market.date):
            self._adjust(rows, batch)
        ticks = market.segment(rows, batch, arrival=arrival)
        minutes = market.minutes(ticks)
        for bars in market.bars.values():
            self._leave_bars(bars, ticks, ends=market.ends(minutes, bars.period))
        market.mark_gaps(ticks)
        extremes = market.extremes(ticks)
        market.latest.apply(ticks)
        self._breadth.changed = self._breadth.is_watching
        for bars in market.bars.values():
            market.enter_bars(bars, ticks, ends=market.ends(minutes, bars.period), extremes=extremes)
        market.count_day(ticks)
        self._sample_ticks(ticks)
        self._close_by_status(ticks)
        if market.is_late(minutes):
            self._close_overdue(ticks)
        self._flush()

    def _adjust(self, rows: IntArray, batch: TickBatch) -> None:
        """Let what is known of the past follow the ex-rights day of symbols, before their ticks are applied."""
        market = self.market
        found = market.exrights.decide(rows, batch, symbols=market.universe.symbols, instruments=market.instruments)
        if found is not None:
            self._adjuster.apply(found, self._reporter.ledger)

    def _leave_bars(self, bars: PeriodBars, ticks: Segment, *, ends: int | IntArray) -> None:
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
        skipped, between = self.market.skipped(bars, rows, ends=ends)
        if skipped.any():
            self._lay_flat(bars, rows[skipped], ends=between[skipped], arrival=arrival[skipped])
        self._graph.commit(bars.period, rows, values=False)

    def _sample_ticks(self, ticks: Segment) -> None:
        """Sample the tick-evaluated rules of every period; on period tick each sample is a bar of its own.

        A halted symbol is not sampled: its ticks repeat what was.
        """
        if self._is_frozen:
            return
        at, rows, arrival, times_ms, span_ms = (
            ticks.at,
            ticks.rows,
            ticks.arrival,
            ticks.batch.ts_event_ms,
            ticks.batch.span_ms,
        )
        if ticks.halted is not None:
            trading = np.flatnonzero(~ticks.halted)
            at = rows = rows[trading]
            times_ms, arrival = times_ms[trading], arrival[trading]
            if not len(rows):
                return
            span_ms = int(times_ms.min()), int(times_ms.max())
        overlap = partial(ticks_in_session, span_ms=span_ms)
        sample = Sample(at, self.market.state.n, times_ms, overlap)
        layers: dict[str, BoolArray | bool] = {}
        for (layer, evaluation, _), group in self._groups.items():
            if evaluation is not Evaluation.TICK:
                continue
            inside = sample.inside(group.sessions)
            if not np.any(inside):
                continue
            self._take_sample(group, sample, rows, bars=self.market.bars.get(layer), arrival=arrival, phase=AT_TICK)
            if is_tick(layer):
                layers[layer] = inside
        for layer, inside in layers.items():
            sampled = rows if isinstance(inside, bool) else rows[inside]
            self._graph.commit(layer, sampled, values=False)
            priced = ~np.isnan(self.market.latest.column("LAST").array[sampled])
            if layer == layer_name((Session.OPEN_AUCTION,)):
                priced[...] = True  # in the opening auction there is only AUCP to be sampled
            sampled_ms = times_ms if isinstance(inside, bool) else times_ms[inside]
            self.market.gaps.trail(layer).follow(sampled[priced], sampled_ms[priced])

    def _take_sample(
        self,
        group: EdgeGroup | StateGroup,
        sample: Sample,
        rows: IntArray,
        *,
        bars: PeriodBars | None,
        arrival: IntArray,
        phase: int,
    ) -> None:
        """Sample a group and note what comes of it.

        rows: the symbols sampled; arrival: theirs; bars: those that the sample is about.
        """
        whole = isinstance(sample.at, slice)

        def moment_of(slot: Slot, row: int) -> tuple[Moment, Cause]:
            at = row if whole else int(np.flatnonzero(rows == row)[0])
            end_ms = None if bars is None else int(bars.end_ms.array[row])
            moment = self._reporter.moment(slot, row, int(sample.times_ms[at]), end_ms)
            return moment, Cause(int(arrival[at]), phase)

        if isinstance(group, StateGroup):
            self._episodes.move(group, group.sample(sample), moment_of)
            return
        fires = group.sample(sample)
        for fire, values in zip(fires, self._reported.of_fires(group, fires), strict=True):
            moment, cause = moment_of(fire.slot, fire.row)
            self._tell(fire, moment, cause, values)

    def _tell(self, fire: Fire, moment: Moment, cause: Cause, values: dict[str, float | None]) -> None:
        """Note the event of a fire; a provisional one waits for its bar's close."""
        verdict = self._reporter.note_fire(fire.slot, fire, moment, cause=cause, values=values)
        if not fire.slot.rule.confirm or verdict.event is not Event.FIRE:
            return
        bars = self.market.bars[fire.slot.rule.period]
        provisional = Provisional(fire.slot.key, fire.row, verdict.episode, moment.date)
        if bars.closed.array[fire.row] == OPEN:
            self._provisional.setdefault(bars.period, []).append(provisional)
        else:  # the clock has closed the bar, and this late tick only amends it
            self._settle(provisional, bars, Cause(cause.arrival, AFTER_TICK))

    def _close_by_status(self, ticks: Segment) -> None:
        """Close the day's last bars of symbols whose tick says that their day is over."""
        if day_ms(ticks.last_ms) < _CLOSE_MS:
            return
        batch = ticks.batch
        over = np.isin(batch.status, _CLOSING_STATUS) & (day_ms(batch.ts_event_ms) >= _CLOSE_MS)
        if not over.any():
            return
        rows, arrival = ticks.rows[over], ticks.arrival[over]
        for bars in self.market.bars.values():
            ready = bars.closed.array[rows] == OPEN
            ready &= bars.end_ms.array[rows] == self.market.midnight_ms + _CLOSE_MS
            self._close(bars, rows[ready], closed=FINAL, arrival=arrival[ready], phase=AFTER_TICK)

    def _close_overdue(self, ticks: Segment) -> None:
        """Close the bars that these ticks began after the clock had come to their close: it will not come again.

        They are a symbol's first of the day, or follow a silence or a halt; else a closed bar stands there to amend.
        """
        for bars in self.market.bars.values():
            late = self.market.overdue(bars, ticks.rows)
            if late.any():
                rows, arrival = ticks.rows[late], ticks.arrival[late]
                self._close(bars, rows, closed=CLOSED_BY_CLOCK, arrival=arrival, phase=AFTER_TICK)

    # ── the market clock ──────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, ts_ms: int) -> None:
        """Let the market clock reach the second of `ts_ms`: bars close in turn, days roll; it never goes back."""
        market, second_ms = self.market, ts_ms - ts_ms % 1000
        if second_ms <= market.clock_ms:
            return
        expiry_ms = self._next_expiry_ms
        if market.clock_ms < expiry_ms < second_ms and trade_date(expiry_ms) == trade_date(second_ms):
            self._enter(expiry_ms)  # no timer rings after it
        if self._breadth.changed and second_ms > market.clock_ms + 1000:
            self._enter(market.clock_ms + 1000)  # groups are sampled when the second after a change begins
        before_ms = market.clock_ms
        if trade_date(second_ms) != market.date:
            self._finish_day(second_ms)
            self._episodes.end_day(market.clock_ms)
            self._flush()
            market.roll(second_ms)
        market.reach(second_ms)
        if self._graph.wants_seconds:
            self._graph.pass_time(before_ms, second_ms, halted=market.latest.halted())
        self._close_due(second_ms)
        self._graph.sample_others()
        self._sample_groups(second_ms)
        self._expire()

    def _finish_day(self, second_ms: int) -> None:
        """Close and commit what the old day has left, as far as it ends before the trade date of `second_ms`.

        Its clock has stopped: bars close late rather than never, but no timer runs on.
        """
        self._episodes.timers.clear()
        self._close_due(self.market.last_due_ms)
        for bars in self.market.bars.values():
            if self.market.ends_before(bars, second_ms):
                # A week whose Friday did not trade was not closed by the clock.
                self._close(bars, np.flatnonzero((bars.end_ms.array > 0) & (bars.closed.array == OPEN)), closed=FINAL)
                self._graph.commit(bars.period, np.flatnonzero(bars.end_ms.array > 0), values=False)

    def _close_due(self, second_ms: int) -> None:
        for due_ms, end_ms, periods in self.market.due(second_ms):
            self._ring(due_ms - 1000)  # timers of the seconds before this one
            for period in periods:
                self._close_by_clock(self.market.bars[period], end_ms)
            self._flush()
            if self._breadth.on_bars:
                self._ring(due_ms)
                self._breadth.changed = True
                self._sample_groups(due_ms)
        self._ring(second_ms)

    def _sample_groups(self, second_ms: int) -> None:
        """Sample the rules over groups as of the end of the second before this one, if anything changed since."""
        breadth = self._breadth
        if not breadth.changed:
            return
        if self._is_frozen:
            breadth.changed = False
            return
        breadth.measure()
        for slot, row in breadth.run_short(second_ms):
            moment = self._reporter.moment(slot, row, second_ms, None)
            self._reporter.note_short(slot, row, moment, values=self._reported.look(slot, row))
        rows = np.arange(len(breadth.names))
        arrival = np.zeros(len(rows), np.int64)
        for group, sample in breadth.samples(second_ms):
            self._take_sample(group, sample, rows, bars=None, arrival=arrival, phase=BEFORE_TICK)
        breadth.commit(second_ms)
        self._flush()

    def _ring(self, before_ms: int) -> None:
        """Let timers end whose deadline is before this second; none does while the feed is silent."""
        if not self._is_frozen:
            self._episodes.ring(before_ms)
            self._flush()

    def _close_by_clock(self, bars: PeriodBars, end_ms: int) -> None:
        """Close every bar that ends here and is still open; symbols that did not trade in it get a flat one."""
        held = bars.end_ms.array
        idle = np.flatnonzero((held > 0) & (held < end_ms) & ~self.market.latest.halted())
        self._close(bars, np.flatnonzero((held == end_ms) & (bars.closed.array == OPEN)), closed=CLOSED_BY_CLOCK)
        if len(idle) and not self.market.is_silent(bar_start_ms(end_ms, bars.period), end_ms):
            self._lay_flat(bars, idle, ends=end_ms)

    def _lay_flat(
        self, bars: PeriodBars, rows: IntArray, *, ends: int | IntArray, arrival: IntArray | None = None
    ) -> None:
        """Commit these symbols' closed bars and close a flat one after each."""
        self._graph.commit(bars.period, rows, values=False)
        bars.lay_flat(rows, ends, day=self.market.day)
        self.market.mark_flat(bars, rows, ends=ends)
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
        self._confirm(bars, rows, arrival=arrival, phase=phase)  # also in a silence: it was promised
        if self._is_frozen:
            return

        def overlap(ends_ms: IntArray, sessions: Sessions) -> BoolArray:
            return _bars_in_session(ends_ms, sessions, bars.period)

        sample = Sample(rows, self.market.state.n, ends, overlap)
        for mode in Mode:
            group = self._groups.get((bars.period, Evaluation.BAR_CLOSE, mode))
            if group is not None:
                self._take_sample(group, sample, rows, bars=bars, arrival=arrival, phase=phase)

    def _confirm(self, bars: PeriodBars, rows: IntArray, *, arrival: IntArray, phase: int) -> None:
        """Confirm or withdraw provisional fires of the bars that close, whatever the session."""
        waiting = self._provisional.get(bars.period, [])
        if not waiting:
            return
        place = {int(row): position for position, row in enumerate(rows)}
        self._provisional[bars.period] = [fire for fire in waiting if fire.row not in place]
        for fire in waiting:
            if fire.row in place:
                self._settle(fire, bars, Cause(int(arrival[place[fire.row]]), phase))

    def _settle(self, fire: Provisional, bars: PeriodBars, cause: Cause) -> None:
        """Confirm a provisional fire if its condition holds at its bar's close, else withdraw it."""
        slot = next((slot for slot in self._slots if slot.key == fire.key), None)
        if slot is None:
            return
        group = self._groups[layer_of(slot.rule), slot.rule.evaluation, slot.rule.mode]
        holds = group.holds(slot, np.array([fire.row]), n_symbols=self.market.state.n)[0]
        end_ms = int(bars.end_ms.array[fire.row])
        self._reporter.note(
            slot, fire.row, Event.CONFIRMED if holds else Event.WITHDRAWN,
            self._reporter.moment(slot, fire.row, end_ms, end_ms), cause=cause,
            values=self._reported.look(slot, fire.row), episode=(fire.episode, fire.date),
        )  # fmt: skip

    def _expire(self) -> None:
        """Tell once about rules whose time is over; they are not evaluated any more."""
        if self.market.clock_ms < self._next_expiry_ms:
            return
        over = [rule for rule in self.rules.rules if self._is_over(rule) and rule.id not in self._expired]
        for rule in over:
            self._expired.add(rule.id)
            self._reporter.note_expiry(rule, order=next(s.order for s in self._slots if s.rule is rule))
        self._plan_expiry()
        if over:
            self._cover()
            self._episodes.leave()
            self._flush()

    def _plan_expiry(self) -> None:
        """Note when the next rule expires."""
        living = [rule for rule in self.rules.rules if rule.id not in self._expired]
        self._next_expiry_ms = min((rule.expires_ms or NEVER_MS for rule in living), default=NEVER_MS)

    @property
    def _is_frozen(self) -> bool:
        """Whether the feed has marked a silence that lasts: no rule is sampled, but bars still close."""
        return self._reporter.silent_episode is not None

    def _is_over(self, rule: Rule) -> bool:
        return rule.expires_ms is not None and rule.expires_ms <= self.market.clock_ms

    # ── marks and control records ─────────────────────────────────────────────────────────────────────────────────

    def _take_mark(self, mark: Mark) -> None:
        """Note what the feed says of itself; a silence is an episode of the rule `feed`: nodata, then resolve."""
        if mark.kind is MarkKind.GAP:
            self.market.gaps.miss(away_since_ms=mark.ts_ms if mark.reason == RESTART else None)
            self.market.exrights.miss(mark.ts_ms)
            self._graph.break_off(mark.ts_ms)
            return
        self._enter(mark.ts_ms)
        silent = self._reporter.silent_episode is not None
        if mark.kind is MarkKind.SILENT and not silent:
            self._ring(mark.ts_ms + 1)  # what has ended within this second, before the silence begins
            self.market.silences.append((mark.ts_ms, None))
            self.market.exrights.miss(mark.ts_ms)
            self._out.append(self._reporter.feed_silent(mark))
        elif mark.kind is MarkKind.ALIVE and silent:
            self._episodes.end_silence(self.market.silences[-1][0], mark.ts_ms)
            self.market.silences[-1] = self.market.silences[-1][0], mark.ts_ms
            self.market.gaps.miss()
            self._graph.break_off(mark.ts_ms)
            self._out.append(self._reporter.feed_alive(mark))

    def _take_control(self, control: Control) -> None:
        if control.kind is ControlKind.RULES:
            self._load(rulefile.from_source(control.text))
        elif control.kind is ControlKind.INSTRUMENTS:
            self.market.know(control.text)
            self._cover()
            self._episodes.leave()
        elif control.kind is ControlKind.EXRIGHTS:
            self.market.exrights.take(control.text)
        else:
            self._hold(control.text)

    def _hold(self, source: str) -> None:
        """Take a whole new set of positions; what is new or has another ENTRY begins anew, all else goes on."""
        renewed = self.market.books.take(source, self.market.universe.row)
        self._cover()
        for group in self._groups.values():
            for slot_row, slot in enumerate(group.slots):
                symbols = renewed.get(slot.rule.select.book or "", frozenset())
                rows = rows_of(symbols, self.market.universe.row)
                if isinstance(group, StateGroup):
                    self._episodes.renew(group, slot_row, rows)
                group.bits.renew(slot_row, rows)
                self._reporter.ledger.renew(slot.key, symbols)
        self._flush()

    def _load(self, rules: RuleSet) -> None:
        """Swap the rule set; slots whose rule id and rev are unchanged keep their arming, nodes in use their state."""
        slots = compile_slots(rules, self._graph, groups=self._breadth.graph)
        of_symbols = [slot for slot in slots if slot.rule.over is None]
        for slot in slots:
            if slot.rule.period != "tick":
                self.market.period(slot.rule.period)
        groups = group_slots(of_symbols, self._graph)
        self._breadth.load([slot for slot in slots if slot.rule.over is not None], self._graph)
        for group in groups.values():
            group.bits.grow(self.market.state.n)
            for old in self._groups.values():
                group.adopt(old)
        every = (*groups.values(), *self._breadth.groups.values())
        self._episodes.adopt([group for group in every if isinstance(group, StateGroup)])
        self.rules, self._slots, self._groups = rules, slots, groups
        self._reported.forget()
        self.market.gaps.watch(layer for layer, _, _ in groups if is_tick(layer))
        self._adjuster.follow(of_symbols)
        self._reporter.absolute = self._adjuster.absolute
        self._graph.remove_unused([*(node for slot in of_symbols for node in slot.nodes), *self._breadth.nodes])
        for period in self.market.bars:
            self._graph.warm(period)
        self._reporter.ledger.forget({slot.key for slot in slots})
        # A rule given more time may expire, and say so, again.
        self._expired = {rule.id for rule in rules.rules if rule.id in self._expired and self._is_over(rule)}
        self._plan_expiry()
        timers_ms = [ms for rule in rules.rules for ms in (rule.for_ms, rule.keep_firing_ms) if ms]
        self._shortest_timer_ms = min(timers_ms, default=NEVER_MS)
        self._cover()

    def _cover(self) -> None:
        """Let the scopes of rules follow the universe and the instruments."""
        self._breadth.cover(expired=self._expired)
        for group in self._groups.values():
            group.cover(
                self.market.universe.symbols, self.market.instruments,
                held=self.market.books.held, expired=self._expired,
            )  # fmt: skip

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _value_plan(self, slot: Slot) -> Plan:
        """Return the pass that evaluates what a slot reports."""
        graph = self._graph if slot.rule.over is None else self._breadth.graph
        return graph.plan(slot.values.values())

    def _flush(self) -> None:
        self._out.extend(self._reporter.flush())

    # ── reading ───────────────────────────────────────────────────────────────────────────────────────────────────

    def quote(self, symbol: str) -> dict[str, float | int | None] | None:
        """Return every kept column of a symbol's latest tick, ts_event_ms and status; None if never seen."""
        row = self.market.universe.row(symbol)
        return None if row is None else self.market.quote(row)

    def values(self, symbol: str) -> dict[str, dict[str, float | None]]:
        """Return, per rule (or rule/leg) that watches the symbol, what it would report now."""
        row = self.market.universe.row(symbol)
        found: dict[str, dict[str, float | None]] = {}
        for group in self._groups.values():
            for slot_row, slot in enumerate(group.slots):
                if row is not None and group.covers(slot_row, row):
                    key = slot.rule.id if slot.leg.name is None else f"{slot.rule.id}/{slot.leg.name}"
                    found[key] = self._reported.look(slot, row)
        return found

    def parts(self) -> Parts:
        """Return what explains a rule; nothing of it may be changed."""
        of_symbols = [slot for slot in self._slots if slot.rule.over is None]
        return Parts(self._graph, of_symbols, tuple(self._groups.values()), self._reporter, self._episodes)

    # ── recovery ──────────────────────────────────────────────────────────────────────────────────────────────────

    def raise_episodes(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Make the episode counters at least these: (rule id, leg or "", symbol, trade date) → episode."""
        self._reporter.ledger.raise_to(counts)

    def checkpoint(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all state as (arrays by name, JSON header); copies, so the engine may go on at once."""
        over_groups, breadth = self._breadth.dump()
        arrays = self.market.state.dump() | over_groups
        for key, group in self._groups.items():
            arrays |= {f"{'/'.join(key)}/{name}": bits.copy() for name, bits in group.bits.dump().items()}
        header = {
            "version": CHECKPOINT_VERSION, "window": self.window, "offset": self.offset, "rules": self.rules.source,
            "market": self.market.header(), "ledger": self._reporter.ledger.dump(), "expired": sorted(self._expired),
            "silent_episode": self._reporter.silent_episode, "breadth": breadth, "episodes": self._episodes.dump(),
            "provisional": {period: [astuple(fire) for fire in some] for period, some in self._provisional.items()},
        }  # fmt: skip
        return arrays, header

    @classmethod
    def restore(cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any]) -> Engine:
        """Make the engine that `checkpoint` was taken of.

        Raises RuleError for another version, or arrays that do not fit the rule set of the header.
        """
        if header.get("version") != CHECKPOINT_VERSION:
            raise RuleError(f"checkpoint version {header.get('version')!r}, this program reads {CHECKPOINT_VERSION}")
        engine = cls(window=header["window"])
        engine.market.prepare(header["market"])
        engine._breadth.prepare(header["breadth"])
        engine.step(Control(ControlKind.RULES, header["rules"]))
        engine.market.state.load(arrays)
        engine.market.put_back(header["market"])
        engine._breadth.put_back(arrays, header["breadth"])
        for key, group in engine._groups.items():
            prefix = f"{'/'.join(key)}/"
            group.bits.load({name: np.array(arrays[prefix + name]) for name in group.bits.dump()})
        engine.offset = header["offset"]
        engine._reporter.ledger = Ledger.load(header["ledger"])
        episode = header["silent_episode"]
        engine._reporter.silent_episode = None if episode is None else (episode[0], episode[1])
        engine._expired = set(header["expired"])
        engine._plan_expiry()
        engine._provisional = {
            period: [Provisional((key[0], key[1], key[2]), *rest) for key, *rest in some]
            for period, some in header["provisional"].items()
        }
        engine._episodes.load(header["episodes"])
        engine._cover()
        return engine


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
