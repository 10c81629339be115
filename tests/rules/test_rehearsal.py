"""Bars of the past that were lived through ahead, in any number of turns with anything between them, change nothing.

The oracle is an engine that takes the same inputs without a rehearsal: events and all state are compared bit for bit.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.exrights import HOLIDAYS_SINCE, closed_weekdays, encode_exrights
from feeds.history import Bars
from feeds.inputs import Control, ControlKind, Input, Mark, MarkKind
from feeds.sessions import Calendar, day_ms, unix_ms
from feeds.tick import TickBatch
from rules.alert import Alert
from rules.assembly import joined, to_bars
from rules.engine import Engine
from rules.pastlife import PastLife
from tests.rules.test_past import _inputs, past
from tests.rules.ticks import rules

BEGINS, JOINS_MS, UNTIL_MS, ENDS_MS = "10:00:00", 36_600_000, 37_260_000, 38_100_000
"""When the market here begins (09:30 is as good), from when on the engines see ticks (10:10), up to when the past comes
(10:21), and the end (10:35); ms of the day."""
BARS = 45
TERMS = "A:MA(C,5); E:EMA(C,12)-EMA(C,26); S:SMA(MAX(C-REF(C,1),0),9,1); K:(C-LLV(L,9))/(HHV(H,9)-LLV(L,9)); CROSS(C,A)"
PERIODS = ("1d", "5m", "1m")
TERMED = [f"id: w-{p}, select: all, period: {p}, when: '{TERMS}', freq: always" for p in PERIODS]
RULES = rules(
    *TERMED,
    "id: cross, select: all, period: 1m, eval: bar_close, when: 'CROSS(MA(C,2), CLOSE#MIN5) AND C > ON(DAY,MA(C,3))/2'",
    "id: rise, select: all, when: 'PCT > 0.5', freq: always",
)
EXRIGHTS = Control(
    ControlKind.EXRIGHTS, encode_exrights([], closed=closed_weekdays(Calendar.xshg(), since=HOLIDAYS_SINCE))
)
"""What makes the day one of ex-rights for nearly all: the made-up bars do not end at the market's previous closes."""
FEWER = rules(*TERMED[:1], "id: other, select: all, period: 5m, when: 'C > MA(C,7) AND HHV(H,30) > C'")


@dataclass(frozen=True)
class Play:
    """Ticks of a morning that an engine joins late, and the past as it comes meanwhile, some symbols at a time."""

    inputs: Sequence[Input]
    groups: Sequence[Sequence[Bars]]


def _chunks(bars: Bars) -> list[Bars]:
    """Cut bars as a warm-up does, so that inputs hold unlike numbers of symbols."""
    names = bars.symbols
    return [bars.of(names[:5]), bars.of(names[5:6]), bars.of(names[6:])]


@pytest.fixture(scope="module")
def play() -> Play:
    inputs = [one.value for one in asyncio.run(_inputs(1, BEGINS)) if day_ms(_time(one.value)) < ENDS_MS]
    before = [value for value in inputs if day_ms(_time(value)) <= UNTIL_MS]
    whole = Engine(window=BARS)
    for value in (RULES, *before):
        whole.step(value)
    symbols = whole.market.universe.symbols
    yesterday = unix_ms(Calendar.xshg().previous(whole.market.date)) + 15 * 3_600_000
    until_ms = _time(before[-1]) // 60_000 * 60_000
    old = {period: past(symbols, period, BARS, yesterday) for period in PERIODS}
    tables = {p: joined(old[p], replace(whole.recent_bars(p, symbols), as_of=old[p].as_of)) for p in PERIODS}
    groups = [_chunks(to_bars(tables[p], until_ms=until_ms, day=tables["1d"])) for p in PERIODS]
    late = [value for value in inputs if day_ms(_time(value)) > JOINS_MS]
    # One symbol comes a little late, two when the second group is under way: their first ticks tell of ex-rights then.
    late[0] = _without(late[0], symbols[-3:])
    late[1:17] = [_without(value, symbols[-2:]) for value in late[1:17]]
    return Play(late, groups)


def _without(value: Input, symbols: Sequence[str]) -> Input:
    if not isinstance(value, TickBatch):
        return value
    return value.take(np.flatnonzero(~np.isin(np.array(value.symbols), symbols)))


def _time(value: Input) -> int:
    assert not isinstance(value, Control | Bars)
    return value.span_ms[1] if isinstance(value, TickBatch) else value.ts_ms


def state_of(engine: Engine) -> tuple[dict[str, bytes], dict[str, Any]]:
    arrays, header = engine.checkpoint()
    return {name: array.tobytes() for name, array in arrays.items()}, header


class Run:
    """An engine through a play; with turns it rehearses: so many bars at a time, one turn before each input."""

    def __init__(self, play: Play, turns: Iterator[int] | None, *, between: Sequence[Input] = ()) -> None:
        """between: inputs that come while the second group is under way."""
        self.engine = Engine(window=BARS)
        self.events: list[Alert] = []
        self.turns, self.inputs = turns, iter(play.inputs)
        self.engine.step(RULES)
        self.engine.step(EXRIGHTS)
        self.see(6)
        for number, group in enumerate(play.groups):
            rehearsal = None if turns is None else self.engine.rehearse(group)
            extra = between if number == 1 else ()
            for moment in range(8):
                if rehearsal is not None and moment < 7:
                    for _ in range(2):
                        rehearsal.go_on(next(turns))  # type: ignore[arg-type]
                for value in extra if moment == 4 else ():
                    self.step(value)
                self.see(1)
            while rehearsal is not None and rehearsal.go_on(1000):
                pass
            for bars in group:
                self.step(bars)
                self.see(number % 2)  # behind each, or all at once
        self.see(6)

    def see(self, count: int) -> None:
        for _ in range(count):
            self.step(next(self.inputs))

    def step(self, value: Input) -> None:
        self.events += self.engine.step(value)


def same(one: Run, other: Run) -> None:
    assert [event.to_json() for event in one.events] == [event.to_json() for event in other.events]
    mine, theirs = state_of(one.engine), state_of(other.engine)
    assert mine[1] == theirs[1]
    assert mine[0].keys() == theirs[0].keys()
    assert [name for name, content in mine[0].items() if theirs[0][name] != content] == []


@pytest.fixture(scope="module")
def plain(play: Play) -> Run:
    run = Run(play, None)
    assert run.events
    assert (run.engine.market.exrights.price.array != 1).sum() > 5
    return run


@settings(max_examples=4, deadline=None)
@given(turns=st.lists(st.integers(1, 90), min_size=1, max_size=12))
def test_any_cut_into_turns_with_ticks_between_gives_what_one_turn_gives(
    play: Play, plain: Run, turns: list[int]
) -> None:
    def again() -> Iterator[int]:
        while True:
            yield from turns

    same(Run(play, again()), plain)


@pytest.mark.parametrize(
    "between",
    [
        (FEWER,),
        (FEWER, RULES),
        (Mark(MarkKind.GAP, 0, "some are missing"),),
    ],
    ids=["other rules", "and back", "gap"],
)
def test_what_comes_between_and_changes_what_is_lived_with_costs_time_and_nothing_else(
    play: Play, between: tuple[Input, ...]
) -> None:
    def turns() -> Iterator[int]:
        while True:
            yield 40

    same(Run(play, turns(), between=between), Run(play, None, between=between))


def test_what_was_rehearsed_is_not_lived_again(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the work of the inputs: a bar or two that have closed meanwhile, and not those of the past."""
    closed = 0
    close = PastLife.close

    def counted(life: PastLife, bar: Any, at: Any) -> None:
        nonlocal closed
        closed += 1
        close(life, bar, at)

    engine = Engine(window=BARS)
    for value in (RULES, EXRIGHTS, *play.inputs[:6]):
        engine.step(value)
    monkeypatch.setattr(PastLife, "close", counted)
    most = {True: 0, False: 0}
    for group in play.groups:
        rehearsal, more = engine.rehearse(group), True
        while more:
            closed = 0
            more = rehearsal.go_on(25)
            most[False] = max(most[False], closed)
        for value in play.inputs[6:8]:
            engine.step(value)
        for bars in group:
            closed = 0
            engine.step(bars)
            most[True] = max(most[True], closed)
    assert most[False] == 25
    assert most[True] <= 3


def test_an_error_on_the_way_leaves_the_layer_as_it_was(play: Play, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(window=BARS)
    engine.step(RULES)
    for value in play.inputs[:6]:
        engine.step(value)
    before = state_of(engine)
    rehearsal = engine.rehearse(play.groups[0])

    def fails(life: PastLife, bar: Any, at: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(PastLife, "close", fails)
        for _ in range(4):  # laid out, and room is made
            assert rehearsal.go_on(10)
        with pytest.raises(MemoryError):
            rehearsal.go_on(10)
    assert not rehearsal.go_on(10)
    assert state_of(engine) == before
    plain = Engine(window=BARS)
    plain.step(RULES)
    for value in play.inputs[:6]:
        plain.step(value)
    for one in (engine, plain):
        one.step(play.groups[0][0])
        one.step(play.inputs[6])
    assert state_of(engine) == state_of(plain)
