"""The life of edge alerts: arming as bits over (slot, symbol), and what each fire is allowed to do.

A slot is one leg of one rule. Two parts, because they differ by five orders of magnitude in how often they run:

* `EdgeBits` runs at every sample of every symbol: armed → FIRE → disarmed → (rearm) → armed, on rows of bits;
* `Ledger` runs at every fire: counts, frequency, cooldown, and the numbers an event's identity is made of.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np

from feeds.sessions import day_ms, session_clock_ms, session_length_ms
from feeds.tick import IntArray
from rules import logic
from rules.alert import Event
from rules.logic import BitRows, Circuit, byte_width
from rules.rule import Flap, Frequency, Gap, Rule

SlotKey: TypeAlias = tuple[str, str, str]
"""(rule id, rev, leg name or ""): what arming belongs to."""


class EdgeBits:
    """Arming of some slots for every symbol, one bit each.

    started  the symbol has had a valid sample of this slot
    armed    a true condition will fire
    """

    def __init__(self, keys: Sequence[SlotKey]) -> None:
        self.keys = list(keys)
        self.armed: BitRows = np.zeros((len(self.keys), 0), np.uint8)
        self.started: BitRows = np.zeros((len(self.keys), 0), np.uint8)

    def grow(self, n_symbols: int) -> None:
        """Make room for more symbols, which start unarmed and unstarted."""
        extra = byte_width(n_symbols) - self.armed.shape[1]
        if extra > 0:
            pad = np.zeros((len(self.keys), extra), np.uint8)
            self.armed = np.hstack([self.armed, pad])
            self.started = np.hstack([self.started, pad])

    def dump(self) -> dict[str, BitRows]:
        """Return the bits by name."""
        return {"armed": self.armed, "started": self.started}

    def load(self, bits: Mapping[str, BitRows]) -> None:
        """Take up what `dump` returned."""
        self.armed, self.started = bits["armed"], bits["started"]

    def renew(self, slot_row: int, rows: IntArray) -> None:
        """Let these symbols of a slot begin anew: unarmed and unstarted."""
        bits = np.uint8(128) >> (rows & 7).astype(np.uint8)
        for table in (self.armed, self.started):
            np.bitwise_and.at(table[slot_row], rows >> 3, ~bits)

    def adopt(self, old: EdgeBits) -> None:
        """Take over the arming of slots that `old` has under the same key (an unchanged rule keeps its state)."""
        rows = {key: row for row, key in enumerate(old.keys)}
        for row, key in enumerate(self.keys):
            if key in rows:
                self.armed[row] = old.armed[rows[key]]
                self.started[row] = old.started[rows[key]]

    def sample(
        self, true: BitRows, false: BitRows, *, rearm: BitRows, enabled: BitRows, fire_on_start: BitRows
    ) -> tuple[BitRows, BitRows]:
        """Take one sample of every slot; return (fires, those of them that were true at their very first sample).

        All matrices are (slots, bytes). A symbol whose condition is unknown, or that is not enabled for the slot
        (scope, session), keeps its state. On a valid sample, in this order: a disarmed slot whose `rearm` is true is
        armed; an armed one whose condition is true fires and is disarmed. The first valid sample arms where the
        condition is false; where it is true it fires only if `fire_on_start` says so.
        """
        valid = true | false
        valid &= enabled
        rearmed = rearm & valid
        late = np.zeros(valid.shape, np.uint8)
        first = valid & ~self.started
        if np.count_nonzero(first):
            late = first & true & fire_on_start
            rearmed = (rearmed & ~first) | (first & false) | late
            self.started |= first
        self.armed |= rearmed
        fires = self.armed & true
        fires &= valid
        self.armed ^= fires
        return fires, late

    def take(
        self, circuit: Circuit, *, rearm_rows: IntArray, enabled: BitRows, fire_on_start: BitRows
    ) -> list[tuple[int, int, bool]]:
        """Take one sample, as `sample`, from gates that have run; return the fires as (slot, symbol's row, late).

        The first conditions of the circuit are the slots'; rearm_rows (slots,): which row of its `both` re-arms each.
        """
        rows = circuit.rows[: len(self.keys)]
        if logic.COMPILED is not None:
            found: list[tuple[int, int, bool]] = logic.COMPILED.edges(
                circuit.both, rows[None], rearm_rows[None], enabled, fire_on_start, self.armed, self.started
            )
            return found
        true, false = circuit.t.take(rows, axis=0), circuit.f.take(rows, axis=0)
        rearm = circuit.both.take(rearm_rows, axis=0)
        return list(_set_bits(*self.sample(true, false, rearm=rearm, enabled=enabled, fire_on_start=fire_on_start)))


def _set_bits(fires: BitRows, late: BitRows) -> Iterator[tuple[int, int, bool]]:
    """Read the set bits: those of a byte are few, and so are the bytes."""
    for place in np.flatnonzero(fires != 0).tolist():  # a mask is searched ten times as fast as bytes
        slot_row, byte = divmod(place, fires.shape[1])
        bits, late_bits = int(fires[slot_row, byte]), int(late[slot_row, byte])
        for bit in range(8):
            if bits & (128 >> bit):
                yield slot_row, 8 * byte + bit, bool(late_bits & (128 >> bit))


@dataclass(slots=True)
class Record:
    """What is remembered of one (rule, rev, leg, symbol): enough to judge its next fire.

    day counts the trade dates the engine has seen.
    """

    sent_ever: int = 0
    sent_day: int = -1
    sent_that_day: int = 0
    sent_ms: int = 0
    sent_bar_ms: int | None = None
    sent_part: str = ""
    sent_price: float | None = None
    held_back: int = 0
    tries: tuple[tuple[int, int], ...] = ()
    """(day, Unix ms) of the latest fires, sent or not, as many as a `flap` needs."""
    flapping: bool = False


@dataclass(slots=True)  # not frozen: made in a third of the time; and read in a third of a NamedTuple's
class Moment:
    """When a fire happens: Unix ms, trade date, ordinal of the trade date, end of the bar it belongs to.

    outages: (since, until) in Unix ms of what the rule's clock leaves out, in order, each within a day, none of them
    overlapping.
    """

    ts_ms: int
    date: str
    day: int
    bar_end_ms: int | None
    outages: tuple[tuple[int, int], ...] = ()
    last: float | None = None
    """LAST, for `freq: {step: …}`."""
    prev_close: float | None = None
    """The previous close: a step goes on away from it."""
    gap: str | None = None
    """What lies between this sample and the previous one: session, lunch, halt, feed."""
    away_ms: int | None = None
    """Trading time since the previous sample where our own outage lies in between."""

    @property
    def part(self) -> str:
        """The half-day or auction this moment is in."""
        return _part_of(self.ts_ms)

    def since_ms(self, ts_ms: int, day: int, *, rule: Rule) -> int:
        """Return how far the rule's own clock has come since a time of that day: its sessions' time, less outages."""
        passed_ms = (self.day - day) * session_length_ms(rule.session)
        passed_ms += session_clock_ms(self.ts_ms, rule.session) - session_clock_ms(ts_ms, rule.session)
        for since, until in self.outages:
            if until > ts_ms:
                start = max(since, ts_ms)
                passed_ms -= session_clock_ms(until, rule.session) - session_clock_ms(start, rule.session)
        return passed_ms


class Verdict(NamedTuple):
    """What becomes of a fire.

    event  fire, suppressed (`why` tells), or flapping: the fire that made it too many
    """

    episode: int
    event: Event
    why: str | None = None
    held_back: int = 0


@dataclass(slots=True)
class Ledger:
    """Fires so far, by slot and symbol; plain dicts, because fires are rare and keys come and go with rule files."""

    records: dict[tuple[str, str, str, str], Record] = field(default_factory=dict)
    episodes: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    """(rule id, leg, symbol) → (trade date, last episode); never goes back in a day, whatever the rule file does."""
    floors: dict[tuple[str, str, str, str], int] = field(default_factory=dict)
    """(rule id, leg, symbol, trade date) → episodes told before this engine began from nothing."""

    def adjust(self, symbol: str, factor: float) -> None:
        """Multiply the prices at which this symbol was told: they are of before an ex-rights day."""
        for (_, _, _, of), record in self.records.items():
            if of == symbol and record.sent_price is not None:
                record.sent_price *= factor

    def judge(self, rule: Rule, symbol: str, *, leg: str | None, moment: Moment, episode: int | None = None) -> Verdict:
        """Count a fire and decide whether it goes out; the first reason that holds it back is the one given.

        episode: the number of an episode that began before (pending); None: this fire begins one.
        """
        rule_id, leg_key = rule.id, leg or ""
        slot = (rule_id, rule.rev, leg_key, symbol)
        record = self.records.get(slot)
        if record is None:
            record = self.records[slot] = Record()
        if episode is None:
            episode = self._next_episode((rule_id, leg_key, symbol), moment.date)
        why = _why_not(rule, record, moment)
        if why is not None:
            begins = why == BEGINS_FLAPPING
            record.held_back += 1
            return Verdict(episode, Event.FLAPPING if begins else Event.SUPPRESSED, "flapping" if begins else why)
        held_back = record.held_back
        if record.sent_day != moment.day:
            record.sent_that_day = 0
        record.sent_ever += 1
        record.sent_that_day += 1
        record.sent_day = moment.day
        record.sent_ms = moment.ts_ms
        record.sent_bar_ms = moment.bar_end_ms
        record.sent_part = _part_of(moment.ts_ms)
        record.sent_price = moment.last
        record.held_back = 0
        return _sent(episode, held_back)

    def outlook(self, rule: Rule, symbol: str, *, leg: str | None, moment: Moment) -> str | None:
        """Return why a fire at this moment would be held back, None if it would go out; nothing is counted."""
        record = deepcopy(self.record(rule, symbol, leg=leg))
        why = _why_not(rule, record, moment)
        return "flapping" if why == BEGINS_FLAPPING else why

    def record(self, rule: Rule, symbol: str, *, leg: str | None) -> Record:
        """Return what is remembered of a slot's fires for a symbol; not to be changed."""
        return self.records.get((rule.id, rule.rev, leg or "", symbol)) or Record()

    def next_episode(self, rule_id: str, *, leg: str | None, symbol: str, date: str) -> int:
        """Count an episode that is no fire of an edge (a feed's silence)."""
        return self._next_episode((rule_id, leg or "", symbol), date)

    def raise_to(self, counts: Mapping[tuple[str, str, str, str], int]) -> None:
        """Number no episode of (rule id, leg, symbol, trade date) at or below `counts`: the store has those already."""
        for key, count in counts.items():
            self.floors[key] = max(count, self.floors.get(key, 0))

    def renew(self, slot: SlotKey, symbols: Iterable[str]) -> None:
        """Forget the fires of a slot for these symbols (episode counters stay)."""
        for symbol in symbols:
            self.records.pop((*slot, symbol), None)

    def forget(self, keep: set[SlotKey]) -> None:
        """Drop the records of slots that no rule has any more (episode counters stay)."""
        self.records = {key: record for key, record in self.records.items() if key[:3] in keep}

    def dump(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        return {
            "records": [[*key, *(getattr(it, name) for name in _RECORD_FIELDS)] for key, it in self.records.items()],
            "episodes": [[*key, *value] for key, value in self.episodes.items()],
            "floors": [[*key, count] for key, count in self.floors.items()],
        }

    @classmethod
    def load(cls, dumped: Mapping[str, Any]) -> Ledger:
        """Build from what `dump` returned."""
        return cls(
            {tuple(row[:4]): _record(row[4:]) for row in dumped["records"]},
            {tuple(row[:3]): (row[3], row[4]) for row in dumped["episodes"]},
            {tuple(row[:4]): row[4] for row in dumped["floors"]},
        )

    def _next_episode(self, key: tuple[str, str, str], date: str) -> int:
        held = self.episodes.get(key)
        last = held[1] if held is not None and held[0] == date else 0
        if self.floors:
            last = max(last, self.floors.get((*key, date), 0))
        self.episodes[key] = date, last + 1
        return last + 1


BEGINS_FLAPPING: Final = "begins flapping"
LATE_MS: Final = 60_000
"""A rise across our own outage is still told, as late, if no more trading time than this has passed."""
_PARTS: Final = (
    ("open_auction", (9 * 60 + 30) * 60_000),
    ("morning", 12 * 3_600_000),
    ("afternoon", (14 * 60 + 57) * 60_000),
    ("close_auction", 15 * 3_600_000 + 1),
)
_ALWAYS: Final = Frequency.ALWAYS  # to look a member up is a call in Python 3.11, 0.1 µs at each fire
_RECORD_FIELDS: Final = tuple(Record.__dataclass_fields__)


@lru_cache(maxsize=256)  # most are the first of their day, with nothing held back before
def _sent(episode: int, held_back: int) -> Verdict:
    """Return the verdict on a fire that goes out."""
    return Verdict(episode, Event.FIRE, None, held_back)


@lru_cache(maxsize=64)  # events of one moment come together
def _part_of(ts_ms: int) -> str:
    """Return the half-day or auction this time is in."""
    clock = day_ms(ts_ms)
    return next((name for name, until_ms in _PARTS if clock < until_ms), "after_hours")


def _record(values: Sequence[Any]) -> Record:
    record = Record(*values)
    record.tries = tuple((day, ts_ms) for day, ts_ms in record.tries)
    return record


def _why_not(rule: Rule, record: Record, moment: Moment) -> str | None:
    """Return gap, flapping (BEGINS_FLAPPING the first time), freq, cooldown, max_per_day, or None: it may go out."""
    if (moment.gap is not None and rule.gap is Gap.SUPPRESS) or (moment.away_ms or 0) > LATE_MS:
        return "gap"
    flapping = None if rule.flap is None else _flapping(rule, rule.flap, record, moment)
    if flapping is not None:
        return flapping
    today = record.sent_that_day if record.sent_day == moment.day else 0
    if rule.frequency is not _ALWAYS and _frequency_spent(rule.frequency, record, today=today, moment=moment):
        return "freq"
    if rule.step is not None and record.sent_price is not None and not _steps_on(rule.step, record.sent_price, moment):
        return "freq"
    if rule.cooldown_ms is not None and record.sent_ever:
        since_ms = moment.since_ms(record.sent_ms, record.sent_day, rule=rule)
        if since_ms < rule.cooldown_ms:
            return "cooldown"
    if rule.max_per_day is not None and today >= rule.max_per_day:
        return "max_per_day"
    return None


def _flapping(rule: Rule, flap: Flap, record: Record, moment: Moment) -> str | None:
    """Note this try, and tell whether the fire is one of too many."""
    ages = [moment.since_ms(ts_ms, day, rule=rule) for day, ts_ms in record.tries]
    record.tries = (*record.tries, (moment.day, moment.ts_ms))[-flap.over :]
    if record.flapping:
        record.flapping = ages[-1] < flap.within_ms
        return "flapping" if record.flapping else None
    record.flapping = len(ages) >= flap.over and ages[-flap.over] <= flap.within_ms
    return BEGINS_FLAPPING if record.flapping else None


def _frequency_spent(frequency: Frequency, record: Record, *, today: int, moment: Moment) -> bool:
    if frequency is Frequency.ONCE:
        return record.sent_ever > 0
    if frequency is Frequency.ONCE_PER_DAY:
        return today > 0
    if frequency is Frequency.ONCE_PER_SESSION:
        return today > 0 and record.sent_part == moment.part
    if frequency is Frequency.ONCE_PER_BAR:
        return record.sent_ever > 0 and record.sent_bar_ms == moment.bar_end_ms
    return False


def _steps_on(step: float, price: float, moment: Moment) -> bool:
    """Tell whether LAST is a step further from the last fire's price, away from the previous close."""
    if moment.last is None:
        return False
    move = moment.last / price - 1.0
    falls = moment.prev_close is not None and moment.last < moment.prev_close
    return (-move if falls else move) >= step * (1.0 - 1e-9)
