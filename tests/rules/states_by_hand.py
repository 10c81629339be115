"""State mode by hand: one rule on one symbol as a loop over plain numbers, written from the specification alone.

Nothing of the engine is used here. Times are Unix ms, prices cents, a condition is `last >= level`. A rule's clock is
kept as the list of stretches in which it stands still, and a deadline is found by walking those in which it runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal, NamedTuple

SECOND = 1000
MINUTE = 60 * SECOND
DAY = 86_400_000
SHANGHAI = 8 * 3_600_000
HALTED = {1, 16, 17, 20}
FOREVER = 1 << 60


def clock(hours: int, minutes: int) -> int:
    return (hours * 60 + minutes) * MINUTE


CONTINUOUS = ((clock(9, 30), clock(11, 30), True), (clock(13, 0), clock(14, 57), False))
ALL_TRADING = ((clock(9, 15), clock(11, 30), True), (clock(13, 0), clock(15, 30), True))
"""Each span as (start, end, whether the end belongs to it), in ms since midnight."""


def midnight(ts_ms: int) -> int:
    return ts_ms - (ts_ms + SHANGHAI) % DAY


class Given(NamedTuple):
    """One input: a tick (last None = unknown), a heartbeat, or a feed mark."""

    kind: Literal["tick", "beat", "silent", "alive", "gap"]
    ts_ms: int
    symbol: str = ""
    last: int | None = None
    status: int = 13


class Told(NamedTuple):
    """One event, as much of it as the specification fixes."""

    ts_ms: int
    event: str
    rule: str
    symbol: str
    episode: int
    day: int
    why: str | None = None
    late: bool = False
    suppressed: int = 0
    gap: str | None = None
    n: int = 1


@dataclass(frozen=True)
class StateRule:
    """A rule of mode state; its condition is `last >= level`."""

    id: str
    level: int
    for_ms: int = 0
    keep_ms: int = 0
    freq: Literal["always", "once", "once_per_day", "once_per_session"] = "always"
    cooldown_ms: int = 0
    max_per_day: int = 1 << 30
    spans: tuple[tuple[int, int, bool], ...] = CONTINUOUS
    gap: Literal["tag", "suppress"] = "tag"

    def opens(self, ts_ms: int) -> bool:
        now = ts_ms - midnight(ts_ms)
        return any(a <= now < b or (closed and now == b) for a, b, closed in self.spans)


def part_of(ts_ms: int) -> tuple[int, int]:
    """Return what `once_per_session` counts in: the half-day or auction of a time."""
    now = ts_ms - midnight(ts_ms)
    begins = (clock(9, 30), clock(12, 0), clock(14, 57), clock(15, 0) + 1)
    return midnight(ts_ms), sum(now >= begin for begin in begins)


@dataclass
class Standstill:
    """The stretches in which a clock stands; the last one may be open."""

    stretches: list[tuple[int, int]] = field(default_factory=list)

    @property
    def stands(self) -> bool:
        return bool(self.stretches) and self.stretches[-1][1] == FOREVER

    def stop(self, ts_ms: int) -> None:
        if not self.stands:
            self.stretches.append((ts_ms, FOREVER))

    def go(self, ts_ms: int) -> None:
        if self.stands:
            self.stretches[-1] = (self.stretches[-1][0], ts_ms)


def running(rule: StateRule, day: int, stops: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the stretches of a day in which a rule's clock runs: its session less the stops."""
    merged = sorted(stops)
    for start, end, _ in rule.spans:
        cuts = [day + start]
        at = day + start
        for a, b in merged:
            a, b = max(a, at), min(b, day + end)
            if a < b and a < day + end:
                cuts += [a, b]
                at = b
        cuts.append(day + end)
        for a, b in list(pairwise(cuts))[::2]:
            if a < b:
                yield a, b


def passed(rule: StateRule, start: int, end: int, stops: list[tuple[int, int]]) -> int:
    """Return how far a rule's clock goes from `start` to `end`; every day from Monday to Friday is a trading day."""
    total, day = 0, midnight(start)
    while day <= midnight(end):
        if (day + SHANGHAI) // DAY % 7 not in (2, 3):  # 1970-01-01 was a Thursday
            total += sum(max(0, min(b, end) - max(a, start)) for a, b in running(rule, day, stops))
        day += DAY
    return total


def deadline(rule: StateRule, start: int, duration: int, stops: list[tuple[int, int]]) -> int:
    """Return the first ms of that day at which a rule's clock has gone `duration` on from `start`."""
    for a, b in running(rule, midnight(start), stops):
        a = max(a, start)
        if a <= b and b - a >= duration:
            return a + duration
        duration -= max(0, b - a)
    return FOREVER


@dataclass
class Life:
    """One rule on one symbol."""

    rule: StateRule
    symbol: str
    halt: Standstill
    silence: Standstill
    state: Literal["idle", "pending", "firing", "keeping", "muted", "ending"] = "idle"
    """`muted`: fired, but held back; `ending`: the same while its condition is false for keep_firing."""
    since: int = 0
    started: bool = False
    episode: int = 0
    late: bool = False
    sampled: int = 0
    """When the last sample was taken; 0 before the first."""
    over: set[str] = field(default_factory=set)
    """What lies between the last sample and the next, besides nights and lunches."""
    began: int = 0
    fires: list[int] = field(default_factory=list)
    held_back: int = 0

    @property
    def stops(self) -> list[tuple[int, int]]:
        return self.halt.stretches + self.silence.stretches

    @property
    def due(self) -> int:
        """The deadline of the timer that runs, FOREVER without one."""
        match self.state:
            case "pending":
                return deadline(self.rule, self.since, self.rule.for_ms, self.stops)
            case "keeping" | "ending":
                return deadline(self.rule, self.since, self.rule.keep_ms, self.stops)
        return FOREVER

    def tell(
        self, event: str, ts_ms: int, *, why: str | None = None, suppressed: int = 0, gap: str | None = None
    ) -> Told:
        day = midnight(self.began)
        return Told(ts_ms, event, self.rule.id, self.symbol, self.episode, day, why, self.late, suppressed, gap)

    def gap(self, ts_ms: int) -> str | None:
        """Return what lies between the last sample and one now."""
        if not self.sampled:
            return None
        if "halt" in self.over:
            return "halt"
        if midnight(self.sampled) != midnight(ts_ms):
            return "session"
        if self.sampled < midnight(ts_ms) + clock(12, 0) <= ts_ms:
            return "lunch"
        return "feed" if "feed" in self.over else None

    def sample(self, ts_ms: int, true: bool) -> list[Told]:
        gap, self.sampled = self.gap(ts_ms), ts_ms
        self.over.clear()
        start, self.started = not self.started, True
        match self.state, true:
            case "idle", True:
                self.episode += 1
                self.began, self.late = ts_ms, start
                if self.rule.for_ms == 0:
                    return [self.fire(ts_ms, gap)]
                self.state, self.since = "pending", ts_ms
                return [self.tell("pending", ts_ms, gap=gap)]
            case "pending", False:
                self.state = "idle"
            case "firing" | "muted", False:
                self.since = ts_ms
                self.state = "keeping" if self.state == "firing" else "ending"
                if self.rule.keep_ms == 0:
                    return self.end(ts_ms, gap=gap)
            case "keeping", True:
                self.state = "firing"
            case "ending", True:
                self.state = "muted"
        return []

    def expire(self, ts_ms: int) -> list[Told]:
        """Let the timer end."""
        return [self.fire(ts_ms)] if self.state == "pending" else self.end(ts_ms)

    def end(self, ts_ms: int, *, why: str | None = None, gap: str | None = None) -> list[Told]:
        told = [self.tell("resolve", ts_ms, why=why, gap=gap)] if self.state in ("firing", "keeping") else []
        self.state = "idle"
        return told

    def fire(self, ts_ms: int, gap: str | None = None) -> Told:
        """Fire, or hold back; a timer's end is no sample, so no gap lies before it."""
        why = "gap" if gap is not None and self.rule.gap == "suppress" else self.held(ts_ms)
        if why is not None:
            self.state, self.held_back = "muted", self.held_back + 1
            return self.tell("suppressed", ts_ms, why=why, gap=gap)
        self.state, held_back, self.held_back = "firing", self.held_back, 0
        self.fires.append(ts_ms)
        return self.tell("fire", ts_ms, suppressed=held_back, gap=gap)

    def held(self, ts_ms: int) -> str | None:
        today = [one for one in self.fires if midnight(one) == midnight(ts_ms)]
        session = [one for one in self.fires if part_of(one) == part_of(ts_ms)]
        spent = {"always": [], "once": self.fires, "once_per_day": today, "once_per_session": session}[self.rule.freq]
        if spent:
            return "freq"
        if self.fires and passed(self.rule, self.fires[-1], ts_ms, self.stops) < self.rule.cooldown_ms:
            return "cooldown"
        if len(today) >= self.rule.max_per_day:
            return "max_per_day"
        return None

    def roll(self, second_ms: int) -> list[Told]:
        told = self.end(second_ms, why="day_end")
        self.started, self.episode = False, 0
        return told


@dataclass
class ByHand:
    """Some rules over all symbols that appear, input by input."""

    rules: list[StateRule]
    lives: dict[tuple[int, str], Life] = field(default_factory=dict)
    halts: dict[str, Standstill] = field(default_factory=dict)
    silence: Standstill = field(default_factory=Standstill)
    doubted: bool = False
    """Whether inputs are missing behind the silence, its end perhaps among them: ticks that go on are one."""
    now: int = 0
    """The market clock in whole seconds."""
    latest: dict[str, int] = field(default_factory=dict)
    """Time of each symbol's last tick."""

    def take(self, given: Given) -> list[Told]:
        told: list[Told] = []
        if given.kind == "tick" and self.doubted and given.ts_ms >= self.now + SECOND:
            told += self.take(Given("alive", given.ts_ms))
        if given.kind != "gap":
            told += self._enter(given.ts_ms // SECOND * SECOND)
        if given.kind in ("gap", "silent", "alive"):
            self.doubted = given.kind == "gap" and self.silence.stands
        match given.kind:
            case "tick":
                told += self._tick(given)
            case "silent" if not self.silence.stands:
                since = max(given.ts_ms, self.now)  # up to then there were ticks, whatever the feed's clock says
                told += self._timers(since + 1)
                self.silence.stop(since)
            case "alive" if self.silence.stands:
                self._alive(given.ts_ms)
            case "gap":
                for life in self.lives.values():
                    life.over.add("feed")
        return told

    def _enter(self, second_ms: int) -> list[Told]:
        """Reach a second: a new day ends all first, then timers whose deadline lies before it end in their order."""
        told: list[Told] = []
        if self.now and midnight(second_ms) > midnight(self.now):
            for _, life in self._ordered():
                told += life.roll(self.now)
            for halt in self.halts.values():
                halt.go(midnight(second_ms) - 1)
        elif second_ms > self.now and not self.silence.stands:
            told += self._timers(second_ms)
        self.now = max(self.now, second_ms)
        return told

    def _timers(self, before_ms: int) -> list[Told]:
        due = sorted((life.due, key, life) for key, life in self._ordered() if life.due < before_ms)
        return [one for at, _, life in due for one in life.expire(at)]

    def _ordered(self) -> list[tuple[tuple[int, str], Life]]:
        return sorted(self.lives.items())

    def _tick(self, given: Given) -> list[Told]:
        if given.ts_ms < max(self.latest.get(given.symbol, 0), midnight(self.now)):
            return []  # older than the symbol's last, or of a day that is over
        self.latest[given.symbol] = given.ts_ms
        halt = self.halts.setdefault(given.symbol, Standstill())
        if given.status in HALTED:
            halt.stop(given.ts_ms)
            return []
        told: list[Told] = []
        after_halt = halt.stands
        halt.go(given.ts_ms)
        for order, rule in enumerate(self.rules):
            life = self.lives.setdefault((order, given.symbol), Life(rule, given.symbol, halt, self.silence))
            if after_halt:
                life.over.add("halt")
            known = given.last is not None and given.ts_ms - midnight(given.ts_ms) >= clock(9, 25)
            if not self.silence.stands and known and rule.opens(given.ts_ms):
                told += life.sample(given.ts_ms, given.last >= rule.level)
        return told

    def _alive(self, ts_ms: int) -> None:
        start = self.silence.stretches[-1][0]
        ts_ms = ts_ms if ts_ms >= start else max(self.now, start)
        for _, life in self._ordered():
            life.over.add("feed")
            if life.state == "pending" and passed(life.rule, start, ts_ms, []) > 60 * SECOND:
                life.state = "idle"
        self.silence.go(ts_ms)
