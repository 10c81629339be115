"""The vendor's payloads, good and bad: every bad tick is counted under its reason, every good one comes through."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feeds.decode import REASONS, Decoder, UnitProof, prove_units
from feeds.instruments import Board
from feeds.tick import BOOK, CORE, TickBatch
from feeds.universe import Universe
from tests.faults.counts import count
from tests.feeds.vendor_terminal import TEN, Tick, tick

BAD_TICKS = count("bad_ticks", ci=100_000, long=10_000_000)


def without(field: str) -> Tick:
    return {name: value for name, value in tick().items() if name != field}


def codes(n: int) -> list[str]:
    return [f"{600000 + number}.SH" for number in range(n)]


# ── one tick ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_tick_becomes_columns_with_prices_on_the_grid() -> None:
    batch = Decoder().decode({"000001.SZ": tick(lastPrice=11.370000000000001)}, recv_ms=TEN + 40)
    assert batch.symbols == ("000001.SZ",)
    assert (batch.ts_event_ms.tolist(), batch.recv_ms.tolist(), batch.status.tolist()) == ([TEN], [TEN + 40], [13])
    assert [batch.column(name)[0] for name in CORE] == [11.37, 11.39, 11.4, 11.31, 11.38, 758_613.0, 862_127_800.0]
    assert [batch.column(f"bid_price_{level}")[0] for level in range(1, 6)] == [11.39, 11.38, 11.37, 11.36, 11.35]
    assert [batch.column(f"ask_lots_{level}")[0] for level in range(1, 6)] == [10929, 12401, 6671, 4555, 6708]
    assert batch.column("trades")[0] == 37_062
    assert not batch.has("limit_up")


def test_a_price_of_zero_is_none_and_volume_of_zero_is_zero() -> None:
    zeros = {"open": 0, "high": 0, "low": 0, "amount": 0, "volume": 0}
    batch = Decoder().decode({"600000.SH": tick(**zeros, askPrice=[0] * 5, askVol=[0] * 5)}, recv_ms=TEN)
    assert all(np.isnan(batch.column(name)[0]) for name in ("open", "high", "low", "ask_price_1"))
    assert [batch.column(name)[0] for name in ("volume_lots", "amount_cny", "ask_lots_1")] == [0, 0, 0]


def test_the_vendors_other_spellings_are_understood() -> None:
    odd = tick(timetag=TEN, lastLose=11.38)
    del odd["time"], odd["lastClose"]
    batch = Decoder().decode({"600000.SH": odd, "600001.SH": odd}, recv_ms=TEN)
    assert batch.column("prev_close").tolist() == [11.38, 11.38]
    assert batch.ts_event_ms.tolist() == [TEN, TEN]


def test_both_spellings_in_one_push_are_understood() -> None:
    odd = tick(timetag=TEN + 1)
    del odd["time"]
    decoder = Decoder()
    assert decoder.decode({"600000.SH": tick(), "600001.SH": odd}, recv_ms=TEN).ts_event_ms.tolist() == [TEN, TEN + 1]
    assert decoder.counters() == {"ticks": 2}


def test_a_time_written_as_shanghai_text_is_understood() -> None:
    odd = without("time") | {"timetag": "20230201 10:00:00"}
    assert Decoder().decode({"600000.SH": odd}, recv_ms=TEN).ts_event_ms.tolist() == [TEN]


def test_lists_of_single_subscriptions_give_each_tick_in_order() -> None:
    payload = {"600000.SH": [tick(), tick(time=TEN + 3000)], "000001.SZ": [tick(time=TEN + 1)], "000002.SZ": []}
    batch = Decoder().decode(payload, recv_ms=TEN)
    assert batch.symbols == ("600000.SH", "600000.SH", "000001.SZ")
    assert batch.ts_event_ms.tolist() == [TEN, TEN + 3000, TEN + 1]


def test_a_list_behind_a_bad_entry_is_still_a_list() -> None:
    decoder = Decoder()
    assert decoder.decode({"600000.SH": None, "000001.SZ": [tick()]}, recv_ms=TEN).symbols == ("000001.SZ",)
    assert decoder.counters() == {"ticks": 1, "not_a_tick": 1}


@pytest.mark.parametrize("nothing", [None, [], "ticks", 5, b""])
def test_a_push_that_is_no_dict_is_counted(nothing: Any) -> None:
    decoder = Decoder()
    assert len(decoder.decode(nothing, recv_ms=TEN)) == 0
    assert decoder.counters() == {"bad_payload": 1, "ticks": 0} or decoder.counters() == {"bad_payload": 1}


def test_an_empty_push_is_an_empty_batch() -> None:
    batch = Decoder().decode({}, recv_ms=TEN)
    assert len(batch) == 0
    assert batch.column("bid_price_1").tolist() == []


# ── bad ticks ─────────────────────────────────────────────────────────────────────────────────────────────────────

NUMBERS = ("time", "lastPrice", "open", "high", "low", "lastClose", "amount", "volume", "openInt")
BAD: dict[str, list[Callable[[random.Random], Any]]] = {
    "not_a_tick": [lambda r: r.choice([None, 5, "tick", (1, 2), float("nan")])],
    "missing_field": [lambda r: without(r.choice(NUMBERS)), lambda r: {}],
    "not_a_number": [
        lambda r: tick(**{r.choice(NUMBERS): r.choice([None, "", "abc", [1.0], {}, 1j, 10**400, object()])})
    ],
    "nonfinite": [lambda r: tick(**{r.choice(NUMBERS): r.choice([float("nan"), float("inf"), -float("inf"), "nan"])})],
    "bad_time": [
        lambda r: tick(time=r.choice([0, -1, TEN // 1000, TEN * 1000, 4_102_444_800_000, 20230201100000, 1e300])),
        lambda r: tick(time=r.choice(["20231341 10:00:00", "20230201 25:00:00"])),
    ],
    "negative": [lambda r: tick(**{r.choice(NUMBERS[1:]): r.choice([-1, -0.01, -1e300])})],
    "out_of_range": [
        lambda r: tick(**{r.choice(NUMBERS[1:6]): r.choice([1e8, 1e308])}),
        lambda r: tick(openInt=70_000),
        lambda r: tick(volume=1e15),
        lambda r: tick(amount=1e300),
    ],
    "wrong_units": [lambda r: tick(volume=75_861_284), lambda r: tick(amount=86_212.78), lambda r: tick(amount=8.6e10)],
}


def test_malformed_ticks_by_the_hundred_thousand_are_each_counted_and_every_good_one_is_used() -> None:
    rng, decoder = random.Random(7), Decoder(proven=[Board.MAIN])
    planted: Counter[str] = Counter()
    good, pushes = 0, BAD_TICKS * 13 // 10_000
    for push in range(pushes):
        payload: dict[Any, Any] = {}
        expected = []
        for place, code in enumerate(codes(1000)):
            reason = rng.choice([*BAD, "bad_symbol"]) if rng.random() < 0.82 else None
            if reason is None:
                expected.append(code)
                payload[code] = tick(time=TEN + push, volume=758_613 + place)
            elif reason == "bad_symbol":
                payload[rng.choice([f"{code}X", place, code[:5], f"{code[:6]}.HK", f"{code}\n"])] = tick()
            else:
                payload[code] = rng.choice(BAD[reason])(rng)
            if reason is not None:
                planted[reason] += 1
        planted["bad_symbol"] -= 1000 - len(payload)  # two planted codes may be cut to one
        batch = decoder.decode(payload, recv_ms=TEN)
        assert batch.symbols == tuple(expected)
        places = [codes(1000).index(code) for code in expected[:5]]
        assert batch.column("volume_lots")[:5].tolist() == [758_613 + place for place in places]
        assert (batch.ts_event_ms == TEN + push).all()
        good += len(expected)
    counted = dict(decoder.counters())
    assert counted.pop("ticks") == good
    assert counted == dict(planted)
    assert sum(planted.values()) >= BAD_TICKS


def test_in_a_good_market_one_bad_tick_costs_only_itself() -> None:
    rng = random.Random(3)
    for reason, kinds in BAD.items():
        for kind in kinds:
            decoder = Decoder(proven=[Board.MAIN])
            payload: dict[str, Any] = {code: tick() for code in codes(300)} | {"600150.SH": kind(rng)}
            batch = decoder.decode(payload, recv_ms=TEN)
            assert decoder.counters() == {"ticks": 299, reason: 1}
            assert batch.symbols == tuple(code for code in codes(300) if code != "600150.SH")
            assert len(batch.column("bid_price_1")) == 299


class Irregular(dict[str, Any]):
    """A tick of a type the fast path has not seen, which must decode as any other."""


values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.just([1.0]),
    st.decimals(),
    st.binary(max_size=2),
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(NUMBERS), values, max_size=3), st.booleans())
def test_no_tick_is_judged_by_its_neighbours(changes: Tick, beside_a_bad_one: bool) -> None:
    """The same tick alone (read at once) and beside a broken one (read by itself) is used, or dropped, alike."""
    alone, beside = Decoder(), Decoder()
    one = alone.decode({"600000.SH": tick(**changes)}, recv_ms=TEN)
    other = beside.decode({"600000.SH": Irregular(tick(**changes)), "600001.SH": None}, recv_ms=TEN)
    assert one == other
    assert {**alone.counters(), "not_a_tick": 1} == dict(beside.counters())


def _is_hashable(value: Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):  # a signalling NaN has a __hash__ that refuses
        return False
    return True


@given(
    st.recursive(
        values, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    )
)
def test_no_payload_raises(anything: Any) -> None:
    decoder = Decoder()
    for payload in (
        anything,
        {"600000.SH": anything},
        {"600000.SH": [anything]},
        {anything if _is_hashable(anything) else "x": tick()},
    ):
        decoder.decode(payload, recv_ms=TEN).column("bid_price_1")
    assert set(decoder.counters()) <= {*REASONS, "ticks"}


# ── the book ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "bad",
    [
        {"bidPrice": [float("nan")] * 5},
        {"askVol": [-1, 0, 0, 0, 0]},
        {"askVol": ["many", 0, 0, 0, 0]},
        {"bidVol": 7},
        {"bidPrice": [float("inf")]},
        {"bidPrice": [[1.0]] * 5},
    ],
)
def test_a_tick_with_a_bad_book_is_used_without_it(bad: Tick) -> None:
    decoder = Decoder()
    batch = decoder.decode({"600000.SH": tick(), "600001.SH": tick(**bad)}, recv_ms=TEN)
    assert batch.column("last").tolist() == [11.39, 11.39]
    assert "bad_book" not in decoder.counters()
    assert batch.column("bid_price_1")[0] == 11.39
    assert all(np.isnan(batch.column(name)[1]) if "price" in name else batch.column(name)[1] == 0 for name in BOOK)
    assert decoder.counters() == {"ticks": 2, "bad_book": 1}


def test_missing_and_extra_levels_are_no_fault() -> None:
    decoder = Decoder()
    short = without("askPrice") | {"bidPrice": [11.39], "bidVol": list(range(1, 11)), "askVol": None}
    batch = decoder.decode({"600000.SH": tick(), "600001.SH": short}, recv_ms=TEN)
    assert batch.column("bid_price_1").tolist() == [11.39, 11.39]
    assert np.isnan(batch.column("bid_price_2")[1])
    assert batch.column("bid_lots_5").tolist() == [12189, 5]
    assert batch.column("ask_lots_1")[1] == 0
    assert decoder.counters() == {"ticks": 2}


@pytest.mark.parametrize("unknown", [None, -3, "7", float("nan"), float("inf"), pytest.param(10**400, id="huge")])
def test_an_unknown_number_of_trades_is_minus_one(unknown: Any) -> None:
    assert Decoder().decode({"600000.SH": tick(transactionNum=unknown)}, recv_ms=TEN).column("trades")[0] == -1


# ── symbols and boards ────────────────────────────────────────────────────────────────────────────────────────────


def test_a_repeated_list_of_symbols_gives_the_same_tuple() -> None:
    decoder, universe = Decoder(), Universe()
    pushes = [{"".join(code): tick(time=TEN + push) for code in codes(50)} for push in range(3)]
    batches = [decoder.decode(push, recv_ms=TEN) for push in pushes]
    assert batches[0].symbols is batches[1].symbols is batches[2].symbols
    assert universe.rows(batches[0].symbols) is universe.rows(batches[2].symbols)


def test_boards_that_are_not_watched_are_left_out_and_counted_apart() -> None:
    decoder = Decoder(boards=[Board.MAIN])
    payload = {
        "600000.SH": tick(),
        "510300.SH": tick(),
        "204001.SH": tick(),
        "10003720.SHO": tick(),
        "000001.SZ": tick(),
    }
    for _ in range(2):
        assert decoder.decode(payload, recv_ms=TEN).symbols == ("600000.SH", "000001.SZ")
    assert decoder.counters() == {"ticks": 4, "other_board": 4, "bad_symbol": 2}


# ── units ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def decoded(**changed: Any) -> TickBatch:
    return Decoder().decode({code: tick(**changed) for code in codes(20)}, recv_ms=TEN)


def test_right_units_are_proven_and_wrong_ones_refuted() -> None:
    assert prove_units(decoded())[Board.MAIN].holds is True
    in_shares = prove_units(decoded(volume=75_861_284))[Board.MAIN]
    assert (in_shares.holds, in_shares.disagree) == (False, 20)
    assert in_shares.ratio == pytest.approx(0.01, rel=0.01)
    in_ten_thousands = prove_units(decoded(amount=86_212.78))[Board.MAIN]
    assert in_ten_thousands.holds is False


def test_a_minority_that_disagrees_refutes_nothing() -> None:
    ticks = {code: tick(volume=75_861_284 if place < 9 else 758_613) for place, code in enumerate(codes(20))}
    assert prove_units(Decoder().decode(ticks, recv_ms=TEN))[Board.MAIN] == (11, 9, pytest.approx(1, rel=0.01))


def test_too_few_ticks_prove_nothing_until_they_add_up() -> None:
    one = prove_units(Decoder().decode({"600000.SH": tick()}, recv_ms=TEN))[Board.MAIN]
    assert one.holds is None
    proof = UnitProof()
    for _ in range(5):
        proof = proof.with_more(one)
    assert proof.holds is True


def test_before_the_first_trade_nothing_is_judged() -> None:
    assert prove_units(decoded(volume=0, amount=0, high=0, low=0)) == {}


def test_each_board_is_judged_by_its_own_lot_and_an_index_not_at_all() -> None:
    bond = tick(high=121.0, low=119.0, lastPrice=120.0, volume=1000, amount=1000 * 10 * 120.0)
    index = tick(lastPrice=3200.0, high=3210.0, low=3190.0)
    payload = {f"1130{number}.SH": bond for number in range(10, 20)} | {"000001.SH": index}
    proofs = prove_units(Decoder().decode(payload, recv_ms=TEN))
    assert {board: proof.holds for board, proof in proofs.items()} == {Board.BOND: True}


def test_trusting_a_board_drops_its_wrong_ticks_from_then_on() -> None:
    decoder = Decoder()
    payload = {"600000.SH": tick(volume=75_861_284), "300750.SZ": tick(volume=75_861_284)}
    assert len(decoder.decode(payload, recv_ms=TEN)) == 2
    decoder.trust([Board.MAIN])
    assert decoder.decode(payload, recv_ms=TEN).symbols == ("300750.SZ",)
    assert decoder.counters() == {"ticks": 3, "wrong_units": 1}


@pytest.mark.parametrize(
    "session", ["600519-000333-20230201", "600519-000333-20230202", "000001-20221230", "sh30-20211201"]
)
def test_the_recorded_sessions_prove_the_units(market_data: Path, session: str) -> None:
    table = pd.read_parquet(market_data / "sessions" / f"{session}.parquet")
    batch = TickBatch(
        tuple(table["symbol"]),
        table["ts_event"].to_numpy(np.int64),
        columns={name: table[name].to_numpy(np.float64) for name in ("high", "low", "volume_lots", "amount_cny")},
    )
    proofs = prove_units(batch)
    assert proofs
    for proof in proofs.values():
        assert proof.holds
        assert proof.disagree < 0.01 * proof.agree
