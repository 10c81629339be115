"""The grammar: what parses to what, what is dropped, and what is refused with place and hint."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.errors import RuleFileError
from rules.language.parser import MAX_DEPTH, MAX_STATEMENTS, parse
from rules.language.text import normal, normal_formula
from rules.language.tree import (
    Binary,
    Binding,
    Call,
    Compare,
    CrossPeriod,
    CrossReference,
    Expr,
    Logic,
    Name,
    Negate,
    Not,
    Number,
    Text,
    walk,
)

A, B, C = Name("A"), Name("B"), Name("C")


def expr(text: str) -> Expr:
    formula = parse(text)
    return formula.statements[formula.condition].expr


def refusal(text: str) -> str:
    with pytest.raises(RuleFileError) as caught:
        parse(text)
    assert all(finding.hint for finding in caught.value.findings)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("a", A),
        ("1800", Number(1800.0)),
        (".5e1", Number(5.0)),
        ("5%", Number(0.05)),
        ("-a*b", Binary("*", Negate(A), B)),
        ("a-b-c", Binary("-", Binary("-", A, B), C)),
        ("a-(b-c)", Binary("-", A, Binary("-", B, C))),
        ("a+b*c", Binary("+", A, Binary("*", B, C))),
        ("+a", A),
        ("a--b", Binary("-", A, Negate(B))),
        ("a!=b", Compare("<>", A, B)),
        ("a==b", Compare("=", A, B)),
        ("a=b", Compare("=", A, B)),
        ("a>=b", Compare(">=", A, B)),
        ("a or b and c", Logic("OR", (A, Logic("AND", (B, C))))),
        ("a || b && c", Logic("OR", (A, Logic("AND", (B, C))))),
        ("(a or b) and c", Logic("AND", (Logic("OR", (A, B)), C))),
        ("a and (b and c)", Logic("AND", (A, B, C))),
        ("not a>b", Not(Compare(">", A, B))),
        ("!a>b", Not(Compare(">", A, B))),
        ("!(a>b)", Not(Compare(">", A, B))),
        ("not(a)>b", Compare(">", Not(A), B)),
        ("not (a)>b", Compare(">", Not(A), B)),
        ("not not a", Not(Not(A))),
        ("not a and b", Logic("AND", (Not(A), B))),
        ("order>android", Compare(">", Name("ORDER"), Name("ANDROID"))),
        ("notes>1", Compare(">", Name("NOTES"), Number(1.0))),
        ("ma(c,5)>ma", Compare(">", Call("MA", (C, Number(5.0))), Name("MA"))),
        ("f()", Call("F", ())),
        ("not()", Call("NOT", ())),
        ("close#day", CrossPeriod("CLOSE", "DAY")),
        ('"sh000001$close"', CrossReference("SH000001$CLOSE")),
        ('"MACD.DIF"(12,26)', CrossReference("MACD.DIF", (Number(12.0), Number(26.0)))),
        ("f('行业；（一）')", Call("F", (Text("行业；（一）"),))),
        ("ma＞f（a，b）", Compare(">", Name("MA"), Call("F", (A, B)))),
        ("五日线＞十日线", Compare(">", Name("五日线"), Name("十日线"))),
    ],
)
def test_text_parses_to_its_tree(text: str, tree: Expr) -> None:
    assert expr(text) == tree


@pytest.mark.parametrize(
    ("text", "spelt", "condition"),
    [
        ("X:=1;Y:X;", "X:=1;Y:X", 1),
        (";;a>1;;", "A>1", 0),
        ("x:a;b", "X:A;B", 1),
        ("a;x:b", "A;X:B", 1),
        ("a;x:=b", "A;X:=B", 0),
        ("MA5:MA(C,5),COLORRED,LINETHICK2;", "MA5:MA(C,5)", 0),
        ("X:C,NODRAW;STICKLINE(C>O,O,C,8,0),COLORFF00FF;", "X:C", 0),
        ("C>O;DRAWTEXT(C>O,L,'买；{入}'),COLORRED;DRAWICON(C>O,L,1)", "C>O", 0),
        ("SEL:C>O;D:DRAWTEXT(SEL,L,'x')", "SEL:C>O", 0),
        ("C>O;NODRAW", "C>O", 0),
        ("STICK:=C>O;A:1;STICK", "STICK:=C>O;A:1;STICK", 2),
        ("C>O,STICKTYPE(1)", "C>O", 0),
        ("{comment; with ; and '}C>{inner}O", "C>O", 0),
        ("C> // rest > ( \n O /* more \n * / ** */", "C>O", 0),
    ],
)
def test_statements_styles_and_comments(text: str, spelt: str, condition: int) -> None:
    formula = parse(text)
    assert (normal_formula(formula), formula.condition) == (spelt, condition)


def test_outputs_keep_their_spelling() -> None:
    formula = parse("Dif:C;多头:=O;Dif>多头")
    assert [(s.name, s.written, s.binding) for s in formula.statements] == [
        ("DIF", "Dif", Binding.OUTPUT),
        ("多头", "多头", Binding.PRIVATE),
        ("", "", Binding.NONE),
    ]
    assert [s.name for s in formula.outputs] == ["DIF"]


def test_every_node_knows_its_place() -> None:
    text = "{注释}X：=1；\n  MA（C，5）＞X"
    tree = expr(text)
    places = {normal(part): (part.span.line, part.span.column, part.span.end_column) for part in walk(tree)}
    assert places == {"MA(C,5)>X": (2, 3, 12), "MA(C,5)": (2, 3, 10), "C": (2, 6, 7), "5": (2, 8, 9), "X": (2, 11, 12)}
    assert all(text[part.span.start : part.span.end] for part in walk(tree))


PUBLISHED = {
    "MACD": "DIF:EMA(CLOSE,SHORT)-EMA(CLOSE,LONG);DEA:EMA(DIF,MID);MACD:(DIF-DEA)*2,COLORSTICK;",
    "KDJ": "RSV:=(CLOSE-LLV(LOW,N))/(HHV(HIGH,N)-LLV(LOW,N))*100;K:SMA(RSV,M1,1);D:SMA(K,M2,1);J:3*K-2*D;",
    "RSI": "LC:=REF(CLOSE,1);\nRSI1:SMA(MAX(CLOSE-LC,0),N1,1)/SMA(ABS(CLOSE-LC),N1,1)*100;",
    "BOLL": "BOLL:MA(CLOSE,M);UB:BOLL+2*STD(CLOSE,M);LB:BOLL-2*STD(CLOSE,M);",
    "DMI": "MTR:=SUM(MAX(MAX(HIGH-LOW,ABS(HIGH-REF(CLOSE,1))),ABS(REF(CLOSE,1)-LOW)),N);\nHD :=HIGH-REF(HIGH,1);\n"
    "LD :=REF(LOW,1)-LOW;\nDMP:=SUM(IF(HD>0&&HD>LD,HD,0),N);\nDMM:=SUM(IF(LD>0&&LD>HD,LD,0),N);\nPDI: DMP*100/MTR;",
    "XG": "VAR1:=(2*CLOSE+HIGH+LOW)/4;{选股}\n选股:CROSS(EMA(VAR1,9),EMA(VAR1,21)) AND V/REF(V,1)>1.5;",
    "TR": "TR:=MAX(MAX((HIGH-LOW),ABS(REF(CLOSE,1)-HIGH)),ABS(REF(CLOSE,1)-LOW));ATR:MA(TR,N),LINETHICK2;",
    "DRAW": "A1:=C>O;STICKLINE(A1,O,C,8,0),COLORRED;DRAWTEXT(CROSS(C,O),L*0.98,'买'),COLORYELLOW;A1 AND V>0;",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_formulas_parse_and_read_back(name: str) -> None:
    formula = parse(PUBLISHED[name])
    again = parse(normal_formula(formula))
    assert [s.expr for s in again.statements] == [s.expr for s in formula.statements]
    assert again.condition == formula.condition


names = st.from_regex(r"[A-Z][A-Z0-9_]{0,5}", fullmatch=True).filter(lambda n: n not in ("AND", "OR", "NOT"))
numbers = st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(Number)
leaves = (
    numbers
    | names.map(Name)
    | st.builds(CrossPeriod, names, names)
    | st.text("甲乙 ;:()A1", max_size=5).map(Text)
    | names.map(CrossReference)
)


def flat_logic(op: str, operands: list[Expr]) -> Expr:
    parts: list[Expr] = []
    for operand in operands:
        parts.extend(operand.operands if isinstance(operand, Logic) and operand.op == op else [operand])
    return Logic(op, tuple(parts))


def composed(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    args = st.lists(inner, max_size=3).map(tuple)
    return st.one_of(
        st.builds(Binary, st.sampled_from("+-*/"), inner, inner),
        st.builds(Compare, st.sampled_from([">", ">=", "<", "<=", "=", "<>"]), inner, inner),
        st.builds(flat_logic, st.sampled_from(["AND", "OR"]), st.lists(inner, min_size=2, max_size=3)),
        inner.map(Not),
        inner.map(Negate),
        st.builds(Call, names, args),
        st.builds(CrossReference, names, args.filter(len)),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(leaves, composed, max_leaves=20))
def test_the_normal_text_reads_back_as_the_same_tree(tree: Expr) -> None:
    assert expr(normal(tree) + ";") == tree


@settings(max_examples=200, deadline=None)
@given(st.text("AB1.5%()<>=!;:,'\"{}/*-+#&| \n；（）＞ANDORNOT", max_size=40))
def test_any_text_is_a_formula_or_refused_with_a_place(text: str) -> None:
    try:
        parse(text)
    except RuleFileError as error:
        for finding in error.findings:
            assert finding.line >= 1
            assert finding.column >= 1
            assert finding.column <= len(finding.source or "") + 1


GOLDENS = {
    "chained comparison": (
        "1<A<3",
        "f:1:4: error: comparisons do not chain\n1<A<3\n   ^\n    hint: write A<B AND B<C, or BETWEEN(B,A,C)",
    ),
    "open parenthesis": (
        "(A>1",
        "f:1:5: error: the formula ends, but a parenthesis is still open\n(A>1\n    ^\n    hint: close it with )",
    ),
    "parenthesis too many": (
        "A>1)",
        "f:1:4: error: this parenthesis was never opened\nA>1)\n   ^\n    hint: remove it or add ( before",
    ),
    "missing operand": (
        "A>AND B",
        "f:1:3: error: unexpected 'AND' where a value is needed\nA>AND B\n  ^^^\n"
        "    hint: a number, a word, a function call or ( … ) goes here",
    ),
    "missing operator, double width": (
        "五日线>1 十日线",
        "f:1:7: error: unexpected '十日线' right after a value\n五日线>1 十日线\n         ^^^^^^\n"
        "    hint: put an operator, AND, OR, a comma or ; between them",
    ),
    "condition taken for a style": (
        "LAST>5,SEALUP",
        "f:1:8: error: unknown drawing style 'SEALUP'\nLAST>5,SEALUP\n       ^^^^^^\n"
        "    hint: after a comma stands how to draw a line; join conditions with AND",
    ),
    "no condition": (
        "A:=1;\nB:=2",
        "f:2:1: error: the formula has no condition, only := assignments\nB:=2\n^^^^\n"
        "    hint: end with the condition itself, as in A:=MA(C,5); C>A",
    ),
    "comment left open": (
        "A>{1",
        "f:1:3: error: comment is not closed\nA>{1\n  ^\n    hint: end it with }",
    ),
    "text left open": (
        "F('买)",
        "f:1:3: error: text is not closed\nF('买)\n  ^\n    hint: end it with ' on the same line",
    ),
    "assigned expression": (
        "MA(C,5):=1",
        "f:1:8: error: unexpected ':=': only a name can be given a value\nMA(C,5):=1\n       ^^\n"
        "    hint: write NAME:=… or NAME:… at the start of a statement",
    ),
    "empty": ("  ", "f:1:1: error: the formula is empty\n  \n^\n    hint: write a condition, such as LAST>10"),
    "number too large": (
        "A>1e999",
        "f:1:3: error: this number is too large\nA>1e999\n  ^^^^^\n    hint: use one below 1E308",
    ),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_a_syntax_error_is_shown_with_carets_and_hint(name: str) -> None:
    text, shown = GOLDENS[name]
    with pytest.raises(RuleFileError) as caught:
        parse(text, file="f")
    assert str(caught.value) == shown
    assert caught.value.findings[0].hint


def test_the_first_line_counts_from_where_the_text_stands() -> None:
    with pytest.raises(RuleFileError) as caught:
        parse("A>1\nAND", file="x.tdx", first_line=10)
    assert caught.value.findings[0].line == 11


HUGE = {
    "a megabyte": "A+" * 500_000,
    "open parentheses": "(" * 19_000,
    "a long sum": "+".join(["1"] * 1_900),
    "signs": "-" * 3_000 + "A",
    "negations": "NOT " * 3_000 + "A",
    "calls": "F(" * 1_200 + "A" + ")" * 1_200,
    "many statements": "A;" * 1_500,
    "open comments": "{" * 19_000,
    "slashes and stars": "/*" * 9_000,
    "quotes": "'" * 19_999,
    "digits": "1" * 19_999,
    "one line of names": "A " * 9_999,
}


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_text_is_refused_at_once_and_never_crashes(name: str) -> None:
    parse("A")  # builds the grammar
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        with pytest.raises(RuleFileError):
            parse(HUGE[name])
        best = min(best, time.process_time() - start)
    assert best < 0.1


def test_the_limits_are_what_they_say() -> None:
    deepest = "(1+" * (MAX_DEPTH - 1) + "1" + ")" * (MAX_DEPTH - 1)
    assert normal(expr(deepest)).count("1") == MAX_DEPTH
    assert "nested more than 100 deep" in refusal(f"1+({deepest})")
    assert expr("(" * 1_900 + "A" + ")" * 1_900) == A
    assert len(parse(";;A;" * MAX_STATEMENTS).statements) == MAX_STATEMENTS
    with pytest.raises(RuleFileError, match="more than 250 statements") as caught:
        parse("A;\n" * (MAX_STATEMENTS + 1))
    assert caught.value.findings[0].line == MAX_STATEMENTS + 1


def test_the_grammar_ships_beside_the_parser() -> None:
    import rules.language.parser as parser

    assert (Path(parser.__file__).parent / "grammar.lark").is_file()
