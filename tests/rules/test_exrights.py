"""Ex-rights days in the engine: who tells of them, when they are believed, and what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.exrights import ExRight, decode_exrights, encode_exrights
from feeds.inputs import Control, ControlKind, Heartbeat, Mark, MarkKind
from feeds.tick import TickBatch
from rules.engine import Engine
from rules.positions import Position, encode
from tests.rules.ticks import SYMBOL, Watch, heartbeat, mark, ms, rules, tick

EX = 20230202
"""The Thursday after DAY; the day of the tests' ex-rights."""
ABOVE = 'id: above, select: all, when: "CROSS(LAST, 10)", rearm: "LAST < 9.5", freq: always'
UNDER = 'id: under, select: all, when: "CROSS(10, LAST)", rearm: "LAST > 10.5", freq: always'
FALL = 'id: fall, select: all, when: "CROSS(REF(LAST,1)*0.9, LAST)", rearm: "1>0", freq: always'
MEAN = (
    'id: mean, select: all, period: 1m, eval: tick, when: "M: MA(C,3); M > 0", freq: once_per_day, on_start: fire, '
    "session: all_trading"
)
MEAN_DAYS = 'id: days, select: all, period: 1d, when: "M: REF(C,1); C > 0", freq: once_per_day, on_start: fire'


def exrights(*days: ExRight, closed: tuple[int, ...] = ()) -> Control:
    return Control(ControlKind.EXRIGHTS, encode_exrights(days, closed=closed))


def day(*pairs: tuple[str, float], date: int = 20230201, **columns: Any) -> list[dict[str, Any]]:
    """Return a day's ticks, with volume; the last of the day is stamped as given."""
    return [
        tick(clock, last, day=date, **{"volume_lots": 100.0 + k, "amount_cny": 1e5 + k, **columns})
        for k, (clock, last) in enumerate(pairs)
    ]


def whole_day(close: float, *, date: int = 20230201, **columns: Any) -> list[dict[str, Any]]:
    """Return a day that surely closed at this price."""
    return day(("09:30:00", close), ("14:56:57", close), ("15:00:02", close), date=date, **columns)


def value_of(watch: Watch, rule: str, symbol: str = SYMBOL) -> float | None:
    """Return the rule's output M as it stands."""
    return watch.engine.values(symbol)[rule]["M"]


def ex_date(watch: Watch, symbol: str = SYMBOL) -> int:
    market = watch.engine.market
    return int(market.exrights.ex_date.array[market.universe.row(symbol)]) if len(market.universe.symbols) else 0


# ── the feed tells ────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_previous_close_that_is_not_the_last_close_is_the_reference_price_of_an_ex_rights_day() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0), *day(("09:30:00", 9.9), date=EX, prev_close=10.0))
    assert value_of(watch, "days") == 10.0
    assert ex_date(watch) == EX


@pytest.mark.parametrize(("prev", "is_ex"), [(20.0, False), (20.004, False), (19.996, False), (19.99, True)])
def test_half_a_tick_is_rounding(prev: float, is_ex: bool) -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0), *day(("09:30:00", 19.0), date=EX, prev_close=prev))
    assert (ex_date(watch) == EX) == is_ex


def test_half_a_tick_of_a_fund_is_less() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(2.0, symbol="510300.SH"))
    watch.take(*day(("09:30:00", 1.99), date=EX, prev_close=1.998, symbol="510300.SH"))
    assert ex_date(watch, "510300.SH") == EX


def test_an_index_never_goes_ex() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(3288.0834, symbol="000001.SH"))
    watch.take(*day(("09:30:00", 3280.0), date=EX, prev_close=3288.08, symbol="000001.SH"))
    assert ex_date(watch, "000001.SH") == 0


@pytest.mark.parametrize(
    "before",
    [
        day(("09:30:00", 20.0), ("14:56:57", 20.0)),  # who knows what became of it until 15:00
        day(("09:30:00", 20.0), ("15:00:00", 20.0)),  # the closing auction's result comes after it
        day(("09:30:00", 20.0), ("15:00:01.999", 20.0), status=18),
        whole_day(20.0, date=20230131),  # the day before that
        [],
    ],
)
def test_a_close_that_is_not_surely_yesterdays_tells_nothing(before: list[dict[str, Any]]) -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*before, *day(("09:30:00", 9.9), date=EX, prev_close=10.0))
    assert ex_date(watch) == 0


@pytest.mark.parametrize("kind", ["gap", "silent"])
@pytest.mark.parametrize(
    ("missed", "is_behind"),
    [
        ("15:00:00", False), ("15:00:02", True), ("15:00:03", True), ("15:01:00", True),
        ("14:00:00", True),  # the feed's clock was put back: it is behind the tick all the same
    ],
)  # fmt: skip
def test_what_was_missed_behind_a_days_last_tick_may_have_been_its_close(
    kind: str, missed: str, is_behind: bool
) -> None:
    watch = Watch(MEAN_DAYS)
    first, last = day(("09:30:00", 20.0), ("15:00:02.500", 20.0))
    watch.take(first, *((last, mark(kind, missed)) if is_behind else (mark(kind, missed), last)))
    watch.take(*day(("09:30:00", 20.4), date=EX, prev_close=20.3))
    assert ex_date(watch) == (0 if is_behind else EX)


def test_the_latest_of_all_that_was_missed_counts() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0), mark("gap", "15:00:02"), mark("gap", "11:00:00"))
    watch.take(*day(("09:30:00", 20.4), date=EX, prev_close=20.3))
    assert ex_date(watch) == 0


@pytest.mark.parametrize("status", [15, 22, 23])
def test_a_closing_status_tells_the_close_whatever_was_missed(status: int) -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*day(("09:30:00", 20.0)), *day(("15:00:00", 20.0), status=status), mark("gap", "15:00:00"))
    watch.take(*day(("09:30:00", 9.9), date=EX, prev_close=10.0))
    assert ex_date(watch) == EX


def test_what_was_missed_in_the_night_says_nothing_of_the_next_close() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0), mark("gap", "15:00:02"), *whole_day(20.2, date=EX, prev_close=20.0))
    watch.take(*day(("09:30:00", 9.9), date=20230203, prev_close=10.0))
    assert ex_date(watch) == 20230203


def test_over_a_weekend_friday_is_the_trading_day_before_and_over_holidays_the_calendar_knows() -> None:
    friday, monday = 20230203, 20230206
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0, date=friday), heartbeat("10:00:00", 20230204))
    watch.take(*day(("09:30:00", 9.9), date=monday, prev_close=10.0))
    assert ex_date(watch) == monday
    before, after, holidays = 20230120, 20230130, tuple(range(20230123, 20230128))
    for known in (False, True):
        watch = Watch(MEAN_DAYS)
        watch.take(*([exrights(closed=holidays)] if known else []), *whole_day(20.0, date=before))
        watch.take(*day(("09:30:00", 9.9), date=after, prev_close=10.0))
        assert ex_date(watch) == (after if known else 0)


def test_a_stock_that_did_not_trade_keeps_its_close_unless_ticks_are_missing() -> None:
    for missing in (False, True):
        watch = Watch(MEAN_DAYS)
        watch.take(*whole_day(20.0), *whole_day(20.0, symbol="000001.SZ"))
        watch.take(*([mark("gap", "10:00:00", EX)] if missing else []))
        watch.take(*whole_day(20.0, date=EX, symbol="000001.SZ", prev_close=20.0))
        watch.take(*day(("09:30:00", 9.9), date=20230203, prev_close=10.0))
        assert ex_date(watch) == (0 if missing else 20230203)


def test_a_suspended_stock_goes_ex_when_its_reference_price_does() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0))
    watch.take(*day(("09:30:00", float("nan")), ("15:00:02", float("nan")), date=EX, status=1, prev_close=10.0,
                    volume_lots=0.0))  # fmt: skip
    assert ex_date(watch) == EX
    watch.take(*day(("09:30:00", 10.1), date=20230203, prev_close=10.0))
    assert ex_date(watch) == EX
    assert value_of(watch, "days") == 10.0


def test_before_the_auction_a_stale_previous_close_is_not_believed_and_a_wrong_one_can_be_put_right() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0))
    watch.take(tick("09:00:00", 20.0, day=EX, prev_close=19.0))
    assert ex_date(watch) == 0
    watch.take(
        tick("09:15:00", float("nan"), day=EX, prev_close=19.0), tick("09:20:00", float("nan"), day=EX, prev_close=20.0)
    )
    watch.take(*day(("09:30:00", 20.2), date=EX, prev_close=20.0))
    assert value_of(watch, "days") == pytest.approx(20.0, rel=1e-12)


def test_what_the_feed_takes_back_is_no_ex_rights_day_of_any_rule() -> None:
    stream = [*whole_day(20.0), tick("09:15:00", float("nan"), day=EX, prev_close=19.5),
              tick("09:15:30", float("nan"), day=EX, prev_close=19.3),
              tick("09:16:00", float("nan"), day=EX, prev_close=20.0),
              *day(("09:30:00", 9.8), ("10:00:00", 10.2), date=EX, prev_close=20.0)]  # fmt: skip
    for cut in range(len(stream)):
        watch = Watch(ABOVE)
        watch.take(*stream[:cut])
        assert ex_date(watch) == (EX if cut in (4, 5) else 0)
        arrays, header = watch.engine.checkpoint()
        watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
        watch.take(*stream[cut:])
        assert ex_date(watch) == 0
        row = watch.engine.market.universe.row(SYMBOL)
        assert not watch.engine.market.exrights.is_ex(row, ms("10:00:00", EX))
        assert [(one.rule, one.gap) for one in watch.events] == [("above", None)]


def test_what_the_feed_takes_back_and_tells_again_is_one() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0))
    for k, prev in enumerate((19.5, 20.0, 10.0)):
        watch.take(tick(f"09:15:{k:02}", float("nan"), day=EX, prev_close=prev))
    assert ex_date(watch) == EX
    watch.take(*whole_day(10.0, date=EX, prev_close=10.0), *day(("09:30:00", 4.9), date=20230203, prev_close=5.0))
    assert ex_date(watch) == 20230203
    assert value_of(watch, "days") == 5.0


def test_after_the_first_price_of_the_day_nothing_is_changed_any_more() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(20.0), *day(("09:30:00", 19.9), date=EX, prev_close=float("nan")))
    watch.take(*day(("09:30:03", 19.9), date=EX, prev_close=10.0))
    assert ex_date(watch) == 0


# ── a record tells ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("record", "close", "expected"),
    [
        (ExRight(SYMBOL, EX, factor=0.5), 20.0, 10.0),
        (ExRight(SYMBOL, EX, cash_cny=1.0), 20.0, 19.0),
        (ExRight(SYMBOL, EX, bonus=1.0), 20.0, 10.0),
        (ExRight(SYMBOL, EX, cash_cny=2.0, bonus=0.5, rights=0.3, rights_cny=10.0), 20.0, 21.0 / 1.8),
    ],
)
def test_a_record_is_believed_whatever_the_previous_close_says(record: ExRight, close: float, expected: float) -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(exrights(record), *whole_day(close), *day(("09:30:00", 9.9), date=EX, prev_close=close))
    assert value_of(watch, "days") == pytest.approx(expected, rel=1e-12)
    assert ex_date(watch) == EX


def test_records_of_days_on_which_the_symbol_was_away_are_made_up_for_once() -> None:
    watch = Watch(MEAN_DAYS)
    days = ExRight(SYMBOL, EX, factor=0.5), ExRight(SYMBOL, 20230203, factor=0.8), ExRight(SYMBOL, 20230207, factor=0.1)
    watch.take(exrights(*days), *whole_day(20.0))
    watch.take(*day(("09:30:00", 8.1), ("09:30:03", 8.2), date=20230206, prev_close=8.0))
    assert value_of(watch, "days") == pytest.approx(8.0, rel=1e-12)
    assert ex_date(watch) == 0  # today is none
    watch.take(exrights(*days))
    watch.take(*day(("09:30:06", 8.3), date=20230206, prev_close=8.0))
    watch.take(*day(("09:31:00", 0.8), date=20230207, prev_close=8.0))
    assert value_of(watch, "days") == pytest.approx(8.3 * 0.1, rel=1e-12)


def test_bonus_shares_multiply_the_volumes_of_before() -> None:
    watch = Watch('id: v, select: all, period: 1d, when: "M: REF(V,1); C > 0", on_start: fire')
    watch.take(exrights(ExRight(SYMBOL, EX, bonus=1.0)), *whole_day(20.0), *day(("09:30:00", 9.9), date=EX))
    assert value_of(watch, "v") == 2 * 102.0


@pytest.mark.parametrize(
    "days",
    [
        [ExRight(SYMBOL, EX, cash_cny=20.0)],
        [ExRight(SYMBOL, EX, rights=99.0, rights_cny=999_999.0)],
        [ExRight(SYMBOL, 20230202, factor=0.01), ExRight(SYMBOL, 20230203, factor=0.01)],
        [ExRight(SYMBOL, 20230202, factor=0.9, bonus=98.0), ExRight(SYMBOL, 20230203, factor=0.9, bonus=1.0)],
    ],
)
def test_records_that_come_to_a_factor_out_of_bounds_are_not_believed_and_the_feed_tells(days: list[ExRight]) -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(exrights(*days, closed=(EX,) if len(days) > 1 else ()), *whole_day(20.0))
    date = days[-1].date
    watch.take(*day(("09:30:00", 9.9), date=date, prev_close=10.0))
    assert value_of(watch, "days") == 10.0
    assert ex_date(watch) == date
    why = f"records up to {date} come to a factor out of bounds"
    assert watch.engine.market.exrights.unbelieved == {(SYMBOL, date): why}


def test_a_previous_close_that_is_no_reference_price_of_anything_is_noted_once() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(200.0))
    for k in range(3):
        watch.take(tick(f"09:15:{k:02}", float("nan"), day=EX, prev_close=1.0))
    watch.take(*day(("09:30:00", 1.0), date=EX, prev_close=1.0))
    why = "previous close 1 after a close of 200: a factor out of bounds"
    assert watch.engine.market.exrights.unbelieved == {(SYMBOL, EX): why}


def test_what_the_feed_tells_bit_by_bit_stays_within_bounds_as_well() -> None:
    watch = Watch(MEAN_DAYS)
    watch.take(*whole_day(200.0))
    for k, prev in enumerate((20.0, 2.0, 1.0)):
        watch.take(tick(f"09:15:{k:02}", float("nan"), day=EX, prev_close=prev))
    watch.take(*day(("09:30:00", 1.0), date=EX, prev_close=1.0))
    assert value_of(watch, "days") == pytest.approx(2.0, rel=1e-12)


def test_hundreds_of_tiny_factors_before_a_rights_issue_stop_nothing() -> None:
    dates = [20220000 + month * 100 + one for month in range(1, 9) for one in range(1, 27)]
    tiny = (ExRight(SYMBOL, date, factor=0.01) for date in dates)
    watch = Watch(MEAN_DAYS)
    watch.take(exrights(*tiny, ExRight(SYMBOL, 20221001, rights=0.3, rights_cny=5.0)))
    watch.take(*whole_day(20.0, date=20211231), *day(("09:30:00", 19.0), date=EX, prev_close=20.0))
    assert value_of(watch, "days") == 20.0


AMOUNTS = st.one_of(
    st.sampled_from([0, 0.0, -0.0, 1, 0.01, 0.3, 5e-324, 19.99, 20, 98.99, 99, 100, 99_999, 500_000, 999_999.9, True]),
    st.floats(0, 1e6, exclude_max=True),
)
FACTORS = st.one_of(st.none(), st.sampled_from([0.01, 1, 0.5, 100, 0, True]), st.floats(0.01, 100))
RECORDS = st.tuples(
    st.sampled_from([SYMBOL, "000001.SZ", "000001.SH"]),
    st.sampled_from([20230201, EX, 20230203, 20230206, *range(20230101, 20230132)]),
    FACTORS, AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS,
)  # fmt: skip
CLOSES = st.sampled_from([20.0, 0.01, 1e-300, 0.0, -1.0, 1e6, float("nan")])
YEAR = [20220000 + month * 100 + one for month in range(1, 13) for one in range(1, 26)]


@settings(max_examples=60, deadline=None)
@given(
    records=st.lists(RECORDS, max_size=20, unique_by=lambda one: one[:2]),
    run=st.tuples(st.sampled_from([0.01, 0.5, 1.0, 100.0]), st.sampled_from([0, 1, 2, 170, 300])),
    closed=st.lists(st.sampled_from([20230202, 20230203, 20230131]), unique=True),
    closes=st.lists(st.tuples(CLOSES, CLOSES), min_size=4, max_size=4),
)
@example(records=[(SYMBOL, 20230115, None, 0, 0, 0.3, 5.0)], run=(0.01, 300), closed=[], closes=[(20.0, 20.0)] * 4)
def test_no_record_that_is_taken_stops_the_engine(
    records: list[tuple[Any, ...]],
    run: tuple[float, int],
    closed: list[int],
    closes: list[tuple[float, float]],
) -> None:
    good = [one for one in records if not is_refused([one], closed)]
    good += [(SYMBOL, date, run[0], 0, 0, 0, 0) for date in YEAR[: run[1]]]
    watch = Watch(ABOVE, MEAN_DAYS)
    watch.take(Control(ControlKind.EXRIGHTS, text_of(good, closed)))
    for date, (close, prev) in zip((20211231, 20230201, EX, 20230203), closes, strict=True):
        for symbol in (SYMBOL, "000001.SH"):
            watch.take(tick("09:15:00", float("nan"), day=date, symbol=symbol, prev_close=prev))
            watch.take(*day(("15:00:02", close), date=date, symbol=symbol, prev_close=prev))
    market = watch.engine.market
    assert (market.date, market.universe.symbols) == (20230203, (SYMBOL, "000001.SH"))
    np.testing.assert_array_equal(market.latest.raw("prev_close"), [closes[-1][1]] * 2)


SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda one: st.lists(one, max_size=8) | st.dictionaries(st.text(), one, max_size=3), max_leaves=12
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_whatever_is_no_table_is_refused_and_nothing_else_happens(value: Any) -> None:
    for row in (value, [value], [SYMBOL, value], [SYMBOL, EX, value], [SYMBOL, EX, 0.5, value], [value] * 7):
        for closed in ([], [value]):
            assert is_refused([row], closed) or isinstance(value, int | float)  # a factor, or cash
            assert is_refused(value, closed) or value == []


def text_of(records: Any, closed: Any) -> str:
    return orjson.dumps({"v": 1, "closed": closed, "exrights": records}).decode()


def is_refused(records: Any, closed: Any) -> bool:
    try:
        decode_exrights(text_of(records, closed))
    except FeedError:
        return True
    return False


# ── what follows ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_cross_over_the_night_fires_because_the_price_starts_lower() -> None:
    watch = Watch(UNDER, FALL)
    watch.take(*whole_day(10.4), *day(("09:30:00", 9.3), date=EX, prev_close=9.36))
    assert watch.events == []
    plain = Watch(UNDER, FALL)
    plain.take(*whole_day(10.4), *day(("09:30:00", 9.3), date=EX, prev_close=10.4))
    assert [one.rule for one in plain.events] == ["under", "fall"]


def test_a_cross_from_the_adjusted_side_fires_and_is_tagged() -> None:
    watch = Watch(ABOVE)
    watch.take(*whole_day(10.4), *day(("09:30:00", 10.1), date=EX, prev_close=9.36))
    assert [(str(one.event), one.gap) for one in watch.events] == [("fire", "exright")]


def test_events_of_absolute_prices_are_tagged_all_day_and_others_are_not() -> None:
    ratio = 'id: ratio, select: all, when: "CROSS(LAST/PRECLOSE, 1.02)", rearm: "PCT < 1", freq: always'
    watch = Watch(ABOVE, ratio)
    watch.take(*whole_day(9.4), *day(("09:30:00", 9.0), ("10:00:00", 10.1), date=EX, prev_close=9.0))
    assert [(one.rule, one.gap) for one in watch.events] == [("above", "exright"), ("ratio", None)]
    watch.take(
        *day(("15:00:00", 9.0), date=EX), *day(("09:30:00", 9.05), ("10:00:00", 10.2), date=20230203, prev_close=9.0)
    )
    assert [(one.rule, one.gap) for one in watch.events[2:]] == [("above", None), ("ratio", None)]


def test_an_absolute_cross_on_bars_is_made_anew() -> None:
    rule = 'id: bar, select: all, period: 5m, when: "CROSS(10, C)", rearm: "C > 10", freq: always'
    watch = Watch(rule)
    watch.take(*whole_day(10.4), *day(("09:30:00", 9.3), date=EX, prev_close=9.36))
    assert watch.events == []


def test_gap_suppress_holds_the_night_back_and_the_tag_stays() -> None:
    watch = Watch(f"{ABOVE}, gap: suppress")
    watch.take(*whole_day(10.4), *day(("09:30:00", 10.1), date=EX, prev_close=9.36))
    assert [(str(one.event), one.why, one.gap) for one in watch.events] == [("suppressed", "gap", "exright")]


def test_a_rise_never_spans_the_night() -> None:
    watch = Watch('id: rise, select: all, when: "RISE(60) < -3", freq: always')
    watch.take(
        *whole_day(20.0), *day(("09:30:00", 10.0), ("09:30:30", 10.0), ("09:31:30", 10.0), date=EX, prev_close=10.0)
    )
    assert watch.events == []


def test_a_position_keeps_its_entry_and_its_peak_follows() -> None:
    legs = "{stop: {when: 'LAST <= ENTRY*(1-5%)'}, trail: {when: 'M: PEAK; LAST <= PEAK*(1-3%)'}}"
    watch = Watch(f"id: stops, select: {{positions: main}}, freq: always, legs: {legs}")
    watch.take(Control(ControlKind.POSITIONS, encode([Position("main", SYMBOL, 19.0, 100.0)])))
    watch.take(*whole_day(20.0), *day(("09:30:00", 9.9), ("09:30:03", 9.6), date=EX, prev_close=10.0))
    assert [(one.leg, one.gap) for one in watch.events] == [("stop", "exright"), ("trail", None)]
    assert watch.events[1].values["M"] == 10.0


def test_a_week_that_goes_on_over_the_day_is_adjusted() -> None:
    watch = Watch('id: week, select: all, period: 1w, when: "M: H; C > 0", on_start: fire, freq: once_per_day')
    watch.take(*day(("09:30:00", 20.0), ("10:00:00", 22.0), ("15:00:02", 20.0), high=22.0))
    watch.take(*day(("09:30:00", 10.2), date=EX, prev_close=10.0, high=10.2))
    assert value_of(watch, "week") == 11.0


def test_a_step_goes_on_from_the_adjusted_price_of_the_last_fire() -> None:
    watch = Watch('id: up, select: all, when: "PCT >= 0", mode: state, freq: {step: 1%}')
    watch.take(*whole_day(20.0, prev_close=19.0), *day(("09:30:00", 10.2), date=EX, prev_close=10.0))
    fires = [one for one in watch.events if str(one.event) == "fire"]
    assert [one.trade_date for one in fires] == ["2023-02-01", "2023-02-02"]


def test_another_symbol_that_one_looks_at_goes_ex() -> None:
    watch = Watch(
        'id: pair, select: [000001.SZ], period: 1d, when: "M: REF(\\"SH600519$CLOSE\\",1); C > 0", on_start: fire'
    )
    watch.take(*whole_day(20.0), *whole_day(5.0, symbol="000001.SZ"), heartbeat("15:02:00"))
    watch.take(*day(("09:30:00", 9.9), date=EX, prev_close=10.0))
    watch.take(*day(("09:30:03", 5.0), date=EX, prev_close=5.0, symbol="000001.SZ"))
    assert value_of(watch, "pair", "000001.SZ") == 10.0


def test_a_restart_on_the_way_changes_nothing() -> None:
    stream = [*whole_day(10.4), tick("09:15:00", float("nan"), day=EX, prev_close=9.36),
              *day(("09:30:00", 10.1), ("09:31:00", 9.2), ("09:32:00", 10.2), date=EX, prev_close=9.36)]  # fmt: skip
    told = exrights(ExRight(SYMBOL, EX, bonus=0.1))
    straight = Watch(ABOVE, MEAN, MEAN_DAYS)
    straight.take(told, *stream)
    for cut in range(len(stream)):
        watch = Watch(ABOVE, MEAN, MEAN_DAYS)
        watch.take(told, *stream[:cut])
        arrays, header = watch.engine.checkpoint()
        watch.engine = Engine.restore(arrays, orjson.loads(orjson.dumps(header)))
        watch.take(*stream[cut:])
        assert [one.to_json() for one in watch.events] == [one.to_json() for one in straight.events]


def test_a_reload_keeps_what_the_last_sample_was() -> None:
    watch = Watch(UNDER)
    watch.take(*whole_day(10.4))
    watch.take(rules(UNDER, FALL), *day(("09:30:00", 9.3), date=EX, prev_close=9.36))
    assert [one.rule for one in watch.events] == []


def test_heartbeats_and_marks_alone_decide_nothing() -> None:
    watch = Watch(ABOVE)
    watch.take(*whole_day(10.4), Heartbeat(ms("09:20:00", EX)), Mark(MarkKind.GAP, ms("09:21:00", EX)))
    assert ex_date(watch) == 0


def test_two_july_days_of_the_whole_market_have_their_ex_rights_stocks(market_data: Path) -> None:
    """Shanghai and Beijing mark theirs with XD, XR or DR in the name: those, and no others of theirs."""
    engine = Engine()
    engine.step(rules('id: any, select: all, period: 1d, when: "C > MA(C,5)", cooldown: 1m'))
    for date, count in ((20260703, 0), (20260706, 41), (20260707, 32)):
        table = pq.read_table(market_data / "tables" / f"market_close_{date}.parquet").to_pandas()
        table = table[table["last"] > 0]
        for clock in ("09:30:00", "15:00:02"):
            engine.step(closes(table, ms(clock, date)))
        symbols = engine.market.universe.symbols
        ex = {symbols[row] for row in np.flatnonzero(engine.market.exrights.ex_date.array == date)}
        marked = set(table["symbol"][table["name"].str.match("XD|XR|DR")])
        assert len(ex) == count
        assert not count or {one for one in ex if not one.endswith("SZ")} == marked


def closes(table: pd.DataFrame, ts_ms: int) -> TickBatch:
    """Return a tick of each row, with its last price and previous close."""
    n = len(table)
    columns = {name: table[name].to_numpy(float) for name in ("last", "prev_close")}
    columns |= {"volume_lots": np.full(n, 100.0), "amount_cny": np.full(n, 1e5)}
    return TickBatch(tuple(table["symbol"]), np.full(n, ts_ms), columns=columns, status=np.full(n, 13, np.int16))
