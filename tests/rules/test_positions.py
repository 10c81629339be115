"""Positions: files with every mistake at its place, and their canonical JSON."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rules.errors import RuleError, RuleFileError
from rules.positions import NO_POSITIONS, Position, decode, encode, load

MOUTAI = Position("main", "600519.SH", 1500.25, 100.0)
PINGAN = Position("main", "000001.SZ", 12.0, 2000.0)
YAML = """version: 1
books:
  main:
  - {symbol: 600519.SH, entry: 1500.25, quantity: 100}
  - {symbol: "000001.SZ", entry: 12, quantity: 2000}
"""
CSV = """# exported
Quantity, symbol ,name,ENTRY,book
100,600519.SH,"贵州, 茅台",1500.25,main

2000,"000001.SZ",平安,"12", main
"""


def errors(text: str, file: str = "p.yaml") -> list[str]:
    with pytest.raises(RuleFileError) as caught:
        load({file: text})
    assert all(finding.hint and finding.file == file for finding in caught.value.findings)
    return [f"{f.line}:{f.column}+{f.width} {f.message}" for f in caught.value.findings]


def test_yaml_and_csv_say_the_same() -> None:
    assert load({"p.yaml": YAML}) == load({"p.CSV": "\ufeff" + CSV.replace("\n", "\r\n")}) == (PINGAN, MOUTAI)
    assert load({}) == ()
    assert load({"p.yaml": "version: 1\nbooks: {main: []}\n"}) == ()


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("", ["1:1+1 the file is empty"]),
        ("books: {}", ["1:1+1 version is missing"]),
        ("version: 1", ["1:1+1 books is missing"]),
        ("version: 2\nbooks: {}", ["1:10+1 this program reads version 1"]),
        ("version: 1\nbook: {}", ["2:1+4 a position file has no key 'book'"]),
        ("version: 1\nbooks: [a]", ["2:8+3 books is a table of key: value, not a list"]),
        ("version: 1\nbooks: {a b: []}", ["2:9+3 'a b' is no name of a book"]),
        ("version: 1\nbooks: {main: [600519.SH]}", ["2:16+9 a position is a table of key: value, not '600519.SH'"]),
        ("version: 1\nbooks: {m: [{symbol: 600519.SH, entry: 1}]}", ["2:13+1 quantity is missing"]),
        ("version: 1\nbooks: {m: [{symbol: 600519.SH, entry: 1, qty: 1}]}", ["2:43+3 a position has no key 'qty'"]),
        (
            "version: 1\nbooks: {m: [{symbol: 600519, entry: no, quantity: -5}]}",
            [
                "2:22+6 600519 is a code without its exchange, which YAML reads as the number 600519",
                "2:37+2 a number is needed here, not no",
                "2:51+2 a number above 0 is needed here, not -5",
            ],
        ),
        (
            "version: 1\nbooks: {m: [{symbol: 600519.SH, entry: .inf, quantity: 1e400}]}",
            ["2:40+4 a number is needed here, not .inf", "2:56+5 a number is needed here, not 1e400"],
        ),
        (
            YAML + "  - {symbol: 600519.SH, entry: 1400, quantity: 1}\n",
            ["6:14+9 600519.SH is twice in book main"],
        ),
    ],
)
def test_a_mistake_in_yaml_stands_at_its_place(text: str, findings: list[str]) -> None:
    assert errors(text) == findings


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("", ["1:1+1 the file is empty"]),
        ("# nothing\n\n", ["1:1+1 the file is empty"]),
        ("book,symbol,entry\n", ["1:1+17 the header has no column quantity"]),
        ("book,symbol,entry,entry,quantity\n", ["1:1+32 the header has column entry twice"]),
        ("book,symbol,entry,quantity\nmain,600519.SH,1500\n", ["2:1+19 3 cells, and the header has 4 columns"]),
        ("book,symbol,entry,quantity\nmain,600519.SH,1,500.25,100\n", ["2:1+27 5 cells, and the header has 4 columns"]),
        (
            'book,symbol,entry,quantity\nmain,600519.SH,"1,500",0\nmain,600519.SH,,1\n',
            [
                "2:17+5 a number is needed here, not 1,500",
                "2:24+1 a number above 0 is needed here, not 0",
                "3:16+1 a number is needed here, not this",
            ],
        ),
        ('book,symbol,entry,quantity\nmain,6005"19.SH,1,1\n', ["2:6+14 a quote within a cell"]),
        ("book,symbol,entry,quantity\n,600519.SH,1,1\n", ["2:1+1 there is no value here"]),
        (CSV + "1,600519.SH,x,9,main\n", ["6:3+9 600519.SH is twice in book main"]),
    ],
)
def test_a_mistake_in_csv_stands_at_its_place(text: str, findings: list[str]) -> None:
    assert errors(text, "p.csv") == findings


def test_a_symbol_is_once_in_a_book_over_all_files() -> None:
    with pytest.raises(RuleFileError) as caught:
        load({"a.yaml": YAML, "b.csv": CSV})
    assert [(f.file, f.line, f.hint) for f in caught.value.findings] == [
        ("b.csv", 3, "it is already in a.yaml:4"),
        ("b.csv", 5, "it is already in a.yaml:5"),
    ]


def test_equal_positions_are_equal_text() -> None:
    assert encode([MOUTAI, PINGAN]) == encode([PINGAN, MOUTAI])
    assert encode([Position("m", "600519.SH", 12, 1)]) == encode([Position("m", "600519.SH", 12.0, 1.0)])
    assert encode([]) == NO_POSITIONS


amounts = st.floats(min_value=1e-6, max_value=1e11, allow_nan=False)
symbols = st.sampled_from(["600519.SH", "000001.SZ", "430047.BJ"])


@given(st.dictionaries(st.tuples(st.sampled_from(["main", "账户-2"]), symbols), st.tuples(amounts, amounts)))
def test_positions_come_back_from_their_text(held: dict[tuple[str, str], tuple[float, float]]) -> None:
    positions = sorted(Position(*key, *value) for key, value in held.items())
    assert list(decode(encode(positions))) == positions


@pytest.mark.parametrize(
    "positions",
    [
        [MOUTAI, MOUTAI],
        [Position("main", "600519", 1.0, 1.0)],
        [Position("a/b", "600519.SH", 1.0, 1.0)],
        [Position("main", "600519.SH", 0.0, 1.0)],
        [Position("main", "600519.SH", math.nan, 1.0)],
        [Position("main", "600519.SH", math.inf, 1.0)],
        [Position("main", "600519.SH", 1.0, -1.0)],
    ],
)
def test_bad_positions_are_refused(positions: list[Position]) -> None:
    with pytest.raises(RuleError, match="position 600519"):
        encode(positions)


@pytest.mark.parametrize(
    "source",
    ["", "[]", "{}", '{"v":2,"positions":[]}', '{"v":1,"positions":[["main","600519.SH",1.0]]}',
     '{"v":1,"positions":3}',
     '{"v":1,"positions":[["main","600519.SH","1",1.0]]}', '{"v":1,"positions":[[1,"600519.SH",1.0,1.0]]}',
     '{"v":1,"positions":[["main","600519.SH",-1.0,1.0]]}'],
)  # fmt: skip
def test_what_is_no_text_of_positions_is_refused(source: str) -> None:
    with pytest.raises(RuleError):
        decode(source)
