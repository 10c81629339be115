from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds.universe import Universe, is_symbol

symbols = st.sampled_from([f"{600000 + number}.SH" for number in range(12)])


@given(st.lists(st.lists(symbols, max_size=8).map(tuple), max_size=12))
def test_a_symbol_keeps_the_row_of_its_first_appearance(lists: list[tuple[str, ...]]) -> None:
    universe = Universe()
    order: list[str] = []
    for one in lists:
        order += [symbol for symbol in dict.fromkeys(one) if symbol not in order]
        assert universe.rows(one).tolist() == [order.index(symbol) for symbol in one]
        assert universe.symbols == tuple(order)
        assert len(universe) == len(order)
    assert all(universe.row(symbol) == row for row, symbol in enumerate(order))


def test_equal_symbol_lists_share_one_array_of_rows() -> None:
    universe = Universe(["000001.SZ"])
    codes = ["600000.SH", "000001.SZ"]
    first = universe.rows(tuple(codes))
    assert universe.rows(tuple(codes)) is first, "an equal tuple that is another object"
    for number in range(10):
        universe.rows((f"60{number:04d}.SH",))
    assert universe.rows(("600000.SH", "000001.SZ")).tolist() == first.tolist()


def test_rows_cannot_be_written_by_who_asked_for_them() -> None:
    rows = Universe().rows(("600000.SH",))
    with pytest.raises(ValueError, match="read-only"):
        rows[0] = 7


def test_an_unknown_symbol_has_no_row_and_gets_none_by_asking() -> None:
    universe = Universe(["600000.SH"])
    assert universe.row("000001.SZ") is None
    assert "000001.SZ" not in universe
    assert len(universe) == 1


@pytest.mark.parametrize("good", ["600519.SH", "000001.SZ", "920001.BJ"])
def test_codes_of_the_three_exchanges_are_symbols(good: str) -> None:
    assert is_symbol(good)


@pytest.mark.parametrize(
    "bad",
    ["", "600519", "600519.HK", "60051.SH", "6005190.SH", "600519.sh", "600519.SH\n", "６００５１９.SH", 600519, None],
)
def test_anything_else_is_not(bad: object) -> None:
    assert not is_symbol(bad)
