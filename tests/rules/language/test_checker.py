"""What the checker accepts, refuses and warns of; the functions are those of the registry."""

from __future__ import annotations

import random
import time
from itertools import product

import numpy as np
import pytest

from rules.catalog import standard_formulas
from rules.errors import RuleFileError
from rules.functions.function import ParamKind
from rules.functions.registry import FUNCTIONS
from rules.graph import Graph
from rules.language import refusals
from rules.language.arguments import MAX_WINDOW
from rules.language.checker import MAX_HEIGHT, check
from rules.language.complaints import MAX_ERRORS
from rules.language.facts import Checked
from rules.language.parser import parse
from rules.language.report import render
from rules.language.text import normal_formula
from rules.language.words import DYNAINFO, SPELLINGS, WORDS, Scope
from rules.state import StateTable
from tests.rules.w1 import Columns


def checked(text: str, period: str = "1m") -> Checked:
    return check(parse(text), period=period)


def refused(text: str, period: str = "1m") -> list[str]:
    with pytest.raises(RuleFileError) as caught:
        checked(text, period)
    assert all(finding.hint for finding in caught.value.findings)
    return [f"{f.column}+{f.width} {f.message}" for f in caught.value.findings]


def warned(text: str, period: str = "1m") -> list[str]:
    return [f"{f.column}+{f.width} {f.message}" for f in checked(text, period).warnings]


_OTHERS = "of another symbol C, O, H, L, V, AMO, LAST, PCT are known, not NAME"
GOOD = {
    "tick": [
        "LAST>LIMITUP*99%",
        "C>1800 AND REF(C,1)<=1800",
        "CROSS(LAST,1800)",
        "BARSLAST(PCT>3)>10",
        "FILTER(PCT>3,5)",
        "IF(SEALUP,BIDV1,ASKV1)>100",
        "BETWEEN(LAST,10,20) AND VALID",
        "DYNAINFO(14)>5%",
        "RISE(180)>=3 AND RISE(30,AUCP)<1 AND HIGHS(60)=LAST AND LOWS(9,LAST)<LAST",
        "BIGTICK(1e6)=1 AND VRATIO(5)>2 OR DYNAINFO(17)>2",
        "ON(MIN1,V>MA(V,5)*3) AND HIGH#DAY=LAST",
        '"KDJ.J#DAY"<0 OR "SH000001$PCT"<-1',
        "SEALUP=1",
    ],
    "1m": [
        "N:=5;M:=N*2;CROSS(MA(C,N),MA(C,M))",
        "N:=10/2;MA(C,N)>MA(C,20/2)",
        "EMA(CLOSE,12)-EMA(CLOSE,26)>0",
        "SMA(C,6,1)>SUM(V,0)",
        "COUNT(C>O,5)=3 AND EVERY(C>O,3) AND EXIST(V>0,10)",
        "T:=C>O;COUNT(T,5)>2",
        "VOL>REF(VOL,1)*2 OR (AMOUNT>1e8 AND HIGH>HHV(REF(HIGH,1),20))",
        "PCT:=(C-REF(C,1))/REF(C,1)*100;PCT>3",
        "STD(C,20)>0 AND STDP(C,20)>0 AND LONGCROSS(MA(C,5),MA(C,10),3)",
        "LAST(C>O,5,1)",
        "RISE(300)>3 AND C>MA(C,5)",
        "!(C>O)",
        "N:=5;ON(WEEK,C>MA(C,N)) AND CLOSE#MONTH>REF(CLOSE#MONTH,1)",
        "ON(DAY,ON(WEEK,C)>MA(C,5)) AND CLOSE#MIN1>0",
        '"MACD.DIF"(12,26,9)>0 AND "KDJ.K#WEEK"(9,3,3)>"KDJ.D#WEEK" AND "BBI">C',
        'CROSS("SH000001$CLOSE",MA("SH000001$C",5))',
        "HHV(H,BARSLAST(C>O)+1)>REF(H,MIN(BARSCOUNT(C),5))",
        "P:=5/2;MA(C,P)>MA(C,10/4+1)",
    ],
}


@pytest.mark.parametrize(("period", "text"), [(period, text) for period, texts in GOOD.items() for text in texts])
def test_what_the_checker_accepts_the_graph_compiles(period: str, text: str) -> None:
    state = StateTable(3)
    graph = Graph(state, Columns(state))
    condition, _ = graph.add_formula(checked(text, period).formula, period=period)
    graph.plan([condition]).peek(slice(None))
    assert condition.value.t.shape == (3,)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("X>1", ["1+1 unknown name 'X'"]),
        ("A:=A+1;A>1", ["4+1 A is made of itself"]),
        ("A:=B;B:=A;B>1", ["4+1 B is used before it is assigned"]),
        ("A:=1;a:=2;A>C", ["6+1 a is assigned twice"]),
        ("C:=1;C>2", ["1+1 C is a field of the bar and can't be assigned"]),
        ("Close:O;C>2", ["1+5 CLOSE is a field of the bar and can't be assigned"]),
        ("X:=PCT;PCT:=X;PCT>3", ["4+3 PCT is used before it is assigned"]),
        ("MA>5", ["1+2 MA is a function"]),
        ("PCT(5)>5", ["1+3 PCT is no function"]),
        ("MA(C)>5", ["1+5 MA takes 2 arguments, not 1"]),
        ("ABS(C,5)>5", ["1+8 ABS takes 1 argument, not 2"]),
        ("NOT(C,O)", ["1+8 NOT takes 1 argument, not 2"]),
        ("EMA(C,V)>5", ["7+1 EMA(X,N): N must be a constant whole number of bars"]),
        ("MA(C,0)>5", ["6+1 MA(X,N): N must be at least 1, not 0"]),
        ("MA(C,-3)>5", ["6+2 MA(X,N): N must be at least 1, not -3"]),
        ("N:=2.5;MA(C,N)>5", ["13+1 MA(X,N): N is a number of bars and must be whole, not 2.5"]),
        ("SUM(C,1e9)>5", [f"7+3 SUM(X,N): N must be at most {MAX_WINDOW} bars, not 1e+09"]),
        ("SMA(C,6,C)>5", ["9+1 SMA(X,N,M): M must be a constant number"]),
        ("SMA(C,5,0)>5", ["1+10 SMA(X,N,M): M must be above 0 and at most N = 5, not 0"]),
        ("SMA(C,5,6)>5", ["1+10 SMA(X,N,M): M must be above 0 and at most N = 5, not 6"]),
        (
            "LAST(C>O,3,5)",
            ["1+13 LAST(COND,A,B): A is the bar further back, and must be at least B = 5, not 3"],
        ),
        (
            "UPNDAY(DOWNNDAY(UPNDAY(UPNDAY(UPNDAY(C,1),1),1),1),1)",
            [
                "31+6 UPNDAY stands 5 deep in calls that write their X out twice",
            ],
        ),
        ("C>1/0", ["5+1 division by zero: the value is never known"]),
        ("Z:=5-5;C>C/Z", ["12+1 division by zero: the value is never known"]),
        ("C>1e300*1e300", ["3+11 this number is too large"]),
        ("C>'x'", ["3+3 a text where a value is needed"]),
        ("C>DRAWNULL", ["3+8 DRAWNULL is no value to draw"]),
        ("DYNAINFO(C)>1", ["1+11 DYNAINFO takes one constant of those known here"]),
        ("DYNAINFO(99)>1", ["1+12 DYNAINFO takes one constant of those known here"]),
        ("DYNAINFO()>1", ["1+10 DYNAINFO takes one constant of those known here"]),
        ("DYNAINFO(37)>1", ["1+12 DYNAINFO(37): turnover needs the number of shares, which is unavailable"]),
        ("LAST:=1;DYNAINFO(7)>LAST", ["9+11 DYNAINFO(7) is LAST, but this formula assigns LAST"]),
        ("M5:=MA(C,5);M5#WEEK>1", ["13+7 M5 is a name of this formula and has no other period"]),
        ("RISE(180,C)>1", ["10+1 RISE(S[,X]): X is a word of the market"]),
        ("RISE(0)>1", ["6+1 RISE(S[,X]): S must be at least 1, not 0"]),
        ("RISE()>1", ["1+6 RISE takes 1 or 2 arguments, not 0"]),
        ("BIGTICK(1e6)>0", ["1+7 BIGTICK looks at single ticks"]),
        ("CLOSE#SEASON>1", ["1+12 there are no bars of SEASON"]),
        ("CLOSE#WEAK>1", ["1+10 there is no period WEAK"]),
        ("LAST#DAY>1", ["1+8 LAST is of the latest tick and the same on every period"]),
        ("ON(DAY,C#MIN5)>1", ["8+6 MIN5 is shorter than the period 1d: a formula looks at longer periods only"]),
        ("ON(DAY)>1", ["1+7 ON takes a period and an expression"]),
        ("X:=MA(C,5);ON(DAY,X>C)", ["19+1 X is of period 1m and has no value on another"]),
        ("EMA(C,N)>1;N:=3;", ["7+1 N is used before it is assigned"]),
        ('"FOO.X">1', ['1+7 "FOO.X": there is no shipped formula FOO; there are ' + ", ".join(standard_formulas())]),
        ('"MACD.X">1', ['1+8 "MACD.X": MACD has the outputs DIF, DEA, MACD, not X']),
        ('"MACD">1', ['1+6 "MACD": MACD has the outputs DIF, DEA, MACD, not one alone']),
        ('"MACD.DIF"(12,26)>1', ['1+17 "MACD.DIF": MACD takes 3 numbers (SHORT,LONG,MID), not 2 numbers']),
        ('"MACD.DIF"(0,26,9)>1', ['1+18 "MACD.DIF": EMA(X,N): N must be at least 1, not 0']),
        ('"MACD.DIF"(C,26,9)>1', ['1+18 "MACD.DIF": parameters are constant numbers']),
        ('"KDJ.K#YEAR">1', ["1+12 there are no bars of YEAR"]),
        ('"SH000001$NAME">1', [f'1+15 "SH000001$NAME" {_OTHERS}']),
        (
            '"SH00001$CLOSE">1',
            ["1+15 \"SH00001$CLOSE\" is neither another symbol's word nor a shipped formula's output"],
        ),
        ('"SH000001$C"(5)>1', ["1+15 a value of another symbol takes no arguments"]),
        ("UPNDAY(X,3)", ["8+1 unknown name 'X'"]),
        ("X>1 AND Y>1", ["1+1 unknown name 'X'", "9+1 unknown name 'Y'"]),
        ("X:=BAD;X>1 AND X<5", ["4+3 unknown name 'BAD'"]),
    ],
)
def test_mistakes_are_refused_each_once_at_its_place(text: str, findings: list[str]) -> None:
    assert refused(text) == findings


def test_period_tick_has_no_bars() -> None:
    assert refused("H>MA(C,5) AND REF(C,2)>COUNT(C>1,3)", "tick") == [
        "1+1 H is a field of bars, and period tick has none",
        "3+2 MA looks back over bars, and period tick has none",
        "21+1 REF(X,N): on period tick only the previous tick is kept, so N must be 1; set period: for bars",
        "24+5 COUNT looks back over bars, and period tick has none",
    ]
    with pytest.raises(RuleFileError) as caught:
        checked("VOL>1", "tick")
    hint = "write ON(MIN1,…) around it, or set period: to 1m … 1mon; or use VOLDAY, the day's"
    assert caught.value.findings[0].hint == hint


NEEDS = [
    ("1d", "EMA(C,26)>0", {"1d": 281}),
    ("1d", "MA(EMA(C,26),5)>REF(C,2)", {"1d": 285}),
    ("5m", "CROSS(MA(C,5),MA(C,60))", {"5m": 60}),
    ("5m", "X:=HHV(H,20);C>REF(X,1) AND ON(WEEK,C>MA(C,20)) AND CLOSE#DAY>1", {"5m": 21, "1w": 20, "1d": 1}),
    ("1d", '"MACD.DEA"(12,26,9)>"KDJ.K#WEEK"', {"1d": 281 + 104 - 1, "1w": 9 + 63 - 1}),
    ("1d", "HHV(H,BARSLAST(C>O)+1)>C", {"1d": 251}),
    ("tick", "RISE(180)>3 AND VRATIO(5)>2 AND BIGTICK(1e6)>0", {"tick": 6, "3s": 61, "1m": 1201}),
    ("tick", "CROSS(LAST,1800) AND ON(MIN1,MA(C,5))>0", {"tick": 1, "1m": 5}),
]


@pytest.mark.parametrize(("period", "text", "needs"), NEEDS)
def test_the_bars_a_formula_needs_add_up_by_period(period: str, text: str, needs: dict[str, int]) -> None:
    assert checked(text, period).needs == needs


def test_the_cap_is_what_a_window_of_series_length_needs() -> None:
    formula = parse("SUM(C,BARSCOUNT(C))>0")
    assert check(formula, period="1d", cap=60).needs == {"1d": 61}


def test_other_symbols_that_a_formula_reads_are_told() -> None:
    text = '"SH000001$CLOSE">0 AND "SZ399001$PCT">1 AND "SH000001$LAST">1'
    assert checked(text).symbols == {"000001.SH", "399001.SZ"}


@pytest.mark.parametrize("name", sorted(refusals.FUTURE))
def test_future_functions_are_refused_with_their_reason(name: str) -> None:
    assert refused(f"{name}(C,3)>1") == [
        f"1+{len(name)} {name} looks into the future: its value on a bar changes after the bar has closed"
    ]


@pytest.mark.parametrize("name", [*refusals.UNAVAILABLE, "L2_XYZ"])
def test_unavailable_functions_are_refused_with_their_reason(name: str) -> None:
    (finding,) = refused(f"{name}(1)>1")
    assert f"{name} is unavailable: it needs" in finding


@pytest.mark.parametrize("word", ["ENTRY", "QTY", "PEAK", "PNL"])
def test_words_of_positions_need_a_book(word: str) -> None:
    assert refused(f"{word}>1") == [f"1+{len(word)} {word} is a word of positions"]
    assert check(parse(f"{word}>1"), period="tick", words=SPELLINGS).words == {word}


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("C>O", []),
        ("C>O AND V>0 OR C>5", ["1+11 AND and OR are mixed without parentheses; AND binds tighter"]),
        ("C>5 OR C>O AND V>0", ["8+11 AND and OR are mixed without parentheses; AND binds tighter"]),
        ("(C>O AND V>0) OR C>5", []),
        ("(C>O) AND (V>0) OR C>5", ["1+15 AND and OR are mixed without parentheses; AND binds tighter"]),
        ("(C>5 OR C>O) AND V>0", []),
        ("C/O=2", ["1+5 = on a computed value is hardly ever what is meant"]),
        ("MA(C,5)<>O", ["1+10 <> on a computed value is hardly ever what is meant"]),
        ("PCT=3", ["1+5 = on a computed value is hardly ever what is meant"]),
        ("C=HHV(C,20) AND COUNT(C>O,3)=3 AND LAST=LIMITUP", []),
        ("X:=C*2;X=4", ["8+3 = on a computed value is hardly ever what is meant"]),
        ("NOT (C) > O", [
            "1+11 NOT (C) is a call, so its truth is compared, not the comparison negated",
            "6+1 C is a number; other than 0 counts as true",
        ]),
        ("NOT(C>O)", []),
        ("C-O", ["1+3 the condition is a number; other than 0 counts as true"]),
        ("C AND C>O", ["1+1 C is a number; other than 0 counts as true"]),
        ("COUNT(C-O,3)>1", ["7+3 C-O is a number; other than 0 counts as true"]),
        ("1", ["1+1 the condition never changes"]),
        ("PCT:=C;PCT>3", ["1+3 PCT hides the market word PCT (change on the previous close in %) in this formula"]),
    ],
)  # fmt: skip
def test_lints_warn_of_what_is_likely_not_meant(text: str, findings: list[str]) -> None:
    assert warned(text) == findings


def test_words_are_canonical_and_formulas_keep_their_spelling() -> None:
    found = checked("MA(CLOSE,5)>LOW AND VOL>0")
    assert found.words == {"C", "L", "V"}
    assert normal_formula(found.formula) == "MA(CLOSE,5)>LOW AND VOL>0"
    assert checked("CLOSE>1", "tick").words == {"LAST"}


@pytest.mark.parametrize("number", DYNAINFO)
def test_dynainfo_stands_for_words(number: int) -> None:
    found = checked(f"DYNAINFO({number})>1", "tick")
    assert normal_formula(found.formula) == f"{DYNAINFO[number]}>1"
    assert found.words <= set(WORDS)


def test_every_word_can_be_read_where_it_belongs() -> None:
    for word in WORDS.values():
        if word.scope is not Scope.POSITION:
            for spelling in (word.name, *word.synonyms):
                assert checked(f"{spelling}>0").words == {word.name}
            assert word.zh
            assert word.en


def test_the_golden_of_the_rule_language_page() -> None:
    text = "MA5:=MA(C,5);\nCORSS(MA5,MA5) AND C>MA(C,60)"
    with pytest.raises(RuleFileError) as caught:
        check(parse(text), period="5m", file="rules.yaml", first_line=30)
    assert str(caught.value) == (
        "rules.yaml:31:1: error: unknown function 'CORSS'\n"
        "CORSS(MA5,MA5) AND C>MA(C,60)\n"
        "^^^^^\n"
        "    hint: did you mean CROSS?"
    )


def test_carets_stand_right_under_double_width_text() -> None:
    with pytest.raises(RuleFileError) as caught:
        checked("金叉：=C；死叉＞1 AND 金叉＞1")
    assert str(caught.value) == (
        "formula:1:7: error: unknown name '死叉'\n"
        "金叉：=C；死叉＞1 AND 金叉＞1\n"
        "          ^^^^\n"
        "    hint: assign it with :="
    )


def test_a_chain_of_names_is_bounded_in_depth_and_doubling_names_in_cost() -> None:
    chain = "A0:=C;" + ";".join(f"A{i}:=A{i - 1}+1" for i in range(1, 240)) + ";A239>1"
    assert any(f"nests more than {MAX_HEIGHT} deep" in finding for finding in refused(chain))
    doubling = "A0:=C;" + ";".join(f"A{i}:=A{i - 1}+A{i - 1}" for i in range(1, 60)) + ";A59>1"
    start = time.process_time()
    assert checked(doubling).warnings == ()
    assert time.process_time() - start < 0.1


def test_thousands_of_mistakes_are_told_quickly() -> None:
    text = "+".join(f"XY{i}(1)" for i in range(90)) + ";" + ";".join(f"QX{i}+1" for i in range(240)) + ";C>1"
    took_s = []
    for _ in range(3):  # the least: what else the machine does is no property of the checker
        start = time.process_time()
        assert len(refused(text)) == MAX_ERRORS
        took_s.append(time.process_time() - start)
    assert min(took_s) < 0.1


def test_folded_constants_are_what_the_graph_computes() -> None:
    state = StateTable(1)
    source = Columns(state)
    graph = Graph(state, source)
    condition, _ = graph.add_formula(checked("N:=1+2*4-18/2;C>10+N*1%", "tick").formula, period="tick")
    for price, truth in ((9.999, False), (10.001, True)):
        source.set("tick", slice(None), C=price)
        graph.plan([condition]).peek(slice(None))
        assert bool(condition.value.t[0]) is truth  # type: ignore[union-attr]
    assert np.isfinite(price)


def test_a_rendered_warning_says_warning() -> None:
    (finding,) = checked("C-O").warnings
    assert render(finding).startswith("formula:1:1: warning: ")


SERIES = ("CROSS", "MAX", "BETWEEN", "ABS", "BARSLAST", "VALUEWHEN", "IF")
WINDOWED = ("MA", "EMA", "SUM", "HHV", "REF", "COUNT", "EVERY", "FILTER", "WMA", "STD")


def invented(rng: random.Random, depth: int = 0) -> str:
    """Return a random expression of words, local names N and X, operators and functions."""
    if depth > 3 or rng.random() < 0.3:
        return rng.choice(["C", "LAST", "H", "5", "2.5", "0", "-3", "X", "SEALUP", "10/2", "DYNAINFO(14)"])
    if rng.random() < 0.5:
        op = rng.choice(["+", "-", "*", "/", ">", "<=", "=", " AND ", " OR "])
        return f"({invented(rng, depth + 1)}{op}{invented(rng, depth + 1)})"
    if rng.random() < 0.5:
        return f"{rng.choice(WINDOWED)}({invented(rng, depth + 1)},{rng.choice(['5', 'N', 'N*2/1', '10/2'])})"
    name = rng.choice(SERIES)
    arity = {"ABS": 1, "BARSLAST": 1, "BETWEEN": 3, "IF": 3}.get(name, 2)
    return f"{name}({','.join(invented(rng, depth + 1) for _ in range(arity))})"


def test_the_graph_compiles_whatever_the_checker_lets_through() -> None:
    passed = 0
    for seed in range(1_500):
        rng = random.Random(seed)
        period = rng.choice(["tick", "1m"])
        try:
            found = checked(f"N:=10/2;X:={invented(rng)};{invented(rng)}>{invented(rng)}", period)
        except RuleFileError:
            continue
        passed += 1
        state = StateTable(1)
        Graph(state, Columns(state)).add_formula(found.formula, period=period)
    assert passed > 300


def test_the_graph_compiles_whatever_constants_the_checker_lets_through() -> None:
    passed = 0
    for name, function in FUNCTIONS.items():
        kinds = [param.kind for param in function.params if not param.words]
        constants = [kind in (ParamKind.WINDOW, ParamKind.CONSTANT) for kind in kinds]
        for given in product(("0", "1", "5", "1E-300", "2000"), repeat=sum(constants)):
            left = iter(given)
            args = [next(left) if is_constant else "C" for is_constant in constants]
            for period in ("tick", "1m"):
                try:
                    found = checked(f"{name}({','.join(args)})>0", period)
                except RuleFileError:
                    continue
                passed += 1
                state = StateTable(1)
                Graph(state, Columns(state)).add_formula(found.formula, period=period)
    assert passed > len(FUNCTIONS)


def test_calls_that_write_an_argument_out_twice_cost_no_minutes() -> None:
    text = "C"
    for _ in range(30):
        text = f"UPNDAY({text},2)"
    start = time.process_time()
    refused(text)
    assert time.process_time() - start < 0.5
