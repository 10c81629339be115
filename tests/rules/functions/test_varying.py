"""Windows of series length: on each bar the value of the function with that bar's constant N, whatever N was before."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.evaluate import as_floats
from rules.functions.function import Function, ParamKind
from rules.functions.registry import FUNCTIONS
from rules.graph import Graph
from rules.language.parser import parse
from rules.language.tree import Call, Expr, Name
from rules.node import ALL
from rules.state import StateTable
from tests.rules.functions.oracles import ORACLES
from tests.rules.functions.test_registry import PERIOD, TRUTH_WORDS, assert_same, series
from tests.rules.w1 import Columns

VARYING = sorted(name for name, function in FUNCTIONS.items() if function.vary is not None)
CAP = 12
N = "Q"


class Bench:
    """One expression with its market, fed bar by bar."""

    def __init__(self, expr: Expr, n: int, *, cap: int = CAP) -> None:
        self.state = StateTable(n)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=30)
        self.node = self.graph.add(expr, period=PERIOD, cap=cap)
        self.plan = self.graph.plan([self.node])

    def peek(self, row: dict[str, np.ndarray]) -> np.ndarray:
        self.source.set(PERIOD, ALL, **row)
        self.plan.peek(ALL)
        return as_floats(self.node).copy()

    def close(self, row: dict[str, np.ndarray]) -> np.ndarray:
        self.source.set(PERIOD, ALL, **row)
        self.graph.commit(PERIOD, np.arange(self.state.n))
        return as_floats(self.node).copy()


def call_of(function: Function) -> tuple[Expr, str]:
    """Return the function of one series and of N, and the word of the series."""
    word = TRUTH_WORDS[0] if function.params[0].kind is ParamKind.TRUTH else "P"
    return Call(function.name, (Name(word), Name(N))), word


def by_definition(function: Function, x: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Return, bar by bar, the oracle's last value for that bar's N over the bars so far."""
    out = np.full(len(x), np.nan)
    for i, length in enumerate(np.floor(n)):
        if function.params[-1].least <= length <= CAP:
            out[i] = ORACLES[function.name].loop(x[: i + 1], length)[-1]
    return out


def lengths(bars: int, symbols: int, *, seed: int) -> np.ndarray:
    """Return N of every kind: whole, with a fraction, 0, negative, beyond the cap, unknown."""
    rng = np.random.default_rng(seed)
    n = rng.integers(0, CAP + 1, (bars, symbols)).astype(float)
    n += rng.choice([0.0, 0.5], n.shape)
    odd = rng.random(n.shape) < 0.15
    return np.where(odd, rng.choice([-1.0, CAP + 1.0, 1e9, np.nan], n.shape), n)


def test_the_functions_that_published_formulas_use_so_take_a_series() -> None:
    assert {"REF", "SUM", "MA", "HHV", "LLV", "COUNT", "HHVBARS", "LLVBARS", "EXIST", "EVERY"} <= set(VARYING)


@pytest.mark.parametrize("name", VARYING)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_each_bar_has_the_value_of_its_own_constant_window(name: str, seed: int) -> None:
    function = FUNCTIONS[name]
    expr, word = call_of(function)
    bars, symbols = 30, 4
    rows = series(name, [word], bars, symbols, seed=seed, holes=0.15)[word]
    n = lengths(bars, symbols, seed=seed)
    bench = Bench(expr, symbols)
    rng = np.random.default_rng(seed)
    for i in range(bars):
        if rng.random() < 0.5:
            forming = rng.permutation(rows[i])
            window = rng.permutation(n[i])
            peeked = bench.peek({word: forming, N: window})
            expected = [
                by_definition(function, np.append(rows[:i, s], forming[s]), np.append(n[:i, s], window[s]))[-1]
                for s in range(symbols)
            ]
            assert_same(peeked, np.array(expected))
        closed = bench.close({word: rows[i], N: n[i]})
        expected = [by_definition(function, rows[: i + 1, s], n[: i + 1, s])[-1] for s in range(symbols)]
        assert_same(closed, np.array(expected))


def test_the_high_since_a_condition_counts_its_own_bar() -> None:
    expr = parse("HHV(H,BARSLAST(C>10)+1)").statements[0].expr
    bench = Bench(expr, 1)
    closes, highs = [9.0, 11.0, 9.0, 9.0, 11.0, 9.0], [20.0, 12.0, 11.0, 13.0, 11.5, 11.0]
    values = [bench.close({"C": np.array([c]), "H": np.array([h])})[0] for c, h in zip(closes, highs, strict=True)]
    np.testing.assert_array_equal(values, [np.nan, 12.0, 12.0, 13.0, 11.5, 11.5])


def test_a_window_longer_than_the_cap_is_unknown_and_a_larger_cap_knows_it() -> None:
    expr = parse("SUM(C,BARSCOUNT(C))").statements[0].expr
    short, long = Bench(expr, 1, cap=3), Bench(expr, 1, cap=6)
    one = {"C": np.array([1.0])}
    np.testing.assert_array_equal([short.close(one)[0] for _ in range(5)], [1.0, 2.0, 3.0, np.nan, np.nan])
    np.testing.assert_array_equal([long.close(one)[0] for _ in range(5)], [1.0, 2.0, 3.0, 4.0, 5.0])


def test_calculated_windows_are_cut_to_whole_bars_as_tdx_does() -> None:
    cut, whole = (parse(text).statements[0].expr for text in ("REF(C,7/2)", "REF(C,3)"))
    state = StateTable(1)
    graph = Graph(state, Columns(state))
    assert graph.add(cut, period=PERIOD) is graph.add(whole, period=PERIOD)
