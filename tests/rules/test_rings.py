"""Rings against a plain list of each symbol's own values."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.functions.values import NumberNode, TruthNode
from rules.node import ALL, Truth
from rules.rings import Rings
from rules.state import StateTable


def make(n: int, depth: int) -> tuple[StateTable, Rings, NumberNode]:
    state = StateTable(n)
    rings = Rings(state, "1m")
    node = NumberNode("X", period="1m")
    rings.make(node, depth)
    return state, rings, node


@settings(max_examples=60, deadline=None)
@given(
    depth=st.integers(1, 6),
    commits=st.lists(st.sets(st.integers(0, 3), min_size=1), max_size=20),
    asked=st.permutations(range(4)),
)
def test_rows_are_each_symbols_own_last_values_oldest_first(
    depth: int, commits: list[set[int]], asked: list[int]
) -> None:
    _, rings, node = make(4, depth)
    ring = rings.of(node, depth)
    seen: list[list[float]] = [[] for _ in range(4)]
    for number, symbols in enumerate(commits):
        at = np.array(sorted(symbols), np.int64)
        node.value = number + at / 10
        rings.close(at, rings, whole=at.size == 4)
        for symbol in at:
            seen[symbol].append(number + symbol / 10)
        expected = [([np.nan] * depth + seen[symbol])[-depth:] for symbol in at]
        np.testing.assert_array_equal(np.array(list(ring.rows(at, depth))).T, expected)
        rings.done()
    for selection, order in ((ALL, list(range(4))), (np.array(asked), asked)):
        expected = [([np.nan] * depth + seen[symbol])[-depth:] for symbol in order]
        np.testing.assert_array_equal(np.array(list(ring.rows(selection, depth))).T, expected)
        np.testing.assert_array_equal(ring.back(selection, depth - 1), [row[0] for row in expected])
    np.testing.assert_array_equal(rings.counts.array, [len(values) for values in seen])


def test_a_ring_of_truths_holds_what_is_known_true() -> None:
    rings = Rings(StateTable(3), "1m")
    node = TruthNode("T", period="1m")
    ring = rings.of(node, 2)
    node.value = Truth(np.array([True, False, False]), np.array([False, True, False]))
    rings.close(np.arange(3), rings, whole=True)
    np.testing.assert_array_equal(ring.back(ALL, 0), [True, False, False])
    np.testing.assert_array_equal(ring.back(ALL, 1), [False, False, False])


def test_a_deep_enough_ring_serves_every_window() -> None:
    _, rings, node = make(2, 70)
    assert rings.of(node, 5) is rings.of(node, 70)
    assert rings.of(node, 71).depth == 128
    assert rings.of(node, 100) is rings.of(node, 128)


def test_rings_not_kept_release_their_state() -> None:
    state, rings, node = make(2, 4)
    kept = rings.of(NumberNode("Y", period="1m"), 3)
    rings.keep({kept})
    assert set(state.names()) == {"1m/bars/count", kept.name}
    assert rings.of(node, 4) is not None


def test_the_closing_bars_place_is_forgotten_when_done() -> None:
    _, rings, node = make(2, 3)
    at = np.array([0])
    for value in (1.0, 2.0):
        node.value = np.array([value])
        rings.close(at, rings, whole=False)
        rings.done()
    at[0] = 1
    assert np.isnan(rings.of(node, 3).back(at, 0)).all()
