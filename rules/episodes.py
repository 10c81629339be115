"""Episodes of state-mode rules: what the moves of `StateBits` mean, with their timers, and what is told of them.

idle → pending (`for`) → FIRE → firing → (`keep_firing`) → RESOLVE. A timer ends with the last value there is, or an
illiquid stock would never fire, and its event bears the exact deadline. Nothing lives longer than a trade date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from feeds.sessions import session_clock_ms
from feeds.tick import IntArray
from rules.alert import Event
from rules.holding import Moves, StateBits, members
from rules.lifecycle import Moment, SlotKey
from rules.market import Market
from rules.program import Fire, Slot, StateGroup
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


Look = Callable[[Slot, int], Mapping[str, float | None]]
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
        symbol = self._market.universe.symbols[place.row]
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
        for deadline_ms, timer in self.timers.due(before_ms):
            place = self._place(timer.key)
            if place is None:
                continue
            missing_ms = timer.length_ms - self._elapsed_ms(place, timer.since_ms, deadline_ms)
            if missing_ms > 0:
                self._wait(place, timer, deadline_ms, missing_ms)
                continue
            moment = self._reporter.moment(place.slot, place.row, deadline_ms, None, timed=True)
            cause = Cause(deadline_ms, BEFORE_TICK)
            if timer.purpose == "for":
                self._fire(place, moment, cause)
            else:
                self._resolve(place, moment, cause)

    def _start(self, place: Place, purpose: str, since_ms: int, length_ms: int) -> None:
        timer = Timer(self._key(place), place.slot.order, purpose, since_ms, length_ms)
        self._wait(place, timer, since_ms, length_ms)

    def _wait(self, place: Place, timer: Timer, from_ms: int, length_ms: int) -> None:
        """Set the deadline; one that today's sessions don't reach is none, as nothing lives on over night."""
        deadline_ms = advance(from_ms, length_ms, place.slot.rule.session)
        if deadline_ms is not None:
            self.timers.start(timer, deadline_ms)

    def _elapsed_ms(self, place: Place, since_ms: int, until_ms: int) -> int:
        """Return what the rule's own clock has run between two times of a day."""
        sessions = place.slot.rule.session
        elapsed = session_clock_ms(until_ms, sessions) - session_clock_ms(since_ms, sessions)
        for start_ms, end_ms in self._market.outages(until_ms, place.row):
            if end_ms > since_ms:
                elapsed -= session_clock_ms(end_ms, sessions) - session_clock_ms(max(start_ms, since_ms), sessions)
        return elapsed

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

    def end_silence(self, length_ms: int) -> None:
        """End what is pending after a long silence."""
        if length_ms <= LONG_SILENCE_MS:
            return
        for group in self._groups:
            for slot_row in range(len(group.slots)):
                for row in group.bits.members("pending", slot_row):
                    self._drop(Place(group, slot_row, row))

    def adopt(self, groups: list[StateGroup]) -> None:
        """Go on with these groups; episodes of slots that are gone end silently."""
        self._groups = groups
        self._places = {slot.key: (group, i) for group in groups for i, slot in enumerate(group.slots)}
        self.timers.keep(lambda key: key[:3] in self._places)
        self._open = {key: episode for key, episode in self._open.items() if key[:3] in self._places}

    def dump(self) -> dict[str, Any]:
        """Return the open episodes and their timers as JSON values."""
        episodes = [[*key, it.number, it.date, it.late] for key, it in self._open.items()]
        return {"open": episodes, "timers": self.timers.dump()}

    def load(self, dumped: Mapping[str, Any]) -> None:
        """Take up what `dump` returned, after `adopt`."""
        self._open = {(r[0], r[1], r[2], r[3]): Episode(*r[4:]) for r in dumped["open"]}
        for timer in load(dumped["timers"]):
            place = self._place(timer.key)
            if place is not None:
                self._wait(place, timer, timer.since_ms, timer.length_ms)

    def _key(self, place: Place) -> TimerKey:
        return (*place.slot.key, self._market.universe.symbols[place.row])

    def _place(self, key: TimerKey) -> Place | None:
        row = self._market.universe.row(key[3])
        known = self._places.get(key[:3])
        return None if row is None or known is None else Place(known[0], known[1], row)
