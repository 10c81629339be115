"""The source's price limits beside those of our tables."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from feeds.instruments import Board, Instrument, Limits, decode_table, encode_table, instrument_of
from feeds.limitcheck import EXAMPLES, LimitCheck, compare_limits
from feeds.sessions import Calendar

DAY = 20260707


def told(
    symbol: str, up: float, down: float, before: float, *, name: str = "浦发银行", date: int | None = DAY
) -> Instrument:
    listed = DAY if name.startswith("N") else 20000101
    return replace(instrument_of(symbol, name=name, list_date=listed), limits=Limits(up, down, before, date))


def test_limits_as_the_tables_have_them_agree() -> None:
    given = [
        told("600000.SH", 11.55, 9.45, 10.5),
        told("300750.SZ", 12.6, 8.4, 10.5),
        told("920002.BJ", 158.28, 85.24, 121.76),
        told("600001.SH", 0.0, 0.0, 10.5, name="N新股"),
        told("510300.SH", 4.4, 3.6, 4.0, name="沪深300ETF"),
    ]
    assert compare_limits(given, date=DAY, calendar=Calendar(())) == LimitCheck(5, 5, 0, ())


@pytest.mark.parametrize(
    ("one", "says"),
    [
        (told("600000.SH", 11.03, 9.98, 10.5), "600000.SH 浦发银行: 9.98..11.03, ours 9.45..11.55"),
        (told("600000.SH", 0.0, 0.0, 10.5), "600000.SH 浦发银行: none, ours 9.45..11.55"),
        (told("600000.SH", 11.55, 9.45, 10.5, name="N新股"), "600000.SH N新股: 9.45..11.55, ours none"),
    ],
)
def test_a_disagreement_names_both(one: Instrument, says: str) -> None:
    assert compare_limits([one], date=DAY) == LimitCheck(1, 0, 1, (says,))


def test_a_few_examples_are_enough() -> None:
    many = [told(f"{600000 + number}.SH", 1.0, 0.5, 10.5) for number in range(50)]
    check = compare_limits(many, date=DAY)
    assert (check.differ, len(check.examples)) == (50, EXAMPLES)


def test_limits_of_other_days_and_of_indices_are_not_compared() -> None:
    given = [told("600000.SH", 1, 1, 10.5, date=20260706), told("000001.SH", 1, 1, 10.5), instrument_of("600001.SH")]
    assert compare_limits(given, date=DAY) == LimitCheck()
    assert compare_limits([told("600000.SH", 11.55, 9.45, 10.5, date=None)], date=DAY).agree == 1


def test_limits_come_through_the_table_of_a_control_record() -> None:
    given = (told("600000.SH", 11.55, 9.45, 10.5), instrument_of("600001.SH"))
    assert decode_table(encode_table(given)) == given
    old = encode_table([instrument_of("600001.SH")]).replace('"limits":null,', "")
    assert "limits" not in old
    assert decode_table(old) == (instrument_of("600001.SH"),), "a journal of before limits were in it"


def test_recorded_limits_of_shenzhen_agree() -> None:
    """The recorded sessions hold the vendor's own limits; `session_reference.csv` has them beside the closes."""
    folder = Path(os.environ.get("MARKET_DATA", Path(__file__).parents[3] / "shared" / "data"))
    file = folder / "tables" / "session_reference.csv"
    if not file.is_file():
        pytest.skip(f"no recorded market data in {folder}")
    import pandas as pd

    rows = pd.read_csv(file)
    rows = rows[rows["limit_from"] == "vendor = rule"]
    assert len(rows)
    for row in rows.itertuples():
        date = int(str(row.session).rsplit("-", 1)[-1])
        one = told(row.symbol, row.limit_up, row.limit_down, row.prev_close, name="", date=date)
        assert one.board in (Board.MAIN, Board.CHINEXT)
        assert compare_limits([one], date=date).differ == 0
