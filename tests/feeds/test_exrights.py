"""Ex-rights records: their factors, the days between, and the text of a control record."""

from __future__ import annotations

import math

import pytest

from feeds.errors import FeedError
from feeds.exrights import (
    NO_EXRIGHTS,
    ExRight,
    ExRightTable,
    closed_weekdays,
    decode_exrights,
    encode_exrights,
    factors,
)
from feeds.sessions import Calendar

A, B = "600519.SH", "000001.SZ"


@pytest.mark.parametrize(
    ("record", "close", "price", "shares"),
    [
        (ExRight(A, 20230630, factor=0.5), math.nan, 0.5, 1.0),
        (ExRight(A, 20230630, factor=0.5, bonus=1.0), 8.0, 0.5, 2.0),
        (ExRight(A, 20230630, cash_cny=0.5), 10.0, 0.95, 1.0),
        (ExRight(A, 20230630, bonus=0.4), 14.0, 1 / 1.4, 1.4),
        (ExRight(A, 20230630, cash_cny=1.0, bonus=0.5, rights=0.3, rights_cny=8.0), 10.0, 11.4 / 1.8 / 10.0, 1.5),
        (ExRight(A, 20230630, cash_cny=10.0), 10.0, math.nan, 1.0),
        (ExRight(A, 20230630, cash_cny=1.0), math.nan, math.nan, 1.0),
        (ExRight(A, 20230630, cash_cny=1.0), 0.0, math.nan, 1.0),
        (ExRight(A, 20230630, rights=1.0, rights_cny=1.0), 0.0, math.nan, 1.0),
        (ExRight(A, 20230630, rights=1.0, rights_cny=9.0), -1.0, math.nan, 1.0),
        (ExRight(A, 20230630, rights=1.0, rights_cny=9.0), 5e-324, math.nan, 1.0),
        (ExRight(A, 20230630, cash_cny=9.95), 10.0, math.nan, 1.0),
        (ExRight(A, 20230630, rights=50.0, rights_cny=999_999.0), 10.0, math.nan, 1.0),
    ],
)
def test_the_reference_price_is_that_of_the_exchanges(
    record: ExRight, close: float, price: float, shares: float
) -> None:
    assert record.price_factor(close) == pytest.approx(price, rel=1e-12, nan_ok=True)
    assert record.shares == shares


def test_days_one_after_the_other_each_see_the_price_that_the_one_before_has_left() -> None:
    days = ExRight(A, 20230630, bonus=1.0), ExRight(A, 20240630, cash_cny=1.0)
    found = factors(days, 20.0)
    assert (found.price, found.shares) == (pytest.approx(0.5 * 0.9), 2.0)


@pytest.mark.parametrize(
    "days",
    [
        [ExRight(A, 20230601, factor=0.01), ExRight(A, 20230602, factor=0.5)],
        [ExRight(A, 20230601, factor=100.0), ExRight(A, 20230602, factor=2.0), ExRight(A, 20230603, factor=0.1)],
        [ExRight(A, 20230601, factor=0.9, bonus=90.0), ExRight(A, 20230602, factor=0.9, bonus=1.0)],
        [*(ExRight(A, n, factor=0.01) for n in range(200)), ExRight(A, 999, rights=0.3, rights_cny=5.0)],
        [*(ExRight(A, n, factor=100.0) for n in range(200)), ExRight(A, 999, cash_cny=5.0)],
    ],
)
def test_a_product_out_of_bounds_is_not_believed(days: list[ExRight]) -> None:
    found = factors(days, 20.0)
    assert math.isnan(found.price)
    assert math.isnan(found.shares)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (
            ExRight(A, 20230630, bonus=99_999.0),
            "bonus is 99999: one share cannot become more than 100; write new",
        ),
        (
            ExRight(A, 20230630, rights=500_000.0, rights_cny=999_999.0),
            "rights is 500000: one share cannot become",
        ),
        (ExRight(A, 20230630, bonus=50.0, rights=50.0), "bonus is 50: "),
        (ExRight(A, 20230630, cash_cny=1e6), "cash must be a number of 0 or more and below 1000000, not 1e[+]06"),
    ],
)
def test_amounts_out_of_bounds_are_refused_with_what_is_wrong_where_and_what_to_write(
    record: ExRight, told: str
) -> None:
    with pytest.raises(FeedError, match=f"ex-rights day of {A}, 20230630: {told}"):
        encode_exrights([record])


def test_days_between_leave_out_the_first_date_and_take_the_last() -> None:
    days = [ExRight(A, date, factor=0.5) for date in (20230601, 20230605, 20230606)]
    table = ExRightTable(days)
    assert [one.date for one in table.between(A, 20230601, 20230605)] == [20230605]
    assert table.between(B, 0, 20990101) == ()


def test_the_day_before_is_over_weekends_and_the_holidays_told() -> None:
    assert ExRightTable().previous(20230206) == 20230203
    assert ExRightTable().previous(20230130) == 20230127
    holidays = closed_weekdays(Calendar([20230119, 20230120, 20230130, 20230131]), since=20230119)
    assert holidays == [20230123, 20230124, 20230125, 20230126, 20230127]
    assert ExRightTable(closed=holidays).previous(20230130) == 20230120
    assert closed_weekdays(Calendar(()), since=20230101) == []


def test_the_text_of_a_control_record_comes_back_and_equal_sets_are_equal_text() -> None:
    days = [ExRight(A, 20230630, cash_cny=25.911), ExRight(B, 20230614, factor=0.975)]
    text = encode_exrights(days, closed=[20230124, 20230123])
    assert text == encode_exrights(reversed(days), closed=[20230123, 20230124])
    table = decode_exrights(text)
    assert {one for found in table.days.values() for one in found} == set(days)
    assert encode_exrights([]) == NO_EXRIGHTS
    assert decode_exrights(NO_EXRIGHTS).days == {}


@pytest.mark.parametrize(
    "days",
    [
        [ExRight("600519", 20230630, factor=0.5)],
        [ExRight(A, 20230631, factor=0.5)],
        [ExRight(A, 20230630)],
        [ExRight(A, 20230630, factor=0.001)],
        [ExRight(A, 20230630, cash_cny=-1.0)],
        [ExRight(A, 20230630, factor=0.5), ExRight(A, 20230630, cash_cny=1.0)],
    ],
)
def test_what_is_no_ex_rights_day_is_refused(days: list[ExRight]) -> None:
    with pytest.raises(FeedError, match="ex-rights"):
        encode_exrights(days)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"v":2,"closed":[],"exrights":[]}', '{"v":1,"closed":[1],"exrights":[]}',
     '{"v":1,"closed":[],"exrights":[["600519.SH",20230630,"x",0,0,0,0]]}',
     '{"v":1,"closed":[],"exrights":[["600519.SH",20230630,"",0,0,0,0]]}',
     '{"v":1,"closed":[],"exrights":[["600519.SH",20230630,[],1,0,0,0]]}',
     '{"v":1,"closed":[],"exrights":[[["600519.SH"],20230630,0.5]]}',
     '{"v":1,"closed":[],"exrights":[["600519.SH",9223372036854775807,0.5]]}',
     '{"v":1,"closed":[9223372036854775807],"exrights":[]}',
     '{"v":1,"closed":[],"exrights":[[1]]}'],
)  # fmt: skip
def test_a_text_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(FeedError, match="ex-rights"):
        decode_exrights(text)
