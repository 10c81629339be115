"""Numbers out of dicts: both ways give the same columns, bit for bit, and refuse the same ticks."""

from __future__ import annotations

import shutil
import sysconfig
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping
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
    with pytest.raises(ValueError, match="1 to 1024 wide"):
        unboxing.COMPILED([tick()], (Field("time", -1, 0.0, 1.0, 0.0),), np.empty((0, 1)))
    with pytest.raises(TypeError):
        unboxing.COMPILED([tick()], ("time",), np.empty((1, 1)))  # type: ignore[arg-type]


class Whole(int):
    def __float__(self) -> float:
        return 42.0


@pytest.mark.parametrize("value", [Whole(7), np.int64(42), np.float64(42.0), Decimal(42)], ids=type)
def test_numbers_of_other_classes_convert_themselves_whichever_way_it_is_read(value: Any) -> None:
    for compiled in (unboxing.COMPILED, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(unboxing, "COMPILED", compiled)
            found = unboxing.unbox([tick(), tick(time=value)], FIELDS)
        assert found is not None
        assert found[0, 1] == 42.0


@pytest.mark.parametrize("way", WAYS)
def test_a_dict_of_another_class_is_not_asked_and_not_changed(way: Way) -> None:
    lazy: defaultdict[str, Any] = defaultdict(float, tick())
    del lazy["time"]
    assert columns(way, [tick(), lazy]) is None
    assert "time" not in lazy


class Ambush(str):
    """A key whose comparison takes the ticks away while they are read."""

    __slots__ = ("victim",)

    def __eq__(self, other: object) -> bool:
        self.victim.clear()
        return False

    __hash__ = str.__hash__


@needs_compiled
def test_no_code_of_a_key_runs_while_ticks_are_read() -> None:
    assert unboxing.COMPILED is not None
    ticks: list[Any] = [tick() for _ in range(20)]
    ambush = Ambush("price")
    ambush.victim = ticks[0]
    ticks[9] = {ambush: 1.0, "time": 1, "lots": [1] * 5, "asks": [1] * 5}
    assert columns(unboxing.COMPILED, ticks) is None
    assert ticks[0] == tick()


ValuesOf = Callable[[Mapping[Any, Any], tuple[str, ...]], list[Any] | None]


@pytest.fixture(params=["python", pytest.param("compiled", marks=needs_compiled)])
def values_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ValuesOf:
    if request.param == "python":
        monkeypatch.setattr(unboxing, "_compiled_values_of", None)
    return unboxing.values_of


def test_a_payload_whose_order_changed_under_the_same_keys_is_not_taken_for_the_old_one(values_of: ValuesOf) -> None:
    payload = OrderedDict({"600519.SH": 1, "000001.SZ": 2})
    symbols = tuple(payload)
    assert values_of(payload, symbols) == [1, 2]
    payload.move_to_end("600519.SH")
    assert values_of(payload, symbols) is None
    assert values_of(dict(payload), symbols) is None
    assert values_of(dict(payload), tuple(payload)) == [2, 1]


def test_a_push_decoded_anew_has_the_old_one_s_keys(values_of: ValuesOf) -> None:
    symbols = ("600519.SH", "", "é", "贵州茅台", "\U0001f4c8")
    anew = {str(symbol.encode(), "utf-8"): place for place, symbol in enumerate(symbols)}
    assert values_of(anew, symbols) == [0, 1, 2, 3, 4]
    for other in ("贵州茅苔", "贵州茅", "600519", "\xe8\xb4"):
        assert values_of(anew, (*symbols[:3], other, symbols[4])) is None
    assert values_of(anew, symbols[:4]) is None
    assert values_of({600519: 1}, ("600519",)) is None  # what a vendor may send


@pytest.mark.parametrize("n", [0, 1, 7, 8, 9, 40])
def test_values_are_held_for_as_long_as_their_list(values_of: ValuesOf, n: int) -> None:
    payload = {f"{row:06d}.SZ": [row] for row in range(n + 3)}
    for row in range(3):
        del payload[f"{row:06d}.SZ"]  # holes among its entries
    found = values_of(payload, tuple(payload))
    payload.clear()
    assert found == [[row] for row in range(3, n + 3)]


def test_a_key_of_another_class_does_not_speak_for_itself() -> None:
    """Compared by its own code it could take the payload away; Python's own comparison does the work then."""
    ambush = Ambush("600519.SH")
    ambush.victim = payload = {ambush: 1}
    if unboxing._compiled_values_of is not None:
        assert unboxing._compiled_values_of(payload, ("600519.SH",)) is None
    assert payload


@pytest.mark.parametrize("shared", [True, False])
def test_keys_that_are_one_for_all_ticks_and_keys_of_each_its_own_read_alike(shared: bool) -> None:
    ticks = [tick(price=float(n)) for n in range(1, 30)]
    if not shared:
        ticks = [{"".join(list(key)): value for key, value in one.items()} for one in ticks]
    for way in filter(None, (unbox_in_python, unboxing.COMPILED)):
        found = columns(way, ticks)
        assert found is not None
        assert found[1].tolist() == list(range(1, 30))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("price", [0.0005, 0.0015, 1.0005, 2.0015, 9_999_999.9995, 1e7, 5e-324])
def test_a_price_between_two_steps_of_the_grid_goes_to_the_even_one(way: Way, price: float) -> None:
    found, expected = columns(way, [tick(price=price)]), np.rint(price * 1000.0) / 1000.0
    assert found is not None
    assert np.nan_to_num(found[1, 0]) == expected
