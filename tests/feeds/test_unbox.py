"""Numbers out of dicts: both ways give the same columns, bit for bit, and refuse the same ticks."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds import unbox as unboxing
from feeds.unbox import Field, unbox_in_python

FIELDS = (
    Field("time", 1, 0.0, 4e12, 0.0), Field("price", 1, 0.0, 1e7, 1000.0), Field("lots", 5, 0.0, 1e13, 0.0),
    Field("asks", 5, 0.0, 1e7, 1000.0),
)  # fmt: skip
ROWS = 12
needs_compiled = pytest.mark.skipif(unboxing.COMPILED is None, reason="there was no compiler at installation")
WAYS = [
    pytest.param(unbox_in_python, id="python"),
    pytest.param(unboxing.COMPILED, id="compiled", marks=needs_compiled),
]
Way = Callable[[list[Any], tuple[Field, ...], np.ndarray], bool]


def tick(**changes: Any) -> dict[str, Any]:
    return {"other": "x", "time": 1_700_000_000_000, "price": 11.370000000000001, "lots": [1, 2.5, 3, 0, 5],
            "asks": [11.38, 0.0, 11.4, 11.41, 0.0004]} | changes  # fmt: skip


def columns(way: Way, ticks: list[Any], fields: tuple[Field, ...] = FIELDS) -> np.ndarray | None:
    out = np.full((sum(field.width for field in fields), len(ticks)), 7.0)
    return out if way(ticks, fields, out) else None


def test_the_compiled_way_is_there_wherever_there_is_a_compiler() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    assert unboxing.COMPILED is not None or shutil.which(compiler) is None


@pytest.mark.parametrize("way", WAYS)
def test_prices_are_put_on_the_grid_and_a_price_of_zero_is_none(way: Way) -> None:
    found = columns(way, [tick(), tick(price=0, time=5.0)])
    assert found is not None
    assert found[0].tolist() == [1_700_000_000_000, 5.0]
    assert (found[1, 0], np.isnan(found[1, 1])) == (11.37, True)
    assert found[2:7, 0].tolist() == [1, 2.5, 3, 0, 5]
    assert np.array_equal(found[7:, 0], [11.38, np.nan, 11.4, 11.41, np.nan], equal_nan=True)


@pytest.mark.parametrize("way", WAYS)
def test_no_ticks_are_no_columns(way: Way) -> None:
    found = columns(way, [])
    assert found is not None
    assert found.shape == (ROWS, 0)


IRREGULAR = {
    "no dict": 5, "none": None, "a list of pairs": [("time", 1)], "lacks a field": {"time": 1}, "text": tick(price="1"),
    "no number": tick(price=None), "NaN": tick(price=float("nan")), "infinite": tick(time=float("inf")),
    "below": tick(price=-0.01), "above": tick(price=1e7 + 1), "too large for a float": tick(time=10**400),
    "a number for a list": tick(lots=1), "four levels": tick(lots=[1, 2, 3, 4]),
    "a tuple of levels": tick(lots=(1,) * 5),
    "text among levels": tick(asks=[1, 2, "3", 4, 5]), "a list for a number": tick(price=[1.0]),
    "a NaN among levels": tick(asks=[1, 2, float("nan"), 4, 5]), "a signalling decimal": tick(price=Decimal("sNaN")),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bad", IRREGULAR)
def test_one_irregular_tick_makes_the_whole_irregular(way: Way, bad: str) -> None:
    for place in (0, 3, 40):
        ticks: list[Any] = [tick() for _ in range(41)]
        ticks[place] = IRREGULAR[bad]
        assert columns(way, ticks) is None


@pytest.mark.parametrize("way", WAYS)
def test_dicts_of_other_orders_and_with_keys_made_at_run_time_are_read_alike(way: Way) -> None:
    turned = dict(reversed(tick(price=12.0).items()))
    remade = {"".join(list(key)): value for key, value in tick(price=13.0).items()}
    emptied = tick(gone=1, price=14.0)
    del emptied["gone"], emptied["other"]
    found = columns(way, [tick(), turned, remade, emptied, tick(price=15.0)])
    assert found is not None
    assert found[1].tolist() == [11.37, 12.0, 13.0, 14.0, 15.0]


@needs_compiled
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "time": st.integers(0, 2**41),
                "price": st.floats(0, 1e7) | st.integers(0, 10**7) | st.floats(),
                "lots": st.lists(st.integers(0, 10**6) | st.floats(0, 1e6), min_size=5, max_size=5),
                "asks": st.lists(st.floats(0, 1e4, width=32) | st.booleans(), min_size=5, max_size=5),
            },
            optional={"other": st.text()},
        ),
        max_size=40,
    )
)
def test_both_ways_give_the_same_bits(ticks: list[Any]) -> None:
    assert unboxing.COMPILED is not None
    mine, reference = columns(unboxing.COMPILED, ticks), columns(unbox_in_python, ticks)
    assert (mine is None) == (reference is None)
    if mine is not None and reference is not None:
        nan = np.isnan(mine)
        assert np.array_equal(nan, np.isnan(reference))
        assert mine[~nan].tobytes() == reference[~nan].tobytes()


@needs_compiled
def test_the_compiled_way_refuses_columns_that_do_not_fit() -> None:
    assert unboxing.COMPILED is not None
    with pytest.raises(ValueError, match="do not fit"):
        unboxing.COMPILED([tick()], FIELDS, np.empty((ROWS, 2)))
    with pytest.raises(ValueError, match="17 fields"):
        unboxing.COMPILED([tick()], FIELDS[:1] * 17, np.empty((17, 1)))
    with pytest.raises(TypeError):
        unboxing.COMPILED([tick()], ("time",), np.empty((1, 1)))  # type: ignore[arg-type]
