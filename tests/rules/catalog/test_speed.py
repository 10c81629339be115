"""The shipped rules on speed, big ticks and auctions against plain loops."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from rules.alert import Alert
from tests.rules import sessions_by_hand as hand
from tests.rules.catalog import pankou_by_hand as oracle
from tests.rules.catalog.pankou_by_hand import Tick, every, least
from tests.rules.catalog.test_pankou import PLAYED, part_inputs, part_ticks, run, simulated, used
from tests.rules.sessions_by_hand import MINUTE, Sample

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
        values, frame = simulated(60, 15_000, 2)
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
