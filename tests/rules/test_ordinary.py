"""Batches taken in one compiled pass leave the same state and tell the same events as batches taken step by step."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.tick import CORE, TickBatch
from rules import ordinary
from rules.assembly import longer, to_bars
from rules.engine import Engine
from tests.rules.ticks import ms, rules

pytestmark = pytest.mark.skipif(ordinary.COMPILED is None, reason="there was no compiler at installation")

SYMBOLS = tuple(f"{600_000 + i}.SH" for i in range(11))
RULES = (
    "id: high, select: all, period: 1m, freq: always, when: 'CROSS(C, REF(H,1)) OR H > 10.4'",
    "id: five, select: all, period: 5m, eval: bar_close, freq: always, when: 'C > MA(C,3) AND V > 5'",
    "id: price, select: all, freq: always, when: 'CROSS(LAST, 10.1)', rearm: 'LAST < 10'",
    "id: limit, select: all, mode: state, freq: always, when: 'LIMITUP > 10 AND PCT > 1'",
)
CLOCKS = (
    "09:24:57", "09:25:00", "09:30:00", "09:30:03", "09:30:06", "09:31:00", "09:31:03", "09:33:00", "09:35:03",
    "11:29:57", "11:30:00", "11:30:09", "13:00:00", "13:00:03", "13:00:06", "14:56:57", "14:57:03", "15:00:00",
    "15:00:03", "15:00:06",
)  # fmt: skip
ODD = ("none", "none", "none", "no price", "halted", "some", "early", "again", "shuffled", "stuck", "stuck")


@st.composite
def batches(draw: st.DrawFn) -> list[TickBatch]:
    """Two days of snapshots of a small market: mostly whole and ordinary, some with one thing out of the ordinary."""
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    made = []
    for day in (20230201, 20230202):
        last, volume = np.full(len(SYMBOLS), 10.0), np.zeros(len(SYMBOLS))
        high, low = last.copy(), last.copy()
        for clock in CLOCKS:
            odd = draw(st.sampled_from(ODD))
            last = np.round(last + rng.choice([-0.05, 0, 0, 0.05], len(SYMBOLS)), 2)
            spread = rng.choice([0, 0, 0.02], len(SYMBOLS))
            high, low = np.maximum(high, np.round(last + spread, 2)), np.minimum(low, np.round(last - spread, 2))
            volume = volume + rng.integers(0, 9, len(SYMBOLS))
            shown = last.copy()
            status = np.full(len(SYMBOLS), 13, np.int16)
            ts_ms = np.full(len(SYMBOLS), ms(clock, day), np.int64)
            victim = int(rng.integers(len(SYMBOLS)))
            shown[victim] = np.nan if odd == "no price" else shown[victim]
            status[victim] = 1 if odd == "halted" else 13
            ts_ms[victim] -= 60_000 if odd == "early" else 0
            shows = (shown, last, high, low, np.full_like(last, 10.0), volume, volume * 1000)
            columns = {name: column.copy() for name, column in zip(CORE, shows, strict=True)}
            whole = TickBatch(SYMBOLS, ts_ms, columns=columns, status=status)
            if odd == "stuck" and made:  # some show what they showed before, maybe from before the opening
                whole = joined(made[-1], whole, rng.random(len(SYMBOLS)) < 0.4)
            if odd == "some":
                whole = whole.take(slice(victim, None))
            if odd == "shuffled":
                whole = whole.take(rng.permutation(len(SYMBOLS))[victim:])
            made += [whole] * (2 if odd == "again" else 1)
    return made


def joined(before: TickBatch, now: TickBatch, stuck: np.ndarray) -> TickBatch:
    """Return the batch with the ticks of a batch before where it had the symbol and `stuck` is set."""
    place = {symbol: at for at, symbol in enumerate(before.symbols)}
    again = np.array([stuck[at] and symbol in place for at, symbol in enumerate(now.symbols)])
    there = np.array([place.get(symbol, 0) for symbol in now.symbols])
    columns = {name: np.where(again, before.column(name)[there], now.column(name)) for name in CORE}
    return TickBatch(
        now.symbols,
        np.where(again, before.ts_event_ms[there], now.ts_event_ms),
        columns=columns,
        status=np.where(again, before.status[there], now.status),
    )


def lived(some: list[TickBatch]) -> tuple[list[bytes], list[tuple[dict[str, bytes], bytes]]]:
    """Events, and the whole state after each batch."""
    engine = Engine()
    engine.step(rules(*RULES))
    events, states = [], []
    for one in some:
        events += [event.to_json() for event in engine.step(one)]
        arrays, header = engine.checkpoint()
        states.append(({name: plain(array) for name, array in arrays.items()}, orjson.dumps(header)))
    return events, states


def plain(array: np.ndarray) -> bytes:
    return (np.where(np.isnan(array), np.nan, array) if array.dtype == np.float64 else array).tobytes()


@given(batches())
@settings(max_examples=15, deadline=None)
def test_both_ways_leave_the_same_state_and_tell_the_same_events(some: list[TickBatch]) -> None:
    at_once = lived(some)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ordinary, "COMPILED", None)
        in_steps = lived(some)
    assert at_once[0] == in_steps[0]
    for mine, theirs in zip(at_once[1], in_steps[1], strict=True):
        assert mine == theirs


def whole(clock: str, **changed: Any) -> TickBatch:
    n = len(SYMBOLS)
    columns = {name: np.full(n, 10.0) for name in CORE} | changed
    return TickBatch(SYMBOLS, np.full(n, ms(clock), np.int64), columns=columns, status=np.full(n, 13, np.int16))


def warm() -> Engine:
    engine = Engine()
    engine.step(rules(RULES[0]))
    for clock in ("09:30:00", "09:30:03"):
        engine.step(whole(clock))
    return engine


def test_what_a_batch_shows_is_borrowed_and_never_written_to() -> None:
    engine = warm()
    first = whole("09:30:06")
    engine.step(first)
    last = engine.market.latest.raw("last")
    assert np.shares_memory(last, first.column("last"))
    assert not last.flags.writeable
    engine.step(whole("09:30:09").take(slice(0, 3)))
    engine.step(whole("09:31:00", last=np.full(len(SYMBOLS), 11.0)))
    assert (first.column("last") == 10.0).all()
    assert (engine.market.latest.raw("last") == 11.0).all()


def test_a_batch_of_another_layout_is_taken_in_steps() -> None:
    engine = warm()
    engine.step(whole("09:30:06", high=np.arange(20.0, 42.0)[::2]))
    assert engine.market.latest.raw("high").tolist() == np.arange(20.0, 42.0)[::2].tolist()
    assert engine.market.latest.raw("high").flags.writeable


def test_a_restored_engine_writes_to_arrays_of_its_own() -> None:
    engine = warm()
    engine.step(whole("09:30:06"))
    again = Engine.restore(*engine.checkpoint())
    again.step(whole("09:30:09").take(slice(0, 3)))
    assert again.market.latest.raw("last").tolist() == [10.0] * len(SYMBOLS)


def test_some_of_a_market_are_taken_in_the_compiled_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, taken = warm(), []
    compiled = ordinary.COMPILED
    assert compiled is not None

    class Counting:
        news = staticmethod(compiled.news)

        @staticmethod
        def take(*given: Any) -> bool:
            taken.append(compiled.take(*given))
            return bool(taken[-1])

    monkeypatch.setattr(ordinary, "COMPILED", Counting)
    again = whole("09:30:06")
    engine.step(again)
    engine.step(joined(again, whole("09:30:09", last=np.full(len(SYMBOLS), 11.0)), np.arange(len(SYMBOLS)) < 4))
    engine.step(whole("09:30:12", last=np.full(len(SYMBOLS), 12.0)).take(np.array([7, 2, 9])))
    assert taken == [True] * 3
    assert engine.market.latest.raw("last").tolist() == [10, 10, 12, 10, 11, 11, 11, 12, 11, 12, 11]
    assert engine.market.dropped == {"duplicate": 4}


K, N = 2, 3


def arguments() -> list[Any]:
    """Return good arguments of a call that takes two ticks of a batch of four, for symbols 0 and 2 of three."""

    def numbers(n: int) -> np.ndarray:
        return np.ones(n)

    def codes(n: int) -> np.ndarray:
        return np.full(n, 13, np.int16)

    def times(n: int) -> np.ndarray:
        return np.full(n, 5)

    bars = (times(N), np.zeros(N, np.int8), np.zeros(N, np.bool_), numbers(N), numbers(N))
    return [
        N, np.array([2, 0]), np.array([3, 1]), (np.arange(4.0), numbers(4), numbers(4), codes(4)),
        (codes(N), times(N), numbers(N), numbers(N)), (times(N), np.zeros(N, np.uint8)), 4, 2, [(bars, 5)],
        [(np.arange(4.0), None, np.zeros(N)), (np.arange(4.0), numbers(N), np.zeros(N))], [(times(N), -1)],
    ]  # fmt: skip


def test_each_tick_is_written_to_its_symbol() -> None:
    assert ordinary.COMPILED is not None
    given = arguments()
    assert ordinary.COMPILED.take(*given) is True
    (_, _, shown), (_, _, grown) = given[9]
    assert (shown.tolist(), grown.tolist(), given[10][0][0].tolist()) == ([1, 0, 3], [0, 0, 2], [-1, 5, -1])
    assert given[8][0][0][3].tolist() == [1, 1, 3]


@pytest.mark.parametrize(
    ("place", "bad"),
    [
        (1, np.array([3, 0])), (1, np.array([-1, 0])), (2, np.array([4, 1])), (2, np.array([1])),
        (1, np.array([0.0, 2])),
        (1, 5), (4, ()), (4, [np.ones(3)] * 4), (5, (np.ones(3),)), (8, [5]), (8, [(5, 5)]), (8, ()),
        (8, [((np.ones(N),) * 5, 5)]), (9, [(np.ones(4), None)]), (9, [(np.ones(4), None, np.ones(4))]), (9, [7]),
        (9, [(np.ones(4, np.int64), np.ones(3), np.ones(3, np.int64))]), (10, [(np.ones(3), 0)]), (10, [(np.ones(3),)]),
        (9, [(np.ones(4), None, np.ones(3))] * 129), (10, None),
        (0, 4),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_written(place: int, bad: Any) -> None:
    assert ordinary.COMPILED is not None
    given, untouched = arguments(), arguments()
    given[place] = bad
    with pytest.raises((ValueError, TypeError, IndexError, OverflowError)):
        ordinary.COMPILED.take(*given)
    for mine, theirs in zip(given[8:], untouched[8:], strict=True):
        if mine is not bad:
            assert repr(mine) == repr(theirs)


def test_a_whole_market_has_nothing_to_write() -> None:
    assert ordinary.COMPILED is not None
    given = arguments()
    given[1] = given[2] = None
    given[3] = tuple(column[:N].copy() for column in given[3])
    with pytest.raises(ValueError, match="needs rows"):
        ordinary.COMPILED.take(*given)
    given[9] = []
    assert ordinary.COMPILED.take(*given) is True
    assert given[8][0][0][3].tolist() == [1, 1, 2]


@pytest.mark.parametrize("odd", [np.ones(4, np.int64), np.ones(3), np.ones((4, 2))[:, 0]])
def test_a_batch_of_another_layout_is_left_to_others(odd: np.ndarray) -> None:
    assert ordinary.COMPILED is not None
    given = arguments()
    given[9][0] = (odd, *given[9][0][1:])
    assert ordinary.COMPILED.take(*given) is False


def test_columns_of_another_kind_are_taken_in_steps() -> None:
    engine, other = warm(), warm()
    engine.step(whole("09:30:06", high=np.full(len(SYMBOLS), 11), volume_lots=np.full(len(SYMBOLS), 4)))
    other.step(whole("09:30:06", high=np.full(len(SYMBOLS), 11.0), volume_lots=np.full(len(SYMBOLS), 4.0)))
    for field in ("H", "V"):
        ours, theirs = (one.market.bars["1m"].fields[field].array.tolist() for one in (engine, other))
        assert ours == theirs


def test_bars_of_the_past_may_come_behind_an_ordinary_batch() -> None:
    engine = Engine()
    engine.step(rules(RULES[0], "id: day, select: all, period: 1d, when: 'C > MA(C,3)'"))
    for clock in ("09:30:00", "09:30:03", "09:31:00", "09:31:03", "09:31:06"):
        engine.step(whole(clock))
    assert not engine.market.day.volume.array.flags.writeable, "the day shows the batch's column"
    own = engine.bars("1m", engine.market.date).of(SYMBOLS)
    day = longer(own, "1d")
    engine.step(to_bars(day, until_ms=int(own.ends_ms.max()), day=day))
    assert engine.market.day.volume.array.tolist() == [10.0] * len(SYMBOLS)
