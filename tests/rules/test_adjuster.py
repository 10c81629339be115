"""State over an ex-rights day against bars adjusted from the start, for every function and standard formula."""

from __future__ import annotations

import numpy as np
import pytest

from rules.adjuster import Adjuster
from rules.catalog import standard_formulas
from rules.degrees import MIXED, PRICES, VOLUMES, degrees
from rules.evaluate import as_floats
from rules.exrights import Adjustment
from rules.functions.function import Clock
from rules.functions.registry import FUNCTIONS, Function, ParamKind
from rules.graph import Graph, reach
from rules.language.parser import parse
from rules.language.tree import Kind
from rules.lifecycle import Ledger
from rules.market import Market
from rules.node import Node

PERIOD = "5m"
SYMBOLS = tuple(f"60000{i}.SH" for i in range(6))
EX = np.array([1, 3, 4])
FACTORS = Adjustment(EX, np.array([0.5, 0.97, 0.7]), np.array([2.0, 1.0, 1.4]))
AFTER = 90
"""Bars before the ex-rights day."""
BARS = 140
NUMBERS = ("C", "H", "L")
TRUTHS = ("(C>REF(C,1))", "(H>REF(O,2))", "(V>REF(V,1))")
ARGUMENTS = {
    "DMA": "C,(H-L)/H", "POW": "C,2", "SAR": "4,2,20", "SMA": "C,5,2", "LAST": "(C>REF(C,1)),5,2",
    "RANGE": "C,L,H", "BETWEEN": "C,L,REF(H,1)",
}  # fmt: skip
"""Arguments of functions for which those made up by kind would mean nothing."""


def call_of(function: Function) -> str:
    """Return a call of the function on bars, its constants 5."""
    numbers, truths = iter(NUMBERS), iter(TRUTHS)
    args = [
        "5" if param.is_constant else next(truths if param.kind is ParamKind.TRUTH else numbers)
        for param in function.params
    ]
    return f"{function.name}({ARGUMENTS.get(function.name) or ','.join(args)})"


CALLS = {name: call_of(function) for name, function in FUNCTIONS.items() if function.clock is Clock.BARS}
MORE = (
    "COUNT(C>REF(C,1),0)", "HHV(H,0)", "LLVBARS(L,0)", "SUM(V,0)", "SUM(C*V,0)", "REF(C,40)", "MA(C,100)",
    "HHV(H,BARSLAST(C>REF(C,1))+1)", "REF(V,BARSLAST(C<REF(C,1)))", "VAR(C,5)-VARP(C,5)", "COVAR(C,V,9)", "EMA(C,60)",
    "MA(C,5)>MA(C,20)", "FILTER(C>REF(C,3),4)", "EXPMEMA(C,9)", "EMA(AMO,9)/MA(AMO,5)", "ABS(C-REF(C,1))/C",
    "SQRT(C*H)/C", "VALUEWHEN(C>REF(C,1),H)", "EVERY(C>L,BARSLAST(C>REF(C,1))+2)", "EMA(-C,7)", "SMA(MAX(C-O,0),7,1)",
)  # fmt: skip
ABSOLUTE = (
    "COUNT(C>18,5)", "BARSLAST(C>18)", "CROSS(C,18)", "EMA(MAX(C,18),5)", "SUM(IF(C>18,V,0),0)", "MA(LN(C),5)",
    "EMA(C+1,9)", "REF(C>18,3)", "FILTER(C>18,9)", "COUNT(V>5000,7)", "HHV(C-0.3*H+1,7)", "EMA(FLOOR(C),5)",
)  # fmt: skip
"""What compares with numbers of its own: it is made anew from the bars that are kept."""


def bars() -> dict[str, np.ndarray]:
    """Return (BARS, n) per field: walks on the 0.01 grid with flat stretches and sealed bars."""
    rng = np.random.default_rng(7)
    steps = rng.integers(-25, 26, (BARS, len(SYMBOLS))) * (rng.random((BARS, len(SYMBOLS))) < 0.7)
    close = (1900 + np.cumsum(steps, axis=0)) / 100
    spread = rng.integers(0, 15, (2, *close.shape)) * (rng.random(close.shape) < 0.8) / 100
    volume = np.round(rng.uniform(1, 1e4, close.shape))
    opened = close + np.minimum(spread[0], 0.03)
    high, low = np.maximum(close, opened) + spread[0], close - spread[1]
    return {"C": close, "O": opened, "H": high, "L": low, "V": volume, "AMO": volume * close * 100}


def adjusted(raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the bars as they would be, had the day's price been that of all days before."""
    found = {word: column.copy() for word, column in raw.items()}
    for word in "COHL":
        found[word][:AFTER, EX] *= FACTORS.price
    found["V"][:AFTER, EX] *= FACTORS.shares
    return found


class Line:
    """Expressions over the bars of some symbols, through the market's own columns."""

    def __init__(self, texts: tuple[str, ...], *, window: int) -> None:
        self.market = Market()
        self.market.rows(SYMBOLS)
        self.graph = Graph(self.market.state, self.market, window=window)
        self.adjuster = Adjuster(self.graph, self.market)
        self.nodes: dict[str, Node] = {
            text: self.graph.add(parse(text).statements[0].expr, period=PERIOD) for text in texts
        }
        self.adjuster.follow(())
        self.plan = self.graph.plan(self.nodes.values())

    def put(self, raw: dict[str, np.ndarray], i: int) -> None:
        for word, column in self.market.period(PERIOD).fields.items():
            column.array[:] = raw[word][i]

    def peek(self, raw: dict[str, np.ndarray], i: int) -> dict[str, np.ndarray]:
        self.put(raw, i)
        self.plan.peek(slice(None))
        return {text: as_floats(node).copy() for text, node in self.nodes.items()}

    def close(self, raw: dict[str, np.ndarray], i: int) -> None:
        self.put(raw, i)
        self.graph.commit(PERIOD, np.arange(len(SYMBOLS)))


def assert_follows(texts: tuple[str, ...], *, window: int) -> None:
    raw = bars()
    told, scratch = Line(texts, window=window), Line(texts, window=window)
    as_if = adjusted(raw)
    for i in range(BARS):
        if i == AFTER:
            told.adjuster.apply(FACTORS, Ledger())
        if i >= AFTER:
            mine, theirs = told.peek(raw, i), scratch.peek(as_if, i)
            for text in texts:
                what = f"{text}, {i - AFTER} bars later"
                np.testing.assert_array_equal(np.isnan(mine[text]), np.isnan(theirs[text]), err_msg=what)
                np.testing.assert_allclose(mine[text], theirs[text], rtol=1e-9, atol=1e-9, err_msg=what)
        told.close(raw, i)
        scratch.close(as_if, i)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_function_goes_on_as_if_its_past_had_been_adjusted_however_little_is_kept(name: str) -> None:
    absolute = FUNCTIONS[name].result is not Kind.TRUTH and name in ("LN", "LOG", "EXP", "FLOOR", "CEILING", "INTPART")
    assert_follows((CALLS[name],), window=BARS if absolute else 10)


@pytest.mark.parametrize("text", MORE)
def test_an_expression_goes_on_as_if_its_past_had_been_adjusted(text: str) -> None:
    assert_follows((text,), window=10)


@pytest.mark.parametrize("name", sorted(standard_formulas()))
def test_a_standard_formula_goes_on_as_if_its_past_had_been_adjusted(name: str) -> None:
    assert_follows(tuple(f'"{name}.{output}"' for output in standard_formulas()[name].outputs), window=10)


@pytest.mark.parametrize("text", ABSOLUTE)
def test_what_compares_with_numbers_of_its_own_is_made_anew_from_the_bars_kept(text: str) -> None:
    assert_follows((text,), window=BARS)


def test_rules_share_their_nodes_and_all_are_adjusted_once() -> None:
    assert_follows((*MORE, *CALLS.values(), '"MACD.MACD"', '"KDJ.J"'), window=BARS)


@pytest.mark.parametrize(
    ("text", "price", "volume"),
    [
        ("C", 1, 0), ("C*V", 1, 1), ("C/V", 1, -1), ("AMO", 0, 0), ("STD(C,5)", 1, 0), ("VAR(C,5)", 2, 0),
        ("C>REF(C,1)", 0, 0), ("C>0", 0, 0), ("C>10", MIXED, 0), ("V>10", 0, MIXED), ("C-O>0 AND V>REF(V,1)", 0, 0),
        ("MAX(C-REF(C,1),0)", 1, 0), ("(C-REF(C,1))/REF(C,1)*100>3", 0, 0), ("C>DAYOPEN*1.05", 0, 0),
        ("BETWEEN(LAST,10,12)", MIXED, 0), ("PCT>3", 0, 0), ("C+1", MIXED, 0), ("SEALUP", 0, 0),
        ("IF(C>REF(C,1),C,0)", 1, 0), ("SQRT(C*H)", 1, 0), ("LN(C/O)", 0, 0), ("LN(C)", MIXED, 0),
        ('"RSI.RSI1"', 0, 0), ('"BOLL.UB"', 1, 0), ('"OBV.OBV"', 0, 1), ('"SH000001$CLOSE">3000', 0, 0),
    ],
)  # fmt: skip
def test_how_a_value_grows_with_prices_and_volumes(text: str, price: float, volume: float) -> None:
    line = Line((text,), window=10)
    (node,) = line.nodes.values()
    nodes = tuple(reach([node]))
    assert (degrees(nodes, PRICES)[node], degrees(nodes, VOLUMES)[node]) == (price, volume)


def test_every_function_has_a_rule_of_growth() -> None:
    for name, text in CALLS.items():
        line = Line((text,), window=10)
        nodes = tuple(reach(line.nodes.values()))
        found = degrees(nodes, {})
        assert MIXED not in found.values(), name
