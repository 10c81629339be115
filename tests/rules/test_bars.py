"""Bars against bars made by hand: every boundary of the day, and random days with lunch, silences, late ticks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feeds.inputs import Heartbeat, Mark, MarkKind
from feeds.sessions import unix_ms
from rules.bars import bar_end_ms, bar_start_ms, due_times
from tests.rules import sessions_by_hand as hand
from tests.rules.sessions_by_hand import MINUTE, SECOND, Recorded, Row
from tests.rules.ticks import DAY, SYMBOL, Watch, heartbeat, mark, ms, tick

nan = math.nan
PERIODS = ("1m", "5m", "15m", "30m", "60m", "1d")
VALUES = "O1:O; H1:H; L1:L; C1:C; V1:V; A1:AMO; RC:REF(C,1); RV:REF(V,1); C>0"
TELL = f'on_start: fire, freq: always, rearm: "C>0", when: "{VALUES}"'


def bar_rule(period: str) -> str:
    return f"id: bars-{period}, select: all, period: {period}, eval: bar_close, session: all_trading, {TELL}"


def told(watch: Watch, period: str = "1m") -> dict[str, dict[str, float | None]]:
    """Return the values of every closed bar by the clock of its end."""
    found = [one for one in watch.events if one.rule == f"bars-{period}"]
    return {hand.at(one.ts_event_ms)[:5]: dict(one.values) for one in found}


# ── where a tick belongs ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("period", PERIODS)
def test_every_boundary_of_the_day_has_its_bar(period: str) -> None:
    midnight = unix_ms(DAY)
    marks = [midnight + clock for clock in range(9 * 60 * MINUTE, 16 * 60 * MINUTE, MINUTE)]
    times = [at + shift for at in marks for shift in (-1, 0, 1, 30 * SECOND)]
    expected = [hand.end_of(at, hand.PERIODS[period]) for at in times]
    assert bar_end_ms(np.array(times), period).tolist() == expected


@pytest.mark.parametrize("period", PERIODS)
def test_a_bar_starts_where_the_one_before_ends_and_after_lunch_at_one(period: str) -> None:
    ends = hand.ends_of(hand.PERIODS[period], unix_ms(DAY))
    starts = [bar_start_ms(end, period) for end in ends]
    lunch = {ms("11:30:00"): ms("13:00:00")}
    assert starts == [ms("09:30:00"), *(lunch.get(end, end) for end in ends[:-1])]


def test_the_clock_closes_bars_3_s_after_their_end_and_the_days_last_at_1501() -> None:
    due = due_times(unix_ms(DAY), ("1m", "5m", "1d"))
    assert due[:2] == [(ms("09:31:03"), ms("09:31:00"), ("1m",)), (ms("09:32:03"), ms("09:32:00"), ("1m",))]
    assert due[4] == (ms("09:35:03"), ms("09:35:00"), ("1m", "5m"))
    assert due[119] == (ms("11:30:03"), ms("11:30:00"), ("1m", "5m"))
    assert due[-1] == (ms("15:01:00"), ms("15:00:00"), ("1m", "5m", "1d"))
    assert len(due) == 240


# ── one thing at a time ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_auction_opens_the_days_first_bar() -> None:
    watch = Watch(bar_rule("1m"))
    watch.take(tick("09:20:00", 9.0), tick("09:25:00", 10.0, volume_lots=5.0, high=10.0, low=10.0))
    watch.take(tick("09:30:00", 10.2, volume_lots=7.0, high=10.3, low=10.0), heartbeat("09:31:02"))
    assert told(watch) == {}
    watch.take(heartbeat("09:31:03"))
    bar = told(watch)["09:31"]
    assert [bar[name] for name in ("O1", "H1", "L1", "C1", "V1")] == [10.0, 10.3, 10.0, 10.2, 7.0]


def test_a_partial_first_bar_has_no_volume_and_takes_no_extremes_from_before() -> None:
    watch = Watch(bar_rule("1m"), bar_rule("5m"))
    watch.take(tick("10:00:20", 10.0, volume_lots=100.0, high=11.0, low=9.0))
    watch.take(tick("10:00:40", 10.1, volume_lots=130.0, high=11.0, low=8.9), tick("10:01:10", 10.2, volume_lots=137.0))
    watch.take(heartbeat("10:05:03"))
    bars = told(watch)
    assert [bars["10:01"][name] for name in ("O1", "H1", "L1", "C1", "V1", "A1")] == [10.0, 10.1, 8.9, 10.1, None, None]
    assert (bars["10:02"]["V1"], bars["10:02"]["RV"]) == (7.0, None)
    assert told(watch, "5m")["10:05"]["V1"] is None


def test_a_high_between_two_ticks_counts_to_the_bar_of_the_later() -> None:
    watch = Watch(bar_rule("1m"))
    watch.take(tick("09:30:00", 10.0, high=10.0, low=10.0), tick("09:30:58", 10.1, high=10.2, low=10.0))
    watch.take(tick("09:31:02", 10.1, high=10.5, low=9.7), heartbeat("09:32:03"))
    bars = told(watch)
    assert (bars["09:31"]["H1"], bars["09:31"]["L1"]) == (10.2, 10.0)
    assert (bars["09:32"]["H1"], bars["09:32"]["L1"]) == (10.5, 9.7)


def test_a_late_tick_amends_what_the_clock_has_closed_and_fires_nothing_again() -> None:
    watch = Watch(bar_rule("1m"), bar_rule("30m"))
    watch.take(tick("09:30:00", 10.0), tick("11:29:30", 10.0, volume_lots=10.0))
    watch.take(tick("11:30:02", 10.1, volume_lots=12.0), tick("11:30:03", 10.4, volume_lots=20.0))
    closed = told(watch)["11:30"]
    assert (closed["C1"], closed["V1"]) == (10.1, 12.0)
    watch.take(tick("13:00:30", 10.5, volume_lots=21.0), heartbeat("13:30:03"))
    assert list(told(watch)).count("11:30") == 1
    after = told(watch)["13:01"]
    assert (after["RC"], after["RV"], after["V1"]) == (10.4, 20.0, 1.0)
    assert told(watch, "30m")["13:30"]["RC"] == 10.4


def test_a_bar_that_a_tick_begins_after_its_time_closes_at_once_and_is_not_lost() -> None:
    """The clock comes to a bar's close once; in lunch that was long ago, and the next bar may be a flat one."""
    watch = Watch(bar_rule("1m"), bar_rule("5m"))
    watch.take(tick("12:59:58", 10.0, volume_lots=5.0))
    assert told(watch)["11:30"]["C1"] == told(watch, "5m")["11:30"]["C1"] == 10.0
    watch.take(tick("12:59:59", 10.1, volume_lots=6.0), mark("silent", "13:00:00"), mark("alive", "13:03:00"))
    watch.take(tick("13:05:10", 10.2, volume_lots=8.0), heartbeat("13:06:03"))
    assert list(told(watch)) == ["11:30", "13:04", "13:05", "13:06"]
    assert list(told(watch, "5m")) == ["11:30", "13:05"]
    assert told(watch)["13:04"]["RC"] == 10.1  # the second late tick amended it


def test_a_late_tick_into_a_minute_that_was_silent_begins_its_bar_and_closes_it_before_the_next_silence() -> None:
    watch = Watch(bar_rule("1m"))
    watch.take(tick("11:27:20", 10.0, volume_lots=5.0), mark("silent", "11:28:10"), mark("alive", "11:31:00"))
    watch.take(tick("12:59:58", 10.1, volume_lots=6.0), mark("silent", "13:00:30"), mark("alive", "13:02:30"))
    watch.take(heartbeat("13:04:03"))
    assert list(told(watch)) == ["11:28", "11:30", "13:03", "13:04"]
    assert (told(watch)["11:30"]["C1"], told(watch)["11:30"]["V1"]) == (10.1, 1.0)


def test_what_a_late_tick_fires_in_a_bar_whose_time_is_over_is_settled_with_it() -> None:
    condition = TELL.replace(VALUES, "C>9")
    watch = Watch(f"id: c, select: all, period: 1m, session: all_trading, confirm: bar_close, {condition}")
    watch.take(heartbeat("10:01:05"), tick("10:00:59", 10.0))
    assert watch.said == ["fire 10:00:59 #1", "confirmed 10:01:00 #1"]


def test_the_days_last_bar_begun_after_1501_closes_at_once() -> None:
    watch = Watch(bar_rule("1d"))
    watch.take(tick("15:00:59", 10.0), heartbeat("15:00:59"))
    assert told(watch, "1d") == {}
    late = Watch(bar_rule("1d"))
    late.take(tick("15:01:00", 10.0))
    assert told(late, "1d")["15:00"]["C1"] == 10.0


def test_the_day_ends_with_its_first_closing_status_and_nothing_after_amends_it() -> None:
    watch = Watch(bar_rule("1m"), bar_rule("1d"))
    watch.take(tick("09:30:00", 10.0), tick("14:59:59", 10.0, volume_lots=3.0, status=18))
    watch.take(tick("15:00:00", 10.1, volume_lots=4.0, status=18), tick("15:00:02", 10.2, volume_lots=9.0, status=15))
    assert (told(watch)["15:00"]["C1"], told(watch, "1d")["15:00"]["V1"]) == (10.2, 9.0)
    watch.take(tick("15:00:05", 10.3, volume_lots=11.0, status=15), heartbeat("15:05:00"))
    watch.take(
        tick("09:30:00", 10.0, day=20230202, volume_lots=1.0, prev_close=10.3), heartbeat("09:31:03", day=20230202)
    )
    assert told(watch)["09:31"]["RC"] == 10.2
    assert len([one for one in watch.events if one.rule == "bars-1d"]) == 1


def test_without_a_closing_status_the_day_ends_at_1501() -> None:
    watch = Watch(bar_rule("1d"))
    watch.take(tick("09:30:00", 10.0), tick("15:00:30", 10.2, volume_lots=9.0), heartbeat("15:00:59"))
    assert told(watch, "1d") == {}
    watch.take(heartbeat("15:01:00"))
    assert told(watch, "1d")["15:00"]["C1"] == 10.2


def test_the_days_end_comes_even_if_the_next_input_is_of_another_day() -> None:
    watch = Watch(bar_rule("60m"), bar_rule("1d"))
    watch.take(tick("09:30:00", 10.0), tick("14:10:00", 10.2, volume_lots=9.0))
    watch.take(tick("09:30:00", 11.0, day=20230202))
    assert list(told(watch, "60m")) == ["10:30", "11:30", "14:00", "15:00"]
    assert {one.trade_date for one in watch.events} == {"2023-02-01"}


def test_minutes_of_a_halt_or_wholly_inside_a_silence_are_no_bars() -> None:
    watch = Watch(bar_rule("1m"))
    watch.take(tick("10:00:30", 10.0, volume_lots=1.0), tick("10:01:30", 10.0, volume_lots=1.0, status=17))
    watch.take(tick("10:02:30", 10.0, volume_lots=1.0, status=17), tick("10:04:30", 10.1, volume_lots=2.0))
    watch.take(mark("silent", "10:05:30"), mark("alive", "10:08:30"), tick("10:08:40", 10.2, volume_lots=5.0))
    watch.take(heartbeat("10:10:03"))
    assert list(told(watch)) == ["10:01", "10:05", "10:09", "10:10"]
    bars = told(watch)
    assert bars["10:05"]["RC"] == 10.0
    assert bars["10:09"]["V1"] == 3.0
    assert bars["10:09"]["RV"] == 0.0  # 10:06 is flat: not wholly silent, but nobody was told


def test_the_last_trades_before_a_halt_are_not_lost() -> None:
    watch = Watch(bar_rule("1m"))
    watch.take(tick("09:30:00", 10.0, volume_lots=1.0), tick("10:00:30", 10.2, volume_lots=4.0, status=16))
    watch.take(tick("10:01:30", 10.2, volume_lots=4.0, status=16), tick("10:05:30", 10.3, volume_lots=5.0))
    watch.take(heartbeat("10:06:03"))
    bars = told(watch)
    assert [bars[end]["V1"] for end in ("10:01", "10:06")] == [3.0, 1.0]
    assert "10:02" not in bars


# ── random days ───────────────────────────────────────────────────────────────────────────────────────────────────

STRETCHES = (
    ("09:24:40", [0, 1, 9, 20, 60]),
    ("09:29:50", [0, 1, 2, 3, 9, 31, 60, 125]),
    ("10:29:10", [0, 1, 2, 3, 9, 31, 60, 125, 400]),
    ("11:29:20", [0, 1, 2, 3, 9, 31, 60, 600]),
    ("12:59:58", [0, 1, 2, 3, 9, 31, 60, 125]),
    ("14:56:10", [0, 1, 2, 3, 9, 31, 60, 125]),
    ("14:59:55", [0, 1, 2, 3, 4, 31, 70]),
)


@st.composite
def days(draw: st.DrawFn) -> tuple[list[dict[str, object] | Mark | Heartbeat], Recorded]:
    """Draw one symbol's day: the inputs, and the same for the loops by hand."""
    inputs: list[dict[str, object] | Mark | Heartbeat] = []
    rows: list[Row] = []
    silences: list[tuple[int, int]] = []
    clock, high, low, lots = 0, 0, 10**6, 0
    for start, steps in STRETCHES[draw(st.integers(0, 4)) :]:
        clock = max(clock, ms(start))
        for step in draw(st.lists(st.sampled_from(steps), max_size=9)):
            clock += step * SECOND + draw(st.sampled_from([0, 0, 0, 500]))
            if step >= 31 and draw(st.integers(0, 3)) == 0 and clock < ms("15:00:00"):
                end = clock + draw(st.sampled_from([40, 100, 200])) * SECOND
                inputs += [Mark(MarkKind.SILENT, clock, ""), Mark(MarkKind.ALIVE, end, "")]
                silences.append((clock, end))
                clock = end
            cents = draw(st.sampled_from([995, 1000, 1001, 1010, 1020]))
            unseen = draw(st.sampled_from([0, 0, 0, 3]))
            high, low = max(high, cents + unseen), min(low, cents - unseen)
            lots += draw(st.sampled_from([0, 0, 1, 30]))
            status = 13 if clock < ms("15:00:00") else draw(st.sampled_from([13, 18, 15]))
            price = draw(st.sampled_from([cents, cents, cents, 0])) if clock < ms("09:30:20") else cents
            inputs.append(
                tick(
                    "00:00:00", price / 100 if price else nan, status=status, volume_lots=float(lots),
                    amount_cny=lots * 1000.0, high=high / 100, low=low / 100,
                ) | {"ts": clock}
            )  # fmt: skip
            seen = None if price == 0 or clock < ms("09:25:00") else price
            rows.append(Row(clock, seen, high, low, lots * 100, lots * 1000.0, status))
    beat = clock + draw(st.sampled_from([0, 2, 3, 60, 900])) * SECOND
    inputs.append(Heartbeat(max(beat, ms("09:00:00"))))
    return inputs, Recorded({SYMBOL: rows}, [*(row.ts_ms for row in rows), max(beat, ms("09:00:00"))], silences)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(days())
def test_bars_of_random_days_are_those_made_by_hand(
    day: tuple[list[dict[str, object] | Mark | Heartbeat], Recorded],
) -> None:
    inputs, session = day
    watch = Watch(*(bar_rule(period) for period in PERIODS))
    watch.take(*inputs)
    for period in PERIODS:
        bars = hand.bars(session, SYMBOL, period)
        expected = {}
        for place, bar in enumerate(bars):
            if hand.is_heard(bar, session.silences):
                before = bars[place - 1].values if place else (None,) * 6
                expected[hand.at(bar.end_ms)[:5]] = (*bar.told, before[3], before[4])
        found = {end: _whole(values) for end, values in told(watch, period).items()}
        assert found == expected, period


def _whole(values: dict[str, float | None]) -> tuple[object, ...]:
    """Return O H L C in cents, V in shares, AMO in yuan, and the last bar's C and V, None where unknown."""
    scales = {"O1": 100, "H1": 100, "L1": 100, "C1": 100, "V1": 100, "A1": 1, "RC": 100, "RV": 100}
    return tuple(None if values[name] is None else round(values[name] * scale, 6) for name, scale in scales.items())  # type: ignore[operator]
