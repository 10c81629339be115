"""What a sealed stock does to indicators: nothing crosses on ties, and what is smoothed stands still."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.evaluate import as_floats
from rules.graph import Graph
from rules.language.parser import parse
from rules.node import ALL
from rules.state import StateTable
from tests.rules.w1 import Columns

PERIOD = "1d"
LONGEST = 26
"""Bars after which every average below has seen nothing but the sealed price."""
CROSSES = (
    "CROSS(C,REF(C,1))", "CROSS(MA(C,5),MA(C,10))", "CROSS(MA(C,10),MA(C,5))", "CROSS(C,MA(C,20))", "CROSS(MA(C,20),C)",
    "CROSS(WMA(C,10),C)", "LONGCROSS(C,MA(C,5),1)", "CROSS(H,L)", "CROSS(HHV(H,10),C)", "CROSS(C,LLV(L,10))",
    "CROSS(C,FORCAST(C,9))", "CROSS(STD(C,9),0)", "CROSS((O+C)/2,(H+L)/2)",
)  # fmt: skip
STILL = ('"KDJ.K"', '"RSI.RSI1"', '"RSI.RSI2"', '"RSI.RSI3"')

STOCKS = 6
"""Walks of one example, which the graph takes side by side: a bar costs it about as much for one stock as for six."""

starts = st.integers(200, 300_000)
steps = st.integers(-30, 30)
"""Both in hundredths of a yuan."""
walks = st.integers(30, 60).flatmap(
    lambda bars: st.lists(
        st.tuples(starts, st.lists(steps, min_size=bars, max_size=bars)), min_size=STOCKS, max_size=STOCKS
    )
)


def values(texts: tuple[str, ...], close: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """Return what the expressions say at each bar's close, (bars, expressions, stocks), of (bars, stocks)."""
    stocks = close.shape[1]
    state = StateTable(stocks)
    source = Columns(state)
    graph = Graph(state, source)
    nodes = [graph.add(parse(text).statements[0].expr, period=PERIOD) for text in texts]
    found = []
    for price, wide in zip(close, spread, strict=True):
        row = {"C": price, "O": price, "H": np.round(price + wide, 2), "L": np.round(price - wide, 2), "V": 100.0}
        source.set(PERIOD, ALL, **row)
        graph.commit(PERIOD, np.arange(stocks))
        found.append([as_floats(node).copy() for node in nodes])
    return np.array(found)


def sealed(drawn: list[tuple[int, list[int]]], days: int) -> tuple[np.ndarray, np.ndarray]:
    """Return closes and half spreads of walks that end in a limit-up, and of this many days sealed there."""
    cents = np.array([start + np.cumsum(moves) for start, moves in drawn]).T
    walk = np.round(np.maximum(cents, 100) / 100, 2)
    limit = np.broadcast_to(np.round(walk[-1] * 1.1, 2), (days, walk.shape[1]))
    return np.concatenate([walk, limit]), np.concatenate([np.full_like(walk, 0.05), np.zeros_like(limit)])


@settings(max_examples=12, deadline=None)
@given(drawn=walks)
def test_nothing_crosses_while_a_price_stands_still(drawn: list[tuple[int, list[int]]]) -> None:
    bars = len(drawn[0][1])
    found = values(CROSSES, *sealed(drawn, LONGEST + 30))[bars + LONGEST :]
    assert not found.any(), [text for place, text in enumerate(CROSSES) if found[:, place].any()]


@settings(max_examples=12, deadline=None)
@given(drawn=walks)
def test_sealed_days_move_neither_k_nor_rsi(drawn: list[tuple[int, list[int]]]) -> None:
    bars = len(drawn[0][1])
    found = values(STILL, *sealed(drawn, 40))
    rsi = found[bars:, 1:]  # from the first sealed day on: there is no change to smooth
    np.testing.assert_allclose(rsi, np.broadcast_to(rsi[0], rsi.shape), rtol=1e-9)
    k = found[bars + 9 :, 0]  # once highest and lowest are one price, 0/0 is unknown, and K is held
    assert np.array_equal(k, np.broadcast_to(k[0], k.shape))


NEVER = {"CROSS(H,L)", "CROSS(HHV(H,10),C)", "CROSS(C,LLV(L,10))", "CROSS(STD(C,9),0)", "CROSS((O+C)/2,(H+L)/2)"}


@pytest.mark.parametrize("text", [text for text in CROSSES if text not in NEVER])
def test_the_same_crosses_are_seen_where_prices_move(text: str) -> None:
    rng = np.random.default_rng(3)
    close = np.round(20 + np.cumsum(rng.integers(-30, 31, (400, 1)), axis=0) / 100, 2)
    found = values((text,), close, np.round(rng.random((400, 1)), 2))
    assert found.any()
