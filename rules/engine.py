"""`Engine`: the pure heart. Ordered inputs in, events of rules out; all state is a function of the inputs so far.

The way of a batch: it is split where the market clock enters a new second and where a symbol comes twice; each segment
first lets the clock close bars that are due, then drops ticks that are no news, closes and commits the bars its ticks
leave behind, applies the ticks, and samples the tick-evaluated rules. One thread owns an engine; nothing here waits or
reads a clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from feeds.exrights import decode_exrights
from feeds.history import Bars, BarTable
from feeds.history import check as check_bars
from feeds.inputs import Control, ControlKind, Heartbeat, Input, Mark, MarkKind
from feeds.instruments import decode_table
from feeds.sessions import DAY_MS, trade_date
from feeds.tick import IntArray, TickBatch
from rules import positions, rulefile
from rules.adjuster import Adjuster
from rules.alert import Alert
from rules.breadth import Breadth
from rules.closing import Closing
from rules.episodes import Episodes
from rules.errors import RuleError
from rules.fires import Fires
from rules.graph import Graph
from rules.lifecycle import Ledger
from rules.loaded import Loaded
from rules.market import RESTART, Market
from rules.needs import Lack, Needs, Readiness, readiness_of
from rules.past import Past
from rules.plan import Plan
from rules.program import EdgeGroup, Slot, StateGroup
from rules.rehearsal import Rehearsal, together
from rules.reported import Reported
from rules.reporter import Reporter
from rules.rule import RuleSet
from rules.sampling import Sampling
from rules.segment import Segment, places
from rules.state import copied

CHECKPOINT_VERSION: Final = 5
TOLD_BY_TICKS: Final = "ticks go on behind a gap"
"""Why a silence ended whose end nobody has said."""


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
        self._graph = Graph(self.market.state, self.market, window=window)
        self._reported = Reported(self._value_plan)
        self._breadth = Breadth(self.market)
        self._reporter = Reporter(self.market, self._breadth.names)
        self._adjuster = Adjuster(self._graph, self.market)
        self._past = Past(self.market, self._graph, self._adjuster)
        self._needs = Needs()
        self._episodes = Episodes(self.market, self._reporter, self._reported.look)
        self._loaded = Loaded(
            self.market, self._graph, breadth=self._breadth, reporter=self._reporter, reported=self._reported,
            adjuster=self._adjuster, episodes=self._episodes,
        )  # fmt: skip
        self._fires = Fires(
            self.market, loaded=self._loaded, reporter=self._reporter, reported=self._reported, episodes=self._episodes
        )
        self._closing = Closing(
            self.market, self._graph, loaded=self._loaded, fires=self._fires, reporter=self._reporter
        )
        self._sampling = Sampling(
            self.market, self._graph, loaded=self._loaded, fires=self._fires, reporter=self._reporter,
            reported=self._reported, breadth=self._breadth,
        )  # fmt: skip
        self._doubts_silence = False
        """Whether a gap stands behind the mark of the silence that lasts: then ticks that go on end it."""
        self._out: list[Alert] = []
        self._watches_seconds = False
        """Whether some rule looks at the market as of each second: then none may be passed over."""
        self._checked: tuple[str, RuleSet] | None = None
        """The rule set that `check` read last, or that is expected, with its text."""

    @property
    def is_silent(self) -> bool:
        """Whether the feed has marked a silence that lasts: no rule is looked at meanwhile."""
        return self._reporter.is_silent

    @property
    def rules(self) -> RuleSet:
        """The rule set in force."""
        return self._loaded.rules

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
        elif isinstance(value, Bars):
            self._take_bars(value)
        else:
            self._take_control(value)
        if offset >= 0:
            self.offset = offset
        return self._out

    def check(self, control: Control) -> None:
        """Raise what `step` would raise of this control record, and change nothing; `step` then reads rules no more."""
        if control.kind is ControlKind.RULES:
            self.expect(self._read(control.text))
        elif control.kind is ControlKind.INSTRUMENTS:
            decode_table(control.text)
        elif control.kind is ControlKind.EXRIGHTS:
            decode_exrights(control.text)
        elif control.kind is ControlKind.POSITIONS:
            positions.decode(control.text)

    def expect(self, rules: RuleSet) -> None:
        """Take note of a rule set whose source comes next: reading 200 tasks again would hold up the ticks by 2 s."""
        self._checked = rules.source, rules

    def rehearse(self, bars: Sequence[Bars]) -> Rehearsal:
        """Take note of bars of the past, all of one period, that come next: see there how they are prepared for.

        The rehearsal before is given up. The engine's thread alone.
        """
        return self._past.rehearse(bars)

    def foresee(self, bars: Bars, following: Iterable[object]) -> None:
        """Prepare for bars, if nobody has, and for those of their period that are near among the inputs behind them."""
        if not self._past.has_rehearsed(bars):
            rehearsal = self.rehearse(together(bars, following))
            while rehearsal.go_on(1000):
                pass

    def _read(self, source: str) -> RuleSet:
        known = self._checked
        return known[1] if known is not None and known[0] == source else rulefile.from_source(source)

    # ── ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _take_ticks(self, batch: TickBatch) -> None:
        batch = self.market.admit(batch)
        if self._doubts_silence:
            batch = self._end_doubted_silence(batch)
        self._take_admitted(batch)

    def _end_doubted_silence(self, batch: TickBatch) -> TickBatch:
        """End a silence that was doubted with the first tick that goes on behind it; return what is left to take."""
        behind = np.flatnonzero(batch.ts_event_ms >= self.market.clock_ms + 1000)
        if not len(behind):
            return batch
        first = int(behind[0])
        self._take_admitted(batch.take(slice(0, first)))
        self._take_mark(Mark(MarkKind.ALIVE, int(batch.ts_event_ms[first]), TOLD_BY_TICKS))
        return batch.take(slice(first, len(batch)))

    def _take_admitted(self, batch: TickBatch) -> None:
        if not len(batch):
            return
        if not self._breadth.is_watching or self.market.universe.knows(batch.symbols):
            self._take_members(batch)
            return
        # Groups are measured when a second is entered: whoever first comes in it is no member yet.
        for part in self.market.seconds(batch):
            self._enter(part.span_ms[1])
            self._take_members(part)

    def _take_members(self, batch: TickBatch) -> None:
        """Take ticks, whose symbols belong to the universe from now on."""
        rows, grown = self.market.rows(batch.symbols)
        if grown:
            self._loaded.cover()
        quiet_until_ms = self._quiet_until_ms(batch.span_ms[0])
        if self.market.is_one_segment(rows, batch, quiet_until_ms=quiet_until_ms):
            self._take_segment(rows, batch, quiet_until_ms=quiet_until_ms)
            return
        for part in self.market.segments(rows, batch, quiet_until_ms=quiet_until_ms):
            whole = part.start == 0 and part.stop == len(rows)
            self._take_segment(
                rows if whole else rows[part], batch if whole else batch.take(part), quiet_until_ms=quiet_until_ms
            )

    def _quiet_until_ms(self, from_ms: int) -> int:
        """Return the time before which entering a second does nothing, whatever ticks from `from_ms` on bring.

        Nothing is due, no rule expires, no timer rings, not even one that such a tick may start.
        """
        market, rings_ms = self.market, self._episodes.timers.next_ms
        if not market.date or not 0 <= from_ms - market.midnight_ms < DAY_MS or self._watches_seconds:
            return 0
        quiet_ms = min(market.next_due_ms, from_ms + self._loaded.shortest_timer_ms, self._loaded.next_expiry_ms)
        return quiet_ms if rings_ms is None else min(quiet_ms, rings_ms)

    def _take_segment(self, rows: IntArray, batch: TickBatch, *, quiet_until_ms: int) -> None:
        """Take ticks of one clock second, or of several before `quiet_until_ms`, each symbol once."""
        market = self.market
        self._enter(batch.span_ms[1], quiet_until_ms=quiet_until_ms)
        whole, arrival = batch, places(len(rows))
        news = market.news(market.selection(rows), batch)
        if news is not None:
            arrival = np.flatnonzero(news)
            rows, batch = rows[arrival], batch.take(arrival)
            if not len(rows):
                return
        if market.exrights.waits(market.selection(rows), market.date):
            self._adjust(rows, batch)
        ticks = market.take_ordinary(rows, batch, whole=whole, arrival=arrival)
        if ticks is None:
            ticks = market.segment(rows, batch, arrival=arrival)
            self._take_in_steps(ticks)
        self._breadth.changed = self._breadth.is_watching
        self._sampling.by_ticks(ticks)
        self._closing.by_status(ticks)
        if market.is_late(ticks):
            self._closing.overdue(ticks)
        self._flush()

    def _take_in_steps(self, ticks: Segment) -> None:
        """Put ticks in place step by step; bars that are left behind close before."""
        market = self.market
        minutes = market.minutes(ticks)
        for bars in market.bars.values():
            self._closing.leave(bars, ticks, ends=market.ends(minutes, bars.period))
        market.mark_gaps(ticks)
        extremes = market.joining.extremes(ticks)
        market.latest.apply(ticks)
        for bars in market.bars.values():
            market.joining.enter(bars, ticks, ends=market.ends(minutes, bars.period), extremes=extremes)
        market.joining.count_day(ticks)

    def _adjust(self, rows: IntArray, batch: TickBatch) -> None:
        """Let what is known of the past follow the ex-rights day of symbols, before their ticks are applied."""
        market = self.market
        found = market.exrights.decide(rows, batch, symbols=market.universe.symbols, instruments=market.instruments)
        if found is not None:
            self._adjuster.apply(found, self._reporter.ledger)

    # ── the market clock ──────────────────────────────────────────────────────────────────────────────────────────

    def _enter(self, ts_ms: int, *, quiet_until_ms: int = 0) -> None:
        """Let the market clock reach the second of `ts_ms`: bars close in turn, days roll; it never goes back."""
        market, second_ms = self.market, ts_ms - ts_ms % 1000
        if second_ms <= market.clock_ms:
            return
        if second_ms < quiet_until_ms and not self._breadth.changed:
            market.reach(second_ms)
            return
        expiry_ms = self._loaded.next_expiry_ms
        if market.clock_ms < expiry_ms < second_ms and trade_date(expiry_ms) == trade_date(second_ms):
            self._enter(expiry_ms)  # no timer rings after it
        if self._breadth.changed and second_ms > market.clock_ms + 1000:
            self._enter(market.clock_ms + 1000)  # groups are sampled when the second after a change begins
        before_ms = market.clock_ms
        if trade_date(second_ms) != market.date:
            self._episodes.timers.clear()  # the old day's clock has stopped: none of them runs on
            self._close_due(market.last_due_ms)
            self._closing.finish_day(second_ms)
            self._episodes.end_day(market.clock_ms)
            self._flush()
            market.roll(second_ms)
        market.reach(second_ms)
        if market.latest.newest_ms and market.latest.uses("FEED_AGE"):
            self._breadth.changed = self._breadth.is_watching  # time alone changes it
        if self._graph.wants_seconds:
            self._graph.pass_time(before_ms, second_ms, halted=market.latest.halted())
        self._close_due(second_ms)
        self._graph.sample_others()
        self._sample_groups(second_ms)
        if self._loaded.expire():
            self._flush()

    def _close_due(self, second_ms: int) -> None:
        for due_ms, end_ms, periods in self.market.due(second_ms):
            self._ring(due_ms - 1000)  # timers of the seconds before this one
            for period in periods:
                self._closing.by_clock(self.market.bars[period], end_ms)
            self._flush()
            if self._breadth.on_bars:
                self._ring(due_ms)
                self._breadth.changed = True
                self._sample_groups(due_ms)
        self._ring(second_ms)

    def _sample_groups(self, second_ms: int) -> None:
        if self._sampling.of_groups(second_ms):
            self._flush()

    def _ring(self, before_ms: int) -> None:
        """Let timers end whose deadline is before this second; none does while the feed is silent."""
        if not self._reporter.is_silent:
            self._episodes.ring(before_ms)
            self._flush()

    # ── marks and control records ─────────────────────────────────────────────────────────────────────────────────

    def _take_mark(self, mark: Mark) -> None:
        """Note what the feed says of itself; a silence is an episode of the rule `feed`: nodata, then resolve.

        What is missing is missing behind all that came, though a feed's clock was put back and dates it before.
        """
        if mark.kind is not MarkKind.GAP:
            self._enter(mark.ts_ms)
        now_ms = max(mark.ts_ms, self.market.clock_ms + 1)
        if mark.kind is MarkKind.GAP:
            # Behind a hole somebody else may speak (a restarted feed, a spare bridge), or the word of the end be lost.
            self._doubts_silence = self._reporter.is_silent
            self.market.gaps.miss(away_since_ms=mark.ts_ms if mark.reason == RESTART else None)
            self.market.exrights.miss(now_ms)
            self._graph.break_off(now_ms)
            return
        self._doubts_silence = False
        silent = self._reporter.silent_episode is not None
        if mark.kind is MarkKind.SILENT and not silent:
            mark = replace(mark, ts_ms=max(mark.ts_ms, self.market.clock_ms))  # up to then there were ticks
            self._ring(mark.ts_ms + 1)  # what has ended within this second, before the silence begins
            self.market.outages.begin_silence(mark.ts_ms)
            self.market.exrights.miss(now_ms)
            self._out.append(self._reporter.feed_silent(mark))
        elif mark.kind is MarkKind.ALIVE and silent:
            since_ms, until_ms = self.market.outages.end_silence(mark.ts_ms, clock_ms=self.market.clock_ms)
            self._episodes.end_silence(since_ms, until_ms)
            self.market.gaps.miss()
            self._graph.break_off(now_ms)
            self._out.append(self._reporter.feed_alive(replace(mark, ts_ms=until_ms)))

    def _take_control(self, control: Control) -> None:
        if control.kind is ControlKind.RULES:
            rules, self._checked = self._read(control.text), None
            self._loaded.load(rules)
            self._watches_seconds = (
                self._breadth.is_watching or self._graph.wants_seconds or self.market.latest.uses("FEED_AGE")
            )
        elif control.kind is ControlKind.INSTRUMENTS:
            self.market.know(control.text)
            self._loaded.cover()
            self._episodes.leave()
        elif control.kind is ControlKind.EXRIGHTS:
            self.market.exrights.take(control.text)
        elif control.kind is ControlKind.POSITIONS:
            self._loaded.hold(control.text)
            self._flush()

    def _take_bars(self, bars: Bars) -> None:
        """Let bars of the past take the place of what is known of it; a clock of an earlier day goes on to theirs."""
        check_bars(bars)
        rows, grown = self.market.rows(bars.symbols)
        if grown:
            self._loaded.cover()
        if trade_date(bars.until_ms) > self.market.date:
            self._enter(bars.until_ms)
        self._past.take(bars, rows, self._reporter.ledger)

    # ── events ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _value_plan(self, slot: Slot) -> Plan:
        """Return the pass that evaluates what a slot reports."""
        graph = self._graph if slot.rule.over is None else self._breadth.graph
        return graph.plan(slot.values.values())

    def _flush(self) -> None:
        if self._reporter.has_noted:
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
        for group in self._loaded.groups.values():
            for slot_row, slot in enumerate(group.slots):
                if row is not None and group.covers(slot_row, row):
                    key = slot.rule.id if slot.leg.name is None else f"{slot.rule.id}/{slot.leg.name}"
                    found[key] = self._reported.look(slot, row)
        return found

    def bars(self, period: str, date: int, *, over: bool = False) -> BarTable | None:
        """Return our own closed bars of a period and trade date; None if none are made of that period.

        over: the date is over, and so is every bar of it.
        """
        return self._past.bars(period, date, over=over)

    def recent_bars(self, period: str, symbols: Sequence[str]) -> BarTable:
        """Return all bars there are of some symbols, the forming ones too; none where none are made of that period."""
        return self._past.recent(period, symbols)

    def exright_factors(self, date: int) -> Mapping[str, tuple[float, float]]:
        """Return by symbol what its prices and volumes of before a trade date were multiplied by on it."""
        return self._past.factors(date)

    def learn_needs(self) -> None:
        """Work out what the rules in force need of the past, 2 ms a rule; alone here, from any thread."""
        for rule in self.rules.rules:
            self._needs.of(rule)

    def lacks(self, symbols: Sequence[str]) -> list[Lack]:
        """Return the bars of these symbols that the rules need and that are not there."""
        return self._needs.lacking(self.rules, self.market, self._graph, symbols=symbols)

    def readiness(self) -> dict[str, Readiness]:
        """Return by rule over symbols how many of those it watches, and that have ticked, have their first value."""
        return readiness_of(tuple(self._loaded.groups.values()), self._loaded.slots, self.market, self._graph)

    @property
    def silent_since_ms(self) -> int | None:
        """Since when the feed has been silent, as marks say (Unix ms); None while it is not. Any thread."""
        silences = self.market.outages.silences
        return silences[-1][0] if self._reporter.is_silent and silences else None

    def parts(self) -> Parts:
        """Return what explains a rule; nothing of it may be changed."""
        of_symbols = [slot for slot in self._loaded.slots if slot.rule.over is None]
        return Parts(self._graph, of_symbols, tuple(self._loaded.groups.values()), self._reporter, self._episodes)

    # ── recovery ──────────────────────────────────────────────────────────────────────────────────────────────────

    def raise_episodes(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Make the episode counters at least these: (rule id, leg or "", symbol, trade date) → episode."""
        self._reporter.ledger.raise_to(counts)

    def checkpoint(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return all state as (arrays by name, JSON header); copies, so the engine may go on at once."""
        over_groups, breadth = self._breadth.dump()
        arrays = self.market.state.dump() | over_groups
        for key, group in self._loaded.groups.items():
            arrays |= {f"{'/'.join(key)}/{name}": bits for name, bits in group.bits.dump().items()}
        header = {
            "version": CHECKPOINT_VERSION, "window": self.window, "offset": self.offset, "rules": self.rules.source,
            "market": self.market.header(), "ledger": self._reporter.ledger.dump(),
            "expired": sorted(self._loaded.expired), "silent_episode": self._reporter.silent_episode,
            "doubts_silence": self._doubts_silence,
            "breadth": breadth, "episodes": self._episodes.dump(), "provisional": self._fires.dump(),
        }  # fmt: skip
        return copied(arrays), header

    @classmethod
    def restore(
        cls, arrays: Mapping[str, NDArray[Any]], header: Mapping[str, Any], *, expected: RuleSet | None = None
    ) -> Engine:
        """Make the engine that `checkpoint` was taken of; its rules are read no more if they are those expected.

        Raises RuleError for another version, or arrays that do not fit the rule set of the header.
        """
        if header.get("version") != CHECKPOINT_VERSION:
            raise RuleError(f"checkpoint version {header.get('version')!r}, this program reads {CHECKPOINT_VERSION}")
        engine = cls(window=header["window"])
        engine.market.prepare(header["market"])
        engine._breadth.prepare(header["breadth"])
        if expected is not None:
            engine.expect(expected)
        engine.market.state.awaited = set(arrays)
        engine._breadth.state.awaited = {name.removeprefix("groups/") for name in arrays if name.startswith("groups/")}
        engine.step(Control(ControlKind.RULES, header["rules"]))
        engine.market.state.load(arrays)
        engine.market.put_back(header["market"])
        engine._breadth.put_back(arrays, header["breadth"])
        for key, group in engine._loaded.groups.items():
            prefix = f"{'/'.join(key)}/"
            group.bits.load({name: np.array(arrays[prefix + name]) for name in group.bits.dump()})
        engine.offset = header["offset"]
        engine._reporter.ledger = Ledger.load(header["ledger"])
        episode = header["silent_episode"]
        engine._reporter.silent_episode = None if episode is None else (episode[0], episode[1])
        engine._doubts_silence = header.get("doubts_silence", False)  # older ones lack it
        engine._loaded.put_back(header["expired"])
        engine._fires.load(header["provisional"])
        engine._episodes.load(header["episodes"])
        engine._loaded.cover()
        return engine
