"""The graph as the engine uses it: sharing, passes, commits, hot reload, checkpoints; symbols in any selection."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.errors import RuleError
from rules.evaluate import as_floats
from rules.functions.averages import Smoothed
from rules.functions.function import Clock
from rules.functions.registry import FUNCTIONS
from rules.graph import Graph
from rules.language.parser import parse
from rules.language.tree import Binary, Call, Compare, Expr, Kind, Name, Number
from rules.node import ALL, Node, Selection, Truth
from rules.state import StateTable, copied
from tests.rules.functions.test_registry import PERIOD, TRUTH_WORDS, call_of, constants_of
from tests.rules.w1 import CONDITIONS, FIELDS, INDICATORS, Columns, call, walk

BOOK_WORDS = {"P": "C", "Q": "H", "R": "L"}


def expr_of(text: str) -> Expr:
    return parse(text).statements[0].expr


def every_function() -> list[Expr]:
    """Return one call of every function, on bar fields and truth words, besides W1."""
    found: list[Expr] = [*INDICATORS.values(), *CONDITIONS]
    for function in FUNCTIONS.values():
        if function.clock is not Clock.BARS:
            continue
        constants = constants_of(function)[-1]
        expr, _ = call_of(function, constants)
        assert isinstance(expr, Call)
        args = tuple(Name(BOOK_WORDS.get(a.name, a.name)) if isinstance(a, Name) else a for a in expr.args)
        found.append(Call(expr.name, args))
    return found


class Market:
    """A graph with its columns, fed from bars (k, n) per word."""

    def __init__(self, exprs: list[Expr], n: int, *, window: int = 70) -> None:
        self.state = StateTable(n)
        self.source = Columns(self.state)
        self.graph = Graph(self.state, self.source, window=window)
        self.nodes = [self.graph.add(expr, period=PERIOD) for expr in exprs]
        self.plan = self.graph.plan(self.nodes)

    def put(self, at: Selection, row: dict[str, np.ndarray]) -> None:
        self.source.set(PERIOD, at, **{word: values[at] for word, values in row.items()})

    def peek(self, at: Selection) -> list[np.ndarray]:
        self.plan.peek(at)
        return [as_floats(node).copy() for node in self.nodes]

    def close(self, at: np.ndarray, row: dict[str, np.ndarray]) -> None:
        self.put(at, row)
        self.graph.commit(PERIOD, at)

    def own_state(self) -> dict[str, np.ndarray]:
        return copied({name: array for name, array in self.state.dump().items() if name.startswith(f"{PERIOD}/")})


def some_bars(bars: int, n: int, *, seed: int) -> list[dict[str, np.ndarray]]:
    """Return rows of bars with flat stretches, unknown highs and truths."""
    rng = np.random.default_rng(seed)
    columns = walk(n, bars, seed=seed)
    flat = rng.random((bars, n)) < 0.3
    for i in range(1, bars):
        columns["C"][i][flat[i]] = columns["C"][i - 1][flat[i]]
    columns["H"][rng.random((bars, n)) < 0.1] = np.nan
    for word in TRUTH_WORDS:
        columns[word] = rng.choice([1.0, 0.0, np.nan], (bars, n), p=[0.4, 0.5, 0.1])
    return [{word: values[i] for word, values in columns.items()} for i in range(bars)]


def assert_identical(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_no_bit_depends_on_which_symbols_are_committed_together(seed: int) -> None:
    n, bars = 7, 40
    rng = np.random.default_rng(seed)
    rows = some_bars(bars, n, seed=seed)
    skipped = rng.random((bars, n)) < rng.choice([0.0, 0.2])
    grouped, single = Market(every_function(), n), Market(every_function(), n)
    for row, skips in zip(rows, skipped, strict=True):
        there = np.flatnonzero(~skips)
        grouped.close(there, row)
        order = rng.permutation(there)
        for part in np.array_split(order, rng.integers(1, 4)):
            if part.size:
                single.close(part, row)
    assert_identical(grouped.own_state(), single.own_state())
    grouped.put(ALL, rows[0])
    single.put(ALL, rows[0])
    chosen = rng.permutation(n)[:4]
    for whole, part in zip(grouped.peek(ALL), single.peek(chosen), strict=True):
        np.testing.assert_array_equal(whole[chosen], part)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), at_bar=st.integers(0, 30))
def test_checkpoint_and_restore_at_any_bar_change_nothing(seed: int, at_bar: int) -> None:
    rows = some_bars(34, 5, seed=seed)
    straight, stopped = Market(every_function(), 5), Market(every_function(), 5)
    at = np.arange(5)
    for market in (straight, stopped):
        for row in rows[:at_bar]:
            market.close(at, row)
    resumed = Market(every_function(), 5)
    resumed.state.load(stopped.state.dump())
    for row in rows[at_bar:]:
        straight.close(at, row)
        resumed.close(at, row)
    assert_identical(straight.own_state(), resumed.own_state())


def test_a_symbol_that_comes_later_starts_from_nothing_and_disturbs_no_other() -> None:
    rows = some_bars(30, 4, seed=5)
    grown, fresh = Market(every_function(), 3), Market(every_function(), 4)
    for row in rows[:10]:
        grown.close(np.arange(3), row)
        fresh.close(np.arange(3), row)
    grown.state.grow(4)
    for row in rows[10:]:
        grown.close(np.arange(4), row)
        fresh.close(np.arange(4), row)
    assert_identical(grown.own_state(), fresh.own_state())


def test_peek_changes_no_state() -> None:
    rows = some_bars(30, 5, seed=9)
    market = Market(every_function(), 5)
    for row in rows[:25]:
        market.close(np.arange(5), row)
    before = market.own_state()
    for row in rows[25:]:
        market.put(ALL, row)
        market.peek(ALL)
        market.peek(np.array([3, 1]))
    assert_identical(before, market.own_state())


def test_values_after_a_commit_are_those_of_the_closed_bar() -> None:
    rows = some_bars(30, 5, seed=11)
    market = Market(every_function(), 5)
    for row in rows:
        market.put(ALL, row)
        expected = market.peek(ALL)
        market.close(np.arange(5), row)
        for node, value in zip(market.nodes, expected, strict=True):
            np.testing.assert_array_equal(as_floats(node), value, err_msg=node.key)


def test_equal_expressions_are_one_node_in_every_spelling() -> None:
    market = Market([], 2)

    def node(text: str) -> Node:
        return market.graph.add(expr_of(text), period=PERIOD)

    assert node("MA(CLOSE, 5)") is node("ma(c,2+3)")
    assert node("C+O") is node("O+C")
    assert node("C > O") is node("O < C")
    assert node("C > O AND H > 5") is node("H>5 && (C>O)")
    assert node("C <= O") is node("!(C > O)")
    assert node("EMA(C,3)") is node("SMA(C,2,1)")
    assert node("C-O") is not node("O-C")
    assert market.graph.add(expr_of("C"), period="1m") is not node("C")


def test_local_names_are_what_they_stand_for() -> None:
    market = Market([], 2)
    formula = parse("X:=MA(C,5); LB : x*2; Y:=LB>C; Y AND X>0")
    condition, outputs = market.graph.add_formula(formula, period=PERIOD)
    assert condition.kind is Kind.TRUTH
    assert list(outputs) == ["LB"]
    assert outputs["LB"] is market.graph.add(expr_of("2*MA(C,5)"), period=PERIOD)
    names = {"X": expr_of("MA(C,5)"), "Y": expr_of("X*2")}
    assert market.graph.add(expr_of("Y"), period=PERIOD, names=names) is outputs["LB"]


def test_names_that_double_their_text_compile_in_little_time_and_key() -> None:
    text = "A0:=MA(C,5);" + "".join(f"A{i}:=A{i - 1}+A{i - 1}*2;" for i in range(1, 40)) + "A39>1"
    market = Market([], 2)
    market.graph.add_formula(parse(text), period=PERIOD)
    assert max(len(node.key) for node in market.graph.nodes(PERIOD)) < 1000


def test_nodes_that_no_one_reads_go_and_the_kept_keep_their_state() -> None:
    rows = some_bars(30, 3, seed=2)
    market = Market([expr_of("EMA(C,12)"), expr_of("STD(C-O,20)")], 3)
    alone = Market([expr_of("EMA(C,12)")], 3)
    for row in rows[:20]:
        market.close(np.arange(3), row)
        alone.close(np.arange(3), row)
    market.graph.remove_unused(market.nodes[:1])
    assert_identical(market.own_state(), alone.own_state())
    again = market.graph.add(expr_of("STD(C-O,20)"), period=PERIOD)
    market.graph.plan([again]).peek(ALL)
    assert isinstance(again.value, np.ndarray)
    assert np.isnan(again.value).all()


@pytest.mark.parametrize("skipping", [False, True])
def test_nodes_of_a_hot_reload_have_the_state_they_would_have_had(skipping: bool) -> None:
    words = FIELDS
    late: list[Expr] = [*INDICATORS.values(), *CONDITIONS, expr_of("WMA(C-O*2,6)"), expr_of("COUNT(C>REF(C,1),5)")]
    rows = [{w: row[w] for w in words} for row in some_bars(100, 5, seed=3)]
    rng = np.random.default_rng(3)
    there = [np.flatnonzero(rng.random(5) < (0.8 if skipping else 2)) for _ in rows]
    early = Market([expr_of("EMA(C,12)"), expr_of("MA(C,5)")], 5, window=120)
    always = Market([expr_of("EMA(C,12)"), expr_of("MA(C,5)"), *late], 5, window=120)
    for row, at in zip(rows[:90], there[:90], strict=True):
        early.close(at, row)
        always.close(at, row)
    early.nodes += [early.graph.add(expr, period=PERIOD) for expr in late]
    early.graph.warm(PERIOD)
    assert_identical(_without_rings(early), _without_rings(always))
    for row, at in zip(rows[90:], there[90:], strict=True):
        early.close(at, row)
        always.close(at, row)
        assert_identical(_without_rings(early), _without_rings(always))


def test_functions_that_come_one_after_the_other_have_the_state_they_would_have_had() -> None:
    exprs = every_function()
    always, grown = Market(exprs, 3, window=40), Market([expr_of("C")], 3, window=40)
    # Truths of the market are not kept: what reads them begins with the first bar behind its making.
    rows = [{word: row[word] for word in FIELDS} for row in some_bars(40, 3, seed=7)]
    for row in rows:
        always.close(np.arange(3), row)
        grown.close(np.arange(3), row)
    for place in np.random.default_rng(7).permutation(len(exprs)):
        grown.graph.add(exprs[place], period=PERIOD)
        grown.graph.warm(PERIOD)
    assert_identical(_without_rings(grown), _without_rings(always))


WINDOWS_OF_THEIR_RING_ALONE = (
    "AVEDEV(EMA(C,5),9)", "SUM(EMA(C,5),BARSLAST(C>O)+1)", "HHV(EMA(C,5),BARSLAST(C>O)+1)",
    "REF(EMA(C,5),BARSLAST(C>O))", "COUNT(EMA(C,5)>O,BARSLAST(C>O)+1)",
)  # fmt: skip


@pytest.mark.parametrize("text", WINDOWS_OF_THEIR_RING_ALONE)
@pytest.mark.parametrize("old", ["C", "EMA(C,5)"])
def test_a_late_ring_whose_reader_has_no_state_of_its_own_is_filled(text: str, old: str) -> None:
    always, late = Market([expr_of(old), expr_of(text)], 3, window=40), Market([expr_of(old)], 3, window=40)
    for row in some_bars(37, 3, seed=7):
        for market in (always, late):
            market.close(np.arange(3), {word: row[word] for word in FIELDS})
    late.graph.add(expr_of(text), period=PERIOD)
    late.graph.warm(PERIOD)
    assert_identical(late.own_state(), always.own_state())


def test_only_new_nodes_and_what_they_read_live_again(monkeypatch: pytest.MonkeyPatch) -> None:
    market = Market([expr_of("EMA(C,12)"), expr_of("EMA(H,5)")], 2, window=20)
    for row in some_bars(20, 2, seed=8):
        market.close(np.arange(2), row)
    lived: list[str] = []
    commit = Smoothed.commit

    def noted(self: Smoothed, at: np.ndarray) -> None:
        lived.append(self.key)
        commit(self, at)

    monkeypatch.setattr(Smoothed, "commit", noted)
    market.graph.add(expr_of("EMA(EMA(C,12),9)"), period=PERIOD)
    market.graph.warm(PERIOD)
    assert len(lived) == 2 * 20  # the new one and its argument, at each bar
    assert not any("H" in key for key in lived)


def _without_rings(market: Market) -> dict[str, np.ndarray]:
    """Return what nodes carry; a ring made late may be of another depth."""
    return {name: array for name, array in market.own_state().items() if "/ring" not in name}


def test_warming_leaves_older_nodes_and_the_forming_bar_as_they_are() -> None:
    rows = some_bars(60, 3, seed=4)
    market = Market([expr_of("EMA(C,12)"), expr_of("BARSLAST(SEALUP)")], 3, window=20)
    for row in rows[:50]:
        market.close(np.arange(3), row)
    market.put(ALL, rows[50])
    before, forming = market.own_state(), market.peek(ALL)
    market.graph.add(expr_of("EMA(C,30)"), period=PERIOD)
    market.graph.warm(PERIOD)
    after = market.own_state()
    assert_identical(before, {name: after[name] for name in before})
    for old, new in zip(forming, market.peek(ALL), strict=True):
        np.testing.assert_array_equal(old, new)


def test_restored_nodes_are_not_warmed_again() -> None:
    rows = some_bars(60, 3, seed=4)
    market, restored = Market([expr_of("SUM(C,0)")], 3, window=20), Market([expr_of("SUM(C,0)")], 3, window=20)
    for row in rows:
        market.close(np.arange(3), row)
    restored.state.load(market.state.dump())
    restored.graph.add(expr_of("MA(C,5)"), period=PERIOD)
    restored.graph.warm(PERIOD)
    kept = restored.own_state()
    assert_identical(market.own_state(), {name: kept[name] for name in market.own_state()})


TIES = (
    ("CROSS(MA(C,5),MA(C,10))", "MA(C,5)>MA(C,10)", "MA(C,5)<MA(C,10)", "MA(C,5)<>MA(C,10)"),
    ("CROSS(EMA(C,12),EMA(C,26))", "EMA(C,12)>EMA(C,26)", "EMA(C,12)<EMA(C,26)", "EMA(C,12)<>EMA(C,26)"),
    ("LONGCROSS(C,MA(C,20),1)", "C>MA(C,20)", "C<MA(C,20)", "C<>MA(C,20)"),
)


@pytest.mark.parametrize("texts", TIES)
def test_flat_prices_never_cross_and_are_equal(texts: tuple[str, ...]) -> None:
    prices = np.round(np.arange(1, 4001) * 0.01 + 0.03, 2)
    market = Market([expr_of(text) for text in texts], prices.size)
    for _ in range(40):
        market.close(np.arange(prices.size), {"C": prices})
        for node in market.nodes:
            assert isinstance(node.value, Truth)
            assert not node.value.t.any()


@pytest.mark.parametrize("name", ["STD", "STDP", "VAR", "VARP", "DEVSQ", "AVEDEV"])
def test_the_spread_of_ties_is_exactly_zero_even_where_their_last_bits_differ(name: str) -> None:
    market = Market([call(name, Name("C"), 5)], 2)
    for noise in (0.0, 4e-12, -4e-12, 2e-12, 0.0, 4e-12):
        market.close(np.arange(2), {"C": np.array([0.07, 1700.31]) + noise})
    assert as_floats(market.nodes[0]).tolist() == [0.0, 0.0]
    market.close(np.arange(2), {"C": np.array([0.07, 1700.31]) + 0.001})
    assert (as_floats(market.nodes[0]) > 0).all()


def test_a_flat_bar_divides_by_zero_to_unknown_and_what_is_smoothed_holds() -> None:
    market = Market(
        [expr_of("(C-LLV(L,3))/(HHV(H,3)-LLV(L,3))"), expr_of("SMA((C-LLV(L,3))/(HHV(H,3)-LLV(L,3)),3,1)")], 1
    )
    for high, low, price in [(11.0, 9.0, 10.0), (10.1, 10.1, 10.1), (10.1, 10.1, 10.1), (10.1, 10.1, 10.1)]:
        market.close(np.array([0]), {"H": np.array([high]), "L": np.array([low]), "C": np.array([price])})
    ratio, smoothed = (float(as_floats(node)[0]) for node in market.nodes)
    assert np.isnan(ratio)
    assert not np.isnan(smoothed)


@pytest.mark.parametrize(
    ("text", "c", "o", "expected"),
    [
        ("H/(C-O)", 0.3, 0.1 + 0.2, None),
        ("H/(C-O)", 2e9, 2e9 + 1, None),
        ("H/(C*O)", 1e-5, 1e-5, None),
        ("H/(C*O)", 2.0, 3.0, 1.0),
        ("H/C", 0.0, 1.0, None),
        ("H/C", 1e-10, 1.0, 6e10),
        ("H/(C-5)", 5.0, 1.0, None),
        ("0/C", 0.0, 1.0, None),
    ],
)
def test_a_divisor_that_is_zero_to_its_operands_tolerance_is_zero(
    text: str, c: float, o: float, expected: float | None
) -> None:
    market = Market([expr_of(text)], 1)
    market.put(ALL, {"C": np.array([c]), "O": np.array([o]), "H": np.array([6.0])})
    value = float(market.peek(ALL)[0][0])
    assert np.isnan(value) if expected is None else value == pytest.approx(expected)


U = None
KLEENE = [(1, 1, 1, 1), (1, 0, 0, 1), (1, U, U, 1), (0, 0, 0, 0), (0, U, 0, U), (U, U, U, U)]


@pytest.mark.parametrize(("a", "b", "conjunction", "disjunction"), KLEENE)
def test_unknown_follows_kleene(a: int | None, b: int | None, conjunction: int | None, disjunction: int | None) -> None:
    texts = ("SEALUP AND SEALDOWN", "SEALDOWN AND SEALUP", "SEALUP OR SEALDOWN", "NOT SEALUP")
    market = Market([expr_of(text) for text in texts], 1)

    def column(value: int | None) -> np.ndarray:
        return np.array([np.nan if value is None else value], float)

    market.put(ALL, {"SEALUP": column(a), "SEALDOWN": column(b)})
    expected = [conjunction, conjunction, disjunction, None if a is None else 1 - a]
    np.testing.assert_array_equal([v[0] for v in market.peek(ALL)], [column(e)[0] for e in expected])


def test_if_looks_at_the_chosen_branch_only() -> None:
    market = Market([expr_of("IF(C>O,H,L)"), expr_of("IF(C>O,SEALUP,H>0)")], 3)
    nan = np.nan
    columns = {
        "C": [2.0, 0.0, nan],
        "O": [1.0, 1.0, 1.0],
        "H": [7.0, nan, 7.0],
        "L": [nan, 8.0, 8.0],
        "SEALUP": [1.0] * 3,
    }
    market.put(ALL, {word: np.array(values) for word, values in columns.items()})
    numbers, truths = market.peek(ALL)
    np.testing.assert_array_equal(numbers, [7.0, 8.0, nan])
    np.testing.assert_array_equal(truths, [1.0, nan, nan])


def test_on_tick_each_commit_is_one_bar() -> None:
    state = StateTable(2)
    source = Columns(state)
    graph = Graph(state, source)
    node = graph.add(expr_of("CROSS(C,10)"), period="tick")
    fired = []
    for price in (9.99, 10.0, 10.01, 10.02, 9.0, 11.0):
        source.set("tick", np.array([1]), C=price)
        graph.commit("tick", np.array([1]))
        assert isinstance(node.value, Truth)
        fired.append(bool(node.value.t[0]))
    assert fired == [False, False, True, False, False, True]
    assert not any(name.startswith("tick/") and "/ring" in name for name in state.names())


def test_warmup_adds_up_along_a_formula() -> None:
    market = Market([expr_of("MA(REF(C,3),5)"), expr_of("EMA(MA(C,10),5)"), expr_of("CROSS(MA(C,5),MA(C,10))")], 1)
    assert [market.graph.warmup(node) for node in market.nodes] == [7, 9, 10]


REFUSED: list[tuple[Expr, str]] = [
    (Call("CORSS", (Name("C"), Name("O"))), "unknown function 'CORSS'"),
    (Call("MA", (Name("C"),)), r"MA\(X,N\) takes 2 arguments, not 1"),
    (Call("EMA", (Name("C"), Name("O"))), r"EMA\(X,N\): N must be a constant"),
    (call("MA", Name("C"), 0), "N must be at least 1, not 0"),
    (call("MA", Name("C"), 2.5), "must be whole, not 2.5"),
    (call("STD", Name("C"), 1), "N must be at least 2, not 1"),
    (call("SMA", Name("C"), 3, 4), "M must be above 0 and at most N = 3, not 4"),
    (call("LAST", Compare(">", Name("C"), Number(1.0)), 1, 2), "must be at least B = 2, not 1"),
    (call("DYNAINFO", 37), "DYNAINFO takes one of 3, 4"),
    (Binary("/", Call("REF", (Name("C"), Number(-1.0))), Name("O")), "N must be at least 0, not -1"),
]


@pytest.mark.parametrize(("expr", "message"), REFUSED)
def test_what_cannot_be_compiled_says_why(expr: Expr, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        Market([], 1).graph.add(expr, period=PERIOD)


def test_dynainfo_is_the_word_it_stands_for() -> None:
    market = Market([], 1)
    assert market.graph.add(expr_of("DYNAINFO(7)"), period=PERIOD).key == "LAST"
    assert market.graph.add(expr_of("DYNAINFO(12)"), period=PERIOD).key == "(LAST-PRECLOSE)"


def test_state_of_w1_is_within_a_kilobyte_per_symbol_and_period() -> None:
    market = Market([*INDICATORS.values(), *CONDITIONS], 100)
    own = sum(array.nbytes for name, array in market.own_state().items() if "/ring" not in name)
    assert own / 100 <= 1024


def test_a_plan_takes_nodes_of_several_periods() -> None:
    market = Market([], 1)
    nodes = [market.graph.add(expr_of("C*2"), period=period) for period in ("1m", "5m")]
    market.source.set("1m", ALL, C=1.0)
    market.source.set("5m", ALL, C=5.0)
    market.graph.plan(nodes).peek(ALL)
    assert [as_floats(node)[0] for node in nodes] == [2.0, 10.0]
