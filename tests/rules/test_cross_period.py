"""Values of longer periods and of other symbols inside a formula, while bars of several periods form and close."""

from __future__ import annotations

import numpy as np
import pytest

from rules.errors import RuleError
from rules.evaluate import as_floats
from rules.graph import Graph
from rules.language.parser import parse
from rules.node import ALL
from rules.state import StateTable
from tests.rules.functions.oracles import ORACLES
from tests.rules.functions.test_registry import assert_same
from tests.rules.w1 import Columns

nan = np.nan
INNER, OUTER = "15m", "5m"
PER_INNER = 3


class Tape:
    """5m bars of n symbols and the 15m bars they make up; commits in the engine's order, the shorter period first."""

    def __init__(self, text: str, n: int = 2, *, closed: bool = False) -> None:
        self.state = StateTable(n)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=50)
        self.closed = closed
        self.node = self.add(text)
        self.bar = 0
        self.open_inner: list[np.ndarray] = []
        self.closes: list[np.ndarray] = []
        """Close of each 5m bar so far."""

    def add(self, text: str):  # type: ignore[no-untyped-def]
        node = self.graph.add(parse(text).statements[0].expr, period=OUTER, closed=self.closed)
        self.plan = self.graph.plan([node])
        return node

    def form(self, close: np.ndarray) -> np.ndarray:
        """Let the forming bars of both periods stand at this close, and return the node's value."""
        self.source.set(OUTER, ALL, C=close, END=(self.bar + 1) * 5)
        self.source.set(INNER, ALL, C=close, END=(self.bar // PER_INNER + 1) * 15)
        self.plan.peek(ALL)
        return as_floats(self.node).copy()

    def close(self) -> np.ndarray:
        """Commit the forming bar, and the 15m bar where that ends here too; return the value at the close."""
        everyone = np.arange(self.state.n)
        self.graph.commit(OUTER, everyone)
        value = as_floats(self.node).copy()
        if self.bar % PER_INNER == PER_INNER - 1:
            self.graph.commit(INNER, everyone)
        self.bar += 1
        return value


def walk(bars: int, n: int = 2, *, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.round(10 + np.cumsum(rng.normal(0, 0.2, (bars, n)), axis=0), 2)


def inner_closes(closes: np.ndarray, forming: np.ndarray) -> np.ndarray:
    """Return the 15m closes, the last one forming, given the 5m closes before and the price now."""
    whole = len(closes) // PER_INNER
    return np.vstack([closes[PER_INNER - 1 : whole * PER_INNER : PER_INNER], forming])


@pytest.mark.parametrize("text", ["ON(MIN15,MA(C,3))", "ON(MIN15,EMA(C,4))", "CLOSE#MIN15"])
def test_a_longer_period_is_seen_with_its_forming_bar(text: str) -> None:
    rng = np.random.default_rng(1)
    tape, closes = Tape(text), walk(40)
    for i, close in enumerate(closes):
        for price in (*(close + rng.normal(0, 0.3, (rng.integers(0, 3), 2))), close):
            value = tape.form(price)
            assert_same(value, oracle(text, inner_closes(closes[:i], price)))
        assert_same(tape.close(), oracle(text, inner_closes(closes[:i], close)))


def oracle(text: str, series: np.ndarray) -> np.ndarray:
    """Return the value of the inner formula at the last of these bars."""
    if text == "CLOSE#MIN15":
        return series[-1]
    name, n = ("MA", 3) if "MA(C,3)" in text and "EMA" not in text else ("EMA", 4)
    return np.array([ORACLES[name].loop(column, n)[-1] for column in series.T])


@pytest.mark.parametrize("text", ["ON(MIN15,EMA(C,4))", "CLOSE#MIN15"])
def test_at_bar_close_only_closed_bars_of_the_longer_period_count(text: str) -> None:
    tape, closes = Tape(text, closed=True), walk(40)
    for i, close in enumerate(closes):
        tape.form(close)
        value = tape.close()
        whole = (i + 1) // PER_INNER  # 15m bars that end no later than this 5m bar
        ends = closes[PER_INNER - 1 : whole * PER_INNER : PER_INNER]
        assert_same(value, oracle(text, ends) if whole else np.full(2, nan))


def test_functions_of_the_own_period_run_over_values_of_the_longer_one() -> None:
    tape, closes = Tape("REF(ON(MIN15,MA(C,2)),1)"), walk(30)
    before = np.full(2, nan)
    for i, close in enumerate(closes):
        assert_same(tape.form(close), before)
        tape.close()
        series = inner_closes(closes[:i], close)
        before = series[-2:].mean(axis=0) if len(series) > 1 else np.full(2, nan)


def test_a_cross_of_the_own_price_over_the_longer_average_fires_once() -> None:
    tape = Tape("CROSS(C,ON(MIN15,MA(C,2)))", n=1)
    fired = []
    for price in (10.0, 10.0, 10.0, 9.0, 9.0, 9.0, 11.0, 12.0, 12.0):
        tape.form(np.array([price]))
        fired.append(tape.close()[0])
    assert fired == [0, 0, 0, 0, 0, 0, 1, 0, 0]


def test_periods_nest_and_constants_are_known_inside() -> None:
    graph = Graph(state := StateTable(1), Columns(state))
    names = {"N": parse("2+1").statements[0].expr}
    nested = graph.add(parse("ON(DAY,ON(WEEK,MA(C,N))>C)").statements[0].expr, period="5m", names=names)
    assert "MA(C,3)" in {node.key for node in graph.nodes("1w")}
    assert graph.plan([nested]).nodes[-1] is nested
    assert [node.period for node in graph.plan([nested]).nodes][-1] == "5m"


def test_the_own_period_needs_no_second_layer() -> None:
    graph = Graph(state := StateTable(1), Columns(state))
    on, plain = (parse(text).statements[0].expr for text in ("ON(MIN5,MA(C,5))", "MA(C,5)"))
    assert graph.add(on, period="5m") is graph.add(plain, period="5m")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ON(MIN1,C)", "MIN1 is shorter than the rule's period 5m"),
        ("CLOSE#SEASON", "SEASON is not a period"),
        ('"KDJ.K#MIN1"', "no period, or shorter"),
        ('"KDJ.Q"', "KDJ has the outputs K, D, J, not Q"),
        ('"MACD.DIF"(C,26,9)', "must be a constant number"),
        ("BIGTICK(5)", "period tick alone"),
        ("RISE(180,C,O)", "takes 1 or 2 arguments, not 3"),
    ],
)
def test_what_cannot_be_crossed_says_why(text: str, message: str) -> None:
    graph = Graph(state := StateTable(1), Columns(state))
    with pytest.raises(RuleError, match=message):
        graph.add(parse(text).statements[0].expr, period="5m")


def test_nodes_of_the_longer_period_live_as_long_as_their_readers() -> None:
    tape, closes = Tape("ON(MIN15,EMA(C,4))"), walk(30)
    for close in closes[:20]:
        tape.form(close)
        tape.close()
    tape.graph.remove_unused([tape.node])
    kept = tape.form(closes[20])
    assert not np.isnan(kept).any()
    tape.graph.remove_unused([])
    assert not any("EMA" in node.key for node in tape.graph.nodes(INNER))


def test_a_hot_reload_sees_the_longer_period_as_it_is_and_its_past_as_unknown() -> None:
    always, late = Tape("ON(MIN15,MA(C,2))"), Tape("CLOSE#MIN15")
    closes = walk(31)
    for close in closes[:30]:
        for tape in (always, late):
            tape.form(close)
            tape.close()
    late.node = late.add("ON(MIN15,MA(C,2))")
    averaged = late.add("MA(ON(MIN15,MA(C,2)),4)")
    for period in (OUTER, INNER):
        late.graph.warm(period)
    late.plan = late.graph.plan([late.node, averaged])
    assert_same(late.form(closes[30]), always.form(closes[30]))
    assert np.isnan(as_floats(averaged)).all()


def test_a_checkpoint_restores_both_periods() -> None:
    text = "ON(MIN15,EMA(C,4))-REF(ON(MIN15,EMA(C,4)),2)"
    straight, stopped = Tape(text), Tape(text)
    closes = walk(40)
    for close in closes[:25]:
        for tape in (straight, stopped):
            tape.form(close)
            tape.close()
    resumed = Tape(text)
    resumed.state.load(stopped.state.dump())
    resumed.bar = stopped.bar
    for close in closes[25:]:
        np.testing.assert_array_equal(resumed.form(close), straight.form(close))
        np.testing.assert_array_equal(resumed.close(), straight.close())


# ── other symbols ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_another_symbols_value_is_that_of_the_last_second_for_all() -> None:
    state = StateTable(3)
    source = Columns(state)
    graph = Graph(state, source)
    node = graph.add(parse('"SH000001$LAST"').statements[0].expr, period="tick")
    plan = graph.plan([node])
    source.set("tick", ALL, LAST=np.array([1.0, 5.0, 3.0]))
    graph.sample_others()
    source.set("tick", ALL, LAST=np.array([1.0, 6.0, 3.0]))
    plan.peek(ALL)
    assert as_floats(node).tolist() == [5.0] * 3
    graph.sample_others()
    plan.peek(np.array([2, 0]))
    assert as_floats(node).tolist() == [6.0] * 2


def test_a_symbol_outside_the_universe_is_unknown_until_it_comes() -> None:
    state = StateTable(1)
    source = Columns(state)
    graph = Graph(state, source)
    node = graph.add(parse('LAST>"SH000001$LAST"').statements[0].expr, period="tick")
    plan = graph.plan([node])
    source.set("tick", ALL, LAST=np.array([7.0]))
    graph.sample_others()
    plan.peek(ALL)
    assert np.isnan(as_floats(node)).all()
    state.grow(2)
    source.set("tick", ALL, LAST=np.array([7.0, 4.0]))
    graph.sample_others()
    plan.peek(ALL)
    assert as_floats(node).tolist() == [1.0, 0.0]


def test_bars_of_another_symbol_are_of_the_formulas_period_and_go_through_windows() -> None:
    state = StateTable(2)
    source = Columns(state)
    graph = Graph(state, source)
    node = graph.add(parse('MA("SH000001$CLOSE",3)').statements[0].expr, period="5m")
    values = []
    for index in (1.0, 2.0, 3.0, 7.0):
        source.set("5m", ALL, C=np.array([50.0, index]))
        graph.sample_others()
        graph.commit("5m", np.arange(2))
        values.append(as_floats(node).tolist())
    assert values[2:] == [[2.0, 2.0], [4.0, 4.0]]


def test_samples_end_with_their_nodes() -> None:
    state = StateTable(1)
    graph = Graph(state, Columns(state))
    graph.add(parse('"SH000000$LAST">1').statements[0].expr, period="tick")
    assert graph.wants_seconds
    graph.remove_unused([])
    assert not graph.wants_seconds
    assert not any("sample" in name for name in state.names())
    graph.sample_others()
