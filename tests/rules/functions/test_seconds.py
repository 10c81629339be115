"""Slots of session time and profiles of trading minutes, driven by the market clock."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pandas as pd
import pytest

from rules.alert import SHANGHAI
from rules.evaluate import as_floats
from rules.graph import Graph
from rules.language.parser import parse
from rules.node import ALL
from rules.slots import slots_passed
from rules.state import StateTable
from tests.rules.functions.test_registry import assert_same
from tests.rules.w1 import Columns

nan = np.nan


def at(clock: str, day: str = "2023-02-01") -> int:
    return int(datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=SHANGHAI).timestamp() * 1000)


@pytest.mark.parametrize(
    ("before", "now", "passed"),
    [
        ("09:30:00", "09:30:02", 0),
        ("09:30:02", "09:30:03", 1),
        ("09:30:00", "09:31:01", 20),
        ("09:29:59", "09:30:00", None),
        ("09:14:59", "09:15:00", None),
        ("11:29:59", "11:30:00", 1),
        ("11:30:00", "11:30:01", 0),
        ("11:30:05", "13:00:00", None),
        ("14:56:59", "14:57:00", 1),
        ("15:00:00", "15:00:03", 0),
    ],
)
def test_slots_end_every_three_seconds_of_session_time(before: str, now: str, passed: int | None) -> None:
    assert slots_passed(at(before), at(now)) == passed


def test_another_day_is_another_stretch() -> None:
    assert slots_passed(at("10:00:00"), at("10:00:03", "2023-02-02")) is None


class Session:
    """Expressions on period tick, the clock, and the latest prices of n symbols."""

    def __init__(self, *texts: str, n: int = 1, start: str = "10:00:00") -> None:
        self.state = StateTable(n)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source)
        self.nodes = [self.graph.add(parse(text).statements[0].expr, period="tick") for text in texts]
        self.plan = self.graph.plan(self.nodes)
        self.halted = np.zeros(n, bool)
        self.clock_ms = at(start)
        self.graph.pass_time(0, self.clock_ms, halted=self.halted)

    def enter(self, now_ms: int) -> None:
        self.graph.pass_time(self.clock_ms, now_ms, halted=self.halted)
        self.clock_ms = now_ms

    def tick(self, **words: object) -> list[np.ndarray]:
        self.source.set("tick", ALL, TICK_MS=self.clock_ms, **words)
        self.plan.peek(ALL)
        return [as_floats(node).copy() for node in self.nodes]


def test_rise_and_extremes_equal_brute_force_over_the_last_values_of_slots() -> None:
    rng = np.random.default_rng(1)
    session = Session("RISE(9)", "HIGHS(9)", "LOWS(9)", n=3)
    start = session.clock_ms
    slots: dict[int, np.ndarray] = {}
    for second in range(120):
        session.enter(start + second * 1000)
        for _ in range(rng.integers(0, 3)):
            last = np.round(10 + rng.normal(0, 0.5, 3), 2)
            values = session.tick(LAST=last)
            slots[second // 3] = last
            held = [slots[max(k for k in slots if k <= j)] if min(slots) <= j else np.full(3, nan)
                    for j in range(second // 3 + 1)]  # fmt: skip
            then = held[-4] if len(held) > 3 else np.full(3, nan)
            window = np.array(held[-3:])
            assert_same(values[0], (last / then - 1) * 100)
            assert_same(values[1], np.where(np.isnan(then), nan, window.max(axis=0)))
            assert_same(values[2], np.where(np.isnan(then), nan, window.min(axis=0)))


@pytest.mark.parametrize("opening", ["09:15:00", "09:30:00", "13:00:00"])
@pytest.mark.parametrize("interval_s", [1, 3, 4, 5, 7, 10, 16])
def test_a_clock_that_jumps_over_a_sessions_start_forgets_none_of_its_slots(opening: str, interval_s: int) -> None:
    rng = np.random.default_rng(interval_s)
    price = "AUCP" if opening == "09:15:00" else "LAST"
    session = Session(*(f"{name}(9,{price})" for name in ("RISE", "HIGHS", "LOWS")), n=2, start="09:00:00")
    first_ms = at(opening) - 2 * interval_s * 1000 + 500 * interval_s // 1000 * 1000
    slots: dict[int, np.ndarray] = {}
    for now_ms in range(first_ms, at(opening) + 90_000, interval_s * 1000):
        session.enter(now_ms)
        last = np.round(10 + rng.normal(0, 0.5, 2), 2)
        values = session.tick(**{price: last})
        slot = (now_ms - at(opening)) // 3000
        if slot >= 0:
            slots[slot] = last
        held = [slots[max(k for k in slots if k <= j)] for j in range(min(slots, default=0), slot + 1)]
        then = held[-4] if len(held) > 3 else np.full(2, nan)
        window = np.array(held[-3:] or [then])
        assert_same(values[0], (last / then - 1) * 100)
        assert_same(values[1], np.where(np.isnan(then), nan, window.max(axis=0)))
        assert_same(values[2], np.where(np.isnan(then), nan, window.min(axis=0)))
    assert not np.isnan(values[0]).any()


def test_a_jump_over_a_sessions_start_is_still_a_gap_to_a_halted_symbol() -> None:
    session = Session("RISE(3)", n=2, start="12:59:55")
    session.halted[1] = True
    session.enter(at("13:00:05"))
    session.tick(LAST=10.0)
    session.halted[1] = False
    session.enter(at("13:00:06"))
    assert_same(session.tick(LAST=11.0)[0], np.array([10.0, nan]))
    session.enter(at("13:00:09"))
    assert_same(session.tick(LAST=11.0)[0], np.array([0.0, 0.0]))


def test_ticks_missing_before_a_jump_over_a_sessions_start_are_missing_behind_it() -> None:
    """The race: a full inbox says so before the first frame of the afternoon is taken."""
    session = Session("RISE(3)", start="12:59:55")
    session.graph.break_off(at("13:00:05"))
    after = prices(session, "13:00:05", 6, 10.0)
    assert np.isnan(after[:4]).all()
    assert after[4:] == [0.0, 0.0]


def test_a_start_in_the_middle_of_a_slot_is_a_gap_and_the_next_slot_the_first() -> None:
    session = Session("RISE(3)", start="10:00:01")
    found = prices(session, "10:00:01", 6, 10.0)
    assert np.isnan(found[:5]).all()
    assert found[5] == 0.0


def prices(session: Session, clock: str, seconds: int, price: float) -> list[float]:
    """Let a symbol tick every second, and return RISE at each."""
    found = []
    for second in range(seconds):
        session.enter(at(clock) + second * 1000)
        found.append(float(session.tick(LAST=price)[0][0]))
    return found


def test_a_stock_is_unknown_until_s_seconds_after_lunch() -> None:
    session = Session("RISE(6)", start="11:29:50")
    assert np.isnan(prices(session, "11:29:50", 7, 10.0)).all()
    assert prices(session, "11:29:57", 4, 11.0)[-1] == pytest.approx(10.0)
    afternoon = prices(session, "13:00:00", 9, 12.0)
    assert np.isnan(afternoon[:6]).all()
    assert afternoon[6:] == [0.0, 0.0, 0.0]


def test_missing_ticks_break_off_what_is_known() -> None:
    session = Session("RISE(3)")
    assert prices(session, "10:00:00", 6, 10.0)[-1] == 0.0
    session.graph.break_off(at("10:00:06"))
    after = prices(session, "10:00:06", 6, 12.0)
    assert np.isnan(after[:3]).all()
    assert after[3:] == [0.0, 0.0, 0.0]


def test_a_price_of_before_lunch_is_not_one_of_a_slot_after_it() -> None:
    session = Session("RISE(3)", start="11:29:50")
    assert prices(session, "11:29:50", 9, 10.0)[-1] == 0.0
    session.enter(at("13:00:00"))
    for second in range(20):
        session.enter(at("13:00:00") + second * 1000)
    assert np.isnan(session.tick(LAST=11.0)[0][0])
    session.enter(at("13:00:21"))
    assert session.tick(LAST=12.1)[0][0] == pytest.approx(10.0)


def test_a_halt_is_a_gap_to_its_symbol_alone() -> None:
    session = Session("RISE(3)", n=2)
    prices(session, "10:00:00", 9, 10.0)
    session.halted[1] = True
    prices(session, "10:00:09", 9, 10.0)
    session.enter(at("10:00:18"))
    session.halted[1] = False
    first, second = session.tick(LAST=11.0)[0]
    assert first == pytest.approx(10.0)
    assert np.isnan(second)
    session.enter(at("10:00:21"))
    assert session.tick(LAST=11.0)[0].tolist() == [0.0, 0.0]


def test_a_symbol_that_comes_later_waits_its_s_seconds() -> None:
    session = Session("RISE(3)", "HIGHS(3)")
    prices(session, "10:00:00", 9, 10.0)
    session.state.grow(2)
    session.enter(at("10:00:09"))
    assert np.isnan(session.tick(LAST=10.0)[0][1])
    session.enter(at("10:00:12"))
    assert [value.tolist() for value in session.tick(LAST=11.0)] == [[pytest.approx(10.0)] * 2, [11.0] * 2]


def test_the_auction_has_slots_of_its_own() -> None:
    session = Session("RISE(30,AUCP)", start="09:15:00")
    found = []
    for second in range(60):
        session.enter(at("09:20:00") + second * 1000)
        found.append(float(session.tick(AUCP=10.0 if second < 30 else 10.5)[0][0]))
    assert np.isnan(found[:30]).all()
    assert found[30:33] == [pytest.approx(5.0)] * 3
    session.enter(at("09:30:00"))
    assert np.isnan(session.tick(AUCP=11.0)[0][0])


def test_only_formulas_with_seconds_want_every_one() -> None:
    assert not Session("C>1").graph.wants_seconds
    assert Session("RISE(3)").graph.wants_seconds
    assert Session('"SH000000$LAST">1').graph.wants_seconds


def test_a_checkpoint_holds_the_slots() -> None:
    straight, stopped = Session("RISE(30)"), Session("RISE(30)")
    for session in (straight, stopped):
        prices(session, "10:00:00", 20, 10.0)
    resumed = Session("RISE(30)")
    resumed.state.load(stopped.state.dump())
    resumed.clock_ms = stopped.clock_ms
    mine, theirs = (prices(session, "10:00:20", 20, 11.0) for session in (resumed, straight))
    np.testing.assert_array_equal(mine, theirs)
    assert mine[-1] == pytest.approx(10.0)


def minute_ends(day: str) -> list[int]:
    return [at("09:30:00", day) + m * 60_000 for m in range(1, 121)] + [
        at("13:00:00", day) + m * 60_000 for m in range(1, 121)
    ]


def test_the_volume_ratio_equals_pandas_minute_by_minute() -> None:
    days = [str(day.date()) for day in pd.bdate_range("2023-02-01", periods=6)]
    rng = np.random.default_rng(4)
    traded = rng.integers(0, 50, (len(days), 240, 2)).astype(float)
    traded[:, 0] += 1
    traded[2, :, 1] = nan  # the second symbol does not trade on the third day
    table = pd.DataFrame(
        np.nancumsum(traded, axis=1).reshape(-1, 2), index=pd.MultiIndex.from_product([days, range(240)])
    )
    table[1] = table[1].mask(np.isnan(traded[:, :, 1]).ravel())
    session = Session("VRATIO(3)", n=2)
    for number, day in enumerate(days):
        past = table.loc[days[:number]].unstack(level=0) if number else None
        for minute, end in enumerate(minute_ends(day)):
            now = table.loc[day, minute].to_numpy()
            there = np.flatnonzero(~np.isnan(now))
            session.source.set("1m", there, END=end)
            value = session.tick(VOLDAY=now)[0]
            for symbol in there:
                known = [] if past is None else past[symbol].loc[minute].dropna().tolist()
                expected = now[symbol] / np.mean(known[-3:]) if len(known) >= 3 else nan
                assert_same(value[symbol], np.float64(expected))
            session.graph.commit("1m", there)
