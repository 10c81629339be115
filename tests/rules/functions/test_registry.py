"""Every registered function against its oracles: closed bars, forming bars, and library references on real bars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.evaluate import as_floats
from rules.functions.function import Clock
from rules.functions.registry import FUNCTIONS, Function, ParamKind
from rules.graph import Graph
from rules.language.tree import Call, Expr, Kind, Name, Number
from rules.node import ALL
from rules.slots import SLOT_LAYER
from rules.state import StateTable, copied
from tests.rules.functions.oracles import ORACLES
from tests.rules.w1 import Columns

NUMBER_WORDS = ("P", "Q", "R")
TRUTH_WORDS = ("SEALUP", "SEALDOWN", "VALID")
PERIOD = "5m"
CONSTANTS: dict[str, tuple[tuple[float, ...], ...]] = {
    "SMA": ((1, 1), (3, 1), (14, 1), (5, 2)),
    "LAST": ((0, 0), (3, 1), (5, 5), (4, 0)),
    "SAR": ((4, 2, 20), (1, 10, 30), (10, 2, 20)),
    "BIGTICK": ((0, 2), (0.5, 2), (0, 1), (0.2, 3.5)),
    **dict.fromkeys(("RISE", "HIGHS", "LOWS"), ((3,), (7,), (30,))),
}
PERIODS = {Clock.BARS: PERIOD, Clock.TICKS: "tick", Clock.SLOTS: SLOT_LAYER}
"""Where each kind of function has its bars."""
APART = {name for name, function in FUNCTIONS.items() if function.clock is Clock.MINUTES}
"""VRATIO looks at the hour of its bars: it has tests of its own in test_seconds.py."""
FUNCTION = pytest.mark.parametrize("name", sorted(FUNCTIONS.keys() - APART))


def constants_of(function: Function) -> tuple[tuple[float, ...], ...]:
    windows = [param for param in function.params if param.is_constant]
    if function.name in CONSTANTS or not windows:
        return CONSTANTS.get(function.name, ((),))
    return tuple((n,) for n in (0, 1, 2, 3, 7, 20) if n >= windows[0].least)


def call_of(function: Function, constants: tuple[float, ...], *, any_is_truth: bool = False) -> tuple[Expr, list[str]]:
    """Return a call of the function on words of the market, and the words in order."""
    numbers, truths, rest = iter(NUMBER_WORDS), iter(TRUTH_WORDS), iter(constants)
    words: list[str] = []
    args: list[Expr] = []
    for param in function.params:
        if param.is_constant:
            args.append(Number(float(next(rest))))
            continue
        takes_truth = param.kind is ParamKind.TRUTH or (param.kind is ParamKind.ANY and any_is_truth)
        words.append(next(truths if takes_truth else numbers))
        args.append(Name(words[-1]))
    return Call(function.name, tuple(args)), [*words, *function.reads]


class Bench:
    """One expression over words of n symbols."""

    def __init__(self, expr: Expr, n: int, *, period: str) -> None:
        self.state = StateTable(n)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=30)
        self.period = period
        self.node = self.graph.add(expr, period=period)
        self.plan = self.graph.plan([self.node])

    def peek(self, row: dict[str, np.ndarray]) -> np.ndarray:
        self.source.set(self.period, ALL, **row)
        self.plan.peek(ALL)
        return as_floats(self.node).copy()

    def close(self, row: dict[str, np.ndarray]) -> np.ndarray:
        self.source.set(self.period, ALL, **row)
        self.graph.commit(self.period, np.arange(self.state.n))
        return as_floats(self.node).copy()


def series(name: str, words: list[str], bars: int, symbols: int, *, seed: int, holes: float) -> dict[str, np.ndarray]:
    """Return (bars, symbols) per word: walks on the 0.01 grid with flat stretches, fair truths, and unknowns."""
    rng = np.random.default_rng(seed)
    found = {}
    for word in words:
        if word not in TRUTH_WORDS:
            steps = rng.integers(-5, 6, (bars, symbols)) * (rng.random((bars, symbols)) < 0.5)
            values = np.round((300 + np.cumsum(steps, axis=0)) * rng.choice([0.01, -0.01], symbols), 2)
        else:
            values = (rng.random((bars, symbols)) < rng.choice([0.2, 0.5, 0.9], symbols)).astype(float)
        values[rng.random((bars, symbols)) < holes * (np.arange(symbols) % 2)] = np.nan
        found[word] = values
    if name == "DMA":  # a weight beyond 1 grows without bound, and with it what rounding leaves
        found["Q"] = np.abs(found["Q"]) % 1
    return found


def assert_same(mine: np.ndarray, theirs: np.ndarray) -> None:
    """The same unknowns, and values equal to 1e-9 relative (1e-12 absolute, for what should be 0)."""
    np.testing.assert_array_equal(np.isnan(mine), np.isnan(theirs))
    np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12, equal_nan=True)


def scratch(name: str, words: list[str], rows: dict[str, np.ndarray], constants: tuple[float, ...]) -> np.ndarray:
    """Return the oracle's last value for each symbol, computed from nothing."""
    columns = zip(*(rows[word].T for word in words), strict=True)
    return np.array([ORACLES[name].loop(*column, *constants)[-1] for column in columns])


@FUNCTION
def test_every_function_names_an_oracle_that_exists(name: str) -> None:
    assert name in ORACLES, f"add {name} to ORACLES in tests/rules/functions/oracles.py"
    assert FUNCTIONS[name].oracle in ORACLES[name].sources


def test_no_oracle_is_left_without_a_function() -> None:
    assert set(ORACLES) == FUNCTIONS.keys() - APART


@FUNCTION
def test_closed_bars_equal_the_definition(name: str) -> None:
    function = FUNCTIONS[name]
    for seed, constants in enumerate(constants_of(function)):
        for truth in {False, any(param.kind is ParamKind.ANY for param in function.params)}:
            expr, words = call_of(function, constants, any_is_truth=truth)
            rows = series(name, words, 45, 6, seed=seed, holes=0.15)
            bench = Bench(expr, 6, period=PERIODS[function.clock])
            mine = np.array([bench.close({w: rows[w][i] for w in words}) for i in range(45)])
            columns = zip(*(rows[w].T for w in words), strict=True)
            assert_same(mine, np.array([ORACLES[name].loop(*column, *constants) for column in columns]).T)


@FUNCTION
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), bars=st.integers(0, 40))
def test_forming_bar_equals_recompute_from_scratch_and_changes_nothing(name: str, seed: int, bars: int) -> None:
    function = FUNCTIONS[name]
    choices = constants_of(function)
    constants = choices[seed % len(choices)]
    expr, words = call_of(function, constants)
    rows = series(name, words, bars + 3, 4, seed=seed, holes=0.1)
    bench = Bench(expr, 4, period=PERIODS[function.clock])
    for i in range(bars):
        bench.close({w: rows[w][i] for w in words})
    before = copied(bench.state.dump())
    for i in range(bars, bars + 3):
        closed_and_forming = {w: np.concatenate([rows[w][:bars], rows[w][i : i + 1]]) for w in words}
        assert_same(bench.peek({w: rows[w][i] for w in words}), scratch(name, words, closed_and_forming, constants))
    after = bench.state.dump()
    for key in (key for key in before if key.startswith(f"{bench.period}/")):
        np.testing.assert_array_equal(before[key], after[key], err_msg=key)


@FUNCTION
def test_first_value_and_warmup_are_as_declared(name: str) -> None:
    function = FUNCTIONS[name]
    for constants in constants_of(function):
        expr, words = call_of(function, constants)
        rows = {w: np.full(40, 1.0) if w in TRUTH_WORDS else 5.0 + np.arange(40) for w in words}
        bench = Bench(expr, 1, period=PERIODS[function.clock])
        values = [bench.close({w: rows[w][i : i + 1] for w in words})[0] for i in range(40)]
        first = next(i for i, v in enumerate(values, 1) if not np.isnan(v))
        assert first == function.first(constants), (constants, values)
        assert bench.graph.warmup(bench.node) >= first - 1
        if function.result is not Kind.TRUTH:
            assert bench.graph.warmup(bench.node) == first - 1


@pytest.fixture(scope="module")
def closes(market_data: Path) -> dict[str, np.ndarray]:
    """Return 700 real one-minute bars of one stock as the words of the tests."""
    table = pq.read_table(market_data / "bars" / "1m-000001-201801.parquet").slice(0, 700)
    read = {w: table[c].to_numpy() for w, c in (("P", "close"), ("Q", "open"), ("R", "high"))}
    rising = {"SEALUP": read["P"] > read["Q"], "SEALDOWN": read["P"] < read["Q"], "VALID": read["R"] > read["P"]}
    read |= {"C": read["P"], "H": read["R"], "L": table["low"].to_numpy()}
    read |= {"LAST": read["P"], "ASKP1": read["P"], "BIDP1": read["Q"], "AMTDAY": np.cumsum(read["R"] - read["L"])}
    return read | {word: truth.astype(float) for word, truth in rising.items()}


@FUNCTION
def test_libraries_agree_on_real_bars(name: str, closes: dict[str, np.ndarray]) -> None:
    function = FUNCTIONS[name]
    rows = {"DMA": closes | {"Q": np.full(700, 0.3)}, "EXP": closes, "POW": closes | {"Q": np.full(700, 1.5)}}.get(
        name, closes
    )
    for constants in constants_of(function):
        expr, words = call_of(function, constants)
        bench = Bench(expr, 1, period=PERIODS[function.clock])
        mine = np.array([bench.close({w: rows[w][i : i + 1] for w in words})[0] for i in range(700)])
        for reference in ORACLES[name].references:
            theirs = np.array(reference.compute(*(rows[w].copy() for w in words), *constants), float)
            theirs[: reference.from_bar(*constants)] = np.nan
            both = ~np.isnan(mine) & ~np.isnan(theirs)
            assert both.sum() > 200, (reference.source, constants)
            np.testing.assert_allclose(mine[both], theirs[both], rtol=1e-9, atol=1e-9, err_msg=reference.source)
