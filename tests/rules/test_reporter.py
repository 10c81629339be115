"""Fires noted together are the events of fires noted one by one, and leave the same behind."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from feeds.inputs import Control, ControlKind
from feeds.instruments import Instrument, encode_table
from rules.alert import Alert
from rules.engine import Engine
from rules.latest import Tick
from rules.lifecycle import Moment, Verdict
from rules.program import Fire, Values
from rules.reporter import Cause, Reporter
from tests.rules.ticks import Watch, batch, heartbeat, tick

SYMBOLS = tuple(f"60000{number}.SH" for number in range(6))
RULES = (
    "id: plain, select: all, freq: always, when: PCT > 0",
    "id: cool, select: all, freq: always, when: PCT > 0, cooldown: 30s, message: '{name} {PCT:.2f}'",
    "id: daily, select: all, when: 'CROSS(LAST, 10)'",
    "id: flaps, select: all, freq: always, when: PCT > 0, flap: {over: 2, within: 1m}",
    "id: steps, select: all, freq: {step: 1%}, when: LAST > 9.9",
    "id: promised, select: all, period: 1m, freq: always, confirm: bar_close, when: C > 10",
    "id: legs, select: all, freq: always, max_per_day: 3, legs: {up: {when: PCT > 1}, down: {when: PCT < -1}}",
    "id: breadth, over: all, agg: {n: count(PCT > 0)}, freq: always, when: n > 2, rearm: n < 2",
)


def one_by_one(
    self: Reporter,
    fires: Sequence[Fire],
    moments: Sequence[Moment],
    values: Sequence[Values],
    *,
    arrivals: Sequence[int],
    phase: int,
    ticks: Sequence[Tick | None],
) -> list[Verdict]:
    return [
        self.note_fire(fire.slot, fire, moment, cause=Cause(arrival, phase), values=told)
        for fire, moment, told, arrival in zip(fires, moments, values, arrivals, strict=True)
    ]


def lived(seed: int) -> tuple[list[Alert], Engine]:
    """Let prices walk around their previous close, some symbols a second; return all events and the engine."""
    dice = random.Random(seed)
    watch = Watch(*RULES)
    watch.take(Control(ControlKind.INSTRUMENTS, encode_table([Instrument(SYMBOLS[0], "一号")])))
    for second in range(90):
        clock = f"10:{second // 60:02}:{second % 60:02}"
        some = dice.sample(SYMBOLS, dice.randint(0, len(SYMBOLS)))
        prices = [dice.choice((9.8, 9.95, 10.0, 10.05, 10.2)) for _ in some]
        ticks = [tick(clock, price, symbol=symbol) for symbol, price in zip(some, prices, strict=True)]
        watch.take(batch(*ticks) if ticks else heartbeat(clock))
    return watch.events, watch.engine


@pytest.mark.parametrize("seed", range(3))
def test_fires_of_a_burst_are_told_as_they_are_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    events, engine = lived(seed)
    monkeypatch.setattr(Reporter, "note_fires", one_by_one)
    expected, other = lived(seed)
    assert len({(event.rule, event.event) for event in events}) > len(RULES)
    assert [event.to_json() for event in events] == [event.to_json() for event in expected]
    assert engine.checkpoint()[1] == other.checkpoint()[1]
