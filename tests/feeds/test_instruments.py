"""Price limits against what the exchanges published and what the market did; rounding against Decimal."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_UP, Decimal
from math import isnan, nan
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.errors import FeedError
from feeds.instruments import (
    Board,
    Instrument,
    board_of,
    decode_table,
    encode_table,
    instrument_of,
    is_st,
    limit_permille,
    price_limits,
    price_limits_of,
    tick_of,
)
from feeds.sessions import Calendar

CALENDAR = Calendar([20230410, 20230411, 20230412, 20230413, 20230414, 20230417, 20230418])


@pytest.mark.parametrize(
    ("symbol", "board"),
    [
        ("600519.SH", Board.MAIN),
        ("605499.SH", Board.MAIN),
        ("688981.SH", Board.STAR),
        ("689009.SH", Board.STAR),
        ("000001.SZ", Board.MAIN),
        ("003816.SZ", Board.MAIN),
        ("300750.SZ", Board.CHINEXT),
        ("302132.SZ", Board.CHINEXT),
        ("920081.BJ", Board.BSE),
        ("832000.BJ", Board.BSE),
        ("430047.BJ", Board.BSE),
        ("900901.SH", Board.B_SHARE),
        ("200725.SZ", Board.B_SHARE),
        ("510300.SH", Board.ETF),
        ("588000.SH", Board.ETF),
        ("563300.SH", Board.ETF),
        ("159915.SZ", Board.ETF),
        ("113050.SH", Board.BOND),
        ("123123.SZ", Board.BOND),
        ("000001.SH", Board.INDEX),
        ("399001.SZ", Board.INDEX),
        ("899050.BJ", Board.INDEX),
        ("204001.SH", Board.UNKNOWN),
        ("600519.HK", Board.UNKNOWN),
        ("nonsense", Board.UNKNOWN),
    ],
)
def test_the_code_tells_the_board(symbol: str, board: Board) -> None:
    assert board_of(symbol) is board


def test_ticks_and_lots_follow_the_board() -> None:
    assert (tick_of(Board.MAIN), tick_of(Board.ETF), tick_of(Board.BOND)) == (0.01, 0.001, 0.001)
    assert instrument_of("113050.SH").lot == 10
    assert instrument_of("900901.SH").tick == 0.001
    assert instrument_of("200725.SZ").tick == 0.01


@pytest.mark.parametrize("name", ["ST金一", "*ST国华", "S*ST前锋", "SST华新", "ST 金一", "＊ST国华", "XDST金一"])
def test_special_treatment_is_read_from_the_name(name: str) -> None:
    assert is_st(name)


@pytest.mark.parametrize("name", ["S佳通", "国华退", "退市泽达", "TCL科技", "N托伦斯", "平安银行"])
def test_other_names_are_not_under_special_treatment(name: str) -> None:
    assert not is_st(name)


@pytest.mark.parametrize(
    ("board", "date", "name", "session", "permille"),
    [
        (Board.MAIN, 20260703, "平安银行", None, (100, 100)),
        (Board.MAIN, 20260703, None, None, (100, 100)),
        (Board.MAIN, 20260703, "*ST国华", None, (50, 50)),
        (Board.MAIN, 20260706, "*ST国华", None, (100, 100)),
        (Board.MAIN, 20260707, "S佳通", None, (50, 50)),
        (Board.MAIN, 20260707, "S*ST前锋", None, (50, 50)),
        (Board.MAIN, 20260707, "SST华新", None, (50, 50)),
        (Board.MAIN, 20260707, "国华退", None, (100, 100)),
        (Board.MAIN, 20260707, "N新股", None, None),
        (Board.MAIN, 20260707, "C华润", None, None),
        (Board.MAIN, 20260707, "华润", 5, None),
        (Board.MAIN, 20260707, "华润", 6, (100, 100)),
        (Board.MAIN, 20220707, "华润", 1, None),
        (Board.MAIN, 20220707, "华润", 2, (100, 100)),
        (Board.CHINEXT, 20200821, "宁德时代", None, (100, 100)),
        (Board.CHINEXT, 20200821, "ST宁德", None, (50, 50)),
        (Board.CHINEXT, 20200824, "ST宁德", None, (200, 200)),
        (Board.CHINEXT, 20260707, "C新股", 3, None),
        (Board.STAR, 20211201, "ST科创", None, (200, 200)),
        (Board.STAR, 20211201, "科创", 5, None),
        (Board.BSE, 20260707, "*ST云创", None, (300, 300)),
        (Board.BSE, 20260710, "N欧伦", None, None),
        (Board.BSE, 20260713, "欧伦", 2, (300, 300)),
        (Board.B_SHARE, 20260713, "深纺织B", None, (100, 100)),
        (Board.ETF, 20260707, "沪深300ETF", None, (100, 100)),
        (Board.ETF, 20260707, "科创50ETF", None, (200, 200)),
        (Board.ETF, 20260707, None, None, None),
        (Board.BOND, 20220729, "浦发转债", None, None),
        (Board.BOND, 20220801, "浦发转债", None, (200, 200)),
        (Board.BOND, 20220801, "浦发转债", 1, (573, 433)),
        (Board.INDEX, 20260707, "上证指数", None, None),
        (Board.UNKNOWN, 20260707, None, None, None),
    ],
)
def test_limits_of_boards_by_date_and_name(
    board: Board, date: int, name: str | None, session: int | None, permille: tuple[int, int] | None
) -> None:
    assert limit_permille(board, date=date, name=name, sessions_listed=session) == permille


def test_the_day_of_life_comes_from_the_listing_date_and_the_calendar() -> None:
    def up(date: int) -> float:
        return price_limits(10.0, board=Board.MAIN, date=date, list_date=20230410, calendar=CALENDAR)[0]

    assert all(isnan(up(date)) for date in (20230410, 20230411, 20230412, 20230413, 20230414))
    assert up(20230417) == 11.0


@pytest.mark.parametrize("unknown", [nan, 0.0, -1.0, float("inf"), 1e12])
def test_without_a_previous_close_there_is_no_limit(unknown: float) -> None:
    assert all(map(isnan, price_limits(unknown, board=Board.MAIN, date=20260707)))


def test_a_limit_is_one_tick_away_at_least_and_never_below_one_tick() -> None:
    assert price_limits(0.04, board=Board.MAIN, date=20260707) == (0.05, 0.03)
    assert price_limits(0.01, board=Board.MAIN, date=20260707) == (0.02, 0.01)


def test_beijing_never_goes_beyond_the_percentage() -> None:
    assert price_limits(121.76, board=Board.BSE, date=20260618)[0] == 158.28  # x 1.3 = 158.288
    assert price_limits(79.36, board=Board.BSE, date=20260706)[1] == 55.56  # x 0.7 = 55.552


@given(st.integers(10, 300_000), st.sampled_from([(Board.MAIN, 10), (Board.STAR, 20), (Board.BSE, 30)]))
def test_limits_are_what_decimal_arithmetic_gives(cents: int, board_and_percent: tuple[Board, int]) -> None:
    board, percent = board_and_percent
    prev, cent = Decimal(cents) / 100, Decimal("0.01")
    exact = [prev * (100 + sign * percent) / 100 for sign in (1, -1)]
    rounding = (ROUND_FLOOR, ROUND_CEILING) if board is Board.BSE else (ROUND_HALF_UP, ROUND_HALF_UP)
    up, down = (value.quantize(cent, how) for value, how in zip(exact, rounding, strict=True))
    expected = (float(max(up, prev + cent)), float(min(down, prev - cent)))
    assert price_limits(float(prev), board=board, date=20211201, name="某某") == expected


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["600519.SH", "300750.SZ", "920081.BJ", "510300.SH", "000001.SH"]),
            st.sampled_from(["某某", "*ST某某", "N某某", None]),
            st.integers(0, 99_999),
        ),
        max_size=8,
    )
)
def test_many_at_once_are_each_one_alone(rows: list[tuple[str, str | None, int]]) -> None:
    instruments = [instrument_of(symbol, name=name) for symbol, name, _ in rows]
    prev_close = np.array([cents / 100 for *_, cents in rows], np.float64)
    up, down = price_limits_of(instruments, prev_close, date=20260703)
    alone = [
        price_limits(prev, board=one.board, date=20260703, name=one.name, tick=one.tick)
        for one, prev in zip(instruments, prev_close.tolist(), strict=True)
    ]
    assert np.array_equal(up, [pair[0] for pair in alone], equal_nan=True)
    assert np.array_equal(down, [pair[1] for pair in alone], equal_nan=True)


# ── the market's own record ───────────────────────────────────────────────────────────────────────────────────────

FREE = {  # name → without a limit on that day, as the tables show it
    20260703: {"C华润"},
    20260706: {"C华润"},
    20260707: {"C华润"},
    20260710: {"N托伦斯", "N欧伦"},
    20260720: set(),
    20260731: {"C欣兴", "C长鑫"},
}


@pytest.mark.parametrize("date", sorted(FREE))
def test_no_price_of_the_whole_market_is_beyond_its_limit(market_data: Path, date: int) -> None:
    table = pd.read_parquet(market_data / "tables" / f"market_close_{date}.parquet")
    table = table[table["last"].notna()]
    instruments = [instrument_of(code, name=name) for code, name in zip(table["symbol"], table["name"], strict=True)]
    up, down = price_limits_of(instruments, table["prev_close"].to_numpy(np.float64), date=date)
    assert set(table["name"][np.isnan(up)]) == FREE[date]
    highest = np.fmax(table["high"].to_numpy(np.float64), table["last"].to_numpy(np.float64))
    lowest = np.fmin(table["low"].to_numpy(np.float64), table["last"].to_numpy(np.float64))
    assert not (highest > up + 1e-9).any()
    assert not (lowest < down - 1e-9).any()
    assert (np.abs(highest - up) < 1e-9).sum() > 50  # and they are reached: none is too wide for all


def test_main_board_st_goes_from_five_to_ten_percent(market_data: Path) -> None:
    for date, percent in ((20260703, 5), (20260706, 10)):
        table = pd.read_parquet(market_data / "tables" / f"market_close_{date}.parquet")
        st_rows = table[
            [
                is_st(name) and board_of(code) is Board.MAIN
                for code, name in zip(table["symbol"], table["name"], strict=True)
            ]
        ]
        limits = [
            price_limits(prev, board=Board.MAIN, date=date, name=name)
            for prev, name in zip(st_rows["prev_close"], st_rows["name"], strict=True)
        ]
        at_limit = np.abs(st_rows["high"].to_numpy() - np.array([up for up, _ in limits])) < 1e-9
        moves = (st_rows["high"] / st_rows["prev_close"] - 1).to_numpy()[at_limit] * 100
        assert len(moves) > 3
        assert np.abs(moves - percent).max() < 1


def test_a_bare_s_stays_at_five_percent(market_data: Path) -> None:
    table = pd.read_parquet(market_data / "tables" / "market_close_20260707.parquet").set_index("symbol")
    row = table.loc["600182.SH"]
    assert price_limits(row["prev_close"], board=Board.MAIN, date=20260707, name=row["name"])[1] == row["last"] == 14.22


def test_who_was_sealed_stood_at_the_limit(market_data: Path) -> None:
    table = pd.read_parquet(market_data / "tables" / "limit_pools.parquet")
    prev_close = (table["last"] / (1 + table["pct_chg"] / 100)).round(2)
    for day, rows in table.groupby("day"):
        up, down = price_limits_of(
            [instrument_of(code, name=name) for code, name in zip(rows["symbol"], rows["name"], strict=True)],
            prev_close[rows.index].to_numpy(np.float64),
            date=int(day),
        )
        limit = np.where(rows["pool"] == "sealed_down_at_close", down, up)
        stood_at = np.where(rows["pool"] == "broken_up", rows["limit_up"], rows["last"])
        assert np.array_equal(limit, stood_at), rows[limit != stood_at]


def test_limits_of_the_recorded_sessions(market_data: Path) -> None:
    table = pd.read_csv(market_data / "tables" / "session_reference.csv").dropna(subset=["prev_close"])
    assert len(table) > 100
    for row in table.itertuples():
        limits = price_limits(row.prev_close, board=board_of(row.symbol), date=int(row.session[-8:]))
        assert limits == (row.limit_up, row.limit_down), row


# ── the table as text ─────────────────────────────────────────────────────────────────────────────────────────────

instruments = st.builds(
    Instrument,
    symbol=st.integers(600000, 605999).map("{}.SH".format),
    name=st.none() | st.text(st.characters(blacklist_categories=("Cs",)), max_size=8),
    board=st.sampled_from(list(Board)),
    tick=st.sampled_from([0.01, 0.001]),
    lot=st.sampled_from([10, 100]),
    list_date=st.none() | st.just(20230410),
    sectors=st.lists(st.text("银行酒", max_size=3), max_size=3).map(tuple),
)


@given(st.lists(instruments, max_size=8, unique_by=lambda one: one.symbol), st.randoms())
def test_a_table_comes_back_and_equal_tables_are_equal_text(table: list[Instrument], random: object) -> None:
    text = encode_table(table)
    assert decode_table(text) == tuple(sorted(table, key=lambda one: one.symbol))
    random.shuffle(table)  # type: ignore[attr-defined]
    assert encode_table(table) == text


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("{}", "a dict, not a list"),
        ("[{}]", "entry 0"),
        ('[{"symbol":"600519.SH","board":"moon","sectors":[]}]', "entry 0.*moon"),
        ('[{"symbol":"600519.SH","board":"main","sectors":[],"price":1}]', "entry 0.*price"),
    ],
)
def test_a_table_that_cannot_be_read_says_where(text: str, complaint: str) -> None:
    with pytest.raises(FeedError, match=complaint):
        decode_table(text)


def test_a_symbol_that_stands_twice_is_refused() -> None:
    with pytest.raises(FeedError, match=r"600519\.SH stands twice"):
        encode_table([Instrument("600519.SH"), Instrument("600519.SH", "x")])


def test_half_a_character_in_a_name_or_a_sector_is_replaced() -> None:
    """Names come from a foreign program, and go into every alert."""
    broken = Instrument("600519.SH", "茅\ud800台", sectors=("酒\udc00", "白酒"))
    assert (broken.name, broken.sectors) == ("茅\ufffd台", ("酒\ufffd", "白酒"))
    assert decode_table(encode_table([broken])) == (broken,)
    assert Instrument("600519.SH", sectors=("\ud800",)).name is None
