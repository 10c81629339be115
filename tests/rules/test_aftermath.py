"""Prices after a fire, against the recorded ticks looked up by brute force."""

from __future__ import annotations

from bisect import bisect_right
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feeds.inputs import Control, ControlKind, Heartbeat, Mark, MarkKind
from feeds.recording import inputs
from feeds.sessions import unix_ms
from rules.aftermath import MINUTES, Aftermath, Outcome
from rules.engine import Engine
from rules.rulefile import load
from rules.testfeed import lay_out
from rules.testfile import read_suite
from tests.rules.ticks import SYMBOL, batch, ms, tick

RULES = """\
version: 1
groups:
- name: g
  rules:
  - {id: over, select: all, when: LAST > 10, rearm: LAST < 9, freq: always}
"""


def followed(*segments: str, quiet_until: int | None = None) -> list[Outcome]:
    text = "rule_files: [r]\ntests:\n- name: t\n  symbol: 600519.SH\n  expect: []\n  feed:\n"
    (case,) = read_suite(text + "".join(f"  - {{{segment}}}\n" for segment in segments), file="t").cases
    engine = Engine()
    engine.step(Control(ControlKind.RULES, load({"r": RULES}).source))
    aftermath = Aftermath(engine.market)
    end = [] if quiet_until is None else [Heartbeat(quiet_until)]
    for given in [*lay_out(case, read=lambda segment: ()), *end]:
        aftermath.before(given)  # type: ignore[arg-type]
        for alert in engine.step(given):  # type: ignore[arg-type]
            aftermath.note(alert)
    aftermath.finish()
    return aftermath.outcomes


def later(outcome: Outcome) -> tuple[float | None, float | None]:
    return outcome.later.get(5), outcome.later.get(30)


def test_the_price_is_the_last_one_known_when_the_time_has_passed() -> None:
    (one,) = followed('start: "10:00:00", step: 60s, LAST: "9 11 12 13 14 15 16 17*30"')
    assert one.last == 11
    assert later(one) == (16, 17)  # the tick of that very time counts
    assert one.change(5) == pytest.approx(100 * 5 / 11)


def test_a_time_that_does_not_come_leaves_the_price_unknown() -> None:
    (one,) = followed('start: "10:00:00", step: 60s, LAST: "9 11 12 13"')
    assert later(one) == (None, None)
    assert (one.change(5), one.change(30)) == (None, None)
    (one,) = followed('start: "10:00:00", step: 60s, LAST: "9 11 12"', quiet_until=unix_ms(20250102, 36_361_000))
    assert later(one) == (12, None)  # the clock came there, though no tick did


def test_trading_time_stands_still_over_lunch_and_night() -> None:
    (one,) = followed(
        'start: "11:27:00", step: 60s, LAST: "9 11 12 12"',
        'start: "13:00:00", step: 60s, LAST: "13 14 15 16 17*30"',
    )
    assert later(one) == (16, 17)
    (one,) = followed(
        'start: "14:55:00", step: 60s, LAST: "9 11 12 12 12 13"',
        'date: 2025-01-03, start: "09:30:00", step: 60s, LAST: "20 21 22*40"',
    )
    assert later(one) == (21, 22)


def test_a_time_that_falls_on_the_close_has_the_closing_price() -> None:
    (one,) = followed(
        'start: "14:54:00", step: 60s, LAST: "9 11 12 12 12 12 13"',
        'date: 2025-01-03, start: "09:15:00", step: 60s, LAST: "nan*15 20 21"',
    )
    assert later(one)[0] == 13


def test_ticks_that_the_engine_does_not_take_make_no_time_pass() -> None:
    engine = Engine()
    engine.step(Control(ControlKind.RULES, load({"r": RULES}).source))
    aftermath = Aftermath(engine.market)
    of_yesterday = tick("15:00:00", 5.0, symbol="000001.SZ", day=20230131)
    ahead = tick("10:40:00", 6.0, symbol="000001.SZ", recv=ms("10:02:00"))
    on_the_day = [tick(f"10:0{minute}:00", 9.0 + 2 * min(minute, 2) + minute) for minute in range(8)]
    late_mark = Mark(MarkKind.ALIVE, ms("14:59:00", 20230131), "test")
    for given in (*on_the_day[:3], of_yesterday, late_mark, ahead, *on_the_day[3:]):
        value = batch(given) if isinstance(given, dict) else given
        aftermath.before(value)
        for alert in engine.step(value):
            aftermath.note(alert)
    aftermath.finish()
    (one,) = [outcome for outcome in aftermath.outcomes if outcome.alert.symbol == SYMBOL]
    assert (one.alert.ts_event_ms, later(one)) == (ms("10:01:00"), (19.0, None))


def test_fires_of_a_recorded_day_against_the_rows_themselves(market_data: Path) -> None:
    file = market_data / "sessions" / "600519-000333-20230201.parquet"
    rules = (
        "version: 1\ngroups:\n- {name: g, rules: [{id: a, select: all, when: 'CROSS(LAST, DAYOPEN)', freq: always}]}"
    )
    engine = Engine()
    engine.step(Control(ControlKind.RULES, load({"r": rules}).source))
    aftermath = Aftermath(engine.market)
    for given in inputs([file]):
        aftermath.before(given.value)
        for alert in engine.step(given.value):
            aftermath.note(alert)
    aftermath.finish()
    assert len(aftermath.outcomes) > 5
    frame = pd.read_parquet(file, columns=["symbol", "ts_event", "last"])
    for outcome in aftermath.outcomes:
        rows = frame[(frame["symbol"] == outcome.alert.symbol) & (frame["last"] > 0)]
        times = rows["ts_event"].tolist()
        for minutes in MINUTES:
            due = _add_trading_minutes(outcome.alert.ts_event_ms, minutes)
            expected = None if due is None else float(rows["last"].iloc[bisect_right(times, due) - 1])
            assert outcome.later.get(minutes) == expected


def _add_trading_minutes(ts_ms: int, minutes: int) -> int | None:
    """Walk through the day second by second of trading time; None beyond the close."""
    midnight = (ts_ms + 28_800_000) // 86_400_000 * 86_400_000 - 28_800_000
    clock = ts_ms - midnight + minutes * 60_000
    if ts_ms - midnight <= 41_400_000 < clock:
        clock += 5_400_000
    return None if clock > 54_000_000 else midnight + clock


def test_only_sent_fires_of_symbols_are_followed() -> None:
    outcomes = followed('start: "10:00:00", LAST: "9 11 8 11 8 11"')
    assert [outcome.alert.event for outcome in outcomes] == ["fire"] * 3
    assert np.array([outcome.last for outcome in outcomes]).tolist() == [11, 11, 11]
