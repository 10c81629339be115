"""The shipped rules on speed, big ticks and auctions against plain loops."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

from rules.alert import Alert
from tests.rules import sessions_by_hand as hand
from tests.rules.catalog import pankou_by_hand as oracle
from tests.rules.catalog.pankou_by_hand import Tick, every, least, more
from tests.rules.catalog.test_pankou import PLAYED, part_frame, part_inputs, part_ticks, run, simulated, used
from tests.rules.sessions_by_hand import MINUTE, Sample
from tests.rules.whole_market import WHOLE

BIG_TICKS: dict[str, tuple[str, int, float, int]] = {
    "big-buy": ("", 1, 1e6, 300),
    "big-sell": ("", -1, 1e6, 300),
    "bigger-buy": ("use: big-buy, params: {cny: 4e6, quiet: 20}", 1, 4e6, 20),
    "any-sell": ("use: big-sell, params: {cny: 1e4, quiet: 5}", -1, 1e4, 5),
}
"""Rule → how it is used, side, least amount, ticks of quiet."""
AUCTIONS = {"auction-up": 1, "auction-down": -1}
Told = dict[tuple[str, str], list[Alert]]


@cache
def play(folder: Path, name: str) -> tuple[Told, dict[str, list[Tick]], list[tuple[int, int]]]:
    lines = [f"id: {rule}, {line or f'use: {rule}'}" for rule, (line, *_) in BIG_TICKS.items()]
    source = used(*lines, *(f"use: {rule}, params: {{opens: 1%}}" for rule in AUCTIONS))
    part = PLAYED[name]
    if part is None:
        values, frame = simulated(60 if WHOLE else 30, 15_000, 2)
        return run(source, values), oracle.ticks(frame), []
    ticks, clock = part_ticks(folder, part)
    return run(source, part_inputs(folder, part)), ticks, hand.silences_of(clock)


def told_of(events: list[Alert]) -> list[str]:
    return [str(hand.Happened(str(e.event), e.ts_event_ms, e.episode, e.why)) for e in events]


def big_ticks(rows: list[Tick], side: int, cny: float, quiet: int) -> Iterator[Sample]:
    """Sample FILTER(BIGTICK(cny) on one side, quiet) at every tick of the continuous session."""
    amounts: deque[float] = deque(maxlen=5)
    before: Tick | None = None
    ask: float | None = None
    bid: float | None = None
    silent = 0
    for row in rows:
        if row.status in hand.HALTED or not hand.is_continuous(row.ts_ms):
            continue
        fresh = before is None or row.amount_cny < before.amount_cny
        amount = row.amount_cny if fresh or before is None else row.amount_cny - before.amount_cny
        big: int | None = None
        if len(amounts) == 5 and row.last is not None:
            is_big = least(amount, max(cny, 2 * sum(amounts) / 5))
            bought = ask is not None and least(row.last, ask)
            sold = bid is not None and least(bid, row.last)
            big = (1 if bought else -1 if sold else 0) if is_big else 0
        true = None if big is None else big == side and silent == 0
        silent = quiet if true else max(0, silent - 1)
        yield Sample(row.ts_ms, true, None if big is None else big != side)
        amounts.append(amount)
        before, ask, bid = row, row.asks[0][0] or ask, row.bids[0][0] or bid


@pytest.mark.parametrize("name", ["ten-0116", "sh30", "simulated"])
@pytest.mark.parametrize("rule", BIG_TICKS)
def test_big_ticks_are_those_of_the_loop(market_data: Path, name: str, rule: str) -> None:
    told, ticks, silences = play(market_data, name)
    _, side, cny, quiet = BIG_TICKS[rule]
    fires = 0
    for symbol, rows in ticks.items():
        expected = hand.live(big_ticks(rows, side, cny, quiet), silences=silences)
        assert told_of(told[rule, symbol]) == [str(one) for one in expected], symbol
        fires += len(expected)
    assert fires > 0 or rule == "bigger-buy"


def opens(side: int, share: float) -> oracle.Predicate:
    def predicate(row: Tick, before: Tick | None) -> bool | None:
        far = None
        if row.open is not None and row.prev_close is not None:
            far = least(row.open * side, row.prev_close * (1 + side * share) * side)
        return every(row.clock >= 92_500, far)

    return predicate


def is_open_auction(ts_ms: int) -> bool:
    return hand.OPEN - 15 * MINUTE <= hand.day_ms(ts_ms) < hand.OPEN


@pytest.mark.parametrize("rule", AUCTIONS)
def test_auctions_that_open_far_from_the_close_are_told_once_on_each_of_two_days(market_data: Path, rule: str) -> None:
    told, ticks, _ = play(market_data, "simulated")
    life: dict[str, Any] = {"freq": "once_per_day", "on_start": "fire"}
    days = set()
    for symbol, rows in ticks.items():
        samples = oracle.samples(rows, opens(AUCTIONS[rule], 0.01), oracle.new_day, session=is_open_auction)
        events = [event for event in told[rule, symbol] if event.leg == "opens"]
        assert told_of(events) == [str(one) for one in hand.live(samples, **life)], symbol
        days |= {event.trade_date for event in events}
    assert len(days) == 2


# ── speed ─────────────────────────────────────────────────────────────────────────────────────────────────────────

SPEEDS = ("rocket", "plunge", "rebound", "dive", "late-rise", "late-fall")
SHIPPED: dict[str, float] = {"by": 3.0, "seconds": 300, "back": 1.0, "near": 0.01, "since": 143_000}
LATE: dict[str, float] = {**SHIPPED, "by": 2.0, "back": 0.5}
NERVOUS: dict[str, float] = {"by": 0.6, "seconds": 60, "back": 0.2, "near": 0.02, "since": 100_000}
"""Settings of the rules: % of a rise or fall, seconds, % at which they arm again, share, HHMMSS."""
SPEED_PLAYS = ("ten-0116", "ten-0305", "sh30", "simulated")
"""Without silences, over which nothing is carried."""


@dataclass(frozen=True)
class Speed:
    """A tick of the continuous session with the one before it, and its price `seconds` ago where that is known."""

    row: Tick
    before: Tick | None
    then: float | None

    @property
    def rise(self) -> float | None:
        if self.then is None or self.row.last is None:
            return None
        return (self.row.last / self.then - 1) * 100


def _stretch(ts_ms: int) -> int | None:
    """Return the start of the morning or afternoon that a time is in."""
    clock = hand.day_ms(ts_ms)
    for start, end in ((hand.OPEN, hand.NOON[0]), (hand.NOON[1], hand.CLOSE)):
        if start <= clock <= end:
            return hand.midnight(ts_ms) + start
    return None


Slot = tuple[int | None, int, int]
"""The start of a stretch, and how many slots of three seconds have begun since, and how many have gone by whole."""


def slots(clocks: list[int]) -> list[Slot]:
    """Return the slot of the clock at each row."""
    found: dict[int, Slot] = {}
    for clock in dict.fromkeys(clocks):
        stretch = _stretch(clock)
        passed = 0 if stretch is None else clock - stretch
        found[clock] = stretch, passed // 3000, -(-passed // 3000)
    return [found[clock] for clock in clocks]


def speeds(rows: list[tuple[str, Tick]], slots: list[Slot], symbol: str, seconds: int) -> Iterator[Speed]:
    """Walk all rows in order of arrival, keeping the symbol's last price in each slot of three seconds."""
    start: int | None = None
    first_slot = 0
    last: float | None = None
    prices: dict[int, float | None] = {}
    slot = 0
    before: Tick | None = None
    for (name, row), (stretch, now, whole) in zip(rows, slots, strict=True):
        if stretch != start:
            start, slot, prices = stretch, now, {}
            first_slot = whole  # one that was seen whole
        for passed in range(slot, now):
            prices[passed] = last
        slot = now
        if name != symbol:
            continue
        last = row.last
        if row.status in hand.HALTED or not hand.is_continuous(row.ts_ms):
            continue
        wanted = slot - seconds // 3
        yield Speed(row, before, prices.get(wanted) if wanted >= first_slot else None)
        before = row


def condition(rule: str, at: Mapping[str, float]) -> Callable[[Speed], bool | None]:
    """Return what the rule asks, falls mirrored."""
    side = -1 if rule in ("plunge", "dive", "late-fall") else 1

    def extreme(now: Speed, way: int) -> float | None:
        """Return the high of the day before this tick, the low for -1."""
        return None if now.before is None else now.before.high if way > 0 else now.before.low

    def predicate(now: Speed) -> bool | None:
        fast = None if now.rise is None else least(now.rise * side, at["by"])
        ahead, behind = extreme(now, side), extreme(now, -side)
        if rule.startswith("late"):
            return every(fast, now.row.clock >= at["since"])
        if now.row.last is None or ahead is None or behind is None:
            return every(fast, None)
        beyond = more(now.row.last * side, ahead * side)
        if rule in ("rocket", "plunge"):
            return every(fast, beyond)
        near = None if now.then is None else least(behind * (1 + side * at["near"]) * side, now.then * side)
        return every(fast, not beyond, near)

    return predicate


@cache
def speed_play(folder: Path, name: str) -> tuple[Told, list[tuple[str, Tick]], list[Slot]]:
    lines = [f"use: {rule}" for rule in SPEEDS]
    for rule in SPEEDS:
        moved = "fall" if rule in ("plunge", "dive", "late-fall") else "rise"
        more_params = ", near: 2%" if rule in ("rebound", "dive") else ", since: 100000" if "late" in rule else ""
        params = f"{{{moved}: 0.6%, window: 1m, back: 0.2%{more_params}}}"
        lines.append(f"id: {rule}-nervous, use: {rule}, params: {params}")
    part = PLAYED[name]
    if part is None:
        values, frame = simulated(30, 3_000, 1, moments=1_300)
        told, ticks = run(used(*lines), values), oracle.ticks(frame)
    else:
        told = run(used(*lines), part_inputs(folder, part))
        frame, (ticks, _) = part_frame(folder, part), part_ticks(folder, part)
    places = {symbol: iter(rows) for symbol, rows in ticks.items()}
    rows = [(symbol, next(places[symbol])) for symbol in oracle.arrivals(frame)]
    clocks = list(accumulate((row.ts_ms // 1000 * 1000 for _, row in rows), max))
    return told, rows, slots(clocks)


@pytest.mark.parametrize("name", SPEED_PLAYS)
@pytest.mark.parametrize("nervous", [False, True])
def test_speeds_are_those_of_prices_in_slots_of_three_seconds(market_data: Path, name: str, nervous: bool) -> None:
    told, rows, slots = speed_play(market_data, name)
    fires = 0
    for symbol in sorted({symbol for symbol, _ in rows})[:12]:
        seen = {seconds: list(speeds(rows, slots, symbol, seconds)) for seconds in ((60,) if nervous else (300,))}
        for rule in SPEEDS:
            at = NERVOUS if nervous else LATE if rule.startswith("late") else SHIPPED
            side = -1 if rule in ("plunge", "dive", "late-fall") else 1
            true = condition(rule, at)
            samples = (
                Sample(now.row.ts_ms, true(now), None if now.rise is None else more(at["back"], now.rise * side))
                for now in seen[int(at["seconds"])]
            )
            limit = 2 if rule.startswith("late") else 3
            expected = [str(one) for one in hand.live(samples, cooldown_ms=10 * MINUTE, max_per_day=limit)]
            assert told_of(told[rule + "-nervous" * nervous, symbol]) == expected, (rule, symbol)
            fires += len(expected)
    assert fires > 0 or not nervous
