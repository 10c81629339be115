"""The shipped rules that look at days, on the simulated market, against day bars made in plain Python."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

from tests.rules import sessions_by_hand as hand
from tests.rules.catalog import pankou_by_hand as oracle
from tests.rules.catalog.pankou_by_hand import Tick, every, less, more
from tests.rules.catalog.test_pankou import Play, run, simulated, used
from tests.rules.sessions_by_hand import Sample

DAYS = 5
USED = {
    "open-above-ma5": "",
    "open-below-ma5": "",
    "gap-up": "",
    "gap-down": "params: {least: 0.5%, within: 10m}",
    "high-60d": f"params: {{days: {DAYS}}}",
    "low-60d": f"params: {{days: {DAYS}}}",
    "surge-60d": f"params: {{days: {DAYS}, rise: 8%, back: 7%}}",
    "slump-60d": f"params: {{days: {DAYS}, fall: 6%, back: 5%}}",
}


@dataclass(frozen=True)
class DayBar:
    high: float
    low: float
    close: float


@dataclass(frozen=True)
class Seen:
    """A tick, the one before it, and the bars of the days before."""

    row: Tick
    before: Tick | None
    days: tuple[DayBar, ...]

    @property
    def minutes(self) -> int:
        return hand.traded_ms(self.row.ts_ms) // hand.MINUTE


Condition = Callable[[Seen], bool | None]


@cache
def play() -> Play:
    values, frame = simulated(40, 60_000, 10)
    lines = (f"use: {rule}, {given}".rstrip(", ") for rule, given in USED.items())
    return Play(oracle.ticks(frame), [], run(used(*lines), values))


def seen(rows: list[Tick]) -> Iterator[Seen]:
    """Yield every tick of the continuous session of a symbol that trades."""
    by_day: dict[int, list[Tick]] = defaultdict(list)
    for row in rows:
        by_day[hand.midnight(row.ts_ms)].append(row)
    days: list[DayBar] = []
    before: Tick | None = None
    for today in by_day.values():
        for row in today:
            if row.status not in hand.HALTED and hand.is_continuous(row.ts_ms):
                yield Seen(row, before, tuple(days))
                before = row
        traded = [row for row in today if row.last is not None]
        if traded:
            last = traded[-1]
            assert last.high is not None
            assert last.low is not None
            assert last.last is not None
            days.append(DayBar(last.high, last.low, last.last))


def opens_over_mean(side: int) -> Condition:
    def condition(now: Seen) -> bool | None:
        early = now.minutes < 5
        if len(now.days) < 5 or now.row.open is None or now.row.prev_close is None:
            return every(early, None)
        mean = sum(day.close for day in now.days[-5:]) / 5
        return every(early, more(now.row.open * side, mean * side), not more(now.row.prev_close * side, mean * side))

    return condition


def gaps(up: bool, share: float, minutes: int) -> Condition:
    def condition(now: Seen) -> bool | None:
        early = now.minutes < minutes
        if not now.days or now.row.open is None:
            return every(early, None)
        yesterday = now.days[-1]
        beyond = (
            more(now.row.open, yesterday.high * (1 + share)) if up else less(now.row.open, yesterday.low * (1 - share))
        )
        return every(early, beyond)

    return condition


def later_than(minutes: int) -> Condition:
    return lambda now: now.minutes >= minutes


def beyond_all(up: bool) -> Condition:
    def condition(now: Seen) -> bool | None:
        enough = len(now.days) + 1 > DAYS
        if not now.days or now.row.last is None:
            return every(enough, None)
        window = now.days[-DAYS:]
        if up:
            return every(more(now.row.last, max(day.high for day in window)), enough)
        return every(less(now.row.last, min(day.low for day in window)), enough)

    return condition


def first_of_day(now: Seen) -> bool | None:
    return oracle.new_day(now.row, now.before)


def moved(share: float, beyond: Callable[[float, float], bool]) -> Condition:
    def condition(now: Seen) -> bool | None:
        if len(now.days) < DAYS or now.row.last is None:
            return None
        return beyond(now.row.last, now.days[-DAYS].close * (1 + share))

    return condition


OPENING = {"freq": "once_per_day", "on_start": "fire"}
DAILY = {"freq": "once_per_day"}
ORACLES: dict[str, tuple[Condition, Condition, dict[str, Any]]] = {
    "open-above-ma5": (opens_over_mean(1), later_than(5), OPENING),
    "open-below-ma5": (opens_over_mean(-1), later_than(5), OPENING),
    "gap-up": (gaps(up=True, share=0.0, minutes=5), later_than(5), OPENING),
    "gap-down": (gaps(up=False, share=0.005, minutes=10), later_than(10), OPENING),
    "high-60d": (beyond_all(up=True), first_of_day, DAILY),
    "low-60d": (beyond_all(up=False), first_of_day, DAILY),
    "surge-60d": (moved(0.08, oracle.least), moved(0.07, less), DAILY),
    "slump-60d": (moved(-0.06, lambda a, b: oracle.least(b, a)), moved(-0.05, more), DAILY),
}


@pytest.mark.parametrize("rule", ORACLES)
def test_a_rule_of_days_says_what_day_bars_made_by_hand_say(rule: str) -> None:
    told = play()
    condition, rearm, life = ORACLES[rule]
    fires = 0
    for symbol, rows in told.ticks.items():
        samples = (Sample(now.row.ts_ms, condition(now), rearm(now)) for now in seen(rows))
        expected = hand.live(samples, **life)
        assert told.told(rule, symbol) == [str(one) for one in expected], symbol
        fires += sum(one.event == "fire" for one in expected)
    assert fires > 0


def test_a_high_is_told_once_a_day_also_when_the_next_day_begins_beyond_it() -> None:
    told = play()
    for symbol in told.ticks:
        events = told.events["high-60d", symbol]
        assert all(event.event == "fire" for event in events)
        days = [event.trade_date for event in events]
        assert len(days) == len(set(days))
