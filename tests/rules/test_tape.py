"""Tapes: a pass over all symbols with them gives the bits of one that calls node by node."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import plan, tape
from rules.engine import Engine
from rules.graph import Graph
from rules.language.parser import parse
from rules.node import ALL, Bits, Node, Truth
from rules.state import StateTable
from tests.rules.ticks import batch, rules, tick
from tests.rules.w1 import CONDITIONS, INDICATORS, Columns, walk

pytestmark = pytest.mark.skipif(tape.COMPILED is None, reason="there was no compiler at installation")
BLOCK = 512

FORMULAS = (
    "CROSS(MA(C,5),MA(C,3)) AND COUNT(C>O,3)>=2",
    "MAX(C,O)-MIN(H,-L)*2 > ABS(C-O)/(H-L)",
    "STD(C,4)/VAR(C,4) < 5 OR C/0.0 > 1",
    "EMA(IF(C>REF(C,1),C,O),3)*(C-3) <> SUM(V,3)/((C-O)*(H-L))",
    "BARSLAST(CROSS(C,O)) < 3 AND NOT HHV(C,3) > LLV(C,2) + 0.5",
    "SMA(BARSLAST(C>O)+C,3,1) > 12 AND C > 12",
    "12 > C OR C <= 9.5 OR 13 <= H",
)


def bars(n: int, k: int, *, seed: int) -> dict[str, np.ndarray]:
    """Random bars with holes."""
    made = walk(n, k, seed=seed)
    rng = np.random.default_rng(seed)
    for field in made.values():
        field[rng.random(field.shape) < 0.05] = np.nan
    return made


def plain(node: Node) -> list[bytes]:
    value = node.value
    if isinstance(value, Truth):
        return [value.t.tobytes(), value.f.tobytes()]
    return [np.where(np.isnan(value), np.nan, value).tobytes()]


def lived(n: int, k: int, *, seed: int, make: Any) -> list[list[list[bytes]]]:
    """Values of what `make` puts into a graph, at each of k bars, forming first and then closed."""
    state = StateTable(n)
    source = Columns(state)
    graph = Graph(state, source)
    nodes = make(graph)
    plan = graph.plan(nodes)
    seen = []
    walked = bars(n, k, seed=seed)
    for bar in range(k):
        source.set("1m", ALL, **{name: field[bar] for name, field in walked.items()})
        plan.peek(ALL)
        seen.append([plain(node) for node in nodes])
        graph.commit("1m", np.arange(n))
        seen.append([plain(node) for node in nodes])
    return seen


def of_w1(graph: Graph) -> list[Node]:
    return [graph.add(expr, period="1m") for expr in (*INDICATORS.values(), *CONDITIONS)]


def of_formulas(graph: Graph) -> list[Node]:
    return [graph.add_formula(parse(text), period="1m")[0] for text in FORMULAS]


@pytest.mark.parametrize("make", [of_w1, of_formulas])
@pytest.mark.parametrize("n", [1, 7, 64, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 5])
def test_a_tape_gives_the_bits_of_calls(make: Any, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    taped = lived(n, 12, seed=n, make=make)
    monkeypatch.setattr(tape, "COMPILED", None)
    assert taped == lived(n, 12, seed=n, make=make)


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    some=st.lists(st.integers(0, 39), min_size=1, max_size=5, unique=True),
)
@settings(max_examples=25)
def test_passes_over_some_symbols_and_a_growing_universe_change_nothing(sizes: list[int], some: list[int]) -> None:
    state = StateTable(0)
    source = Columns(state)
    graph = Graph(state, source)
    condition = graph.add_formula(parse(FORMULAS[0]), period="1m")[0]
    plan = graph.plan([condition])
    for n in np.cumsum(sizes).tolist():
        state.grow(n)
        for name, field in bars(n, 1, seed=n).items():
            source.set("1m", ALL, **{name: field[0]})
        plan.peek(ALL)
        whole = [mask.copy() for mask in (condition.value.t, condition.value.f)]
        at = np.array([row for row in some if row < n], np.int64)
        plan.peek(at)
        assert [m.tolist() for m in (condition.value.t, condition.value.f)] == [m[at].tolist() for m in whole]
        plan.peek(ALL)
        assert [m.tolist() for m in (condition.value.t, condition.value.f)] == [m.tolist() for m in whole]
        graph.commit("1m", np.arange(n))


def test_bits_are_read_as_masks() -> None:
    t, f = np.array([1, 0, 0, 1, 0, 0, 0, 0, 1], bool), np.array([0, 1, 0, 0, 1, 1, 1, 1, 0], bool)
    bits = Bits(np.packbits(t), np.packbits(f), 9)
    assert bits.t.tolist() == t.tolist()
    assert bits.f.tolist() == f.tolist()


def compiled(steps: list[int], numbers: list[float]) -> Any:
    assert tape.COMPILED is not None
    return tape.COMPILED.Tape(np.array(steps, np.int16).tobytes(), np.array(numbers, np.float64).tobytes())


SHIFT = [0, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("steps", "numbers", "message"),
    [([99, 0, 0, 0, 0, 0, 0, 0], [0.0], "step 0 of the tape is none"), (SHIFT, [], "needs a number for each step")],
)
def test_steps_that_are_none_make_no_tape(steps: Any, numbers: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compiled(steps, numbers)


@pytest.mark.parametrize(
    ("given_", "message"),
    [
        ([np.ones(9)], "takes 0 standing columns and 2 others"),
        ([np.ones(9), np.ones(8)], "cannot take a column it names"),
        ([np.ones(9), np.ones(9, bool)], "cannot take a column it names"),
        ([np.ones(9), np.ones((9, 1))], "a column has one dimension"),
    ],
)
def test_columns_that_do_not_fit_are_refused(given_: Any, message: str) -> None:
    mine = compiled(SHIFT, [0.5])
    for _ in range(2):
        with pytest.raises(ValueError, match=message):
            mine.play([], given_, 9, None)
    out = np.empty(9)
    mine.play([], [np.ones(9), out], 9, None)
    assert out.tolist() == [1.5] * 9, "and then it takes others"


def test_of_columns_that_stand_for_all_symbols_only_the_rows_that_are_there_can_be_chosen() -> None:
    mine, out = compiled([0, -1, 0, 0, 0, 0, 0, 0], [0.5]), np.empty(2)
    mine.play([np.arange(2.0, 9.0)], [out], 2, np.array([6, 0]))
    assert out.tolist() == [12.0, 3.0]
    for rows in ([0, 7], [0, -1]):
        with pytest.raises(IndexError, match="there is no row"):
            mine.play([np.arange(2.0, 9.0)], [out], 2, np.array(rows))
    with pytest.raises(ValueError, match="rows are as many int64"):
        mine.play([np.arange(2.0, 9.0)], [out], 2, np.array([1]))


def test_a_tape_follows_columns_from_play_to_play() -> None:
    mine = compiled([0, -1, 0, 0, 0, 0, 0, 0], [0.5])
    first, second = np.full(3, 2.0), np.full(5, 4.0)
    for standing, n, rows in (
        (first, 3, None),
        (second, 5, None),
        (second, 2, [4, 1]),
        (second, 5, None),
        (first, 3, None),
    ):
        out = np.empty(n)
        mine.play([standing], [out], n, None if rows is None else np.array(rows))
        assert out.tolist() == [standing[0] * 1.5] * n
        standing += 1.0


def test_a_tape_lets_go_of_its_columns_when_it_goes() -> None:
    mine, column = compiled(SHIFT, [0.5]), np.ones(9)
    before = sys.getrefcount(column)
    mine.play([], [column, np.empty(9)], 9, None)
    assert sys.getrefcount(column) > before
    mine.play([], [np.ones(9), np.empty(9)], 9, None)
    assert sys.getrefcount(column) == before
    mine.play([], [column, np.empty(9)], 9, None)
    del mine
    assert sys.getrefcount(column) == before


def test_a_tape_lets_go_of_a_batchs_columns_once_it_was_played_for_some_symbols() -> None:
    """What tells of a rule's events is played when it fires: each rule kept a market from then to its next event."""
    mine, lent = compiled([0, -1, 0, 0, 0, 0, 0, 0], [0.5]), np.ones(9)
    lent.flags.writeable = False
    before = sys.getrefcount(lent)
    for rows in ([3, 1], [9, 1]):
        with suppress(IndexError):
            mine.play([lent], [np.empty(2)], 2, np.array(rows))
        assert sys.getrefcount(lent) == before


def test_columns_with_elements_of_more_than_eight_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bytes at most, not 16"):
        compiled([0, -1, 0, 0, 0, 0, 0, 0], [0.5]).play([np.ones(9, complex)], [np.empty(2)], 2, np.array([3, 1]))


def test_a_tape_writes_to_nothing_read_only() -> None:
    fixed = np.ones(9)
    fixed.flags.writeable = False
    with pytest.raises(ValueError, match="cannot take a column it names"):
        compiled(SHIFT, [0.0]).play([], [np.ones(9), fixed], 9, None)


def test_a_rule_set_of_any_size_goes_on_tapes(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"id: r{i}, select: all, on_start: fire, when: 'PCT > {i / 10} AND LAST > {i}'" for i in range(40)]
    told = []
    for most in (4096, 7):
        monkeypatch.setattr(plan, "MOST_STEPS", most)
        engine = Engine()
        engine.step(rules(*texts))
        events = engine.step(
            batch(*(tick("09:30:03", symbol=one, last=11.0, prev_close=10.0) for one in ("600000.SH", "600001.SH")))
        )
        told.append([event.to_json() for event in events])
    assert told[0] == told[1]
    assert len(told[0]) == 2 * 11, "PCT is 10, and LAST is above 0 to 10"
