"""The shipped rules of pankou.yaml against predicates reckoned by hand, over recorded and simulated sessions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feeds.inputs import Control, ControlKind
from feeds.recording import inputs
from feeds.simulated import Market
from feeds.tick import CORE, REST, TickBatch
from rules.alert import Alert
from rules.engine import Engine
from rules.rulefile import load
from tests.rules import sessions_by_hand as hand
from tests.rules.catalog import pankou_by_hand as oracle
from tests.rules.catalog.pankou_by_hand import Tick
from tests.rules.sessions_by_hand import MINUTE
from tests.rules.whole_market import WHOLE


@dataclass(frozen=True)
class Part:
    """What is played of a session: from `since` up to `until`, and of so many symbols at most."""

    session: str
    since: str = "00:00:00"
    until: str = "24:00:00"
    symbols: tuple[str, ...] | None = None


PLAYED: dict[str, Part | None] = {
    "ten-0116": Part("ten-20190116", until="10:20:00"),
    "ten-0226": Part("ten-20190226", since="10:40:00", until="13:50:00"),
    "ten-0305": Part("ten-20190305", since="13:50:00"),
    "sh30": Part(
        "sh30-20211201",
        until="15:30:00" if WHOLE else "10:30:00",
        symbols=("600103.SH", "600519.SH", "601318.SH", "688339.SH", "600036.SH"),
    ),
    "600519-000333": Part("600519-000333-20230201", until="09:50:00"),
    "simulated": None,
}
SEALS = ("limit-up-sealed", "limit-down-sealed")
OF_TICKS: dict[str, tuple[oracle.Predicate, oracle.Predicate | None, dict[str, Any]]] = {
    "limit-up-near": (
        oracle.near_limit_up(), oracle.below_limit_up(), {"cooldown_ms": 10 * MINUTE, "max_per_day": 3}
    ),
    "limit-down-near": (
        oracle.near_limit_down(), oracle.above_limit_down(), {"cooldown_ms": 10 * MINUTE, "max_per_day": 3}
    ),
    "limit-up-broken": (oracle.broken, oracle.is_sealed_up, {"max_per_day": 10}),
    "limit-up-queue-falls": (oracle.queue_falls(), None, {"cooldown_ms": MINUTE, "max_per_day": 5}),
    "big-bid": (oracle.big_order("bids"), oracle.no_big_order("bids"), {"cooldown_ms": 10 * MINUTE, "max_per_day": 5}),
    "big-ask": (oracle.big_order("asks"), oracle.no_big_order("asks"), {"cooldown_ms": 10 * MINUTE, "max_per_day": 5}),
}  # fmt: skip
"""Rule → predicate, what arms it again, and its life in the words of `hand.live`."""


@dataclass
class Play:
    """One run of the engine with all these rules: the session, and the events by rule and symbol."""

    ticks: Mapping[str, list[Tick]]
    silences: list[tuple[int, int]]
    events: dict[tuple[str, str], list[Alert]]

    def told(self, rule: str, symbol: str) -> list[str]:
        """Return what the engine said of a rule and symbol, as `expected` does."""
        return [str(hand.Happened(str(e.event), e.ts_event_ms, e.episode, e.why)) for e in self.events[rule, symbol]]


def used(*lines: str) -> str:
    """Return the source of a rule set that uses shipped rules, each line the inside of a flow mapping."""
    text = "version: 1\ngroups:\n- name: g\n  rules:\n" + "".join(f"  - {{{line}}}\n" for line in lines)
    return load({"rules.yaml": text}).source


def run(source: str, values: Iterable[Any]) -> dict[tuple[str, str], list[Alert]]:
    engine = Engine()
    events = engine.step(Control(ControlKind.RULES, source))
    for value in values:
        events += engine.step(value)
    found: dict[tuple[str, str], list[Alert]] = defaultdict(list)
    for event in events:
        found[event.rule, event.symbol or ""].append(event)
    return found


@cache
def simulated(symbols: int, interval_ms: int, days: int, *, moments: int = 1_000_000) -> tuple[list[Any], pd.DataFrame]:
    """Return the first inputs of the simulated market, and the same ticks as rows of a recorded session."""
    market = Market(seed=3, symbols=symbols, date=20250102, interval_ms=interval_ms, days=days)
    values: list[Any] = []
    columns: dict[str, list[Any]] = defaultdict(list)
    while len(values) < moments and (value := market.next()) is not None:
        values.append(value)
        if isinstance(value, TickBatch):
            columns["symbol"].append(np.array(value.symbols, object))
            columns["ts_event"].append(value.ts_event_ms)
            columns["status"].append(value.status)
            for name in (*CORE, *REST):
                columns[name].append(value.column(name))
    frame = pd.DataFrame({name: np.concatenate(parts) for name, parts in columns.items()})
    lots = [name for name in frame.columns if "_lots" in name]
    return values, frame.assign(**{name: frame[name].fillna(0.0) for name in lots})


def limits_of(folder: Path, session: str) -> dict[str, tuple[float, float]]:
    table = pd.read_csv(folder / "tables" / "session_reference.csv")
    mine = table[table.session == session]
    return {row.symbol: (row.limit_up, row.limit_down) for row in mine.itertuples()}


def inside(part: Part, ts_ms: int) -> bool:
    return part.since <= hand.at(ts_ms) < part.until


def part_inputs(folder: Path, part: Part) -> Iterator[Any]:
    """Yield what the engine is given of a part: every tick of its time and symbols; a frame is of one time."""
    chosen = None if part.symbols is None else frozenset(part.symbols)
    for one in inputs([folder / "sessions" / f"{part.session}.parquet"], chosen):
        value = one.value
        ts_ms = value.ts_event_ms[[0, -1]].tolist() if isinstance(value, TickBatch) else [value.ts_ms] * 2
        if inside(part, ts_ms[0]) and inside(part, ts_ms[1]):
            yield value


def part_frame(folder: Path, part: Part) -> pd.DataFrame:
    """Return the rows of a part."""
    frame = pd.read_parquet(folder / "sessions" / f"{part.session}.parquet")
    times = {ts_ms: inside(part, ts_ms) for ts_ms in frame.ts_event.unique().tolist()}
    frame = frame[frame.ts_event.map(times)]
    return frame if part.symbols is None else frame[frame.symbol.isin(part.symbols)]


def part_ticks(folder: Path, part: Part) -> tuple[dict[str, list[Tick]], list[int]]:
    """Return each symbol's ticks of a part, and the time of every row."""
    frame = part_frame(folder, part)
    return oracle.ticks(frame, limits_of(folder, part.session)), frame.ts_event.tolist()


@cache
def play(folder: Path, name: str) -> Play:
    source = used(*(f"use: {rule}" for rule in (*SEALS, *OF_TICKS)))
    part = PLAYED[name]
    if part is None:
        values, frame = simulated(60 if WHOLE else 25, 15_000, 1)
        return Play(oracle.ticks(frame), [], run(source, values))
    ticks, clock = part_ticks(folder, part)
    return Play(ticks, hand.silences_of(clock), run(source, part_inputs(folder, part)))


# ── edges on ticks ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", PLAYED)
@pytest.mark.parametrize("rule", OF_TICKS)
def test_a_rule_on_ticks_says_what_the_predicate_says_by_hand(market_data: Path, name: str, rule: str) -> None:
    told = play(market_data, name)
    predicate, rearm, life = OF_TICKS[rule]
    for symbol, rows in told.ticks.items():
        expected = hand.live(oracle.samples(rows, predicate, rearm), silences=told.silences, **life)
        assert told.told(rule, symbol) == [str(one) for one in expected], symbol


@pytest.mark.parametrize("rule", [*SEALS, *OF_TICKS])
def test_every_rule_on_ticks_fires_somewhere(market_data: Path, rule: str) -> None:
    fires = sum(
        event.event == "fire"
        for name in PLAYED
        for (told, _), events in play(market_data, name).events.items()
        for event in events
        if told == rule
    )
    assert fires > 0


def test_a_limit_touched_with_sellers_left_is_no_seal(market_data: Path) -> None:
    told = play(market_data, "sh30")
    touching = [tick for tick in told.ticks["600103.SH"] if tick.last == tick.limit_up]
    assert len(touching) == 8
    assert not [key for key in told.events if key[0] in SEALS]
    assert told.events["limit-up-near", "600103.SH"][0].event == "fire"
