"""Episodes of state-mode rules: what the moves of `StateBits` mean, with their timers, and what is told of them.

idle → pending (`for`) → FIRE → firing → (`keep_firing`) → RESOLVE. A timer ends with the last value there is, or an
illiquid stock would never fire, and its event bears the exact deadline. Nothing lives longer than a trade date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from feeds.sessions import session_clock_ms
from feeds.tick import IntArray
from rules.alert import Event
from rules.holding import Moves, StateBits, members
from rules.lifecycle import Moment, SlotKey
from rules.market import Market
from rules.program import Fire, Slot, StateGroup, Values
from rules.reporter import BEFORE_TICK, Cause, Reporter
from rules.timers import Timer, TimerKey, Timers, advance, load

LONG_SILENCE_MS: Final = 60_000
"""A silence longer than this ends what is pending: nobody knows whether the condition held."""


@dataclass(frozen=True, slots=True)
class Episode:
    """An open episode: its number and the trade date it began on, which its events' ids are made of."""

    number: int
    date: str
    late: bool


@dataclass(frozen=True, slots=True)
class Place:
    """One symbol of one slot of a group."""

    group: StateGroup
    slot_row: int
    row: int

    @property
    def slot(self) -> Slot:
        return self.group.slots[self.slot_row]

    @property
    def bits(self) -> StateBits:
        return self.group.bits


Look = Callable[[Slot, int], Values]
"""(slot, row) → what an event of it reports now."""


class Episodes:
    """All open episodes of state-mode rules. The engine owns it and calls it in the order of causes."""

    def __init__(self, market: Market, reporter: Reporter, look: Look) -> None:
        self._market = market
        self._reporter = reporter
        self._look = look
        self.timers = Timers()
        self._open: dict[TimerKey, Episode] = {}
        self._groups: list[StateGroup] = []
        self._places: dict[SlotKey, tuple[StateGroup, int]] = {}

    # ── samples ───────────────────────────────────────────────────────────────────────────────────────────────────

    def move(self, group: StateGroup, moves: Moves, moment_of: Callable[[Slot, int], tuple[Moment, Cause]]) -> None:
        """Take one sample's moves; `moment_of(slot, row)` tells when and why a symbol was sampled."""
        if not moves.any():
            return
        for slot_row, row in members(moves.lapse):
            self._drop(Place(group, slot_row, row))
        for slot_row, row in members(moves.back):
            self.timers.stop(self._key(Place(group, slot_row, row)))
        late = set(members(moves.late))
        for slot_row, row in members(moves.begin):
            moment, cause = moment_of(group.slots[slot_row], row)
            self._begin(Place(group, slot_row, row), moment, cause, late=(slot_row, row) in late)
        for slot_row, row in members(moves.fall):
            place = Place(group, slot_row, row)
            moment, cause = moment_of(place.slot, row)
            if place.slot.rule.keep_firing_ms:
                self._start(place, "keep", moment.ts_ms, place.slot.rule.keep_firing_ms)
            else:
                self._resolve(place, moment, cause)

    def _begin(self, place: Place, moment: Moment, cause: Cause, *, late: bool) -> None:
        rule, leg = place.slot.rule, place.slot.leg.name
        if not rule.for_ms:
            self._fire(place, moment, cause, late=late)
            return
        symbol = self._reporter.key(place.slot, place.row)
        number = self._reporter.ledger.next_episode(rule.id, leg=leg, symbol=symbol, date=moment.date)
        episode = self._open[self._key(place)] = Episode(number, moment.date, late)
        place.bits.settle(place.slot_row, place.row, "pending")
        self._start(place, "for", moment.ts_ms, rule.for_ms)
        self._tell(place, Event.PENDING, episode, moment, cause)

    def _fire(self, place: Place, moment: Moment, cause: Cause, *, late: bool = False) -> None:
        known = self._open.get(self._key(place))
        fire = Fire(place.slot, place.row, late or (known is not None and known.late))
        values = self._look(place.slot, place.row)
        verdict = self._reporter.note_fire(
            place.slot, fire, moment, cause=cause, values=values, episode=None if known is None else known.number
        )
        date = moment.date if known is None else known.date
        self._open[self._key(place)] = Episode(verdict.episode, date, fire.late)
        place.bits.settle(place.slot_row, place.row, "firing" if verdict.event is Event.FIRE else "muted")

    def _resolve(self, place: Place, moment: Moment, cause: Cause, *, why: str | None = None) -> None:
        """End an episode; only one that fired has something to resolve."""
        phase = place.bits.phase(place.slot_row, place.row)
        episode = self._open.get(self._key(place))
        if phase == "firing" and episode is not None:
            self._tell(place, Event.RESOLVE, episode, moment, cause, why=why)
        self._drop(place)

    def _tell(
        self, place: Place, event: Event, episode: Episode, moment: Moment, cause: Cause, *, why: str | None = None
    ) -> None:
        values = self._look(place.slot, place.row)
        self._reporter.note(
            place.slot, place.row, event, moment, cause=cause, values=values,
            episode=(episode.number, episode.date), late=episode.late, why=why,
        )  # fmt: skip

    def _drop(self, place: Place) -> None:
        key = self._key(place)
        self.timers.stop(key)
        self._open.pop(key, None)
        place.bits.clear(place.slot_row, place.row)

    # ── timers ────────────────────────────────────────────────────────────────────────────────────────────────────

    def ring(self, before_ms: int) -> None:
        """Let every timer whose deadline is before this time end, in order; one that was held up goes on waiting."""
        for timer in self.timers.due(before_ms):
            place = self._place(timer.key)
            deadline_ms = None if place is None else self._deadline_ms(place, timer, before_ms)
            if place is None or deadline_ms is None:
                continue
            if deadline_ms >= before_ms:
                self.timers.start(timer, deadline_ms)
                continue
            moment = self._reporter.moment(place.slot, place.row, deadline_ms, None, timed=True)
            cause = Cause(deadline_ms, BEFORE_TICK)
            if timer.purpose == "for":
                self._fire(place, moment, cause)
            else:
                self._resolve(place, moment, cause)

    def _start(self, place: Place, purpose: str, since_ms: int, length_ms: int) -> None:
        self._wait(place, Timer(self._key(place), place.slot.order, purpose, since_ms, length_ms))

    def _wait(self, place: Place, timer: Timer) -> None:
        """Wait for the deadline as if nothing more stood still; what has, shows when it is reached."""
        deadline_ms = advance(timer.since_ms, timer.length_ms, place.slot.rule.session)
        if deadline_ms is not None:
            self.timers.start(timer, deadline_ms)

    def _deadline_ms(self, place: Place, timer: Timer, before_ms: int) -> int | None:
        """Return a timer's deadline by all that is known before `before_ms`, which is one in the past if it is exact.

        While something still stands still it is `before_ms`: look again then, as a halt may end with a tick that is a
        little behind the clock. None: today's sessions don't reach it, and nothing lives on over night.
        """
        sessions, from_ms, left_ms = place.slot.rule.session, timer.since_ms, timer.length_ms
        for start_ms, end_ms in self._market.outages.before(before_ms, None if place.slot.rule.over else place.row):
            run_ms = session_clock_ms(start_ms, sessions) - session_clock_ms(from_ms, sessions)
            if end_ms <= from_ms or run_ms >= left_ms:
                continue
            from_ms, left_ms = max(from_ms, end_ms), left_ms - max(run_ms, 0)
            if end_ms == before_ms:
                return before_ms
        return advance(from_ms, left_ms, sessions)

    # ── days, silences, rule sets ─────────────────────────────────────────────────────────────────────────────────

    def end_day(self, clock_ms: int) -> None:
        """End all: pending silently, firing with a resolve at the old day's last clock second."""
        for group in self._groups:
            for slot_row in range(len(group.slots)):
                for row in group.bits.members("firing", slot_row):
                    place = Place(group, slot_row, row)
                    moment = self._reporter.moment(place.slot, row, clock_ms, None, timed=True)
                    self._resolve(place, moment, Cause(), why="day_end")
            group.bits.restart()
        self.timers.clear()
        self._open.clear()

    def renew(self, group: StateGroup, slot_row: int, rows: IntArray) -> None:
        """End these symbols' episodes of a slot: what they were about is no more; a firing one resolves."""
        clock_ms = self._market.clock_ms
        for row in rows.tolist():
            place = Place(group, slot_row, row)
            if self._key(place) in self._open:
                moment = self._reporter.moment(place.slot, row, clock_ms, None, timed=True)
                self._resolve(place, moment, Cause(), why="position")

    def end_silence(self, since_ms: int, until_ms: int) -> None:
        """End what is pending after a silence that was long by the rule's own clock; yesterday's ended with the day."""
        for group in self._groups:
            for slot_row, slot in enumerate(group.slots):
                sessions = slot.rule.session
                if session_clock_ms(until_ms, sessions) - session_clock_ms(since_ms, sessions) <= LONG_SILENCE_MS:
                    continue
                for row in group.bits.members("pending", slot_row):
                    self._drop(Place(group, slot_row, row))

    def leave(self) -> None:
        """End silently the episodes of symbols that their slot watches no more."""
        for key in list(self._open):
            place = self._place(key)
            if place is not None and not place.group.covers(place.slot_row, place.row):
                self._drop(place)

    def adopt(self, groups: list[StateGroup]) -> None:
        """Go on with these groups; episodes of slots that are gone end silently."""
        self._groups = groups
        self._places = {slot.key: (group, i) for group in groups for i, slot in enumerate(group.slots)}
        self._open = {key: episode for key, episode in self._open.items() if key[:3] in self._places}
        self._go_on(self.timers.running)

    def dump(self) -> dict[str, Any]:
        """Return the open episodes and their timers as JSON values."""
        episodes = [[*key, it.number, it.date, it.late] for key, it in self._open.items()]
        return {"open": episodes, "timers": self.timers.dump()}

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Take up what `dump` returned, after `adopt`."""
        self._open = {(r[0], r[1], r[2], r[3]): Episode(*r[4:]) for r in dumped["open"]}
        self._go_on(load(dumped["timers"]))

    def _go_on(self, timers: Sequence[Timer]) -> None:
        """Let these timers run and no others, by the order that their rules have now; those of no rule are dropped."""
        self.timers.clear()
        for timer in timers:
            place = self._place(timer.key)
            if place is not None:
                self._wait(place, replace(timer, order=place.slot.order))

    def _key(self, place: Place) -> TimerKey:
        return (*place.slot.key, self._reporter.key(place.slot, place.row))

    def _place(self, key: TimerKey) -> Place | None:
        known = self._places.get(key[:3])
        row = None if known is None else self._reporter.row(known[0].slots[known[1]], key[3])
        return None if row is None or known is None else Place(known[0], known[1], row)
