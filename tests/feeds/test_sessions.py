"""The trading clock against a minute-by-minute brute force, and the calendar against the exchange's recorded days."""

from __future__ import annotations

import csv
import gzip
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.sessions import (
    DAY_MS,
    SPANS,
    Calendar,
    Session,
    date_text,
    day_ms,
    day_number,
    elapsed_ms,
    in_session,
    midnight_ms,
    session_clock_ms,
    session_length_ms,
    sessions_since,
    trade_date,
    trading_clock_ms,
    unix_ms,
)

SHANGHAI = timezone(timedelta(hours=8))
moments = st.integers(unix_ms(19950101), unix_ms(20991231))
session_sets = st.lists(st.sampled_from(list(Session)), min_size=1, max_size=5).map(tuple)


def at(text: str, date: int = 20230201) -> int:
    """Return the Unix ms of ``09:30:00.000`` on a date."""
    hours, minutes, seconds = text.split(":")
    return unix_ms(date, (int(hours) * 60 + int(minutes)) * 60_000 + round(float(seconds) * 1000))


@given(moments)
def test_days_are_those_of_the_shanghai_wall_clock(ts_ms: int) -> None:
    wall = datetime.fromtimestamp(ts_ms // 1000, SHANGHAI)
    assert trade_date(ts_ms) == int(wall.strftime("%Y%m%d"))
    assert date_text(ts_ms) == wall.strftime("%Y-%m-%d")
    assert day_ms(ts_ms) == (wall.hour * 3600 + wall.minute * 60 + wall.second) * 1000 + ts_ms % 1000
    assert midnight_ms(ts_ms) + day_ms(ts_ms) == ts_ms
    assert unix_ms(trade_date(ts_ms), day_ms(ts_ms)) == ts_ms


@given(st.lists(moments, min_size=1, max_size=20), session_sets)
def test_arrays_give_what_scalars_give(times: list[int], sessions: tuple[Session, ...]) -> None:
    array = np.array(times, np.int64)
    for function in (day_ms, midnight_ms, day_number, trading_clock_ms):
        assert function(array).tolist() == [function(ts) for ts in times]
    assert in_session(array, sessions).tolist() == [in_session(ts, sessions) for ts in times]
    assert session_clock_ms(array, sessions).tolist() == [session_clock_ms(ts, sessions) for ts in times]
    end = times[0]
    assert elapsed_ms(array, end, sessions).tolist() == [elapsed_ms(ts, end, sessions) for ts in times]


@pytest.mark.parametrize(
    ("text", "session"),
    [
        ("09:14:59.999", None),
        ("09:15:00.000", Session.OPEN_AUCTION),
        ("09:29:59.999", Session.OPEN_AUCTION),
        ("09:30:00.000", Session.CONTINUOUS),
        ("11:30:00.000", Session.CONTINUOUS),
        ("11:30:00.001", None),
        ("12:59:59.999", None),
        ("13:00:00.000", Session.CONTINUOUS),
        ("14:56:59.999", Session.CONTINUOUS),
        ("14:57:00.000", Session.CLOSE_AUCTION),
        ("15:00:00.000", Session.CLOSE_AUCTION),
        ("15:00:00.001", Session.AFTER_HOURS),
        ("15:30:00.000", Session.AFTER_HOURS),
        ("15:30:00.001", None),
    ],
)
def test_each_moment_belongs_to_one_session_at_most(text: str, session: Session | None) -> None:
    inside = {one for one in Session if one is not Session.ALL_TRADING and in_session(at(text), one)}
    assert inside == ({session} if session else set())
    assert in_session(at(text), Session.ALL_TRADING) is (session is not None)


def test_all_trading_is_the_union_of_the_others() -> None:
    edges = {edge for spans in SPANS.values() for span in spans for edge in (span.first_ms, span.last_ms)}
    times = np.array(sorted(at("00:00:00") + edge + step for edge in edges for step in (-1, 0, 1)))
    others = tuple(session for session in Session if session is not Session.ALL_TRADING)
    assert in_session(times, others).tolist() == in_session(times, Session.ALL_TRADING).tolist()


@given(session_sets, st.integers(0, 24 * 60))
def test_session_clock_counts_the_minutes_inside_once(sessions: tuple[Session, ...], minute: int) -> None:
    midnight = at("00:00:00")
    middles = [midnight + index * 60_000 + 30_000 for index in range(minute)]
    brute = sum(any(in_session(ts, session) for session in sessions) for ts in middles) * 60_000
    now = midnight + minute * 60_000
    if minute < 24 * 60:
        assert session_clock_ms(now, sessions) == brute
    else:
        assert session_length_ms(sessions) == brute


def test_trading_clock_stands_still_at_lunch_and_outside_of_trading() -> None:
    texts = ["00:00:00", "09:30:00", "10:00:00", "11:30:00", "12:15:00", "13:00:00", "14:59:00", "15:00:00", "23:59:59"]
    minutes = [trading_clock_ms(at(text)) / 60_000 for text in texts]
    assert minutes == [0, 0, 30, 120, 120, 120, 239, 240, 240]


def test_nine_seconds_before_lunch_and_twentyone_after_are_thirty() -> None:
    assert elapsed_ms(at("11:29:51"), at("13:00:21"), Session.CONTINUOUS) == 30_000


def test_elapsed_skips_the_spring_festival_with_a_calendar_and_only_weekends_without() -> None:
    start, end = at("14:56:00", 20230120), at("09:31:00", 20230130)  # Friday before, Monday after the festival
    calendar = Calendar([20230119, 20230120, 20230130, 20230131])
    assert elapsed_ms(start, end, Session.CONTINUOUS, calendar=calendar) == 2 * 60_000
    assert elapsed_ms(end, start, Session.CONTINUOUS, calendar=calendar) == -2 * 60_000
    assert elapsed_ms(start, end, Session.CONTINUOUS) == 2 * 60_000 + 5 * session_length_ms(Session.CONTINUOUS)
    saturday = at("10:00:00", 20230121)
    assert elapsed_ms(saturday, saturday + DAY_MS, Session.CONTINUOUS, calendar=calendar) == 0


@given(moments, moments, session_sets)
def test_elapsed_adds_up_over_any_point_between(start: int, end: int, sessions: tuple[Session, ...]) -> None:
    calendar = Calendar([20200102, 20200103, 20200106])
    middle = (start + end) // 2
    parts = [elapsed_ms(a, b, sessions, calendar=calendar) for a, b in ((start, middle), (middle, end))]
    assert sum(parts) == elapsed_ms(start, end, sessions, calendar=calendar)


def test_calendar_steps_over_holidays_and_says_what_it_knows() -> None:
    calendar = Calendar([20230120, 20230119, 20230130])
    assert (calendar.first_known, calendar.last_known, len(calendar)) == (20230119, 20230130, 3)
    assert calendar.next(20230120) == 20230130
    assert calendar.previous(20230130) == 20230120
    assert not calendar.is_trading(20230125)
    assert calendar.knows(20230125)
    assert calendar.between(20230119, 20230130) == 3
    assert sessions_since(20230120, 20230130, calendar=calendar) == 2
    assert sessions_since(20230130, 20230120, calendar=calendar) == 0


def test_beyond_what_it_knows_a_calendar_takes_weekdays() -> None:
    calendar = Calendar([20230119, 20230120])
    assert not calendar.knows(20230123)
    assert calendar.is_trading(20230123)  # a Monday, in truth a holiday: an old calendar errs towards watching
    assert not calendar.is_trading(20230121)
    assert calendar.next(20230120) == 20230123
    assert calendar.previous(20230119) == 20230118
    assert calendar.between(20230116, 20230127) == 10
    assert Calendar(()).last_known is None


@given(
    st.integers(19700101, 20991231).filter(lambda day: day % 100 in range(1, 29) and day // 100 % 100 in range(1, 13))
)
def test_days_before_counts_one_by_one(date: int) -> None:
    calendar = Calendar([20230119, 20230120, 20230130])
    number = day_number(unix_ms(date))
    assert calendar.days_before(number + 1) - calendar.days_before(number) == calendar.trades_on(number)


@pytest.mark.parametrize("wrong", [20230229, 20231301, 0, -5, 99999999])
def test_a_number_that_is_no_date_is_refused(wrong: int) -> None:
    with pytest.raises(FeedError, match="yyyymmdd"):
        Calendar([wrong])


def test_xshg_is_the_recorded_calendar(market_data: Path) -> None:
    with gzip.open(market_data / "tables" / "trade_calendar.csv.gz", "rt") as file:
        days = [int(row["trade_date"].replace("-", "")) for row in csv.DictReader(file)]
    calendar = Calendar.xshg()
    assert calendar.first_known == 19901219
    assert calendar.between(days[0], days[-1]) == len(days)
    assert all(calendar.is_trading(day) for day in days)
    assert [calendar.next(day) for day in days[:-1]] == days[1:]


def test_other_days_replace_those_between_their_first_and_last() -> None:
    calendar = Calendar([20230103, 20230104, 20230105, 20230106, 20230109])
    merged = calendar.overridden([20230106, 20230104])
    assert [day for day in range(20230103, 20230110) if merged.is_trading(day)] == [
        20230103, 20230104, 20230106, 20230109,
    ]  # fmt: skip
    assert calendar.overridden([]) is calendar
    assert (merged.first_known, merged.last_known) == (20230103, 20230109)
    assert calendar.overridden([20230110]).last_known == 20230110


def test_differences_are_those_within_what_both_know() -> None:
    calendar = Calendar([20230103, 20230104, 20230105, 20230106])
    assert calendar.differences([20230104, 20230105, 20230107]) == ([], [20230106])
    assert calendar.differences([20230103, 20230106, 20230107]) == ([], [20230104, 20230105])
    assert Calendar([20230103, 20230106]).differences([20230103, 20230104, 20230106]) == ([20230104], [])
    assert calendar.differences([]) == ([], [])
